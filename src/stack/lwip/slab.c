/* slab.c - owns the calling thread's slabs, from lwip_init to lwip_mem_fini, and the accounting over them.
 *
 * Runs on the stack thread only. One pointer is thread-local; all else lives in the first slab, because
 * static thread-local storage is taken from every thread's stack. The heap and the object pools on top are
 * mem.c and memp.c.
 */
#include "slab.h"
#include "lwip_mem.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include <string.h>

struct slab {
	struct slab *next;
	size_t size;
};

_Static_assert(sizeof(struct slab) <= SLAB_HEADER_SIZE, "objects start behind the slab's header");
_Static_assert(sizeof(struct slab_state) <= SLAB_SIZE - SLAB_HEADER_SIZE, "the state fits the first slab");
_Static_assert((int)MEMP_MAX <= LWIP_MEM_POOL_MAX, "struct lwip_mem_usage has a place for every pool");

LWIP_PER_STACK struct slab_state *slab_state;

static struct slab *slab_open(size_t size)
{
	struct slab *slab = stack_slab_alloc(size);
	if (slab)
		*slab = (struct slab){.size = size};
	return slab;
}

struct slab_state *slab_state_open(void)
{
	struct slab_state *state = slab_state;
	if (state)
		return state;
	struct slab *slab = slab_open(SLAB_HEADER_SIZE + sizeof *state);
	if (!slab)
		return NULL;
	state = (struct slab_state *)((uint8_t *)slab + SLAB_HEADER_SIZE);
	memset(state, 0, sizeof *state);
	state->slabs = slab;
	state->slab_bytes = slab->size;
	state->slab_count = 1;
	slab_state = state;
	return state;
}

void slab_pool_init(struct slab_pool *pool, uint32_t size, uint32_t limit)
{
	*pool = (struct slab_pool){.size = size, .limit = limit};
}

void *slab_cut(struct slab_state *state, struct slab_pool *pool)
{
	if (pool->cut == pool->cut_end) {
		uint32_t count = (SLAB_SIZE - SLAB_HEADER_SIZE) / pool->size;
		size_t size = count ? SLAB_SIZE : SLAB_HEADER_SIZE + (size_t)pool->size;
		struct slab *slab = slab_open(size);
		if (!slab)
			return NULL;
		slab->next = state->slabs;
		state->slabs = slab;
		state->slab_bytes += size;
		state->slab_count++;
		pool->cut = (uint8_t *)slab + SLAB_HEADER_SIZE;
		pool->cut_end = pool->cut + (count ? count : 1) * (size_t)pool->size;
		SLAB_POISON(pool->cut, size - SLAB_HEADER_SIZE);
	}
	void *object = pool->cut;
	pool->cut += pool->size;
	return object;
}

void lwip_mem_usage(struct lwip_mem_usage *usage)
{
	const struct slab_state *state = slab_state;
	*usage = (struct lwip_mem_usage){0};
	if (!state)
		return;
	usage->slab_bytes = state->slab_bytes;
	usage->slab_count = state->slab_count;
	usage->heap_bytes = state->heap_bytes;
	for (unsigned i = 0; i < HEAP_CLASS_COUNT; i++)
		usage->heap_count += state->heap[i].used;
	for (unsigned i = 0; i < MEMP_MAX; i++) {
		usage->pool_count[i] = state->pool[i].used;
		usage->pool_total += state->pool[i].used;
	}
}

void lwip_mem_fini(void)
{
	if (!slab_state)
		return;
		/* Half a datagram keeps packet buffers that do not come from here: let all of them grow too
		 * old. */
#if LWIP_IPV4 && IP_REASSEMBLY
	for (unsigned i = 0; i <= IP_REASS_MAXAGE; i++)
		ip_reass_tmr();
#endif
#if LWIP_IPV6 && LWIP_IPV6_REASS
	for (unsigned i = 0; i <= IPV6_REASS_MAXAGE; i++)
		ip6_reass_tmr();
#endif
#if MEMP_STATS
	memset(lwip_stats.memp, 0, sizeof lwip_stats.memp);
#endif
	struct slab *slab = slab_state->slabs;
	slab_state = NULL;
	while (slab) {
		struct slab *next = slab->next;
		SLAB_UNPOISON(slab, slab->size);
		stack_slab_free(slab, slab->size);
		slab = next;
	}
}
