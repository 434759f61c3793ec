/* report.h - what a stack tells tools of itself in the arena, so that they need ask nobody: also while the
 * service is stopped in a debugger.
 *
 * Written by the stack's thread at its start and about once a second, never for a packet. seq is odd while it
 * is written. A reader copies, and looks whether seq is still the same; one that finds it odd for long has a
 * service before it that was stopped in the middle, and shows the copy for what it is.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { REPORT_NEIGH_MAX = 1024, REPORT_FD_MAX = 4, REPORT_TRIES = 1000 };

/* endpoint.info_timer */
enum report_timer {
	REPORT_TIMER_NONE,
	REPORT_TIMER_REXMIT,    /* retransmission, also of a SYN or FIN */
	REPORT_TIMER_RECOVER,   /* reordering or tail loss probe */
	REPORT_TIMER_PERSIST,   /* probe of a closed window */
	REPORT_TIMER_ACK,       /* delayed acknowledgement */
	REPORT_TIMER_DEFER,     /* TCP_DEFER_ACCEPT */
	REPORT_TIMER_CORK,      /* TCP_CORK, MSG_MORE */
	REPORT_TIMER_CLOSE,     /* a FIN that could not be sent for want of memory */
	REPORT_TIMER_FIN_WAIT,  /* end of FIN_WAIT_2 */
	REPORT_TIMER_END,       /* end of SYN_RCVD, LAST_ACK, CLOSING */
	REPORT_TIMER_KEEPALIVE, /* keep-alive probe */
	REPORT_TIMER_TIME_WAIT, /* end of TIME_WAIT */
	REPORT_TIMER_COUNT
};

enum report_neigh_state { REPORT_NEIGH_ASKING = 1, REPORT_NEIGH_KNOWN, REPORT_NEIGH_PERMANENT };

struct report_neigh {
	uint8_t ip[4];
	uint8_t mac[6];
	uint8_t state;    /* enum report_neigh_state */
	uint8_t tries;    /* questions since it last answered */
	uint8_t is_used;  /* sent to since the last answer */
	uint8_t waiting;  /* packets that wait for the answer */
	uint16_t big;     /* longest frame, for one on the same memory link; else 0 */
	uint32_t time_ms; /* of the last answer or question, milliseconds of CLOCK_MONOTONIC */
};

struct stack_report {
	_Alignas(64) _Atomic uint32_t seq;
	uint32_t now_ms; /* when it was written, milliseconds of CLOCK_MONOTONIC */
	int32_t core;    /* -1: runs on the application's threads */
	int32_t tid;     /* of its thread, in its own pid namespace */
	int32_t event_fd, epoll_fd;
	uint32_t wait_fd_count; /* descriptors of the port it sleeps on; 0: it naps */
	int32_t wait_fd[REPORT_FD_MAX];
	uint32_t spin_us;     /* how long it looks before it sleeps */
	uint32_t nap_us;      /* length of the next nap */
	uint32_t is_spin_off; /* it lost its core when it spun last, and does not spin for now */
	uint32_t conn_count, time_wait_count;
	uint32_t neigh_count;
	struct report_neigh neigh[REPORT_NEIGH_MAX];
};

static inline void report_begin(struct stack_report *r)
{
	atomic_store_explicit(
	        &r->seq, atomic_load_explicit(&r->seq, memory_order_relaxed) | 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

static inline void report_end(struct stack_report *r)
{
	atomic_store_explicit(
	        &r->seq, atomic_load_explicit(&r->seq, memory_order_relaxed) + 1, memory_order_release);
}

/* Copies a report. False when the stack was stopped while it wrote it: then the copy is half old, half new.
 */
static inline bool report_read(const struct stack_report *r, struct stack_report *copy)
{
	bool is_whole = false;

	for (int i = 0; i < REPORT_TRIES && !is_whole; i++) {
		uint32_t seq = atomic_load_explicit(&r->seq, memory_order_acquire);

		memcpy((void *)copy, (const void *)r, sizeof(*copy));
		atomic_thread_fence(memory_order_acquire);
		is_whole = !(seq & 1) && atomic_load_explicit(&r->seq, memory_order_relaxed) == seq;
	}
	if (copy->neigh_count > REPORT_NEIGH_MAX)
		copy->neigh_count = REPORT_NEIGH_MAX;
	if (copy->wait_fd_count > REPORT_FD_MAX)
		copy->wait_fd_count = REPORT_FD_MAX;
	return is_whole;
}
