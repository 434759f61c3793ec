/* pronk/stats_shm.h - layout of the statistics segment that pronkd publishes in shared memory.
 *
 * The segment describes itself: a reader takes names, units, count and places from the segment, not from this
 *header, so a program built against one version reads the counters of another. In order:
 *
 *	struct pronk_stats_header
 *	struct pronk_stats_entry [counter_count]   at entry_offset, entry_size bytes apart
 *	uint64_t value[counter_count]              for each stack, at block_offset + stack * block_stride
 *
 * Everything but the values is constant once magic is there (written last). Values are in the machine's byte
 *order, each with one writer, 8-byte aligned; read them with relaxed atomic loads. Values read one after the
 *other are not a snapshot. Later versions of the same major version may append fields to the header and the
 *entries; a reader must use header_size and entry_size, and refuse another major version.
 */
#pragma once
#include <stdint.h>

#define PRONK_STATS_MAGIC 0x3154534b4e4f5250ULL /* "PRONKST1" in little-endian memory */
#define PRONK_STATS_VERSION_MAJOR 1
#define PRONK_STATS_VERSION_MINOR 1
#define PRONK_STATS_NAME_SIZE 48
#define PRONK_STATS_UNIT_SIZE 16
#define PRONK_STATS_HELP_SIZE 112
#define PRONK_STATS_GROUP_SIZE 32
#define PRONK_STATS_INSTANCE_SIZE 32
#define PRONK_STATS_DEVICE_SIZE 128

/* pronk_stats_entry.kind; readers show a kind that they do not know as a gauge. */
enum pronk_stats_kind {
	PRONK_STATS_COUNTER = 0, /* only grows; the stacks' values add up */
	PRONK_STATS_GAUGE = 1,   /* a level; the stacks' values add up */
	PRONK_STATS_PEAK = 2,    /* a highest value; the largest of the stacks counts */
	PRONK_STATS_LOW = 3,     /* a lowest value; the smallest of the stacks counts (since 1.1) */
};

struct pronk_stats_header {
	uint64_t magic;
	uint16_t version_major;
	uint16_t version_minor;
	uint32_t header_size;
	uint32_t stack_count;
	uint32_t counter_count;
	uint32_t entry_size;
	uint32_t reserved;
	uint64_t entry_offset; /* offsets count from the start of the header */
	uint64_t block_offset;
	uint64_t block_stride;
	uint64_t segment_size;
	uint64_t start_wall_ns; /* when the segment was made, nanoseconds since 1970 */
	uint64_t writer_pid;
	/* since 1.1; texts end in NUL */
	char instance[PRONK_STATS_INSTANCE_SIZE]; /* the service's name */
	char device[PRONK_STATS_DEVICE_SIZE];
};

struct pronk_stats_entry {
	char name[PRONK_STATS_NAME_SIZE]; /* texts end in NUL */
	char unit[PRONK_STATS_UNIT_SIZE]; /* empty for a plain number */
	uint32_t kind;
	uint32_t reserved;
	char help[PRONK_STATS_HELP_SIZE];
	char group[PRONK_STATS_GROUP_SIZE]; /* since 1.1: the heading it belongs under */
};
