/* epoll_set.c - epoll instances with Pronk members.
 *
 * Runs in application threads. Owns: sets, their members (items) and the local ready list. Locks, in this
 * order: members_lock (items come and go, also on their files' lists), a set's lock (its lists and its items'
 * state). Readiness itself comes from the endpoint (never remembered); how stacks and
 * sets meet is told in ready.h and doc/threads.md, "Readiness".
 */
#include "epoll_int.h"
#include "clock.h"
#include "dgram.h"
#include "endpoint.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "raw.h"
#include "ready.h"
#include "sock.h"
#include "spare.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

struct epoll_set *epoll_sets;
_Atomic uint32_t epoll_sets_lock;
static _Atomic uint32_t members_lock; /* items come, move and go under it; taken before any set's lock */

char epoll_mark_event, epoll_mark_ctl;

void epoll_opened(int epfd)
{
	struct file *f;
	struct epoll_set *s = calloc(1, sizeof(*s));

	file_close(epfd);
	if (!s)
		return;
	s->epfd = epfd;
	s->event_fd = s->side_fd = -1;
	for (int i = 0; i < SERVICE_MAX; i++)
		atomic_init(&s->poller[i], -1);
	s->ready_tail = &s->ready;
	f = file_open(epfd, FILE_EPOLL);
	if (!f) {
		free(s);
		return;
	}
	f->set = s;
	spin_lock(&epoll_sets_lock);
	s->next = epoll_sets;
	epoll_sets = s;
	spin_unlock(&epoll_sets_lock);
}

void epoll_set_number(struct epoll_set *s, int epfd)
{
	s->epfd = epfd;
}

static int internal_add(int epfd, int fd, void *mark)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET | EPOLLRDHUP, .data.ptr = mark};

	return libc.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0 && errno != EEXIST ? -errno : 0;
}

static int event_open(struct epoll_set *s)
{
	int fd, rc;

	if (s->event_fd >= 0)
		return 0;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	s->event_fd = libc.fcntl(fd, F_DUPFD_CLOEXEC, 100);
	if (s->event_fd < 0)
		s->event_fd = fd;
	else
		libc.close(fd);
	rc = internal_add(s->epfd, s->event_fd, &epoll_mark_event);
	if (rc) {
		libc.close(s->event_fd);
		s->event_fd = -1;
		return rc;
	}
	proc_internal_fd_add(s->event_fd);
	return 0;
}

static int poller_start(struct epoll_set *s, struct service *at)
{
	_Atomic int *slot = &s->poller[at - services];
	uint64_t one = 1;
	int poller, rc;

	if (atomic_load(slot) >= 0)
		return 0;
	if (attach_is_dead(&at->at))
		return -ECONNRESET;
	poller = poller_claim(&at->at.arena, at->at.client_idx);
	if (poller < 0)
		return poller;
	rc = event_open(s);
	if (!rc)
		rc = attach_poller(&at->at, (uint32_t)poller, s->event_fd);
	if (!rc)
		rc = internal_add(s->epfd, at->at.ctl_fd, &epoll_mark_ctl);
	if (rc) {
		poller_free(&at->at.arena, (uint32_t)poller);
		return rc;
	}
	atomic_store(slot, poller);
	atomic_store(&s->has_poller, true);
	/* a thread may sleep in the kernel's set since before there was a poller to announce itself at: it
	 * looks again */
	RAW(SYS_write, s->event_fd, &one, sizeof(one)); /* no cancellation point */
	return 0;
}

int epoll_pollers_start(struct epoll_set *s, const struct file *f)
{
	int rc = -ECONNRESET, failure = 0;
	bool is_any = false;

	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		if (i && file_ep(f, i) == ENDPOINT_NONE)
			continue;
		rc = poller_start(s, handle_service(file_ep(f, i)));
		is_any |= !rc;
		if (rc && rc != -ECONNRESET)
			failure = rc;
	}
	return failure ? failure : is_any ? 0 : rc;
}

bool epoll_pollers_have_more(const struct epoll_set *s)
{
	for (uint32_t i = 1; i < service_count(); i++) {
		int poller = atomic_load(&s->poller[i]);

		if (poller >= 0 && poller_has_ready(&services[i].at.arena, (uint32_t)poller))
			return true;
	}
	return false;
}

static void pollers_each(const struct epoll_set *s, void (*fn)(const struct arena *a, uint32_t poller))
{
	for (uint32_t i = 0; i < service_count(); i++) {
		int poller = atomic_load(&s->poller[i]);

		if (poller >= 0)
			fn(&services[i].at.arena, (uint32_t)poller);
	}
}

void epoll_pollers_sleep(const struct epoll_set *s)
{
	pollers_each(s, poller_sleep);
}

void epoll_pollers_arm(const struct epoll_set *s)
{
	pollers_each(s, poller_arm);
}

void epoll_pollers_awake(const struct epoll_set *s)
{
	pollers_each(s, poller_awake);
}

static uint32_t mask_of(const struct epoll_item *it)
{
	return ((it->events & 0xffff & ~(uint32_t)WATCH_THREAD) | ALWAYS) & 0xffff;
}

/* WATCH_NONE: waits look by themselves. */
static uint32_t watch_take(struct epoll_set *s, struct epoll_item *it, uint32_t ep)
{
	struct service *at = handle_service(ep);
	uint32_t watch =
	        watch_claim(&at->at.arena, handle_index(ep), (uint32_t)atomic_load(&s->poller[at - services]),
	                mask_of(it) | (it->events & EPOLLEXCLUSIVE));

	if (watch == WATCH_NONE)
		return WATCH_NONE;
	*service_watch_item(at, watch) = it;
	return handle_make(at, watch);
}

/* Of a socket that is at several services: those beyond the first. False: one must be looked after.
 * *has_input, if not NULL: something has come at one that was not watched so far. */
static bool others_watch(struct epoll_set *s, struct epoll_item *it, bool *has_input)
{
	bool is_all = true;

	if (!it->also) {
		it->also = malloc(SERVICE_MAX * sizeof(*it->also));
		if (!it->also)
			return false;
		memset(it->also, 0xff, SERVICE_MAX * sizeof(*it->also)); /* WATCH_NONE */
	}
	for (uint32_t i = 1; i < file_ep_count(it->file); i++) {
		uint32_t ep = file_ep(it->file, i), *watch = &it->also[i - 1];

		if (ep == ENDPOINT_NONE || *watch != WATCH_NONE || handle_is_dead(ep) ||
		        atomic_load(&s->poller[handle_service(ep) - services]) < 0)
			continue;
		/* it was the first when it was watched */
		if (it->watch != WATCH_NONE && handle_service(it->watch) == handle_service(ep))
			continue;
		*watch = watch_take(s, it, ep);
		is_all &= *watch != WATCH_NONE;
		if (has_input) {
			atomic_thread_fence(memory_order_seq_cst);
			*has_input |= ep_rx_ready(handle_ep(ep));
		}
	}
	return is_all;
}

static void set_unwatched(struct epoll_set *s, struct epoll_item *it)
{
	if (!it->is_unwatched)
		s->unwatched_count++;
	it->is_unwatched = true; /* waits look by themselves every millisecond */
}

/* Watches the endpoint and queues the item if it is ready already. With the set's lock. */
void epoll_item_watch(struct epoll_set *s, struct epoll_item *it)
{
	uint32_t ep = atomic_load(&it->file->ep);
	bool is_watched = true;

	s->may_be_untold = true;
	if (ep == ENDPOINT_NONE)
		return;
	if (it->watch == WATCH_NONE && !handle_is_dead(ep)) {
		it->watch = watch_take(s, it, ep);
		is_watched = it->watch != WATCH_NONE;
	}
	if (unlikely(it->file->also != NULL))
		is_watched &= others_watch(s, it, NULL);
	if (!is_watched)
		set_unwatched(s, it);
	epoll_side_update(s, it);
	atomic_thread_fence(memory_order_seq_cst);
	if (epoll_item_level(it) & mask_of(it))
		ready_add(s, it);
}

/* No drain finds the member by its watches any more. One whose endpoint was given up is another member's. */
static void watch_forget(const struct epoll_item *it, uint32_t watch)
{
	void **slot;

	if (watch == WATCH_NONE)
		return;
	slot = service_watch_item(handle_service(watch), handle_index(watch));
	if (*slot == it)
		*slot = NULL;
}

static void watch_give_back(struct epoll_set *s, uint32_t watch)
{
	struct service *at = handle_service(watch);
	uint32_t poller = (uint32_t)atomic_load(&s->poller[at - services]);

	if (attach_is_dead(&at->at) || watch_release(&at->at.arena, handle_index(watch), poller))
		return;
	for (;;) {
		uint64_t word = atomic_load(&watch_at(&at->at.arena, handle_index(watch))->word);

		if (!(word & WATCH_QUEUED) || WATCH_POLLER(word) != poller + 1 || WATCH_MASK(word) ||
		        attach_is_dead(&at->at))
			return;
		epoll_drain(s);
		cpu_relax();
	}
}

/* Takes the watches away, and off the ready list if they are there: the endpoint may be given up next, and
 * its watches with it. With the set's lock. */
static void item_unwatch(struct epoll_set *s, struct epoll_item *it)
{
	uint32_t watch = it->watch;
	bool had_any = watch != WATCH_NONE;

	if (it->is_unwatched)
		s->unwatched_count--;
	it->is_unwatched = false;
	it->watch = WATCH_NONE;
	s->may_be_untold = true;
	/* all of them first: giving one back may drain the list that another one is on */
	watch_forget(it, watch);
	for (int i = 0; unlikely(it->also != NULL) && i < SERVICE_MAX; i++)
		watch_forget(it, it->also[i]);
	if (watch != WATCH_NONE)
		watch_give_back(s, watch);
	for (int i = 0; unlikely(it->also != NULL) && i < SERVICE_MAX; i++) {
		watch = it->also[i];
		it->also[i] = WATCH_NONE;
		if (watch != WATCH_NONE)
			watch_give_back(s, watch);
		had_any |= watch != WATCH_NONE;
	}
	if (had_any && (it->events & EPOLLEXCLUSIVE))
		wait_nudge(it->file);
}

/* After a change of its events. */
static void item_remask(struct epoll_item *it)
{
	if (it->watch != WATCH_NONE && !handle_is_dead(it->watch))
		watch_remask(&handle_at(it->watch)->arena, handle_index(it->watch), mask_of(it));
	for (int i = 0; unlikely(it->also != NULL) && i < SERVICE_MAX; i++)
		if (it->also[i] != WATCH_NONE && !handle_is_dead(it->also[i]))
			watch_remask(&handle_at(it->also[i])->arena, handle_index(it->also[i]), mask_of(it));
}

/* Items that no set has; with members_lock. Event loops that add and delete a member for each request would
 * otherwise spend as much time in malloc as here. Never more than there were members at one time. */
static struct epoll_item *free_items;

static struct epoll_item *item_new(void)
{
	struct epoll_item *it = free_items;

	if (unlikely(!it))
		return calloc(1, sizeof(*it));
	free_items = it->file_next;
	*it = (struct epoll_item){0};
	return it;
}

static void item_drop(struct epoll_item *it)
{
	free(it->also);
	it->also = NULL;
	it->file_next = free_items;
	free_items = it;
}

/* With members_lock. */
static struct epoll_item *item_find(struct epoll_set *s, struct file *f, int fd)
{
	struct epoll_item *it = f->items;

	while (it && (it->set != s || it->fd != fd))
		it = it->file_next;
	return it;
}

/* With members_lock and the set's. */
static void item_free(struct epoll_set *s, struct epoll_item *it)
{
	ready_remove(s, it);
	item_unwatch(s, it);
	epoll_side_remove(s, it);
	*it->set_prev = it->set_next;
	if (it->set_next)
		it->set_next->set_prev = it->set_prev;
	for (struct epoll_item **pp = &it->file->items; *pp; pp = &(*pp)->file_next)
		if (*pp == it) {
			*pp = it->file_next;
			break;
		}
	if (it->in_kernel)
		atomic_fetch_sub(&s->kernel_members, 1);
	item_drop(it);
}

/* Brings a waiting thread back to look at the list. */
void epoll_kick(struct epoll_set *s)
{
	uint64_t one = 1;

	/* pairs with the announcement in epoll_wait_file: either we see the sleeper or it sees the member */
	atomic_thread_fence(memory_order_seq_cst);
	if ((atomic_load(&s->sleepers) || s->is_nested) && s->event_fd >= 0)
		RAW(SYS_write, s->event_fd, &one, sizeof(one));
}

static int item_add(struct epoll_set *s, struct file *f, int fd, const struct epoll_event *ev)
{
	struct epoll_item *it;
	struct epoll_event kev = *ev;
	int rc;
	uint8_t mode = atomic_load(&f->mode);

	if (item_find(s, f, fd))
		return -EEXIST;
	it = item_new();
	if (!it)
		return -ENOMEM;
	it->set = s;
	it->file = f;
	it->fd = fd;
	it->events = ev->events;
	it->data = ev->data;
	it->watch = WATCH_NONE;
	if (mode != MODE_PRONK && !dgram_is_dual(f)) {
		if (libc.epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &kev) < 0) {
			rc = -errno;
			item_drop(it);
			return rc;
		}
		it->in_kernel = true;
		atomic_fetch_add(&s->kernel_members, 1);
	}
	if (mode == MODE_PRONK || mode == MODE_DUAL) {
		rc = epoll_pollers_start(s, f);
		if (rc && !sock_is_dead(f)) {
			if (it->in_kernel) {
				libc.epoll_ctl(s->epfd, EPOLL_CTL_DEL, fd, NULL);
				atomic_fetch_sub(&s->kernel_members, 1);
			}
			item_drop(it);
			return rc == -ENFILE ? -ENOSPC : rc;
		}
	}
	it->set_next = s->items;
	if (it->set_next)
		it->set_next->set_prev = &it->set_next;
	it->set_prev = &s->items;
	s->items = it;
	it->file_next = f->items;
	f->items = it;
	s->has_dual |= mode == MODE_DUAL;
	if (mode == MODE_PRONK || mode == MODE_DUAL) {
		epoll_item_watch(s, it);
		if (it->ready_prev)
			epoll_kick(s);
	}
	return 0;
}

int epoll_ctl_file(struct file *ef, int epfd, int op, int fd, struct epoll_event *event)
{
	struct epoll_set *s = ef->set;
	struct epoll_item *it;
	struct file *f;
	int rc = 0;

	if (fd == epfd)
		return SOCK_LIBC;
	f = file_get(fd);
	if (!f || f->kind != FILE_SOCKET || atomic_load(&f->mode) == MODE_KERNEL) {
		rc = SOCK_LIBC;
		if (f && f->kind == FILE_EPOLL && op == EPOLL_CTL_ADD) {
			s->has_sets = true;
			f->set->is_nested = true;
			epoll_set_armed_ready(f);
		}
		/* counted so that waits know whether the kernel's set is worth a look; a close without DEL
		 * leaves the count high */
		if (op == EPOLL_CTL_ADD)
			atomic_fetch_add(&s->kernel_members, 1);
		if (f)
			file_put(f);
		return rc;
	}
	if (op != EPOLL_CTL_DEL && user_is_bad(event)) {
		file_put(f);
		return -EFAULT;
	}
	/* epoll_ctl(2): what may go with EPOLLEXCLUSIVE */
	if (op == EPOLL_CTL_ADD && (event->events & EPOLLEXCLUSIVE) &&
	        (event->events & ~(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP |
	                                 (uint32_t)EPOLLET | EPOLLEXCLUSIVE))) {
		file_put(f);
		return -EINVAL;
	}
	if (op == EPOLL_CTL_MOD && (event->events & EPOLLEXCLUSIVE)) {
		file_put(f);
		return -EINVAL;
	}
	/* the kernel's set knows the kernel's socket, not its numbers */
	if (op == EPOLL_CTL_ADD && spare_is_fresh(f))
		spare_own(f);
	spin_lock(&members_lock);
	spin_lock(&s->lock);
	switch (op) {
	case EPOLL_CTL_ADD:
		rc = item_add(s, f, fd, event);
		break;
	case EPOLL_CTL_MOD:
		it = item_find(s, f, fd);
		if (!it) {
			rc = -ENOENT;
			break;
		}
		if ((event->events | it->events) & EPOLLEXCLUSIVE) {
			rc = -EINVAL;
			break;
		}
		if (it->in_kernel && libc.epoll_ctl(epfd, EPOLL_CTL_MOD, fd, event) < 0) {
			rc = -errno;
			break;
		}
		/* spent, on a wildcard listener or when a connection was dissolved */
		if (!it->in_kernel && atomic_load(&f->mode) != MODE_PRONK && !dgram_is_dual(f) &&
		        !libc.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, event)) {
			it->in_kernel = true;
			atomic_fetch_add(&s->kernel_members, 1);
		}
		it->events = event->events;
		it->data = event->data;
		it->is_spent = false;
		if (sock_is_ours(f)) {
			ready_remove(s, it);
			item_remask(it);
			epoll_item_watch(s, it);
			if (it->ready_prev)
				epoll_kick(s);
		}
		break;
	case EPOLL_CTL_DEL:
		it = item_find(s, f, fd);
		if (!it) {
			rc = -ENOENT;
			break;
		}
		if (it->in_kernel)
			libc.epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
		item_free(s, it);
		break;
	default:
		rc = -EINVAL;
	}
	spin_unlock(&s->lock);
	spin_unlock(&members_lock);
	file_put(f);
	return rc;
}

/* Calls fn on every membership of a file, set lock held. */
static void each_item(struct file *f, void (*fn)(struct epoll_set *s, struct epoll_item *it))
{
	struct epoll_item *seen[64];
	int n = 0;

	spin_lock(&members_lock);
	/* fn may take an item off the list */
	for (struct epoll_item *it = f->items; it && n < 64; it = it->file_next)
		seen[n++] = it;
	for (int i = 0; i < n; i++) {
		struct epoll_set *s = seen[i]->set;

		spin_lock(&s->lock);
		fn(s, seen[i]);
		spin_unlock(&s->lock);
	}
	spin_unlock(&members_lock);
}

/* Whether the kernel has delivered its one shot: only its own account tells. */
static bool kernel_spent(int epfd, int fd)
{
	char text[4096], path[40], want[24], *p;
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epfd);
	snprintf(want, sizeof(want), "tfd: %8d events: ", fd);
	/* no cancellation points: the caller holds locks */
	info = (int)RAW(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return false;
	n = RAW(SYS_read, info, text, sizeof(text) - 1);
	libc.close(info);
	text[n < 0 ? 0 : n] = 0;
	p = strstr(text, want);
	return p && !(strtoul(p + strlen(want), NULL, 16) & 0xffff);
}

static void item_changed(struct epoll_set *s, struct epoll_item *it)
{
	/* a datagram socket gets or loses its kernel half: what its endpoint has told is told */
	bool is_same = it->file->type == SOCK_DGRAM && it->watch != WATCH_NONE && !it->in_kernel;
	int rc;

	if (it->in_kernel && (atomic_load(&it->file->mode) == MODE_PRONK || dgram_is_dual(it->file))) {
		if (it->events & EPOLLONESHOT)
			it->is_spent = kernel_spent(s->epfd, it->fd);
		/* by another number it is not to be had: then the member goes with the kernel's socket, which
		 * a stream does not need any more */
		if (item_has_number(it))
			libc.epoll_ctl(s->epfd, EPOLL_CTL_DEL, it->fd, NULL);
		else if (it->file->type == SOCK_STREAM)
			sock_renew(it->file);
		it->in_kernel = false;
		atomic_fetch_sub(&s->kernel_members, 1);
	}
	if (!it->in_kernel && !it->is_spent && atomic_load(&it->file->mode) == MODE_OPEN) {
		struct epoll_event ev = {.events = it->events, .data = it->data};

		if (!libc.epoll_ctl(s->epfd, EPOLL_CTL_ADD, item_number(it), &ev)) {
			it->in_kernel = true;
			atomic_fetch_add(&s->kernel_members, 1);
		}
	}
	if (!sock_is_ours(it->file))
		epoll_side_remove(s, it);
	if (!sock_is_ours(it->file))
		return;
	rc = epoll_pollers_start(s, it->file);
	if (rc && rc != -ECONNRESET && epoll_has_pollers(s)) /* one of several services has none left */
		set_unwatched(s, it);
	if (rc)
		return;
	s->has_dual |= atomic_load(&it->file->mode) == MODE_DUAL;
	if (is_same) {
		bool has_input = false;

		/* or an endpoint at another service */
		if (unlikely(it->file->also != NULL) && !others_watch(s, it, &has_input))
			set_unwatched(s, it);
		if (has_input && !it->is_spent)
			ready_add(s, it);
		epoll_side_update(s, it);
		epoll_side_drain(s);
		epoll_kick(s);
		return;
	}
	item_unwatch(s, it);
	epoll_item_watch(s, it);
	if (it->is_spent)
		ready_remove(s, it);
	epoll_kick(s);
}

void epoll_file_changed(struct file *f)
{
	if (f->items)
		each_item(f, item_changed);
}

static void item_poke(struct epoll_set *s, struct epoll_item *it)
{
	if (!sock_is_ours(it->file) || it->is_spent || !(wait_level(it->file, it->events) & mask_of(it)))
		return;
	ready_add(s, it);
	epoll_kick(s);
}

void epoll_file_poke(struct file *f)
{
	if (f->items)
		each_item(f, item_poke);
}

void epoll_file_closed(struct file *f)
{
	while (f->items)
		each_item(f, item_free);
}

static void item_ep_closed(struct epoll_set *s, struct epoll_item *it)
{
	ready_remove(s, it);
	item_unwatch(s, it);
}

void epoll_file_closed_ep(struct file *f)
{
	if (f->items)
		each_item(f, item_ep_closed);
}

void epoll_set_destroy(struct epoll_set *s)
{
	if (!s)
		return;
	spin_lock(&members_lock);
	spin_lock(&s->lock);
	while (s->items)
		item_free(s, s->items);
	spin_unlock(&s->lock);
	spin_unlock(&members_lock);
	spin_lock(&epoll_sets_lock);
	for (struct epoll_set **pp = &epoll_sets; *pp; pp = &(*pp)->next)
		if (*pp == s) {
			*pp = s->next;
			break;
		}
	spin_unlock(&epoll_sets_lock);
	epoll_side_close(s);
	for (uint32_t i = 0; i < service_count(); i++) {
		int poller = atomic_load(&s->poller[i]);
		const struct arena *a = &services[i].at.arena;

		if (poller < 0)
			continue;
		/* watches that were queued when they were released are freed by a last look */
		for (uint32_t idx = poller_drain(a, (uint32_t)poller); idx && idx <= a->watch_count;) {
			uint32_t next = atomic_load(&watch_at(a, idx - 1)->next);

			watch_unqueue(a, idx - 1);
			idx = next;
		}
		if (!attach_is_dead(&services[i].at))
			attach_poller_free(&services[i].at, (uint32_t)poller);
	}
	if (s->event_fd >= 0) {
		proc_internal_fd_remove(s->event_fd);
		libc.close(s->event_fd);
	}
	free(s);
}

void epoll_fork_prepare(void)
{
	spin_lock(&members_lock);
	spin_lock(&epoll_sets_lock);
	for (struct epoll_set *s = epoll_sets; s; s = s->next)
		spin_lock(&s->lock);
}

void epoll_fork_parent(void)
{
	for (struct epoll_set *s = epoll_sets; s; s = s->next)
		spin_unlock(&s->lock);
	spin_unlock(&epoll_sets_lock);
	spin_unlock(&members_lock);
}

void epoll_fork_child(void)
{
	/* the parent's pollers are not ours: each set gets its own at its first use here */
	atomic_store(&members_lock, 0);
	atomic_store(&epoll_sets_lock, 0);
	for (struct epoll_set *s = epoll_sets; s; s = s->next) {
		atomic_store(&s->lock, 0);
		atomic_store(&s->sleepers, 0);
		epoll_side_close(s);
		if (s->event_fd < 0)
			continue;
		proc_internal_fd_remove(s->event_fd);
		libc.close(s->event_fd);
		s->event_fd = -1;
		for (int i = 0; i < SERVICE_MAX; i++)
			atomic_store(&s->poller[i], -1);
		atomic_store(&s->has_poller, false);
		s->needs_rebuild = s->may_be_untold = true;
		s->ready = NULL;
		s->ready_tail = &s->ready;
		s->ready_count = s->unwatched_count = 0;
		for (struct epoll_item *it = s->items; it; it = it->set_next) {
			it->watch = WATCH_NONE;
			free(it->also);
			it->also = NULL;
			it->is_unwatched = false;
			it->ready_prev = NULL;
		}
	}
}
