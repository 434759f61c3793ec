/* udp_out.c - datagrams from an endpoint's send ring to the network.
 *
 * Runs in the thread of the endpoint's home. The application writes records (struct dgram_head, payload) into
 * the ring; everything in them is checked here, since a client can write what it likes. A datagram is copied
 * into packet buffers at once, cut into fragments where it is longer than the MTU, so the ring's space is
 * free when the turn ends. When the port is full, or the endpoint has had its share of the turn, the rest
 * stays in the ring.
 */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lwip/inet_chksum.h"
#include "lwip/prot/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/udp.h"
#include "rx_buf.h"

enum {
	DGRAM_FLAGS = DGRAM_DONT_FRAGMENT | DGRAM_MULTICAST_LOOP | DGRAM_NO_CHECKSUM | DGRAM_NO_PORT,
	IP_UDP_SIZE = 28,
};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void ring_copy(struct stack *s, const struct conn *c, uint32_t pos, void *to, uint32_t size)
{
	while (size) {
		uint32_t n;
		const uint8_t *p = tx_at(s, c, pos, &n);

		n = LWIP_MIN(n, size);
		memcpy(to, p, n);
		to = (uint8_t *)to + n;
		pos += n;
		size -= n;
	}
}

/* What a datagram is sent with, checked. */
struct dgram {
	uint32_t src, dst, size;
	uint16_t sport, dport;
	uint8_t tos, ttl;
	uint32_t flags;
	uint32_t pos; /* of the payload in the ring */
};

static bool head_check(struct stack *s, const struct conn *c, const struct dgram_head *h, struct dgram *d)
{
	if (h->size > DGRAM_SIZE_MAX || (h->flags & ~DGRAM_FLAGS) || h->to.family != AF_INET)
		return false;
	memcpy(&d->dst, h->to.ip, 4);
	d->src = netif_source(s, d->dst);
	if (h->from.family) {
		uint32_t ip;

		memcpy(&ip, h->from.ip, 4);
		/* an address of ours, and the one it is bound to if it is bound to one; it may have been ours
		 * when the client wrote this, and is then refused further down */
		if (h->from.family != AF_INET ||
		        (ip && ip != s->address && !loop_serves(s, ip) && !s->has_moved))
			return false;
		if (ip)
			d->src = ip;
	} else if (c->udp->bound_ip && !ip_is_multicast(c->udp->bound_ip) &&
	           !netif_is_broadcast(s, c->udp->bound_ip)) {
		d->src = c->udp->bound_ip;
	} else if (ip_2_ip4(&c->local_ip)->addr && !c->udp->bound_ip) {
		d->src = ip_2_ip4(&c->local_ip)->addr; /* chosen by connect */
	}
	d->sport = h->flags & DGRAM_NO_PORT ? 0 : c->local_port;
	d->dport = h->to.port;
	d->size = h->size;
	d->tos = h->tos;
	d->ttl = h->ttl;
	d->flags = h->flags;
	return true;
}

static void ip_head(const struct dgram *d, uint8_t *ip, uint32_t size, uint32_t id, uint32_t frag)
{
	ip[0] = 0x45;
	ip[1] = d->tos;
	put16(ip + 2, size);
	put16(ip + 4, id);
	put16(ip + 6, frag);
	ip[8] = d->ttl;
	ip[9] = IP_PROTO_UDP;
	put16(ip + 10, 0);
	memcpy(ip + 12, &d->src, 4);
	memcpy(ip + 16, &d->dst, 4);
}

static void udp_head(const struct dgram *d, uint8_t *p)
{
	put16(p, d->sport);
	put16(p + 2, d->dport);
	put16(p + 4, d->size + UDP_HLEN);
	put16(p + 6, 0);
}

/* The checksum over all fragments; head is the UDP header with a zero in its place. */
static void cksum_whole(struct stack *s, const struct conn *c, const struct dgram *d, uint8_t *head)
{
	uint8_t pseudo[12];
	uint32_t sum, pos = d->pos, left = d->size;
	uint16_t value;

	memcpy(pseudo, &d->src, 4);
	memcpy(pseudo + 4, &d->dst, 4);
	pseudo[8] = 0;
	pseudo[9] = IP_PROTO_UDP;
	put16(pseudo + 10, d->size + UDP_HLEN);
	sum = (u16_t)~inet_chksum(pseudo, sizeof(pseudo));
	sum += (u16_t)~inet_chksum(head, UDP_HLEN);
	/* blocks end at even places, so only the last part can be odd */
	while (left) {
		uint32_t n;
		const uint8_t *p = tx_at(s, c, pos, &n);

		n = LWIP_MIN(n, left);
		sum += (u16_t)~inet_chksum(p, (u16_t)n);
		pos += n;
		left -= n;
	}
	sum = (sum & 0xffff) + (sum >> 16);
	value = (uint16_t) ~(uint16_t)((sum & 0xffff) + (sum >> 16));
	if (!value)
		value = 0xffff;
	memcpy(head + 6, &value, 2);
}

static void send_cut(struct stack *s, const struct conn *c, const struct dgram *d)
{
	uint32_t total = d->size + UDP_HLEN, part = (netif_mtu(s, d->dst) - IP_HLEN) & ~7u;
	uint32_t id = atomic_fetch_add_explicit(&s->peers[0]->frag_id, 1, memory_order_relaxed);
	uint8_t head[UDP_HLEN], *ip;

	udp_head(d, head);
	if (!(d->flags & DGRAM_NO_CHECKSUM))
		cksum_whole(s, c, d, head);
	for (uint32_t off = 0; off < total; off += part) {
		uint32_t n = LWIP_MIN(part, total - off), in_head = off ? 0 : UDP_HLEN;
		struct nic_buf *buf = nic_buf_alloc(s->queue, &ip, NULL);

		if (!buf)
			return; /* counted there; the others are of no use without this one */
		ip_head(d, ip, IP_HLEN + n, id, off / 8 | (off + n < total ? IP_MF : 0));
		memcpy(ip + IP_HLEN, head, in_head);
		ring_copy(s, c, d->pos + off + in_head - UDP_HLEN, ip + IP_HLEN + in_head, n - in_head);
		COUNT(s, ip_frag_creates, 1);
		if (netif_send(s, d->dst, buf, ip, IP_HLEN + n))
			return;
	}
	COUNT(s, ip_frag_oks, 1);
}

static void send_whole(struct stack *s, const struct conn *c, const struct dgram *d)
{
	uint32_t size = IP_UDP_SIZE + d->size;
	uint8_t *ip;
	struct nic_buf *buf = nic_buf_alloc(s->queue, &ip, NULL);

	if (!buf)
		return;
	ip_head(d, ip, size, s->ip_id++, d->flags & DGRAM_DONT_FRAGMENT ? IP_DF : 0);
	udp_head(d, ip + IP_HLEN);
	if (d->flags & DGRAM_NO_CHECKSUM)
		put16(ip + IP_HLEN + 6, NIC_UDP_NO_CKSUM);
	ring_copy(s, c, d->pos, ip + IP_UDP_SIZE, d->size);
	netif_send(s, d->dst, buf, ip, size);
}

/* What goes to everybody comes to our own endpoints as well. */
static void send_to_own(struct stack *s, const struct conn *c, const struct dgram *d)
{
	struct dgram_meta m = {.size = d->size, .tos = d->tos, .ttl = d->ttl};
	struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)d->size, PBUF_RAM);

	if (!p) {
		COUNT(s, drop_udp_memory, 1);
		return;
	}
	ring_copy(s, c, d->pos, p->payload, d->size);
	m.from.family = m.to.family = AF_INET;
	m.from.port = d->sport;
	m.to.port = d->dport;
	memcpy(m.from.ip, &d->src, 4);
	memcpy(m.to.ip, &d->dst, 4);
	m.time_ns = stack_real_ns(s);
	if (udp_deliver_all(s, &m, p))
		COUNT(s, udp_copies, 1); /* the first one, too, did not come from outside */
}

static void send_one(struct stack *s, const struct conn *c, const struct dgram *d)
{
	if (unlikely(ip_is_multicast(d->dst))) {
		if ((d->flags & DGRAM_MULTICAST_LOOP) && group_is_joined(s, d->dst))
			send_to_own(s, c, d);
		if (!d->ttl)
			return;
	} else if (unlikely(netif_is_broadcast(s, d->dst))) {
		send_to_own(s, c, d);
	}
	if (IP_UDP_SIZE + d->size <= netif_mtu(s, d->dst)) {
		send_whole(s, c, d);
	} else if (!(d->flags & DGRAM_DONT_FRAGMENT)) {
		send_cut(s, c, d);
	} else {
		COUNT(s, drop_tx_too_long, 1);
		return;
	}
	COUNT(s, udp_tx, 1);
}

/* The client has written nonsense: nothing more of this ring is believed. */
static void broken(struct stack *s, struct conn *c, int line)
{
	bad_input(s, "udp_pump", line);
	c->udp->is_broken = 1;
	atomic_store(&stack_ep(s, c->ep)->error, EPIPE);
	notify(s, c->ep, EPOLLERR | EPOLLIN | EPOLLOUT);
}

static void again(struct stack *s, struct conn *c)
{
	if (c->udp->is_again)
		return;
	c->udp->is_again = 1;
	c->udp->again_next = s->udp_again;
	s->udp_again = c;
}

void udp_pump(struct stack *s, struct conn *c)
{
	struct udp *u = c->udp;
	uint32_t head, before = c->tx_fed;

	if (u->is_opening || u->is_broken)
		goto out;
	if (c->is_released) {
		head = u->tx_end;
	} else {
		head = atomic_load_explicit(&stack_ep(s, c->ep)->tx_head, memory_order_acquire);
		if (unlikely(s->is_timed))
			latency_taken(s->arena, stack_ep(s, c->ep), head);
		if (unlikely(!tx_take(s, c, head))) {
			broken(s, c, __LINE__);
			return;
		}
	}
	for (uint32_t n = 0; c->tx_fed != head; n++) {
		uint32_t left = head - c->tx_fed;
		struct dgram_head h;
		struct dgram d;

		if (n == UDP_TX_BURST || nic_tx_room(s->queue) < UDP_TX_ROOM) {
			again(s, c);
			break;
		}
		if (unlikely(left < sizeof(h))) {
			broken(s, c, __LINE__);
			break;
		}
		ring_copy(s, c, c->tx_fed, &h, sizeof(h));
		if (unlikely(!head_check(s, c, &h, &d) || DGRAM_ALIGN(h.size) > left - sizeof(h))) {
			broken(s, c, __LINE__);
			break;
		}
		d.pos = c->tx_fed + sizeof(h);
		send_one(s, c, &d);
		c->bytes_sent += d.size;
		c->tx_fed += sizeof(h) + DGRAM_ALIGN(h.size);
	}
	if (unlikely(s->is_timed) && !c->is_released)
		stack_timed_sent(s, stack_ep(s, c->ep), c->tx_fed);
	tx_done(s, c);
	if (!c->is_released)
		atomic_store_explicit(
		        &stack_ep(s, c->ep)->info_tx_bytes, (uint32_t)c->bytes_sent, memory_order_relaxed);
	/* what has left is an edge, also where there was room all the time (sock_def_write_space) */
	if (c->tx_fed != before && !c->is_released &&
	        ep_tx_used(stack_ep(s, c->ep)) <= ep_tx_limit(stack_ep(s, c->ep)) / 2)
		notify(s, c->ep, EPOLLOUT);
out:
	if (c->is_released)
		udp_finish(s, c);
}

bool udp_pump_again(struct stack *s)
{
	struct conn *c = s->udp_again;
	bool is_ready = false;

	s->udp_again = NULL;
	while (c) {
		struct conn *next = c->udp->again_next;

		c->udp->is_again = 0;
		conn_touch(s, c);
		is_ready = true;
		c = next;
	}
	return is_ready && nic_tx_room(s->queue) >= UDP_TX_ROOM;
}
