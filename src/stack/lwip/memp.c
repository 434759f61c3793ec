/* memp.c - lwIP's object pools (pcbs, segments, pbuf headers), in place of the file of that name in lwIP.
 *
 * Runs on the stack thread only. Each pool is a slab_pool of the calling thread, so there are no fixed
 * arrays, no table of addresses that thread-local storage would not allow, and no 16-bit counts. Slabs are
 * slab.c's.
 */
#include "slab.h"
#include "lwip_mem.h"
#include "lwip/def.h"
/* every struct whose size memp_std.h may ask for */
#include "lwip/altcp.h"
#include "lwip/dns.h"
#include "lwip/etharp.h"
#include "lwip/igmp.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include "lwip/mld6.h"
#include "lwip/netdb.h"
#include "lwip/pbuf.h"
#include "lwip/priv/api_msg.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/priv/tcpip_priv.h"
#include "lwip/raw.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "lwip/udp.h"
#include "netif/ppp/ppp_opts.h"

static const struct pool_fact {
	const char *name;
	uint32_t size, limit;
} pool_facts[MEMP_MAX] = {
#define LWIP_MEMPOOL(pool, count, bytes, text) {.name = #pool, .size = (bytes), .limit = (count)},
#include "lwip/priv/memp_std.h"
};

#if MEMP_STATS
#define POOL_STAT(state, type) (&(state)->pool_stats[type])
#endif

/* Large objects start on a cache line, small ones share one. */
static uint32_t object_size(uint32_t size)
{
	uint32_t alignment = size >= 128 ? 64 : 8;
	return (size + alignment - 1) & ~(alignment - 1);
}

void memp_init(void)
{
	struct slab_state *state = slab_state_open();
	if (!state)
		return; /* every allocation fails */
	for (unsigned i = 0; i < MEMP_MAX; i++) {
		if (!state->pool[i].size)
			slab_pool_init(&state->pool[i], object_size(pool_facts[i].size), pool_facts[i].limit);
#if MEMP_STATS
		state->pool_stats[i].avail = (mem_size_t)pool_facts[i].limit;
		lwip_stats.memp[i] = &state->pool_stats[i];
#endif
	}
}

void *memp_malloc(memp_t type)
{
	struct slab_state *state = slab_state;
	LWIP_ERROR("memp_malloc: no such pool", type < MEMP_MAX, return NULL;);
	LWIP_ASSERT("memp_malloc: lwip_init has not run on this thread", state != NULL);
	if (!state)
		return NULL;
	void *object = slab_get(state, &state->pool[type]);
#if MEMP_STATS
	struct stats_mem *stat = POOL_STAT(state, type);
	if (!object)
		stat->err++;
	else if (++stat->used > stat->max)
		stat->max = stat->used;
#endif
	return object;
}

void memp_free(memp_t type, void *object)
{
	struct slab_state *state = slab_state;
	LWIP_ERROR("memp_free: no such pool", type < MEMP_MAX, return;);
	if (!object)
		return;
	LWIP_ASSERT("memp_free: lwip_init has not run on this thread", state != NULL);
	if (!state)
		return;
	LWIP_ASSERT("memp_free: more freed than allocated", state->pool[type].used > 0);
	slab_put(&state->pool[type], object);
#if MEMP_STATS
	POOL_STAT(state, type)->used--;
#endif
}

const char *lwip_mem_pool_name(unsigned pool)
{
	return pool < MEMP_MAX ? pool_facts[pool].name : NULL;
}
