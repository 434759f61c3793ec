/* shim_raw.c - syscall(2): the numbers of calls that the library takes go to them, all others to the kernel.
 *
 * Runs wherever the application calls. Nothing of Pronk's own calls this: it uses raw_call (raw.h). System
 * calls that a program makes with instructions of its own are not seen by anybody.
 */
#include "shim.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#define P(type, arg) ((type)(uintptr_t)(arg))
#define I(arg) ((int)(arg))

static long kernel(long n, const long *a)
{
	long rc = raw_call(n, a[0], a[1], a[2], a[3], a[4], a[5]);

	/* an address may be a negative number, an error is one of these only */
	if ((unsigned long)rc < (unsigned long)-4095L)
		return rc;
	errno = (int)-rc;
	return -1;
}

/* Calls that move data or sockets. false: not one of them. */
static bool data_call(long n, const long *a, long *rc)
{
	switch (n) {
	case SYS_read:
		*rc = read(I(a[0]), P(void *, a[1]), (size_t)a[2]);
		break;
	case SYS_write:
		*rc = write(I(a[0]), P(void *, a[1]), (size_t)a[2]);
		break;
	case SYS_readv:
		*rc = readv(I(a[0]), P(struct iovec *, a[1]), I(a[2]));
		break;
	case SYS_writev:
		*rc = writev(I(a[0]), P(struct iovec *, a[1]), I(a[2]));
		break;
	case SYS_recvfrom:
		*rc = recvfrom(I(a[0]), P(void *, a[1]), (size_t)a[2], I(a[3]), P(struct sockaddr *, a[4]),
		        P(socklen_t *, a[5]));
		break;
	case SYS_sendto:
		*rc = sendto(I(a[0]), P(void *, a[1]), (size_t)a[2], I(a[3]), P(struct sockaddr *, a[4]),
		        (socklen_t)a[5]);
		break;
	case SYS_recvmsg:
		*rc = recvmsg(I(a[0]), P(struct msghdr *, a[1]), I(a[2]));
		break;
	case SYS_sendmsg:
		*rc = sendmsg(I(a[0]), P(struct msghdr *, a[1]), I(a[2]));
		break;
	case SYS_recvmmsg:
		*rc = recvmmsg(I(a[0]), P(struct mmsghdr *, a[1]), (unsigned)a[2], I(a[3]),
		        P(struct timespec *, a[4]));
		break;
	case SYS_sendmmsg:
		*rc = sendmmsg(I(a[0]), P(struct mmsghdr *, a[1]), (unsigned)a[2], I(a[3]));
		break;
	case SYS_sendfile:
		*rc = sendfile(I(a[0]), I(a[1]), P(off_t *, a[2]), (size_t)a[3]);
		break;
	case SYS_splice:
		*rc = splice(I(a[0]), P(off64_t *, a[1]), I(a[2]), P(off64_t *, a[3]), (size_t)a[4],
		        (unsigned)a[5]);
		break;
	default:
		return false;
	}
	return true;
}

static bool socket_call(long n, const long *a, long *rc)
{
	switch (n) {
	case SYS_socket:
		*rc = socket(I(a[0]), I(a[1]), I(a[2]));
		break;
	case SYS_socketpair:
		*rc = socketpair(I(a[0]), I(a[1]), I(a[2]), P(int *, a[3]));
		break;
	case SYS_bind:
		*rc = bind(I(a[0]), P(struct sockaddr *, a[1]), (socklen_t)a[2]);
		break;
	case SYS_listen:
		*rc = listen(I(a[0]), I(a[1]));
		break;
	case SYS_accept:
		*rc = accept(I(a[0]), P(struct sockaddr *, a[1]), P(socklen_t *, a[2]));
		break;
	case SYS_accept4:
		*rc = accept4(I(a[0]), P(struct sockaddr *, a[1]), P(socklen_t *, a[2]), I(a[3]));
		break;
	case SYS_connect:
		*rc = connect(I(a[0]), P(struct sockaddr *, a[1]), (socklen_t)a[2]);
		break;
	case SYS_shutdown:
		*rc = shutdown(I(a[0]), I(a[1]));
		break;
	case SYS_getsockname:
		*rc = getsockname(I(a[0]), P(struct sockaddr *, a[1]), P(socklen_t *, a[2]));
		break;
	case SYS_getpeername:
		*rc = getpeername(I(a[0]), P(struct sockaddr *, a[1]), P(socklen_t *, a[2]));
		break;
	case SYS_getsockopt:
		*rc = getsockopt(I(a[0]), I(a[1]), I(a[2]), P(void *, a[3]), P(socklen_t *, a[4]));
		break;
	case SYS_setsockopt:
		*rc = setsockopt(I(a[0]), I(a[1]), I(a[2]), P(void *, a[3]), (socklen_t)a[4]);
		break;
	default:
		return false;
	}
	return true;
}

static bool number_call(long n, const long *a, long *rc)
{
	switch (n) {
	case SYS_close:
		*rc = close(I(a[0]));
		break;
	case SYS_dup:
		*rc = dup(I(a[0]));
		break;
#ifdef SYS_dup2
	case SYS_dup2:
		*rc = dup2(I(a[0]), I(a[1]));
		break;
#endif
	case SYS_dup3:
		*rc = dup3(I(a[0]), I(a[1]), I(a[2]));
		break;
	case SYS_fcntl:
		*rc = fcntl(I(a[0]), I(a[1]), P(void *, a[2]));
		break;
	case SYS_ioctl:
		*rc = ioctl(I(a[0]), (unsigned long)a[1], P(void *, a[2]));
		break;
#ifdef SYS_close_range
	case SYS_close_range:
		*rc = close_range((unsigned)a[0], (unsigned)a[1], I(a[2]));
		break;
#endif
	case SYS_execve:
		*rc = execve(P(char *, a[0]), P(char **, a[1]), P(char **, a[2]));
		break;
	default:
		return false;
	}
	return true;
}

static bool wait_call(long n, const long *a, long *rc)
{
	switch (n) {
	case SYS_epoll_create1:
		*rc = epoll_create1(I(a[0]));
		break;
	case SYS_epoll_ctl:
		*rc = epoll_ctl(I(a[0]), I(a[1]), I(a[2]), P(struct epoll_event *, a[3]));
		break;
	case SYS_epoll_pwait:
		*rc = epoll_pwait(
		        I(a[0]), P(struct epoll_event *, a[1]), I(a[2]), I(a[3]), P(sigset_t *, a[4]));
		break;
#ifdef SYS_epoll_pwait2
	case SYS_epoll_pwait2:
		*rc = epoll_pwait2(I(a[0]), P(struct epoll_event *, a[1]), I(a[2]),
		        P(struct timespec *, a[3]), P(sigset_t *, a[4]));
		break;
#endif
#ifdef SYS_epoll_create
	case SYS_epoll_create:
		*rc = epoll_create(I(a[0]));
		break;
	case SYS_epoll_wait:
		*rc = epoll_wait(I(a[0]), P(struct epoll_event *, a[1]), I(a[2]), I(a[3]));
		break;
	case SYS_poll:
		*rc = poll(P(struct pollfd *, a[0]), (nfds_t)a[1], I(a[2]));
		break;
	case SYS_select:
		*rc = select(I(a[0]), P(fd_set *, a[1]), P(fd_set *, a[2]), P(fd_set *, a[3]),
		        P(struct timeval *, a[4]));
		break;
#endif
	case SYS_ppoll:
		*rc = ppoll(P(struct pollfd *, a[0]), (nfds_t)a[1], P(struct timespec *, a[2]),
		        P(sigset_t *, a[3]));
		break;
	case SYS_pselect6: {
		/* the kernel's sixth argument is a pointer to a pair: mask and its size */
		const sigset_t *const *mask = P(const sigset_t *const *, a[5]);

		*rc = pselect(I(a[0]), P(fd_set *, a[1]), P(fd_set *, a[2]), P(fd_set *, a[3]),
		        P(struct timespec *, a[4]), mask ? *mask : NULL);
		break;
	}
	default:
		return false;
	}
	return true;
}

/* seccomp(2): the filter knows the system calls of the program, not ours */
static void sandbox_call(long n, const long *a)
{
	if ((n == SYS_prctl && a[0] == PR_SET_SECCOMP) || n == SYS_seccomp) {
		/* what is open may have to do without socket(2) from here on */
		spare_own_all();
		spare_drop();
		attach_sandbox();
	}
}

EXPORT int prctl(int option, ...)
{
	long a[6] = {option};
	va_list ap;

	va_start(ap, option);
	for (int i = 1; i < 5; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	sandbox_call(SYS_prctl, a);
	return (int)kernel(SYS_prctl, a);
}

/* A new process made without libc's fork, as vsftpd's in namespaces of their own: the handlers that libc does
 * not call then count its sockets before it runs. What shares our memory or our descriptors is a thread, or
 * takes care of itself. */
static bool process_call(long n, const long *a, long *rc)
{
	const struct clone_args *args;
	uint64_t flags = 0, stack = 0;

	switch (n) {
	case SYS_exit_group:
		proc_leave(true);
		return false;
#ifdef SYS_fork
	case SYS_fork:
		break;
#endif
	case SYS_clone:
		flags = (uint64_t)a[0];
		stack = (uint64_t)a[1];
		break;
	case SYS_clone3:
		args = P(const struct clone_args *, a[0]);
		if (!args || (size_t)a[1] < CLONE_ARGS_SIZE_VER0)
			return false;
		flags = args->flags;
		stack = args->stack;
		break;
	default:
		return false;
	}
	if (stack || (flags & (CLONE_VM | CLONE_THREAD | CLONE_FILES)))
		return false;
	shim_enter();
	proc_fork_prepare();
	*rc = kernel(n, a);
	if (*rc)
		proc_fork_parent();
	else
		proc_fork_child();
	return true;
}

EXPORT long syscall(long n, ...)
{
	va_list ap;
	long a[6], rc;

	/* how many there are depends on the number: those that are not there are whatever the registers hold,
	 * as in libc's own */
	va_start(ap, n);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (likely(libc_is_ready()) &&
	        (data_call(n, a, &rc) || number_call(n, a, &rc) || wait_call(n, a, &rc) ||
	                socket_call(n, a, &rc) || process_call(n, a, &rc)))
		return rc;
	sandbox_call(n, a);
	rc = kernel(n, a);
	/* bpf(2): the results of the engine's calls, as far as they are no counts or zero, are descriptors */
	if (unlikely(libc_inside) && n == SYS_bpf && rc > 2)
		rc = number_inside((int)rc);
	return rc;
}
