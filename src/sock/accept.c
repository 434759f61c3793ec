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

/* One thread of this process takes at a time, as the hold is the process's. */
static _Atomic uint32_t take_lock;

void accept_fork_child(void)
{
	atomic_store(&take_lock, 0); /* its holder, if there was one, is a thread of the parent's */
}

/* Takes one connection from the rings, this process's turn first at a stack that differs from call to call.
 */
static uint32_t accept_take(uint32_t listener)
{
	const struct endpoint *lep = handle_ep(listener);
	struct attach *at = handle_at(listener);
	const struct arena *a = &at->arena;
	static _Atomic uint32_t turn;
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
			/* Held before it is taken: a death in between is told by the ring. The hold is given
			 * back through the stack, which looks whether anybody else holds the endpoint. */
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

static bool listener_ready(uint32_t ep)
{
	return !handle_is_dead(ep) && accept_ready(&handle_at(ep)->arena, handle_ep(ep));
}

/* The listener at a service: the file's own, or a further one. */
static uint32_t listener_at(const struct file *f, const struct service *s)
{
	uint32_t ep = atomic_load(&f->ep);

	return handle_service(ep) == s ? ep : file_ep(f, 1 + (uint32_t)(s - services));
}

static bool any_ready(const struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++)
		if (listener_ready(file_ep(f, i)))
			return true;
	return false;
}

/* Takes one connection, or ENDPOINT_NONE. Each service is the first to be asked in turn. All are asked, as
 * others may have taken what was at the first, and who is told of edges will not hear of the rest again. */
static uint32_t take_any(const struct file *f)
{
	static _Atomic uint32_t turn;
	uint32_t start, count = service_count();

	if (likely(file_ep_count(f) == 1))
		return accept_take(atomic_load(&f->ep));
	start = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t ep = listener_at(f, &services[(start + i) % count]);
		uint32_t taken = listener_ready(ep) ? accept_take(ep) : ENDPOINT_NONE;

		if (taken != ENDPOINT_NONE)
			return taken;
	}
	return ENDPOINT_NONE;
}

static int accept_pronk(struct file *f, struct sockaddr *addr, socklen_t *len, int flags)
{
	uint32_t idx;
	struct endpoint *ep;
	struct file *nf;
	int fd, rc;

	if (!any_ready(f))
		return -EAGAIN;
	fd = libc.fcntl(proc.base_fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (unlikely(fd < 0) && spare_drop())
		fd = libc.fcntl(proc.base_fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd < 0)
		return errno == EINVAL ? -EMFILE : -errno;
	idx = take_any(f);
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
