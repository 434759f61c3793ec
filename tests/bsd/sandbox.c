/* sandbox.c - sockets in a process that has given up most system calls, as sshd's child before the login. */
#include "bsd.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define ALLOW(nr)                                                                                            \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* What such a program needs itself: whatever else is called ends it. */
static struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_ppoll),
#ifdef SYS_poll
        ALLOW(SYS_poll),
#endif
        ALLOW(SYS_getpid),
        ALLOW(SYS_gettid),
        ALLOW(SYS_futex),
        ALLOW(SYS_nanosleep),
        ALLOW(SYS_clock_gettime),
        ALLOW(SYS_brk),
        ALLOW(SYS_mmap),
        ALLOW(SYS_munmap),
        ALLOW(SYS_close),
        ALLOW(SYS_shutdown),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};

static void sandbox(void)
{
	const struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
	const struct rlimit one = {1, 1};

	if (setrlimit(RLIMIT_NOFILE, &one) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(99);
}

static void ended(pid_t pid)
{
	int status;

	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		out("child=SIG%s", sigabbrev_np(WTERMSIG(status)));
	else
		out("child=%d", WEXITSTATUS(status));
}

/* Reads, polls, answers, and sees the end. */
CASE_BOTH(child_in_a_sandbox_serves_its_connection)
{
	struct conn c = pair();
	pid_t pid = fork();

	if (pid == 0) {
		struct pollfd p = {.fd = c.fd, .events = POLLIN};
		char buf[64];
		ssize_t n;

		sandbox();
		for (int i = 0; i < 20; i++) {
			if (i % 2 && (poll(&p, 1, -1) != 1 || p.revents != POLLIN))
				_exit(1);
			n = read(c.fd, buf, sizeof(buf));
			if (n != 4)
				_exit(2);
			if (write(c.fd, buf, 4) != 4)
				_exit(3);
		}
		if (poll(&p, 1, 20) != 0)
			_exit(4);
		_exit(read(c.fd, buf, sizeof(buf)) ? 5 : 0);
	}
	for (int i = 0; i < 20; i++) {
		peer_ok("send %d 4", c.id);
		peer_ok("recv %d 4", c.id);
	}
	nap_ms(100);
	peer_ok("shut %d 1", c.id);
	ended(pid);
}

/* A thread that slept before may be asked again in the sandbox. */
CASE_BOTH(sandbox_after_the_first_wait)
{
	struct conn c = pair();
	pid_t pid = fork();

	if (pid == 0) {
		char buf[64];

		if (read(c.fd, buf, sizeof(buf)) != 4)
			_exit(1);
		sandbox();
		if (write(c.fd, buf, 4) != 4 || read(c.fd, buf, sizeof(buf)) != 4)
			_exit(2);
		_exit(0);
	}
	nap_ms(50);
	peer_ok("send %d 4", c.id);
	peer_ok("recv %d 4", c.id);
	peer_ok("send %d 4", c.id);
	ended(pid);
}

/* A socket that nobody has decided about, in a program that has connected often: it needs no call of its own
 * there. */
CASE(undecided_socket_in_a_sandbox)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct pollfd p = {.events = POLLIN};
		int one = 1;

		for (int i = 0; i < 3; i++) {
			struct conn c = pair_connected();

			close(c.fd);
			p.fd = tcp_socket();
			if (i < 2)
				close(p.fd);
		}
		if (setsockopt(p.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
			_exit(1);
		sandbox();
		if (poll(&p, 1, 0) != 1 || p.revents != POLLHUP)
			_exit(2);
		if (shutdown(p.fd, SHUT_RDWR) != -1 || errno != ENOTCONN)
			_exit(3);
		if (read(p.fd, (char[1]){0}, 1) != 0)
			_exit(4);
		close(p.fd);
		_exit(0);
	}
	ended(pid);
}
