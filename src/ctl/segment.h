/* segment.h - the statistics segment's memory, and read-only views of shared memory for processes that shall
 * only look. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct segment {
	void *base;
	size_t size;
	int fd;
};

/* Makes the statistics segment for so many stacks: a memfd that nobody can resize, laid out and published.
 * Control thread. 0 or -E with a reason; the caller ends it with segment_close. */
int segment_create(struct segment *seg, uint32_t stack_count, char *err, size_t err_size);

/* Accepts a segment that was zeroed or never made. */
void segment_close(struct segment *seg);

/* A new descriptor of the same memory that can only be read or mapped for reading. Needs /proc. The
 * descriptor, or -E. */
int fd_readonly(int fd);
