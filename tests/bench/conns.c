/* conns.c - connections by number: how fast they come and go, what many idle ones cost, how long a sleeper
 * takes to wake.
 *
 *   conns serve ADDRESS PORT PORTS                         echoes on PORTS ports from PORT on, for ever
 *   conns rate ADDRESS PORT PORTS COUNT AT_ONCE            COUNT times: connect, a byte each way, close;
 * AT_ONCE at a time (1: blocking calls, more: epoll) conns wake ADDRESS PORT COUNT PAUSE_US COUNT times:
 * pause, 16 bytes there and back conns hold ADDRESS PORT PORTS COUNT                    opens COUNT
 * connections and prints "open"; then does what lines of standard input say: "first K SECONDS" asks the first
 * K connections, "spread K SECONDS" any K at random, all K at once, again and again; "ask N" asks N random
 * ones once; "quit". After each: "done". Results are lines "NAME VALUE". Whatever is not as it should be ends
 * the program with a message. One thread; the server is one level-triggered epoll loop.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "histogram.h"

enum { EVENTS = 256, MESSAGE = 16, OPENING = 128 };

static struct sockaddr_in target;
static unsigned port_first, ports = 1;
static struct histogram latency;
static int ep;

static void fail(const char *what)
{
	fprintf(stderr, "conns: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void watch(int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};

	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e))
		fail("epoll_ctl");
}

/* --- server --- */

static int listen_at(unsigned port)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	target.sin_port = htons((uint16_t)port);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
	        bind(fd, (void *)&target, sizeof target) || listen(fd, 4096))
		fail("listen");
	return fd;
}

static void accept_all(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

		if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
			return;
		if (fd < 0)
			fail("accept");
		watch(fd, EPOLLIN, (uint64_t)fd);
	}
}

static void echo(int fd)
{
	char bytes[4096];
	ssize_t n = recv(fd, bytes, sizeof bytes, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0 && send(fd, bytes, (size_t)n, MSG_NOSIGNAL) == n)
		return;
	close(fd);
}

static void serve(void)
{
	struct epoll_event events[EVENTS];

	for (unsigned i = 0; i < ports; i++) {
		int fd = listen_at(port_first + i);

		watch(fd, EPOLLIN, (uint64_t)fd | 1ull << 32);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);

		if (n < 0 && errno != EINTR)
			fail("epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].data.u64 >> 32)
				accept_all((int)(uint32_t)events[i].data.u64);
			else
				echo((int)events[i].data.u64);
		}
	}
}

/* --- rate --- */

static int dial(int flags, uint64_t number)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);

	if (fd < 0)
		fail("socket");
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
		fail("TCP_NODELAY");
	target.sin_port = htons((uint16_t)(port_first + number % ports));
	if (connect(fd, (void *)&target, sizeof target) && errno != EINPROGRESS)
		fail("connect");
	return fd;
}

/* begin: one connection before the clock runs, so that what a process does once (join a service, start a
 * stack) is not measured */
static void begin(void)
{
	char byte = 'x';
	int fd = dial(0, 0);

	if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
		fail("the first byte there and back");
	close(fd);
}

static void rate_print(uint64_t count, uint64_t start)
{
	printf("ops %.1f\ncount %llu\n", (double)count * 1e9 / (double)(bench_now_ns() - start),
	        (unsigned long long)count);
	histogram_print(&latency);
}

static void rate_blocking(uint64_t count)
{
	uint64_t start, before, now;

	begin();
	start = before = bench_now_ns();
	for (uint64_t i = 0; i < count; i++) {
		int fd = dial(0, i);
		char byte = 'x';

		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			fail("a byte there and back");
		close(fd);
		now = bench_now_ns();
		histogram_add(&latency, now - before);
		before = now;
	}
	rate_print(count, start);
}

struct dialled {
	int fd;
	int is_connected;
	uint64_t start;
};

static void rate(uint64_t count, unsigned at_once)
{
	struct dialled *slot = calloc(at_once, sizeof *slot);
	struct epoll_event events[EVENTS];
	uint64_t start, begun = 0, over = 0;

	if (!slot)
		fail("memory");
	begin();
	start = bench_now_ns();
	for (unsigned i = 0; i < at_once && begun < count; i++) {
		slot[i] = (struct dialled){.start = bench_now_ns(), .fd = dial(SOCK_NONBLOCK, begun++)};
		watch(slot[i].fd, EPOLLOUT, i);
	}
	while (over < count) {
		int n = epoll_wait(ep, events, EVENTS, 10000);

		if (n <= 0)
			fail("nothing happens for 10 s");
		for (int i = 0; i < n; i++) {
			uint64_t number = events[i].data.u64;
			struct dialled *d = &slot[number];
			char byte = 'x';

			if (!d->is_connected) {
				struct epoll_event e = {.events = EPOLLIN, .data.u64 = number};

				if (send(d->fd, &byte, 1, MSG_NOSIGNAL) != 1)
					fail("connect or send");
				d->is_connected = 1;
				if (epoll_ctl(ep, EPOLL_CTL_MOD, d->fd, &e))
					fail("epoll_ctl");
				continue;
			}
			if (recv(d->fd, &byte, 1, 0) != 1)
				fail("receive");
			close(d->fd);
			over++;
			histogram_add(&latency, bench_now_ns() - d->start);
			if (begun < count) {
				*d = (struct dialled){
				        .start = bench_now_ns(), .fd = dial(SOCK_NONBLOCK, begun++)};
				watch(d->fd, EPOLLOUT, number);
			}
		}
	}
	rate_print(count, start);
	free(slot);
}

/* --- wake --- */

static void wake(uint64_t count, unsigned pause_us)
{
	char bytes[MESSAGE] = "wake";
	int fd = dial(0, 0);

	for (uint64_t i = 0; i < count; i++) {
		uint64_t start;

		usleep(pause_us);
		start = bench_now_ns();
		if (send(fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes ||
		        recv(fd, bytes, sizeof bytes, MSG_WAITALL) != (ssize_t)sizeof bytes)
			fail("a message there and back");
		histogram_add(&latency, bench_now_ns() - start);
	}
	close(fd);
	histogram_print(&latency);
}

/* --- hold --- */

static int *conn; /* descriptors of the connections that are open */
static uint64_t conns;
static uint64_t random_state = 88172645463325252ull;

static uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % limit;
}

static void open_all(uint64_t count)
{
	struct epoll_event events[EVENTS];
	uint64_t begun = 0, start;

	conn = calloc(count, sizeof *conn);
	if (!conn)
		fail("memory");
	begin();
	start = bench_now_ns();
	while (conns < count) {
		int n;

		for (; begun < count && begun < conns + OPENING; begun++) {
			conn[begun] = dial(SOCK_NONBLOCK, begun);
			watch(conn[begun], EPOLLOUT, begun);
		}
		n = epoll_wait(ep, events, EVENTS, 20000);
		if (n <= 0)
			fail("no connection for 20 s");
		for (int i = 0; i < n; i++) {
			uint64_t number = events[i].data.u64;
			struct epoll_event e = {.events = EPOLLIN, .data.u64 = number};
			socklen_t size = sizeof(int);
			int error = 0;

			if (getsockopt(conn[number], SOL_SOCKET, SO_ERROR, &error, &size) || error) {
				errno = error;
				fail("connect");
			}
			if (epoll_ctl(ep, EPOLL_CTL_MOD, conn[number], &e))
				fail("epoll_ctl");
			conns++;
		}
	}
	printf("opened_per_s %.0f\nopen\n", (double)count * 1e9 / (double)(bench_now_ns() - start));
	fflush(stdout);
}

/* round_of: asks COUNT connections at once and takes all answers; a connection may be drawn twice */
static void round_of(uint64_t count, uint64_t among)
{
	struct epoll_event events[EVENTS];
	uint64_t start = bench_now_ns(), waits = 0;
	char bytes[EVENTS * MESSAGE] = "question";
	static unsigned *asked; /* for each connection: how many bytes are to come */

	if (!asked)
		asked = calloc(conns, sizeof *asked);
	if (!asked || count > EVENTS)
		fail("memory");

	for (uint64_t i = 0; i < count; i++) {
		uint64_t number = among == count ? i : random_below(among);

		if (send(conn[number], bytes, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
			fail("send");
		asked[number] += MESSAGE;
		waits += MESSAGE;
	}
	while (waits) {
		int n = epoll_wait(ep, events, EVENTS, 10000);

		if (n <= 0)
			fail("no answer for 10 s");
		for (int i = 0; i < n; i++) {
			uint64_t number = events[i].data.u64;
			ssize_t got = recv(conn[number], bytes, sizeof bytes, 0);

			if (got <= 0 || (unsigned)got > asked[number])
				fail("an answer that nobody asked for");
			asked[number] -= (unsigned)got;
			waits -= (uint64_t)got;
			histogram_add(&latency, bench_now_ns() - start);
		}
	}
}

static void rounds(uint64_t count, uint64_t among, double seconds)
{
	uint64_t start = bench_now_ns(), end = start + (uint64_t)(seconds * 1e9), now = start, answers = 0;

	memset(&latency, 0, sizeof latency);
	if (count > among)
		count = among;
	for (; now < end; now = bench_now_ns()) {
		round_of(count, among);
		answers += count;
	}
	printf("ops %.0f\ncount %llu\n", (double)answers * 1e9 / (double)(now - start),
	        (unsigned long long)answers);
	histogram_print(&latency);
}

static void ask_random(uint64_t count)
{
	uint64_t left = count;

	memset(&latency, 0, sizeof latency);
	while (left) {
		uint64_t now = left < 100 ? left : 100;

		round_of(now, conns);
		left -= now;
	}
	printf("answered %llu\n", (unsigned long long)count);
	histogram_print(&latency);
}

static void hold(uint64_t count)
{
	char line[128];

	open_all(count);
	while (fgets(line, sizeof line, stdin)) {
		unsigned long long n;
		double seconds;

		if (sscanf(line, "first %llu %lf", &n, &seconds) == 2)
			rounds(n, n, seconds);
		else if (sscanf(line, "spread %llu %lf", &n, &seconds) == 2)
			rounds(n, conns, seconds);
		else if (sscanf(line, "ask %llu", &n) == 1)
			ask_random(n);
		else
			break;
		printf("done\n");
		fflush(stdout);
	}
}

/* as many files as the limits allow */
static void files_raise(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: conns serve ADDRESS PORT PORTS\n"
	                "       conns rate ADDRESS PORT PORTS COUNT AT_ONCE\n"
	                "       conns wake ADDRESS PORT COUNT PAUSE_US\n"
	                "       conns hold ADDRESS PORT PORTS COUNT\n");
	return 2;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return usage();
	target.sin_family = AF_INET;
	port_first = (unsigned)atoi(argv[3]);
	if (inet_pton(AF_INET, argv[2], &target.sin_addr) != 1 || !port_first || port_first > 65535)
		return usage();
	files_raise();
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0)
		fail("epoll_create1");
	if (!strcmp(argv[1], "wake") && argc == 6) {
		wake(strtoull(argv[4], NULL, 0), (unsigned)atoi(argv[5]));
		return 0;
	}
	ports = (unsigned)atoi(argv[4]);
	if (!ports || port_first + ports > 65536)
		return usage();
	if (!strcmp(argv[1], "serve") && argc == 5)
		serve();
	else if (!strcmp(argv[1], "rate") && argc == 7 && atoi(argv[6]) == 1)
		rate_blocking(strtoull(argv[5], NULL, 0));
	else if (!strcmp(argv[1], "rate") && argc == 7 && atoi(argv[6]) > 1)
		rate(strtoull(argv[5], NULL, 0), (unsigned)atoi(argv[6]));
	else if (!strcmp(argv[1], "hold") && argc == 6)
		hold(strtoull(argv[5], NULL, 0));
	else
		return usage();
	return 0;
}
