/* adjust.c - what tools change in a stack that runs.
 *
 * The stack's thread, by messages of the control thread, which has checked everything before: nothing here
 * can fail.
 */
#include "stack_int.h"

#include <stdlib.h>

void stack_configure(struct stack *s, struct stack_msg *m)
{
	struct cfg *next = m->ptr;

	/* what is not here is constant after start, and others may have taken it from where it was */
	s->cfg.stack_spin_us = next->stack_spin_us;
	s->cfg.delayed_ack_ms = next->delayed_ack_ms;
	s->cfg.rto_min_ms = next->rto_min_ms;
	s->cfg.time_wait_ms = next->time_wait_ms;
	s->cfg.send_buffer = next->send_buffer;
	s->cfg.receive_buffer = next->receive_buffer;
	free(next);
}

void stack_inject(struct stack *s, struct stack_msg *m)
{
	nic_inject_set(s->queue, m->ptr);
}

void stack_latency(struct stack *s, struct stack_msg *m)
{
	s->is_timed = m->arg != 0;
	s->timed_count = 0;
	nic_time(s->queue, s->is_timed);
}
