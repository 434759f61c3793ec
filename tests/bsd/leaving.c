/* leaving.c - the ends of processes, by every road: what was sent arrives and the end after it, others go on,
 * and a program that takes the place of another finds its sockets. Where the stack lives in the application
 * (mode = inline), the process that ends is the one that has it: so the case's own process touches no socket
 * before. */
#include "bsd.h"

#include <sys/syscall.h>
#include <sys/wait.h>

enum { BULK = 200000 };

enum way { BY_EXIT, BY_UNDERSCORE, BY_C99, BY_QUICK, BY_SYSTEM_CALL, BY_RETURN, WAYS };
static const char *const way_names[WAYS] = {"exit", "_exit", "_Exit", "quick_exit", "exit_group", "thread"};

static void *thread_leaves(void *arg)
{
	(void)arg;
	exit(0);
}

static void leave(int way)
{
	pthread_t t;

	switch (way) {
	case BY_EXIT:
		exit(0);
	case BY_UNDERSCORE:
		_exit(0);
	case BY_C99:
		_Exit(0);
	case BY_QUICK:
		quick_exit(0);
	case BY_SYSTEM_CALL:
		syscall(SYS_exit_group, 0);
		break;
	default:
		pthread_create(&t, NULL, thread_leaves, NULL);
		pthread_join(t, NULL);
		_exit(1);
	}
}

static void tell(const int fds[2], int value)
{
	if (write(fds[1], &value, sizeof(value)) != sizeof(value))
		die("tell");
}

static int hear(const int fds[2])
{
	int value;

	if (read(fds[0], &value, sizeof(value)) != sizeof(value))
		die("hear");
	return value;
}

static void send_pattern(int fd, size_t from, size_t size)
{
	static char buf[BULK];

	pattern_fill(buf, from, size);
	for (size_t at = 0; at < size;) {
		ssize_t n = send(fd, buf + at, size - at, MSG_NOSIGNAL);

		if (n < 0)
			die("send: %s", strerror(errno));
		at += (size_t)n;
	}
}

/* What was written a moment before the process ends arrives, and the end after it. */
CASE_BOTH(what_was_sent_arrives)
{
	int fds[2];

	if (pipe(fds) < 0)
		die("pipe");
	for (int way = 0; way < WAYS; way++) {
		pid_t pid = child();
		int id;

		if (pid == 0) {
			struct conn c = pair();

			tell(fds, c.id);
			send_pattern(c.fd, 0, BULK);
			leave(way);
		}
		id = hear(fds);
		join(pid);
		out("%s", way_names[way]);
		peer_show("data", "recv %d %d", id, BULK);
		peer_show("end", "recv %d 1", id);
		peer_ok("close %d", id);
	}
}

/* The first process that has a socket ends; one that it has forked goes on with the connection, and one with
 * the listener. */
CASE_BOTH(others_go_on)
{
	int ids[2], done[2];

	if (pipe(ids) < 0 || pipe(done) < 0)
		die("pipe");
	for (int way = 0; way < WAYS; way++) {
		pid_t pid = child();
		int id, second;

		if (pid == 0) {
			struct conn c = pair();
			int l = listener(port(way % 10)), fd;

			if (fork() == 0) {
				char buf[16];

				recv(c.fd, buf, 1, 0); /* the other one has ended by now */
				send_pattern(c.fd, 0, BULK);
				tell(done, 0);
				fd = accept(l, NULL, NULL);
				send(fd, "later", 5, MSG_NOSIGNAL);
				recv(fd, buf, 1, 0);
				_exit(0);
			}
			tell(ids, c.id);
			leave(way);
		}
		id = hear(ids);
		join(pid);
		out("%s", way_names[way]);
		peer_ok("send %d 1", id);
		peer_show("data", "recv %d %d", id, BULK);
		hear(done);
		second = peer_connect(port(way % 10));
		peer_show("later", "show %d 5", second);
		peer_ok("send %d 1", second);
		peer_show("end", "recv %d 1", id);
		peer_show("end", "recv %d 1", second);
		peer_ok("close %d", id);
		peer_ok("close %d", second);
	}
}

/* The process becomes another program, which has no use for the connection: its child goes on with it. */
CASE_BOTH(another_program_takes_the_place)
{
	int ids[2], pid, id, status;

	if (pipe(ids) < 0)
		die("pipe");
	pid = child();
	if (pid == 0) {
		struct conn c = pair();
		char buf[4];

		fcntl(c.fd, F_SETFD, FD_CLOEXEC);
		if (fork() == 0) {
			recv(c.fd, buf, 1, 0);
			send_pattern(c.fd, 0, BULK);
			_exit(0);
		}
		tell(ids, c.id);
		/* nobody but the shell's own children are its children */
		execl("/bin/sh", "sh", "-c", "wait; exit 7", (char *)NULL);
		_exit(1);
	}
	id = hear(ids);
	peer_ok("send %d 1", id);
	peer_show("data", "recv %d %d", id, BULK);
	peer_show("end", "recv %d 1", id);
	waitpid(pid, &status, 0);
	out("exit=%d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* An exec that fails changes nothing. */
CASE_BOTH(no_other_program)
{
	struct conn c = pair();

	ret("exec", execl("/nonexistent/program", "x", (char *)NULL));
	ret("exec", execlp("pronk-nonexistent", "x", (char *)NULL));
	send_pattern(c.fd, 0, 1000);
	peer_show("data", "recv %d 1000", c.id);
	peer_ok("send %d 5", c.id);
	settle_bytes(c.fd, 5);
	ret("recv", recv(c.fd, (char[8]){0}, 8, 0));
}

/* After an exec that failed the program goes on, and its children come and go; the socket has the lowest
 * number that there is. Where the stack lives in the application, it lives in a copy of it from the exec on.
 */
CASE_BOTH(no_other_program_but_children)
{
	int ids[2], id;
	pid_t pid;

	if (pipe(ids) < 0)
		die("pipe");
	pid = child();
	if (pid == 0) {
		struct conn c = pair();

		dup2(c.fd, 3); /* the peer is the other process's to talk to from here */
		close(c.fd);
		execl("/nonexistent/program", "x", (char *)NULL);
		for (int i = 0; i < 5; i++) {
			pid_t one = fork();

			if (one == 0) {
				send(3, "child", 5, MSG_NOSIGNAL);
				_exit(0);
			}
			waitpid(one, NULL, 0);
		}
		tell(ids, c.id);
		recv(3, (char[8]){0}, 5, MSG_WAITALL);
		send_pattern(3, 0, BULK);
		_exit(0);
	}
	id = hear(ids);
	peer_show("children", "show %d 25", id);
	peer_ok("send %d 5", id);
	peer_show("data", "recv %d %d", id, BULK);
	peer_show("end", "recv %d 1", id);
	join(pid);
}

/* A thread waits while another becomes a daemon. */
CASE_BOTH(daemon_then_a_new_connection)
{
	int ids[2], id;
	pid_t pid;

	if (pipe(ids) < 0)
		die("pipe");
	pid = child();
	if (pid == 0) {
		int l = listener(port(3)), fd;

		if (daemon(1, 1) < 0)
			_exit(1);
		tell(ids, 0);
		fd = accept(l, NULL, NULL);
		send_pattern(fd, 0, BULK);
		_exit(0);
	}
	join(pid);
	hear(ids);
	id = peer_connect(port(3));
	peer_show("data", "recv %d %d", id, BULK);
	peer_show("end", "recv %d 1", id);
}

/* What atexit(3) handlers send, whether they were set before the first socket or after. */
static struct conn at_exit;

static void first_handler(void)
{
	send(at_exit.fd, "first", 5, MSG_NOSIGNAL);
}

static void last_handler(void)
{
	send(at_exit.fd, "last,", 5, MSG_NOSIGNAL);
}

CASE_BOTH(handlers_still_send)
{
	int ids[2], id;
	pid_t pid;

	if (pipe(ids) < 0)
		die("pipe");
	pid = child();
	if (pid == 0) {
		atexit(first_handler);
		at_exit = pair();
		atexit(last_handler);
		tell(ids, at_exit.id);
		exit(0);
	}
	id = hear(ids);
	join(pid);
	peer_show("data", "show %d 10", id);
	peer_show("end", "recv %d 1", id);
}
