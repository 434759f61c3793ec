/* options.c - getsockopt and setsockopt: values before and after a socket is connected, what is refused,
 * short lengths, heirs. */
#include "bsd.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

static void *volatile null_pointer; /* hides a NULL from the compiler */

struct option {
	const char *name;
	int level, number;
};

/* Options whose value is an int and the same on every machine. */
static const struct option ints[] = {{"reuseaddr", SOL_SOCKET, SO_REUSEADDR},
        {"reuseport", SOL_SOCKET, SO_REUSEPORT}, {"keepalive", SOL_SOCKET, SO_KEEPALIVE},
        {"oobinline", SOL_SOCKET, SO_OOBINLINE}, {"nodelay", IPPROTO_TCP, TCP_NODELAY},
        {"cork", IPPROTO_TCP, TCP_CORK}, {"keepidle", IPPROTO_TCP, TCP_KEEPIDLE},
        {"keepintvl", IPPROTO_TCP, TCP_KEEPINTVL}, {"keepcnt", IPPROTO_TCP, TCP_KEEPCNT},
        {"user_timeout", IPPROTO_TCP, TCP_USER_TIMEOUT}, {"tos", IPPROTO_IP, IP_TOS},
        {"ttl", IPPROTO_IP, IP_TTL}};

enum { INTS = sizeof(ints) / sizeof(ints[0]) };

static void get(int fd, const struct option *o)
{
	socklen_t len = sizeof(int);
	int v = -77;

	if (getsockopt(fd, o->level, o->number, &v, &len) < 0)
		ret(o->name, -1);
	else
		out("%s=%d,%u", o->name, v, len);
}

static void get_all(const char *what, int fd)
{
	out("[%s]", what);
	for (int i = 0; i < INTS; i++)
		get(fd, &ints[i]);
}

static void set(int fd, const struct option *o, int v)
{
	ret(o->name, setsockopt(fd, o->level, o->number, &v, sizeof(v)));
}

CASE_BOTH(defaults)
{
	get_all("connection", pair().fd);
}

CASE(defaults_in_each_state)
{
	struct sockaddr_in a = addr_server(port(0));
	int fd = tcp_socket();

	get_all("fresh", fd);
	bind(fd, SA(a), sizeof(a));
	get_all("bound", fd);
	listen(fd, 4);
	get_all("listening", fd);
}

CASE_BOTH(every_int_is_set)
{
	struct conn c = pair();

	for (int i = 0; i < INTS; i++) {
		set(c.fd, &ints[i], 1);
		get(c.fd, &ints[i]);
		set(c.fd, &ints[i], 0);
		get(c.fd, &ints[i]);
		set(c.fd, &ints[i], 77);
		get(c.fd, &ints[i]);
		set(c.fd, &ints[i], -1);
		get(c.fd, &ints[i]);
		set(c.fd, &ints[i], 1000000);
		get(c.fd, &ints[i]);
	}
}

CASE(every_int_is_kept_through_connect)
{
	struct sockaddr_in a;
	int fd = tcp_socket(), id, at;

	for (int i = 0; i < INTS; i++)
		if (ints[i].number != TCP_CORK || ints[i].level != IPPROTO_TCP)
			set(fd, &ints[i], 8);
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	get_all("after", fd);
}

CASE(every_int_is_inherited)
{
	struct sockaddr_in a = addr_server(port(0));
	int l = tcp_socket();

	for (int i = 0; i < INTS; i++)
		if (ints[i].number != TCP_CORK || ints[i].level != IPPROTO_TCP)
			set(l, &ints[i], 8);
	ret("bind", bind(l, SA(a), sizeof(a)));
	ret("listen", listen(l, 4));
	get_all("listener", l);
	peer_connect(port(0));
	get_all("accepted", accept(l, NULL, NULL));
}

CASE(set_on_listener_is_inherited)
{
	int l = listener(port(0)), on = 1, idle = 33;

	ret("nodelay", setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	ret("keepalive", setsockopt(l, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	ret("keepidle", setsockopt(l, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle)));
	peer_connect(port(0));
	get_all("accepted", accept(l, NULL, NULL));
}

static void facts(const char *what, int fd)
{
	static const struct option of[] = {{"type", SOL_SOCKET, SO_TYPE}, {"domain", SOL_SOCKET, SO_DOMAIN},
	        {"protocol", SOL_SOCKET, SO_PROTOCOL}, {"acceptconn", SOL_SOCKET, SO_ACCEPTCONN},
	        {"error", SOL_SOCKET, SO_ERROR}};

	out("[%s]", what);
	for (int i = 0; i < 5; i++) {
		get(fd, &of[i]);
		set(fd, &of[i], 1);
	}
}

CASE(facts_in_each_state)
{
	struct sockaddr_in a = addr_server(port(0));
	int fd = tcp_socket();

	facts("fresh", fd);
	bind(fd, SA(a), sizeof(a));
	facts("bound", fd);
	listen(fd, 4);
	facts("listening", fd);
	facts("connected", pair_connected().fd);
	facts("accepted", pair_accepted().fd);
}

CASE_BOTH(linger)
{
	static const struct linger values[] = {{1, 5}, {0, 9}, {77, 0}, {1, 100000}};
	struct conn c = pair();
	struct linger lg;
	socklen_t len = sizeof(lg);

	for (int i = -1; i < 4; i++) {
		if (i >= 0)
			ret("set", setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &values[i], sizeof(lg)));
		len = sizeof(lg);
		ret("get", getsockopt(c.fd, SOL_SOCKET, SO_LINGER, &lg, &len));
		out("%d,%d,%u", lg.l_onoff, lg.l_linger, len);
	}
	ret("short", setsockopt(c.fd, SOL_SOCKET, SO_LINGER, values, 4));
	lg = values[0];
	setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
	memset(&lg, 0, sizeof(lg));
	len = 4;
	ret("truncated", getsockopt(c.fd, SOL_SOCKET, SO_LINGER, &lg, &len));
	out("%d,%d,%u", lg.l_onoff, lg.l_linger, len);
	lg = (struct linger){0, 0};
	setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
}

CASE_BOTH(timeouts)
{
	static const int which[] = {SO_RCVTIMEO, SO_SNDTIMEO};
	struct conn c = pair();

	for (int i = 0; i < 2; i++) {
		struct timeval tv = {7, 500000};
		socklen_t len = sizeof(tv);

		ret("set", setsockopt(c.fd, SOL_SOCKET, which[i], &tv, sizeof(tv)));
		memset(&tv, 0, sizeof(tv));
		ret("get", getsockopt(c.fd, SOL_SOCKET, which[i], &tv, &len));
		out("%ld.%ld,%u", (long)tv.tv_sec, (long)tv.tv_usec, len);
		len = 8;
		memset(&tv, 0, sizeof(tv));
		ret("truncated", getsockopt(c.fd, SOL_SOCKET, which[i], &tv, &len));
		out("%ld.%ld,%u", (long)tv.tv_sec, (long)tv.tv_usec, len);
		ret("short", setsockopt(c.fd, SOL_SOCKET, which[i], &tv, 8));
	}
}

CASE(timeouts_are_inherited)
{
	struct timeval tv = {7, 0};
	socklen_t len = sizeof(tv);
	int l = listener(port(0)), fd;

	ret("set", setsockopt(l, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
	peer_connect(port(0));
	fd = accept(l, NULL, NULL);
	ret("get", getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &len));
	out("%ld", (long)tv.tv_sec);
}

CASE_BOTH(buffers)
{
	static const int sizes[] = {0, 1, 10000, 65536};
	struct conn c = pair();
	int v;
	socklen_t len = sizeof(v);

	for (int i = 0; i < 4; i++) {
		v = sizes[i];
		ret("sndbuf", setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)));
		getsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &v, &len);
		out("is=%d", v);
	}
	for (int i = 2; i < 4; i++) {
		v = sizes[i];
		ret("rcvbuf", setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v)));
		getsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &v, &len);
		out("is=%d", v);
	}
	ret("short", setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &v, 2));
}

CASE_BOTH(small_send_buffer_works)
{
	struct conn c = pair();
	char buf[20000];
	int v = 4096;

	ret("sndbuf", setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)));
	pattern_fill(buf, 0, sizeof(buf));
	ret("send", send(c.fd, buf, sizeof(buf), 0));
	peer_show("peer", "recv %d %zu", c.id, sizeof(buf));
}

CASE(buffers_set_before_connect)
{
	struct sockaddr_in a;
	int fd = tcp_socket(), id, at, v = 20000;
	socklen_t len = sizeof(v);

	ret("sndbuf", setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)));
	ret("rcvbuf", setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v)));
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, &len);
	out("sndbuf=%d", v);
	getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, &len);
	out("rcvbuf=%d", v);
}

CASE_BOTH(lengths)
{
	struct conn c = pair();
	union {
		int v;
		uint8_t byte[16];
	} u;

	for (socklen_t n = 0; n < 6; n++) {
		socklen_t len = n;

		memset(&u, 0xee, sizeof(u));
		ret("get", getsockopt(c.fd, SOL_SOCKET, SO_TYPE, &u, &len));
		out("%u:%02x%02x%02x%02x%02x", len, u.byte[0], u.byte[1], u.byte[2], u.byte[3], u.byte[4]);
		len = n;
		memset(&u, 0xee, sizeof(u));
		ret("nodelay", getsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &u, &len));
		out("%u:%02x%02x", len, u.byte[0], u.byte[3]);
		len = n;
		memset(&u, 0xee, sizeof(u));
		ret("ttl", getsockopt(c.fd, IPPROTO_IP, IP_TTL, &u, &len));
		out("%u:%02x%02x", len, u.byte[0], u.byte[3]);
		u.v = 1;
		ret("set_socket", setsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, &u, n));
		ret("set_tcp", setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &u, n));
		u.v = 64;
		ret("set_ip", setsockopt(c.fd, IPPROTO_IP, IP_TTL, &u, n));
	}
	ret("negative", setsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, &u, (socklen_t)-1));
	ret("long", setsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, &u, sizeof(u)));
}

CASE_BOTH(bad_pointers)
{
	struct conn c = pair();
	socklen_t len = sizeof(int), negative = (socklen_t)-1;
	int v;

	ret("set_null", setsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, null_pointer, sizeof(v)));
	ret("set_tcp_null", setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, null_pointer, sizeof(v)));
	ret("get_null", getsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, null_pointer, &len));
	ret("get_null_len", getsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, &v, null_pointer));
	ret("get_negative", getsockopt(c.fd, SOL_SOCKET, SO_KEEPALIVE, &v, &negative));
	ret("get_tcp_negative", getsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &v, &negative));
}

CASE_BOTH(unknown)
{
	struct conn c = pair();
	socklen_t len = sizeof(int);
	int v = 1;

	ret("socket", getsockopt(c.fd, SOL_SOCKET, 9999, &v, &len));
	ret("socket", setsockopt(c.fd, SOL_SOCKET, 9999, &v, sizeof(v)));
	ret("tcp", getsockopt(c.fd, IPPROTO_TCP, 9999, &v, &len));
	ret("tcp", setsockopt(c.fd, IPPROTO_TCP, 9999, &v, sizeof(v)));
	ret("ip", getsockopt(c.fd, IPPROTO_IP, 9999, &v, &len));
	ret("ip", setsockopt(c.fd, IPPROTO_IP, 9999, &v, sizeof(v)));
	ret("level", getsockopt(c.fd, 9999, 1, &v, &len));
	ret("level", setsockopt(c.fd, 9999, 1, &v, sizeof(v)));
}

CASE_BOTH(maxseg)
{
	struct conn c = pair();
	int v = 0;
	socklen_t len = sizeof(v);

	ret("get", getsockopt(c.fd, IPPROTO_TCP, TCP_MAXSEG, &v, &len));
	out("plausible=%d", v >= 1400 && v <= 1460);
	ret("fresh", getsockopt(tcp_socket(), IPPROTO_TCP, TCP_MAXSEG, &v, &len));
}

CASE_BOTH(tcp_info)
{
	struct conn c = pair();
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	memset(&ti, 0, sizeof(ti));
	ret("get", getsockopt(c.fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
	out("state=%d mss=%d cwnd=%d rto=%d", ti.tcpi_state, ti.tcpi_snd_mss >= 1400, ti.tcpi_snd_cwnd > 0,
	        ti.tcpi_rto > 0);
	len = 1;
	ret("short", getsockopt(c.fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
	out("len=%u", len);
	peer_ok("shut %d 1", c.id);
	settle(c.fd, POLLRDHUP);
	len = sizeof(ti);
	getsockopt(c.fd, IPPROTO_TCP, TCP_INFO, &ti, &len);
	out("state=%d", ti.tcpi_state);
	shutdown(c.fd, SHUT_WR);
	peer("recv %d 1", c.id);
	settle(c.fd, POLLHUP);
	nap_ms(100);
	len = sizeof(ti);
	getsockopt(c.fd, IPPROTO_TCP, TCP_INFO, &ti, &len);
	out("state=%d", ti.tcpi_state);
}

CASE(tcp_info_of_listener)
{
	int l = listener(port(0));
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	ret("get", getsockopt(l, IPPROTO_TCP, TCP_INFO, &ti, &len));
	out("state=%d", ti.tcpi_state);
}

CASE_BOTH(congestion_has_a_name)
{
	struct conn c = pair();
	char name[16] = "";
	socklen_t len = sizeof(name);

	ret("get", getsockopt(c.fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	out("named=%d len=%u", strlen(name) > 0, len);
	ret("unknown", setsockopt(c.fd, IPPROTO_TCP, TCP_CONGESTION, "nothing", 7));
}

CASE_BOTH(after_the_end)
{
	struct conn c = pair();

	peer_ok("reset %d", c.id);
	settle(c.fd, POLLHUP);
	get_all("reset", c.fd);
	set(c.fd, &ints[2], 1);
	set(c.fd, &ints[4], 1);
	set(c.fd, &ints[6], 9);
	get_all("set", c.fd);
}
