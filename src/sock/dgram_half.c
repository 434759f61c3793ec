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

struct service *dgram_service(const struct file *f, const struct sock_addr *to)
{
	struct service *s = NULL;

	if (is_of_this_host(to))
		s = proc.local;
	else if (route_is_broadcast(to))
		s = route_broadcaster(to);
	else if (!route_is_multicast(to))
		s = route_to(to);
	if (!s && sock_is_ours(f))
		s = handle_service(atomic_load(&f->ep));
	if (!s)
		s = service_first();
	return s ? s : &services[0];
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

/* Waits, shortly, until the stack has taken the endpoint back: the port is free when close has returned. */
static void release(uint32_t handle)
{
	struct endpoint *ep = handle_ep(handle);
	uint32_t gen = ep->gen;
	uint64_t deadline = clock_now_ns() + CLOSE_WAIT_NS;

	sock_ep_release(handle, 0);
	while (!handle_is_dead(handle) && !handle_is_shared(handle) && atomic_load(&ep->state) == EP_DGRAM &&
	        *(volatile uint32_t *)&ep->gen == gen && clock_now_ns() < deadline)
		attach_relax(handle_at(handle));
	attach_settle(handle_at(handle), ep->stack_idx);
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

static void release_others(struct file *f)
{
	for (uint32_t i = 1; i < file_ep_count(f); i++) {
		uint32_t handle = atomic_exchange(&f->also->ep[i - 1], ENDPOINT_NONE);

		if (handle != ENDPOINT_NONE)
			release(handle);
	}
}

void half_release(struct file *f)
{
	uint32_t handle = atomic_exchange(&f->ep, ENDPOINT_NONE);

	if (handle == ENDPOINT_NONE)
		return;
	release(handle);
	release_others(f);
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

uint32_t dgram_at(struct file *f, struct service *s)
{
	uint32_t own = atomic_load(&f->ep), handle, i = (uint32_t)(s - services);
	struct sock_addr a = {.family = AF_INET, .port = handle_ep(own)->local.port};
	int rc;

	if (s == handle_service(own) || own == ENDPOINT_NONE)
		return own;
	if (f->also && atomic_load(&f->also->ep[i]) != ENDPOINT_NONE)
		return atomic_load(&f->also->ep[i]);
	if (f->dg->is_specific || attach_is_dead(&s->at) || !file_also_take(f))
		return ENDPOINT_NONE;
	rc = bind_at(s, f, &a, &handle);
	if (rc) {
		log_debug("fd %d: port %u at %s: %s", f->fd, a.port, s->socket_path, strerror(-rc));
		return ENDPOINT_NONE;
	}
	if (handle_ep(own)->remote.family) /* it hears from its peer alone */
		connect_at(handle, &nowhere);
	atomic_store(&f->also->ep[i], handle);
	epoll_file_changed(f);
	/* threads that sleep for the others look again */
	if (!handle_is_dead(own))
		handle_post(own, POST_NUDGE, 0);
	return handle;
}

uint32_t dgram_way(struct file *f, const struct sock_addr *from, const struct sock_addr *to)
{
	uint32_t own = atomic_load_explicit(&f->ep, memory_order_acquire), handle = ENDPOINT_NONE;
	struct service *s = NULL;

	if (likely(service_count() < 2) || own == ENDPOINT_NONE || f->dg->is_specific)
		return own;
	if (from->family)
		s = route_owner(from);
	if (!s)
		s = dgram_service(f, to);
	if (s == handle_service(own))
		return own;
	if (f->also)
		handle = atomic_load_explicit(&f->also->ep[s - services], memory_order_acquire);
	if (handle == ENDPOINT_NONE) {
		spin_lock(&f->lock);
		handle = dgram_at(f, s);
		spin_unlock(&f->lock);
	}
	return handle == ENDPOINT_NONE ? own : handle;
}

/* The endpoint at the service that leads to the peer becomes the first. */
static void turn_to(struct file *f, const struct sock_addr *to)
{
	uint32_t own = atomic_load(&f->ep), handle;

	if (likely(service_count() < 2) || f->dg->is_specific)
		return;
	handle = dgram_at(f, dgram_service(f, to));
	if (handle == own || handle == ENDPOINT_NONE)
		return;
	atomic_store(&f->also->ep[handle_service(own) - services], own);
	atomic_store(&f->ep, handle);
	atomic_store(&f->also->ep[handle_service(handle) - services], ENDPOINT_NONE);
	sock_set_nonblocking(f, atomic_load(&f->is_nonblocking));
}

int half_connect(struct file *f, const struct sock_addr *to)
{
	static const struct sock_addr none;
	int rc;

	if (to->family == AF_INET && to != &nowhere && dgram_is_pronk(f, to))
		turn_to(f, to);
	rc = connect_at(atomic_load(&f->ep), to);
	if (!rc)
		others_connect(f, to->family ? &nowhere : &none);
	return rc;
}

int half_deafen(struct file *f)
{
	return half_connect(f, &nowhere);
}
