/* server.c - the control socket: connections and the messages on them.
 *
 * Control thread, driven by an epoll instance that the service's main loop waits on. A connection lives as
 * long as its process is attached; its hang-up is how the service learns of an end. A message that makes no
 * sense costs its sender the connection. What a client's slot goes through is slot.c.
 */
#include "server_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "attach.h"
#include "clock.h"
#include "wiretap.h"
#include "log.h"
#include "segment.h"

LOG_MODULE("ctl");

#define NEW_LIMIT_NS (10 * CLOCK_NS_PER_S)
#define EXEC_LIMIT_NS (10 * CLOCK_NS_PER_S)
enum {
	TICK_JOB_MS = 2,    /* while the stacks owe us something */
	TICK_SLOW_MS = 500, /* while anybody is attached */
	OBSERVER_ROOM = 64, /* connections beyond one per client slot */
	EVENT_BURST = 32,
	PASSED_MAX = 4, /* descriptors looked at in one message; one is allowed */
	LISTEN_BACKLOG = 512,
};

/* --- connections --- */

static void conn_drop(struct server *s, struct conn *c)
{
	if (c->kind == CONN_CLIENT)
		slot_gone(s, c->client_idx);
	if (c->kind == CONN_CAPTURE)
		capture_end(s, c->capture);
	if (c->kind == CONN_NEW)
		s->conn_new_count--;
	s->conn_count--;
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	/* a process forked from this one a moment ago may still have it open (mode = inline): then closing
	 * alone does not take it out of the set */
	epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	close(c->fd);
	free(c);
}

static void conn_refuse(struct server *s, struct conn *c, const char *why)
{
	log_limited_warning("pid %d sent %s: its connection is closed", (int)c->pid, why);
	conn_drop(s, c);
}

static void conn_kind_set(struct server *s, struct conn *c, enum conn_kind kind)
{
	s->conn_new_count -= c->kind == CONN_NEW;
	c->kind = kind;
}

static void conn_add(struct server *s, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP};
	struct ucred cred = {0};
	socklen_t size = sizeof(cred);
	struct conn *c = NULL;

	if (s->conn_count < s->arena->client_count + OBSERVER_ROOM)
		c = calloc(1, sizeof(*c));
	if (!c) {
		log_limited_warning("too many control connections: one was refused");
		close(fd);
		return;
	}
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size)) {
		c->pid = cred.pid;
		c->uid = cred.uid;
	} else {
		c->uid = (uid_t)-1; /* nobody we know */
	}
	c->fd = fd;
	c->since_ns = clock_now_ns();
	ev.data.ptr = c;
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		close(fd);
		free(c);
		return;
	}
	c->next = s->conns;
	if (c->next)
		c->next->prev = &c->next;
	c->prev = &s->conns;
	s->conns = c;
	s->conn_count++;
	s->conn_new_count++;
}

static void accept_pause(struct server *s, bool pause)
{
	struct epoll_event ev = {.events = pause ? 0 : EPOLLIN, .data.ptr = s};

	if (s->listen_fd >= 0 && s->is_accept_paused != pause &&
	        !epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->listen_fd, &ev))
		s->is_accept_paused = pause;
}

static void accept_all(struct server *s)
{
	for (int i = 0; i < EVENT_BURST; i++) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			conn_add(s, fd);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno != EINTR && errno != ECONNABORTED) {
			log_limited_error("cannot accept a control connection: %s", strerror(errno));
			accept_pause(s, true);
			return;
		}
	}
}

/* --- answers --- */

/* 0 or -E; the caller drops the connection on failure: a peer that does not read its answers is of no use. */
static int conn_send(struct conn *c, const void *buf, size_t size)
{
	ssize_t n;

	do
		n = send(c->fd, buf, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int answer_send(struct conn *c, int result)
{
	struct ctl_answer ans = {.result = result};

	return conn_send(c, &ans, sizeof(ans));
}

/* Gives the descriptor back: it waits in the connection for whoever has the other end by then. */
static int stash_send(struct conn *c, int fd)
{
	struct ctl_answer ans = {0};
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&ans, sizeof(ans)};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cm), &fd, sizeof(int));
	do
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int welcome_refuse(struct conn *c, int result, const char *reason)
{
	struct ctl_welcome w = {.result = result};

	snprintf(w.reason, sizeof(w.reason), "%s", reason);
	return conn_send(c, &w, sizeof(w));
}

static int welcome_send(struct server *s, struct conn *c, uint32_t client_idx)
{
	enum { FD_MAX = 2 + ARENA_STACK_MAX + ARENA_REGION_MAX };
	const struct server_spec *spec = &s->spec;
	struct ctl_welcome w = {.client_idx = client_idx,
	        .stack_count = s->arena->stack_count,
	        .region_count = spec->region_count};
	char control[CMSG_SPACE(FD_MAX * sizeof(int))] = {0};
	struct iovec iov = {&w, sizeof(w)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
	int fds[FD_MAX];
	struct cmsghdr *cm;
	size_t n = 0;
	ssize_t sent;

	if (c->kind == CONN_OBSERVER)
		w.region_count = 0; /* packets are nobody else's business */
	fds[n++] = c->kind == CONN_CLIENT ? s->arena->fd : s->arena_fd;
	fds[n++] = s->stats_fd;
	for (uint32_t i = 0; i < s->arena->stack_count; i++)
		fds[n++] = spec->stack_fd[i];
	for (uint32_t i = 0; i < w.region_count; i++) {
		w.region[i].fd_offset = spec->region[i].fd_offset;
		w.region[i].size = spec->region[i].size;
		fds[n++] = s->region_fd[i];
	}
	msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
	cm = CMSG_FIRSTHDR(&msg);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(cm), fds, n * sizeof(int));
	do
		sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static int config_send(struct server *s, struct conn *c, bool json)
{
	char *buf = malloc(CTL_TEXT_MAX);
	int n = buf ? s->spec.ops.config_text(s->spec.ops_arg, json, buf, CTL_TEXT_MAX) : -ENOMEM;
	int rc = n < 0 ? n : conn_send(c, buf, (size_t)n);

	free(buf);
	return rc;
}

/* --- messages --- */

struct message {
	struct ctl_request req;
	char words[CTL_WORDS_MAX + 1]; /* CTL_COMMAND; ended by NUL */
	int fd;      /* the descriptor that came along, -1 = none; whoever uses it sets it to -1 */
	bool is_odd; /* more came along than one descriptor */
};

/* The size of the message, 0 at hang-up, or -E. */
static ssize_t message_recv(struct conn *c, struct message *m)
{
	char control[CMSG_SPACE(PASSED_MAX * sizeof(int))];
	struct iovec iov[2] = {{&m->req, sizeof(m->req)}, {m->words, CTL_WORDS_MAX}};
	struct msghdr msg = {
	        .msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	m->fd = -1;
	m->is_odd = false;
	if (n < 0)
		return -errno;
	m->is_odd = (msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&msg); cm; cm = CMSG_NXTHDR(&msg, cm)) {
		size_t count = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
			if (m->fd < 0) {
				m->fd = fd;
			} else {
				close(fd);
				m->is_odd = true;
			}
		}
	}
	return n;
}

/* Our own version's messages are refused in the form that their sender waits for. */
static int version_refuse(struct conn *c, const struct ctl_request *req)
{
	char reason[96];

	if (req->kind != CTL_CLIENT && req->kind != CTL_OBSERVER)
		return answer_send(c, -EPROTO);
	snprintf(reason, sizeof(reason),
	        "the service speaks version %d of its protocol, this program version %u", ARENA_VERSION,
	        req->version);
	return welcome_refuse(c, -EPROTO, reason);
}

static int join_client(struct server *s, struct conn *c, const struct ctl_request *req)
{
	int idx, rc;

	c->pid = c->pid ? c->pid : req->pid;
	idx = slot_take(s, c->pid, req->program);
	if (idx < 0) {
		char reason[96];

		snprintf(reason, sizeof(reason), "all %u client slots are taken (max_clients)",
		        s->arena->client_count);
		log_limited_warning("pid %d (%s) was refused: %s", (int)c->pid, req->program, reason);
		return welcome_refuse(c, idx, reason);
	}
	c->client_idx = (uint32_t)idx;
	atomic_store(&arena_client(s->arena, c->client_idx)->uid, c->uid);
	conn_kind_set(s, c, CONN_CLIENT);
	rc = welcome_send(s, c, c->client_idx);
	return rc;
}

static int join_forked(struct server *s, struct conn *c, const struct ctl_request *req)
{
	int rc;

	c->pid = c->pid ? c->pid : req->pid;
	rc = slot_adopt(s, req->value, c->pid, req->program);
	if (!rc) {
		c->client_idx = req->value;
		atomic_store(&arena_client(s->arena, c->client_idx)->uid, c->uid);
		conn_kind_set(s, c, CONN_CLIENT);
	}
	return answer_send(c, rc);
}

static int command_serve(struct server *s, struct conn *c, const struct message *m)
{
	struct {
		struct ctl_answer head;
		char text[CTL_TEXT_MAX];
	} *answer = malloc(sizeof(*answer));
	int rc, size;

	if (!answer)
		return -ENOMEM;
	answer->text[0] = 0;
	size = s->spec.ops.command(s->spec.ops_arg, c->uid, m->words, (m->req.value & CTL_COMMAND_JSON) != 0,
	        answer->text, sizeof(answer->text));
	answer->head.result = size < 0 ? size : 0;
	rc = conn_send(c, answer, sizeof(answer->head) + strnlen(answer->text, sizeof(answer->text)));
	free(answer);
	return rc;
}

/* How many bytes of words follow the request. */
static size_t words_size(const struct ctl_request *req)
{
	return req->kind == CTL_COMMAND ? req->value & ~CTL_COMMAND_JSON : 0;
}

/* 0; -EPROTO for a message that makes no sense on this connection; another -E when it cannot be answered. */
static int message_serve(struct server *s, struct conn *c, struct message *m)
{
	const struct ctl_request *req = &m->req;
	int rc;

	switch (req->kind) {
	case CTL_CLIENT:
		return c->kind == CONN_NEW ? join_client(s, c, req) : -EPROTO;
	case CTL_OBSERVER:
		if (c->kind != CONN_NEW)
			return -EPROTO;
		conn_kind_set(s, c, CONN_OBSERVER);
		return welcome_send(s, c, UINT32_MAX);
	case CTL_FORKED:
		return c->kind == CONN_NEW ? join_forked(s, c, req) : -EPROTO;
	case CTL_POLLER:
		if (c->kind != CONN_CLIENT || m->fd < 0)
			return -EPROTO;
		rc = poller_set(s, c->client_idx, req->value, m->fd);
		m->fd = -1;
		return answer_send(c, rc);
	case CTL_POLLER_FREE:
		if (c->kind != CONN_CLIENT)
			return -EPROTO;
		poller_retire(s, c->client_idx, req->value);
		return 0;
	case CTL_STASH:
		if (c->kind != CONN_CLIENT || m->fd < 0)
			return -EPROTO;
		return stash_send(c, m->fd);
	case CTL_SYNC:
		return c->kind == CONN_CLIENT ? answer_send(c, 0) : -EPROTO;
	case CTL_CONFIG:
		return c->kind == CONN_NEW ? -EPROTO : config_send(s, c, req->value == 1);
	case CTL_CAPTURE:
		if (c->kind != CONN_NEW || m->fd < 0)
			return -EPROTO;
		rc = wiretap_begin(s, c, m->fd);
		if (rc == 1)
			conn_kind_set(s, c, CONN_CAPTURE);
		return rc < 0 ? rc : 0;
	case CTL_COMMAND:
		return c->kind == CONN_OBSERVER ? command_serve(s, c, m) : -EPROTO;
	default:
		return -EPROTO;
	}
}

static void conn_serve(struct server *s, struct conn *c)
{
	struct message m;
	ssize_t n = message_recv(c, &m);
	int rc = 0;

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		conn_drop(s, c);
		return;
	}
	m.req.program[sizeof(m.req.program) - 1] = 0;
	m.words[n > (ssize_t)sizeof(m.req) ? (size_t)n - sizeof(m.req) : 0] = 0;
	if (n < (ssize_t)sizeof(m.req) || m.is_odd || m.req.magic != CTL_MAGIC)
		rc = -EPROTO;
	else if (m.req.version != ARENA_VERSION)
		rc = version_refuse(c, &m.req);
	else if ((size_t)n - sizeof(m.req) != words_size(&m.req))
		rc = -EPROTO;
	else
		rc = message_serve(s, c, &m);
	if (m.fd >= 0)
		close(m.fd);
	if (rc == -EPROTO)
		conn_refuse(s, c, "a message that makes no sense");
	else if (rc)
		conn_drop(s, c); /* gone before it read the answer */
}

/* --- the clock --- */

/* Sockets that were handed over exec and that the new image did not take: it has no library of ours. */
static void tickets_end(struct server *s, uint64_t now_ns)
{
	for (struct conn *c = s->conns, *next; c; c = next) {
		next = c->next;
		if (c->kind != CONN_CLIENT || now_ns - c->since_ns < EXEC_LIMIT_NS ||
		        atomic_load(&arena_client(s->arena, c->client_idx)->ticket_kind) != TICKET_EXEC)
			continue;
		log_limited_warning("pid %d did not take its sockets over exec: they end", (int)c->pid);
		conn_drop(s, c);
	}
}

static void tick_set(struct server *s)
{
	uint32_t ms = s->job_count                                                ? TICK_JOB_MS
	              : s->used_count || s->conn_new_count || s->is_accept_paused ? TICK_SLOW_MS
	                                                                          : 0;
	struct itimerspec it = {
	        .it_interval = {.tv_nsec = ms * 1000000l}, .it_value = {.tv_nsec = ms * 1000000l}};

	if (ms != s->tick_ms && !timerfd_settime(s->timer_fd, 0, &it, NULL))
		s->tick_ms = ms;
}

static void tick(struct server *s)
{
	uint64_t now_ns = clock_now_ns(), drop;

	if (read(s->timer_fd, &drop, sizeof(drop)) < 0)
		return;
	slots_scan(s, now_ns);
	tickets_end(s, now_ns);
	accept_pause(s, false);
	for (struct conn *c = s->conns, *next; c && s->conn_new_count; c = next) {
		next = c->next;
		if (c->kind == CONN_NEW && now_ns - c->since_ns > NEW_LIMIT_NS)
			conn_drop(s, c); /* it never said what it wants */
	}
}

void server_serve(struct server *s)
{
	struct epoll_event ev[EVENT_BURST];
	uint32_t used = s->used_count;
	int n = epoll_wait(s->epoll_fd, ev, EVENT_BURST, 0);
	bool is_tick = false, has_new = false;

	/* connections first: only their own event may end one while its pointer is in ev */
	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr == s)
			has_new = true;
		else if (ev[i].data.ptr == &s->timer_fd)
			is_tick = true;
		else
			conn_serve(s, ev[i].data.ptr);
	}
	if (has_new)
		accept_all(s);
	if (is_tick)
		tick(s);
	else if (s->used_count != used || s->job_count)
		slots_scan(s,
		        clock_now_ns()); /* a parent that has just ended may have left a slot for its child */
	jobs_run(s);
	tick_set(s);
}

/* --- start and stop --- */

static int listen_open(struct server *s, char *err, size_t err_size)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
	int rc;

	strcpy(addr.sun_path, s->socket_path);
	s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0)
		goto fail;
	if (unlink(s->socket_path) < 0 && errno != ENOENT)
		goto fail;
	/* listening comes last: whoever gets through finds a service that is ready */
	if (bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	        chmod(s->socket_path, 0666) < 0 ||
	        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->listen_fd, &ev) < 0 ||
	        listen(s->listen_fd, LISTEN_BACKLOG) < 0)
		goto fail;
	return 0;
fail:
	rc = -errno;
	snprintf(err, err_size, "cannot listen at %s: %s", s->socket_path, strerror(-rc));
	return rc;
}

int server_create(struct server **out, const struct server_spec *spec, char *err, size_t err_size)
{
	struct server *s = calloc(1, sizeof(*s));
	struct epoll_event ev = {.events = EPOLLIN};
	int rc = -ENOMEM;

	if (!s)
		goto no_memory;
	s->spec = *spec;
	s->arena = spec->arena;
	s->epoll_fd = s->listen_fd = s->timer_fd = s->arena_fd = s->stats_fd = -1;
	for (int i = 0; i < ARENA_REGION_MAX; i++)
		s->region_fd[i] = -1;
	s->slots = calloc(s->arena->client_count, sizeof(*s->slots));
	s->pollers = calloc(s->arena->poller_count, sizeof(*s->pollers));
	if (!s->slots || !s->pollers)
		goto no_memory;
	for (uint32_t i = 0; i < s->arena->poller_count; i++)
		s->pollers[i].fd = -1;
	if (strlen(spec->socket_path) >= sizeof(s->socket_path)) {
		snprintf(err, err_size, "the path of the socket is too long: %s", spec->socket_path);
		rc = -ENAMETOOLONG;
		goto fail;
	}
	strcpy(s->socket_path, spec->socket_path);
	s->arena_fd = fd_readonly(s->arena->fd);
	s->stats_fd = fd_readonly(spec->stats_fd);
	rc = s->arena_fd < 0 ? s->arena_fd : s->stats_fd < 0 ? s->stats_fd : 0;
	for (uint32_t i = 0; i < spec->region_count && rc == 0; i++) {
		s->region_fd[i] = fd_readonly(spec->region[i].fd);
		rc = s->region_fd[i] < 0 ? s->region_fd[i] : 0;
	}
	if (rc) {
		snprintf(err, err_size, "cannot open shared memory for reading (is /proc there?): %s",
		        strerror(-rc));
		goto fail;
	}
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	ev.data.ptr = &s->timer_fd;
	if (s->epoll_fd < 0 || s->timer_fd < 0 ||
	        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->timer_fd, &ev) < 0) {
		rc = -errno;
		snprintf(err, err_size, "cannot make the control loop: %s", strerror(-rc));
		goto fail;
	}
	rc = listen_open(s, err, err_size);
	if (rc)
		goto fail;
	*out = s;
	return 0;
no_memory:
	snprintf(err, err_size, "out of memory for the control server");
fail:
	server_destroy(s);
	return rc;
}

int server_fd(const struct server *s)
{
	return s->epoll_fd;
}

uint32_t server_client_count(const struct server *s)
{
	return s->used_count;
}

void server_close(struct server *s)
{
	if (!s || s->listen_fd < 0)
		return;
	unlink(s->socket_path);
	epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, s->listen_fd, NULL);
	close(s->listen_fd);
	s->listen_fd = -1;
	/* one that became a client now would have a service that its children do not find */
	for (struct conn *c = s->conns, *next; c; c = next) {
		next = c->next;
		if (c->kind == CONN_NEW)
			conn_drop(s, c);
	}
}

void server_listen_again(struct server *s)
{
	if (s->listen_fd >= 0 && listen(s->listen_fd, LISTEN_BACKLOG) < 0)
		log_warning("control socket: %s", strerror(errno));
}

void server_hang_up(struct server *s)
{
	server_close(s);
	for (struct conn *c = s->conns; c; c = c->next)
		shutdown(c->fd, SHUT_RDWR);
	for (uint32_t i = 0; i < s->arena->poller_count; i++)
		if (s->pollers[i].fd >= 0)
			shutdown(s->pollers[i].fd, SHUT_RDWR);
}

static void fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

void server_destroy(struct server *s)
{
	if (!s)
		return;
	server_close(s);
	while (s->conns) {
		s->conns->kind = CONN_OBSERVER; /* nothing is left to clean up */
		conn_drop(s, s->conns);
	}
	if (s->slots && s->pollers)
		slots_destroy(s);
	fd_close(s->timer_fd);
	fd_close(s->epoll_fd);
	fd_close(s->arena_fd);
	fd_close(s->stats_fd);
	for (int i = 0; i < ARENA_REGION_MAX; i++)
		fd_close(s->region_fd[i]);
	free(s);
}
