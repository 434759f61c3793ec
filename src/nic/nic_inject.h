/* nic_inject.h - faults that are made on purpose between a queue and its port: frames are lost, delayed,
 * doubled, overtaken or damaged, by chance with a seed. For tests. No DPDK names here.
 *
 * Each frame takes the same numbers from its direction's sequence whatever happens to it, so that the same
 * seed and the same frames give the same faults.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct inject;
struct nic_queue;

enum {
	NIC_INJECT_WHOLE = 1000000,         /* a share of all: 100 % */
	NIC_INJECT_DELAY_MAX_US = 10000000, /* of delay and of jitter */
	NIC_INJECT_REORDER_US = 1000,       /* how long a frame waits that others shall overtake */
	NIC_INJECT_WAIT_MAX = 4096,         /* frames that wait, in each direction of a queue */
};

/* Of one direction. */
struct nic_inject_dir {
	uint32_t loss, dup, reorder, corrupt; /* parts of NIC_INJECT_WHOLE */
	uint32_t delay_us, jitter_us;         /* delay, give or take up to jitter (no more than delay) */
};

struct nic_inject {
	struct nic_inject_dir rx, tx; /* all zero: nothing */
	uint64_t seed;
};

/* What became of frames, in one direction. */
struct nic_inject_stats {
	uint64_t lost;
	uint64_t duplicated;
	uint64_t reordered; /* held back, for others to overtake them */
	uint64_t corrupted;
	uint64_t delayed;
	uint64_t overflow; /* dropped or not doubled: too many frames wait, or no buffer was free */
};

/* What the queue of a stack needs to do so, for nic_inject_set or free(3). Control thread. NULL: no memory.
 */
struct inject *nic_inject_make(const struct nic_inject *spec, uint32_t stack_idx);

/* From now on the queue does so instead of what it did; in is the queue's. Frames that still wait go on at
 * once. Queue's thread. */
void nic_inject_set(struct nic_queue *q, struct inject *in);
