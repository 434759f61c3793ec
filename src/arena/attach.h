/* attach.h - a process's way into the service: the control messages, joining, and posting requests to stacks.
 *
 * Control messages go over a SOCK_SEQPACKET unix socket; one message per packet, fixed layouts below. The
 * connection stays open for the life of the client: when it hangs up, the service drops the client's sockets,
 * and when the service's end hangs up, the client knows.
 */
#pragma once
#include "arena.h"
#include "capture.h"
#include "compiler.h"
#include "driver.h"

#define CTL_MAGIC 0x4c54434b4e4f5250ull

enum ctl_kind {
	CTL_CLIENT = 1,  /* join as an application: answer ctl_welcome with fds */
	CTL_OBSERVER,    /* read only: the same, without a client slot */
	CTL_FORKED,      /* a forked child names the slot that its parent prepared: answer ctl_answer */
	CTL_POLLER,      /* one fd rides along: the event fd of poller `value` */
	CTL_POLLER_FREE, /* poller `value` is no longer used; no answer */
	CTL_CONFIG,      /* answer: ctl_text with the effective configuration; value 1 = as JSON */
	CTL_STASH,       /* one fd rides along, and comes back in the answer (ctl_answer) */
	CTL_SYNC,        /* answer: 0; hang-ups that happened before the question have been noticed */
	CTL_CAPTURE,     /* one fd rides along: a capture_spec in sealed memory; answer ctl_capture */
	CTL_COMMAND,     /* words follow the request, value says how many bytes and CTL_COMMAND_JSON: answer
	                    ctl_answer, with text behind it */
};

enum { CTL_WORDS_MAX = 4096 };
#define CTL_COMMAND_JSON (1u << 31)

struct ctl_request {
	uint64_t magic;
	uint32_t version; /* ARENA_VERSION */
	uint32_t kind;
	int32_t pid;
	uint32_t value;
	char program[32];
};

/* Followed by fds: arena, statistics, one event fd per stack, one per region. */
struct ctl_welcome {
	int32_t result; /* 0 or -E */
	uint32_t client_idx;
	uint32_t stack_count;
	uint32_t region_count;
	struct {
		uint64_t fd_offset, size;
	} region[ARENA_REGION_MAX];
	char reason[96]; /* when result < 0 */
};

struct ctl_answer {
	int32_t result;
};

/* Followed by the fd of the rings (base/capture.h) when result is 0. */
struct ctl_capture {
	int32_t result; /* 0 or -E */
	char reason[CAPTURE_REASON_SIZE];
};

enum { CTL_TEXT_MAX = 65536 };

/* What an attached process knows. One per process; the post functions may be called by any thread. */
struct attach {
	struct arena arena;
	int ctl_fd;
	int stats_fd;
	int stack_fd[ARENA_STACK_MAX];
	uint32_t client_idx;
	struct client *client;
	_Atomic uint32_t is_dead; /* the service has gone */
	struct driver *driver;    /* the service is in this process: its threads run the stack. Else NULL */
	_Atomic uint32_t post_lock[ARENA_STACK_MAX], grant_lock[ARENA_STACK_MAX], call_lock, ctl_lock;
};

/* Joins the service at the socket path. Blocks for the answer (5 s at most). Every descriptor is
 * close-on-exec and numbered 100 or above where the limit allows, out of the application's way. 0,
 * -ECONNREFUSED/-ENOENT when no service listens, -ETIMEDOUT when it does not answer, -EPROTO for another
 * version, or -E; err has the reason. */
int attach_join(struct attach *at, const char *path, enum ctl_kind kind, char *err, size_t err_size);

/* Leaves: unmaps and closes everything. The caller makes sure that no thread still uses it. */
void attach_leave(struct attach *at);

/* In a forked child: connects anew and takes over the prepared client slot. The mappings stay. 0 or -E. */
int attach_rejoin(struct attach *at, const char *path, uint32_t client_idx);

/* A ticket: a control connection for the prepared slot, held open by whoever has the descriptor; the service
 * lets go of the slot's sockets when the last copy is closed. kernel_fd >= 0 waits in it for attach_stashed.
 * The close-on-exec descriptor, or -E. Blocks for the service's answer. */
int attach_ticket(struct attach *at, const char *path, uint32_t slot, int kernel_fd);

/* A copy of the descriptor that waits in a ticket, close-on-exec, or -E. May be called again. */
int attach_stashed(int ticket_fd);

/* Tells the service the event fd of a poller, and waits for its answer. 0 or -E. */
int attach_poller(struct attach *at, uint32_t poller, int event_fd);
void attach_poller_free(struct attach *at, uint32_t poller);

/* The effective configuration as text (observers and clients). Returns its size or -E. */
int attach_config_text(struct attach *at, bool json, char *buf, size_t size);

/* Has the service run a command (engine/command.h): words of up to CTL_WORDS_MAX bytes, separated by blanks.
 * Observers only. Its text comes into buf, ended by NUL: what it has to show, or why it refused. Returns the
 * text's size, or -E: -EPERM when the caller may not, -ENOTSUP for an unknown command, -ETIMEDOUT when the
 * service does not answer (5 s). */
int attach_command(struct attach *at, const char *words, bool json, char *buf, size_t size);

/* True when the service has died or hung up. Cheap system call, no blocking; sticky. */
bool attach_check_dead(struct attach *at);

/* The process has installed a filter for system calls (seccomp(2)), which may end it for one that its own
 * code does not make. From here on only read, write, poll, futex, nanosleep, getpid and gettid are used for
 * sockets that are open, and waits look by themselves every millisecond. Children inherit that. Any thread.
 */
void attach_sandbox(void);
bool attach_is_sandboxed(void);

static inline bool attach_is_dead(const struct attach *at)
{
	return atomic_load_explicit(&at->is_dead, memory_order_relaxed) != 0;
}

/* Where the stack is in this process: runs it for a turn, if nobody does. How much was done; 0 also when the
 * stack is elsewhere. Any thread. */
uint32_t attach_drive_here(struct attach *at);
static inline uint32_t attach_drive(struct attach *at)
{
	return likely(!at->driver) ? 0 : attach_drive_here(at);
}

/* The same for a thread that waits for the stack and has nothing else to do for some microseconds. Only where
 * the stack is in this process. */
uint32_t attach_spin(struct attach *at);

/* For loops that wait for the stack to do something. */
void attach_relax(struct attach *at);
/* After a request that the stack works off in several turns: where it is in this process, waits for the last.
 * A stack of its own thread goes on by itself. */
void attach_settle(struct attach *at, uint32_t stack_idx);
/* For calls that found nothing and do not wait: programs that do nothing else must get somewhere, too. True
 * when something was done. */
bool attach_drive_seldom(struct attach *at);

/* True in a signal handler that has interrupted the calling thread's own work on the stack. */
bool attach_is_driving(const struct attach *at);

/* A thread has posted so much to send and will not wait for what comes of it. Where the stack is in this
 * process, it runs it for a turn now: if it is not the thread that does so anyway when it waits the next
 * time, or when it has posted something before. */
void attach_push_here(struct attach *at, size_t bytes);
static inline void attach_push(struct attach *at, size_t bytes)
{
	if (unlikely(at->driver != NULL))
		attach_push_here(at, bytes);
}

int attach_sleep_here(struct attach *at, uint64_t *limit_ns);
/* Before and after a sleep of the calling thread, see driver.h. Without a driver: -1. */
static inline int attach_sleep(struct attach *at, uint64_t *limit_ns)
{
	*limit_ns = UINT64_MAX;
	return likely(!at->driver) ? -1 : attach_sleep_here(at, limit_ns);
}
static inline void attach_awake(struct attach *at, int fd)
{
	if (unlikely(at->driver != NULL))
		at->driver->awake(fd);
}

/* Posts one entry to a stack, waking it if it sleeps. Waits (spinning, then yielding) while the ring is full.
 * 0, or -ECONNRESET when the service has died. Any thread. */
int post(struct attach *at, uint32_t stack_idx, uint64_t entry);

/* Sets doorbell bits of an endpoint and posts it when they were clear. */
void post_doorbell(struct attach *at, struct endpoint *ep, uint32_t bits);

/* Posts a synchronous request to a stack and waits for its answer. in/out: the fields of struct call from op
 * on. 0 when answered (then c->result tells), -ECONNRESET when the service died, -ETIMEDOUT after 5 s. Any
 * thread. */
int post_call(struct attach *at, uint32_t stack_idx, struct call *c);

/* As post_call, for a request that takes a port: one that is in use is asked for a second time when processes
 * that ended before the call hold nothing any more. An exit(2) closes what the process had open before its
 * parent hears of it; the service notices a moment later. That waits a second at most. */
int post_call_port(struct attach *at, uint32_t stack_idx, struct call *c);

/* A granted send block of the stack, or BLOCK_NONE (the stack is told that more are wanted). The block stays
 * in the grant ring until grant_take: store its index where the service finds it in between. Call both with
 * grant_lock held. */
uint32_t grant_peek(struct attach *at, uint32_t stack_idx);
void grant_take(struct attach *at, uint32_t stack_idx);
/* Whether count blocks are granted; the stack is told when they are not. With grant_lock. */
bool grant_has(struct attach *at, uint32_t stack_idx, uint32_t count);

/* True when a writer could not put a byte into the endpoint's ring for want of a granted block; the stack has
 * been asked then, and tells by EPOLLOUT when there is one. Any thread. */
bool post_is_starved(struct attach *at, struct endpoint *ep);

/* After a write that got no block: waits, spinning, until the stack has answered whether there is one. That
 * is a turn of the stack; 100 ms at most, or 5 s when this process has never had one (a child's first send).
 * True when there is. Any thread. */
bool grant_await(struct attach *at, struct endpoint *ep);

/* One empty turn of a loop that waits for another thread. That thread may want this very core, so it is
 * offered; on a core that nobody else wants this takes a fraction of a microsecond. Any thread, no
 * cancellation point. */
void spin_pause(void);
/* Process-local spin lock for short sections. */
void spin_lock(_Atomic uint32_t *lock);
static inline void spin_unlock(_Atomic uint32_t *lock)
{
	atomic_store_explicit(lock, 0, memory_order_release);
}

/* Lock in shared memory. Breaks the lock of a process that is gone. 0; -EAGAIN when this very thread holds it
 * (a signal handler interrupted it), -ECONNRESET when the service died meanwhile. Spins, then yields. */
int ep_lock(struct attach *at, _Atomic uint64_t *lock);
void ep_unlock(_Atomic uint64_t *lock);
/* Stack side: one try. */
bool ep_trylock(_Atomic uint64_t *lock);
