/* icmp.c - ICMP errors: those that others send us (RFC 792, RFC 1122 3.2.2), and how many we may send.
 *
 * Runs in the stacks' threads. lwIP's icmp_input (behind ours) answers pings; errors end in the socket whose
 * packet is quoted. They come to whatever stack received them, so the one that has the socket is told by a
 * message. Which errno an error is, and when it counts, is the kernel's choice (icmp_err_convert, udp_err,
 * tcp_v4_err).
 */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/ip4.h"

void lwip_icmp_input(struct pbuf *p, struct netif *inp);

enum {
	ICMP_PEERS = 256,     /* addresses whose share is remembered; power of two */
	ICMP_BURST_MS = 6000, /* what an address may save up: six errors, then one a second */
	ICMP_COST_MS = 1000,
	ICMP_PER_SECOND = 1000, /* to all together, icmp_msgs_per_sec */
	ICMP_BURST = 50,        /* icmp_msgs_burst */
	ICMP_HEAD_SIZE = 8,
	QUOTE_SIZE = 8, /* of the quoted packet's transport header, at least */
	DUR_FRAG_NEEDED = 4,
};

struct icmp_peer {
	uint32_t ip, saved_ms, seen_ms;
};

int icmp_create(struct stack *s)
{
	s->icmp_peers = calloc(ICMP_PEERS, sizeof(*s->icmp_peers));
	s->icmp_tokens = ICMP_BURST;
	return s->icmp_peers ? 0 : -ENOMEM;
}

bool icmp_may_send(struct stack *s, uint32_t to)
{
	struct icmp_peer *p = &s->icmp_peers[(to * 0x9e3779b1u) >> 24];
	uint32_t passed, tokens;

	if (loop_serves(s, to))
		return true;
	passed = s->now_ms - s->icmp_ms;
	tokens = passed * (ICMP_PER_SECOND / 1000);

	if (tokens) {
		s->icmp_tokens =
		        passed > ICMP_BURST ? ICMP_BURST : LWIP_MIN(s->icmp_tokens + tokens, ICMP_BURST);
		s->icmp_ms = s->now_ms;
	}
	if (p->ip != to || s->now_ms - p->seen_ms > ICMP_BURST_MS) {
		p->ip = to;
		p->saved_ms = ICMP_BURST_MS;
	} else {
		p->saved_ms = LWIP_MIN(p->saved_ms + (s->now_ms - p->seen_ms), ICMP_BURST_MS);
	}
	p->seen_ms = s->now_ms;
	if (!s->icmp_tokens || p->saved_ms < ICMP_COST_MS) {
		COUNT(s, icmp_limited, 1);
		return false;
	}
	s->icmp_tokens--;
	p->saved_ms -= ICMP_COST_MS;
	return true;
}

/* The errno of an error; is_hard: a datagram socket is told (others only with IP_RECVERR, which is not
 * offered). 0: none. */
static int errno_of(uint8_t type, uint8_t code, bool *is_hard)
{
	static const struct {
		uint8_t err;
		bool is_hard;
	} unreach[] = {
	        {ENETUNREACH, false},
	        {EHOSTUNREACH, false},
	        {ENOPROTOOPT, true},
	        {ECONNREFUSED, true},
	        {EMSGSIZE, true},
	        {EOPNOTSUPP, false},
	        {ENETUNREACH, true},
	        {EHOSTDOWN, true},
	        {ENONET, true},
	        {ENETUNREACH, true},
	        {EHOSTUNREACH, true},
	        {ENETUNREACH, false},
	        {EHOSTUNREACH, false},
	        {EHOSTUNREACH, true},
	        {EHOSTUNREACH, true},
	        {EHOSTUNREACH, true},
	};

	switch (type) {
	case ICMP_DUR:
		if (code >= ARRAY_COUNT(unreach))
			return 0;
		*is_hard = unreach[code].is_hard;
		return unreach[code].err;
	case ICMP_TE:
		*is_hard = false;
		return EHOSTUNREACH;
	case ICMP_PP:
		*is_hard = true;
		return EPROTO;
	default:
		return 0;
	}
}

static void udp_error_msg(struct stack *s, struct stack_msg *m)
{
	udp_error(s, (uint32_t)(m->arg >> 32), (int)(uint32_t)m->arg);
}

/* A TCP error on its way to the stack that has the connection. */
struct tcp_error {
	uint32_t local, remote, seq, mtu;
	uint16_t local_port, remote_port;
	int err;
};

static void tcp_error(struct stack *s, const struct tcp_error *e)
{
	ip_addr_t local, remote;
	struct conn *c;

	ip_addr_set_zero_ip4(&local);
	ip_addr_set_zero_ip4(&remote);
	ip_2_ip4(&local)->addr = e->local;
	ip_2_ip4(&remote)->addr = e->remote;
	c = conn_find(s, &remote, &local, e->remote_port, e->local_port);
	/* the quoted segment must be one that is under way, else anybody could end a connection */
	if (!c || !c->pcb || e->seq - c->pcb->lastack > c->pcb->snd_nxt - c->pcb->lastack)
		return;
	COUNT(s, icmp_errors, 1);
	if (e->mtu) {
		/* RFC 1191: from now on segments that fit. What is under way is repeated as it is, which
		 * works, since segments leave without "don't fragment". */
		uint32_t mss = e->mtu - 40;

		if (c->pcb->state >= ESTABLISHED && mss < c->pcb->mss) {
			c->pcb->mss = (u16_t)mss;
			c->wire_mss = 0;
		}
		return;
	}
	/* an open connection outlives errors (RFC 1122 4.2.3.9, RFC 5927) */
	if (c->pcb->state == SYN_SENT)
		tcp_fail(s, c, e->err, true);
}

static void tcp_error_msg(struct stack *s, struct stack_msg *m)
{
	tcp_error(s, m->ptr);
	free(m->ptr);
}

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* A quoted packet that we have sent: l4 are at least QUOTE_SIZE bytes. */
static void quoted(struct stack *s, const uint8_t *ip, const uint8_t *l4, int err, bool is_hard, uint32_t mtu)
{
	uint32_t local, remote, owner;
	uint16_t local_port = (uint16_t)be16(l4), remote_port = (uint16_t)be16(l4 + 2);

	memcpy(&local, ip + 12, 4);
	memcpy(&remote, ip + 16, 4);
	if (ip[9] == IP_PROTO_UDP && (is_hard || mtu)) {
		const struct udp_entry *e = udp_find(s, local, local_port, remote, remote_port);
		struct stack_msg *m;

		if (!e || !e->remote_ip)
			return;
		COUNT(s, icmp_errors, 1);
		m = calloc(1, sizeof(*m));
		if (!m)
			return;
		m->fn = udp_error_msg;
		m->arg = (uint64_t)e->ep << 32 | (uint32_t)err;
		m->is_heap = true;
		stack_post(s->peers[e->ep / s->ep_count], m);
	} else if (ip[9] == IP_PROTO_TCP) {
		struct tcp_error e = {local, remote, 0, mtu, local_port, remote_port, err};
		struct stack_msg *m;

		e.seq = be16(l4 + 4) << 16 | be16(l4 + 6);
		owner = nic_owner(s->nic, AF_INET, &remote, remote_port, &local, local_port);
		if (owner == s->idx) {
			tcp_error(s, &e);
			return;
		}
		m = calloc(1, sizeof(*m));
		if (!m)
			return;
		m->ptr = malloc(sizeof(e));
		if (!m->ptr) {
			free(m);
			return;
		}
		memcpy(m->ptr, &e, sizeof(e));
		m->fn = tcp_error_msg;
		m->is_heap = true;
		stack_post(s->peers[owner], m);
	}
}

void icmp_input(struct pbuf *p, struct netif *inp)
{
	struct stack *s = stack_current;
	const uint8_t *icmp = p->payload, *ip = icmp + ICMP_HEAD_SIZE;
	uint32_t header, local, mtu = 0;
	bool is_hard = false;
	int err;

	COUNT(s, icmp_rx, 1);
	if (p->len)
		mib_icmp(s, icmp[0], false);
	if (p->len < ICMP_HEAD_SIZE + IP_HLEN || p->next)
		goto on;
	err = errno_of(icmp[0], icmp[1], &is_hard);
	if (!err)
		goto on;
	header = (uint32_t)(ip[0] & 15) * 4;
	if (ip[0] >> 4 != 4 || header < IP_HLEN || p->len < ICMP_HEAD_SIZE + header + QUOTE_SIZE)
		goto on;
	IF__NETIF_CHECKSUM_ENABLED(inp, NETIF_CHECKSUM_CHECK_ICMP)
	{
		if (inet_chksum_pbuf(p)) {
			COUNT(s, icmp_in_errors, 1);
			goto on;
		}
	}
	memcpy(&local, ip + 12, 4);
	if ((local != s->address && !loop_serves(s, local)) || (be16(ip + 6) & IP_OFFMASK))
		goto on; /* not ours, or without ports */
	if (icmp[0] == ICMP_DUR && icmp[1] == DUR_FRAG_NEEDED) {
		mtu = be16(icmp + 6);
		if (mtu < 552 || mtu >= s->mtu) /* min_pmtu, and nothing we would be told */
			goto on;
	}
	quoted(s, ip, ip + header, err, is_hard, mtu);
on:
	lwip_icmp_input(p, inp);
}
