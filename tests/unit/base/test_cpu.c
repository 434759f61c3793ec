/* test_cpu.c - cores and clocks of whatever machine this runs on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "clock.h"
#include "cpu.h"

static void allowed_cores_are_those_of_the_kernel(void **state)
{
	uint16_t cores[CPU_CORE_MAX];
	int count = cpu_allowed(cores, CPU_CORE_MAX);
	cpu_set_t set;

	(void)state;
	assert_true(count > 0);
	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	assert_int_equal(count, CPU_COUNT(&set));
	for (int i = 0; i < count; i++) {
		assert_true(CPU_ISSET(cores[i], &set));
		assert_true(i == 0 || cores[i] > cores[i - 1]);
	}
	cores[0] = 7777;
	assert_int_equal(cpu_allowed(cores, 0), count);
	assert_int_equal(cores[0], 7777);
}

static void pick_takes_the_last_cores_and_repeats_when_short(void **state)
{
	uint16_t allowed[CPU_CORE_MAX], cores[64];
	int count = cpu_allowed(allowed, CPU_CORE_MAX), distinct = count < 64 ? count : 64;

	(void)state;
	assert_int_equal(cpu_pick(cores, 1), 1);
	assert_int_equal(cores[0], allowed[count - 1]);
	assert_int_equal(cpu_pick(cores, 64), distinct);
	for (int i = 0; i < 64; i++)
		assert_int_equal(cores[i], allowed[count - distinct + i % distinct]);
}

static void *pin_thread(void *arg)
{
	uint16_t core = *(uint16_t *)arg;

	assert_int_equal(cpu_pin(core), 0);
	assert_int_equal(sched_getcpu(), core);
	return NULL;
}

static void pin_binds_only_the_calling_thread(void **state)
{
	uint16_t cores[CPU_CORE_MAX];
	int count = cpu_allowed(cores, CPU_CORE_MAX);
	pthread_t thread;

	(void)state;
	for (int i = 0; i < count && i < 8; i++) {
		assert_int_equal(pthread_create(&thread, NULL, pin_thread, &cores[i]), 0);
		pthread_join(thread, NULL);
	}
	assert_int_equal(cpu_allowed(cores, CPU_CORE_MAX), count);
}

static void pin_to_no_core_gives_einval(void **state)
{
	(void)state;
	assert_int_equal(cpu_pin(CPU_CORE_MAX), -EINVAL);
	assert_int_equal(cpu_pin(UINT32_MAX), -EINVAL);
	if (sysconf(_SC_NPROCESSORS_CONF) < CPU_CORE_MAX)
		assert_int_equal(cpu_pin(CPU_CORE_MAX - 1), -EINVAL);
}

static void node_is_known_or_minus_one(void **state)
{
	uint16_t cores[CPU_CORE_MAX];
	int count = cpu_allowed(cores, CPU_CORE_MAX);

	(void)state;
	for (int i = 0; i < count; i++)
		assert_true(cpu_node(cores[i]) >= -1);
	assert_int_equal(cpu_node(CPU_CORE_MAX), -1);
	assert_int_equal(cpu_node(UINT32_MAX), -1);
}

static void clocks_agree_and_do_not_step_back(void **state)
{
	uint64_t last_ns = clock_now_ns();

	(void)state;
	for (int i = 0; i < 100000; i++) {
		uint64_t now_ns = clock_now_ns();

		assert_true(now_ns >= last_ns);
		last_ns = now_ns;
		cpu_relax();
	}
	assert_true(clock_coarse_ns() <= clock_now_ns());
	assert_true(clock_now_ns() - clock_coarse_ns() < CLOCK_NS_PER_S);
	assert_true(clock_wall_ns() / CLOCK_NS_PER_S > 1700000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(allowed_cores_are_those_of_the_kernel),
	        cmocka_unit_test(pick_takes_the_last_cores_and_repeats_when_short),
	        cmocka_unit_test(pin_binds_only_the_calling_thread),
	        cmocka_unit_test(pin_to_no_core_gives_einval),
	        cmocka_unit_test(node_is_known_or_minus_one),
	        cmocka_unit_test(clocks_agree_and_do_not_step_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
