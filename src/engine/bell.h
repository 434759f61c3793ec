/* bell.h - what the background thread of an engine inside an application sleeps on: the control socket,
 * whoever rings for it, and the port if it likes. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct bell {
	int ring_fd;
	int quiet_epoll; /* control socket, ring */
	int port_epoll;  /* and what the stack sleeps on */
};

/* 0 or -E; what was opened is left to the end of the process. The thread that will wait. */
int bell_open(struct bell *b, int control_fd, int port_fd);

/* Ends the wait that is under way, or the next one. Any thread, also in a signal handler; changes errno. */
void bell_ring(const struct bell *b);

/* Waits for so long at most, with_port: for the port, too. True when something came: then, or before the next
 * wait at least, bell_hush. */
bool bell_wait(const struct bell *b, bool with_port, uint64_t limit_ns);

/* The ringing was heard. */
void bell_hush(const struct bell *b);
