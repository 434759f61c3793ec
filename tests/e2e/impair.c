/* impair.c - a link that loses, doubles and reorders: forwards frames between two interfaces of its
 * namespace.
 *
 *   impair A B LOSS DUP REORDER HOLD_US SEED
 *
 * LOSS, DUP and REORDER are chances in a thousand for each IPv4 frame, in both directions; a reordered one is
 * held for HOLD_US microseconds, so that others overtake it. ARP always passes. The same seed makes the same
 * choices for the same sequence of frames. Both ends must send whole frames with checksums: no segmentation
 * or checksum offload. One thread. Ends at SIGTERM, with a line of what was done.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_MAX = 9216, HELD_MAX = 8192 };

struct held {
	uint64_t due_us;
	int to;
	size_t size;
	uint8_t *frame;
};

/* All are held for the same time, so the oldest is due first. */
static struct held held[HELD_MAX];
static unsigned held_head, held_tail;

static int side[2];
static unsigned loss, dup_chance, reorder, hold_us;
static uint64_t random_state;
static unsigned long passed, lost, doubled, reordered;
static volatile sig_atomic_t is_over;

static void over(int signal)
{
	(void)signal;
	is_over = 1;
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/* splitmix64: a good mixer of a counter */
static unsigned chance(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (unsigned)((z ^ z >> 31) % 1000);
}

static int port_open(const char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
	        .sll_protocol = htons(ETH_P_ALL),
	        .sll_ifindex = (int)if_nametoindex(name)};
	struct packet_mreq all = {.mr_ifindex = at.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
	int one = 1, size = 8 << 20, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));

	if (fd < 0 || !at.sll_ifindex || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) < 0 ||
	        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0) {
		perror(name);
		exit(1);
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return fd;
}

static void forward(int to, const uint8_t *frame, size_t size)
{
	struct pollfd p = {.fd = side[to], .events = POLLOUT};

	while (send(side[to], frame, size, 0) < 0) {
		if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
			return;
		poll(&p, 1, 1);
	}
	passed++;
}

static void hold(int to, const uint8_t *frame, size_t size)
{
	struct held *h = &held[held_tail % HELD_MAX];

	if (held_tail - held_head == HELD_MAX || !(h->frame = malloc(size))) {
		forward(to, frame, size);
		return;
	}
	memcpy(h->frame, frame, size);
	h->size = size;
	h->to = to;
	h->due_us = now_us() + hold_us;
	held_tail++;
	reordered++;
}

static void take(int from)
{
	static uint8_t frame[FRAME_MAX];
	ssize_t n;

	for (int i = 0; i < 64 && (n = recv(side[from], frame, sizeof(frame), 0)) > 0; i++) {
		int to = !from;
		uint16_t type;

		if (n < ETH_HLEN)
			continue;
		memcpy(&type, frame + 12, sizeof(type));
		if (type != htons(ETH_P_IP)) {
			forward(to, frame, (size_t)n);
			continue;
		}
		if (chance() < loss) {
			lost++;
			continue;
		}
		if (chance() < dup_chance) {
			doubled++;
			forward(to, frame, (size_t)n);
		}
		if (chance() < reorder)
			hold(to, frame, (size_t)n);
		else
			forward(to, frame, (size_t)n);
	}
}

int main(int argc, char **argv)
{
	struct sigaction end = {.sa_handler = over};

	if (argc != 8) {
		fprintf(stderr, "usage: impair A B LOSS DUP REORDER HOLD_US SEED\n");
		return 2;
	}
	side[0] = port_open(argv[1]);
	side[1] = port_open(argv[2]);
	loss = (unsigned)atoi(argv[3]);
	dup_chance = (unsigned)atoi(argv[4]);
	reorder = (unsigned)atoi(argv[5]);
	hold_us = (unsigned)atoi(argv[6]);
	random_state = strtoull(argv[7], NULL, 10);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	while (!is_over) {
		struct pollfd p[2] = {{.fd = side[0], .events = POLLIN}, {.fd = side[1], .events = POLLIN}};
		struct timespec wait = {.tv_sec = 1};

		if (held_head != held_tail) {
			uint64_t now = now_us(), due = held[held_head % HELD_MAX].due_us;

			wait = (struct timespec){.tv_nsec = due > now ? (long)(due - now) * 1000 : 0};
		}
		if (ppoll(p, 2, &wait, NULL) < 0 && errno != EINTR)
			break;
		for (uint64_t now = now_us(); held_head != held_tail; held_head++) {
			struct held *h = &held[held_head % HELD_MAX];

			if (h->due_us > now)
				break;
			forward(h->to, h->frame, h->size);
			free(h->frame);
		}
		take(0);
		take(1);
	}
	printf("%lu frames passed, %lu lost, %lu doubled, %lu reordered\n", passed, lost, doubled, reordered);
	return 0;
}
