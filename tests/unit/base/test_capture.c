/* test_capture.c - the rings of captured packets: both ends in one thread, on plain memory. What two threads
 * make of it is stress_capture.c's.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "capture.h"
#include "clock.h"

static struct capture_shm *shm;
static struct capture_writer w;
static struct capture_reader r;

static int setup(void **state)
{
	size_t size = capture_shm_size(2, CAPTURE_RING_MIN);

	(void)state;
	shm = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
	assert_non_null(shm);
	memset(shm, 0, size);
	capture_shm_init(shm, 2, CAPTURE_RING_MIN, "tap:x", (const uint8_t[]){2, 0, 0, 0, 0, 1});
	assert_true(capture_shm_check(shm, size));
	assert_false(capture_shm_check(shm, size - 1));
	capture_writer_init(&w, shm, 1);
	capture_reader_init(&r, shm, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(shm);
	return 0;
}

static bool put(uint32_t size, uint8_t byte)
{
	struct capture_record *record = capture_put(&w, size);

	if (!record)
		return false;
	record->direction = CAPTURE_IN;
	record->wire_size = size + 1;
	memset(record + 1, byte, size);
	return true;
}

static void take(uint32_t size, uint8_t byte)
{
	const struct capture_record *record = capture_peek(&r);
	const uint8_t *data = (const uint8_t *)(record + 1);

	assert_non_null(record);
	assert_int_equal(record->cap_size, size);
	assert_int_equal(record->wire_size, size + 1);
	for (uint32_t i = 0; i < size; i++)
		assert_int_equal(data[i], byte);
	capture_take(&r, record);
}

static void packet_is_seen_after_publish_and_not_before(void **state)
{
	(void)state;
	assert_true(put(60, 7));
	assert_null(capture_peek(&r));
	capture_publish(&w);
	take(60, 7);
	assert_null(capture_peek(&r));
}

static void packets_of_all_sizes_come_through_in_order_over_many_rounds(void **state)
{
	uint32_t size_in = 0, size_out = 0;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		for (int i = 0; i < 3; i++) {
			assert_true(put(size_in, (uint8_t)size_in));
			size_in = (size_in * 7 + 13) % 9001;
		}
		capture_publish(&w);
		for (int i = 0; i < 3; i++) {
			take(size_out, (uint8_t)size_out);
			size_out = (size_out * 7 + 13) % 9001;
		}
		capture_release(&r);
	}
	assert_int_equal(atomic_load(&shm->ring[1].matched), 6000);
	assert_int_equal(atomic_load(&shm->ring[1].dropped), 0);
	assert_int_equal(atomic_load(&shm->ring[0].head), 0);
}

static void full_ring_drops_and_counts_and_goes_on_when_there_is_room(void **state)
{
	uint32_t fit = 0;

	(void)state;
	while (put(1000, (uint8_t)fit))
		fit++;
	assert_int_equal(fit, CAPTURE_RING_MIN / 1056);
	assert_false(put(1000, 0));
	capture_publish(&w);
	assert_int_equal(atomic_load(&shm->ring[1].matched), fit + 2);
	assert_int_equal(atomic_load(&shm->ring[1].dropped), 2);
	take(1000, 0);
	take(1000, 1);
	assert_false(put(1000, 0)); /* taken, but not released */
	capture_release(&r);
	assert_true(put(1000, 99));
	capture_publish(&w);
	for (uint32_t i = 2; i < fit; i++)
		take(1000, (uint8_t)i);
	take(1000, 99);
	assert_null(capture_peek(&r));
}

static void record_larger_than_the_ring_is_dropped(void **state)
{
	(void)state;
	assert_false(put(CAPTURE_RING_MIN, 0));
	assert_int_equal(w.dropped, 1);
	assert_true(put(100, 5));
}

static void reader_that_lies_cannot_make_the_writer_leave_the_ring(void **state)
{
	static const uint64_t lies[] = {1, 31, 33, CAPTURE_RING_MIN, CAPTURE_RING_MIN * 2ull, UINT64_MAX,
	        UINT64_MAX - CAPTURE_RING_MIN, 1ull << 63};
	uint8_t *begin = (uint8_t *)shm + shm->data_offset + CAPTURE_RING_MIN;

	(void)state;
	for (uint32_t i = 0; i < 40000; i++) {
		struct capture_record *record;

		atomic_store(&shm->ring[1].tail, lies[i % ARRAY_COUNT(lies)] * (i % 3));
		/* what it writes elsewhere is not looked at */
		atomic_store(&shm->ring[1].head, i * 977ull);
		memset(begin, 0xff, sizeof(struct capture_record));
		record = capture_put(&w, i % 9000);
		if (record) {
			assert_true((uint8_t *)record >= begin);
			assert_true((uint8_t *)(record + 1) + i % 9000 <= begin + CAPTURE_RING_MIN);
			assert_int_equal(((uint8_t *)record - begin) % CAPTURE_UNIT, 0);
		}
		capture_publish(&w);
	}
	assert_int_equal(w.matched, 40000);
	assert_true(w.dropped > 0);
}

/* Root reads the rings of any user's service. */
static void service_that_lies_cannot_lead_the_reader_out_of_the_ring(void **state)
{
	struct capture_record *record =
	        (struct capture_record *)((uint8_t *)shm + shm->data_offset + CAPTURE_RING_MIN);
	static const struct {
		uint32_t size, cap_size;
	} lies[] = {{0, 0}, {1, 0}, {CAPTURE_UNIT + 1, 0}, {CAPTURE_RING_MIN * 2, 0}, {UINT32_MAX, 0},
	        {CAPTURE_UNIT * 2, CAPTURE_UNIT + 1}, {CAPTURE_UNIT, UINT32_MAX}};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(lies); i++) {
		capture_reader_init(&r, shm, 1);
		record->size = lies[i].size;
		record->cap_size = lies[i].cap_size;
		record->direction = CAPTURE_IN;
		atomic_store(&shm->ring[1].head, CAPTURE_RING_MIN);
		assert_null(capture_peek(&r));
		assert_null(capture_peek(&r)); /* and comes to an end */
	}
	capture_reader_init(&r, shm, 1);
	*record = (struct capture_record){.direction = 0, .size = 0};
	assert_null(capture_peek(&r));
	atomic_store(&shm->ring[1].head, 7); /* a record that begins nowhere */
	r.tail = 3;
	assert_null(capture_peek(&r));
}

static void wait_ends_when_there_is_something_or_time_is_over(void **state)
{
	uint64_t start = clock_now_ns();

	(void)state;
	capture_wait(shm, &r, 1, 30);
	assert_true(clock_now_ns() - start >= 29 * CLOCK_NS_PER_MS);
	assert_int_equal(atomic_load(&shm->reader_sleeps), 0);
	put(10, 1);
	capture_publish(&w);
	start = clock_now_ns();
	capture_wait(shm, &r, 1, 30000);
	assert_true(clock_now_ns() - start < 10 * CLOCK_NS_PER_S);
}

static void request_out_of_range_is_refused_by_name(void **state)
{
	static const struct {
		uint64_t magic;
		uint32_t snap_size, directions, queues, ring_size, insn_count;
		size_t more;
		const char *says;
	} cases[] = {
	        {CAPTURE_MAGIC, 96, 1, 1, CAPTURE_RING_MIN, 0, 0, NULL},
	        {1, 96, 1, 1, CAPTURE_RING_MIN, 0, 0, "version"},
	        {CAPTURE_MAGIC, 96, 1, 1, CAPTURE_RING_MIN, 1, 0, "cut off"},
	        {CAPTURE_MAGIC, 96, 1, 1, CAPTURE_RING_MIN, 0, 8, "cut off"},
	        {CAPTURE_MAGIC, 96, 1, 1, CAPTURE_RING_MIN, CAPTURE_INSN_MAX + 1, 0, "4097 instructions"},
	        {CAPTURE_MAGIC, 0, 1, 1, CAPTURE_RING_MIN, 0, 0, "snap length 0"},
	        {CAPTURE_MAGIC, CAPTURE_SNAP_MAX + 1, 1, 1, CAPTURE_RING_MIN, 0, 0, "snap length 262145"},
	        {CAPTURE_MAGIC, 1, 0, 1, CAPTURE_RING_MIN, 0, 0, "direction: 0"},
	        {CAPTURE_MAGIC, 1, 4, 1, CAPTURE_RING_MIN, 0, 0, "direction: 4"},
	        {CAPTURE_MAGIC, 1, 3, 0, CAPTURE_RING_MIN, 0, 0, "no stack"},
	        {CAPTURE_MAGIC, 1, 3, 1, 300000, 0, 0, "300000 bytes"},
	        {CAPTURE_MAGIC, 1, 3, 1, 1 << 29, 0, 0, "536870912 bytes"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct capture_spec spec = {.magic = cases[i].magic,
		        .snap_size = cases[i].snap_size,
		        .directions = cases[i].directions,
		        .queues = cases[i].queues,
		        .ring_size = cases[i].ring_size,
		        .insn_count = cases[i].insn_count};
		char reason[CAPTURE_REASON_SIZE] = "";
		bool is_good =
		        capture_spec_check(&spec, sizeof(spec) + cases[i].more, reason, sizeof(reason));

		assert_int_equal(is_good, cases[i].says == NULL);
		if (cases[i].says)
			assert_non_null(strstr(reason, cases[i].says));
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	        TEST(packet_is_seen_after_publish_and_not_before),
	        TEST(packets_of_all_sizes_come_through_in_order_over_many_rounds),
	        TEST(full_ring_drops_and_counts_and_goes_on_when_there_is_room),
	        TEST(record_larger_than_the_ring_is_dropped),
	        TEST(reader_that_lies_cannot_make_the_writer_leave_the_ring),
	        TEST(service_that_lies_cannot_lead_the_reader_out_of_the_ring),
	        TEST(wait_ends_when_there_is_something_or_time_is_over),
	        cmocka_unit_test(request_out_of_range_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
