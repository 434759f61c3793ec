/* wiretap.h - how a capture begins and ends: the messages between pronk-dump and the service.
 *
 * The request is a struct capture_spec in sealed memory, the answer carries the memory of the rings. The
 * capture lasts as long as the connection, so it ends with pronk-dump however that ends.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "capture.h"

/* What pronk-dump has of a capture. */
struct wiretap {
	int ctl_fd;
	struct capture_shm *shm;
	size_t shm_size;
};

/* Asks the service at the socket path for a capture. Blocks for the answer (5 s at most). 0, or -E with a
 * line in err: -ECONNREFUSED or -ENOENT when no service listens, -EPERM when this user may not, or what the
 * service says is wrong. */
int wiretap_open(
        struct wiretap *d, const char *path, const struct capture_spec *spec, char *err, size_t err_size);
void wiretap_close(struct wiretap *d);

/* False when the service has ended. Does not block. */
bool wiretap_is_alive(const struct wiretap *d);

/* --- the service's half; control thread --- */

struct server;
struct conn;

/* Serves a CTL_CAPTURE with the descriptor that came along, which stays the caller's. 1 when a capture has
 * begun (c->capture), 0 when the request was refused, with an answer; -E when it cannot be answered. */
int wiretap_begin(struct server *s, struct conn *c, int fd);
