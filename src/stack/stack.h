/* stack.h - one stack thread: an lwIP instance, a queue of the port, and the endpoints it owns.
 *
 * Everything inside belongs to the thread that runs stack_run; others reach it by stack_post, or through the
 * arena. No lwIP and no DPDK names here, so that engine and ctl can use it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "cfg.h"
#include "nic.h"
#include "stat.h"

struct stack;

/* What a stack needs to start; copied. The pointers must outlive the stack. */
struct stack_spec {
	uint32_t idx, count;
	const struct cfg *cfg;
	struct arena *arena; /* region[] filled in as well */
	struct nic *nic;
	struct stat_block *stats;
	struct stack **peers;    /* all stacks, by index; filled before any runs */
	_Atomic int *poller_fds; /* event fd of each poller, -1 = none; control thread writes */
	uint8_t mac[6];
	uint8_t address[4], netmask[4], gateway[4];
	bool has_gateway;
	uint16_t mtu;
	uint32_t frame_big; /* nic_info.frame_big */
	int core;           /* core to pin to, or -1 */
};

/* A request of another thread. fn runs in the stack's thread, then done (if not NULL) is decremented. The
 * memory stays the poster's until then. */
struct stack_msg {
	struct stack_msg *next;
	void (*fn)(struct stack *s, struct stack_msg *m);
	_Atomic uint32_t *done;
	uint64_t arg;
	void *ptr;
	bool is_heap; /* freed with free(3) after fn */
};

/* Makes a stack; does not start a thread. Control thread. NULL on lack of memory, with err filled. */
struct stack *stack_create(const struct stack_spec *spec, char *err, size_t err_size);

/* The thread body: runs until stack_stop. Frees all lwIP state before it returns. */
void stack_run(struct stack *s);

/* For tests: one-time set-up and tear-down of the calling thread as this stack's, and a single turn with a
 * given clock. */
int stack_enter(struct stack *s);
void stack_leave(struct stack *s);
uint32_t stack_turn(struct stack *s, uint64_t now_ns);

/* Whether a turn would find something to do, timers apart. Cheaper than a turn; if true, a turn must follow.
 * The stack's thread. */
bool stack_look(struct stack *s);

/* For a stack without a thread of its own, run by whoever may (src/engine/inline.c): says on the wire who we
 * are, once after stack_enter. */
void stack_announce(struct stack *s);

/* Between stack_enter and stack_leave. */
bool stack_is_entered(const struct stack *s);

/* Before a sleep on stack_wait_fd: arms the port and looks once more. False when there was something to do:
 * not now, then. */
bool stack_sleep_begin(struct stack *s);
/* How long that sleep may be: until the next timer, or until somebody must look at a port that tells nothing.
 */
uint64_t stack_sleep_ns(struct stack *s);
/* After it. Any thread. */
void stack_sleep_end(struct stack *s);
/* Then, or when the port turns out not to have been slept for: disarms it. */
void stack_disarm(struct stack *s);
/* Another thread sleeps, and its announcement may be gone: makes it again. False when there is something to
 * do. Any thread. */
bool stack_sleep_renew(struct stack *s);
/* Nanoseconds until the next timer, a second at most. */
uint64_t stack_timer_ns(struct stack *s);
/* A turn took so long; it stands for so many. */
void stack_busy(struct stack *s, uint64_t ns, uint32_t turns);
/* Readable when a sleeping stack has something to do; constant. */
int stack_wait_fd(const struct stack *s);
/* Whether somebody has posted something since the last turn. Any thread. */
bool stack_has_posts(struct stack *s);

/* When no client is left: what keeps the stack from ending without a loss. */
enum stack_rest {
	STACK_REST_NONE,
	STACK_REST_PEERS, /* everything has arrived; some peers have not ended their direction */
	STACK_REST_OURS,  /* something of ours has not been sent, or not been acknowledged */
};
enum stack_rest stack_rest(const struct stack *s);
/* Lets go of connections in which nothing is left to send, without a word to their peers. Before stack_leave,
 * which resets the others. */
void stack_forget(struct stack *s);

/* Asks the thread to end. Any thread. */
void stack_stop(struct stack *s);

/* Frees what stack_create made; the thread must have ended. Accepts NULL. */
void stack_destroy(struct stack *s);

/* Hands a request over and wakes the stack. Any thread, never blocks. */
void stack_post(struct stack *s, struct stack_msg *m);

/* Wakes the stack if it sleeps. Any thread. */
void stack_wake(struct stack *s);

/* The eventfd that wakes the stack; constant. */
int stack_event_fd(const struct stack *s);

/* What the kernel's interface says now. One for all stacks, from malloc(3): each takes it over in its own
 * thread, the last one tells the clients (arena_net) and frees it. */
struct stack_neigh {
	uint8_t ip[4], mac[6];
};
struct stack_net {
	_Atomic uint32_t left; /* stacks that have not taken it over yet */
	uint8_t address[4];    /* 0.0.0.0: there is none at present */
	uint8_t netmask[4], gateway[4];
	uint32_t prefix;
	bool has_gateway, is_up;
	bool must_greet; /* the link is back: neighbours are learnt anew, and told where we are */
	uint16_t mtu;
	uint32_t neigh_count; /* permanent neighbours, instead of those given before */
	struct stack_neigh neigh[];
};
/* Request body: m->ptr is a struct stack_net. */
void stack_net_changed(struct stack *s, struct stack_msg *m);

/* Request bodies for stack_post: forget a dead client (arg: its index); do nothing (a barrier); begin peaks
 * and lows of the statistics anew. */
void stack_client_gone(struct stack *s, struct stack_msg *m);
void stack_barrier(struct stack *s, struct stack_msg *m);
void stack_peaks_reset(struct stack *s, struct stack_msg *m);
/* What tools change while the stack runs (adjust.c). configure, ptr: a copy of the configuration that is from
 * now on the stack's, of malloc(3); values that cannot change are not looked at. inject, ptr: of
 * nic_inject_make. latency, arg: whether times are taken. */
void stack_configure(struct stack *s, struct stack_msg *m);
void stack_inject(struct stack *s, struct stack_msg *m);
void stack_latency(struct stack *s, struct stack_msg *m);
