/* ops_udp.c - operations on datagram sockets (run --udp): bind, connect, every form of send and receive, what
 * the peer sends, what waits and what wakes it, children.
 *
 * Worker's main thread. What is sent must arrive: there are few datagrams on their way at a time, so no
 * buffer fills up. The peer counts what it gets, and waits for as many as were sent; whether one that the
 * peer sends is received, and by which of several sockets on a port, the other leg says.
 */
#include "diff.h"

#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { NOBODY, TO_A, TO_B, ELSEWHERE, UDP_MAX = 65507, MESSAGES = 4 };

static int peer_port[2];
static bool is_child;
static int waiting; /* datagrams that the peer has sent in this sequence, and bytes */
static size_t waiting_bytes;
static int waiting_base; /* first_port of that sequence */
static uint8_t data[70000], got[70000];

static void op_udp_peer_sends(void);

static bool is_udp(const struct slot *s)
{
	return world->objs[s->obj].kind == KIND_UDP;
}

static bool is_bound(const struct slot *s)
{
	return is_udp(s) && world->objs[s->obj].port;
}

static int local_port(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);

	return getsockname(fd, (struct sockaddr *)&a, &len) < 0 ? 0 : ntohs(a.sin6_port);
}

/* Of a port of the peer's, or of ours: that one we did not choose is the same as one of the peer's is chance.
 */
static const char *name_of(int port, bool is_peer)
{
	static char name[16];

	if (port >= world->first_port && port < world->first_port + PORTS) {
		snprintf(name, sizeof(name), "P%d", port - world->first_port);
		return name;
	}
	return is_peer && port == peer_port[0]   ? "A"
	       : is_peer && port == peer_port[1] ? "B"
	       : port == 9                       ? "closed"
	       : port                            ? "some"
	                                         : "0";
}

static void say_from(const struct sockaddr_storage *ss, socklen_t len)
{
	const struct sockaddr_in *in = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;
	struct in_addr a = in->sin_addr;

	say(" len%u", len);
	if (len < sizeof(*in))
		return;
	if (ss->ss_family == AF_INET6) {
		memcpy(&a, in6->sin6_addr.s6_addr + 12, 4);
		say(" 6:%s", IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) ? "mapped" : "");
	}
	say(" %s:%s",
	        a.s_addr == setup.own.s_addr    ? "own"
	        : a.s_addr == setup.peer.s_addr ? "peer"
	        : !a.s_addr                     ? "any"
	                                        : "other",
	        name_of(ntohs(in->sin_port), a.s_addr == setup.peer.s_addr));
}

static socklen_t address(struct sockaddr_storage *ss, int domain, struct in_addr a, int port)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (domain == AF_INET) {
		*in = (struct sockaddr_in){
		        .sin_family = AF_INET, .sin_addr = a, .sin_port = htons((uint16_t)port)};
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	if (a.s_addr) {
		in6->sin6_addr.s6_addr[10] = in6->sin6_addr.s6_addr[11] = 0xff;
		memcpy(in6->sin6_addr.s6_addr + 12, &a, 4);
	}
	return sizeof(*in6);
}

/* Somebody to send to or to connect to. */
static socklen_t somebody(struct sockaddr_storage *ss, int domain, int *who)
{
	socklen_t len;

	*who = percent(60) ? TO_A : percent(80) ? TO_B : ELSEWHERE;
	if (*who != ELSEWHERE)
		len = address(ss, domain, setup.peer, peer_port[*who - TO_A]);
	else
		len = address(ss, domain, setup.peer, percent(90) ? 9 : 0);
	if (percent(2)) {
		len = (socklen_t)chance(8);
		*who = ELSEWHERE;
	} else if (percent(2)) {
		ss->ss_family = 77;
		*who = ELSEWHERE;
	}
	say(" %s", *who == TO_A ? "A" : *who == TO_B ? "B" : "elsewhere");
	return len;
}

static void op_udp_socket(void)
{
	int domain = percent(88) ? AF_INET : AF_INET6, slot;
	int type = SOCK_DGRAM | (percent(60) ? SOCK_NONBLOCK : 0) | (percent(30) ? SOCK_CLOEXEC : 0);
	int protocol = percent(70) ? 0 : percent(90) ? IPPROTO_UDP : IPPROTO_TCP, fd;

	for (int i = 0; i < 2 && !peer_port[i]; i++)
		peer_port[i] = peer_do(PEER_UDP_PORT, i, 0).value;
	if (slot_free() < 0)
		return;
	fd = socket(domain, type, protocol);
	say(" %d,%#x,%d", domain, (unsigned int)type, protocol);
	if (fd < 0) {
		say_rc(fd);
		return;
	}
	slot = slot_open(fd, KIND_UDP, domain);
	say("=%d", slot);
	if (percent(30)) {
		int one = 1;

		say(" reuseaddr");
		say_rc(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	}
}

/* README: an edge is told again when a socket becomes Pronk's, or is not any more. */
static bool is_unbound_edge(const struct obj *o)
{
	return !o->port && o->is_edge;
}

static void bind_to(int slot, bool is_wild, int port)
{
	struct sockaddr_storage ss;
	struct in_addr any = {0};
	int fd = world->slots[slot].fd, domain = obj_of(slot)->domain;
	socklen_t len = address(&ss, domain, is_wild ? any : setup.own, port);

	say(" %d %s:%s", slot, is_wild ? "any" : "own", name_of(port, false));
	if (percent(3)) {
		len = (socklen_t)chance(10);
		say(" len%u", len);
	} else if (percent(3)) {
		ss.ss_family = 77;
		say(" family");
	}
	if (!say_rc(bind(fd, (struct sockaddr *)&ss, len))) {
		obj_of(slot)->port = local_port(fd);
		obj_of(slot)->was_bound = !port;
	}
}

static void op_udp_bind(void)
{
	int slot = slot_pick(is_udp), at;

	/* README: what is unread goes with the old port, or the kernel half keeps that */
	if (slot < 0)
		return;
	if (is_unbound_edge(obj_of(slot)) || obj_of(slot)->was_let_go) {
		op_udp_peer_sends();
		return;
	}
	/* a wildcard and an address of ours do not share a port here: README.md */
	at = (int)chance(PORTS);
	bind_to(slot, at == 1, percent(75) ? port_for(at) : 0);
}

/* A socket that can be sent to. */
static void op_udp_open(void)
{
	if (slot_free() < 0)
		return;
	op_udp_socket();
	for (int i = 0; i < SLOTS; i++)
		if (world->slots[i].fd >= 0 && world->slots[i].serial == world->serial &&
		        is_udp(&world->slots[i])) {
			int at = (int)chance(PORTS);

			say(" bind");
			bind_to(i, at == 1, percent(80) ? port_for(at) : 0);
			return;
		}
}

static void op_udp_connect(void)
{
	int slot = slot_pick(is_udp), who = NOBODY;
	struct sockaddr_storage ss = {.ss_family = AF_UNSPEC};
	socklen_t len = sizeof(struct sockaddr_in6);
	struct obj *o;
	int fd;

	if (slot < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	if (is_unbound_edge(o)) {
		op_udp_peer_sends();
		return;
	}
	say(" %d", slot);
	if (percent(80) || o->is_edge) {
		len = somebody(&ss, o->domain, &who);
	} else {
		say(" unspec");
		o->was_let_go = true;
	}
	barrier(); /* nothing comes beside the call */
	if (say_rc(connect(fd, (struct sockaddr *)&ss, len)))
		return;
	o->dest = who;
	if (o->is_corked && who != NOBODY)
		o->cork_to = who; /* it follows */
	o->port = local_port(fd);
	barrier();
}

/* What the peer has got: of each socket, as many as were sent and content, size and sender of all. */
static void taken(const int *expected)
{
	barrier();
	for (int i = 0; i < 2; i++) {
		struct peer_answer r;

		if (!expected[i] && !percent(30))
			continue;
		r = peer_do(PEER_UDP_TAKE, i, expected[i]);
		if (r.rc || expected[i])
			say(" {%s: %d, %u bytes %08x from %s}", i ? "B" : "A", r.rc, r.size, r.hash,
			        r.rc ? name_of(r.value, false) : "-");
	}
}

/* The refusal that a connected socket is sure to get: it has its own way back, so the barrier does not wait
 * for it where both ends are under Pronk. */
static void refused(int fd, const struct obj *o, int who)
{
	struct pollfd p = {.fd = fd};

	if (who == ELSEWHERE && o->dest == ELSEWHERE && !o->is_corked)
		poll(&p, 1, 1000);
}

/* Takes note of a send of size bytes that went well. */
static void sent(struct obj *o, int who, size_t size, bool is_more, int *expected)
{
	if (o->is_corked)
		who = o->cork_to;
	o->is_corked = is_more || o->has_cork;
	o->cork_to = who;
	o->cork_size += size;
	if (o->is_corked)
		return;
	o->cork_size = 0;
	if (who == TO_A || who == TO_B)
		expected[who - TO_A]++;
}

static void op_udp_send(void)
{
	static const int sizes[] = {0, 1, 10, 100, 1000, 1472, 1473, 4000, 9000, UDP_MAX, UDP_MAX + 1, 70000};
	int slot = slot_pick(is_udp), form = (int)chance(6), flags = MSG_DONTWAIT, expected[2] = {0}, who;
	size_t size = (size_t)sizes[chance(percent(85) ? 6 : 12)];
	struct sockaddr_storage ss;
	struct mmsghdr mm[MESSAGES] = {0};
	struct iovec iov[MESSAGES * 2];
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	bool has_to = percent(60), is_more, was_corked;
	unsigned int count;
	uint32_t x = chance(1u << 30) | 1;
	struct obj *o;
	socklen_t len;
	ssize_t rc;
	int fd;

	if (slot < 0)
		return;
	o = obj_of(slot);
	/* README: a child does not give its parent's socket a port */
	if (is_unbound_edge(o) || (is_child && !o->port))
		return;
	fd = world->slots[slot].fd;
	if (o->cork_size > 3000)
		size = 1;
	for (size_t i = 0; i < size; i++) {
		x = x * 1664525 + 1013904223;
		data[i] = (uint8_t)(x >> 24);
	}
	is_more = percent(12) && form < 3 && !is_child;
	flags |= (percent(70) ? MSG_NOSIGNAL : 0) | (is_more ? MSG_MORE : 0) | (percent(2) ? MSG_OOB : 0) |
	         (percent(2) ? MSG_CONFIRM : 0);
	if (o->is_corked && form >= 3)
		form = 0;
	who = o->dest;
	say(" %d form%d size%zu flags%x", slot, form, size, (unsigned int)flags);
	if (form >= 3 && is_blocking(fd) && form != 5)
		form = 0;
	/* README: what a connected socket has put together for somebody else changes where it sends, in the
	 * kernel */
	if (o->dest && (is_more || o->has_cork))
		has_to = false;
	if (has_to && form != 3 && form != 4) {
		len = somebody(&ss, o->domain, &who);
		m.msg_name = &ss;
		m.msg_namelen = len;
	}
	iov[0] = (struct iovec){data, size / 3};
	iov[1] = (struct iovec){data + size / 3, size - size / 3};
	switch (form) {
	case 0:
	case 1:
		rc = m.msg_name ? sendto(fd, data, size, flags, m.msg_name, m.msg_namelen)
		                : send(fd, data, size, flags);
		break;
	case 2:
		rc = sendmsg(fd, &m, flags);
		break;
	case 3:
		rc = write(fd, data, size);
		break;
	case 4:
		rc = writev(fd, iov, 2);
		break;
	default:
		if (size > 4000)
			size = 4000;
		/* whether the first one's refusal is back before the second is sent, is chance */
		count = who == ELSEWHERE && o->dest == ELSEWHERE ? 1 : MESSAGES;
		for (int i = 0; i < MESSAGES; i++) {
			iov[i * 2] = (struct iovec){data, size / (size_t)(i + 1)};
			mm[i].msg_hdr = (struct msghdr){.msg_name = m.msg_name,
			        .msg_namelen = m.msg_namelen,
			        .msg_iov = &iov[i * 2],
			        .msg_iovlen = 1};
		}
		rc = sendmmsg(fd, mm, count, flags & ~MSG_OOB);
		for (int i = 0; i < rc; i++) {
			say(" %u", mm[i].msg_len);
			sent(o, who, mm[i].msg_len, false, expected);
		}
	}
	was_corked = o->is_corked;
	if (say_rc(rc) >= 0 && form != 5)
		sent(o, who, (size_t)rc, is_more, expected);
	if (rc >= 0)
		refused(fd, o, was_corked ? o->cork_to : who);
	say_signals();
	o->port = local_port(fd);
	taken(expected);
}

static void op_udp_cork(void)
{
	int slot = slot_pick(is_udp), on, expected[2] = {0}, fd, rc;
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	on = o->has_cork ? 0 : (int)chance(2);
	say(" %d %d", slot, on);
	rc = (int)say_rc(setsockopt(fd, IPPROTO_UDP, UDP_CORK, &on, sizeof(on)));
	if (rc)
		return;
	o->has_cork = on;
	if (!on && o->is_corked) {
		o->is_corked = false;
		o->cork_size = 0;
		if (o->cork_to == TO_A || o->cork_to == TO_B)
			expected[o->cork_to - TO_A]++;
		refused(fd, o, o->cork_to);
	}
	taken(expected);
}

/* The peer sends some datagrams to a port of ours. */
static bool peer_sends(int port, int count, int delay_us)
{
	static const int sizes[] = {0, 1, 10, 100, 1000, 1472, 1473, 4000};

	if (waiting_base != world->first_port)
		waiting = 0, waiting_bytes = 0;
	waiting_base = world->first_port;
	for (int i = 0; i < count; i++) {
		int size = sizes[chance(percent(80) ? 6 : 8)], who = (int)chance(2);

		if (waiting >= 40 || waiting_bytes + (size_t)size > 30000)
			return i > 0;
		waiting++;
		waiting_bytes += (size_t)size;
		say(" %s:%d", who ? "B" : "A", size);
		peer_go(PEER_UDP_SEND, who, port | size << 16, delay_us);
		if (delay_us)
			return true; /* the answer is still to be had */
		if (peer_get().rc)
			say("=failed");
	}
	return true;
}

/* README: of two sockets on one port the kernel prefers one that has received while it was connected, on the
 * processor where it did. */
static bool is_preferred_by_chance(const struct obj *o)
{
	bool is_shared = false, was_connected = false;

	for (int i = 0; i < SLOTS; i++) {
		if (world->slots[i].fd < 0 || obj_of(i)->port != o->port)
			continue;
		is_shared |= obj_of(i) != o;
		was_connected |= obj_of(i)->was_let_go;
	}
	return is_shared && was_connected;
}

static void op_udp_peer_sends(void)
{
	int slot = slot_pick(is_bound);

	if (slot < 0 || is_preferred_by_chance(obj_of(slot)))
		return;
	say(" %d", slot);
	peer_sends(obj_of(slot)->port, 1 + (int)chance(3), 0);
	barrier();
}

static void op_udp_recv(void)
{
	static const int sizes[] = {0, 1, 100, 1472, 9000, 65536};
	int slot = slot_pick(is_udp), form = (int)chance(6), flags = MSG_DONTWAIT;
	size_t size = (size_t)sizes[percent(70) ? 5 : chance(6)];
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	struct mmsghdr mm[MESSAGES] = {0};
	struct iovec iov[MESSAGES];
	struct msghdr m = {.msg_name = &ss, .msg_namelen = sizeof(ss), .msg_iov = iov, .msg_iovlen = 2};
	ssize_t rc;
	int fd;

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	flags |= (percent(20) ? MSG_PEEK : 0) | (percent(20) ? MSG_TRUNC : 0) |
	         (percent(5) ? MSG_WAITALL : 0) | (percent(2) ? MSG_OOB : 0) |
	         (percent(2) ? MSG_ERRQUEUE : 0);
	if (form >= 3 && form != 5 && is_blocking(fd))
		form = 1;
	memset(got, 0, size);
	iov[0] = (struct iovec){got, size / 3};
	iov[1] = (struct iovec){got + size / 3, size - size / 3};
	say(" %d form%d size%zu flags%x", slot, form, size, (unsigned int)flags);
	switch (form) {
	case 0:
		rc = recv(fd, got, size, flags);
		break;
	case 1:
		rc = recvfrom(fd, got, size, flags, (struct sockaddr *)&ss, &len);
		if (rc >= 0)
			say_from(&ss, len);
		break;
	case 2:
		rc = recvmsg(fd, &m, flags);
		if (rc >= 0) {
			say_from(&ss, m.msg_namelen);
			say(" msg_flags%x", (unsigned int)m.msg_flags);
		}
		break;
	case 3:
		rc = read(fd, got, size);
		break;
	case 4:
		rc = readv(fd, iov, 2);
		break;
	default:
		for (int i = 0; i < MESSAGES; i++) {
			iov[i] = (struct iovec){got + i * 16000, size < 16000 ? size : 16000};
			mm[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
		}
		memset(got, 0, sizeof(got));
		rc = recvmmsg(fd, mm, MESSAGES, flags & ~(MSG_PEEK | MSG_OOB | MSG_ERRQUEUE), NULL);
		for (int i = 0; i < rc; i++)
			say(" %u,%x %08x", mm[i].msg_len, (unsigned int)mm[i].msg_hdr.msg_flags,
			        hash_of(iov[i].iov_base, iov[i].iov_len));
	}
	if (say_rc(rc) > 0 && form != 5)
		say(" %08x", hash_of(got, (size_t)rc < size ? (size_t)rc : size));
}

static void op_udp_ask(void)
{
	int slot = slot_pick(is_udp), n = -1, fd;
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(n);

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	barrier();
	switch (chance(6)) {
	case 0:
		say(" SO_ERROR");
		say_rc(getsockopt(fd, SOL_SOCKET, SO_ERROR, &n, &len));
		say(",%s", strerrorname_np(n) ?: "0");
		break;
	case 1:
		say(" FIONREAD");
		say_rc(ioctl(fd, FIONREAD, &n));
		say(",%d", n);
		break;
	case 2:
		say(" getsockname");
		len = sizeof(ss);
		if (!say_rc(getsockname(fd, (struct sockaddr *)&ss, &len)))
			say_from(&ss, len);
		break;
	case 3:
		say(" getpeername");
		len = sizeof(ss);
		if (!say_rc(getpeername(fd, (struct sockaddr *)&ss, &len)))
			say_from(&ss, len);
		break;
	case 4:
		say(" TIOCOUTQ");
		say_rc(ioctl(fd, TIOCOUTQ, &n));
		/* what is in a cork is counted with the kernel's own structures around it */
		if (obj_of(slot)->is_corked && n > 0)
			say(",corked");
		else
			say(",%d", n);
		break;
	default:
		say(" listen");
		say_rc(listen(fd, 5));
		say(" accept");
		say_rc(accept(fd, NULL, NULL));
	}
}

static void op_udp_shutdown(void)
{
	int slot = slot_pick(is_udp), how = (int)chance(4);

	if (slot < 0)
		return;
	say(" %d,%d", slot, how);
	say_rc(shutdown(world->slots[slot].fd, how));
	if (how != SHUT_WR && how < 3)
		obj_of(slot)->is_shut_rd = true;
}

/* Sleeps until a datagram comes that is sure to come. */
static void op_udp_wait(void)
{
	int slot = slot_pick(is_bound), delay = 1 + (int)chance(4) * 150, form = (int)chance(4), fd, rc, epfd;
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	struct epoll_event ev = {.events = EPOLLIN};
	struct pollfd p = {.events = POLLIN};
	struct timeval tv = {LIMIT_MS / 1000, 0};
	struct obj *o;
	ssize_t n;
	fd_set in;

	if (slot < 0)
		return;
	o = obj_of(slot);
	p.fd = fd = world->slots[slot].fd;
	if (o->dest || o->is_shut_rd || fd >= FD_SETSIZE)
		return;
	for (int i = 0; i < SLOTS; i++)
		if (world->slots[i].fd >= 0 && obj_of(i) != o && obj_of(i)->port == o->port)
			return;
	say(" %d form%d", slot, form);
	if (!peer_sends(o->port, 1, delay))
		return;
	switch (form) {
	case 0:
		rc = poll(&p, 1, LIMIT_MS);
		break;
	case 1:
		epfd = epoll_create1(EPOLL_CLOEXEC);
		if (percent(50))
			ev.events |= (uint32_t)EPOLLET;
		epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
		rc = epoll_wait(epfd, &ev, 1, LIMIT_MS);
		close(epfd);
		break;
	case 2:
		FD_ZERO(&in);
		FD_SET(fd, &in);
		rc = select(fd + 1, &in, NULL, NULL, &tv);
		break;
	default:
		rc = 1;
		if (!is_blocking(fd))
			break;
		n = recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&ss, &len);
		if (say_rc(n) >= 0)
			say_from(&ss, len);
		if (n > 0)
			say(" %08x", hash_of(got, (size_t)n));
	}
	say_rc(rc);
	peer_get();
	barrier();
	if (rc == 0) {
		say(" LOST WAKE-UP\n");
		_exit(LOST_WAKE_UP);
	}
}

/* A datagram that is put together belongs to the process: README.md. */
static bool has_corked(void)
{
	for (int i = 0; i < world->obj_count; i++)
		if (world->objs[i].is_corked || world->objs[i].has_cork)
			return true;
	return false;
}

/* A child sends or receives with the sockets that it shares; its parent waits for its end. */
static void op_udp_fork(void)
{
	int slot = percent(40) ? slot_pick(is_udp) : -1, status, turns = 1 + (int)chance(3), fds[2];
	pid_t pid;
	char c;

	if (pipe2(fds, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		close(fds[1]);
		is_child = true;
		if (read(fds[0], &c, 1) != 1)
			_exit(9);
		for (int i = 0; i < turns; i++) {
			say(" [");
			if (percent(50) && !has_corked())
				op_udp_send();
			else
				op_udp_recv();
			say("]");
		}
		_exit(7);
	}
	close(fds[0]);
	if (slot >= 0) {
		/* the child's is the last of it then, unless there are duplicates */
		say(" %d closed", slot);
		say_rc(close(world->slots[slot].fd));
	}
	if (write(fds[1], "g", 1) != 1)
		abort();
	while (waitpid(pid, &status, 0) < 0)
		;
	close(fds[1]);
	if (slot >= 0)
		slot_gone(slot);
	say(" child's end %x", (unsigned int)status);
	barrier();
}

const struct op ops_udp[] = {
        {"udp socket", op_udp_socket, {[TCP_FLAVOURS] = 3}},
        {"udp open", op_udp_open, {[TCP_FLAVOURS] = 6}},
        {"udp bind", op_udp_bind, {[TCP_FLAVOURS] = 4}},
        {"udp connect", op_udp_connect, {[TCP_FLAVOURS] = 8}},
        {"udp send", op_udp_send, {[TCP_FLAVOURS] = 14}},
        {"udp cork", op_udp_cork, {[TCP_FLAVOURS] = 2}},
        {"udp peer sends", op_udp_peer_sends, {[TCP_FLAVOURS] = 12}},
        {"udp recv", op_udp_recv, {[TCP_FLAVOURS] = 14}},
        {"udp ask", op_udp_ask, {[TCP_FLAVOURS] = 6}},
        {"udp shutdown", op_udp_shutdown, {[TCP_FLAVOURS] = 1}},
        {"udp wait", op_udp_wait, {[TCP_FLAVOURS] = 6}},
        {"udp fork", op_udp_fork, {[TCP_FLAVOURS] = 2}},
        {NULL, NULL, {0}},
};
