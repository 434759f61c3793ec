/* wildcard.c - sockets bound to every address: a listener that is reached through loopback and through the
 * network at once. */
#include "bsd.h"

static int wild(int at)
{
	struct sockaddr_in a = addr_any(at);
	int fd = tcp_socket(), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, SA(a), sizeof(a)) < 0 || listen(fd, 16) < 0)
		die("wildcard: %s", strerror(errno));
	return fd;
}

static int through_loopback(int at)
{
	struct sockaddr_in a = addr_loopback(at);
	int fd = tcp_socket();

	ret("loopback", connect(fd, SA(a), sizeof(a)));
	return fd;
}

static void talk(int fd, int other)
{
	char b[8] = "";

	ret("send", send(other, "abc", 3, 0));
	ret("recv", recv(fd, b, 3, MSG_WAITALL));
	ret("answer", send(fd, "def", 3, 0));
	ret("recv", recv(other, b, 3, MSG_WAITALL));
	out("%s", b);
}

static void talk_peer(int fd, int id)
{
	char b[8] = "";

	peer_ok("text %d abc", id);
	ret("recv", recv(fd, b, 3, MSG_WAITALL));
	ret("answer", send(fd, "def", 3, 0));
	peer_show("got", "show %d 3", id);
}

static void named(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	ret("sockname", getsockname(fd, SA(a), &len));
	show_addr("is", &a, len);
	len = sizeof(a);
	ret("peername", getpeername(fd, SA(a), &len));
	show_addr("is", &a, len);
}

CASE(reached_from_both_sides)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int l = wild(port(0)), id = peer_connect(port(0)), fd = accept(l, SA(a), &len), other;

	show_addr("from", &a, len);
	named(fd);
	talk_peer(fd, id);
	other = through_loopback(port(0));
	len = sizeof(a);
	fd = accept(l, SA(a), &len);
	show_addr("from", &a, len);
	named(fd);
	talk(fd, other);
	named(l);
}

CASE(reached_from_both_sides_nonblocking)
{
	int l = wild(port(0)), other, fd, id;

	set_nonblock(l, true);
	ret("empty", accept(l, NULL, NULL));
	id = peer_connect(port(0));
	rev("poll", settle(l, POLLIN));
	fd = ret_fd("accept", accept(l, NULL, NULL));
	out("fl=%x", fcntl(fd, F_GETFL));
	talk_peer(fd, id);
	ret("empty", accept(l, NULL, NULL));
	other = through_loopback(port(0));
	rev("poll", settle(l, POLLIN));
	fd = ret_fd("accept", accept(l, NULL, NULL));
	out("fl=%x", fcntl(fd, F_GETFL));
	talk(fd, other);
	ret("empty", accept(l, NULL, NULL));
	out("fl=%x", fcntl(l, F_GETFL));
}

CASE(both_wait_in_the_queue)
{
	int l = wild(port(0)), other = through_loopback(port(0)), id = peer_connect(port(0)), kinds = 0;
	struct tcp_info ti = {0};
	socklen_t size = sizeof(ti);

	settle(l, POLLIN);
	ret("info", getsockopt(l, IPPROTO_TCP, TCP_INFO, &ti, &size));
	out("state=%d queued=%u", ti.tcpi_state, ti.tcpi_unacked);
	size = 4;
	ret("little", getsockopt(l, IPPROTO_TCP, TCP_INFO, &ti, &size));
	out("%u", size);

	for (int i = 0; i < 2; i++) {
		struct sockaddr_in a;
		socklen_t len = sizeof(a);

		ret_fd("accept", accept(l, SA(a), &len));
		kinds |= a.sin_addr.s_addr == addr_loopback(0).sin_addr.s_addr ? 1 : 2;
	}
	out("kinds=%d", kinds);
	set_nonblock(l, true);
	ret("empty", accept(l, NULL, NULL));
	close(other);
	peer_ok("close %d", id);
}

static void after(int ms, void (*run)(int), int arg)
{
	if (fork() == 0) {
		nap_ms(ms);
		run(arg);
		nap_ms(2000);
		_exit(0);
	}
}

static void connect_quietly(int at)
{
	struct sockaddr_in a = addr_loopback(at);

	if (connect(tcp_socket(), SA(a), sizeof(a)) < 0)
		out("connect=%s", strerror(errno));
}

CASE(loopback_wakes_accept)
{
	int l = wild(port(0));

	after(150, connect_quietly, port(0));
	ret_fd("accept", accept(l, NULL, NULL));
}

CASE(network_wakes_accept)
{
	int l = wild(port(0));

	peer_go("after 150 connect %d 0", port(0));
	ret_fd("accept", accept(l, NULL, NULL));
}

static int epoll_of(int fd, uint32_t events)
{
	struct epoll_event e = {.events = events};
	int ep = epoll_create1(0);

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	return ep;
}

CASE(either_wakes_epoll)
{
	struct epoll_event e;
	int l = wild(port(0)), ep = epoll_of(l, EPOLLIN);

	set_nonblock(l, true);
	ret("none", epoll_wait(ep, &e, 1, 50));
	after(150, connect_quietly, port(0));
	ret("loopback", epoll_wait(ep, &e, 1, 8000));
	rev("is", e.events);
	ret_fd("accept", accept(l, NULL, NULL));
	ret("none", epoll_wait(ep, &e, 1, 50));
	peer_go("after 150 connect %d 0", port(0));
	ret("network", epoll_wait(ep, &e, 1, 8000));
	rev("is", e.events);
	ret_fd("accept", accept(l, NULL, NULL));
	ret("none", epoll_wait(ep, &e, 1, 50));
}

CASE(either_wakes_epoll_edge)
{
	struct epoll_event e;
	int l = wild(port(0)), ep;

	set_nonblock(l, true);
	ep = epoll_of(l, EPOLLIN | EPOLLET);
	peer_go("after 150 connect %d 0", port(0));
	ret("network", epoll_wait(ep, &e, 1, 8000));
	ret("none", epoll_wait(ep, &e, 1, 50));
	after(150, connect_quietly, port(0));
	ret("loopback", epoll_wait(ep, &e, 1, 8000));
	ret("none", epoll_wait(ep, &e, 1, 50));
	ret_fd("accept", accept(l, NULL, NULL));
	ret_fd("accept", accept(l, NULL, NULL));
	ret_fd("accept", accept(l, NULL, NULL));
}

CASE(either_wakes_poll)
{
	int l = wild(port(0));

	after(150, connect_quietly, port(0));
	rev("loopback", settle(l, POLLIN));
	ret_fd("accept", accept(l, NULL, NULL));
	peer_go("after 150 connect %d 0", port(0));
	rev("network", settle(l, POLLIN));
	ret_fd("accept", accept(l, NULL, NULL));
}

CASE(options_of_wildcard)
{
	struct timeval tv = {0, 200000};
	socklen_t len = sizeof(int);
	int l = wild(port(0)), v = 1, fd;
	uint64_t start;

	ret("nodelay", setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)));
	ret("acceptconn", getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &v, &len));
	out("is=%d", v);
	peer_connect(port(0));
	fd = accept(l, NULL, NULL);
	v = -1;
	ret("inherited", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	out("is=%d", v);
	ret("timeout", setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	start = now_ms();
	ret("accept", accept(l, NULL, NULL));
	show_time("took", start, 200);
}

CASE(taken_ports)
{
	struct sockaddr_in a = addr_any(port(0)), own = addr_server(port(0)), loop = addr_loopback(port(0));
	int l = wild(port(0)), second = tcp_socket(), one = 1;

	ret("any", bind(tcp_socket(), SA(a), sizeof(a)));
	ret("own", bind(tcp_socket(), SA(own), sizeof(own)));
	ret("loopback", bind(tcp_socket(), SA(loop), sizeof(loop)));
	setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("reuse", bind(second, SA(own), sizeof(own)));
	ret("close", close(l));
	ret("own", bind(tcp_socket(), SA(own), sizeof(own)));
}

CASE(specific_first)
{
	struct sockaddr_in a = addr_any(port(0));
	int l = listener(port(0)), fd = tcp_socket(), one = 1;

	ret("plain", bind(tcp_socket(), SA(a), sizeof(a)));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("reuse", bind(fd, SA(a), sizeof(a)));
	ret("close", close(l));
	ret("then", bind(fd, SA(a), sizeof(a)));
}

CASE(close_and_listen_again)
{
	for (int i = 0; i < 3; i++) {
		int l = wild(port(0)), id = peer_connect(port(0)), fd = accept(l, NULL, NULL);

		talk_peer(fd, id);
		ret("close", close(l));
		peer_show("refused", "connect %d 0", port(0));
		peer_ok("close %d", id);
		settle(fd, POLLRDHUP);
		close(fd);
	}
}

CASE(listen_again)
{
	int l = wild(port(0)), id;

	ret("listen", listen(l, 4));
	ret("listen", listen(l, 100));
	id = peer_connect(port(0));
	talk_peer(accept(l, NULL, NULL), id);
}

CASE(listen_without_bind)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int l = tcp_socket(), id;

	ret("listen", listen(l, 4));
	ret("name", getsockname(l, SA(a), &len));
	show_addr("is", &a, len);
	id = peer_connect(ntohs(a.sin_port));
	talk_peer(accept(l, NULL, NULL), id);
}

CASE(shutdown_of_wildcard)
{
	int l = wild(port(0));

	ret("shutdown", shutdown(l, SHUT_RDWR));
	set_nonblock(l, true);
	ret("accept", accept(l, NULL, NULL));
	peer_show("refused", "connect %d 0", port(0));
}

CASE(refusals_of_wildcard)
{
	struct sockaddr_in a = addr_peer(1);
	int l = wild(port(0));
	char b;

	ret("connect", connect(l, SA(a), sizeof(a)));
	ret("recv", recv(l, &b, 1, 0));
	ret("send", send(l, "x", 1, MSG_NOSIGNAL));
	ret("accept4", accept4(l, NULL, NULL, 0x40));
	named(l);
}

CASE(copy_of_wildcard)
{
	int l = wild(port(0)), copy = dup(l), id = peer_connect(port(0));

	ret("close", close(l));
	talk_peer(accept(copy, NULL, NULL), id);
	ret("close", close(copy));
	peer_show("refused", "connect %d 0", port(0));
}

CASE(loopback_only_stays_with_the_kernel)
{
	struct sockaddr_in a = addr_loopback(port(0));
	int l = tcp_socket(), other;

	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 4));
	other = through_loopback(port(0));
	talk(accept(l, NULL, NULL), other);
	peer_show("refused", "connect %d 0", port(0));
}

CASE(two_families)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(0))};
	struct sockaddr_in6 from;
	socklen_t len = sizeof(from);
	int l = socket(AF_INET6, SOCK_STREAM, 0), fd, id, other, off = 0;
	char text[64];

	setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	ret("bind", bind(l, SA(six), sizeof(six)));
	ret("listen", listen(l, 4));
	id = peer_connect(port(0));
	fd = accept(l, SA(from), &len);
	out("from=%s len=%u", inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof(text)), len);
	talk_peer(fd, id);
	len = sizeof(from);
	ret("name", getsockname(fd, SA(from), &len));
	out("is=%s len=%u", inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof(text)), len);
	other = through_loopback(port(0));
	talk(accept(l, NULL, NULL), other);
}
