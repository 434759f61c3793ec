/* test_loop.c - option loopback = pronk: packets to 127.0.0.0/8 and to our own address stay inside, and
 * nothing of the wire is taken for one of them.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define LOOP(last) (0x7f000000u | (last))

static uint8_t big[300000];
static const struct rig_spec on = {.loopback = true}, two = {.loopback = true, .stacks = 2};

static uint32_t ip_of(const struct sock_addr *a)
{
	return (uint32_t)a->ip[0] << 24 | (uint32_t)a->ip[1] << 16 | (uint32_t)a->ip[2] << 8 | a->ip[3];
}

static uint32_t state_of(const struct rig *r, uint32_t ep)
{
	return atomic_load(&app_ep(r, ep)->state);
}

/* Nothing was sent, nobody was asked for. */
static void wire_is_silent(const struct rig *r)
{
	assert_null(r->segs);
	assert_int_equal(r->arp_requests, 0);
	assert_int_equal(r->other_frames, 0);
}

/* Connects and accepts. The connecting end; *other is the accepted one. */
static uint32_t local_pair(struct rig *r, uint32_t stack, uint32_t lep, uint32_t from, uint16_t from_port,
        uint32_t ip, uint16_t port, uint32_t *other)
{
	int ep = app_connect_from(r, stack, from, from_port, ip, port);

	assert_true(ep >= 0);
	assert_int_equal(state_of(r, (uint32_t)ep), EP_ESTABLISHED);
	*other = app_accept(r, lep);
	assert_int_not_equal(*other, ENDPOINT_NONE);
	return (uint32_t)ep;
}

/* size bytes one way, in pieces that the send ring takes. */
static void stream(struct rig *r, uint32_t from, uint32_t to, uint32_t size)
{
	static uint8_t got[sizeof(big)];
	uint32_t sent = 0, read = 0;

	pattern_fill(big, 0, size);
	for (int i = 0; read < size; i++) {
		uint32_t n;

		assert_true(i < 1000);
		sent += app_write(r, from, big + sent, size - sent);
		n = app_read(r, to, got, sizeof(got));
		pattern_check(got, read, n);
		read += n;
		if (!n)
			rig_run(r, 1);
	}
	assert_int_equal(sent, size);
}

static void connection_to_a_loopback_address_never_reaches_the_port(void **state)
{
	struct rig *r = rig_up(&on);
	int lep = app_listen(r, 80, 8);
	uint32_t a, b;

	(void)state;
	a = local_pair(r, 0, (uint32_t)lep, 0, 0, LOOP(1), 80, &b);
	assert_int_equal(ip_of(&app_ep(r, a)->local), LOOP(1));
	assert_int_equal(ip_of(&app_ep(r, a)->remote), LOOP(1));
	assert_int_equal(app_ep(r, a)->remote.port, 80);
	assert_int_equal(ip_of(&app_ep(r, b)->local), LOOP(1));
	assert_int_equal(app_ep(r, b)->local.port, 80);
	assert_int_equal(ip_of(&app_ep(r, b)->remote), LOOP(1));
	assert_int_equal(app_ep(r, b)->remote.port, app_ep(r, a)->local.port);
	/* segments as large as one buffer holds: 2,048 bytes less headers */
	assert_int_equal(atomic_load(&app_ep(r, a)->info_mss), 2008);
	stream(r, a, b, sizeof(big));
	stream(r, b, a, sizeof(big));
	app_close(r, a);
	assert_true(atomic_load(&app_ep(r, b)->flags) & EP_RX_EOF);
	app_close(r, b);
	wire_is_silent(r);
	assert_true(rig_stat(r, STAT_loop_packets) > 2 * sizeof(big) / 2008);
	assert_true(rig_stat(r, STAT_loop_bytes) > 2 * sizeof(big));
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 0);
	assert_int_equal(nic_stats(r->stack[0]->queue)->rx_packets, 0);
}

static void connection_to_our_own_address_comes_from_it_and_stays_inside(void **state)
{
	struct rig *r = rig_up(&on);
	int lep = app_listen_at(r, RIG_ADDRESS, 80, 0);
	uint32_t a, b;

	(void)state;
	a = local_pair(r, 0, (uint32_t)lep, 0, 0, RIG_ADDRESS, 80, &b);
	assert_int_equal(ip_of(&app_ep(r, a)->local), RIG_ADDRESS);
	assert_int_equal(ip_of(&app_ep(r, b)->local), RIG_ADDRESS);
	assert_int_equal(ip_of(&app_ep(r, b)->remote), RIG_ADDRESS);
	stream(r, a, b, 50000);
	stream(r, b, a, 50000);
	app_close(r, b);
	app_close(r, a);
	wire_is_silent(r);
}

static void every_loopback_address_is_ours_and_listeners_there_are_told_apart(void **state)
{
	struct rig *r = rig_up(&on);
	int two_ = app_listen_at(r, LOOP(2), 80, 0), three = app_listen_at(r, LOOP(0x010203), 80, 0), ep;
	uint32_t b;

	(void)state;
	assert_true(two_ >= 0 && three >= 0);
	local_pair(r, 0, (uint32_t)two_, 0, 0, LOOP(2), 80, &b);
	assert_int_equal(ip_of(&app_ep(r, b)->local), LOOP(2));
	assert_int_equal(ip_of(&app_ep(r, b)->remote), LOOP(1));
	local_pair(r, 0, (uint32_t)three, LOOP(9), 0, LOOP(0x010203), 80, &b);
	assert_int_equal(ip_of(&app_ep(r, b)->local), LOOP(0x010203));
	assert_int_equal(ip_of(&app_ep(r, b)->remote), LOOP(9));
	assert_int_equal(app_accept(r, (uint32_t)two_), ENDPOINT_NONE);
	ep = app_connect_from(r, 0, 0, 0, LOOP(1), 80);
	assert_true(ep >= 0);
	assert_int_equal(state_of(r, (uint32_t)ep), EP_CLOSED);
	assert_int_equal(atomic_load(&app_ep(r, (uint32_t)ep)->error), ECONNREFUSED);
	wire_is_silent(r);
}

static void our_address_and_a_loopback_address_reach_each_other(void **state)
{
	struct rig *r = rig_up(&on);
	int lep = app_listen(r, 80, 8);
	uint32_t b;

	(void)state;
	local_pair(r, 0, (uint32_t)lep, RIG_ADDRESS, 0, LOOP(1), 80, &b);
	assert_int_equal(ip_of(&app_ep(r, b)->remote), RIG_ADDRESS);
	local_pair(r, 0, (uint32_t)lep, LOOP(4), 0, RIG_ADDRESS, 80, &b);
	assert_int_equal(ip_of(&app_ep(r, b)->remote), LOOP(4));
	wire_is_silent(r);
}

static void loopback_source_to_the_network_is_einval(void **state)
{
	struct rig *r = rig_up(&on);

	(void)state;
	assert_int_equal(app_connect_from(r, 0, LOOP(1), 0, RIG_PEER, 80), -EINVAL);
	assert_int_equal(app_connect_from(r, 0, RIG_PEER, 0, LOOP(1), 80), -EADDRNOTAVAIL);
	assert_int_equal(app_bind_at(r, RIG_PEER, 80, 0), -EADDRNOTAVAIL);
	wire_is_silent(r);
}

static void switched_off_nothing_is_a_loopback_address(void **state)
{
	struct rig *r = rig_up(NULL);

	(void)state;
	app_listen(r, 80, 8);
	assert_int_equal(app_connect_from(r, 0, 0, 0, LOOP(1), 80), -ENETUNREACH);
	assert_int_equal(app_bind_at(r, LOOP(1), 80, 0), -EADDRNOTAVAIL);
	assert_int_equal(rig_stat(r, STAT_loop_packets), 0);
}

/* A SYN as it might come from the wire. */
static void syn(struct rig *r, uint32_t from, uint32_t to)
{
	uint8_t f[60] = {0x02, 0, 0, 0, 0, 0x01};

	memcpy(f + 12, (uint8_t[]){0x08, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6}, 12);
	for (int i = 0; i < 4; i++) {
		f[26 + i] = (uint8_t)(from >> (24 - 8 * i));
		f[30 + i] = (uint8_t)(to >> (24 - 8 * i));
	}
	memcpy(f + 34, (uint8_t[]){0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff}, 16);
	rig_frame(r, f, 54);
}

static void martians_of_the_wire_are_dropped(void **state)
{
	static const bool ways[] = {true, false};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct rig *r = rig_up(ways[i] ? &on : NULL);
		int lep = app_listen(r, 80, 8);

		syn(r, RIG_PEER, LOOP(1));
		syn(r, LOOP(1), RIG_ADDRESS);
		syn(r, LOOP(1), LOOP(1));
		syn(r, RIG_ADDRESS, RIG_ADDRESS);
		assert_int_equal(rig_stat(r, STAT_drop_rx_martian), 4);
		assert_int_equal(rig_conns(r), 0);
		wire_is_silent(r);
		syn(r, RIG_PEER, RIG_ADDRESS);
		assert_non_null(r->segs);
		assert_int_equal(r->segs->flags, SYN | ACK);
		assert_int_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
		if (!i)
			assert_int_equal(rig_end(NULL), 0);
	}
}

static void listener_on_a_loopback_address_is_not_there_for_the_wire(void **state)
{
	struct rig *r = rig_up(&on);
	struct peer p;

	(void)state;
	assert_true(app_listen_at(r, LOOP(1), 80, 0) >= 0);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_int_equal(peer_next(&p)->flags & RST, RST);
}

static void bound_socket_connects_from_where_it_is_bound_and_gives_the_port_back(void **state)
{
	struct rig *r = rig_up(&two);
	int lep = app_listen(r, 80, 8);

	(void)state;
	for (uint16_t port = 5000; port < 5008; port++) {
		int bound = app_bind_at(r, LOOP(3), port, 0);
		uint32_t a, b;

		assert_true(bound >= 0);
		a = local_pair(r, port % 2, (uint32_t)lep, LOOP(3), port, LOOP(1), 80, &b);
		app_release(r, (uint32_t)bound, RELEASE_KEEP_PORT);
		assert_int_equal(ip_of(&app_ep(r, b)->remote), LOOP(3));
		assert_int_equal(app_ep(r, b)->remote.port, port);
		assert_int_equal(app_bind_at(r, LOOP(3), port, 0), -EADDRINUSE);
		assert_int_equal(app_connect_from(r, port % 2, LOOP(3), port, LOOP(1), 80), -EADDRNOTAVAIL);
		stream(r, a, b, 10000);
		app_close(r, b);
		app_close(r, a);
		assert_false(port_is_used(r->stack[0], port));
	}
}

static void two_stacks_carry_both_ends_wherever_their_tuples_belong(void **state)
{
	struct rig *r = rig_up(&two);
	int lep = app_listen(r, 80, 64);
	uint32_t a[32], b[32], seen[2][2] = {{0}};

	(void)state;
	for (uint32_t i = 0; i < 32; i++) {
		a[i] = local_pair(
		        r, i % 2, (uint32_t)lep, 0, 0, i % 4 < 2 ? LOOP(1) : RIG_ADDRESS, 80, &b[i]);
		seen[app_ep(r, a[i])->stack_idx][app_ep(r, b[i])->stack_idx]++;
		assert_int_equal(app_ep(r, a[i])->stack_idx, i % 2);
	}
	for (uint32_t i = 0; i < 32; i++) {
		stream(r, a[i], b[i], 20000);
		stream(r, b[i], a[i], 20000);
	}
	for (uint32_t i = 0; i < 32; i++) {
		app_close(r, a[i]);
		app_close(r, b[i]);
	}
	/* by chance each way has some; that none has is as good as impossible */
	assert_true(seen[0][1] + seen[1][0] > 0);
	assert_true(seen[0][0] + seen[1][1] > 0);
	assert_true(nic_stats(r->stack[0]->queue)->rx_handoff > 0);
	assert_int_equal(rig_stat(r, STAT_tcp_retransmits), 0);
	wire_is_silent(r);
}

static void socket_that_connects_to_itself_talks_to_itself(void **state)
{
	struct rig *r = rig_up(&on);
	int bound = app_bind_at(r, LOOP(1), 5000, 0), ep;

	(void)state;
	ep = app_connect_from(r, 0, LOOP(1), 5000, LOOP(1), 5000);
	assert_true(bound >= 0 && ep >= 0);
	app_release(r, (uint32_t)bound, RELEASE_KEEP_PORT);
	assert_int_equal(state_of(r, (uint32_t)ep), EP_ESTABLISHED);
	assert_int_equal(rig_conns(r), 1);
	stream(r, (uint32_t)ep, (uint32_t)ep, 100000);
	app_shutdown(r, (uint32_t)ep, SHUT_WR);
	assert_true(atomic_load(&app_ep(r, (uint32_t)ep)->flags) & EP_RX_EOF);
	app_close(r, (uint32_t)ep);
	wire_is_silent(r);
}

static void time_wait_of_a_connection_to_ourselves_gives_way_to_a_new_one(void **state)
{
	struct rig *r = rig_up(&on);
	int lep = app_listen(r, 80, 8);

	(void)state;
	for (int i = 0; i < 5; i++) {
		int bound = app_bind_at(r, LOOP(3), 5000, CALL_F_KERNEL_BOUND);
		uint32_t a, b;

		assert_true(bound >= 0);
		a = local_pair(r, 0, (uint32_t)lep, LOOP(3), 5000, LOOP(1), 80, &b);
		app_release(r, (uint32_t)bound, RELEASE_KEEP_PORT);
		stream(r, a, b, 5000);
		app_close(r, i % 2 ? a : b); /* TIME_WAIT is once here, once there */
		app_close(r, i % 2 ? b : a);
		assert_int_equal(rig_conns(r), 1);
	}
}

static void lost_packets_are_sent_again(void **state)
{
	struct rig *r = rig_up(&on);
	int lep = app_listen(r, 80, 8);
	uint32_t a, b;

	(void)state;
	a = local_pair(r, 0, (uint32_t)lep, 0, 0, LOOP(1), 80, &b);
	for (int i = 0; i < 4; i++) {
		nic_fake_fail_alloc(r->nic, 2);
		stream(r, a, b, 30000);
		stream(r, b, a, 30000);
	}
	assert_true(nic_stats(r->stack[0]->queue)->drop_tx_nobuf >= 8);
	wire_is_silent(r);
}

static void death_of_one_client_ends_the_connection_of_the_other(void **state)
{
	struct rig *r = rig_up(&two);
	int lep = app_listen(r, 80, 8), ep;
	uint32_t b;

	(void)state;
	r->cl = 1;
	ep = app_connect_from(r, 1, 0, 0, LOOP(1), 80);
	assert_true(ep >= 0);
	r->cl = 0;
	b = app_accept(r, (uint32_t)lep);
	assert_int_not_equal(b, ENDPOINT_NONE);
	app_die(r, 1);
	assert_true(atomic_load(&app_ep(r, b)->flags) & EP_RX_EOF);
	assert_int_equal(state_of(r, b), EP_ESTABLISHED);
	app_close(r, b);
	wire_is_silent(r);
}

static void echo_request_to_ourselves_is_no_business_of_the_wire(void **state)
{
	struct rig *r = rig_up(&on);
	uint8_t f[98] = {0x02, 0, 0, 0, 0, 0x01, 0x02, 0xaa, 10, 1, 0, 2, 0x08, 0, 0x45, 0, 0, 84, 0, 0, 0, 0,
	        64, 1, 0, 0, 127, 0, 0, 1, 10, 1, 0, 1, 8, 0, 0xf7, 0xff};

	(void)state;
	rig_frame(r, f, sizeof(f));
	assert_int_equal(rig_stat(r, STAT_drop_rx_martian), 1);
	wire_is_silent(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(connection_to_a_loopback_address_never_reaches_the_port),
	        WIRE_TEST(connection_to_our_own_address_comes_from_it_and_stays_inside),
	        WIRE_TEST(every_loopback_address_is_ours_and_listeners_there_are_told_apart),
	        WIRE_TEST(our_address_and_a_loopback_address_reach_each_other),
	        WIRE_TEST(loopback_source_to_the_network_is_einval),
	        WIRE_TEST(switched_off_nothing_is_a_loopback_address),
	        WIRE_TEST(martians_of_the_wire_are_dropped),
	        WIRE_TEST(listener_on_a_loopback_address_is_not_there_for_the_wire),
	        WIRE_TEST(bound_socket_connects_from_where_it_is_bound_and_gives_the_port_back),
	        WIRE_TEST(two_stacks_carry_both_ends_wherever_their_tuples_belong),
	        WIRE_TEST(socket_that_connects_to_itself_talks_to_itself),
	        WIRE_TEST(time_wait_of_a_connection_to_ourselves_gives_way_to_a_new_one),
	        WIRE_TEST(lost_packets_are_sent_again),
	        WIRE_TEST(death_of_one_client_ends_the_connection_of_the_other),
	        WIRE_TEST(echo_request_to_ourselves_is_no_business_of_the_wire),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
