/* attach.c - joining the service and posting to its stacks.
 *
 * Runs in application threads (and in pronkctl as an observer). Owns the control connection of this process
 * and its process-local locks. The service's side of the messages is src/ctl, of the rings src/stack.
 */
#include "attach.h"
#include "libc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include "clock.h"
#include "compiler.h"
#include "log.h"
#include "raw.h"

enum {
	FD_FLOOR = 100,
	JOIN_TIMEOUT_MS = 5000,
	FD_MAX = 2 + ARENA_STACK_MAX + ARENA_REGION_MAX,
	GRANT_WAIT_NS = 100000000,
	GRANT_SPIN_NS = 2000000,
	CALL_SPINS = 128, /* pauses before a caller sleeps: tens of microseconds */
};

static _Atomic bool is_sandboxed;

void attach_sandbox(void)
{
	atomic_store(&is_sandboxed, true);
}

bool attach_is_sandboxed(void)
{
	return atomic_load_explicit(&is_sandboxed, memory_order_relaxed);
}

static void yield(void)
{
	const struct timespec nap = {.tv_nsec = 1000};

	if (unlikely(attach_is_sandboxed()))
		RAW(SYS_nanosleep, &nap, NULL);
	else
		sched_yield();
}

void spin_pause(void)
{
	if (likely(!attach_is_sandboxed())) {
		sched_yield();
		return;
	}
	for (int i = 0; i < 16; i++)
		cpu_relax();
}

void spin_lock(_Atomic uint32_t *lock)
{
	for (uint32_t n = 0; atomic_exchange_explicit(lock, 1, memory_order_acquire); n++) {
		while (atomic_load_explicit(lock, memory_order_relaxed)) {
			if (n++ > 200)
				yield();
			else
				cpu_relax();
		}
	}
}

/* Raised in a forked child: thread ids remembered before are the parent's. */
static uint32_t fork_gen;

static uint64_t lock_tag(const struct attach *at)
{
	static __thread uint32_t tid, tid_gen;

	if (unlikely(!tid || tid_gen != fork_gen)) {
		tid = (uint32_t)RAW(SYS_gettid);
		tid_gen = fork_gen;
	}
	return (uint64_t)(at->client_idx + 1) << 32 | tid;
}

bool ep_trylock(_Atomic uint64_t *lock)
{
	uint64_t none = 0;

	return atomic_compare_exchange_strong(lock, &none, UINT64_MAX);
}

/* The holder's process is gone: the service has taken its slot away, or given it to somebody else. A process
 * that is a zombie counts, one in another pid namespace does not matter. */
static bool is_dead_holder(const struct attach *at, uint64_t tag)
{
	uint32_t client = (uint32_t)(tag >> 32) - 1;

	return tag != UINT64_MAX && client < at->arena.client_count && client != at->client_idx &&
	       atomic_load(&arena_client(&at->arena, client)->state) != CLIENT_ACTIVE;
}

int ep_lock(struct attach *at, _Atomic uint64_t *lock)
{
	uint64_t tag = lock_tag(at), seen = 0;

	for (uint32_t n = 0; !atomic_compare_exchange_weak_explicit(
	             lock, &seen, tag, memory_order_acquire, memory_order_relaxed);
	        n++) {
		if (seen == tag)
			return -EAGAIN;
		if (n > 64)
			yield();
		else
			cpu_relax();
		if (n % 1024 == 1023 && seen) {
			if (is_dead_holder(at, seen) && atomic_compare_exchange_strong(lock, &seen, tag))
				return 0;
			if (attach_check_dead(at))
				return -ECONNRESET;
		}
		seen = 0;
	}
	return 0;
}

void ep_unlock(_Atomic uint64_t *lock)
{
	atomic_store_explicit(lock, 0, memory_order_release);
}

/* Its address is this thread's name. */
static __thread char driver_mark;

static uint32_t drive(struct attach *at, uint32_t (*how)(void))
{
	atomic_store_explicit(&at->driver->last, &driver_mark, memory_order_relaxed);
	at->driver->posted = 0;
	return how();
}

uint32_t attach_drive_here(struct attach *at)
{
	return drive(at, at->driver->turn);
}

uint32_t attach_spin(struct attach *at)
{
	return drive(at, at->driver->spin);
}

void attach_relax(struct attach *at)
{
	if (!attach_drive(at))
		cpu_relax();
}

bool attach_drive_seldom(struct attach *at)
{
	enum { SELDOM = 16 };
	static __thread uint32_t looks;

	if (likely(!at->driver) || ++looks % SELDOM)
		return false;
	return attach_drive_here(at) != 0;
}

void attach_push_here(struct attach *at, size_t bytes)
{
	/* so much is worth a turn of its own: the peer can begin with it */
	enum { PUSH_POSTS = 4, PUSH_BYTES = 8192 };

	if (atomic_load_explicit(&at->driver->last, memory_order_relaxed) == &driver_mark) {
		at->driver->posted += bytes < PUSH_BYTES ? 1 : PUSH_POSTS;
		if (at->driver->posted >= PUSH_POSTS)
			attach_drive_here(at);
		return;
	}
	at->driver->push();
}

int attach_sleep_here(struct attach *at, uint64_t *limit_ns)
{
	int fd = at->driver->sleep(limit_ns);

	if (fd != -EBUSY)
		return fd;
	spin_pause(); /* whoever runs it may want this very core */
	return -EAGAIN;
}

bool attach_is_driving(const struct attach *at)
{
	return at->driver && at->driver->is_mine();
}

/* Moves a descriptor out of the range that applications expect to be handed. */
static int fd_high(int fd)
{
	int high = libc.fcntl(fd, F_DUPFD_CLOEXEC, FD_FLOOR);

	if (high < 0)
		return fd;
	libc.close(fd);
	return high;
}

static int ctl_connect(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = JOIN_TIMEOUT_MS / 1000};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = libc.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* a service that is stopped, with a queue full of others who want to join, must not hold the program
	 * for ever: unix(7) waits in connect as long as a send may take */
	libc.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (libc.connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int rc = errno == EAGAIN ? -ETIMEDOUT : -errno;

		libc.close(fd);
		return rc;
	}
	return fd_high(fd);
}

static void program_name(char *buf, size_t size)
{
	int fd = (int)RAW(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : libc.read(fd, buf, size - 1);

	if (fd >= 0)
		libc.close(fd);
	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
}

static int ctl_send(int fd, enum ctl_kind kind, uint32_t value, int pass_fd)
{
	struct ctl_request req = {
	        .magic = CTL_MAGIC, .version = ARENA_VERSION, .kind = kind, .pid = getpid(), .value = value};
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&req, sizeof(req)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	program_name(req.program, sizeof(req.program));
	if (pass_fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
	}
	return libc.sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(req) ? 0 : -errno;
}

static ssize_t ctl_recv(int fd, void *buf, size_t size)
{
	ssize_t n;

	do
		n = libc.recv(fd, buf, size, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? (errno == EAGAIN ? -ETIMEDOUT : -errno) : n;
}

/* Receives the welcome and its descriptors. Every received descriptor is in fds, also when an error is
 * returned. */
static int welcome_recv(int fd, struct ctl_welcome *w, int *fds, uint32_t *fd_count)
{
	char control[CMSG_SPACE(FD_MAX * sizeof(int))];
	struct iovec iov = {w, sizeof(*w)};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n;

	*fd_count = 0;
	do
		n = libc.recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*fd_count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
	}
	if (n != (ssize_t)sizeof(*w))
		return n ? -EPROTO : -ECONNRESET;
	return w->result;
}

int attach_join(struct attach *at, const char *path, enum ctl_kind kind, char *err, size_t err_size)
{
	struct ctl_welcome w;
	int fds[FD_MAX];
	uint32_t fd_count = 0, used = 0;
	int rc;

	memset(at, 0, sizeof(*at));
	w.result = 0;
	at->arena.fd = -1;
	at->stats_fd = -1;
	at->ctl_fd = ctl_connect(path);
	if (at->ctl_fd < 0) {
		if (at->ctl_fd == -ETIMEDOUT)
			snprintf(err, err_size, "the service at %s does not answer", path);
		else
			snprintf(err, err_size, "no service at %s (%s)", path, strerror(-at->ctl_fd));
		return at->ctl_fd;
	}
	rc = ctl_send(at->ctl_fd, kind, 0, -1);
	if (!rc)
		rc = welcome_recv(at->ctl_fd, &w, fds, &fd_count);
	if (rc) {
		if (rc == w.result && w.reason[0])
			snprintf(err, err_size, "%s", w.reason);
		else if (rc == -ETIMEDOUT)
			snprintf(err, err_size, "the service at %s does not answer", path);
		else
			snprintf(err, err_size, "the service at %s: %s", path, strerror(-rc));
		goto fail;
	}
	rc = -EPROTO;
	if (w.stack_count > ARENA_STACK_MAX || w.region_count > ARENA_REGION_MAX ||
	        fd_count != 2 + w.stack_count + w.region_count) {
		snprintf(err, err_size, "the service at %s speaks another version", path);
		goto fail;
	}
	for (uint32_t i = 0; i < fd_count; i++)
		fds[i] = fd_high(fds[i]);
	rc = arena_map(&at->arena, fds[0], kind == CTL_CLIENT);
	if (rc) {
		snprintf(err, err_size, "cannot map the service's memory: %s", strerror(-rc));
		goto fail;
	}
	used = 1;
	for (uint32_t i = 0; i < w.region_count && kind == CTL_CLIENT; i++) {
		rc = arena_map_region(
		        &at->arena, fds[2 + w.stack_count + i], w.region[i].fd_offset, w.region[i].size);
		if (rc) {
			snprintf(err, err_size, "cannot map packet memory: %s", strerror(-rc));
			goto fail;
		}
	}
	for (uint32_t i = 0; i < w.region_count; i++)
		libc.close(fds[2 + w.stack_count + i]);
	at->stats_fd = fds[1];
	for (uint32_t i = 0; i < w.stack_count; i++)
		at->stack_fd[i] = fds[2 + i];
	at->client_idx = w.client_idx;
	if (kind == CTL_CLIENT)
		at->client = arena_client(&at->arena, w.client_idx);
	return 0;
fail:
	for (uint32_t i = used; i < fd_count; i++)
		libc.close(fds[i]);
	arena_close(&at->arena);
	libc.close(at->ctl_fd);
	at->ctl_fd = -1;
	return rc;
}

void attach_leave(struct attach *at)
{
	for (uint32_t i = 0; i < at->arena.stack_count; i++)
		libc.close(at->stack_fd[i]);
	if (at->stats_fd >= 0)
		libc.close(at->stats_fd);
	if (at->ctl_fd >= 0)
		libc.close(at->ctl_fd);
	at->ctl_fd = at->stats_fd = -1;
	arena_close(&at->arena);
}

int attach_rejoin(struct attach *at, const char *path, uint32_t client_idx)
{
	struct ctl_answer ans;
	ssize_t n;
	int rc;

	libc.close(at->ctl_fd);
	fork_gen++;
	for (uint32_t i = 0; i < ARENA_STACK_MAX; i++)
		at->post_lock[i] = at->grant_lock[i] = 0;
	at->call_lock = at->ctl_lock = 0;
	at->client_idx = client_idx;
	at->client = arena_client(&at->arena, client_idx);
	at->ctl_fd = ctl_connect(path);
	if (at->ctl_fd < 0) {
		rc = at->ctl_fd;
		goto dead;
	}
	rc = ctl_send(at->ctl_fd, CTL_FORKED, client_idx, -1);
	if (rc)
		goto dead;
	n = ctl_recv(at->ctl_fd, &ans, sizeof(ans));
	rc = n < 0 ? (int)n : n == (ssize_t)sizeof(ans) ? ans.result : -ECONNRESET;
	if (!rc)
		return 0;
dead:
	atomic_store(&at->is_dead, 1);
	return rc;
}

int attach_ticket(struct attach *at, const char *path, uint32_t slot, int kernel_fd)
{
	struct client *c = arena_client(&at->arena, slot);
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	struct ctl_answer ans;
	int fd = ctl_connect(path), rc;
	ssize_t n;

	if (fd < 0)
		return fd;
	rc = libc.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0 ? -errno : 0;
	if (!rc)
		rc = ctl_send(fd, CTL_FORKED, slot, -1);
	if (!rc) {
		n = ctl_recv(fd, &ans, sizeof(ans));
		rc = n < 0 ? (int)n : n == (ssize_t)sizeof(ans) ? ans.result : -ECONNRESET;
	}
	if (!rc && kernel_fd >= 0)
		rc = ctl_send(fd, CTL_STASH, 0, kernel_fd);
	if (rc) {
		libc.close(fd);
		return rc;
	}
	atomic_store(&c->ticket_cookie, cookie);
	return fd;
}

int attach_stashed(int ticket_fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct ctl_answer ans;
	struct iovec iov = {&ans, sizeof(ans)};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	ssize_t n;
	int fd;

	do
		n = libc.recvmsg(ticket_fd, &msg, MSG_PEEK | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (n != (ssize_t)sizeof(ans) || !c || c->cmsg_type != SCM_RIGHTS ||
	        c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

int attach_poller(struct attach *at, uint32_t poller, int event_fd)
{
	struct ctl_answer ans;
	ssize_t n;
	int rc, cancel;

	/* no thread is cancelled with the lock held */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	spin_lock(&at->ctl_lock);
	rc = ctl_send(at->ctl_fd, CTL_POLLER, poller, event_fd);
	if (!rc) {
		n = ctl_recv(at->ctl_fd, &ans, sizeof(ans));
		rc = n < 0 ? (int)n : n == (ssize_t)sizeof(ans) ? ans.result : -ECONNRESET;
	}
	spin_unlock(&at->ctl_lock);
	pthread_setcancelstate(cancel, NULL);
	return rc;
}

void attach_poller_free(struct attach *at, uint32_t poller)
{
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	spin_lock(&at->ctl_lock);
	ctl_send(at->ctl_fd, CTL_POLLER_FREE, poller, -1);
	spin_unlock(&at->ctl_lock);
	pthread_setcancelstate(cancel, NULL);
}

bool attach_check_dead(struct attach *at)
{
	char c;
	long n;

	if (attach_is_dead(at))
		return true;
	if (unlikely(attach_is_sandboxed())) {
		struct pollfd p = {.fd = at->ctl_fd, .events = POLLRDHUP};
		const struct timespec none = {0};

		n = RAW(SYS_ppoll, &p, 1, &none, NULL, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR))
		            ? 0
		            : 1;
	} else {
		n = RAW(SYS_recvfrom, at->ctl_fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	}
	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return false;
	if (!atomic_exchange(&at->is_dead, 1) && at->client)
		log_warning(
		        "the service %.*s has ended: its sockets report errors, new ones are the kernel's",
		        (int)sizeof(at->arena.hdr->name) - 1, at->arena.hdr->name);
	return true;
}

/* After a sequentially consistent change of what the stack looks at before it sleeps. */
static void stack_wake(struct attach *at, uint32_t stack_idx)
{
	struct stack_shared *s = &at->arena.stacks[stack_idx];
	uint64_t one = 1;

	if (atomic_load(&s->sleeping) && atomic_exchange(&s->sleeping, 0)) {
		/* no cancellation point: callers hold locks */
		if (RAW(SYS_write, at->stack_fd[stack_idx], &one, sizeof(one)) < 0)
			attach_check_dead(at);
	}
}

int post(struct attach *at, uint32_t stack_idx, uint64_t entry)
{
	struct req_ring *r = &at->client->stack[stack_idx].req;
	_Atomic uint64_t *pending = &at->arena.stacks[stack_idx].pending[at->client_idx / 64];
	uint64_t bit = 1ull << (at->client_idx % 64);
	uint32_t head;

	if (attach_is_dead(at))
		return -ECONNRESET;
	spin_lock(&at->post_lock[stack_idx]);
	head = atomic_load_explicit(&r->head, memory_order_relaxed);
	for (uint32_t n = 0; head - atomic_load_explicit(&r->tail, memory_order_acquire) >= REQ_RING_SIZE;
	        n++) {
		atomic_fetch_or(pending, bit);
		stack_wake(at, stack_idx);
		attach_drive(at);
		if (n > 100 && attach_check_dead(at)) {
			spin_unlock(&at->post_lock[stack_idx]);
			return -ECONNRESET;
		}
		yield();
	}
	atomic_store_explicit(&r->slot[head % REQ_RING_SIZE], entry, memory_order_relaxed);
	atomic_store_explicit(&r->head, head + 1, memory_order_release);
	spin_unlock(&at->post_lock[stack_idx]);
	/* also when the bit is there already: the stack's exchange comes after this and so sees the entry, or
	 * came before and the bit is new */
	atomic_fetch_or(pending, bit);
	stack_wake(at, stack_idx);
	return 0;
}

void post_doorbell(struct attach *at, struct endpoint *ep, uint32_t bits)
{
	/* Also when the bits are there: the stack takes them by an exchange, which comes after this and then
	 * sees what was published before, or came before and finds nothing here. A mere look could come
	 * before the publication, and the last record of a burst would wait for the next. */
	if (!atomic_fetch_or(&ep->doorbell, bits))
		post(at, ep->stack_idx, POST_ENTRY(POST_DOORBELL, 0, arena_ep_idx(&at->arena, ep)));
}

static struct call *call_take(struct attach *at)
{
	for (;;) {
		for (uint32_t i = 0; i < CALL_COUNT; i++) {
			struct call *c = &at->client->call[i];
			uint32_t none = CALL_FREE;

			if (atomic_compare_exchange_strong(&c->state, &none, CALL_TAKEN))
				return c;
		}
		if (attach_check_dead(at))
			return NULL;
		attach_drive(at);
		yield();
	}
}

int post_call(struct attach *at, uint32_t stack_idx, struct call *c)
{
	struct call *slot = call_take(at);
	uint64_t start;
	int rc;

	if (!slot)
		return -ECONNRESET;
	memcpy(&slot->op, &c->op, sizeof(*c) - offsetof(struct call, op));
	atomic_store(&slot->state, CALL_POSTED);
	rc = post(at, stack_idx, POST_ENTRY(POST_CALL, 0, (uint32_t)(slot - at->client->call)));
	start = clock_now_ns();
	for (uint32_t n = 0; !rc && atomic_load_explicit(&slot->state, memory_order_acquire) != CALL_DONE;
	        n++) {
		struct timespec nap = {.tv_nsec = 2000000};

		if (n < CALL_SPINS) {
			if (!attach_drive(at))
				spin_pause();
			continue;
		}
		attach_drive(at);
		/* only who says so is woken */
		if (!atomic_compare_exchange_strong(&slot->state, &(uint32_t){CALL_POSTED}, CALL_AWAITED) &&
		        atomic_load(&slot->state) != CALL_AWAITED)
			continue;
		RAW(SYS_futex, &slot->state, FUTEX_WAIT, CALL_AWAITED, &nap, NULL, 0);
		if (attach_check_dead(at))
			rc = -ECONNRESET;
		else if (clock_now_ns() - start > 5000000000ull) {
			uint32_t posted = CALL_AWAITED;

			/* the stack frees the slot when it comes to it; unless it has just answered */
			if (atomic_compare_exchange_strong(&slot->state, &posted, CALL_ABANDONED))
				return -ETIMEDOUT;
		}
	}
	memcpy(&c->op, &slot->op, sizeof(*c) - offsetof(struct call, op));
	atomic_store(&slot->state, CALL_FREE);
	return rc;
}

void attach_settle(struct attach *at, uint32_t stack_idx)
{
	if (likely(!at->driver) || attach_is_driving(at))
		return;
	/* what the first meets has posted its rest by then */
	for (int i = 0; i < 2; i++) {
		struct call c = {.op = CALL_BARRIER, .endpoint = ENDPOINT_NONE};

		post_call(at, stack_idx, &c);
	}
}

uint32_t grant_peek(struct attach *at, uint32_t stack_idx)
{
	struct grant_ring *g = &at->client->stack[stack_idx].grant;
	uint32_t tail = atomic_load_explicit(&g->tail, memory_order_relaxed);

	if (tail == atomic_load_explicit(&g->head, memory_order_acquire)) {
		atomic_store(&g->starved, 1);
		return BLOCK_NONE;
	}
	return atomic_load_explicit(&g->slot[tail % GRANT_RING_SIZE], memory_order_relaxed);
}

void grant_take(struct attach *at, uint32_t stack_idx)
{
	struct grant_ring *g = &at->client->stack[stack_idx].grant;

	atomic_store_explicit(
	        &g->tail, atomic_load_explicit(&g->tail, memory_order_relaxed) + 1, memory_order_release);
}

bool grant_has(struct attach *at, uint32_t stack_idx, uint32_t count)
{
	struct grant_ring *g = &at->client->stack[stack_idx].grant;

	if (atomic_load_explicit(&g->head, memory_order_acquire) -
	                atomic_load_explicit(&g->tail, memory_order_relaxed) >=
	        count)
		return true;
	atomic_store(&g->starved, 1);
	return false;
}

static bool has_grant(const struct attach *at, uint32_t stack_idx)
{
	const struct grant_ring *g = &at->client->stack[stack_idx].grant;

	return atomic_load(&g->head) != atomic_load_explicit(&g->tail, memory_order_relaxed);
}

bool post_is_starved(struct attach *at, struct endpoint *ep)
{
	uint32_t state = atomic_load_explicit(&ep->state, memory_order_relaxed);

	if (atomic_load_explicit(&ep->tx_head, memory_order_relaxed) % TX_BLOCK_SIZE ||
	        has_grant(at, ep->stack_idx) || (state != EP_ESTABLISHED && state != EP_DGRAM) ||
	        (atomic_load_explicit(&ep->flags, memory_order_relaxed) & EP_TX_CLOSED) ||
	        (atomic_load_explicit(&ep->app_flags, memory_order_relaxed) & APP_SHUT_WR))
		return false;
	atomic_store(&ep->tx_want, 1);
	atomic_store(&at->client->stack[ep->stack_idx].grant.starved, 1);
	post_doorbell(at, ep, DOORBELL_TX);
	return !has_grant(at, ep->stack_idx);
}

bool grant_await(struct attach *at, struct endpoint *ep)
{
	struct grant_ring *g = &at->client->stack[ep->stack_idx].grant;
	const struct timespec nap = {.tv_nsec = 100000};
	uint64_t start = clock_now_ns(), limit;

	/* the first blocks belong to joining, and take as long as that may */
	limit = atomic_load(&g->head) ? GRANT_WAIT_NS : JOIN_TIMEOUT_MS * 1000000ull;
	post_doorbell(at, ep, DOORBELL_TX);
	for (uint32_t n = 1; !has_grant(at, ep->stack_idx); n++) {
		uint64_t waited;

		if (!atomic_load(&g->starved))
			return has_grant(at, ep->stack_idx);
		attach_drive(at);
		if (n % 64) {
			cpu_relax();
			continue;
		}
		yield();
		waited = clock_now_ns() - start;
		if (waited > GRANT_SPIN_NS)
			RAW(SYS_ppoll, NULL, 0, &nap, NULL, 0); /* its processor is taken by others */
		if (n % 1024 == 0 && (attach_check_dead(at) || waited >= limit))
			return false;
	}
	return true;
}

/* Returns when the service has cleaned up after processes that ended before the call. */
static void deaths_settle(struct attach *at)
{
	uint64_t deadline = clock_now_ns() + 1000000000u;
	const struct timespec nap = {.tv_nsec = 100000};
	struct ctl_answer ans;
	bool is_over = false;

	/* twice: a connection with words left to read is heard out first, one turn of the service for each */
	for (int i = 0; i < 2 && !is_over; i++) {
		spin_lock(&at->ctl_lock);
		is_over = ctl_send(at->ctl_fd, CTL_SYNC, 0, -1) ||
		          ctl_recv(at->ctl_fd, &ans, sizeof(ans)) != (ssize_t)sizeof(ans);
		spin_unlock(&at->ctl_lock);
	}
	for (uint32_t i = 0; i < at->arena.client_count; i++)
		while (atomic_load(&arena_client(&at->arena, i)->state) == CLIENT_DEAD &&
		        clock_now_ns() < deadline)
			libc.ppoll(NULL, 0, &nap, NULL);
}

int post_call_port(struct attach *at, uint32_t stack_idx, struct call *c)
{
	struct call again = *c;
	int rc = post_call(at, stack_idx, c);

	if (rc || c->result != -EADDRINUSE)
		return rc;
	deaths_settle(at);
	*c = again;
	return post_call(at, stack_idx, c);
}
