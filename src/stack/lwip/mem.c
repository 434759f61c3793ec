/* mem.c - lwIP's heap (pbufs of arbitrary size), in place of the file of that name in lwIP.
 *
 * Runs on the stack thread only. A request is rounded up to one of 23 sizes, each a slab_pool of the calling
 * thread; a block never moves and is never split or merged, so both directions take constant time. In front
 * of each block are eight bytes that name its size class and show whether it is in use. Slabs are slab.c's.
 */
#include "slab.h"
#include "lwip/def.h"
#include "lwip/mem.h"
#include <string.h>

#ifndef LWIP_MEM_ILLEGAL_FREE
#define LWIP_MEM_ILLEGAL_FREE(message) LWIP_ASSERT(message, 0)
#endif

enum {
	/* Odd on purpose: in a free block the free list's link lies here, and no aligned address ends like
	   this. */
	BLOCK_USED = 0x5a5f,
	BLOCK_SIZE_MAX = 128 * 1024,
};

struct block {
	uint16_t mark; /* BLOCK_USED */
	uint16_t class;
	uint32_t size; /* what was asked for */
};

_Static_assert(sizeof(struct block) == MEM_ALIGNMENT, "payload stays aligned");

/* Sizes are 64, 96, 128, 192, 256, 384 .. 128 KB: powers of two and the middle between two of them. */
static uint32_t heap_class_size(unsigned class)
{
	if (class == 0)
		return 64;
	return class % 2 ? 3u << ((class - 1) / 2 + 5) : 1u << (class / 2 + 6);
}

static unsigned heap_class(uint32_t size)
{
	if (size <= 64)
		return 0;
	unsigned log = 31 - (unsigned)__builtin_clz(size - 1); /* 2^log < size <= 2^(log + 1) */
	return (log - 6) * 2 + 1 + (size > 3u << (log - 1));
}

void mem_init(void)
{
	struct slab_state *state = slab_state_open();
	if (!state)
		return; /* every allocation fails */
	for (unsigned i = 0; i < HEAP_CLASS_COUNT; i++)
		if (!state->heap[i].size)
			slab_pool_init(&state->heap[i], heap_class_size(i), UINT32_MAX);
	MEM_STATS_AVAIL(avail, (mem_size_t)MEM_SIZE);
}

void *mem_malloc(mem_size_t size)
{
	struct slab_state *state = slab_state;
	struct block *block = NULL;
	if (size == 0)
		return NULL;
	LWIP_ASSERT("mem_malloc: lwip_init has not run on this thread", state != NULL);
	if (state && size <= BLOCK_SIZE_MAX - sizeof *block) {
		unsigned class = heap_class((uint32_t)(size + sizeof *block));
		struct slab_pool *pool = &state->heap[class];
		if (state->heap_bytes + pool->size <= MEM_SIZE)
			block = slab_get(state, pool);
		if (block) {
			*block = (struct block){
			        .mark = BLOCK_USED, .class = (uint16_t) class, .size = (uint32_t)size};
			state->heap_bytes += pool->size;
			MEM_STATS_INC_USED(used, pool->size);
			return block + 1;
		}
	}
	MEM_STATS_INC(err);
	return NULL;
}

/* The block that memory is the payload of, or NULL if it is not one in use. It may be any address inside a
 * slab, hence free memory too. */
__attribute__((no_sanitize("address"))) static struct block *block_of(void *memory)
{
	struct block *block = (struct block *)memory - 1;
	if ((uintptr_t)memory % MEM_ALIGNMENT || block->mark != BLOCK_USED ||
	        block->class >= HEAP_CLASS_COUNT)
		return NULL;
	return block;
}

void mem_free(void *memory)
{
	struct slab_state *state = slab_state;
	if (!memory)
		return;
	LWIP_ASSERT("mem_free: lwip_init has not run on this thread", state != NULL);
	if (!state)
		return;
	struct block *block = block_of(memory);
	if (!block) {
		LWIP_MEM_ILLEGAL_FREE("mem_free: not a block in use");
		MEM_STATS_INC(illegal);
		return;
	}
	struct slab_pool *pool = &state->heap[block->class];
	state->heap_bytes -= pool->size;
	MEM_STATS_DEC_USED(used, pool->size);
	slab_put(pool, block);
}

void *mem_trim(void *memory, mem_size_t size)
{
	struct block *block = block_of(memory);
	LWIP_ASSERT("mem_trim: not a block in use, or it would have to grow", block && size <= block->size);
	if (block && size < block->size)
		block->size = (uint32_t)size;
	return memory;
}

void *mem_calloc(mem_size_t count, mem_size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow((size_t)count, (size_t)size, &bytes) || bytes != (mem_size_t)bytes) {
		MEM_STATS_INC(err);
		return NULL;
	}
	void *memory = mem_malloc((mem_size_t)bytes);
	if (memory)
		memset(memory, 0, bytes);
	return memory;
}
