/* segment.c - owns the memory of the statistics segment. The values inside are the stacks' (base/stat.h).
 * Control thread. */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stat.h"

int segment_create(struct segment *seg, uint32_t stack_count, char *err, size_t err_size)
{
	int rc;

	memset(seg, 0, sizeof(*seg));
	seg->size = stat_segment_size(stack_count);
	seg->fd = memfd_create("pronk-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (seg->fd < 0 || ftruncate(seg->fd, (off_t)seg->size) < 0 ||
	        fcntl(seg->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto fail;
	seg->base = mmap(NULL, seg->size, PROT_READ | PROT_WRITE, MAP_SHARED, seg->fd, 0);
	if (seg->base == MAP_FAILED)
		goto fail;
	stat_segment_init(seg->base, stack_count);
	return 0;
fail:
	rc = -errno;
	snprintf(err, err_size, "cannot make the statistics segment: %s", strerror(-rc));
	if (seg->fd >= 0)
		close(seg->fd);
	memset(seg, 0, sizeof(*seg));
	return rc;
}

void segment_close(struct segment *seg)
{
	if (!seg->base)
		return;
	munmap(seg->base, seg->size);
	close(seg->fd);
	memset(seg, 0, sizeof(*seg));
}

int fd_readonly(int fd)
{
	char path[32];
	int copy;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, O_RDONLY | O_CLOEXEC);
	return copy < 0 ? -errno : copy;
}
