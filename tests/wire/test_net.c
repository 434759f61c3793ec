/* test_net.c - the kernel's interface changes under the port: address, gateway, MTU, link, permanent
 * neighbours.
 */
#include "peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NEW = 0x0a010005u, OTHER_GATEWAY = 0x0a0100fdu, FAR = 0x0a630001u };

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* What the interface says from now on; the usual with the exceptions that a test makes. */
struct change {
	uint32_t address, gateway, mtu, neigh;
	uint8_t neigh_mac[6];
	bool no_address, no_gateway, is_down, must_greet;
};

static void change(struct rig *r, struct change c)
{
	struct stack_net *n = calloc(1, sizeof(*n) + sizeof(n->neigh[0]));
	struct stack_msg m[RIG_STACKS] = {0};

	n->left = r->stacks;
	if (!c.no_address) {
		put32(n->address, c.address ? c.address : RIG_ADDRESS);
		put32(n->netmask, 0xffff0000u);
	} else {
		put32(n->netmask, 0xffffffffu);
	}
	n->prefix = c.no_address ? 32 : 16;
	n->has_gateway = !c.no_gateway && !c.no_address;
	put32(n->gateway, c.gateway ? c.gateway : RIG_GATEWAY);
	n->is_up = !c.is_down;
	n->must_greet = c.must_greet;
	n->mtu = (uint16_t)(c.mtu ? c.mtu : 1500);
	if (c.neigh) {
		n->neigh_count = 1;
		put32(n->neigh[0].ip, c.neigh);
		memcpy(n->neigh[0].mac, c.neigh_mac, 6);
	}
	r->address = c.address ? c.address : RIG_ADDRESS;
	r->gateway = c.gateway ? c.gateway : RIG_GATEWAY;
	r->fixed = c.neigh;
	memcpy(r->fixed_mac, c.neigh_mac, 6);
	for (uint32_t i = 0; i < r->stacks; i++) {
		m[i].fn = stack_net_changed;
		m[i].ptr = n;
		stack_post(r->stack[i], &m[i]);
	}
	rig_turn(r);
}

static uint32_t now_address(const struct rig *r)
{
	uint32_t ip = arena_net(r->arena.hdr).address;

	return get32((const uint8_t *)&ip);
}

static void new_address_is_what_clients_and_peers_find(void **state)
{
	struct rig *r = *state = rig_up(NULL);

	assert_int_equal(app_bind_at(r, NEW, 80, 0), -EADDRNOTAVAIL);
	change(r, (struct change){.address = NEW});
	assert_int_equal(now_address(r), NEW);
	assert_true(arena_net(r->arena.hdr).is_usable);
	assert_int_equal(app_bind_at(r, RIG_ADDRESS, 80, 0), -EADDRNOTAVAIL);
	assert_true(app_bind_at(r, NEW, 80, 0) >= 0);
	/* who asks for the old one gets no answer any more */
	r->arp_replies = 0;
	rig_arp(r, 1, RIG_PEER, RIG_ADDRESS);
	assert_int_equal(r->arp_replies, 0);
	rig_arp(r, 1, RIG_PEER, NEW);
	assert_int_equal(r->arp_replies, 1);
}

static void connection_of_the_old_address_rests_and_goes_on_when_it_is_back(void **state)
{
	struct rig *r = *state = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), dropped;
	uint8_t buf[100];

	change(r, (struct change){.address = NEW});
	dropped = (uint32_t)rig_stat(r, STAT_drop_tx_no_route);
	pattern_fill(buf, 0, sizeof(buf));
	assert_int_equal(app_write(r, ep, buf, sizeof(buf)), sizeof(buf));
	rig_run(r, 100);
	expect_none(&p);
	assert_true(rig_stat(r, STAT_drop_tx_no_route) > dropped);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	peer_data(&p, 10);
	assert_true(rig_stat(r, STAT_drop_rx_not_ours) > 0);
	assert_int_equal(atomic_load(&app_ep(r, ep)->rx_bytes), 0);

	change(r, (struct change){0});
	rig_run(r, 3000);
	assert_int_equal(peer_drain(&p, 0), sizeof(buf));
	/* the peer sends again what was lost */
	p.snd -= 10;
	peer_data(&p, 10);
	assert_int_equal(atomic_load(&app_ep(r, ep)->rx_bytes), 10);
}

static void wildcard_listener_serves_the_new_address(void **state)
{
	struct rig *r = *state = rig_up(NULL);
	uint32_t l = (uint32_t)app_listen_at(r, 0, 80, 0);
	struct peer p;
	struct endpoint *ep;
	uint32_t conn;

	assert_true((int32_t)l >= 0);
	change(r, (struct change){.address = NEW});
	peer_init(&p, r, 40000, 80);
	p.to = NEW;
	conn = peer_open(&p, l);
	ep = app_ep(r, conn);
	assert_int_equal(get32(ep->local.ip), NEW);
	peer_send(&p, RST | ACK, NULL, 0); /* as peers are thought to talk to the usual address */
}

static void without_an_address_nothing_is_ours(void **state)
{
	struct rig *r = *state = rig_up(NULL);
	uint64_t bad = rig_stat(r, STAT_drop_rx_not_ours);
	struct peer p;

	assert_true(app_listen(r, 80, 10) >= 0);
	change(r, (struct change){.no_address = true});
	assert_false(arena_net(r->arena.hdr).is_usable);
	assert_int_equal(now_address(r), 0);
	assert_int_equal(app_connect(r, RIG_PEER, 99), -ENETUNREACH);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	expect_none(&p);
	assert_true(rig_stat(r, STAT_drop_rx_not_ours) > bad);
	r->arp_replies = 0;
	rig_arp(r, 1, RIG_PEER, 0);
	assert_int_equal(r->arp_replies, 0);
	change(r, (struct change){0});
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
}

static void interface_that_is_down_is_not_usable_and_keeps_its_address(void **state)
{
	struct rig *r = *state = rig_up(NULL);

	change(r, (struct change){.is_down = true});
	assert_false(arena_net(r->arena.hdr).is_usable);
	assert_int_equal(now_address(r), RIG_ADDRESS);
}

static void link_that_is_back_is_greeted_and_asked_anew(void **state)
{
	struct rig *r = *state = rig_up(NULL);
	struct peer p;

	peer_pair(&p, r); /* the neighbour is known by now */
	r->arp_requests = 0;
	change(r, (struct change){.must_greet = true});
	assert_int_equal(r->arp_requests, 1); /* where we are */
	assert_true(app_connect(r, RIG_PEER, 99) >= 0);
	assert_true(r->arp_requests >= 2);
}

static void gateway_that_goes_takes_far_peers_with_it(void **state)
{
	struct rig *r = *state = rig_up(NULL);

	change(r, (struct change){.no_gateway = true});
	assert_false(arena_net(r->arena.hdr).has_gateway);
	assert_int_equal(app_connect(r, FAR, 99), -ENETUNREACH);
	assert_true(app_connect(r, RIG_PEER, 99) >= 0);
	change(r, (struct change){.gateway = OTHER_GATEWAY});
	assert_true(arena_net(r->arena.hdr).has_gateway);
	assert_true(app_connect(r, FAR, 99) >= 0);
}

static void smaller_mtu_cuts_what_an_open_connection_sends(void **state)
{
	struct rig *r = *state = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	static uint8_t buf[5000];
	uint32_t got = 0;

	change(r, (struct change){.mtu = 600});
	assert_int_equal(arena_net(r->arena.hdr).mtu, 600);
	pattern_fill(buf, 0, sizeof(buf));
	assert_int_equal(app_write(r, ep, buf, sizeof(buf)), sizeof(buf));
	for (const struct seg *s; (s = peer_next(&p));) {
		assert_in_range(s->size, 1, 560);
		got += s->size;
	}
	assert_int_equal(got, sizeof(buf));
	peer_ack(&p);
}

static void permanent_neighbour_is_not_asked_and_not_talked_over(void **state)
{
	static const uint8_t mac[6] = {2, 0x77, 0, 0, 0, 1};
	struct rig *r = *state = rig_up(NULL);
	uint32_t ep;

	r->arp_requests = 0;
	change(r, (struct change){.neigh = RIG_PEER, .neigh_mac = {2, 0x77, 0, 0, 0, 1}});
	ep = (uint32_t)app_connect(r, RIG_PEER, 99);
	assert_true((int32_t)ep >= 0);
	assert_int_equal(r->arp_requests, 0);
	assert_memory_equal(r->last_mac, mac, 6);
	/* ARP says something else, and time goes by */
	rig_arp(r, 2, RIG_PEER, RIG_ADDRESS);
	rig_jump(r, 40000, 1000);
	assert_int_equal(r->arp_requests, 0);
	assert_memory_equal(r->last_mac, mac, 6);
	/* it is no permanent one any more */
	change(r, (struct change){0});
	app_connect(r, RIG_PEER, 98);
	assert_true(r->arp_requests >= 1);
}

static void clients_are_told_when_the_last_stack_has_taken_it_over(void **state)
{
	struct rig *r = *state = rig_up(&(struct rig_spec){.stacks = 2});
	struct stack_net *n = calloc(1, sizeof(*n));
	struct stack_msg m = {.fn = stack_net_changed, .ptr = n}, m2 = m;

	n->left = 2;
	put32(n->address, NEW);
	put32(n->netmask, 0xffff0000u);
	n->prefix = 16;
	n->mtu = 1500;
	n->is_up = true;
	stack_post(r->stack[0], &m);
	rig_turn(r);
	assert_int_equal(now_address(r), 0); /* as the rig has begun */
	stack_post(r->stack[1], &m2);
	r->address = NEW;
	rig_turn(r);
	assert_int_equal(now_address(r), NEW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(new_address_is_what_clients_and_peers_find),
	        WIRE_TEST(connection_of_the_old_address_rests_and_goes_on_when_it_is_back),
	        WIRE_TEST(wildcard_listener_serves_the_new_address),
	        WIRE_TEST(without_an_address_nothing_is_ours),
	        WIRE_TEST(interface_that_is_down_is_not_usable_and_keeps_its_address),
	        WIRE_TEST(link_that_is_back_is_greeted_and_asked_anew),
	        WIRE_TEST(gateway_that_goes_takes_far_peers_with_it),
	        WIRE_TEST(smaller_mtu_cuts_what_an_open_connection_sends),
	        WIRE_TEST(permanent_neighbour_is_not_asked_and_not_talked_over),
	        WIRE_TEST(clients_are_told_when_the_last_stack_has_taken_it_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
