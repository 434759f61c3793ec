/* predict.c - the segment that everybody expects, past lwIP's general path (header prediction, Van Jacobson).
 *
 * Runs in the stack's thread. On an established connection without loss nearly every segment is the next one:
 * no options, no flags but ACK and PSH, in sequence, and it acknowledges something that is under way or
 * carries data, or both. For that one case this does to the pcb what lwIP's tcp_input, tcp_process and
 * tcp_receive would do; everything else is left to them. What is due to be sent goes out in the turn's tx
 * phase, so a burst of segments is acknowledged once.
 */
#include "stack_int.h"

#include <errno.h>
#include <string.h>

#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "rx_buf.h"

enum { ETH_SIZE = 14 };

/* Takes wholly acknowledged segments off one of the pcb's queues. How much data that was. */
static uint32_t queue_acked(struct tcp_pcb *pcb, struct tcp_seg **queue, uint32_t ack)
{
	uint32_t size = 0;
	struct tcp_seg *seg;

	while ((seg = *queue) && (int32_t)(lwip_ntohl(seg->tcphdr->seqno) + TCP_TCPLEN(seg) - ack) <= 0) {
		*queue = seg->next;
		pcb->snd_queuelen = (u16_t)(pcb->snd_queuelen - pbuf_clen(seg->p));
		size += seg->len;
		tcp_seg_free(seg);
	}
	return size;
}

/* RFC 5681 section 3.1 with byte counting (RFC 3465). In slow start all of it counts, not two segments at
 * most: peers acknowledge whole bursts at once, as we do here. */
static void cwnd_grow(struct tcp_pcb *pcb, uint32_t acked)
{
	if (pcb->cwnd < pcb->ssthresh) {
		TCP_WND_INC(pcb->cwnd, acked);
		return;
	}
	TCP_WND_INC(pcb->bytes_acked, acked);
	if (pcb->bytes_acked >= pcb->cwnd) {
		pcb->bytes_acked -= pcb->cwnd;
		TCP_WND_INC(pcb->cwnd, pcb->mss);
	}
}

/* RFC 6298 section 2.3 in lwIP's units: sa is eight times, sv four times the value in ms. */
static void rtt_take(struct tcp_pcb *pcb)
{
	int32_t m = (int32_t)(s16_t)(tcp_ticks - pcb->rttest) - (pcb->sa >> 3);

	pcb->sa = (s16_t)(pcb->sa + m);
	if (m < 0)
		m = -m;
	pcb->sv = (s16_t)(pcb->sv + m - (pcb->sv >> 2));
	pcb->rto = (s16_t)((pcb->sa >> 3) + pcb->sv);
	pcb->rttest = 0;
}

/* The acknowledgement moves on. How much data lwIP's queues got rid of. */
static uint32_t ack_take(struct tcp_pcb *pcb, uint32_t ack)
{
	uint32_t size;

	pcb->rto = (s16_t)((pcb->sa >> 3) + pcb->sv);
	cwnd_grow(pcb, ack - pcb->lastack);
	pcb->lastack = ack;
	size = queue_acked(pcb, &pcb->unacked, ack) + queue_acked(pcb, &pcb->unsent, ack);
	pcb->rtime = pcb->unacked ? 0 : -1;
	pcb->polltmr = 0;
	pcb->snd_buf += size;
	if (pcb->rttest && (int32_t)(pcb->rtseq - ack) < 0)
		rtt_take(pcb);
	return size;
}

/* Nothing about the connection is out of the ordinary. */
static bool is_smooth(struct stack *s, const struct conn *c)
{
	const struct tcp_pcb *pcb = c->pcb;

	return pcb && pcb->state == ESTABLISHED && c->ep != ENDPOINT_NONE && !c->is_released &&
	       pcb->recv == tcp_on_recv && !pcb->ooseq && !pcb->refused_data && !pcb->dupacks && !pcb->nrtx &&
	       !pcb->persist_backoff && !(pcb->flags & (TF_RXCLOSED | TF_INFR | TF_RTO)) &&
	       !LWIP_TCP_SACK_VALID(pcb, 0) && !c->rexmit_open && !c->dsack_wait && !c->min_ttl &&
	       recover_is_idle(c) && !tcp_is_shut_both(s, c);
}

bool predict_input(struct stack *s, struct nic_frame *f)
{
	uint8_t *ip = f->data + ETH_SIZE;
	const struct ip_hdr *h = (const void *)ip;
	const struct tcp_hdr *t = (const void *)(ip + IP_HLEN);
	uint32_t total = lwip_ntohs(h->_len), ack, seq, wnd, payload, acked = 0;
	struct tcp_seen seen;
	ip_addr_t src, dst;
	struct tcp_pcb *pcb;
	struct conn *c;
	struct pbuf *p;

	/* the port has checked checksums, and that lengths agree */
	if (f->flags || h->_v_hl != 0x45 || h->_proto != IP_PROTO_TCP || h->dest.addr != s->address ||
	        (h->_offset & PP_HTONS(IP_OFFMASK | IP_MF)) || total < IP_HLEN + TCP_HLEN ||
	        f->size < ETH_SIZE + total || TCPH_HDRLEN_BYTES(t) != TCP_HLEN ||
	        (TCPH_FLAGS(t) & ~TCP_PSH) != TCP_ACK)
		return false;
	ip_addr_copy_from_ip4(src, h->src);
	ip_addr_copy_from_ip4(dst, h->dest);
	c = conn_find(s, &src, &dst, lwip_ntohs(t->src), lwip_ntohs(t->dest));
	if (!c || !is_smooth(s, c))
		return false;
	pcb = c->pcb;
	payload = total - IP_HLEN - TCP_HLEN;
	seq = lwip_ntohl(t->seqno);
	ack = lwip_ntohl(t->ackno);
	if (seq != pcb->rcv_nxt || payload > pcb->rcv_wnd ||
	        ack - pcb->lastack > pcb->snd_nxt - pcb->lastack || (!payload && ack == pcb->lastack) ||
	        conn_is_pressed(s, c, payload, false))
		return false;
	p = rx_buf_wrap(f->buf, f->priv, ip + IP_HLEN + TCP_HLEN, (uint16_t)payload);
	tcp_ticks = s->now_ms;
	COUNT(s, tcp_rx_predicted, 1);
	IP_STATS_INC(ip.recv);
	TCP_STATS_INC(tcp.recv);
	tcp_seen_before(s, c, payload, &seen);
	pcb->tmr = tcp_ticks;
	pcb->keep_cnt_sent = 0;
	pcb->persist_probe = 0;
	wnd = (uint32_t)SND_WND_SCALE(pcb, lwip_ntohs(t->wnd));
	/* RFC 9293 section 3.10.7.4, "ESTABLISHED STATE" */
	if ((int32_t)(pcb->snd_wl1 - seq) < 0 || (pcb->snd_wl1 == seq && (int32_t)(pcb->snd_wl2 - ack) < 0) ||
	        (pcb->snd_wl2 == ack && wnd > pcb->snd_wnd)) {
		pcb->snd_wnd = wnd;
		pcb->snd_wnd_max = LWIP_MAX(pcb->snd_wnd_max, wnd);
		pcb->snd_wl1 = seq;
		pcb->snd_wl2 = ack;
	}
	if (ack != pcb->lastack)
		acked = ack_take(pcb, ack);
	if (payload) {
		pcb->rcv_nxt += payload;
		pcb->rcv_wnd -= payload;
		tcp_update_rcv_ann_wnd(pcb);
		tcp_ack(pcb);
	}
	recover_passed(c);
	if (acked)
		tx_acked(s, c, acked);
	tcp_seen_after(s, c, &seen);
	conn_touch(s, c);
	if (!payload)
		pbuf_free(p);
	else if (unlikely(rx_add(s, c, p)))
		tcp_rx_broken(s, c);
	return true;
}
