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

/* 224.0.0.0/4; the limited broadcast address or that of the port's network. */
bool route_is_multicast(const struct sock_addr *a);
bool route_is_broadcast(const struct sock_addr *a);

/* The port's own address. It may change, and there may be none at times: then 0.0.0.0, and nothing is own. */
bool route_is_own(const struct sock_addr *a);
void route_own(uint8_t ip[4]);
/* Largest packet of the port, at present. */
uint32_t route_mtu(void);

/* Whether a socket of a program under Pronk listens for this IPv4 address and TCP port. A look: it may be a
 * moment old. */
bool route_has_listener(const struct sock_addr *a);

/* Whether the port's network or its gateway leads to this unicast address. Its own address is not a peer: the
 * kernel's route leads there through the device. Nothing is reachable while the interface is down, or without
 * an address: the kernel has the word then. */
bool route_is_reachable(const struct sock_addr *a);
