/* cancel.c - threads that are cancelled while they wait on a socket: they end, and the socket, its sets and
 * the process go on as if they had never been there. */
#include "datagram.h"

#include <sys/sendfile.h>

struct job {
	int fd, ep, late, bound;
	volatile int cleaned;
};

static void clean(void *arg)
{
	((struct job *)arg)->cleaned = 1;
}

#define WORKER(name, call)                                                                                   \
	static void *name(void *arg)                                                                         \
	{                                                                                                    \
		struct job *j = arg;                                                                         \
		char buf[65536] = "";                                                                        \
		struct pollfd p = {.fd = j->fd, .events = POLLIN};                                           \
		struct epoll_event ev;                                                                       \
		fd_set rd;                                                                                   \
		FD_ZERO(&rd);                                                                                \
		FD_SET(j->fd, &rd);                                                                          \
		pthread_cleanup_push(clean, j);                                                              \
		(void)buf, (void)p, (void)ev;                                                                \
		for (;;)                                                                                     \
			if ((call) < 0)                                                                      \
				break;                                                                       \
		pthread_cleanup_pop(0);                                                                      \
		return NULL;                                                                                 \
	}

WORKER(w_recv, recv(j->fd, buf, 8, 0))
WORKER(w_read, read(j->fd, buf, 8))
WORKER(w_peek, recv(j->fd, buf, 8, MSG_PEEK | MSG_WAITALL))
WORKER(w_send, send(j->fd, buf, sizeof(buf), MSG_NOSIGNAL))
WORKER(w_poll, poll(&p, 1, -1))
WORKER(w_poll_long, poll(&p, 1, 100000))
WORKER(w_select, select(j->fd + 1, &rd, NULL, NULL, NULL))
WORKER(w_epoll, epoll_wait(j->ep, &ev, 1, -1))
WORKER(w_accept, accept(j->fd, NULL, NULL))
WORKER(w_busy, recv(j->fd, buf, 1, MSG_PEEK | MSG_DONTWAIT))
WORKER(w_busy_forever, (recv(j->fd, buf, 1, MSG_DONTWAIT), 0))
WORKER(w_busy_epoll, epoll_wait(j->ep, &ev, 1, 100))

static void cancel(const char *what, struct job *j, void *(*worker)(void *))
{
	void *result = NULL;
	pthread_t t;

	j->cleaned = 0;
	if (pthread_create(&t, NULL, worker, j))
		die("pthread_create");
	nap_ms(40);
	pthread_cancel(t);
	pthread_join(t, &result);
	out("%s=%s,%d", what, result == PTHREAD_CANCELED ? "cancelled" : "returned", j->cleaned);
}

CASE_BOTH(readers)
{
	struct conn c = pair();
	struct epoll_event ev = {.events = EPOLLIN};
	struct job j = {.fd = c.fd, .ep = epoll_create1(0)};
	char b[8];

	epoll_ctl(j.ep, EPOLL_CTL_ADD, c.fd, &ev);
	cancel("recv", &j, w_recv);
	cancel("read", &j, w_read);
	cancel("poll", &j, w_poll);
	cancel("poll_long", &j, w_poll_long);
	cancel("select", &j, w_select);
	cancel("epoll", &j, w_epoll);
	peer_ok("text %d abc", c.id);
	ret("epoll", epoll_wait(j.ep, &ev, 1, 8000));
	cancel("peek", &j, w_peek);
	cancel("busy", &j, w_busy);
	ret("recv", recv(c.fd, b, 8, 0));
	peer_ok("after 30 text %d def", c.id);
	ret("recv", recv(c.fd, b, 8, 0));
	peer_ok("after 30 text %d ghi", c.id);
	ret("epoll", epoll_wait(j.ep, &ev, 1, 8000));
	ret("recv", recv(c.fd, b, 8, 0));
	ret("send", send(c.fd, "alive", 5, 0));
	peer_show("peer", "show %d 5", c.id);
	ret("close", close(c.fd));
	peer_show("end", "recv %d 1", c.id);
	ret("gone", epoll_wait(j.ep, &ev, 1, 20));
}

CASE_BOTH(writer)
{
	struct conn c = pair_narrow();
	struct job j = {.fd = c.fd};

	cancel("send", &j, w_send);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	out("drained=%d", !strncmp(peer("drain %d", c.id), "ok", 2));
	ret("close", close(c.fd));
}

CASE(acceptor)
{
	struct job j = {.fd = listener(port(0))};
	int id, fd;

	cancel("accept", &j, w_accept);
	cancel("accept", &j, w_accept);
	id = peer_connect(port(0));
	fd = ret_fd("accept", accept(j.fd, NULL, NULL));
	ret("send", send(fd, "alive", 5, 0));
	peer_show("peer", "show %d 5", id);
	ret("close", close(j.fd));
	peer_show("refused", "connect %d 0", port(0));
}

CASE(acceptor_of_a_wildcard)
{
	struct sockaddr_in a = addr_any(port(0));
	struct job j = {.fd = tcp_socket()};
	int id, fd, one = 1;

	setsockopt(j.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind", bind(j.fd, SA(a), sizeof(a)));
	ret("listen", listen(j.fd, 4));
	cancel("accept", &j, w_accept);
	id = peer_connect(port(0));
	fd = ret_fd("accept", accept(j.fd, NULL, NULL));
	ret("send", send(fd, "alive", 5, 0));
	peer_show("peer", "show %d 5", id);
	ret("close", close(j.fd));
	peer_show("refused", "connect %d 0", port(0));
}

/* Many, one after the other: nothing is used up. */
CASE_BOTH(again_and_again)
{
	struct conn c = pair();
	struct job j = {.fd = c.fd};
	void *result;
	pthread_t t;
	int good = 0;

	for (int i = 0; i < 100; i++) {
		if (pthread_create(&t, NULL, i % 2 ? w_recv : w_poll, &j))
			die("pthread_create");
		if (i % 3)
			nap_ms(2);
		pthread_cancel(t);
		pthread_join(t, &result);
		good += result == PTHREAD_CANCELED;
	}
	out("good=%d", good);
	ret("close", close(c.fd));
	peer_show("end", "recv %d 1", c.id);
}

/* epoll_ctl and bind are no cancellation points: a thread that is to be cancelled gets through, and leaves
 * nothing locked. */
static void *w_no_point(void *arg)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct sockaddr_in a = addr_any(port(2));
	struct job *j = arg;
	int late = udp_socket();

	pthread_cleanup_push(clean, j);
	pthread_cancel(pthread_self());
	epoll_ctl(j->ep, EPOLL_CTL_ADD, j->fd, &ev);
	epoll_ctl(j->ep, EPOLL_CTL_ADD, late, &ev);
	j->bound = bind(late, SA(a), sizeof(a));
	j->late = late;
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return NULL;
}

CASE(no_points)
{
	struct job j = {.fd = udp_wild(port(1)), .ep = epoll_create1(0), .late = -1, .bound = -1};
	struct epoll_event ev = {.events = EPOLLIN};
	int local = udp_local(port(3));

	send_text("loop", local, "a", addr_loopback(port(1)));
	settle(j.fd, POLLIN);
	cancel("no_point", &j, w_no_point);
	ret("bound", j.bound);
	ret("again", epoll_ctl(j.ep, EPOLL_CTL_ADD, j.fd, &ev));
	ret("epoll", epoll_wait(j.ep, &ev, 1, 5000));
	ret("del", epoll_ctl(j.ep, EPOLL_CTL_DEL, j.fd, NULL));
	send_text("loop", local, "b", addr_loopback(port(2)));
	ret("epoll", epoll_wait(j.ep, &ev, 1, 5000));
	ret("close", close(j.late));
	ret("close", close(j.fd));
}

/* A datagram socket of both sides, cancelled wherever a thread may be: no lock stays taken, and its port is
 * free once it is closed. */
CASE(datagrams_of_both_sides)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct job j = {.fd = udp_wild(port(1)), .ep = epoll_create1(0)};
	int local = udp_local(port(3)), good = 0;
	void *result;
	pthread_t t;

	for (int i = 0; i < 60; i++) {
		if (pthread_create(&t, NULL, i % 2 ? w_busy_forever : w_recv, &j))
			die("pthread_create");
		nap_ms(1);
		pthread_cancel(t);
		pthread_join(t, &result);
		good += result == PTHREAD_CANCELED;
	}
	ret("add", epoll_ctl(j.ep, EPOLL_CTL_ADD, j.fd, &ev));
	send_text("loop", local, "a", addr_loopback(port(1)));
	settle(j.fd, POLLIN);
	for (int i = 0; i < 60; i++) {
		if (pthread_create(&t, NULL, w_busy_epoll, &j))
			die("pthread_create");
		nap_ms(1);
		pthread_cancel(t);
		pthread_join(t, &result);
		good += result == PTHREAD_CANCELED;
	}
	out("good=%d", good);
	ret("epoll", epoll_wait(j.ep, &ev, 1, 5000));
	recv_text("recv", j.fd, 0);
	ret("close", close(j.fd));
	j.fd = udp_socket();
	struct sockaddr_in a = addr_any(port(1));
	ret("bind", bind(j.fd, SA(a), sizeof(a)));
}
