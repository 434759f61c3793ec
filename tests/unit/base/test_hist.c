/* test_hist.c - histograms against exact values: buckets, percentiles, sums, differences, several writers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hist.h"

enum { VALUES = 20000, THREADS = 4 };

static struct hist hist;
static struct hist_copy copy;
static uint64_t values[VALUES];

static int clear(void **state)
{
	(void)state;
	memset(&hist, 0, sizeof(hist));
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void every_value_lies_in_its_bucket_and_buckets_have_no_gaps(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		uint64_t low = hist_low(i), high = hist_high(i);

		assert_int_equal(hist_bucket(low), i);
		assert_int_equal(hist_bucket(high), i);
		assert_true(high - low <= low / HIST_SUB);
		if (i + 1 < HIST_BUCKETS)
			assert_int_equal(hist_low(i + 1), high + 1);
	}
	assert_int_equal(hist_high(HIST_BUCKETS - 1), (1ull << HIST_TOP_BITS) - 1);
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
}

static void percentiles_are_exact_to_one_part_in_32(void **state)
{
	static const double parts[] = {0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};

	(void)state;
	srand48(7);
	for (int i = 0; i < VALUES; i++) {
		/* from nanoseconds to a minute, every magnitude alike */
		values[i] = (uint64_t)((1 + drand48()) * (double)(1ull << (lrand48() % 36)));
		hist_add(&hist, values[i]);
	}
	hist_take(&hist, &copy);
	assert_int_equal(copy.count, VALUES);
	qsort(values, VALUES, sizeof(values[0]), compare);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		double wanted = parts[i] * VALUES;
		uint64_t rank = (uint64_t)wanted, got = hist_at(&copy, parts[i]), exact;

		rank += (double)rank < wanted;
		exact = values[rank ? rank - 1 : 0];

		assert_true(got >= exact);
		assert_true(got - exact <= exact / HIST_SUB);
	}
	assert_int_equal(hist_at(&copy, 1), values[VALUES - 1]);
	assert_int_equal(copy.max_ns, values[VALUES - 1]);
}

static void small_values_are_exact(void **state)
{
	(void)state;
	for (uint64_t v = 1; v <= 60; v++)
		hist_add(&hist, v);
	hist_take(&hist, &copy);
	assert_int_equal(hist_at(&copy, 0.5), 30);
	assert_int_equal(hist_at(&copy, 0.9), 54);
	assert_int_equal(copy.sum_ns, 60 * 61 / 2);
}

static void without_values_everything_is_zero(void **state)
{
	(void)state;
	hist_take(&hist, &copy);
	assert_int_equal(copy.count, 0);
	assert_int_equal(hist_at(&copy, 0.5), 0);
}

static void a_value_beyond_the_top_is_told_as_the_largest(void **state)
{
	(void)state;
	hist_add(&hist, 5);
	hist_add(&hist, 1ull << 50);
	hist_take(&hist, &copy);
	assert_int_equal(hist_at(&copy, 0.5), 5);
	assert_int_equal(hist_at(&copy, 1), 1ull << 50);
}

static void a_difference_has_what_came_in_between(void **state)
{
	static struct hist_copy before;

	(void)state;
	for (int i = 0; i < 100; i++)
		hist_add(&hist, 1000000);
	hist_take(&hist, &before);
	for (int i = 0; i < 10; i++)
		hist_add(&hist, 40);
	hist_take(&hist, &copy);
	hist_since(&copy, &before);
	assert_int_equal(copy.count, 10);
	assert_int_equal(copy.sum_ns, 400);
	assert_int_equal(copy.max_ns, 40);
	assert_int_equal(hist_at(&copy, 0.99), 40);
	/* cleared meanwhile: what is there counts */
	hist_clear(&hist);
	hist_add(&hist, 7);
	hist_take(&hist, &copy);
	hist_since(&copy, &before);
	assert_int_equal(copy.count, 1);
	assert_int_equal(hist_at(&copy, 0.5), 7);
}

static void a_sum_has_both(void **state)
{
	static struct hist_copy total;

	(void)state;
	hist_add(&hist, 10);
	hist_take(&hist, &total);
	hist_add(&hist, 50);
	hist_take(&hist, &copy);
	hist_sum(&total, &copy);
	assert_int_equal(total.count, 3);
	assert_int_equal(total.sum_ns, 70);
	assert_int_equal(total.max_ns, 50);
	assert_int_equal(hist_at(&total, 0.5), 10);
}

static void *add_many(void *arg)
{
	for (uint64_t i = 0; i < VALUES; i++)
		hist_add(&hist, (uintptr_t)arg * VALUES + i);
	return NULL;
}

static void no_writer_loses_another_s_value(void **state)
{
	pthread_t thread[THREADS];

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, add_many, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	hist_take(&hist, &copy);
	assert_int_equal(copy.count, THREADS * VALUES);
	assert_int_equal(copy.sum_ns, (uint64_t)THREADS * VALUES * (THREADS * VALUES - 1) / 2);
	assert_int_equal(copy.max_ns, THREADS * VALUES - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup(every_value_lies_in_its_bucket_and_buckets_have_no_gaps, clear),
	        cmocka_unit_test_setup(percentiles_are_exact_to_one_part_in_32, clear),
	        cmocka_unit_test_setup(small_values_are_exact, clear),
	        cmocka_unit_test_setup(without_values_everything_is_zero, clear),
	        cmocka_unit_test_setup(a_value_beyond_the_top_is_told_as_the_largest, clear),
	        cmocka_unit_test_setup(a_difference_has_what_came_in_between, clear),
	        cmocka_unit_test_setup(a_sum_has_both, clear),
	        cmocka_unit_test_setup(no_writer_loses_another_s_value, clear),
	};

	return cmocka_run_group_tests_name("hist", tests, NULL, NULL);
}
