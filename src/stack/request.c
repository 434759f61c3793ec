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

#include "udp.h"

static void release(struct stack *s, uint32_t client, uint32_t idx, uint32_t how)
{
	if (s->by_ep[idx - s->ep_first])
		tx_adopt(s, s->by_ep[idx - s->ep_first]);
	hold_clear(s->arena, client, idx);
	/* one that still waits to be accepted was only held by a process that came second: it goes on waiting
	 */
	if (!hold_any(s->arena, idx, UINT32_MAX) && !conn_is_queued(s, idx))
		tcp_release(s, idx, how);
}

void call_answer(struct stack *s, uint32_t client, uint32_t call_idx, int result, uint32_t ep)
{
	struct call *c = &arena_client(s->arena, client)->call[call_idx];
	uint32_t posted = CALL_POSTED;
	bool is_done;
	bool is_new = c->endpoint == ENDPOINT_NONE;

	c->result = result;
	c->endpoint = ep;
	is_done = atomic_compare_exchange_strong(&c->state, &posted, CALL_DONE);
	if (!is_done && posted == CALL_AWAITED)
		is_done = atomic_compare_exchange_strong(&c->state, &posted, CALL_DONE);
	if (!is_done) {
		/* nobody will ever close what this made */
		if (!result && is_new && stack_owns(s, ep) && hold_test(s->arena, client, ep))
			release(s, client, ep, 0);
		atomic_store(&c->state, CALL_FREE);
		return;
	}
	if (posted == CALL_AWAITED)
		syscall(SYS_futex, &c->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Who asks: the kernel said it when the client attached; root may have become anybody since. */
static uint32_t client_uid(const struct stack *s, uint32_t client, const struct call *c)
{
	uint32_t uid = atomic_load_explicit(&arena_client(s->arena, client)->uid, memory_order_relaxed);

	return uid ? uid : c->uid;
}

static int do_bind(struct stack *s, uint32_t client, struct call *c, uint32_t *ep_out)
{
	struct endpoint *ep;
	struct ep_own *own;
	uint32_t idx, ip;
	int rc;

	if (s->idx)
		return -EINVAL;
	if (c->local.family != AF_INET)
		return -EAFNOSUPPORT;
	memcpy(&ip, c->local.ip, 4);
	if (ip && ip != s->address && !loop_serves(s, ip))
		return -EADDRNOTAVAIL;
	idx = ep_take(s);
	if (idx == ENDPOINT_NONE)
		return -ENOBUFS;
	rc = port_bind(s, ip, &c->local.port, c->flags, client_uid(s, client, c));
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
	ep_opts_copy(&ep->opts, &c->opts);
	atomic_store_explicit(&ep->creator, client, memory_order_relaxed);
	atomic_store(&ep->state, EP_BOUND);
	hold_set(s->arena, client, idx);
	*ep_out = idx;
	return 0;
}

static int listen_here(struct stack *s, struct fan_out *f)
{
	return tcp_listen_here(s, f->ep, &f->own);
}

/* Every stack listens, or one could not: then none does. */
static void listen_done(struct stack *s, struct fan_out *f)
{
	if (f->result && s->own[f->ep - s->ep_first].kind == OWN_LISTEN) {
		tcp_listen_undo(s, f);
		return;
	}
	fan_out_answer(s, f, f->result);
	free(f);
}

static int do_listen(struct stack *s, uint32_t client, uint32_t call_idx, struct call *c)
{
	struct endpoint *ep;
	struct ep_own *own;
	struct listener *l = NULL;
	struct fan_out *f;
	uint32_t i, ip, backlog = (uint32_t)(c->value < 0 ? ACCEPT_RING_SIZE : c->value);
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
	f = fan_out_new(s, c->endpoint, client, call_idx);
	if (!f)
		return -ENOMEM;
	memcpy(&ip, own->ip, 4);
	rc = port_listen(s, ip, own->port, c->flags);
	if (rc) {
		free(f);
		return rc;
	}
	atomic_store(&l->in_use, 1);
	atomic_store(&l->watch_end, 0);
	atomic_store(&l->endpoint, c->endpoint);
	for (uint32_t k = 0; k < s->count; k++) {
		atomic_store(&l->ring[k].head, 0);
		atomic_store(&l->ring[k].tail, 0);
	}
	own->kind = OWN_LISTEN;
	own->listener = i;
	ep->listener = i;
	atomic_store(&ep->app_flags, (uint32_t)c->opt);
	atomic_store(&ep->state, EP_LISTEN);
	f->own = *own;
	fan_out_all(s, f, listen_here, listen_done);
	return 1; /* answered later */
}

static int do_info(struct stack *s, uint32_t client, const struct call *c, struct conn_info *info)
{
	const struct conn *conn;

	if (!stack_owns(s, c->endpoint) || !hold_test(s->arena, client, c->endpoint))
		return -EBADF;
	conn = s->by_ep[c->endpoint - s->ep_first];
	if (!conn || s->own[c->endpoint - s->ep_first].kind != OWN_CONN)
		return -ENOTCONN;
	tcp_info_fill(s, conn, info);
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
	if (atomic_load(&slot->state) == CALL_ABANDONED) {
		atomic_store(&slot->state, CALL_FREE);
		return;
	}
	if (atomic_load(&slot->state) != CALL_POSTED && atomic_load(&slot->state) != CALL_AWAITED) {
		bad_input(s, __func__, __LINE__);
		return;
	}
	memcpy(&c, slot, sizeof(c)); /* looked at once: the client may write it again */
	COUNT(s, requests, 1);
	switch (c.op) {
	case CALL_BIND:
		if (c.opt == SOCK_DGRAM) {
			rc = dgram_bind(s, client, call_idx, &c);
			if (rc > 0)
				return;
			break;
		}
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
		if (c.opt == SOCK_DGRAM ||
		        (stack_owns(s, c.endpoint) && s->own[c.endpoint - s->ep_first].kind == OWN_UDP)) {
			ep = c.endpoint;
			rc = dgram_connect(s, client, call_idx, &c);
			if (rc > 0)
				return;
			break;
		}
		rc = tcp_open(s, &c, client, &ep);
		if (rc == -EXDEV)
			slot->value = (int32_t)ep;
		break;
	case CALL_BARRIER:
		rc = 0;
		break;
	case CALL_GROUP:
		ep = c.endpoint;
		rc = dgram_group(s, client, call_idx, &c);
		if (rc > 0)
			return;
		break;
	case CALL_INFO:
		rc = do_info(s, client, &c, &slot->info);
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
	/* behind those that were written before, even if an acknowledgement has touched it already */
	conn_touch_last(s, c);
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
		release(s, client, idx, arg);
		break;
	case POST_SHUTDOWN:
		tcp_shut(s, idx, arg);
		break;
	case POST_NUDGE:
		if (s->by_ep[idx - s->ep_first] && s->by_ep[idx - s->ep_first]->udp)
			notify(s, idx, WATCH_THREAD);
		else
			notify_accept_again(s, idx);
		break;
	case POST_OPTIONS:
		if (s->by_ep[idx - s->ep_first]) {
			tcp_options(s, s->by_ep[idx - s->ep_first]);
			udp_options(s, s->by_ep[idx - s->ep_first]);
			conn_touch(s, s->by_ep[idx - s->ep_first]);
		}
		break;
	default:
		bad_input(s, __func__, __LINE__);
	}
}

uint32_t request_client(struct stack *s, uint32_t client, uint32_t most)
{
	struct req_ring *r = &arena_client(s->arena, client)->stack[s->idx].req;
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint32_t head = atomic_load_explicit(&r->head, memory_order_acquire), n = 0;

	if (head - tail > REQ_RING_SIZE) {
		bad_input(s, __func__, __LINE__);
		atomic_store(&r->tail, head);
		return 0;
	}
	for (; tail != head && n < most; n++) {
		uint64_t entry = atomic_load_explicit(&r->slot[tail % REQ_RING_SIZE], memory_order_relaxed);

		atomic_store_explicit(&r->tail, ++tail, memory_order_release);
		do_post(s, client, entry);
	}
	block_grant(s, client);
	if (tail != head)
		atomic_fetch_or(&s->shared->pending[client / 64], 1ull << (client % 64));
	return n;
}

uint32_t request_clients(struct stack *s)
{
	uint32_t n = 0, words = (s->arena->client_count + 63) / 64, count = 0, most;

	for (uint32_t w = 0; w < words; w++)
		count += (uint32_t)__builtin_popcountll(
		        atomic_load_explicit(&s->shared->pending[w], memory_order_relaxed));
	if (!count)
		return 0;
	/* the turn stays short also with many clients */
	most = count < REQ_BURST ? REQ_BURST / count : 1;
	for (uint32_t w = 0; w < words; w++) {
		uint64_t bits;

		if (!atomic_load_explicit(&s->shared->pending[w], memory_order_relaxed))
			continue;
		bits = atomic_exchange(&s->shared->pending[w], 0);
		while (bits) {
			uint32_t client = w * 64 + (uint32_t)__builtin_ctzll(bits);

			bits &= bits - 1;
			if (client < s->arena->client_count)
				n += request_client(s, client, most);
		}
	}
	return n;
}

uint32_t request_run(struct stack *s)
{
	uint32_t n = 0;

	if (atomic_load_explicit(&s->messages, memory_order_relaxed)) {
		request_messages(s);
		n++;
	}
	return n + request_clients(s);
}

void request_messages(struct stack *s)
{
	struct stack_msg *m = atomic_exchange(&s->messages, NULL), *first = NULL, *again = NULL;

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
		if (s->msg_again) { /* else its memory may be gone */
			s->msg_again = false;
			m->next = again;
			again = m;
			continue;
		}
		if (is_heap)
			free(m);
		if (done)
			atomic_fetch_sub(done, 1);
	}
	while ((m = again)) {
		again = m->next;
		m->next = atomic_load(&s->messages);
		while (!atomic_compare_exchange_weak(&s->messages, &m->next, m))
			;
	}
}

void stack_barrier(struct stack *s, struct stack_msg *m)
{
	(void)s, (void)m;
}
