/* route.c - which addresses lead to Pronk: the port's facts, as the arena's header has them. Pure functions.
 */
#include "route.h"
#include "proc.h"

#include <string.h>

bool route_is_loopback(const struct sock_addr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return a->family == AF_INET ? a->ip[0] == 127 : !memcmp(a->ip, one, 16);
}

bool route_is_any(const struct sock_addr *a)
{
	static const uint8_t none[16];

	return !memcmp(a->ip, none, a->family == AF_INET ? 4 : 16);
}

bool route_is_multicast(const struct sock_addr *a)
{
	return a->family == AF_INET ? a->ip[0] >> 4 == 14 : a->ip[0] == 0xff;
}

static uint32_t netmask(const struct arena_net *n)
{
	return n->prefix ? htonl(~0u << (32 - n->prefix)) : 0;
}

void route_own(uint8_t ip[4])
{
	uint32_t own = arena_net(proc.at.arena.hdr).address;

	memcpy(ip, &own, 4);
}

uint32_t route_mtu(void)
{
	return arena_net(proc.at.arena.hdr).mtu;
}

bool route_is_broadcast(const struct sock_addr *a)
{
	struct arena_net n = arena_net(proc.at.arena.hdr);
	uint32_t ip;

	if (a->family != AF_INET)
		return false;
	memcpy(&ip, a->ip, 4);
	return ip == INADDR_BROADCAST || (n.prefix < 31 && n.address && ip == (n.address | ~netmask(&n)));
}

bool route_is_own(const struct sock_addr *a)
{
	uint32_t own = arena_net(proc.at.arena.hdr).address;

	return a->family == AF_INET && own && !memcmp(a->ip, &own, 4);
}

bool route_has_listener(const struct sock_addr *a)
{
	const struct arena *ar = &proc.at.arena;

	if (!(atomic_load_explicit(&ar->hdr->port_listen[a->port / 32], memory_order_relaxed) >>
	                    (a->port % 32) &
	            1))
		return false;
	for (uint32_t i = 0; i < ar->listener_count; i++) {
		const struct listener *l = arena_listener(ar, i);
		const struct endpoint *ep;

		if (!atomic_load(&l->in_use))
			continue;
		ep = proc_ep(atomic_load(&l->endpoint));
		if (atomic_load(&ep->state) == EP_LISTEN && ep->local.port == a->port &&
		        (route_is_any(&ep->local) || !memcmp(ep->local.ip, a->ip, 4)))
			return true;
	}
	return false;
}

bool route_is_reachable(const struct sock_addr *a)
{
	struct arena_net n = arena_net(proc.at.arena.hdr);
	uint32_t ip;

	if (a->family != AF_INET || !n.is_usable)
		return false;
	memcpy(&ip, a->ip, 4);
	return ip != n.address && (!((ip ^ n.address) & netmask(&n)) || n.has_gateway);
}
