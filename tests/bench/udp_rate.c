/* udp_rate.c - how many small datagrams per second arrive, and how many are sent.
 *
 *   udp_rate sink ADDRESS PORT BATCH                       receives for ever
 *   udp_rate flood ADDRESS PORT BATCH SIZE SECONDS         sends, then asks the sink what arrived, and prints
 * both
 *
 * BATCH 1 is plain sendto and recvfrom; more is sendmmsg and recvmmsg of so many. The sink counts data
 * datagrams ('D') and answers each question ('E') with the count since the last reset ('R') and the time from
 * the first to the last, so the rate that is printed is what was delivered. Blocking sockets; one thread
 * each. The sink ends by a signal.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "histogram.h"

enum { BATCH_MAX = 256, SIZE_MAX_UDP = 1472 };

struct answer {
	char kind; /* 'A' */
	char pad[7];
	uint64_t count, span_ns;
};

static unsigned batch, size;
static struct mmsghdr msg[BATCH_MAX];
static struct iovec iov[BATCH_MAX];
static char data[BATCH_MAX][SIZE_MAX_UDP];
static struct sockaddr_in from[BATCH_MAX];
static struct sockaddr_in peer;

static void fail(const char *what)
{
	fprintf(stderr, "udp_rate: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t counted, first_ns, last_ns;

static void take(int fd, const char *bytes, ssize_t bytes_size, const struct sockaddr_in *asker, uint64_t now)
{
	struct answer a = {.kind = 'A'};

	if (bytes_size < 1)
		return;
	if (bytes[0] == 'D') {
		if (!counted++)
			first_ns = now;
		last_ns = now;
		return;
	}
	if (bytes[0] == 'R')
		counted = 0;
	a.count = counted;
	a.span_ns = counted ? last_ns - first_ns : 0;
	if (sendto(fd, &a, sizeof a, 0, (const void *)asker, sizeof *asker) < 0)
		fail("answer");
}

static void sink(int fd)
{
	if (bind(fd, (void *)&peer, sizeof peer))
		fail("bind");
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		uint64_t now;
		int n;

		if (batch == 1) {
			socklen_t from_size = sizeof from[0];
			ssize_t got = recvfrom(fd, data[0], sizeof data[0], 0, (void *)&from[0], &from_size);

			if (got < 0 && errno != EINTR)
				fail("recvfrom");
			if (got >= 0)
				take(fd, data[0], got, &from[0], bench_now_ns());
			continue;
		}
		for (unsigned i = 0; i < batch; i++)
			msg[i].msg_hdr.msg_namelen = sizeof from[0];
		n = recvmmsg(fd, msg, batch, MSG_WAITFORONE, NULL);
		if (n < 0 && errno != EINTR)
			fail("recvmmsg");
		now = bench_now_ns();
		for (int i = 0; i < n; i++)
			take(fd, data[i], msg[i].msg_len, &from[i], now);
	}
}

/* ask: until the sink has answered */
static struct answer ask(int fd, char kind)
{
	struct answer a;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (int i = 0; i < 50; i++) {
		if (sendto(fd, &kind, 1, 0, (void *)&peer, sizeof peer) < 0 && errno != ECONNREFUSED)
			fail("question");
		if (poll(&p, 1, 100) > 0 && recv(fd, &a, sizeof a, 0) == (ssize_t)sizeof a && a.kind == 'A') {
			while (poll(&p, 1, 0) > 0)
				if (recv(fd, data[0], sizeof data[0], MSG_DONTWAIT) < 0)
					break;
			return a;
		}
	}
	fprintf(stderr, "udp_rate: the sink does not answer\n");
	exit(1);
}

static void flood(int fd, double seconds)
{
	uint64_t start, end, sent = 0, now, refused = 0;
	struct answer a;

	ask(fd, 'R');
	for (unsigned i = 0; i < batch; i++)
		data[i][0] = 'D';
	start = now = bench_now_ns();
	end = start + (uint64_t)(seconds * 1e9);
	while (now < end) {
		for (int i = 0; i < 64; i++) {
			if (batch == 1) {
				if (sendto(fd, data[0], size, 0, (void *)&peer, sizeof peer) < 0)
					refused++;
				else
					sent++;
			} else {
				int n = sendmmsg(fd, msg, batch, 0);

				if (n < 0)
					refused++;
				else
					sent += (unsigned)n;
			}
		}
		now = bench_now_ns();
	}
	usleep(50000);
	a = ask(fd, 'E');
	if (a.count < 2) {
		fprintf(stderr, "udp_rate: nothing arrived of %llu\n", (unsigned long long)sent);
		exit(1);
	}
	printf("sent_ops %.0f\nops %.0f\ncount %llu\nlost_percent %.3f\nrefused %llu\n",
	        (double)sent * 1e9 / (double)(now - start), (double)a.count * 1e9 / (double)a.span_ns,
	        (unsigned long long)a.count, 100.0 * (1 - (double)a.count / (double)sent),
	        (unsigned long long)refused);
}

int main(int argc, char **argv)
{
	int fd, is_sink = argc == 5 && !strcmp(argv[1], "sink");

	if (!is_sink && (argc != 7 || strcmp(argv[1], "flood") != 0)) {
		fprintf(stderr,
		        "usage: udp_rate sink ADDRESS PORT BATCH\n       udp_rate flood ADDRESS PORT BATCH SIZE SECONDS\n");
		return 2;
	}
	peer.sin_family = AF_INET;
	peer.sin_port = htons((uint16_t)atoi(argv[3]));
	batch = (unsigned)atoi(argv[4]);
	size = is_sink ? SIZE_MAX_UDP : (unsigned)atoi(argv[5]);
	if (inet_pton(AF_INET, argv[2], &peer.sin_addr) != 1 || !batch || batch > BATCH_MAX || !size ||
	        size > SIZE_MAX_UDP) {
		fprintf(stderr, "udp_rate: bad argument\n");
		return 2;
	}
	for (unsigned i = 0; i < batch; i++) {
		iov[i] = (struct iovec){data[i], size};
		msg[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
		msg[i].msg_hdr.msg_name = is_sink ? &from[i] : &peer;
		msg[i].msg_hdr.msg_namelen = sizeof peer;
	}
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		fail("socket");
	if (is_sink)
		sink(fd);
	flood(fd, atof(argv[6]));
	return 0;
}
