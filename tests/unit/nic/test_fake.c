/* test_fake.c - the fake port of the wire tests keeps nic.h's promises.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>

#include "compiler.h"
#include "frames.h"
#include "nic_fake.h"

static uint32_t wakes[4];

static void wake(void *arg UNUSED, uint32_t stack_idx)
{
	wakes[stack_idx]++;
}

static int setup(void **state)
{
	struct nic *nic = nic_fake_create(3);

	nic_fake_set_wake(nic, wake, NULL);
	memset(wakes, 0, sizeof(wakes));
	*state = nic;
	return nic == NULL;
}

static int teardown(void **state)
{
	uint32_t in_use = nic_fake_bufs_in_use(*state);

	nic_close(*state);
	return in_use != 0;
}

static void injected_frame_reaches_its_owner(void **state)
{
	struct nic *nic = *state;
	struct nic_frame got[8];
	uint8_t frame[256];

	for (uint16_t port = 1000; port < 1006; port++) {
		uint32_t size = frame_ip4(frame, 6, port, 80, 10);
		uint32_t owner =
		        nic_owner(nic, AF_INET, (uint8_t[]){10, 0, 0, 1}, port, (uint8_t[]){10, 0, 0, 2}, 80);

		assert_int_equal(nic_fake_inject_fixed(nic, 0, frame, size), 0);
		assert_int_equal(nic_rx(nic_queue_get(nic, 0), got, 8), owner == 0);
		if (owner != 0)
			assert_int_equal(nic_rx(nic_queue_get(nic, owner), got, 8), 1);
		assert_int_equal(got[0].size, size);
		nic_buf_free(got[0].buf);
	}
	assert_int_equal(wakes[1] + wakes[2], nic_stats(nic_queue_get(nic, 0))->rx_handoff);
}

static void arp_reaches_every_stack(void **state)
{
	struct nic *nic = *state;
	struct nic_frame got[8];
	uint8_t frame[64];

	nic_fake_inject(nic, 1, frame, frame_arp(frame));
	for (int i = 0; i < 3; i++) {
		uint32_t stack = (1 + (uint32_t)i) % 3;

		assert_int_equal(nic_rx(nic_queue_get(nic, stack), got, 8), 1);
		nic_buf_free(got[0].buf);
	}
}

static void bad_checksums_are_dropped_and_counted(void **state)
{
	struct nic *nic = *state;
	struct nic_frame got[8];
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 17, 1, 2, 10);

	frame_put16(frame + 40, 0x1111);
	nic_fake_inject(nic, 0, frame, size);
	nic_fake_inject(nic, 0, frame, size - 1);
	assert_int_equal(nic_rx(nic_queue_get(nic, 0), got, 8), 0);
	assert_int_equal(nic_stats(nic_queue_get(nic, 0))->drop_rx_cksum, 1);
	assert_int_equal(nic_stats(nic_queue_get(nic, 0))->drop_rx_short, 1);
}

static void sent_frame_has_checksums_and_can_be_taken_after_the_flush(void **state)
{
	struct nic *nic = *state;
	struct nic_queue *q = nic_queue_get(nic, 2);
	uint8_t *data, out[256];
	void *priv;
	struct nic_buf *buf = nic_buf_alloc(q, &data, &priv);
	uint32_t size = frame_ip4(data, 6, 1, 2, 7);

	assert_int_equal((uintptr_t)priv % 8, 0);
	nic_tx(q, buf, data, size);
	assert_int_equal(nic_fake_take(nic, 2, out, sizeof(out)), 0);
	nic_tx_flush(q);
	assert_int_equal(nic_fake_pending(nic, 2), 1);
	assert_int_equal(nic_fake_take(nic, 2, out, sizeof(out)), size);
	assert_int_equal(frame_sum(0, out + 14, 20), 0xffff);
	assert_int_equal(frame_sum(frame_sum(27 + 6, out + 26, 8), out + 34, 27), 0xffff);
}

static void failures_happen_as_often_as_asked(void **state)
{
	struct nic *nic = *state;
	struct nic_queue *q = nic_queue_get(nic, 0);
	uint8_t *data, out[64];
	struct nic_buf *buf;

	nic_fake_fail_alloc(nic, 2);
	assert_null(nic_buf_alloc(q, &data, NULL));
	assert_null(nic_buf_alloc(q, &data, NULL));
	buf = nic_buf_alloc(q, &data, NULL);
	assert_non_null(buf);
	assert_int_equal(nic_stats(q)->drop_tx_nobuf, 2);
	assert_true(nic_addr(q, data) != UINT64_MAX);
	nic_fake_fail_tx(nic, 1);
	nic_tx(q, buf, data, frame_arp(data));
	nic_tx_flush(q);
	assert_int_equal(nic_fake_take(nic, 0, out, sizeof(out)), 0);
	assert_int_equal(nic_stats(q)->drop_tx_full, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup_teardown(injected_frame_reaches_its_owner, setup, teardown),
	        cmocka_unit_test_setup_teardown(arp_reaches_every_stack, setup, teardown),
	        cmocka_unit_test_setup_teardown(bad_checksums_are_dropped_and_counted, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                sent_frame_has_checksums_and_can_be_taken_after_the_flush, setup, teardown),
	        cmocka_unit_test_setup_teardown(failures_happen_as_often_as_asked, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
