/* shim_exec.c - the ways into another program: the exec family, posix_spawn, vfork.
 *
 * Every form ends in a call of libc's that takes an environment: sockets that stay open are handed over by a
 * word in it (src/sock/pass.h). posix_spawn changes numbers inside libc, in a process that shares our memory;
 * so the calls that write down these changes are taken, and remembered here. May run in the child of a fork.
 */
#include "shim.h"

#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "pass.h"

extern char **environ;

/* How each of them goes about it: prepare, call, and when that returns, undo. */
#define HAND_OVER(call_with_env, given_env)                                                                  \
	struct pass_exec x;                                                                                  \
	char *const *env = given_env;                                                                        \
	int rc;                                                                                              \
	shim_enter();                                                                                        \
	proc_leave(false);                                                                                   \
	pass_exec_prepare(&x, env, NULL, 0);                                                                 \
	if (x.env)                                                                                           \
		env = x.env;                                                                                 \
	rc = call_with_env;                                                                                  \
	pass_exec_cancel(&x);                                                                                \
	return rc

EXPORT int execve(const char *path, char *const argv[], char *const given[])
{
	HAND_OVER(libc.execve(path, argv, env), given);
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const given[])
{
	HAND_OVER(libc.execvpe(file, argv, env), given);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

EXPORT int fexecve(int fd, char *const argv[], char *const given[])
{
	HAND_OVER(libc.fexecve(fd, argv, env), given);
}

EXPORT int execveat(int dir, const char *path, char *const argv[], char *const given[], int flags)
{
	shim_enter();
	if (!libc.execveat) {
		errno = ENOSYS;
		return -1;
	}
	HAND_OVER(libc.execveat(dir, path, argv, env, flags), given);
}

/* The arguments of execl and its kin as an array, in the caller's frame. */
#define ARGS_COUNT(count, first)                                                                             \
	do {                                                                                                 \
		va_start(ap, first);                                                                         \
		for (count = 1; va_arg(ap, const char *); count++)                                           \
			;                                                                                    \
		va_end(ap);                                                                                  \
	} while (0)

static void args_take(char **argv, const char *first, size_t count, va_list ap)
{
	argv[0] = (char *)(uintptr_t)first;
	for (size_t i = 1; i <= count; i++)
		argv[i] = va_arg(ap, char *);
}

EXPORT int execl(const char *path, const char *arg, ...)
{
	char **argv;
	size_t count;
	va_list ap;

	ARGS_COUNT(count, arg);
	argv = alloca((count + 1) * sizeof(*argv));
	va_start(ap, arg);
	args_take(argv, arg, count, ap);
	va_end(ap);
	return execve(path, argv, environ);
}

EXPORT int execlp(const char *file, const char *arg, ...)
{
	char **argv;
	size_t count;
	va_list ap;

	ARGS_COUNT(count, arg);
	argv = alloca((count + 1) * sizeof(*argv));
	va_start(ap, arg);
	args_take(argv, arg, count, ap);
	va_end(ap);
	return execvpe(file, argv, environ);
}

EXPORT int execle(const char *path, const char *arg, ...)
{
	char **argv, **env;
	size_t count;
	va_list ap;

	ARGS_COUNT(count, arg);
	argv = alloca((count + 1) * sizeof(*argv));
	va_start(ap, arg);
	args_take(argv, arg, count, ap);
	env = va_arg(ap, char **);
	va_end(ap);
	return execve(path, argv, env);
}

/* --- posix_spawn --- */

/* What an application wrote into a posix_spawn_file_actions_t, as far as numbers go. */
struct actions {
	struct actions *next;
	const posix_spawn_file_actions_t *key;
	struct pass_step *step;
	int count, room;
};

static struct actions *all_actions;
static pthread_mutex_t actions_lock = PTHREAD_MUTEX_INITIALIZER;

static struct actions **actions_find(const posix_spawn_file_actions_t *key)
{
	struct actions **a = &all_actions;

	while (*a && (*a)->key != key)
		a = &(*a)->next;
	return a;
}

static void actions_forget(const posix_spawn_file_actions_t *key)
{
	struct actions **at, *a;

	pthread_mutex_lock(&actions_lock);
	at = actions_find(key);
	a = *at;
	if (a) {
		*at = a->next;
		free(a->step);
		free(a);
	}
	pthread_mutex_unlock(&actions_lock);
}

static void actions_add(const posix_spawn_file_actions_t *key, struct pass_step step)
{
	struct actions **at, *a;

	pthread_mutex_lock(&actions_lock);
	at = actions_find(key);
	a = *at;
	if (!a && (a = calloc(1, sizeof(*a)))) {
		a->key = key;
		*at = a;
	}
	if (a && a->count == a->room) {
		struct pass_step *more = realloc(a->step, (size_t)(a->room + 8) * sizeof(*more));

		if (more) {
			a->step = more;
			a->room += 8;
		}
	}
	if (a && a->count < a->room)
		a->step[a->count++] = step;
	pthread_mutex_unlock(&actions_lock);
}

EXPORT int posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions)
{
	shim_enter();
	actions_forget(actions);
	return libc.posix_spawn_file_actions_init(actions);
}

EXPORT int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions)
{
	shim_enter();
	actions_forget(actions);
	return libc.posix_spawn_file_actions_destroy(actions);
}

EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
	int rc;

	shim_enter();
	rc = libc.posix_spawn_file_actions_adddup2(actions, fd, to);
	if (!rc)
		actions_add(actions, (struct pass_step){PASS_DUP, fd, to});
	return rc;
}

EXPORT int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t *actions, int fd)
{
	int rc;

	shim_enter();
	rc = libc.posix_spawn_file_actions_addclose(actions, fd);
	if (!rc)
		actions_add(actions, (struct pass_step){PASS_CLOSE, fd, -1});
	return rc;
}

EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t *restrict actions, int fd,
        const char *restrict path, int flags, mode_t mode)
{
	int rc;

	shim_enter();
	rc = libc.posix_spawn_file_actions_addopen(actions, fd, path, flags, mode);
	if (!rc)
		actions_add(actions, (struct pass_step){PASS_CLOSE, fd, -1});
	return rc;
}

EXPORT int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from)
{
	int rc;

	shim_enter();
	if (!libc.posix_spawn_file_actions_addclosefrom_np)
		return ENOSYS;
	rc = libc.posix_spawn_file_actions_addclosefrom_np(actions, from);
	if (!rc)
		actions_add(actions, (struct pass_step){PASS_CLOSEFROM, from, -1});
	return rc;
}

static void spawn_prepare(struct pass_exec *x, const posix_spawn_file_actions_t *actions, char *const env[])
{
	struct actions *a;

	shim_enter();
	pthread_mutex_lock(&actions_lock);
	a = actions ? *actions_find(actions) : NULL;
	pass_exec_prepare(x, env, a ? a->step : NULL, a ? a->count : 0);
	pthread_mutex_unlock(&actions_lock);
}

EXPORT int posix_spawn(pid_t *restrict pid, const char *restrict path,
        const posix_spawn_file_actions_t *restrict actions, const posix_spawnattr_t *restrict attr,
        char *const argv[restrict], char *const env[restrict])
{
	struct pass_exec x;
	int rc;

	spawn_prepare(&x, actions, env);
	rc = libc.posix_spawn(pid, path, actions, attr, argv, x.env ? x.env : env);
	pass_exec_cancel(&x);
	return rc;
}

EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict file,
        const posix_spawn_file_actions_t *restrict actions, const posix_spawnattr_t *restrict attr,
        char *const argv[restrict], char *const env[restrict])
{
	struct pass_exec x;
	int rc;

	spawn_prepare(&x, actions, env);
	rc = libc.posix_spawnp(pid, file, actions, attr, argv, x.env ? x.env : env);
	pass_exec_cancel(&x);
	return rc;
}

/* --- vfork --- */

/* A vfork child shares our memory: closing its descriptors there would close the parent's sockets, and a
 * function that calls vfork must not return in the child. So it is a fork whose parent waits until the child
 * has left the image, which a close-on-exec pipe tells. What the child writes to memory is not seen. */
EXPORT pid_t vfork(void)
{
	int fds[2], high, saved;
	char c;
	pid_t pid;

	shim_enter();
	if (libc.pipe2(fds, O_CLOEXEC) < 0)
		return libc.fork();
	/* out of the way of children that close what they know */
	for (int i = 0; i < 2; i++) {
		high = libc.fcntl(fds[i], F_DUPFD_CLOEXEC, 100);
		if (high >= 0) {
			libc.close(fds[i]);
			fds[i] = high;
		}
	}
	proc_internal_fd_add(fds[1]);
	pid = libc.fork();
	if (pid == 0) {
		libc.close(fds[0]);
		return 0;
	}
	saved = errno;
	proc_internal_fd_remove(fds[1]);
	libc.close(fds[1]);
	if (pid > 0)
		while (raw_call(SYS_read, fds[0], (long)&c, 1, 0, 0, 0) == -EINTR)
			;
	libc.close(fds[0]);
	errno = saved;
	return pid;
}

/* --- the end --- */

/* exit(3) comes here inside libc, unseen: a handler that it calls has done the same (src/sock/proc.c). */
EXPORT void _exit(int status)
{
	shim_enter();
	proc_leave(true);
	libc._exit(status);
	__builtin_unreachable();
}

EXPORT void _Exit(int status)
{
	_exit(status);
}
