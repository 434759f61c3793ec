/* proc_fs.c - reads /proc. */
#include "proc_fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static FILE *proc_file(pid_t pid, const char *name)
{
	char path[340];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return fopen(path, "re");
}

/* "/memfd:NAME (deleted)" */
static bool is_memfd(const char *target, const char *name)
{
	static const char before[] = "/memfd:";
	size_t size = strlen(name);

	return !strncmp(target, before, sizeof(before) - 1) &&
	       !strncmp(target + sizeof(before) - 1, name, size) &&
	       (target[sizeof(before) - 1 + size] == ' ' || !target[sizeof(before) - 1 + size]);
}

static int fds_walk(
        pid_t pid, const char *name, void (*fn)(void *arg, pid_t pid, uint64_t dev, uint64_t ino), void *arg)
{
	char path[64], target[128];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		struct stat st;

		if (n <= 0)
			continue;
		target[n] = 0;
		if (is_memfd(target, name) && !fstatat(dirfd(dir), entry->d_name, &st, 0))
			fn(arg, pid, st.st_dev, st.st_ino);
	}
	closedir(dir);
	return 0;
}

int proc_memfds(
        pid_t pid, const char *name, void (*fn)(void *arg, pid_t pid, uint64_t dev, uint64_t ino), void *arg)
{
	struct dirent *entry;
	DIR *dir;

	if (pid)
		return fds_walk(pid, name, fn, arg);
	dir = opendir("/proc");
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != getpid())
			fds_walk(atoi(entry->d_name), name, fn, arg);
	closedir(dir);
	return 0;
}

/* A line of /proc/PID/maps: START-END PERMS OFFSET MAJOR:MINOR INODE PATH */
static bool maps_line(const char *line, const char *name, char range[64], uint64_t *dev, uint64_t *ino)
{
	unsigned major, minor;
	unsigned long long inode;
	int at = 0;

	if (sscanf(line, "%63s %*s %*s %x:%x %llu %n", range, &major, &minor, &inode, &at) != 4 || !at)
		return false;
	*dev = makedev(major, minor);
	*ino = inode;
	return is_memfd(line + at, name);
}

static bool maps_find(
        pid_t pid, const char *name, uint64_t want, char range[64], uint64_t *dev, uint64_t *ino)
{
	FILE *file = proc_file(pid, "maps");
	char line[512];
	bool is_found = false;

	while (file && !is_found && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		is_found = maps_line(line, name, range, dev, ino) && (!want || *ino == want);
	}
	if (file)
		fclose(file);
	return is_found;
}

bool proc_maps_find(pid_t pid, const char *name, uint64_t *dev, uint64_t *ino)
{
	char range[64];

	return maps_find(pid, name, 0, range, dev, ino);
}

int proc_memfd_open(pid_t pid, const char *name, uint64_t ino)
{
	char path[128], target[128], range[64];
	uint64_t dev, found;
	struct dirent *entry;
	int fd = -ENOENT;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (fd < 0 && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		struct stat st;

		if (n <= 0)
			continue;
		target[n] = 0;
		if (!is_memfd(target, name) || fstatat(dirfd(dir), entry->d_name, &st, 0) ||
		        (ino && st.st_ino != ino))
			continue;
		/* by now it may be anything */
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		fd = fd < 0 ? -errno : fd;
	}
	closedir(dir);
	if (fd == -ENOENT && maps_find(pid, name, ino, range, &dev, &found)) {
		snprintf(path, sizeof(path), "/proc/%d/map_files/%s", (int)pid, range);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
	}
	return fd;
}

static bool thread_is_stopped(pid_t pid, const char *tid)
{
	char name[300], line[512] = "";
	const char *end;
	FILE *file;

	snprintf(name, sizeof(name), "task/%s/stat", tid);
	file = proc_file(pid, name);
	if (!file)
		return true; /* it has ended */
	if (!fgets(line, sizeof(line), file))
		line[0] = 0;
	fclose(file);
	end = strrchr(line, ')'); /* the program's name may hold anything */
	return end && end[1] == ' ' && strchr("TtZX", end[2]);
}

bool proc_is_stopped(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	bool is_stopped = true;
	uint32_t count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && is_stopped && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		is_stopped = thread_is_stopped(pid, entry->d_name);
		count++;
	}
	if (dir)
		closedir(dir);
	return count && is_stopped;
}

bool proc_is(pid_t pid, int32_t own_pid)
{
	FILE *file = proc_file(pid, "status");
	char line[256];
	int32_t last = pid;

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "NSpid:", 6) != 0)
			continue;
		for (char *p = line + 6, *end; (last = (int32_t)strtol(p, &end, 10)) && end != p; p = end)
			if (strspn(end, " \t\n") == strlen(end))
				break;
		break;
	}
	if (file)
		fclose(file);
	return last == own_pid;
}

void proc_program(pid_t pid, char *buf, size_t size)
{
	FILE *file = proc_file(pid, "comm");

	if (!file || !fgets(buf, (int)size, file))
		snprintf(buf, size, "?");
	else
		buf[strcspn(buf, "\n")] = 0;
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 0x20 || *p >= 0x7f || *p == '"' || *p == '\\')
			*p = '_';
	if (file)
		fclose(file);
}
