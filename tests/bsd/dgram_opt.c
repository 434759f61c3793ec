/* dgram_opt.c - options and control messages of datagram sockets. */
#include "datagram.h"

#include <net/if.h>

#ifndef IP_RECVORIGDSTADDR
#define IP_RECVORIGDSTADDR 20
#endif

static void get_int(const char *what, int fd, int level, int name)
{
	int v = -77;
	socklen_t len = sizeof(v);

	if (!ret(what, getsockopt(fd, level, name, &v, &len)))
		out("%d,len%u", v, len);
}

static void set_int(const char *what, int fd, int level, int name, int v)
{
	ret(what, setsockopt(fd, level, name, &v, sizeof(v)));
	get_int("get", fd, level, name);
}

static void every(int fd)
{
	get_int("type", fd, SOL_SOCKET, SO_TYPE);
	get_int("protocol", fd, SOL_SOCKET, SO_PROTOCOL);
	get_int("domain", fd, SOL_SOCKET, SO_DOMAIN);
	get_int("acceptconn", fd, SOL_SOCKET, SO_ACCEPTCONN);
	get_int("error", fd, SOL_SOCKET, SO_ERROR);
	get_int("mtu", fd, IPPROTO_IP, IP_MTU); /* before IP_TOS makes the kernel forget the route */
	set_int("broadcast", fd, SOL_SOCKET, SO_BROADCAST, 5);
	set_int("nocheck", fd, SOL_SOCKET, SO_NO_CHECK, 1);
	set_int("nocheck", fd, SOL_SOCKET, SO_NO_CHECK, 0);
	set_int("priority", fd, SOL_SOCKET, SO_PRIORITY, 3);
	set_int("sndbuf", fd, SOL_SOCKET, SO_SNDBUF, 20000);
	set_int("rcvbuf", fd, SOL_SOCKET, SO_RCVBUF, 20000);
	set_int("keepalive", fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int("tos", fd, IPPROTO_IP, IP_TOS, 0x10);
	set_int("ttl", fd, IPPROTO_IP, IP_TTL, 33);
	set_int("ttl", fd, IPPROTO_IP, IP_TTL, 256);
	set_int("mttl", fd, IPPROTO_IP, IP_MULTICAST_TTL, 9);
	set_int("mttl", fd, IPPROTO_IP, IP_MULTICAST_TTL, 300);
	set_int("mloop", fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
	set_int("mall", fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
	set_int("pktinfo", fd, IPPROTO_IP, IP_PKTINFO, 1);
	set_int("recvttl", fd, IPPROTO_IP, IP_RECVTTL, 1);
	set_int("recvtos", fd, IPPROTO_IP, IP_RECVTOS, 1);
	set_int("origdst", fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1);
	set_int("discover", fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
	set_int("discover", fd, IPPROTO_IP, IP_MTU_DISCOVER, 17);
	set_int("timestamp", fd, SOL_SOCKET, SO_TIMESTAMP, 1);
	set_int("timestampns", fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
	get_int("timestamp", fd, SOL_SOCKET, SO_TIMESTAMP);
	set_int("ovfl", fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	set_int("nonsense", fd, SOL_SOCKET, 9999, 1);
	set_int("nonsense", fd, IPPROTO_IP, 9999, 1);
	set_int("nonsense", fd, IPPROTO_UDP, 9999, 1);
	set_int("tcp", fd, IPPROTO_TCP, TCP_NODELAY, 1);
	ret("null", setsockopt(fd, SOL_SOCKET, SO_BROADCAST, NULL, sizeof(int)));
	ret("short", setsockopt(fd, SOL_SOCKET, SO_BROADCAST, "x", 1));
}

CASE(options_of_a_fresh_socket)
{
	every(udp_socket());
}

CASE(options_of_a_bound_socket)
{
	every(udp_server(port(0)));
}

CASE(options_of_a_wildcard_socket)
{
	every(udp_wild(port(0)));
}

CASE(options_of_a_connected_socket)
{
	every(udp_to_peer(port(0)));
}

CASE(buffers_keep_what_was_set_before)
{
	int fd = udp_socket(), v = 30000;
	struct sockaddr_in a = addr_server(port(0));

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof(v));
	ret("bind", bind(fd, SA(a), sizeof(a)));
	get_int("rcvbuf", fd, SOL_SOCKET, SO_RCVBUF);
	get_int("sndbuf", fd, SOL_SOCKET, SO_SNDBUF);
}

CASE(ttl_and_tos_travel)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), v;

	send_size("send", fd, 10, 0);
	peer_show("got", "udp_recv %d", id);
	v = 7;
	setsockopt(fd, IPPROTO_IP, IP_TTL, &v, sizeof(v));
	v = 0x28;
	setsockopt(fd, IPPROTO_IP, IP_TOS, &v, sizeof(v));
	send_size("send", fd, 10, 0);
	peer_show("got", "udp_recv %d", id);
}

CASE(no_check_travels)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), v = 1;

	setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, &v, sizeof(v));
	send_size("send", fd, 10, 0);
	peer_show("got", "udp_recv %d", id);
	send_size("send", fd, 4000, 0);
	peer_show("got", "udp_recv %d", id);
}

/* len 0: to the socket's own peer. */
static long send_cmsg_to(const char *what, int fd, void *to, socklen_t len, int flags, int level, int type,
        const void *data, size_t size)
{
	union {
		char b[256];
		struct cmsghdr h;
	} u;
	struct iovec v = {"abc", 3};
	struct msghdr m = {.msg_name = len ? to : NULL,
	        .msg_namelen = len,
	        .msg_iov = &v,
	        .msg_iovlen = 1,
	        .msg_control = &u,
	        .msg_controllen = CMSG_SPACE(size)};

	memset(&u, 0, sizeof(u));
	u.h.cmsg_level = level;
	u.h.cmsg_type = type;
	u.h.cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(&u.h), data, size);
	return ret(what, sendmsg(fd, &m, flags));
}

static long send_cmsg(
        const char *what, int fd, struct sockaddr_in to, int level, int type, const void *data, size_t size)
{
	return send_cmsg_to(what, fd, &to, sizeof(to), 0, level, type, data, size);
}

CASE(control_out)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1)), v = 9;
	struct sockaddr_in to = addr_peer(port(0));
	struct in_pktinfo info = {0};
	uint8_t byte = 0x20;

	send_cmsg("ttl", fd, to, IPPROTO_IP, IP_TTL, &v, sizeof(v));
	peer_show("got", "udp_recv %d", id);
	v = 0;
	send_cmsg("ttl0", fd, to, IPPROTO_IP, IP_TTL, &v, sizeof(v));
	v = 256;
	send_cmsg("ttl256", fd, to, IPPROTO_IP, IP_TTL, &v, sizeof(v));
	v = 0x44;
	send_cmsg("tos", fd, to, IPPROTO_IP, IP_TOS, &v, sizeof(v));
	peer_show("got", "udp_recv %d", id);
	send_cmsg("tos1", fd, to, IPPROTO_IP, IP_TOS, &byte, 1);
	peer_show("got", "udp_recv %d", id);
	info.ipi_spec_dst = addr_server(0).sin_addr;
	send_cmsg("info", fd, to, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	peer_show("got", "udp_recv %d", id);
	send_cmsg("short", fd, to, IPPROTO_IP, IP_PKTINFO, &info, 4);
	send_cmsg("what", fd, to, IPPROTO_IP, 9999, &info, 4);
	send_cmsg("other", fd, to, 200, 5, &info, 4);
	peer_show("got", "udp_recv %d", id);
}

static void show_control(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t size = c->cmsg_len - CMSG_LEN(0);

		out("%d/%d/%zu", c->cmsg_level, c->cmsg_type, size);
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && size >= 12) {
			struct in_pktinfo info;
			struct sockaddr_in a = addr_any(1);

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			out("if=%d lo=%d", info.ipi_ifindex != 0, info.ipi_ifindex == 1);
			a.sin_addr = info.ipi_spec_dst;
			show_addr("spec", &a, 0);
			a.sin_addr = info.ipi_addr;
			show_addr("addr", &a, 0);
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) {
			int v;

			memcpy(&v, CMSG_DATA(c), sizeof(v));
			out("ttl=%d", v);
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			out("tos=%d", *CMSG_DATA(c));
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVORIGDSTADDR) {
			struct sockaddr_in a;

			memcpy(&a, CMSG_DATA(c), sizeof(a));
			show_addr("orig", &a, 0);
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMP) {
			struct timeval tv, now;

			memcpy(&tv, CMSG_DATA(c), sizeof(tv));
			gettimeofday(&now, NULL);
			out("near=%d", now.tv_sec >= tv.tv_sec && now.tv_sec - tv.tv_sec < 3);
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
			struct timespec ts, now;

			memcpy(&ts, CMSG_DATA(c), sizeof(ts));
			clock_gettime(CLOCK_REALTIME, &now);
			out("near=%d", now.tv_sec >= ts.tv_sec && now.tv_sec - ts.tv_sec < 3);
		}
	}
}

static void recv_control(const char *what, int fd, size_t room)
{
	union {
		char b[512];
		struct cmsghdr h;
	} u;
	struct sockaddr_in from;
	char b[32];
	struct iovec v = {b, sizeof(b)};
	struct msghdr m = {.msg_name = &from,
	        .msg_namelen = sizeof(from),
	        .msg_iov = &v,
	        .msg_iovlen = 1,
	        .msg_control = &u,
	        .msg_controllen = room};

	memset(&u, 0, sizeof(u));
	if (ret(what, recvmsg(fd, &m, 0)) < 0)
		return;
	out("flags=%x clen=%zu", m.msg_flags, m.msg_controllen);
	show_control(&m);
}

static void ask(int fd, int level, int name)
{
	int one = 1;

	if (setsockopt(fd, level, name, &one, sizeof(one)) < 0)
		die("option %d: %s", name, strerror(errno));
}

CASE(control_in)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1));

	peer_ok("udp_text %d %d a", id, port(1));
	recv_control("nothing", fd, 512);
	ask(fd, IPPROTO_IP, IP_PKTINFO);
	peer_ok("udp_text %d %d b", id, port(1));
	recv_control("info", fd, 512);
	ask(fd, IPPROTO_IP, IP_RECVTTL);
	ask(fd, IPPROTO_IP, IP_RECVTOS);
	ask(fd, IPPROTO_IP, IP_RECVORIGDSTADDR);
	ask(fd, SOL_SOCKET, SO_TIMESTAMP);
	peer_ok("udp_text %d %d c", id, port(1));
	recv_control("all", fd, 512);
	ask(fd, SOL_SOCKET, SO_TIMESTAMPNS);
	peer_ok("udp_text %d %d d", id, port(1));
	recv_control("ns", fd, 512);
}

CASE(control_in_is_cut)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));

	ask(fd, IPPROTO_IP, IP_PKTINFO);
	ask(fd, IPPROTO_IP, IP_RECVTTL);
	for (size_t room = 0; room <= 64; room += 8) {
		peer_ok("udp_text %d %d a", id, port(1));
		recv_control("recv", fd, room);
	}
}

CASE(control_in_by_kernel_half)
{
	int local = udp_local(port(0)), fd = udp_wild(port(1));

	ask(fd, IPPROTO_IP, IP_PKTINFO);
	ask(fd, IPPROTO_IP, IP_RECVTTL);
	send_text("send", local, "loop", addr_loopback(port(1)));
	recv_control("recv", fd, 512);
}

CASE(answer_with_pktinfo)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), local = udp_local(port(2));
	struct in_pktinfo info = {.ipi_spec_dst = addr_loopback(0).sin_addr};

	send_cmsg("loop", fd, addr_loopback(port(2)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	recv_text("got", local, 0);
	info.ipi_spec_dst = addr_server(0).sin_addr;
	send_cmsg("net", fd, addr_peer(port(0)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	peer_show("got", "udp_show %d", id);
}

/* Receives and shows at which address; by which interface is not the same in both runs. */
static void recv_at(const char *what, int fd)
{
	union {
		char b[64];
		struct cmsghdr h;
	} u;
	char b[16];
	struct iovec v = {b, sizeof(b)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)};
	struct sockaddr_in a = addr_any(1);
	struct in_pktinfo info;

	if (ret(what, recvmsg(fd, &m, 0)) < 0)
		return;
	if (!CMSG_FIRSTHDR(&m))
		die("no control message");
	memcpy(&info, CMSG_DATA(&u.h), sizeof(info));
	a.sin_addr = info.ipi_spec_dst;
	show_addr("at", &a, 0);
}

/* What is asked at an address that only the kernel has is answered from there, whoever reaches the asker. */
CASE(answer_from_the_kernels_address)
{
	struct sockaddr_in at = addr_other(port(2)), none = addr_nobody(0);
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), asker = udp_socket();
	struct in_pktinfo info = {.ipi_spec_dst = addr_other(0).sin_addr};

	ask(fd, IPPROTO_IP, IP_PKTINFO);
	ret("bind", bind(asker, SA(at), sizeof(at)));
	send_text("ask", asker, "who", addr_other(port(1)));
	recv_control("asked", fd, 512);
	send_cmsg("answer", fd, at, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	recv_text("got", asker, 0);
	peer_go("udp_echo %d 1", id);
	send_cmsg("net", fd, addr_peer(port(0)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	out("%.2s", peer_reply());
	recv_at("back", fd);
	info.ipi_spec_dst = none.sin_addr;
	send_cmsg("nobody", fd, addr_peer(port(0)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	/* and still from the other one */
	info.ipi_spec_dst = addr_server(0).sin_addr;
	send_cmsg("own", fd, addr_peer(port(0)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	peer_show("got", "udp_show %d", id);
}

CASE(kernels_source_of_a_fresh_socket)
{
	int id = peer_udp(port(0)), fd = udp_socket();
	struct in_pktinfo info = {.ipi_spec_dst = addr_other(0).sin_addr};

	ask(fd, IPPROTO_IP, IP_PKTINFO);
	peer_go("udp_echo %d 1", id);
	send_cmsg("net", fd, addr_peer(port(0)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	out("%.2s", peer_reply());
	recv_at("back", fd);
}

CASE(kernels_source_of_a_connected_socket)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	struct in_pktinfo info = {.ipi_spec_dst = addr_other(0).sin_addr};

	send_cmsg_to("send", fd, NULL, 0, 0, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	peer_show("got", "udp_recv %d", id);
	ret("plain", send(fd, "plain", 5, 0));
	peer_show("got", "udp_show %d", id);
	send_cmsg("named", fd, addr_peer(port(0)), IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	peer_show("got", "udp_recv %d", id);
}

CASE(kernels_source_of_a_cork)
{
	struct sockaddr_in to = addr_peer(port(0));
	int id = peer_udp(port(0)), fd = udp_wild(port(1));
	struct in_pktinfo info = {.ipi_spec_dst = addr_other(0).sin_addr};

	ask(fd, IPPROTO_IP, IP_PKTINFO);
	peer_go("udp_echo %d 1", id);
	send_cmsg_to("first", fd, &to, sizeof(to), MSG_MORE, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	ret("rest", sendto(fd, "de", 2, 0, SA(to), sizeof(to)));
	out("%.2s", peer_reply());
	recv_at("back", fd);
	/* what a later piece says comes too late */
	ret("first", sendto(fd, "de", 2, MSG_MORE, SA(to), sizeof(to)));
	send_cmsg("rest", fd, to, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	peer_show("got", "udp_show %d", id);
}

CASE(kernels_source_mapped)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(1))}, to = a;
	int id = peer_udp(port(0)), fd = socket(AF_INET6, SOCK_DGRAM, 0);
	struct in_addr v4[] = {addr_peer(0).sin_addr, addr_other(0).sin_addr};
	struct in6_pktinfo info = {0};

	ret("bind", bind(fd, SA(a), sizeof(a)));
	to.sin6_port = htons((uint16_t)port(0));
	to.sin6_addr.s6_addr[10] = to.sin6_addr.s6_addr[11] = 0xff;
	info.ipi6_addr = to.sin6_addr;
	memcpy(to.sin6_addr.s6_addr + 12, &v4[0], 4);
	memcpy(info.ipi6_addr.s6_addr + 12, &v4[1], 4);
	ask(fd, IPPROTO_IP, IP_PKTINFO);
	peer_go("udp_echo %d 1", id);
	send_cmsg_to("send", fd, &to, sizeof(to), 0, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	out("%.2s", peer_reply());
	recv_at("back", fd);
}

CASE(control_at_a_bad_address)
{
	struct sockaddr_in to = addr_peer(port(0));
	struct iovec v = {"abc", 3};
	struct msghdr m = {.msg_name = &to,
	        .msg_namelen = sizeof(to),
	        .msg_iov = &v,
	        .msg_iovlen = 1,
	        .msg_controllen = 64};
	int id = peer_udp(port(0)), fd = udp_wild(port(1));

	ret("null", sendmsg(fd, &m, 0));
	m.msg_control = (void *)16;
	ret("low", sendmsg(fd, &m, 0));
	ret("fresh", sendmsg(udp_socket(), &m, 0));
	ret("corked", sendto(fd, "de", 2, MSG_MORE, SA(to), sizeof(to)));
	ret("rest", sendmsg(fd, &m, 0));
	m.msg_controllen = 0;
	ret("rest", sendmsg(fd, &m, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(mapped_pktinfo)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(1))};
	int id = peer_udp(port(0)), fd = socket(AF_INET6, SOCK_DGRAM, 0);
	union {
		char b[256];
		struct cmsghdr h;
	} u;
	char b[8];
	struct iovec v = {b, sizeof(b)};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u)};

	ask(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	peer_ok("udp_text %d %d abc", id, port(1));
	ret("recv", recvmsg(fd, &m, 0));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		struct in6_pktinfo info;
		char text[64];

		out("%d/%d/%zu", c->cmsg_level, c->cmsg_type, (size_t)(c->cmsg_len - CMSG_LEN(0)));
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		inet_ntop(AF_INET6, &info.ipi6_addr, text, sizeof(text));
		out("%s if=%d", text, info.ipi6_ifindex != 0);
	}
}

CASE(broadcast_needs_the_option)
{
	struct sockaddr_in all = addr_peer(port(0)), net = addr_peer(port(0));
	int fd = udp_server(port(1)), fresh = udp_socket();

	all.sin_addr.s_addr = INADDR_BROADCAST;
	net.sin_addr.s_addr |= htonl(0xff);
	ret("all", sendto(fd, "x", 1, 0, SA(all), sizeof(all)));
	ret("net", sendto(fd, "x", 1, 0, SA(net), sizeof(net)));
	ret("connect", connect(fd, SA(net), sizeof(net)));
	ret("fresh", sendto(fresh, "x", 1, 0, SA(net), sizeof(net)));
	ask(fd, SOL_SOCKET, SO_BROADCAST);
	ret("net", sendto(fd, "x", 1, 0, SA(net), sizeof(net)));
	ret("connect", connect(fd, SA(net), sizeof(net)));
	ret("send", send(fd, "x", 1, 0));
}

static int membership(const char *what, int fd, int name, const char *group, struct in_addr iface)
{
	struct ip_mreq m = {.imr_interface = iface};

	inet_pton(AF_INET, group, &m.imr_multiaddr);
	return (int)ret(what, setsockopt(fd, IPPROTO_IP, name, &m, sizeof(m)));
}

CASE(multicast_in)
{
	struct in_addr own = addr_server(0).sin_addr;
	int id = peer_udp(port(0)), fd = udp_wild(port(1));

	membership("join", fd, IP_ADD_MEMBERSHIP, "239.7.7.1", own);
	membership("twice", fd, IP_ADD_MEMBERSHIP, "239.7.7.1", own);
	peer_ok("udp_group %d %d 239.7.7.1 hello", id, port(1));
	recv_text("recv", fd, 0);
	membership("leave", fd, IP_DROP_MEMBERSHIP, "239.7.7.1", own);
	membership("twice", fd, IP_DROP_MEMBERSHIP, "239.7.7.1", own);
	peer_ok("udp_group %d %d 239.7.7.1 gone", id, port(1));
	nap_ms(50);
	recv_text("none", fd, MSG_DONTWAIT);
	membership("none", fd, IP_ADD_MEMBERSHIP, "198.18.0.9", own);
	membership("nowhere", fd, IP_ADD_MEMBERSHIP, "239.7.7.1", addr_nobody(0).sin_addr);
}

CASE(multicast_joined_before_bind)
{
	struct sockaddr_in a = addr_any(port(1));
	int id = peer_udp(port(0)), fd = udp_socket();

	membership("join", fd, IP_ADD_MEMBERSHIP, "239.7.7.2", addr_server(0).sin_addr);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	peer_ok("udp_group %d %d 239.7.7.2 hello", id, port(1));
	recv_text("recv", fd, 0);
}

CASE(multicast_bound_to_group)
{
	struct sockaddr_in a = addr_any(port(1));
	int id = peer_udp(port(0)), fd = udp_socket();

	inet_pton(AF_INET, "239.7.7.3", &a.sin_addr);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	membership("join", fd, IP_ADD_MEMBERSHIP, "239.7.7.3", addr_server(0).sin_addr);
	peer_ok("udp_text %d %d unicast", id, port(1));
	peer_ok("udp_group %d %d 239.7.7.3 hello", id, port(1));
	recv_text("recv", fd, 0);
	nap_ms(30);
	recv_text("none", fd, MSG_DONTWAIT);
}

CASE(multicast_out)
{
	struct in_addr own = addr_server(0).sin_addr, v = {0};
	struct sockaddr_in to = addr_any(port(0));
	int id, fd = udp_server(port(1)), ttl = 5, off = 0;
	socklen_t len = sizeof(v);

	inet_pton(AF_INET, "239.7.7.4", &to.sin_addr);
	/* bound to every address at the peer, which joins there */
	id = peer_ok("udp %d 1", port(0));
	peer_ok("udp_join %d 239.7.7.4", id);
	ret("if", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &own, sizeof(own)));
	ret("get", getsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &v, &len));
	out("own=%d len=%u", v.s_addr == own.s_addr, len);
	ret("ttl", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof(ttl)));
	ret("loop", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof(off)));
	ret("send", sendto(fd, "hello", 5, 0, SA(to), sizeof(to)));
	peer_show("got", "udp_recv %d", id);
	v = addr_nobody(0).sin_addr;
	ret("nowhere", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &v, sizeof(v)));
}

CASE(multicast_to_own_members)
{
	struct in_addr own = addr_server(0).sin_addr;
	struct sockaddr_in to = addr_any(port(1));
	int fd = udp_wild(port(1)), out_fd = udp_server(port(2)), off = 0;

	inet_pton(AF_INET, "239.7.7.5", &to.sin_addr);
	membership("join", fd, IP_ADD_MEMBERSHIP, "239.7.7.5", own);
	ret("if", setsockopt(out_fd, IPPROTO_IP, IP_MULTICAST_IF, &own, sizeof(own)));
	ret("send", sendto(out_fd, "hello", 5, 0, SA(to), sizeof(to)));
	recv_text("recv", fd, 0);
	ret("loop", setsockopt(out_fd, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof(off)));
	ret("send", sendto(out_fd, "quiet", 5, 0, SA(to), sizeof(to)));
	nap_ms(50);
	recv_text("none", fd, MSG_DONTWAIT);
}

CASE(multicast_all_off)
{
	struct in_addr own = addr_server(0).sin_addr;
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), other = udp_wild(port(2)), off = 0;

	/* another socket's membership brings the group to this host */
	membership("join", other, IP_ADD_MEMBERSHIP, "239.7.7.6", own);
	peer_ok("udp_group %d %d 239.7.7.6 all", id, port(1));
	recv_text("recv", fd, 0);
	ret("all", setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof(off)));
	peer_ok("udp_group %d %d 239.7.7.6 notmine", id, port(1));
	nap_ms(50);
	recv_text("none", fd, MSG_DONTWAIT);
	membership("join", fd, IP_ADD_MEMBERSHIP, "239.7.7.6", own);
	peer_ok("udp_group %d %d 239.7.7.6 mine", id, port(1));
	recv_text("recv", fd, 0);
}

CASE(group_request)
{
	struct group_req r = {0};
	struct sockaddr_in g = addr_any(0);
	int id = peer_udp(port(0)), fd = udp_wild(port(1));
	struct in_addr own = addr_server(0).sin_addr;

	/* by index is not the same number in both runs: join by address, leave by request */
	membership("join", fd, IP_ADD_MEMBERSHIP, "239.7.7.8", own);
	peer_ok("udp_group %d %d 239.7.7.8 x", id, port(1));
	recv_text("recv", fd, 0);
	inet_pton(AF_INET, "239.7.7.8", &g.sin_addr);
	memcpy(&r.gr_group, &g, sizeof(g));
	ret("short", setsockopt(fd, IPPROTO_IP, MCAST_JOIN_GROUP, &r, 8));
}
