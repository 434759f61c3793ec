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
#include "ready.h"
#include "wait.h"
#include "epoll_set.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct proc proc = {.base_fd = -1, .fork_slot = UINT32_MAX};
struct endpoint proc_no_ep = {.state = EP_BOUND, .listener = UINT32_MAX, .parent = ENDPOINT_NONE};
int (*proc_starter)(const struct cfg *cfg, const char *config_path, char *err, size_t err_size);

enum { INTERNAL_MAX = 1024 };
static _Atomic int internal_fds[INTERNAL_MAX]; /* fd + 1; 0 = free */
static _Atomic int internal_used;              /* slots below this may be taken */

void proc_internal_fd_add(int fd)
{
	for (int i = 0; i < INTERNAL_MAX; i++) {
		int none = 0;

		if (!atomic_compare_exchange_strong(&internal_fds[i], &none, fd + 1))
			continue;
		for (int used = atomic_load(&internal_used); used <= i;)
			if (atomic_compare_exchange_weak(&internal_used, &used, i + 1))
				break;
		return;
	}
}

void proc_internal_fd_remove(int fd)
{
	for (int i = 0; i < atomic_load(&internal_used); i++) {
		int want = fd + 1;

		if (atomic_compare_exchange_strong(&internal_fds[i], &want, 0))
			return;
	}
}

bool proc_is_internal_fd(int fd)
{
	int used = atomic_load_explicit(&internal_used, memory_order_acquire);

	for (int i = 0; i < used; i++)
		if (atomic_load_explicit(&internal_fds[i], memory_order_relaxed) == fd + 1)
			return true;
	return false;
}

int proc_next_internal_fd(int first)
{
	int used = atomic_load(&internal_used), best = -1;

	for (int i = 0; i < used; i++) {
		int fd = atomic_load(&internal_fds[i]) - 1;

		if (fd >= first && (best < 0 || fd < best))
			best = fd;
	}
	return best;
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

static int join(char *err, size_t err_size)
{
	const char *path = cfg_default_path();
	const char *socket_path = getenv("PRONK_SOCKET");
	int fd, rc = cfg_load(&proc.cfg, path, err, err_size);

	if (rc)
		return rc;
	proc.strict = proc.cfg.strict;
	if (socket_path && *socket_path)
		snprintf(proc.socket_path, sizeof(proc.socket_path), "%s", socket_path);
	else
		cfg_socket_path(&proc.cfg, proc.socket_path, sizeof(proc.socket_path));
	rc = attach_join(&proc.at, proc.socket_path, CTL_CLIENT, err, err_size);
	if ((rc == -ENOENT || rc == -ECONNREFUSED) && proc.cfg.autostart && proc_starter && !socket_path) {
		rc = proc_starter(&proc.cfg, path, err, err_size);
		if (!rc)
			rc = attach_join(&proc.at, proc.socket_path, CTL_CLIENT, err, err_size);
	}
	if (rc)
		return rc;
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
	proc.spin_ns = proc.at.arena.hdr->app_spin_us * 1000ull;
	proc.strict = proc.at.arena.hdr->strict;
	internal_fds_join(true);
	proc_greet();
	return 0;
}

bool proc_attach(void)
{
	static bool has_handlers;
	int state = atomic_load_explicit(&proc.state, memory_order_acquire), rc, saved = errno;

	if (state != PROC_NEW)
		return state == PROC_ATTACHED;
	spin_lock(&proc.lock);
	if (atomic_load(&proc.state) != PROC_NEW) {
		spin_unlock(&proc.lock);
		return proc_is_attached();
	}
	rc = join(proc.reason, sizeof(proc.reason));
	if (rc) {
		log_warning("%s; the kernel serves this program's sockets", proc.reason);
		atomic_store(&proc.state, PROC_KERNEL);
	} else {
		if (!has_handlers)
			pthread_atfork(proc_fork_prepare, proc_fork_parent, proc_fork_child);
		has_handlers = true;
		atomic_store(&proc.state, PROC_ATTACHED);
	}
	spin_unlock(&proc.lock);
	errno = saved;
	return !rc;
}

void proc_fallback_add(int fd, int family, int type, const char *reason)
{
	struct fallback *f;

	log_debug("fd %d stays with the kernel: %s", fd, reason);
	if (!proc_is_attached() || proc_is_dead())
		return;
	f = proc.at.client->fallback;
	for (int i = 0; i < FALLBACK_COUNT; i++) {
		int none = -1;

		if (atomic_load(&f[i].fd) != fd && !atomic_compare_exchange_strong(&f[i].fd, &none, -2))
			continue;
		f[i].family = (uint16_t)family;
		f[i].type = (uint16_t)type;
		snprintf(f[i].reason, sizeof(f[i].reason), "%s", reason);
		atomic_store(&f[i].fd, fd);
		return;
	}
}

void proc_fallback_remove(int fd)
{
	struct fallback *f;

	if (!proc_is_attached())
		return;
	f = proc.at.client->fallback;
	for (int i = 0; i < FALLBACK_COUNT; i++) {
		int want = fd;

		if (atomic_compare_exchange_strong(&f[i].fd, &want, -1))
			return;
	}
}

static bool fork_locked; /* prepare took the locks */

static void fork_hold(uint32_t ep)
{
	hold_set(&proc.at.arena, proc.fork_slot, ep);
}

/* The child's references are counted before it runs: its slot and its holds are made here, in the parent. */
void proc_fork_prepare(void)
{
	const struct arena *a = &proc.at.arena;

	proc.fork_slot = UINT32_MAX;
	fork_locked = proc_is_attached() && !proc_is_dead();
	if (!fork_locked)
		return;
	epoll_fork_prepare();
	spin_lock(&proc.lock);
	file_fork_prepare();
	for (uint32_t i = 0; i < a->client_count; i++) {
		struct client *c = arena_client(a, i);
		uint32_t none = CLIENT_FREE;

		if (!atomic_compare_exchange_strong(&c->state, &none, CLIENT_FORKING))
			continue;
		atomic_store(&c->pid,
		        -1); /* not known yet: the service waits for the child to come, or reaps the slot */
		proc.fork_slot = i;
		/* what the table holds, not our bits: a socket closed a moment ago is not the child's */
		file_each_ep(fork_hold);
		break;
	}
}

void proc_fork_parent(void)
{
	if (!fork_locked)
		return;
	file_fork_done(false);
	spin_unlock(&proc.lock);
	epoll_fork_parent();
}

void proc_fork_child(void)
{
	if (!proc_is_attached())
		return;
	if (fork_locked) {
		file_fork_done(true);
		spin_unlock(&proc.lock);
	}
	wait_fork_child();
	proc_internal_fd_remove(proc.at.ctl_fd);
	epoll_fork_child();
	if (proc_is_dead())
		return;
	if (proc.fork_slot == UINT32_MAX) {
		log_warning("no room for another process: the sockets of process %d end here", getpid());
		libc.close(proc.at.ctl_fd);
		atomic_store(&proc.at.is_dead, 1);
		return;
	}
	if (attach_rejoin(&proc.at, proc.socket_path, proc.fork_slot))
		log_warning("process %d cannot join the service after fork", getpid());
	else {
		proc_internal_fd_add(proc.at.ctl_fd);
		proc_greet();
	}
}
