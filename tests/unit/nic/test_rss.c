/* test_rss.c - the Toeplitz hash against the verification vectors that NIC vendors use, and the owner of a
 * 4-tuple.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <rte_thash.h>

#include "nic_int.h"

struct vector {
	int family;
	const char *dest, *source;
	uint16_t dest_port, source_port;
	uint32_t hash2, hash4; /* over addresses; over addresses and ports */
};

static const struct vector vectors[] = {
        {AF_INET, "161.142.100.80", "66.9.149.187", 1766, 2794, 0x323e8fc2, 0x51ccc178},
        {AF_INET, "65.69.140.83", "199.92.111.2", 4739, 14230, 0xd718262a, 0xc626b0ea},
        {AF_INET, "12.22.207.184", "24.19.198.95", 38024, 12898, 0xd2d0a5de, 0x5c2b394a},
        {AF_INET, "209.142.163.6", "38.27.205.30", 2217, 48228, 0x82989176, 0xafc7327f},
        {AF_INET, "202.188.127.2", "153.39.163.191", 1303, 44251, 0x5d1809c5, 0x10e828a2},
        {AF_INET6, "3ffe:2501:200:3::1", "3ffe:2501:200:1fff::7", 1766, 2794, 0x2cc18cd5, 0x40207d3d},
        {AF_INET6, "ff02::1", "3ffe:501:8::260:97ff:fe40:efab", 4739, 14230, 0x0f0c461c, 0xdde51bbf},
        {AF_INET6, "fe80::200:f8ff:fe21:67cf", "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 38024, 44251,
                0x4b61e985, 0x02d1feef},
};

static void hash_of_known_vectors_matches(void **state)
{
	struct rss rss;

	(void)state;
	rss_init(&rss, 4, RSS_TABLE_SIZE);
	for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint32_t size = v->family == AF_INET ? 4 : 16, hash;
		uint8_t tuple[RSS_TUPLE_MAX];

		assert_int_equal(inet_pton(v->family, v->source, tuple), 1);
		assert_int_equal(inet_pton(v->family, v->dest, tuple + size), 1);
		hash = rss_feed(&rss, 0, 0, tuple, 2 * size);
		assert_int_equal(hash, v->hash2);
		tuple[2 * size] = (uint8_t)(v->source_port >> 8);
		tuple[2 * size + 1] = (uint8_t)v->source_port;
		tuple[2 * size + 2] = (uint8_t)(v->dest_port >> 8);
		tuple[2 * size + 3] = (uint8_t)v->dest_port;
		assert_int_equal(rss_feed(&rss, hash, 2 * size, tuple + 2 * size, 4), v->hash4);
		assert_int_equal(rss_feed(&rss, 0, 0, tuple, 2 * size + 4), v->hash4);
	}
}

static void hash_of_random_tuples_matches_the_library(void **state)
{
	struct rss rss;
	uint32_t words[9];

	(void)state;
	rss_init(&rss, 4, RSS_TABLE_SIZE);
	srandom(7);
	for (int round = 0; round < 1000; round++) {
		uint8_t bytes[RSS_TUPLE_MAX];

		for (int i = 0; i < 9; i++) {
			uint32_t be;

			words[i] = (uint32_t)random() << 1 ^ (uint32_t)random();
			be = htonl(words[i]);
			memcpy(bytes + 4 * i, &be, 4);
		}
		assert_int_equal(rss_feed(&rss, 0, 0, bytes, 12), rte_softrss(words, 3, rss_key));
		assert_int_equal(rss_feed(&rss, 0, 0, bytes, 36), rte_softrss(words, 9, rss_key));
	}
}

static struct nic *nic_of(uint32_t stack_count, uint32_t period)
{
	struct nic *nic = calloc(1, sizeof(*nic));

	assert_non_null(nic);
	nic->stack_count = stack_count;
	rss_init(&nic->rss, stack_count, period);
	return nic;
}

static void owner_follows_hash_and_table(void **state)
{
	struct nic *nic = nic_of(5, RSS_TABLE_SIZE);

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint8_t source[16], dest[16];

		inet_pton(v->family, v->source, source);
		inet_pton(v->family, v->dest, dest);
		assert_int_equal(nic_owner(nic, v->family, source, v->source_port, dest, v->dest_port),
		        v->hash4 % RSS_TABLE_SIZE % 5);
	}
	free(nic);
}

static void owner_of_one_stack_is_zero(void **state)
{
	struct nic *nic = nic_of(1, RSS_TABLE_SIZE);
	uint8_t addr[4] = {1, 2, 3, 4};

	(void)state;
	for (uint16_t port = 0; port < 100; port++)
		assert_int_equal(nic_owner(nic, AF_INET, addr, port, addr, 80), 0);
	free(nic);
}

static void owners_of_many_ports_are_spread_evenly(void **state)
{
	struct nic *nic = nic_of(4, RSS_TABLE_SIZE);
	uint8_t remote[4] = {10, 0, 0, 1}, local[4] = {10, 0, 0, 2};
	uint32_t count[4] = {0};

	(void)state;
	for (uint32_t port = 32768; port < 32768 + 16384; port++)
		count[nic_owner(nic, AF_INET, remote, (uint16_t)port, local, 80)]++;
	for (int i = 0; i < 4; i++)
		assert_in_range(count[i], 3500, 4700);
	free(nic);
}

static void table_repeats_with_a_smaller_port_table(void **state)
{
	struct nic *nic = nic_of(3, 64);

	(void)state;
	for (int i = 0; i < 64; i++)
		assert_int_equal(nic->rss.stack[i], nic->rss.stack[i + 64]);
	free(nic);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(hash_of_known_vectors_matches),
	        cmocka_unit_test(hash_of_random_tuples_matches_the_library),
	        cmocka_unit_test(owner_follows_hash_and_table),
	        cmocka_unit_test(owner_of_one_stack_is_zero),
	        cmocka_unit_test(owners_of_many_ports_are_spread_evenly),
	        cmocka_unit_test(table_repeats_with_a_smaller_port_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
