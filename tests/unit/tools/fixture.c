/* fixture.c FOLDER - a service for the golden tests of pronkctl: a real control socket in front of an arena
 * and a statistics segment that are filled in by hand, with nothing behind them.
 *
 * Says "ready" when the socket FOLDER/golden.sock is there; serves nobody any more after SIGUSR1; ends with
 * its standard input, or after two minutes. Times are half a minute off a whole minute, so that a slow test
 * reads the same minutes.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "attach.h"
#include "clock.h"
#include "libc.h"
#include "segment.h"
#include "server.h"
#include "stat.h"

enum { STACKS = 2, ENDPOINTS = 128, MINUTE_MS = 60000, SPAN_MS = 119 * MINUTE_MS + MINUTE_MS / 2 };
enum { REDIS, WORKER, ODD, CLIENTS };

static struct arena arena;
static struct segment stats;
static uint32_t now_ms;
static volatile sig_atomic_t is_silent;

#define SET(field, value) atomic_store(&ep->field, (value))

static struct sock_addr addr4(const char *ip, uint16_t port)
{
	struct sock_addr a = {.family = AF_INET, .port = port};
	unsigned b[4];

	if (sscanf(ip, "%u.%u.%u.%u", &b[0], &b[1], &b[2], &b[3]) != 4)
		abort();
	for (int i = 0; i < 4; i++)
		a.ip[i] = (uint8_t)b[i];
	return a;
}

static struct endpoint *endpoint(uint32_t idx, uint32_t state, uint32_t client, int fd)
{
	struct endpoint *ep = &arena.endpoints[idx];

	ep->stack_idx = (uint16_t)(idx / (ENDPOINTS / STACKS));
	ep->kind = state == EP_DGRAM ? SOCK_DGRAM : SOCK_STREAM;
	ep->listener = UINT32_MAX;
	SET(app_fd, fd);
	SET(creator, client);
	SET(tx_limit, 524288);
	SET(opts.v[EPO_TTL], 64);
	SET(opts.v[EPO_RCVLOWAT], 1);
	if (client < CLIENTS)
		hold_set(&arena, client, idx);
	SET(state, state);
	return ep;
}

static void connection(struct endpoint *ep, uint32_t tcp_state, const char *remote, uint16_t port)
{
	ep->local = addr4("198.18.0.2", 6379);
	ep->remote = addr4(remote, port);
	SET(tcp_state, tcp_state);
	SET(info_cwnd, 14600);
	SET(info_ssthresh, 65535);
	SET(info_snd_wnd, 64240);
	SET(info_rcv_wnd, 262144);
	SET(info_rtt_us, 1234);
	SET(info_rto_ms, 21);
	SET(info_mss, 1460);
}

static void client(uint32_t idx, int pid, const char *program)
{
	struct client *c = arena_client(&arena, idx);

	client_seen(&arena, idx);
	atomic_store(&c->pid, pid);
	atomic_store(&c->uid, 1000);
	snprintf(c->program, sizeof(c->program), "%s", program);
	atomic_store(&c->state, CLIENT_ACTIVE);
}

static void fallback(uint32_t client_idx, int fd, uint16_t family, uint16_t type, const char *reason)
{
	struct fallback *f = &arena_client(&arena, client_idx)->fallback[fd % FALLBACK_COUNT];

	f->family = family;
	f->type = type;
	snprintf(f->reason, sizeof(f->reason), "%s", reason);
	atomic_store(&f->fd, fd);
}

static void port_taken(_Atomic uint32_t *map, uint32_t port)
{
	atomic_fetch_or(&map[port / 32], 1u << port % 32);
}

static void sockets_fill(void)
{
	struct endpoint *ep;

	client(REDIS, 4711, "redis-server");
	client(WORKER, 4712, "redis-server");
	client(ODD, 4800, "o\"dd \x01prog\xff");

	ep = endpoint(0, EP_LISTEN, REDIS, 6); /* with three that wait, shared by two processes */
	ep->local = addr4("0.0.0.0", 6379);
	ep->listener = 0;
	SET(backlog, 511);
	SET(opts.flag, 1ull << EPF_REUSEADDR);
	atomic_store(&arena_listener(&arena, 0)->ring[0].head, 2);
	atomic_store(&arena_listener(&arena, 0)->ring[1].head, 1);
	hold_set(&arena, WORKER, 0);
	port_taken(arena.hdr->port_used, 6379);
	port_taken(arena.hdr->port_listen, 6379);

	ep = endpoint(1, EP_ESTABLISHED, REDIS, 7);
	connection(ep, 4, "198.18.0.1", 40001);
	SET(rx_bytes, 300);
	SET(rx_read, 100);
	SET(tx_head, 9000);
	SET(tx_tail, 4000);
	SET(tx_unsent, 1000);
	SET(info_retransmits, 3);
	SET(info_timer, REPORT_TIMER_REXMIT);
	SET(info_timer_ms, now_ms - 1000);
	SET(opts.flag, 1ull << EPF_NODELAY | 1ull << EPF_KEEPALIVE | 1ull << EPF_LINGER);
	SET(opts.v[EPO_LINGER_S], 5);
	SET(opts.v[EPO_KEEPIDLE], 300);
	SET(app_flags, APP_NONBLOCK);

	ep = endpoint(65, EP_ESTABLISHED, WORKER, 8);
	connection(ep, 4, "198.18.1.77", 40002);
	SET(info_timer, REPORT_TIMER_KEEPALIVE);
	SET(info_timer_ms, now_ms + SPAN_MS);
	SET(opts.flag, 1ull << EPF_CORK | 1ull << EPF_SNDBUF_SET);
	SET(opts.v[EPO_SNDBUF], 65536);

	ep = endpoint(66, EP_CONNECTING, ODD, 9);
	connection(ep, 2, "198.18.0.9", 80);
	ep->local.port = 50000;
	SET(info_timer, 9999); /* of a later version */
	SET(info_timer_ms, now_ms - 1000);

	ep = endpoint(67, EP_ESTABLISHED, CLIENTS, -1); /* closed by its program */
	connection(ep, 6, "198.18.0.1", 40003);
	SET(info_timer, REPORT_TIMER_FIN_WAIT);
	SET(info_timer_ms, now_ms + SPAN_MS);

	ep = endpoint(2, EP_DGRAM, ODD, 10);
	ep->local = addr4("198.18.0.2", 53);
	SET(info_drops, 12);
	SET(opts.flag, 1ull << EPF_BROADCAST);
	port_taken(arena.hdr->udp_used, 53);

	ep = endpoint(3, EP_BOUND, ODD, 11);
	ep->local = addr4("198.18.0.2", 8080);
	port_taken(arena.hdr->port_used, 8080);
	port_taken(arena.hdr->port_used, 50000); /* by the connection alone */

	endpoint(4, EP_CLOSED, ODD, 12);
	fallback(ODD, 13, AF_INET6, SOCK_STREAM, "IPv6 is not accelerated");
	fallback(ODD, 14, AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, "bound to \"lo\"");
	fallback(REDIS, 15, AF_UNIX, SOCK_STREAM, "only TCP and UDP are accelerated");
}

static void neighbour(struct stack_report *r, const char *ip, uint8_t state, uint8_t tries, uint16_t big)
{
	struct report_neigh *n = &r->neigh[r->neigh_count++];
	struct sock_addr a = addr4(ip, 0);

	memcpy(n->ip, a.ip, 4);
	memcpy(n->mac, (uint8_t[]){2, 0, 0, 0, 0, a.ip[3]}, 6);
	n->state = state;
	n->tries = tries;
	n->is_used = tries == 0;
	n->waiting = state == REPORT_NEIGH_ASKING ? 2 : 0;
	n->big = big;
	n->time_ms = now_ms - SPAN_MS;
}

static void stacks_fill(void)
{
	for (uint32_t i = 0; i < STACKS; i++) {
		struct stack_report *r = &arena.reports[i];
		struct stat_block *s = stat_segment_block(stats.base, i);

		report_begin(r);
		r->core = (int32_t)i + 2;
		r->tid = 4000 + (int32_t)i;
		r->event_fd = 20 + (int32_t)i;
		r->spin_us = 50;
		r->nap_us = 100;
		r->wait_fd_count = i == 0;
		r->wait_fd[0] = 17;
		r->is_spin_off = i == 1;
		neighbour(r, "198.18.0.1", REPORT_NEIGH_KNOWN, 0, i ? 61504 : 0);
		if (i == 0) {
			neighbour(r, "198.18.0.9", REPORT_NEIGH_ASKING, 2, 0);
			neighbour(r, "198.18.0.10", REPORT_NEIGH_KNOWN, 1, 0);
		}
		report_end(r);
		atomic_store(&arena.stacks[i].is_idle, i);
		stat_set(s, STAT_sleeps, 10 + i);
		stat_set(s, STAT_wakes_port, 6);
		stat_set(s, STAT_wakes_request, 3 + i);
		stat_set(s, STAT_time_wait, 4);
		stat_set(s, STAT_naps, i * 7);
	}
}

static void header_fill(const char *path)
{
	struct arena_header *h = arena.hdr;
	struct arena_net net = {.prefix = 24, .mtu = 1500, .has_gateway = true, .is_usable = true};
	uint32_t gateway;

	h->service_pid = INT32_MAX; /* nobody's: what depends on the machine cannot be read */
	h->app_spin_us = 20;
	memcpy(&net.address, (uint8_t[]){198, 18, 0, 2}, 4);
	memcpy(&gateway, (uint8_t[]){198, 18, 0, 1}, 4);
	arena_net_set(h, &net, gateway);
	h->loopback = 1;
	snprintf(h->device, sizeof(h->device), "memif:/run/x.sock");
	snprintf(h->name, sizeof(h->name), "golden");
	snprintf(h->socket, sizeof(h->socket), "%s", path);
	snprintf(h->log_file, sizeof(h->log_file), "/nonexistent/golden.log");
}

/* --- the control server's questions --- */

static int no_stacks(void *arg, _Atomic uint32_t *left)
{
	(void)arg;
	atomic_store(left, 0);
	return 0;
}

static int no_client(void *arg, uint32_t client_idx, _Atomic uint32_t *left)
{
	(void)client_idx;
	return no_stacks(arg, left);
}

static int config_text(void *arg, bool json, char *buf, size_t size)
{
	(void)arg;
	return snprintf(buf, size, json ? "{}\n" : "# no options\n");
}

static int command(void *arg, uint32_t uid, const char *words, bool json, char *buf, size_t size)
{
	(void)arg;
	(void)uid;
	if (strncmp(words, "set ", 4) != 0)
		return snprintf(buf, size, json ? "{\"command\": \"%s\"}\n" : "command %s\n", words);
	snprintf(buf, size, "nothing can be set here");
	return -EINVAL;
}

static void silence(int sig)
{
	(void)sig;
	is_silent = 1;
}

int main(int argc, char **argv)
{
	char path[108], err[256] = "";
	struct arena_spec spec = {.name = "pronk-arena",
	        .stack_count = STACKS,
	        .endpoint_count = ENDPOINTS,
	        .client_count = 8,
	        .block_memory = 4 << 20,
	        .huge = -1};
	static _Atomic int poller_fds[ARENA_POLLER_MAX];
	struct server_spec server = {.socket_path = path,
	        .arena = &arena,
	        .poller_fds = poller_fds,
	        .ops = {.client_gone = no_client,
	                .barrier = no_stacks,
	                .config_text = config_text,
	                .command = command}};
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};
	struct server *s;
	bool is_huge;

	if (argc != 2)
		return 2;
	alarm(120);
	signal(SIGUSR1, silence);
	libc_init();
	snprintf(path, sizeof(path), "%s/golden.sock", argv[1]);
	now_ms = (uint32_t)(clock_now_ns() / CLOCK_NS_PER_MS);
	if (arena_create(&arena, &spec, &is_huge, err, sizeof(err)) ||
	        segment_create(&stats, STACKS, err, sizeof(err)))
		goto fail;
	header_fill(path);
	sockets_fill();
	stacks_fill();
	server.stats = stat_segment_block(stats.base, 0);
	server.stats_fd = stats.fd;
	for (int i = 0; i < STACKS; i++)
		server.stack_fd[i] = eventfd(0, EFD_CLOEXEC);
	if (server_create(&s, &server, err, sizeof(err)))
		goto fail;
	puts("ready");
	fflush(stdout);
	fds[1].fd = server_fd(s);
	while (poll(fds, is_silent ? 1 : 2, -1) >= 0 || errno == EINTR) {
		if (fds[0].revents & (POLLIN | POLLHUP))
			break;
		if (is_silent || !fds[1].revents)
			continue;
		server_serve(s);
	}
	server_destroy(s);
	return 0;
fail:
	fprintf(stderr, "fixture: %s\n", err);
	return 1;
}
