/* lwip_mem.h - life and accounting of the memory that one stack's lwIP uses. No lwIP types here.
 *
 * lwip_init creates the calling thread's memory (lwIP calls mem_init and memp_init itself); lwip_mem_fini
 * gives all of it back. In between it grows by slabs and never shrinks: freed objects are kept for the next
 * allocation.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { LWIP_MEM_POOL_MAX = 24 };

struct lwip_mem_usage {
	size_t slab_bytes; /* taken with stack_slab_alloc */
	uint32_t slab_count;
	size_t heap_bytes; /* heap blocks (PBUF_RAM) in use, headers and rounding included */
	uint32_t heap_count;
	uint32_t pool_total;                    /* sum of the next */
	uint32_t pool_count[LWIP_MEM_POOL_MAX]; /* objects in use, by pool */
};

/* Fills in what the calling thread's lwIP uses; all zero before lwip_init and after lwip_mem_fini. heap_count
 * and pool_total are 0 when nothing leaks. Stack thread; never blocks. */
void lwip_mem_usage(struct lwip_mem_usage *usage);

/* Name of a pool ("TCP_PCB"), NULL from the first index that is no pool. Any thread. */
const char *lwip_mem_pool_name(unsigned pool);

/* Drops half-reassembled datagrams, then returns every slab of the calling thread with stack_slab_free. Call
 * it last, on the stack's thread: no pcb, pbuf or netif of this lwIP may be touched afterwards. The thread
 * may call lwip_init again. A second call does nothing. */
void lwip_mem_fini(void);

/* Memory for lwIP's objects: at least 64-byte aligned, contents undefined. NULL when there is none (lwIP then
 * drops or refuses, and counts). Called rarely, on the stack thread, possibly from within packet processing:
 * must not block. Implemented by the stack. */
void *stack_slab_alloc(size_t bytes);

/* Takes a slab back; bytes as at its allocation. Stack thread, from lwip_mem_fini only. Implemented by the
 * stack. */
void stack_slab_free(void *slab, size_t bytes);
