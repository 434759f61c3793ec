/* test_port.c - who may have a port at which address: the rules of bind(2) and ip(7), table by table.
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define LOOP(last) (0x7f000000u | (last))
enum { ANY = 0, REUSE = CALL_F_REUSEADDR, GROUP = CALL_F_REUSEPORT };

static const struct rig_spec on = {.loopback = true};

static void port_conflicts_are_those_of_bind_2(void **state)
{
	static const struct {
		uint32_t ip_a, flags_a, ip_b, flags_b;
		bool listens;
		int rc;
	} rows[] = {
	        {LOOP(1), 0, LOOP(1), 0, false, -EADDRINUSE},
	        {LOOP(1), 0, LOOP(2), 0, false, 0},
	        {LOOP(1), 0, LOOP(2), 0, true, 0},
	        {LOOP(1), 0, RIG_ADDRESS, 0, true, 0},
	        {LOOP(1), 0, ANY, 0, false, -EADDRINUSE},
	        {ANY, 0, LOOP(1), 0, false, -EADDRINUSE},
	        {ANY, 0, RIG_ADDRESS, 0, false, -EADDRINUSE},
	        {ANY, REUSE, LOOP(1), 0, false, -EADDRINUSE},
	        {ANY, 0, LOOP(1), REUSE, false, -EADDRINUSE},
	        {ANY, REUSE, LOOP(1), REUSE, false, 0},
	        {LOOP(1), REUSE, LOOP(1), REUSE, false, 0},
	        {ANY, REUSE, LOOP(1), REUSE, true, -EADDRINUSE},
	        {LOOP(1), REUSE, ANY, REUSE, true, -EADDRINUSE},
	        {LOOP(1), REUSE, LOOP(1), REUSE, true, -EADDRINUSE},
	        {LOOP(1), REUSE, LOOP(2), REUSE, true, 0},
	        {ANY, GROUP, LOOP(1), GROUP, true, 0},
	        {LOOP(1), GROUP, LOOP(1), GROUP, true, 0},
	        {LOOP(1), GROUP, LOOP(1), 0, true, -EADDRINUSE},
	        {LOOP(1), GROUP, LOOP(1), REUSE, true, -EADDRINUSE},
	        {LOOP(1), GROUP | REUSE, LOOP(1), GROUP, true, 0},
	};
	struct rig *r = rig_up(&on);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int a = rows[i].listens ? app_listen_at(r, rows[i].ip_a, 80, rows[i].flags_a)
		                        : app_bind_at(r, rows[i].ip_a, 80, rows[i].flags_a),
		    b = app_bind_at(r, rows[i].ip_b, 80, rows[i].flags_b);

		assert_true(a >= 0);
		if ((b < 0 ? b : 0) != rows[i].rc)
			print_error("row %zu\n", i);
		assert_int_equal(b < 0 ? b : 0, rows[i].rc);
		if (b >= 0)
			app_close(r, (uint32_t)b);
		assert_true(port_is_used(r->stack[0], 80));
		app_close(r, (uint32_t)a);
		assert_false(port_is_used(r->stack[0], 80));
	}
}

static bool listens(const struct rig *r, uint16_t port)
{
	return atomic_load(&r->arena.hdr->port_listen[port / 32]) >> (port % 32) & 1;
}

static void only_one_of_two_bound_sockets_may_listen(void **state)
{
	struct rig *r = rig_up(&on);
	int a = app_bind_at(r, ANY, 80, REUSE), b = app_bind_at(r, LOOP(1), 80, REUSE);
	struct call c = {.op = CALL_LISTEN, .endpoint = (uint32_t)a, .value = 8, .flags = REUSE};

	(void)state;
	assert_true(a >= 0 && b >= 0);
	assert_false(listens(r, 80));
	assert_int_equal(app_call(r, 0, &c), 0);
	assert_true(listens(r, 80));
	c = (struct call){.op = CALL_LISTEN, .endpoint = (uint32_t)b, .value = 8, .flags = REUSE};
	assert_int_equal(app_call(r, 0, &c), -EADDRINUSE);
	app_close(r, (uint32_t)a);
	assert_false(listens(r, 80));
	c = (struct call){.op = CALL_LISTEN, .endpoint = (uint32_t)b, .value = 8, .flags = REUSE};
	assert_int_equal(app_call(r, 0, &c), 0);
	assert_true(listens(r, 80));
}

static void bitmap_of_listeners_tells_of_the_last_one(void **state)
{
	struct rig *r = rig_up(&on);
	int a = app_listen_at(r, LOOP(1), 80, 0), b = app_listen_at(r, LOOP(2), 80, 0);

	(void)state;
	assert_true(a >= 0 && b >= 0);
	app_close(r, (uint32_t)a);
	assert_true(listens(r, 80));
	app_close(r, (uint32_t)b);
	assert_false(listens(r, 80));
	assert_false(port_is_used(r->stack[0], 80));
}

static void connections_that_outlive_their_listener_keep_the_port_of_their_address(void **state)
{
	struct rig *r = rig_up(&on);
	int lep = app_listen_at(r, LOOP(1), 80, 0), ep = app_connect_from(r, 0, 0, 0, LOOP(1), 80);
	uint16_t port;

	(void)state;
	assert_true(lep >= 0 && ep >= 0);
	assert_int_not_equal(app_accept(r, (uint32_t)lep), ENDPOINT_NONE);
	port = app_ep(r, (uint32_t)ep)->local.port;
	app_close(r, (uint32_t)lep);
	assert_int_equal(app_bind_at(r, LOOP(1), 80, 0), -EADDRINUSE);
	assert_int_equal(app_bind_at(r, ANY, 80, 0), -EADDRINUSE);
	assert_true(app_bind_at(r, RIG_ADDRESS, 80, 0) >= 0);
	assert_true(app_bind_at(r, LOOP(1), 80, REUSE) >= 0);
	/* a port chosen for a connection is no obstacle */
	assert_true(app_bind_at(r, LOOP(1), port, 0) >= 0);
}

static void source_ports_towards_one_destination_follow_each_other(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t last = 0, range = PORT_LAST - PORT_FIRST + 1;

	(void)state;
	for (uint32_t i = 0; i < 5; i++) {
		int ep = app_connect(r, RIG_PEER, 80);
		uint32_t port;

		assert_true(ep >= 0);
		port = app_ep(r, (uint32_t)ep)->local.port;
		assert_in_range(port, PORT_FIRST, PORT_LAST);
		if (i)
			assert_int_equal((port - last + range) % range, 1);
		last = port;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(port_conflicts_are_those_of_bind_2),
	        WIRE_TEST(only_one_of_two_bound_sockets_may_listen),
	        WIRE_TEST(bitmap_of_listeners_tells_of_the_last_one),
	        WIRE_TEST(source_ports_towards_one_destination_follow_each_other),
	        WIRE_TEST(connections_that_outlive_their_listener_keep_the_port_of_their_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
