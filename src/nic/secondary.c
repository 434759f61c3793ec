/* secondary.c - what DPDK's own tools (dpdk-dumpcap, dpdk-pdump) need of a service: option dpdk_capture.
 *
 * Control thread. Such a tool is a secondary process of DPDK: it finds the service by files in
 * /run/dpdk/PREFIX and maps its hugepages by files of a hugetlbfs, so these must exist, which they else do
 * not (eal.c). They outlive a service that is killed: the next one of that name removes them, whether it has
 * the option or not. Whether somebody lives is asked of the lock that a primary process holds on its file
 * "config".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_pdump.h>

#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

enum { PREFIX_SIZE = 64, FOLDER_SIZE = 192 };

static struct {
	bool is_wanted, is_served;
	_Atomic uint32_t thread_count;
	char prefix[PREFIX_SIZE], folder[FOLDER_SIZE];
} self;

/* What DPDK calls the service: its name, unless eal_args say otherwise. */
static void prefix_of(const struct cfg *cfg, char *buf)
{
	static const char word[] = "--file-prefix=";
	const char *at = cfg->eal_args, *last = NULL;

	while ((at = strstr(at, word)) != NULL)
		last = at += sizeof(word) - 1;
	if (last != NULL)
		snprintf(buf, PREFIX_SIZE, "%.*s", (int)strcspn(last, " \t"), last);
	else
		snprintf(buf, PREFIX_SIZE, "%s", cfg->name);
}

/* As the driver library chooses it. */
static void folder_of(const char *prefix, char *buf)
{
	const char *top = "/var/run";

	if (getuid() != 0) {
		top = getenv("XDG_RUNTIME_DIR");
		top = top != NULL ? top : "/tmp";
	}
	snprintf(buf, FOLDER_SIZE, "%s/dpdk/%s", top, prefix);
}

/* Whether files of a primary process lie in the folder and that process is gone. */
static bool is_left_over(const char *folder)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[FOLDER_SIZE + 16];
	bool is_free;
	int fd;

	snprintf(path, sizeof(path), "%s/config", folder);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	is_free = fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
	close(fd);
	return is_free;
}

/* Removes what the folder has whose name is begin and, with digits, nothing but digits behind it. */
static void files_remove(const char *folder, const char *begin, bool digits)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	size_t length = strlen(begin);

	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL) {
		const char *rest = entry->d_name + length;

		if (entry->d_name[0] == '.' || strncmp(entry->d_name, begin, length) != 0 ||
		        (digits && strspn(rest, "0123456789") != strlen(rest)))
			continue;
		unlinkat(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
}

/* Calls remove for every hugetlbfs, if given; returns how many there are. */
static uint32_t hugetlbfs_each(
        void (*remove)(const char *folder, const char *begin, bool digits), const char *begin)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *mount;
	uint32_t count = 0;

	while (mounts != NULL && (mount = getmntent(mounts)) != NULL) {
		if (strcmp(mount->mnt_type, "hugetlbfs") != 0)
			continue;
		count++;
		if (remove != NULL)
			remove(mount->mnt_dir, begin, true);
	}
	if (mounts != NULL)
		endmntent(mounts);
	return count;
}

static void leftovers_remove(void)
{
	char begin[PREFIX_SIZE + 8];

	snprintf(begin, sizeof(begin), "%smap_", self.prefix);
	hugetlbfs_each(files_remove, begin);
	files_remove(self.folder, "", false);
	rmdir(self.folder);
}

int secondary_prepare(const struct cfg *cfg, char *err, size_t err_size)
{
	self.is_wanted = cfg->dpdk_capture;
	atomic_store(&self.thread_count, 0);
	prefix_of(cfg, self.prefix);
	folder_of(self.prefix, self.folder);
	if (is_left_over(self.folder)) {
		log_info("removing what a killed service left in %s", self.folder);
		leftovers_remove();
	}
	if (cfg->dpdk_capture && hugetlbfs_each(NULL, NULL) == 0)
		return nic_fail(err, err_size, -ENOENT,
		        "dpdk_capture = true needs a hugetlbfs (mount -t hugetlbfs none /dev/hugepages)");
	return 0;
}

int secondary_serve(char *err, size_t err_size)
{
	if (!self.is_wanted)
		return 0;
	self.is_served = rte_pdump_init() == 0;
	if (self.is_served)
		return 0;
	return nic_fail(err, err_size, rte_errno != 0 ? -rte_errno : -EIO,
	        "dpdk_capture: DPDK cannot serve its capture tools: %s",
	        eal_complaint()[0] != '\0' ? eal_complaint() : rte_strerror(rte_errno));
}

/* A thread that registers with the driver library shuts other processes out for ever (rte_thread_register(3)
 * says so). The library's own threads do not, so a stack takes the number of one of those, which does
 * nothing. */
bool secondary_thread(void)
{
	if (!self.is_wanted)
		return false;
	RTE_PER_LCORE(_lcore_id) = 1 + atomic_fetch_add(&self.thread_count, 1);
	return true;
}

void secondary_hang_up(void)
{
	if (self.is_served)
		rte_pdump_uninit();
	self.is_served = false;
}

void secondary_end(void)
{
	if (self.is_wanted)
		leftovers_remove();
	self.is_wanted = false;
}
