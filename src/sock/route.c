/* route.c - which addresses lead to Pronk, and to which service: the facts of the ports, as the arenas'
 * headers have them. Pure functions.
 */
#include "route.h"
#include "service.h"

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

static struct arena_net net_of(const struct service *s)
{
	return arena_net(s->at.arena.hdr);
}

void route_own(const struct service *s, uint8_t ip[4])
{
	uint32_t own = net_of(s).address;

	memcpy(ip, &own, 4);
}

uint32_t route_mtu(const struct service *s)
{
	return net_of(s).mtu;
}

static bool is_broadcast_of(const struct arena_net *n, uint32_t ip)
{
	return n->prefix < 31 && n->address && ip == (n->address | ~netmask(n));
}

struct service *route_broadcaster(const struct sock_addr *a)
{
	uint32_t ip;

	if (a->family != AF_INET)
		return NULL;
	memcpy(&ip, a->ip, 4);
	for (uint32_t i = 0; i < service_count(); i++) {
		struct arena_net n = net_of(&services[i]);

		if (!attach_is_dead(&services[i].at) && (ip == INADDR_BROADCAST || is_broadcast_of(&n, ip)))
			return &services[i];
	}
	return NULL;
}

struct service *route_owner(const struct sock_addr *a)
{
	for (uint32_t i = 0; i < service_count(); i++) {
		uint32_t own = net_of(&services[i]).address;

		if (a->family == AF_INET && own && !memcmp(a->ip, &own, 4) &&
		        !attach_is_dead(&services[i].at))
			return &services[i];
	}
	return NULL;
}

bool route_has_listener(const struct service *s, const struct sock_addr *a)
{
	const struct arena *ar = &s->at.arena;

	if (!(atomic_load_explicit(&ar->hdr->port_listen[a->port / 32], memory_order_relaxed) >>
	                    (a->port % 32) &
	            1))
		return false;
	for (uint32_t i = 0; i < ar->listener_count; i++) {
		const struct listener *l = arena_listener(ar, i);
		const struct endpoint *ep;

		if (!atomic_load(&l->in_use))
			continue;
		ep = handle_ep(handle_make(s, atomic_load(&l->endpoint)));
		if (atomic_load(&ep->state) == EP_LISTEN && ep->local.port == a->port &&
		        (route_is_any(&ep->local) || !memcmp(ep->local.ip, a->ip, 4)))
			return true;
	}
	return false;
}

static struct service *best_of(const struct sock_addr *a, bool with_dead)
{
	struct service *best = NULL;
	int best_prefix = -1;
	uint32_t ip;

	if (a->family != AF_INET)
		return NULL;
	memcpy(&ip, a->ip, 4);
	for (uint32_t i = 0; i < service_count(); i++) {
		struct arena_net n = net_of(&services[i]);
		int prefix = -1;

		if (attach_is_dead(&services[i].at) && !with_dead)
			continue;
		if (n.address && ip == n.address)
			return NULL;
		if (!n.is_usable)
			continue;
		/* a gateway is the shortest prefix of all, and several of them are taken in their order */
		if (!((ip ^ n.address) & netmask(&n)))
			prefix = (int)n.prefix + 1;
		else if (n.has_gateway)
			prefix = 0;
		if (prefix > best_prefix) {
			best_prefix = prefix;
			best = &services[i];
		}
	}
	return best;
}

struct service *route_to(const struct sock_addr *a)
{
	return best_of(a, false);
}

bool route_is_lost(const struct sock_addr *a)
{
	const struct service *s = best_of(a, true);

	return s && attach_is_dead(&s->at);
}
