/* endpoint.h - levels, locks and rings of one endpoint, as both sides see them. Inline; nothing blocks. */
#pragma once
#include "arena.h"

#include <sys/epoll.h>

static inline int32_t ep_opt(const struct endpoint *ep, enum ep_opt slot)
{
	return atomic_load_explicit(&ep->opts.v[slot], memory_order_relaxed);
}

static inline bool ep_opt_flag(const struct endpoint *ep, enum ep_flag bit)
{
	return atomic_load_explicit(&ep->opts.flag, memory_order_relaxed) >> bit & 1;
}

/* Copies options; either may be shared memory. */
static inline void ep_opts_copy(struct ep_opts *to, const struct ep_opts *from)
{
	atomic_store_explicit(
	        &to->flag, atomic_load_explicit(&from->flag, memory_order_relaxed), memory_order_relaxed);
	atomic_store_explicit(&to->rcvtimeo_ns,
	        atomic_load_explicit(&from->rcvtimeo_ns, memory_order_relaxed), memory_order_relaxed);
	atomic_store_explicit(&to->sndtimeo_ns,
	        atomic_load_explicit(&from->sndtimeo_ns, memory_order_relaxed), memory_order_relaxed);
	for (int i = 0; i < EPO_COUNT; i++)
		atomic_store_explicit(&to->v[i], atomic_load_explicit(&from->v[i], memory_order_relaxed),
		        memory_order_relaxed);
}

static inline bool ep_rx_ready(const struct endpoint *ep)
{
	return atomic_load_explicit(&ep->rx_head, memory_order_acquire) !=
	       atomic_load_explicit(&ep->rx_tail, memory_order_relaxed);
}

static inline uint32_t ep_rx_pending(const struct endpoint *ep);

/* Readable as poll(2) means it: SO_RCVLOWAT bytes, or so much that no more can come (tcp_epollin_ready). */
static inline bool ep_rx_enough(const struct endpoint *ep)
{
	uint32_t lowat = (uint32_t)ep_opt(ep, EPO_RCVLOWAT), have;

	if (!ep_rx_ready(ep) || lowat <= 1)
		return ep_rx_ready(ep);
	have = ep_rx_pending(ep);
	return have >= lowat || have + 8192 >= (uint32_t)ep_opt(ep, EPO_RCVBUF) / 2 ||
	       atomic_load_explicit(&ep->rx_head, memory_order_relaxed) -
	                       atomic_load_explicit(&ep->rx_tail, memory_order_relaxed) >=
	               RX_RING_SIZE;
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

/* Puts a block under the send ring at the block that pos lies in; the first one brings the map for all. With
 * tx_lock. */
static inline void ep_tx_block_set(const struct arena *a, struct endpoint *ep, uint32_t pos, uint32_t block)
{
	if (atomic_load_explicit(&ep->tx_map, memory_order_relaxed) == BLOCK_NONE)
		atomic_store_explicit(&ep->tx_map, block, memory_order_relaxed);
	atomic_store_explicit(
	        &arena_tx_map(a, atomic_load_explicit(&ep->tx_map,
	                                 memory_order_relaxed))[pos / TX_BLOCK_SIZE % TX_BLOCK_COUNT],
	        block, memory_order_relaxed);
}

/* The block under pos. With tx_lock. */
static inline uint32_t ep_tx_block(const struct arena *a, const struct endpoint *ep, uint32_t pos)
{
	return atomic_load_explicit(
	        &arena_tx_map(a, atomic_load_explicit(&ep->tx_map,
	                                 memory_order_relaxed))[pos / TX_BLOCK_SIZE % TX_BLOCK_COUNT],
	        memory_order_relaxed);
}

/* SO_SNDBUF, but never so much that both ends of the ring could lie in the same slot of its block table. */
static inline uint32_t ep_tx_limit(const struct endpoint *ep)
{
	uint32_t limit = atomic_load_explicit(&ep->tx_limit, memory_order_relaxed);
	uint32_t most = (TX_BLOCK_COUNT - 1) * TX_BLOCK_SIZE;

	return limit < most ? limit : most;
}

/* Room in the send ring. Once a writer has found it full (tx_want), a few bytes that were acknowledged are
 * none yet: the kernel gives memory back by whole buffers, so that its socket stays full while a peer that
 * does not read takes some last bytes. No more than a quarter, as a third makes the level (ep_tx_ready). */
static inline uint32_t ep_tx_room(const struct endpoint *ep)
{
	uint32_t limit = ep_tx_limit(ep), used = ep_tx_used(ep), room = used < limit ? limit - used : 0;
	uint32_t least = limit / 4 < TX_ROOM_LEAST ? limit / 4 : TX_ROOM_LEAST;

	return room < least && atomic_load_explicit(&ep->tx_want, memory_order_relaxed) ? 0 : room;
}

/* Bytes in the send ring that were never sent. */
static inline uint32_t ep_tx_notsent(const struct endpoint *ep)
{
	return atomic_load_explicit(&ep->tx_head, memory_order_relaxed) -
	       atomic_load_explicit(&ep->tx_sent, memory_order_acquire);
}

/* The kernel calls a stream socket writable while at least a third of its buffer is free
 * (sk_stream_is_writeable). */
static inline bool ep_tx_ready(const struct endpoint *ep)
{
	uint32_t limit = ep_tx_limit(ep), lowat = (uint32_t)ep_opt(ep, EPO_NOTSENT_LOWAT);

	/* TCP_NOTSENT_LOWAT: __sk_stream_memory_free with its `wake` */
	if (lowat && (uint64_t)ep_tx_notsent(ep) * 2 >= lowat)
		return false;
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

/* Present events of an endpoint, as poll(2) and epoll(7) define them (tcp_poll and datagram_poll in the
 * kernel are the oracle). */
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
	if (state == EP_DGRAM) {
		if (ep_rx_ready(ep))
			ev |= EPOLLIN | EPOLLRDNORM;
		if (app & APP_SHUT_RD)
			ev |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
		if ((app & APP_SHUT_RD) && (app & APP_SHUT_WR))
			ev |= EPOLLHUP;
		if (ep_tx_used(ep) < ep_tx_limit(ep) / 2) /* datagram_poll, sock_writeable */
			ev |= EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
		return ev;
	}
	if (state == EP_BOUND)
		return ev | EPOLLOUT | EPOLLWRNORM | EPOLLHUP;
	if (ev && state != EP_CLOSED) /* an error is told a moment before the state that it leads to: nobody
	                                 sees it without */
		return ev | EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLHUP | EPOLLOUT | EPOLLWRNORM;
	if (state == EP_CONNECTING)
		return ev;
	if (ep_rx_enough(ep))
		ev |= EPOLLIN | EPOLLRDNORM;
	if ((flags & EP_RX_EOF) || (app & APP_SHUT_RD))
		ev |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	/* A connection may be over while its last data waits behind a full ring. To be told of a hang-up
	 * then, and to read less than was asked for, is the end to an event loop (libuv). */
	if ((state == EP_CLOSED && (flags & (EP_OPENED | EP_RX_EOF)) != EP_OPENED) ||
	        (((flags & EP_RX_EOF) || (app & APP_SHUT_RD)) && (app & APP_SHUT_WR)))
		ev |= EPOLLHUP;
	if (state == EP_CLOSED || (app & APP_SHUT_WR) || (flags & EP_TX_CLOSED) || ep_tx_ready(ep))
		ev |= EPOLLOUT | EPOLLWRNORM;
	return ev;
}
