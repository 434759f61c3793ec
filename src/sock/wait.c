/* wait.c - blocking of single threads.
 *
 * Each thread that ever blocks has a poller of its own and a socket pair with the service: a byte from there
 * wakes it, and its end-of-file tells that the service died. Sleeping in recv(2) on it gives signals exactly
 * the kernel's behaviour. Protocol: doc/threads.md, "Wait and wake".
 */
#include "wait.h"
#include "dgram.h"
#include "endpoint.h"
#include "guard.h"
#include "latency.h"
#include "libc.h"
#include "proc.h"
#include "raw.h"
#include "ready.h"
#include "sock.h"
#include "spin.h"
#include "clock.h"

#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>

enum { WAIT_NO_POLLER = 2 }; /* this thread cannot have one */

struct waiter {
	int poller;
	int wake_fd;
	int half_fd; /* an epoll set for the kernel's half of a socket, see half_begin; -1: none yet */
	int half;    /* the number that is in there while the thread sleeps, or -1 */
};

static __thread struct waiter *waiter;
static pthread_key_t waiter_key;
static pthread_once_t waiter_once = PTHREAD_ONCE_INIT;

static __thread struct spin spin_state;

bool wait_spin_start(struct wait_spin *w, uint64_t now_ns, uint64_t deadline_ns)
{
	const struct arena_header *h = proc.at.arena.hdr; /* NULL: not joined, and nothing to spin for */
	uint64_t end_ns = now_ns + (h ? atomic_load_explicit(&h->app_spin_us, memory_order_relaxed) : 0) *
	                                   CLOCK_NS_PER_US;

	w->now_ns = now_ns;
	w->end_ns = deadline_ns < end_ns ? deadline_ns : end_ns;
	return w->end_ns > now_ns && spin_may(&spin_state, now_ns);
}

bool wait_spin_turn(struct wait_spin *w)
{
	uint64_t before = w->now_ns;

	if (proc.at.driver && attach_spin(&proc.at)) {
		w->now_ns = clock_now_ns();
		return w->now_ns < w->end_ns;
	}
	spin_pause();
	w->now_ns = clock_now_ns();
	return !spin_lost(&spin_state, before, w->now_ns) && w->now_ns < w->end_ns;
}

static void internal_close(int fd)
{
	proc_internal_fd_remove(fd);
	libc.close(fd);
}

/* Out of the way of the application's numbers, and not its to close. */
static int internal_keep(int fd)
{
	int high = libc.fcntl(fd, F_DUPFD_CLOEXEC, 100);

	if (high >= 0) {
		libc.close(fd);
		fd = high;
	}
	proc_internal_fd_add(fd);
	return fd;
}

static void half_drop(void)
{
	int fd = waiter->half_fd;

	waiter->half = waiter->half_fd = -1;
	if (fd >= 0)
		internal_close(fd);
}

static void waiter_free(void)
{
	half_drop();
	internal_close(waiter->wake_fd);
	free(waiter);
	waiter = NULL;
}

static void waiter_end(void *arg)
{
	waiter = arg;
	if (proc_is_attached() && !proc_is_dead())
		attach_poller_free(&proc.at, (uint32_t)waiter->poller);
	waiter_free();
}

static void key_make(void)
{
	pthread_key_create(&waiter_key, waiter_end);
}

int wait_poller(int *wake_fd)
{
	int fds[2], rc, poller;

	if (unlikely(attach_is_sandboxed()))
		return -ENFILE;
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
	waiter = malloc(sizeof(*waiter));
	if (!waiter) {
		libc.close(fds[0]);
		rc = -ENOMEM;
		goto free_poller;
	}
	*waiter = (struct waiter){poller, internal_keep(fds[0]), -1, -1};
	pthread_setspecific(waiter_key, waiter);
	*wake_fd = waiter->wake_fd;
	return poller;
free_poller:
	poller_free(&proc.at.arena, (uint32_t)poller);
	return rc;
}

void wait_fork_child(void)
{
	if (!waiter)
		return;
	waiter_free();
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
		while (RAW(SYS_recvfrom, wake_fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
}

void wait_release(uint32_t watch, int poller)
{
	const struct arena *a = &proc.at.arena;

	if (watch_release(a, watch, (uint32_t)poller))
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
	uint32_t idx = atomic_load_explicit(&f->ep, memory_order_acquire), ev, state;
	struct endpoint *ep;

	if (unlikely(idx == ENDPOINT_NONE))
		return EPOLLOUT | (f->type == SOCK_DGRAM ? 0 : EPOLLHUP);
	/* a datagram socket tells once; its kernel half, if it has one, goes on */
	if (unlikely(proc_is_dead()) && f->type == SOCK_DGRAM)
		return atomic_load(&f->mode) == MODE_DUAL || atomic_load(&f->death_told)
		               ? EPOLLOUT
		               : EPOLLIN | EPOLLOUT | EPOLLERR;
	/* A dead service ends connections. A listener just has no more guests: an event that accept cannot
	 * take away would make event loops spin. */
	if (unlikely(proc_is_dead()))
		return f->has_connected ? EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP : 0;
	ep = &a->endpoints[idx];
	ev = ep_level(a, ep);
	state = atomic_load_explicit(&ep->state, memory_order_relaxed);
	if ((want & EPOLLOUT) && !(ev & EPOLLOUT) && (state == EP_ESTABLISHED || state == EP_DGRAM)) {
		atomic_store(&ep->tx_want, 1);
		atomic_thread_fence(memory_order_seq_cst);
		ev = ep_level(a, ep);
	}
	/* Room in the ring, but no block to put under it: writable once the stack has granted some. A socket
	 * with nothing under way is writable on the kernel whatever happens, so that the stack's answer is
	 * worth the wait for its turn. */
	if ((want & ev & EPOLLOUT) && unlikely(post_is_starved(&proc.at, ep)) &&
	        (ep_tx_used(ep) || !grant_await(&proc.at, ep)))
		ev &= ~(uint32_t)(EPOLLOUT | EPOLLWRNORM);
	return ev;
}

/* Whether every handler that this process has was installed with SA_RESTART: then the one that interrupted us
 * was. ppoll(2) ends with EINTR in any case; accept(2) on two descriptors must not. When handlers differ, the
 * answer is EINTR, which a program with such handlers must expect anyway. */
bool wait_restarts(void)
{
	struct sigaction sa;

	for (int n = 1; n < NSIG; n++) {
		if (n >= 32 && n < SIGRTMIN)
			continue; /* the C library's own */
		if (!sigaction(n, NULL, &sa) && sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN &&
		        !(sa.sa_flags & SA_RESTART))
			return false;
	}
	return true;
}

/* What to sleep on for the kernel's half of f. Not its number: one that another thread closes meanwhile is
 * found closed by poll(2) when anything else ends the sleep, and whether that was a signal, or a wake-up that
 * somebody has worked off by then, it does not say. So it is an epoll set of the thread's own, which knows
 * the file, and which nobody closes. -1: the number is f's no more. */
static int half_begin(const struct file *f, int kernel_fd)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int fd;

	/* in a handler that has interrupted such a sleep, or in a child that a handler has forked in the
	 * middle of one; or without a descriptor: by its number, then */
	if (!waiter || waiter->half >= 0)
		return kernel_fd;
	if (waiter->half_fd < 0) {
		fd = (int)RAW(SYS_epoll_create1, EPOLL_CLOEXEC);
		if (fd < 0)
			return kernel_fd;
		waiter->half_fd = internal_keep(fd);
	}
	waiter->half = kernel_fd;
	if (RAW(SYS_epoll_ctl, waiter->half_fd, EPOLL_CTL_ADD, kernel_fd, &ev) < 0) {
		half_drop();
		return file_has(f, kernel_fd) ? kernel_fd : -1;
	}
	if (file_has(f, kernel_fd))
		return waiter->half_fd;
	half_drop();
	return -1;
}

static void half_end(int fd, int kernel_fd)
{
	if (!waiter || fd < 0 || fd == kernel_fd)
		return;
	/* a number that is not in there any more may have left its file there: another one holds it */
	if (RAW(SYS_epoll_ctl, fd, EPOLL_CTL_DEL, kernel_fd, NULL) < 0)
		half_drop();
	waiter->half = -1;
}

/* is_dual: kernel_fd is or was one, of f. port_fd: what attach_sleep gave, and limit_ns with it. -ERESTART:
 * the kernel would begin the call anew. */
static int sleep_on(const struct file *f, int wake_fd, int kernel_fd, bool is_dual, int port_fd,
        uint64_t deadline_ns, uint64_t limit_ns)
{
	char buf[64];
	struct pollfd p[3] = {
	        {.fd = wake_fd, .events = POLLIN}, {.events = POLLIN}, {.fd = port_fd, .events = POLLIN}};
	struct timespec ts, *tsp = NULL;
	int half_fd, err;
	ssize_t n;

	if (deadline_ns == WAIT_FOREVER && !is_dual && limit_ns == UINT64_MAX) {
		n = libc.recv(wake_fd, buf, sizeof(buf), 0);
		if (n > 0)
			return 0;
		if (n == 0) {
			attach_check_dead(&proc.at);
			return 0;
		}
		return -errno;
	}
	half_fd = p[1].fd = kernel_fd >= 0 ? half_begin(f, kernel_fd) : -1;
	if (deadline_ns != WAIT_FOREVER || limit_ns != UINT64_MAX) {
		uint64_t now = clock_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;

		if (left > limit_ns)
			left = limit_ns;
		ts.tv_sec = (time_t)(left / 1000000000);
		ts.tv_nsec = (long)(left % 1000000000);
		tsp = &ts;
	}
	err = libc.ppoll(p, port_fd >= 0 ? 3 : 2, tsp, NULL) < 0 ? errno : 0;
	half_end(half_fd, kernel_fd);
	if (err) {
		if (err != EINTR || deadline_ns != WAIT_FOREVER || (!is_dual && port_fd < 0) ||
		        !wait_restarts())
			return -err;
		return -ERESTART;
	}
	if (p[0].revents & (POLLHUP | POLLERR))
		attach_check_dead(&proc.at);
	else if (p[0].revents) /* or the next sleep would be none */
		RAW(SYS_recvfrom, wake_fd, buf, sizeof(buf), MSG_DONTWAIT);
	/* a number that was closed meanwhile, or made another file's, has nothing to tell */
	return p[1].revents && !(p[1].revents & POLLNVAL) && file_has(f, kernel_fd);
}

/* What a waiting thread leaves behind when it is cancelled, or its call left by longjmp(3): its watch, and
 * the reference of the call that it was in. */
struct wait_under_way {
	struct file *f;
	uint32_t watch;
	int poller, wake_fd; /* poller -1: none */
	int port_fd;         /* of attach_sleep, -EAGAIN: not asleep */
	bool is_dual;        /* waits for the kernel's half, too, or did until its number was closed */
};

static void wait_cancelled(void *arg)
{
	struct wait_under_way *w = arg;

	if (w->port_fd != -EAGAIN)
		attach_awake(&proc.at, w->port_fd);
	if (w->poller >= 0) {
		poller_awake(&proc.at.arena, (uint32_t)w->poller);
		if (waiter && waiter->half >= 0)
			half_drop();
		if (w->watch != WATCH_NONE)
			wait_release(w->watch, w->poller);
		wait_drain(w->poller, w->wake_fd);
		wait_nudge(w->f); /* the wake-up may have been for this thread alone */
	}
	file_put(w->f);
}

int wait_signal(const sigset_t *mask)
{
	const struct timespec none = {0};

	return unlikely(mask != NULL) && libc.ppoll(NULL, 0, &none, mask) < 0 ? -EINTR : 0;
}

int wait_nap(struct file *f, uint64_t nap_ns)
{
	const struct timespec nap = {(time_t)(nap_ns / 1000000000), (long)(nap_ns % 1000000000)};
	struct wait_under_way w = {f, WATCH_NONE, -1, -1, -EAGAIN, false};
	int rc;

	if (attach_drive(&proc.at))
		return 0;
	GUARD_BEGIN(wait_cancelled, &w)
	rc = libc.ppoll(NULL, 0, &nap, NULL) < 0 ? -errno : 0;
	GUARD_END(0)
	return rc;
}

int wait_kernel(struct file *f, int fd, short events, uint64_t deadline_ns)
{
	struct wait_under_way w = {f, WATCH_NONE, -1, -1, -EAGAIN, false};
	struct pollfd p = {.fd = fd, .events = events};
	struct timespec ts, *tsp = NULL;
	int rc;

	if (deadline_ns != WAIT_FOREVER) {
		uint64_t now = clock_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;

		if (!left)
			return -EAGAIN;
		ts = (struct timespec){(time_t)(left / 1000000000), (long)(left % 1000000000)};
		tsp = &ts;
	}
	GUARD_BEGIN(wait_cancelled, &w)
	rc = libc.ppoll(&p, 1, tsp, NULL);
	GUARD_END(0)
	return rc < 0 ? -errno : rc ? 0 : -EAGAIN;
}

ssize_t wait_recvmsg(struct file *f, int fd, struct msghdr *msg, int flags)
{
	struct wait_under_way w = {f, WATCH_NONE, -1, -1, -EAGAIN, false};
	ssize_t n;

	if (flags & MSG_DONTWAIT)
		return RAW(SYS_recvmsg, fd, msg, flags);
	GUARD_BEGIN(wait_cancelled, &w)
	n = libc.recvmsg(fd, msg, flags);
	GUARD_END(0)
	return n < 0 ? -errno : n;
}

ssize_t wait_sendmsg(struct file *f, int fd, const struct msghdr *msg, int flags)
{
	struct wait_under_way w = {f, WATCH_NONE, -1, -1, -EAGAIN, false};
	ssize_t n;

	if (flags & MSG_DONTWAIT)
		return RAW(SYS_sendmsg, fd, msg, flags);
	GUARD_BEGIN(wait_cancelled, &w)
	n = libc.sendmsg(fd, msg, flags);
	GUARD_END(0)
	return n < 0 ? -errno : n;
}

/* dgram.c has given the socket a kernel half, which this wait for input does not look at: kernel_fd is what
 * it was called with. */
static bool half_is_missed(const struct file *f, uint32_t events, int kernel_fd)
{
	return kernel_fd < 0 && (events & EPOLLIN) && dgram_is_dual(f);
}

/* A thread that cannot have a poller (no descriptors or pollers are left, or it may not ask for them) looks
 * every millisecond. */
static int wait_napping(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	struct pollfd p = {.fd = kernel_fd, .events = POLLIN};
	struct timespec zero;

	while (!attach_check_dead(&proc.at) && !(wait_level(f, events) & (events | EPOLLERR | EPOLLHUP)) &&
	        !half_is_missed(f, events, kernel_fd)) {
		int n = wait_nap(f, 1000000);

		if (n < 0)
			return n;
		zero = (struct timespec){0};
		if (kernel_fd >= 0 && RAW(SYS_ppoll, &p, 1, &zero, NULL, 0) > 0)
			return 0;
		if (clock_now_ns() >= deadline_ns)
			return -EAGAIN;
	}
	return 0;
}

void wait_nudge(struct file *f)
{
	uint32_t idx = atomic_load(&f->ep);

	if (idx != ENDPOINT_NONE && !proc_is_dead() && accept_ready(&proc.at.arena, proc_ep(idx)))
		post(&proc.at, proc_ep(idx)->stack_idx, POST_ENTRY(POST_NUDGE, 0, idx));
}

/* wait_for with all that w tells given back at the end. Or WAIT_NO_POLLER. */
static int wait_guarded(struct wait_under_way *w, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	const struct arena *a = &proc.at.arena;
	uint32_t watch, ep, want = events | EPOLLERR | EPOLLHUP;
	struct file *f = w->f;
	struct wait_spin spin;
	uint64_t limit_ns;
	int poller, wake_fd, port_fd, number = kernel_fd, rc = 0;
	bool is_over;

	if (wait_spin_start(&spin, clock_now_ns(), deadline_ns)) {
		do {
			is_over = !wait_spin_turn(&spin);
			if (wait_level(f, events) & want)
				return 0;
		} while (!is_over);
	}
	poller = wait_poller(&wake_fd);
	if (poller < 0)
		return WAIT_NO_POLLER;
	ep = atomic_load(&f->ep);
	watch = watch_claim(
	        a, ep, (uint32_t)poller, (want & (0xffff | EPOLLEXCLUSIVE)) | EPOLLRDHUP | WATCH_THREAD);
	*w = (struct wait_under_way){f, watch, poller, wake_fd, -EAGAIN, kernel_fd >= 0};
	for (;;) {
		wait_drain(poller, -1);
		port_fd = attach_sleep(&proc.at, &limit_ns);
		poller_sleep(a, (uint32_t)poller);
		/* another thread has dissolved what we waited for: by looks from here, until the wait is over
		 */
		if (unlikely(atomic_load(&f->ep) != ep) && watch != WATCH_NONE) {
			wait_release(watch, poller);
			w->watch = watch = WATCH_NONE;
		}
		if ((wait_level(f, events) & want) || poller_has_ready(a, (uint32_t)poller) ||
		        port_fd == -EAGAIN || half_is_missed(f, events, number)) {
			poller_awake(a, (uint32_t)poller);
			if (port_fd != -EAGAIN)
				attach_awake(&proc.at, port_fd);
			else
				attach_drive(&proc.at);
			if ((wait_level(f, events) & want) || half_is_missed(f, events, number))
				break;
			if (likely(port_fd != -EAGAIN || clock_now_ns() < deadline_ns))
				continue;
			rc = -EAGAIN;
			break;
		}
		if (deadline_ns != WAIT_FOREVER && clock_now_ns() >= deadline_ns) {
			poller_awake(a, (uint32_t)poller);
			attach_awake(&proc.at, port_fd);
			rc = -EAGAIN;
			break;
		}
		w->port_fd = port_fd;
		/* The kernel's half can be asked by its number only. One that was closed meanwhile, and
		 * may be another file's by now, leaves this wait with Pronk's half. */
		if (kernel_fd >= 0 && !file_has(f, kernel_fd))
			kernel_fd = -1;
		/* without a watch by looks */
		if (watch == WATCH_NONE && limit_ns > 1000000)
			limit_ns = 1000000;
		rc = sleep_on(f, wake_fd, kernel_fd, w->is_dual, port_fd, deadline_ns, limit_ns);
		if (latency_is_on(a))
			latency_awake();
		poller_awake(a, (uint32_t)poller);
		attach_awake(&proc.at, port_fd);
		w->port_fd = -EAGAIN;
		attach_drive(&proc.at);
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
		/* a call that begins anew finds its number gone */
		if (rc == -ERESTART && number >= 0 && !file_has(f, number)) {
			rc = -EBADF;
			break;
		}
		rc = 0;
	}
	if (watch != WATCH_NONE)
		wait_release(watch, poller);
	wait_drain(poller, wake_fd);
	/* woken alone, and going away without the connection: somebody else shall have it */
	if (rc && (events & EPOLLEXCLUSIVE))
		wait_nudge(f);
	return rc;
}

int wait_for(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	struct wait_under_way w = {f, WATCH_NONE, -1, -1, -EAGAIN, false};
	int rc;

	if (wait_level(f, events) & (events | EPOLLERR | EPOLLHUP))
		return 0;
	GUARD_BEGIN(wait_cancelled, &w)
	rc = wait_guarded(&w, events, deadline_ns, kernel_fd);
	GUARD_END(0)
	return rc == WAIT_NO_POLLER ? wait_napping(f, events, deadline_ns, kernel_fd) : rc;
}
