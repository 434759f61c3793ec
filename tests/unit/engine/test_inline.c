/* test_inline.c - the engine inside a process (src/engine/inline.c) over the fake port: who runs the stack,
 * and that somebody does.
 *
 * The application is this program: its threads drive, sleep and post through struct driver and struct attach,
 * as src/sock does. The peer is the test, too: it asks by ARP who has the port's address, which only a turn
 * of the stack answers. The engine starts once per process, so all cases share it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"
#include "cfg.h"
#include "clock.h"
#include "driver.h"
#include "libc.h"
#include "nic_fake.h"
#include "nic_kernel.h"

enum { ARP_SIZE = 42, ROUNDS = 2000 };

static struct driver *driver;
static struct attach at;
static struct nic *nic;
static _Atomic bool is_over;
static _Atomic int engine_threads; /* that have said so */

static void inside(bool is_inside)
{
	if (is_inside)
		atomic_fetch_add(&engine_threads, 1);
}

/* --- the peer --- */

/* "Who has 198.18.0.2?" from 198.18.0.1 */
static void ask(void)
{
	static const uint8_t frame[ARP_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 6, 0,
	        1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2};

	assert_int_equal(nic_fake_inject(nic, 0, frame, sizeof(frame)), 0);
}

/* Answers that have come; what else the stack sends (its announcement) is thrown away. */
static uint32_t answers(void)
{
	uint8_t frame[NIC_FAKE_FRAME_MAX];
	uint32_t n = 0;

	while (nic_fake_take(nic, 0, frame, sizeof(frame)))
		n += frame[12] == 8 && frame[13] == 6 && frame[21] == 2;
	return n;
}

static bool answered(uint32_t count, uint64_t limit_ns)
{
	uint64_t end_ns = clock_now_ns() + limit_ns;
	const struct timespec nap = {.tv_nsec = 50000};
	uint32_t n = 0;

	while ((n += answers()) < count && clock_now_ns() < end_ns)
		nanosleep(&nap, NULL);
	return n == count;
}

static void rest(uint64_t ns)
{
	const struct timespec nap = {(time_t)(ns / CLOCK_NS_PER_S), (long)(ns % CLOCK_NS_PER_S)};

	nanosleep(&nap, NULL);
}

/* --- cases --- */

/* The application computes, or sleeps where we know nothing of it. */
static void nobody_drives_and_the_peer_is_answered(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		ask();
		assert_true(answered(1, CLOCK_NS_PER_S));
		rest(i % 2 ? 500000
		           : 30000000); /* the background thread is just awake, or sleeps for the port */
	}
}

static void *drive(void *arg)
{
	uint32_t *turns = arg;

	while (!atomic_load(&is_over))
		*turns += attach_drive(&at) != 0;
	return NULL;
}

static void two_threads_drive_and_every_question_is_answered_once(void **state)
{
	uint32_t turns[2] = {0};
	pthread_t thread[2];

	(void)state;
	atomic_store(&is_over, false);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, drive, &turns[i]), 0);
	for (int i = 0; i < ROUNDS; i++) {
		ask();
		if (i % 16 == 15)
			assert_true(answered(16, 5 * CLOCK_NS_PER_S));
	}
	atomic_store(&is_over, true);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(answers(), 0);
	assert_true(turns[0] + turns[1] > 0);
}

static void *call(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct call c = {.op = CALL_BARRIER};

		if (post_call(&at, 0, &c) || c.result)
			++*(uint32_t *)arg;
	}
	return NULL;
}

/* A request is answered by whoever runs the stack, mostly the thread that waits for the answer. */
static void calls_of_three_threads_are_all_answered(void **state)
{
	uint32_t failed[3] = {0};
	pthread_t thread[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, call, &failed[i]), 0);
	for (int i = 0; i < 3; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(failed[i], 0);
	}
}

/* Whoever ran the stack all the time until now does not count as doing so after this. */
static void nobody_is_busy(void)
{
	rest(2000000);
}

/* Sleeps as wait_for does: until the port or a post wakes the thread, or limit. How often it was woken. */
static uint32_t sleep_until(uint64_t end_ns)
{
	uint32_t wakes = 0;

	for (;;) {
		uint64_t limit_ns, now_ns;
		int fd = attach_sleep(&at, &limit_ns);
		struct timespec ts;
		struct pollfd p = {.fd = fd, .events = POLLIN};

		now_ns = clock_now_ns();
		if (fd == -EAGAIN) {
			if (now_ns >= end_ns)
				return wakes;
			continue;
		}
		if (fd < 0)
			abort();
		if (limit_ns > end_ns - now_ns)
			limit_ns = now_ns < end_ns ? end_ns - now_ns : 0;
		ts = (struct timespec){
		        (time_t)(limit_ns / CLOCK_NS_PER_S), (long)(limit_ns % CLOCK_NS_PER_S)};
		wakes += ppoll(&p, 1, &ts, NULL) > 0;
		attach_awake(&at, fd);
		attach_drive(&at);
		if (clock_now_ns() >= end_ns)
			return wakes;
	}
}

static void *sleep_long(void *arg)
{
	*(uint32_t *)arg = sleep_until(clock_now_ns() + CLOCK_NS_PER_S);
	return NULL;
}

static void a_sleeper_is_woken_by_a_frame_and_by_a_post(void **state)
{
	uint32_t wakes = 0;
	struct attach other;
	pthread_t thread;

	(void)state;
	nobody_is_busy();
	assert_int_equal(pthread_create(&thread, NULL, sleep_long, &wakes), 0);
	rest(60000000); /* by now the background thread rests, too */
	ask();
	assert_true(answered(1, 500000000));
	rest(50000000);
	other = at; /* as another process does: this thread runs nothing itself */
	other.driver = NULL;
	for (int i = 0; i < 3; i++) {
		struct call c = {.op = CALL_BARRIER};

		assert_int_equal(post_call(&other, 0, &c), 0);
	}
	pthread_join(thread, NULL);
	assert_true(wakes >= 2);
}

static int fall_asleep(uint64_t *limit_ns)
{
	int fd;

	do
		fd = attach_sleep(&at, limit_ns);
	while (fd == -EAGAIN);
	return fd;
}

static void *sleep_second(void *arg)
{
	uint64_t limit_ns = 0;
	int *fd = arg;

	*fd = fall_asleep(&limit_ns);
	if (limit_ns != UINT64_MAX)
		*fd = 0;
	attach_awake(&at, -1);
	return NULL;
}

/* One sleeps for the port; who comes later sleeps as ever, and is told so. */
static void a_second_sleeper_is_not_for_the_port(void **state)
{
	uint64_t limit_ns;
	pthread_t thread;
	int fd, second;

	(void)state;
	nobody_is_busy();
	fd = fall_asleep(&limit_ns);
	assert_true(fd >= 0);
	assert_int_equal(pthread_create(&thread, NULL, sleep_second, &second), 0);
	pthread_join(thread, NULL);
	assert_int_equal(second, -1);
	attach_awake(&at, fd);
	ask();
	assert_true(answered(1, CLOCK_NS_PER_S));
}

static void *drive_and_sleep(void *arg)
{
	uint64_t limit_ns;
	int *fd = arg;

	while (!atomic_load(&is_over))
		attach_drive(&at);
	if (*fd)
		return NULL; /* it goes where we know nothing of it */
	*fd = fall_asleep(&limit_ns);
	attach_awake(&at, *fd);
	return NULL;
}

/* A thread runs the stack all the time, and the calling one sleeps: not for the port, once that is known. */
static pthread_t sleep_beside_busy(int *fd)
{
	uint64_t limit_ns, end_ns = clock_now_ns() + 20 * CLOCK_NS_PER_S;
	pthread_t thread;
	int mine;

	atomic_store(&is_over, false);
	assert_int_equal(pthread_create(&thread, NULL, drive_and_sleep, fd), 0);
	while ((mine = fall_asleep(&limit_ns)) >= 0 && clock_now_ns() < end_ns) {
		attach_awake(&at, mine);
		rest(200000);
	}
	assert_int_equal(mine, -1);
	assert_true(limit_ns == UINT64_MAX);
	return thread;
}

/* It would be woken by each frame, in vain. The busy one sleeps for the port when it has nothing to do. */
static void who_sleeps_beside_a_busy_thread_is_not_for_the_port(void **state)
{
	pthread_t thread;
	int fd = 0;

	(void)state;
	nobody_is_busy();
	for (int i = 0; i < 10; i++) {
		fd = 0;
		thread = sleep_beside_busy(&fd);
		ask();
		assert_true(answered(1, 5 * CLOCK_NS_PER_S));
		atomic_store(&is_over, true);
		pthread_join(thread, NULL);
		assert_true(fd >= 0);
		attach_awake(&at, -1);
	}
}

/* ... and when it turns to something else, somebody notices, and the next one sleeps for the port again. */
static void a_busy_thread_that_goes_away_leaves_nobody_alone(void **state)
{
	pthread_t thread;
	uint64_t limit_ns;
	int fd;

	(void)state;
	for (int i = 0; i < 10; i++) {
		fd = 1;
		thread = sleep_beside_busy(&fd);
		atomic_store(&is_over, true);
		pthread_join(thread, NULL);
		ask();
		assert_true(answered(1, CLOCK_NS_PER_S));
		attach_awake(&at, -1);
		nobody_is_busy();
		fd = fall_asleep(&limit_ns);
		assert_true(fd >= 0);
		attach_awake(&at, fd);
	}
}

/* A signal handler has left the sleep by longjmp(3): nobody said that it is over. */
static void a_thread_that_left_its_sleep_is_no_sleeper(void **state)
{
	uint64_t limit_ns;

	(void)state;
	nobody_is_busy();
	for (int i = 0; i < 10; i++) {
		assert_true(fall_asleep(&limit_ns) >= 0);
		attach_drive(&at);
		ask();
		assert_true(answered(1, CLOCK_NS_PER_S)); /* by the background thread, at once */
	}
	for (int i = 0; i < 10; i++)
		assert_true(fall_asleep(&limit_ns) >= 0);
	attach_drive(&at);
}

static void *sleep_and_leave(void *arg)
{
	uint64_t limit_ns;

	*(int *)arg = fall_asleep(&limit_ns);
	return NULL;
}

/* The same, and the thread does not come again. Each question would wait for a timer of the stack, up to a
 * second. */
static void a_sleeper_that_does_not_come_is_forgotten(void **state)
{
	uint64_t start_ns;
	pthread_t thread;
	int fd = -1;

	(void)state;
	nobody_is_busy();
	assert_int_equal(pthread_create(&thread, NULL, sleep_and_leave, &fd), 0);
	pthread_join(thread, NULL);
	assert_true(fd >= 0);
	start_ns = clock_now_ns();
	for (int i = 0; i < 30; i++) {
		rest(60000000); /* the background thread rests, or sleeps for the port */
		ask();
		assert_true(answered(1, 5 * CLOCK_NS_PER_S));
	}
	assert_true(clock_now_ns() - start_ns < 12 * CLOCK_NS_PER_S);
}

static sigjmp_buf out_of_it;
static _Atomic bool has_left;

static void leave(int signal)
{
	(void)signal;
	if (attach_is_driving(&at) && !atomic_exchange(&has_left, true))
		siglongjmp(out_of_it, 1);
}

static void *drive_until_left(void *arg)
{
	(void)arg;
	if (!sigsetjmp(out_of_it, 1))
		for (;;)
			attach_drive(&at);
	rest(60 * CLOCK_NS_PER_S); /* the process ends before */
	return NULL;
}

/* The last case: the stack cannot go on from there. Its clients are told, and nobody waits for it. */
static void a_turn_that_is_left_ends_the_service(void **state)
{
	struct sigaction sa = {.sa_handler = leave};
	uint64_t end_ns, limit_ns;
	pthread_t thread;

	(void)state;
	sigaction(SIGUSR1, &sa, NULL);
	assert_int_equal(pthread_create(&thread, NULL, drive_until_left, NULL), 0);
	end_ns = clock_now_ns() + 20 * CLOCK_NS_PER_S;
	while (!atomic_load(&has_left) && clock_now_ns() < end_ns) {
		pthread_kill(thread, SIGUSR1);
		rest(100000);
	}
	assert_true(atomic_load(&has_left));
	assert_false(attach_check_dead(&at));
	end_ns = clock_now_ns() + 60 * CLOCK_NS_PER_S;
	while (!attach_check_dead(&at) && clock_now_ns() < end_ns)
		rest(10000000);
	assert_true(attach_check_dead(&at));
	assert_int_equal(attach_drive(&at), 0);
	assert_int_equal(attach_sleep(&at, &limit_ns), -1);
	attach_awake(&at, -1);
	driver->fork_prepare();
	driver->fork_parent();
	end_ns = clock_now_ns() + 5 * CLOCK_NS_PER_S;
	assert_int_equal(driver->keep(true), -EAGAIN);
	assert_true(clock_now_ns() < end_ns);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * CLOCK_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void idle_costs_next_to_nothing(void **state)
{
	uint64_t before_ns, slept_ns, woken_ns;

	(void)state;
	rest(100000000);
	before_ns = cpu_ns();
	rest(CLOCK_NS_PER_S); /* the application is elsewhere, the background thread sleeps for the port */
	slept_ns = cpu_ns() - before_ns;
	sleep_until(clock_now_ns() + 100000000);
	before_ns = cpu_ns();
	sleep_until(clock_now_ns() + CLOCK_NS_PER_S); /* the application sleeps for the port */
	woken_ns = cpu_ns() - before_ns;
	if (slept_ns > 20000000 || woken_ns > 20000000)
		fail_msg("idle seconds cost %llu and %llu us", (unsigned long long)slept_ns / 1000,
		        (unsigned long long)woken_ns / 1000);
}

/* What is posted by a thread that goes away is sent at once. */
static void a_push_runs_the_stack(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) {
		struct call c = {.op = CALL_BARRIER};

		atomic_store(&driver->last, NULL); /* somebody else was here meanwhile */
		ask();
		attach_push(&at, 1);
		assert_int_equal(post_call(&at, 0, &c), 0);
		assert_true(answered(1, CLOCK_NS_PER_S));
	}
}

static void another_version_is_refused(void **state)
{
	struct driver_host host = {.cfg_size = 1, .arena_version = ARENA_VERSION};
	struct driver *none;
	struct cfg cfg;
	char err[256] = "";

	(void)state;
	cfg_defaults(&cfg);
	assert_int_equal(pronk_driver_start(&cfg, &host, &none, err, sizeof(err)), -EPROTO);
	assert_non_null(strstr(err, "another version"));
}

static char folder[64] = "/tmp/pronk-inline-XXXXXX";

static int start(void **state)
{
	const struct driver_host host = {
	        .cfg_size = sizeof(struct cfg), .arena_version = ARENA_VERSION, .inside = inside};
	char path[CFG_SOCKET_PATH_MAX], err[512] = "";
	struct cfg cfg;

	(void)state;
	libc_init();
	if (!mkdtemp(folder))
		return -1;
	cfg_defaults(&cfg);
	cfg.mode = CFG_MODE_INLINE;
	cfg.hugepages = CFG_HUGEPAGES_OFF;
	cfg.max_sockets = 256;
	cfg.send_memory_mb = 8;
	snprintf(cfg.address, sizeof(cfg.address), "198.18.0.2/24");
	snprintf(cfg.runtime_dir, sizeof(cfg.runtime_dir), "%s", folder);
	nic_fake_with_wait_fd();
	if (pronk_driver_start(&cfg, &host, &driver, err, sizeof(err))) {
		fprintf(stderr, "%s\n", err);
		return -1;
	}
	nic = nic_fake_opened();
	cfg_socket_path(&cfg, path, sizeof(path));
	if (attach_join(&at, path, CTL_CLIENT, err, sizeof(err))) {
		fprintf(stderr, "%s\n", err);
		return -1;
	}
	at.driver = driver;
	answers();
	return atomic_load(&engine_threads) > 0 ? 0 : -1;
}

static int folder_remove(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(another_version_is_refused),
	        cmocka_unit_test(nobody_drives_and_the_peer_is_answered),
	        cmocka_unit_test(two_threads_drive_and_every_question_is_answered_once),
	        cmocka_unit_test(calls_of_three_threads_are_all_answered),
	        cmocka_unit_test(a_sleeper_is_woken_by_a_frame_and_by_a_post),
	        cmocka_unit_test(a_second_sleeper_is_not_for_the_port),
	        cmocka_unit_test(who_sleeps_beside_a_busy_thread_is_not_for_the_port),
	        cmocka_unit_test(a_busy_thread_that_goes_away_leaves_nobody_alone),
	        cmocka_unit_test(a_push_runs_the_stack),
	        cmocka_unit_test(a_thread_that_left_its_sleep_is_no_sleeper),
	        cmocka_unit_test(a_sleeper_that_does_not_come_is_forgotten),
	        cmocka_unit_test(idle_costs_next_to_nothing),
	        cmocka_unit_test(a_turn_that_is_left_ends_the_service),
	};

	return cmocka_run_group_tests(tests, start, folder_remove);
}
