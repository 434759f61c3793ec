/* epoll_wait.c - waiting on an epoll set: collecting what is ready on both sides, spinning, sleeping; sets
 * inside sets.
 *
 * Runs in application threads. Level, edge and one-shot are told apart in collect and nowhere else. Members
 * and locks are epoll_set.c's business; the protocol is in ready.h and doc/threads.md, "Readiness" and "Wait
 * and wake".
 */
#include "epoll_int.h"
#include "clock.h"
#include "endpoint.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "ready.h"
#include "sock.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum { KERNEL_LOOK_NS = 100000 };

/* Moves watches that stacks have queued to the local list. With the set's lock. */
void epoll_drain(struct epoll_set *s)
{
	const struct arena *a = &proc.at.arena;
	uint32_t idx = poller_drain(a, (uint32_t)atomic_load(&s->poller));

	while (idx && idx <= a->watch_count) {
		uint32_t next = atomic_load_explicit(&watch_at(a, idx - 1)->next, memory_order_relaxed);

		/* not queued any more from here: what happens after the look below queues it again */
		if (watch_unqueue(a, idx - 1)) {
			struct epoll_item *it = proc.watch_item[idx - 1];

			if (it && it->set == s && !it->is_spent)
				ready_add(s, it);
		}
		idx = next;
	}
}

/* Delivers what is ready: the one place where level, edge and one-shot differ. */
static int collect(struct epoll_set *s, struct epoll_event *events, int max)
{
	struct epoll_item *it;
	uint32_t todo;
	int n = 0;

	spin_lock(&s->lock);
	if (proc_is_dead() || s->unwatched_count)
		for (it = s->items; it; it = it->set_next)
			if (!it->is_spent && sock_is_ours(it->file) &&
			        (proc_is_dead() || it->watch == WATCH_NONE))
				ready_add(s, it);
	if (atomic_load(&s->poller) >= 0)
		epoll_drain(
		        s); /* after the service's death, too: what it queued last would keep waits awake */
	for (todo = s->ready_count; todo && n < max; todo--) {
		uint32_t ev;

		it = s->ready;
		ev = wait_level(it->file, it->events) & (it->events | ALWAYS);
		if (!ev || it->is_spent) {
			ready_remove(s, it);
			continue;
		}
		events[n].events = ev;
		events[n++].data = it->data;
		if (it->events & EPOLLONESHOT) {
			it->is_spent = true;
			ready_remove(s, it);
		} else if (it->events & EPOLLET) {
			ready_remove(s, it);
		} else {
			/* level: to the end of the list, so that everybody gets a turn */
			ready_remove(s, it);
			ready_add(s, it);
		}
	}
	if (s->ready_count && (atomic_load(&s->sleepers) || s->is_nested))
		epoll_kick(s);
	spin_unlock(&s->lock);
	return n;
}

/* Removes our own members from what the kernel returned. */
static int filter(struct epoll_set *s, struct epoll_event *events, int n, bool *is_internal)
{
	int k = 0;

	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr == &epoll_mark_event) {
			uint64_t drop;

			*is_internal = true;
			if (s->event_fd >= 0 && libc.read(s->event_fd, &drop, sizeof(drop)) < 0)
				continue;
		} else if (events[i].data.ptr == &epoll_mark_ctl) {
			*is_internal = true;
			attach_check_dead(&proc.at);
		} else {
			events[k++] = events[i];
		}
	}
	return k;
}

static int kernel_wait(struct epoll_set *s, struct epoll_event *events, int max, uint64_t timeout_ns,
        const sigset_t *mask, bool *is_internal)
{
	struct timespec ts = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
	int n = timeout_ns == 0 && !mask ? libc.epoll_wait(s->epfd, events, max, 0)
	                                 : libc.epoll_pwait2(s->epfd, events, max,
	                                           timeout_ns == UINT64_MAX ? NULL : &ts, mask);

	return n < 0 ? -errno : filter(s, events, n, is_internal);
}

static void rebuild(struct epoll_set *s)
{
	spin_lock(&s->lock);
	if (s->needs_rebuild && proc_is_attached()) {
		s->needs_rebuild = false;
		if (!epoll_poller_start(s))
			for (struct epoll_item *it = s->items; it; it = it->set_next)
				if (sock_is_ours(it->file))
					epoll_item_watch(s, it);
	}
	spin_unlock(&s->lock);
}

/* True when a member of ours is ready. Makes the event fd, and so the kernel's set that a poll or another set
 * looks at, say the same, now and until the next change. */
static bool set_arm(struct epoll_set *s)
{
	const struct arena *a = &proc.at.arena;
	struct pollfd p;
	bool is_ready = false;
	uint64_t drop;
	uint32_t poller;

	if (s->needs_rebuild)
		rebuild(s);
	if (atomic_load(&s->poller) < 0)
		return false;
	poller = (uint32_t)atomic_load(&s->poller);
	spin_lock(&s->lock);
	s->is_nested = true;
	do {
		poller_sleep(a, poller);
		epoll_drain(s);
		for (struct epoll_item *it = s->ready, *next; it; it = next) {
			next = it->ready_next;
			if (!it->is_spent && (wait_level(it->file, it->events) & (it->events | ALWAYS)))
				is_ready = true;
			else
				ready_remove(s, it);
		}
		if (is_ready) {
			/* once is enough: more would be edges to a set around this one */
			p = (struct pollfd){.fd = s->event_fd, .events = POLLIN};
			if (libc.poll(&p, 1, 0) <= 0)
				epoll_kick(s);
		} else if (libc.read(s->event_fd, &drop, sizeof(drop)) < 0 && errno != EAGAIN) {
			log_debug("event fd: %s", strerror(errno));
		}
	} while (!is_ready && poller_has_ready(a, poller));
	spin_unlock(&s->lock);
	return is_ready;
}

/* Before the kernel is asked about a set that has sets as members. */
static void nested_settle(void)
{
	spin_lock(&epoll_sets_lock);
	for (struct epoll_set *s = epoll_sets; s; s = s->next)
		if (s->is_nested)
			set_arm(s);
	spin_unlock(&epoll_sets_lock);
}

bool epoll_set_armed_ready(struct file *ef)
{
	if (ef->set->has_sets)
		nested_settle();
	return set_arm(ef->set);
}

int epoll_wait_file(struct file *ef, int epfd, struct epoll_event *events, int max, uint64_t timeout_ns,
        const sigset_t *mask, size_t mask_size)
{
	const struct arena *a = &proc.at.arena;
	struct epoll_set *s = ef->set;
	uint64_t now, deadline, spin_end;
	int n, k, poller;
	bool is_internal;

	if (max <= 0)
		return SOCK_LIBC; /* the kernel's error */
	if (unlikely(!events)) {
		struct epoll_event one;

		/* as the kernel: only what cannot be stored is a fault */
		n = epoll_wait_file(ef, epfd, &one, 1, timeout_ns, mask, mask_size);
		return n > 0 ? -EFAULT : n;
	}
	if (unlikely(s->needs_rebuild))
		rebuild(s);
	now = timeout_ns && timeout_ns != UINT64_MAX ? clock_now_ns() : 0;
	deadline = timeout_ns == UINT64_MAX || timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	for (;;) {
		if (unlikely(s->has_sets))
			nested_settle();
		poller = atomic_load_explicit(&s->poller, memory_order_acquire);
		if (poller < 0 && proc_is_dead() && s->items && (n = collect(s, events, max)))
			return n;
		if (poller < 0) { /* nothing of ours: but a member may become ours while we sleep, and wakes
			             us then */
			uint64_t left = deadline;

			if (deadline != UINT64_MAX) {
				now = clock_now_ns();
				left = timeout_ns && deadline > now ? deadline - now : 0;
			}
			is_internal = false;
			n = kernel_wait(s, events, max, left, mask, &is_internal);
			if (n || !is_internal)
				return n;
			continue;
		}
		now = clock_now_ns();
		if (atomic_load_explicit(&s->kernel_members, memory_order_relaxed) &&
		        now - s->kernel_looked_ns > KERNEL_LOOK_NS &&
		        (s->ready_count || poller_has_ready(a, (uint32_t)poller))) {
			/* ours may fill every wait: now and then the kernel's members go first */
			s->kernel_looked_ns = now;
			is_internal = false;
			k = kernel_wait(s, events, max, 0, NULL, &is_internal);
			if (k > 0)
				return k < max ? k + collect(s, events + k, max - k) : k;
		}
		n = collect(s, events, max);
		if (!n &&
		        (timeout_ns == 0 || atomic_load_explicit(&s->kernel_members, memory_order_relaxed))) {
			s->kernel_looked_ns = now;
			is_internal = false;
			n = kernel_wait(s, events, max, 0, NULL, &is_internal);
			if (n < 0)
				return n;
			if (!n && is_internal && timeout_ns == 0)
				n = collect(s, events, max);
		}
		if (n || timeout_ns == 0)
			return n;
		if (proc.spin_ns && !proc_is_dead()) {
			spin_end = now + proc.spin_ns;
			if (spin_end > deadline)
				spin_end = deadline;
			while (!poller_has_ready(a, (uint32_t)poller) && clock_now_ns() < spin_end)
				for (int i = 0; i < 8; i++)
					cpu_relax();
			if (poller_has_ready(a, (uint32_t)poller))
				continue;
		}
		now = clock_now_ns();
		if (now >= deadline)
			return 0;
		/* announce, look again, sleep */
		atomic_fetch_add(&s->sleepers, 1);
		poller_sleep(a, (uint32_t)poller);
		is_internal = false;
		if (poller_has_ready(a, (uint32_t)poller) || s->ready_count || s->needs_rebuild) {
			k = 0;
			is_internal = true;
		} else {
			uint64_t left = deadline == UINT64_MAX ? UINT64_MAX : deadline - now;

			if (s->unwatched_count && left > 1000000)
				left = 1000000;
			k = kernel_wait(s, events, max, left, mask, &is_internal);
			if (s->unwatched_count)
				is_internal = true;
		}
		/* others may still sleep: the announcement stays up for them */
		if (atomic_fetch_sub(&s->sleepers, 1) == 1 && !s->is_nested)
			poller_awake(a, (uint32_t)poller);
		else
			poller_sleep(a, (uint32_t)poller);
		if (k) {
			s->kernel_looked_ns = clock_now_ns();
			if (k > 0 && k < max)
				k += collect(s, events + k, max - k);
			return k;
		}
		n = collect(s, events, max);
		if (n)
			return n;
		if (deadline != UINT64_MAX && clock_now_ns() >= deadline)
			return 0;
	}
}
