/* sweep.c - what ends many endpoints at once: a client that died, a listener that went, a neighbour that does
 * not answer.
 *
 * Runs in the stack's thread. There may be a million endpoints, and the turn goes on serving the others: so
 * this work is done in pieces, one each turn, and everything in between finds each endpoint either as it was
 * or ended.
 */
#include "stack_int.h"

#include <errno.h>
#include <sys/epoll.h>

enum {
	GONE_PIECE = 48,  /* endpoints of a dead client that are closed in a turn */
	SWEEP_WORDS = 12, /* words of 64 endpoints that are looked at in a turn */
};

/* Takes the watches away that pollers of a dead client have on an endpoint. */
static void watches_drop(struct stack *s, struct watch *w, uint32_t count, uint32_t client)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t p = WATCH_POLLER(atomic_load(&w[i].word));

		if (p && p <= s->arena->poller_count &&
		        atomic_load(&s->arena->pollers[p - 1].owner) == client + 1)
			atomic_store(&w[i].word, 0);
	}
}

/* What a dead process had open ends, as the kernel does it at exit. */
static void endpoint_gone(struct stack *s, uint32_t client, uint32_t idx)
{
	struct endpoint *ep = stack_ep(s, idx);
	struct conn *c = s->by_ep[idx - s->ep_first];
	uint32_t listener = *(const volatile uint32_t *)&ep->listener; /* a client can write it */

	watches_drop(s, ep->watch, WATCH_INLINE, client);
	if (listener < s->arena->listener_count)
		watches_drop(s, arena_listener(s->arena, listener)->watch, WATCH_LISTENER, client);
	/* it may have been the only one that was woken for a connection */
	if (s->own[idx - s->ep_first].kind == OWN_LISTEN && accept_ready(s->arena, ep))
		notify_accept_again(s, idx);
	/* it may have died between setting a doorbell and posting it */
	atomic_store(&ep->doorbell, 0);
	if (c && !c->is_released) {
		rx_reclaim(s, c);
		tx_adopt(s, c); /* what it wrote without a doorbell goes out too */
		conn_touch(s, c);
	}
	hold_clear(s->arena, client, idx);
	if (hold_any(s->arena, idx, UINT32_MAX))
		return;
	/* one that died between claiming and accepting leaves the connection to the next accept */
	if (!conn_is_queued(s, idx))
		tcp_release(s, idx, 0);
}

/* arg: the client; above its 32 bits how far the work is: 0, its posts; n + 1, from the n-th word of its
 * holds on. */
void stack_client_gone(struct stack *s, struct stack_msg *m)
{
	uint32_t client = (uint32_t)m->arg, w = (uint32_t)(m->arg >> 32), n = 0;
	_Atomic uint64_t *holds = arena_holds(s->arena, client) + s->ep_first / 64;
	struct req_ring *r = &arena_client(s->arena, client)->stack[s->idx].req;

	/* One piece a turn, however many died. Resets are not repeated: none goes to a port that is full and
	 * moving. */
	if (s->gone_turn == s->turn + 1 || (s->tx_waiting && s->now_ns - s->tx_moved_ns < TX_STUCK_NS)) {
		s->msg_again = true;
		return;
	}
	s->gone_turn = s->turn + 1;
	if (!w) {
		/* what it posted before it died still counts: data it wrote goes out */
		if (request_client(s, client, REQ_BURST) && atomic_load(&r->head) != atomic_load(&r->tail)) {
			s->msg_again = true;
			return;
		}
		atomic_fetch_and(&s->shared->pending[client / 64], ~(1ull << (client % 64)));
		w = 1;
	}
	for (; w <= s->ep_count / 64; w++) {
		uint64_t bits = atomic_load(&holds[w - 1]);

		for (; bits; bits &= bits - 1) {
			if (n++ == GONE_PIECE) {
				m->arg = (uint64_t)w << 32 | client;
				s->msg_again = true;
				return;
			}
			endpoint_gone(
			        s, client, s->ep_first + (w - 1) * 64 + (uint32_t)__builtin_ctzll(bits));
		}
	}
	sweep_start(s);
	block_client_gone(s, client);
	atomic_store(&r->head, 0);
	atomic_store(&r->tail, 0);
}

/* --- the sweep --- */

void sweep_start(struct stack *s)
{
	s->sweep_left = s->ep_count / 64;
}

/* Packet buffers are short: what came before its turn is given up (RFC 2018 section 8), as the peer may never
 * send what is missing. It is told so by the next acknowledgement, and sends again. */
static void early_drop(struct stack *s, uint32_t first)
{
	for (uint32_t i = 0; i < 64; i++) {
		const struct conn *c = s->by_ep[first + i];

		if (!c || !c->pcb || !c->pcb->ooseq)
			continue;
		tcp_free_ooseq(c->pcb);
		COUNT(s, tcp_rx_pruned, 1);
	}
}

/* Which of 64 endpoints are open. */
static uint64_t open_bits(const struct stack *s, uint32_t first)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < 64; i++) {
		const struct conn *c = s->by_ep[first + i];
		uint8_t kind = s->own[first + i].kind;

		if (kind == OWN_BOUND || kind == OWN_LISTEN || kind == OWN_SHUT || kind == OWN_DEAD ||
		        (c && !c->is_released))
			bits |= 1ull << i;
	}
	return bits;
}

/* Connections under way to neighbours that do not answer. */
static void unreachable_fail(struct stack *s, uint32_t first)
{
	for (uint32_t i = 0; i < 64; i++) {
		struct conn *c = s->by_ep[first + i];
		uint32_t ip;

		if (!c || !c->pcb || c->pcb->state != SYN_SENT)
			continue;
		ip = ip_2_ip4(&c->remote_ip)->addr;
		if (loop_serves(s, ip))
			continue;
		for (uint32_t k = 0; k < s->sweep_hop_count; k++) {
			uint32_t hop = s->sweep_hop[k];

			if (ip == hop || ((ip ^ s->address) & s->netmask && s->gateway == hop)) {
				tcp_fail(s, c, EHOSTUNREACH, true);
				break;
			}
		}
	}
}

/* Ends what nobody holds and nobody can accept any more. A client cleared its own holds, or made a listener's
 * queue forget it. */
static void orphans_release(struct stack *s, uint32_t first)
{
	uint64_t bits = open_bits(s, first);

	for (uint32_t w = 0; bits && w < (s->arena->client_count + 63) / 64; w++) {
		uint64_t seen = atomic_load(&s->arena->hdr->clients_seen[w]);

		for (; seen; seen &= seen - 1) {
			uint32_t client = w * 64 + (uint32_t)__builtin_ctzll(seen);

			if (client < s->arena->client_count)
				bits &= ~atomic_load(
				        &arena_holds(s->arena, client)[(s->ep_first + first) / 64]);
		}
	}
	for (; bits; bits &= bits - 1) {
		uint32_t idx = s->ep_first + first + (uint32_t)__builtin_ctzll(bits);

		/* in this order: whoever takes a connection from the queue holds it before */
		if (!conn_is_queued(s, idx) && !hold_any(s->arena, idx, UINT32_MAX))
			tcp_release(s, idx, 0);
	}
}

void sweep_buffers(struct stack *s)
{
	if (likely(!s->has_refused_early) || s->sweep_left)
		return;
	s->has_refused_early = false;
	s->sweep_early = true;
	sweep_start(s);
}

uint32_t sweep_run(struct stack *s)
{
	uint32_t n = 0;

	for (; n < SWEEP_WORDS && s->sweep_left; n++) {
		uint32_t first = --s->sweep_left * 64;

		if (s->sweep_hop_count)
			unreachable_fail(s, first);
		if (s->sweep_early)
			early_drop(s, first);
		orphans_release(s, first);
	}
	if (!s->sweep_left) {
		s->sweep_hop_count = 0;
		s->sweep_early = false;
	}
	return n;
}

void tcp_unreachable(struct stack *s, uint32_t next_hop)
{
	/* there are no more neighbours at a time; a connection that is missed waits for its SYN's last
	 * time-out */
	if (s->sweep_hop_count < SWEEP_HOPS)
		s->sweep_hop[s->sweep_hop_count++] = next_hop;
	sweep_start(s);
}
