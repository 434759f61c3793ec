/* local.c - what Pronk and the kernel share on this host: ports, and connections to loopback addresses and to
 * our own.
 *
 * Runs in application threads. With loopback = pronk a listener at such an address listens on both sides, and
 * who connects goes to Pronk when somebody listens there. Ports that are bound through the kernel may be
 * taken here all the same.
 */
#include "local.h"
#include "sock.h"
#include "clock.h"
#include "libc.h"
#include "opt.h"
#include "proc.h"
#include "route.h"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>

bool local_port_is_taken(struct file *f, int fd, const struct sock_addr *a)
{
	struct call c = {.op = CALL_BIND, .endpoint = ENDPOINT_NONE, .local = *a};
	struct sockaddr_storage ss;
	struct sock_addr now;
	socklen_t len = sizeof(int);
	bool is_taken = false;
	int v = 0;

	if (!a->port || !proc_is_attached() || proc_is_dead() || (!route_is_any(a) && !proc.local))
		return false;
	if (f->domain == AF_INET6 && (libc.getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v, &len) || v))
		return false;
	len = sizeof(v);
	if (!libc.getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &v, &len) && v)
		c.flags |= CALL_F_REUSEADDR;
	len = sizeof(v);
	if (!libc.getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &v, &len) && v)
		c.flags |= CALL_F_REUSEPORT;
	c.local.family = AF_INET;
	for (uint32_t i = 0; i < service_count() && !is_taken; i++) {
		struct call try = c;

		if ((!route_is_any(a) && &services[i] != proc.local) || attach_is_dead(&services[i].at) ||
		        opt_device_is_other(&services[i], f, fd) || post_call_port(&services[i].at, 0, &try))
			continue;
		if (!try.result)
			sock_ep_release(handle_make(&services[i], try.endpoint), 0);
		is_taken = try.result == -EADDRINUSE;
	}
	if (!is_taken)
		return false;
	len = sizeof(ss); /* a second bind is another error */
	return !libc.getsockname(fd, (struct sockaddr *)&ss, &len) &&
	       !addr_from_user(&now, (struct sockaddr *)&ss, len) && !now.port;
}

enum { SETTLE_TURNS = 3, SETTLE_SPINS = 256, SETTLE_MAX_NS = 20000000 };

/* Whether the kernel has this address, too: then it may have a listener there. */
static bool kernel_has(const struct sock_addr *a)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	int fd = libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool has;

	if (fd < 0)
		return true;
	memcpy(&in.sin_addr, a->ip, 4);
	has = libc.bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0;
	libc.close(fd);
	return has;
}

bool local_connect(struct file *f, int fd, struct sock_addr *to)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct sock_addr from;

	if (to->family != AF_INET || !proc_serves_loopback()) {
		proc_fallback_add(fd, f->domain, f->type, "the peer is on the loopback interface");
		return false;
	}
	if (libc.getsockname(fd, (struct sockaddr *)&ss, &len) ||
	        addr_from_user(&from, (struct sockaddr *)&ss, len))
		memset(&from, 0, sizeof(from));
	if (!from.port || from.family != AF_INET)
		memset(&from.ip, 0, sizeof(from.ip));
	if (!route_is_any(&from) && !route_is_loopback(&from) && route_owner(&from) != proc.local) {
		proc_fallback_add(fd, f->domain, f->type, "bound to an address of the kernel");
		return false;
	}
	if (route_is_any(to)) /* ip(7): this host */
		memcpy(to->ip, route_is_any(&from) ? (uint8_t[]){127, 0, 0, 1} : from.ip, 4);
	if (!route_has_listener(proc.local, to) && (!route_is_own(to) || kernel_has(to))) {
		proc_fallback_add(
		        fd, f->domain, f->type, "no program under Pronk listens at that local address");
		return false;
	}
	return true;
}

/* A stack asleep without a request has done everything. Awake, a request takes one turn, the packet it sends
 * comes in with the next, and the present one may be past all that. */
static void stack_settle(struct attach *at, uint32_t stack, uint64_t deadline)
{
	const struct arena *a = &at->arena;
	const struct stack_shared *s = &a->stacks[stack];
	uint32_t start = atomic_load_explicit(&s->turn, memory_order_acquire);
	uint32_t words = (a->client_count + 63) / 64;

	for (uint32_t n = 0;; n++) {
		bool is_asleep = atomic_load(&s->is_idle) && atomic_load(&s->sleeping);

		for (uint32_t w = 0; is_asleep && w < words; w++)
			is_asleep = !atomic_load(&s->pending[w]);
		if (is_asleep || atomic_load_explicit(&s->turn, memory_order_acquire) - start >= SETTLE_TURNS)
			return;
		if (n % SETTLE_SPINS == SETTLE_SPINS - 1) {
			if (clock_now_ns() >= deadline || attach_is_dead(at))
				return;
			sched_yield(); /* it may want this very core */
		}
		attach_relax(at);
	}
}

bool local_settle(const struct endpoint *ep)
{
	struct attach *at;
	uint64_t deadline;

	if (likely(!proc.local) || attach_is_dead(&proc.local->at))
		return false;
	at = &proc.local->at;
	if (ep && atomic_load(&ep->state) != EP_LISTEN && ep->kind != SOCK_DGRAM &&
	        !route_is_loopback(&ep->remote) && !route_is_own(&ep->remote))
		return false;
	deadline = clock_now_ns() + SETTLE_MAX_NS;
	/* between two stacks there is one more hand-over: whoever got something last is asked again */
	for (uint32_t pass = 0; pass < (at->arena.stack_count > 1 ? 2u : 1u); pass++)
		for (uint32_t i = 0; i < at->arena.stack_count; i++)
			stack_settle(at, i, deadline);
	/* also when all were asleep: they may have fallen asleep after the caller looked */
	return true;
}
