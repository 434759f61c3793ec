/* port.c - local TCP ports: who holds which at which address. Stack 0's thread only; others read the bitmaps
 * in the arena's header, or post.
 *
 * A port has a list of addresses, each counted: one reference for each bound endpoint, listener and
 * connection that was bound before it connected. Conflicts follow bind(2) and ip(7): different addresses
 * never conflict, the wildcard does with all; SO_REUSEADDR allows sharing with anything but a listener,
 * SO_REUSEPORT with holders that set it too.
 */
#include "stack_int.h"

#include <errno.h>
#include <stdlib.h>

enum { PORT_REUSEPORT = 2, PORT_REUSEADDR = 4 };

/* The holders of one port at one address. */
struct port_hold {
	struct port_hold *next;
	uint32_t ip; /* network order; 0: the wildcard */
	uint16_t refs, listens;
	uint8_t flags; /* PORT_*: what all of them have set */
	uint32_t uid;  /* of the first: who shares by SO_REUSEPORT must be the same user */
};

bool port_is_used(const struct stack *s, uint16_t port)
{
	return atomic_load_explicit(&s->arena->hdr->port_used[port / 32], memory_order_relaxed) >>
	               (port % 32) &
	       1;
}

static void bitmap_set(_Atomic uint32_t *map, uint16_t port, bool on)
{
	if (on)
		atomic_fetch_or_explicit(&map[port / 32], 1u << (port % 32), memory_order_relaxed);
	else
		atomic_fetch_and_explicit(&map[port / 32], ~(1u << (port % 32)), memory_order_relaxed);
}

static struct port_hold *find(const struct stack *s, uint32_t ip, uint16_t port)
{
	struct port_hold *h = s->ports[port];

	while (h && h->ip != ip)
		h = h->next;
	return h;
}

/* Whether a holder's address is also meant by ip. */
static bool overlaps(const struct port_hold *h, uint32_t ip)
{
	return h->ip == ip || !h->ip || !ip;
}

static uint8_t port_flags(uint32_t flags)
{
	return (uint8_t)((flags & CALL_F_REUSEADDR ? PORT_REUSEADDR : 0) |
	                 (flags & CALL_F_REUSEPORT ? PORT_REUSEPORT : 0));
}

static int take(struct stack *s, uint32_t ip, uint16_t port, uint32_t flags, uint32_t uid)
{
	struct port_hold *h = find(s, ip, port);

	if (!h) {
		h = calloc(1, sizeof(*h));
		if (!h)
			return -ENOMEM;
		h->ip = ip;
		h->uid = uid;
		h->flags = port_flags(flags);
		h->next = s->ports[port];
		s->ports[port] = h;
	}
	if (h->refs == UINT16_MAX)
		return -EADDRINUSE;
	h->flags &= port_flags(flags);
	h->refs++;
	bitmap_set(s->arena->hdr->port_used, port, true);
	return 0;
}

/* Connections on the port that outlived their listener, on any stack; TIME_WAIT counts. A look without order:
 * it may be a moment old. */
static bool has_connections(const struct stack *s, uint32_t ip, uint16_t port)
{
	for (uint32_t i = 0; i < s->count; i++) {
		const _Atomic uint32_t *n = s->peers[i]->port_conns;

		if ((!ip || !ip4_is_loopback(ip)) && atomic_load_explicit(&n[port], memory_order_relaxed))
			return true;
		if ((!ip || ip4_is_loopback(ip)) &&
		        atomic_load_explicit(&n[PORT_COUNT + port], memory_order_relaxed))
			return true;
	}
	return false;
}

int port_bind(struct stack *s, uint32_t ip, uint16_t *port, uint32_t flags, uint32_t uid)
{
	uint32_t range = PORT_LAST - PORT_FIRST + 1, start;
	uint8_t mine = port_flags(flags);
	uint16_t p = *port;
	int rc;

	if (p) {
		/* where the kernel bound before somebody else listened, that is no obstacle: port_listen has
		 * a look of its own */
		for (const struct port_hold *h = s->ports[p]; h; h = h->next) {
			if (!overlaps(h, ip) || ((mine & h->flags & PORT_REUSEPORT) && h->uid == uid) ||
			        ((mine & h->flags & PORT_REUSEADDR) &&
			                (!h->listens || flags & CALL_F_KERNEL_BOUND)))
				continue;
			return -EADDRINUSE;
		}
		if (!mine && !(flags & CALL_F_KERNEL_BOUND) && has_connections(s, ip, p))
			return -EADDRINUSE;
		return take(s, ip, p, flags, uid);
	}
	start = stack_rand() % range;
	for (uint32_t i = 0; i < range; i++) {
		p = (uint16_t)(PORT_FIRST + (start + i) % range);
		if (s->ports[p])
			continue;
		rc = take(s, ip, p, flags, uid);
		if (!rc)
			*port = p;
		return rc;
	}
	return -EADDRINUSE;
}

int port_listen(struct stack *s, uint32_t ip, uint16_t port, uint32_t flags)
{
	struct port_hold *mine = find(s, ip, port);

	if (!mine)
		return -EINVAL;
	for (const struct port_hold *h = s->ports[port]; h; h = h->next)
		if (h->listens && overlaps(h, ip) && !(port_flags(flags) & h->flags & PORT_REUSEPORT))
			return -EADDRINUSE;
	mine->listens++;
	bitmap_set(s->arena->hdr->port_listen, port, true);
	return 0;
}

void port_unlisten(struct stack *s, uint32_t ip, uint16_t port)
{
	struct port_hold *h = find(s, ip, port);

	if (!h || !h->listens || --h->listens)
		return;
	for (h = s->ports[port]; h; h = h->next)
		if (h->listens)
			return;
	bitmap_set(s->arena->hdr->port_listen, port, false);
}

void port_unref(struct stack *s, uint32_t ip, uint16_t port)
{
	for (struct port_hold **pp = &s->ports[port]; *pp; pp = &(*pp)->next) {
		struct port_hold *h = *pp;

		if (h->ip != ip)
			continue;
		if (--h->refs)
			return;
		*pp = h->next;
		free(h);
		break;
	}
	if (!s->ports[port])
		bitmap_set(s->arena->hdr->port_used, port, false);
}

void port_destroy(struct stack *s)
{
	for (uint32_t i = 0; s->ports && i < PORT_COUNT; i++) {
		while (s->ports[i]) {
			struct port_hold *h = s->ports[i];

			s->ports[i] = h->next;
			free(h);
		}
	}
	free(s->ports);
	s->ports = NULL;
}
