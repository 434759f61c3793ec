/* tcp_listen.c - listeners: their part on every stack, their queues, and their end.
 *
 * Runs in the stack's thread. A listener is opened by stack 0 and lives on all of them (fan-out by messages);
 * each stack takes the handshakes that come to it and publishes finished ones in its own ring of the
 * listener's record. Protocol: doc/threads.md, "Accept".
 */
#include "stack_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A connection goes into its listener's queue. ERR_MEM when there is no place for it. */
static err_t accept_queue(struct stack *s, struct conn *c)
{
	struct listener_local *l = c->listener;
	struct tcp_pcb *pcb = c->pcb;
	struct accept_ring *r;
	struct endpoint *ep, *lep;
	uint32_t head, idx;

	r = &arena_listener(s->arena, l->idx)->ring[s->idx];
	head = atomic_load_explicit(&r->head, memory_order_relaxed);
	if (head - atomic_load_explicit(&r->tail, memory_order_acquire) >= ACCEPT_RING_SIZE) {
		COUNT(s, accept_overflow, 1);
		return ERR_MEM;
	}
	idx = ep_take(s);
	if (idx == ENDPOINT_NONE) {
		COUNT(s, drop_syn_no_endpoint, 1);
		return ERR_MEM;
	}
	l->embryonic--;
	c->listener = NULL;
	c->parent = l->ep;
	c->listener_idx = (uint8_t)l->idx;
	c->accept_pos = head;
	c->ep = idx;
	s->by_ep[idx - s->ep_first] = c;
	lep = stack_ep(s, l->ep);
	ep = stack_ep(s, idx);
	ep->parent = l->ep;
	atomic_store_explicit(&ep->creator, atomic_load_explicit(&lep->creator, memory_order_relaxed),
	        memory_order_relaxed);
	tcp_addr_set(&ep->local, &pcb->local_ip, pcb->local_port);
	tcp_addr_set(&ep->remote, &pcb->remote_ip, pcb->remote_port);
	ep_opts_copy(&ep->opts, &lep->opts);
	/* what the kernel does not hand on (sk_clone_lock, tcp_create_openreq_child) */
	atomic_store_explicit(&ep->opts.v[EPO_PRIORITY], 0, memory_order_relaxed);
	atomic_store_explicit(&ep->opts.v[EPO_DEFER_ACCEPT], 0, memory_order_relaxed);
	c->rcv_limit = tcp_rcv_limit(s, ep);
	tcp_options(s, c);
	tcp_established(s, c);
	atomic_store_explicit(&ep->app_flags,
	        atomic_load_explicit(&lep->app_flags, memory_order_relaxed) &
	                (APP_NODELAY | APP_CORK | APP_KEEPALIVE),
	        memory_order_relaxed);
	atomic_store_explicit(&ep->tx_limit, atomic_load_explicit(&lep->tx_limit, memory_order_relaxed),
	        memory_order_relaxed);
	atomic_store(&ep->flags, EP_OPENED);
	atomic_store(&ep->state, EP_ESTABLISHED);
	COUNT(s, tcp_accepted, 1);
	atomic_store_explicit(&r->slot[head % ACCEPT_RING_SIZE], idx, memory_order_relaxed);
	atomic_store(&r->head, head + 1);
	notify_accept(s, l->ep, l->turn++);
	return ERR_OK;
}

/* The first data, or the end, of a connection that TCP_DEFER_ACCEPT keeps back. */
static err_t on_deferred_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct stack *s = stack_current;
	struct conn *c = arg;

	c->is_deferred = false;
	if (accept_queue(s, c) == ERR_OK)
		return tcp_on_recv(arg, pcb, p, err);
	if (p)
		pbuf_free(p);
	tcp_abort(pcb);
	return ERR_ABRT;
}

void tcp_defer_end(struct stack *s, struct conn *c)
{
	c->is_deferred = false;
	if (accept_queue(s, c) != ERR_OK)
		conn_abort(s, c);
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct stack *s = stack_current;
	struct listener_local *l = arg;
	struct conn *c;
	int32_t defer_s;

	if (err != ERR_OK || !pcb)
		return ERR_VAL;
	c = tcp_ext_arg_get(pcb, 0);
	if (!c || c->listener != l)
		return ERR_VAL;
	defer_s = ep_opt(stack_ep(s, l->ep), EPO_DEFER_ACCEPT);
	if (likely(defer_s <= 0))
		return accept_queue(s, c);
	c->is_deferred = true; /* it counts as embryonic */
	c->defer_due = s->now_ms + LWIP_MIN((uint32_t)defer_s, 86400u) * 1000u;
	tcp_arg(pcb, c);
	tcp_recv(pcb, on_deferred_recv);
	return ERR_OK;
}

bool conn_is_queued(struct stack *s, uint32_t ep_idx)
{
	const struct conn *c = s->by_ep[ep_idx - s->ep_first];
	const struct listener_local *l;
	const struct accept_ring *r;
	uint32_t head, tail;

	if (!c || c->parent == ENDPOINT_NONE)
		return false;
	l = s->listener_at[c->listener_idx];
	if (!l || l->ep != c->parent)
		return false;
	r = &arena_listener(s->arena, l->idx)->ring[s->idx];
	head = atomic_load(&r->head);
	tail = atomic_load(&r->tail);
	return c->accept_pos - tail < head - tail && head - tail <= ACCEPT_RING_SIZE &&
	       atomic_load(&r->slot[c->accept_pos % ACCEPT_RING_SIZE]) == ep_idx;
}

int tcp_listen_here(struct stack *s, uint32_t ep_idx, const struct ep_own *own)
{
	struct listener_local *l = calloc(1, sizeof(*l));
	struct tcp_pcb *pcb, *lpcb;
	ip_addr_t ip;
	err_t err;

	if (!l)
		return -ENOMEM;
	pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
	if (!pcb) {
		free(l);
		return -ENOBUFS;
	}
	ip_addr_set_zero_ip4(&ip);
	memcpy(&ip_2_ip4(&ip)->addr, own->ip, 4);
	ip_set_option(pcb, SOF_REUSEADDR);
	err = tcp_bind(pcb, &ip, own->port);
	lpcb = err == ERR_OK ? tcp_listen_with_backlog_and_err(pcb, 255, &err) : NULL;
	focus_leave(s);
	if (!lpcb) {
		tcp_abort(pcb);
		focus_leave(s);
		free(l);
		return -EADDRINUSE;
	}
	l->pcb = (struct tcp_pcb_listen *)lpcb;
	l->ep = ep_idx;
	l->idx = own->listener;
	l->port = own->port;
	memcpy(l->ip, own->ip, 4);
	l->is_any = ip_addr_isany(&ip);
	tcp_arg(lpcb, l);
	tcp_accept(lpcb, on_accept);
	listener_add(s, l);
	return 0;
}

void tcp_unlisten_here(struct stack *s, uint32_t ep_idx, uint32_t listener)
{
	struct accept_ring *r = &arena_listener(s->arena, listener)->ring[s->idx];
	uint32_t tail = atomic_load(&r->tail), head = atomic_load(&r->head);

	listener_remove(s, ep_idx);
	/* connections that nobody accepted are reset, as the kernel does */
	while (tail != head && head - tail <= ACCEPT_RING_SIZE) {
		uint32_t idx = atomic_load(&r->slot[tail % ACCEPT_RING_SIZE]);

		if (!atomic_compare_exchange_strong(&r->tail, &tail, tail + 1))
			continue;
		tail++;
		if (stack_owns(s, idx) && s->by_ep[idx - s->ep_first] &&
		        s->by_ep[idx - s->ep_first]->parent == ep_idx)
			tcp_release(s, idx, RELEASE_ABORT);
	}
	atomic_store(&r->tail, head);
	/* and those that a client made the ring forget */
	sweep_start(s);
}

/* --- fan-out: every stack does it, the last one reports to stack 0 --- */

void tcp_listener_give(struct stack *s, uint32_t ep_idx, uint32_t listener)
{
	struct listener *l = arena_listener(s->arena, listener);

	for (int i = 0; i < WATCH_LISTENER; i++)
		watch_clear(s->arena, &l->watch[i]);
	stack_ep(s, ep_idx)->listener = UINT32_MAX;
	ep_give(s, ep_idx);
	atomic_store(&l->in_use, 0);
}

static int unlisten_here(struct stack *s, struct fan_out *f)
{
	tcp_unlisten_here(s, f->ep, f->own.listener);
	return 0;
}

static void unlisten_done(struct stack *s, struct fan_out *f)
{
	if (s->own[f->ep - s->ep_first].kind == OWN_SHUT)
		s->own[f->ep - s->ep_first].kind = OWN_DEAD;
	else
		tcp_listener_give(s, f->ep, f->own.listener);
	free(f);
}

void tcp_unlisten(struct stack *s, uint32_t ep_idx, enum own_kind next)
{
	struct fan_out *f = fan_out_new(s, ep_idx, 0, 0);

	if (!f)
		return;
	f->own = s->own[ep_idx - s->ep_first];
	s->own[ep_idx - s->ep_first].kind = (uint8_t)next; /* given back when every stack has let go */
	fan_out_all(s, f, unlisten_here, unlisten_done);
}

static void listen_undone(struct stack *s, struct fan_out *f)
{
	struct ep_own *own = &s->own[f->ep - s->ep_first];
	struct listener *l = arena_listener(s->arena, f->own.listener);

	if (own->kind == OWN_LISTEN) { /* else it was closed or shut down meanwhile */
		own->kind = OWN_BOUND;
		port_unlisten(s, own_ip(own), own->port);
		atomic_store(&stack_ep(s, f->ep)->state, EP_BOUND);
		for (int i = 0; i < WATCH_LISTENER; i++)
			watch_clear(s->arena, &l->watch[i]);
		stack_ep(s, f->ep)->listener = UINT32_MAX;
		atomic_store(&l->in_use, 0);
	}
	fan_out_answer(s, f, f->value);
	free(f);
}

void tcp_listen_undo(struct stack *s, struct fan_out *f)
{
	f->value = f->result;
	fan_out_all(s, f, unlisten_here, listen_undone);
}
