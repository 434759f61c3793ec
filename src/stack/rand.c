/* rand.c - random numbers of a stack: initial sequence numbers (RFC 6528) and ports.
 *
 * Runs in the stack's thread. The key comes from getrandom(2) once; SipHash-2-4 (Aumasson and Bernstein,
 * 2012) turns a 4-tuple into its offset.
 */
#include "stack_int.h"
#include "lwip_hooks.h"

#include <string.h>
#include <sys/random.h>

#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = ROTL(v[1], 13) ^ v[0];
	v[0] = ROTL(v[0], 32);
	v[2] += v[3];
	v[3] = ROTL(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = ROTL(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = ROTL(v[1], 17) ^ v[2];
	v[2] = ROTL(v[2], 32);
}

/* SipHash-2-4 of a message of whole 8-byte words. */
static uint64_t siphash(const uint64_t key[2], const uint64_t *words, uint32_t count)
{
	uint64_t v[4] = {key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
	        key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull};

	for (uint32_t i = 0; i <= count; i++) {
		uint64_t m = i < count ? words[i] : (uint64_t)(count * 8 & 0xff) << 56;

		v[3] ^= m;
		sip_round(v);
		sip_round(v);
		v[0] ^= m;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void rand_init(struct stack *s)
{
	if (getrandom(s->isn_key, sizeof(s->isn_key), 0) != sizeof(s->isn_key) ||
	        getrandom(&s->rand_state, sizeof(s->rand_state), 0) != sizeof(s->rand_state)) {
		s->isn_key[0] = clock_now_ns() * 0x9e3779b97f4a7c15ull;
		s->isn_key[1] = (uint64_t)(uintptr_t)s ^ s->isn_key[0] >> 7;
		s->rand_state = s->isn_key[0] ^ s->isn_key[1];
	}
}

/* Keyed counter: unpredictable without the key, and one SipHash per call. */
uint32_t stack_rand(void)
{
	struct stack *s = stack_current;
	uint64_t w = s->rand_state++;

	return (uint32_t)(siphash(s->isn_key, &w, 1) >> 16);
}

uint64_t stack_hash(const struct stack *s, uint64_t a, uint64_t b)
{
	const uint64_t w[2] = {a, b};

	return siphash(s->isn_key, w, 2);
}

/* ISN = M + F(4-tuple, key), M ticking every 4 microseconds (RFC 6528 section 3). */
u32_t lwip_hook_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port)
{
	struct stack *s = stack_current;
	uint64_t w[3] = {0, 0, (uint64_t)local_port << 16 | remote_port};

	memcpy(&w[0], local, sizeof(*local) < 8 ? sizeof(*local) : 8);
	memcpy(&w[1], remote, sizeof(*remote) < 8 ? sizeof(*remote) : 8);
	return (u32_t)siphash(s->isn_key, w, 3) + (u32_t)(s->now_ns / 4000);
}
