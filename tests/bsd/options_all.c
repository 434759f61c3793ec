/* options_all.c - every option number of the levels that a TCP socket knows, in each state: what getsockopt
 * and setsockopt return, lengths and values. A table says only what must be left out, and why.
 */
#include "bsd.h"

#include <netinet/ip.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>

struct skip {
	int level, name;
};

/* Values that depend on the machine, the moment, or are Pronk's by design (doc/compat.md): not shown. */
static const struct skip unsteady[] = {{SOL_SOCKET, SO_SNDBUF}, {SOL_SOCKET, SO_RCVBUF},
        {SOL_SOCKET, 49 /* SO_INCOMING_CPU */}, {SOL_SOCKET, 55 /* SO_MEMINFO */},
        {SOL_SOCKET, 56 /* SO_INCOMING_NAPI_ID */}, {SOL_SOCKET, 57 /* SO_COOKIE */},
        {SOL_SOCKET, 47 /* SO_MAX_PACING_RATE */}, {SOL_SOCKET, 28 /* SO_PEERNAME: a port */},
        {SOL_SOCKET, 71 /* SO_NETNS_COOKIE: of the leg's namespace */}, {IPPROTO_TCP, TCP_INFO},
        {IPPROTO_TCP, TCP_MAXSEG}, {IPPROTO_TCP, TCP_WINDOW_CLAMP}, {IPPROTO_TCP, TCP_QUICKACK},
        {IPPROTO_TCP, TCP_TIMESTAMP}, {IPPROTO_TCP, TCP_CONGESTION},
        {IPPROTO_TCP, 26 /* TCP_CC_INFO: of the algorithm */},
        {IPPROTO_IP, 52 /* IP_PROTOCOL: shows a port */},
        {IPPROTO_IP, IP_MULTICAST_TTL /* of the peer's first packet, once accepted */}};

static bool is_unsteady(int level, int name)
{
	for (size_t i = 0; i < sizeof(unsteady) / sizeof(unsteady[0]); i++)
		if (unsteady[i].level == level && unsteady[i].name == name)
			return true;
	return false;
}

static void get_one(int fd, int level, int name, socklen_t len)
{
	uint8_t value[512];
	socklen_t asked = len;

	memset(value, 0, sizeof(value));
	if (getsockopt(fd, level, name, value, &len) < 0) {
		out("%d/%u=%s", name, asked, strerrorname_np(errno));
	} else if (is_unsteady(level, name)) {
		out("%d/%u=ok", name, asked);
	} else {
		char text[40] = "";

		for (socklen_t i = 0; i < len && i < 16; i++)
			sprintf(text + 2 * i, "%02x", value[i]);
		out("%d/%u=%u:%s", name, asked, len, text);
	}
}

static void get_all(int fd, int level, int last)
{
	static const socklen_t lengths[] = {0, 1, 3, 4, 8, 16, 256};

	for (int name = 1; name <= last; name++)
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
			if (level != IPPROTO_TCP || (name != 35 && name != 42))
				/* not TCP_ZEROCOPY_RECEIVE, which is not offered, nor TCP_AO_REPAIR */
				get_one(fd, level, name, lengths[i]);
}

CASE_BOTH(get_socket_level)
{
	get_all(pair().fd, SOL_SOCKET, 90);
}

CASE_BOTH(get_tcp_level)
{
	get_all(pair().fd, IPPROTO_TCP, 48);
}

CASE_BOTH(get_ip_level)
{
	get_all(pair().fd, IPPROTO_IP, 56);
}

CASE(get_of_listener)
{
	int l = listener(port(0));

	get_all(l, SOL_SOCKET, 90);
	get_all(l, IPPROTO_TCP, 48);
	get_all(l, IPPROTO_IP, 56);
}

CASE_BOTH(get_after_reset)
{
	struct conn c = pair();

	peer_ok("reset %d", c.id);
	settle(c.fd, POLLHUP);
	get_all(c.fd, SOL_SOCKET, 90);
	get_all(c.fd, IPPROTO_TCP, 48);
	get_all(c.fd, IPPROTO_IP, 56);
}

/* Refused by Pronk, with a reason in doc/compat.md, where the kernel takes them: only the way to the kernel's
 * error for a wrong value is compared, so these are set in cases of their own (options.c). */
static const struct skip refused[] = {{SOL_SOCKET, SO_TIMESTAMP}, {SOL_SOCKET, 35 /* SO_TIMESTAMPNS */},
        {SOL_SOCKET, 37 /* SO_TIMESTAMPING */}, {SOL_SOCKET, 42 /* SO_PEEK_OFF */},
        {SOL_SOCKET, 47 /* SO_MAX_PACING_RATE */}, {SOL_SOCKET, 60 /* SO_ZEROCOPY */}, {SOL_SOCKET, 63},
        {SOL_SOCKET, 64}, {SOL_SOCKET, 65}, /* the first three with 64-bit times */
        {IPPROTO_TCP, 19 /* TCP_REPAIR */}, {IPPROTO_TCP, 27 /* TCP_SAVE_SYN */},
        {IPPROTO_TCP, 36 /* TCP_INQ */}, {IPPROTO_TCP, 37 /* TCP_TX_DELAY */},
        {IPPROTO_TCP, 44 /* TCP_RTO_MAX_MS */}, {IPPROTO_TCP, 45 /* TCP_RTO_MIN_US */},
        {IPPROTO_TCP, 46 /* TCP_DELACK_MAX_US */}, {IPPROTO_IP, IP_OPTIONS}, {IPPROTO_IP, IP_RECVERR},
        {IPPROTO_IP, 26 /* IP_RECVERR_RFC4884 */}};

/* Setting these changes what others show, or what the connection can do: they have cases of their own. */
static const struct skip apart[] = {{SOL_SOCKET, SO_LINGER}, {SOL_SOCKET, SO_RCVTIMEO},
        {SOL_SOCKET, SO_SNDTIMEO}, {SOL_SOCKET, SO_RCVLOWAT}, {SOL_SOCKET, SO_BINDTODEVICE},
        {SOL_SOCKET, 62 /* SO_BINDTOIFINDEX */}, {SOL_SOCKET, 66}, {SOL_SOCKET, 67},
        {SOL_SOCKET, 26 /* SO_ATTACH_FILTER */}, {SOL_SOCKET, 27 /* SO_DETACH_FILTER: needs one */},
        {SOL_SOCKET, 50}, {SOL_SOCKET, 51}, {SOL_SOCKET, 52}, {SOL_SOCKET, 68}, /* SO_LOCK_FILTER forbids */
        {IPPROTO_IP, IP_MTU /* gone until the next packet, when others were set */}};

static bool is_apart(int level, int name)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (refused[i].level == level && refused[i].name == name)
			return true;
	for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++)
		if (apart[i].level == level && apart[i].name == name)
			return true;
	return false;
}

static void set_all(int fd, int level, int last, int v, socklen_t len)
{
	for (int name = 1; name <= last; name++) {
		char what[16];

		if (is_apart(level, name))
			continue;
		snprintf(what, sizeof(what), "%d", name);
		ret(what, setsockopt(fd, level, name, &v, len));
		get_one(fd, level, name, sizeof(v));
	}
	if (level == IPPROTO_IP) { /* or the peer's last words are not heard */
		v = 0;
		setsockopt(fd, IPPROTO_IP, IP_MINTTL, &v, sizeof(v));
	}
}

#define SET_CASE(value_name, value)                                                                          \
	CASE_BOTH(set_socket_level_##value_name)                                                             \
	{                                                                                                    \
		set_all(pair().fd, SOL_SOCKET, 90, value, sizeof(int));                                      \
	}                                                                                                    \
	CASE_BOTH(set_tcp_level_##value_name)                                                                \
	{                                                                                                    \
		set_all(pair().fd, IPPROTO_TCP, 48, value, sizeof(int));                                     \
	}                                                                                                    \
	CASE_BOTH(set_ip_level_##value_name)                                                                 \
	{                                                                                                    \
		set_all(pair().fd, IPPROTO_IP, 56, value, sizeof(int));                                      \
	}

SET_CASE(zero, 0)
SET_CASE(one, 1)
SET_CASE(negative, -1)
SET_CASE(hundred, 100)
SET_CASE(large, 1000000)

static void short_all(int fd, int level, int last)
{
	for (socklen_t len = 0; len < sizeof(int); len++)
		set_all(fd, level, last, 1, len);
}

CASE_BOTH(set_short)
{
	int fd = pair().fd;

	short_all(fd, SOL_SOCKET, 90);
	short_all(fd, IPPROTO_TCP, 48);
	short_all(fd, IPPROTO_IP, 56);
}

CASE_BOTH(set_ip_byte)
{
	struct conn c = pair();
	uint8_t v = 200;

	for (int name = 1; name <= 56; name++) {
		char what[16];

		if (is_apart(IPPROTO_IP, name))
			continue;
		snprintf(what, sizeof(what), "%d", name);
		ret(what, setsockopt(c.fd, IPPROTO_IP, name, &v, 1));
		get_one(c.fd, IPPROTO_IP, name, sizeof(int));
	}
	v = 0;
	setsockopt(c.fd, IPPROTO_IP, IP_MINTTL, &v, 1);
}

/* --- an IPv6 socket whose peer is an IPv4 one --- */

static int connected6(void)
{
	struct sockaddr_in a;
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), id, at;

	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	a6.sin6_port = a.sin_port;
	a6.sin6_addr.s6_addr[10] = a6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(a6.sin6_addr.s6_addr + 12, &a.sin_addr, 4);
	if (connect(fd, (struct sockaddr *)&a6, sizeof(a6)) < 0)
		die("connect: %s", strerror(errno));
	return fd;
}

CASE(mapped_peer_get)
{
	int fd = connected6();

	get_all(fd, SOL_SOCKET, 90);
	get_all(fd, IPPROTO_TCP, 48);
	get_all(fd, IPPROTO_IP, 56);
}

CASE(mapped_peer_options)
{
	static const int names[] = {IPV6_V6ONLY, IPV6_TCLASS, IPV6_UNICAST_HOPS, IPV6_RECVTCLASS,
	        IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO, IPV6_DONTFRAG, IPV6_MULTICAST_HOPS, IPV6_JOIN_GROUP};
	static const int values[] = {0, 1, 64, 300, -1};
	int fd = connected6();

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (size_t k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
			ret("set", setsockopt(fd, IPPROTO_IPV6, names[i], &values[k], sizeof(int)));
			get_one(fd, IPPROTO_IPV6, names[i], sizeof(int));
		}
	set_all(fd, IPPROTO_IP, 20, 1, sizeof(int));
}

/* --- what is set before there is a connection --- */

static const struct skip carried[] = {{SOL_SOCKET, SO_PRIORITY}, {SOL_SOCKET, SO_MARK},
        {SOL_SOCKET, SO_DONTROUTE}, {SOL_SOCKET, SO_BROADCAST}, {SOL_SOCKET, SO_OOBINLINE},
        {SOL_SOCKET, 46 /* SO_BUSY_POLL */}, {IPPROTO_TCP, TCP_SYNCNT}, {IPPROTO_TCP, TCP_LINGER2},
        {IPPROTO_TCP, TCP_DEFER_ACCEPT}, {IPPROTO_TCP, TCP_NOTSENT_LOWAT}, {IPPROTO_TCP, TCP_USER_TIMEOUT},
        {IPPROTO_TCP, TCP_KEEPCNT}, {IPPROTO_IP, IP_TTL}, {IPPROTO_IP, IP_MINTTL}, {IPPROTO_IP, IP_RECVTOS},
        {IPPROTO_IP, IP_PKTINFO}, {IPPROTO_IP, IP_FREEBIND}, {IPPROTO_IP, IP_MTU_DISCOVER}};

enum { CARRIED = sizeof(carried) / sizeof(carried[0]) };

static void carried_set(int fd)
{
	int v = 2;

	for (int i = 0; i < CARRIED; i++)
		ret("set", setsockopt(fd, carried[i].level, carried[i].name, &v, sizeof(v)));
}

static void carried_get(int fd)
{
	for (int i = 0; i < CARRIED; i++)
		get_one(fd, carried[i].level, carried[i].name, sizeof(int));
}

CASE(set_before_connect_is_kept)
{
	struct sockaddr_in a;
	int fd = tcp_socket(), id, at;

	carried_set(fd);
	sscanf(peer("listen 0 4 0"), "ok %d %d", &id, &at);
	a = addr_peer(at);
	ret("connect", connect(fd, SA(a), sizeof(a)));
	carried_get(fd);
}

CASE(set_before_listen_is_inherited)
{
	struct sockaddr_in a = addr_server(port(0));
	int l = tcp_socket(), id, v = 1;

	carried_set(l);
	bind(l, SA(a), sizeof(a));
	ret("listen", listen(l, 4));
	carried_get(l);
	setsockopt(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, &v, sizeof(v));
	id = peer_connect(port(0));
	peer_ok("send %d 1", id);
	carried_get(accept(l, NULL, NULL));
}

/* Shared after fork, as everything of a socket. */
CASE_BOTH(set_by_a_child_is_seen_by_the_parent)
{
	struct conn c = pair();
	pid_t pid = fork();

	if (!pid) {
		int v = 77;

		setsockopt(c.fd, IPPROTO_TCP, TCP_KEEPIDLE, &v, sizeof(v));
		setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v));
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	get_one(c.fd, IPPROTO_TCP, TCP_KEEPIDLE, sizeof(int));
	get_one(c.fd, IPPROTO_TCP, TCP_NODELAY, sizeof(int));
}

CASE(deferred_accept_shows_nothing_before_data)
{
	int l = listener(port(0)), v = 5, id;
	char c;

	ret("defer", setsockopt(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, &v, sizeof(v)));
	id = peer_connect(port(0));
	nap_ms(100);
	set_nonblock(l, true);
	ret("early", accept(l, NULL, NULL));
	peer_ok("send %d 1", id);
	rev("level", settle(l, POLLIN));
	ret("recv", recv(accept(l, NULL, NULL), &c, 1, MSG_DONTWAIT));
}
