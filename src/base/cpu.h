/* cpu.h - which cores there are, where they lie, and how a thread is put on one. */
#pragma once
#include <stdint.h>

enum { CPU_CORE_MAX = 1024 }; /* core numbers are below this */

/* Stores the cores this process may run on, ascending, at most max. Any thread; does not block. Returns how
 * many there are (which may exceed max), or -E of sched_getaffinity(2). */
int cpu_allowed(uint16_t *cores, unsigned max);

/* Chooses count cores for stack threads: the last ones that this process may use, ascending; cores are used
 * again when there are fewer than count. Any thread; does not block. Returns how many different cores were
 * chosen, or -E. */
int cpu_pick(uint16_t *cores, unsigned count);

/* Binds the calling thread to one core. Does not block. Returns 0, -EINVAL when there is no such core or the
 * process may not use it, or another -E of pthread_setaffinity_np(3). */
int cpu_pin(unsigned core);

/* The NUMA node of a core, or -1 when the machine or the kernel does not say. Any thread; reads /sys at its
 * first call. */
int cpu_node(unsigned core);
