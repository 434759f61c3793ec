/* shim_fd.c - numbers and streams: calls that hand out a number anew, and stdio on a socket of ours.
 *
 * What libc does inside itself (stdio's reads and writes, fclose's close) does not come through the exported
 * calls. So a stream on a socket gets functions of ours, and numbers that libc closes by itself are forgotten
 * here. Runs wherever the application calls.
 */
#include "shim.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

enum { INSIDE_FLOOR = 400 };

int number_inside(int fd)
{
	struct rlimit limit;
	int floor = INSIDE_FLOOR, high;

	if (fd < 0)
		return fd;
	file_close(fd);
	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur / 2 < (rlim_t)floor)
		floor = (int)(limit.rlim_cur / 2);
	if (fd < floor) {
		high = libc.fcntl(fd, F_DUPFD_CLOEXEC, floor);
		if (high >= 0) {
			libc.close(fd);
			fd = high;
		}
	}
	libc.fcntl(fd, F_SETFD, FD_CLOEXEC);
	proc_engine_fd_add(fd);
	return fd;
}

/* The kernel has handed the number out: whatever was known of it is of the past. */
static int fresh(int fd)
{
	if (unlikely(libc_inside))
		return number_inside(fd);
	if (fd >= 0 && unlikely(file_known(fd)))
		file_close(fd);
	return fd;
}

static int fresh_pair(int rc, int fds[2])
{
	if (!rc) {
		fds[0] = fresh(fds[0]);
		fds[1] = fresh(fds[1]);
	}
	return rc;
}

static int open_any(const char *path, int flags, mode_t mode)
{
	if (unlikely(!libc_is_ready()))
		return (int)shim_result(RAW(SYS_openat, AT_FDCWD, path, flags, mode));
	return fresh(WITH_ROOM(libc.open(path, flags, mode)));
}

static int openat_any(int dir, const char *path, int flags, mode_t mode)
{
	if (unlikely(!libc_is_ready()))
		return (int)shim_result(RAW(SYS_openat, dir, path, flags, mode));
	return fresh(WITH_ROOM(libc.openat(dir, path, flags, mode)));
}

/* An argument that is there only with these flags. open(2) */
#define MODE_TAKE(flags)                                                                                     \
	mode_t mode = 0;                                                                                     \
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {                                         \
		va_list ap;                                                                                  \
		va_start(ap, flags);                                                                         \
		mode = va_arg(ap, mode_t);                                                                   \
		va_end(ap);                                                                                  \
	}

EXPORT int open(const char *path, int flags, ...)
{
	MODE_TAKE(flags)
	return open_any(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
	MODE_TAKE(flags)
	return open_any(path, flags | O_LARGEFILE, mode);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	MODE_TAKE(flags)
	return openat_any(dir, path, flags, mode);
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	MODE_TAKE(flags)
	return openat_any(dir, path, flags | O_LARGEFILE, mode);
}

EXPORT int pipe(int fds[2])
{
	shim_enter();
	return fresh_pair(WITH_ROOM(libc.pipe(fds)), fds);
}

EXPORT int pipe2(int fds[2], int flags)
{
	shim_enter();
	return fresh_pair(WITH_ROOM(libc.pipe2(fds, flags)), fds);
}

EXPORT int socketpair(int domain, int type, int protocol, int fds[2])
{
	shim_enter();
	return fresh_pair(WITH_ROOM(libc.socketpair(domain, type, protocol, fds)), fds);
}

EXPORT int eventfd(unsigned int value, int flags)
{
	shim_enter();
	return fresh(WITH_ROOM(libc.eventfd(value, flags)));
}

EXPORT int timerfd_create(int clock, int flags)
{
	shim_enter();
	return fresh(WITH_ROOM(libc.timerfd_create(clock, flags)));
}

EXPORT int memfd_create(const char *name, unsigned int flags)
{
	shim_enter();
	return fresh(WITH_ROOM(libc.memfd_create(name, flags)));
}

/* --- streams --- */

struct stream {
	struct stream *next;
	FILE *file;
	int fd;
};

static struct stream *streams; /* those that read and write through us */
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t stream_read(void *cookie, char *buf, size_t size)
{
	return read(((struct stream *)cookie)->fd, buf, size);
}

static ssize_t stream_write(void *cookie, const char *buf, size_t size)
{
	size_t done = 0;

	/* stdio's own goes on until all is written or there is an error */
	while (done < size) {
		ssize_t n = write(((struct stream *)cookie)->fd, buf + done, size - done);

		if (n < 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done; /* fopencookie(3): less than size is an error */
}

/* ESPIPE, unless freopen(3) has made it a file. */
static int stream_seek(void *cookie, off64_t *at, int whence)
{
	off64_t rc = lseek64(((struct stream *)cookie)->fd, *at, whence);

	if (rc >= 0)
		*at = rc;
	return rc < 0 ? -1 : 0;
}

static int stream_close(void *cookie)
{
	struct stream *s = cookie;
	int rc = close(s->fd);

	pthread_mutex_lock(&streams_lock);
	for (struct stream **at = &streams; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	pthread_mutex_unlock(&streams_lock);
	free(s);
	return rc;
}

static FILE *stream_open(int fd, const char *mode)
{
	static const cookie_io_functions_t calls = {stream_read, stream_write, stream_seek, stream_close};
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fd = fd;
	s->file = fopencookie(s, mode, calls);
	if (!s->file) {
		free(s);
		return NULL;
	}
	/* a public member of the structure; a cookie stream does not use it, fileno(3) does */
	s->file->_fileno = fd;
	pthread_mutex_lock(&streams_lock);
	s->next = streams;
	streams = s;
	pthread_mutex_unlock(&streams_lock);
	return s->file;
}

static bool stream_is_ours(const FILE *file)
{
	struct stream *s;

	if (!streams)
		return false;
	pthread_mutex_lock(&streams_lock);
	for (s = streams; s && s->file != file; s = s->next)
		;
	pthread_mutex_unlock(&streams_lock);
	return s != NULL;
}

/* A socket that is ours, or may become so while the stream lives. */
static bool needs_stream(int fd)
{
	struct file *f = file_get(fd);
	bool yes = f && f->kind == FILE_SOCKET && atomic_load(&f->mode) != MODE_KERNEL;

	if (f)
		file_put(f);
	return yes;
}

EXPORT FILE *fdopen(int fd, const char *mode)
{
	FILE *file;
	int fl;

	shim_enter();
	if (!needs_stream(fd))
		return libc.fdopen(fd, mode);
	file = stream_open(fd, mode);
	if (!file)
		return NULL;
	if (*mode == 'a' && (fl = fcntl(fd, F_GETFL)) >= 0 && !(fl & O_APPEND))
		fcntl(fd, F_SETFL, fl | O_APPEND);
	return file;
}

/* libc closes the number by itself. */
static void number_goes(FILE *stream)
{
	int fd = stream && !stream_is_ours(stream) ? fileno(stream) : -1;

	if (fd >= 0 && file_known(fd)) {
		proc_fallback_remove(fd);
		file_close(fd);
	}
}

EXPORT int fclose(FILE *stream)
{
	int saved = errno;

	shim_enter();
	if (unlikely(file_any())) {
		fflush(stream);
		number_goes(stream);
	}
	errno = saved;
	return libc.fclose(stream);
}

/* Flags of open(2) for a mode, or -1. fopen(3) */
static int mode_to_flags(const char *mode)
{
	int both = strchr(mode, '+') ? O_RDWR : 0, e = strchr(mode, 'e') ? O_CLOEXEC : 0;

	switch (*mode) {
	case 'r':
		return (both ? both : O_RDONLY) | e;
	case 'w':
		return (both ? both : O_WRONLY) | O_CREAT | O_TRUNC | e;
	case 'a':
		return (both ? both : O_WRONLY) | O_CREAT | O_APPEND | e;
	default:
		return -1;
	}
}

/* A stream of ours stays one: its functions serve files as well. It keeps its number, as libc's do. */
static FILE *stream_reopen(const char *path, const char *mode, FILE *stream)
{
	enum { NO_READS = 4, NO_WRITES = 8 }; /* of FILE's _flags */
	int flags = mode_to_flags(mode), fd, to = fileno(stream);

	fflush(stream);
	if (flags < 0) {
		errno = EINVAL;
		return NULL;
	}
	if (path) {
		fd = open(path, flags, 0666);
		if (fd < 0)
			return NULL;
		if (dup3(fd, to, flags & O_CLOEXEC) < 0) {
			close(fd);
			return NULL;
		}
		close(fd);
	}
	clearerr(stream);
	stream->_flags &= ~(NO_READS | NO_WRITES);
	if ((flags & O_ACCMODE) != O_RDWR)
		stream->_flags |= (flags & O_ACCMODE) == O_RDONLY ? NO_WRITES : NO_READS;
	return stream;
}

/* libc's reuses the number where it can, by a dup3 of its own. */
static FILE *reopen_any(const char *path, const char *mode, FILE *stream,
        FILE *(*libc_freopen)(const char *, const char *, FILE *))
{
	if (likely(!file_any()) || !stream)
		return libc_freopen(path, mode, stream);
	if (stream_is_ours(stream))
		return stream_reopen(path, mode, stream);
	fflush(stream);
	number_goes(stream);
	return libc_freopen(path, mode, stream);
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
	shim_enter();
	return reopen_any(path, mode, stream, libc.freopen);
}

EXPORT FILE *freopen64(const char *path, const char *mode, FILE *stream)
{
	shim_enter();
	return reopen_any(path, mode, stream, libc.freopen64);
}

/* stdin, stdout and stderr are variables (stdio(3)): while their number is a socket of ours, they are streams
 * of ours. */
void stdio_follow(int fd)
{
	static FILE *theirs[3], *ours[3];
	FILE **var = fd == 0 ? &stdin : fd == 1 ? &stdout : &stderr;
	bool is_ours;

	if (likely(fd < 0 || fd > 2))
		return;
	is_ours = needs_stream(fd);
	if (is_ours && !ours[fd]) {
		FILE *file = stream_open(fd, fd ? "w" : "r");

		if (!file)
			return;
		if (fd == 2)
			setvbuf(file, NULL, _IONBF, 0);
		theirs[fd] = *var;
		*var = ours[fd] = file;
	} else if (!is_ours && ours[fd]) {
		/* not closed: that would close the number, which is another file's now */
		if (*var == ours[fd])
			*var = theirs[fd];
		ours[fd] = NULL;
	}
}

EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
	size_t done = 0;
	char *text;
	int size;

	shim_enter();
	if (likely(!file_known(fd)))
		return libc.vdprintf(fd, format, ap);
	size = vasprintf(&text, format, ap);
	if (size < 0)
		return -1;
	while (done < (size_t)size) {
		ssize_t n = write(fd, text + done, (size_t)size - done);

		if (n < 0)
			break;
		done += (size_t)n;
	}
	free(text);
	return done == (size_t)size ? size : -1;
}

EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int rc;

	va_start(ap, format);
	rc = vdprintf(fd, format, ap);
	va_end(ap);
	return rc;
}

int __vdprintf_chk(int fd, int flag, const char *format, va_list ap);
int __dprintf_chk(int fd, int flag, const char *format, ...);

EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	(void)flag; /* refuses %n in writable memory: a guard, not a difference */
	return vdprintf(fd, format, ap);
}

EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list ap;
	int rc;

	(void)flag;
	va_start(ap, format);
	rc = vdprintf(fd, format, ap);
	va_end(ap);
	return rc;
}
