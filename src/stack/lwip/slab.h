/* slab.h - fixed-size objects cut from slabs, for mem.c and memp.c only.
 *
 * All of it belongs to one thread: no locks, no atomics. A pool hands out its most recently freed object
 * first (it is in the cache), then cuts the next piece off its newest slab, and asks for another slab last.
 */
#pragma once
#include "lwip/memp.h"
#include "lwip/stats.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_ASAN 1
#endif
#endif
#ifdef SLAB_ASAN
#include <sanitizer/asan_interface.h>
/* A free object may not be touched, except for the link at its start. */
#define SLAB_POISON(p, size) __asan_poison_memory_region(p, size)
#define SLAB_UNPOISON(p, size) __asan_unpoison_memory_region(p, size)
#else
#define SLAB_POISON(p, size) ((void)(p), (void)(size))
#define SLAB_UNPOISON(p, size) ((void)(p), (void)(size))
#endif

enum {
	SLAB_SIZE = 64 * 1024, /* a slab of small objects; a larger object has a slab to itself */
	SLAB_HEADER_SIZE = 64, /* keeps the objects behind it on cache lines */
	HEAP_CLASS_COUNT = 23, /* see heap_class_size in mem.c */
};

/* Lies over whatever the object was before. */
struct __attribute__((may_alias)) slab_object {
	struct slab_object *next;
};

struct slab_pool {
	struct slab_object *free; /* last freed first */
	uint8_t *cut, *cut_end;   /* what the newest slab still holds */
	uint32_t size;            /* of one object */
	uint32_t limit;           /* most objects that may be in use */
	uint32_t used;
};

/* Everything one thread's lwIP allocates from, itself the first object of the first slab. */
struct slab_state {
	struct slab *slabs;
	size_t slab_bytes;
	uint32_t slab_count;
	size_t heap_bytes;
	struct slab_pool heap[HEAP_CLASS_COUNT];
	struct slab_pool pool[MEMP_MAX];
#if MEMP_STATS
	struct stats_mem pool_stats[MEMP_MAX];
#endif
};

/* The calling thread's state, NULL outside lwip_init .. lwip_mem_fini. */
extern LWIP_PER_STACK struct slab_state *slab_state;

/* Creates the calling thread's state, empty, if it has none. Returns it, or NULL without memory. */
struct slab_state *slab_state_open(void);

/* Cuts the next object off a slab, or NULL without memory. The slow half of slab_get. */
void *slab_cut(struct slab_state *state, struct slab_pool *pool);

/* Sets a pool up with nothing in it. */
void slab_pool_init(struct slab_pool *pool, uint32_t size, uint32_t limit);

/* An object of the pool, contents undefined, or NULL. */
static inline void *slab_get(struct slab_state *state, struct slab_pool *pool)
{
	struct slab_object *object = pool->free;
	if (pool->used >= pool->limit)
		return NULL;
	if (object)
		pool->free = object->next;
	else
		object = slab_cut(state, pool);
	if (object) {
		SLAB_UNPOISON(object, pool->size);
		pool->used++;
	}
	return object;
}

/* Gives an object back to the pool it came from. */
static inline void slab_put(struct slab_pool *pool, void *memory)
{
	struct slab_object *object = memory;
	object->next = pool->free;
	pool->free = object;
	pool->used--;
	SLAB_POISON(object + 1, pool->size - sizeof *object);
}
