/* test_report.c - what a stack tells tools in the arena: the timer of a connection that goes off next, and
 * once a second neighbours and itself.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

static struct stack_report report;

static uint32_t timer_of(const struct rig *r, uint32_t ep)
{
	return atomic_load(&app_ep(r, ep)->info_timer);
}

/* Milliseconds until then. */
static int32_t timer_in(const struct rig *r, uint32_t ep)
{
	return (int32_t)(atomic_load(&app_ep(r, ep)->info_timer_ms) - (uint32_t)rig_ms(r));
}

static const struct report_neigh *neighbour(uint32_t ip)
{
	uint32_t net = htonl(ip);

	for (uint32_t i = 0; i < report.neigh_count; i++)
		if (!memcmp(report.neigh[i].ip, &net, 4))
			return &report.neigh[i];
	return NULL;
}

static void idle_connection_has_no_timer(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	rig_run(r, 300);
	assert_int_equal(timer_of(r, ep), REPORT_TIMER_NONE);
}

static void sent_data_runs_a_timer_until_it_is_acknowledged(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	rig_run(r, 300);
	assert_int_equal(app_write(r, ep, "some", 4), 4);
	expect(&p, ACK, p.irs + 1, 4);
	assert_true(timer_of(r, ep) == REPORT_TIMER_REXMIT || timer_of(r, ep) == REPORT_TIMER_RECOVER);
	assert_true(timer_in(r, ep) > 0 && timer_in(r, ep) <= 1000);
	/* and it is the one that goes off then */
	for (int32_t left = timer_in(r, ep); left > 1; left--) {
		rig_run(r, 1);
		expect_none(&p);
	}
	rig_run(r, 2);
	expect(&p, ACK, p.irs + 1, 4);
	peer_ack(&p);
	assert_int_equal(timer_of(r, ep), REPORT_TIMER_NONE);
}

static void received_data_waits_for_the_delayed_acknowledgement(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	rig_run(r, 300);
	peer_send(&p, PSH | ACK, "data", 4);
	assert_int_equal(timer_of(r, ep), REPORT_TIMER_ACK);
	assert_true(timer_in(r, ep) > 0 && timer_in(r, ep) <= 5);
	rig_run(r, 10);
	expect(&p, ACK, p.irs + 1, 0);
	assert_int_equal(timer_of(r, ep), REPORT_TIMER_NONE);
}

static void keepalive_counts_from_the_last_segment(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_setopt(r, ep, EPO_KEEPIDLE, 10);
	app_setflag(r, ep, EPF_KEEPALIVE, true);
	rig_run(r, 500);
	assert_int_equal(timer_of(r, ep), REPORT_TIMER_KEEPALIVE);
	assert_true(timer_in(r, ep) > 9000 && timer_in(r, ep) <= 10001);
}

static void unanswered_syn_retransmits(void **state)
{
	struct rig *r = rig_up(NULL);
	struct call c = {.op = CALL_CONNECT,
	        .endpoint = ENDPOINT_NONE,
	        .remote = {.family = AF_INET, .port = 80, .ip = {10, 1, 0, 2}}};

	(void)state;
	assert_int_equal(app_call(r, 0, &c), 0);
	assert_int_equal(timer_of(r, c.endpoint), REPORT_TIMER_REXMIT);
	assert_true(timer_in(r, c.endpoint) > 0);
}

static void neighbours_are_told_once_a_second(void **state)
{
	struct rig *r = rig_up(NULL);
	const struct report_neigh *n;
	struct peer p;
	uint8_t mac[6];

	(void)state;
	peer_pair(&p, r);
	rig_run(r, 1100);
	assert_true(report_read(&r->arena.reports[0], &report));
	n = neighbour(RIG_PEER);
	assert_non_null(n);
	rig_mac(RIG_PEER, mac);
	assert_memory_equal(n->mac, mac, 6);
	assert_int_equal(n->state, REPORT_NEIGH_KNOWN);
	assert_int_equal(n->big, 0);
	assert_true((uint32_t)rig_ms(r) - n->time_ms <= 1200);
	assert_true((uint32_t)rig_ms(r) - report.now_ms <= 1000);
	assert_int_equal(report.core, -1);
}

static void neighbour_on_shared_memory_tells_its_longest_frame(void **state)
{
	struct rig *r = rig_up(&(struct rig_spec){.near = true});
	const struct report_neigh *n;
	struct peer p;

	(void)state;
	peer_pair(&p, r);
	rig_run(r, 1100);
	assert_true(report_read(&r->arena.reports[0], &report));
	n = neighbour(RIG_PEER);
	assert_non_null(n);
	assert_int_equal(n->big, RIG_NEAR_MAX);
}

static void silent_neighbour_is_asked_for(void **state)
{
	struct rig *r = rig_up(NULL);
	const struct report_neigh *n;
	int ep;

	(void)state;
	r->arp_is_silent = true;
	ep = app_connect(r, 0x0a010077, 80);
	assert_true(ep >= 0);
	rig_run(r, 1100);
	assert_true(report_read(&r->arena.reports[0], &report));
	n = neighbour(0x0a010077);
	assert_non_null(n);
	assert_int_equal(n->state, REPORT_NEIGH_ASKING);
	assert_true(n->tries >= 1 && n->waiting >= 1);
}

/* A stack that was stopped in the middle of its report does not hold a reader up. */
static void half_written_report_is_told_from_a_whole_one(void **state)
{
	struct rig *r = rig_up(NULL);

	(void)state;
	rig_run(r, 1100);
	report_begin(&r->arena.reports[0]);
	r->arena.reports[0].neigh_count = UINT32_MAX;
	r->arena.reports[0].wait_fd_count = UINT32_MAX;
	assert_false(report_read(&r->arena.reports[0], &report));
	assert_true(report.neigh_count <= REPORT_NEIGH_MAX);
	assert_true(report.wait_fd_count <= REPORT_FD_MAX);
	/* and the next one is whole again */
	rig_run(r, 1100);
	assert_true(report_read(&r->arena.reports[0], &report));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(idle_connection_has_no_timer),
	        WIRE_TEST(sent_data_runs_a_timer_until_it_is_acknowledged),
	        WIRE_TEST(received_data_waits_for_the_delayed_acknowledgement),
	        WIRE_TEST(keepalive_counts_from_the_last_segment),
	        WIRE_TEST(unanswered_syn_retransmits),
	        WIRE_TEST(neighbours_are_told_once_a_second),
	        WIRE_TEST(neighbour_on_shared_memory_tells_its_longest_frame),
	        WIRE_TEST(silent_neighbour_is_asked_for),
	        WIRE_TEST(half_written_report_is_told_from_a_whole_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
