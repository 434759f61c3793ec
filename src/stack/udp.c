/* udp.c - the life of a datagram endpoint: bind, connect, groups, release; local ports and the table by which
 * every stack finds endpoints.
 *
 * Runs in the stacks' threads. The stack that is asked to bind becomes the endpoint's home; stack 0 has the
 * last word on the port, since its table is the one that conflicts are looked up in; then every stack gets
 * its entry. So whatever changes the tables is a fan-out, and the caller is answered when all of them have
 * it. Received and sent datagrams are in udp_in.c and udp_out.c.
 */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct udp_entry **bucket(struct stack *s, uint16_t port)
{
	return &s->udp_hash[port & (UDP_HASH - 1)];
}

static uint32_t addr_ip(const struct sock_addr *a)
{
	uint32_t ip;

	memcpy(&ip, a->ip, 4);
	return ip;
}

static void link_entry(struct stack *s, struct udp_entry *e)
{
	struct udp_entry **b = bucket(s, e->port);

	e->next = *b; /* the youngest first: it wins among equals, as in the kernel */
	*b = e;
	e->is_linked = 1;
}

static void unlink_entry(struct stack *s, struct udp_entry *e)
{
	struct udp_entry **pp = bucket(s, e->port);

	while (*pp != e)
		pp = &(*pp)->next;
	*pp = e->next;
	e->is_linked = 0;
}

static uint32_t score(const struct udp_entry *e, uint32_t dst, uint32_t src, uint16_t sport)
{
	uint32_t n = e->flags & CALL_F_SIX ? 1 : 2; /* compute_score */

	if (e->ip) {
		if (e->ip != dst)
			return 0;
		n += 16; /* the kernel looks at those of the address first, then at wildcards */
	}
	if (e->remote_ip) {
		if (e->remote_ip != src)
			return 0;
		n += 4;
	}
	if (e->remote_port) {
		if (e->remote_port != sport)
			return 0;
		n += 4;
	}
	return n;
}

static bool is_grouped(const struct udp_entry *e)
{
	return (e->flags & CALL_F_REUSEPORT) && !e->remote_ip;
}

struct udp_entry *udp_find(struct stack *s, uint32_t dst, uint16_t dport, uint32_t src, uint16_t sport)
{
	struct udp_entry *best = NULL, *first = *bucket(s, dport);
	uint32_t best_score = 0, count = 0;
	uint64_t pick;

	for (struct udp_entry *e = first; e; e = e->next) {
		uint32_t n = e->port == dport ? score(e, dst, src, sport) : 0;

		if (n > best_score) {
			best = e;
			best_score = n;
		}
	}
	if (!best || !is_grouped(best))
		return best;
	/* SO_REUSEPORT: the tuple decides which of the group */
	for (struct udp_entry *e = first; e; e = e->next)
		count += e->port == dport && e->ip == best->ip && is_grouped(e);
	pick = ((uint64_t)src << 32 | dst) ^ ((uint64_t)sport << 16 | dport) * 0xff51afd7ed558ccdull;
	pick = (pick * 0x9e3779b97f4a7c15ull >> 32) * count >> 32;
	for (struct udp_entry *e = first; e; e = e->next)
		if (e->port == dport && e->ip == best->ip && is_grouped(e) && !pick--)
			return e;
	return best;
}

bool udp_takes(const struct udp_entry *e, uint32_t dst, uint16_t dport, uint32_t src, uint16_t sport)
{
	return e->port == dport && score(e, dst, src, sport);
}

/* --- ports: stack 0 --- */

static void used_set(struct stack *s, uint16_t port, bool on)
{
	_Atomic uint32_t *word = &s->arena->hdr->udp_used[port / 32];

	if (on)
		atomic_fetch_or_explicit(word, 1u << (port % 32), memory_order_relaxed);
	else
		atomic_fetch_and_explicit(word, ~(1u << (port % 32)), memory_order_relaxed);
}

static bool is_taken(struct stack *s, uint16_t port)
{
	for (const struct udp_entry *e = *bucket(s, port); e; e = e->next)
		if (e->port == port)
			return true;
	return false;
}

/* bind(2), socket(7): sockets share a port when their addresses differ, or both set SO_REUSEADDR, or both
 * SO_REUSEPORT. */
static bool conflicts(struct stack *s, const struct udp_entry *mine)
{
	for (const struct udp_entry *e = *bucket(s, mine->port); e; e = e->next)
		if (e->port == mine->port && (!e->ip || !mine->ip || e->ip == mine->ip) &&
		        !(e->flags & mine->flags & (CALL_F_REUSEADDR | CALL_F_REUSEPORT)))
			return true;
	return false;
}

static int bind_first(struct stack *s, struct fan_out *f)
{
	struct udp_entry *e = &f->udp->entry[0];
	uint32_t range = PORT_LAST - PORT_FIRST + 1, start = stack_rand() % range;

	if (e->port) {
		if (conflicts(s, e))
			return -EADDRINUSE;
	} else {
		for (uint32_t i = 0; i < range && !e->port; i++) {
			uint16_t port = (uint16_t)(PORT_FIRST + (start + i) % range);

			if (!is_taken(s, port))
				e->port = port;
		}
		if (!e->port)
			return -EADDRINUSE;
	}
	f->local.port = e->port;
	used_set(s, e->port, true);
	link_entry(s, e);
	return 0;
}

/* --- bind --- */

static void entry_fill(struct udp *u, uint32_t count, uint32_t ep, const struct call *call)
{
	for (uint32_t k = 0; k < count; k++) {
		u->entry[k] = (struct udp_entry){.ep = ep,
		        .ip = addr_ip(&call->local),
		        .port = call->local.port,
		        .flags = (uint8_t)(call->flags & (CALL_F_REUSEADDR | CALL_F_REUSEPORT | CALL_F_SIX))};
	}
}

/* The last step: nobody knows the endpoint any more. */
static void destroy(struct stack *s, struct conn *c)
{
	uint32_t idx = c->ep;

	udp_unpublish(s, c);
	rx_drop_all(s, c);
	tx_drop_all(s, c);
	c->ep = ENDPOINT_NONE;
	free(c->udp->end);
	free(c->udp);
	c->udp = NULL;
	ep_give(s, idx);
	conn_put(s, c);
}

void udp_forget(struct conn *c)
{
	free(c->udp->end);
	free(c->udp);
	c->rx_bufs = NULL;
	c->tx_blocks = NULL;
	c->udp = NULL;
}

static int bind_here(struct stack *s, struct fan_out *f)
{
	struct udp_entry *e = &f->udp->entry[s->idx];

	if (e->is_linked)
		return 0; /* stack 0 */
	e->port = f->local.port;
	link_entry(s, e);
	return 0;
}

static void bind_done(struct stack *s, struct fan_out *f)
{
	struct conn *c = s->by_ep[f->ep - s->ep_first];
	struct endpoint *ep = stack_ep(s, f->ep);

	c->udp->is_opening = 0;
	c->local_port = f->local.port;
	s->own[f->ep - s->ep_first].port = f->local.port;
	ep->local = f->local;
	atomic_store(&ep->state, EP_DGRAM);
	if (c->is_released) {
		c->is_released = 0;
		udp_release(s, c, 0);
	} else {
		arena_client(s->arena, f->client)->call[f->call_idx].local = f->local;
		fan_out_answer(s, f, 0);
	}
	free(f);
}

static int clients_here(struct stack *s, struct fan_out *f)
{
	(void)f;
	request_clients(s);
	return 0;
}

static void bind_retry(struct stack *s, struct fan_out *f);

static void bind_port_done(struct stack *s, struct fan_out *f)
{
	struct conn *c = s->by_ep[f->ep - s->ep_first];
	int rc = f->result;

	if (!rc) {
		fan_out_all(s, f, bind_here, bind_done);
		return;
	}
	/* the close that frees the port may still be on its way through another stack, although its caller
	 * has returned: every stack does what it was asked so far, and then the port is looked at again */
	if (rc == -EADDRINUSE && !f->tries++) {
		fan_out_all(s, f, clients_here, bind_retry);
		return;
	}
	if (!c->is_released) {
		fan_out_answer(s, f, rc);
		hold_clear(s->arena, f->client, f->ep);
	}
	destroy(s, c);
	free(f);
}

static void bind_retry(struct stack *s, struct fan_out *f)
{
	fan_out_one(s, f, 0, bind_first, bind_port_done);
}

static bool may_bind(const struct stack *s, uint32_t ip)
{
	return !ip || ip == s->address || ip_is_multicast(ip) || netif_is_broadcast(s, ip) ||
	       loop_serves(s, ip);
}

int dgram_bind(struct stack *s, uint32_t client, uint32_t call_idx, const struct call *call)
{
	struct udp *u = NULL;
	struct fan_out *f = NULL;
	struct conn *c = NULL;
	struct endpoint *ep;
	uint32_t idx;

	if (call->local.family != AF_INET)
		return -EAFNOSUPPORT;
	if (!may_bind(s, addr_ip(&call->local)))
		return -EADDRNOTAVAIL;
	idx = ep_take(s);
	if (idx == ENDPOINT_NONE)
		return -ENOBUFS;
	if (posix_memalign((void **)&u, 64, sizeof(*u) + s->count * sizeof(u->entry[0])))
		u = NULL;
	if (u) {
		memset(u, 0, sizeof(*u));
		u->end = fan_out_new(s, idx, client, call_idx);
	}
	f = fan_out_new(s, idx, client, call_idx);
	c = conn_new(s, NULL);
	if (!u || !u->end || !f || !c) {
		if (u)
			free(u->end);
		free(u);
		free(f);
		if (c)
			conn_put(s, c);
		ep_give(s, idx);
		return -ENOMEM;
	}
	entry_fill(u, s->count, idx, call);
	u->rx_limit = call->rcvbuf ? call->rcvbuf : UDP_RCVBUF;
	u->bound_ip = addr_ip(&call->local);
	u->is_opening = 1;
	u->end->udp = f->udp = u;
	c->udp = u;
	c->ep = idx;
	ip_addr_set_zero_ip4(&c->local_ip);
	ip_addr_set_zero_ip4(&c->remote_ip);
	ip_2_ip4(&c->local_ip)->addr = u->bound_ip;
	s->by_ep[idx - s->ep_first] = c;
	s->own[idx - s->ep_first].kind = OWN_UDP;
	ep = stack_ep(s, idx);
	ep->kind = SOCK_DGRAM;
	ep_opts_copy(&ep->opts, &call->opts);
	udp_options(s, c);
	atomic_store_explicit(&ep->creator, client, memory_order_relaxed);
	hold_set(s->arena, client, idx);
	f->local = call->local;
	fan_out_one(s, f, 0, bind_first, bind_port_done);
	return 1;
}

/* The endpoint that a call names, or NULL. */
static struct conn *named(struct stack *s, uint32_t client, const struct call *call)
{
	struct conn *c;

	if (!stack_owns(s, call->endpoint) || !hold_test(s->arena, client, call->endpoint))
		return NULL;
	c = s->by_ep[call->endpoint - s->ep_first];
	return c && c->udp && !c->is_released && !c->udp->is_opening ? c : NULL;
}

/* --- connect --- */

static int connect_here(struct stack *s, struct fan_out *f)
{
	struct udp_entry *e = &f->udp->entry[s->idx];
	uint32_t ip = addr_ip(&f->local);

	if (e->ip != ip) {
		unlink_entry(s, e);
		e->ip = ip;
		link_entry(s, e);
	}
	e->remote_ip = f->remote.family ? addr_ip(&f->remote) : 0;
	e->remote_port = f->remote.family ? f->remote.port : 0;
	return 0;
}

static void connect_done(struct stack *s, struct fan_out *f)
{
	struct conn *c = s->by_ep[f->ep - s->ep_first];
	struct endpoint *ep = stack_ep(s, f->ep);

	if (!c->is_released) {
		ip_2_ip4(&c->local_ip)->addr = addr_ip(&f->local);
		ip_2_ip4(&c->remote_ip)->addr = f->remote.family ? addr_ip(&f->remote) : 0;
		c->remote_port = f->remote.family ? f->remote.port : 0;
		memcpy(ep->local.ip, f->local.ip, sizeof(ep->local.ip));
		ep->remote = f->remote;
		fan_out_answer(s, f, 0);
	}
	free(f);
}

int dgram_connect(struct stack *s, uint32_t client, uint32_t call_idx, const struct call *call)
{
	struct conn *c = named(s, client, call);
	struct fan_out *f;
	uint32_t ip;

	if (!c)
		return -EBADF;
	if (call->remote.family && call->remote.family != AF_INET)
		return -EAFNOSUPPORT;
	f = fan_out_new(s, c->ep, client, call_idx);
	if (!f)
		return -ENOMEM;
	f->udp = c->udp;
	f->remote = call->remote;
	if (!call->remote.family)
		memset(&f->remote, 0, sizeof(f->remote));
	ip = c->udp->bound_ip;
	if (!ip && call->remote.family)
		ip = netif_source(s, addr_ip(&call->remote));
	f->local.family = AF_INET;
	memcpy(f->local.ip, &ip, 4);
	fan_out_all(s, f, connect_here, connect_done);
	return 1;
}

/* --- groups and options --- */

static int group_first(struct stack *s, struct fan_out *f)
{
	struct udp_entry *e = &f->udp->entry[0];
	uint32_t ip = addr_ip(&f->remote);
	uint8_t i = 0;
	int rc;

	while (i < e->group_count && e->group[i] != ip)
		i++;
	if (!f->value) {
		if (i == e->group_count)
			return -EADDRNOTAVAIL;
		e->group[i] = e->group[--e->group_count];
		group_leave(s, ip);
		return 0;
	}
	if (i < e->group_count)
		return -EADDRINUSE;
	if (e->group_count == UDP_GROUPS || !e->is_linked)
		return -ENOBUFS;
	rc = group_join(s, ip);
	if (!rc)
		e->group[e->group_count++] = ip;
	return rc;
}

static void group_done(struct stack *s, struct fan_out *f)
{
	fan_out_answer(s, f, f->result);
	free(f);
}

int dgram_group(struct stack *s, uint32_t client, uint32_t call_idx, const struct call *call)
{
	struct conn *c = named(s, client, call);
	struct fan_out *f;

	if (!c)
		return -EBADF;
	if (call->remote.family != AF_INET || !ip_is_multicast(addr_ip(&call->remote)))
		return -EINVAL;
	f = fan_out_new(s, c->ep, client, call_idx);
	if (!f)
		return -ENOMEM;
	f->udp = c->udp;
	f->remote = call->remote;
	f->value = call->value;
	fan_out_one(s, f, 0, group_first, group_done);
	return 1;
}

void udp_options(struct stack *s, struct conn *c)
{
	const struct endpoint *ep;
	int32_t size;

	if (!c->udp)
		return;
	ep = stack_ep(s, c->ep);
	size = ep_opt(ep, EPO_RCVBUF);
	if (ep_opt_flag(ep, EPF_RCVBUF_SET))
		c->udp->rx_limit = size < UDP_RCVBUF_MIN ? (uint32_t)UDP_RCVBUF_MIN : (uint32_t)size;
}

/* --- the end --- */

static int end_here(struct stack *s, struct fan_out *f)
{
	struct udp_entry *e = &f->udp->entry[s->idx];

	unlink_entry(s, e);
	if (s->idx)
		return 0;
	if (!is_taken(s, e->port))
		used_set(s, e->port, false);
	while (e->group_count)
		group_leave(s, e->group[--e->group_count]);
	return 0;
}

static void end_done(struct stack *s, struct fan_out *f)
{
	struct conn *c = s->by_ep[f->ep - s->ep_first];

	f->udp->is_unlinked = 1;
	udp_finish(s, c);
}

void udp_finish(struct stack *s, struct conn *c)
{
	const struct udp *u = c->udp;

	if (!u->is_unlinked || u->is_again || (c->tx_fed != u->tx_end && !u->is_broken))
		return;
	destroy(s, c);
}

void udp_release(struct stack *s, struct conn *c, uint32_t how)
{
	struct udp *u = c->udp;
	uint32_t head;

	if (c->is_released)
		return;
	c->is_released = 1;
	if (u->is_opening)
		return; /* bind_done comes back to it */
	/* what was written and taken over (tx_adopt) while its writer's hold still proved it is sent */
	head = atomic_load_explicit(&stack_ep(s, c->ep)->tx_head, memory_order_acquire);
	if ((how & RELEASE_ABORT) || head - c->tx_fed > c->tx_seen - c->tx_fed)
		head = c->tx_fed;
	u->tx_end = head;
	fan_out_all(s, u->end, end_here, end_done);
	conn_touch(s, c);
}

void udp_error(struct stack *s, uint32_t ep_idx, int err)
{
	struct conn *c = s->by_ep[ep_idx - s->ep_first];

	if (!c || !c->udp || c->is_released || !ip_2_ip4(&c->remote_ip)->addr)
		return;
	atomic_store(&stack_ep(s, ep_idx)->error, err);
	notify(s, ep_idx, EPOLLERR | EPOLLIN | EPOLLOUT);
}
