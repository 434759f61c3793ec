/* server_int.h - what the files of the control server share. All of it belongs to the control thread.
 *
 *	server.c  the socket, connections and messages
 *	slot.c    client slots, their pollers, and the jobs that clean up after them
 *	wiretap.c what pronk-dump asks for
 */
#pragma once
#include "server.h"

#include <sys/types.h>

enum conn_kind { CONN_NEW, CONN_CLIENT, CONN_OBSERVER, CONN_CAPTURE };

struct conn {
	struct conn *next, **prev;
	int fd;
	enum conn_kind kind;
	uint32_t client_idx; /* of CONN_CLIENT */
	uint32_t capture;    /* of CONN_CAPTURE */
	uid_t uid;           /* effective, of the peer */
	pid_t pid;           /* of the peer; 0 when it lives in a pid namespace that we cannot see */
	uint64_t since_ns;
};

/* The server's own word on a slot; client.state in the arena only tells others. */
enum slot_state { SLOT_FREE, SLOT_FORKING, SLOT_ACTIVE, SLOT_GONE };

struct slot {
	enum slot_state state;
	uint64_t since_ns;      /* SLOT_FORKING: first seen */
	uint64_t dead_since_ns; /* SLOT_FORKING: its process was first seen dead; 0 = it is not */
};

struct poller_slot {
	int fd;           /* the event fd, -1 = none; poller_fds is what stacks see of it */
	uint32_t client;  /* index + 1 of who registered it; 0 = nobody */
	bool is_retiring; /* a job frees it */
};

enum job_kind { JOB_CLIENT, JOB_POLLER, JOB_CAPTURE };

/* Something that ends only after every stack has passed a point. A client: gone on every stack, then a
 * barrier, then the slot is free. A poller: a barrier, then its event fd is closed. A capture: a barrier,
 * then its memory is given back. */
struct job {
	struct job *next;
	enum job_kind kind;
	bool is_gone_done; /* JOB_CLIENT: the first of its two rounds is over */
	bool is_posted;
	_Atomic uint32_t left; /* stacks that have not yet run the message */
	uint32_t client_idx;
	uint32_t poller; /* of JOB_POLLER: free it, or BLOCK_NONE to close fd only */
	int fd;          /* of JOB_POLLER; -1 = none */
	uint32_t capture;
};

struct server {
	struct server_spec spec;
	struct arena *arena;
	char socket_path[108];
	int epoll_fd, listen_fd, timer_fd;
	int arena_fd, stats_fd;          /* read-only views; the arena's is for observers */
	int region_fd[ARENA_REGION_MAX]; /* read-only: clients look at packets and change none */
	bool is_accept_paused;
	uint32_t tick_ms; /* present interval of timer_fd; 0 = off */
	struct conn *conns;
	uint32_t conn_count, conn_new_count;
	struct slot *slots;
	struct poller_slot *pollers;
	struct job *jobs;
	uint32_t job_count;
	uint32_t used_count; /* slots that are not SLOT_FREE */
	uint32_t active_count;
};

/* Takes a slot for a new client. Its index, or -EUSERS. */
int slot_take(struct server *s, pid_t pid, const char *program);

/* Gives the slot that a forking parent prepared to its child. 0 or -ESRCH. */
int slot_adopt(struct server *s, uint32_t idx, pid_t pid, const char *program);

/* The client's process has ended or hung up: starts to clean up. */
void slot_gone(struct server *s, uint32_t idx);

/* Looks for slots that parents prepared, and for those whose child will never come. */
void slots_scan(struct server *s, uint64_t now_ns);

/* Registers the event fd of a poller; takes fd over, also on failure. 0 or -E. */
int poller_set(struct server *s, uint32_t client_idx, uint32_t poller, int fd);

/* The client has no more use for a poller. */
void poller_retire(struct server *s, uint32_t client_idx, uint32_t poller);

/* Whoever captured packets has hung up: stops it. */
void capture_end(struct server *s, uint32_t capture);

/* Carries on with what waits for the stacks. */
void jobs_run(struct server *s);

/* Frees the jobs and closes the pollers' descriptors; no stack runs any more. */
void slots_destroy(struct server *s);
