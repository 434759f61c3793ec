/* test_sandbox.c - sandbox_probe under seccomp filters. Each case is a process of its own: a filter stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox.h"

static volatile sig_atomic_t child_signals, bad_calls;

static void count_child(int sig)
{
	(void)sig;
	child_signals++;
}

static void count_bad(int sig)
{
	(void)sig;
	bad_calls++;
}

/* From now on the call does that. */
static int forbid(long number, unsigned action)
{
	struct sock_filter code[] = {
	        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
	        BPF_STMT(BPF_RET | BPF_K, action),
	        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In a process of its own: 0 when the probe gives rc, and names the call. */
static int probe(long number, unsigned action, bool is_xdp, int want, const char *name)
{
	char err[512] = "";
	int rc;

	signal(SIGCHLD, count_child);
	signal(SIGSYS, count_bad);
	if (number >= 0 && forbid(number, action))
		return 2;
	rc = sandbox_probe(is_xdp, err, sizeof(err));
	if (rc != want || (name ? !strstr(err, name) : *err)) {
		fprintf(stderr, "returned %d, said \"%s\"\n", rc, err);
		return 3;
	}
	if (child_signals || bad_calls)
		return 4;
	/* nor is there anything left to be waited for */
	return waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD ? 0 : 5;
}

static void expect(long number, unsigned action, bool is_xdp, int want, const char *name)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(probe(number, action, is_xdp, want, name));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void no_filter(void **state)
{
	(void)state;
	expect(-1, 0, true, 0, NULL);
}

static void killed(void **state)
{
	(void)state;
	expect(SYS_sched_setaffinity, SECCOMP_RET_KILL_PROCESS, false, -EPERM, "calls sched_setaffinity ");
	expect(SYS_set_mempolicy, SECCOMP_RET_KILL_THREAD, false, -EPERM, "calls set_mempolicy ");
	expect(SYS_mbind, SECCOMP_RET_TRAP, false, -EPERM, "calls mbind ");
}

static void only_refused(void **state)
{
	(void)state;
	expect(SYS_sched_setaffinity, SECCOMP_RET_ERRNO | EPERM, false, 0, NULL);
}

static void of_xdp(void **state)
{
	(void)state;
	expect(SYS_bpf, SECCOMP_RET_KILL_PROCESS, false, 0, NULL);
	expect(SYS_bpf, SECCOMP_RET_KILL_PROCESS, true, -EPERM, "calls bpf ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(no_filter),
	        cmocka_unit_test(killed),
	        cmocka_unit_test(only_refused),
	        cmocka_unit_test(of_xdp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
