/* test_port.c - a real DPDK port (net_ring: what is sent comes back) under three stacks that share its one
 * queue: software RSS, shared transmit, checksums, buffers, sharing of packet memory. Plain pages, no
 * privileges.
 *
 * One thread plays all stacks. The EAL starts once per process, so all cases share the port.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frames.h"
#include "log.h"
#include "nic_int.h"
#include "pages.h"

enum { STACKS = 3, BUFFERS = 4096 };

static struct nic *nic;
static uint32_t wakes[STACKS];
static struct nic_frame got[64];

static void wake(void *arg, uint32_t stack_idx)
{
	assert_ptr_equal(arg, wakes);
	wakes[stack_idx]++;
}

static struct nic_queue *queue(uint32_t stack)
{
	return nic_queue_get(nic, stack);
}

static void send_frame(uint32_t stack, const uint8_t *frame, uint32_t size)
{
	uint8_t *data;
	struct nic_buf *buf = nic_buf_alloc(queue(stack), &data, NULL);

	assert_non_null(buf);
	memcpy(data, frame, size);
	nic_tx(queue(stack), buf, data, size);
	nic_tx_flush(queue(stack));
}

/* Puts bytes on the wire as they are. */
static void send_raw(const uint8_t *frame, uint32_t size)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(nic->pool);

	assert_non_null(m);
	memcpy(rte_pktmbuf_append(m, (uint16_t)size), frame, size);
	assert_int_equal(rte_eth_tx_burst(nic->port, 0, &m, 1), 1);
}

static uint32_t owner_of(uint16_t source)
{
	return nic_owner(nic, AF_INET, (uint8_t[]){10, 0, 0, 1}, source, (uint8_t[]){10, 0, 0, 2}, 80);
}

/* A source port whose frames belong to stack. */
static uint16_t port_for(uint32_t stack)
{
	uint16_t port = 2000;

	while (owner_of(port) != stack)
		port++;
	return port;
}

static void free_got(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		nic_buf_free(got[i].buf);
}

static void tcp_reaches_its_owner_and_wakes_it(void **state)
{
	uint8_t frame[256];

	(void)state;
	for (uint32_t owner = 0; owner < STACKS; owner++) {
		uint32_t size = frame_ip4(frame, 6, port_for(owner), 80, 33), woken = wakes[owner];
		uint64_t handed = nic_stats(queue(0))->rx_handoff;

		send_frame(0, frame, size);
		assert_int_equal(nic_rx(queue(0), got, 64), owner == 0);
		if (owner != 0) {
			assert_int_equal(wakes[owner], woken + 1);
			assert_int_equal(nic_stats(queue(0))->rx_handoff, handed + 1);
			assert_int_equal(nic_rx(queue(owner), got, 64), 1);
		}
		assert_int_equal(got[0].size, size);
		assert_int_equal(got[0].flags, 0);
		assert_int_equal((uintptr_t)got[0].priv % 8, 0);
		assert_memory_equal(got[0].data + 54, frame + 54, 33);
		free_got(1);
	}
}

static void one_wake_per_receive_call(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 17, port_for(1), 80, 5), woken = wakes[1];

	(void)state;
	for (int i = 0; i < 10; i++)
		send_frame(0, frame, size);
	assert_int_equal(nic_rx(queue(0), got, 64), 0);
	assert_int_equal(wakes[1], woken + 1);
	assert_int_equal(nic_rx(queue(1), got, 64), 10);
	free_got(10);
}

static void stack_without_hardware_queue_sends_through_its_owner(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 8), woken = wakes[0];
	uint64_t sent = nic_stats(queue(2))->tx_packets;

	(void)state;
	send_frame(2, frame, size);
	assert_int_equal(wakes[0], woken + 1);
	assert_int_equal(nic_stats(queue(2))->tx_packets, sent + 1);
	assert_int_equal(nic_rx(queue(0), got, 64), 1); /* sends it, and gets it back */
	assert_memory_equal(got[0].data + 54, frame + 54, 8);
	free_got(1);
}

static void arp_reaches_every_stack(void **state)
{
	uint8_t frame[64];
	uint32_t size = frame_arp(frame);

	(void)state;
	send_frame(0, frame, size);
	for (uint32_t i = 0; i < STACKS; i++) {
		assert_int_equal(nic_rx(queue(i), got, 64), 1);
		assert_int_equal(got[0].size, size);
		assert_memory_equal(got[0].data, frame, size);
		free_got(1);
	}
}

static void fragments_of_one_packet_go_to_one_stack(void **state)
{
	uint8_t frame[256];
	uint32_t size, total = 0, with = 0;

	(void)state;
	for (uint16_t offset = 0; offset < 4; offset++) {
		size = frame_ip4(frame, 17, (uint16_t)(3000 + offset), 80, 24);
		frame_put16(frame + 20, 0x2000u | offset * 4u);
		send_frame(0, frame, size);
	}
	for (uint32_t i = 0; i < STACKS; i++) {
		uint32_t count = nic_rx(queue(i), got, 64);

		for (uint32_t j = 0; j < count; j++)
			assert_int_equal(got[j].flags, NIC_FRAME_L4_UNCHECKED);
		free_got(count);
		total += count;
		with += count != 0;
	}
	assert_int_equal(total, 4);
	assert_int_equal(with, 1);
}

static void damaged_frames_are_dropped_and_counted(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 8);
	struct nic_queue_stats before = *nic_stats(queue(0));

	(void)state;
	frame_put16(frame + 24, ~frame_sum(0, frame + 14, 20));
	frame_put16(frame + 50, 0x1234);
	send_raw(frame, size); /* TCP checksum */
	frame[24] ^= 1;
	send_raw(frame, size); /* IPv4 checksum */
	frame[24] ^= 1;
	send_raw(frame, size - 4); /* shorter than it says */
	send_raw(frame, 10);       /* no Ethernet header */
	assert_int_equal(nic_rx(queue(0), got, 64), 0);
	assert_int_equal(nic_stats(queue(0))->drop_rx_cksum, before.drop_rx_cksum + 2);
	assert_int_equal(nic_stats(queue(0))->drop_rx_short, before.drop_rx_short + 2);
}

static void partial_checksum_of_a_local_peer_is_accepted_and_counted(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 8);
	uint64_t before = nic_stats(queue(0))->rx_partial_cksum;

	(void)state;
	frame_put16(frame + 24, ~frame_sum(0, frame + 14, 20));
	frame_put16(frame + 50, frame_sum(size - 34 + 6, frame + 26, 8));
	send_raw(frame, size);
	assert_int_equal(nic_rx(queue(0), got, 64), 1);
	assert_int_equal(nic_stats(queue(0))->rx_partial_cksum, before + 1);
	free_got(1);
	nic->accept_partial = false;
	send_raw(frame, size);
	assert_int_equal(nic_rx(queue(0), got, 64), 0);
	assert_int_equal(nic_stats(queue(0))->rx_partial_cksum, before + 1);
	nic->accept_partial = true;
}

static void received_buffer_can_be_sent_again(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 8);

	(void)state;
	send_frame(0, frame, size);
	assert_int_equal(nic_rx(queue(0), got, 64), 1);
	nic_tx(queue(0), got[0].buf, got[0].data, got[0].size);
	nic_tx_flush(queue(0));
	assert_int_equal(nic_rx(queue(0), got, 64), 1);
	assert_int_equal(got[0].size, size);
	free_got(1);
}

static void frame_too_long_is_dropped_and_counted(void **state)
{
	uint8_t *data;
	struct nic_buf *buf = nic_buf_alloc(queue(0), &data, NULL);
	uint64_t before = nic_stats(queue(0))->drop_tx_full;

	(void)state;
	assert_true(nic_buf_room(buf, data) >= 2048);
	nic_tx(queue(0), buf, data, 1515);
	assert_int_equal(nic_stats(queue(0))->drop_tx_full, before + 1);
}

static void full_port_keeps_frames_then_drops_and_counts(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 8), count, waiting, received = 0;
	uint64_t dropped = nic_stats(queue(0))->drop_tx_full;

	(void)state;
	for (int i = 0; i < 2200; i++) /* net_ring has 1,024 slots, and as many frames wait */
		send_frame(0, frame, size);
	dropped = nic_stats(queue(0))->drop_tx_full - dropped;
	assert_in_range(dropped, 152, 153);
	do {
		waiting = nic_tx_flush(queue(0));
		while ((count = nic_rx(queue(0), got, 64)) != 0) {
			received += count;
			free_got(count);
		}
	} while (waiting != 0);
	assert_int_equal(received + dropped, 2200);
}

static void no_buffers_left_is_counted_and_recovers(void **state)
{
	static struct nic_buf *held[BUFFERS];
	uint64_t before = nic_stats(queue(0))->drop_tx_nobuf;
	uint32_t count = 0;
	uint8_t *data;

	(void)state;
	while (count < BUFFERS && (held[count] = nic_buf_alloc(queue(0), &data, NULL)) != NULL)
		count++;
	assert_in_range(count, BUFFERS - 64, BUFFERS);
	if (count < BUFFERS)
		assert_int_equal(nic_stats(queue(0))->drop_tx_nobuf, before + 1);
	while (count > 0)
		nic_buf_free(held[--count]);
	held[0] = nic_buf_alloc(queue(0), &data, NULL);
	assert_non_null(held[0]);
	nic_buf_free(held[0]);
}

static void packet_memory_can_be_read_but_not_written_elsewhere(void **state)
{
	struct nic_region regions[NIC_REGION_MAX];
	uint32_t count = nic_regions(nic, regions, NIC_REGION_MAX);
	uint8_t *data, *map;
	struct nic_buf *buf = nic_buf_alloc(queue(0), &data, NULL);
	uint64_t addr = nic_addr(queue(0), data), offset = addr & ((1ULL << 48) - 1);
	const struct nic_region *region = &regions[addr >> 48];
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(count, 1);
	assert_int_equal(addr >> 48, 0);
	assert_true(offset < region->size);
	assert_ptr_equal(region->base + offset, data);
	assert_true(nic_addr(queue(0), &count) == UINT64_MAX);
	memcpy(data, "seen from outside", 18);
	pid = fork();
	if (pid == 0) {
		map = mmap(NULL, region->size, PROT_READ, MAP_SHARED, region->fd, (off_t)region->fd_offset);
		if (map == MAP_FAILED || map == region->base ||
		        memcmp(map + offset, "seen from outside", 18) != 0)
			_exit(1);
		if (mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd,
		            (off_t)region->fd_offset) != MAP_FAILED)
			_exit(2);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	nic_buf_free(buf);
}

static void stack_without_hardware_queue_sleeps_on_a_silent_descriptor(void **state)
{
	int fd = -1;
	struct pollfd pfd;

	(void)state;
	assert_int_equal(nic_wait_fds(queue(1), &fd, 1), 1);
	pfd = (struct pollfd){.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&pfd, 1, 0), 0);
	assert_int_equal(nic_wait_fds(queue(0), &fd, 1), 0); /* net_ring has nothing to sleep on */
}

static void facts_are_those_of_the_port(void **state)
{
	struct nic_info info;

	(void)state;
	nic_info_get(nic, &info);
	assert_string_equal(info.name, "ring:");
	assert_string_equal(info.driver, "net_ring");
	assert_int_equal(info.mtu, 1500);
	assert_int_equal(info.queue_count, 1);
	assert_true(info.link_up);
	assert_false(info.rss_hw || info.tx_l4_cksum || info.rx_l4_cksum);
	assert_null(nic_queue_get(nic, STACKS));
}

static uint64_t good_packets;
static uint32_t xstat_count;

static void xstat_take(void *arg, const char *name, uint64_t value)
{
	assert_ptr_equal(arg, &xstat_count);
	xstat_count++;
	if (!strcmp(name, "rx_good_packets"))
		good_packets = value;
}

static void report_tells_queues_table_and_memory(void **state)
{
	struct nic_report r;

	(void)state;
	nic_report(nic, &r);
	assert_string_equal(r.kind, "ring");
	assert_string_equal(r.info.driver, "net_ring");
	assert_int_equal(r.rx_queues, 1);
	assert_true(r.rx_queues_max >= 1 && r.tx_queues_max >= 1);
	assert_true(r.rx_ring > 0 && r.tx_ring > 0);
	assert_string_equal(r.rx_used, "");
	assert_int_equal(r.stack_count, STACKS);
	assert_int_equal(r.hw_table_size, 0);
	for (uint32_t i = 0; i < r.table_size; i++)
		assert_int_equal(r.table[i], i % STACKS);
	assert_memory_equal(r.key, rss_key, r.key_size);
	assert_int_equal(r.key_size, 40);
	assert_int_equal(r.buffers_total, BUFFERS);
	assert_true(r.buffers_free <= BUFFERS && r.buffer_size >= 2048 + NIC_HEADROOM);
	assert_true(r.region_count >= 1 && r.page_size >= 4096);
	assert_false(r.is_memif);
}

static void extended_statistics_count_received_frames(void **state)
{
	uint64_t before;
	uint8_t frame[60] = {0};
	int count;

	(void)state;
	count = nic_xstats(nic, xstat_take, &xstat_count);
	assert_true(count > 0);
	assert_int_equal(xstat_count, count);
	before = good_packets;
	send_raw(frame, sizeof(frame));
	for (uint32_t n = nic_rx(queue(0), got, 64); n; n--)
		nic_buf_free(got[n - 1].buf);
	nic_xstats(nic, xstat_take, &xstat_count);
	assert_int_equal(good_packets, before + 1);
}

static void second_open_is_refused(void **state)
{
	struct cfg cfg;
	struct nic *other = NULL;
	char err[256] = "";

	(void)state;
	cfg_defaults(&cfg);
	strcpy(cfg.device, "null:");
	assert_int_equal(nic_open(&other, &cfg, 1, wake, wakes, err, sizeof(err)), -EALREADY);
	assert_null(other);
	assert_string_not_equal(err, "");
}

/* Hugepages are counted before the pool is made: it must not take more, nor much less. */
static void pool_takes_what_was_counted(void **state)
{
	uint64_t taken = 0, counted;
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	cfg.packet_buffers = BUFFERS;
	counted = pages_packet_bytes(&cfg, 0) - PAGES_LIBRARY;
	for (uint32_t i = 0; i < nic->region_count; i++)
		taken += nic->regions[i].size;
	assert_true(taken > 0);
	if (taken > counted + 2 * nic->regions[0].page_size || taken * 10 < counted * 9)
		fail_msg("%llu bytes are taken, %llu were counted", (unsigned long long)taken,
		        (unsigned long long)counted);
}

static void nothing_leaked(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < STACKS; i++)
		assert_int_equal(nic_rx(queue(i), got, 64), 0);
	assert_int_equal(rte_mempool_in_use_count(nic->pool), 0);
}

static int setup(void **state)
{
	struct cfg cfg;
	char err[256] = "";

	(void)state;
	cfg_defaults(&cfg);
	strcpy(cfg.device, "ring:");
	strcpy(cfg.name, "unit-test");
	cfg.hugepages = CFG_HUGEPAGES_OFF;
	cfg.packet_buffers = BUFFERS;
	log_open(LOG_LEVEL_ERROR, NULL);
	if (nic_open(&nic, &cfg, STACKS, wake, wakes, err, sizeof(err)) != 0) {
		fprintf(stderr, "nic_open: %s\n", err);
		return -1;
	}
	return nic_thread_attach();
}

static int teardown(void **state)
{
	(void)state;
	nic_thread_detach();
	nic_close(nic);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(facts_are_those_of_the_port),
	        cmocka_unit_test(report_tells_queues_table_and_memory),
	        cmocka_unit_test(extended_statistics_count_received_frames),
	        cmocka_unit_test(tcp_reaches_its_owner_and_wakes_it),
	        cmocka_unit_test(one_wake_per_receive_call),
	        cmocka_unit_test(stack_without_hardware_queue_sends_through_its_owner),
	        cmocka_unit_test(arp_reaches_every_stack),
	        cmocka_unit_test(fragments_of_one_packet_go_to_one_stack),
	        cmocka_unit_test(damaged_frames_are_dropped_and_counted),
	        cmocka_unit_test(partial_checksum_of_a_local_peer_is_accepted_and_counted),
	        cmocka_unit_test(received_buffer_can_be_sent_again),
	        cmocka_unit_test(frame_too_long_is_dropped_and_counted),
	        cmocka_unit_test(full_port_keeps_frames_then_drops_and_counts),
	        cmocka_unit_test(no_buffers_left_is_counted_and_recovers),
	        cmocka_unit_test(packet_memory_can_be_read_but_not_written_elsewhere),
	        cmocka_unit_test(stack_without_hardware_queue_sleeps_on_a_silent_descriptor),
	        cmocka_unit_test(pool_takes_what_was_counted),
	        cmocka_unit_test(second_open_is_refused),
	        cmocka_unit_test(nothing_leaked),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
