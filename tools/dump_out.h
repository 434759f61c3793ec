/* dump_out.h - where pronk-dump's packets go: a file, several in turn, standard output, or tcpdump(8), which
 * prints them. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "capture.h"

enum { DUMP_OUT_FLAGS_MAX = 32 };

struct dump_out_spec {
	const char *path;                    /* "-": standard output; NULL: printed by tcpdump */
	uint64_t size_max;                   /* a file that is larger gets no more packets; 0: any size */
	uint32_t interval_s;                 /* a file gets packets for that long; 0: for ever */
	uint32_t file_count;                 /* 0: any number. What it means is told at -W in pronk-dump(1) */
	char *flags[DUMP_OUT_FLAGS_MAX + 1]; /* for tcpdump */
	uint32_t flag_count;
	/* known when the capture has begun */
	uint8_t mac[6];
	char comment[768];
};

struct dump_out;

/* Opens the first file, or starts tcpdump. NULL with a line in err. */
struct dump_out *dump_out_open(const struct dump_out_spec *spec, char *err, size_t err_size);

/* Writes a packet, into the next file when it is its turn. 0; 1 when the last of file_count files is full, so
 * that the capture is over; or -E with a line in err. */
int dump_out_add(struct dump_out *out, const struct capture_record *record, const struct capture_shm *shm,
        char *err, size_t err_size);
/* What was added is in the file. 0 or -E with a line in err. */
int dump_out_flush(struct dump_out *out, char *err, size_t err_size);

/* Ends the file with the counts of shm, and waits for tcpdump. 0 or -E with a line in err. Accepts NULL. */
int dump_out_close(struct dump_out *out, const struct capture_shm *shm, char *err, size_t err_size);

/* Packets that matched, and those of them that were dropped, on all stacks. */
void dump_out_counts(const struct capture_shm *shm, uint64_t *matched, uint64_t *dropped);

/* The name of file number idx, as tcpdump(8) makes it: interval_s has PATH's strftime(3) words filled in. 0,
 * or -ENAMETOOLONG. */
int dump_out_name(const struct dump_out_spec *spec, uint32_t idx, int64_t time_s, char *buf, size_t size);
