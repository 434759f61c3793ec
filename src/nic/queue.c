/* queue.c - the hot path of a port: receive, hand-off between stacks, transmit.
 *
 * Every function runs on the queue's own thread except nic_buf_free, nic_buf_room, nic_buf_levels and
 * nic_stats. No lock, no log, no allocation besides packet buffers, no system call beyond what the driver
 * does.
 *
 * Hand-off. A frame whose owner is another stack goes into that stack's ring (many producers, one consumer),
 * and the owner is woken once per nic_rx call, after all its frames are in. Transmit of a stack without a
 * hardware queue goes the same way: into the tx_shared ring of the stack that owns the hardware queue, which
 * is woken and sends it during its next nic_rx or nic_tx_flush. A lock around the port's transmit would let
 * one preempted stack stop the others; with the ring nobody ever waits for anybody.
 *
 * m->hash.usr carries nic_frame.flags through a ring.
 */
#include <rte_cycles.h>
#include <rte_prefetch.h>

#include "capture.h"
#include "clock.h"
#include "nic_int.h"

void (*nic_around_descriptors)(bool begins);

enum {
	LINK_LOOKS = 10, /* a second */
	LINK_LOOKS_DOWN = 50,
	LINK_PATIENCE = 25, /* looks without a link before the port is started anew */
};

_Static_assert(NIC_HEADROOM == RTE_PKTMBUF_HEADROOM, "NIC_HEADROOM is DPDK's headroom");
_Static_assert(NIC_STACK_MAX <= 32, "wake masks are 32 bits");

static struct rte_mbuf *mbuf_of(const struct nic_buf *buf)
{
	return (struct rte_mbuf *)(uintptr_t)buf;
}

static void frame_fill(struct nic_frame *frame, struct rte_mbuf *m)
{
	frame->buf = (struct nic_buf *)m;
	frame->data = rte_pktmbuf_mtod(m, uint8_t *);
	frame->priv = rte_mbuf_to_priv(m);
	frame->size = m->data_len;
	frame->flags = (uint16_t)(m->hash.usr | (m->nb_segs > 1 ? NIC_FRAME_CHAIN : 0));
}

/* Puts one frame into the ring of stack; m is consumed. */
static void handoff(struct nic_queue *q, uint32_t stack, struct rte_mbuf *m, uint32_t *woken)
{
	if (likely(rte_ring_enqueue(q->nic->queues[stack].handoff, m) == 0)) {
		q->stats.rx_handoff++;
		*woken |= 1u << stack;
	} else {
		q->stats.drop_handoff_full++;
		rte_pktmbuf_free(m);
	}
}

/* Copies a frame that concerns every stack to the others. */
static void handoff_copies(struct nic_queue *q, const struct rte_mbuf *m, uint32_t *woken)
{
	for (uint32_t stack = 0; stack < q->stack_count; stack++) {
		struct rte_mbuf *copy;

		if (stack == q->stack_idx)
			continue;
		copy = rte_pktmbuf_copy(m, q->pool, 0, UINT32_MAX);
		if (copy == NULL) {
			q->stats.drop_handoff_full++;
			continue;
		}
		copy->hash.usr = m->hash.usr;
		handoff(q, stack, copy, woken);
	}
}

static void wake_all(struct nic *nic, uint32_t woken)
{
	while (woken != 0) {
		uint32_t stack = (uint32_t)__builtin_ctz(woken);

		woken &= woken - 1;
		nic->wake(nic->wake_arg, stack);
	}
}

/* The stack a checked frame belongs to. */
static uint32_t frame_owner(const struct nic_queue *q, const struct frame_info *info)
{
	const struct rss *rss = &q->nic->rss;
	uint32_t addrs_size = 2u * info->addr_size;
	uint32_t hash = rss_feed(rss, 0, 0, info->addrs, addrs_size);

	if (info->ports != NULL)
		hash = rss_feed(rss, hash, addrs_size, info->ports, 4);
	return rss_stack(rss, hash);
}

static void count_bad(struct nic_queue *q, const struct frame_info *info)
{
	q->stats.drop_rx_cksum++;
	if (info->ports == NULL)
		q->stats.bad_cksum_ip++;
	else if (info->l4_proto == IPPROTO_TCP)
		q->stats.bad_cksum_tcp++;
	else
		q->stats.bad_cksum_udp++;
}

/* Decides about one frame from the port: true if this stack takes it, otherwise m is consumed. */
static bool frame_accept(struct nic_queue *q, struct rte_mbuf *m, uint32_t *woken)
{
	struct frame_info info;

	m->hash.usr = 0;
	if (unlikely(m->nb_segs > 1)) {
		if (q->frame_big == 0 || m->nb_segs > NIC_CHAIN_MAX) {
			q->stats.drop_rx_short++;
			goto drop;
		}
		cksum_rx_chain(m, &info);
	} else {
		cksum_rx(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len,
		        m->ol_flags | (q->frame_big && q->nic->accept_partial ? CKSUM_PARTIAL_FIRST : 0),
		        &info);
	}
	switch (info.result) {
	case CKSUM_OK:
		break;
	case CKSUM_UNCHECKED:
		m->hash.usr = NIC_FRAME_L4_UNCHECKED;
		break;
	case CKSUM_PARTIAL:
		cksum_tell_partial(q->nic);
		if (!q->nic->accept_partial) {
			count_bad(q, &info);
			goto drop;
		}
		q->stats.rx_partial_cksum++;
		break;
	case CKSUM_SHORT:
		if (m->data_len >= RTE_ETHER_MIN_LEN)
			cksum_tell_cut(q->nic);
		q->stats.drop_rx_short++;
		goto drop;
	case CKSUM_BAD:
		count_bad(q, &info);
		goto drop;
	}
	if (q->stack_count == 1)
		return true;
	if (info.has_owner && (!q->nic->rss_hw || info.fragment)) {
		uint32_t owner = frame_owner(q, &info);

		if (owner != q->stack_idx) {
			handoff(q, owner, m, woken);
			return false;
		}
	} else if (info.arp_like) {
		handoff_copies(q, m, woken);
	}
	return true;
drop:
	rte_pktmbuf_free(m);
	return false;
}

/* Gives frames to the port. Returns how many it took; they are counted as sent here only when own: another
 * stack's frames were counted by that stack. */
static uint32_t port_send(struct nic_queue *q, struct rte_mbuf **m, uint32_t count, bool own)
{
	uint32_t sent = 0;
	uint64_t bytes = 0;

	if (unlikely(!q->up))
		return 0;
	while (sent < count) {
		/* the frames are the port's once it has taken them: add up before */
		uint32_t burst = RTE_MIN(count - sent, (uint32_t)NIC_BURST), took;
		uint64_t sizes[NIC_BURST];

		for (uint32_t i = 0; i < burst; i++)
			sizes[i] = m[sent + i]->pkt_len;
		memif_enter(q);
		took = rte_eth_tx_burst(q->port, q->hw, m + sent, (uint16_t)burst);
		memif_leave(q);
		for (uint32_t i = 0; i < took; i++)
			bytes += sizes[i];
		sent += took;
		if (took < burst)
			break;
	}
	if (own) {
		q->stats.tx_packets += sent;
		q->stats.tx_bytes += bytes;
	}
	return sent;
}

/* Leaves this stack's frames to the stack that owns the hardware queue. */
static void tx_leave(struct nic_queue *q, uint32_t count)
{
	uint64_t bytes = 0;
	uint32_t put;

	for (uint32_t i = 0; i < count; i++)
		bytes += q->tx[i]->pkt_len;
	put = rte_ring_enqueue_burst(q->tx_via, (void **)q->tx, count, NULL);
	if (unlikely(put < count)) {
		for (uint32_t i = put; i < count; i++)
			bytes -= q->tx[i]->pkt_len;
		q->stats.drop_tx_full += count - put;
		rte_pktmbuf_free_bulk(q->tx + put, count - put);
	}
	q->stats.tx_packets += put;
	q->stats.tx_bytes += bytes;
	q->nic->wake(q->nic->wake_arg, q->tx_via_stack);
}

/* Sends what stacks without a hardware queue left for us. */
static void tx_shared_drain(struct nic_queue *q)
{
	struct rte_mbuf *m[NIC_BURST];
	uint32_t count;

	/* no more than the port takes: what stays in the ring waits, and a full ring tells its stack to drop
	 */
	while ((count = rte_ring_sc_dequeue_burst(q->tx_shared, (void **)m, NIC_BURST, NULL)) != 0) {
		uint32_t sent = 0;

		for (int tries = 0; sent < count && tries < NIC_TX_TRIES; tries++)
			sent += port_send(q, m + sent, count - sent, false);
		if (likely(sent == count))
			continue;
		q->stats.drop_tx_full += count - sent;
		rte_pktmbuf_free_bulk(m + sent, count - sent);
		break;
	}
}

/* memif: a client's port can only be started once the peer is there, and must be started again after the peer
 * went away or refused (it does while it starts itself). Done by the one thread that calls the port, so that
 * no call is under way meanwhile. Looks ten times a second, and more often while nobody is there. */
static void link_poll(struct nic_queue *q)
{
	uint64_t now = rte_rdtsc();
	struct rte_eth_link link = {.link_status = RTE_ETH_LINK_DOWN};
	bool is_up;

	if (likely(now < q->link_next_tsc))
		return;
	is_up = q->up && rte_eth_link_get_nowait(q->port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
	q->link_next_tsc = now + rte_get_tsc_hz() / (is_up ? LINK_LOOKS : LINK_LOOKS_DOWN);
	if (nic_around_descriptors)
		nic_around_descriptors(true);
	memif_wait_link(q, is_up);
	if (is_up || !q->link_started) {
		q->link_patience = 0;
		goto out;
	}
	if (q->up && q->link_patience++ >= LINK_PATIENCE) {
		q->up = false;
		rte_eth_dev_stop(q->port);
	}
	if (!q->up) {
		q->link_patience = 0;
		atomic_store_explicit(&q->nic->link_tag,
		        device_link_tag(&q->nic->device, q->nic->device.memif_id), memory_order_relaxed);
		q->up = rte_eth_dev_start(q->port) == 0;
	}
out:
	if (nic_around_descriptors)
		nic_around_descriptors(false);
}

uint64_t nic_link_tag(const struct nic_queue *q)
{
	return q->frame_big ? atomic_load_explicit(&q->nic->link_tag, memory_order_relaxed) : 0;
}

/* How many frames may be taken of a port whose driver forgets the buffers of a frame for which it finds too
 * few: what is not taken waits in the peer's ring. */
static uint32_t rx_room(struct nic_queue *q, uint32_t want)
{
	uint32_t free_count, total;

	if (likely(q->room_left != 0)) {
		q->room_left--;
		return want;
	}
	nic_buf_levels(q, &free_count, &total);
	/* the other half is for what is sent meanwhile */
	q->room_left = RTE_MIN(free_count / 2 / ((NIC_BURST + 1) * NIC_CHAIN_MAX), 64u);
	return likely(free_count >= (want + 1) * NIC_CHAIN_MAX) ? want : free_count / NIC_CHAIN_MAX;
}

static void frames_time(const struct nic_queue *q, struct rte_mbuf **m, uint32_t count)
{
	uint64_t now_ns = clock_now_ns();

	for (uint32_t i = 0; i < count; i++)
		*RTE_MBUF_DYNFIELD(m[i], q->nic->time_off, uint64_t *) = now_ns;
}

void nic_time(struct nic_queue *q, bool on)
{
	q->timed_ns = on && q->nic->time_off >= 0 ? clock_now_ns() : 0;
}

uint64_t nic_frame_ns(const struct nic_queue *q, const struct nic_frame *frame)
{
	const struct rte_mbuf *m = mbuf_of(frame->buf);
	uint64_t ns;

	if (!q->timed_ns || (frame->flags & NIC_FRAME_LOCAL))
		return 0;
	ns = *RTE_MBUF_DYNFIELD(m, q->nic->time_off, const uint64_t *);
	/* what its buffer was used for before is older */
	return ns >= q->timed_ns ? ns : 0;
}

uint32_t nic_rx(struct nic_queue *q, struct nic_frame *frames, uint32_t max)
{
	struct rte_mbuf *m[NIC_BURST];
	uint32_t woken = 0, filled = 0, count, want;

	q->stats.rx_polls++;
	if (unlikely(q->cache == NULL))
		q->cache = rte_mempool_default_cache(q->pool, rte_lcore_id());
	if (q->handoff != NULL) {
		/* the port keeps a share, so that a busy neighbour cannot starve this stack's own frames */
		want = q->has_hw && max > 4 ? max - max / 4 : max;
		while (filled < want) {
			count = rte_ring_sc_dequeue_burst(
			        q->handoff, (void **)m, RTE_MIN(want - filled, (uint32_t)NIC_BURST), NULL);
			if (count == 0)
				break;
			for (uint32_t i = 0; i < count; i++) {
				rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
				frame_fill(&frames[filled], m[i]);
				q->stats.rx_bytes += frames[filled++].size;
			}
		}
		q->stats.rx_handoff_in += filled;
		q->stats.rx_packets += filled;
	}
	if (!q->has_hw)
		goto out;
	if (unlikely(q->link_polled))
		link_poll(q);
	if (q->tx_shared != NULL && !rte_ring_empty(q->tx_shared))
		tx_shared_drain(q);
	while (filled < max && likely(q->up)) {
		want = RTE_MIN(max - filled, (uint32_t)NIC_BURST);
		if (q->frame_big)
			want = rx_room(q, want);
		memif_enter(q);
		count = rte_eth_rx_burst(q->port, q->hw, m, (uint16_t)want);
		memif_leave(q);
		if (unlikely(capture_is_on(q)) && count != 0)
			capture_burst(q, m, count, CAPTURE_IN);
		if (unlikely(q->timed_ns != 0))
			frames_time(q, m, count);
		if (unlikely(q->inject != NULL))
			count = inject_rx(q, m, count, want);
		for (uint32_t i = 0; i < count; i++)
			rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
		for (uint32_t i = 0; i < count; i++) {
			if (!frame_accept(q, m[i], &woken))
				continue;
			frame_fill(&frames[filled], m[i]);
			q->stats.rx_packets++;
			q->stats.rx_bytes += frames[filled++].size;
		}
		if (count < want)
			break;
	}
out:
	if (woken != 0)
		wake_all(q->nic, woken);
	if (filled == 0)
		q->stats.rx_empty_polls++;
	else if (unlikely(filled == max))
		q->stats.rx_full_polls++;
	return filled;
}

void nic_buf_free(struct nic_buf *buf)
{
	rte_pktmbuf_free(mbuf_of(buf));
}

uint32_t nic_buf_room(const struct nic_buf *buf, const uint8_t *data)
{
	const struct rte_mbuf *m = mbuf_of(buf);

	return (uint32_t)((const uint8_t *)m->buf_addr + m->buf_len - data);
}

uint32_t nic_buf_front(const struct nic_buf *buf, const uint8_t *data)
{
	return (uint32_t)(data - (const uint8_t *)mbuf_of(buf)->buf_addr);
}

void *nic_buf_priv(struct nic_buf *buf)
{
	return rte_mbuf_to_priv(mbuf_of(buf));
}

struct nic_buf *nic_buf_alloc(struct nic_queue *q, uint8_t **data, void **priv)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(q->pool);

	if (unlikely(m == NULL)) {
		q->stats.drop_tx_nobuf++;
		return NULL;
	}
	*data = rte_pktmbuf_mtod(m, uint8_t *);
	if (priv != NULL)
		*priv = rte_mbuf_to_priv(m);
	return (struct nic_buf *)m;
}

static void tx_put(struct nic_queue *q, struct rte_mbuf *m)
{
	if (unlikely(q->inject != NULL) && !inject_tx(q, m))
		return;
	if (unlikely(q->tx_count == NIC_TX_BACKLOG)) {
		q->stats.drop_tx_full++;
		rte_pktmbuf_free(m);
		return;
	}
	q->tx[q->tx_count++] = m;
	if (q->tx_count % NIC_BURST == 0)
		nic_tx_flush(q);
}

void nic_tx_near(struct nic_queue *q, struct nic_buf *buf, uint8_t *data, uint32_t size)
{
	struct rte_mbuf *m = mbuf_of(buf);
	uint32_t total = m->nb_segs > 1 ? size + m->pkt_len : size;

	if (unlikely(total > RTE_MAX(q->frame_big, q->frame_max) || size < RTE_ETHER_HDR_LEN ||
	             size > nic_buf_room(buf, data))) {
		q->stats.drop_tx_full++;
		rte_pktmbuf_free(m);
		return;
	}
	m->data_off = (uint16_t)(data - (uint8_t *)m->buf_addr);
	m->data_len = (uint16_t)size;
	m->pkt_len = total;
	m->ol_flags = 0;
	m->tx_offload = 0;
	cksum_tx_near(data, size);
	tx_put(q, m);
}

void nic_tx(struct nic_queue *q, struct nic_buf *buf, uint8_t *data, uint32_t size)
{
	struct rte_mbuf *m = mbuf_of(buf);

	if (unlikely(size > q->frame_max || size < RTE_ETHER_HDR_LEN || size > nic_buf_room(buf, data))) {
		q->stats.drop_tx_full++;
		rte_pktmbuf_free(m);
		return;
	}
	m->data_off = (uint16_t)(data - (uint8_t *)m->buf_addr);
	m->data_len = (uint16_t)size;
	m->pkt_len = size;
	m->ol_flags = 0;
	m->tx_offload = 0;
	cksum_tx(q, m, data, size);
	tx_put(q, m);
}

void nic_local(struct nic_queue *q, uint32_t stack_idx, struct nic_buf *buf, uint8_t *data, uint32_t size)
{
	struct rte_mbuf *m = mbuf_of(buf);

	m->data_off = (uint16_t)(data - (uint8_t *)m->buf_addr);
	m->data_len = (uint16_t)size;
	m->pkt_len = size;
	m->ol_flags = 0;
	m->hash.usr = NIC_FRAME_LOCAL;
	handoff(q, stack_idx, m, &q->local_woken);
}

uint32_t nic_tx_flush(struct nic_queue *q)
{
	uint32_t count, sent;

	if (unlikely(q->local_woken)) {
		wake_all(q->nic, q->local_woken);
		q->local_woken = 0;
	}
	if (unlikely(q->inject != NULL))
		inject_tx_due(q);
	count = q->tx_count;
	if (unlikely(capture_is_on(q)) && count > q->tx_left && (q->up || !q->has_hw))
		capture_burst(q, q->tx + q->tx_left, count - q->tx_left, CAPTURE_OUT);
	if (count != 0 && q->has_hw && likely(q->up)) {
		/* a full port gets the rest later: frames that wait a moment cost less than their loss */
		sent = port_send(q, q->tx, count, true);
		q->tx_count = count - sent;
		if (unlikely(sent != 0 && sent < count))
			memmove(q->tx, q->tx + sent, (count - sent) * sizeof(q->tx[0]));
	} else if (count != 0 && q->has_hw) {
		q->stats.drop_tx_full += count;
		rte_pktmbuf_free_bulk(q->tx, count);
		q->tx_count = 0;
	} else if (count != 0) {
		tx_leave(q, count);
		q->tx_count = 0;
	}
	if (q->tx_shared != NULL && !rte_ring_empty(q->tx_shared))
		tx_shared_drain(q);
	q->tx_left = q->tx_count;
	return q->tx_count;
}

uint32_t nic_tx_room(const struct nic_queue *q)
{
	uint32_t room = NIC_TX_BACKLOG;

	if (!q->has_hw && q->tx_via != NULL)
		room = RTE_MIN(room, rte_ring_free_count(q->tx_via));
	return room > q->tx_count ? room - q->tx_count : 0;
}

uint64_t nic_addr(const struct nic_queue *q, const void *p)
{
	const struct nic *nic = q->nic;
	uintptr_t at = (uintptr_t)p;

	for (uint32_t i = 0; i < nic->region_count; i++) {
		uintptr_t offset = at - nic->region_map[i].base;

		if (likely(offset < nic->region_map[i].size))
			return (uint64_t)i << 48 | offset;
	}
	return UINT64_MAX;
}

void nic_buf_levels(struct nic_queue *q, uint32_t *free_count, uint32_t *total_count)
{
	uint32_t count = rte_mempool_get_ops(q->pool->ops_index)->get_count(q->pool);

	/* not rte_mempool_avail_count: it looks at the cache of every thread there could be, 128 lines that
	 * fall into the same few sets of the processor's cache */
	for (uint32_t i = 0; i < q->stack_count; i++) {
		const struct rte_mempool_cache *cache = q->nic->queues[i].cache;

		count += cache != NULL ? cache->len : 0;
	}
	*free_count = RTE_MIN(count, q->pool->size);
	*total_count = q->pool->size;
}

const struct nic_queue_stats *nic_stats(const struct nic_queue *q)
{
	return &q->stats;
}
