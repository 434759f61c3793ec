/* stat.c - owns the layout of the statistics segment: writing it (service, control thread, once) and reading
 * it (any process). The values themselves are written by the stack threads through the inline functions of
 * stat.h.
 *
 * The reader trusts nothing: a segment may come from another version, or from a service that died half-way.
 * It checks every size against the mapping before it follows an offset, and keeps the checked numbers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "stat.h"

#define KIND_counter PRONK_STATS_COUNTER
#define KIND_gauge PRONK_STATS_GAUGE
#define KIND_peak PRONK_STATS_PEAK
#define KIND_low PRONK_STATS_LOW

/* A statistic belongs under the last heading that stands before it. */
#define STAT_GROUP(title) {__LINE__, title},
#define STAT(name, kind, unit, help)
static const struct {
	int line;
	const char *title;
} groups[] = {
#include "stats.def"
};
#undef STAT
#undef STAT_GROUP

#define STAT_GROUP(title)
#define STAT(name, kind, unit, help) {#name, unit, help, __LINE__, KIND_##kind},
const struct stat_desc stat_descs[STAT_COUNT] = {
#include "stats.def"
};
#undef STAT
/* Texts must fit the segment's fixed fields. */
#define STAT(name, kind, unit, help)                                                                         \
	_Static_assert(sizeof(#name) <= PRONK_STATS_NAME_SIZE && sizeof(unit) <= PRONK_STATS_UNIT_SIZE &&    \
	                       sizeof(help) <= PRONK_STATS_HELP_SIZE,                                        \
	        "text of " #name " is too long");
#include "stats.def"
#undef STAT
#undef STAT_GROUP

#define STAT_GROUP(title) _Static_assert(sizeof(title) <= PRONK_STATS_GROUP_SIZE, title " is too long");
#define STAT(name, kind, unit, help)
#include "stats.def"
#undef STAT
#undef STAT_GROUP

/* What version 1.0 had: a reader takes no less. */
enum { HEADER_SIZE_FIRST = 80, ENTRY_SIZE_FIRST = 184 };

_Static_assert(sizeof(struct pronk_stats_header) == 240, "the header is the same for every compiler");
_Static_assert(sizeof(struct pronk_stats_entry) == 216, "the entry is the same for every compiler");
_Static_assert(offsetof(struct pronk_stats_header, instance) == HEADER_SIZE_FIRST, "fields are appended");
_Static_assert(offsetof(struct pronk_stats_entry, group) == ENTRY_SIZE_FIRST, "fields are appended");
_Static_assert(sizeof(struct stat_block) % PRONK_CACHE_LINE == 0, "blocks do not share cache lines");

/* Limits of what a reader accepts; they keep its arithmetic far from overflow. */
enum { READ_STACK_MAX = 4096, READ_COUNTER_MAX = 65536, READ_ENTRY_MAX = 65536 };

const char *stat_group(enum stat_id id)
{
	unsigned i = ARRAY_COUNT(groups);

	while (i > 0 && groups[i - 1].line > stat_descs[id].line)
		i--;
	return i > 0 ? groups[i - 1].title : "";
}

static size_t line_align(size_t size)
{
	return (size + PRONK_CACHE_LINE - 1) & ~(size_t)(PRONK_CACHE_LINE - 1);
}

static size_t entry_start(void)
{
	return line_align(sizeof(struct pronk_stats_header));
}

static size_t block_start(void)
{
	return line_align(entry_start() + STAT_COUNT * sizeof(struct pronk_stats_entry));
}

size_t stat_segment_size(uint32_t stack_count)
{
	return block_start() + stack_count * sizeof(struct stat_block);
}

void stat_segment_init(void *segment, uint32_t stack_count)
{
	struct pronk_stats_header *header = segment;
	struct pronk_stats_entry *entries = (void *)((uint8_t *)segment + entry_start());

	memset(segment, 0, stat_segment_size(stack_count));
	header->version_major = PRONK_STATS_VERSION_MAJOR;
	header->version_minor = PRONK_STATS_VERSION_MINOR;
	header->header_size = sizeof(*header);
	header->stack_count = stack_count;
	header->counter_count = STAT_COUNT;
	header->entry_size = sizeof(*entries);
	header->entry_offset = entry_start();
	header->block_offset = block_start();
	header->block_stride = sizeof(struct stat_block);
	header->segment_size = stat_segment_size(stack_count);
	header->start_wall_ns = clock_wall_ns();
	header->writer_pid = (uint64_t)getpid();
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		memcpy(entries[i].name, stat_descs[i].name, strlen(stat_descs[i].name) + 1);
		memcpy(entries[i].unit, stat_descs[i].unit, strlen(stat_descs[i].unit) + 1);
		memcpy(entries[i].help, stat_descs[i].help, strlen(stat_descs[i].help) + 1);
		memcpy(entries[i].group, stat_group(i), strlen(stat_group(i)) + 1);
		entries[i].kind = stat_descs[i].kind;
	}
	__atomic_store_n(&header->magic, PRONK_STATS_MAGIC, __ATOMIC_RELEASE);
}

void stat_segment_name(void *segment, const char *instance, const char *device)
{
	struct pronk_stats_header *header = segment;

	snprintf(header->instance, sizeof(header->instance), "%s", instance);
	snprintf(header->device, sizeof(header->device), "%s", device);
}

struct stat_block *stat_segment_block(void *segment, uint32_t stack_idx)
{
	const struct pronk_stats_header *header = segment;

	if (stack_idx >= header->stack_count)
		return NULL;
	return (void *)((uint8_t *)segment + block_start() + stack_idx * sizeof(struct stat_block));
}

int stat_view_open(struct stat_view *view, const void *segment, size_t size)
{
	const struct pronk_stats_header *header = segment;
	uint64_t magic, entries_end, blocks_size;
	struct pronk_stats_header h = {0};

	if (size < HEADER_SIZE_FIRST || (uintptr_t)segment % sizeof(uint64_t) != 0)
		return -EINVAL;
	magic = __atomic_load_n(&header->magic, __ATOMIC_ACQUIRE);
	if (magic != PRONK_STATS_MAGIC)
		return magic == 0 ? -EAGAIN : -EPROTO;
	memcpy(&h, header, HEADER_SIZE_FIRST);
	if (h.version_major != PRONK_STATS_VERSION_MAJOR)
		return -EPROTO;
	if (h.header_size < HEADER_SIZE_FIRST || h.segment_size > size || h.stack_count > READ_STACK_MAX ||
	        h.counter_count > READ_COUNTER_MAX || h.entry_size < ENTRY_SIZE_FIRST ||
	        h.entry_size > READ_ENTRY_MAX || h.entry_size % sizeof(uint64_t) != 0)
		return -EINVAL;
	entries_end = (uint64_t)h.counter_count * h.entry_size;
	if (h.entry_offset < h.header_size || h.entry_offset % sizeof(uint64_t) != 0 ||
	        h.entry_offset > h.segment_size || entries_end > h.segment_size - h.entry_offset)
		return -EINVAL;
	entries_end += h.entry_offset;
	if (h.block_offset < entries_end || h.block_offset % sizeof(uint64_t) != 0 ||
	        h.block_offset > h.segment_size || h.block_stride % sizeof(uint64_t) != 0 ||
	        h.block_stride < h.counter_count * sizeof(uint64_t) || h.block_stride > h.segment_size)
		return -EINVAL;
	/* The last block may end early: only its values have to be there. */
	blocks_size = h.stack_count == 0
	                      ? 0
	                      : (h.stack_count - 1) * h.block_stride + h.counter_count * sizeof(uint64_t);
	if (blocks_size > h.segment_size - h.block_offset)
		return -EINVAL;
	/* segment_size is at least entry_offset, and that at least header_size */
	if (h.header_size >= sizeof(h))
		memcpy(&h, header, sizeof(h));
	memcpy(view->instance, h.instance, sizeof(view->instance));
	memcpy(view->device, h.device, sizeof(view->device));
	view->instance[sizeof(view->instance) - 1] = view->device[sizeof(view->device) - 1] = 0;
	view->base = segment;
	view->stack_count = h.stack_count;
	view->counter_count = h.counter_count;
	view->entry_size = h.entry_size;
	view->entry_offset = h.entry_offset;
	view->block_offset = h.block_offset;
	view->block_stride = h.block_stride;
	view->start_wall_ns = h.start_wall_ns;
	view->writer_pid = h.writer_pid;
	for (uint32_t i = 0; i < h.counter_count; i++) {
		const struct pronk_stats_entry *entry = stat_view_entry(view, i);

		if (memchr(entry->name, 0, sizeof(entry->name)) == NULL ||
		        memchr(entry->unit, 0, sizeof(entry->unit)) == NULL ||
		        memchr(entry->help, 0, sizeof(entry->help)) == NULL ||
		        memchr(stat_view_group(view, i), 0, PRONK_STATS_GROUP_SIZE) == NULL)
			return -EINVAL;
	}
	return 0;
}

const struct pronk_stats_entry *stat_view_entry(const struct stat_view *view, uint32_t idx)
{
	if (idx >= view->counter_count)
		return NULL;
	return (const void *)(view->base + view->entry_offset + (uint64_t)idx * view->entry_size);
}

const char *stat_view_group(const struct stat_view *view, uint32_t idx)
{
	static const char none[PRONK_STATS_GROUP_SIZE];
	const struct pronk_stats_entry *entry = stat_view_entry(view, idx);

	return entry != NULL && view->entry_size >= sizeof(*entry) ? entry->group : none;
}

uint64_t stat_view_value(const struct stat_view *view, uint32_t stack_idx, uint32_t idx)
{
	const uint64_t *values;

	if (stack_idx >= view->stack_count || idx >= view->counter_count)
		return 0;
	values = (const void *)(view->base + view->block_offset + stack_idx * view->block_stride);
	return __atomic_load_n(&values[idx], __ATOMIC_RELAXED);
}

uint64_t stat_view_total(const struct stat_view *view, uint32_t idx)
{
	const struct pronk_stats_entry *entry = stat_view_entry(view, idx);
	uint64_t total = 0;

	if (entry == NULL)
		return 0;
	for (uint32_t stack = 0; stack < view->stack_count; stack++) {
		uint64_t value = stat_view_value(view, stack, idx);

		if (entry->kind != PRONK_STATS_PEAK && entry->kind != PRONK_STATS_LOW)
			total += value;
		else if (stack == 0 || (entry->kind == PRONK_STATS_PEAK) == (value > total))
			total = value;
	}
	return total;
}

int stat_view_find(const struct stat_view *view, const char *name)
{
	for (uint32_t i = 0; i < view->counter_count; i++)
		if (strncmp(stat_view_entry(view, i)->name, name, PRONK_STATS_NAME_SIZE) == 0)
			return (int)i;
	return -ENOENT;
}

const char *stat_kind_name(uint32_t kind)
{
	switch (kind) {
	case PRONK_STATS_COUNTER:
		return "counter";
	case PRONK_STATS_PEAK:
		return "peak";
	case PRONK_STATS_LOW:
		return "low";
	default:
		return "gauge";
	}
}
