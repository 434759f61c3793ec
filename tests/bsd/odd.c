/* odd.c - calls that are seldom made on sockets, and what libc does inside itself: splice, vectors with an
 * offset, syscall(2), streams, numbers that come back, names. */
#include "bsd.h"

#include <netdb.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

/* --- splice --- */

CASE_BOTH(splice_to_socket)
{
	struct conn c = pair();
	int p[2];

	ret("pipe", pipe(p));
	ret("write", write(p[1], "splice!", 7));
	ret("splice", splice(p[0], NULL, c.fd, NULL, 100, 0));
	peer_show("peer", "show %d 7", c.id);
	ret("empty", splice(p[0], NULL, c.fd, NULL, 100, SPLICE_F_NONBLOCK));
	ret("write", write(p[1], "abcdef", 6));
	ret("part", splice(p[0], NULL, c.fd, NULL, 3, SPLICE_F_MOVE | SPLICE_F_MORE));
	ret("rest", splice(p[0], NULL, c.fd, NULL, 100, 0));
	peer_show("peer", "show %d 6", c.id);
	close(p[1]);
	ret("no_writer", splice(p[0], NULL, c.fd, NULL, 100, 0));
}

CASE_BOTH(splice_from_socket)
{
	struct conn c = pair();
	char buf[64];
	int p[2];
	ssize_t n;

	ret("pipe", pipe(p));
	peer_ok("send %d 50", c.id);
	settle_bytes(c.fd, 50);
	ret("splice", splice(c.fd, NULL, p[1], NULL, 20, 0));
	ret("splice", splice(c.fd, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	n = ret("read", read(p[0], buf, sizeof(buf)));
	out("match=%d", n > 0 && pattern_ok(buf, 0, (size_t)n));
	set_nonblock(c.fd, true);
	ret("nothing", splice(c.fd, NULL, p[1], NULL, 100, 0));
	set_nonblock(c.fd, false);
	peer_ok("after 50 send %d 5", c.id);
	ret("waits", splice(c.fd, NULL, p[1], NULL, 100, 0));
	peer_ok("shut %d 1", c.id);
	ret("end", splice(c.fd, NULL, p[1], NULL, 100, 0));
	peer_ok("close %d", c.id);
}

CASE_BOTH(splice_large)
{
	enum { SIZE = 1000000 };
	struct conn c = pair();
	size_t done = 0, good = 0;
	static char buf[65536];
	int p[2];

	ret("pipe", pipe(p));
	peer_go("send %d %d", c.id, SIZE);
	while (done < SIZE) {
		ssize_t n = splice(c.fd, NULL, p[1], NULL, 65536, SPLICE_F_MOVE);

		if (n <= 0) {
			ret("splice", n);
			break;
		}
		while (n > 0) {
			ssize_t k = read(p[0], buf, sizeof(buf));

			if (k <= 0)
				break;
			good += pattern_ok(buf, done, (size_t)k) ? (size_t)k : 0;
			done += (size_t)k;
			n -= k;
		}
	}
	out("done=%zu good=%zu", done, good);
	out("%.2s", peer_reply());
	peer_go("recv %d %d", c.id, SIZE);
	for (done = 0; done < SIZE;) {
		size_t part = SIZE - done < 30000 ? SIZE - done : 30000;

		pattern_fill(buf, done, part);
		if (write(p[1], buf, part) != (ssize_t)part)
			break;
		while (part) {
			ssize_t n = splice(p[0], NULL, c.fd, NULL, part, 0);

			if (n <= 0) {
				ret("splice", n);
				return;
			}
			part -= (size_t)n;
			done += (size_t)n;
		}
	}
	out("sent=%zu peer=%s", done, strstr(peer_reply(), "more match") ? "match" : "wrong");
}

CASE_BOTH(splice_refuses)
{
	struct conn c = pair(), d = pair();
	int p[2], file = open("/proc/self/exe", O_RDONLY);
	off64_t at = 0;

	signal(SIGPIPE, SIG_IGN);
	ret("pipe", pipe(p));
	ret("write", write(p[1], "data", 4));
	ret("zero", splice(p[0], NULL, c.fd, NULL, 0, 0));
	ret("flags", splice(p[0], NULL, c.fd, NULL, 4, 0x100));
	ret("sockets", splice(c.fd, NULL, d.fd, NULL, 4, 0));
	ret("file", splice(file, NULL, c.fd, NULL, 4, 0));
	ret("socket_offset", splice(p[0], NULL, c.fd, &at, 4, 0));
	ret("pipe_offset", splice(p[0], &at, c.fd, NULL, 4, 0));
	ret("in_offset", splice(c.fd, &at, p[1], NULL, 4, SPLICE_F_NONBLOCK));
	ret("wrong_end", splice(p[1], NULL, c.fd, NULL, 4, 0));
	ret("wrong_end", splice(c.fd, NULL, p[0], NULL, 4, 0));
	ret("bad", splice(999, NULL, c.fd, NULL, 4, 0));
	ret("bad", splice(c.fd, NULL, 999, NULL, 4, 0));
	close(p[0]);
	peer_ok("send %d 4", d.id);
	settle_bytes(d.fd, 4);
	ret("no_reader", splice(d.fd, NULL, p[1], NULL, 4, 0));
	ret("still_there", recv(d.fd, (char[8]){0}, 8, MSG_DONTWAIT));
	ret("tee", tee(c.fd, p[1], 4, 0));
	ret("vmsplice", vmsplice(c.fd, &(struct iovec){"x", 1}, 1, 0));
	ret("copy", copy_file_range(file, NULL, c.fd, NULL, 4, 0));
}

CASE_BOTH(sendfile_sources)
{
	struct conn c = pair(), d = pair();
	int p[2], file = open("/proc/self/exe", O_RDONLY), wr = open("/dev/null", O_WRONLY);
	off_t at = 0;

	ret("pipe", pipe(p));
	ret("write", write(p[1], "data", 4));
	ret("from_pipe", sendfile(c.fd, p[0], NULL, 4));
	ret("from_pipe_at", sendfile(c.fd, p[0], &at, 4));
	ret("from_socket", sendfile(c.fd, d.fd, NULL, 4));
	ret("from_socket_at", sendfile(c.fd, d.fd, &at, 4));
	ret("not_readable", sendfile(c.fd, wr, NULL, 4));
	ret("bad", sendfile(c.fd, 999, NULL, 4));
	ret("zero", sendfile(c.fd, file, NULL, 0));
	at = -1;
	ret("negative", sendfile(c.fd, file, &at, 4));
	at = 1;
	ret("file", sendfile(c.fd, file, &at, 3));
	out("at=%d", (int)at);
	peer_show("peer", "show %d 3", c.id);
}

/* --- vectors with an offset --- */

CASE_BOTH(vectors_with_offset)
{
	struct conn c = pair();
	char a[4] = "", b[8] = "";
	struct iovec iov[2] = {{a, 3}, {b, 4}};

	peer_ok("text %d abcdefg", c.id);
	settle_bytes(c.fd, 7);
	ret("preadv", preadv(c.fd, iov, 2, 0));
	ret("pwritev", pwritev(c.fd, iov, 2, 0));
	ret("preadv2", preadv2(c.fd, iov, 2, 0, 0));
	ret("preadv2", preadv2(c.fd, iov, 2, -1, 0));
	out("%s,%s", a, b);
	ret("pwritev2", pwritev2(c.fd, iov, 2, -1, 0));
	peer_show("peer", "show %d 7", c.id);
	ret("nowait", preadv2(c.fd, iov, 2, -1, RWF_NOWAIT));
	ret("flags", preadv2(c.fd, iov, 2, -1, 0x4000));
	ret("negative", preadv2(c.fd, iov, 2, -2, 0));
	ret("preadv64v2", preadv64v2(c.fd, iov, 2, -1, RWF_NOWAIT));
	ret("pwritev64v2", pwritev64v2(c.fd, iov, 2, -1, 0));
	ret("count", preadv2(c.fd, iov, atoi("-1"), -1, 0));
}

/* --- what a descriptor is --- */

CASE_BOTH(not_a_file)
{
	struct conn c = pair();
	char link[64] = "", path[32];
	struct statx sx;
	struct flock fl = {.l_type = F_WRLCK};
	struct stat st;
	int v;

	ret("fstatat", fstatat(c.fd, "", &st, AT_EMPTY_PATH));
	out("sock=%d size=%d", S_ISSOCK(st.st_mode), (int)st.st_size);
	ret("statx", statx(c.fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx));
	out("sock=%d", S_ISSOCK(sx.stx_mode));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", c.fd);
	ret("readlink", readlink(path, link, 8));
	out("%.8s", link);
	out("mmap=%d", mmap(NULL, 4096, PROT_READ, MAP_SHARED, c.fd, 0) == MAP_FAILED ? errno : 0);
	ret("fdatasync", fdatasync(c.fd));
	ret("fallocate", fallocate(c.fd, 0, 0, 1));
	ret("lock", fcntl(c.fd, F_SETLK, &fl));
	ret("lseek", lseek(c.fd, 0, SEEK_CUR));
	ret("sockatmark", sockatmark(c.fd));
	ret("isfdtype", isfdtype(c.fd, S_IFSOCK));
	ret("isfdtype", isfdtype(c.fd, S_IFREG));
	ret("ioctl", ioctl(c.fd, 0x12345678, &v));
	ret("tcgets", ioctl(c.fd, TCGETS, &st));
	v = 1;
	ret("siocatmark", ioctl(c.fd, SIOCATMARK, &v));
	out("mark=%d", v);
	ret("getlease", fcntl(c.fd, F_GETLEASE));
	ret("getsig", fcntl(c.fd, F_GETSIG));
	ret("setsig", fcntl(c.fd, F_SETSIG, SIGUSR1));
	ret("getsig", fcntl(c.fd, F_GETSIG) == SIGUSR1);
	ret("pipesize", fcntl(c.fd, F_GETPIPE_SZ));
	ret("seals", fcntl(c.fd, F_GET_SEALS));
	ret("accmode", fcntl(c.fd, F_GETFL) & O_ACCMODE);
}

/* --- syscall(2) --- */

CASE_BOTH(raw_calls)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	struct iovec iov = {"writev", 6};
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 5};
	struct timespec ts = {0, 0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	char buf[32] = "";
	fd_set rd;
	int copy, ep, v = 1;

	ret("write", syscall(SYS_write, c.fd, "write", 5L));
	ret("writev", syscall(SYS_writev, c.fd, &iov, 1L));
	ret("sendto", syscall(SYS_sendto, c.fd, "sendto", 6L, MSG_NOSIGNAL, NULL, 0));
	ret("sendmsg", syscall(SYS_sendmsg, c.fd, &msg, 0));
	peer_show("peer", "show %d 23", c.id);
	peer_ok("text %d abcdefgh", c.id);
	ret("poll", syscall(SYS_ppoll, &p, 1L, NULL, NULL, 8L));
	settle_bytes(c.fd, 8);
	FD_ZERO(&rd);
	FD_SET(c.fd, &rd);
	ret("select", syscall(SYS_pselect6, c.fd + 1, &rd, NULL, NULL, &ts, NULL));
	ep = (int)syscall(SYS_epoll_create1, 0);
	ret("ctl", syscall(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, c.fd, &ev));
	ret("wait", syscall(SYS_epoll_pwait, ep, &ev, 1, 8000, NULL, 8L));
	out("data=%d", (int)ev.data.u64);
	ret("ioctl", syscall(SYS_ioctl, c.fd, FIONREAD, &v));
	out("v=%d", v);
	ret("read", syscall(SYS_read, c.fd, buf, 2L));
	iov = (struct iovec){buf + 2, 2};
	ret("readv", syscall(SYS_readv, c.fd, &iov, 1L));
	ret("recvfrom", syscall(SYS_recvfrom, c.fd, buf + 4, 2L, 0, NULL, NULL));
	iov = (struct iovec){buf + 6, 2};
	ret("recvmsg", syscall(SYS_recvmsg, c.fd, &msg, 0));
	out("%s", buf);
	ret("again", syscall(SYS_recvfrom, c.fd, buf, 2L, MSG_DONTWAIT, NULL, NULL));
	ret("fcntl", syscall(SYS_fcntl, c.fd, F_SETFL, O_NONBLOCK));
	ret("read", syscall(SYS_read, c.fd, buf, 2L));
	ret("setsockopt", syscall(SYS_setsockopt, c.fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)));
	len = sizeof(v);
	v = 0;
	ret("getsockopt", syscall(SYS_getsockopt, c.fd, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	out("v=%d", v);
	len = sizeof(a);
	ret("getpeername", syscall(SYS_getpeername, c.fd, &a, &len));
	show_addr("peer", &a, len);
	copy = (int)syscall(SYS_dup, c.fd);
	ret("close", syscall(SYS_close, c.fd));
	ret("closed", syscall(SYS_write, c.fd, "x", 1L));
	ret("send", send(copy, "copy", 4, 0));
	ret("shutdown", syscall(SYS_shutdown, copy, SHUT_WR));
	peer_show("peer", "show %d 4", c.id);
	peer_show("end", "recv %d 1", c.id);
}

CASE(raw_calls_of_a_server)
{
	struct sockaddr_in a = addr_server(port(0));
	int l = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), fd, id;

	ret("bind", syscall(SYS_bind, l, &a, (long)sizeof(a)));
	ret("listen", syscall(SYS_listen, l, 4));
	id = peer_connect(port(0));
	fd = (int)syscall(SYS_accept4, l, NULL, NULL, SOCK_CLOEXEC);
	out("fd=%x", fcntl(fd, F_GETFD));
	ret("send", send(fd, "hi", 2, 0));
	peer_show("peer", "show %d 2", id);
	out("pid=%d", syscall(SYS_getpid) == getpid());
	out("mmap=%d", syscall(SYS_mmap, NULL, 4096L, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L) != -1);
	ret("bad", syscall(99999));
	ret("openat", syscall(SYS_openat, AT_FDCWD, "/nonexistent", O_RDONLY));
	ret("close", syscall(SYS_close_range, (long)fd, (long)fd, 0));
	peer_show("end", "recv %d 1", id);
}

/* --- streams --- */

CASE_BOTH(stream_has_its_number)
{
	struct conn c = pair();
	FILE *f = fdopen(c.fd, "r+");
	char line[32] = "";

	out("fileno=%d", fileno(f) == c.fd);
	out("unlocked=%d", fileno_unlocked(f) == c.fd);
	out("seek=%d", fseek(f, 0, SEEK_SET) ? errno : 0);
	out("tell=%d", ftell(f) < 0 ? errno : 0);
	setvbuf(f, NULL, _IOLBF, 0);
	out("puts=%d", fputs("line\n", f) >= 0);
	peer_show("line", "show %d 4", c.id);
	peer_show("newline", "recv %d 1", c.id);
	peer_ok("text %d word", c.id);
	peer_ok("shut %d 1", c.id);
	out("read=%zu %s", fread(line, 1, sizeof(line), f), line);
	out("eof=%d error=%d", feof(f) != 0, ferror(f) != 0);
	out("close=%d", fclose(f));
	ret("closed", fcntl(c.fd, F_GETFD));
	ret("recv", recv(c.fd, line, 1, 0));
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(stream_modes)
{
	struct conn c = pair();
	FILE *f;

	out("bad=%d", fdopen(c.fd, "x") ? 0 : errno);
	f = fdopen(c.fd, "we");
	out("fd=%x", fcntl(c.fd, F_GETFD));
	setvbuf(f, NULL, _IONBF, 0);
	out("put=%d", fputc('c', f));
	peer_show("peer", "show %d 1", c.id);
	out("get=%d error=%d", fgetc(f), ferror(f) != 0);
	f = fdopen(dup(c.fd), "a");
	out("fl=%x", fcntl(c.fd, F_GETFL));
	out("puts=%d", fprintf(f, "%d", 12345));
	out("close=%d", fclose(f));
	peer_show("peer", "show %d 5", c.id);
	out("none=%d", fdopen(999, "r") ? 0 : errno);
}

/* The stream comes before the connection. */
CASE(stream_then_connect)
{
	int fd = tcp_socket(), id, at;
	FILE *f = fdopen(fd, "w");
	struct sockaddr_in a;

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	id = peer_ok("accept %d", id);
	fputs("late", f);
	out("close=%d", fclose(f));
	peer_show("peer", "show %d 4", id);
	peer_show("end", "recv %d 1", id);
}

CASE_BOTH(write_errors_of_a_stream)
{
	struct conn c = pair();
	FILE *f = fdopen(c.fd, "w");

	signal(SIGPIPE, SIG_IGN);
	shutdown(c.fd, SHUT_WR);
	out("puts=%d", fputs("x", f) >= 0);
	ret("flush", fflush(f));
	out("error=%d", ferror(f) != 0);
	clearerr(f);
	out("close=%d", fclose(f));
}

static int say(int fd, const char *format, ...)
{
	va_list ap;
	int rc;

	va_start(ap, format);
	rc = vdprintf(fd, format, ap);
	va_end(ap);
	return rc;
}

CASE_BOTH(formatted_output)
{
	struct conn c = pair();

	ret("dprintf", dprintf(c.fd, "%s-%d", "number", 42));
	peer_show("peer", "show %d 9", c.id);
	ret("vdprintf", say(c.fd, "%05d", 7));
	peer_show("peer", "show %d 5", c.id);
	signal(SIGPIPE, SIG_IGN);
	shutdown(c.fd, SHUT_WR);
	ret("dprintf", dprintf(c.fd, "%d", 1));
}

/* stdin, stdout and stderr on a socket, without exec */
CASE_BOTH(standard_streams)
{
	struct conn c = pair();
	int save[3], n = 0;
	char word[16] = "", line[16] = "";

	for (int i = 0; i < 3; i++)
		save[i] = dup(i);
	dup2(c.fd, 0);
	dup2(c.fd, 1);
	dup2(c.fd, 2);
	close(c.fd);
	printf("hello\n");
	fflush(stdout);
	fprintf(stderr, "error");
	errno = ENOENT;
	peer_ok("text %d 12,word", c.id);
	n = scanf("%d", &n) == 1 ? n : -1;
	getchar();
	peer_ok("shut %d 1", c.id);
	if (fgets(word, sizeof(word), stdin))
		puts("got");
	fflush(stdout);
	dup2(save[0], 0);
	dup2(save[1], 1);
	dup2(save[2], 2);
	out("n=%d word=%s %s", n, word, line);
	peer_show("peer", "show %d 11", c.id);
	peer_show("peer", "show %d 4", c.id);
	peer_show("end", "recv %d 2", c.id);
}

CASE_BOTH(perror_on_a_socket)
{
	struct conn c = pair();
	int save = dup(2);

	dup2(c.fd, 2);
	errno = ENOENT;
	perror("it");
	dup2(save, 2);
	peer_show("peer", "show %d 6", c.id);
}

/* --- numbers that come back --- */

/* Whatever gets the number of a socket that was closed has nothing to do with it. */
static void is_fresh(const char *what, int fd, int old)
{
	char c;

	out("[%s] same=%d", what, fd == old);
	ret("shutdown", shutdown(fd, SHUT_WR));
	ret("recv", recv(fd, &c, 1, MSG_DONTWAIT));
	close(fd);
}

CASE_BOTH(numbers_come_back)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = ""};
	int old, p[2], l, k;
	struct conn c;
	FILE *f;

	c = pair();
	f = fdopen(c.fd, "r+");
	fclose(f);
	is_fresh("open", open("/dev/null", O_RDONLY), c.fd);
	c = pair();
	syscall(SYS_close, c.fd);
	is_fresh("openat", openat(AT_FDCWD, "/dev/null", O_RDONLY), c.fd);
	c = pair();
	close(c.fd);
	pipe(p);
	is_fresh("pipe", p[0], c.fd);
	close(p[1]);
	c = pair();
	close(c.fd);
	pipe2(p, O_CLOEXEC);
	is_fresh("pipe2", p[0], c.fd);
	close(p[1]);
	c = pair();
	close(c.fd);
	socketpair(AF_UNIX, SOCK_STREAM, 0, p);
	is_fresh("socketpair", p[0], c.fd);
	close(p[1]);
	c = pair();
	close(c.fd);
	is_fresh("eventfd", eventfd(0, 0), c.fd);
	c = pair();
	close(c.fd);
	is_fresh("timerfd", timerfd_create(CLOCK_MONOTONIC, 0), c.fd);
	l = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(l, (struct sockaddr *)&un, sizeof(sa_family_t));
	listen(l, 4);
	k = socket(AF_UNIX, SOCK_STREAM, 0);
	socklen_t len = sizeof(un);
	getsockname(l, (struct sockaddr *)&un, &len);
	connect(k, (struct sockaddr *)&un, len);
	c = pair();
	close(c.fd);
	is_fresh("accept", accept(l, NULL, NULL), c.fd);
	c = pair();
	old = c.fd;
	f = fdopen(old, "r");
	f = freopen("/dev/null", "r", f);
	out("again=%d", freopen64("/dev/null", "w", f) == f);
	out("reopened=%d", f != NULL);
	ret("recv", recv(fileno(f), &len, 1, MSG_DONTWAIT));
	fclose(f);
	peer_show("end", "recv %d 1", c.id);
	c = pair();
	f = popen("true", "r");
	out("popen=%d", pclose(f));
	ret("send", send(c.fd, "alive", 5, 0));
	peer_show("peer", "show %d 5", c.id);
}

CASE_BOTH(daemon_points_standard_streams_away)
{
	struct conn c = pair();
	int p[2];
	pid_t pid;

	pipe(p);
	pid = fork();
	if (pid == 0) {
		char text[64];

		dup2(c.fd, 0);
		close(c.fd);
		if (daemon(1, 0) < 0)
			_exit(1);
		snprintf(text, sizeof(text), "%zd %zd", read(0, text, 1), recv(0, text, 1, 0));
		if (write(p[1], text, strlen(text) + 1) < 0)
			_exit(1);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	close(c.fd);
	char text[64] = "";
	ret("read", read(p[0], text, sizeof(text)));
	out("%s", text);
	peer_show("end", "recv %d 1", c.id);
}

/* --- names --- */

CASE_BOTH(names_are_the_kernels_business)
{
	struct addrinfo hints = {.ai_family = AF_INET,
	                        .ai_socktype = SOCK_STREAM,
	                        .ai_flags = AI_NUMERICSERV},
	                *list = NULL;
	struct conn c = pair();
	struct hostent *h;

	out("info=%d", getaddrinfo("localhost", "80", &hints, &list));
	out("loopback=%d", list && ((struct sockaddr_in *)(void *)list->ai_addr)->sin_addr.s_addr ==
	                                   htonl(INADDR_LOOPBACK));
	freeaddrinfo(list);
	h = gethostbyname("127.0.0.1");
	out("host=%d", h && h->h_length == 4);
	ret("send", send(c.fd, "alive", 5, 0));
	peer_show("peer", "show %d 5", c.id);
}
