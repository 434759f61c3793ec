/* timer.c - the timers of connections, on a wheel of one-millisecond slots.
 *
 * Runs in the stack's thread. lwIP's tcp_slowtmr and tcp_fasttmr are not used for this: each connection is
 * visited only when it is due, and then the functions below do with lwIP's exported pieces what its timers
 * would, with millisecond resolution. A timer that moved later is left where it is and looked at again when
 * its old time comes.
 */
#include "stack_int.h"

#include <errno.h>

enum {
	FIRE_MAX = 64,  /* timers that go off in a turn */
	LOOK_MAX = 512, /* ... and that are looked at */
};

static void wheel_insert(struct stack *s, struct conn *c, uint32_t due)
{
	struct conn **slot = &s->wheel[due % WHEEL_SIZE];
	uint32_t *first = &s->wheel_first[due % WHEEL_SIZE];

	c->timer_due = due;
	if (!*slot || (int32_t)(due - *first) < 0)
		*first = due;
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

/* The timer that goes off next. */
struct due {
	uint32_t kind; /* enum report_timer; NONE: there is none */
	uint32_t at;
};

static inline void earliest(struct due *due, enum report_timer kind, uint32_t at)
{
	if (due->kind != REPORT_TIMER_NONE && (int32_t)(at - due->at) >= 0)
		return;
	due->kind = kind;
	due->at = at;
}

static uint32_t persist_interval(const struct stack *s, const struct tcp_pcb *pcb)
{
	uint32_t base = pcb->rto > 200 ? (uint32_t)pcb->rto : 200;
	uint32_t shift = pcb->persist_backoff > 8 ? 8 : pcb->persist_backoff - 1u;

	(void)s;
	return base << shift > 60000 ? 60000 : base << shift;
}

/* TCP_LINGER2: how long the peer's FIN is waited for once nobody reads any more. */
static uint32_t fin_wait2_ms(const struct conn *c)
{
	return c->linger2_s < 0 ? 0 : c->linger2_s ? (uint32_t)c->linger2_s * 1000u : FIN_WAIT2_MS;
}

/* When SYN_RCVD, LAST_ACK and CLOSING are given up: what is still acknowledged bit by bit goes on. */
static uint32_t end_due(const struct conn *c)
{
	uint32_t from = c->pcb->tmr;

	if (c->pcb->state != SYN_RCVD && (int32_t)(c->ack_recv_ms - from) > 0)
		from = c->ack_recv_ms;
	return from + FIN_WAIT2_MS;
}

/* When the connection must be looked at next. Notes on the way when each running timer started: lwIP sets
 * rtime to 0 at every start or restart of its retransmission timer, and 1 marks a start that was seen. */
static struct due protocol_due(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct due due = {REPORT_TIMER_NONE, 0};
	uint32_t now = s->now_ms, at;

	if (!pcb)
		return due;
	if (pcb->state == TIME_WAIT) {
		earliest(&due, REPORT_TIMER_TIME_WAIT, pcb->tmr + s->cfg.time_wait_ms);
		return due;
	}
	if (pcb->rtime == 0) {
		c->rto_start = now;
		pcb->rtime = 1;
	}
	if (pcb->rtime > 0)
		earliest(&due, REPORT_TIMER_REXMIT, c->rto_start + (uint32_t)pcb->rto);
	if (recover_due(s, c, &at))
		earliest(&due, REPORT_TIMER_RECOVER, at);
	if (pcb->persist_backoff > 0 && !pcb->unsent)
		pcb->persist_backoff = 0; /* all that waited was in the probe, and lwIP does not notice */
	if (pcb->persist_backoff > 0) {
		if (!c->persist_seen) {
			c->persist_seen = 1;
			c->persist_start = now;
		}
		earliest(&due, REPORT_TIMER_PERSIST, c->persist_start + persist_interval(s, pcb));
	} else {
		c->persist_seen = 0;
		c->is_probing = false;
	}
	if (pcb->flags & TF_ACK_DELAY) {
		if (!c->ack_armed) {
			c->ack_armed = 1;
			c->ack_start = now;
		}
		earliest(&due, REPORT_TIMER_ACK, c->ack_start + s->cfg.delayed_ack_ms);
	} else {
		c->ack_armed = 0;
	}
	if (c->is_deferred)
		earliest(&due, REPORT_TIMER_DEFER, c->defer_due);
	if (c->cork_armed)
		earliest(&due, REPORT_TIMER_CORK, c->cork_due);
	if (pcb->flags & TF_CLOSEPEND)
		earliest(&due, REPORT_TIMER_CLOSE, now + 5);
	if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED))
		earliest(&due, REPORT_TIMER_FIN_WAIT, pcb->tmr + fin_wait2_ms(c));
	if (pcb->state == SYN_RCVD || pcb->state == LAST_ACK || pcb->state == CLOSING)
		earliest(&due, REPORT_TIMER_END, end_due(c));
	if (ip_get_option(pcb, SOF_KEEPALIVE) && (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT))
		earliest(&due, REPORT_TIMER_KEEPALIVE,
		        pcb->tmr + pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl + 1);
	return due;
}

/* For tools; in the cache line that tcp_publish_info has just written. */
static void timer_publish(const struct stack *s, const struct conn *c, const struct due *due)
{
	struct endpoint *ep;

	if (c->ep == ENDPOINT_NONE || c->udp)
		return;
	ep = stack_ep(s, c->ep);
	atomic_store_explicit(&ep->info_timer, due->kind, memory_order_relaxed);
	atomic_store_explicit(&ep->info_timer_ms, due->at, memory_order_relaxed);
}

void timer_arm(struct stack *s, struct conn *c)
{
	struct due next = protocol_due(s, c);
	uint32_t due;

	timer_publish(s, c, &next);
	due = next.at;
	if (c->reclaim_armed && (next.kind == REPORT_TIMER_NONE || (int32_t)(c->reclaim_due - due) < 0))
		due = c->reclaim_due;
	else if (next.kind == REPORT_TIMER_NONE)
		return; /* a linked timer finds nothing to do and goes */
	if ((int32_t)(due - s->wheel_ms) <= 0)
		due = s->wheel_ms + 1;
	if (c->is_linked) {
		if ((int32_t)(due - c->timer_due) >= 0)
			return;
		timer_drop(s, c);
	}
	wheel_insert(s, c, due);
}

/* The peer's DSACK says that a time-out was in vain (RFC 3708): what it did to the window is taken back. If
 * the acknowledgement was late, not lost, the floor follows the time it took. */
static void timeout_was_vain(struct conn *c, uint32_t took, bool is_late)
{
	struct tcp_pcb *pcb = c->pcb;

	took += took / 4;
	if (took > RTO_FLOOR_MAX_MS)
		took = RTO_FLOOR_MAX_MS;
	if (is_late && took > c->rto_floor)
		c->rto_floor = (uint16_t)took;
	if (pcb && pcb->cwnd < c->cwnd_before) {
		pcb->cwnd = c->cwnd_before;
		pcb->ssthresh = c->ssthresh_before;
		recover_undo(c, c->cwnd_before);
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
	/* The first word is the answer to the repetition. Of more than two segments a peer that delays
	 * acknowledgements would have spoken before: its word was lost, which says nothing of its pace. */
	if (c->dsack_seen)
		timeout_was_vain(c, c->late_ms, c->may_be_delayed);
	c->dsack_seen = 0;
}

void timer_dsack(struct stack *s, struct conn *c)
{
	(void)s;
	if (c->rexmit_open) {
		c->dsack_seen = 1; /* the acknowledgement comes with it, or right after */
	} else if (c->dsack_wait) {
		c->dsack_wait = 0;
		timeout_was_vain(c, c->late_ms, true);
	}
}

/* TCP_SYNCNT */
static uint32_t syn_retries(struct stack *s, const struct conn *c)
{
	int32_t n = c->ep != ENDPOINT_NONE ? ep_opt(stack_ep(s, c->ep), EPO_SYNCNT) : 0;

	return n < 1 || n > 127 ? SYN_RETRIES : (uint32_t)n;
}

/* The segment at the head was not acknowledged in time (RFC 6298 section 5.4 to 5.7). */
static bool rexmit_timeout(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	uint32_t limit = c->user_timeout_ms ? c->user_timeout_ms : REXMIT_TOTAL_MS;
	tcpwnd_size_t ssthresh = pcb->ssthresh; /* stays while the same data is repeated (RFC 5681) */
	uint32_t rto;

	COUNT(s, tcp_timeouts, 1);
	c->timeouts++;
	/* lwIP's nrtx counts fast retransmissions too: an episode of time-outs is told by our own flag */
	if (!c->rexmit_open) {
		c->rexmit_open = 1;
		c->dsack_wait = c->dsack_seen = 0;
		c->rexmit_first = c->rexmit_since = c->rto_start;
		c->rexmit_seq = pcb->lastack;
		c->may_be_delayed = pcb->snd_nxt - pcb->lastack <= 2u * pcb->mss;
		c->cwnd_before = pcb->cwnd;
		c->ssthresh_before = pcb->ssthresh;
		ssthresh = LWIP_MIN(pcb->cwnd, pcb->snd_wnd);
		if (pcb->state >= ESTABLISHED)
			ssthresh = LWIP_MIN(ssthresh, (tcpwnd_size_t)(pcb->snd_nxt - pcb->lastack));
		ssthresh = LWIP_MAX(ssthresh >> 1, (tcpwnd_size_t)(pcb->mss << 1));
	}
	if (pcb->state == SYN_SENT || pcb->state == SYN_RCVD) {
		if (c->syn_tries++ >= syn_retries(s, c) ||
		        (c->user_timeout_ms && s->now_ms - c->rexmit_since >= limit))
			return false;
		pcb->nrtx = 0;
	} else {
		if (s->now_ms - c->rexmit_since >= limit)
			return false;
		if (pcb->nrtx >= TCP_MAXRTX - 1)
			pcb->nrtx = TCP_MAXRTX - 2; /* the limit above decides, not lwIP's count */
	}
	rto = (uint32_t)pcb->rto * 2;
	if (pcb->unacked && pcb->state >= ESTABLISHED && (pcb->flags & TF_SACK)) {
		pcb->ssthresh = ssthresh;
		if (recover_timeout(s, c)) {
			pcb->rto = (s16_t)(rto > 32000 ? 32000 : rto);
			pcb->rtime = 0;
			return true;
		}
	}
	if (tcp_rexmit_rto_prepare(pcb) != ERR_OK && !(pcb->unacked == NULL && pcb->unsent != NULL)) {
		pcb->rtime = 0;
		return true;
	}
	pcb->rto = (s16_t)(rto > 32000 ? 32000 : rto);
	pcb->rtime = 0;
	pcb->ssthresh = ssthresh;
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
	/* TCP_USER_TIMEOUT counts from the first probe, answered or not, as tcp_probe_timer has it */
	if (!c->is_probing) {
		c->is_probing = true;
		c->persist_since = s->now_ms;
	} else if (c->user_timeout_ms && s->now_ms - c->persist_since >= c->user_timeout_ms) {
		return false;
	}
	if (pcb->snd_wnd == 0)
		is_sent = tcp_zero_window_probe(pcb) == ERR_OK;
	else if (tcp_split_unsent_seg(pcb, (u16_t)LWIP_MIN(pcb->snd_wnd, pcb->mss)) == ERR_OK)
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

	if (c->user_timeout_ms) { /* decides instead of the count (tcp_keepalive_timer) */
		if (idle >= c->user_timeout_ms && pcb->keep_cnt_sent > 0)
			return true;
	} else if (idle > pcb->keep_idle + pcb->keep_cnt * pcb->keep_intvl) {
		return true;
	}
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
		if (c->udp)
			conn_touch(s, c);
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
	if (c->is_deferred && (int32_t)(now - c->defer_due) >= 0) {
		tcp_defer_end(s, c);
		pcb = c->pcb;
		if (!pcb)
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
	} else {
		recover_fire(s, c);
	}
	if ((pcb->flags & TF_ACK_DELAY) && c->ack_armed &&
	        (int32_t)(now - (c->ack_start + s->cfg.delayed_ack_ms)) >= 0) {
		/* without a buffer the flags stay, and it is tried again */
		tcp_ack_now(pcb);
		tcp_output(pcb);
		c->ack_armed = 0;
	}
	if (pcb->flags & TF_CLOSEPEND)
		tcp_fasttmr(); /* tries the FIN again */
	if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED) &&
	        (int32_t)(now - (pcb->tmr + fin_wait2_ms(c))) >= 0)
		goto give_up;
	if (pcb->state == LAST_ACK || pcb->state == SYN_RCVD || pcb->state == CLOSING) {
		/* SYN_RCVD and the rest also end by their retransmission limit */
		if ((int32_t)(now - end_due(c)) >= 0)
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

/* Takes the next connection out of the slot of wheel_ms. NULL: it is empty. */
static struct conn *slot_next(struct stack *s)
{
	struct conn *c = s->wheel_now;

	if (c)
		timer_drop(s, c);
	return c;
}

/* Slots are taken whole, and worked off in pieces: many timers may have the same time. What is due in a later
 * round of the wheel goes back. */
uint32_t timer_run(struct stack *s)
{
	uint32_t fired = 0, seen = 0;
	struct conn *c;

	for (;;) {
		while ((c = slot_next(s))) {
			if ((int32_t)(c->timer_due - s->wheel_ms) > 0) {
				wheel_insert(s, c, c->timer_due);
			} else {
				fire(s, c);
				fired++;
				if (c->pcb || c->ep != ENDPOINT_NONE)
					timer_arm(s, c);
			}
			if (fired == FIRE_MAX || ++seen == LOOK_MAX)
				return fired + 1; /* there may be more */
		}
		if ((int32_t)(s->now_ms - s->wheel_ms) <= 0)
			return fired;
		if (!s->wheel_armed) {
			s->wheel_ms = s->now_ms;
			return fired;
		}
		s->wheel_ms++;
		s->wheel_now = s->wheel[s->wheel_ms % WHEEL_SIZE];
		s->wheel[s->wheel_ms % WHEEL_SIZE] = NULL;
		if (s->wheel_now)
			s->wheel_now->timer_prev = &s->wheel_now;
	}
}

uint32_t timer_next(struct stack *s, uint32_t max_ms)
{
	if (!s->wheel_armed)
		return max_ms;
	if (s->wheel_now)
		return 0;
	for (uint32_t i = 1; i <= max_ms; i++) {
		uint32_t slot = (s->wheel_ms + i) % WHEEL_SIZE;

		if (s->wheel[slot] && (int32_t)(s->wheel_first[slot] - (s->wheel_ms + i)) <= 0)
			return i;
	}
	return max_ms;
}
