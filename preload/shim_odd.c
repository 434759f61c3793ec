/* shim_odd.c - calls that do not fit the one-lookup form: fcntl, ioctl, dup and friends, closing ranges,
 * fortified forms, vfork.
 *
 * As shim.c: decides and forwards. The fortified forms abort on an overflow that the compiler's bound proves,
 * as glibc's do.
 */
#include "shim.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>

/* A copy of fd got the number to: both mean the same file now. */
static int dup_done(int fd, int to)
{
	struct file *f;

	if (to < 0)
		return to;
	f = file_get(fd);
	if (!f) {
		file_close(to);
		return to;
	}
	if (fd != to && file_dup(f, to)) {
		file_put(f);
		libc.close(to);
		errno = EMFILE;
		return -1;
	}
	file_put(f);
	return to;
}

EXPORT int dup(int fd)
{
	shim_enter();
	return dup_done(fd, libc.dup(fd));
}

/* Makes room at a number that we use ourselves: not to be had. */
static bool is_taken(int to)
{
	if (likely(!proc_is_internal_fd(to)))
		return false;
	errno = EBUSY;
	return true;
}

EXPORT int dup2(int fd, int to)
{
	shim_enter();
	if (is_taken(to))
		return -1;
	return dup_done(fd, libc.dup2(fd, to));
}

EXPORT int dup3(int fd, int to, int flags)
{
	shim_enter();
	if (is_taken(to))
		return -1;
	return dup_done(fd, libc.dup3(fd, to, flags));
}

static int fcntl_any(int fd, int cmd, void *arg)
{
	struct file *f;
	int rc = SOCK_LIBC;

	shim_enter();
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		return dup_done(fd, libc.fcntl(fd, cmd, arg));
	f = file_get(fd);
	if (!f)
		return libc.fcntl(fd, cmd, arg);
	if (f->kind == FILE_SOCKET) {
		if (cmd == F_GETFL)
			rc = sock_getfl(f, fd);
		else if (cmd == F_SETFL)
			rc = sock_setfl(f, fd, (int)(intptr_t)arg);
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

/* stdio's own reads and writes do not come through the exported calls: a stream on a socket of ours gets
 * these. */
static ssize_t stream_read(void *cookie, char *buf, size_t size)
{
	return read((int)(intptr_t)cookie, buf, size);
}

static ssize_t stream_write(void *cookie, const char *buf, size_t size)
{
	ssize_t n = write((int)(intptr_t)cookie, buf, size);

	return n < 0 ? 0 : n; /* fopencookie(3): a write error is 0 */
}

static int stream_close(void *cookie)
{
	return close((int)(intptr_t)cookie);
}

EXPORT FILE *fdopen(int fd, const char *mode)
{
	static const cookie_io_functions_t calls = {stream_read, stream_write, NULL, stream_close};
	struct file *f;
	bool is_ours;

	shim_enter();
	f = file_get(fd);
	is_ours = f && f->kind == FILE_SOCKET && sock_is_ours(f);
	if (f)
		file_put(f);
	return is_ours ? fopencookie((void *)(intptr_t)fd, mode, calls) : libc.fdopen(fd, mode);
}

/* A vfork child shares our memory: closing its descriptors there would close the parent's sockets. */
EXPORT pid_t vfork(void)
{
	shim_enter();
	return libc.fork();
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
