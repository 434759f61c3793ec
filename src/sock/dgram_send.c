/* dgram_send.c - datagrams on their way out: every send call on a datagram socket ends in dgram_send.
 *
 * Runs in application threads. A datagram is sent by one record in the endpoint's send ring (struct
 * dgram_head, then the payload), published whole. What belongs to the kernel half goes there by the real
 * calls, never blocking: we wait for both sides together. Receiving is in dgram_recv.c. doc/threads.md,
 * "Datagrams".
 */
#include "dgram_int.h"
#include "clock.h"
#include "endpoint.h"
#include "latency.h"
#include "libc.h"
#include "local.h"
#include "proc.h"
#include "route.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/single_threaded.h>

enum {
	SIZE_MOST = 65507, /* what an IPv4 datagram can carry */
	SIZE_NEVER = 1 << 30,
	HEADERS = 28,
	GATHERED_WAIT_NS = 20000000,
};

/* A datagram on its way out. */
struct outgoing {
	struct dgram_head head;
	const struct iovec *iov;
	int count;
	size_t size;
	bool is_gathered; /* out of a cork: what can go wrong was told with its first piece */
};

/* The size of a datagram to be sent, as far as it can matter; -EFAULT where there is nothing to take it from.
 */
static int iov_sum(const struct iovec *iov, size_t count, size_t *sum)
{
	*sum = 0;
	for (size_t i = 0; i < count; i++) {
		*sum += iov[i].iov_len < SIZE_NEVER - *sum ? iov[i].iov_len : SIZE_NEVER - *sum;
		if (unlikely(iov[i].iov_len && user_is_wild(iov[i].iov_base)))
			return -EFAULT;
	}
	return 0;
}

/* Puts granted blocks under the ring from head to head + size. All or none. With tx_lock. */
static bool blocks_ready(struct attach *at, struct endpoint *ep, uint32_t head, uint32_t size)
{
	_Atomic uint32_t *lock = &at->grant_lock[ep->stack_idx];
	uint32_t first = (uint32_t)-head % TX_BLOCK_SIZE; /* bytes left of the block under head */
	uint32_t count = size > first ? (size - first + TX_BLOCK_SIZE - 1) / TX_BLOCK_SIZE : 0;
	bool is_enough;

	if (!count)
		return true;
	spin_lock(lock);
	is_enough = grant_has(at, ep->stack_idx, count);
	for (uint32_t i = 0; is_enough && i < count; i++) {
		ep_tx_block_set(
		        &at->arena, ep, head + first + i * TX_BLOCK_SIZE, grant_peek(at, ep->stack_idx));
		grant_take(at, ep->stack_idx);
	}
	spin_unlock(lock);
	return is_enough;
}

static uint32_t ring_write(
        const struct arena *a, struct endpoint *ep, uint32_t at, const void *from, size_t size)
{
	const uint8_t *p = from;

	while (size) {
		uint32_t block = ep_tx_block(a, ep, at);
		uint32_t off = at % TX_BLOCK_SIZE;
		size_t n = TX_BLOCK_SIZE - off < size ? TX_BLOCK_SIZE - off : size;

		memcpy(arena_block(a, block) + off, p, n);
		p += n;
		at += (uint32_t)n;
		size -= n;
	}
	return at;
}

/* Writes one record. 0, or -EAGAIN when there is no room; is_starved: for want of blocks. With tx_lock. */
static int record_put(struct attach *at, struct endpoint *ep, const struct outgoing *o, bool *is_starved)
{
	uint32_t head = atomic_load_explicit(&ep->tx_head, memory_order_relaxed), end;
	uint32_t used = head - atomic_load_explicit(&ep->tx_tail, memory_order_acquire);
	uint32_t need = (uint32_t)sizeof(o->head) + DGRAM_ALIGN((uint32_t)o->size);

	/* below the limit one datagram of any size goes in, as in sock_alloc_send_skb */
	if (used >= ep_tx_limit(ep) || used + need > (TX_BLOCK_COUNT - 1) * TX_BLOCK_SIZE)
		return -EAGAIN;
	if (!blocks_ready(at, ep, head, need)) {
		*is_starved = true;
		return -EAGAIN;
	}
	end = ring_write(&at->arena, ep, head, &o->head, sizeof(o->head));
	for (int i = 0; i < o->count; i++)
		end = ring_write(&at->arena, ep, end, o->iov[i].iov_base, o->iov[i].iov_len);
	atomic_store_explicit(&ep->tx_head, head + need, memory_order_release);
	if (latency_is_on(&at->arena))
		latency_written(&at->arena, ep, head + need);
	return 0;
}

/* What a send fails with before it asks for room: sock_alloc_send_pskb. */
static int send_error(struct endpoint *ep)
{
	int rc = error_take(ep);

	if (rc)
		return rc;
	return atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_WR ? -EPIPE : 0;
}

/* Sends one datagram, waiting for room unless told not to. */
static ssize_t pronk_send(struct file *f, struct outgoing *o, bool is_dont, bool is_batch)
{
	uint64_t deadline = o->is_gathered ? clock_now_ns() + GATHERED_WAIT_NS : 0;
	bool is_driven = false;
	int waits = 0;

	o->head.size = (uint32_t)o->size;
	for (;;) {
		uint32_t handle;
		int rc = dgram_way(f, &o->head.from, &o->head.to, &handle);
		struct attach *at = handle_at(handle);
		struct endpoint *ep = handle_ep(handle);
		bool is_starved = false;

		if (unlikely(rc))
			return rc;
		if (unlikely(ep == &service_no_ep)) { /* another thread has dissolved the association */
			rc = dgram_open_half(f, f->fd, &o->head.to);
			if (rc || !sock_is_ours(f))
				return rc ? rc : -EINVAL;
			continue;
		}
		if (unlikely(attach_is_dead(at)))
			return -ENETDOWN;
		rc = o->is_gathered ? 0 : send_error(ep);
		if (rc)
			return rc;
		rc = ep_lock(at, &ep->tx_lock);
		if (rc == -ECONNRESET)
			continue;
		if (rc)
			return rc;
		/* dissolved meanwhile: the ring may be somebody else's */
		if (unlikely(!half_has(f, handle))) {
			ep_unlock(&ep->tx_lock);
			continue;
		}
		rc = record_put(at, ep, o, &is_starved);
		if (rc) /* announce before the doorbell: the stack answers with an event */
			atomic_store(&ep->tx_want, 1);
		ep_unlock(&ep->tx_lock);
		if (rc || !is_batch)
			post_doorbell(at, ep, DOORBELL_TX);
		if (!rc) {
			if (!is_batch)
				attach_push(at, o->size);
			return (ssize_t)o->size;
		}
		if (is_dont) {
			static _Atomic uint32_t misses;

			if (!is_driven && (is_driven = true) && attach_drive(at))
				continue;
			/* the kernel always takes one for a socket that has nothing under way: a child that
			 * was forked a moment ago has not been granted blocks yet */
			if (is_starved && !ep_tx_used(ep) && waits++ < 4 && grant_await(at, ep))
				continue;
			if (atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed) % 256 == 255)
				attach_check_dead(at);
			return -EAGAIN;
		}
		if (!deadline)
			deadline = deadline_after(f->dg->sndtimeo_ns);
		if (is_starved || (ep_level(&at->arena, ep) & EPOLLOUT)) {
			/* the level cannot tell when enough blocks are granted */
			rc = wait_nap(f, 50000);
			if (rc)
				return rc;
			if (clock_now_ns() >= deadline)
				return -EAGAIN;
			attach_check_dead(at);
			continue;
		}
		rc = wait_for(f, EPOLLOUT, deadline, -1);
		if (rc)
			return rc;
	}
}

static ssize_t kernel_send(struct file *f, int fd, const struct msghdr *msg, int flags)
{
	bool is_dont = (flags & MSG_DONTWAIT) || sock_is_nonblocking(f);
	uint64_t deadline = 0;
	ssize_t n;
	int rc = f->dg->has_kernel ? 0 : dgram_kernel_half(f, fd);

	if (rc)
		return rc;
	for (;;) {
		n = wait_sendmsg(f, fd, msg, flags | MSG_DONTWAIT);
		if (n != -EAGAIN || is_dont)
			return n;
		if (!deadline)
			deadline = deadline_after(f->dg->sndtimeo_ns);
		rc = wait_kernel(f, fd, POLLOUT, deadline);
		if (rc)
			return rc;
		if (!file_has(f, fd))
			return -EBADF;
	}
}

/* The destination named in a message, whatever its port. 1 when none is named. */
static int name_of(const struct file *f, const struct msghdr *msg, struct sock_addr *to)
{
	const struct sockaddr *addr = msg->msg_name;
	socklen_t len = msg->msg_namelen;
	struct sockaddr_in in;
	int rc;

	if (!addr || !len)
		return 1;
	if ((int)len < 0)
		return -EINVAL;
	if (len > sizeof(struct sockaddr_storage)) /* sendto(2) has refused that, sendmsg(2) does not */
		len = sizeof(struct sockaddr_storage);
	if (len >= sizeof(sa_family_t) && user_is_bad(addr))
		return -EFAULT;
	if (len >= sizeof(in) && f->domain == AF_INET && addr->sa_family == AF_UNSPEC) {
		memcpy(&in, addr, sizeof(in));
		in.sin_family = AF_INET; /* udp_sendmsg takes it for that */
		return addr_from_user(to, (struct sockaddr *)&in, sizeof(in));
	}
	if (len >= sizeof(sa_family_t) && f->domain == AF_INET6 && addr->sa_family == AF_UNSPEC)
		return 1;
	rc = addr_from_user(to, addr, len);
	if (f->domain == AF_INET && len >= sizeof(in) && addr->sa_family != AF_INET)
		return -EAFNOSUPPORT;
	return rc == -EAFNOSUPPORT ? -EINVAL : rc;
}

/* A socket that is not ours yet sends its first datagram: SIDE_*, or -E. named: of name_of. */
static int side_first(struct file *f, int fd, int named, const struct sock_addr *to)
{
	int rc;

	if (named || !to->port || f->dg->is_kernels || dgram_rule_applies(f, fd, to) || !dgram_attach(to) ||
	        !dgram_is_pronk(f, to))
		return SIDE_KERNEL; /* also for the kernel's own words */
	rc = dgram_open_half(f, fd, to);
	if (rc)
		return proc_is_strict() ? rc : SIDE_KERNEL;
	return sock_is_ours(f) ? SIDE_PRONK : SIDE_KERNEL;
}

/* What udp_sendmsg, and udpv6_sendmsg in front of it, find wrong before they look whether a datagram grows.
 */
static int args_check(const struct file *f, int named, const struct outgoing *o, int flags, bool is_begun)
{
	if (unlikely(f->domain == AF_INET6)) {
		if (named < 0)
			return named;
		if (named && !is_begun && !dgram_is_connected(f))
			return -EDESTADDRREQ;
		if (!named && o->head.to.family == AF_INET6 && !is_begun)
			return 0; /* the kernel's */
	}
	if (unlikely(o->size > 0xffff))
		return -EMSGSIZE;
	return unlikely(flags & MSG_OOB) ? -EOPNOTSUPP : 0;
}

/* Where a message of a socket of ours goes: SIDE_*, or -E. */
static int side_of(struct file *f, int named, struct sock_addr *to)
{
	if (named < 0)
		return named;
	if (!named) {
		if (!to->port)
			return -EINVAL;
		return !proc_is_dead() && dgram_is_pronk(f, to) ? SIDE_PRONK : SIDE_KERNEL;
	}
	if (f->dg->kernel_peer)
		return SIDE_KERNEL;
	*to = ep_of(f)->remote;
	/* connected to port 0: nobody ever gets it; udpv6_sendmsg hands the port on like one that was named
	 */
	if (unlikely(to->family && !to->port && f->domain == AF_INET6))
		return -EINVAL;
	return to->family ? SIDE_PRONK : -EDESTADDRREQ;
}

/* Nobody is called so: the kernel takes it for this host. */
static void any_is_here(struct sock_addr *to)
{
	static const uint8_t here[4] = {127, 0, 0, 1};

	if (route_is_any(to))
		memcpy(to->ip, here, 4);
}

/* Of several services one may be named by its interface, which then is the address of its port. What is bound
 * to the address of one cannot send with another's. */
static int from_decide(const struct file *f, const struct service *by, struct dgram_head *h)
{
	if (half_is_one(f))
		return h->from.family && !route_is_loopback(&h->from) &&
		                       route_owner(&h->from) != handle_service(atomic_load(&f->ep))
		               ? -EINVAL
		               : 0;
	if (!by || h->from.family || route_is_loopback(&h->to) || route_is_own(&h->to))
		return 0;
	route_own(by, h->from.ip);
	h->from.family = route_is_any(&h->from) ? 0 : AF_INET;
	return 0;
}

/* What the kernel checks before it takes a datagram, and the rest of the head. */
static int outgoing_check(struct file *f, const struct msghdr *msg, struct outgoing *o)
{
	const struct dgram *d = f->dg;
	struct dgram_head *h = &o->head;
	bool is_group = route_is_multicast(&h->to);
	struct cmsg_out c = {0};
	int rc = cmsg_parse(f, msg, &c);

	if (rc)
		return rc;
	any_is_here(&h->to);
	if (route_is_broadcast(&h->to) && !d->broadcast)
		return -EACCES;
	/* as the kernel's routes say of such a source */
	if (d->is_local && !c.from.family && !route_is_loopback(&h->to) && !route_is_own(&h->to))
		return -EINVAL;
	h->from = c.from;
	if (unlikely(service_count() > 1) && (rc = from_decide(f, c.by, h)))
		return rc;
	h->tos = (uint8_t)(c.tos >= 0 ? c.tos : f->dg->tos);
	h->ttl = (uint8_t)(c.ttl >= 0 ? c.ttl : is_group ? d->mcast_ttl : f->dg->ttl);
	h->flags = (d->mcast_loop ? DGRAM_MULTICAST_LOOP : 0) | (d->no_check ? DGRAM_NO_CHECKSUM : 0);
	return 0;
}

/* What one datagram to this address can carry: __ip_append_data. */
static size_t size_most(const struct file *f, const struct sock_addr *to)
{
	int how = f->dg->mtu_discover;

	if (how == IP_PMTUDISC_DO || how == IP_PMTUDISC_PROBE || how == IP_PMTUDISC_INTERFACE)
		return dgram_mtu(f, to) - HEADERS;
	return SIZE_MOST;
}

/* inside the host nothing is sent that could not be cut */
static void fragment_decide(const struct file *f, struct outgoing *o)
{
	int how = f->dg->mtu_discover;

	if (o->size + HEADERS <= route_mtu(dgram_service(f, &o->head.to)) &&
	        (how == IP_PMTUDISC_DO || how == IP_PMTUDISC_PROBE || how == IP_PMTUDISC_WANT))
		o->head.flags |= DGRAM_DONT_FRAGMENT;
}

uint32_t dgram_corked(struct file *f)
{
	const struct dgram *d = f->dg;

	return atomic_load(&d->cork_side) == SIDE_PRONK ? (uint32_t)sizeof(*d->cork_head) + d->cork_size : 0;
}

void dgram_cork_follow(struct file *f, const struct sock_addr *to)
{
	struct dgram *d = f->dg;

	spin_lock(&d->cork_lock);
	if (atomic_load(&d->cork_side) == SIDE_PRONK && to->family == AF_INET) {
		/* __ip4_datagram_connect finds its route in the cork's flow */
		d->cork_head->to = *to;
		d->cork_head->from.family = 0;
		any_is_here(&d->cork_head->to);
	}
	spin_unlock(&d->cork_lock);
}

/* The first piece of a datagram finds what a send finds: memory, and with it the error that waits. */
static int cork_may_begin(struct file *f, bool is_dont)
{
	for (;;) {
		struct endpoint *ep = ep_of(f);
		int rc = send_error(ep);

		if (rc || sock_is_dead(f) || ep == &service_no_ep || ep_tx_used(ep) < ep_tx_limit(ep))
			return rc;
		if (is_dont)
			return -EAGAIN;
		rc = wait_for(f, EPOLLOUT, deadline_after(f->dg->sndtimeo_ns), -1);
		if (rc)
			return rc;
	}
}

/* Adds to the datagram that grows, or begins one. What cannot be added takes the rest with it:
 * udp_flush_pending_frames. With cork_lock. */
static int cork_add(struct file *f, const struct outgoing *o)
{
	struct dgram *d = f->dg;
	bool is_begun = atomic_load(&d->cork_side) == SIDE_PRONK;

	if (!d->cork_data)
		d->cork_data = malloc(SIZE_MOST);
	if (!d->cork_head)
		d->cork_head = malloc(sizeof(*d->cork_head));
	if (!is_begun) {
		if (d->cork_head)
			*d->cork_head = o->head;
		d->cork_size = 0;
	}
	atomic_store(&d->cork_side, SIDE_NONE);
	if (!d->cork_data || !d->cork_head)
		return -ENOBUFS;
	/* nothing to add is never too much */
	if (o->size && d->cork_size + o->size > size_most(f, &d->cork_head->to))
		return -EMSGSIZE;
	for (int i = 0; i < o->count; i++) {
		if (o->iov[i].iov_len)
			memcpy(d->cork_data + d->cork_size, o->iov[i].iov_base, o->iov[i].iov_len);
		d->cork_size += (uint32_t)o->iov[i].iov_len;
	}
	atomic_store(&d->cork_side, SIDE_PRONK);
	return 0;
}

/* Takes what was gathered and sends it. With cork_lock, which it gives back. */
static ssize_t cork_send(struct file *f, uint16_t flags, bool is_batch)
{
	struct dgram *d = f->dg;
	struct iovec iov = {d->cork_data, d->cork_size};
	struct outgoing o = {
	        .head = *d->cork_head, .iov = &iov, .count = 1, .size = d->cork_size, .is_gathered = true};
	ssize_t rc;

	d->cork_data = NULL;
	d->cork_size = 0;
	atomic_store(&d->cork_side, SIDE_NONE);
	spin_unlock(&d->cork_lock);
	o.head.flags |= flags;
	if (unlikely(d->kernel_peer && !dgram_is_pronk(f, &o.head.to))) { /* by connect(2) in between */
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

		rc = kernel_send(f, f->fd, &msg, MSG_DONTWAIT);
	} else {
		fragment_decide(f, &o);
		rc = pronk_send(f, &o, false, is_batch);
	}
	free(iov.iov_base);
	return rc;
}

void dgram_uncork(struct file *f, int fd)
{
	struct dgram *d = f->dg;
	bool is_ours;

	spin_lock(&d->cork_lock);
	if (atomic_load(&d->cork_side) != SIDE_PRONK) {
		atomic_store(&d->cork_side, SIDE_NONE);
		spin_unlock(&d->cork_lock);
		return;
	}
	/* no send, so nothing gives a port to a socket that has let its own go: the datagram leaves without
	 */
	is_ours = sock_is_ours(f);
	cork_send(f, is_ours && !d->is_parked ? 0 : DGRAM_NO_PORT, false);
	if (!is_ours)
		dgram_let_go(f, fd);
}

/* A piece of a datagram that grows, maybe the last one. */
static ssize_t cork_piece(
        struct file *f, const struct outgoing *o, bool is_begun, bool is_more, bool is_dont, bool is_batch)
{
	struct dgram *d = f->dg;
	int rc = is_begun ? 0 : cork_may_begin(f, is_dont);
	ssize_t n;

	if (rc)
		return rc;
	spin_lock(&d->cork_lock);
	rc = cork_add(f, o);
	if (!rc && !is_more) {
		n = cork_send(f, 0, is_batch);
		return n < 0 ? n : (ssize_t)o->size;
	}
	spin_unlock(&d->cork_lock);
	return rc ? rc : (ssize_t)o->size;
}

/* By the kernel half. Whether a datagram grows there is not to be asked: it follows from what the call says.
 * is_kept: a refusal leaves it alone (args_check), any other ends it. */
static ssize_t kernel_side(struct file *f, int fd, const struct msghdr *msg, int flags, bool is_nowhere,
        bool is_more, bool is_begun, bool is_kept)
{
	ssize_t n = SOCK_LIBC;

	if (sock_is_ours(f))
		n = kernel_send(f, fd, msg, flags);
	else if (is_nowhere)
		n = dgram_send_nowhere(f, fd, msg, flags);
	if (likely(!is_more && !is_begun))
		return n;
	if (n == SOCK_LIBC)
		n = wait_sendmsg(f, fd, msg, flags);
	if (n >= 0)
		atomic_store(&f->dg->cork_side, is_more ? SIDE_KERNEL : SIDE_NONE);
	else if (!is_kept)
		atomic_store(&f->dg->cork_side, SIDE_NONE);
	return n;
}

/* Whether a message of a socket of ours that would leave through Pronk names a source that it cannot have
 * there, and the kernel half may try. */
static bool is_from_kernel(const struct file *f, const struct msghdr *msg)
{
	const struct dgram *d = f->dg;

	return (d->has_kernel || !d->is_specific) && cmsg_is_kernels(f, msg);
}

/* Its destination may be one that only Pronk's half knows. */
static ssize_t kernel_source(
        struct file *f, int fd, const struct msghdr *msg, int flags, const struct sock_addr *to, bool is_more)
{
	struct sockaddr_storage name;
	struct msghdr m = *msg;

	m.msg_name = &name;
	m.msg_namelen = sizeof(name);
	addr_to_user(to, f->domain, m.msg_name, &m.msg_namelen);
	return kernel_side(f, fd, &m, flags, false, is_more, false, false);
}

ssize_t dgram_send(struct file *f, int fd, const struct msghdr *msg, int flags, bool is_batch)
{
	struct dgram *d = f->dg;
	struct outgoing o = {0};
	bool is_more = (flags & MSG_MORE) || d->cork, is_dont;
	int side = atomic_load_explicit(&d->cork_side, memory_order_relaxed), rc, named;
	bool is_begun = side != SIDE_NONE;

	if (atomic_load_explicit(&f->mode, memory_order_acquire) == MODE_KERNEL)
		return SOCK_LIBC;
	if (unlikely(user_is_bad(msg)))
		return sock_is_ours(f) ? -EFAULT : SOCK_LIBC;
	rc = dgram_iov_check(msg->msg_iov, msg->msg_iovlen);
	if (likely(!rc))
		rc = iov_sum(msg->msg_iov, msg->msg_iovlen, &o.size);
	if (unlikely(rc))
		return sock_is_ours(f) ? rc : SOCK_LIBC;
	if (unlikely(msg->msg_controllen && user_is_bad(msg->msg_control)))
		return sock_is_ours(f) ? -EFAULT : SOCK_LIBC;
	named = name_of(f, msg, &o.head.to);
	if (unlikely(d->is_parked))
		dgram_unpark(f, fd);
	if (!sock_is_ours(f)) {
		if (!is_begun)
			side = side_first(f, fd, named, &o.head.to);
		else if (side == SIDE_PRONK)
			side = (rc = dgram_open_half(f, fd, &d->cork_head->to)) ? rc : SIDE_PRONK;
		if (side < 0)
			return side;
	}
	rc = args_check(f, named, &o, flags, is_begun);
	if (sock_is_ours(f)) {
		if (unlikely(rc))
			return rc;
		if (!is_begun)
			side = side_of(f, named, &o.head.to);
		if (side < 0)
			return side;
	}
	if (side == SIDE_KERNEL)
		return kernel_side(f, fd, msg, flags, !is_begun && (named || !o.head.to.port), is_more,
		        is_begun, rc != 0);
	if (unlikely(msg->msg_controllen) && !is_begun && is_from_kernel(f, msg))
		return kernel_source(f, fd, msg, flags, &o.head.to, is_more);
	o.iov = msg->msg_iov;
	o.count = (int)msg->msg_iovlen;
	is_dont = (flags & MSG_DONTWAIT) || sock_is_nonblocking(f);
	if (!is_begun) {
		rc = outgoing_check(f, msg, &o);
		if (rc)
			return rc;
	}
	if (!is_begun && o.size > size_most(f, &o.head.to))
		return -EMSGSIZE;
	rc = is_begun ? 0 : dgram_kernel_error_take(f, fd);
	if (unlikely(rc))
		return rc;
	if (unlikely(is_more || is_begun))
		return cork_piece(f, &o, is_begun, is_more, is_dont, is_batch);
	fragment_decide(f, &o);
	return pronk_send(f, &o, is_dont, is_batch);
}

void dgram_flush(struct file *f)
{
	if (sock_is_ours(f))
		for (uint32_t i = 0; i < file_ep_count(f); i++) {
			uint32_t handle = file_ep(f, i);

			if (handle_ep(handle) != &service_no_ep && !handle_is_dead(handle) &&
			        (!i || ep_tx_used(handle_ep(handle))))
				post_doorbell(handle_at(handle), handle_ep(handle), DOORBELL_TX);
		}
	attach_push(proc.near, SIZE_MAX);
}

/* --- receiving --- */
