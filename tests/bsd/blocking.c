/* blocking.c - calls that wait: what wakes them, SO_RCVTIMEO and SO_SNDTIMEO, signals with and without
 * SA_RESTART. */
#include "bsd.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/select.h>

enum { SOON_MS = 150, LATER_MS = 600 };

static void timeout(int fd, int which, int ms)
{
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};

	ret("timeout", setsockopt(fd, SOL_SOCKET, which, &tv, sizeof(tv)));
}

CASE_BOTH(recv_waits_for_data)
{
	struct conn c = pair();
	char b[8] = "";

	peer_go("after 100 text %d abc", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
	out("%s", b);
	peer_reply();
	peer_go("after 100 text %d def", c.id);
	ret("read", read(c.fd, b, 8));
	out("%s", b);
}

CASE(accept_waits_for_connection)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	int l = listener(port(0));

	peer_go("after 100 connect %d 0", port(0));
	ret_fd("accept", accept(l, SA(a), &len));
	show_addr("is", &a, len);
}

CASE_BOTH(send_waits_for_room)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);
	char buf[4096], want[64];

	set_nonblock(c.fd, false);
	pattern_fill(buf, n, sizeof(buf));
	peer_go("after 100 recv %d %zu", c.id, n);
	ret("send", send(c.fd, buf, sizeof(buf), 0));
	peer_reply();
	snprintf(want, sizeof(want), "ok %zu more match", sizeof(buf));
	out("rest=%d", !strcmp(peer("recv %d %zu", c.id, sizeof(buf)), want));
}

CASE_BOTH(send_of_much_waits_until_all_is_taken)
{
	struct conn c = pair_narrow();
	size_t size = 3 << 20;
	char *buf = malloc(size);

	pattern_fill(buf, 0, size);
	peer_go("recv %d %zu", c.id, size);
	ret("send", send(c.fd, buf, size, 0));
	out("peer=%s", strcmp(peer_reply(), "ok 3145728 more match") ? peer_reply() : "all");
	free(buf);
}

CASE_BOTH(receive_timeout)
{
	struct conn c = pair();
	uint64_t start;
	char b[8];

	timeout(c.fd, SO_RCVTIMEO, 200);
	start = now_ms();
	ret("recv", recv(c.fd, b, 8, 0));
	show_time("took", start, 200);
	start = now_ms();
	ret("read", read(c.fd, b, 8));
	show_time("took", start, 200);
	peer_ok("text %d abc", c.id);
	settle_bytes(c.fd, 3);
	ret("recv", recv(c.fd, b, 8, 0));
	peer_ok("text %d abc", c.id);
	settle_bytes(c.fd, 3);
	start = now_ms();
	ret("waitall", recv(c.fd, b, 8, MSG_WAITALL));
	show_time("took", start, 200);
	timeout(c.fd, SO_RCVTIMEO, 0);
	peer_go("after 400 text %d abc", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
}

CASE(accept_timeout)
{
	int l = listener(port(0));
	uint64_t start;

	timeout(l, SO_RCVTIMEO, 200);
	start = now_ms();
	ret("accept", accept(l, NULL, NULL));
	show_time("took", start, 200);
}

CASE(timeout_set_before_listen)
{
	struct sockaddr_in a = addr_server(port(0));
	int l = tcp_socket(), fd;
	uint64_t start;
	char b;

	timeout(l, SO_RCVTIMEO, 200);
	bind(l, SA(a), sizeof(a));
	listen(l, 4);
	start = now_ms();
	ret("accept", accept(l, NULL, NULL));
	show_time("took", start, 200);
	peer_connect(port(0));
	fd = ret_fd("accept", accept(l, NULL, NULL));
	start = now_ms();
	ret("recv", recv(fd, &b, 1, 0));
	show_time("took", start, 200);
}

CASE(connect_timeout)
{
	struct sockaddr_in a = addr_nobody(80);
	int fd = tcp_socket();
	uint64_t start;

	timeout(fd, SO_SNDTIMEO, 300);
	start = now_ms();
	ret("connect", connect(fd, SA(a), sizeof(a)));
	show_time("took", start, 300);
	ret("again", connect(fd, SA(a), sizeof(a)));
}

CASE_BOTH(send_timeout)
{
	struct conn c = pair_narrow();
	uint64_t start;

	fill(c.fd, 0);
	set_nonblock(c.fd, false);
	timeout(c.fd, SO_SNDTIMEO, 200);
	start = now_ms();
	ret("send", send(c.fd, "x", 1, 0));
	show_time("took", start, 200);
	start = now_ms();
	ret("write", write(c.fd, "x", 1));
	show_time("took", start, 200);
}

CASE_BOTH(send_timeout_of_part)
{
	struct conn c = pair_narrow();
	size_t size = 16 << 20;
	char *buf = calloc(1, size);
	long rc;

	timeout(c.fd, SO_SNDTIMEO, 300);
	rc = send(c.fd, buf, size, 0);
	out("part=%d", rc > 0 && (size_t)rc < size);
	free(buf);
}

CASE_BOTH(timeout_values)
{
	static const struct timeval values[] = {
	        {1, 500000}, {0, 0}, {0, 1000000}, {0, -1}, {-1, 0}, {3000000, 0}};
	struct conn c = pair();

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct timeval tv = values[i];
		socklen_t len = sizeof(tv);

		ret("set", setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
		ret("get", getsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
		out("%ld.%06ld,%u", (long)tv.tv_sec, (long)tv.tv_usec, len);
	}
	ret("short", setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, values, 4));
}

/* Calls wait_in and says what a signal did to it; with SA_RESTART the peer ends the wait later. */
static void interrupted(const char *name, int fd, bool restart, long (*wait_in)(int fd))
{
	out("[%s,%s]", name, restart ? "restart" : "plain");
	signal_count_on(SIGALRM, restart);
	alarm_ms(SOON_MS);
	ret("rc", wait_in(fd));
	out("signals=%d", signal_count);
}

static long in_recv(int fd)
{
	char b[8];

	return recv(fd, b, sizeof(b), 0);
}

static long in_readv(int fd)
{
	char b[8];
	struct iovec iov = {b, sizeof(b)};

	return readv(fd, &iov, 1);
}

static long in_recvmsg(int fd)
{
	char b[8];
	struct iovec iov = {b, sizeof(b)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	return recvmsg(fd, &m, 0);
}

static long in_waitall(int fd)
{
	char b[8];

	return recv(fd, b, sizeof(b), MSG_WAITALL);
}

static long in_accept(int fd)
{
	return accept(fd, NULL, NULL) < 0 ? -1 : 0;
}

static long in_send(int fd)
{
	return send(fd, "x", 1, 0);
}

static long in_connect(int fd)
{
	struct sockaddr_in a = addr_nobody(80);

	return connect(fd, SA(a), sizeof(a));
}

static long in_poll(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 5000);
}

static long in_ppoll(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec ts = {5, 0};

	return ppoll(&p, 1, &ts, NULL);
}

static long in_select(int fd)
{
	struct timeval tv = {5, 0};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, &tv);
}

static long in_pselect(int fd)
{
	struct timespec ts = {5, 0};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return pselect(fd + 1, &set, NULL, NULL, &ts, NULL);
}

static long in_epoll(int fd)
{
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(0);

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	return epoll_wait(ep, &e, 1, 5000);
}

CASE_BOTH(signal_in_recv)
{
	struct conn c = pair();

	interrupted("recv", c.fd, false, in_recv);
	interrupted("readv", c.fd, false, in_readv);
	interrupted("recvmsg", c.fd, false, in_recvmsg);
	interrupted("waitall", c.fd, false, in_waitall);
	peer_ok("text %d abc", c.id);
	interrupted("waitall_part", c.fd, false, in_waitall);
}

CASE_BOTH(signal_in_recv_restarts)
{
	struct conn c = pair();

	peer_go("after %d text %d abc", LATER_MS, c.id);
	interrupted("recv", c.fd, true, in_recv);
	peer_reply();
	peer_go("after %d text %d abc", LATER_MS, c.id);
	interrupted("readv", c.fd, true, in_readv);
	peer_reply();
	peer_go("after %d text %d abcdefgh", LATER_MS, c.id);
	interrupted("waitall", c.fd, true, in_waitall);
}

CASE_BOTH(signal_in_recv_with_timeout)
{
	struct conn c = pair();

	timeout(c.fd, SO_RCVTIMEO, 3000);
	interrupted("recv", c.fd, false, in_recv);
	interrupted("recv", c.fd, true, in_recv);
}

CASE(signal_in_accept)
{
	int l = listener(port(0));

	interrupted("accept", l, false, in_accept);
	peer_go("after %d connect %d 0", LATER_MS, port(0));
	interrupted("accept", l, true, in_accept);
}

CASE(signal_in_connect)
{
	int fd = tcp_socket();

	interrupted("connect", fd, false, in_connect);
	set_nonblock(fd, true);
	ret("again", in_connect(fd));
}

CASE_BOTH(signal_in_send)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);

	set_nonblock(c.fd, false);
	interrupted("send", c.fd, false, in_send);
	peer_go("after %d recv %d %zu", LATER_MS, c.id, n);
	interrupted("send", c.fd, true, in_send);
}

CASE_BOTH(signal_in_send_of_part)
{
	struct conn c = pair_narrow();
	size_t size = 16 << 20;
	char *buf = calloc(1, size);
	long rc;

	signal_count_on(SIGALRM, false);
	alarm_ms(500);
	rc = send(c.fd, buf, size, 0);
	out("part=%d signals=%d", rc > 0 && (size_t)rc < size, signal_count);
	free(buf);
}

CASE_BOTH(signal_in_waits_for_many)
{
	static const struct {
		const char *name;
		long (*wait_in)(int fd);
	} waits[] = {{"poll", in_poll}, {"ppoll", in_ppoll}, {"select", in_select}, {"pselect", in_pselect},
	        {"epoll", in_epoll}};
	struct conn c = pair();

	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		interrupted(waits[i].name, c.fd, false, waits[i].wait_in);
		interrupted(waits[i].name, c.fd, true, waits[i].wait_in);
	}
}

/* A signal handler leaves the call by siglongjmp, as the time limits of older programs do. */
static sigjmp_buf out_of_it;

static void leave(int signal)
{
	(void)signal;
	siglongjmp(out_of_it, 1);
}

/* Sends the signal when the thread has been asleep for a while. */
static void *wake_when_asleep(void *arg)
{
	pthread_t sleeper = *(pthread_t *)arg;
	char path[64], text[256], *end;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)getpid());
	for (int asleep = 0; asleep < 10; nap_ms(10)) {
		int fd = open(path, O_RDONLY);
		ssize_t n = read(fd, text, sizeof(text) - 1);

		close(fd);
		if (n <= 0)
			die("%s: %s", path, strerror(errno));
		text[n] = 0;
		end = strrchr(text, ')');
		asleep = end && end[1] && end[2] == 'S' ? asleep + 1 : 0;
	}
	pthread_kill(sleeper, SIGUSR1);
	return NULL;
}

#define LEFT(what, call)                                                                                     \
	do {                                                                                                 \
		pthread_t waker, own = pthread_self();                                                       \
		if (pthread_create(&waker, NULL, wake_when_asleep, &own))                                    \
			die("pthread_create");                                                               \
		if (!sigsetjmp(out_of_it, 1))                                                                \
			out(what "=%ld", (long)(call));                                                      \
		else                                                                                         \
			out(what "=left");                                                                   \
		pthread_join(waker, NULL);                                                                   \
	} while (0)

CASE_BOTH(left_by_longjmp)
{
	struct conn c = pair();
	struct sigaction sa = {.sa_handler = leave};
	struct epoll_event ev = {.events = EPOLLIN};
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	int ep = epoll_create1(0), l = listener(port(0)), id;
	char b[8];
	fd_set rd;

	FD_ZERO(&rd);
	FD_SET(c.fd, &rd);
	sigaction(SIGUSR1, &sa, NULL);
	epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, &ev);
	peer_ok("after 30 text %d a", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
	for (int i = 0; i < 2; i++) {
		LEFT("recv", recv(c.fd, b, 8, 0));
		LEFT("poll", poll(&p, 1, -1));
		LEFT("poll", poll(&p, 1, 20000));
		LEFT("select", select(c.fd + 1, &rd, NULL, NULL, NULL));
		LEFT("epoll", epoll_wait(ep, &ev, 1, -1));
		LEFT("accept", accept(l, NULL, NULL));
	}
	peer_ok("after 30 text %d bc", c.id);
	ret("poll", poll(&p, 1, 8000));
	ret("epoll", epoll_wait(ep, &ev, 1, 8000));
	ret("recv", recv(c.fd, b, 1, 0));
	ret("recv", recv(c.fd, b, 8, 0));
	id = peer_connect(port(0));
	peer_ok("close %d", id);
	ret_fd("accept", accept(l, NULL, NULL));
	/* nobody holds them any more */
	ret("close", close(l));
	for (int i = 0; i < 100 && strcmp(peer("connect %d 0", port(0)), "ECONNREFUSED"); i++)
		nap_ms(20);
	peer_show("refused", "connect %d 0", port(0));
	ret("close", close(c.fd));
	peer_show("end", "recv %d 1", c.id);
	ret("epoll", epoll_wait(ep, &ev, 1, 20));
}

CASE_BOTH(blocked_signal_does_not_interrupt)
{
	struct conn c = pair();
	sigset_t set;
	char b[8];

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal_count_on(SIGALRM, false);
	alarm_ms(50);
	peer_go("after 300 text %d abc", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
	out("signals=%d", signal_count);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	out("signals=%d", signal_count);
}

CASE_BOTH(ignored_signal_does_not_interrupt)
{
	struct conn c = pair();
	char b[8];

	signal(SIGALRM, SIG_IGN);
	alarm_ms(50);
	peer_go("after 300 text %d abc", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
}

CASE_BOTH(stopped_and_continued)
{
	struct conn c = pair();
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		char b[8];

		ret("recv", recv(c.fd, b, 8, 0));
		_exit(0);
	}
	nap_ms(100);
	kill(pid, SIGSTOP);
	waitpid(pid, NULL, WUNTRACED);
	kill(pid, SIGCONT);
	nap_ms(100);
	peer_ok("text %d abc", c.id);
	waitpid(pid, &status, 0);
	out("status=%d", status);
}
