/* pass.c - tickets: sockets on their way to another process; and those that travel in a message (SCM_RIGHTS).
 *
 * Runs in application threads; in the child of a fork before its exec, too, so memory comes from mmap. A
 * ticket is a client slot without a process: prepared as for a fork, entered by a control connection that
 * travels in the socket's place. While any copy of that descriptor is open the slot's bits hold the sockets;
 * the receiver sets its own bits and closes it. What goes over exec is in pass_exec.c. doc/threads.md,
 * "References".
 */
#include "pass_int.h"
#include "epoll_set.h"
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
struct pass_ticket {
	struct pass_head head;
	struct pass_entry entry;
};
_Static_assert(sizeof(struct pass_ticket) <= TICKET_SIZE, "a socket fits into its ticket");

struct pass_head pass_head_make(uint32_t count)
{
	return (struct pass_head){.magic = PASS_MAGIC,
	        .arena_version = ARENA_VERSION,
	        .entry_size = sizeof(struct pass_entry),
	        .count = count};
}

void pass_entry_fill(struct pass_entry *e, const struct file *f)
{
	memcpy(&e->file, f, sizeof(*f));
	for (uint32_t i = 0; i < SERVICE_MAX; i++)
		e->also[i] = f->also ? file_ep(f, 1 + i) : ENDPOINT_NONE;
}

bool pass_head_is_good(const struct pass_head *h)
{
	return h->magic == PASS_MAGIC && h->arena_version == ARENA_VERSION &&
	       h->entry_size == sizeof(struct pass_entry) && h->count <= PASS_ENTRIES_MAX;
}

/* A slot as for a forked child, that nobody will name but us. -1 when all are taken. */
int pass_slot_prepare(const struct service *s, enum ticket_kind kind)
{
	const struct arena *a = &s->at.arena;

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
int pass_ticket_open(struct service *s, uint32_t slot, int kernel_fd)
{
	const struct arena *a = &s->at.arena;
	struct client *c = arena_client(a, slot);
	uint32_t forking = CLIENT_FORKING;
	int fd = attach_ticket(&s->at, s->socket_path, slot, kernel_fd);

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

static bool has_client(const struct arena *a, pid_t pid)
{
	for (uint32_t i = 0; i < a->client_count; i++) {
		const struct client *c = arena_client(a, i);

		if (atomic_load(&c->state) == CLIENT_ACTIVE && atomic_load(&c->pid) == pid)
			return true;
	}
	return false;
}

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
	for (uint32_t i = 0; i < service_count(); i++)
		if (has_client(&services[i].at.arena, cred.pid))
			return false;
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

/* A ticket at one service. inner_fd waits in it. */
static int ticket_at(const struct file *f, uint32_t handle, int fd, int inner_fd)
{
	struct service *s = handle_service(handle);
	int slot = pass_slot_prepare(s, TICKET_PASSED);
	struct pass_ticket *t;

	if (slot < 0)
		return -ETOOMANYREFS;
	t = (struct pass_ticket *)(void *)arena_client(&s->at.arena, (uint32_t)slot)->ticket;
	t->head = pass_head_make(1);
	t->entry = (struct pass_entry){.fd = fd, .same_as = -1};
	pass_entry_fill(&t->entry, f);
	atomic_store(&t->entry.file.ep, handle);
	hold_set(&s->at.arena, (uint32_t)slot, handle_index(handle));
	return pass_ticket_open(s, (uint32_t)slot, inner_fd);
}

/* The ticket for a socket. One that is at several services has a ticket at each that lives, and each waits in
 * the next; in the last waits the kernel's socket. The number itself when all have died. */
static int ticket_for(const struct file *f, int fd)
{
	int inner = fd;

	for (uint32_t i = file_ep_count(f); i-- > 0;) {
		uint32_t handle = file_ep(f, i);
		int ticket;

		if (handle == ENDPOINT_NONE || handle_is_dead(handle))
			continue;
		ticket = ticket_at(f, handle, fd, inner);
		if (ticket < 0 && attach_check_dead(handle_at(handle)))
			continue;
		if (inner != fd)
			libc.close(inner);
		if (ticket < 0)
			return ticket;
		inner = ticket;
	}
	return inner;
}

static bool is_rights(const struct cmsghdr *c)
{
	return c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(0);
}

static bool needs_ticket(const struct file *f)
{
	return f->kind == FILE_SOCKET && sock_is_ours(f) && atomic_load(&f->ep) != ENDPOINT_NONE &&
	       !sock_is_dead(f);
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
			any |= needs_ticket(f);
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
			int one, ticket;

			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			f = file_get(one);
			if (!f)
				continue;
			ticket = needs_ticket(f) && m->ticket_count < PASS_MAX ? ticket_for(f, one) : one;
			file_put(f);
			if (ticket >= 0 && ticket != one) {
				m->ticket[m->ticket_count++] = ticket;
				memcpy(CMSG_DATA(c) + i * sizeof(int), &ticket, sizeof(int));
			}
			rc = ticket < 0 ? ticket : 0;
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

/* The service of a ticket, or of one that was there before; NULL: any other descriptor. */
static struct service *ticket_service(int fd)
{
	struct sockaddr_un un;
	socklen_t len = sizeof(un);
	int type;

	if (libc.getpeername(fd, (struct sockaddr *)&un, &len) < 0 || un.sun_family != AF_UNIX ||
	        len <= offsetof(struct sockaddr_un, sun_path) || !un.sun_path[0])
		return NULL;
	len = sizeof(type);
	if (libc.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		return NULL;
	if (!proc_is_service(un.sun_path) || !proc_attach())
		return NULL;
	for (uint32_t i = 0; i < service_count(); i++)
		if (!strcmp(services[i].socket_path, un.sun_path))
			return &services[i];
	return NULL;
}

/* The slot of a ticket, or -1: the service has died, or is another one at the same place. */
static int ticket_slot(int fd, const struct service *s)
{
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	if (attach_is_dead(&s->at))
		return -1;
	if (libc.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 || !cookie)
		return -1;
	for (uint32_t i = 0; i < s->at.arena.client_count; i++) {
		const struct client *c = arena_client(&s->at.arena, i);

		if (atomic_load(&c->ticket_cookie) == cookie && atomic_load(&c->state) == CLIENT_ACTIVE)
			return (int)i;
	}
	return -1;
}

void pass_hold_own(uint32_t handle)
{
	hold_set(&handle_at(handle)->arena, handle_at(handle)->client_idx, handle_index(handle));
}

/* Makes the number the socket that the saved file describes, with this endpoint. With the ticket still open.
 */
struct file *pass_entry_take(const struct file *saved, uint32_t ep, int fd)
{
	struct file *f;

	if (saved->kind != FILE_SOCKET || handle_ep(ep) == &service_no_ep)
		return NULL;
	/* it may have come home: a process has one file and one bit for a socket */
	f = file_find_ep(ep);
	if (f) {
		int rc = file_dup(f, fd);

		file_put(f);
		if (!rc)
			return f;
	}
	pass_hold_own(ep);
	f = file_import(fd, saved, ep);
	if (!f)
		sock_ep_release(ep, 0);
	return f;
}

/* A ticket that is being cashed. */
struct cashed {
	struct service *service; /* NULL: this process is not there, or the service is not any more */
	uint32_t slot, ep;
	struct pass_ticket ticket;
	int fd;
};

/* Reads the ticket and makes the endpoint ours as well, so that it may be closed. False: it is no ticket, as
 * far as this process knows. */
static bool cash(struct cashed *c, int fd)
{
	struct call last = {.op = CALL_BARRIER, .endpoint = ENDPOINT_NONE};
	int slot;

	*c = (struct cashed){.fd = fd, .service = ticket_service(fd)};
	if (!c->service)
		return false;
	slot = ticket_slot(fd, c->service);
	if (slot < 0) {
		c->service = NULL;
		return true;
	}
	c->slot = (uint32_t)slot;
	memcpy(&c->ticket, arena_client(&c->service->at.arena, c->slot)->ticket, sizeof(c->ticket));
	c->ep = handle_make(c->service, handle_index(atomic_load(&c->ticket.entry.file.ep)));
	if (!pass_head_is_good(&c->ticket.head) || c->ticket.entry.file.kind != FILE_SOCKET ||
	        handle_ep(c->ep) == &service_no_ep ||
	        !hold_test(&c->service->at.arena, c->slot, handle_index(c->ep))) {
		c->service = NULL;
		return true;
	}
	/* A release that we posted a moment ago, of the same socket, would take the new bit away: let it
	 * pass. Our own bit comes before the ticket is closed. */
	post_call(&c->service->at, handle_ep(c->ep)->stack_idx, &last);
	pass_hold_own(c->ep);
	return true;
}

/* What the hang-up would bring about a moment later; unless there may be another copy of the ticket. */
static void cashed_end(const struct cashed *c, bool is_last)
{
	if (c->service && is_last)
		hold_clear(&c->service->at.arena, c->slot, handle_index(c->ep));
}

static bool is_unix(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return !libc.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX;
}

/* An endpoint at another service than the first. */
static void also_add(struct file *f, const struct cashed *c)
{
	_Atomic uint32_t *at = file_also_take(f) ? &f->also->ep[c->service - services] : NULL;
	uint32_t own = atomic_load(&f->ep), none = ENDPOINT_NONE;

	if (own == c->ep) /* it has come home */
		return;
	if (handle_service(own) != c->service && at &&
	        (atomic_compare_exchange_strong(at, &none, c->ep) || none == c->ep))
		return;
	sock_ep_release(c->ep, 0);
}

static void ticket_cash(int fd, bool is_last)
{
	struct cashed got[SERVICE_MAX];
	const struct cashed *first = NULL; /* the socket's own endpoint */
	int flags, in_fd, count = 1;
	struct file *f = NULL;

	if (!is_unix(fd) || !cash(&got[0], fd)) {
		pass_adopt_kernel(fd);
		return;
	}
	flags = libc.fcntl(fd, F_GETFD);
	in_fd = attach_stashed(fd);
	for (; in_fd >= 0 && is_unix(in_fd) && count < SERVICE_MAX; count++) {
		cash(&got[count], in_fd);
		in_fd = attach_stashed(in_fd);
	}
	for (int i = count; i-- > 0;)
		if (got[i].service)
			first = &got[i];
	if (in_fd >= 0) {
		libc.dup3(in_fd, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
		libc.close(in_fd);
		if (first)
			f = pass_entry_take(&first->ticket.entry.file, first->ep, fd);
		else /* its services have died on the way */
			pass_adopt_kernel(fd);
	} else if (first) {
		sock_ep_release(first->ep, 0);
	}
	for (int i = 0; i < count; i++) {
		const struct cashed *c = &got[i];

		if (c->service && c != first && f)
			also_add(f, c);
		else if (c->service && c != first)
			sock_ep_release(c->ep, 0);
		cashed_end(c, f && is_last);
		if (i)
			libc.close(c->fd);
	}
	if (!f)
		return;
	epoll_file_changed(f);
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
