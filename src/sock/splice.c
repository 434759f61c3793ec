/* splice.c - splice(2) between a pipe and a socket of ours, by copying.
 *
 * Runs in application threads. What is read from one side must be taken by the other, as it cannot be put
 * back: so room is looked for first. SPLICE_F_NONBLOCK is about the pipe only; the socket has its own flag.
 */
#include "sock.h"
#include "dgram.h"
#include "endpoint.h"
#include "libc.h"
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum { PART = 65536 };

static bool is_pipe(int fd)
{
	return libc.fcntl(fd, F_GETPIPE_SZ) > 0;
}

/* Waits until the pipe can be read or written. 0 or -E; revents tell more. */
static int pipe_wait(int fd, short events, bool is_dont, short *revents)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n = libc.poll(&p, 1, is_dont ? 0 : -1);

	if (n < 0)
		return -errno;
	*revents = p.revents;
	return n ? 0 : -EAGAIN;
}

/* Bytes that can be written without waiting, when POLLOUT is there: at least a page. */
static size_t pipe_room(int fd)
{
	int have = 0, size = libc.fcntl(fd, F_GETPIPE_SZ);

	if (size > 0 && !libc.ioctl(fd, FIONREAD, &have) && !have)
		return (size_t)size;
	return 4096;
}

static ssize_t to_pipe(struct file *f, int out, size_t count, bool is_dont, char *buf)
{
	size_t done = 0;

	while (done < count) {
		struct iovec iov = {buf, PART};
		short revents = 0;
		ssize_t n, put;
		size_t room;
		int rc = pipe_wait(out, POLLOUT, is_dont || done, &revents);

		if (rc)
			return done ? (ssize_t)done : rc;
		if (revents & POLLERR) { /* nobody reads */
			if (done)
				return (ssize_t)done;
			pthread_kill(pthread_self(), SIGPIPE);
			return -EPIPE;
		}
		room = pipe_room(out);
		if (iov.iov_len > room)
			iov.iov_len = room;
		if (iov.iov_len > count - done)
			iov.iov_len = count - done;
		n = sock_recv(f, &iov, 1, done ? MSG_DONTWAIT : 0);
		if (n <= 0)
			return done ? (ssize_t)done : n;
		put = libc.write(out, buf, (size_t)n);
		if (put < 0)
			return done ? (ssize_t)done : -errno;
		done += (size_t)put;
	}
	return (ssize_t)done;
}

static ssize_t from_pipe(struct file *f, int in, size_t count, bool is_dont, int flags, char *buf)
{
	size_t done = 0;

	while (done < count) {
		size_t part = count - done < PART ? count - done : PART;
		struct iovec iov = {buf, 0};
		int have = 0, rc;
		short revents = 0;
		ssize_t n;

		rc = pipe_wait(in, POLLIN, is_dont || done, &revents);
		if (rc)
			return done ? (ssize_t)done : rc;
		if (libc.ioctl(in, FIONREAD, &have) < 0 || !have)
			return (ssize_t)done; /* no writer is left */
		if (part > (size_t)have)
			part = (size_t)have;
		if (sock_is_nonblocking(f)) {
			uint32_t handle = atomic_load(&f->ep);
			struct endpoint *ep = handle_ep(handle);
			uint32_t room = post_is_starved(handle_at(handle), ep) ? 0 : ep_tx_room(ep);

			/* a connection that has ended says so by itself */
			if (!room && atomic_load(&ep->state) == EP_ESTABLISHED &&
			        !(atomic_load(&ep->flags) & EP_TX_CLOSED)) {
				atomic_store(&ep->tx_want, 1);
				return done ? (ssize_t)done : -EAGAIN;
			}
			if (room && part > room)
				part = room;
		}
		n = libc.read(in, buf, part);
		if (n <= 0)
			return done ? (ssize_t)done : n < 0 ? -errno : 0;
		/* all of it, whatever the socket's flag: it is out of the pipe */
		for (ssize_t sent = 0; sent < n;) {
			ssize_t k;

			iov = (struct iovec){buf + sent, (size_t)(n - sent)};
			k = sock_send(f, &iov, 1, flags);
			if (k == -EAGAIN) {
				struct pollfd p = {.fd = -1};

				libc.poll(&p, 1, 1);
				continue;
			}
			if (k == -EINTR)
				continue;
			if (k < 0)
				return done + (size_t)sent ? (ssize_t)(done + (size_t)sent) : k;
			sent += k;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t sock_splice(struct file *f, int fd, bool is_in, int other, const off64_t *own_offset,
        const off64_t *other_offset, size_t count, unsigned int flags)
{
	bool is_dont = flags & SPLICE_F_NONBLOCK;
	char *buf;
	ssize_t rc;
	int fl;

	if (!sock_is_ours(f) || (f->type == SOCK_DGRAM && f->dg->kernel_peer))
		return SOCK_LIBC;
	if (!count)
		return 0;
	if ((ssize_t)count < 0 ||
	        flags & ~(SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT))
		return -EINVAL;
	fl = libc.fcntl(other, F_GETFL);
	if (fl < 0)
		return -EBADF;
	if (!is_pipe(other))
		return -EINVAL;
	if (other_offset)
		return -ESPIPE;
	if ((fl & O_ACCMODE) != O_RDWR && (fl & O_ACCMODE) != (is_in ? O_WRONLY : O_RDONLY))
		return -EBADF;
	if (own_offset)
		return -EINVAL;
	if (!is_in && sock_getfl(f, fd) & O_APPEND)
		return -EINVAL;
	is_dont = is_dont || (fl & O_NONBLOCK);
	if (f->type == SOCK_DGRAM) {
		if (is_in) { /* the pipe first, as below */
			short revents = 0;

			rc = pipe_wait(other, POLLOUT, is_dont, &revents);
			if (!rc && revents & POLLERR) {
				pthread_kill(pthread_self(), SIGPIPE);
				rc = -EPIPE;
			}
			if (rc)
				return rc;
		}
		return dgram_splice(f, fd, is_in, other, count, is_dont ? flags | SPLICE_F_NONBLOCK : flags);
	}
	buf = malloc(PART);
	if (!buf)
		return -ENOMEM;
	rc = is_in ? to_pipe(f, other, count, is_dont, buf)
	           : from_pipe(f, other, count, is_dont, flags & SPLICE_F_MORE ? MSG_MORE : 0, buf);
	free(buf);
	return rc;
}
