/* pass_exec.c - sockets that go over exec: a list of what the numbers are, in sealed memory, and a ticket at
 * each service that they are at.
 *
 * Runs in application threads; in the child of a fork before its exec, too, so memory comes from mmap. The
 * new image finds the list by PRONK_EXEC in its environment.
 */
#include "pass_int.h"
#include "file.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "sock.h"
#include "spare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PASS_ENV "PRONK_EXEC="
enum { SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW };

/* Over exec: one of the services of the process that was there before, and the ticket there. */
struct pass_service {
	char socket_path[CFG_SOCKET_PATH_MAX];
	uint64_t start_time_ns; /* after a restart the indexes mean nothing */
	uint32_t slot;
	int32_t ticket; /* -1: none */
};

struct pass_list_head {
	struct pass_head head;
	struct pass_service service[SERVICE_MAX];
};

/* The list as it grows: numbers and what they mean. */
struct pass_list {
	struct pass_list_head *head;
	struct pass_entry *entry;
	struct file **file; /* with references */
	uint32_t count, room;
	size_t size;
};

static __thread struct pass_list *list_under_way;

static void list_add(int fd)
{
	struct pass_list *l = list_under_way;
	struct file *f = file_get(fd);

	if (!f)
		return;
	if (l->count < l->room && f->kind == FILE_SOCKET && atomic_load(&f->mode) != MODE_KERNEL) {
		l->entry[l->count] = (struct pass_entry){.fd = fd, .same_as = -1};
		l->file[l->count++] = f;
	} else {
		file_put(f);
	}
}

static uint32_t list_find(const struct pass_list *l, int fd)
{
	for (uint32_t i = 0; i < l->count; i++)
		if (l->entry[i].fd == fd)
			return i;
	return UINT32_MAX;
}

static void list_remove(struct pass_list *l, uint32_t i)
{
	file_put(l->file[i]);
	l->count--;
	l->entry[i] = l->entry[l->count];
	l->file[i] = l->file[l->count];
}

/* same_as -2 marks a number that exec leaves open whatever its close-on-exec flag was. */
static void list_step(struct pass_list *l, const struct pass_step *s)
{
	uint32_t i, from;

	switch (s->kind) {
	case PASS_DUP:
		from = list_find(l, s->fd);
		i = list_find(l, s->to);
		if (s->fd != s->to && i != UINT32_MAX) {
			list_remove(l, i);
			from = list_find(l, s->fd);
		}
		if (from == UINT32_MAX || l->count == l->room)
			return;
		if (s->fd == s->to) {
			l->entry[from].same_as = -2;
			return;
		}
		l->entry[l->count] = (struct pass_entry){.fd = s->to, .same_as = -2};
		l->file[l->count] = file_ref(l->file[from]);
		l->count++;
		break;
	case PASS_CLOSE:
		i = list_find(l, s->fd);
		if (i != UINT32_MAX)
			list_remove(l, i);
		break;
	case PASS_CLOSEFROM:
		for (i = l->count; i-- > 0;)
			if (l->entry[i].fd >= s->fd)
				list_remove(l, i);
		break;
	}
}

static uint32_t known_count;

static void count_one(int fd)
{
	(void)fd;
	known_count++;
}

static int list_make(struct pass_list *l, const struct pass_step *steps, int step_count)
{
	static _Atomic uint32_t lock;

	spin_lock(&lock);
	known_count = 0;
	file_each(0, INT32_MAX - 1, count_one);
	l->room = known_count + (uint32_t)step_count;
	spin_unlock(&lock);
	*l = (struct pass_list){.room = l->room > PASS_ENTRIES_MAX ? PASS_ENTRIES_MAX : l->room};
	if (!l->room)
		return 0;
	l->size = sizeof(*l->head) + l->room * (sizeof(*l->entry) + sizeof(*l->file));
	l->head = mmap(NULL, l->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l->head == MAP_FAILED) {
		l->size = 0;
		return -ENOMEM;
	}
	l->entry = (struct pass_entry *)(l->head + 1);
	l->file = (struct file **)(void *)(l->entry + l->room);
	list_under_way = l;
	file_each(0, INT32_MAX - 1, list_add);
	for (int i = 0; i < step_count; i++)
		list_step(l, &steps[i]);
	for (uint32_t i = l->count; i-- > 0;) {
		int flags = l->entry[i].same_as == -2 ? 0 : libc.fcntl(l->entry[i].fd, F_GETFD);

		if (flags < 0 || flags & FD_CLOEXEC)
			list_remove(l, i);
	}
	for (uint32_t i = 0; i < l->count; i++) {
		l->entry[i].same_as = -1;
		pass_entry_fill(&l->entry[i], l->file[i]);
		for (uint32_t k = 0; k < i && l->entry[i].same_as < 0; k++)
			if (l->file[k] == l->file[i])
				l->entry[i].same_as = (int32_t)k;
	}
	return 0;
}

static void list_free(struct pass_list *l)
{
	while (l->count)
		list_remove(l, l->count - 1);
	if (l->size)
		munmap(l->head, l->size);
}

static int memfd_of(const struct pass_list *l)
{
	size_t size = sizeof(*l->head) + l->count * sizeof(*l->entry);
	int fd = memfd_create("pronk-exec", MFD_ALLOW_SEALING), high;

	if (fd < 0)
		return -errno;
	high = libc.fcntl(fd, F_DUPFD, 100);
	if (high >= 0) {
		libc.close(fd);
		fd = high;
	}
	l->head->head = pass_head_make(l->count);
	if (libc.write(fd, l->head, size) != (ssize_t)size || libc.fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
		libc.close(fd);
		return -EIO;
	}
	return fd;
}

/* True when the new image will have the library. */
static bool env_has_preload(char *const env[])
{
	for (; env && *env; env++)
		if (!strncmp(*env, "LD_PRELOAD=", 11))
			return strstr(*env, "libpronk") != NULL;
	return false;
}

/* The caller's environment with our word in it, in memory of its own. */
static int env_make(struct pass_exec *x, char *const env[])
{
	size_t count = 0, at = 0;
	char *word;

	while (env[count])
		count++;
	x->env_size = (count + 2) * sizeof(*x->env) + 64;
	x->env = mmap(NULL, x->env_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (x->env == MAP_FAILED) {
		x->env = NULL;
		return -ENOMEM;
	}
	for (size_t i = 0; i < count; i++)
		if (strncmp(env[i], PASS_ENV, sizeof(PASS_ENV) - 1))
			x->env[at++] = env[i];
	word = (char *)(x->env + count + 2);
	snprintf(word, 64, PASS_ENV "%d", x->list_fd);
	x->env[at++] = word;
	x->env[at] = NULL;
	return 0;
}

/* A ticket for the endpoints at one service; of no use where there are none. 0 or -E. */
static int exec_ticket(const struct pass_list *l, struct service *s, struct pass_service *out)
{
	int slot = -1, fd, high;

	for (uint32_t i = 0; i < l->count; i++)
		for (uint32_t n = 0; n < file_ep_count(l->file[i]); n++) {
			uint32_t ep = file_ep(l->file[i], n);

			if (ep == ENDPOINT_NONE || handle_service(ep) != s)
				continue;
			if (slot < 0)
				slot = pass_slot_prepare(s, TICKET_EXEC);
			if (slot < 0)
				return -ETOOMANYREFS;
			hold_set(&s->at.arena, (uint32_t)slot, handle_index(ep));
		}
	if (slot < 0)
		return 0;
	fd = pass_ticket_open(s, (uint32_t)slot, -1);
	if (fd < 0)
		return fd;
	high = libc.fcntl(fd, F_DUPFD, 100); /* without close-on-exec */
	if (high < 0)
		high = libc.fcntl(fd, F_DUPFD, 0);
	libc.close(fd);
	if (high < 0)
		return -errno;
	out->slot = (uint32_t)slot;
	out->ticket = high;
	return 0;
}

/* Tickets at all services that live. Where one cannot be had, what is there ends at exec: a line says so. */
static int exec_tickets(struct pass_list *l, struct pass_exec *x)
{
	for (uint32_t i = 0; i < SERVICE_MAX; i++) {
		struct pass_service *out = &l->head->service[i];
		int rc = 0;

		*out = (struct pass_service){.ticket = -1};
		if (i >= service_count() || attach_is_dead(&services[i].at))
			continue;
		memcpy(out->socket_path, services[i].socket_path, sizeof(out->socket_path));
		out->start_time_ns = services[i].at.arena.hdr->start_time_ns;
		rc = exec_ticket(l, &services[i], out);
		if (rc && service_count() == 1)
			return rc;
		if (rc)
			log_warning("the sockets of the service at %s end at exec: %s",
			        services[i].socket_path, strerror(-rc));
		x->ticket[i] = out->ticket;
	}
	return 0;
}

static void exec_begin(struct pass_exec *x)
{
	*x = (struct pass_exec){.list_fd = -1};
	for (int i = 0; i < PASS_TICKETS; i++)
		x->ticket[i] = -1;
}

void pass_exec_prepare(struct pass_exec *x, char *const env[], const struct pass_step *steps, int count)
{
	struct pass_list l = {0};
	bool has_endpoint = false;
	int saved = errno, rc;

	exec_begin(x);
	spare_own_all();
	rc = list_make(&l, steps, count);
	for (uint32_t i = 0; i < l.count; i++)
		has_endpoint |= atomic_load(&l.file[i]->ep) != ENDPOINT_NONE;
	if (rc || !l.count || (has_endpoint && proc_is_dead()))
		goto out;
	if (!env_has_preload(env)) {
		if (has_endpoint)
			log_warning(
			        "the new program has no LD_PRELOAD: %u of its sockets end at exec", l.count);
		goto out;
	}
	rc = exec_tickets(&l, x);
	if (!rc) {
		x->list_fd = memfd_of(&l);
		rc = x->list_fd < 0 ? x->list_fd : 0;
	}
	if (!rc)
		rc = env_make(x, env);
	if (rc) {
		pass_exec_cancel(x);
		log_warning("%u sockets end at exec: %s", l.count, strerror(-rc));
	}
out:
	list_free(&l);
	errno = saved;
}

void pass_exec_cancel(struct pass_exec *x)
{
	int saved = errno;

	if (x->list_fd >= 0)
		libc.close(x->list_fd);
	for (int i = 0; i < PASS_TICKETS; i++)
		if (x->ticket[i] >= 0)
			libc.close(x->ticket[i]);
	if (x->env)
		munmap(x->env, x->env_size);
	exec_begin(x);
	errno = saved;
}

/* This process's handle of an endpoint of the one that was there before, or ENDPOINT_NONE: its service has
 * gone, or is another one. */
static uint32_t handle_here(const struct pass_list_head *h, uint32_t handle)
{
	const struct pass_service *was = &h->service[handle_service(handle) - services];

	for (uint32_t i = 0; handle != ENDPOINT_NONE && was->ticket >= 0 && i < service_count(); i++) {
		const struct service *s = &services[i];

		if (!attach_is_dead(&s->at) && s->at.arena.hdr->start_time_ns == was->start_time_ns &&
		        !strncmp(s->socket_path, was->socket_path, sizeof(s->socket_path)) &&
		        handle_index(handle) < s->at.arena.endpoint_count)
			return handle_make(s, handle_index(handle));
	}
	return ENDPOINT_NONE;
}

/* The ticket's own hold is not needed any more. */
static void ticket_let_go(const struct pass_list_head *h, uint32_t was, uint32_t handle)
{
	uint32_t slot = h->service[handle_service(was) - services].slot;
	const struct arena *a = &handle_at(handle)->arena;

	if (slot < a->client_count)
		hold_clear(a, slot, handle_index(handle));
}

static void also_take(const struct pass_list_head *h, const struct pass_entry *e, struct file *f)
{
	for (uint32_t i = 0; i < SERVICE_MAX; i++) {
		uint32_t ep = handle_here(h, e->also[i]);

		if (ep == ENDPOINT_NONE || ep == atomic_load(&f->ep) || !file_also_take(f))
			continue;
		pass_hold_own(ep);
		atomic_store(&f->also->ep[handle_service(ep) - services], ep);
		ticket_let_go(h, e->also[i], ep);
	}
}

/* Puts the entries of the list into the table. */
static void list_take(const struct pass_list_head *h)
{
	const struct pass_entry *e = (const struct pass_entry *)(h + 1);
	bool had_any = false;
	uint32_t lost = 0;

	for (uint32_t i = 0; i < SERVICE_MAX; i++)
		had_any |= h->service[i].ticket >= 0;
	if (had_any)
		proc_attach();
	for (uint32_t i = 0; i < h->head.count; i++) {
		uint32_t was = atomic_load(&e[i].file.ep), ep;
		struct file *f;
		struct stat st;

		/* whoever started us closed it behind the library's back, or made it something else:
		 * login_tty(3), forkpty(3) */
		if (fstat(e[i].fd, &st) < 0 || !S_ISSOCK(st.st_mode))
			continue;
		if (e[i].same_as >= 0 && (uint32_t)e[i].same_as < i &&
		        (f = file_get(e[e[i].same_as].fd)) != NULL) {
			file_dup(f, e[i].fd);
			file_put(f);
			continue;
		}
		if (was == ENDPOINT_NONE) {
			file_import(e[i].fd, &e[i].file, ENDPOINT_NONE);
			continue;
		}
		ep = handle_here(h, was);
		/* one that is elsewhere, too, goes on there when its first service has died */
		for (uint32_t k = 0; ep == ENDPOINT_NONE && k < SERVICE_MAX; k++) {
			was = e[i].also[k];
			ep = handle_here(h, was);
		}
		f = ep == ENDPOINT_NONE ? NULL : pass_entry_take(&e[i].file, ep, e[i].fd);
		if (!f) {
			lost++;
			continue;
		}
		ticket_let_go(h, was, ep);
		also_take(h, &e[i], f);
	}
	if (lost)
		log_warning("%u sockets did not survive exec: %s", lost,
		        had_any ? "the service is gone or is another one" : "they had ended");
}

void pass_exec_adopt(void)
{
	const char *word = getenv("PRONK_EXEC");
	struct pass_list_head *h;
	ssize_t size;
	int list_fd;

	if (!word)
		return;
	if (sscanf(word, "%d", &list_fd) != 1)
		list_fd = -1;
	unsetenv("PRONK_EXEC");
	if (libc.fcntl(list_fd, F_GET_SEALS) != SEALS)
		return; /* not what we left here */
	size = lseek(list_fd, 0, SEEK_END);
	h = size < (ssize_t)sizeof(*h) ? MAP_FAILED
	                               : mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, list_fd, 0);
	if (h != MAP_FAILED) {
		if (pass_head_is_good(&h->head) &&
		        (size_t)size == sizeof(*h) + h->head.count * sizeof(struct pass_entry)) {
			list_take(h);
			for (int i = 0; i < SERVICE_MAX; i++)
				if (h->service[i].ticket >= 0)
					libc.close(h->service[i].ticket);
		}
		munmap(h, (size_t)size);
	}
	libc.close(list_fd);
}
