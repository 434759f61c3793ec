/* test_stacks.c - two stacks on one port that spreads by software: every connection belongs to one of them, a
 * listener to both.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[200000];
static const struct rig_spec two = {.stacks = 2};

/* Which stack a segment of this peer comes to. */
static uint32_t owner(const struct peer *p)
{
	return nic_owner(p->r->nic, AF_INET, (uint8_t[]){10, 1, 0, 2}, p->port, (uint8_t[]){10, 1, 0, 1},
	        p->local_port);
}

static void connections_are_served_by_their_owner(void **state)
{
	struct rig *r = rig_up(&two);
	int lep = app_listen(r, 80, 64);
	uint32_t of[2] = {0, 0};

	(void)state;
	assert_true(lep >= 0);
	for (uint16_t i = 0; i < 16; i++) {
		struct peer p;
		struct seg *s;
		uint32_t ep;

		peer_init(&p, r, (uint16_t)(40000 + i), 80);
		peer_send(&p, SYN, NULL, 0);
		s = peer_next(&p);
		assert_non_null(s);
		assert_int_equal(s->stack, owner(&p));
		peer_ack(&p);
		ep = app_accept(r, (uint32_t)lep);
		assert_int_not_equal(ep, ENDPOINT_NONE);
		assert_int_equal(app_ep(r, ep)->stack_idx, owner(&p));
		assert_true(stack_owns(r->stack[owner(&p)], ep));
		of[owner(&p)]++;
		peer_data(&p, 1000);
		assert_int_equal(app_read(r, ep, big, sizeof(big)), 1000);
		pattern_check(big, 0, 1000);
		pattern_fill(big, 0, 20000);
		assert_int_equal(app_write(r, ep, big, 20000), 20000);
		assert_int_equal(peer_drain(&p, 0), 20000);
		app_close(r, ep);
		assert_int_equal(peer_next(&p)->flags & FIN, FIN);
		peer_send(&p, FIN | ACK, NULL, 0);
	}
	assert_int_equal(of[0], 8);
	assert_int_equal(of[1], 8);
	rig_jump(r, 600, 100);
	assert_true(nic_stats(r->stack[0]->queue)->rx_handoff > 0);
	assert_int_equal(
	        nic_stats(r->stack[0]->queue)->rx_handoff, nic_stats(r->stack[1]->queue)->rx_handoff_in);
}

static void listener_close_resets_what_is_queued_at_both(void **state)
{
	struct rig *r = rig_up(&two);
	int lep = app_listen(r, 80, 64);
	struct peer p[8];

	(void)state;
	for (uint16_t i = 0; i < 8; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		peer_send(&p[i], SYN, NULL, 0);
		peer_next(&p[i]);
		if (i < 4)
			peer_ack(&p[i]);
	}
	app_close(r, (uint32_t)lep);
	for (int i = 0; i < 8; i++) {
		struct seg *s = peer_next(&p[i]);

		assert_non_null(s);
		assert_true(s->flags & RST);
		assert_int_equal(s->stack, owner(&p[i]));
	}
	assert_int_equal(rig_conns(r), 0);
	assert_true(app_listen(r, 80, 64) >= 0);
	for (uint16_t i = 0; i < 2; i++) {
		peer_init(&p[i], r, (uint16_t)(41000 + i), 80);
		peer_send(&p[i], SYN, NULL, 0);
		assert_int_equal(peer_next(&p[i])->flags, SYN | ACK);
	}
}

static void backlog_is_counted_by_each_stack(void **state)
{
	struct rig *r = rig_up(&two);
	uint32_t answered = 0;

	(void)state;
	app_listen(r, 80, 1);
	for (uint16_t i = 0; i < 10; i++) {
		struct peer p;

		peer_init(&p, r, (uint16_t)(40000 + i), 80);
		peer_send(&p, SYN, NULL, 0);
		answered += peer_next(&p) != NULL;
	}
	assert_int_equal(answered, 4);
	assert_int_equal(rig_stat(r, STAT_drop_syn_backlog), 6);
}

static void connect_takes_a_port_whose_answers_come_to_the_stack(void **state)
{
	struct rig *r = rig_up(&two);

	(void)state;
	for (uint32_t i = 0; i < 12; i++) {
		struct call c = {.op = CALL_CONNECT,
		        .endpoint = ENDPOINT_NONE,
		        .remote = {.family = AF_INET, .port = 7000, .ip = {10, 1, 0, 2}}};
		struct peer p;
		struct seg *s;

		assert_int_equal(app_call(r, i % 2, &c), 0);
		peer_init(&p, r, 7000, app_ep(r, c.endpoint)->local.port);
		assert_int_equal(owner(&p), i % 2);
		s = peer_next(&p);
		assert_non_null(s);
		assert_int_equal(s->stack, i % 2);
		peer_send(&p, SYN | ACK, NULL, 0);
		assert_int_equal(app_ep(r, c.endpoint)->state, EP_ESTABLISHED);
	}
}

static void connect_from_a_bound_port_names_the_stack_and_frees_the_port_at_the_end(void **state)
{
	struct rig *r = rig_up(&two);
	struct peer p;

	(void)state;
	for (uint16_t port = 5000; port < 5002; port++) {
		int b = app_bind(r, port, 0);
		struct call c = {.op = CALL_CONNECT,
		        .local = {.family = AF_INET, .port = port},
		        .remote = {.family = AF_INET, .port = 7000, .ip = {10, 1, 0, 2}}};
		struct call again = c;

		peer_init(&p, r, 7000, port);
		assert_true(b >= 0);
		assert_int_equal(app_call(r, 1 - owner(&p), &c), -EXDEV);
		assert_int_equal(c.value, owner(&p));
		assert_int_equal(app_call(r, owner(&p), &again), 0);
		app_release(r, (uint32_t)b, RELEASE_KEEP_PORT);
		assert_true(port_is_used(r->stack[0], port));
		assert_int_equal(app_bind(r, port, 0), -EADDRINUSE);
		peer_next(&p);
		peer_send(&p, SYN | ACK, NULL, 0);
		peer_skip(&p);
		app_close(r, again.endpoint);
		peer_next(&p);
		peer_send(&p, RST | ACK, NULL, 0);
		assert_false(port_is_used(r->stack[0], port));
	}
}

static void only_the_first_stack_answers_arp_and_both_learn(void **state)
{
	struct rig *r = rig_up(&two);
	struct call c = {
	        .op = CALL_CONNECT, .remote = {.family = AF_INET, .port = 7000, .ip = {10, 1, 0, 2}}};

	(void)state;
	rig_arp(r, 1, RIG_PEER, RIG_ADDRESS);
	assert_int_equal(r->arp_replies, 1);
	assert_int_equal(rig_stat(r, STAT_neigh_learned), 2);
	for (uint32_t i = 0; i < 2; i++) {
		struct call one = c;

		assert_int_equal(app_call(r, i, &one), 0);
	}
	assert_int_equal(r->arp_requests, 0);
}

static void bind_and_listen_belong_to_the_first_stack(void **state)
{
	struct rig *r = rig_up(&two);
	struct call b = {.op = CALL_BIND, .local = {.family = AF_INET, .port = 90}};
	struct call l = {.op = CALL_LISTEN, .value = 1};

	(void)state;
	assert_int_equal(app_call(r, 1, &b), -EINVAL);
	assert_int_equal(app_call(r, 1, &l), -EINVAL);
}

static void death_of_a_client_frees_at_both(void **state)
{
	struct rig *r = rig_up(&two);
	int lep = app_listen(r, 80, 64);
	struct peer p[6];

	(void)state;
	for (uint16_t i = 0; i < 6; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		if (i < 4)
			app_write(r, peer_open(&p[i], (uint32_t)lep), "x", 1);
		else
			peer_send(&p[i], SYN, NULL, 0);
		peer_skip(&p[i]);
	}
	app_die(r, 0);
	for (int i = 0; i < 4; i++) {
		peer_ack(&p[i]);
		expect(&p[i], FIN | ACK, p[i].irs + 2, 0);
		peer_send(&p[i], FIN | ACK, NULL, 0);
	}
	for (int i = 4; i < 6; i++)
		assert_true(peer_next(&p[i])->flags & RST);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(r->stack[i]->ep_free_count, r->stack[i]->ep_count);
		assert_int_equal(r->stack[i]->block_free_count, r->stack[i]->block_count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(connections_are_served_by_their_owner),
	        WIRE_TEST(listener_close_resets_what_is_queued_at_both),
	        WIRE_TEST(backlog_is_counted_by_each_stack),
	        WIRE_TEST(connect_takes_a_port_whose_answers_come_to_the_stack),
	        WIRE_TEST(connect_from_a_bound_port_names_the_stack_and_frees_the_port_at_the_end),
	        WIRE_TEST(only_the_first_stack_answers_arp_and_both_learn),
	        WIRE_TEST(bind_and_listen_belong_to_the_first_stack),
	        WIRE_TEST(death_of_a_client_frees_at_both),
	};

	return cmocka_run_group_tests_name("stacks", tests, NULL, NULL);
}
