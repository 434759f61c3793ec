/* forking.c - sockets across fork, vfork, daemon and exec: who may use them, who ends them, and that neither
 * process disturbs the other's. */
#include "bsd.h"

#include <spawn.h>
#include <sys/syscall.h>

/* One process lets another go on, so that their words come in one order. */
struct report {
	int fds[2];
};

static void report_open(struct report *r)
{
	if (pipe(r->fds) < 0)
		die("pipe: %s", strerror(errno));
}

/* Shows what the peer's connect gets in the end: a process that is gone may be noticed a moment later, but it
 * is noticed. */
static void refused(const char *what, int at)
{
	uint64_t end = now_ms() + 3000;
	const char *reply;

	do {
		reply = peer("connect %d 0", at);
		if (!strcmp(reply, "ECONNREFUSED"))
			break;
		if (!strncmp(reply, "ok", 2))
			peer_ok("close %d", atoi(reply + 2));
		nap_ms(10);
	} while (now_ms() < end);
	out("%s=%.12s", what, reply);
}

static void go(struct report *r)
{
	if (write(r->fds[1], "g", 1) != 1)
		die("go");
}

static void await(struct report *r)
{
	char c;

	if (read(r->fds[0], &c, 1) != 1)
		die("await");
}

CASE_BOTH(child_uses_connection)
{
	struct conn c = pair();
	pid_t pid;
	char buf[8];

	peer_ok("send %d 4", c.id);
	pid = child();
	if (pid == 0) {
		ret("child_recv", recv(c.fd, buf, 8, 0));
		out("match=%d", pattern_ok(buf, 0, 4));
		ret("child_send", send(c.fd, "child", 5, 0));
		_exit(0);
	}
	join(pid);
	peer_show("peer", "show %d 5", c.id);
	ret("send", send(c.fd, "parent", 6, 0));
	peer_show("peer", "show %d 6", c.id);
	peer_ok("send %d 4", c.id);
	ret("recv", recv(c.fd, buf, 8, 0));
	out("match=%d", pattern_ok(buf, 4, 4));
	ret("close", close(c.fd));
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(child_exit_closes_nothing)
{
	struct conn c = pair(), d = pair();
	pid_t pid = child();

	if (pid == 0) {
		ret("child_close", close(c.fd));
		_exit(0);
	}
	join(pid);
	nap_ms(50);
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("c", "show %d 5", c.id);
	ret("send", send(d.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("d", "show %d 5", d.id);
}

CASE_BOTH(child_killed_closes_nothing)
{
	struct conn c = pair();
	pid_t pid = child();

	if (pid == 0) {
		char b;

		recv(c.fd, &b, 1, 0);
		_exit(0);
	}
	nap_ms(50);
	kill(pid, SIGKILL);
	join(pid);
	nap_ms(50);
	peer_ok("send %d 3", c.id);
	settle(c.fd, POLLIN);
	ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
}

CASE_BOTH(parent_closes_child_goes_on)
{
	struct conn c = pair();
	struct report r, said;
	pid_t pid;

	report_open(&r);
	report_open(&said);
	pid = child();
	if (pid == 0) {
		await(&r);
		ret("child_send", send(c.fd, "child", 5, MSG_NOSIGNAL));
		go(&said);
		ret("child_recv", recv(c.fd, (char[8]){0}, 8, 0));
		_exit(0);
	}
	ret("close", close(c.fd));
	nap_ms(50);
	go(&r);
	await(&said);
	peer_show("peer", "show %d 5", c.id);
	peer_ok("send %d 3", c.id);
	join(pid);
	peer_show("end", "recv %d 1", c.id);
}

/* The process that made the connection ends; its grandchild's work goes on. */
CASE_BOTH(close_does_not_linger_while_the_child_has_it_open)
{
	struct conn c = pair();
	struct linger on = {.l_onoff = 1, .l_linger = 2};
	struct report r;
	pid_t pid;

	report_open(&r);
	ret("linger", setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &on, sizeof(on)));
	pid = child();
	if (pid == 0) {
		await(&r);
		ret("child_send", send(c.fd, "child", 5, MSG_NOSIGNAL));
		ret("child_close", close(c.fd));
		_exit(0);
	}
	ret("close", close(c.fd));
	go(&r);
	join(pid);
	peer_show("peer", "show %d 5", c.id);
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(maker_exits_first)
{
	struct conn c;
	struct report r, done;
	pid_t pid;

	report_open(&r);
	report_open(&done);
	c = pair();
	pid = child();
	if (pid == 0) {
		if (child() == 0) {
			await(&r);
			ret("grandchild", send(c.fd, "deep", 4, MSG_NOSIGNAL));
			go(&done);
			ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
			go(&done);
			_exit(0);
		}
		_exit(0);
	}
	join(pid);
	ret("close", close(c.fd));
	go(&r);
	await(&done);
	peer_show("peer", "show %d 4", c.id);
	peer_ok("send %d 3", c.id);
	await(&done);
	peer_show("end", "recv %d 1", c.id);
}

CASE(child_accepts)
{
	int l = listener(port(0)), id;
	struct report r, said;
	pid_t pid;

	report_open(&r);
	report_open(&said);
	pid = child();
	if (pid == 0) {
		int fd = ret_fd("child_accept", accept(l, NULL, NULL));

		ret("child_send", send(fd, "child", 5, 0));
		go(&said);
		await(&r);
		_exit(0);
	}
	id = peer_connect(port(0));
	await(&said);
	peer_show("peer", "show %d 5", id);
	go(&r);
	join(pid);
	peer_show("end", "recv %d 1", id);
	id = peer_connect(port(0));
	ret("send", send(accept(l, NULL, NULL), "parent", 6, 0));
	peer_show("peer", "show %d 6", id);
}

static volatile sig_atomic_t handler_child = -1;

static void fork_here(int sig)
{
	(void)sig;
	if (handler_child == -1)
		handler_child = fork();
	if (!handler_child)
		alarm(2); /* should it sleep anew */
}

/* The child goes on in the middle of its parent's sleep. */
CASE(handler_forks_in_a_blocking_accept)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port(0))};
	const struct itimerval soon = {{0, 300000}, {0, 300000}}, never = {0};
	const struct sigaction sa = {.sa_handler = fork_here};
	int l = tcp_socket(), rc, status = -1;

	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 5));
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	rc = accept(l, NULL, NULL);
	if (!handler_child)
		_exit(rc < 0 && errno == EINTR ? 7 : 8);
	setitimer(ITIMER_REAL, &never, NULL);
	ret("accept", rc);
	waitpid(handler_child, &status, 0);
	out("child ended=%d with=%d", WIFEXITED(status), WEXITSTATUS(status));
	rc = peer_connect(port(0));
	ret("send", send(accept(l, NULL, NULL), "parent", 6, 0));
	peer_show("peer", "show %d 6", rc);
}

/* Pre-fork: four children accept on one listener that the parent has closed. */
CASE(children_share_listener)
{
	enum { CHILDREN = 4, EACH = 5 };
	int l = listener(port(0)), good = 0;
	pid_t pid[CHILDREN];

	for (int i = 0; i < CHILDREN; i++) {
		pid[i] = child();
		if (pid[i] == 0) {
			for (int k = 0; k < EACH; k++) {
				int fd = accept(l, NULL, NULL);

				if (fd < 0 || send(fd, "k", 1, MSG_NOSIGNAL) != 1 || close(fd) < 0)
					_exit(1);
			}
			_exit(0);
		}
	}
	ret("close", close(l));
	for (int i = 0; i < CHILDREN * EACH; i++) {
		int id = peer_connect(port(0));

		good += !strcmp(peer("recv %d 1", id), "ok 1 more mismatch");
		peer_ok("close %d", id);
	}
	for (int i = 0; i < CHILDREN; i++)
		join(pid[i]);
	out("good=%d", good);
	refused("closed", port(0));
}

/* One of the sharers dies: its connections end, the listener stays. */
CASE(child_with_listener_is_killed)
{
	int l = listener(port(0)), id;
	struct report said;
	pid_t pid;

	report_open(&said);
	pid = child();
	if (pid == 0) {
		int fd = accept(l, NULL, NULL);

		ret("child_send", send(fd, "child", 5, 0));
		go(&said);
		pause();
	}
	id = peer_connect(port(0));
	await(&said);
	peer_show("peer", "show %d 5", id);
	kill(pid, SIGKILL);
	join(pid);
	peer_show("end", "recv %d 1", id);
	id = peer_connect(port(0));
	ret("send", send(accept(l, NULL, NULL), "parent", 6, 0));
	peer_show("peer", "show %d 6", id);
}

CASE(killed_process_closes_all)
{
	struct report r;
	char at[16];
	int id, ids[2];
	pid_t pid;

	report_open(&r);
	sscanf(peer("listen 0 4 0"), "ok %d %15s", &id, at);
	pid = child();
	if (pid == 0) {
		struct sockaddr_in a = addr_peer(atoi(at));
		int fd = tcp_socket();

		ret("child_connect", connect(fd, SA(a), sizeof(a)));
		listener(port(0));
		ret("child_send", send(fd, "last", 4, 0));
		go(&r);
		pause();
	}
	ids[0] = peer_ok("accept %d", id);
	await(&r);
	ids[1] = peer_connect(port(0));
	kill(pid, SIGKILL);
	join(pid);
	peer_show("data", "show %d 4", ids[0]);
	peer_show("end", "recv %d 1", ids[0]);
	peer_show("queued", "recv %d 1", ids[1]);
	refused("closed", port(0));
}

/* 0, or the error that binding to the address and listening ended with. */
static int serve(struct sockaddr_in at)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 5) < 0)
		return errno;
	return 0;
}

static int killed_then_free(struct sockaddr_in at)
{
	int rc = 0;

	for (int i = 0; i < 20 && !rc; i++) {
		struct report r;
		pid_t pid;

		report_open(&r);
		pid = child();
		if (!pid) {
			if (serve(at))
				_exit(1);
			go(&r);
			pause();
		}
		await(&r);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		pid = child();
		if (!pid)
			_exit(serve(at));
		waitpid(pid, &rc, 0);
		rc = WEXITSTATUS(rc);
		close(r.fds[0]);
		close(r.fds[1]);
	}
	return rc;
}

/* A process that is gone has no port any more when its parent hears of it. */
CASE(port_is_free_once_the_killed_is_reaped)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in own = addr_server(port(2));

	if (bind(fd, (struct sockaddr *)&own, sizeof(own)) <
	        0) /* joins the service before the children are made */
		die("bind: %s", strerror(errno));
	out("own=%s", strerrorname_np(killed_then_free(addr_server(port(0)))) ?: "0");
	out("any=%s", strerrorname_np(killed_then_free(addr_any(port(1)))) ?: "0");
	close(fd);
}

/* The listener at the wildcard is the kernel's and the service's: both let the port go with the child. */
CASE(wildcard_port_is_free_once_a_child_has_ended)
{
	int good = 0;

	for (int i = 0; i < 100; i++) {
		struct sockaddr_in any = addr_any(port(0));
		int one = 1, fd = tcp_socket();
		pid_t pid;

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, SA(any), sizeof(any)) < 0 || listen(fd, 5) < 0) {
			close(fd);
			continue;
		}
		good++;
		pid = child();
		if (!pid) {
			struct pollfd p = {.fd = fd, .events = POLLIN};

			_exit(poll(&p, 1, 0));
		}
		close(fd);
		waitpid(pid, NULL, 0);
	}
	out("good=%d", good);
}

CASE_BOTH(child_makes_its_own)
{
	struct conn c = pair();
	pid_t pid = child();

	if (pid == 0) {
		struct sockaddr_in a = addr_server(port(1));
		int l = tcp_socket(), one = 1;

		setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		ret("bind", bind(l, SA(a), sizeof(a)));
		ret("listen", listen(l, 4));
		if (ret("poll", poll(&(struct pollfd){.fd = l, .events = POLLIN}, 1, 8000)) == 1)
			ret("send", send(accept(l, NULL, NULL), "own", 3, 0));
		_exit(0);
	}
	for (int i = 0; i < 200; i++) { /* until the child listens */
		const char *reply = peer("connect %d 0", port(1));
		int id;

		if (sscanf(reply, "ok %d", &id) == 1) {
			join(pid);
			peer_show("own", "show %d 3", id);
			break;
		}
		nap_ms(20);
	}
	ret("send", send(c.fd, "still", 5, 0));
	peer_show("parent", "show %d 5", c.id);
}

static int add(int ep, int fd, uint64_t data)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = data};

	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

/* Parent and child wait in a set of their own each, made before and after the fork. */
CASE_BOTH(set_of_child_beside_set_of_parent)
{
	struct conn c = pair(), d = pair();
	struct epoll_event ev;
	int ep = epoll_create1(0);
	pid_t pid;

	add(ep, c.fd, 1);
	ret("idle", epoll_wait(ep, &ev, 1, 0));
	pid = child();
	if (pid == 0) {
		int own = epoll_create1(0);

		ret("add", add(own, d.fd, 2));
		ret("child_wait", epoll_wait(own, &ev, 1, 8000));
		ret("child_recv", recv(d.fd, (char[8]){0}, 8, 0));
		_exit(0);
	}
	nap_ms(50);
	peer_ok("send %d 2", d.id);
	join(pid);
	peer_ok("send %d 3", c.id);
	ret("wait", epoll_wait(ep, &ev, 1, 8000));
	ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
}

/* A set made before the fork works in the child, as programs that become a daemon late need it. */
CASE_BOTH(inherited_set)
{
	struct conn c = pair();
	struct epoll_event ev;
	int l = listener(port(14)), ep = epoll_create1(0);
	pid_t pid;

	add(ep, c.fd, 1);
	add(ep, l, 2);
	ret("idle", epoll_wait(ep, &ev, 1, 0));
	pid = child();
	if (pid == 0) {
		ret("child_idle", epoll_wait(ep, &ev, 1, 20));
		out("ready");
		ret("child_wait", epoll_wait(ep, &ev, 1, 8000));
		out("data=%d", (int)ev.data.u64);
		ret("child_recv", recv(c.fd, (char[8]){0}, 8, 0));
		ret("child_wait", epoll_wait(ep, &ev, 1, 8000));
		out("data=%d", (int)ev.data.u64);
		ret_fd("child_accept", accept(l, NULL, NULL));
		_exit(0);
	}
	nap_ms(100);
	peer_ok("send %d 2", c.id);
	nap_ms(100);
	peer_connect(port(14));
	join(pid);
}

CASE_BOTH(poll_and_block_in_child)
{
	struct conn c = pair(), d = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	pid_t pid;

	peer_ok("after 20 send %d 1", d.id);
	ret("recv", recv(d.fd, (char[8]){0}, 8, 0)); /* the parent has slept once */
	pid = child();
	if (pid == 0) {
		ret("child_poll", poll(&p, 1, 8000));
		ret("child_recv", recv(c.fd, (char[8]){0}, 8, 0));
		ret("child_recv", recv(c.fd, (char[8]){0}, 8, 0));
		_exit(0);
	}
	nap_ms(50);
	peer_ok("send %d 2", c.id);
	nap_ms(50);
	peer_ok("send %d 3", c.id);
	join(pid);
	peer_ok("after 20 send %d 1", d.id);
	ret("recv", recv(d.fd, (char[8]){0}, 8, 0));
}

CASE_BOTH(parent_and_child_send_at_once)
{
	enum { SIZE = 200000 };
	struct conn c = pair();
	static char buf[SIZE];
	size_t done = 0;
	pid_t pid;

	memset(buf, 'p', sizeof(buf));
	peer_go("recv %d %d", c.id, SIZE * 2);
	pid = child();
	while (done < SIZE) {
		ssize_t n = send(c.fd, buf, SIZE - done > 5000 ? 5000 : SIZE - done, MSG_NOSIGNAL);

		if (n < 0)
			break;
		done += (size_t)n;
	}
	if (pid == 0)
		_exit(done == SIZE ? 0 : 1);
	join(pid);
	out("done=%zu peer=%.9s", done, peer_reply());
}

CASE_BOTH(shutdown_in_child_counts_for_both)
{
	struct conn c = pair();
	pid_t pid = child();

	if (pid == 0) {
		ret("child_shutdown", shutdown(c.fd, SHUT_WR));
		_exit(0);
	}
	join(pid);
	peer_show("end", "recv %d 1", c.id);
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	peer_ok("send %d 2", c.id);
	settle(c.fd, POLLIN);
	ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
}

CASE_BOTH(nonblocking_flag_is_shared)
{
	struct conn c = pair();
	pid_t pid = child();

	if (pid == 0) {
		set_nonblock(c.fd, true);
		ret("child_recv", recv(c.fd, (char[8]){0}, 8, 0));
		_exit(0);
	}
	join(pid);
	out("flag=%d", (fcntl(c.fd, F_GETFL) & O_NONBLOCK) != 0);
	ret("recv", recv(c.fd, (char[8]){0}, 8, MSG_DONTWAIT));
}

CASE_BOTH(exec_prints_nothing)
{
	struct conn c = pair();
	char *argv[] = {"true", NULL};
	pid_t pid = child();

	if (pid == 0) {
		dup2(STDOUT_FILENO, STDERR_FILENO);
		execv("/bin/true", argv);
		_exit(127);
	}
	join(pid);
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
	ret("system", system("exec 2>&1; /bin/true"));
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
}

/* exec ends what was close-on-exec only. */
CASE_BOTH(exec_closes_cloexec)
{
	struct conn c = pair();
	char *argv[] = {"sleep", "30", NULL};
	pid_t pid;

	fcntl(c.fd, F_SETFD, FD_CLOEXEC);
	pid = child();
	if (pid == 0) {
		execv("/bin/sleep", argv);
		_exit(127);
	}
	nap_ms(100);
	ret("close", close(c.fd));
	peer_show("end", "recv %d 1", c.id);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

CASE_BOTH(vfork_and_spawn)
{
	struct conn c = pair();
	char *argv[] = {"true", NULL};
	pid_t pid = vfork();
	int rc;

	if (pid == 0) {
		execv("/bin/true", argv);
		_exit(127);
	}
	join(pid);
	rc = posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL);
	out("spawn=%d", rc);
	if (!rc)
		join(pid);
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
	peer_ok("send %d 2", c.id);
	ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
}

/* The parent that called daemon() is gone; the daemon has its sockets. */
CASE_BOTH(daemon_keeps_sockets)
{
	struct conn c = pair();
	struct report r;
	pid_t pid;

	report_open(&r);
	pid = child();
	if (pid == 0) {
		if (daemon(1, 1) < 0)
			_exit(1);
		ret("send", send(c.fd, "daemon", 6, MSG_NOSIGNAL));
		go(&r);
		ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
		go(&r);
		_exit(0);
	}
	join(pid);
	await(&r);
	ret("close", close(c.fd));
	peer_show("peer", "show %d 6", c.id);
	peer_ok("send %d 2", c.id);
	await(&r);
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(many_forks)
{
	struct conn c = pair();
	int good = 0;

	for (int i = 0; i < 100; i++) {
		pid_t pid = child();
		int status;

		if (pid == 0)
			_exit(send(c.fd, "x", 1, MSG_NOSIGNAL) != 1);
		waitpid(pid, &status, 0);
		good += status == 0;
	}
	out("good=%d", good);
	out("peer=%.6s", peer("recv %d 100", c.id));
}

static void *other_thread(void *arg)
{
	int fd = *(int *)arg;
	char buf[64];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		if (send(fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
			break;
	return NULL;
}

/* Forks while another thread uses another connection: neither process hangs. */
CASE_BOTH(fork_beside_busy_thread)
{
	struct conn c = pair(), d = pair();
	pthread_t t;
	int good = 0, echoed = 0;

	pthread_create(&t, NULL, other_thread, &d.fd);
	for (int i = 0; i < 40; i++) {
		pid_t pid;
		int status;

		peer_ok("send %d 50", d.id);
		pid = child();
		if (pid == 0)
			_exit(send(c.fd, "x", 1, MSG_NOSIGNAL) != 1 || socket(AF_INET, SOCK_STREAM, 0) < 0);
		waitpid(pid, &status, 0);
		good += status == 0;
		echoed += !strncmp(peer("recv %d 50", d.id), "ok 50 more match", 16);
	}
	peer_ok("shut %d 1", d.id);
	pthread_join(t, NULL);
	out("good=%d echoed=%d", good, echoed);
}

static void *read_once(void *arg)
{
	char b[8];

	return recv(*(int *)arg, b, sizeof(b), 0) == 3 ? arg : NULL;
}

static void *wait_once(void *arg)
{
	struct epoll_event ev;

	return epoll_wait(*(int *)arg, &ev, 1, 8000) == 1 ? arg : NULL;
}

/* The child has what its parent had open, and none of the calls that other threads of the parent are in. */
CASE_BOTH(child_closes_what_another_thread_waits_for)
{
	struct conn c = pair(), d = pair();
	int ep = set_new();
	struct report r;
	pthread_t t, u;
	void *got;
	pid_t pid;

	report_open(&r);
	ctl(ep, EPOLL_CTL_ADD, d.fd, EPOLLIN, 1);
	if (pthread_create(&t, NULL, read_once, &c.fd) || pthread_create(&u, NULL, wait_once, &ep))
		die("pthread_create");
	nap_ms(60);
	pid = child();
	if (pid == 0) {
		close(c.fd);
		close(ep);
		close(d.fd);
		await(&r);
		_exit(0);
	}
	peer_ok("send %d 3", c.id);
	pthread_join(t, &got);
	out("read=%d", got != NULL);
	peer_ok("send %d 3", d.id);
	pthread_join(u, &got);
	out("waited=%d", got != NULL);
	ret("recv", recv(d.fd, (char[8]){0}, 8, 0));
	ret("close", close(c.fd));
	ret("close", close(d.fd));
	peer_show("end", "recv %d 1", c.id);
	peer_show("end", "recv %d 1", d.id);
	go(&r);
	join(pid);
}

/* What PostgreSQL does: the child of a server writes without blocking as soon as it exists, and takes no
 * EAGAIN for an answer. */
CASE_BOTH(child_writes_at_once_without_blocking)
{
	struct conn c = pair();
	int good = 0;

	set_nonblock(c.fd, true);
	for (int i = 0; i < 100; i++) {
		pid_t pid = child();
		int status;

		if (pid == 0)
			_exit(send(c.fd, "x", 1, MSG_NOSIGNAL) != 1);
		waitpid(pid, &status, 0);
		good += status == 0;
		peer_ok("recv %d 1", c.id);
	}
	out("good=%d", good);
}

/* A process made by the system call itself: vsftpd does so for namespaces. */
CASE_BOTH(child_made_by_clone_uses_the_connection)
{
	struct conn c = pair();
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(send(c.fd, "c", 1, MSG_NOSIGNAL) != 1 || shutdown(c.fd, SHUT_WR) < 0);
	/* the child has it, so the peer sees no end from here */
	ret("close", close(c.fd));
	join(pid);
	peer_show("peer", "recv %d 2", c.id);
}
