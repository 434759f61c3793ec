/* setup.c - what socket, bind, listen, accept and connect refuse, and with which errno; names of sockets;
 * taken ports. */
#include "bsd.h"

#include <sys/ioctl.h>

static void *volatile null_pointer; /* hides a NULL from the compiler */

static int pipe_end(void)
{
	int fds[2];

	if (pipe(fds) < 0)
		die("pipe");
	return fds[0];
}

static int bound(int at)
{
	struct sockaddr_in a = addr_server(at);
	int fd = tcp_socket();

	if (bind(fd, SA(a), sizeof(a)) < 0)
		die("bind: %s", strerror(errno));
	return fd;
}

CASE(socket_kinds)
{
	int fd = ret_fd("tcp", socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));

	out("fl=%x fd=%x", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	fd = ret_fd("flags", socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	out("fl=%x fd=%x", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	ret_fd("tcp6", socket(AF_INET6, SOCK_STREAM, 0));
	ret_fd("udp", socket(AF_INET, SOCK_DGRAM, 0));
	ret_fd("udp_on_stream", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	ret_fd("bad_domain", socket(999, SOCK_STREAM, 0));
	ret_fd("bad_type", socket(AF_INET, 77, 0));
	ret_fd("bad_protocol", socket(AF_INET, SOCK_STREAM, 4000));
}

CASE(bind_refusals)
{
	struct sockaddr_in a = addr_server(port(0)), other = addr_nobody(port(1));
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	int fd = tcp_socket();

	ret("ebadf", bind(-1, SA(a), sizeof(a)));
	ret("closed", bind(9999, SA(a), sizeof(a)));
	ret("pipe", bind(pipe_end(), SA(a), sizeof(a)));
	ret("short", bind(fd, SA(a), 8));
	ret("zero", bind(fd, SA(a), 0));
	ret("huge", bind(fd, SA(a), 4096));
	ret("family", bind(fd, SA(six), sizeof(six)));
	ret("null", bind(fd, null_pointer, sizeof(a)));
	ret("not_local", bind(fd, SA(other), sizeof(other)));
	ret("ok", bind(fd, SA(a), sizeof(a)));
	ret("twice", bind(fd, SA(a), sizeof(a)));
	ret("in_use", bind(tcp_socket(), SA(a), sizeof(a)));
	a = addr_any(port(2));
	fd = tcp_socket();
	ret("any", bind(fd, SA(a), sizeof(a)));
	ret("any_twice", bind(fd, SA(a), sizeof(a)));
	ret("any_in_use", bind(tcp_socket(), SA(a), sizeof(a)));
}

CASE(bind_longer_length)
{
	struct {
		struct sockaddr_in in;
		char more[16];
	} a = {.in = addr_server(port(0))};

	ret("bind", bind(tcp_socket(), SA(a.in), sizeof(a)));
}

CASE(bind_chooses_port)
{
	struct sockaddr_in a = addr_server(0);
	socklen_t len = sizeof(a);
	int fd = tcp_socket();

	ret("bind", bind(fd, SA(a), sizeof(a)));
	ret("name", getsockname(fd, SA(a), &len));
	show_addr("is", &a, len);
	ret("listen", listen(fd, 4));
	peer_show("peer", "connect %d 0 0", ntohs(a.sin_port));
}

CASE(listen_refusals)
{
	struct conn c = pair();
	int fd;

	ret("ebadf", listen(-1, 1));
	ret("pipe", listen(pipe_end(), 1));
	ret("udp", listen(socket(AF_INET, SOCK_DGRAM, 0), 1));
	ret("connected", listen(c.fd, 1));
	fd = bound(port(0));
	ret("ok", listen(fd, 4));
	ret("again", listen(fd, 8));
	ret("negative", listen(fd, -1));
	ret("zero", listen(fd, 0));
	fd = tcp_socket();
	ret("unbound", listen(fd, 4));
}

CASE(listen_taken_port)
{
	struct sockaddr_in a = addr_server(port(0));
	int one = 1, first = tcp_socket(), second = tcp_socket();

	setsockopt(first, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind1", bind(first, SA(a), sizeof(a)));
	ret("bind2", bind(second, SA(a), sizeof(a)));
	ret("listen1", listen(first, 4));
	ret("listen2", listen(second, 4));
	ret("close1", close(first));
	ret("listen2", listen(second, 4));
	peer_show("peer", "connect %d 0", port(0));
}

CASE(reuseport)
{
	struct sockaddr_in a = addr_server(port(0));
	int one = 1, first = tcp_socket(), second = tcp_socket(), third = tcp_socket();

	setsockopt(first, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	setsockopt(second, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	ret("bind1", bind(first, SA(a), sizeof(a)));
	ret("listen1", listen(first, 4));
	ret("bind2", bind(second, SA(a), sizeof(a)));
	ret("listen2", listen(second, 4));
	ret("bind3", bind(third, SA(a), sizeof(a)));
}

CASE(rebind_after_close)
{
	struct sockaddr_in a = addr_server(port(0));
	int fd = listener(port(0)), id = peer_connect(port(0)), s = accept(fd, NULL, NULL), one = 1;

	ret("close", close(fd));
	fd = tcp_socket();
	ret("plain", bind(fd, SA(a), sizeof(a)));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("reuse", bind(fd, SA(a), sizeof(a)));
	ret("listen", listen(fd, 4));
	ret("old", send(s, "hello", 5, 0));
	peer_show("old", "show %d 5", id);
	id = peer_connect(port(0));
	ret_fd("new", accept(fd, NULL, NULL));
	peer_show("refused", "connect %d 0", port(1));
}

CASE(rebind_without_traffic)
{
	for (int i = 0; i < 5; i++) {
		struct sockaddr_in a = addr_server(port(0));
		int fd = tcp_socket();

		ret("bind", bind(fd, SA(a), sizeof(a)));
		ret("listen", listen(fd, 4));
		ret("close", close(fd));
	}
}

CASE(bind_of_closed_bound_socket)
{
	int fd = bound(port(0));

	ret("close", close(fd));
	fd = bound(port(0));
	ret("listen", listen(fd, 1));
	peer_show("peer", "connect %d 0 0", port(0));
}

CASE(accept_refusals)
{
	struct conn c = pair();
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int fd = listener(port(0));

	ret("ebadf", accept(-1, NULL, NULL));
	ret("pipe", accept(pipe_end(), NULL, NULL));
	ret("udp", accept(socket(AF_INET, SOCK_DGRAM, 0), NULL, NULL));
	ret("fresh", accept(tcp_socket(), NULL, NULL));
	ret("bound", accept(bound(port(1)), NULL, NULL));
	ret("connected", accept(c.fd, NULL, NULL));
	set_nonblock(fd, true);
	ret("empty", accept(fd, SA(a), &len));
	ret("empty4", accept4(fd, SA(a), &len, SOCK_CLOEXEC));
	ret("bad_flags", accept4(fd, SA(a), &len, 0x40));
}

CASE(accept_flags)
{
	static const int flags[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};
	int l = listener(port(0));

	for (int i = 0; i < 4; i++) {
		int id = peer_connect(port(0)), fd = ret_fd("accept4", accept4(l, NULL, NULL, flags[i]));

		out("fl=%x fd=%x", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
		peer_ok("close %d", id);
	}
	set_nonblock(l, true);
	peer_connect(port(0));
	settle(l, POLLIN);
	l = ret_fd("accept", accept(l, NULL, NULL));
	out("fl=%x fd=%x", fcntl(l, F_GETFL), fcntl(l, F_GETFD));
}

CASE(accept_address)
{
	static const socklen_t lens[] = {0, 2, 8, 16, 100};
	int l = listener(port(0));

	for (int i = 0; i < 5; i++) {
		union {
			struct sockaddr_in in;
			uint8_t byte[128];
		} u;
		socklen_t len = lens[i];
		int changed = 0;

		memset(&u, 0xee, sizeof(u));
		peer_connect(port(0));
		ret_fd("accept", accept(l, SA(u.in), &len));
		for (int k = 0; k < 128; k++)
			if (u.byte[k] != 0xee)
				changed = k + 1;
		out("len=%u changed=%s", len, changed > (int)lens[i] ? "beyond" : "within");
		if (lens[i] >= 16)
			show_addr("is", &u.in, len);
	}
}

CASE(accept_bad_length)
{
	struct sockaddr_in a;
	socklen_t len = (socklen_t)-1;
	int l = listener(port(0));

	set_nonblock(l, true);
	peer_connect(port(0));
	settle(l, POLLIN);
	ret("negative", accept(l, SA(a), &len));
	peer_connect(port(0));
	nap_ms(20);
	ret("null", accept(l, SA(a), null_pointer) < 0 && errno == EFAULT);
}

CASE(connect_refusals)
{
	struct sockaddr_in a = addr_peer(1);
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	int fd = tcp_socket();

	ret("ebadf", connect(-1, SA(a), sizeof(a)));
	ret("pipe", connect(pipe_end(), SA(a), sizeof(a)));
	ret("short", connect(fd, SA(a), 8));
	ret("one", connect(fd, SA(a), 1));
	ret("family", connect(fd, SA(six), sizeof(six)));
	ret("null", connect(fd, null_pointer, sizeof(a)));
	ret("refused", connect(fd, SA(a), sizeof(a)));
	ret("refused", connect(fd, SA(a), sizeof(a)));
	ret("listening", connect(listener(port(0)), SA(a), sizeof(a)));
	ret("connected", connect(pair().fd, SA(a), sizeof(a)));
	ret("connected_short", connect(pair().fd, SA(a), 8));
}

CASE(connect_after_refusal)
{
	struct sockaddr_in a = addr_peer(1);
	socklen_t len = sizeof(int);
	int id, at, err = -1, fd = tcp_socket();

	ret("refused", connect(fd, SA(a), sizeof(a)));
	ret("so_error", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("err=%d", err);
	ret("recv", recv(fd, &a, 1, MSG_DONTWAIT));
	ret("send", send(fd, &a, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
	ret("peername", getpeername(fd, SA(a), &len));
	rev("poll", settle(fd, POLLOUT));
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	id = peer_ok("accept %d", id);
	ret("write", write(fd, "hello", 5));
	peer_show("got", "show %d 5", id);
}

CASE(connect_unspec_disconnects)
{
	struct conn c = pair();
	struct sockaddr_in a = {.sin_family = AF_UNSPEC};
	socklen_t len = sizeof(a);
	int id, at;

	ret("unspec", connect(c.fd, SA(a), sizeof(a)));
	ret("peername", getpeername(c.fd, SA(a), &len));
	peer_show("peer", "recv %d 1", c.id);
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("again", connect(c.fd, SA(a), sizeof(a)));
}

CASE(connect_bound)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int fd = bound(port(0)), id, at;

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	sscanf(peer("accept %d", id), "ok %*d %d", &at);
	ret("name", getsockname(fd, SA(a), &len));
	out("kept=%d seen=%d", ntohs(a.sin_port) == port(0), at == port(0));
}

CASE(connect_bound_to_wildcard)
{
	struct sockaddr_in a = addr_any(port(0));
	socklen_t len = sizeof(a);
	int fd = tcp_socket(), id, at;

	ret("bind", bind(fd, SA(a), sizeof(a)));
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	sscanf(peer("accept %d", id), "ok %*d %d", &at);
	ret("name", getsockname(fd, SA(a), &len));
	show_addr("is", &a, len);
	out("kept=%d seen=%d", ntohs(a.sin_port) == port(0), at == port(0));
}

CASE(connect_nobody)
{
	struct sockaddr_in a = addr_nobody(80);
	int fd = tcp_socket();

	ret("connect", connect(fd, SA(a), sizeof(a)));
}

static void refuse_all(const char *what, int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	char c = 'x';

	out("[%s]", what);
	signal_count_on(SIGPIPE, true);
	ret("read", read(fd, &c, 1));
	ret("recv", recv(fd, &c, 1, 0));
	ret("peek", recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT));
	ret("write", write(fd, &c, 1));
	out("sigpipe=%d", signal_count);
	ret("send", send(fd, &c, 1, MSG_NOSIGNAL));
	out("sigpipe=%d", signal_count);
	ret("peername", getpeername(fd, SA(a), &len));
	ret("shutdown_rd", shutdown(fd, 99));
}

CASE(not_connected)
{
	refuse_all("fresh", tcp_socket());
	refuse_all("bound", bound(port(0)));
	refuse_all("listening", listener(port(1)));
}

CASE(not_connected_shutdown)
{
	for (int how = 0; how < 3; how++) {
		ret("fresh", shutdown(tcp_socket(), how));
		ret("bound", shutdown(bound(port(how)), how));
	}
	ret("ebadf", shutdown(-1, 2));
	ret("pipe", shutdown(pipe_end(), 2));
}

CASE(not_sockets)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	struct msghdr m = {0};
	int fd = pipe_end(), v;

	ret("recv", recv(fd, &v, 1, 0));
	ret("send", send(fd, &v, 1, 0));
	ret("recvfrom", recvfrom(fd, &v, 1, 0, NULL, NULL));
	ret("sendto", sendto(fd, &v, 1, 0, NULL, 0));
	ret("recvmsg", recvmsg(fd, &m, 0));
	ret("sendmsg", sendmsg(fd, &m, 0));
	ret("sockname", getsockname(fd, SA(a), &len));
	ret("peername", getpeername(fd, SA(a), &len));
	len = sizeof(v);
	ret("getsockopt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len));
	ret("setsockopt", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &v, len));
	fd = 9999;
	ret("recv", recv(fd, &v, 1, 0));
	ret("send", send(fd, &v, 1, 0));
	ret("read", read(fd, &v, 1));
	ret("write", write(fd, &v, 1));
	ret("close", close(fd));
	ret("getsockopt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &len));
	ret("dup", dup(fd));
	ret("fcntl", fcntl(fd, F_GETFL));
}

static void names(const char *what, int fd)
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof(a);

	out("[%s]", what);
	if (!ret("sock", getsockname(fd, SA(a), &len)))
		show_addr("is", &a, len);
	len = sizeof(a);
	memset(&a, 0, sizeof(a));
	if (!ret("peer", getpeername(fd, SA(a), &len)))
		show_addr("is", &a, len);
}

CASE(names_in_each_state)
{
	struct sockaddr_in a = addr_nobody(80), any = addr_any(port(3));
	int fd;

	names("fresh", tcp_socket());
	names("bound", bound(port(0)));
	names("listening", listener(port(1)));
	names("connected", pair_connected().fd);
	names("accepted", pair_accepted().fd);
	fd = tcp_socket();
	bind(fd, SA(any), sizeof(any));
	names("any", fd);
	listen(fd, 1);
	names("any_listening", fd);
	fd = tcp_socket();
	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	names("connecting", fd);
}

CASE_BOTH(names_truncated)
{
	static const socklen_t lens[] = {0, 2, 8, 15, 16, 17, 128};
	struct conn c = pair();
	socklen_t len = (socklen_t)-1;
	struct sockaddr_in in;

	for (int is_peer = 0; is_peer < 2; is_peer++)
		for (int i = 0; i < 7; i++) {
			uint8_t byte[128];
			int changed = 0, rc;

			memset(byte, 0xee, sizeof(byte));
			len = lens[i];
			rc = is_peer ? getpeername(c.fd, (struct sockaddr *)byte, &len)
			             : getsockname(c.fd, (struct sockaddr *)byte, &len);
			for (int k = 0; k < 128; k++)
				if (byte[k] != 0xee)
					changed = k + 1;
			out("%d:%d,len%u,%d", lens[i], rc, len, changed);
		}
	len = (socklen_t)-1;
	ret("negative", getsockname(c.fd, SA(in), &len));
	ret("negative", getpeername(c.fd, SA(in), &len));
	len = sizeof(in);
	ret("null", getsockname(c.fd, null_pointer, &len));
	ret("null_len", getsockname(c.fd, SA(in), null_pointer));
	ret("null", getpeername(c.fd, null_pointer, &len));
	ret("null_len", getpeername(c.fd, SA(in), null_pointer));
}

CASE(names_of_the_same_connection)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int l = listener(port(0)), id, at, fd;

	sscanf(peer("connect %d 0", port(0)), "ok %d %d", &id, &at);
	fd = accept(l, SA(a), &len);
	out("accept=%d", ntohs(a.sin_port) == at);
	getpeername(fd, SA(a), &len);
	out("peername=%d", ntohs(a.sin_port) == at);
	getsockname(fd, SA(a), &len);
	out("sockname=%d", ntohs(a.sin_port) == port(0));
}
