/* conn.c - connections in our own hash, and the door in front of lwIP's tcp_input ("focus").
 *
 * Runs in the stack's thread. lwIP's global lists are empty between calls; for one segment or timer the one
 * pcb it concerns is put on its list, the unmodified function runs, and what is left on the lists is taken
 * back. lwIP's tcp_input is compiled as lwip_tcp_input; ours looks the connection up, drops what lwIP would
 * stumble over, and answers for TIME_WAIT reuse and backlog. The life of the endpoint behind a connection is
 * in tcp.c.
 */
#include "stack_int.h"
#include "lwip_hooks.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lwip/ip.h"
#include "lwip/prot/tcp.h"

void lwip_tcp_input(struct pbuf *p, struct netif *inp);

enum { EXT_CONN = 0, CONN_SLAB = 64, MSS_LEAST = 48 /* tcp_min_snd_mss */ };

static uint32_t tuple_hash(
        const ip_addr_t *remote, const ip_addr_t *local, uint16_t remote_port, uint16_t local_port)
{
	uint64_t h = (uint64_t)ip_2_ip4(remote)->addr << 32 | ip_2_ip4(local)->addr;

	h ^= ((uint64_t)remote_port << 16 | local_port) * 0xff51afd7ed558ccdull;
	h *= 0x9e3779b97f4a7c15ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return (uint32_t)(h >> 32);
}

/* lwIP frees the pcb: the connection loses it. Called by tcp_free for every pcb, listeners excepted. */
static void pcb_destroyed(u8_t id, void *data)
{
	struct stack *s = stack_current;
	struct conn *c = data;

	(void)id;
	if (!c)
		return;
	c->pcb = NULL;
	if (s->input_conn == c)
		s->input_conn = NULL;
	tcp_conn_gone(s, c);
}

static const struct tcp_ext_arg_callbacks conn_callbacks = {.destroy = pcb_destroyed};

void conn_ext_init(void)
{
	static LWIP_PER_STACK bool
	        is_done; /* lwIP counts the ids of a thread, whatever stacks it runs one after the other */

	if (!is_done)
		(void)tcp_ext_arg_alloc_id(); /* EXT_CONN */
	is_done = true;
}

void conn_bind_pcb(struct conn *c, struct tcp_pcb *pcb)
{
	c->pcb = pcb;
	tcp_ext_arg_set(pcb, EXT_CONN, c);
	tcp_ext_arg_set_callbacks(pcb, EXT_CONN, &conn_callbacks);
}

struct conn *conn_new(struct stack *s, struct tcp_pcb *pcb)
{
	struct conn *c = s->conn_free;

	if (!c) {
		struct conn *slab = calloc(CONN_SLAB, sizeof(*slab));

		if (!slab || s->slab_count == s->slab_room) {
			free(slab);
			return NULL;
		}
		s->slabs[s->slab_count++] = slab;
		for (int i = 0; i < CONN_SLAB; i++) {
			slab[i].hash_next = s->conn_free;
			s->conn_free = &slab[i];
		}
		c = s->conn_free;
	}
	s->conn_free = c->hash_next;
	memset(c, 0, sizeof(*c));
	c->ep = c->parent = ENDPOINT_NONE;
	c->rcv_limit = s->cfg.receive_buffer;
	c->rto_floor = (uint16_t)s->cfg.rto_min_ms;
	if (pcb)
		conn_bind_pcb(c, pcb);
	return c;
}

static _Atomic uint32_t *port_conns(struct stack *s, const struct conn *c)
{
	return &s->port_conns[c->local_port +
	                      (ip4_is_loopback(ip_2_ip4(&c->local_ip)->addr) ? PORT_COUNT : 0)];
}

static struct conn **hash_slot(struct stack *s, const struct conn *c)
{
	return &s->hash[tuple_hash(&c->remote_ip, &c->local_ip, c->remote_port, c->local_port) &
	                s->hash_mask];
}

void conn_hash_insert(struct stack *s, struct conn *c)
{
	struct conn **slot;

	c->local_ip = c->pcb->local_ip;
	c->remote_ip = c->pcb->remote_ip;
	c->local_port = c->pcb->local_port;
	c->remote_port = c->pcb->remote_port;
	slot = hash_slot(s, c);
	c->hash_next = *slot;
	*slot = c;
	c->is_hashed = 1;
	s->conn_count++;
	/* a port that was only chosen for a connection is no obstacle to whoever wants to listen there */
	c->is_on_port = !c->is_connecting || c->owns_port;
	if (c->is_on_port)
		atomic_fetch_add_explicit(port_conns(s, c), 1, memory_order_relaxed);
}

static void hash_remove(struct stack *s, struct conn *c)
{
	struct conn **pp;

	if (!c->is_hashed)
		return;
	pp = hash_slot(s, c);
	while (*pp != c)
		pp = &(*pp)->hash_next;
	*pp = c->hash_next;
	c->is_hashed = 0;
	s->conn_count--;
	if (c->is_on_port)
		atomic_fetch_sub_explicit(port_conns(s, c), 1, memory_order_relaxed);
}

struct conn *conn_find(struct stack *s, const ip_addr_t *remote, const ip_addr_t *local, uint16_t remote_port,
        uint16_t local_port)
{
	uint32_t h = tuple_hash(remote, local, remote_port, local_port);

	for (struct conn *c = s->hash[h & s->hash_mask]; c; c = c->hash_next)
		if (c->remote_port == remote_port && c->local_port == local_port &&
		        ip_addr_cmp(&c->remote_ip, remote) && ip_addr_cmp(&c->local_ip, local))
			return c;
	return NULL;
}

void conn_put(struct stack *s, struct conn *c)
{
	if (!c->pcb)
		hash_remove(s, c); /* the tuple is free for a new connection at once */
	if (c->pcb || c->ep != ENDPOINT_NONE || c->is_dirty || c->is_busy || c->is_starved)
		return;
	timer_drop(s, c);
	if (s->out_conn == c)
		s->out_conn = NULL;
	recover_drop(c);
	c->hash_next = s->conn_free;
	s->conn_free = c;
}

void focus_enter(struct conn *c)
{
	tcp_ticks = stack_current->now_ms;
	stack_current->out_conn = c;
	if (c->pcb->state == TIME_WAIT)
		tcp_tw_pcbs = c->pcb;
	else if (c->pcb->state != CLOSED)
		tcp_active_pcbs = c->pcb;
}

/* Empties lwIP's lists; a pcb that no connection knows yet is a new one in SYN_RCVD. */
void focus_leave(struct stack *s)
{
	struct tcp_pcb *next;

	for (struct tcp_pcb *p = tcp_active_pcbs; p; p = next) {
		next = p->next;
		p->next = NULL;
		if (!tcp_ext_arg_get(p, EXT_CONN)) {
			struct conn *c = conn_new(s, p);

			if (c) {
				conn_hash_insert(s, c);
				c->listener = p->callback_arg;
				c->listener->embryonic++;
				COUNT(s, tcp_passive_opens, 1);
				c->syn_ns = s->now_ns;
				p->rto = p->sv = 1000;
				tcp_nagle_disable(p);
				conn_touch(s, c);
			} else {
				tcp_abandon(p, 0);
			}
		}
	}
	for (struct tcp_pcb *p = tcp_tw_pcbs; p; p = next) {
		next = p->next;
		p->next = NULL;
	}
	for (struct tcp_pcb *p = tcp_bound_pcbs; p; p = next) {
		next = p->next;
		p->next = NULL;
	}
	tcp_active_pcbs = NULL;
	tcp_tw_pcbs = NULL;
	tcp_bound_pcbs = NULL;
	tcp_listen_pcbs.pcbs = NULL;
}

void conn_abort(struct stack *s, struct conn *c)
{
	if (!c->pcb)
		return;
	focus_enter(c);
	tcp_abort(c->pcb);
	focus_leave(s);
}

void listener_add(struct stack *s, struct listener_local *l)
{
	l->next = s->listeners[l->port % ACCEPT_HASH];
	s->listeners[l->port % ACCEPT_HASH] = l;
	s->listener_at[l->idx] = l;
}

void listener_remove(struct stack *s, uint32_t ep_idx)
{
	for (uint32_t i = 0; i < ACCEPT_HASH; i++) {
		for (struct listener_local **pp = &s->listeners[i]; *pp; pp = &(*pp)->next) {
			struct listener_local *l = *pp;

			if (l->ep != ep_idx)
				continue;
			*pp = l->next;
			s->listener_at[l->idx] = NULL;
			for (uint32_t h = 0; h <= s->hash_mask && l->embryonic; h++) {
				for (struct conn *c = s->hash[h], *next; c; c = next) {
					next = c->hash_next;
					if (c->listener == l)
						conn_abort(s, c);
				}
			}
			tcp_listen_pcbs.listen_pcbs = l->pcb;
			tcp_close((struct tcp_pcb *)l->pcb);
			focus_leave(s);
			free(l);
			return;
		}
	}
}

/* The listener for a SYN: an exact address before the wildcard; among equals (SO_REUSEPORT) the tuple's hash
 * decides. */
static struct listener_local *listener_find(struct stack *s, uint16_t port, uint32_t ip, uint32_t hash)
{
	struct listener_local *first = s->listeners[port % ACCEPT_HASH];
	uint32_t exact = 0, any = 0, pick;

	for (struct listener_local *l = first; l; l = l->next) {
		if (l->port != port)
			continue;
		if (l->is_any)
			any++;
		else if (!memcmp(l->ip, &ip, 4))
			exact++;
	}
	if (!exact && !any)
		return NULL;
	pick = hash % (exact ? exact : any);
	for (struct listener_local *l = first; l; l = l->next)
		if (l->port == port && l->is_any == !exact && (l->is_any || !memcmp(l->ip, &ip, 4)) &&
		        !pick--)
			return l;
	return NULL;
}

/* Room for one more connection behind this listener? */
static bool listener_has_room(struct stack *s, const struct listener_local *l)
{
	const struct accept_ring *r = &arena_listener(s->arena, l->idx)->ring[s->idx];
	uint32_t queued = atomic_load_explicit(&r->head, memory_order_relaxed) -
	                  atomic_load_explicit(&r->tail, memory_order_acquire);
	uint32_t backlog = atomic_load_explicit(&stack_ep(s, l->ep)->backlog, memory_order_relaxed);

	if (queued > ACCEPT_RING_SIZE) {
		bad_input(s, __func__, __LINE__);
		return false;
	}
	return queued + l->embryonic <= backlog && queued + l->embryonic < ACCEPT_RING_SIZE;
}

/* Every option lies inside the header, or the segment is dropped. lwIP takes the MSS option of any segment,
 * of whatever size: it belongs into a SYN (RFC 9293 3.7.1), and tiny ones are only meant to do harm. */
static bool options_ok(uint8_t *opt, uint32_t size, bool is_syn)
{
	for (uint32_t i = 0; i < size;) {
		if (opt[i] == 0)
			return true;
		if (opt[i] == 1) {
			i++;
			continue;
		}
		if (i + 1 >= size || opt[i + 1] < 2 || i + opt[i + 1] > size)
			return false;
		if (unlikely(opt[i] == LWIP_TCP_OPT_MSS && opt[i + 1] == LWIP_TCP_OPT_LEN_MSS)) {
			uint32_t mss = (uint32_t)opt[i + 2] << 8 | opt[i + 3];

			if (!is_syn)
				memset(&opt[i], LWIP_TCP_OPT_NOP, LWIP_TCP_OPT_LEN_MSS);
			else if (mss && mss < MSS_LEAST)
				memcpy(&opt[i + 2], (uint8_t[]){0, MSS_LEAST}, 2);
			i += LWIP_TCP_OPT_LEN_MSS;
			continue;
		}
		i += opt[i + 1];
	}
	return true;
}

/* Cuts what lies beyond the receive window; lwIP trips over an out-of-order segment that ends there. */
static void trim_to_window(
        struct stack *s, const struct conn *c, struct pbuf *p, struct tcp_hdr *h, uint32_t header)
{
	uint32_t seq = lwip_ntohl(h->seqno), edge = c->pcb->rcv_nxt + c->pcb->rcv_wnd;
	uint32_t size = p->tot_len - header;
	int32_t keep;

	if (c->pcb->state < ESTABLISHED || (int32_t)(seq + size - edge) <= 0)
		return;
	keep = (int32_t)(edge - seq);
	if (keep < 0)
		keep = 0;
	if ((uint32_t)keep < size) {
		pbuf_realloc(p, (u16_t)(header + (uint32_t)keep));
		TCPH_UNSET_FLAG(h, TCP_FIN);
		COUNT(s, tcp_rx_trimmed, 1);
	}
}

bool conn_is_pressed(struct stack *s, struct conn *c, uint32_t payload, bool is_early)
{
	uint32_t free_count, total;

	if (!payload || c->ep == ENDPOINT_NONE)
		return is_early && payload && c->is_deferred;
	buf_levels(s, &free_count, &total);
	if (free_count > total / 8)
		return false;
	s->has_refused_early |= is_early;
	return is_early || c->pend_first || (free_count < total / 16 && rx_is_unread(s, c));
}

/* TIME_WAIT ends, and the tuple is free. */
static void time_wait_end(struct stack *s, struct conn *c)
{
	focus_enter(c);
	tcp_abort(c->pcb); /* nothing is sent from TIME_WAIT */
	focus_leave(s);
}

/* A SYN for a tuple in TIME_WAIT opens a new connection when its sequence number lies beyond the old one (RFC
 * 1122 4.2.2.13). One from ourselves always does: nothing old can be under way, and its end is gone. Any
 * other is answered with an acknowledgement: a peer that means it, because it was started anew and counts
 * from elsewhere, resets what that acknowledges (time_wait_disowned) and sends its SYN again. */
static bool time_wait_reuse(struct stack *s, struct conn *c, const struct tcp_hdr *h)
{
	if ((TCPH_FLAGS(h) & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return false;
	if ((int32_t)(lwip_ntohl(h->seqno) - c->pcb->rcv_nxt) <= 0 &&
	        !loop_serves(s, ip_2_ip4(&c->remote_ip)->addr)) {
		c->is_asked = 1;
		return false;
	}
	time_wait_end(s, c);
	return true;
}

/* The peer's reset in answer to that acknowledgement, and exactly at the place that it named: the peer has no
 * such connection any more. Other resets do nothing here (RFC 1337). */
static bool time_wait_disowned(struct stack *s, struct conn *c, const struct tcp_hdr *h)
{
	if (!c->is_asked || (TCPH_FLAGS(h) & (TCP_SYN | TCP_RST)) != TCP_RST ||
	        lwip_ntohl(h->seqno) != c->pcb->rcv_nxt)
		return false;
	time_wait_end(s, c);
	return true;
}

/* Whether the first SACK block reports a duplicate (RFC 2883: it lies below the acknowledgement) of the
 * segment at seq, the one that timed out. After a time-out lwIP sends everything behind it again, too:
 * duplicates of those prove nothing. Options are valid. */
static bool has_dsack(const uint8_t *opt, uint32_t size, uint32_t ack, uint32_t seq)
{
	for (uint32_t i = 0; i < size && opt[i];) {
		uint32_t left, right;

		if (opt[i] == 1) {
			i++;
			continue;
		}
		if (opt[i] == 5 && opt[i + 1] >= 10) {
			memcpy(&left, &opt[i + 2], 4);
			memcpy(&right, &opt[i + 6], 4);
			return (int32_t)(lwip_ntohl(right) - ack) <= 0 && lwip_ntohl(left) == seq;
		}
		i += opt[i + 1];
	}
	return false;
}

/* NewReno (RFC 6582 section 3.2): lwIP leaves fast recovery at the first new acknowledgement; one that covers
 * only a part says that the next segment was lost, too. It is sent again at once, instead of waiting for its
 * time-out. */
static void recovery_go_on(struct stack *s, struct conn *c, bool was_in_recovery)
{
	struct tcp_pcb *pcb = c->pcb;

	if (recover_input(s, c))
		return;
	if (!was_in_recovery) {
		if (pcb->flags & TF_INFR)
			c->newreno_end = pcb->snd_nxt;
		return;
	}
	if ((pcb->flags & TF_INFR) || (int32_t)(pcb->lastack - c->newreno_end) >= 0 || !pcb->unacked)
		return;
	if (tcp_rexmit(pcb) != ERR_OK)
		return;
	tcp_set_flags(pcb, TF_INFR);
	tcp_output(pcb);
	COUNT(s, tcp_retransmits, 1);
}

/* A socket that connects to itself gets its own SYN: the simplest simultaneous open (RFC 9293 3.5), which
 * lwIP does not do. The SYN acknowledges itself then. */
static void self_connect(const struct conn *c, struct tcp_hdr *h)
{
	if (!ip_addr_cmp(&c->remote_ip, &c->local_ip) ||
	        (TCPH_FLAGS(h) & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return;
	h->ackno = lwip_htonl(lwip_ntohl(h->seqno) + 1);
	TCPH_SET_FLAG(h, TCP_ACK);
}

/* Between ends of this host: data is acknowledged at once, unless its receiver is one that answers (the
 * answer carries it). The kernel does so when the receiver reads; a sender with Nagle's algorithm waits for
 * it. */
static void ack_soon(struct conn *c)
{
	if (!(c->pcb->flags & TF_ACK_DELAY))
		return;
	if (!c->has_answered)
		tcp_ack_now(c->pcb);
	c->has_answered = 0;
}

void tcp_input(struct pbuf *p, struct netif *inp)
{
	struct stack *s = stack_current;
	struct tcp_hdr *h = p->payload;
	uint32_t header, dup_acks;
	bool in_recovery;
	struct tcp_seen seen;
	struct conn *c;

	COUNT(s, tcp_rx_general, 1);
	if (p->len < TCP_HLEN)
		goto drop;
	header = TCPH_HDRLEN_BYTES(h);
	if (header < TCP_HLEN || header > p->len ||
	        !options_ok((uint8_t *)h + TCP_HLEN, header - TCP_HLEN, TCPH_FLAGS(h) & TCP_SYN))
		goto drop;
	tcp_ticks = s->now_ms;
	c = conn_find(
	        s, ip_current_src_addr(), ip_current_dest_addr(), lwip_ntohs(h->src), lwip_ntohs(h->dest));
	if (c && c->pcb && c->pcb->state == TIME_WAIT) {
		if (time_wait_disowned(s, c, h)) {
			COUNT(s, tcp_reset_rx, 1);
			pbuf_free(p);
			return;
		}
		if (time_wait_reuse(s, c, h))
			c = NULL;
	}
	if (c && c->pcb) {
		trim_to_window(s, c, p, h, header);
		if (conn_is_pressed(s, c, p->tot_len - header,
		            (int32_t)(lwip_ntohl(h->seqno) - c->pcb->rcv_nxt) > 0)) {
			COUNT(s, drop_rx_pressure, 1);
			pbuf_free(p);
			return;
		}
		if (TCPH_FLAGS(h) & TCP_RST)
			COUNT(s, tcp_reset_rx, 1);
		if (p->tot_len > header && (int32_t)(lwip_ntohl(h->seqno) - c->pcb->rcv_nxt) > 0)
			COUNT(s, tcp_out_of_order, 1);
		if (unlikely(c->min_ttl && IPH_TTL(ip4_current_header()) < c->min_ttl)) {
			COUNT(s, drop_rx_min_ttl, 1);
			pbuf_free(p);
			return;
		}
		tcp_seen_before(s, c, p->tot_len - header, &seen);
		dup_acks = c->pcb->dupacks;
		in_recovery = c->pcb->flags & TF_INFR;
		if ((c->rexmit_open || c->dsack_wait) && has_dsack((uint8_t *)h + TCP_HLEN, header - TCP_HLEN,
		                                                 lwip_ntohl(h->ackno), c->rexmit_seq))
			timer_dsack(s, c);
		recover_sacks(c, (uint8_t *)h + TCP_HLEN, header - TCP_HLEN);
		if (unlikely(c->remote_port == c->local_port && c->pcb->state == SYN_SENT))
			self_connect(c, h);
		focus_enter(c);
		s->input_conn = c;
		lwip_tcp_input(p, inp);
		focus_leave(s);
		if (s->input_conn) {
			if (inp == &s->lo)
				ack_soon(c);
			if (c->pcb->dupacks > dup_acks)
				COUNT(s, tcp_dup_acks, 1);
			if (!in_recovery && (c->pcb->flags & TF_INFR))
				COUNT(s, tcp_retransmits, 1); /* the fast one; time-outs are timer.c's */
			recovery_go_on(s, c, in_recovery);
			tcp_seen_after(s, c, &seen);
			tcp_end_note(s, c);
			conn_touch(s, c);
		}
		s->input_conn = NULL;
		return;
	}
	if ((TCPH_FLAGS(h) & (TCP_SYN | TCP_FIN)) == (TCP_SYN | TCP_FIN))
		goto drop; /* nobody opens and closes in one segment */
	/* fragments come to the stack of their addresses: put together, the segment may be another's, whom a
	 * reset would hurt */
	if (s->count > 1 &&
	        nic_owner(s->nic, AF_INET, &ip_2_ip4(ip_current_src_addr())->addr, lwip_ntohs(h->src),
	                &ip_2_ip4(ip_current_dest_addr())->addr, lwip_ntohs(h->dest)) != s->idx) {
		COUNT(s, drop_rx_fragment, 1);
		pbuf_free(p);
		return;
	}
	if ((TCPH_FLAGS(h) & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) {
		struct listener_local *l = listener_find(s, lwip_ntohs(h->dest),
		        ip_2_ip4(ip_current_dest_addr())->addr,
		        tuple_hash(ip_current_src_addr(), ip_current_dest_addr(), h->src, h->dest) >> 8);

		if (l && !listener_has_room(s, l)) {
			COUNT(s, drop_syn_backlog, 1);
			pbuf_free(p);
			return;
		}
		if (l && s->ep_free_count <= l->embryonic) {
			COUNT(s, drop_syn_no_endpoint, 1);
			pbuf_free(p);
			return;
		}
		if (l && IPH_TTL(ip4_current_header()) < ep_opt(stack_ep(s, l->ep), EPO_MINTTL)) {
			COUNT(s, drop_rx_min_ttl, 1);
			pbuf_free(p);
			return;
		}
		if (l) {
			s->syn_listener = l;
			s->out_conn = NULL;
			l->pcb->next = NULL;
			tcp_listen_pcbs.listen_pcbs = l->pcb;
		} else {
			COUNT(s, drop_rx_no_socket, 1);
		}
	} else {
		COUNT(s, drop_rx_no_socket, 1);
	}
	lwip_tcp_input(p, inp);
	focus_leave(s);
	s->syn_listener = NULL;
	return;
drop:
	COUNT(s, drop_rx_guard, 1);
	COUNT(s, tcp_in_errors, 1);
	pbuf_free(p);
}

err_t lwip_hook_inpacket(struct tcp_pcb *pcb, struct tcp_hdr *header, u16_t opt_size, u16_t opt1_size,
        u8_t *opt2, struct pbuf *p)
{
	(void)pcb, (void)header, (void)opt_size, (void)opt1_size, (void)opt2, (void)p;
	return ERR_OK;
}
