/* ending.c - how connections end: end of file, shutdown in all forms, resets, close with unread data,
 * lingering. */
#include "bsd.h"

#include <sys/ioctl.h>

static int so_error(int fd)
{
	socklen_t len = sizeof(int);
	int err = -1;

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return err;
}

static void linger(int fd, int on, int seconds)
{
	struct linger lg = {on, seconds};

	ret("linger", setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
}

/* What can still be done, in the order that shows each error once. */
static void state(int fd)
{
	char b[64];
	int n = -1;

	ioctl(fd, FIONREAD, &n);
	out("inq=%d", n);
	ret("recv", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	ret("recv", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	signal_count_on(SIGPIPE, true);
	ret("send", send(fd, "x", 1, MSG_DONTWAIT));
	out("sigpipe=%d so_error=%d", signal_count, so_error(fd));
}

CASE_BOTH(end_of_file)
{
	struct conn c = pair();
	char b[8];

	peer_ok("text %d abc", c.id);
	peer_ok("shut %d 1", c.id);
	rev("poll", settle(c.fd, POLLRDHUP));
	ret("recv", recv(c.fd, b, 8, 0));
	ret("eof", recv(c.fd, b, 8, 0));
	ret("eof", recv(c.fd, b, 8, 0));
	ret("eof", read(c.fd, b, 8));
	rev("poll", settle(c.fd, POLLIN));
	ret("send", send(c.fd, "hello", 5, 0));
	peer_show("got", "show %d 5", c.id);
	ret("close", close(c.fd));
	peer_show("peer", "recv %d 1", c.id);
}

CASE_BOTH(end_of_file_wakes_reader)
{
	struct conn c = pair();
	char b[8];

	peer_go("after 100 close %d", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
}

CASE_BOTH(shutdown_write)
{
	struct conn c = pair();
	char b[8];

	ret("send", send(c.fd, "abc", 3, 0));
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	peer_show("peer", "show %d 8", c.id);
	signal_count_on(SIGPIPE, true);
	ret("send", send(c.fd, "x", 1, 0));
	ret("write", write(c.fd, "x", 1));
	out("sigpipe=%d", signal_count);
	ret("nosignal", send(c.fd, "x", 1, MSG_NOSIGNAL));
	ret("zero", send(c.fd, "", 0, MSG_NOSIGNAL));
	out("sigpipe=%d", signal_count);
	rev("poll", settle(c.fd, POLLOUT));
	peer_ok("text %d def", c.id);
	settle_bytes(c.fd, 3);
	ret("recv", recv(c.fd, b, 8, 0));
	ret("again", shutdown(c.fd, SHUT_WR));
	peer_ok("shut %d 1", c.id);
	rev("poll", settle(c.fd, POLLHUP));
	ret("eof", recv(c.fd, b, 8, 0));
}

CASE_BOTH(shutdown_read)
{
	struct conn c = pair();
	char b[8];

	ret("shutdown", shutdown(c.fd, SHUT_RD));
	rev("poll", settle(c.fd, POLLIN));
	ret("recv", recv(c.fd, b, 8, 0));
	ret("send", send(c.fd, "abc", 3, 0));
	peer_show("peer", "show %d 3", c.id);
	peer_ok("text %d def", c.id);
	settle_bytes(c.fd, 3);
	ret("recv", recv(c.fd, b, 8, 0));
	ret("recv", recv(c.fd, b, 8, 0));
	ret("again", shutdown(c.fd, SHUT_RD));
}

CASE_BOTH(shutdown_read_with_data)
{
	struct conn c = pair();
	char b[8];

	peer_ok("text %d abc", c.id);
	settle_bytes(c.fd, 3);
	ret("shutdown", shutdown(c.fd, SHUT_RD));
	ret("recv", recv(c.fd, b, 2, 0));
	ret("recv", recv(c.fd, b, 8, 0));
	ret("recv", recv(c.fd, b, 8, 0));
}

CASE_BOTH(shutdown_both)
{
	struct conn c = pair();

	ret("shutdown", shutdown(c.fd, SHUT_RDWR));
	rev("poll", settle(c.fd, POLLHUP));
	peer_show("peer", "recv %d 1", c.id);
	state(c.fd);
	ret("again", shutdown(c.fd, SHUT_RDWR));
	ret("close", close(c.fd));
}

CASE_BOTH(shutdown_one_then_other)
{
	struct conn c = pair();

	ret("rd", shutdown(c.fd, SHUT_RD));
	ret("wr", shutdown(c.fd, SHUT_WR));
	rev("poll", settle(c.fd, POLLHUP));
	state(c.fd);
}

CASE_BOTH(shutdown_bad_how)
{
	struct conn c = pair();

	ret("negative", shutdown(c.fd, -1));
	ret("three", shutdown(c.fd, 3));
	ret("send", send(c.fd, "abc", 3, 0));
	peer_show("peer", "show %d 3", c.id);
}

CASE_BOTH(shutdown_after_peer_closed)
{
	struct conn c = pair();

	peer_ok("close %d", c.id);
	settle(c.fd, POLLRDHUP);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	rev("poll", settle(c.fd, POLLHUP));
	nap_ms(100);
	ret("again", shutdown(c.fd, SHUT_WR));
	ret("both", shutdown(c.fd, SHUT_RDWR));
	state(c.fd);
}

CASE_BOTH(shutdown_sends_what_is_queued)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);
	char want[64];

	ret("shutdown", shutdown(c.fd, SHUT_WR));
	snprintf(want, sizeof(want), "ok %zu eof match", n);
	out("all=%d", !strcmp(peer("drain %d", c.id), want));
}

CASE_BOTH(close_sends_what_is_queued)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);
	char want[64];

	ret("close", close(c.fd));
	snprintf(want, sizeof(want), "ok %zu eof match", n);
	out("all=%d", !strcmp(peer("drain %d", c.id), want));
}

CASE_BOTH(exit_sends_what_is_queued)
{
	struct conn c = pair_narrow();
	size_t n;
	char want[64];
	int fds[2];
	pid_t pid;

	if (pipe(fds) < 0)
		die("pipe");
	pid = fork();
	if (pid == 0) {
		n = fill(c.fd, 0);
		_exit(write(fds[1], &n, sizeof(n)) != sizeof(n));
	}
	close(c.fd);
	if (read(fds[0], &n, sizeof(n)) != sizeof(n))
		die("no count");
	waitpid(pid, NULL, 0);
	snprintf(want, sizeof(want), "ok %zu eof match", n);
	out("all=%d", !strcmp(peer("drain %d", c.id), want));
}

CASE_BOTH(killed_process_ends_its_connections)
{
	struct conn c = pair();
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	close(c.fd);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	peer_show("peer", "recv %d 1", c.id);
}

CASE_BOTH(close_with_unread_data_resets)
{
	struct conn c = pair();

	peer_ok("text %d abc", c.id);
	settle_bytes(c.fd, 3);
	ret("close", close(c.fd));
	peer_show("peer", "recv %d 1", c.id);
}

CASE_BOTH(close_then_data_resets)
{
	struct conn c = pair();

	ret("close", close(c.fd));
	peer_show("eof", "recv %d 1", c.id);
	peer_show("text", "text %d abc", c.id);
	nap_ms(100);
	peer_show("text", "text %d abc", c.id);
}

CASE_BOTH(reset_while_idle)
{
	struct conn c = pair();

	peer_ok("reset %d", c.id);
	rev("poll", settle(c.fd, POLLERR));
	state(c.fd);
	rev("poll", settle(c.fd, POLLERR));
	ret("shutdown", shutdown(c.fd, SHUT_WR));
}

CASE_BOTH(reset_told_by_so_error)
{
	struct conn c = pair();

	peer_ok("reset %d", c.id);
	settle(c.fd, POLLERR);
	out("so_error=%d", so_error(c.fd));
	out("so_error=%d", so_error(c.fd));
	rev("poll", settle(c.fd, POLLHUP));
	state(c.fd);
}

CASE_BOTH(reset_told_by_send)
{
	struct conn c = pair();

	peer_ok("reset %d", c.id);
	settle(c.fd, POLLERR);
	signal_count_on(SIGPIPE, true);
	ret("send", send(c.fd, "x", 1, 0));
	ret("send", send(c.fd, "x", 1, 0));
	out("sigpipe=%d", signal_count);
	state(c.fd);
}

/* The connection is over, and getpeername says so; what had come before can still be read. */
CASE_BOTH(ended_connection_has_no_peer)
{
	struct conn c = pair();
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	char buf[8];

	ret("before", getpeername(c.fd, SA(a), &len));
	peer_ok("text %d hello", c.id);
	settle_bytes(c.fd, 5);
	peer_ok("reset %d", c.id);
	rev("poll", settle(c.fd, POLLHUP));
	ret("reset", getpeername(c.fd, SA(a), &len));
	ret("recv", recv(c.fd, buf, 1, 0));
	close(c.fd);
	c = pair();
	peer_ok("shut %d 1", c.id);
	rev("poll", settle(c.fd, POLLIN));
	ret("half", getpeername(c.fd, SA(a), &len));
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	ret("eof", recv(c.fd, buf, 1, 0));
	peer_ok("drain %d", c.id);
	for (int i = 0; i < 400 && getpeername(c.fd, SA(a), &len) == 0; i++)
		nap_ms(5);
	ret("over", getpeername(c.fd, SA(a), &len));
}

CASE_BOTH(reset_with_unread_data)
{
	struct conn c = pair();

	peer_ok("text %d abc", c.id);
	settle_bytes(c.fd, 3);
	peer_ok("reset %d", c.id);
	rev("poll", settle(c.fd, POLLERR));
	state(c.fd);
}

CASE_BOTH(reset_after_end_of_file)
{
	struct conn c = pair();

	peer_ok("shut %d 1", c.id);
	settle(c.fd, POLLRDHUP);
	peer_ok("reset %d", c.id);
	rev("poll", settle(c.fd, POLLHUP));
	state(c.fd);
}

CASE_BOTH(reset_after_shutdown)
{
	struct conn c = pair();

	ret("shutdown", shutdown(c.fd, SHUT_WR));
	peer_show("peer", "recv %d 1", c.id);
	peer_ok("reset %d", c.id);
	rev("poll", settle(c.fd, POLLHUP));
	state(c.fd);
}

CASE_BOTH(reset_wakes_reader)
{
	struct conn c = pair();
	char b[8];

	peer_go("after 100 reset %d", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
	ret("recv", recv(c.fd, b, 8, 0));
}

CASE_BOTH(reset_wakes_writer)
{
	struct conn c = pair_narrow();
	char b[8];

	fill(c.fd, 0);
	set_nonblock(c.fd, false);
	peer_go("after 100 reset %d", c.id);
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	ret("recv", recv(c.fd, b, 8, 0));
}

CASE_BOTH(peer_closes_then_we_send)
{
	struct conn c = pair();

	peer_ok("close %d", c.id);
	settle(c.fd, POLLRDHUP);
	signal_count_on(SIGPIPE, true);
	ret("send", send(c.fd, "x", 1, 0));
	rev("poll", settle(c.fd, POLLHUP));
	ret("send", send(c.fd, "x", 1, 0));
	ret("send", send(c.fd, "x", 1, 0));
	out("sigpipe=%d", signal_count);
	state(c.fd);
}

CASE(reset_in_backlog)
{
	int l = listener(port(0)), id = peer_connect(port(0)), fd;

	settle(l, POLLIN);
	peer_ok("reset %d", id);
	nap_ms(50);
	set_nonblock(l, true);
	fd = ret_fd("accept", accept(l, NULL, NULL));
	if (fd >= 0)
		state(fd);
}

CASE(closed_in_backlog_with_data)
{
	int l = listener(port(0)), id = peer_connect(port(0)), fd;
	char b[8];

	peer_ok("text %d abc", id);
	peer_ok("close %d", id);
	nap_ms(50);
	fd = ret_fd("accept", accept(l, NULL, NULL));
	ret("recv", recv(fd, b, 8, 0));
	ret("eof", recv(fd, b, 8, 0));
}

CASE(close_of_listener_with_backlog)
{
	int l = listener(port(0)), id = peer_connect(port(0));

	settle(l, POLLIN);
	ret("close", close(l));
	peer_show("peer", "recv %d 1", id);
	peer_show("refused", "connect %d 0", port(0));
}

CASE(shutdown_of_listener)
{
	int l = listener(port(0));

	ret("shutdown", shutdown(l, SHUT_RDWR));
	rev("poll", settle(l, POLLHUP));
	set_nonblock(l, true);
	ret("accept", accept(l, NULL, NULL));
	peer_show("refused", "connect %d 0", port(0));
	ret("again", listen(l, 4));
	peer_show("peer", "connect %d 0", port(0));
}

/* it is an unconnected socket again, and one that may fail and try once more */
CASE(shutdown_listener_connects_at_last)
{
	struct sockaddr_in to = addr_peer(port(1));
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	int l = listener(port(0)), id = peer_ok("listen %d 4 0", port(1)), on = 0;
	socklen_t len = sizeof(on);
	char b[8];

	ret("nodelay", setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
	ret("shutdown", shutdown(l, SHUT_RDWR));
	ret("family", connect(l, (struct sockaddr *)&six, sizeof(six)));
	ret("connect", connect(l, SA(to), sizeof(to)));
	id = peer_ok("accept %d", id);
	ret("send", send(l, "abc", 3, 0));
	peer_show("peer", "recv %d 3", id);
	peer_ok("send %d 3", id);
	ret("recv", recv(l, b, 3, MSG_WAITALL));
	ret("get", getsockopt(l, IPPROTO_TCP, TCP_NODELAY, &on, &len));
	out("on=%d", on);
}

CASE_BOTH(linger_zero_resets)
{
	struct conn c = pair();

	linger(c.fd, 1, 0);
	ret("send", send(c.fd, "abc", 3, 0));
	nap_ms(50);
	ret("close", close(c.fd));
	peer_show("peer", "recv %d 8", c.id);
}

CASE_BOTH(linger_zero_after_shutdown)
{
	struct conn c = pair();

	linger(c.fd, 1, 0);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	peer_show("peer", "recv %d 8", c.id);
	ret("close", close(c.fd));
	nap_ms(50);
	peer_show("peer", "text %d abc", c.id);
}

CASE_BOTH(linger_waits_until_sent)
{
	struct conn c = pair_narrow();
	uint64_t start;

	fill(c.fd, 0);
	set_nonblock(c.fd, false);
	linger(c.fd, 1, 10);
	/* before the peer's 200 ms begin, or losing the processor here would shorten what is measured */
	start = now_ms();
	peer_go("after 200 drain %d", c.id);
	peer_reply();
	ret("close", close(c.fd));
	out("waited=%d", now_ms() - start >= 100 && now_ms() - start < 9000);
}

CASE_BOTH(linger_gives_up)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);
	uint64_t start;
	char want[64];

	set_nonblock(c.fd, false);
	linger(c.fd, 1, 1);
	start = now_ms();
	ret("close", close(c.fd));
	show_time("took", start, 1000);
	snprintf(want, sizeof(want), "ok %zu eof match", n);
	out("all=%d", !strcmp(peer("drain %d", c.id), want));
}

CASE_BOTH(linger_of_nonblocking)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);
	uint64_t start = now_ms();
	char want[64];

	linger(c.fd, 1, 1);
	ret("close", close(c.fd));
	show_time("took", start, 1000);
	snprintf(want, sizeof(want), "ok %zu eof match", n);
	out("all=%d", !strcmp(peer("drain %d", c.id), want));
}

CASE_BOTH(linger_with_nothing_to_send)
{
	struct conn c = pair();
	uint64_t start = now_ms();

	linger(c.fd, 1, 5);
	ret("close", close(c.fd));
	out("fast=%d", now_ms() - start < 2500);
	peer_show("peer", "recv %d 1", c.id);
}

CASE_BOTH(closed_by_both)
{
	struct conn c = pair();

	peer_ok("shut %d 1", c.id);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	peer_show("peer", "recv %d 1", c.id);
	rev("poll", settle(c.fd, POLLHUP));
	state(c.fd);
	ret("close", close(c.fd));
}
