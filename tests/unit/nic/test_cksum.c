/* test_cksum.c - checksums and parsing of one frame: what is filled on transmit, accepted and refused on
 * receive.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frames.h"
#include "nic_int.h"

static uint8_t frame[2048];
static struct nic_queue queue; /* no offloads */

static void fill(uint32_t size)
{
	struct rte_mbuf m = {.ol_flags = 0};

	cksum_tx(&queue, &m, frame, size);
	assert_int_equal(m.ol_flags, 0);
}

static struct frame_info check_flags(uint32_t size, uint64_t flags)
{
	struct frame_info info;

	cksum_rx(frame, size, flags, &info);
	return info;
}

static enum cksum_result check(uint32_t size)
{
	return check_flags(size, 0).result;
}

/* Sum over pseudo header and payload must be all ones. */
static void assert_l4_sum(
        uint32_t addr_at, uint32_t addr_size, uint8_t proto, uint32_t l4_at, uint32_t l4_size)
{
	uint32_t sum = frame_sum(l4_size + proto, frame + addr_at, 2 * addr_size);

	assert_int_equal(frame_sum(sum, frame + l4_at, l4_size), 0xffff);
}

static void tx_fills_what_rx_accepts(void **state)
{
	(void)state;
	for (uint32_t payload = 0; payload < 70; payload++) {
		for (int udp = 0; udp < 2; udp++) {
			uint8_t proto = udp ? 17 : 6;
			uint32_t size = frame_ip4(frame, proto, 1234, 80, payload);

			memset(frame + 14 + 10, 0xaa, 2); /* fields may hold anything */
			memset(frame + 34 + (udp ? 6 : 16), 0xbb, 2);
			fill(size);
			assert_int_equal(frame_sum(0, frame + 14, 20), 0xffff);
			assert_l4_sum(26, 4, proto, 34, size - 34);
			assert_int_equal(check(size), CKSUM_OK);
			size = frame_ip6(frame, proto, 1234, 80, payload);
			fill(size);
			assert_l4_sum(22, 16, proto, 54, size - 54);
			assert_int_equal(check(size), CKSUM_OK);
		}
	}
}

static void rx_refuses_each_flipped_bit(void **state)
{
	uint32_t size = frame_ip4(frame, 6, 1234, 80, 11);

	(void)state;
	fill(size);
	for (uint32_t bit = 34 * 8; bit < size * 8; bit++) {
		enum cksum_result result;

		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
		result = check(size);
		assert_true(result == CKSUM_BAD || result == CKSUM_SHORT);
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	frame[14 + 8] ^= 1; /* TTL: covered by the IPv4 header's checksum only */
	assert_int_equal(check(size), CKSUM_BAD);
}

/* What a kernel leaves when it trusts an offload: the pseudo-header sum, not complemented. */
static void rx_tells_partial_from_bad(void **state)
{
	(void)state;
	for (int udp = 0; udp < 2; udp++) {
		uint8_t proto = udp ? 17 : 6;
		uint32_t size = frame_ip4(frame, proto, 999, 80, 25), field = 34 + (udp ? 6 : 16);

		fill(size);
		frame_put16(frame + field, frame_sum(size - 34 + proto, frame + 26, 8));
		assert_int_equal(check(size), CKSUM_PARTIAL);
		frame[field] ^= 0x10;
		assert_int_equal(check(size), CKSUM_BAD);
		size = frame_ip6(frame, proto, 999, 80, 25);
		frame_put16(frame + 54 + (udp ? 6 : 16), frame_sum(size - 54 + proto, frame + 22, 32));
		assert_int_equal(check(size), CKSUM_PARTIAL);
	}
}

static void rx_udp_without_checksum_is_good_in_ip4_only(void **state)
{
	uint32_t size = frame_ip4(frame, 17, 1, 2, 9);

	(void)state;
	fill(size);
	frame_put16(frame + 34 + 6, 0);
	assert_int_equal(check(size), CKSUM_OK);
	size = frame_ip6(frame, 17, 1, 2, 9);
	assert_int_equal(check(size), CKSUM_BAD);
}

static void tx_udp_sum_of_zero_is_sent_as_ffff(void **state)
{
	uint32_t size = frame_ip4(frame, 17, 1, 2, 2), sum;

	(void)state;
	frame_put16(frame + 42, 0);
	sum = frame_sum(frame_sum(10 + 17, frame + 26, 8), frame + 34, 10);
	frame_put16(frame + 42, 0xffff - sum);
	fill(size);
	assert_int_equal(frame[40] << 8 | frame[41], 0xffff);
	assert_int_equal(check(size), CKSUM_OK);
}

static void rx_udp_shorter_than_ip_covers_its_own_length(void **state)
{
	uint32_t size = frame_ip4(frame, 17, 1, 2, 20);

	(void)state;
	frame_put16(frame + 38, 8 + 15); /* 5 bytes behind the datagram */
	frame_put16(frame + 40, 0);
	frame_put16(frame + 40, ~frame_sum(frame_sum(23 + 17, frame + 26, 8), frame + 34, 23));
	frame_put16(frame + 24, 0);
	frame_put16(frame + 24, ~frame_sum(0, frame + 14, 20));
	assert_int_equal(check(size), CKSUM_OK);
}

static void rx_fragment_is_unchecked_and_hashed_by_addresses(void **state)
{
	static const uint16_t fields[] = {0x2000, 0x0001, 0x2010};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
		uint32_t size = frame_ip4(frame, 17, 1, 2, 64);
		struct frame_info info;

		frame_put16(frame + 20, fields[i]);
		frame_put16(frame + 40, 0x1234); /* made over the whole datagram: must stay */
		fill(size);
		assert_int_equal(frame[40] << 8 | frame[41], 0x1234);
		info = check_flags(size, 0);
		assert_int_equal(info.result, CKSUM_UNCHECKED);
		assert_true(info.fragment && info.has_owner && info.ports == NULL);
	}
	/* "don't fragment" is no fragment */
	frame_put16(frame + 20, 0x4000);
	fill(14 + 20 + 8 + 64);
	assert_int_equal(check(14 + 20 + 8 + 64), CKSUM_OK);
}

static void rx_frame_cut_anywhere_is_short(void **state)
{
	uint32_t size = frame_ip4(frame, 6, 1, 2, 30);

	(void)state;
	fill(size);
	for (uint32_t cut = 0; cut < size; cut++)
		assert_int_equal(check(cut), CKSUM_SHORT);
	size = frame_ip6(frame, 17, 1, 2, 30);
	fill(size);
	for (uint32_t cut = 0; cut < size; cut++)
		assert_int_equal(check(cut), CKSUM_SHORT);
}

static void rx_padding_behind_the_packet_is_ignored(void **state)
{
	uint32_t size = frame_ip4(frame, 6, 1, 2, 0);

	(void)state;
	fill(size);
	memset(frame + size, 0x5a, 6);
	assert_int_equal(check(size + 6), CKSUM_OK);
}

static void rx_header_lengths_that_lie_are_short(void **state)
{
	uint32_t size = frame_ip4(frame, 6, 1, 2, 4);

	(void)state;
	frame[14] = 0x44; /* header of 16 bytes */
	assert_int_equal(check(size), CKSUM_SHORT);
	frame[14] = 0x65;
	assert_int_equal(check(size), CKSUM_SHORT);
	frame_ip4(frame, 6, 1, 2, 4);
	frame[34 + 12] = 0x40; /* TCP header of 16 bytes */
	fill(size);
	assert_int_equal(check(size), CKSUM_SHORT);
	frame[34 + 12] = 0x80; /* 32 of 24 bytes */
	fill(size);
	assert_int_equal(check(size), CKSUM_SHORT);
	size = frame_ip4(frame, 17, 1, 2, 4);
	frame_put16(frame + 38, 7);
	fill(size);
	assert_int_equal(check(size), CKSUM_SHORT);
}

static void rx_trusts_the_port(void **state)
{
	uint32_t size = frame_ip4(frame, 6, 1, 2, 4);

	(void)state;
	fill(size);
	frame[34 + 16] ^= 0xff;
	assert_int_equal(check_flags(size, RTE_MBUF_F_RX_L4_CKSUM_GOOD).result, CKSUM_OK);
	assert_int_equal(check_flags(size, RTE_MBUF_F_RX_L4_CKSUM_BAD).result, CKSUM_BAD);
	frame[14 + 10] ^= 0xff;
	assert_int_equal(check_flags(size, RTE_MBUF_F_RX_L4_CKSUM_GOOD).result, CKSUM_BAD);
	assert_int_equal(check_flags(size, RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD).result,
	        CKSUM_OK);
}

static void tx_leaves_sums_to_a_port_that_makes_them(void **state)
{
	struct nic_queue offload = {.tx_flags_ip = RTE_MBUF_F_TX_IP_CKSUM,
	        .tx_flags_tcp = RTE_MBUF_F_TX_TCP_CKSUM,
	        .tx_flags_udp = RTE_MBUF_F_TX_UDP_CKSUM};
	struct rte_mbuf m = {.ol_flags = 0};
	uint32_t size = frame_ip4(frame, 6, 1, 2, 4);

	(void)state;
	cksum_tx(&offload, &m, frame, size);
	assert_int_equal(m.ol_flags, RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM);
	assert_int_equal(m.l2_len, 14);
	assert_int_equal(m.l3_len, 20);
	assert_int_equal(frame[50] << 8 | frame[51], frame_sum(24 + 6, frame + 26, 8));
	m.ol_flags = 0;
	size = frame_ip6(frame, 17, 1, 2, 4);
	cksum_tx(&offload, &m, frame, size);
	assert_int_equal(m.ol_flags, RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_UDP_CKSUM);
	assert_int_equal(m.l3_len, 40);
}

static void rx_arp_and_neighbour_discovery_are_for_everybody(void **state)
{
	uint32_t size = frame_arp(frame);

	(void)state;
	assert_true(check_flags(size, 0).arp_like);
	size = frame_ip6(frame, 58, 0, 0, 20);
	frame[14 + 40] = 135;
	assert_true(check_flags(size, 0).arp_like);
	frame[14 + 40] = 128;
	assert_false(check_flags(size, 0).arp_like);
}

/* The frame in two buffers, the first of first bytes. */
static enum cksum_result check_chain(uint32_t size, uint32_t first)
{
	struct rte_mbuf m[2];
	struct frame_info info;

	memset(m, 0, sizeof(m));
	m[0].buf_addr = frame;
	m[0].data_len = (uint16_t)first;
	m[0].pkt_len = size;
	m[0].nb_segs = 2;
	m[0].next = &m[1];
	m[1].buf_addr = frame + first;
	m[1].data_len = (uint16_t)(size - first);
	cksum_rx_chain(m, &info);
	return info.result;
}

static void chain_is_checked_over_its_buffers(void **state)
{
	(void)state;
	for (int udp = 0; udp < 2; udp++) {
		uint32_t size = frame_ip4(frame, udp ? 17 : 6, 1234, 80, 1000);

		fill(size);
		for (uint32_t first = 14 + 40; first < 200; first += 7) {
			assert_int_equal(check_chain(size, first), CKSUM_OK);
			frame[size - 1] ^= 1;
			assert_int_equal(check_chain(size, first), CKSUM_BAD);
			frame[size - 1] ^= 1;
		}
		assert_int_equal(check_chain(size, 14 + 39), CKSUM_SHORT);
		assert_int_equal(check_chain(size - 1, 100), CKSUM_SHORT);
		cksum_tx_near(frame, size);
		assert_int_equal(check_chain(size, 100), CKSUM_PARTIAL);
		assert_int_equal(check_flags(size, CKSUM_PARTIAL_FIRST).result, CKSUM_PARTIAL);
		assert_int_equal(check(size), CKSUM_PARTIAL);
		frame[size - 1] ^= 1; /* nobody looks */
		assert_int_equal(check_flags(size, CKSUM_PARTIAL_FIRST).result, CKSUM_PARTIAL);
	}
}

/* The last piece of a datagram may be a single byte, and still needs its IP header's sum. */
static void near_fragment_of_any_size_has_a_header_sum(void **state)
{
	(void)state;
	for (uint32_t piece = 1; piece <= 16; piece++) {
		uint32_t size = 14 + 20 + piece;
		struct frame_info info;

		frame_ip4(frame, 17, 1, 2, 64);
		frame_put16(frame + 16, 20 + piece);
		frame_put16(frame + 20, 0x00b9);
		cksum_tx_near(frame, size);
		info = check_flags(size, 0);
		assert_int_equal(info.result, CKSUM_UNCHECKED);
		assert_true(info.fragment);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(tx_fills_what_rx_accepts),
	        cmocka_unit_test(chain_is_checked_over_its_buffers),
	        cmocka_unit_test(near_fragment_of_any_size_has_a_header_sum),
	        cmocka_unit_test(rx_refuses_each_flipped_bit),
	        cmocka_unit_test(rx_tells_partial_from_bad),
	        cmocka_unit_test(rx_udp_without_checksum_is_good_in_ip4_only),
	        cmocka_unit_test(tx_udp_sum_of_zero_is_sent_as_ffff),
	        cmocka_unit_test(rx_udp_shorter_than_ip_covers_its_own_length),
	        cmocka_unit_test(rx_fragment_is_unchecked_and_hashed_by_addresses),
	        cmocka_unit_test(rx_frame_cut_anywhere_is_short),
	        cmocka_unit_test(rx_padding_behind_the_packet_is_ignored),
	        cmocka_unit_test(rx_header_lengths_that_lie_are_short),
	        cmocka_unit_test(rx_trusts_the_port),
	        cmocka_unit_test(tx_leaves_sums_to_a_port_that_makes_them),
	        cmocka_unit_test(rx_arp_and_neighbour_discovery_are_for_everybody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
