/* watch.c - news of an interface: a netlink socket that hears of links, addresses, routes and neighbours.
 *
 * Control thread. A message is only a reason to read the interface anew (iface_read), never believed by
 * itself: so a lost one (ENOBUFS) and one that comes too early cost nothing. What is not about the interface,
 * and a route that is no default route, is no reason; a router may hear thousands of these in a second.
 */
#include "iface.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

enum { NEWS_SIZE = 32768, RECEIVE_BUFFER = 1 << 20 };

struct watch_iface {
	struct mnl_socket *socket;
	int index;
	uint32_t known_count;
	struct iface_neigh known[IFACE_NEIGH_MAX];
	char buf[NEWS_SIZE];
};

int watch_iface_open(struct watch_iface **out, int index)
{
	static const int groups[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_NEIGH};
	struct watch_iface *w = calloc(1, sizeof(*w));
	int size = RECEIVE_BUFFER, rc;

	if (!w)
		return -ENOMEM;
	w->index = index;
	w->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!w->socket || mnl_socket_bind(w->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		goto fail;
	if (setsockopt(mnl_socket_get_fd(w->socket), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(mnl_socket_get_fd(w->socket), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		int group = groups[i];

		if (mnl_socket_setsockopt(w->socket, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			goto fail;
	}
	*out = w;
	return 0;
fail:
	rc = -errno;
	watch_iface_close(w);
	return rc;
}

void watch_iface_close(struct watch_iface *w)
{
	if (w && w->socket)
		mnl_socket_close(w->socket);
	free(w);
}

int watch_iface_fd(const struct watch_iface *w)
{
	return mnl_socket_get_fd(w->socket);
}

void watch_iface_known(struct watch_iface *w, const struct iface_neigh *neigh, uint32_t count)
{
	w->known_count = count < IFACE_NEIGH_MAX ? count : IFACE_NEIGH_MAX;
	memcpy(w->known, neigh, w->known_count * sizeof(*neigh));
}

/* Whether a neighbour is permanent, or was. */
static bool neigh_matters(const struct watch_iface *w, const struct nlmsghdr *h)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *a;

	if (m->ndm_family != AF_INET || m->ndm_ifindex != w->index)
		return false;
	if (m->ndm_state & NUD_PERMANENT)
		return true;
	mnl_attr_for_each(a, h, sizeof(*m))
	{
		if (mnl_attr_get_type(a) != NDA_DST || mnl_attr_get_payload_len(a) != 4)
			continue;
		for (uint32_t i = 0; i < w->known_count; i++)
			if (!memcmp(w->known[i].ip, mnl_attr_get_payload(a), 4))
				return true;
	}
	return false;
}

static bool matters(const struct watch_iface *w, const struct nlmsghdr *h)
{
	const struct ifinfomsg *link;
	const struct ifaddrmsg *addr;
	const struct rtmsg *route;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		link = mnl_nlmsg_get_payload(h);
		return h->nlmsg_len >= mnl_nlmsg_size(sizeof(*link)) && link->ifi_index == w->index;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		addr = mnl_nlmsg_get_payload(h);
		return h->nlmsg_len >= mnl_nlmsg_size(sizeof(*addr)) && (int)addr->ifa_index == w->index;
	case RTM_NEWROUTE:
	case RTM_DELROUTE: /* of whatever interface: another one may take the route over */
		route = mnl_nlmsg_get_payload(h);
		return h->nlmsg_len >= mnl_nlmsg_size(sizeof(*route)) && route->rtm_family == AF_INET &&
		       route->rtm_dst_len == 0;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		return h->nlmsg_len >= mnl_nlmsg_size(sizeof(struct ndmsg)) && neigh_matters(w, h);
	default:
		return false;
	}
}

bool watch_iface_take(struct watch_iface *w)
{
	bool is_news = false;

	for (;;) {
		ssize_t n = mnl_socket_recvfrom(w->socket, w->buf, sizeof(w->buf));
		const struct nlmsghdr *h = (const struct nlmsghdr *)w->buf;
		int left = (int)n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != ENOBUFS && errno != ENOSPC)
				return is_news;
			is_news = true; /* some were lost */
			continue;
		}
		for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
			is_news |= matters(w, h);
	}
}
