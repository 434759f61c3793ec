/* stat.h - statistics: one block of values per stack thread, in a segment that other processes may read.
 *
 * The ids come from stats.def: STAT_rx_packets and so on. The segment's layout is pronk/stats_shm.h. A value
 * has one writer, so adding is a plain load and store, without a locked instruction; readers may see it at
 * any time.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pronk/stats_shm.h>

#include "compiler.h"

#define STAT_GROUP(title)
#define STAT(name, kind, unit, help) STAT_##name,
enum stat_id {
#include "stats.def"
	STAT_COUNT
};
#undef STAT
#undef STAT_GROUP

/* The values of one stack; on cache lines of its own. Writer: that stack's thread. */
struct stat_block {
	uint64_t value[STAT_COUNT];
} CACHE_ALIGNED;

/* What is known about one statistic at build time. */
struct stat_desc {
	const char *name;
	const char *unit;
	const char *help;
	int line; /* in stats.def */
	enum pronk_stats_kind kind;
};

extern const struct stat_desc stat_descs[STAT_COUNT];

/* The heading that a statistic stands under in stats.def. Pure. */
const char *stat_group(enum stat_id id);

/* A mapped segment whose sizes have been checked. The members are copies: what a broken writer does to the
 * header later cannot lead a reader astray. Filled by stat_view_open; the segment must stay mapped. */
struct stat_view {
	const uint8_t *base;
	uint32_t stack_count;
	uint32_t counter_count;
	uint32_t entry_size;
	uint64_t entry_offset;
	uint64_t block_offset;
	uint64_t block_stride;
	uint64_t start_wall_ns;
	uint64_t writer_pid;
	char instance[PRONK_STATS_INSTANCE_SIZE], device[PRONK_STATS_DEVICE_SIZE];
};

/* Adds to a value of the caller's own block. Stack thread; wait-free. */
static inline void stat_add(struct stat_block *block, enum stat_id id, uint64_t n)
{
	__atomic_store_n(&block->value[id], __atomic_load_n(&block->value[id], __ATOMIC_RELAXED) + n,
	        __ATOMIC_RELAXED);
}

/* Sets a value of the caller's own block. Stack thread; wait-free. */
static inline void stat_set(struct stat_block *block, enum stat_id id, uint64_t value)
{
	__atomic_store_n(&block->value[id], value, __ATOMIC_RELAXED);
}

/* Raises a peak of the caller's own block to value if that is higher. Stack thread; wait-free. */
static inline void stat_peak(struct stat_block *block, enum stat_id id, uint64_t value)
{
	if (unlikely(value > __atomic_load_n(&block->value[id], __ATOMIC_RELAXED)))
		__atomic_store_n(&block->value[id], value, __ATOMIC_RELAXED);
}

/* Lowers a low of the caller's own block to value if that is lower. Stack thread; wait-free. */
static inline void stat_low(struct stat_block *block, enum stat_id id, uint64_t value)
{
	if (unlikely(value < __atomic_load_n(&block->value[id], __ATOMIC_RELAXED)))
		__atomic_store_n(&block->value[id], value, __ATOMIC_RELAXED);
}

/* Reads a value. Any thread; wait-free. */
static inline uint64_t stat_get(const struct stat_block *block, enum stat_id id)
{
	return __atomic_load_n(&block->value[id], __ATOMIC_RELAXED);
}

/* Bytes of a segment for so many stacks; a multiple of 64. Pure. */
size_t stat_segment_size(uint32_t stack_count);

/* Lays a segment of stat_segment_size(stack_count) bytes out in memory aligned to 64 bytes: zeroes it, writes
 * names and header, and publishes it. Control thread, before the stacks start; does not block. The caller
 * keeps the memory. */
void stat_segment_init(void *segment, uint32_t stack_count);

/* Says whose segment it is: the service's name and its device, cut to what fits. Control thread, before the
 * segment is given to anybody. */
void stat_segment_name(void *segment, const char *instance, const char *device);

/* The block of one stack in a segment that this process initialised. Any thread; the result is constant. NULL
 * if there is no such stack. */
struct stat_block *stat_segment_block(void *segment, uint32_t stack_idx);

/* Checks a mapped segment of size bytes, of this or another version of Pronk, and fills view. Any thread;
 * does not block; never reads outside the segment. Returns 0, -EAGAIN when the segment is not published yet,
 * -EPROTO for another major version or none of ours, or -EINVAL when its sizes contradict each other. */
int stat_view_open(struct stat_view *view, const void *segment, size_t size);

/* The description of statistic idx, texts ended by NUL; NULL if there is no such one. Any thread; points into
 * the segment. */
const struct pronk_stats_entry *stat_view_entry(const struct stat_view *view, uint32_t idx);

/* The heading that statistic idx belongs under; "" in segments before version 1.1. Any thread; points into
 * the segment. */
const char *stat_view_group(const struct stat_view *view, uint32_t idx);

/* One stack's value of statistic idx; 0 if there is no such stack or statistic. Any thread. */
uint64_t stat_view_value(const struct stat_view *view, uint32_t stack_idx, uint32_t idx);

/* Statistic idx over all stacks: the sum, for a peak the largest, for a low the smallest. Any thread. */
uint64_t stat_view_total(const struct stat_view *view, uint32_t idx);

/* The index of a statistic by name, or -ENOENT. Any thread. */
int stat_view_find(const struct stat_view *view, const char *name);

/* "counter", "gauge", "peak" or "low"; "gauge" for a kind that this version does not know. Pure. */
const char *stat_kind_name(uint32_t kind);
