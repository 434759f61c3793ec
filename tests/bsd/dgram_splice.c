/* dgram_splice.c - sendfile and splice with datagram sockets: which bytes make one datagram, what is refused
 * and where it stays. */
#include "datagram.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

static int file_of(size_t size)
{
	static uint8_t data[200000];
	int fd = memfd_create("dgram", 0);

	pattern_fill(data, 0, size);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
		die("memfd: %s", strerror(errno));
	return fd;
}

static void show_fill(const char *what, int fd)
{
	int n = -1;

	ioctl(fd, FIONREAD, &n);
	out("%s=%d", what, n);
}

/* One datagram that came, by size and pattern from a position; quiet when none is there after 50 ms. */
static void show_got(const char *what, int fd, size_t from)
{
	static uint8_t b[70000];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (poll(&p, 1, 50) != 1) {
		out("%s=quiet", what);
		return;
	}
	n = recv(fd, b, sizeof(b), MSG_DONTWAIT);
	ret(what, n);
	if (n > 0)
		out("%d", pattern_ok(b, from, (size_t)n));
}

/* --- sendfile --- */

static void sendfile_parts(int fd, int id)
{
	int file = file_of(5000);
	off_t off = 100;

	ret("position", sendfile(fd, file, NULL, 1000));
	peer_show("got", "udp_recv %d", id);
	out("at=%d", (int)lseek(file, 0, SEEK_CUR));
	ret("offset", sendfile(fd, file, &off, 10));
	out("off=%d at=%d", (int)off, (int)lseek(file, 0, SEEK_CUR));
	peer_show("got", "udp_recv %d", id);
	ret("past_end", sendfile(fd, file, NULL, 9000));
	out("at=%d", (int)lseek(file, 0, SEEK_CUR));
	peer_show("got", "udp_recv %d", id);
	ret("at_end", sendfile(fd, file, NULL, 10));
	off = 0;
	ret("none", sendfile(fd, file, &off, 0));
	peer_show("quiet", "udp_quiet %d 30", id);
	off = -1;
	ret("negative", sendfile(fd, file, &off, 10));
	ret("bad_in", sendfile(fd, 9999, NULL, 10));
	ret("from_socket", sendfile(fd, fd, NULL, 10));
	close(file);
}

CASE(sendfile_connected)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	sendfile_parts(fd, id);
}

CASE(sendfile_wildcard_connected)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1));
	struct sockaddr_in a = addr_peer(port(0));

	ret("connect", connect(fd, SA(a), sizeof(a)));
	sendfile_parts(fd, id);
}

CASE(sendfile_loopback)
{
	int fd = udp_socket(), other = udp_local(port(0)), file = file_of(3000);
	struct sockaddr_in a = addr_loopback(port(0));

	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("send", sendfile(fd, file, NULL, 2000));
	show_got("got", other, 0);
	ret("past_end", sendfile(fd, file, NULL, 2000));
	show_got("got", other, 2000);
	show_got("more", other, 0);
}

CASE(sendfile_unconnected)
{
	int fd = udp_socket(), bound = udp_server(port(1)), wild = udp_wild(port(2)), file = file_of(100);

	ret("fresh", sendfile(fd, file, NULL, 10));
	ret("bound", sendfile(bound, file, NULL, 10));
	ret("wildcard", sendfile(wild, file, NULL, 10));
	out("at=%d", (int)lseek(file, 0, SEEK_CUR));
}

CASE(sendfile_large)
{
	static const struct {
		off_t off;
		size_t count;
	} tries[] = {{0, 65507}, {0, 65508}, {0, 65536}, {0, 65537}, {100, 65000}, {100, 65436}, {100, 65437},
	        {100, 65507}, {0, 150000}, {100, 150000}};
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), file = file_of(200000), big = 1 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		off_t off = tries[i].off;

		ret("send", sendfile(fd, file, &off, tries[i].count));
		out("off=%d", (int)off);
		peer_show("quiet", "udp_quiet %d 60", id);
		ret("next", send(fd, "x", 1, 0));
		peer_show("got", "udp_recv %d", id);
	}
}

CASE(sendfile_corked)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), file = file_of(300), on = 1;
	off_t off = 0;

	setsockopt(fd, IPPROTO_UDP, 1, &on, sizeof(on));
	ret("send", sendfile(fd, file, &off, 100));
	ret("past_end", sendfile(fd, file, &off, 1000));
	peer_show("quiet", "udp_quiet %d 30", id);
	on = 0;
	ret("uncork", setsockopt(fd, IPPROTO_UDP, 1, &on, sizeof(on)));
	peer_show("got", "udp_recv %d", id);
	ret("more", send(fd, "", 0, MSG_MORE));
	off = 0;
	ret("send", sendfile(fd, file, &off, 100));
	peer_show("got", "udp_recv %d", id);
}

CASE(sendfile_errors)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), file = file_of(300),
	    none = udp_to_peer(port(3));

	ret("shut", shutdown(fd, SHUT_WR));
	ret("send", sendfile(fd, file, NULL, 100));
	out("at=%d", (int)lseek(file, 0, SEEK_CUR));
	ret("first", sendfile(none, file, NULL, 10));
	settle(none, POLLERR);
	ret("refused", sendfile(none, file, NULL, 10));
	out("at=%d", (int)lseek(file, 0, SEEK_CUR));
	ret("again", sendfile(none, file, NULL, 10));
	peer_show("quiet", "udp_quiet %d 10", id);
}

/* --- splice --- */

CASE(splice_to_socket)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), p[2];

	ret("pipe", pipe(p));
	ret("write", write(p[1], "first", 5));
	ret("splice", splice(p[0], NULL, fd, NULL, 100, 0));
	peer_show("got", "udp_show %d", id);
	write(p[1], "two", 3);
	write(p[1], "three", 5);
	ret("joined", splice(p[0], NULL, fd, NULL, 100, 0));
	peer_show("got", "udp_show %d", id);
	write(p[1], "abcdef", 6);
	ret("part", splice(p[0], NULL, fd, NULL, 4, 0));
	peer_show("got", "udp_show %d", id);
	ret("rest_more", splice(p[0], NULL, fd, NULL, 4, SPLICE_F_MORE));
	peer_show("quiet", "udp_quiet %d 30", id);
	write(p[1], "gh", 2);
	ret("last", splice(p[0], NULL, fd, NULL, 4, 0));
	peer_show("got", "udp_show %d", id);
	ret("empty", splice(p[0], NULL, fd, NULL, 4, SPLICE_F_NONBLOCK));
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	ret("empty", splice(p[0], NULL, fd, NULL, 4, 0));
	ret("zero", splice(p[0], NULL, fd, NULL, 0, 0));
	close(p[1]);
	ret("no_writer", splice(p[0], NULL, fd, NULL, 4, 0));
	peer_show("quiet", "udp_quiet %d 30", id);
}

CASE(splice_refused_stays_in_the_pipe)
{
	static uint8_t data[65536];
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), big = 1 << 20, p[2], q[2];

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	pattern_fill(data, 0, sizeof(data));
	ret("pipe", pipe(p));
	ret("write", write(p[1], data, sizeof(data)));
	ret("too_long", splice(p[0], NULL, fd, NULL, sizeof(data), 0));
	show_fill("left", p[0]);
	ret("fits", splice(p[0], NULL, fd, NULL, 60000, 0));
	peer_show("got", "udp_recv %d", id);
	show_fill("left", p[0]);
	ret("shut", shutdown(fd, SHUT_WR));
	ret("splice", splice(p[0], NULL, fd, NULL, 100, 0));
	show_fill("left", p[0]);
	fd = udp_server(port(1));
	ret("pipe", pipe(q));
	write(q[1], "abc", 3);
	ret("nowhere", splice(q[0], NULL, fd, NULL, 100, 0));
	show_fill("left", q[0]);
}

CASE(splice_from_socket)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), p[2];
	char b[64];

	ret("pipe", pipe(p));
	peer_ok("udp_text %d %d one", id, port(1));
	peer_ok("udp_text %d %d second", id, port(1));
	ret("one", splice(fd, NULL, p[1], NULL, 100, 0));
	show_fill("has", p[0]);
	ret("cut", splice(fd, NULL, p[1], NULL, 3, 0));
	ret("read", read(p[0], b, sizeof(b)));
	out("%.6s", b);
	ret("none", fcntl(fd, F_SETFL, O_NONBLOCK));
	ret("none", splice(fd, NULL, p[1], NULL, 100, 0));
	fcntl(fd, F_SETFL, 0);
	peer_ok("udp_send %d %d 0 1", id, port(1));
	ret("empty", splice(fd, NULL, p[1], NULL, 100, 0));
	peer_ok("udp_send %d %d 5000 1", id, port(1));
	ret("large", splice(fd, NULL, p[1], NULL, 100000, SPLICE_F_NONBLOCK));
	peer_go("after 40 udp_text %d %d late", id, port(1));
	ret("waits", splice(fd, NULL, p[1], NULL, 100, 0));
	out("%s", peer_reply());
	show_fill("has", p[0]);
	peer_ok("udp_text %d %d more", id, port(1));
	ret("offset", splice(fd, &(off64_t){0}, p[1], NULL, 100, 0));
	ret("more", splice(fd, NULL, p[1], NULL, 100, 0));
}

CASE(splice_to_a_full_pipe)
{
	static char page[4096];
	int id = peer_udp(port(0)), fd = udp_server(port(1)), p[2], n = 0;

	ret("pipe", pipe2(p, O_NONBLOCK));
	while (write(p[1], page, sizeof(page)) > 0)
		n++;
	out("pages=%d", n);
	peer_ok("udp_send %d %d 9000 1", id, port(1));
	settle_in(fd);
	ret("full", splice(fd, NULL, p[1], NULL, 100, 0));
	ret("read", read(p[0], page, sizeof(page)));
	ret("cut", splice(fd, NULL, p[1], NULL, 10000, 0));
	show_fill("has", p[0]);
	ret("gone", recv(fd, page, 1, MSG_DONTWAIT));
	close(p[0]);
	signal(SIGPIPE, SIG_IGN);
	ret("no_reader", splice(fd, NULL, p[1], NULL, 10000, 0));
}
