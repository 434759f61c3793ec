/* follow.c - the port follows the kernel's interface: address, prefix, gateway, MTU, link, permanent
 * neighbours.
 *
 * Control thread (dedicated: pronkd's main thread; inline: the background thread). Netlink says that
 * something has changed, the interface is read anew, and what that means for the port goes to every stack as
 * one message (src/stack/net.c). Options that are set win: only what is "auto" follows, and the MTU goes down
 * from what the port has started with, never up, as its buffers were made for that. doc/threads.md, "The
 * port's address".
 */
#include "engine_int.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "iface.h"
#include "log.h"
#include "nic_kernel.h"

LOG_MODULE("engine");

enum { MTU_LEAST = 128 }; /* room for the headers of a segment, and something behind them */

/* What the stacks were told last. */
struct state {
	struct nic_address a;
	bool has_address, is_up, has_carrier;
	uint16_t mtu;
	uint32_t neigh_count;
	struct iface_neigh neigh[IFACE_NEIGH_MAX];
};

struct follow {
	struct watch_iface *watch;
	struct rtnl rtnl;
	int index;
	bool is_tap, is_gone, has_told_mac, must_read;
	bool is_shared; /* AF_PACKET: the kernel gets every frame, too */
	bool has_told_address;
	uint32_t mtu; /* of the interface, when it was last looked at */
	uint8_t mac[6];
	struct state told, now;
	struct iface iface;
};

void follow_tell(struct engine *e)
{
	struct arena_net n = {
	        .prefix = e->prefix, .mtu = e->mtu, .has_gateway = e->has_gateway, .is_usable = true};
	uint32_t gateway;

	memcpy(&n.address, e->address, 4);
	memcpy(&gateway, e->gateway, 4);
	arena_net_set(e->arena.hdr, &n, gateway);
}

static void net_text(const struct state *s, char *buf, size_t size)
{
	const uint8_t *a = s->a.ip, *g = s->a.gateway;
	size_t n;

	if (s->has_address)
		n = (size_t)snprintf(
		        buf, size, "address %u.%u.%u.%u/%u", a[0], a[1], a[2], a[3], s->a.prefix);
	else
		n = (size_t)snprintf(buf, size, "no address");
	if (s->a.has_gateway)
		n += (size_t)snprintf(buf + n, size - n, ", gateway %u.%u.%u.%u", g[0], g[1], g[2], g[3]);
	else
		n += (size_t)snprintf(buf + n, size - n, ", no gateway");
	snprintf(buf + n, size - n, ", MTU %u, link %s, %u permanent neighbour%s", s->mtu,
	        !s->is_up        ? "down"
	        : s->has_carrier ? "up"
	                         : "without carrier",
	        s->neigh_count, s->neigh_count == 1 ? "" : "s");
}

/* What an interface that was just read means for the port. */
static void state_make(struct engine *e, struct follow *f)
{
	const struct iface *i = &f->iface;
	struct state *s = &f->now;
	uint32_t mtu;

	memset(s, 0, sizeof(*s));
	s->a = f->told.a;
	s->has_address = !nic_kernel_choose(&e->cfg, i, &s->a) && cfg_host_valid(s->a.ip, s->a.prefix);
	if (!s->has_address)
		s->a.has_gateway = false;
	if (s->a.has_gateway && s->a.prefix < 32 && !cfg_same_network(s->a.ip, s->a.gateway, s->a.prefix))
		s->a.has_gateway = false; /* set by option, for an address that is no more */
	if (!s->a.has_gateway)
		memset(s->a.gateway, 0, 4);
	s->is_up = i->is_up;
	s->has_carrier = i->has_carrier;
	mtu = i->mtu > MTU_LEAST ? i->mtu : MTU_LEAST;
	s->mtu = mtu < e->mtu ? (uint16_t)mtu : e->mtu;
	if (f->is_tap)
		return; /* the neighbours of the kernel's end are us */
	s->neigh_count = i->neigh_count;
	memcpy(s->neigh, i->neigh, i->neigh_count * sizeof(i->neigh[0]));
}

static bool state_is_same(const struct state *a, const struct state *b)
{
	return a->has_address == b->has_address && !memcmp(a->a.ip, b->a.ip, 4) &&
	       a->a.prefix == b->a.prefix && a->a.has_gateway == b->a.has_gateway &&
	       !memcmp(a->a.gateway, b->a.gateway, 4) && a->is_up == b->is_up &&
	       a->has_carrier == b->has_carrier && a->mtu == b->mtu && a->neigh_count == b->neigh_count &&
	       !memcmp(a->neigh, b->neigh, a->neigh_count * sizeof(a->neigh[0]));
}

static int post(struct engine *e, const struct state *s, const struct state *was)
{
	uint32_t mask = s->a.prefix ? ~0u << (32 - s->a.prefix) : 0;
	struct stack_net *n = calloc(1, sizeof(*n) + s->neigh_count * sizeof(n->neigh[0]));
	int rc;

	if (!n)
		return -ENOMEM;
	n->left = e->stack_count;
	/* without an address no network is ours */
	for (int i = 0; i < 4; i++)
		n->netmask[i] = s->has_address ? (uint8_t)(mask >> (24 - 8 * i)) : 255;
	if (s->has_address)
		memcpy(n->address, s->a.ip, 4);
	memcpy(n->gateway, s->a.gateway, 4);
	n->prefix = s->has_address ? s->a.prefix : 32;
	n->has_gateway = s->a.has_gateway;
	n->is_up = s->is_up;
	n->must_greet = s->has_carrier && !was->has_carrier;
	n->mtu = s->mtu;
	n->neigh_count = s->neigh_count;
	for (uint32_t i = 0; i < s->neigh_count; i++) {
		memcpy(n->neigh[i].ip, s->neigh[i].ip, 4);
		memcpy(n->neigh[i].mac, s->neigh[i].mac, 6);
	}
	rc = engine_post_all(e, stack_net_changed, 0, n, NULL);
	if (rc)
		free(n);
	return rc;
}

/* Two that have one address: the kernel knows nothing of the port's connections, and resets them. */
static void address_tell(const struct engine *e, struct follow *f)
{
	const struct iface *i = &f->iface;
	const uint8_t *a = f->now.a.ip;
	bool is_double = false;

	for (uint32_t k = 0; k < i->addr_count && f->is_shared && f->now.has_address; k++)
		is_double |= !memcmp(i->addr[k].ip, a, 4);
	if (is_double && !f->has_told_address)
		log_warning(
		        "%s: the kernel has %u.%u.%u.%u, too: it answers what comes for that address as well, and "
		        "resets Pronk's connections. Set option address (here: \"%s\") to one that nobody has",
		        i->name, a[0], a[1], a[2], a[3], e->cfg.address);
	f->has_told_address = is_double;
}

/* What is not followed is said. */
static void rest_tell(struct engine *e, struct follow *f)
{
	const struct iface *i = &f->iface;

	if (!f->is_tap && i->has_mac && memcmp(i->mac, f->mac, 6) && !f->has_told_mac) {
		f->has_told_mac = true;
		log_warning("%s has another Ethernet address: this service keeps the one it has started with",
		        i->name);
	}
	if (i->mtu > e->mtu && i->mtu != f->mtu && !e->cfg.mtu && !f->is_tap)
		log_notice("%s: MTU %u is more than the %u that this service has started with and keeps",
		        i->name, i->mtu, e->mtu);
	f->mtu = i->mtu;
	if (i->neigh_left_out)
		log_limited_warning("%s: %u permanent neighbours are more than the %d that are taken over",
		        i->name, i->neigh_count + i->neigh_left_out, IFACE_NEIGH_MAX);
}

static void update(struct engine *e, struct follow *f)
{
	char old[192], new[192];
	int rc = iface_read(&f->rtnl, f->index, &f->iface);

	if (rc == -ENODEV) {
		if (!f->is_gone)
			log_warning(
			        "%s: the interface is gone; this service has to be started anew when it is back",
			        e->device);
		f->is_gone = true;
		return;
	}
	if (rc) {
		f->must_read = true; /* with the next look */
		log_limited_warning("%s: the interface cannot be read: %s", e->device, strerror(-rc));
		return;
	}
	state_make(e, f);
	address_tell(e, f);
	rest_tell(e, f);
	if (state_is_same(&f->now, &f->told))
		return;
	if (post(e, &f->now, &f->told)) {
		f->must_read = true; /* without memory: with the next look */
		return;
	}
	net_text(&f->told, old, sizeof(old));
	net_text(&f->now, new, sizeof(new));
	log_notice("%s has changed: %s; before: %s", f->iface.name, new, old);
	f->told = f->now;
	watch_iface_known(f->watch, f->told.neigh, f->told.neigh_count);
}

void follow_open(struct engine *e)
{
	int index = nic_kernel_interface(&e->cfg), rc;
	struct epoll_event ev = {.events = EPOLLIN};
	struct follow *f;

	if (index < 0)
		return;
	f = calloc(1, sizeof(*f));
	rc = f ? rtnl_open(&f->rtnl) : -ENOMEM;
	if (!rc)
		rc = watch_iface_open(&f->watch, index);
	if (!rc && epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, watch_iface_fd(f->watch), &ev) < 0)
		rc = -errno;
	if (!rc)
		rc = iface_read(&f->rtnl, index, &f->iface);
	e->follow = f;
	if (rc) {
		log_warning(
		        "%s: changes of the interface will not be noticed: %s", e->cfg.device, strerror(-rc));
		follow_close(e);
		return;
	}
	f->index = index;
	f->is_tap = !strncmp(e->device, "tap:", 4);
	f->is_shared = !strncmp(e->device, "afpacket:", 9);
	memcpy(f->mac, f->iface.mac, 6);
	f->mtu = f->iface.mtu;
	memcpy(f->told.a.ip, e->address, 4);
	f->told.a.prefix = e->prefix;
	f->told.a.has_gateway = e->has_gateway;
	if (e->has_gateway)
		memcpy(f->told.a.gateway, e->gateway, 4);
	f->told.has_address = f->told.is_up = f->told.has_carrier = true;
	f->told.mtu = e->mtu;
	f->must_read = true; /* what was so when the port was opened may have changed since */
	follow_serve(e);
}

void follow_serve(struct engine *e)
{
	struct follow *f = e->follow;

	if (!f || !(watch_iface_take(f->watch) || f->must_read))
		return;
	f->must_read = false;
	update(e, f);
}

void follow_close(struct engine *e)
{
	if (!e->follow)
		return;
	rtnl_close(&e->follow->rtnl);
	watch_iface_close(e->follow->watch);
	free(e->follow);
	e->follow = NULL;
}
