/* rest.c - what is left to do when nobody uses a stack any more: data and ends that have not arrived, and
 * connections whose peers have not ended them. For an engine that outlives its program only for their sake
 * (src/engine/keep.c).
 *
 * Runs in the stack's thread, or with the driver token.
 */
#include "stack_int.h"

#include "lwip/priv/tcp_priv.h"

enum stack_rest stack_rest(const struct stack *s)
{
	enum stack_rest rest = STACK_REST_NONE;

	if (s->ep_free_count != s->ep_count || s->neigh_waiting || s->tx_waiting ||
	        s->loop_head != s->loop_tail)
		return STACK_REST_OURS;
	for (uint32_t h = 0; h <= s->hash_mask; h++) {
		for (const struct conn *c = s->hash[h]; c; c = c->hash_next) {
			if (!c->pcb || c->pcb->state == TIME_WAIT || c->pcb->state == SYN_RCVD)
				continue;
			if (c->pcb->state != FIN_WAIT_2)
				return STACK_REST_OURS;
			rest = STACK_REST_PEERS;
		}
	}
	return rest;
}

void stack_forget(struct stack *s)
{
	for (uint32_t h = 0; h <= s->hash_mask; h++) {
		for (struct conn *c = s->hash[h], *next; c; c = next) {
			next = c->hash_next;
			if (!c->pcb || (c->pcb->state != TIME_WAIT && c->pcb->state != FIN_WAIT_2))
				continue;
			tcp_err(c->pcb, NULL);
			focus_enter(c);
			tcp_abandon(c->pcb, 0);
			focus_leave(s);
		}
	}
}
