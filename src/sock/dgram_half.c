/* dgram_half.c - Pronk's half of a datagram socket: its endpoints, one at each service that it needs.
 *
 * Runs in application threads; endpoints come, move and go under the file's lock. A socket that is bound to
 * the wildcard address has one port at all services; an autobound one begins with the service that its first
 * datagram needs. f->ep is the one that has the peer, if there is one, and the first to be asked about
 * anything; the others are in f->also. What the socket is with regard to the kernel is dgram.c's business.
 */
#include "clock.h"
#include "dgram_int.h"
#include "epoll_set.h"
#include "log.h"
#include "opt.h"
#include "route.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

enum { CLOSE_WAIT_NS = 20000000 };

/* An address that nothing comes from: an endpoint that is connected to it is deaf. */
static const struct sock_addr nowhere = {.family = AF_INET, .ip = {255, 255, 255, 255}};

static bool is_limited_broadcast(const struct sock_addr *a)
{
	return !memcmp(a->ip, nowhere.ip, 4);
}

/* --- which service --- */

unsigned int dgram_ifindex(const struct service *s)
{
	static _Atomic unsigned int index[SERVICE_MAX];
	const char *name = strchr(s->at.arena.hdr->device, ':');
	unsigned int i = atomic_load(&index[s - services]);

	if (i || !name || !strncmp(s->at.arena.hdr->device, "memif", 5))
		return i;
	i = if_nametoindex(name + 1);
	atomic_store(&index[s - services], i);
	return i;
}

bool dgram_attach(const struct sock_addr *to)
{
	if (to->family != AF_INET)
		return false;
	if (route_is_loopback(to) || route_is_any(to))
		return proc_serves_loopback();
	return proc_attach() && !proc_is_dead();
}

static bool is_of_this_host(const struct sock_addr *to)
{
	return route_is_loopback(to) || route_is_any(to) || (proc.local && route_owner(to) == proc.local);
}

bool half_is_one(const struct file *f)
{
	const struct sock_addr *a = &ep_of(f)->local;

	return f->dg->is_specific && !route_is_multicast(a) && !is_limited_broadcast(a);
}

struct service *dgram_service(const struct file *f, const struct sock_addr *to)
{
	struct service *s = NULL;

	if (likely(service_count() < 2))
		return &services[0];
	if (sock_is_ours(f) && half_is_one(f))
		return handle_service(atomic_load(&f->ep));
	if (is_of_this_host(to))
		s = proc.local;
	else if (is_limited_broadcast(to))
		s = service_first();
	else if (route_is_broadcast(to))
		s = route_broadcaster(to);
	else if (route_is_multicast(to))
		s = f->dg->mcast_service ? f->dg->mcast_service : service_first();
	else
		s = route_to(to);
	if (!s && sock_is_ours(f))
		s = handle_service(atomic_load(&f->ep));
	if (!s)
		s = service_first();
	return s ? s : &services[0];
}

/* Whether a service's port leads to an address, as route_to asks it of all of them. */
static bool is_reached_by(const struct service *s, const struct sock_addr *to)
{
	struct arena_net n = arena_net(s->at.arena.hdr);
	uint32_t ip;

	memcpy(&ip, to->ip, 4);
	return route_is_reachable(to) && n.is_usable &&
	       (n.has_gateway || (n.prefix && !((ip ^ n.address) & htonl(~0u << (32 - n.prefix)))));
}

bool dgram_is_pronk(const struct file *f, const struct sock_addr *to)
{
	if (to->family != AF_INET)
		return false;
	if (route_is_multicast(to))
		return !f->dg->mcast_kernel;
	if (route_is_broadcast(to))
		return true;
	if (is_of_this_host(to))
		return proc.local && (atomic_load_explicit(&proc.local->at.arena.hdr->udp_used[to->port / 32],
		                              memory_order_relaxed) >>
		                                     (to->port % 32) &
		                             1);
	/* with the address of one of several it leaves there or not at all */
	if (unlikely(service_count() > 1) && sock_is_ours(f) && half_is_one(f))
		return is_reached_by(handle_service(atomic_load(&f->ep)), to);
	return route_is_reachable(to);
}

uint32_t dgram_mtu(const struct file *f, const struct sock_addr *to)
{
	/* the kernel's loopback interface has 65,536, and says IP_MAX_MTU */
	return route_is_loopback(to) || route_is_own(to) ? 65535 : route_mtu(dgram_service(f, to));
}

/* --- one endpoint --- */

static uint32_t next_stack(const struct service *s)
{
	const struct arena *a = &s->at.arena;

	return atomic_fetch_add_explicit(&a->hdr->next_stack, 1, memory_order_relaxed) % a->stack_count;
}

/* An endpoint bound to a; its port is filled in. */
static int bind_at(struct service *s, struct file *f, struct sock_addr *a, uint32_t *handle)
{
	struct call c = {.op = CALL_BIND,
	        .endpoint = ENDPOINT_NONE,
	        .local = *a,
	        .opt = SOCK_DGRAM,
	        .rcvbuf = (uint32_t)f->dg->rcvbuf,
	        .flags = (f->dg->reuseaddr ? CALL_F_REUSEADDR : 0u) |
	                 (f->dg->reuseport ? CALL_F_REUSEPORT : 0u) |
	                 (f->domain == AF_INET6 ? CALL_F_SIX : 0u)};
	struct endpoint *ep;
	int rc;

	c.local.family = AF_INET;
	atomic_store(&c.opts.v[EPO_RCVBUF], f->dg->rcvbuf);
	atomic_store(&c.opts.v[EPO_SNDBUF], f->dg->sndbuf);
	atomic_store(&c.opts.flag, 1ull << EPF_RCVBUF_SET | 1ull << EPF_SNDBUF_SET);
	rc = post_call_port(&s->at, next_stack(s), &c);
	if (rc || (rc = c.result))
		return rc;
	a->port = c.local.port;
	*handle = handle_make(s, c.endpoint);
	ep = handle_ep(*handle);
	atomic_store_explicit(&ep->tx_limit, (uint32_t)f->dg->sndbuf, memory_order_relaxed);
	atomic_store_explicit(&ep->app_fd, f->fd, memory_order_relaxed);
	/* shutdown(2) was of the socket, not of this port */
	atomic_fetch_or(&ep->app_flags, f->dg->shut);
	return 0;
}

/* An endpoint on its way back to its stack. */
struct leaving {
	uint32_t handle, gen;
};

static struct leaving release(uint32_t handle)
{
	struct leaving l = {handle, handle_ep(handle)->gen};

	sock_ep_release(handle, 0);
	return l;
}

/* Waits, shortly, until the stack has taken it back: the port is free when close has returned. */
static void release_wait(const struct leaving *l, uint64_t deadline)
{
	struct endpoint *ep = handle_ep(l->handle);

	while (!handle_is_dead(l->handle) && !handle_is_shared(l->handle) &&
	        atomic_load(&ep->state) == EP_DGRAM && *(volatile uint32_t *)&ep->gen == l->gen &&
	        clock_now_ns() < deadline)
		attach_relax(handle_at(l->handle));
	attach_settle(handle_at(l->handle), ep->stack_idx);
}

static int connect_at(uint32_t handle, const struct sock_addr *to)
{
	struct call c = {.op = CALL_CONNECT, .endpoint = handle_index(handle), .remote = *to};
	int rc;

	if (to->family == AF_INET6) /* a peer that only the kernel reaches */
		c.remote = nowhere;
	rc = post_call(handle_at(handle), handle_ep(handle)->stack_idx, &c);
	return rc ? rc : c.result;
}

/* --- all of them --- */

int half_bind(struct service *s, struct file *f, struct sock_addr *a)
{
	uint32_t handle;
	int rc = bind_at(s, f, a, &handle);

	if (rc)
		return rc;
	atomic_store(&f->ep, handle);
	sock_set_nonblocking(f, atomic_load(&f->is_nonblocking));
	return 0;
}

int half_bind_others(struct file *f)
{
	struct sock_addr a = handle_ep(atomic_load(&f->ep))->local;
	struct service *own = handle_service(atomic_load(&f->ep));
	int rc = 0;

	for (uint32_t i = 0; i < service_count() && !rc; i++) {
		uint32_t handle;

		if (&services[i] == own || attach_is_dead(&services[i].at))
			continue;
		rc = file_also_take(f) ? bind_at(&services[i], f, &a, &handle) : -ENOBUFS;
		if (!rc)
			atomic_store(&f->also->ep[i], handle);
		else if (attach_is_dead(&services[i].at))
			rc = 0;
	}
	return rc;
}

void half_release(struct file *f)
{
	uint64_t deadline = clock_now_ns() + CLOSE_WAIT_NS;
	struct leaving leaving[1 + SERVICE_MAX];
	uint32_t count = 0;

	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t handle = atomic_exchange(i ? &f->also->ep[i - 1] : &f->ep, ENDPOINT_NONE);

		if (handle != ENDPOINT_NONE)
			leaving[count++] = release(handle);
	}
	for (uint32_t i = 0; i < count; i++)
		release_wait(&leaving[i], deadline);
	/* the next endpoint has to join them anew */
	for (struct dgram_group *g = f->dg->groups; g; g = g->next)
		g->is_told = false;
}

/* The endpoints that have not the peer. */
static void others_connect(struct file *f, const struct sock_addr *to)
{
	for (uint32_t i = 1; i < file_ep_count(f); i++) {
		uint32_t handle = file_ep(f, i);
		int rc = handle == ENDPOINT_NONE || handle_is_dead(handle) ? 0 : connect_at(handle, to);

		if (rc)
			log_debug("fd %d: at %s: %s", f->fd, handle_service(handle)->socket_path,
			        strerror(-rc));
	}
}

void dgram_nudge(const struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t handle = file_ep(f, i);

		if (handle != ENDPOINT_NONE && !handle_is_dead(handle))
			handle_post(handle, POST_NUDGE, 0);
	}
}

bool dgram_is_cut(const struct file *f)
{
	uint32_t own = atomic_load_explicit(&f->ep, memory_order_acquire);

	return own != ENDPOINT_NONE && handle_is_dead(own) && f->type == SOCK_DGRAM &&
	       handle_ep(own)->remote.family;
}

int dgram_at(struct file *f, struct service *s, uint32_t *handle)
{
	uint32_t own = atomic_load(&f->ep), i = (uint32_t)(s - services), new;
	struct sock_addr a = handle_ep(own)->local;
	int rc;

	*handle = own;
	if (own == ENDPOINT_NONE || s == handle_service(own))
		return 0;
	if (f->also && (*handle = atomic_load(&f->also->ep[i])) != ENDPOINT_NONE)
		return 0;
	if (half_is_one(f) || attach_is_dead(&s->at))
		return -ENETUNREACH;
	if (!file_also_take(f))
		return -ENOBUFS;
	if (!f->dg->is_specific) /* it has a service's address while it is connected */
		memset(a.ip, 0, sizeof(a.ip));
	rc = bind_at(s, f, &a, &new);
	if (rc == -EADDRINUSE && f->dg->is_auto) {
		/* nobody asked for that very port: it has another one there, as its kernel half may */
		a.port = 0;
		rc = bind_at(s, f, &a, &new);
	}
	if (rc) {
		log_debug("fd %d: port %u at %s: %s", f->fd, a.port, s->socket_path, strerror(-rc));
		return rc == -ECONNRESET ? -ENETDOWN : rc;
	}
	if (handle_ep(own)->remote.family) /* it hears from its peer alone */
		connect_at(new, &nowhere);
	atomic_store(&f->also->ep[i], new);
	epoll_file_changed(f);
	dgram_nudge(f);
	*handle = new;
	return 0;
}

int dgram_way(struct file *f, const struct sock_addr *from, const struct sock_addr *to, uint32_t *handle)
{
	uint32_t own = atomic_load_explicit(&f->ep, memory_order_acquire);
	struct service *s = NULL;
	int rc;

	*handle = own;
	if (likely(service_count() < 2) || own == ENDPOINT_NONE || half_is_one(f))
		return 0;
	if (from->family)
		s = route_owner(from);
	else if (!memcmp(to, &handle_ep(own)->remote, sizeof(*to))) /* the peer's is the first */
		return 0;
	if (!s)
		s = dgram_service(f, to);
	if (s == handle_service(own))
		return 0;
	if (f->also)
		*handle = atomic_load_explicit(&f->also->ep[s - services], memory_order_acquire);
	if (f->also && *handle != ENDPOINT_NONE)
		return 0;
	spin_lock(&f->lock);
	rc = dgram_at(f, s, handle);
	spin_unlock(&f->lock);
	return rc;
}

/* Another one of its endpoints becomes the first; which one that was. */
static uint32_t first_change(struct file *f, uint32_t handle)
{
	uint32_t own = atomic_load(&f->ep);
	bool is_nonblocking = sock_is_nonblocking(f);
	int error = atomic_exchange(&handle_ep(own)->error, 0);

	atomic_store(&f->also->ep[handle_service(own) - services], own);
	atomic_store(&f->ep, handle);
	atomic_store(&f->also->ep[handle_service(handle) - services], ENDPOINT_NONE);
	sock_set_nonblocking(f, is_nonblocking);
	if (error) /* connect(2) does not take it away */
		atomic_store(&handle_ep(handle)->error, error);
	/* whoever has looked meanwhile may have seen one of them twice and the other not at all */
	epoll_file_poke(f);
	dgram_nudge(f);
	return own;
}

/* The endpoint at the service that leads to the peer becomes the first. *old: which one was, if another. */
static int turn_to(struct file *f, const struct sock_addr *to, uint32_t *old)
{
	uint32_t handle;
	int rc;

	if (likely(service_count() < 2) || half_is_one(f))
		return 0;
	rc = dgram_at(f, dgram_service(f, to), &handle);
	if (!rc && handle != atomic_load(&f->ep))
		*old = first_change(f, handle);
	return rc;
}

/* The first one's service may have died: one that lives comes in its place. */
static void turn_to_living(struct file *f)
{
	if (likely(!f->also) || !handle_is_dead(atomic_load(&f->ep)))
		return;
	for (uint32_t i = 1; i < file_ep_count(f); i++) {
		uint32_t handle = file_ep(f, i);

		if (handle != ENDPOINT_NONE && !handle_is_dead(handle)) {
			first_change(f, handle);
			return;
		}
	}
}

/* One whose service has died can still be let go of its peer: nobody else writes there any more. */
static int first_connect(struct file *f, const struct sock_addr *to)
{
	uint32_t own = atomic_load(&f->ep);

	if (likely(!handle_is_dead(own)) || (to->family && to != &nowhere))
		return connect_at(own, to);
	memset(&handle_ep(own)->remote, 0, sizeof(handle_ep(own)->remote));
	return 0;
}

int half_connect(struct file *f, const struct sock_addr *to)
{
	static const struct sock_addr none;
	uint32_t old = ENDPOINT_NONE;
	int rc = 0;

	if (to->family == AF_INET && to != &nowhere && dgram_is_pronk(f, to))
		rc = turn_to(f, to, &old);
	else
		turn_to_living(f);
	if (!rc)
		rc = first_connect(f, to);
	if (!rc)
		others_connect(f, to->family ? &nowhere : &none);
	else if (old != ENDPOINT_NONE)
		first_change(f, old);
	return rc;
}

int half_deafen(struct file *f)
{
	return half_connect(f, &nowhere);
}
