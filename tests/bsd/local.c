/* local.c - both ends of a connection in one program, over 127.0.0.1: what one end does is there for the
 * other when the call returns. With --loopback that goes through the service. */
#include "bsd.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

enum { TIMES = 200 };

static struct sockaddr_in loop_addr;

static int listener_make(void)
{
	socklen_t len = sizeof(loop_addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	loop_addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (bind(fd, (struct sockaddr *)&loop_addr, sizeof(loop_addr)) || listen(fd, 64) ||
	        getsockname(fd, (struct sockaddr *)&loop_addr, &len))
		out("no listener: %s", strerror(errno));
	return fd;
}

/* Connects and accepts without waiting. */
static void ends_make(int listener, int *a, int *b)
{
	*a = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(*a, (struct sockaddr *)&loop_addr, sizeof(loop_addr)))
		out("connect: %s", strerror(errno));
	*b = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
}

CASE(accept_finds_what_has_connected)
{
	int listener = listener_make(), good = 0, a, b;

	for (int i = 0; i < TIMES; i++) {
		ends_make(listener, &a, &b);
		good += b >= 0;
		close(a);
		close(b);
	}
	out("good=%d", good);
	close(listener);
}

static void *connect_start(void *arg)
{
	return (void *)(long)connect(*(int *)arg, (struct sockaddr *)&loop_addr, sizeof(loop_addr));
}

/* accept tells that the connection is there, whether or not the thread that made it has come back from
 * connect */
CASE(other_thread_uses_what_is_accepted)
{
	int listener = listener_make(), good = 0, looked = 0, named = 0;

	fcntl(listener, F_SETFL, 0);
	for (int i = 0; i < TIMES; i++) {
		int a = socket(AF_INET, SOCK_STREAM, 0), b;
		struct pollfd p = {.fd = a, .events = POLLIN};
		struct sockaddr_in peer_addr;
		socklen_t len = sizeof(peer_addr);
		pthread_t thread;
		char c;

		if (pthread_create(&thread, NULL, connect_start, &a))
			break;
		b = accept(listener, NULL, NULL);
		switch (i % 3) {
		case 0:
			looked += poll(&p, 1, 0) == 0;
			break;
		case 1:
			named += !getpeername(a, (struct sockaddr *)&peer_addr, &len);
			break;
		default:
			break;
		}
		good += send(b, "x", 1, 0) == 1 && recv(a, &c, 1, 0) == 1;
		pthread_join(thread, NULL);
		close(a);
		close(b);
	}
	out("good=%d looked=%d named=%d", good, looked, named);
	close(listener);
}

CASE(receive_finds_what_was_sent)
{
	int listener = listener_make(), good = 0, asked = 0, looked = 0, a, b, n;
	char buf[16];

	ends_make(listener, &a, &b);
	for (int i = 0; i < TIMES; i++) {
		struct pollfd p = {.fd = b, .events = POLLIN};

		if (send(a, "hello", 5, 0) != 5)
			break;
		switch (i % 3) {
		case 0:
			looked += poll(&p, 1, 0) == 1;
			break;
		case 1:
			asked += !ioctl(b, FIONREAD, &n) && n == 5;
			break;
		default:
			break;
		}
		good += recv(b, buf, sizeof(buf), MSG_DONTWAIT) == 5;
	}
	out("good=%d looked=%d asked=%d", good, looked, asked);
	close(a);
	close(b);
	close(listener);
}

CASE(epoll_finds_what_was_sent)
{
	int listener = listener_make(), set = epoll_create1(0), good = 0, a, b;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	char buf[16];

	ends_make(listener, &a, &b);
	epoll_ctl(set, EPOLL_CTL_ADD, b, &ev);
	for (int i = 0; i < TIMES; i++) {
		if (send(a, "hello", 5, 0) != 5)
			break;
		good += epoll_wait(set, &ev, 1, 0) == 1 && recv(b, buf, sizeof(buf), 0) == 5;
	}
	out("good=%d none=%d", good, epoll_wait(set, &ev, 1, 0));
	close(a);
	close(b);
	close(set);
	close(listener);
}

/* What is written first arrives first, on whichever connection: a program may tell one server something on
 * one connection and count on it with the next. */
CASE(connections_keep_their_order)
{
	enum { PAIRS = 6, ROUNDS = 100 };
	int listener = listener_make(), set = epoll_create1(0), a[PAIRS], b[PAIRS], in_order = 0;
	char buf[16];

	for (int i = 0; i < PAIRS; i++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)i};

		ends_make(listener, &a[i], &b[i]);
		epoll_ctl(set, EPOLL_CTL_ADD, b[i], &ev);
	}
	for (int round = 0; round < ROUNDS; round++) {
		int next = 0, good = 0;

		for (int i = 0; i < PAIRS; i++)
			if (send(a[(round + i) % PAIRS], "hello", 5, 0) != 5)
				out("send: %s", strerror(errno));
		while (next < PAIRS) {
			struct epoll_event ev[PAIRS];
			int n = epoll_wait(set, ev, PAIRS, 2000);

			if (n <= 0)
				break;
			for (int i = 0; i < n; i++, next++)
				good += ev[i].data.u32 == (uint32_t)((round + next) % PAIRS) &&
				        recv(b[ev[i].data.u32], buf, sizeof(buf), MSG_DONTWAIT) == 5;
		}
		in_order += good == PAIRS;
	}
	/* of a pair of calls that the stack looks between, the second may be early */
	out("in_order=%d", in_order > ROUNDS / 2);
	for (int i = 0; i < PAIRS; i++) {
		close(a[i]);
		close(b[i]);
	}
	close(set);
	close(listener);
}

CASE(receive_finds_the_end_and_the_reset)
{
	int listener = listener_make(), ends = 0, resets = 0, a, b;
	struct linger lg = {1, 0};
	char buf[16];

	for (int i = 0; i < TIMES; i++) {
		ends_make(listener, &a, &b);
		if (i % 2)
			setsockopt(a, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
		close(a);
		if (i % 2)
			resets += recv(b, buf, sizeof(buf), 0) < 0 && errno == ECONNRESET;
		else
			ends += recv(b, buf, sizeof(buf), 0) == 0;
		close(b);
	}
	out("ends=%d resets=%d", ends, resets);
	close(listener);
}

CASE(datagram_is_there_when_it_was_sent)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0), good = 0, refused = 0;
	socklen_t len = sizeof(to);
	char buf[16];

	bind(b, (struct sockaddr *)&to, sizeof(to));
	getsockname(b, (struct sockaddr *)&to, &len);
	for (int i = 0; i < TIMES; i++) {
		if (sendto(a, "hello", 5, 0, (struct sockaddr *)&to, sizeof(to)) != 5)
			break;
		good += recv(b, buf, sizeof(buf), MSG_DONTWAIT) == 5;
	}
	connect(a, (struct sockaddr *)&to, sizeof(to));
	close(b);
	for (int i = 0; i < 10; i++) {
		if (send(a, "hello", 5, 0) == 5)
			refused += recv(a, buf, sizeof(buf), MSG_DONTWAIT) < 0 && errno == ECONNREFUSED;
	}
	out("good=%d refused=%d", good, refused);
	close(a);
}
