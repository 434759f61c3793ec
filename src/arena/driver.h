/* driver.h - a stack that lives in this process (mode = inline), as the threads of the application see it:
 * they run it themselves.
 *
 * The engine is a library of its own, loaded at the first socket; this is all that both sides know of each
 * other. Whoever holds the driver token runs the stack; it is only ever tried for, so nobody waits.
 * doc/threads.md, "Driver token".
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfg;

/* What the engine offers. Every function may be called by any thread, but not while it runs the stack itself.
 */
struct driver {
	/* Runs one turn of the stack if nobody else is doing that. How much was done, or 0. */
	uint32_t (*turn)(void);
	/* The same for a thread that waits: looks for some microseconds first whether there is something to
	 * do. Returns at once when somebody else runs the stack. */
	uint32_t (*spin)(void);
	/* As turn, for a thread that has posted something: if another one runs the stack, that one looks
	 * again before it gives the token up. */
	void (*push)(void);
	/* The thread is about to sleep. It gets the descriptor that becomes readable when the stack must be
	 * run, and how long it may sleep at most; or -1 when somebody else sleeps for the port or runs the
	 * stack all the time, -EAGAIN: something was done just now: look again, or -EBUSY: somebody else runs
	 * the stack: the same, later.
	 */
	int (*sleep)(uint64_t *limit_ns);
	/* It is awake again; fd: what sleep gave it, if that was no error. A thread that does not come back
	 * from its sleep is forgotten after a second, or by its next turn. */
	void (*awake)(int fd);
	/* The calling thread runs the stack: this is a signal handler that has interrupted it. */
	bool (*is_mine)(void);
	/* Around fork(2): no turn is half done in the child's copy of memory. The child closes what the
	 * engine had open, and uses nothing of this any more. */
	void (*fork_prepare)(void);
	void (*fork_parent)(void);
	void (*fork_child)(void);
	/* Some thread is about to unmap memory: a link's memory goes only when nobody is in there. */
	void (*unmapping)(void);
	/* The program is about to end or to become another one: the stack goes on in a copy of this process,
	 * until the last client has gone and everything is sent. From then on this process is a client like
	 * any other, and the rest of this table does nothing. With is_end false the copy is nobody's child.
	 * 0, or -E: the stack stays, and will end with this process. */
	int (*keep)(bool is_end);
	_Atomic(const void *) last; /* the thread that ran the stack last, and will soon again */
	uint32_t posted;            /* what that thread has posted since then; a hint */
};

/* What the engine needs of the library that loads it. */
struct driver_host {
	size_t cfg_size;
	uint32_t arena_version;
	/* The calling thread is the engine's, for good or until it says false: descriptors that it opens move
	 * out of the application's way, and are its own to close. */
	void (*inside)(bool is_inside);
	/* Closes the engine's descriptors, or all but those. */
	void (*close_fds)(bool of_engine);
	/* fork(2) as the application's other libraries know it, without what is done for the sockets of an
	 * application's child. */
	int (*fork)(void);
};

/* Starts the engine in this process: a thread of its own starts it, and then serves whatever the
 * application's threads do not. Blocks until it is ready. 0, or -E with a reason; -EALREADY when a service of
 * that name runs. */
int pronk_driver_start(const struct cfg *cfg, const struct driver_host *host, struct driver **out, char *err,
        size_t err_size);
