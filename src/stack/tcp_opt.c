/* tcp_opt.c - what follows in a stack from the options of a TCP socket, and what TCP_INFO tells of it.
 *
 * Runs in the stack's thread. The values are in the endpoint, where applications write them: each is read
 * with bounds of its own, at open, at accept, and when the application posts that it has changed them.
 */
#include "stack_int.h"

#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"

enum {
	KEEP_MAX_S = 32767,   /* tcp(7) */
	RCV_LIMIT_MIN = 1152, /* half of the smallest SO_RCVBUF */
	MSS_MIN = 88,
	MSS_MAX = 32767,
	LINGER2_MAX_S = 120,
	QUICKACK_SET = 3, /* by the program: sock/opt_tcp.c */
	ETH_HEADER = 14,
};

/* The receive window that SO_RCVBUF and TCP_WINDOW_CLAMP leave. The kernel shows a buffer doubled, as half of
 * it is for its own needs; ours holds what was asked for. */
uint32_t tcp_rcv_limit(const struct stack *s, const struct endpoint *ep)
{
	int32_t size = ep_opt(ep, EPO_RCVBUF), clamp = ep_opt(ep, EPO_WINDOW_CLAMP);
	uint32_t limit = s->cfg.receive_buffer;

	if (ep_opt_flag(ep, EPF_RCVBUF_SET))
		limit = size < 2 * RCV_LIMIT_MIN ? (uint32_t)RCV_LIMIT_MIN : (uint32_t)size / 2;
	if (clamp > 0 && (uint32_t)clamp < limit)
		limit = LWIP_MAX((uint32_t)clamp, (uint32_t)RCV_LIMIT_MIN);
	return LWIP_MIN(limit, TCP_WND);
}

bool tcp_rcv_is_free(const struct endpoint *ep)
{
	return !ep_opt_flag(ep, EPF_RCVBUF_SET) && ep_opt(ep, EPO_WINDOW_CLAMP) <= 0;
}

/* A client may have written anything: what cannot be counts as never set. */
static uint32_t sane(int32_t v, int32_t min, int32_t max, uint32_t usual)
{
	return v < min || v > max ? usual : (uint32_t)v;
}

void tcp_options(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	const struct endpoint *ep;
	uint32_t limit;

	if (!pcb || c->ep == ENDPOINT_NONE)
		return;
	ep = stack_ep(s, c->ep);
	if (ep_opt_flag(ep, EPF_KEEPALIVE))
		ip_set_option(pcb, SOF_KEEPALIVE);
	else
		ip_reset_option(pcb, SOF_KEEPALIVE);
	pcb->keep_idle = sane(ep_opt(ep, EPO_KEEPIDLE), 1, KEEP_MAX_S, 7200) * 1000u;
	pcb->keep_intvl = sane(ep_opt(ep, EPO_KEEPINTVL), 1, KEEP_MAX_S, 75) * 1000u;
	pcb->keep_cnt = sane(ep_opt(ep, EPO_KEEPCNT), 1, 127, 9);
	pcb->tos = (u8_t)ep_opt(ep, EPO_TOS);
	pcb->ttl = (u8_t)sane(ep_opt(ep, EPO_TTL), 1, 255, 64);
	c->user_timeout_ms = sane(ep_opt(ep, EPO_USER_TIMEOUT), 0, INT32_MAX, 0);
	c->max_seg = (uint16_t)sane(ep_opt(ep, EPO_MAXSEG), MSS_MIN, MSS_MAX, 0);
	c->min_ttl = (uint8_t)sane(ep_opt(ep, EPO_MINTTL), 0, 255, 0);
	c->is_quick = ep_opt(ep, EPO_QUICKACK) == QUICKACK_SET;
	c->linger2_s = ep_opt(ep, EPO_LINGER2) < 0 ? -1
	                                           : (int16_t)sane(ep_opt(ep, EPO_LINGER2), 1, LINGER2_MAX_S,
	                                                     FIN_WAIT2_MS / 1000);
	limit = tcp_rcv_limit(s, ep);
	/* what has grown stays */
	if (limit != c->rcv_limit && !(c->rcv_limit > limit && tcp_rcv_is_free(ep)))
		rx_resize(s, c, limit);
}

/* lwIP walks its queues on every call, so it gets few long segments rather than many short ones where frames
 * may be that long. No longer than a quarter of our own window: lwIP tells the peer of more room by steps of
 * mss. */
void tcp_mss_set(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	uint32_t big = neigh_big(s, ip_2_ip4(&c->remote_ip)->addr), mss;

	if (!big || c->max_seg || loop_serves(s, ip_2_ip4(&c->remote_ip)->addr))
		return;
	if (!c->wire_mss)
		c->wire_mss = pcb->mss;
	mss = LWIP_MIN(big - ETH_HEADER - IP_HLEN - TCP_HLEN, c->rcv_limit / 4);
	pcb->mss = (u16_t)LWIP_MAX(mss, (uint32_t)c->wire_mss);
}

/* --- what goes out and comes in --- */

/* The options of the endpoint that a SYN or its answer speaks for, or NULL. */
static const struct endpoint *syn_endpoint(struct stack *s, const struct ip_hdr *ip, const struct tcp_hdr *h)
{
	ip_addr_t remote, local;
	const struct conn *c;

	ip_addr_copy_from_ip4(remote, ip->dest);
	ip_addr_copy_from_ip4(local, ip->src);
	c = conn_find(s, &remote, &local, lwip_ntohs(h->dest), lwip_ntohs(h->src));
	if (c && c->ep != ENDPOINT_NONE)
		return stack_ep(s, c->ep);
	if (c && c->listener)
		return stack_ep(s, c->listener->ep);
	if (s->out_conn && s->out_conn->is_connecting) /* its first: not in the hash yet */
		return stack_ep(s, s->out_conn->ep);
	return s->syn_listener ? stack_ep(s, s->syn_listener->ep) : NULL;
}

/* lwIP offers the same window and segment size in every SYN. */
static void syn_adapt(struct stack *s, const struct ip_hdr *ip, struct tcp_hdr *h, uint32_t header)
{
	const struct endpoint *ep = syn_endpoint(s, ip, h);
	uint8_t *opt = (uint8_t *)h + TCP_HLEN;
	uint32_t limit, most;

	if (!ep)
		return;
	limit = tcp_rcv_limit(s, ep);
	if (lwip_ntohs(h->wnd) > limit)
		h->wnd = lwip_htons((u16_t)limit);
	most = sane(ep_opt(ep, EPO_MAXSEG), MSS_MIN, MSS_MAX, 0);
	if (most && header >= TCP_HLEN + 4 && opt[0] == 2 && opt[1] == 4 &&
	        most < ((uint32_t)opt[2] << 8 | opt[3])) {
		opt[2] = (uint8_t)(most >> 8);
		opt[3] = (uint8_t)most;
	}
}

/* A SYN or FIN without data leaves once more (with data it is counted by that). The first SYN+ACK goes out
 * before there is a connection. */
static void count_again(struct stack *s, struct conn *c, uint8_t flags, uint32_t size)
{
	if (!size && (flags & TCP_SYN ? c->segs_out || (flags & TCP_ACK) : c->fin_out))
		COUNT(s, tcp_out_again, 1);
	if (flags & TCP_FIN)
		c->fin_out = 1;
}

void tcp_segment_out(struct stack *s, struct pbuf *p)
{
	const struct ip_hdr *ip = p->payload;
	struct conn *c = s->out_conn;
	struct tcp_hdr *h;
	uint32_t header, seq, size, segs;

	if (p->len < IP_HLEN + TCP_HLEN || IPH_PROTO(ip) != IP_PROTO_TCP || IPH_HL_BYTES(ip) != IP_HLEN)
		return;
	h = (struct tcp_hdr *)((uint8_t *)p->payload + IP_HLEN);
	header = TCPH_HDRLEN_BYTES(h);
	if (unlikely(TCPH_FLAGS(h) & TCP_SYN) && p->len >= IP_HLEN + header)
		syn_adapt(s, ip, h, header);
	if (!c || !c->pcb || c->pcb->local_port != lwip_ntohs(h->src) ||
	        c->pcb->remote_port != lwip_ntohs(h->dest) ||
	        ip_2_ip4(&c->pcb->remote_ip)->addr != ip->dest.addr)
		return;
	seq = lwip_ntohl(h->seqno);
	size = p->tot_len - IP_HLEN - header;
	segs = size > c->wire_mss && c->wire_mss ? (size + c->wire_mss - 1) / c->wire_mss : 1;
	if (unlikely(TCPH_FLAGS(h) & (TCP_SYN | TCP_FIN)))
		count_again(s, c, TCPH_FLAGS(h), size);
	c->segs_out += segs;
	if (TCPH_FLAGS(h) & TCP_SYN)
		c->snd_max = seq + 1;
	if (!size)
		return;
	c->data_segs_out += segs;
	c->bytes_sent += size;
	c->data_sent_ms = s->now_ms;
	if ((int32_t)(seq - c->snd_max) < 0) {
		c->segs_again++;
		COUNT(s, tcp_out_again, 1);
		c->bytes_again += size;
		c->rtt_ns = 0; /* Karn: no sample of what was sent twice */
	} else if (!c->rtt_ns) {
		c->rtt_ns = s->now_ns;
		c->rtt_seq = seq + size;
	}
	if ((int32_t)(seq + size - c->snd_max) > 0)
		c->snd_max = seq + size;
}

void tcp_rtt_sample(struct stack *s, struct conn *c, uint64_t ns)
{
	uint32_t us = (uint32_t)LWIP_MIN(ns / 1000, 60000000u), off;

	if (!us)
		us = 1;
	if (!c->min_rtt_us || us < c->min_rtt_us)
		c->min_rtt_us = us;
	if (!c->srtt_us) { /* RFC 6298 section 2 */
		c->srtt_us = us;
		c->rttvar_us = us / 2;
		/* lwIP would take many samples to come down from the SYN's time-out */
		c->pcb->sa = (s16_t)LWIP_MIN(us / 1000 << 3, 30000);
		c->pcb->sv = (s16_t)LWIP_MIN(LWIP_MAX(us / 1000 * 2, 3), 10000);
		c->pcb->rto = (s16_t)((c->pcb->sa >> 3) + c->pcb->sv);
	} else {
		off = us > c->srtt_us ? us - c->srtt_us : c->srtt_us - us;
		c->rttvar_us = (uint32_t)((3ull * c->rttvar_us + off) / 4);
		c->srtt_us = (uint32_t)((7ull * c->srtt_us + us) / 8);
	}
	if (c->ep != ENDPOINT_NONE)
		atomic_store_explicit(&stack_ep(s, c->ep)->info_rtt_us, c->srtt_us, memory_order_relaxed);
}

void tcp_seen_before(struct stack *s, struct conn *c, uint32_t payload, struct tcp_seen *seen)
{
	seen->una = c->pcb->lastack;
	seen->nxt = c->pcb->rcv_nxt;
	seen->is_open = c->pcb->state >= ESTABLISHED;
	c->segs_in++;
	if (payload) {
		c->data_segs_in++;
		c->data_recv_ms = s->now_ms;
	}
}

void tcp_seen_after(struct stack *s, struct conn *c, const struct tcp_seen *seen)
{
	const struct tcp_pcb *pcb = c->pcb;

	if (!seen->is_open || !pcb)
		return;
	c->bytes_received += pcb->rcv_nxt - seen->nxt;
	if (pcb->lastack == seen->una)
		return;
	c->bytes_acked += pcb->lastack - seen->una;
	c->ack_recv_ms = s->now_ms;
	if (c->rtt_ns && (int32_t)(pcb->lastack - c->rtt_seq) >= 0) {
		tcp_rtt_sample(s, c, s->now_ns - c->rtt_ns);
		c->rtt_ns = 0;
	}
}

/* --- TCP_INFO --- */

static uint32_t segments(const struct tcp_seg *seg)
{
	uint32_t n = 0;

	for (; seg; seg = seg->next)
		n += seg->len > 0;
	return n;
}

void tcp_info_fill(struct stack *s, const struct conn *c, struct conn_info *info)
{
	const struct tcp_pcb *pcb = c->pcb;
	const struct endpoint *ep = stack_ep(s, c->ep);

	*info = (struct conn_info){
	        .bytes_acked = c->bytes_acked,
	        .bytes_received = c->bytes_received,
	        .bytes_sent = c->bytes_sent,
	        .bytes_again = c->bytes_again,
	        .segs_in = c->segs_in,
	        .segs_out = c->segs_out,
	        .data_segs_in = c->data_segs_in,
	        .data_segs_out = c->data_segs_out,
	        .segs_again = c->segs_again + c->syn_tries,
	        .timeouts = c->timeouts,
	        .rtt_us = c->srtt_us,
	        .rttvar_us = c->rttvar_us,
	        .min_rtt_us = c->min_rtt_us,
	        .data_sent_ago_ms = s->now_ms - c->data_sent_ms,
	        .data_recv_ago_ms = s->now_ms - c->data_recv_ms,
	        .ack_recv_ago_ms = s->now_ms - c->ack_recv_ms,
	        .mtu = s->mtu,
	        .rto_ms = atomic_load_explicit(&ep->info_rto_ms, memory_order_relaxed),
	        .mss = atomic_load_explicit(&ep->info_mss, memory_order_relaxed),
	};
	if (!pcb)
		return;
	info->advmss = tcp_eff_send_mss_netif(TCP_MSS, &s->netif, &pcb->remote_ip);
	if (c->max_seg && c->max_seg < info->advmss)
		info->advmss = c->max_seg;
	info->options = (uint8_t)((pcb->flags & TF_SACK ? CONN_INFO_SACK : 0) |
	                          (pcb->flags & TF_WND_SCALE ? CONN_INFO_WSCALE : 0));
	info->snd_wscale = pcb->snd_scale;
	info->rcv_wscale = pcb->rcv_scale;
	info->rto_ms = (uint32_t)pcb->rto;
	info->mss = conn_mss(c);
	info->cwnd = pcb->cwnd;
	info->ssthresh = pcb->ssthresh;
	info->snd_wnd = pcb->snd_wnd;
	info->rcv_wnd = pcb->rcv_wnd;
	info->rcv_limit = c->rcv_limit;
	info->unacked = segments(pcb->unacked);
	info->notsent = atomic_load_explicit(&ep->tx_head, memory_order_relaxed) - c->tx_acked -
	                (pcb->snd_nxt - pcb->lastack);
	if (info->notsent > TX_BLOCK_COUNT * TX_BLOCK_SIZE)
		info->notsent = 0; /* a SYN or FIN is under way, or a client wrote nonsense */
	info->backoff = c->rexmit_open ? pcb->nrtx : 0;
	info->probes = pcb->persist_backoff ? pcb->persist_probe : pcb->keep_cnt_sent;
	info->is_recovering = (pcb->flags & TF_INFR) != 0;
	info->is_lost = c->rexmit_open;
}
