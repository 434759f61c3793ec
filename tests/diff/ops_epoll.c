/* ops_epoll.c - operations on sets: epoll instances with sockets, pipes and other sets in them, poll and
 * select.
 *
 * Worker's main thread; nothing here waits for long. The kernel gives ready members in the order in which
 * they became ready, and so may anybody: what a wait returns is sorted before it is said.
 */
#include "diff.h"

#include <sys/eventfd.h>
#include <sys/select.h>

static void op_epoll_create(void)
{
	int flags = percent(50) ? EPOLL_CLOEXEC : 0, fd, slot;

	if (slot_free() < 0)
		return;
	if (percent(5))
		flags = 0x10;
	fd = percent(80) ? epoll_create1(flags) : epoll_create(percent(90) ? 5 : 0);
	if (fd < 0) {
		say_rc(fd);
		return;
	}
	slot = slot_open(fd, KIND_EPOLL, 0);
	say("=%d", slot);
}

static void op_pipe(void)
{
	int fds[2], a, b;

	if (slot_free() < 0)
		return;
	if (percent(50)) {
		a = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		say(" eventfd=%d", slot_open(a, KIND_PIPE_WRITE, 0));
		return;
	}
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
		abort();
	a = slot_open(fds[0], KIND_PIPE_READ, 0);
	if (slot_free() < 0) {
		close(fds[1]);
		say(" half=%d", a);
		return;
	}
	b = slot_open(fds[1], KIND_PIPE_WRITE, 0);
	say("=%d,%d", a, b);
}

static bool is_pipe(const struct slot *s)
{
	enum kind kind = world->objs[s->obj].kind;

	return kind == KIND_PIPE_READ || kind == KIND_PIPE_WRITE;
}

static void op_pipe_io(void)
{
	int slot = slot_pick(is_pipe);
	uint64_t buf = 1;

	if (slot < 0)
		return;
	say(" %d", slot);
	if (obj_of(slot)->kind == KIND_PIPE_READ || percent(30)) {
		say(" read");
		if (!(poll_now(world->slots[slot].fd, POLLIN) & ~POLLNVAL) &&
		        is_blocking(world->slots[slot].fd))
			return;
		say_rc(read(world->slots[slot].fd, &buf, sizeof(buf)));
	} else {
		say(" write");
		if (!(poll_now(world->slots[slot].fd, POLLOUT) & ~POLLNVAL) &&
		        is_blocking(world->slots[slot].fd))
			return;
		say_rc(write(world->slots[slot].fd, &buf, sizeof(buf)));
	}
	say_signals();
}

static uint32_t mask_any(void)
{
	uint32_t m = 0;

	m |= percent(75) ? EPOLLIN : 0;
	m |= percent(45) ? EPOLLOUT : 0;
	m |= percent(45) ? EPOLLRDHUP : 0;
	m |= percent(10) ? EPOLLPRI : 0;
	m |= percent(35) ? (uint32_t)EPOLLET : 0;
	m |= percent(15) ? (uint32_t)EPOLLONESHOT : 0;
	m |= percent(5) ? (uint32_t)EPOLLEXCLUSIVE : 0;
	m |= percent(5) ? EPOLLRDNORM | EPOLLWRNORM : 0;
	m |= percent(2) ? EPOLLERR | EPOLLHUP : 0;
	return m;
}

static bool is_no_epoll(const struct slot *s)
{
	return !is_epoll(s);
}

static void op_epoll_ctl(void)
{
	int set = slot_pick(is_epoll), slot, op;
	struct epoll_event ev;
	struct obj *o;
	long rc;

	if (set < 0)
		return;
	o = obj_of(set);
	slot = percent(90) ? slot_pick(is_no_epoll) : slot_pick(is_any);
	if (slot < 0)
		return;
	if (o->members & 1u << slot)
		op = percent(60) ? EPOLL_CTL_MOD : percent(80) ? EPOLL_CTL_DEL : EPOLL_CTL_ADD;
	else
		op = percent(90) ? EPOLL_CTL_ADD : percent(50) ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
	if (percent(2))
		op = 77;
	ev.events = mask_any();
	ev.data.u64 = (uint64_t)slot << 32 | ++world->serial;
	say(" %d %s %d %x", set,
	        op == EPOLL_CTL_ADD   ? "add"
	        : op == EPOLL_CTL_MOD ? "mod"
	        : op == EPOLL_CTL_DEL ? "del"
	                              : "?",
	        slot, ev.events);
	rc = say_rc(epoll_ctl(world->slots[set].fd, op, world->slots[slot].fd, percent(97) ? &ev : NULL));
	if (rc)
		return;
	obj_of(slot)->is_edge |= op != EPOLL_CTL_DEL && (ev.events & EPOLLET);
	if (op == EPOLL_CTL_ADD)
		o->members |= 1u << slot;
	if (op == EPOLL_CTL_DEL)
		o->members &= ~(1u << slot);
}

static int by_data(const void *a, const void *b)
{
	const struct epoll_event *x = a, *y = b;

	return x->data.u64 < y->data.u64 ? -1 : x->data.u64 > y->data.u64;
}

static void op_epoll_wait(void)
{
	int set = slot_pick(is_epoll), max = percent(96) ? 32 : (int)chance(2) - 1, n;
	struct epoll_event ev[32];
	int timeout = percent(95) ? 0 : 1;

	if (set < 0)
		return;
	say(" %d max%d", set, max);
	/* README: kernel members of a set that has just had an event of Pronk's are looked at every 100 us */
	nap_us(150);
	n = percent(80) ? epoll_wait(world->slots[set].fd, ev, max, timeout)
	                : epoll_pwait(world->slots[set].fd, ev, max, timeout, NULL);
	say_rc(n);
	if (n <= 0)
		return;
	qsort(ev, (size_t)n, sizeof(ev[0]), by_data);
	for (int i = 0; i < n; i++) {
		say(" %u.%u:", (unsigned int)(ev[i].data.u64 >> 32), (unsigned int)ev[i].data.u64);
		say_events(ev[i].events);
	}
}

static void op_poll(void)
{
	static const short masks[] = {POLLIN, POLLOUT, POLLIN | POLLOUT, POLLRDHUP, 0, POLLPRI,
	        POLLRDNORM | POLLWRNORM, POLLIN | POLLRDHUP, POLLRDBAND | POLLWRBAND};
	struct pollfd p[6];
	struct timespec ts = {0};
	int count = (int)chance(7), n, timeout = percent(95) ? 0 : 1;

	for (int i = 0; i < count; i++) {
		int slot = slot_pick(is_any);

		p[i].fd = slot < 0 || percent(5) ? -1 : world->slots[slot].fd;
		p[i].events = masks[chance(9)];
		p[i].revents = 0x7777;
		say(" %d:%x", p[i].fd < 0 ? -1 : slot, (unsigned int)p[i].events);
		if (percent(3)) {
			p[i].fd = 960;
			say("bad");
		}
	}
	ts.tv_nsec = timeout * 1000000;
	n = percent(70) ? poll(p, (nfds_t)count, timeout) : ppoll(p, (nfds_t)count, &ts, NULL);
	say_rc(n);
	for (int i = 0; i < count; i++) {
		say(" ");
		say_events((unsigned int)p[i].revents);
	}
}

static void op_select(void)
{
	fd_set in, out, except;
	struct timeval tv = {0};
	int nfds = 0, n, chosen[4], count = 1 + (int)chance(4);
	bool has_out = percent(60), has_except = percent(40);

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&except);
	for (int i = 0; i < count; i++) {
		int slot = chosen[i] = slot_pick(is_any), fd;

		if (slot < 0)
			return;
		fd = world->slots[slot].fd;
		FD_SET(fd, &in);
		if (percent(50))
			FD_SET(fd, &out);
		if (percent(50))
			FD_SET(fd, &except);
		if (fd >= nfds)
			nfds = fd + 1;
		say(" %d", slot);
	}
	n = select(nfds, &in, has_out ? &out : NULL, has_except ? &except : NULL, &tv);
	say_rc(n);
	for (int i = 0; n >= 0 && i < count; i++) {
		int fd = world->slots[chosen[i]].fd;

		say(" %c%c%c", FD_ISSET(fd, &in) ? 'r' : '-', has_out && FD_ISSET(fd, &out) ? 'w' : '-',
		        has_except && FD_ISSET(fd, &except) ? 'x' : '-');
	}
}

const struct op ops_epoll[] = {
        {"epoll_create", op_epoll_create, {3, 1, 0, 6, 1, 4}},
        {"epoll_ctl", op_epoll_ctl, {14, 2, 1, 30, 2, 12}},
        {"epoll_wait", op_epoll_wait, {14, 2, 1, 30, 2, 12}},
        {"pipe", op_pipe, {1, 0, 0, 3, 0, 1}},
        {"pipe_io", op_pipe_io, {2, 0, 0, 6, 0, 1}},
        {"poll", op_poll, {5, 4, 5, 3, 1, 4}},
        {"select", op_select, {4, 4, 4, 3, 1, 4}},
        {NULL, NULL, {0}},
};
