/* splice_dgram.c - sendfile(2) and splice(2) with a datagram socket, by copying.
 *
 * Runs in application threads. The kernel hands a socket at most 16 pages at a time, and for a datagram
 * socket each time is a datagram, or a piece of one that grows (MSG_MORE) while the caller has announced
 * more. A datagram that is refused stays in the pipe or the file. tee(2) and a pipe of our own give just
 * that.
 */
#include "dgram.h"
#include "libc.h"
#include "raw.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum { PART = 65536, PAGES = 16 };

static ssize_t part_send(struct file *f, int fd, char *buf, size_t size, bool is_more)
{
	struct iovec iov = {buf, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	return dgram_send(f, fd, &msg, is_more ? MSG_MORE : 0, false);
}

ssize_t dgram_sendfile(struct file *f, int fd, int in, off64_t *offset, size_t count)
{
	off64_t at = offset ? *offset : lseek64(in, 0, SEEK_CUR);
	size_t page = (size_t)sysconf(_SC_PAGESIZE), done = 0;
	bool is_more = false;
	ssize_t rc = 0;
	char *buf;

	if (f->dg->kernel_peer)
		return SOCK_LIBC;
	buf = malloc(PART);
	if (!buf)
		return -ENOMEM;
	while (done < count) {
		size_t part = PAGES * page - (size_t)at % page;
		ssize_t n;

		if (part > PART)
			part = PART;
		if (part > count - done)
			part = count - done;
		n = pread64(in, buf, part, at);
		if (n <= 0) {
			rc = n < 0 ? errno == EISDIR ? -EINVAL : -errno : 0;
			break;
		}
		is_more = (size_t)n < count - done;
		rc = part_send(f, fd, buf, (size_t)n, is_more);
		if (rc < 0)
			break;
		at += n;
		done += (size_t)n;
	}
	/* the file has ended before the count: what was gathered goes out, unless the socket is corked */
	if (is_more && rc >= 0 && !f->dg->cork)
		dgram_uncork(f, fd);
	if (done && offset)
		*offset = at;
	else if (done)
		lseek64(in, at, SEEK_SET);
	free(buf);
	return done ? (ssize_t)done : rc;
}

/* One datagram; what the pipe has no room for is cut off, as by a short recv(2). */
static ssize_t to_pipe(struct file *f, int fd, int out, size_t count, const int *own, char *buf)
{
	struct iovec iov = {buf, count < PART ? count : PART};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = dgram_recv(f, fd, &msg, 0);

	if (n <= 0)
		return n;
	if (libc.write(own[1], buf, (size_t)n) != n)
		return -ENOMEM;
	return RAW(SYS_splice, own[0], NULL, out, NULL, (size_t)n, SPLICE_F_NONBLOCK);
}

static int pipe_fill(int fd)
{
	int have = 0;

	return libc.ioctl(fd, FIONREAD, &have) < 0 ? 0 : have;
}

static ssize_t from_pipe(
        struct file *f, int fd, int in, size_t count, bool is_dont, bool is_more, const int *own, char *buf)
{
	size_t done = 0;

	while (done < count) {
		struct pollfd p = {.fd = in, .events = POLLIN};
		size_t part = count - done < PART ? count - done : PART;
		int ready = libc.poll(&p, 1, is_dont || done ? 0 : -1);
		ssize_t n, rc;

		if (ready <= 0)
			return done ? (ssize_t)done : ready ? -errno : -EAGAIN;
		n = RAW(SYS_tee, in, own[1], part, SPLICE_F_NONBLOCK);
		if (n <= 0) /* no writer is left, or another reader was faster */
			return done ? (ssize_t)done : n;
		n = libc.read(own[0], buf, PART);
		if (n <= 0)
			return done ? (ssize_t)done : -EIO;
		rc = part_send(
		        f, fd, buf, (size_t)n, is_more || ((size_t)n < count - done && pipe_fill(in) > n));
		if (rc < 0)
			return done ? (ssize_t)done : rc;
		/* it is out: take it from the pipe, too */
		for (ssize_t left = n, got; left; left -= got) {
			got = libc.read(in, buf, (size_t)left);
			if (got <= 0)
				break;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t dgram_splice(struct file *f, int fd, bool is_in, int other, size_t count, unsigned int flags)
{
	bool is_dont = flags & SPLICE_F_NONBLOCK;
	char *buf = malloc(PART);
	int own[2];
	ssize_t rc;

	if (!buf)
		return -ENOMEM;
	/* not EMFILE, which the kernel's call cannot give */
	if (libc.pipe2(own, O_CLOEXEC) < 0) {
		free(buf);
		return -ENOMEM;
	}
	rc = is_in ? to_pipe(f, fd, other, count, own, buf)
	           : from_pipe(f, fd, other, count, is_dont, flags & SPLICE_F_MORE, own, buf);
	libc.close(own[0]);
	libc.close(own[1]);
	free(buf);
	return rc;
}
