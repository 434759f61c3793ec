/* tcp.c - the life of a TCP endpoint: open, listen, accept, shut down, release, fail; and lwIP's callbacks
 * that drive it.
 *
 * Runs in the stack's thread. An endpoint goes BOUND or LISTEN (stack 0 only), CONNECTING, ESTABLISHED,
 * CLOSED, and becomes free in three steps: no client holds it any more, its sent data is acknowledged or
 * given up, its rings are emptied. The rings are in rx.c and tx.c.
 */
#include "stack_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "udp.h"

void tcp_addr_set(struct sock_addr *a, const ip_addr_t *ip, uint16_t port)
{
	memset(a, 0, sizeof(*a));
	a->family = AF_INET;
	a->port = port;
	memcpy(a->ip, &ip_2_ip4(ip)->addr, 4);
}

uint32_t ep_take(struct stack *s)
{
	struct endpoint *ep;
	uint32_t idx;

	if (!s->ep_free_count)
		return ENDPOINT_NONE;
	idx = s->ep_free[--s->ep_free_count];
	ep = stack_ep(s, idx);
	atomic_store_explicit(&ep->rx_head, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->rx_bytes, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_tail, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_sent, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->flags, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->error, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->rx_gen, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_gen, 0, memory_order_relaxed);
	s->own[idx - s->ep_first] = (struct ep_own){.kind = OWN_CONN};
	ep->gen++;
	ep->stack_idx = (uint16_t)s->idx;
	ep->kind = SOCK_STREAM;
	atomic_store_explicit(&ep->info_drops, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->info_tx_bytes, 0, memory_order_relaxed);
	ep->listener = UINT32_MAX;
	ep->parent = ENDPOINT_NONE;
	atomic_store_explicit(&ep->rx_tail, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->rx_off, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->rx_read, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_head, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->doorbell, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_map, BLOCK_NONE, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_want, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->rx_lock, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_lock, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_limit,
	        LWIP_MIN(s->cfg.send_buffer, (TX_BLOCK_COUNT - 2) * TX_BLOCK_SIZE), memory_order_relaxed);
	atomic_store_explicit(&ep->app_flags, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->info_retransmits, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->info_timer, REPORT_TIMER_NONE, memory_order_relaxed);
	atomic_store_explicit(&ep->tx_unsent, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->tcp_state, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->app_fd, -1, memory_order_relaxed);
	atomic_store_explicit(&ep->creator, UINT32_MAX, memory_order_relaxed);
	memset(&ep->local, 0, sizeof(ep->local));
	memset(&ep->remote, 0, sizeof(ep->remote));
	stat_set(s->stats, STAT_endpoints_free, s->ep_free_count);
	stat_set(s->stats, STAT_endpoints_used, s->ep_count - s->ep_free_count);
	return idx;
}

void ep_give(struct stack *s, uint32_t ep_idx)
{
	struct endpoint *ep = stack_ep(s, ep_idx);

	s->own[ep_idx - s->ep_first].kind = OWN_FREE;
	atomic_store(&ep->state, EP_FREE);
	notify_gone(s, ep_idx);
	for (int i = 0; i < WATCH_INLINE; i++)
		watch_clear(s->arena, &ep->watch[i]);
	s->by_ep[ep_idx - s->ep_first] = NULL;
	s->ep_free[s->ep_free_count++] = ep_idx;
	stat_set(s->stats, STAT_endpoints_free, s->ep_free_count);
	stat_set(s->stats, STAT_endpoints_used, s->ep_count - s->ep_free_count);
}

/* --- messages to stack 0 about ports --- */

static void port_unref_msg(struct stack *s, struct stack_msg *m)
{
	port_unref(s, (uint32_t)(m->arg >> 16), (uint16_t)m->arg);
}

static void port_release(struct stack *s, uint32_t ip, uint16_t port)
{
	struct stack_msg *m;

	if (s->idx == 0) {
		port_unref(s, ip, port);
		return;
	}
	m = calloc(1, sizeof(*m));
	if (!m)
		return; /* the port stays reserved; better than a crash */
	m->fn = port_unref_msg;
	m->arg = (uint64_t)ip << 16 | port;
	m->is_heap = true;
	stack_post(s->peers[0], m);
}

/* --- the end of an endpoint --- */

/* Last step: nobody holds it and nothing of it is in use. */
static void detach(struct stack *s, struct conn *c)
{
	uint32_t idx = c->ep;

	if (idx == ENDPOINT_NONE)
		return;
	rx_drop_all(s, c);
	tx_drop_all(s, c);
	if (c->owns_port)
		port_release(s, c->bound_ip, c->local_port);
	c->owns_port = 0;
	c->ep = ENDPOINT_NONE;
	ep_give(s, idx);
}

static void mark_closed(struct stack *s, struct conn *c)
{
	struct endpoint *ep = stack_ep(s, c->ep);

	if (atomic_load_explicit(&ep->state, memory_order_relaxed) == EP_CLOSED)
		return;
	if (atomic_load_explicit(&ep->state, memory_order_relaxed) == EP_ESTABLISHED)
		COUNT(s, tcp_closed, 1);
	/* data that waits behind a full ring comes before the end: then rx.c sets EP_RX_EOF with the last
	 * piece */
	atomic_fetch_or(&ep->flags, (c->pend_first ? 0 : EP_RX_EOF) | EP_TX_CLOSED | EP_FIN_ACKED);
	atomic_store(&ep->state, EP_CLOSED);
	atomic_fetch_add(&ep->rx_gen, 1);
	notify(s, c->ep, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLHUP | EPOLLERR);
}

/* The pcb has been freed by lwIP (from inside its code: nothing here may call back into TCP). */
void tcp_conn_gone(struct stack *s, struct conn *c)
{
	s->established_count -= c->is_counted;
	s->time_wait_count -= c->is_tw;
	c->is_counted = c->is_tw = 0;
	if (c->is_estab) {
		s->mib.curr_estab--;
		c->is_estab = 0;
		if (!c->fin_sent && !c->close_called)
			COUNT(s, tcp_estab_resets, 1);
	}
	if (c->is_connecting)
		COUNT(s, tcp_attempt_fails, 1);
	if (c->listener) {
		if (c->is_deferred)
			COUNT(s, tcp_estab_resets, 1);
		else
			COUNT(s, tcp_attempt_fails, 1);
		c->listener->embryonic--;
		c->listener = NULL;
	}
	if (c->ep != ENDPOINT_NONE) {
		if (c->is_released)
			detach(s, c);
		else
			mark_closed(s, c);
	}
	conn_put(s, c);
}

void tcp_fail(struct stack *s, struct conn *c, int err, bool is_connect)
{
	struct tcp_pcb *pcb = c->pcb;

	if (c->ep != ENDPOINT_NONE)
		atomic_store(&stack_ep(s, c->ep)->error, err);
	if (is_connect)
		COUNT(s, tcp_connect_failed, 1);
	if (!pcb)
		return;
	tcp_err(pcb, NULL);
	focus_enter(c);
	tcp_abandon(pcb, 0);
	focus_leave(s);
}

/* --- lwIP's callbacks --- */

bool tcp_is_shut_both(struct stack *s, const struct conn *c)
{
	uint32_t both = APP_SHUT_RD | APP_SHUT_WR; /* set before shutdown(2) returns; its post comes later */

	return (atomic_load_explicit(&stack_ep(s, c->ep)->app_flags, memory_order_relaxed) & both) == both;
}

err_t tcp_on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct stack *s = stack_current;
	struct conn *c = arg;
	struct endpoint *ep;

	(void)err;
	if (c->ep == ENDPOINT_NONE || c->is_released) {
		if (p) {
			/* nobody will ever read it: the peer is told (RFC 1122 4.2.2.13) */
			pbuf_free(p);
			tcp_abort(pcb);
			return ERR_ABRT;
		}
		return ERR_OK;
	}
	if (p && tcp_is_shut_both(s, c)) {
		pbuf_free(p);
		atomic_store(&stack_ep(s, c->ep)->error, ECONNRESET);
		tcp_err(pcb, NULL);
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	if (p) {
		if (!rx_add(s, c, p))
			return ERR_OK;
		atomic_store(&stack_ep(s, c->ep)->error, ENOBUFS);
		tcp_err(pcb, NULL);
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	ep = stack_ep(s, c->ep);
	c->fin_seen = 1;
	/* what waits behind a full ring comes before the end: EP_RX_EOF is set with the last piece (rx.c) */
	if (!c->pend_first) {
		atomic_fetch_or(&ep->flags, EP_RX_EOF | EP_FIN_SEEN);
		atomic_fetch_add(&ep->rx_gen, 1);
		notify(s, c->ep, EPOLLIN | EPOLLRDHUP | EPOLLHUP);
	}
	return ERR_OK;
}

void tcp_rx_broken(struct stack *s, struct conn *c)
{
	atomic_store(&stack_ep(s, c->ep)->error, ENOBUFS);
	tcp_err(c->pcb, NULL);
	conn_abort(s, c);
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t size)
{
	struct conn *c = arg;

	(void)pcb;
	if (c->ep != ENDPOINT_NONE)
		tx_acked(stack_current, c, size);
	return ERR_OK;
}

/* lwIP frees the pcb right after this (tcp_conn_gone follows). */
static void on_err(void *arg, err_t err)
{
	struct stack *s = stack_current;
	struct conn *c = arg;
	struct endpoint *ep;

	if (!c || c->ep == ENDPOINT_NONE)
		return;
	ep = stack_ep(s, c->ep);
	if (c->is_connecting) {
		COUNT(s, tcp_connect_failed, 1);
		atomic_store(&ep->error, err == ERR_RST ? ECONNREFUSED : ECONNABORTED);
	} else if (err == ERR_RST) {
		/* the kernel says EPIPE to a reset that comes after the peer's FIN (tcp_reset) */
		atomic_store(&ep->error, atomic_load_explicit(&ep->flags, memory_order_relaxed) & EP_RX_EOF
		                                 ? EPIPE
		                                 : ECONNRESET);
	} else if (err != ERR_CLSD) {
		atomic_store(&ep->error, ECONNABORTED);
	}
}

/* After the handshake: callbacks, this connection's receive window, and the handshake as first RTT sample
 * (RFC 6298 2.2). */
void tcp_established(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;

	c->is_counted = c->is_estab = 1;
	s->established_count++;
	s->mib.curr_estab++;
	tcp_arg(pcb, c);
	tcp_recv(pcb, tcp_on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_err);
	if (c->rcv_limit < pcb->rcv_wnd) {
		pcb->rcv_wnd = pcb->rcv_ann_wnd = c->rcv_limit;
		pcb->rcv_ann_right_edge = pcb->rcv_nxt + pcb->rcv_wnd;
	}
	if (c->max_seg && pcb->mss > c->max_seg)
		pcb->mss = c->max_seg;
	tcp_mss_set(s, c);
	if (!c->syn_tries)
		tcp_rtt_sample(s, c, s->now_ns - c->syn_ns);
	c->rexmit_open = 0; /* the SYN's time-outs are over */
	pcb->rttest = 0;
	c->snd_max = pcb->snd_nxt;
	c->data_sent_ms = c->data_recv_ms = c->ack_recv_ms = s->now_ms;
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct stack *s = stack_current;
	struct conn *c = arg;
	struct endpoint *ep = stack_ep(s, c->ep);

	(void)pcb, (void)err;
	c->is_connecting = 0;
	tcp_established(s, c);
	COUNT(s, tcp_connected, 1);
	atomic_store(&ep->flags, EP_OPENED);
	atomic_store(&ep->state, EP_ESTABLISHED);
	notify(s, c->ep, EPOLLOUT);
	return ERR_OK;
}

/* --- requests --- */

bool route_ok(const struct stack *s, const uint8_t ip[4])
{
	uint32_t addr;

	memcpy(&addr, ip, 4);
	return !((addr ^ s->address) & s->netmask) || s->has_gateway;
}

/* Whether a connection keeps another one from having its addresses and ports. One to ourselves in TIME_WAIT
 * does not, it ends here: no old segments are under way, and the peer's end is gone (tcp_tw_reuse in the
 * kernel). */
static bool tuple_is_taken(struct stack *s, struct conn *c)
{
	if (!c)
		return false;
	if (!c->pcb || c->pcb->state != TIME_WAIT || c->ep != ENDPOINT_NONE ||
	        !loop_serves(s, ip_2_ip4(&c->remote_ip)->addr))
		return true;
	conn_abort(s, c);
	return false;
}

/* A free source port whose answers come to this stack. Towards one destination ports follow each other from a
 * place that nobody can foresee (RFC 6056 3.3.4), so that the one that was used longest ago is met first:
 * with many connections, or many in TIME_WAIT, a random start would meet taken ones. */
static int choose_port(struct stack *s, const struct sock_addr *remote, const ip_addr_t *rip,
        const ip_addr_t *lip, uint16_t *port)
{
	uint32_t range = PORT_LAST - PORT_FIRST + 1, *turn, start;
	uint64_t h = stack_hash(s, (uint64_t)ip_2_ip4(rip)->addr << 32 | ip_2_ip4(lip)->addr, remote->port);

	turn = &s->port_turn[(h >> 32) % ARRAY_COUNT(s->port_turn)];
	start = (uint32_t)h % range;
	for (uint32_t i = 0; i < range; i++) {
		uint16_t p = (uint16_t)(PORT_FIRST + (start + (*turn)++ % range) % range);

		if (nic_owner(s->nic, AF_INET, remote->ip, remote->port, &ip_2_ip4(lip)->addr, p) != s->idx)
			continue;
		if (p == remote->port && ip_addr_cmp(rip, lip))
			continue; /* nobody means to connect to himself by chance */
		if (port_is_used(s, p) || tuple_is_taken(s, conn_find(s, rip, lip, remote->port, p)))
			continue;
		*port = p;
		return 0;
	}
	return -EADDRNOTAVAIL;
}

/* The address a connection comes from: what the socket is bound to, or what the kernel's route would say. */
static int source_choose(const struct stack *s, uint32_t bound, uint32_t to, uint32_t *from)
{
	if (!loop_serves(s, to)) {
		*from = s->address;
		return s->has_loop && ip4_is_loopback(bound) ? -EINVAL : 0;
	}
	*from = bound ? bound : ip4_is_loopback(to) ? PP_HTONL(IPADDR_LOOPBACK) : s->address;
	return loop_serves(s, *from) ? 0 : -EADDRNOTAVAIL;
}

int tcp_open(struct stack *s, const struct call *call, uint32_t client, uint32_t *ep_out)
{
	ip_addr_t rip, lip;
	struct tcp_pcb *pcb;
	struct endpoint *ep;
	struct conn *c;
	uint32_t idx, bound;
	uint16_t port = call->local.port;
	int rc;

	if (call->remote.family != AF_INET)
		return -EAFNOSUPPORT;
	ip_addr_set_zero_ip4(&rip);
	ip_addr_set_zero_ip4(&lip);
	memcpy(&ip_2_ip4(&rip)->addr, call->remote.ip, 4);
	if (!loop_serves(s, ip_2_ip4(&rip)->addr) &&
	        (!route_ok(s, call->remote.ip) || ip4_is_loopback(ip_2_ip4(&rip)->addr)))
		return -ENETUNREACH;
	if (!call->remote.port)
		return -ECONNREFUSED;
	memcpy(&bound, call->local.ip, 4);
	rc = source_choose(s, bound, ip_2_ip4(&rip)->addr, &ip_2_ip4(&lip)->addr);
	if (rc)
		return rc;
	if (port) {
		*ep_out = nic_owner(
		        s->nic, AF_INET, call->remote.ip, call->remote.port, &ip_2_ip4(&lip)->addr, port);
		if (*ep_out != s->idx)
			return -EXDEV; /* the port decides the stack: the caller asks that one */
		if (tuple_is_taken(s, conn_find(s, &rip, &lip, call->remote.port, port)))
			return -EADDRNOTAVAIL;
	} else {
		rc = choose_port(s, &call->remote, &rip, &lip, &port);
		if (rc)
			return rc;
	}
	idx = ep_take(s);
	if (idx == ENDPOINT_NONE)
		return -ENOBUFS;
	pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
	c = pcb ? conn_new(s, pcb) : NULL;
	if (!c) {
		if (pcb)
			tcp_abort(pcb);
		ep_give(s, idx);
		return -ENOBUFS;
	}
	tcp_nagle_disable(pcb);
	ip_set_option(pcb, SOF_REUSEADDR);
	tcp_arg(pcb, c);
	tcp_err(pcb, on_err);
	tcp_bind(pcb, &lip, port);
	pcb->rto = pcb->sv = 1000;
	c->ep = idx;
	c->is_connecting = 1;
	c->owns_port = call->local.port != 0;
	c->bound_ip = bound;
	c->syn_ns = s->now_ns;
	s->by_ep[idx - s->ep_first] = c;
	ep = stack_ep(s, idx);
	atomic_store_explicit(&ep->creator, client, memory_order_relaxed);
	tcp_addr_set(&ep->local, &lip, port);
	ep->remote = call->remote;
	atomic_store_explicit(
	        &ep->app_flags, call->value & (APP_NODELAY | APP_CORK | APP_KEEPALIVE), memory_order_relaxed);
	ep_opts_copy(&ep->opts, &call->opts);
	c->rcv_limit = tcp_rcv_limit(s, ep);
	tcp_options(s, c);
	atomic_store(&ep->state, EP_CONNECTING);
	hold_set(s->arena, client, idx);
	tcp_ticks = s->now_ms;
	s->out_conn = c;
	if (tcp_connect(pcb, &rip, call->remote.port, on_connected) != ERR_OK) {
		focus_leave(s);
		hold_clear(s->arena, client, idx);
		c->is_released = 1;
		c->owns_port = 0; /* the caller keeps its reservation */
		c->is_connecting = 0;
		tcp_err(pcb, NULL);
		tcp_abort(pcb);
		return -ENOBUFS;
	}
	conn_hash_insert(s, c);
	focus_leave(s);
	conn_touch(s, c);
	COUNT(s, tcp_active_opens, 1);
	*ep_out = idx;
	return 0;
}

void tcp_release(struct stack *s, uint32_t ep_idx, uint32_t how)
{
	struct endpoint *ep = stack_ep(s, ep_idx);
	const struct ep_own *own = &s->own[ep_idx - s->ep_first];
	struct conn *c = s->by_ep[ep_idx - s->ep_first];

	switch (own->kind) {
	case OWN_FREE:
		return;
	case OWN_LISTEN:
		atomic_store(&ep->state, EP_CLOSED);
		/* the port is free at once: a new listener's messages come to each stack after those of this
		 * one's end */
		port_unlisten(s, own_ip(own), own->port);
		port_release(s, own_ip(own), own->port);
		tcp_unlisten(s, ep_idx, OWN_CONN);
		return;
	case OWN_SHUT:
		s->own[ep_idx - s->ep_first].kind = OWN_CONN;
		return;
	case OWN_DEAD:
		tcp_listener_give(s, ep_idx, own->listener);
		return;
	case OWN_BOUND:
		if (!(how & RELEASE_KEEP_PORT))
			port_release(s, own_ip(own), own->port);
		ep_give(s, ep_idx);
		return;
	default:
		break;
	}
	if (!c || c->is_released)
		return;
	if (c->udp) {
		udp_release(s, c, how);
		return;
	}
	/* also when nobody is left to ask for it: a process that died */
	if (ep_opt_flag(stack_ep(s, ep_idx), EPF_LINGER) && ep_opt(stack_ep(s, ep_idx), EPO_LINGER_S) == 0)
		how |= RELEASE_ABORT;
	rx_reclaim(s, c);
	if (c->pcb && !c->is_connecting && ((how & RELEASE_ABORT) || rx_is_unread(s, c))) {
		/* what was sent before goes out before the reset, as far as the windows let it */
		c->is_busy = 1;
		tx_pump(s, c);
		c->is_busy = 0;
	}
	c->is_released = 1;
	if (c->pcb && ((how & RELEASE_ABORT) || c->is_connecting || rx_is_unread(s, c))) {
		tcp_err(c->pcb, NULL);
		if (c->is_connecting) {
			focus_enter(c);
			tcp_abandon(c->pcb, 0);
			focus_leave(s);
		} else {
			conn_abort(s, c);
		}
		return; /* tcp_conn_gone has detached it */
	}
	if (!c->pcb) {
		detach(s, c);
		conn_put(s, c);
		return;
	}
	c->fin_wanted = 1;
	conn_touch(s, c);
}

void tcp_shut(struct stack *s, uint32_t ep_idx, uint32_t how)
{
	struct conn *c = s->by_ep[ep_idx - s->ep_first];
	const struct ep_own *own = &s->own[ep_idx - s->ep_first];

	if (own->kind == OWN_LISTEN && how != SHUT_WR) {
		atomic_store(&stack_ep(s, ep_idx)->state, EP_CLOSED);
		notify(s, ep_idx, EPOLLIN | EPOLLHUP | EPOLLRDHUP);
		port_unlisten(s, own_ip(own), own->port);
		port_release(s, own_ip(own), own->port);
		tcp_unlisten(s, ep_idx, OWN_SHUT);
		return;
	}
	if (!c || c->is_released)
		return;
	if (c->is_connecting) {
		/* the attempt ends, as tcp_disconnect does it in the kernel: an error, but no end of file */
		tcp_fail(s, c, ECONNRESET, true);
		atomic_fetch_and(&stack_ep(s, ep_idx)->flags, ~(uint32_t)EP_RX_EOF);
		return;
	}
	if (c->udp) { /* what is so anyhow is an edge again (sk_state_change) */
		notify(s, ep_idx, ep_level(s->arena, stack_ep(s, ep_idx)));
		return;
	}
	if (how == SHUT_WR || how == SHUT_RDWR) {
		c->fin_wanted = 1;
		conn_touch(s, c);
	}
	if (how == SHUT_RD || how == SHUT_RDWR)
		notify(s, ep_idx, EPOLLIN | EPOLLRDHUP | EPOLLHUP);
	/* wakes writers that wait for space, too */
	notify(s, ep_idx, EPOLLOUT | EPOLLHUP);
}

/* lwIP counts the time of FIN_WAIT_2, LAST_ACK and the others from the last segment that came, which may have
 * been long before. */
void tcp_end_note(struct stack *s, struct conn *c)
{
	enum tcp_state state = c->pcb->state;

	if (state == c->end_state ||
	        (state != FIN_WAIT_2 && state != CLOSING && state != LAST_ACK && state != TIME_WAIT))
		return;
	c->end_state = (uint8_t)state;
	c->pcb->tmr = s->now_ms;
}

/* Looks at the connection after whatever happened to it in this turn: states that applications see, numbers
 * that tools see. */
void tcp_publish_info(struct stack *s, struct conn *c)
{
	struct tcp_pcb *pcb = c->pcb;
	struct endpoint *ep;

	if (pcb)
		tcp_end_note(s, c);
	if (unlikely(c->is_estab && pcb && pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT)) {
		c->is_estab = 0;
		s->mib.curr_estab--;
	}
	if (pcb && pcb->state == TIME_WAIT && !c->is_tw) {
		s->established_count -= c->is_counted;
		c->is_counted = 0;
		c->is_tw = 1;
		s->time_wait_count++;
	}
	if (c->ep == ENDPOINT_NONE || !pcb)
		return;
	ep = stack_ep(s, c->ep);
	atomic_store_explicit(&ep->tcp_state, pcb->state, memory_order_relaxed);
	atomic_store_explicit(&ep->info_cwnd, pcb->cwnd, memory_order_relaxed);
	atomic_store_explicit(&ep->info_ssthresh, pcb->ssthresh, memory_order_relaxed);
	atomic_store_explicit(&ep->info_snd_wnd, pcb->snd_wnd, memory_order_relaxed);
	atomic_store_explicit(&ep->info_rcv_wnd, pcb->rcv_wnd, memory_order_relaxed);
	atomic_store_explicit(&ep->info_rto_ms, (uint32_t)pcb->rto, memory_order_relaxed);
	atomic_store_explicit(&ep->info_mss, conn_mss(c), memory_order_relaxed);
	atomic_store_explicit(&ep->info_tx_bytes, (uint32_t)c->bytes_acked, memory_order_relaxed);
	if (pcb->state == FIN_WAIT_2 || pcb->state == TIME_WAIT) {
		if (!(atomic_load_explicit(&ep->flags, memory_order_relaxed) & EP_FIN_ACKED)) {
			atomic_fetch_or(&ep->flags, EP_FIN_ACKED);
			notify(s, c->ep, EPOLLOUT | EPOLLHUP);
		}
	}
	if (pcb->state == TIME_WAIT) {
		if (c->is_released)
			detach(s, c);
		else
			mark_closed(s, c);
	}
}

void tcp_time_wait_limit(struct stack *s, struct conn *c)
{
	if (likely(s->time_wait_count <= s->time_wait_max) || !c->pcb || c->pcb->state != TIME_WAIT)
		return;
	COUNT(s, time_wait_overflow, 1);
	conn_abort(s, c); /* nothing is sent from TIME_WAIT */
}
