/* server.h - the control server: who is attached, the descriptors they get, and what happens when they are
 * gone.
 *
 * One struct server runs in the service's main thread. It knows the arena but neither stacks nor ports: what
 * it wants from those it asks through struct server_ops, which the engine fills. The messages are those of
 * arena/attach.h. Everything that a client wrote is checked; whom a connection belongs to is remembered here
 * and not read from shared memory.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "stat.h"

struct server;
struct capture_spec;

/* What the server asks of the engine. Called in the server's thread; must not block. Each of the first two
 * hands one message to every stack, or to none: *left is the number of stacks, and each stack takes one off
 * when it has run the message. They return 0, or -E when nothing was posted: the server then tries again a
 * little later. */
struct server_ops {
	int (*client_gone)(void *arg, uint32_t client_idx, _Atomic uint32_t *left);
	int (*barrier)(void *arg, _Atomic uint32_t *left);
	/* Writes the effective configuration into buf, ended by NUL; returns its size without that, or -E. */
	int (*config_text)(void *arg, bool json, char *buf, size_t size);
	/* As nic_capture_start, _stop and _free. */
	int (*capture_start)(
	        void *arg, const struct capture_spec *spec, int *shm_fd, char *err, size_t err_size);
	void (*capture_stop)(void *arg, uint32_t capture);
	void (*capture_free)(void *arg, uint32_t capture);
	/* Runs a command of a tool whose effective user is uid. Text in buf, ended by NUL: what there is to
	 * show, or why it is refused. The text's size, or -E. */
	int (*command)(void *arg, uint32_t uid, const char *words, bool json, char *buf, size_t size);
};

/* Everything the server needs; copied. What it points to, and the descriptors, stay the caller's and must
 * outlive the server. */
struct server_spec {
	const char *socket_path;
	struct arena *arena;
	struct stat_block *stats; /* the block that clients_attached and clients_died are written to, by this
	                             thread only */
	_Atomic int *poller_fds;  /* ARENA_POLLER_MAX event fds, all -1 at start; written here, read by the
	                             stacks */
	int stats_fd;
	int stack_fd[ARENA_STACK_MAX];
	uint32_t region_count;
	struct {
		int fd;
		uint64_t fd_offset, size;
	} region[ARENA_REGION_MAX];
	struct server_ops ops;
	void *ops_arg;
};

/* Makes the server and begins to listen (mode 0666: any user may attach). A stale socket is replaced, so the
 * caller must hold the lock of lock.h. Control thread. 0 and *out, or -E with a reason. */
int server_create(struct server **out, const struct server_spec *spec, char *err, size_t err_size);

/* A descriptor that is readable when server_serve has something to do; constant. */
int server_fd(const struct server *s);

/* Serves what is due; does not block. Control thread. */
void server_serve(struct server *s);

/* Stops listening and removes the socket; who has connected and not said what it wants is sent away.
 * Attached clients stay connected, and are served if server_serve is called. Not from within server_serve.
 * Accepts NULL. */
void server_close(struct server *s);

/* The calling process has taken the server over from the one it is a copy of: who connects sees its
 * credentials from now on (SO_PEERCRED is noted by listen(2), unix(7)). */
void server_listen_again(struct server *s);

/* Stops listening and hangs up on everybody, but frees nothing and lets go of no descriptor: a stack may be
 * in the middle of its work with them. */
void server_hang_up(struct server *s);

/* Hangs up on everybody and frees the server. No stack may run any more (they count down in its memory).
 * Accepts NULL. */
void server_destroy(struct server *s);

/* Clients that are attached, are being forked, or are being cleaned up after. Control thread. */
uint32_t server_client_count(const struct server *s);
