/* test_dump_out.c - the names of capture files, by tcpdump(8)'s rules. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dump_out.h"

static const char *name(struct dump_out_spec spec, uint32_t idx)
{
	static char buf[256];

	return dump_out_name(&spec, idx, 1700000000, buf, sizeof(buf)) ? "(none)" : buf;
}

static void file_by_size_has_its_number_and_the_first_has_none(void **state)
{
	(void)state;
	assert_string_equal(name((struct dump_out_spec){.path = "a"}, 0), "a");
	assert_string_equal(name((struct dump_out_spec){.path = "a", .size_max = 1}, 0), "a");
	assert_string_equal(name((struct dump_out_spec){.path = "a", .size_max = 1}, 1), "a1");
	assert_string_equal(name((struct dump_out_spec){.path = "a", .size_max = 1}, 12), "a12");
	assert_string_equal(name((struct dump_out_spec){.path = "50%d", .size_max = 1}, 1), "50%d1");
}

static void round_of_files_has_leading_zeros(void **state)
{
	(void)state;
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a", .size_max = 1, .file_count = 1}, 0), "a");
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a", .size_max = 1, .file_count = 10}, 0), "a0");
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a", .size_max = 1, .file_count = 11}, 3), "a03");
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a", .size_max = 1, .file_count = 1000}, 999), "a999");
}

static void file_by_time_has_its_time(void **state)
{
	(void)state;
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a-%H%M%S", .interval_s = 5, .file_count = 3}, 0),
	        "a-221320");
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a-%S", .interval_s = 5, .size_max = 1}, 0), "a-20");
	assert_string_equal(
	        name((struct dump_out_spec){.path = "a-%S", .interval_s = 5, .size_max = 1}, 2), "a-202");
	assert_string_equal(
	        name(
	                (struct dump_out_spec){
	                        .path = "a-%S", .interval_s = 5, .size_max = 1, .file_count = 100},
	                2),
	        "a-2002");
}

static void name_that_does_not_fit_is_an_error(void **state)
{
	char path[400];

	(void)state;
	memset(path, 'a', sizeof(path));
	path[sizeof(path) - 1] = 0;
	assert_string_equal(name((struct dump_out_spec){.path = path}, 0), "(none)");
	assert_string_equal(name((struct dump_out_spec){.path = "", .interval_s = 1}, 0), "(none)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(file_by_size_has_its_number_and_the_first_has_none),
	        cmocka_unit_test(round_of_files_has_leading_zeros),
	        cmocka_unit_test(file_by_time_has_its_time),
	        cmocka_unit_test(name_that_does_not_fit_is_an_error),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
