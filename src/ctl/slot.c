/* slot.c - client slots, the event fds of their pollers, and cleaning up after clients that are gone.
 *
 * Control thread. Owns every transition of client.state except FREE -> FORKING, which a parent makes before
 * it forks. A stack may use an event fd for as long as it can have read its number: so numbers are first
 * taken out of poller_fds, then every stack passes a barrier, then they are closed. Stacks only count down; a
 * short timer looks whether they have, so that no stack ever wakes this thread.
 */
#include "server_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "ready.h"

LOG_MODULE("ctl");

#define FORK_LIMIT_NS (10 * CLOCK_NS_PER_S)
#define FORK_DEAD_NS (1 * CLOCK_NS_PER_S)
enum { JOB_MAX = 65536 };

static void counts_publish(struct server *s)
{
	stat_set(s->spec.stats, STAT_clients_attached, s->active_count);
}

static void slot_set(struct server *s, uint32_t idx, enum slot_state state)
{
	struct slot *slot = &s->slots[idx];

	s->used_count += (uint32_t)(state != SLOT_FREE) - (uint32_t)(slot->state != SLOT_FREE);
	s->active_count += (uint32_t)(state == SLOT_ACTIVE) - (uint32_t)(slot->state == SLOT_ACTIVE);
	slot->state = state;
	counts_publish(s);
}

/* The name comes from the client: ended, and fit for a terminal. */
static void program_set(struct client *c, const char *program)
{
	char name[sizeof(c->program)] = "";

	for (size_t i = 0; i + 1 < sizeof(name) && program[i]; i++)
		name[i] = program[i] < 0x20 || program[i] == 0x7f ? '?' : program[i];
	memcpy(c->program, name, sizeof(name));
}

static void slot_enter(struct server *s, uint32_t idx, pid_t pid, const char *program)
{
	struct client *c = arena_client(s->arena, idx);

	client_seen(s->arena, idx);
	atomic_fetch_add(&c->gen, 1);
	atomic_store(&c->pid, pid);
	program_set(c, program);
	slot_set(s, idx, SLOT_ACTIVE);
	log_debug("client %u: pid %d (%s) attached", idx, (int)pid, c->program);
}

int slot_take(struct server *s, pid_t pid, const char *program)
{
	for (uint32_t i = 0; i < s->arena->client_count; i++) {
		uint32_t none = CLIENT_FREE;

		if (s->slots[i].state != SLOT_FREE ||
		        !atomic_compare_exchange_strong(
		                &arena_client(s->arena, i)->state, &none, CLIENT_ACTIVE))
			continue;
		slot_enter(s, i, pid, program);
		return (int)i;
	}
	return -EUSERS;
}

int slot_adopt(struct server *s, uint32_t idx, pid_t pid, const char *program)
{
	uint32_t forking = CLIENT_FORKING;

	if (idx >= s->arena->client_count ||
	        (s->slots[idx].state != SLOT_FREE && s->slots[idx].state != SLOT_FORKING) ||
	        !atomic_compare_exchange_strong(&arena_client(s->arena, idx)->state, &forking, CLIENT_ACTIVE))
		return -ESRCH;
	slot_enter(s, idx, pid, program);
	return 0;
}

/* --- jobs --- */

static struct job *job_add(struct server *s, enum job_kind kind, uint32_t client_idx)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->kind = kind;
	j->client_idx = client_idx;
	j->poller = BLOCK_NONE;
	j->fd = -1;
	j->next = s->jobs;
	s->jobs = j;
	s->job_count++;
	return j;
}

static bool poller_is_of(const struct server *s, uint32_t poller, uint32_t client_idx)
{
	return atomic_load(&s->arena->pollers[poller].owner) == client_idx + 1;
}

/* Between the rounds: nobody shall find the dead client's event fds any more. */
static void client_pollers_hide(struct server *s, uint32_t client_idx)
{
	for (uint32_t i = 0; i < s->arena->poller_count; i++)
		if (s->pollers[i].client == client_idx + 1 && !s->pollers[i].is_retiring)
			atomic_store(&s->spec.poller_fds[i], -1);
}

static void client_finish(struct server *s, uint32_t idx)
{
	struct client *c = arena_client(s->arena, idx);
	_Atomic uint64_t *holds = arena_holds(s->arena, idx);

	for (uint32_t i = 0; i < s->arena->poller_count; i++) {
		struct poller_slot *p = &s->pollers[i];

		if (p->is_retiring)
			continue;
		if (p->client == idx + 1) {
			if (p->fd >= 0)
				close(p->fd);
			p->fd = -1;
			p->client = 0;
		}
		if (poller_is_of(s, i, idx))
			poller_free(s->arena, i);
	}
	for (uint32_t w = 0; w < s->arena->endpoint_count / 64; w++)
		atomic_store_explicit(&holds[w], 0, memory_order_relaxed);
	for (int i = 0; i < CALL_COUNT; i++)
		atomic_store(&c->call[i].state, CALL_FREE);
	for (int i = 0; i < FALLBACK_COUNT; i++)
		atomic_store(&c->fallback[i].fd, -1);
	memset(c->program, 0, sizeof(c->program));
	atomic_store(&c->pid, 0);
	atomic_store(&c->ticket_cookie, 0);
	atomic_store(&c->ticket_kind, TICKET_NONE);
	slot_set(s, idx, SLOT_FREE);
	atomic_store(&c->state, CLIENT_FREE);
	log_debug("client %u: its sockets are closed", idx);
}

static void poller_finish(struct server *s, struct job *j)
{
	if (j->fd >= 0)
		close(j->fd);
	if (j->poller == BLOCK_NONE)
		return;
	s->pollers[j->poller].is_retiring = false;
	s->pollers[j->poller].client = 0;
	if (poller_is_of(s, j->poller, j->client_idx))
		poller_free(s->arena, j->poller);
}

/* True when the job is over. */
static bool job_advance(struct server *s, struct job *j)
{
	for (;;) {
		if (!j->is_posted) {
			bool is_gone = j->kind == JOB_CLIENT && !j->is_gone_done;

			atomic_store(&j->left, s->arena->stack_count);
			if (is_gone ? s->spec.ops.client_gone(s->spec.ops_arg, j->client_idx, &j->left)
			            : s->spec.ops.barrier(s->spec.ops_arg, &j->left))
				return false;
			j->is_posted = true;
		}
		if (atomic_load_explicit(&j->left, memory_order_acquire))
			return false;
		if (j->kind == JOB_CAPTURE) {
			s->spec.ops.capture_free(s->spec.ops_arg, j->capture);
			return true;
		}
		if (j->kind == JOB_POLLER) {
			poller_finish(s, j);
			return true;
		}
		if (j->is_gone_done) {
			client_finish(s, j->client_idx);
			return true;
		}
		client_pollers_hide(s, j->client_idx);
		j->is_gone_done = true;
		j->is_posted = false;
	}
}

void jobs_run(struct server *s)
{
	struct job **at = &s->jobs, *j;

	while ((j = *at)) {
		if (!job_advance(s, j)) {
			at = &j->next;
			continue;
		}
		*at = j->next;
		s->job_count--;
		free(j);
	}
}

void capture_end(struct server *s, uint32_t capture)
{
	struct job *j;

	s->spec.ops.capture_stop(s->spec.ops_arg, capture);
	j = job_add(s, JOB_CAPTURE, 0);
	if (j)
		j->capture = capture;
	else
		log_error("out of memory: a capture's memory stays until the service ends");
}

void slots_destroy(struct server *s)
{
	struct job *j;

	while ((j = s->jobs)) {
		s->jobs = j->next;
		if (j->fd >= 0)
			close(j->fd);
		free(j);
	}
	for (uint32_t i = 0; s->pollers && i < s->arena->poller_count; i++) {
		atomic_store(&s->spec.poller_fds[i], -1);
		if (s->pollers[i].fd >= 0)
			close(s->pollers[i].fd);
	}
	free(s->pollers);
	free(s->slots);
}

/* --- the end of a client --- */

static bool holds_any(const struct server *s, uint32_t idx)
{
	_Atomic uint64_t *holds = arena_holds(s->arena, idx);

	for (uint32_t w = 0; w < s->arena->endpoint_count / 64; w++)
		if (atomic_load_explicit(&holds[w], memory_order_relaxed))
			return true;
	return false;
}

void slot_gone(struct server *s, uint32_t idx)
{
	struct client *c = arena_client(s->arena, idx);

	/* One that closed its sockets before it left has said all there is to say. */
	if (holds_any(s, idx) && !atomic_load(&c->ticket_kind))
		stat_add(s->spec.stats, STAT_clients_died, 1);
	atomic_store(&c->state, CLIENT_DEAD);
	slot_set(s, idx, SLOT_GONE);
	if (!job_add(s, JOB_CLIENT, idx))
		log_error("out of memory: client %u cannot be cleaned up after", idx);
	log_debug("client %u: pid %d is gone", idx, (int)atomic_load(&c->pid));
}

static bool process_is_dead(pid_t pid)
{
	char path[32], text[512], *end;
	ssize_t n;
	int fd;

	if (kill(pid, 0) < 0 && errno == ESRCH)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return true;
	text[n] = 0;
	end = strrchr(text, ')');
	return end && end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
}

/* True when nobody will ever connect for this slot. */
static bool fork_failed(struct slot *slot, pid_t pid, uint64_t now_ns)
{
	if (now_ns - slot->since_ns > FORK_LIMIT_NS)
		return true;
	if (pid <= 0 || !process_is_dead(pid)) {
		slot->dead_since_ns = 0;
		return false;
	}
	if (!slot->dead_since_ns)
		slot->dead_since_ns = now_ns;
	return now_ns - slot->dead_since_ns > FORK_DEAD_NS;
}

void slots_scan(struct server *s, uint64_t now_ns)
{
	for (uint32_t i = 0; i < s->arena->client_count; i++) {
		struct slot *slot = &s->slots[i];
		struct client *c = arena_client(s->arena, i);
		uint32_t forking = CLIENT_FORKING;

		if (slot->state != SLOT_FREE && slot->state != SLOT_FORKING)
			continue;
		if (atomic_load(&c->state) != CLIENT_FORKING) {
			if (slot->state == SLOT_FORKING) /* its parent could not fork and took it back */
				slot_set(s, i, SLOT_FREE);
			continue;
		}
		if (slot->state == SLOT_FREE) {
			slot->since_ns = now_ns;
			slot->dead_since_ns = 0;
			slot_set(s, i, SLOT_FORKING);
		}
		if (fork_failed(slot, atomic_load(&c->pid), now_ns) &&
		        atomic_compare_exchange_strong(&c->state, &forking, CLIENT_DEAD)) {
			log_info("client %u: its forked process (pid %d) never came", i,
			        (int)atomic_load(&c->pid));
			slot_gone(s, i);
		}
	}
}

/* --- pollers --- */

/* Stacks write to it, without blocking and with SIGPIPE ignored: an eventfd, or one end of a unix socket pair
 * whose other end a thread sleeps on. Anything else is refused. */
static bool is_wake_fd(int fd)
{
	static const char want[] = "anon_inode:[eventfd]";
	char path[32], text[sizeof(want)];
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len))
		return domain == AF_UNIX;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, text, sizeof(text)) == (ssize_t)sizeof(want) - 1 &&
	       !memcmp(text, want, sizeof(want) - 1);
}

int poller_set(struct server *s, uint32_t client_idx, uint32_t poller, int fd)
{
	struct poller_slot *p;
	int flags = fcntl(fd, F_GETFL), rc = -EINVAL;

	if (poller >= s->arena->poller_count || s->pollers[poller].is_retiring ||
	        !poller_is_of(s, poller, client_idx))
		goto refuse;
	p = &s->pollers[poller];
	if (p->client && p->client != client_idx + 1)
		goto refuse;
	if (!is_wake_fd(fd) || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		goto refuse;
	if (p->fd >= 0) {
		struct job *j = s->job_count < JOB_MAX ? job_add(s, JOB_POLLER, client_idx) : NULL;

		rc = -EBUSY;
		if (!j)
			goto refuse;
		j->fd = p->fd;
	}
	p->fd = fd;
	p->client = client_idx + 1;
	atomic_store(&s->spec.poller_fds[poller], fd);
	return 0;
refuse:
	close(fd);
	return rc;
}

void poller_retire(struct server *s, uint32_t client_idx, uint32_t poller)
{
	struct poller_slot *p;
	struct job *j;

	if (poller >= s->arena->poller_count || s->pollers[poller].is_retiring ||
	        !poller_is_of(s, poller, client_idx))
		return;
	p = &s->pollers[poller];
	if (p->client && p->client != client_idx + 1)
		return;
	j = job_add(s, JOB_POLLER, client_idx);
	if (!j)
		return; /* it stays with its client, and ends with it */
	j->fd = p->fd;
	j->poller = poller;
	p->fd = -1;
	p->client = client_idx + 1;
	p->is_retiring = true;
	atomic_store(&s->spec.poller_fds[poller], -1);
}
