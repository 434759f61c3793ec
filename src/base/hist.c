/* hist.c - reading histograms: percentiles, sums, differences. Counting is in hist.h. Any thread. */
#include "hist.h"

uint64_t hist_low(uint32_t bucket)
{
	uint32_t shift = bucket < 2 * HIST_SUB ? 0 : bucket / HIST_SUB - 1;

	return (uint64_t)(bucket - shift * HIST_SUB) << shift;
}

uint64_t hist_high(uint32_t bucket)
{
	uint32_t shift = bucket < 2 * HIST_SUB ? 0 : bucket / HIST_SUB - 1;

	return hist_low(bucket) + (1ull << shift) - 1;
}

void hist_clear(struct hist *h)
{
	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		atomic_store_explicit(&h->bucket[i], 0, memory_order_relaxed);
	atomic_store_explicit(&h->sum_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&h->max_ns, 0, memory_order_relaxed);
}

void hist_take(const struct hist *h, struct hist_copy *copy)
{
	copy->count = 0;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		copy->bucket[i] = atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
		copy->count += copy->bucket[i];
	}
	copy->sum_ns = atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
	copy->max_ns = atomic_load_explicit(&h->max_ns, memory_order_relaxed);
}

void hist_sum(struct hist_copy *to, const struct hist_copy *from)
{
	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
}

void hist_since(struct hist_copy *later, const struct hist_copy *earlier)
{
	uint64_t high = 0;

	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		if (later->bucket[i] < earlier->bucket[i])
			return;
	if (later->sum_ns < earlier->sum_ns)
		return;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		later->bucket[i] -= earlier->bucket[i];
		if (later->bucket[i])
			high = hist_high(i);
	}
	later->count -= earlier->count;
	later->sum_ns -= earlier->sum_ns;
	if (later->max_ns > high)
		later->max_ns = high;
}

uint64_t hist_at(const struct hist_copy *copy, double part)
{
	double exact = part * (double)copy->count;
	uint64_t seen = 0, wanted = (uint64_t)exact;

	if ((double)wanted < exact)
		wanted++;
	if (!wanted)
		wanted = 1;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		seen += copy->bucket[i];
		if (seen >= wanted)
			return hist_high(i) < copy->max_ns && i < HIST_BUCKETS - 1 ? hist_high(i)
			                                                           : copy->max_ns;
	}
	return 0;
}
