/* proc.c - this process's membership: config, joining, fork, internal descriptors, and the list of sockets
 * left to the kernel.
 *
 * Runs in application threads. Nothing happens before the first listen or connect that could be Pronk's: a
 * program that opens no such socket pays for nothing and prints nothing.
 */
#include "proc.h"
#include "file.h"
#include "libc.h"
#include "log.h"
#include "raw.h"
#include "ready.h"
#include "rule.h"
#include "spare.h"
#include "wait.h"
#include "epoll_set.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

struct proc proc = {.base_fd = -1, .fork_slot = UINT32_MAX};
struct endpoint proc_no_ep = {.state = EP_BOUND, .listener = UINT32_MAX, .parent = ENDPOINT_NONE};
int (*proc_starter)(const struct cfg *cfg, const char *config_path, char *err, size_t err_size);

int (*proc_inline_starter)(const struct cfg *cfg, const struct driver_host *host, struct driver **out,
        char *err, size_t err_size);

/* One bit for each number; those above are never ours. Pages of it that nobody touches take no memory. */
enum { INTERNAL_MAX = 1 << 20, WORD = 64 };
static _Atomic uint64_t internal_fds[INTERNAL_MAX / WORD];
static _Atomic int internal_end; /* no number from here on */

void proc_internal_fd_add(int fd)
{
	if ((unsigned)fd >= INTERNAL_MAX)
		return;
	atomic_fetch_or(&internal_fds[fd / WORD], 1ull << (fd % WORD));
	for (int end = atomic_load(&internal_end); end <= fd;)
		if (atomic_compare_exchange_weak(&internal_end, &end, fd + 1))
			break;
}

void proc_internal_fd_remove(int fd)
{
	if ((unsigned)fd < INTERNAL_MAX)
		atomic_fetch_and(&internal_fds[fd / WORD], ~(1ull << (fd % WORD)));
}

bool proc_is_internal_fd(int fd)
{
	return (unsigned)fd < (unsigned)atomic_load_explicit(&internal_end, memory_order_acquire) &&
	       (atomic_load_explicit(&internal_fds[fd / WORD], memory_order_relaxed) >> (fd % WORD) & 1);
}

int proc_next_internal_fd(int first)
{
	int end = atomic_load(&internal_end);

	for (int fd = first < 0 ? 0 : first; fd < end; fd++) {
		uint64_t word = atomic_load(&internal_fds[fd / WORD]) >> (fd % WORD);

		if (word)
			return fd + __builtin_ctzll(word);
		fd |= WORD - 1;
	}
	return -1;
}

static void internal_fds_join(bool add)
{
	void (*f)(int) = add ? proc_internal_fd_add : proc_internal_fd_remove;

	f(proc.at.ctl_fd);
	f(proc.at.arena.fd);
	f(proc.at.stats_fd);
	f(proc.base_fd);
	for (uint32_t i = 0; i < proc.at.arena.stack_count; i++)
		f(proc.at.stack_fd[i]);
}

/* Lets every stack know us, so that send blocks are granted before the first write. */
static void proc_greet(void)
{
	for (uint32_t i = 0; i < proc.at.arena.stack_count; i++)
		post(&proc.at, i, POST_ENTRY(POST_NONE, 0, 0));
}

static void socket_path_find(const struct cfg *cfg, char *buf, size_t size)
{
	const char *env = getenv("PRONK_SOCKET");

	if (env && *env)
		snprintf(buf, size, "%s", env);
	else
		cfg_socket_path(cfg, buf, size);
}

bool proc_is_service(const char *socket_path)
{
	char path[CFG_SOCKET_PATH_MAX];
	const struct cfg *cfg;

	if (proc_is_attached())
		return !strcmp(socket_path, proc.socket_path);
	cfg = atomic_load(&proc.state) == PROC_NEW ? proc_config() : NULL;
	if (!cfg)
		return false;
	socket_path_find(cfg, path, sizeof(path));
	return !strcmp(socket_path, path);
}

/* --- the engine in this process --- */

static void inside(bool is_inside)
{
	libc_inside = is_inside;
}

static _Atomic uint64_t
        engine_fds[INTERNAL_MAX / WORD]; /* those of the internal ones that are the engine's */

void proc_engine_fd_add(int fd)
{
	proc_internal_fd_add(fd);
	if ((unsigned)fd < INTERNAL_MAX)
		atomic_fetch_or(&engine_fds[fd / WORD], 1ull << (fd % WORD));
}

void proc_engine_fd_remove(int fd)
{
	if ((unsigned)fd < INTERNAL_MAX)
		atomic_fetch_and(&engine_fds[fd / WORD], ~(1ull << (fd % WORD)));
	proc_internal_fd_remove(fd);
}

static int engine_fd_next(int first)
{
	int end = atomic_load(&internal_end);

	for (int fd = first; fd < end; fd++) {
		uint64_t word = atomic_load(&engine_fds[fd / WORD]) >> (fd % WORD);

		if (word)
			return fd + __builtin_ctzll(word);
		fd |= WORD - 1;
	}
	return -1;
}

/* of_engine false: in a process that is nothing but the engine from now on. */
static void engine_close_fds(bool of_engine)
{
	int from = 0, fd, null;

	for (fd = engine_fd_next(0); fd >= 0; fd = engine_fd_next(fd + 1)) {
		if (of_engine) {
			proc_engine_fd_remove(fd);
			libc.close(fd);
			continue;
		}
		if (fd > from)
			RAW(SYS_close_range, from, fd - 1, 0);
		from = fd + 1;
	}
	if (of_engine)
		return;
	RAW(SYS_close_range, from, ~0u, 0);
	/* The copied table tells of the application's sockets. A number that is handed out here must not end
	 * one of them, and a thread that does not exist here may have held a lock. */
	file_forget_all();
	proc.at.driver = NULL;
	atomic_store(&proc.state, PROC_KERNEL);
	for (int i = 0; i <= STDERR_FILENO; i++) {
		null = (int)RAW(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR);
		if (null > STDERR_FILENO)
			RAW(SYS_close, null);
	}
}

static __thread bool is_engine_fork;

static int engine_fork(void)
{
	int pid;

	is_engine_fork = true;
	pid = libc.fork();
	is_engine_fork = false;
	return pid;
}

static const struct driver_host driver_host = {
        .cfg_size = sizeof(struct cfg),
        .arena_version = ARENA_VERSION,
        .inside = inside,
        .close_fds = engine_close_fds,
        .fork = engine_fork,
};

void proc_leave(bool is_end)
{
	int saved = errno, cancel, rc;

	if (likely(!proc.at.driver) || !proc_is_attached() || proc_is_dead())
		return;
	if (attach_is_driving(&proc.at)) {
		log_warning(
		        "the program ends in a signal handler, in the middle of the stack's work: its connections end");
		return;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	rc = proc.at.driver->keep(is_end);
	if (rc)
		log_warning("the stack ends with this program: %s", strerror(-rc));
	pthread_setcancelstate(cancel, NULL);
	errno = saved;
}

static void leave_at_exit(void)
{
	proc_leave(true);
}

/* --- the configuration --- */

static struct {
	_Atomic bool is_read;
	int rc;
	char err[sizeof(proc.reason)]; /* when rc < 0 */
} config;

/* With the lock. */
static void config_read(void)
{
	if (atomic_load(&config.is_read))
		return;
	config.rc = cfg_load(&proc.cfg, cfg_default_path(), config.err, sizeof(config.err));
	if (!config.rc) {
		log_level_set((enum log_level)proc.cfg.log_level);
		rule_prepare(&proc.cfg);
	}
	atomic_store_explicit(&config.is_read, true, memory_order_release);
}

/* Takes the lock, where a thread stays until it has done what is done once. Returns the state for start_done.
 */
static int start_begin(void)
{
	static _Atomic bool has_handlers;
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	spin_lock(&proc.lock);
	/* first: another thread may fork while this one is at it */
	if (!atomic_exchange(&has_handlers, true))
		pthread_atfork(proc_fork_prepare, proc_fork_parent, proc_fork_child);
	return cancel;
}

static void start_done(int cancel)
{
	spin_unlock(&proc.lock);
	pthread_setcancelstate(cancel, NULL);
}

const struct cfg *proc_config(void)
{
	int saved = errno;

	if (unlikely(!atomic_load_explicit(&config.is_read, memory_order_acquire))) {
		int cancel = start_begin();

		config_read();
		start_done(cancel);
		errno = saved;
	}
	return config.rc ? NULL : &proc.cfg;
}

/* --- what the kernel serves --- */

/* As struct client has them, until this process is a client. */
static _Atomic(struct fallback *) early;

/* Where to remember; NULL: nowhere. make: also when nothing is remembered yet. */
static struct fallback *fallbacks(bool make)
{
	struct fallback *list, *none = NULL;
	int state = atomic_load_explicit(&proc.state, memory_order_acquire);

	if (state != PROC_NEW)
		return state == PROC_ATTACHED && !proc_is_dead() ? proc.at.client->fallback : NULL;
	list = atomic_load(&early);
	if (list || !make)
		return list;
	list = calloc(FALLBACK_COUNT, sizeof(*list));
	for (int i = 0; list && i < FALLBACK_COUNT; i++)
		atomic_init(&list[i].fd, -1);
	if (list && !atomic_compare_exchange_strong(&early, &none, list)) {
		free(list);
		list = none;
	}
	return list;
}

static void fallback_put(struct fallback *f, int fd, uint16_t family, uint16_t type, const char *reason)
{
	for (int i = 0; i < FALLBACK_COUNT; i++) {
		int none = -1;

		if (atomic_load(&f[i].fd) != fd && !atomic_compare_exchange_strong(&f[i].fd, &none, -2))
			continue;
		f[i].family = family;
		f[i].type = type;
		snprintf(f[i].reason, sizeof(f[i].reason), "%s", reason);
		atomic_store(&f[i].fd, fd);
		return;
	}
}

void proc_fallback_add(int fd, int family, int type, const char *reason)
{
	struct fallback *f = fallbacks(true);

	log_debug("fd %d stays with the kernel: %s", fd, reason);
	if (!f)
		return;
	fallback_put(f, fd, (uint16_t)family, (uint16_t)type, reason);
	/* another thread has joined meanwhile, and may have looked before this one was there */
	if (f == atomic_load(&early) && (f = fallbacks(false)) && f != atomic_load(&early))
		fallback_put(f, fd, (uint16_t)family, (uint16_t)type, reason);
}

void proc_fallback_remove(int fd)
{
	struct fallback *f = fallbacks(false);

	for (int i = 0; f && i < FALLBACK_COUNT; i++) {
		int want = fd;

		if (atomic_compare_exchange_strong(&f[i].fd, &want, -1))
			return;
	}
}

/* This process has joined. The early list stays: another thread may be looking at it. */
static void fallbacks_hand_over(void)
{
	struct fallback *f = atomic_load(&early);

	for (int i = 0; f && i < FALLBACK_COUNT; i++) {
		int fd = atomic_load(&f[i].fd);

		if (fd >= 0)
			fallback_put(proc.at.client->fallback, fd, f[i].family, f[i].type, f[i].reason);
	}
}

/* --- joining --- */

enum { JOIN_TRIES = 10 };

static int join(char *err, size_t err_size)
{
	struct driver *driver = NULL;
	const char *path = cfg_default_path();
	const char *socket_path = getenv("PRONK_SOCKET");
	int fd, rc;

	config_read();
	if (config.rc) {
		snprintf(err, err_size, "%s", config.err);
		return config.rc;
	}
	proc.strict = proc.cfg.strict;
	socket_path_find(&proc.cfg, proc.socket_path, sizeof(proc.socket_path));
	for (int i = 0; i < JOIN_TRIES; i++) {
		const struct timespec nap = {.tv_nsec = 1000000};

		rc = attach_join(&proc.at, proc.socket_path, CTL_CLIENT, err, err_size);
		if ((rc == -ENOENT || rc == -ECONNREFUSED) && proc.cfg.autostart && !socket_path) {
			if (proc.cfg.mode == CFG_MODE_INLINE && proc_inline_starter)
				rc = proc_inline_starter(&proc.cfg, &driver_host, &driver, err, err_size);
			else if (proc_starter)
				rc = proc_starter(&proc.cfg, path, err, err_size);
			if (!rc || rc == -EALREADY)
				rc = attach_join(&proc.at, proc.socket_path, CTL_CLIENT, err, err_size);
		}
		/* a service that had just decided to end: there will be another */
		if (rc != -ECONNRESET && rc != -EPIPE)
			break;
		libc.ppoll(NULL, 0, &nap, NULL);
	}
	if (rc)
		return rc;
	proc.at.driver = driver;
	if (driver) {
		atexit(leave_at_exit);
		at_quick_exit(leave_at_exit);
	}
	fd = libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		proc.base_fd = libc.fcntl(fd, F_DUPFD_CLOEXEC, 100);
		if (proc.base_fd >= 0)
			libc.close(fd);
		else
			proc.base_fd = fd;
	}
	proc.watch_item = mmap(NULL, proc.at.arena.watch_count * sizeof(void *), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (proc.base_fd < 0 || proc.watch_item == MAP_FAILED) {
		rc = -errno;
		snprintf(err, err_size, "no memory or descriptors: %s", strerror(errno));
		attach_leave(&proc.at);
		return rc;
	}
	internal_fds_join(true);
	proc_greet();
	return 0;
}

bool proc_attach(void)
{
	int state = atomic_load_explicit(&proc.state, memory_order_acquire), rc, saved = errno, cancel;

	if (state != PROC_NEW)
		return state == PROC_ATTACHED;
	cancel = start_begin();
	if (atomic_load(&proc.state) != PROC_NEW) {
		start_done(cancel);
		return proc_is_attached();
	}
	rc = join(proc.reason, sizeof(proc.reason));
	if (rc) {
		log_warning("%s; the kernel serves this program's sockets", proc.reason);
		atomic_store(&proc.state, PROC_KERNEL);
	} else {
		atomic_store(&proc.state, PROC_ATTACHED);
		fallbacks_hand_over();
	}
	start_done(cancel);
	errno = saved;
	return !rc;
}

bool proc_serves_loopback(void)
{
	int state = atomic_load_explicit(&proc.state, memory_order_acquire);
	const struct cfg *cfg;

	/* a program that uses nothing but loopback addresses must not join, or even start, a service that has
	 * nothing to do with them: so the configuration is looked at before */
	if (state == PROC_NEW) {
		cfg = proc_config();
		if (!cfg || cfg->loopback != CFG_LOOPBACK_PRONK || !proc_attach())
			return false;
	}
	return state != PROC_KERNEL && !proc_is_dead() && proc.at.arena.hdr->loopback;
}

static __thread bool fork_locked; /* prepare took the locks. Another thread may be in its prepare meanwhile */

static void fork_hold(uint32_t ep)
{
	hold_set(&proc.at.arena, proc.fork_slot, ep);
}

/* The child's references are counted before it runs: its slot and its holds are made here, in the parent. */
void proc_fork_prepare(void)
{
	const struct arena *a = &proc.at.arena;

	if (is_engine_fork)
		return;
	fork_locked = proc_is_attached() && !proc_is_dead();
	if (!fork_locked) {
		spare_fork_prepare();
		return;
	}
	if (proc.at.driver)
		proc.at.driver->fork_prepare();
	epoll_fork_prepare();
	spare_fork_prepare();
	spin_lock(&proc.lock);
	file_fork_prepare();
	proc.fork_slot = UINT32_MAX;
	for (uint32_t i = 0; i < a->client_count; i++) {
		struct client *c = arena_client(a, i);
		uint32_t none = CLIENT_FREE;

		if (!atomic_compare_exchange_strong(&c->state, &none, CLIENT_FORKING))
			continue;
		atomic_store(&c->pid,
		        -1); /* not known yet: the service waits for the child to come, or reaps the slot */
		client_seen(a, i);
		proc.fork_slot = i;
		/* what the table holds, not our bits: a socket closed a moment ago is not the child's */
		file_each_ep(fork_hold);
		break;
	}
}

void proc_fork_parent(void)
{
	if (is_engine_fork)
		return;
	if (!fork_locked) {
		spare_fork_done(false);
		return;
	}
	file_fork_done(false);
	spin_unlock(&proc.lock);
	spare_fork_done(false);
	epoll_fork_parent();
	if (proc.at.driver)
		proc.at.driver->fork_parent();
}

/* The child has the descriptors that the kernel serves, too. */
static void fallback_inherit(const struct client *parent)
{
	for (int i = 0; i < FALLBACK_COUNT; i++) {
		const struct fallback *from = &parent->fallback[i];
		struct fallback *to = &proc.at.client->fallback[i];
		int fd = atomic_load(&from->fd);

		if (fd < 0)
			continue;
		to->family = from->family;
		to->type = from->type;
		memcpy(to->reason, from->reason, sizeof(to->reason));
		to->reason[sizeof(to->reason) - 1] = 0;
		atomic_store(&to->fd, fd);
	}
}

void proc_fork_child(void)
{
	const struct client *parent = proc.at.client;

	if (is_engine_fork)
		return;
	spare_fork_done(true);
	if (!fork_locked) /* its holder, if there was one, is a thread of the parent's */
		atomic_store(&proc.lock, 0);
	if (!proc_is_attached())
		return;
	if (fork_locked) {
		file_fork_done(true);
		spin_unlock(&proc.lock);
		if (proc.at.driver)
			proc.at.driver->fork_child();
	}
	proc.at.driver = NULL; /* the stack is the parent's */
	wait_fork_child();
	proc_internal_fd_remove(proc.at.ctl_fd);
	epoll_fork_child();
	if (proc_is_dead())
		return;
	if (!fork_locked || proc.fork_slot == UINT32_MAX) {
		log_warning("no room for another process: the sockets of process %d end here", getpid());
		libc.close(proc.at.ctl_fd);
		atomic_store(&proc.at.is_dead, 1);
		return;
	}
	if (attach_rejoin(&proc.at, proc.socket_path, proc.fork_slot))
		log_warning("process %d cannot join the service after fork", getpid());
	else {
		proc_internal_fd_add(proc.at.ctl_fd);
		fallback_inherit(parent);
		proc_greet();
	}
}
