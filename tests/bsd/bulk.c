/* bulk.c - much data and many connections: 10 MB each way, sendfile, 500 short connections from either side.
 */
#include "bsd.h"

#include <sys/mman.h>
#include <sys/sendfile.h>

enum { SIZE = 10 << 20, SHORT_ONES = 500, SHORT_BYTES = 100 };

static void show_all(const char *what, const char *reply, size_t size)
{
	char want[64];

	snprintf(want, sizeof(want), "ok %zu more match", size);
	out("%s=%s", what, strcmp(reply, want) ? reply : "all");
}

/* Sends the pattern in parts of a changing size. */
static size_t send_all(int fd, size_t size)
{
	static uint8_t buf[100000];
	size_t done = 0, part = 1;

	while (done < size) {
		size_t want = size - done < part ? size - done : part, off = 0;

		pattern_fill(buf, done, want);
		while (off < want) {
			ssize_t n = send(fd, buf + off, want - off, 0);

			if (n < 0 && errno != EAGAIN)
				return done + off;
			if (n < 0)
				poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 10000);
			else
				off += (size_t)n;
		}
		done += want;
		part = part * 7 % sizeof(buf) + 1;
	}
	return done;
}

static size_t recv_all(int fd, size_t size, bool *is_match)
{
	static uint8_t buf[100000];
	size_t done = 0, part = 1;

	*is_match = true;
	while (done < size) {
		ssize_t n = recv(fd, buf, part, 0);

		if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 10000);
			continue;
		}
		if (n <= 0)
			break;
		*is_match = *is_match && pattern_ok(buf, done, (size_t)n);
		done += (size_t)n;
		part = part * 7 % sizeof(buf) + 1;
	}
	return done;
}

CASE_BOTH(sent_blocking)
{
	struct conn c = pair();

	peer_go("recv %d %d", c.id, SIZE);
	out("sent=%zu", send_all(c.fd, SIZE));
	show_all("peer", peer_reply(), SIZE);
}

CASE_BOTH(sent_nonblocking)
{
	struct conn c = pair();

	set_nonblock(c.fd, true);
	peer_go("recv %d %d", c.id, SIZE);
	out("sent=%zu", send_all(c.fd, SIZE));
	show_all("peer", peer_reply(), SIZE);
}

CASE_BOTH(received_blocking)
{
	struct conn c = pair();
	bool is_match;

	peer_go("send %d %d", c.id, SIZE);
	out("got=%zu", recv_all(c.fd, SIZE, &is_match));
	out("match=%d", is_match);
	peer_reply();
}

CASE_BOTH(received_nonblocking)
{
	struct conn c = pair();
	bool is_match;

	set_nonblock(c.fd, true);
	peer_go("send %d %d", c.id, SIZE);
	out("got=%zu", recv_all(c.fd, SIZE, &is_match));
	out("match=%d", is_match);
	peer_reply();
}

CASE_BOTH(received_after_a_pause)
{
	struct conn c = pair();
	bool is_match;

	peer_go("send %d %d", c.id, SIZE);
	nap_ms(700);
	out("got=%zu", recv_all(c.fd, SIZE, &is_match));
	out("match=%d", is_match);
	peer_reply();
}

CASE_BOTH(both_ways_at_once)
{
	struct conn c = pair();
	size_t sent = 0, got = 0;
	static uint8_t buf[65536];
	bool is_match = true;

	set_nonblock(c.fd, true);
	peer_go("echo %d", c.id);
	while (got < SIZE) {
		struct pollfd p = {.fd = c.fd, .events = (short)(POLLIN | (sent < SIZE ? POLLOUT : 0))};
		ssize_t n;

		if (poll(&p, 1, 15000) <= 0)
			break;
		if (p.revents & POLLOUT) {
			size_t want = SIZE - sent < sizeof(buf) ? SIZE - sent : sizeof(buf);

			pattern_fill(buf, sent, want);
			n = send(c.fd, buf, want, 0);
			if (n > 0)
				sent += (size_t)n;
		}
		if (p.revents & POLLIN) {
			n = recv(c.fd, buf, sizeof(buf), 0);
			if (n <= 0)
				break;
			is_match = is_match && pattern_ok(buf, got, (size_t)n);
			got += (size_t)n;
		}
	}
	out("sent=%zu got=%zu match=%d", sent, got, is_match);
	shutdown(c.fd, SHUT_WR);
	out("peer=%s", peer_reply());
}

CASE_BOTH(single_bytes)
{
	struct conn c = pair();
	bool is_ok = true;

	peer_go("recv %d 20000", c.id);
	for (size_t i = 0; i < 20000; i++) {
		uint8_t b = pattern(i);

		is_ok = is_ok && send(c.fd, &b, 1, 0) == 1;
	}
	out("sent=%d", is_ok);
	show_all("peer", peer_reply(), 20000);
}

/* A file of the pattern. */
static int file_of(size_t size)
{
	int fd = memfd_create("bulk", 0);
	uint8_t *p;

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		die("memfd: %s", strerror(errno));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	pattern_fill(p, 0, size);
	munmap(p, size);
	return fd;
}

CASE_BOTH(sendfile_whole)
{
	struct conn c = pair();
	int file = file_of(3 << 20);
	off_t off = 0;
	size_t left = 3 << 20;

	peer_go("recv %d %zu", c.id, left);
	while (left) {
		ssize_t n = sendfile(c.fd, file, &off, left);

		if (n <= 0) {
			ret("sendfile", n);
			break;
		}
		left -= (size_t)n;
	}
	out("off=%ld position=%ld", (long)off, (long)lseek(file, 0, SEEK_CUR));
	show_all("peer", peer_reply(), 3 << 20);
}

CASE_BOTH(sendfile_forms)
{
	struct conn c = pair();
	int file = file_of(10000), fds[2];
	off_t off = 0;
	off64_t off64 = 8000;
	char b[4];

	ret("position", sendfile(c.fd, file, NULL, 4000));
	out("position=%ld", (long)lseek(file, 0, SEEK_CUR));
	off = 4000;
	ret("offset", sendfile(c.fd, file, &off, 4000));
	out("off=%ld position=%ld", (long)off, (long)lseek(file, 0, SEEK_CUR));
	ret("sendfile64", sendfile64(c.fd, file, &off64, 9000));
	out("off=%ld", (long)off64);
	show_all("peer", peer("recv %d 10000", c.id), 10000);
	ret("at_end", sendfile(c.fd, file, &off64, 10));
	ret("none", sendfile(c.fd, file, &off, 0));
	off = -1;
	ret("negative", sendfile(c.fd, file, &off, 10));
	ret("bad_in", sendfile(c.fd, 9999, NULL, 10));
	ret("bad_out", sendfile(9999, file, NULL, 10));
	ret("from_socket", sendfile(c.fd, c.fd, NULL, 10));
	if (pipe(fds) < 0)
		die("pipe");
	off = 0;
	ret("pipe_with_offset", sendfile(c.fd, fds[0], &off, 10));
	shutdown(c.fd, SHUT_WR);
	signal_count_on(SIGPIPE, true);
	ret("shut", sendfile(c.fd, file, &off, 10));
	out("sigpipe=%d off=%ld", signal_count, (long)off);
	ret("recv", recv(c.fd, b, 4, MSG_DONTWAIT));
}

CASE_BOTH(sendfile_nonblocking)
{
	struct conn c = pair_narrow();
	int file = file_of(SIZE), misses = 0;
	size_t done = 0;
	long rc;
	off_t off = 0;

	set_nonblock(c.fd, true);
	while (misses < 50 && done < SIZE) {
		rc = sendfile(c.fd, file, &off, SIZE - done);
		if (rc > 0) {
			done += (size_t)rc;
			misses = 0;
		} else {
			misses++;
			nap_ms(2);
		}
	}
	out("last=%s part=%d off=%d", rc < 0 ? strerrorname_np(errno) : "none", done > 0 && done < SIZE,
	        (size_t)off == done);
	show_all("peer", peer("recv %d %zu", c.id, done), done);
}

CASE(short_connections_accepted)
{
	int l = listener(port(0));
	char buf[SHORT_BYTES];
	int good = 0;

	peer_go("churn %d %d %d", port(0), SHORT_ONES, SHORT_BYTES);
	for (int i = 0; i < SHORT_ONES; i++) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0 || recv(fd, buf, sizeof(buf), MSG_WAITALL) != sizeof(buf) ||
		        send(fd, buf, sizeof(buf), 0) != sizeof(buf)) {
			ret("failed", -1);
			break;
		}
		good += recv(fd, buf, 1, 0) == 0;
		close(fd);
	}
	out("good=%d peer=%s", good, peer_reply());
}

CASE(short_connections_connected)
{
	struct sockaddr_in a;
	char buf[SHORT_BYTES];
	int id, at, good = 0;

	sscanf(peer("listen 0 64 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	peer_go("gulp %d %d %d", id, SHORT_ONES, SHORT_BYTES);
	pattern_fill(buf, 0, sizeof(buf));
	for (int i = 0; i < SHORT_ONES; i++) {
		int fd = tcp_socket();
		char answer;

		if (connect(fd, SA(a), sizeof(a)) < 0 || send(fd, buf, sizeof(buf), 0) != sizeof(buf) ||
		        recv(fd, &answer, 1, 0) != 1) {
			ret("failed", -1);
			break;
		}
		good += answer == 'k';
		close(fd);
	}
	out("good=%d peer=%s", good, peer_reply());
}

CASE(many_open_at_once)
{
	int l = listener(port(0)), fds[40], ids[40], good = 0;
	char b[4];

	listen(l, 64);
	for (int i = 0; i < 40; i++)
		ids[i] = peer_connect(port(0));
	for (int i = 0; i < 40; i++)
		fds[i] = accept(l, NULL, NULL);
	for (int i = 0; i < 40; i++)
		peer_ok("text %d abc", ids[i]);
	for (int i = 39; i >= 0; i--)
		good += recv(fds[i], b, 3, MSG_WAITALL) == 3 && send(fds[i], b, 3, 0) == 3;
	for (int i = 0; i < 40; i++)
		good += !strcmp(peer("show %d 3", ids[i]), "ok more abc");
	out("good=%d", good);
}
