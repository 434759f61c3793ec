/* endpoint.h - levels, locks and rings of one endpoint, as both sides see them. Inline; nothing blocks. */
#pragma once
#include "arena.h"

#include <sys/epoll.h>

static inline bool ep_rx_ready(const struct endpoint *ep)
{
	return atomic_load_explicit(&ep->rx_head, memory_order_acquire) !=
	       atomic_load_explicit(&ep->rx_tail, memory_order_relaxed);
}

/* Bytes a reader could take now. */
static inline uint32_t ep_rx_pending(const struct endpoint *ep)
{
	return atomic_load_explicit(&ep->rx_bytes, memory_order_acquire) -
	       atomic_load_explicit(&ep->rx_read, memory_order_relaxed);
}

/* Bytes in the send ring, acknowledged or not yet. */
static inline uint32_t ep_tx_used(const struct endpoint *ep)
{
	return atomic_load_explicit(&ep->tx_head, memory_order_relaxed) -
	       atomic_load_explicit(&ep->tx_tail, memory_order_acquire);
}

/* SO_SNDBUF, but never so much that both ends of the ring could lie in the same slot of its block table. */
static inline uint32_t ep_tx_limit(const struct endpoint *ep)
{
	uint32_t limit = atomic_load_explicit(&ep->tx_limit, memory_order_relaxed);
	uint32_t most = (TX_BLOCK_COUNT - 1) * TX_BLOCK_SIZE;

	return limit < most ? limit : most;
}

/* The kernel calls a stream socket writable while at least a third of its buffer is free
 * (sk_stream_is_writeable). */
static inline bool ep_tx_ready(const struct endpoint *ep)
{
	uint32_t limit = ep_tx_limit(ep);

	return ep_tx_used(ep) < limit - limit / 3;
}

static inline bool accept_ready(const struct arena *a, const struct endpoint *ep)
{
	const struct listener *l;

	if (ep->listener >= a->listener_count)
		return false;
	l = arena_listener(a, ep->listener);
	for (uint32_t i = 0; i < a->stack_count; i++)
		if (atomic_load_explicit(&l->ring[i].head, memory_order_acquire) !=
		        atomic_load_explicit(&l->ring[i].tail, memory_order_acquire))
			return true;
	return false;
}

/* Present events of an endpoint, as poll(2) and epoll(7) define them for TCP (tcp_poll in the kernel is the
 * oracle). */
static inline uint32_t ep_level(const struct arena *a, const struct endpoint *ep)
{
	uint32_t state = atomic_load_explicit(&ep->state, memory_order_acquire);
	uint32_t flags, app, ev = 0;

	if (state == EP_LISTEN)
		return accept_ready(a, ep) ? EPOLLIN | EPOLLRDNORM : 0;
	flags = atomic_load_explicit(&ep->flags, memory_order_acquire);
	app = atomic_load_explicit(&ep->app_flags, memory_order_relaxed);
	if (atomic_load_explicit(&ep->error, memory_order_relaxed))
		ev |= EPOLLERR;
	if (state == EP_BOUND)
		return ev | EPOLLOUT | EPOLLWRNORM | EPOLLHUP;
	if (state == EP_CONNECTING)
		return ev;
	if (ep_rx_ready(ep))
		ev |= EPOLLIN | EPOLLRDNORM;
	if ((flags & EP_RX_EOF) || (app & APP_SHUT_RD))
		ev |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (state == EP_CLOSED || (((flags & EP_RX_EOF) || (app & APP_SHUT_RD)) && (app & APP_SHUT_WR)))
		ev |= EPOLLHUP;
	if (state == EP_CLOSED || (app & APP_SHUT_WR) || (flags & EP_TX_CLOSED) || ep_tx_ready(ep))
		ev |= EPOLLOUT | EPOLLWRNORM;
	return ev;
}
