/* test_near.c - neighbours at the other end of the same shared memory: segments longer than the MTU in one
 * frame, without checksums, in both directions; and others, which get what the wire takes.
 */
#include "peer.h"

#include <string.h>

static uint8_t big[1 << 20];

static struct rig *rig_near(void)
{
	return rig_up(&(struct rig_spec){.near = true});
}

/* Takes all that was sent and answers it; the longest segment. */
static uint32_t longest_drained(struct peer *p, uint32_t total)
{
	uint32_t most = 0, off = 0;
	struct seg *s;

	while ((s = peer_next(p))) {
		if (s->size > most)
			most = s->size;
		if (!s->size)
			continue;
		pattern_check(s->data, s->seq - p->irs - 1, s->size);
		off = s->seq - p->irs - 1 + s->size;
		p->rcv = s->seq + s->size;
		peer_ack(p);
	}
	assert_int_equal(off, total);
	return most;
}

static void long_segments_leave_in_one_frame(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep;

	(void)state;
	ep = peer_pair(&p, r);
	pattern_fill(big, 0, 300000);
	assert_int_equal(app_write(r, ep, big, 300000), 300000);
	/* half of the peer's window is lwIP's limit */
	assert_int_equal(longest_drained(&p, 300000), 32767);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	assert_int_equal(r->stack[0]->block_lent_count, 0);
}

static void small_segments_and_options_are_as_ever(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	assert_int_equal(app_write(r, ep, "answer", 6), 6);
	s = expect(&p, ACK, p.irs + 1, 6);
	assert_memory_equal(s->data, "answer", 6);
	peer_ack(&p);
	assert_int_equal(atomic_load(&app_ep(r, ep)->info_mss), 1460);
	/* Nagle (no TCP_NODELAY): a full segment of the wire's does not wait, a rest does */
	pattern_fill(big, 6, 4000);
	assert_int_equal(app_write(r, ep, big, 100), 100);
	expect(&p, ACK, p.irs + 7, 100);
	assert_int_equal(app_write(r, ep, big + 100, 100), 100);
	expect_none(&p);
	assert_int_equal(app_write(r, ep, big + 200, 1400), 1400);
	s = expect(&p, ACK, p.irs + 107, 1500);
	pattern_check(s->data, 106, 1500);
	peer_ack(&p);
}

static void long_frames_are_read_as_they_come(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		peer_data(&p, 60000);
		assert_int_equal(app_read(r, ep, big, sizeof(big)), 60000);
		pattern_check(big, i * 60000, 60000);
	}
	peer_data(&p, 1);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 1);
	peer_skip(&p);
}

static void long_frames_wait_for_the_reader(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep = peer_pair(&p, r), got = 0, n;

	(void)state;
	/* more pieces than the ring has places */
	peer_data(&p, 60000);
	for (uint32_t i = 0; i < 50; i++)
		peer_data(&p, 100);
	while ((n = app_read(r, ep, big + got, sizeof(big) - got)))
		got += n;
	assert_int_equal(got, 65000);
	pattern_check(big, 0, got);
	peer_skip(&p);
}

static void lost_long_segment_is_sent_again(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	pattern_fill(big, 0, 60000);
	assert_int_equal(app_write(r, ep, big, 60000), 60000);
	peer_skip(&p);
	rig_run(r, 1200);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->seq, p.irs + 1);
	assert_true(s->size > 1460);
	pattern_check(s->data, 0, s->size);
	assert_int_equal(peer_drain(&p, s->size), 60000);
}

static void neighbour_that_becomes_ordinary_gets_frames_of_the_wire(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off = 0;
	struct seg *s;

	(void)state;
	/* somebody else answers for the address now; the fake port refuses long frames for him */
	r->is_near = false;
	rig_arp(r, 1, RIG_PEER, RIG_ADDRESS);
	pattern_fill(big, 0, 30000);
	assert_int_equal(app_write(r, ep, big, 30000), 30000);
	while ((s = peer_next(&p))) {
		assert_true(s->size <= 1460);
		assert_int_equal(s->seq, p.irs + 1 + off);
		pattern_check(s->data, off, s->size);
		off += s->size;
		p.rcv = s->seq + s->size;
	}
	assert_int_equal(off, 30000);
	peer_ack(&p);
}

static void neighbour_on_another_link_gets_frames_of_the_wire(void **state)
{
	struct rig *r = rig_near();
	struct peer p;
	uint32_t ep;

	(void)state;
	nic_fake_set_near(r->nic, 0x1234, RIG_NEAR_MAX); /* ours is not what neighbours say */
	r->is_near = true;
	rig_arp(r, 1, RIG_PEER, RIG_ADDRESS);
	r->is_near = false;
	ep = peer_pair(&p, r);
	pattern_fill(big, 0, 100000);
	assert_int_equal(app_write(r, ep, big, 100000), 100000);
	assert_int_equal(peer_drain(&p, 0), 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(long_segments_leave_in_one_frame),
	        WIRE_TEST(small_segments_and_options_are_as_ever),
	        WIRE_TEST(long_frames_are_read_as_they_come),
	        WIRE_TEST(long_frames_wait_for_the_reader),
	        WIRE_TEST(lost_long_segment_is_sent_again),
	        WIRE_TEST(neighbour_that_becomes_ordinary_gets_frames_of_the_wire),
	        WIRE_TEST(neighbour_on_another_link_gets_frames_of_the_wire),
	};

	return cmocka_run_group_tests_name("near", tests, NULL, NULL);
}
