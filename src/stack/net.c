/* net.c - the kernel's interface has changed: address, gateway, MTU, permanent neighbours, link.
 *
 * Runs in the stack's thread; the control thread has read the interface (src/engine/follow.c). Each stack
 * takes a change over by itself. The last one tells the clients: whoever believes the arena's word finds that
 * every stack agrees. doc/threads.md, "The port's address".
 *
 * What happens to connections of an address that is gone is the kernel's way: nothing. They can neither send
 * (netif_send) nor receive (the address is not ours), and go on should it come back; otherwise their
 * retransmissions end in time. Segments that are longer than a new MTU are cut as they leave
 * (netif_ip4_frag).
 */
#include "stack_int.h"

#include <stdlib.h>

void stack_net_changed(struct stack *s, struct stack_msg *m)
{
	struct stack_net *n = m->ptr;
	uint32_t address, gateway;

	memcpy(&address, n->address, 4);
	memcpy(&gateway, n->gateway, 4);
	memcpy(&s->netmask, n->netmask, 4);
	s->has_moved |= address != s->address;
	if ((n->must_greet && n->is_up) || address != s->address) {
		s->address = address;
		neigh_forget(s);
		stack_announce(s);
	}
	s->gateway = gateway;
	s->has_gateway = n->has_gateway;
	s->mtu = n->mtu;
	netif_follow(s);
	neigh_fix(s, n->neigh, n->neigh_count);
	if (atomic_fetch_sub(&n->left, 1) != 1)
		return;
	arena_net_set(s->arena->hdr,
	        &(struct arena_net){.address = address,
	                .prefix = n->prefix,
	                .mtu = n->mtu,
	                .has_gateway = n->has_gateway,
	                .is_usable = address && n->is_up},
	        gateway);
	free(n);
}
