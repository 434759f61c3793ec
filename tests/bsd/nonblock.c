/* nonblock.c - sockets that must not wait: connect, accept, recv and send with O_NONBLOCK, FIONBIO and
 * MSG_DONTWAIT. */
#include "bsd.h"

#include <sys/ioctl.h>

static int so_error(int fd)
{
	socklen_t len = sizeof(int);
	int err = -1;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return err;
}

static int nonblocking(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	return fd;
}

/* Programs set errno to 0, call, and ask it afterwards. */
static void clean(const char *what, long rc)
{
	out("%s=%ld,%d", what, rc > 0 ? 1 : rc, errno);
	errno = 0;
}

CASE_BOTH(success_leaves_errno_alone)
{
	struct conn c = pair();
	struct epoll_event ev = {.events = EPOLLIN};
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	int ep = epoll_create1(0), one = 1;
	socklen_t len = sizeof(one);
	char b[8];

	errno = 0;
	clean("set", setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	clean("get", getsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, &len));
	clean("add", epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, &ev));
	clean("epoll", epoll_wait(ep, &ev, 1, 0));
	clean("epoll", epoll_wait(ep, &ev, 1, 20));
	clean("poll", poll(&p, 1, 0));
	clean("poll", poll(&p, 1, 20));
	for (int i = 0; i < 8; i++)
		clean("send", send(c.fd, "text", 4, 0));
	peer_ok("after 30 text %d abcdef", c.id);
	errno = 0;
	clean("recv", recv(c.fd, b, 2, 0)); /* sleeps */
	clean("recv", recv(c.fd, b, 2, MSG_DONTWAIT));
	clean("poll", poll(&p, 1, 1000));
	clean("epoll", epoll_wait(ep, &ev, 1, 1000));
	clean("recv", recv(c.fd, b, 2, 0));
	clean("shutdown", shutdown(c.fd, SHUT_WR));
	peer_ok("close %d", c.id);
	errno = 0;
	clean("end", recv(c.fd, b, 2, 0));
	clean("close", close(c.fd));
}

CASE(connect_completes)
{
	struct sockaddr_in a;
	int id, at, fd = nonblocking();

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	rev("poll", settle(fd, POLLOUT));
	out("so_error=%d", so_error(fd));
	ret("again", connect(fd, SA(a), sizeof(a)));
	ret("third", connect(fd, SA(a), sizeof(a)));
	ret("write", write(fd, "hello", 5));
	id = peer_ok("accept %d", id);
	peer_show("got", "show %d 5", id);
}

CASE(connect_again_without_poll)
{
	struct sockaddr_in a;
	int id, at, fd = nonblocking(), rc, tries = 0;

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	peer_ok("accept %d", id);
	do {
		rc = connect(fd, SA(a), sizeof(a));
		if (rc < 0 && errno == EALREADY)
			nap_ms(2);
	} while (rc < 0 && errno == EALREADY && tries++ < 2000);
	ret("first", rc);
	ret("then", connect(fd, SA(a), sizeof(a)));
}

CASE(connect_refused)
{
	struct sockaddr_in a = addr_peer(1);
	int fd = nonblocking();
	char c;

	ret("connect", connect(fd, SA(a), sizeof(a)));
	rev("poll", settle(fd, POLLOUT));
	out("so_error=%d", so_error(fd));
	out("so_error=%d", so_error(fd));
	rev("poll", settle(fd, POLLOUT));
	ret("recv", recv(fd, &c, 1, 0));
	ret("send", send(fd, "x", 1, MSG_NOSIGNAL));
}

CASE(connect_refused_told_by_connect)
{
	struct sockaddr_in a = addr_peer(1);
	int fd = nonblocking();

	ret("connect", connect(fd, SA(a), sizeof(a)));
	settle(fd, POLLOUT);
	ret("again", connect(fd, SA(a), sizeof(a)));
	out("so_error=%d", so_error(fd));
}

CASE(connect_refused_told_by_recv)
{
	struct sockaddr_in a = addr_peer(1);
	int fd = nonblocking();
	char c;

	ret("connect", connect(fd, SA(a), sizeof(a)));
	settle(fd, POLLOUT);
	ret("recv", recv(fd, &c, 1, 0));
	ret("recv", recv(fd, &c, 1, 0));
	out("so_error=%d", so_error(fd));
}

CASE(connect_refused_told_by_send)
{
	struct sockaddr_in a = addr_peer(1);
	int fd = nonblocking();

	ret("connect", connect(fd, SA(a), sizeof(a)));
	settle(fd, POLLOUT);
	ret("send", send(fd, "x", 1, MSG_NOSIGNAL));
	ret("send", send(fd, "x", 1, MSG_NOSIGNAL));
	out("so_error=%d", so_error(fd));
}

CASE(while_connecting)
{
	struct sockaddr_in a = addr_nobody(80);
	socklen_t len = sizeof(a);
	int fd = nonblocking(), n = -1;
	char c;

	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("again", connect(fd, SA(a), sizeof(a)));
	ret("recv", recv(fd, &c, 1, 0));
	ret("send", send(fd, "x", 1, MSG_NOSIGNAL));
	ret("listen", listen(fd, 1));
	ret("accept", accept(fd, NULL, NULL));
	ret("peername", getpeername(fd, SA(a), &len));
	ret("fionread", ioctl(fd, FIONREAD, &n));
	out("n=%d so_error=%d", n, so_error(fd));
	ret("close", close(fd));
}

CASE(connect_closed_at_once)
{
	struct sockaddr_in a;
	int id, at, fd = nonblocking();

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("close", close(fd));
	fd = nonblocking();
	ret("connect", connect(fd, SA(a), sizeof(a)));
	rev("poll", settle(fd, POLLOUT));
}

CASE(accept_empty_then_full)
{
	int l = listener(port(0)), fd;

	set_nonblock(l, true);
	ret("empty", accept(l, NULL, NULL));
	peer_connect(port(0));
	peer_connect(port(0));
	rev("poll", settle(l, POLLIN));
	fd = ret_fd("first", accept(l, NULL, NULL));
	out("fl=%x", fcntl(fd, F_GETFL));
	settle(l, POLLIN);
	ret_fd("second", accept(l, NULL, NULL));
	ret("empty", accept(l, NULL, NULL));
}

CASE_BOTH(recv_empty)
{
	struct conn c = pair();
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	char buf[16];
	int on = 1;

	iov = (struct iovec){buf, sizeof(buf)};
	ret("dontwait", recv(c.fd, buf, sizeof(buf), MSG_DONTWAIT));
	ret("waitall", recv(c.fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_WAITALL));
	ret("ioctl", ioctl(c.fd, FIONBIO, &on));
	out("fl=%x", fcntl(c.fd, F_GETFL));
	ret("recv", recv(c.fd, buf, sizeof(buf), 0));
	ret("read", read(c.fd, buf, sizeof(buf)));
	ret("readv", readv(c.fd, &iov, 1));
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	ret("recvfrom", recvfrom(c.fd, buf, sizeof(buf), 0, NULL, NULL));
	ret("peek", recv(c.fd, buf, sizeof(buf), MSG_PEEK));
	ret("zero", recv(c.fd, buf, 0, 0));
	peer_ok("send %d 5", c.id);
	settle_bytes(c.fd, 5);
	ret("recv", recv(c.fd, buf, sizeof(buf), MSG_WAITALL));
	ret("recv", recv(c.fd, buf, sizeof(buf), 0));
}

CASE_BOTH(send_full_and_drained)
{
	struct conn c = pair_narrow();
	struct iovec iov = {"hello", 5};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t n = fill(c.fd, 0);
	struct pollfd p = {.fd = c.fd, .events = POLLOUT};
	char want[64];

	ret("send", send(c.fd, "hello", 5, 0));
	ret("write", write(c.fd, "hello", 5));
	ret("writev", writev(c.fd, &iov, 1));
	ret("sendmsg", sendmsg(c.fd, &m, 0));
	ret("sendto", sendto(c.fd, "hello", 5, 0, NULL, 0));
	ret("zero", send(c.fd, "", 0, 0));
	set_nonblock(c.fd, false);
	ret("dontwait", send(c.fd, "hello", 5, MSG_DONTWAIT));
	ret("poll", poll(&p, 1, 0));
	snprintf(want, sizeof(want), "ok %zu more match", n);
	out("all=%d", !strcmp(peer("recv %d %zu", c.id, n), want));
	rev("poll", settle(c.fd, POLLOUT));
	ret("send", send(c.fd, "hello", 5, MSG_DONTWAIT));
	peer_show("got", "show %d 5", c.id);
}

CASE_BOTH(switching_on_and_off)
{
	struct conn c = pair();
	int on = 1, off = 0;
	char b;

	ret("on", ioctl(c.fd, FIONBIO, &on));
	out("fl=%x", fcntl(c.fd, F_GETFL));
	ret("off", ioctl(c.fd, FIONBIO, &off));
	out("fl=%x", fcntl(c.fd, F_GETFL));
	ret("setfl", fcntl(c.fd, F_SETFL, O_NONBLOCK));
	ret("recv", recv(c.fd, &b, 1, 0));
	ret("setfl", fcntl(c.fd, F_SETFL, 0));
	peer_go("after 100 text %d k", c.id);
	ret("recv", recv(c.fd, &b, 1, 0));
}

/* Each connection that is new can be written to, however many a program opens at once. */
CASE_BOTH(many_fresh_connections_are_writable)
{
	enum { COUNT = 60 };
	struct conn c[COUNT];
	int writable = 0, sent = 0;

	for (int i = 0; i < COUNT; i++) {
		c[i] = pair();
		set_nonblock(c[i].fd, true);
	}
	for (int i = 0; i < COUNT; i++) {
		struct pollfd p = {.fd = c[i].fd, .events = POLLOUT};

		writable += poll(&p, 1, 0) == 1 && p.revents == POLLOUT;
		sent += send(c[i].fd, "x", 1, MSG_NOSIGNAL) == 1;
	}
	out("writable=%d sent=%d", writable, sent);
}
