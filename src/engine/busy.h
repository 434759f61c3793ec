/* busy.h - which threads run a stack all the time that belongs to whoever comes (inline.c).
 *
 * A thread that works for others, or has much to do itself, runs turns one after the other. Whoever sleeps
 * meanwhile need not be woken for the same frames. The last two such threads are remembered, so that one that
 * goes to sleep finds the other. All of it are hints: a mistake costs a wake-up in vain, or a moment until
 * the background thread comes. doc/threads.md, "Driver token".
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "compiler.h"

enum {
	BUSY_TURNS = 4,   /* all the time: so many turns ... */
	BUSY_NS = 500000, /* ... none of them later than that after the one before */
};

/* Zeroed: nobody is. */
struct busy {
	struct {
		_Atomic uintptr_t who; /* by whoever runs a turn; 0 also by the thread itself */
		_Atomic uint64_t ns;   /* of its last turn, by whoever runs one */
	} last[2];                     /* the latest first */
};

/* A thread's own. */
struct busy_self {
	uint32_t turns; /* that followed each other so closely, until now */
	uint64_t turn_ns;
};

/* The thread `me` runs a turn. Nobody else does so at the same time. */
static inline void busy_note(struct busy *b, struct busy_self *s, uintptr_t me, uint64_t now_ns)
{
	uintptr_t last;

	s->turns = now_ns - s->turn_ns < BUSY_NS ? s->turns + 1 : 1;
	s->turn_ns = now_ns;
	if (s->turns < BUSY_TURNS)
		return;
	last = atomic_load_explicit(&b->last[0].who, memory_order_relaxed);
	if (unlikely(last != me)) {
		atomic_store_explicit(&b->last[1].ns, atomic_load(&b->last[0].ns), memory_order_relaxed);
		atomic_store_explicit(&b->last[1].who, last, memory_order_relaxed);
		atomic_store_explicit(&b->last[0].who, me, memory_order_relaxed);
	}
	atomic_store_explicit(&b->last[0].ns, now_ns, memory_order_relaxed);
}

/* The thread `me` is about to sleep. Of two that say so and then ask for the other, one sees it. */
static inline void busy_end(struct busy *b, struct busy_self *s, uintptr_t me)
{
	s->turns = 0;
	for (int i = 0; i < 2; i++) {
		uintptr_t who = me;

		atomic_compare_exchange_strong(&b->last[i].who, &who, 0);
	}
}

/* Whether another thread than `me` is one. */
static inline bool busy_others(struct busy *b, uintptr_t me, uint64_t now_ns)
{
	for (int i = 0; i < 2; i++) {
		uintptr_t who = atomic_load(&b->last[i].who);

		if (who && who != me && now_ns - atomic_load(&b->last[i].ns) < BUSY_NS)
			return true;
	}
	return false;
}
