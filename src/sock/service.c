/* service.c - joining one service of this process, and taking part in it across fork(2).
 *
 * Runs in application threads, under the lock of proc.c. Which services there are, and what happens when none
 * can be joined, is proc.c's business.
 */
#include "service.h"
#include "file.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "ready.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { JOIN_TRIES = 10 };

struct service services[SERVICE_MAX];
_Atomic uint32_t services_joined;
struct endpoint service_no_ep = {.state = EP_BOUND, .listener = UINT32_MAX, .parent = ENDPOINT_NONE};

static void internal_fds_add(const struct service *s)
{
	proc_internal_fd_add(s->at.ctl_fd);
	proc_internal_fd_add(s->at.arena.fd);
	proc_internal_fd_add(s->at.stats_fd);
	for (uint32_t i = 0; i < s->at.arena.stack_count; i++)
		proc_internal_fd_add(s->at.stack_fd[i]);
}

/* Lets every stack know us, so that send blocks are granted before the first write. */
static void greet(struct service *s)
{
	for (uint32_t i = 0; i < s->at.arena.stack_count; i++)
		post(&s->at, i, POST_ENTRY(POST_NONE, 0, 0));
}

bool service_is_named(void)
{
	const char *env = getenv("PRONK_SOCKET");

	return env && *env;
}

void service_path_find(const struct cfg *cfg, char *buf, size_t size)
{
	if (service_is_named())
		snprintf(buf, size, "%s", getenv("PRONK_SOCKET"));
	else
		cfg_socket_path(cfg, buf, size);
}

/* Starts the service where the configuration wants it. */
static int start(
        const struct cfg *cfg, const char *config_path, struct driver **driver, char *err, size_t err_size)
{
	if (cfg->mode == CFG_MODE_INLINE && proc_inline_starter) {
		if (proc.near->driver) {
			snprintf(err, err_size,
			        "%s: mode = inline: the stack of another configuration is in this program already",
			        config_path ? config_path : "the configuration");
			return -ENOTSUP;
		}
		return proc_inline_starter(cfg, &proc_driver_host, driver, err, err_size);
	}
	return proc_starter ? proc_starter(cfg, config_path, err, err_size) : -ENOENT;
}

int service_join(
        struct service *s, const struct cfg *cfg, const char *config_path, char *err, size_t err_size)
{
	struct driver *driver = NULL;
	const struct arena *a = &s->at.arena;
	int rc = -ENOENT;

	service_path_find(cfg, s->socket_path, sizeof(s->socket_path));
	s->fork_slot = UINT32_MAX;
	for (int i = 0; i < JOIN_TRIES; i++) {
		const struct timespec nap = {.tv_nsec = 1000000};

		rc = attach_join(&s->at, s->socket_path, CTL_CLIENT, err, err_size);
		if ((rc == -ENOENT || rc == -ECONNREFUSED) && cfg->autostart && !service_is_named()) {
			rc = start(cfg, config_path, &driver, err, err_size);
			if (!rc || rc == -EALREADY)
				rc = attach_join(&s->at, s->socket_path, CTL_CLIENT, err, err_size);
		}
		/* a service that had just decided to end: there will be another */
		if (rc != -ECONNRESET && rc != -EPIPE)
			break;
		libc.ppoll(NULL, 0, &nap, NULL);
	}
	if (rc)
		return rc;
	if (a->endpoint_count >> HANDLE_BITS || a->watch_count >> HANDLE_BITS) {
		snprintf(err, err_size, "the service at %s has too many sockets for this library",
		        s->socket_path);
		attach_leave(&s->at);
		return -EPROTO;
	}
	s->watch_item = mmap(NULL, a->watch_count * sizeof(void *), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->watch_item == MAP_FAILED) {
		snprintf(err, err_size, "no memory for the sockets of the service at %s", s->socket_path);
		attach_leave(&s->at);
		return -ENOMEM;
	}
	if (driver) {
		s->at.driver = driver;
		proc.near = &s->at;
	}
	internal_fds_add(s);
	greet(s);
	return 0;
}

void service_fork_prepare(struct service *s)
{
	const struct arena *a = &s->at.arena;

	s->fork_slot = UINT32_MAX;
	for (uint32_t i = 0; i < a->client_count; i++) {
		struct client *c = arena_client(a, i);
		uint32_t none = CLIENT_FREE;

		if (!atomic_compare_exchange_strong(&c->state, &none, CLIENT_FORKING))
			continue;
		atomic_store(&c->pid,
		        -1); /* not known yet: the service waits for the child to come, or reaps the slot */
		client_seen(a, i);
		s->fork_slot = i;
		return;
	}
}

void service_fork_hold(uint32_t handle)
{
	const struct service *s = handle_service(handle);

	if (s->fork_slot != UINT32_MAX)
		hold_set(&s->at.arena, s->fork_slot, handle_index(handle));
}

/* The child has the descriptors that the kernel serves, too. */
static void fallback_inherit(struct client *own, const struct client *parent)
{
	for (int i = 0; i < FALLBACK_COUNT; i++) {
		const struct fallback *from = &parent->fallback[i];
		struct fallback *to = &own->fallback[i];
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

bool service_fork_child(struct service *s)
{
	const struct client *parent = s->at.client;
	uint32_t slot = s->fork_slot;

	s->fork_slot = UINT32_MAX;
	proc_internal_fd_remove(s->at.ctl_fd);
	if (attach_is_dead(&s->at))
		return true;
	if (slot == UINT32_MAX) {
		log_warning("no room for another process: the sockets of process %d end here", getpid());
		libc.close(s->at.ctl_fd);
		atomic_store(&s->at.is_dead, 1);
		return false;
	}
	if (attach_rejoin(&s->at, s->socket_path, slot)) {
		log_warning("process %d cannot join the service after fork", getpid());
		return false;
	}
	proc_internal_fd_add(s->at.ctl_fd);
	fallback_inherit(s->at.client, parent);
	greet(s);
	return true;
}
