/* test_client.c - clients that die, and clients that write nonsense into the shared memory: the stack counts
 * it, drops what it concerns, and keeps its own books right.
 */
#include "peer.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t big[1 << 20];

static uint32_t granted(const struct rig *r, uint32_t client)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->stack[0]->block_count; i++)
		n += r->stack[0]->block_owner[i] == (BLOCK_GRANTED | client);
	return n;
}

/* --- death --- */

static void death_closes_connections_with_fin_and_frees_everything(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p[3], q;

	(void)state;
	for (uint16_t i = 0; i < 3; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		peer_open(&p[i], (uint32_t)lep);
	}
	peer_init(&q, r, 40003, 80); /* queued, never accepted */
	peer_send(&q, SYN, NULL, 0);
	peer_next(&q);
	peer_ack(&q);
	app_die(r, 0);
	for (int i = 0; i < 3; i++) {
		expect(&p[i], FIN | ACK, p[i].irs + 1, 0);
		peer_ack(&p[i]);
		peer_send(&p[i], FIN | ACK, NULL, 0);
	}
	assert_true(peer_next(&q)->flags & RST);
	assert_int_equal(r->stack[0]->ep_free_count, r->stack[0]->ep_count);
	assert_int_equal(r->stack[0]->block_free_count, r->stack[0]->block_count);
	peer_init(&q, r, 40004, 80);
	peer_send(&q, SYN, NULL, 0);
	expect(&q, RST | ACK, 0, 0);
}

static void death_with_unread_data_resets(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;

	(void)state;
	peer_pair(&p, r);
	peer_data(&p, 10);
	rig_run(r, 5);
	peer_skip(&p);
	app_die(r, 0);
	assert_true(peer_next(&p)->flags & RST);
}

static void death_before_the_doorbell_still_sends_what_was_written(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	pattern_fill(big, 0, 50000);
	app_write(r, ep, big, 100); /* has blocks now */
	assert_int_equal(app_put(r, ep, big + 100, 49900), 49900);
	app_die(r, 0);
	assert_int_equal(peer_drain(&p, 0), 50000);
	assert_int_equal(p.rcv, p.irs + 50002);
	peer_send(&p, FIN | ACK, NULL, 0);
	assert_int_equal(app_ep(r, ep)->state, EP_FREE);
}

static void death_between_setting_and_posting_a_doorbell_is_no_harm(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	hold_set(&r->arena, 1, ep);
	atomic_store(&app_ep(r, ep)->doorbell, DOORBELL_TX);
	app_die(r, 0);
	expect_none(&p);
	r->cl = 1;
	app_write(r, ep, "x", 1); /* the other process's doorbell rings */
	expect(&p, ACK, p.irs + 1, 1);
}

static void death_with_a_block_taken_and_not_published_gives_it_back(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), block;

	(void)state;
	app_write(r, ep, "x", 1);
	assert_true(granted(r, 0) > 2);
	block = grant_peek(&r->at[0], 0);
	grant_take(&r->at[0], 0);
	ep_tx_block_set(&r->arena, app_ep(r, ep), TX_BLOCK_SIZE, block);
	app_die(r, 0);
	assert_int_equal(granted(r, 0), 0);
}

static uint32_t endpoints_used(const struct rig *r)
{
	return r->stack[0]->ep_count - r->stack[0]->ep_free_count;
}

static void death_with_many_sockets_takes_several_turns(void **state)
{
	enum { MANY = 400, PIECE = 64 };
	struct rig *r = rig_up(&(struct rig_spec){.endpoints = 512});
	_Atomic uint32_t left = 1;
	struct stack_msg m = {.fn = stack_client_gone, .done = &left};
	uint32_t turns = 0;

	(void)state;
	for (uint16_t i = 0; i < MANY; i++)
		assert_true(app_bind(r, (uint16_t)(2000 + i), 0) >= 0);
	assert_int_equal(endpoints_used(r), MANY);
	atomic_store(&r->at[0].client->state, CLIENT_DEAD);
	stack_post(r->stack[0], &m);
	while (atomic_load(&left)) {
		uint32_t before = endpoints_used(r);

		assert_true(stack_turn(r->stack[0], r->now_ns) > 0);
		assert_in_range(before - endpoints_used(r), 0, PIECE);
		assert_true(++turns <= MANY);
	}
	assert_int_equal(endpoints_used(r), 0);
	assert_in_range(turns, MANY / PIECE, MANY);
	atomic_store(&r->at[0].client->state, CLIENT_ACTIVE);
	rig_turn(r);
}

static void death_of_one_holder_leaves_the_connection_to_the_other(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	hold_set(&r->arena, 1, ep);
	app_die(r, 0);
	expect_none(&p);
	r->cl = 1;
	pattern_fill(big, 0, 30000);
	assert_int_equal(app_write(r, ep, big, 30000), 30000);
	assert_int_equal(peer_drain(&p, 0), 30000);
	app_die(r, 1);
	expect(&p, FIN | ACK, p.irs + 30001, 0);
}

static void death_between_claim_and_accept_leaves_the_connection_in_the_queue(void **state)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p;
	uint32_t ep;

	(void)state;
	hold_set(&r->arena, 1, (uint32_t)lep);
	peer_init(&p, r, 40000, 80);
	peer_send(&p, SYN, NULL, 0);
	peer_next(&p);
	peer_ack(&p);
	ep = arena_listener(&r->arena, app_ep(r, (uint32_t)lep)->listener)->ring[0].slot[0];
	hold_set(&r->arena, 0, ep);
	app_die(r, 0);
	expect_none(&p);
	r->cl = 1;
	assert_int_equal(app_accept(r, (uint32_t)lep), ep);
	app_write(r, ep, "x", 1);
	expect(&p, ACK, p.irs + 1, 1);
}

static void death_while_connecting_is_quiet(void **state)
{
	struct rig *r = rig_up(NULL);
	int ep = app_connect(r, RIG_PEER, 7000);
	struct peer p;

	(void)state;
	peer_init(&p, r, 7000, app_ep(r, (uint32_t)ep)->local.port);
	peer_next(&p);
	app_die(r, 0);
	expect_none(&p);
	assert_int_equal(rig_conns(r), 0);
}

static void death_takes_the_watches_of_its_pollers_away(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r), own, other;
	int pa = poller_claim(&r->arena, 0), pb = poller_claim(&r->arena, 1);

	(void)state;
	hold_set(&r->arena, 1, ep);
	own = watch_claim(&r->arena, ep, (uint32_t)pa, EPOLLIN);
	other = watch_claim(&r->arena, ep, (uint32_t)pb, EPOLLIN);
	app_die(r, 0);
	assert_int_equal(atomic_load(&watch_at(&r->arena, own)->word), 0);
	assert_int_not_equal(atomic_load(&watch_at(&r->arena, other)->word), 0);
	peer_data(&p, 1);
	assert_true(poller_has_ready(&r->arena, (uint32_t)pb));
	poller_free(&r->arena, (uint32_t)pa);
	poller_free(&r->arena, (uint32_t)pb);
}

static void slot_of_a_dead_client_serves_the_next_one(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	app_write(r, ep, "x", 1);
	app_die(r, 0);
	peer_skip(&p);
	peer_send(&p, RST | ACK, NULL, 0);
	/* a new process in the same slot */
	atomic_store(&r->at[0].client->state, CLIENT_ACTIVE);
	r->is_gone[0] = false;
	ep = peer_pair(&p, r);
	pattern_fill(big, 0, 50000);
	assert_int_equal(app_write(r, ep, big, 50000), 50000);
	assert_int_equal(peer_drain(&p, 0), 50000);
}

/* --- nonsense --- */

static void posts_that_name_nothing_of_the_client_are_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	static const uint32_t op[] = {POST_DOORBELL, POST_RELEASE, POST_SHUTDOWN, POST_OPTIONS, 77};
	uint32_t n = 0;

	(void)state;
	r->cl = 1;
	for (unsigned i = 0; i < sizeof(op) / sizeof(op[0]); i++) {
		static const uint32_t far[] = {63, 64, 65535, 0x7fffffff, 0xffffffff};

		app_post(r, 0, POST_ENTRY(op[i], 3, ep)); /* the other client's */
		n++;
		for (unsigned k = 0; k < sizeof(far) / sizeof(far[0]); k++, n++)
			app_post(r, 0, POST_ENTRY(op[i], 0xffffff, far[k]));
	}
	app_post(r, 0, POST_ENTRY(POST_CALL, 0, CALL_COUNT));
	app_post(r, 0, POST_ENTRY(POST_CALL, 0, 0xffffffff));
	app_post(r, 0, POST_ENTRY(POST_CALL, 0, 5)); /* a slot that nobody filled */
	r->cl = 0;
	app_post(r, 0, POST_ENTRY(99, 0, ep));
	app_post(r, 0, POST_NONE); /* nothing is nothing */
	r->bad_expected = n + 4;
	assert_int_equal(app_ep(r, ep)->state, EP_ESTABLISHED);
	peer_data(&p, 10);
	assert_int_equal(app_read(r, ep, big, 100), 10);
}

static void calls_with_nonsense_are_refused(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct call c = {.op = 0x12345678, .endpoint = 0xffffffff};

	(void)state;
	assert_int_equal(app_call(r, 0, &c), -EOPNOTSUPP);
	r->bad_expected = 1;
	for (uint32_t op = CALL_LISTEN; op <= CALL_LINGER; op++) {
		static const uint32_t far[] = {64, 0x10000, 0xffffffff};

		for (int i = 0; i < 3; i++) {
			c = (struct call){.op = op, .endpoint = far[i], .opt = 7, .value = INT32_MIN};
			if (op == CALL_LINGER)
				r->bad_expected++;
			assert_true(app_call(r, 0, &c) < 0);
		}
	}
	r->cl = 1;
	c = (struct call){.op = CALL_LISTEN, .endpoint = ep};
	assert_int_equal(app_call(r, 0, &c), -EBADF);
	c = (struct call){.op = CALL_BIND, .local = {.family = 77}};
	assert_int_equal(app_call(r, 0, &c), -EAFNOSUPPORT);
	c = (struct call){.op = CALL_CONNECT, .remote = {.family = AF_INET6}};
	assert_int_equal(app_call(r, 0, &c), -EAFNOSUPPORT);
	c = (struct call){.op = CALL_CONNECT, .remote = {.family = AF_INET, .ip = {10, 1, 0, 2}}};
	assert_int_equal(app_call(r, 0, &c), -ECONNREFUSED);
}

static void request_ring_head_far_ahead_is_counted_and_skipped(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct req_ring *q = &r->at[0].client->stack[0].req;

	(void)state;
	atomic_store(&q->head, atomic_load(&q->tail) + REQ_RING_SIZE + 1000);
	atomic_fetch_or(&r->arena.stacks[0].pending[0], 1);
	rig_turn(r);
	r->bad_expected = 1;
	atomic_fetch_or(
	        &r->arena.stacks[0].pending[0], 0xfffffffffffffffcull); /* clients that are not there */
	rig_turn(r);
	app_write(r, ep, "x", 1);
	expect(&p, ACK, p.irs + 1, 1);
}

static void full_request_ring_is_served_over_several_turns(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	for (int i = 0; i < REQ_RING_SIZE; i++)
		assert_int_equal(post(&r->at[0], 0, POST_ENTRY(POST_DOORBELL, 0, ep)), 0);
	rig_turn(r);
	assert_int_equal(rig_stat(r, STAT_doorbells), REQ_RING_SIZE);
}

/* Each row does its harm to an open connection with data on the way; afterwards the connection may be gone.
 */
static void harm_connection(int row)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p, other;
	uint32_t ep, ep2;
	_Atomic uint32_t *map;
	struct endpoint *e;

	r->bad_expected = UINT64_MAX;
	pattern_fill(big, 0, 100000);
	peer_init(&other, r, 50000, 80);
	ep2 = peer_open(&other, (uint32_t)lep);
	peer_init(&p, r, 40000, 80);
	ep = peer_open(&p, (uint32_t)lep);
	e = app_ep(r, ep);
	app_write(r, ep2, big, 100);
	app_write(r, ep, big, 60000);
	for (int i = 0; i < 5; i++)
		peer_data(&p, 500);
	map = arena_tx_map(&r->arena, atomic_load(&e->tx_map));
	switch (row) {
	case 0:
		atomic_fetch_add(&e->tx_head, TX_BLOCK_COUNT * TX_BLOCK_SIZE);
		break;
	case 1:
		atomic_fetch_sub(&e->tx_head, 30000);
		break;
	case 2: /* blocks that nobody granted, or that do not exist */
		atomic_store(&map[4], 0xfffffff0);
		atomic_fetch_add(&e->tx_head, 20000);
		break;
	case 3: /* a block twice */
		atomic_store(&map[4], atomic_load(&map[0]));
		atomic_fetch_add(&e->tx_head, 20000);
		break;
	case 4: /* a block of another connection */
		atomic_store(&map[4], ep_tx_block(&r->arena, app_ep(r, ep2), 0));
		atomic_fetch_add(&e->tx_head, 20000);
		break;
	case 5:
		atomic_fetch_add(&e->rx_tail, 100);
		break;
	case 6:
		atomic_fetch_add(&e->rx_tail, 6);
		break;
	case 7:
		atomic_fetch_sub(&e->rx_tail, 1);
		break;
	case 8:
		atomic_fetch_add(&e->rx_read, 1 << 20);
		break;
	case 9:
		atomic_fetch_add(&e->rx_head, 1);
		atomic_fetch_add(&e->rx_tail, 6);
		break;
	case 10:
		atomic_fetch_sub(&e->rx_head, 3);
		break;
	case 11:
		atomic_fetch_add(&e->rx_bytes, 100000);
		atomic_fetch_add(&e->rx_read, 100000);
		break;
	case 12: /* published blocks are swapped for others: the stack remembers which they were */
		for (int i = 0; i < TX_BLOCK_COUNT; i++)
			atomic_store(&map[i], atomic_load(&map[2]));
		break;
	case 13:
		for (int i = 0; i < TX_BLOCK_COUNT; i++)
			atomic_store(&map[i], 0xffffffff);
		break;
	case 14:
		atomic_store(&e->state, EP_BOUND);
		break;
	case 15:
		atomic_store(&e->state, EP_LISTEN);
		e->listener = 0;
		break;
	case 16:
		atomic_store(&e->state, EP_LISTEN);
		e->listener = 0x7fffffff;
		break;
	case 17:
		atomic_store(&e->state, EP_FREE);
		break;
	case 18:
		e->listener = 5;
		e->parent = 0x7fffffff;
		e->local.port = 1;
		e->stack_idx = 9;
		e->gen = 0;
		break;
	case 19:
		atomic_store(&e->tx_tail, 0x80000000);
		atomic_store(&e->flags, 0xffffffff);
		atomic_store(&e->tx_limit, 0xffffffff);
		atomic_store(&e->app_flags, 0xffffffff);
		atomic_store(&e->doorbell, 0);
		break;
	case 20: /* watches of pollers that do not exist */
		for (int i = 0; i < WATCH_INLINE; i++) {
			atomic_store(&e->watch[i].word, WATCH_WORD(0xfffffff0u - (uint32_t)i, 0xffff));
			atomic_store(&e->watch[i].next, 0xffffffff);
		}
		break;
	case 21: /* a ready list that ends nowhere */
		atomic_store(&r->arena.pollers[0].ready, 0xfffffff0);
		atomic_store(&r->arena.pollers[0].sleeping, 0xfffffff0);
		atomic_store(&e->watch[0].word, WATCH_WORD(0, 0xffff));
		break;
	case 22: /* grants that were never made */
		atomic_store(&r->at[0].client->stack[0].grant.tail, 77777);
		break;
	case 23: /* the same grants again and again */
		for (int i = 0; i < 200; i++) {
			struct grant_ring *g = &r->at[0].client->stack[0].grant;

			atomic_store(&g->tail, atomic_load(&g->head));
			atomic_store(&g->starved, 1);
			app_post(r, 0, POST_ENTRY(POST_DOORBELL, 0, ep));
		}
		break;
	case 24: /* the accept ring */
		for (uint32_t i = 0; i < ACCEPT_RING_SIZE; i++)
			atomic_store(&arena_listener(&r->arena, app_ep(r, (uint32_t)lep)->listener)
			                      ->ring[0]
			                      .slot[i],
			        ep2);
		atomic_fetch_add(
		        &arena_listener(&r->arena, app_ep(r, (uint32_t)lep)->listener)->ring[0].head, 500);
		break;
	case 25:
		atomic_fetch_add(
		        &arena_listener(&r->arena, app_ep(r, (uint32_t)lep)->listener)->ring[0].tail, 5);
		break;
	case 26: /* holds of everything */
		for (uint32_t i = 0; i < r->arena.endpoint_count; i++)
			hold_set(&r->arena, 0, i);
		for (uint32_t i = 20; i < r->arena.endpoint_count; i++) {
			atomic_store(&app_ep(r, i)->state, i % (EP_CLOSED + 1));
			app_post(r, 0, POST_ENTRY(POST_RELEASE, i & 3, i));
			app_post(r, 0, POST_ENTRY(POST_RELEASE, i & 3, i));
		}
		break;
	case 27:
		app_ep(r, (uint32_t)lep)->listener = 0x12345678;
		app_ep(r, (uint32_t)lep)->local.port = 4711;
		break;
	case 28:
		atomic_store(&app_ep(r, (uint32_t)lep)->state, EP_ESTABLISHED);
		atomic_store(&app_ep(r, (uint32_t)lep)->backlog, 0xffffffff);
		break;
	case 29:
		atomic_store(&e->rx_lock, UINT64_MAX);
		atomic_store(&e->tx_lock, UINT64_MAX);
		atomic_store(&e->tx_want, 1);
		break;
	case 30: /* the record of its listener is said to be free */
		atomic_store(&arena_listener(&r->arena, app_ep(r, (uint32_t)lep)->listener)->in_use, 0);
		assert_true(app_listen(r, 81, 3) >= 0);
		break;
	default:
		break;
	}
	app_post(r, 0, POST_ENTRY(POST_DOORBELL, 0, ep));
	peer_data(&p, 500);
	peer_skip(&p);
	peer_ack(&p);
	rig_run(r, 100);
	/* somebody new comes by */
	peer_init(&p, r, 40001, 80);
	peer_send(&p, SYN, NULL, 0);
	if (peer_next(&p))
		peer_ack(&p);
	app_post(r, 0, POST_ENTRY(POST_SHUTDOWN, SHUT_RDWR, ep));
	app_post(r, 0, POST_ENTRY(POST_RELEASE, 0, ep));
	app_post(r, 0, POST_ENTRY(POST_RELEASE, 0, (uint32_t)lep));
	rig_run(r, 100);
}

static void connection_with_harm_in_its_memory_is_survived(void **state)
{
	(void)state;
	for (int row = 0; row <= 30; row++) {
		harm_connection(row);
		if (rig_end(NULL)) {
			print_error("in row %d\n", row);
			fail();
		}
	}
	rig_up(NULL);
}

static void send_position_out_of_range_resets_and_is_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	atomic_store(&app_ep(r, ep)->tx_head, TX_BLOCK_COUNT * TX_BLOCK_SIZE + 1);
	app_post(r, 0, POST_ENTRY(POST_DOORBELL, 0, ep));
	assert_true(peer_next(&p)->flags & RST);
	assert_int_equal(app_ep(r, ep)->state, EP_CLOSED);
	assert_int_equal(app_ep(r, ep)->error, EPIPE);
	r->bad_expected = 1;
}

static void read_position_out_of_range_is_not_believed_and_is_counted(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);

	(void)state;
	peer_data(&p, 100);
	atomic_store(&app_ep(r, ep)->rx_tail, 2);
	app_post(r, 0, POST_ENTRY(POST_DOORBELL, 0, ep));
	assert_true(rig_stat(r, STAT_bad_client_input) >= 1);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 1);
	atomic_store(&app_ep(r, ep)->rx_tail, 0);
	assert_int_equal(app_read(r, ep, big, 1000), 100);
	assert_int_equal(nic_fake_bufs_in_use(r->nic), 0);
	r->bad_expected = rig_stat(r, STAT_bad_client_input);
	rig_run(r, 10);
}

/* Random words at random places of everything a client can write that is not the header, while traffic goes
 * on. */
static void random_harm(uint64_t seed)
{
	struct rig *r = rig_up(NULL);
	int lep = app_listen(r, 80, 16);
	struct peer p[4];
	uint32_t ep[4];

	r->bad_expected = UINT64_MAX;
	pattern_fill(big, 0, 100000);
	for (uint16_t i = 0; i < 4; i++) {
		peer_init(&p[i], r, (uint16_t)(40000 + i), 80);
		ep[i] = peer_open(&p[i], (uint32_t)lep);
	}
	for (int n = 0; n < 60; n++) {
		uint32_t i, value;
		_Atomic uint32_t *at;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		i = (uint32_t)(seed >> 33) % 4;
		value = (seed >> 40) % 3 == 0 ? (uint32_t)(seed >> 20) : (uint32_t)(seed >> 50) % 70;
		switch ((seed >> 36) % 8) {
		case 0:
		case 1:
			at = (_Atomic uint32_t *)app_ep(r, ep[i]) +
			     (seed >> 45) % (sizeof(struct endpoint) / 4);
			break;
		case 2:
			at = (_Atomic uint32_t *)app_ep(r, (uint32_t)lep) +
			     (seed >> 45) % (sizeof(struct endpoint) / 4);
			break;
		case 3:
			at = (_Atomic uint32_t *)arena_listener(&r->arena, 0) + (seed >> 45) % 1000;
			break;
		case 4:
			at = (_Atomic uint32_t *)&r->at[0].client->stack[0].grant + (seed >> 45) % 100;
			break;
		case 5:
			at = (_Atomic uint32_t *)&r->arena.pollers[0] + (seed >> 45) % 100;
			break;
		case 6:
			at = (_Atomic uint32_t *)arena_holds(&r->arena, 0) + (seed >> 45) % 2;
			break;
		default:
			at = (_Atomic uint32_t *)&r->at[0].client->stack[0].req + (seed >> 45) % 64;
			break;
		}
		atomic_store(at, value);
		if ((seed >> 50) % 2)
			peer_data(&p[i], 700);
		peer_ack(&p[i]);
		post(&r->at[0], 0, POST_ENTRY((seed >> 52) % 7, 0, ep[(seed >> 55) % 4]));
		if ((seed >> 57) % 5 == 0)
			atomic_store(&r->at[0].client->call[3].state, CALL_POSTED);
		rig_run(r, (uint32_t)((seed >> 60) % 12));
		for (int k = 0; k < 4; k++)
			peer_skip(&p[k]);
	}
}

static void random_harm_is_survived(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 400; seed++) {
		random_harm(seed);
		if (rig_end(NULL)) {
			print_error("with seed %u\n", (unsigned)seed);
			fail();
		}
	}
	rig_up(NULL);
}

/* A caller whose patience is over marks the slot: the stack makes nothing, and the slot is free for the next.
 */
static void call_given_up_makes_nothing_and_frees_its_slot(void **state)
{
	struct rig *r = rig_up(NULL);
	struct call *slot = &r->at[0].client->call[5];

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		slot->op = CALL_BIND;
		slot->opt = kind ? SOCK_DGRAM : SOCK_STREAM;
		slot->endpoint = ENDPOINT_NONE;
		slot->local = (struct sock_addr){.family = AF_INET, .port = 5000};
		atomic_store(&slot->state, CALL_ABANDONED);
		assert_int_equal(post(&r->at[0], 0, POST_ENTRY(POST_CALL, 0, 5)), 0);
		rig_run(r, 3);
		assert_int_equal(atomic_load(&slot->state), CALL_FREE);
		assert_int_equal(r->stack[0]->ep_free_count, r->stack[0]->ep_count);
	}
	assert_true(app_bind_at(r, 0, 5000, 0) >= 0);
}

/* A process that has just joined writes without blocking while the stack has no processor: the first blocks
 * are waited for, those that come later only for 100 ms. */
struct waiter {
	struct attach *at;
	struct endpoint *ep;
	_Atomic int answer; /* -1: waits */
};

static void *waiter_run(void *arg)
{
	struct waiter *w = arg;

	atomic_store(&w->answer, grant_await(w->at, w->ep));
	return NULL;
}

static void blocks_are_awaited_longer_by_who_never_had_one(void **state)
{
	struct rig *r = rig_up(NULL);
	struct peer p;
	uint32_t ep = peer_pair(&p, r);
	struct waiter w = {&r->at[1], app_ep(r, ep), -1};
	const struct timespec nap = {.tv_nsec = 250000000};
	int before = r->at[1].ctl_fd, ctl[2];
	pthread_t thread;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ctl), 0);
	r->at[1].ctl_fd = ctl[0]; /* the service lives */
	hold_set(&r->arena, 1, ep);
	assert_int_equal(grant_peek(&r->at[1], 0), BLOCK_NONE);
	assert_int_equal(pthread_create(&thread, NULL, waiter_run, &w), 0);
	nanosleep(&nap, NULL); /* longer than the others wait */
	assert_int_equal(atomic_load(&w.answer), -1);
	rig_turn(r);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&w.answer), true);

	while (grant_peek(&r->at[1], 0) != BLOCK_NONE)
		grant_take(&r->at[1], 0);
	assert_false(grant_await(&r->at[1], app_ep(r, ep)));
	rig_turn(r);
	assert_true(grant_await(&r->at[1], app_ep(r, ep)));
	r->at[1].ctl_fd = before;
	close(ctl[0]);
	close(ctl[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        WIRE_TEST(death_closes_connections_with_fin_and_frees_everything),
	        WIRE_TEST(blocks_are_awaited_longer_by_who_never_had_one),
	        WIRE_TEST(call_given_up_makes_nothing_and_frees_its_slot),
	        WIRE_TEST(death_with_unread_data_resets),
	        WIRE_TEST(death_before_the_doorbell_still_sends_what_was_written),
	        WIRE_TEST(death_between_setting_and_posting_a_doorbell_is_no_harm),
	        WIRE_TEST(death_with_a_block_taken_and_not_published_gives_it_back),
	        WIRE_TEST(death_with_many_sockets_takes_several_turns),
	        WIRE_TEST(death_of_one_holder_leaves_the_connection_to_the_other),
	        WIRE_TEST(death_between_claim_and_accept_leaves_the_connection_in_the_queue),
	        WIRE_TEST(death_while_connecting_is_quiet),
	        WIRE_TEST(death_takes_the_watches_of_its_pollers_away),
	        WIRE_TEST(slot_of_a_dead_client_serves_the_next_one),
	        WIRE_TEST(posts_that_name_nothing_of_the_client_are_counted),
	        WIRE_TEST(calls_with_nonsense_are_refused),
	        WIRE_TEST(request_ring_head_far_ahead_is_counted_and_skipped),
	        WIRE_TEST(full_request_ring_is_served_over_several_turns),
	        WIRE_TEST(send_position_out_of_range_resets_and_is_counted),
	        WIRE_TEST(read_position_out_of_range_is_not_believed_and_is_counted),
	        WIRE_TEST(connection_with_harm_in_its_memory_is_survived),
	        WIRE_TEST(random_harm_is_survived),
	};

	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
