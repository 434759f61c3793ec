/* test_ready.c - the ready list, one step at a time; stress_ready.c does the same with threads.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/epoll.h>

#include "endpoint.h"
#include "ready.h"

static struct arena a;

static int setup(void **state)
{
	struct arena_spec spec = {.name = "test",
	        .stack_count = 1,
	        .endpoint_count = 64,
	        .client_count = 2,
	        .block_memory = 1 << 20,
	        .huge = -1};
	char err[128];
	bool is_huge;
	int rc = arena_create(&a, &spec, &is_huge, err, sizeof(err));

	(void)state;
	for (uint32_t i = 0; i < a.endpoint_count; i++)
		a.endpoints[i].listener = UINT32_MAX;
	return rc;
}

static int teardown(void **state)
{
	(void)state;
	arena_close(&a);
	return 0;
}

static uint32_t tell(uint32_t idx, uint32_t events)
{
	return watch_notify(&a, watch_at(&a, idx), idx, events);
}

static void claim_takes_the_endpoints_watches_then_the_listeners_then_none(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < WATCH_INLINE; i++)
		assert_int_equal(watch_claim(&a, 5, 3, EPOLLIN), 5 * WATCH_INLINE + i);
	assert_int_equal(watch_claim(&a, 5, 3, EPOLLIN), WATCH_NONE);
	a.endpoints[5].listener = 2;
	assert_int_equal(atomic_load(&arena_listener(&a, 2)->watch_end), 0);
	for (uint32_t i = 0; i < WATCH_LISTENER; i++) {
		assert_int_equal(watch_claim(&a, 5, 3, EPOLLIN),
		        a.endpoint_count * WATCH_INLINE + 2 * WATCH_LISTENER + i);
		assert_int_equal(atomic_load(&arena_listener(&a, 2)->watch_end), i + 1);
	}
	assert_int_equal(watch_claim(&a, 5, 3, EPOLLIN), WATCH_NONE);
	assert_true(watch_release(&a, 5 * WATCH_INLINE + 2, 4)); /* not the owner: it stays */
	assert_int_equal(watch_claim(&a, 5, 3, EPOLLIN), WATCH_NONE);
	assert_int_equal(watch_claim(&a, UINT32_MAX, 3, EPOLLIN), WATCH_NONE);
	assert_true(watch_release(&a, 5 * WATCH_INLINE + 2, 3));
	assert_int_equal(watch_claim(&a, 5, 4, EPOLLOUT), 5 * WATCH_INLINE + 2);
	assert_int_equal(WATCH_POLLER(atomic_load(&watch_at(&a, 5 * WATCH_INLINE + 2)->word)), 4 + 1);
	a.endpoints[6].listener = 0xfffffff0;
	for (uint32_t i = 0; i < WATCH_INLINE; i++)
		assert_int_not_equal(watch_claim(&a, 6, 3, EPOLLIN), WATCH_NONE);
	assert_int_equal(watch_claim(&a, 6, 3, EPOLLIN), WATCH_NONE);
}

static void notify_queues_once_and_only_what_the_mask_wants(void **state)
{
	uint32_t w = watch_claim(&a, 1, 7, EPOLLIN | EPOLLERR);

	(void)state;
	assert_int_equal(tell(w, EPOLLOUT), UINT32_MAX);
	assert_false(poller_has_ready(&a, 7));
	assert_int_equal(tell(w, EPOLLIN), 7);
	assert_int_equal(tell(w, EPOLLIN | EPOLLOUT), 7);
	assert_true(poller_has_ready(&a, 7));
	assert_int_equal(poller_drain(&a, 7), w + 1);
	assert_int_equal(atomic_load(&watch_at(&a, w)->next), 0);
	assert_false(poller_has_ready(&a, 7));
	/* drained and not yet looked at: still queued */
	assert_int_equal(tell(w, EPOLLIN), 7);
	assert_false(poller_has_ready(&a, 7));
	assert_int_equal(watch_unqueue(&a, w), EPOLLIN | EPOLLERR);
	assert_int_equal(tell(w, EPOLLERR), 7);
	assert_true(poller_has_ready(&a, 7));
	assert_int_equal(poller_drain(&a, 7), w + 1);
	assert_int_equal(poller_drain(&a, 7), 0);
}

static void drain_gives_the_oldest_first(void **state)
{
	uint32_t w[10], got = 0;

	(void)state;
	for (uint32_t i = 0; i < 10; i++)
		w[i] = watch_claim(&a, (i * 7) % 10, 3, EPOLLIN);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(tell(w[i], EPOLLIN), 3);
	for (uint32_t i = poller_drain(&a, 3); i; got++) {
		uint32_t next = atomic_load(&watch_at(&a, i - 1)->next);

		assert_int_equal(i - 1, w[got]);
		assert_int_equal(watch_unqueue(&a, i - 1), EPOLLIN);
		i = next;
	}
	assert_int_equal(got, 10);
}

static void release_of_a_queued_watch_frees_it_when_it_is_drained(void **state)
{
	uint32_t w = watch_claim(&a, 1, 7, EPOLLIN);

	(void)state;
	tell(w, EPOLLIN);
	assert_false(watch_release(&a, w, 7));
	assert_int_not_equal(atomic_load(&watch_at(&a, w)->word), 0); /* nobody else may take it yet */
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
	assert_int_equal(poller_drain(&a, 7), w + 1);
	assert_int_equal(watch_unqueue(&a, w), 0);
	assert_int_equal(atomic_load(&watch_at(&a, w)->word), 0);
	assert_int_equal(watch_claim(&a, 1, 8, EPOLLIN), w);
	/* the new owner hears, the old one does not */
	assert_int_equal(tell(w, EPOLLIN), 8);
	assert_false(poller_has_ready(&a, 7));
	assert_true(poller_has_ready(&a, 8));
}

static void cleared_watch_stays_on_a_living_pollers_list_and_is_not_used_anew(void **state)
{
	int poller = poller_claim(&a, 2);
	uint32_t w = watch_claim(&a, 1, (uint32_t)poller, EPOLLIN), dead = watch_claim(&a, 2, 9, EPOLLIN),
	         idle = watch_claim(&a, 3, (uint32_t)poller, EPOLLIN);

	(void)state;
	tell(w, EPOLLIN);
	tell(dead, EPOLLIN); /* poller 9 belongs to nobody (any more) */
	watch_clear(&a, watch_at(&a, w));
	watch_clear(&a, watch_at(&a, dead));
	watch_clear(&a, watch_at(&a, idle));
	assert_int_equal(atomic_load(&watch_at(&a, dead)->word), 0);
	assert_int_equal(atomic_load(&watch_at(&a, idle)->word), 0);
	assert_int_not_equal(watch_claim(&a, 1, 8, EPOLLIN), w);
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
	assert_int_equal(poller_drain(&a, (uint32_t)poller), w + 1);
	assert_int_equal(watch_unqueue(&a, w), 0);
	assert_int_equal(watch_claim(&a, 1, 8, EPOLLIN), w);
}

static void release_between_drain_and_look_frees_at_the_look(void **state)
{
	uint32_t w = watch_claim(&a, 1, 7, EPOLLIN);

	(void)state;
	tell(w, EPOLLIN);
	assert_int_equal(poller_drain(&a, 7), w + 1);
	assert_false(watch_release(&a, w, 7));
	assert_int_equal(watch_unqueue(&a, w), 0);
	assert_int_equal(atomic_load(&watch_at(&a, w)->word), 0);
}

static void remask_keeps_the_queue_state_and_the_poller(void **state)
{
	uint32_t w = watch_claim(&a, 1, 7, EPOLLIN);

	(void)state;
	tell(w, EPOLLIN);
	watch_remask(&a, w, EPOLLOUT);
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
	assert_int_equal(tell(w, EPOLLOUT), 7);
	assert_int_equal(poller_drain(&a, 7), w + 1);
	assert_int_equal(watch_unqueue(&a, w), EPOLLOUT);
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
}

static void nonsense_in_a_watch_or_a_list_stays_inside(void **state)
{
	uint32_t w = watch_claim(&a, 1, 7, EPOLLIN), v = watch_claim(&a, 2, 7, EPOLLIN);

	(void)state;
	tell(w, EPOLLIN);
	tell(v, EPOLLIN);
	atomic_store(&watch_at(&a, v)->next, 0xffffff00);
	assert_int_equal(poller_drain(&a, 7), v + 1);
	assert_int_equal(atomic_load(&watch_at(&a, v)->next), 0);
	atomic_store(&a.pollers[7].ready, a.watch_count + 1);
	assert_int_equal(poller_drain(&a, 7), 0);
	atomic_store(&watch_at(&a, w)->word, WATCH_WORD(ARENA_POLLER_MAX, EPOLLIN));
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
	atomic_store(&watch_at(&a, w)->word, WATCH_WORD(0xfffffffe, EPOLLIN) | WATCH_QUEUED);
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
	atomic_store(&watch_at(&a, w)->word, (uint64_t)EPOLLIN << 32); /* no poller at all */
	assert_int_equal(tell(w, EPOLLIN), UINT32_MAX);
}

static void poller_is_claimed_once_and_comes_back_empty(void **state)
{
	(void)state;
	for (int i = 0; i < ARENA_POLLER_MAX; i++)
		assert_int_equal(poller_claim(&a, 1), i);
	assert_int_equal(poller_claim(&a, 0), -ENFILE);
	atomic_store(&a.pollers[9].ready, 5);
	atomic_store(&a.pollers[9].sleeping, 1);
	poller_free(&a, 9);
	assert_int_equal(poller_claim(&a, 0), 9);
	assert_int_equal(atomic_load(&a.pollers[9].owner), 1);
	assert_false(poller_has_ready(&a, 9));
	assert_int_equal(atomic_load(&a.pollers[9].sleeping), 0);
}

static void sleeper_is_woken_by_exactly_one(void **state)
{
	(void)state;
	assert_false(poller_wake_needed(&a, 3));
	poller_sleep(&a, 3);
	assert_true(poller_wake_needed(&a, 3));
	assert_false(poller_wake_needed(&a, 3));
	poller_sleep(&a, 3);
	poller_awake(&a, 3);
	assert_false(poller_wake_needed(&a, 3));
}

/* An event loop that is told of a hang-up takes a short read for the end: not before everything can be read.
 */
static void level_of_a_closed_connection_hangs_up_when_all_is_in_the_ring(void **state)
{
	struct endpoint *ep = &a.endpoints[3];

	(void)state;
	atomic_store(&ep->state, EP_CLOSED);
	atomic_store(&ep->flags, EP_OPENED | EP_TX_CLOSED); /* the rest waits behind a full ring */
	assert_false(ep_level(&a, ep) & (EPOLLHUP | EPOLLRDHUP));
	assert_true(ep_level(&a, ep) & EPOLLOUT);
	atomic_fetch_or(&ep->flags, EP_RX_EOF);
	assert_true(ep_level(&a, ep) & EPOLLHUP);
	assert_true(ep_level(&a, ep) & EPOLLRDHUP);
	atomic_store(&ep->flags, 0); /* a connect that failed: there is nothing to wait for */
	assert_true(ep_level(&a, ep) & EPOLLHUP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup_teardown(
	                claim_takes_the_endpoints_watches_then_the_listeners_then_none, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                notify_queues_once_and_only_what_the_mask_wants, setup, teardown),
	        cmocka_unit_test_setup_teardown(drain_gives_the_oldest_first, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                level_of_a_closed_connection_hangs_up_when_all_is_in_the_ring, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                cleared_watch_stays_on_a_living_pollers_list_and_is_not_used_anew, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                release_of_a_queued_watch_frees_it_when_it_is_drained, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                release_between_drain_and_look_frees_at_the_look, setup, teardown),
	        cmocka_unit_test_setup_teardown(remask_keeps_the_queue_state_and_the_poller, setup, teardown),
	        cmocka_unit_test_setup_teardown(nonsense_in_a_watch_or_a_list_stays_inside, setup, teardown),
	        cmocka_unit_test_setup_teardown(poller_is_claimed_once_and_comes_back_empty, setup, teardown),
	        cmocka_unit_test_setup_teardown(sleeper_is_woken_by_exactly_one, setup, teardown),
	};

	return cmocka_run_group_tests_name("ready", tests, NULL, NULL);
}
