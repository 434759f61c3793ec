/* port.c - nic_open and nic_close: one DPDK port, its queues, offloads, rings and what hangs on them.
 *
 * Control thread only; nothing here runs once the stacks do. Order: device's kernel side, EAL, virtual
 * device, configure, buffers, queues, start, addresses; released in reverse. How fewer hardware queues than
 * stacks are served is told in queue.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_lcore.h>

#include "log.h"
#include "nic_int.h"
#include "pages.h"

LOG_MODULE("nic");

enum {
	TAP_RX_DESC = 8,         /* net_tap only uses it to chain buffers of frames larger than one */
	AFXDP_FILL = 2048,       /* buffers net_af_xdp takes for each queue */
	BUFFERS_PER_STACK = 512, /* least that must remain for each stack */
};

bool nic_may_fork;
void (*nic_around_interrupts)(bool begins);

static const uint64_t rss_types = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_TCP |
                                  RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_FRAG_IPV6 |
                                  RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t rss_types_needed = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP;

/* What one step of nic_open needs from another. */
struct opening {
	struct nic *nic;
	const struct cfg *cfg;
	struct rte_eth_dev_info dev;
	struct rte_eth_conf conf;
	uint32_t mtu;
	uint16_t rx_desc, tx_desc;
	char *err;
	size_t err_size;
};

/* What usually keeps an XDP socket from being made, and what the driver does not say. */
static const char afxdp_hint[] =
        " (does the interface have another XDP program, or its veth peer more transmit "
        "queues than it has receive queues?)";

#define FAIL(o, code, ...) nic_fail((o)->err, (o)->err_size, code, __VA_ARGS__)

static const char *complaint_or(const char *text)
{
	const char *complaint = eal_complaint();

	return complaint[0] != '\0' ? complaint : text;
}

/* The device appears as a port. */
static int port_find(struct opening *o)
{
	struct nic *nic = o->nic;
	const char *name = nic->device.arg;
	struct wait_fds before;
	char args[256];
	int ret;

	device_libraries_quiet(&nic->device);
	if (nic_may_fork && nic->device.kind == DEVICE_MEMIF && intr_own() != 0)
		log_notice(
		        "%s: after the program has become another one, a peer that goes or comes will not be noticed",
		        o->cfg->device);
	wait_snapshot(&before);
	device_vdev(&nic->device, o->cfg, device_queues(&nic->device, nic->stack_count), nic->vdev,
	        sizeof(nic->vdev), args, sizeof(args));
	if (nic->vdev[0] != '\0') {
		name = nic->vdev;
		eal_listen();
		ret = rte_eal_hotplug_add("vdev", name, args);
		if (ret != 0) {
			nic->vdev[0] = '\0';
			return FAIL(o, ret < 0 ? ret : -EIO, "%s: %s", o->cfg->device,
			        complaint_or(rte_strerror(-ret)));
		}
	}
	if (rte_eth_dev_get_port_by_name(name, &nic->port) != 0)
		return FAIL(o, -ENODEV, "DPDK has no driver for %s, or it is not bound to vfio-pci",
		        o->cfg->device);
	nic->has_port = true;
	if (nic->device.kind == DEVICE_AFPACKET) {
		for (uint32_t i = 0; i < nic->stack_count; i++) {
			nic->queues[i].wait_fd = wait_find(nic->device.kind, &before, i);
			if (nic->queues[i].wait_fd >= 0)
				wait_filter_outgoing(nic->queues[i].wait_fd);
		}
	}
	ret = rte_eth_dev_info_get(nic->port, &o->dev);
	return ret != 0 ? FAIL(o, ret, "%s does not describe itself", o->cfg->device) : 0;
}

/* The largest IP packet: the option, else the kernel interface's, else 1500; within what the driver takes. */
static int mtu_choose(struct opening *o)
{
	uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN, most = o->dev.max_mtu;

	if (o->dev.max_mtu != UINT16_MAX && o->dev.max_rx_pktlen > o->dev.max_mtu)
		overhead = o->dev.max_rx_pktlen - o->dev.max_mtu;
	if (o->dev.max_rx_pktlen != 0)
		most = RTE_MIN(most, o->dev.max_rx_pktlen - overhead);
	/* what a memif really takes is what its buffers hold */
	if (o->nic->device.kind == DEVICE_MEMIF)
		most = MEMIF_BUFFER - RTE_ETHER_HDR_LEN;
	if (o->nic->device.kind == DEVICE_TAP)
		most = RTE_MIN(most, (uint32_t)RTE_ETHER_MTU);
	if (o->mtu <= most)
		return 0;
	if (o->cfg->mtu != 0)
		return FAIL(
		        o, -EINVAL, "mtu = %u, but %s takes at most %u", o->cfg->mtu, o->cfg->device, most);
	log_notice("%s: the interface's MTU is %u and its driver takes %u: using %u", o->cfg->device, o->mtu,
	        most, most);
	o->mtu = most;
	return 0;
}

static void offloads_choose(struct opening *o)
{
	const uint64_t rx =
	        RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	const uint64_t tx =
	        RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	struct nic_info *info = &o->nic->info;

	/* What virtual drivers call an offload is the same sum in software, and a copy of the headers more.
	 */
	if (o->cfg->checksum == CFG_CHECKSUM_AUTO && !device_is_virtual(&o->nic->device)) {
		o->conf.rxmode.offloads = rx & o->dev.rx_offload_capa;
		o->conf.txmode.offloads = tx & o->dev.tx_offload_capa;
	}
	info->rx_ip_cksum = (o->conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0;
	info->rx_l4_cksum = (o->conf.rxmode.offloads & ~RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) ==
	                    (RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
	info->tx_ip_cksum = (o->conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
	info->tx_l4_cksum = (o->conf.txmode.offloads & ~RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) ==
	                    (RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
}

/* Whether the port can hash with our key into our table, on as many queues as there are stacks. */
static int rss_choose(struct opening *o)
{
	struct nic *nic = o->nic;
	bool can = !device_is_virtual(&nic->device) && nic->hw_count == nic->stack_count &&
	           (o->dev.flow_type_rss_offloads & rss_types_needed) == rss_types_needed &&
	           o->dev.hash_key_size >= 40 && o->dev.hash_key_size <= RSS_KEY_SIZE &&
	           o->dev.reta_size >= nic->stack_count && o->dev.reta_size <= RTE_ETH_RSS_RETA_SIZE_512 &&
	           (o->dev.reta_size & (o->dev.reta_size - 1)) == 0;

	nic->rss_hw = can && nic->stack_count > 1 && o->cfg->rss != CFG_RSS_SOFTWARE;
	if (o->cfg->rss == CFG_RSS_HARDWARE && nic->stack_count > 1 && !can)
		return FAIL(o, -ENOTSUP, "rss = \"hardware\", but %s cannot spread packets with our key",
		        o->cfg->device);
	rss_init(&nic->rss, nic->stack_count,
	        nic->rss_hw ? RTE_MIN((uint32_t)o->dev.reta_size, (uint32_t)RSS_TABLE_SIZE) : RSS_TABLE_SIZE);
	if (!nic->rss_hw)
		return 0;
	o->conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	o->conf.rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){
	        .rss_key = (uint8_t *)(uintptr_t)rss_key,
	        .rss_key_len = o->dev.hash_key_size,
	        .rss_hf = rss_types & o->dev.flow_type_rss_offloads,
	};
	return 0;
}

/* Writes the indirection table and reads the key back; a port that took neither falls back to software. */
static int rss_program(struct opening *o)
{
	struct rte_eth_rss_reta_entry64 reta[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE] = {0};
	uint8_t key[RSS_KEY_SIZE] = {0};
	struct rte_eth_rss_conf conf = {.rss_key = key, .rss_key_len = o->dev.hash_key_size};
	struct nic *nic = o->nic;

	if (!nic->rss_hw)
		return 0;
	for (uint32_t i = 0; i < o->dev.reta_size; i++) {
		reta[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ULL << (i % RTE_ETH_RETA_GROUP_SIZE);
		reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] =
		        nic->rss.stack[i % RSS_TABLE_SIZE];
	}
	if (rte_eth_dev_rss_reta_update(nic->port, reta, o->dev.reta_size) == 0 &&
	        rte_eth_dev_rss_hash_conf_get(nic->port, &conf) == 0 &&
	        memcmp(key, rss_key, RTE_MIN(o->dev.hash_key_size, (uint8_t)RSS_KEY_SIZE)) == 0 &&
	        (conf.rss_hf & rss_types_needed) == rss_types_needed)
		return 0;
	if (o->cfg->rss == CFG_RSS_HARDWARE)
		return FAIL(o, -ENOTSUP, "rss = \"hardware\", but %s did not take our key", o->cfg->device);
	log_notice("%s did not take our RSS key: the stacks spread packets themselves", o->cfg->device);
	nic->rss_hw = false;
	return 0;
}

static int port_configure(struct opening *o)
{
	struct nic *nic = o->nic;
	uint32_t queues = device_queues(&nic->device, nic->stack_count), need;
	int ret;

	queues = RTE_MIN(queues, (uint32_t)RTE_MIN(o->dev.max_rx_queues, o->dev.max_tx_queues));
	if (queues == 0)
		return FAIL(o, -ENODEV, "%s has no queues", o->cfg->device);
	nic->hw_count = (uint16_t)queues;
	ret = mtu_choose(o);
	if (ret == 0)
		ret = rss_choose(o);
	if (ret != 0)
		return ret;
	offloads_choose(o);
	o->conf.rxmode.mtu = nic->device.kind == DEVICE_MEMIF ? RTE_ETHER_MTU : o->mtu;
	o->conf.intr_conf.rxq = nic->device.kind == DEVICE_PCI;
	eal_listen();
	ret = rte_eth_dev_configure(nic->port, nic->hw_count, nic->hw_count, &o->conf);
	if (ret != 0 && o->conf.intr_conf.rxq) {
		o->conf.intr_conf.rxq = 0;
		ret = rte_eth_dev_configure(nic->port, nic->hw_count, nic->hw_count, &o->conf);
	}
	if (ret != 0)
		return FAIL(o, ret, "%s cannot be configured: %s", o->cfg->device,
		        complaint_or(rte_strerror(-ret)));
	o->rx_desc = (uint16_t)o->cfg->rx_queue_size;
	o->tx_desc = (uint16_t)o->cfg->tx_queue_size;
	rte_eth_dev_adjust_nb_rx_tx_desc(nic->port, &o->rx_desc, &o->tx_desc);
	need = o->rx_desc;
	if (nic->device.kind == DEVICE_TAP)
		need = o->rx_desc = TAP_RX_DESC;
	if (nic->device.kind == DEVICE_AFXDP)
		need = 2 * AFXDP_FILL;
	need = need * queues + BUFFERS_PER_STACK * nic->stack_count;
	if (o->cfg->packet_buffers < need)
		return FAIL(o, -EINVAL, "packet_buffers = %u, but %u stacks on %s need at least %u",
		        o->cfg->packet_buffers, nic->stack_count, o->cfg->device, need);
	return 0;
}

/* Hardware queues, and where their stacks sleep. */
static int queues_setup(struct opening *o)
{
	struct nic *nic = o->nic;
	int numa_node = rte_eth_dev_socket_id(nic->port), ret;

	nic->pool = pool_create(&nic->device, o->cfg->packet_buffers, o->mtu, numa_node, o->err, o->err_size);
	if (nic->pool == NULL)
		return -ENOMEM;
	ret = pool_regions(nic, o->err, o->err_size);
	for (uint16_t i = 0; i < nic->hw_count && ret == 0; i++) {
		struct wait_fds before;

		wait_snapshot(&before);
		eal_listen();
		ret = rte_eth_rx_queue_setup(nic->port, i, o->rx_desc, (unsigned)numa_node, NULL, nic->pool);
		if (nic->queues[i].wait_fd < 0)
			nic->queues[i].wait_fd = wait_find(nic->device.kind, &before, 0);
		if (ret == 0)
			ret = rte_eth_tx_queue_setup(nic->port, i, o->tx_desc, (unsigned)numa_node, NULL);
		if (ret != 0)
			return FAIL(o, ret, "%s: queue %u: %s%s", o->cfg->device, i,
			        complaint_or(rte_strerror(-ret)),
			        nic->device.kind == DEVICE_AFXDP ? afxdp_hint : "");
	}
	return ret;
}

static struct rte_ring *ring_new(struct opening *o, const char *kind, uint32_t stack, uint32_t size)
{
	char name[RTE_RING_NAMESIZE];
	struct rte_ring *ring;

	snprintf(name, sizeof(name), "%s%u", kind, stack);
	ring = rte_ring_create(
	        name, size, rte_eth_dev_socket_id(o->nic->port), RING_F_MP_RTS_ENQ | RING_F_SC_DEQ);
	if (ring == NULL)
		FAIL(o, -ENOMEM, "no memory for the ring of stack %u", stack);
	return ring;
}

/* The software half of each stack's queue. */
static int stacks_setup(struct opening *o)
{
	struct nic *nic = o->nic;
	uint64_t tx = o->conf.txmode.offloads;

	for (uint32_t i = 0; i < nic->stack_count; i++) {
		struct nic_queue *q = &nic->queues[i];

		q->nic = nic;
		q->pool = nic->pool;
		q->stack_idx = i;
		q->stack_count = nic->stack_count;
		q->port = nic->port;
		q->hw = (uint16_t)(i % nic->hw_count);
		q->has_hw = i < nic->hw_count;
		q->link_polled = nic->device.kind == DEVICE_MEMIF && q->has_hw;
		q->link_started = q->link_polled && o->cfg->memif_role == CFG_MEMIF_ROLE_CLIENT;
		if (q->link_polled) {
			int ret = memif_wait_open(q, q->link_started);

			if (ret != 0)
				return FAIL(o, ret, "no descriptor to wait on: %s", strerror(-ret));
		}
		q->tx_flags_ip = tx & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM ? RTE_MBUF_F_TX_IP_CKSUM : 0;
		q->tx_flags_tcp = tx & RTE_ETH_TX_OFFLOAD_TCP_CKSUM ? RTE_MBUF_F_TX_TCP_CKSUM : 0;
		q->tx_flags_udp = tx & RTE_ETH_TX_OFFLOAD_UDP_CKSUM ? RTE_MBUF_F_TX_UDP_CKSUM : 0;
		q->frame_max = o->mtu + RTE_ETHER_HDR_LEN;
		q->frame_big = nic->device.kind == DEVICE_MEMIF ? MEMIF_BUFFER : 0;
		if (!q->has_hw)
			q->wait_fd = nic->never_fd;
		if (nic->stack_count == 1)
			break;
		q->handoff = ring_new(o, "handoff", i, NIC_HANDOFF_SIZE);
		if (q->handoff == NULL)
			return -ENOMEM;
		if (q->has_hw && nic->hw_count + i < nic->stack_count) {
			q->tx_shared = ring_new(o, "tx", i, NIC_TX_SHARED_SIZE);
			if (q->tx_shared == NULL)
				return -ENOMEM;
		}
		if (!q->has_hw) {
			q->tx_via_stack = q->hw;
			q->tx_via = nic->queues[q->hw].tx_shared;
		}
	}
	return 0;
}

static int port_start(struct opening *o)
{
	struct nic *nic = o->nic;
	bool peer_may_come = nic->device.kind == DEVICE_MEMIF;
	int ret = device_before_start(&nic->device, o->err, o->err_size);

	if (ret != 0)
		return ret;
	eal_listen();
	atomic_store(&nic->link_tag, device_link_tag(&nic->device, nic->device.memif_id));
	ret = rte_eth_dev_start(nic->port);
	if (ret != 0 && !peer_may_come)
		return FAIL(
		        o, ret, "%s does not start: %s", o->cfg->device, complaint_or(rte_strerror(-ret)));
	if (ret != 0)
		log_notice("%s: no peer yet; packets are dropped until it comes", o->cfg->device);
	nic->started = true;
	/* groups are joined above this layer; a driver that cannot do this does not filter, or is asked by
	 * device_after_start */
	rte_eth_allmulticast_enable(nic->port);
	for (uint32_t i = 0; i < nic->hw_count; i++)
		nic->queues[i].up = ret == 0;
	ret = rss_program(o);
	if (ret != 0)
		return ret;
	for (uint16_t i = 0; i < nic->hw_count && o->conf.intr_conf.rxq; i++) {
		nic->queues[i].wait_fd = rte_eth_dev_rx_intr_ctl_q_get_fd(nic->port, i);
		nic->queues[i].wait_intr = nic->queues[i].wait_fd >= 0;
	}
	return device_after_start(&nic->device, o->cfg, o->err, o->err_size);
}

/* Our Ethernet address. */
static int mac_choose(struct opening *o)
{
	struct nic *nic = o->nic;
	struct rte_ether_addr mac;
	int ret = 0;

	if (nic->device.has_mac) {
		memcpy(mac.addr_bytes, nic->device.mac, 6);
		if (nic->device.kind == DEVICE_PCI)
			ret = rte_eth_dev_default_mac_addr_set(nic->port, &mac);
	} else {
		ret = rte_eth_macaddr_get(nic->port, &mac);
	}
	if (ret != 0)
		return FAIL(o, ret, "%s: its Ethernet address cannot be read or set", o->cfg->device);
	memcpy(nic->info.mac, mac.addr_bytes, 6);
	return 0;
}

static void info_fill(struct opening *o)
{
	struct nic *nic = o->nic;
	uint32_t partial = o->cfg->partial_checksum;

	snprintf(nic->info.driver, sizeof(nic->info.driver), "%s", o->dev.driver_name);
	snprintf(nic->info.name, sizeof(nic->info.name), "%.63s", o->cfg->device);
	nic->info.mtu = (uint16_t)o->mtu;
	nic->info.queue_count = nic->hw_count;
	nic->rx_ring = o->rx_desc;
	nic->tx_ring = o->tx_desc;
	nic->rx_offloads = o->conf.rxmode.offloads;
	nic->tx_offloads = o->conf.txmode.offloads;
	nic->info.rss_hw = nic->rss_hw;
	nic->info.frame_big = nic->queues[0].frame_big;
	nic->info.numa_node = rte_eth_dev_socket_id(nic->port);
	nic->accept_partial = partial == CFG_PARTIAL_CHECKSUM_ACCEPT ||
	                      (partial == CFG_PARTIAL_CHECKSUM_AUTO && device_is_virtual(&nic->device));
}

/* Where a frame's time is noted. */
static const struct rte_mbuf_dynfield time_field = {
        .name = "pronk_rx_time", .size = sizeof(uint64_t), .align = _Alignof(uint64_t)};

int nic_open(struct nic **out, const struct cfg *cfg, uint32_t stack_count,
        void (*wake)(void *arg, uint32_t stack_idx), void *wake_arg, char *err, size_t err_size)
{
	struct opening o = {.cfg = cfg, .err = err, .err_size = err_size};
	struct nic *nic;
	int ret;

	if (stack_count == 0 || stack_count > NIC_STACK_MAX)
		return nic_fail(err, err_size, -EINVAL, "%u stacks: from 1 to %d are possible", stack_count,
		        NIC_STACK_MAX);
	nic = aligned_alloc(PRONK_CACHE_LINE, RTE_ALIGN_CEIL(sizeof(*nic), (size_t)PRONK_CACHE_LINE));
	if (nic == NULL)
		return nic_fail(err, err_size, -ENOMEM, "no memory");
	memset(nic, 0, sizeof(*nic));
	o.nic = nic;
	nic->stack_count = stack_count;
	nic->wake = wake;
	nic->wake_arg = wake_arg;
	for (uint32_t i = 0; i < NIC_STACK_MAX; i++)
		nic->queues[i].wait_fd = -1;
	nic->never_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	ret = device_parse(&nic->device, cfg->device, err, err_size);
	nic->device.memif_id = cfg->memif_id;
	if (ret == 0)
		ret = device_prepare(&nic->device, cfg, stack_count, err, err_size);
	if (ret != 0)
		goto close;
	o.mtu = cfg->mtu != 0 ? cfg->mtu : nic->device.mtu != 0 ? nic->device.mtu : RTE_ETHER_MTU;
	ret = secondary_prepare(cfg, err, err_size);
	if (ret != 0)
		goto close;
	ret = eal_start(cfg, &nic->device, pages_packet_bytes(cfg, o.mtu), err, err_size);
	if (ret != 0)
		goto close;
	nic->eal_up = true;
	nic->time_off = rte_mbuf_dynfield_register(&time_field);
	ret = port_find(&o);
	if (ret == 0)
		ret = port_configure(&o);
	if (ret == 0)
		ret = queues_setup(&o);
	if (ret == 0)
		ret = mac_choose(&o);
	if (ret == 0)
		ret = stacks_setup(&o);
	if (ret == 0 && nic->device.kind == DEVICE_TAP && o.mtu != RTE_ETHER_MTU)
		rte_eth_dev_set_mtu(nic->port, (uint16_t)o.mtu);
	if (ret == 0)
		ret = port_start(&o);
	if (ret == 0)
		ret = secondary_serve(err, err_size);
	if (ret != 0)
		goto close;
	info_fill(&o);
	eal_ready();
	*out = nic;
	return 0;
close:
	nic_close(nic);
	return ret;
}

void nic_close(struct nic *nic)
{
	if (nic == NULL)
		return;
	for (uint32_t i = 0; i < nic->stack_count; i++) {
		struct nic_queue *q = &nic->queues[i];
		void *m;

		rte_pktmbuf_free_bulk(q->tx, q->tx_count);
		inject_close(q);
		while (q->handoff != NULL && rte_ring_sc_dequeue(q->handoff, &m) == 0)
			rte_pktmbuf_free(m);
		while (q->tx_shared != NULL && rte_ring_sc_dequeue(q->tx_shared, &m) == 0)
			rte_pktmbuf_free(m);
	}
	secondary_hang_up();
	if (nic->started && nic->queues[0].up)
		rte_eth_dev_stop(nic->port);
	if (nic->has_port)
		rte_eth_dev_close(nic->port);
	for (uint32_t i = 0; i < nic->stack_count; i++)
		if (nic->queues[i].link_polled)
			memif_wait_close(&nic->queues[i]);
	if (nic->vdev[0] != '\0')
		rte_eal_hotplug_remove("vdev", nic->vdev);
	if (nic_may_fork)
		intr_disown();
	for (uint32_t i = 0; i < nic->stack_count; i++) {
		rte_ring_free(nic->queues[i].handoff);
		rte_ring_free(nic->queues[i].tx_shared);
		free(nic->queues[i].lent);
	}
	for (uint32_t i = 0; i < NIC_CAPTURE_MAX; i++)
		nic_capture_free(nic, i);
	pool_regions_close(nic);
	rte_mempool_free(nic->pool);
	if (nic->eal_up) {
		eal_stop();
		secondary_end();
	}
	device_restore(&nic->device);
	if (nic->never_fd >= 0)
		close(nic->never_fd);
	free(nic);
}

void nic_info_get(struct nic *nic, struct nic_info *info)
{
	struct rte_eth_link link = {.link_status = RTE_ETH_LINK_DOWN};

	*info = nic->info;
	info->link_up = rte_eth_link_get_nowait(nic->port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

struct nic_queue *nic_queue_get(struct nic *nic, uint32_t stack_idx)
{
	return stack_idx < nic->stack_count ? &nic->queues[stack_idx] : NULL;
}

int nic_thread_attach(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY) /* the thread that called nic_open is known already */
		return 0;
	if (secondary_thread())
		return 0;
	return rte_thread_register() == 0 ? 0 : -rte_errno;
}

void nic_thread_act(void)
{
	if (unlikely(rte_lcore_id() != rte_get_main_lcore()))
		RTE_PER_LCORE(_lcore_id) = rte_get_main_lcore();
}

void nic_thread_detach(void)
{
	rte_thread_unregister();
}

void nic_fork_prepare(void)
{
	intr_fork_prepare();
}

void nic_fork_parent(void)
{
	intr_fork_parent();
}

int nic_fork_child(void)
{
	return intr_fork_child();
}
