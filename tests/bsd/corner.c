/* corner.c - cases that the differential test (tests/diff) has found: the order in which the kernel looks at
 * things, ends that meet data, listeners and connections that are dissolved, members of sets that change
 * sides.
 */
#include "bsd.h"

static struct sockaddr_in unspec(void)
{
	return (struct sockaddr_in){.sin_family = AF_UNSPEC};
}

static void show_set(const char *what, int epfd)
{
	struct epoll_event ev[4];
	int n = epoll_wait(epfd, ev, 4, 0);

	ret(what, n);
	for (int i = 0; i < n; i++)
		rev("is", ev[i].events);
}

CASE_BOTH(data_after_both_shutdowns_is_answered_with_a_reset)
{
	struct conn c = pair();
	char b;

	ret("shutdown", shutdown(c.fd, SHUT_RDWR));
	peer_show("sent", "send %d 10", c.id);
	rev("level", settle(c.fd, POLLERR));
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	ret("recv", recv(c.fd, &b, 1, 0));
}

CASE_BOTH(what_was_sent_goes_out_before_the_reset_of_a_close)
{
	struct conn c = pair();

	peer_ok("send %d 10", c.id);
	settle_bytes(c.fd, 10);
	ret("send", send(c.fd, "hello", 5, 0));
	ret("close", close(c.fd)); /* with unread data */
	peer_show("got", "recv %d 5", c.id);
	peer_show("then", "drain %d", c.id);
}

CASE_BOTH(connect_looks_at_the_state_before_the_address)
{
	struct conn c = pair();
	struct sockaddr_in a = addr_peer(9);

	a.sin_family = AF_UNIX;
	ret("family", connect(c.fd, SA(a), sizeof(a)));
	ret("short", connect(c.fd, SA(a), 7));
	ret("nothing", connect(c.fd, SA(a), 0));
	a = addr_loopback(9);
	ret("bind", bind(c.fd, SA(a), sizeof(a)));
}

CASE(dissolved_accepted_socket_is_a_socket_of_its_own)
{
	struct conn a = pair_accepted(), b = pair_accepted();
	struct epoll_event ev = {.events = EPOLLIN};
	struct sockaddr_in u = unspec();
	int epfd = epoll_create1(0), error;
	socklen_t len = sizeof(error);

	ret("add", epoll_ctl(epfd, EPOLL_CTL_ADD, a.fd, &ev));
	ret("dissolve", connect(a.fd, SA(u), sizeof(u)));
	getsockopt(a.fd, SOL_SOCKET, SO_ERROR, &error,
	        &len); /* tests/diff/README.md: only the kernel leaves one */
	show_set("hup", epfd);
	close(a.fd);
	show_set("gone", epfd);
	peer_ok("send %d 3", b.id);
	rev("other", settle(b.fd, POLLIN));
}

CASE(listener_is_dissolved_and_listens_again)
{
	struct sockaddr_in own = addr_server(port(0)), any = addr_any(port(1)), u = unspec();
	struct sockaddr_in a[2] = {own, any};

	for (int i = 0; i < 2; i++) {
		int fd = tcp_socket(), one = 1;
		char b;

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		ret("bind", bind(fd, SA(a[i]), sizeof(a[i])));
		ret("listen", listen(fd, 5));
		ret("dissolve", connect(fd, SA(u), sizeof(u)));
		ret("accept", accept(fd, NULL, NULL));
		ret("recv", recv(fd, &b, 1, 0));
		peer_show("refused", "connect %d 0", port(i));
		ret("listen", listen(fd, 5));
		ret("shutdown", shutdown(fd, SHUT_RD));
		ret("recv", recv(fd, &b, 1, 0));
		ret("listen", listen(fd, 5));
		ret("ok", peer_connect(port(i)) > 0);
		ret_fd("accept", accept(fd, NULL, NULL));
		close(fd);
	}
}

CASE(set_lives_on_in_a_duplicate)
{
	struct conn c = pair_connected();
	struct epoll_event ev = {.events = EPOLLIN};
	int first = epoll_create1(0), second = dup(first);

	close(first);
	ret("add", epoll_ctl(second, EPOLL_CTL_ADD, c.fd, &ev));
	peer_ok("send %d 3", c.id);
	settle(c.fd, POLLIN);
	show_set("wait", second);
}

CASE(edge_for_writing_is_not_told_again_by_data)
{
	struct conn c = pair_connected();
	struct epoll_event ev = {.events = EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET};
	int epfd = epoll_create1(0);

	ret("add", epoll_ctl(epfd, EPOLL_CTL_ADD, c.fd, &ev));
	show_set("out", epfd);
	peer_ok("send %d 3", c.id);
	settle(c.fd, POLLIN);
	show_set("data", epfd);
	peer_ok("shut %d 1", c.id);
	settle(c.fd, POLLRDHUP);
	show_set("end", epfd);
}

CASE(one_shot_stays_spent_when_the_socket_connects)
{
	struct sockaddr_in own = addr_server(port(0));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT};
	int epfd = epoll_create1(0), fd = tcp_socket();

	ret("add", epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev));
	show_set("hup", epfd);
	ret("bind", bind(fd, SA(own), sizeof(own)));
	show_set("spent", epfd);
	ret("mod", epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev));
	show_set("armed", epfd);
	ev.events = EPOLLIN | EPOLLEXCLUSIVE;
	ret("del", epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
	ret("exclusive", epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev));
}

CASE(end_of_a_child_is_no_edge_of_a_listener)
{
	struct sockaddr_in own = addr_server(port(0)), any = addr_any(port(1));
	struct epoll_event ev = {.events = EPOLLIN | (uint32_t)EPOLLET};
	int epfd = epoll_create1(0), fd[2] = {tcp_socket(), tcp_socket()};
	pid_t pid;

	ret("bind", bind(fd[0], SA(own), sizeof(own)));
	ret("bind", bind(fd[1], SA(any), sizeof(any)));
	for (int i = 0; i < 2; i++) {
		ret("listen", listen(fd[i], 5));
		ret("add", epoll_ctl(epfd, EPOLL_CTL_ADD, fd[i], &ev));
		peer_connect(port(i));
		settle(fd[i], POLLIN);
	}
	show_set("edges", epfd);
	pid = fork();
	if (!pid) {
		struct pollfd p = {.fd = fd[0], .events = POLLIN};

		_exit(poll(&p, 1, 0)); /* the child is somebody who has used it */
	}
	waitpid(pid, NULL, 0);
	/* nothing may come, and it would come a moment after the end */
	ret("wait", epoll_wait(epfd, &ev, 1, 100));
	peer_connect(port(0));
	ret("wait", epoll_wait(epfd, &ev, 1, 5000));
}

CASE(connect_from_a_port_where_somebody_listens_since)
{
	struct sockaddr_in any = addr_any(port(0)), to = addr_peer(0);
	int fd = tcp_socket(), other = tcp_socket(), late = tcp_socket(), one = 1, id, at;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(late, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind", bind(fd, SA(any), sizeof(any)));
	ret("bind", bind(other, SA(any), sizeof(any)));
	ret("listen", listen(other, 5));
	ret("late", bind(late, SA(any), sizeof(any)));
	if (sscanf(peer("listen 0 16 0"), "ok %d %d", &id, &at) != 2)
		die("no listener");
	to.sin_port = htons((uint16_t)at);
	ret("connect", connect(fd, SA(to), sizeof(to)));
	ret("peer", peer_connect(port(0)) > 0);
	ret_fd("accept", accept(other, NULL, NULL));
	ret("close", close(other));
	ret("again", send(fd, "x", 1, 0));
}

CASE(address_without_a_port_stays_after_a_failed_connect)
{
	struct sockaddr_in a = addr_server(0), to = addr_peer(9), u = unspec();
	socklen_t len = sizeof(a);
	int id, at;

	if (sscanf(peer("listen 0 16 0"), "ok %d %d", &id, &at) != 2)
		die("no listener");
	for (int i = 0; i < 2; i++) {
		int fd = tcp_socket();

		a = addr_server(0);
		to.sin_port = htons(9);
		ret("bind", bind(fd, SA(a), sizeof(a)));
		ret("refused", connect(fd, SA(to), sizeof(to)));
		ret("name", getsockname(fd, SA(a), &len));
		show_addr("is", &a, len);
		if (i) {
			ret("listen", listen(fd, 1));
			getsockname(fd, SA(a), &len);
			show_addr("at", &a, len);
			ret("peer", peer_connect(ntohs(a.sin_port)) > 0);
			ret_fd("accept", accept(fd, NULL, NULL));
		} else {
			to.sin_port = htons((uint16_t)at);
			ret("connect", connect(fd, SA(to), sizeof(to)));
			ret("dissolve", connect(fd, SA(u), sizeof(u)));
			getsockname(fd, SA(a), &len);
			show_addr("at", &a, len);
			ret("connect", connect(fd, SA(to), sizeof(to)));
		}
		close(fd);
	}
}

CASE(another_backlog_is_no_edge)
{
	struct sockaddr_in a[2] = {addr_server(port(0)), addr_any(port(1))};

	for (int i = 0; i < 2; i++) {
		struct epoll_event ev = {.events = EPOLLIN | (uint32_t)EPOLLET};
		int epfd = epoll_create1(0), fd = tcp_socket();

		ret("bind", bind(fd, SA(a[i]), sizeof(a[i])));
		ret("add", epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev));
		show_set("bound", epfd);
		ret("listen", listen(fd, 5));
		show_set("listens", epfd);
		peer_connect(port(i));
		settle(fd, POLLIN);
		show_set("edge", epfd);
		ret("listen", listen(fd, 50));
		show_set("none", epfd);
		peer_connect(port(i));
		ret("wait", epoll_wait(epfd, &ev, 1, 5000));
	}
}

/* What the kernel chose it lets go when the connect fails, so that another bind may come; the program's
 * choice stays. */
CASE(another_bind_after_a_failed_connect)
{
	struct sockaddr_in first[4] = {addr_server(0), addr_any(0), addr_server(port(0)), addr_any(port(1))};
	struct sockaddr_in then[5] = {addr_loopback(port(2)), addr_server(port(3)), addr_server(0),
	        addr_loopback(0), addr_server(port(4))};
	int taken = tcp_socket();

	then[3].sin_addr.s_addr = htonl(0xcb007101); /* RFC 5737: nobody's */
	ret("taken", bind(taken, SA(then[4]), sizeof(then[4])));
	for (int i = 0; i < 20; i++) {
		struct sockaddr_in to = addr_peer(9), a = {0};
		struct epoll_event ev = {.events = EPOLLIN};
		int fd = tcp_socket(), epfd = epoll_create1(0), one = 1, v = 0;
		socklen_t len = sizeof(a);

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		ret("bind", bind(fd, SA(first[i / 5]), sizeof(first[0])));
		ret("refused", connect(fd, SA(to), sizeof(to)));
		ret("add", epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev));
		ret("again", bind(fd, SA(then[i % 5]), sizeof(then[0])));
		ret("third", bind(fd, SA(then[0]), sizeof(then[0])));
		show_set("set", epfd);
		len = sizeof(v);
		getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &v, &len);
		ret("kept", v);
		ret("listen", listen(fd, 5));
		show_set("listens", epfd);
		len = sizeof(a);
		getsockname(fd, SA(a), &len);
		show_addr("at", &a, len);
		if (a.sin_addr.s_addr == addr_loopback(0).sin_addr.s_addr)
			ret("come", connect(tcp_socket(), SA(a), sizeof(a)));
		else
			ret("come", peer_connect(ntohs(a.sin_port)) > 0);
		ret("wait", epoll_wait(epfd, &ev, 1, 5000));
		close(epfd);
		close(fd);
	}
}
