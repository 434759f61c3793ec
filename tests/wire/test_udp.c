/* test_udp.c - datagram endpoints: ports, which of them gets a datagram, bytes both ways, limits, and clients
 * that write nonsense.
 */
#include "dgram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static uint8_t data[65536];

/* --- ports --- */

static void bind_port_zero_takes_an_ephemeral_port(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 0), other = dg_bind(r, 0, 0);
	uint16_t port = app_ep(r, (uint32_t)ep)->local.port;

	(void)state;
	assert_in_range(port, PORT_FIRST, PORT_LAST);
	assert_int_not_equal(port, app_ep(r, (uint32_t)other)->local.port);
	assert_true(atomic_load(&r->arena.hdr->udp_used[port / 32]) >> (port % 32) & 1);
	app_close(r, (uint32_t)ep);
	assert_false(atomic_load(&r->arena.hdr->udp_used[port / 32]) >> (port % 32) & 1);
}

static void bind_conflicts_as_the_kernel(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep;

	(void)state;
	ep = dg_bind(r, 0, 5000);
	assert_true(ep >= 0);
	assert_int_equal(dg_bind(r, 0, 5000), -EADDRINUSE);
	assert_int_equal(dg_bind(r, RIG_ADDRESS, 5000), -EADDRINUSE);
	assert_int_equal(dg_bind_at(r, 0, 0, 5000, CALL_F_REUSEADDR, 0), -EADDRINUSE);
	app_close(r, (uint32_t)ep);
	/* different addresses share it */
	assert_true(dg_bind(r, RIG_ADDRESS, 5000) >= 0);
	assert_true(dg_bind(r, 0xef010101, 5000) >= 0);
	assert_int_equal(dg_bind(r, 0, 5000), -EADDRINUSE);
	/* both reuse, in the same way */
	assert_true(dg_bind_at(r, 0, 0, 5001, CALL_F_REUSEADDR, 0) >= 0);
	assert_true(dg_bind_at(r, 0, 0, 5001, CALL_F_REUSEADDR, 0) >= 0);
	assert_int_equal(dg_bind_at(r, 0, 0, 5001, CALL_F_REUSEPORT, 0), -EADDRINUSE);
	assert_true(dg_bind_at(r, 0, 0, 5002, CALL_F_REUSEPORT, 0) >= 0);
	assert_true(dg_bind_at(r, 0, 0, 5002, CALL_F_REUSEPORT, 0) >= 0);
	assert_int_equal(dg_bind_at(r, 0, 0, 5002, CALL_F_REUSEADDR, 0), -EADDRINUSE);
	/* foreign addresses */
	assert_int_equal(dg_bind(r, RIG_PEER, 5003), -EADDRNOTAVAIL);
	/* TCP's ports are others */
	assert_true(app_bind(r, 5000, 0) >= 0);
}

static void bind_without_an_endpoint_is_enobufs(void **state)
{
	struct rig *r = rig_up(NULL);

	(void)state;
	for (int i = 0; i < 64; i++)
		assert_true(dg_bind(r, 0, 0) >= 0);
	assert_int_equal(dg_bind(r, 0, 0), -ENOBUFS);
}

/* --- who gets it --- */

static void datagram_comes_with_its_addresses(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;
	struct dgram_meta m;

	(void)state;
	dg_peer(&p, r, 5000);
	dg_arrive(&p, 100);
	assert_int_equal(app_ep(r, (uint32_t)ep)->rx_gen, 1);
	assert_true(ep_level(&r->arena, app_ep(r, (uint32_t)ep)) & EPOLLIN);
	assert_int_equal(dg_recv(r, ep, data, &m), 100);
	pattern_check(data, 0, 100);
	assert_int_equal(m.from.family, AF_INET);
	assert_int_equal(m.from.port, 9000);
	assert_memory_equal(m.from.ip, ((uint8_t[]){10, 1, 0, 2}), 4);
	assert_int_equal(m.to.port, 5000);
	assert_memory_equal(m.to.ip, ((uint8_t[]){10, 1, 0, 1}), 4);
	assert_int_equal(m.ttl, 63);
	assert_int_equal(m.tos, 0x20);
	assert_true(m.time_ns > 1600000000ull * 1000000000);
	assert_false(ep_level(&r->arena, app_ep(r, (uint32_t)ep)) & EPOLLIN);
	/* an empty one is one, too */
	dg_arrive(&p, 0);
	dg_expect(r, ep, 9000, 0, 0);
	dg_expect_none(r, ep);
	assert_int_equal(rig_stat(r, STAT_udp_rx), 2);
	rig_run(r, 100);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
}

static void lookup_prefers_the_most_specific(void **state)
{
	struct rig *r = rig_up(NULL);
	int any = dg_bind_at(r, 0, 0, 5000, CALL_F_REUSEADDR, 0),
	    own = dg_bind_at(r, 0, RIG_ADDRESS, 5000, CALL_F_REUSEADDR, 0),
	    linked = dg_bind_at(r, 0, 0, 5000, CALL_F_REUSEADDR, 0);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	dg_arrive(&p, 10);
	dg_expect(r, own, 9000, 0, 10);
	assert_int_equal(dg_connect(r, linked, RIG_PEER, 9000), 0);
	dg_arrive(&p, 11);
	dg_expect(r, linked, 9000, 0, 11);
	p.sport = 9001; /* not its peer */
	dg_arrive(&p, 12);
	dg_expect(r, own, 9001, 0, 12);
	app_close(r, (uint32_t)own);
	dg_arrive(&p, 13);
	dg_expect(r, any, 9001, 0, 13);
	/* among equals the youngest */
	own = dg_bind_at(r, 0, 0, 5000, CALL_F_REUSEADDR, 0);
	dg_arrive(&p, 14);
	dg_expect(r, own, 9001, 0, 14);
	dg_expect_none(r, any);
	dg_expect_none(r, linked);
}

static void reuseport_group_shares_by_tuple(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep[4];
	uint32_t got[4] = {0};
	struct dg_peer p;

	(void)state;
	for (int i = 0; i < 4; i++)
		ep[i] = dg_bind_at(r, 0, 0, 5000, CALL_F_REUSEPORT, 0);
	dg_peer(&p, r, 5000);
	for (uint32_t k = 0; k < 200; k++) {
		p.sport = (uint16_t)(9000 + k % 100);
		dg_arrive(&p, 4);
		for (int i = 0; i < 4; i++)
			got[i] += dg_recv(r, ep[i], data, NULL) >= 0;
	}
	assert_int_equal(got[0] + got[1] + got[2] + got[3], 200);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(got[i] % 2, 0); /* the same tuple, the same socket */
		assert_in_range(got[i], 20, 90);
	}
}

static void connect_filters_and_can_be_dissolved(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	const struct endpoint *e = app_ep(r, (uint32_t)ep);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	assert_int_equal(dg_connect(r, ep, RIG_PEER, 9000), 0);
	assert_int_equal(e->remote.port, 9000);
	assert_memory_equal(e->remote.ip, ((uint8_t[]){10, 1, 0, 2}), 4);
	assert_memory_equal(e->local.ip, ((uint8_t[]){10, 1, 0, 1}), 4);
	assert_int_equal(e->local.port, 5000);
	dg_arrive(&p, 10);
	p.src = RIG_PEER + 1;
	dg_arrive(&p, 11);
	assert_int_equal(rig_stat(r, STAT_drop_rx_no_socket), 1);
	dg_expect(r, ep, 9000, 0, 10);
	dg_expect_none(r, ep);
	/* another peer */
	assert_int_equal(dg_connect(r, ep, RIG_PEER + 1, 9000), 0);
	dg_arrive(&p, 12);
	dg_expect(r, ep, 9000, 0, 12);
	assert_int_equal(dg_connect(r, ep, 0, 0), 0);
	assert_int_equal(e->remote.family, 0);
	assert_memory_equal(e->local.ip, ((uint8_t[]){0, 0, 0, 0}), 4);
	p.src = RIG_PEER;
	dg_arrive(&p, 13);
	dg_expect(r, ep, 9000, 0, 13);
}

static void no_socket_is_answered_by_icmp_within_the_rate(void **state)
{
	struct rig *r = rig_up(NULL);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	dg_arrive(&p, 20);
	assert_int_equal(r->other_frames, 1);
	assert_int_equal(r->other[34], 3); /* destination unreachable, port */
	assert_int_equal(r->other[35], 3);
	assert_memory_equal(r->other + 30, ((uint8_t[]){10, 1, 0, 2}), 4);
	assert_memory_equal(r->other + 42 + 12,
	        ((uint8_t[]){10, 1, 0, 2, 10, 1, 0, 1, 9000 >> 8, 9000 & 255, 5000 >> 8, 5000 & 255}), 12);
	for (int i = 0; i < 20; i++)
		dg_arrive(&p, 20);
	assert_int_equal(r->other_frames, 6);
	assert_int_equal(rig_stat(r, STAT_icmp_limited), 15);
	assert_int_equal(rig_stat(r, STAT_drop_rx_no_socket), 21);
	p.src++; /* another host has its own share */
	dg_arrive(&p, 20);
	assert_int_equal(r->other_frames, 7);
	p.src--;
	rig_jump(r, 2000, 500);
	for (int i = 0; i < 5; i++)
		dg_arrive(&p, 20);
	assert_int_equal(r->other_frames, 9);
	/* never for what was sent to everybody */
	rig_jump(r, 10000, 500);
	p.dst = 0xffffffff;
	dg_arrive(&p, 20);
	p.dst = RIG_ADDRESS | 0xffff;
	dg_arrive(&p, 20);
	p.dst = 0xe0000001;
	dg_arrive(&p, 20);
	assert_int_equal(r->other_frames, 9);
}

/* --- bytes --- */

static void fragments_are_put_together(void **state)
{
	static const uint32_t sizes[] = {1473, 4000, 16000, 65507};
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	p.mtu = 1500;
	for (uint32_t i = 0; i < 8; i++) {
		p.backwards = i & 1;
		p.off = i * 1000;
		dg_arrive(&p, sizes[i / 2]);
		dg_expect(r, ep, 9000, i * 1000, sizes[i / 2]);
	}
	/* so many pieces that they must be gathered */
	p.mtu = 576;
	dg_arrive(&p, 65507);
	dg_expect(r, ep, 9000, p.off, 65507);
	/* without a checksum, and with a wrong one */
	p.no_cksum = true;
	dg_arrive(&p, 3000);
	dg_expect(r, ep, 9000, p.off, 3000);
	p.no_cksum = false;
	p.bad_cksum = true;
	dg_arrive(&p, 3000);
	dg_expect_none(r, ep);
	assert_int_equal(rig_stat(r, STAT_drop_udp_cksum), 1);
	/* one is missing */
	p.bad_cksum = false;
	p.skip = 2;
	dg_arrive(&p, 3000);
	dg_expect_none(r, ep);
	rig_jump(r, 40000, 500);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
}

static void checksum_zero_is_taken_and_a_wrong_length_is_not(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;
	uint8_t f[14 + 20 + 8 + 32] = {2, 0, 0, 0, 0, 1};

	(void)state;
	dg_peer(&p, r, 5000);
	p.no_cksum = true;
	dg_arrive(&p, 50);
	dg_expect(r, ep, 9000, 0, 50);
	/* the frame is longer than the datagram says: the rest is no part of it */
	memcpy(f + 12, (uint8_t[]){8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17}, 12);
	memcpy(f + 26,
	        (uint8_t[]){10, 1, 0, 2, 10, 1, 0, 1, 9000 >> 8, 9000 & 255, 5000 >> 8, 5000 & 255, 0, 18},
	        14);
	pattern_fill(f + 42, 0, 32);
	rig_frame(r, f, sizeof(f));
	dg_expect(r, ep, 9000, 0, 10);
	f[39] = 7; /* shorter than its header */
	rig_frame(r, f, sizeof(f));
	f[39] = 41; /* longer than the packet */
	rig_frame(r, f, sizeof(f));
	dg_expect_none(r, ep);
}

static void datagrams_of_every_size_are_sent(void **state)
{
	static const uint32_t sizes[] = {
	        0, 1, 7, 8, 100, 1471, 1472, 1473, 1480, 2960, 9000, 16384, 40001, 65507};
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);

	(void)state;
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < ARRAY_COUNT(sizes); i++) {
			struct dg_peer p = {0};

			assert_true(dg_send(r, ep, RIG_PEER, 9000, sizes[i]));
			assert_int_equal(dg_sent(r, data, &p), sizes[i]);
			pattern_check(data, 0, sizes[i]);
			assert_int_equal(p.src, RIG_ADDRESS);
			assert_int_equal(p.dst, RIG_PEER);
			assert_int_equal(p.sport, 5000);
			assert_int_equal(p.dport, 9000);
			assert_int_equal(ep_tx_used(app_ep(r, (uint32_t)ep)), 0);
		}
		rig_run(r, 100); /* the last block goes back */
	}
	assert_int_equal(rig_stat(r, STAT_udp_tx), 3 * ARRAY_COUNT(sizes));
	/* by the gateway */
	assert_true(dg_send(r, ep, 0xc0000201, 9000, 10));
	assert_int_equal(dg_sent(r, data, NULL), 10);
}

static void dont_fragment_is_said_and_obeyed(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct packet *k;

	(void)state;
	assert_true(dg_send_flags(r, ep, RIG_PEER, 9000, 100, DGRAM_DONT_FRAGMENT));
	k = rig_packet(r);
	assert_int_equal(k->ip[6], 0x40);
	free(k);
	assert_true(dg_send_flags(r, ep, RIG_PEER, 9000, 2000, DGRAM_DONT_FRAGMENT));
	assert_null(rig_packet(r));
	assert_int_equal(rig_stat(r, STAT_drop_tx_too_long), 1);
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 100));
	k = rig_packet(r);
	assert_int_equal(k->ip[6], 0);
	free(k);
}

static void many_records_are_sent_over_turns_in_order(void **state)
{
	enum { COUNT = 300 };
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct endpoint *e = app_ep(r, (uint32_t)ep);

	(void)state;
	dg_send(r, ep, RIG_PEER, 9000, 1); /* a neighbour to begin with */
	assert_int_equal(dg_sent(r, data, NULL), 1);
	for (uint32_t i = 0; i < COUNT; i++) {
		struct dgram_head h;
		uint32_t n = i;

		dg_head(&h, RIG_PEER, 9000, 4);
		assert_true(dg_put(r, ep, &h, &n, 4));
	}
	atomic_store(&e->tx_want, 1);
	post_doorbell(&r->at[0], e, DOORBELL_TX);
	rig_turn(r);
	for (uint32_t i = 0; i < COUNT; i++) {
		uint32_t n;

		assert_int_equal(dg_sent(r, &n, NULL), 4);
		assert_int_equal(n, i);
	}
	assert_int_equal(atomic_load(&e->tx_want), 0);
	assert_true(ep_level(&r->arena, e) & EPOLLOUT);
}

static void full_port_keeps_records_in_the_ring(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct endpoint *e = app_ep(r, (uint32_t)ep);

	(void)state;
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 1));
	assert_int_equal(dg_sent(r, data, NULL), 1);
	nic_fake_set_tx_room(r->nic, 0);
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 100));
	assert_int_equal(dg_sent(r, data, NULL), -1);
	assert_int_equal(ep_tx_used(e), 64 + 104);
	/* closing sends them when the port takes some again */
	app_close(r, (uint32_t)ep);
	assert_int_equal(dg_sent(r, data, NULL), -1);
	assert_int_not_equal(atomic_load(&e->state), EP_FREE);
	nic_fake_set_tx_room(r->nic, 1024);
	rig_run(r, 2);
	assert_int_equal(dg_sent(r, data, NULL), 100);
	pattern_check(data, 0, 100);
	assert_int_equal(atomic_load(&e->state), EP_FREE);
}

static void close_while_the_idle_timer_is_due_is_no_offence(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct conn *c;

	(void)state;
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 100));
	assert_int_equal(dg_sent(r, data, NULL), 100);
	assert_int_equal(post(&r->at[0], 0, POST_ENTRY(POST_RELEASE, 0, (uint32_t)ep)), 0);
	stack_turn(r->stack[0], r->now_ns); /* released, and not yet gone from the tables */
	c = r->stack[0]->by_ep[ep];
	assert_non_null(c);
	assert_true(c->is_released);
	tx_idle(r->stack[0], c);
	conn_touch(r->stack[0], c);
	rig_turn(r);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_FREE);
	assert_int_equal(rig_stat(r, STAT_bad_client_input), 0);
}

static void silent_neighbour_keeps_a_long_datagram(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);

	(void)state;
	r->arp_is_silent = true;
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 60000));
	assert_int_equal(dg_sent(r, data, NULL), -1);
	rig_arp(r, 2, RIG_PEER, RIG_ADDRESS);
	assert_int_equal(dg_sent(r, data, NULL), 60000);
	pattern_check(data, 0, 60000);
}

static void checksum_is_left_out_on_wish(void **state)
{
	static const uint32_t sizes[] = {10, 1472, 5000};
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct packet *k;

		assert_true(dg_send_flags(r, ep, RIG_PEER, 9000, sizes[i], DGRAM_NO_CHECKSUM));
		k = rig_packet(r);
		assert_int_equal(k->ip[26] | k->ip[27], 0);
		free(k);
		while ((k = rig_packet(r)))
			free(k);
	}
}

static void ports_may_be_zero(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct packet *k;

	(void)state;
	assert_true(dg_send_flags(r, ep, RIG_PEER, 0, 10, 0));
	k = rig_packet(r);
	assert_non_null(k);
	assert_int_equal(k->ip[20] << 8 | k->ip[21], 5000);
	assert_int_equal(k->ip[22] << 8 | k->ip[23], 0);
	free(k);
	assert_true(dg_send_flags(r, ep, RIG_PEER, 9000, 10, DGRAM_NO_PORT));
	k = rig_packet(r);
	assert_non_null(k);
	assert_int_equal(k->ip[20] << 8 | k->ip[21], 0);
	assert_int_equal(k->ip[22] << 8 | k->ip[23], 9000);
	free(k);
}

static void sender_without_an_address_may_only_shout(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 67);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 67);
	p.src = 0;
	p.dst = 0xffffffff;
	dg_arrive(&p, 300);
	dg_expect(r, ep, 9000, 0, 300);
	p.dst = RIG_ADDRESS;
	dg_arrive(&p, 300);
	dg_expect_none(r, ep);
	assert_int_equal(rig_stat(r, STAT_drop_rx_martian), 1);
}

/* --- limits --- */

static void lack_of_packet_buffers_drops_and_counts(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000), other = dg_bind_at(r, 0, 0, 5001, CALL_F_REUSEADDR, 0),
	    third = dg_bind_at(r, 0, 0, 5001, CALL_F_REUSEADDR, 0);
	struct packet *k;
	struct dg_peer p;

	(void)state;
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 10));
	assert_int_equal(dg_sent(r, data, NULL), 10);
	nic_fake_fail_alloc(r->nic, 1);
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 10));
	assert_int_equal(dg_sent(r, data, NULL), -1);
	nic_fake_fail_alloc(r->nic, 1);
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 4000));
	assert_null(rig_packet(r)); /* without its first fragment the others are not sent */
	assert_int_equal(ep_tx_used(app_ep(r, (uint32_t)ep)), 0);
	assert_int_equal(nic_stats(r->stack[0]->queue)->drop_tx_nobuf, 2);
	/* a copy for the first, the packet itself for the last */
	dg_peer(&p, r, 5001);
	p.dst = 0xffffffff;
	nic_fake_fail_alloc(r->nic, 1);
	dg_arrive(&p, 100);
	assert_int_equal(rig_stat(r, STAT_drop_udp_memory), 1);
	assert_int_equal(dg_recv(r, other, data, NULL) + dg_recv(r, third, data, NULL), 100 - 1);
	while ((k = rig_packet(r)))
		free(k);
}

static void receive_buffer_full_drops_and_counts(void **state)
{
	enum { LIMIT = 50 * UDP_PIECE_CHARGE };
	struct rig *r = rig_up(NULL);
	int ep = dg_bind_at(r, 0, 0, 5000, 0, LIMIT);
	struct dg_peer p;
	uint32_t n = 0;

	(void)state;
	dg_peer(&p, r, 5000);
	for (uint32_t i = 0; i < 200; i++)
		dg_arrive(&p, 1);
	/* one more than fits, as in the kernel */
	assert_int_equal(rig_stat(r, STAT_drop_udp_rcvbuf), 200 - 51);
	assert_int_equal(app_ep(r, (uint32_t)ep)->info_drops, 200 - 51);
	while (dg_recv(r, ep, data, NULL) == 1)
		n++;
	assert_int_equal(n, 51);
	dg_arrive(&p, 1);
	dg_expect(r, ep, 9000, 0, 1);
	/* a larger limit: more than the ring holds */
	dg_rcvbuf(r, ep, 200 * UDP_PIECE_CHARGE);
	for (uint32_t i = 0; i < 150; i++) {
		p.off = i;
		dg_arrive(&p, 3);
	}
	for (uint32_t i = 0; i < 150; i++)
		dg_expect(r, ep, 9000, i, 3);
	dg_expect_none(r, ep);
	/* one datagram gets in whatever the limit */
	dg_rcvbuf(r, ep, 1);
	p.mtu = 1500;
	dg_arrive(&p, 65507);
	dg_arrive(&p, 10);
	dg_expect(r, ep, 9000, p.off, 65507);
	dg_expect_none(r, ep);
}

static void long_datagrams_wait_for_the_ring_as_a_whole(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind_at(r, 0, 0, 5000, 0, 4 << 20);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	p.mtu = 1500;
	for (uint32_t i = 0; i < 5; i++) {
		p.off = i;
		dg_arrive(&p, 60000);
	}
	for (uint32_t i = 0; i < 5; i++)
		dg_expect(r, ep, 9000, i, 60000);
	dg_expect_none(r, ep);
}

static void unread_datagrams_go_with_the_endpoint(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind_at(r, 0, 0, 5000, 0, 1 << 20);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	for (uint32_t i = 0; i < 100; i++)
		dg_arrive(&p, 1000);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 100);
	app_close(r, (uint32_t)ep);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_FREE);
}

/* --- clients --- */

static void bad_records_end_sending_and_are_counted(void **state)
{
	struct rig *r = rig_up(NULL);

	(void)state;
	r->bad_expected = 0;
	for (int what = 0; what < 9; what++) {
		int ep = dg_bind(r, 0, 5000);
		struct endpoint *e = app_ep(r, (uint32_t)ep);
		struct dgram_head h;

		post_doorbell(&r->at[0], e, DOORBELL_TX);
		rig_turn(r);
		dg_head(&h, RIG_PEER, 9000, 32);
		switch (what) {
		case 0:
			h.size = 65508;
			break;
		case 1:
			h.size = UINT32_MAX;
			break;
		case 2:
			h.to.family = AF_INET6;
			break;
		case 3: /* the first flag that means nothing */
			h.flags = DGRAM_NO_PORT << 1;
			break;
		case 4:
			h.from.family = AF_INET; /* a foreign source address */
			memcpy(h.from.ip, (uint8_t[]){10, 1, 0, 3}, 4);
			break;
		case 5:
			h.flags = 0x8000;
			break;
		case 6: /* says more than there is */
			h.size = 64;
			break;
		}
		assert_true(dg_put(r, ep, &h, data, 32));
		if (what == 7) /* half a record */
			atomic_fetch_sub(&e->tx_head, 72);
		if (what == 8) /* a head that cannot be */
			atomic_fetch_add(&e->tx_head, 1u << 30);
		post_doorbell(&r->at[0], e, DOORBELL_TX);
		rig_turn(r);
		assert_int_equal(dg_sent(r, data, NULL), -1);
		assert_int_equal(rig_stat(r, STAT_bad_client_input), ++r->bad_expected);
		assert_int_equal(atomic_load(&e->error), EPIPE);
		app_close(r, (uint32_t)ep);
		if (what == 8) /* looked at once more when the endpoint was given up */
			r->bad_expected = rig_stat(r, STAT_bad_client_input);
	}
}

static void bad_reader_cursor_is_not_believed(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	dg_arrive(&p, 10);
	atomic_store(&app_ep(r, (uint32_t)ep)->rx_tail, 5);
	post_doorbell(&r->at[0], app_ep(r, (uint32_t)ep), DOORBELL_RX);
	rig_turn(r);
	r->bad_expected = UINT64_MAX; /* counted at every look */
	assert_true(rig_stat(r, STAT_bad_client_input) > 0);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 1);
	app_close(r, (uint32_t)ep);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
}

static void calls_name_only_what_the_client_holds(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);

	(void)state;
	r->cl = 1;
	assert_int_equal(dg_connect(r, ep, RIG_PEER, 9000), -EBADF);
	assert_int_equal(dg_group(r, ep, 0xe1000001, true), -EBADF);
	r->cl = 0;
	assert_int_equal(dg_group(r, ep, RIG_PEER, true), -EINVAL);
}

static void client_death_sends_what_was_written_and_frees_the_rest(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;
	struct dgram_head h;

	(void)state;
	assert_true(dg_send(r, ep, RIG_PEER, 9000, 1));
	assert_int_equal(dg_sent(r, data, NULL), 1);
	dg_peer(&p, r, 5000);
	dg_arrive(&p, 100);
	dg_head(&h, RIG_PEER, 9000, 200);
	pattern_fill(data, 0, 200);
	assert_true(dg_put(r, ep, &h, data, 200)); /* without a doorbell */
	app_die(r, 0);
	assert_int_equal(dg_sent(r, data, NULL), 200);
	rig_turn(r);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_FREE);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	r->cl = 1;
	assert_true(dg_bind(r, 0, 5000) >= 0);
}

static void client_that_dies_during_bind_leaves_nothing(void **state)
{
	struct rig *r = rig_up(NULL);
	struct call *slot = &r->at[0].client->call[5];

	(void)state;
	slot->op = CALL_BIND;
	slot->opt = SOCK_DGRAM;
	slot->endpoint = ENDPOINT_NONE;
	slot->local = (struct sock_addr){.family = AF_INET, .port = 5000};
	atomic_store(&slot->state, CALL_POSTED);
	assert_int_equal(post(&r->at[0], 0, POST_ENTRY(POST_CALL, 0, 5)), 0);
	app_die(r, 0); /* its posts are worked off, then its holds go: the bind is under way then */
	rig_turn(r);
	assert_int_equal(atomic_load(&slot->state), CALL_POSTED);
	assert_int_equal(r->stack[0]->ep_free_count, r->stack[0]->ep_count);
	r->cl = 1;
	assert_true(dg_bind(r, 0, 5000) >= 0);
}

static uint32_t seed;

static uint32_t any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

/* One thing that a client without manners does. */
static void mischief(struct rig *r, int ep)
{
	struct endpoint *e = app_ep(r, (uint32_t)ep);
	struct dgram_head h;

	switch (any() % 8) {
	case 0:
		atomic_store(&e->tx_head, any());
		break;
	case 1:
		atomic_store(&e->tx_head, atomic_load(&e->tx_head) + any() % 200000);
		break;
	case 2:
		atomic_store(&e->rx_tail, any() % 2 ? any() : atomic_load(&e->rx_tail) + any() % 70);
		break;
	case 3:
		if (any() % 2)
			atomic_store(&e->tx_map, any() % 600);
		ep_tx_block_set(&r->arena, e, any(), any() % 600);
		break;
	case 4:
	case 5:
		for (uint32_t i = 0; i < sizeof(h); i += 4) {
			uint32_t word = any() % 4 ? any() % 70000 : any();

			memcpy((uint8_t *)&h + i, &word, 4);
		}
		if (any() % 4)
			dg_head(&h, RIG_PEER + any() % 3, 9000, any() % 70000);
		dg_put(r, ep, &h, data, any() % 65536);
		break;
	case 6:
		e->kind = (uint16_t)any();
		e->stack_idx = (uint16_t)any() % 2;
		e->local.port = e->remote.port = (uint16_t)any();
		atomic_store(&e->opts.v[EPO_RCVBUF], (int32_t)any());
		atomic_store(&e->state, any() % 8);
		break;
	case 7:
		atomic_store(&e->tx_limit, any());
		break;
	}
	post(&r->at[r->cl], any() % r->stacks,
	        POST_ENTRY(any() % 8, any() % 4, any() % 8 ? (uint32_t)ep : any() % r->arena.endpoint_count));
	rig_turn(r);
}

static void client_without_manners_harms_nobody_else(void **state)
{
	(void)state;
	for (uint32_t round = 1; round <= 12; round++) {
		struct rig *r =
		        rig_up(&(struct rig_spec){.stacks = 1 + round % 2, .loopback = round % 3 == 0});
		struct dg_peer p;
		int good, ep[4];

		seed = round * 0x9e3779b9u;
		r->bad_expected = UINT64_MAX;
		good = dg_bind(r, 0, 5000);
		assert_int_equal(dg_group(r, good, 0xe1020304, true), 0);
		r->cl = 1;
		for (int i = 0; i < 4; i++)
			ep[i] = dg_bind_at(r, any() % r->stacks, 0, (uint16_t)(6000 + i), 0, 0);
		for (int i = 0; i < 300; i++) {
			struct packet *k;

			mischief(r, ep[any() % 4]);
			dg_peer(&p, r, (uint16_t)(6000 + any() % 4));
			p.mtu = 1500;
			if (any() % 4 == 0)
				dg_arrive(&p, any() % 10000);
			while ((k = rig_packet(r)))
				free(k);
		}
		r->cl = 0;
		for (uint32_t i = 0; i < 20; i++) {
			dg_peer(&p, r, 5000);
			p.mtu = 1500;
			p.sport = (uint16_t)(7000 + i);
			dg_arrive(&p, i * 500);
			dg_expect(r, good, p.sport, 0, i * 500);
			assert_true(dg_send(r, good, RIG_PEER, 9000, i * 500));
			assert_int_equal(dg_sent(r, data, NULL), i * 500);
			pattern_check(data, 0, i * 500);
		}
		r->cl = 1;
		app_die(r, 1);
		assert_int_equal(rig_end(NULL), 0);
	}
	rig_up(NULL);
}

/* --- two stacks --- */

static void other_stack_hands_datagrams_over(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});
	int ep[2];
	struct dg_peer p;

	(void)state;
	ep[0] = dg_bind_at(r, 0, 0, 5000, 0, 0);
	ep[1] = dg_bind_at(r, 1, 0, 5001, 0, 0);
	assert_int_equal(dg_bind_at(r, 1, 0, 5000, 0, 0), -EADDRINUSE);
	assert_int_equal(dg_bind_at(r, 0, 0, 5001, 0, 0), -EADDRINUSE);
	for (uint16_t i = 0; i < 40; i++) {
		dg_peer(&p, r, (uint16_t)(5000 + i % 2));
		p.sport = (uint16_t)(9000 + i / 2);
		p.off = i;
		dg_arrive(&p, 10 + i);
		dg_expect(r, ep[i % 2], p.sport, i, 10 + i);
	}
	assert_int_equal(rig_stat(r, STAT_udp_handover), 20);
	p.mtu = 1500;
	dg_arrive(&p, 20000);
	p.dport = 5000;
	dg_arrive(&p, 20000);
	dg_expect(r, ep[1], p.sport, p.off, 20000);
	dg_expect(r, ep[0], p.sport, p.off, 20000);
	/* both send, too */
	for (int i = 0; i < 2; i++) {
		assert_true(dg_send(r, ep[i], RIG_PEER, 9000, 3000));
		assert_int_equal(dg_sent(r, data, &p), 3000);
		assert_int_equal(p.sport, 5000 + i);
	}
	/* a connected one is found by both */
	assert_int_equal(dg_connect(r, ep[1], RIG_PEER, 9100), 0);
	dg_peer(&p, r, 5001);
	for (uint16_t i = 0; i < 4; i++) {
		p.sport = (uint16_t)(9100 + i);
		dg_arrive(&p, 10);
	}
	dg_expect(r, ep[1], 9100, 0, 10);
	dg_expect_none(r, ep[1]);
	assert_int_equal(rig_stat(r, STAT_drop_rx_no_socket), 3);
}

static void port_of_an_endpoint_just_closed_is_free_at_every_stack(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});

	(void)state;
	for (int i = 0; i < 20; i++) {
		int ep = dg_bind_at(r, 1, 0, 5000, 0, 0);

		assert_true(ep >= 0);
		/* the release is posted, and not yet worked off when the bind at the other stack comes */
		assert_int_equal(post(&r->at[0], 1, POST_ENTRY(POST_RELEASE, 0, (uint32_t)ep)), 0);
		ep = dg_bind_at(r, 0, 0, 5000, 0, 0);
		assert_true(ep >= 0);
		app_close(r, (uint32_t)ep);
	}
}

/* --- loopback = pronk --- */

#define LOOP(last) (0x7f000000u | (last))

static void loop_carries_datagrams_of_every_size(void **state)
{
	static const uint32_t sizes[] = {0, 1, 1472, 2000, 2100, 9000, 65507};
	static const uint32_t at[][2] = {{LOOP(1), LOOP(1)}, {0, LOOP(1)}, {LOOP(2), LOOP(2)}, {0, LOOP(77)},
	        {0, RIG_ADDRESS}, {RIG_ADDRESS, RIG_ADDRESS}};

	(void)state;
	for (uint32_t stacks = 1; stacks < 3; stacks++) {
		struct rig *r = rig_up(&(struct rig_spec){.loopback = true, .stacks = stacks});

		for (uint32_t k = 0; k < ARRAY_COUNT(at); k++) {
			int to = dg_bind_at(r, stacks - 1, at[k][0], 5000, 0, 1 << 20),
			    from = dg_bind(r, 0, 5001);

			for (uint32_t i = 0; i < ARRAY_COUNT(sizes); i++) {
				struct dgram_meta m;

				assert_true(dg_send(r, from, at[k][1], 5000, sizes[i]));
				assert_int_equal(dg_recv(r, to, data, &m), sizes[i]);
				pattern_check(data, 0, sizes[i]);
				assert_int_equal(m.from.port, 5001);
				assert_memory_equal(m.from.ip,
				        at[k][1] == RIG_ADDRESS ? ((uint8_t[]){10, 1, 0, 1})
				                                : ((uint8_t[]){127, 0, 0, 1}),
				        4);
				assert_int_equal(m.to.ip[3], at[k][1] & 255);
			}
			app_close(r, (uint32_t)to);
			app_close(r, (uint32_t)from);
		}
		assert_int_equal(r->other_frames + r->arp_requests, 0);
		if (stacks == 1)
			assert_int_equal(rig_end(NULL), 0);
	}
}

static void loop_port_without_a_socket_is_econnrefused(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.loopback = true});
	static const uint32_t at[] = {LOOP(1), LOOP(9), RIG_ADDRESS};

	(void)state;
	for (uint32_t k = 0; k < ARRAY_COUNT(at); k++) {
		int ep = dg_bind(r, 0, 5001);
		struct endpoint *e = app_ep(r, (uint32_t)ep);

		assert_int_equal(dg_connect(r, ep, at[k], 5000), 0);
		assert_memory_equal(e->local.ip,
		        at[k] == RIG_ADDRESS ? ((uint8_t[]){10, 1, 0, 1}) : ((uint8_t[]){127, 0, 0, 1}), 4);
		for (int i = 0; i < 20; i++) { /* no rate limit here */
			assert_true(dg_send(r, ep, at[k], 5000, 10));
			assert_int_equal(atomic_exchange(&e->error, 0), ECONNREFUSED);
		}
		app_close(r, (uint32_t)ep);
	}
	assert_int_equal(rig_stat(r, STAT_icmp_errors), 60);
}

static void loop_socket_sends_to_itself(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.loopback = true});
	int ep = dg_bind(r, LOOP(1), 5000);

	(void)state;
	assert_int_equal(dg_connect(r, ep, LOOP(1), 5000), 0);
	assert_true(dg_send(r, ep, LOOP(1), 5000, 100));
	dg_expect(r, ep, 5000, 0, 100);
	assert_int_equal(dg_bind(r, LOOP(1), 5000), -EADDRINUSE);
	assert_true(dg_bind(r, LOOP(2), 5000) >= 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(bind_port_zero_takes_an_ephemeral_port),
	        WIRE_TEST(bind_conflicts_as_the_kernel),
	        WIRE_TEST(bind_without_an_endpoint_is_enobufs),
	        WIRE_TEST(datagram_comes_with_its_addresses),
	        WIRE_TEST(lookup_prefers_the_most_specific),
	        WIRE_TEST(reuseport_group_shares_by_tuple),
	        WIRE_TEST(connect_filters_and_can_be_dissolved),
	        WIRE_TEST(no_socket_is_answered_by_icmp_within_the_rate),
	        WIRE_TEST(fragments_are_put_together),
	        WIRE_TEST(checksum_zero_is_taken_and_a_wrong_length_is_not),
	        WIRE_TEST(datagrams_of_every_size_are_sent),
	        WIRE_TEST(dont_fragment_is_said_and_obeyed),
	        WIRE_TEST(many_records_are_sent_over_turns_in_order),
	        WIRE_TEST(full_port_keeps_records_in_the_ring),
	        WIRE_TEST(close_while_the_idle_timer_is_due_is_no_offence),
	        WIRE_TEST(silent_neighbour_keeps_a_long_datagram),
	        WIRE_TEST(receive_buffer_full_drops_and_counts),
	        WIRE_TEST(long_datagrams_wait_for_the_ring_as_a_whole),
	        WIRE_TEST(unread_datagrams_go_with_the_endpoint),
	        WIRE_TEST(bad_records_end_sending_and_are_counted),
	        WIRE_TEST(bad_reader_cursor_is_not_believed),
	        WIRE_TEST(calls_name_only_what_the_client_holds),
	        WIRE_TEST(client_death_sends_what_was_written_and_frees_the_rest),
	        WIRE_TEST(client_that_dies_during_bind_leaves_nothing),
	        WIRE_TEST(client_without_manners_harms_nobody_else),
	        WIRE_TEST(lack_of_packet_buffers_drops_and_counts),
	        WIRE_TEST(checksum_is_left_out_on_wish),
	        WIRE_TEST(ports_may_be_zero),
	        WIRE_TEST(sender_without_an_address_may_only_shout),
	        WIRE_TEST(other_stack_hands_datagrams_over),
	        WIRE_TEST(port_of_an_endpoint_just_closed_is_free_at_every_stack),
	        WIRE_TEST(loop_carries_datagrams_of_every_size),
	        WIRE_TEST(loop_port_without_a_socket_is_econnrefused),
	        WIRE_TEST(loop_socket_sends_to_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
