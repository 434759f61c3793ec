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
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bell.h"
#include "busy.h"
#include "clock.h"
#include "compiler.h"
#include "driver.h"
#include "libc.h"
#include "log.h"
#include "raw.h"
#include "spin.h"
#include "stuck.h"

LOG_MODULE("engine");

enum {
	STACK_SIZE = 2 << 20,
	AWAY_NS = 2000000, /* the application has not run the stack for so long: it does something else */
	AWAY_SHARED_NS = 200000, /* the same while others rely on somebody */
	TICK_NS = 1000000,       /* how often the background thread looks whether that is so */
	TICK_SHARED_NS = 100000, /* at first, while others rely on somebody */
	QUIET_NS = 20000000,     /* a thread sleeps for the port, and nothing has happened for so long */
	SERVE_TURNS = 64,        /* busy turns after which the control socket gets a look */
	SAMPLE_TURNS = 16,       /* one turn in so many is timed */
	SPIN_LOOKS = 8,          /* between two glances at the clock */
	SPIN_NS = 5000,          /* how long a thread looks before its core is offered to others */
	KEEP_WAIT_MS = 10000,    /* for the copy of the process to be made */
	REST_OURS_MS = 5000,     /* without a client: for what peers have not acknowledged */
	REST_PEERS_MS = 1000,    /* the same: for peers that have not ended their direction */
	END_S = 5,               /* for a keeper to take everything down */
	GROUP_NS = 2000000000,   /* for the keeper to leave its program's process group */
	ENDING_NAPS = 500,
};

/* What became of a wish that the stack goes on without this process. */
enum keeping { KEEP_NO, KEEP_WANTED, KEEP_WANTED_APART, KEEP_DONE, KEEP_FAILED, KEEP_NEVER };

enum background {
	BG_TICKING, /* awake, or asleep for a tick at most */
	BG_RESTING, /* asleep until a timer of the stack; a thread of the application sleeps for the port */
	BG_AT_PORT, /* asleep for the port itself */
};

enum { SLEEPER_ENDING = 1 }; /* in the place of its name: the announcement is being taken back */

static struct {
	_Alignas(64) _Atomic uintptr_t token; /* the name of the thread that has it, or 0 */
	_Atomic uint32_t again;               /* somebody has posted while the token was held */
	_Atomic uint32_t taken;               /* how often it was taken; written under the token */
	_Atomic uint64_t drive_ns;            /* when a thread of the application last ran the stack */
	uint32_t turns;                       /* under the token */
	bool is_armed;                        /* likewise: the port was armed for a sleep */
	struct busy busy;                     /* likewise, see there */

	_Alignas(64) _Atomic uintptr_t
	        sleeper;             /* the thread of the application that sleeps for the port, or 0 */
	_Atomic uint32_t followers;  /* others that sleep, and rely on somebody */
	_Atomic uint32_t background; /* enum background */

	struct engine *e;
	struct stack *s;
	struct bell bell; /* wakes the background thread */
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

static __thread struct {
	bool is_following;
	struct busy_self busy;
} self; /* its address is the thread's name */

static inline uintptr_t name(void)
{
	return (uintptr_t)&self;
}

static inline bool token_try(void)
{
	uintptr_t nobody = 0;

	if (atomic_load_explicit(&in.token, memory_order_relaxed) ||
	        !atomic_compare_exchange_strong_explicit(
	                &in.token, &nobody, name(), memory_order_acquire, memory_order_relaxed))
		return false;
	atomic_store_explicit(
	        &in.taken, atomic_load_explicit(&in.taken, memory_order_relaxed) + 1, memory_order_relaxed);
	return true;
}

static inline void token_give(void)
{
	atomic_store_explicit(&in.token, 0, memory_order_release);
}

/* The calling thread has it: this is a signal handler that has interrupted the thread's own turn. */
static bool token_is_mine(void)
{
	return atomic_load_explicit(&in.token, memory_order_relaxed) == name();
}

/* False when it will never be had again, or not before the time is over. */
static bool token_wait(uint64_t limit_ms)
{
	const struct timespec nap = {.tv_nsec = 20000};
	uint64_t start_ns = clock_now_ns();

	for (uint32_t n = 0; !token_try(); n++) {
		if (atomic_load_explicit(&in.is_gone, memory_order_relaxed) || token_is_mine())
			return false;
		if (n < 100) {
			cpu_relax();
			continue;
		}
		if (limit_ms && clock_now_ns() - start_ns >= limit_ms * CLOCK_NS_PER_MS)
			return false;
		nanosleep(&nap, NULL);
	}
	return true;
}

/* After a turn, or a change of who sleeps: a background thread that sleeps on what was true before looks
 * anew. It says so before the turn that it goes by, so one of the two sees the other. */
static void background_tell(void)
{
	uint32_t was = atomic_load_explicit(&in.background, memory_order_relaxed);

	if (unlikely(was != BG_TICKING) && atomic_compare_exchange_strong(&in.background, &was, BG_TICKING))
		bell_ring(&in.bell);
}

/* Takes the announcement of a sleep for the port back, if it is still this thread's. */
static void sleeper_end(uintptr_t who)
{
	if (!atomic_compare_exchange_strong(&in.sleeper, &who, SLEEPER_ENDING))
		return;
	/* keep waits for this, so that nothing of it happens beside the keeper */
	if (!atomic_load(&in.is_gone))
		stack_sleep_end(in.s);
	atomic_store(&in.sleeper, 0);
	atomic_thread_fence(memory_order_seq_cst);
}

static void follower_end(void)
{
	if (!self.is_following)
		return;
	self.is_following = false;
	atomic_fetch_sub(&in.followers, 1);
}

/* A thread that comes here is awake. If it did not say so, it has left its sleep by longjmp(3) from a signal
 * handler, or is in such a handler: then the sleep ends right after it. */
static void sleep_forget(void)
{
	if (atomic_load_explicit(&in.sleeper, memory_order_relaxed) == name())
		sleeper_end(name());
	follower_end();
}

/* With the token: one turn. */
static uint32_t turn(uint64_t now_ns)
{
	uint32_t n;

	nic_thread_act();
	if (unlikely(in.is_armed) && !atomic_load_explicit(&in.sleeper, memory_order_relaxed)) {
		in.is_armed = false;
		stack_disarm(in.s);
	}
	n = stack_turn(in.s, now_ns);
	if (n && unlikely(++in.turns % SAMPLE_TURNS == 0))
		stack_busy(in.s, clock_now_ns() - now_ns, SAMPLE_TURNS);
	return n;
}

/* --- what threads of the application do --- */

/* With the token: looks until there is something to do, or the time is over. The time then. */
static inline uint64_t look(uint64_t now_ns, uint64_t spin_ns)
{
	uint64_t end_ns = now_ns + spin_ns;

	nic_thread_act();
	while (now_ns < end_ns) {
		for (int i = 0; i < SPIN_LOOKS; i++) {
			if (stack_look(in.s))
				return clock_now_ns();
			cpu_relax();
		}
		now_ns = clock_now_ns();
	}
	return now_ns;
}

/* Runs a turn, after looks for spin_ns at most: they are much cheaper, and the first frame is found at once.
 */
static inline uint32_t drive(uint64_t spin_ns)
{
	int cancel, saved = errno;
	uint64_t now_ns;
	uint32_t n;

	if (unlikely(atomic_load_explicit(&in.sleeper, memory_order_relaxed) ||
	             atomic_load_explicit(&in.followers, memory_order_relaxed)))
		sleep_forget();
	if (!token_try())
		return 0;
	/* a driver may make calls in which a thread can be cancelled */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	now_ns = clock_now_ns();
	if (spin_ns)
		now_ns = look(now_ns, spin_ns);
	busy_note(&in.busy, &self.busy, name(), now_ns);
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
	background_tell();
	pthread_setcancelstate(cancel, NULL);
	errno = saved;
	return n;
}

static uint32_t driver_turn(void)
{
	return drive(0);
}

static uint32_t driver_spin(void)
{
	return drive(SPIN_NS);
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

static int follow(void)
{
	self.is_following = true;
	atomic_fetch_add(&in.followers, 1);
	return -1;
}

static int driver_sleep(uint64_t *limit_ns)
{
	int cancel, saved = errno;
	uintptr_t nobody = 0;
	bool is_quiet;

	*limit_ns = UINT64_MAX;
	if (token_is_mine())
		return -1; /* whatever it waits for, the turn around it must end first */
	sleep_forget();
	busy_end(&in.busy, &self.busy, name());
	/* every frame would wake this thread, and a busy one has it already */
	if (atomic_load_explicit(&in.is_gone, memory_order_relaxed) ||
	        atomic_load_explicit(&in.sleeper, memory_order_relaxed) ||
	        busy_others(&in.busy, name(), clock_now_ns()) ||
	        !atomic_compare_exchange_strong(&in.sleeper, &nobody, name()))
		return follow();
	if (!token_try()) {
		atomic_store(&in.sleeper, 0);
		return -EBUSY;
	}
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	nic_thread_act();
	is_quiet = stack_sleep_begin(in.s);
	in.is_armed = is_quiet;
	if (is_quiet)
		*limit_ns = stack_sleep_ns(in.s);
	else
		atomic_store(&in.sleeper, 0);
	token_give();
	/* asleep at the port it would go on so after this thread has stopped to, without an announcement if
	 * there was something to do */
	background_tell();
	pthread_setcancelstate(cancel, NULL);
	errno = saved;
	return is_quiet ? stack_wait_fd(in.s) : -EAGAIN;
}

static void driver_awake(int fd)
{
	int saved = errno;

	if (fd < 0) {
		follower_end();
		return;
	}
	sleeper_end(name());
	background_tell();
	errno = saved;
}

static bool driver_is_mine(void)
{
	return token_is_mine();
}

static void driver_fork_prepare(void)
{
	in.fork_took = token_wait(0);
}

static void driver_fork_parent(void)
{
	if (!in.fork_took)
		return;
	token_give();
	driver_turn(); /* what was posted meanwhile */
}

/* The child holds none of the port: it would not go with the parent. */
static void driver_fork_child(void)
{
	in.host.close_fds(true);
	atomic_store(&in.is_gone, true);
}

static int driver_keep(bool is_end)
{
	const struct timespec nap = {.tv_nsec = 50000};
	uint64_t end_ns = clock_now_ns() + KEEP_WAIT_MS * CLOCK_NS_PER_MS;
	uint32_t no = KEEP_NO, failed = KEEP_FAILED;

	atomic_compare_exchange_strong(&in.keeping, &no, is_end ? KEEP_WANTED : KEEP_WANTED_APART);
	bell_ring(&in.bell);
	/* not for ever: the caller may be in a handler that has interrupted malloc */
	while (atomic_load(&in.keeping) < KEEP_DONE && clock_now_ns() < end_ns)
		nanosleep(&nap, NULL);
	if (atomic_load(&in.keeping) == KEEP_DONE)
		return 0;
	if (atomic_load(&in.keeping) < KEEP_DONE)
		return -ETIMEDOUT;
	/* the next one that leaves may have more luck */
	atomic_compare_exchange_strong(&in.keeping, &failed, KEEP_NO);
	return -EAGAIN;
}

static struct driver driver = {
        .turn = driver_turn,
        .spin = driver_spin,
        .push = driver_push,
        .sleep = driver_sleep,
        .awake = driver_awake,
        .is_mine = driver_is_mine,
        .fork_prepare = driver_fork_prepare,
        .fork_parent = driver_fork_parent,
        .fork_child = driver_fork_child,
        .unmapping = nic_unmapping,
        .keep = driver_keep,
};

/* --- the background thread --- */

static void serve(void)
{
	bell_hush(&in.bell);
	engine_serve(in.e);
}

/* An announcement of the stack's sleep may have gone with the end of another thread's. */
static void announcement_renew(void)
{
	if (!atomic_load(&in.sleeper) || stack_sleep_renew(in.s))
		return;
	driver_push();
	busy_end(&in.busy, &self.busy, name()); /* nobody shall rely on this thread */
}

/* The thread that sleeps for the port has been told that there is something, and does not come: it has left
 * its sleep by longjmp(3), or was ended. Should it come after all, it finds itself forgotten. */
static void sleeper_check(void)
{
	struct pollfd p = {.fd = stack_wait_fd(in.s), .events = POLLIN};
	uintptr_t who = atomic_load(&in.sleeper);

	if (who && poll(&p, 1, 0) > 0)
		sleeper_end(who);
}

/* A thread of the application sleeps for the port. For a moment it is looked whether other threads have given
 * the stack something to do that the sleeper does not wake for; then there is nothing to do until the sleeper
 * is awake. */
static void run_beside_sleeper(uint64_t away_ns)
{
	bool is_quiet = away_ns > QUIET_NS;
	uint64_t limit_ns = TICK_NS;

	/* before the turn: what another one changes after it ends the rest (background_tell) */
	if (is_quiet)
		atomic_store(&in.background, BG_RESTING);
	if (token_try()) {
		turn(clock_now_ns());
		if (is_quiet)
			limit_ns = stack_timer_ns(in.s);
		token_give();
	}
	announcement_renew();
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&in.sleeper)) {
		if (bell_wait(&in.bell, false, limit_ns))
			serve();
		if (is_quiet)
			sleeper_check();
	}
	atomic_store(&in.background, BG_TICKING);
}

/* Nobody else runs the stack, and it has nothing to do. */
static void sleep_at_port(void)
{
	uint64_t limit_ns = 0;
	bool is_quiet;

	if (!token_try()) {
		if (bell_wait(&in.bell, false, TICK_SHARED_NS))
			serve();
		return;
	}
	/* one that had its turn a moment ago relies on what it left */
	if (atomic_load(&in.sleeper)) {
		token_give();
		return;
	}
	atomic_store(&in.background, BG_AT_PORT);
	nic_thread_act();
	is_quiet = in.is_armed = stack_sleep_begin(in.s);
	if (is_quiet)
		limit_ns = stack_sleep_ns(in.s);
	token_give();
	atomic_thread_fence(memory_order_seq_cst);
	if (is_quiet && !atomic_load(&in.sleeper))
		bell_wait(&in.bell, true, limit_ns);
	atomic_store(&in.background, BG_TICKING);
	/* a thread of the application that sleeps for the port by now relies on the announcement */
	if (is_quiet && !atomic_load(&in.sleeper)) {
		stack_sleep_end(in.s);
		atomic_thread_fence(memory_order_seq_cst);
		announcement_renew();
	}
	serve();
}

/* Every client, this process among them, sees the end of the service. The port stays open, as the thread that
 * has the token may still be in there. */
static void abandon(void)
{
	log_error("a signal handler has left the stack's work in the middle (longjmp?): its connections end");
	atomic_store(&in.is_gone, true);
	atomic_store(&in.keeping, KEEP_NEVER);
	engine_hang_up(in.e);
	for (;;)
		pause();
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
		log_open((enum log_level)engine_cfg(in.e)->log_level, in.cfg.log_file);
	engine_owner_changed(in.e);
	in.is_keeper = true;
	in.thread = pthread_self();
	atomic_store(&in.is_gone, false);
	atomic_store(&in.keeping, KEEP_NO);
	atomic_store(&in.sleeper, 0);
	atomic_store(&in.followers, 0);
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
	const struct timespec nap = {.tv_nsec = 20000};
	uint64_t end_ns;
	int pid;

	if (!token_wait(KEEP_WAIT_MS)) {
		atomic_store(&in.keeping, KEEP_FAILED);
		return;
	}
	nic_fork_prepare();
	/* before the copy is made: a thread that is just waking up must not touch what the copy goes on with
	 */
	atomic_store(&in.is_gone, true);
	for (int i = 0; i < ENDING_NAPS && atomic_load(&in.sleeper) == SLEEPER_ENDING; i++)
		nanosleep(&nap, NULL);
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
	/* whoever hears of this program's end may kill what is left of its process group */
	for (end_ns = clock_now_ns() + GROUP_NS; engine_is_mine(in.e) && clock_now_ns() < end_ns;)
		nanosleep(&nap, NULL);
	atomic_store(&in.is_stopping, true);
	atomic_store(&in.keeping, KEEP_DONE);
}

/* Whether nobody needs this stack any more, or it shall end (pronk stop). */
static bool keeper_is_over(void)
{
	uint64_t now_ns = clock_now_ns(), limit_ms;
	enum stack_rest rest;
	sigset_t waiting;

	if (!sigpending(&waiting) && sigismember(&waiting, SIGTERM))
		return true;
	if (engine_client_count(in.e)) {
		in.idle_ns = 0;
		return false;
	}
	if (!in.idle_ns) {
		in.idle_ns = now_ns;
		engine_close(in.e); /* whoever comes from now on starts a stack of its own, when this one has
		                       ended */
	}
	token_wait(0);
	rest = stack_rest(in.s);
	token_give();
	limit_ms = rest == STACK_REST_OURS ? REST_OURS_MS : rest == STACK_REST_PEERS ? REST_PEERS_MS : 0;
	return now_ns - in.idle_ns >= limit_ms * CLOCK_NS_PER_MS;
}

static void keeper_end(void)
{
	struct sigaction by_default = {.sa_handler = SIG_DFL};
	sigset_t alarms;

	/* The driver library has threads that were not copied. What they were about when the copy was made
	 * may never be over, and nobody waits for anything but the port. */
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	sigaction(SIGALRM, &by_default, NULL);
	alarm(END_S);
	pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
	nic_thread_act();
	engine_counted(in.e);
	stack_forget(in.s);
	engine_stop(in.e);
	RAW(SYS_exit_group, 0);
}

static void run(void)
{
	uint64_t now_ns, work_ns = 0, yielded = 0;
	uint64_t tick_ns = TICK_SHARED_NS;
	struct spin spin = {0};
	struct stuck stuck = {0};
	uint32_t turns = 0;

	while (!atomic_load(&in.is_stopping)) {
		/* by threads that sleep and are woken by nobody, or by other processes */
		bool is_shared = atomic_load_explicit(&in.followers, memory_order_relaxed) ||
		                 engine_client_count(in.e) > 1;
		int64_t away_ns;

		if (unlikely(atomic_load_explicit(&in.keeping, memory_order_relaxed) - KEEP_WANTED <= 1))
			keep();
		if (unlikely(in.is_keeper) && keeper_is_over())
			keeper_end();
		now_ns = clock_now_ns();
		if (unlikely(stuck_look(&stuck, atomic_load_explicit(&in.token, memory_order_relaxed) != 0,
		            atomic_load_explicit(&in.taken, memory_order_relaxed), now_ns)))
			abandon();
		if (yielded)
			spin_lost(&spin, yielded, now_ns);
		yielded = 0;
		away_ns = (int64_t)(now_ns - atomic_load_explicit(&in.drive_ns, memory_order_relaxed));
		if (atomic_load(&in.sleeper)) {
			run_beside_sleeper(away_ns < 0 ? 0 : (uint64_t)away_ns);
			continue;
		}
		if (away_ns < (is_shared ? AWAY_SHARED_NS : AWAY_NS)) {
			/* looks that find the application at it become rare, and often again when it was not
			 */
			if (bell_wait(&in.bell, false, is_shared ? tick_ns : TICK_NS))
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
			token_give();
		}
		if (now_ns - work_ns >= engine_cfg(in.e)->stack_spin_us * CLOCK_NS_PER_US ||
		        !spin_may(&spin, now_ns)) {
			sleep_at_port();
		} else {
			/* as a stack thread does: whoever has work for the stack may want this core */
			yielded = now_ns;
			sched_yield();
		}
	}
}

/* --- the start --- */

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
		in.rc = bell_open(&in.bell, engine_fd(in.e), stack_wait_fd(in.s));
		if (in.rc) {
			snprintf(in.err, sizeof(in.err), "cannot make the engine's event loop: %s",
			        strerror(-in.rc));
			engine_stop(in.e);
		}
	}
	if (in.rc) {
		sem_post(&in.started);
		return NULL;
	}
	if (in.cfg.metrics_listen[0])
		log_warning("metrics_listen is for pronkd: with mode = \"inline\" use pronkctl export");
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
	if (begins) {
		while (!token_wait(0))
			pause(); /* until the process ends */
		return;
	}
	token_give();
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&in.again, memory_order_relaxed))
		driver_turn();
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
