/* ready.h - telling sleepers: pollers, watches and the ready list between stacks and applications.
 *
 * A poller is one sleeper (an epoll instance or a blocked thread). A watch sits in the endpoint and names a
 * poller and a mask. Stack side: after it has published a change, it calls watch_notify for each watch whose
 * mask matches; that queues the watch at most once (WATCH_QUEUED) and returns the poller to wake. App side:
 * drains the list, clears WATCH_QUEUED first and looks at the endpoint's level afterwards, so that a change
 * after the look queues the watch again. "doc/threads.md: Readiness".
 */
#pragma once
#include "arena.h"

#define WATCH_NONE UINT32_MAX

/* The watch with this index (inline ones first, then those of listeners). idx must be < a->watch_count. */
static inline struct watch *watch_at(const struct arena *a, uint32_t idx)
{
	if (idx < a->watch_inline_count)
		return &a->endpoints[idx / WATCH_INLINE].watch[idx % WATCH_INLINE];
	idx -= a->watch_inline_count;
	return &arena_listener(a, idx / WATCH_LISTENER)->watch[idx % WATCH_LISTENER];
}

/* Takes a free watch of the endpoint for a poller and a mask (non-zero EPOLL bits; EPOLLEXCLUSIVE: of these
 * one is woken for a connection). Returns its index, or WATCH_NONE when all are taken or there is no such
 * endpoint: the caller must then look by itself from time to time. Any app thread; never blocks. */
uint32_t watch_claim(const struct arena *a, uint32_t ep_idx, uint32_t poller, uint32_t mask);

/* Changes the mask (non-zero). Only the poller's owner calls it. */
void watch_remask(const struct arena *a, uint32_t idx, uint32_t mask);

/* Gives the poller's watch back; one that is somebody else's by now (its endpoint was given up meanwhile) is
 * left alone. Returns true when it is free at once; false when it is on, or on its way to, the poller's ready
 * list: it becomes free when the poller drains it. Only the poller's owner calls it. */
bool watch_release(const struct arena *a, uint32_t idx, uint32_t poller);

/* The stack takes a watch of an endpoint that is given up from whoever has it. One on a living poller's ready
 * list stays there, without a mask, until that is drained: used anew before, it would be in two lists. */
void watch_clear(const struct arena *a, struct watch *w);

/* Stack: queue the watch if its mask has one of events. Returns the poller index to wake, or UINT32_MAX. */
uint32_t watch_notify(const struct arena *a, struct watch *w, uint32_t idx, uint32_t events);

/* App: takes the whole ready list; returns the first watch index + 1, oldest first, links in watch.next. 0 =
 * empty. */
uint32_t poller_drain(const struct arena *a, uint32_t poller);

/* App: marks a drained watch as no longer queued and returns its mask; 0 when it was being released (it is
 * free now). Read watch.next before this call. */
uint32_t watch_unqueue(const struct arena *a, uint32_t idx);

/* App: a free poller for this client, or -ENFILE. */
int poller_claim(const struct arena *a, uint32_t client_idx);
void poller_free(const struct arena *a, uint32_t poller);

static inline bool poller_has_ready(const struct arena *a, uint32_t poller)
{
	return atomic_load_explicit(&a->pollers[poller].ready, memory_order_acquire) != 0;
}

/* App: announce sleep; after it, look at levels and the ready list once more, then sleep on the event fd. */
static inline void poller_sleep(const struct arena *a, uint32_t poller)
{
	atomic_store(&a->pollers[poller].sleeping, POLLER_SLEEPS);
	atomic_thread_fence(memory_order_seq_cst);
}

/* The same for a poller that nobody sleeps on itself: somebody looks at its event fd by other ways. */
static inline void poller_arm(const struct arena *a, uint32_t poller)
{
	atomic_store(&a->pollers[poller].sleeping, POLLER_ARMED);
	atomic_thread_fence(memory_order_seq_cst);
}

static inline void poller_awake(const struct arena *a, uint32_t poller)
{
	atomic_store_explicit(&a->pollers[poller].sleeping, 0, memory_order_relaxed);
}

/* Stack: true when the poller sleeps and the caller must write its event fd (exactly one caller gets true per
 * sleep). */
static inline bool poller_wake_needed(const struct arena *a, uint32_t poller)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&a->pollers[poller].sleeping, memory_order_relaxed) &&
	       atomic_exchange(&a->pollers[poller].sleeping, 0);
}
