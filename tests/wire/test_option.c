/* test_option.c - what follows from the options of a socket on the wire: sizes in the SYN, windows,
 * time-outs, hops, deferred accepts; and what TCP_INFO counts.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[1 << 20];

static int open_with(struct rig *r, const struct ep_opts *opts)
{
	struct call c = {.op = CALL_CONNECT,
	        .endpoint = ENDPOINT_NONE,
	        .remote = {.family = AF_INET, .port = 80, .ip = {10, 1, 0, 2}},
	        .value = APP_NODELAY};
	int rc;

	ep_opts_copy(&c.opts, opts);
	rc = app_call(r, 0, &c);
	return rc ? rc : (int)c.endpoint;
}

/* A connection that the application opens with these options, before the peer answers. */
static uint32_t opened(struct rig *r, struct peer *p, const struct ep_opts *opts, struct seg *syn)
{
	int ep = open_with(r, opts);
	struct seg *s;

	assert_true(ep >= 0);
	peer_init(p, r, 80, app_ep(r, (uint32_t)ep)->local.port);
	s = peer_next(p);
	assert_non_null(s);
	assert_int_equal(s->flags, SYN);
	*syn = *s;
	return (uint32_t)ep;
}

static void maxseg_set_before_connect_is_announced_and_obeyed(void **state)
{
	struct rig *r = rig_up(NULL);
	struct ep_opts opts = {.v[EPO_MAXSEG] = 600};
	struct peer p;
	struct seg syn, *s;
	uint32_t ep = opened(r, &p, &opts, &syn);

	(void)state;
	assert_int_equal(syn.mss, 600);
	peer_send(&p, SYN | ACK, NULL, 0);
	peer_skip(&p);
	pattern_fill(big, 0, 5000);
	app_write(r, ep, big, 5000);
	while ((s = peer_next(&p)))
		assert_true(s->size <= 600);
	peer_ack(&p);
	assert_int_equal(app_ep(r, ep)->info_mss, 600);
	rig_run(r, 50);
	peer_drain(&p, 0);
}

static void maxseg_of_a_listener_is_announced_and_inherited(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	struct seg *s;
	uint32_t ep;

	(void)state;
	app_setopt(r, (uint32_t)lep, EPO_MAXSEG, 500);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->mss, 500);
	peer_ack(&p);
	ep = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(ep, ENDPOINT_NONE);
	assert_int_equal(app_ep(r, ep)->opts.v[EPO_MAXSEG], 500);
	app_write(r, ep, big, 2000);
	while ((s = peer_next(&p)))
		assert_true(s->size <= 500);
}

static void small_receive_buffer_is_the_window_from_the_first_segment_on(void **state)
{
	struct rig *r = rig_up(NULL);
	struct ep_opts opts = {.v[EPO_RCVBUF] = 8000, .flag = 1ull << EPF_RCVBUF_SET};
	struct peer p;
	struct seg syn, *s;
	uint32_t ep = opened(r, &p, &opts, &syn), got = 0;

	(void)state;
	assert_int_equal(syn.wnd, 4000);
	peer_send(&p, SYN | ACK, NULL, 0);
	peer_skip(&p);
	/* many times the buffer: it opens again each time the reader has taken some */
	for (int i = 0; i < 40; i++) {
		peer_data(&p, 1000);
		peer_data(&p, 1000);
		rig_run(r, 10);
		got += app_read(r, ep, big, 2000);
		while ((s = peer_next(&p)))
			assert_true(s->wnd <= 4000);
	}
	assert_int_equal(got, 80000);
}

static void tiny_receive_buffer_opens_again_without_a_probe(void **state)
{
	struct rig *r = rig_up(NULL);
	struct ep_opts opts = {.v[EPO_RCVBUF] = 1, .flag = 1ull << EPF_RCVBUF_SET};
	struct peer p;
	struct seg syn, *s, last = {0};
	uint32_t ep = opened(r, &p, &opts, &syn);

	(void)state;
	assert_int_equal(syn.wnd, 1152);
	peer_send(&p, SYN | ACK, NULL, 0);
	peer_skip(&p);
	peer_data(&p, 1152);
	rig_run(r, 10);
	while ((s = peer_next(&p)))
		last = *s;
	assert_int_equal(last.wnd, 0);
	assert_int_equal(app_read(r, ep, big, 2000), 1152);
	rig_run(r, 10);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->wnd, 1152);
}

static void window_clamp_limits_the_window(void **state)
{
	struct rig *r = rig_up(NULL);
	struct ep_opts opts = {.v[EPO_WINDOW_CLAMP] = 20000};
	struct peer p;
	struct seg syn;

	(void)state;
	opened(r, &p, &opts, &syn);
	assert_int_equal(syn.wnd, 20000);
	peer_send(&p, SYN | ACK, NULL, 0);
}

static void syncnt_says_how_often_a_syn_is_sent(void **state)
{
	struct rig *r = rig_up(NULL);
	struct ep_opts opts = {.v[EPO_SYNCNT] = 2};
	struct peer p;
	struct seg syn;
	uint32_t ep = opened(r, &p, &opts, &syn), again = 0;

	(void)state;
	rig_jump(r, 30000, 10);
	while (peer_next(&p))
		again++;
	assert_int_equal(again, 2);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
}

static void user_timeout_ends_an_attempt_and_a_closed_window(void **state)
{
	struct rig *r = rig_up(NULL);
	struct ep_opts opts = {.v[EPO_USER_TIMEOUT] = 2500};
	struct peer p, q;
	struct seg syn, *s;
	uint32_t ep = opened(r, &p, &opts, &syn), other;

	(void)state;
	rig_jump(r, 8000, 10);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
	/* probes that are answered do not count as progress */
	other = peer_pair_window(&q, r, 0);
	app_setopt(r, other, EPO_USER_TIMEOUT, 2500);
	app_write(r, other, "x", 1);
	for (int i = 0; i < 800 && app_ep(r, other)->state == EP_ESTABLISHED; i++) {
		rig_run(r, 10);
		while ((s = peer_next(&q))) {
			q.rcv = q.irs + 1;
			peer_ack(&q);
		}
	}
	assert_int_equal(app_ep(r, other)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, other)->error, ETIMEDOUT);
}

static void user_timeout_decides_over_the_count_of_keepalives(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), probes = 0;

	(void)state;
	app_setopt(r, ep, EPO_KEEPIDLE, 5);
	app_setopt(r, ep, EPO_KEEPINTVL, 1);
	app_setopt(r, ep, EPO_KEEPCNT, 100);
	app_setopt(r, ep, EPO_USER_TIMEOUT, 8000);
	app_setflag(r, ep, EPF_KEEPALIVE, true);
	rig_jump(r, 12000, 10);
	while (peer_next(&p))
		probes++;
	assert_in_range(probes, 2, 5);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
}

static void linger2_limits_the_wait_for_the_peers_fin(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_setopt(r, ep, EPO_LINGER2, 3);
	app_close(r, ep);
	assert_non_null(peer_next(&p));
	peer_ack(&p);
	rig_jump(r, 2900, 10);
	assert_int_equal(rig_conns(r), 1);
	rig_jump(r, 200, 10);
	assert_int_equal(rig_conns(r), 0);
}

static void quickack_acknowledges_at_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_data(&p, 100);
	expect_none(&p);
	rig_run(r, 10);
	expect(&p, ACK, p.irs + 1, 0);
	app_setopt(r, ep, EPO_QUICKACK, 3);
	peer_data(&p, 100);
	expect(&p, ACK, p.irs + 1, 0);
	app_setopt(r, ep, EPO_QUICKACK, 0);
	peer_data(&p, 100);
	expect_none(&p);
	rig_run(r, 10);
	expect(&p, ACK, p.irs + 1, 0);
}

static void segments_with_too_few_hops_left_are_dropped_and_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, q;
	uint32_t ep;

	(void)state;
	peer_init(&p, r, 40000, 80);
	ep = peer_open(&p, (uint32_t)lep);
	app_setopt(r, ep, EPO_MINTTL, 200);
	peer_data(&p, 100);
	rig_run(r, 10);
	expect_none(&p);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 0);
	app_setopt(r, (uint32_t)lep, EPO_MINTTL, 255);
	peer_init(&q, r, 40001, 80);
	peer_send(&q, SYN, NULL, 0);
	expect_none(&q);
	assert_int_equal(rig_stat(r, STAT_drop_rx_min_ttl), 2);
	app_setopt(r, ep, EPO_MINTTL, 0);
	peer_data_at(&p, 0, 100);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 100);
}

static void deferred_accept_waits_for_data(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 1);
	struct peer p, q, full;
	uint32_t ep;

	(void)state;
	app_setopt(r, (uint32_t)lep, EPO_DEFER_ACCEPT, 3);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
	peer_ack(&p);
	assert_int_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	/* it takes a place of the backlog: two are all */
	peer_init(&q, r, 40001, 80);
	peer_send(&q, SYN, NULL, 0);
	assert_non_null(peer_next(&q));
	peer_ack(&q);
	peer_init(&full, r, 40002, 80);
	peer_send(&full, SYN, NULL, 0);
	expect_none(&full);
	peer_data(&p, 100);
	ep = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(ep, ENDPOINT_NONE);
	assert_int_equal(app_read(r, ep, big, 200), 100);
	pattern_check(big, 0, 100);
	/* the other one never says anything: it is accepted in the end */
	rig_jump(r, 2900, 10);
	assert_int_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	rig_jump(r, 200, 10);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
}

static void deferred_connections_end_with_their_listener_and_with_their_peer(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, q;
	struct seg *s;

	(void)state;
	app_setopt(r, (uint32_t)lep, EPO_DEFER_ACCEPT, 100);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	peer_next(&p);
	peer_ack(&p);
	peer_init(&q, r, 40001, 80);
	peer_send(&q, SYN, NULL, 0);
	peer_next(&q);
	peer_ack(&q);
	assert_int_equal(rig_conns(r), 2);
	peer_send(&q, RST | ACK, NULL, 0);
	assert_int_equal(rig_conns(r), 1);
	app_close(r, (uint32_t)lep);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
	assert_int_equal(rig_conns(r), 0);
}

static void notsent_lowat_keeps_the_level_down_until_little_waits(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 1000);

	(void)state;
	app_setopt(r, ep, EPO_NOTSENT_LOWAT, 8000);
	pattern_fill(big, 0, 20000);
	app_write(r, ep, big, 20000);
	assert_int_equal(ep_tx_notsent(app_ep(r, ep)), 19000);
	assert_false(ep_tx_ready(app_ep(r, ep)));
	atomic_store(&app_ep(r, ep)->tx_want, 1);
	p.wnd = 65535;
	peer_skip(&p);
	p.rcv = p.irs + 1001;
	peer_ack(&p);
	/* the congestion window, ten segments and what was acknowledged, was used up to a part of a segment
	 */
	assert_in_range(ep_tx_notsent(app_ep(r, ep)), 19000 - (14600 + 1000), 19000 - (14600 + 1000) + 1459);
	peer_drain(&p, 1000);
	assert_int_equal(ep_tx_notsent(app_ep(r, ep)), 0);
	assert_true(ep_tx_ready(app_ep(r, ep)));
	assert_int_equal(atomic_load(&app_ep(r, ep)->tx_want), 0);
}

static struct conn_info info_of(struct rig *r, uint32_t ep)
{
	struct call c = {.op = CALL_INFO, .endpoint = ep};

	assert_int_equal(app_call(r, app_ep(r, ep)->stack_idx, &c), 0);
	return c.info;
}

static void info_counts_bytes_segments_and_retransmissions(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct conn_info in;

	(void)state;
	peer_data(&p, 700);
	app_read(r, ep, big, 700);
	pattern_fill(big, 0, 3000);
	app_write(r, ep, big, 3000);
	in = info_of(r, ep);
	assert_int_equal(in.bytes_received, 700);
	assert_int_equal(in.data_segs_in, 1);
	assert_int_equal(in.bytes_sent, 3000);
	assert_int_equal(in.data_segs_out, 3);
	assert_int_equal(in.unacked, 3);
	assert_int_equal(in.bytes_acked, 0);
	assert_int_equal(in.segs_again, 0);
	rig_run(r, 30); /* nothing is acknowledged: the first one goes out again */
	in = info_of(r, ep);
	assert_int_equal(in.segs_again, 1);
	assert_int_equal(in.bytes_again, 1460);
	assert_int_equal(in.timeouts, 1);
	assert_int_equal(in.is_lost, 1);
	peer_drain(&p, 0);
	rig_run(r, 7);
	in = info_of(r, ep);
	assert_int_equal(in.bytes_acked, 3000);
	assert_int_equal(in.unacked, 0);
	assert_int_equal(in.notsent, 0);
	assert_int_equal(in.is_lost, 0);
	assert_in_range(in.ack_recv_ago_ms, 7, 12);
	assert_int_equal(in.mss, 1460);
	assert_int_equal(in.mtu, 1500);
}

static void info_times_round_trips(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct conn_info in;

	(void)state;
	for (int i = 0; i < 50; i++) {
		app_write(r, ep, "x", 1);
		rig_run(r, 8);
		while (peer_next(&p))
			;
		peer_ack(&p);
	}
	in = info_of(r, ep);
	assert_in_range(in.rtt_us, 7000, 9000);
	assert_true(in.rttvar_us < 4000);
	assert_true(in.min_rtt_us <= 8000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(maxseg_set_before_connect_is_announced_and_obeyed),
	        WIRE_TEST(maxseg_of_a_listener_is_announced_and_inherited),
	        WIRE_TEST(small_receive_buffer_is_the_window_from_the_first_segment_on),
	        WIRE_TEST(tiny_receive_buffer_opens_again_without_a_probe),
	        WIRE_TEST(window_clamp_limits_the_window),
	        WIRE_TEST(syncnt_says_how_often_a_syn_is_sent),
	        WIRE_TEST(user_timeout_ends_an_attempt_and_a_closed_window),
	        WIRE_TEST(user_timeout_decides_over_the_count_of_keepalives),
	        WIRE_TEST(linger2_limits_the_wait_for_the_peers_fin),
	        WIRE_TEST(quickack_acknowledges_at_once),
	        WIRE_TEST(segments_with_too_few_hops_left_are_dropped_and_counted),
	        WIRE_TEST(deferred_accept_waits_for_data),
	        WIRE_TEST(deferred_connections_end_with_their_listener_and_with_their_peer),
	        WIRE_TEST(notsent_lowat_keeps_the_level_down_until_little_waits),
	        WIRE_TEST(info_counts_bytes_segments_and_retransmissions),
	        WIRE_TEST(info_times_round_trips),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
