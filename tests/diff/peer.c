/* peer.c - the other end of every connection: a kernel program that does what a sequence tells it.
 *
 * One process for each control connection (AF_UNIX, SOCK_SEQPACKET; struct peer_cmd in, struct peer_answer
 * out), so that a worker's sockets end with it. Beside commands it answers the barrier: each byte on the
 * first connection to its listener comes back.
 */
#include "diff.h"

#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/un.h>

static int sockets[PEERS];
static int listener = -1, barrier_fd = -1, udp[2] = {-1, -1};

static bool wait_for(int fd, short events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (poll(&p, 1, ms) > 0)
		return true;
	errno = ETIMEDOUT;
	return false;
}

static int remember(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 1; i < PEERS; i++)
		if (sockets[i] < 0) {
			sockets[i] = fd;
			return i;
		}
	close(fd);
	return -ENFILE;
}

static int port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	return getsockname(fd, (struct sockaddr *)&a, &len) < 0 ? 0 : ntohs(a.sin_port);
}

static void do_hello(struct peer_answer *r)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = setup.peer};

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	        listen(listener, 64) < 0) {
		r->rc = -errno;
		return;
	}
	r->value = port_of(listener);
}

static void do_accept(struct peer_answer *r)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int fd;

	if (!wait_for(listener, POLLIN, LIMIT_MS) ||
	        (fd = accept4(listener, (struct sockaddr *)&a, &len, SOCK_CLOEXEC)) < 0) {
		r->rc = -errno;
		return;
	}
	r->value = ntohs(a.sin_port);
	r->rc = remember(fd);
}

static void do_connect(struct peer_answer *r, int port)
{
	struct sockaddr_in to = {
	        .sin_family = AF_INET, .sin_addr = setup.own, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;
	socklen_t len = sizeof(err);

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		err = errno;
	else if (!wait_for(fd, POLLOUT, LIMIT_MS))
		err = ETIMEDOUT;
	else
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		close(fd);
		r->rc = -err;
		return;
	}
	r->value = port_of(fd);
	r->rc = remember(fd);
}

static void do_send(struct peer_answer *r, int fd, const struct peer_cmd *c)
{
	static uint8_t buf[65536];
	uint32_t x = c->key | 1;
	size_t done = 0;

	while (done < (size_t)c->value) {
		size_t part = (size_t)c->value - done < sizeof(buf) ? (size_t)c->value - done : sizeof(buf);
		size_t at = 0;

		for (size_t i = 0; i < part; i++) {
			x = x * 1664525 + 1013904223;
			buf[i] = (uint8_t)(x >> 24);
		}
		while (at < part) {
			ssize_t n = send(fd, buf + at, part - at, MSG_NOSIGNAL | MSG_DONTWAIT);

			if (n < 0 && errno == EAGAIN && wait_for(fd, POLLOUT, LIMIT_MS))
				continue;
			if (n < 0) {
				r->rc = -errno;
				r->size = (uint32_t)(done + at);
				return;
			}
			at += (size_t)n;
		}
		done += part;
	}
	r->size = (uint32_t)done;
}

static void do_recv(struct peer_answer *r, int fd, size_t want)
{
	static uint8_t buf[65536];
	size_t got = 0;

	r->hash = 2166136261u;
	while (got < want) {
		size_t part = want - got < sizeof(buf) ? want - got : sizeof(buf);
		ssize_t n;

		if (!wait_for(fd, POLLIN, LIMIT_MS)) {
			r->end = ETIMEDOUT;
			break;
		}
		n = recv(fd, buf, part, MSG_DONTWAIT);
		if (n <= 0) {
			r->end = n ? errno : 1;
			break;
		}
		for (ssize_t i = 0; i < n; i++)
			r->hash = (r->hash ^ buf[i]) * 16777619u;
		got += (size_t)n;
	}
	r->size = (uint32_t)got;
}

/* value: bytes that will come; key: whether an end will. Waits for both. */
static void do_probe(struct peer_answer *r, int fd, const struct peer_cmd *c)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
	int have = 0;

	for (int i = 0; i < 30000; i++) {
		ioctl(fd, FIONREAD, &have);
		poll(&p, 1, 0);
		/* a reset shows its bits one after the other */
		if ((p.revents & POLLHUP && p.revents & POLLRDHUP) ||
		        (have >= c->value && (!c->key || (c->key == 1 && (p.revents & POLLRDHUP)))))
			break;
		nap_us(100);
	}
	/* once more: the end may have come between the two looks */
	ioctl(fd, FIONREAD, &have);
	r->size = (uint32_t)have;
	r->value = p.revents;
}

static void do_udp_port(struct peer_answer *r, int which)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = setup.peer};

	if (udp[which] < 0)
		udp[which] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (!port_of(udp[which]) && bind(udp[which], (struct sockaddr *)&a, sizeof(a)) < 0)
		r->rc = -errno;
	r->value = port_of(udp[which]);
}

static void do_udp_send(struct peer_answer *r, int fd, const struct peer_cmd *c)
{
	static uint8_t buf[65536];
	struct sockaddr_in to = {.sin_family = AF_INET,
	        .sin_addr = setup.own,
	        .sin_port = htons((uint16_t)(c->value & 0xffff))};
	uint32_t x = c->key | 1;
	size_t size = (uint32_t)c->value >> 16;

	for (size_t i = 0; i < size; i++) {
		x = x * 1664525 + 1013904223;
		buf[i] = (uint8_t)(x >> 24);
	}
	if (sendto(fd, buf, size, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		r->rc = -errno;
}

/* Waits for as many as will come; more than that are taken, too. */
static void do_udp_take(struct peer_answer *r, int fd, int want)
{
	static uint8_t buf[65536];

	r->hash = 2166136261u;
	while (wait_for(fd, POLLIN, r->rc < want ? 400 : 0)) {
		struct sockaddr_in from = {0};
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len);

		if (n < 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			r->hash = (r->hash ^ buf[i]) * 16777619u;
		r->hash = (r->hash ^ (uint32_t)n) * 16777619u;
		r->size += (uint32_t)n;
		r->value = ntohs(from.sin_port);
		r->rc++;
	}
}

static void run(const struct peer_cmd *c, struct peer_answer *r)
{
	struct linger hard = {1, 0};
	int fd = c->id > 0 && c->id < PEERS ? sockets[c->id] : -1;

	switch (c->verb) {
	case PEER_HELLO:
		do_hello(r);
		return;
	case PEER_ACCEPT:
		do_accept(r);
		return;
	case PEER_CONNECT:
		do_connect(r, c->value);
		return;
	case PEER_FORGET:
		for (int i = 1; i < PEERS; i++)
			if (sockets[i] >= 0) {
				setsockopt(sockets[i], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
				close(sockets[i]);
				sockets[i] = -1;
			}
		while (wait_for(listener, POLLIN, 0))
			close(accept(listener, NULL, NULL));
		for (int i = 0; i < 2; i++)
			while (udp[i] >= 0 && recv(udp[i], &hard, 1, MSG_DONTWAIT) >= 0)
				;
		return;
	case PEER_UDP_PORT:
		do_udp_port(r, c->id);
		return;
	case PEER_UDP_SEND:
		do_udp_send(r, udp[c->id], c);
		return;
	case PEER_UDP_TAKE:
		do_udp_take(r, udp[c->id], c->value);
		return;
	default:
		break;
	}
	if (fd < 0) {
		r->rc = -EBADF;
		return;
	}
	switch (c->verb) {
	case PEER_SEND:
		do_send(r, fd, c);
		break;
	case PEER_RECV:
		do_recv(r, fd, (size_t)c->value);
		break;
	case PEER_DRAIN:
		do_recv(r, fd, SIZE_MAX);
		break;
	case PEER_SHUT:
		r->rc = shutdown(fd, c->value) < 0 ? -errno : 0;
		break;
	case PEER_RESET:
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(fd);
		sockets[c->id] = -1;
		break;
	case PEER_CLOSE:
		close(fd);
		sockets[c->id] = -1;
		break;
	case PEER_PROBE:
		do_probe(r, fd, c);
		break;
	default:
		r->rc = -EINVAL;
	}
}

static void barrier_turn(void)
{
	char buf[64];
	ssize_t n = recv(barrier_fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0 && send(barrier_fd, buf, (size_t)n, MSG_NOSIGNAL) == n)
		return;
	if (n < 0 && errno == EAGAIN)
		return;
	close(barrier_fd);
	barrier_fd = -1;
}

static void session(int control)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct pollfd p[2] = {
		        {.fd = control, .events = POLLIN}, {.fd = barrier_fd, .events = POLLIN}};
		struct peer_answer r = {0};
		struct peer_cmd c;
		int one = 1;

		if (poll(p, 2, -1) < 0)
			break;
		if (p[1].revents)
			barrier_turn();
		if (!p[0].revents)
			continue;
		if (recv(control, &c, sizeof(c), 0) != sizeof(c))
			break;
		if (c.delay_us)
			nap_us(c.delay_us);
		run(&c, &r);
		if (send(control, &r, sizeof(r), MSG_NOSIGNAL) != sizeof(r))
			break;
		if (c.verb == PEER_HELLO && wait_for(listener, POLLIN, LIMIT_MS)) {
			barrier_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			setsockopt(barrier_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		}
	}
	_exit(0);
}

int peer_main(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(un.sun_path))
		return 2;
	strcpy(un.sun_path, path);
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	for (int i = 0; i < PEERS; i++)
		sockets[i] = -1;
	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 64) < 0) {
		fprintf(stderr, "diff peer: %s: %s\n", path, strerror(errno));
		return 1;
	}
	for (;;) {
		int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

		if (c >= 0 && fork() == 0) {
			close(fd);
			session(c);
		}
		close(c);
	}
}
