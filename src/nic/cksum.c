/* cksum.c - parsing and checksums of one frame: verify on receive, fill or delegate on transmit.
 *
 * Queue's thread; no state beyond two "said once" flags of the port. What the port itself verified (mbuf
 * flags) is not computed again. A local peer that relies on checksum offload leaves the pseudo-header sum in
 * the checksum field; the receive side tells that apart from a damaged frame (CKSUM_PARTIAL), and queue.c
 * decides what to do with it.
 */
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

enum {
	IP6_FRAGMENT = 44,
	IP6_HOP_BY_HOP = 0,
	IP6_ROUTING = 43,
	IP6_DEST_OPTIONS = 60,
	ICMP6_ROUTER_SOLICIT = 133,
	ICMP6_REDIRECT = 137,
	TCP_CKSUM_AT = 16,
	UDP_CKSUM_AT = 6,
};

/* Folded one's complement sum, not complemented. */
static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* Of words added up, no more than 2^32 of them. */
static inline uint16_t fold64(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return fold((uint32_t)sum);
}

static inline uint32_t load32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

/* Sum of an IPv4 header: without options it is ten instructions. */
static inline uint16_t header_sum(const uint8_t *ip, uint32_t size)
{
	if (unlikely(size != sizeof(struct rte_ipv4_hdr)))
		return rte_raw_cksum(ip, size);
	return fold64(
	        (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + load32(ip + 12) + load32(ip + 16));
}

/* Sum of the pseudo header. addrs: source and destination, addr_size bytes each. */
static inline uint16_t pseudo_sum(const uint8_t *addrs, uint32_t addr_size, uint8_t proto, uint32_t l4_size)
{
	if (likely(addr_size == 4))
		return fold64((uint64_t)load32(addrs) + load32(addrs + 4) +
		              rte_cpu_to_be_16((uint16_t)l4_size) + rte_cpu_to_be_16(proto));
	return fold((uint32_t)rte_raw_cksum(addrs, 2 * addr_size) + rte_cpu_to_be_16((uint16_t)l4_size) +
	            rte_cpu_to_be_16(proto));
}

static uint16_t load16(const uint8_t *p)
{
	uint16_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static void store16(uint8_t *p, uint16_t value)
{
	memcpy(p, &value, sizeof(value));
}

/* Verifies TCP or UDP at l4, size bytes long by the IP header. */
static enum cksum_result l4_verify(const uint8_t *addrs, uint32_t addr_size, uint8_t proto, const uint8_t *l4,
        uint32_t size, uint64_t rx_flags)
{
	uint16_t pseudo, field;

	if (proto == IPPROTO_TCP) {
		uint32_t header = size >= sizeof(struct rte_tcp_hdr) ? (uint32_t)(l4[12] >> 4) * 4 : 0;

		if (header < sizeof(struct rte_tcp_hdr) || header > size)
			return CKSUM_SHORT;
		field = load16(l4 + TCP_CKSUM_AT);
	} else {
		uint32_t udp_size;

		if (size < sizeof(struct rte_udp_hdr))
			return CKSUM_SHORT;
		udp_size = rte_be_to_cpu_16(load16(l4 + 4));
		if (udp_size < sizeof(struct rte_udp_hdr) || udp_size > size)
			return CKSUM_SHORT;
		size = udp_size;
		field = load16(l4 + UDP_CKSUM_AT);
		if (field == 0) /* IPv4: the sender made none; IPv6 forbids that */
			return addr_size == 4 ? CKSUM_OK : CKSUM_BAD;
	}
	if ((rx_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
		return CKSUM_OK;
	pseudo = pseudo_sum(addrs, addr_size, proto, size);
	if ((rx_flags & CKSUM_PARTIAL_FIRST) && field == pseudo)
		return CKSUM_PARTIAL;
	if (fold((uint32_t)rte_raw_cksum(l4, size) + pseudo) == 0xffff)
		return CKSUM_OK;
	return field == pseudo ? CKSUM_PARTIAL : CKSUM_BAD;
}

static void rx_ip4(const uint8_t *ip, uint32_t size, uint64_t rx_flags, struct frame_info *info)
{
	uint32_t header, total;
	uint16_t fragment;
	uint8_t proto;

	info->result = CKSUM_SHORT;
	if (size < sizeof(struct rte_ipv4_hdr))
		return;
	header = (uint32_t)(ip[0] & 15) * 4;
	total = rte_be_to_cpu_16(load16(ip + 2));
	if (ip[0] >> 4 != 4 || header < sizeof(struct rte_ipv4_hdr) || total < header || total > size)
		return;
	if ((rx_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) != RTE_MBUF_F_RX_IP_CKSUM_GOOD &&
	        header_sum(ip, header) != 0xffff) {
		info->result = CKSUM_BAD;
		return;
	}
	info->result = CKSUM_OK;
	proto = ip[9];
	fragment = rte_be_to_cpu_16(load16(ip + 6));
	info->fragment = (fragment & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK)) != 0;
	if (!info->fragment && proto != IPPROTO_TCP && proto != IPPROTO_UDP)
		return;
	info->has_owner = true;
	info->addr_size = 4;
	info->addrs = ip + 12;
	if (info->fragment) {
		info->result = CKSUM_UNCHECKED;
		return;
	}
	info->ports = ip + header;
	info->l4_proto = proto;
	info->result = l4_verify(ip + 12, 4, proto, ip + header, total - header, rx_flags);
}

static void rx_ip6(const uint8_t *ip, uint32_t size, uint64_t rx_flags, struct frame_info *info)
{
	uint32_t payload;
	uint8_t next;

	info->result = CKSUM_SHORT;
	if (size < sizeof(struct rte_ipv6_hdr) || ip[0] >> 4 != 6)
		return;
	payload = rte_be_to_cpu_16(load16(ip + 4));
	if (payload > size - sizeof(struct rte_ipv6_hdr))
		return;
	info->result = CKSUM_OK;
	next = ip[6];
	ip += sizeof(struct rte_ipv6_hdr);
	info->addr_size = 16;
	info->addrs = ip - 32;
	switch (next) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		info->has_owner = true;
		info->ports = ip;
		info->l4_proto = next;
		info->result = l4_verify(info->addrs, 16, next, ip, payload, rx_flags);
		break;
	case IP6_FRAGMENT:
	case IP6_HOP_BY_HOP:
	case IP6_ROUTING:
	case IP6_DEST_OPTIONS: /* behind these the stack looks further */
		info->has_owner = true;
		info->fragment = true;
		info->result = CKSUM_UNCHECKED;
		break;
	case IPPROTO_ICMPV6:
		info->arp_like = payload > 0 && ip[0] >= ICMP6_ROUTER_SOLICIT && ip[0] <= ICMP6_REDIRECT;
		break;
	}
}

void cksum_rx(const uint8_t *data, uint32_t size, uint64_t rx_flags, struct frame_info *info)
{
	*info = (struct frame_info){.result = CKSUM_SHORT};
	if (size < RTE_ETHER_HDR_LEN)
		return;
	switch (rte_be_to_cpu_16(load16(data + 12))) {
	case RTE_ETHER_TYPE_IPV4:
		rx_ip4(data + RTE_ETHER_HDR_LEN, size - RTE_ETHER_HDR_LEN, rx_flags, info);
		break;
	case RTE_ETHER_TYPE_IPV6:
		rx_ip6(data + RTE_ETHER_HDR_LEN, size - RTE_ETHER_HDR_LEN, rx_flags, info);
		break;
	case RTE_ETHER_TYPE_ARP:
		info->arp_like = true;
		info->result = CKSUM_OK;
		break;
	default:
		info->result = CKSUM_OK;
		break;
	}
}

/* Sum of size bytes from off on, which lies in the first buffer. rte_raw_cksum_mbuf loses carries of parts
 * that begin at an odd place (DPDK 22.11). */
static uint16_t chain_sum(const struct rte_mbuf *m, uint32_t off, uint32_t size)
{
	uint32_t sum = 0, done = 0;

	for (; m != NULL && done < size; m = m->next, off = 0) {
		uint32_t part = RTE_MIN(m->data_len - off, size - done);
		uint16_t s = rte_raw_cksum(rte_pktmbuf_mtod_offset(m, const uint8_t *, off), part);

		sum += done & 1 ? rte_bswap16(s) : s;
		done += part;
	}
	return fold(sum);
}

void cksum_rx_chain(const struct rte_mbuf *m, struct frame_info *info)
{
	const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *), *ip = data + RTE_ETHER_HDR_LEN, *l4;
	uint32_t header, total, at;
	uint16_t field, pseudo;

	*info = (struct frame_info){.result = CKSUM_SHORT};
	if (m->data_len < RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_tcp_hdr) ||
	        rte_be_to_cpu_16(load16(data + 12)) != RTE_ETHER_TYPE_IPV4)
		return;
	header = (uint32_t)(ip[0] & 15) * 4;
	total = rte_be_to_cpu_16(load16(ip + 2));
	l4 = ip + header;
	if (ip[0] >> 4 != 4 || header < sizeof(struct rte_ipv4_hdr) ||
	        total + RTE_ETHER_HDR_LEN > m->pkt_len || (ip[9] != IPPROTO_TCP && ip[9] != IPPROTO_UDP) ||
	        (rte_be_to_cpu_16(load16(ip + 6)) & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK)))
		return;
	at = ip[9] == IPPROTO_TCP && RTE_ETHER_HDR_LEN + header + 13 <= m->data_len ? (l4[12] >> 4) * 4u : 8;
	if (at < 8 || RTE_ETHER_HDR_LEN + header + RTE_MAX(at, 20u) > m->data_len || header + at > total ||
	        (ip[9] == IPPROTO_UDP && rte_be_to_cpu_16(load16(l4 + 4)) != total - header))
		return;
	if (header_sum(ip, header) != 0xffff) {
		info->result = CKSUM_BAD;
		return;
	}
	info->has_owner = true;
	info->addr_size = 4;
	info->addrs = ip + 12;
	info->ports = l4;
	info->l4_proto = ip[9];
	field = load16(l4 + (ip[9] == IPPROTO_TCP ? TCP_CKSUM_AT : UDP_CKSUM_AT));
	pseudo = pseudo_sum(ip + 12, 4, ip[9], total - header);
	if (field == pseudo)
		info->result = CKSUM_PARTIAL;
	else if (field == 0 && ip[9] == IPPROTO_UDP)
		info->result = CKSUM_OK;
	else if (fold((uint32_t)chain_sum(m, RTE_ETHER_HDR_LEN + header, total - header) + pseudo) == 0xffff)
		info->result = CKSUM_OK;
	else
		info->result = CKSUM_BAD;
}

void cksum_tx_near(uint8_t *data, uint32_t size)
{
	uint8_t *ip = data + RTE_ETHER_HDR_LEN, *l4;
	uint32_t header, total;
	uint16_t fragment;

	if (size < RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) ||
	        rte_be_to_cpu_16(load16(data + 12)) != RTE_ETHER_TYPE_IPV4)
		return;
	header = (uint32_t)(ip[0] & 15) * 4;
	total = rte_be_to_cpu_16(load16(ip + 2));
	fragment = rte_be_to_cpu_16(load16(ip + 6));
	if (header < sizeof(struct rte_ipv4_hdr) || total < header || RTE_ETHER_HDR_LEN + header > size)
		return;
	store16(ip + 10, 0);
	store16(ip + 10, (uint16_t)~header_sum(ip, header));
	if (fragment & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK))
		return; /* TCP's or UDP's was made before the cut, and the last piece may be one byte */
	if (RTE_ETHER_HDR_LEN + header + 8 > size)
		return;
	l4 = ip + header;
	if (ip[9] == IPPROTO_TCP && RTE_ETHER_HDR_LEN + header + sizeof(struct rte_tcp_hdr) <= size)
		store16(l4 + TCP_CKSUM_AT, pseudo_sum(ip + 12, 4, ip[9], total - header));
	else if (ip[9] == IPPROTO_UDP && load16(l4 + UDP_CKSUM_AT) == NIC_UDP_NO_CKSUM)
		store16(l4 + UDP_CKSUM_AT, 0);
	else if (ip[9] == IPPROTO_UDP)
		store16(l4 + UDP_CKSUM_AT, pseudo_sum(ip + 12, 4, ip[9], total - header));
}

/* TCP or UDP of an outgoing frame, l4_size bytes by the IP header. */
static void tx_l4(const struct nic_queue *q, struct rte_mbuf *m, const uint8_t *addrs, uint32_t addr_size,
        uint8_t proto, uint8_t *l4, uint32_t l4_size)
{
	uint64_t flags;
	uint16_t sum;
	uint8_t *field;

	if (proto == IPPROTO_TCP && l4_size >= sizeof(struct rte_tcp_hdr)) {
		field = l4 + TCP_CKSUM_AT;
		flags = q->tx_flags_tcp;
	} else if (proto == IPPROTO_UDP && l4_size >= sizeof(struct rte_udp_hdr)) {
		field = l4 + UDP_CKSUM_AT;
		flags = q->tx_flags_udp;
		if (unlikely(load16(field) == NIC_UDP_NO_CKSUM) && addr_size == 4) {
			store16(field, 0);
			return;
		}
	} else {
		return;
	}
	sum = pseudo_sum(addrs, addr_size, proto, l4_size);
	if (flags != 0) { /* the port wants the pseudo-header sum to start from */
		store16(field, sum);
		m->ol_flags |= flags;
		return;
	}
	store16(field, 0);
	sum = (uint16_t)~fold((uint32_t)rte_raw_cksum(l4, l4_size) + sum);
	store16(field, proto == IPPROTO_UDP && sum == 0 ? 0xffff : sum);
}

void cksum_tx(const struct nic_queue *q, struct rte_mbuf *m, uint8_t *data, uint32_t size)
{
	uint8_t *ip = data + RTE_ETHER_HDR_LEN;
	uint16_t type;

	if (size < RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr))
		return;
	type = rte_be_to_cpu_16(load16(data + 12));
	size -= RTE_ETHER_HDR_LEN;
	m->l2_len = RTE_ETHER_HDR_LEN;
	if (type == RTE_ETHER_TYPE_IPV4) {
		uint32_t header = (uint32_t)(ip[0] & 15) * 4, total = rte_be_to_cpu_16(load16(ip + 2));
		uint16_t fragment = rte_be_to_cpu_16(load16(ip + 6));

		if (header < sizeof(struct rte_ipv4_hdr) || total < header || total > size)
			return;
		m->l3_len = header;
		store16(ip + 10, 0);
		/* A fragment's TCP or UDP checksum covers all fragments: it was made before the cut. */
		if (!(fragment & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK)))
			tx_l4(q, m, ip + 12, 4, ip[9], ip + header, total - header);
		if (q->tx_flags_ip != 0) {
			m->ol_flags |= RTE_MBUF_F_TX_IPV4 | q->tx_flags_ip;
		} else {
			store16(ip + 10, (uint16_t)~header_sum(ip, header));
			if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK)
				m->ol_flags |= RTE_MBUF_F_TX_IPV4;
		}
	} else if (type == RTE_ETHER_TYPE_IPV6 && size >= sizeof(struct rte_ipv6_hdr)) {
		uint32_t payload = rte_be_to_cpu_16(load16(ip + 4));

		if (payload > size - sizeof(struct rte_ipv6_hdr))
			return;
		m->l3_len = sizeof(struct rte_ipv6_hdr);
		tx_l4(q, m, ip + 8, 16, ip[6], ip + sizeof(struct rte_ipv6_hdr), payload);
		if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK)
			m->ol_flags |= RTE_MBUF_F_TX_IPV6;
	}
}

void cksum_tell_partial(struct nic *nic)
{
	if (nic->device.kind == DEVICE_MEMIF || atomic_exchange(&nic->partial_seen, true))
		return; /* on a memif it is what both ends have agreed on */
	if (nic->accept_partial)
		log_notice(
		        "%s: a peer on this machine leaves TCP/UDP checksums to an offload; its packets are accepted "
		        "(`ethtool -K PEER tx off` on its interface makes it fill them)",
		        nic->info.name);
	else
		log_warning(
		        "%s: packets whose TCP/UDP checksum was left to an offload are dropped "
		        "(`ethtool -K PEER tx off` on the peer's interface, or partial_checksum = \"accept\")",
		        nic->info.name);
}

void cksum_tell_cut(struct nic *nic)
{
	if (atomic_exchange(&nic->cut_seen, true))
		return;
	log_notice(
	        "%s: a packet arrived cut: longer than a frame may be (MTU %u) or shorter than its header says; if a "
	        "peer on this machine sends merged segments, `ethtool -K PEER tso off gso off` ends it",
	        nic->info.name, nic->info.mtu);
}
