/* report.c - what the port tells of itself, for tools. Control thread; only calls of DPDK that look. */
#include <stdlib.h>
#include <string.h>

#include "nic_int.h"

static const char *kind_name(enum device_kind kind)
{
	static const char *const names[] = {
	        [DEVICE_TAP] = "tap",
	        [DEVICE_AFPACKET] = "afpacket",
	        [DEVICE_AFXDP] = "afxdp",
	        [DEVICE_MEMIF] = "memif",
	        [DEVICE_PCI] = "pci",
	        [DEVICE_NULL] = "null",
	        [DEVICE_RING] = "ring",
	};

	return names[kind];
}

static void names_fill(char *buf, uint64_t offloads, const char *(*name)(uint64_t offload))
{
	size_t used = 0;

	buf[0] = 0;
	for (; offloads && used < NIC_NAMES_SIZE; offloads &= offloads - 1)
		used += (size_t)snprintf(buf + used, NIC_NAMES_SIZE - used, "%s%s", used ? " " : "",
		        name(offloads & -offloads));
}

/* The indirection table that hardware has, where it has the word. */
static void table_read(const struct nic *nic, const struct rte_eth_dev_info *dev, struct nic_report *r)
{
	struct rte_eth_rss_reta_entry64 reta[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE] = {0};

	if (!nic->rss_hw || dev->reta_size > RTE_ETH_RSS_RETA_SIZE_512)
		return;
	r->hw_table_size = dev->reta_size;
	for (uint32_t i = 0; i < dev->reta_size; i++)
		reta[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ULL << (i % RTE_ETH_RETA_GROUP_SIZE);
	r->hw_table_same = rte_eth_dev_rss_reta_query(nic->port, reta, dev->reta_size) == 0;
	for (uint32_t i = 0; i < dev->reta_size && r->hw_table_same; i++)
		r->hw_table_same = reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] ==
		                   nic->rss.stack[i % RSS_TABLE_SIZE];
}

static void link_fill(const struct nic *nic, struct nic_report *r)
{
	struct rte_eth_link link = {0};

	if (rte_eth_link_get_nowait(nic->port, &link) != 0)
		return;
	r->link_mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	r->is_full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	r->is_autoneg = link.link_autoneg == RTE_ETH_LINK_AUTONEG;
}

static void memory_fill(struct nic *nic, struct nic_report *r)
{
	nic_buf_levels(&nic->queues[0], &r->buffers_free, &r->buffers_total);
	r->buffer_size = rte_pktmbuf_data_room_size(nic->pool);
	r->region_count = nic->region_count;
	for (uint32_t i = 0; i < nic->region_count; i++)
		if (r->page_size == 0 || nic->regions[i].page_size < r->page_size)
			r->page_size = nic->regions[i].page_size;
}

void nic_report(struct nic *nic, struct nic_report *r)
{
	struct rte_eth_burst_mode mode = {0};
	struct rte_eth_dev_info dev = {0};

	memset(r, 0, sizeof(*r));
	nic_info_get(nic, &r->info);
	r->kind = kind_name(nic->device.kind);
	snprintf(r->arg, sizeof(r->arg), "%s", nic->device.arg);
	link_fill(nic, r);
	memory_fill(nic, r);
	if (rte_eth_dev_info_get(nic->port, &dev) == 0) {
		r->mtu_min = dev.min_mtu;
		r->mtu_max = dev.max_mtu;
		r->rx_queues_max = dev.max_rx_queues;
		r->tx_queues_max = dev.max_tx_queues;
		names_fill(r->rx_offered, dev.rx_offload_capa, rte_eth_dev_rx_offload_name);
		names_fill(r->tx_offered, dev.tx_offload_capa, rte_eth_dev_tx_offload_name);
	}
	names_fill(r->rx_used, nic->rx_offloads, rte_eth_dev_rx_offload_name);
	names_fill(r->tx_used, nic->tx_offloads, rte_eth_dev_tx_offload_name);
	if (rte_eth_dev_fw_version_get(nic->port, r->firmware, sizeof(r->firmware)) != 0)
		r->firmware[0] = 0;
	if (rte_eth_rx_burst_mode_get(nic->port, 0, &mode) == 0)
		snprintf(r->rx_mode, sizeof(r->rx_mode), "%.*s", NIC_MODE_SIZE - 1, mode.info);
	if (rte_eth_tx_burst_mode_get(nic->port, 0, &mode) == 0)
		snprintf(r->tx_mode, sizeof(r->tx_mode), "%.*s", NIC_MODE_SIZE - 1, mode.info);
	r->is_promiscuous = rte_eth_promiscuous_get(nic->port) == 1;
	r->is_all_multicast = rte_eth_allmulticast_get(nic->port) == 1;
	r->rx_queues = r->tx_queues = nic->hw_count;
	r->rx_ring = nic->rx_ring;
	r->tx_ring = nic->tx_ring;
	r->takes_partial = nic->accept_partial;
	r->stack_count = nic->stack_count;
	r->table_size = RSS_TABLE_SIZE;
	memcpy(r->table, nic->rss.stack, RSS_TABLE_SIZE);
	table_read(nic, &dev, r);
	r->key_size = nic->rss_hw ? dev.hash_key_size : 40;
	memcpy(r->key, rss_key, r->key_size);
	r->is_memif = nic->device.kind == DEVICE_MEMIF;
	if (r->is_memif) {
		r->is_memif_server = !nic->queues[0].memif.is_client;
		r->memif_id = nic->device.memif_id;
		r->memif_tag = nic_link_tag(&nic->queues[0]);
	}
}

_Static_assert(
        (int)NIC_TABLE_MAX >= (int)RSS_TABLE_SIZE && (int)NIC_KEY_MAX >= (int)RSS_KEY_SIZE, "they fit");

int nic_xstats(struct nic *nic, void (*fn)(void *arg, const char *name, uint64_t value), void *arg)
{
	struct rte_eth_xstat_name *names = NULL;
	struct rte_eth_xstat *values = NULL;
	int count = rte_eth_xstats_get_names(nic->port, NULL, 0), got;

	if (count <= 0)
		return count;
	names = calloc((size_t)count, sizeof(*names));
	values = calloc((size_t)count, sizeof(*values));
	got = names == NULL || values == NULL ? -ENOMEM
	                                      : rte_eth_xstats_get_names(nic->port, names, (unsigned)count);
	if (got > 0)
		got = rte_eth_xstats_get(nic->port, values, (unsigned)RTE_MIN(got, count));
	for (int i = 0; i < RTE_MIN(got, count); i++)
		if (values[i].id < (uint64_t)count)
			fn(arg, names[values[i].id].name, values[i].value);
	free(names);
	free(values);
	return got;
}
