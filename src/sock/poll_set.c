/* poll_set.c - poll(2) and select(2) over mixed descriptors.
 *
 * Runs in application threads. Levels of Pronk members are computed from their endpoints; kernel members are
 * asked with the real ppoll. For sleeping, each Pronk member gets a watch of this thread's poller for as long
 * as the call lasts, and the poller's descriptor joins the kernel's array.
 */
#include "poll_set.h"
#include "clock.h"
#include "dgram.h"
#include "endpoint.h"
#include "epoll_set.h"
#include "guard.h"
#include "latency.h"
#include "libc.h"
#include "local.h"
#include "proc.h"
#include "ready.h"
#include "sock.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/single_threaded.h>

enum {
	ON_STACK = 64,
	POLLERS = SERVICE_MAX + 1, /* and the port's descriptor */
	ALWAYS = POLLERR | POLLHUP,
};

struct member {
	struct file *file;  /* NULL: the kernel's alone */
	uint32_t watch, ep; /* what is watched; handles. Of a socket at several services: the first */
};

/* A watch of a socket that is at several services. */
struct more_watch {
	struct more_watch *next;
	struct member *member;
	uint32_t watch, ep;
};

/* Where the thread sleeps: its pollers at the services that members are at. */
struct sleeper {
	uint32_t count;
	struct wait_poller poller[SERVICE_MAX];
	struct more_watch *more;
};

/* A socket that is the kernel's so far, and that a send of another thread may make ours. */
static bool may_change(const struct file *f)
{
	return f->kind == FILE_SOCKET && f->type == SOCK_DGRAM && atomic_load(&f->mode) == MODE_OPEN;
}

/* Files of the array, with references. Returns how many are (partly) ours. */
static int members_get(struct pollfd *fds, nfds_t count, struct member *m, bool *may_any)
{
	bool is_attached = proc_is_attached();
	int ours = 0;

	for (nfds_t i = 0; i < count; i++) {
		struct file *f = fds[i].fd >= 0 ? file_get(fds[i].fd) : NULL;

		m[i].file = NULL;
		m[i].watch = WATCH_NONE;
		if (!f)
			continue;
		if (is_attached &&
		        ((f->kind == FILE_SOCKET && sock_is_ours_soon(f)) || f->kind == FILE_EPOLL)) {
			m[i].file = f;
			ours++;
		} else {
			*may_any |= may_change(f);
			file_put(f);
		}
	}
	return ours;
}

static short level_of(const struct member *m, short events)
{
	if (m->file->kind == FILE_EPOLL)
		return epoll_set_armed_ready(m->file) ? (short)(events & (POLLIN | POLLRDNORM)) : 0;
	return (short)(wait_level(m->file, (uint32_t)(unsigned short)events) &
	               (uint32_t)(unsigned short)(events | ALWAYS));
}

/* The kernel's part of a member's descriptor is interesting too? */
static bool has_kernel_side(const struct member *m)
{
	return !m->file || m->file->kind == FILE_EPOLL || atomic_load(&m->file->mode) == MODE_DUAL;
}

static int levels(struct pollfd *fds, nfds_t count, const struct member *m)
{
	int n = 0;

	for (nfds_t i = 0; i < count; i++) {
		fds[i].revents = m[i].file ? level_of(&m[i], fds[i].events) : 0;
		n += fds[i].revents != 0;
	}
	return n;
}

/* Asks the kernel about its members: k is a copy of fds with ours turned off and room for the poller's
 * descriptor. */
static int kernel_part(struct pollfd *fds, nfds_t count, struct pollfd *k, nfds_t k_count,
        const struct timespec *ts, const sigset_t *mask)
{
	int n = 0;

	if (libc.ppoll(k, k_count, ts, mask) < 0)
		return -errno;
	for (nfds_t i = 0; i < count; i++) {
		if (k[i].fd >= 0)
			fds[i].revents |= k[i].revents;
		n += fds[i].revents != 0;
	}
	return n;
}

/* A thread that cannot have a poller looks every millisecond. */
static int wait_napping(struct pollfd *fds, nfds_t count, struct member *m, struct pollfd *k,
        uint64_t deadline, const sigset_t *mask)
{
	const struct timespec zero = {0};

	for (;;) {
		uint64_t now = clock_now_ns(), left = deadline > now ? deadline - now : 0;
		struct timespec nap = {.tv_nsec = (long)(left < 1000000 ? left : 1000000)};
		int n;

		if (levels(fds, count, m))
			return kernel_part(fds, count, k, count, &zero, NULL);
		n = kernel_part(fds, count, k, count, &nap, mask);
		if (n || (!left && deadline != UINT64_MAX))
			return n;
		for (uint32_t i = 0; i < service_count(); i++)
			attach_check_dead(&services[i].at);
	}
}

/* --- the thread's pollers --- */

static struct wait_poller *poller_at(struct sleeper *sl, const struct service *s)
{
	for (uint32_t i = 0; i < sl->count; i++)
		if (sl->poller[i].service == s)
			return &sl->poller[i];
	return NULL;
}

/* False: the thread cannot have one there. */
static bool poller_join(struct sleeper *sl, struct service *s)
{
	if (likely(poller_at(sl, s) != NULL))
		return true;
	if (wait_poller(s, &sl->poller[sl->count]))
		return false;
	sl->count++;
	return true;
}

static void pollers_sleep(const struct sleeper *sl)
{
	for (uint32_t i = 0; i < sl->count; i++)
		poller_sleep(&sl->poller[i].service->at.arena, (uint32_t)sl->poller[i].number);
}

static void pollers_awake(const struct sleeper *sl)
{
	for (uint32_t i = 0; i < sl->count; i++)
		poller_awake(&sl->poller[i].service->at.arena, (uint32_t)sl->poller[i].number);
}

static bool pollers_have_ready(const struct sleeper *sl)
{
	for (uint32_t i = 0; i < sl->count; i++)
		if (poller_has_ready(&sl->poller[i].service->at.arena, (uint32_t)sl->poller[i].number))
			return true;
	return false;
}

static void pollers_drain(const struct sleeper *sl, bool is_all)
{
	for (uint32_t i = 0; i < sl->count; i++)
		wait_drain(&sl->poller[i], is_all);
}

/* --- watches --- */

static void watch_give_back(struct sleeper *sl, uint32_t *watch)
{
	const struct wait_poller *p = *watch == WATCH_NONE ? NULL : poller_at(sl, handle_service(*watch));

	if (p)
		wait_release(handle_index(*watch), p);
	*watch = WATCH_NONE;
}

static void watches_give_back(struct sleeper *sl, struct member *m, nfds_t count)
{
	struct more_watch *w;

	for (nfds_t i = 0; i < count; i++)
		watch_give_back(sl, &m[i].watch);
	while ((w = sl->more)) {
		sl->more = w->next;
		watch_give_back(sl, &w->watch);
		free(w);
	}
}

static bool file_has_ep(const struct file *f, uint32_t ep)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++)
		if (file_ep(f, i) == ep)
			return true;
	return false;
}

/* Gives back watches of endpoints that another thread has dissolved meanwhile. True when there were any: the
 * wait goes on by looks. */
static bool watches_stale(struct sleeper *sl, struct member *m, nfds_t count)
{
	bool is_any = false;

	for (nfds_t i = 0; i < count; i++) {
		if (likely(m[i].watch == WATCH_NONE || file_has_ep(m[i].file, m[i].ep)))
			continue;
		watch_give_back(sl, &m[i].watch);
		is_any = true;
	}
	for (struct more_watch *w = sl->more; w; w = w->next)
		if (w->watch != WATCH_NONE && !file_has_ep(w->member->file, w->ep)) {
			watch_give_back(sl, &w->watch);
			is_any = true;
		}
	return is_any;
}

static bool member_knows(const struct sleeper *sl, const struct member *m, uint32_t ep)
{
	const struct more_watch *w = sl->more;

	if (m->watch != WATCH_NONE && m->ep == ep)
		return true;
	while (w && (w->member != m || w->watch == WATCH_NONE || w->ep != ep))
		w = w->next;
	return w != NULL;
}

/* A member has got an endpoint at another service since it was watched, by another thread's first datagram
 * there; or another one has become the first. */
static bool members_miss_one(const struct sleeper *sl, const struct member *m, nfds_t count)
{
	for (nfds_t i = 0; i < count; i++) {
		if (likely(!m[i].file || m[i].file->kind != FILE_SOCKET || !m[i].file->also))
			continue;
		for (uint32_t n = 0; n < file_ep_count(m[i].file); n++) {
			uint32_t ep = file_ep(m[i].file, n);

			if (ep != ENDPOINT_NONE && !handle_is_dead(ep) && !member_knows(sl, &m[i], ep))
				return true;
		}
	}
	return false;
}

static uint32_t watch_take(struct sleeper *sl, uint32_t ep, short events)
{
	const struct wait_poller *p = poller_at(sl, handle_service(ep));
	uint32_t watch = watch_claim(&p->service->at.arena, handle_index(ep), (uint32_t)p->number,
	        (uint32_t)(unsigned short)(events | ALWAYS | WATCH_THREAD |
	                                   (events & POLLIN ? EPOLLRDHUP : 0)) &
	                0xffff);

	return watch == WATCH_NONE ? WATCH_NONE : handle_make(p->service, watch);
}

/* A watch at each service that the member is at. *is_sliced: it must be looked after, as there is none left.
 * False: the thread cannot have a poller there. */
static bool member_watch(struct sleeper *sl, struct member *m, short events, bool *is_sliced)
{
	bool is_all = true;

	for (uint32_t i = 0; i < file_ep_count(m->file); i++) {
		uint32_t ep = file_ep(m->file, i), watch;
		struct more_watch *more;

		if (ep == ENDPOINT_NONE)
			is_all &= i != 0; /* another thread is about to change it */
		if (ep == ENDPOINT_NONE || handle_is_dead(ep))
			continue;
		if (!poller_join(sl, handle_service(ep)))
			return false;
		watch = watch_take(sl, ep, events);
		is_all &= watch != WATCH_NONE;
		if (m->watch == WATCH_NONE) {
			m->watch = watch;
			m->ep = ep;
			continue;
		}
		more = watch == WATCH_NONE ? NULL : malloc(sizeof(*more));
		if (more) {
			*more = (struct more_watch){sl->more, m, watch, ep};
			sl->more = more;
		} else {
			watch_give_back(sl, &watch);
			is_all = false;
		}
	}
	*is_sliced |= !is_all;
	return true;
}

static bool members_watch(
        struct sleeper *sl, const struct pollfd *fds, struct member *m, nfds_t count, bool *is_sliced)
{
	for (nfds_t i = 0; i < count; i++)
		if (m[i].file && m[i].file->kind == FILE_SOCKET &&
		        !member_watch(sl, &m[i], fds[i].events, is_sliced))
			return false;
	return true;
}

/* Fills k for the kernel: its own members and the kernel's halves. How many there are. */
static nfds_t kernel_members(
        const struct pollfd *fds, nfds_t count, const struct member *m, struct pollfd *k, bool *has_dgram)
{
	nfds_t n = 0;

	for (nfds_t i = 0; i < count; i++) {
		k[i] = fds[i];
		k[i].revents = 0;
		if (!has_kernel_side(&m[i]))
			k[i].fd = -1;
		else if (m[i].file && dgram_is_dual(m[i].file))
			k[i].events &= (short)~(POLLOUT | POLLWRNORM | POLLWRBAND); /* room is Pronk's */
		*has_dgram |= m[i].file && m[i].file->type == SOCK_DGRAM;
		n += k[i].fd >= 0;
	}
	return n;
}

/* Where the thread's pollers are in the kernel's array: behind the members, and the port's descriptor behind
 * them. */
static nfds_t wake_members(const struct sleeper *sl, struct pollfd *k)
{
	for (uint32_t i = 0; i < sl->count; i++) {
		const struct wait_poller *p = &sl->poller[i];

		/* what hung up is readable for ever: from then on only others can tell */
		k[i] = (struct pollfd){attach_is_dead(&p->service->at) ? -1 : p->wake_fd, POLLIN, 0};
	}
	return sl->count;
}

static void wake_members_done(const struct sleeper *sl, const struct pollfd *k)
{
	for (uint32_t i = 0; i < sl->count; i++) {
		if (k[i].revents & (POLLHUP | POLLERR))
			attach_check_dead(&sl->poller[i].service->at);
		if (k[i].revents && !attach_is_dead(&sl->poller[i].service->at))
			wait_drain(&sl->poller[i], true);
	}
}

/* What poll(2) has under way; its end also where the thread was cancelled while it slept, or left it by
 * longjmp(3). */
struct poll_under_way {
	struct member *m;
	struct pollfd *k;
	nfds_t count;
	bool is_heap;
	int port_fd; /* of attach_sleep, -EAGAIN: not asleep */
	struct sleeper sleeper;
};

static int wait_all(struct pollfd *fds, struct poll_under_way *u, uint64_t timeout_ns, const sigset_t *mask)
{
	static const struct timespec zero;
	struct sleeper *sl = &u->sleeper;
	struct member *m = u->m;
	struct pollfd *k = u->k;
	struct wait_spin spin;
	uint64_t now, deadline;
	bool is_over;
	nfds_t kernel_count, count = u->count, wake_count;
	bool is_sliced = false, has_dgram = false;
	int n;

	attach_drive(proc.near);
	kernel_count = kernel_members(fds, count, m, k, &has_dgram);
	n = levels(fds, count, m);
	if (!n && !timeout_ns && local_settle(NULL))
		n = levels(fds, count, m);
	if (n || timeout_ns == 0) {
		/* a look with nothing there still lets the signals in that the mask opens */
		if (!n && mask)
			return kernel_part(fds, count, k, count, &zero, mask);
		return kernel_count ? kernel_part(fds, count, k, count, &zero, NULL) : n;
	}
	now = clock_now_ns();
	deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	is_over = !wait_spin_start(&spin, now, deadline);
	while (!is_over) {
		is_over = !wait_spin_turn(&spin);
		if (levels(fds, count, m))
			return kernel_count ? kernel_part(fds, count, k, count, &zero, NULL)
			                    : levels(fds, count, m);
	}
	if (!members_watch(sl, fds, m, count, &is_sliced))
		return wait_napping(fds, count, m, k, deadline, mask);
	for (;;) {
		struct timespec ts, *tsp = NULL;
		uint64_t left, limit;
		int port_fd;

		pollers_drain(sl, false);
		port_fd = attach_sleep(proc.near, &limit);
		pollers_sleep(sl);
		is_sliced |= watches_stale(sl, m, count);
		if (unlikely(service_count() > 1) && !is_sliced && members_miss_one(sl, m, count)) {
			pollers_awake(sl);
			if (port_fd != -EAGAIN)
				attach_awake(proc.near, port_fd);
			watches_give_back(sl, m, count);
			if (!members_watch(sl, fds, m, count, &is_sliced))
				return wait_napping(fds, count, m, k, deadline, mask);
			continue;
		}
		if (unlikely(has_dgram)) /* one may have got a kernel half since */
			kernel_count = kernel_members(fds, count, m, k, &has_dgram);
		n = levels(fds, count, m);
		if (n || pollers_have_ready(sl) || port_fd == -EAGAIN) {
			pollers_awake(sl);
			if (port_fd != -EAGAIN)
				attach_awake(proc.near, port_fd);
			else
				attach_drive(proc.near);
			if (!n) {
				n = wait_signal(mask);
				if (n)
					break;
				if (port_fd != -EAGAIN || clock_now_ns() < deadline)
					continue;
			}
			if (kernel_count)
				n = kernel_part(fds, count, k, count, &zero, NULL);
			break;
		}
		now = clock_now_ns();
		left = deadline == UINT64_MAX ? UINT64_MAX : deadline > now ? deadline - now : 0;
		if (is_sliced && left > 1000000)
			left = 1000000;
		if (left > limit)
			left = limit;
		if (left != UINT64_MAX) {
			ts.tv_sec = (time_t)(left / 1000000000);
			ts.tv_nsec = (long)(left % 1000000000);
			tsp = &ts;
		}
		wake_count = wake_members(sl, &k[count]);
		if (port_fd >= 0)
			k[count + wake_count] = (struct pollfd){.fd = port_fd, .events = POLLIN};
		u->port_fd = port_fd;
		n = kernel_part(fds, count, k, count + wake_count + (port_fd >= 0), tsp, mask);
		wait_note_awake();
		pollers_awake(sl);
		u->port_fd = -EAGAIN;
		attach_awake(proc.near, port_fd);
		attach_drive(proc.near);
		if (!n && port_fd >= 0)
			n = wait_signal(mask);
		if (n)
			break;
		wake_members_done(sl, &k[count]);
		if (deadline != UINT64_MAX && clock_now_ns() >= deadline) {
			n = levels(fds, count, m);
			break;
		}
	}
	watches_give_back(sl, m, count);
	pollers_drain(sl, true);
	return n;
}

static void poll_over(void *arg)
{
	struct poll_under_way *u = arg;
	bool was_asleep = u->port_fd != -EAGAIN;

	if (was_asleep)
		attach_awake(proc.near, u->port_fd);
	/* cancelled: still watching */
	watches_give_back(&u->sleeper, u->m, u->count);
	for (nfds_t i = 0; i < u->count; i++)
		if (u->m[i].file)
			file_put(u->m[i].file);
	if (was_asleep) {
		pollers_awake(&u->sleeper);
		pollers_drain(&u->sleeper, true);
	}
	if (u->is_heap) {
		free(u->m);
		free(u->k);
	}
}

/* With no threads but this one nobody makes a socket ours while it sleeps. */
static bool is_kernels_alone(void)
{
	return !proc_is_attached() && (__libc_single_threaded || !file_any() || !proc_may_serve());
}

/* may_any: some member may become ours meanwhile; then it waits for WAIT_LOOK_NS at most. */
static int poll_once(
        struct pollfd *fds, nfds_t count, uint64_t timeout_ns, const sigset_t *mask, bool *may_any)
{
	struct member few[ON_STACK], *m = few;
	struct pollfd few_k[ON_STACK + POLLERS], *k = few_k;
	struct poll_under_way under_way;
	int rc;

	if (count > ON_STACK) {
		struct rlimit limit;

		/* more than there may be descriptors: EINVAL from the kernel, before the array is touched */
		if (count > 1 << 20 || (!getrlimit(RLIMIT_NOFILE, &limit) && count > limit.rlim_cur))
			return SOCK_LIBC;
		m = calloc(count, sizeof(*m));
		k = calloc(count + POLLERS, sizeof(*k));
		if (!m || !k) {
			free(m);
			free(k);
			return -ENOMEM;
		}
	}
	under_way = (struct poll_under_way){
	        .m = m, .k = k, .count = count, .is_heap = m != few, .port_fd = -EAGAIN};
	GUARD_BEGIN(poll_over, &under_way)
	rc = members_get(fds, count, m, may_any) ? 0 : SOCK_LIBC;
	*may_any &= !__libc_single_threaded && proc_may_serve();
	if (unlikely(*may_any) && timeout_ns > WAIT_LOOK_NS)
		timeout_ns = WAIT_LOOK_NS;
	if (!rc)
		rc = wait_all(fds, &under_way, timeout_ns, mask);
	GUARD_END(1)
	return rc;
}

int poll_wait(struct pollfd *fds, nfds_t count, uint64_t timeout_ns, const sigset_t *mask)
{
	uint64_t now, left, deadline;
	bool may_any = false;
	int rc;

	if (!count || is_kernels_alone() || user_is_bad(fds))
		return SOCK_LIBC;
	now = timeout_ns && !__libc_single_threaded ? clock_now_ns() : 0;
	deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
	for (;;) {
		struct timespec ts = {0};

		rc = poll_once(fds, count, timeout_ns, mask, &may_any);
		if (likely(!may_any) || !timeout_ns || (rc && rc != SOCK_LIBC))
			return rc;
		now = clock_now_ns();
		left = deadline > now ? deadline - now : 0;
		if (rc == SOCK_LIBC) {
			ts.tv_nsec = (long)(left < WAIT_LOOK_NS ? left : WAIT_LOOK_NS);
			rc = libc.ppoll(fds, count, &ts, mask);
			if (rc)
				return rc < 0 ? -errno : rc;
		}
		if (!left)
			return 0;
		timeout_ns = left;
		may_any = false;
	}
}

int select_wait(int count, fd_set *rd, fd_set *wr, fd_set *ex, uint64_t timeout_ns, const sigset_t *mask)
{
	/* callers may pass bitmaps longer than fd_set: address them as the kernel does */
	unsigned long *sets[3] = {
	        (unsigned long *)(void *)rd, (unsigned long *)(void *)wr, (unsigned long *)(void *)ex};
	enum { BITS = 8 * sizeof(unsigned long) };
	struct pollfd *fds;
	nfds_t n = 0;
	bool any = false;
	int rc;

	if (count <= 0 || count > 1 << 20 || is_kernels_alone() || (rd && user_is_bad(rd)) ||
	        (wr && user_is_bad(wr)) || (ex && user_is_bad(ex)))
		return SOCK_LIBC;
	fds = malloc((size_t)count * sizeof(*fds));
	if (!fds)
		return -ENOMEM;
	for (int fd = 0; fd < count; fd++) {
		short ev = 0;

		if (rd && sets[0][fd / BITS] >> (fd % BITS) & 1)
			ev |= POLLIN;
		if (wr && sets[1][fd / BITS] >> (fd % BITS) & 1)
			ev |= POLLOUT;
		if (ex && sets[2][fd / BITS] >> (fd % BITS) & 1)
			ev |= POLLPRI;
		if (!ev)
			continue;
		any |= file_known(fd);
		fds[n++] = (struct pollfd){.fd = fd, .events = ev};
	}
	GUARD_BEGIN(free, fds)
	rc = any ? poll_wait(fds, n, timeout_ns, mask) : SOCK_LIBC;
	GUARD_END(0)
	for (nfds_t i = 0; rc >= 0 && i < n; i++)
		if (fds[i].revents & POLLNVAL)
			rc = -EBADF;
	if (rc >= 0) {
		rc = 0;
		for (int s = 0; s < 3; s++)
			if (sets[s])
				memset(sets[s], 0, (size_t)(count + BITS - 1) / BITS * sizeof(unsigned long));
		for (nfds_t i = 0; i < n; i++) {
			/* which poll events make a descriptor ready for select: select(2), "Correspondence"
			 */
			static const short map[3] = {POLLIN | POLLHUP | POLLERR | POLLRDNORM | POLLRDBAND,
			        POLLOUT | POLLERR | POLLWRNORM | POLLWRBAND, POLLPRI};
			static const short want[3] = {POLLIN, POLLOUT, POLLPRI};

			for (int s = 0; s < 3; s++) {
				if (!sets[s] || !(fds[i].events & want[s]) || !(fds[i].revents & map[s]))
					continue;
				sets[s][fds[i].fd / BITS] |= 1ul << (fds[i].fd % BITS);
				rc++;
			}
		}
	}
	free(fds);
	return rc;
}
