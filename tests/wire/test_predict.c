/* test_predict.c - header prediction (predict.c). The general path is the oracle: two connections get the
 * same segments at the same times, one of them with an option that means nothing and keeps prediction away,
 * and must look the same after each.
 */
#include "peer.h"

#include <string.h>

enum { STEPS = 4000, WRITE_MAX = 8000, ACK_MAX = 2 * 1460 /* what lwIP counts of one in slow start */ };

static uint8_t bytes[1 << 16];

static uint32_t rnd(void)
{
	static uint32_t x = 2463534242u;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

static const struct tcp_pcb *pcb_of(const struct rig *r, uint32_t ep)
{
	return r->stack[0]->by_ep[ep]->pcb;
}

#define SAME(field) assert_int_equal(a->field, b->field)
#define SAME_FROM(field, base) assert_int_equal(a->field - p->base, b->field - q->base)

static void compare(
        const struct rig *r, const struct peer *p, const struct peer *q, uint32_t ep_p, uint32_t ep_q)
{
	const struct tcp_pcb *a = pcb_of(r, ep_p), *b = pcb_of(r, ep_q);

	SAME(state);
	SAME(flags);
	SAME_FROM(rcv_nxt, iss);
	SAME(rcv_wnd);
	SAME(rcv_ann_wnd);
	SAME_FROM(rcv_ann_right_edge, iss);
	SAME_FROM(snd_nxt, irs);
	SAME_FROM(lastack, irs);
	SAME_FROM(snd_lbb, irs);
	SAME(snd_wnd);
	SAME(snd_wnd_max);
	SAME_FROM(snd_wl1, iss);
	SAME_FROM(snd_wl2, irs);
	SAME(cwnd);
	SAME(ssthresh);
	SAME(bytes_acked);
	SAME(sa);
	SAME(sv);
	SAME(rto);
	SAME(rtime);
	SAME(rttest);
	SAME(nrtx);
	SAME(dupacks);
	SAME(snd_buf);
	/* counts pieces of memory, and blocks of one may lie behind each other */
	assert_int_equal(a->snd_queuelen == 0, b->snd_queuelen == 0);
	SAME(tmr);
	SAME(polltmr);
	SAME(keep_cnt_sent);
	assert_int_equal(a->unacked == NULL, b->unacked == NULL);
	assert_int_equal(a->unsent == NULL, b->unsent == NULL);
	assert_int_equal(ep_rx_pending(app_ep(r, ep_p)), ep_rx_pending(app_ep(r, ep_q)));
	assert_int_equal(ep_tx_used(app_ep(r, ep_p)), ep_tx_used(app_ep(r, ep_q)));
	assert_int_equal(r->stack[0]->by_ep[ep_p]->bytes_received, r->stack[0]->by_ep[ep_q]->bytes_received);
	assert_int_equal(r->stack[0]->by_ep[ep_p]->bytes_acked, r->stack[0]->by_ep[ep_q]->bytes_acked);
}

/* What both were sent is the same, too. */
static void compare_sent(struct peer *p, struct peer *q)
{
	struct seg *a, *b;

	while ((a = peer_next(p))) {
		b = peer_next(q);
		assert_non_null(b);
		assert_int_equal(a->flags, b->flags);
		assert_int_equal(a->size, b->size);
		assert_int_equal(a->wnd, b->wnd);
		assert_int_equal(a->seq - p->irs, b->seq - q->irs);
		assert_int_equal(a->ack - p->iss, b->ack - q->iss);
		assert_memory_equal(a->data, b->data, a->size);
	}
	assert_null(peer_next(q));
}

static void predicted_segments_do_what_the_general_path_does(void **state)
{
	static const uint8_t nothing[4] = {1, 1, 1, 1};
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, q;
	uint32_t ep_p, ep_q, off = 0, acked = 0;
	uint64_t predicted;

	(void)state;
	peer_init(&p, r, 40000, 80);
	peer_init(&q, r, 40001, 80);
	/* their numbers wrap round on the way */
	p.iss = p.snd = q.iss = q.snd = 0xffff8000;
	ep_p = peer_open(&p, (uint32_t)lep);
	ep_q = peer_open(&q, (uint32_t)lep);
	predicted = rig_stat(r, STAT_tcp_rx_predicted);
	for (int i = 0; i < STEPS; i++) {
		uint32_t what = rnd() % 12, size = 0, rest = p.rcv - p.irs - 1 - acked;

		switch (what) {
		case 0:
		case 1:
		case 2:
		case 3:
		case 4:
			size = 1 + rnd() % 1460; /* fall through */
		case 5:
		case 6:
			if (what != 0 && rest)
				acked += 1 + rnd() % (rest < ACK_MAX ? rest : ACK_MAX);
			if (rnd() % 4 == 0)
				p.wnd = q.wnd = (uint16_t)(20000 + rnd() % 40000);
			if (pcb_of(r, ep_p)->rcv_wnd < size)
				break;
			pattern_fill(bytes, off, size);
			peer_inject(
			        &p, ACK | (size ? PSH : 0), p.snd, p.irs + 1 + acked, NULL, 0, bytes, size);
			peer_inject(&q, ACK | (size ? PSH : 0), q.snd, q.irs + 1 + acked, nothing,
			        sizeof(nothing), bytes, size);
			p.snd += size;
			q.snd += size;
			off += size;
			rig_turn(r);
			break;
		case 7:
		case 8:
			if (rest)
				break;
			size = 1 + rnd() % WRITE_MAX;
			pattern_fill(bytes, p.rcv - p.irs - 1, size);
			assert_int_equal(app_write(r, ep_p, bytes, size), size);
			assert_int_equal(app_write(r, ep_q, bytes, size), size);
			break;
		case 9:
			size = ep_rx_pending(app_ep(r, ep_p));
			assert_int_equal(app_read(r, ep_p, bytes, sizeof(bytes)),
			        size < sizeof(bytes) ? size : sizeof(bytes));
			if (size <= sizeof(bytes))
				pattern_check(bytes, off - size, size);
			app_read(r, ep_q, bytes, sizeof(bytes));
			break;
		default:
			rig_run(r, rnd() % 8);
		}
		compare(r, &p, &q, ep_p, ep_q);
		compare_sent(&p, &q);
	}
	assert_true(off > 0x8000);
	assert_true(rig_stat(r, STAT_tcp_rx_predicted) - predicted > STEPS / 4);
}

static void a_burst_is_acknowledged_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct seg *s;

	(void)state;
	for (uint32_t i = 0; i < 8; i++) {
		pattern_fill(bytes, i * 1000, 1000);
		peer_inject(&p, ACK, p.snd, p.rcv, NULL, 0, bytes, 1000);
		p.snd += 1000;
	}
	rig_turn(r);
	s = expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(s->ack, p.snd);
	expect_none(&p);
	rig_run(r, 50);
	expect_none(&p);
	assert_int_equal(app_read(r, ep, bytes, sizeof(bytes)), 8000);
	pattern_check(bytes, 0, 8000);
}

static void out_of_order_is_left_to_the_general_path_and_goes_on_after_it(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t before;

	(void)state;
	peer_data(&p, 100);
	before = rig_stat(r, STAT_tcp_rx_predicted);
	assert_true(before > 0);
	peer_data_at(&p, 200, 100);
	peer_data_at(&p, 300, 100);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_predicted), before);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 100);
	peer_data_at(&p, 100, 100); /* fills the hole: something waits behind it */
	assert_int_equal(rig_stat(r, STAT_tcp_rx_predicted), before);
	assert_int_equal(ep_rx_pending(app_ep(r, ep)), 400);
	p.snd = p.iss + 1 + 400;
	peer_data(&p, 100);
	assert_int_equal(rig_stat(r, STAT_tcp_rx_predicted), before + 1);
	assert_int_equal(app_read(r, ep, bytes, sizeof(bytes)), 500);
	pattern_check(bytes, 0, 500);
}

/* None of these is what was expected next. */
static void others_are_not_predicted(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	uint64_t before = rig_stat(r, STAT_tcp_rx_predicted);

	(void)state;
	pattern_fill(bytes, 0, 1000);
	peer_raw(&p, ACK, p.snd, p.rcv, NULL, 0, NULL, 0);              /* nothing new */
	peer_raw(&p, ACK, p.snd, p.rcv + 1, NULL, 0, bytes, 100);       /* acknowledges what was never sent */
	peer_raw(&p, ACK, p.snd - 50, p.rcv, NULL, 0, bytes, 20);       /* old */
	peer_raw(&p, PSH, p.snd, p.rcv, NULL, 0, bytes, 100);           /* without ACK */
	peer_raw(&p, ACK | FIN, p.snd + 5000, p.rcv, NULL, 0, NULL, 0); /* ahead of its turn */
	assert_int_equal(rig_stat(r, STAT_tcp_rx_predicted), before);
	peer_skip(&p);
	app_close(r, ep);
	peer_raw(&p, ACK, p.snd, p.rcv + 1, NULL, 0, NULL, 0); /* of our FIN */
	assert_int_equal(rig_stat(r, STAT_tcp_rx_predicted), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(predicted_segments_do_what_the_general_path_does),
	        WIRE_TEST(a_burst_is_acknowledged_once),
	        WIRE_TEST(out_of_order_is_left_to_the_general_path_and_goes_on_after_it),
	        WIRE_TEST(others_are_not_predicted),
	};

	return cmocka_run_group_tests_name("predict", tests, NULL, NULL);
}
