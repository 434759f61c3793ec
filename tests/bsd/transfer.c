/* transfer.c - reading and writing in all forms: read, readv, recv, recvfrom, recvmsg and their opposites,
 * with their flags. */
#include "bsd.h"

#include <limits.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

static void *volatile null_pointer; /* hides a NULL from the compiler */
static volatile int minus_one = -1;

static void fed(struct conn c, const char *word)
{
	peer_ok("text %d %s", c.id, word);
	settle_bytes(c.fd, (int)strlen(word));
}

CASE_BOTH(every_reader)
{
	struct conn c = pair();
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	char b[8] = "", d[8] = "";
	struct iovec iov[2] = {{b, 1}, {d, 2}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

	fed(c, "abcdefghijklmnopqrst");
	ret("read", read(c.fd, b, 3));
	out("%s", b);
	ret("recv", recv(c.fd, b, 3, 0));
	out("%s", b);
	memset(&a, 0xee, sizeof(a));
	ret("recvfrom", recvfrom(c.fd, b, 3, 0, SA(a), &len));
	out("%s len=%u", b, len);
	ret("readv", readv(c.fd, iov, 2));
	out("%.1s %s", b, d);
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	out("%.1s %s flags=%x namelen=%u controllen=%zu", b, d, m.msg_flags, m.msg_namelen, m.msg_controllen);
	ret("rest", recv(c.fd, b, 8, 0));
	out("%.5s", b);
}

CASE_BOTH(every_writer)
{
	struct conn c = pair();
	struct sockaddr_in a = addr_nobody(9);
	struct iovec iov[3] = {{"gh", 2}, {NULL, 0}, {"i", 1}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 3};

	ret("write", write(c.fd, "abc", 3));
	ret("send", send(c.fd, "def", 3, 0));
	ret("writev", writev(c.fd, iov, 3));
	ret("sendmsg", sendmsg(c.fd, &m, 0));
	ret("sendto", sendto(c.fd, "xyz", 3, 0, NULL, 0));
	ret("sendto_addr", sendto(c.fd, "uvw", 3, 0, SA(a), sizeof(a)));
	m.msg_name = &a;
	m.msg_namelen = sizeof(a);
	ret("sendmsg_addr", sendmsg(c.fd, &m, 0));
	peer_show("got", "show %d 21", c.id);
}

CASE_BOTH(peek)
{
	struct conn c = pair();
	char b[8] = "";
	int n;

	fed(c, "abcdef");
	ret("peek", recv(c.fd, b, 3, MSG_PEEK));
	out("%s", b);
	ret("peek", recv(c.fd, b, 6, MSG_PEEK));
	out("%s", b);
	ret("fionread", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	ret("recv", recv(c.fd, b, 2, 0));
	ret("peek", recv(c.fd, b, 8, MSG_PEEK));
	out("%.4s", b);
	ret("fionread", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	ret("recv", recv(c.fd, b, 8, 0));
	ret("peek", recv(c.fd, b, 8, MSG_PEEK | MSG_DONTWAIT));
}

CASE_BOTH(peek_across_packets)
{
	struct conn c = pair();
	char b[16] = "";

	fed(c, "abc");
	peer_ok("text %d def", c.id);
	settle_bytes(c.fd, 6);
	ret("peek", recv(c.fd, b, 16, MSG_PEEK));
	out("%s", b);
	ret("recv", recv(c.fd, b, 4, 0));
	ret("peek", recv(c.fd, b, 16, MSG_PEEK));
	out("%.2s", b);
}

CASE_BOTH(waitall)
{
	struct conn c = pair();
	char b[16] = "";

	peer_ok("text %d abc", c.id);
	peer_go("after 100 text %d defghi", c.id);
	ret("waitall", recv(c.fd, b, 8, MSG_WAITALL));
	out("%s", b);
	ret("rest", recv(c.fd, b, 8, 0));
	peer_reply();
	peer_ok("text %d xy", c.id);
	peer_ok("close %d", c.id);
	ret("at_end", recv(c.fd, b, 8, MSG_WAITALL));
	ret("eof", recv(c.fd, b, 8, MSG_WAITALL));
}

CASE_BOTH(waitall_reset)
{
	struct conn c = pair();
	char b[16] = "";

	fed(c, "abc");
	peer_go("after 100 reset %d", c.id);
	ret("waitall", recv(c.fd, b, 8, MSG_WAITALL));
	ret("then", recv(c.fd, b, 8, 0));
	ret("then", recv(c.fd, b, 8, 0));
}

CASE_BOTH(waitall_peek)
{
	struct conn c = pair();
	char b[16] = "";

	fed(c, "abc");
	peer_go("after 100 text %d def", c.id);
	ret("waitall_peek", recv(c.fd, b, 6, MSG_WAITALL | MSG_PEEK));
	settle_bytes(c.fd, 6);
	ret("recv", recv(c.fd, b, 16, 0));
}

CASE_BOTH(waitall_recvmsg)
{
	struct conn c = pair();
	char b[3], d[4];
	struct iovec iov[2] = {{b, 3}, {d, 4}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

	peer_ok("text %d abc", c.id);
	peer_go("after 100 text %d defg", c.id);
	ret("recvmsg", recvmsg(c.fd, &m, MSG_WAITALL));
	out("%.3s %.4s flags=%x", b, d, m.msg_flags);
}

CASE_BOTH(trunc_discards)
{
	struct conn c = pair();
	char b[8] = "------";

	fed(c, "abcdef");
	ret("trunc", recv(c.fd, b, 4, MSG_TRUNC));
	out("%.6s", b);
	ret("rest", recv(c.fd, b, 8, 0));
	out("%.2s", b);
	fed(c, "abcdef");
	ret("null", recv(c.fd, NULL, 3, MSG_TRUNC));
	ret("rest", recv(c.fd, b, 8, 0));
	out("%.3s", b);
}

CASE_BOTH(nothing_wanted)
{
	struct conn c = pair();
	struct iovec iov = {NULL, 0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 0};
	char b[4];

	ret("read", read(c.fd, b, 0));
	ret("readv", readv(c.fd, &iov, 1));
	ret("readv_none", readv(c.fd, &iov, 0));
	ret("recvmsg", recvmsg(c.fd, &m, MSG_DONTWAIT));
	ret("write", write(c.fd, b, 0));
	ret("writev", writev(c.fd, &iov, 1));
	ret("writev_none", writev(c.fd, &iov, 0));
	ret("send", send(c.fd, b, 0, 0));
	ret("sendmsg", sendmsg(c.fd, &m, 0));
	fed(c, "abc");
	ret("read", read(c.fd, b, 0));
	ret("recv", recv(c.fd, b, 0, 0));
	ret("rest", read(c.fd, b, 4));
	peer_ok("close %d", c.id);
	settle(c.fd, POLLRDHUP);
	ret("read_at_end", read(c.fd, b, 0));
	ret("write_at_end", write(c.fd, b, 0));
}

CASE_BOTH(bad_pointers)
{
	struct conn c = pair();
	struct iovec iov[2] = {{null_pointer, 4}, {null_pointer, 4}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 1};

	ret("write", write(c.fd, null_pointer, 4));
	ret("send", send(c.fd, null_pointer, 4, 0));
	ret("writev", writev(c.fd, iov, 2));
	ret("sendmsg", sendmsg(c.fd, &m, 0));
	ret("sendmsg_null", sendmsg(c.fd, null_pointer, 0));
	ret("recvmsg_null", recvmsg(c.fd, null_pointer, MSG_DONTWAIT));
	ret("readv_null", readv(c.fd, null_pointer, 1));
	ret("writev_null", writev(c.fd, null_pointer, 1));
	fed(c, "abc");
	ret("read", read(c.fd, null_pointer, 4));
	ret("recv", recv(c.fd, null_pointer, 4, 0));
	ret("readv", readv(c.fd, iov, 2));
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	ret("still", ioctl(c.fd, FIONREAD, &m.msg_flags));
	out("n=%d", m.msg_flags);
}

CASE_BOTH(bad_counts)
{
	static struct iovec many[IOV_MAX + 1];
	struct conn c = pair();
	struct iovec iov[2] = {{"a", 1}, {"b", SIZE_MAX}};
	struct msghdr m = {.msg_iov = many, .msg_iovlen = IOV_MAX + 1};

	ret("writev_negative", writev(c.fd, iov, minus_one));
	ret("readv_negative", readv(c.fd, iov, minus_one));
	ret("writev_many", writev(c.fd, many, IOV_MAX + 1));
	ret("readv_many", readv(c.fd, many, IOV_MAX + 1));
	ret("sendmsg_many", sendmsg(c.fd, &m, 0));
	ret("recvmsg_many", recvmsg(c.fd, &m, MSG_DONTWAIT));
	ret("writev_overflow", writev(c.fd, iov, 2));
	ret("writev_max", writev(c.fd, many, IOV_MAX));
}

CASE_BOTH(many_pieces)
{
	struct conn c = pair();
	static uint8_t data[IOV_MAX * 3];
	static struct iovec iov[IOV_MAX];

	pattern_fill(data, 0, sizeof(data));
	for (int i = 0; i < IOV_MAX; i++)
		iov[i] = (struct iovec){data + i * 3, 3};
	ret("writev", writev(c.fd, iov, IOV_MAX));
	peer_show("peer", "recv %d %zu", c.id, sizeof(data));
	memset(data, 0, sizeof(data));
	peer_ok("send %d %zu", c.id, sizeof(data));
	settle_bytes(c.fd, sizeof(data));
	ret("readv", readv(c.fd, iov, IOV_MAX));
	out("ok=%d", pattern_ok(data, 0, sizeof(data)));
}

CASE_BOTH(queues_are_counted)
{
	struct conn c = pair();
	int n = -1;
	char b[4];

	ret("inq", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	fed(c, "abcdef");
	ret("inq", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	ret("recv", recv(c.fd, b, 4, 0));
	ret("inq", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	ret("null", ioctl(c.fd, FIONREAD, null_pointer));
	ret("outq", ioctl(c.fd, SIOCOUTQ, &n));
	out("n=%d", n);
	peer_ok("close %d", c.id);
	settle(c.fd, POLLRDHUP);
	ret("inq_at_end", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	ret("recv", recv(c.fd, b, 4, 0));
	ret("inq_empty", ioctl(c.fd, FIONREAD, &n));
	out("n=%d", n);
	ret("unknown", ioctl(c.fd, 0x1234, &n));
}

CASE(queues_of_others)
{
	int n = -1;

	ret("fresh_in", ioctl(tcp_socket(), FIONREAD, &n));
	ret("fresh_out", ioctl(tcp_socket(), SIOCOUTQ, &n));
	ret("listen_in", ioctl(listener(port(0)), FIONREAD, &n));
	ret("listen_out", ioctl(listener(port(1)), SIOCOUTQ, &n));
}

CASE_BOTH(out_queue_of_unread)
{
	struct conn c = pair_narrow();
	size_t n = fill(c.fd, 0);
	int left = 0;

	ret("outq", ioctl(c.fd, SIOCOUTQ, &left));
	out("some=%d", left > 0 && (size_t)left <= n);
	peer_go("recv %d %zu", c.id, n);
	peer_reply();
	for (int i = 0; i < 500 && left; i++) {
		nap_ms(2);
		ioctl(c.fd, SIOCOUTQ, &left);
	}
	out("left=%d", left);
}

CASE_BOTH(odd_flags)
{
	struct conn c = pair();
	char b[8] = "";

	ret("more", send(c.fd, "ab", 2, MSG_MORE));
	ret("eor", send(c.fd, "cd", 2, MSG_EOR));
	ret("confirm", send(c.fd, "ef", 2, MSG_CONFIRM));
	ret("dontroute", send(c.fd, "gh", 2, MSG_DONTROUTE));
	peer_show("got", "show %d 8", c.id);
	ret("errqueue", recv(c.fd, b, 8, MSG_ERRQUEUE));
	ret("oob", recv(c.fd, b, 8, MSG_OOB));
	fed(c, "abc");
	ret("cmsg_cloexec", recv(c.fd, b, 2, MSG_CMSG_CLOEXEC));
	ret("high_bit", recv(c.fd, b, 8, 0x20000));
}

CASE_BOTH(more_is_sent_at_last)
{
	struct conn c = pair();

	ret("more", send(c.fd, "ab", 2, MSG_MORE));
	ret("last", send(c.fd, "cd", 2, 0));
	peer_show("got", "show %d 4", c.id);
	ret("more", send(c.fd, "ef", 2, MSG_MORE));
	ret("shutdown", shutdown(c.fd, SHUT_WR));
	peer_show("got", "show %d 4", c.id);
}

CASE_BOTH(corked)
{
	struct conn c = pair();
	int on = 1, off = 0;

	ret("cork", setsockopt(c.fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)));
	ret("write", write(c.fd, "ab", 2));
	ret("write", write(c.fd, "cd", 2));
	ret("uncork", setsockopt(c.fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off)));
	peer_show("got", "show %d 4", c.id);
	ret("cork", setsockopt(c.fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)));
	ret("write", write(c.fd, "ef", 2));
	peer_show("after_a_while", "show %d 2", c.id);
}

CASE_BOTH(control_message_room)
{
	struct conn c = pair();
	char b[8], room[64];
	struct iovec iov = {b, sizeof(b)};
	struct sockaddr_in a;
	struct msghdr m = {.msg_iov = &iov,
	        .msg_iovlen = 1,
	        .msg_control = room,
	        .msg_controllen = sizeof(room),
	        .msg_name = &a,
	        .msg_namelen = sizeof(a)};

	fed(c, "abcdef");
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	out("control=%zu name=%u flags=%x", m.msg_controllen, m.msg_namelen, m.msg_flags);
}

CASE_BOTH(lowat)
{
	struct conn c = pair();
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	int four = 4;
	char b[8];

	ret("lowat", setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &four, sizeof(four)));
	fed(c, "ab");
	ret("poll", poll(&p, 1, 50));
	peer_ok("text %d cd", c.id);
	rev("poll", settle(c.fd, POLLIN));
	ret("recv", recv(c.fd, b, 8, 0));
}

/* Readiness follows SO_RCVLOWAT in every kind of wait, and changes when it does. */
CASE_BOTH(lowat_in_waits)
{
	struct conn c = pair();
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET}, got;
	int ep = epoll_create1(0), lt = epoll_create1(0), v = 5;
	struct pollfd p = {.fd = c.fd, .events = POLLIN};
	struct timeval tv = {0, 20000};
	socklen_t len = sizeof(v);
	char b[16];
	fd_set rd;

	epoll_ctl(ep, EPOLL_CTL_ADD, c.fd, &ev);
	ev.events = EPOLLIN;
	epoll_ctl(lt, EPOLL_CTL_ADD, c.fd, &ev);
	ret("lowat", setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)));
	fed(c, "abc");
	ret("poll", poll(&p, 1, 20));
	FD_ZERO(&rd);
	FD_SET(c.fd, &rd);
	ret("select", select(c.fd + 1, &rd, NULL, NULL, &tv));
	ret("edge", epoll_wait(ep, &got, 1, 20));
	ret("level", epoll_wait(lt, &got, 1, 20));
	ret("dont", recv(c.fd, b, 1, MSG_DONTWAIT));
	fed(c, "defgh");
	ret("poll", poll(&p, 1, 8000));
	ret("edge", epoll_wait(ep, &got, 1, 8000));
	ret("edge", epoll_wait(ep, &got, 1, 0));
	ret("level", epoll_wait(lt, &got, 1, 8000));
	ret("recv", recv(c.fd, b, 4, 0));
	ret("poll", poll(&p, 1, 20));
	ret("level", epoll_wait(lt, &got, 1, 0));
	v = 2;
	ret("lowat", setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)));
	ret("poll", poll(&p, 1, 8000));
	ret("level", epoll_wait(lt, &got, 1, 8000));
	ret("recv", recv(c.fd, b, 16, 0));
	ret("get", getsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, &len));
	out("v=%d", v);
	v = 0;
	ret("zero", setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)));
	getsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, &len);
	out("v=%d", v);
	v = 10;
	setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v));
	fed(c, "xyz");
	peer_ok("shut %d 1", c.id);
	rev("end", settle(c.fd, POLLIN));
	ret("recv", recv(c.fd, b, 16, 0));
	ret("recv", recv(c.fd, b, 16, 0));
}

/* A blocking receive takes less than it could, and waits for as much as the option says. */
CASE_BOTH(lowat_of_a_blocking_receive)
{
	struct conn c = pair();
	int v = 6;
	char b[16];

	ret("lowat", setsockopt(c.fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)));
	peer_ok("after 50 send %d 6", c.id);
	ret("recv", recv(c.fd, b, 16, 0));
	fed(c, "123456789");
	ret("recv", recv(c.fd, b, 3, 0));
	ret("recv", recv(c.fd, b, 16, 0));
}

/* What MSG_MORE holds back goes with the next send, with TCP_NODELAY, or in the end. */
CASE_BOTH(more_holds_back)
{
	struct conn c = pair();
	int one = 1;

	setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ret("more", send(c.fd, "ab", 2, MSG_MORE));
	nap_ms(60);
	peer_show("held", "peek %d", c.id);
	ret("send", send(c.fd, "cd", 2, 0));
	peer_show("peer", "show %d 4", c.id);
	ret("more", send(c.fd, "ef", 2, MSG_MORE));
	ret("nodelay", setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	nap_ms(60);
	peer_show("pushed", "peek %d", c.id);
	peer_show("peer", "show %d 2", c.id);
	ret("more", send(c.fd, "gh", 2, MSG_MORE));
	peer_show("in_time", "show %d 2", c.id);
	ret("more", send(c.fd, "ij", 2, MSG_MORE));
	close(c.fd);
	peer_show("peer", "show %d 2", c.id);
	peer_show("end", "recv %d 1", c.id);
}

CASE_BOTH(peek_and_waitall)
{
	struct conn c = pair();
	char b[16] = "";

	fed(c, "abc");
	peer_ok("after 50 text %d defg", c.id);
	ret("both", recv(c.fd, b, 6, MSG_PEEK | MSG_WAITALL));
	out("%s", b);
	ret("dont", recv(c.fd, b, 16, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT));
	ret("recv", recv(c.fd, b, 3, 0));
	peer_ok("after 50 shut %d 1", c.id);
	ret("both", recv(c.fd, b, 16, MSG_PEEK | MSG_WAITALL));
	ret("trunc", recv(c.fd, NULL, 2, MSG_TRUNC));
	ret("recv", recv(c.fd, b, 16, MSG_WAITALL));
	ret("peek", recv(c.fd, b, 16, MSG_PEEK | MSG_WAITALL));
}
