/* test_recover.c - loss recovery with a peer that reports what it got (RFC 2018, 6675, 8985). */
#include "peer.h"

#include <stdlib.h>
#include <string.h>

enum { SEG = 1460, BIG = 400000 };

static uint8_t big[BIG], seen[BIG];

/* An accepted connection with a peer that reports. */
static uint32_t pair(struct peer *p, struct rig *r)
{
	int listener = app_listen(r, 80, 8);

	assert_true(listener >= 0);
	peer_init(p, r, 40000, 80);
	p->sack_ok = true;
	return peer_open(p, (uint32_t)listener);
}

static uint32_t seq_of(const struct peer *p, uint32_t segment)
{
	return p->irs + 1 + segment * SEG;
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

/* Acknowledges bytes up to rcv and reports count ranges, as pairs of sequence numbers. */
static void report_seq(struct peer *p, uint32_t count, const uint32_t *range)
{
	uint8_t opt[36] = {1, 1, 5, (uint8_t)(2 + count * 8)};

	assert_in_range(count, 0, 4);
	for (uint32_t i = 0; i < count * 2; i++)
		put32(opt + 4 + i * 4, range[i]);
	peer_raw(p, ACK, p->snd, p->rcv, opt, count ? 4 + count * 8 : 0, NULL, 0);
}

/* The first `acked` segments, and segments [from, to) beyond. */
static void report(struct peer *p, uint32_t acked, uint32_t from, uint32_t to)
{
	uint32_t range[2] = {seq_of(p, from), seq_of(p, to)};

	p->rcv = seq_of(p, acked);
	report_seq(p, 1, range);
}

static void acked(struct peer *p, uint32_t segments)
{
	p->rcv = seq_of(p, segments);
	peer_ack(p);
}

static void segments_sent(struct peer *p, struct rig *r, uint32_t ep, uint32_t count)
{
	assert_in_range(count * SEG, SEG, BIG);
	pattern_fill(big, 0, count * SEG);
	assert_int_equal(app_write(r, ep, big, count * SEG), count * SEG);
	peer_skip(p);
	p->rcv = seq_of(p, 0);
}

static void hole_is_repeated_when_enough_behind_it_is_reported(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 10);
	report(&p, 0, 1, 2);
	report(&p, 0, 1, 3);
	expect_none(&p);
	report(&p, 0, 1, 4);
	expect(&p, ACK, seq_of(&p, 0), SEG);
	report(&p, 0, 1, 9);
	expect_none(&p);
	acked(&p, 10);
	rig_run(r, 300);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 1);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 0);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void all_holes_of_a_window_are_repeated_in_one_round_trip(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 10);
	report_seq(&p, 2, (uint32_t[]){seq_of(&p, 5), seq_of(&p, 8), seq_of(&p, 1), seq_of(&p, 4)});
	expect(&p, ACK, seq_of(&p, 0), SEG);
	expect(&p, ACK, seq_of(&p, 4), SEG);
	expect_none(&p);
	acked(&p, 10);
	rig_run(r, 300);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 0);
}

static void one_report_is_enough_after_a_moment(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 3);
	report(&p, 0, 1, 3);
	expect_none(&p);
	rig_run(r, 4);
	expect(&p, ACK, seq_of(&p, 0), SEG);
	acked(&p, 3);
	rig_run(r, 300);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 0);
}

static void segment_that_comes_late_is_not_repeated(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 3);
	report(&p, 0, 1, 3);
	rig_run(r, 1);
	acked(&p, 3);
	rig_run(r, 300);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 0);
}

static void repetition_lost_too_is_repeated_again_without_a_time_out(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);
	struct seg *s;
	uint32_t count = 0;

	(void)state;
	segments_sent(&p, r, ep, 30); /* ten are sent, the rest waits for the window */
	report(&p, 0, 1, 8);
	expect(&p, ACK, seq_of(&p, 0), SEG);
	peer_skip(&p);
	report(&p, 0, 1, 10); /* makes room for new data behind the hole */
	while ((s = peer_next(&p))) {
		assert_true(s->seq - seq_of(&p, 10) < 20 * SEG);
		count++;
	}
	assert_in_range(count, 1, 10);
	report(&p, 0, 1, 10 + count);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->seq, seq_of(&p, 0));
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 0);
	peer_skip(&p);
	for (uint32_t at = 10 + count; at < 30;) {
		acked(&p, at);
		while ((s = peer_next(&p)))
			at = (s->seq - p.irs - 1 + s->size) / SEG;
	}
	acked(&p, 30);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void time_out_repeats_only_what_was_not_reported(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);
	struct seg *s;
	uint32_t times[10] = {0};

	(void)state;
	segments_sent(&p, r, ep, 10);
	report_seq(&p, 2, (uint32_t[]){seq_of(&p, 6), seq_of(&p, 9), seq_of(&p, 1), seq_of(&p, 4)});
	peer_skip(&p); /* what it repeats now is lost as well, and so is all after it */
	p.rcv = seq_of(&p, 0);
	rig_run(r, 25);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 1);
	expect(&p, ACK, seq_of(&p, 0), SEG);
	expect_none(&p);
	p.rcv = seq_of(&p, 4);
	report_seq(&p, 1, (uint32_t[]){seq_of(&p, 6), seq_of(&p, 9)});
	for (int i = 0; i < 10; i++) {
		while ((s = peer_next(&p)))
			times[(s->seq - seq_of(&p, 0)) / SEG]++;
		rig_run(r, 1);
	}
	assert_true(times[4] > 0 && times[5] > 0);
	for (int i = 0; i < 9; i++)
		if (i != 4 && i != 5)
			assert_int_equal(times[i], 0);
	acked(&p, 10);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void lost_tail_is_found_by_a_probe(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 5);
	rig_run(r, 8);
	expect(&p, ACK, seq_of(&p, 4), SEG);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_tcp_probes), 1);
	report(&p, 0, 4, 5);
	expect(&p, ACK, seq_of(&p, 0), SEG);
	report(&p, 1, 4, 5);
	acked(&p, 5);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 0);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void lone_segment_is_not_probed(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 1);
	rig_run(r, 15);
	expect_none(&p);
	acked(&p, 1);
	assert_int_equal(rig_stat(r, STAT_tcp_probes), 0);
}

static void peer_that_forgets_what_it_reported_gets_it_again(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);
	struct seg *s;
	bool is_there[10] = {false};
	uint32_t have = 1;

	(void)state;
	segments_sent(&p, r, ep, 10);
	report(&p, 0, 1, 10);
	peer_skip(&p);
	acked(&p, 1); /* the hole is filled, yet the acknowledgement stops where the reported data began */
	for (int i = 0; i < 400 && have < 10; i++) {
		rig_run(r, 1);
		while ((s = peer_next(&p)))
			is_there[(s->seq - seq_of(&p, 0)) / SEG] = true;
		for (; have < 10 && is_there[have]; have++)
			acked(&p, have + 1);
	}
	assert_int_equal(have, 10);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void nonsense_reports_change_nothing(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = pair(&p, r);

	(void)state;
	segments_sent(&p, r, ep, 1);
	report_seq(&p, 3,
	        (uint32_t[]){seq_of(&p, 5), seq_of(&p, 9), seq_of(&p, 1), seq_of(&p, 0), p.irs - 5000,
	                p.irs - 4000});
	report_seq(&p, 1, (uint32_t[]){p.irs + 0x7fffffff, p.irs + 0x80001000});
	rig_run(r, 10);
	expect_none(&p);
	acked(&p, 1);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 0);
}

/* Every time-out is answered by "had it already", with all acknowledged: rounds of so many segments. The
 * time-out that comes of it. */
static uint32_t time_out_after_vain_ones(struct rig *r, uint32_t rounds, uint32_t segments)
{
	struct peer p;
	uint32_t ep = pair(&p, r), at = 0;

	for (uint32_t i = 0; i < rounds; i++, at += segments) {
		uint32_t before = (uint32_t)rig_stat(r, STAT_tcp_timeouts);

		pattern_fill(big, at * SEG, segments * SEG);
		assert_int_equal(app_write(r, ep, big, segments * SEG), segments * SEG);
		while (rig_stat(r, STAT_tcp_timeouts) == before) {
			assert_true(rig_ms(r) < 1100000);
			rig_run(r, 1);
		}
		peer_skip(&p);
		p.rcv = seq_of(&p, at + segments);
		report_seq(&p, 1, (uint32_t[]){seq_of(&p, at), seq_of(&p, at + 1)});
		rig_run(r, 1);
	}
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	return atomic_load(&app_ep(r, ep)->info_rto_ms);
}

/* A window's acknowledgements got lost: that happens to fast peers, too. */
static void lost_acknowledgements_do_not_lengthen_the_time_out(void **state)
{
	(void)state;
	assert_in_range(time_out_after_vain_ones(rig_up(NULL), 8, 5), 20, 24);
}

/* A lone segment's may be delayed, each time: the time-out learns to wait for it. */
static void late_acknowledgements_of_lone_segments_lengthen_the_time_out(void **state)
{
	(void)state;
	assert_in_range(time_out_after_vain_ones(rig_up(NULL), 3, 1), 35, 60);
}

/* A receiver that loses segments by chance, keeps what comes and reports it; every byte must come, at its
 * place. */
static void stream_survives_loss(struct rig *r, unsigned seed, uint32_t loss, uint32_t write_size)
{
	struct peer p;
	uint32_t ep = pair(&p, r), written = 0, got = 0;
	struct seg *s;

	pattern_fill(big, 0, BIG);
	memset(seen, 0, sizeof(seen));
	for (int turn = 0; got < BIG && turn < 60000; turn++) {
		uint32_t range[6], count = 0;
		bool is_new = false;

		if (written < BIG && turn % 3 == 0) {
			uint32_t n = write_size < BIG - written ? write_size : BIG - written;

			written += app_write(r, ep, big + written, n);
		}
		while ((s = peer_next(&p))) {
			uint32_t off = s->seq - p.irs - 1;

			if (!s->size)
				continue;
			assert_true(off + s->size <= BIG);
			pattern_check(s->data, off, s->size);
			is_new = true;
			if ((uint32_t)rand_r(&seed) % 100 >= loss)
				memset(seen + off, 1, s->size);
		}
		while (got < BIG && seen[got])
			got++;
		for (uint32_t i = got; is_new && i < BIG && i < got + 200000 && count < 3; i++) {
			if (!seen[i])
				continue;
			range[count * 2] = p.irs + 1 + i;
			while (i < BIG && seen[i])
				i++;
			range[count * 2 + 1] = p.irs + 1 + i;
			count++;
		}
		if (is_new && (uint32_t)rand_r(&seed) % 100 >= loss) {
			p.rcv = p.irs + 1 + got;
			report_seq(&p, count, range);
		} else if (is_new) {
			p.rcv = p.irs + 1 + got;
		}
		rig_run(r, 1);
	}
	assert_int_equal(got, BIG);
	p.rcv = p.irs + 1 + got;
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void every_byte_arrives_at_its_place_under_loss(void **state)
{
	static const struct {
		uint32_t loss, write_size;
	} how[] = {{2, 16384}, {10, 5000}, {25, 1000}, {10, 100000}};

	(void)state;
	for (unsigned i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
		struct rig *r = rig_up(NULL);

		stream_survives_loss(r, i + 1, how[i].loss, how[i].write_size);
		rig_end(state);
	}
	rig_up(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(hole_is_repeated_when_enough_behind_it_is_reported),
	        WIRE_TEST(all_holes_of_a_window_are_repeated_in_one_round_trip),
	        WIRE_TEST(one_report_is_enough_after_a_moment),
	        WIRE_TEST(segment_that_comes_late_is_not_repeated),
	        WIRE_TEST(repetition_lost_too_is_repeated_again_without_a_time_out),
	        WIRE_TEST(time_out_repeats_only_what_was_not_reported),
	        WIRE_TEST(lost_tail_is_found_by_a_probe),
	        WIRE_TEST(lone_segment_is_not_probed),
	        WIRE_TEST(peer_that_forgets_what_it_reported_gets_it_again),
	        WIRE_TEST(nonsense_reports_change_nothing),
	        WIRE_TEST(lost_acknowledgements_do_not_lengthen_the_time_out),
	        WIRE_TEST(late_acknowledgements_of_lone_segments_lengthen_the_time_out),
	        WIRE_TEST(every_byte_arrives_at_its_place_under_loss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
