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
	struct wait_poller poller[SERVICE_MAX]; /* number -1: none yet */
	int half_fd; /* an epoll set for the kernel's half of a socket, see half_begin; -1: none yet */
	int half;    /* the number that is in there while the thread sleeps, or -1 */
};

static __thread struct waiter *waiter;
static pthread_key_t waiter_key;
static pthread_once_t waiter_once = PTHREAD_ONCE_INIT;

static __thread struct spin spin_state;

bool wait_spin_start(struct wait_spin *w, uint64_t now_ns, uint64_t deadline_ns)
{
	const struct arena_header *h =
	        services[0].at.arena.hdr; /* NULL: not joined, and nothing to spin for */
	uint64_t end_ns = now_ns + (h ? atomic_load_explicit(&h->app_spin_us, memory_order_relaxed) : 0) *
	                                   CLOCK_NS_PER_US;

	w->now_ns = now_ns;
	w->end_ns = deadline_ns < end_ns ? deadline_ns : end_ns;
	return w->end_ns > now_ns && spin_may(&spin_state, now_ns);
}

bool wait_spin_turn(struct wait_spin *w)
{
	uint64_t before = w->now_ns;

	if (proc.near->driver && attach_spin(proc.near)) {
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
	for (int i = 0; i < SERVICE_MAX; i++)
		if (waiter->poller[i].number >= 0)
			internal_close(waiter->poller[i].wake_fd);
	free(waiter);
	waiter = NULL;
}

static void waiter_end(void *arg)
{
	waiter = arg;
	for (int i = 0; i < SERVICE_MAX; i++)
		if (waiter->poller[i].number >= 0 && !attach_is_dead(&services[i].at))
			attach_poller_free(&services[i].at, (uint32_t)waiter->poller[i].number);
	waiter_free();
}

static void key_make(void)
{
	pthread_key_create(&waiter_key, waiter_end);
}

static int waiter_make(void)
{
	pthread_once(&waiter_once, key_make);
	waiter = malloc(sizeof(*waiter));
	if (!waiter)
		return -ENOMEM;
	waiter->half_fd = waiter->half = -1;
	for (int i = 0; i < SERVICE_MAX; i++)
		waiter->poller[i] = (struct wait_poller){&services[i], -1, -1};
	pthread_setspecific(waiter_key, waiter);
	return 0;
}

int wait_poller(struct service *s, struct wait_poller *out)
{
	struct wait_poller *p;
	int fds[2], rc, poller;

	if (unlikely(attach_is_sandboxed()))
		return -ENFILE;
	if (unlikely(!waiter) && (rc = waiter_make()))
		return rc;
	p = &waiter->poller[s - services];
	if (likely(p->number >= 0)) {
		*out = *p;
		return 0;
	}
	poller = poller_claim(&s->at.arena, s->at.client_idx);
	if (poller < 0)
		return poller;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		rc = -errno;
		goto free_poller;
	}
	rc = attach_poller(&s->at, (uint32_t)poller, fds[1]);
	libc.close(fds[1]);
	if (rc) {
		libc.close(fds[0]);
		goto free_poller;
	}
	p->wake_fd = internal_keep(fds[0]);
	p->number = poller;
	*out = *p;
	return 0;
free_poller:
	poller_free(&s->at.arena, (uint32_t)poller);
	return rc;
}

void wait_fork_child(void)
{
	if (!waiter)
		return;
	waiter_free();
	pthread_setspecific(waiter_key, NULL);
}

void wait_drain(const struct wait_poller *p, bool is_all)
{
	const struct arena *a = &p->service->at.arena;
	uint32_t idx = poller_drain(a, (uint32_t)p->number);
	char buf[64];

	while (idx && idx <= a->watch_count) {
		uint32_t next = atomic_load_explicit(&watch_at(a, idx - 1)->next, memory_order_relaxed);

		watch_unqueue(a, idx - 1);
		idx = next;
	}
	if (is_all)
		while (RAW(SYS_recvfrom, p->wake_fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
}

void wait_release(uint32_t watch, const struct wait_poller *p)
{
	const struct arena *a = &p->service->at.arena;

	if (watch_release(a, watch, (uint32_t)p->number))
		return;
	/* queued, or about to be: it is free once drained */
	while ((atomic_load(&watch_at(a, watch)->word) & WATCH_QUEUED) &&
	        WATCH_POLLER(atomic_load(&watch_at(a, watch)->word)) == (uint32_t)p->number + 1 &&
	        !attach_is_dead(&p->service->at)) {
		wait_drain(p, false);
		cpu_relax();
	}
}

/* Present events of one endpoint of a socket, whose service lives. */
static uint32_t level_of(uint32_t handle, uint32_t want)
{
	struct attach *at = handle_at(handle);
	struct endpoint *ep = handle_ep(handle);
	uint32_t ev = ep_level(&at->arena, ep), state;

	state = atomic_load_explicit(&ep->state, memory_order_relaxed);
	if ((want & EPOLLOUT) && !(ev & EPOLLOUT) && (state == EP_ESTABLISHED || state == EP_DGRAM)) {
		atomic_store(&ep->tx_want, 1);
		atomic_thread_fence(memory_order_seq_cst);
		ev = ep_level(&at->arena, ep);
	}
	/* Room in the ring, but no block to put under it: writable once the stack has granted some. A socket
	 * with nothing under way is writable on the kernel whatever happens, so that the stack's answer is
	 * worth the wait for its turn. */
	if ((want & ev & EPOLLOUT) && unlikely(post_is_starved(at, ep)) &&
	        (ep_tx_used(ep) || !grant_await(at, ep)))
		ev &= ~(uint32_t)(EPOLLOUT | EPOLLWRNORM);
	return ev;
}

/* A socket that is at several services: of those that live. There is room to send when there is at each, as
 * nobody knows where the next datagram goes. */
static uint32_t level_of_all(const struct file *f, uint32_t want)
{
	const uint32_t room = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
	uint32_t any = 0, all = room;

	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t ep = file_ep(f, i), ev;

		if (ep == ENDPOINT_NONE || handle_is_dead(ep))
			continue;
		/* one that sends nothing has room: no answer of a stack that may be stopped is waited for */
		ev = level_of(ep, !i || ep_tx_used(handle_ep(ep)) ? want : want & ~(uint32_t)EPOLLOUT);
		any |= ev;
		all &= ev;
	}
	return (any & ~room) | (any & all);
}

uint32_t wait_level(struct file *f, uint32_t want)
{
	uint32_t ep = atomic_load_explicit(&f->ep, memory_order_acquire);
	bool is_dead;

	if (unlikely(ep == ENDPOINT_NONE))
		return EPOLLOUT | (f->type == SOCK_DGRAM ? 0 : EPOLLHUP);
	is_dead = handle_is_dead(ep);
	if (unlikely(f->also != NULL)) {
		if (!sock_is_dead(f) && !dgram_is_cut(f))
			return level_of_all(f, want);
		is_dead = true;
	}
	/* a datagram socket tells once; its kernel half, if it has one, goes on */
	if (unlikely(is_dead) && f->type == SOCK_DGRAM)
		return atomic_load(&f->mode) == MODE_DUAL || atomic_load(&f->death_told)
		               ? EPOLLOUT
		               : EPOLLIN | EPOLLOUT | EPOLLERR;
	/* A dead service ends connections. A listener just has no more guests: an event that accept cannot
	 * take away would make event loops spin. */
	if (unlikely(is_dead))
		return f->has_connected ? EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP : 0;
	return level_of(ep, want);
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

/* One endpoint of a socket, at its service, with the thread's poller there. */
struct wait_part {
	uint32_t ep;    /* what is watched */
	uint32_t watch; /* WATCH_NONE: none */
	struct wait_poller poller;
};

/* What a waiting thread leaves behind when it is cancelled, or its call left by longjmp(3): its watches, and
 * the reference of the call that it was in. */
struct wait_under_way {
	struct file *f;
	uint32_t part_count;
	int port_fd;  /* of attach_sleep, -EAGAIN: not asleep */
	bool is_dual; /* waits for the kernel's half, too, or did until its number was closed */
	struct wait_part part[SERVICE_MAX];
};

static void check_dead(const struct wait_under_way *w)
{
	for (uint32_t i = 0; i < w->part_count; i++)
		attach_check_dead(&w->part[i].poller.service->at);
}

/* kernel_fd is or was a half of the socket, if is_dual. limit_ns: of attach_sleep. -ERESTART: the kernel
 * would begin the call anew. */
static int sleep_on(const struct wait_under_way *w, int kernel_fd, uint64_t deadline_ns, uint64_t limit_ns)
{
	char buf[64];
	struct pollfd p[2 + SERVICE_MAX] = {
	        {.fd = -1, .events = POLLIN}, {.fd = w->port_fd < 0 ? -1 : w->port_fd, .events = POLLIN}};
	struct timespec ts, *tsp = NULL;
	bool is_dual = w->is_dual;
	int half_fd, err;
	ssize_t n;

	if (deadline_ns == WAIT_FOREVER && !is_dual && limit_ns == UINT64_MAX && w->part_count == 1) {
		n = libc.recv(w->part[0].poller.wake_fd, buf, sizeof(buf), 0);
		if (n > 0)
			return 0;
		if (n == 0) {
			check_dead(w);
			return 0;
		}
		return -errno;
	}
	for (uint32_t i = 0; i < w->part_count; i++) {
		const struct wait_poller *poller = &w->part[i].poller;

		/* what hung up is readable for ever */
		p[2 + i] = (struct pollfd){
		        attach_is_dead(&poller->service->at) ? -1 : poller->wake_fd, POLLIN, 0};
	}
	half_fd = p[0].fd = kernel_fd >= 0 ? half_begin(w->f, kernel_fd) : -1;
	if (deadline_ns != WAIT_FOREVER || limit_ns != UINT64_MAX) {
		uint64_t now = clock_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;

		if (left > limit_ns)
			left = limit_ns;
		ts.tv_sec = (time_t)(left / 1000000000);
		ts.tv_nsec = (long)(left % 1000000000);
		tsp = &ts;
	}
	err = libc.ppoll(p, 2 + w->part_count, tsp, NULL) < 0 ? errno : 0;
	half_end(half_fd, kernel_fd);
	if (err) {
		if (err != EINTR || deadline_ns != WAIT_FOREVER ||
		        (!is_dual && w->port_fd < 0 && w->part_count == 1) || !wait_restarts())
			return -err;
		return -ERESTART;
	}
	for (uint32_t i = 0; i < w->part_count; i++) {
		if (p[2 + i].revents & (POLLHUP | POLLERR))
			attach_check_dead(&w->part[i].poller.service->at);
		else if (p[2 + i].revents) /* or the next sleep would be none */
			RAW(SYS_recvfrom, p[2 + i].fd, buf, sizeof(buf), MSG_DONTWAIT);
	}
	/* a number that was closed meanwhile, or made another file's, has nothing to tell */
	return p[0].revents && !(p[0].revents & POLLNVAL) && file_has(w->f, kernel_fd);
}

static void parts_sleep(const struct wait_under_way *w)
{
	for (uint32_t i = 0; i < w->part_count; i++)
		poller_sleep(&w->part[i].poller.service->at.arena, (uint32_t)w->part[i].poller.number);
}

static void parts_awake(const struct wait_under_way *w)
{
	for (uint32_t i = 0; i < w->part_count; i++)
		poller_awake(&w->part[i].poller.service->at.arena, (uint32_t)w->part[i].poller.number);
}

static bool parts_have_ready(const struct wait_under_way *w)
{
	for (uint32_t i = 0; i < w->part_count; i++)
		if (poller_has_ready(
		            &w->part[i].poller.service->at.arena, (uint32_t)w->part[i].poller.number))
			return true;
	return false;
}

static void parts_drain(const struct wait_under_way *w, bool is_all)
{
	for (uint32_t i = 0; i < w->part_count; i++)
		wait_drain(&w->part[i].poller, is_all);
}

static void parts_release(struct wait_under_way *w)
{
	for (uint32_t i = 0; i < w->part_count; i++) {
		if (w->part[i].watch != WATCH_NONE)
			wait_release(w->part[i].watch, &w->part[i].poller);
		w->part[i].watch = WATCH_NONE;
	}
}

static void wait_cancelled(void *arg)
{
	struct wait_under_way *w = arg;

	if (w->port_fd != -EAGAIN)
		attach_awake(proc.near, w->port_fd);
	if (w->part_count) {
		parts_awake(w);
		if (waiter && waiter->half >= 0)
			half_drop();
		parts_release(w);
		parts_drain(w, true);
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
	struct wait_under_way w = {.f = f, .port_fd = -EAGAIN};
	int rc;

	if (attach_drive(proc.near))
		return 0;
	GUARD_BEGIN(wait_cancelled, &w)
	rc = libc.ppoll(NULL, 0, &nap, NULL) < 0 ? -errno : 0;
	GUARD_END(0)
	return rc;
}

int wait_kernel(struct file *f, int fd, short events, uint64_t deadline_ns)
{
	struct wait_under_way w = {.f = f, .port_fd = -EAGAIN};
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
	struct wait_under_way w = {.f = f, .port_fd = -EAGAIN};
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
	struct wait_under_way w = {.f = f, .port_fd = -EAGAIN};
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

	while (!sock_check_dead(f) && !(wait_level(f, events) & (events | EPOLLERR | EPOLLHUP)) &&
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

static bool has_guest(uint32_t ep)
{
	return ep != ENDPOINT_NONE && !handle_is_dead(ep) &&
	       accept_ready(&handle_at(ep)->arena, handle_ep(ep));
}

void wait_nudge(struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t ep = file_ep(f, i);

		if (has_guest(ep))
			handle_post(ep, POST_NUDGE, 0);
	}
}

void wait_nudge_rest(struct file *f)
{
	uint32_t ready = 0;

	for (uint32_t i = 0; i < file_ep_count(f); i++)
		ready += has_guest(file_ep(f, i));
	if (ready > 1)
		wait_nudge(f);
}

/* A watch and a poller at each service that the socket is at. False: the thread cannot have them. */
static bool parts_begin(struct wait_under_way *w, uint32_t mask)
{
	for (uint32_t i = 0; i < file_ep_count(w->f); i++) {
		uint32_t ep = file_ep(w->f, i);
		struct wait_part *part = &w->part[w->part_count];

		if ((i && ep == ENDPOINT_NONE) || handle_is_dead(ep))
			continue;
		if (w->part_count == SERVICE_MAX || wait_poller(handle_service(ep), &part->poller))
			return false;
		part->ep = ep;
		part->watch = watch_claim(
		        &handle_at(ep)->arena, handle_index(ep), (uint32_t)part->poller.number, mask);
		w->part_count++;
	}
	return w->part_count > 0;
}

/* Gives back watches of endpoints that another thread has dissolved meanwhile. False when a part goes by
 * looks from here, until the wait is over. */
static bool parts_are_watched(struct wait_under_way *w)
{
	bool is_all = true;

	for (uint32_t i = 0; i < w->part_count; i++) {
		struct wait_part *part = &w->part[i];
		bool is_there = atomic_load(&w->f->ep) == part->ep;

		if (unlikely(w->f->also != NULL))
			is_there |= atomic_load(&w->f->also->ep[part->poller.service - services]) == part->ep;
		if (unlikely(!is_there) && part->watch != WATCH_NONE) {
			wait_release(part->watch, &part->poller);
			part->watch = WATCH_NONE;
		}
		is_all &= part->watch != WATCH_NONE;
	}
	return is_all;
}

/* The socket has got an endpoint that this wait does not know: at another service, by another thread's first
 * datagram there, or the peer's has become the first. */
static bool parts_miss_one(const struct wait_under_way *w)
{
	for (uint32_t i = 0; i < file_ep_count(w->f); i++) {
		uint32_t ep = file_ep(w->f, i), known = 0;

		if (ep == ENDPOINT_NONE || handle_is_dead(ep))
			continue;
		while (known < w->part_count && w->part[known].ep != ep)
			known++;
		if (known == w->part_count)
			return true;
	}
	return false;
}

static void parts_end(struct wait_under_way *w)
{
	parts_release(w);
	parts_drain(w, true);
	w->part_count = 0;
}

/* wait_for with all that w tells given back at the end. Or WAIT_NO_POLLER. */
static int wait_guarded(struct wait_under_way *w, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	uint32_t want = events | EPOLLERR | EPOLLHUP;
	struct file *f = w->f;
	struct wait_spin spin;
	const uint32_t mask = (want & (0xffff | EPOLLEXCLUSIVE)) | EPOLLRDHUP | WATCH_THREAD;
	uint64_t limit_ns;
	int port_fd, number = kernel_fd, rc = 0;
	bool is_over, is_watched;

	if (wait_spin_start(&spin, clock_now_ns(), deadline_ns)) {
		do {
			is_over = !wait_spin_turn(&spin);
			if (wait_level(f, events) & want)
				return 0;
		} while (!is_over);
	}
	w->is_dual = kernel_fd >= 0;
	if (!parts_begin(w, mask)) {
		parts_end(w);
		return WAIT_NO_POLLER;
	}
	for (;;) {
		parts_drain(w, false);
		port_fd = attach_sleep(proc.near, &limit_ns);
		parts_sleep(w);
		is_watched = parts_are_watched(w);
		/* looked at after the announcement: whoever adds one tells those who sleep (POST_NUDGE) */
		if (unlikely(f->also != NULL) && parts_miss_one(w)) {
			parts_awake(w);
			if (port_fd != -EAGAIN)
				attach_awake(proc.near, port_fd);
			parts_end(w);
			if (!parts_begin(w, mask)) {
				parts_end(w);
				return WAIT_NO_POLLER;
			}
			continue;
		}
		if ((wait_level(f, events) & want) || parts_have_ready(w) || port_fd == -EAGAIN ||
		        half_is_missed(f, events, number)) {
			parts_awake(w);
			if (port_fd != -EAGAIN)
				attach_awake(proc.near, port_fd);
			else
				attach_drive(proc.near);
			if ((wait_level(f, events) & want) || half_is_missed(f, events, number))
				break;
			if (likely(port_fd != -EAGAIN || clock_now_ns() < deadline_ns))
				continue;
			rc = -EAGAIN;
			break;
		}
		if (deadline_ns != WAIT_FOREVER && clock_now_ns() >= deadline_ns) {
			parts_awake(w);
			attach_awake(proc.near, port_fd);
			rc = -EAGAIN;
			break;
		}
		w->port_fd = port_fd;
		/* The kernel's half can be asked by its number only. One that was closed meanwhile, and
		 * may be another file's by now, leaves this wait with Pronk's half. */
		if (kernel_fd >= 0 && !file_has(f, kernel_fd))
			kernel_fd = -1;
		/* without a watch by looks */
		if (!is_watched && limit_ns > 1000000)
			limit_ns = 1000000;
		rc = sleep_on(w, kernel_fd, deadline_ns, limit_ns);
		wait_note_awake();
		parts_awake(w);
		attach_awake(proc.near, port_fd);
		w->port_fd = -EAGAIN;
		attach_drive(proc.near);
		if (sock_is_dead(f)) {
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
	parts_release(w);
	parts_drain(w, true);
	/* woken alone, and going away without the connection: somebody else shall have it */
	if (rc && (events & EPOLLEXCLUSIVE))
		wait_nudge(f);
	else if (unlikely(w->part_count > 1) && (events & EPOLLEXCLUSIVE))
		wait_nudge_rest(f);
	return rc;
}

int wait_for(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd)
{
	struct wait_under_way w = {.f = f, .port_fd = -EAGAIN};
	int rc;

	if (wait_level(f, events) & (events | EPOLLERR | EPOLLHUP))
		return 0;
	GUARD_BEGIN(wait_cancelled, &w)
	rc = wait_guarded(&w, events, deadline_ns, kernel_fd);
	GUARD_END(0)
	return rc == WAIT_NO_POLLER ? wait_napping(f, events, deadline_ns, kernel_fd) : rc;
}
