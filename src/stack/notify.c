/* notify.c - telling applications that an endpoint changed.
 *
 * Runs in the stack's thread. Watches are queued at the moment of the change (ready.h), the system calls that
 * wake sleepers are made once per sleeper in the wake phase at the end of the turn.
 */
#include "stack_int.h"

#include <errno.h>
#include <unistd.h>

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

void notify(struct stack *s, uint32_t ep_idx, uint32_t events)
{
	struct endpoint *ep = stack_ep(s, ep_idx);

	/* pairs with the fence of whoever claims a watch: either we see the watch or it sees the new level */
	atomic_thread_fence(memory_order_seq_cst);
	notify_some(s, ep->watch, WATCH_INLINE, ep_idx * WATCH_INLINE, events);
	if (ep->listener < s->arena->listener_count)
		notify_some(s, arena_listener(s->arena, ep->listener)->watch, WATCH_LISTENER,
		        s->arena->watch_inline_count + ep->listener * WATCH_LISTENER, events);
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
