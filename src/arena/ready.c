/* ready.c - the ready list between stacks and sleepers. See ready.h for the protocol.
 *
 * Lock-free; runs in stack threads (watch_notify) and in application threads (the rest). A watch's word is
 * its whole state, so that giving a watch away and queueing it can never both succeed.
 */
#include "ready.h"

#include <errno.h>
#include <sys/epoll.h>

/* end: where to say how far the stack must look, or NULL: it looks at all. */
static uint32_t claim_in(struct watch *w, uint32_t count, uint64_t word, _Atomic uint32_t *end)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t seen = end ? atomic_load(end) : i + 1;
		uint64_t none = 0;

		if (atomic_load_explicit(&w[i].word, memory_order_relaxed))
			continue;
		while (seen <= i && !atomic_compare_exchange_weak(end, &seen, i + 1))
			;
		if (atomic_compare_exchange_strong(&w[i].word, &none, word))
			return i;
	}
	return WATCH_NONE;
}

uint32_t watch_claim(const struct arena *a, uint32_t ep_idx, uint32_t poller, uint32_t mask)
{
	uint64_t word = WATCH_WORD(poller, mask) | (mask & EPOLLEXCLUSIVE ? WATCH_EXCLUSIVE : 0);
	struct listener *l;
	struct endpoint *ep;
	uint32_t i;

	if (ep_idx >= a->endpoint_count)
		return WATCH_NONE;
	ep = &a->endpoints[ep_idx];
	i = claim_in(ep->watch, WATCH_INLINE, word, NULL);
	if (i != WATCH_NONE)
		return ep_idx * WATCH_INLINE + i;
	if (ep->listener >= a->listener_count)
		return WATCH_NONE;
	l = arena_listener(a, ep->listener);
	i = claim_in(l->watch, WATCH_LISTENER, word, &l->watch_end);
	return i == WATCH_NONE ? WATCH_NONE : a->watch_inline_count + ep->listener * WATCH_LISTENER + i;
}

void watch_remask(const struct arena *a, uint32_t idx, uint32_t mask)
{
	struct watch *w = watch_at(a, idx);
	uint64_t word = atomic_load(&w->word), next;

	do {
		next = (word & ~(0xffffull << 32)) | (uint64_t)(mask & 0xffff) << 32;
	} while (!atomic_compare_exchange_weak(&w->word, &word, next));
}

bool watch_release(const struct arena *a, uint32_t idx, uint32_t poller)
{
	struct watch *w = watch_at(a, idx);
	uint64_t word = atomic_load(&w->word), next;

	do {
		if (WATCH_POLLER(word) != poller + 1)
			return true;
		next = word & WATCH_QUEUED ? word & ~(0xffffull << 32) : 0;
	} while (!atomic_compare_exchange_weak(&w->word, &word, next));
	return next == 0;
}

void watch_clear(const struct arena *a, struct watch *w)
{
	uint64_t word = atomic_load(&w->word), next;

	do {
		uint32_t poller = WATCH_POLLER(word);
		bool is_listed = (word & WATCH_QUEUED) && poller && poller <= a->poller_count &&
		                 atomic_load(&a->pollers[poller - 1].owner);

		next = is_listed ? word & ~(0xffffull << 32) : 0;
	} while (!atomic_compare_exchange_weak(&w->word, &word, next));
}

uint32_t watch_notify(const struct arena *a, struct watch *w, uint32_t idx, uint32_t events)
{
	uint64_t word = atomic_load_explicit(&w->word, memory_order_relaxed);
	struct poller *p;
	uint32_t poller, head;

	do {
		if (!(WATCH_MASK(word) & events))
			return UINT32_MAX;
		poller = WATCH_POLLER(word) - 1;
		if (poller >= a->poller_count)
			return UINT32_MAX;
		if (word & WATCH_QUEUED)
			return poller;
	} while (!atomic_compare_exchange_weak(&w->word, &word, word | WATCH_QUEUED));
	p = &a->pollers[poller];
	head = atomic_load_explicit(&p->ready, memory_order_relaxed);
	do {
		atomic_store_explicit(&w->next, head, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak(&p->ready, &head, idx + 1));
	return poller;
}

uint32_t poller_drain(const struct arena *a, uint32_t poller)
{
	uint32_t head, first = 0;

	if (!poller_has_ready(a, poller))
		return 0;
	head = atomic_exchange(&a->pollers[poller].ready, 0);
	while (head && head <= a->watch_count) {
		struct watch *w = watch_at(a, head - 1);
		uint32_t next = atomic_load_explicit(&w->next, memory_order_relaxed);

		atomic_store_explicit(&w->next, first, memory_order_relaxed);
		first = head;
		head = next;
	}
	return first;
}

uint32_t watch_unqueue(const struct arena *a, uint32_t idx)
{
	struct watch *w = watch_at(a, idx);
	uint64_t word = atomic_load(&w->word), next;

	do {
		next = WATCH_MASK(word) ? word & ~WATCH_QUEUED : 0;
	} while (!atomic_compare_exchange_weak(&w->word, &word, next));
	return WATCH_MASK(word);
}

int poller_claim(const struct arena *a, uint32_t client_idx)
{
	for (uint32_t i = 0; i < a->poller_count; i++) {
		uint32_t none = 0;

		if (!atomic_load_explicit(&a->pollers[i].owner, memory_order_relaxed) &&
		        atomic_compare_exchange_strong(&a->pollers[i].owner, &none, client_idx + 1)) {
			atomic_store(&a->pollers[i].ready, 0);
			atomic_store(&a->pollers[i].sleeping, 0);
			return (int)i;
		}
	}
	return -ENFILE;
}

void poller_free(const struct arena *a, uint32_t poller)
{
	atomic_store(&a->pollers[poller].ready, 0);
	atomic_store(&a->pollers[poller].owner, 0);
}
