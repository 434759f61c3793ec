/* ops_call.c - operations on the state of sockets: socket, bind, listen, connect, accept, shutdown, close,
 * dup, flags, names and options.
 *
 * Worker's main thread. Each says what it does, with what, and what came of it.
 */
#include "diff.h"

#include <sys/ioctl.h>
#include <sys/time.h>

static int domain_any(void)
{
	return percent(80) ? AF_INET : AF_INET6;
}

static void op_connection(void)
{
	int slot = connection_make(domain_any(), percent(30));

	if (slot >= 0)
		settle(obj_of(slot));
}

static void op_listener(void)
{
	listener_make(domain_any(), percent(40));
}

/* The peer connects, and the connection is taken at once. */
static void op_accepted(void)
{
	int slot = slot_pick(is_listening), fd;
	struct obj *o;

	if (slot < 0 && slot_free() >= 0)
		slot = listener_make(domain_any(), percent(40));
	if (slot < 0 || slot_free() < 0 || obj_of(slot)->state != STATE_LISTEN)
		return;
	o = obj_of(slot);
	if (!o->queued)
		listener_call(o);
	barrier();
	if (!(poll_now(world->slots[slot].fd, POLLIN) & POLLIN)) {
		say(" nothing to accept");
		return;
	}
	fd = accept(world->slots[slot].fd, NULL, NULL);
	say(" %d", slot);
	if (fd < 0) {
		say_rc(fd);
		return;
	}
	slot = accepted(fd, o);
	say("=%d", slot);
	settle(obj_of(slot));
}

static void op_socket(void)
{
	static const int domains[] = {AF_INET, AF_INET6, AF_INET, AF_INET, 99, AF_INET};
	static const int types[] = {SOCK_STREAM, SOCK_STREAM, SOCK_STREAM | SOCK_NONBLOCK,
	        SOCK_STREAM | SOCK_CLOEXEC, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, SOCK_STREAM, 77,
	        SOCK_STREAM | 0x4000, SOCK_SEQPACKET};
	static const int protocols[] = {0, 0, 0, IPPROTO_TCP, 0, IPPROTO_UDP, 254};
	int domain = domains[chance(6)], type = types[chance(9)], protocol = protocols[chance(7)], fd;

	if (slot_free() < 0)
		return;
	fd = socket(domain, type, protocol);
	say(" %d,%#x,%d", domain, (unsigned int)type, protocol);
	if (fd < 0)
		say_rc(fd);
	else
		say("=%d", slot_open(fd, KIND_TCP, domain));
}

/* An address of either family, as a program might pass it; the length to pass. The peer's own addresses are
 * left out: whether they can be bound depends on where the peer runs. */
static socklen_t address_any(struct sockaddr_storage *ss, int domain, bool has_port)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;
	struct in_addr a = setup.own;
	int port = has_port ? port_for(0) : 0;
	socklen_t len;

	memset(ss, 0, sizeof(*ss));
	switch (chance(10)) {
	case 0:
	case 1:
		a.s_addr = INADDR_ANY;
		port = has_port ? port_for(1) : 0;
		break;
	case 2:
		a.s_addr = htonl(INADDR_LOOPBACK);
		port = has_port ? port_for(2) : 0;
		break;
	case 3:
		a.s_addr = htonl(ntohl(setup.own.s_addr) + 75); /* nobody's */
		break;
	default:
		break;
	}
	if (percent(6))
		domain = domain == AF_INET ? AF_INET6 : AF_INET;
	if (domain == AF_INET6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		if (a.s_addr != INADDR_ANY) {
			in6->sin6_addr.s6_addr[10] = in6->sin6_addr.s6_addr[11] = 0xff;
			memcpy(in6->sin6_addr.s6_addr + 12, &a, 4);
		}
		len = sizeof(*in6);
	} else {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		in->sin_addr = a;
		len = sizeof(*in);
	}
	if (percent(3))
		ss->ss_family = AF_UNIX;
	if (percent(3))
		len -= 1 + chance(12);
	else if (percent(3))
		len = sizeof(*ss);
	return len;
}

static void op_bind(void)
{
	int slot = percent(80) ? slot_pick(is_fresh) : slot_pick(is_tcp), fd, one = 1;
	struct sockaddr_storage ss;
	socklen_t len;
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	/* README: a connection that has ended can be bound again in the kernel */
	if (o->state == STATE_CONNECTED && (o->is_broken || o->has_fin_in))
		return;
	/* README: so are an edge that the kernel's set has told, and a listener that was shut down */
	for (int i = 0; i < SLOTS; i++)
		for (int k = 0; world->slots[i].fd >= 0 && obj_of(i) == o && k < world->obj_count; k++)
			if (world->objs[k].members & 1u << i)
				return;
	if (o->has_listened)
		return;
	o->was_bound = true;
	fd = world->slots[slot].fd;
	len = address_any(&ss, o->domain, percent(75));
	say(" %d", slot);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	say_addr((struct sockaddr *)&ss, len, 0);
	if (!say_rc(bind(fd, (struct sockaddr *)&ss, len)) && o->state == STATE_FRESH)
		o->state = STATE_BOUND;
}

static bool is_bound(const struct slot *s)
{
	return is_tcp(s) && world->objs[s->obj].state == STATE_BOUND;
}

static void op_listen(void)
{
	static const int backlogs[] = {0, 1, 5, 128, 1000000, -1};
	int slot = percent(70) ? slot_pick(is_bound) : slot_pick(is_tcp), backlog = backlogs[chance(6)];
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	say(" %d,%d", slot, backlog);
	if (say_rc(listen(world->slots[slot].fd, backlog)))
		return;
	/* the kernel compares backlogs without a sign */
	o->has_listened = true;
	o->backlog = backlog < 0 || backlog > QUEUE_MAX ? QUEUE_MAX : backlog;
	o->state = STATE_LISTEN;
	if (!getsockname(world->slots[slot].fd, (struct sockaddr *)&ss, &len)) {
		struct sockaddr_in *in = (void *)&ss;

		o->port = ntohs(in->sin_port);
		o->is_local = ss.ss_family == AF_INET
		                      ? in->sin_addr.s_addr == htonl(INADDR_LOOPBACK)
		                      : ((struct sockaddr_in6 *)&ss)->sin6_addr.s6_addr[12] == 127;
	}
}

/* connect to an address as a program might name it, in any state of the socket. */
static void op_connect(void)
{
	int slot = percent(60) ? slot_pick(is_fresh) : slot_pick(is_tcp), fd;
	struct sockaddr_storage ss = {0};
	struct sockaddr_in *in = (void *)&ss;
	struct sockaddr_in6 *in6 = (void *)&ss;
	socklen_t len = sizeof(*in);
	struct in_addr to = setup.peer;
	struct obj *o;
	long rc;
	bool is_pending;
	int kind = (int)chance(10), port = 9;

	if (slot < 0)
		return;
	o = obj_of(slot);
	/* README: a dissolved listener's port may be another listener's */
	if (o->has_listened && o->state != STATE_LISTEN)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	/* from our address to loopback only the kernel could go */
	if (kind == 0 && !o->was_bound)
		to.s_addr = htonl(INADDR_LOOPBACK);
	if (o->domain == AF_INET6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		in6->sin6_addr.s6_addr[10] = in6->sin6_addr.s6_addr[11] = 0xff;
		memcpy(in6->sin6_addr.s6_addr + 12, &to, 4);
		len = sizeof(*in6);
	} else {
		*in = (struct sockaddr_in){AF_INET, htons((uint16_t)port), to, {0}};
	}
	if (kind == 1)
		len = chance(16);
	if (kind == 2)
		ss.ss_family = AF_UNSPEC;
	if (kind == 3)
		ss.ss_family = AF_UNIX;
	say_addr((struct sockaddr *)&ss, len, 0);
	if (o->state == STATE_BOUND && o->is_local)
		return;
	rc = connect(fd, (struct sockaddr *)&ss, len);
	is_pending = say_rc(rc) < 0 && errno == EINPROGRESS;
	o->has_stale_name |= o->state == STATE_FRESH || o->is_broken || ss.ss_family == AF_UNSPEC;
	if (ss.ss_family == AF_UNSPEC && !rc && len >= 2) {
		int error;

		if (o->state == STATE_CONNECTED || o->state == STATE_CONNECTING)
			o->is_broken = true;
		for (int i = 0; i < o->queued; i++)
			peer_view(o->queue[i], 0, 1, NULL, 0);
		o->queued = 0;
		o->state = STATE_FRESH;
		if (o->peer > 0)
			settle(o);
		/* README: the kernel leaves ECONNRESET here after it has reset a connection */
		len = sizeof(error);
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
		o->peer = -1;
		o->in = o->out = 0;
		o->has_fin_in = o->has_fin_out = o->is_broken = o->is_shut_rd = o->is_fin_acked = false;
		return;
	}
	settle(o);
	if (is_pending) {
		/* the answer has come: once more tells how it went */
		say(" again");
		say_rc(connect(fd, (struct sockaddr *)&ss, len));
	}
}

static bool can_take(const struct slot *s)
{
	const struct obj *o = &world->objs[s->obj];

	return is_listening(s) && !o->is_local && o->port && o->queued < (o->backlog ? o->backlog : 1) &&
	       o->queued < QUEUE_MAX;
}

static void op_peer_connects(void)
{
	int slot = slot_pick(can_take), before;
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	say(" %d", slot);
	before = o->queued;
	listener_call(o);
	/* it may be gone before it is taken */
	if (o->queued > before && percent(15)) {
		say(" and resets");
		peer_do(PEER_RESET, o->queue[before], 0);
		o->queue[before] = -1;
	}
	barrier();
}

static void op_peer_is_refused(void)
{
	int port = port_for((int)chance(PORTS));
	struct peer_answer r;

	for (int i = 0; i < world->obj_count; i++)
		if (world->objs[i].state == STATE_LISTEN && world->objs[i].port == port)
			return;
	r = peer_do(PEER_CONNECT, 0, port);
	say("=%s", r.rc < 0 ? strerrorname_np(-r.rc) : "ok");
}

static void op_accept(void)
{
	int slot = percent(90) ? slot_pick(is_listening) : slot_pick(is_tcp), fd, flags = 0, form, got, saved;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct obj *o;

	if (slot < 0 || slot_free() < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	say(" %d", slot);
	if (o->state == STATE_LISTEN && is_blocking(fd) && !(poll_now(fd, POLLIN) & POLLIN)) {
		say(" would block");
		return;
	}
	if (percent(40))
		flags = (percent(50) ? SOCK_NONBLOCK : 0) | (percent(50) ? SOCK_CLOEXEC : 0) |
		        (percent(5) ? 1 : 0);
	form = (int)chance(5);
	if (form == 1)
		len = chance(20);
	memset(&ss, 0xee, sizeof(ss));
	got = flags || percent(30)
	              ? accept4(fd, form ? (struct sockaddr *)&ss : NULL, form ? &len : NULL, flags)
	              : accept(fd, form ? (struct sockaddr *)&ss : NULL, form ? &len : NULL);
	saved = errno;
	say(" flags%x", (unsigned int)flags);
	if (got < 0) {
		errno = saved;
		say_rc(got);
		return;
	}
	if (form)
		say_addr((struct sockaddr *)&ss, len, o->queued ? o->queue_port[0] : -1);
	say(" fl%x fd%x", (unsigned int)fcntl(got, F_GETFL), (unsigned int)fcntl(got, F_GETFD));
	slot = accepted(got, o);
	say("=%d", slot);
	settle(obj_of(slot));
}

static void op_shutdown(void)
{
	int slot = percent(70) ? slot_pick(is_connected) : slot_pick(is_tcp),
	    how = percent(95) ? (int)chance(3) : 3 - (int)chance(2) * 4;
	struct obj *o;
	long rc;

	if (slot < 0)
		return;
	o = obj_of(slot);
	/* README: on a socket that is not connected it fails, and the kernel remembers it all the same */
	if (o->state < STATE_LISTEN)
		how = 3;
	say(" %d,%d", slot, how);
	rc = say_rc(shutdown(world->slots[slot].fd, how));
	if (!rc) {
		if (how != SHUT_RD)
			o->has_fin_out = true;
		if (how != SHUT_WR)
			o->is_shut_rd = true;
	}
	if (!rc && o->state == STATE_LISTEN && how != SHUT_WR) {
		barrier();
		for (int i = 0; i < o->queued; i++)
			peer_view(o->queue[i], 0, 1, NULL, 0);
		o->queued = 0;
		o->state = STATE_BOUND;
		return;
	}
	settle(o);
}

/* After the number of a slot was closed by whatever call. */
static void closed(int slot)
{
	struct obj *o = obj_of(slot);
	bool is_listener = o->state == STATE_LISTEN;
	struct peer_answer r;

	if (slot_gone(slot) && is_listener) {
		barrier();
		for (int i = 0; i < o->queued; i++)
			peer_view(o->queue[i], 0, 1, NULL, 0);
		o->queued = 0;
	}
	/* closed with unread data: a reset, also for a peer that has seen our end */
	if (!o->refs && o->peer > 0 && !o->is_broken && o->in) {
		barrier();
		peer_view(o->peer, 0, 2, o->seen, sizeof(o->seen));
	}
	if (o->refs || o->peer <= 0 || o->is_broken || percent(70)) {
		settle(o);
		return;
	}
	/* data for a socket that nobody has any more */
	settle(o);
	say(" and the peer sends");
	r = peer_do(PEER_SEND, o->peer, 10);
	barrier();
	peer_view(o->peer, 0, r.rc ? 0 : 2, o->seen, sizeof(o->seen));
}

static void op_close(void)
{
	struct linger lg = {1, (int)chance(2)};
	int slot = slot_pick(is_any), fd;

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	if (is_tcp(&world->slots[slot]) && percent(20)) {
		say(" linger %d", lg.l_linger);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
	}
	say_rc(close(fd));
	if (percent(10)) {
		say(" twice");
		say_rc(close(fd));
	}
	closed(slot);
}

static void op_dup(void)
{
	int slot = slot_pick(is_any), onto = slot_pick(is_any), fd, got = -1;
	uint32_t form = chance(9);

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d form%u", slot, form);
	if (form == 7 || form == 8) {
		/* onto a number in use, perhaps its own */
		int old = world->slots[onto].fd;

		say(" onto %d", onto);
		got = form == 7 ? dup2(fd, old) : dup3(fd, old, O_CLOEXEC);
		if (got < 0) {
			say_rc(got);
			return;
		}
		say("=%s", got == old ? "it" : "another");
		if (onto == slot)
			return;
		closed(onto);
		say("=%d", slot_share(got, slot));
		return;
	}
	if (slot_free() < 0)
		return;
	switch (form) {
	case 0:
	case 1:
		got = dup(fd);
		break;
	case 2:
		got = fcntl(fd, F_DUPFD, 200);
		break;
	case 3:
		got = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		break;
	case 4:
		got = dup2(fd, 900 + (int)chance(50));
		break;
	case 5:
		got = dup3(fd, 800 + (int)chance(50), O_CLOEXEC);
		break;
	default:
		got = dup3(fd, 850, 0x1234);
		break;
	}
	if (got < 0)
		say_rc(got);
	for (int i = 0; got >= 0 && i < SLOTS; i++)
		if (world->slots[i].fd == got)
			closed(i);
	if (got >= 0)
		say(" fd%x=%d", (unsigned int)fcntl(got, F_GETFD), slot_share(got, slot));
}

static void op_flags(void)
{
	int slot = slot_pick(is_any), fd, on = (int)chance(2);

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	switch (chance(5)) {
	case 0:
		say(" F_GETFL");
		say_rc(fcntl(fd, F_GETFL));
		break;
	case 1:
		say(" nonblock %d", on);
		say_rc(fcntl(fd, F_SETFL, on ? O_NONBLOCK : 0));
		break;
	case 2:
		say(" FIONBIO %d", on);
		say_rc(ioctl(fd, FIONBIO, &on));
		break;
	case 3:
		say(" F_SETFD %d", on);
		say_rc(fcntl(fd, F_SETFD, on));
		say_rc(fcntl(fd, F_GETFD));
		break;
	default:
		say(" FIONREAD");
		if (is_tcp(&world->slots[slot])) {
			int n = -1;

			say_rc(ioctl(fd, FIONREAD, &n));
			say(",%d", n);
		}
	}
}

static void op_name(void)
{
	int slot = slot_pick(is_tcp);
	struct sockaddr_storage ss;
	socklen_t len = percent(80) ? sizeof(ss) : chance(30);
	bool is_peer = percent(50);
	long rc;

	if (slot < 0)
		return;
	/* README: what getsockname says after a failed connect is left over from it */
	is_peer |= obj_of(slot)->has_stale_name;
	memset(&ss, 0, sizeof(ss));
	say(" %d %s", slot, is_peer ? "peer" : "own");
	rc = is_peer ? getpeername(world->slots[slot].fd, (struct sockaddr *)&ss, &len)
	             : getsockname(world->slots[slot].fd, (struct sockaddr *)&ss, &len);
	say_rc(rc);
	if (!rc)
		say_addr((struct sockaddr *)&ss, len, obj_of(slot)->peer_port);
}

static void op_option(void)
{
	static const struct {
		const char *name;
		int level, number;
		int values[6];
	} rows[] = {
	        {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, {1, 1, 2, -1, 1, 7}},
	        {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, {0, 1, 2, -1, 1, 0}},
	        {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, {0, 1, 2, -1, 1, 0}},
	        {"SO_ERROR", SOL_SOCKET, SO_ERROR, {0, 1, 2, -1, 1, 0}},
	        {"SO_ERROR", SOL_SOCKET, SO_ERROR, {0, 1, 2, -1, 1, 0}},
	        {"SO_TYPE", SOL_SOCKET, SO_TYPE, {0, 1, 2, -1, 1, 0}},
	        {"SO_DOMAIN", SOL_SOCKET, SO_DOMAIN, {0, 1, 2, -1, 1, 0}},
	        {"SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL, {0, 1, 2, -1, 1, 0}},
	        {"SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN, {0, 1, 2, -1, 1, 0}},
	        {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, {1, 1, 1, 1, 1, 1}},
	        {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, {0, 1, 7200, 32767, 32768, -1}},
	        {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, {0, 1, 75, 32767, 32768, -1}},
	        {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, {0, 1, 9, 127, 128, -1}},
	        {"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, {0, 60000, 2000000, -1, 90000, 0}},
	        {"IP_TTL", IPPROTO_IP, IP_TTL, {0, 1, 64, 255, 256, -1}},
	        {"none", SOL_SOCKET, 9999, {0, 1, 2, 3, 4, 5}},
	        {"none", 250, 1, {0, 1, 2, 3, 4, 5}},
	};
	int slot = slot_pick(is_tcp);
	uint32_t row = chance(sizeof(rows) / sizeof(rows[0]));
	int value = rows[row].values[chance(6)], fd;
	socklen_t len = percent(80) ? sizeof(int) : chance(12);
	char room[16];

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d %s", slot, rows[row].name);
	if (percent(60)) {
		memset(room, 0, sizeof(room));
		say(" set %d len%u", value, len);
		memcpy(room, &value, sizeof(value));
		say_rc(setsockopt(fd, rows[row].level, rows[row].number, room, len));
	}
	memset(room, 0x5a, sizeof(room));
	len = percent(80) ? sizeof(int) : chance(12);
	say(" get len%u", len);
	if (!say_rc(getsockopt(fd, rows[row].level, rows[row].number, room, &len)))
		say(" len%u %08x", len, hash_of(room, sizeof(room)));
	else
		return;
	memcpy(&value, room, sizeof(value));
	if (len == sizeof(value))
		say(" %d", value);
}

static void op_linger(void)
{
	int slot = slot_pick(is_tcp), fd;
	struct linger lg = {(int)chance(2), (int)chance(3)}, got = {7, 7};
	struct timeval tv = {(time_t)chance(3), 0}, tv_got = {7, 7};
	socklen_t len = sizeof(got);
	int name = percent(50) ? SO_RCVTIMEO : SO_SNDTIMEO;

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	if (percent(50)) {
		/* lingering for a time belongs to op_close: here it would hold up the end of the sequence */
		lg.l_linger = 0;
		say(" SO_LINGER %d,%d", lg.l_onoff, lg.l_linger);
		say_rc(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
		say_rc(getsockopt(fd, SOL_SOCKET, SO_LINGER, &got, &len));
		say(" %d,%d", got.l_onoff, got.l_linger);
		return;
	}
	len = sizeof(tv_got);
	if (tv.tv_sec)
		tv.tv_sec = 20;
	say(" %s %d", name == SO_RCVTIMEO ? "SO_RCVTIMEO" : "SO_SNDTIMEO", (int)tv.tv_sec);
	say_rc(setsockopt(fd, SOL_SOCKET, name, &tv, sizeof(tv)));
	say_rc(getsockopt(fd, SOL_SOCKET, name, &tv_got, &len));
	say(" %d,%d", (int)tv_got.tv_sec, (int)tv_got.tv_usec);
}

/* Calls on a number that is not open, or is a file of another kind. */
static void op_bad_number(void)
{
	int fds[2] = {-1, 950}, fd = fds[chance(2)];
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof(a);
	char c;

	if (slot_pick(is_any) >= 0 && fcntl(950, F_GETFD) >= 0)
		fd = -1;
	say(" %d", fd);
	say_rc(recv(fd, &c, 1, 0));
	say_rc(send(fd, &c, 1, MSG_NOSIGNAL));
	say_rc(bind(fd, (void *)&a, sizeof(a)));
	say_rc(listen(fd, 1));
	say_rc(accept(fd, NULL, NULL));
	say_rc(shutdown(fd, 0));
	say_rc(getsockname(fd, (void *)&a, &len));
	say_rc(close(fd));
}

const struct op ops_call[] = {
        {"connection", op_connection, {10, 6, 10, 10, 10}},
        {"listener", op_listener, {4, 6, 1, 3, 3}},
        {"accepted", op_accepted, {6, 4, 6, 6, 6}},
        {"socket", op_socket, {3, 8, 0, 2, 1}},
        {"bind", op_bind, {3, 10, 0, 1, 0}},
        {"listen", op_listen, {2, 8, 0, 1, 0}},
        {"connect", op_connect, {3, 8, 1, 2, 1}},
        {"peer connects", op_peer_connects, {4, 5, 1, 5, 2}},
        {"peer is refused", op_peer_is_refused, {1, 2, 0, 0, 0}},
        {"accept", op_accept, {4, 6, 2, 4, 1}},
        {"shutdown", op_shutdown, {5, 4, 6, 5, 3}},
        {"close", op_close, {5, 6, 5, 5, 3, 5}},
        {"dup", op_dup, {3, 5, 2, 5, 2, 4}},
        {"flags", op_flags, {3, 4, 3, 2, 2, 3}},
        {"name", op_name, {2, 6, 1, 1, 1}},
        {"option", op_option, {4, 10, 2, 1, 1}},
        {"linger", op_linger, {1, 3, 1, 0, 0}},
        {"bad number", op_bad_number, {1, 1, 1, 1, 0}},
        {NULL, NULL, {0}},
};
