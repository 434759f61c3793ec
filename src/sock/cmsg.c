/* cmsg.c - control messages of datagram sockets: what sendmsg asks for, what recvmsg tells.
 *
 * Runs in application threads; pure functions of the socket's options and a datagram's description. Order and
 * truncation are the kernel's. ip(7), ipv6(7), socket(7), cmsg(3)
 */
#include "dgram.h"
#include "proc.h"
#include "route.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#ifndef IP_RECVORIGDSTADDR
#define IP_RECVORIGDSTADDR 20
#endif

struct room {
	struct msghdr *msg;
	uint8_t *at;
	size_t left;
};

static void put(struct room *r, int level, int type, const void *data, size_t size)
{
	struct cmsghdr h = {.cmsg_len = CMSG_LEN(size), .cmsg_level = level, .cmsg_type = type};
	size_t space = CMSG_SPACE(size);

	if (!r->at || r->left < sizeof(h)) {
		r->msg->msg_flags |= MSG_CTRUNC;
		return;
	}
	if (r->left < h.cmsg_len) {
		r->msg->msg_flags |= MSG_CTRUNC;
		h.cmsg_len = r->left;
	}
	memcpy(r->at, &h, sizeof(h));
	memcpy(r->at + sizeof(h), data, h.cmsg_len - sizeof(h));
	if (space > r->left)
		space = r->left;
	r->at += space;
	r->left -= space;
}

static void put_time(const struct file *f, struct room *r, uint64_t ns)
{
	if (f->dg->timestampns) {
		struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

		put(r, SOL_SOCKET, SO_TIMESTAMPNS, &ts, sizeof(ts));
	} else if (f->dg->timestamp) {
		struct timeval tv = {(time_t)(ns / 1000000000u), (suseconds_t)(ns % 1000000000u / 1000u)};

		put(r, SOL_SOCKET, SO_TIMESTAMP, &tv, sizeof(tv));
	}
}

/* The local address that a datagram was for: the port's when it went to many. */
static void local_of(const struct service *s, const struct dgram_meta *meta, struct in_addr *spec)
{
	if (route_is_multicast(&meta->to) || route_is_broadcast(&meta->to))
		route_own(s, (uint8_t *)spec);
	else
		memcpy(spec, meta->to.ip, 4);
}

void cmsg_write(const struct file *f, const struct service *s, struct msghdr *msg,
        const struct dgram_meta *meta, uint32_t drops)
{
	const struct dgram *d = f->dg;
	struct room r = {msg, msg->msg_control, msg->msg_control ? msg->msg_controllen : 0};
	/* what this host sends to itself comes by its loopback interface, whatever the address */
	bool is_lo = route_is_loopback(&meta->to) ||
	             (!route_is_multicast(&meta->to) && !route_is_broadcast(&meta->to) &&
	                     (route_is_loopback(&meta->from) || route_is_own(&meta->from)));
	unsigned int index = is_lo ? 1 : dgram_ifindex(s);

	put_time(f, &r, meta->time_ns);
	if (d->rxq_ovfl && drops)
		put(&r, SOL_SOCKET, SO_RXQ_OVFL, &drops, sizeof(drops));
	if (f->domain == AF_INET6 && d->pktinfo6) {
		struct in6_pktinfo info = {.ipi6_ifindex = index};

		info.ipi6_addr.s6_addr[10] = info.ipi6_addr.s6_addr[11] = 0xff;
		memcpy(info.ipi6_addr.s6_addr + 12, meta->to.ip, 4);
		put(&r, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	}
	if (d->pktinfo) {
		struct in_pktinfo info = {.ipi_ifindex = (int)index};

		local_of(s, meta, &info.ipi_spec_dst);
		memcpy(&info.ipi_addr, meta->to.ip, 4);
		put(&r, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
	if (d->recvttl) {
		int ttl = meta->ttl;

		put(&r, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
	}
	if (d->recvtos)
		put(&r, IPPROTO_IP, IP_TOS, &meta->tos, 1);
	if (d->origdst) {
		struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(meta->to.port)};

		memcpy(&in.sin_addr, meta->to.ip, 4);
		put(&r, IPPROTO_IP, IP_RECVORIGDSTADDR, &in, sizeof(in));
	}
	msg->msg_controllen = r.at ? (size_t)(r.at - (uint8_t *)msg->msg_control) : 0;
}

static int parse_pktinfo(struct cmsg_out *out, const void *addr, int index)
{
	static const uint8_t none[4];

	if (memcmp(addr, none, 4)) {
		out->from.family = AF_INET;
		memcpy(out->from.ip, addr, 4);
		/* such a datagram leaves through the kernel, where the socket has it */
		out->is_kernels = !route_is_own(&out->from) && !route_is_loopback(&out->from);
		if (out->is_kernels)
			return -EINVAL;
	}
	for (uint32_t i = 0; index && i < service_count(); i++)
		if ((unsigned)index == dgram_ifindex(&services[i])) {
			out->by = &services[i];
			return 0;
		}
	return index ? -ENODEV : 0;
}

static int parse_int(const struct cmsghdr *c, bool may_be_byte, int *v)
{
	if (c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(v, CMSG_DATA(c), sizeof(int));
	else if (may_be_byte && c->cmsg_len == CMSG_LEN(1))
		*v = *CMSG_DATA(c);
	else
		return -EINVAL;
	return 0;
}

static int parse_one(const struct file *f, const struct cmsghdr *c, struct cmsg_out *out)
{
	if (c->cmsg_level == SOL_SOCKET)
		/* the kernel ignores what only unix sockets have */
		return c->cmsg_type == SCM_RIGHTS || c->cmsg_type == SCM_CREDENTIALS
		               ? 0
		               : -EINVAL; /* SO_MARK, SO_TIMESTAMPING, SO_TXTIME: not offered */
	if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && f->domain == AF_INET6) {
		struct in6_pktinfo info;

		if (c->cmsg_len < CMSG_LEN(sizeof(info)))
			return -EINVAL;
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		if (!IN6_IS_ADDR_V4MAPPED(&info.ipi6_addr))
			return -EINVAL;
		return parse_pktinfo(out, info.ipi6_addr.s6_addr + 12, (int)info.ipi6_ifindex);
	}
	if (c->cmsg_level == IPPROTO_UDP)
		return -EINVAL;
	if (c->cmsg_level != IPPROTO_IP)
		return 0; /* other protocols' business, as in the kernel */
	switch (c->cmsg_type) {
	case IP_PKTINFO: {
		struct in_pktinfo info;

		if (c->cmsg_len != CMSG_LEN(sizeof(info)))
			return -EINVAL;
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		return parse_pktinfo(out, &info.ipi_spec_dst, info.ipi_ifindex);
	}
	case IP_TTL:
		if (parse_int(c, false, &out->ttl))
			return -EINVAL;
		return out->ttl < 1 || out->ttl > 255 ? -EINVAL : 0;
	case IP_TOS:
		if (parse_int(c, true, &out->tos))
			return -EINVAL;
		return out->tos < 0 || out->tos > 255 ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

int cmsg_parse(const struct file *f, const struct msghdr *msg, struct cmsg_out *out)
{
	const uint8_t *p = msg->msg_control;
	size_t left = p ? msg->msg_controllen : 0;

	out->from.family = 0;
	out->tos = out->ttl = -1;
	out->by = NULL;
	out->is_kernels = false;
	while (left >= sizeof(struct cmsghdr)) {
		const struct cmsghdr *c = (const void *)p;
		int rc;

		if (c->cmsg_len < sizeof(*c) || c->cmsg_len > left)
			return -EINVAL;
		rc = parse_one(f, c, out);
		if (rc)
			return rc;
		if (CMSG_ALIGN(c->cmsg_len) >= left)
			break;
		p += CMSG_ALIGN(c->cmsg_len);
		left -= CMSG_ALIGN(c->cmsg_len);
	}
	return 0;
}

bool cmsg_is_kernels(const struct file *f, const struct msghdr *msg)
{
	struct cmsg_out c;

	cmsg_parse(f, msg, &c);
	return c.is_kernels;
}
