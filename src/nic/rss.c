/* rss.c - receive-side scaling: the Toeplitz hash and the stack that owns a 4-tuple.
 *
 * Pure functions over tables that are constant after rss_init; any thread. The same key and indirection table
 * are given to ports that can hash themselves (port.c), so that hardware and software choose the same stack.
 * The hash is linear over the input bits, which is why a table per nibble gives it exactly. The key is the
 * one that hardware vendors ship as their default and verify with; its use in queue.c is the software form.
 */
#include <string.h>
#include <sys/socket.h>

#include "nic_int.h"

const uint8_t rss_key[RSS_KEY_SIZE] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d,
        0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80,
        0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01,
        0xfa, /* the rest is for ports that want more than 40 bytes */
        0x5d, 0x12, 0xe9, 0x44, 0x8b, 0x36, 0xc7, 0x90, 0x1f, 0xa8, 0x63, 0x7e};

/* The 32 bits of the key that start at bit position at: what an input bit there adds to the hash. */
static uint32_t key_window(uint32_t at)
{
	uint32_t window = 0;

	for (uint32_t i = 0; i < 32; i++) {
		uint32_t bit = at + i;

		window = window << 1 | (rss_key[bit / 8] >> (7 - bit % 8) & 1);
	}
	return window;
}

void rss_init(struct rss *rss, uint32_t stack_count, uint32_t period)
{
	memset(rss, 0, sizeof(*rss));
	for (uint32_t nibble = 0; nibble < 2 * RSS_TUPLE_MAX; nibble++) {
		for (uint32_t value = 0; value < 16; value++) {
			for (uint32_t bit = 0; bit < 4; bit++) {
				if (value & (8 >> bit))
					rss->nibble[nibble][value] ^= key_window(4 * nibble + bit);
			}
		}
	}
	for (uint32_t i = 0; i < RSS_TABLE_SIZE; i++)
		rss->stack[i] = (uint8_t)(i % period % stack_count);
}

uint32_t nic_owner(const struct nic *nic, int family, const void *remote, uint16_t remote_port,
        const void *local, uint16_t local_port)
{
	uint32_t addr_size = family == AF_INET6 ? 16 : 4;
	uint8_t ports[4] = {(uint8_t)(remote_port >> 8), (uint8_t)remote_port, (uint8_t)(local_port >> 8),
	        (uint8_t)local_port};
	uint32_t hash;

	if (nic->stack_count == 1)
		return 0;
	hash = rss_feed(&nic->rss, 0, 0, remote, addr_size);
	hash = rss_feed(&nic->rss, hash, addr_size, local, addr_size);
	hash = rss_feed(&nic->rss, hash, 2 * addr_size, ports, 4);
	return rss_stack(&nic->rss, hash);
}
