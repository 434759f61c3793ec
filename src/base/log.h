/* log.h - one-line messages to stderr, a file or the journal, usable from any thread of the service and of a
 *foreign process.
 *
 * A line is "pronkd[MODULE]: text", or "pronkd: text" in a file without LOG_MODULE; in a log file a UTC time
 *comes first. Each line is a single write, is never split by another thread's, and keeps errno. Nothing is
 *allocated or locked and stdio's streams are not touched, so the preload may log wherever the application
 *stands.
 *
 *	LOG_MODULE("nic");
 *	log_warning("port %u lost its link", port);
 */
#pragma once
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

#include "compiler.h"

/* In the order of option log_level. */
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

enum { LOG_LINE_MAX = 1024 }; /* bytes of a line with its newline; longer ones are cut and end in "..." */

/* What one call site of log_limited_... remembers; zero at start. Any thread writes it, with relaxed atomics.
 */
struct log_limit {
	uint64_t next_ns;    /* earliest time of the next line */
	uint32_t suppressed; /* lines swallowed since the last one */
};

/* The function that writes lines: the bare system call unless replaced, so that a line never enters an
 * interposed write. Same contract as write(2); must be callable from any thread. Set it while no other thread
 * logs. */
extern ssize_t (*log_write_hook)(int fd, const void *buf, size_t size);

/* Least important level that is written; read by the macros. Change it with log_level_set. */
extern int log_threshold;

/* Names the module of all messages of the .c file it stands in (after the includes). */
#define LOG_MODULE(name) static const char *const log_module UNUSED = name
static const char *const log_module UNUSED; /* the tentative definition: no module */

/* Sends messages up to level to file: "stderr" (or NULL or ""), "journal" (systemd's, by its own protocol,
 * with priority and module as fields) or a path, which is appended to and created with mode 0640. May be
 * called again, to change the file or to reopen it after rotation. Control thread; blocks in open(2). Returns
 * 0 or -E of open(2) or systemd_journal_open; then messages go where they went before. Before the first call
 * they go to stderr from level notice. */
int log_open(enum log_level level, const char *file);

/* Back to stderr; closes the log file. Control thread, when no other thread logs. */
void log_close(void);

/* The word every line starts with: "pronk" (initially) in applications, "pronkd" in the service. At most 15
 * bytes are used; the text is copied. Control thread, before other threads log. */
void log_prefix(const char *prefix);

/* Lets at most so many lines through in a second, whatever they say; 0 (initially): any number. The next line
 * after that tells how many were held back. Any thread. */
void log_rate_set(uint32_t lines);

/* Changes the least important level that is written. Any thread. */
void log_level_set(enum log_level level);

/* Writes one line if level is enabled; the macros below call these. Any thread and any context that may call
 * vsnprintf; blocks only as write(2) to the log does. A write that fails is not reported. module may be NULL.
 * Keeps errno. */
void log_line(enum log_level level, const char *module, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* As log_line, at most once a second for each site; the next line says how many were swallowed in between. */
void log_line_limited(struct log_limit *site, enum log_level level, const char *module, const char *fmt, ...)
        PRINTF_LIKE(4, 5);

static inline int log_enabled(enum log_level level)
{
	return (int)level <= __atomic_load_n(&log_threshold, __ATOMIC_RELAXED);
}

#define LOG_AT(level, ...)                                                                                   \
	do {                                                                                                 \
		if (unlikely(log_enabled(level)))                                                            \
			log_line(level, log_module, __VA_ARGS__);                                            \
	} while (0)
#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) LOG_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) LOG_AT(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)

#define LOG_LIMITED_AT(level, ...)                                                                           \
	do {                                                                                                 \
		static struct log_limit log_site;                                                            \
		if (unlikely(log_enabled(level)))                                                            \
			log_line_limited(&log_site, level, log_module, __VA_ARGS__);                         \
	} while (0)
#define log_limited_error(...) LOG_LIMITED_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_limited_warning(...) LOG_LIMITED_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_limited_notice(...) LOG_LIMITED_AT(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_limited_info(...) LOG_LIMITED_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_limited_debug(...) LOG_LIMITED_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)
