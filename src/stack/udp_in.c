/* udp_in.c - received datagrams: from lwIP's IP input to the reader's ring.
 *
 * Runs in the stacks' threads. The stack that received a datagram finds the endpoint, writes struct
 * dgram_meta in front of the payload (over the headers) and queues it, or hands it over to the endpoint's
 * home by a message that lies in the packet buffer itself. At home it is charged to the receive limit, and
 * what came in a turn is published together: always whole, so that a reader never sees a part; what finds the
 * ring full waits in the private list. Most do not go through lwIP at all (udp_input_plain). Protocol:
 * doc/threads.md, "Datagrams".
 */
#include "udp.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/udp.h"
#include "rx_buf.h"

void lwip_udp_input(struct pbuf *p, struct netif *inp);

_Static_assert(DGRAM_FRONT >= sizeof(struct dgram_meta) + sizeof(struct stack_msg) + 8, "");
_Static_assert((int)DGRAM_FRONT <= (int)NIC_HEADROOM, "a fresh buffer has room in front");

enum { ETH_SIZE = 14, FRESH_SIZE = 2048 - sizeof(struct dgram_meta) };

static struct rx_buf *rx_buf_of(struct pbuf *p)
{
	return (struct rx_buf *)(void *)p;
}

/* --- making a datagram out of a packet --- */

/* Frees a datagram: pieces that are linked and do not refer to each other. */
static void dgram_free(struct pbuf *p)
{
	while (p) {
		struct pbuf *next = p->next;

		p->next = NULL;
		pbuf_free(p);
		p = next;
	}
}

static void meta_put(struct pbuf *p, const struct dgram_meta *m)
{
	p->payload = (uint8_t *)p->payload - sizeof(*m);
	p->len = (u16_t)(p->len + sizeof(*m));
	memcpy(p->payload, m, sizeof(*m));
}

/* A copy of payload p (a chain) with m in front, in as few fresh buffers as it takes; NULL without memory. */
static struct pbuf *dgram_copy(struct stack *s, const struct pbuf *p, const struct dgram_meta *m)
{
	struct pbuf *first = NULL, **tail = &first;
	uint32_t off = 0;

	do {
		uint32_t n = LWIP_MIN(m->size - off, (uint32_t)FRESH_SIZE);
		struct pbuf *q = rx_buf_new(s->queue, (uint16_t)(first ? n : n + sizeof(*m)));

		if (!q) {
			dgram_free(first);
			COUNT(s, drop_udp_memory, 1);
			return NULL;
		}
		if (!first) {
			q->payload = (uint8_t *)q->payload + sizeof(*m);
			q->len = (u16_t)n;
		}
		pbuf_copy_partial(p, q->payload, (u16_t)n, (u16_t)off);
		if (!first)
			meta_put(q, m);
		off += n;
		*tail = q;
		tail = &q->next;
	} while (off < m->size);
	return first;
}

/* The datagram made of payload p where it lies; p is taken. NULL without memory. */
static struct pbuf *dgram_make(struct stack *s, struct pbuf *p, const struct dgram_meta *m)
{
	struct pbuf *q, **link;
	bool is_fit = true;
	uint32_t count = 0;

	for (q = p; q; q = q->next) {
		is_fit = is_fit && (q->flags & PBUF_FLAG_IS_CUSTOM) && q->ref == 1;
		count += q == p || q->len;
	}
	if (!is_fit || count > RX_RING_SIZE || rx_buf_front(p) < DGRAM_FRONT) {
		q = dgram_copy(s, p, m);
		pbuf_free(p);
		return q;
	}
	meta_put(p, m);
	for (link = &p->next; (q = *link);) {
		if (q->len) {
			link = &q->next;
			continue;
		}
		*link = q->next;
		q->next = NULL;
		pbuf_free(q);
	}
	return p;
}

/* --- home: the queue --- */

static uint32_t charge_of(uint32_t size)
{
	/* as the kernel: two structures beside the data, which lies in a power of two */
	uint32_t room = 512;

	while (room < size + 384)
		room *= 2;
	return LWIP_MAX(room + 256, (uint32_t)UDP_PIECE_CHARGE);
}

static void publish(struct stack *s, struct conn *c)
{
	struct endpoint *ep = stack_ep(s, c->ep);
	struct rx_desc *ring;
	uint32_t head = c->rx_head;

	if (!c->pend_first)
		return;
	if (!c->rx_bufs && unlikely(!rx_ring_take(s, c)))
		return;
	ring = rx_ring_of(s, c);
	while (c->pend_first) {
		uint32_t count = rx_buf_of(c->pend_first)->pieces;

		if (RX_RING_SIZE - (head - c->rx_freed) < count)
			break;
		for (; count; count--, head++) {
			struct pbuf *p = c->pend_first;
			struct rx_desc *d = &ring[head % RX_RING_SIZE];

			c->pend_first = p->next;
			p->next = NULL;
			d->addr = nic_addr(s->queue, p->payload);
			d->size = p->len;
			d->pieces = rx_buf_of(p)->pieces;
			c->rx_bufs[head % RX_RING_SIZE] = p;
			c->rx_bytes += p->len;
		}
	}
	if (!c->pend_first)
		c->pend_last = NULL;
	if (head == c->rx_head)
		return;
	c->rx_head = head;
	if (unlikely(c->udp->received_ns != 0)) {
		latency_published(s->arena, ep, c->rx_bytes, c->udp->received_ns);
		c->udp->received_ns = 0;
	}
	atomic_store_explicit(&ep->rx_bytes, c->rx_bytes, memory_order_release);
	atomic_store_explicit(&ep->rx_head, head, memory_order_release);
	atomic_fetch_add_explicit(&ep->rx_gen, 1, memory_order_relaxed);
	notify(s, c->ep, EPOLLIN);
	if (!c->reclaim_armed) {
		c->reclaim_armed = 1;
		c->reclaim_wait = RECLAIM_MS;
		c->reclaim_due = s->now_ms + RECLAIM_MS;
		timer_arm(s, c);
	}
}

/* Frees what lies behind the reader's cursor. */
static void free_read(struct stack *s, struct conn *c)
{
	uint32_t tail = atomic_load_explicit(&stack_ep(s, c->ep)->rx_tail, memory_order_acquire);

	if (tail - c->rx_freed > c->rx_head - c->rx_freed) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	while (c->rx_freed != tail) {
		struct pbuf *p = c->rx_bufs[c->rx_freed++ % RX_RING_SIZE];

		c->udp->rx_used -= rx_buf_of(p)->charge;
		c->udp->rx_pieces--;
		pbuf_free(p);
	}
}

void udp_reclaim(struct stack *s, struct conn *c)
{
	free_read(s, c);
	if (c->pend_first)
		publish(s, c);
	else
		rx_ring_give(s, c);
	rx_reclaim_later(s, c);
}

void udp_publish_all(struct stack *s)
{
	struct conn *c;

	while ((c = s->udp_fresh)) {
		s->udp_fresh = c->udp->fresh_next;
		c->udp->is_fresh = 0;
		if (c->is_released)
			continue;
		free_read(s, c); /* room, for what waits and what comes */
		publish(s, c);
	}
}

void udp_unpublish(struct stack *s, struct conn *c)
{
	struct conn **pp = &s->udp_fresh;

	if (!c->udp->is_fresh)
		return;
	while (*pp != c)
		pp = &(*pp)->udp->fresh_next;
	*pp = c->udp->fresh_next;
	c->udp->is_fresh = 0;
}

static void publish_later(struct stack *s, struct conn *c)
{
	if (c->udp->is_fresh)
		return;
	c->udp->is_fresh = 1;
	c->udp->fresh_next = s->udp_fresh;
	s->udp_fresh = c;
}

/* One endpoint may take what SO_RCVBUF says, but no more than a quarter of all packet buffers. */
static bool is_over(struct stack *s, const struct udp *u)
{
	uint32_t free_count, total;

	buf_levels(s, &free_count, &total);
	return u->rx_used > u->rx_limit || u->rx_pieces > total / 4;
}

/* The last part of the pool is kept for readers that read, as for TCP (is_pressed in conn.c). */
static bool is_pressed(struct stack *s, const struct conn *c)
{
	uint32_t free_count, total;

	buf_levels(s, &free_count, &total);
	return free_count <= total / 8 &&
	       (c->pend_first || (free_count < total / 16 && c->rx_head != c->rx_freed));
}

/* The endpoint's home takes a datagram. */
static void queue(struct stack *s, uint32_t ep_idx, struct pbuf *first)
{
	struct conn *c = s->by_ep[ep_idx - s->ep_first];
	uint32_t pieces = 0;
	struct udp *u;

	if (!c || !c->udp || c->is_released) {
		COUNT(s, drop_rx_no_socket, 1);
		COUNT(s, udp_no_ports, 1);
		goto drop;
	}
	u = c->udp;
	/* one datagram always gets in, as in the kernel */
	if (unlikely(is_over(s, u)))
		free_read(s, c);
	if (unlikely(is_over(s, u))) {
		COUNT(s, drop_udp_rcvbuf, 1);
		COUNT(s, udp_in_errors, 1);
		atomic_fetch_add_explicit(&stack_ep(s, ep_idx)->info_drops, 1, memory_order_relaxed);
		publish_later(s, c);
		goto drop;
	}
	if (unlikely(is_pressed(s, c))) {
		COUNT(s, drop_rx_pressure, 1);
		COUNT(s, udp_in_errors, 1);
		atomic_fetch_add_explicit(&stack_ep(s, ep_idx)->info_drops, 1, memory_order_relaxed);
		goto drop;
	}
	for (struct pbuf *p = first; p; p = p->next) {
		rx_buf_of(p)->pieces = 0;
		rx_buf_of(p)->charge = charge_of(p->len);
		u->rx_used += rx_buf_of(p)->charge;
		pieces++;
		if (!p->next) {
			if (c->pend_last)
				c->pend_last->next = first;
			else
				c->pend_first = first;
			c->pend_last = p;
			break;
		}
	}
	rx_buf_of(first)->pieces = pieces;
	u->rx_pieces += pieces;
	COUNT(s, udp_rx, 1);
	if (unlikely(s->frame_ns != 0) && !u->received_ns)
		u->received_ns = s->frame_ns;
	publish_later(s, c);
	return;
drop:
	dgram_free(first);
}

static void handed_msg(struct stack *s, struct stack_msg *m)
{
	uint32_t ep_idx = (uint32_t)m->arg;
	struct pbuf *p = m->ptr; /* m lies in it: not looked at again */

	atomic_fetch_sub_explicit(&s->udp_handed, 1, memory_order_relaxed);
	queue(s, ep_idx, p);
}

/* Brings a datagram to the endpoint's home. An entry goes from every table before its endpoint is used anew,
 * and messages keep their order, so it cannot come to another one. */
static void dgram_send_home(struct stack *s, uint32_t ep_idx, struct pbuf *p)
{
	struct stack *home = s->peers[ep_idx / s->ep_count];
	struct stack_msg *m;

	if (likely(home == s)) {
		queue(s, ep_idx, p);
		return;
	}
	if (atomic_fetch_add_explicit(&home->udp_handed, 1, memory_order_relaxed) >= UDP_HANDED_MAX) {
		atomic_fetch_sub_explicit(&home->udp_handed, 1, memory_order_relaxed);
		COUNT(s, drop_udp_handover, 1);
		COUNT(s, udp_in_errors, 1);
		dgram_free(p);
		return;
	}
	m = (struct stack_msg *)((uintptr_t)((uint8_t *)p->payload - sizeof(*m)) & ~(uintptr_t)7);
	*m = (struct stack_msg){.fn = handed_msg, .arg = ep_idx, .ptr = p};
	COUNT(s, udp_handover, 1);
	stack_post(home, m);
}

/* --- delivery --- */

uint32_t udp_deliver_all(struct stack *s, struct dgram_meta *m, struct pbuf *p)
{
	uint32_t src, dst, last = ENDPOINT_NONE, count = 0;
	struct pbuf *q;

	memcpy(&src, m->from.ip, 4);
	memcpy(&dst, m->to.ip, 4);
	for (struct udp_entry *e = s->udp_hash[m->to.port & (UDP_HASH - 1)]; e; e = e->next) {
		if (!udp_takes(e, dst, m->to.port, src, m->from.port))
			continue;
		count++;
		if (last != ENDPOINT_NONE) {
			q = dgram_copy(s, p, m);
			if (q)
				dgram_send_home(s, last, q);
		}
		last = e->ep;
	}
	if (last == ENDPOINT_NONE) {
		pbuf_free(p);
		return 0;
	}
	q = dgram_make(s, p, m);
	if (q)
		dgram_send_home(s, last, q);
	COUNT(s, udp_copies, count - 1);
	return count;
}

static void addr_set(struct sock_addr *a, uint32_t ip, uint16_t port)
{
	a->family = AF_INET;
	a->port = port;
	memcpy(a->ip, &ip, 4);
}

bool udp_input_plain(struct stack *s, struct nic_frame *f)
{
	uint8_t *ip = f->data + ETH_SIZE;
	const struct ip_hdr *h = (const void *)ip;
	const struct udp_hdr *u = (const void *)(ip + IP_HLEN);
	struct dgram_meta m;
	struct udp_entry *e;
	struct pbuf *p;
	uint32_t total = lwip_ntohs(h->_len), size;

	/* the port has checked checksums, and that lengths agree; anything unusual is lwIP's */
	if (f->flags || h->_v_hl != 0x45 || h->_proto != IP_PROTO_UDP || h->dest.addr != s->address ||
	        (h->_offset & PP_HTONS(IP_OFFMASK | IP_MF)) || f->size < ETH_SIZE + total ||
	        total < IP_HLEN + UDP_HLEN)
		return false;
	size = lwip_ntohs(u->len);
	if (size < UDP_HLEN || size > total - IP_HLEN || ip_is_multicast(h->src.addr) ||
	        netif_is_broadcast(s, h->src.addr))
		return false;
	e = udp_find(s, h->dest.addr, lwip_ntohs(u->dest), h->src.addr, lwip_ntohs(u->src));
	if (!e || nic_buf_front(f->buf, ip + IP_HLEN + UDP_HLEN) < DGRAM_FRONT)
		return false;
	memset(&m, 0, sizeof(m));
	addr_set(&m.from, h->src.addr, lwip_ntohs(u->src));
	addr_set(&m.to, h->dest.addr, lwip_ntohs(u->dest));
	m.size = size - UDP_HLEN;
	m.tos = IPH_TOS(h);
	m.ttl = IPH_TTL(h);
	m.time_ns = stack_real_ns(s);
	p = rx_buf_wrap(f->buf, f->priv, ip + IP_HLEN + UDP_HLEN, (uint16_t)(size - UDP_HLEN));
	meta_put(p, &m);
	dgram_send_home(s, e->ep, p);
	return true;
}

void udp_input(struct pbuf *p, struct netif *inp)
{
	struct stack *s = stack_current;
	uint32_t src = ip4_current_src_addr()->addr, dst = ip4_current_dest_addr()->addr, size;
	const struct udp_hdr *h = p->payload;
	struct dgram_meta m = {0};
	struct udp_entry *e;

	if (p->len < UDP_HLEN)
		goto guard;
	size = lwip_ntohs(h->len);
	if (size < UDP_HLEN || size > p->tot_len)
		goto guard;
	if (size < p->tot_len)
		pbuf_realloc(p, (u16_t)size);
	IF__NETIF_CHECKSUM_ENABLED(inp, NETIF_CHECKSUM_CHECK_UDP)
	{
		if (h->chksum && ip_chksum_pseudo(p, IP_PROTO_UDP, (u16_t)size, ip_current_src_addr(),
		                         ip_current_dest_addr())) {
			COUNT(s, drop_udp_cksum, 1);
			COUNT(s, udp_in_errors, 1);
			goto drop;
		}
	}
	addr_set(&m.from, src, lwip_ntohs(h->src));
	addr_set(&m.to, dst, lwip_ntohs(h->dest));
	m.size = size - UDP_HLEN;
	m.tos = IPH_TOS(ip4_current_header());
	m.ttl = IPH_TTL(ip4_current_header());
	if (unlikely(ip_is_multicast(dst) || netif_is_broadcast(s, dst))) {
		if (ip_is_multicast(dst) && !group_is_joined(s, dst)) {
			COUNT(s, drop_rx_not_ours, 1);
			goto drop;
		}
		m.time_ns = stack_real_ns(s);
		pbuf_remove_header(p, UDP_HLEN);
		if (!udp_deliver_all(s, &m, p))
			COUNT(s, drop_rx_no_socket, 1); /* nobody is told: it was for everybody */
		return;
	}
	e = udp_find(s, dst, m.to.port, src, m.from.port);
	if (unlikely(!e)) {
		COUNT(s, drop_rx_no_socket, 1);
		COUNT(s, udp_no_ports, 1);
		if (!icmp_may_send(s, src))
			goto drop;
		lwip_udp_input(p, inp); /* knows no socket at all: answers with ICMP port unreachable */
		return;
	}
	m.time_ns = stack_real_ns(s);
	pbuf_remove_header(p, UDP_HLEN);
	p = dgram_make(s, p, &m);
	if (p)
		dgram_send_home(s, e->ep, p);
	return;
guard:
	COUNT(s, drop_rx_guard, 1);
	COUNT(s, udp_in_errors, 1);
drop:
	pbuf_free(p);
}
