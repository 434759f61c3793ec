/* iface.c - questions to the kernel about interfaces, routes and neighbours, and its answers.
 *
 * Any thread with a struct rtnl of its own. The kernel is asked to leave out what is not wanted (strict
 * checking, Linux 4.20), so that a machine with a whole routing table of the internet is asked for one route;
 * an older one sends all, hence each answer is looked at here as well. What changes is watched in watch.c.
 */
#include "iface.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12
#endif

enum { ANSWER_SIZE = 32768, READ_TRIES = 10 };

int rtnl_open(struct rtnl *n)
{
	int on = 1;

	n->seq = 0;
	n->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!n->socket)
		return -errno;
	if (mnl_socket_bind(n->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		int rc = -errno;

		rtnl_close(n);
		return rc;
	}
	mnl_socket_setsockopt(n->socket, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
	return 0;
}

void rtnl_close(struct rtnl *n)
{
	if (n->socket)
		mnl_socket_close(n->socket);
	n->socket = NULL;
}

/* Sends a question and gives each part of the answer to cb. */
static int ask(struct rtnl *n, struct nlmsghdr *h, mnl_cb_t cb, void *arg)
{
	unsigned port = mnl_socket_get_portid(n->socket);
	char *buf = malloc(ANSWER_SIZE);
	int rc = MNL_CB_OK;

	if (!buf)
		return -ENOMEM;
	h->nlmsg_seq = ++n->seq;
	if (mnl_socket_sendto(n->socket, h, h->nlmsg_len) < 0)
		rc = -errno;
	while (rc > MNL_CB_STOP) {
		ssize_t size = mnl_socket_recvfrom(n->socket, buf, ANSWER_SIZE);

		if (size < 0 && errno == EINTR)
			continue;
		rc = size < 0 ? -1 : mnl_cb_run(buf, (size_t)size, n->seq, port, cb, arg);
		if (rc < 0)
			rc = -errno;
	}
	/* what is left of an answer that was broken off must not be taken for the next one */
	while (rc < 0 && recv(mnl_socket_get_fd(n->socket), buf, ANSWER_SIZE, MSG_DONTWAIT) > 0)
		;
	free(buf);
	return rc < 0 ? rc : 0;
}

static struct nlmsghdr *question(char *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	return h;
}

/* The attributes of a message by number, those above max left out. */
struct attrs {
	const struct nlattr **at;
	unsigned max;
};

static int attr_note(const struct nlattr *a, void *arg)
{
	struct attrs *t = arg;

	if (mnl_attr_get_type(a) <= t->max)
		t->at[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

static const uint8_t *ip4_of(const struct nlattr *a)
{
	return a && mnl_attr_get_payload_len(a) == 4 ? mnl_attr_get_payload(a) : NULL;
}

/* --- the link --- */

static int link_cb(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *at[IFLA_MAX + 1] = {0}, *info[IFLA_INFO_MAX + 1] = {0},
	                                   *xdp[IFLA_XDP_MAX + 1] = {0};
	struct attrs t = {at, IFLA_MAX}, ti = {info, IFLA_INFO_MAX}, tx = {xdp, IFLA_XDP_MAX};
	struct iface *out = arg;

	mnl_attr_parse(h, sizeof(*m), attr_note, &t);
	out->index = m->ifi_index;
	out->is_up = m->ifi_flags & IFF_UP;
	out->has_carrier = out->is_up && m->ifi_flags & IFF_LOWER_UP;
	if (at[IFLA_IFNAME])
		strncpy(out->name, mnl_attr_get_str(at[IFLA_IFNAME]), sizeof(out->name) - 1);
	if (at[IFLA_MTU])
		out->mtu = mnl_attr_get_u32(at[IFLA_MTU]);
	if (at[IFLA_NUM_RX_QUEUES])
		out->rx_queues = mnl_attr_get_u32(at[IFLA_NUM_RX_QUEUES]);
	if (at[IFLA_NUM_TX_QUEUES])
		out->tx_queues = mnl_attr_get_u32(at[IFLA_NUM_TX_QUEUES]);
	if (at[IFLA_MASTER])
		out->master = (int)mnl_attr_get_u32(at[IFLA_MASTER]);
	out->has_mac = m->ifi_type == ARPHRD_ETHER && at[IFLA_ADDRESS] &&
	               mnl_attr_get_payload_len(at[IFLA_ADDRESS]) == sizeof(out->mac);
	if (out->has_mac)
		memcpy(out->mac, mnl_attr_get_payload(at[IFLA_ADDRESS]), sizeof(out->mac));
	if (at[IFLA_LINKINFO])
		mnl_attr_parse_nested(at[IFLA_LINKINFO], attr_note, &ti);
	if (info[IFLA_INFO_KIND])
		strncpy(out->kind, mnl_attr_get_str(info[IFLA_INFO_KIND]), sizeof(out->kind) - 1);
	if (at[IFLA_XDP])
		mnl_attr_parse_nested(at[IFLA_XDP], attr_note, &tx);
	out->has_xdp = xdp[IFLA_XDP_ATTACHED] && mnl_attr_get_u8(xdp[IFLA_XDP_ATTACHED]) != XDP_ATTACHED_NONE;
	return MNL_CB_STOP;
}

static int link_read(struct rtnl *n, int index, struct iface *out)
{
	char buf[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(4))) = "";
	struct nlmsghdr *h = question(buf, RTM_GETLINK, 0);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_index = index;
	return ask(n, h, link_cb, out);
}

/* --- addresses --- */

static int addr_parse(const struct nlmsghdr *h, int *index, struct iface_addr *a)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *at[IFA_MAX + 1] = {0};
	struct attrs t = {at, IFA_MAX};
	const uint8_t *ip;

	if (h->nlmsg_type != RTM_NEWADDR || m->ifa_family != AF_INET)
		return -EINVAL;
	mnl_attr_parse(h, sizeof(*m), attr_note, &t);
	/* with a peer (point to point) IFA_ADDRESS is the peer's */
	ip = ip4_of(at[IFA_LOCAL] ? at[IFA_LOCAL] : at[IFA_ADDRESS]);
	if (!ip || m->ifa_prefixlen > 32)
		return -EINVAL;
	memcpy(a->ip, ip, 4);
	a->prefix = m->ifa_prefixlen;
	a->is_secondary = m->ifa_flags & IFA_F_SECONDARY;
	*index = (int)m->ifa_index;
	return 0;
}

static int addr_cb(const struct nlmsghdr *h, void *arg)
{
	struct iface *out = arg;
	struct iface_addr a;
	int index;

	if (!addr_parse(h, &index, &a) && index == out->index && out->addr_count < IFACE_ADDR_MAX)
		out->addr[out->addr_count++] = a;
	return MNL_CB_OK;
}

static int addrs_ask(struct rtnl *n, int index, mnl_cb_t cb, void *arg)
{
	char buf[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(4))) = "";
	struct nlmsghdr *h = question(buf, RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifa_family = AF_INET;
	m->ifa_index = (uint32_t)index;
	return ask(n, h, cb, arg);
}

struct each_addr {
	void (*each)(void *arg, int index, const struct iface_addr *a);
	void *arg;
};

static int each_addr_cb(const struct nlmsghdr *h, void *arg)
{
	const struct each_addr *e = arg;
	struct iface_addr a;
	int index;

	if (!addr_parse(h, &index, &a))
		e->each(e->arg, index, &a);
	return MNL_CB_OK;
}

int iface_addresses(struct rtnl *n, void (*each)(void *arg, int index, const struct iface_addr *a), void *arg)
{
	struct each_addr e = {each, arg};

	return addrs_ask(n, 0, each_addr_cb, &e);
}

/* --- the default route --- */

static void hop_take(struct iface *out, uint32_t metric, const uint8_t *gateway)
{
	out->has_default = true;
	if (!gateway || (out->has_gateway && metric >= out->gateway_metric))
		return;
	memcpy(out->gateway, gateway, 4);
	out->has_gateway = true;
	out->gateway_metric = metric;
}

static int route_cb(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *at[RTA_MAX + 1] = {0};
	struct attrs t = {at, RTA_MAX};
	struct iface *out = arg;
	uint32_t metric, table = m->rtm_table;

	if (h->nlmsg_type != RTM_NEWROUTE || m->rtm_family != AF_INET || m->rtm_dst_len != 0 ||
	        m->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), attr_note, &t);
	if (at[RTA_TABLE])
		table = mnl_attr_get_u32(at[RTA_TABLE]);
	if (table != RT_TABLE_MAIN)
		return MNL_CB_OK;
	metric = at[RTA_PRIORITY] ? mnl_attr_get_u32(at[RTA_PRIORITY]) : 0;
	if (at[RTA_OIF] && (int)mnl_attr_get_u32(at[RTA_OIF]) == out->index)
		hop_take(out, metric, ip4_of(at[RTA_GATEWAY]));
	if (!at[RTA_MULTIPATH])
		return MNL_CB_OK;
	/* several next hops, each with attributes of its own behind a header */
	for (struct rtnexthop *hop = mnl_attr_get_payload(at[RTA_MULTIPATH]);
	        (uint8_t *)hop + sizeof(*hop) <= (uint8_t *)mnl_attr_get_payload(at[RTA_MULTIPATH]) +
	                                                 mnl_attr_get_payload_len(at[RTA_MULTIPATH]) &&
	        hop->rtnh_len >= sizeof(*hop);
	        hop = RTNH_NEXT(hop)) {
		const struct nlattr *in[RTA_MAX + 1] = {0};
		struct attrs ti = {in, RTA_MAX};

		mnl_attr_parse_payload(RTNH_DATA(hop), hop->rtnh_len - sizeof(*hop), attr_note, &ti);
		if (hop->rtnh_ifindex == out->index)
			hop_take(out, metric, ip4_of(in[RTA_GATEWAY]));
	}
	return MNL_CB_OK;
}

static int gateway_read(struct rtnl *n, struct iface *out)
{
	char buf[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(4))) = "";
	struct nlmsghdr *h = question(buf, RTM_GETROUTE, NLM_F_DUMP);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->rtm_family = AF_INET;
	m->rtm_table = RT_TABLE_MAIN;
	mnl_attr_put_u32(h, RTA_OIF, (uint32_t)out->index);
	return ask(n, h, route_cb, out);
}

static int towards_cb(const struct nlmsghdr *h, void *arg)
{
	const struct nlattr *at[RTA_MAX + 1] = {0};
	struct attrs t = {at, RTA_MAX};

	mnl_attr_parse(h, sizeof(struct rtmsg), attr_note, &t);
	if (at[RTA_OIF])
		*(int *)arg = (int)mnl_attr_get_u32(at[RTA_OIF]);
	return MNL_CB_STOP;
}

int iface_towards(struct rtnl *n, int family, const void *ip)
{
	char buf[MNL_NLMSG_HDRLEN + 96] __attribute__((aligned(4))) = "";
	struct nlmsghdr *h = question(buf, RTM_GETROUTE, 0);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	int index = -ENETUNREACH, rc;

	m->rtm_family = (unsigned char)family;
	m->rtm_dst_len = family == AF_INET ? 32 : 128;
	mnl_attr_put(h, RTA_DST, family == AF_INET ? 4 : 16, ip);
	rc = ask(n, h, towards_cb, &index);
	return rc ? rc : index;
}

/* --- permanent neighbours --- */

static int neigh_cb(const struct nlmsghdr *h, void *arg)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *at[NDA_MAX + 1] = {0};
	struct attrs t = {at, NDA_MAX};
	struct iface *out = arg;
	const uint8_t *ip;

	if (h->nlmsg_type != RTM_NEWNEIGH || m->ndm_family != AF_INET || m->ndm_ifindex != out->index ||
	        !(m->ndm_state & NUD_PERMANENT))
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), attr_note, &t);
	ip = ip4_of(at[NDA_DST]);
	if (!ip || !at[NDA_LLADDR] || mnl_attr_get_payload_len(at[NDA_LLADDR]) != 6)
		return MNL_CB_OK;
	if (out->neigh_count == IFACE_NEIGH_MAX) {
		out->neigh_left_out++;
		return MNL_CB_OK;
	}
	memcpy(out->neigh[out->neigh_count].ip, ip, 4);
	memcpy(out->neigh[out->neigh_count++].mac, mnl_attr_get_payload(at[NDA_LLADDR]), 6);
	return MNL_CB_OK;
}

static int neigh_order(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct iface_neigh));
}

static int neigh_read(struct rtnl *n, struct iface *out)
{
	char buf[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(4))) = "";
	struct nlmsghdr *h = question(buf, RTM_GETNEIGH, NLM_F_DUMP);
	struct ndmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	int rc;

	m->ndm_family = AF_INET;
	mnl_attr_put_u32(h, NDA_IFINDEX, (uint32_t)out->index);
	rc = ask(n, h, neigh_cb, out);
	qsort(out->neigh, out->neigh_count, sizeof(out->neigh[0]), neigh_order);
	return rc;
}

int iface_read(struct rtnl *n, int index, struct iface *out)
{
	int rc, tries = 0;

	do { /* the kernel says so when something has changed while it told us */
		memset(out, 0, sizeof(*out));
		rc = link_read(n, index, out);
		if (!rc)
			rc = addrs_ask(n, index, addr_cb, out);
		if (!rc)
			rc = gateway_read(n, out);
		if (!rc)
			rc = neigh_read(n, out);
	} while (rc == -EINTR && ++tries < READ_TRIES);
	return rc;
}

/* --- XDP features: a generic netlink family of its own. Debian 12's headers do not know it yet; the numbers
 * are those of linux/netdev.h, which the kernel keeps. --- */

enum { NETDEV_DEV_GET = 1, NETDEV_IFINDEX = 1, NETDEV_XDP_FEATURES = 3, NETDEV_ATTR_MAX = 8 };

static int family_cb(const struct nlmsghdr *h, void *arg)
{
	const struct nlattr *at[CTRL_ATTR_MAX + 1] = {0};
	struct attrs t = {at, CTRL_ATTR_MAX};

	mnl_attr_parse(h, sizeof(struct genlmsghdr), attr_note, &t);
	if (at[CTRL_ATTR_FAMILY_ID])
		*(uint16_t *)arg = mnl_attr_get_u16(at[CTRL_ATTR_FAMILY_ID]);
	return MNL_CB_STOP;
}

static int features_cb(const struct nlmsghdr *h, void *arg)
{
	const struct nlattr *at[NETDEV_ATTR_MAX + 1] = {0};
	struct attrs t = {at, NETDEV_ATTR_MAX};

	mnl_attr_parse(h, sizeof(struct genlmsghdr), attr_note, &t);
	if (at[NETDEV_XDP_FEATURES] && mnl_attr_get_payload_len(at[NETDEV_XDP_FEATURES]) == 8)
		*(uint64_t *)arg = mnl_attr_get_u64(at[NETDEV_XDP_FEATURES]);
	return MNL_CB_STOP;
}

int iface_xdp_features(int index, uint64_t *features)
{
	char buf[MNL_NLMSG_HDRLEN + 96] __attribute__((aligned(4))) = "";
	struct rtnl n = {.socket = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC)};
	struct nlmsghdr *h = question(buf, GENL_ID_CTRL, 0);
	struct genlmsghdr *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	uint16_t family = 0;
	int rc;

	if (!n.socket)
		return -errno;
	rc = mnl_socket_bind(n.socket, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : 0;
	g->cmd = CTRL_CMD_GETFAMILY;
	g->version = 1;
	mnl_attr_put_strz(h, CTRL_ATTR_FAMILY_NAME, "netdev");
	if (!rc)
		rc = ask(&n, h, family_cb, &family);
	if (rc || !family) {
		rtnl_close(&n);
		return -EOPNOTSUPP; /* a kernel without the family says that there is none */
	}
	memset(buf, 0, sizeof(buf));
	h = question(buf, family, 0);
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->cmd = NETDEV_DEV_GET;
	g->version = 1;
	mnl_attr_put_u32(h, NETDEV_IFINDEX, (uint32_t)index);
	*features = 0;
	rc = ask(&n, h, features_cb, features);
	rtnl_close(&n);
	return rc;
}
