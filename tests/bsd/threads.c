/* threads.c - several threads on one socket: who is woken by close and shutdown, shared accept, send and
 * recv, many threads that come and go. */
#include "bsd.h"

#include <dirent.h>
#include <sched.h>

struct job {
	pthread_t thread;
	int fd;
	void (*run)(struct job *j);
	long rc, rc2;
	int error;
	size_t total;
	char letter;
	_Atomic bool is_done;
};

static void *job_start(void *arg)
{
	struct job *j = arg;

	j->run(j);
	j->is_done = true;
	return NULL;
}

/* Starts run(j) in a thread of its own and lets it come to rest. */
static void job_go(struct job *j, void (*run)(struct job *j), int fd)
{
	j->run = run;
	j->fd = fd;
	if (pthread_create(&j->thread, NULL, job_start, j))
		die("pthread_create");
}

static void job_show(const char *what, struct job *j)
{
	pthread_join(j->thread, NULL);
	if (j->rc < 0)
		out("%s=%s", what, strerrorname_np(j->error));
	else
		out("%s=%ld", what, j->rc);
}

static void run_recv(struct job *j)
{
	char buf[16];

	j->rc = recv(j->fd, buf, sizeof(buf), 0);
	j->error = errno;
}

static void run_accept(struct job *j)
{
	j->rc = accept(j->fd, NULL, NULL);
	j->error = errno;
	j->rc2 = j->rc;
	if (j->rc >= 0)
		j->rc = 1;
}

static void run_send_letters(struct job *j)
{
	char buf[1000];

	memset(buf, j->letter, sizeof(buf));
	for (int i = 0; i < 200; i++)
		for (size_t off = 0; off < sizeof(buf);) {
			ssize_t n = send(j->fd, buf + off, sizeof(buf) - off, MSG_NOSIGNAL);

			if (n < 0) {
				j->rc = -1;
				j->error = errno;
				return;
			}
			off += (size_t)n;
			j->total += (size_t)n;
		}
}

static void run_send_forever(struct job *j)
{
	char buf[8192] = "";

	while ((j->rc = send(j->fd, buf, sizeof(buf), MSG_NOSIGNAL)) >= 0)
		;
	j->error = errno;
}

static void run_drain(struct job *j)
{
	char buf[4096];

	while ((j->rc = recv(j->fd, buf, sizeof(buf), 0)) > 0)
		j->total += (size_t)j->rc;
	j->error = errno;
}

static void run_send_pattern(struct job *j)
{
	char buf[10000];

	while (j->total < 1000000) {
		ssize_t n;

		pattern_fill(buf, j->total, sizeof(buf));
		n = send(j->fd, buf, sizeof(buf), MSG_NOSIGNAL);
		if (n < 0) {
			j->rc = -1;
			j->error = errno;
			return;
		}
		j->total += (size_t)n;
	}
}

/* One exchange with the peer's echo. */
static void run_exchange(struct job *j)
{
	char buf[100], back[100];

	for (int i = 0; i < 50; i++) {
		size_t got = 0;

		memset(buf, 'a' + (i + j->letter) % 26, sizeof(buf));
		if (send(j->fd, buf, sizeof(buf), MSG_NOSIGNAL) != sizeof(buf))
			return;
		while (got < sizeof(back)) {
			ssize_t n = recv(j->fd, back + got, sizeof(back) - got, 0);

			if (n <= 0)
				return;
			got += (size_t)n;
		}
		if (memcmp(buf, back, sizeof(buf)))
			return;
		j->total++;
	}
}

CASE_BOTH(shutdown_wakes_recv)
{
	for (int how = 0; how < 3; how += 2) {
		struct conn c = pair();
		struct job j = {0};

		job_go(&j, run_recv, c.fd);
		nap_ms(50);
		ret("shutdown", shutdown(c.fd, how));
		job_show("recv", &j);
	}
}

CASE_BOTH(shutdown_wakes_send)
{
	struct conn c = pair_narrow();
	struct job j = {0};

	job_go(&j, run_send_forever, c.fd);
	nap_ms(200);
	out("done=%d", j.is_done);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	job_show("send", &j);
}

CASE_BOTH(reset_wakes_all)
{
	struct conn c = pair_narrow();
	struct job reader = {0}, writer = {0};

	job_go(&reader, run_recv, c.fd);
	job_go(&writer, run_send_forever, c.fd);
	nap_ms(200);
	peer_ok("reset %d", c.id);
	pthread_join(reader.thread, NULL);
	pthread_join(writer.thread, NULL);
	/* either may be the one that takes the error */
	out("reader=%d writer=%d", reader.rc <= 0, writer.rc < 0);
}

/* close from another thread does not end a recv under way, nor the connection before it. */
CASE_BOTH(close_during_recv)
{
	struct conn c = pair();
	struct job j = {0};

	job_go(&j, run_recv, c.fd);
	nap_ms(50);
	ret("close", close(c.fd));
	nap_ms(50);
	out("done=%d", j.is_done);
	peer_ok("send %d 5", c.id);
	job_show("recv", &j);
	peer_show("end", "recv %d 1", c.id);
}

CASE(close_during_accept)
{
	struct job j = {0};
	int l = listener(port(0));

	job_go(&j, run_accept, l);
	nap_ms(50);
	ret("close", close(l));
	nap_ms(50);
	out("done=%d", j.is_done);
	peer_connect(port(0));
	job_show("accept", &j);
}

/* Waits until the process's other thread sleeps. */
static void asleep(void)
{
	char path[64], text[256], *p;

	for (;;) {
		DIR *d = opendir("/proc/self/task");
		struct dirent *e;
		int busy = 0;

		while ((e = readdir(d))) {
			FILE *file;

			if (atoi(e->d_name) == getpid() || e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atoi(e->d_name));
			file = fopen(path, "re");
			p = file && fgets(text, sizeof(text), file) ? strrchr(text, ')') : NULL;
			busy += !p || p[2] != 'S';
			if (file)
				fclose(file);
		}
		closedir(d);
		if (!busy)
			return;
	}
}

static void run_accept_counted(struct job *j)
{
	j->total = 1;
	run_accept(j);
}

/* As above, at the wildcard, and as soon as the thread sleeps in whatever the call does first. */
CASE(close_during_accept_soon)
{
	struct sockaddr_in any = addr_any(port(0));
	int good = 0, one = 1;

	for (int i = 0; i < 100; i++) {
		int l = tcp_socket();
		struct job j = {0};

		setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(l, SA(any), sizeof(any)) < 0 || listen(l, 5) < 0)
			die("listen: %s", strerror(errno));
		job_go(&j, run_accept_counted, l);
		while (!*(volatile size_t *)&j.total)
			sched_yield();
		asleep();
		close(l);
		peer_ok("close %d", peer_connect(port(0)));
		pthread_join(j.thread, NULL);
		if (j.rc == 1) {
			good++;
			close((int)j.rc2);
		} else {
			out("accept=%s", strerrorname_np(j.error));
		}
	}
	out("good=%d", good);
}

/* The same while another thread talks: what comes for that one may wake the thread in accept, too, and is
 * worked off before it looks. Nothing of that is a signal. */
CASE(close_during_accept_beside_traffic)
{
	struct sockaddr_in any = addr_any(port(1));
	int good = 0, one = 1;

	for (int i = 0; i < 100; i++) {
		struct conn c = pair();
		struct pollfd p = {.fd = c.fd, .events = POLLIN};
		int l = tcp_socket();
		struct job j = {0};

		setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(l, SA(any), sizeof(any)) < 0 || listen(l, 5) < 0)
			die("listen: %s", strerror(errno));
		nap_ms(2); /* or inline, the other thread leaves the port to this one, as it has been busy */
		job_go(&j, run_accept_counted, l);
		while (!*(volatile size_t *)&j.total)
			sched_yield();
		asleep();
		close(l);
		peer_ok("after 2 send %d 1", c.id);
		/* awake, so that it is this thread that takes the byte */
		while (poll(&p, 1, 0) == 0)
			;
		peer_ok("close %d", c.id);
		close(c.fd);
		if (j.is_done) {
			out("accept=%s", strerrorname_np(j.error));
		} else {
			peer_ok("close %d", peer_connect(port(1)));
			good++;
		}
		pthread_join(j.thread, NULL);
		if (j.rc == 1)
			close((int)j.rc2);
	}
	out("good=%d", good);
}

/* A call that a signal begins anew finds its number gone. */
CASE(close_during_accept_then_restart)
{
	struct sockaddr_in any = addr_any(port(0));
	struct job j = {0};
	int l = tcp_socket();

	bind(l, SA(any), sizeof(any));
	listen(l, 5);
	signal_count_on(SIGUSR1, true);
	job_go(&j, run_accept_counted, l);
	while (!*(volatile size_t *)&j.total)
		sched_yield();
	asleep();
	nap_ms(50);
	ret("close", close(l));
	pthread_kill(j.thread, SIGUSR1);
	job_show("accept", &j);
}

static void run_recvfrom_counted(struct job *j)
{
	char buf[16];
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	j->total = 1;
	j->rc = recvfrom(j->fd, buf, sizeof(buf), 0, SA(a), &len);
	j->error = errno;
}

/* How Java closes a socket that a thread waits for: another file comes in the number's place, and a signal
 * ends the wait. What the other file has to say is not for that thread. */
static void replaced(void (*run)(struct job *j), int fd)
{
	struct job j = {0};
	int ends[2];

	if (pipe(ends) < 0 || write(ends[1], "pipe", 4) != 4)
		die("pipe");
	signal_count_on(SIGUSR1, false);
	job_go(&j, run, fd);
	while (!*(volatile size_t *)&j.total)
		sched_yield();
	asleep();
	nap_ms(50);
	ret("dup2", dup2(ends[0], fd) == fd);
	pthread_kill(j.thread, SIGUSR1);
	for (int i = 0; i < 300 && !j.is_done; i++)
		nap_ms(10);
	out("over=%d", j.is_done);
	while (!j.is_done) {
		pthread_kill(j.thread, SIGUSR1);
		nap_ms(20);
	}
	job_show("call", &j);
	ret("pipe", read(fd, (char[8]){0}, 8));
	ret("closed", close(fd));
}

CASE(number_replaced_during_accept)
{
	struct sockaddr_in any = addr_any(port(1));
	int wild = tcp_socket();

	replaced(run_accept_counted, listener(port(0)));
	ret("bind", bind(wild, SA(any), sizeof(any)));
	ret("listen", listen(wild, 5));
	replaced(run_accept_counted, wild);
}

CASE(number_replaced_during_recvfrom)
{
	struct sockaddr_in own = addr_server(port(0)), any = addr_any(port(1));
	int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);

	ret("bind", bind(a, SA(own), sizeof(own)));
	replaced(run_recvfrom_counted, a);
	ret("bind", bind(b, SA(any), sizeof(any)));
	replaced(run_recvfrom_counted, b);
}

CASE(shutdown_wakes_accept)
{
	struct job j = {0};
	int l = listener(port(0));

	job_go(&j, run_accept, l);
	nap_ms(50);
	ret("shutdown", shutdown(l, SHUT_RDWR));
	job_show("accept", &j);
	ret("again", accept(l, NULL, NULL));
}

CASE(two_accept_on_one_listener)
{
	struct job j[2] = {{0}, {0}};
	int l = listener(port(0)), a, b;

	for (int i = 0; i < 2; i++)
		job_go(&j[i], run_accept, l);
	nap_ms(50);
	a = peer_connect(port(0));
	b = peer_connect(port(0));
	for (int i = 0; i < 2; i++)
		job_show("accept", &j[i]);
	out("differ=%d", j[0].rc2 != j[1].rc2);
	for (int i = 0; i < 2; i++)
		ret("send", send((int)j[i].rc2, "k", 1, 0));
	peer_show("a", "show %d 1", a);
	peer_show("b", "show %d 1", b);
}

CASE_BOTH(two_recv_on_one_socket)
{
	struct conn c = pair();
	struct job j[2] = {{0}, {0}};

	for (int i = 0; i < 2; i++)
		job_go(&j[i], run_drain, c.fd);
	for (int i = 0; i < 20; i++)
		peer_ok("send %d 5000", c.id);
	peer_ok("shut %d 1", c.id);
	for (int i = 0; i < 2; i++)
		job_show("recv", &j[i]);
	out("total=%zu", j[0].total + j[1].total);
}

CASE_BOTH(one_message_wakes_one_of_two)
{
	struct conn c = pair();
	struct job j[2] = {{0}, {0}};

	for (int i = 0; i < 2; i++)
		job_go(&j[i], run_recv, c.fd);
	nap_ms(50);
	peer_ok("send %d 3", c.id);
	nap_ms(100);
	out("done=%d", j[0].is_done + j[1].is_done);
	peer_ok("send %d 3", c.id);
	for (int i = 0; i < 2; i++)
		job_show("recv", &j[i]);
}

CASE_BOTH(four_send_on_one_socket)
{
	struct conn c = pair();
	struct job j[4] = {{0}, {0}, {0}, {0}};
	size_t total = 0;
	char text[64] = "";

	for (int i = 0; i < 4; i++) {
		j[i].letter = (char)('a' + i);
		job_go(&j[i], run_send_letters, c.fd);
	}
	strncpy(text, peer("recv %d 800000", c.id), sizeof(text) - 1);
	for (int i = 0; i < 4; i++) {
		job_show("send", &j[i]);
		total += j[i].total;
	}
	out("total=%zu peer=%.9s", total, text);
}

CASE_BOTH(send_and_recv_at_once)
{
	struct conn c = pair();
	struct job writer = {0};
	static char buf[65536];
	size_t got = 0;
	bool is_match = true;

	peer_go("echo %d", c.id);
	job_go(&writer, run_send_pattern, c.fd);
	while (got < 1000000) {
		ssize_t n = recv(c.fd, buf, sizeof(buf), 0);

		if (n <= 0)
			break;
		is_match = is_match && pattern_ok(buf, got, (size_t)n);
		got += (size_t)n;
	}
	job_show("send", &writer);
	out("got=%zu match=%d", got, is_match);
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	out("peer=%s", peer_reply());
}

/* Each thread has a connection of its own to one echo each; the peer serves them one after the other. */
CASE_BOTH(thread_per_connection)
{
	enum { COUNT = 8 };
	struct conn c[COUNT];
	struct job j[COUNT] = {0};

	for (int i = 0; i < COUNT; i++) {
		c[i] = pair();
		j[i].letter = (char)i;
	}
	for (int i = 0; i < COUNT; i++)
		job_go(&j[i], run_exchange, c[i].fd);
	for (int i = 0; i < COUNT; i++) {
		peer_go("echo %d", c[i].id);
		pthread_join(j[i].thread, NULL);
		out("%zu", j[i].total);
		shutdown(c[i].fd, SHUT_WR);
		peer_reply();
	}
}

/* Threads that block once and end: nothing of theirs may run out. */
CASE_BOTH(many_threads_come_and_go)
{
	struct conn c = pair();
	int good = 0;

	for (int i = 0; i < 300; i++) {
		struct job j = {0};

		job_go(&j, run_recv, c.fd);
		if (i % 3 == 0)
			nap_ms(1);
		peer_ok("send %d 1", c.id);
		pthread_join(j.thread, NULL);
		good += j.rc == 1;
	}
	out("good=%d", good);
}

static void run_open_and_close(struct job *j)
{
	struct sockaddr_in a = addr_peer(j->fd);

	for (int i = 0; i < 30; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0 || connect(fd, SA(a), sizeof(a)) < 0 || send(fd, "\0", 1, MSG_NOSIGNAL) != 1 ||
		        recv(fd, &(char){0}, 1, 0) != 1) {
			j->error = errno;
			j->rc = -1;
			return;
		}
		close(fd);
		j->total++;
	}
}

CASE(four_open_and_close)
{
	struct job j[4] = {0};
	int id, at;

	sscanf(peer("listen 0 64 0"), "ok %d %d", &id, &at);
	peer_go("gulp %d 120 1", id);
	for (int i = 0; i < 4; i++)
		job_go(&j[i], run_open_and_close, at);
	for (int i = 0; i < 4; i++) {
		job_show("rc", &j[i]);
		out("count=%zu", j[i].total);
	}
	out("peer=%s", peer_reply());
}

/* A thread accepts while another closes and opens numbers: none gets the other's. */
static void run_numbers(struct job *j)
{
	while (!j->is_done) {
		int fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd), fds[2];

		if (pipe(fds) < 0 || close(fds[0]) < 0 || close(fds[1]) < 0 || close(copy) < 0 ||
		        close(fd) < 0) {
			j->rc = -1;
			j->error = errno;
			return;
		}
		j->total++;
	}
}

CASE(numbers_under_pressure)
{
	struct job j = {0};
	int l = listener(port(0)), good = 0;

	job_go(&j, run_numbers, -1);
	for (int i = 0; i < 100; i++) {
		int id = peer_connect(port(0)), fd = accept(l, NULL, NULL);

		if (fd < 0 || send(fd, "k", 1, MSG_NOSIGNAL) != 1 || close(fd) < 0)
			break;
		good += !strcmp(peer("show %d 1", id), "ok more k");
		peer_ok("close %d", id);
	}
	j.is_done = true;
	job_show("numbers", &j);
	out("good=%d", good);
}

static void on_alarm(int signal)
{
	(void)signal;
}

static void run_recv_in_slices(struct job *j)
{
	struct sigaction sa = {.sa_handler = on_alarm};
	char buf[16];

	sigaction(SIGUSR1, &sa, NULL);
	j->rc = recv(j->fd, buf, sizeof(buf), 0);
	j->error = errno;
}

CASE_BOTH(signal_to_one_thread)
{
	struct conn c = pair(), d = pair();
	struct job one = {0}, two = {0};

	job_go(&one, run_recv_in_slices, c.fd);
	job_go(&two, run_recv_in_slices, d.fd);
	nap_ms(50);
	pthread_kill(one.thread, SIGUSR1);
	job_show("one", &one);
	nap_ms(20);
	out("two=%d", two.is_done);
	peer_ok("send %d 2", d.id);
	job_show("two", &two);
}

CASE_BOTH(cancel_in_recv)
{
	struct conn c = pair();
	struct job j = {0};
	void *value = NULL;
	char buf[8];

	job_go(&j, run_recv, c.fd);
	nap_ms(50);
	ret("cancel", pthread_cancel(j.thread));
	pthread_join(j.thread, &value);
	out("cancelled=%d", value == PTHREAD_CANCELED);
	peer_ok("send %d 4", c.id);
	ret("recv", recv(c.fd, buf, 8, 0));
	ret("send", send(c.fd, "k", 1, 0));
	peer_show("peer", "show %d 1", c.id);
}

/* A thread pool: one thread sleeps in a set while another looks at it without waiting. */
static struct {
	int set, looks, stop;
	struct conn conn;
	int taken;
} pool;

/* Takes one event, one byte, and arms the member again. */
static bool pool_take(int timeout_ms)
{
	struct epoll_event ev;
	char c;

	if (epoll_wait(pool.set, &ev, 1, timeout_ms) != 1)
		return false;
	while (recv(pool.conn.fd, &c, 1, MSG_DONTWAIT) == 1)
		__atomic_add_fetch(&pool.taken, 1, __ATOMIC_SEQ_CST);
	ev.events = EPOLLIN | EPOLLET | EPOLLONESHOT | EPOLLRDHUP;
	if (epoll_ctl(pool.set, EPOLL_CTL_MOD, pool.conn.fd, &ev) < 0)
		die("epoll_ctl: %s", strerror(errno));
	return true;
}

static void *pool_sleeper(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&pool.stop, __ATOMIC_SEQ_CST))
		pool_take(-1);
	return NULL;
}

static void *pool_looker(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&pool.stop, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&pool.looks, __ATOMIC_SEQ_CST))
			pool_take(0);
		else
			sched_yield();
	}
	return NULL;
}

static bool pool_await(int count)
{
	uint64_t end = now_ms() + 3000;

	while (__atomic_load_n(&pool.taken, __ATOMIC_SEQ_CST) < count) {
		if (now_ms() > end)
			return false;
		sched_yield();
	}
	return true;
}

CASE_BOTH(sleeper_beside_one_who_looks_without_waiting)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET | EPOLLONESHOT | EPOLLRDHUP};
	pthread_t sleeper, looker;
	int lost = 0;

	pool.conn = pair();
	pool.set = epoll_create1(0);
	ret("add", epoll_ctl(pool.set, EPOLL_CTL_ADD, pool.conn.fd, &ev));
	pthread_create(&sleeper, NULL, pool_sleeper, NULL);
	pthread_create(&looker, NULL, pool_looker, NULL);
	for (int i = 0; i < 300 && !lost; i++) {
		__atomic_store_n(&pool.looks, 1, __ATOMIC_SEQ_CST);
		peer_ok("send %d 1", pool.conn.id);
		lost += !pool_await(2 * i + 1);
		__atomic_store_n(&pool.looks, 0, __ATOMIC_SEQ_CST);
		/* the one who sleeps is alone now */
		peer_ok("send %d 1", pool.conn.id);
		lost += !pool_await(2 * i + 2);
	}
	out("lost=%d", lost);
	__atomic_store_n(&pool.stop, 1, __ATOMIC_SEQ_CST);
	peer_ok("close %d", pool.conn.id);
	pthread_join(looker, NULL);
	if (!lost)
		pthread_join(sleeper, NULL);
}

/* The same where the set is empty when they begin. */
CASE_BOTH(sleeper_in_an_empty_set_beside_one_who_looks)
{
	int lost = 0;

	pool.conn = pair();
	for (int i = 0; i < 60 && !lost; i++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLET | EPOLLONESHOT | EPOLLRDHUP};
		pthread_t sleeper, looker;
		int before = pool.taken;

		pool.set = epoll_create1(0);
		pool.stop = 0;
		pool.looks = 1;
		pthread_create(&sleeper, NULL, pool_sleeper, NULL);
		pthread_create(&looker, NULL, pool_looker, NULL);
		nap_ms(2);
		if (epoll_ctl(pool.set, EPOLL_CTL_ADD, pool.conn.fd, &ev) < 0)
			die("epoll_ctl: %s", strerror(errno));
		__atomic_store_n(&pool.looks, 0, __ATOMIC_SEQ_CST);
		nap_ms(1);
		peer_ok("send %d 1", pool.conn.id);
		lost += !pool_await(before + 1);
		__atomic_store_n(&pool.stop, 1, __ATOMIC_SEQ_CST);
		peer_ok("send %d 1", pool.conn.id);
		pthread_join(looker, NULL);
		if (!lost)
			pthread_join(sleeper, NULL);
		close(pool.set);
	}
	out("lost=%d", lost);
}
