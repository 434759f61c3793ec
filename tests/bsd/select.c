/* select.c - select and pselect: which sets a socket is in in each state, what is left in sets and time-out,
 * signals, masks. */
#include "bsd.h"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>

struct sets {
	fd_set rd, wr, ex;
};

static struct sets of(int fd)
{
	struct sets s;

	FD_ZERO(&s.rd);
	FD_ZERO(&s.wr);
	FD_ZERO(&s.ex);
	FD_SET(fd, &s.rd);
	FD_SET(fd, &s.wr);
	FD_SET(fd, &s.ex);
	return s;
}

/* One look at a descriptor in all three sets, without waiting. */
static void look(const char *what, int fd)
{
	struct sets s = of(fd);
	struct timeval zero = {0, 0};
	long rc = select(fd + 1, &s.rd, &s.wr, &s.ex, &zero);

	if (rc < 0)
		ret(what, rc);
	else
		out("%s=%ld:%s%s%s", what, rc, FD_ISSET(fd, &s.rd) ? "r" : "", FD_ISSET(fd, &s.wr) ? "w" : "",
		        FD_ISSET(fd, &s.ex) ? "x" : "");
}

static void look_when(const char *what, int fd, short events)
{
	settle(fd, (unsigned int)(unsigned short)events);
	look(what, fd);
}

/* Waits in select for one descriptor to be readable. */
static long readable(int fd, int ms)
{
	struct sets s = of(fd);
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};

	return select(fd + 1, &s.rd, NULL, NULL, &tv);
}

CASE(level_before_connection)
{
	struct sockaddr_in a = addr_server(port(0));
	int fd = tcp_socket(), one = 1;

	look("fresh", fd);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind", bind(fd, SA(a), sizeof(a)));
	look("bound", fd);
	ret("listen", listen(fd, 4));
	look("listening", fd);
	peer_connect(port(0));
	look_when("one", fd, POLLIN);
	ret_fd("accept", accept(fd, NULL, NULL));
	look("none", fd);
}

CASE(level_of_connecting)
{
	struct sockaddr_in a = addr_nobody(80);
	int fd = tcp_socket();

	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	look("now", fd);
	a = addr_peer(1);
	fd = tcp_socket();
	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	look_when("refused", fd, POLLOUT);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("quiet", select(0, NULL, NULL, NULL, &(struct timeval){0, 10000}));
}

CASE_BOTH(level_of_connection)
{
	struct conn c = pair();
	char buf[8];

	look_when("idle", c.fd, POLLOUT);
	peer_ok("send %d 4", c.id);
	look_when("data", c.fd, POLLIN);
	settle_bytes(c.fd, 4);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("read", c.fd);
	peer_ok("shut %d 1", c.id);
	look_when("fin", c.fd, POLLRDHUP);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("eof", c.fd);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	look("shut", c.fd);
	c = pair();
	peer_ok("reset %d", c.id);
	look_when("reset", c.fd, POLLERR);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("taken", c.fd);
}

CASE_BOTH(level_of_full)
{
	struct conn c = pair_narrow();
	size_t sent = fill(c.fd, 0);
	struct timeval tv = {8, 0};
	struct sets s = of(c.fd);

	look("full", c.fd);
	peer_go("recv %d %zu", c.id, sent);
	ret("select", select(c.fd + 1, NULL, &s.wr, NULL, &tv));
	out("match=%d", strstr(peer_reply(), "more match") != NULL);
	look("drained", c.fd);
}

CASE(counts_bits_not_descriptors)
{
	struct conn c = pair(), d = pair();
	int top = (c.fd > d.fd ? c.fd : d.fd) + 1;
	struct sets s = of(c.fd);

	peer_ok("send %d 1", c.id);
	settle(c.fd, POLLIN);
	FD_SET(d.fd, &s.rd);
	FD_SET(d.fd, &s.wr);
	ret("select", select(top, &s.rd, &s.wr, &s.ex, NULL));
	out("c=%d%d%d d=%d%d", FD_ISSET(c.fd, &s.rd) != 0, FD_ISSET(c.fd, &s.wr) != 0,
	        FD_ISSET(c.fd, &s.ex) != 0, FD_ISSET(d.fd, &s.rd) != 0, FD_ISSET(d.fd, &s.wr) != 0);
}

CASE(limit_leaves_out_higher_ones)
{
	struct conn c = pair();
	struct sets s = of(c.fd);
	struct timeval tv = {0, 10000};

	ret("below", select(c.fd, NULL, &s.wr, NULL, &tv));
	out("set=%d", FD_ISSET(c.fd, &s.wr) != 0);
	s = of(c.fd);
	ret("above", select(FD_SETSIZE, NULL, &s.wr, NULL, &tv));
	out("set=%d", FD_ISSET(c.fd, &s.wr) != 0);
}

CASE(arguments)
{
	struct conn c = pair();
	int gone = dup(c.fd);
	struct sets s = of(c.fd);
	struct timeval bad = {-1, 0}, bad_usec = {0, -1}, long_usec = {0, 1000000}, zero = {0, 0};
	struct timespec bad_nsec = {0, 1000000000};

	close(gone);
	FD_SET(gone, &s.rd);
	ret("closed", select(gone + 1, &s.rd, &s.wr, &s.ex, &zero));
	out("kept=%d%d%d", FD_ISSET(c.fd, &s.rd) != 0, FD_ISSET(gone, &s.rd) != 0,
	        FD_ISSET(c.fd, &s.wr) != 0);
	s = of(c.fd);
	ret("negative", select(-1, &s.rd, NULL, NULL, &zero));
	ret("bad", select(c.fd + 1, &s.rd, NULL, NULL, &bad));
	ret("bad_usec", select(c.fd + 1, &s.rd, NULL, NULL, &bad_usec));
	ret("long_usec", select(c.fd + 1, NULL, &s.wr, NULL, &long_usec));
	s = of(c.fd);
	ret("bad_nsec", pselect(c.fd + 1, &s.rd, NULL, NULL, &bad_nsec, NULL));
	out("kept=%d", FD_ISSET(c.fd, &s.rd) != 0);
	ret("no_sets", select(c.fd + 1, NULL, NULL, NULL, &zero));
}

CASE_BOTH(timeouts)
{
	struct conn c = pair();
	struct sets s = of(c.fd);
	struct timeval tv = {0, 60000};
	struct timespec ts = {0, 60000000};
	uint64_t start = now_ms();

	ret("select", select(c.fd + 1, &s.rd, NULL, NULL, &tv));
	show_time("time", start, 60);
	out("set=%d left=%d", FD_ISSET(c.fd, &s.rd) != 0, tv.tv_sec || tv.tv_usec);
	s = of(c.fd);
	start = now_ms();
	ret("pselect", pselect(c.fd + 1, &s.rd, NULL, NULL, &ts, NULL));
	show_time("time", start, 60);
	out("set=%d kept=%d", FD_ISSET(c.fd, &s.rd) != 0, ts.tv_nsec == 60000000);
	s = of(c.fd);
	peer_ok("after 60 send %d 1", c.id);
	ret("forever", select(c.fd + 1, &s.rd, NULL, NULL, NULL));
	tv = (struct timeval){20, 0};
	ret("left", select(c.fd + 1, &s.rd, NULL, NULL, &tv));
	out("left=%d", tv.tv_sec >= 10 && (tv.tv_sec < 20 || !tv.tv_usec));
	s = of(c.fd);
	ret("pselect", pselect(c.fd + 1, &s.rd, NULL, NULL, NULL, NULL));
}

CASE_BOTH(woken)
{
	struct conn c = pair();
	int l = listener(port(0));

	ret("quiet", readable(c.fd, 20));
	peer_ok("after 40 send %d 1", c.id);
	ret("data", readable(c.fd, 8000));
	ret("recv", recv(c.fd, &(char){0}, 1, 0));
	peer_ok("after 40 shut %d 1", c.id);
	ret("fin", readable(c.fd, 8000));
	peer_ok("after 40 connect %d 0", port(0));
	ret("listener", readable(l, 8000));
	c = pair();
	peer_ok("after 40 reset %d", c.id);
	ret("reset", readable(c.fd, 8000));
}

CASE_BOTH(mixed_with_kernel_descriptors)
{
	struct conn c = pair();
	int fds[2], ev = eventfd(0, 0);
	struct timeval tv = {8, 0}, zero = {0, 0};
	struct sets s = of(c.fd);
	uint64_t one = 1;

	if (pipe(fds) < 0)
		die("pipe");
	FD_SET(fds[0], &s.rd);
	FD_SET(fds[1], &s.wr);
	FD_SET(ev, &s.rd);
	FD_CLR(c.fd, &s.wr);
	ret("pipe", select(64, &s.rd, &s.wr, &s.ex, &tv));
	out("c=%d p=%d%d e=%d", FD_ISSET(c.fd, &s.rd) != 0, FD_ISSET(fds[0], &s.rd) != 0,
	        FD_ISSET(fds[1], &s.wr) != 0, FD_ISSET(ev, &s.rd) != 0);
	s = of(c.fd);
	FD_SET(ev, &s.rd);
	ret("write", write(ev, &one, sizeof(one)));
	ret("event", select(64, &s.rd, NULL, NULL, &tv));
	out("c=%d e=%d", FD_ISSET(c.fd, &s.rd) != 0, FD_ISSET(ev, &s.rd) != 0);
	peer_ok("send %d 1", c.id);
	settle(c.fd, POLLIN);
	s = of(c.fd);
	FD_SET(ev, &s.rd);
	FD_SET(fds[0], &s.rd);
	ret("both", select(64, &s.rd, NULL, &s.ex, &zero));
	out("c=%d e=%d p=%d", FD_ISSET(c.fd, &s.rd) != 0, FD_ISSET(ev, &s.rd) != 0,
	        FD_ISSET(fds[0], &s.rd) != 0);
	close(fds[1]);
	FD_ZERO(&s.rd);
	FD_SET(fds[0], &s.rd);
	FD_SET(c.fd, &s.ex);
	ret("hup", select(64, &s.rd, NULL, &s.ex, &tv));
}

CASE_BOTH(signal_interrupts)
{
	struct conn c = pair();

	for (int restart = 0; restart < 2; restart++) {
		struct sets s = of(c.fd);

		signal_count_on(SIGALRM, restart);
		alarm_ms(40);
		ret("select", readable(c.fd, 8000));
		alarm_ms(40);
		ret("forever", select(c.fd + 1, &s.rd, NULL, NULL, NULL));
		out("kept=%d", FD_ISSET(c.fd, &s.rd) != 0);
		alarm_ms(40);
		ret("pselect", pselect(c.fd + 1, &s.rd, NULL, NULL, NULL, NULL));
		out("signals=%d", signal_count);
	}
}

CASE_BOTH(signal_mask_is_atomic)
{
	struct conn c = pair();
	struct sets s = of(c.fd);
	struct timespec ts = {8, 0}, zero = {0, 0};
	sigset_t block, none, now;

	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	signal_count_on(SIGUSR1, false);
	sigprocmask(SIG_BLOCK, &block, NULL);
	raise(SIGUSR1);
	ret("pselect", pselect(c.fd + 1, &s.rd, NULL, NULL, &ts, &none));
	out("delivered=%d", signal_count);
	sigprocmask(SIG_BLOCK, NULL, &now);
	out("restored=%d", sigismember(&now, SIGUSR1));
	raise(SIGUSR1);
	s = of(c.fd);
	ret("zero", pselect(c.fd + 1, &s.rd, NULL, NULL, &zero, &none));
	out("delivered=%d", signal_count);
	raise(SIGUSR1);
	ts = (struct timespec){0, 30000000};
	s = of(c.fd);
	ret("masked", pselect(c.fd + 1, &s.rd, NULL, NULL, &ts, &block));
	out("delivered=%d", signal_count);
}

/* Sets longer than fd_set, as programs with many descriptors allocate them. */
CASE(beyond_fd_setsize)
{
	enum { FD = 1500, LONG_BITS = 8 * sizeof(long) };
	unsigned long rd[2048 / LONG_BITS] = {0}, wr[2048 / LONG_BITS] = {0};
	struct rlimit limit;
	struct conn c = pair();
	struct timeval tv = {8, 0};

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < 2048) {
		limit.rlim_cur = 2048;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	ret("dup2", dup2(c.fd, FD) == FD);
	rd[FD / LONG_BITS] = wr[FD / LONG_BITS] = 1ul << FD % LONG_BITS;
	ret("select", select(FD + 1, (fd_set *)(void *)rd, (fd_set *)(void *)wr, NULL, &tv));
	out("rd=%d wr=%d", rd[FD / LONG_BITS] != 0, wr[FD / LONG_BITS] != 0);
	peer_ok("send %d 1", c.id);
	settle(c.fd, POLLIN);
	rd[FD / LONG_BITS] = 1ul << FD % LONG_BITS;
	ret("select", select(FD + 1, (fd_set *)(void *)rd, NULL, NULL, &tv));
	out("rd=%d", rd[FD / LONG_BITS] != 0);
}
