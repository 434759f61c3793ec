/* test_capture.c - captures at a real DPDK port (net_ring: what is sent comes back) under two stacks that
 * share its one queue: what is copied where, directions, snap length, frames of several buffers, filters. The
 * filters' oracle is libpcap's own interpreter. One thread plays all parts; the EAL starts once per process.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pcap/pcap.h>

#include "capture.h"
#include "clock.h"
#include "frames.h"
#include "log.h"
#include "nic_int.h"

enum { STACKS = 2, BUFFERS = 4096, INSN_MAX = 4096 };

static struct nic *nic;
static struct nic_frame got[64];

/* A capture as pronk-dump has it. */
struct tap {
	int number;
	struct capture_shm *shm;
	struct capture_reader reader[STACKS];
};

static void wake(void *arg, uint32_t stack_idx)
{
	(void)arg;
	(void)stack_idx;
}

static struct nic_queue *queue(uint32_t stack)
{
	return nic_queue_get(nic, stack);
}

static struct capture_spec *spec_new(const char *filter)
{
	struct capture_spec *spec = calloc(1, sizeof(*spec) + INSN_MAX * sizeof(spec->insn[0]));
	struct bpf_program code;
	pcap_t *pcap;

	assert_non_null(spec);
	*spec = (struct capture_spec){.magic = CAPTURE_MAGIC,
	        .snap_size = CAPTURE_SNAP_MAX,
	        .directions = CAPTURE_IN | CAPTURE_OUT,
	        .queues = UINT32_MAX,
	        .ring_size = CAPTURE_RING_MIN};
	if (filter == NULL)
		return spec;
	pcap = pcap_open_dead(DLT_EN10MB, CAPTURE_SNAP_MAX);
	if (pcap_compile(pcap, &code, filter, 1, PCAP_NETMASK_UNKNOWN) < 0)
		fail_msg("%s: %s", filter, pcap_geterr(pcap));
	assert_in_range(code.bf_len, 1, INSN_MAX);
	spec->insn_count = code.bf_len;
	memcpy(spec->insn, code.bf_insns, code.bf_len * sizeof(spec->insn[0]));
	pcap_freecode(&code);
	pcap_close(pcap);
	return spec;
}

static int try_start(const struct capture_spec *spec, struct tap *tap, char *err, size_t err_size)
{
	size_t size = capture_shm_size(STACKS, spec->ring_size);
	int fd = -1;

	tap->number = nic_capture_start(nic, spec, &fd, err, err_size);
	if (tap->number < 0)
		return tap->number;
	assert_int_equal(ftruncate(fd, 0), -1); /* it would end the service at its next packet */
	tap->shm = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(tap->shm, MAP_FAILED);
	assert_true(capture_shm_check(tap->shm, size));
	close(fd);
	for (uint32_t i = 0; i < STACKS; i++)
		capture_reader_init(&tap->reader[i], tap->shm, i);
	return 0;
}

static void start(struct tap *tap, struct capture_spec *spec)
{
	char err[256] = "";

	if (try_start(spec, tap, err, sizeof(err)) != 0)
		fail_msg("%s", err);
	free(spec);
}

static void stop(struct tap *tap)
{
	size_t size = capture_shm_size(STACKS, tap->shm->ring_size);

	nic_capture_stop(nic, (uint32_t)tap->number);
	nic_capture_free(nic, (uint32_t)tap->number);
	munmap(tap->shm, size);
}

static const struct capture_record *next(struct tap *tap, uint32_t stack)
{
	const struct capture_record *record = capture_peek(&tap->reader[stack]);

	if (record != NULL)
		capture_take(&tap->reader[stack], record);
	return record;
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

/* Takes in what is under way. */
static void receive_all(void)
{
	uint32_t count;

	for (int turn = 0; turn < 3; turn++) {
		for (uint32_t stack = 0; stack < STACKS; stack++) {
			while ((count = nic_rx(queue(stack), got, 64)) != 0)
				for (uint32_t i = 0; i < count; i++)
					nic_buf_free(got[i].buf);
		}
	}
}

/* A source port whose frames belong to stack. */
static uint16_t port_for(uint32_t stack)
{
	uint16_t port = 2000;

	while (nic_owner(nic, AF_INET, (uint8_t[]){10, 0, 0, 1}, port, (uint8_t[]){10, 0, 0, 2}, 80) != stack)
		port++;
	return port;
}

static void sent_frame_has_its_checksums_and_comes_in_once_where_it_is_received(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(1), 80, 33);
	const struct capture_record *out, *in;
	uint64_t before_ns = clock_wall_ns();
	struct tap tap;

	(void)state;
	start(&tap, spec_new(NULL));
	assert_string_equal(tap.shm->device, "ring:");
	send_frame(0, frame, size);
	receive_all(); /* the receiving queue is stack 0's, the frame stack 1's */
	out = next(&tap, 0);
	assert_non_null(out);
	assert_int_equal(out->direction, CAPTURE_OUT);
	assert_int_equal(out->wire_size, size);
	assert_int_equal(out->cap_size, size);
	assert_in_range(out->time_ns - before_ns, 0, 60 * CLOCK_NS_PER_S);
	assert_int_equal(frame_sum(0, (const uint8_t *)(out + 1) + 14, 20), 0xffff);
	in = next(&tap, 0);
	assert_non_null(in);
	assert_int_equal(in->direction, CAPTURE_IN);
	assert_int_equal(in->queue, 0);
	assert_memory_equal(in + 1, out + 1, size);
	assert_true(in->time_ns >= out->time_ns);
	assert_null(next(&tap, 0));
	assert_null(next(&tap, 1));
	stop(&tap);
}

static void stack_without_hardware_queue_captures_what_it_sends(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 17, port_for(1), 80, 5);
	struct tap tap;

	(void)state;
	start(&tap, spec_new(NULL));
	send_frame(1, frame, size);
	receive_all();
	assert_int_equal(next(&tap, 1)->direction, CAPTURE_OUT);
	assert_null(next(&tap, 1));
	assert_int_equal(next(&tap, 0)->direction, CAPTURE_IN);
	assert_null(next(&tap, 0));
	stop(&tap);
}

static void damaged_frame_is_captured_as_it_came(void **state)
{
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 9);
	struct rte_mbuf *m = rte_pktmbuf_alloc(nic->pool);
	uint64_t dropped = nic_stats(queue(0))->drop_rx_cksum;
	const struct capture_record *record;
	struct tap tap;

	(void)state;
	start(&tap, spec_new(NULL));
	memcpy(rte_pktmbuf_append(m, (uint16_t)size), frame, size);
	assert_int_equal(rte_eth_tx_burst(nic->port, 0, &m, 1), 1);
	receive_all();
	assert_int_equal(nic_stats(queue(0))->drop_rx_cksum, dropped + 1);
	record = next(&tap, 0);
	assert_non_null(record);
	assert_memory_equal(record + 1, frame, size);
	stop(&tap);
}

static void direction_queue_and_snap_length_choose(void **state)
{
	struct capture_spec *in = spec_new(NULL), *out = spec_new(NULL), *other = spec_new(NULL);
	const struct capture_record *record;
	struct tap in_tap, out_tap, other_tap;
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 100);

	(void)state;
	in->directions = CAPTURE_IN;
	in->snap_size = 40;
	out->directions = CAPTURE_OUT;
	out->snap_size = 1;
	other->queues = 2;
	start(&in_tap, in);
	start(&out_tap, out);
	start(&other_tap, other);
	for (int i = 0; i < 3; i++)
		send_frame(0, frame, size);
	receive_all();
	for (int i = 0; i < 3; i++) {
		record = next(&in_tap, 0);
		assert_int_equal(record->direction, CAPTURE_IN);
		assert_int_equal(record->cap_size, 40);
		assert_int_equal(record->wire_size, size);
		record = next(&out_tap, 0);
		assert_int_equal(record->direction, CAPTURE_OUT);
		assert_int_equal(record->cap_size, 1);
	}
	assert_null(next(&in_tap, 0));
	assert_null(next(&out_tap, 0));
	assert_null(next(&other_tap, 0));
	assert_null(next(&other_tap, 1));
	stop(&in_tap);
	stop(&other_tap);
	send_frame(0, frame, size);
	assert_non_null(next(&out_tap, 0));
	stop(&out_tap);
	send_frame(0, frame, size); /* to nobody */
	receive_all();
}

static void frames_a_full_port_refuses_are_captured_once(void **state)
{
	struct capture_spec *spec = spec_new(NULL);
	uint8_t frame[256];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 0), count = 0;
	struct tap tap;

	(void)state;
	spec->directions = CAPTURE_OUT;
	spec->ring_size = 1 << 20;
	start(&tap, spec);
	for (int i = 0; i < 1500; i++) /* net_ring has 1,024 slots */
		send_frame(0, frame, size);
	for (int i = 0; i < 100; i++)
		nic_tx_flush(queue(0));
	while (next(&tap, 0) != NULL)
		count++;
	assert_int_equal(count, 1500);
	assert_int_equal(atomic_load(&tap.shm->ring[0].matched), 1500);
	do
		receive_all();
	while (nic_tx_flush(queue(0)) != 0);
	receive_all();
	assert_null(next(&tap, 0));
	stop(&tap);
}

static void reader_that_does_not_come_costs_drops_only(void **state)
{
	uint8_t frame[1500];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 1400);
	uint64_t sent = nic_stats(queue(0))->tx_packets;
	struct tap tap;

	(void)state;
	start(&tap, spec_new(NULL));
	for (int i = 0; i < 1000; i++) {
		send_frame(0, frame, size);
		receive_all();
	}
	assert_int_equal(nic_stats(queue(0))->tx_packets, sent + 1000);
	assert_int_equal(atomic_load(&tap.shm->ring[0].matched), 2000);
	assert_int_equal(atomic_load(&tap.shm->ring[0].dropped), 2000 - CAPTURE_RING_MIN / 1504);
	stop(&tap);
}

static void frame_of_several_buffers_is_captured_whole(void **state)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(nic->pool), *more = rte_pktmbuf_alloc(nic->pool);
	const struct capture_record *record;
	struct capture_spec *cut = spec_new("greater 1000 and tcp[1200:4] = 0x05060708");
	uint8_t frame[64];
	uint32_t size = frame_ip4(frame, 6, port_for(0), 80, 0);
	struct tap whole, part;

	(void)state;
	cut->snap_size = 1300;
	start(&whole, spec_new(NULL));
	start(&part, cut);
	memcpy(rte_pktmbuf_append(m, (uint16_t)size), frame, size);
	for (int i = 0; i < 1600; i++)
		rte_pktmbuf_append(more, 1)[0] = (char)i;
	/* "tcp[1200]" lies in the second buffer */
	memcpy(rte_pktmbuf_mtod_offset(more, uint8_t *, 1200 - 20), (uint8_t[]){5, 6, 7, 8}, 4);
	assert_int_equal(rte_pktmbuf_chain(m, more), 0);
	capture_burst(queue(0), &m, 1, CAPTURE_IN);
	record = next(&whole, 0);
	assert_non_null(record);
	assert_int_equal(record->cap_size, size + 1600);
	assert_memory_equal(record + 1, frame, size);
	assert_memory_equal((const uint8_t *)(record + 1) + size, rte_pktmbuf_mtod(more, uint8_t *), 1600);
	record = next(&part, 0);
	assert_non_null(record);
	assert_int_equal(record->cap_size, 1300);
	assert_int_equal(record->wire_size, size + 1600);
	assert_memory_equal(
	        (const uint8_t *)(record + 1) + size, rte_pktmbuf_mtod(more, uint8_t *), 1300 - size);
	rte_pktmbuf_free(m);
	stop(&whole);
	stop(&part);
}

/* --- filters --- */

static const char *const filters[] = {"ip", "ip6", "arp", "tcp", "udp", "icmp", "tcp port 80", "udp port 80",
        "src port 2000", "port 80 and not tcp", "host 10.0.0.1", "src host 10.0.0.2", "dst net 10.0.0.0/8",
        "net 192.168.0.0/16", "not host 10.0.0.1", "ether broadcast", "ether multicast",
        "ether host 02:00:00:00:00:01", "tcp[tcpflags] & (tcp-syn|tcp-ack) != 0", "tcp[13] & 2 != 0",
        "ip[2:2] > 100", "len > 100", "less 60", "greater 60", "tcp portrange 1000-3000",
        "portrange 79-81 and udp", "ip6 and tcp", "ip6 host fd00::1", "ip6 and udp port 80", "vlan",
        "vlan 5 and tcp", "ip proto 47", "(tcp or udp) and (port 80 or port 443 or port 6379)",
        "tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
        "ip[6:2] & 0x1fff != 0", "ether[0] & 1 = 1", "tcp[1000] = 5", "icmp[icmptype] = icmp-echo",
        "ether proto 0x0800", "host 10.0.0.1 and host 10.0.0.2 and port 80 and port 2000",
        "ip[8] = 64 and ip[9] = 17", "udp[4:2] = 13", "ip[16] >= 224", "ether[6:4] % 7 = 3", "ip[10] ^ 5 = 5",
        "ip[2:2] / 3 * 3 = ip[2:2]"};

static uint32_t frames_make(uint8_t frame[][1600], uint32_t *size, uint32_t max)
{
	uint32_t n = 0;

	size[n] = frame_ip4(frame[n], 6, 2000, 80, 0);
	frame[n++][14 + 20 + 13] = 2;
	size[n] = frame_ip4(frame[n], 6, 2000, 80, 40);
	frame[n++][14 + 20 + 13] = 0x18;
	size[n] = frame_ip4(frame[n], 6, 80, 2000, 1400);
	n++;
	size[n] = frame_ip4(frame[n], 17, 2000, 80, 5);
	n++;
	size[n] = frame_ip4(frame[n], 17, 443, 6379, 5);
	n++;
	size[n] = frame_ip6(frame[n], 6, 2000, 80, 7);
	n++;
	size[n] = frame_ip6(frame[n], 17, 1, 80, 7);
	n++;
	size[n] = frame_arp(frame[n]);
	n++;
	size[n] = frame_ip4(frame[n], 17, 1, 80, 30); /* a later fragment */
	frame_put16(frame[n++] + 20, 0x00b9);
	size[n] = frame_ip4(frame[n], 6, 1, 80, 30);
	frame[n][23] = 1; /* ICMP echo */
	frame[n++][34] = 8;
	size[n] = frame_ip4(frame[n], 6, 2000, 80, 9); /* VLAN 5 */
	memmove(frame[n] + 18, frame[n] + 14, size[n] - 14);
	memcpy(frame[n] + 12, (uint8_t[]){0x81, 0, 0, 5, 8, 0}, 6);
	size[n++] += 4;
	size[n] = frame_ip4(frame[n], 17, 5353, 5353, 12);
	memcpy(frame[n], (uint8_t[]){1, 0, 0x5e, 0, 0, 0xfb}, 6);
	memcpy(frame[n++] + 30, (uint8_t[]){224, 0, 0, 251}, 4);
	size[n++] = 14; /* nothing but the header */
	size[n] = frame_ip4(frame[n], 6, 2000, 80, 0);
	size[n++] = 30; /* cut in the IPv4 header */
	assert_true(n <= max);
	return n;
}

static void filter_says_of_every_frame_what_libpcap_says(void **state)
{
	static uint8_t frame[24][1600];
	uint32_t size[24], count = frames_make(frame, size, 24), matches = 0, with_code = 0;

	(void)state;
	for (size_t f = 0; f < ARRAY_COUNT(filters); f++) {
		struct capture_spec *spec = spec_new(filters[f]);
		struct bpf_insn *code = (struct bpf_insn *)spec->insn;
		char err[256] = "";
		struct tap tap;

		if (try_start(spec, &tap, err, sizeof(err)) != 0)
			fail_msg("filter \"%s\": %s", filters[f], err);
		for (uint32_t i = 0; i < count; i++) {
			struct rte_mbuf *m = rte_pktmbuf_alloc(nic->pool);
			bool expected = bpf_filter(code, frame[i], size[i], size[i]) != 0, is_there;

			memcpy(rte_pktmbuf_append(m, (uint16_t)size[i]), frame[i], size[i]);
			capture_burst(queue(0), &m, 1, CAPTURE_IN);
			is_there = next(&tap, 0) != NULL;
			if (is_there != expected)
				fail_msg("filter \"%s\", frame %u: libpcap says %s", filters[f], i,
				        expected ? "yes" : "no");
			matches += expected;
			rte_pktmbuf_free(m);
		}
		with_code++;
		free(spec);
		stop(&tap);
	}
	assert_in_range(matches, with_code, with_code * count - with_code);
}

static void program_that_makes_no_sense_is_refused(void **state)
{
	static const struct bpf_insn bad[][2] = {
	        {{BPF_JMP | BPF_JA, 0, 0, 1000}, {BPF_RET | BPF_K, 0, 0, 1}}, /* beyond the end */
	        {{BPF_LD | BPF_IMM, 0, 0, 1},
	                {BPF_JMP | BPF_JA, 0, 0, UINT32_MAX}}, /* in circles, for ever */
	        {{BPF_ALU | BPF_DIV | BPF_K, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 1}},
	        {{BPF_ST, 0, 0, 99}, {BPF_RET | BPF_K, 0, 0, 1}}, /* no such memory */
	        {{0xffff, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 1}},  /* libpcap passes these three, and aborts */
	        {{BPF_MISC | 0x40, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 1}},
	        {{BPF_LD | BPF_ABS | 0x18, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 1}},
	        {{BPF_RET | BPF_K, 0, 0, 1}, {BPF_LD | BPF_IMM, 0, 0, 1}}, /* does not end */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		struct capture_spec *spec = spec_new(NULL);
		char err[256] = "";
		struct tap tap;

		spec->insn_count = 2;
		memcpy(spec->insn, bad[i], sizeof(bad[i]));
		assert_int_equal(try_start(spec, &tap, err, sizeof(err)), -EINVAL);
		assert_true(strstr(err, "no valid program") != NULL || strstr(err, "jumps back") != NULL);
		free(spec);
	}
}

static void more_captures_than_there_are_places_are_refused(void **state)
{
	struct capture_spec *spec = spec_new("tcp");
	struct tap tap[NIC_CAPTURE_MAX + 1];
	char err[256] = "";

	(void)state;
	for (int i = 0; i < NIC_CAPTURE_MAX; i++)
		assert_int_equal(try_start(spec, &tap[i], err, sizeof(err)), 0);
	assert_int_equal(try_start(spec, &tap[NIC_CAPTURE_MAX], err, sizeof(err)), -EBUSY);
	assert_string_equal(err, "8 captures are under way already");
	stop(&tap[3]);
	assert_int_equal(try_start(spec, &tap[3], err, sizeof(err)), 0);
	for (int i = 0; i < NIC_CAPTURE_MAX; i++)
		stop(&tap[i]);
	spec->queues = 1 << STACKS;
	assert_int_equal(try_start(spec, &tap[0], err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "there is no stack 2 (allowed: 0 to 1)");
	free(spec);
}

static int open_port(void **state)
{
	char err[256] = "";
	struct cfg cfg;

	(void)state;
	log_level_set(LOG_LEVEL_ERROR);
	cfg_defaults(&cfg);
	snprintf(cfg.device, sizeof(cfg.device), "ring:");
	snprintf(cfg.name, sizeof(cfg.name), "test-capture");
	cfg.hugepages = CFG_HUGEPAGES_OFF;
	cfg.packet_buffers = BUFFERS;
	if (nic_open(&nic, &cfg, STACKS, wake, NULL, err, sizeof(err)) != 0) {
		fprintf(stderr, "nic_open: %s\n", err);
		return -1;
	}
	return nic_thread_attach();
}

static int close_port(void **state)
{
	struct tap left;

	(void)state;
	start(&left, spec_new("udp")); /* the port's end frees it */
	nic_close(nic);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(sent_frame_has_its_checksums_and_comes_in_once_where_it_is_received),
	        cmocka_unit_test(stack_without_hardware_queue_captures_what_it_sends),
	        cmocka_unit_test(damaged_frame_is_captured_as_it_came),
	        cmocka_unit_test(direction_queue_and_snap_length_choose),
	        cmocka_unit_test(frames_a_full_port_refuses_are_captured_once),
	        cmocka_unit_test(reader_that_does_not_come_costs_drops_only),
	        cmocka_unit_test(frame_of_several_buffers_is_captured_whole),
	        cmocka_unit_test(filter_says_of_every_frame_what_libpcap_says),
	        cmocka_unit_test(program_that_makes_no_sense_is_refused),
	        cmocka_unit_test(more_captures_than_there_are_places_are_refused),
	};

	return cmocka_run_group_tests(tests, open_port, close_port);
}
