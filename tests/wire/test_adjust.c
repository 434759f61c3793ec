/* test_adjust.c - what tools change in a stack that runs: options (pronkctl set), and the times of what
 * passes (pronkctl latency). The control thread's part is played here: messages, and the word in the arena.
 */
#include "rig.h"
#include "peer.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "latency.h"

static void run_message(
        struct rig *r, void (*fn)(struct stack *s, struct stack_msg *m), uint64_t arg, void *ptr)
{
	struct stack_msg m = {.fn = fn, .arg = arg, .ptr = ptr};

	stack_post(r->stack[0], &m);
	rig_turn(r);
}

static void configure(struct rig *r, const struct cfg *cfg)
{
	struct cfg *copy = malloc(sizeof(*copy));

	assert_non_null(copy);
	*copy = *cfg;
	run_message(r, stack_configure, 0, copy);
}

static void delayed_acks_follow_a_change_at_once(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	struct cfg cfg = r->cfg;

	(void)state;
	peer_pair(&p, r);
	peer_data(&p, 10);
	rig_run(r, 4);
	expect_none(&p);
	rig_run(r, 1);
	expect(&p, ACK, p.irs + 1, 0);
	cfg.delayed_ack_ms = 50;
	configure(r, &cfg);
	peer_data(&p, 10);
	rig_run(r, 49);
	expect_none(&p);
	rig_run(r, 2);
	expect(&p, ACK, p.irs + 1, 0);
	cfg.delayed_ack_ms = 3;
	configure(r, &cfg);
	peer_data(&p, 10);
	rig_run(r, 4);
	expect(&p, ACK, p.irs + 1, 0);
}

static uint32_t open_more(struct peer *p, struct rig *r, uint32_t lep, uint16_t port)
{
	peer_init(p, r, port, 80);
	return peer_open(p, lep);
}

static void shortest_timeout_changes_for_new_connections(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer old, new;
	uint32_t lep = (uint32_t)app_listen(r, 80, 16), old_ep = open_more(&old, r, lep, 40000), new_ep;
	struct cfg cfg = r->cfg;

	(void)state;
	cfg.rto_min_ms = 200;
	configure(r, &cfg);
	new_ep = open_more(&new, r, lep, 40001);
	app_write(r, old_ep, "x", 1);
	app_write(r, new_ep, "x", 1);
	peer_skip(&old);
	peer_skip(&new);
	rig_run(r, 150);
	assert_non_null(peer_next(&old)); /* sent again, after 20 ms and more */
	expect_none(&new);
	rig_run(r, 60);
	assert_non_null(peer_next(&new));
}

static void time_wait_changes_for_who_enters_it(void **state)
{
	struct rig *r = rig_up(NULL);
	struct cfg cfg = r->cfg;
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	cfg.time_wait_ms = 5000;
	configure(r, &cfg);
	app_close(r, ep);
	expect(&p, FIN | ACK, p.irs + 1, 0);
	peer_send(&p, FIN | ACK, NULL, 0);
	rig_run(r, 4990);
	assert_int_equal(rig_conns(r), 1);
	rig_run(r, 20);
	assert_int_equal(rig_conns(r), 0);
}

static void buffers_change_for_new_connections(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t lep = (uint32_t)app_listen(r, 80, 16), old = open_more(&p, r, lep, 40000), new;
	struct cfg cfg = r->cfg;
	struct call c = {.op = CALL_INFO};

	(void)state;
	cfg.send_buffer = 65536;
	cfg.receive_buffer = 32768;
	configure(r, &cfg);
	/* of a listener that was there before, connections inherit its send buffer, as everywhere */
	peer_init(&p, r, 40001, 81);
	new = peer_open(&p, (uint32_t)app_listen(r, 81, 16));
	assert_int_equal(atomic_load(&app_ep(r, old)->tx_limit), 524288);
	assert_int_equal(atomic_load(&app_ep(r, new)->tx_limit), 65536);
	c.endpoint = new;
	assert_int_equal(app_call(r, 0, &c), 0);
	assert_int_equal(c.info.rcv_limit, 32768);
	c.op = CALL_INFO;
	c.endpoint = old;
	assert_int_equal(app_call(r, 0, &c), 0);
	assert_int_equal(c.info.rcv_limit, 262144);
}

/* --- times --- */

static void latency_set(struct rig *r, bool on)
{
	run_message(r, stack_latency, on, NULL);
	latency_clear(&r->arena);
	atomic_store(&r->arena.hdr->latency, on);
}

static uint64_t counted(struct rig *r, enum latency_stage stage)
{
	static struct hist_copy copy;

	hist_take(&r->arena.latency[0].stage[stage], &copy);
	return copy.count;
}

/* As sock_recv does. */
static void read_timed(struct rig *r, uint32_t ep)
{
	uint8_t buf[4096];

	assert_true(app_get(r, ep, buf, sizeof(buf)) > 0);
	latency_read(&r->arena, app_ep(r, ep), atomic_load(&app_ep(r, ep)->rx_read));
}

/* As sock_send does. */
static void write_timed(struct rig *r, uint32_t ep, const void *data, uint32_t size)
{
	assert_int_equal(app_put(r, ep, data, size), size);
	latency_written(&r->arena, app_ep(r, ep), atomic_load(&app_ep(r, ep)->tx_head));
	post_doorbell(&r->at[r->cl], app_ep(r, ep), DOORBELL_TX);
	rig_turn(r);
}

static void what_is_received_is_timed_from_port_to_reader(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	latency_set(r, true);
	peer_data(&p, 100);
	assert_int_equal(counted(r, LATENCY_RX_STACK), 1);
	assert_int_equal(counted(r, LATENCY_RX), 0);
	read_timed(r, ep);
	assert_int_equal(counted(r, LATENCY_RX), 1);
	assert_int_equal(counted(r, LATENCY_RX_READ), 1);
	assert_int_equal(counted(r, LATENCY_RX_WAKE), 0);
	/* a reader that slept */
	peer_data(&p, 100);
	latency_awake();
	read_timed(r, ep);
	assert_int_equal(counted(r, LATENCY_RX), 2);
	assert_int_equal(counted(r, LATENCY_RX_WAKE), 1);
	/* one sample at a time: while it is unread, what comes behind it is none */
	peer_data(&p, 100);
	peer_data(&p, 100);
	assert_int_equal(counted(r, LATENCY_RX_STACK), 3);
	read_timed(r, ep);
	assert_int_equal(counted(r, LATENCY_RX), 3);
	latency_set(r, false);
	peer_data(&p, 100);
	read_timed(r, ep);
	assert_int_equal(counted(r, LATENCY_RX_STACK), 0);
	assert_int_equal(counted(r, LATENCY_RX), 0);
}

static void what_is_sent_is_timed_from_writer_to_port(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "warm", 4); /* blocks are granted */
	while (peer_next(&p))
		peer_ack(&p);
	latency_set(r, true);
	write_timed(r, ep, "data", 4);
	assert_int_equal(counted(r, LATENCY_TX_WAIT), 1);
	assert_int_equal(counted(r, LATENCY_TX_STACK), 1);
	assert_int_equal(counted(r, LATENCY_TX), 1);
	latency_set(r, false);
	app_write(r, ep, "more", 4);
	assert_int_equal(counted(r, LATENCY_TX), 0);
}

static void what_the_window_holds_back_is_timed_until_it_leaves(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair_window(&p, r, 1000);
	uint8_t data[1500];

	(void)state;
	pattern_fill(data, 0, sizeof(data));
	app_write(r, ep, data, 1);
	peer_ack(&p);
	peer_skip(&p);
	latency_set(r, true);
	write_timed(r, ep, data, sizeof(data));
	assert_int_equal(counted(r, LATENCY_TX), 0);
	while (peer_next(&p))
		peer_ack(&p);
	assert_int_equal(counted(r, LATENCY_TX), 1);
}

static void a_sample_of_an_endpoint_s_last_user_is_not_the_next_one_s(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t lep = (uint32_t)app_listen(r, 80, 16), first = open_more(&p, r, lep, 40000), second;

	(void)state;
	latency_set(r, true);
	peer_data(&p, 100);
	assert_int_equal(counted(r, LATENCY_RX_STACK), 1);
	app_release(r, first, RELEASE_ABORT);
	second = open_more(&p, r, lep, 40001);
	assert_int_equal(second, first);
	peer_data(&p, 100);
	assert_int_equal(counted(r, LATENCY_RX_STACK), 2);
	read_timed(r, second);
	assert_int_equal(counted(r, LATENCY_RX), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(delayed_acks_follow_a_change_at_once),
	        WIRE_TEST(shortest_timeout_changes_for_new_connections),
	        WIRE_TEST(time_wait_changes_for_who_enters_it),
	        WIRE_TEST(buffers_change_for_new_connections),
	        WIRE_TEST(what_is_received_is_timed_from_port_to_reader),
	        WIRE_TEST(what_is_sent_is_timed_from_writer_to_port),
	        WIRE_TEST(what_the_window_holds_back_is_timed_until_it_leaves),
	        WIRE_TEST(a_sample_of_an_endpoint_s_last_user_is_not_the_next_one_s),
	};

	return cmocka_run_group_tests_name("adjust", tests, NULL, NULL);
}
