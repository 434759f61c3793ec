/* timer.c - the timers of connections, on a wheel of one-millisecond slots.
 *
 * Runs in the stack's thread. lwIP's tcp_slowtmr and tcp_fasttmr are not used for this: each connection is
 * visited only when it is due, and then the functions below do with lwIP's exported pieces what its timers
 * would, with millisecond resolution. A timer that moved later is left where it is and looked at again when
 * its old time comes.
 */
#include "stack_int.h"

#include <errno.h>

static void wheel_insert(struct stack *s, struct conn *c, uint32_t due)
{
	struct conn **slot = &s->wheel[due % WHEEL_SIZE];

	c->timer_due = due;
	c->timer_next = *slot;
	if (*slot)
		(*slot)->timer_prev = &c->timer_next;
	*slot = c;
	c->timer_prev = slot;
	c->is_linked = 1;
	s->wheel_armed++;
}

void timer_drop(struct stack *s, struct conn *c)
{
	if (!c->is_linked)
		return;
	*c->timer_prev = c->timer_next;
	if (c->timer_next)
		c->timer_next->timer_prev = c->timer_prev;
	c->is_linked = 0;
	s->wheel_armed--;
}

static inline void earliest(uint32_t now, bool *any, uint32_t *due, uint32_t at)
{
	if (!*any || (int32_t)(at - *due) < 0)
		*due = at;
	*any = true;
	(void)now;
}

static uint32_t persist_interval(const struct stack *s, const struct tcp_pcb *pcb)
{
	uint32_t base = pcb->rto > 200 ? (uint32_t)pcb->rto : 200;
	uint32_t shift = pcb->persist_backoff > 8 ? 8 : pcb->persist_backoff - 1u;

	(void)s;
	return base << shift > 60000 ? 60000 : base << shift;
}

/* When the connection must be looked at next. Notes on the way when each running timer started: lwIP sets
 * rtime to 0 at every start or restart of its retransmission timer, and 1 marks a start that was seen. */
static bool next_due(struct stack *s, struct conn *c, uint32_t *due)
{
	struct tcp_pcb *pcb = c->pcb;
	uint32_t now = s->now_ms;
	bool any = false;

	if (c->reclaim_armed)
		earliest(now, &any, due, c->reclaim_due);
	if (!pcb)
		return any;
	if (pcb->state == TIME_WAIT) {
		earliest(now, &any, due, pcb->tmr + s->cfg.time_wait_ms);
		return any;
	}
	if (pcb->rtime == 0) {
		c->rto_start = now;
		pcb->rtime = 1;
	}
	if (pcb->rtime > 0)
		earliest(now, &any, due, c->rto_start + (uint32_t)pcb->rto);
	if (pcb->persist_backoff > 0) {
		if (!c->persist_seen) {
			c->persist_seen = 1;
			c->persist_start = now;
		}
		earliest(now, &any, due, c->persist_start + persist_interval(s, pcb));
	} else {
		c->persist_seen = 0;
	}
	if (pcb->flags & TF_ACK_DELAY) {
		if (!c->ack_armed) {
			c->ack_armed = 1;
			c->ack_start = now;
		}
		earliest(now, &any, due, c->ack_start + s->cfg.delayed_ack_ms);
	} else {
		c->ack_armed = 0;
	}
	if (c->cork_armed)
		earliest(now, &any, due, c->cork_due);
	if (pcb->flags & TF_CLOSEPEND)
		earliest(now, &any, due, now + 5);
	if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED))
		earliest(now, &any, due, pcb->tmr + FIN_WAIT2_MS);
	if (pcb->state == SYN_RCVD || pcb->state == LAST_ACK || pcb->state == CLOSING)
		earliest(now, &any, due, pcb->tmr + FIN_WAIT2_MS);
	if (ip_get_option(pcb, SOF_KEEPALIVE) && (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT))
		earliest(
		        now, &any, due, pcb->tmr + pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl + 1);
	return any;
}

void timer_arm(struct stack *s, struct conn *c)
{
	uint32_t due = 0;

	if (!next_due(s, c, &due)) {
		return; /* a linked timer finds nothing to do and goes */
	}
	if ((int32_t)(due - s->wheel_ms) <= 0)
		due = s->wheel_ms + 1;
	if (c->is_linked) {
		if ((int32_t)(due - c->timer_due) >= 0)
			return;
		timer_drop(s, c);
	}
	wheel_insert(s, c, due);
}

/* The peer's DSACK says that a time-out was in vain (RFC 3708): it acknowledges later than the floor allows.
 * The floor follows the time it took, and what the time-out did to the window is taken back. */
static void timeout_was_vain(struct conn *c, uint32_t took)
{
	struct tcp_pcb *pcb = c->pcb;

	took += took / 4;
	if (took > RTO_FLOOR_MAX_MS)
		took = RTO_FLOOR_MAX_MS;
	if (took > c->rto_floor)
		c->rto_floor = (uint16_t)took;
	if (pcb && pcb->cwnd < c->cwnd_before) {
		pcb->cwnd = c->cwnd_before;
		pcb->ssthresh = c->ssthresh_before;
	}
}

void timer_acked(struct stack *s, struct conn *c)
{
	if (!c->rexmit_open) {
		if (c->rto_floor > s->cfg.rto_min_ms && ++c->clean_acks == 0)
			c->rto_floor--;
		return;
	}
	c->rexmit_open = 0;
	c->late_ms = (uint16_t)LWIP_MIN(s->now_ms - c->rexmit_first, 60000u);
	c->dsack_wait = !c->dsack_seen;
	if (c->dsack_seen)
		timeout_was_vain(c, c->late_ms);
	c->dsack_seen = 0;
}

void timer_dsack(struct stack *s, struct conn *c)
{
	(void)s;
	if (c->rexmit_open) {
		c->dsack_seen = 1; /* the acknowledgement comes with it, or right after */
	} else if (c->dsack_wait) {
		c->dsack_wait = 0;
		timeout_was_vain(c, c->late_ms);
	}
}

/* The segment at the head was not acknowledged in time (RFC 6298 section 5.4 to 5.7). */
static bool rexmit_timeout(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	uint32_t limit = c->user_timeout_ms ? c->user_timeout_ms : REXMIT_TOTAL_MS;
	tcpwnd_size_t wnd;
	uint32_t rto;

	COUNT(s, tcp_timeouts, 1);
	/* lwIP's nrtx counts fast retransmissions too: an episode of time-outs is told by our own flag */
	if (!c->rexmit_open) {
		c->rexmit_open = 1;
		c->dsack_wait = c->dsack_seen = 0;
		c->rexmit_first = c->rexmit_since = c->rto_start;
		c->rexmit_seq = pcb->lastack;
		c->cwnd_before = pcb->cwnd;
		c->ssthresh_before = pcb->ssthresh;
	}
	if (pcb->state == SYN_SENT || pcb->state == SYN_RCVD) {
		if (c->syn_tries++ >= SYN_RETRIES)
			return false;
		pcb->nrtx = 0;
	} else {
		if (s->now_ms - c->rexmit_since >= limit)
			return false;
		if (pcb->nrtx >= TCP_MAXRTX - 1)
			pcb->nrtx = TCP_MAXRTX - 2; /* the limit above decides, not lwIP's count */
	}
	rto = (uint32_t)pcb->rto * 2;
	if (tcp_rexmit_rto_prepare(pcb) != ERR_OK && !(pcb->unacked == NULL && pcb->unsent != NULL)) {
		pcb->rtime = 0;
		return true;
	}
	pcb->rto = (s16_t)(rto > 32000 ? 32000 : rto);
	pcb->rtime = 0;
	wnd = LWIP_MIN(pcb->cwnd, pcb->snd_wnd);
	pcb->ssthresh = LWIP_MAX(wnd >> 1, (tcpwnd_size_t)(pcb->mss << 1));
	pcb->cwnd = pcb->mss;
	pcb->bytes_acked = 0;
	tcp_rexmit_rto_commit(pcb);
	COUNT(s, tcp_retransmits, 1);
	if (c->ep != ENDPOINT_NONE)
		atomic_fetch_add_explicit(&stack_ep(s, c->ep)->info_retransmits, 1, memory_order_relaxed);
	return true;
}

/* The peer's window is closed or too small for the next segment (RFC 1122 4.2.2.17): probes go on as long as
 * they are answered. */
static bool persist_timeout(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	bool is_sent = true;

	if (pcb->persist_probe >= TCP_MAXRTX)
		return false;
	if (pcb->snd_wnd == 0)
		is_sent = tcp_zero_window_probe(pcb) == ERR_OK;
	else if (tcp_split_unsent_seg(pcb, (u16_t)LWIP_MIN(pcb->snd_wnd, 0xffff)) == ERR_OK)
		tcp_output(pcb);
	if (is_sent && pcb->persist_backoff > 0 && pcb->persist_backoff < 9)
		pcb->persist_backoff++;
	c->persist_start = s->now_ms;
	return true;
}

/* True when the connection must be given up. */
static bool keepalive_timeout(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	uint32_t idle = s->now_ms - pcb->tmr;

	if (idle > pcb->keep_idle + pcb->keep_cnt * pcb->keep_intvl)
		return true;
	if (idle > pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl && tcp_keepalive(pcb) == ERR_OK)
		pcb->keep_cnt_sent++;
	return false;
}

static void fire(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb;
	uint32_t now = s->now_ms;

	COUNT(s, timers_fired, 1);
	if (c->reclaim_armed && (int32_t)(now - c->reclaim_due) >= 0) {
		c->reclaim_armed = 0;
		rx_reclaim(s, c);
		tx_idle(s, c);
	}
	pcb = c->pcb;
	if (!pcb)
		return;
	if (pcb->state == TIME_WAIT) {
		if ((int32_t)(now - (pcb->tmr + s->cfg.time_wait_ms)) >= 0) {
			focus_enter(c);
			tcp_abort(pcb); /* frees it; nothing is sent from TIME_WAIT */
			focus_leave(s);
		}
		return;
	}
	focus_enter(c);
	if (pcb->persist_backoff > 0) {
		if (c->persist_seen && (int32_t)(now - (c->persist_start + persist_interval(s, pcb))) >= 0 &&
		        !persist_timeout(s, c))
			goto give_up;
	} else if (pcb->rtime > 0 && (int32_t)(now - (c->rto_start + (uint32_t)pcb->rto)) >= 0) {
		if (!rexmit_timeout(s, c))
			goto give_up;
	}
	if ((pcb->flags & TF_ACK_DELAY) && c->ack_armed &&
	        (int32_t)(now - (c->ack_start + s->cfg.delayed_ack_ms)) >= 0) {
		tcp_ack_now(pcb);
		tcp_output(pcb);
		tcp_clear_flags(pcb, TF_ACK_DELAY | TF_ACK_NOW);
		c->ack_armed = 0;
	}
	if (pcb->flags & TF_CLOSEPEND)
		tcp_fasttmr(); /* tries the FIN again */
	if ((pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED)) || pcb->state == LAST_ACK ||
	        pcb->state == SYN_RCVD || pcb->state == CLOSING) {
		/* SYN_RCVD and the rest also end by their retransmission limit */
		if ((int32_t)(now - (pcb->tmr + FIN_WAIT2_MS)) >= 0)
			goto give_up;
	}
	if (ip_get_option(pcb, SOF_KEEPALIVE) && (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT) &&
	        keepalive_timeout(s, c))
		goto give_up;
	focus_leave(s);
	conn_touch(s, c);
	return;
give_up:
	focus_leave(s);
	tcp_fail(s, c, ETIMEDOUT, pcb->state == SYN_SENT);
}

uint32_t timer_run(struct stack *s)
{
	uint32_t fired = 0;

	while ((int32_t)(s->now_ms - s->wheel_ms) > 0) {
		struct conn *due = NULL, **tail = &due;
		struct conn *c, *next;

		s->wheel_ms++;
		if (!s->wheel_armed) {
			s->wheel_ms = s->now_ms;
			break;
		}
		/* take what is due out of the slot first: firing may add to it or free neighbours */
		for (c = s->wheel[s->wheel_ms % WHEEL_SIZE]; c; c = next) {
			next = c->timer_next;
			if ((int32_t)(c->timer_due - s->wheel_ms) > 0)
				continue;
			timer_drop(s, c);
			c->timer_next = NULL;
			c->timer_prev = tail;
			*tail = c;
			tail = &c->timer_next;
			c->is_linked = 1; /* on the due list: timer_drop takes it off as from a slot */
			s->wheel_armed++;
		}
		while ((c = due)) {
			timer_drop(s, c);
			if (due)
				due->timer_prev = &due;
			fire(s, c);
			fired++;
			if (c->pcb || c->ep != ENDPOINT_NONE)
				timer_arm(s, c);
		}
	}
	return fired;
}

uint32_t timer_next(struct stack *s, uint32_t max_ms)
{
	if (!s->wheel_armed)
		return max_ms;
	for (uint32_t i = 1; i <= max_ms; i++) {
		for (struct conn *c = s->wheel[(s->wheel_ms + i) % WHEEL_SIZE]; c; c = c->timer_next)
			if ((int32_t)(c->timer_due - (s->wheel_ms + i)) <= 0)
				return i;
	}
	return max_ms;
}
