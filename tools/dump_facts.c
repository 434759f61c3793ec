/* dump_facts.c - the facts of machine, processes, log and kernel that a bug report needs. No environment and
 * no command line is read: both may hold passwords.
 */
#include "dump_facts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rows.h"

enum {
	FILE_MAX = 1 << 20,  /* bytes taken of a file */
	LOG_MAX = 256 << 10, /* ... and of the log's end */
	PROCESS_MAX = 64,
	KERNEL_LINES_MAX = 65536,
};

/* The files of the machine; a pattern that matches nothing is no loss where it says so. */
static const struct {
	const char *pattern;
	bool may_lack;
} machine[] = {
        {"/etc/os-release", true},
        {"/proc/version", false},
        {"/proc/cpuinfo", false},
        {"/proc/meminfo", false},
        {"/proc/cmdline", false},
        {"/proc/loadavg", false},
        {"/proc/uptime", false},
        {"/proc/interrupts", false},
        {"/proc/softirqs", true},
        {"/proc/buddyinfo", true},
        {"/proc/modules", true},
        {"/proc/mounts", false},
        {"/proc/sys/kernel/perf_event_paranoid", true},
        {"/proc/sys/kernel/numa_balancing", true},
        {"/proc/sys/kernel/unprivileged_bpf_disabled", true},
        {"/proc/sys/vm/nr_hugepages", false},
        {"/sys/kernel/mm/hugepages/*/*_hugepages", true},
        {"/sys/kernel/mm/transparent_hugepage/enabled", true},
        {"/sys/devices/system/node/node*/cpulist", true},
        {"/sys/devices/system/node/node*/hugepages/*/free_hugepages", true},
        {"/sys/devices/system/cpu/online", true},
        {"/sys/devices/system/cpu/isolated", true},
        {"/sys/devices/system/cpu/nohz_full", true},
        {"/sys/devices/system/cpu/smt/control", true},
        {"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor", true},
        {"/sys/devices/system/cpu/cpuidle/current_driver", true},
        {"/sys/devices/system/cpu/vulnerabilities/*", true},
        {"/sys/class/iommu/*/type", true},
        {"/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", true},
};

/* Of a process, below /proc/PID. */
static const char *const process[] = {"status", "stat", "limits", "maps", "cgroup", "net/dev", "net/route",
        "net/arp", "net/sockstat", "net/snmp", "net/unix"};
static const char *const thread[] = {"comm", "stat", "wchan", "schedstat", "stack"};

/* Reads size bytes at most from where the descriptor stands; NULL on failure. */
static char *fd_read(int fd, size_t max, size_t *size)
{
	char *text = malloc(max);
	ssize_t n = 0;

	for (*size = 0; text && *size < max; *size += (size_t)n) {
		n = read(fd, text + *size, max - *size);
		if (n <= 0)
			break;
	}
	if (n >= 0 || *size)
		return text;
	free(text);
	return NULL;
}

/* A file under its own path below `folder`. */
static void file_add(struct dump *d, const char *folder, const char *path, bool may_lack)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char name[512], *text = NULL;
	size_t size = 0;

	if (fd >= 0)
		text = fd_read(fd, FILE_MAX, &size);
	if (text) {
		snprintf(name, sizeof(name), "%s%s", folder, path);
		dump_add(d, name, text, size);
	} else if (!may_lack || (fd < 0 && errno != ENOENT)) {
		dump_missing(d, path, strerror(errno));
	}
	free(text);
	if (fd >= 0)
		close(fd);
}

static void machine_add(struct dump *d)
{
	for (size_t i = 0; i < sizeof(machine) / sizeof(machine[0]); i++) {
		glob_t found;

		if (glob(machine[i].pattern, 0, NULL, &found)) {
			if (!machine[i].may_lack)
				dump_missing(d, machine[i].pattern, "not on this machine");
			continue;
		}
		for (size_t k = 0; k < found.gl_pathc; k++)
			file_add(d, "machine", found.gl_pathv[k], true);
		globfree(&found);
	}
}

static void threads_add(struct dump *d, int32_t pid)
{
	char path[300];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		for (size_t i = 0; i < sizeof(thread) / sizeof(thread[0]); i++) {
			snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", pid, entry->d_name, thread[i]);
			file_add(d, "processes", path, true);
		}
	}
	if (dir)
		closedir(dir);
}

/* What its descriptors are; of files only that they are files: their names are nobody's business. */
static void fds_add(struct dump *d, int32_t pid)
{
	char path[48], name[64], target[256], *text = NULL;
	struct dirent *entry;
	size_t size = 0;
	FILE *out;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir) {
		dump_missing(d, path, strerror(errno));
		return;
	}
	out = open_memstream(&text, &size);
	while (out && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = 0;
		if (target[0] == '/' && strncmp(target, "/memfd:", 7) != 0 &&
		        strncmp(target, "/dev/", 5) != 0)
			strcpy(target, "a file");
		fprintf(out, "%s %s\n", entry->d_name, target);
	}
	closedir(dir);
	if (!out || fclose(out))
		dump_missing(d, path, "out of memory");
	else {
		snprintf(name, sizeof(name), "processes%s", path);
		dump_add(d, name, text, size);
	}
	free(text);
}

static void process_add(struct dump *d, int32_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (access(path, F_OK)) {
		dump_missing(d, path, "no such process here (another pid namespace, or it has ended)");
		return;
	}
	for (size_t i = 0; i < sizeof(process) / sizeof(process[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, process[i]);
		file_add(d, "processes", path, false);
	}
	fds_add(d, pid);
	threads_add(d, pid);
}

/* The service, and its clients, each once. */
static void processes_add(struct dump *d, const struct attach *at)
{
	int32_t seen[PROCESS_MAX] = {at->arena.hdr->service_pid}, pid;
	uint32_t count = 1;
	char program[PROGRAM_SIZE], why[64];

	process_add(d, seen[0]);
	for (uint32_t i = 0; i < at->arena.client_count; i++) {
		bool is_new = client_read(&at->arena, i, &pid, program) && pid > 0;

		for (uint32_t k = 0; k < count && is_new; k++)
			is_new = seen[k] != pid;
		if (!is_new)
			continue;
		if (count == PROCESS_MAX) {
			snprintf(why, sizeof(why), "there are more than %d", PROCESS_MAX);
			dump_missing(d, "further processes", why);
			return;
		}
		seen[count++] = pid;
		process_add(d, pid);
	}
}

/* The path lies where clients can write: only what the service writes to is its log, or, when it is gone,
 * what is called one. */
static bool is_its_log(int32_t pid, int fd, const char *path)
{
	char folder[48];
	struct stat log, st;
	struct dirent *entry;
	size_t size = strlen(path);
	bool is_it = false;
	DIR *dir;

	if (fstat(fd, &log) < 0 || !S_ISREG(log.st_mode))
		return false;
	snprintf(folder, sizeof(folder), "/proc/%d/fd", pid);
	dir = opendir(folder);
	if (!dir)
		return size > 4 && !strcmp(path + size - 4, ".log");
	while (!is_it && (entry = readdir(dir)))
		is_it = !fstatat(dirfd(dir), entry->d_name, &st, 0) && st.st_dev == log.st_dev &&
		        st.st_ino == log.st_ino;
	closedir(dir);
	return is_it;
}

static void log_add(struct dump *d, const struct attach *at)
{
	const struct arena_header *h = at->arena.hdr;
	char path[sizeof(h->log_file) + 1], *text, *slash;
	size_t size = 0;
	off_t end;
	int fd;

	snprintf(path, sizeof(path), "%.*s", (int)sizeof(h->log_file) - 1, h->log_file);
	if (!strcmp(path, "stderr")) { /* in the background it is a file beside the socket */
		snprintf(path, sizeof(path), "%.*s", (int)sizeof(h->socket) - 1, h->socket);
		slash = strrchr(path, '.');
		if (slash && (size_t)(slash - path) + 5 < sizeof(path))
			strcpy(slash, ".log");
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		dump_missing(d, path,
		        errno == ENOENT ? "there is none: the service writes to its standard error"
		                        : strerror(errno));
		return;
	}
	if (!is_its_log(h->service_pid, fd, path)) {
		dump_missing(d, path, "the service does not write to it");
		close(fd);
		return;
	}
	end = lseek(fd, 0, SEEK_END);
	lseek(fd, end > LOG_MAX ? end - LOG_MAX : 0, SEEK_SET);
	text = fd_read(fd, LOG_MAX, &size);
	if (text)
		dump_add(d, "log", text, size);
	else
		dump_missing(d, path, strerror(errno));
	free(text);
	close(fd);
}

/* Whether a line of the kernel's log may have to do with us. */
static bool is_ours(const char *line)
{
	static const char *const words[] = {"xdp", "xsk", "af_packet", "tun:", "vfio", "iommu", "hugetlb",
	        "hugepage", "pronk", "out of memory", "oom", "segfault", "soft lockup", "bpf", "nic link",
	        "link is"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasestr(line, words[i]))
			return true;
	return false;
}

/* kmsg(4): one record for each read. */
static void kernel_log_add(struct dump *d)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char record[8193], *text = NULL;
	size_t size = 0;
	FILE *out;

	if (fd < 0) {
		dump_missing(d, "/dev/kmsg", strerror(errno));
		return;
	}
	out = open_memstream(&text, &size);
	for (int i = 0; out && i < KERNEL_LINES_MAX; i++) {
		ssize_t n = read(fd, record, sizeof(record) - 1);

		if (n < 0 && errno == EPIPE)
			continue; /* it was written over while we read */
		if (n <= 0)
			break;
		record[n] = 0;
		record[strcspn(record, "\n")] = 0;
		if (is_ours(record))
			fprintf(out, "%s\n", record);
	}
	close(fd);
	if (!out || fclose(out))
		dump_missing(d, "/dev/kmsg", "out of memory");
	else
		dump_add(d, "kernel", text, size);
	free(text);
}

void facts_add(struct dump *d, const struct attach *at)
{
	log_add(d, at);
	machine_add(d);
	processes_add(d, at);
	kernel_log_add(d);
}
