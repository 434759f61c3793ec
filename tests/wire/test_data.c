/* test_data.c - bytes in both directions: order, content, acknowledgements, the receive ring and the send
 * ring.
 */
#include "peer.h"

#include <string.h>
#include <sys/socket.h>

static uint8_t big[4 << 20];

static void data_both_ways_arrives_unchanged(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (int i = 0; i < 10; i++)
		peer_data(&p, 1000);
	peer_skip(&p);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 10000);
	assert_true(ep_level(&r->arena, app_ep(r, ep)) & EPOLLIN);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 10000);
	pattern_check(big, 0, 10000);
	assert_false(ep_level(&r->arena, app_ep(r, ep)) & EPOLLIN);
	pattern_fill(big, 0, 100000);
	assert_int_equal(app_write(r, ep, big, 100000), 100000);
	assert_int_equal(peer_drain(&p, 0), 100000);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void connection_opened_here_carries_data_both_ways(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_answer(&p, r, 7000);

	(void)state;
	pattern_fill(big, 0, 50000);
	assert_int_equal(app_write(r, ep, big, 50000), 50000);
	assert_int_equal(peer_drain(&p, 0), 50000);
	peer_data(&p, 700);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 700);
	pattern_check(big, 0, 700);
}

static void ack_is_delayed_for_one_segment_and_sent_at_once_for_the_second(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_pair(&p, r);
	peer_data(&p, 100);
	rig_run(r, 4);
	expect_none(&p);
	rig_run(r, 1);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.snd);
	rig_run(r, 50);
	expect_none(&p);
	peer_data(&p, 100);
	expect_none(&p);
	peer_data(&p, 100);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.snd);
	rig_run(r, 50);
	expect_none(&p);
}

static void ack_rides_on_data(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 100);
	app_write(r, ep, "answer", 6);
	s = expect(&p, ACK, p.irs + 1, 6);
	assert_int_equal(s->ack, p.snd);
	assert_memory_equal(s->data, "answer", 6);
	peer_ack(&p);
	rig_run(r, 50);
	expect_none(&p);
}

static void reordered_segments_are_delivered_in_order(void **state)
{
	static const uint32_t order[] = {3, 1, 4, 2, 0, 7, 5, 6};
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		peer_data_at(&p, order[i] * 1000, 1000);
		if (i < 4) {
			struct seg *s = expect(&p, ACK, p.irs + 1, 0); /* a duplicate, at once */

			assert_int_equal(s->ack, p.iss + 1);
			assert_int_equal(ep_rx_pending(app_ep(r, ep)), 0);
		}
	}
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 8000);
	pattern_check(big, 0, 8000);
	p.snd += 8000;
	rig_run(r, 10);
	peer_skip(&p);
}

static void duplicate_is_acknowledged_and_delivered_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 500);
	rig_run(r, 5);
	peer_skip(&p);
	for (int i = 0; i < 3; i++) {
		peer_data_at(&p, 0, 500);
		s = expect(&p, ACK, p.irs + 1, 0);
		assert_int_equal(s->ack, p.iss + 501);
	}
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 500);
	pattern_check(big, 0, 500);
}

static void overlapping_segments_are_delivered_once(void **state)
{
	static const struct {
		uint32_t off, size;
	} part[] = {{0, 1000}, {500, 1000}, {200, 300}, {3000, 1000}, {2500, 1000}, {2600, 100}, {3500, 1400},
	        {1400, 1200}, {4000, 1000}, {6000, 100}, {5900, 300}, {4900, 1300}, {0, 1460}};
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (unsigned i = 0; i < sizeof(part) / sizeof(part[0]); i++)
		peer_data_at(&p, part[i].off, part[i].size);
	/* the stack may have let go of pieces that it never acknowledged */
	for (int i = 0; i < 10 && ep_rx_pending(app_ep(r, ep)) < 6200; i++)
		peer_data_at(&p, ep_rx_pending(app_ep(r, ep)), 300);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 6200);
	pattern_check(big, 0, 6200);
	rig_run(r, 10);
	peer_skip(&p);
}

static void segment_out_of_window_is_acknowledged_and_dropped(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 100);
	rig_run(r, 5);
	peer_skip(&p);
	peer_data_at(&p, 1000000, 100); /* far ahead */
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 101);
	peer_data_at(&p, (uint32_t)-1000000, 100); /* far behind */
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 101);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 100);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_trimmed), 1);
}

static void ack_for_what_was_never_sent_is_answered_and_changes_nothing(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_raw(&p, ACK, p.snd, p.rcv + 5000, NULL, 0, NULL, 0);
	expect(&p, ACK, p.irs + 1, 0);
	app_write(r, ep, "abc", 3);
	expect(&p, ACK, p.irs + 1, 3);
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void tiny_segments_fill_the_ring_are_gathered_and_keep_their_order(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), n;

	(void)state;
	for (int i = 0; i < 3000; i++)
		peer_data(&p, 1);
	peer_skip(&p);
	assert_int_equal(atomic_load(&app_ep(r, ep)->rx_head), RX_RING_SIZE);
	/* 64 pieces in the ring, the rest in two gathered buffers */
	assert_in_range(nic_fake_bufs_in_use(r->nic), RX_RING_SIZE, RX_RING_SIZE + 3);
	n = app_read(r, ep, big, 10);
	assert_int_equal(n, 10);
	n += app_read(r, ep, big + 10, sizeof(big));
	assert_int_equal(n, 3000);
	pattern_check(big, 0, 3000);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
}

static void end_of_stream_comes_after_what_waits_behind_a_full_ring(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (int i = 0; i < 200; i++)
		peer_data(&p, 1);
	peer_send(&p, FIN | ACK, NULL, 0);
	assert_false(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_get(r, ep, big, 64), 64);
	assert_false(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(64 + app_read(r, ep, big + 64, 1000), 64);
	rig_run(r, 10);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_read(r, ep, big + 64, 1000), 136);
	pattern_check(big, 0, 200);
	peer_skip(&p);
}

static void reader_without_doorbell_gets_buffers_freed_by_the_timer(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (int i = 0; i < 5; i++)
		peer_data(&p, 1000);
	assert_int_equal(app_get(r, ep, big, 5000), 5000);
	assert_true(nic_fake_bufs_in_use(r->nic) > 0);
	rig_run(r, RECLAIM_MS + 1);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	/* a slow reader, too: looked after more and more seldom, at least once a second */
	peer_data(&p, 1000);
	rig_run(r, 5000);
	assert_int_equal(app_get(r, ep, big, 5000), 1000);
	rig_run(r, 1001);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	peer_skip(&p);
}

static void nagle_holds_small_writes_until_the_first_is_acknowledged(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "a", 1);
	app_write(r, ep, "b", 1);
	app_write(r, ep, "c", 1);
	expect(&p, ACK, p.irs + 1, 1);
	expect_none(&p);
	assert_int_equal(atomic_load(&app_ep(r, ep)->tx_unsent), 2);
	peer_ack(&p);
	assert_memory_equal(expect(&p, ACK, p.irs + 2, 2)->data, "bc", 2);
	peer_ack(&p);
	/* whole segments go at once, the rest is held */
	app_write(r, ep, "d", 1);
	pattern_fill(big, 0, 3000);
	app_write(r, ep, big, 3000);
	expect(&p, ACK, p.irs + 4, 1);
	expect(&p, ACK, p.irs + 5, 1460);
	expect(&p, ACK, p.irs + 1465, 1460);
	peer_skip(&p);
}

static void nodelay_sends_small_writes_at_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_flags(r, ep, APP_NODELAY);
	app_write(r, ep, "a", 1);
	app_write(r, ep, "b", 1);
	expect(&p, ACK, p.irs + 1, 1);
	expect(&p, ACK, p.irs + 2, 1);
}

static void cork_holds_a_part_segment_until_it_is_pulled(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_flags(r, ep, APP_CORK);
	app_write(r, ep, "abc", 3);
	rig_run(r, 10);
	expect_none(&p);
	pattern_fill(big, 0, 1460);
	app_write(r, ep, big, 1460);
	expect(&p, ACK, p.irs + 1, 1460);
	app_flags(r, ep, 0);
	peer_ack(&p);
	expect(&p, ACK, p.irs + 1461, 3);
}

static void send_ring_wraps_and_crosses_blocks(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.send_buffer = 1 << 20});
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off = 0, sent = 0;

	(void)state;
	pattern_fill(big, 0, sizeof(big));
	while (off < 3 << 20) {
		uint32_t want = 777777;

		if (want > (3 << 20) - sent)
			want = (3 << 20) - sent;
		sent += app_write(r, ep, big + sent, want);
		off = peer_drain(&p, off);
	}
	assert_int_equal(off, 3 << 20);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void largest_send_buffer_full_behind_a_partly_acknowledged_block_stays_whole(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.send_buffer = 1 << 20});
	struct peer p;
	uint32_t ep = peer_pair(&p, r), sent, off;

	(void)state;
	pattern_fill(big, 0, sizeof(big));
	sent = app_write(r, ep, big, 100);
	off = peer_drain(&p, 0);
	assert_int_equal(off, 100);
	while (sent < 3 << 20) {
		uint32_t n = app_write(r, ep, big + sent, (3 << 20) - sent); /* as full as it gets */

		assert_true(n > 0);
		sent += n;
		p.rcv = p.irs + 1 + off + 700; /* a little room */
		off = peer_drain(&p, off);
	}
	for (int i = 0; i < 100 && off < sent; i++) {
		rig_run(r, 20);
		off = peer_drain(&p, off);
	}
	assert_int_equal(off, sent);
}

static void stream_of_three_megabytes_is_received(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off = 0;

	(void)state;
	while (off < 3 << 20) {
		for (int i = 0; i < 20; i++)
			peer_data(&p, 1460);
		off += app_read(r, ep, big + off, sizeof(big) - off);
		peer_skip(&p);
	}
	pattern_check(big, 0, off);
	assert_int_equal(off, p.snd - p.iss - 1);
}

static void full_send_ring_refuses_and_tells_when_a_third_is_free(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.send_buffer = 65536});
	struct peer p;
	uint32_t ep = peer_pair(&p, r), gen, size = 65536;
	struct endpoint *e = app_ep(r, ep);

	(void)state;
	pattern_fill(big, 0, 200000);
	assert_int_equal(app_write(r, ep, big, 200000), size);
	assert_false(ep_level(&r->arena, e) & EPOLLOUT);
	assert_int_equal(atomic_load(&e->tx_want), 1);
	gen = atomic_load(&e->tx_gen);
	assert_int_equal(peer_drain(&p, 0), size);
	assert_int_equal(atomic_load(&e->tx_want), 0);
	assert_int_not_equal(atomic_load(&e->tx_gen), gen);
	assert_true(ep_level(&r->arena, e) & EPOLLOUT);
	assert_int_equal(app_write(r, ep, big + size, 1000), 1000);
	assert_int_equal(peer_drain(&p, size), size + 1000);
}

static void idle_connection_gives_its_last_block_back(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), used;

	(void)state;
	pattern_fill(big, 0, 100);
	app_write(r, ep, big, 100);
	expect(&p, ACK, p.irs + 1, 100);
	peer_ack(&p);
	used = atomic_load(&app_ep(r, ep)->tx_head);
	assert_int_equal(used, 100);
	rig_run(r, RECLAIM_MS + 1);
	assert_int_equal(atomic_load(&app_ep(r, ep)->tx_head), TX_BLOCK_SIZE);
	assert_int_equal(atomic_load(&app_ep(r, ep)->tx_tail), TX_BLOCK_SIZE);
	for (uint32_t i = 0; i < r->stack[0]->block_count; i++)
		assert_int_not_equal(BLOCK_KIND(r->stack[0]->block_owner[i]), BLOCK_ENDPOINT);
	/* and goes on as if nothing had happened */
	pattern_fill(big, 100, 40000);
	app_write(r, ep, big, 40000);
	assert_int_equal(peer_drain(&p, 100), 40100);
}

static void connection_with_empty_rings_holds_no_ring_memory(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.send_buffer = 1 << 20});
	const struct stack *s = r->stack[0];
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off = 0, rcv = 0;
	uint8_t in[3000];

	(void)state;
	pattern_fill(big, 0, sizeof(big));
	for (uint32_t round = 1; round <= 3; round++) {
		/* more than all the blocks that a map has places for */
		while (off < round * 1300000) {
			uint32_t n = app_write(r, ep, big + off, 100000);

			assert_int_not_equal(atomic_load(&app_ep(r, ep)->tx_map), BLOCK_NONE);
			assert_int_equal(peer_drain(&p, off), off + n);
			off += n;
		}
		for (int i = 0; i < 3; i++)
			peer_data(&p, 1000);
		assert_int_equal(s->ring_free_count, s->ring_count - 1);
		assert_int_equal(app_read(r, ep, in, 3000), 3000);
		pattern_check(in, rcv, 3000);
		rcv += 3000;
		rig_run(r, RECLAIM_MS + 5);
		assert_int_equal(s->ring_free_count, s->ring_count);
		assert_null(s->by_ep[ep - s->ep_first]->tx_blocks);
		assert_int_equal(atomic_load(&app_ep(r, ep)->tx_map), BLOCK_NONE);
		for (uint32_t i = 0; i < s->block_count; i++)
			assert_int_not_equal(BLOCK_KIND(s->block_owner[i]), BLOCK_ENDPOINT);
		peer_skip(&p);
	}
}

static void blocks_used_up_starve_writers_until_some_are_free(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.block_memory = 1 << 20, .send_buffer = 1 << 20});
	int lep = app_listen(r, 80, 16);
	struct peer p[3];
	uint32_t ep[3], sent[3], off = 0;

	(void)state;
	pattern_fill(big, 0, 1 << 20);
	for (uint16_t i = 0; i < 3; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		p[i].wnd = 10000;
		ep[i] = peer_open(&p[i], (uint32_t)lep);
	}
	for (int i = 0; i < 3; i++)
		sent[i] = app_write(r, ep[i], big, 600000);
	assert_in_range(sent[0] + sent[1] + sent[2], 500000, 1 << 20);
	assert_true(sent[2] < 600000);
	assert_int_equal(atomic_load(&app_ep(r, ep[2])->tx_want), 1);
	/* all the blocks are somewhere in the rings: when the first peer reads, the third connection may go
	 * on */
	off = peer_drain(&p[0], 0);
	assert_int_equal(off, sent[0]);
	rig_jump(r, 1500, 10);
	assert_int_equal(atomic_load(&app_ep(r, ep[2])->tx_want), 0);
	assert_true(app_write(r, ep[2], big + sent[2], 600000 - sent[2]) > 0);
}

static void blocks_that_are_short_come_back_with_the_acknowledgement(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.block_memory = 1 << 20, .send_buffer = 1 << 20});
	int lep = app_listen(r, 80, 16);
	struct peer p[2];
	uint32_t ep[2], n;

	(void)state;
	pattern_fill(big, 0, 1 << 20);
	for (uint16_t i = 0; i < 2; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		p[i].wnd = 10000;
		ep[i] = peer_open(&p[i], (uint32_t)lep);
	}
	/* one connection takes nearly all, and its peer does not read */
	n = app_write(r, ep[0], big, 1 << 20);
	assert_true(n > 400000);
	assert_true(r->stack[0]->block_free_count < r->stack[0]->block_count / 4);
	assert_int_equal(app_write(r, ep[1], big, 100), 100);
	expect(&p[1], ACK, p[1].irs + 1, 100);
	peer_ack(&p[1]);
	assert_null(r->stack[0]->by_ep[ep[1] - r->stack[0]->ep_first]->tx_blocks);
	assert_int_equal(atomic_load(&app_ep(r, ep[1])->tx_map), BLOCK_NONE);
}

static void urgent_data_is_plain_data(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	pattern_fill(big, 0, 100);
	peer_raw(&p, ACK | 0x20, p.snd, p.rcv, NULL, 0, big, 100);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 100);
	pattern_check(big, 0, 100);
	rig_run(r, 10);
}

static void watch_is_queued_once_for_many_segments(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), w, first;
	int poller = poller_claim(&r->arena, 0);

	(void)state;
	assert_true(poller >= 0);
	w = watch_claim(&r->arena, ep, (uint32_t)poller, EPOLLIN);
	assert_int_not_equal(w, WATCH_NONE);
	peer_data(&p, 10);
	peer_data(&p, 10);
	first = poller_drain(&r->arena, (uint32_t)poller);
	assert_int_equal(first, w + 1);
	assert_int_equal(atomic_load(&watch_at(&r->arena, w)->next), 0);
	assert_int_equal(watch_unqueue(&r->arena, w), EPOLLIN);
	assert_false(poller_has_ready(&r->arena, (uint32_t)poller));
	peer_data(&p, 10);
	assert_true(poller_has_ready(&r->arena, (uint32_t)poller));
	poller_free(&r->arena, (uint32_t)poller);
	peer_skip(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(data_both_ways_arrives_unchanged),
	        WIRE_TEST(connection_opened_here_carries_data_both_ways),
	        WIRE_TEST(ack_is_delayed_for_one_segment_and_sent_at_once_for_the_second),
	        WIRE_TEST(ack_rides_on_data),
	        WIRE_TEST(reordered_segments_are_delivered_in_order),
	        WIRE_TEST(duplicate_is_acknowledged_and_delivered_once),
	        WIRE_TEST(overlapping_segments_are_delivered_once),
	        WIRE_TEST(segment_out_of_window_is_acknowledged_and_dropped),
	        WIRE_TEST(ack_for_what_was_never_sent_is_answered_and_changes_nothing),
	        WIRE_TEST(tiny_segments_fill_the_ring_are_gathered_and_keep_their_order),
	        WIRE_TEST(end_of_stream_comes_after_what_waits_behind_a_full_ring),
	        WIRE_TEST(reader_without_doorbell_gets_buffers_freed_by_the_timer),
	        WIRE_TEST(nagle_holds_small_writes_until_the_first_is_acknowledged),
	        WIRE_TEST(nodelay_sends_small_writes_at_once),
	        WIRE_TEST(cork_holds_a_part_segment_until_it_is_pulled),
	        WIRE_TEST(send_ring_wraps_and_crosses_blocks),
	        WIRE_TEST(largest_send_buffer_full_behind_a_partly_acknowledged_block_stays_whole),
	        WIRE_TEST(stream_of_three_megabytes_is_received),
	        WIRE_TEST(full_send_ring_refuses_and_tells_when_a_third_is_free),
	        WIRE_TEST(idle_connection_gives_its_last_block_back),
	        WIRE_TEST(connection_with_empty_rings_holds_no_ring_memory),
	        WIRE_TEST(blocks_used_up_starve_writers_until_some_are_free),
	        WIRE_TEST(blocks_that_are_short_come_back_with_the_acknowledgement),
	        WIRE_TEST(urgent_data_is_plain_data),
	        WIRE_TEST(watch_is_queued_once_for_many_segments),
	};

	return cmocka_run_group_tests_name("data", tests, NULL, NULL);
}
