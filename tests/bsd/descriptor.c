/* descriptor.c - sockets as descriptors: flags, copies, closing one and many, numbers that come back. */
#include "bsd.h"

#include <linux/close_range.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void echo_works(const char *what, int fd, int id)
{
	char b[8] = "";

	out("[%s]", what);
	if (ret("send", send(fd, "hey", 3, MSG_NOSIGNAL)) == 3)
		peer_show("got", "show %d 3", id);
	peer_ok("text %d yes", id);
	ret("recv", recv(fd, b, 3, 0));
	out("%s", b);
}

CASE_BOTH(flags)
{
	struct conn c = pair();
	int one = 1;

	out("fl=%x fd=%x", fcntl(c.fd, F_GETFL), fcntl(c.fd, F_GETFD));
	ret("setfl", fcntl(c.fd, F_SETFL, O_NONBLOCK | O_APPEND | O_WRONLY));
	out("fl=%x", fcntl(c.fd, F_GETFL));
	ret("setfl", fcntl(c.fd, F_SETFL, 0));
	out("fl=%x", fcntl(c.fd, F_GETFL));
	ret("setfd", fcntl(c.fd, F_SETFD, FD_CLOEXEC));
	out("fd=%x", fcntl(c.fd, F_GETFD));
	ret("setfd", fcntl(c.fd, F_SETFD, 0));
	out("fd=%x", fcntl(c.fd, F_GETFD));
	ret("fioclex", ioctl(c.fd, FIOCLEX));
	out("fd=%x", fcntl(c.fd, F_GETFD));
	ret("fionclex", ioctl(c.fd, FIONCLEX));
	out("fd=%x", fcntl(c.fd, F_GETFD));
	ret("fionbio", ioctl(c.fd, FIONBIO, &one));
	out("fl=%x", fcntl(c.fd, F_GETFL));
	ret("bad", fcntl(c.fd, 9999, 0));
	ret("bad_fd", fcntl(9999, F_GETFL));
}

CASE_BOTH(is_a_socket)
{
	struct conn c = pair();
	struct stat st;

	ret("fstat", fstat(c.fd, &st));
	out("sock=%d", S_ISSOCK(st.st_mode));
	ret("isatty", isatty(c.fd) ? 1 : -1);
	ret("lseek", lseek(c.fd, 0, SEEK_SET));
	ret("pread", pread(c.fd, &st, 1, 0));
	ret("pwrite", pwrite(c.fd, &st, 1, 0));
	ret("fsync", fsync(c.fd));
	ret("ftruncate", ftruncate(c.fd, 0));
}

CASE_BOTH(number_is_the_lowest)
{
	struct conn c = pair();
	int a = dup(0), b;

	close(a);
	b = socket(AF_INET, SOCK_STREAM, 0);
	out("same=%d", a == b);
	close(b);
	close(c.fd);
	b = dup(0);
	out("reused=%d", b == c.fd);
	ret("recv", recv(b, &a, 1, 0));
}

CASE_BOTH(dup_means_the_same)
{
	struct conn c = pair();
	int copy = ret_fd("dup", dup(c.fd));

	echo_works("copy", copy, c.id);
	echo_works("first", c.fd, c.id);
	set_nonblock(copy, true);
	out("fl=%x", fcntl(c.fd, F_GETFL));
	set_nonblock(copy, false);
	ret("close", close(c.fd));
	echo_works("left", copy, c.id);
	ret("closed", recv(c.fd, &copy, 1, 0));
	ret("close", close(copy));
	peer_show("peer", "recv %d 1", c.id);
}

CASE_BOTH(dup_then_close_copy)
{
	struct conn c = pair();
	int copy = dup(c.fd);

	ret("close", close(copy));
	echo_works("first", c.fd, c.id);
	ret("copy", send(copy, "x", 1, 0));
}

CASE_BOTH(shutdown_reaches_all_copies)
{
	struct conn c = pair();
	int copy = dup(c.fd);

	ret("shutdown", shutdown(copy, SHUT_WR));
	ret("send", send(c.fd, "x", 1, MSG_NOSIGNAL));
	peer_show("peer", "recv %d 1", c.id);
}

CASE_BOTH(dup2_forms)
{
	struct conn c = pair(), d = pair_connected();
	int file = open("/dev/null", O_RDWR), b;

	ret("same", dup2(c.fd, c.fd) == c.fd);
	ret("number", dup2(c.fd, 60) == 60);
	echo_works("number", 60, c.id);
	ret("over_file", dup2(c.fd, file) == file);
	echo_works("over_file", file, c.id);
	ret("over_socket", dup2(c.fd, d.fd) == d.fd);
	echo_works("over_socket", d.fd, c.id);
	peer_show("other_ended", "recv %d 1", d.id);
	ret("bad", dup2(9999, 60));
	echo_works("number", 60, c.id);
	ret("negative", dup2(c.fd, -1));
	ret("huge", dup2(c.fd, 1 << 30));
	b = open("/dev/null", O_RDWR);
	ret("file_over", dup2(b, c.fd) == c.fd);
	ret("recv", recv(c.fd, &b, 1, 0));
	ret("write", write(c.fd, "x", 1));
	echo_works("number", 60, c.id);
}

CASE_BOTH(dup3_forms)
{
	struct conn c = pair();

	ret("same", dup3(c.fd, c.fd, 0));
	ret("cloexec", dup3(c.fd, 60, O_CLOEXEC) == 60);
	out("fd=%x,%x", fcntl(60, F_GETFD), fcntl(c.fd, F_GETFD));
	echo_works("copy", 60, c.id);
	ret("flags", dup3(c.fd, 61, O_NONBLOCK));
	ret("bad", dup3(9999, 61, 0));
}

CASE_BOTH(dupfd_forms)
{
	struct conn c = pair();
	int fd = fcntl(c.fd, F_DUPFD, 70);

	out("at=%d fd=%x", fd, fcntl(fd, F_GETFD));
	echo_works("dupfd", fd, c.id);
	fd = fcntl(c.fd, F_DUPFD_CLOEXEC, 70);
	out("at=%d fd=%x", fd, fcntl(fd, F_GETFD));
	echo_works("cloexec", fd, c.id);
	ret("negative", fcntl(c.fd, F_DUPFD, -1));
	ret("huge", fcntl(c.fd, F_DUPFD, 1 << 30));
}

CASE(dup_of_unconnected)
{
	struct sockaddr_in a;
	int fd = tcp_socket(), copy = dup(fd), id, at, l = tcp_socket(), lcopy = dup(l);

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	id = peer_ok("accept %d", id);
	echo_works("copy", copy, id);
	a = addr_server(port(0));
	ret("bind", bind(lcopy, SA(a), sizeof(a)));
	ret("listen", listen(l, 4));
	id = peer_connect(port(0));
	echo_works("accepted", accept(lcopy, NULL, NULL), id);
	ret("close", close(l));
	id = peer_connect(port(0));
	echo_works("accepted", accept(lcopy, NULL, NULL), id);
	ret("close", close(lcopy));
	peer_show("refused", "connect %d 0", port(0));
}

CASE_BOTH(close_twice)
{
	struct conn c = pair();

	ret("close", close(c.fd));
	ret("close", close(c.fd));
	ret("send", send(c.fd, "x", 1, 0));
	ret("recv", recv(c.fd, &c, 1, 0));
	ret("poll", poll(&(struct pollfd){.fd = c.fd, .events = POLLIN}, 1, 0));
}

CASE_BOTH(close_range_forms)
{
	struct conn c = pair(), d = pair_connected();

	dup2(c.fd, 80);
	dup2(d.fd, 81);
	dup2(0, 82);
	close(c.fd);
	close(d.fd);
	ret("backwards", close_range(81, 80, 0));
	ret("flags", close_range(80, 81, 0x80));
	ret("cloexec", close_range(80, 81, CLOSE_RANGE_CLOEXEC));
	out("fd=%x,%x", fcntl(80, F_GETFD), fcntl(81, F_GETFD));
	echo_works("still", 80, c.id);
	ret("close", close_range(80, 80, 0));
	peer_show("first_ended", "recv %d 1", c.id);
	echo_works("second", 81, d.id);
	ret("rest", close_range(60, ~0u, 0));
	peer_show("second_ended", "recv %d 1", d.id);
	ret("gone", send(81, "x", 1, 0));
	ret("gone", fcntl(82, F_GETFD));
	d = pair_connected();
	echo_works("new", d.fd, d.id);
}

CASE_BOTH(closefrom_closes)
{
	struct conn c = pair(), d;

	dup2(c.fd, 80);
	close(c.fd);
	closefrom(81);
	echo_works("below", 80, c.id);
	closefrom(40);
	peer_show("ended", "recv %d 1", c.id);
	ret("gone", send(80, "x", 1, 0));
	d = pair_connected();
	echo_works("new", d.fd, d.id);
}

CASE(closing_all_like_a_daemon)
{
	struct conn c;

	for (int fd = 4; fd < 1024; fd++)
		close(fd);
	c = pair_connected();
	echo_works("connected", c.fd, c.id);
	for (int fd = 4; fd < 1024; fd++)
		close(fd);
	peer_show("ended", "recv %d 1", c.id);
	c = pair_accepted();
	echo_works("accepted", c.fd, c.id);
}

CASE(limit_of_descriptors)
{
	struct rlimit limit = {24, 24};
	int l = listener(port(0)), n = 0, id;

	id = peer_connect(port(0));
	settle(l, POLLIN);
	ret("limit", setrlimit(RLIMIT_NOFILE, &limit));
	while (dup(0) >= 0 && n < 100)
		n++;
	ret("socket", socket(AF_INET, SOCK_STREAM, 0));
	ret("accept", accept(l, NULL, NULL));
	ret("dup", dup(l));
	close(20);
	n = ret_fd("accept", accept(l, NULL, NULL));
	echo_works("accepted", n, id);
}

CASE_BOTH(stdio_on_a_socket)
{
	struct conn c = pair();
	FILE *f = fdopen(c.fd, "r+");
	char line[32] = "";

	fprintf(f, "hello\n");
	out("flush=%d", fflush(f));
	peer_show("got", "show %d 5", c.id);
	peer_ok("text %d abcdefg", c.id);
	peer_ok("shut %d 1", c.id);
	out("line=%s", fgets(line, sizeof(line), f));
	out("eof=%d", fgets(line, sizeof(line), f) == NULL);
	out("close=%d", fclose(f));
}

CASE_BOTH(ownership_of_signals)
{
	struct conn c = pair();

	ret("getown", fcntl(c.fd, F_GETOWN));
	ret("setown", fcntl(c.fd, F_SETOWN, getpid()));
	ret("getown", fcntl(c.fd, F_GETOWN) == getpid());
}
