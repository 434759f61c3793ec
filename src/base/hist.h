/* hist.h - a histogram of durations: log-linear buckets, 32 for each power of two, so that a value is known
 * to 1/32 of itself whatever it is.
 *
 * It may lie in shared memory and have any number of writers: counting is a few relaxed atomic additions,
 * wait for nobody and need no memory. A reader copies it (values counted meanwhile are in it or not) and
 * computes from the copy.
 */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

enum {
	HIST_SUB_BITS = 5,
	HIST_SUB = 1 << HIST_SUB_BITS,
	HIST_TOP_BITS = 40, /* longer than 18 minutes counts as that */
	HIST_BUCKETS = (HIST_TOP_BITS - HIST_SUB_BITS + 1) * HIST_SUB,
};

struct hist {
	_Atomic uint64_t sum_ns, max_ns;
	_Atomic uint64_t bucket[HIST_BUCKETS];
};

/* A histogram at some moment, or between two. */
struct hist_copy {
	uint64_t count, sum_ns, max_ns;
	uint64_t bucket[HIST_BUCKETS];
};

/* The bucket of a value, and the smallest and largest value of a bucket. Pure. */
static inline uint32_t hist_bucket(uint64_t ns)
{
	uint32_t shift;

	if (ns < 2 * HIST_SUB)
		return (uint32_t)ns;
	if (ns >> HIST_TOP_BITS)
		return HIST_BUCKETS - 1;
	shift = 63u - (uint32_t)__builtin_clzll(ns) - HIST_SUB_BITS;
	return shift * HIST_SUB + (uint32_t)(ns >> shift);
}
uint64_t hist_low(uint32_t bucket);
uint64_t hist_high(uint32_t bucket);

/* Counts a value. Any thread. */
static inline void hist_add(struct hist *h, uint64_t ns)
{
	uint64_t max = atomic_load_explicit(&h->max_ns, memory_order_relaxed);

	atomic_fetch_add_explicit(&h->bucket[hist_bucket(ns)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_ns, ns, memory_order_relaxed);
	while (ns > max && !atomic_compare_exchange_weak_explicit(
	                           &h->max_ns, &max, ns, memory_order_relaxed, memory_order_relaxed))
		;
}

/* Forgets everything. Any thread; what others count meanwhile may be forgotten, too. */
void hist_clear(struct hist *h);

/* Copies it; h may be mapped for reading only. */
void hist_take(const struct hist *h, struct hist_copy *copy);

/* Adds one copy to another; takes an earlier copy of the same histogram away from a later one (the largest
 * value is then known to its bucket only). A histogram that was cleared in between counts from there. */
void hist_sum(struct hist_copy *to, const struct hist_copy *from);
void hist_since(struct hist_copy *later, const struct hist_copy *earlier);

/* The smallest value that at least part (0 to 1) of all values do not exceed, as the largest of its bucket,
 * but no more than the largest of all; 0 without values. Pure. */
uint64_t hist_at(const struct hist_copy *copy, double part);
