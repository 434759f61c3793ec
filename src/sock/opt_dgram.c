/* opt_dgram.c - options of datagram sockets.
 *
 * Runs in application threads. The kernel descriptor holds the options: it judges a value, and answers
 * getsockopt. What Pronk's half must know is read back from it (struct follow). An option that neither has an
 * effect on Pronk's half nor may be ignored is refused, as the kernel refuses an unknown one; set before the
 * socket is Pronk's, it keeps the socket with the kernel. Groups and IP_MULTICAST_IF are looked at here,
 * because the kernel may not have the port's address. socket(7), ip(7), udp(7)
 */
#include "dgram_int.h"
#include "opt.h"
#include "endpoint.h"
#include "libc.h"
#include "proc.h"
#include "route.h"
#include "rule.h"
#include "user.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifndef IP_RECVORIGDSTADDR
#define IP_RECVORIGDSTADDR 20
#endif

/* An int that is read back from the kernel half. */
struct follow {
	int level, name;
	size_t off;
};

#define OWN(m) offsetof(struct dgram, m)

static const struct follow follows[] = {
        {SOL_SOCKET, SO_REUSEADDR, OWN(reuseaddr)},
        {SOL_SOCKET, SO_REUSEPORT, OWN(reuseport)},
        {SOL_SOCKET, SO_SNDBUF, OWN(sndbuf)},
        {SOL_SOCKET, SO_RCVBUF, OWN(rcvbuf)},
        {SOL_SOCKET, SO_BROADCAST, OWN(broadcast)},
        {SOL_SOCKET, SO_NO_CHECK, OWN(no_check)},
        {SOL_SOCKET, SO_PRIORITY, OWN(priority)},
        {SOL_SOCKET, SO_TIMESTAMP, OWN(timestamp)},
        {SOL_SOCKET, SO_TIMESTAMPNS, OWN(timestampns)},
        {SOL_SOCKET, SO_RXQ_OVFL, OWN(rxq_ovfl)},
        {IPPROTO_IP, IP_TOS, OWN(tos)},
        {IPPROTO_IP, IP_TTL, OWN(ttl)},
        {IPPROTO_IP, IP_MULTICAST_TTL, OWN(mcast_ttl)},
        {IPPROTO_IP, IP_MULTICAST_LOOP, OWN(mcast_loop)},
        {IPPROTO_IP, IP_MULTICAST_ALL, OWN(mcast_all)},
        {IPPROTO_IP, IP_PKTINFO, OWN(pktinfo)},
        {IPPROTO_IP, IP_RECVTTL, OWN(recvttl)},
        {IPPROTO_IP, IP_RECVTOS, OWN(recvtos)},
        {IPPROTO_IP, IP_RECVORIGDSTADDR, OWN(origdst)},
        {IPPROTO_IP, IP_MTU_DISCOVER, OWN(mtu_discover)},
        {IPPROTO_IPV6, IPV6_RECVPKTINFO, OWN(pktinfo6)},
        {IPPROTO_UDP, UDP_CORK, OWN(cork)},
};

/* Options that mean nothing to Pronk's half, or are handled by name below; the kernel half alone is asked. */
static const struct {
	int level, name;
} plain[] = {
        {SOL_SOCKET, SO_TYPE},
        {SOL_SOCKET, SO_PROTOCOL},
        {SOL_SOCKET, SO_DOMAIN},
        {SOL_SOCKET, SO_ACCEPTCONN},
        {SOL_SOCKET, SO_DEBUG},
        {SOL_SOCKET, SO_KEEPALIVE},
        {SOL_SOCKET, SO_OOBINLINE},
        {SOL_SOCKET, SO_LINGER},
        {SOL_SOCKET, SO_RCVLOWAT},
        {SOL_SOCKET, SO_SNDLOWAT},
        {SOL_SOCKET, SO_RCVTIMEO},
        {SOL_SOCKET, SO_SNDTIMEO},
        {SOL_SOCKET, SO_SNDBUFFORCE},
        {SOL_SOCKET, SO_RCVBUFFORCE},
        {SOL_SOCKET, SO_INCOMING_CPU},
        {SOL_SOCKET, SO_BUSY_POLL},
        {SOL_SOCKET, SO_ERROR},
        {SOL_SOCKET, SO_MEMINFO},
        {SOL_SOCKET, SO_COOKIE},
        {IPPROTO_IP, IP_MTU},
        {IPPROTO_IP, IP_MULTICAST_IF},
        {IPPROTO_IP, IP_ADD_MEMBERSHIP},
        {IPPROTO_IP, IP_DROP_MEMBERSHIP},
        {IPPROTO_IP, MCAST_JOIN_GROUP},
        {IPPROTO_IP, MCAST_LEAVE_GROUP},
        {IPPROTO_IP, IP_FREEBIND},
        {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
};

static const struct follow *follow_find(int level, int name)
{
	for (size_t i = 0; i < sizeof(follows) / sizeof(follows[0]); i++)
		if (follows[i].level == level && follows[i].name == name)
			return &follows[i];
	return NULL;
}

static bool is_offered(int level, int name)
{
	if (follow_find(level, name) || level == IPPROTO_IPV6)
		return true; /* IPv6 itself is the kernel's: so are its options */
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		if (plain[i].level == level && plain[i].name == name)
			return true;
	return false;
}

static void follow_read(struct file *f, int fd, const struct follow *w)
{
	int v;
	socklen_t len = sizeof(v);

	if (w->level == IPPROTO_IPV6 && f->domain != AF_INET6)
		return;
	if (!libc.getsockopt(fd, w->level, w->name, &v, &len))
		*(int *)((char *)f->dg + w->off) = v;
}

static void timeout_read(int fd, int name, uint64_t *ns)
{
	struct timeval tv;
	socklen_t len = sizeof(tv);

	if (!libc.getsockopt(fd, SOL_SOCKET, name, &tv, &len))
		*ns = (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
}

void dgram_options_take(struct file *f, int fd)
{
	for (size_t i = 0; i < sizeof(follows) / sizeof(follows[0]); i++)
		follow_read(f, fd, &follows[i]);
	timeout_read(fd, SO_RCVTIMEO, &f->dg->rcvtimeo_ns);
	timeout_read(fd, SO_SNDTIMEO, &f->dg->sndtimeo_ns);
}

static int stack_call(uint32_t handle, struct call *c)
{
	int rc;

	if (handle_is_dead(handle))
		return 0;
	c->endpoint = handle_index(handle);
	rc = post_call(handle_at(handle), handle_ep(handle)->stack_idx, c);
	return rc ? rc : c->result;
}

/* --- groups --- */

static int group_call(struct file *f, struct service *s, const uint8_t ip[4], bool join)
{
	uint32_t handle = atomic_load(&f->ep);
	struct call c = {.op = CALL_GROUP, .value = join};

	c.remote.family = c.local.family = AF_INET;
	memcpy(c.remote.ip, ip, 4);
	route_own(s, c.local.ip);
	if (s != handle_service(handle) && dgram_at(f, s, &handle))
		return -ENODEV;
	return handle == ENDPOINT_NONE ? -ENODEV : stack_call(handle, &c);
}

void dgram_groups_tell(struct file *f)
{
	for (struct dgram_group *g = f->dg->groups; g; g = g->next)
		if (!g->is_told && !group_call(f, g->service, g->ip, true))
			g->is_told = true;
}

/* The service whose port has this number, or if that is 0 this address; may_any: without either the first. */
static struct service *port_of(int index, const struct sock_addr *local, bool may_any)
{
	if (!index && may_any && route_is_any(local))
		return service_first();
	if (!index)
		return route_owner(local);
	for (uint32_t i = 0; i < service_count(); i++)
		if ((unsigned)index == dgram_ifindex(&services[i]))
			return &services[i];
	return NULL;
}

/* Reads the group and the interface out of any of the forms; is_named: there was one. False: nothing for us.
 */
static bool group_parse(int name, const void *value, socklen_t len, struct sock_addr *group,
        struct service **port, bool *is_named)
{
	struct sock_addr local = {.family = AF_INET};
	int index = 0;

	if (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP) {
		struct group_req req;

		if (len < sizeof(req))
			return false;
		memcpy(&req, value, sizeof(req));
		index = (int)req.gr_interface;
		if (addr_from_user(group, (struct sockaddr *)&req.gr_group, sizeof(req.gr_group)))
			return false;
	} else {
		struct ip_mreqn req = {0};

		if (len < sizeof(struct ip_mreq))
			return false;
		memcpy(&req, value, len < sizeof(req) ? sizeof(struct ip_mreq) : sizeof(req));
		index = len < sizeof(req) ? 0 : req.imr_ifindex;
		memcpy(local.ip, &req.imr_address, 4);
		group->family = AF_INET;
		memcpy(group->ip, &req.imr_multiaddr, 4);
	}
	*port = port_of(index, &local, true);
	*is_named = index || !route_is_any(&local);
	return group->family == AF_INET && route_is_multicast(group);
}

static int group_set(struct file *f, int fd, int name, const void *value, socklen_t len)
{
	struct dgram *d = f->dg;
	bool is_join = name == IP_ADD_MEMBERSHIP || name == MCAST_JOIN_GROUP;
	struct service *port = NULL;
	struct sock_addr group = {0};
	struct dgram_group **pp, *g;
	bool is_named;
	int rc, err;

	if (user_is_bad(value) || rule_of_all(1 << CFG_ROLE_UDP) || !proc_attach() || proc_is_dead() ||
	        !group_parse(name, value, len, &group, &port, &is_named) || !port)
		return SOCK_LIBC;
	rc = libc.setsockopt(fd, IPPROTO_IP, name, value, len) < 0 ? -errno : 0;
	if (rc && rc != -ENODEV && rc != -EADDRNOTAVAIL && rc != -EADDRINUSE)
		return rc;
	spin_lock(&f->lock);
	for (pp = &d->groups; (g = *pp); pp = &g->next)
		if (!memcmp(g->ip, group.ip, 4) && (g->service == port || (!is_join && !is_named)))
			break;
	if (is_join && g) {
		err = -EADDRINUSE;
	} else if (is_join) {
		g = calloc(1, sizeof(*g));
		err = g ? 0 : -ENOBUFS;
		if (g && sock_is_ours(f)) {
			err = group_call(f, port, group.ip, true);
			g->is_told = !err;
		}
		if (err) {
			free(g);
		} else {
			memcpy(g->ip, group.ip, 4);
			g->service = port;
			g->next = d->groups;
			d->groups = g;
		}
	} else if (g) {
		err = g->is_told ? group_call(f, g->service, group.ip, false) : 0;
		*pp = g->next;
		free(g);
	} else {
		err = rc ? rc : 0;
	}
	spin_unlock(&f->lock);
	return err && rc ? err : err == -EADDRINUSE ? err : 0;
}

/* IP_MULTICAST_IF: an address, an ip_mreq or an ip_mreqn. */
static int mcast_if_set(struct file *f, int fd, const void *value, socklen_t len)
{
	struct ip_mreqn req = {0};
	struct sock_addr local = {.family = AF_INET};
	struct service *port;
	int rc;

	if (user_is_bad(value) || len < sizeof(req.imr_address))
		return SOCK_LIBC;
	if (len >= sizeof(req))
		memcpy(&req, value, sizeof(req));
	else
		memcpy(&req.imr_address,
		        (const char *)value +
		                (len >= sizeof(struct ip_mreq) ? offsetof(struct ip_mreq, imr_interface) : 0),
		        sizeof(req.imr_address));
	memcpy(local.ip, &req.imr_address, 4);
	port = port_of(req.imr_ifindex, &local, false);
	rc = libc.setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, value, len) < 0 ? -errno : 0;
	if (rc && !(port && (rc == -EADDRNOTAVAIL || rc == -ENODEV)))
		return rc;
	f->dg->mcast_service = port;
	f->dg->mcast_kernel = !port && (req.imr_ifindex || !route_is_any(&local));
	memcpy(&f->dg->mcast_if, local.ip, 4);
	return 0;
}

/* --- get and set --- */

static int give(void *value, socklen_t *len, const void *from, socklen_t size)
{
	if (*len > size)
		*len = size;
	memcpy(value, from, *len);
	return 0;
}

static int meminfo_get(struct file *f, void *value, socklen_t *len)
{
	uint32_t m[SK_MEMINFO_VARS] = {
	        [SK_MEMINFO_RCVBUF] = (uint32_t)f->dg->rcvbuf,
	        [SK_MEMINFO_WMEM_ALLOC] = tx_used(f),
	        [SK_MEMINFO_SNDBUF] = (uint32_t)f->dg->sndbuf,
	};

	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		struct endpoint *ep = handle_ep(file_ep(f, i));

		m[SK_MEMINFO_RMEM_ALLOC] += ep_rx_pending(ep);
		m[SK_MEMINFO_DROPS] += atomic_load(&ep->info_drops);
	}
	return give(value, len, m, sizeof(m));
}

int dgram_getopt(struct file *f, int fd, int level, int name, void *value, socklen_t *len)
{
	struct endpoint *ep;
	int v;

	(void)fd;
	if (!sock_is_ours(f))
		return SOCK_LIBC;
	if (!is_offered(level, name))
		return level == SOL_SOCKET || level == IPPROTO_IP || level == IPPROTO_UDP ? -ENOPROTOOPT
		                                                                          : SOCK_LIBC;
	if (user_is_bad(value) || user_is_bad(len) || (int)*len < 0)
		return SOCK_LIBC; /* the kernel's words */
	ep = ep_of(f);
	if (level == SOL_SOCKET && name == SO_ERROR) {
		v = sock_is_dead(f) ? 0 : -errors_take(f);
		return v ? give(value, len, &v, sizeof(v)) : SOCK_LIBC;
	}
	if (level == SOL_SOCKET && name == SO_MEMINFO)
		return meminfo_get(f, value, len);
	if (level == IPPROTO_IP && name == IP_MTU && !f->dg->kernel_peer) {
		v = (int)dgram_mtu(f, &ep->remote);
		return dgram_is_connected(f) ? give(value, len, &v, sizeof(v)) : -ENOTCONN;
	}
	if (level == IPPROTO_IP && name == IP_MULTICAST_IF)
		return give(value, len, &f->dg->mcast_if, sizeof(f->dg->mcast_if));
	return SOCK_LIBC;
}

/* True for a value that turns an option off. */
static bool is_zero(const void *value, socklen_t len)
{
	static const char none[sizeof(int)];

	return value && len <= sizeof(none) && !memcmp(value, none, len);
}

/* What Pronk's half does with a new value of the kernel half. */
static int follow_apply(struct file *f, int fd, int level, int name)
{
	if (level == IPPROTO_UDP && name == UDP_CORK && !f->dg->cork)
		dgram_uncork(f, fd); /* the call never fails for what is sent: udp_lib_setsockopt */
	if (!sock_is_ours(f))
		return 0;
	if (level == SOL_SOCKET && name == SO_SNDBUF)
		for (uint32_t i = 0; i < file_ep_count(f); i++)
			if (handle_ep(file_ep(f, i)) != &service_no_ep)
				atomic_store(&handle_ep(file_ep(f, i))->tx_limit, (uint32_t)f->dg->sndbuf);
	if (level == SOL_SOCKET && name == SO_RCVBUF) {
		opt_int_set(f, EPO_RCVBUF, f->dg->rcvbuf);
		opt_flag_set(f, EPF_RCVBUF_SET, true);
		opt_tell(f);
		for (uint32_t i = 1; i < file_ep_count(f); i++) {
			uint32_t handle = file_ep(f, i);

			if (handle == ENDPOINT_NONE || handle_is_dead(handle))
				continue;
			ep_opts_copy(&handle_ep(handle)->opts, opt_of(f));
			handle_post(handle, POST_OPTIONS, 0);
		}
	}
	return 0;
}

int dgram_setopt(struct file *f, int fd, int level, int name, const void *value, socklen_t len)
{
	const struct follow *w;

	if (atomic_load(&f->mode) == MODE_KERNEL)
		return SOCK_LIBC;
	if (!is_offered(level, name)) {
		if (sock_is_ours(f))
			return level == SOL_SOCKET || level == IPPROTO_IP || level == IPPROTO_UDP
			               ? -ENOPROTOOPT
			               : SOCK_LIBC;
		if (libc.setsockopt(fd, level, name, value, len) < 0)
			return -errno;
		if (!is_zero(value, len))
			f->dg->is_kernels = true;
		return 0;
	}
	if (level == IPPROTO_IP) {
		switch (name) {
		case IP_MULTICAST_IF:
			return !rule_of_all(1 << CFG_ROLE_UDP) && proc_attach() && !proc_is_dead()
			               ? mcast_if_set(f, fd, value, len)
			               : SOCK_LIBC;
		case IP_ADD_MEMBERSHIP:
		case IP_DROP_MEMBERSHIP:
		case MCAST_JOIN_GROUP:
		case MCAST_LEAVE_GROUP:
			return group_set(f, fd, name, value, len);
		default:
			break;
		}
	}
	if (libc.setsockopt(fd, level, name, value, len) < 0)
		return -errno;
	if (level == SOL_SOCKET) {
		if (name == SO_RCVTIMEO)
			timeout_read(fd, name, &f->dg->rcvtimeo_ns);
		if (name == SO_SNDTIMEO)
			timeout_read(fd, name, &f->dg->sndtimeo_ns);
		if (name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE)
			name = name == SO_SNDBUFFORCE ? SO_SNDBUF : SO_RCVBUF;
	}
	if (level == SOL_SOCKET && (name == SO_TIMESTAMP || name == SO_TIMESTAMPNS)) {
		/* each turns the other off */
		follow_read(f, fd, follow_find(SOL_SOCKET, SO_TIMESTAMP));
		follow_read(f, fd, follow_find(SOL_SOCKET, SO_TIMESTAMPNS));
		return 0;
	}
	w = follow_find(level, name);
	if (!w)
		return 0;
	follow_read(f, fd, w);
	return follow_apply(f, fd, level, name);
}
