/* mmsg.c - sendmmsg(2) and recvmmsg(2): several messages in one call, for sockets of either type.
 *
 * Runs in application threads. One doorbell for all messages of a sendmmsg call. Each message finds its own
 * side, so one call may use Pronk and the kernel.
 */
#include "dgram_int.h"
#include "clock.h"
#include "user.h"
#include "wait.h"

#include <errno.h>

enum { MESSAGES_MAX = 1024 }; /* UIO_MAXIOV: the kernel takes no more at a time */

static ssize_t send_one(struct file *f, int fd, struct msghdr *msg, int flags)
{
	ssize_t n;

	if (f->type == SOCK_DGRAM) {
		n = dgram_send(f, fd, msg, flags, true);
	} else {
		n = sock_msg_check(msg, true);
		if (!n)
			n = sock_send(f, msg->msg_iov, (int)msg->msg_iovlen, flags);
	}
	if (n == SOCK_LIBC)
		n = wait_sendmsg(f, fd, msg, flags);
	return n;
}

int sock_sendmmsg(struct file *f, int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
	unsigned int done = 0;
	ssize_t n = 0;

	if (atomic_load(&f->mode) == MODE_KERNEL || (f->type != SOCK_DGRAM && !sock_is_ours(f)))
		return SOCK_LIBC;
	if (count && user_is_bad(msgs))
		return -EFAULT;
	if (count > MESSAGES_MAX)
		count = MESSAGES_MAX;
	for (; done < count; done++) {
		n = send_one(f, fd, &msgs[done].msg_hdr, flags);
		if (n < 0)
			break;
		msgs[done].msg_len = (unsigned int)n;
	}
	if (done && f->type == SOCK_DGRAM)
		dgram_flush(f);
	return done ? (int)done : (int)n;
}

/* SOCK_LIBC: nothing is lost when the kernel does the whole call. */
static ssize_t recv_one(struct file *f, int fd, struct msghdr *msg, int flags, bool is_first)
{
	ssize_t n;

	if (f->type == SOCK_DGRAM) {
		n = dgram_recv(f, fd, msg, flags);
		return n == SOCK_LIBC && !is_first ? wait_recvmsg(f, fd, msg, flags) : n;
	}
	n = sock_msg_check(msg, false);
	if (!n)
		n = sock_recv(f, msg->msg_iov, (int)msg->msg_iovlen, flags);
	if (n >= 0)
		sock_msg_received(msg, flags);
	return n;
}

int sock_recvmmsg(
        struct file *f, int fd, struct mmsghdr *msgs, unsigned int count, int flags, struct timespec *timeout)
{
	uint64_t now = clock_now_ns(), deadline = UINT64_MAX;
	unsigned int done = 0;
	ssize_t n = 0;

	/* one that is the kernel's so far may become ours while we sleep: dgram_recv */
	if (!sock_is_ours(f) && (f->type != SOCK_DGRAM || atomic_load(&f->mode) != MODE_OPEN))
		return SOCK_LIBC;
	if (timeout && user_is_bad(timeout))
		return -EFAULT;
	if (timeout) {
		if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000)
			return -EINVAL;
		if ((uint64_t)timeout->tv_sec < UINT64_MAX / 4000000000u)
			deadline = now + (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec;
	}
	if (count && user_is_bad(msgs))
		return -EFAULT;
	if (count > MESSAGES_MAX)
		count = MESSAGES_MAX;
	if (!count && f->type == SOCK_DGRAM && !sock_is_dead(f)) { /* even then it tells */
		if (!sock_is_ours(f))
			return SOCK_LIBC;
		n = errors_take(f);
		return n ? (int)n : dgram_kernel_error_take(f, fd);
	}
	while (done < count) {
		n = recv_one(f, fd, &msgs[done].msg_hdr, flags & ~MSG_WAITFORONE, !done);
		if (n < 0)
			break;
		msgs[done++].msg_len = (unsigned int)n;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (timeout) { /* looked at after each message only: recvmmsg(2), "BUGS" */
			now = clock_now_ns();
			if (now >= deadline) {
				timeout->tv_sec = timeout->tv_nsec = 0;
				break;
			}
			if (deadline != UINT64_MAX) {
				timeout->tv_sec = (time_t)((deadline - now) / 1000000000u);
				timeout->tv_nsec = (long)((deadline - now) % 1000000000u);
			}
		}
		if (msgs[done - 1].msg_hdr.msg_flags & MSG_OOB)
			break;
	}
	/* what went wrong after the first message is told by the next call, or SO_ERROR (do_recvmmsg) */
	if (done && n < 0 && n != -EAGAIN && n != -EINTR && n != SOCK_LIBC && !sock_is_dead(f) &&
	        atomic_load(&f->ep) != ENDPOINT_NONE)
		atomic_compare_exchange_strong(
		        &handle_ep(atomic_load(&f->ep))->error, &(int32_t){0}, (int32_t)-n);
	return done ? (int)done : (int)n;
}
