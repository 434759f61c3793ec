/* shim_odd.c - calls that do not fit the one-lookup form: fcntl, ioctl, dup and friends, closing ranges,
 * fortified forms.
 *
 * As shim.c: decides and forwards. The fortified forms abort on an overflow that the compiler's bound proves,
 * as glibc's do.
 */
#include "shim.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* A copy of fd got the number to: both mean the same file now. */
static int dup_done(int fd, int to)
{
	struct file *f;
	int rc;

	if (to < 0)
		return to;
	if (unlikely(libc_inside) && to != fd)
		return number_inside(to);
	f = file_get(fd);
	if (!f) {
		file_close(to);
		stdio_follow(to);
		return to;
	}
	rc = fd != to ? file_dup(f, to) : 0;
	file_put(f);
	stdio_follow(to);
	if (!rc)
		return to;
	libc.close(to);
	return (int)shim_result(rc);
}

/* Before the kernel copies a number: a copy that is not in the table yet could not follow spare_own. */
static int dup_begin(int fd)
{
	struct file *f = file_get(fd);

	if (f) {
		spare_own(f);
		file_put(f);
	}
	return fd;
}

EXPORT int dup(int fd)
{
	shim_enter();
	return dup_done(fd, WITH_ROOM(libc.dup(dup_begin(fd))));
}

/* Makes room at a number that we use ourselves: not to be had. */
static bool is_taken(int to)
{
	if (likely(!proc_is_internal_fd(to)))
		return false;
	spare_evict(to);
	if (!proc_is_internal_fd(to))
		return false;
	errno = EBUSY;
	return true;
}

EXPORT int dup2(int fd, int to)
{
	shim_enter();
	if (unlikely(libc_inside))
		return libc.dup2(fd, to);
	if (is_taken(to))
		return -1;
	return dup_done(fd, libc.dup2(dup_begin(fd), to));
}

EXPORT int dup3(int fd, int to, int flags)
{
	shim_enter();
	if (unlikely(libc_inside))
		return libc.dup3(fd, to, flags);
	if (is_taken(to))
		return -1;
	return dup_done(fd, libc.dup3(dup_begin(fd), to, flags));
}

static int fcntl_any(int fd, int cmd, void *arg)
{
	struct file *f;
	int rc = SOCK_LIBC;

	shim_enter();
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return dup_done(fd, WITH_ROOM(libc.fcntl(dup_begin(fd), cmd, arg)));
	f = file_get(fd);
	if (!f)
		return libc.fcntl(fd, cmd, arg);
	if (f->kind == FILE_SOCKET) {
		if (cmd == F_GETFL)
			rc = sock_getfl(f, fd);
		else if (cmd == F_SETFL)
			rc = sock_setfl(f, fd, (int)(intptr_t)arg);
		else if (cmd != F_GETFD && cmd != F_SETFD)
			spare_own(f); /* owners, locks and signals are the kernel's */
	}
	file_put(f);
	return rc == SOCK_LIBC ? libc.fcntl(fd, cmd, arg) : (int)shim_result(rc);
}

EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_any(fd, cmd, arg);
}

EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_any(fd, cmd, arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	struct file *f;
	va_list ap;
	void *arg;
	int rc;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	shim_enter();
	f = file_get(fd);
	if (!f)
		return libc.ioctl(fd, request, arg);
	rc = f->kind == FILE_SOCKET ? sock_ioctl(f, fd, request, arg) : SOCK_LIBC;
	file_put(f);
	return rc == SOCK_LIBC ? libc.ioctl(fd, request, arg) : (int)shim_result(rc);
}

static void forget(int fd)
{
	proc_fallback_remove(fd);
	file_close(fd);
}

EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
	shim_enter();
	if (!libc.close_range) {
		errno = ENOSYS;
		return -1;
	}
	/* the threads of a stack in this process would keep the application's descriptors open for ever */
	if (proc.near->driver)
		flags &= ~CLOSE_RANGE_UNSHARE;
	/* what closes nothing, and what the kernel refuses */
	if (first > last || (flags & ~CLOSE_RANGE_UNSHARE))
		return libc.close_range(first, last, flags);
	file_each((int)(first > INT32_MAX ? INT32_MAX : first), (int)(last > INT32_MAX ? INT32_MAX : last),
	        forget);
	/* around the descriptors that keep us attached */
	for (;;) {
		int keep = first > INT32_MAX ? -1 : proc_next_internal_fd((int)first);

		if (keep < 0 || (unsigned)keep > last)
			return libc.close_range(first, last, flags);
		if ((unsigned)keep > first && libc.close_range(first, (unsigned)keep - 1, flags) < 0)
			return -1;
		if ((unsigned)keep == last)
			return 0;
		first = (unsigned)keep + 1;
	}
}

EXPORT void closefrom(int first)
{
	int saved = errno;

	if (close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0) < 0)
		errno = saved;
}

EXPORT ssize_t splice(
        int in, off64_t *in_offset, int out, off64_t *out_offset, size_t count, unsigned int flags)
{
	struct file *f, *g;
	ssize_t rc = SOCK_LIBC;
	int cancel;

	shim_enter();
	if (likely(!file_known(in) && !file_known(out)))
		return libc.splice(in, in_offset, out, out_offset, count, flags);
	/* a cancellation point before and after, not in the middle */
	pthread_testcancel();
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	f = file_get(in);
	g = file_get(out);
	if (f && f->kind == FILE_SOCKET)
		rc = sock_splice(f, in, true, out, in_offset, out_offset, count, flags);
	if (rc == SOCK_LIBC && g && g->kind == FILE_SOCKET)
		rc = sock_splice(g, out, false, in, out_offset, in_offset, count, flags);
	if (f) {
		if (rc == SOCK_LIBC)
			spare_own(f);
		file_put(f);
	}
	if (g) {
		if (rc == SOCK_LIBC)
			spare_own(g);
		file_put(g);
	}
	pthread_setcancelstate(cancel, NULL);
	return rc == SOCK_LIBC ? libc.splice(in, in_offset, out, out_offset, count, flags) : shim_result(rc);
}

/* --- readv and writev with an offset: -1 is the place where a stream is --- */

/* MSG_* for RWF_*, or -1 for what a socket does not know */
static int rwf_to_msg(int flags)
{
	if (flags & ~(RWF_HIPRI | RWF_NOWAIT))
		return -1;
	return flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
}

static ssize_t vector_at(int fd, const struct iovec *iov, int count, int flags, bool is_read)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
	int msg_flags = rwf_to_msg(flags);

	if (!msg_flags)
		return is_read ? readv(fd, iov, count) : writev(fd, iov, count);
	if (msg_flags < 0 || count < 0) {
		errno = msg_flags < 0 ? EOPNOTSUPP : EINVAL;
		return -1;
	}
	return is_read ? recvmsg(fd, &msg, msg_flags) : sendmsg(fd, &msg, msg_flags);
}

static bool is_ours(int fd)
{
	struct file *f = file_get(fd);
	bool yes = f && f->kind == FILE_SOCKET && sock_is_ours(f);

	if (f)
		file_put(f);
	return yes;
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	shim_enter();
	return offset == -1 && is_ours(fd) ? vector_at(fd, iov, count, flags, true)
	                                   : libc.preadv2(fd, iov, count, offset, flags);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	shim_enter();
	return offset == -1 && is_ours(fd) ? vector_at(fd, iov, count, flags, false)
	                                   : libc.pwritev2(fd, iov, count, offset, flags);
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return preadv2(fd, iov, count, offset, flags);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return pwritev2(fd, iov, count, offset, flags);
}

/* libc's asks by an ioctl(2) of its own. */
EXPORT int sockatmark(int fd)
{
	int mark;

	return ioctl(fd, SIOCATMARK, &mark) < 0 ? -1 : mark;
}

/* libc's points 0, 1 and 2 to /dev/null without a word to us. */
EXPORT int daemon(int nochdir, int noclose)
{
	int rc;

	shim_enter();
	proc_leave(false); /* this process ends inside it */
	rc = libc.daemon(nochdir, noclose);
	for (int fd = 0; !rc && !noclose && fd <= 2; fd++) {
		file_close(fd);
		stdio_follow(fd);
	}
	return rc;
}

/* --- the engine in this process --- */

/* The application's calls pass; DPDK's interrupt thread may have to wait (driver.h). */
EXPORT int munmap(void *addr, size_t size)
{
	const struct driver *d = proc.near->driver;

	if (unlikely(d != NULL))
		d->unmapping();
	return (int)shim_result(RAW(SYS_munmap, addr, size));
}

/* --- _FORTIFY_SOURCE --- */

void __chk_fail(void) __attribute__((noreturn));

EXPORT ssize_t __read_chk(int fd, void *buf, size_t size, size_t room)
{
	if (size > room)
		__chk_fail();
	return read(fd, buf, size);
}

EXPORT ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
	if (size > room)
		__chk_fail();
	return recv(fd, buf, size, flags);
}

EXPORT ssize_t __recvfrom_chk(
        int fd, void *buf, size_t size, size_t room, int flags, struct sockaddr *addr, socklen_t *len)
{
	if (size > room)
		__chk_fail();
	return recvfrom(fd, buf, size, flags, addr, len);
}

EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room)
{
	if (room / sizeof(*fds) < count)
		__chk_fail();
	return poll(fds, count, timeout);
}

EXPORT int __ppoll_chk(
        struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	if (room / sizeof(*fds) < count)
		__chk_fail();
	return ppoll(fds, count, timeout, mask);
}
