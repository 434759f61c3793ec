/* route.h - which addresses lead to Pronk. Any thread; nothing blocks; the process must be attached where an
 * answer depends on the port.
 */
#pragma once
#include <stdbool.h>

#include "layout.h"

/* 127.0.0.0/8 or ::1. */
bool route_is_loopback(const struct sock_addr *a);

/* 0.0.0.0 or ::. */
bool route_is_any(const struct sock_addr *a);

/* 224.0.0.0/4; the limited broadcast address or that of a port's network. */
bool route_is_multicast(const struct sock_addr *a);
struct service;
struct service *route_broadcaster(const struct sock_addr *a); /* whose network; the first one's, or NULL */
static inline bool route_is_broadcast(const struct sock_addr *a)
{
	return route_broadcaster(a) != NULL;
}

/* The service that has this address as its own, or NULL. Addresses may change, and there may be none at
 * times: then 0.0.0.0, and nothing is own. */
struct service *route_owner(const struct sock_addr *a);
static inline bool route_is_own(const struct sock_addr *a)
{
	return route_owner(a) != NULL;
}

/* The address of a service's port, and its largest packet, at present. */
void route_own(const struct service *s, uint8_t ip[4]);
uint32_t route_mtu(const struct service *s);

/* Whether a socket of a program under Pronk listens for this IPv4 address and TCP port at the service. A
 * look: it may be a moment old. */
bool route_has_listener(const struct service *s, const struct sock_addr *a);

/* The service whose port leads to this unicast address: the longest prefix of a network, or else the first
 * one that has a gateway. NULL: none, the kernel has the word. An own address of any of them is not a peer:
 * the kernel's route leads there through the device. Nothing is reached through a port while its interface is
 * down, or without an address, or when its service has died. */
struct service *route_to(const struct sock_addr *a);
/* The address would lead to a service that has died. */
bool route_is_lost(const struct sock_addr *a);
static inline bool route_is_reachable(const struct sock_addr *a)
{
	return route_to(a) != NULL;
}
