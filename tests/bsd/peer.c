/* peer.c - bsd_peer, the other end of every connection: does on command what a test needs, through the
 * kernel's stack.
 *
 * Called with the path of a control socket (AF_UNIX, SOCK_SEQPACKET) and the address it binds to and the
 * address it connects to. One process per control connection, so a test's sockets end with it. A command is
 * one packet of text and gets one packet back: "ok ..." or an errno's name. Sockets are numbered.
 *
 *   listen PORT BACKLOG RCVBUF     ok ID PORT        connect PORT RCVBUF    ok ID PORT
 *   accept ID                      ok ID PORT        send ID BYTES          ok SENT (pattern, position goes
 * on) text ID WORD                   ok                recv ID BYTES          ok GOT END MATCH (END: more,
 * eof or an errno) show ID BYTES                  ok END TEXT       drain ID               ok GOT END MATCH
 *   shut ID HOW                    ok                close ID, reset ID     ok
 *   peek ID                            ok BYTES that wait, untouched
 *   echo ID                        ok BYTES          churn PORT COUNT BYTES ok COUNT
 *   gulp ID COUNT BYTES            ok GOT: accepts COUNT times, reads BYTES each, answers with one byte,
 * closes serve ID                       ok BYTES END MATCH: accepts one connection and drains it after MS
 * COMMAND               ok at once; the command runs later and its reply is dropped
 *
 * Datagrams (a word may not have blanks; every datagram of a size holds the pattern from its start):
 *   udp PORT ANY                   ok ID PORT        udp_text ID PORT WORD  ok
 *   udp_send ID PORT BYTES COUNT   ok                udp_recv ID            ok SIZE PORT MATCH TTL TOS
 *   udp_show ID                    ok SIZE PORT TEXT udp_echo ID COUNT      ok COUNT
 *   udp_quiet ID MS                ok, or "got SIZE" udp_join ID GROUP      ok
 *   udp_group ID PORT GROUP WORD   ok: to a group or a broadcast address
 */
#include "bsd.h"

#include <sys/un.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

enum { SOCKETS = 64, WAIT_MS = 15000 };

struct peer_socket {
	int fd;
	size_t sent, got;
};

static struct peer_socket sockets[SOCKETS];
static const char *own_ip, *other_ip;
static char answer[4096];

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(answer, sizeof(answer), format, ap);
	va_end(ap);
}

static void say_errno(void)
{
	say("%s", strerrorname_np(errno));
}

static struct sockaddr_in address(const char *ip, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	inet_pton(AF_INET, ip, &a.sin_addr);
	return a;
}

static int id_new(int fd)
{
	for (int i = 1; i < SOCKETS; i++)
		if (sockets[i].fd < 0) {
			sockets[i] = (struct peer_socket){.fd = fd};
			return i;
		}
	close(fd);
	return -1;
}

static struct peer_socket *by_id(int id)
{
	return id > 0 && id < SOCKETS ? &sockets[id] : &sockets[0];
}

static int port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	return getsockname(fd, (struct sockaddr *)&a, &len) < 0 ? 0 : ntohs(a.sin_port);
}

static bool can(int fd, short events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (poll(&p, 1, ms) > 0)
		return true;
	errno = ETIMEDOUT;
	return false;
}

static int socket_new(int rcvbuf)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	return fd;
}

static void do_listen(int port, int backlog, int rcvbuf)
{
	struct sockaddr_in a = address(own_ip, port);
	int fd = socket_new(rcvbuf);

	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, backlog) < 0) {
		say_errno();
		close(fd);
		return;
	}
	port = port_of(fd);
	say("ok %d %d", id_new(fd), port);
}

/* A connected descriptor, or -1 with errno. */
static int connect_to(int port, int rcvbuf)
{
	struct sockaddr_in to = address(other_ip, port), from = address(own_ip, 0);
	int fd = socket_new(rcvbuf), err = 0;
	socklen_t len = sizeof(err);

	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
	        (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) ||
	        !can(fd, POLLOUT, WAIT_MS)) {
		err = errno;
	} else {
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	}
	if (err) {
		close(fd);
		errno = err;
		return -1;
	}
	fcntl(fd, F_SETFL, 0);
	return fd;
}

static void do_connect(int port, int rcvbuf)
{
	int fd = connect_to(port, rcvbuf);

	if (fd < 0) {
		say_errno();
		return;
	}
	port = port_of(fd);
	say("ok %d %d", id_new(fd), port);
}

static void do_accept(struct peer_socket *s)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int fd, one = 1;

	if (!can(s->fd, POLLIN, WAIT_MS) ||
	        (fd = accept4(s->fd, (struct sockaddr *)&a, &len, SOCK_CLOEXEC)) < 0) {
		say_errno();
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	say("ok %d %d", id_new(fd), ntohs(a.sin_port));
}

static void do_send(struct peer_socket *s, size_t size)
{
	char buf[16384];
	size_t done = 0;

	while (done < size) {
		size_t part = size - done < sizeof(buf) ? size - done : sizeof(buf);
		ssize_t n;

		pattern_fill(buf, s->sent, part);
		if (!can(s->fd, POLLOUT, WAIT_MS) ||
		        (n = send(s->fd, buf, part, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0) {
			if (errno == EAGAIN)
				continue;
			say_errno();
			return;
		}
		s->sent += (size_t)n;
		done += (size_t)n;
	}
	say("ok %zu", done);
}

/* Reads size bytes or to the end; what ended it. */
static const char *read_some(struct peer_socket *s, char *keep, size_t size, size_t *got, bool *is_match)
{
	char buf[65536];

	*got = 0;
	*is_match = true;
	while (*got < size) {
		size_t part = size - *got < sizeof(buf) ? size - *got : sizeof(buf);
		ssize_t n;

		if (!can(s->fd, POLLIN, WAIT_MS))
			return "ETIMEDOUT";
		n = recv(s->fd, buf, part, 0);
		if (n < 0)
			return strerrorname_np(errno);
		if (n == 0)
			return "eof";
		if (keep)
			memcpy(keep + *got, buf, (size_t)n);
		*is_match = *is_match && pattern_ok(buf, s->got, (size_t)n);
		*got += (size_t)n;
		s->got += (size_t)n;
	}
	return "more";
}

static void do_recv(struct peer_socket *s, size_t size)
{
	size_t got;
	bool is_match;
	const char *end = read_some(s, NULL, size, &got, &is_match);

	say("ok %zu %s %s", got, end, is_match ? "match" : "mismatch");
}

static void do_show(struct peer_socket *s, size_t size)
{
	char text[1024] = "";
	size_t got;
	bool is_match;
	const char *end =
	        read_some(s, text, size < sizeof(text) - 1 ? size : sizeof(text) - 1, &got, &is_match);

	say("ok %s %s", end, text);
}

static void do_echo(struct peer_socket *s)
{
	char buf[65536];
	size_t total = 0;
	ssize_t n;

	while (can(s->fd, POLLIN, WAIT_MS) && (n = recv(s->fd, buf, sizeof(buf), 0)) > 0) {
		total += (size_t)n;
		for (ssize_t off = 0, k; off < n; off += k)
			if ((k = send(s->fd, buf + off, (size_t)(n - off), MSG_NOSIGNAL)) < 0) {
				say_errno();
				return;
			}
	}
	shutdown(s->fd, SHUT_WR);
	say("ok %zu", total);
}

static void do_churn(int port, int count, size_t size)
{
	char buf[4096], back[4096];

	for (int i = 0; i < count; i++) {
		int fd = connect_to(port, 0);
		size_t got = 0;

		if (fd < 0) {
			say("connect %d %s", i, strerrorname_np(errno));
			return;
		}
		pattern_fill(buf, (size_t)i, size);
		if (send(fd, buf, size, MSG_NOSIGNAL) != (ssize_t)size) {
			say("send %d %s", i, strerrorname_np(errno));
			return;
		}
		while (got < size) {
			ssize_t n = can(fd, POLLIN, WAIT_MS) ? recv(fd, back + got, size - got, 0) : -1;

			if (n <= 0) {
				say("recv %d %s", i, n ? strerrorname_np(errno) : "eof");
				return;
			}
			got += (size_t)n;
		}
		if (memcmp(buf, back, size)) {
			say("mismatch %d", i);
			return;
		}
		close(fd);
	}
	say("ok %d", count);
}

static void do_gulp(struct peer_socket *s, int count, size_t size)
{
	for (int i = 0; i < count; i++) {
		struct peer_socket c = {.fd = can(s->fd, POLLIN, WAIT_MS) ? accept(s->fd, NULL, NULL) : -1};
		size_t got;
		bool is_match;

		if (c.fd < 0) {
			say("accept %d %s", i, strerrorname_np(errno));
			return;
		}
		read_some(&c, NULL, size, &got, &is_match);
		if (got != size || !is_match || send(c.fd, "k", 1, MSG_NOSIGNAL) != 1) {
			say("bytes %d %zu", i, got);
			return;
		}
		read_some(&c, NULL, 1, &got, &is_match);
		close(c.fd);
	}
	say("ok %d", count);
}

static int udp_new(int port, bool is_any)
{
	struct sockaddr_in a = address(own_ip, port);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1, big = 1 << 20, off = 0;

	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof(big));
	setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof(off));
	setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &a.sin_addr, sizeof(a.sin_addr));
	if (is_any)
		a.sin_addr.s_addr = INADDR_ANY;
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static void do_udp(int port, bool is_any)
{
	int fd = udp_new(port, is_any);

	if (fd < 0) {
		say_errno();
		return;
	}
	port = port_of(fd);
	say("ok %d %d", id_new(fd), port);
}

static void udp_to(struct peer_socket *s, const char *ip, int port, const void *buf, size_t size)
{
	struct sockaddr_in a = address(ip, port);

	if (sendto(s->fd, buf, size, 0, (struct sockaddr *)&a, sizeof(a)) < 0)
		say_errno();
}

static void do_udp_send(struct peer_socket *s, int port, int size, int count)
{
	static char buf[65536];

	pattern_fill(buf, 0, (size_t)size);
	for (int i = 0; i < (count ? count : 1); i++)
		udp_to(s, other_ip, port, buf, (size_t)size);
}

static void do_udp_recv(struct peer_socket *s, bool is_text)
{
	static char buf[65536];
	char control[256];
	struct sockaddr_in a = {0};
	struct iovec iov = {buf, sizeof(buf) - 1};
	struct msghdr m = {.msg_name = &a,
	        .msg_namelen = sizeof(a),
	        .msg_iov = &iov,
	        .msg_iovlen = 1,
	        .msg_control = control,
	        .msg_controllen = sizeof(control)};
	int ttl = -1, tos = -1;
	ssize_t n;

	if (!can(s->fd, POLLIN, WAIT_MS) || (n = recvmsg(s->fd, &m, 0)) < 0) {
		say_errno();
		return;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_type == IP_TTL)
			memcpy(&ttl, CMSG_DATA(c), sizeof(ttl));
		if (c->cmsg_type == IP_TOS)
			tos = *CMSG_DATA(c);
	}
	buf[n] = 0;
	if (is_text)
		say("ok %zd %d %.1000s", n, ntohs(a.sin_port), buf);
	else
		say("ok %zd %d %s %d %d", n, ntohs(a.sin_port),
		        pattern_ok(buf, 0, (size_t)n) ? "match" : "mismatch", ttl, tos);
}

static void do_udp_echo(struct peer_socket *s, int count)
{
	static char buf[65536];

	for (int i = 0; i < count; i++) {
		struct sockaddr_in a;
		socklen_t len = sizeof(a);
		ssize_t n;

		if (!can(s->fd, POLLIN, WAIT_MS) ||
		        (n = recvfrom(s->fd, buf, sizeof(buf), 0, (struct sockaddr *)&a, &len)) < 0 ||
		        sendto(s->fd, buf, (size_t)n, 0, (struct sockaddr *)&a, len) != n) {
			say("%d %s", i, strerrorname_np(errno));
			return;
		}
	}
	say("ok %d", count);
}

static void do_udp_join(struct peer_socket *s, const char *group)
{
	struct ip_mreq m = {.imr_interface = address(own_ip, 0).sin_addr};

	inet_pton(AF_INET, group, &m.imr_multiaddr);
	if (setsockopt(s->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)) < 0)
		say_errno();
}

static void do_udp_quiet(struct peer_socket *s, int ms)
{
	char buf[16];

	if (can(s->fd, POLLIN, ms))
		say("got %zd", recv(s->fd, buf, sizeof(buf), MSG_TRUNC | MSG_DONTWAIT));
}

static void run(char *cmd);

static void do_after(char *rest, int control)
{
	char *end;
	long ms = strtol(rest, &end, 10);

	if (control >= 0 && send(control, "ok", 2, MSG_NOSIGNAL) < 0)
		_exit(0);
	poll(NULL, 0, (int)ms);
	while (*end == ' ')
		end++;
	run(end);
}

static void run(char *cmd)
{
	char verb[16] = "", word[512] = "";
	int a = 0, b = 0, c = 0, d = 0, fd;
	struct peer_socket *s;

	sscanf(cmd, "%15s %d %d %d %d", verb, &a, &b, &c, &d);
	sscanf(cmd, "%*s %*s %511s", word);
	s = by_id(a);
	say("ok");
	if (!strcmp(verb, "listen")) {
		do_listen(a, b, c);
	} else if (!strcmp(verb, "connect")) {
		do_connect(a, b);
	} else if (!strcmp(verb, "churn")) {
		do_churn(a, b, (size_t)c);
	} else if (!strcmp(verb, "udp")) {
		do_udp(a, b);
	} else if (s->fd < 0) {
		say("EBADF");
	} else if (!strcmp(verb, "udp_text")) {
		sscanf(cmd, "%*s %*s %*s %511s", word);
		udp_to(s, other_ip, b, word, strlen(word));
	} else if (!strcmp(verb, "udp_group")) {
		char group[32] = "";

		sscanf(cmd, "%*s %*s %*s %31s %511s", group, word);
		udp_to(s, group, b, word, strlen(word));
	} else if (!strcmp(verb, "udp_send")) {
		do_udp_send(s, b, c, d);
	} else if (!strcmp(verb, "udp_recv") || !strcmp(verb, "udp_show")) {
		do_udp_recv(s, verb[4] == 's');
	} else if (!strcmp(verb, "udp_echo")) {
		do_udp_echo(s, b);
	} else if (!strcmp(verb, "udp_quiet")) {
		do_udp_quiet(s, b);
	} else if (!strcmp(verb, "udp_join")) {
		do_udp_join(s, word);
	} else if (!strcmp(verb, "accept")) {
		do_accept(s);
	} else if (!strcmp(verb, "send")) {
		do_send(s, (size_t)b);
	} else if (!strcmp(verb, "text")) {
		if (send(s->fd, word, strlen(word), MSG_NOSIGNAL) < 0)
			say_errno();
	} else if (!strcmp(verb, "recv")) {
		do_recv(s, (size_t)b);
	} else if (!strcmp(verb, "peek")) {
		int have = 0;

		if (ioctl(s->fd, FIONREAD, &have) < 0)
			say_errno();
		else
			say("ok %d", have);
	} else if (!strcmp(verb, "show")) {
		do_show(s, (size_t)b);
	} else if (!strcmp(verb, "drain")) {
		do_recv(s, SIZE_MAX);
	} else if (!strcmp(verb, "shut")) {
		if (shutdown(s->fd, b) < 0)
			say_errno();
	} else if (!strcmp(verb, "echo")) {
		do_echo(s);
	} else if (!strcmp(verb, "gulp")) {
		do_gulp(s, b, (size_t)c);
	} else if (!strcmp(verb, "serve")) {
		struct peer_socket one = {.fd = can(s->fd, POLLIN, WAIT_MS) ? accept(s->fd, NULL, NULL) : -1};

		if (one.fd >= 0) {
			do_recv(&one, SIZE_MAX);
			close(one.fd);
		} else {
			say_errno();
		}
	} else if (!strcmp(verb, "close") || !strcmp(verb, "reset")) {
		struct linger hard = {1, 0};

		fd = s->fd;
		s->fd = -1;
		if (*verb == 'r')
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(fd);
	} else {
		say("what? %s", verb);
	}
}

static void session(int control)
{
	char cmd[1024];
	ssize_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while ((n = recv(control, cmd, sizeof(cmd) - 1, 0)) > 0) {
		cmd[n] = 0;
		if (!strncmp(cmd, "after ", 6)) {
			do_after(cmd + 6, control);
			continue;
		}
		run(cmd);
		if (send(control, answer, strlen(answer), MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (argc != 4 || strlen(argv[1]) >= sizeof(un.sun_path)) {
		fprintf(stderr, "usage: bsd_peer CONTROL_SOCKET OWN_IP OTHER_IP\n");
		return 2;
	}
	own_ip = argv[2];
	other_ip = argv[3];
	strcpy(un.sun_path, argv[1]);
	for (int i = 0; i < SOCKETS; i++)
		sockets[i].fd = -1;
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 64) < 0) {
		fprintf(stderr, "bsd_peer: %s: %s\n", argv[1], strerror(errno));
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
