/* test_stat.c - the statistics segment: layout, adding, reading, and a reader's refusal of broken segments.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stat.h"

static void *segment_make(uint32_t stack_count)
{
	void *segment = aligned_alloc(64, stat_segment_size(stack_count));

	assert_non_null(segment);
	memset(segment, 0xee, stat_segment_size(stack_count));
	stat_segment_init(segment, stack_count);
	return segment;
}

static void names_are_unique_and_plain(void **state)
{
	(void)state;
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		for (const char *c = stat_descs[i].name; *c != '\0'; c++)
			assert_true(islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_');
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(stat_descs[i].name, stat_descs[j].name);
	}
	assert_string_equal(stat_descs[STAT_rx_packets].name, "rx_packets");
	assert_int_equal(stat_descs[STAT_tcp_established].kind, PRONK_STATS_GAUGE);
	assert_int_equal(stat_descs[STAT_worst_turn_ns].kind, PRONK_STATS_PEAK);
}

static void segment_describes_every_statistic(void **state)
{
	void *segment = segment_make(2);
	struct stat_view view;

	(void)state;
	assert_int_equal(stat_view_open(&view, segment, stat_segment_size(2)), 0);
	assert_int_equal(view.stack_count, 2);
	assert_int_equal(view.counter_count, STAT_COUNT);
	assert_int_equal(view.writer_pid, getpid());
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		const struct pronk_stats_entry *entry = stat_view_entry(&view, i);

		assert_string_equal(entry->name, stat_descs[i].name);
		assert_string_equal(entry->unit, stat_descs[i].unit);
		assert_string_equal(entry->help, stat_descs[i].help);
		assert_int_equal(entry->kind, stat_descs[i].kind);
		assert_string_equal(stat_view_group(&view, i), stat_group(i));
		assert_int_equal(stat_view_find(&view, stat_descs[i].name), i);
		assert_int_equal(stat_view_total(&view, i), 0);
	}
	assert_string_equal(stat_view_group(&view, STAT_rx_packets), "Port");
	assert_string_equal(stat_view_group(&view, STAT_drop_rx_cksum), "Lost packets");
	assert_string_equal(stat_view_group(&view, STAT_bad_client_input), "Clients");
	assert_string_equal(stat_view_group(&view, STAT_COUNT), "");
	assert_null(stat_view_entry(&view, STAT_COUNT));
	assert_int_equal(stat_view_find(&view, "rx_packet"), -ENOENT);
	assert_int_equal(stat_view_find(&view, ""), -ENOENT);
	free(segment);
}

static void values_go_to_their_own_place(void **state)
{
	const uint32_t stack_count = 3;
	void *segment = segment_make(stack_count);
	struct stat_view view;

	(void)state;
	assert_int_equal(stat_view_open(&view, segment, stat_segment_size(stack_count)), 0);
	for (uint32_t stack = 0; stack < stack_count; stack++) {
		struct stat_block *block = stat_segment_block(segment, stack);

		assert_int_equal((uintptr_t)block % 64, 0);
		for (unsigned i = 0; i < STAT_COUNT; i++) {
			stat_add(block, i, stack * 1000);
			stat_add(block, i, i);
		}
	}
	for (uint32_t stack = 0; stack < stack_count; stack++)
		for (unsigned i = 0; i < STAT_COUNT; i++)
			assert_int_equal(stat_view_value(&view, stack, i), stack * 1000 + i);
	assert_int_equal(stat_view_value(&view, stack_count, 0), 0);
	assert_int_equal(stat_view_value(&view, 0, STAT_COUNT), 0);
	assert_null(stat_segment_block(segment, stack_count));
	assert_int_equal(stat_view_total(&view, STAT_tx_bytes), 3000 + 3 * STAT_tx_bytes);
	assert_int_equal(stat_view_total(&view, STAT_worst_turn_ns), 2000 + STAT_worst_turn_ns);
	free(segment);
}

static void set_and_peak_replace(void **state)
{
	struct stat_block block = {{0}};

	(void)state;
	stat_set(&block, STAT_buffers_free, 5);
	stat_set(&block, STAT_buffers_free, 3);
	assert_int_equal(stat_get(&block, STAT_buffers_free), 3);
	stat_peak(&block, STAT_worst_turn_ns, 10);
	stat_peak(&block, STAT_worst_turn_ns, 7);
	assert_int_equal(stat_get(&block, STAT_worst_turn_ns), 10);
	stat_set(&block, STAT_buffers_low, 10);
	stat_low(&block, STAT_buffers_low, 12);
	assert_int_equal(stat_get(&block, STAT_buffers_low), 10);
	stat_low(&block, STAT_buffers_low, 4);
	assert_int_equal(stat_get(&block, STAT_buffers_low), 4);
}

static void total_of_a_low_is_the_smallest_of_a_peak_the_largest(void **state)
{
	static const uint64_t values[] = {7, 3, 9};
	void *segment = segment_make(3);
	struct stat_view view;

	(void)state;
	for (uint32_t stack = 0; stack < 3; stack++) {
		stat_set(stat_segment_block(segment, stack), STAT_buffers_low, values[stack]);
		stat_set(stat_segment_block(segment, stack), STAT_worst_turn_ns, values[stack]);
		stat_set(stat_segment_block(segment, stack), STAT_rx_packets, values[stack]);
	}
	assert_int_equal(stat_view_open(&view, segment, stat_segment_size(3)), 0);
	assert_int_equal(stat_view_total(&view, STAT_buffers_low), 3);
	assert_int_equal(stat_view_total(&view, STAT_worst_turn_ns), 9);
	assert_int_equal(stat_view_total(&view, STAT_rx_packets), 19);
	free(segment);
}

static void segment_says_whose_it_is(void **state)
{
	char longer[200];
	void *segment = segment_make(1);
	struct stat_view view;

	(void)state;
	stat_segment_name(segment, "web", "tap:pk0");
	assert_int_equal(stat_view_open(&view, segment, stat_segment_size(1)), 0);
	assert_string_equal(view.instance, "web");
	assert_string_equal(view.device, "tap:pk0");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	stat_segment_name(segment, longer, longer);
	assert_int_equal(stat_view_open(&view, segment, stat_segment_size(1)), 0);
	assert_int_equal(strlen(view.instance), PRONK_STATS_INSTANCE_SIZE - 1);
	assert_int_equal(strlen(view.device), PRONK_STATS_DEVICE_SIZE - 1);
	free(segment);
}

static void reader_takes_the_first_version_with_shorter_parts(void **state)
{
	/* 80-byte header, 2 entries of 184 bytes, one block */
	uint64_t memory[(80 + 2 * 184 + 2 * 8) / 8] = {0};
	struct pronk_stats_header *header = (void *)memory;
	struct stat_view view;

	(void)state;
	header->magic = PRONK_STATS_MAGIC;
	header->version_major = PRONK_STATS_VERSION_MAJOR;
	header->header_size = 80;
	header->stack_count = 1;
	header->counter_count = 2;
	header->entry_size = 184;
	header->entry_offset = 80;
	header->block_offset = 80 + 2 * 184;
	header->block_stride = 16;
	header->segment_size = sizeof(memory);
	strcpy((char *)memory + 80, "first");
	strcpy((char *)memory + 80 + 184, "second");
	memory[(80 + 2 * 184) / 8 + 1] = 5;
	assert_int_equal(stat_view_open(&view, memory, sizeof(memory)), 0);
	assert_int_equal(stat_view_find(&view, "second"), 1);
	assert_int_equal(stat_view_total(&view, 1), 5);
	assert_string_equal(stat_view_group(&view, 0), "");
	assert_string_equal(view.instance, "");
	assert_string_equal(view.device, "");
}

static void segment_without_stacks_is_valid(void **state)
{
	void *segment = segment_make(0);
	struct stat_view view;

	(void)state;
	assert_int_equal(stat_view_open(&view, segment, stat_segment_size(0)), 0);
	assert_int_equal(stat_view_total(&view, STAT_rx_packets), 0);
	free(segment);
}

static void reader_takes_a_later_minor_version_with_longer_parts(void **state)
{
	/* 128-byte header, 2 entries of 256 bytes, 2 blocks 64 bytes apart */
	uint64_t memory[(128 + 2 * 256 + 2 * 64) / 8] = {0};
	struct pronk_stats_header *header = (void *)memory;
	struct pronk_stats_entry *entry = (void *)((uint8_t *)memory + 128 + 256);
	struct stat_view view;

	(void)state;
	*header = (struct pronk_stats_header){.magic = PRONK_STATS_MAGIC,
	        .version_major = PRONK_STATS_VERSION_MAJOR,
	        .version_minor = 9,
	        .header_size = 128,
	        .stack_count = 2,
	        .counter_count = 2,
	        .entry_size = 256,
	        .entry_offset = 128,
	        .block_offset = 128 + 2 * 256,
	        .block_stride = 64,
	        .segment_size = sizeof(memory)};
	strcpy(entry->name, "from_the_future");
	entry->kind = 77;
	((uint64_t *)((uint8_t *)memory + 128 + 2 * 256))[1] = 40;
	((uint64_t *)((uint8_t *)memory + 128 + 2 * 256 + 64))[1] = 2;
	assert_int_equal(stat_view_open(&view, memory, sizeof(memory)), 0);
	assert_int_equal(stat_view_find(&view, "from_the_future"), 1);
	assert_int_equal(stat_view_total(&view, 1), 42);
	assert_string_equal(stat_kind_name(77), "gauge");
	assert_string_equal(stat_kind_name(PRONK_STATS_COUNTER), "counter");
	assert_string_equal(stat_kind_name(PRONK_STATS_PEAK), "peak");
	assert_string_equal(stat_kind_name(PRONK_STATS_LOW), "low");
}

static void reader_refuses_unpublished_and_foreign_segments(void **state)
{
	void *segment = segment_make(1);
	struct pronk_stats_header *header = segment;
	size_t size = stat_segment_size(1);
	struct stat_view view;

	(void)state;
	header->magic = 0;
	assert_int_equal(stat_view_open(&view, segment, size), -EAGAIN);
	header->magic = 0x1234;
	assert_int_equal(stat_view_open(&view, segment, size), -EPROTO);
	header->magic = PRONK_STATS_MAGIC;
	header->version_major++;
	assert_int_equal(stat_view_open(&view, segment, size), -EPROTO);
	header->version_major--;
	assert_int_equal(stat_view_open(&view, segment, size), 0);
	assert_int_equal(stat_view_open(&view, segment, size - 1), -EINVAL);
	assert_int_equal(stat_view_open(&view, segment, sizeof(*header) - 1), -EINVAL);
	assert_int_equal(stat_view_open(&view, segment, 0), -EINVAL);
	free(segment);
}

static void reader_refuses_contradicting_sizes(void **state)
{
	static const uint64_t extremes[] = {0, 1, 7, 8, 63, 64, 1 << 16, 1 << 20, INT32_MAX, UINT32_MAX,
	        INT64_MAX, UINT64_MAX, UINT64_MAX - 7, UINT64_MAX - 63};
	const size_t size = stat_segment_size(2);
	void *segment = segment_make(2);
	struct pronk_stats_header *header = segment;
	const struct pronk_stats_header good = *header;
	struct pronk_stats_entry *entries = (void *)((uint8_t *)segment + good.entry_offset);
	struct stat_view view;
	unsigned seed = 99, accepted = 0;

	(void)state;
#define REFUSED(field, value)                                                                                \
	do {                                                                                                 \
		header->field = value;                                                                       \
		assert_int_equal(stat_view_open(&view, segment, size), -EINVAL);                             \
		*header = good;                                                                              \
	} while (0)
	REFUSED(header_size, 72);
	REFUSED(segment_size, size + 1);
	REFUSED(stack_count, 3);
	REFUSED(stack_count, UINT32_MAX);
	REFUSED(counter_count, UINT32_MAX);
	REFUSED(counter_count, good.counter_count + 100);
	REFUSED(entry_size, 8);
	REFUSED(entry_size, UINT32_MAX);
	REFUSED(entry_offset, 0);
	REFUSED(entry_offset, UINT64_MAX - 7);
	REFUSED(entry_offset, good.entry_offset + 1);
	REFUSED(block_offset, good.block_offset - 64 * 8);
	REFUSED(block_offset, UINT64_MAX - 7);
	REFUSED(block_stride, 8);
	REFUSED(block_stride, UINT64_MAX - 7);
#undef REFUSED
	memset(entries[STAT_COUNT - 1].help, 'x', sizeof(entries[0].help));
	assert_int_equal(stat_view_open(&view, segment, size), -EINVAL);
	entries[STAT_COUNT - 1].help[0] = '\0';

	/* Any header that passes must be safe to read through (the address sanitizer watches). */
	for (unsigned round = 0; round < 200000; round++) {
		for (unsigned i = 0; i <= round % 3; i++) {
			uint64_t value;

			seed = seed * 1103515245 + 12345;
			value = extremes[(seed >> 16) % (sizeof(extremes) / sizeof(extremes[0]))];
			if (seed & 0x100000)
				value += good.entry_offset;
			switch ((seed >> 8) % 8) {
			case 0:
				header->header_size = (uint32_t)value;
				break;
			case 1:
				header->stack_count = (uint32_t)value;
				break;
			case 2:
				header->counter_count = (uint32_t)value;
				break;
			case 3:
				header->entry_size = (uint32_t)value;
				break;
			case 4:
				header->entry_offset = value;
				break;
			case 5:
				header->block_offset = value;
				break;
			case 6:
				header->block_stride = value;
				break;
			default:
				header->segment_size = value;
			}
		}
		if (stat_view_open(&view, segment, size) == 0) {
			accepted++;
			for (uint32_t i = 0; i < view.counter_count; i++)
				stat_view_total(&view, i);
			stat_view_find(&view, "none");
		}
		*header = good;
	}
	print_message("damaged headers: 200000, %u still readable\n", accepted);
	free(segment);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(names_are_unique_and_plain),
	        cmocka_unit_test(segment_describes_every_statistic),
	        cmocka_unit_test(values_go_to_their_own_place),
	        cmocka_unit_test(set_and_peak_replace),
	        cmocka_unit_test(total_of_a_low_is_the_smallest_of_a_peak_the_largest),
	        cmocka_unit_test(segment_says_whose_it_is),
	        cmocka_unit_test(reader_takes_the_first_version_with_shorter_parts),
	        cmocka_unit_test(segment_without_stacks_is_valid),
	        cmocka_unit_test(reader_takes_a_later_minor_version_with_longer_parts),
	        cmocka_unit_test(reader_refuses_unpublished_and_foreign_segments),
	        cmocka_unit_test(reader_refuses_contradicting_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
