/* limits.c - running out of descriptors: which error, and that nothing is lost by it. */
#include "bsd.h"

#include <sys/resource.h>

static rlim_t usual;

/* No number below this one is free any more; or all are again. */
static void numbers_end(bool on)
{
	struct rlimit r;
	int fd;

	getrlimit(RLIMIT_NOFILE, &r);
	if (!on) {
		r.rlim_cur = usual;
		setrlimit(RLIMIT_NOFILE, &r);
		return;
	}
	fd = dup(0);
	close(fd);
	usual = r.rlim_cur;
	r.rlim_cur = (rlim_t)fd;
	setrlimit(RLIMIT_NOFILE, &r);
}

static void no_more(bool is_any)
{
	struct sockaddr_in a = is_any ? addr_any(port(0)) : addr_server(port(0));
	int l = tcp_socket(), id, fd;
	char c = 0;

	bind(l, SA(a), sizeof(a));
	listen(l, 4);
	id = peer_connect(port(0));
	settle(l, POLLIN);
	numbers_end(true);
	ret("accept", accept(l, NULL, NULL));
	ret("again", accept4(l, NULL, NULL, SOCK_NONBLOCK));
	rev("level", settle(l, POLLIN));
	ret("socket", socket(AF_INET, SOCK_STREAM, 0));
	ret("epoll", epoll_create1(0));
	ret("dup", dup(l));
	numbers_end(false);
	fd = ret_fd("accept", accept(l, NULL, NULL));
	peer_ok("send %d 1", id);
	ret("recv", recv(fd, &c, 1, 0));
	set_nonblock(l, true);
	ret("empty", accept(l, NULL, NULL));
}

CASE(accept_of_nothing_without_a_number)
{
	int l = listener(port(0));

	set_nonblock(l, true);
	numbers_end(true);
	ret("accept", accept(l, NULL, NULL));
	numbers_end(false);
}

CASE(accept_without_a_number_keeps_the_connection)
{
	no_more(false);
}

CASE(accept_on_a_wildcard_without_a_number_keeps_the_connection)
{
	no_more(true);
}

CASE_BOTH(blocking_calls_and_options_work_without_a_number)
{
	struct conn c = pair();
	char buf[8];
	int v = 3, one = 1;
	socklen_t len = sizeof(v);
	struct pollfd p = {.fd = c.fd, .events = POLLIN};

	numbers_end(true);
	peer_ok("after 200 send %d 5", c.id);
	ret("poll", poll(&p, 1, 5000));
	ret("recv", recv(c.fd, buf, 5, MSG_WAITALL));
	peer_ok("after 200 send %d 3", c.id);
	ret("block", recv(c.fd, buf, 3, MSG_WAITALL));
	ret("nodelay", setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	ret("priority", setsockopt(c.fd, SOL_SOCKET, SO_PRIORITY, &v, sizeof(v)));
	v = 0;
	ret("get", getsockopt(c.fd, SOL_SOCKET, SO_PRIORITY, &v, &len));
	out("is=%d", v);
	ret("send", send(c.fd, "abc", 3, 0));
	peer_show("peer", "recv %d 3", c.id);
	numbers_end(false);
}

CASE(connect_of_a_socket_that_took_the_last_number)
{
	struct sockaddr_in a;
	int fd, id, at;

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	fd = tcp_socket();
	numbers_end(true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("send", send(fd, "abc", 3, 0));
	numbers_end(false);
}
