/* pass.c - tickets: sockets on their way to another process, by SCM_RIGHTS or over exec.
 *
 * Runs in application threads; in the child of a fork before its exec, too, so memory comes from mmap. A
 * ticket is a client slot without a process: prepared as for a fork, entered by a control connection that
 * travels in the socket's place. While any copy of that descriptor is open the slot's bits hold the sockets;
 * the receiver sets its own bits and closes it. doc/threads.md, "References".
 */
#include "pass.h"
#include "file.h"
#include "libc.h"
#include "log.h"
#include "opt.h"
#include "proc.h"
#include "sock.h"
#include "spare.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PASS_MAGIC 0x455841504b4e5250ull
#define PASS_ENV "PRONK_EXEC="
enum { EXEC_MAX = 65536, SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW };

/* What one number is. */
struct pass_entry {
	int32_t fd;
	int32_t same_as; /* an earlier entry that is the same file, or -1 */
	struct file file;
};

/* In front of the entries. */
struct pass_head {
	uint64_t magic;
	uint32_t arena_version, entry_size;
	uint64_t start_time_ns; /* of the service: after a restart the indexes mean nothing */
	uint32_t count;
	uint32_t slot; /* over exec: the ticket's */
};

struct pass_ticket {
	struct pass_head head;
	struct pass_entry entry;
};
_Static_assert(sizeof(struct pass_ticket) <= TICKET_SIZE, "a socket fits into its ticket");

static struct pass_head head_make(uint32_t count, int slot)
{
	return (struct pass_head){.magic = PASS_MAGIC,
	        .arena_version = ARENA_VERSION,
	        .entry_size = sizeof(struct pass_entry),
	        .start_time_ns = proc_is_attached() ? proc.at.arena.hdr->start_time_ns : 0,
	        .count = count,
	        .slot = (uint32_t)slot};
}

static bool head_is_good(const struct pass_head *h)
{
	return h->magic == PASS_MAGIC && h->arena_version == ARENA_VERSION &&
	       h->entry_size == sizeof(struct pass_entry) && h->count <= EXEC_MAX;
}

/* A slot as for a forked child, that nobody will name but us. -1 when all are taken. */
static int slot_prepare(enum ticket_kind kind)
{
	const struct arena *a = &proc.at.arena;

	for (uint32_t i = 0; i < a->client_count; i++) {
		struct client *c = arena_client(a, i);
		uint32_t none = CLIENT_FREE;

		if (!atomic_compare_exchange_strong(&c->state, &none, CLIENT_FORKING))
			continue;
		client_seen(a, i);
		atomic_store(&c->pid, -1);
		atomic_store(&c->ticket_cookie, 0);
		atomic_store(&c->ticket_kind, kind);
		return (int)i;
	}
	return -1;
}

/* A ticket for the sockets whose bits the caller has set in the slot; it takes the slot back when that fails.
 */
static int ticket_open(uint32_t slot, int kernel_fd)
{
	const struct arena *a = &proc.at.arena;
	struct client *c = arena_client(a, slot);
	uint32_t forking = CLIENT_FORKING;
	int fd = attach_ticket(&proc.at, proc.socket_path, slot, kernel_fd);

	if (fd >= 0)
		return fd;
	/* the service may have taken it in: then it clears it when the connection goes */
	if (atomic_load(&c->state) == forking) {
		for (uint32_t w = 0; w < a->endpoint_count / 64; w++)
			atomic_store_explicit(&arena_holds(a, slot)[w], 0, memory_order_relaxed);
		atomic_store(&c->ticket_kind, TICKET_NONE);
		atomic_compare_exchange_strong(&c->state, &forking, CLIENT_FREE);
	}
	return fd;
}

/* --- in messages --- */

/* The process at the other end of a unix socket has no library of ours, as far as can be seen from here. */
static bool peer_is_foreign(int fd)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	char path[32], *text;
	bool is_found = false;
	ssize_t n, have = 0;
	int maps;

	if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.pid <= 0 ||
	        cred.pid == getpid())
		return false;
	for (uint32_t i = 0; i < proc.at.arena.client_count; i++) {
		const struct client *c = arena_client(&proc.at.arena, i);

		if (atomic_load(&c->state) == CLIENT_ACTIVE && atomic_load(&c->pid) == cred.pid)
			return false;
	}
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)cred.pid);
	maps = libc.open(path, O_RDONLY | O_CLOEXEC);
	if (maps < 0)
		return false; /* not ours to see, or over: who inherited the socket cannot be told */
	text = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	while (text != MAP_FAILED && !is_found &&
	        (n = libc.read(maps, text + have, 16383 - (size_t)have)) > 0) {
		have += n;
		text[have] = 0;
		is_found = strstr(text, "libpronk.so") != NULL;
		if (have > 64) { /* a name may lie over the end of a part */
			memmove(text, text + have - 64, 64);
			have = 64;
		}
	}
	if (text != MAP_FAILED)
		munmap(text, 16384);
	libc.close(maps);
	return !is_found;
}

static int ticket_for(struct file *f, int fd)
{
	int slot = slot_prepare(TICKET_PASSED);
	struct pass_ticket *t;

	if (slot < 0)
		return -ETOOMANYREFS;
	t = (struct pass_ticket *)(void *)arena_client(&proc.at.arena, (uint32_t)slot)->ticket;
	t->head = head_make(1, slot);
	t->entry = (struct pass_entry){.fd = fd, .same_as = -1};
	memcpy(&t->entry.file, f, sizeof(*f));
	hold_set(&proc.at.arena, (uint32_t)slot, atomic_load(&f->ep));
	return ticket_open((uint32_t)slot, fd);
}

static bool is_rights(const struct cmsghdr *c)
{
	return c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(0);
}

/* Does the message carry a socket of ours? Every socket in it gets a kernel socket of its own. */
static bool has_ours(const struct msghdr *msg)
{
	bool any = false;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)msg, c)) {
		if (!is_rights(c))
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			struct file *f;
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			f = file_get(fd);
			if (!f)
				continue;
			spare_own(f);
			any |= f->kind == FILE_SOCKET && sock_is_ours(f) &&
			       atomic_load(&f->ep) != ENDPOINT_NONE;
			file_put(f);
		}
	}
	return any;
}

int pass_sending(int fd, const struct msghdr *msg, struct pass_message *m)
{
	int rc = 0;

	m->control = NULL;
	m->ticket_count = 0;
	if (!proc_is_attached() || proc_is_dead() || user_is_bad(msg) || user_is_bad(msg->msg_control) ||
	        msg->msg_controllen < sizeof(struct cmsghdr) || !has_ours(msg))
		return 0;
	if (peer_is_foreign(fd)) {
		log_limited_warning(
		        "fd %d leads to a program without Pronk: a socket of Pronk's is not passed there",
		        fd);
		return -EPERM;
	}
	m->msg = *msg;
	m->control_size = msg->msg_controllen;
	m->control = mmap(NULL, m->control_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->control == MAP_FAILED) {
		m->control = NULL;
		return -ENOBUFS;
	}
	memcpy(m->control, msg->msg_control, m->control_size);
	m->msg.msg_control = m->control;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m->msg); c && !rc; c = CMSG_NXTHDR(&m->msg, c)) {
		if (!is_rights(c))
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) && !rc; i++) {
			struct file *f;
			int one;

			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			f = file_get(one);
			if (!f)
				continue;
			if (f->kind == FILE_SOCKET && sock_is_ours(f) &&
			        atomic_load(&f->ep) != ENDPOINT_NONE && m->ticket_count < PASS_MAX) {
				rc = ticket_for(f, one);
				if (rc >= 0) {
					m->ticket[m->ticket_count++] = rc;
					memcpy(CMSG_DATA(c) + i * sizeof(int), &rc, sizeof(int));
					rc = 0;
				}
			}
			file_put(f);
		}
	}
	if (rc)
		pass_sent(m);
	return rc;
}

void pass_sent(struct pass_message *m)
{
	int saved = errno;

	for (int i = 0; i < m->ticket_count; i++)
		libc.close(m->ticket[i]);
	m->ticket_count = 0;
	if (m->control)
		munmap(m->control, m->control_size);
	m->control = NULL;
	errno = saved;
}

/* The slot of a ticket, or -1: any other descriptor. */
static int ticket_slot(int fd)
{
	struct sockaddr_un un;
	socklen_t len = sizeof(un);
	uint64_t cookie;
	int type;

	if (libc.getpeername(fd, (struct sockaddr *)&un, &len) < 0 || un.sun_family != AF_UNIX ||
	        len <= offsetof(struct sockaddr_un, sun_path) || !un.sun_path[0])
		return -1;
	len = sizeof(type);
	if (libc.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		return -1;
	if (!proc_is_service(un.sun_path) || !proc_attach() || proc_is_dead())
		return -1;
	len = sizeof(cookie);
	if (libc.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 || !cookie)
		return -1;
	for (uint32_t i = 0; i < proc.at.arena.client_count; i++) {
		const struct client *c = arena_client(&proc.at.arena, i);

		if (atomic_load(&c->ticket_cookie) == cookie && atomic_load(&c->state) == CLIENT_ACTIVE)
			return (int)i;
	}
	return -1;
}

/* Makes the number the socket that the saved file describes. With the ticket still open. */
static struct file *entry_take(const struct file *saved, int fd)
{
	uint32_t ep = atomic_load(&saved->ep);
	struct file *f;

	if (saved->kind != FILE_SOCKET || ep >= proc.at.arena.endpoint_count)
		return NULL;
	/* it may have come home: a process has one file and one bit for a socket */
	f = file_find_ep(ep);
	if (f) {
		int rc = file_dup(f, fd);

		file_put(f);
		if (!rc)
			return f;
	}
	hold_set(&proc.at.arena, proc.at.client_idx, ep);
	f = file_import(fd, saved);
	if (!f)
		sock_ep_release(ep, 0);
	return f;
}

static void ticket_cash(int fd, bool is_last)
{
	int slot = ticket_slot(fd), flags, kernel_fd;
	struct call last = {.op = CALL_BARRIER, .endpoint = ENDPOINT_NONE};
	struct pass_ticket t;
	struct file *f;
	uint32_t ep;

	if (slot < 0) {
		pass_adopt_kernel(fd);
		return;
	}
	memcpy(&t, arena_client(&proc.at.arena, (uint32_t)slot)->ticket, sizeof(t));
	ep = atomic_load(&t.entry.file.ep);
	flags = libc.fcntl(fd, F_GETFD);
	if (!head_is_good(&t.head) || ep >= proc.at.arena.endpoint_count ||
	        !hold_test(&proc.at.arena, (uint32_t)slot, ep))
		return;
	kernel_fd = attach_stashed(fd);
	if (kernel_fd < 0)
		return;
	/* A release that we posted a moment ago, of the same socket, would take the new bit away: let it
	 * pass. Our own bit comes before the ticket is closed. */
	post_call(&proc.at, proc_ep(ep)->stack_idx, &last);
	hold_set(&proc.at.arena, proc.at.client_idx, ep);
	libc.dup3(kernel_fd, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
	libc.close(kernel_fd);
	f = entry_take(&t.entry.file, fd);
	/* what the hang-up would bring about a moment later; unless there may be another copy of the ticket
	 */
	if (f && is_last)
		hold_clear(&proc.at.arena, (uint32_t)slot, ep);
	if (f)
		log_debug("fd %d came from another process", fd);
}

void pass_received(const struct msghdr *msg, int flags)
{
	int saved = errno;

	if (!msg->msg_control || msg->msg_controllen < sizeof(struct cmsghdr))
		return;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)msg, c)) {
		if (!is_rights(c))
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			file_close(fd);
			ticket_cash(fd, !(flags & MSG_PEEK));
		}
	}
	errno = saved;
}

void pass_adopt_kernel(int fd)
{
	struct sockaddr_storage ss;
	struct file *f;
	int domain, type, protocol, is_listening;
	socklen_t len = sizeof(domain);

	if (libc.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
	        (domain != AF_INET && domain != AF_INET6))
		return;
	len = sizeof(type);
	if (libc.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return;
	len = sizeof(protocol);
	if (libc.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) < 0)
		return;
	len = sizeof(is_listening);
	if (libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) < 0 || is_listening)
		return;
	len = sizeof(ss);
	if (!libc.getpeername(fd, (struct sockaddr *)&ss, &len) || errno != ENOTCONN)
		return;
	sock_opened(fd, domain, type, protocol);
	f = file_get(fd);
	if (f) {
		opt_all_set(f); /* whoever had it may have set any */
		file_put(f);
	}
}

/* --- over exec --- */

/* The list as it grows: numbers and what they mean. */
struct pass_list {
	struct pass_head *head;
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
	*l = (struct pass_list){.room = l->room > EXEC_MAX ? EXEC_MAX : l->room};
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
		memcpy(&l->entry[i].file, l->file[i], sizeof(struct file));
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

static int memfd_of(const struct pass_list *l, int slot)
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
	*l->head = head_make(l->count, slot);
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
	snprintf(word, 64, PASS_ENV "%d,%d", x->list_fd, x->ticket);
	x->env[at++] = word;
	x->env[at] = NULL;
	return 0;
}

static int exec_ticket(const struct pass_list *l, int *slot_out)
{
	int slot = slot_prepare(TICKET_EXEC), fd, high;

	*slot_out = slot;
	if (slot < 0)
		return -ETOOMANYREFS;
	for (uint32_t i = 0; i < l->count; i++) {
		uint32_t ep = atomic_load(&l->file[i]->ep);

		if (ep != ENDPOINT_NONE)
			hold_set(&proc.at.arena, (uint32_t)slot, ep);
	}
	fd = ticket_open((uint32_t)slot, -1);
	if (fd < 0)
		return fd;
	high = libc.fcntl(fd, F_DUPFD, 100); /* without close-on-exec */
	if (high < 0)
		high = libc.fcntl(fd, F_DUPFD, 0);
	libc.close(fd);
	return high < 0 ? -errno : high;
}

void pass_exec_prepare(struct pass_exec *x, char *const env[], const struct pass_step *steps, int count)
{
	struct pass_list l = {0};
	bool has_endpoint = false;
	int saved = errno, slot = -1, rc;

	*x = (struct pass_exec){.list_fd = -1, .ticket = -1};
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
	if (has_endpoint) {
		x->ticket = exec_ticket(&l, &slot);
		rc = x->ticket < 0 ? x->ticket : 0;
	}
	if (!rc) {
		x->list_fd = memfd_of(&l, slot);
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
	if (x->ticket >= 0)
		libc.close(x->ticket);
	if (x->env)
		munmap(x->env, x->env_size);
	*x = (struct pass_exec){.list_fd = -1, .ticket = -1};
	errno = saved;
}

/* Puts the entries of the list into the table. */
static void list_take(const struct pass_head *h, int ticket)
{
	const struct pass_entry *e = (const struct pass_entry *)(h + 1);
	bool can_have = ticket >= 0 && proc_attach() && !proc_is_dead() &&
	                h->start_time_ns == proc.at.arena.hdr->start_time_ns;
	uint32_t lost = 0;

	for (uint32_t i = 0; i < h->count; i++) {
		uint32_t ep = atomic_load(&e[i].file.ep);
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
		if (ep == ENDPOINT_NONE) {
			file_import(e[i].fd, &e[i].file);
			continue;
		}
		if (!can_have || !entry_take(&e[i].file, e[i].fd))
			lost++;
		else if (h->slot < proc.at.arena.client_count)
			hold_clear(&proc.at.arena, h->slot, ep);
	}
	if (lost)
		log_warning("%u sockets did not survive exec: %s", lost,
		        ticket < 0 ? "they had ended" : "the service is gone or is another one");
}

void pass_exec_adopt(void)
{
	const char *word = getenv("PRONK_EXEC");
	int list_fd, ticket;
	struct pass_head *h;
	ssize_t size;

	if (!word)
		return;
	if (sscanf(word, "%d,%d", &list_fd, &ticket) != 2)
		list_fd = ticket = -1;
	unsetenv("PRONK_EXEC");
	if (libc.fcntl(list_fd, F_GET_SEALS) != SEALS)
		return; /* not what we left here */
	size = lseek(list_fd, 0, SEEK_END);
	h = size < (ssize_t)sizeof(*h) ? MAP_FAILED
	                               : mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, list_fd, 0);
	if (h != MAP_FAILED) {
		if (head_is_good(h) && (size_t)size == sizeof(*h) + h->count * sizeof(struct pass_entry))
			list_take(h, ticket);
		munmap(h, (size_t)size);
	}
	libc.close(list_fd);
	if (ticket >= 0)
		libc.close(ticket);
}
