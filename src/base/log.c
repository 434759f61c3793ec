/* log.c - owns the log's descriptor, level and line prefix.
 *
 * log_line runs on any thread, also inside foreign processes, so it builds the line on its own stack and
 * hands it over in one write; it takes no lock, allocates nothing and leaves errno alone. Opening and closing
 * belong to the control thread. A reopened file takes the old one's number with dup3, so that a thread in the
 * middle of a line never meets a closed descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "libc.h"
#include "log.h"
#include "raw.h"

#define LIMIT_NS CLOCK_NS_PER_S

/* A bare system call: write(2) by name might be the preload's, and the table of real functions is not there
 * early on. */
static ssize_t kernel_write(int fd, const void *buf, size_t size)
{
	return RAW(SYS_write, fd, buf, size);
}

ssize_t (*log_write_hook)(int fd, const void *buf, size_t size) = kernel_write;
int log_threshold = LOG_LEVEL_NOTICE;

static int log_fd = STDERR_FILENO;
static char log_word[16] = "pronk";

int log_open(enum log_level level, const char *file)
{
	int fd, old = __atomic_load_n(&log_fd, __ATOMIC_ACQUIRE);

	if (file == NULL || file[0] == '\0' || strcmp(file, "stderr") == 0) {
		log_close();
		log_level_set(level);
		return 0;
	}
	libc_init();
	fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd < 0)
		return -errno;
	if (old != STDERR_FILENO) {
		int rc = libc.dup3(fd, old, O_CLOEXEC) < 0 ? -errno : 0;

		libc.close(fd);
		if (rc < 0)
			return rc;
	} else {
		if (fd <= STDERR_FILENO) { /* a process started with its standard descriptors closed */
			int high = libc.fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), rc = -errno;

			libc.close(fd);
			if (high < 0)
				return rc;
			fd = high;
		}
		__atomic_store_n(&log_fd, fd, __ATOMIC_RELEASE);
	}
	log_level_set(level);
	return 0;
}

void log_close(void)
{
	int old = __atomic_exchange_n(&log_fd, STDERR_FILENO, __ATOMIC_ACQ_REL);

	if (old == STDERR_FILENO)
		return;
	libc_init();
	libc.close(old);
}

void log_prefix(const char *prefix)
{
	snprintf(log_word, sizeof(log_word), "%s", prefix);
}

void log_level_set(enum log_level level)
{
	__atomic_store_n(&log_threshold, (int)level, __ATOMIC_RELAXED);
}

/* UTC as 2024-01-31T12:00:00.123Z. gmtime_r is avoided because it takes libc's time zone lock, which a fork
 * may have left taken. The month arithmetic counts from 1 March, so that the leap day is the last of its
 * year. */
static int time_print(char *buf, size_t size)
{
	uint64_t wall_ns = clock_wall_ns();
	uint64_t second = wall_ns / CLOCK_NS_PER_S, day = second / 86400 + 719468, of_day = second % 86400;
	uint64_t era = day / 146097, of_era = day % 146097;
	uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	uint64_t march_month = (5 * of_year + 2) / 153;
	unsigned month_day = (unsigned)(of_year - (153 * march_month + 2) / 5 + 1);
	unsigned month = (unsigned)(march_month < 10 ? march_month + 3 : march_month - 9);
	unsigned year = (unsigned)(era * 400 + year_of_era + (month <= 2));

	return snprintf(buf, size, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ ", year, month, month_day,
	        (unsigned)(of_day / 3600), (unsigned)(of_day / 60 % 60), (unsigned)(of_day % 60),
	        (unsigned)(wall_ns / CLOCK_NS_PER_MS % 1000));
}

/* Builds and writes a line; swallowed > 0 adds the count of the lines the rate limit kept back. */
static void line_write(const char *module, uint32_t swallowed, const char *fmt, va_list args)
{
	int fd = __atomic_load_n(&log_fd, __ATOMIC_ACQUIRE), saved_errno = errno, count;
	char line[LOG_LINE_MAX], tail[64] = "";
	size_t used = 0, text_start, tail_size, room;
	ssize_t written;

	if (fd != STDERR_FILENO)
		used += (size_t)time_print(line, sizeof(line));
	if (module != NULL)
		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s[%.32s]: ", log_word, module);
	else
		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s: ", log_word);
	if (swallowed > 0)
		snprintf(tail, sizeof(tail), " (and %u more like it before)", swallowed);
	tail_size = strlen(tail);

	text_start = used;
	room = sizeof(line) - used - tail_size -
	       1;            /* bytes for the text without its terminator; 1 for the newline */
	errno = saved_errno; /* for %m */
	count = vsnprintf(line + used, room, fmt, args);
	if (count < 0)
		count = 0;
	if ((size_t)count >= room) {
		used += room - 1;
		memcpy(line + used - 3, "...", 3);
	} else {
		used += (size_t)count;
	}
	if (used > text_start && line[used - 1] == '\n')
		used--;
	for (size_t i = text_start; i < used;
	        i++) /* text of others must not forge a second line or drive a terminal */
		if (((unsigned char)line[i] < 0x20 && line[i] != '\t') || line[i] == 0x7f)
			line[i] = '?';
	memcpy(line + used, tail, tail_size);
	used += tail_size;
	line[used++] = '\n';
	do {
		written = log_write_hook(fd, line, used);
	} while (written < 0 && errno == EINTR);
	errno = saved_errno;
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
	va_list args;

	if (!log_enabled(level))
		return;
	va_start(args, fmt);
	line_write(module, 0, fmt, args);
	va_end(args);
}

void log_line_limited(struct log_limit *site, enum log_level level, const char *module, const char *fmt, ...)
{
	uint64_t next_ns = __atomic_load_n(&site->next_ns, __ATOMIC_RELAXED), now_ns;
	int saved_errno = errno;
	va_list args;

	if (!log_enabled(level))
		return;
	now_ns = clock_now_ns();
	/* Of the threads that find the second over, the one whose exchange succeeds writes the line. */
	if (now_ns < next_ns || !__atomic_compare_exchange_n(&site->next_ns, &next_ns, now_ns + LIMIT_NS,
	                                false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
		__atomic_fetch_add(&site->suppressed, 1, __ATOMIC_RELAXED);
		errno = saved_errno;
		return;
	}
	errno = saved_errno;
	va_start(args, fmt);
	line_write(module, __atomic_exchange_n(&site->suppressed, 0, __ATOMIC_RELAXED), fmt, args);
	va_end(args);
}
