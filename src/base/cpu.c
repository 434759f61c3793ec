/* cpu.c - owns nothing: asks the kernel and libnuma about cores. Runs on any thread, outside hot paths.
 *
 * A container often hides NUMA; then every core answers node -1 and callers take memory from anywhere. */
#include <errno.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>

#include "cpu.h"

_Static_assert(CPU_CORE_MAX <= CPU_SETSIZE, "cpu_set_t holds every core number");

int cpu_allowed(uint16_t *cores, unsigned max)
{
	unsigned count = 0;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return -errno;
	for (unsigned core = 0; core < CPU_CORE_MAX; core++) {
		if (!CPU_ISSET(core, &set))
			continue;
		if (count < max)
			cores[count] = (uint16_t)core;
		count++;
	}
	return (int)count;
}

int cpu_pick(uint16_t *cores, unsigned count)
{
	uint16_t allowed[CPU_CORE_MAX];
	int allowed_count = cpu_allowed(allowed, CPU_CORE_MAX);
	unsigned first, distinct;

	if (allowed_count <= 0)
		return allowed_count < 0 ? allowed_count : -ENOENT;
	distinct = count < (unsigned)allowed_count ? count : (unsigned)allowed_count;
	first = (unsigned)allowed_count - distinct;
	for (unsigned i = 0; i < count; i++)
		cores[i] = allowed[first + i % distinct];
	return (int)distinct;
}

int cpu_pin(unsigned core)
{
	cpu_set_t set;

	if (core >= CPU_CORE_MAX)
		return -EINVAL;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

int cpu_node(unsigned core)
{
	int node;

	if (core >= CPU_CORE_MAX || numa_available() < 0)
		return -1;
	node = numa_node_of_cpu((int)core);
	return node < 0 ? -1 : node;
}
