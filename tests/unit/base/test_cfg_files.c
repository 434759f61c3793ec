/* test_cfg_files.c - which configuration files hold when none is named: the list in $PRONK_CONFIG, its
 * limits, and what stands in for it. Runs in one thread; changes its own environment only. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cfg.h"
#include "compiler.h"

static struct cfg_files files;
static char err[256];

static int find(const char *variable)
{
	if (variable != NULL)
		setenv("PRONK_CONFIG", variable, 1);
	else
		unsetenv("PRONK_CONFIG");
	memset(&files, 0xa5, sizeof(files));
	strcpy(err, "untouched");
	return cfg_files_find(&files, err, sizeof(err));
}

/* A path of that many bytes, the last of which are the number. */
static void path_make(char *buf, size_t size, unsigned number)
{
	memset(buf, 'x', size);
	buf[0] = '/';
	snprintf(buf + size - 3, 4, "%03u", number);
}

static void list_is_split_in_its_order(void **state)
{
	static const char *const lists[] = {"/a/1.conf:2.conf:/b/3.conf",
	        ":/a/1.conf::2.conf:/b/3.conf:", "/a/1.conf:2.conf:/b/3.conf:::"};

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++) {
		assert_int_equal(find(lists[i]), 0);
		assert_int_equal(files.count, 3);
		assert_string_equal(files.path[0], "/a/1.conf");
		assert_string_equal(files.path[1], "2.conf");
		assert_string_equal(files.path[2], "/b/3.conf");
		assert_string_equal(err, "untouched");
		assert_string_equal(cfg_default_path(), "/a/1.conf");
	}
}

static void one_file_is_a_list_of_one(void **state)
{
	(void)state;
	assert_int_equal(find("/nonexistent/x.conf"), 0);
	assert_int_equal(files.count, 1);
	assert_string_equal(files.path[0], "/nonexistent/x.conf");
	assert_ptr_equal(cfg_default_path(), getenv("PRONK_CONFIG"));
}

static void file_named_again_is_taken_once_where_it_was_first(void **state)
{
	(void)state;
	/* one is the beginning of the other: two files */
	assert_int_equal(find("/a:/ab:/a:/b:/ab:/a"), 0);
	assert_int_equal(files.count, 3);
	assert_string_equal(files.path[0], "/a");
	assert_string_equal(files.path[1], "/ab");
	assert_string_equal(files.path[2], "/b");
}

static void as_many_as_there_may_be_and_one_more(void **state)
{
	char list[512] = "";

	(void)state;
	for (unsigned i = 0; i < CFG_FILES_MAX; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "/%u:", i);
	strcat(list, "/0:/3"); /* no more than those */
	assert_int_equal(find(list), 0);
	assert_int_equal(files.count, CFG_FILES_MAX);
	assert_string_equal(files.path[CFG_FILES_MAX - 1], "/7");
	strcat(list, ":/more");
	assert_int_equal(find(list), -E2BIG);
	assert_int_equal(files.count, 0);
	assert_string_equal(
	        err, "environment PRONK_CONFIG: too many files (allowed: up to 8, separated by \":\")");
	/* a tool looks at the first, and is not concerned */
	assert_string_equal(cfg_default_path(), "/0");
}

static void longest_path_is_taken_and_a_longer_one_refused(void **state)
{
	char list[3 * CFG_FILE_PATH_MAX], expected[256];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		path_make(list + i * CFG_FILE_PATH_MAX, CFG_FILE_PATH_MAX - 1, i);
		list[(i + 1) * CFG_FILE_PATH_MAX - 1] = i ? '\0' : ':';
	}
	assert_int_equal(find(list), 0);
	assert_int_equal(files.count, 2);
	assert_int_equal(strlen(files.path[0]), CFG_FILE_PATH_MAX - 1);
	assert_int_equal(strlen(files.path[1]), CFG_FILE_PATH_MAX - 1);
	assert_string_equal(files.path[1] + CFG_FILE_PATH_MAX - 4, "001");
	assert_string_equal(cfg_default_path(), files.path[0]);

	strcpy(list, "/short:");
	path_make(list + 7, CFG_FILE_PATH_MAX, 5);
	memcpy(list + 7, "/\t\n", 3); /* the reason stays a line */
	assert_int_equal(find(list), -ENAMETOOLONG);
	assert_int_equal(files.count, 0);
	snprintf(expected, sizeof(expected),
	        "environment PRONK_CONFIG: a path of 1024 bytes is too long: \"/??%.61s...\" (allowed: up to 1023 bytes)",
	        list + 10);
	assert_string_equal(err, expected);
	assert_string_equal(cfg_default_path(), "/short");

	/* first in the list: what reads it says which it was */
	path_make(list, CFG_FILE_PATH_MAX, 5);
	strcat(list, ":/b");
	assert_int_equal(find(list), -ENAMETOOLONG);
	assert_ptr_equal(cfg_default_path(), getenv("PRONK_CONFIG"));
}

static void reason_fits_any_buffer(void **state)
{
	char list[2 * CFG_FILE_PATH_MAX], small[24];

	(void)state;
	path_make(list, CFG_FILE_PATH_MAX + 9, 1);
	assert_int_equal(find(list), -ENAMETOOLONG);
	for (size_t size = 1; size < sizeof(small); size++) {
		memset(small, '#', sizeof(small));
		assert_int_equal(cfg_files_find(&files, small, size), -ENAMETOOLONG);
		assert_int_equal(strlen(small), size - 1);
		assert_int_equal(small[size], '#');
	}
	assert_int_equal(cfg_files_find(&files, NULL, 0), -ENAMETOOLONG);
}

static void without_names_in_the_variable_the_usual_places_hold(void **state)
{
	static const char *const lists[] = {NULL, "", ":", ":::"};

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++) {
		const char *path;

		assert_int_equal(find(lists[i]), 0);
		path = cfg_default_path();
		assert_int_equal(files.count, path != NULL);
		if (path != NULL) {
			assert_string_equal(files.path[0], path);
			assert_int_equal(access(path, R_OK), 0);
		}
		assert_string_equal(err, "untouched");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(list_is_split_in_its_order),
	        cmocka_unit_test(one_file_is_a_list_of_one),
	        cmocka_unit_test(file_named_again_is_taken_once_where_it_was_first),
	        cmocka_unit_test(as_many_as_there_may_be_and_one_more),
	        cmocka_unit_test(longest_path_is_taken_and_a_longer_one_refused),
	        cmocka_unit_test(reason_fits_any_buffer),
	        cmocka_unit_test(without_names_in_the_variable_the_usual_places_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
