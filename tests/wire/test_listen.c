/* test_listen.c - listeners: backlog, the accept ring, the end of a listener, several on one port.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[4096];

static void backlog_full_of_finished_connections_drops_syns_until_one_is_accepted(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 2);
	struct peer p[4];

	(void)state;
	for (uint16_t i = 0; i < 4; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		peer_send(&p[i], SYN, NULL, 0);
		if (i == 3)
			break;
		assert_non_null(peer_next(&p[i])); /* backlog + 1, as the kernel has it */
		peer_ack(&p[i]);
	}
	expect_none(&p[3]);
	assert_int_equal(rig_stat(r, STAT_drop_syn_backlog), 1);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	p[3].snd = p[3].iss;
	peer_send(&p[3], SYN, NULL, 0);
	assert_non_null(peer_next(&p[3]));
	peer_ack(&p[3]);
	for (int i = 0; i < 3; i++)
		assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	assert_int_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
}

static void backlog_counts_connections_under_way(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p[4];

	(void)state;
	app_listen(r, 80, 2);
	for (uint16_t i = 0; i < 4; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		peer_send(&p[i], SYN, NULL, 0);
		assert_int_equal(peer_next(&p[i]) != NULL, i < 3);
	}
	assert_int_equal(rig_stat(r, STAT_drop_syn_backlog), 1);
	peer_send(&p[0], RST, NULL, 0);
	p[3].snd = p[3].iss;
	peer_send(&p[3], SYN, NULL, 0);
	assert_non_null(peer_next(&p[3]));
}

static void second_listen_changes_the_backlog(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 0);
	struct call c = {.op = CALL_LISTEN, .endpoint = (uint32_t)lep, .value = 5};
	struct peer p[3];

	(void)state;
	for (uint16_t i = 0; i < 3; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		peer_send(&p[i], SYN, NULL, 0);
		assert_int_equal(peer_next(&p[i]) != NULL, i != 1);
		if (i == 1)
			assert_int_equal(app_call(r, 0, &c), 0);
	}
}

static void listener_close_resets_queued_and_unfinished_connections(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer done, open, taken;
	uint32_t ep;
	struct seg *s;

	(void)state;
	peer_init(&taken, r, 40000, 80);
	ep = peer_open(&taken, (uint32_t)lep);
	peer_init(&done, r, 40001, 80);
	peer_send(&done, SYN, NULL, 0);
	peer_next(&done);
	peer_ack(&done);
	peer_init(&open, r, 40002, 80);
	peer_send(&open, SYN, NULL, 0);
	peer_next(&open);
	app_close(r, (uint32_t)lep);
	s = peer_next(&done);
	assert_non_null(s);
	assert_true(s->flags & RST);
	s = peer_next(&open);
	assert_non_null(s);
	assert_true(s->flags & RST);
	assert_int_equal(app_ep(r, (uint32_t)lep)->state, EP_FREE);
	/* the one that was accepted lives on */
	assert_int_equal(rig_conns(r), 1);
	peer_data(&taken, 100);
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 100);
	/* nobody listens any more */
	peer_init(&open, r, 40003, 80);
	peer_send(&open, SYN, NULL, 0);
	expect(&open, RST | ACK, 0, 0);
	/* and somebody may again */
	assert_true(app_listen(r, 80, 16) >= 0);
	peer_send(&open, SYN, NULL, 0);
	assert_non_null(peer_next(&open));
}

static void listen_on_a_port_that_somebody_listens_on_is_eaddrinuse(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16), other;

	(void)state;
	assert_true(lep >= 0);
	assert_int_equal(app_bind(r, 80, CALL_F_REUSEADDR), -EADDRINUSE);
	app_close(r, (uint32_t)lep);
	/* two bound with SO_REUSEADDR, the first to listen wins */
	lep = app_bind(r, 81, CALL_F_REUSEADDR);
	other = app_bind(r, 81, CALL_F_REUSEADDR);
	assert_true(lep >= 0 && other >= 0);
	assert_int_equal(
	        app_call(r, 0, &(struct call){.op = CALL_LISTEN, .endpoint = (uint32_t)lep, .value = 1}), 0);
	assert_int_equal(
	        app_call(r, 0, &(struct call){.op = CALL_LISTEN, .endpoint = (uint32_t)other, .value = 1}),
	        -EADDRINUSE);
}

static void listen_on_a_connection_is_einval(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	assert_int_equal(
	        app_call(r, 0, &(struct call){.op = CALL_LISTEN, .endpoint = ep, .value = 1}), -EINVAL);
	assert_int_equal(
	        app_call(r, 0, &(struct call){.op = CALL_LISTEN, .endpoint = 60, .value = 1}), -EBADF);
}

static void accept_ring_keeps_the_order_and_wraps(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);

	(void)state;
	for (uint16_t i = 0; i < ACCEPT_RING_SIZE + 100; i++) {
		uint16_t port = (uint16_t)(20000 + i * 3);
		struct peer p[3];

		for (uint16_t k = 0; k < 3; k++) {
			peer_init(&p[k], r, (uint16_t)(port + k), 80);
			peer_send(&p[k], SYN, NULL, 0);
			assert_non_null(peer_next(&p[k]));
			peer_ack(&p[k]);
		}
		for (uint16_t k = 0; k < 3; k++) {
			uint32_t ep = app_accept(r, (uint32_t)lep);

			assert_int_not_equal(ep, ENDPOINT_NONE);
			assert_int_equal(app_ep(r, ep)->remote.port, port + k);
			app_release(r, ep, RELEASE_ABORT);
			peer_skip(&p[k]);
		}
	}
	assert_int_equal(rig_stat(r, STAT_tcp_accepted), 3 * (ACCEPT_RING_SIZE + 100));
	assert_int_equal(rig_conns(r), 0);
}

static void listener_with_an_address_goes_before_the_wildcard(void **state)
{
	struct rig *r = rig_up(NULL);
	struct call b = {.op = CALL_BIND,
	        .endpoint = ENDPOINT_NONE,
	        .local = {.family = AF_INET, .port = 80, .ip = {10, 1, 0, 1}},
	        .flags = CALL_F_REUSEPORT};
	struct call w = {.op = CALL_BIND,
	        .endpoint = ENDPOINT_NONE,
	        .local = {.family = AF_INET, .port = 80},
	        .flags = CALL_F_REUSEPORT};
	struct call l = {.op = CALL_LISTEN, .value = 16, .flags = CALL_F_REUSEPORT};
	struct peer p;

	(void)state;
	assert_int_equal(app_call(r, 0, &w), 0);
	assert_int_equal(app_call(r, 0, &b), 0);
	l.endpoint = w.endpoint;
	assert_int_equal(app_call(r, 0, &l), 0);
	l = (struct call){.op = CALL_LISTEN, .value = 16, .flags = CALL_F_REUSEPORT, .endpoint = b.endpoint};
	assert_int_equal(app_call(r, 0, &l), 0);
	peer_init(&p, r, 40000, 80);
	peer_open(&p, b.endpoint);
	assert_int_equal(app_accept(r, w.endpoint), ENDPOINT_NONE);
}

static void listeners_that_share_a_port_get_a_part_each(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t lep[2], got[2] = {0, 0};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct call l = {.op = CALL_LISTEN, .value = 100, .flags = CALL_F_REUSEPORT};

		lep[i] = (uint32_t)app_bind(r, 80, CALL_F_REUSEPORT);
		l.endpoint = lep[i];
		assert_int_equal(app_call(r, 0, &l), 0);
	}
	for (uint16_t i = 0; i < 40; i++) {
		struct peer p;

		peer_init(&p, r, (uint16_t)(40000 + i), 80);
		peer_send(&p, SYN, NULL, 0);
		peer_ack(&p);
		peer_next(&p);
		peer_ack(&p);
		for (int k = 0; k < 2; k++)
			if (app_accept(r, lep[k]) != ENDPOINT_NONE)
				got[k]++;
	}
	assert_int_equal(got[0] + got[1], 40);
	assert_in_range(got[0], 5, 35);
	/* one goes: the other takes all */
	app_close(r, lep[0]);
	for (uint16_t i = 0; i < 10; i++) {
		struct peer p;

		peer_init(&p, r, (uint16_t)(50000 + i), 80);
		peer_open(&p, lep[1]);
	}
}

static void watch_of_a_listener_tells_of_connections(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 300);
	int poller = poller_claim(&r->arena, 0);
	struct peer p;

	(void)state;
	/* more watches than fit the endpoint itself */
	for (int i = 0; i < WATCH_INLINE + WATCH_LISTENER; i++)
		assert_int_not_equal(
		        watch_claim(&r->arena, (uint32_t)lep, (uint32_t)poller, EPOLLIN), WATCH_NONE);
	assert_int_equal(watch_claim(&r->arena, (uint32_t)lep, (uint32_t)poller, EPOLLIN), WATCH_NONE);
	peer_init(&p, r, 40000, 80);
	peer_open(&p, (uint32_t)lep);
	uint32_t n = 0;

	for (uint32_t w = poller_drain(&r->arena, (uint32_t)poller); w; n++) {
		uint32_t next = atomic_load(&watch_at(&r->arena, w - 1)->next);

		assert_int_equal(watch_unqueue(&r->arena, w - 1), EPOLLIN);
		w = next;
	}
	assert_int_equal(n, WATCH_INLINE + WATCH_LISTENER);
	poller_free(&r->arena, (uint32_t)poller);
}

enum { ALONE = 3 };

struct alone {
	int poller[ALONE];
	uint32_t watch[ALONE];
};

/* Sleepers of client 0, 1, 0 that want to be woken alone, and a listener that both clients hold. */
static int alone_up(struct rig *r, struct alone *a)
{
	int lep = app_listen(r, 80, 300);

	hold_set(&r->arena, 1, (uint32_t)lep);
	for (int i = 0; i < ALONE; i++) {
		a->poller[i] = poller_claim(&r->arena, i % 2);
		a->watch[i] = watch_claim(
		        &r->arena, (uint32_t)lep, (uint32_t)a->poller[i], EPOLLIN | EPOLLEXCLUSIVE);
		assert_int_not_equal(a->watch[i], WATCH_NONE);
		poller_sleep(&r->arena, (uint32_t)a->poller[i]);
	}
	return lep;
}

static uint32_t alone_called(struct rig *r, struct alone *a)
{
	uint32_t n = 0;

	for (int i = 0; i < ALONE; i++)
		n += poller_has_ready(&r->arena, (uint32_t)a->poller[i]);
	return n;
}

static void alone_end(struct rig *r, struct alone *a)
{
	for (int i = 0; i < ALONE; i++)
		poller_free(&r->arena, (uint32_t)a->poller[i]);
}

static void knock(struct rig *r, uint16_t port)
{
	struct peer p;

	peer_init(&p, r, port, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
	peer_ack(&p);
}

static void connection_calls_one_exclusive_sleeper_and_each_its_own(void **state)
{
	struct rig *r = rig_up(NULL);
	struct alone a;
	uint64_t sent;
	int lep = alone_up(r, &a);

	(void)state;
	sent = rig_stat(r, STAT_wakeups_sent);
	for (uint32_t i = 1; i <= ALONE; i++) {
		knock(r, (uint16_t)(40000 + i));
		assert_int_equal(alone_called(r, &a), i);
		assert_int_equal(rig_stat(r, STAT_wakeups_sent) - sent, i);
	}
	knock(r, 40010); /* all are on their way */
	assert_int_equal(rig_stat(r, STAT_wakeups_sent) - sent, ALONE);
	app_shutdown(r, (uint32_t)lep, SHUT_RD);
	alone_end(r, &a);
}

static void exclusive_ones_that_do_not_sleep_are_called_on_the_way_to_one_that_does(void **state)
{
	struct rig *r = rig_up(NULL);
	struct alone a;

	(void)state;
	alone_up(r, &a);
	for (int i = 0; i < ALONE; i++)
		if (i != 1)
			poller_awake(&r->arena, (uint32_t)a.poller[i]);
	knock(r, 40001);
	assert_true(poller_has_ready(&r->arena, (uint32_t)a.poller[1]));
	alone_end(r, &a);
}

static void others_and_the_end_call_everybody(void **state)
{
	struct rig *r = rig_up(NULL);
	struct alone a;
	int lep = alone_up(r, &a), poller = poller_claim(&r->arena, 0);

	(void)state;
	watch_claim(&r->arena, (uint32_t)lep, (uint32_t)poller, EPOLLIN);
	knock(r, 40001);
	assert_int_equal(alone_called(r, &a), 1);
	assert_true(poller_has_ready(&r->arena, (uint32_t)poller));
	app_post(r, 0, POST_ENTRY(POST_NUDGE, 0, (uint32_t)lep));
	assert_int_equal(alone_called(r, &a), ALONE);
	poller_free(&r->arena, (uint32_t)poller);
	alone_end(r, &a);
}

static void death_of_the_one_that_was_called_calls_the_others(void **state)
{
	struct rig *r = rig_up(NULL);
	struct alone a;

	(void)state;
	alone_up(r, &a);
	poller_awake(&r->arena, (uint32_t)a.poller[1]);
	knock(r, 40001);
	if (poller_has_ready(&r->arena, (uint32_t)a.poller[1])) /* its turn came first, on the way */
		poller_drain(&r->arena, (uint32_t)a.poller[1]), watch_unqueue(&r->arena, a.watch[1]);
	app_die(r, 0);
	assert_true(poller_has_ready(&r->arena, (uint32_t)a.poller[1]));
	r->cl = 1;
	alone_end(r, &a);
}

static void options_of_the_listener_pass_to_its_connections(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_bind(r, 80, 0);
	struct call c = {.op = CALL_LISTEN,
	        .endpoint = (uint32_t)lep,
	        .value = 16,
	        .opt = APP_NODELAY | APP_KEEPALIVE};
	struct peer p;
	uint32_t ep;

	(void)state;
	assert_int_equal(app_call(r, 0, &c), 0);
	peer_init(&p, r, 40000, 80);
	ep = peer_open(&p, (uint32_t)lep);
	assert_int_equal(app_ep(r, ep)->app_flags, APP_NODELAY | APP_KEEPALIVE);
	app_write(r, ep, "a", 1);
	app_write(r, ep, "b", 1);
	expect(&p, ACK, p.irs + 1, 1);
	expect(&p, ACK, p.irs + 2, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(backlog_full_of_finished_connections_drops_syns_until_one_is_accepted),
	        WIRE_TEST(backlog_counts_connections_under_way),
	        WIRE_TEST(second_listen_changes_the_backlog),
	        WIRE_TEST(listener_close_resets_queued_and_unfinished_connections),
	        WIRE_TEST(listen_on_a_port_that_somebody_listens_on_is_eaddrinuse),
	        WIRE_TEST(listen_on_a_connection_is_einval),
	        WIRE_TEST(accept_ring_keeps_the_order_and_wraps),
	        WIRE_TEST(listener_with_an_address_goes_before_the_wildcard),
	        WIRE_TEST(listeners_that_share_a_port_get_a_part_each),
	        WIRE_TEST(watch_of_a_listener_tells_of_connections),
	        WIRE_TEST(connection_calls_one_exclusive_sleeper_and_each_its_own),
	        WIRE_TEST(exclusive_ones_that_do_not_sleep_are_called_on_the_way_to_one_that_does),
	        WIRE_TEST(others_and_the_end_call_everybody),
	        WIRE_TEST(death_of_the_one_that_was_called_calls_the_others),
	        WIRE_TEST(options_of_the_listener_pass_to_its_connections),
	};

	return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}
