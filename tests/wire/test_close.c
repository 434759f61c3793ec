/* test_close.c - ends of connections: FIN in every order, half-closed ones, TIME_WAIT, resets.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[1 << 20];

static void peer_closes_first_then_we_close_and_all_is_freed_at_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 10);
	peer_send(&p, FIN | ACK, NULL, 0);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.snd);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(ep_level(&r->arena, app_ep(r, ep)),
	        EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLOUT | EPOLLWRNORM);
	assert_int_equal(app_read(r, ep, big, 100), 10);
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
	assert_int_equal(rig_conns(r), 0);
}

static void we_close_first_and_stay_in_time_wait(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	expect_none(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	s = expect(&p, ACK, p.irs + 2, 0);
	assert_int_equal(s->ack, p.snd);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE); /* the socket is gone, the tuple is not */
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 999);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 2);
	assert_int_equal(rig_conns(r), 0);
	expect_none(&p);
}

static void fin_and_ack_of_ours_come_in_one_segment(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_send(&p, FIN | ACK, NULL, 0);
	expect(&p, ACK, p.irs + 2, 0);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 1001);
	assert_int_equal(rig_conns(r), 0);
}

static void both_close_at_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	p.rcv = p.irs + 1; /* it crosses ours */
	peer_send(&p, FIN | ACK, NULL, 0);
	s = expect(&p, ACK, p.irs + 2, 0);
	assert_int_equal(s->ack, p.snd);
	assert_int_equal(rig_conns(r), 1);
	p.rcv = p.irs + 2;
	peer_ack(&p);
	expect_none(&p);
	rig_run(r, 999);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 2);
	assert_int_equal(rig_conns(r), 0);
}

static void half_closed_by_peer_still_takes_data_from_us(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	rig_run(r, 5000);
	pattern_fill(big, 0, 30000);
	assert_int_equal(app_write(r, ep, big, 30000), 30000);
	assert_int_equal(peer_drain(&p, 0), 30000);
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 30001, 0);
	peer_ack(&p);
	assert_int_equal(rig_conns(r), 0);
}

static void half_closed_by_us_still_receives(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "bye", 3);
	expect(&p, ACK, p.irs + 1, 3);
	app_shutdown(r, ep, SHUT_WR);
	expect(&p, FIN | ACK, p.irs + 4, 0);
	assert_false(atomic_load(&app_ep(r, ep)->flags) & EP_FIN_ACKED);
	peer_ack(&p);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_FIN_ACKED);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	rig_run(r, 70000); /* no time limit while the socket is open */
	for (int i = 0; i < 20; i++)
		peer_data(&p, 1000);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 20000);
	pattern_check(big, 0, 20000);
	peer_send(&p, FIN | ACK, NULL, 0);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_true(ep_level(&r->arena, app_ep(r, ep)) & EPOLLHUP);
	peer_skip(&p);
	app_close(r, ep);
	expect_none(&p);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void half_closed_by_us_then_closed_ends_after_fin_wait_2(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_shutdown(r, ep, SHUT_WR);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	app_close(r, ep);
	expect_none(&p);
	rig_run(r, 59000);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 2000);
	assert_int_equal(rig_conns(r), 0);
}

static void both_shut_down_and_then_the_sockets_close(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	app_shutdown(r, ep, SHUT_WR);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	peer_ack(&p);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, 0);
	assert_int_equal(rig_conns(r), 0);
	app_close(r, ep);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void data_after_we_closed_is_answered_with_reset(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	peer_data(&p, 100);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
	assert_int_equal(rig_conns(r), 0);
	assert_int_equal(rig_stat(r, STAT_tcp_reset_tx), 1);
}

static void data_after_the_peers_fin_is_not_delivered(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_data(&p, 10);
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_data(&p, 100);
	peer_skip(&p);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 10);
}

static void fin_before_its_data_ends_the_stream_only_after_it(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_raw(&p, FIN | ACK, p.snd + 1000, p.rcv, NULL, 0, NULL, 0);
	assert_false(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	peer_data_at(&p, 500, 500);
	peer_data_at(&p, 0, 500);
	/* an empty early FIN may be forgotten: then the peer says it again */
	p.snd += 1000;
	if (!(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF))
		peer_send(&p, FIN | ACK, NULL, 0);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 1000);
	pattern_check(big, 0, 1000);
	peer_skip(&p);
}

static void fin_with_data_delivers_both(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	pattern_fill(big, 0, 100);
	peer_send(&p, FIN | ACK, big, 100);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 1 + 100 + 1);
	assert_true(atomic_load(&app_ep(r, ep)->flags) & EP_RX_EOF);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 100);
}

static void close_with_unread_data_sends_reset(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 10);
	rig_run(r, 5);
	peer_skip(&p);
	app_close(r, ep);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
	assert_int_equal(s->seq, p.irs + 1);
	assert_int_equal(rig_conns(r), 0);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void close_with_partly_read_piece_sends_reset(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 10);
	app_read(r, ep, big, 9);
	rig_run(r, 5);
	peer_skip(&p);
	app_close(r, ep);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
}

static void close_after_reading_without_doorbell_sends_fin(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_data(&p, 1000);
	app_get(r, ep, big, 1000);
	app_close(r, ep);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->flags & ~PSH, FIN | ACK);
}

static void close_sends_what_was_written_before_fin(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), off;

	(void)state;
	pattern_fill(big, 0, 200000);
	assert_int_equal(app_write(r, ep, big, 200000), 200000);
	app_close(r, ep);
	off = peer_drain(&p, 0);
	assert_int_equal(off, 200000);
	assert_int_equal(p.rcv, p.irs + 200002); /* the FIN came with or after the last byte */
	peer_ack(&p);
	assert_int_equal(
	        app_ep(r, ep)->state, EP_ESTABLISHED); /* nobody looks at it any more; freed in TIME_WAIT */
	peer_send(&p, FIN | ACK, NULL, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
	peer_skip(&p);
}

static void close_with_a_closed_window_waits_for_it(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 0);

	(void)state;
	pattern_fill(big, 0, 50);
	app_write(r, ep, big, 50);
	app_close(r, ep);
	rig_run(r, 1000);
	peer_skip(&p);
	p.rcv = p.irs + 1;
	p.wnd = 65535;
	peer_ack(&p);
	assert_int_equal(peer_drain(&p, 0), 50);
	assert_int_equal(p.rcv, p.irs + 52);
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
}

static void abortive_release_sends_reset(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "lost", 4);
	peer_skip(&p);
	app_release(r, ep, RELEASE_ABORT);
	expect(&p, RST | ACK, p.irs + 5, 0);
	assert_int_equal(rig_conns(r), 0);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void fin_never_acknowledged_is_given_up(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_close(r, ep);
	rig_jump(r, 1100000, 100);
	assert_int_equal(rig_conns(r), 0);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void fin_wait_2_ends_after_a_minute(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	rig_run(r, 59990);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 20);
	assert_int_equal(rig_conns(r), 0);
	expect_none(&p);
}

static void time_wait_lasts_a_minute_as_configured_and_answers_repeated_fins(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.time_wait_ms = 60000});
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_ack(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	expect(&p, ACK, p.irs + 2, 0);
	rig_run(r, 30000);
	peer_raw(&p, FIN | ACK, p.snd - 1, p.rcv, NULL, 0, NULL, 0);
	s = expect(&p, ACK, p.irs + 2, 0);
	assert_int_equal(s->ack, p.snd);
	rig_run(r, 59990); /* the repeated FIN started it anew (RFC 9293) */
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 20);
	assert_int_equal(rig_conns(r), 0);
	peer_raw(&p, FIN | ACK, p.snd - 1, p.rcv, NULL, 0, NULL, 0);
	assert_true(peer_next(&p)->flags & RST);
}

static void time_wait_ignores_resets(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_close(r, ep);
	peer_skip(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	peer_send(&p, RST, NULL, 0); /* RFC 1337 */
	assert_int_equal(rig_conns(r), 1);
	expect_none(&p);
}

static void time_wait_gives_way_to_a_new_syn_with_higher_sequence(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, q;
	uint32_t ep, ep2;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 40000, 80);
	ep = peer_open(&p, (uint32_t)lep);
	app_close(r, ep);
	peer_skip(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	assert_int_equal(rig_conns(r), 1);
	q = p;
	q.iss = q.snd = p.snd + 5000;
	peer_send(&q, SYN, NULL, 0);
	s = peer_next(&q);
	assert_non_null(s);
	assert_int_equal(s->flags, SYN | ACK);
	assert_int_equal(s->ack, q.iss + 1);
	peer_ack(&q);
	ep2 = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(ep2, ENDPOINT_NONE);
	assert_int_equal(rig_conns(r), 1);
	peer_data(&q, 100);
	assert_int_equal(app_read(r, ep2, big, 1000), 100);
}

static void time_wait_keeps_an_old_syn_out(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	uint32_t ep;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 40000, 80);
	ep = peer_open(&p, (uint32_t)lep);
	peer_data(&p, 1000);
	app_read(r, ep, big, 1000);
	app_close(r, ep);
	peer_skip(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	peer_raw(&p, SYN, p.iss, 0, NULL, 0, NULL, 0);
	s = peer_next(&p);
	assert_true(!s || !(s->flags & SYN));
	assert_int_equal(rig_conns(r), 1);
}

static void time_wait_gives_way_when_the_peer_resets_the_answer_to_an_old_syn(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, q;
	uint32_t ep, ep2;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 40000, 80);
	ep = peer_open(&p, (uint32_t)lep);
	peer_data(&p, 1000);
	app_read(r, ep, big, 1000);
	app_close(r, ep);
	peer_skip(&p);
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	/* the peer was started anew, and counts from far below */
	q = p;
	q.iss = q.snd = p.snd - 0x40000000;
	peer_send(&q, SYN, NULL, 0);
	s = peer_next(&q);
	assert_non_null(s);
	assert_int_equal(s->flags, ACK);
	assert_int_equal(s->ack, p.snd);
	/* a reset anywhere else is none */
	peer_raw(&q, RST, s->ack + 1, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_conns(r), 1);
	peer_raw(&q, RST, p.snd, 0, NULL, 0, NULL, 0);
	assert_int_equal(rig_conns(r), 0);
	expect_none(&q);
	q.snd = q.iss;
	peer_send(&q, SYN, NULL, 0);
	s = peer_next(&q);
	assert_non_null(s);
	assert_int_equal(s->flags, SYN | ACK);
	assert_int_equal(s->ack, q.iss + 1);
	peer_ack(&q);
	ep2 = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(ep2, ENDPOINT_NONE);
	peer_data(&q, 100);
	assert_int_equal(app_read(r, ep2, big, 1000), 100);
}

static void reset_of_established_connection_is_econnreset(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_data(&p, 50);
	peer_skip(&p);
	peer_send(&p, RST, NULL, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ECONNRESET);
	assert_int_equal(rig_conns(r), 0);
	assert_true(ep_level(&r->arena, app_ep(r, ep)) & EPOLLERR);
	assert_true(ep_level(&r->arena, app_ep(r, ep)) & EPOLLHUP);
	/* what arrived before can still be read */
	assert_int_equal(app_read(r, ep, big, 1000), 50);
	assert_int_equal(rig_stat(r, STAT_tcp_reset_rx), 1);
	expect_none(&p);
	app_close(r, ep);
	expect_none(&p);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void reset_with_data_in_flight_frees_the_send_ring(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	pattern_fill(big, 0, 300000);
	app_write(r, ep, big, 300000);
	peer_skip(&p);
	peer_send(&p, RST, NULL, 0);
	assert_int_equal(app_ep(r, ep)->error, ECONNRESET);
	app_close(r, ep);
	for (uint32_t i = 0; i < r->stack[0]->block_count; i++)
		assert_int_not_equal(BLOCK_KIND(r->stack[0]->block_owner[i]), BLOCK_ENDPOINT);
}

static void reset_after_the_peers_fin_is_epipe(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_send(&p, FIN | ACK, NULL, 0);
	peer_skip(&p);
	peer_send(&p, RST, NULL, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, EPIPE);
}

static void reset_ends_every_closing_state(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);

	(void)state;
	/* 0: FIN_WAIT_1, 1: FIN_WAIT_2, 2: CLOSING, 3: CLOSE_WAIT, 4: LAST_ACK */
	for (uint16_t i = 0; i < 5; i++) {
		struct peer p;
		uint32_t ep;

		peer_init(&p, r, (uint16_t)(40000 + i), 80);
		ep = peer_open(&p, (uint32_t)lep);
		if (i >= 3)
			peer_send(&p, FIN | ACK, NULL, 0);
		if (i != 3)
			app_close(r, ep);
		peer_skip(&p);
		if (i == 1)
			peer_ack(&p);
		if (i == 2) {
			p.rcv = p.irs + 1;
			peer_send(&p, FIN | ACK, NULL, 0);
		}
		assert_int_equal(rig_conns(r), 1);
		peer_skip(&p);
		peer_send(&p, RST | ACK, NULL, 0);
		assert_int_equal(rig_conns(r), 0);
		expect_none(&p);
		if (i == 3)
			app_close(r, ep);
		assert_int_equal(app_ep(r, ep)->state, EP_FREE);
	}
}

static void reset_that_is_not_exact_is_challenged(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_raw(&p, RST, p.snd + 1, 0, NULL, 0, NULL, 0);
	s = expect(&p, ACK, p.irs + 1, 0); /* RFC 5961 section 3.2 */
	assert_int_equal(s->ack, p.snd);
	peer_raw(&p, RST, p.snd + 65000, 0, NULL, 0, NULL, 0);
	expect(&p, ACK, p.irs + 1, 0);
	peer_raw(&p, RST, p.snd - 1, 0, NULL, 0, NULL, 0);
	peer_raw(&p, RST, p.snd + 10000000, 0, NULL, 0, NULL, 0);
	expect_none(&p);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	peer_send(&p, RST, NULL, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
}

static void syn_on_an_open_connection_is_challenged(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	peer_raw(&p, SYN, p.snd + 100, 0, NULL, 0, NULL, 0);
	s = expect(&p, ACK, p.irs + 1, 0); /* RFC 5961 section 4.2 */
	assert_int_equal(s->ack, p.snd);
	peer_raw(&p, SYN, p.iss, 0, NULL, 0, NULL, 0);
	expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	assert_int_equal(rig_conns(r), 1);
}

static void shutdown_of_reading_ends_reading_here_only(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_shutdown(r, ep, SHUT_RD);
	expect_none(&p);
	assert_int_equal(
	        ep_level(&r->arena, app_ep(r, ep)) & (EPOLLIN | EPOLLRDHUP | EPOLLHUP), EPOLLIN | EPOLLRDHUP);
	app_write(r, ep, "x", 1);
	expect(&p, ACK, p.irs + 1, 1);
	peer_ack(&p);
}

static void close_twice_by_two_processes_ends_with_the_second(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	hold_set(&r->arena, 1, ep); /* as fork does */
	app_close(r, ep);
	expect_none(&p);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	r->cl = 1;
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
}

static void many_timers_of_one_moment_take_several_turns(void **state)
{
	enum { MANY = 300, PIECE = 64 };
	struct rig *r = rig_up(&(struct rig_spec){.endpoints = 512, .time_wait_ms = 1000});
	int lep = app_listen(r, 80, 16);
	static struct peer p[MANY];
	uint32_t turns = 0, before;

	(void)state;
	for (uint32_t i = 0; i < MANY; i++) {
		uint32_t ep;

		peer_init(&p[i], r, (uint16_t)(20000 + i), 80);
		ep = peer_open(&p[i], (uint32_t)lep);
		app_close(r, ep);
		expect(&p[i], FIN | ACK, p[i].irs + 1, 0);
		peer_send(&p[i], FIN | ACK, NULL, 0);
	}
	assert_int_equal(rig_conns(r), MANY);
	/* all at once, and with a wheel that has to be brought up first */
	r->now_ns += 1100ull * 1000000;
	while ((before = rig_conns(r))) {
		assert_true(stack_turn(r->stack[0], r->now_ns) > 0);
		assert_in_range(before - rig_conns(r), 0, PIECE);
		assert_true(++turns <= MANY);
	}
	assert_in_range(turns, MANY / PIECE, MANY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(peer_closes_first_then_we_close_and_all_is_freed_at_once),
	        WIRE_TEST(we_close_first_and_stay_in_time_wait),
	        WIRE_TEST(fin_and_ack_of_ours_come_in_one_segment),
	        WIRE_TEST(both_close_at_once),
	        WIRE_TEST(half_closed_by_peer_still_takes_data_from_us),
	        WIRE_TEST(half_closed_by_us_still_receives),
	        WIRE_TEST(half_closed_by_us_then_closed_ends_after_fin_wait_2),
	        WIRE_TEST(both_shut_down_and_then_the_sockets_close),
	        WIRE_TEST(data_after_we_closed_is_answered_with_reset),
	        WIRE_TEST(data_after_the_peers_fin_is_not_delivered),
	        WIRE_TEST(fin_before_its_data_ends_the_stream_only_after_it),
	        WIRE_TEST(fin_with_data_delivers_both),
	        WIRE_TEST(close_with_unread_data_sends_reset),
	        WIRE_TEST(close_with_partly_read_piece_sends_reset),
	        WIRE_TEST(close_after_reading_without_doorbell_sends_fin),
	        WIRE_TEST(close_sends_what_was_written_before_fin),
	        WIRE_TEST(close_with_a_closed_window_waits_for_it),
	        WIRE_TEST(abortive_release_sends_reset),
	        WIRE_TEST(fin_never_acknowledged_is_given_up),
	        WIRE_TEST(fin_wait_2_ends_after_a_minute),
	        WIRE_TEST(time_wait_lasts_a_minute_as_configured_and_answers_repeated_fins),
	        WIRE_TEST(time_wait_ignores_resets),
	        WIRE_TEST(time_wait_gives_way_to_a_new_syn_with_higher_sequence),
	        WIRE_TEST(time_wait_keeps_an_old_syn_out),
	        WIRE_TEST(time_wait_gives_way_when_the_peer_resets_the_answer_to_an_old_syn),
	        WIRE_TEST(reset_of_established_connection_is_econnreset),
	        WIRE_TEST(reset_with_data_in_flight_frees_the_send_ring),
	        WIRE_TEST(reset_after_the_peers_fin_is_epipe),
	        WIRE_TEST(reset_ends_every_closing_state),
	        WIRE_TEST(reset_that_is_not_exact_is_challenged),
	        WIRE_TEST(syn_on_an_open_connection_is_challenged),
	        WIRE_TEST(shutdown_of_reading_ends_reading_here_only),
	        WIRE_TEST(many_timers_of_one_moment_take_several_turns),
	        WIRE_TEST(close_twice_by_two_processes_ends_with_the_second),
	};

	return cmocka_run_group_tests_name("close", tests, NULL, NULL);
}
