/* test_inject.c - faults made on purpose, over a port that gives back what is sent (net_ring). Plain pages,
 * no privileges. One thread plays the one stack; the EAL starts once per process, so all cases share the
 * port.
 *
 * Frames carry their number behind the headers, so that it is known which ones came, and in which order.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "frames.h"
#include "log.h"
#include "nic_int.h"

enum { BUFFERS = 4096, BURST = 32, FRAMES = 4000, PATIENCE_S = 20 };

static struct nic *nic;
static struct nic_queue *q;
static struct nic_frame got[64];
static uint32_t free_before;

static uint32_t free_now(void)
{
	uint32_t free_count, total;

	nic_buf_levels(q, &free_count, &total);
	return free_count;
}

static void wake(void *arg, uint32_t stack_idx)
{
	(void)arg, (void)stack_idx;
}

static void faults_set(const struct nic_inject *spec)
{
	struct inject *in = nic_inject_make(spec, 0);

	assert_non_null(in);
	nic_inject_set(q, in);
}

static void frame_send(uint32_t number)
{
	uint8_t frame[256], *data;
	uint32_t size = frame_ip4(frame, 17, 2000, 80, 20);
	struct nic_buf *buf = nic_buf_alloc(q, &data, NULL);

	assert_non_null(buf);
	memcpy(data, frame, size);
	memcpy(data + 42, &number, sizeof(number));
	nic_tx(q, buf, data, size);
}

/* Takes what has come; the numbers are added to numbers[]. */
static uint32_t take(uint32_t *numbers, uint32_t count)
{
	uint32_t n = nic_rx(q, got, 64);

	for (uint32_t i = 0; i < n; i++) {
		memcpy(&numbers[count + i], got[i].data + 42, sizeof(numbers[0]));
		nic_buf_free(got[i].buf);
	}
	return count + n;
}

/* Sends count frames in bursts and takes what comes until nothing more does; how many. */
static uint32_t round_trip(uint32_t count, uint32_t *numbers)
{
	uint64_t end_ns = clock_now_ns() + PATIENCE_S * CLOCK_NS_PER_S;
	uint32_t n = 0;

	for (uint32_t i = 0; i < count; i++) {
		frame_send(i);
		if (i % BURST == BURST - 1 || i + 1 == count) {
			nic_tx_flush(q);
			n = take(numbers, n);
		}
	}
	/* as long as a buffer is away, something waits */
	while (free_now() != free_before && clock_now_ns() < end_ns) {
		nic_tx_flush(q);
		n = take(numbers, n);
	}
	assert_int_equal(free_now(), free_before);
	return n;
}

static int reset(void **state)
{
	(void)state;
	faults_set(&(struct nic_inject){.seed = 0});
	memset((void *)(uintptr_t)&q->stats, 0, sizeof(q->stats));
	return 0;
}

static uint32_t *numbers;

static void loss_takes_its_share_and_the_same_frames_for_the_same_seed(void **state)
{
	struct nic_inject spec = {.rx.loss = 100000, .tx.loss = 50000, .seed = 42};
	uint32_t n[2], *first = numbers, *second = numbers + FRAMES;

	(void)state;
	faults_set(&spec);
	n[0] = round_trip(FRAMES, first);
	faults_set(&spec);
	n[1] = round_trip(FRAMES, second);
	assert_int_equal(n[0], n[1]);
	assert_memory_equal(first, second, n[0] * sizeof(first[0]));
	assert_int_equal(q->stats.inject_tx.lost % 2, 0);
	assert_int_equal(q->stats.inject_rx.lost % 2, 0);
	assert_int_equal(n[0] + (q->stats.inject_tx.lost + q->stats.inject_rx.lost) / 2, FRAMES);
	/* 5 % of 4,000, and 10 % of the rest: far from these only one time in billions, and then always */
	assert_in_range(q->stats.inject_tx.lost / 2, 140, 260);
	assert_in_range(q->stats.inject_rx.lost / 2, 280, 480);
	spec.seed = 43;
	faults_set(&spec);
	n[1] = round_trip(FRAMES, second);
	assert_true(n[0] != n[1] || memcmp(first, second, n[0] * sizeof(first[0])));
}

static void doubled_frames_come_twice(void **state)
{
	uint8_t *times = calloc(FRAMES, 1);
	uint32_t n, doubled = 0;

	(void)state;
	faults_set(&(struct nic_inject){.tx.dup = 20000, .rx.dup = 30000, .seed = 1});
	n = round_trip(FRAMES, numbers);
	assert_int_equal(n, FRAMES + q->stats.inject_tx.duplicated + q->stats.inject_rx.duplicated);
	assert_in_range(q->stats.inject_tx.duplicated, 40, 130);
	assert_in_range(q->stats.inject_rx.duplicated, 70, 180);
	for (uint32_t i = 0; i < n; i++) {
		assert_in_range(numbers[i], 0, FRAMES - 1);
		doubled += ++times[numbers[i]] == 2;
	}
	for (uint32_t i = 0; i < FRAMES; i++)
		assert_true(times[i] >= 1);
	assert_true(doubled > 0);
	free(times);
}

/* Of a burst, who is held back comes behind the others, and they keep their order. */
static void reordered_frames_are_overtaken(void **state)
{
	uint32_t n, held = 0;

	(void)state;
	faults_set(&(struct nic_inject){.tx.reorder = 200000, .seed = 5});
	n = round_trip(BURST, numbers);
	assert_int_equal(n, BURST);
	assert_in_range(q->stats.inject_tx.reordered, 1, BURST - 1);
	for (uint32_t i = 1; i < n; i++)
		held += numbers[i] < numbers[i - 1];
	assert_int_equal(held, 1); /* one place where it goes back: to the first that was held */
}

static void delayed_frames_come_later_and_in_order(void **state)
{
	uint64_t start_ns, took_ns;
	uint32_t n = 0, before_ms = 0;

	(void)state;
	faults_set(&(struct nic_inject){.rx = {.delay_us = 20000}, .seed = 5});
	start_ns = clock_now_ns();
	for (uint32_t i = 0; i < 8; i++)
		frame_send(i);
	nic_tx_flush(q);
	n = take(numbers, n);
	assert_int_equal(n, 0);
	assert_in_range(nic_wait_limit_us(q), 0, 20000);
	while (n < 8 && clock_now_ns() - start_ns < PATIENCE_S * CLOCK_NS_PER_S) {
		n = take(numbers, n);
		took_ns = clock_now_ns() - start_ns;
		before_ms += n && took_ns < 20 * CLOCK_NS_PER_MS;
	}
	assert_int_equal(n, 8);
	assert_int_equal(before_ms, 0);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(numbers[i], i);
	assert_int_equal(q->stats.inject_rx.delayed, 8);
	assert_int_equal(nic_wait_limit_us(q), UINT32_MAX);
}

static void jitter_stays_within_its_limits(void **state)
{
	uint64_t start_ns, first_ns = 0, took_ns = 0;
	uint32_t n = 0, overtaken = 0;

	(void)state;
	faults_set(&(struct nic_inject){.tx = {.delay_us = 8000, .jitter_us = 6000}, .seed = 9});
	start_ns = clock_now_ns();
	for (uint32_t i = 0; i < BURST; i++)
		frame_send(i);
	while (n < BURST && took_ns < PATIENCE_S * CLOCK_NS_PER_S) {
		nic_tx_flush(q);
		n = take(numbers, n);
		took_ns = clock_now_ns() - start_ns;
		if (n && !first_ns)
			first_ns = took_ns;
	}
	assert_int_equal(n, BURST);
	assert_true(first_ns >= 2 * CLOCK_NS_PER_MS);
	for (uint32_t i = 1; i < n; i++)
		overtaken += numbers[i] < numbers[i - 1];
	assert_true(overtaken > 0);
}

static void damaged_frames_are_noticed_by_their_checksum(void **state)
{
	uint32_t n;

	(void)state;
	faults_set(&(struct nic_inject){.tx.corrupt = 100000, .seed = 3});
	n = round_trip(FRAMES, numbers);
	assert_in_range(q->stats.inject_tx.corrupted, 280, 520);
	assert_int_equal(q->stats.drop_rx_cksum + q->stats.drop_rx_short, q->stats.inject_tx.corrupted);
	assert_int_equal(n, FRAMES - q->stats.inject_tx.corrupted);
}

static void what_waits_goes_on_at_once_when_it_is_switched_off(void **state)
{
	uint32_t n = 0;

	(void)state;
	faults_set(&(struct nic_inject){.rx = {.delay_us = NIC_INJECT_DELAY_MAX_US},
	        .tx = {.delay_us = NIC_INJECT_DELAY_MAX_US},
	        .seed = 5});
	for (uint32_t i = 0; i < 8; i++)
		frame_send(i);
	nic_tx_flush(q);
	assert_int_equal(take(numbers, 0), 0);
	faults_set(&(struct nic_inject){.seed = 0});
	nic_tx_flush(q);
	n = take(numbers, n);
	assert_int_equal(n, 8);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(numbers[i], i);
	assert_null(q->inject);
}

static void more_than_may_wait_is_dropped_and_counted(void **state)
{
	uint32_t most = nic->pool->size / 4, n;

	(void)state;
	faults_set(&(struct nic_inject){.tx = {.delay_us = NIC_INJECT_DELAY_MAX_US}, .seed = 5});
	for (uint32_t i = 0; i < most + 10; i++)
		frame_send(i);
	nic_tx_flush(q);
	assert_int_equal(q->stats.inject_tx.overflow, 10);
	faults_set(&(struct nic_inject){.seed = 0});
	n = round_trip(0, numbers);
	assert_int_equal(n, most);
}

static int start(void **state)
{
	char err[256] = "";
	struct cfg cfg;

	(void)state;
	numbers = calloc(4 * FRAMES, sizeof(numbers[0]));
	assert_non_null(numbers);
	cfg_defaults(&cfg);
	strcpy(cfg.device, "ring:");
	cfg.hugepages = CFG_HUGEPAGES_OFF;
	cfg.packet_buffers = BUFFERS;
	log_level_set(LOG_LEVEL_ERROR);
	if (nic_open(&nic, &cfg, 1, wake, NULL, err, sizeof(err)) != 0) {
		print_error("%s\n", err);
		return -1;
	}
	q = nic_queue_get(nic, 0);
	assert_int_equal(nic_rx(q, got, 64), 0);
	free_before = free_now();
	return 0;
}

/* Also with frames that wait. */
static int stop(void **state)
{
	(void)state;
	faults_set(&(struct nic_inject){.tx = {.delay_us = NIC_INJECT_DELAY_MAX_US}, .seed = 5});
	frame_send(1);
	nic_close(nic);
	free(numbers);
	return 0;
}

#define CASE(name) cmocka_unit_test_setup(name, reset)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        CASE(loss_takes_its_share_and_the_same_frames_for_the_same_seed),
	        CASE(doubled_frames_come_twice),
	        CASE(reordered_frames_are_overtaken),
	        CASE(delayed_frames_come_later_and_in_order),
	        CASE(jitter_stays_within_its_limits),
	        CASE(damaged_frames_are_noticed_by_their_checksum),
	        CASE(what_waits_goes_on_at_once_when_it_is_switched_off),
	        CASE(more_than_may_wait_is_dropped_and_counted),
	};

	return cmocka_run_group_tests_name("inject", tests, start, stop);
}
