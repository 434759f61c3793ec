/* ops_wait.c - calls that sleep, and what ends their sleep: data, an end, a connection, a shutdown or close
 * by another thread, a signal; children that share sockets.
 *
 * A wait runs in one or two threads, or in the main thread while the peer acts a little later. Whether the
 * sleep has begun when the event comes is left to chance, unless the result depends on it. A wait that lasts
 * LIMIT_MS is a lost wake-up: it is said, and the worker ends.
 */
#include "diff.h"

#include <pthread.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum how {
	HOW_RECV,
	HOW_READ,
	HOW_WAITALL,
	HOW_PEEK,
	HOW_POLL,
	HOW_SELECT,
	HOW_EPOLL,
	HOW_EPOLL_ET,
	HOW_ACCEPT,
	HOW_COUNT
};
static const char *const how_names[] = {
        "recv", "read", "waitall", "peek", "poll", "select", "epoll", "epoll-et", "accept"};
enum waker {
	WAKER_SEND,
	WAKER_CLOSE,
	WAKER_RESET,
	WAKER_FIN,
	WAKER_SHUT_RD,
	WAKER_SHUT_RDWR,
	WAKER_CLOSE_THEN_EVENT, /* our number is closed under the sleeper, then the event comes */
	WAKER_SIGNAL,
	WAKER_RESTART_THEN_EVENT, /* a signal with SA_RESTART, then the event */
	WAKER_COUNT
};
static const char *const waker_names[] = {"send", "close", "reset", "fin", "shut-rd", "shut-rdwr",
        "close-then-event", "signal", "restart-then-event"};

struct job {
	enum how how;
	int fd, epfd;
	size_t size;
	_Atomic int tid;
	pthread_t thread;
	/* what came of it */
	long rc;
	int error;
	unsigned int events;
	uint32_t hash;
	bool is_done; /* under done_lock */
};

static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;
static int done_count; /* under done_lock */

static void on_signal(int signal)
{
	(void)signal;
}

/* SIGUSR1 interrupts, SIGUSR2 restarts. Only one of them has a handler at a time: a blocking accept on a
 * wildcard listener of Pronk's restarts when every handler has SA_RESTART (doc/limits.md). */
static void signals_set(bool is_restart)
{
	struct sigaction plain = {.sa_handler = is_restart ? SIG_IGN : on_signal};
	struct sigaction again = {.sa_handler = is_restart ? on_signal : SIG_IGN, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &plain, NULL);
	sigaction(SIGUSR2, &again, NULL);
}

static void job_run(struct job *j)
{
	struct epoll_event ev = {0};
	struct pollfd p = {.fd = j->fd, .events = POLLIN | POLLRDHUP};
	struct timeval tv = {LIMIT_MS / 1000, 0};
	uint8_t buf[4096];
	fd_set set;

	errno = 0;
	switch (j->how) {
	case HOW_RECV:
		j->rc = recv(j->fd, buf, j->size, 0);
		break;
	case HOW_READ:
		j->rc = read(j->fd, buf, j->size);
		break;
	case HOW_WAITALL:
		j->rc = recv(j->fd, buf, j->size, MSG_WAITALL);
		break;
	case HOW_PEEK:
		j->rc = recv(j->fd, buf, j->size, MSG_PEEK);
		break;
	case HOW_POLL:
		j->rc = poll(&p, 1, LIMIT_MS);
		j->events = (unsigned int)p.revents;
		break;
	case HOW_SELECT:
		FD_ZERO(&set);
		FD_SET(j->fd, &set);
		j->rc = select(j->fd + 1, &set, NULL, NULL, &tv);
		break;
	case HOW_EPOLL:
	case HOW_EPOLL_ET:
		j->rc = epoll_wait(j->epfd, &ev, 1, LIMIT_MS);
		j->events = ev.events;
		break;
	default:
		j->rc = accept(j->fd, NULL, NULL);
	}
	j->error = errno;
	if (j->how <= HOW_PEEK && j->rc > 0)
		j->hash = hash_of(buf, (size_t)j->rc);
}

static void *job_thread(void *arg)
{
	struct job *j = arg;

	atomic_store(&j->tid, (int)syscall(SYS_gettid));
	job_run(j);
	pthread_mutex_lock(&done_lock);
	j->is_done = true;
	done_count++;
	pthread_cond_broadcast(&done_cond);
	pthread_mutex_unlock(&done_lock);
	return NULL;
}

/* Waits until a thread sleeps in the kernel, or has returned. */
static void wait_asleep(struct job *j)
{
	char path[64], text[256], *p;
	int fd, seen = 0;
	ssize_t n;

	for (int i = 0; i < 5000 && seen < 3; i++) {
		bool is_done;

		pthread_mutex_lock(&done_lock);
		is_done = j->is_done;
		pthread_mutex_unlock(&done_lock);
		if (is_done)
			return;
		if (atomic_load(&j->tid)) {
			snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&j->tid));
			fd = open(path, O_RDONLY | O_CLOEXEC);
			n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
			if (fd >= 0)
				close(fd);
			if (n <= 0)
				return;
			text[n] = 0;
			p = strrchr(text, ')');
			seen = p && p[2] == 'S' ? seen + 1 : 0;
		}
		nap_us(100);
	}
}

/* Waits until count jobs are done, at most us; what came of it. */
static bool wait_done(int count, long us)
{
	struct timespec end;
	bool ok;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_nsec += us % 1000000 * 1000;
	end.tv_sec += us / 1000000 + end.tv_nsec / 1000000000;
	end.tv_nsec %= 1000000000;
	pthread_mutex_lock(&done_lock);
	while (done_count < count && !pthread_cond_timedwait(&done_cond, &done_lock, &end))
		;
	ok = done_count >= count;
	pthread_mutex_unlock(&done_lock);
	return ok;
}

static void lost_wake_up(const char *where)
{
	say(" LOST WAKE-UP: %s\n", where);
	_exit(LOST_WAKE_UP);
}

/* Appends to text, so that two threads' results can be put in order. */
static void job_text(const struct job *j, char *text, size_t size)
{
	if (j->how == HOW_ACCEPT && j->rc >= 0)
		snprintf(text, size, "=fd");
	else if (j->rc < 0)
		snprintf(text, size, "=%s", strerrorname_np(j->error));
	else
		snprintf(text, size, "=%ld ev%x %08x", j->rc, j->events, j->hash);
}

static bool is_quiet_listener(const struct slot *s)
{
	return is_listening(s) && !world->objs[s->obj].queued && !world->objs[s->obj].is_local &&
	       world->objs[s->obj].port && is_blocking(s->fd);
}

static bool is_waitable(const struct slot *s)
{
	return is_healthy(s) && is_blocking(s->fd) && !poll_now(s->fd, POLLIN | POLLRDHUP);
}

/* What the peer does to end a wait. size: bytes to send */
static void event_go(struct obj *o, enum waker waker, size_t size, int delay_us)
{
	if (o->state == STATE_LISTEN) {
		peer_go(PEER_CONNECT, 0, o->port, delay_us);
		return;
	}
	switch (waker) {
	case WAKER_CLOSE:
		peer_go(PEER_CLOSE, o->peer, 0, delay_us);
		break;
	case WAKER_RESET:
		peer_go(PEER_RESET, o->peer, 0, delay_us);
		break;
	case WAKER_FIN:
		peer_go(PEER_SHUT, o->peer, SHUT_WR, delay_us);
		break;
	default:
		peer_go(PEER_SEND, o->peer, (int)size, delay_us);
	}
}

/* The model after the event */
static void event_note(struct obj *o, enum waker waker, size_t size, struct peer_answer r)
{
	if (o->state == STATE_LISTEN) {
		say(" peer=%s", r.rc < 0 ? strerrorname_np(-r.rc) : "ok");
		if (r.rc >= 0 && o->queued < QUEUE_MAX) {
			o->queue_port[o->queued] = r.value;
			o->queue[o->queued++] = r.rc;
		}
		return;
	}
	switch (waker) {
	case WAKER_CLOSE:
	case WAKER_RESET:
		o->peer = -1;
		o->is_broken = waker == WAKER_RESET || o->out;
		o->has_fin_in = true;
		break;
	case WAKER_FIN:
		o->has_fin_in = true;
		break;
	default:
		o->in += size;
	}
}

static int watch_make(int fd, bool is_edge)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | (is_edge ? (uint32_t)EPOLLET : 0)};
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	if (epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		say(" epoll_ctl=%s", strerrorname_np(errno));
	return epfd;
}

/* Takes over what the jobs have got: bytes and connections. */
static void jobs_note(struct job *jobs, int count, struct obj *o)
{
	for (int i = 0; i < count; i++) {
		struct job *j = &jobs[i];

		if (j->how <= HOW_WAITALL && j->rc > 0)
			o->in -= (size_t)j->rc < o->in ? (size_t)j->rc : o->in;
		if (j->how == HOW_ACCEPT && j->rc >= 0) {
			if (slot_free() >= 0)
				settle(obj_of(accepted((int)j->rc, o)));
			else
				close((int)j->rc);
		}
	}
}

/* The main thread sleeps, the peer acts after a moment. */
static void op_wait(void)
{
	bool is_accept = percent(25);
	int slot = slot_pick(is_accept ? is_quiet_listener : is_waitable), delay = (int)chance(4) * 150;
	enum waker waker = (enum waker)chance(WAKER_FIN + 1);
	struct job j = {.epfd = -1};
	struct peer_answer r;
	char text[64];
	struct obj *o;

	if (slot < 0 || slot_free() < 0)
		return;
	o = obj_of(slot);
	j.how = is_accept ? (percent(50) ? HOW_ACCEPT : HOW_POLL + chance(HOW_EPOLL_ET - HOW_POLL + 1))
	                  : chance(HOW_ACCEPT);
	j.fd = world->slots[slot].fd;
	j.size = 1 + chance(1000);
	if (is_accept)
		waker = WAKER_SEND;
	say(" %d %s by %s", slot, how_names[j.how], waker_names[waker]);
	if (j.how >= HOW_EPOLL && j.how != HOW_ACCEPT)
		j.epfd = watch_make(j.fd, j.how == HOW_EPOLL_ET);
	event_go(o, waker, j.how == HOW_WAITALL ? j.size : 1 + j.size / 2, delay);
	job_run(&j);
	r = peer_get();
	job_text(&j, text, sizeof(text));
	say("%s", text);
	event_note(o, waker, j.how == HOW_WAITALL ? j.size : 1 + j.size / 2, r);
	if (j.epfd >= 0)
		close(j.epfd);
	if (j.how >= HOW_POLL && j.rc == 0 && j.how != HOW_ACCEPT)
		lost_wake_up(how_names[j.how]);
	barrier();
	jobs_note(&j, 1, o);
	settle(o);
}

/* Starts with the event that ends the sleep of threads; returns when it has come. */
static void wake(enum waker waker, int slot, struct job *jobs, int count, size_t size)
{
	struct obj *o = obj_of(slot);
	int fd = world->slots[slot].fd;
	struct peer_answer r;

	switch (waker) {
	case WAKER_SHUT_RD:
	case WAKER_SHUT_RDWR:
		say(" shutdown");
		say_rc(shutdown(fd, waker == WAKER_SHUT_RD ? SHUT_RD : SHUT_RDWR));
		if (o->state != STATE_LISTEN) {
			o->is_shut_rd = true;
			o->has_fin_out |= waker == WAKER_SHUT_RDWR;
		} else {
			o->state = STATE_BOUND;
		}
		return;
	case WAKER_SIGNAL:
		/* again and again: one may come just before the sleep */
		for (int i = 0; i < LIMIT_MS && !wait_done(count, 1000); i++)
			for (int k = 0; k < count; k++)
				if (atomic_load(&jobs[k].tid))
					pthread_kill(jobs[k].thread, SIGUSR1);
		return;
	case WAKER_CLOSE_THEN_EVENT:
		say(" close");
		say_rc(close(fd));
		nap_us(200);
		break;
	case WAKER_RESTART_THEN_EVENT:
		for (int k = 0; k < count; k++)
			pthread_kill(jobs[k].thread, SIGUSR2);
		nap_us(300);
		break;
	default:
		break;
	}
	event_go(o, waker, size, 0);
	r = peer_get();
	event_note(o, waker, size, r);
}

/* Threads sleep on one descriptor, the main thread ends their sleep. */
static void op_thread(void)
{
	bool is_accept = percent(25), is_late = percent(50);
	int slot = slot_pick(is_accept ? is_quiet_listener : is_waitable), count = 1;
	enum waker waker = (enum waker)chance(WAKER_COUNT);
	struct job jobs[2] = {{.epfd = -1}, {.epfd = -1}};
	enum how how = is_accept ? (percent(50) ? HOW_ACCEPT : HOW_POLL + chance(HOW_EPOLL_ET - HOW_POLL + 1))
	                         : chance(HOW_ACCEPT);
	size_t size = 1 + chance(1000), sent;
	char text[2][64];
	struct obj *o;
	bool is_data = how <= HOW_PEEK || how == HOW_ACCEPT;

	if (slot < 0 || slot_free() < 0)
		return;
	o = obj_of(slot);
	if (is_accept && waker < WAKER_SHUT_RD)
		waker = WAKER_SEND;
	/* the last number goes, and with it its place in sets: nothing would wake who waits there */
	if (waker == WAKER_CLOSE_THEN_EVENT && (!is_data || o->refs != 1))
		waker = WAKER_SEND;
	/* only reading and accepting go on after a signal */
	if (waker == WAKER_RESTART_THEN_EVENT && !is_data)
		waker = WAKER_SIGNAL;
	/* two sleepers where both wake */
	if (percent(30) &&
	        ((how >= HOW_POLL && how <= HOW_SELECT) || how == HOW_PEEK || waker == WAKER_SHUT_RD ||
	                waker == WAKER_SHUT_RDWR || waker == WAKER_FIN || waker == WAKER_SIGNAL) &&
	        how != HOW_EPOLL_ET && how != HOW_EPOLL)
		count = 2;
	/* a reset is told to one reader only; which one is chance, but they are sorted */
	is_late |= waker >= WAKER_CLOSE_THEN_EVENT;
	sent = how == HOW_WAITALL ? size : 1 + size / 2;
	say(" %d %d*%s by %s", slot, count, how_names[how], waker_names[waker]);
	done_count = 0;
	signals_set(waker == WAKER_RESTART_THEN_EVENT);
	for (int i = 0; i < count; i++) {
		jobs[i].how = how;
		jobs[i].fd = world->slots[slot].fd;
		jobs[i].size = size;
		if (how == HOW_EPOLL || how == HOW_EPOLL_ET)
			jobs[i].epfd = watch_make(jobs[i].fd, how == HOW_EPOLL_ET);
		if (pthread_create(&jobs[i].thread, NULL, job_thread, &jobs[i]))
			abort();
	}
	for (int i = 0; is_late && i < count; i++)
		wait_asleep(&jobs[i]);
	if (!is_late)
		nap_us((long)chance(3) * 30);
	wake(waker, slot, jobs, count, sent);
	if (!wait_done(count, LIMIT_MS * 1200L))
		lost_wake_up(how_names[how]);
	for (int i = 0; i < count; i++) {
		pthread_join(jobs[i].thread, NULL);
		job_text(&jobs[i], text[i], sizeof(text[i]));
		if (jobs[i].epfd >= 0)
			close(jobs[i].epfd);
	}
	if (count == 2 && strcmp(text[0], text[1]) > 0)
		say("%s%s", text[1], text[0]);
	else
		say("%s%s", text[0], count == 2 ? text[1] : "");
	barrier();
	jobs_note(jobs, count, o);
	if (waker == WAKER_CLOSE_THEN_EVENT) {
		if (slot_gone(slot) && is_accept) {
			barrier();
			for (int i = 0; i < o->queued; i++)
				peer_view(o->queue[i], 0, 1, NULL, 0);
			o->queued = 0;
		}
	}
	settle(o);
}

struct share {
	int epfd;
	_Atomic int woken, wrong;
};

static void *share_thread(void *arg)
{
	struct share *s = arg;
	struct epoll_event ev;
	int n = epoll_wait(s->epfd, &ev, 1, LIMIT_MS);

	if (n == 1 && ev.events & EPOLLIN)
		atomic_fetch_add(&s->woken, 1);
	else
		atomic_fetch_add(&s->wrong, 1);
	pthread_mutex_lock(&done_lock);
	done_count++;
	pthread_cond_broadcast(&done_cond);
	pthread_mutex_unlock(&done_lock);
	return NULL;
}

/* Three threads wait on one set; each event wakes one of them. */
static void op_share(void)
{
	int slot = slot_pick(is_waitable), fd;
	struct epoll_event ev = {
	        .events = EPOLLIN | (percent(50) ? (uint32_t)EPOLLET : (uint32_t)EPOLLONESHOT)};
	struct share s = {.epfd = -1};
	pthread_t t[3];
	struct obj *o;

	if (slot < 0)
		return;
	o = obj_of(slot);
	fd = world->slots[slot].fd;
	say(" %d %x", slot, ev.events);
	s.epfd = epoll_create1(EPOLL_CLOEXEC);
	say_rc(epoll_ctl(s.epfd, EPOLL_CTL_ADD, fd, &ev));
	done_count = 0;
	for (int i = 0; i < 3; i++)
		if (pthread_create(&t[i], NULL, share_thread, &s))
			abort();
	for (int i = 1; i <= 3; i++) {
		if (percent(50))
			nap_us(200);
		peer_do(PEER_SEND, o->peer, 10);
		o->in += 10;
		if (!wait_done(i, LIMIT_MS * 1200L))
			lost_wake_up("shared set");
		if (ev.events & EPOLLONESHOT) {
			char buf[10];

			/* the data of this turn goes before the next, else one event would come at once */
			say_rc(recv(fd, buf, sizeof(buf), MSG_WAITALL));
			o->in -= 10;
			say_rc(epoll_ctl(s.epfd, EPOLL_CTL_MOD, fd, &ev));
		}
	}
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	say(" woken %d wrong %d", atomic_load(&s.woken), atomic_load(&s.wrong));
	close(s.epfd);
	settle(o);
}

/* A thread waits on a set; what makes the set ready is a change of its members. */
static void op_set_changes(void)
{
	int slot = slot_pick(is_connected), fd;
	struct epoll_event ev = {.events = EPOLLOUT};
	struct job j = {.how = HOW_EPOLL};
	bool is_mod = percent(50);
	char text[64];

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	if (!(poll_now(fd, POLLOUT) & POLLOUT) || (poll_now(fd, 0)))
		return;
	say(" %d %s", slot, is_mod ? "mod" : "add");
	j.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (is_mod) {
		struct epoll_event none = {.events = 0};

		say_rc(epoll_ctl(j.epfd, EPOLL_CTL_ADD, fd, &none));
	}
	done_count = 0;
	if (pthread_create(&j.thread, NULL, job_thread, &j))
		abort();
	if (percent(50))
		wait_asleep(&j);
	say_rc(epoll_ctl(j.epfd, is_mod ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev));
	if (!wait_done(1, LIMIT_MS * 1200L))
		lost_wake_up("set changes");
	pthread_join(j.thread, NULL);
	job_text(&j, text, sizeof(text));
	say("%s", text);
	close(j.epfd);
}

/* Time limits end waits, too. */
static void op_limit(void)
{
	int slot = slot_pick(is_waitable), fd;
	struct timeval tv = {0, 8000}, none = {0, 0};
	char c;

	if (slot < 0)
		return;
	fd = world->slots[slot].fd;
	say(" %d", slot);
	switch (chance(3)) {
	case 0:
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		say(" recv");
		say_rc(recv(fd, &c, 1, 0));
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
		break;
	case 1: {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		say(" poll");
		say_rc(poll(&p, 1, 5));
		break;
	}
	default: {
		struct epoll_event ev;
		int epfd = watch_make(fd, false);

		say(" epoll");
		say_rc(epoll_wait(epfd, &ev, 1, 5));
		close(epfd);
	}
	}
}

/* A child does something with the sockets that it shares; its parent waits for its end. Some numbers the
 * parent closes before: then the child's are the last. */
static void op_fork(void)
{
	int slot = percent(50) ? slot_pick(is_connected) : -1, fds[2], status, turns = 1 + (int)chance(3);
	struct obj *o = NULL;
	pid_t pid;
	char c;

	if (pipe2(fds, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		close(fds[1]);
		if (read(fds[0], &c, 1) != 1)
			_exit(9);
		if (slot >= 0) {
			/* its model is that of the only holder now */
			say(" child %d", slot);
			if (say_rc(send(world->slots[slot].fd, "child", 5, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
				obj_of(slot)->out += 5;
		} else {
			for (int i = 0; i < turns; i++)
				op_data_any();
		}
		_exit(7);
	}
	close(fds[0]);
	if (slot >= 0) {
		o = obj_of(slot);
		say(" %d closed in the parent", slot);
		say_rc(close(world->slots[slot].fd));
		if (o->refs == 1)
			barrier();
		else
			o = NULL;
		if (o && o->peer > 0)
			peer_view(o->peer, o->out, 0, NULL, 0);
	}
	if (write(fds[1], "g", 1) != 1)
		abort();
	while (waitpid(pid, &status, 0) < 0)
		;
	close(fds[1]);
	say(" child's end %x", (unsigned int)status);
	if (slot >= 0) {
		struct obj *gone = obj_of(slot);

		/* a child's number is closed after what it sent */
		bool is_reset = slot_gone(slot) && gone->in;

		barrier();
		if (gone->peer > 0)
			peer_view(gone->peer, gone->is_broken ? 0 : gone->out,
			        gone->is_broken || gone->refs ? 0
			        : is_reset                    ? 2
			                                      : 1,
			        gone->seen, sizeof(gone->seen));
		gone->is_broken |= is_reset;
		return;
	}
	settle(NULL);
}

const struct op ops_wait[] = {
        {"wait", op_wait, {4, 1, 5, 4, 12}},
        {"thread", op_thread, {4, 1, 3, 4, 20}},
        {"share", op_share, {1, 0, 0, 2, 4}},
        {"set changes", op_set_changes, {1, 0, 0, 2, 4}},
        {"limit", op_limit, {1, 0, 1, 0, 1}},
        {"fork", op_fork, {1, 0, 1, 1, 2}},
        {NULL, NULL, {0}},
};
