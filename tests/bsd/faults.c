/* faults.c - what a program should not pass: addresses that nobody can read, lengths that cannot be, names
 * where there is no room. The kernel answers with an error and goes on; nothing may crash, hang or be lost.
 */
#include "datagram.h"

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

/* The compiler shall not know. */
static void *volatile last_address = (void *)-1;
static void *volatile nothing;
static volatile int too_many = INT32_MAX;

static void *unreadable(void)
{
	void *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static void two_kinds(void (*one)(void *bad))
{
	one(last_address);
	out("|");
	one(unreadable());
}

static void names_of_fresh(void *bad)
{
	int tcp = tcp_socket(), udp = udp_socket();

	ret("connect", connect(tcp, bad, sizeof(struct sockaddr_in)));
	ret("bind", bind(tcp, bad, sizeof(struct sockaddr_in)));
	ret("connect", connect(udp, bad, sizeof(struct sockaddr_in)));
	ret("sendto", sendto(udp, "a", 1, 0, bad, sizeof(struct sockaddr_in)));
	ret("bind", bind(udp, bad, sizeof(struct sockaddr_in)));
	ret("getsockname", getsockname(tcp, bad, &(socklen_t){16}));
	ret("sendmsg", sendmsg(udp, bad, 0));
	close(tcp);
	close(udp);
}

CASE(names_that_cannot_be_read)
{
	two_kinds(names_of_fresh);
}

static struct conn both;

static void names_of_connected(void *bad)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	ret("connect", connect(both.fd, bad, sizeof(a)));
	ret("bind", bind(both.fd, bad, sizeof(a)));
	ret("name", getsockname(both.fd, bad, &len));
	ret("peer", getpeername(both.fd, bad, &len));
	ret("name_len", getsockname(both.fd, SA(a), bad));
	ret("peer_len", getpeername(both.fd, SA(a), bad));
	ret("sendto", sendto(both.fd, "a", 1, 0, bad, sizeof(a)));
}

CASE_BOTH(names_of_a_connection_that_cannot_be_read)
{
	both = pair();
	two_kinds(names_of_connected);
	ret("still", send(both.fd, "xyz", 3, 0));
	peer_show("read", "show %d 3", both.id);
}

static void options_bad(void *bad)
{
	int v = 1;
	socklen_t len = sizeof(v);

	ret("set", setsockopt(both.fd, IPPROTO_TCP, TCP_NODELAY, bad, sizeof(v)));
	ret("set", setsockopt(both.fd, SOL_SOCKET, SO_LINGER, bad, sizeof(struct linger)));
	ret("set", setsockopt(both.fd, SOL_SOCKET, SO_RCVTIMEO, bad, sizeof(struct timeval)));
	ret("set", setsockopt(both.fd, SOL_SOCKET, SO_BINDTODEVICE, bad, 4));
	ret("get", getsockopt(both.fd, IPPROTO_TCP, TCP_NODELAY, bad, &len));
	ret("get", getsockopt(both.fd, IPPROTO_TCP, TCP_NODELAY, &v, bad));
	ret("get", getsockopt(both.fd, SOL_SOCKET, SO_ERROR, bad, &len));
	ret("nread", ioctl(both.fd, FIONREAD, bad));
	ret("nbio", ioctl(both.fd, FIONBIO, bad));
}

CASE_BOTH(options_that_cannot_be_read)
{
	both = pair();
	two_kinds(options_bad);
}

static void messages_bad(void *bad)
{
	struct iovec iov = {bad, 4};
	struct msghdr m = {.msg_iov = bad, .msg_iovlen = 1}, v = {.msg_iov = &iov, .msg_iovlen = 1};
	off_t at = 0;
	int file = open("/proc/self/exe", O_RDONLY);

	ret("recvmsg", recvmsg(both.fd, bad, 0));
	ret("sendmsg", sendmsg(both.fd, bad, 0));
	ret("recvmsg_iov", recvmsg(both.fd, &m, 0));
	ret("sendmsg_iov", sendmsg(both.fd, &m, 0));
	ret("readv", readv(both.fd, bad, 2));
	ret("writev", writev(both.fd, bad, 2));
	ret("recvmmsg", recvmmsg(both.fd, bad, 2, 0, NULL));
	ret("sendmmsg", sendmmsg(both.fd, bad, 2, 0));
	ret("recvmmsg_time", recvmmsg(both.fd, &(struct mmsghdr){.msg_hdr = {.msg_iov = &iov}}, 1, 0, bad));
	ret("sendfile", sendfile(both.fd, file, bad, 4));
	(void)at;
	if (bad == last_address) { /* data in memory that is there but closed is copied by ourselves */
		ret("send", send(both.fd, bad, 4, 0));
		ret("write", write(both.fd, bad, 4));
		ret("sendmsg_data", sendmsg(both.fd, &v, 0));
		ret("writev_data", writev(both.fd, &iov, 1));
		ret("recv", recv(both.fd, bad, 4, 0));
		ret("read", read(both.fd, bad, 4));
		ret("recvmsg_data", recvmsg(both.fd, &v, 0));
		ret("readv_data", readv(both.fd, &iov, 1));
		ret("peek", recv(both.fd, bad, 4, MSG_PEEK));
	}
	close(file);
}

CASE_BOTH(messages_that_cannot_be_read)
{
	int n = 0;

	both = pair();
	peer_ok("send %d 8", both.id);
	settle_bytes(both.fd, 8);
	two_kinds(messages_bad);
	ret("still", ioctl(both.fd, FIONREAD, &n));
	out("n=%d", n);
	peer_show("quiet", "peek %d", both.id);
}

static void waits_bad(void *bad)
{
	struct epoll_event ev;
	int ep = set_new();

	ret("poll", poll(bad, 1, 0));
	ret("select", select(4, bad, NULL, NULL, &(struct timeval){0}));
	ret("ctl", epoll_ctl(ep, EPOLL_CTL_ADD, both.fd, bad));
	ctl(ep, EPOLL_CTL_ADD, both.fd, EPOLLIN | EPOLLOUT, 1);
	ret("wait", epoll_wait(ep, bad, 1, 1000));
	ret("wait", epoll_wait(ep, &ev, 1, 1000));
	ret("many", epoll_wait(ep, &ev, too_many, 0));
	ret("pwait2", syscall(SYS_epoll_pwait2, ep, &ev, 1, bad, NULL, 8));
	close(ep);
}

CASE_BOTH(waits_with_memory_that_cannot_be_read)
{
	both = pair();
	two_kinds(waits_bad);
}

CASE(accept_where_the_name_cannot_go)
{
	struct sockaddr_in a;
	socklen_t bad = (socklen_t)-1, len;
	int l = listener(port(0)), fd;

	set_nonblock(l, true);
	ret("empty", accept(l, SA(a), &bad));
	ret("empty", accept(l, SA(a), nothing));
	ret("empty", accept(l, last_address, &(socklen_t){16}));
	peer_connect(port(0));
	settle(l, POLLIN);
	fd = ret_fd("no_name", accept(l, NULL, &bad));
	out("len=%d", (int)bad);
	close(fd);
	peer_connect(port(0));
	settle(l, POLLIN);
	ret("negative", accept(l, SA(a), &bad));
	ret("gone", accept(l, NULL, NULL));
	peer_connect(port(0));
	settle(l, POLLIN);
	ret("bad", accept(l, last_address, &(socklen_t){16}));
	ret("gone", accept(l, NULL, NULL));
	peer_connect(port(0));
	settle(l, POLLIN);
	len = 0;
	fd = ret_fd("zero", accept(l, nothing, &len));
	out("len=%d", (int)len);
	close(fd);
	peer_connect(port(0));
	settle(l, POLLIN);
	len = 0;
	fd = ret_fd("zero", accept(l, last_address, &len));
	out("len=%d", (int)len);
	close(fd);
}

CASE_BOTH(names_where_there_is_no_room)
{
	struct conn c = pair();
	int l = listener(port(5)), udp = udp_server(port(6));
	socklen_t len = 0;

	ret("zero", getsockname(c.fd, nothing, &len));
	out("len=%d", (int)len);
	len = 0;
	ret("zero", getpeername(c.fd, nothing, &len));
	out("len=%d", (int)len);
	len = (socklen_t)-1;
	ret("negative", getsockname(c.fd, nothing, &len));
	ret("negative", getpeername(c.fd, nothing, &len));
	ret("listener", getpeername(l, nothing, &len));
	ret("listener", getpeername(l, nothing, nothing));
	len = 0;
	ret("listener", getsockname(l, nothing, &len));
	out("len=%d", (int)len);
	len = 0;
	ret("udp", getsockname(udp, nothing, &len));
	out("len=%d", (int)len);
	ret("udp", getpeername(udp, nothing, nothing));
	len = (socklen_t)-1;
	ret("udp", getsockname(udp, nothing, &len));
	ret("udp", getpeername(udp, nothing, &len));
}

CASE_BOTH(nothing_to_read_and_nowhere_to_put_it)
{
	struct conn c = pair();
	static char b[4];
	struct iovec iov = {last_address, 4};

	ret("recv", recv(c.fd, last_address, 4, MSG_DONTWAIT));
	ret("recv", recv(c.fd, nothing, 4, MSG_DONTWAIT));
	ret("readv", readv(c.fd, &iov, 1));
	ret("long", recv(c.fd, b, (size_t)too_many + 1, MSG_DONTWAIT));
	ret("longest", recv(c.fd, b, (size_t)(intptr_t)last_address, MSG_DONTWAIT));
}

CASE_BOTH(sender_of_a_stream)
{
	struct conn c = pair();
	struct sockaddr_in a;
	socklen_t len = (socklen_t)-1;
	char b[4], control[64];
	struct iovec iov = {b, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_name = &a, .msg_namelen = (socklen_t)-1};

	peer_ok("send %d 8", c.id);
	settle_bytes(c.fd, 8);
	ret("negative", recvfrom(c.fd, b, 1, 0, SA(a), &len));
	ret("null", recvfrom(c.fd, b, 1, 0, SA(a), nothing));
	ret("bad", recvfrom(c.fd, b, 1, 0, last_address, &(socklen_t){16}));
	ret("no_name", recvfrom(c.fd, b, 1, 0, NULL, &len));
	out("len=%d", (int)len);
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	ret("sendmsg", sendmsg(c.fd, &m, 0));
	m.msg_name = NULL;
	ret("recvmsg", recvmsg(c.fd, &m, MSG_CMSG_CLOEXEC));
	out("namelen=%d flags=%#x", (int)m.msg_namelen, (unsigned)m.msg_flags);
	m.msg_name = &a;
	m.msg_namelen = 77;
	m.msg_control = control;
	m.msg_controllen = sizeof(control);
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	out("namelen=%d flags=%#x control=%d", (int)m.msg_namelen, (unsigned)m.msg_flags,
	        (int)m.msg_controllen);
	ret("last", recv(c.fd, b, 4, 0));
}

CASE_BOTH(lengths_of_names)
{
	struct sockaddr_storage ss[2] = {0};
	struct sockaddr_in a = addr_peer(port(0));
	struct conn c = pair();
	int fd = tcp_socket(), udp = udp_socket(), id = peer_udp(port(1));

	memcpy(ss, &a, sizeof(a));
	ret("send", sendto(c.fd, "a", 1, 0, (struct sockaddr *)ss, sizeof(ss[0])));
	ret("send", sendto(c.fd, "a", 1, 0, (struct sockaddr *)ss, sizeof(ss[0]) + 1));
	ret("send", sendto(c.fd, "a", 1, 0, (struct sockaddr *)ss, (socklen_t)-1));
	ret("send", sendto(c.fd, "a", 1, 0, NULL, (socklen_t)-1));
	ret("connect", connect(fd, (struct sockaddr *)ss, sizeof(ss[0]) + 1));
	ret("connect", connect(fd, (struct sockaddr *)ss, (socklen_t)-1));
	a = addr_peer(port(1));
	memcpy(ss, &a, sizeof(a));
	ret("udp", sendto(udp, "a", 1, 0, (struct sockaddr *)ss, sizeof(ss[0]) + 1));
	ret("udp", sendto(udp, "a", 1, 0, (struct sockaddr *)ss, sizeof(ss[0])));
	ret("udp", connect(udp, (struct sockaddr *)ss, sizeof(ss[0]) + 1));
	ret("udp", connect(udp, (struct sockaddr *)ss, sizeof(ss[0])));
	peer_show("got", "udp_show %d", id);
	a = addr_server(port(2));
	memcpy(ss, &a, sizeof(a));
	ret("bind", bind(fd, (struct sockaddr *)ss, sizeof(ss[0]) + 1));
	ret("bind", bind(fd, (struct sockaddr *)ss, sizeof(ss[0])));
	peer_show("stream", "show %d 2", c.id);
}

CASE_BOTH(vectors_longer_than_memory)
{
	struct conn c = pair();
	char b[8], d[8];
	struct iovec iov[3] = {{b, INTPTR_MAX}, {d, INTPTR_MAX}, {d, INTPTR_MAX}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 3};

	peer_ok("send %d 12", c.id);
	settle_bytes(c.fd, 12);
	iov[0].iov_len = 3;
	ret("readv", readv(c.fd, iov, 2));
	iov[0].iov_len = 2;
	iov[1].iov_len = 1;
	ret("readv", readv(c.fd, iov, 3));
	peer_ok("send %d 4", c.id);
	settle_bytes(c.fd, 4);
	iov[1].iov_len = SIZE_MAX;
	ret("recvmsg", recvmsg(c.fd, &m, 0));
	iov[1].iov_len = 1;
	ret("recvmsg", recvmsg(c.fd, &m, 0));
}

CASE_BOTH(what_a_connection_does_not_take)
{
	struct conn c = pair();
	union {
		struct cmsghdr head;
		char room[64];
	} control = {{0}};
	struct iovec iov = {"a", 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};
	int dir = open("/", O_RDONLY), file = open("/proc/self/exe", O_RDONLY), ends[2];
	off_t at = 0;

	ret("pipe", pipe(ends));
	ret("direct", fcntl(c.fd, F_SETFL, O_DIRECT));
	ret("fast", send(c.fd, "a", 1, MSG_FASTOPEN));
	ret("dir", sendfile(c.fd, dir, &at, 10));
	ret("much", sendfile(c.fd, file, &at, (size_t)(intptr_t)last_address));
	ret("splice", splice(c.fd, NULL, ends[1], NULL, (size_t)(intptr_t)last_address, 0));
	m.msg_controllen = (size_t)1 << 33;
	ret("huge", sendmsg(c.fd, &m, 0));
	m.msg_controllen = 8;
	ret("short", sendmsg(c.fd, &m, 0));
	m.msg_controllen = sizeof(control.head);
	ret("empty", sendmsg(c.fd, &m, 0));
	control.head.cmsg_len = sizeof(control.head);
	control.head.cmsg_level = IPPROTO_IP;
	control.head.cmsg_type = IP_TTL;
	ret("level", sendmsg(c.fd, &m, 0));
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	ret("rights", sendmsg(c.fd, &m, 0));
	control.head.cmsg_type = 77;
	ret("type", sendmsg(c.fd, &m, 0));
	control.head.cmsg_len = 1000;
	ret("long", sendmsg(c.fd, &m, 0));
	m.msg_control = last_address;
	ret("bad", sendmsg(c.fd, &m, 0));
	ret("shut", shutdown(c.fd, SHUT_WR));
	peer_show("got", "recv %d 100", c.id);
}

CASE(connect_elsewhere_when_connected)
{
	struct sockaddr_in a = addr_loopback(port(0)), b = addr_peer(port(1));
	socklen_t len = sizeof(a);
	int l = tcp_socket(), fd = tcp_socket();

	peer_ok("listen %d 4 0", port(1));
	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 4));
	ret("connect", connect(fd, SA(a), sizeof(a)));
	ret("again", connect(fd, SA(a), sizeof(a)));
	ret("elsewhere", connect(fd, SA(b), sizeof(b)));
	ret("peer", getpeername(fd, SA(a), &len));
	show_addr("is", &a, len);
}

CASE(error_after_the_first_message)
{
	struct sockaddr_in a = addr_peer(port(0));
	struct mmsghdr m[2];
	struct iovec iov[2];
	char b[2][8];
	int id = peer_udp(port(0)), fd = udp_server(port(1));

	peer_ok("udp_text %d %d one", id, port(1));
	peer_ok("udp_text %d %d two", id, port(1));
	(void)a;
	settle_in(fd);
	nap_ms(30);
	memset(m, 0, sizeof(m));
	for (int i = 0; i < 2; i++) {
		iov[i] = (struct iovec){b[i], sizeof(b[i])};
		m[i].msg_hdr.msg_iov = &iov[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	iov[1].iov_base = last_address;
	ret("recvmmsg", recvmmsg(fd, m, 2, 0, NULL));
	ret("next", recv(fd, b[0], 8, MSG_DONTWAIT));
	ret("next", recv(fd, b[0], 8, MSG_DONTWAIT));
	ret("empty", recv(fd, last_address, 8, MSG_DONTWAIT));
	ret("empty", recv(fd, nothing, 8, MSG_DONTWAIT));
	peer_ok("udp_text %d %d three", id, port(1));
	settle_in(fd);
	ret("lost", recv(fd, nothing, 8, MSG_DONTWAIT));
	ret("lost", recv(fd, b[0], 8, MSG_DONTWAIT));
}

CASE(port_that_only_root_may_have)
{
	struct sockaddr_in a = addr_server(7);
	int fd = tcp_socket(), udp = udp_socket(),
	    other = udp_server(port(1)); /* while the service can be reached */
	pid_t pid = child();

	if (!pid) {
		if (setgid(65534) || setuid(65534))
			_exit(3);
		ret("tcp", bind(fd, SA(a), sizeof(a)));
		ret("udp", bind(udp, SA(a), sizeof(a)));
		a = addr_any(7);
		ret("tcp", bind(fd, SA(a), sizeof(a)));
		ret("udp", bind(udp, SA(a), sizeof(a)));
		_exit(0);
	}
	join(pid);
	close(other);
}
