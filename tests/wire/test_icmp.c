/* test_icmp.c - ICMP errors that others send: which socket learns of them, and which are believed.
 */
#include "dgram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { UNREACH = 3, TIME_EXCEEDED = 11, PARAMETER = 12 };

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

static uint32_t sum(const uint8_t *p, uint32_t size)
{
	uint32_t s = 0;

	for (uint32_t i = 0; i < size; i += 2)
		s += (uint32_t)p[i] << 8 | p[i + 1];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* An error about a packet that went from src:sport to dst:dport. */
struct icmp {
	uint8_t type, code, proto;
	uint16_t mtu, sport, dport;
	uint32_t src, dst, seq;
	bool is_bad, is_short;
	uint32_t queue;
};

static void arrive(struct rig *r, const struct icmp *e)
{
	uint8_t f[14 + 20 + 8 + 20 + 8] = {2, 0, 0, 0, 0, 1}, *ip = f + 14, *icmp = ip + 20, *q = icmp + 8;
	uint32_t size = sizeof(f) - (e->is_short ? 4 : 0);

	rig_mac(RIG_GATEWAY, f + 6);
	f[12] = 8;
	ip[0] = 0x45;
	put16(ip + 2, size - 14);
	ip[8] = 64;
	ip[9] = 1;
	put32(ip + 12, RIG_GATEWAY);
	put32(ip + 16, RIG_ADDRESS);
	icmp[0] = e->type;
	icmp[1] = e->code;
	put16(icmp + 6, e->mtu);
	q[0] = 0x45;
	put16(q + 2, 48);
	q[8] = 60;
	q[9] = e->proto;
	put32(q + 12, e->src);
	put32(q + 16, e->dst);
	put16(q + 20, e->sport);
	put16(q + 22, e->dport);
	put32(q + 24, e->seq);
	put16(icmp + 2, ~sum(icmp, size - 34) ^ (e->is_bad ? 0x100 : 0));
	rig_inject(r, e->queue, f, size);
	rig_turn(r);
}

static struct icmp about_udp(uint16_t sport, uint8_t type, uint8_t code)
{
	return (struct icmp){.type = type,
	        .code = code,
	        .proto = 17,
	        .src = RIG_ADDRESS,
	        .dst = RIG_PEER,
	        .sport = sport,
	        .dport = 9000};
}

static int error_of(struct rig *r, int ep)
{
	return atomic_exchange(&app_ep(r, (uint32_t)ep)->error, 0);
}

static void connected_datagram_endpoint_learns_hard_errors(void **state)
{
	static const struct {
		uint8_t type, code;
		int err;
	} cases[] = {
	        {UNREACH, 0, 0}, /* net and host: soft, only with IP_RECVERR */
	        {UNREACH, 1, 0}, {UNREACH, 2, ENOPROTOOPT}, {UNREACH, 3, ECONNREFUSED}, {UNREACH, 5, 0},
	        {UNREACH, 6, ENETUNREACH}, {UNREACH, 7, EHOSTDOWN}, {UNREACH, 8, ENONET},
	        {UNREACH, 9, ENETUNREACH}, {UNREACH, 10, EHOSTUNREACH}, {UNREACH, 11, 0}, {UNREACH, 12, 0},
	        {UNREACH, 13, EHOSTUNREACH}, {UNREACH, 14, EHOSTUNREACH}, {UNREACH, 15, EHOSTUNREACH},
	        {UNREACH, 16, 0},                                         /* unheard of */
	        {TIME_EXCEEDED, 0, 0}, {PARAMETER, 0, EPROTO}, {5, 0, 0}, /* a redirect is no error */
	};
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);

	(void)state;
	assert_int_equal(dg_connect(r, ep, RIG_PEER, 9000), 0);
	for (uint32_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct icmp e = about_udp(5000, cases[i].type, cases[i].code);

		arrive(r, &e);
		assert_int_equal(error_of(r, ep), cases[i].err);
	}
	assert_int_equal(rig_stat(r, STAT_icmp_rx), ARRAY_COUNT(cases));
}

static void fragmentation_needed_is_emsgsize(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = dg_bind(r, 0, 5000);
	struct icmp e = about_udp(5000, UNREACH, 4);

	(void)state;
	assert_int_equal(dg_connect(r, ep, RIG_PEER, 9000), 0);
	e.mtu = 1400;
	arrive(r, &e);
	assert_int_equal(error_of(r, ep), EMSGSIZE);
	e.mtu = 68; /* smaller than any path that is to be believed */
	arrive(r, &e);
	assert_int_equal(error_of(r, ep), 0);
}

static void other_endpoints_learn_nothing(void **state)
{
	struct rig *r = rig_up(NULL);
	int loose = dg_bind(r, 0, 5000), linked = dg_bind(r, 0, 5001);
	struct icmp e;

	(void)state;
	assert_int_equal(dg_connect(r, linked, RIG_PEER, 9000), 0);
	e = about_udp(5000, UNREACH, 3); /* not connected */
	arrive(r, &e);
	e = about_udp(5001, UNREACH, 3); /* about another peer */
	e.dst++;
	arrive(r, &e);
	e.dst--;
	e.dport++;
	arrive(r, &e);
	e = about_udp(5001, UNREACH, 3); /* a packet that was not ours */
	e.src = RIG_PEER + 7;
	arrive(r, &e);
	e = about_udp(5001, UNREACH, 3); /* damaged, cut */
	e.is_bad = true;
	arrive(r, &e);
	e = about_udp(5001, UNREACH, 3);
	e.is_short = true;
	arrive(r, &e);
	assert_int_equal(error_of(r, loose), 0);
	assert_int_equal(error_of(r, linked), 0);
	assert_int_equal(rig_stat(r, STAT_icmp_errors), 0);
	/* the dissolved one neither */
	assert_int_equal(dg_connect(r, linked, 0, 0), 0);
	e = about_udp(5001, UNREACH, 3);
	arrive(r, &e);
	assert_int_equal(error_of(r, linked), 0);
}

static void error_of_another_stack_comes_home(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.stacks = 2});
	int ep = dg_bind_at(r, 1, 0, 5000, 0, 0);
	struct icmp e = about_udp(5000, UNREACH, 3);

	(void)state;
	assert_int_equal(dg_connect(r, ep, RIG_PEER, 9000), 0);
	for (e.queue = 0; e.queue < 2; e.queue++) {
		arrive(r, &e);
		assert_int_equal(error_of(r, ep), ECONNREFUSED);
		assert_true(ep_level(&r->arena, app_ep(r, (uint32_t)ep)) & EPOLLOUT);
	}
}

static struct icmp about_tcp(const struct peer *p, uint8_t code, uint32_t seq)
{
	return (struct icmp){.type = UNREACH,
	        .code = code,
	        .proto = 6,
	        .src = RIG_ADDRESS,
	        .dst = p->ip,
	        .sport = p->local_port,
	        .dport = p->port,
	        .seq = seq};
}

static void connect_fails_by_an_error_about_its_syn(void **state)
{
	static const struct {
		uint8_t code;
		int err;
	} cases[] = {{0, ENETUNREACH}, {1, EHOSTUNREACH}, {3, ECONNREFUSED}, {13, EHOSTUNREACH}};

	(void)state;
	for (uint32_t stacks = 1; stacks < 3; stacks++) {
		struct rig *r = rig_up(&(struct rig_spec){.stacks = stacks});

		for (uint32_t i = 0; i < ARRAY_COUNT(cases); i++) {
			int ep = app_connect(r, RIG_PEER, 7000);
			struct peer p;
			struct seg *s;
			struct icmp e;

			peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
			s = peer_next(&p);
			assert_non_null(s);
			e = about_tcp(&p, cases[i].code, s->seq + 100000); /* not a segment of ours */
			arrive(r, &e);
			assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CONNECTING);
			e.seq = s->seq;
			e.queue = i % stacks;
			arrive(r, &e);
			assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_CLOSED);
			assert_int_equal(error_of(r, ep), cases[i].err);
		}
		if (stacks == 1)
			assert_int_equal(rig_end(NULL), 0);
	}
}

static void open_connection_outlives_errors_and_learns_the_mtu(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	static uint8_t data[8000];
	struct seg *s;
	struct icmp e;

	(void)state;
	pattern_fill(data, 0, sizeof(data));
	assert_int_equal(app_write(r, ep, data, 1460), 1460);
	s = peer_next(&p);
	assert_non_null(s);
	assert_int_equal(s->size, 1460);
	e = about_tcp(&p, 1, s->seq);
	arrive(r, &e);
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	assert_int_equal(error_of(r, (int)ep), 0);
	e.code = 4;
	e.mtu = 1000;
	arrive(r, &e);
	peer_ack(&p);
	assert_int_equal(app_write(r, ep, data + 1460, 4000), 4000);
	while ((s = peer_next(&p)))
		assert_true(s->size <= 960);
	peer_ack(&p);
}

static void smaller_mtu_while_longer_segments_wait_keeps_the_stream_whole(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 4000), off = 0, most = 0;
	static uint8_t data[60000];
	struct icmp e;

	(void)state;
	pattern_fill(data, 0, sizeof(data));
	assert_int_equal(app_write(r, ep, data, 20000), 20000);
	e = about_tcp(&p, 4, p.irs + 1);
	e.mtu = 600;
	arrive(r, &e);
	assert_int_equal(app_write(r, ep, data + 20000, 40000), 40000);
	p.wnd = 1000; /* less than what waits as one segment */
	while (off < sizeof(data)) {
		struct seg *s;

		while ((s = peer_next(&p))) {
			if (s->seq - p.irs - 1 != off || !s->size)
				continue;
			pattern_check(s->data, off, s->size);
			off += s->size;
			most = off > 30000 && s->size > most ? s->size : most;
		}
		p.rcv = p.irs + 1 + off;
		peer_ack(&p);
		rig_run(r, 10);
	}
	assert_int_equal(most, 560);
	assert_int_equal(ep_tx_used(app_ep(r, ep)), 0);
}

static void ping_is_answered(void **state)
{
	struct rig *r = rig_up(NULL);
	uint8_t f[14 + 20 + 8 + 6] = {2, 0, 0, 0, 0, 1}, *ip = f + 14;
	struct packet *k;

	(void)state;
	rig_mac(RIG_PEER, f + 6);
	f[12] = 8;
	ip[0] = 0x45;
	put16(ip + 2, sizeof(f) - 14);
	ip[8] = 64;
	ip[9] = 1;
	put32(ip + 12, RIG_PEER);
	put32(ip + 16, RIG_ADDRESS);
	ip[20] = 8;
	put16(ip + 22, ~sum(ip + 20, 14));
	rig_frame(r, f, sizeof(f));
	k = rig_packet(r);
	assert_non_null(k);
	assert_int_equal(k->ip[20], 0);
	free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(connected_datagram_endpoint_learns_hard_errors),
	        WIRE_TEST(fragmentation_needed_is_emsgsize),
	        WIRE_TEST(other_endpoints_learn_nothing),
	        WIRE_TEST(error_of_another_stack_comes_home),
	        WIRE_TEST(connect_fails_by_an_error_about_its_syn),
	        WIRE_TEST(open_connection_outlives_errors_and_learns_the_mtu),
	        WIRE_TEST(smaller_mtu_while_longer_segments_wait_keeps_the_stream_whole),
	        WIRE_TEST(ping_is_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
