/* epoll_set.c - epoll instances with Pronk members.
 *
 * Runs in application threads. Owns: sets, their members (items) and the local ready list. Locks, in this
 * order: members_lock (items come and go), a set's lock (its lists and its items' state), a file's items_lock
 * (the file's list of items). Readiness itself comes from the endpoint (never remembered); how stacks and
 * sets meet is told in ready.h and doc/threads.md, "Readiness".
 */
#include "epoll_set.h"
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

enum { KERNEL_LOOK_NS = 100000, ALWAYS = EPOLLERR | EPOLLHUP };

struct epoll_item {
	struct epoll_item *file_next;
	struct epoll_item *set_next, **set_prev;
	struct epoll_item *ready_next, **ready_prev; /* in the set's ready list when ready_prev is set */
	struct epoll_set *set;
	struct file *file;
	int fd;
	uint32_t events;
	epoll_data_t data;
	uint32_t watch;    /* WATCH_NONE: none */
	bool in_kernel;    /* the kernel's set has the descriptor */
	bool is_unwatched; /* ours, but all watches were taken: counted in unwatched_count */
	bool is_spent;     /* one-shot, delivered */
};

struct epoll_set {
	_Atomic uint32_t lock;
	int epfd;
	_Atomic int poller; /* -1: no Pronk member yet */
	int event_fd;
	struct epoll_item *items;
	struct epoll_item *ready, **ready_tail;
	_Atomic uint32_t ready_count, unwatched_count;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t kernel_members;
	uint64_t kernel_looked_ns;
	bool is_nested;         /* somebody waits on the epoll descriptor itself */
	bool has_sets;          /* other sets are members */
	bool needs_rebuild;     /* inherited over fork */
	struct epoll_set *next; /* all sets of the process */
};

static struct epoll_set *all_sets;
static _Atomic uint32_t all_lock;
static _Atomic uint32_t members_lock; /* items come, move and go under it; taken before any set's lock */

/* What internal members of the kernel's set carry as data: addresses inside us, which no application uses. */
static char mark_event, mark_ctl;

void epoll_opened(int epfd)
{
	struct file *f;
	struct epoll_set *s = calloc(1, sizeof(*s));

	file_close(epfd);
	if (!s)
		return;
	s->epfd = epfd;
	s->event_fd = -1;
	atomic_store(&s->poller, -1);
	s->ready_tail = &s->ready;
	f = file_open(epfd, FILE_EPOLL);
	if (!f) {
		free(s);
		return;
	}
	f->set = s;
	spin_lock(&all_lock);
	s->next = all_sets;
	all_sets = s;
	spin_unlock(&all_lock);
}

static void ready_add(struct epoll_set *s, struct epoll_item *it)
{
	if (it->ready_prev)
		return;
	it->ready_next = NULL;
	it->ready_prev = s->ready_tail;
	*s->ready_tail = it;
	s->ready_tail = &it->ready_next;
	s->ready_count++;
}

static void ready_remove(struct epoll_set *s, struct epoll_item *it)
{
	if (!it->ready_prev)
		return;
	*it->ready_prev = it->ready_next;
	if (it->ready_next)
		it->ready_next->ready_prev = it->ready_prev;
	else
		s->ready_tail = it->ready_prev;
	it->ready_prev = NULL;
	s->ready_count--;
}

static int internal_add(int epfd, int fd, void *mark)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET | EPOLLRDHUP, .data.ptr = mark};

	return libc.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0 && errno != EEXIST ? -errno : 0;
}

/* Gives the set its poller. With the set's lock. */
static int poller_start(struct epoll_set *s)
{
	uint64_t one = 1;
	int poller, rc, fd;

	if (atomic_load(&s->poller) >= 0)
		return 0;
	if (proc_is_dead())
		return -ECONNRESET;
	poller = poller_claim(&proc.at.arena, proc.at.client_idx);
	if (poller < 0)
		return poller;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0) {
		rc = -errno;
		goto fail;
	}
	s->event_fd = libc.fcntl(fd, F_DUPFD_CLOEXEC, 100);
	if (s->event_fd < 0)
		s->event_fd = fd;
	else
		libc.close(fd);
	rc = attach_poller(&proc.at, (uint32_t)poller, s->event_fd);
	if (!rc)
		rc = internal_add(s->epfd, s->event_fd, &mark_event);
	if (!rc)
		rc = internal_add(s->epfd, proc.at.ctl_fd, &mark_ctl);
	if (rc) {
		libc.close(s->event_fd);
		s->event_fd = -1;
		goto fail;
	}
	proc_internal_fd_add(s->event_fd);
	atomic_store(&s->poller, poller);
	/* a thread may sleep in the kernel's set since before there was a poller to announce itself at: it
	 * looks again */
	if (libc.write(s->event_fd, &one, sizeof(one)) < 0)
		log_debug("event fd: %s", strerror(errno));
	return 0;
fail:
	poller_free(&proc.at.arena, (uint32_t)poller);
	return rc;
}

static void drain(struct epoll_set *s);

static uint32_t mask_of(const struct epoll_item *it)
{
	return ((it->events & 0xffff) | ALWAYS) & 0xffff;
}

/* Watches the endpoint and queues the item if it is ready already. With the set's lock. */
static void item_watch(struct epoll_set *s, struct epoll_item *it)
{
	const struct arena *a = &proc.at.arena;
	uint32_t ep = atomic_load(&it->file->ep);

	if (ep == ENDPOINT_NONE)
		return;
	if (it->watch == WATCH_NONE && !proc_is_dead()) {
		it->watch = watch_claim(a, ep, (uint32_t)atomic_load(&s->poller), mask_of(it));
		if (it->watch != WATCH_NONE)
			proc.watch_item[it->watch] = it;
		else if (!it->is_unwatched) {
			it->is_unwatched = true; /* waits look by themselves every millisecond */
			s->unwatched_count++;
		}
	}
	atomic_thread_fence(memory_order_seq_cst);
	if (wait_level(it->file, it->events) & mask_of(it))
		ready_add(s, it);
}

/* Takes the watch away, and off the ready list if it is there: the endpoint may be given up next, and its
 * watches with it. With the set's lock. */
static void item_unwatch(struct epoll_set *s, struct epoll_item *it)
{
	uint32_t watch = it->watch, poller = (uint32_t)atomic_load(&s->poller);

	if (it->is_unwatched)
		s->unwatched_count--;
	it->is_unwatched = false;
	if (watch == WATCH_NONE)
		return;
	it->watch = WATCH_NONE;
	proc.watch_item[watch] = NULL;
	if (proc_is_dead() || watch_release(&proc.at.arena, watch))
		return;
	for (;;) {
		uint64_t word = atomic_load(&watch_at(&proc.at.arena, watch)->word);

		if (!(word & WATCH_QUEUED) || WATCH_POLLER(word) != poller + 1 || WATCH_MASK(word) ||
		        proc_is_dead())
			return;
		drain(s);
		cpu_relax();
	}
}

static struct epoll_item *item_find(struct epoll_set *s, struct file *f, int fd)
{
	struct epoll_item *it;

	spin_lock(&f->items_lock);
	for (it = f->items; it; it = it->file_next)
		if (it->set == s && it->fd == fd)
			break;
	spin_unlock(&f->items_lock);
	return it;
}

/* With the set's lock. */
static void item_free(struct epoll_set *s, struct epoll_item *it)
{
	ready_remove(s, it);
	item_unwatch(s, it);
	*it->set_prev = it->set_next;
	if (it->set_next)
		it->set_next->set_prev = it->set_prev;
	spin_lock(&it->file->items_lock);
	for (struct epoll_item **pp = &it->file->items; *pp; pp = &(*pp)->file_next)
		if (*pp == it) {
			*pp = it->file_next;
			break;
		}
	spin_unlock(&it->file->items_lock);
	if (it->in_kernel)
		atomic_fetch_sub(&s->kernel_members, 1);
	free(it);
}

/* Brings a waiting thread back to look at the list. */
static void set_kick(struct epoll_set *s)
{
	uint64_t one = 1;

	/* pairs with the announcement in epoll_wait_file: either we see the sleeper or it sees the member */
	atomic_thread_fence(memory_order_seq_cst);
	if ((atomic_load(&s->sleepers) || s->is_nested) && s->event_fd >= 0 &&
	        libc.write(s->event_fd, &one, sizeof(one)) < 0)
		log_debug("event fd: %s", strerror(errno));
}

static int item_add(struct epoll_set *s, struct file *f, int fd, const struct epoll_event *ev)
{
	struct epoll_item *it;
	struct epoll_event kev = *ev;
	int rc;
	uint8_t mode = atomic_load(&f->mode);

	if (item_find(s, f, fd))
		return -EEXIST;
	it = calloc(1, sizeof(*it));
	if (!it)
		return -ENOMEM;
	it->set = s;
	it->file = f;
	it->fd = fd;
	it->events = ev->events;
	it->data = ev->data;
	it->watch = WATCH_NONE;
	if (mode != MODE_PRONK) {
		if (libc.epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &kev) < 0) {
			rc = -errno;
			free(it);
			return rc;
		}
		it->in_kernel = true;
		atomic_fetch_add(&s->kernel_members, 1);
	}
	if (mode == MODE_PRONK || mode == MODE_DUAL) {
		rc = poller_start(s);
		if (rc && !proc_is_dead()) {
			if (it->in_kernel) {
				libc.epoll_ctl(s->epfd, EPOLL_CTL_DEL, fd, NULL);
				atomic_fetch_sub(&s->kernel_members, 1);
			}
			free(it);
			return rc == -ENFILE ? -ENOSPC : rc;
		}
	}
	it->set_next = s->items;
	if (it->set_next)
		it->set_next->set_prev = &it->set_next;
	it->set_prev = &s->items;
	s->items = it;
	spin_lock(&f->items_lock);
	it->file_next = f->items;
	f->items = it;
	spin_unlock(&f->items_lock);
	if (mode == MODE_PRONK || mode == MODE_DUAL) {
		item_watch(s, it);
		if (it->ready_prev)
			set_kick(s);
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
	if ((op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD) && !event) {
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
		it->events = event->events;
		it->data = event->data;
		it->is_spent = false;
		if (sock_is_ours(f)) {
			ready_remove(s, it);
			if (it->watch != WATCH_NONE && !proc_is_dead())
				watch_remask(&proc.at.arena, it->watch, mask_of(it));
			item_watch(s, it);
			if (it->ready_prev)
				set_kick(s);
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

/* Moves watches that stacks have queued to the local list. With the set's lock. */
static void drain(struct epoll_set *s)
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
	if (!proc_is_dead())
		drain(s);
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
		set_kick(s);
	spin_unlock(&s->lock);
	return n;
}

/* Removes our own members from what the kernel returned. */
static int filter(struct epoll_set *s, struct epoll_event *events, int n, bool *is_internal)
{
	int k = 0;

	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr == &mark_event) {
			uint64_t drop;

			*is_internal = true;
			if (s->event_fd >= 0 && libc.read(s->event_fd, &drop, sizeof(drop)) < 0)
				continue;
		} else if (events[i].data.ptr == &mark_ctl) {
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
		if (!poller_start(s))
			for (struct epoll_item *it = s->items; it; it = it->set_next)
				if (sock_is_ours(it->file))
					item_watch(s, it);
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
		drain(s);
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
				set_kick(s);
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
	spin_lock(&all_lock);
	for (struct epoll_set *s = all_sets; s; s = s->next)
		if (s->is_nested)
			set_arm(s);
	spin_unlock(&all_lock);
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

/* Calls fn on every membership of a file, set lock held. */
static void each_item(struct file *f, void (*fn)(struct epoll_set *s, struct epoll_item *it))
{
	struct epoll_item *seen[64];
	int n = 0;

	/* the order is set, then file: collect the items first */
	spin_lock(&members_lock);
	spin_lock(&f->items_lock);
	for (struct epoll_item *it = f->items; it && n < 64; it = it->file_next)
		seen[n++] = it;
	spin_unlock(&f->items_lock);
	for (int i = 0; i < n; i++) {
		struct epoll_set *s = seen[i]->set;

		spin_lock(&s->lock);
		fn(s, seen[i]);
		spin_unlock(&s->lock);
	}
	spin_unlock(&members_lock);
}

static void item_changed(struct epoll_set *s, struct epoll_item *it)
{
	if (it->in_kernel && atomic_load(&it->file->mode) == MODE_PRONK) {
		libc.epoll_ctl(s->epfd, EPOLL_CTL_DEL, it->fd, NULL);
		it->in_kernel = false;
		atomic_fetch_sub(&s->kernel_members, 1);
	}
	if (!it->in_kernel && atomic_load(&it->file->mode) == MODE_OPEN) {
		struct epoll_event ev = {.events = it->events, .data = it->data};

		if (!libc.epoll_ctl(s->epfd, EPOLL_CTL_ADD, it->fd, &ev)) {
			it->in_kernel = true;
			atomic_fetch_add(&s->kernel_members, 1);
		}
	}
	if (!sock_is_ours(it->file) || poller_start(s))
		return;
	item_unwatch(s, it);
	item_watch(s, it);
	set_kick(s);
}

void epoll_file_changed(struct file *f)
{
	if (f->items)
		each_item(f, item_changed);
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
	int poller;

	if (!s)
		return;
	spin_lock(&members_lock);
	spin_lock(&s->lock);
	while (s->items)
		item_free(s, s->items);
	spin_unlock(&s->lock);
	spin_unlock(&members_lock);
	spin_lock(&all_lock);
	for (struct epoll_set **pp = &all_sets; *pp; pp = &(*pp)->next)
		if (*pp == s) {
			*pp = s->next;
			break;
		}
	spin_unlock(&all_lock);
	poller = atomic_load(&s->poller);
	if (poller >= 0) {
		/* watches that were queued when they were released are freed by a last look */
		for (uint32_t idx = poller_drain(&proc.at.arena, (uint32_t)poller);
		        idx && idx <= proc.at.arena.watch_count;) {
			uint32_t next = atomic_load(&watch_at(&proc.at.arena, idx - 1)->next);

			watch_unqueue(&proc.at.arena, idx - 1);
			idx = next;
		}
		if (!proc_is_dead())
			attach_poller_free(&proc.at, (uint32_t)poller);
		proc_internal_fd_remove(s->event_fd);
		libc.close(s->event_fd);
	}
	free(s);
}

void epoll_fork_prepare(void)
{
	spin_lock(&members_lock);
	spin_lock(&all_lock);
	for (struct epoll_set *s = all_sets; s; s = s->next)
		spin_lock(&s->lock);
}

void epoll_fork_parent(void)
{
	for (struct epoll_set *s = all_sets; s; s = s->next)
		spin_unlock(&s->lock);
	spin_unlock(&all_lock);
	spin_unlock(&members_lock);
}

void epoll_fork_child(void)
{
	/* the parent's pollers are not ours: each set gets its own at its first use here */
	atomic_store(&members_lock, 0);
	atomic_store(&all_lock, 0);
	for (struct epoll_set *s = all_sets; s; s = s->next) {
		atomic_store(&s->lock, 0);
		if (atomic_load(&s->poller) < 0)
			continue;
		proc_internal_fd_remove(s->event_fd);
		libc.close(s->event_fd);
		s->event_fd = -1;
		atomic_store(&s->poller, -1);
		s->needs_rebuild = true;
		s->ready = NULL;
		s->ready_tail = &s->ready;
		s->ready_count = s->unwatched_count = 0;
		atomic_store(&s->sleepers, 0);
		for (struct epoll_item *it = s->items; it; it = it->set_next) {
			it->watch = WATCH_NONE;
			it->ready_prev = NULL;
		}
	}
}
