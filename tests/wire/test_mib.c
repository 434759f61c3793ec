/* test_mib.c - the counters that RFC 4293, 4022 and 4113 name: known packets go in and out, and each counter
 * must have moved by just what they are.
 */
#include "dgram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t big[65536];

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* Frame with an IPv4 header from RIG_PEER to RIG_ADDRESS; where its payload goes. */
static uint8_t *ip_frame(uint8_t *f, uint8_t proto, uint32_t size)
{
	uint8_t *ip = f + 14;

	memset(f, 0, 34);
	memcpy(f, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
	rig_mac(RIG_PEER, f + 6);
	put16(f + 12, 0x800);
	ip[0] = 0x45;
	put16(ip + 2, 20 + size);
	ip[8] = 64;
	ip[9] = proto;
	put32(ip + 12, RIG_PEER);
	put32(ip + 16, RIG_ADDRESS);
	return ip + 20;
}

static uint32_t sum(const uint8_t *p, uint32_t size)
{
	uint32_t s = 0;

	for (uint32_t i = 0; i < size; i += 2)
		s += (uint32_t)p[i] << 8 | p[i + 1];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* What is counted privately gets into the statistics first. */
static uint64_t mib(struct rig *r, enum stat_id id)
{
	mib_publish(r->stack[0]);
	return stat_get(r->stats[0], id);
}

static uint64_t in_segs(struct rig *r)
{
	return mib(r, STAT_tcp_rx_predicted) + mib(r, STAT_tcp_rx_general);
}

/* --- TCP --- */

static void segments_in_and_out_are_counted_once_each(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t ep, sent = 0;
	uint64_t in, out, octets_in, octets_out, predicted;
	struct peer p;

	(void)state;
	ep = peer_pair(&p, r); /* in: SYN, ACK; out: SYN+ACK */
	assert_int_equal(in_segs(r), 2);
	assert_int_equal(mib(r, STAT_tcp_out_segs), 1);
	assert_int_equal(mib(r, STAT_tcp_passive_opens), 1);
	assert_int_equal(mib(r, STAT_tcp_curr_estab), 1);
	in = in_segs(r), out = mib(r, STAT_tcp_out_segs);
	octets_in = mib(r, STAT_ip_in_octets), octets_out = mib(r, STAT_ip_out_octets);
	predicted = mib(r, STAT_tcp_rx_predicted);
	for (int i = 0; i < 5; i++)
		peer_data(&p, 100);
	peer_data_at(&p, 1000, 10); /* early: the general path */
	assert_int_equal(in_segs(r), in + 6);
	assert_int_equal(mib(r, STAT_tcp_rx_predicted), predicted + 5);
	assert_int_equal(mib(r, STAT_ip_in_octets), octets_in + 5 * 140 + 50);
	peer_skip(&p);
	out = mib(r, STAT_tcp_out_segs), octets_out = mib(r, STAT_ip_out_octets);
	pattern_fill(big, 0, 5000);
	app_write(r, ep, big, 5000);
	for (struct seg *s; (s = peer_next(&p)); sent += 40 + s->size)
		out++;
	assert_int_equal(mib(r, STAT_tcp_out_segs), out);
	assert_int_equal(mib(r, STAT_ip_out_octets), octets_out + sent);
	assert_int_equal(mib(r, STAT_tcp_out_again), 0);
	assert_int_equal(mib(r, STAT_ip_in_packets), in_segs(r));
}

static void opens_and_failed_attempts_are_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16), ep;
	struct peer p;

	(void)state;
	/* the peer gives up in the middle of its handshake */
	peer_init(&p, r, 41000, 80);
	peer_send(&p, SYN, NULL, 0);
	assert_non_null(peer_next(&p));
	assert_int_equal(mib(r, STAT_tcp_passive_opens), 1);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 0);
	peer_send(&p, RST, NULL, 0);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 1);
	/* one that is refused, one that the application gives up, one that comes about */
	peer_init(&p, r, 7, 0);
	ep = app_connect(r, RIG_PEER, 7);
	assert_true(ep >= 0);
	p.local_port = app_ep(r, (uint32_t)ep)->local.port;
	assert_non_null(peer_next(&p));
	assert_int_equal(mib(r, STAT_tcp_active_opens), 1);
	peer_raw(&p, RST | ACK, 0, p.irs + 1, NULL, 0, NULL, 0);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 2);
	app_close(r, (uint32_t)ep);
	ep = app_connect(r, RIG_PEER, 7);
	assert_true(ep >= 0);
	app_close(r, (uint32_t)ep);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 3);
	peer_skip(&p);
	peer_init(&p, r, 8, 0);
	peer_answer(&p, r, 8);
	assert_int_equal(mib(r, STAT_tcp_active_opens), 3);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 3);
	assert_int_equal(mib(r, STAT_tcp_curr_estab), 1);
	assert_int_equal(mib(r, STAT_tcp_estab_resets), 0);
	/* a listener's end takes its half-open connections along */
	peer_init(&p, r, 41001, 80);
	peer_send(&p, SYN, NULL, 0);
	app_close(r, (uint32_t)lep);
	assert_int_equal(mib(r, STAT_tcp_passive_opens), 2);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 4);
}

static void resets_of_open_connections_are_counted_and_orderly_ends_are_not(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t lep = (uint32_t)app_listen(r, 80, 16), ep;
	struct peer p;

	(void)state;
	/* the peer resets in ESTABLISHED, and in CLOSE_WAIT */
	for (int i = 0; i < 2; i++) {
		peer_init(&p, r, (uint16_t)(42000 + i), 80);
		ep = peer_open(&p, lep);
		assert_int_equal(mib(r, STAT_tcp_curr_estab), 1);
		if (i) {
			peer_send(&p, FIN | ACK, NULL, 0);
			assert_int_equal(mib(r, STAT_tcp_curr_estab), 1);
		}
		peer_send(&p, RST | ACK, NULL, 0);
		assert_int_equal(mib(r, STAT_tcp_estab_resets), 1 + i);
		assert_int_equal(mib(r, STAT_tcp_curr_estab), 0);
		app_close(r, ep);
	}
	/* the application does */
	peer_init(&p, r, 42002, 80);
	ep = peer_open(&p, lep);
	app_release(r, ep, RELEASE_ABORT);
	assert_int_equal(mib(r, STAT_tcp_estab_resets), 3);
	assert_int_equal(mib(r, STAT_tcp_reset_tx), 1);
	/* after our FIN it is none of these any more */
	peer_init(&p, r, 42003, 80);
	ep = peer_open(&p, lep);
	app_close(r, ep);
	assert_int_equal(mib(r, STAT_tcp_curr_estab), 0);
	peer_ack(&p);
	peer_send(&p, RST | ACK, NULL, 0);
	assert_int_equal(mib(r, STAT_tcp_estab_resets), 3);
	/* both ends, one after the other */
	peer_init(&p, r, 42004, 80);
	ep = peer_open(&p, lep);
	peer_send(&p, FIN | ACK, NULL, 0);
	app_close(r, ep);
	peer_skip(&p);
	p.rcv = p.irs + 2;
	peer_ack(&p);
	assert_int_equal(mib(r, STAT_tcp_estab_resets), 3);
	assert_int_equal(mib(r, STAT_tcp_curr_estab), 0);
	assert_int_equal(mib(r, STAT_tcp_attempt_fails), 0);
	assert_int_equal(rig_conns(r), 0);
	/* a segment for a connection that does not exist */
	assert_int_equal(mib(r, STAT_tcp_reset_tx), 1);
	peer_send(&p, ACK, NULL, 0);
	assert_int_equal(mib(r, STAT_tcp_reset_tx), 2);
}

static void segments_sent_again_are_counted_where_they_leave(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t ep, end, again = 0, all = 0;
	uint64_t before;
	struct peer p;
	struct seg *s;

	(void)state;
	ep = peer_pair(&p, r);
	peer_skip(&p);
	end = p.irs + 1;
	before = mib(r, STAT_tcp_out_segs);
	pattern_fill(big, 0, 6000);
	app_write(r, ep, big, 6000);
	rig_run(r, 500); /* nobody answers: time-outs */
	while ((s = peer_next(&p))) {
		all++;
		again += (int32_t)(s->seq - end) < 0;
		if ((int32_t)(s->seq + s->size - end) > 0)
			end = s->seq + s->size;
	}
	assert_true(again > 2);
	assert_int_equal(mib(r, STAT_tcp_out_again), again);
	assert_int_equal(mib(r, STAT_tcp_out_segs) - before, all);
}

static void syn_and_fin_sent_again_are_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep, sent = 0;

	(void)state;
	/* ours: at once, after 1 and 3 s */
	peer_init(&p, r, 9, 0);
	ep = (uint32_t)app_connect(r, RIG_PEER, 9);
	p.local_port = app_ep(r, ep)->local.port;
	rig_jump(r, 3500, 10);
	while (peer_next(&p))
		sent++;
	assert_int_equal(sent, 3);
	assert_int_equal(mib(r, STAT_tcp_out_again), 2);
	app_close(r, ep);
	/* a SYN+ACK */
	app_listen(r, 80, 16);
	peer_init(&p, r, 43000, 80);
	peer_send(&p, SYN, NULL, 0);
	rig_jump(r, 1500, 10);
	for (sent = 0; peer_next(&p);)
		sent++;
	assert_int_equal(sent, 2);
	assert_int_equal(mib(r, STAT_tcp_out_again), 3);
	peer_send(&p, RST, NULL, 0);
	/* a FIN, after which nothing comes */
	peer_skip(&p);
	ep = peer_answer(&p, r, 10);
	peer_skip(&p);
	app_shutdown(r, ep, SHUT_WR);
	rig_run(r, 400);
	for (sent = 0; peer_next(&p);)
		sent++;
	assert_true(sent > 1);
	assert_int_equal(mib(r, STAT_tcp_out_again), 3 + sent - 1);
}

static void damaged_segments_are_errors(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[100], *t;

	(void)state;
	app_listen(r, 80, 16);
	t = ip_frame(f, 6, 24);
	memset(t, 0, 24);
	put16(t, 40000);
	put16(t + 2, 80);
	t[12] = 0x60;
	t[13] = SYN;
	memcpy(t + 20, (uint8_t[]){2, 1, 0, 0}, 4); /* an option shorter than itself */
	rig_frame(r, f, 58);
	assert_int_equal(mib(r, STAT_tcp_in_errors), 1);
	assert_int_equal(in_segs(r), 1);
	memset(t + 20, 1, 4);
	t[13] = SYN | FIN;
	rig_frame(r, f, 58);
	assert_int_equal(mib(r, STAT_tcp_in_errors), 2);
	/* checksums: the port looks at them, and housekeeping tells */
	t = ip_frame(f, 6, 24);
	put16(f + 24, ~sum(f + 14, 20));
	put16(t + 16, 0x1234);
	assert_int_equal(nic_fake_inject(r->nic, 0, f, 58), 0);
	put16(f + 24, 0x1234);
	assert_int_equal(nic_fake_inject(r->nic, 0, f, 58), 0);
	t = ip_frame(f, 17, 16);
	memset(t, 0, 16);
	put16(f + 24, ~sum(f + 14, 20));
	put16(t + 4, 16);
	put16(t + 6, 0x4321);
	assert_int_equal(nic_fake_inject(r->nic, 0, f, 50), 0);
	rig_run(r, 1100);
	assert_int_equal(mib(r, STAT_tcp_in_bad_cksum), 1);
	assert_int_equal(mib(r, STAT_ip_in_bad_cksum), 1);
	assert_int_equal(mib(r, STAT_udp_in_bad_cksum), 1);
	assert_int_equal(mib(r, STAT_drop_rx_cksum), 3);
	assert_int_equal(mib(r, STAT_tcp_in_errors), 2);
}

/* --- IP --- */

static void packets_for_others_and_of_unknown_protocols_are_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[100], *ip = f + 14;

	(void)state;
	memset(ip_frame(f, 99, 20), 0, 20);
	rig_frame(r, f, 60); /* answered with ICMP */
	assert_int_equal(mib(r, STAT_ip_in_unknown_protos), 1);
	assert_int_equal(mib(r, STAT_icmp_out_dest_unreachs), 1);
	ip[19] = 77;
	rig_frame(r, f, 60);
	assert_int_equal(mib(r, STAT_ip_in_addr_errors), 1);
	put32(ip + 16, RIG_ADDRESS);
	put32(ip + 12, 0x7f000001);
	rig_frame(r, f, 60);
	assert_int_equal(mib(r, STAT_ip_in_addr_errors), 2);
	/* by Ethernet for another: IP never sees it */
	f[5] = 9;
	rig_frame(r, f, 60);
	assert_int_equal(mib(r, STAT_ip_in_addr_errors), 2);
	assert_int_equal(mib(r, STAT_ip_in_packets), 3);
	assert_int_equal(mib(r, STAT_ip_in_octets), 3 * 40);
	/* for everybody */
	ip_frame(f, 17, 8);
	memset(f, 255, 6);
	put32(ip + 16, 0xffffffff);
	memcpy(ip + 20, (uint8_t[]){0, 1, 0, 2, 0, 8, 0, 0}, 8);
	rig_frame(r, f, 60);
	assert_int_equal(mib(r, STAT_ip_in_bcast_packets), 1);
	put32(ip + 16, 0xe0000001);
	rig_frame(r, f, 60);
	assert_int_equal(mib(r, STAT_ip_in_mcast_packets), 1);
	assert_int_equal(mib(r, STAT_udp_no_ports), 0); /* that is about what was sent to us alone */
}

static void fragments_put_together_given_up_and_made_are_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;

	(void)state;
	dg_peer(&p, r, 5000);
	p.mtu = 1500;
	dg_arrive(&p, 4000); /* 1480 bytes in each but the last */
	dg_expect(r, ep, 9000, 0, 4000);
	assert_int_equal(mib(r, STAT_ip_reasm_fragments), 3);
	assert_int_equal(mib(r, STAT_ip_reasm_oks), 1);
	assert_int_equal(mib(r, STAT_ip_reasm_fails), 0);
	p.skip = 2;
	dg_arrive(&p, 4000);
	assert_int_equal(mib(r, STAT_ip_reasm_fragments), 5);
	rig_jump(r, 35000, 100);
	assert_int_equal(mib(r, STAT_ip_reasm_oks), 1);
	assert_int_equal(mib(r, STAT_ip_reasm_fails), 1);
	assert_int_equal(mib(r, STAT_udp_rx), 1);
	assert_int_equal(mib(r, STAT_icmp_out_time_excds), 1);
	free(rig_packet(r));
	/* the other way */
	dg_send(r, ep, RIG_PEER, 9000, 1000);
	assert_int_equal(mib(r, STAT_ip_frag_oks), 0);
	dg_send(r, ep, RIG_PEER, 9000, 4000);
	assert_int_equal(mib(r, STAT_ip_frag_oks), 1);
	assert_int_equal(mib(r, STAT_ip_frag_creates), 3);
	dg_send_flags(r, ep, RIG_PEER, 9000, 4000, DGRAM_DONT_FRAGMENT);
	assert_int_equal(mib(r, STAT_drop_tx_too_long), 1);
	assert_int_equal(mib(r, STAT_ip_frag_creates), 3);
	assert_int_equal(mib(r, STAT_udp_tx), 2);
	assert_int_equal(dg_sent(r, big, &p), 1000);
	assert_int_equal(dg_sent(r, big, &p), 4000);
}

/* --- UDP, ICMP, ARP --- */

static void datagrams_are_counted_by_what_became_of_them(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct dg_peer p;
	uint32_t n = 0;

	(void)state;
	dg_peer(&p, r, 5000);
	dg_arrive(&p, 100);
	assert_int_equal(mib(r, STAT_udp_rx), 1);
	dg_peer(&p, r, 5001);
	dg_arrive(&p, 100);
	assert_int_equal(mib(r, STAT_udp_no_ports), 1);
	assert_int_equal(mib(r, STAT_icmp_out_dest_unreachs), 1);
	assert_int_equal(mib(r, STAT_icmp_tx), 1);
	/* a full receive buffer */
	dg_peer(&p, r, 5000);
	dg_rcvbuf(r, ep, 2304);
	for (int i = 0; i < 40; i++)
		dg_arrive(&p, 1000);
	assert_int_equal(mib(r, STAT_udp_rx) + mib(r, STAT_udp_in_errors), 41);
	assert_true(mib(r, STAT_udp_in_errors) > 0);
	assert_int_equal(mib(r, STAT_udp_in_errors), mib(r, STAT_drop_udp_rcvbuf));
	while (dg_recv(r, ep, big, NULL) >= 0)
		n++;
	assert_int_equal(n, mib(r, STAT_udp_rx));
	assert_int_equal(mib(r, STAT_udp_no_ports), 1);
}

static void icmp_is_counted_by_type(void **state)
{
	static const struct {
		uint8_t type;
		enum stat_id in;
	} row[] = {{0, STAT_icmp_in_echo_reps}, {3, STAT_icmp_in_dest_unreachs}, {5, STAT_icmp_in_redirects},
	        {8, STAT_icmp_in_echos}, {11, STAT_icmp_in_time_excds}, {12, STAT_icmp_in_parm_probs},
	        {13, STAT_icmp_in_others}};
	struct rig *r = rig_up(NULL);
	uint8_t f[34 + 36], *t;

	(void)state;
	for (uint32_t i = 0; i < ARRAY_COUNT(row); i++) {
		for (uint32_t n = 0; n <= i; n++) {
			t = ip_frame(f, 1, 36);
			memset(t, 0, 36);
			t[0] = row[i].type;
			put16(t + 2, ~sum(t, 36));
			rig_frame(r, f, sizeof(f));
		}
		assert_int_equal(mib(r, row[i].in), i + 1);
	}
	assert_int_equal(mib(r, STAT_icmp_rx), 1 + 2 + 3 + 4 + 5 + 6 + 7);
	assert_int_equal(mib(r, STAT_icmp_in_errors), 0);
	/* answers */
	assert_int_equal(mib(r, STAT_icmp_tx), 4);
	assert_int_equal(mib(r, STAT_icmp_out_echo_reps), 4);
	/* a checksum that is wrong */
	t = ip_frame(f, 1, 36);
	memset(t, 0, 36);
	t[0] = 8;
	put16(t + 2, 0x1111);
	rig_frame(r, f, sizeof(f));
	assert_int_equal(mib(r, STAT_icmp_in_errors), 1);
	assert_int_equal(mib(r, STAT_icmp_tx), 4);
}

static void arp_is_counted_by_what_it_is(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	uint64_t requests, replies, out;

	(void)state;
	out = mib(r, STAT_arp_out_requests);
	rig_arp(r, 1, RIG_PEER + 1, RIG_ADDRESS);
	assert_int_equal(mib(r, STAT_arp_in_requests), 1);
	assert_int_equal(mib(r, STAT_arp_out_replies), 1);
	rig_arp(r, 1, RIG_PEER + 1, RIG_ADDRESS + 9); /* another is asked */
	assert_int_equal(mib(r, STAT_arp_in_requests), 2);
	assert_int_equal(mib(r, STAT_arp_out_replies), 1);
	replies = mib(r, STAT_arp_in_replies);
	requests = r->arp_requests;
	dg_send(r, ep, RIG_PEER + 2, 9000, 10); /* unknown so far: asked for, and the rig answers */
	assert_int_equal(r->arp_requests, requests + 1);
	assert_int_equal(mib(r, STAT_arp_out_requests), out + 1);
	assert_int_equal(mib(r, STAT_arp_in_replies), replies + 1);
}

/* --- peaks --- */

static void lows_follow_the_level_down_and_begin_anew_when_told(void **state)
{
	struct rig *r = rig_up(NULL);
	uint32_t ep, blocks = (uint32_t)mib(r, STAT_blocks_low);
	struct peer p;

	(void)state;
	assert_int_equal(blocks, r->stack[0]->block_free_count);
	ep = peer_pair(&p, r);
	app_write(r, ep, big, sizeof(big));
	assert_true(mib(r, STAT_blocks_low) < blocks);
	app_close(r, ep);
	app_die(r, 0);
	peer_skip(&p);
	peer_send(&p, RST | ACK, NULL, 0);
	rig_run(r, 100);
	assert_int_equal(r->stack[0]->block_free_count, blocks);
	assert_true(mib(r, STAT_blocks_low) < blocks);
	stat_peak(r->stats[0], STAT_worst_turn_ns, 12345);
	stack_peaks_reset(r->stack[0], NULL);
	assert_int_equal(mib(r, STAT_blocks_low), blocks);
	assert_int_equal(mib(r, STAT_worst_turn_ns), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(segments_in_and_out_are_counted_once_each),
	        WIRE_TEST(opens_and_failed_attempts_are_counted),
	        WIRE_TEST(resets_of_open_connections_are_counted_and_orderly_ends_are_not),
	        WIRE_TEST(segments_sent_again_are_counted_where_they_leave),
	        WIRE_TEST(syn_and_fin_sent_again_are_counted),
	        WIRE_TEST(damaged_segments_are_errors),
	        WIRE_TEST(packets_for_others_and_of_unknown_protocols_are_counted),
	        WIRE_TEST(fragments_put_together_given_up_and_made_are_counted),
	        WIRE_TEST(datagrams_are_counted_by_what_became_of_them),
	        WIRE_TEST(icmp_is_counted_by_type),
	        WIRE_TEST(arp_is_counted_by_what_it_is),
	        WIRE_TEST(lows_follow_the_level_down_and_begin_anew_when_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
