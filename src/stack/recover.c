/* recover.c - loss recovery by selective acknowledgements, in front of lwIP, which only sends them.
 *
 * Runs in the stack's thread. The ranges a peer reports (RFC 2018) are kept per connection; from them follow
 * what has left the network and what is lost (RFC 6675), and lost segments are moved from lwIP's unacked to
 * its unsent queue, from where tcp_output sends them like any other. A time-out marks everything unreported
 * as lost, so that nothing the peer already has is sent twice. lwIP's own fast retransmit is kept out by its
 * flag for it; peers without SACK go through NewReno in conn.c.
 */
#include "stack_int.h"

#include <stdlib.h>
#include <string.h>

enum {
	RANGE_MAX = 32,
	SENT_MAX = 128, /* retransmissions that may be under way at a time */
	DUP_THRESH = 3,
	REORDER_MS = 2, /* how long a segment may come late, beside a part of the round trip */
	PROBE_MS = 3,
};

struct recover {
	uint32_t count;
	struct {
		uint32_t left, right;
	} range[RANGE_MAX]; /* reported, ascending, apart from each other */
	uint32_t sent_count;
	struct {
		uint32_t seq;  /* of the segment that was sent again */
		uint32_t mark; /* first byte sent after that: when it is reported, the retransmission is lost,
		                  too */
	} sent[SENT_MAX];
	uint32_t una;   /* lastack at the last look */
	uint32_t point; /* the recovery ends when this is acknowledged */
	uint32_t cwnd;  /* congestion window while it lasts */
	bool is_open;
	bool is_timeout; /* it began with a time-out: all below point that nobody reported is lost */
	bool is_due;     /* what was reported has waited long enough for a late segment */
	uint32_t due;    /* when it will have; valid when is_armed */
	bool is_armed;
	uint32_t probe_end; /* end of the segment that a tail probe repeated */
	bool is_probed;
};

static inline bool seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline uint32_t seg_seq(const struct tcp_seg *seg)
{
	return lwip_ntohl(seg->tcphdr->seqno);
}

/* Only of segments in lwIP's queues: their flags say whether SYN or FIN count. */
static inline uint32_t seg_end(const struct tcp_seg *seg)
{
	return seg_seq(seg) + TCP_TCPLEN(seg);
}

static struct recover *board(struct conn *c)
{
	if (!c->recover) {
		c->recover = calloc(1, sizeof(*c->recover));
		if (c->recover)
			c->recover->una = c->pcb->lastack;
	}
	return c->recover;
}

void recover_drop(struct conn *c)
{
	free(c->recover);
	c->recover = NULL;
}

/* Adds a reported range; what touches it becomes one with it. */
static void range_add(struct recover *r, uint32_t left, uint32_t right)
{
	uint32_t i = 0, j;

	while (i < r->count && seq_lt(r->range[i].right, left))
		i++;
	for (j = i; j < r->count && !seq_lt(right, r->range[j].left); j++) {
		if (seq_lt(r->range[j].left, left))
			left = r->range[j].left;
		if (seq_lt(right, r->range[j].right))
			right = r->range[j].right;
	}
	if (i == j) {
		if (r->count == RANGE_MAX)
			return; /* the peer repeats it */
		memmove(&r->range[i + 1], &r->range[i], (r->count - i) * sizeof(r->range[0]));
		r->count++;
	} else if (j > i + 1) {
		memmove(&r->range[i + 1], &r->range[j], (r->count - j) * sizeof(r->range[0]));
		r->count -= j - i - 1;
	}
	r->range[i].left = left;
	r->range[i].right = right;
}

/* Forgets what the cumulative acknowledgement covers. */
static void forget(struct recover *r, uint32_t una)
{
	uint32_t n = 0, kept = 0;

	while (n < r->count && !seq_lt(una, r->range[n].right))
		n++;
	if (n) {
		memmove(r->range, &r->range[n], (r->count - n) * sizeof(r->range[0]));
		r->count -= n;
	}
	for (uint32_t i = 0; i < r->sent_count; i++)
		if (!seq_lt(r->sent[i].seq, una))
			r->sent[kept++] = r->sent[i];
	r->sent_count = kept;
}

void recover_sacks(struct conn *c, const uint8_t *opt, uint32_t size)
{
	struct tcp_pcb *pcb = c->pcb;

	if (!(pcb->flags & TF_SACK) || pcb->state < ESTABLISHED || pcb->state == TIME_WAIT)
		return;
	for (uint32_t i = 0; i < size && opt[i];) {
		if (opt[i] == 1) {
			i++;
			continue;
		}
		for (uint32_t k = i + 2; opt[i] == 5 && k + 8 <= i + opt[i + 1]; k += 8) {
			uint32_t left, right;

			memcpy(&left, &opt[k], 4);
			memcpy(&right, &opt[k + 4], 4);
			left = lwip_ntohl(left);
			right = lwip_ntohl(right);
			/* a DSACK lies below, nonsense beyond */
			if (seq_lt(left, pcb->lastack) || !seq_lt(left, right) ||
			        seq_lt(pcb->snd_nxt, right) || !board(c))
				continue;
			range_add(c->recover, left, right);
		}
		i += opt[i + 1];
	}
}

/* --- what became of a segment --- */

enum fate { FATE_REPORTED, FATE_LOST, FATE_FLIGHT };

/* Walks the ranges along with the segments. */
struct walk {
	const struct recover *r;
	uint32_t i;      /* first range that ends behind the segment */
	uint32_t above;  /* bytes reported behind the segment */
	uint32_t high;   /* end of the last range */
	uint32_t enough; /* that many bytes reported behind a segment mean it is lost */
};

static struct walk walk_start(const struct conn *c, const struct recover *r)
{
	const struct tcp_pcb *pcb = c->pcb;
	struct walk w = {.r = r, .high = r->una, .enough = (DUP_THRESH - 1u) * pcb->mss + 1};

	for (uint32_t i = 0; i < r->count; i++)
		w.above += r->range[i].right - r->range[i].left;
	if (r->count)
		w.high = r->range[r->count - 1].right;
	/* Without reordering on this path, one report is proof enough once it had time for a late segment,
	 * after a probe, and in a recovery (RFC 8985 sections 6.2 and 7.3). */
	if (r->is_due || (r->is_probed && !seq_lt(w.high, r->probe_end)) || (r->is_open && !c->is_reordered))
		w.enough = 1;
	return w;
}

static enum fate seg_fate(struct walk *w, uint32_t seq, uint32_t end)
{
	const struct recover *r = w->r;

	while (w->i < r->count && !seq_lt(seq, r->range[w->i].right)) {
		w->above -= r->range[w->i].right - r->range[w->i].left;
		w->i++;
	}
	if (w->i < r->count && !seq_lt(seq, r->range[w->i].left) && !seq_lt(r->range[w->i].right, end))
		return FATE_REPORTED;
	if (!(r->is_timeout && !seq_lt(r->point, end)) && w->above < w->enough &&
	        r->count - w->i < DUP_THRESH)
		return FATE_FLIGHT;
	for (uint32_t i = 0; i < r->sent_count; i++)
		if (r->sent[i].seq == seq)
			/* the retransmission itself is lost when enough of what left after it is reported */
			return seq_lt(r->sent[i].mark, w->high) && w->high - r->sent[i].mark >= w->enough
			               ? FATE_LOST
			               : FATE_FLIGHT;
	return FATE_LOST;
}

/* Moves the segment at *pp from unacked to its place in unsent. False when no more can be noted. */
static bool send_again(struct stack *s, struct conn *c, struct tcp_seg **pp)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r = c->recover;
	struct tcp_seg *seg = *pp, **to = &pcb->unsent;
	uint32_t seq = seg_seq(seg), i = 0;

	while (i < r->sent_count && r->sent[i].seq != seq)
		i++;
	if (i == SENT_MAX)
		return false;
	if (i == r->sent_count)
		r->sent_count++;
	r->sent[i].seq = seq;
	r->sent[i].mark = pcb->snd_nxt;
	*pp = seg->next;
	while (*to && seq_lt(seg_seq(*to), seq))
		to = &(*to)->next;
	seg->next = *to;
	*to = seg;
	pcb->rttest = 0;
	COUNT(s, tcp_retransmits, 1);
	if (c->ep != ENDPOINT_NONE)
		atomic_fetch_add_explicit(&stack_ep(s, c->ep)->info_retransmits, 1, memory_order_relaxed);
	return true;
}

/* Sends what is lost as far as the window has room beside what is in flight (RFC 6675 section 5, step C), and
 * gives the rest of the room to new data: lwIP counts its window from the oldest byte, so cwnd is told in its
 * terms. */
static void holes_send(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r = c->recover;
	struct walk w = walk_start(c, r);
	uint32_t pipe = 0;
	bool is_first = r->sent_count == 0;

	for (const struct tcp_seg *seg = pcb->unacked; seg; seg = seg->next)
		if (seg_fate(&w, seg_seq(seg), seg_end(seg)) == FATE_FLIGHT)
			pipe += TCP_TCPLEN(seg);
	w = walk_start(c, r);
	for (struct tcp_seg **pp = &pcb->unacked; *pp && (is_first || pipe + pcb->mss <= r->cwnd);) {
		uint32_t len = TCP_TCPLEN(*pp);

		if (seg_fate(&w, seg_seq(*pp), seg_end(*pp)) != FATE_LOST) {
			pp = &(*pp)->next;
			continue;
		}
		if (!send_again(s, c, pp))
			break;
		is_first = false;
		pipe += len;
	}
	pcb->cwnd = pcb->snd_nxt - pcb->lastack + (r->cwnd > pipe ? r->cwnd - pipe : 0);
	tcp_set_flags(pcb, TF_INFR);
	tcp_output(pcb);
}

bool recover_may_write(const struct tcp_pcb *pcb)
{
	const struct tcp_seg *seg = pcb->unsent;

	if (!seg)
		return true;
	while (seg->next)
		seg = seg->next;
	return seg_end(seg) == pcb->snd_lbb && seg->len <= pcb->mss;
}

static bool is_head_lost(const struct conn *c)
{
	const struct recover *r = c->recover;
	struct walk w = walk_start(c, r);

	return c->pcb->unacked && r->count &&
	       seg_fate(&w, seg_seq(c->pcb->unacked), seg_end(c->pcb->unacked)) == FATE_LOST;
}

static void recovery_open(struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r = c->recover;

	r->is_open = true;
	r->point = pcb->snd_nxt;
	r->sent_count = 0;
	if (pcb->flags & TF_INFR) { /* lwIP came first, and has repeated the head */
		r->sent[r->sent_count].seq = pcb->lastack;
		r->sent[r->sent_count++].mark = pcb->snd_nxt;
	} else {
		pcb->ssthresh = LWIP_MIN(pcb->cwnd, pcb->snd_wnd) / 10 * 7;
		if (pcb->ssthresh < 2u * pcb->mss)
			pcb->ssthresh = 2u * pcb->mss;
		pcb->rtime = 0;
	}
	r->cwnd = pcb->ssthresh;
}

static void recovery_close(struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r = c->recover;
	uint32_t flight = pcb->snd_nxt - pcb->lastack;

	r->is_open = r->is_timeout = r->is_due = r->is_probed = false;
	r->sent_count = 0;
	tcp_clear_flags(pcb, TF_INFR);
	pcb->cwnd = r->cwnd;
	/* no burst into an empty network */
	if (pcb->cwnd > flight + 10u * pcb->mss)
		pcb->cwnd = flight + 10u * pcb->mss;
	pcb->bytes_acked = 0;
}

bool recover_is_idle(const struct conn *c)
{
	const struct recover *r = c->recover;

	return !r || (!r->count && !r->is_open && !r->is_armed && !r->is_probed);
}

void recover_passed(struct conn *c)
{
	if (c->recover)
		c->recover->una = c->pcb->lastack;
}

bool recover_input(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r = c->recover;
	uint32_t acked;

	if (!(pcb->flags & TF_SACK))
		return false;
	if (!r && (pcb->flags & TF_INFR))
		r = board(c);
	if (!r)
		return true;
	acked = pcb->lastack - r->una;
	/* a hole closed by itself: segments overtake each other here */
	if (acked && r->count && !r->sent_count && !r->is_open && !r->is_probed)
		c->is_reordered = 1;
	r->una = pcb->lastack;
	forget(r, r->una);
	if (pcb->state < ESTABLISHED || pcb->state == TIME_WAIT)
		return true;
	if (r->is_open && !seq_lt(pcb->lastack, r->point)) {
		recovery_close(c);
	} else if (r->is_open && r->is_timeout && acked) {
		/* slow start, then congestion avoidance (RFC 5681), which lwIP does for pcb->cwnd only */
		r->cwnd += r->cwnd < pcb->ssthresh ? LWIP_MIN(acked, 2u * pcb->mss)
		                                   : 1 + (uint32_t)pcb->mss * pcb->mss / r->cwnd;
	} else if (!r->is_open && ((pcb->flags & TF_INFR) || is_head_lost(c))) {
		recovery_open(c);
	}
	if (acked && !r->is_open)
		r->is_due = r->is_armed = r->is_probed = false;
	if (r->count && !r->is_open && !r->is_armed) {
		r->is_armed = true;
		r->due = s->now_ms + REORDER_MS + ((uint32_t)pcb->sa >> 3) / (c->is_reordered ? 1 : 4);
	}
	if (r->is_open)
		holes_send(s, c);
	return true;
}

/* The probe's time-out: two round trips and what timers round off (RFC 8985 section 7.2). A lone segment is
 * left to the retransmission timer: its acknowledgement may be delayed. */
static bool probe_due(const struct stack *s, const struct conn *c, uint32_t *due)
{
	const struct tcp_pcb *pcb = c->pcb;
	const struct recover *r = c->recover;

	if (pcb->rtime <= 0 || !pcb->unacked || pcb->snd_nxt - pcb->lastack <= pcb->mss || c->rexmit_open ||
	        (r && (r->is_open || r->is_probed)))
		return false;
	*due = c->rto_start + ((uint32_t)pcb->sa >> 2) + PROBE_MS;
	(void)s;
	return (int32_t)(*due - (c->rto_start + (uint32_t)pcb->rto)) < 0;
}

bool recover_due(const struct stack *s, const struct conn *c, uint32_t *due)
{
	const struct tcp_pcb *pcb = c->pcb;
	const struct recover *r = c->recover;

	if (!(pcb->flags & TF_SACK) || pcb->state < ESTABLISHED || pcb->state == TIME_WAIT)
		return false;
	if (r && r->is_armed && r->count && !r->is_open && !r->is_due) {
		*due = r->due;
		return true;
	}
	return probe_due(s, c, due);
}

/* Sends the last segment once more: its acknowledgement tells what is missing before it. */
static void probe_send(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r = board(c);
	struct tcp_seg **pp = &pcb->unacked;

	if (!r)
		return;
	while ((*pp)->next)
		pp = &(*pp)->next;
	r->una = pcb->lastack;
	r->is_probed = true;
	r->probe_end = seg_end(*pp);
	COUNT(s, tcp_probes, 1);
	if (send_again(s, c, pp))
		tcp_output(pcb);
	r->sent_count = 0; /* no part of a recovery */
}

void recover_fire(struct stack *s, struct conn *c)
{
	struct recover *r = c->recover;
	uint32_t due;

	if (!recover_due(s, c, &due) || (int32_t)(s->now_ms - due) < 0)
		return;
	if (!r || !r->is_armed || !r->count) {
		probe_send(s, c);
		return;
	}
	r->is_due = true;
	if (is_head_lost(c)) {
		recovery_open(c);
		holes_send(s, c);
	}
}

bool recover_timeout(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct recover *r;

	if (!(pcb->flags & TF_SACK) || pcb->state < ESTABLISHED || !pcb->unacked || !(r = board(c)))
		return false;
	/* the peer has thrown away what it reported (RFC 2018 section 8): then the head would be reported */
	if (r->count && !seq_lt(pcb->lastack, r->range[0].left))
		r->count = 0;
	r->una = pcb->lastack;
	r->point = pcb->snd_nxt;
	r->sent_count = 0;
	r->is_open = r->is_timeout = true;
	r->is_armed = r->is_probed = false;
	r->cwnd = pcb->mss;
	if (pcb->nrtx < 0xff)
		pcb->nrtx++;
	holes_send(s, c);
	return true;
}

void recover_undo(struct conn *c, uint32_t cwnd)
{
	struct recover *r = c->recover;

	if (!r || !r->is_open || !r->is_timeout)
		return;
	r->cwnd = cwnd;
	recovery_close(c);
}
