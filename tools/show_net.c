/* show_net.c - `pronkctl arp`, `routes` and `ports`: from the arena alone, so that nobody need be asked.
 */
#include "sample.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"

/* --- arp --- */

static const char *neigh_state(const struct report_neigh *n)
{
	switch (n->state) {
	case REPORT_NEIGH_ASKING:
		return "asking";
	case REPORT_NEIGH_KNOWN:
		return n->tries ? "asked-again" : "known";
	case REPORT_NEIGH_PERMANENT:
		return "permanent";
	default:
		return "unknown";
	}
}

static void neigh_table(uint32_t stack, const struct report_neigh *n, uint32_t now_ms)
{
	char ip[INET_ADDRSTRLEN], mac[24] = "-", age[24], near[16] = "-";

	inet_ntop(AF_INET, n->ip, ip, sizeof(ip));
	if (n->state != REPORT_NEIGH_ASKING)
		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
		        n->mac[3], n->mac[4], n->mac[5]);
	if (n->big)
		snprintf(near, sizeof(near), "%u", n->big);
	span_text((int32_t)(now_ms - n->time_ms), age, sizeof(age));
	printf("%5u %-15s %-17s %-11s %8s %5u %4s %7u %6s\n", stack, ip, mac, neigh_state(n), age, n->tries,
	        n->is_used ? "yes" : "no", n->waiting, near);
}

static void neigh_json(uint32_t stack, const struct report_neigh *n, uint32_t now_ms, const char *before)
{
	char ip[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, n->ip, ip, sizeof(ip));
	printf("%s    {\"stack\": %u, \"address\": \"%s\", \"mac\": ", before, stack, ip);
	if (n->state != REPORT_NEIGH_ASKING)
		printf("\"%02x:%02x:%02x:%02x:%02x:%02x\"", n->mac[0], n->mac[1], n->mac[2], n->mac[3],
		        n->mac[4], n->mac[5]);
	else
		printf("null");
	printf(", \"state\": \"%s\", \"age_ms\": %d, \"tries\": %u, \"used\": %s, \"waiting\": %u, "
	       "\"near_frame\": ",
	        neigh_state(n), (int32_t)(now_ms - n->time_ms), n->tries, n->is_used ? "true" : "false",
	        n->waiting);
	printf(n->big ? "%u}" : "null}", n->big);
}

int show_arp(const struct attach *at, const struct show *show)
{
	struct stack_report *report = malloc(sizeof(*report));
	uint32_t now_ms = now_ms_get();
	const char *before = "\n";

	if (!report)
		return -ENOMEM;
	if (show->json)
		printf("{\n  \"neighbours\": [");
	else
		printf("%5s %-15s %-17s %-11s %8s %5s %4s %7s %6s\n", "STACK", "ADDRESS", "MAC", "STATE",
		        "AGE", "TRIES", "USED", "WAITING", "NEAR");
	for (uint32_t i = 0; i < at->arena.stack_count; i++) {
		if (!report_read(&at->arena.reports[i], report))
			fprintf(stderr, "pronkctl: arp: stack %u was stopped while it wrote its table\n", i);
		for (uint32_t k = 0; k < report->neigh_count; k++) {
			if (show->json)
				neigh_json(i, &report->neigh[k], now_ms, before);
			else
				neigh_table(i, &report->neigh[k], now_ms);
			before = ",\n";
		}
	}
	if (show->json)
		printf("\n  ]\n}\n");
	free(report);
	return 0;
}

/* --- routes --- */

struct route {
	char to[32], via[INET_ADDRSTRLEN], source[INET_ADDRSTRLEN], device[128];
	uint32_t mtu; /* 0: not known */
	bool is_ours;
	const char *note;
};

static void route_print(const struct route *r, bool json, const char **before)
{
	if (!json) {
		char mtu[16] = "-";

		if (r->mtu)
			snprintf(mtu, sizeof(mtu), "%u", r->mtu);
		printf("%-18s %-15s %-20s %-15s %6s %-6s %s\n", r->to, r->via[0] ? r->via : "-",
		        r->device[0] ? r->device : "-", r->source[0] ? r->source : "-", mtu,
		        r->is_ours ? "pronk" : "kernel", r->note);
		return;
	}
	printf("%s    {\"to\": \"%s\", \"via\": ", *before, r->to);
	if (r->via[0])
		json_text(stdout, r->via);
	else
		printf("null");
	printf(", \"device\": ");
	json_text(stdout, r->device);
	printf(", \"source\": ");
	if (r->source[0])
		json_text(stdout, r->source);
	else
		printf("null");
	printf(r->mtu ? ", \"mtu\": %u" : ", \"mtu\": null", r->mtu);
	printf(", \"by\": \"%s\", \"note\": \"%s\"}", r->is_ours ? "pronk" : "kernel", r->note);
	*before = ",\n";
}

static void routes_ours(const struct arena_header *h, bool json, const char **before)
{
	struct arena_net net = arena_net(h);
	struct route r = {.mtu = net.mtu, .is_ours = true};
	uint32_t prefix = net.prefix <= 32 ? net.prefix : 32;
	uint32_t to = net.address & (prefix ? htonl(~0u << (32 - prefix)) : 0);

	if (!net.is_usable) {
		if (!json)
			printf("The port has no address, or its interface is down: nothing leads to Pronk.\n");
		return;
	}
	inet_ntop(AF_INET, &net.address, r.source, sizeof(r.source));
	snprintf(r.device, sizeof(r.device), "%.*s", (int)sizeof(r.device) - 1, h->device);
	inet_ntop(AF_INET, &to, r.to, sizeof(r.to));
	snprintf(r.to + strlen(r.to), sizeof(r.to) - strlen(r.to), "/%u", prefix);
	r.note = "the port's network";
	route_print(&r, json, before);
	if (net.has_gateway) {
		strcpy(r.to, "default");
		inet_ntop(AF_INET, h->gateway, r.via, sizeof(r.via));
		r.note = "gateway";
		route_print(&r, json, before);
		r.via[0] = 0;
	}
	strcpy(r.to, "224.0.0.0/4");
	r.note = "datagrams of sockets that chose the port";
	route_print(&r, json, before);
}

static void routes_local(const struct arena_header *h, bool json, const char **before)
{
	struct arena_net net = arena_net(h);
	struct route r = {.mtu = 65535, .is_ours = h->loopback, .device = "lo"};

	r.note = h->loopback ? "where a program under Pronk listens; else the kernel" : "loopback = kernel";
	strcpy(r.to, "127.0.0.0/8");
	route_print(&r, json, before);
	if (!net.address)
		return;
	inet_ntop(AF_INET, &net.address, r.to, sizeof(r.to));
	strcat(r.to, "/32");
	route_print(&r, json, before);
}

/* What the kernel does with what is not ours, in the service's network namespace. proc(5) */
static void routes_kernel(const struct arena_header *h, bool json, const char **before)
{
	char path[48], line[256], device[32], flags[16];
	uint32_t to, via, mask;
	unsigned mtu;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/net/route", h->service_pid);
	file = fopen(path, "re");
	if (!file) {
		if (!json)
			printf("The kernel's routes cannot be read (%s: %s).\n", path, strerror(errno));
		return;
	}
	while (fgets(line, sizeof(line), file)) {
		struct route r = {
		        .note = arena_net(h).has_gateway ? "for sockets that are the kernel's" : ""};

		if (sscanf(line, "%31s %x %x %15s %*u %*u %*u %x %u", device, &to, &via, flags, &mask,
		            &mtu) != 6)
			continue;
		snprintf(r.device, sizeof(r.device), "%s", device);
		r.mtu = mtu;
		inet_ntop(AF_INET, &to, r.to, sizeof(r.to));
		snprintf(r.to + strlen(r.to), sizeof(r.to) - strlen(r.to), "/%d", __builtin_popcount(mask));
		if (!mask)
			strcpy(r.to, "default");
		if (via)
			inet_ntop(AF_INET, &via, r.via, sizeof(r.via));
		route_print(&r, json, before);
	}
	fclose(file);
}

int show_routes(const struct attach *at, const struct show *show)
{
	const char *before = "\n";

	if (show->json)
		printf("{\n  \"routes\": [");
	else
		printf("%-18s %-15s %-20s %-15s %6s %-6s %s\n", "TO", "VIA", "DEVICE", "SOURCE", "MTU", "BY",
		        "NOTE");
	routes_ours(at->arena.hdr, show->json, &before);
	routes_local(at->arena.hdr, show->json, &before);
	routes_kernel(at->arena.hdr, show->json, &before);
	if (show->json)
		printf("\n  ]\n}\n");
	else if (!arena_net(at->arena.hdr).has_gateway)
		printf("No gateway: what none of Pronk's lines holds goes to the kernel.\n");
	return 0;
}

/* --- ports --- */

static bool bit(const _Atomic uint32_t *map, uint32_t port)
{
	return atomic_load_explicit(&map[port / 32], memory_order_relaxed) >> (port % 32) & 1;
}

/* Everybody who has it open, not only who opened it: a listener is shared by forked processes. */
static void holders_print(const struct arena *a, const struct row *r, bool json)
{
	const char *before = "";
	char program[PROGRAM_SIZE];
	int32_t pid;

	for (uint32_t i = 0; i < a->client_count; i++) {
		if (!hold_test(a, i, r->idx) || !client_read(a, i, &pid, program))
			continue;
		if (json) {
			printf("%s{\"pid\": %d, \"program\": ", before, pid);
			json_text(stdout, program);
			printf("}");
			before = ", ";
		} else {
			printf("%s%s(%d)", before, program, pid);
			before = " ";
		}
	}
	if (!json && !before[0])
		printf("-");
}

static void port_print(const struct arena *a, const struct row *r, bool json, const char **before)
{
	char ip[INET6_ADDRSTRLEN] = "*";
	const char *proto = r->is_dgram ? "udp" : "tcp";

	addr_ip_text(&r->local, ip, sizeof(ip));
	if (json) {
		printf("%s    {\"protocol\": \"%s\", \"port\": %u, \"address\": \"%s\", \"state\": \"%s\", "
		       "\"stack\": %u",
		        *before, proto, r->local.port, ip, row_state_name(r), r->stack);
		if (r->state == EP_LISTEN)
			printf(", \"accept_queue\": %u, \"backlog\": %u", r->rx_queue, r->tx_queue);
		else
			printf(", \"accept_queue\": null, \"backlog\": null");
		printf(", \"holders\": [");
		holders_print(a, r, true);
		printf("]}");
	} else {
		printf("%-5s %5u %-15s %-9s %5u ", proto, r->local.port, ip, row_state_name(r), r->stack);
		if (r->state == EP_LISTEN)
			printf("%7u %7u ", r->rx_queue, r->tx_queue);
		else
			printf("%7s %7s ", "-", "-");
		holders_print(a, r, false);
		printf("\n");
	}
	*before = ",\n";
}

/* Ports that are taken, by no socket that could be named: connections that were bound before they connected
 * hold theirs, also after their program has closed them. */
static uint32_t ports_unnamed(const struct arena *a, const uint32_t *named, bool json)
{
	const char *before = "";
	uint32_t count = 0;

	for (uint32_t port = 1; port < 65536; port++) {
		if (!bit(a->hdr->port_used, port) || (named[port / 32] >> (port % 32) & 1))
			continue;
		if (json)
			printf("%s%u", before, port);
		before = ", ";
		count++;
	}
	return count;
}

static bool row_has_port(const struct row *r)
{
	return r->local.port && (r->state == EP_BOUND || r->state == EP_LISTEN || r->state == EP_DGRAM);
}

/* Rows by port, TCP first: few, so a sort by selection does. */
static int row_compare(const void *x, const void *y)
{
	const struct row *a = x, *b = y;

	if (a->is_dgram != b->is_dgram)
		return a->is_dgram ? 1 : -1;
	if (a->local.port != b->local.port)
		return a->local.port < b->local.port ? -1 : 1;
	return a->idx < b->idx ? -1 : a->idx > b->idx;
}

int show_ports(const struct attach *at, const struct show *show)
{
	const struct arena *a = &at->arena;
	struct row *rows = NULL, r;
	uint32_t named[65536 / 32] = {0}, count = 0, room = 0, unnamed;
	const char *before = "\n";
	struct source src;
	uint64_t time_wait = 0;

	for (uint32_t i = 0; i < a->endpoint_count; i++) {
		if (!row_read(a, i, now_ms_get(), &r) || !row_has_port(&r))
			continue;
		if (count == room) {
			struct row *more = realloc(rows, (room = room ? room * 2 : 64) * sizeof(*rows));

			if (!more) {
				free(rows);
				return -ENOMEM;
			}
			rows = more;
		}
		rows[count++] = r;
		if (!r.is_dgram)
			named[r.local.port / 32] |= 1u << (r.local.port % 32);
	}
	if (count)
		qsort(rows, count, sizeof(*rows), row_compare);
	if (show->json)
		printf("{\n  \"ports\": [");
	else
		printf("%-5s %5s %-15s %-9s %5s %7s %7s %s\n", "PROTO", "PORT", "ADDRESS", "STATE", "STACK",
		        "QUEUED", "BACKLOG", "HOLDERS");
	for (uint32_t i = 0; i < count; i++)
		port_print(a, &rows[i], show->json, &before);
	free(rows);
	if (show->json)
		printf("\n  ],\n  \"held_by_connections\": [");
	unnamed = ports_unnamed(a, named, show->json);
	if (!source_open(&src, at)) {
		int idx = stat_view_find(&src.view, "time_wait");

		time_wait = idx < 0 ? 0 : stat_view_total(&src.view, (uint32_t)idx);
		source_close(&src);
	}
	printf(show->json ? "],\n  \"time_wait\": %" PRIu64 "\n}\n"
	                  : "Connections in TIME_WAIT: %" PRIu64 "\n",
	        time_wait);
	if (!show->json && unnamed)
		printf("Further TCP ports held by connections: %u\n", unnamed);
	return 0;
}
