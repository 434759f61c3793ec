/* notify.c - telling applications that an endpoint changed.
 *
 * Runs in the stack's thread. Watches are queued at the moment of the change (ready.h), the system calls that
 * wake sleepers are made once per sleeper in the wake phase at the end of the turn.
 */
#include "stack_int.h"

#include <errno.h>
#include <unistd.h>

/* the bits of the kernel's wake-up for something to read */
enum { READABLE = EPOLLIN | EPOLLPRI | EPOLLRDNORM | EPOLLRDBAND };

static void wake_add(struct stack *s, uint32_t poller)
{
	for (uint32_t i = s->wake_count; i > 0 && i + 8 > s->wake_count; i--)
		if (s->wake[i - 1] == poller)
			return;
	if (s->wake_count == WAKE_MAX)
		notify_flush(s);
	s->wake[s->wake_count++] = poller;
}

static void notify_some(struct stack *s, struct watch *w, uint32_t count, uint32_t first_idx, uint32_t events)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t poller;

		if (!atomic_load_explicit(&w[i].word, memory_order_relaxed))
			continue;
		poller = watch_notify(s->arena, &w[i], first_idx + i, events);
		if (poller != UINT32_MAX)
			wake_add(s, poller);
	}
}

/* The watches of the endpoint's listener record, or NULL; *count: how many of them were ever claimed; *first:
 * the index of the first. Looked at once: a client can write these. After the fence of who calls, so that a
 * claim which is not seen here sees the new level (watch_claim). */
static struct watch *listener_watches(
        const struct stack *s, const struct endpoint *ep, uint32_t *count, uint32_t *first)
{
	uint32_t idx = *(const volatile uint32_t *)&ep->listener;
	struct listener *l;

	*count = 0;
	*first = 0;
	if (idx >= s->arena->listener_count)
		return NULL;
	l = arena_listener(s->arena, idx);
	*count = atomic_load_explicit(&l->watch_end, memory_order_relaxed);
	if (*count > WATCH_LISTENER)
		*count = WATCH_LISTENER;
	*first = s->arena->watch_inline_count + idx * WATCH_LISTENER;
	return l->watch;
}

/* Those that do not mind others. */
static void notify_shared(struct stack *s, struct watch *w, uint32_t count, uint32_t first_idx)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = atomic_load_explicit(&w[i].word, memory_order_relaxed);
		uint32_t poller;

		if (!word || (word & WATCH_EXCLUSIVE))
			continue;
		poller = watch_notify(s->arena, &w[i], first_idx + i, READABLE);
		if (poller != UINT32_MAX)
			wake_add(s, poller);
	}
}

void notify(struct stack *s, uint32_t ep_idx, uint32_t events)
{
	struct endpoint *ep = stack_ep(s, ep_idx);
	struct watch *more;
	uint32_t count, first;

	/* the bits of the kernel's wake-ups (sock_def_readable, sock_def_write_space) */
	if (events & EPOLLIN)
		events |= READABLE;
	if (events & EPOLLOUT)
		events |= EPOLLWRNORM | EPOLLWRBAND;
	/* pairs with the fence of whoever claims a watch: either we see the watch or it sees the new level */
	atomic_thread_fence(memory_order_seq_cst);
	notify_some(s, ep->watch, WATCH_INLINE, ep_idx * WATCH_INLINE, events);
	more = listener_watches(s, ep, &count, &first);
	notify_some(s, more, count, first, events);
}

/* One of those that want to be alone is enough: who sleeps and has not been called yet, in turn. Others that
 * do not sleep are called as well, on the way to it: nobody can tell when they will look (__wake_up and
 * ep_poll_callback in the kernel do the same). True when a sleeper was called. */
static bool notify_one(struct stack *s, struct watch *w, uint32_t count, uint32_t first_idx, uint32_t start)
{
	for (uint32_t n = 0; n < count; n++) {
		uint32_t i = (start + n) % count, poller;
		uint64_t word = atomic_load_explicit(&w[i].word, memory_order_relaxed);

		if (!(word & WATCH_EXCLUSIVE) || (word & WATCH_QUEUED))
			continue;
		poller = watch_notify(s->arena, &w[i], first_idx + i, READABLE);
		if (poller == UINT32_MAX)
			continue;
		wake_add(s, poller);
		/* an armed set takes nothing away from others: ep_poll_callback with nobody in ep->wq */
		if (atomic_load_explicit(&s->arena->pollers[poller].sleeping, memory_order_relaxed) ==
		        POLLER_SLEEPS)
			return true;
	}
	return false;
}

static void notify_all_exclusive(struct stack *s, struct watch *w, uint32_t count, uint32_t first_idx)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t poller;

		if (!(atomic_load_explicit(&w[i].word, memory_order_relaxed) & WATCH_EXCLUSIVE))
			continue;
		poller = watch_notify(s->arena, &w[i], first_idx + i, READABLE);
		if (poller != UINT32_MAX)
			wake_add(s, poller);
	}
}

void notify_accept_again(struct stack *s, uint32_t ep_idx)
{
	struct endpoint *ep = stack_ep(s, ep_idx);
	struct watch *more;
	uint32_t count, first;

	/* as in notify */
	atomic_thread_fence(memory_order_seq_cst);
	notify_all_exclusive(s, ep->watch, WATCH_INLINE, ep_idx * WATCH_INLINE);
	more = listener_watches(s, ep, &count, &first);
	notify_all_exclusive(s, more, count, first);
}

void notify_accept(struct stack *s, uint32_t ep_idx, uint32_t turn)
{
	struct endpoint *ep = stack_ep(s, ep_idx);
	struct watch *more;
	uint32_t count, first;

	/* as in notify */
	atomic_thread_fence(memory_order_seq_cst);
	more = listener_watches(s, ep, &count, &first);
	if (!more)
		return;
	notify_shared(s, ep->watch, WATCH_INLINE, ep_idx * WATCH_INLINE);
	notify_shared(s, more, count, first);
	/* the turn goes through both arrays */
	turn %= WATCH_INLINE + count;
	if (turn < WATCH_INLINE) {
		if (!notify_one(s, ep->watch, WATCH_INLINE, ep_idx * WATCH_INLINE, turn))
			notify_one(s, more, count, first, 0);
	} else if (!notify_one(s, more, count, first, turn - WATCH_INLINE)) {
		notify_one(s, ep->watch, WATCH_INLINE, ep_idx * WATCH_INLINE, 0);
	}
}

void notify_gone(struct stack *s, uint32_t ep_idx)
{
	struct endpoint *ep = stack_ep(s, ep_idx);

	for (uint32_t i = 0; i < WATCH_INLINE; i++) {
		uint32_t poller =
		        WATCH_POLLER(atomic_load_explicit(&ep->watch[i].word, memory_order_relaxed));

		if (unlikely(poller && poller <= s->arena->poller_count))
			wake_add(s, poller - 1);
	}
}

void notify_flush(struct stack *s)
{
	uint64_t one = 1;

	for (uint32_t i = 0; i < s->wake_count; i++) {
		int fd;

		if (!poller_wake_needed(s->arena, s->wake[i]))
			continue;
		fd = atomic_load_explicit(&s->poller_fds[s->wake[i]], memory_order_acquire);
		if (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno == EBADF)
			bad_input(s, __func__, __LINE__);
		COUNT(s, wakeups_sent, 1);
	}
	s->wake_count = 0;
}
