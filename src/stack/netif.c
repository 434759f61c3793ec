/* netif.c - frames from the port into lwIP, and lwIP's packets into frames.
 *
 * Runs in the stack's thread. Ethernet is done here, ARP in neigh.c; lwIP sees IP packets only. A received
 * packet is handed to lwIP where it lies; an outgoing one is gathered into one buffer.
 */
#include "stack_int.h"

#include <string.h>

#include "lwip/ip4.h"
#include "lwip/prot/ip4.h"
#include "rx_buf.h"

enum { ETH_SIZE = 14, ETH_ARP = 0x0806, ETH_IPV4 = 0x0800 };

static err_t output(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	struct stack *s = netif->state;
	uint32_t hop = to->addr;
	struct nic_buf *buf;
	uint8_t *data;

	if (!((hop ^ s->address) & s->netmask)) {
		if (hop == (s->address | ~s->netmask) && s->netmask != 0xffffffff)
			goto no_route; /* nothing here sends broadcasts */
	} else if (s->has_gateway) {
		hop = s->gateway;
	} else {
		goto no_route;
	}
	buf = nic_buf_alloc(s->queue, &data, NULL);
	if (!buf)
		return ERR_MEM;
	if (p->tot_len > nic_buf_room(buf, data)) {
		nic_buf_free(buf);
		COUNT(s, drop_tx_no_route, 1);
		return ERR_BUF;
	}
	pbuf_copy_partial(p, data, p->tot_len, 0);
	if (((struct ip_hdr *)(void *)data)->_proto == IP_PROTO_ICMP)
		COUNT(s, icmp_tx, 1);
	else if (((struct ip_hdr *)(void *)data)->_proto == IP_PROTO_TCP && data[IP_HLEN + 13] & TCP_RST)
		COUNT(s, tcp_reset_tx, 1);
	neigh_send(s, hop, buf, data, p->tot_len);
	return ERR_OK;
no_route:
	COUNT(s, drop_tx_no_route, 1);
	return ERR_RTE;
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

static void frame_in(struct stack *s, struct nic_frame *f)
{
	const uint8_t *eth = f->data;
	struct pbuf *p;
	uint32_t type;

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
	if (eth[ETH_SIZE + 9] == IP_PROTO_ICMP)
		COUNT(s, icmp_rx, 1);
	p = rx_buf_wrap(f->buf, f->priv, f->data + ETH_SIZE, (uint16_t)(f->size - ETH_SIZE));
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

uint32_t netif_rx(struct stack *s)
{
	struct nic_frame frames[RX_BURST];
	uint32_t n = nic_rx(s->queue, frames, RX_BURST);

	for (uint32_t i = 0; i < n; i++) {
		if (i + 1 < n)
			__builtin_prefetch(frames[i + 1].data);
		frame_in(s, &frames[i]);
	}
	return n;
}
