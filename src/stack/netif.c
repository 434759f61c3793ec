/* netif.c - frames from the port into lwIP, and lwIP's packets into frames.
 *
 * Runs in the stack's thread. Ethernet is done here, ARP in neigh.c; lwIP sees IP packets only. A received
 * packet is handed to lwIP where it lies; an outgoing one is gathered into one buffer.
 */
#include "stack_int.h"

#include <errno.h>
#include <string.h>

#include "lwip/ip4.h"
#include "lwip/ip4_frag.h"
#include "lwip/prot/ip4.h"
#include "rx_buf.h"
#include "udp.h"

enum { ETH_SIZE = 14, ETH_ARP = 0x0806, ETH_IPV4 = 0x0800, IGMP = 2 };

bool netif_is_broadcast(const struct stack *s, uint32_t ip)
{
	/* a network of two addresses or one has none of its own (RFC 3021) */
	return ip == 0xffffffff || (!((ip ^ s->address) & s->netmask) && (ip | s->netmask) == 0xffffffff &&
	                                   lwip_ntohl(~s->netmask) > 1);
}

uint32_t netif_source(const struct stack *s, uint32_t dst)
{
	return s->has_loop && ip4_is_loopback(dst) ? PP_HTONL(IPADDR_LOOPBACK) : s->address;
}

uint32_t netif_mtu(const struct stack *s, uint32_t dst)
{
	return unlikely(loop_serves(s, dst)) ? s->lo.mtu : s->mtu;
}

/* An address that was ours is a stranger's: as in the kernel nothing leaves from it any more, and its
 * connections wait until it comes back or their retransmissions end. */
static bool is_from_stranger(const struct stack *s, const uint8_t *ip)
{
	uint32_t from;

	memcpy(&from, ip + 12, 4);
	return from != s->address || !from;
}

static bool is_later_fragment(const uint8_t *ip)
{
	return (ip[6] & 0x1f) || ip[7];
}

int netif_send(struct stack *s, uint32_t dst, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};

	s->mib.ip_out_octets += (uint32_t)ip[2] << 8 | ip[3];
	if (ip[9] == IP_PROTO_TCP) {
		s->mib.tcp_out_segs++;
		if (unlikely(ip[IP_HLEN + 13] & TCP_RST))
			COUNT(s, tcp_reset_tx, 1);
	} else if (unlikely(ip[9] == IP_PROTO_ICMP) && !is_later_fragment(ip)) {
		COUNT(s, icmp_tx, 1);
		mib_icmp(s, ip[IP_HLEN], true);
	}
	if (unlikely(loop_serves(s, dst))) {
		loop_send(s, buf, ip, size);
		return 0;
	}
	if (unlikely(s->has_moved) && is_from_stranger(s, ip))
		goto no_route;
	if (unlikely(ip_is_multicast(dst))) {
		const uint8_t *g = (const uint8_t *)&dst;
		uint8_t mac[6] = {0x01, 0x00, 0x5e, g[1] & 0x7f, g[2], g[3]}; /* RFC 1112 6.4 */

		COUNT(s, ip_out_mcast_packets, 1);
		neigh_send_to(s, mac, buf, ip, size);
		return 0;
	}
	if (unlikely(netif_is_broadcast(s, dst))) {
		if (ip[9] == IP_PROTO_TCP)
			goto no_route;
		COUNT(s, ip_out_bcast_packets, 1);
		neigh_send_to(s, all, buf, ip, size);
		return 0;
	}
	if ((dst ^ s->address) & s->netmask) {
		if (!s->has_gateway)
			goto no_route;
		dst = s->gateway;
	}
	neigh_send(s, dst, buf, ip, size);
	return 0;
no_route:
	nic_buf_free(buf);
	COUNT(s, drop_tx_no_route, 1);
	return -ENETUNREACH;
}

err_t netif_gather(struct stack *s, struct pbuf *p, struct nic_buf **buf, uint8_t **data)
{
	tcp_segment_out(s, p);
	*buf = nic_buf_alloc(s->queue, data, NULL);
	if (!*buf)
		return ERR_MEM;
	if (p->tot_len > nic_buf_room(*buf, *data)) {
		nic_buf_free(*buf);
		COUNT(s, drop_tx_no_route, 1);
		return ERR_BUF;
	}
	pbuf_copy_partial(p, *data, p->tot_len, 0);
	return ERR_OK;
}

/* A segment longer than the wire's frames, in one frame: its payload stays where it is. */
static err_t send_big(struct stack *s, struct pbuf *p, uint32_t dst)
{
	struct nic_buf *buf;
	uint8_t *data;
	uint32_t first;
	int rc = 0;

	tcp_segment_out(s, p);
	buf = nic_buf_alloc(s->queue, &data, NULL);
	if (!buf)
		return ERR_MEM;
	first = LWIP_MIN(p->len, nic_buf_room(buf, data));
	memcpy(data, p->payload, first);
	if (first < p->len)
		rc = nic_buf_add(s->queue, buf, (uint8_t *)p->payload + first, p->len - first, NIC_COPY);
	for (const struct pbuf *q = p->next; q && !rc; q = q->next)
		rc = nic_buf_add(s->queue, buf, q->payload, q->len, block_piece(s, q->payload));
	if (rc) {
		nic_buf_free(buf);
		return ERR_MEM;
	}
	return netif_send(s, dst, buf, data, first) ? ERR_RTE : ERR_OK;
}

/* The same for one that has to be cut after all, as what was near is not any more: each part with headers of
 * its own. */
static err_t send_cut(struct stack *s, struct pbuf *p, uint32_t dst)
{
	const struct tcp_hdr *tcp = (const struct tcp_hdr *)((uint8_t *)p->payload + IP_HLEN);
	uint32_t header = IP_HLEN + TCPH_HDRLEN_BYTES(tcp), room = s->mtu - header,
	         seq = lwip_ntohl(tcp->seqno);

	tcp_segment_out(s, p);
	for (uint32_t off = header, part; off < p->tot_len; off += part) {
		struct nic_buf *buf;
		struct ip_hdr *iph;
		struct tcp_hdr *h;
		uint8_t *data;

		buf = nic_buf_alloc(s->queue, &data, NULL);
		if (!buf)
			return ERR_MEM;
		part = LWIP_MIN(room, p->tot_len - off);
		pbuf_copy_partial(p, data, (u16_t)header, 0);
		pbuf_copy_partial(p, data + header, (u16_t)part, (u16_t)off);
		iph = (struct ip_hdr *)data;
		h = (struct tcp_hdr *)(data + IP_HLEN);
		IPH_LEN_SET(iph, lwip_htons((u16_t)(header + part)));
		h->seqno = lwip_htonl(seq + off - header);
		if (off + part < p->tot_len)
			TCPH_UNSET_FLAG(h, TCP_FIN | TCP_PSH);
		if (netif_send(s, dst, buf, data, header + part))
			return ERR_RTE;
	}
	return ERR_OK;
}

/* ip4_output_if calls this for what is longer than the MTU. */
err_t netif_ip4_frag(struct pbuf *p, struct netif *netif, const ip4_addr_t *dest)
{
	struct stack *s = netif->state;

	if (IPH_PROTO((const struct ip_hdr *)p->payload) != IP_PROTO_TCP || netif != &s->netif ||
	        p->len < IP_HLEN + TCP_HLEN)
		return ip4_frag(p, netif, dest);
	return p->tot_len + (uint32_t)ETH_SIZE <= neigh_big(s, dest->addr) ? send_big(s, p, dest->addr)
	                                                                   : send_cut(s, p, dest->addr);
}

static err_t output(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	struct stack *s = netif->state;
	struct nic_buf *buf;
	uint8_t *data;
	err_t err = netif_gather(s, p, &buf, &data);

	if (err != ERR_OK)
		return err;
	return netif_send(s, to->addr, buf, data, p->tot_len) ? ERR_RTE : ERR_OK;
}

static err_t netif_start(struct netif *netif)
{
	struct stack *s = netif->state;

	netif->name[0] = 'p';
	netif->name[1] = 'k';
	netif->output = output;
	netif->mtu = s->mtu;
	netif->hwaddr_len = 6;
	memcpy(netif->hwaddr, s->mac, 6);
	netif->flags = NETIF_FLAG_LINK_UP | NETIF_FLAG_BROADCAST;
	return ERR_OK;
}

int netif_setup(struct stack *s)
{
	ip4_addr_t ip = {s->address}, mask = {s->netmask}, gw = {s->has_gateway ? s->gateway : 0};

	if (!netif_add(&s->netif, &ip, &mask, &gw, s, netif_start, ip4_input))
		return -1;
	NETIF_SET_CHECKSUM_CTRL(&s->netif, NETIF_CHECKSUM_GEN_ICMP | NETIF_CHECKSUM_CHECK_ICMP);
	netif_set_default(&s->netif);
	netif_set_up(&s->netif);
	return 0;
}

void netif_follow(struct stack *s)
{
	ip4_addr_t ip = {s->address}, mask = {s->netmask}, gw = {s->has_gateway ? s->gateway : 0};

	/* with LWIP_ARP and LWIP_IGMP off this sets fields, and looks for pcbs in lists that are empty */
	netif_set_addr(&s->netif, &ip, &mask, &gw);
	s->netif.mtu = s->mtu;
}

/* An address of this host as the sender, or a loopback address at all, cannot come from a wire (RFC 1122
 * 3.2.1.3; the kernel calls it martian). */
static bool is_martian(const struct stack *s, const uint8_t *ip)
{
	uint32_t from, to;

	memcpy(&from, ip + 12, 4);
	memcpy(&to, ip + 16, 4);
	/* without an address yet, one may only shout (RFC 1122 3.2.1.3, DHCP) */
	if (!from)
		return ip[9] != IP_PROTO_UDP || !(ip_is_multicast(to) || netif_is_broadcast(s, to));
	return from == s->address || ip4_is_loopback(from) || ip4_is_loopback(to);
}

/* lwIP would drop the others without a count. */
static bool is_ours(const struct stack *s, const uint8_t *ip)
{
	uint32_t to;

	memcpy(&to, ip + 16, 4);
	if (likely(to == s->address && to))
		return true;
	if (ip_is_multicast(to)) {
		COUNT(s, ip_in_mcast_packets, 1);
		return true;
	}
	if (netif_is_broadcast(s, to)) {
		COUNT(s, ip_in_bcast_packets, 1);
		return true;
	}
	return false;
}

/* The further buffers of a frame behind the pbuf of its first. */
static void chain_wrap(struct pbuf *first, struct nic_buf *buf)
{
	struct pbuf *last = first;
	uint32_t total = first->len;
	uint8_t *data;
	uint32_t size;
	void *priv;

	while ((buf = nic_buf_rest(buf, &data, &size, &priv))) {
		last->next = rx_buf_wrap(buf, priv, data, (uint16_t)size);
		last = last->next;
		total += size;
	}
	for (struct pbuf *q = first; q; q = q->next) {
		q->tot_len = (u16_t)total;
		total -= q->len;
	}
}

static void frame_in(struct stack *s, struct nic_frame *f)
{
	const uint8_t *eth = f->data;
	struct pbuf *p;
	uint32_t type;

	if (f->flags & NIC_FRAME_LOCAL) {
		loop_input(s, f->buf, f->priv, f->data + ETH_SIZE, f->size - ETH_SIZE);
		return;
	}
	if (f->size < ETH_SIZE + IP_HLEN) {
		COUNT(s, drop_rx_guard, 1); /* the port has checked what IP says; this is no IP at all */
		goto drop;
	}
	type = (uint32_t)eth[12] << 8 | eth[13];
	if (type == ETH_ARP) {
		neigh_input(s, eth, f->size);
		goto drop; /* done with it */
	}
	if (memcmp(eth, s->mac, 6) != 0 && !(eth[0] & 1)) {
		COUNT(s, drop_rx_not_ours, 1);
		goto drop;
	}
	if (type != ETH_IPV4) {
		COUNT(s, drop_rx_type, 1);
		goto drop;
	}
	mib_ip_in(s, eth + ETH_SIZE);
	if (unlikely(eth[ETH_SIZE + 9] == IGMP)) {
		COUNT(s, ip_in_mcast_packets, 1);
		group_input(s, eth + ETH_SIZE, f->size - ETH_SIZE);
		goto drop; /* done with it */
	}
	if (unlikely(is_martian(s, eth + ETH_SIZE))) {
		COUNT(s, drop_rx_martian, 1);
		COUNT(s, ip_in_addr_errors, 1);
		goto drop;
	}
	if (unlikely(!is_ours(s, eth + ETH_SIZE))) {
		COUNT(s, drop_rx_not_ours, 1);
		COUNT(s, ip_in_addr_errors, 1);
		goto drop;
	}
	if (eth[ETH_SIZE + 9] == IP_PROTO_TCP && predict_input(s, f))
		return;
	if (eth[ETH_SIZE + 9] == IP_PROTO_UDP && udp_input_plain(s, f))
		return;
	p = rx_buf_wrap(f->buf, f->priv, f->data + ETH_SIZE, (uint16_t)(f->size - ETH_SIZE));
	if (unlikely(f->flags & NIC_FRAME_CHAIN))
		chain_wrap(p, f->buf);
	if (unlikely(f->flags & NIC_FRAME_L4_UNCHECKED)) {
		NETIF_SET_CHECKSUM_CTRL(&s->netif, NETIF_CHECKSUM_GEN_ICMP | NETIF_CHECKSUM_CHECK_ICMP |
		                                           NETIF_CHECKSUM_CHECK_TCP |
		                                           NETIF_CHECKSUM_CHECK_UDP);
		ip4_input(p, &s->netif);
		NETIF_SET_CHECKSUM_CTRL(&s->netif, NETIF_CHECKSUM_GEN_ICMP | NETIF_CHECKSUM_CHECK_ICMP);
		return;
	}
	ip4_input(p, &s->netif);
	return;
drop:
	nic_buf_free(f->buf);
}

uint32_t netif_look(struct stack *s)
{
	if (!s->rx_count)
		s->rx_count = nic_rx(s->queue, s->rx_frames, RX_BURST);
	return s->rx_count;
}

uint32_t netif_rx(struct stack *s)
{
	uint32_t n = netif_look(s);

	s->rx_count = 0;
	if (unlikely(s->is_timed)) {
		for (uint32_t i = 0; i < n; i++) {
			s->frame_ns = nic_frame_ns(s->queue, &s->rx_frames[i]);
			frame_in(s, &s->rx_frames[i]);
		}
		s->frame_ns = 0;
		return n;
	}
	for (uint32_t i = 0; i < n; i++) {
		if (i + 1 < n)
			__builtin_prefetch(s->rx_frames[i + 1].data);
		frame_in(s, &s->rx_frames[i]);
	}
	return n;
}
