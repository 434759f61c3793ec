/* xfer.c - moving bytes: every read and receive call ends in sock_recv, every write and send call in
 * sock_send.
 *
 * Runs in application threads. Received bytes are copied from packet memory (mapped read-only) into the
 * caller's buffers; sent bytes are copied once, into blocks that the stack references. Protocols:
 * doc/threads.md, "Receive" and "Send".
 */
#include "sock.h"
#include "clock.h"
#include "dgram.h"
#include "endpoint.h"
#include "latency.h"
#include "libc.h"
#include "local.h"
#include "opt.h"
#include "proc.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	RX_BELL_PIECES = 16,
	RX_BELL_BYTES = 32768,
	TX_PUBLISH_BYTES = 65536,
	SENDFILE_PART = 65536,
	CALL_MOST = 0x7ffff000, /* MAX_RW_COUNT: so much in one call, whatever is asked for. read(2) */
};

struct cursor {
	const struct iovec *iov;
	int count;
	size_t off;
	bool is_bad; /* met an address that cannot be one */
};

#define TOTAL_BAD SIZE_MAX /* EFAULT */

static size_t iov_total(const struct iovec *iov, int count)
{
	size_t n = 0;

	for (int i = 0; i < count; i++) {
		if (unlikely(user_is_beyond(iov[i].iov_base, iov[i].iov_len)))
			return TOTAL_BAD;
		n += iov[i].iov_len < CALL_MOST - n ? iov[i].iov_len : CALL_MOST - n;
	}
	return n;
}

/* A stream takes control messages of the socket level only, and of these none has an effect here; those of
 * other levels are somebody else's. sock_cmsg_send in the kernel. */
static ssize_t control_check(const struct msghdr *msg)
{
	const uint8_t *p = msg->msg_control;
	size_t left = msg->msg_controllen;

	if (left > INT_MAX)
		return -ENOBUFS;
	if (left && user_is_bad(p))
		return -EFAULT;
	while (left >= sizeof(struct cmsghdr)) {
		const struct cmsghdr *c = (const void *)p;

		if (c->cmsg_len < sizeof(*c) || c->cmsg_len > left)
			return -EINVAL;
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type != SCM_RIGHTS &&
		        c->cmsg_type != SCM_CREDENTIALS)
			return -EINVAL;
		if (CMSG_ALIGN(c->cmsg_len) >= left)
			break;
		p += CMSG_ALIGN(c->cmsg_len);
		left -= CMSG_ALIGN(c->cmsg_len);
	}
	return 0;
}

ssize_t sock_msg_check(const struct msghdr *msg, bool is_send)
{
	if (user_is_bad(msg))
		return -EFAULT;
	if (msg->msg_name && (int)msg->msg_namelen < 0)
		return -EINVAL;
	if (is_send && msg->msg_name && msg->msg_namelen && user_is_bad(msg->msg_name))
		return -EFAULT;
	if (msg->msg_iovlen > IOV_MAX)
		return -EMSGSIZE;
	if (msg->msg_iovlen && user_is_bad(msg->msg_iov))
		return -EFAULT;
	for (size_t i = 0; i < msg->msg_iovlen; i++)
		if (msg->msg_iov[i].iov_len > SSIZE_MAX)
			return -EINVAL;
	return is_send && unlikely(msg->msg_control != NULL) ? control_check(msg) : 0;
}

/* A stream has no sender to name, and no control messages. */
void sock_msg_received(struct msghdr *msg, int flags)
{
	if (msg->msg_name)
		msg->msg_namelen = 0;
	msg->msg_controllen = 0;
	msg->msg_flags = flags & MSG_CMSG_CLOEXEC;
}

/* The next stretch of the caller's memory, at most max bytes; 0 at the end. */
static size_t cursor_next(struct cursor *c, uint8_t **p, size_t max)
{
	size_t n;

	while (c->count && c->off == c->iov->iov_len) {
		c->iov++;
		c->count--;
		c->off = 0;
	}
	if (!c->count)
		return 0;
	*p = (uint8_t *)c->iov->iov_base + c->off;
	if (unlikely(user_is_wild(*p))) {
		c->is_bad = true;
		return 0;
	}
	n = c->iov->iov_len - c->off;
	if (n > max)
		n = max;
	c->off += n;
	return n;
}

/* Copies what is there, at most max bytes. Called with rx_lock. is_peek leaves it there; no_copy (MSG_TRUNC)
 * throws it away. */
static size_t take(struct file *f, const struct arena *a, struct endpoint *ep, struct cursor *cur, size_t max,
        bool is_peek, bool no_copy)
{
	uint32_t head = atomic_load_explicit(&ep->rx_head, memory_order_acquire);
	const struct rx_desc *ring = arena_rx_ring(a, ep);
	uint32_t tail = atomic_load_explicit(&ep->rx_tail, memory_order_relaxed);
	uint32_t off = atomic_load_explicit(&ep->rx_off, memory_order_relaxed);
	size_t done = 0;

	while (tail != head && done < max) {
		const struct rx_desc *d = &ring[tail % RX_RING_SIZE];
		const uint8_t *src = arena_rx_data(a, d);
		size_t n = d->size - off;

		if (!src)
			break;
		if (n > max - done)
			n = max - done;
		if (no_copy) {
			done += n;
		} else {
			uint8_t *dst;

			n = cursor_next(cur, &dst, n);
			if (!n)
				break;
			memcpy(dst, src + off, n);
			done += n;
		}
		off += (uint32_t)n;
		if (off == d->size) {
			off = 0;
			tail++;
			if (!is_peek)
				f->rx_pieces++;
		}
	}
	if (!is_peek && done) {
		f->rx_bytes += (uint32_t)done;
		atomic_store_explicit(&ep->rx_off, off, memory_order_relaxed);
		atomic_store_explicit(&ep->rx_read,
		        atomic_load_explicit(&ep->rx_read, memory_order_relaxed) + (uint32_t)done,
		        memory_order_release);
		atomic_store_explicit(&ep->rx_tail, tail, memory_order_release);
		if (latency_is_on(a))
			latency_read(a, ep, atomic_load_explicit(&ep->rx_read, memory_order_relaxed));
	}
	return done;
}

/* sock_is_nonblocking for who has the endpoint at hand. */
static inline bool ep_is_nonblocking(const struct endpoint *ep)
{
	return atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_NONBLOCK;
}

ssize_t sock_recv(struct file *f, const struct iovec *iov, int count, int flags)
{
	size_t want = iov_total(iov, count), done = 0, target;
	struct cursor cur = {.iov = iov, .count = count};
	bool is_peek = flags & MSG_PEEK, is_dont;
	uint64_t deadline = 0;
	bool is_settled = false;
	struct endpoint *ep;
	struct attach *at;
	uint32_t handle;

	if (unlikely(!sock_is_ours(f)) && !sock_is_ours_soon(f))
		return SOCK_LIBC;
	if (unlikely(want == TOTAL_BAD))
		return -EFAULT;
	if (flags & MSG_ERRQUEUE)
		return -EAGAIN;
	if (flags & MSG_OOB)
		return atomic_load(&handle_ep(atomic_load(&f->ep))->state) == EP_LISTEN ? -ENOTCONN : -EINVAL;
	handle = atomic_load(&f->ep);
	ep = handle_ep(handle);
	at = handle_at(handle);
	is_dont = (flags & MSG_DONTWAIT) || ep_is_nonblocking(ep);
	target = flags & MSG_WAITALL ? want : (size_t)ep_opt(ep, EPO_RCVLOWAT); /* sock_rcvlowat */
	for (;;) {
		uint32_t state, fl, bell = 0;
		int err, rc;
		size_t n;

		if (unlikely(attach_is_dead(at)))
			return done ? (ssize_t)done : atomic_exchange(&f->death_told, true) ? 0 : -ECONNRESET;
		state = atomic_load_explicit(&ep->state, memory_order_acquire);
		fl = atomic_load_explicit(&ep->flags, memory_order_acquire);
		if (unlikely(state == EP_LISTEN || state == EP_BOUND))
			return -ENOTCONN;
		if (ep_rx_ready(ep)) {
			rc = ep_lock(at, &ep->rx_lock);
			if (rc == -ECONNRESET)
				continue;
			if (rc)
				return done ? (ssize_t)done : rc;
			if (is_peek) {
				struct cursor again = {.iov = iov, .count = count};

				n = take(f, &at->arena, ep, &again, want, true, flags & MSG_TRUNC);
				done = n;
				cur.is_bad = again.is_bad;
			} else {
				n = take(f, &at->arena, ep, &cur, want - done, false, flags & MSG_TRUNC);
				done += n;
			}
			if (f->rx_pieces >= RX_BELL_PIECES || f->rx_bytes >= RX_BELL_BYTES ||
			        f->rx_bytes >= (uint32_t)ep_opt(ep, EPO_RCVBUF) / 8) {
				f->rx_pieces = f->rx_bytes = 0;
				bell = DOORBELL_RX;
			}
			ep_unlock(&ep->rx_lock);
			if (unlikely(cur.is_bad) && !done)
				return -EFAULT;
			if (bell)
				post_doorbell(at, ep, bell);
		}
		if (done == want &&
		        (done || ep_rx_ready(ep) ||
		                ((fl & EP_RX_EOF) && ((fl & EP_FIN_SEEN) || !atomic_load(&ep->error)))))
			return (ssize_t)done; /* to ask for nothing still waits for something */
		if (done && done >= target)
			return (ssize_t)done;
		if (!done) {
			if (ep_rx_ready(ep))
				continue;
			if (fl & EP_FIN_SEEN)
				return 0; /* the end that was read stays, also over a reset that follows it */
			err = atomic_load_explicit(&ep->error, memory_order_relaxed)
			              ? atomic_exchange(&ep->error, 0)
			              : 0;
			if (err)
				return -err;
			/* nothing was ever connected (a listener that was shut down), or the failure was told
			 */
			if (unlikely(state == EP_CLOSED && !(fl & (EP_OPENED | EP_RX_EOF))))
				return f->has_connected ? 0 : -ENOTCONN;
		} else if (ep_rx_ready(ep) && !is_peek) {
			continue;
		}
		if ((fl & EP_RX_EOF) ||
		        (atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_RD)) {
			/* the end was read before the ring: look at the ring once more */
			if (ep_rx_ready(ep) && !done)
				continue;
			return (ssize_t)done;
		}
		if (is_dont) {
			static _Atomic uint32_t misses;

			if (!done && !is_settled && (is_settled = true) && local_settle(ep))
				continue;
			if (!done && attach_drive_seldom(at))
				continue;
			if (atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed) % 256 == 255 &&
			        attach_check_dead(at))
				continue;
			return done ? (ssize_t)done : -EAGAIN;
		}
		if (!deadline)
			deadline = deadline_after(opt_rcvtimeo(f));
		if (is_peek && done) { /* more than is there: wait for the level to grow is not to be had by
			                  readiness alone */
			if (wait_nap(f, 1000000) < 0 || attach_check_dead(at))
				return (ssize_t)done;
			if (clock_now_ns() >= deadline)
				return (ssize_t)done;
			continue;
		}
		rc = wait_for(f, EPOLLIN | EPOLLRDHUP, deadline, -1);
		if (rc)
			return done ? (ssize_t)done : rc;
	}
}

/* Room for one more byte at tx_head: a block under it. Called with tx_lock. */
static bool block_ready(struct attach *at, struct endpoint *ep, uint32_t head)
{
	_Atomic uint32_t *lock = &at->grant_lock[ep->stack_idx];
	uint32_t block;

	if (head % TX_BLOCK_SIZE)
		return true;
	spin_lock(lock);
	block = grant_peek(at, ep->stack_idx);
	if (block != BLOCK_NONE) {
		ep_tx_block_set(&at->arena, ep, head, block);
		grant_take(at, ep->stack_idx);
	}
	spin_unlock(lock);
	return block != BLOCK_NONE;
}

/* Copies as much as fits. Called with tx_lock. */
static size_t put(struct attach *at, struct endpoint *ep, struct cursor *cur, size_t left, bool *is_starved)
{
	const struct arena *a = &at->arena;
	uint32_t limit = ep_tx_limit(ep), lowat = (uint32_t)ep_opt(ep, EPO_NOTSENT_LOWAT);
	uint32_t head = atomic_load_explicit(&ep->tx_head, memory_order_relaxed);
	size_t done = 0, published = 0;

	if (!ep_tx_room(ep))
		return 0;
	while (left) {
		uint32_t used = head - atomic_load_explicit(&ep->tx_tail, memory_order_acquire),
		         off = head % TX_BLOCK_SIZE;
		size_t n = TX_BLOCK_SIZE - off;
		uint32_t block;
		uint8_t *src;

		if (used >= limit || (lowat && ep_tx_notsent(ep) >= lowat))
			break;
		if (n > limit - used)
			n = limit - used;
		if (n > left)
			n = left;
		if (!block_ready(at, ep, head)) {
			*is_starved = true;
			break;
		}
		block = ep_tx_block(a, ep, head);
		n = cursor_next(cur, &src, n);
		if (unlikely(!n))
			break;
		memcpy(arena_block(a, block) + off, src, n);
		head += (uint32_t)n;
		done += n;
		left -= n;
		atomic_store_explicit(&ep->tx_head, head, memory_order_release);
		if (done - published >= TX_PUBLISH_BYTES && left) {
			published = done;
			post_doorbell(at, ep, DOORBELL_TX);
		}
	}
	return done;
}

static ssize_t broken_pipe(int flags)
{
	if (!(flags & MSG_NOSIGNAL))
		pthread_kill(pthread_self(), SIGPIPE);
	return -EPIPE;
}

ssize_t sock_send(struct file *f, const struct iovec *iov, int count, int flags)
{
	size_t want = iov_total(iov, count), done = 0;
	struct cursor cur = {.iov = iov, .count = count};
	bool is_dont, is_more = flags & MSG_MORE;
	uint64_t deadline = 0;
	bool is_settled = false, is_driven = false;
	struct endpoint *ep;
	struct attach *at;
	uint32_t handle;

	if (unlikely(!sock_is_ours(f)) && !sock_is_ours_soon(f))
		return SOCK_LIBC;
	if (unlikely(want == TOTAL_BAD))
		return -EFAULT;
	if (unlikely(flags & (MSG_OOB | MSG_FASTOPEN))) {
		if (flags & MSG_OOB)
			return -EOPNOTSUPP;
		if (atomic_load(&handle_ep(atomic_load(&f->ep))->state) == EP_ESTABLISHED)
			return -EISCONN;
	}
	handle = atomic_load(&f->ep);
	ep = handle_ep(handle);
	at = handle_at(handle);
	is_dont = (flags & MSG_DONTWAIT) || ep_is_nonblocking(ep);
	for (;;) {
		uint32_t state;
		bool is_starved = false;
		int err, rc;

		if (unlikely(attach_is_dead(at)))
			return done ? (ssize_t)done : broken_pipe(flags);
		state = atomic_load_explicit(&ep->state, memory_order_acquire);
		if (state == EP_LISTEN || state == EP_BOUND)
			return broken_pipe(flags);
		if (state != EP_CONNECTING) {
			err = atomic_load_explicit(&ep->error, memory_order_relaxed) && !done
			              ? atomic_exchange(&ep->error, 0)
			              : 0;
			if (err)
				return err == EPIPE ? broken_pipe(flags) : -err;
			if (state == EP_CLOSED ||
			        (atomic_load_explicit(&ep->flags, memory_order_relaxed) & EP_TX_CLOSED) ||
			        (atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_WR))
				return done ? (ssize_t)done : broken_pipe(flags);
			if (!want)
				return 0;
			rc = ep_lock(at, &ep->tx_lock);
			if (rc == -ECONNRESET)
				continue;
			if (rc)
				return done ? (ssize_t)done : rc;
			if (!(atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_WR)) {
				size_t n;

				/* before the bytes are there: the stack may look at once */
				if (is_more != ((atomic_load_explicit(&ep->app_flags, memory_order_relaxed) &
				                        APP_MORE) != 0))
					atomic_fetch_xor(&ep->app_flags, APP_MORE);
				n = put(at, ep, &cur, want - done, &is_starved);
				if (n && latency_is_on(&at->arena))
					latency_written(&at->arena, ep,
					        atomic_load_explicit(&ep->tx_head, memory_order_relaxed));

				done += n;
				if (done < want) {
					/* announce before the doorbell: the stack answers with an event once
					 * there is room again */
					atomic_store(&ep->tx_want, 1);
					post_doorbell(at, ep, DOORBELL_TX);
				} else if (n) {
					post_doorbell(at, ep, DOORBELL_TX);
				}
			}
			ep_unlock(&ep->tx_lock);
			if (done == want) {
				attach_push(at, done);
				return (ssize_t)done;
			}
			if (unlikely(cur.is_bad))
				return done ? (ssize_t)done : -EFAULT;
		}
		if (is_dont) {
			static _Atomic uint32_t misses;

			/* The kernel takes what there is for a socket that has nothing else under way, and
			 * programs count on it. Most often it is a child that was forked a moment ago and has
			 * not been granted blocks yet. */
			if (is_starved && ep_tx_used(ep) <= done && grant_await(at, ep))
				continue;
			if (!done && !is_settled && (is_settled = true) && local_settle(ep))
				continue;
			if (!done && !is_driven && (is_driven = true) && attach_drive(at))
				continue;
			if (atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed) % 256 == 255)
				attach_check_dead(at);
			return done ? (ssize_t)done : -EAGAIN;
		}
		if (!deadline)
			deadline = deadline_after(opt_sndtimeo(f));
		if (is_starved && ep_tx_ready(ep)) {
			/* the ring has room but there is no block: the stack grants some within a turn, or
			 * when others have sent */
			rc = wait_nap(f, 50000);
			if (rc)
				return done ? (ssize_t)done : rc;
			if (clock_now_ns() >= deadline)
				return done ? (ssize_t)done : -EAGAIN;
			attach_check_dead(at);
			continue;
		}
		rc = wait_for(f, EPOLLOUT, deadline, -1);
		if (rc)
			return done ? (ssize_t)done : rc;
	}
}

ssize_t sock_sendfile(struct file *f, int fd, int in, off64_t *offset, size_t count)
{
	char *buf;
	size_t done = 0;
	int fl;
	ssize_t rc = 0;

	if (!sock_is_ours(f))
		return SOCK_LIBC;
	if (offset && user_is_bad(offset))
		return -EFAULT;
	if ((ssize_t)count < 0)
		return -EINVAL;
	fl = libc.fcntl(in, F_GETFL);
	if (fl < 0 || (fl & O_ACCMODE) == O_WRONLY)
		return -EBADF;
	if (lseek64(in, 0, SEEK_CUR) < 0 && errno == ESPIPE) /* pipes and sockets are for splice(2) */
		return offset ? -ESPIPE : -EINVAL;
	if (f->type == SOCK_DGRAM)
		return dgram_sendfile(f, fd, in, offset, count);
	buf = malloc(SENDFILE_PART);
	if (!buf)
		return -ENOMEM;
	while (done < count) {
		size_t part = count - done < SENDFILE_PART ? count - done : SENDFILE_PART;
		struct endpoint *ep = handle_ep(atomic_load(&f->ep));
		uint32_t room = ep_tx_room(ep);
		struct iovec iov = {buf, 0};
		ssize_t n, sent;

		/* read no more than the socket takes, for a descriptor that cannot be read again */
		if (sock_is_nonblocking(f)) {
			/* a connection that has ended never drains: sock_send says how it ended */
			if (!room && atomic_load(&ep->state) == EP_ESTABLISHED &&
			        !(atomic_load(&ep->flags) & EP_TX_CLOSED)) {
				atomic_store(&ep->tx_want, 1);
				rc = ep_tx_room(ep) ? 0 : -EAGAIN;
				if (rc)
					break;
				continue;
			}
			if (room && part > room)
				part = room;
		}
		n = offset ? pread64(in, buf, part, *offset) : libc.read(in, buf, part);
		if (n <= 0) {
			rc = n < 0 ? errno == EISDIR ? -EINVAL : -errno : 0;
			break;
		}
		iov.iov_len = (size_t)n;
		sent = sock_send(f, &iov, 1, 0);
		if (sent < n && !offset && lseek64(in, (sent > 0 ? sent : 0) - n, SEEK_CUR) < 0 && sent < 0) {
			rc = sent;
			break;
		}
		if (sent < 0) {
			rc = sent;
			break;
		}
		if (offset)
			*offset += sent;
		done += (size_t)sent;
		if (sent < n)
			break;
	}
	free(buf);
	return done ? (ssize_t)done : rc;
}
