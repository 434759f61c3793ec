/* test_log.c - the log: form of a line, levels, rate limit, file, hook. One thread but for the last test. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

LOG_MODULE("test");

static char captured[8192];
static size_t captured_size;
static unsigned write_count;
static int write_fd;
static int fail_times; /* writes to answer with EINTR */

static ssize_t capture_write(int fd, const void *buf, size_t size)
{
	if (fail_times > 0) {
		fail_times--;
		errno = EINTR;
		return -1;
	}
	assert_true(captured_size + size < sizeof(captured));
	memcpy(captured + captured_size, buf, size);
	captured_size += size;
	captured[captured_size] = '\0';
	write_count++;
	write_fd = fd;
	errno = EIO; /* must not show */
	return (ssize_t)size;
}

static ssize_t (*real_write)(int fd, const void *buf, size_t size);

static int reset(void **state)
{
	(void)state;
	log_close();
	log_prefix("pronk");
	log_level_set(LOG_LEVEL_NOTICE);
	log_rate_set(0);
	log_write_hook = capture_write;
	captured_size = 0;
	captured[0] = '\0';
	write_count = 0;
	return 0;
}

static void line_has_prefix_module_and_newline_in_one_write(void **state)
{
	(void)state;
	log_notice("port %d is up", 3);
	assert_string_equal(captured, "pronk[test]: port 3 is up\n");
	assert_int_equal(write_count, 1);
	assert_int_equal(write_fd, STDERR_FILENO);
}

static void line_without_module_has_only_the_prefix(void **state)
{
	(void)state;
	log_prefix("pronkd");
	log_line(LOG_LEVEL_ERROR, NULL, "text");
	assert_string_equal(captured, "pronkd: text\n");
}

static void levels_below_the_threshold_are_silent(void **state)
{
	(void)state;
	assert_int_equal(log_open(LOG_LEVEL_WARNING, "stderr"), 0);
	log_error("e");
	log_warning("w");
	log_notice("n");
	log_info("i");
	log_debug("d");
	log_limited_debug("d");
	assert_string_equal(captured, "pronk[test]: e\npronk[test]: w\n");
	assert_int_equal(log_open(LOG_LEVEL_DEBUG, NULL), 0);
	log_debug("d");
	assert_int_equal(write_count, 3);
}

static void arguments_of_silent_lines_are_not_evaluated(void **state)
{
	int calls = 0;

	(void)state;
	log_debug("%d", ++calls);
	assert_int_equal(calls, 0);
}

static void errno_is_kept_and_printed_by_m(void **state)
{
	(void)state;
	errno = ENOENT;
	log_error("open: %m");
	assert_int_equal(errno, ENOENT);
	assert_string_equal(captured, "pronk[test]: open: No such file or directory\n");
	log_limited_error("again: %m");
	assert_int_equal(errno, ENOENT);
	log_debug("silent");
	assert_int_equal(errno, ENOENT);
}

static void interrupted_write_is_repeated(void **state)
{
	(void)state;
	fail_times = 3;
	log_error("x");
	assert_string_equal(captured, "pronk[test]: x\n");
}

static void long_line_is_cut_with_dots(void **state)
{
	char text[3000];

	(void)state;
	memset(text, 'a', sizeof(text));
	for (size_t size = 900; size < 1100; size++) {
		captured_size = 0;
		log_error("%.*s", (int)size, text);
		assert_true(captured_size <= LOG_LINE_MAX);
		assert_int_equal(captured[captured_size - 1], '\n');
		if (size + strlen("pronk[test]: ") + 2 <= LOG_LINE_MAX)
			assert_int_equal(captured_size, size + strlen("pronk[test]: ") + 1);
		else
			assert_memory_equal(captured + captured_size - 4, "...\n", 4);
	}
}

static void control_characters_cannot_forge_a_line(void **state)
{
	(void)state;
	log_error("a\nb\x1b[31m\tc\x7f");
	assert_string_equal(captured, "pronk[test]: a?b?[31m\tc?\n");
	captured_size = 0;
	log_error("ends in newline\n");
	assert_string_equal(captured, "pronk[test]: ends in newline\n");
}

static void limited_line_comes_once_a_second_with_count(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		captured_size = 0;
		captured[0] = '\0';
		for (int n = 0; n < 100; n++)
			log_limited_warning("lost packet %d", n); /* one site, three bursts */
		if (i == 0)
			assert_string_equal(captured, "pronk[test]: lost packet 0\n");
		else
			assert_string_equal(
			        captured, "pronk[test]: lost packet 0 (and 99 more like it before)\n");
		if (i < 2)
			usleep(1050000);
	}
	captured_size = 0;
	log_limited_warning("another site");
	assert_string_equal(captured, "pronk[test]: another site\n");
}

static void rate_holds_lines_back_and_tells(void **state)
{
	unsigned written;

	(void)state;
	log_rate_set(3);
	for (int n = 0; n < 100; n++)
		log_warning("line %d", n);
	written = write_count;
	assert_true(written >= 3 && written < 100);
	assert_non_null(strstr(captured, "line 0\npronk[test]: line 1\npronk[test]: line 2\n"));
	usleep(1050000);
	errno = ENOENT;
	log_warning("later: %m");
	assert_int_equal(errno, ENOENT);
	assert_int_equal(write_count, written + 1);
	assert_non_null(strstr(captured, "pronk[test]: later: No such file or directory ("));
	assert_non_null(strstr(captured, " lines were held back)\n"));
	log_rate_set(0);
	log_warning("all");
	log_warning("all");
	assert_int_equal(write_count, written + 3);
}

static void journal_that_is_not_there_is_refused_and_changes_nothing(void **state)
{
	(void)state;
	if (access("/run/systemd/journal/socket", F_OK) == 0)
		skip(); /* tests/e2e/manager.sh has one of its own */
	assert_int_equal(log_open(LOG_LEVEL_DEBUG, "journal"), -ENOENT);
	log_debug("d");
	log_warning("w");
	assert_string_equal(captured, "pronk[test]: w\n");
}

static void file_gets_lines_with_time_and_survives_rotation(void **state)
{
	char folder[] = "/tmp/pronk-test-log-XXXXXX", path[64], moved[64], line[256];
	unsigned year, month, day;
	FILE *file;

	(void)state;
	log_write_hook = real_write;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/log", folder);
	snprintf(moved, sizeof(moved), "%s/log.1", folder);
	assert_int_equal(log_open(LOG_LEVEL_INFO, path), 0);
	log_info("first");
	assert_int_equal(rename(path, moved), 0);
	assert_int_equal(log_open(LOG_LEVEL_INFO, path), 0);
	log_info("second");
	assert_int_equal(log_open(LOG_LEVEL_INFO, "/nonexistent/log"), -ENOENT);
	log_info("third");
	log_close();

	file = fopen(moved, "r");
	assert_non_null(file);
	assert_non_null(fgets(line, sizeof(line), file));
	assert_int_equal(sscanf(line, "%4u-%2u-%2uT", &year, &month, &day), 3);
	assert_true(year >= 2024 && month >= 1 && month <= 12 && day >= 1 && day <= 31);
	assert_string_equal(line + strlen("2024-01-31T12:00:00.123Z "), "pronk[test]: first\n");
	assert_null(fgets(line, sizeof(line), file));
	fclose(file);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(fgets(line, sizeof(line), file));
	assert_non_null(strstr(line, "second"));
	assert_non_null(fgets(line, sizeof(line), file));
	assert_non_null(strstr(line, "third"));
	fclose(file);
	unlink(path);
	unlink(moved);
	rmdir(folder);
}

/* time(2) may lag behind by a tick. */
static time_t seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec;
}

static void file_time_is_the_wall_clock(void **state)
{
	char now[64], *line = captured;
	time_t before, after;

	(void)state;
	assert_int_equal(log_open(LOG_LEVEL_INFO, "/dev/null"), 0);
	do {
		captured_size = 0;
		before = seconds_now();
		log_info("x");
		after = seconds_now();
	} while (before != after);
	strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S.", gmtime(&before));
	line[strlen(now)] = '\0';
	assert_string_equal(line, now);
}

static void *many_lines(void *arg)
{
	for (int i = 0; i < 2000; i++)
		log_error("thread %c %s", *(char *)arg, "0123456789012345678901234567890123456789");
	return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
	char path[] = "/tmp/pronk-test-log-XXXXXX", names[] = "abcd", line[256];
	int fd = mkstemp(path), count = 0;
	pthread_t threads[4];
	FILE *file;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	log_write_hook = real_write;
	assert_int_equal(log_open(LOG_LEVEL_INFO, path), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many_lines, &names[i]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	log_close();
	file = fopen(path, "r");
	assert_non_null(file);
	for (; fgets(line, sizeof(line), file) != NULL; count++) {
		const char *text = strstr(line, "pronk[test]: thread ");

		assert_non_null(text);
		assert_string_equal(text + strlen("pronk[test]: thread a"),
		        " 0123456789012345678901234567890123456789\n");
	}
	fclose(file);
	unlink(path);
	assert_int_equal(count, 8000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup(line_has_prefix_module_and_newline_in_one_write, reset),
	        cmocka_unit_test_setup(line_without_module_has_only_the_prefix, reset),
	        cmocka_unit_test_setup(levels_below_the_threshold_are_silent, reset),
	        cmocka_unit_test_setup(arguments_of_silent_lines_are_not_evaluated, reset),
	        cmocka_unit_test_setup(errno_is_kept_and_printed_by_m, reset),
	        cmocka_unit_test_setup(interrupted_write_is_repeated, reset),
	        cmocka_unit_test_setup(long_line_is_cut_with_dots, reset),
	        cmocka_unit_test_setup(control_characters_cannot_forge_a_line, reset),
	        cmocka_unit_test_setup(limited_line_comes_once_a_second_with_count, reset),
	        cmocka_unit_test_setup(rate_holds_lines_back_and_tells, reset),
	        cmocka_unit_test_setup(journal_that_is_not_there_is_refused_and_changes_nothing, reset),
	        cmocka_unit_test_setup(file_gets_lines_with_time_and_survives_rotation, reset),
	        cmocka_unit_test_setup(file_time_is_the_wall_clock, reset),
	        cmocka_unit_test_setup(lines_of_threads_do_not_mix, reset),
	};

	real_write = log_write_hook;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
