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

enum { ON_STACK = 64, ALWAYS = POLLERR | POLLHUP };

struct member {
	struct file *file;  /* NULL: the kernel's alone */
	uint32_t watch, ep; /* what is watched */
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
		attach_check_dead(&proc.at);
	}
}

/* Gives back watches of endpoints that another thread has dissolved meanwhile. True when there were any: the
 * wait goes on by looks. */
static bool watches_stale(struct member *m, nfds_t count, int poller)
{
	bool is_any = false;

	for (nfds_t i = 0; i < count; i++) {
		if (likely(m[i].watch == WATCH_NONE || atomic_load(&m[i].file->ep) == m[i].ep))
			continue;
		wait_release(m[i].watch, poller);
		m[i].watch = WATCH_NONE;
		is_any = true;
	}
	return is_any;
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

static int wait_all(struct pollfd *fds, nfds_t count, struct member *m, struct pollfd *k, uint64_t timeout_ns,
        const sigset_t *mask, int *port)
{
	const struct arena *a = &proc.at.arena;
	static const struct timespec zero;
	struct wait_spin spin;
	uint64_t now, deadline;
	bool is_over;
	nfds_t kernel_count;
	bool is_sliced = false, has_dgram = false;
	int n, poller, wake_fd;

	attach_drive(&proc.at);
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
	poller = wait_poller(&wake_fd);
	if (poller < 0)
		return wait_napping(fds, count, m, k, deadline, mask);
	for (nfds_t i = 0; i < count; i++) {
		uint32_t ep;

		if (!m[i].file || m[i].file->kind != FILE_SOCKET || proc_is_dead())
			continue;
		ep = atomic_load(&m[i].file->ep);
		if (ep == ENDPOINT_NONE)
			continue;
		m[i].ep = ep;
		m[i].watch = watch_claim(a, ep, (uint32_t)poller,
		        (uint32_t)(unsigned short)(fds[i].events | ALWAYS | WATCH_THREAD |
		                                   (fds[i].events & POLLIN ? EPOLLRDHUP : 0)) &
		                0xffff);
		if (m[i].watch == WATCH_NONE)
			is_sliced = true;
	}
	k[count].fd = wake_fd;
	k[count].events = POLLIN;
	for (;;) {
		struct timespec ts, *tsp = NULL;
		uint64_t left, limit;
		int port_fd;

		wait_drain(poller, -1);
		port_fd = attach_sleep(&proc.at, &limit);
		poller_sleep(a, (uint32_t)poller);
		is_sliced |= watches_stale(m, count, poller);
		if (unlikely(has_dgram)) /* one may have got a kernel half since */
			kernel_count = kernel_members(fds, count, m, k, &has_dgram);
		n = levels(fds, count, m);
		if (n || poller_has_ready(a, (uint32_t)poller) || port_fd == -EAGAIN) {
			poller_awake(a, (uint32_t)poller);
			if (port_fd != -EAGAIN)
				attach_awake(&proc.at, port_fd);
			else
				attach_drive(&proc.at);
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
		k[count + 1] = (struct pollfd){.fd = port_fd, .events = POLLIN};
		*port = port_fd;
		n = kernel_part(fds, count, k, count + (port_fd < 0 ? 1 : 2), tsp, mask);
		if (latency_is_on(a))
			latency_awake();
		poller_awake(a, (uint32_t)poller);
		*port = -EAGAIN;
		attach_awake(&proc.at, port_fd);
		attach_drive(&proc.at);
		if (!n && port_fd >= 0)
			n = wait_signal(mask);
		if (n)
			break;
		if (k[count].revents & (POLLHUP | POLLERR))
			attach_check_dead(&proc.at);
		/* what hung up is readable for ever: from now on only the kernel's descriptors can tell */
		if (k[count].revents && proc_is_dead())
			k[count].fd = -1;
		else if (k[count].revents)
			wait_drain(poller, wake_fd);
		if (deadline != UINT64_MAX && clock_now_ns() >= deadline) {
			n = levels(fds, count, m);
			break;
		}
	}
	for (nfds_t i = 0; i < count; i++)
		if (m[i].watch != WATCH_NONE) {
			wait_release(m[i].watch, poller);
			m[i].watch = WATCH_NONE;
		}
	wait_drain(poller, wake_fd);
	return n;
}

/* Ends a poll, also one whose thread was cancelled while it slept, or left it by longjmp(3). */
struct poll_under_way {
	struct member *m;
	struct pollfd *k;
	nfds_t count;
	bool is_heap;
	int port_fd; /* of attach_sleep, -EAGAIN: not asleep */
};

static void poll_over(void *arg)
{
	struct poll_under_way *u = arg;
	int poller = -1, wake_fd = -1;

	if (u->port_fd != -EAGAIN)
		attach_awake(&proc.at, u->port_fd);
	for (nfds_t i = 0; i < u->count; i++) {
		if (!u->m[i].file)
			continue;
		if (u->m[i].watch != WATCH_NONE && !proc_is_dead()) { /* cancelled: still watching */
			if (poller < 0)
				poller = wait_poller(&wake_fd);
			wait_release(u->m[i].watch, poller);
		}
		file_put(u->m[i].file);
	}
	if (poller >= 0) {
		poller_awake(&proc.at.arena, (uint32_t)poller);
		wait_drain(poller, wake_fd);
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
	struct pollfd few_k[ON_STACK + 2], *k = few_k;
	struct poll_under_way under_way;
	int rc;

	if (count > ON_STACK) {
		struct rlimit limit;

		/* more than there may be descriptors: EINVAL from the kernel, before the array is touched */
		if (count > 1 << 20 || (!getrlimit(RLIMIT_NOFILE, &limit) && count > limit.rlim_cur))
			return SOCK_LIBC;
		m = calloc(count, sizeof(*m));
		k = calloc(count + 2, sizeof(*k));
		if (!m || !k) {
			free(m);
			free(k);
			return -ENOMEM;
		}
	}
	under_way = (struct poll_under_way){m, k, count, m != few, -EAGAIN};
	GUARD_BEGIN(poll_over, &under_way)
	rc = members_get(fds, count, m, may_any) ? 0 : SOCK_LIBC;
	*may_any &= !__libc_single_threaded && proc_may_serve();
	if (unlikely(*may_any) && timeout_ns > WAIT_LOOK_NS)
		timeout_ns = WAIT_LOOK_NS;
	if (!rc)
		rc = wait_all(fds, count, m, k, timeout_ns, mask, &under_way.port_fd);
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
