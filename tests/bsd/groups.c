/* groups.c - several that share a port or a listener: SO_REUSEPORT groups, EPOLLEXCLUSIVE, who is woken by a
 * connection, what the backlog holds.
 */
#include "bsd.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>

enum { WORKERS = 8, MEMBERS = 4, CONNS = 40 };

/* --- who is woken --- */

struct shared {
	_Atomic int woken, ready;
};

static struct shared *shared_new(void)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		die("mmap");
	return s;
}

static void worker(struct shared *s, int l, unsigned int events)
{
	struct epoll_event ev = {.events = events}, got;
	int ep = epoll_create1(0);

	if (epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev) < 0)
		_exit(1);
	s->ready++;
	if (epoll_wait(ep, &got, 1, 10000) == 1)
		s->woken++;
	pause();
}

static void workers_end(pid_t *pid)
{
	for (int i = 0; i < WORKERS; i++)
		kill(pid[i], SIGKILL);
	for (int i = 0; i < WORKERS; i++)
		waitpid(pid[i], NULL, 0);
}

static void workers_start(pid_t *pid, struct shared *s, int l, unsigned int events)
{
	for (int i = 0; i < WORKERS; i++)
		if (!(pid[i] = fork()))
			worker(s, l, events);
	for (int i = 0; i < 500 && s->ready < WORKERS; i++)
		nap_ms(10);
	nap_ms(300); /* asleep */
}

CASE(connection_wakes_one_of_the_exclusive)
{
	struct shared *s = shared_new();
	int l = listener(port(0));
	pid_t pid[WORKERS];

	workers_start(pid, s, l, EPOLLIN | EPOLLEXCLUSIVE);
	for (int i = 1; i <= 3; i++) {
		peer_connect(port(0));
		nap_ms(200);
		out("woken=%d", s->woken);
	}
	workers_end(pid);
}

static void *acceptor(void *arg)
{
	int fd = accept(*(int *)arg, NULL, NULL);

	return (void *)(intptr_t)(fd >= 0 ? 1 : -errno);
}

/* A set that nobody sleeps in, but that a poll has looked at, takes no connection from a thread in accept. */
CASE(polled_exclusive_set_takes_no_connection)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	int l = listener(port(0)), ep = epoll_create1(0), n;
	struct timespec limit;
	struct pollfd p = {.fd = ep, .events = POLLIN};
	pthread_t thread;
	void *got = NULL;

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev));
	ret("poll", poll(&p, 1, 0));
	pthread_create(&thread, NULL, acceptor, &l);
	nap_ms(300); /* asleep */
	ret("poll", poll(&p, 1, 0));
	peer_connect(port(0));
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 5;
	n = pthread_timedjoin_np(thread, &got, &limit);
	out("joined=%d accepted=%d", n, (int)(intptr_t)got);
	if (n)
		pthread_cancel(thread);
}

CASE(connection_wakes_all_of_the_others)
{
	struct shared *s = shared_new();
	int l = listener(port(0));
	pid_t pid[WORKERS];

	workers_start(pid, s, l, EPOLLIN);
	peer_connect(port(0));
	for (int i = 0; i < 100 && s->woken < WORKERS; i++)
		nap_ms(10);
	out("woken=%d", s->woken);
	workers_end(pid);
}

CASE(shutdown_wakes_all_of_the_exclusive)
{
	struct shared *s = shared_new();
	int l = listener(port(0));
	pid_t pid[WORKERS];

	workers_start(pid, s, l, EPOLLIN | EPOLLEXCLUSIVE);
	shutdown(l, SHUT_RD);
	for (int i = 0; i < 100 && s->woken < WORKERS; i++)
		nap_ms(10);
	out("woken=%d", s->woken);
	workers_end(pid);
}

static void taker(struct shared *s, int l)
{
	s->ready++;
	while (accept(l, NULL, NULL) >= 0)
		s->woken++;
	_exit(0);
}

/* Every connection finds somebody, whoever is killed in between. */
CASE(blocked_accepts_take_every_connection_while_some_are_killed)
{
	struct shared *s = shared_new();
	int l = listener(port(0));
	pid_t pid[WORKERS];

	for (int i = 0; i < WORKERS; i++)
		if (!(pid[i] = fork()))
			taker(s, l);
	for (int i = 0; i < 500 && s->ready < WORKERS; i++)
		nap_ms(10);
	for (int i = 0; i < WORKERS - 1; i++) {
		for (int k = 0; k < 4; k++)
			peer_connect(port(0));
		for (int k = 0; k < 300 && s->woken < 4 * (i + 1); k++)
			nap_ms(10);
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0); /* one that dies may be called on the kernel, for nothing */
	}
	out("taken=%d", s->woken);
	workers_end(pid);
}

/* --- SO_REUSEPORT --- */

static int member(int at, int *err)
{
	struct sockaddr_in a = addr_server(at);
	int fd = tcp_socket(), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	*err = bind(fd, SA(a), sizeof(a)) < 0 || listen(fd, 64) < 0 ? errno : 0;
	set_nonblock(fd, true);
	return fd;
}

static int take_all(int l)
{
	int n = 0;

	for (int fd; (fd = accept(l, NULL, NULL)) >= 0; n++)
		close(fd);
	return n;
}

CASE(members_share_the_connections)
{
	int l[MEMBERS], n[MEMBERS], err, sum = 0, least = CONNS;

	for (int i = 0; i < MEMBERS; i++) {
		l[i] = member(port(0), &err);
		out("member=%d", err);
	}
	for (int i = 0; i < CONNS; i++)
		peer_connect(port(0));
	nap_ms(100);
	for (int i = 0; i < MEMBERS; i++) {
		n[i] = take_all(l[i]);
		sum += n[i];
		least = n[i] < least ? n[i] : least;
	}
	out("sum=%d none_is_left_out=%d", sum, least > 0);
}

CASE(members_in_several_processes_share_the_connections)
{
	struct shared *s = shared_new();
	int err, l = member(port(0), &err);
	pid_t pid[WORKERS] = {0};

	for (int i = 0; i < WORKERS; i++)
		if (!(pid[i] = fork())) {
			int own = member(port(0), &err);

			close(l);
			set_nonblock(own, false);
			if (!err)
				taker(s, own);
			_exit(1);
		}
	for (int i = 0; i < 500 && s->ready < WORKERS; i++)
		nap_ms(10);
	close(l);
	nap_ms(100);
	for (int i = 0; i < CONNS; i++)
		peer_connect(port(0));
	for (int k = 0; k < 300 && s->woken < CONNS; k++)
		nap_ms(10);
	out("taken=%d", s->woken);
	workers_end(pid);
}

/* Without net.ipv4.tcp_migrate_req the connections of a member that closes are lost, the others' stay. */
CASE(closing_a_member_resets_its_queue_only)
{
	int l[2], err, ids[CONNS], reset = 0, rest;

	for (int i = 0; i < 2; i++)
		l[i] = member(port(0), &err);
	for (int i = 0; i < 20; i++)
		ids[i] = peer_connect(port(0));
	nap_ms(100);
	close(l[0]);
	nap_ms(100);
	rest = 0;
	for (int fd; (fd = accept(l[1], NULL, NULL)) >= 0; rest++) {
		if (send(fd, "x", 1, 0) != 1)
			die("send: %s", strerror(errno));
	}
	for (int i = 0; i < 20; i++)
		reset += !strncmp(peer("recv %d 1", ids[i]), "ok 0 ECONNRESET", 15);
	out("all_told=%d some_each=%d", reset + rest, reset > 0 && rest > 0);
}

CASE(who_may_join)
{
	struct sockaddr_in a = addr_server(port(0));
	int err, l = member(port(0), &err), fd = tcp_socket(), one = 1, status;
	pid_t pid;

	out("first=%d", err);
	ret("without", bind(fd, SA(a), sizeof(a)));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("reuseaddr", bind(fd, SA(a), sizeof(a)));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	ret("both", bind(fd, SA(a), sizeof(a)));
	pid = fork();
	if (!pid) {
		if (seteuid(65534) < 0)
			_exit(99);
		member(port(0), &err);
		_exit(err);
	}
	waitpid(pid, &status, 0);
	out("other_user=%s", strerrorname_np(WEXITSTATUS(status)));
	close(l);
	close(fd);
	fd = tcp_socket();
	ret("plain", bind(fd, SA(a), sizeof(a)));
	ret("listen", listen(fd, 4));
	member(port(0), &err);
	out("late=%s", strerrorname_np(err));
}

/* --- backlog --- */

CASE(backlog_holds_one_more_than_it_says)
{
	struct sockaddr_in a = addr_server(port(0));
	int l = tcp_socket(), taken;
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	bind(l, SA(a), sizeof(a));
	ret("listen", listen(l, 3));
	for (int i = 0; i < 4; i++)
		peer_connect(port(0));
	nap_ms(50);
	memset(&ti, 0, sizeof(ti));
	getsockopt(l, IPPROTO_TCP, TCP_INFO, &ti, &len);
	out("queued=%u of=%u", ti.tcpi_unacked, ti.tcpi_sacked);
	set_nonblock(l, true);
	for (taken = 0; accept(l, NULL, NULL) >= 0; taken++)
		;
	out("taken=%d", taken);
	/* a second listen changes it */
	ret("listen", listen(l, 0));
	peer_connect(port(0));
	nap_ms(50);
	len = sizeof(ti);
	getsockopt(l, IPPROTO_TCP, TCP_INFO, &ti, &len);
	out("queued=%u of=%u", ti.tcpi_unacked, ti.tcpi_sacked);
}
