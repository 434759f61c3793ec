/* rows.c - reads sockets out of the arena, and gives things their names. */
#include "rows.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "endpoint.h"

static const char *const tcp_states[] = {"CLOSED", "LISTEN", "SYN_SENT", "SYN_RCVD", "ESTABLISHED",
        "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT", "BOUND", "UDP"};
enum { TCP_STATE_COUNT = 11, STATE_NAME_COUNT = sizeof(tcp_states) / sizeof(tcp_states[0]) };

const char *state_name_at(uint32_t n)
{
	return n < STATE_NAME_COUNT ? tcp_states[n] : NULL;
}

const char *row_state_name(const struct row *r)
{
	switch (r->state) {
	case EP_BOUND:
		return "BOUND";
	case EP_LISTEN:
		return "LISTEN";
	case EP_CLOSED:
		return "CLOSED";
	case EP_DGRAM:
		return "UDP";
	default:
		return r->tcp_state < TCP_STATE_COUNT && r->tcp_state ? tcp_states[r->tcp_state]
		       : r->state == EP_CONNECTING                    ? "SYN_SENT"
		                                                      : "ESTABLISHED";
	}
}

const char *timer_name(uint32_t timer)
{
	static const char *const names[REPORT_TIMER_COUNT] = {
	        [REPORT_TIMER_NONE] = "none",
	        [REPORT_TIMER_REXMIT] = "retransmit",
	        [REPORT_TIMER_RECOVER] = "loss-probe",
	        [REPORT_TIMER_PERSIST] = "persist",
	        [REPORT_TIMER_ACK] = "delayed-ack",
	        [REPORT_TIMER_DEFER] = "defer-accept",
	        [REPORT_TIMER_CORK] = "cork",
	        [REPORT_TIMER_CLOSE] = "close",
	        [REPORT_TIMER_FIN_WAIT] = "fin-wait",
	        [REPORT_TIMER_END] = "give-up",
	        [REPORT_TIMER_KEEPALIVE] = "keepalive",
	        [REPORT_TIMER_TIME_WAIT] = "time-wait",
	};

	return timer < REPORT_TIMER_COUNT ? names[timer] : "unknown";
}

const char *family_name(uint16_t family)
{
	return family == AF_INET    ? "IPv4"
	       : family == AF_INET6 ? "IPv6"
	       : family == AF_UNIX  ? "unix"
	                            : "other";
}

const char *type_name(uint16_t type)
{
	type &= 0xf; /* SOCK_NONBLOCK and SOCK_CLOEXEC may stand above */
	return type == SOCK_STREAM  ? "stream"
	       : type == SOCK_DGRAM ? "dgram"
	       : type == SOCK_RAW   ? "raw"
	                            : "other";
}

bool addr_ip_text(const struct sock_addr *a, char *buf, size_t size)
{
	return (a->family == AF_INET || a->family == AF_INET6) &&
	       inet_ntop(a->family, a->ip, buf, (socklen_t)size);
}

void addr_text(const struct sock_addr *a, char *buf, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	if (!addr_ip_text(a, ip, sizeof(ip)))
		snprintf(buf, size, "*");
	else
		snprintf(buf, size, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, a->port);
}

void span_text(int64_t ms, char *buf, size_t size)
{
	enum { SEC = 1000, MIN = 60 * SEC, DAY = 24 * 60 * MIN };

	if (ms < SEC)
		snprintf(buf, size, "%lldms", (long long)(ms < 0 ? 0 : ms));
	else if (ms < MIN)
		snprintf(buf, size, "%lld.%llds", (long long)(ms / SEC), (long long)(ms % SEC / 100));
	else if (ms < 2 * (int64_t)DAY)
		snprintf(buf, size, "%lldmin", (long long)(ms / MIN));
	else
		snprintf(buf, size, "%llddays", (long long)(ms / DAY));
}

uint32_t now_ms_get(void)
{
	return (uint32_t)(clock_now_ns() / CLOCK_NS_PER_MS);
}

/* The client to name: who opened or accepted it if it still has it, else any that has it. */
static uint32_t owner_find(const struct arena *a, uint32_t ep_idx, uint32_t creator)
{
	if (creator < a->client_count && hold_test(a, creator, ep_idx))
		return creator;
	for (uint32_t i = 0; i < a->client_count; i++)
		if (atomic_load_explicit(&arena_client(a, i)->state, memory_order_relaxed) != CLIENT_FREE &&
		        hold_test(a, i, ep_idx))
			return i;
	return UINT32_MAX;
}

bool client_read(const struct arena *a, uint32_t idx, int32_t *pid, char program[PROGRAM_SIZE])
{
	const struct client *c = arena_client(a, idx);

	if (atomic_load(&c->state) == CLIENT_FREE)
		return false;
	*pid = atomic_load_explicit(&c->pid, memory_order_relaxed);
	snprintf(program, PROGRAM_SIZE, "%.*s", (int)sizeof(c->program), c->program);
	for (char *p = program; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == ' ')
			*p = '_';
	return true;
}

static uint32_t accepts_waiting(const struct arena *a, const struct endpoint *ep)
{
	uint32_t idx = ep->listener, n = 0;

	if (idx >= a->listener_count)
		return 0;
	for (uint32_t i = 0; i < a->stack_count; i++) {
		const struct accept_ring *r = &arena_listener(a, idx)->ring[i];
		uint32_t queued = atomic_load(&r->head) - atomic_load(&r->tail);

		n += queued <= ACCEPT_RING_SIZE ? queued : 0;
	}
	return n;
}

#define READ(field) atomic_load_explicit(&ep->field, memory_order_relaxed)

bool row_read(const struct arena *a, uint32_t idx, uint32_t now_ms, struct row *r)
{
	const struct endpoint *ep = &a->endpoints[idx];
	uint32_t gen = ep->gen;

	r->state = atomic_load(&ep->state);
	if (r->state == EP_FREE)
		return false;
	memset(r, 0, sizeof(*r));
	r->state = atomic_load(&ep->state);
	r->idx = idx;
	r->stack = ep->stack_idx;
	r->is_dgram = ep->kind == SOCK_DGRAM || r->state == EP_DGRAM;
	r->tcp_state = READ(tcp_state);
	r->local = ep->local;
	r->remote = ep->remote;
	r->cwnd = READ(info_cwnd);
	r->rtt_us = READ(info_rtt_us);
	r->rto_ms = READ(info_rto_ms);
	r->retransmits = READ(info_retransmits);
	r->mss = READ(info_mss);
	r->snd_wnd = READ(info_snd_wnd);
	r->rcv_wnd = READ(info_rcv_wnd);
	r->ssthresh = READ(info_ssthresh);
	r->drops = READ(info_drops);
	r->tx_limit = READ(tx_limit);
	r->app_flags = READ(app_flags);
	r->opt_flags = READ(opts.flag);
	for (int i = 0; i < EPO_COUNT; i++)
		r->opt[i] = READ(opts.v[i]);
	r->fd = READ(app_fd);
	if (row_is_conn(r)) {
		r->timer = READ(info_timer);
		r->timer_in_ms = (int32_t)(READ(info_timer_ms) - now_ms);
	}
	if (r->state == EP_LISTEN) {
		r->rx_queue = accepts_waiting(a, ep);
		r->tx_queue = READ(backlog);
		r->remote.family = 0;
	} else {
		r->rx_queue = ep_rx_pending(ep);
		r->tx_queue = ep_tx_used(ep);
		r->tx_unsent = READ(tx_unsent);
	}
	r->owner = owner_find(a, idx, READ(creator));
	if (r->owner != UINT32_MAX && client_read(a, r->owner, &r->pid, r->program))
		r->uid = atomic_load_explicit(&arena_client(a, r->owner)->uid, memory_order_relaxed);
	else
		r->owner = UINT32_MAX;
	if (r->owner == UINT32_MAX)
		r->fd = -1; /* closed by its program; or not accepted yet */
	return atomic_load(&ep->state) != EP_FREE && *(const volatile uint32_t *)&ep->gen == gen;
}

bool kernel_row_read(const struct arena *a, uint32_t client, uint32_t slot, struct kernel_row *r)
{
	const struct fallback *f = &arena_client(a, client)->fallback[slot];

	r->fd = atomic_load_explicit(&f->fd, memory_order_acquire);
	if (r->fd < 0 || !client_read(a, client, &r->pid, r->program))
		return false;
	r->family = f->family;
	r->type = f->type;
	snprintf(r->reason, sizeof(r->reason), "%.*s", (int)sizeof(f->reason), f->reason);
	for (char *p = r->reason; *p; p++) /* the client's own words, on somebody's terminal */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return true;
}
