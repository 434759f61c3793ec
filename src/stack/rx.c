/* rx.c - received data on its way to the application, by reference.
 *
 * Runs in the stack's thread. A received segment stays in its packet buffer: its place and size go into the
 * endpoint's ring; the reader moves rx_tail; here the buffers behind rx_tail are freed and the window is
 * opened. What finds the ring full waits in a private list, where small pieces are gathered into the room
 * behind the last one, so that a peer sending single bytes cannot hold a buffer each. Protocol:
 * doc/threads.md, "Receive".
 */
#include "stack_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rx_buf.h"
#include "udp.h"

enum { GATHER_MAX = 1024, WINDOW_SMALL = 2 * TCP_WND_UPDATE_THRESHOLD };

/* A copy of p in a buffer of our own, for payload that does not lie in packet memory. Frees p. */
static struct pbuf *copy_to_buf(struct stack *s, struct pbuf *p)
{
	struct pbuf *q = rx_buf_new(s->queue, p->len);

	if (q)
		memcpy(q->payload, p->payload, p->len);
	pbuf_free(p);
	return q;
}

static void pend_add(struct conn *c, struct pbuf *p)
{
	struct pbuf *last = c->pend_last;

	if (last && p->len <= GATHER_MAX && rx_buf_room(last) >= p->len) {
		memcpy((uint8_t *)last->payload + last->len, p->payload, p->len);
		last->len = last->tot_len = (u16_t)(last->len + p->len);
		pbuf_free(p);
		return;
	}
	p->next = NULL;
	if (last)
		last->next = p;
	else
		c->pend_first = p;
	c->pend_last = p;
}

/* Each ring in use has a packet buffer in it, and there is a ring for each of those: one is always free. */
bool rx_ring_take(struct stack *s, struct conn *c)
{
	uint32_t i;

	if (unlikely(!s->ring_free_count))
		return false;
	i = s->ring_free[--s->ring_free_count];
	c->rx_bufs = s->rx_bufs + (size_t)i * RX_RING_SIZE;
	/* readers look at rx_head first */
	atomic_store_explicit(&stack_ep(s, c->ep)->rx_ring, s->ring_first + i, memory_order_relaxed);
	return true;
}

void rx_ring_give(struct stack *s, struct conn *c)
{
	if (!c->rx_bufs || c->rx_freed != c->rx_head)
		return;
	s->ring_free[s->ring_free_count++] = (uint32_t)((c->rx_bufs - s->rx_bufs) / RX_RING_SIZE);
	c->rx_bufs = NULL;
}

/* A timer looks after what has been read without a word. */
static void reclaim_arm(const struct stack *s, struct conn *c)
{
	if (c->reclaim_armed)
		return;
	c->reclaim_armed = 1;
	c->reclaim_wait = RECLAIM_MS;
	c->reclaim_due = s->now_ms + RECLAIM_MS;
}

/* Moves waiting pieces into the ring. */
static void publish(struct stack *s, struct conn *c)
{
	struct endpoint *ep = stack_ep(s, c->ep);
	struct rx_desc *ring;
	uint32_t head = c->rx_head;

	if (!c->pend_first || head - c->rx_freed >= RX_RING_SIZE)
		return;
	if (!c->rx_bufs && unlikely(!rx_ring_take(s, c))) {
		reclaim_arm(s, c);
		return;
	}
	ring = rx_ring_of(s, c);
	while (c->pend_first && head - c->rx_freed < RX_RING_SIZE) {
		struct pbuf *p = c->pend_first;
		struct rx_desc *d = &ring[head % RX_RING_SIZE];

		c->pend_first = p->next;
		p->next = NULL;
		d->addr = nic_addr(s->queue, p->payload);
		d->size = p->len;
		c->rx_bufs[head % RX_RING_SIZE] = p;
		c->rx_bytes += p->len;
		head++;
	}
	if (!c->pend_first)
		c->pend_last = NULL;
	c->rx_head = head;
	if (unlikely(s->frame_ns != 0))
		latency_published(s->arena, ep, c->rx_bytes, s->frame_ns);
	atomic_store_explicit(&ep->rx_bytes, c->rx_bytes, memory_order_release);
	atomic_store_explicit(&ep->rx_head, head, memory_order_release);
	gen_step(&ep->rx_gen);
	if (!c->pend_first && (!c->pcb || c->pcb->state == CLOSE_WAIT || c->pcb->state == CLOSING ||
	                              c->pcb->state == LAST_ACK || c->pcb->state == TIME_WAIT))
		atomic_fetch_or(&ep->flags, EP_RX_EOF | (c->fin_seen ? EP_FIN_SEEN : 0));
	/* an end concerns every watch, data only those that ask for it: an edge for the others would be one
	 * too many */
	notify(s, c->ep,
	        EPOLLIN | (atomic_load_explicit(&ep->flags, memory_order_relaxed) & EP_RX_EOF
	                                  ? EPOLLRDHUP | EPOLLHUP
	                                  : 0u));
	reclaim_arm(s, c);
}

int rx_add(struct stack *s, struct conn *c, struct pbuf *p)
{
	bool is_broken = false;

	while (p) {
		struct pbuf *next = p->next;

		/* lwIP hands chains over with one reference each: cut them, every piece lives on its own */
		if (next) {
			pbuf_ref(next);
			pbuf_dechain(p);
		}
		if (p->len && nic_addr(s->queue, p->payload) == UINT64_MAX)
			p = copy_to_buf(s, p);
		if (!p) {
			/* lwIP has acknowledged these bytes: without them the stream is broken */
			is_broken = true;
		} else if (p->len) {
			pend_add(c, p);
		} else {
			pbuf_free(p);
		}
		p = next;
	}
	publish(s, c);
	return is_broken ? -ENOBUFS : 0;
}

/* lwIP tells the peer of a wider window when it grew by four segments; one that never holds so much is told
 * of when half of it, or a segment, is free (RFC 1122 4.2.3.3). */
static void small_window_tell(const struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	uint32_t more = pcb->rcv_nxt + pcb->rcv_wnd - pcb->rcv_ann_right_edge;

	if ((int32_t)more <= 0 || more < LWIP_MIN(c->rcv_limit / 2, (uint32_t)pcb->mss))
		return;
	pcb->rcv_ann_wnd = pcb->rcv_wnd;
	tcp_ack_now(pcb);
}

/* Hands n bytes back to the window, less what a smaller SO_RCVBUF still owes. */
static void window_open(struct conn *c, uint32_t n)
{
	uint32_t keep = LWIP_MIN(n, c->rcv_debt);

	c->rcv_debt -= keep;
	for (n -= keep; n;) {
		u16_t part = (u16_t)LWIP_MIN(n, 0xffff);

		tcp_recved(c->pcb, part);
		n -= part;
	}
	if (c->rcv_limit < WINDOW_SMALL)
		small_window_tell(c);
}

void rx_resize(struct stack *s, struct conn *c, uint32_t size)
{
	uint32_t old = c->rcv_limit;

	(void)s;
	c->rcv_limit = size;
	if (size < old) {
		c->rcv_debt +=
		        old - size; /* a window is never taken back (RFC 7323 2.4): it is not opened again */
		return;
	}
	size -= old;
	old = LWIP_MIN(size, c->rcv_debt);
	c->rcv_debt -= old;
	size -= old;
	window_open(c, size);
}

void rx_reclaim_later(const struct stack *s, struct conn *c)
{
	if (c->rx_freed == c->rx_head || c->reclaim_armed)
		return;
	c->reclaim_armed = 1;
	c->reclaim_wait = (uint16_t)LWIP_MIN(c->reclaim_wait * 2u, 1000u);
	c->reclaim_due = s->now_ms + c->reclaim_wait;
}

/* Dynamic right-sizing, as tcp_moderate_rcvbuf of tcp(7) does it: the window is twice what a reader that
 * keeps up takes in a round trip, so that a sender which doubles its own finds room. It grows only, and not
 * while packet memory is short. Two ends of one shared memory have nothing on the way; there a longer window
 * only falls out of the caches. */
static void window_tune(struct stack *s, struct conn *c, const struct endpoint *ep, uint32_t read)
{
	uint64_t passed_ns = s->now_ns - c->tune_ns, rtt_ns = (uint64_t)c->srtt_us * 1000;
	uint32_t free_count, total;
	uint64_t want;

	if (likely(passed_ns < rtt_ns) || c->wire_mss)
		return;
	want = 2 * (uint64_t)(read - c->tune_read) * rtt_ns / (passed_ns + !passed_ns);
	c->tune_ns = s->now_ns;
	c->tune_read = read;
	if (likely(want <= c->rcv_limit) || c->rcv_limit >= s->cfg.receive_buffer_max || !tcp_rcv_is_free(ep))
		return;
	buf_levels(s, &free_count, &total);
	if (free_count < total / 2)
		return;
	rx_resize(s, c, (uint32_t)LWIP_MIN(want, s->cfg.receive_buffer_max));
	COUNT(s, tcp_rx_grown, 1);
}

void rx_reclaim(struct stack *s, struct conn *c)
{
	struct endpoint *ep;
	uint32_t tail, read;

	if (c->ep == ENDPOINT_NONE)
		return;
	if (c->udp) {
		udp_reclaim(s, c);
		return;
	}
	ep = stack_ep(s, c->ep);
	tail = atomic_load_explicit(&ep->rx_tail, memory_order_acquire);
	read = atomic_load_explicit(&ep->rx_read, memory_order_relaxed);
	if (tail - c->rx_freed > c->rx_head - c->rx_freed ||
	        read - c->rx_recved > c->rx_bytes - c->rx_recved) {
		bad_input(s, __func__, __LINE__); /* a client wrote nonsense: believe nothing it says here */
		return;
	}
	while (c->rx_freed != tail) {
		pbuf_free(c->rx_bufs[c->rx_freed % RX_RING_SIZE]);
		c->rx_freed++;
	}
	if (c->pcb) {
		window_open(c, read - c->rx_recved);
		window_tune(s, c, ep, read);
	}
	c->rx_recved = read;
	if (c->pend_first)
		publish(s, c);
	else
		rx_ring_give(s, c);
	rx_reclaim_later(s, c);
}

bool rx_is_unread(struct stack *s, struct conn *c)
{
	struct endpoint *ep = stack_ep(s, c->ep);

	return c->pend_first || c->rx_bytes != atomic_load_explicit(&ep->rx_read, memory_order_acquire);
}

void rx_drop_all(struct stack *s, struct conn *c)
{
	while (c->rx_freed != c->rx_head) {
		pbuf_free(c->rx_bufs[c->rx_freed % RX_RING_SIZE]);
		c->rx_freed++;
	}
	while (c->pend_first) {
		struct pbuf *p = c->pend_first;

		c->pend_first = p->next;
		p->next = NULL;
		pbuf_free(p);
	}
	c->pend_last = NULL;
	rx_ring_give(s, c);
	c->reclaim_armed = 0;
}
