/* port.c - local TCP ports: who holds which. Stack 0's thread only; others read the bitmap in the arena's
 * header, or post.
 *
 * A port is counted: one reference for each bound endpoint, listener and connection that was bound before it
 * connected. Conflicts follow bind(2) and ip(7): SO_REUSEADDR allows sharing with anything but a listener,
 * SO_REUSEPORT with holders that set it too.
 */
#include "stack_int.h"

#include <errno.h>

bool port_is_used(const struct stack *s, uint16_t port)
{
	return atomic_load_explicit(&s->arena->hdr->port_used[port / 32], memory_order_relaxed) >>
	               (port % 32) &
	       1;
}

static void take(struct stack *s, uint16_t port, uint32_t flags)
{
	uint8_t keep = s->port_flags[port] & (PORT_REUSEADDR | PORT_REUSEPORT | PORT_LISTEN);
	uint8_t mine = (uint8_t)((flags & CALL_F_REUSEADDR ? PORT_REUSEADDR : 0) |
	                         (flags & CALL_F_REUSEPORT ? PORT_REUSEPORT : 0));

	s->port_flags[port] = s->port_refs[port] ? (keep & (mine | PORT_LISTEN)) : mine;
	s->port_refs[port]++;
	atomic_fetch_or_explicit(
	        &s->arena->hdr->port_used[port / 32], 1u << (port % 32), memory_order_relaxed);
}

/* Connections on the port that outlived their listener, on any stack; TIME_WAIT counts. A look without order:
 * it may be a moment old. */
static bool has_connections(const struct stack *s, uint16_t port)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (atomic_load_explicit(&s->peers[i]->port_conns[port], memory_order_relaxed))
			return true;
	return false;
}

int port_bind(struct stack *s, uint16_t *port, uint32_t flags)
{
	uint32_t range = PORT_LAST - PORT_FIRST + 1, start;
	uint16_t p = *port;

	if (p) {
		uint8_t f = s->port_flags[p];
		bool may_share = ((flags & CALL_F_REUSEADDR) && (f & PORT_REUSEADDR) && !(f & PORT_LISTEN)) ||
		                 ((flags & CALL_F_REUSEPORT) && (f & PORT_REUSEPORT));

		if (s->port_refs[p] == UINT16_MAX || (s->port_refs[p] && !may_share))
			return -EADDRINUSE;
		if (!(flags & (CALL_F_REUSEADDR | CALL_F_REUSEPORT)) && has_connections(s, p))
			return -EADDRINUSE;
		take(s, p, flags);
		return 0;
	}
	start = stack_rand() % range;
	for (uint32_t i = 0; i < range; i++) {
		p = (uint16_t)(PORT_FIRST + (start + i) % range);
		if (s->port_refs[p])
			continue;
		take(s, p, flags);
		*port = p;
		return 0;
	}
	return -EADDRINUSE;
}

int port_listen(struct stack *s, uint16_t port, uint32_t flags)
{
	uint8_t f = s->port_flags[port];

	if ((f & PORT_LISTEN) && !((flags & CALL_F_REUSEPORT) && (f & PORT_REUSEPORT)))
		return -EADDRINUSE;
	s->port_flags[port] |= PORT_LISTEN;
	s->port_listens[port]++;
	return 0;
}

void port_unlisten(struct stack *s, uint16_t port)
{
	if (s->port_listens[port] && --s->port_listens[port] == 0)
		s->port_flags[port] &= (uint8_t)~PORT_LISTEN;
}

void port_unref(struct stack *s, uint16_t port)
{
	if (!s->port_refs[port])
		return;
	if (--s->port_refs[port])
		return;
	s->port_flags[port] = 0;
	atomic_fetch_and_explicit(
	        &s->arena->hdr->port_used[port / 32], ~(1u << (port % 32)), memory_order_relaxed);
}
