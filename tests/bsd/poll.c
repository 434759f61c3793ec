/* poll.c - poll and ppoll: the level of a socket in each state of its life, mixed descriptors, time-outs,
 * signals and masks. */
#include "bsd.h"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

enum { ALL = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND };

static void *volatile null_pointer; /* hides a NULL from the compiler */

/* One look, without waiting. */
static void look(const char *what, int fd)
{
	struct pollfd p = {.fd = fd, .events = ALL};

	if (poll(&p, 1, 0) < 0)
		ret(what, -1);
	else
		rev(what, (unsigned int)(unsigned short)p.revents);
}

/* Waits for events, then shows all there are. */
static void look_when(const char *what, int fd, short events)
{
	settle(fd, (unsigned int)(unsigned short)events);
	look(what, fd);
}

/* Waits for the last event of a chain that came with fewer: until the level shows all of events. */
static void look_until(const char *what, int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = ALL};
	uint64_t end = now_ms() + 8000;

	do {
		poll(&p, 1, 0);
		if ((p.revents & events) == events)
			break;
		nap_ms(2);
	} while (now_ms() < end);
	look(what, fd);
}

static void so_error(const char *what, int fd)
{
	int err = -1;
	socklen_t len = sizeof(err);

	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	out("%s=%s", what, strerrorname_np(err));
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
	peer_connect(port(0));
	ret_fd("accept", accept(fd, NULL, NULL));
	look_when("two", fd, POLLIN);
	ret_fd("accept", accept(fd, NULL, NULL));
	look("none", fd);
}

CASE(level_of_listener_after_shutdown)
{
	int fd = listener(port(0));

	ret("shutdown", shutdown(fd, SHUT_RD));
	look("poll", fd);
	ret("listen", listen(fd, 4));
	look("again", fd);
}

CASE(level_of_connecting)
{
	struct sockaddr_in a = addr_nobody(80);
	struct pollfd p;
	int fd = tcp_socket();

	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	look("now", fd);
	p = (struct pollfd){.fd = fd, .events = ALL};
	ret("poll", poll(&p, 1, 30));
	rev("revents", (unsigned int)p.revents);
	ret("shutdown", shutdown(fd, SHUT_RDWR));
	look("shut", fd);
}

CASE(level_when_connect_completes)
{
	struct sockaddr_in a;
	int id, at, fd = tcp_socket();

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	look_when("done", fd, POLLOUT);
	so_error("so_error", fd);
	ret("connect", connect(fd, SA(a), sizeof(a)));
}

CASE(level_when_connect_is_refused)
{
	struct sockaddr_in a = addr_peer(1);
	int fd = tcp_socket();

	set_nonblock(fd, true);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	look_when("refused", fd, POLLOUT);
	look("again", fd);
	so_error("so_error", fd);
	look("taken", fd);
	so_error("so_error", fd);
}

CASE_BOTH(level_of_readable)
{
	struct conn c = pair();
	char buf[8];

	look_when("idle", c.fd, POLLOUT);
	peer_ok("send %d 10", c.id);
	look_when("data", c.fd, POLLIN);
	settle_bytes(c.fd, 10);
	ret("recv", recv(c.fd, buf, 4, 0));
	look("rest", c.fd);
	ret("peek", recv(c.fd, buf, 8, MSG_PEEK));
	look("peeked", c.fd);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("empty", c.fd);
}

CASE_BOTH(level_after_peer_half_closes)
{
	struct conn c = pair();
	char buf[8];

	peer_ok("send %d 4", c.id);
	settle_bytes(c.fd, 4);
	peer_ok("shut %d 1", c.id);
	look_when("fin", c.fd, POLLRDHUP);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("read", c.fd);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("eof", c.fd);
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	look("sent", c.fd);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	look_until("both", c.fd, POLLHUP);
}

CASE_BOTH(level_after_own_shutdown)
{
	struct conn c = pair();

	ret("write", shutdown(c.fd, SHUT_WR));
	look("shut_wr", c.fd);
	peer_ok("send %d 4", c.id);
	look_when("data", c.fd, POLLIN);
	ret("read", shutdown(c.fd, SHUT_RD));
	look("shut_both", c.fd);
	c = pair();
	ret("read", shutdown(c.fd, SHUT_RD));
	look("shut_rd", c.fd);
	c = pair();
	ret("both", shutdown(c.fd, SHUT_RDWR));
	look("both", c.fd);
}

CASE_BOTH(level_after_reset)
{
	struct conn c = pair();
	char buf[8];

	peer_ok("reset %d", c.id);
	look_when("reset", c.fd, POLLERR);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("taken", c.fd);
	ret("recv", recv(c.fd, buf, 8, 0));
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	look("after", c.fd);
}

CASE_BOTH(level_after_reset_with_unread)
{
	struct conn c = pair();
	char buf[8];

	peer_ok("send %d 4", c.id);
	settle_bytes(c.fd, 4);
	peer_ok("reset %d", c.id);
	look_when("reset", c.fd, POLLERR);
	so_error("so_error", c.fd);
	look("taken", c.fd);
	ret("recv", recv(c.fd, buf, 8, 0));
	look("after", c.fd);
}

CASE_BOTH(level_of_full)
{
	struct conn c = pair_narrow();
	size_t sent = fill(c.fd, 0);
	struct pollfd p = {.fd = c.fd, .events = POLLOUT};

	look("full", c.fd);
	ret("poll", poll(&p, 1, 30));
	peer_go("recv %d %zu", c.id, sent);
	ret("poll", poll(&p, 1, 8000));
	rev("revents", (unsigned int)p.revents);
	out("match=%d", strstr(peer_reply(), "more match") != NULL);
	look("drained", c.fd);
}

CASE(events_asked_for)
{
	static const short events[] = {
	        0, POLLIN, POLLOUT, POLLRDHUP, POLLPRI, POLLRDNORM, POLLRDBAND, POLLWRNORM, POLLWRBAND};
	struct conn data = pair(), fin = pair(), reset = pair();
	int fresh = tcp_socket();

	peer_ok("send %d 1", data.id);
	peer_ok("close %d", fin.id);
	peer_ok("reset %d", reset.id);
	settle(data.fd, POLLIN);
	settle(fin.fd, POLLRDHUP);
	settle(reset.fd, POLLERR);
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		struct pollfd p[4] = {{.fd = data.fd, .events = events[i]},
		        {.fd = fin.fd, .events = events[i]}, {.fd = reset.fd, .events = events[i]},
		        {.fd = fresh, .events = events[i]}};

		rev("[events", (unsigned int)events[i]);
		ret("poll", poll(p, 4, 0));
		for (int k = 0; k < 4; k++)
			rev("is", (unsigned int)p[k].revents);
	}
}

CASE(odd_descriptors)
{
	struct conn c = pair();
	int fds[2], gone = dup(c.fd);
	struct pollfd p[8];

	if (pipe(fds) < 0)
		die("pipe");
	close(gone);
	for (int i = 0; i < 8; i++)
		p[i] = (struct pollfd){.fd = c.fd, .events = ALL, .revents = 0x7777};
	p[0].fd = -1;
	p[1].fd = gone;
	p[2].fd = fds[0];
	p[3].fd = fds[1];
	p[5].events = 0;
	p[6].events = POLLOUT;
	p[7].fd = 30000;
	ret("poll", poll(p, 8, 1000));
	for (int i = 0; i < 8; i++)
		rev("is", (unsigned int)(unsigned short)p[i].revents);
	p[0].fd = -c.fd;
	ret("negative", poll(p, 1, 10));
	rev("is", (unsigned int)(unsigned short)p[0].revents);
	close(c.fd);
	p[0].fd = c.fd;
	ret("closed", poll(p, 1, 1000));
	rev("is", (unsigned int)(unsigned short)p[0].revents);
}

CASE(arguments)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	struct timespec bad[] = {{-1, 0}, {0, -1}, {0, 1000000000}}, ts = {0, 20000000};
	struct rlimit limit;
	uint64_t start = now_ms();

	ret("null", poll(null_pointer, 1, 0));
	ret("nothing", poll(null_pointer, 0, 20));
	ret("nothing", poll(&p, 0, 20));
	show_time("slept", start, 40);
	for (int i = 0; i < 3; i++)
		ret("ppoll", ppoll(&p, 1, &bad[i], NULL));
	ret("ppoll", ppoll(&p, 1, &ts, NULL));
	out("kept=%d", ts.tv_sec == 0 && ts.tv_nsec == 20000000);
	getrlimit(RLIMIT_NOFILE, &limit);
	ret("too_many", poll(&p, (nfds_t)limit.rlim_cur + 1, 0));
}

CASE_BOTH(timeouts)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	struct timespec ts = {0, 60000000};
	uint64_t start = now_ms();

	ret("poll", poll(&p, 1, 60));
	show_time("time", start, 60);
	start = now_ms();
	ret("ppoll", ppoll(&p, 1, &ts, NULL));
	show_time("time", start, 60);
	ts.tv_nsec = 0;
	ret("zero", ppoll(&p, 1, &ts, NULL));
	peer_ok("after 60 send %d 1", c.id);
	ret("forever", poll(&p, 1, -1));
	rev("is", (unsigned int)p.revents);
	ret("forever", ppoll(&p, 1, NULL, NULL));
}

CASE_BOTH(woken_by_each_end)
{
	struct conn c = pair(), d = pair(), e = pair();
	struct pollfd p[3] = {
	        {.fd = c.fd, .events = POLLIN}, {.fd = d.fd, .events = 0}, {.fd = e.fd, .events = POLLRDHUP}};

	ret("quiet", poll(p, 3, 20));
	peer_ok("after 40 reset %d", d.id);
	ret("reset", poll(p, 3, 8000));
	out("which=%d%d%d", p[0].revents != 0, p[1].revents != 0, p[2].revents != 0);
	p[1].fd = -1;
	peer_ok("after 40 shut %d 1", e.id);
	ret("fin", poll(p, 3, 8000));
	rev("is", (unsigned int)p[2].revents);
	p[2].fd = -1;
	peer_ok("after 40 send %d 1", c.id);
	ret("data", poll(p, 3, 8000));
	rev("is", (unsigned int)p[0].revents);
}

CASE(woken_by_connection)
{
	int l = listener(port(0));
	struct pollfd p = {.fd = l, .events = POLLIN};

	peer_ok("after 40 connect %d 0", port(0));
	ret("poll", poll(&p, 1, 8000));
	rev("is", (unsigned int)p.revents);
	ret_fd("accept", accept(l, NULL, NULL));
}

CASE_BOTH(mixed_with_kernel_descriptors)
{
	struct conn c = pair();
	struct itimerspec it = {.it_value = {0, 40000000}};
	int fds[2], ev = eventfd(0, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
	struct pollfd p[4];
	uint64_t v = 1;

	if (pipe(fds) < 0)
		die("pipe");
	p[0] = (struct pollfd){.fd = fds[0], .events = POLLIN};
	p[1] = (struct pollfd){.fd = ev, .events = POLLIN};
	p[2] = (struct pollfd){.fd = timer, .events = POLLIN};
	p[3] = (struct pollfd){.fd = c.fd, .events = POLLIN};
	ret("quiet", poll(p, 4, 20));
	timerfd_settime(timer, 0, &it, NULL);
	ret("timer", poll(p, 4, 8000));
	rev("is", (unsigned int)p[2].revents);
	ret("write", write(fds[1], "x", 1));
	ret("pipe", poll(p, 4, 8000));
	rev("is", (unsigned int)p[0].revents);
	ret("write", write(ev, &v, sizeof(v)));
	peer_ok("send %d 1", c.id);
	settle(c.fd, POLLIN);
	ret("all", poll(p, 4, 8000));
	for (int i = 0; i < 4; i++)
		rev("is", (unsigned int)p[i].revents);
	close(fds[1]);
	p[0].events = 0;
	p[1].fd = p[2].fd = -1;
	ret("hup", poll(p, 4, 8000));
	rev("is", (unsigned int)p[0].revents);
}

CASE_BOTH(signal_interrupts)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN, .revents = 0x55};
	struct timespec ts = {8, 0};

	for (int restart = 0; restart < 2; restart++) {
		signal_count_on(SIGALRM, restart);
		alarm_ms(40);
		ret("poll", poll(&p, 1, 8000));
		alarm_ms(40);
		ret("forever", poll(&p, 1, -1));
		alarm_ms(40);
		ret("ppoll", ppoll(&p, 1, &ts, NULL));
		out("signals=%d", signal_count);
	}
}

CASE_BOTH(signal_mask_is_atomic)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	struct timespec ts = {8, 0}, zero = {0, 0};
	sigset_t block, none, now;

	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	signal_count_on(SIGUSR1, false);
	sigprocmask(SIG_BLOCK, &block, NULL);
	raise(SIGUSR1);
	out("blocked=%d", signal_count);
	ret("ppoll", ppoll(&p, 1, &ts, &none));
	out("delivered=%d", signal_count);
	sigprocmask(SIG_BLOCK, NULL, &now);
	out("restored=%d", sigismember(&now, SIGUSR1));
	raise(SIGUSR1);
	ts = (struct timespec){0, 30000000};
	ret("masked", ppoll(&p, 1, &ts, &block));
	out("still=%d", signal_count);
	ret("zero", ppoll(&p, 1, &zero, &none));
	out("delivered=%d", signal_count);
	raise(SIGUSR1);
	peer_ok("send %d 1", c.id);
	settle(c.fd, POLLIN);
	ret("ready", ppoll(&p, 1, &zero, &none));
	out("delivered=%d", signal_count);
	sigprocmask(SIG_SETMASK, &none, NULL);
	out("after=%d", signal_count);
}

CASE(many_descriptors)
{
	enum { COUNT = 300 };
	struct conn c = pair(), d = pair();
	struct pollfd p[COUNT];
	int fds[2];

	if (pipe(fds) < 0)
		die("pipe");
	for (int i = 0; i < COUNT; i++)
		p[i] = (struct pollfd){.fd = i % 3 ? dup(c.fd) : dup(fds[0]), .events = POLLIN};
	p[COUNT - 1].fd = d.fd;
	ret("quiet", poll(p, COUNT, 20));
	peer_ok("after 40 send %d 1", d.id);
	ret("last", poll(p, COUNT, 8000));
	rev("is", (unsigned int)p[COUNT - 1].revents);
	peer_ok("send %d 1", c.id);
	settle(c.fd, POLLIN);
	ret("all", poll(p, COUNT, 8000));
	ret("write", write(fds[1], "x", 1));
	ret("all", poll(p, COUNT, 8000));
}

static void *shut_later(void *arg)
{
	nap_ms(40);
	shutdown(*(int *)arg, SHUT_RDWR);
	return NULL;
}

CASE_BOTH(another_thread_shuts_down)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	pthread_t t;

	pthread_create(&t, NULL, shut_later, &c.fd);
	ret("poll", poll(&p, 1, 8000));
	rev("is", (unsigned int)p.revents);
	pthread_join(t, NULL);
	peer_show("peer", "recv %d 1", c.id);
}

CASE(another_thread_shuts_listener)
{
	int l = listener(port(0));
	struct pollfd p = {.fd = l, .events = POLLIN};
	pthread_t t;

	pthread_create(&t, NULL, shut_later, &l);
	ret("poll", poll(&p, 1, 8000));
	rev("is", (unsigned int)p.revents);
	pthread_join(t, NULL);
	ret("accept", accept(l, NULL, NULL));
}
