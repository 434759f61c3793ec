/* inline.c - the engine inside an application (mode = inline): the driver token, and the thread that serves
 * what the application's threads do not.
 *
 * There is one stack, and it belongs to whoever holds the token: an application's thread inside a socket
 * call, or the background thread of this file. The token is only tried for. The background thread starts the
 * engine (so that what the driver library does to the thread that starts it concerns no thread of the
 * application), serves the control socket, and runs the stack while nobody else does. All of it is told in
 * doc/threads.md, "Driver token".
 *
 * This file is linked into a library of its own, next to the one that is preloaded; arena/driver.h is what
 * the two know of each other.
 */
#include "engine_int.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "driver.h"
#include "libc.h"
#include "log.h"
#include "raw.h"
#include "spin.h"

LOG_MODULE("engine");

enum {
	STACK_SIZE = 2 << 20,
	AWAY_NS = 2000000, /* the application has not run the stack for so long: it does something else */
	AWAY_SHARED_NS = 200000, /* the same while others rely on it */
	TICK_NS = 1000000,       /* how often the background thread looks whether that is so */
	TICK_SHARED_NS = 100000,
	QUIET_NS = 20000000,  /* a thread sleeps for the port, and nothing has happened for so long */
	SERVE_TURNS = 64,     /* busy turns after which the control socket gets a look */
	SAMPLE_TURNS = 16,    /* one turn in so many is timed */
	KEEP_WAIT_MS = 10000, /* for the copy of the process to be made */
	REST_OURS_MS = 5000,  /* without a client: for what peers have not acknowledged */
	REST_PEERS_MS = 1000, /* the same: for peers that have not ended their direction */
	PLACES = 4,           /* for threads that sleep, or slept, for the port */
	RELIEF_TURNS = 4,     /* somebody runs the stack all the time: so many turns ... */
	RELIEF_NS = 500000,   /* ... none of them later than that after the one before */
	RELIEVED = 1 << 8,    /* in `sleeper` */
};

/* What became of a wish that the stack goes on without this process. */
enum keeping { KEEP_NO, KEEP_WANTED, KEEP_WANTED_APART, KEEP_DONE, KEEP_FAILED };

enum background {
	BG_TICKING, /* awake, or asleep for a tick at most */
	BG_RESTING, /* asleep until a timer of the stack; a thread of the application sleeps for the port */
	BG_AT_PORT, /* asleep for the port itself */
};

static struct {
	_Alignas(64) _Atomic uint32_t token;
	_Atomic uint32_t again;    /* somebody has posted while the token was held */
	_Atomic uint64_t drive_ns; /* when a thread of the application last ran the stack */
	uint32_t turns;            /* under the token */
	struct {                   /* likewise: the last two of them that ran turns and do not sleep */
		pthread_t who;
		uint64_t ns;
		uint32_t turns; /* that followed each other closely */
	} recent[2];
	bool is_armed; /* likewise: the port was armed for a sleep */

	/* 1 + the place of the thread of the application that sleeps for the port, 0: none does; with
	 * RELIEVED it does not wake for it any more */
	_Alignas(64) _Atomic uint32_t sleeper;
	_Atomic uint32_t followers;  /* others that sleep, and rely on somebody */
	_Atomic uint32_t background; /* enum background */
	_Atomic uint32_t places;     /* bits of those that are taken */

	struct engine *e;
	struct stack *s;
	int kick_fd;     /* wakes the background thread */
	int quiet_epoll; /* control socket, kick */
	int port_epoll;  /* and what the stack sleeps on */
	/* What a thread of the application sleeps on in its place: the stack's descriptors, until they are
	 * taken out for a while (with the token). */
	struct {
		int epoll;
		bool is_empty;
	} place[PLACES];
	struct driver_host host;
	pthread_t thread;
	_Atomic bool is_stopping;
	_Atomic uint32_t
	        keeping; /* enum keeping; raised by whoever wants it, answered by the background thread */
	_Atomic bool is_gone; /* the stack lives in another process; the token is never given again */
	bool is_keeper;       /* this is that process: nothing but the background thread runs here */
	bool fork_took;       /* between fork_prepare and what follows: the token */
	uint64_t idle_ns;     /* of the keeper: since when it has had no client; 0: it has one */

	/* of the start */
	struct cfg cfg;
	sem_t started;
	int rc;
	char err[512];
} in;

/* --- the token --- */

static inline bool token_try(void)
{
	return !atomic_load_explicit(&in.token, memory_order_relaxed) &&
	       !atomic_exchange_explicit(&in.token, 1, memory_order_acquire);
}

static inline void token_give(void)
{
	atomic_store_explicit(&in.token, 0, memory_order_release);
}

/* False when it will never be had again. */
static bool token_wait(void)
{
	const struct timespec nap = {.tv_nsec = 20000};

	for (uint32_t n = 0; !token_try(); n++) {
		if (atomic_load_explicit(&in.is_gone, memory_order_relaxed))
			return false;
		if (n < 100)
			cpu_relax();
		else
			nanosleep(&nap, NULL);
	}
	return true;
}

static void kick(void)
{
	uint64_t one = 1;

	if (write(in.kick_fd, &one, sizeof(one)) < 0)
		return; /* it is readable anyway */
}

static inline uint32_t holder(uint32_t sleeper)
{
	return sleeper & ~(uint32_t)RELIEVED;
}

/* Whether a thread of the application is woken by the port. */
static inline bool is_guarded(void)
{
	uint32_t w = atomic_load(&in.sleeper);

	return w && !(w & RELIEVED);
}

/* With the token: one turn. */
static uint32_t turn(uint64_t now_ns)
{
	uint32_t n;

	nic_thread_act();
	if (unlikely(in.is_armed) && !is_guarded()) {
		in.is_armed = false;
		stack_disarm(in.s);
		/* what it sleeps for does not wake it any more */
		if (atomic_load(&in.background) == BG_AT_PORT)
			kick();
	}
	n = stack_turn(in.s, now_ns);
	if (n && unlikely(++in.turns % SAMPLE_TURNS == 0))
		stack_busy(in.s, clock_now_ns() - now_ns, SAMPLE_TURNS);
	return n;
}

/* --- what threads of the application do --- */

/* With the token: what is in the place, as long as a thread sleeps there for the port. */
static void place_fill(uint32_t place, bool is_empty)
{
	struct epoll_event ev = {.events = is_empty ? 0 : EPOLLIN, .data.fd = stack_wait_fd(in.s)};

	if (in.place[place].is_empty != is_empty &&
	        !epoll_ctl(in.place[place].epoll, EPOLL_CTL_MOD, ev.data.fd, &ev))
		in.place[place].is_empty = is_empty;
}

/* With the token, from a thread that runs turns while another one sleeps for the port. If it does so all the
 * time the other need not, and would be woken by each frame in vain. It is not woken for that, but sleeps on
 * in a place where nothing happens any more; who sleeps next sleeps for the port. */
static void sleeper_relieve(void)
{
	uint32_t w = atomic_load(&in.sleeper);

	if (!w || (w & RELIEVED) || !atomic_compare_exchange_strong(&in.sleeper, &w, w | RELIEVED))
		return;
	place_fill(w - 1, true);
	stack_sleep_end(in.s);
	in.is_armed = false;
	stack_disarm(in.s);
}

/* With the token: the calling thread runs a turn. Whether it does so all the time. */
static inline bool recent_add(uint64_t now_ns)
{
	__typeof__(in.recent[0]) *r = &in.recent[0], other = *r;
	pthread_t me = pthread_self();

	if (unlikely(r->who != me)) {
		*r = in.recent[1];
		in.recent[1] = other;
		if (r->who != me) {
			r->who = me;
			r->turns = 0;
		}
	}
	r->turns = now_ns - r->ns < RELIEF_NS ? r->turns + 1 : 1;
	r->ns = now_ns;
	return r->turns >= RELIEF_TURNS;
}

/* With the token, from a thread that is about to sleep: whether another one runs turns all the time. When it
 * goes to sleep itself, it will sleep for the port. */
static bool recent_others(void)
{
	pthread_t me = pthread_self();
	uint64_t now_ns = clock_now_ns();

	for (int i = 0; i < 2; i++) {
		if (in.recent[i].who == me)
			in.recent[i].turns = 0;
		else if (in.recent[i].turns >= RELIEF_TURNS && now_ns - in.recent[i].ns < RELIEF_NS)
			return true;
	}
	return false;
}

static uint32_t driver_turn(void)
{
	uint64_t now_ns;
	uint32_t n;
	int cancel;

	if (!token_try())
		return 0;
	/* a driver may make calls in which a thread can be cancelled */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	now_ns = clock_now_ns();
	if (recent_add(now_ns) && unlikely(in.is_armed))
		sleeper_relieve();
	n = turn(now_ns);
	token_give();
	atomic_store_explicit(&in.drive_ns, now_ns, memory_order_relaxed);
	/* whoever posted meanwhile could not run the stack: pairs with driver_push */
	atomic_thread_fence(memory_order_seq_cst);
	while (unlikely(atomic_load_explicit(&in.again, memory_order_relaxed)) && token_try()) {
		atomic_store(&in.again, 0);
		n += turn(clock_now_ns());
		token_give();
		atomic_thread_fence(memory_order_seq_cst);
	}
	if (unlikely(atomic_load_explicit(&in.background, memory_order_relaxed) == BG_RESTING))
		kick();
	pthread_setcancelstate(cancel, NULL);
	return n;
}

static void driver_push(void)
{
	if (atomic_load_explicit(&in.token, memory_order_relaxed)) {
		atomic_store(&in.again, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load_explicit(&in.token, memory_order_relaxed))
			return; /* its holder looks at `again` after it has given it up */
	}
	driver_turn();
}

/* An announcement of the stack's sleep may have gone with the end of another thread's. */
static void announcement_renew(void)
{
	if (is_guarded() && !stack_sleep_renew(in.s))
		driver_push();
}

/* With the token: a place for the calling thread, which sleeps for the port then, or is relieved of it from
 * the beginning. PLACES: there is none. One is left for when nobody sleeps for the port. */
static uint32_t place_take(uint32_t relieved)
{
	uint32_t w = atomic_load(&in.sleeper), used = atomic_load(&in.places);
	uint32_t place = (uint32_t)__builtin_ctz(~used);

	if (place >= PLACES || (w && __builtin_popcount(used) >= PLACES - 1))
		return PLACES;
	atomic_fetch_or(&in.places, 1u << place);
	while (!atomic_compare_exchange_strong(&in.sleeper, &w, (place + 1) | relieved))
		;
	if (w) /* the one that was relieved relies on this one now */
		atomic_fetch_add(&in.followers, 1);
	place_fill(place, relieved != 0);
	return place;
}

/* With the token: the one that was relieved shall wake for the port again. False when there is none, or the
 * stack has something to do. */
static bool sleeper_recall(void)
{
	uint32_t w = atomic_load(&in.sleeper);
	bool is_quiet;

	if (!(w & RELIEVED) || !atomic_compare_exchange_strong(&in.sleeper, &w, holder(w)))
		return false;
	w = holder(w);
	place_fill(w - 1, false);
	is_quiet = in.is_armed = stack_sleep_begin(in.s);
	if (!is_quiet && atomic_compare_exchange_strong(&in.sleeper, &w, w | RELIEVED))
		place_fill(w - 1, true);
	return is_quiet;
}

/* With the token. As driver_sleep. */
static int sleep_begin(uint64_t *limit_ns)
{
	bool is_relieved = recent_others();
	uint32_t place;

	nic_thread_act();
	if (is_relieved && atomic_load(&in.sleeper))
		return -1;
	place = place_take(is_relieved ? RELIEVED : 0);
	if (place == PLACES)
		return sleeper_recall() ? -1 : -EAGAIN;
	if (is_relieved)
		return in.place[place].epoll;
	in.is_armed = stack_sleep_begin(in.s);
	if (in.is_armed) {
		*limit_ns = stack_sleep_ns(in.s);
		return in.place[place].epoll;
	}
	atomic_store(&in.sleeper, 0);
	atomic_fetch_and(&in.places, ~(1u << place));
	return -EAGAIN;
}

static int driver_sleep(uint64_t *limit_ns)
{
	int cancel, fd = -1;

	*limit_ns = UINT64_MAX;
	if (!atomic_load_explicit(&in.is_gone, memory_order_relaxed) && !is_guarded()) {
		if (!token_try())
			return -EAGAIN;
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
		fd = sleep_begin(limit_ns);
		token_give();
		/* it sleeps for the port, too, and would go on doing so after this thread has stopped to */
		if (fd != -EAGAIN && atomic_load(&in.background) == BG_AT_PORT)
			kick();
		pthread_setcancelstate(cancel, NULL);
	}
	if (fd == -1)
		atomic_fetch_add(&in.followers, 1);
	return fd;
}

static void driver_awake(int fd)
{
	uint32_t place = 0, w;
	bool is_ended = false;

	if (fd < 0) {
		atomic_fetch_sub(&in.followers, 1);
		return;
	}
	while (in.place[place].epoll != fd)
		place++;
	w = atomic_load(&in.sleeper);
	while (holder(w) == place + 1) {
		if (!(w & RELIEVED) && !is_ended && !atomic_load(&in.is_gone)) {
			stack_sleep_end(in.s);
			is_ended = true;
		}
		if (atomic_compare_exchange_strong(&in.sleeper, &w, 0))
			break;
	}
	if (holder(w) != place + 1)
		atomic_fetch_sub(&in.followers, 1); /* another thread has come in its stead */
	atomic_fetch_and(&in.places, ~(1u << place));
	atomic_thread_fence(memory_order_seq_cst);
	/* ... and may have announced the stack's sleep before the end of this one's */
	if (unlikely(is_guarded()))
		announcement_renew();
	if (atomic_load_explicit(&in.background, memory_order_relaxed) == BG_RESTING)
		kick();
}

static void driver_fork_prepare(void)
{
	in.fork_took = token_wait();
}

static void driver_fork_parent(void)
{
	if (in.fork_took)
		token_give();
}

/* The child holds none of the port: it would not go with the parent. */
static void driver_fork_child(void)
{
	if (in.fork_took)
		in.host.close_fds(true);
	atomic_store(&in.is_gone, true);
}

static int driver_keep(bool is_end)
{
	const struct timespec nap = {.tv_nsec = 50000};
	uint64_t end_ns = clock_now_ns() + KEEP_WAIT_MS * CLOCK_NS_PER_MS;
	uint32_t no = KEEP_NO;

	atomic_compare_exchange_strong(&in.keeping, &no, is_end ? KEEP_WANTED : KEEP_WANTED_APART);
	kick();
	/* not for ever: the caller may be in a handler that has interrupted malloc */
	while (atomic_load(&in.keeping) < KEEP_DONE && clock_now_ns() < end_ns)
		nanosleep(&nap, NULL);
	switch (atomic_load(&in.keeping)) {
	case KEEP_DONE:
		return 0;
	case KEEP_FAILED:
		return -EAGAIN;
	default:
		return -ETIMEDOUT;
	}
}

static struct driver driver = {
        .turn = driver_turn,
        .push = driver_push,
        .sleep = driver_sleep,
        .awake = driver_awake,
        .fork_prepare = driver_fork_prepare,
        .fork_parent = driver_fork_parent,
        .fork_child = driver_fork_child,
        .unmapping = nic_unmapping,
        .keep = driver_keep,
};

/* --- the background thread --- */

/* True when something came, false when the time is over. */
static bool wait_on(int epoll_fd, uint64_t limit_ns)
{
	struct timespec ts = {(time_t)(limit_ns / CLOCK_NS_PER_S), (long)(limit_ns % CLOCK_NS_PER_S)};
	struct epoll_event ev;

	return epoll_pwait2(epoll_fd, &ev, 1, &ts, NULL) != 0;
}

static void serve(void)
{
	uint64_t drop;

	if (read(in.kick_fd, &drop, sizeof(drop)) < 0 && errno != EAGAIN)
		return;
	engine_serve(in.e);
}

/* A thread of the application sleeps for the port. For a moment it is looked whether other threads have given
 * the stack something to do that the sleeper does not wake for; then there is nothing to do until the sleeper
 * is awake. */
static void run_beside_sleeper(uint64_t away_ns)
{
	uint64_t limit_ns = TICK_NS;

	if (token_try()) {
		turn(clock_now_ns());
		if (away_ns > QUIET_NS)
			limit_ns = stack_timer_ns(in.s);
		token_give();
	}
	announcement_renew();
	if (limit_ns > TICK_NS) {
		atomic_store(&in.background, BG_RESTING);
		atomic_thread_fence(memory_order_seq_cst);
	}
	if (is_guarded() && wait_on(in.quiet_epoll, limit_ns))
		serve();
	atomic_store(&in.background, BG_TICKING);
}

/* Nobody else runs the stack, and it has nothing to do. */
static void sleep_at_port(void)
{
	uint64_t limit_ns = 0;
	bool is_quiet;

	if (!token_try()) {
		sched_yield();
		return;
	}
	atomic_store(&in.background, BG_AT_PORT);
	nic_thread_act();
	is_quiet = in.is_armed = stack_sleep_begin(in.s);
	if (is_quiet)
		limit_ns = stack_sleep_ns(in.s);
	token_give();
	atomic_thread_fence(memory_order_seq_cst);
	if (is_quiet && !is_guarded())
		wait_on(in.port_epoll, limit_ns);
	atomic_store(&in.background, BG_TICKING);
	/* a thread of the application that sleeps for the port by now relies on the announcement */
	if (is_quiet && !is_guarded()) {
		stack_sleep_end(in.s);
		atomic_thread_fence(memory_order_seq_cst);
		announcement_renew();
	}
	serve();
}

/* --- the keeper: the stack outlives its program --- */

/* In the copy. Nothing here is of the application any more but its memory. */
static void keeper_begin(bool is_end)
{
	in.host.inside(true);
	/* apart: the process in between ends, and is waited for, before the program goes on */
	if (!is_end) {
		if (in.host.fork())
			RAW(SYS_exit_group, 0);
		in.host.inside(true);
	}
	in.host.close_fds(false);
	setsid();
	if (chdir("/") < 0)
		log_debug("the keeper stays in %s", "its program's folder");
	prctl(PR_SET_NAME, "pronk-keeper");
	if (strcmp(in.cfg.log_file, "stderr"))
		log_open((enum log_level)in.cfg.log_level, in.cfg.log_file);
	in.e->arena.hdr->service_pid = getpid();
	in.is_keeper = true;
	in.thread = pthread_self();
	atomic_store(&in.is_gone, false);
	atomic_store(&in.keeping, KEEP_NO);
	atomic_store(&in.sleeper, 0);
	atomic_store(&in.followers, 0);
	atomic_store(&in.places, 0);
	atomic_store(&in.drive_ns, 0);
	atomic_store(&in.again, 0);
	atomic_store(&in.token, 0);
	if (nic_fork_child())
		log_warning("the keeper will not notice when the port's peer comes or goes");
	log_info("process %d keeps the stack for those who use it", getpid());
}

/* Makes the copy. The token is taken for good. */
static void keep(void)
{
	bool is_end = atomic_load(&in.keeping) == KEEP_WANTED;
	int pid;

	token_wait();
	nic_fork_prepare();
	/* before the copy is made: a thread that is just waking up must not touch what the copy goes on with
	 */
	atomic_store(&in.is_gone, true);
	pid = in.host.fork();
	if (pid == 0) {
		keeper_begin(is_end);
		return;
	}
	nic_fork_parent();
	if (pid < 0) {
		log_warning("cannot make a process that keeps the stack (%s): its connections end",
		        strerror(errno));
		atomic_store(&in.is_gone, false);
		atomic_store(&in.keeping, KEEP_FAILED);
		token_give();
		return;
	}
	in.host.close_fds(true);
	while (!is_end && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	atomic_store(&in.is_stopping, true);
	atomic_store(&in.keeping, KEEP_DONE);
}

/* Whether nobody needs this stack any more. */
static bool keeper_is_over(void)
{
	uint64_t now_ns = clock_now_ns(), limit_ms;
	enum stack_rest rest;

	if (engine_client_count(in.e)) {
		in.idle_ns = 0;
		return false;
	}
	if (!in.idle_ns) {
		in.idle_ns = now_ns;
		engine_close(in.e); /* whoever comes from now on starts a stack of its own, when this one has
		                       ended */
	}
	token_wait();
	rest = stack_rest(in.s);
	token_give();
	limit_ms = rest == STACK_REST_OURS ? REST_OURS_MS : rest == STACK_REST_PEERS ? REST_PEERS_MS : 0;
	return now_ns - in.idle_ns >= limit_ms * CLOCK_NS_PER_MS;
}

static void keeper_end(void)
{
	nic_thread_act();
	stack_forget(in.s);
	engine_stop(in.e);
	RAW(SYS_exit_group, 0);
}

static void run(void)
{
	uint64_t now_ns, work_ns = 0, yielded = 0, spin_ns = in.cfg.stack_spin_us * CLOCK_NS_PER_US;
	uint64_t tick_ns = TICK_SHARED_NS;
	struct spin spin = {0};
	uint32_t turns = 0;

	while (!atomic_load(&in.is_stopping)) {
		/* by threads that sleep and are woken by nobody, or by other processes */
		bool is_shared = atomic_load_explicit(&in.followers, memory_order_relaxed) ||
		                 atomic_load_explicit(&in.sleeper, memory_order_relaxed) ||
		                 engine_client_count(in.e) > 1;
		bool is_recalled = false;
		int64_t away_ns;

		if (unlikely(atomic_load_explicit(&in.keeping, memory_order_relaxed) - KEEP_WANTED <= 1))
			keep();
		if (unlikely(in.is_keeper) && keeper_is_over())
			keeper_end();
		now_ns = clock_now_ns();
		if (yielded)
			spin_lost(&spin, yielded, now_ns);
		yielded = 0;
		away_ns = (int64_t)(now_ns - atomic_load_explicit(&in.drive_ns, memory_order_relaxed));
		if (is_guarded()) {
			run_beside_sleeper(away_ns < 0 ? 0 : (uint64_t)away_ns);
			continue;
		}
		if (away_ns < (is_shared ? AWAY_SHARED_NS : AWAY_NS)) {
			/* looks that find the application at it become rare, and often again when it was not
			 */
			if (wait_on(in.quiet_epoll, is_shared ? tick_ns : TICK_NS))
				serve();
			tick_ns = tick_ns * 2 < TICK_NS ? tick_ns * 2 : TICK_NS;
			continue;
		}
		tick_ns = TICK_SHARED_NS;
		if (turns++ % SERVE_TURNS == 0)
			serve();
		if (token_try()) {
			if (turn(now_ns))
				work_ns = now_ns;
			else if (unlikely(atomic_load_explicit(&in.sleeper, memory_order_relaxed)))
				is_recalled = sleeper_recall();
			token_give();
			if (is_recalled)
				continue;
		}
		if (now_ns - work_ns >= spin_ns || !spin_may(&spin, now_ns)) {
			sleep_at_port();
		} else {
			/* as a stack thread does: whoever has work for the stack may want this core */
			yielded = now_ns;
			sched_yield();
		}
	}
}

/* --- the start --- */

static int fd_watch(int epoll_fd, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int descriptors_open(char *err, size_t err_size)
{
	int rc;

	in.kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	in.quiet_epoll = epoll_create1(EPOLL_CLOEXEC);
	in.port_epoll = epoll_create1(EPOLL_CLOEXEC);
	if (in.kick_fd < 0 || in.quiet_epoll < 0 || in.port_epoll < 0)
		rc = -errno;
	else if (!(rc = fd_watch(in.quiet_epoll, in.kick_fd)) &&
	         !(rc = fd_watch(in.quiet_epoll, engine_fd(in.e))) &&
	         !(rc = fd_watch(in.port_epoll, in.quiet_epoll)))
		rc = fd_watch(in.port_epoll, stack_wait_fd(in.s));
	for (uint32_t i = 0; i < PLACES && !rc; i++) {
		in.place[i].epoll = epoll_create1(EPOLL_CLOEXEC);
		rc = in.place[i].epoll < 0 ? -errno : fd_watch(in.place[i].epoll, stack_wait_fd(in.s));
	}
	if (rc)
		snprintf(err, err_size, "cannot make the engine's event loop: %s", strerror(-rc));
	return rc;
}

static __thread bool is_engine_thread; /* one of ours: what it opens is the engine's, all the time */

static void *thread_main(void *arg UNUSED)
{
	char text[512];

	is_engine_thread = true;
	in.host.inside(true);
	pthread_setname_np(pthread_self(), "pronk-inline");
	in.rc = engine_start_inline(&in.e, &in.cfg, in.err, sizeof(in.err));
	if (!in.rc) {
		in.s = in.e->stacks[0];
		in.rc = descriptors_open(in.err, sizeof(in.err));
		if (in.rc)
			engine_stop(in.e);
	}
	if (in.rc) {
		sem_post(&in.started);
		return NULL;
	}
	engine_describe(in.e, text, sizeof(text));
	log_info("the stack runs in this program: %s", text);
	sem_post(&in.started);
	run();
	return NULL;
}

static void around_descriptors(bool begins)
{
	if (!is_engine_thread)
		in.host.inside(begins);
}

/* In the thread of the port's own: connecting and disconnecting a link while a turn runs on it would be the
 * end of the process. */
static void around_interrupts(bool begins)
{
	is_engine_thread = true;
	in.host.inside(true);
	if (!begins)
		token_give();
	else
		while (!token_wait())
			pause(); /* until the process ends */
}

__attribute__((visibility("default"))) int pronk_driver_start(const struct cfg *cfg,
        const struct driver_host *host, struct driver **out, char *err, size_t err_size)
{
	pthread_attr_t attr;
	sigset_t all, saved;
	int rc;

	if (host->cfg_size != sizeof(*cfg) || host->arena_version != ARENA_VERSION) {
		snprintf(err, err_size, "libpronk-inline.so is of another version");
		return -EPROTO;
	}
	libc_init();
	log_prefix("pronk");
	in.cfg = *cfg;
	in.host = *host;
	sem_init(&in.started, 0, 0);
	nic_around_descriptors = around_descriptors;
	nic_around_interrupts = around_interrupts;
	nic_may_fork = true;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	/* the driver library's threads inherit this thread's mask */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	rc = -pthread_create(&in.thread, &attr, thread_main, NULL);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	pthread_attr_destroy(&attr);
	if (rc) {
		snprintf(err, err_size, "cannot start a thread: %s", strerror(-rc));
		return rc;
	}
	while (sem_wait(&in.started) < 0)
		;
	if (in.rc) {
		pthread_join(in.thread, NULL);
		snprintf(err, err_size, "%s", in.err);
		return in.rc;
	}
	pthread_detach(in.thread);
	*out = &driver;
	return 0;
}
