/* spin.h - whether spinning is worth it for a thread at present.
 *
 * A thread that spins offers its core to others at every empty turn (sched_yield). That is best among threads
 * that work for each other, as each has little to do at a time. But one that computes keeps the core for its
 * whole time slice, while a sleeper would get the core as soon as it is woken. So a thread whose turn took
 * that long sleeps at once for a while, longer if it happens again soon. Inline; each thread has its own
 * state.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { SPIN_LOST_NS = 1000000, SPIN_OFF_MIN_NS = 5000000, SPIN_OFF_MAX_NS = 1000000000 };

struct spin {
	uint64_t off_until_ns;
	uint64_t off_ns; /* how long it was off last */
};

static inline bool spin_may(const struct spin *s, uint64_t now_ns)
{
	return now_ns >= s->off_until_ns;
}

/* An empty turn lasted from before_ns to now_ns. True when the core was lost meanwhile: no spinning for now.
 */
static inline bool spin_lost(struct spin *s, uint64_t before_ns, uint64_t now_ns)
{
	if (now_ns - before_ns < SPIN_LOST_NS)
		return false;
	if (now_ns - s->off_until_ns > s->off_ns)
		s->off_ns = SPIN_OFF_MIN_NS;
	else if (s->off_ns < SPIN_OFF_MAX_NS)
		s->off_ns *= 2;
	s->off_until_ns = now_ns + s->off_ns;
	return true;
}
