/* test_group.c - broadcasts and multicast groups: who gets them, what is sent, and what routers are told
 * (IGMP).
 */
#include "dgram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GROUP 0xe1020304u
#define BROADCAST (RIG_ADDRESS | 0xffff)

enum { QUERY = 0x11, REPORT = 0x16, LEAVE = 0x17 };

static uint8_t data[65536];

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The next packet must be this IGMP message; 0: none of any kind. */
static void expect_igmp_at(struct rig *r, uint8_t type, uint32_t group, uint32_t to, int line)
{
	struct packet *k = rig_packet(r);
	uint32_t s = 0;

	if (!type) {
		if (k)
			_fail(__FILE__, line);
		return;
	}
	if (!k)
		_fail(__FILE__, line);
	assert_int_equal(k->ip[0], 0x46);
	assert_int_equal(k->ip[8], 1);
	assert_int_equal(k->ip[9], 2);
	assert_int_equal(be32(k->ip + 20), 0x94040000);
	assert_int_equal(k->size, 32);
	for (int i = 24; i < 32; i += 2)
		s += (uint32_t)k->ip[i] << 8 | k->ip[i + 1];
	assert_int_equal((s & 0xffff) + (s >> 16), 0xffff);
	_assert_int_equal(k->ip[24], type, __FILE__, line);
	_assert_int_equal(be32(k->ip + 28), group, __FILE__, line);
	_assert_int_equal(be32(k->ip + 16), to, __FILE__, line);
	free(k);
}

#define expect_igmp(r, type, group, to) expect_igmp_at(r, type, group, to, __LINE__)
#define expect_silence(r) expect_igmp_at(r, 0, 0, 0, __LINE__)

static void igmp_arrive(struct rig *r, uint32_t queue, uint8_t type, uint8_t time, uint32_t group)
{
	uint8_t f[60] = {1, 0, 0x5e, 0, 0, 1}, *ip = f + 14;
	uint32_t s = 0;

	rig_mac(RIG_GATEWAY, f + 6);
	memcpy(f + 12,
	        (uint8_t[]){8, 0, 0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 1, 0, 254, 224, 0, 0, 1,
	                0x94, 4, 0, 0, type, time},
	        28);
	for (int i = 0; i < 4; i++)
		ip[28 + i] = (uint8_t)(group >> (24 - 8 * i));
	for (int i = 24; i < 32; i += 2)
		s += (uint32_t)ip[i] << 8 | ip[i + 1];
	s = ~((s & 0xffff) + (s >> 16));
	ip[26] = (uint8_t)(s >> 8);
	ip[27] = (uint8_t)s;
	rig_inject(r, queue, f, sizeof(f));
	rig_turn(r);
}

static void broadcast_comes_to_every_wildcard_endpoint_of_the_port(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});
	int ep[5];
	struct dg_peer p;

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		ep[i] = dg_bind_at(r, i % 2, 0, 5000, CALL_F_REUSEADDR, 0);
	ep[3] = dg_bind_at(r, 0, RIG_ADDRESS, 5000, CALL_F_REUSEADDR, 0);
	ep[4] = dg_bind_at(r, 1, BROADCAST, 5000, CALL_F_REUSEADDR, 0);
	dg_peer(&p, r, 5000);
	for (uint32_t i = 0; i < 2; i++) {
		p.dst = i ? BROADCAST : 0xffffffff;
		dg_arrive(&p, 100);
		for (int k = 0; k < 3; k++)
			dg_expect(r, ep[k], 9000, 0, 100);
	}
	dg_expect_none(r, ep[3]); /* bound to an address that it was not sent to */
	dg_expect(r, ep[4], 9000, 0, 100);
	dg_expect_none(r, ep[4]);
	/* connected ones only from their peer */
	assert_int_equal(dg_connect(r, ep[0], RIG_PEER, 9001), 0);
	p.dst = BROADCAST;
	p.mtu = 1500;
	dg_arrive(&p, 4000);
	dg_expect_none(r, ep[0]);
	dg_expect(r, ep[1], 9000, 0, 4000);
	dg_expect(r, ep[2], 9000, 0, 4000);
	dg_expect(r, ep[4], 9000, 0, 4000);
}

static void broadcast_is_sent_to_all_and_to_ourselves(void **state)
{
	static const uint32_t to[] = {0xffffffff, BROADCAST};
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000), other = dg_bind(r, 0, 5001);

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct dg_peer p = {0};

		assert_true(dg_send(r, ep, to[i], 5001, 2000));
		assert_int_equal(dg_sent(r, data, &p), 2000); /* the rig looks at the Ethernet address */
		pattern_check(data, 0, 2000);
		assert_int_equal(p.dst, to[i]);
		assert_int_equal(p.src, RIG_ADDRESS);
		dg_expect(r, other, 5000, 0, 2000);
		assert_true(dg_send(r, ep, to[i], 5000, 0)); /* and to the sender */
		assert_int_equal(dg_sent(r, data, NULL), 0);
		dg_expect(r, ep, 5000, 0, 0);
	}
	assert_int_equal(r->arp_requests, 0);
}

static void group_datagrams_come_once_somebody_has_joined(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});
	int ep = dg_bind_at(r, 1, 0, 5000, CALL_F_REUSEADDR, 0),
	    at = dg_bind_at(r, 0, GROUP, 5000, CALL_F_REUSEADDR, 0);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	p.dst = GROUP;
	for (p.sport = 9000; p.sport < 9004; p.sport++)
		dg_arrive(&p, 10);
	dg_expect_none(r, ep);
	assert_int_equal(rig_stat(r, STAT_drop_rx_not_ours), 4);
	assert_int_equal(dg_group(r, ep, GROUP, true), 0);
	for (p.sport = 9000; p.sport < 9004; p.sport++) {
		dg_arrive(&p, 10);
		dg_expect(r, ep, p.sport, 0, 10);
		dg_expect(r, at, p.sport, 0, 10);
	}
	p.dst = GROUP + 1;
	dg_arrive(&p, 10);
	dg_expect_none(r, ep);
	assert_int_equal(dg_group(r, ep, GROUP, false), 0);
	p.dst = GROUP;
	dg_arrive(&p, 10);
	dg_expect_none(r, ep);
	dg_expect_none(r, at);
	assert_int_equal(rig_stat(r, STAT_drop_rx_not_ours), 6);
}

static void group_is_left_with_the_last_member(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});
	int a = dg_bind_at(r, 0, 0, 5000, 0, 0), b = dg_bind_at(r, 1, 0, 5001, 0, 0);

	(void)state;
	assert_int_equal(dg_group(r, a, GROUP, true), 0);
	expect_igmp(r, REPORT, GROUP, GROUP);
	assert_int_equal(dg_group(r, b, GROUP, true), 0);
	expect_silence(r);
	assert_int_equal(dg_group(r, a, GROUP, true), -EADDRINUSE);
	assert_int_equal(dg_group(r, b, GROUP + 1, false), -EADDRNOTAVAIL);
	rig_jump(r, 12000, 500); /* once more, in case the first was lost */
	expect_igmp(r, REPORT, GROUP, GROUP);
	expect_silence(r);
	assert_int_equal(dg_group(r, a, GROUP, false), 0);
	expect_silence(r);
	app_close(r, (uint32_t)b); /* leaves, too */
	expect_igmp(r, LEAVE, GROUP, 0xe0000002);
	expect_silence(r);
	assert_false(group_is_joined(r->stack[1], GROUP));
	/* the death of a client is a leave as well */
	assert_int_equal(dg_group(r, a, GROUP + 5, true), 0);
	expect_igmp(r, REPORT, GROUP + 5, GROUP + 5);
	app_die(r, 0);
	rig_turn(r);
	expect_igmp(r, LEAVE, GROUP + 5, 0xe0000002);
}

static void queries_are_answered_in_time(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});
	int ep = dg_bind(r, 0, 5000);
	struct packet *k;

	(void)state;
	assert_int_equal(dg_group(r, ep, GROUP, true), 0);
	assert_int_equal(dg_group(r, ep, GROUP + 1, true), 0);
	rig_jump(r, 12000, 500);
	while ((k = rig_packet(r)))
		free(k);
	/* about all groups, at whatever stack it arrives */
	for (uint32_t queue = 0; queue < 2; queue++) {
		uint32_t seen = 0;

		igmp_arrive(r, queue, QUERY, 50, 0);
		rig_jump(r, 5000, 100);
		while ((k = rig_packet(r))) {
			assert_int_equal(k->ip[24], REPORT);
			seen += be32(k->ip + 28) - GROUP + 1;
			free(k);
		}
		assert_int_equal(seen, 1 + 2);
	}
	/* about one, at once */
	igmp_arrive(r, 0, QUERY, 10, GROUP + 1);
	expect_igmp(r, REPORT, GROUP + 1, GROUP + 1);
	/* another member has answered: then we need not, nor tell that we leave */
	igmp_arrive(r, 0, QUERY, 100, GROUP);
	igmp_arrive(r, 0, REPORT, 0, GROUP);
	rig_jump(r, 11000, 500);
	expect_silence(r);
	assert_int_equal(dg_group(r, ep, GROUP, false), 0);
	expect_silence(r);
	assert_int_equal(dg_group(r, ep, GROUP + 1, false), 0);
	expect_igmp(r, LEAVE, GROUP + 1, 0xe0000002);
}

static void group_datagrams_are_sent_and_looped_on_wish(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000), member = dg_bind(r, 0, 5001);
	struct dg_peer p = {0};

	(void)state;
	/* the rig checks 01:00:5e with 23 bits of the group */
	assert_true(dg_send(r, ep, 0xe1ff0304, 5001, 100));
	assert_int_equal(dg_sent(r, data, &p), 100);
	assert_int_equal(p.dst, 0xe1ff0304);
	assert_true(dg_send_flags(r, ep, GROUP, 5001, 100, DGRAM_MULTICAST_LOOP)); /* nobody is there */
	assert_int_equal(dg_sent(r, data, NULL), 100);
	dg_expect_none(r, member);
	assert_int_equal(dg_group(r, member, GROUP, true), 0);
	expect_igmp(r, REPORT, GROUP, GROUP);
	assert_true(dg_send_flags(r, ep, GROUP, 5001, 3000, DGRAM_MULTICAST_LOOP));
	assert_int_equal(dg_sent(r, data, NULL), 3000);
	dg_expect(r, member, 5000, 0, 3000);
	assert_true(dg_send(r, ep, GROUP, 5001, 100)); /* without the wish */
	assert_int_equal(dg_sent(r, data, NULL), 100);
	dg_expect_none(r, member);
	/* to a member alone: it does not leave the host with TTL 0 */
	{
		struct dgram_head h;

		dg_head(&h, GROUP, 5001, 8);
		h.ttl = 0;
		h.flags = DGRAM_MULTICAST_LOOP;
		pattern_fill(data, 0, 8);
		assert_true(dg_put(r, ep, &h, data, 8));
		post_doorbell(&r->at[0], app_ep(r, (uint32_t)ep), DOORBELL_TX);
		rig_turn(r);
		assert_int_equal(dg_sent(r, data, NULL), -1);
		dg_expect(r, member, 5000, 0, 8);
	}
}

static void groups_have_a_limit(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);

	(void)state;
	for (uint32_t i = 0; i < UDP_GROUPS; i++)
		assert_int_equal(dg_group(r, ep, GROUP + i, true), 0);
	assert_int_equal(dg_group(r, ep, GROUP + UDP_GROUPS, true), -ENOBUFS);
	for (uint32_t i = UDP_GROUPS; i < GROUP_COUNT; i++) {
		if (i % UDP_GROUPS == 0)
			ep = dg_bind(r, 0, 0);
		assert_int_equal(dg_group(r, ep, GROUP + i, true), 0);
	}
	ep = dg_bind(r, 0, 0);
	assert_int_equal(dg_group(r, ep, GROUP + GROUP_COUNT, true), -ENOBUFS);
	assert_int_equal(dg_group(r, ep, GROUP, true), 0); /* one that is there costs nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(broadcast_comes_to_every_wildcard_endpoint_of_the_port),
	        WIRE_TEST(broadcast_is_sent_to_all_and_to_ourselves),
	        WIRE_TEST(group_datagrams_come_once_somebody_has_joined),
	        WIRE_TEST(group_is_left_with_the_last_member),
	        WIRE_TEST(queries_are_answered_in_time),
	        WIRE_TEST(group_datagrams_are_sent_and_looped_on_wish),
	        WIRE_TEST(groups_have_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
