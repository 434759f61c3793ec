/* proc.h - this process as a client of the service: joining on first use, forking, and noticing that the
 * service died. */
#pragma once
#include "attach.h"
#include "cfg.h"
#include "compiler.h"

enum proc_state {
	PROC_NEW, /* nothing has been needed yet */
	PROC_ATTACHED,
	PROC_KERNEL, /* tried and failed: the kernel serves everything */
};

struct proc {
	_Atomic int state; /* enum proc_state */
	struct attach at;
	struct cfg cfg;
	char socket_path[CFG_SOCKET_PATH_MAX];
	char reason[256]; /* why state is PROC_KERNEL */
	bool strict;
	int base_fd; /* what the numbers of accepted sockets are duplicates of */
	uint64_t spin_ns;
	_Atomic uint32_t lock;
	uint32_t fork_slot;
	void **watch_item; /* by watch index: the epoll member it belongs to, or NULL */
};

extern struct proc proc;

/* Starts the service when none answers: set once, before the first socket call, by who hosts this library.
 * Returns 0 or -E with a reason; may block for seconds. */
extern int (*proc_starter)(const struct cfg *cfg, const char *config_path, char *err, size_t err_size);

/* Joins the service if that has not been tried; prints one line when it fails. Any thread; blocks the first
 * time. True when attached. */
bool proc_attach(void);

static inline bool proc_is_attached(void)
{
	return atomic_load_explicit(&proc.state, memory_order_acquire) == PROC_ATTACHED;
}

static inline bool proc_is_dead(void)
{
	return attach_is_dead(&proc.at);
}

/* Stands for the endpoint of a socket that has just lost its own: not connected. */
extern struct endpoint proc_no_ep;

static inline struct endpoint *proc_ep(uint32_t idx)
{
	return likely(idx < proc.at.arena.endpoint_count) ? &proc.at.arena.endpoints[idx] : &proc_no_ep;
}

/* Remembers for the tools that the kernel serves fd, and why; forget when it closes. No-ops while not
 * attached. Any thread. */
void proc_fallback_add(int fd, int family, int type, const char *reason);
void proc_fallback_remove(int fd);

/* True for descriptors that this library needs: the application must not close them. */
bool proc_is_internal_fd(int fd);
/* The lowest internal descriptor >= first, or -1. */
int proc_next_internal_fd(int first);
void proc_internal_fd_add(int fd);
void proc_internal_fd_remove(int fd);

/* Called around fork(2), by pthread_atfork handlers that proc_attach installs. */
void proc_fork_prepare(void);
void proc_fork_parent(void);
void proc_fork_child(void);
