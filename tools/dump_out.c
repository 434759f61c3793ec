/* dump_out.c - the files of a capture: their names, when one ends and the next begins; and the pipe to
 * tcpdump.
 *
 * The rules for -C, -G and -W are tcpdump(8)'s, so that scripts which know those work here.
 */
#include "dump_out.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pcapng.h"

struct dump_out {
	struct dump_out_spec spec;
	struct pcapng *file;
	char name[PATH_MAX]; /* of the file; "standard output", "tcpdump" */
	uint32_t idx;        /* of the file, in its round */
	uint32_t made_count; /* by time */
	time_t begin_s;
	pid_t printer;
};

void dump_out_counts(const struct capture_shm *shm, uint64_t *matched, uint64_t *dropped)
{
	*matched = *dropped = 0;
	for (uint32_t i = 0; i < shm->queue_count; i++) {
		*matched += atomic_load_explicit(&shm->ring[i].matched, memory_order_relaxed);
		*dropped += atomic_load_explicit(&shm->ring[i].dropped, memory_order_relaxed);
	}
}

/* Digits of the largest number in a round of that many files; none for one. */
static int digits(uint32_t count)
{
	int n = 0;

	for (uint32_t largest = count ? count - 1 : 0; largest; largest /= 10)
		n++;
	return n;
}

int dump_out_name(const struct dump_out_spec *spec, uint32_t idx, int64_t time_s, char *buf, size_t size)
{
	char stem[PATH_MAX];
	time_t at = (time_t)time_s;
	struct tm tm;
	int width = digits(spec->file_count), n;

	if (!spec->interval_s)
		n = snprintf(stem, sizeof(stem), "%s", spec->path);
	else
		n = localtime_r(&at, &tm) ? (int)strftime(stem, sizeof(stem), spec->path, &tm) : 0;
	if (n <= 0 || n >= (int)sizeof(stem))
		return -ENAMETOOLONG;
	if (!spec->size_max || (!idx && !width))
		n = snprintf(buf, size, "%s", stem);
	else
		n = snprintf(buf, size, "%s%0*u", stem, width, idx);
	return n < (int)size ? 0 : -ENAMETOOLONG;
}

static int file_begin(struct dump_out *out, int fd, char *err, size_t err_size)
{
	char reason[256] = "";

	out->file = pcapng_open(
	        fd, out->spec.mac, "pronk-dump " PRONK_VERSION, out->spec.comment, reason, sizeof(reason));
	if (out->file)
		return 0;
	snprintf(err, err_size, "%s: %s", out->name, reason);
	return -EIO;
}

static int file_next(struct dump_out *out, char *err, size_t err_size)
{
	int fd, rc = dump_out_name(&out->spec, out->idx, out->begin_s, out->name, sizeof(out->name));

	if (rc) {
		snprintf(err, err_size, "the name that %s stands for is too long, or empty", out->spec.path);
		return rc;
	}
	fd = open(out->name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0) {
		rc = -errno;
		snprintf(err, err_size, "cannot write %s: %s", out->name, strerror(-rc));
		return rc;
	}
	return file_begin(out, fd, err, err_size);
}

/* tcpdump reads from a pipe; in a process group of its own, as ^C is for us: it shall print what is there
 * first. */
static int printer_start(struct dump_out *out, char *err, size_t err_size)
{
	char *argv[DUMP_OUT_FLAGS_MAX + 5] = {"tcpdump", "-l", "-r", "-"};
	int data[2], told[2], code = 0;
	sigset_t none;

	for (uint32_t i = 0; i < out->spec.flag_count; i++)
		argv[4 + i] = out->spec.flags[i];
	if (pipe2(data, O_CLOEXEC) < 0 || pipe2(told, O_CLOEXEC) < 0) {
		snprintf(err, err_size, "no pipe: %s", strerror(errno));
		return -errno;
	}
	out->printer = fork();
	if (!out->printer) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		setpgid(0, 0);
		dup2(data[0], STDIN_FILENO);
		execvp(argv[0], argv);
		code = errno;
		_exit(write(told[1], &code, sizeof(code)) < 0 ? 126 : 127);
	}
	close(data[0]);
	close(told[1]);
	if (out->printer < 0)
		code = errno;
	else if (read(told[0], &code, sizeof(code)) <= 0)
		code = 0;
	close(told[0]);
	if (!code)
		return file_begin(out, data[1], err, err_size);
	close(data[1]);
	if (out->printer > 0)
		waitpid(out->printer, NULL, 0);
	out->printer = 0;
	if (code == ENOENT)
		snprintf(err, err_size,
		        "printing packets takes tcpdump, which is not installed (its Debian package "
		        "is tcpdump); -w FILE writes them to a file");
	else
		snprintf(err, err_size, "tcpdump cannot be started: %s", strerror(code));
	return -code;
}

struct dump_out *dump_out_open(const struct dump_out_spec *spec, char *err, size_t err_size)
{
	struct dump_out *out = calloc(1, sizeof(*out));
	int rc;

	if (!out) {
		snprintf(err, err_size, "out of memory");
		return NULL;
	}
	out->spec = *spec;
	out->begin_s = time(NULL);
	if (!spec->path) {
		strcpy(out->name, "tcpdump");
		rc = printer_start(out, err, err_size);
	} else if (!strcmp(spec->path, "-")) {
		strcpy(out->name, "standard output");
		rc = file_begin(out, fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), err, err_size);
	} else {
		rc = file_next(out, err, err_size);
	}
	if (!rc)
		return out;
	free(out);
	return NULL;
}

static int failed(const struct dump_out *out, int rc, char *err, size_t err_size)
{
	if (rc == -EPIPE && !out->spec.path)
		snprintf(err, err_size, "tcpdump has ended");
	else if (rc)
		snprintf(err, err_size, "%s: %s", out->name, strerror(-rc));
	return rc;
}

static int file_end(struct dump_out *out, const struct capture_shm *shm, char *err, size_t err_size)
{
	uint64_t matched, dropped;
	int rc, end;

	dump_out_counts(shm, &matched, &dropped);
	rc = pcapng_stats(out->file, matched, dropped);
	end = pcapng_close(out->file);
	out->file = NULL;
	return failed(out, rc ? rc : end, err, err_size);
}

/* Whether the file has had its share, and goes on to the next one. As dump_out_add. */
static int turn(struct dump_out *out, const struct capture_shm *shm, char *err, size_t err_size)
{
	const struct dump_out_spec *spec = &out->spec;
	time_t now_s = spec->interval_s ? time(NULL) : 0;
	int rc;

	if (spec->interval_s && now_s - out->begin_s >= (time_t)spec->interval_s) {
		if (!spec->size_max && spec->file_count && ++out->made_count >= spec->file_count)
			return 1;
		out->begin_s = now_s;
		out->idx = 0;
	} else if (spec->size_max && pcapng_size(out->file) > spec->size_max) {
		out->idx++;
		if (spec->file_count && !spec->interval_s && out->idx >= spec->file_count)
			out->idx = 0;
	} else {
		return 0;
	}
	rc = file_end(out, shm, err, err_size);
	return rc ? rc : file_next(out, err, err_size);
}

int dump_out_add(struct dump_out *out, const struct capture_record *record, const struct capture_shm *shm,
        char *err, size_t err_size)
{
	int rc = turn(out, shm, err, err_size);

	return rc ? rc : failed(out, pcapng_add(out->file, record), err, err_size);
}

int dump_out_flush(struct dump_out *out, char *err, size_t err_size)
{
	return failed(out, pcapng_flush(out->file), err, err_size);
}

int dump_out_close(struct dump_out *out, const struct capture_shm *shm, char *err, size_t err_size)
{
	int rc = 0;

	if (!out)
		return 0;
	if (out->file)
		rc = file_end(out, shm, err, err_size);
	if (out->printer)
		waitpid(out->printer, NULL, 0);
	free(out);
	return rc;
}
