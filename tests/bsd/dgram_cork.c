/* dgram_cork.c - datagrams that grow (MSG_MORE, UDP_CORK), over whatever else happens to the socket
 * meanwhile; the order in which a send finds fault. udp(7), send(2) */
#include "datagram.h"

#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <netinet/udp.h>

static void cork(int fd, int on)
{
	ret(on ? "cork" : "uncork", setsockopt(fd, IPPROTO_UDP, UDP_CORK, &on, sizeof(on)));
}

static void dissolve(int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	ret("dissolve", connect(fd, &none, sizeof(none)));
}

static long more_to(const char *what, int fd, const char *text, struct sockaddr_in to)
{
	return ret(what, sendto(fd, text, strlen(text), MSG_MORE, SA(to), sizeof(to)));
}

/* It follows connect(2): __ip4_datagram_connect finds its route in the flow of the cork. */
CASE(over_connect)
{
	int id = peer_udp(port(0)), other = peer_udp(port(1)), fd = udp_to_peer(port(0));
	struct sockaddr_in b = addr_peer(port(1));

	ret("more", send(fd, "ab", 2, MSG_MORE));
	ret("connect", connect(fd, SA(b), sizeof(b)));
	ret("more", send(fd, "cd", 2, MSG_MORE));
	ret("last", send(fd, "ef", 2, 0));
	peer_show("got", "udp_show %d", id);
	ret("next", send(fd, "g", 1, 0));
	peer_show("got", "udp_show %d", other);
	peer_show("quiet", "udp_quiet %d 20", id);
}

/* Without a port of its own any more: a send chooses a new one, the option does not. */
CASE(over_dissolve)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	ret("more", send(fd, "ab", 2, MSG_MORE));
	dissolve(fd);
	show_names(fd);
	ret("last", send(fd, "cd", 2, 0));
	peer_show("got", "udp_show %d", id);
	show_names(fd);
	ret("nobody", send(fd, "x", 1, 0));
}

CASE(option_after_dissolve)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	cork(fd, 1);
	ret("send", send(fd, "ab", 2, 0));
	dissolve(fd);
	cork(fd, 0);
	peer_show("got", "udp_show %d", id);
	show_names(fd);
	send_text("next", fd, "c", addr_peer(port(0)));
	peer_show("got", "udp_show %d", id);
	show_names(fd);
}

CASE(option_after_dissolve_with_unread)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	peer_go("udp_echo %d 1", id);
	ret("send", send(fd, "zz", 2, 0));
	out("%s", peer_reply());
	settle_in(fd);
	cork(fd, 1);
	ret("send", send(fd, "ab", 2, 0));
	dissolve(fd);
	cork(fd, 0);
	peer_show("got", "udp_show %d", id);
	recv_text("unread", fd, 0);
	show_names(fd);
}

CASE(option_after_dissolve_of_a_bound_socket)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	struct sockaddr_in a = addr_peer(port(0));

	ret("connect", connect(fd, SA(a), sizeof(a)));
	cork(fd, 1);
	ret("send", send(fd, "ab", 2, 0));
	dissolve(fd);
	cork(fd, 0);
	peer_show("got", "udp_show %d", id);
	show_names(fd);
}

/* The end of sending is for datagrams that begin after it. */
CASE(over_shutdown)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));

	cork(fd, 1);
	ret("send", send(fd, "ab", 2, 0));
	ret("shutdown", shutdown(fd, SHUT_WR));
	ret("send", send(fd, "cd", 2, 0));
	cork(fd, 0);
	peer_show("got", "udp_show %d", id);
	ret("next", send(fd, "x", 1, 0));
	ret("more", send(fd, "x", 1, MSG_MORE));
	ret("last", send(fd, "", 0, 0));
	peer_show("quiet", "udp_quiet %d 20", id);
}

CASE(shutdown_outlives_the_association)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0));
	struct sockaddr_in a = addr_peer(port(0));

	ret("shutdown", shutdown(fd, SHUT_RDWR));
	dissolve(fd);
	rev("poll", settle(fd, POLLHUP));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	rev("poll", settle(fd, POLLHUP));
	ret("send", send(fd, "x", 1, 0));
	ret("recv", recv(fd, (char[4]){0}, 4, 0));
	peer_show("quiet", "udp_quiet %d 20", id);
}

CASE(shutdown_before_the_first_send)
{
	int id = peer_udp(port(0)), fd = udp_socket();

	ret("shutdown", shutdown(fd, SHUT_WR));
	send_text("send", fd, "x", addr_peer(port(0)));
	peer_show("quiet", "udp_quiet %d 20", id);
}

/* A first piece that is refused leaves nothing behind: the next datagram goes its own way. */
CASE(refused_first_piece)
{
	int id = peer_udp(port(0)), fd = udp_socket(), bound = udp_server(port(1));
	static char big[70000];
	struct sockaddr_in a = addr_peer(port(0));

	ret("nobody", send(fd, "ab", 2, MSG_MORE));
	send_text("send", fd, "one", a);
	peer_show("got", "udp_show %d", id);
	ret("nobody", send(bound, "ab", 2, MSG_MORE));
	send_text("send", bound, "two", a);
	peer_show("got", "udp_show %d", id);
	ret("long", sendto(fd, big, 65508, MSG_MORE, SA(a), sizeof(a)));
	send_text("send", fd, "three", a);
	peer_show("got", "udp_show %d", id);
	cork(fd, 1);
	ret("nobody", send(fd, "ab", 2, 0));
	cork(fd, 0);
	peer_show("quiet", "udp_quiet %d 20", id);
}

/* What is refused before the socket looks at its cork leaves the cork alone; what cannot be added ends it. */
CASE(refused_later_piece)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	static char big[70000];
	struct sockaddr_in a = addr_peer(port(0));

	more_to("more", fd, "ab", a);
	ret("big", send(fd, big, 65536, 0));
	ret("oob", send(fd, "x", 1, MSG_OOB));
	ret("any", sendto(fd, "cd", 2, MSG_MORE, SA(a), 0));
	ret("any", sendto(fd, "ef", 2, MSG_MORE, SA(a), 4));
	ret("last", send(fd, "gh", 2, 0));
	peer_show("got", "udp_show %d", id);
	more_to("more", fd, "ab", a);
	ret("over", send(fd, big, 65506, 0));
	ret("nobody", send(fd, "x", 1, 0));
	send_text("send", fd, "next", a);
	peer_show("got", "udp_show %d", id);
}

CASE(pieces_that_may_not_be_cut)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), how = IP_PMTUDISC_DO;

	if (addr_server(0).sin_addr.s_addr == addr_loopback(0).sin_addr.s_addr)
		return; /* --loopback: nothing is ever too long there */
	ret("set", setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(how)));
	send_size("more", fd, 1000, MSG_MORE);
	send_size("over", fd, 473, MSG_MORE);
	ret("next", send(fd, "a", 1, 0));
	peer_show("got", "udp_show %d", id);
	send_size("more", fd, 1473, MSG_MORE);
	ret("next", send(fd, "b", 1, 0));
	peer_show("got", "udp_show %d", id);
}

/* The error that waits is for the first piece. */
CASE(error_meets_first_piece)
{
	int fd = udp_to_peer(port(5)), err = 0;
	socklen_t len = sizeof(err);

	ret("send", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	ret("long", send(fd, (char[65508]){0}, 65508, MSG_MORE));
	ret("more", send(fd, "x", 1, MSG_MORE));
	ret("more", send(fd, "x", 1, MSG_MORE));
	ret("last", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	ret("opt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("%s", strerrorname_np(err));
}

CASE(empty_pieces)
{
	int id = peer_udp(port(0)), fd = udp_to_peer(port(0)), v = -1;

	ret("more", send(fd, "", 0, MSG_MORE));
	ret("outq", ioctl(fd, SIOCOUTQ, &v));
	out("any=%d", v > 0);
	cork(fd, 0);
	peer_show("got", "udp_show %d", id);
	cork(fd, 1);
	ret("send", send(fd, "", 0, 0));
	ret("send", send(fd, "", 0, 0));
	cork(fd, 0);
	peer_show("got", "udp_show %d", id);
	cork(fd, 0);
	peer_show("quiet", "udp_quiet %d 20", id);
}

CASE(order_of_errors)
{
	static char big[70000];
	int fd = udp_server(port(1)), fresh = udp_socket(), six = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in a = addr_peer(port(0)), zero = addr_peer(0);
	struct sockaddr_in6 b = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(2))};
	struct sockaddr_storage long_one = {.ss_family = AF_INET};
	int fds[2] = {fd, fresh};

	for (int i = 0; i < 2; i++) {
		ret("big", send(fds[i], big, 65536, 0));
		ret("big_short", sendto(fds[i], big, 65536, 0, SA(a), 4));
		ret("big_zero", sendto(fds[i], big, 65536, 0, SA(zero), sizeof(zero)));
		ret("oob", send(fds[i], "x", 1, MSG_OOB));
		ret("oob_big", send(fds[i], big, 65536, MSG_OOB));
		ret("len0", sendto(fds[i], "x", 1, 0, SA(a), 0));
		ret("len1", sendto(fds[i], "x", 1, 0, SA(a), 1));
		ret("len129", sendto(fds[i], "x", 1, 0, SA(long_one), sizeof(long_one) + 1));
		ret("null", sendto(fds[i], "x", 1, 0, NULL, sizeof(a)));
	}
	ret("bind6", bind(six, SA(b), sizeof(b)));
	ret("big6", send(six, big, 65536, 0));
	ret("oob6", send(six, "x", 1, MSG_OOB));
	ret("len0", sendto(six, "x", 1, 0, SA(b), 0));
	b.sin6_family = AF_UNIX;
	ret("family6", sendto(six, big, 65536, 0, SA(b), sizeof(b)));
	ret("conn_short", connect(fd, SA(a), 4));
	ret("conn_null", connect(fd, NULL, sizeof(a)));
	ret("conn_none", connect(fd, NULL, 0));
	ret("conn_long", connect(fd, SA(long_one), sizeof(long_one) + 1));
	b.sin6_family = AF_INET6;
	ret("conn_six", connect(fd, SA(b), sizeof(b)));
	ret("conn_six", connect(fd, SA(b), 20));
	b.sin6_family = AF_UNIX;
	ret("conn6_family", connect(six, SA(b), sizeof(b)));
	ret("conn6_short", connect(six, SA(b), 8));
}

/* A call that fails gives the socket a port, which dissolving an association takes away again. */
CASE(port_of_a_call_that_failed)
{
	int id = peer_udp(port(0)), first = udp_server(port(2));
	struct sockaddr_in a = addr_peer(port(0)), mine;
	socklen_t len = sizeof(mine);

	(void)first; /* this process has met the service */
	for (int how = 0; how < 2; how++) {
		int fd = udp_socket();

		if (how)
			ret("send", send(fd, "x", 1, 0));
		else
			ret("connect", connect(fd, SA(a), 4));
		show_names(fd);
		getsockname(fd, SA(mine), &len);
		peer_ok("udp_text %d %d hello", id, ntohs(mine.sin_port));
		recv_text("recv", fd, 0);
		ret("connect", connect(fd, SA(a), sizeof(a)));
		ret("send", send(fd, "abc", 3, 0));
		peer_show("got", "udp_show %d", id);
		dissolve(fd);
		show_names(fd);
		a = addr_server(port(3));
		ret("bind", bind(fd, SA(a), sizeof(a)));
		peer_ok("udp_text %d %d again", id, port(3));
		recv_text("recv", fd, 0);
		a = addr_peer(port(0));
		close(fd);
	}
}

/* bind(2) to any port does not fix the port either; the address stays. */
CASE(port_that_bind_has_chosen)
{
	int id = peer_udp(port(0));
	struct sockaddr_in a = addr_peer(port(0)), mine[2] = {addr_server(0), addr_any(0)}, old;
	socklen_t len = sizeof(old);

	for (int i = 0; i < 2; i++) {
		int fd = udp_socket();

		ret("bind", bind(fd, SA(mine[i]), sizeof(mine[i])));
		getsockname(fd, SA(old), &len);
		ret("connect", connect(fd, SA(a), sizeof(a)));
		dissolve(fd);
		show_names(fd);
		/* nobody is there now */
		peer_ok("udp_text %d %d lost", id, ntohs(old.sin_port));
		nap_ms(30);
		recv_text("none", fd, MSG_DONTWAIT);
		ret("connect", connect(fd, SA(a), sizeof(a)));
		show_names(fd);
		peer_go("udp_echo %d 1", id);
		ret("send", send(fd, "abc", 3, 0));
		recv_text("recv", fd, 0);
		out("%s", peer_reply());
		close(fd);
	}
}

CASE(received_flags)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	char b[4];
	struct iovec v = {b, sizeof(b)};
	struct sockaddr_in a;
	struct msghdr m = {.msg_name = &a, .msg_namelen = sizeof(a), .msg_iov = &v, .msg_iovlen = 1};
	socklen_t len = sizeof(a);

	peer_ok("udp_text %d %d abcdefgh", id, port(1));
	ret("cloexec", recvmsg(fd, &m, MSG_CMSG_CLOEXEC));
	out("flags=%x", (unsigned)m.msg_flags);
	ret("shutdown", shutdown(fd, SHUT_RD));
	ret("end", recvfrom(fd, b, sizeof(b), 0, SA(a), &len));
	out("len=%u", len);
	m.msg_namelen = sizeof(a);
	ret("end", recvmsg(fd, &m, 0));
	out("len=%u flags=%x", m.msg_namelen, (unsigned)m.msg_flags);
}

/* A call for no message at all still tells what waits. */
CASE(no_messages)
{
	int fd = udp_to_peer(port(5));
	struct mmsghdr m[1];

	memset(m, 0, sizeof(m));
	ret("none", recvmmsg(fd, m, 0, MSG_DONTWAIT, NULL));
	ret("send", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	ret("none", sendmmsg(fd, m, 0, 0));
	ret("none", recvmmsg(fd, m, 0, MSG_DONTWAIT, NULL));
	ret("none", recvmmsg(fd, m, 0, MSG_DONTWAIT, NULL));
}

/* Port 0 can be connected to; what it is sent is refused. Only an IPv6 socket minds. */
CASE(connected_to_port_zero)
{
	struct sockaddr_in a = addr_peer(0);
	struct sockaddr_in6 b = {.sin6_family = AF_INET6};
	int fd = udp_server(port(1)), six = socket(AF_INET6, SOCK_DGRAM, 0), err = 0;
	socklen_t len = sizeof(err);

	ret("connect", connect(fd, SA(a), sizeof(a)));
	show_names(fd);
	ret("send", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	ret("opt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	out("%s", strerrorname_np(err));
	b.sin6_addr.s6_addr[10] = b.sin6_addr.s6_addr[11] = 0xff;
	memcpy(b.sin6_addr.s6_addr + 12, &a.sin_addr, 4);
	ret("connect6", connect(six, SA(b), sizeof(b)));
	ret("send6", send(six, "x", 1, 0));
}

/* An error that nobody has asked for outlives the association. */
CASE(error_over_dissolve)
{
	int fd = udp_to_peer(port(5));
	char b[4];

	ret("send", send(fd, "x", 1, 0));
	settle(fd, POLLERR);
	dissolve(fd);
	rev("poll", settle(fd, POLLERR));
	ret("recv", recv(fd, b, sizeof(b), MSG_DONTWAIT));
	ret("recv", recv(fd, b, sizeof(b), MSG_DONTWAIT));
}

/* O_NONBLOCK, too. */
CASE(flags_over_dissolve)
{
	int fd = udp_to_peer(port(0)), fl;
	char b[4];

	fl = fcntl(fd, F_GETFL);
	ret("set", fcntl(fd, F_SETFL, fl | O_NONBLOCK));
	dissolve(fd);
	out("nonblock=%d", !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	ret("recv", recv(fd, b, sizeof(b), 0));
	send_text("send", fd, "x", addr_peer(port(0)));
	out("nonblock=%d", !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	ret("recv", recv(fd, b, sizeof(b), 0));
}

/* Of two sockets that share address and port the IPv4 one gets it, however old it is. */
CASE(six_yields_to_four)
{
	struct sockaddr_in a = addr_server(port(1));
	struct sockaddr_in6 b = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port(1))};
	int id = peer_udp(port(0)), fd = udp_socket(), six = socket(AF_INET6, SOCK_DGRAM, 0), one = 1;

	b.sin6_addr.s6_addr[10] = b.sin6_addr.s6_addr[11] = 0xff;
	memcpy(b.sin6_addr.s6_addr + 12, &a.sin_addr, 4);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(six, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret("bind", bind(fd, SA(a), sizeof(a)));
	ret("bind6", bind(six, SA(b), sizeof(b)));
	peer_ok("udp_text %d %d hello", id, port(1));
	settle_in(fd);
	recv_text("four", fd, MSG_DONTWAIT);
	recv_text("six", six, MSG_DONTWAIT);
}

/* writev(2) of nothing asks nobody; write(2) of nothing is a datagram. */
CASE(writes_of_nothing)
{
	int id = peer_udp(port(0)), fd = udp_socket(), warm = udp_server(port(1));
	struct iovec v[2] = {{"", 0}, {"", 0}};

	(void)warm;
	ret("writev", writev(fd, v, 2));
	ret("write", write(fd, "", 0));
	show_names(fd);
	close(fd);
	fd = udp_to_peer(port(0));
	ret("writev", writev(fd, v, 2));
	peer_show("quiet", "udp_quiet %d 20", id);
	ret("write", write(fd, "", 0));
	peer_show("got", "udp_recv %d", id);
}

/* A set does not tell an edge again because the socket has found a peer. */
CASE(edge_over_connect)
{
	int id = peer_udp(port(0)), fd = udp_wild(port(1)), ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
	struct sockaddr_in a = addr_peer(port(0));

	ret("add", epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	ret("wait", epoll_wait(ep, &ev, 1, 0));
	rev("is", ev.events);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("wait", epoll_wait(ep, &ev, 1, 0));
	peer_ok("udp_text %d %d hello", id, port(1));
	ret("wait", epoll_wait(ep, &ev, 1, 5000));
	rev("is", ev.events);
	dissolve(fd);
	ret("wait", epoll_wait(ep, &ev, 1, 0));
	recv_text("recv", fd, 0);
}

struct late {
	int fd;
	pid_t reader;
	_Atomic int is_begun;
};

static char state_of(pid_t tid)
{
	char path[64], text[512] = "", *p;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
	p = strrchr(text, ')');
	return p && p[1] ? p[2] : '?';
}

static void *send_when_it_sleeps(void *arg)
{
	struct late *l = arg;
	int seen = 0;

	while (seen < 4) {
		nap_ms(20);
		seen = l->is_begun && state_of(l->reader) == 'S' ? seen + 1 : 0;
	}
	if (send(l->fd, "x", 1, 0) != 1)
		die("send: %s", strerror(errno));
	return NULL;
}

/* An error that ends recvmmsg after some messages is for the next call. */
CASE(error_after_some_messages)
{
	int id = peer_udp(port(0)), fd = udp_server(port(1));
	struct sockaddr_in a = addr_peer(port(0));
	struct late l = {.fd = fd, .reader = gettid()};
	struct iovec v[2] = {{(char[8]){0}, 8}, {(char[8]){0}, 8}};
	struct mmsghdr m[2];
	pthread_t t;

	memset(m, 0, sizeof(m));
	for (int i = 0; i < 2; i++)
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	ret("connect", connect(fd, SA(a), sizeof(a)));
	peer_ok("udp_text %d %d abc", id, port(1));
	settle_in(fd);
	peer_ok("close %d", id);
	if (pthread_create(&t, NULL, send_when_it_sleeps, &l))
		die("pthread_create");
	l.is_begun = 1;
	ret("recvmmsg", recvmmsg(fd, m, 2, 0, NULL));
	pthread_join(t, NULL);
	out("%u", m[0].msg_len);
	rev("poll", settle(fd, POLLERR));
	ret("recv", recv(fd, (char[4]){0}, 4, MSG_DONTWAIT));
	ret("recv", recv(fd, (char[4]){0}, 4, MSG_DONTWAIT));
}
