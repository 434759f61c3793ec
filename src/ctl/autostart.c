/* autostart.c - starts pronkd from wherever it is needed: the launcher, or the first socket call of an
 * application.
 *
 * Runs in the caller's thread. The hard part is to be invisible in an application that may have handlers,
 * other threads and its own children: a helper is cloned without an exit signal, so that neither SIGCHLD nor
 * wait(2) ever shows it, and it does not exec (an exec would bring the signal back). It starts pronkd as its
 * own child, waits for it with a time limit, and reports in memory that it shares with the caller, who is
 * suspended meanwhile. Both use system calls only.
 */
#include "autostart.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "cfg.h"
#include "clock.h"
#include "libc.h"
#include "lock.h"
#include "raw.h"

#define START_LIMIT_NS (15 * CLOCK_NS_PER_S)
enum { ARG_MAX_COUNT = 8, STACK_SIZE = 65536, NAP_NS = 2000000 };

/* What the caller, the helper and the child before its exec share. */
struct spawn {
	const char *path;
	char *const *argv;
	char *const *envp;
	int error_fd;   /* becomes the child's stderr */
	uint8_t *stack; /* of the child; the helper uses the half above */
	int status;     /* out: as from wait(2) */
	int error;      /* out: errno of what went wrong before there was a status, else 0 */
};

/* --- between clone and exec: system calls only, on a stack of our own, in the caller's memory --- */

static int spawn_child(void *arg)
{
	struct spawn *sp = arg;
	struct sigaction dfl;
	sigset_t none;
	long null;

	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	for (int sig = 1; sig < _NSIG; sig++)
		sigaction(sig, &dfl, NULL); /* the table is a copy: the application keeps its own */
	null = RAW(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR);
	if (null >= 0) {
		RAW(SYS_dup3, null, 0, 0);
		RAW(SYS_dup3, null, 1, 0);
	}
	RAW(SYS_dup3, sp->error_fd, 2, 0);
	RAW(SYS_close_range, 3u, ~0u, 0u); /* what the application holds is not the service's business */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sp->error = (int)-RAW(SYS_execve, sp->path, sp->argv, sp->envp);
	RAW(SYS_exit_group, 127);
	return 0;
}

static int spawn_helper(void *arg)
{
	struct spawn *sp = arg;
	uint64_t start_ns = clock_now_ns();
	struct sigaction dfl;
	int pid;

	/* or an application that ignores SIGCHLD would have the kernel reap our child */
	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	sigaction(SIGCHLD, &dfl, NULL);
	pid = clone(spawn_child, sp->stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | SIGCHLD, sp);
	if (pid < 0) {
		sp->error = errno;
		RAW(SYS_exit_group, 1);
	}
	for (;;) {
		struct timespec nap = {.tv_nsec = NAP_NS};
		long rc = RAW(SYS_wait4, pid, &sp->status, WNOHANG, NULL);

		if (rc == pid)
			break;
		if (rc < 0 && rc != -EINTR) {
			sp->error = (int)-rc;
			break;
		}
		if (clock_now_ns() - start_ns > START_LIMIT_NS) {
			RAW(SYS_kill, pid, SIGKILL);
			RAW(SYS_wait4, pid, &sp->status, 0, NULL);
			sp->error = ETIMEDOUT;
			break;
		}
		RAW(SYS_nanosleep, &nap, NULL);
	}
	RAW(SYS_exit_group, 0);
	return 0;
}

/* --- in the caller --- */

/* Runs the program to its end. 0 and sp->status, or -E. */
static int spawn_run(struct spawn *sp)
{
	sigset_t all, saved;
	int pid, rc = 0;

	sp->stack = mmap(
	        NULL, 2 * STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (sp->stack == MAP_FAILED)
		return -errno;
	/* no handler of the application may run in the helper: it would run in the application's memory */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	pid = clone(spawn_helper, sp->stack + 2 * STACK_SIZE, CLONE_VM | CLONE_VFORK, sp);
	if (pid < 0)
		rc = -errno;
	else
		while (waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	munmap(sp->stack, 2 * STACK_SIZE);
	return rc ? rc : -sp->error;
}

static int candidate(char *buf, size_t size, const char *folder, const char *rest)
{
	int n = snprintf(buf, size, "%s%s", folder, rest);

	return n > 0 && (size_t)n < size && access(buf, X_OK) == 0 ? 0 : -ENOENT;
}

/* The folder of the executable or library that this code is part of. */
static int own_folder(char *buf, size_t size)
{
	char path[PATH_MAX], *slash;
	Dl_info info;
	ssize_t n;

	if (!dladdr((void *)(uintptr_t)&service_program, &info) || !info.dli_fname ||
	        !strchr(info.dli_fname, '/') || !realpath(info.dli_fname, path)) {
		/* a program found through PATH: it is the executable itself */
		n = readlink("/proc/self/exe", path, sizeof(path) - 1);
		if (n <= 0)
			return -ENOENT;
		path[n] = 0;
	}
	slash = strrchr(path, '/');
	if (!slash)
		return -ENOENT;
	*slash = 0;
	return snprintf(buf, size, "%s", path) < (int)size ? 0 : -ENAMETOOLONG;
}

int service_program(char *buf, size_t size)
{
	const char *named = secure_getenv("PRONK_PRONKD");
	char folder[PATH_MAX];

	if (named && *named)
		return candidate(buf, size, named, "");
	if (!own_folder(folder, sizeof(folder)) && (!candidate(buf, size, folder, "/../tools/pronkd") ||
	                                                   !candidate(buf, size, folder, "/pronkd")))
		return 0;
	return candidate(buf, size, PRONKD_PATH, "");
}

/* The environment without the preload; the strings are shared. NULL when out of memory; freed with free(3).
 */
static char **environment_clean(void)
{
	size_t count = 0, n = 0;
	char **envp;

	while (environ && environ[count])
		count++;
	envp = calloc(count + 1, sizeof(*envp));
	for (size_t i = 0; envp && i < count; i++)
		if (strncmp(environ[i], "LD_PRELOAD=", 11))
			envp[n++] = environ[i];
	return envp;
}

/* What pronkd had to say: the last line of it, without its name in front. */
static void error_read(int fd, char *err, size_t err_size)
{
	char text[1024], *line, *skip;
	ssize_t n;

	libc.fcntl(fd, F_SETFL, O_NONBLOCK); /* a service that was killed may have left the other end open */
	do
		n = libc.read(fd, text, sizeof(text) - 1);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return;
	text[n] = 0;
	while (n && text[n - 1] == '\n')
		text[--n] = 0;
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	skip = strncmp(line, "pronkd", 6) ? NULL : strstr(line, ": ");
	line = skip ? skip + 2 : line;
	if (*line)
		snprintf(err, err_size, "%s", line);
}

static int service_spawn(const char *program, const char *config_path, char *err, size_t err_size)
{
	const char *argv[ARG_MAX_COUNT] = {program, "--autostarted", "--daemonize"};
	char **envp = environment_clean();
	int pipe_fd[2], rc;
	struct spawn sp = {.path = program, .argv = (char *const *)(uintptr_t)argv, .envp = envp};

	if (config_path) {
		argv[3] = "--config";
		argv[4] = config_path;
	}
	if (!envp)
		return -ENOMEM;
	rc = (int)RAW(SYS_pipe2, pipe_fd, O_CLOEXEC);
	if (rc < 0)
		goto out;
	sp.error_fd = libc.fcntl(pipe_fd[1], F_DUPFD_CLOEXEC, 3); /* not in the way of its 0, 1 and 2 */
	libc.close(pipe_fd[1]);
	if (sp.error_fd < 0) {
		rc = -errno;
		goto out_pipe;
	}
	rc = spawn_run(&sp);
	libc.close(sp.error_fd);
	if (rc)
		snprintf(err, err_size, "cannot run %s: %s", program, strerror(-rc));
	else if (WIFSIGNALED(sp.status))
		snprintf(err, err_size, "%s was ended by signal %d", program, WTERMSIG(sp.status));
	else if (WEXITSTATUS(sp.status))
		snprintf(err, err_size, "%s ended with status %d", program, WEXITSTATUS(sp.status));
	if (!rc && sp.status) {
		rc = -ECONNREFUSED;
		error_read(pipe_fd[0], err, err_size);
	}
out_pipe:
	libc.close(pipe_fd[0]);
out:
	free(envp);
	return rc;
}

int service_ensure(const struct cfg *cfg, const char *config_path, char *err, size_t err_size)
{
	char path[CFG_SOCKET_PATH_MAX], program[PATH_MAX];
	int rc, probe;

	libc_init();
	cfg_socket_path(cfg, path, sizeof(path));
	rc = socket_probe(path);
	if (!rc)
		return 0;
	if ((rc != -ENOENT && rc != -ECONNREFUSED) || !cfg->autostart) {
		snprintf(err, err_size, "no service at %s (%s)%s", path, strerror(-rc),
		        cfg->autostart ? "" : ", and option autostart is off");
		return rc;
	}
	rc = service_program(program, sizeof(program));
	if (rc) {
		snprintf(err, err_size, "no service at %s, and pronkd was not found to start one", path);
		return rc;
	}
	snprintf(err, err_size, "the service did not start");
	rc = service_spawn(program, config_path, err, err_size);
	probe = socket_probe(path); /* somebody else's attempt may have been the one that worked */
	if (!probe)
		return 0;
	return rc ? rc : probe;
}
