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
#include "sock.h"
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

struct proc proc = {.base_fd = -1, .near = &services[0].at};
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
	proc.near->driver = NULL;
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

const struct driver_host proc_driver_host = {
        .cfg_size = sizeof(struct cfg),
        .arena_version = ARENA_VERSION,
        .inside = inside,
        .close_fds = engine_close_fds,
        .fork = engine_fork,
};

void proc_leave(bool is_end)
{
	int saved = errno, cancel, rc;

	if (likely(!proc.near->driver) || !proc_is_attached() || attach_is_dead(proc.near))
		return;
	if (attach_is_driving(proc.near)) {
		log_warning(
		        "the program ends in a signal handler, in the middle of the stack's work: its connections end");
		return;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	rc = proc.near->driver->keep(is_end);
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
	struct cfg_files files;
} config;

/* With the lock. */
static void config_read(void)
{
	if (atomic_load(&config.is_read))
		return;
	config.rc = cfg_files_find(&config.files, config.err, sizeof(config.err));
	if (!config.rc)
		config.rc = cfg_load(&proc.cfg, config.files.count ? config.files.path[0] : NULL, config.err,
		        sizeof(config.err));
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

/* Whether one of the program's other files leads to this control socket. Reads them each time: only sockets
 * that come from somewhere else are asked about. */
static bool others_name(const char *socket_path)
{
	struct cfg *cfg = config.files.count > 1 ? calloc(1, sizeof(*cfg)) : NULL;
	char path[CFG_SOCKET_PATH_MAX], err[sizeof(proc.reason)];
	bool is_found = false;

	for (unsigned i = 1; cfg && i < config.files.count && !is_found; i++) {
		if (cfg_load(cfg, config.files.path[i], err, sizeof(err)))
			continue;
		service_path_find(cfg, path, sizeof(path));
		is_found = !strcmp(socket_path, path);
	}
	free(cfg);
	return is_found;
}

bool proc_is_service(const char *socket_path)
{
	char path[CFG_SOCKET_PATH_MAX];
	const struct cfg *cfg;

	for (uint32_t i = 0; i < service_count(); i++)
		if (!strcmp(socket_path, services[i].socket_path))
			return true;
	cfg = atomic_load(&proc.state) == PROC_NEW ? proc_config() : NULL;
	if (!cfg)
		return false;
	service_path_find(cfg, path, sizeof(path));
	return !strcmp(socket_path, path) || others_name(socket_path);
}

/* --- what the kernel serves --- */

/* As struct client has them, until this process is a client. */
static _Atomic(struct fallback *) early;

/* The first service that lives shows them. */
static struct fallback *fallbacks_shared(void)
{
	for (uint32_t i = 0; i < service_count(); i++)
		if (!attach_is_dead(&services[i].at))
			return services[i].at.client->fallback;
	return NULL;
}

/* Where to remember; NULL: nowhere. make: also when nothing is remembered yet. */
static struct fallback *fallbacks(bool make)
{
	struct fallback *list, *none = NULL;
	int state = atomic_load_explicit(&proc.state, memory_order_acquire);

	if (state != PROC_NEW)
		return state == PROC_ATTACHED ? fallbacks_shared() : NULL;
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
	struct fallback *f = atomic_load(&early), *to = fallbacks_shared();

	for (int i = 0; f && to && i < FALLBACK_COUNT; i++) {
		int fd = atomic_load(&f[i].fd);

		if (fd >= 0)
			fallback_put(to, fd, f[i].family, f[i].type, f[i].reason);
	}
}

/* --- joining --- */

/* With the lock: the service of one more file. What is wrong with it, the kernel serves. */
static void join_other(const struct cfg_files *files, unsigned i)
{
	uint32_t count = service_count();
	char path[CFG_SOCKET_PATH_MAX], err[CFG_FILE_PATH_MAX + sizeof(proc.reason)];
	struct cfg *cfg = calloc(1, sizeof(*cfg));
	int rc = cfg ? cfg_load(cfg, files->path[i], err, sizeof(err)) : -ENOMEM;

	if (!cfg)
		snprintf(err, sizeof(err), "%s: no memory", files->path[i]);
	if (!rc) {
		service_path_find(cfg, path, sizeof(path));
		for (uint32_t n = 0; n < count; n++)
			if (!strcmp(path, services[n].socket_path)) {
				snprintf(err, sizeof(err), "%s: another file has the name %s already",
				        files->path[i], cfg->name);
				rc = -EEXIST;
			}
	}
	if (!rc)
		rc = service_join(&services[count], cfg, files->path[i], err, sizeof(err));
	if (!rc)
		atomic_store(&services_joined, count + 1);
	else
		log_warning("%s; the kernel serves what would go there", err);
	free(cfg);
}

static int join(char *err, size_t err_size)
{
	int fd, rc;

	config_read();
	if (config.rc) {
		snprintf(err, err_size, "%s", config.err);
		return config.rc;
	}
	proc.strict = proc.cfg.strict;
	/* the process may be the child of one whose other thread was in here */
	atomic_store(&services_joined, 0);
	proc.main = proc.local = NULL;
	if (proc.base_fd < 0) {
		fd = libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		proc.base_fd = fd < 0 ? -1 : libc.fcntl(fd, F_DUPFD_CLOEXEC, 100);
		if (proc.base_fd >= 0)
			libc.close(fd);
		else
			proc.base_fd = fd;
	}
	if (proc.base_fd < 0) {
		rc = -errno;
		snprintf(err, err_size, "no descriptors: %s", strerror(errno));
		return rc;
	}
	rc = service_join(
	        &services[0], &proc.cfg, config.files.count ? config.files.path[0] : NULL, err, err_size);
	if (!rc) {
		atomic_store(&services_joined, 1);
		proc.main = &services[0];
		if (services[0].at.arena.hdr->loopback)
			proc.local = &services[0];
	} else if (config.files.count > 1) {
		log_warning("%s; the kernel serves what would go there", err);
	}
	for (unsigned i = 1; i < config.files.count && !service_is_named(); i++)
		join_other(&config.files, i);
	if (!service_count()) {
		libc.close(proc.base_fd);
		proc.base_fd = -1;
		return rc;
	}
	proc_internal_fd_add(proc.base_fd);
	if (proc.near->driver) {
		atexit(leave_at_exit);
		at_quick_exit(leave_at_exit);
	}
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
	return state != PROC_KERNEL && proc.local && !attach_is_dead(&proc.local->at);
}

static __thread bool fork_locked; /* prepare took the locks. Another thread may be in its prepare meanwhile */

/* The child's references are counted before it runs: its slots and its holds are made here, in the parent. */
void proc_fork_prepare(void)
{
	if (is_engine_fork)
		return;
	fork_locked = proc_is_attached() && !proc_is_dead();
	if (!fork_locked) {
		spare_fork_prepare();
		return;
	}
	if (proc.near->driver)
		proc.near->driver->fork_prepare();
	epoll_fork_prepare();
	spare_fork_prepare();
	spin_lock(&proc.lock);
	file_fork_prepare();
	for (uint32_t i = 0; i < service_count(); i++)
		if (!attach_is_dead(&services[i].at))
			service_fork_prepare(&services[i]);
	/* what the table holds, not our bits: a socket closed a moment ago is not the child's */
	file_each_ep(service_fork_hold);
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
	if (proc.near->driver)
		proc.near->driver->fork_parent();
}

void proc_fork_child(void)
{
	if (is_engine_fork)
		return;
	spare_fork_done(true);
	accept_fork_child();
	if (!fork_locked) /* its holder, if there was one, is a thread of the parent's */
		atomic_store(&proc.lock, 0);
	if (!proc_is_attached()) {
		/* another thread was about to join */
		atomic_store(&services_joined, 0);
		if (proc.near->driver)
			proc.near->driver->fork_child();
		proc.near->driver = NULL;
		return;
	}
	if (fork_locked) {
		file_fork_done(true);
		spin_unlock(&proc.lock);
		if (proc.near->driver)
			proc.near->driver->fork_child();
	}
	proc.near->driver = NULL; /* the stack is the parent's */
	wait_fork_child();
	epoll_fork_child();
	for (uint32_t i = 0; i < service_count(); i++) {
		if (!fork_locked) /* the slot of a child that another thread was about to make */
			services[i].fork_slot = UINT32_MAX;
		service_fork_child(&services[i]);
	}
}
