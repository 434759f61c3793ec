/* dgram_wait.c - waiting for datagram sockets: poll, select, epoll in all its kinds, both sides of a wildcard
 * socket, threads, fork. */
#include "datagram.h"

#include <sys/select.h>

static int watch(int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = 7};
	int ep = epoll_create1(0);

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	return ep;
}

static void wait_show(const char *what, int ep, int ms)
{
	struct epoll_event ev[8] = {{0}};
	long n = ret(what, epoll_wait(ep, ev, 8, ms));

	for (long i = 0; i < n; i++)
		rev("", ev[i].events);
}

CASE(poll_levels)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), wild = udp_wild(port(2)), fresh = udp_socket();

	rev("fresh", settle(fresh, POLLOUT));
	rev("bound", settle(fd, POLLOUT));
	rev("wild", settle(wild, POLLOUT));
	peer_ok("udp_text %d %d a", id, port(1));
	peer_ok("udp_text %d %d a", id, port(2));
	rev("bound", settle(fd, POLLIN));
	rev("wild", settle(wild, POLLIN));
	recv_text("recv", fd, 0);
	recv_text("recv", wild, 0);
	rev("bound", settle(fd, POLLOUT));
	rev("wild", settle(wild, POLLOUT));
}

struct receiver {
	int fd;
	char text[8];
	long n;
};

static void *receive(void *arg)
{
	struct receiver *r = arg;

	r->n = recv(r->fd, r->text, sizeof(r->text), 0);
	return NULL;
}

/* A receive goes on when another thread dissolves the association, and gets what comes by the next one. */
CASE(recv_over_dissolve)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	struct sockaddr_in to = addr_peer(port(0)), mine;
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct receiver r = {.fd = fd};
	socklen_t len = sizeof(mine);
	pthread_t t;

	if (pthread_create(&t, NULL, receive, &r))
		die("pthread_create");
	nap_ms(60);
	ret("dissolve", connect(fd, &none, sizeof(none)));
	nap_ms(60);
	ret("connect", connect(fd, SA(to), sizeof(to)));
	getsockname(fd, SA(mine), &len);
	peer_ok("udp_text %d %d abc", id, ntohs(mine.sin_port));
	pthread_join(t, NULL);
	out("recv=%ld \"%.3s\"", r.n, r.text);
	ret("close", close(fd));
}

CASE(poll_both_sides)
{
	int id = peer_udp(port(0)), wild = udp_wild(port(2)), local = udp_local(port(3));
	struct pollfd p = {.fd = wild, .events = POLLIN};
	struct sockaddr_in to = addr_loopback(port(2));

	ret("none", poll(&p, 1, 0));
	ret("none", poll(&p, 1, 50));
	send_text("loop", local, "a", to);
	ret("poll", poll(&p, 1, 5000));
	rev("is", (unsigned)p.revents);
	recv_text("recv", wild, 0);
	peer_ok("after 60 udp_text %d %d b", id, port(2));
	ret("poll", poll(&p, 1, 5000));
	rev("is", (unsigned)p.revents);
	recv_text("recv", wild, 0);
	if (fork() == 0) {
		nap_ms(60);
		sendto(local, "c", 1, 0, SA(to), sizeof(to));
		_exit(0);
	}
	ret("poll", poll(&p, 1, 5000));
	rev("is", (unsigned)p.revents);
	recv_text("recv", wild, 0);
	wait(NULL);
	ret("none", poll(&p, 1, 0));
	recv_text("none", wild, MSG_DONTWAIT);
}

CASE(select_both_sides)
{
	int id = peer_udp(port(0)), wild = udp_wild(port(2)), local = udp_local(port(3));
	struct timeval tv = {.tv_usec = 20000};
	fd_set rd, wr;

	FD_ZERO(&rd);
	FD_ZERO(&wr);
	FD_SET(wild, &rd);
	FD_SET(wild, &wr);
	ret("select", select(wild + 1, &rd, &wr, NULL, NULL));
	out("rd=%d wr=%d", FD_ISSET(wild, &rd), FD_ISSET(wild, &wr));
	FD_ZERO(&rd);
	FD_SET(wild, &rd);
	ret("none", select(wild + 1, &rd, NULL, NULL, &tv));
	send_text("loop", local, "a", addr_loopback(port(2)));
	FD_SET(wild, &rd);
	ret("select", select(wild + 1, &rd, NULL, NULL, NULL));
	recv_text("recv", wild, 0);
	peer_ok("after 50 udp_text %d %d b", id, port(2));
	FD_SET(wild, &rd);
	ret("select", select(wild + 1, &rd, NULL, NULL, NULL));
	recv_text("recv", wild, 0);
}

static void read_all(int fd)
{
	char b[16];
	int n = 0;

	while (recv(fd, b, sizeof(b), MSG_DONTWAIT) >= 0)
		n++;
	out("read=%d", n);
}

CASE(epoll_level)
{
	int fd = udp_server(port(1)), id = peer_udp(port(0)), ep = watch(fd, EPOLLIN);

	wait_show("none", ep, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("wait", ep, 5000);
	wait_show("still", ep, 0);
	recv_text("recv", fd, 0);
	wait_show("none", ep, 0);
}

CASE(epoll_level_both_sides)
{
	int fd = udp_wild(port(1)), id = peer_udp(port(0)), local = udp_local(port(2)), ep;

	ep = watch(fd, EPOLLIN);
	wait_show("none", ep, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("wait", ep, 5000);
	wait_show("still", ep, 0);
	recv_text("recv", fd, 0);
	wait_show("none", ep, 0);
	send_text("loop", local, "b", addr_loopback(port(1)));
	wait_show("wait", ep, 5000);
	wait_show("still", ep, 0);
	recv_text("recv", fd, 0);
	wait_show("none", ep, 0);
	wait_show("none", ep, 30);
	peer_ok("udp_text %d %d c", id, port(1));
	send_text("loop", local, "d", addr_loopback(port(1)));
	nap_ms(50);
	wait_show("both", ep, 5000);
	read_all(fd);
	wait_show("none", ep, 0);
}

CASE(epoll_edge)
{
	int fd = udp_server(port(1)), id = peer_udp(port(0)), ep = watch(fd, EPOLLIN | EPOLLET);

	wait_show("none", ep, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("wait", ep, 5000);
	wait_show("once", ep, 20);
	peer_ok("udp_text %d %d b", id, port(1));
	wait_show("again", ep, 5000);
	wait_show("once", ep, 20);
	read_all(fd);
	peer_ok("udp_text %d %d c", id, port(1));
	wait_show("again", ep, 5000);
}

CASE(epoll_edge_both_sides)
{
	int fd = udp_wild(port(1)), id = peer_udp(port(0)), local = udp_local(port(2));
	int ep = watch(fd, EPOLLIN | EPOLLET);

	wait_show("none", ep, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("wait", ep, 5000);
	wait_show("once", ep, 20);
	send_text("loop", local, "b", addr_loopback(port(1)));
	wait_show("again", ep, 5000);
	wait_show("once", ep, 20);
	send_text("loop", local, "c", addr_loopback(port(1)));
	wait_show("again", ep, 5000);
	read_all(fd);
	wait_show("none", ep, 20);
	peer_ok("udp_text %d %d d", id, port(1));
	wait_show("again", ep, 5000);
	read_all(fd);
}

CASE(epoll_oneshot_both_sides)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT};
	int fd = udp_wild(port(1)), id = peer_udp(port(0)), local = udp_local(port(2));
	int ep = watch(fd, EPOLLIN | EPOLLONESHOT);

	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("wait", ep, 5000);
	send_text("loop", local, "b", addr_loopback(port(1)));
	wait_show("spent", ep, 30);
	ret("mod", epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
	wait_show("armed", ep, 5000);
	read_all(fd);
	ret("mod", epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
	wait_show("none", ep, 30);
	send_text("loop", local, "c", addr_loopback(port(1)));
	wait_show("armed", ep, 5000);
	peer_ok("udp_text %d %d d", id, port(1));
	wait_show("spent", ep, 30);
	ret("mod", epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
	wait_show("armed", ep, 5000);
	ret("del", epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	wait_show("gone", ep, 30);
	ret("del", epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
}

CASE(epoll_out)
{
	int fd = udp_wild(port(1)), ep = watch(fd, EPOLLIN | EPOLLOUT), id = peer_udp(port(0)), et;

	wait_show("out", ep, 5000);
	wait_show("out", ep, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	settle_in(fd);
	wait_show("both", ep, 5000);
	et = watch(fd, EPOLLIN | EPOLLOUT | EPOLLET);
	wait_show("edge", et, 5000);
	wait_show("once", et, 20);
}

CASE(epoll_added_before_bind)
{
	struct sockaddr_in a = addr_any(port(1));
	int fd = udp_socket(), ep = watch(fd, EPOLLIN), id = peer_udp(port(0)), local = udp_local(port(2));

	wait_show("none", ep, 0);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	wait_show("none", ep, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("net", ep, 5000);
	read_all(fd);
	send_text("loop", local, "b", addr_loopback(port(1)));
	wait_show("loop", ep, 5000);
	read_all(fd);
	a = addr_peer(port(0));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	wait_show("none", ep, 20);
	peer_ok("udp_text %d %d c", id, port(1));
	wait_show("net", ep, 5000);
	read_all(fd);
	ret("dissolve", connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
	send_text("loop", local, "d", addr_loopback(port(1)));
	wait_show("loop", ep, 5000);
	read_all(fd);
	wait_show("none", ep, 0);
}

CASE(epoll_added_before_connect)
{
	struct sockaddr_in a = addr_peer(port(0));
	int fd = udp_socket(), ep = watch(fd, EPOLLIN), id = peer_udp(port(0));

	ret("connect", connect(fd, SA(a), sizeof(a)));
	wait_show("none", ep, 0);
	peer_go("udp_echo %d 1", id);
	ret("send", send(fd, "abc", 3, 0));
	wait_show("in", ep, 5000);
	out("%s", peer_reply());
	read_all(fd);
	wait_show("none", ep, 0);
}

CASE(epoll_nested_both_sides)
{
	int fd = udp_wild(port(1)), id = peer_udp(port(0)), local = udp_local(port(2));
	int inner = watch(fd, EPOLLIN), outer = watch(inner, EPOLLIN);

	wait_show("none", outer, 0);
	peer_ok("udp_text %d %d a", id, port(1));
	wait_show("net", outer, 5000);
	wait_show("inner", inner, 0);
	read_all(fd);
	wait_show("none", outer, 0);
	send_text("loop", local, "b", addr_loopback(port(1)));
	wait_show("loop", outer, 5000);
	wait_show("inner", inner, 0);
	read_all(fd);
	wait_show("none", outer, 0);
}

CASE(epoll_closed_member)
{
	int fd = udp_wild(port(1)), local = udp_local(port(2)), ep = watch(fd, EPOLLIN);

	send_text("loop", local, "b", addr_loopback(port(1)));
	settle_in(fd);
	close(fd);
	wait_show("gone", ep, 30);
	fd = udp_wild(port(1));
	send_text("loop", local, "b", addr_loopback(port(1)));
	settle_in(fd);
	wait_show("not_a_member", ep, 30);
}

CASE(epoll_dup_outlives_number)
{
	int fd = udp_wild(port(1)), local = udp_local(port(2)), two = dup(fd), id = peer_udp(port(0));

	send_text("loop", local, "a", addr_loopback(port(1)));
	recv_text("recv", two, 0);
	close(fd);
	send_text("loop", local, "b", addr_loopback(port(1)));
	recv_text("recv", two, 0);
	peer_ok("udp_text %d %d c", id, port(1));
	recv_text("recv", two, 0);
	close(two);
}

static void *reader(void *arg)
{
	char b[16];
	long n = recv(*(int *)arg, b, sizeof(b), 0);

	return n > 0 ? (void *)(uintptr_t)(unsigned char)b[0] : NULL;
}

CASE(two_threads_read)
{
	int fd = udp_wild(port(1)), id = peer_udp(port(0)), local = udp_local(port(2));
	pthread_t a, b;
	void *x, *y;

	pthread_create(&a, NULL, reader, &fd);
	pthread_create(&b, NULL, reader, &fd);
	nap_ms(50);
	peer_ok("udp_text %d %d A", id, port(1));
	send_text("loop", local, "B", addr_loopback(port(1)));
	pthread_join(a, &x);
	pthread_join(b, &y);
	out("sum=%d", (int)((uintptr_t)x + (uintptr_t)y));
}

CASE(shutdown_wakes_a_reader)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), wild = udp_wild(port(1));
	pthread_t t, u;
	void *x, *y;

	(void)id;
	pthread_create(&t, NULL, reader, &fd);
	pthread_create(&u, NULL, reader, &wild);
	nap_ms(50);
	ret("shutdown", shutdown(fd, SHUT_RD));
	ret("shutdown", shutdown(wild, SHUT_RD));
	pthread_join(t, &x);
	pthread_join(u, &y);
	out("got=%d,%d", (int)(uintptr_t)x, (int)(uintptr_t)y);
}

struct sender {
	int fd, count, failed;
};

static void *sender(void *arg)
{
	struct sender *s = arg;

	for (int i = 0; i < s->count; i++)
		s->failed += send(s->fd, "0123456789", 10, 0) != 10;
	return NULL;
}

CASE(two_threads_send)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), bad = 0;
	struct sender s[2] = {{fd, 100, 0}, {fd, 100, 0}};
	pthread_t t[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, sender, &s[i]);
	for (int i = 0; i < 200; i++)
		bad += strstr(peer("udp_show %d", id), "0123456789") == NULL;
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	out("bad=%d failed=%d", bad, s[0].failed + s[1].failed);
	peer_show("quiet", "udp_quiet %d 20", id);
}

CASE(forked_child_shares)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), local = udp_local(port(2)), st = 0;
	pid_t pid = fork();

	if (!pid) {
		char b[16] = "";
		struct sockaddr_in a;
		socklen_t len = sizeof(a);
		int ok = recvfrom(fd, b, sizeof(b), 0, SA(a), &len) == 5 && !strcmp(b, "child");

		ok = ok && sendto(fd, "back", 4, 0, SA(a), len) == 4;
		ok = ok && recvfrom(fd, b, sizeof(b), 0, SA(a), &len) == 4;
		_exit(ok ? 0 : 1);
	}
	nap_ms(50);
	peer_ok("udp_text %d %d child", id, port(1));
	peer_show("got", "udp_show %d", id);
	send_text("loop", local, "loop", addr_loopback(port(1)));
	waitpid(pid, &st, 0);
	out("status=%d", st);
	peer_ok("udp_text %d %d parent", id, port(1));
	recv_text("recv", fd, 0);
}

CASE(parent_exits_first)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), p[2];
	char c;

	if (pipe(p) < 0)
		die("pipe");
	if (fork() == 0) {
		if (fork() == 0) {
			char b[16];
			struct sockaddr_in a;
			socklen_t len = sizeof(a);

			nap_ms(100);
			if (write(p[1], "r", 1) != 1)
				_exit(1);
			for (int i = 0; i < 2; i++) {
				long n = recvfrom(fd, b, sizeof(b), 0, SA(a), &len);

				sendto(fd, b, (size_t)n, 0, SA(a), len);
			}
			_exit(0);
		}
		_exit(0);
	}
	wait(NULL);
	close(fd);
	ret("ready", read(p[0], &c, 1));
	peer_ok("udp_text %d %d one", id, port(1));
	peer_show("got", "udp_show %d", id);
	peer_ok("udp_text %d %d two", id, port(1));
	peer_show("got", "udp_show %d", id);
}

CASE(nonblocking_is_shared)
{
	int fd = udp_wild(port(0)), two = dup(fd);
	char b[4];

	set_nonblock(fd, true);
	ret("recv", recv(two, b, sizeof(b), 0));
	out("fl=%x", fcntl(two, F_GETFL));
	set_nonblock(two, false);
	out("fl=%x", fcntl(fd, F_GETFL));
}

/* A bound socket of both sides goes to another process in a message and works there. */
CASE(passed_in_a_message)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), local = udp_local(port(2)), un[2], got = -1;
	union {
		char b[CMSG_SPACE(sizeof(int))];
		struct cmsghdr h;
	} u = {.h = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	char b = 'x';
	struct iovec v = {&b, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)};

	memcpy(CMSG_DATA(&u.h), &fd, sizeof(fd));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, un) < 0)
		die("socketpair");
	ret("send", sendmsg(un[0], &m, 0));
	close(fd);
	m.msg_controllen = sizeof(u);
	ret("recv", recvmsg(un[1], &m, 0));
	memcpy(&got, CMSG_DATA(&u.h), sizeof(got));
	show_names(got);
	peer_ok("udp_text %d %d net", id, port(1));
	recv_text("recv", got, 0);
	send_text("local", local, "loop", addr_loopback(port(1)));
	recv_text("recv", got, 0);
	send_text("send", got, "back", addr_peer(port(0)));
	peer_show("got", "udp_show %d", id);
}

/* The member's number is another file's, in the same set, when the member changes sides. */
CASE(epoll_number_used_again_by_another_member)
{
	int id = peer_udp(port(0)), local = udp_local(port(1)), a = udp_socket(), b = dup(a), t;
	struct sockaddr_in to = addr_peer(port(0)), near = addr_loopback(port(1)), from;
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 1};
	socklen_t len = sizeof(from);
	int ep = epoll_create1(0);

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev));
	ret("close", close(a));
	t = udp_socket();
	out("same=%d", t == a);
	ev.data.u64 = 2;
	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, t, &ev));
	send_text("send", b, "a", to);
	send_text("near", t, "b", near);
	ret("recv", recvfrom(local, (char[8]){0}, 8, 0, SA(from), &len));
	ret("back", sendto(local, "c", 1, 0, SA(from), len));
	ret("wait", epoll_wait(ep, &ev, 1, 5000));
	out("data=%d", (int)ev.data.u64);
	recv_text("recv", t, MSG_DONTWAIT);
	len = sizeof(from);
	getsockname(b, SA(from), &len);
	peer_ok("udp_text %d %d d", id, ntohs(from.sin_port));
	ret("wait", epoll_wait(ep, &ev, 1, 5000));
	out("data=%d", (int)ev.data.u64);
}

/* --- a socket that becomes ours while somebody waits --- */

struct waiter {
	int fd;
	int kind, ready;
	long n;
	char text[8];
};

static void *waiting(void *arg)
{
	struct waiter *w = arg;
	struct pollfd p = {.fd = w->fd, .events = POLLIN};
	fd_set rd;

	FD_ZERO(&rd);
	FD_SET(w->fd, &rd);
	if (w->kind == 1)
		w->ready = poll(&p, 1, 8000);
	else if (w->kind == 2)
		w->ready = select(w->fd + 1, &rd, NULL, NULL, &(struct timeval){8, 0});
	if (w->kind == 3) {
		struct iovec iov = {w->text, sizeof(w->text)};
		struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};

		w->ready = recvmmsg(w->fd, &m, 1, 0, NULL);
		w->n = m.msg_len;
		return NULL;
	}
	w->n = recv(w->fd, w->text, sizeof(w->text), w->kind ? MSG_DONTWAIT : 0);
	return NULL;
}

static void first_send_while_waiting(int kind)
{
	int id = peer_udp(port(0)), fd = udp_socket();
	struct sockaddr_in to = addr_peer(port(0)), mine;
	struct timeval tv = {.tv_sec = 8};
	struct waiter w = {.fd = fd, .kind = kind};
	socklen_t len = sizeof(mine);
	pthread_t t;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (pthread_create(&t, NULL, waiting, &w))
		die("pthread_create");
	nap_ms(60);
	send_text("send", fd, "a", to);
	getsockname(fd, SA(mine), &len);
	peer_ok("udp_text %d %d abc", id, ntohs(mine.sin_port));
	pthread_join(t, NULL);
	out("ready=%d recv=%ld \"%.3s\"", w.ready, w.n, w.text);
}

CASE(first_send_while_another_thread_receives)
{
	first_send_while_waiting(0);
}

CASE(first_send_while_another_thread_polls)
{
	first_send_while_waiting(1);
}

CASE(first_send_while_another_thread_selects)
{
	first_send_while_waiting(2);
}

CASE(first_send_while_another_thread_receives_several)
{
	first_send_while_waiting(3);
}

/* The other half comes while a thread waits on the one. */
static void other_half_while_waiting(int kind)
{
	int id = peer_udp(port(0)), fd = udp_socket(), local = udp_local(port(1));
	struct sockaddr_in to = addr_peer(port(0)), near = addr_loopback(port(1)), from;
	struct timeval tv = {.tv_sec = 8};
	struct waiter w = {.fd = fd, .kind = kind};
	socklen_t len = sizeof(from);
	char b[8];
	pthread_t t;

	(void)id;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	send_text("send", fd, "a", to);
	if (pthread_create(&t, NULL, waiting, &w))
		die("pthread_create");
	nap_ms(60);
	send_text("near", fd, "b", near);
	ret("recv", recvfrom(local, b, sizeof(b), 0, SA(from), &len));
	ret("back", sendto(local, "abc", 3, 0, SA(from), len));
	pthread_join(t, NULL);
	out("ready=%d recv=%ld \"%.3s\"", w.ready, w.n, w.text);
}

CASE(other_half_while_another_thread_receives)
{
	other_half_while_waiting(0);
}

CASE(other_half_while_another_thread_polls)
{
	other_half_while_waiting(1);
}

CASE(other_half_while_another_thread_selects)
{
	other_half_while_waiting(2);
}
