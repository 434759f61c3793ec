/* accept.c - taking connections from a listener's rings, and making descriptors of them.
 *
 * Runs in application threads; several processes may take from one listener. A wildcard listener has a kernel
 * half, which is asked when the rings are empty. Protocol: doc/threads.md, "Accept".
 */
#include "sock.h"
#include "clock.h"
#include "endpoint.h"
#include "libc.h"
#include "local.h"
#include "opt.h"
#include "proc.h"
#include "raw.h"
#include "spare.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>

/* Takes one connection from the rings, this process's turn first at a stack that differs from call to call.
 */
static uint32_t accept_take(uint32_t listener)
{
	const struct endpoint *lep = handle_ep(listener);
	struct attach *at = handle_at(listener);
	const struct arena *a = &at->arena;
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
				hold_set(a, at->client_idx, ep);
				if (atomic_compare_exchange_strong(&r->tail, &tail, tail + 1))
					taken = ep;
				else
					post(at, a->endpoints[ep].stack_idx, POST_ENTRY(POST_RELEASE, 0, ep));
			}
			spin_unlock(&take_lock);
			if (taken != ENDPOINT_NONE)
				return handle_make(handle_service(listener), taken);
			tail = atomic_load(&r->tail);
		}
	}
	return ENDPOINT_NONE;
}

/* The listener that has a connection for us, or ENDPOINT_NONE. At several services each is the first to be
 * asked in turn. */
static uint32_t listener_ready(const struct file *f)
{
	static _Atomic uint32_t turn;
	uint32_t count = file_ep_count(f);
	uint32_t start = likely(count == 1) ? 0 : atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t ep = file_ep(f, (start + i) % count);

		if (!handle_is_dead(ep) && accept_ready(&handle_at(ep)->arena, handle_ep(ep)))
			return ep;
	}
	return ENDPOINT_NONE;
}

static int accept_pronk(struct file *f, struct sockaddr *addr, socklen_t *len, int flags)
{
	uint32_t idx, listener = listener_ready(f);
	struct endpoint *ep;
	struct file *nf;
	int fd, rc;

	if (listener == ENDPOINT_NONE)
		return -EAGAIN;
	fd = libc.fcntl(proc.base_fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (unlikely(fd < 0) && spare_drop())
		fd = libc.fcntl(proc.base_fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd < 0)
		return errno == EINVAL ? -EMFILE : -errno;
	idx = accept_take(listener);
	if (idx == ENDPOINT_NONE) {
		libc.close(fd);
		return -EAGAIN;
	}
	ep = handle_ep(idx);
	file_close(fd);
	nf = file_open(fd, FILE_SOCKET);
	if (!nf) {
		sock_ep_release(idx, RELEASE_ABORT);
		libc.close(fd);
		return -ENOMEM;
	}
	nf->domain = f->domain;
	nf->type = f->type;
	nf->has_connected = true;

	atomic_store(&nf->connect_reported, true);
	atomic_store(&nf->ep, idx);
	sock_set_nonblocking(nf, (flags & SOCK_NONBLOCK) != 0);
	atomic_store_explicit(&ep->creator, handle_at(idx)->client_idx, memory_order_relaxed);
	atomic_store_explicit(&ep->app_fd, fd, memory_order_relaxed);
	atomic_store(&nf->mode, MODE_PRONK);
	rc = addr ? addr_to_user(&ep->remote, nf->domain, addr, len) : 0;
	if (rc) { /* nobody has its number: gone, as in the kernel */
		file_close(fd);
		libc.close(fd);
		return rc;
	}
	return fd;
}

int sock_accept(struct file *f, int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	uint8_t mode = atomic_load(&f->mode);
	uint64_t deadline = 0;
	bool is_settled = false, has_kernel = mode == MODE_DUAL;
	int rc;

	if ((mode != MODE_PRONK && mode != MODE_DUAL) || f->type == SOCK_DGRAM)
		return SOCK_LIBC;
	if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
		return -EINVAL;
	for (;;) {
		if (mode == MODE_PRONK && !sock_is_dead(f) &&
		        atomic_load(&handle_ep(atomic_load(&f->ep))->state) != EP_LISTEN)
			return -EINVAL;
		rc = accept_pronk(f, addr, len, flags);
		if (rc != -EAGAIN)
			return rc;
		if (has_kernel) {
			rc = (int)RAW(
			        SYS_accept4, fd, addr, len, flags); /* never waits: no cancellation point */
			if (rc >= 0) {
				file_close(rc);
				return rc;
			}
			if (rc == -EMFILE && spare_drop())
				continue;
			if (rc != -EAGAIN)
				return rc;
		} else if (sock_is_dead(f)) {
			if (sock_is_nonblocking(f))
				return -EAGAIN;
			/* for programs that try again whatever the error: not as fast as they can */
			rc = wait_nap(f, 200000000);
			return rc ? rc : -ENETDOWN;
		}
		if (sock_is_nonblocking(f)) {
			if (!is_settled && (is_settled = true) && local_settle(NULL))
				continue;
			if (attach_drive_seldom(proc.near))
				continue;
			return -EAGAIN;
		}
		if (!deadline)
			deadline = deadline_after(opt_rcvtimeo(f));
		if (has_kernel && sock_is_dead(f)) { /* the kernel's half goes on alone */
			rc = wait_kernel(f, fd, POLLIN, deadline);
			if (rc)
				return rc;
			continue;
		}
		rc = wait_for(f, EPOLLIN | EPOLLEXCLUSIVE, deadline, mode == MODE_DUAL ? fd : -1);
		if (rc)
			return rc;
		/* one that was closed meanwhile leaves this call with Pronk's half */
		has_kernel = has_kernel && file_has(f, fd);
	}
}
