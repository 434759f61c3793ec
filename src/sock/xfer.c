/* xfer.c - moving bytes: every read and receive call ends in sock_recv, every write and send call in
 * sock_send.
 *
 * Runs in application threads. Received bytes are copied from packet memory (mapped read-only) into the
 * caller's buffers; sent bytes are copied once, into blocks that the stack references. Protocols:
 * doc/threads.md, "Receive" and "Send".
 */
#include "sock.h"
#include "clock.h"
#include "endpoint.h"
#include "libc.h"
#include "proc.h"
#include "wait.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { RX_BELL_PIECES = 16, RX_BELL_BYTES = 32768, TX_PUBLISH_BYTES = 65536, SENDFILE_PART = 65536 };

struct cursor {
	const struct iovec *iov;
	int count;
	size_t off;
	bool is_bad; /* met an address that cannot be one */
};

static size_t iov_total(const struct iovec *iov, int count)
{
	size_t n = 0;

	for (int i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
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
	/* not every bad address, but the one that programs pass by mistake; others fault as in any copy */
	if (unlikely((uintptr_t)*p < 4096)) {
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
static size_t take(
        struct file *f, struct endpoint *ep, struct cursor *cur, size_t max, bool is_peek, bool no_copy)
{
	const struct arena *a = &proc.at.arena;
	const struct rx_desc *ring = arena_rx_ring(a, arena_ep_idx(a, ep));
	uint32_t head = atomic_load_explicit(&ep->rx_head, memory_order_acquire);
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
	}
	return done;
}

ssize_t sock_recv(struct file *f, const struct iovec *iov, int count, int flags)
{
	size_t want = iov_total(iov, count), done = 0;
	struct cursor cur = {.iov = iov, .count = count};
	bool is_peek = flags & MSG_PEEK, is_dont = (flags & MSG_DONTWAIT) || sock_is_nonblocking(f);
	uint64_t deadline = 0;
	struct endpoint *ep;

	if (!sock_is_ours(f))
		return SOCK_LIBC;
	if (flags & MSG_OOB)
		return -EINVAL;
	if (flags & MSG_ERRQUEUE)
		return -EAGAIN;
	ep = proc_ep(atomic_load(&f->ep));
	for (;;) {
		uint32_t state, fl, bell = 0;
		int err, rc;
		size_t n;

		if (unlikely(proc_is_dead()))
			return done ? (ssize_t)done : atomic_exchange(&f->death_told, true) ? 0 : -ECONNRESET;
		state = atomic_load_explicit(&ep->state, memory_order_acquire);
		fl = atomic_load_explicit(&ep->flags, memory_order_acquire);
		if (unlikely(state == EP_LISTEN || state == EP_BOUND))
			return -ENOTCONN;
		if (ep_rx_ready(ep)) {
			rc = ep_lock(&proc.at, &ep->rx_lock);
			if (rc == -ECONNRESET)
				continue;
			if (rc)
				return done ? (ssize_t)done : rc;
			if (is_peek) {
				struct cursor again = {.iov = iov, .count = count};

				n = take(f, ep, &again, want, true, flags & MSG_TRUNC);
				done = n;
				cur.is_bad = again.is_bad;
			} else {
				n = take(f, ep, &cur, want - done, false, flags & MSG_TRUNC);
				done += n;
			}
			if (f->rx_pieces >= RX_BELL_PIECES || f->rx_bytes >= RX_BELL_BYTES ||
			        f->rx_bytes >= (uint32_t)f->rcvbuf / 4) {
				f->rx_pieces = f->rx_bytes = 0;
				bell = DOORBELL_RX;
			}
			ep_unlock(&ep->rx_lock);
			if (unlikely(cur.is_bad) && !done)
				return -EFAULT;
			if (bell)
				post_doorbell(&proc.at, ep, bell);
		}
		if (done == want && (done || (fl & EP_RX_EOF) || ep_rx_ready(ep)))
			return (ssize_t)done; /* to ask for nothing still waits for something */
		if (done && !(flags & MSG_WAITALL))
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

			if (atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed) % 256 == 255 &&
			        attach_check_dead(&proc.at))
				continue;
			return done ? (ssize_t)done : -EAGAIN;
		}
		if (!deadline)
			deadline = deadline_after(f->rcvtimeo_ns);
		if (is_peek && done) { /* more than is there: wait for the level to grow is not to be had by
			                  readiness alone */
			struct timespec nap = {.tv_nsec = 1000000};

			if (libc.ppoll(NULL, 0, &nap, NULL) < 0 || attach_check_dead(&proc.at))
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
static bool block_ready(struct endpoint *ep, uint32_t head)
{
	_Atomic uint32_t *lock = &proc.at.grant_lock[ep->stack_idx];
	uint32_t block;

	if (head % TX_BLOCK_SIZE)
		return true;
	spin_lock(lock);
	block = grant_peek(&proc.at, ep->stack_idx);
	if (block != BLOCK_NONE) {
		atomic_store_explicit(
		        &ep->tx_block[head / TX_BLOCK_SIZE % TX_BLOCK_COUNT], block, memory_order_relaxed);
		grant_take(&proc.at, ep->stack_idx);
	}
	spin_unlock(lock);
	return block != BLOCK_NONE;
}

/* Copies as much as fits. Called with tx_lock. */
static size_t put(struct endpoint *ep, struct cursor *cur, size_t left, bool *is_starved)
{
	const struct arena *a = &proc.at.arena;
	uint32_t limit = ep_tx_limit(ep);
	uint32_t head = atomic_load_explicit(&ep->tx_head, memory_order_relaxed);
	size_t done = 0, published = 0;

	while (left) {
		uint32_t used = head - atomic_load_explicit(&ep->tx_tail, memory_order_acquire),
		         off = head % TX_BLOCK_SIZE;
		size_t n = TX_BLOCK_SIZE - off;
		uint32_t block;
		uint8_t *src;

		if (used >= limit)
			break;
		if (n > limit - used)
			n = limit - used;
		if (n > left)
			n = left;
		if (!block_ready(ep, head)) {
			*is_starved = true;
			break;
		}
		block = atomic_load_explicit(
		        &ep->tx_block[head / TX_BLOCK_SIZE % TX_BLOCK_COUNT], memory_order_relaxed);
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
			post_doorbell(&proc.at, ep, DOORBELL_TX);
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
	bool is_dont = (flags & MSG_DONTWAIT) || sock_is_nonblocking(f);
	uint64_t deadline = 0;
	struct endpoint *ep;

	if (!sock_is_ours(f))
		return SOCK_LIBC;
	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	ep = proc_ep(atomic_load(&f->ep));
	for (;;) {
		uint32_t state;
		bool is_starved = false;
		int err, rc;

		if (unlikely(proc_is_dead()))
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
			rc = ep_lock(&proc.at, &ep->tx_lock);
			if (rc == -ECONNRESET)
				continue;
			if (rc)
				return done ? (ssize_t)done : rc;
			if (!(atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_WR)) {
				size_t n = put(ep, &cur, want - done, &is_starved);

				done += n;
				if (done < want) {
					/* announce before the doorbell: the stack answers with an event once
					 * there is room again */
					atomic_store(&ep->tx_want, 1);
					post_doorbell(&proc.at, ep, DOORBELL_TX);
				} else if (n) {
					post_doorbell(&proc.at, ep, DOORBELL_TX);
				}
			}
			ep_unlock(&ep->tx_lock);
			if (done == want)
				return (ssize_t)done;
			if (unlikely(cur.is_bad))
				return done ? (ssize_t)done : -EFAULT;
		}
		if (is_dont) {
			static _Atomic uint32_t misses;

			if (atomic_fetch_add_explicit(&misses, 1, memory_order_relaxed) % 256 == 255)
				attach_check_dead(&proc.at);
			return done ? (ssize_t)done : -EAGAIN;
		}
		if (!deadline)
			deadline = deadline_after(f->sndtimeo_ns);
		if (is_starved && ep_tx_ready(ep)) {
			/* the ring has room but there is no block: the stack grants some within a turn, or
			 * when others have sent */
			struct timespec nap = {.tv_nsec = 50000};

			if (libc.ppoll(NULL, 0, &nap, NULL) < 0)
				return done ? (ssize_t)done : -errno;
			if (clock_now_ns() >= deadline)
				return done ? (ssize_t)done : -EAGAIN;
			attach_check_dead(&proc.at);
			continue;
		}
		rc = wait_for(f, EPOLLOUT, deadline, -1);
		if (rc)
			return done ? (ssize_t)done : rc;
	}
}

ssize_t sock_sendfile(struct file *f, int in, off64_t *offset, size_t count)
{
	struct stat st;
	char *buf;
	size_t done = 0;
	ssize_t rc = 0;

	if (!sock_is_ours(f))
		return SOCK_LIBC;
	if (fstat(in, &st) < 0)
		return -errno;
	if (S_ISSOCK(st.st_mode)) /* the kernel has no sendfile from a socket */
		return -EINVAL;
	buf = malloc(SENDFILE_PART);
	if (!buf)
		return -ENOMEM;
	while (done < count) {
		size_t part = count - done < SENDFILE_PART ? count - done : SENDFILE_PART;
		struct endpoint *ep = proc_ep(atomic_load(&f->ep));
		uint32_t limit = ep_tx_limit(ep), used = ep_tx_used(ep);
		struct iovec iov = {buf, 0};
		ssize_t n, sent;

		/* read no more than the socket takes, for a descriptor that cannot be read again */
		if (sock_is_nonblocking(f)) {
			/* a connection that has ended never drains: sock_send says how it ended */
			if (used >= limit && atomic_load(&ep->state) == EP_ESTABLISHED &&
			        !(atomic_load(&ep->flags) & EP_TX_CLOSED)) {
				atomic_store(&ep->tx_want, 1);
				rc = ep_tx_used(ep) >= limit ? -EAGAIN : 0;
				if (rc)
					break;
				continue;
			}
			if (used < limit && part > limit - used)
				part = limit - used;
		}
		n = offset ? pread64(in, buf, part, *offset) : libc.read(in, buf, part);
		if (n <= 0) {
			rc = n < 0 ? -errno : 0;
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
