/* world.c - what a sequence knows and says: chance, trace, slots, and the link to the other end.
 *
 * Worker's main thread; a child of fork(2) uses it while its parent waits.
 */
#include "diff.h"

#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <time.h>

struct world *world;
struct report *report;
struct setup setup;

static uint64_t chance_at;
static int control = -1, barrier_fd = -1, listener_port;
static _Atomic int pipes_seen;

/* --- chance --- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

void chance_start(uint64_t seed, uint32_t step)
{
	chance_at = mix(mix(seed + 0x9e3779b97f4a7c15ull) + step);
}

uint32_t chance(uint32_t n)
{
	chance_at += 0x9e3779b97f4a7c15ull;
	return (uint32_t)((mix(chance_at) >> 32) * n >> 32);
}

bool percent(uint32_t n)
{
	return chance(100) < n;
}

/* --- trace --- */

void say(const char *format, ...)
{
	va_list ap;
	int saved = errno, n;

	va_start(ap, format);
	n = vsnprintf(report->trace + report->size, TRACE_MAX - report->size, format, ap);
	va_end(ap);
	if (n > 0 && report->size + (uint32_t)n < TRACE_MAX)
		report->size += (uint32_t)n;
	atomic_fetch_add(&report->steps, 1);
	errno = saved;
}

long say_rc(long rc)
{
	if (rc < 0)
		say("=%s", strerrorname_np(errno));
	else
		say("=%ld", rc);
	return rc;
}

void say_events(unsigned int events)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} names[] = {{EPOLLIN, "IN"}, {EPOLLPRI, "PRI"}, {EPOLLOUT, "OUT"}, {EPOLLERR, "ERR"},
	        {EPOLLHUP, "HUP"}, {EPOLLRDNORM, "RDNORM"}, {EPOLLRDBAND, "RDBAND"}, {EPOLLWRNORM, "WRNORM"},
	        {EPOLLWRBAND, "WRBAND"}, {EPOLLRDHUP, "RDHUP"}, {POLLNVAL, "NVAL"}};
	const char *between = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (events & names[i].bit) {
			say("%s%s", between, names[i].name);
			between = "|";
		}
	if (!*between)
		say("-");
}

static const char *port_name(int port, int peer_port, bool is_peer)
{
	static char name[16];

	if (port >= world->first_port && port < world->first_port + PORTS)
		snprintf(name, sizeof(name), "P%d", port - world->first_port);
	else
		snprintf(name, sizeof(name), "%s",
		        !port                   ? "0"
		        : port == 9             ? "closed"
		        : !is_peer              ? "some" /* that the peer has the same is chance */
		        : port == peer_port     ? "his"
		        : port == listener_port ? "L"
		                                : "some");
	return name;
}

void say_addr(const struct sockaddr *addr, socklen_t len, int peer_port)
{
	const struct sockaddr_in *in = (const void *)addr;
	const struct sockaddr_in6 *in6 = (const void *)addr;
	struct in_addr a = in->sin_addr;

	say(" len%u", len);
	if (len < sizeof(*in))
		return;
	if (addr->sa_family == AF_INET6 && len >= sizeof(*in6)) {
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
			memcpy(&a, in6->sin6_addr.s6_addr + 12, 4);
			say(" mapped");
		} else {
			say(" 6:%s:%s", IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr) ? "any" : "other",
			        port_name(ntohs(in6->sin6_port), peer_port, false));
			return;
		}
	} else if (addr->sa_family != AF_INET) {
		say(" family%d", addr->sa_family);
		return;
	}
	say(" %s:%s",
	        a.s_addr == setup.own.s_addr         ? "own"
	        : a.s_addr == setup.peer.s_addr      ? "peer"
	        : a.s_addr == htonl(INADDR_LOOPBACK) ? "loopback"
	        : !a.s_addr                          ? "any"
	                                             : "other",
	        port_name(ntohs(in->sin_port), peer_port, a.s_addr == setup.peer.s_addr));
}

uint32_t hash_of(const void *data, size_t size)
{
	const uint8_t *p = data;
	uint32_t h = 2166136261u;

	while (size--)
		h = (h ^ *p++) * 16777619u;
	return h;
}

static void on_pipe(int signal)
{
	(void)signal;
	atomic_fetch_add(&pipes_seen, 1);
}

void say_signals(void)
{
	int n = atomic_exchange(&pipes_seen, 0);

	if (n)
		say(" SIGPIPE*%d", n);
}

/* --- slots --- */

int slot_pick(slot_test test)
{
	int at = (int)chance(SLOTS);

	for (int i = 0; i < SLOTS; i++, at++)
		if (world->slots[at % SLOTS].fd >= 0 && test(&world->slots[at % SLOTS]))
			return at % SLOTS;
	return -1;
}

int slot_free(void)
{
	if (world->obj_count >= OBJS - 2)
		return -1;
	for (int i = 0; i < SLOTS; i++)
		if (world->slots[i].fd < 0)
			return i;
	return -1;
}

struct obj *obj_of(int slot)
{
	return &world->objs[world->slots[slot].obj];
}

static int slot_take(int fd, int obj)
{
	int at = slot_free();

	if (at < 0)
		abort();
	world->slots[at] = (struct slot){.fd = fd, .obj = obj, .serial = ++world->serial, .seen = -1};
	world->objs[obj].refs++;
	return at;
}

int slot_open(int fd, enum kind kind, int domain)
{
	int obj = world->obj_count++;

	world->objs[obj] = (struct obj){.kind = kind, .domain = domain, .peer = -1};
	return slot_take(fd, obj);
}

int slot_share(int fd, int like)
{
	return slot_take(fd, world->slots[like].obj);
}

bool slot_gone(int slot)
{
	struct obj *o = obj_of(slot);

	world->slots[slot].fd = -1;
	for (int i = 0; i < world->obj_count; i++)
		world->objs[i].members &= ~(1u << slot);
	if (--o->refs)
		return false;
	o->has_fin_out = true;
	o->state = STATE_ENDED;
	return true;
}

bool is_any(const struct slot *s)
{
	(void)s;
	return true;
}

bool is_tcp(const struct slot *s)
{
	return world->objs[s->obj].kind == KIND_TCP;
}

bool is_epoll(const struct slot *s)
{
	return world->objs[s->obj].kind == KIND_EPOLL;
}

bool is_connected(const struct slot *s)
{
	return is_tcp(s) && world->objs[s->obj].state == STATE_CONNECTED;
}

bool is_healthy(const struct slot *s)
{
	const struct obj *o = &world->objs[s->obj];

	return is_connected(s) && o->peer > 0 && !o->is_broken && !o->has_fin_in && !o->has_fin_out &&
	       !o->is_shut_rd && !o->in;
}

bool is_listening(const struct slot *s)
{
	return is_tcp(s) && world->objs[s->obj].state == STATE_LISTEN;
}

bool is_fresh(const struct slot *s)
{
	return is_tcp(s) && world->objs[s->obj].state == STATE_FRESH;
}

/* --- the other end --- */

static void fail(const char *what)
{
	say(" HARNESS %s: %s\n", what, strerrorname_np(errno));
	_exit(3);
}

void peer_go(enum verb verb, int id, int value, int delay_us)
{
	struct peer_cmd c = {
	        verb, id, value, delay_us, verb == PEER_SEND || verb == PEER_UDP_SEND ? chance(1u << 30) : 0};

	if (verb == PEER_PROBE)
		abort();
	if (send(control, &c, sizeof(c), MSG_NOSIGNAL) != sizeof(c))
		fail("peer");
}

struct peer_answer peer_get(void)
{
	struct peer_answer r;
	ssize_t n;

	do
		n = recv(control, &r, sizeof(r), 0);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(r))
		fail("peer");
	return r;
}

struct peer_answer peer_do(enum verb verb, int id, int value)
{
	peer_go(verb, id, value, 0);
	return peer_get();
}

void barrier(void)
{
	char c = 'b';
	ssize_t n;

	if (send(barrier_fd, &c, 1, MSG_NOSIGNAL) != 1)
		fail("barrier send");
	do
		n = recv(barrier_fd, &c, 1, 0);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		fail("barrier");
}

void peer_view(int id, size_t bytes, int end, char *seen, size_t seen_size)
{
	struct peer_cmd c = {.verb = PEER_PROBE, .id = id, .value = (int)bytes, .key = (uint32_t)end};
	struct peer_answer r;
	char text[64];

	if (send(control, &c, sizeof(c), MSG_NOSIGNAL) != sizeof(c))
		fail("peer");
	r = peer_get();
	if (r.rc)
		return;
	snprintf(text, sizeof(text), "%u,%x", r.size, (unsigned int)r.value);
	if (seen && !strcmp(text, seen))
		return;
	if (seen)
		snprintf(seen, seen_size, "%s", text);
	say(" {peer sees %u ", r.size);
	say_events((unsigned int)r.value);
	say("}");
}

/* The acknowledgement of our end is an edge, and the peer's kernel may hold it back for 40 ms. */
static void fin_wait(struct obj *o)
{
	struct tcp_info info;
	socklen_t len;
	int fd = -1;

	o->is_fin_acked = true;
	for (int i = 0; i < SLOTS; i++)
		if (world->slots[i].fd >= 0 && obj_of(i) == o)
			fd = world->slots[i].fd;
	for (int i = 0; fd >= 0 && i < 1000; i++) {
		len = sizeof(info);
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
		        (info.tcpi_state != TCP_FIN_WAIT1 && info.tcpi_state != TCP_LAST_ACK &&
		                info.tcpi_state != TCP_CLOSING))
			break;
		nap_us(200);
	}
	barrier();
}

void end_wait(int fd, short events)
{
	for (int i = 0; i < 2000 && !(poll_now(fd, POLLRDHUP) & events); i++)
		nap_us(200);
}

void settle(struct obj *o)
{
	barrier();
	if (!o || o->kind != KIND_TCP)
		return;
	if (o->peer > 0)
		peer_view(o->peer, o->is_broken ? 0 : o->out, !o->is_broken && o->has_fin_out, o->seen,
		        sizeof(o->seen));
	if (o->has_fin_out && !o->is_fin_acked)
		fin_wait(o);
}

void probe(void)
{
	struct pollfd p[SLOTS];
	const char *before = "\n      poll";

	for (int i = 0; i < SLOTS; i++)
		p[i] = (struct pollfd){
		        .fd = world->slots[i].fd, .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP};
	if (poll(p, SLOTS, 0) < 0)
		say(" poll=%s", strerrorname_np(errno));
	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &world->slots[i];

		if (s->fd < 0 || p[i].revents == s->seen)
			continue;
		s->seen = p[i].revents;
		say("%s %d:", before, i);
		say_events((unsigned int)p[i].revents);
		before = "";
	}
}

/* --- tools --- */

void nap_us(long us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

bool is_blocking(int fd)
{
	int fl = fcntl(fd, F_GETFL);

	return fl >= 0 && !(fl & O_NONBLOCK);
}

int readable(int fd)
{
	int n = 0;

	return ioctl(fd, FIONREAD, &n) < 0 ? 0 : n;
}

short poll_now(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

static void mapped(struct sockaddr_in6 *to, struct in_addr a, int port)
{
	*to = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	to->sin6_addr.s6_addr[10] = to->sin6_addr.s6_addr[11] = 0xff;
	memcpy(to->sin6_addr.s6_addr + 12, &a, 4);
}

int port_for(int address)
{
	return world->first_port + address;
}

int connection_make(int domain, bool is_nonblocking)
{
	struct sockaddr_in to = {
	        .sin_family = AF_INET, .sin_addr = setup.peer, .sin_port = htons((uint16_t)listener_port)};
	struct sockaddr_in6 to6;
	struct peer_answer r;
	int fd, one = 1, slot;
	struct obj *o;
	long rc;

	if (slot_free() < 0)
		return -1;
	fd = socket(domain, SOCK_STREAM | (is_nonblocking ? SOCK_NONBLOCK : 0), 0);
	if (fd < 0) {
		say_rc(fd);
		return -1;
	}
	slot = slot_open(fd, KIND_TCP, domain);
	o = obj_of(slot);
	if (percent(92))
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	mapped(&to6, setup.peer, listener_port);
	rc = connect(fd, domain == AF_INET ? (void *)&to : (void *)&to6,
	        domain == AF_INET ? sizeof(to) : sizeof(to6));
	say(" %d", slot);
	say_rc(rc);
	if (rc < 0 && errno != EINPROGRESS)
		return -1;
	r = peer_do(PEER_ACCEPT, 0, 0);
	if (r.rc < 0) {
		say(" peer's accept: %s", strerrorname_np(-r.rc));
		return -1;
	}
	o->peer = r.rc;
	o->peer_port = listener_port;
	o->state = STATE_CONNECTED;
	return slot;
}

int listener_make(int domain, bool is_wildcard)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct sockaddr_in6 a6;
	int fd, one = 1, slot, backlog = percent(80) ? 8 : (int)chance(4);
	int port = percent(60) ? port_for(is_wildcard ? 1 : 0) : 0;
	socklen_t len = sizeof(a6);
	struct obj *o;

	if (slot_free() < 0)
		return -1;
	fd = socket(domain, SOCK_STREAM, 0);
	if (fd < 0) {
		say_rc(fd);
		return -1;
	}
	slot = slot_open(fd, KIND_TCP, domain);
	o = obj_of(slot);
	o->was_bound = true;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	a.sin_port = htons((uint16_t)port);
	if (!is_wildcard)
		a.sin_addr = setup.own;
	mapped(&a6, setup.own, port);
	if (is_wildcard)
		memset(&a6.sin6_addr, 0, sizeof(a6.sin6_addr));
	say(" %d %s", slot, is_wildcard ? "any" : "own");
	say(" %s", port_name(port, 0, false));
	if (say_rc(bind(fd, domain == AF_INET ? (void *)&a : (void *)&a6,
	            domain == AF_INET ? sizeof(a) : sizeof(a6))) < 0)
		return -1;
	o->state = STATE_BOUND;
	say(" listen %d", backlog);
	if (say_rc(listen(fd, backlog)) < 0)
		return -1;
	o->state = STATE_LISTEN;
	o->backlog = backlog;
	o->has_listened = true;
	if (getsockname(fd, (struct sockaddr *)&a6, &len) == 0)
		o->port = ntohs(a6.sin6_port); /* at the same place in both */
	return slot;
}

void listener_call(struct obj *o)
{
	struct peer_answer r = peer_do(PEER_CONNECT, 0, o->port);

	if (r.rc < 0) {
		say("=%s", strerrorname_np(-r.rc));
		return;
	}
	say("=ok");
	if (o->queued < QUEUE_MAX) {
		o->queue_port[o->queued] = r.value;
		o->queue[o->queued++] = r.rc;
	}
}

int accepted(int fd, struct obj *listener)
{
	int slot = slot_open(fd, KIND_TCP, listener->domain), one = 1;
	struct obj *o = obj_of(slot);

	o->state = STATE_CONNECTED;
	o->port = listener->port;
	if (listener->queued) {
		o->peer = listener->queue[0];
		o->peer_port = listener->queue_port[0];
		o->is_broken = o->has_fin_in = o->peer < 0;
		memmove(listener->queue, listener->queue + 1, sizeof(listener->queue) - sizeof(int));
		memmove(listener->queue_port, listener->queue_port + 1,
		        sizeof(listener->queue_port) - sizeof(int));
		listener->queued--;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return slot;
}

void world_open(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = setup.peer};
	struct sigaction sa = {.sa_handler = on_pipe, .sa_flags = SA_RESTART};
	struct peer_answer r;
	int one = 1;

	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (world == MAP_FAILED)
		abort();
	for (int i = 0; i < SLOTS; i++)
		world->slots[i].fd = -1;
	sigaction(SIGPIPE, &sa, NULL);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", setup.control);
	control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (control < 0 || connect(control, (struct sockaddr *)&un, sizeof(un)) < 0)
		fail("control socket");
	r = peer_do(PEER_HELLO, 0, 0);
	if (r.rc)
		fail("hello");
	listener_port = r.value;
	to.sin_port = htons((uint16_t)listener_port);
	barrier_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(barrier_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (barrier_fd < 0 || connect(barrier_fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("barrier connect");
	barrier();
}

void world_reset(uint64_t seed)
{
	world->obj_count = 0;
	world->serial = 0;
	world->first_port = 1100 + (int)(seed % 10500) * PORTS;
	atomic_store(&pipes_seen, 0);
}

void world_close(void)
{
	struct linger hard = {1, 0};

	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &world->slots[i];

		if (s->fd < 0)
			continue;
		/* nothing of it stays in TIME_WAIT for a later sequence */
		if (is_tcp(s))
			setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		close(s->fd);
		s->fd = -1;
	}
	if (setup.flavour == TCP_FLAVOURS)
		barrier(); /* what is on its way to the peer's datagram sockets shall be forgotten, too */
	peer_do(PEER_FORGET, 0, 0);
	barrier();
}
