/* dgram_recv.c - datagrams that came: every receive call on a datagram socket ends in dgram_recv.
 *
 * Runs in application threads. A datagram that was received lies in packet memory behind its description;
 * readers take whole ones. The kernel half is asked by the real calls, never blocking: we wait for both sides
 * together. Sending is in dgram_send.c. doc/threads.md, "Datagrams".
 */
#include "dgram_int.h"
#include "clock.h"
#include "latency.h"
#include "libc.h"
#include "local.h"
#include "route.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/single_threaded.h>

enum {
	RX_BELL_PIECES = 16,
	RX_BELL_BYTES = 32768,
	KERNEL_TURN = 16, /* so often the kernel's side is asked although ours has something */
};

int dgram_iov_check(const struct iovec *iov, size_t count)
{
	if (count > IOV_MAX)
		return -EMSGSIZE;
	if (count && user_is_bad(iov))
		return -EFAULT;
	for (size_t i = 0; i < count; i++) {
		if (iov[i].iov_len > SSIZE_MAX)
			return -EINVAL;
		if (unlikely(user_is_beyond(iov[i].iov_base, iov[i].iov_len)))
			return -EFAULT;
	}
	return 0;
}

int dgram_kernel_error_take(const struct file *f, int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (likely(!f->dg->kernel_peer) || libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
		return 0;
	return -err;
}

bool dgram_has_group(const struct file *f, const struct service *s, const struct sock_addr *a)
{
	for (const struct dgram_group *g = f->dg->groups; g; g = g->next)
		if (g->service == s && !memcmp(g->ip, a->ip, 4))
			return true;
	return false;
}

/* Copies the datagram at the ring's tail; -EAGAIN when there is none (any more). With rx_lock. */
static ssize_t take(struct file *f, const struct arena *a, struct endpoint *ep, struct msghdr *msg, int flags,
        struct dgram_meta *meta, uint32_t *bell)
{
	uint32_t head = atomic_load_explicit(&ep->rx_head, memory_order_acquire);
	const struct rx_desc *ring = arena_rx_ring(a, ep);
	uint32_t tail = atomic_load_explicit(&ep->rx_tail, memory_order_relaxed);
	uint32_t pieces, bytes = 0;
	size_t iov_at = 0, iov_off = 0, done = 0, left;
	const uint8_t *src;
	bool is_bad = false;

	if (head == tail)
		return -EAGAIN;
	pieces = ring[tail % RX_RING_SIZE].pieces;
	src = arena_rx_data(a, &ring[tail % RX_RING_SIZE]);
	if (!pieces || pieces > head - tail || !src || ring[tail % RX_RING_SIZE].size < sizeof(*meta))
		return -EAGAIN;
	memcpy(meta, src, sizeof(*meta));
	left = meta->size;
	for (uint32_t i = 0; i < pieces; i++) {
		const struct rx_desc *d = &ring[(tail + i) % RX_RING_SIZE];
		size_t size = d->size;

		bytes += d->size;
		src = arena_rx_data(a, d);
		if (!i) {
			src += sizeof(*meta);
			size -= sizeof(*meta);
		}
		while (src && size && iov_at < msg->msg_iovlen) {
			const struct iovec *v = &msg->msg_iov[iov_at];
			size_t n = v->iov_len - iov_off < size ? v->iov_len - iov_off : size;

			if (!n) {
				iov_at++;
				iov_off = 0;
				continue;
			}
			if (unlikely(user_is_wild((uint8_t *)v->iov_base + iov_off)))
				is_bad = true;
			else
				memcpy((uint8_t *)v->iov_base + iov_off, src, n);
			src += n;
			size -= n;
			iov_off += n;
			done += n;
		}
	}
	msg->msg_flags = (flags & MSG_CMSG_CLOEXEC) | (done < left ? MSG_TRUNC : 0);
	if (!(flags & MSG_PEEK)) {
		f->rx_pieces += pieces;
		f->rx_bytes += bytes;
		atomic_store_explicit(&ep->rx_read,
		        atomic_load_explicit(&ep->rx_read, memory_order_relaxed) + bytes,
		        memory_order_release);
		atomic_store_explicit(&ep->rx_tail, tail + pieces, memory_order_release);
		if (latency_is_on(a))
			latency_read(a, ep, atomic_load_explicit(&ep->rx_read, memory_order_relaxed));
		if (f->rx_pieces >= RX_BELL_PIECES || f->rx_bytes >= RX_BELL_BYTES ||
		        f->rx_bytes >= (uint32_t)f->dg->rcvbuf / 4) {
			f->rx_pieces = f->rx_bytes = 0;
			*bell = DOORBELL_RX;
		}
	}
	if (unlikely(is_bad)) /* it is gone, as the kernel's is */
		return -EFAULT;
	return (ssize_t)(flags & MSG_TRUNC ? left : done);
}

/* What was read is counted for the socket, so each of its stacks is told. */
static void bell_ring(const struct file *f, struct attach *at, struct endpoint *ep, uint32_t bell)
{
	post_doorbell(at, ep, bell);
	for (uint32_t i = 0; unlikely(f->also != NULL) && i < file_ep_count(f); i++) {
		uint32_t handle = file_ep(f, i);

		if (handle != ENDPOINT_NONE && handle_ep(handle) != ep && !handle_is_dead(handle))
			post_doorbell(handle_at(handle), handle_ep(handle), bell);
	}
}

/* One look at Pronk's half. */
static ssize_t pronk_recv(struct file *f, uint32_t handle, struct msghdr *msg, int flags)
{
	struct attach *at = handle_at(handle);
	struct endpoint *ep = handle_ep(handle);
	struct dgram_meta meta;
	uint32_t bell = 0;
	ssize_t n;
	int rc;

	do {
		rc = ep_lock(at, &ep->rx_lock);
		if (rc)
			return rc == -ECONNRESET ? -EAGAIN : rc;
		n = take(f, &at->arena, ep, msg, flags, &meta, &bell);
		ep_unlock(&ep->rx_lock);
		if (bell)
			bell_ring(f, at, ep, bell);
		/* IP_MULTICAST_ALL off: only groups that this socket has joined; the kernel would not have
		 * queued it */
	} while (n >= 0 && unlikely(!f->dg->mcast_all) && route_is_multicast(&meta.to) &&
	         !dgram_has_group(f, handle_service(handle), &meta.to));
	if (n < 0)
		return n;
	if (msg->msg_name) {
		rc = addr_to_user(&meta.from, f->domain, msg->msg_name, &msg->msg_namelen);
		if (rc)
			return rc;
	}
	cmsg_write(f, handle_service(handle), msg, &meta,
	        atomic_load_explicit(&ep->info_drops, memory_order_relaxed));
	atomic_store_explicit(&f->dg->stamp_ns, meta.time_ns, memory_order_relaxed);
	return n;
}

/* The service has gone, or that of its peer: the kernel half goes on alone, if there is one. */
static ssize_t dead_recv(struct file *f, int fd, struct msghdr *msg, int flags)
{
	int rc;

	if (atomic_load(&f->mode) == MODE_DUAL)
		return wait_recvmsg(f, fd, msg, flags | (sock_is_nonblocking(f) ? MSG_DONTWAIT : 0));
	if (!atomic_exchange(&f->death_told, true))
		return -ENETDOWN;
	if ((flags & MSG_DONTWAIT) || sock_is_nonblocking(f))
		return -EAGAIN;
	/* for programs that try again whatever the error: not as fast as they can */
	rc = wait_nap(f, 200000000);
	return rc ? rc : -ENETDOWN;
}

/* A receive on a socket that is the kernel's so far. While it sleeps another thread may make the socket ours,
 * by its first send, and then what comes may come on Pronk's side: the kernel's call would sleep on. So this
 * one looks now and then. SOCK_LIBC: there is nothing to wait for here, or it is ours now. */
static ssize_t open_recv(struct file *f, int fd, struct msghdr *msg, int flags)
{
	uint64_t deadline = 0;

	if (likely(__libc_single_threaded) || !proc_may_serve() || (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) ||
	        sock_is_nonblocking(f) || user_is_bad(msg))
		return SOCK_LIBC;
	while (atomic_load(&f->mode) == MODE_OPEN) {
		ssize_t n = wait_recvmsg(f, fd, msg, flags | MSG_DONTWAIT);
		uint64_t now = clock_now_ns();
		int rc;

		if (n != -EAGAIN)
			return n;
		if (!deadline)
			deadline = deadline_after(f->dg->rcvtimeo_ns);
		if (now >= deadline)
			return -EAGAIN;
		rc = wait_kernel(
		        f, fd, POLLIN, deadline - now < WAIT_LOOK_NS ? deadline : now + WAIT_LOOK_NS);
		if (rc == -EINTR && deadline == WAIT_FOREVER && wait_restarts())
			rc = 0;
		if (rc && rc != -EAGAIN)
			return rc;
		if (!file_has(f, fd))
			return wait_restarts() ? -EBADF : -EINTR; /* closed meanwhile, and a signal tells */
	}
	return SOCK_LIBC;
}

/* The endpoint to look at: one that has something, each service in turn. */
static uint32_t rx_next(struct file *f)
{
	uint32_t count = file_ep_count(f), start;

	if (likely(count == 1))
		return file_ep(f, 0);
	start = atomic_fetch_add_explicit(&f->dg->service_turn, 1, memory_order_relaxed);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t handle = file_ep(f, (start + i) % count);

		if (handle != ENDPOINT_NONE && !handle_is_dead(handle) && ep_rx_ready(handle_ep(handle)))
			return handle;
	}
	return file_ep(f, 0);
}

ssize_t dgram_recv(struct file *f, int fd, struct msghdr *msg, int flags)
{
	bool is_dont = (flags & MSG_DONTWAIT) || sock_is_nonblocking(f);
	uint64_t deadline = 0;
	bool is_settled = false;
	int rc;

	if (!sock_is_ours(f)) {
		ssize_t n = atomic_load(&f->mode) == MODE_OPEN ? open_recv(f, fd, msg, flags) : SOCK_LIBC;

		if (n != SOCK_LIBC || !sock_is_ours(f))
			return n;
	}
	if (unlikely(user_is_bad(msg)))
		return -EFAULT;
	rc = dgram_iov_check(msg->msg_iov, msg->msg_iovlen);
	if (rc)
		return rc;
	if (msg->msg_name && (int)msg->msg_namelen < 0)
		return -EINVAL;
	if (flags & MSG_ERRQUEUE) {
		/* never waits */
		ssize_t n = f->dg->has_kernel ? wait_recvmsg(f, fd, msg, flags | MSG_DONTWAIT) : -1;

		return n >= 0 ? n : -EAGAIN;
	}
	for (;;) {
		uint32_t handle = rx_next(f);
		struct endpoint *ep = handle_ep(handle);
		bool is_dual = dgram_is_dual(f);
		ssize_t n;

		if (unlikely(sock_is_dead(f) || (f->also && dgram_is_cut(f))))
			return dead_recv(f, fd, msg, flags);
		rc = errors_take(f);
		if (!rc && is_dual && ep_rx_ready(ep))
			rc = dgram_kernel_error_take(f, fd);
		if (rc)
			return rc;
		if (is_dual && (!ep_rx_ready(ep) ||
		                       atomic_fetch_add_explicit(&f->dg->turn, 1, memory_order_relaxed) %
		                                       KERNEL_TURN ==
		                               KERNEL_TURN - 1)) {
			/* a number that was closed meanwhile may be another file's by now */
			n = file_has(f, fd) ? wait_recvmsg(f, fd, msg, flags | MSG_DONTWAIT) : -EAGAIN;
			if (n != -EAGAIN)
				return n;
		}
		if (ep_rx_ready(ep)) {
			n = pronk_recv(f, handle, msg, flags);
			if (n != -EAGAIN)
				return n;
			if (ep_rx_ready(ep))
				continue;
		}
		if (is_dont) {
			static _Atomic uint32_t misses;

			if (!is_settled && (is_settled = true) && local_settle(ep))
				continue;
			if (atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed) % 256 == 255 &&
			        sock_check_dead(f))
				continue;
			return -EAGAIN;
		}
		if (atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_RD) {
			msg->msg_flags = flags & MSG_CMSG_CLOEXEC;
			msg->msg_controllen = msg->msg_namelen = 0;
			return 0;
		}
		if (!deadline)
			deadline = deadline_after(f->dg->rcvtimeo_ns);
		rc = wait_for(f, EPOLLIN, deadline, is_dual ? fd : -1);
		if (rc)
			return rc;
	}
}
