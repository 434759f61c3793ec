/* test_loss.c - what is lost is sent again, at the right time; the clock is the test's.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[1 << 20];

/* Time of the next segment to the peer since start, which must be that one. */
static uint32_t sent_after(struct peer *p, uint64_t start, uint8_t flags, uint32_t seq, uint32_t size)
{
	return (uint32_t)(expect(p, flags, seq, size)->ms - start);
}

static void data_lost_is_repeated_from_the_floor_on_with_backoff(void **state)
{
	static const uint32_t at[] = {0, 20, 60, 140, 300, 620, 1260};
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t start = rig_ms(r);

	(void)state;
	pattern_fill(big, 0, 100);
	app_write(r, ep, big, 100);
	rig_run(r, 1300);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 100), at[i]);
	expect_none(&p);
	p.rcv = p.irs + 101;
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 6);
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 6);
	rig_run(r, 40000);
	expect_none(&p);
}

static void floor_follows_the_configuration(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.rto_min_ms = 200});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t start = rig_ms(r);

	(void)state;
	app_write(r, ep, "x", 1);
	rig_run(r, 700);
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 0);
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 200);
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 600);
	expect_none(&p);
}

static void time_out_follows_the_measured_round_trip(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	uint64_t start;
	uint32_t ep;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
	rig_run(r, 100);
	peer_ack(&p);
	ep = app_accept(r, (uint32_t)lep);
	start = rig_ms(r);
	app_write(r, ep, "x", 1);
	rig_run(r, 1000);
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 0);
	/* SRTT + 4 * RTTVAR = 100 + 4 * 50 (RFC 6298) */
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 300);
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 900);
}

static void handshake_of_a_repeated_syn_is_no_round_trip_sample(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	uint64_t start;
	uint32_t ep;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	rig_run(r, 1001); /* one repetition */
	peer_skip(&p);
	peer_ack(&p);
	ep = app_accept(r, (uint32_t)lep);
	start = rig_ms(r);
	app_write(r, ep, "x", 1);
	rig_run(r, 5000);
	assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), 0);
	assert_in_range(sent_after(&p, start, ACK, p.irs + 1, 1), 900, 3100);
}

static void ack_lost_repetition_settles_it(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "hello", 5);
	expect(&p, ACK, p.irs + 1, 5);
	rig_run(r, 20);
	expect(&p, ACK, p.irs + 1, 5);
	peer_ack(&p);
	rig_run(r, 1000);
	expect_none(&p);
	/* the other way: the peer repeats, the answer comes at once, the data once */
	peer_data(&p, 10);
	rig_run(r, 5);
	peer_skip(&p);
	peer_data_at(&p, 0, 10);
	expect(&p, ACK, p.irs + 6, 0);
	assert_int_equal(app_read(r, ep, big, 100), 10);
}

static void partial_ack_restarts_the_timer_for_the_rest(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t start;

	(void)state;
	pattern_fill(big, 0, 2920);
	app_write(r, ep, big, 2920);
	expect(&p, ACK, p.irs + 1, 1460);
	expect(&p, ACK, p.irs + 1461, 1460);
	rig_run(r, 15);
	p.rcv = p.irs + 1461;
	peer_ack(&p);
	start = rig_ms(r);
	rig_run(r, 100);
	/* 15 ms is now the measured time: SRTT about 2, RTTVAR about 5 */
	assert_in_range(sent_after(&p, start, ACK, p.irs + 1461, 1460), 20, 60);
	peer_skip(&p);
}

static void three_duplicate_acks_repeat_the_segment_at_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	pattern_fill(big, 0, 14600);
	app_write(r, ep, big, 14600);
	for (uint32_t i = 0; i < 10; i++)
		expect(&p, ACK, p.irs + 1 + i * 1460, 1460);
	p.rcv = p.irs + 1;
	peer_ack(&p);
	peer_ack(&p);
	expect_none(&p);
	peer_ack(&p);
	expect(&p, ACK, p.irs + 1, 1460);
	p.rcv = p.irs + 1;
	for (int i = 0; i < 6; i++)
		peer_ack(&p);
	expect_none(&p);
	p.rcv = p.irs + 14601;
	peer_ack(&p);
	rig_run(r, 500);
	expect_none(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	assert_int_equal(rig_stat(r, STAT_tcp_timeouts), 0);
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 1);
	assert_int_equal(rig_stat(r, STAT_tcp_dup_acks), 9);
}

static void two_losses_in_one_window_are_both_repeated(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), got = 0;
	struct seg *s;

	(void)state;
	pattern_fill(big, 0, 14600);
	app_write(r, ep, big, 14600);
	peer_skip(&p);
	/* segments 0 and 4 are lost */
	p.rcv = p.irs + 1;
	for (int i = 0; i < 8; i++)
		peer_ack(&p);
	expect(&p, ACK, p.irs + 1, 1460);
	p.rcv = p.irs + 1 + 4 * 1460;
	peer_ack(&p);
	rig_run(r, 200);
	while ((s = peer_next(&p)))
		if (s->seq == p.irs + 1 + 4 * 1460)
			got++;
	assert_true(got > 0);
	p.rcv = p.irs + 14601;
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	peer_skip(&p);
	rig_run(r, 1000);
	expect_none(&p);
}

static void whole_window_lost_is_repeated_and_arrives(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off;

	(void)state;
	pattern_fill(big, 0, 100000);
	assert_int_equal(app_write(r, ep, big, 100000), 100000);
	peer_skip(&p);
	p.rcv = p.irs + 1;
	rig_run(r, 20);
	off = peer_drain(&p, 0);
	for (int i = 0; i < 100 && off < 100000; i++) {
		rig_run(r, 20);
		off = peer_drain(&p, off);
	}
	assert_int_equal(off, 100000);
}

static void fin_lost_is_repeated_with_backoff(void **state)
{
	static const uint32_t at[] = {0, 20, 60, 140, 300};
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t start = rig_ms(r);

	(void)state;
	app_close(r, ep);
	rig_run(r, 400);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		assert_int_equal(sent_after(&p, start, FIN | ACK, p.irs + 1, 0), at[i]);
	expect_none(&p);
	p.rcv = p.irs + 2;
	peer_ack(&p);
	rig_run(r, 2000);
	expect_none(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	expect(&p, ACK, p.irs + 2, 0);
}

static void last_fin_lost_is_repeated(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_send(&p, FIN | ACK, NULL, 0);
	expect(&p, ACK, p.irs + 1, 0);
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	rig_run(r, 20);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	rig_run(r, 40);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	assert_int_equal(rig_conns(r), 0);
}

static void last_ack_lost_is_repeated_in_time_wait(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	expect(&p, ACK, p.irs + 2, 0);
	rig_run(r, 500);
	p.snd--;
	peer_send(&p, FIN | ACK, NULL, 0);
	s = expect(&p, ACK, p.irs + 2, 0);
	assert_int_equal(s->ack, p.snd);
}

static void peer_that_never_answers_data_is_given_up_after_fifteen_minutes(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "x", 1);
	rig_jump(r, 900000, 10);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	rig_jump(r, 100000, 10);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
	assert_int_equal(ep_level(&r->arena, app_ep(r, ep)) & (EPOLLERR | EPOLLHUP | EPOLLIN | EPOLLOUT),
	        EPOLLERR | EPOLLHUP | EPOLLIN | EPOLLOUT);
	assert_int_equal(rig_conns(r), 0);
}

static void user_timeout_gives_up_earlier(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_setopt(r, ep, EPO_USER_TIMEOUT, 3000);
	app_write(r, ep, "x", 1);
	rig_run(r, 2900);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	rig_run(r, 3200);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
}

static void millisecond_clock_wraps_unnoticed(void **state)
{
	static const uint32_t at[] = {0, 20, 60, 140, 300, 620, 1260, 2540};
	struct rig *r = rig_up(&(struct rig_spec){.start_ms = 0xffffffffull - 500});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t start = rig_ms(r);

	(void)state;
	app_write(r, ep, "x", 1);
	rig_run(r, 2600);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		assert_int_equal(sent_after(&p, start, ACK, p.irs + 1, 1), at[i]);
	peer_ack(&p);
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 2, 0);
	peer_ack(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	expect(&p, ACK, p.irs + 3, 0);
	rig_run(r, 999);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 2);
	assert_int_equal(rig_conns(r), 0);
}

static void port_that_refuses_frames_is_like_loss(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	nic_fake_fail_tx(r->nic, 1);
	app_write(r, ep, "x", 1);
	expect_none(&p);
	rig_run(r, 20);
	expect(&p, ACK, p.irs + 1, 1);
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void no_packet_buffer_to_send_with_is_made_up_for_later(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	nic_fake_fail_alloc(r->nic, 3);
	pattern_fill(big, 0, 3000);
	app_write(r, ep, big, 3000);
	nic_fake_fail_alloc(r->nic, 0);
	rig_run(r, 200);
	p.rcv = p.irs + 1;
	assert_int_equal(peer_next(&p)->seq, p.irs + 1);
	peer_skip(&p);
	p.rcv = p.irs + 3001;
	peer_ack(&p);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
	peer_skip(&p);
}

/* A handshake whose answer got lost leaves nothing behind: neither the age of its time-out nor its length. */
static void time_outs_of_the_handshake_are_over_with_it(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 8);
	struct peer p;
	uint32_t ep;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
	rig_run(r, 1100);
	assert_non_null(peer_next(&p)); /* the first was lost */
	peer_ack(&p);
	ep = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(ep, ENDPOINT_NONE);
	app_setopt(r, ep, EPO_USER_TIMEOUT, 5000);
	rig_run(r, 8000);
	assert_int_equal(app_write(r, ep, "a", 1), 1);
	expect(&p, ACK, p.irs + 1, 1);
	rig_run(r, 2500);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	expect(&p, ACK, p.irs + 1, 1);
	peer_skip(&p);
	peer_ack(&p);
	assert_int_equal(app_write(r, ep, "b", 1), 1);
	expect(&p, ACK, p.irs + 2, 1);
	rig_run(r, 1);
	peer_ack(&p);
	assert_in_range(atomic_load(&app_ep(r, ep)->info_rto_ms), 1, 50);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void acknowledgement_that_finds_no_buffer_is_sent_later(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_pair(&p, r);
	nic_fake_fail_alloc(r->nic, 1);
	peer_data(&p, 100);
	rig_run(r, 30);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.snd);
	expect_none(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(data_lost_is_repeated_from_the_floor_on_with_backoff),
	        WIRE_TEST(floor_follows_the_configuration),
	        WIRE_TEST(time_out_follows_the_measured_round_trip),
	        WIRE_TEST(handshake_of_a_repeated_syn_is_no_round_trip_sample),
	        WIRE_TEST(ack_lost_repetition_settles_it),
	        WIRE_TEST(partial_ack_restarts_the_timer_for_the_rest),
	        WIRE_TEST(three_duplicate_acks_repeat_the_segment_at_once),
	        WIRE_TEST(two_losses_in_one_window_are_both_repeated),
	        WIRE_TEST(whole_window_lost_is_repeated_and_arrives),
	        WIRE_TEST(fin_lost_is_repeated_with_backoff),
	        WIRE_TEST(last_fin_lost_is_repeated),
	        WIRE_TEST(last_ack_lost_is_repeated_in_time_wait),
	        WIRE_TEST(time_outs_of_the_handshake_are_over_with_it),
	        WIRE_TEST(acknowledgement_that_finds_no_buffer_is_sent_later),
	        WIRE_TEST(peer_that_never_answers_data_is_given_up_after_fifteen_minutes),
	        WIRE_TEST(user_timeout_gives_up_earlier),
	        WIRE_TEST(millisecond_clock_wraps_unnoticed),
	        WIRE_TEST(port_that_refuses_frames_is_like_loss),
	        WIRE_TEST(no_packet_buffer_to_send_with_is_made_up_for_later),
	};

	return cmocka_run_group_tests_name("loss", tests, NULL, NULL);
}
