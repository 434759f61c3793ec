/* sandbox.c - asks a seccomp filter by trying.
 *
 * Runs in the thread of an application that is about to load the engine. A filter cannot be read by those it
 * is for, and systemd's answer to a call that is not in SystemCallFilter= is the process's end. So a copy of
 * the process makes the calls, with arguments that the kernel refuses, and it is the copy that ends. It uses
 * system calls only: other threads of the application may hold any lock.
 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raw.h"

/* The number of arguments does not matter: all are -1, which none of these takes. */
static const struct trial {
	long number;
	const char *name;
	bool is_xdp;
} trials[] = {
        {SYS_sched_setaffinity, "sched_setaffinity", false},
        {SYS_set_mempolicy, "set_mempolicy", false},
        {SYS_mbind, "mbind", false},
#ifdef SYS_iopl
        {SYS_iopl, "iopl", false},
#endif
        {SYS_bpf, "bpf", true},
};
enum { TRIAL_COUNT = sizeof(trials) / sizeof(trials[0]) };

/* True also when /proc does not tell. */
static bool is_filtered(void)
{
	char text[4096];
	const char *line;
	long fd = RAW(SYS_openat, AT_FDCWD, "/proc/thread-self/status", O_RDONLY | O_CLOEXEC), n;

	if (fd < 0)
		return true;
	n = RAW(SYS_read, fd, text, sizeof(text) - 1);
	RAW(SYS_close, fd);
	if (n <= 0)
		return true;
	text[n] = 0;
	line = strstr(text, "\nSeccomp:");
	return line && strtol(line + strlen("\nSeccomp:"), NULL, 10) == 2;
}

/* In the copy. *at tells how far it has come. */
static void trials_make(bool is_xdp, volatile uint32_t *at)
{
	/* not the application's handler, and no core file */
	const struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} dfl = {0};

	RAW(SYS_rt_sigaction, SIGSYS, &dfl, NULL, sizeof(dfl.mask));
	RAW(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	for (uint32_t i = 0; i < TRIAL_COUNT; i++) {
		*at = i;
		if (is_xdp || !trials[i].is_xdp)
			RAW(trials[i].number, -1, -1, -1, -1, -1, -1);
	}
	RAW(SYS_exit_group, 0);
}

int sandbox_probe(bool is_xdp, char *err, size_t err_size)
{
	uint32_t *at;
	long pid, rc;
	int status = 0;

	if (!is_filtered())
		return 0;
	at = mmap(NULL, sizeof(*at), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED) {
		snprintf(err, err_size, "no memory to try what this program's sandbox allows");
		return -ENOMEM;
	}
	*at = 0;
	/* without a signal for its end it is nobody's child but ours */
	pid = RAW(SYS_clone, 0, 0, 0, 0, 0);
	if (!pid)
		trials_make(is_xdp, at);
	if (pid > 0)
		do
			rc = RAW(SYS_wait4, pid, &status, __WALL, NULL);
		while (rc == -EINTR);
	else
		rc = pid;
	if (rc < 0) {
		snprintf(err, err_size, "cannot try what this program's sandbox allows: %s",
		        strerror((int)-rc));
	} else if (status) {
		snprintf(err, err_size,
		        "mode = inline: the sandbox of this program ends it when the engine calls %s (allow it, "
		        "as by SystemCallFilter= of its unit, or use mode = dedicated)",
		        trials[*at].name);
		rc = -EPERM;
	} else {
		rc = 0;
	}
	munmap(at, sizeof(*at));
	return (int)rc;
}
