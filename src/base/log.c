/* log.c - owns the log's descriptor, level, rate and line prefix.
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
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "libc.h"
#include "log.h"
#include "raw.h"
#include "systemd.h"

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
static int is_journal; /* lines go there, not to log_fd */
static char log_word[16] = "pronk";

/* How many lines a second may have, and what became of this one. Threads that meet in the first line of a
 * second may let one more through. */
static struct {
	uint32_t limit; /* 0: none */
	uint32_t count;
	uint32_t held; /* lines that were not written */
	uint64_t end_ns;
} rate;

int log_open(enum log_level level, const char *file)
{
	int fd, old = __atomic_load_n(&log_fd, __ATOMIC_ACQUIRE);

	if (file == NULL || file[0] == '\0' || strcmp(file, "stderr") == 0 || strcmp(file, "journal") == 0) {
		bool journal = file != NULL && strcmp(file, "journal") == 0;
		int rc = journal ? systemd_journal_open() : 0;

		if (rc < 0)
			return rc;
		log_close();
		__atomic_store_n(&is_journal, journal, __ATOMIC_RELEASE);
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
	__atomic_store_n(&is_journal, 0, __ATOMIC_RELEASE);
	log_level_set(level);
	return 0;
}

void log_close(void)
{
	int old = __atomic_exchange_n(&log_fd, STDERR_FILENO, __ATOMIC_ACQ_REL);

	__atomic_store_n(&is_journal, 0, __ATOMIC_RELEASE);
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

void log_rate_set(uint32_t lines)
{
	__atomic_store_n(&rate.limit, lines, __ATOMIC_RELAXED);
}

/* Whether one more line may be written in this second; if so, *held is how many were not written since the
 * last one. */
static bool rate_take(uint32_t *held)
{
	uint32_t limit = __atomic_load_n(&rate.limit, __ATOMIC_RELAXED);
	uint64_t now_ns, end_ns;

	*held = 0;
	if (limit == 0)
		return true;
	now_ns = clock_now_ns();
	end_ns = __atomic_load_n(&rate.end_ns, __ATOMIC_RELAXED);
	if (now_ns >= end_ns && __atomic_compare_exchange_n(&rate.end_ns, &end_ns, now_ns + LIMIT_NS, false,
	                                __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		__atomic_store_n(&rate.count, 0, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&rate.count, 1, __ATOMIC_RELAXED) >= limit) {
		__atomic_fetch_add(&rate.held, 1, __ATOMIC_RELAXED);
		return false;
	}
	*held = __atomic_exchange_n(&rate.held, 0, __ATOMIC_RELAXED);
	return true;
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

/* Hands a message to the journal with what is known of it. text begins with MESSAGE=. */
static int journal_write(enum log_level level, const char *module, const char *text, size_t size)
{
	static const char *const priority[] = {
	        "PRIORITY=3", "PRIORITY=4", "PRIORITY=5", "PRIORITY=6", "PRIORITY=7"};
	char name[48], part[64];
	struct iovec fields[4] = {{(void *)(uintptr_t)text, size},
	        {(void *)(uintptr_t)priority[level], strlen(priority[level])}, {name, 0}, {part, 0}};

	fields[2].iov_len = (size_t)snprintf(name, sizeof(name), "SYSLOG_IDENTIFIER=%s", log_word);
	fields[3].iov_len = (size_t)snprintf(part, sizeof(part), "PRONK_MODULE=%.32s", module ? module : "");
	return systemd_journal_send(fields, module ? 4 : 3);
}

/* Builds and writes a line; swallowed > 0 adds the count of the lines that the limit of its place kept back.
 */
static void line_write(
        enum log_level level, const char *module, uint32_t swallowed, const char *fmt, va_list args)
{
	static const char journal_start[] = "MESSAGE=";
	int fd = __atomic_load_n(&log_fd, __ATOMIC_ACQUIRE), saved_errno = errno, count;
	bool journal = __atomic_load_n(&is_journal, __ATOMIC_ACQUIRE);
	char line[LOG_LINE_MAX], tail[96] = "";
	size_t used = 0, text_start, tail_size = 0, room;
	uint32_t held;
	ssize_t written;

	if (!rate_take(&held)) {
		errno = saved_errno;
		return;
	}
	if (journal) {
		memcpy(line, journal_start, sizeof(journal_start) - 1);
		used = sizeof(journal_start) - 1;
	} else {
		if (fd != STDERR_FILENO)
			used += (size_t)time_print(line, sizeof(line));
		if (module != NULL)
			used += (size_t)snprintf(
			        line + used, sizeof(line) - used, "%s[%.32s]: ", log_word, module);
		else
			used += (size_t)snprintf(line + used, sizeof(line) - used, "%s: ", log_word);
	}
	if (swallowed > 0)
		tail_size = (size_t)snprintf(tail, sizeof(tail), " (and %u more like it before)", swallowed);
	if (held > 0)
		tail_size += (size_t)snprintf(
		        tail + tail_size, sizeof(tail) - tail_size, " (%u lines were held back)", held);

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
	if (!journal || journal_write(level, module, line, used) < 0) {
		line[used++] = '\n';
		do {
			written = log_write_hook(fd, line, used);
		} while (written < 0 && errno == EINTR);
	}
	errno = saved_errno;
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
	va_list args;

	if (!log_enabled(level))
		return;
	va_start(args, fmt);
	line_write(level, module, 0, fmt, args);
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
	line_write(level, module, __atomic_exchange_n(&site->suppressed, 0, __ATOMIC_RELAXED), fmt, args);
	va_end(args);
}
