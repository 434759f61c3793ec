/* test_guard.c - what no honest peer sends, and what is not TCP: malformed segments, foreign frames,
 * fragments, ICMP, UDP, ARP, and a peer that never says anything again (keep-alive).
 */
#include "peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[1 << 16];

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t sum(uint32_t s, const uint8_t *p, uint32_t size)
{
	for (; size > 1; p += 2, size -= 2)
		s += (uint32_t)p[0] << 8 | p[1];
	if (size)
		s += (uint32_t)p[0] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* An IPv4 frame from the usual peer; returns its header's end. */
static uint8_t *ip_frame(uint8_t *f, uint8_t proto, uint32_t size)
{
	static const uint8_t start[] = {0x02, 0, 0, 0, 0, 0x01, 0x02, 0xaa, 0x0a, 1, 0, 2, 0x08, 0, 0x45, 0};

	memset(f, 0, 34);
	memcpy(f, start, sizeof(start));
	put16(f + 16, 20 + size);
	f[22] = 64;
	f[23] = proto;
	memcpy(f + 26, "\x0a\x01\x00\x02\x0a\x01\x00\x01", 8);
	return f + 34;
}

static void options_with_wrong_lengths_are_dropped_and_counted(void **state)
{
	static const struct {
		uint8_t bytes[8];
	} row[] = {{{2, 0, 5, 180, 0, 0, 0, 0}}, {{2, 1, 5, 180, 0, 0, 0, 0}}, {{2, 9, 5, 180, 0, 0, 0, 0}},
	        {{1, 1, 1, 1, 1, 1, 1, 5}}, {{5, 255, 0, 0, 0, 0, 0, 0}}, {{3, 3, 1, 8, 10, 0, 0, 0}},
	        {{253, 0, 0, 0, 0, 0, 0, 0}}, {{1, 1, 1, 4, 3, 1, 1, 2}}};
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, q;
	uint32_t ep;

	(void)state;
	peer_init(&q, r, 40000, 80);
	ep = peer_open(&q, (uint32_t)lep);
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		peer_init(&p, r, (uint16_t)(41000 + i), 80);
		peer_raw(&p, SYN, p.iss, 0, row[i].bytes, 8, NULL, 0);
		expect_none(&p);
		peer_raw(&q, ACK, q.snd, q.rcv, row[i].bytes, 8, "x", 1);
		expect_none(&q);
	}
	assert_int_equal(rig_stat(r, STAT_drop_rx_guard), 2 * sizeof(row) / sizeof(row[0]));
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 0);
	assert_int_equal(rig_conns(r), 1);
}

static void options_that_are_odd_but_right_are_taken(void **state)
{
	static const struct {
		uint8_t bytes[12];
	} row[] = {{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}, {{0, 7, 200, 9, 9, 9, 9, 9, 9, 9, 9, 9}},
	        {{253, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9}}, {{8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1}},
	        {{2, 3, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1}}, {{3, 2, 4, 2, 2, 2, 3, 2, 4, 4, 9, 9}},
	        {{2, 4, 0, 1, 2, 4, 5, 180, 3, 3, 99, 0}}};
	struct rig *r = rig_up(NULL);
	struct peer p, q;
	uint32_t ep = peer_pair(&q, r), n = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		peer_init(&p, r, (uint16_t)(41000 + i), 80);
		peer_raw(&p, SYN, p.iss, 0, row[i].bytes, 12, NULL, 0);
		peer_skip(&p);
		peer_raw(&q, ACK, q.snd + n, q.rcv, row[i].bytes, 12, "x", 1);
		n++;
	}
	peer_skip(&q);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), n);
	assert_int_equal(rig_stat(r, STAT_drop_rx_guard), 0);
}

static void sack_blocks_from_the_peer_change_nothing(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint8_t opt[12] = {1, 1, 5, 10, 255, 255, 255, 255, 0, 0, 0, 0};

	(void)state;
	pattern_fill(big, 0, 10000);
	app_write(r, ep, big, 10000);
	peer_raw(&p, ACK, p.snd, p.irs + 1, opt, 12, NULL, 0);
	assert_int_equal(peer_drain(&p, 0), 10000);
}

static void header_lengths_that_do_not_fit_are_dropped_and_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[100];

	(void)state;
	app_listen(r, 80, 16);
	for (uint8_t words = 0; words < 16; words++) {
		uint8_t *t = ip_frame(f, 6, 24);

		memset(t, 0, 24);
		put16(t, 40000);
		put16(t + 2, 80);
		t[12] = (uint8_t)(words << 4);
		t[13] = SYN;
		if (words == 5 || words == 6)
			continue;
		rig_frame(r, f, 58);
	}
	/* a segment that ends inside its header */
	for (uint32_t size = 0; size < 20; size++) {
		memset(ip_frame(f, 6, size), 0, 40);
		rig_frame(r, f, 60);
	}
	assert_int_equal(
	        nic_stats(r->stack[0]->queue)->drop_rx_short + rig_stat(r, STAT_drop_rx_guard), 14 + 20);
	assert_int_equal(rig_conns(r), 0);
}

static void flags_that_make_no_sense_change_nothing(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 1000);
	struct peer p, q;
	uint32_t ep;

	(void)state;
	peer_init(&q, r, 40000, 80);
	ep = peer_open(&q, (uint32_t)lep);
	for (uint32_t flags = 0; flags < 64; flags++) {
		peer_init(&p, r, (uint16_t)(41000 + flags), 80);
		peer_raw(&p, (uint8_t)flags, p.iss, 1, NULL, 0, NULL, 0);
		peer_skip(&p);
		/* only a SYN alone opens something */
		if ((flags & (SYN | ACK | RST | FIN)) != SYN)
			assert_int_equal(rig_conns(r), 1);
		peer_raw(&p, RST, p.iss + 1, 0, NULL, 0, NULL, 0);
		if (!(flags & (RST | FIN)))
			peer_raw(&q, (uint8_t)flags, q.snd - 100000, q.rcv, NULL, 0, NULL, 0);
		peer_skip(&q);
	}
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
}

static void foreign_and_short_frames_are_dropped_and_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[100];

	(void)state;
	memset(ip_frame(f, 99, 8), 0, 8);
	f[5] = 9;
	rig_frame(r, f, 60);
	assert_int_equal(rig_stat(r, STAT_drop_rx_not_ours), 1);
	memset(f, 0, sizeof(f));
	f[0] = 2;
	f[5] = 1;
	put16(f + 12, 0x88cc);
	rig_frame(r, f, 60);
	assert_int_equal(rig_stat(r, STAT_drop_rx_type), 1);
	rig_frame(r, f, 20);
	assert_int_equal(rig_stat(r, STAT_drop_rx_guard), 1);
	/* to us by Ethernet, to another by IP */
	memset(ip_frame(f, 6, 20), 0, 20);
	f[46] = 0x50;
	f[33] = 77;
	rig_frame(r, f, 60);
	assert_int_equal(rig_stat(r, STAT_drop_rx_not_ours), 2);
	assert_int_equal(r->other_frames, 0);
	assert_null(r->segs);
}

static void segment_in_fragments_is_put_together(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint8_t whole[34 + 1020], f[34 + 600], *t = ip_frame(whole, 6, 1020);
	static const uint32_t at[] = {512, 0, 1020};

	(void)state;
	memset(t, 0, 20);
	put16(t, p.port);
	put16(t + 2, 80);
	put16(t + 4, p.snd >> 16);
	put16(t + 6, p.snd);
	put16(t + 8, p.rcv >> 16);
	put16(t + 10, p.rcv);
	t[12] = 0x50;
	t[13] = ACK;
	put16(t + 14, 65535);
	pattern_fill(t + 20, 0, 1000);
	put16(t + 16, ~sum(sum(6 + 1020, whole + 26, 8), t, 1020));
	/* the second part first */
	for (int i = 0; i < 2; i++) {
		uint32_t size = i == 0 ? 1020 - 512 : 512;

		memcpy(ip_frame(f, 6, size), t + at[i], size);
		put16(f + 18, 4711);
		put16(f + 20, (i == 0 ? 0 : 0x2000) | at[i] / 8);
		rig_frame(r, f, 34 + size);
	}
	assert_int_equal(app_read(r, ep, big, sizeof(big)), 1000);
	pattern_check(big, 0, 1000);
	/* the same with a wrong checksum: whoever puts it together looks */
	t[500] ^= 1;
	for (int i = 0; i < 2; i++) {
		uint32_t size = i == 0 ? 1020 - 512 : 512;

		memcpy(ip_frame(f, 6, size), t + at[i], size);
		put16(f + 18, 4712);
		put16(f + 20, (i == 0 ? 0 : 0x2000) | at[i] / 8);
		rig_frame(r, f, 34 + size);
	}
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 0);
	rig_run(r, 10);
	peer_skip(&p);
}

static void fragment_that_stays_alone_is_forgotten(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[134];

	(void)state;
	memset(ip_frame(f, 6, 64), 0, 64);
	put16(f + 20, 0x2000);
	rig_frame(r, f, 34 + 64);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 1);
	rig_frame(r, f, 34 + 64); /* once more: it overlaps the first */
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 1);
	rig_run(r, 1100);
	assert_int_equal(rig_stat(r, STAT_drop_rx_fragment), 1);
	rig_jump(r, 35000, 100);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	assert_int_equal(rig_stat(r, STAT_drop_rx_fragment), 2);
}

static void echo_request_is_answered_with_the_same_bytes(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[34 + 8 + 1000], *t = ip_frame(f, 1, 8 + 1000);

	(void)state;
	memcpy(t, "\x08\x00\x00\x00\x12\x34\x00\x07", 8);
	pattern_fill(t + 8, 0, 1000);
	put16(t + 2, ~sum(0, t, 1008));
	rig_frame(r, f, sizeof(f));
	assert_int_equal(r->other_frames, 1);
	assert_int_equal(r->other_size, sizeof(f));
	assert_int_equal(r->other[23], 1);
	assert_int_equal(r->other[34], 0);
	assert_memory_equal(r->other + 38, "\x12\x34\x00\x07", 4);
	pattern_check(r->other + 42, 0, 1000);
	assert_int_equal(sum(0, r->other + 34, 1008), 0xffff);
	assert_int_equal(rig_stat(r, STAT_icmp_rx), 1);
	assert_int_equal(rig_stat(r, STAT_icmp_tx), 1);
	/* a wrong checksum is not */
	t[100] ^= 1;
	rig_frame(r, f, sizeof(f));
	assert_int_equal(r->other_frames, 1);
}

static void udp_to_a_closed_port_gets_port_unreachable(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[34 + 8 + 10], *t = ip_frame(f, 17, 18);

	(void)state;
	memset(t, 0, 18);
	put16(t, 5000);
	put16(t + 2, 53);
	put16(t + 4, 18);
	rig_frame(r, f, sizeof(f));
	assert_int_equal(r->other_frames, 1);
	assert_int_equal(r->other[23], 1);
	assert_int_equal(r->other[34], 3);
	assert_int_equal(r->other[35], 3);
}

static void next_hop_unknown_queues_and_sends_after_the_answer(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	int ep;

	(void)state;
	r->arp_is_silent = true;
	ep = app_connect(r, RIG_PEER, 7000);
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	assert_int_equal(r->arp_requests, 1);
	expect_none(&p);
	rig_run(r, 300);
	rig_arp(r, 2, RIG_PEER, RIG_ADDRESS);
	assert_int_equal(peer_next(&p)->flags, SYN);
	assert_int_equal(rig_stat(r, STAT_neigh_learned), 1);
	peer_send(&p, SYN | ACK, NULL, 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_ESTABLISHED);
}

static void next_hop_that_never_answers_is_ehostunreach(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep, far;

	(void)state;
	r->arp_is_silent = true;
	ep = app_connect(r, RIG_PEER, 7000);
	far = app_connect(r, 0xc0000201, 7000); /* by the gateway, that is silent too */
	rig_run(r, 5500);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, (uint32_t)ep)->error, EHOSTUNREACH);
	assert_int_equal(app_ep(r, (uint32_t)far)->error, EHOSTUNREACH);
	assert_int_equal(r->arp_requests, 6); /* three times each */
	assert_int_equal(rig_stat(r, STAT_tcp_connect_failed), 2);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	/* the next one asks anew */
	r->arp_is_silent = false;
	ep = app_connect(r, RIG_PEER, 7000);
	assert_int_equal(r->arp_requests, 7);
}

static void next_hop_unknown_keeps_the_newest_packets(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.endpoints = 128});
	enum { CONNS = NEIGH_PENDING + 3 };
	uint32_t n = 0;
	int ep[CONNS];

	(void)state;
	r->arp_is_silent = true;
	for (uint16_t i = 0; i < CONNS; i++)
		ep[i] = app_connect(r, RIG_PEER, (uint16_t)(7000 + i));
	assert_int_equal(rig_stat(r, STAT_drop_neigh_queue), 3);
	rig_arp(r, 2, RIG_PEER, RIG_ADDRESS);
	for (uint16_t i = 0; i < CONNS; i++) {
		struct peer p;

		peer_init(&p, r, (uint16_t)(7000 + i), app_ep(r, (uint32_t)ep[i])->local.port);
		if (peer_next(&p)) {
			n++;
			assert_true(i >= 3);
		}
	}
	assert_int_equal(n, NEIGH_PENDING);
	assert_int_equal(r->stack[0]->neigh_waiting, 0);
}

static void next_hops_unknown_share_the_room_for_packets(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.endpoints = 640});
	enum { HOPS = 9, EACH = NEIGH_PENDING };

	(void)state;
	r->arp_is_silent = true;
	for (uint32_t i = 0; i < HOPS * EACH; i++)
		assert_true(app_connect(r, RIG_PEER + i / EACH, (uint16_t)(7000 + i % EACH)) >= 0);
	assert_int_equal(r->stack[0]->neigh_waiting, NEIGH_WAITING);
	assert_int_equal(rig_stat(r, STAT_drop_neigh_queue), HOPS * EACH - NEIGH_WAITING);
	rig_run(r, 5500);
	assert_int_equal(r->stack[0]->neigh_waiting, 0);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
}

static void arp_request_for_us_is_answered_and_teaches_the_asker(void **state)
{
	struct rig *r = rig_up(NULL);

	(void)state;
	rig_arp(r, 1, RIG_PEER, RIG_ADDRESS);
	assert_int_equal(r->arp_replies, 1);
	rig_arp(r, 1, RIG_PEER + 1, RIG_GATEWAY); /* not for us: neither answered nor learned */
	rig_arp(r, 1, 0xc0000201, RIG_ADDRESS);   /* not of our network */
	assert_int_equal(r->arp_replies, 1);
	assert_int_equal(rig_stat(r, STAT_neigh_learned), 1);
	app_connect(r, RIG_PEER, 7000);
	assert_int_equal(r->arp_requests, 0);
	app_connect(r, RIG_PEER + 1, 7000);
	assert_int_equal(r->arp_requests, 1);
}

static void neighbour_in_use_is_asked_again_when_old_and_forgotten_when_silent(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), before = r->arp_requests;

	(void)state;
	app_write(r, ep, "x", 1);
	peer_skip(&p);
	peer_ack(&p);
	rig_jump(r, 32000, 10);
	assert_int_equal(r->arp_requests, before + 1);
	/* not used any more: not asked any more */
	rig_jump(r, 120000, 10);
	assert_in_range(r->arp_requests, before + 1, before + 2);
	/* used and silent: three questions, then it starts from the beginning */
	before = r->arp_requests;
	app_write(r, ep, "x", 1);
	r->arp_is_silent = true;
	rig_jump(r, 40000, 10);
	assert_true(r->arp_requests - before >= 3);
	peer_skip(&p);
	r->arp_is_silent = false;
	rig_jump(r, 40000, 10);
	assert_non_null(peer_next(&p));
}

static void packet_memory_nearly_used_up_drops_unread_payload_only(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 100);
	struct peer p[20];
	uint32_t ep[20];

	(void)state;
	for (uint16_t i = 0; i < 20; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		p[i].wscale = 7;
		ep[i] = peer_open(&p[i], (uint32_t)lep);
	}
	/* one connection asks for little and reads */
	for (int k = 0; k < 250 && !rig_stat(r, STAT_drop_rx_pressure); k++)
		for (int i = 1; i < 20; i++)
			peer_data(&p[i], 1030);
	assert_true(rig_stat(r, STAT_drop_rx_pressure) > 0);
	assert_in_range(nic_fake_bufs_in_use(r->nic), NIC_FAKE_BUF_COUNT / 2, NIC_FAKE_BUF_COUNT - 64);
	peer_data(&p[0], 1000);
	assert_int_equal(app_read(r, ep[0], big, sizeof(big)), 1000);
	pattern_fill(big, 0, 50000);
	app_write(r, ep[0], big, 50000);
	assert_int_equal(peer_drain(&p[0], 0), 50000);
	for (int i = 1; i < 20; i++) {
		app_read(r, ep[i], big, sizeof(big));
		pattern_check(big, 0, 1000);
	}
}

static void keepalive_probes_and_gives_up_a_silent_peer(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t start = rig_ms(r);
	static const uint32_t at[] = {10000, 12000, 14000};

	(void)state;
	app_setopt(r, ep, EPO_KEEPIDLE, 10);
	app_setopt(r, ep, EPO_KEEPINTVL, 2);
	app_setopt(r, ep, EPO_KEEPCNT, 3);
	rig_run(r, 9000);
	expect_none(&p);
	app_setflag(r, ep, EPF_KEEPALIVE, true);
	rig_run(r, 8500);
	for (int i = 0; i < 3; i++) {
		struct seg *s = expect(&p, ACK, p.irs, 0);

		assert_in_range(s->ms - start, at[i], at[i] + 2);
	}
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, ETIMEDOUT);
}

static void keepalive_goes_on_while_the_peer_answers(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), probes = 0;

	(void)state;
	app_setopt(r, ep, EPO_KEEPIDLE, 10);
	app_setopt(r, ep, EPO_KEEPINTVL, 2);
	app_setopt(r, ep, EPO_KEEPCNT, 3);
	app_setflag(r, ep, EPF_KEEPALIVE, true);
	for (int i = 0; i < 1000; i++) {
		rig_jump(r, 100, 10);
		while (peer_next(&p)) {
			probes++;
			peer_ack(&p);
		}
	}
	assert_in_range(probes, 8, 10);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	app_setflag(r, ep, EPF_KEEPALIVE, false);
	rig_jump(r, 60000, 10);
	expect_none(&p);
}

static void options_out_of_range_count_as_never_set(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_setopt(r, ep, EPO_KEEPIDLE, 0);
	app_setopt(r, ep, EPO_KEEPINTVL, INT32_MIN);
	app_setopt(r, ep, EPO_KEEPCNT, 128);
	app_setopt(r, ep, EPO_USER_TIMEOUT, -1);
	app_setopt(r, ep, EPO_TTL, 0);
	app_setflag(r, ep, EPF_KEEPALIVE, true);
	rig_jump(r, 7190000, 1000);
	expect_none(&p);
	rig_jump(r, 20000, 1000);
	expect(&p, ACK, p.irs, 0);
	assert_int_equal(r->stack[0]->by_ep[ep]->pcb->ttl, 64);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
}

/* The MSS option means something in a SYN only; elsewhere it would pull the rug out from under what is
 * queued. */
static void segment_size_in_a_later_segment_means_nothing(void **state)
{
	static const uint8_t opt[][4] = {{2, 4, 0, 1}, {2, 4, 2, 0}, {2, 4, 0, 0}};
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 4000), off = 0;
	struct seg *s;

	(void)state;
	pattern_fill(big, 0, 40000);
	assert_int_equal(app_write(r, ep, big, 10000), 10000);
	for (uint32_t i = 0; i < 3; i++) {
		peer_raw(&p, ACK, p.snd, p.irs + 1, opt[i], 4, NULL, 0);
		assert_int_equal(app_write(r, ep, big + 10000 + i * 10000, 10000), 10000);
		assert_int_equal(atomic_load(&app_ep(r, ep)->info_mss), 1460);
	}
	while (off < 40000) {
		while ((s = peer_next(&p))) {
			assert_true(s->size <= 1460);
			if (s->seq - p.irs - 1 == off)
				off += s->size;
		}
		p.rcv = p.irs + 1 + off;
		peer_ack(&p);
		rig_run(r, 1);
	}
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

/* Peers send everything but what is next. That must not use up the packet memory: others are still served,
 * and after a moment it is taken back. */
static void peers_that_leave_holes_do_not_take_all_packet_memory(void **state)
{
	enum { PEERS = 6, PIECES = 1000 };
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p[PEERS], q;
	uint32_t ep[PEERS], other;
	static uint8_t buf[4000];

	(void)state;
	for (uint32_t i = 0; i < PEERS; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		ep[i] = peer_open(&p[i], (uint32_t)lep);
	}
	pattern_fill(buf, 0, sizeof(buf));
	for (uint32_t k = 0; k < PIECES; k++) {
		for (uint32_t i = 0; i < PEERS; i++)
			peer_inject(&p[i], ACK, p[i].iss + 2 + 2 * k, p[i].rcv, NULL, 0, buf + 1 + 2 * k, 1);
		rig_turn(r);
	}
	for (uint32_t i = 0; i < PEERS; i++)
		peer_skip(&p[i]);
	assert_true(rig_stat(r, STAT_drop_rx_pressure) > 0);
	assert_true(nic_fake_bufs_in_use(r->nic) < NIC_FAKE_BUF_COUNT);
	peer_init(&q, r, 50000, 80);
	other = peer_open(&q, (uint32_t)lep);
	peer_data(&q, 1000);
	assert_int_equal(app_read(r, other, big, sizeof(big)), 1000);
	pattern_check(big, 0, 1000);
	rig_run(r, 2500);
	assert_true(nic_fake_bufs_in_use(r->nic) < 100);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_pruned), PEERS);
	/* the stream goes on where it was */
	for (uint32_t i = 0; i < PEERS; i++) {
		peer_skip(&p[i]);
		peer_data(&p[i], 1000);
		peer_data(&p[i], 1000);
		assert_int_equal(app_read(r, ep[i], big, sizeof(big)), 2000);
		pattern_check(big, 0, 2000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(options_with_wrong_lengths_are_dropped_and_counted),
	        WIRE_TEST(options_that_are_odd_but_right_are_taken),
	        WIRE_TEST(sack_blocks_from_the_peer_change_nothing),
	        WIRE_TEST(header_lengths_that_do_not_fit_are_dropped_and_counted),
	        WIRE_TEST(flags_that_make_no_sense_change_nothing),
	        WIRE_TEST(foreign_and_short_frames_are_dropped_and_counted),
	        WIRE_TEST(segment_in_fragments_is_put_together),
	        WIRE_TEST(fragment_that_stays_alone_is_forgotten),
	        WIRE_TEST(echo_request_is_answered_with_the_same_bytes),
	        WIRE_TEST(udp_to_a_closed_port_gets_port_unreachable),
	        WIRE_TEST(next_hop_unknown_queues_and_sends_after_the_answer),
	        WIRE_TEST(next_hop_that_never_answers_is_ehostunreach),
	        WIRE_TEST(next_hop_unknown_keeps_the_newest_packets),
	        WIRE_TEST(next_hops_unknown_share_the_room_for_packets),
	        WIRE_TEST(arp_request_for_us_is_answered_and_teaches_the_asker),
	        WIRE_TEST(neighbour_in_use_is_asked_again_when_old_and_forgotten_when_silent),
	        WIRE_TEST(packet_memory_nearly_used_up_drops_unread_payload_only),
	        WIRE_TEST(keepalive_probes_and_gives_up_a_silent_peer),
	        WIRE_TEST(keepalive_goes_on_while_the_peer_answers),
	        WIRE_TEST(options_out_of_range_count_as_never_set),
	        WIRE_TEST(segment_size_in_a_later_segment_means_nothing),
	        WIRE_TEST(peers_that_leave_holes_do_not_take_all_packet_memory),
	};

	return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
