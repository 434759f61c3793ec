/* systemd.c - owns the loaded libsystemd.
 *
 * Loading is the control thread's, before others log. Two functions are all that is used; both have had these
 * prototypes since they exist (sd_journal_sendv(3), sd_notify(3)).
 */
#include "systemd.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBSYSTEMD_NAME "libsystemd.so.0"
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static struct {
	void *handle;
	int (*sendv)(const struct iovec *fields, int count);
	int (*notify)(int unset, const char *state);
} lib;

static void *find(const char *name)
{
	if (!lib.handle)
		lib.handle = dlopen(LIBSYSTEMD_NAME, RTLD_NOW | RTLD_LOCAL);
	return lib.handle ? dlsym(lib.handle, name) : NULL;
}

int systemd_journal_open(void)
{
	if (access(JOURNAL_SOCKET, W_OK) < 0)
		return -errno;
	if (!lib.sendv)
		lib.sendv = (int (*)(const struct iovec *, int))(uintptr_t)find("sd_journal_sendv");
	return lib.sendv ? 0 : -ELIBACC;
}

int systemd_journal_send(const struct iovec *fields, int count)
{
	return lib.sendv(fields, count);
}

bool systemd_is_stderr_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && !fstat(STDERR_FILENO, &st) &&
	       st.st_dev == device && st.st_ino == inode;
}

int systemd_notify(const char *state)
{
	const char *to = getenv("NOTIFY_SOCKET");
	int rc;

	if (!to || !*to)
		return 0;
	if (!lib.notify)
		lib.notify = (int (*)(int, const char *))(uintptr_t)find("sd_notify");
	if (!lib.notify)
		return -ELIBACC;
	rc = lib.notify(0, state);
	return rc < 0 ? rc : 0;
}
