/* shim.c - the exported calls: each decides "ours or libc" by one table lookup and turns -E into errno.
 *
 * Runs wherever the application calls. Nothing but that decision is here; what a call does to a socket of
 * ours is in src/sock. fcntl, ioctl, the fortified forms and process calls are in shim_odd.c.
 */
#include "shim.h"

#include "dgram.h"

#include <limits.h>
#include <linux/if_packet.h>
#include <pthread.h>
#include <string.h>

ssize_t shim_result(ssize_t rc)
{
	if (rc >= 0)
		return rc;
	errno = (int)-rc;
	return -1;
}

/* pthreads(7): these calls are cancellation points, also when they need not wait. While nothing is held; what
 * a wait holds is given back by its own handler (wait.c, epoll_wait.c, poll_set.c). libc's own look for
 * themselves. */
#define CANCEL_POINT(fd)                                                                                     \
	if (file_known(fd))                                                                                  \
	pthread_testcancel()

/* f = the file behind fd, or the call goes to libc. */
#define OURS_OR_LIBC(name, fd, ...)                                                                          \
	struct file *f;                                                                                      \
	ssize_t rc;                                                                                          \
	shim_enter();                                                                                        \
	if (likely(!(f = file_get(fd))))                                                                     \
		return libc.name(__VA_ARGS__);                                                               \
	if (unlikely(f->kind != FILE_SOCKET)) {                                                              \
		file_put(f);                                                                                 \
		return libc.name(__VA_ARGS__);                                                               \
	}

#define FINISH(name, ...)                                                                                    \
	if (rc == SOCK_LIBC)                                                                                 \
		spare_own(f);                                                                                \
	FINISH_LOOK(name, __VA_ARGS__)

/* ... of a call that only looks at the kernel's socket. */
#define FINISH_LOOK(name, ...)                                                                               \
	file_put(f);                                                                                         \
	if (rc == SOCK_LIBC)                                                                                 \
		return libc.name(__VA_ARGS__);                                                               \
	return shim_result(rc)

EXPORT int socket(int domain, int type, int protocol)
{
	int fd;

	shim_enter();
	if (unlikely(libc_inside))
		return number_inside(libc.socket(domain, type, protocol));
	fd = spare_socket(domain, type, protocol);
	if (fd != SOCK_LIBC)
		return fd;
	fd = WITH_ROOM(libc.socket(domain, type, protocol));
	if (fd >= 0)
		sock_opened(fd, domain, type, protocol);
	return fd;
}

EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	OURS_OR_LIBC(bind, fd, fd, addr, len)
	rc = sock_bind(f, fd, addr, len);
	FINISH(bind, fd, addr, len);
}

/* libc's binds by a call of its own. */
EXPORT int bindresvport(int fd, struct sockaddr_in *addr)
{
	OURS_OR_LIBC(bindresvport, fd, fd, addr)
	rc = SOCK_LIBC;
	FINISH(bindresvport, fd, addr);
}

EXPORT int listen(int fd, int backlog)
{
	OURS_OR_LIBC(listen, fd, fd, backlog)
	rc = sock_listen(f, fd, backlog);
	FINISH(listen, fd, backlog);
}

/* A number that the kernel hands out: what was known of it is of the past. */
static int accepted(int fd)
{
	if (unlikely(libc_inside))
		return number_inside(fd);
	if (fd >= 0 && unlikely(file_known(fd)))
		file_close(fd);
	return fd;
}

static ssize_t accept_any(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	ssize_t rc = SOCK_LIBC;
	struct file *f;

	shim_enter();
	CANCEL_POINT(fd);
	f = file_get(fd);
	if (!f)
		return rc;
	if (f->kind == FILE_SOCKET)
		rc = sock_accept(f, fd, addr, len, flags);
	file_put(f);
	if (rc >= 0)
		stdio_follow((int)rc);
	return rc;
}

EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	ssize_t rc = accept_any(fd, addr, len, 0);

	return rc == SOCK_LIBC ? accepted(WITH_ROOM(libc.accept(fd, addr, len))) : (int)shim_result(rc);
}

EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	ssize_t rc = accept_any(fd, addr, len, flags);

	return rc == SOCK_LIBC ? accepted(WITH_ROOM(libc.accept4(fd, addr, len, flags)))
	                       : (int)shim_result(rc);
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	CANCEL_POINT(fd);
	OURS_OR_LIBC(connect, fd, fd, addr, len)
	rc = sock_connect(f, fd, addr, len);
	FINISH(connect, fd, addr, len);
}

EXPORT int shutdown(int fd, int how)
{
	OURS_OR_LIBC(shutdown, fd, fd, how)
	rc = sock_shutdown(f, fd, how);
	FINISH(shutdown, fd, how);
}

EXPORT int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	OURS_OR_LIBC(getsockname, fd, fd, addr, len)
	rc = sock_name(f, addr, len, false);
	FINISH_LOOK(getsockname, fd, addr, len);
}

EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	OURS_OR_LIBC(getpeername, fd, fd, addr, len)
	rc = sock_name(f, addr, len, true);
	FINISH_LOOK(getpeername, fd, addr, len);
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	OURS_OR_LIBC(getsockopt, fd, fd, level, name, value, len)
	rc = sock_getopt(f, fd, level, name, value, len);
	FINISH_LOOK(getsockopt, fd, level, name, value, len);
}

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	int fanout;

	/* the engine's packet sockets take fragments as they are: src/nic/device.c says why */
	if (unlikely(libc_inside) && level == SOL_PACKET && name == PACKET_FANOUT && len == sizeof(fanout)) {
		memcpy(&fanout, value, sizeof(fanout));
		fanout &= ~(PACKET_FANOUT_FLAG_DEFRAG << 16);
		return libc.setsockopt(fd, level, name, &fanout, len);
	}
	OURS_OR_LIBC(setsockopt, fd, fd, level, name, value, len)
	rc = sock_setopt(f, fd, level, name, value, len);
	FINISH(setsockopt, fd, level, name, value, len);
}

/* Datagram sockets: every call is a message. */
static ssize_t dgram_in(struct file *f, int fd, const struct iovec *iov, size_t count, int flags,
        struct sockaddr *addr, socklen_t *len)
{
	struct msghdr msg = {.msg_name = addr,
	        .msg_namelen = addr && !user_is_bad(len) ? *len : 0,
	        .msg_iov = (struct iovec *)(uintptr_t)iov,
	        .msg_iovlen = count};
	ssize_t rc = dgram_recv(f, fd, &msg, flags);

	if (rc >= 0 && addr && !user_is_bad(len))
		*len = msg.msg_namelen;
	return rc;
}

static ssize_t dgram_out(struct file *f, int fd, const struct iovec *iov, size_t count, int flags,
        const struct sockaddr *addr, socklen_t len)
{
	/* without a length it is a bad address, which sendmsg(2) would take for none */
	static const struct sockaddr too_short;
	struct msghdr msg = {.msg_name = (void *)(uintptr_t)(addr && !len ? &too_short : addr),
	        .msg_namelen = addr ? (len ? len : 1) : 0,
	        .msg_iov = (struct iovec *)(uintptr_t)iov,
	        .msg_iovlen = count};

	if (unlikely(addr && len > sizeof(struct sockaddr_storage)))
		return sock_is_ours(f) ? -EINVAL : SOCK_LIBC;
	return dgram_send(f, fd, &msg, flags, false);
}

static inline bool is_dgram(const struct file *f)
{
	return f->type == SOCK_DGRAM;
}

EXPORT ssize_t read(int fd, void *buf, size_t size)
{
	struct iovec iov = {buf, size};

	if (unlikely(!libc_is_ready()))
		return shim_result(RAW(SYS_read, fd, buf, size));
	CANCEL_POINT(fd);
	OURS_OR_LIBC(read, fd, fd, buf, size)
	/* the kernel's read(2) of nothing never asks the socket */
	if (sock_is_ours(f) && !size)
		rc = 0;
	else
		rc = is_dgram(f) ? dgram_in(f, fd, &iov, 1, 0, NULL, NULL) : sock_recv(f, &iov, 1, 0);
	FINISH(read, fd, buf, size);
}

EXPORT ssize_t write(int fd, const void *buf, size_t size)
{
	struct iovec iov = {(void *)(uintptr_t)buf, size};

	if (unlikely(!libc_is_ready()))
		return shim_result(RAW(SYS_write, fd, buf, size));
	CANCEL_POINT(fd);
	OURS_OR_LIBC(write, fd, fd, buf, size)
	rc = is_dgram(f) ? dgram_out(f, fd, &iov, 1, 0, NULL, 0) : sock_send(f, &iov, 1, 0);
	FINISH(write, fd, buf, size);
}

/* What the kernel says of an array before it looks at the socket: 0 or -E. sum: not 0 if it asks for
 * anything. readv(2) */
static inline ssize_t iov_check(const struct iovec *iov, int count, size_t *sum)
{
	*sum = 0;
	if (count < 0 || count > IOV_MAX)
		return -EINVAL;
	if (count && user_is_bad(iov))
		return -EFAULT;
	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > SSIZE_MAX)
			return -EINVAL;
		*sum |= iov[i].iov_len;
	}
	return 0;
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	size_t sum;
	CANCEL_POINT(fd);
	OURS_OR_LIBC(readv, fd, fd, iov, count)
	rc = sock_is_ours(f) ? iov_check(iov, count, &sum) : SOCK_LIBC;
	if (!rc && sum)
		rc = is_dgram(f) ? dgram_in(f, fd, iov, (size_t)count, 0, NULL, NULL)
		                 : sock_recv(f, iov, count, 0);
	FINISH(readv, fd, iov, count);
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	size_t sum = 0;
	CANCEL_POINT(fd);
	OURS_OR_LIBC(writev, fd, fd, iov, count)
	rc = sock_is_ours(f) || is_dgram(f) ? iov_check(iov, count, &sum) : SOCK_LIBC;
	if (!sock_is_ours(f) && (rc || !sum))
		rc = SOCK_LIBC; /* the kernel's words */
	if (!rc && sum)         /* to write nothing never asks the socket, unlike write(2) */
		rc = is_dgram(f) ? dgram_out(f, fd, iov, (size_t)count, 0, NULL, 0)
		                 : sock_send(f, iov, count, 0);
	FINISH(writev, fd, iov, count);
}

/* recv(2), send(2) and their kin: more than a call can do is cut before it is looked at. */
static inline size_t cut(size_t size)
{
	return size < 0x7ffff000 ? size : 0x7ffff000;
}

EXPORT ssize_t recv(int fd, void *buf, size_t size, int flags)
{
	struct iovec iov = {buf, cut(size)};
	CANCEL_POINT(fd);
	OURS_OR_LIBC(recv, fd, fd, buf, size, flags)
	rc = is_dgram(f) ? dgram_in(f, fd, &iov, 1, flags, NULL, NULL) : sock_recv(f, &iov, 1, flags);
	FINISH(recv, fd, buf, size, flags);
}

EXPORT ssize_t send(int fd, const void *buf, size_t size, int flags)
{
	struct iovec iov = {(void *)(uintptr_t)buf, cut(size)};
	CANCEL_POINT(fd);
	OURS_OR_LIBC(send, fd, fd, buf, size, flags)
	rc = is_dgram(f) ? dgram_out(f, fd, &iov, 1, flags, NULL, 0) : sock_send(f, &iov, 1, flags);
	FINISH(send, fd, buf, size, flags);
}

/* A stream has no sender to name: the address is left alone and its length becomes 0, as in the kernel's
 * inet_recvmsg. What is wrong with it is found when the data has been taken. */
static ssize_t no_sender(const struct sockaddr *addr, socklen_t *len, ssize_t rc)
{
	if (!addr)
		return rc;
	if (user_is_bad(len))
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	*len = 0;
	return rc;
}

EXPORT ssize_t recvfrom(
        int fd, void *buf, size_t size, int flags, struct sockaddr *restrict addr, socklen_t *restrict len)
{
	struct iovec iov = {buf, cut(size)};
	CANCEL_POINT(fd);
	OURS_OR_LIBC(recvfrom, fd, fd, buf, size, flags, addr, len)
	if (is_dgram(f)) {
		rc = sock_is_ours(f) && addr && user_is_bad(len) ? -EFAULT
		                                                 : dgram_in(f, fd, &iov, 1, flags, addr, len);
	} else {
		rc = sock_recv(f, &iov, 1, flags);
		if (rc >= 0)
			rc = no_sender(addr, len, rc);
	}
	FINISH(recvfrom, fd, buf, size, flags, addr, len);
}

/* ... nor a receiver, but the kernel looks at the name all the same. */
static ssize_t no_receiver(const struct sockaddr *addr, socklen_t len)
{
	if (likely(!addr))
		return 0;
	if (len > sizeof(struct sockaddr_storage))
		return -EINVAL;
	return len && user_is_bad(addr) ? -EFAULT : 0;
}

EXPORT ssize_t sendto(
        int fd, const void *buf, size_t size, int flags, const struct sockaddr *addr, socklen_t len)
{
	struct iovec iov = {(void *)(uintptr_t)buf, cut(size)};
	CANCEL_POINT(fd);
	OURS_OR_LIBC(sendto, fd, fd, buf, size, flags, addr, len)
	if (is_dgram(f)) {
		rc = dgram_out(f, fd, &iov, 1, flags, addr, len);
	} else {
		rc = sock_is_ours(f) ? no_receiver(addr, len) : 0;
		if (!rc)
			rc = sock_send(f, &iov, 1, flags);
	}
	FINISH(sendto, fd, buf, size, flags, addr, len);
}

/* Descriptors that came in a message to the engine. */
static void received_inside(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int *fds = (int *)(void *)CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
			fds[i] = number_inside(fds[i]);
	}
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct file *f;
	ssize_t rc;

	shim_enter();
	CANCEL_POINT(fd);
	f = file_get(fd);
	if (likely(!f) || f->kind != FILE_SOCKET) {
		if (f)
			file_put(f);
		rc = libc.recvmsg(fd, msg, flags);
		if (rc >= 0 && unlikely(libc_inside))
			received_inside(msg);
		else if (rc >= 0)
			pass_received(msg, flags);
		return rc;
	}
	if (is_dgram(f)) {
		rc = dgram_recv(f, fd, msg, flags);
		FINISH(recvmsg, fd, msg, flags);
	}
	rc = sock_is_ours(f) ? sock_msg_check(msg, false) : SOCK_LIBC;
	if (!rc)
		rc = sock_recv(f, msg->msg_iov, (int)msg->msg_iovlen, flags);
	if (rc >= 0)
		sock_msg_received(msg, flags);
	FINISH(recvmsg, fd, msg, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct file *f;
	ssize_t rc;

	shim_enter();
	CANCEL_POINT(fd);
	f = file_get(fd);
	if (likely(!f) || f->kind != FILE_SOCKET) {
		struct pass_message m;

		if (f)
			file_put(f);
		rc = pass_sending(fd, msg, &m);
		if (rc)
			return shim_result(rc);
		rc = libc.sendmsg(fd, m.control ? &m.msg : msg, flags);
		pass_sent(&m);
		return rc;
	}
	if (is_dgram(f)) {
		rc = dgram_send(f, fd, msg, flags, false);
		FINISH(sendmsg, fd, msg, flags);
	}
	rc = sock_is_ours(f) ? sock_msg_check(msg, true) : SOCK_LIBC;
	if (!rc)
		rc = sock_send(f, msg->msg_iov, (int)msg->msg_iovlen, flags);
	FINISH(sendmsg, fd, msg, flags);
}

/* To a unix socket, say: one by one where a message carries sockets of ours. */
static int sendmmsg_kernel(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
	bool has_control = false;

	shim_enter();
	for (unsigned int i = 0; i < count && i < IOV_MAX && !user_is_bad(&msgs[i]); i++)
		has_control |= msgs[i].msg_hdr.msg_control && msgs[i].msg_hdr.msg_controllen;
	if (likely(!has_control))
		return libc.sendmmsg(fd, msgs, count, flags);
	for (unsigned int i = 0; i < count && i < IOV_MAX; i++) {
		ssize_t n = sendmsg(fd, &msgs[i].msg_hdr, flags);

		if (n < 0)
			return i ? (int)i : -1;
		msgs[i].msg_len = (unsigned int)n;
	}
	return (int)(count < IOV_MAX ? count : IOV_MAX);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
	if (!file_known(fd) && file_any())
		return sendmmsg_kernel(fd, msgs, count, flags);
	CANCEL_POINT(fd);
	OURS_OR_LIBC(sendmmsg, fd, fd, msgs, count, flags)
	rc = sock_sendmmsg(f, fd, msgs, count, flags);
	FINISH(sendmmsg, fd, msgs, count, flags);
}

EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags, struct timespec *timeout)
{
	if (!file_known(fd)) {
		int n;

		shim_enter();
		n = libc.recvmmsg(fd, msgs, count, flags, timeout);
		for (int i = 0; i < n; i++)
			pass_received(&msgs[i].msg_hdr, flags);
		return n;
	}
	CANCEL_POINT(fd);
	OURS_OR_LIBC(recvmmsg, fd, fd, msgs, count, flags, timeout)
	rc = sock_recvmmsg(f, fd, msgs, count, flags, timeout);
	FINISH(recvmmsg, fd, msgs, count, flags, timeout);
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
	int cancel;
	CANCEL_POINT(out);
	OURS_OR_LIBC(sendfile, out, out, in, offset, count)
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	rc = sock_sendfile(f, out, in, (off64_t *)offset, count);
	pthread_setcancelstate(cancel, NULL);
	FINISH(sendfile, out, in, offset, count);
}

EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t count)
{
	int cancel;
	CANCEL_POINT(out);
	OURS_OR_LIBC(sendfile64, out, out, in, offset, count)
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	rc = sock_sendfile(f, out, in, offset, count);
	pthread_setcancelstate(cancel, NULL);
	FINISH(sendfile64, out, in, offset, count);
}

_Static_assert(sizeof(off_t) == 8, "sendfile and sendfile64 are the same call here");

EXPORT int close(int fd)
{
	struct file *f;
	int rc;

	if (unlikely(!libc_is_ready()))
		return (int)shim_result(RAW(SYS_close, fd));
	if (unlikely(proc_is_internal_fd(fd))) {
		if (libc_inside) {
			proc_engine_fd_remove(fd);
			return libc.close(fd);
		}
		/* ours, and no business of the application: to it the number is not open */
		errno = EBADF;
		return -1;
	}
	pthread_testcancel();
	f = file_get(fd);
	if (!f) {
		if (unlikely(proc_is_attached()))
			proc_fallback_remove(fd);
		return libc.close(fd);
	}
	if (f->kind == FILE_SOCKET) {
		sock_linger(f);
		if (atomic_load(&f->mode) != MODE_PRONK)
			proc_fallback_remove(fd);
	}
	/* out of the table before the kernel may hand the number out again */
	file_close(fd);
	rc = libc.close(fd);
	file_put(f);
	return rc;
}

/* --- readiness --- */

static uint64_t ms_to_ns(int ms)
{
	return ms < 0 ? UINT64_MAX : (uint64_t)ms * 1000000u;
}

static int ts_to_ns(const struct timespec *ts, uint64_t *ns)
{
	*ns = UINT64_MAX;
	if (!ts)
		return 0;
	if (user_is_bad(ts))
		return -EFAULT;
	if (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000)
		return -EINVAL;
	if ((uint64_t)ts->tv_sec < UINT64_MAX / 1000000000u - 1)
		*ns = (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec;
	return 0;
}

EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout)
{
	int rc;

	shim_enter();
	rc = poll_wait(fds, count, ms_to_ns(timeout), NULL);
	return rc == SOCK_LIBC ? libc.poll(fds, count, timeout) : (int)shim_result(rc);
}

EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t ns;
	int rc;

	shim_enter();
	rc = ts_to_ns(timeout, &ns) ? SOCK_LIBC : poll_wait(fds, count, ns, mask);
	return rc == SOCK_LIBC ? libc.ppoll(fds, count, timeout, mask) : (int)shim_result(rc);
}

EXPORT int select(int count, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout)
{
	uint64_t ns = UINT64_MAX, start, spent;
	int rc;

	shim_enter();
	if (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0))
		return libc.select(count, rd, wr, ex, timeout);
	if (timeout && (uint64_t)timeout->tv_sec < UINT64_MAX / 2000000000u)
		ns = (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_usec * 1000u;
	start = clock_now_ns();
	rc = select_wait(count, rd, wr, ex, ns, NULL);
	if (rc == SOCK_LIBC)
		return libc.select(count, rd, wr, ex, timeout);
	if (timeout && ns != UINT64_MAX) { /* Linux leaves what was not slept */
		spent = clock_now_ns() - start;
		ns = spent < ns ? ns - spent : 0;
		timeout->tv_sec = (time_t)(ns / 1000000000u);
		timeout->tv_usec = (suseconds_t)(ns % 1000000000u / 1000u);
	}
	return (int)shim_result(rc);
}

EXPORT int pselect(
        int count, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t ns;
	int rc;

	shim_enter();
	rc = ts_to_ns(timeout, &ns) ? SOCK_LIBC : select_wait(count, rd, wr, ex, ns, mask);
	return rc == SOCK_LIBC ? libc.pselect(count, rd, wr, ex, timeout, mask) : (int)shim_result(rc);
}

EXPORT int epoll_create(int size)
{
	int fd;

	shim_enter();
	fd = WITH_ROOM(libc.epoll_create(size));
	if (unlikely(libc_inside))
		return number_inside(fd);
	if (fd >= 0)
		epoll_opened(fd);
	return fd;
}

EXPORT int epoll_create1(int flags)
{
	int fd;

	shim_enter();
	fd = WITH_ROOM(libc.epoll_create1(flags));
	if (unlikely(libc_inside))
		return number_inside(fd);
	if (fd >= 0)
		epoll_opened(fd);
	return fd;
}

EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	struct file *ef;
	int rc;

	shim_enter();
	ef = file_get(epfd);
	if (!ef || ef->kind != FILE_EPOLL) {
		if (ef)
			file_put(ef);
		return libc.epoll_ctl(epfd, op, fd, event);
	}
	rc = epoll_ctl_file(ef, epfd, op, fd, event);
	file_put(ef);
	return rc == SOCK_LIBC ? libc.epoll_ctl(epfd, op, fd, event) : (int)shim_result(rc);
}

static int epoll_any(int epfd, struct epoll_event *events, int max, uint64_t ns, const sigset_t *mask)
{
	struct file *ef;
	int rc;

	CANCEL_POINT(epfd);
	ef = file_get(epfd);
	if (!ef)
		return SOCK_LIBC;
	rc = ef->kind == FILE_EPOLL ? epoll_wait_file(ef, epfd, events, max, ns, mask, sizeof(*mask))
	                            : SOCK_LIBC;
	file_put(ef);
	return rc == SOCK_LIBC ? rc : (int)shim_result(rc);
}

EXPORT int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
	int rc;

	shim_enter();
	rc = epoll_any(epfd, events, max, ms_to_ns(timeout), NULL);
	return rc == SOCK_LIBC ? libc.epoll_wait(epfd, events, max, timeout) : rc;
}

EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
	int rc;

	shim_enter();
	rc = epoll_any(epfd, events, max, ms_to_ns(timeout), mask);
	return rc == SOCK_LIBC ? libc.epoll_pwait(epfd, events, max, timeout, mask) : rc;
}

EXPORT int epoll_pwait2(
        int epfd, struct epoll_event *events, int max, const struct timespec *timeout, const sigset_t *mask)
{
	uint64_t ns;
	int rc;

	shim_enter();
	rc = ts_to_ns(timeout, &ns) ? SOCK_LIBC : epoll_any(epfd, events, max, ns, mask);
	return rc == SOCK_LIBC ? libc.epoll_pwait2(epfd, events, max, timeout, mask) : rc;
}
