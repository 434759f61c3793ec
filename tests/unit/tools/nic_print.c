/* nic_print.c [json] - what `pronkctl nic` shows of a made-up port: engine/report.c with a port behind it
 * that has something of everything. With "memif", of one to a peer. */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "engine_int.h"
#include "report_cmd.h"

static bool is_memif;

void nic_report(struct nic *nic, struct nic_report *r)
{
	(void)nic;
	*r = (struct nic_report){.kind = is_memif ? "memif" : "pci",
	        .firmware = "8.30 \"x\"",
	        .rx_mode = "Vector",
	        .link_mbps = is_memif ? 0 : 25000,
	        .is_full_duplex = true,
	        .is_autoneg = true,
	        .is_all_multicast = true,
	        .mtu_min = 68,
	        .mtu_max = 9710,
	        .rx_queues = 2,
	        .tx_queues = 2,
	        .rx_queues_max = 64,
	        .tx_queues_max = 32,
	        .rx_ring = 1024,
	        .tx_ring = 512,
	        .rx_offered = "IPV4_CKSUM UDP_CKSUM TCP_CKSUM SCATTER",
	        .rx_used = "IPV4_CKSUM UDP_CKSUM",
	        .tx_offered = "IPV4_CKSUM",
	        .stack_count = 2,
	        .table_size = NIC_TABLE_MAX,
	        .hw_table_size = is_memif ? 0 : 512,
	        .hw_table_same = !is_memif,
	        .key_size = 40,
	        .buffers_free = 30000,
	        .buffers_total = 32768,
	        .buffer_size = 2176,
	        .region_count = 1,
	        .page_size = 2 << 20,
	        .is_memif = is_memif,
	        .is_memif_server = true,
	        .memif_id = 3,
	        .memif_tag = 0x1234abcd};
	r->info = (struct nic_info){.mac = {2, 0, 0, 0xaa, 0xbb, 0xcc},
	        .mtu = 1500,
	        .queue_count = 2,
	        .rss_hw = !is_memif,
	        .link_up = true,
	        .numa_node = -1,
	        .frame_big = is_memif ? 61504 : 0};
	strcpy(r->info.driver, is_memif ? "net_memif" : "net_ice");
	for (int i = 0; i < NIC_TABLE_MAX; i++)
		r->table[i] = (uint8_t)(i % 2);
	for (uint32_t i = 0; i < r->key_size; i++)
		r->key[i] = (uint8_t)(i * 7);
}

int nic_xstats(struct nic *nic, void (*fn)(void *arg, const char *name, uint64_t value), void *arg)
{
	(void)nic;
	fn(arg, "rx_good_packets", 123456789012ull);
	fn(arg, "rx_errors", 0);
	return 2;
}

int main(int argc, char **argv)
{
	static struct engine e;
	struct command_words w = {.count = 1};

	for (int i = 1; i < argc; i++) {
		w.json |= !strcmp(argv[i], "json");
		is_memif |= !strcmp(argv[i], "memif");
	}
	strcpy(e.device, is_memif ? "memif:/run/x.sock" : "0000:3b:00.0");
	return report_nic(&e, &w, stdout) ? 1 : 0;
}
