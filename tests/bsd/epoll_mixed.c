/* epoll_mixed.c - sets that hold sockets beside pipes, event, timer and signal descriptors, UDP and loopback
 * connections: who wakes a waiter, that none starves the other, and what poll says of such a set. */
#include "bsd.h"

#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	if (ctl(ep, EPOLL_CTL_ADD, fd, events, data) < 0)
		die("EPOLL_CTL_ADD: %s", strerror(errno));
}

/* Waits up to ms and shows what came, in the order of the data. */
static int take_now(const char *what, int ep, int ms)
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

/* While sockets are ready and the other members were not at the last look, Pronk asks the kernel about those
 * every 10 us, not at every call: so a call's answer is compared a millisecond after the one before it. */
static int take(const char *what, int ep, int ms)
{
	nap_ms(1);
	return take_now(what, ep, ms);
}

static void pipe_new(int fds[2])
{
	if (pipe(fds) < 0)
		die("pipe: %s", strerror(errno));
}

struct later {
	pthread_t thread;
	int fd;
};

static void *later_run(void *arg)
{
	struct later *l = arg;
	uint64_t one = 1;

	nap_ms(40);
	if (write(l->fd, &one, sizeof(one)) < 0)
		die("write: %s", strerror(errno));
	return NULL;
}

/* Another thread writes to fd in a while. */
static void write_later(struct later *l, int fd)
{
	l->fd = fd;
	pthread_create(&l->thread, NULL, later_run, l);
}

CASE_BOTH(woken_by_each)
{
	struct conn c = pair();
	struct itimerspec it = {.it_value = {0, 40000000}};
	int fds[2], ev = eventfd(0, EFD_NONBLOCK), timer = timerfd_create(CLOCK_MONOTONIC, 0), ep = set_new();
	struct later l;
	char buf[8];

	pipe_new(fds);
	add(ep, c.fd, EPOLLIN, 1);
	add(ep, fds[0], EPOLLIN, 2);
	add(ep, ev, EPOLLIN, 3);
	add(ep, timer, EPOLLIN, 4);
	take("idle", ep, 20);
	peer_ok("after 40 send %d 1", c.id);
	take("socket", ep, 8000);
	ret("recv", recv(c.fd, buf, 8, 0));
	write_later(&l, fds[1]);
	take("pipe", ep, 8000);
	pthread_join(l.thread, NULL);
	ret("read", read(fds[0], buf, 8));
	write_later(&l, ev);
	take("event", ep, 8000);
	pthread_join(l.thread, NULL);
	ret("read", read(ev, buf, 8));
	timerfd_settime(timer, 0, &it, NULL);
	take("timer", ep, 8000);
	ret("read", read(timer, buf, 8));
	take("none", ep, 20);
	close(fds[1]);
	take("hup", ep, 8000);
}

CASE_BOTH(all_ready_at_once)
{
	struct conn c = pair(), d = pair();
	int fds[2], ev = eventfd(1, 0), ep = set_new();

	pipe_new(fds);
	ret("write", write(fds[1], "x", 1));
	peer_ok("send %d 1", c.id);
	settle(c.fd, EPOLLIN);
	add(ep, ev, EPOLLIN, 1);
	add(ep, c.fd, EPOLLIN, 2);
	add(ep, fds[0], EPOLLIN, 3);
	add(ep, d.fd, EPOLLOUT, 4);
	take("all", ep, 8000);
	take("again", ep, 0);
	take("again", ep, -1);
	/* level: the same at once, as long as nobody reads */
	take_now("at_once", ep, 0);
	take_now("at_once", ep, 1000);
	take_now("at_once", ep, -1);
}

/* With room for one event, a busy socket does not hide a ready pipe, nor the other way round. */
CASE_BOTH(none_starves)
{
	struct conn c = pair();
	struct epoll_event e;
	int fds[2], ep = set_new(), seen[3] = {0};
	uint64_t end = now_ms() + 1000;

	pipe_new(fds);
	ret("write", write(fds[1], "x", 1));
	add(ep, c.fd, EPOLLOUT, 1);
	add(ep, fds[0], EPOLLIN, 2);
	while ((!seen[1] || !seen[2]) && now_ms() < end) {
		if (epoll_wait(ep, &e, 1, 1000) != 1)
			die("nothing is ready");
		seen[e.data.u64]++;
	}
	out("socket=%d pipe=%d", seen[1] > 0, seen[2] > 0);
}

CASE_BOTH(edges)
{
	struct conn c = pair();
	int ev = eventfd(0, 0), ep = set_new();
	uint64_t one = 1;

	add(ep, c.fd, EPOLLIN | EPOLLET, 1);
	add(ep, ev, EPOLLIN | EPOLLET, 2);
	peer_ok("send %d 1", c.id);
	settle(c.fd, EPOLLIN);
	ret("write", write(ev, &one, sizeof(one)));
	take("both", ep, 8000);
	take("once", ep, 20);
	ret("write", write(ev, &one, sizeof(one)));
	take("event", ep, 8000);
	peer_ok("send %d 1", c.id);
	take("socket", ep, 8000);
	take("once", ep, 20);
}

CASE_BOTH(one_shots)
{
	struct conn c = pair();
	int ev = eventfd(1, 0), ep = set_new();

	peer_ok("send %d 1", c.id);
	settle(c.fd, EPOLLIN);
	add(ep, c.fd, EPOLLIN | EPOLLONESHOT, 1);
	add(ep, ev, EPOLLIN | EPOLLONESHOT, 2);
	take("both", ep, 8000);
	take("spent", ep, 20);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, ev, EPOLLIN | EPOLLONESHOT, 3));
	take("event", ep, 8000);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN | EPOLLONESHOT, 4));
	take("socket", ep, 8000);
	take("spent", ep, 20);
}

CASE_BOTH(socket_leaves_and_comes_back)
{
	struct conn c = pair();
	int ev = eventfd(1, 0), ep = set_new();

	add(ep, c.fd, EPOLLOUT, 1);
	add(ep, ev, EPOLLIN, 2);
	take("both", ep, 0);
	ret("del", ctl(ep, EPOLL_CTL_DEL, c.fd, 0, 0));
	take("event", ep, 0);
	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLOUT, 3));
	take("both", ep, 0);
	ret("del", ctl(ep, EPOLL_CTL_DEL, ev, 0, 0));
	take("socket", ep, 0);
	close(c.fd);
	take("none", ep, 20);
	ret("add", ctl(ep, EPOLL_CTL_ADD, ev, EPOLLIN, 4));
	take("event", ep, 8000);
}

/* A number that was a socket becomes a pipe, and the other way round. */
CASE_BOTH(number_changes_kind)
{
	struct conn c = pair(), d = pair();
	int fds[2], ep = set_new(), number = c.fd;

	pipe_new(fds);
	ret("write", write(fds[1], "x", 1));
	add(ep, number, EPOLLOUT, 1);
	ret("dup2", dup2(fds[0], number) == number);
	take("gone", ep, 0);
	ret("del", ctl(ep, EPOLL_CTL_DEL, number, 0, 0));
	ret("add", ctl(ep, EPOLL_CTL_ADD, number, EPOLLIN, 2));
	take("pipe", ep, 0);
	close(fds[0]);
	ret("dup2", dup2(d.fd, number) == number);
	take("gone", ep, 0);
	ret("add", ctl(ep, EPOLL_CTL_ADD, number, EPOLLOUT, 3));
	take("socket", ep, 0);
	peer_show("first", "recv %d 1", c.id);
}

CASE_BOTH(with_udp_and_unix)
{
	struct conn c = pair();
	struct sockaddr_in a = addr_loopback(0);
	socklen_t len = sizeof(a);
	int ep = set_new(), udp = socket(AF_INET, SOCK_DGRAM, 0), sv[2];
	char buf[8];

	if (bind(udp, SA(a), sizeof(a)) < 0 || getsockname(udp, SA(a), &len) < 0 ||
	        socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0)
		die("udp or unix: %s", strerror(errno));
	add(ep, c.fd, EPOLLIN, 1);
	add(ep, udp, EPOLLIN, 2);
	add(ep, sv[0], EPOLLIN | EPOLLRDHUP, 3);
	take("idle", ep, 20);
	ret("sendto", sendto(udp, "hello", 5, 0, SA(a), sizeof(a)));
	take("udp", ep, 8000);
	ret("recv", recv(udp, buf, 8, 0));
	close(sv[1]);
	take("unix", ep, 8000);
	ret("del", ctl(ep, EPOLL_CTL_DEL, sv[0], 0, 0));
	peer_ok("after 40 send %d 1", c.id);
	take("tcp", ep, 8000);
}

/* A TCP connection over the loopback interface and one to the peer in one set. */
CASE_BOTH(with_loopback_connection)
{
	struct conn c = pair();
	struct sockaddr_in a = addr_loopback(0);
	socklen_t len = sizeof(a);
	int l = tcp_socket(), client = tcp_socket(), ep = set_new(), server;
	char buf[8];

	if (bind(l, SA(a), sizeof(a)) < 0 || listen(l, 4) < 0 || getsockname(l, SA(a), &len) < 0)
		die("loopback: %s", strerror(errno));
	add(ep, l, EPOLLIN, 1);
	add(ep, client, EPOLLIN, 2);
	add(ep, c.fd, EPOLLIN, 3);
	take("fresh", ep, 0);
	ret("connect", connect(client, SA(a), sizeof(a)));
	take("listener", ep, 8000);
	server = ret_fd("accept", accept(l, NULL, NULL));
	add(ep, server, EPOLLIN, 4);
	take("idle", ep, 20);
	ret("send", send(client, "hi", 2, 0));
	take("server", ep, 8000);
	ret("recv", recv(server, buf, 8, 0));
	peer_ok("send %d 1", c.id);
	take("peer", ep, 8000);
	ret("recv", recv(c.fd, buf, 8, 0));
	ret("send", send(server, "hi", 2, 0));
	take("client", ep, 8000);
	close(server);
	peer_ok("shut %d 1", c.id);
	settle(c.fd, EPOLLRDHUP);
	settle(client, EPOLLRDHUP);
	take("ends", ep, 8000);
}

/* A listener on every address gets connections from the peer and over the loopback interface. */
CASE(wildcard_listener)
{
	struct sockaddr_in a = addr_any(port(0)), to = addr_loopback(port(0));
	int l = tcp_socket(), ep = set_new(), edge = set_new(), client = tcp_socket(), one = 1;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	add(ep, l, EPOLLIN, 1);
	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 8));
	add(edge, l, EPOLLIN | EPOLLET, 2);
	take("idle", ep, 0);
	take("idle", edge, 0);
	peer_connect(port(0));
	take("peer", ep, 8000);
	take("edge", edge, 8000);
	ret_fd("accept", accept(l, NULL, NULL));
	take("none", ep, 20);
	ret("connect", connect(client, SA(to), sizeof(to)));
	take("loopback", ep, 8000);
	take("edge", edge, 8000);
	take("once", edge, 20);
	ret_fd("accept", accept(l, NULL, NULL));
	take("none", ep, 20);
	peer_ok("after 40 connect %d 0", port(0));
	take("peer", ep, 8000);
	ret_fd("accept", accept(l, NULL, NULL));
	ret("del", ctl(ep, EPOLL_CTL_DEL, l, 0, 0));
	peer_connect(port(0));
	take("deleted", ep, 20);
}

CASE_BOTH(with_signalfd)
{
	struct conn c = pair();
	struct signalfd_siginfo si;
	sigset_t set;
	int fd, ep = set_new();

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, 0);
	add(ep, c.fd, EPOLLIN, 1);
	add(ep, fd, EPOLLIN, 2);
	alarm_ms(40);
	take("signal", ep, 8000);
	ret("read", read(fd, &si, sizeof(si)) == sizeof(si) && si.ssi_signo == SIGALRM);
	take("none", ep, 20);
}

CASE_BOTH(nested_with_kernel_members)
{
	struct conn c = pair();
	struct pollfd p;
	int fds[2], inner = set_new(), outer = set_new();
	char buf[8];

	pipe_new(fds);
	add(inner, fds[0], EPOLLIN, 1);
	add(outer, inner, EPOLLIN, 2);
	take("idle", outer, 20);
	add(inner, c.fd, EPOLLIN, 3);
	take("idle", outer, 20);
	ret("write", write(fds[1], "x", 1));
	take("outer", outer, 8000);
	take("inner", inner, 0);
	ret("read", read(fds[0], buf, 8));
	take("idle", outer, 20);
	peer_ok("after 40 send %d 1", c.id);
	take("outer", outer, 8000);
	take("inner", inner, 0);
	p = (struct pollfd){.fd = outer, .events = POLLIN};
	ret("poll", poll(&p, 1, 0));
	ret("recv", recv(c.fd, buf, 8, 0));
	ret("poll", poll(&p, 1, 0));
	add(outer, c.fd, EPOLLIN, 4);
	peer_ok("send %d 1", c.id);
	settle(c.fd, EPOLLIN);
	take("outer", outer, 8000);
}

/* poll on a set beside a socket and a pipe. */
CASE_BOTH(polled_beside_others)
{
	struct conn c = pair(), d = pair();
	int fds[2], ep = set_new();
	struct pollfd p[3];

	pipe_new(fds);
	add(ep, c.fd, EPOLLIN, 1);
	p[0] = (struct pollfd){.fd = ep, .events = POLLIN | POLLOUT};
	p[1] = (struct pollfd){.fd = d.fd, .events = POLLIN};
	p[2] = (struct pollfd){.fd = fds[0], .events = POLLIN};
	ret("idle", poll(p, 3, 20));
	peer_ok("after 40 send %d 1", c.id);
	ret("set", poll(p, 3, 8000));
	rev("is", (unsigned int)p[0].revents);
	peer_ok("send %d 1", d.id);
	settle(d.fd, EPOLLIN);
	ret("write", write(fds[1], "x", 1));
	ret("all", poll(p, 3, 8000));
	for (int i = 0; i < 3; i++)
		rev("is", (unsigned int)p[i].revents);
}

/* Many idle descriptors of both kinds; the last of each is found. */
CASE(many_of_both)
{
	enum { COUNT = 200 };
	struct conn c = {0};
	int fds[2] = {0}, ep = set_new();
	char b;

	for (int i = 0; i < COUNT; i++) {
		if (i % 10 == 0) {
			c = pair();
			add(ep, c.fd, EPOLLIN, 50);
		}
		pipe_new(fds);
		add(ep, fds[0], EPOLLIN, 60);
	}
	take("idle", ep, 0);
	peer_ok("after 20 send %d 1", c.id);
	take("socket", ep, 8000);
	ret("recv", recv(c.fd, &b, 1, 0));
	ret("write", write(fds[1], "x", 1));
	take("pipe", ep, 8000);
}
