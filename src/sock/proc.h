/* proc.h - this process as a client of its services (service.h): joining on first use, forking, and noticing
 * that they died. */
#pragma once
#include "attach.h"
#include "cfg.h"
#include "compiler.h"
#include "service.h"

enum proc_state {
	PROC_NEW, /* nothing has been needed yet */
	PROC_ATTACHED,
	PROC_KERNEL, /* tried and failed: the kernel serves everything */
};

struct proc {
	_Atomic int state;     /* enum proc_state; attached: to one of the services at least */
	struct attach *near;   /* the service that is in this process, if one is (driver.h); else the first */
	struct service *main;  /* the first file's, or NULL */
	struct service *local; /* the one that serves loopback addresses, too (option loopback), or NULL */
	struct cfg cfg;        /* of the program's first file */
	char reason[256];      /* why state is PROC_KERNEL */
	bool strict;           /* of the first file; proc_is_strict */
	int base_fd;           /* what the numbers of accepted sockets are duplicates of */
	_Atomic uint32_t lock;
};

extern struct proc proc;

/* Starts the service when none answers: set once, before the first socket call, by who hosts this library.
 * Returns 0 or -E with a reason; may block for seconds. */
extern int (*proc_starter)(const struct cfg *cfg, const char *config_path, char *err, size_t err_size);

/* The same for mode = inline, where the service is in this process. */
extern int (*proc_inline_starter)(const struct cfg *cfg, const struct driver_host *host, struct driver **out,
        char *err, size_t err_size);

/* What an engine in this process needs of it. */
extern const struct driver_host proc_driver_host;

/* This program's first configuration, or NULL when there is a mistake in it, which proc_attach tells. Any
 * thread; reads it the first time. */
const struct cfg *proc_config(void);

/* Joins the services if that has not been tried; prints a line for each where it fails. Any thread; blocks
 * the first time. True when attached to one at least. */
bool proc_attach(void);

/* Whether this process's first configuration has loopback = pronk, and its service's too: joins only then.
 * Any thread; blocks the first time. */
bool proc_serves_loopback(void);

static inline bool proc_is_attached(void)
{
	return atomic_load_explicit(&proc.state, memory_order_acquire) == PROC_ATTACHED;
}

/* Option strict: of the first file's service, which may change it, or else of that file. */
static inline bool proc_is_strict(void)
{
	return proc_is_attached() && proc.main
	               ? atomic_load_explicit(&proc.main->at.arena.hdr->strict, memory_order_relaxed) != 0
	               : proc.strict;
}

/* All services that were joined have died. */
static inline bool proc_is_dead(void)
{
	uint32_t count = service_count();

	for (uint32_t i = 0; i < count; i++)
		if (likely(!attach_is_dead(&services[i].at)))
			return false;
	return count != 0;
}

/* Whether a socket can still become ours: a service is there, or has not been asked for yet. */
static inline bool proc_may_serve(void)
{
	return atomic_load_explicit(&proc.state, memory_order_acquire) != PROC_KERNEL && !proc_is_dead();
}

/* True when the path is that of a control socket this program would join, or has joined. Reads the
 * configuration the first time. */
bool proc_is_service(const char *socket_path);

/* Remembers for the tools that the kernel serves fd, and why; forget when it closes. What is remembered
 * before this process has joined is handed over when it does. Any thread. */
void proc_fallback_add(int fd, int family, int type, const char *reason);
void proc_fallback_remove(int fd);

/* The process is about to end, or (is_end false) to become another program, or to leave everything to a
 * child: if the stack lives in it, and others or its own connections need it any longer, it goes on
 * elsewhere. Any thread; blocks for milliseconds. */
void proc_leave(bool is_end);

/* A descriptor of the engine in this process (arena/driver.h); it is an internal one, too. */
void proc_engine_fd_add(int fd);
void proc_engine_fd_remove(int fd);

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
