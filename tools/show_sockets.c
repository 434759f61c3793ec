/* show_sockets.c - `pronkctl sockets`: every endpoint in the arena and every socket that the kernel serves,
 * as a table, as JSON, or counted.
 *
 * Works while the applications and the service are stopped, because nobody is asked. What a row holds and how
 * it is read is in rows.c, which rows are wanted in filter.c.
 */
#include "show.h"

#include <errno.h>
#include <string.h>

#include "filter.h"
#include "rows.h"

/* What is wanted, and where it goes. */
struct printer {
	const struct arena *arena;
	const struct show_sockets *want;
	struct filter filter;
	uint32_t now_ms;
	const char *before; /* JSON: what stands before the next row */
};

/* --- options of the command line --- */

enum { OPT_LISTENING = 'l', OPT_TCP = 't', OPT_UDP = 'u', OPT_KERNEL = 'k', OPT_TIMERS = 'o' };
enum { OPT_WIDE = 0x300, OPT_SUMMARY, OPT_EXTENDED = 'e', OPT_INFO = 'I' };

static const struct argp_option options[] = {
        {NULL, 0, NULL, 0, "sockets: which, and how much of each", 2},
        {"listening", OPT_LISTENING, NULL, 0, "Listening sockets only", 2},
        {"tcp", OPT_TCP, NULL, 0, "TCP sockets only", 2},
        {"udp", OPT_UDP, NULL, 0, "UDP sockets only", 2},
        {"kernel", OPT_KERNEL, NULL, 0, "Only those that the kernel serves, with the reason", 2},
        {"timers", OPT_TIMERS, NULL, 0, "The timer that goes off next, and when", 2},
        {"extended", OPT_EXTENDED, NULL, 0, "User, endpoint and socket options", 2},
        {"info", OPT_INFO, NULL, 0, "TCP's windows, segment size and slow start threshold", 2},
        {"wide", OPT_WIDE, NULL, 0, "The same as -o -e -I", 2},
        {"summary", OPT_SUMMARY, NULL, 0, "Numbers of sockets, instead of sockets", 2},
        {0},
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct show_sockets *w = &((struct show *)state->input)->sockets;

	(void)arg;
	switch (key) {
	case OPT_LISTENING:
		w->listening = true;
		break;
	case OPT_TCP:
		w->tcp = true;
		break;
	case OPT_UDP:
		w->udp = true;
		break;
	case OPT_KERNEL:
		w->kernel = true;
		break;
	case OPT_TIMERS:
		w->timers = true;
		break;
	case OPT_EXTENDED:
		w->options = true;
		break;
	case OPT_INFO:
		w->info = true;
		break;
	case OPT_WIDE:
		w->timers = w->options = w->info = true;
		break;
	case OPT_SUMMARY:
		w->summary = true;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	w->has_option = true;
	return 0;
}

const struct argp show_sockets_argp = {options, option_parse, NULL, NULL, NULL, NULL, NULL};

/* --- which --- */

static bool row_next(const struct printer *p, uint32_t *idx, struct row *r)
{
	while (!p->want->kernel && *idx < p->arena->endpoint_count) {
		if (!row_read(p->arena, (*idx)++, p->now_ms, r))
			continue;
		if (p->want->listening && r->state != EP_LISTEN)
			continue;
		if (p->want->tcp != p->want->udp && r->is_dgram != p->want->udp)
			continue;
		if (filter_row(&p->filter, r))
			return true;
	}
	return false;
}

static bool kernel_row_next(const struct printer *p, uint32_t *idx, struct kernel_row *r)
{
	/* whether such a socket listens is not known */
	while (!p->want->listening && *idx < p->arena->client_count * FALLBACK_COUNT) {
		uint32_t i = (*idx)++;
		bool is_dgram;

		if (i % FALLBACK_COUNT == 0 &&
		        atomic_load(&arena_client(p->arena, i / FALLBACK_COUNT)->state) == CLIENT_FREE) {
			*idx += FALLBACK_COUNT - 1;
			continue;
		}
		if (!kernel_row_read(p->arena, i / FALLBACK_COUNT, i % FALLBACK_COUNT, r))
			continue;
		is_dgram = (r->type & 0xf) == SOCK_DGRAM;
		if (p->want->tcp != p->want->udp && is_dgram != p->want->udp)
			continue;
		if (filter_kernel_row(&p->filter, r))
			return true;
	}
	return false;
}

/* --- options of sockets --- */

static const struct {
	enum ep_flag bit;
	const char *name;
} flag_names[] = {{EPF_NODELAY, "nodelay"}, {EPF_CORK, "cork"}, {EPF_KEEPALIVE, "keepalive"},
        {EPF_REUSEADDR, "reuseaddr"}, {EPF_REUSEPORT, "reuseport"}, {EPF_OOBINLINE, "oobinline"},
        {EPF_BROADCAST, "broadcast"}, {EPF_DONTROUTE, "dontroute"}, {EPF_TIMESTAMP, "timestamp"},
        {EPF_TIMESTAMPNS, "timestampns"}, {EPF_PKTINFO, "pktinfo"}, {EPF_FREEBIND, "freebind"},
        {EPF_TRANSPARENT, "transparent"}, {EPF_V6ONLY, "v6only"}, {EPF_BOUND_DEVICE, "bound-device"},
        {EPF_NO_CHECK, "no-check"}, {EPF_THIN_LINEAR_TIMEOUTS, "thin-linear-timeouts"}};

static const struct {
	uint32_t bit;
	const char *name;
} app_names[] = {
        {APP_NONBLOCK, "nonblock"}, {APP_MORE, "more"}, {APP_SHUT_RD, "shut-rd"}, {APP_SHUT_WR, "shut-wr"}};

/* Numbers that are shown when they are not this. */
static const struct {
	enum ep_opt slot;
	int32_t usual;
	const char *name;
} value_names[] = {{EPO_KEEPIDLE, 7200, "keepidle"}, {EPO_KEEPINTVL, 75, "keepintvl"},
        {EPO_KEEPCNT, 9, "keepcnt"}, {EPO_USER_TIMEOUT, 0, "user-timeout"}, {EPO_SYNCNT, 6, "syncnt"},
        {EPO_DEFER_ACCEPT, 0, "defer-accept"}, {EPO_MAXSEG, 0, "maxseg"},
        {EPO_WINDOW_CLAMP, 0, "window-clamp"}, {EPO_NOTSENT_LOWAT, 0, "notsent-lowat"},
        {EPO_RCVLOWAT, 1, "rcvlowat"}, {EPO_TOS, 0, "tos"}, {EPO_TTL, 64, "ttl"}, {EPO_MINTTL, 0, "minttl"},
        {EPO_PRIORITY, 0, "priority"}, {EPO_MARK, 0, "mark"}};

/* Calls name for each option that is not as it is by default; value is NULL for a switch. */
static void options_walk(
        const struct row *r, void (*fn)(void *arg, const char *name, const int32_t *value), void *arg)
{
	static const int32_t off;

	for (size_t i = 0; i < sizeof(flag_names) / sizeof(flag_names[0]); i++)
		if (row_flag(r, flag_names[i].bit))
			fn(arg, flag_names[i].name, NULL);
	for (size_t i = 0; i < sizeof(app_names) / sizeof(app_names[0]); i++)
		if (r->app_flags & app_names[i].bit)
			fn(arg, app_names[i].name, NULL);
	if (row_flag(r, EPF_LINGER))
		fn(arg, "linger", &r->opt[EPO_LINGER_S]);
	if (row_flag(r, EPF_SNDBUF_SET))
		fn(arg, "sndbuf", &r->opt[EPO_SNDBUF]);
	if (row_flag(r, EPF_RCVBUF_SET))
		fn(arg, "rcvbuf", &r->opt[EPO_RCVBUF]);
	for (size_t i = 0; i < sizeof(value_names) / sizeof(value_names[0]); i++) {
		int32_t value = r->opt[value_names[i].slot];

		/* a socket that never set one may have 0 there for "as usual" */
		if (value != value_names[i].usual && value != off)
			fn(arg, value_names[i].name, &value);
	}
}

/* --- table --- */

static void number_text(char *buf, size_t size, int64_t value, bool is_known)
{
	if (is_known)
		snprintf(buf, size, "%lld", (long long)value);
	else
		snprintf(buf, size, "-");
}

static void print_option(void *arg, const char *name, const int32_t *value)
{
	const char **before = arg;

	printf(value ? "%s%s:%d" : "%s%s", *before, name, value ? *value : 0);
	*before = " ";
}

/* The lines below a socket's own. */
static void print_more(const struct printer *p, const struct row *r)
{
	const char *before = "";
	char span[24];
	bool has_tcp = row_is_conn(r);

	if (p->want->timers && has_tcp && r->timer != REPORT_TIMER_NONE) {
		span_text(r->timer_in_ms, span, sizeof(span));
		printf("%8s timer:(%s,%s,%u)\n", "", timer_name(r->timer), span, r->retransmits);
	}
	if (p->want->options) {
		printf("%8s uid:%u endpoint:%u", "", r->uid, r->idx);
		if (r->is_dgram)
			printf(" drops:%u", r->drops);
		printf(" send-limit:%u options:(", r->tx_limit);
		options_walk(r, print_option, &before);
		printf(")\n");
	}
	if (p->want->info && has_tcp)
		printf("%8s mss:%u cwnd:%u ssthresh:%u send-window:%u recv-window:%u rtt:%u.%03ums rto:%ums "
		       "retransmits:%u unsent:%u\n",
		        "", r->mss, r->cwnd, r->ssthresh, r->snd_wnd, r->rcv_wnd, r->rtt_us / 1000,
		        r->rtt_us % 1000, r->rto_ms, r->retransmits, r->tx_unsent);
}

static void print_row(const struct row *r)
{
	char local[ADDR_TEXT_SIZE], remote[ADDR_TEXT_SIZE], pid[16], fd[16], send[32], cwnd[16], rtt[24],
	        rto[16], retr[16];
	bool has_tcp = row_is_conn(r);

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
	        r->program[0] ? r->program : "-", fd, r->stack, row_state_name(r), local, remote, r->rx_queue,
	        send, cwnd, rtt, rto, retr);
}

static void print_table(struct printer *p)
{
	bool has_kernel = false;
	struct kernel_row k;
	struct row r;

	if (!p->want->kernel)
		printf("%7s %-15s %5s %5s %-11s %-21s %-21s %8s %13s %8s %8s %6s %6s\n", "PID", "PROGRAM",
		        "FD", "STACK", "STATE", "LOCAL", "PEER", "RECVQ", "SENDQ/UNSENT", "CWND", "RTT_MS",
		        "RTO_MS", "RETR");
	for (uint32_t i = 0; row_next(p, &i, &r);) {
		print_row(&r);
		print_more(p, &r);
	}
	for (uint32_t i = 0; kernel_row_next(p, &i, &k);) {
		if (!has_kernel)
			printf("%sServed by the kernel:\n%7s %-15s %5s %-6s %-6s %s\n",
			        p->want->kernel ? "" : "\n", "PID", "PROGRAM", "FD", "FAMILY", "TYPE",
			        "REASON");
		has_kernel = true;
		printf("%7d %-15.15s %5d %-6s %-6s %s\n", k.pid, k.program, k.fd, family_name(k.family),
		        type_name(k.type), k.reason);
	}
	if (p->want->kernel && !has_kernel)
		printf("The kernel serves no socket of an attached program that this asks for.\n");
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

	if (!addr_ip_text(a, ip, sizeof(ip)))
		printf(", \"%s\": null", key);
	else
		printf(", \"%s\": {\"address\": \"%s\", \"port\": %u}", key, ip, a->port);
}

static void json_option(void *arg, const char *name, const int32_t *value)
{
	const char **before = arg;

	printf(value ? "%s\"%s\": %d" : "%s\"%s\": true", *before, name, value ? *value : 0);
	*before = ", ";
}

static void json_row(const struct row *r, const char *before)
{
	bool has_tcp = row_is_conn(r), is_listener = r->state == EP_LISTEN;
	const char *between = "";

	printf("%s    {\"endpoint\": %u, \"stack\": %u, \"protocol\": \"%s\", \"state\": \"%s\"", before,
	        r->idx, r->stack, r->is_dgram ? "udp" : "tcp", row_state_name(r));
	json_number("pid", r->pid, r->owner != UINT32_MAX);
	printf(", \"program\": ");
	json_text(stdout, r->program);
	json_number("uid", r->uid, r->owner != UINT32_MAX);
	json_number("fd", r->fd, r->fd >= 0);
	json_addr("local", &r->local);
	json_addr("peer", &r->remote);
	json_number("accept_queue", r->rx_queue, is_listener);
	json_number("backlog", r->tx_queue, is_listener);
	json_number("recv_queue", r->rx_queue, !is_listener);
	json_number("drops", r->drops, r->state == EP_DGRAM);
	json_number("send_queue", r->tx_queue, !is_listener);
	json_number("send_unsent", r->tx_unsent, !is_listener);
	json_number("send_limit", r->tx_limit, !is_listener);
	json_number("cwnd", r->cwnd, has_tcp);
	json_number("ssthresh", r->ssthresh, has_tcp);
	json_number("send_window", r->snd_wnd, has_tcp);
	json_number("recv_window", r->rcv_wnd, has_tcp);
	json_number("mss", r->mss, has_tcp);
	json_number("rtt_us", r->rtt_us, has_tcp);
	json_number("rto_ms", r->rto_ms, has_tcp);
	json_number("retransmits", r->retransmits, has_tcp);
	if (r->timer != REPORT_TIMER_NONE)
		printf(", \"timer\": {\"name\": \"%s\", \"in_ms\": %d}", timer_name(r->timer),
		        r->timer_in_ms);
	else
		printf(", \"timer\": null");
	printf(", \"options\": {");
	options_walk(r, json_option, &between);
	printf("}}");
}

static void print_json(struct printer *p)
{
	const char *before = "\n";
	struct kernel_row k;
	struct row r;

	printf("{\n  \"sockets\": [");
	for (uint32_t i = 0; row_next(p, &i, &r); before = ",\n")
		json_row(&r, before);
	printf("\n  ],\n  \"kernel\": [");
	before = "\n";
	for (uint32_t i = 0; kernel_row_next(p, &i, &k); before = ",\n") {
		printf("%s    {\"pid\": %d, \"program\": ", before, k.pid);
		json_text(stdout, k.program);
		printf(", \"fd\": %d, \"family\": \"%s\", \"type\": \"%s\", \"reason\": ", k.fd,
		        family_name(k.family), type_name(k.type));
		json_text(stdout, k.reason);
		printf("}");
	}
	printf("\n  ]\n}\n");
}

/* --- summary --- */

enum { STATE_MAX = 16 };

struct sums {
	uint32_t tcp, udp, kernel, state[STATE_MAX], stack[ARENA_STACK_MAX];
	uint64_t rx_bytes, tx_bytes, retransmits, drops;
};

static void sums_make(struct printer *p, struct sums *sums)
{
	struct kernel_row k;
	struct row r;

	memset(sums, 0, sizeof(*sums));
	for (uint32_t i = 0; row_next(p, &i, &r);) {
		const char *name = row_state_name(&r), *other;

		if (r.is_dgram)
			sums->udp++;
		else
			sums->tcp++;
		for (uint32_t n = 0; n < STATE_MAX && (other = state_name_at(n)); n++)
			sums->state[n] += !strcmp(name, other);
		if (r.stack < ARENA_STACK_MAX)
			sums->stack[r.stack]++;
		if (r.state != EP_LISTEN) {
			sums->rx_bytes += r.rx_queue;
			sums->tx_bytes += r.tx_queue;
		}
		sums->retransmits += row_is_conn(&r) ? r.retransmits : 0;
		sums->drops += r.drops;
	}
	for (uint32_t i = 0; kernel_row_next(p, &i, &k);)
		sums->kernel++;
}

static void print_summary(struct printer *p, bool json)
{
	struct sums sums;
	const char *name, *before = "";

	sums_make(p, &sums);
	printf(json ? "{\"tcp\": %u, \"udp\": %u, \"kernel\": %u,\n  \"states\": {"
	            : "Total: %u TCP, %u UDP; the kernel serves %u\nStates:",
	        sums.tcp, sums.udp, sums.kernel);
	for (uint32_t n = 0; n < STATE_MAX && (name = state_name_at(n)); n++) {
		if (!sums.state[n])
			continue;
		printf(json ? "%s\"%s\": %u" : "%s %s %u", before, name, sums.state[n]);
		before = json ? ", " : ",";
	}
	printf(json ? "},\n  \"stacks\": [" : "%s\nStacks:", json || before[0] ? "" : " none");
	for (uint32_t i = 0; i < p->arena->stack_count; i++)
		printf(json ? "%s%u" : "%s %u", i ? json ? ", " : "," : "", sums.stack[i]);
	printf(json ? "],\n  \"recv_queue\": %llu, \"send_queue\": %llu, \"retransmits\": %llu, \"drops\": "
	              "%llu}\n"
	            : "\nBytes: %llu to be read, %llu to be acknowledged\n"
	              "Retransmits: %llu; datagrams dropped: %llu\n",
	        (unsigned long long)sums.rx_bytes, (unsigned long long)sums.tx_bytes,
	        (unsigned long long)sums.retransmits, (unsigned long long)sums.drops);
}

int show_sockets(const struct attach *at, const struct show *show)
{
	struct printer p = {.arena = &at->arena, .want = &show->sockets, .now_ms = now_ms_get()};
	char err[512] = "";
	int rc = filter_parse(&p.filter, show->word, show->word_count, err, sizeof(err));

	if (rc) {
		fprintf(stderr, "pronkctl: sockets: %s\n", err);
		return rc;
	}
	if (show->sockets.summary)
		print_summary(&p, show->json);
	else if (show->json)
		print_json(&p);
	else
		print_table(&p);
	return 0;
}
