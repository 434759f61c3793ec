/* fixture_stats.c - a service that is none: the real control server over a statistics segment and an arena
 *whose every value is written down here, so that what pronkctl prints of it is exact.
 *
 *	fixture_stats SOCKET [moving]
 *
 * Prints "ready" and serves until its standard input ends. moving: counters grow by ten at each look at the
 * clock, a hundred times a second or so. The segment has names of its own, not those of stats.def: a new
 * statistic changes nothing here.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arena.h"
#include "libc.h"
#include "log.h"
#include "server.h"

enum { STACKS = 2, ENDPOINTS = 64, CLIENTS = 4, MOVE_MS = 10 };

struct value {
	const char *name, *unit, *group, *help;
	uint32_t kind;
	uint64_t of[STACKS];
};

enum {
	COUNTER = PRONK_STATS_COUNTER,
	GAUGE = PRONK_STATS_GAUGE,
	PEAK = PRONK_STATS_PEAK,
	LOW = PRONK_STATS_LOW
};

static const struct value values[] = {
        {"rx_packets", "packets", "Port", "Frames taken from the port's receive queue.", COUNTER,
                {1000, 500}},
        {"rx_bytes", "bytes", "Port", "Bytes of the frames.", COUNTER, {64000, 123456789012}},
        {"tx_packets", "packets", "Port", "Frames given to the port.", COUNTER, {900, 400}},
        {"tx_bytes", "bytes", "Port", "Bytes of the frames given to the port.", COUNTER, {54000, 24000}},
        {"rx_polls", "polls", "Port", "Looks.", COUNTER, {8000, 2000}},
        {"rx_empty_polls", "polls", "Port", "Looks that found nothing.", COUNTER, {6000, 1500}},
        {"rx_full_polls", "polls", "Port", "Looks that found as much as they take.", COUNTER, {10, 0}},
        {"buffers_free", "buffers", "Port", "Free.", GAUGE, {3000, 0}},
        {"buffers_low", "buffers", "Port", "Fewest free.", LOW, {2900, 2800}},
        {"buffers_total", "buffers", "Port", "All.", GAUGE, {4096, 0}},
        {"drop_rx_cksum", "packets", "Lost packets", "Bad checksum.", COUNTER, {3, 4}},
        {"drop_tx_full", "packets", "Lost packets", "The port was full.", COUNTER, {0, 0}},
        {"ip_in_packets", "packets", "IP", "IPv4 packets.", COUNTER, {990, 490}},
        {"ip_in_octets", "bytes", "IP", "Their bytes.", COUNTER, {50000, 20000}},
        {"ip_in_bad_cksum", "packets", "IP", "Bad header checksum.", COUNTER, {1, 0}},
        {"tcp_curr_estab", "connections", "TCP", "Open.", GAUGE, {2, 1}},
        {"tcp_out_segs", "segments", "TCP", "Sent.", COUNTER, {800, 300}},
        {"tcp_out_again", "segments", "TCP", "Sent again.", COUNTER, {5, 2}},
        {"tcp_in_bad_cksum", "segments", "TCP", "Bad checksum.", COUNTER, {2, 4}},
        {"tcp_established", "connections", "TCP", "Established.", GAUGE, {2, 1}},
        {"tcp_rx_predicted", "segments", "TCP", "Predicted.", COUNTER, {700, 200}},
        {"tcp_rx_general", "segments", "TCP", "General.", COUNTER, {70, 20}},
        {"udp_in_bad_cksum", "datagrams", "UDP", "Bad checksum.", COUNTER, {0, 0}},
        {"drop_rx_short", "packets", "Lost packets", "Cut: \"\\\" in a help text.", COUNTER, {0, 2}},
        {"endpoints_used", "endpoints", "Memory", "Sockets.", GAUGE, {2, 1}},
        {"busy_ns", "ns", "Run loop", "Busy.", COUNTER, {0, 0}},
        {"worst_turn_ns", "ns", "Run loop", "Longest turn.", PEAK, {1500000001, 90000}},
        {"requests", "requests", "Run loop", "Requests.", COUNTER, {77, 33}},
        {"wakeups_sent", "events", "Run loop", "Wake-ups.", COUNTER, {12, 0}},
        {"blocks_free", "blocks", "Memory", "Free.", GAUGE, {100, 100}},
        {"blocks_total", "blocks", "Memory", "All.", GAUGE, {128, 128}},
        {"clients_attached", "processes", "Clients", "Attached.", GAUGE, {2, 0}},
};

enum { VALUES = sizeof(values) / sizeof(values[0]) };

struct segment {
	struct pronk_stats_header header;
	struct pronk_stats_entry entry[VALUES];
	uint64_t value[STACKS][VALUES];
};

static struct segment *segment_make(int *fd)
{
	struct segment *s;

	*fd = memfd_create("fixture-stats", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, sizeof(*s)) < 0)
		return NULL;
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (s == MAP_FAILED)
		return NULL;
	s->header = (struct pronk_stats_header){.version_major = PRONK_STATS_VERSION_MAJOR,
	        .version_minor = PRONK_STATS_VERSION_MINOR,
	        .header_size = sizeof(s->header),
	        .stack_count = STACKS,
	        .counter_count = VALUES,
	        .entry_size = sizeof(s->entry[0]),
	        .entry_offset = offsetof(struct segment, entry),
	        .block_offset = offsetof(struct segment, value),
	        .block_stride = sizeof(s->value[0]),
	        .segment_size = sizeof(*s),
	        .start_wall_ns = 1700000000123456789,
	        .writer_pid = 4711,
	        .instance = "fixture",
	        .device = "tap:fix\"ture\\0"};
	for (int i = 0; i < VALUES; i++) {
		strcpy(s->entry[i].name, values[i].name);
		strcpy(s->entry[i].unit, values[i].unit);
		strcpy(s->entry[i].help, values[i].help);
		strcpy(s->entry[i].group, values[i].group);
		s->entry[i].kind = values[i].kind;
		for (int k = 0; k < STACKS; k++)
			s->value[k][i] = values[i].of[k];
	}
	__atomic_store_n(&s->header.magic, PRONK_STATS_MAGIC, __ATOMIC_RELEASE);
	return s;
}

static void move(struct segment *s, struct arena *a)
{
	for (int i = 0; i < VALUES; i++)
		for (int k = 0; k < STACKS && values[i].kind == COUNTER; k++)
			__atomic_fetch_add(&s->value[k][i], 10, __ATOMIC_RELAXED);
	atomic_fetch_add(&a->endpoints[1].rx_bytes, 100);
	atomic_fetch_add(&a->endpoints[1].rx_read, 100);
	atomic_fetch_add(&a->endpoints[1].info_tx_bytes, 300);
}

static struct sock_addr address(uint8_t last, uint16_t port)
{
	return (struct sock_addr){.family = AF_INET, .port = port, .ip = {198, 18, 0, last}};
}

/* A listener, two connections of a program and one that nobody has any more. */
static void arena_fill(struct arena *a)
{
	struct endpoint *ep = a->endpoints;
	struct client *c = arena_client(a, 0);

	atomic_store(&c->pid, 1234);
	strcpy(c->program, "my server");
	atomic_store(&c->state, CLIENT_ACTIVE);
	for (uint32_t i = 0; i < 4; i++) {
		ep[i].gen = 1;
		ep[i].stack_idx = (uint16_t)(i % STACKS);
		ep[i].kind = SOCK_STREAM;
		ep[i].listener = UINT32_MAX;
		ep[i].parent = ENDPOINT_NONE;
		ep[i].local = address(2, 80);
		ep[i].remote = address(1, (uint16_t)(40000 + i));
		atomic_store(&ep[i].app_fd, (int32_t)(5 + i));
		atomic_store(&ep[i].creator, 0);
		atomic_store(&ep[i].tx_map, BLOCK_NONE);
		atomic_store(&ep[i].tcp_state, 4);
		atomic_store(&ep[i].rx_bytes, 1000 * i);
		atomic_store(&ep[i].rx_read, 900 * i);
		atomic_store(&ep[i].tx_head, 500 * i);
		atomic_store(&ep[i].tx_tail, 450 * i);
		atomic_store(&ep[i].info_tx_bytes, 7000 * i);
		atomic_store(&ep[i].info_rtt_us, 1500 * i);
		atomic_store(&ep[i].info_retransmits, i);
		if (i < 3)
			hold_set(a, 0, i);
		atomic_store(&ep[i].state, i ? EP_ESTABLISHED : EP_LISTEN);
	}
	client_seen(a, 0);
}

/* --- the service --- */

static int fake_gone(void *arg, uint32_t client_idx, _Atomic uint32_t *left)
{
	(void)arg, (void)client_idx;
	atomic_store(left, 0);
	return 0;
}

static int fake_barrier(void *arg, _Atomic uint32_t *left)
{
	(void)arg;
	atomic_store(left, 0);
	return 0;
}

static int fake_config(void *arg, bool json, char *buf, size_t size)
{
	(void)arg;
	return snprintf(buf, size, json ? "{}\n" : "name = \"fixture\";\n");
}

/* Says what it was told. */
static int fake_command(void *arg, uint32_t uid, const char *words, bool json, char *buf, size_t size)
{
	(void)arg, (void)uid, (void)json;
	return snprintf(buf, size, "%s\n", words);
}

int main(int argc, char **argv)
{
	static struct stat_block own; /* what the server counts */
	static _Atomic int poller_fds[ARENA_POLLER_MAX];
	struct arena arena;
	struct arena_spec spec = {.name = "fixture",
	        .stack_count = STACKS,
	        .endpoint_count = ENDPOINTS,
	        .client_count = CLIENTS,
	        .block_memory = 1 << 20,
	        .huge = -1};
	struct server_spec ss = {.arena = &arena,
	        .stats = &own,
	        .poller_fds = poller_fds,
	        .ops = {.client_gone = fake_gone,
	                .barrier = fake_barrier,
	                .config_text = fake_config,
	                .command = fake_command}};
	bool is_huge, is_moving = argc > 2 && !strcmp(argv[2], "moving");
	struct segment *segment;
	struct server *server;
	char err[256] = "", drop[16];

	if (argc < 2)
		return 2;
	libc_init();
	log_level_set(LOG_LEVEL_ERROR);
	segment = segment_make(&ss.stats_fd);
	for (int i = 0; i < ARENA_POLLER_MAX; i++)
		atomic_store(&poller_fds[i], -1);
	for (int i = 0; i < STACKS; i++)
		ss.stack_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ss.socket_path = argv[1];
	if (!segment || arena_create(&arena, &spec, &is_huge, err, sizeof(err)) ||
	        server_create(&server, &ss, err, sizeof(err))) {
		fprintf(stderr, "fixture: %s\n", err);
		return 1;
	}
	arena_fill(&arena);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct pollfd fds[] = {
		        {.fd = STDIN_FILENO, .events = POLLIN}, {.fd = server_fd(server), .events = POLLIN}};

		if (poll(fds, 2, is_moving ? MOVE_MS : -1) < 0 && errno != EINTR)
			return 1;
		if (fds[0].revents && read(STDIN_FILENO, drop, sizeof(drop)) <= 0)
			break;
		server_serve(server);
		if (is_moving)
			move(segment, &arena);
	}
	server_close(server);
	server_destroy(server);
	arena_close(&arena);
	munmap(segment, sizeof(*segment));
	return 0;
}
