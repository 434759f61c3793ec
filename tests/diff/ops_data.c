/* ops_data.c - operations that move bytes or end a direction: every form of send and receive, and what the
 * peer does.
 *
 * Worker's main thread. No more than LEVEL_MAX bytes are ever on their way in one direction, so that no
 * buffer fills up: what a full one takes depends on its size, which is nobody's promise. bulk and fill go
 * beyond, and say nothing that depends on sizes.
 */
#include "diff.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static size_t size_any(void)
{
	static const uint16_t sizes[] = {
	        0, 1, 1, 2, 3, 10, 10, 100, 100, 1000, 1448, 1449, 2896, 4096, 5000, PIECE_MAX};

	return sizes[chance(16)];
}

static void fill_random(uint8_t *buf, size_t size)
{
	uint32_t x = chance(1u << 30) | 1;

	for (size_t i = 0; i < size; i++) {
		x = x * 1664525 + 1013904223;
		buf[i] = (uint8_t)(x >> 24);
	}
}

static int recv_flags(void)
{
	int flags = 0;

	if (percent(20))
		flags |= MSG_PEEK;
	if (percent(15))
		flags |= MSG_WAITALL;
	if (percent(20))
		flags |= MSG_DONTWAIT;
	if (percent(5))
		flags |= MSG_TRUNC;
	if (percent(5))
		flags |= MSG_NOSIGNAL;
	if (percent(2))
		flags |= MSG_OOB;
	if (percent(2))
		flags |= MSG_ERRQUEUE;
	return flags;
}

/* Splits a buffer into count pieces, some of them empty. */
static int split(struct iovec *iov, void *buf, size_t size)
{
	int count = 1 + (int)chance(4);
	size_t at = 0;

	for (int i = 0; i < count; i++) {
		size_t n = i == count - 1 ? size - at : chance((uint32_t)(size - at) + 1);

		iov[i] = (struct iovec){(char *)buf + at, n};
		at += n;
	}
	return count;
}

static void op_recv(void)
{
	static uint8_t buf[2 * PIECE_MAX];
	int slot = percent(90) ? slot_pick(is_connected) : slot_pick(is_tcp), fd, flags = 0,
	    form = (int)chance(6), saved;
	size_t size = percent(10) ? sizeof(buf) : size_any();
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	struct iovec iov[4];
	struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = iov, .msg_flags = 0x7f};
	struct obj *o;
	ssize_t n;

	if (slot < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	if (form >= 2)
		flags = recv_flags();
	if (is_blocking(fd) && !(flags & MSG_DONTWAIT)) {
		short now = poll_now(fd, POLLIN | POLLRDHUP);
		bool can_go = (now & (POLLERR | POLLHUP | POLLRDHUP)) ||
		              ((now & POLLIN) && (!(flags & MSG_WAITALL) || (size_t)readable(fd) >= size));

		if (!can_go) {
			form = form < 2 ? 2 : form;
			flags |= MSG_DONTWAIT;
		}
	}
	/* the level of what is queued is all that is known after a part was taken and then the end was met */
	memset(buf, 0xcc, sizeof(buf));
	memset(&from, 0xee, sizeof(from));
	say(" %d form%d size%zu flags%x", slot, form, size, (unsigned int)flags);
	switch (form) {
	case 0:
		n = read(fd, buf, size);
		break;
	case 1:
		n = readv(fd, iov, split(iov, buf, size));
		break;
	case 2:
		n = recv(fd, buf, size, flags);
		break;
	case 3:
		n = recvfrom(fd, buf, size, flags, (struct sockaddr *)&from, &len);
		saved = errno;
		if (n >= 0)
			say(" len%u", len);
		errno = saved;
		break;
	default:
		m.msg_iovlen = (size_t)split(iov, buf, size);
		n = recvmsg(fd, &m, flags);
		saved = errno;
		if (n >= 0)
			say(" msg_flags%x namelen%u", (unsigned int)m.msg_flags, m.msg_namelen);
		errno = saved;
	}
	say_rc(n);
	say(" %08x", hash_of(buf, sizeof(buf)));
	if (n > 0 && !(flags & MSG_PEEK))
		o->in -= (size_t)n < o->in ? (size_t)n : o->in;
}

static int file_of(const uint8_t *buf, size_t size)
{
	int fd = memfd_create("part", MFD_CLOEXEC);

	if (fd < 0 || write(fd, buf, size) != (ssize_t)size)
		abort();
	return fd;
}

static void op_send(void)
{
	static uint8_t buf[PIECE_MAX];
	int slot = percent(90) ? slot_pick(is_connected) : slot_pick(is_tcp), fd, flags = 0,
	    form = (int)chance(7), file;
	size_t size = size_any();
	struct iovec iov[4];
	struct msghdr m = {.msg_iov = iov};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = setup.peer, .sin_port = htons(9)};
	off_t offset = 0;
	struct obj *o;
	ssize_t n;

	if (slot < 0)
		return;
	o = obj_of(slot);
	if (o->out + size > LEVEL_MAX)
		return;
	fd = world->slots[slot].fd;
	fill_random(buf, size);
	if (form >= 2) {
		flags |= percent(30) ? MSG_NOSIGNAL : 0;
		flags |= percent(20) ? MSG_DONTWAIT : 0;
		flags |= percent(5) ? MSG_EOR : 0;
		flags |= percent(3) ? MSG_CONFIRM : 0;
	}
	say(" %d form%d size%zu flags%x", slot, form, size, (unsigned int)flags);
	switch (form) {
	case 0:
		n = write(fd, buf, size);
		break;
	case 1:
		n = writev(fd, iov, split(iov, buf, size));
		break;
	case 2:
	case 3:
		n = send(fd, buf, size, flags);
		break;
	case 4:
		n = sendto(fd, buf, size, flags, (struct sockaddr *)&to, percent(50) ? sizeof(to) : 0);
		break;
	case 5:
		file = file_of(buf, size);
		n = sendfile(fd, file, percent(50) ? &offset : NULL, size);
		if (n >= 0)
			say(" offset%d pos%d", (int)offset, (int)lseek(file, 0, SEEK_CUR));
		close(file);
		break;
	default:
		m.msg_iovlen = (size_t)split(iov, buf, size);
		n = sendmsg(fd, &m, flags);
	}
	say_rc(n);
	say_signals();
	if (n > 0 && !o->is_broken)
		o->out += (size_t)n;
	/* the peer has closed: it answers with a reset */
	if (n > 0 && o->state == STATE_CONNECTED && o->peer < 0) {
		o->is_broken = true;
		end_wait(fd, POLLERR | POLLHUP);
	}
	if (o->state == STATE_CONNECTED)
		settle(o);
}

static bool has_peer(const struct slot *s)
{
	return is_connected(s) && world->objs[s->obj].peer > 0;
}

static void op_peer_sends(void)
{
	int slot = slot_pick(has_peer);
	struct peer_answer r;
	struct obj *o;
	size_t size;

	if (slot < 0)
		return;
	o = obj_of(slot);
	size = size_any();
	if (!size || o->in + size > LEVEL_MAX)
		size = 1;
	say(" %d size%zu", slot, size);
	r = peer_do(PEER_SEND, o->peer, (int)size);
	say("=%s,%u", r.rc < 0 ? strerrorname_np(-r.rc) : "ok", r.size);
	/* both directions are shut: what comes now is answered with a reset */
	if (o->has_fin_out && o->is_shut_rd) {
		o->is_broken = true;
		peer_view(o->peer, 0, r.rc ? 0 : 2, o->seen, sizeof(o->seen));
	}
	if (!r.rc && !o->is_broken)
		o->in += size;
	barrier();
	for (int i = 0; !o->is_broken && i < 2000 && (size_t)readable(world->slots[slot].fd) < o->in; i++) {
		if (poll_now(world->slots[slot].fd, 0))
			break;
		nap_us(200);
	}
	settle(o);
}

static void op_peer_reads(void)
{
	int slot = slot_pick(has_peer);
	struct peer_answer r;
	struct obj *o;
	size_t size;

	if (slot < 0)
		return;
	o = obj_of(slot);
	if (!o->out || o->is_broken)
		return;
	size = percent(40) ? 1 + chance((uint32_t)o->out) : o->out;
	say(" %d", slot);
	r = peer_do(PEER_RECV, o->peer, (int)size);
	say("=%u,%08x,%s", r.size, r.hash, r.end ? r.end == 1 ? "end" : strerrorname_np(r.end) : "more");
	o->out -= r.size < o->out ? r.size : o->out;
	settle(o);
}

static void op_peer_ends(void)
{
	int slot = slot_pick(has_peer), how = (int)chance(6);
	struct peer_answer r;
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	say(" %d", slot);
	switch (how) {
	case 0:
		say(" reset");
		peer_do(PEER_RESET, o->peer, 0);
		o->peer = -1;
		o->is_broken = true;
		break;
	case 1:
	case 2:
		say(" close");
		peer_do(PEER_CLOSE, o->peer, 0);
		o->peer = -1;
		if (o->out)
			o->is_broken = true;
		o->has_fin_in = true;
		break;
	default:
		say(" shut");
		r = peer_do(PEER_SHUT, o->peer, how == 5 ? SHUT_RDWR : SHUT_WR);
		say("=%s", r.rc < 0 ? strerrorname_np(-r.rc) : "ok");
		o->has_fin_in = true;
	}
	end_wait(world->slots[slot].fd, POLLRDHUP | POLLERR | POLLHUP);
	settle(o);
}

/* Bad memory and counts: with data there and without. */
static void op_bad_buffer(void)
{
	static volatile int too_few = -1, too_many = 1025; /* out of the compiler's sight */
	int slot = slot_pick(is_tcp), fd;
	struct iovec iov = {NULL, 10};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	switch (chance(5)) {
	case 0:
		say(" recv NULL");
		say_rc(recv(fd, NULL, 10, MSG_DONTWAIT));
		break;
	case 1:
		say(" send NULL");
		say_rc(send(fd, NULL, 10, MSG_NOSIGNAL | MSG_DONTWAIT));
		break;
	case 2:
		say(" readv -1");
		say_rc(readv(fd, &iov, too_few));
		break;
	case 3:
		say(" writev 1025");
		say_rc(writev(fd, &iov, too_many));
		break;
	default:
		say(" recvmsg NULL");
		say_rc(recvmsg(fd, &m, MSG_DONTWAIT));
	}
	say_signals();
	settle(obj_of(slot));
}

/* Much data in one direction; nothing depends on how it is cut into pieces. */
static void op_bulk(void)
{
	static uint8_t buf[60000];
	int slot = slot_pick(is_healthy), fd, total, left, done = 0;
	struct peer_answer r;
	uint32_t h = 2166136261u;
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	total = 100000 + (int)chance(400000);
	say(" %d", slot);
	if (percent(50)) {
		say(" out");
		peer_go(PEER_RECV, o->peer, total + (int)o->out, 0);
		for (left = total; left;) {
			int part = 1 + (int)chance(sizeof(buf));
			ssize_t n;

			part = part < left ? part : left;
			fill_random(buf, (size_t)part);
			for (int at = 0; at < part; at += (int)n) {
				struct pollfd p = {.fd = fd, .events = POLLOUT};

				n = send(fd, buf + at, (size_t)(part - at), MSG_NOSIGNAL);
				if (n < 0 && errno == EAGAIN && poll(&p, 1, LIMIT_MS) == 1)
					n = 0;
				if (n < 0) {
					say_rc(n);
					left = part;
					break;
				}
			}
			left -= part;
		}
		r = peer_get();
		say("=%u,%08x,%d", r.size, r.hash, r.end);
		o->out = 0;
		settle(o);
		return;
	}
	say(" in");
	peer_go(PEER_SEND, o->peer, total, 0);
	while (done < total) {
		int part = 1 + (int)chance(sizeof(buf));
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		part = part < total - done ? part : total - done;
		n = recv(fd, buf, (size_t)part, percent(20) ? MSG_WAITALL : 0);
		if (n < 0 && errno == EAGAIN && poll(&p, 1, LIMIT_MS) == 1)
			continue;
		if (n <= 0) {
			say_rc(n);
			break;
		}
		for (ssize_t i = 0; i < n; i++)
			h = (h ^ buf[i]) * 16777619u;
		done += (int)n;
	}
	r = peer_get();
	say("=%u,%d,%08x", r.size, done, h);
	settle(o);
}

/* Sends until the socket takes no more; then the peer reads, and it takes more again. */
static void op_fill(void)
{
	static uint8_t buf[32768];
	int slot = slot_pick(is_healthy), fd, misses = 0;
	struct pollfd p = {.events = POLLOUT};
	struct peer_answer r;
	uint32_t sent = 0;
	struct obj *o;
	ssize_t n;

	if (slot < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	say(" %d", slot);
	fill_random(buf, sizeof(buf));
	p.fd = fd;
	while (misses < 1000) {
		n = send(fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			sent += (uint32_t)n;
			misses = 0;
		} else if (errno == EAGAIN) {
			/* what is on its way may still make room; but who is told of room finds some */
			if (!poll(&p, 1, 4))
				break;
			misses++;
		} else {
			say_rc(n);
			return;
		}
	}
	say(misses < 1000 ? " full" : " takes nothing though poll says that it would");
	sent += (uint32_t)o->out;
	peer_go(PEER_RECV, o->peer, (int)sent, 200);
	say(" room");
	say_rc(poll(&p, 1, LIMIT_MS));
	r = peer_get();
	say(" %s", r.size == sent ? "all came" : "less came");
	o->out = 0;
	settle(o);
}

void op_data_any(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} some[] = {{"recv", op_recv}, {"send", op_send}, {"peer sends", op_peer_sends},
	        {"peer reads", op_peer_reads}, {"peer ends", op_peer_ends}, {"recv", op_recv},
	        {"send", op_send}};
	uint32_t at = chance(sizeof(some) / sizeof(some[0]));

	say(" [%s", some[at].name);
	some[at].run();
	say("]");
}

const struct op ops_data[] = {
        {"recv", op_recv, {16, 3, 24, 10, 4}},
        {"send", op_send, {12, 3, 20, 6, 3}},
        {"peer sends", op_peer_sends, {14, 3, 20, 12, 4}},
        {"peer reads", op_peer_reads, {5, 1, 8, 2, 1}},
        {"peer ends", op_peer_ends, {5, 2, 5, 5, 2}},
        {"bad buffer", op_bad_buffer, {1, 1, 2, 0, 0}},
        {"bulk", op_bulk, {1, 0, 2, 0, 1}},
        {"fill", op_fill, {1, 0, 1, 1, 0}},
        {NULL, NULL, {0}},
};
