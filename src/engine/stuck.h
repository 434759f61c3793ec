/* stuck.h - whether a turn of the stack never ends (inline.c): a signal handler that has interrupted it has
 * gone elsewhere by longjmp(3), and nobody can go on with what is half done.
 *
 * What the looking thread has seen of it is counted, not the time that has passed: a process that is stopped,
 * or in a debugger, stands still as a whole. One thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "compiler.h"

enum {
	STUCK_MS = 10000,   /* one turn has lasted so long */
	STUCK_STEP_MS = 10, /* of which this is counted at most between two looks */
};

/* Zeroed at first. */
struct stuck {
	uint64_t seen_ns, stuck_ns;
	uint32_t taken;
};

/* A look. is_held: somebody has the token; taken: how often it was taken. */
static inline bool stuck_look(struct stuck *s, bool is_held, uint32_t taken, uint64_t now_ns)
{
	uint64_t passed_ns = now_ns - s->seen_ns;

	s->seen_ns = now_ns;
	if (likely(!is_held || taken != s->taken)) {
		s->taken = taken;
		s->stuck_ns = 0;
		return false;
	}
	s->stuck_ns +=
	        passed_ns < STUCK_STEP_MS * CLOCK_NS_PER_MS ? passed_ns : STUCK_STEP_MS * CLOCK_NS_PER_MS;
	return s->stuck_ns >= STUCK_MS * CLOCK_NS_PER_MS;
}
