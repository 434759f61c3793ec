/* request.c - what applications and the control thread ask of a stack.
 *
 * Runs in the stack's thread. Posts of clients come through their rings in the arena: every index is checked,
 * and a client may only name endpoints that it holds. Messages of the control thread and of other stacks come
 * through a lock-free list.
 */
#include "stack_int.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KEEP_MAX_S = 32767 }; /* tcp(7) */

void call_answer(struct stack *s, uint32_t client, uint32_t call_idx, int result, uint32_t ep)
{
	struct call *c = &arena_client(s->arena, client)->call[call_idx];

	c->result = result;
	c->endpoint = ep;
	atomic_store(&c->state, CALL_DONE);
	syscall(SYS_futex, &c->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int do_bind(struct stack *s, uint32_t client, struct call *c, uint32_t *ep_out)
{
	struct endpoint *ep;
	struct ep_own *own;
	uint32_t idx;
	int rc;

	if (s->idx)
		return -EINVAL;
	if (c->local.family != AF_INET)
		return -EAFNOSUPPORT;
	idx = ep_take(s);
	if (idx == ENDPOINT_NONE)
		return -ENOBUFS;
	rc = port_bind(s, &c->local.port, c->flags);
	if (rc) {
		ep_give(s, idx);
		return rc;
	}
	ep = stack_ep(s, idx);
	own = &s->own[idx - s->ep_first];
	own->kind = OWN_BOUND;
	own->port = c->local.port;
	memcpy(own->ip, c->local.ip, 4);
	ep->local = c->local;
	atomic_store_explicit(&ep->creator, client, memory_order_relaxed);
	atomic_store(&ep->state, EP_BOUND);
	hold_set(s->arena, client, idx);
	*ep_out = idx;
	return 0;
}

/* Every stack listens; the last one answers the caller. */
static void listen_msg(struct stack *s, struct stack_msg *m)
{
	struct fan_out *f = m->ptr;

	if (tcp_listen_here(s, f->ep, &f->own))
		COUNT(s, tcp_connect_failed, 1);
	if (atomic_fetch_sub(&f->left, 1) != 1)
		return;
	call_answer(s, f->client, f->call_idx, 0, f->ep);
	free(f);
}

static int do_listen(struct stack *s, uint32_t client, uint32_t call_idx, struct call *c)
{
	struct endpoint *ep;
	struct ep_own *own;
	struct listener *l = NULL;
	struct fan_out *f;
	uint32_t i, backlog = (uint32_t)(c->value < 0 ? ACCEPT_RING_SIZE : c->value);
	int rc;

	if (!stack_owns(s, c->endpoint) || !hold_test(s->arena, client, c->endpoint))
		return -EBADF;
	ep = stack_ep(s, c->endpoint);
	if (backlog >= ACCEPT_RING_SIZE)
		backlog = ACCEPT_RING_SIZE - 1;
	atomic_store(&ep->backlog, backlog);
	own = &s->own[c->endpoint - s->ep_first];
	if (own->kind == OWN_LISTEN)
		return 0; /* a second listen only changes the backlog */
	if (own->kind != OWN_BOUND)
		return -EINVAL;
	for (i = 0; i < s->arena->listener_count; i++) {
		l = arena_listener(s->arena, i);
		if (!atomic_load(&l->in_use))
			break;
	}
	if (i == s->arena->listener_count)
		return -ENOBUFS;
	rc = port_listen(s, own->port, c->flags);
	if (rc)
		return rc;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	atomic_store(&l->in_use, 1);
	atomic_store(&l->endpoint, c->endpoint);
	for (uint32_t k = 0; k < s->count; k++) {
		atomic_store(&l->ring[k].head, 0);
		atomic_store(&l->ring[k].tail, 0);
	}
	own->kind = OWN_LISTEN;
	own->listener = i;
	own->rcvbuf = LWIP_MIN(c->rcvbuf, TCP_WND);
	ep->listener = i;
	atomic_store(&ep->app_flags, (uint32_t)c->opt);
	atomic_store(&ep->state, EP_LISTEN);
	f->home = s;
	f->ep = c->endpoint;
	f->client = client;
	f->call_idx = call_idx;
	f->own = *own;
	atomic_store(&f->left, s->count);
	for (uint32_t k = 0; k < s->count; k++) {
		struct stack_msg *m = calloc(1, sizeof(*m));

		if (!m) {
			/* the answer then never comes and the caller gives up after its time limit */
			return 1;
		}
		m->fn = listen_msg;
		m->ptr = f;
		m->is_heap = true;
		stack_post(s->peers[k], m);
	}
	return 1; /* answered later */
}

static int do_setopt(struct stack *s, uint32_t client, struct call *c)
{
	struct conn *conn;
	struct tcp_pcb *pcb;

	if (!stack_owns(s, c->endpoint) || !hold_test(s->arena, client, c->endpoint))
		return -EBADF;
	conn = s->by_ep[c->endpoint - s->ep_first];
	if (!conn || !conn->pcb)
		return 0; /* listener or closed: what matters there is in app_flags */
	pcb = conn->pcb;
	switch (c->opt) {
	case OPT_KEEPALIVE:
		if (c->value)
			ip_set_option(pcb, SOF_KEEPALIVE);
		else
			ip_reset_option(pcb, SOF_KEEPALIVE);
		break;
	case OPT_RCVBUF:
		if (c->value < 1)
			return -EINVAL;
		rx_resize(s, conn, LWIP_MIN((uint32_t)c->value, TCP_WND));
		break;
	case OPT_KEEPIDLE:
		if (c->value < 1 || c->value > KEEP_MAX_S)
			return -EINVAL;
		pcb->keep_idle = (u32_t)c->value * 1000u;
		break;
	case OPT_KEEPINTVL:
		if (c->value < 1 || c->value > KEEP_MAX_S)
			return -EINVAL;
		pcb->keep_intvl = (u32_t)c->value * 1000u;
		break;
	case OPT_KEEPCNT:
		if (c->value < 1 || c->value > 127)
			return -EINVAL;
		pcb->keep_cnt = (u32_t)c->value;
		break;
	case OPT_TOS:
		pcb->tos = (u8_t)c->value;
		break;
	case OPT_TTL:
		pcb->ttl = (u8_t)c->value;
		break;
	case OPT_USER_TIMEOUT:
		conn->user_timeout_ms = (u32_t)c->value;
		break;
	default:
		return -ENOPROTOOPT;
	}
	conn_touch(s, conn);
	return 0;
}

static void do_call(struct stack *s, uint32_t client, uint32_t call_idx)
{
	struct call *slot, c;
	uint32_t ep = ENDPOINT_NONE;
	int rc;

	if (call_idx >= CALL_COUNT) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	slot = &arena_client(s->arena, client)->call[call_idx];
	if (atomic_load(&slot->state) != CALL_POSTED) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	memcpy(&c, slot, sizeof(c)); /* looked at once: the client may write it again */
	COUNT(s, requests, 1);
	switch (c.op) {
	case CALL_BIND:
		rc = do_bind(s, client, &c, &ep);
		slot->local = c.local;
		break;
	case CALL_LISTEN:
		rc = s->idx ? -EINVAL : do_listen(s, client, call_idx, &c);
		ep = c.endpoint;
		if (rc > 0)
			return;
		break;
	case CALL_CONNECT:
		rc = tcp_open(s, &c, client, &ep);
		if (rc == -EXDEV)
			slot->value = (int32_t)nic_owner(
			        s->nic, AF_INET, c.remote.ip, c.remote.port, &s->address, c.local.port);
		break;
	case CALL_SETOPT:
		rc = do_setopt(s, client, &c);
		ep = c.endpoint;
		break;
	default:
		bad_input(s, __func__, __LINE__);
		rc = -EOPNOTSUPP;
	}
	call_answer(s, client, call_idx, rc, ep);
}

static void do_doorbell(struct stack *s, uint32_t ep_idx)
{
	struct endpoint *ep = stack_ep(s, ep_idx);
	struct conn *c = s->by_ep[ep_idx - s->ep_first];

	COUNT(s, doorbells, 1);
	atomic_exchange(&ep->doorbell, 0);
	if (!c || c->is_released)
		return;
	rx_reclaim(s, c);
	conn_touch(s, c);
	if (!c->reclaim_armed) { /* so that an idle connection gives its last send block back */
		c->reclaim_armed = 1;
		c->reclaim_wait = RECLAIM_MS;
		c->reclaim_due = s->now_ms + RECLAIM_MS;
	}
}

static void do_post(struct stack *s, uint32_t client, uint64_t entry)
{
	uint32_t idx = (uint32_t)entry, arg = (uint32_t)(entry >> 32) & 0xffffff,
	         op = (uint32_t)(entry >> 56);

	if (op == POST_NONE)
		return;
	if (op == POST_CALL) {
		do_call(s, client, idx);
		return;
	}
	if (!stack_owns(s, idx) || !hold_test(s->arena, client, idx)) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	switch (op) {
	case POST_DOORBELL:
		do_doorbell(s, idx);
		break;
	case POST_RELEASE:
		if (s->by_ep[idx - s->ep_first])
			tx_adopt(s, s->by_ep[idx - s->ep_first]);
		hold_clear(s->arena, client, idx);
		/* one that still waits to be accepted was only held by a process that came second: it goes on
		 * waiting */
		if (!hold_any(s->arena, idx, UINT32_MAX) && !conn_is_queued(s, idx))
			tcp_release(s, idx, arg);
		break;
	case POST_SHUTDOWN:
		tcp_shut(s, idx, arg);
		break;
	case POST_OPTIONS:
		if (s->by_ep[idx - s->ep_first])
			conn_touch(s, s->by_ep[idx - s->ep_first]);
		break;
	default:
		bad_input(s, __func__, __LINE__);
	}
}

static uint32_t client_run(struct stack *s, uint32_t client)
{
	struct req_ring *r = &arena_client(s->arena, client)->stack[s->idx].req;
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint32_t head = atomic_load_explicit(&r->head, memory_order_acquire), n = 0;

	if (head - tail > REQ_RING_SIZE) {
		bad_input(s, __func__, __LINE__);
		atomic_store(&r->tail, head);
		return 0;
	}
	for (; tail != head && n < REQ_BURST; n++) {
		uint64_t entry = atomic_load_explicit(&r->slot[tail % REQ_RING_SIZE], memory_order_relaxed);

		atomic_store_explicit(&r->tail, ++tail, memory_order_release);
		do_post(s, client, entry);
	}
	block_grant(s, client);
	if (tail != head)
		atomic_fetch_or(&s->shared->pending[client / 64], 1ull << (client % 64));
	return n;
}

uint32_t request_run(struct stack *s)
{
	uint32_t n = 0, words = (s->arena->client_count + 63) / 64;

	if (atomic_load_explicit(&s->messages, memory_order_relaxed))
		request_messages(s);
	for (uint32_t w = 0; w < words; w++) {
		uint64_t bits;

		if (!atomic_load_explicit(&s->shared->pending[w], memory_order_relaxed))
			continue;
		bits = atomic_exchange(&s->shared->pending[w], 0);
		while (bits) {
			uint32_t client = w * 64 + (uint32_t)__builtin_ctzll(bits);

			bits &= bits - 1;
			if (client < s->arena->client_count)
				n += client_run(s, client);
		}
	}
	return n;
}

void request_messages(struct stack *s)
{
	struct stack_msg *m = atomic_exchange(&s->messages, NULL), *first = NULL;

	while (m) { /* newest first: turn it round */
		struct stack_msg *next = m->next;

		m->next = first;
		first = m;
		m = next;
	}
	while (first) {
		_Atomic uint32_t *done = first->done;
		bool is_heap = first->is_heap;

		m = first;
		first = m->next;
		m->fn(s, m);
		if (is_heap)
			free(m);
		if (done)
			atomic_fetch_sub(done, 1);
	}
}

void stack_barrier(struct stack *s, struct stack_msg *m)
{
	(void)s, (void)m;
}

/* Releases what no client holds and none can accept any more: a client cleared its own holds. */
static void orphans_release(struct stack *s)
{
	uint32_t words = s->ep_count / 64, first = s->ep_first / 64;

	for (uint32_t w = 0; w < words; w++) {
		uint64_t bits = 0, held = 0;

		for (uint32_t i = 0; i < 64; i++) {
			struct conn *c = s->by_ep[w * 64 + i];
			uint8_t kind = s->own[w * 64 + i].kind;

			if (kind == OWN_BOUND || kind == OWN_LISTEN || kind == OWN_SHUT || kind == OWN_DEAD ||
			        (c && !c->is_released))
				bits |= 1ull << i;
		}
		for (uint32_t i = 0; i < s->arena->client_count && bits; i++)
			if (atomic_load(&arena_client(s->arena, i)->state) != CLIENT_FREE)
				held |= atomic_load(&arena_holds(s->arena, i)[first + w]);
		bits &= ~held;
		while (bits) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits), idx = s->ep_first + i;

			bits &= bits - 1;
			/* in this order: whoever takes a connection from the queue holds it before */
			if (conn_is_queued(s, idx))
				continue;
			if (!hold_any(s->arena, idx, UINT32_MAX))
				tcp_release(s, idx, 0);
		}
	}
}

/* Closes what a dead process had open, as the kernel does at exit. */
void stack_client_gone(struct stack *s, struct stack_msg *m)
{
	uint32_t client = (uint32_t)m->arg;
	_Atomic uint64_t *holds = arena_holds(s->arena, client);
	struct req_ring *r = &arena_client(s->arena, client)->stack[s->idx].req;

	/* what it posted before it died still counts: data it wrote goes out */
	while (atomic_load(&r->head) - atomic_load(&r->tail) - 1 < REQ_RING_SIZE && client_run(s, client))
		;
	atomic_fetch_and(&s->shared->pending[client / 64], ~(1ull << (client % 64)));
	for (uint32_t w = s->ep_first / 64; w < (s->ep_first + s->ep_count) / 64; w++) {
		uint64_t bits = atomic_load(&holds[w]);

		while (bits) {
			uint32_t idx = w * 64 + (uint32_t)__builtin_ctzll(bits);
			struct endpoint *ep = stack_ep(s, idx);
			struct conn *c = s->by_ep[idx - s->ep_first];

			bits &= bits - 1;
			for (int i = 0; i < WATCH_INLINE; i++) {
				uint32_t p = WATCH_POLLER(atomic_load(&ep->watch[i].word));

				if (p && p <= s->arena->poller_count &&
				        atomic_load(&s->arena->pollers[p - 1].owner) == client + 1)
					atomic_store(&ep->watch[i].word, 0);
			}
			if (ep->listener < s->arena->listener_count) {
				struct listener *l = arena_listener(s->arena, ep->listener);

				for (int i = 0; i < WATCH_LISTENER; i++) {
					uint32_t p = WATCH_POLLER(atomic_load(&l->watch[i].word));

					if (p && p <= s->arena->poller_count &&
					        atomic_load(&s->arena->pollers[p - 1].owner) == client + 1)
						atomic_store(&l->watch[i].word, 0);
				}
			}
			/* it may have died between setting a doorbell and posting it */
			atomic_store(&ep->doorbell, 0);
			if (c && !c->is_released) {
				rx_reclaim(s, c);
				tx_adopt(s, c); /* what it wrote without a doorbell goes out too */
				conn_touch(s, c);
			}
			hold_clear(s->arena, client, idx);
			if (!hold_any(s->arena, idx, UINT32_MAX) && conn_is_queued(s, idx))
				continue; /* it died between claiming and accepting: the next accept gets it
				           */
			if (!hold_any(s->arena, idx, UINT32_MAX))
				tcp_release(s, idx, 0);
		}
	}
	orphans_release(s);
	block_client_gone(s, client);
	atomic_store(&r->head, 0);
	atomic_store(&r->tail, 0);
}
