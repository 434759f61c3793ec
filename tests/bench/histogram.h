/* histogram.h - latencies of the benchmark clients: log-linear buckets, 128 for each power of two, so that a
 * percentile is exact to 0.8 % whatever the number of values; counting one costs a few instructions and no
 * memory of its own. For one thread.
 */
#ifndef PRONK_BENCH_HISTOGRAM_H
#define PRONK_BENCH_HISTOGRAM_H
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { HIST_SUB_BITS = 7, HIST_SUB = 1 << HIST_SUB_BITS, HIST_BUCKETS = (64 - HIST_SUB_BITS) * HIST_SUB };

struct histogram {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t bucket[HIST_BUCKETS];
};

static inline uint64_t bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	unsigned shift = ns < 2 * HIST_SUB ? 0 : 63u - (unsigned)__builtin_clzll(ns) - HIST_SUB_BITS;

	h->count++;
	h->sum_ns += ns;
	h->bucket[shift * HIST_SUB + (ns >> shift)]++;
}

/* histogram_at: the value below or at which PART (0 to 1) of all values lie, in ns; 0 without values */
static inline uint64_t histogram_at(const struct histogram *h, double part)
{
	uint64_t seen = 0, wanted = (uint64_t)(part * (double)h->count + 0.5);

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		unsigned shift = i < 2 * HIST_SUB ? 0 : i / HIST_SUB - 1;

		seen += h->bucket[i];
		if (h->bucket[i] && seen >= wanted)
			return (uint64_t)(i - shift * HIST_SUB) << shift;
	}
	return 0;
}

/* histogram_print: "p50_us V", "p99_us V", "p99.9_us V", a line each, as every client here prints its results
 */
static inline void histogram_print(const struct histogram *h)
{
	printf("p50_us %.3f\np99_us %.3f\np99.9_us %.3f\n", (double)histogram_at(h, 0.5) / 1e3,
	        (double)histogram_at(h, 0.99) / 1e3, (double)histogram_at(h, 0.999) / 1e3);
}
#endif
