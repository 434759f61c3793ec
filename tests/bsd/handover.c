/* handover.c - sockets that go to another program: over exec in all its forms, posix_spawn, and in messages
 * of unix sockets. */
#include "bsd.h"

#include <pty.h>
#include <spawn.h>
#include <sys/syscall.h>

static void echoes(const char *what, int id)
{
	peer_ok("text %d %s", id, what);
	peer_show(what, "show %d %d", id, (int)strlen(what));
}

/* As inetd starts its servers. */
CASE_BOTH(cat_on_a_socket)
{
	struct conn c = pair();
	pid_t pid = child();

	if (pid == 0) {
		dup2(c.fd, 0);
		dup2(c.fd, 1);
		close(c.fd);
		execl("/bin/cat", "cat", (char *)NULL);
		_exit(127);
	}
	ret("close", close(c.fd));
	echoes("first", c.id);
	echoes("second", c.id);
	peer_ok("shut %d 1", c.id);
	peer_show("end", "recv %d 1", c.id);
	join(pid);
}

/* stdio in the new image, buffered until it ends */
CASE_BOTH(stdio_of_the_new_program)
{
	struct conn c = pair();
	pid_t pid = child();

	if (pid == 0) {
		dup2(c.fd, 0);
		dup2(c.fd, 1);
		execlp("sort", "sort", (char *)NULL);
		_exit(127);
	}
	close(c.fd);
	peer_ok("text %d one", c.id);
	peer_ok("shut %d 1", c.id);
	peer_show("sorted", "show %d 4", c.id);
	peer_show("end", "recv %d 1", c.id);
	join(pid);
}

static void form(int n, int fd)
{
	char *argv[] = {"sh", "-c", "echo new", NULL}, *env[64], *path = "/bin/sh";
	extern char **environ;
	int count = 0, sh;

	for (; environ[count] && count < 62; count++)
		env[count] = environ[count];
	env[count++] = "BSD_OWN=1";
	env[count] = NULL;
	dup2(fd, 1);
	switch (n) {
	case 0:
		execl(path, "sh", "-c", "echo new", (char *)NULL);
		break;
	case 1:
		execlp("sh", "sh", "-c", "echo new", (char *)NULL);
		break;
	case 2:
		execle(path, "sh", "-c", "echo new", (char *)NULL, env);
		break;
	case 3:
		execv(path, argv);
		break;
	case 4:
		execvp("sh", argv);
		break;
	case 5:
		execve(path, argv, env);
		break;
	case 6:
		execvpe("sh", argv, env);
		break;
	case 7:
		sh = open(path, O_RDONLY);
		fexecve(sh, argv, env);
		break;
	case 8:
		execveat(AT_FDCWD, path, argv, env, 0);
		break;
	case 9:
		syscall(SYS_execve, path, argv, env);
		break;
	}
	_exit(127);
}

CASE_BOTH(all_forms_of_exec)
{
	struct conn c = pair();

	for (int i = 0; i < 10; i++) {
		pid_t pid = child();

		if (pid == 0)
			form(i, c.fd);
		join(pid);
		peer_show("said", "show %d 4", c.id);
	}
	peer_ok("text %d still", c.id);
	ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
}

/* libc puts the terminal at 0, 1 and 2 by itself. */
CASE_BOTH(exec_on_a_terminal)
{
	struct conn c = pair();
	char b[64] = "";
	int saved[3], master;
	ssize_t n, have = 0;
	pid_t pid;

	for (int i = 0; i < 3; i++) {
		saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 50);
		dup2(c.fd, i);
	}
	pid = forkpty(&master, NULL, NULL, NULL);
	if (!pid) {
		execlp("sh", "sh", "-c", "echo hello", NULL);
		_exit(9);
	}
	for (int i = 0; i < 3; i++)
		dup2(saved[i], i);
	while (have < 63 && (n = read(master, b + have, 63 - (size_t)have)) > 0)
		have += n;
	out("\"%.5s\"", b);
	join(pid);
	peer_show("peer", "peek %d", c.id);
	ret("send", send(c.fd, "abc", 3, 0));
	peer_show("peer", "show %d 3", c.id);
}

CASE_BOTH(failed_exec_changes_nothing)
{
	struct conn c = pair();
	char *argv[] = {"nothing", NULL};

	ret("exec", execv("/nonexistent/program", argv));
	ret("exec", execvp("no-such-program-here", argv));
	ret("exec", execv("/etc/passwd", argv));
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
	out("env=%d", getenv("PRONK_EXEC") != NULL);
	ret("close", close(c.fd));
	peer_show("end", "recv %d 1", c.id);
}

/* What the new image sees of a socket: flags, options, names, copies. */
CASE_BOTH(state_over_exec)
{
	const char *stage = getenv("BSD_STAGE");
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	struct timeval tv = {3, 500000};
	struct conn c;
	char number[16];
	int one = 1, v = 0;
	pid_t pid;

	if (stage) {
		int fd = atoi(stage), copy;

		sscanf(stage, "%d,%d", &fd, &copy);
		out("fl=%x fd=%x", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
		len = sizeof(v);
		ret("nodelay", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
		out("v=%d", v);
		len = sizeof(tv);
		tv = (struct timeval){0};
		ret("timeo", getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
		out("s=%d", (int)tv.tv_sec);
		len = sizeof(a);
		ret("name", getsockname(fd, SA(a), &len));
		show_addr("own", &a, len);
		len = sizeof(a);
		ret("peer", getpeername(fd, SA(a), &len));
		show_addr("other", &a, len);
		set_nonblock(copy, false);
		out("same=%x", fcntl(fd, F_GETFL));
		ret("send", send(copy, "copy", 4, 0));
		ret("close", close(copy));
		ret("send", send(fd, "first", 5, 0));
		_exit(0);
	}
	c = pair();
	setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	set_nonblock(c.fd, true);
	pid = child();
	if (pid == 0) {
		snprintf(number, sizeof(number), "%d,%d", c.fd, dup(c.fd));
		setenv("BSD_STAGE", number, 1);
		execl("/proc/self/exe", "bsd", "state_over_exec", (char *)NULL);
		_exit(127);
	}
	close(c.fd);
	join(pid);
	peer_show("said", "show %d 9", c.id);
	peer_show("end", "recv %d 1", c.id);
}

/* As nginx changes its binary: listeners go over exec, the old process goes on beside the new one. */
static void listener_stage(const char *name, struct sockaddr_in a)
{
	const char *stage = getenv("BSD_STAGE");
	char number[16];
	int l, id, fd, one = 1;
	pid_t pid;

	if (stage) {
		socklen_t len = sizeof(a);

		l = atoi(stage);
		ret("name", getsockname(l, SA(a), &len));
		one = 0;
		len = sizeof(one);
		ret("acceptconn", getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &one, &len));
		out("v=%d", one);
		ret("again", listen(l, 8));
		set_nonblock(l, true);
		ret("poll", poll(&(struct pollfd){.fd = l, .events = POLLIN}, 1, 8000));
		fd = ret_fd("new_accept", accept(l, NULL, NULL));
		ret("send", send(fd, "new", 3, 0));
		_exit(0);
	}
	l = tcp_socket();
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 8));
	id = peer_connect(port(0));
	ret("send", send(accept(l, NULL, NULL), "old", 3, 0));
	peer_show("old", "show %d 3", id);
	pid = child();
	if (pid == 0) {
		snprintf(number, sizeof(number), "%d", l);
		setenv("BSD_STAGE", number, 1);
		execl("/proc/self/exe", "bsd", name, (char *)NULL);
		_exit(127);
	}
	id = peer_connect(port(0));
	join(pid);
	peer_show("new", "show %d 3", id);
	id = peer_connect(port(0));
	settle(l, POLLIN); /* the new one has set O_NONBLOCK, for both */
	ret("send", send(accept(l, NULL, NULL), "old", 3, 0));
	peer_show("old", "show %d 3", id);
}

CASE(listener_over_exec)
{
	listener_stage("listener_over_exec", addr_server(port(0)));
}

CASE(wildcard_listener_over_exec)
{
	listener_stage("wildcard_listener_over_exec", addr_any(port(0)));
}

/* Many numbers, some of them the same socket, some not for the new image. */
CASE(many_over_exec)
{
	enum { COUNT = 40 };
	const char *stage = getenv("BSD_STAGE");
	struct conn c[COUNT];
	int good = 0;
	pid_t pid;

	if (stage) {
		for (int i = 0; i < COUNT; i++)
			good += send(200 + i, "x", 1, MSG_NOSIGNAL) == 1;
		out("open=%d", good);
		_exit(0);
	}
	for (int i = 0; i < COUNT; i++) {
		c[i] = pair_connected();
		if (i % 4)
			fcntl(c[i].fd, F_DUPFD, 200 + i);
		else
			fcntl(c[i].fd, F_DUPFD_CLOEXEC, 200 + i);
		fcntl(c[i].fd, F_SETFD, FD_CLOEXEC);
	}
	pid = child();
	if (pid == 0) {
		setenv("BSD_STAGE", "1", 1);
		execl("/proc/self/exe", "bsd", "many_over_exec", (char *)NULL);
		_exit(127);
	}
	join(pid);
	for (int i = 0; i < COUNT; i++)
		good += i % 4 && !strncmp(peer("recv %d 1", c[i].id), "ok 1", 4);
	out("good=%d", good);
}

static void spawn_cat(struct conn c, bool by_path, bool is_cloexec)
{
	extern char **environ;
	posix_spawn_file_actions_t fa;
	char *argv[] = {"cat", NULL};
	pid_t pid;
	int rc;

	if (is_cloexec)
		fcntl(c.fd, F_SETFD, FD_CLOEXEC);
	posix_spawn_file_actions_init(&fa);
	out("dup=%d", posix_spawn_file_actions_adddup2(&fa, c.fd, 70));
	posix_spawn_file_actions_adddup2(&fa, 70, 0);
	posix_spawn_file_actions_adddup2(&fa, 70, 1);
	out("close=%d", posix_spawn_file_actions_addclose(&fa, 70));
	out("open=%d", posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0));
	if (!is_cloexec)
		posix_spawn_file_actions_addclose(&fa, c.fd);
	rc = by_path ? posix_spawnp(&pid, "cat", &fa, NULL, argv, environ)
	             : posix_spawn(&pid, "/bin/cat", &fa, NULL, argv, environ);
	out("spawn=%d", rc);
	out("destroy=%d", posix_spawn_file_actions_destroy(&fa));
	ret("close", close(c.fd));
	echoes("spawned", c.id);
	peer_ok("shut %d 1", c.id);
	peer_show("end", "recv %d 1", c.id);
	join(pid);
}

CASE_BOTH(spawn_with_actions)
{
	spawn_cat(pair(), false, false);
	spawn_cat(pair(), true, true);
}

/* The child of a spawn closes what it is told to; the parent keeps it. */
CASE_BOTH(spawn_closes_nothing_of_ours)
{
	extern char **environ;
	posix_spawn_file_actions_t fa;
	struct conn c = pair();
	char *argv[] = {"true", NULL};
	pid_t pid;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addclose(&fa, c.fd);
	posix_spawn_file_actions_addclosefrom_np(&fa, 4);
	out("spawn=%d", posix_spawn(&pid, "/bin/true", &fa, NULL, argv, environ));
	join(pid);
	out("missing=%d", posix_spawn(&pid, "/nonexistent", &fa, NULL, argv, environ));
	posix_spawn_file_actions_destroy(&fa);
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
}

CASE_BOTH(vfork_waits_for_exec)
{
	struct conn c = pair();
	uint64_t start = now_ms();
	pid_t pid = vfork();
	int status;

	if (pid == 0) {
		nap_ms(150);
		dup2(c.fd, 1);
		execl("/bin/sh", "sh", "-c", "sleep 0.4; echo done", (char *)NULL);
		_exit(127);
	}
	out("waited=%d", now_ms() - start >= 140 && now_ms() - start < 500);
	waitpid(pid, &status, 0);
	peer_show("said", "show %d 4", c.id);
	pid = vfork();
	if (pid == 0)
		_exit(7);
	join(pid);
	ret("send", send(c.fd, "alive", 5, MSG_NOSIGNAL));
	peer_show("peer", "show %d 5", c.id);
}

/* --- in messages --- */

static ssize_t fd_send_quietly(int to, const int *fd, int count)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = {0}, byte = 'f';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
	        .msg_iovlen = 1,
	        .msg_control = control,
	        .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
	memcpy(CMSG_DATA(c), fd, (size_t)count * sizeof(int));
	return sendmsg(to, &msg, 0);
}

static void fd_send(int to, const int *fd, int count)
{
	ret("sendmsg", fd_send_quietly(to, fd, count));
}

static int fd_recv(int from, int *fd, int count, int flags)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = {0}, byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
	        .msg_iovlen = 1,
	        .msg_control = control,
	        .msg_controllen =
	                CMSG_LEN((size_t)count * sizeof(int))}; /* not SPACE: that has room for more */
	struct cmsghdr *c;
	int n = 0;

	ret("recvmsg", recvmsg(from, &msg, flags));
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS) {
		n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fd, CMSG_DATA(c), (size_t)n * sizeof(int));
	}
	out("fds=%d flags=%x", n, msg.msg_flags & ~MSG_CMSG_CLOEXEC);
	return n;
}

CASE_BOTH(passed_to_a_child)
{
	int un[2];
	struct conn c;
	pid_t pid;

	socketpair(AF_UNIX, SOCK_STREAM, 0, un);
	pid = child();
	if (pid == 0) {
		int fd = -1;
		char b[8] = "";

		close(un[0]);
		fd_recv(un[1], &fd, 1, MSG_CMSG_CLOEXEC);
		out("fd=%x", fcntl(fd, F_GETFD));
		ret("child_send", send(fd, "child", 5, 0));
		ret("child_recv", recv(fd, b, 5, 0));
		out("%s", b);
		_exit(0);
	}
	close(un[1]);
	c = pair();
	fd_send_quietly(un[0], &c.fd, 1);
	close(c.fd);
	peer_ok("text %d hello", c.id);
	join(pid);
	peer_show("peer", "show %d 5", c.id);
	peer_show("end", "recv %d 1", c.id);
}

/* In the message nobody but the kernel has it. */
CASE_BOTH(passed_to_oneself)
{
	int un[2], fd = -1;
	struct conn c = pair();

	socketpair(AF_UNIX, SOCK_DGRAM, 0, un);
	fd_send(un[0], &c.fd, 1);
	ret("close", close(c.fd));
	nap_ms(50);
	peer_ok("text %d queued", c.id);
	fd_recv(un[1], &fd, 1, 0);
	ret("recv", recv(fd, (char[8]){0}, 8, 0));
	ret("send", send(fd, "back", 4, 0));
	peer_show("peer", "show %d 4", c.id);
	ret("close", close(fd));
	peer_show("end", "recv %d 1", c.id);
}

/* The same by the calls for several messages. */
CASE_BOTH(passed_by_sendmmsg)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'f';
	struct iovec iov = {&byte, 1};
	struct mmsghdr m[2] = {{.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}},
	        {.msg_hdr = {.msg_iov = &iov,
	                 .msg_iovlen = 1,
	                 .msg_control = control,
	                 .msg_controllen = sizeof(control)}}};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m[1].msg_hdr);
	struct conn c = pair();
	int un[2], fd = c.fd;

	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, un);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	ret("sendmmsg", sendmmsg(un[0], m, 2, 0));
	out("len=%u,%u", m[0].msg_len, m[1].msg_len);
	close(fd);
	memset(control, 0, sizeof(control));
	ret("recvmmsg", recvmmsg(un[1], m, 2, 0, NULL));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m[1].msg_hdr)), sizeof(int));
	ret("send", send(fd, "moved", 5, 0));
	peer_show("peer", "show %d 5", c.id);
	close(fd);
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(message_that_nobody_reads)
{
	int un[2];
	struct conn c = pair();

	socketpair(AF_UNIX, SOCK_STREAM, 0, un);
	fd_send(un[0], &c.fd, 1);
	close(c.fd);
	close(un[0]);
	close(un[1]);
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(several_in_one_message)
{
	struct conn c = pair(), d = pair();
	int un[2], fds[3] = {c.fd, 0, d.fd}, got[3] = {-1, -1, -1};

	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, un);
	fds[1] = un[0];
	fd_send(un[0], fds, 3);
	out("n=%d", fd_recv(un[1], got, 3, 0));
	close(c.fd);
	close(d.fd);
	ret("send", send(got[0], "one", 3, 0));
	ret("send", send(got[2], "two", 3, 0));
	peer_show("c", "show %d 3", c.id);
	peer_show("d", "show %d 3", d.id);
	/* a message is cut: what does not fit is closed */
	fds[0] = got[2];
	fds[1] = got[0];
	fd_send(un[0], fds, 2);
	close(got[0]);
	close(got[2]);
	out("n=%d", fd_recv(un[1], got, 1, 0));
	peer_show("c", "recv %d 1", c.id);
	ret("send", send(got[0], "two", 3, 0));
	peer_show("d", "show %d 3", d.id);
}

static void pass_listener(struct sockaddr_in a)
{
	int un[2], l = tcp_socket(), got = -1, id, one = 1;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 8));
	socketpair(AF_UNIX, SOCK_STREAM, 0, un);
	fd_send(un[0], &l, 1);
	close(l);
	id = peer_connect(port(0));
	fd_recv(un[1], &got, 1, 0);
	ret("send", send(accept(got, NULL, NULL), "hello", 5, 0));
	peer_show("peer", "show %d 5", id);
	close(got);
	peer_show("refused", "connect %d 0", port(0));
}

CASE(listener_in_a_message)
{
	pass_listener(addr_server(port(0)));
}

CASE(wildcard_listener_in_a_message)
{
	pass_listener(addr_any(port(0)));
}

/* One that is not connected yet comes, connects and works. */
CASE(unconnected_in_a_message)
{
	int un[2], fd = tcp_socket(), got = -1, id, at;
	struct sockaddr_in a;

	socketpair(AF_UNIX, SOCK_STREAM, 0, un);
	fd_send(un[0], &fd, 1);
	close(fd);
	fd_recv(un[1], &got, 1, 0);
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(got, SA(a), sizeof(a)));
	id = peer_ok("accept %d", id);
	ret("send", send(got, "hi", 2, 0));
	peer_show("peer", "show %d 2", id);
}
