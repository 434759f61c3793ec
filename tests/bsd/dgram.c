/* dgram.c - datagram sockets: binding, names, connecting, what is an error. */
#include "datagram.h"

CASE(bind_own_address)
{
	struct sockaddr_in a = addr_server(port(0));
	int fd = udp_socket(), id = peer_udp(port(1));

	show_names(fd);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	show_names(fd);
	ret("again", bind(fd, SA(a), sizeof(a)));
	peer_ok("udp_text %d %d hello", id, port(0));
	recv_text("recv", fd, 0);
	send_text("send", fd, "back", addr_peer(port(1)));
	peer_show("got", "udp_show %d", id);
}

CASE(bind_wildcard_both_sides)
{
	int fd = udp_wild(port(0)), id = peer_udp(port(1)), local = udp_local(port(2));

	show_names(fd);
	peer_ok("udp_text %d %d net", id, port(0));
	recv_text("recv", fd, 0);
	send_text("local", local, "loop", addr_loopback(port(0)));
	recv_text("recv", fd, 0);
	send_text("send", fd, "n", addr_peer(port(1)));
	peer_show("got", "udp_show %d", id);
	send_text("send", fd, "l", addr_loopback(port(2)));
	recv_text("got", local, 0);
	show_names(fd);
}

CASE(bind_port_zero)
{
	struct sockaddr_in a = addr_any(0), b;
	socklen_t len = sizeof(b);
	int fd = udp_socket(), id = peer_udp(port(1)), local = udp_local(port(2));

	ret("bind", bind(fd, SA(a), sizeof(a)));
	ret("name", getsockname(fd, SA(b), &len));
	show_addr("is", &b, len);
	peer_ok("udp_text %d %d net", id, ntohs(b.sin_port));
	recv_text("recv", fd, 0);
	send_text("local", local, "loop", addr_loopback(ntohs(b.sin_port)));
	recv_text("recv", fd, 0);
}

CASE(bind_loopback_only)
{
	int fd = udp_local(port(0)), local = udp_local(port(1));
	struct sockaddr_in a = addr_nobody(port(2));

	show_names(fd);
	send_text("local", local, "loop", addr_loopback(port(0)));
	recv_text("recv", fd, 0);
	ret("out", sendto(fd, "x", 1, 0, SA(a), sizeof(a)));
}

CASE(bind_foreign_address)
{
	struct sockaddr_in a = addr_nobody(port(0));
	int fd = udp_socket();

	ret("bind", bind(fd, SA(a), sizeof(a)));
	a = addr_server(port(0));
	ret("short", bind(fd, SA(a), 8));
	a.sin_family = AF_UNIX;
	ret("family", bind(fd, SA(a), sizeof(a)));
	a.sin_family = AF_INET;
	ret("bind", bind(fd, SA(a), sizeof(a)));
}

CASE(bind_conflicts)
{
	struct sockaddr_in a = addr_server(port(0)), w = addr_any(port(0));
	int one = 1, fd = udp_server(port(0)), b;

	b = udp_socket();
	ret("same", bind(b, SA(a), sizeof(a)));
	ret("wild", bind(b, SA(w), sizeof(w)));
	setsockopt(b, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("reuse_one", bind(b, SA(a), sizeof(a)));
	close(fd);
	ret("after_close", bind(b, SA(a), sizeof(a)));
	fd = udp_socket();
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("reuse_both", bind(fd, SA(a), sizeof(a)));
	close(fd);
	close(b);
	fd = udp_socket();
	b = udp_socket();
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	setsockopt(b, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	ret("port1", bind(fd, SA(w), sizeof(w)));
	ret("port2", bind(b, SA(w), sizeof(w)));
	close(fd);
	close(b);
	fd = udp_wild(port(0));
	b = udp_socket();
	ret("specific_after_wild", bind(b, SA(a), sizeof(a)));
	close(fd);
	ret("free_again", bind(b, SA(a), sizeof(a)));
}

CASE(port_is_free_after_close)
{
	struct sockaddr_in a = addr_any(port(0));
	int bad = 0;

	for (int i = 0; i < 200; i++) {
		int fd = udp_socket();

		bad += bind(fd, SA(a), sizeof(a)) < 0;
		close(fd);
	}
	out("bad=%d", bad);
}

CASE(send_autobinds)
{
	int fd = udp_socket(), id = peer_udp(port(0));

	show_names(fd);
	send_text("send", fd, "one", addr_peer(port(0)));
	peer_show("got", "udp_show %d", id);
	show_names(fd);
	peer_go("udp_echo %d 1", id);
	send_text("send", fd, "two", addr_peer(port(0)));
	recv_text("recv", fd, 0);
	out("%s", peer_reply());
}

CASE(send_autobinds_then_loopback)
{
	int fd = udp_socket(), id = peer_udp(port(0)), local = udp_local(port(1));
	struct sockaddr_in a = {0}, b = {0};
	socklen_t len = sizeof(a);
	char c[8];

	send_text("send", fd, "one", addr_peer(port(0)));
	peer_show("got", "udp_show %d", id);
	send_text("send", fd, "two", addr_loopback(port(1)));
	ret("recv", recvfrom(local, c, sizeof(c), 0, SA(a), &len));
	show_addr("from", &a, len);
	len = sizeof(b);
	getsockname(fd, SA(b), &len);
	out("same_port=%d", a.sin_port == b.sin_port);
	ret("answer", sendto(local, "three", 5, 0, SA(a), sizeof(a)));
	recv_text("recv", fd, 0);
	peer_go("udp_echo %d 1", id);
	send_text("send", fd, "four", addr_peer(port(0)));
	recv_text("recv", fd, 0);
	out("%s", peer_reply());
}

CASE(loopback_first_then_network)
{
	int fd = udp_socket(), id = peer_udp(port(0)), local = udp_local(port(1));

	send_text("send", fd, "one", addr_loopback(port(1)));
	recv_text("got", local, 0);
	peer_go("udp_echo %d 1", id);
	send_text("send", fd, "two", addr_peer(port(0)));
	recv_text("recv", fd, 0);
	out("%s", peer_reply());
	send_text("send", fd, "three", addr_loopback(port(1)));
	recv_text("got", local, 0);
}

CASE(connect_names)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	show_names(fd);
	peer_go("udp_echo %d 1", id);
	ret("send", send(fd, "abc", 3, 0));
	recv_text("recv", fd, 0);
	out("%s", peer_reply());
}

CASE(connect_filters)
{
	int id = peer_udp(port(0)), other = peer_udp(port(1)), fd = udp_wild(port(2));
	struct sockaddr_in a = addr_peer(port(0));
	int local = udp_local(port(3));

	ret("connect", connect(fd, SA(a), sizeof(a)));
	show_names(fd);
	peer_ok("udp_text %d %d other", other, port(2));
	sendto(local, "local", 5, 0, SA((struct sockaddr_in[]){addr_loopback(port(2))}[0]), sizeof(a));
	peer_ok("udp_text %d %d mine", id, port(2));
	recv_text("recv", fd, 0);
	nap_ms(50);
	recv_text("none", fd, MSG_DONTWAIT);
	a = addr_peer(port(1));
	ret("reconnect", connect(fd, SA(a), sizeof(a)));
	show_names(fd);
	peer_ok("udp_text %d %d other", other, port(2));
	recv_text("recv", fd, 0);
}

CASE(connect_keeps_what_had_come)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(2)), local = udp_local(port(3));
	struct sockaddr_in a = addr_peer(port(0)), l = addr_loopback(port(2));

	sendto(local, "early", 5, 0, SA(l), sizeof(l));
	settle_in(fd);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	recv_text("recv", fd, 0);
	sendto(local, "late", 4, 0, SA(l), sizeof(l));
	peer_ok("udp_text %d %d mine", id, port(2));
	recv_text("recv", fd, 0);
	nap_ms(20);
	recv_text("none", fd, MSG_DONTWAIT);
}

CASE(connect_unspec_dissolves)
{
	int id = peer_udp(port(0)), other = peer_udp(port(1)), fd = udp_wild(port(2));
	struct sockaddr_in a = addr_peer(port(0)), l = addr_loopback(port(2));
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int local = udp_local(port(3));

	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("dissolve", connect(fd, &none, sizeof(none)));
	show_names(fd);
	ret("send", send(fd, "x", 1, 0));
	peer_ok("udp_text %d %d other", other, port(2));
	recv_text("recv", fd, 0);
	peer_ok("udp_text %d %d mine", id, port(2));
	recv_text("recv", fd, 0);
	sendto(local, "loop", 4, 0, SA(l), sizeof(l));
	recv_text("recv", fd, 0);
	ret("dissolve", connect(fd, &none, sizeof(none)));
}

CASE(connect_unspec_gives_the_port_back)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct sockaddr_in a = addr_server(port(1));

	ret("dissolve", connect(fd, &none, sizeof(none)));
	show_names(fd);
	ret("bind", bind(fd, SA(a), sizeof(a)));
	show_names(fd);
	peer_ok("udp_text %d %d hello", id, port(1));
	recv_text("recv", fd, 0);
}

CASE(connect_to_loopback_and_back)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(2)), local = udp_local(port(3));
	struct sockaddr_in l = addr_loopback(port(3)), a = addr_peer(port(0)), me = addr_loopback(port(2));

	if (addr_server(0).sin_addr.s_addr == addr_loopback(0).sin_addr.s_addr)
		return; /* --loopback: there is no other network to go to */
	ret("connect", connect(fd, SA(l), sizeof(l)));
	show_names(fd);
	ret("send", send(fd, "abc", 3, 0));
	recv_text("got", local, 0);
	peer_ok("udp_text %d %d filtered", id, port(2));
	nap_ms(50);
	sendto(local, "mine", 4, 0, SA(me), sizeof(me));
	recv_text("recv", fd, 0);
	recv_text("none", fd, MSG_DONTWAIT);
	send_text("sendto", fd, "away", a);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	sendto(local, "stays", 5, 0, SA(me), sizeof(me));
	recv_text("recv", fd, 0);
	ret("dissolve", connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	sendto(local, "filtered", 8, 0, SA(me), sizeof(me));
	peer_ok("udp_text %d %d mine", id, port(2));
	recv_text("recv", fd, 0);
	nap_ms(20);
	recv_text("none", fd, MSG_DONTWAIT);
	ret("send", send(fd, "n", 1, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(connect_loopback_first)
{
	int id = peer_udp(port(0)), local = udp_local(port(3)), fd = udp_socket();
	struct sockaddr_in l = addr_loopback(port(3)), a = addr_peer(port(0));

	if (addr_server(0).sin_addr.s_addr == addr_loopback(0).sin_addr.s_addr)
		return; /* --loopback: there is no other network to go to */
	ret("connect", connect(fd, SA(l), sizeof(l)));
	ret("send", send(fd, "abc", 3, 0));
	recv_text("got", local, 0);
	/* the source that the first one chose stays, and does not lead there */
	ret("connect", connect(fd, SA(a), sizeof(a)));
	show_names(fd);
	ret("sendto", sendto(fd, "x", 1, 0, SA(a), sizeof(a)));
	ret("dissolve", connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	show_names(fd);
	peer_go("udp_echo %d 1", id);
	ret("send", send(fd, "def", 3, 0));
	recv_text("recv", fd, 0);
	out("%s", peer_reply());
}

CASE(connect_errors)
{
	struct sockaddr_in a = addr_peer(port(0));
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
	int fd = udp_socket();

	ret("short", connect(fd, SA(a), 4));
	ret("six", connect(fd, SA(six), sizeof(six)));
	a.sin_family = AF_UNIX;
	ret("family", connect(fd, SA(a), sizeof(a)));
	show_names(fd);
	a = addr_peer(port(0));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("short", connect(fd, SA(a), 4));
	ret("six", connect(fd, SA(six), sizeof(six)));
	show_names(fd);
}

CASE(connected_sends_elsewhere)
{
	int id = peer_udp(port(0)), other = peer_udp(port(1)), fd = udp_to_peer(port(0));

	send_text("sendto", fd, "there", addr_peer(port(1)));
	peer_show("got", "udp_show %d", other);
	ret("send", send(fd, "here", 4, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(no_destination)
{
	struct sockaddr_in a = addr_peer(0), b = addr_peer(port(0));
	int fd = udp_server(port(1)), raw = udp_socket();

	ret("send", send(fd, "x", 1, 0));
	ret("write", write(fd, "x", 1));
	ret("fresh", send(raw, "x", 1, 0));
	ret("port0", sendto(fd, "x", 1, 0, SA(a), sizeof(a)));
	ret("short", sendto(fd, "x", 1, 0, SA(b), 4));
	b.sin_family = AF_INET6;
	ret("family", sendto(fd, "x", 1, 0, SA(b), sizeof(b)));
	b.sin_family = AF_UNIX;
	ret("family", sendto(fd, "x", 1, 0, SA(b), sizeof(b)));
	b.sin_family = AF_UNSPEC;
	ret("unspec", sendto(fd, "x", 1, 0, SA(b), sizeof(b)));
	ret("oob", send(fd, "x", 1, MSG_OOB));
}

CASE(refused_is_told_once)
{
	int fd = udp_to_peer(port(5)), err = 0;
	socklen_t len = sizeof(err);
	char b[4];

	ret("send", send(fd, "x", 1, 0));
	rev("poll", settle(fd, POLLERR));
	ret("recv", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	ret("again", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	ret("send", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	ret("send", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	ret("opt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("%s", strerrorname_np(err));
	ret("opt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("err=%d", err);
}

CASE(refused_does_not_reach_the_unconnected)
{
	int fd = udp_server(port(0)), err = 0;
	socklen_t len = sizeof(err);

	send_text("send", fd, "x", addr_peer(port(5)));
	nap_ms(100);
	send_text("send", fd, "x", addr_peer(port(5)));
	ret("opt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("err=%d", err);
}

CASE(refused_wakes_a_reader)
{
	int fd = udp_to_peer(port(5));
	char b[4];

	ret("send", send(fd, "x", 1, 0));
	ret("recv", recv(fd, b, sizeof(b), 0));
}

CASE(nobody_answers)
{
	struct sockaddr_in a = addr_nobody(port(0));
	int fd = udp_socket();

	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("send", send(fd, "x", 1, 0));
	ret("recv", recv(fd, (char[4]){0}, 4, MSG_DONTWAIT));
}

CASE(listen_and_accept)
{
	int fd = udp_server(port(0));

	ret("listen", listen(fd, 5));
	ret("accept", accept(fd, NULL, NULL));
	ret("accept4", accept4(fd, NULL, NULL, SOCK_CLOEXEC));
}

CASE(shutdown_unconnected)
{
	int fd = udp_server(port(0)), id = peer_udp(port(1));
	char b[4];

	ret("how", shutdown(fd, 7));
	ret("shut", shutdown(fd, SHUT_RD));
	rev("poll", settle(fd, POLLIN | POLLRDHUP | POLLHUP));
	ret("recv", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	ret("recv", recv(fd, b, sizeof(b), 0));
	peer_ok("udp_text %d %d abc", id, port(0));
	nap_ms(50);
	recv_text("still", fd, 0);
	send_text("send", fd, "x", addr_peer(port(1)));
}

CASE(shutdown_connected)
{
	int id = peer_udp(port(1)), fd = udp_to_peer(port(1));
	char b[4];

	ret("send", send(fd, "a", 1, 0));
	peer_show("got", "udp_show %d", id);
	ret("wr", shutdown(fd, SHUT_WR));
	ret("send", send(fd, "x", 1, 0));
	ret("send", send(fd, "x", 1, MSG_NOSIGNAL));
	rev("poll", settle(fd, POLLOUT));
	ret("rd", shutdown(fd, SHUT_RD));
	rev("poll", settle(fd, POLLIN | POLLHUP));
	ret("recv", recv(fd, b, sizeof(b), 0));
	ret("again", shutdown(fd, SHUT_RDWR));
}

CASE(names_are_cut)
{
	struct sockaddr_in a;
	socklen_t len = 4;
	int fd = udp_server(port(0));

	memset(&a, 0x55, sizeof(a));
	ret("name", getsockname(fd, SA(a), &len));
	out("len=%u rest=%x", len, a.sin_addr.s_addr);
	len = (socklen_t)-1;
	ret("neg", getsockname(fd, SA(a), &len));
	ret("null", getsockname(fd, NULL, &len));
}

CASE(six_with_mapped_peer)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(0))};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0), id = peer_udp(port(1));
	socklen_t len = sizeof(a);
	char b[8], text[64];

	ret("bind", bind(fd, SA(a), sizeof(a)));
	peer_ok("udp_text %d %d abc", id, port(0));
	ret("recv", recvfrom(fd, b, sizeof(b), 0, SA(a), &len));
	inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof(text));
	out("len=%u %s", len, text);
	ret("send", sendto(fd, "de", 2, 0, SA(a), len));
	peer_show("got", "udp_show %d", id);
	ret("connect", connect(fd, SA(a), len));
	len = sizeof(a);
	ret("name", getsockname(fd, SA(a), &len));
	inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof(text));
	out("len=%u %s", len, text);
	ret("name", getpeername(fd, SA(a), &len));
	inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof(text));
	out("len=%u %s", len, text);
	ret("send", send(fd, "f", 1, 0));
	peer_show("got", "udp_show %d", id);
}

CASE(six_pure)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(0))}, from;
	int fd = socket(AF_INET6, SOCK_DGRAM, 0), c = socket(AF_INET6, SOCK_DGRAM, 0);
	socklen_t len = sizeof(from);
	char b[8], text[64];

	ret("bind", bind(fd, SA(a), sizeof(a)));
	a.sin6_addr = in6addr_loopback;
	ret("send", sendto(c, "abc", 3, 0, SA(a), sizeof(a)));
	ret("recv", recvfrom(fd, b, sizeof(b), 0, SA(from), &len));
	inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof(text));
	out("len=%u %s", len, text);
	ret("send", sendto(fd, "de", 2, 0, SA(from), len));
	ret("recv", recv(c, b, sizeof(b), 0));
}

CASE(six_only)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(0))};
	struct sockaddr_in p = addr_peer(port(1));
	int fd = socket(AF_INET6, SOCK_DGRAM, 0), one = 1;

	ret("only", setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)));
	ret("bind", bind(fd, SA(a), sizeof(a)));
	ret("send", sendto(fd, "x", 1, 0, SA(p), sizeof(p)));
}
