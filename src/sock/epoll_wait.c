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
#include "guard.h"
#include "latency.h"
#include "libc.h"
#include "local.h"
#include "log.h"
#include "proc.h"
#include "raw.h"
#include "ready.h"
#include "sock.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* How long the kernel's members are taken for quiet after a look that found none ready. */
enum { KERNEL_LOOK_NS = 10000 };

static void drain_at(struct epoll_set *s, const struct service *at, uint32_t poller)
{
	const struct arena *a = &at->at.arena;
	uint32_t idx = poller_drain(a, poller);

	while (idx && idx <= a->watch_count) {
		uint32_t next = atomic_load_explicit(&watch_at(a, idx - 1)->next, memory_order_relaxed);

		/* not queued any more from here: what happens after the look below queues it again */
		if (watch_unqueue(a, idx - 1)) {
			struct epoll_item *it = *service_watch_item(at, idx - 1);

			if (it && it->set == s && !it->is_spent)
				ready_add(s, it);
		}
		idx = next;
	}
}

/* Moves watches that stacks have queued to the local list. With the set's lock. */
void epoll_drain(struct epoll_set *s)
{
	for (uint32_t i = 0; i < service_count(); i++) {
		int poller = atomic_load(&s->poller[i]);

		if (poller >= 0)
			drain_at(s, &services[i], (uint32_t)poller);
	}
}

/* A member that no watch tells of any more: its service has died, or one of them, or it has none. */
static bool is_untold(const struct epoll_item *it)
{
	if (it->is_unwatched || it->watch == WATCH_NONE || handle_is_dead(it->watch))
		return true;
	for (int i = 0; unlikely(it->also != NULL) && i < SERVICE_MAX; i++)
		if (it->also[i] != WATCH_NONE && handle_is_dead(it->also[i]))
			return true;
	return false;
}

static uint32_t dead_count(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < service_count(); i++)
		n += attach_is_dead(&services[i].at);
	return n;
}

/* Members that no watch tells of are put on the list by every look. When a service has died and all its
 * members have gone, nobody is looked at any more: the rest of the set may be large, and in use. */
static void look_at_untold(struct epoll_set *s, uint32_t dead)
{
	if (dead == s->dead_seen && !s->may_be_untold && !s->unwatched_count)
		return;
	s->dead_seen = dead;
	s->may_be_untold = false;
	for (struct epoll_item *it = s->items; it; it = it->set_next)
		if (sock_is_ours(it->file) && is_untold(it)) {
			s->may_be_untold = true;
			if (!it->is_spent)
				ready_add(s, it);
		}
}

/* Delivers what is ready: the one place where level, edge and one-shot differ. */
static int collect(struct epoll_set *s, struct epoll_event *events, int max)
{
	struct epoll_item *it;
	uint32_t todo, dead = dead_count();
	int n = 0;

	spin_lock(&s->lock);
	if (unlikely(dead || s->unwatched_count))
		look_at_untold(s, dead);
	/* after a service's death, too: what it queued last would keep waits awake */
	epoll_drain(s);
	for (todo = s->ready_count; todo && n < max; todo--) {
		uint32_t ev;

		it = s->ready;
		ev = epoll_item_level(it) & (it->events | ALWAYS);
		if (!ev || it->is_spent) {
			ready_remove(s, it);
			continue;
		}
		events[n].events = ev;
		events[n++].data = it->data;
		if (unlikely(it->also != NULL) && (it->events & EPOLLEXCLUSIVE))
			wait_nudge_rest(it->file);
		if (it->events & EPOLLONESHOT) {
			it->is_spent = true;
			/* a wildcard listener's kernel half is spent with ours; MOD arms both */
			if (it->in_kernel && !libc.epoll_ctl(s->epfd, EPOLL_CTL_DEL, it->fd, NULL)) {
				it->in_kernel = false;
				atomic_fetch_sub(&s->kernel_members, 1);
			}
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
			if (s->event_fd >= 0)
				RAW(SYS_read, s->event_fd, &drop, sizeof(drop));
		} else if (events[i].data.ptr == &epoll_mark_ctl) {
			*is_internal = true;
			for (uint32_t n = 0; n < service_count(); n++)
				attach_check_dead(&services[n].at);
		} else if (events[i].data.ptr == &epoll_mark_side) {
			*is_internal = true;
			spin_lock(&s->lock);
			epoll_side_drain(s);
			spin_unlock(&s->lock);
		} else {
			events[k++] = events[i];
		}
	}
	return k;
}

/* What the kernel delivered as the one shot of a wildcard listener was our half's, too. */
static void spend_twins(struct epoll_set *s, const struct epoll_event *events, int n)
{
	spin_lock(&s->lock);
	for (struct epoll_item *it = s->items; it; it = it->set_next) {
		if (!(it->events & EPOLLONESHOT) || !it->in_kernel ||
		        atomic_load(&it->file->mode) != MODE_DUAL)
			continue;
		for (int i = 0; i < n; i++)
			if (events[i].data.u64 == it->data.u64) {
				it->is_spent = true;
				ready_remove(s, it);
			}
	}
	spin_unlock(&s->lock);
}

/* epoll_pwait2, or its elder brother where that is unknown (Linux before 5.11, sandboxes, valgrind). */
static int kernel_pwait(
        int epfd, struct epoll_event *events, int max, const struct timespec *ts, const sigset_t *mask)
{
	int n = libc.epoll_pwait2(epfd, events, max, ts, mask), ms = -1;

	if (likely(n >= 0) || errno != ENOSYS)
		return n;
	if (ts)
		ms = ts->tv_sec > 1000000 ? 1000000000
		                          : (int)(ts->tv_sec * 1000 + (ts->tv_nsec + 999999) / 1000000);
	return libc.epoll_pwait(epfd, events, max, ms, mask);
}

static int kernel_wait(struct epoll_set *s, struct epoll_event *events, int max, uint64_t timeout_ns,
        const sigset_t *mask, bool *is_internal)
{
	struct timespec ts = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
	int n;

	/* a look is no cancellation point */
	if (timeout_ns == 0 && !mask)
		n = (int)RAW(SYS_epoll_pwait, s->epfd, events, max, 0, NULL, 0);
	else if ((n = kernel_pwait(s->epfd, events, max, timeout_ns == UINT64_MAX ? NULL : &ts, mask)) < 0)
		n = -errno;
	if (n < 0)
		return n;
	n = filter(s, events, n, is_internal);
	if (s->has_dual && n > 0)
		spend_twins(s, events, n);
	/* The wake-up may have been meant for a thread that sleeps, and the announcement went with it. It
	 * stands again before this thread looks at the list. */
	if (*is_internal && atomic_load(&s->sleepers))
		epoll_pollers_sleep(s);
	return n;
}

/* After a wait that did not look at the list of ours, or not last: what is on it is somebody else's to take.
 */
static void leave_rest(struct epoll_set *s)
{
	if (atomic_load(&s->sleepers) && (s->ready_count || epoll_pollers_have_ready(s)))
		epoll_kick(s);
}

/* A wildcard listener that is ready on both sides is one member: more events behind have others lose those
 * that are there already. How many of them stay. */
static int without_twins(struct epoll_set *s, struct epoll_event *events, int have, int more)
{
	int n = 0;

	if (!s->has_dual)
		return more;
	spin_lock(&s->lock);
	for (int i = have; i < have + more; i++) {
		int twin = 0;

		while (twin < have && events[twin].data.u64 != events[i].data.u64)
			twin++;
		for (struct epoll_item *it = s->items; twin < have && it; it = it->set_next)
			if (it->data.u64 == events[i].data.u64 && atomic_load(&it->file->mode) != MODE_DUAL)
				twin = have; /* another member with the same data */
		if (twin < have)
			events[twin].events |= events[i].events;
		else
			events[have + n++] = events[i];
	}
	spin_unlock(&s->lock);
	return n;
}

/* Members of both sides are ready, or may be: a wait returns all of them, as the kernel's does. Where max is
 * too small, the sides take turns in going first. */
static int collect_both(struct epoll_set *s, struct epoll_event *events, int max)
{
	bool is_internal = false, ours_first = s->is_our_turn;
	int ours = 0, kernels;

	if (ours_first)
		ours = collect(s, events, max);
	if (ours == max) {
		s->is_our_turn = false;
		return ours;
	}
	kernels = kernel_wait(s, events + ours, max - ours, 0, NULL, &is_internal);
	if (kernels < 0)
		kernels = 0; /* what is wrong with the set, the wait itself will tell */
	s->kernel_was_ready = kernels > 0;
	s->is_our_turn = kernels == max;
	if (!ours_first && kernels < max) {
		ours = collect(s, events + kernels, max - kernels);
		return kernels + without_twins(s, events, kernels, ours);
	}
	leave_rest(s);
	return ours + without_twins(s, events, ours, kernels);
}

static void rebuild(struct epoll_set *s)
{
	spin_lock(&s->lock);
	if (s->needs_rebuild && proc_is_attached()) {
		s->needs_rebuild = false;
		for (struct epoll_item *it = s->items; it; it = it->set_next)
			if (sock_is_ours(it->file) && !epoll_pollers_start(s, it->file))
				epoll_item_watch(s, it);
	}
	spin_unlock(&s->lock);
}

/* True when a member of ours is ready. Makes the event fd, and so the kernel's set that a poll or another set
 * looks at, say the same, now and until the next change. */
static bool set_arm(struct epoll_set *s)
{
	static const struct timespec zero;
	struct pollfd p;
	bool is_ready = false;
	uint64_t drop;

	if (s->needs_rebuild)
		rebuild(s);
	if (!epoll_has_pollers(s))
		return false;
	spin_lock(&s->lock);
	s->is_nested = true;
	do {
		if (atomic_load(&s->sleepers))
			epoll_pollers_sleep(s);
		else
			epoll_pollers_arm(s);
		epoll_drain(s);
		epoll_side_drain(s);
		for (struct epoll_item *it = s->ready, *next; it; it = next) {
			next = it->ready_next;
			if (!it->is_spent && (epoll_item_level(it) & (it->events | ALWAYS)))
				is_ready = true;
			else
				ready_remove(s, it);
		}
		if (is_ready) {
			/* once is enough: more would be edges to a set around this one */
			p = (struct pollfd){.fd = s->event_fd, .events = POLLIN};
			if (RAW(SYS_ppoll, &p, 1, &zero, NULL) <= 0)
				epoll_kick(s);
		} else {
			RAW(SYS_read, s->event_fd, &drop, sizeof(drop));
		}
	} while (!is_ready && epoll_pollers_have_ready(s));
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

/* What a sleeping thread leaves behind when it is cancelled, or leaves by longjmp(3). */
struct epoll_sleeper {
	struct file *ef;
	bool is_announced; /* there were pollers to announce at */
	int port_fd;       /* of attach_sleep; -EAGAIN: not asleep */
};

static void announcement_end(struct epoll_set *s, bool is_announced)
{
	bool is_last = atomic_fetch_sub(&s->sleepers, 1) == 1;

	if (!is_announced)
		return;
	/* others may still sleep: the announcement stays up for them */
	if (!is_last || s->is_nested) {
		if (!is_last)
			epoll_pollers_sleep(s);
		else
			epoll_pollers_arm(s);
		return;
	}
	epoll_pollers_awake(s);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&s->sleepers)) /* one that came in between: its announcement is gone */
		epoll_pollers_sleep(s);
}

static void sleeper_cancelled(void *arg)
{
	struct epoll_sleeper *w = arg;

	if (w->port_fd != -EAGAIN)
		attach_awake(proc.near, w->port_fd);
	announcement_end(w->ef->set, w->is_announced);
	file_put(w->ef); /* the call's */
}

/* Sleeps for the kernel's set and for the port of a stack in this process. That one does not become a member
 * of the set: it is not what the program waits for, and only one thread sleeps for it. */
static int port_wait(struct epoll_set *s, struct epoll_event *events, int max, int port_fd,
        uint64_t timeout_ns, const sigset_t *mask, bool *is_internal)
{
	struct pollfd p[2] = {{.fd = s->epfd, .events = POLLIN}, {.fd = port_fd, .events = POLLIN}};
	struct timespec ts = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};

	if (libc.ppoll(p, 2, timeout_ns == UINT64_MAX ? NULL : &ts, mask) < 0)
		return -errno;
	*is_internal = true;
	return p[0].revents ? kernel_wait(s, events, max, 0, NULL, is_internal) : wait_signal(mask);
}

/* kernel_wait for a thread that may be cancelled in there. */
static int kernel_sleep(struct file *ef, bool is_announced, struct epoll_event *events, int max, int port_fd,
        uint64_t timeout_ns, const sigset_t *mask, bool *is_internal)
{
	struct epoll_sleeper w = {ef, is_announced, port_fd};
	int n;

	GUARD_BEGIN(sleeper_cancelled, &w)
	if (unlikely(port_fd >= 0))
		n = port_wait(ef->set, events, max, port_fd, timeout_ns, mask, is_internal);
	else
		n = kernel_wait(ef->set, events, max, timeout_ns, mask, is_internal);
	GUARD_END(0)
	return n;
}

/* The kernel's members have not been looked at for a while. */
static inline bool is_kernel_due(const struct epoll_set *s, uint64_t now_ns)
{
	return atomic_load_explicit(&s->kernel_members, memory_order_relaxed) &&
	       now_ns - s->kernel_looked_ns > KERNEL_LOOK_NS;
}

/* Asks the kernel's set without waiting; ours, too, when something of ours was told there. A count or -E. */
static int kernel_look(struct epoll_set *s, struct epoll_event *events, int max, uint64_t now_ns)
{
	bool is_internal = false;
	int n;

	s->kernel_looked_ns = now_ns;
	n = kernel_wait(s, events, max, 0, NULL, &is_internal);
	if (n < 0)
		return n;
	s->kernel_was_ready = n > 0;
	if (!n)
		return is_internal ? collect(s, events, max) : 0;
	/* what made a set inside this one ready may be a member of ours here, too: they come together */
	if (n < max)
		return n + without_twins(s, events, n, collect(s, events + n, max - n));
	leave_rest(s);
	return n;
}

int epoll_wait_file(struct file *ef, int epfd, struct epoll_event *events, int max, uint64_t timeout_ns,
        const sigset_t *mask, size_t mask_size)
{
	struct epoll_set *s = ef->set;
	struct wait_spin spin;
	uint64_t now, deadline, limit;
	int n, k, port_fd;
	bool is_internal, is_settled = false;

	if (max <= 0 || max > (int)EPOLL_MOST)
		return SOCK_LIBC; /* the kernel's error */
	if (unlikely(user_is_bad(events))) {
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
		attach_drive(proc.near);
		if (unlikely(s->has_sets))
			nested_settle();
		if (unlikely(!epoll_has_pollers(s)) && proc_is_dead() && s->items &&
		        (n = collect(s, events, max)))
			return n;
		if (!epoll_has_pollers(s)) { /* nothing of ours: but a member may become ours while we sleep,
			             and wakes us then */
			uint64_t left = deadline;

			if (deadline != UINT64_MAX) {
				now = clock_now_ns();
				left = timeout_ns && deadline > now ? deadline - now : 0;
			}
			/* counted, so that a thread that looks without waiting and takes the edge of the
			 * poller's coming announces us */
			is_internal = false;
			atomic_fetch_add(&s->sleepers, 1);
			if (epoll_has_pollers(s)) {
				n = 0;
				is_internal = true;
			} else {
				n = kernel_sleep(ef, false, events, max, -EAGAIN, left, mask, &is_internal);
			}
			announcement_end(s, false);
			if (n || !is_internal)
				return n;
			continue;
		}
		now = clock_now_ns();
		if (atomic_load_explicit(&s->kernel_members, memory_order_relaxed) &&
		        (s->has_sets || s->kernel_was_ready || now - s->kernel_looked_ns > KERNEL_LOOK_NS) &&
		        (s->ready_count || epoll_pollers_have_ready(s))) {
			s->kernel_looked_ns = now;
			n = collect_both(s, events, max);
			if (n)
				return n;
		}
		n = collect(s, events, max);
		if (!n && (timeout_ns == 0 || is_kernel_due(s, now))) {
			n = kernel_look(s, events, max, now);
			if (n < 0)
				return n;
		}
		if (!n && !timeout_ns && !is_settled && (is_settled = true) && local_settle(NULL))
			continue;
		if (n || timeout_ns == 0)
			return n;
		if (!proc_is_dead() && wait_spin_start(&spin, now, deadline)) {
			while (!epoll_pollers_have_ready(s) && wait_spin_turn(&spin))
				if (is_kernel_due(s, spin.now_ns) &&
				        (n = kernel_look(s, events, max, spin.now_ns)))
					return n;
			if (epoll_pollers_have_ready(s))
				continue;
		}
		now = clock_now_ns();
		if (now >= deadline)
			return 0;
		/* announce, look again, sleep */
		port_fd = attach_sleep(proc.near, &limit);
		if (unlikely(port_fd == -EAGAIN))
			continue;
		atomic_fetch_add(&s->sleepers, 1);
		epoll_pollers_sleep(s);
		is_internal = false;
		if (epoll_pollers_have_ready(s) || s->ready_count || s->needs_rebuild) {
			k = 0;
			is_internal = true;
		} else {
			uint64_t left = deadline == UINT64_MAX ? UINT64_MAX : deadline - now;

			if (s->unwatched_count && left > 1000000)
				left = 1000000;
			if (left > limit)
				left = limit;
			k = kernel_sleep(ef, true, events, max, port_fd, left, mask, &is_internal);
			wait_note_awake();
			if (s->unwatched_count)
				is_internal = true;
		}
		announcement_end(s, true);
		attach_awake(proc.near, port_fd);
		if (k) {
			s->kernel_looked_ns = clock_now_ns();
			s->kernel_was_ready = k > 0;
			if (k > 0 && k < max)
				k += without_twins(s, events, k, collect(s, events + k, max - k));
			else
				leave_rest(s);
			return k;
		}
		attach_drive(proc.near);
		if (unlikely(s->has_sets)) /* what woke us is in one of them, too, perhaps */
			continue;
		n = collect(s, events, max);
		if (n)
			return n;
		if (deadline != UINT64_MAX && clock_now_ns() >= deadline)
			return 0;
	}
}
