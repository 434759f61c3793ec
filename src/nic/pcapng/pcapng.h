/* pcapng.h - capture files in the pcapng format, as DPDK's library writes them.
 *
 * For one thread of a program that is no service: pcapng_start starts the driver library with nothing in it
 * but a port that stands for the captured one, because the library describes ports and takes its packets in
 * the driver library's buffers. It needs no privileges, no hugepages and leaves nothing behind.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "capture.h"

struct pcapng;

/* Once per process, before the first file; the thread stays on the cores it had. Takes a fifth of a second. 0
 * or -E with a line in err. */
int pcapng_start(char *err, size_t err_size);
void pcapng_stop(void);

/* Writes the beginning of a file to fd, which belongs to the file from now on (also after a failure). mac,
 * application and comment appear in it. NULL: err has the reason. */
struct pcapng *pcapng_open(int fd, const uint8_t mac[6], const char *application, const char *comment,
        char *err, size_t err_size);

/* Adds a packet; it is written with pcapng_flush, or when a few have come together. 0 or -E. Blocks as
 * write(2) does; signals must not interrupt it. */
int pcapng_add(struct pcapng *file, const struct capture_record *record);
int pcapng_flush(struct pcapng *file);

/* Bytes of the file, with what pcapng_add has taken. */
uint64_t pcapng_size(const struct pcapng *file);

/* Writes how many packets matched and were dropped since the capture began. 0 or -E. */
int pcapng_stats(struct pcapng *file, uint64_t matched, uint64_t dropped);

/* Writes what is left and closes. 0 or -E. Accepts NULL. */
int pcapng_close(struct pcapng *file);
