/* test_arena.c - making the shared memory, and refusing to map one that is not what it says.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "endpoint.h"

static struct arena made;

static int setup(void **state)
{
	struct arena_spec spec = {.name = "test",
	        .stack_count = 2,
	        .endpoint_count = 100,
	        .client_count = 3,
	        .block_memory = 1 << 20,
	        .huge = -1};
	char err[128];
	bool is_huge = true;

	(void)state;
	return arena_create(&made, &spec, &is_huge, err, sizeof(err)) || is_huge;
}

static int teardown(void **state)
{
	(void)state;
	arena_close(&made);
	arena_close(&made); /* twice is no harm */
	return 0;
}

static void create_lays_everything_out_inside_the_file_without_overlap(void **state)
{
	const struct arena_header *h = made.hdr;
	uint64_t end[10][2] = {{0, sizeof(*h)}, {h->stacks_off, h->stack_count * sizeof(struct stack_shared)},
	        {h->pollers_off, (uint64_t)h->poller_count * sizeof(struct poller)},
	        {h->listeners_off, (uint64_t)h->listener_count * h->listener_stride},
	        {h->clients_off, (uint64_t)h->client_count * h->client_stride},
	        {h->holds_off, (uint64_t)h->client_count * h->holds_stride},
	        {h->endpoints_off, (uint64_t)h->endpoint_count * sizeof(struct endpoint)},
	        {h->rx_rings_off, (uint64_t)h->rx_ring_count * RX_RING_SIZE * sizeof(struct rx_desc)},
	        {h->tx_maps_off, (uint64_t)h->block_count * TX_BLOCK_COUNT * sizeof(uint32_t)},
	        {h->blocks_off, (uint64_t)h->block_count * TX_BLOCK_SIZE}};

	(void)state;
	for (int i = 0; i < 10; i++) {
		assert_true(end[i][0] + end[i][1] <= h->size);
		for (int k = 0; k < 10; k++)
			assert_true(k == i || end[k][0] >= end[i][0] + end[i][1] ||
			            end[k][0] + end[k][1] <= end[i][0]);
	}
	assert_int_equal(h->endpoint_count % (64 * h->stack_count), 0);
	assert_true(h->endpoint_count >= 100);
	assert_int_equal(h->block_count, 64);
	assert_int_equal((uintptr_t)made.endpoints % 64, 0);
	assert_int_equal((uintptr_t)arena_listener(&made, 1) % 64, 0);
	assert_int_equal((uintptr_t)arena_client(&made, 1) % 64, 0);
	assert_int_equal(atomic_load(&arena_client(&made, 2)->fallback[FALLBACK_COUNT - 1].fd), -1);
}

static void map_finds_what_the_maker_wrote(void **state)
{
	struct arena a;

	(void)state;
	made.endpoints[7].gen = 4711;
	memcpy(arena_block(&made, 5), "hello", 6);
	assert_int_equal(arena_map(&a, dup(made.fd), true), 0);
	assert_int_equal(a.endpoints[7].gen, 4711);
	assert_string_equal((char *)arena_block(&a, 5), "hello");
	assert_int_equal(a.watch_count, made.watch_count);
	a.endpoints[7].gen = 4712;
	assert_int_equal(made.endpoints[7].gen, 4712);
	arena_close(&a);
	assert_int_equal(arena_map(&a, dup(made.fd), false), 0);
	assert_int_equal(a.endpoints[7].gen, 4712);
	assert_false(a.writable);
	arena_close(&a);
}

static void file_cannot_be_cut_short(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(made.fd, 4096), -1);
	assert_int_equal(errno, EPERM);
}

/* Maps with one header field changed; the change is taken back. */
#define REFUSED(field, value)                                                                                \
	do {                                                                                                 \
		__typeof__(made.hdr->field) was = made.hdr->field;                                           \
		struct arena a_;                                                                             \
		int fd_ = dup(made.fd);                                                                      \
                                                                                                             \
		made.hdr->field = (value);                                                                   \
		assert_int_equal(arena_map(&a_, fd_, true), -EPROTO);                                        \
		made.hdr->field = was;                                                                       \
		close(fd_); /* stays ours */                                                                 \
	} while (0)

static void map_refuses_a_header_that_is_not_right(void **state)
{
	struct arena a;

	(void)state;
	REFUSED(magic, 0);
	REFUSED(magic, ARENA_MAGIC + 1);
	REFUSED(version, ARENA_VERSION + 1);
	REFUSED(header_size, 8);
	REFUSED(size, made.hdr->size * 2);
	REFUSED(size, 0);
	REFUSED(stack_count, 0);
	REFUSED(stack_count, ARENA_STACK_MAX + 1);
	REFUSED(stack_count, 3);
	REFUSED(client_count, 0);
	REFUSED(client_count, ARENA_CLIENT_MAX + 1);
	REFUSED(client_count, 4);
	REFUSED(endpoint_count, made.hdr->endpoint_count + 1);
	REFUSED(endpoint_count, made.hdr->endpoint_count + 64);
	REFUSED(endpoint_count, 0xffffffc0u);
	REFUSED(listener_count, ARENA_LISTENER_MAX + 1);
	REFUSED(listener_count, 0);
	REFUSED(poller_count, ARENA_POLLER_MAX + 1);
	REFUSED(poller_count, 1);
	REFUSED(block_count, 0xffffffffu);
	REFUSED(blocks_off, 0);
	REFUSED(endpoints_off, made.hdr->endpoints_off + 64);
	REFUSED(clients_off, ~0ull);
	REFUSED(holds_off, 1);
	REFUSED(listeners_off, 1);
	REFUSED(pollers_off, 1);
	REFUSED(rx_rings_off, 1);
	REFUSED(tx_maps_off, 1);
	REFUSED(stacks_off, 1);
	REFUSED(client_stride, 64);
	REFUSED(listener_stride, 0);
	REFUSED(holds_stride, 0xffffffffu);
	assert_int_equal(arena_map(&a, dup(made.fd), true), 0);
	arena_close(&a);
}

static void map_refuses_a_file_that_is_too_short(void **state)
{
	struct arena_header h = *made.hdr;
	int fd = memfd_create("short", MFD_CLOEXEC);
	struct arena a;

	(void)state;
	assert_int_equal(arena_map(&a, fd, false), -EPROTO);
	assert_int_equal(write(fd, &h, 100), 100);
	assert_int_equal(arena_map(&a, fd, false), -EPROTO);
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	assert_int_equal(arena_map(&a, fd, false), -EPROTO);
	assert_int_equal(ftruncate(fd, (off_t)h.size - 4096), 0);
	assert_int_equal(arena_map(&a, fd, false), -EPROTO);
	close(fd);
	assert_true(arena_map(&a, -1, false) < 0);
}

static void create_without_hugepages_to_have_fails_only_when_they_are_demanded(void **state)
{
	struct arena_spec spec = {.name = "test",
	        .stack_count = 1,
	        .endpoint_count = 64,
	        .client_count = 1,
	        .block_memory = 1ull << 44};
	struct arena a;
	char err[128] = "";
	bool is_huge;

	(void)state;
	spec.huge = 1;
	assert_true(arena_create(&a, &spec, &is_huge, err, sizeof(err)) < 0);
	assert_int_not_equal(err[0], 0);
	assert_null(a.hdr);
	arena_close(&a);
}

/* As another process would have written it: the compiler does not know. */
static const uint8_t *data_at(const struct arena *a, uint64_t addr, uint32_t size)
{
	volatile struct rx_desc d = {.addr = addr, .size = size};
	struct rx_desc copy = {.addr = d.addr, .size = d.size};

	return arena_rx_data(a, &copy);
}

static void received_data_outside_packet_memory_is_not_found(void **state)
{
	static uint8_t region[8192];
	struct arena a = made;

	(void)state;
	a.region[0] = (struct arena_region){region, sizeof(region)};
	a.region_count = 1;
	assert_ptr_equal(data_at(&a, 100, 50), region + 100);
	assert_ptr_equal(data_at(&a, 8192, 0), region + 8192);
	assert_null(data_at(&a, 8193, 0));
	assert_null(data_at(&a, 8000, 193));
	assert_null(data_at(&a, 0, 8193));
	assert_null(data_at(&a, 1ull << 48, 1));
	assert_null(data_at(&a, UINT64_MAX, UINT32_MAX));
}

static void region_count_is_limited(void **state)
{
	struct arena a;

	(void)state;
	assert_int_equal(arena_map(&a, dup(made.fd), true), 0);
	for (int i = 0; i < ARENA_REGION_MAX; i++)
		assert_int_equal(arena_map_region(&a, made.fd, 0, 4096), 0);
	assert_int_equal(arena_map_region(&a, made.fd, 0, 4096), -ENOSPC);
	assert_ptr_not_equal(a.region[3].base, a.region[4].base);
	arena_close(&a);
}

static void holds_are_one_bit_for_each_client_and_endpoint(void **state)
{
	(void)state;
	client_seen(&made, 0);
	client_seen(&made, 1);
	atomic_store(&arena_client(&made, 0)->state, CLIENT_ACTIVE);
	atomic_store(&arena_client(&made, 1)->state, CLIENT_FORKING);
	for (uint32_t ep = 0; ep < made.endpoint_count; ep += 9) {
		assert_false(hold_any(&made, ep, UINT32_MAX));
		hold_set(&made, 1, ep);
		assert_true(hold_test(&made, 1, ep));
		assert_false(hold_test(&made, 0, ep));
		assert_false(hold_test(&made, 1, (ep + 1) % made.endpoint_count));
		assert_true(hold_any(&made, ep, UINT32_MAX));
		assert_true(hold_any(&made, ep, 0));
		assert_false(hold_any(&made, ep, 1));
		hold_set(&made, 0, ep);
		hold_clear(&made, 1, ep);
		assert_true(hold_any(&made, ep, UINT32_MAX));
		hold_clear(&made, 0, ep);
		/* a slot that nobody has taken does not count */
		hold_set(&made, 2, ep);
		assert_false(hold_any(&made, ep, UINT32_MAX));
		hold_clear(&made, 2, ep);
	}
}

static void room_in_a_ring_that_was_full_is_none_until_there_is_some_worth(void **state)
{
	struct endpoint *ep = &made.endpoints[1];

	(void)state;
	atomic_store(&ep->tx_limit, 65536);
	atomic_store(&ep->tx_head, 65536 - 100);
	assert_int_equal(ep_tx_room(ep), 100); /* nobody found it full yet */
	atomic_store(&ep->tx_head, 65536 + 5);
	assert_int_equal(ep_tx_room(ep), 0);
	atomic_store(&ep->tx_head, 65536);
	atomic_store(&ep->tx_want, 1);
	atomic_store(&ep->tx_tail, TX_ROOM_LEAST - 1);
	assert_int_equal(ep_tx_room(ep), 0);
	atomic_store(&ep->tx_tail, TX_ROOM_LEAST);
	assert_int_equal(ep_tx_room(ep), TX_ROOM_LEAST);
	/* a small one: a quarter, so that it is always less than what makes it writable */
	atomic_store(&ep->tx_limit, 4608);
	atomic_store(&ep->tx_head, 4608);
	atomic_store(&ep->tx_tail, 4608 / 4 - 1);
	assert_int_equal(ep_tx_room(ep), 0);
	atomic_store(&ep->tx_tail, 4608 / 4);
	assert_int_equal(ep_tx_room(ep), 4608 / 4);
	assert_false(ep_tx_ready(ep));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test_setup_teardown(
	                create_lays_everything_out_inside_the_file_without_overlap, setup, teardown),
	        cmocka_unit_test_setup_teardown(map_finds_what_the_maker_wrote, setup, teardown),
	        cmocka_unit_test_setup_teardown(file_cannot_be_cut_short, setup, teardown),
	        cmocka_unit_test_setup_teardown(map_refuses_a_header_that_is_not_right, setup, teardown),
	        cmocka_unit_test_setup_teardown(map_refuses_a_file_that_is_too_short, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                create_without_hugepages_to_have_fails_only_when_they_are_demanded, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                received_data_outside_packet_memory_is_not_found, setup, teardown),
	        cmocka_unit_test_setup_teardown(region_count_is_limited, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                holds_are_one_bit_for_each_client_and_endpoint, setup, teardown),
	        cmocka_unit_test_setup_teardown(
	                room_in_a_ring_that_was_full_is_none_until_there_is_some_worth, setup, teardown),
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
