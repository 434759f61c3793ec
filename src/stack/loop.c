/* loop.c - packets of this host to itself (option loopback = pronk): 127.0.0.0/8 and the port's own address.
 *
 * Runs in the stack's thread. lwIP has a second interface for them, "lo". What goes out there is copied into
 * a packet buffer and comes in again in the rx phase of the next turn: here, or at the stack that owns the
 * tuple, which gets it through the port's hand-off ring. No frame of it reaches the port, and a frame of the
 * wire never gets here. Checksums are neither made nor looked at.
 */
#include "stack_int.h"

#include <sys/socket.h>
#include <string.h>

#include "lwip/ip4.h"
#include "lwip/prot/ip4.h"
#include "lwip_hooks.h"
#include "rx_buf.h"

enum { ETH_SIZE = 14, LOOP_MTU_MAX = 65535 };

bool loop_serves(const struct stack *s, uint32_t ip)
{
	return s->has_loop && (ip4_is_loopback(ip) || (ip == s->address && ip));
}

struct netif *lwip_hook_route(const ip4_addr_t *src, const ip4_addr_t *dest)
{
	struct stack *s = stack_current;

	(void)src;
	return loop_serves(s, dest->addr) ? &s->lo : NULL;
}

/* The stack a packet belongs to. Fragments and what has no ports stay here: datagrams find their socket's
 * home from any stack. */
static uint32_t owner_of(const struct stack *s, const uint8_t *ip, uint32_t size)
{
	const struct ip_hdr *h = (const void *)ip;
	const uint8_t *ports = ip + IP_HLEN;

	if (s->count == 1 || h->_proto != IP_PROTO_TCP || size < IP_HLEN + 4 ||
	        (h->_offset & PP_HTONS(IP_OFFMASK | IP_MF)))
		return s->idx;
	return nic_owner(s->nic, AF_INET, &h->src, (uint16_t)(ports[0] << 8 | ports[1]), &h->dest,
	        (uint16_t)(ports[2] << 8 | ports[3]));
}

void loop_send(struct stack *s, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	uint32_t owner = owner_of(s, ip, size);

	COUNT(s, loop_packets, 1);
	COUNT(s, loop_bytes, size);
	if (owner != s->idx) {
		nic_local(s->queue, owner, buf, ip - ETH_SIZE, size + ETH_SIZE);
		return;
	}
	if (s->loop_head - s->loop_tail == LOOP_RING_SIZE) {
		nic_buf_free(buf);
		COUNT(s, drop_loop_full, 1);
		return;
	}
	s->loop_ring[s->loop_head++ % LOOP_RING_SIZE] =
	        (struct loop_packet){.buf = buf, .priv = nic_buf_priv(buf), .ip = ip, .size = size};
}

static err_t output(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	struct stack *s = netif->state;
	struct nic_buf *buf;
	uint8_t *data;
	err_t err = netif_gather(s, p, &buf, &data);

	(void)to;
	if (err == ERR_OK)
		loop_send(s, buf, data, p->tot_len);
	return err;
}

void loop_input(struct stack *s, struct nic_buf *buf, void *priv, uint8_t *ip, uint32_t size)
{
	struct pbuf *p = rx_buf_wrap(buf, priv, ip, (uint16_t)size);

	mib_ip_in(s, ip);
	/* lwIP takes what is addressed to the interface: any address that got here is */
	memcpy(&s->lo.ip_addr.addr, ip + 16, 4);
	ip4_input(p, &s->lo);
	s->lo.ip_addr.addr = PP_HTONL(IPADDR_LOOPBACK);
}

uint32_t loop_rx(struct stack *s)
{
	uint32_t n = s->loop_head - s->loop_tail;

	/* what these packets bring about comes in the next turn, as new frames and requests do */
	n = LWIP_MIN(n, (uint32_t)LOOP_BURST);
	for (uint32_t i = 0; i < n; i++) {
		struct loop_packet *l = &s->loop_ring[s->loop_tail++ % LOOP_RING_SIZE];

		loop_input(s, l->buf, l->priv, l->ip, l->size);
	}
	return n;
}

void loop_drop(struct stack *s)
{
	while (s->loop_tail != s->loop_head)
		nic_buf_free(s->loop_ring[s->loop_tail++ % LOOP_RING_SIZE].buf);
}

static err_t netif_start(struct netif *netif)
{
	netif->name[0] = 'l';
	netif->name[1] = 'o';
	netif->output = output;
	netif->flags = NETIF_FLAG_LINK_UP;
	return ERR_OK;
}

int loop_setup(struct stack *s)
{
	/* one address, so that lwIP's own search for a route finds nothing else here: the hook decides */
	ip4_addr_t ip = {PP_HTONL(IPADDR_LOOPBACK)}, mask = {PP_HTONL(0xffffffffUL)}, gw = {0};
	uint8_t *data;
	struct nic_buf *buf;

	if (!s->has_loop)
		return 0;
	buf = nic_buf_alloc(s->queue, &data, NULL);
	if (!buf || !netif_add(&s->lo, &ip, &mask, &gw, s, netif_start, ip4_input)) {
		if (buf)
			nic_buf_free(buf);
		return -1;
	}
	/* as much as one buffer holds */
	s->lo.mtu = (u16_t)LWIP_MIN(nic_buf_room(buf, data), (uint32_t)LOOP_MTU_MAX);
	nic_buf_free(buf);
	NETIF_SET_CHECKSUM_CTRL(&s->lo, 0);
	netif_set_up(&s->lo);
	return 0;
}
