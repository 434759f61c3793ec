/* epoll_ctl.c - corners of epoll_ctl: rare flags, sets in sets that make loops or grow too deep, copies of a
 * set, numbers that are closed and used again, bad memory; close_range with close-on-exec. */
#include "bsd.h"

#include <linux/close_range.h>

static void *volatile bad_memory = (void *)1; /* hidden from the compiler */

/* Waits up to ms and shows what came, in the order of the data. */
static void take(const char *what, int ep, int ms)
{
	struct epoll_event ev[16];
	int n = (int)ret(what, epoll_wait(ep, ev, 16, ms));

	for (uint64_t data = 0; data < 16; data++)
		for (int i = 0; i < n; i++)
			if (ev[i].data.u64 == data) {
				char name[16];

				snprintf(name, sizeof(name), "%d", (int)data);
				rev(name, ev[i].events);
			}
}

CASE_BOTH(wakeup)
{
	struct conn c = pair();
	int ep = set_new(), other = set_new();

	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN | EPOLLWAKEUP, 1));
	peer_ok("send %d 4", c.id);
	take("in", ep, 8000);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLOUT | EPOLLWAKEUP | EPOLLET, 2));
	take("out", ep, 0);
	take("once", ep, 0);
	ret("exclusive", ctl(other, EPOLL_CTL_ADD, c.fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLWAKEUP, 3));
	take("other", other, 8000);
	ret("exclusive_mod", ctl(other, EPOLL_CTL_MOD, c.fd, EPOLLIN | EPOLLWAKEUP, 3));
	ret("normal", ctl(set_new(), EPOLL_CTL_ADD, c.fd, EPOLLRDNORM | EPOLLEXCLUSIVE, 3));
	ret("no_bits", ctl(set_new(), EPOLL_CTL_ADD, c.fd, EPOLLEXCLUSIVE, 3));
}

CASE_BOTH(events_that_mean_nothing)
{
	struct conn c = pair();
	int ep = set_new();

	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLMSG | 0x20 | 0x4000000, 1));
	take("none", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, c.fd, 0, 2));
	take("none", ep, 0);
	peer_ok("reset %d", c.id);
	take("reset", ep, 8000);
	ret("del", ctl(ep, EPOLL_CTL_DEL, c.fd, ~0u, 0));
}

CASE_BOTH(loops)
{
	struct conn c = pair();
	int a = set_new(), b = set_new(), d = set_new();

	ret("leaf", ctl(a, EPOLL_CTL_ADD, c.fd, EPOLLIN, 1));
	ret("b_a", ctl(b, EPOLL_CTL_ADD, a, EPOLLIN, 2));
	ret("d_b", ctl(d, EPOLL_CTL_ADD, b, EPOLLIN, 3));
	ret("a_b", ctl(a, EPOLL_CTL_ADD, b, EPOLLIN, 4));
	ret("a_d", ctl(a, EPOLL_CTL_ADD, d, EPOLLIN, 4));
	ret("a_itself", ctl(a, EPOLL_CTL_ADD, dup(a), EPOLLIN, 4));
	ret("twice", ctl(b, EPOLL_CTL_ADD, a, EPOLLIN, 4));
	ret("exclusive", ctl(d, EPOLL_CTL_ADD, a, EPOLLIN | EPOLLEXCLUSIVE, 4));
	peer_ok("send %d 4", c.id);
	take("d", d, 8000);
	take("a", a, 0);
	ret("del", ctl(b, EPOLL_CTL_DEL, a, 0, 0));
	take("d", d, 0);
	ret("a_b", ctl(a, EPOLL_CTL_ADD, b, EPOLLIN, 4));
}

CASE_BOTH(depth)
{
	struct conn c = pair();
	int set[8];

	for (int i = 0; i < 8; i++)
		set[i] = set_new();
	ret("leaf", ctl(set[0], EPOLL_CTL_ADD, c.fd, EPOLLIN, 0));
	for (int i = 1; i < 8; i++)
		ret("add", ctl(set[i], EPOLL_CTL_ADD, set[i - 1], EPOLLIN, (uint64_t)i));
	peer_ok("send %d 4", c.id);
	for (int i = 0; i < 4; i++)
		take("wait", set[i], 8000);
}

CASE_BOTH(depth_before_the_leaf)
{
	struct conn c = pair();
	int set[8];

	for (int i = 0; i < 8; i++)
		set[i] = set_new();
	for (int i = 1; i < 8; i++)
		ret("add", ctl(set[i], EPOLL_CTL_ADD, set[i - 1], EPOLLIN, (uint64_t)i));
	ret("leaf", ctl(set[0], EPOLL_CTL_ADD, c.fd, EPOLLIN, 0));
	ret("higher", ctl(set[2], EPOLL_CTL_ADD, c.fd, EPOLLIN, 9));
	peer_ok("send %d 4", c.id);
	take("wait", set[2], 8000);
	take("wait", set[3], 8000);
}

CASE_BOTH(copies_of_a_set)
{
	struct conn c = pair();
	int ep = set_new(), copy = dup(ep), third;

	ret("add", ctl(copy, EPOLL_CTL_ADD, c.fd, EPOLLIN, 1));
	ret("twice", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN, 2));
	peer_ok("send %d 4", c.id);
	take("first", ep, 8000);
	ret("close", close(ep));
	take("copy", copy, 0);
	ret("closed", ctl(ep, EPOLL_CTL_MOD, c.fd, EPOLLIN, 3));
	third = fcntl(copy, F_DUPFD_CLOEXEC, 60);
	ret("mod", ctl(third, EPOLL_CTL_MOD, c.fd, EPOLLOUT, 4));
	ret("close", close(copy));
	take("third", third, 0);
	ret("over", dup2(c.fd, third) == third);
	ret("not_a_set", ctl(third, EPOLL_CTL_DEL, c.fd, 0, 0));
	ret("not_a_set", epoll_wait(third, (struct epoll_event[1]){{0}}, 1, 0));
}

/* A socket connects under another number than the one it is a member by; that one is another member's by
 * then. */
CASE(number_used_again_when_its_file_connects)
{
	struct sockaddr_in to = addr_peer(port(0));
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 1};
	int a = tcp_socket(), b = dup(a), t, ep = set_new(), l = peer_ok("listen %d 4 0", port(0)), id;

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev));
	ret("close", close(a));
	t = socket(AF_INET, SOCK_DGRAM, 0);
	out("same=%d", t == a);
	ctl(ep, EPOLL_CTL_ADD, t, EPOLLIN, 2);
	ret("connect", connect(b, SA(to), sizeof(to)));
	id = peer_ok("accept %d", l);
	ret("wait", epoll_wait(ep, &ev, 1, 50));
	peer_ok("send %d 3", id);
	ret("wait", epoll_wait(ep, &ev, 1, 5000));
	rev("is", ev.events);
	out("data=%d", (int)ev.data.u64);
	ret("recv", recv(b, (char[8]){0}, 8, 0));
	ret("wait", epoll_wait(ep, &ev, 1, 50));
}

/* A copy keeps the member alive under its old number, which another file uses meanwhile. */
CASE_BOTH(number_used_again)
{
	struct conn c = pair(), d = pair();
	int ep = set_new(), copy = dup(c.fd), p[2], at = c.fd;

	ret("add", ctl(ep, EPOLL_CTL_ADD, at, EPOLLOUT, 1));
	ret("over", dup2(d.fd, at) == at);
	take("old", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, at, EPOLLIN, 2));
	ret("del", ctl(ep, EPOLL_CTL_DEL, at, 0, 0));
	ret("add", ctl(ep, EPOLL_CTL_ADD, at, EPOLLOUT, 3));
	take("both", ep, 0);
	if (pipe(p))
		die("pipe");
	ret("over", dup2(p[1], at) == at);
	take("still_both", ep, 0);
	ret("mod", ctl(ep, EPOLL_CTL_MOD, at, EPOLLIN, 4));
	ret("add", ctl(ep, EPOLL_CTL_ADD, at, EPOLLOUT, 5));
	take("three", ep, 0);
	ret("over", dup2(copy, at) == at);
	ret("close", close(p[1]));
	ret("mod_back", ctl(ep, EPOLL_CTL_MOD, at, EPOLLOUT, 6));
	take("back", ep, 0);
	ret("close", close(at));
	ret("close", close(copy));
	take("left", ep, 0);
	ret("close", close(d.fd));
	take("none", ep, 20);
}

CASE_BOTH(bad_memory_for_an_event)
{
	struct conn c = pair();
	int ep = set_new();

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, bad_memory));
	ret("bad_op", epoll_ctl(ep, 9, c.fd, bad_memory));
	ret("bad_fd", epoll_ctl(ep, EPOLL_CTL_ADD, 9999, bad_memory));
	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLOUT, 1));
	ret("mod", epoll_ctl(ep, EPOLL_CTL_MOD, c.fd, bad_memory));
	ret("itself", epoll_ctl(ep, EPOLL_CTL_ADD, ep, bad_memory));
	ret("wait", epoll_wait(ep, bad_memory, 1, 0));
	take("still", ep, 0);
	ret("del", epoll_ctl(ep, EPOLL_CTL_DEL, c.fd, bad_memory));
}

/* --- close_range --- */

static void echo_works(const char *what, int fd, int id)
{
	char b[4] = "";

	ret(what, send(fd, "ping", 4, 0));
	peer_show("peer", "recv %d 4", id);
	peer_ok("send %d 4", id);
	ret(what, recv(fd, b, 4, MSG_WAITALL));
}

/* Everything from 3 on is marked before exec, as careful programs do; the program goes on with it. */
CASE_BOTH(close_range_cloexec_and_exec)
{
	struct conn c = pair(), d;
	int ep = set_new(), status = -1, hold[2], past[2];
	pid_t pid;

	ret("add", ctl(ep, EPOLL_CTL_ADD, c.fd, EPOLLIN, 1));
	if (pipe(hold) || pipe(past))
		die("pipe");
	pid = fork();
	if (!pid) {
		if (dup2(hold[0], 0) < 0 || close_range(3, ~0u, CLOSE_RANGE_CLOEXEC))
			_exit(9);
		execl("/bin/cat", "cat", NULL);
		_exit(8);
	}
	close(hold[0]);
	close(past[1]);
	ret("past_exec", read(past[0], &status, 1));
	ret("mark", close_range(c.fd, ~0u, CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE));
	out("fd=%x", fcntl(c.fd, F_GETFD));
	echo_works("after", c.fd, c.id);
	peer_ok("send %d 4", c.id);
	take("in", ep, 8000);
	d = pair_connected();
	out("fd=%x", fcntl(d.fd, F_GETFD));
	echo_works("new", d.fd, d.id);
	/* the child has none of them: closing here ends them */
	close(d.fd);
	peer_show("ended", "recv %d 1", d.id);
	recv(c.fd, (char[4]){0}, 4, MSG_WAITALL);
	close(c.fd);
	peer_show("ended", "recv %d 1", c.id);
	close(hold[1]);
	waitpid(pid, &status, 0);
	out("status=%x", status);
}
