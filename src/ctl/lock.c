/* lock.c - the runtime folder, the lock file and the question "does a service answer?".
 *
 * The lock is flock(2) on a file that is never removed, so a crashed service leaves nothing that blocks the
 * next one. It is taken before the port is opened and let go after the port is closed. Runs in the control
 * thread of pronkd; socket_probe also in applications.
 */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cfg.h"
#include "libc.h"

enum { POLL_MS = 20 };

int socket_probe(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc = 0;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = libc.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (libc.connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 && errno != EAGAIN)
		rc = -errno; /* EAGAIN: its queue is full, so there is one */
	libc.close(fd);
	return rc;
}

/* mkdir -p */
static int folder_make(const char *path)
{
	char part[CFG_PATH_MAX];
	struct stat st;

	if (strlen(path) >= sizeof(part))
		return -ENAMETOOLONG;
	strcpy(part, path);
	for (char *p = part + 1;; p++) {
		char c = *p;

		if (c != '/' && c != 0)
			continue;
		*p = 0;
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = c;
		if (!c)
			break;
	}
	if (stat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* The reason why the service's place cannot be had; returns rc. A right that is missing would not be missed
 * if there were a service already. */
static int place_refuse(
        int rc, const char *socket_path, char *err, size_t err_size, const char *what, const char *path)
{
	bool is_right = (rc == -EACCES || rc == -EPERM) && geteuid() != 0 && socket_probe(socket_path) != 0;

	snprintf(err, err_size, "%scannot %s %s: %s",
	        is_right ? "no service runs, and starting one needs root: " : "", what, path, strerror(-rc));
	return rc;
}

int lock_take(const struct cfg *cfg, unsigned wait_ms, char *err, size_t err_size)
{
	char path[CFG_PATH_MAX], socket_path[CFG_SOCKET_PATH_MAX];
	int rc = folder_make(cfg->runtime_dir), fd;

	cfg_socket_path(cfg, socket_path, sizeof(socket_path));
	if (rc)
		return place_refuse(
		        rc, socket_path, err, err_size, "make the runtime folder", cfg->runtime_dir);
	snprintf(path, sizeof(path), "%s/%s.lock", cfg->runtime_dir, cfg->name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return place_refuse(-errno, socket_path, err, err_size, "open the lock file", path);
	for (unsigned waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += POLL_MS) {
		struct timespec nap = {.tv_nsec = POLL_MS * 1000000l};

		if (errno != EWOULDBLOCK && errno != EINTR) {
			rc = -errno;
			snprintf(err, err_size, "cannot lock %s: %s", path, strerror(-rc));
			close(fd);
			return rc;
		}
		if (!socket_probe(socket_path)) {
			snprintf(err, err_size, "a service named \"%s\" already runs (it answers at %s)",
			        cfg->name, socket_path);
			close(fd);
			return -EALREADY;
		}
		if (waited >= wait_ms) {
			snprintf(err, err_size, "another service holds %s and does not become ready", path);
			close(fd);
			return -EBUSY;
		}
		nanosleep(&nap, NULL);
	}
	return fd;
}
