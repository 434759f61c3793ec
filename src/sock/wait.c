/* wait.c - blocking of single threads.
 *
 * Each thread that ever blocks has a poller of its own and a socket pair with the service: a byte from there
 * wakes it, and its end-of-file tells that the service died. Sleeping in recv(2) on it gives signals exactly
 * the kernel's behaviour. Protocol: doc/threads.md, "Wait and wake".
 */
#include "wait.h"
#include "endpoint.h"
#include "libc.h"
#include "proc.h"
#include "ready.h"
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

struct waiter {
	int poller;
	int wake_fd;
};

static __thread struct waiter *waiter;
static pthread_key_t waiter_key;
static pthread_once_t waiter_once = PTHREAD_ONCE_INIT;

static void waiter_end(void *arg)
{
	struct waiter *w = arg;

	if (proc_is_attached() && !proc_is_dead())
		attach_poller_free(&proc.at, (uint32_t)w->poller);
	proc_internal_fd_remove(w->wake_fd);
	libc.close(w->wake_fd);
	free(w);
	waiter = NULL;
}

static void key_make(void)
{
	pthread_key_create(&waiter_key, waiter_end);
}

int wait_poller(int *wake_fd)
{
	int fds[2], rc, poller, high;

	if (likely(waiter != NULL)) {
		*wake_fd = waiter->wake_fd;
		return waiter->poller;
	}
	pthread_once(&waiter_once, key_make);
	poller = poller_claim(&proc.at.arena, proc.at.client_idx);
	if (poller < 0)
		return poller;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		rc = -errno;
		goto free_poller;
	}
	rc = attach_poller(&proc.at, (uint32_t)poller, fds[1]);
	libc.close(fds[1]);
	if (rc) {
		libc.close(fds[0]);
		goto free_poller;
	}
	high = libc.fcntl(fds[0], F_DUPFD_CLOEXEC, 100);
	if (high >= 0) {
		libc.close(fds[0]);
		fds[0] = high;
	}
	waiter = malloc(sizeof(*waiter));
	if (!waiter) {
		libc.close(fds[0]);
		rc = -ENOMEM;
		goto free_poller;
	}
	proc_internal_fd_add(fds[0]);
	waiter->poller = poller;
	waiter->wake_fd = fds[0];
	pthread_setspecific(waiter_key, waiter);
	*wake_fd = fds[0];
	return poller;
free_poller:
	poller_free(&proc.at.arena, (uint32_t)poller);
	return rc;
}

void wait_fork_child(void)
{
	if (!waiter)
		return;
	proc_internal_fd_remove(waiter->wake_fd);
	libc.close(waiter->wake_fd);
	free(waiter);
	waiter = NULL;
	pthread_setspecific(waiter_key, NULL);
}

void wait_drain(int poller, int wake_fd)
{
	const struct arena *a = &proc.at.arena;
	uint32_t idx = poller_drain(a, (uint32_t)poller);
	char buf[64];

	while (idx && idx <= a->watch_count) {
		uint32_t next = atomic_load_explicit(&watch_at(a, idx - 1)->next, memory_order_relaxed);

		watch_unqueue(a, idx - 1);
		idx = next;
	}
	if (wake_fd >= 0)
		while (libc.recv(wake_fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
}

void wait_release(uint32_t watch, int poller)
{
	const struct arena *a = &proc.at.arena;

	if (watch_release(a, watch))
		return;
	/* queued, or about to be: it is free once drained */
	while ((atomic_load(&watch_at(a, watch)->word) & WATCH_QUEUED) &&
	        WATCH_POLLER(atomic_load(&watch_at(a, watch)->word)) == (uint32_t)poller + 1 &&
	        !proc_is_dead()) {
		wait_drain(poller, -1);
		cpu_relax();
	}
}

uint32_t wait_level(struct file *f, uint32_t want)
{
	const struct arena *a = &proc.at.arena;
	uint32_t idx = atomic_load_explicit(&f->ep, memory_order_acquire), ev;
	struct endpoint *ep;

	if (unlikely(idx == ENDPOINT_NONE))
		return EPOLLOUT | EPOLLHUP;
	/* A dead service ends connections. A listener just has no more guests: an event that accept cannot
	 * take away would make event loops spin. */
	if (unlikely(proc_is_dead()))
		return f->has_connected ? EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP : 0;
	ep = &a->endpoints[idx];
	ev = ep_level(a, ep);
	if ((want & EPOLLOUT) && !(ev & EPOLLOUT) &&
	        atomic_load_explicit(&ep->state, memory_order_relaxed) == EP_ESTABLISHED) {
		atomic_store(&ep->tx_want, 1);
		atomic_thread_fence(memory_order_seq_cst);
		ev = ep_level(a, ep);
	}
	/* room in the ring, but no block to put under it: writable once the stack has granted some */
	if ((want & ev & EPOLLOUT) && unlikely(post_is_starved(&proc.at, ep)))
		ev &= ~(uint32_t)(EPOLLOUT | EPOLLWRNORM);
	return ev;
}

static int sleep_on(int wake_fd, int kernel_fd, uint64_t deadline_ns, bool is_sliced)
{
	char buf[64];
	struct pollfd p[2] = {{.fd = wake_fd, .events = POLLIN}, {.fd = kernel_fd, .events = POLLIN}};
	struct timespec ts, *tsp = NULL;
	ssize_t n;

	if (deadline_ns == WAIT_FOREVER && kernel_fd < 0 && !is_sliced) {
		n = libc.recv(wake_fd, buf, sizeof(buf), 0);
		if (n > 0)
			return 0;
		if (n == 0) {
			attach_check_dead(&proc.at);
			return 0;
		}
		return -errno;
	}
	if (deadline_ns != WAIT_FOREVER || is_sliced) {
		uint64_t now = clock_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;

		if (is_sliced && left > 1000000)
			left = 1000000;
		ts.tv_sec = (time_t)(left / 1000000000);
		ts.tv_nsec = (long)(left % 1000000000);
		tsp = &ts;
	}
	if (libc.ppoll(p, kernel_fd >= 0 ? 2 : 1, tsp, NULL) < 0)
		return -errno;
	if (p[0].revents & (POLLHUP | POLLERR))
		attach_check_dead(&proc.at);
	return p[1].revents && kernel_fd >= 0 ? 1 : 0;
}

/* A thread that cannot have a poller (no descriptors or pollers are left) looks every millisecond. */
static int wait_napping(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	struct pollfd p = {.fd = kernel_fd, .events = POLLIN};
	const struct timespec nap = {.tv_nsec = 1000000};

	while (!attach_check_dead(&proc.at) && !(wait_level(f, events) & (events | EPOLLERR | EPOLLHUP))) {
		int n = libc.ppoll(&p, kernel_fd >= 0, &nap, NULL);

		if (n < 0)
			return -errno;
		if (n)
			return 0;
		if (clock_now_ns() >= deadline_ns)
			return -EAGAIN;
	}
	return 0;
}

int wait_for(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	const struct arena *a = &proc.at.arena;
	uint32_t watch, want = events | EPOLLERR | EPOLLHUP;
	uint64_t spin_end;
	int poller, wake_fd, rc = 0;

	if (wait_level(f, events) & want)
		return 0;
	if (proc.spin_ns) {
		spin_end = clock_now_ns() + proc.spin_ns;
		do {
			for (int i = 0; i < 16; i++)
				cpu_relax();
			if (wait_level(f, events) & want)
				return 0;
		} while (clock_now_ns() < spin_end);
	}
	poller = wait_poller(&wake_fd);
	if (poller < 0)
		return wait_napping(f, events, deadline_ns, kernel_fd);
	watch = watch_claim(a, atomic_load(&f->ep), (uint32_t)poller, (want | EPOLLRDHUP) & 0xffff);
	for (;;) {
		wait_drain(poller, -1);
		poller_sleep(a, (uint32_t)poller);
		if ((wait_level(f, events) & want) || poller_has_ready(a, (uint32_t)poller)) {
			poller_awake(a, (uint32_t)poller);
			if (wait_level(f, events) & want)
				break;
			continue;
		}
		if (deadline_ns != WAIT_FOREVER && clock_now_ns() >= deadline_ns) {
			poller_awake(a, (uint32_t)poller);
			rc = -EAGAIN;
			break;
		}
		rc = sleep_on(wake_fd, kernel_fd, deadline_ns, watch == WATCH_NONE);
		poller_awake(a, (uint32_t)poller);
		if (proc_is_dead()) {
			rc = 0;
			break;
		}
		if (rc > 0) {
			rc = 0;
			break;
		}
		if (rc == -EINTR) {
			if (wait_level(f, events) & want)
				rc = 0;
			break;
		}
		rc = 0;
	}
	if (watch != WATCH_NONE)
		wait_release(watch, poller);
	wait_drain(poller, wake_fd);
	return rc;
}
