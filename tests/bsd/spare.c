/* spare.c - sockets between socket() and their first use, in a program that connects often: Pronk gives such
 * sockets a number only, and a kernel socket of their own when something needs it. Nobody may be able to
 * tell. */
#include "bsd.h"

#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "raw.h"

static void *volatile null_pointer;

/* The program is known as one that connects to Pronk's peers, whatever it has done before. */
static void warm(void)
{
	for (int i = 0; i < 20; i++)
		close(tcp_socket());
	for (int i = 0; i < 2; i++) {
		struct conn c = pair_connected();

		close(c.fd);
		peer_ok("close %d", c.id);
	}
}

static int fresh(void)
{
	warm();
	return tcp_socket();
}

static int value_of(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int v = -1;

	return getsockopt(fd, level, name, &v, &len) ? -errno : v;
}

static int set(int fd, int level, int name, int v)
{
	return setsockopt(fd, level, name, &v, sizeof(v));
}

static const struct {
	const char *name;
	int level, option, value;
} plain[] = {
        {"reuseaddr", SOL_SOCKET, SO_REUSEADDR, 1},
        {"reuseport", SOL_SOCKET, SO_REUSEPORT, 1},
        {"keepalive", SOL_SOCKET, SO_KEEPALIVE, 5},
        {"oobinline", SOL_SOCKET, SO_OOBINLINE, 1},
        {"nodelay", IPPROTO_TCP, TCP_NODELAY, 1},
        {"cork", IPPROTO_TCP, TCP_CORK, 1},
        {"keepidle", IPPROTO_TCP, TCP_KEEPIDLE, 77},
        {"keepintvl", IPPROTO_TCP, TCP_KEEPINTVL, 7},
        {"keepcnt", IPPROTO_TCP, TCP_KEEPCNT, 3},
        {"user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
        {"syncnt", IPPROTO_TCP, TCP_SYNCNT, 4},
        {"lowat", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 100000},
        {"minttl", IPPROTO_IP, IP_MINTTL, 2},
        {"ttl", IPPROTO_IP, IP_TTL, 33},
        {"priority", SOL_SOCKET, SO_PRIORITY, 3},
};

enum { PLAIN = sizeof(plain) / sizeof(plain[0]) };

static void show_plain(const char *what, int fd)
{
	struct linger lg = {0};
	struct timeval tv = {0};
	socklen_t len = sizeof(lg);

	out("%s:", what);
	for (int i = 0; i < PLAIN; i++)
		out("%d", value_of(fd, plain[i].level, plain[i].option));
	getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &len);
	len = sizeof(tv);
	getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len);
	out("linger=%d,%d rcvtimeo=%d", lg.l_onoff, lg.l_linger, (int)tv.tv_sec);
}

static void set_plain(int fd)
{
	struct linger lg = {1, 9};
	struct timeval tv = {6, 0};

	for (int i = 0; i < PLAIN; i++)
		ret(plain[i].name, set(fd, plain[i].level, plain[i].option, plain[i].value));
	ret("linger", setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	ret("rcvtimeo", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
}

static int loopback_listener(struct sockaddr_in *a)
{
	socklen_t len = sizeof(*a);
	int fd = tcp_socket();

	*a = addr_loopback(0);
	if (bind(fd, SA(*a), sizeof(*a)) || listen(fd, 8) || getsockname(fd, SA(*a), &len))
		die("a listener of the kernel's: %s", strerror(errno));
	return fd;
}

static int connect_peer(int fd, int at)
{
	struct sockaddr_in to = addr_peer(at);

	return connect(fd, SA(to), sizeof(to));
}

CASE(options_of_one_are_not_those_of_another)
{
	int fd = fresh(), other = tcp_socket();

	show_plain("before", fd);
	set_plain(fd);
	show_plain("after", fd);
	show_plain("other", other);
	close(fd);
	show_plain("next", tcp_socket());
}

CASE(each_option_alone)
{
	for (int i = 0; i < PLAIN; i++) {
		int fd = fresh();

		ret(plain[i].name, set(fd, plain[i].level, plain[i].option, plain[i].value));
		out("%d", value_of(fd, plain[i].level, plain[i].option));
		close(fd);
		fd = tcp_socket();
		out("next=%d", value_of(fd, plain[i].level, plain[i].option));
		close(fd);
	}
}

CASE(options_go_with_the_connection)
{
	int fd = fresh(), id = peer_ok("listen %d 4 0", port(0));

	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	ret("keepidle", set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 55));
	ret("keepalive", set(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
	ret("connect", connect_peer(fd, port(0)));
	out("%d %d %d", value_of(fd, IPPROTO_TCP, TCP_NODELAY), value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE),
	        value_of(fd, SOL_SOCKET, SO_KEEPALIVE));
	id = peer_ok("accept %d", id);
	ret("send", send(fd, "word", 4, 0));
	peer_show("word", "show %d 4", id);
}

CASE(options_go_to_the_kernel)
{
	struct sockaddr_in a;
	int fd = fresh(), l = loopback_listener(&a);

	set_plain(fd);
	ret("reuseport_off", set(fd, SOL_SOCKET, SO_REUSEPORT, 0));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	show_plain("connected", fd);
	ret_fd("accept", accept(l, NULL, NULL));
}

CASE(options_go_to_a_listener)
{
	struct sockaddr_in a = addr_server(port(0));
	int fd = fresh();

	ret("reuseaddr", set(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	ret("keepcnt", set(fd, IPPROTO_TCP, TCP_KEEPCNT, 6));
	ret("bind", bind(fd, SA(a), sizeof(a)));
	ret("listen", listen(fd, 4));
	out("%d %d", value_of(fd, SOL_SOCKET, SO_REUSEADDR), value_of(fd, IPPROTO_TCP, TCP_KEEPCNT));
	peer_connect(port(0));
	fd = ret_fd("accept", accept(fd, NULL, NULL));
	out("%d", value_of(fd, IPPROTO_TCP, TCP_KEEPCNT));
}

CASE(options_are_refused_as_ever)
{
	struct linger lg = {1, 1};
	struct timeval tv = {1, 2000000};
	socklen_t len;
	int v = 1, fd = fresh();

	ret("short", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, 1));
	ret("null", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, null_pointer, sizeof(v)));
	ret("negative", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, (socklen_t)-1));
	fd = fresh();
	ret("keepidle_0", set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 0));
	ret("keepidle_most", set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 32768));
	ret("keepcnt", set(fd, IPPROTO_TCP, TCP_KEEPCNT, 128));
	ret("syncnt", set(fd, IPPROTO_TCP, TCP_SYNCNT, 0));
	ret("user_timeout", set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, -1));
	ret("linger", setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, 4));
	ret("timeo", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	show_plain("still", fd);
	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	len = 2;
	ret("get_short", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	out("len=%u", len);
	len = (socklen_t)-1;
	ret("get_negative", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	ret("get_null", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, null_pointer));
	len = sizeof(v);
	ret("get_nowhere", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, null_pointer, &len));
	ret("unknown", set(fd, IPPROTO_TCP, 4000, 1));
	out("%d", value_of(fd, IPPROTO_TCP, TCP_NODELAY));
}

/* Buffers, say: the kernel decides what comes of them. */
CASE(other_options_in_between)
{
	int fd = fresh();

	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	ret("rcvbuf", set(fd, SOL_SOCKET, SO_RCVBUF, 20000));
	ret("keepidle", set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 44));
	out("%d %d %d", value_of(fd, IPPROTO_TCP, TCP_NODELAY), value_of(fd, SOL_SOCKET, SO_RCVBUF),
	        value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE));
	fd = tcp_socket();
	out("next: %d %d", value_of(fd, IPPROTO_TCP, TCP_NODELAY), value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE));
}

CASE(facts_of_a_new_socket)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	struct pollfd p = {.fd = fresh(), .events = POLLIN | POLLOUT};
	int fd = p.fd;

	out("type=%d domain=%d protocol=%d error=%d listens=%d", value_of(fd, SOL_SOCKET, SO_TYPE),
	        value_of(fd, SOL_SOCKET, SO_DOMAIN), value_of(fd, SOL_SOCKET, SO_PROTOCOL),
	        value_of(fd, SOL_SOCKET, SO_ERROR), value_of(fd, SOL_SOCKET, SO_ACCEPTCONN));
	ret("poll", poll(&p, 1, 0));
	rev("bits", (unsigned)p.revents);
	ret("name", getsockname(fd, SA(a), &len));
	show_addr("name", &a, len);
	len = sizeof(a);
	ret("peer", getpeername(fd, SA(a), &len));
	ret("recv", recv(fd, (char[4]){0}, 4, 0));
	ret("send", send(fd, "x", 1, MSG_NOSIGNAL));
	ret("accept", accept(fd, NULL, NULL));
	ret("shutdown", shutdown(fd, SHUT_RDWR));
	p.fd = tcp_socket();
	p.revents = 0;
	poll(&p, 1, 0);
	rev("next", (unsigned)p.revents);
}

CASE(two_undecided_ones_bind_and_listen_apart)
{
	struct sockaddr_in a[3], one = addr_loopback(0);
	socklen_t len = sizeof(one);
	int fd[3];

	warm();
	for (int i = 0; i < 3; i++)
		fd[i] = tcp_socket();
	for (int i = 0; i < 3; i++) {
		ret("bind", bind(fd[i], SA(one), sizeof(one)));
		len = sizeof(one);
		getsockname(fd[i], SA(a[i]), &len);
	}
	out("apart=%d", a[0].sin_port != a[1].sin_port && a[1].sin_port != a[2].sin_port);
	ret("listen", listen(fd[1], 1));
	ret("connect", connect(fd[0], SA(a[1]), sizeof(a[1])));
	ret("refused", connect(tcp_socket(), SA(a[2]), sizeof(a[2])));
	out("listens=%d,%d,%d", value_of(fd[0], SOL_SOCKET, SO_ACCEPTCONN),
	        value_of(fd[1], SOL_SOCKET, SO_ACCEPTCONN), value_of(fd[2], SOL_SOCKET, SO_ACCEPTCONN));
}

CASE(flags_are_of_one_socket)
{
	int fd, copy, on = 1;

	warm();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	out("%x %x", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	copy = dup(fd);
	out("%x %x", fcntl(copy, F_GETFL), fcntl(copy, F_GETFD));
	ret("setfl", fcntl(copy, F_SETFL, 0));
	out("%x", fcntl(fd, F_GETFL));
	close(fd);
	close(copy);
	fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
	out("%x %x", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	copy = tcp_socket();
	ret("fionbio", ioctl(fd, FIONBIO, &on));
	out("%x other %x", fcntl(fd, F_GETFL), fcntl(copy, F_GETFL));
	ret("append", fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND));
	out("%x other %x", fcntl(fd, F_GETFL), fcntl(copy, F_GETFL));
	ret("connect", connect_peer(fd, port(5)));
	out("%x", fcntl(fd, F_GETFL));
	close(fd);
	fd = tcp_socket();
	out("next %x", fcntl(fd, F_GETFL));
	ret("setfd", fcntl(fd, F_SETFD, FD_CLOEXEC));
	out("%x other %x", fcntl(fd, F_GETFD), fcntl(copy, F_GETFD));
}

/* As most clients do it. */
CASE(nonblock_by_fcntl_then_connect)
{
	int fd = fresh(), id = peer_ok("listen %d 4 0", port(0)), fl = fcntl(fd, F_GETFL);

	ret("setfl", fcntl(fd, F_SETFL, fl | O_NONBLOCK));
	ret("connect", connect_peer(fd, port(0)));
	rev("settled", settle(fd, POLLOUT));
	ret("recv", recv(fd, (char[4]){0}, 4, 0));
	id = peer_ok("accept %d", id);
	close(fd);
	peer_show("end", "recv %d 1", id);
	fd = tcp_socket();
	out("next %x", fcntl(fd, F_GETFL));
}

CASE(owner_and_signal_are_of_one_socket)
{
	int fd = fresh(), other = tcp_socket();

	ret("setown", fcntl(fd, F_SETOWN, getpid()));
	out("own=%d other=%d", fcntl(fd, F_GETOWN) == getpid(), fcntl(other, F_GETOWN));
	close(fd);
	out("next=%d", fcntl(tcp_socket(), F_GETOWN));
}

CASE(owner_of_a_connection)
{
	struct conn c, d;

	warm();
	c = pair_connected();
	d = pair_connected();
	ret("setown", fcntl(c.fd, F_SETOWN, getpid()));
	out("own=%d other=%d", fcntl(c.fd, F_GETOWN) == getpid(), fcntl(d.fd, F_GETOWN));
	close(c.fd);
	out("next=%d", fcntl(tcp_socket(), F_GETOWN));
	ret("send", send(d.fd, "word", 4, 0));
	peer_show("word", "show %d 4", d.id);
}

CASE(cookies_differ)
{
	uint64_t cookie[4] = {0};
	socklen_t len = sizeof(cookie[0]);
	struct conn c;
	int fd = fresh();

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie[0], &len);
	close(fd);
	fd = fresh();
	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie[1], &len);
	close(fd);
	for (int i = 2; i < 4; i++) {
		warm();
		c = pair_connected();
		getsockopt(c.fd, SOL_SOCKET, SO_COOKIE, &cookie[i], &len);
		close(c.fd);
	}
	for (int i = 0; i < 4; i++)
		for (int k = i + 1; k < 4; k++)
			out("%d", cookie[i] != cookie[k]);
}

CASE(lowest_number_is_taken)
{
	int fd = fresh(), next = dup(fd), again;

	close(fd);
	again = tcp_socket();
	out("same=%d", again == fd);
	close(next);
	close(again);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	out("same=%d", fd == again);
}

CASE(dups_are_one_socket)
{
	int fd = fresh(), copy = dup(fd), id = peer_ok("listen %d 4 0", port(0));

	ret("nodelay", set(copy, IPPROTO_TCP, TCP_NODELAY, 1));
	out("%d", value_of(fd, IPPROTO_TCP, TCP_NODELAY));
	close(fd);
	ret("connect", connect_peer(copy, port(0)));
	out("%d", value_of(copy, IPPROTO_TCP, TCP_NODELAY));
	fd = dup(copy);
	close(copy);
	id = peer_ok("accept %d", id);
	ret("send", send(fd, "word", 4, 0));
	peer_show("word", "show %d 4", id);
	close(fd);
	peer_show("end", "recv %d 1", id);
}

/* One of the numbers of an undecided socket goes, the kernel serves the others. */
CASE(dups_stay_one_socket_with_the_kernel)
{
	struct sockaddr_in a, got;
	socklen_t len = sizeof(got);
	int fd = fresh(), copy, third, l = loopback_listener(&a);

	copy = fcntl(fd, F_DUPFD_CLOEXEC, 30);
	third = dup(copy);
	ret("connect", connect(third, SA(a), sizeof(a)));
	ret("peer", getpeername(fd, SA(got), &len));
	out("same=%d cloexec=%d,%d", got.sin_port == a.sin_port, fcntl(copy, F_GETFD), fcntl(third, F_GETFD));
	close(third);
	l = accept(l, NULL, NULL);
	ret("write", write(copy, "word", 4));
	ret("read", read(l, (char[8]){0}, 8));
	close(fd);
	close(copy);
	ret("end", read(l, (char[8]){0}, 8));
}

CASE(number_becomes_another_socket)
{
	int fd = fresh(), other = tcp_socket(), i;

	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	ret("keepidle", set(other, IPPROTO_TCP, TCP_KEEPIDLE, 12));
	ret("same", dup2(other, fd) == fd);
	out("%d %d", value_of(fd, IPPROTO_TCP, TCP_NODELAY), value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE));
	for (i = 0; i < 3; i++) {
		ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
		close(fd);
		fd = tcp_socket();
		out("%d", value_of(fd, IPPROTO_TCP, TCP_NODELAY));
	}
	out("%d", value_of(other, IPPROTO_TCP, TCP_KEEPIDLE));
}

CASE(refused_and_tried_again)
{
	int fd = fresh(), id;

	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	ret("refused", connect_peer(fd, port(0)));
	out("%d", value_of(fd, IPPROTO_TCP, TCP_NODELAY));
	id = peer_ok("listen %d 4 0", port(0));
	ret("connect", connect_peer(fd, port(0)));
	out("%d", value_of(fd, IPPROTO_TCP, TCP_NODELAY));
	id = peer_ok("accept %d", id);
	close(fd);
	peer_show("end", "recv %d 1", id);
	fd = tcp_socket();
	out("next %d", value_of(fd, IPPROTO_TCP, TCP_NODELAY));
}

CASE(refused_then_by_the_kernel)
{
	struct sockaddr_in a;
	int fd = fresh(), l = loopback_listener(&a);

	ret("refused", connect_peer(fd, port(0)));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	l = accept(l, NULL, NULL);
	ret("write", write(fd, "word", 4));
	ret("read", read(l, (char[8]){0}, 8));
}

CASE(closed_with_reset)
{
	struct linger lg = {1, 0};
	int fd = fresh(), id = peer_ok("listen %d 4 0", port(0));

	ret("linger", setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
	ret("connect", connect_peer(fd, port(0)));
	id = peer_ok("accept %d", id);
	close(fd);
	peer_show("end", "recv %d 1", id);
}

CASE(child_shares_the_undecided_socket)
{
	struct sockaddr_in a = addr_loopback(0), got;
	socklen_t len = sizeof(got);
	int fd = fresh(), other = tcp_socket();
	pid_t pid;

	ret("keepidle", set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 66));
	pid = child();
	if (pid == 0) {
		if (value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) != 66)
			_exit(2);
		set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		_exit(bind(fd, SA(a), sizeof(a)) ? 1 : 0);
	}
	join(pid);
	out("%d %x", value_of(fd, IPPROTO_TCP, TCP_NODELAY), fcntl(fd, F_GETFL));
	ret("name", getsockname(fd, SA(got), &len));
	out("bound=%d", got.sin_port != 0);
	out("other: %d %x", value_of(other, IPPROTO_TCP, TCP_NODELAY), fcntl(other, F_GETFL));
}

CASE(parent_and_child_connect_on)
{
	int id = peer_ok("listen %d 32 0", port(0)), fd;
	pid_t pid;

	warm();
	pid = child();
	for (int i = 0; i < 5; i++) {
		fd = tcp_socket();
		if (connect_peer(fd, port(0)) || send(fd, "word", 4, 0) != 4)
			out("%s", strerror(errno));
		close(fd);
	}
	if (pid == 0)
		_exit(0);
	join(pid);
	for (int i = 0; i < 10; i++) {
		int got = peer_ok("accept %d", id);

		peer_show("word", "show %d 4", got);
		peer_show("end", "recv %d 1", got);
	}
}

/* The number of a connection is open in the child; the parent goes on. */
CASE(connection_over_fork_then_more)
{
	int id = peer_ok("listen %d 8 0", port(0)), fd = fresh(), got;
	pid_t pid;

	ret("connect", connect_peer(fd, port(0)));
	got = peer_ok("accept %d", id);
	pid = child();
	if (pid == 0)
		_exit(send(fd, "word", 4, 0) == 4 ? 0 : 1);
	join(pid);
	peer_show("word", "show %d 4", got);
	close(fd);
	peer_show("end", "recv %d 1", got);
	fd = tcp_socket();
	out("next %d %x", value_of(fd, IPPROTO_TCP, TCP_NODELAY), fcntl(fd, F_GETFL));
	ret("connect", connect_peer(fd, port(0)));
}

/* In the program that exec_keeps_options starts: its answer is how it ends. */
__attribute__((constructor)) static void new_image(void)
{
	const char *number = getenv("BSD_SPARE_FD");

	if (number)
		_exit(value_of(atoi(number), IPPROTO_TCP, TCP_KEEPIDLE));
}

CASE(exec_keeps_options)
{
	int fd = fresh(), status;
	char number[16];
	pid_t pid;

	ret("keepidle", set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77));
	pid = child();
	if (pid == 0) {
		snprintf(number, sizeof(number), "%d", fd);
		setenv("BSD_SPARE_FD", number, 1);
		execl("/proc/self/exe", "bsd_spare", (char *)NULL);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	out("%d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void pass(int through, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	ret("sendmsg", sendmsg(through, &msg, 0));
}

static int passed(int through)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd = -1;

	if (recvmsg(through, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

CASE(passed_before_it_is_decided)
{
	struct sockaddr_in a = addr_loopback(0), got;
	socklen_t len = sizeof(got);
	int fd = fresh(), other = tcp_socket(), fds[2], copy;

	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	ret("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	pass(fds[0], fd);
	copy = ret_fd("passed", passed(fds[1]));
	out("%d", value_of(copy, IPPROTO_TCP, TCP_NODELAY));
	ret("bind", bind(copy, SA(a), sizeof(a)));
	getsockname(fd, SA(got), &len);
	out("bound=%d", got.sin_port != 0);
	len = sizeof(got);
	getsockname(other, SA(got), &len);
	out("other=%d", got.sin_port != 0);
}

/* A connection and an undecided socket in one message. */
CASE(passed_beside_a_connection)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = {0}, byte = 'x';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *m = CMSG_FIRSTHDR(&msg);
	int fds[2], both[2], fd, id, usual;
	struct conn c;

	warm();
	c = pair_connected();
	fd = tcp_socket();
	usual = value_of(fd, SOL_SOCKET, SO_RCVBUF);
	ret("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	m->cmsg_level = SOL_SOCKET;
	m->cmsg_type = SCM_RIGHTS;
	m->cmsg_len = CMSG_LEN(sizeof(both));
	memcpy(CMSG_DATA(m), (int[]){c.fd, fd}, sizeof(both));
	ret("sendmsg", sendmsg(fds[0], &msg, 0));
	msg.msg_controllen = sizeof(control);
	ret("recvmsg", recvmsg(fds[1], &msg, 0));
	memcpy(both, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(both));
	/* what is done to the copy is nothing to a socket that comes later */
	id = peer_ok("listen %d 16 0", port(0));
	ret("connect", connect_peer(fd, port(0)));
	peer_ok("accept %d", id);
	set(both[1], SOL_SOCKET, SO_RCVBUF, 30000);
	close(fd);
	for (int i = 0; i < 3; i++)
		out("%d", value_of(tcp_socket(), SOL_SOCKET, SO_RCVBUF) == usual);
	ret("send", send(both[0], "word", 4, 0));
	peer_show("word", "show %d 4", c.id);
}

CASE(passed_as_a_connection_then_more)
{
	int fds[2], copy, fd;
	struct conn c;

	warm();
	c = pair_connected();
	ret("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	pass(fds[0], c.fd);
	close(c.fd);
	copy = ret_fd("passed", passed(fds[1]));
	ret("send", send(copy, "word", 4, 0));
	peer_show("word", "show %d 4", c.id);
	fd = tcp_socket();
	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	out("%d", value_of(copy, IPPROTO_TCP, TCP_NODELAY));
	close(copy);
	peer_show("end", "recv %d 1", c.id);
}

CASE(in_an_epoll_set_before_it_connects)
{
	int fd = fresh(), other = tcp_socket(), ep = set_new(), id = peer_ok("listen %d 4 0", port(0)), n;
	struct epoll_event e[4];

	ret("add", ctl(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT, 1));
	n = epoll_wait(ep, e, 4, 0);
	out("n=%d", n);
	if (n > 0)
		rev("bits", e[0].events);
	ret("add_other", ctl(ep, EPOLL_CTL_ADD, other, EPOLLIN, 2));
	close(other);
	n = epoll_wait(ep, e, 4, 0);
	out("n=%d", n);
	ret("connect", connect_peer(fd, port(0)));
	n = epoll_wait(ep, e, 4, 8000);
	out("n=%d", n);
	if (n > 0)
		rev("bits", e[0].events);
	id = peer_ok("accept %d", id);
	peer_ok("text %d word", id);
	settle(fd, POLLIN);
	n = epoll_wait(ep, e, 4, 8000);
	if (n > 0)
		rev("bits", e[0].events);
	close(fd);
	ret("empty", epoll_wait(ep, e, 4, 0));
}

/* A system call that no library sees. */
CASE(connected_behind_our_back)
{
	struct sockaddr_in a;
	int fd = fresh(), other = tcp_socket(), l = loopback_listener(&a), s;

	out("connect=%ld", RAW(SYS_connect, fd, &a, sizeof(a)));
	s = accept(l, NULL, NULL);
	ret("write", write(fd, "word", 4));
	ret("read", read(s, (char[8]){0}, 8));
	ret("other", send(other, "x", 1, MSG_NOSIGNAL));
	close(fd);
	ret("end", read(s, (char[8]){0}, 8));
	fd = fresh();
	out("connect=%ld", RAW(SYS_connect, fd, &a, sizeof(a)));
	s = accept(l, NULL, NULL);
	close(fd);
	ret("end", read(s, (char[8]){0}, 8));
	ret("next", send(tcp_socket(), "x", 1, MSG_NOSIGNAL));
}

CASE(reserved_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof(a);
	int fd = fresh(), other = tcp_socket(), id = peer_ok("listen %d 4 0", port(0));

	ret("bindresvport", bindresvport(fd, &a));
	ret("connect", connect_peer(fd, port(0)));
	getsockname(fd, SA(a), &len);
	out("reserved=%d", ntohs(a.sin_port) < 1024);
	id = peer_ok("accept %d", id);
	close(fd);
	peer_show("end", "recv %d 1", id);
	len = sizeof(a);
	getsockname(other, SA(a), &len);
	out("other=%d", a.sin_port);
}

/* A program may want a number that the library keeps something at. With the stack in the process one or two
 * may be its own. */
CASE(any_number_can_be_had)
{
	enum { SOCKETS = 10, FIRST = 300, NUMBERS = 30 };
	struct rlimit limit;
	int fd[SOCKETS], bad = 0;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 2 * FIRST;
	setrlimit(RLIMIT_NOFILE, &limit);
	warm();
	for (int i = 0; i < SOCKETS; i++) {
		fd[i] = tcp_socket();
		ret("keepidle", set(fd[i], IPPROTO_TCP, TCP_KEEPIDLE, 40 + i));
	}
	for (int n = FIRST; n < FIRST + NUMBERS; n++)
		bad += dup2(0, n) != n;
	out("most=%d", bad < SOCKETS / 2);
	for (int n = FIRST; n < FIRST + NUMBERS; n++)
		close(n);
	peer_ok("listen %d 16 0", port(0));
	for (int i = 0; i < SOCKETS; i++) {
		out("%d", value_of(fd[i], IPPROTO_TCP, TCP_KEEPIDLE));
		ret("connect", connect_peer(fd[i], port(0)));
		out("%d", value_of(fd[i], IPPROTO_TCP, TCP_KEEPIDLE));
	}
}

CASE(no_number_left)
{
	static int fds[700];
	struct rlimit limit;
	int fd, other, n = 0;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 600;
	setrlimit(RLIMIT_NOFILE, &limit);
	fd = fresh();
	other = tcp_socket();
	ret("nodelay", set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	while (n < 700 && (fds[n] = dup(0)) >= 0)
		n++;
	ret("full", n < 700 ? fds[n] : 0);
	ret("socket", socket(AF_INET, SOCK_STREAM, 0));
	out("nodelay=%d,%d", value_of(fd, IPPROTO_TCP, TCP_NODELAY),
	        value_of(other, IPPROTO_TCP, TCP_NODELAY));
	ret("keepidle", set(other, IPPROTO_TCP, TCP_KEEPIDLE, 5));
	while (n > 0)
		close(fds[--n]);
	peer_ok("listen %d 4 0", port(0));
	ret("connect", connect_peer(fd, port(0)));
	ret("connect", connect_peer(other, port(0)));
	out("%d %d", value_of(fd, IPPROTO_TCP, TCP_NODELAY), value_of(other, IPPROTO_TCP, TCP_KEEPIDLE));
}

enum { THREADS = 4, ROUNDS = 60 };

static struct sockaddr_in kernels;
static int keepidle;
static _Atomic int wrong;

/* Three connections in four are Pronk's. */
static void *churn(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < ROUNDS; i++) {
		int fd = tcp_socket(), is_there = (i + me) % 4 == 0, copy = i % 8 == 1 ? dup(fd) : -1;
		struct sockaddr_in to = is_there ? kernels : addr_peer(port(0));

		wrong += value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) != keepidle;
		wrong += set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 100 + me) != 0;
		wrong += connect(fd, SA(to), sizeof(to)) != 0;
		wrong += value_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) != 100 + me;
		if (copy >= 0) {
			wrong += value_of(copy, IPPROTO_TCP, TCP_KEEPIDLE) != 100 + me;
			close(copy);
		}
		wrong += close(fd) != 0;
	}
	return NULL;
}

static void *take(void *arg)
{
	int l = (int)(intptr_t)arg;

	for (int i = 0; i < THREADS * ROUNDS / 4; i++)
		close(accept(l, NULL, NULL));
	return NULL;
}

CASE(threads_connect_and_close)
{
	pthread_t t[THREADS], taker;
	int l, id = peer_ok("listen %d 4096 0", port(0));

	warm();
	l = loopback_listener(&kernels);
	keepidle = value_of(l, IPPROTO_TCP, TCP_KEEPIDLE);
	pthread_create(&taker, NULL, take, (void *)(intptr_t)l);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, churn, (void *)(intptr_t)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	pthread_join(taker, NULL);
	out("wrong=%d", wrong);
	for (int i = 0; i < THREADS * ROUNDS * 3 / 4; i++)
		peer_ok("close %d", peer_ok("accept %d", id));
	out("all");
}
