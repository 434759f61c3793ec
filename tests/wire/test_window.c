/* test_window.c - flow control: closed windows on either side, probes, updates, and segments that reach
 * beyond.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[1 << 20];

static void closed_window_of_peer_is_probed_with_backoff_until_it_opens(void **state)
{
	static const uint32_t at[] = {200, 600, 1400, 3000, 6200};
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 0);
	uint64_t start = rig_ms(r);

	(void)state;
	pattern_fill(big, 0, 5000);
	assert_int_equal(app_write(r, ep, big, 5000), 5000);
	expect_none(&p);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		struct seg *s;

		rig_run(r, (uint32_t)(start + at[i] - rig_ms(r)));
		s = expect(&p, ACK, p.irs + 1, 1);
		assert_int_equal(s->ms - start, at[i]);
		pattern_check(s->data, 0, 1);
		p.rcv = p.irs + 1; /* not taken */
		peer_ack(&p);
		expect_none(&p);
	}
	p.wnd = 65535;
	peer_ack(&p);
	assert_int_equal(peer_drain(&p, 0), 5000);
	rig_run(r, 1000);
	expect_none(&p);
}

static void probe_byte_that_is_taken_is_not_sent_twice(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 0), got;
	struct seg *s;

	(void)state;
	pattern_fill(big, 0, 3000);
	app_write(r, ep, big, 3000);
	rig_run(r, 200);
	expect(&p, ACK, p.irs + 1, 1);
	peer_ack(&p); /* takes it, stays closed */
	rig_run(r, 400);
	s = peer_next(&p);
	assert_non_null(s);
	p.wnd = 65535;
	p.rcv = p.irs + 2;
	peer_ack(&p);
	/* the first segment may come again as a whole */
	got = 1;
	while ((s = peer_next(&p))) {
		uint32_t off = s->seq - p.irs - 1;

		assert_true(off <= got);
		pattern_check(s->data, off, s->size);
		if (off + s->size > got)
			got = off + s->size;
		p.rcv = p.irs + 1 + got;
		peer_ack(&p);
	}
	assert_int_equal(got, 3000);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void closed_window_is_waited_for_as_long_as_probes_are_answered(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 0), probes = 0;
	uint64_t start = rig_ms(r), last = start, longest = 0;

	(void)state;
	app_write(r, ep, "x", 1);
	while (rig_ms(r) - start < 1800000) {
		struct seg *s;

		rig_jump(r, 100, 100);
		while ((s = peer_next(&p))) {
			probes++;
			longest = s->ms - last > longest ? s->ms - last : longest;
			last = s->ms;
			p.rcv = p.irs + 1;
			peer_ack(&p);
		}
	}
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	assert_in_range(probes, 25, 100);
	assert_true(longest <= 61000);
	p.wnd = 100;
	peer_ack(&p);
	expect(&p, ACK, p.irs + 1, 1);
}

static void closed_window_with_unanswered_probes_is_given_up(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 0);

	(void)state;
	app_write(r, ep, "x", 1);
	rig_jump(r, 1200000, 100);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
}

static void window_smaller_than_a_segment_gets_a_part_of_it(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	pattern_fill(big, 0, 3000);
	app_write(r, ep, big, 2000);
	peer_skip(&p);
	p.wnd = 100;
	peer_ack(&p);
	app_write(r, ep, big + 2000, 1000);
	expect_none(&p);
	rig_run(r, 200);
	s = expect(&p, ACK, p.irs + 2001, 100);
	pattern_check(s->data, 2000, 100);
	p.wnd = 65535;
	peer_ack(&p);
	assert_int_equal(peer_drain(&p, 2100), 3000);
}

static void window_small_from_the_start_is_filled(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 100), off = 0;

	(void)state;
	pattern_fill(big, 0, 1000);
	app_write(r, ep, big, 1000);
	for (int i = 0; i < 50 && off < 1000; i++) {
		off = peer_drain(&p, off);
		rig_run(r, 50);
	}
	assert_int_equal(off, 1000);
}

static void window_that_shrinks_below_what_is_sent_is_survived(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off;

	(void)state;
	pattern_fill(big, 0, 50000);
	app_write(r, ep, big, 50000);
	peer_skip(&p);
	p.rcv = p.irs + 1461;
	p.wnd = 10;
	peer_ack(&p);
	rig_run(r, 3000);
	peer_skip(&p);
	p.rcv = p.irs + 1461;
	p.wnd = 65535;
	peer_ack(&p);
	off = peer_drain(&p, 1460);
	for (int i = 0; i < 200 && off < 50000; i++) {
		rig_run(r, 50);
		off = peer_drain(&p, off);
	}
	assert_int_equal(off, 50000);
}

static void our_window_closes_when_nobody_reads_and_opens_again(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 20000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r), wnd = 20000, off = 0;
	struct seg *s;

	(void)state;
	while (off + 1000 <= 20000) {
		peer_data(&p, 1000);
		off += 1000;
		while ((s = peer_next(&p))) {
			assert_true(s->ack - p.iss - 1 + s->wnd <= 20000);
			wnd = s->wnd;
		}
	}
	rig_run(r, 10);
	while ((s = peer_next(&p)))
		wnd = s->wnd;
	assert_int_equal(wnd, 0);
	/* a probe is answered and not taken */
	peer_raw(&p, ACK, p.snd, p.rcv, NULL, 0, "?", 1);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->wnd, 0);
	assert_int_equal(s->ack, p.snd);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 20000);
	assert_int_equal(app_read(r, ep, big, 3000), 3000);
	expect_none(&p); /* a little more room is not worth a segment */
	assert_int_equal(app_read(r, ep, big + 3000, 10000), 10000);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_in_range(s->wnd, 5840, 13000);
	assert_int_equal(app_read(r, ep, big + 13000, 10000), 7000);
	pattern_check(big, 0, 20000);
	peer_skip(&p);
}

static void window_opens_by_the_timer_when_the_reader_rings_no_bell(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 20000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	for (int i = 0; i < 20; i++)
		peer_data(&p, 1000);
	rig_run(r, 20);
	peer_skip(&p);
	assert_int_equal(app_get(r, ep, big, 20000), 20000);
	expect_none(&p);
	rig_run(r, 100);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->wnd, 20000);
}

static void segment_beyond_the_window_is_trimmed(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 20000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	for (int i = 0; i < 14; i++)
		peer_data(&p, 1400);
	rig_run(r, 10);
	peer_skip(&p);
	peer_data_at(&p, 19600, 1400); /* 400 fit */
	rig_run(r, 10);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 1 + 20000);
	assert_int_equal(s->wnd, 0);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 20000);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_trimmed), 1);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 20000);
	pattern_check(big, 0, 20000);
	peer_skip(&p);
}

static void fin_beyond_the_window_is_not_taken(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 20000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (int i = 0; i < 14; i++)
		peer_data(&p, 1400);
	pattern_fill(big, 19600, 1400);
	peer_raw(&p, FIN | ACK, p.snd, p.rcv, NULL, 0, big, 1400);
	assert_false(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 20000);
	pattern_check(big, 0, 20000);
	p.snd += 400;
	peer_data(&p, 1000);
	peer_send(&p, FIN | ACK, NULL, 0);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 1000);
	peer_skip(&p);
}

/* An early segment that starts inside the window and ends beyond it, and then the gap is filled: lwIP alone
 * loses count of its window here. */
static void early_segment_over_the_edge_then_gap_filled_keeps_the_window_right(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 20000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s, *last = NULL;

	(void)state;
	peer_data_at(&p, 19600, 1400);
	for (uint32_t off = 0; off < 19600; off += 1400)
		peer_data_at(&p, off, 1400);
	rig_run(r, 10);
	while ((s = peer_next(&p))) {
		assert_true(s->ack - p.iss - 1 + s->wnd <= 20000);
		last = s;
	}
	assert_non_null(last);
	assert_int_equal(last->ack, p.iss + 1 + 20000);
	assert_int_equal(last->wnd, 0);
	assert_int_equal(rig_stat(r, STAT_lwip_asserts), 0);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 20000);
	pattern_check(big, 0, 20000);
	peer_skip(&p);
}

static void early_fin_over_the_edge_then_gap_filled_does_not_end_the_stream(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 20000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	pattern_fill(big, 19600, 1400);
	peer_raw(&p, FIN | ACK, p.snd + 19600, p.rcv, NULL, 0, big, 1400);
	for (uint32_t off = 0; off < 19600; off += 1400)
		peer_data_at(&p, off, 1400);
	assert_false(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 20000);
	pattern_check(big, 0, 20000);
	rig_run(r, 10);
	peer_skip(&p);
}

static void right_edge_never_moves_back(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 30000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r), edge = 0, off = 0;

	(void)state;
	for (int round = 0; round < 300; round++) {
		uint32_t size = (uint32_t)(round * 37 % 1400 + 1);
		struct seg *s;

		if (p.snd - p.iss - 1 - off + size <= 29000)
			peer_data(&p, size);
		if (round % 7 == 0)
			off += app_read(r, ep, big, (uint32_t)(round * 53 % 9000 + 1));
		while ((s = peer_next(&p))) {
			uint32_t at = s->ack - p.iss - 1 + s->wnd;

			assert_true(at >= edge || s->wnd == 0);
			assert_true(at <= off + 30000);
			edge = at;
		}
	}
}

/* All that waited was one byte, and the probe has carried it: nothing waits any more. */
static void probe_that_takes_all_ends_probing(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 0);

	(void)state;
	app_setopt(r, ep, EPO_USER_TIMEOUT, 3000);
	assert_int_equal(app_write(r, ep, "x", 1), 1);
	expect_none(&p);
	rig_run(r, 300);
	expect(&p, ACK, p.irs + 1, 1);
	p.wnd = 65535;
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	rig_jump(r, 60000, 10);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	expect_none(&p);
	assert_int_equal(app_write(r, ep, "yz", 2), 2);
	expect(&p, ACK, p.irs + 2, 2);
	peer_ack(&p);
}

enum { PATH_MS = 20, OUR_SCALE = 5 };

/* A connection over a path of PATH_MS, with window scaling. */
static uint32_t long_path(struct peer *p, struct rig *r)
{
	int lep = app_listen(r, 80, 16);

	assert_true(lep >= 0);
	peer_init(p, r, 40000, 80);
	p->wscale = 0;
	peer_send(p, SYN, NULL, 0);
	assert_non_null(peer_next(p));
	rig_run(r, PATH_MS);
	peer_ack(p);
	return app_accept(r, (uint32_t)lep);
}

/* The window the stack has told of last, beyond what has been sent; what it sent is thrown away. */
static uint32_t window_told(struct peer *p, uint32_t usual)
{
	uint32_t edge = p->snd + usual;
	struct seg *s;

	while ((s = peer_next(p)))
		edge = s->ack + ((uint32_t)s->wnd << OUR_SCALE);
	return edge - p->snd;
}

/* For so many round trips the peer sends size bytes, or what the window takes if that is less, and the
 * program reads all of it if it reads. The largest window. */
static uint32_t rounds_run(struct rig *r, struct peer *p, uint32_t ep, uint32_t size, int rounds)
{
	uint32_t window = r->cfg.receive_buffer, largest = 0;

	for (int i = 0; i < rounds; i++) {
		uint32_t left = window < size ? window : size;

		for (uint32_t part; left; left -= part) {
			part = left < 1460 ? left : 1460;
			peer_data(p, part);
			if (part == 1460 && left % 64240 == 0) /* the program is not slower than the path */
				app_read(r, ep, big, sizeof(big));
		}
		app_read(r, ep, big, sizeof(big));
		window = window_told(p, window);
		rig_run(r, PATH_MS);
		window = window_told(p, window);
		largest = window > largest ? window : largest;
	}
	return largest;
}

static void window_grows_to_what_a_long_path_needs(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 65536, .receive_buffer_max = 1 << 20});
	struct peer p;
	uint32_t ep = long_path(&p, r), window;

	(void)state;
	window = rounds_run(r, &p, ep, 1 << 20, 12);
	assert_in_range(window, (1 << 20) - (1 << OUR_SCALE) * 200, 1 << 20);
	assert_in_range(rig_stat(r, STAT_tcp_rx_grown), 3, 8);
}

static void window_stays_when_the_peer_sends_less_than_half_of_it(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 65536, .receive_buffer_max = 1 << 20});
	struct peer p;
	uint32_t ep = long_path(&p, r);

	(void)state;
	assert_in_range(rounds_run(r, &p, ep, 29200, 20), 60000, 65536);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_grown), 0);
}

static void window_stays_where_the_program_or_the_configuration_has_chosen_it(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 65536, .receive_buffer_max = 1 << 20});
	struct peer p;
	uint32_t ep = long_path(&p, r);

	(void)state;
	app_setopt(r, ep, EPO_RCVBUF, 2 * 65536);
	app_setflag(r, ep, EPF_RCVBUF_SET, true);
	assert_in_range(rounds_run(r, &p, ep, 1 << 20, 12), 60000, 65536);
	app_setflag(r, ep, EPF_RCVBUF_SET, false);
	app_setopt(r, ep, EPO_WINDOW_CLAMP, 65536);
	assert_in_range(rounds_run(r, &p, ep, 1 << 20, 12), 60000, 65536);
	app_setopt(r, ep, EPO_WINDOW_CLAMP, 0);
	r->stack[0]->cfg.receive_buffer_max = 65536;
	assert_in_range(rounds_run(r, &p, ep, 1 << 20, 12), 60000, 65536);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_grown), 0);
	r->stack[0]->cfg.receive_buffer_max = 131072;
	assert_in_range(rounds_run(r, &p, ep, 1 << 20, 12), 120000, 131072);
}

static void grown_window_survives_other_options(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.receive_buffer = 65536, .receive_buffer_max = 1 << 20});
	struct peer p;
	uint32_t ep = long_path(&p, r);

	(void)state;
	rounds_run(r, &p, ep, 1 << 20, 12);
	app_setopt(r, ep, EPO_KEEPIDLE, 10);
	assert_in_range(rounds_run(r, &p, ep, 1 << 20, 1), 1 << 19, 1 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(closed_window_of_peer_is_probed_with_backoff_until_it_opens),
	        WIRE_TEST(probe_byte_that_is_taken_is_not_sent_twice),
	        WIRE_TEST(closed_window_is_waited_for_as_long_as_probes_are_answered),
	        WIRE_TEST(closed_window_with_unanswered_probes_is_given_up),
	        WIRE_TEST(window_smaller_than_a_segment_gets_a_part_of_it),
	        WIRE_TEST(window_small_from_the_start_is_filled),
	        WIRE_TEST(window_that_shrinks_below_what_is_sent_is_survived),
	        WIRE_TEST(our_window_closes_when_nobody_reads_and_opens_again),
	        WIRE_TEST(window_opens_by_the_timer_when_the_reader_rings_no_bell),
	        WIRE_TEST(segment_beyond_the_window_is_trimmed),
	        WIRE_TEST(fin_beyond_the_window_is_not_taken),
	        WIRE_TEST(early_segment_over_the_edge_then_gap_filled_keeps_the_window_right),
	        WIRE_TEST(early_fin_over_the_edge_then_gap_filled_does_not_end_the_stream),
	        WIRE_TEST(right_edge_never_moves_back),
	        WIRE_TEST(probe_that_takes_all_ends_probing),
	        WIRE_TEST(window_grows_to_what_a_long_path_needs),
	        WIRE_TEST(window_stays_when_the_peer_sends_less_than_half_of_it),
	        WIRE_TEST(window_stays_where_the_program_or_the_configuration_has_chosen_it),
	        WIRE_TEST(grown_window_survives_other_options),
	};

	return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
