/* accept.c - taking connections from a listener's rings, and making descriptors of them.
 *
 * Runs in application threads; several processes may take from one listener. A wildcard listener has a kernel
 * half, which is asked when the rings are empty. Protocol: doc/threads.md, "Accept".
 */
#include "sock.h"
#include "clock.h"
#include "endpoint.h"
#include "libc.h"
#include "proc.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>

/* Takes one connection from the rings, this process's turn first at a stack that differs from call to call.
 */
static uint32_t accept_take(struct endpoint *lep)
{
	const struct arena *a = &proc.at.arena;
	static _Atomic uint32_t turn, take_lock;
	struct listener *l;
	uint32_t start = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed), taken = ENDPOINT_NONE;

	if (lep->listener >= a->listener_count)
		return ENDPOINT_NONE;
	l = arena_listener(a, lep->listener);
	for (uint32_t i = 0; i < a->stack_count; i++) {
		struct accept_ring *r = &l->ring[(start + i) % a->stack_count];
		uint32_t tail = atomic_load(&r->tail);

		while (tail != atomic_load_explicit(&r->head, memory_order_acquire)) {
			uint32_t ep =
			        atomic_load_explicit(&r->slot[tail % ACCEPT_RING_SIZE], memory_order_relaxed);

			if (ep >= a->endpoint_count)
				return ENDPOINT_NONE;
			/* Held before it is taken: a death in between is told by the ring. One thread of this
			 * process at a time, as the hold is the process's; it is given back through the
			 * stack, which looks whether anybody else holds the endpoint. */
			spin_lock(&take_lock);
			if (tail == atomic_load(&r->tail)) {
				hold_set(a, proc.at.client_idx, ep);
				if (atomic_compare_exchange_strong(&r->tail, &tail, tail + 1))
					taken = ep;
				else
					post(&proc.at, a->endpoints[ep].stack_idx,
					        POST_ENTRY(POST_RELEASE, 0, ep));
			}
			spin_unlock(&take_lock);
			if (taken != ENDPOINT_NONE)
				return taken;
			tail = atomic_load(&r->tail);
		}
	}
	return ENDPOINT_NONE;
}

static int accept_pronk(struct file *f, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct endpoint *lep = proc_ep(atomic_load(&f->ep)), *ep;
	struct file *nf;
	uint32_t idx;
	int fd;

	if (proc_is_dead() || !accept_ready(&proc.at.arena, lep))
		return -EAGAIN;
	fd = libc.fcntl(proc.base_fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd < 0)
		return errno == EINVAL ? -EMFILE : -errno;
	idx = accept_take(lep);
	if (idx == ENDPOINT_NONE) {
		libc.close(fd);
		return -EAGAIN;
	}
	ep = proc_ep(idx);
	file_close(fd);
	nf = file_open(fd, FILE_SOCKET);
	if (!nf) {
		sock_ep_release(idx, RELEASE_ABORT);
		libc.close(fd);
		return -ENOMEM;
	}
	nf->domain = f->domain;
	nf->type = f->type;
	nf->nodelay = f->nodelay;
	nf->keepalive = f->keepalive;
	nf->cork = f->cork;
	nf->oobinline = f->oobinline;
	nf->tos = f->tos;
	nf->ttl = f->ttl;
	nf->keepidle = f->keepidle;
	nf->keepintvl = f->keepintvl;
	nf->keepcnt = f->keepcnt;
	nf->user_timeout = f->user_timeout;
	nf->reuseaddr = f->reuseaddr;
	nf->reuseport = f->reuseport;
	nf->sndbuf = f->sndbuf;
	nf->sndbuf_set = f->sndbuf_set;
	nf->rcvbuf_set = f->rcvbuf_set;
	nf->rcvbuf = f->rcvbuf;
	nf->rcvlowat = f->rcvlowat;
	nf->linger_on = f->linger_on;
	nf->linger_s = f->linger_s;
	nf->rcvtimeo_ns = f->rcvtimeo_ns;
	nf->sndtimeo_ns = f->sndtimeo_ns;
	nf->has_connected = true;

	atomic_store(&nf->connect_reported, true);
	atomic_store(&nf->ep, idx);
	sock_set_nonblocking(nf, (flags & SOCK_NONBLOCK) != 0);
	atomic_store_explicit(&ep->creator, proc.at.client_idx, memory_order_relaxed);
	atomic_store_explicit(&ep->app_fd, fd, memory_order_relaxed);
	atomic_store(&nf->mode, MODE_PRONK);
	addr_to_user(&ep->remote, nf->domain, addr, len);
	return fd;
}

int sock_accept(struct file *f, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	uint8_t mode = atomic_load(&f->mode);
	uint64_t deadline = 0;
	int rc;

	if (mode != MODE_PRONK && mode != MODE_DUAL)
		return SOCK_LIBC;
	if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
		return -EINVAL;
	if (addr && !len)
		return -EFAULT;
	if (len && (int)*len < 0)
		return -EINVAL;
	for (;;) {
		if (mode == MODE_PRONK && !proc_is_dead() &&
		        atomic_load(&proc_ep(atomic_load(&f->ep))->state) != EP_LISTEN)
			return -EINVAL;
		rc = accept_pronk(f, addr, len, flags);
		if (rc != -EAGAIN)
			return rc;
		if (mode == MODE_DUAL) {
			rc = libc.accept4(fd, addr, len, flags);
			if (rc >= 0) {
				file_close(rc);
				return rc;
			}
			if (errno != EAGAIN)
				return -errno;
		} else if (proc_is_dead()) {
			const struct timespec nap = {.tv_nsec = 200000000};

			if (sock_is_nonblocking(f))
				return -EAGAIN;
			/* for programs that try again whatever the error: not as fast as they can */
			return libc.ppoll(NULL, 0, &nap, NULL) < 0 ? -errno : -ENETDOWN;
		}
		if (sock_is_nonblocking(f))
			return -EAGAIN;
		if (!deadline)
			deadline = deadline_after(f->rcvtimeo_ns);
		if (proc_is_dead()) { /* the kernel's half goes on alone */
			struct pollfd p = {.fd = fd, .events = POLLIN};
			uint64_t now = clock_now_ns();
			int ms = deadline == WAIT_FOREVER ? -1
			         : deadline > now         ? (int)((deadline - now) / 1000000) + 1
			                                  : 0;

			rc = libc.poll(&p, 1, ms);
			if (rc < 0)
				return -errno;
			if (!rc)
				return -EAGAIN;
			continue;
		}
		rc = wait_for(f, EPOLLIN, deadline, mode == MODE_DUAL ? fd : -1);
		if (rc)
			return rc;
	}
}
