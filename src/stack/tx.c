/* tx.c - data on its way from an endpoint's send ring into lwIP, and the blocks the ring is made of.
 *
 * Runs in the stack's thread. The application copies once, into blocks of the arena; lwIP references them
 * until they are acknowledged. lwIP is fed no more than the peer and the congestion window may take, so that
 * its queues, which it walks on every call, stay short. Nagle and corking are decided here. Blocks belong to
 * this stack: free, granted to a client, or in an endpoint; nothing that a client writes can change that
 * (doc/threads.md, "Send").
 */
#include "stack_int.h"

#include <errno.h>
#include <stdlib.h>

#include "attach.h"
#include "udp.h"

enum { GRANT_FIRST = 16, GRANT_MAX = 512, FEED_AHEAD_MSS = 8 };

static inline uint32_t *owner_of(struct stack *s, uint32_t block)
{
	uint32_t i = block - s->block_first;

	return i < s->block_count ? &s->block_owner[i] : NULL;
}

static void block_free(struct stack *s, uint32_t block, uint32_t ep_idx)
{
	uint32_t *o = owner_of(s, block);

	if (!o || *o != (BLOCK_ENDPOINT | ep_idx)) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	if (unlikely(nic_lent(s->queue, block - s->block_first))) {
		*o = BLOCK_LENT;
		s->block_lent[s->block_lent_count++] = block;
		return;
	}
	*o = BLOCK_FREE;
	s->block_free[s->block_free_count++] = block;
}

/* The block whose map a connection has. It stays as long as the ring is not idle, also when its own bytes are
 * acknowledged. */
static inline uint32_t map_of(const struct stack *s, const struct conn *c)
{
	return s->block_first + (uint32_t)((c->tx_blocks - s->tx_tables) / TX_BLOCK_COUNT);
}

/* One block of the ring is done with. */
static inline void ring_block_free(struct stack *s, struct conn *c, uint32_t block)
{
	if (block != map_of(s, c))
		block_free(s, block, c->ep);
}

void block_lent_return(struct stack *s)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < s->block_lent_count; i++) {
		uint32_t block = s->block_lent[i];

		if (nic_lent(s->queue, block - s->block_first)) {
			s->block_lent[kept++] = block;
		} else {
			s->block_owner[block - s->block_first] = BLOCK_FREE;
			s->block_free[s->block_free_count++] = block;
		}
	}
	s->block_lent_count = kept;
}

uint32_t block_piece(const struct stack *s, const void *p)
{
	uintptr_t off = (uintptr_t)p - (uintptr_t)arena_block(s->arena, s->block_first);

	return off < (uintptr_t)s->block_count * TX_BLOCK_SIZE ? (uint32_t)(off / TX_BLOCK_SIZE) : NIC_COPY;
}

void block_init(struct stack *s)
{
	for (uint32_t i = 0; i < s->block_count; i++)
		s->block_free[i] = s->block_first + s->block_count - 1 - i;
	s->block_free_count = s->block_count;
}

void block_grant(struct stack *s, uint32_t client)
{
	struct grant_ring *g = &arena_client(s->arena, client)->stack[s->idx].grant;
	uint32_t head = atomic_load_explicit(&g->head, memory_order_relaxed);
	uint32_t level = head - atomic_load_explicit(&g->tail, memory_order_acquire);
	uint16_t *want = &s->grant_level[client];
	bool is_starved = atomic_load(&g->starved);

	if (level > GRANT_RING_SIZE) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	if (!*want)
		*want = GRANT_FIRST;
	if (is_starved && *want < GRANT_MAX)
		*want = (uint16_t)(*want * 2);
	/* a client may not hoard more than an eighth of what is left */
	for (; level < *want && s->block_free_count > (level < GRANT_FIRST ? 0 : level * 8); level++) {
		uint32_t b = s->block_free[--s->block_free_count];

		*owner_of(s, b) = BLOCK_GRANTED | client;
		atomic_store_explicit(&g->slot[head++ % GRANT_RING_SIZE], b, memory_order_relaxed);
	}
	atomic_store_explicit(&g->head, head, memory_order_release);
	/* the answer to a writer that waits for it (grant_await): after the blocks */
	if (is_starved)
		atomic_store(&g->starved, 0);
}

void block_client_gone(struct stack *s, uint32_t client)
{
	struct grant_ring *g = &arena_client(s->arena, client)->stack[s->idx].grant;

	for (uint32_t i = 0; i < s->block_count; i++) {
		if (s->block_owner[i] != (BLOCK_GRANTED | client))
			continue;
		s->block_owner[i] = BLOCK_FREE;
		s->block_free[s->block_free_count++] = s->block_first + i;
	}
	atomic_store(&g->head, 0);
	atomic_store(&g->tail, 0);
	atomic_store(&g->starved, 0);
	s->grant_level[client] = 0;
}

/* The ring has a place for each block from the first that is not wholly acknowledged on. */
static inline bool head_fits(const struct conn *c, uint32_t head)
{
	return head - (c->tx_acked & ~(uint32_t)(TX_BLOCK_SIZE - 1)) <= TX_BLOCK_COUNT * TX_BLOCK_SIZE;
}

/* The block that a ring position behind tx_seen lies in. */
static inline uint32_t *block_at(const struct conn *c, uint32_t pos)
{
	return &c->tx_blocks[pos / TX_BLOCK_SIZE % TX_BLOCK_COUNT];
}

/* A block that was granted to somebody who holds the endpoint becomes the endpoint's. */
static bool adopt_block(struct stack *s, struct conn *c, uint32_t block)
{
	uint32_t *o = owner_of(s, block);

	if (!o || BLOCK_KIND(*o) != BLOCK_GRANTED || !hold_test(s->arena, BLOCK_HOLDER(*o), c->ep))
		return false;
	*o = BLOCK_ENDPOINT | c->ep;
	return true;
}

/* The map that the writer has chosen, with the block it belongs to. */
static bool adopt_map(struct stack *s, struct conn *c, const struct endpoint *ep)
{
	uint32_t map = atomic_load_explicit(&ep->tx_map, memory_order_relaxed);

	if (!adopt_block(s, c, map))
		return false;
	c->tx_blocks = s->tx_tables + (size_t)(map - s->block_first) * TX_BLOCK_COUNT;
	c->is_map_placed = false;
	return true;
}

/* The ring is empty and has no blocks: its map goes, and the block with it. */
static void map_free(struct stack *s, struct conn *c)
{
	if (!c->tx_blocks)
		return;
	block_free(s, map_of(s, c), c->ep);
	c->tx_blocks = NULL;
}

/* Checks the blocks between tx_seen and head and marks them as this endpoint's. */
static bool adopt_blocks(struct stack *s, struct conn *c, struct endpoint *ep, uint32_t head)
{
	/* block starts in [tx_seen, head) */
	uint32_t pos = (c->tx_seen + TX_BLOCK_SIZE - 1) & ~(uint32_t)(TX_BLOCK_SIZE - 1);

	if ((int32_t)(head - pos) > 0 && !c->tx_blocks && !adopt_map(s, c, ep))
		return false;
	for (; (int32_t)(head - pos) > 0; pos += TX_BLOCK_SIZE) {
		uint32_t map = map_of(s, c), b;

		b = atomic_load_explicit(&arena_tx_map(s->arena, map)[pos / TX_BLOCK_SIZE % TX_BLOCK_COUNT],
		        memory_order_relaxed);
		/* the map's block comes into the ring once, in most cases first */
		if (b == map ? c->is_map_placed : !adopt_block(s, c, b))
			return false;
		c->is_map_placed |= b == map;
		*block_at(c, pos) = b;
		c->tx_seen = pos + TX_BLOCK_SIZE;
	}
	return true;
}

void tx_adopt(struct stack *s, struct conn *c)
{
	struct endpoint *ep;
	uint32_t head;

	if (c->ep == ENDPOINT_NONE)
		return;
	ep = stack_ep(s, c->ep);
	head = atomic_load_explicit(&ep->tx_head, memory_order_acquire);
	if (head_fits(c, head) && !adopt_blocks(s, c, ep, head))
		bad_input(s, __func__, __LINE__);
	/* taken for the ring, and nothing written yet: it would go with the client that took it */
	if (!c->tx_blocks && atomic_load_explicit(&ep->tx_map, memory_order_relaxed) != BLOCK_NONE &&
	        !adopt_map(s, c, ep))
		bad_input(s, __func__, __LINE__);
}

/* Frees blocks that end at or before upto. */
static void free_behind(struct stack *s, struct conn *c, uint32_t from, uint32_t upto)
{
	uint32_t pos = from & ~(uint32_t)(TX_BLOCK_SIZE - 1);

	for (; (int32_t)(upto - (pos + TX_BLOCK_SIZE)) >= 0; pos += TX_BLOCK_SIZE)
		ring_block_free(s, c, *block_at(c, pos));
}

void tx_acked(struct stack *s, struct conn *c, uint32_t size)
{
	struct endpoint *ep = stack_ep(s, c->ep);
	uint32_t from = c->tx_acked;

	if (size > c->tx_fed - c->tx_acked)
		size = c->tx_fed - c->tx_acked;
	c->tx_acked += size;
	timer_acked(s, c);
	free_behind(s, c, from, c->tx_acked);
	atomic_store(&ep->tx_tail, c->tx_acked);
	if (atomic_load(&ep->tx_want) && ep_tx_ready(ep)) {
		atomic_store(&ep->tx_want, 0);
		gen_step(&ep->tx_gen);
		notify(s, c->ep, EPOLLOUT);
	}
}

/* How many bytes lwIP may hold unacknowledged: what the windows allow and a little ahead of them. */
static uint32_t feed_limit(const struct conn *c)
{
	const struct tcp_pcb *pcb = c->pcb;
	uint32_t wnd = LWIP_MIN(pcb->cwnd, pcb->snd_wnd);

	return wnd + LWIP_MAX(FEED_AHEAD_MSS * conn_mss(c), 2u * pcb->mss);
}

static bool may_send(struct stack *s, struct conn *c, const struct endpoint *ep, uint32_t waiting)
{
	uint32_t flags = atomic_load_explicit(&ep->app_flags, memory_order_relaxed);

	if (waiting >= conn_mss(c) || c->fin_wanted)
		return true;
	if (flags & (APP_CORK | APP_MORE)) {
		if (!c->cork_armed) {
			c->cork_armed = 1;
			c->cork_due = s->now_ms + CORK_MS;
		}
		return (int32_t)(s->now_ms - c->cork_due) >= 0;
	}
	/* Nagle (RFC 896): one small segment in flight at a time */
	return (flags & APP_NODELAY) || c->tx_fed == c->tx_acked;
}

/* Whether poll(2) calls the endpoint writable, as ep_level does. */
static bool is_writable(const struct conn *c, const struct endpoint *ep)
{
	return c->udp ? ep_tx_used(ep) < ep_tx_limit(ep) / 2 : ep_tx_ready(ep);
}

/* Asks for blocks, or tells writers that there are some. */
static void want_check(struct stack *s, struct conn *c, struct endpoint *ep)
{
	if (!atomic_load(&ep->tx_want) || !is_writable(c, ep))
		return;
	if (!s->block_free_count) {
		if (!c->is_starved) {
			c->is_starved = 1;
			c->starved_next = s->starved;
			s->starved = c;
		}
		return;
	}
	atomic_store(&ep->tx_want, 0);
	gen_step(&ep->tx_gen);
	notify(s, c->ep, EPOLLOUT);
}

void block_starved_wake(struct stack *s)
{
	struct conn *c = s->starved;

	if (!c || s->block_free_count < GRANT_FIRST)
		return;
	s->starved = NULL;
	for (uint32_t i = 0; i < s->arena->client_count; i++)
		if (s->grant_level[i])
			block_grant(s, i);
	while (c) {
		struct conn *next = c->starved_next;

		c->is_starved = 0;
		if (c->ep != ENDPOINT_NONE) {
			struct endpoint *ep = stack_ep(s, c->ep);

			atomic_store(&ep->tx_want, 0);
			gen_step(&ep->tx_gen);
			notify(s, c->ep, EPOLLOUT);
		} else {
			conn_put(s, c);
		}
		c = next;
	}
}

/* How much of the ring was sent at least once; a FIN takes a number, too. */
static void sent_publish(struct stack *s, struct conn *c, struct endpoint *ep)
{
	uint32_t sent = c->tx_fed;

	if (c->pcb && (int32_t)(c->snd_max - c->pcb->lastack) >= 0)
		sent = c->tx_acked + LWIP_MIN(c->snd_max - c->pcb->lastack, c->tx_fed - c->tx_acked);
	if (atomic_load_explicit(&ep->tx_sent, memory_order_relaxed) != sent)
		atomic_store_explicit(&ep->tx_sent, sent, memory_order_release);
	if (unlikely(s->is_timed))
		stack_timed_sent(s, ep, sent);
}

static void finish(struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;

	if (c->is_released) {
		if (c->close_called)
			return;
		c->close_called = 1;
		/* all data was read, so the peer must not get a reset for the part of the window that we kept
		 * back */
		pcb->rcv_wnd = TCP_WND_MAX(pcb);
		pcb->tmr = tcp_ticks; /* FIN_WAIT_2, if it is that already, has its time from now on */
		tcp_close(pcb);
	} else if (!c->fin_sent) {
		c->fin_sent = tcp_shutdown(pcb, 0, 1) == ERR_OK;
	}
}

/* Nothing to send and nothing to acknowledge at once, as most turns leave a connection that only received. */
static bool is_quiet(const struct conn *c, const struct endpoint *ep)
{
	const struct tcp_pcb *pcb = c->pcb;

	return pcb->state == ESTABLISHED && !pcb->unsent && !c->fin_wanted && c->cwnd_is_set &&
	       !(pcb->flags & (TF_ACK_NOW | TF_NAGLEMEMERR)) &&
	       !(c->is_quick && (pcb->flags & TF_ACK_DELAY)) &&
	       atomic_load_explicit(&ep->tx_head, memory_order_relaxed) == c->tx_fed;
}

void tx_pump(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct endpoint *ep;
	uint32_t head, limit;
	bool is_fed = false, is_early;

	if (c->udp)
		udp_pump(s, c);
	if (!pcb)
		return;
	if (c->ep != ENDPOINT_NONE && is_quiet(c, stack_ep(s, c->ep))) {
		sent_publish(s, c, stack_ep(s, c->ep));
		want_check(s, c, stack_ep(s, c->ep));
		return;
	}
	s->out_conn = c;
	if (c->is_quick && (pcb->flags & TF_ACK_DELAY))
		tcp_ack_now(pcb);
	if (c->ep == ENDPOINT_NONE) {
		tcp_output(pcb);
		return;
	}
	ep = stack_ep(s, c->ep);
	if (pcb->state == SYN_SENT || pcb->state == SYN_RCVD)
		return;
	if (!c->cwnd_is_set) { /* RFC 6928; lwIP starts with the window of RFC 2581 and cannot be told
		                  otherwise */
		c->cwnd_is_set = 1;
		pcb->cwnd = LWIP_MIN(10u * pcb->mss, LWIP_MAX(2u * pcb->mss, 14600u));
	}
	head = atomic_load_explicit(&ep->tx_head, memory_order_acquire);
	if (unlikely(s->is_timed))
		latency_taken(s->arena, ep, head);
	if (!head_fits(c, head) || head - c->tx_fed > head - c->tx_acked || !adopt_blocks(s, c, ep, head)) {
		bad_input(s, __func__, __LINE__);
		atomic_store(&ep->error, EPIPE);
		tcp_err(pcb, NULL);
		conn_abort(s, c);
		return;
	}
	limit = feed_limit(c);
	if (unlikely(!recover_may_write(pcb)))
		tcp_output(pcb);
	/* Between ends of this host, what is written first arrives first, also on another connection: data
	 * whose doorbell is still on its way here waits for it. */
	is_early = s->has_loop && !c->fin_wanted &&
	           atomic_load_explicit(&ep->doorbell, memory_order_relaxed) &&
	           loop_serves(s, ip_2_ip4(&pcb->remote_ip)->addr);
	while (!is_early && c->tx_fed != head && !c->close_called && !c->fin_sent && recover_may_write(pcb)) {
		uint32_t off = c->tx_fed % TX_BLOCK_SIZE, n = TX_BLOCK_SIZE - off;
		uint32_t in_flight = c->tx_fed - c->tx_acked, b;

		if (n > head - c->tx_fed)
			n = head - c->tx_fed;
		if (in_flight >= limit)
			break;
		if (n > limit - in_flight)
			n = limit - in_flight;
		if (!is_fed && !may_send(s, c, ep, head - c->tx_fed))
			break;
		b = *block_at(c, c->tx_fed);
		if (tcp_write(pcb, arena_block(s->arena, b) + off, (u16_t)n, 0) != ERR_OK)
			break;
		c->tx_fed += n;
		c->cork_armed = 0;
		c->has_answered = 1;
		is_fed = true;
	}
	atomic_store_explicit(&ep->tx_unsent, head - c->tx_fed, memory_order_relaxed);
	if (c->fin_wanted && c->tx_fed == head && recover_may_write(pcb)) {
		focus_enter(c);
		finish(c);
		focus_leave(s);
		pcb = c->pcb;
	}
	if (pcb)
		tcp_output(pcb);
	if (c->ep != ENDPOINT_NONE) {
		sent_publish(s, c, ep);
		want_check(s, c, ep);
	}
}

bool tx_take(struct stack *s, struct conn *c, uint32_t head)
{
	return head_fits(c, head) && head - c->tx_fed <= head - c->tx_acked &&
	       adopt_blocks(s, c, stack_ep(s, c->ep), head);
}

const uint8_t *tx_at(struct stack *s, const struct conn *c, uint32_t pos, uint32_t *size)
{
	*size = TX_BLOCK_SIZE - pos % TX_BLOCK_SIZE;
	return arena_block(s->arena, *block_at(c, pos)) + pos % TX_BLOCK_SIZE;
}

void tx_done(struct stack *s, struct conn *c)
{
	struct endpoint *ep = stack_ep(s, c->ep);
	uint32_t from = c->tx_acked;

	c->tx_acked = c->tx_fed;
	free_behind(s, c, from, c->tx_acked);
	atomic_store(&ep->tx_tail, c->tx_acked);
	want_check(s, c, ep);
}

/* An idle connection gives its last, partly used block and the map back: both ends of the ring step to the
 * next block's start. */
void tx_idle(struct stack *s, struct conn *c)
{
	struct endpoint *ep;
	uint32_t head, next;

	/* of a datagram endpoint that was given up, udp.c knows where the ring ends */
	if (c->ep == ENDPOINT_NONE || (c->udp && c->is_released))
		return;
	ep = stack_ep(s, c->ep);
	head = atomic_load_explicit(&ep->tx_head, memory_order_acquire);
	if (!c->tx_blocks || head != c->tx_acked || head != c->tx_fed || !ep_trylock(&ep->tx_lock))
		return;
	if (atomic_load_explicit(&ep->tx_head, memory_order_relaxed) == head) {
		next = (head + TX_BLOCK_SIZE - 1) & ~(uint32_t)(TX_BLOCK_SIZE - 1);
		free_behind(s, c, head, next);
		c->tx_fed = c->tx_acked = c->tx_seen = next;
		atomic_store(&ep->tx_sent, next);
		map_free(s, c);
		atomic_store(&ep->tx_map, BLOCK_NONE);
		atomic_store(&ep->tx_head, next);
		atomic_store(&ep->tx_tail, next);
	}
	ep_unlock(&ep->tx_lock);
}

void tx_drop_all(struct stack *s, struct conn *c)
{
	uint32_t from = c->tx_acked & ~(uint32_t)(TX_BLOCK_SIZE - 1);

	/* blocks that hold [tx_acked, tx_seen); the one tx_acked lies in is ours unless tx_acked is its start
	 * and unseen */
	for (uint32_t pos = from; (int32_t)(c->tx_seen - pos) > 0; pos += TX_BLOCK_SIZE)
		ring_block_free(s, c, *block_at(c, pos));
	map_free(s, c);
	c->tx_fed = c->tx_acked = c->tx_seen = 0;
	if (s->starved)
		block_starved_wake(s);
}
