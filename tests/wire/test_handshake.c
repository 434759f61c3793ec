/* test_handshake.c - opening connections, from both sides, with losses and refusals.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static void passive_open_completes_and_is_accepted(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct endpoint *ep;
	struct peer p;
	struct seg *s;
	uint32_t idx;

	(void)state;
	assert_true(lep >= 0);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->flags, SYN | ACK);
	assert_int_equal(s->ack, p.iss + 1);
	assert_int_equal(s->mss, 1460);
	assert_int_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	assert_false(ep_level(&r->arena, app_ep(r, (uint32_t)lep)));
	peer_ack(&p);
	assert_true(ep_level(&r->arena, app_ep(r, (uint32_t)lep)) & EPOLLIN);
	idx = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(idx, ENDPOINT_NONE);
	ep = app_ep(r, idx);
	assert_int_equal(ep->state, EP_ESTABLISHED);
	assert_int_equal(ep->parent, lep);
	assert_int_equal(ep->local.port, 80);
	assert_memory_equal(ep->local.ip, "\x0a\x01\x00\x01", 4);
	assert_int_equal(ep->remote.port, 40000);
	assert_memory_equal(ep->remote.ip, "\x0a\x01\x00\x02", 4);
	assert_int_equal(ep_level(&r->arena, ep), EPOLLOUT | EPOLLWRNORM);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_tcp_accepted), 1);
}

static void active_open_completes_and_is_writable(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;
	struct seg *s;

	(void)state;
	assert_true(ep >= 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CONNECTING);
	assert_int_equal(ep_level(&r->arena, app_ep(r, (uint32_t)ep)), 0);
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->flags, SYN);
	assert_int_equal(s->mss, 1460);
	assert_int_equal(s->wscale, 5);
	assert_true(s->sack_ok);
	peer_send(&p, SYN | ACK, NULL, 0);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 1);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_ESTABLISHED);
	assert_int_equal(ep_level(&r->arena, app_ep(r, (uint32_t)ep)), EPOLLOUT | EPOLLWRNORM);
	assert_int_equal(rig_stat(r, STAT_tcp_connected), 1);
}

static void syn_unanswered_is_repeated_with_backoff_until_connect_times_out(void **state)
{
	static const uint32_t at[] = {0, 1000, 3000, 7000, 15000, 31000, 63000};
	struct rig *r = rig_up(NULL);
	uint64_t start = rig_ms(r);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;

	(void)state;
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	rig_run(r, 90000);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		struct seg *s = peer_next(&p);

		assert_non_null(s);
		assert_int_equal(s->flags, SYN);
		assert_int_equal(s->ms - start, at[i]);
	}
	expect_none(&p);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CONNECTING);
	rig_jump(r, 45000, 10);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, (uint32_t)ep)->error, ETIMEDOUT);
	assert_true(ep_level(&r->arena, app_ep(r, (uint32_t)ep)) & EPOLLERR);
	assert_int_equal(rig_stat(r, STAT_tcp_connect_failed), 1);
	expect_none(&p);
}

static void syn_lost_once_connects_after_a_second(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;
	struct seg *a, *b;

	(void)state;
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	a = peer_next(&p);
	rig_run(r, 1000);
	b = peer_next(&p);
	assert_non_null(b);
	assert_int_equal(a->seq, b->seq);
	assert_int_equal(b->mss, 1460);
	peer_send(&p, SYN | ACK, NULL, 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_ESTABLISHED);
	expect(&p, ACK, p.irs + 1, 0);
}

static void synack_lost_is_repeated_with_backoff(void **state)
{
	static const uint32_t at[] = {0, 1000, 3000, 7000, 15000, 31000};
	struct rig *r = rig_up(NULL);
	uint64_t start = rig_ms(r);
	int lep = app_listen(r, 80, 16);
	struct peer p;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	rig_run(r, 32000);
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		struct seg *s = peer_next(&p);

		assert_non_null(s);
		assert_int_equal(s->flags, SYN | ACK);
		assert_int_equal(s->ms - start, at[i]);
	}
	expect_none(&p);
	peer_ack(&p);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
}

static void synack_never_acknowledged_is_given_up(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;

	(void)state;
	app_listen(r, 80, 16);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_int_equal(rig_conns(r), 1);
	rig_jump(r, 130000, 10);
	assert_int_equal(rig_conns(r), 0);
}

static void syn_repeated_gets_the_same_synack(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	struct seg *a, *b;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	a = peer_next(&p);
	p.snd = p.iss;
	peer_send(&p, SYN, NULL, 0);
	b = peer_next(&p);
	assert_non_null(b);
	assert_int_equal(b->flags, SYN | ACK);
	assert_int_equal(a->seq, b->seq);
	peer_ack(&p);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	assert_int_equal(rig_conns(r), 1);
}

static void handshake_ack_lost_data_completes_it(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	uint8_t buf[200];
	struct peer p;
	uint32_t ep;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	peer_next(&p);
	peer_data(&p, 100);
	ep = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(ep, ENDPOINT_NONE);
	assert_int_equal(app_read(r, ep, buf, sizeof(buf)), 100);
	pattern_check(buf, 0, 100);
}

static void synack_with_wrong_ack_is_reset_and_connect_goes_on(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	peer_next(&p);
	peer_raw(&p, SYN | ACK, p.iss, p.rcv + 77, NULL, 0, NULL, 0);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
	assert_int_equal(s->seq, p.irs + 1 + 77);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CONNECTING);
	peer_skip(&p);
	p.rcv = p.irs + 1;
	peer_send(&p, SYN | ACK, NULL, 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_ESTABLISHED);
}

static void syn_to_closed_port_gets_reset(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 40000, 81);
	peer_send(&p, SYN, NULL, 0);
	s = expect(&p, RST | ACK, 0, 0);
	assert_int_equal(s->ack, p.iss + 1);
	peer_raw(&p, ACK, p.snd, 12345, NULL, 0, "x", 1);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
	assert_int_equal(s->seq, 12345);
	peer_raw(&p, RST, p.snd, 0, NULL, 0, NULL, 0);
	expect_none(&p);
	assert_int_equal(rig_conns(r), 0);
}

static void reset_in_syn_received_frees_it_and_the_listener_goes_on(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 1);
	struct peer p;

	(void)state;
	for (uint16_t i = 0; i < 8; i++) { /* more often than the backlog has places */
		peer_init(&p, r, (uint16_t)(40000 + i), 80);
		peer_send(&p, SYN, NULL, 0);
		assert_non_null(peer_next(&p));
		peer_send(&p, RST, NULL, 0);
		assert_int_equal(rig_conns(r), 0);
	}
	peer_init(&p, r, 41000, 80);
	peer_open(&p, (uint32_t)lep);
}

static void reset_refuses_connect(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;

	(void)state;
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	peer_next(&p);
	/* not for our SYN: ignored */
	peer_raw(&p, RST | ACK, 0, p.rcv + 5, NULL, 0, NULL, 0);
	peer_raw(&p, RST, 0, 0, NULL, 0, NULL, 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CONNECTING);
	peer_raw(&p, RST | ACK, 0, p.rcv, NULL, 0, NULL, 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, (uint32_t)ep)->error, ECONNREFUSED);
	assert_int_equal(rig_stat(r, STAT_tcp_connect_failed), 1);
	assert_int_equal(rig_conns(r), 0);
	app_close(r, (uint32_t)ep);
}

static void close_while_connecting_is_quiet_and_frees_it(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	peer_next(&p);
	app_close(r, (uint32_t)ep);
	expect_none(&p);
	assert_int_equal(rig_conns(r), 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_FREE);
	/* the answer that comes too late is refused */
	peer_send(&p, SYN | ACK, NULL, 0);
	s = peer_next(&p);
	assert_non_null(s);
	assert_true(s->flags & RST);
}

static void isns_and_ports_differ_between_connections(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t isn[16];
	uint16_t port[16];
	int near = 0;

	(void)state;
	for (int i = 0; i < 16; i++) {
		int ep = app_connect(r, RIG_PEER, 7000);
		struct peer p;

		port[i] = app_ep(r, (uint32_t)ep)->local.port;
		assert_in_range(port[i], PORT_FIRST, PORT_LAST);
		peer_init(&p, r, 7000, port[i]);
		isn[i] = peer_next(&p)->seq;
		for (int k = 0; k < i; k++) {
			assert_int_not_equal(port[k], port[i]);
			near += isn[k] - isn[i] + 65536 <= 131072;
		}
	}
	/* numbers that follow each other would all be near; of random ones, one pair of the 120 is in every
	 * 270th run */
	assert_in_range(near, 0, 2);
}

static void mss_of_peer_limits_segments(void **state)
{
	static const struct {
		int offered, used;
	} row[] = {{1460, 1460}, {536, 536}, {1000, 1000}, {9000, 1460}, {-1, 536}, {0, 1460}};
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	static uint8_t buf[5000];

	(void)state;
	pattern_fill(buf, 0, sizeof(buf));
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct peer p;
		uint32_t ep;

		peer_init(&p, r, (uint16_t)(40000 + i), 80);
		p.mss = row[i].offered;
		ep = peer_open(&p, (uint32_t)lep);
		assert_int_equal(app_write(r, ep, buf, 4000), 4000);
		expect(&p, ACK, p.irs + 1, (uint32_t)row[i].used);
		peer_skip(&p);
	}
}

static void mss_of_one_is_survived(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	static uint8_t buf[300];
	struct peer p;
	uint32_t ep;

	(void)state;
	peer_init(&p, r, 40000, 80);
	p.mss = 1;
	ep = peer_open(&p, (uint32_t)lep);
	pattern_fill(buf, 0, sizeof(buf));
	assert_int_equal(app_write(r, ep, buf, sizeof(buf)), sizeof(buf));
	expect(&p, ACK, p.irs + 1, 48); /* as the kernel takes it */
	p.rcv = p.irs + 1;
	rig_run(r, 1000);
	assert_int_equal(peer_drain(&p, 0), sizeof(buf));
}

static void window_scale_is_used_when_both_offer_it(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	static uint8_t buf[300000];
	uint32_t ep, got = 0;
	struct peer p;
	struct seg *s;

	(void)state;
	pattern_fill(buf, 0, sizeof(buf));
	peer_init(&p, r, 40000, 80);
	p.wscale = 3;
	peer_send(&p, SYN, NULL, 0);
	s = peer_next(&p);
	assert_int_equal(s->wscale, 5);
	assert_int_equal(s->wnd, 65535); /* never scaled in a SYN */
	p.wnd = 1000;                    /* means 8000 */
	peer_ack(&p);
	ep = app_accept(r, (uint32_t)lep);
	peer_data(&p, 10);
	rig_run(r, 5);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_in_range((uint32_t)s->wnd << 5, 262144 - 64, 262144);
	assert_int_equal(app_write(r, ep, buf, 20000), 20000);
	while ((s = peer_next(&p)))
		got += s->size;
	assert_int_equal(got, 7300); /* the whole segments that fit */
}

static void window_scale_is_left_out_when_peer_does_not_offer_it(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	s = peer_next(&p);
	assert_int_equal(s->wscale, -1);
	assert_false(s->sack_ok);
	peer_ack(&p);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	peer_data(&p, 10);
	rig_run(r, 5);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_in_range(s->wnd, 65000, 65535);
}

static void window_scale_beyond_14_counts_as_14(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;

	(void)state;
	peer_init(&p, r, 40000, 80);
	p.wscale = 255;
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
	peer_ack(&p);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	for (uint32_t h = 0; h <= r->stack[0]->hash_mask; h++)
		if (r->stack[0]->hash[h])
			assert_int_equal(r->stack[0]->hash[h]->pcb->snd_scale, 14);
}

static void sack_is_offered_back_and_used_on_reorder(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	struct seg *s;

	(void)state;
	peer_init(&p, r, 40000, 80);
	p.sack_ok = true;
	peer_send(&p, SYN, NULL, 0);
	assert_true(peer_next(&p)->sack_ok);
	peer_ack(&p);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	peer_data_at(&p, 1000, 500);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 1);
	assert_int_equal(s->sack_count, 1);
	assert_int_equal(s->sack[0].left, p.iss + 1 + 1000);
	assert_int_equal(s->sack[0].right, p.iss + 1 + 1500);
	peer_data_at(&p, 3000, 500);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->sack_count, 2);
	assert_int_equal(s->sack[0].left, p.iss + 1 + 3000); /* the newest first (RFC 2018) */
	assert_int_equal(s->sack[1].left, p.iss + 1 + 1000);
	peer_data_at(&p, 0, 1000);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.iss + 1 + 1500);
	assert_int_equal(s->sack_count, 1);
}

static void bind_and_connect_share_the_rules_of_ports(void **state)
{
	struct rig *r = rig_up(NULL);
	int a = app_bind(r, 90, 0), b;

	(void)state;
	assert_true(a >= 0);
	assert_int_equal(app_bind(r, 90, 0), -EADDRINUSE);
	assert_int_equal(app_bind(r, 90, CALL_F_REUSEADDR), -EADDRINUSE);
	app_close(r, (uint32_t)a);
	b = app_bind(r, 90, 0);
	assert_true(b >= 0);
	assert_int_equal(app_ep(r, (uint32_t)b)->state, EP_BOUND);
	assert_true(app_bind(r, 0, 0) >= 0);
}

static void connect_without_a_route_is_enetunreach(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.no_gateway = true});

	(void)state;
	assert_int_equal(app_connect(r, 0xc0000201, 80), -ENETUNREACH);
	assert_true(app_connect(r, RIG_PEER, 80) >= 0);
}

static void connect_beyond_the_network_goes_to_the_gateway(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, 0xc0000201, 80);
	struct peer p;

	(void)state;
	assert_true(ep >= 0);
	peer_init(&p, r, 80, app_ep(r, (uint32_t)ep)->local.port);
	p.ip = 0xc0000201;
	assert_non_null(peer_next(&p)); /* the rig checks the Ethernet address */
}

static void endpoints_used_up_drop_syns_and_fail_connect(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 1000);
	struct peer p;
	uint32_t first;

	(void)state;
	peer_init(&p, r, 40000, 80);
	first = peer_open(&p, (uint32_t)lep);
	for (uint16_t i = 1; i < 63; i++) {
		struct peer q;

		peer_init(&q, r, (uint16_t)(40000 + i), 80);
		peer_open(&q, (uint32_t)lep);
	}
	assert_int_equal(r->stack[0]->ep_free_count, 0);
	peer_init(&p, r, 50000, 80);
	peer_send(&p, SYN, NULL, 0);
	expect_none(&p);
	assert_int_equal(rig_stat(r, STAT_drop_syn_no_endpoint), 1);
	assert_int_equal(app_connect(r, RIG_PEER, 80), -ENOBUFS);
	app_release(r, first, RELEASE_ABORT);
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(passive_open_completes_and_is_accepted),
	        WIRE_TEST(active_open_completes_and_is_writable),
	        WIRE_TEST(syn_unanswered_is_repeated_with_backoff_until_connect_times_out),
	        WIRE_TEST(syn_lost_once_connects_after_a_second),
	        WIRE_TEST(synack_lost_is_repeated_with_backoff),
	        WIRE_TEST(synack_never_acknowledged_is_given_up),
	        WIRE_TEST(syn_repeated_gets_the_same_synack),
	        WIRE_TEST(handshake_ack_lost_data_completes_it),
	        WIRE_TEST(synack_with_wrong_ack_is_reset_and_connect_goes_on),
	        WIRE_TEST(syn_to_closed_port_gets_reset),
	        WIRE_TEST(reset_in_syn_received_frees_it_and_the_listener_goes_on),
	        WIRE_TEST(reset_refuses_connect),
	        WIRE_TEST(close_while_connecting_is_quiet_and_frees_it),
	        WIRE_TEST(isns_and_ports_differ_between_connections),
	        WIRE_TEST(mss_of_peer_limits_segments),
	        WIRE_TEST(mss_of_one_is_survived),
	        WIRE_TEST(window_scale_is_used_when_both_offer_it),
	        WIRE_TEST(window_scale_is_left_out_when_peer_does_not_offer_it),
	        WIRE_TEST(window_scale_beyond_14_counts_as_14),
	        WIRE_TEST(sack_is_offered_back_and_used_on_reorder),
	        WIRE_TEST(bind_and_connect_share_the_rules_of_ports),
	        WIRE_TEST(connect_without_a_route_is_enetunreach),
	        WIRE_TEST(connect_beyond_the_network_goes_to_the_gateway),
	        WIRE_TEST(endpoints_used_up_drop_syns_and_fail_connect),
	};

	return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}
