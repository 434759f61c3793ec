/* test_iface.c - what the kernel says of the one interface that every network namespace has. Changes are in
 * tests/e2e/follow.sh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "iface.h"

static int up(void **state)
{
	struct rtnl *n = calloc(1, sizeof(*n));

	*state = n;
	return n ? rtnl_open(n) : -1;
}

static int down(void **state)
{
	rtnl_close(*state);
	free(*state);
	return 0;
}

static void loopback_is_told_as_it_is(void **state)
{
	struct iface *i = calloc(1, sizeof(*i));

	assert_int_equal(iface_read(*state, 1, i), 0);
	assert_string_equal(i->name, "lo");
	assert_int_equal(i->index, 1);
	assert_false(i->has_mac);
	assert_true(i->mtu >= 1500);
	assert_int_equal(i->master, 0);
	assert_false(i->has_default);
	free(i);
}

static void interface_that_is_not_there_is_said(void **state)
{
	struct iface *i = calloc(1, sizeof(*i));

	assert_int_equal(iface_read(*state, 0x7ffffff0, i), -ENODEV);
	/* the socket goes on */
	assert_int_equal(iface_read(*state, 1, i), 0);
	free(i);
}

struct sum {
	uint32_t count, loopback;
};

static void add(void *arg, int index, const struct iface_addr *a)
{
	struct sum *s = arg;

	s->count++;
	if (index == 1 && a->ip[0] == 127)
		s->loopback++;
	assert_in_range(a->prefix, 0, 32);
}

/* Where the loopback interface is down there is nothing to compare with. */
static void addresses_and_route_agree(void **state)
{
	const uint8_t ip[4] = {127, 0, 0, 1};
	struct iface *i = calloc(1, sizeof(*i));
	struct sum sum = {0};

	assert_int_equal(iface_read(*state, 1, i), 0);
	assert_int_equal(iface_addresses(*state, add, &sum), 0);
	assert_int_equal(sum.loopback, i->addr_count);
	if (i->is_up && i->addr_count)
		assert_int_equal(iface_towards(*state, AF_INET, ip), 1);
	free(i);
}

/* In a namespace of its own, which only root can have everywhere. The last test: it stays there. */
static void gateway_is_that_of_the_lowest_metric(void **state)
{
	static const uint8_t near[4] = {192, 0, 2, 3}, plain[4] = {192, 0, 2, 4};
	struct iface *i = calloc(1, sizeof(*i));
	struct rtnl n;

	(void)state;
	if (unshare(CLONE_NEWNET) ||
	        system("ip link add va type veth peer name vb && ip link set va up && ip addr add 192.0.2.1/24 dev va && "
	               "ip route add default via 192.0.2.2 dev va metric 300 && "
	               "ip route add default via 192.0.2.3 dev va metric 200")) {
		free(i);
		skip();
	}
	assert_int_equal(rtnl_open(&n), 0);
	assert_int_equal(iface_read(&n, (int)if_nametoindex("va"), i), 0);
	assert_true(i->has_default && i->has_gateway);
	assert_memory_equal(i->gateway, near, 4);
	assert_int_equal(i->gateway_metric, 200);
	assert_int_equal(system("ip route append default via 192.0.2.4 dev va metric 0"), 0);
	assert_int_equal(iface_read(&n, (int)if_nametoindex("va"), i), 0);
	assert_memory_equal(i->gateway, plain, 4);
	assert_int_equal(i->gateway_metric, 0);
	rtnl_close(&n);
	free(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup_teardown(loopback_is_told_as_it_is, up, down),
	        cmocka_unit_test_setup_teardown(interface_that_is_not_there_is_said, up, down),
	        cmocka_unit_test_setup_teardown(addresses_and_route_agree, up, down),
	        cmocka_unit_test(gateway_is_that_of_the_lowest_metric),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
