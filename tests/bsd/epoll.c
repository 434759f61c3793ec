/* epoll.c - epoll with sockets only: errors of epoll_ctl and epoll_wait, level, edge, one-shot, who is a
 * member and how long, nested sets, several waiters, time-outs, signals and masks. Sets with the kernel's
 * descriptors too are in epoll_mixed.c. */
#include "bsd.h"

#include <sys/select.h>

enum { ALL = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLRDNORM | EPOLLWRNORM };

static void *volatile null_pointer; /* hides a NULL from the compiler */
static volatile int minus_one = -1;

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	if (ctl(ep, EPOLL_CTL_ADD, fd, events, data) < 0)
		die("EPOLL_CTL_ADD: %s", strerror(errno));
}

/* Waits up to ms and shows what came, in the order of the data. */
static int take(const char *what, int ep, int ms)
{
	struct epoll_event ev[16];
	int n = epoll_wait(ep, ev, 16, ms);

	ret(what, n);
	for (uint64_t data = 0; data < 100; data++)
		for (int i = 0; i < n; i++)
			if (ev[i].data.u64 == data) {
				char name[16];

				snprintf(name, sizeof(name), "%d", (int)data);
				rev(name, ev[i].events);
			}
	return n;
}

CASE(create)
{
	ret("zero", epoll_create(0));
	ret("negative", epoll_create(-1));
	out("fd=%x", fcntl(ret_fd("one", epoll_create(1)), F_GETFD));
	out("fd=%x", fcntl(ret_fd("plain", epoll_create1(0)), F_GETFD));
	out("fd=%x", fcntl(ret_fd("cloexec", epoll_create1(EPOLL_CLOEXEC)), F_GETFD));
	ret("bad_flag", epoll_create1(0x10));
}

CASE_BOTH(ctl_errors)
{
	struct conn c = pair();
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = set_new(), gone = dup(c.fd), file = open("/proc/self/exe", O_RDONLY);

	close(gone);
	ret("bad_set", epoll_ctl(-1, EPOLL_CTL_ADD, c.fd, &ev));
	ret("closed_set", epoll_ctl(gone, EPOLL_CTL_ADD, c.fd, &ev));
	ret("not_a_set", epoll_ctl(c.fd, EPOLL_CTL_ADD, ep, &ev));
	ret("bad_fd", epoll_ctl(ep, EPOLL_CTL_ADD, -1, &ev));
	ret("closed_fd", epoll_ctl(ep, EPOLL_CTL_ADD, gone, &ev));
	ret("itself", epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
	ret("file", epoll_ctl(ep, EPOLL_CTL_ADD, file, &ev));
	ret("bad_op", epoll_ctl(ep, 77, c.fd, &ev));
	ret("null_add", epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, null_pointer));
	ret("mod_absent", epoll_ctl(ep, EPOLL_CTL_MOD, c.fd, &ev));
	ret("del_absent", epoll_ctl(ep, EPOLL_CTL_DEL, c.fd, &ev));
	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, &ev));
	ret("twice", epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, &ev));
	ret("null_mod", epoll_ctl(ep, EPOLL_CTL_MOD, c.fd, null_pointer));
	ret("mod", epoll_ctl(ep, EPOLL_CTL_MOD, c.fd, &ev));
	ret("null_del", epoll_ctl(ep, EPOLL_CTL_DEL, c.fd, null_pointer));
	ret("del_again", epoll_ctl(ep, EPOLL_CTL_DEL, c.fd, &ev));
}

CASE_BOTH(ctl_add_twice_changes_nothing)
{
	struct conn c = pair();
	int ep = set_new();

	add(ep, c.fd, EPOLLOUT, 7);
	ret("twice", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN, 8));
	take("wait", ep, 0);
}

CASE_BOTH(ctl_exclusive)
{
	struct conn c = pair();
	int ep = set_new(), inner = set_new();

	ret("oneshot", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0));
	ret("rdhup", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP, 0));
	ret("set", ctl(ep, EPOLL_CTL_ADD, inner, EPOLLIN | EPOLLEXCLUSIVE, 0));
	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLEXCLUSIVE, 1));
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN, 2));
	take("wait", ep, 0);
	ret("del", ctl(ep, EPOLL_CTL_DEL, c.fd, 0, 0));
	ret("plain", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN, 3));
	ret("mod_to", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN | EPOLLEXCLUSIVE, 4));
}

CASE_BOTH(wait_errors)
{
	struct conn c = pair();
	struct epoll_event ev[2];
	struct timespec bad[] = {{-1, 0}, {0, -1}, {0, 1000000000}};
	int ep = set_new();

	add(ep, c.fd, EPOLLIN, 1);
	ret("bad_set", epoll_wait(-1, ev, 2, 0));
	ret("not_a_set", epoll_wait(c.fd, ev, 2, 0));
	ret("zero", epoll_wait(ep, ev, 0, 0));
	ret("negative", epoll_wait(ep, ev, minus_one, 0));
	ret("null_idle", epoll_wait(ep, null_pointer, 2, 0));
	for (int i = 0; i < 3; i++)
		ret("time", epoll_pwait2(ep, ev, 2, &bad[i], NULL));
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLOUT, 1));
	ret("null_ready", epoll_wait(ep, null_pointer, 2, 0));
	ret("close", close(ep));
	ret("closed", epoll_wait(ep, ev, 2, 0));
	ret("closed", ctl(ep, EPOLL_CTL_DEL, c.fd, 0, 0));
}

CASE_BOTH(level_triggered)
{
	struct conn c = pair();
	char buf[8];
	int ep = set_new();

	add(ep, c.fd, EPOLLIN, 1);
	take("idle", ep, 0);
	peer_ok("send %d 6", c.id);
	settle_bytes(c.fd, 6);
	take("data", ep, 8000);
	take("again", ep, 0);
	ret("recv", recv(c.fd, buf, 3, 0));
	take("rest", ep, 0);
	ret("recv", recv(c.fd, buf, 3, 0));
	take("empty", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, ALL, 2));
	take("out", ep, 0);
	take("out", ep, 0);
}

CASE_BOTH(edge_triggered_in)
{
	struct conn c = pair();
	char buf[8];
	int ep = set_new();

	add(ep, c.fd, EPOLLIN | EPOLLET, 1);
	take("idle", ep, 0);
	peer_ok("send %d 4", c.id);
	take("data", ep, 8000);
	take("again", ep, 20);
	settle_bytes(c.fd, 4);
	ret("recv", recv(c.fd, buf, 2, 0));
	take("after_part", ep, 20);
	peer_ok("send %d 2", c.id);
	take("more", ep, 8000);
	settle_bytes(c.fd, 4);
	take("again", ep, 20);
	ret("recv", recv(c.fd, buf, 8, 0));
	ret("empty", recv(c.fd, buf, 8, MSG_DONTWAIT));
	take("none", ep, 20);
	peer_ok("send %d 2", c.id);
	take("new", ep, 8000);
	settle_bytes(c.fd, 2);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN | EPOLLET, 2));
	take("rearmed", ep, 20);
	take("once", ep, 20);
	ret("del", ctl(ep, EPOLL_CTL_DEL, c.fd, 0, 0));
	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN | EPOLLET, 3));
	take("added", ep, 20);
	take("once", ep, 20);
}

CASE_BOTH(edge_triggered_out)
{
	struct conn c = pair_narrow();
	size_t sent;
	int ep = set_new();

	add(ep, c.fd, EPOLLOUT | EPOLLET, 1);
	take("first", ep, 0);
	take("once", ep, 20);
	sent = fill(c.fd, 0);
	take("full", ep, 0);
	take("full", ep, 20);
	peer_go("recv %d %zu", c.id, sent);
	take("drained", ep, 8000);
	out("match=%d", strstr(peer_reply(), "more match") != NULL);
}

CASE_BOTH(edge_triggered_both)
{
	struct conn c = pair();
	char buf[8];
	int ep = set_new();

	add(ep, c.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 1);
	take("first", ep, 0);
	take("once", ep, 20);
	peer_ok("send %d 4", c.id);
	take("data", ep, 8000);
	settle_bytes(c.fd, 4);
	take("once", ep, 20);
	peer_ok("shut %d 1", c.id);
	take("fin", ep, 8000);
	take("once", ep, 20);
	ret("recv", recv(c.fd, buf, 8, 0));
	ret("recv", recv(c.fd, buf, 8, 0));
	take("read", ep, 20);
}

CASE(edge_triggered_accept)
{
	int l = listener(port(0)), ep = set_new();

	add(ep, l, EPOLLIN | EPOLLET, 1);
	take("idle", ep, 0);
	peer_connect(port(0));
	take("one", ep, 8000);
	take("again", ep, 20);
	peer_connect(port(0));
	take("two", ep, 8000);
	take("again", ep, 20);
	ret_fd("accept", accept(l, NULL, NULL));
	take("left", ep, 20);
	peer_connect(port(0));
	take("three", ep, 8000);
	ret_fd("accept", accept(l, NULL, NULL));
	ret_fd("accept", accept(l, NULL, NULL));
	take("none", ep, 20);
}

CASE_BOTH(one_shot)
{
	struct conn c = pair();
	int ep = set_new();

	add(ep, c.fd, EPOLLIN | EPOLLONESHOT, 1);
	peer_ok("send %d 2", c.id);
	take("data", ep, 8000);
	settle_bytes(c.fd, 2);
	take("spent", ep, 20);
	peer_ok("send %d 2", c.id);
	settle_bytes(c.fd, 4);
	take("spent", ep, 20);
	peer_ok("reset %d", c.id);
	settle(c.fd, EPOLLERR);
	take("silent", ep, 20);
	ret("twice", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN, 1));
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN | EPOLLONESHOT, 2));
	take("rearmed", ep, 20);
	take("spent", ep, 20);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLOUT | EPOLLONESHOT | EPOLLET, 3));
	take("rearmed", ep, 20);
	take("spent", ep, 20);
}

CASE_BOTH(endings)
{
	struct conn fin = pair(), reset = pair(), half = pair(), own = pair();
	int ep = set_new(), quiet = set_new();

	add(ep, fin.fd, ALL, 1);
	add(ep, reset.fd, ALL, 2);
	add(ep, half.fd, ALL, 3);
	add(ep, own.fd, ALL, 4);
	add(quiet, fin.fd, 0, 1);
	add(quiet, reset.fd, 0, 2);
	add(quiet, half.fd, EPOLLIN, 3);
	add(quiet, own.fd, EPOLLRDHUP, 4);
	take("idle", quiet, 0);
	peer_ok("close %d", fin.id);
	peer_ok("reset %d", reset.id);
	peer_ok("shut %d 1", half.id);
	ret("shutdown", shutdown(own.fd, SHUT_RDWR));
	settle(fin.fd, EPOLLRDHUP);
	settle(reset.fd, EPOLLERR);
	settle(half.fd, EPOLLRDHUP);
	take("all", ep, 8000);
	take("quiet", quiet, 8000);
	ret("shutdown", shutdown(half.fd, SHUT_WR));
	take("quiet", quiet, 0);
}

CASE(member_before_connect)
{
	struct sockaddr_in a;
	int id, at, ep = set_new(), edge = set_new(), fd = tcp_socket();

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	set_nonblock(fd, true);
	add(ep, fd, ALL, 1);
	add(edge, fd, ALL | EPOLLET, 2);
	take("fresh", ep, 0);
	take("fresh", edge, 0);
	take("once", edge, 0);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	take("edge", edge, 8000);
	take("level", ep, 0);
	id = peer_ok("accept %d", id);
	peer_ok("send %d 2", id);
	settle(fd, EPOLLIN);
	take("level", ep, 0);
	take("edge", edge, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, fd, EPOLLIN, 3));
	take("level", ep, 0);
	ret("del", ctl(ep, EPOLL_CTL_DEL, fd, 0, 0));
	take("gone", ep, 0);
}

CASE(member_whose_connect_is_refused)
{
	struct sockaddr_in a = addr_peer(1);
	int ep = set_new(), err = -1, fd = tcp_socket();
	socklen_t len = sizeof(err);

	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	add(ep, fd, EPOLLOUT, 1);
	take("wait", ep, 8000);
	ret("so_error", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("err=%s", strerrorname_np(err));
	take("wait", ep, 0);
}

CASE(member_before_listen)
{
	struct sockaddr_in a = addr_server(port(0));
	int ep = set_new(), fd = tcp_socket(), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	add(ep, fd, EPOLLIN, 1);
	take("fresh", ep, 0);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	take("bound", ep, 0);
	ret("listen", listen(fd, 4));
	take("listening", ep, 0);
	peer_connect(port(0));
	take("connection", ep, 8000);
	ret_fd("accept", accept(fd, NULL, NULL));
	take("none", ep, 0);
}

CASE_BOTH(member_of_two_sets)
{
	struct conn c = pair();
	char buf[8];
	int one = set_new(), two = set_new(), three = set_new();

	add(one, c.fd, EPOLLIN, 1);
	add(two, c.fd, EPOLLIN | EPOLLET, 2);
	add(three, c.fd, EPOLLIN | EPOLLONESHOT, 3);
	peer_ok("send %d 4", c.id);
	take("one", one, 8000);
	take("two", two, 8000);
	take("three", three, 8000);
	settle_bytes(c.fd, 4);
	take("two", two, 20);
	ret("recv", recv(c.fd, buf, 8, 0));
	take("one", one, 0);
	ret("close", close(two));
	peer_ok("send %d 4", c.id);
	take("one", one, 8000);
	ret("mod", ctl(three, EPOLL_CTL_MOD, c.fd, EPOLLIN, 4));
	take("three", three, 8000);
}

CASE_BOTH(close_removes)
{
	struct conn c = pair(), d;
	int ep = set_new(), fd = c.fd;

	add(ep, c.fd, EPOLLIN, 1);
	peer_ok("send %d 4", c.id);
	settle(c.fd, EPOLLIN);
	ret("close", close(c.fd));
	take("closed", ep, 20);
	d = pair();
	if (d.fd != fd) {
		dup2(d.fd, fd);
		close(d.fd);
		d.fd = fd;
	}
	take("reused", ep, 20);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, d.fd, EPOLLIN, 2));
	ret("add", ctl(ep, EPOLL_CTL_ADD, d.fd, EPOLLIN, 3));
	peer_ok("send %d 4", d.id);
	take("new", ep, 8000);
}

CASE_BOTH(dup_keeps_member)
{
	struct conn c = pair();
	int ep = set_new(), fd = c.fd, copy = dup(c.fd);

	add(ep, c.fd, EPOLLIN, 1);
	ret("add_copy", ctl(ep, EPOLL_CTL_ADD, copy, EPOLLOUT, 2));
	peer_ok("send %d 4", c.id);
	settle(c.fd, EPOLLIN);
	take("both", ep, 0);
	ret("close", close(fd));
	take("still", ep, 0);
	ret("del_closed", ctl(ep, EPOLL_CTL_DEL, fd, 0, 0));
	ret("del_copy", ctl(ep, EPOLL_CTL_DEL, copy, 0, 0));
	take("first", ep, 0);
	ret("close", close(copy));
	take("none", ep, 20);
}

CASE_BOTH(dup2_over_member)
{
	struct conn c = pair(), d = pair();
	int ep = set_new();

	add(ep, c.fd, EPOLLOUT, 1);
	ret("dup2", dup2(d.fd, c.fd) == c.fd);
	take("replaced", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLOUT, 2));
	peer_show("eof", "recv %d 1", c.id);
}

CASE_BOTH(mod_changes_events_and_data)
{
	struct conn c = pair();
	int ep = set_new();

	add(ep, c.fd, EPOLLIN, 1);
	take("in", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLOUT, 2));
	take("out", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, 0, 3));
	take("none", ep, 0);
	peer_ok("reset %d", c.id);
	take("reset", ep, 8000);
}

CASE_BOTH(del_while_ready)
{
	struct conn c = pair(), d = pair();
	int ep = set_new();

	add(ep, c.fd, EPOLLIN | EPOLLOUT, 1);
	add(ep, d.fd, EPOLLIN | EPOLLOUT, 2);
	take("two", ep, 0);
	ret("del", ctl(ep, EPOLL_CTL_DEL, c.fd, 0, 0));
	take("one", ep, 0);
	peer_ok("send %d 4", c.id);
	settle(c.fd, EPOLLIN);
	take("one", ep, 0);
}

CASE_BOTH(data_is_kept_whole)
{
	struct conn c = pair();
	struct epoll_event ev[2];
	int ep = set_new();

	add(ep, c.fd, EPOLLOUT, 0xfedcba9876543210);
	ret("wait", epoll_wait(ep, ev, 2, 0));
	out("data=%llx", (unsigned long long)ev[0].data.u64);
}

/* Level-triggered members take turns: with room for three, four waits show all ten. */
CASE(few_at_a_time_shows_all)
{
	enum { COUNT = 10 };
	struct epoll_event ev[3];
	bool seen[COUNT] = {false};
	int ep = set_new(), count = 0;

	for (int i = 0; i < COUNT; i++)
		add(ep, pair().fd, EPOLLOUT, (uint64_t)i);
	for (int turn = 0; turn < 4; turn++) {
		int n = (int)ret("wait", epoll_wait(ep, ev, 3, 0));

		for (int i = 0; i < n; i++)
			seen[ev[i].data.u64] = true;
	}
	for (int i = 0; i < COUNT; i++)
		count += seen[i];
	out("seen=%d", count);
	for (int i = 0; i < 4; i++) /* edges stay in the list until there is room for them */
		add(ep, pair().fd, EPOLLOUT | EPOLLET, 100);
	count = 0;
	for (int turn = 0; turn < 12; turn++) {
		int n = epoll_wait(ep, ev, 3, 0);

		for (int i = 0; i < n; i++)
			count += ev[i].data.u64 == 100;
	}
	out("edges=%d", count);
}

CASE_BOTH(nested)
{
	struct conn c = pair();
	struct pollfd p;
	struct timeval tv = {8, 0};
	fd_set rd;
	char buf[8];
	int outer = set_new(), inner = set_new();

	add(inner, c.fd, EPOLLIN, 1);
	add(outer, inner, EPOLLIN, 2);
	take("outer", outer, 0);
	p = (struct pollfd){.fd = inner, .events = POLLIN | POLLOUT};
	ret("poll", poll(&p, 1, 20));
	peer_ok("after 40 send %d 4", c.id);
	take("outer", outer, 8000);
	take("inner", inner, 0);
	take("outer", outer, 0);
	p = (struct pollfd){.fd = inner, .events = POLLIN | POLLOUT};
	ret("poll", poll(&p, 1, 0));
	rev("is", (unsigned int)p.revents);
	FD_ZERO(&rd);
	FD_SET(inner, &rd);
	ret("select", select(inner + 1, &rd, NULL, NULL, &tv));
	settle_bytes(c.fd, 4);
	ret("recv", recv(c.fd, buf, 8, 0));
	take("outer", outer, 0);
	ret("poll", poll(&p, 1, 0));
	peer_ok("after 40 send %d 4", c.id);
	ret("poll", poll(&p, 1, 8000));
	rev("is", (unsigned int)p.revents);
	settle_bytes(c.fd, 4);
	ret("recv", recv(c.fd, buf, 8, 0));
	peer_ok("after 40 shut %d 1", c.id);
	FD_ZERO(&rd);
	FD_SET(inner, &rd);
	ret("select", select(inner + 1, &rd, NULL, NULL, &tv));
	take("inner", inner, 0);
	ret("loop", ctl(inner, EPOLL_CTL_ADD, outer, EPOLLIN, 3));
	ret("close", close(inner));
	take("closed", outer, 0);
}

CASE_BOTH(nested_edge)
{
	struct conn c = pair();
	int outer = set_new(), inner = set_new();

	add(outer, inner, EPOLLIN | EPOLLET, 2);
	add(inner, c.fd, EPOLLIN | EPOLLET, 1);
	peer_ok("after 30 send %d 4", c.id);
	take("outer", outer, 8000);
	take("once", outer, 20);
	take("inner", inner, 0);
	take("once", inner, 20);
	peer_ok("after 30 send %d 4", c.id);
	take("outer", outer, 8000);
	take("inner", inner, 0);
}

CASE_BOTH(timeouts)
{
	struct conn c = pair();
	struct epoll_event ev[2];
	struct timespec ts = {0, 60000000}, zero = {0, 0};
	uint64_t start = now_ms();
	int ep = set_new();

	ret("no_member", epoll_wait(ep, ev, 2, 60));
	show_time("time", start, 60);
	add(ep, c.fd, EPOLLIN, 1);
	start = now_ms();
	ret("wait", epoll_wait(ep, ev, 2, 60));
	show_time("time", start, 60);
	start = now_ms();
	ret("pwait2", epoll_pwait2(ep, ev, 2, &ts, NULL));
	show_time("time", start, 60);
	ret("zero", epoll_pwait2(ep, ev, 2, &zero, NULL));
	peer_ok("after 60 send %d 1", c.id);
	ret("forever", epoll_wait(ep, ev, 2, -1));
	ret("forever", epoll_pwait2(ep, ev, 2, NULL, NULL));
	ret("negative", epoll_pwait(ep, ev, 2, -5, NULL));
}

CASE_BOTH(signal_interrupts)
{
	struct conn c = pair();
	struct epoll_event ev[2];
	struct timespec ts = {8, 0};
	int ep = set_new();

	add(ep, c.fd, EPOLLIN, 1);
	for (int restart = 0; restart < 2; restart++) {
		signal_count_on(SIGALRM, restart);
		alarm_ms(40);
		ret("wait", epoll_wait(ep, ev, 2, 8000));
		alarm_ms(40);
		ret("forever", epoll_wait(ep, ev, 2, -1));
		alarm_ms(40);
		ret("pwait2", epoll_pwait2(ep, ev, 2, &ts, NULL));
		out("signals=%d", signal_count);
	}
}

CASE_BOTH(signal_mask_is_atomic)
{
	struct conn c = pair();
	struct epoll_event ev[2];
	struct timespec ts = {8, 0}, zero = {0, 0};
	sigset_t block, none, now;
	int ep = set_new();

	add(ep, c.fd, EPOLLIN, 1);
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	signal_count_on(SIGUSR1, false);
	sigprocmask(SIG_BLOCK, &block, NULL);
	raise(SIGUSR1);
	ret("plain", epoll_wait(ep, ev, 2, 20));
	ret("pwait", epoll_pwait(ep, ev, 2, 8000, &none));
	out("delivered=%d", signal_count);
	sigprocmask(SIG_BLOCK, NULL, &now);
	out("restored=%d", sigismember(&now, SIGUSR1));
	raise(SIGUSR1);
	ret("masked", epoll_pwait(ep, ev, 2, 30, &block));
	out("still=%d", signal_count);
	ret("pwait2", epoll_pwait2(ep, ev, 2, &ts, &none));
	out("delivered=%d", signal_count);
	raise(SIGUSR1);
	ret("zero", epoll_pwait2(ep, ev, 2, &zero, &none));
	out("delivered=%d", signal_count);
	sigprocmask(SIG_SETMASK, &none, NULL);
	out("after=%d", signal_count);
}

struct waiter {
	pthread_t thread;
	int ep, count, got;
};

static void *waiter_run(void *arg)
{
	struct waiter *w = arg;
	struct epoll_event ev[4];

	w->count = epoll_wait(w->ep, ev, 4, 8000);
	if (w->count == 1)
		w->got = (int)ev[0].data.u64;
	return NULL;
}

/* Two edges for two waiters: each thread gets one. */
CASE_BOTH(two_threads_share_edges)
{
	struct conn c = pair(), d = pair();
	int ep = set_new();
	struct waiter w[2] = {{.ep = ep}, {.ep = ep}};

	add(ep, c.fd, EPOLLIN | EPOLLET, 1);
	add(ep, d.fd, EPOLLIN | EPOLLET, 2);
	for (int i = 0; i < 2; i++)
		pthread_create(&w[i].thread, NULL, waiter_run, &w[i]);
	nap_ms(50);
	peer_ok("send %d 1", c.id);
	nap_ms(100);
	peer_ok("send %d 1", d.id);
	for (int i = 0; i < 2; i++)
		pthread_join(w[i].thread, NULL);
	out("counts=%d,%d sum=%d", w[0].count, w[1].count, w[0].got + w[1].got);
	take("left", ep, 0);
}

CASE_BOTH(one_shot_wakes_one_thread)
{
	struct conn c = pair();
	int ep = set_new();
	struct waiter w[2] = {{.ep = ep}, {.ep = ep}};

	add(ep, c.fd, EPOLLIN | EPOLLONESHOT, 1);
	for (int i = 0; i < 2; i++)
		pthread_create(&w[i].thread, NULL, waiter_run, &w[i]);
	nap_ms(50);
	peer_ok("send %d 1", c.id);
	for (int i = 0; i < 800 && !(w[0].count + w[1].count); i++)
		nap_ms(10);
	nap_ms(50); /* for a second one, which there must not be */
	out("woken=%d", w[0].count + w[1].count);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN | EPOLLONESHOT, 2));
	for (int i = 0; i < 2; i++)
		pthread_join(w[i].thread, NULL);
	out("counts=%d,%d sum=%d", w[0].count, w[1].count, w[0].got + w[1].got);
}

CASE_BOTH(member_added_while_waiting)
{
	struct conn c = pair();
	struct waiter w = {.ep = set_new()};

	peer_ok("send %d 1", c.id);
	settle(c.fd, EPOLLIN);
	pthread_create(&w.thread, NULL, waiter_run, &w);
	nap_ms(50);
	add(w.ep, c.fd, EPOLLIN, 5);
	pthread_join(w.thread, NULL);
	out("count=%d got=%d", w.count, w.got);
}

CASE_BOTH(member_changed_while_waiting)
{
	struct conn c = pair();
	struct waiter w = {.ep = set_new()};

	add(w.ep, c.fd, EPOLLIN, 1);
	pthread_create(&w.thread, NULL, waiter_run, &w);
	nap_ms(50);
	ret("mod", ctl(w.ep, EPOLL_CTL_MOD, c.fd, EPOLLOUT, 6));
	pthread_join(w.thread, NULL);
	out("count=%d got=%d", w.count, w.got);
}

CASE(member_connects_while_waiting)
{
	struct sockaddr_in a;
	struct waiter w = {.ep = set_new()};
	int id, at, fd = tcp_socket();

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	set_nonblock(fd, true);
	add(w.ep, fd, EPOLLOUT | EPOLLET, 7);
	take("fresh", w.ep, 0);
	pthread_create(&w.thread, NULL, waiter_run, &w);
	nap_ms(50);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	pthread_join(w.thread, NULL);
	out("count=%d got=%d", w.count, w.got);
}

CASE_BOTH(many_members_one_ready)
{
	enum { COUNT = 14 };
	struct conn c[COUNT];
	int ep = set_new();
	char b;

	for (int i = 0; i < COUNT; i++) {
		c[i] = pair();
		add(ep, c[i].fd, EPOLLIN, (uint64_t)i);
	}
	take("idle", ep, 0);
	for (int i = 0; i < COUNT; i += 5) {
		peer_ok("after 10 send %d 1", c[i].id);
		take("wait", ep, 8000);
		ret("recv", recv(c[i].fd, &b, 1, 0));
	}
	take("none", ep, 20);
}
