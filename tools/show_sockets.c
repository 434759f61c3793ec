/* show_sockets.c - `pronkctl sockets`: every endpoint in the arena and every socket that the kernel serves.
 *
 * Only reads, without locks: each endpoint is copied once and dropped when it changed hands meanwhile. Works
 * while the applications are stopped, because nobody is asked.
 */
#include "show.h"

#include <arpa/inet.h>
#include <string.h>

#include "endpoint.h"

enum { ADDR_SIZE = INET6_ADDRSTRLEN + 8 };

/* One endpoint as it was at one moment. */
struct row {
	uint32_t idx, stack, state, tcp_state, owner; /* owner: client index, or UINT32_MAX */
	int32_t pid, fd;
	char program[32];
	struct sock_addr local, remote;
	uint32_t rx_queue, tx_queue, tx_unsent; /* of a listener: waiting connections, backlog, 0 */
	uint32_t cwnd, rtt_us, rto_ms, retransmits, mss, snd_wnd, rcv_wnd, ssthresh;
	uint32_t drops; /* SOCK_DGRAM: found the receive buffer full */
};

static const char *state_name(const struct row *r)
{
	static const char *const tcp[] = {"CLOSED", "LISTEN", "SYN_SENT", "SYN_RCVD", "ESTABLISHED",
	        "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"};

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
		return r->tcp_state < sizeof(tcp) / sizeof(tcp[0]) && r->tcp_state ? tcp[r->tcp_state]
		       : r->state == EP_CONNECTING                                 ? "SYN_SENT"
		                                                                   : "ESTABLISHED";
	}
}

static void addr_text(const struct sock_addr *a, char *buf, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	if ((a->family != AF_INET && a->family != AF_INET6) || !inet_ntop(a->family, a->ip, ip, sizeof(ip)))
		snprintf(buf, size, "*");
	else
		snprintf(buf, size, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, a->port);
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

static void program_copy(const struct client *c, char *buf, size_t size)
{
	snprintf(buf, size, "%.*s", (int)sizeof(c->program), c->program);
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == ' ')
			*p = '_';
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

/* False when there is nothing to show. */
static bool row_read(const struct arena *a, uint32_t idx, struct row *r)
{
	const struct endpoint *ep = &a->endpoints[idx];
	uint32_t gen = ep->gen;

	memset(r, 0, sizeof(*r));
	r->state = atomic_load(&ep->state);
	if (r->state == EP_FREE)
		return false;
	r->idx = idx;
	r->stack = ep->stack_idx;
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
	r->fd = READ(app_fd);
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
	if (r->owner != UINT32_MAX) {
		const struct client *c = arena_client(a, r->owner);

		r->pid = atomic_load_explicit(&c->pid, memory_order_relaxed);
		program_copy(c, r->program, sizeof(r->program));
	} else {
		r->fd = -1; /* closed by its program; or not accepted yet */
	}
	return atomic_load(&ep->state) != EP_FREE && *(const volatile uint32_t *)&ep->gen == gen;
}

static const char *family_name(uint16_t family)
{
	return family == AF_INET    ? "IPv4"
	       : family == AF_INET6 ? "IPv6"
	       : family == AF_UNIX  ? "unix"
	                            : "other";
}

static const char *type_name(uint16_t type)
{
	type &= 0xf; /* SOCK_NONBLOCK and SOCK_CLOEXEC may stand above */
	return type == SOCK_STREAM  ? "stream"
	       : type == SOCK_DGRAM ? "dgram"
	       : type == SOCK_RAW   ? "raw"
	                            : "other";
}

/* --- table --- */

static void number_text(char *buf, size_t size, int64_t value, bool is_known)
{
	if (is_known)
		snprintf(buf, size, "%lld", (long long)value);
	else
		snprintf(buf, size, "-");
}

static void print_row(const struct row *r)
{
	char local[ADDR_SIZE], remote[ADDR_SIZE], pid[16], fd[16], send[32], cwnd[16], rtt[24], rto[16],
	        retr[16];
	bool has_tcp = r->state == EP_ESTABLISHED || r->state == EP_CONNECTING;

	addr_text(&r->local, local, sizeof(local));
	addr_text(&r->remote, remote, sizeof(remote));
	number_text(pid, sizeof(pid), r->pid, r->owner != UINT32_MAX);
	number_text(fd, sizeof(fd), r->fd, r->fd >= 0);
	number_text(cwnd, sizeof(cwnd), r->cwnd, has_tcp);
	number_text(rto, sizeof(rto), r->rto_ms, has_tcp);
	number_text(retr, sizeof(retr), r->retransmits, has_tcp);
	if (has_tcp)
		snprintf(rtt, sizeof(rtt), "%u.%03u", r->rtt_us / 1000, r->rtt_us % 1000);
	else
		strcpy(rtt, "-");
	if (r->state == EP_LISTEN)
		snprintf(send, sizeof(send), "%u", r->tx_queue);
	else
		snprintf(send, sizeof(send), "%u/%u", r->tx_queue, r->tx_unsent);
	printf("%7s %-15.15s %5s %5u %-11s %-21s %-21s %8u %13s %8s %8s %6s %6s\n", pid,
	        r->program[0] ? r->program : "-", fd, r->stack, state_name(r), local, remote, r->rx_queue,
	        send, cwnd, rtt, rto, retr);
}

static void print_table(const struct arena *a)
{
	bool has_kernel = false;
	struct row r;

	printf("%7s %-15s %5s %5s %-11s %-21s %-21s %8s %13s %8s %8s %6s %6s\n", "PID", "PROGRAM", "FD",
	        "STACK", "STATE", "LOCAL", "PEER", "RECVQ", "SENDQ/UNSENT", "CWND", "RTT_MS", "RTO_MS",
	        "RETR");
	for (uint32_t i = 0; i < a->endpoint_count; i++)
		if (row_read(a, i, &r))
			print_row(&r);
	for (uint32_t i = 0; i < a->client_count; i++) {
		const struct client *c = arena_client(a, i);

		if (atomic_load(&c->state) == CLIENT_FREE)
			continue;
		for (int k = 0; k < FALLBACK_COUNT; k++) {
			const struct fallback *f = &c->fallback[k];
			int32_t fd = atomic_load_explicit(&f->fd, memory_order_acquire);
			char program[sizeof(c->program)];

			if (fd < 0)
				continue;
			if (!has_kernel)
				printf("\nServed by the kernel:\n%7s %-15s %5s %-6s %-6s %s\n", "PID",
				        "PROGRAM", "FD", "FAMILY", "TYPE", "REASON");
			has_kernel = true;
			program_copy(c, program, sizeof(program));
			printf("%7d %-15.15s %5d %-6s %-6s %.*s\n",
			        atomic_load_explicit(&c->pid, memory_order_relaxed), program, fd,
			        family_name(f->family), type_name(f->type), (int)sizeof(f->reason),
			        f->reason);
		}
	}
}

/* --- JSON --- */

static void json_number(const char *key, int64_t value, bool is_known)
{
	if (is_known)
		printf(", \"%s\": %lld", key, (long long)value);
	else
		printf(", \"%s\": null", key);
}

static void json_addr(const char *key, const struct sock_addr *a)
{
	char ip[INET6_ADDRSTRLEN];

	if ((a->family != AF_INET && a->family != AF_INET6) || !inet_ntop(a->family, a->ip, ip, sizeof(ip)))
		printf(", \"%s\": null", key);
	else
		printf(", \"%s\": {\"address\": \"%s\", \"port\": %u}", key, ip, a->port);
}

static void json_row(const struct row *r, const char *before)
{
	bool has_tcp = r->state == EP_ESTABLISHED || r->state == EP_CONNECTING,
	     is_listener = r->state == EP_LISTEN;

	printf("%s    {\"endpoint\": %u, \"stack\": %u, \"state\": \"%s\"", before, r->idx, r->stack,
	        state_name(r));
	json_number("pid", r->pid, r->owner != UINT32_MAX);
	printf(", \"program\": ");
	json_text(stdout, r->program);
	json_number("fd", r->fd, r->fd >= 0);
	json_addr("local", &r->local);
	json_addr("peer", &r->remote);
	json_number("accept_queue", r->rx_queue, is_listener);
	json_number("backlog", r->tx_queue, is_listener);
	json_number("recv_queue", r->rx_queue, !is_listener);
	json_number("drops", r->drops, r->state == EP_DGRAM);
	json_number("send_queue", r->tx_queue, !is_listener);
	json_number("send_unsent", r->tx_unsent, !is_listener);
	json_number("cwnd", r->cwnd, has_tcp);
	json_number("ssthresh", r->ssthresh, has_tcp);
	json_number("send_window", r->snd_wnd, has_tcp);
	json_number("recv_window", r->rcv_wnd, has_tcp);
	json_number("mss", r->mss, has_tcp);
	json_number("rtt_us", r->rtt_us, has_tcp);
	json_number("rto_ms", r->rto_ms, has_tcp);
	json_number("retransmits", r->retransmits, has_tcp);
	printf("}");
}

static void print_json(const struct arena *a)
{
	const char *before = "\n";
	struct row r;

	printf("{\n  \"sockets\": [");
	for (uint32_t i = 0; i < a->endpoint_count; i++) {
		if (!row_read(a, i, &r))
			continue;
		json_row(&r, before);
		before = ",\n";
	}
	printf("\n  ],\n  \"kernel\": [");
	before = "\n";
	for (uint32_t i = 0; i < a->client_count; i++) {
		const struct client *c = arena_client(a, i);

		if (atomic_load(&c->state) == CLIENT_FREE)
			continue;
		for (int k = 0; k < FALLBACK_COUNT; k++) {
			const struct fallback *f = &c->fallback[k];
			int32_t fd = atomic_load_explicit(&f->fd, memory_order_acquire);
			char program[sizeof(c->program)], reason[sizeof(f->reason) + 1];

			if (fd < 0)
				continue;
			program_copy(c, program, sizeof(program));
			snprintf(reason, sizeof(reason), "%.*s", (int)sizeof(f->reason), f->reason);
			printf("%s    {\"pid\": %d, \"program\": ", before,
			        atomic_load_explicit(&c->pid, memory_order_relaxed));
			json_text(stdout, program);
			printf(", \"fd\": %d, \"family\": \"%s\", \"type\": \"%s\", \"reason\": ", fd,
			        family_name(f->family), type_name(f->type));
			json_text(stdout, reason);
			printf("}");
			before = ",\n";
		}
	}
	printf("\n  ]\n}\n");
}

int show_sockets(const struct attach *at, const struct show *show)
{
	if (show->json)
		print_json(&at->arena);
	else
		print_table(&at->arena);
	return 0;
}
