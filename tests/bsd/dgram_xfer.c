/* dgram_xfer.c - moving datagrams: boundaries, sizes, flags, several at a time. */
#include "datagram.h"

#include <sys/ioctl.h>
#include <linux/sockios.h>

CASE(boundaries)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));

	peer_ok("udp_text %d %d one", id, port(1));
	peer_ok("udp_text %d %d twotwo", id, port(1));
	peer_ok("udp_send %d %d 0", id, port(1));
	peer_ok("udp_text %d %d four", id, port(1));
	for (int i = 0; i < 4; i++)
		recv_text("recv", fd, 0);
	recv_text("none", fd, MSG_DONTWAIT);
}

CASE(zero_length)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	char b[4];

	ret("send", send(fd, "", 0, 0));
	peer_show("got", "udp_recv %d", id);
	ret("write", write(fd, "", 0));
	peer_show("got", "udp_recv %d", id);
	ret("sendto", sendto(fd, NULL, 0, 0, NULL, 0));
	peer_show("got", "udp_recv %d", id);
	peer_go("udp_echo %d 2", id);
	ret("send", send(fd, "", 0, 0));
	ret("recv", recv(fd, b, sizeof(b), 0));
	ret("send", send(fd, "abc", 3, 0));
	settle_in(fd);
	ret("read0", read(fd, b, 0));
	ret("recv0", recv(fd, b, 0, 0));
	ret("none", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	out("%s", peer_reply());
}

CASE(truncation)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	char b[16] = "";
	struct iovec v = {b, 4};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	peer_ok("udp_text %d %d abcdefgh", id, port(1));
	ret("recv", recv(fd, b, 4, 0));
	out("%.4s", b);
	peer_ok("udp_text %d %d abcdefgh", id, port(1));
	ret("trunc", recv(fd, b, 4, MSG_TRUNC));
	peer_ok("udp_text %d %d abcdefgh", id, port(1));
	ret("msg", recvmsg(fd, &m, 0));
	out("flags=%x", m.msg_flags);
	peer_ok("udp_text %d %d abcd", id, port(1));
	ret("msg", recvmsg(fd, &m, 0));
	out("flags=%x", m.msg_flags);
	peer_ok("udp_text %d %d abcdefgh", id, port(1));
	ret("msg", recvmsg(fd, &m, MSG_TRUNC));
	out("flags=%x", m.msg_flags);
	peer_ok("udp_text %d %d abcdefgh", id, port(1));
	settle_in(fd);
	ret("peek", recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC));
	ret("recv", recv(fd, b, sizeof(b), 0));
}

CASE(peek)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));

	peer_ok("udp_text %d %d one", id, port(1));
	peer_ok("udp_text %d %d two", id, port(1));
	recv_text("peek", fd, MSG_PEEK);
	recv_text("peek", fd, MSG_PEEK);
	recv_text("recv", fd, 0);
	recv_text("peek", fd, MSG_PEEK);
	recv_text("recv", fd, 0);
	recv_text("none", fd, MSG_PEEK | MSG_DONTWAIT);
}

CASE(vectors)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	char a[3] = "", b[4] = "", c[9] = "";
	struct iovec v[3] = {{"ab", 2}, {"", 0}, {"cdefg", 5}}, w[3] = {{a, 2}, {b, 3}, {c, 8}};

	peer_go("udp_echo %d 2", id);
	ret("writev", writev(fd, v, 3));
	ret("readv", readv(fd, w, 3));
	out("%s,%s,%s", a, b, c);
	ret("writev", writev(fd, v, 3));
	ret("readv", readv(fd, w, 2));
	out("%s,%s", a, b);
	out("%s", peer_reply());
	ret("none", writev(fd, v, 0));
	peer_show("got", "udp_recv %d", id);
}

CASE(sizes_out)
{
	static const size_t sizes[] = {1, 7, 8, 9, 1471, 1472, 1473, 2952, 8000, 16320, 16384, 30000, 65507};
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), big = 1 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		send_size("send", fd, sizes[i], 0);
		peer_show("got", "udp_recv %d", id);
	}
	send_size("over", fd, 65508, 0);
	send_size("over", fd, 65535, 0);
	send_size("over", fd, 65536, 0);
}

CASE(sizes_in)
{
	static const int sizes[] = {1, 7, 8, 9, 1471, 1472, 1473, 2952, 8000, 16384, 30000, 65507};
	static char b[70000];
	int id = peer_udp(port(0)), fd = udp_server(port(1));

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		long n;

		peer_ok("udp_send %d %d %d", id, port(1), sizes[i]);
		n = ret("recv", recv(fd, b, sizeof(b), 0));
		out("%d", n >= 0 && pattern_ok(b, 0, (size_t)n));
	}
}

CASE(many_out)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), bad = 0;

	peer_go("udp_echo %d 2000", id);
	for (int i = 0; i < 2000; i++) {
		char b[64];
		int n = snprintf(b, sizeof(b), "datagram %d", i), got;
		char back[64];

		if (send(fd, b, (size_t)n, 0) != n)
			bad++;
		got = (int)recv(fd, back, sizeof(back), 0);
		if (got != n || memcmp(b, back, (size_t)n))
			bad++;
	}
	out("bad=%d %s", bad, peer_reply());
}

CASE(many_in_order)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), bad = 0;
	static char b[2000];

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 10; i++)
			peer_ok("udp_send %d %d %d 10", id, port(1), 100 + i);
		for (int i = 0; i < 100; i++) {
			long n = recv(fd, b, sizeof(b), 0);

			bad += n != 100 + i / 10 || !pattern_ok(b, 0, (size_t)n);
		}
	}
	out("bad=%d", bad);
}

CASE(mtu_discover_do)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), how = IP_PMTUDISC_DO, v = 0;
	socklen_t len = sizeof(v);

	ret("set", setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(how)));
	send_size("send", fd, 1472, 0);
	peer_show("got", "udp_recv %d", id);
	send_size("over", fd, 1473, 0);
	ret("mtu", getsockopt(fd, IPPROTO_IP, IP_MTU, &v, &len));
	out("%d", v);
	how = IP_PMTUDISC_DONT;
	ret("set", setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(how)));
	send_size("send", fd, 1473, 0);
	peer_show("got", "udp_recv %d", id);
}

CASE(more_joins)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	ret("more", send(fd, "ab", 2, MSG_MORE));
	ret("more", send(fd, "", 0, MSG_MORE));
	ret("more", send(fd, "cd", 2, MSG_MORE));
	peer_show("quiet", "udp_quiet %d 30", id);
	ret("last", send(fd, "ef", 2, 0));
	peer_show("got", "udp_show %d", id);
	ret("next", send(fd, "g", 1, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(more_to_an_address)
{
	int id = peer_udp(port(0)), other = peer_udp(port(1)), fd = udp_server(port(2));
	struct sockaddr_in a = addr_peer(port(0)), b = addr_peer(port(1));

	ret("more", sendto(fd, "ab", 2, MSG_MORE, SA(a), sizeof(a)));
	ret("more", send(fd, "cd", 2, MSG_MORE));
	ret("last", sendto(fd, "ef", 2, 0, SA(b), sizeof(b)));
	peer_show("got", "udp_show %d", id);
	peer_show("quiet", "udp_quiet %d 30", other);
}

CASE(more_too_long)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), big = 1 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	send_size("more", fd, 40000, MSG_MORE);
	send_size("over", fd, 40000, 0);
	ret("next", send(fd, "g", 1, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(cork)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), one = 1, zero = 0, v = -1;
	socklen_t len = sizeof(v);

	ret("cork", setsockopt(fd, IPPROTO_UDP, 1 /* UDP_CORK */, &one, sizeof(one)));
	ret("get", getsockopt(fd, IPPROTO_UDP, 1, &v, &len));
	out("%d", v);
	ret("send", send(fd, "ab", 2, 0));
	ret("send", send(fd, "cd", 2, 0));
	peer_show("quiet", "udp_quiet %d 30", id);
	ret("uncork", setsockopt(fd, IPPROTO_UDP, 1, &zero, sizeof(zero)));
	peer_show("got", "udp_show %d", id);
	ret("send", send(fd, "e", 1, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(flags_that_change_nothing)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	char b[4];

	ret("confirm", send(fd, "a", 1, MSG_CONFIRM));
	peer_show("got", "udp_show %d", id);
	ret("nosignal", send(fd, "b", 1, MSG_NOSIGNAL));
	peer_show("got", "udp_show %d", id);
	ret("dontroute", send(fd, "c", 1, MSG_DONTROUTE));
	peer_show("got", "udp_show %d", id);
	ret("errqueue", recv(fd, b, sizeof(b), MSG_ERRQUEUE));
	ret("errqueue", recv(fd, b, sizeof(b), MSG_ERRQUEUE | MSG_DONTWAIT));
	peer_go("udp_echo %d 2", id);
	ret("send", send(fd, "ab", 2, 0));
	ret("waitall", recv(fd, b, sizeof(b), MSG_WAITALL));
	ret("send", send(fd, "ab", 2, 0));
	ret("oob", recv(fd, b, sizeof(b), MSG_OOB));
	out("%s", peer_reply());
}

CASE(timeouts)
{
	struct timeval tv = {.tv_usec = 150000};
	int fd = udp_server(port(0)), wild = udp_wild(port(1));
	uint64_t t;
	char b[4];

	ret("set", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	t = now_ms();
	ret("recv", recv(fd, b, sizeof(b), 0));
	show_time("took", t, 150);
	ret("set", setsockopt(wild, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	t = now_ms();
	ret("recv", recv(wild, b, sizeof(b), 0));
	show_time("took", t, 150);
	t = now_ms();
	ret("dont", recv(wild, b, sizeof(b), MSG_DONTWAIT));
	show_time("took", t, 0);
}

CASE(signals)
{
	int fd = udp_server(port(0)), wild = udp_wild(port(1));
	char b[4];

	signal_count_on(SIGALRM, false);
	alarm_ms(50);
	ret("recv", recv(fd, b, sizeof(b), 0));
	alarm_ms(50);
	ret("recv", recv(wild, b, sizeof(b), 0));
	out("signals=%d", (int)signal_count);
}

CASE(queue_sizes)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), v = -1;

	ret("inq", ioctl(fd, FIONREAD, &v));
	out("%d", v);
	peer_ok("udp_text %d %d abc", id, port(1));
	peer_ok("udp_text %d %d defgh", id, port(1));
	settle_in(fd);
	ret("inq", ioctl(fd, SIOCINQ, &v));
	out("%d", v);
	recv_text("recv", fd, 0);
	settle_in(fd);
	ret("inq", ioctl(fd, FIONREAD, &v));
	out("%d", v);
	nap_ms(50);
	ret("outq", ioctl(fd, SIOCOUTQ, &v));
	out("%d", v);
}

CASE(stamp)
{
	struct timeval tv = {0}, now;
	int id = peer_udp(port(0)), fd = udp_server(port(1));

	ret("none", ioctl(fd, SIOCGSTAMP, &tv));
	peer_ok("udp_text %d %d abc", id, port(1));
	recv_text("recv", fd, 0);
	ret("stamp", ioctl(fd, SIOCGSTAMP, &tv));
	gettimeofday(&now, NULL);
	out("near=%d", now.tv_sec - tv.tv_sec <= 2 && now.tv_sec >= tv.tv_sec);
}

CASE(bad_memory)
{
	struct sockaddr_in a = addr_peer(port(0));
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	char b[4] = "";

	ret("send", sendto(fd, NULL, 4, 0, SA(a), sizeof(a)));
	ret("addr", sendto(fd, b, 4, 0, SA(a), (socklen_t)-1));
	peer_show("quiet", "udp_quiet %d 20", id);
	ret("sendmsg", sendmsg(fd, NULL, 0));
	ret("recvmsg", recvmsg(fd, NULL, MSG_DONTWAIT));
}

CASE(mmsg_out)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), bad = 0;
	struct mmsghdr m[20];
	struct iovec v[20];
	char text[20][16];

	memset(m, 0, sizeof(m));
	for (int i = 0; i < 20; i++) {
		v[i] = (struct iovec){text[i], (size_t)sprintf(text[i], "message%d", i)};
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	ret("sendmmsg", sendmmsg(fd, m, 20, 0));
	for (int i = 0; i < 20; i++) {
		char want[64];

		bad += m[i].msg_len != v[i].iov_len;
		snprintf(want, sizeof(want), "message%d", i);
		bad += strstr(peer("udp_show %d", id), want) == NULL;
	}
	out("bad=%d", bad);
	ret("zero", sendmmsg(fd, m, 0, 0));
}

CASE(mmsg_out_both_sides)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), local = udp_local(port(2));
	struct sockaddr_in to[3] = {addr_peer(port(0)), addr_loopback(port(2)), addr_peer(0)};
	struct iovec v = {"abc", 3};
	struct mmsghdr m[3];

	memset(m, 0, sizeof(m));
	for (int i = 0; i < 3; i++)
		m[i].msg_hdr = (struct msghdr){
		        .msg_name = &to[i], .msg_namelen = sizeof(to[i]), .msg_iov = &v, .msg_iovlen = 1};
	ret("sendmmsg", sendmmsg(fd, m, 3, 0));
	peer_show("got", "udp_show %d", id);
	recv_text("got", local, 0);
	ret("first_bad", sendmmsg(fd, m + 2, 1, 0));
}

CASE(mmsg_in)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	struct timespec ts = {.tv_nsec = 100000000};
	struct sockaddr_in from[8];
	struct mmsghdr m[8];
	struct iovec v[8];
	char b[8][16];

	memset(m, 0, sizeof(m));
	memset(b, 0, sizeof(b));
	for (int i = 0; i < 8; i++) {
		v[i] = (struct iovec){b[i], 6};
		m[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
		        .msg_namelen = sizeof(from[i]),
		        .msg_iov = &v[i],
		        .msg_iovlen = 1};
	}
	ret("none", recvmmsg(fd, m, 8, MSG_DONTWAIT, NULL));
	peer_ok("udp_text %d %d one", id, port(1));
	peer_ok("udp_text %d %d twotwotwo", id, port(1));
	peer_ok("udp_send %d %d 0", id, port(1));
	settle_in(fd);
	nap_ms(30);
	ret("wait_one", recvmmsg(fd, m, 8, MSG_WAITFORONE, NULL));
	for (int i = 0; i < 3; i++) {
		out("%u,%s,flags=%x", m[i].msg_len, b[i], m[i].msg_hdr.msg_flags);
		show_addr("from", &from[i], m[i].msg_hdr.msg_namelen);
	}
	peer_ok("udp_text %d %d x", id, port(1));
	peer_ok("udp_text %d %d y", id, port(1));
	ret("two", recvmmsg(fd, m, 2, 0, NULL));
	out("%.1s%.1s", b[0], b[1]);
	peer_ok("udp_text %d %d z", id, port(1));
	peer_ok("after 150 udp_text %d %d late", id, port(1));
	ret("timed", recvmmsg(fd, m, 8, 0, &ts));
	ts.tv_nsec = -1;
	ret("bad_time", recvmmsg(fd, m, 8, 0, &ts));
}

CASE(mmsg_stream)
{
	struct conn c = pair();
	struct mmsghdr m[2];
	struct iovec v[2] = {{"abc", 3}, {"def", 3}};

	memset(m, 0, sizeof(m));
	m[0].msg_hdr.msg_iov = &v[0];
	m[1].msg_hdr.msg_iov = &v[1];
	m[0].msg_hdr.msg_iovlen = m[1].msg_hdr.msg_iovlen = 1;
	ret("sendmmsg", sendmmsg(c.fd, m, 2, 0));
	out("%u,%u", m[0].msg_len, m[1].msg_len);
	peer_show("got", "show %d 6", c.id);
	peer_ok("text %d wxyz", c.id);
	settle_bytes(c.fd, 4);
	v[0] = (struct iovec){(char[4]){0}, 2};
	v[1] = (struct iovec){(char[4]){0}, 2};
	ret("recvmmsg", recvmmsg(c.fd, m, 2, 0, NULL));
	out("%u,%u %.2s%.2s", m[0].msg_len, m[1].msg_len, (char *)v[0].iov_base, (char *)v[1].iov_base);
}

CASE(drops_past_the_buffer)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), small = 4096, got = 0, n;
	char b[2000];

	ret("set", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
	peer_ok("udp_send %d %d 1000 100", id, port(1));
	settle_in(fd);
	nap_ms(100);
	while ((n = (int)recv(fd, b, sizeof(b), MSG_DONTWAIT)) > 0)
		got++;
	out("some=%d not_all=%d", got > 0, got < 100);
	peer_ok("udp_text %d %d after", id, port(1));
	recv_text("recv", fd, 0);
}

CASE(small_send_buffer)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), small = 1;

	ret("set", setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	send_size("send", fd, 100, 0);
	peer_show("got", "udp_recv %d", id);
	send_size("send", fd, 1400, 0);
	peer_show("got", "udp_recv %d", id);
	for (int i = 0; i < 50; i++)
		if (send(fd, "x", 1, 0) != 1)
			out("at %d %s", i, strerrorname_np(errno));
	peer_show("got", "udp_recv %d", id);
}
