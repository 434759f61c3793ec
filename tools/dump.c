/* dump.c - `pronkctl dump`: the commands' output, what the machine and the processes are, and the log's end,
 * as one .tar.gz.
 *
 * Nothing in it is secret: no environment, no command lines, no packets. What could not be had is named in
 * its file `missing`.
 */
#include "dump.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "dump_facts.h"

enum { PATH_SIZE = 512 };

struct dump {
	struct archive *archive;
	char folder[64]; /* that everything in the archive lies in */
	FILE *missing;
	uint32_t files, missing_count;
	time_t now;
	int rc; /* the first failure to write */
};

void dump_missing(struct dump *d, const char *what, const char *why)
{
	fprintf(d->missing, "%s: %s\n", what, why);
	d->missing_count++;
}

void dump_add(struct dump *d, const char *name, const void *data, size_t size)
{
	struct archive_entry *entry = archive_entry_new();
	char path[PATH_SIZE];

	if (!entry) {
		d->rc = -ENOMEM;
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", d->folder, name);
	archive_entry_set_pathname(entry, path);
	archive_entry_set_size(entry, (la_int64_t)size);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, 0600);
	archive_entry_set_mtime(entry, d->now, 0);
	if (!d->rc && (archive_write_header(d->archive, entry) != ARCHIVE_OK ||
	                      archive_write_data(d->archive, data, size) != (la_ssize_t)size))
		d->rc = archive_errno(d->archive) ? -archive_errno(d->archive) : -EIO;
	archive_entry_free(entry);
	d->files++;
}

/* --- the commands --- */

/* Everything a stream has had written to it since the start. */
static char *stream_take(FILE *file, size_t *size)
{
	long end;
	char *text;

	fflush(file);
	end = lseek(fileno(file), 0, SEEK_END);
	text = end < 0 ? NULL : malloc((size_t)end + 1);
	if (!text)
		return NULL;
	*size = (size_t)end;
	if (pread(fileno(file), text, *size, 0) != end)
		*size = 0;
	text[*size] = 0;
	return text;
}

/* Runs a command with its output and its messages in files of their own. */
static int command_capture(struct attach *at, const char *name, bool json, FILE *out, FILE *err)
{
	int saved_out, saved_err, rc;

	fflush(stdout);
	fflush(stderr);
	saved_out = dup(STDOUT_FILENO);
	saved_err = dup(STDERR_FILENO);
	if (saved_out < 0 || saved_err < 0 || dup2(fileno(out), STDOUT_FILENO) < 0 ||
	        dup2(fileno(err), STDERR_FILENO) < 0)
		rc = -errno;
	else
		rc = command_run(at, name, json);
	fflush(stdout);
	fflush(stderr);
	if (saved_out >= 0) {
		dup2(saved_out, STDOUT_FILENO);
		close(saved_out);
	}
	if (saved_err >= 0) {
		dup2(saved_err, STDERR_FILENO);
		close(saved_err);
	}
	return rc;
}

static int command_add(struct dump *d, struct attach *at, const char *name, bool json)
{
	FILE *out = tmpfile(), *err = tmpfile();
	char *text = NULL, *words = NULL, path[64];
	size_t size = 0, words_size = 0;
	int rc = out && err ? command_capture(at, name, json, out, err) : -errno;

	snprintf(path, sizeof(path), "commands/%s.%s", name, json ? "json" : "txt");
	if (out && err) {
		text = stream_take(out, &size);
		words = stream_take(err, &words_size);
	}
	if (words && words_size)
		words[strcspn(words, "\n")] = 0;
	if (rc && rc != -ENOENT)
		dump_missing(d, path, words && words[0] ? words : strerror(-rc));
	else if (!rc && text)
		dump_add(d, path, text, size);
	free(text);
	free(words);
	if (out)
		fclose(out);
	if (err)
		fclose(err);
	return rc;
}

static void commands_add(struct dump *d, struct attach *at)
{
	static const char *const names[] = {"config", "stats", "proto", "sockets", "arp", "routes", "ports",
	        "nic", "interrupts", "latency", "inject", "instances"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		for (int json = 0; json < 2; json++) {
			if (command_add(d, at, names[i], json) != -ETIMEDOUT)
				continue;
			/* it will not answer the next question either, and must not answer this one then */
			close(at->ctl_fd);
			at->ctl_fd = -1;
		}
	}
}

/* --- what it is about --- */

static void versions_add(struct dump *d, const struct attach *at)
{
	const struct arena_header *h = at->arena.hdr;
	char text[1024], when[64];
	struct utsname u = {0};
	struct tm tm;
	int size;

	uname(&u);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&d->now, &tm));
	size = snprintf(text, sizeof(text),
	        "written            %s\n"
	        "pronkctl           %s\n"
	        "protocol           %u\n"
	        "service            %.*s, pid %d, %s, started %llu ns after 1970\n"
	        "answers            %s\n"
	        "device             %.*s\n"
	        "kernel             %s %s %s\n",
	        when, PRONK_VERSION, h->version, (int)sizeof(h->name) - 1, h->name, h->service_pid,
	        h->is_inline ? "inline" : "dedicated", (unsigned long long)h->start_time_ns,
	        at->ctl_fd >= 0 ? "yes" : "no: what follows is from its memory", (int)sizeof(h->device) - 1,
	        h->device, u.sysname, u.release, u.machine);
	dump_add(d, "versions", text, (size_t)size < sizeof(text) ? (size_t)size : sizeof(text) - 1);
}

static int archive_open(struct dump *d, int fd)
{
	d->archive = archive_write_new();
	if (!d->archive)
		return -ENOMEM;
	if (archive_write_set_format_pax_restricted(d->archive) != ARCHIVE_OK ||
	        archive_write_add_filter_gzip(d->archive) != ARCHIVE_OK ||
	        /* into a pipe, too, it ends where it ends */
	        archive_write_set_bytes_in_last_block(d->archive, 1) != ARCHIVE_OK ||
	        archive_write_open_fd(d->archive, fd) != ARCHIVE_OK)
		return archive_errno(d->archive) ? -archive_errno(d->archive) : -EIO;
	return 0;
}

static int dump_fill(struct dump *d, struct attach *at)
{
	char *text;
	size_t size;

	versions_add(d, at);
	commands_add(d, at);
	facts_add(d, at);
	text = stream_take(d->missing, &size);
	if (text)
		dump_add(d, "missing", text, size);
	free(text);
	if (!d->rc && archive_write_close(d->archive) != ARCHIVE_OK)
		d->rc = archive_errno(d->archive) ? -archive_errno(d->archive) : -EIO;
	return d->rc;
}

int dump_write(struct attach *at, const char *path)
{
	struct dump d = {.now = time(NULL)};
	char own[PATH_SIZE], when[32], *text;
	struct tm tm;
	size_t size;
	bool is_stdout = path && !strcmp(path, "-");
	FILE *told = is_stdout ? stderr : stdout;
	int fd, rc;

	if (is_stdout && isatty(STDOUT_FILENO)) {
		fprintf(stderr,
		        "pronkctl: dump: an archive is nothing for a terminal; send it to a file or a pipe\n");
		return -EINVAL;
	}
	strftime(when, sizeof(when), "%Y%m%d-%H%M%S", gmtime_r(&d.now, &tm));
	snprintf(own, sizeof(own), "pronk-dump-%s.tar.gz", when);
	snprintf(d.folder, sizeof(d.folder), "pronk-dump-%s", when);
	path = path ? path : own;
	/* its own descriptor: while a command's output is taken, number 1 leads there */
	fd = is_stdout ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
	               : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (is_stdout)
		path = "the archive";
	if (fd < 0) {
		rc = -errno;
		fprintf(stderr, "pronkctl: dump: %s%s%s\n", path, rc == -EEXIST ? " exists already" : ": ",
		        rc == -EEXIST ? "; name another file" : strerror(-rc));
		return rc;
	}
	d.missing = tmpfile();
	rc = d.missing ? archive_open(&d, fd) : -errno;
	if (!rc)
		rc = dump_fill(&d, at);
	if (rc) {
		fprintf(stderr, "pronkctl: dump: %s cannot be written: %s\n", path, strerror(-rc));
		if (!is_stdout)
			unlink(path);
	} else {
		fprintf(told, "%s: %u files\n", path, d.files);
		text = d.missing_count ? stream_take(d.missing, &size) : NULL;
		if (text)
			fprintf(told, "Not in it:\n%s", text);
		free(text);
	}
	if (d.archive)
		archive_write_free(d.archive);
	if (d.missing)
		fclose(d.missing);
	close(fd);
	return rc;
}
