/* mib_table.c - which of the service's statistics a counter of the RFCs is made of.
 *
 * Names are those of RFC 4293 (ipSystemStats..., icmpStats..., icmpMsgStats... with the type behind a dot),
 * RFC 4022 (tcp...) and RFC 4113 (udp...); ARP has no such counters, its names are ours. The high-capacity
 * twins (ipSystemStatsHCInReceives and so on) are left out, as every counter here has 64 bits.
 */
#include "mib.h"

#include <stdio.h>
#include <string.h>

/* What TCP, UDP, ICMP and IGMP got of IP, and gave to it. Copies for several sockets were one packet. */
#define DELIVERED                                                                                              \
	"tcp_rx_predicted tcp_rx_general tcp_in_bad_cksum udp_rx udp_no_ports udp_in_errors udp_in_bad_cksum " \
	"icmp_rx igmp_rx -udp_copies"
#define REQUESTED "tcp_out_segs udp_tx drop_tx_too_long icmp_tx igmp_tx"

const struct mib_entry mib_table[] = {
        {"ip", "ipSystemStatsInReceives",
                "ip_in_packets ip_in_bad_cksum tcp_in_bad_cksum udp_in_bad_cksum drop_rx_short"},
        {"ip", "ipSystemStatsInOctets", "ip_in_octets"},
        {"ip", "ipSystemStatsInHdrErrors", "ip_in_bad_cksum ip_in_hdr_errors"},
        {"ip", "ipSystemStatsInNoRoutes", ""},
        {"ip", "ipSystemStatsInAddrErrors", "ip_in_addr_errors"},
        {"ip", "ipSystemStatsInUnknownProtos", "ip_in_unknown_protos"},
        {"ip", "ipSystemStatsInTruncatedPkts", "drop_rx_short"},
        {"ip", "ipSystemStatsInForwDatagrams", ""},
        {"ip", "ipSystemStatsReasmReqds", "ip_reasm_fragments"},
        {"ip", "ipSystemStatsReasmOKs", "ip_reasm_oks"},
        {"ip", "ipSystemStatsReasmFails", "ip_reasm_fails"},
        {"ip", "ipSystemStatsInDiscards", "drop_handoff_full"},
        {"ip", "ipSystemStatsInDelivers", DELIVERED},
        {"ip", "ipSystemStatsOutRequests", REQUESTED},
        {"ip", "ipSystemStatsOutNoRoutes", "drop_tx_no_route"},
        {"ip", "ipSystemStatsOutForwDatagrams", ""},
        {"ip", "ipSystemStatsOutDiscards", "drop_tx_nobuf drop_tx_full drop_neigh_queue drop_loop_full"},
        {"ip", "ipSystemStatsOutFragReqds", "ip_frag_oks drop_tx_too_long"},
        {"ip", "ipSystemStatsOutFragOKs", "ip_frag_oks"},
        {"ip", "ipSystemStatsOutFragFails", "drop_tx_too_long"},
        {"ip", "ipSystemStatsOutFragCreates", "ip_frag_creates"},
        {"ip", "ipSystemStatsOutTransmits",
                "tcp_out_segs udp_tx icmp_tx igmp_tx ip_frag_creates -ip_frag_oks -drop_tx_no_route"},
        {"ip", "ipSystemStatsOutOctets", "ip_out_octets"},
        {"ip", "ipSystemStatsInMcastPkts", "ip_in_mcast_packets"},
        {"ip", "ipSystemStatsOutMcastPkts", "ip_out_mcast_packets"},
        {"ip", "ipSystemStatsInBcastPkts", "ip_in_bcast_packets"},
        {"ip", "ipSystemStatsOutBcastPkts", "ip_out_bcast_packets"},

        {"icmp", "icmpStatsInMsgs", "icmp_rx"},
        {"icmp", "icmpStatsInErrors", "icmp_in_errors"},
        {"icmp", "icmpStatsOutMsgs", "icmp_tx"},
        {"icmp", "icmpStatsOutErrors", ""},
        {"icmp", "icmpMsgStatsInPkts.0", "icmp_in_echo_reps"},
        {"icmp", "icmpMsgStatsInPkts.3", "icmp_in_dest_unreachs"},
        {"icmp", "icmpMsgStatsInPkts.5", "icmp_in_redirects"},
        {"icmp", "icmpMsgStatsInPkts.8", "icmp_in_echos"},
        {"icmp", "icmpMsgStatsInPkts.11", "icmp_in_time_excds"},
        {"icmp", "icmpMsgStatsInPkts.12", "icmp_in_parm_probs"},
        {"icmp", "icmpMsgStatsOutPkts.0", "icmp_out_echo_reps"},
        {"icmp", "icmpMsgStatsOutPkts.3", "icmp_out_dest_unreachs"},
        {"icmp", "icmpMsgStatsOutPkts.11", "icmp_out_time_excds"},

        {"tcp", "tcpActiveOpens", "tcp_active_opens"},
        {"tcp", "tcpPassiveOpens", "tcp_passive_opens"},
        {"tcp", "tcpAttemptFails", "tcp_attempt_fails"},
        {"tcp", "tcpEstabResets", "tcp_estab_resets"},
        {"tcp", "tcpCurrEstab", "tcp_curr_estab"},
        {"tcp", "tcpInSegs", "tcp_rx_predicted tcp_rx_general tcp_in_bad_cksum"},
        {"tcp", "tcpOutSegs", "tcp_out_segs -tcp_out_again"},
        {"tcp", "tcpRetransSegs", "tcp_out_again"},
        {"tcp", "tcpInErrs", "tcp_in_bad_cksum tcp_in_errors"},
        {"tcp", "tcpOutRsts", "tcp_reset_tx"},

        {"udp", "udpInDatagrams", "udp_rx"},
        {"udp", "udpNoPorts", "udp_no_ports"},
        {"udp", "udpInErrors", "udp_in_errors udp_in_bad_cksum"},
        {"udp", "udpOutDatagrams", "udp_tx"},

        {"arp", "arpInRequests", "arp_in_requests"},
        {"arp", "arpInReplies", "arp_in_replies"},
        {"arp", "arpOutRequests", "arp_out_requests"},
        {"arp", "arpOutReplies", "arp_out_replies"},
};

const uint32_t mib_count = ARRAY_COUNT(mib_table);

bool mib_is_gauge(const struct mib_entry *e, const struct source *src)
{
	int idx = stat_view_find(&src->view, e->parts);

	return idx >= 0 && stat_view_entry(&src->view, (uint32_t)idx)->kind != PRONK_STATS_COUNTER;
}

int mib_value(const struct mib_entry *e, const struct source *src, const struct sample *s, uint64_t *out)
{
	uint64_t plus = 0, minus = 0;

	for (const char *p = e->parts; *p;) {
		size_t size = strcspn(p, " ");
		bool is_minus = *p == '-';
		char name[PRONK_STATS_NAME_SIZE];
		int idx;

		snprintf(name, sizeof(name), "%.*s", (int)(size - is_minus), p + is_minus);
		idx = stat_view_find(&src->view, name);
		if (idx < 0)
			return idx;
		*(is_minus ? &minus : &plus) += sample_value(src, s, SAMPLE_ALL, (uint32_t)idx);
		p += size + (p[size] == ' ');
	}
	/* the parts were not read at one moment */
	*out = plus > minus ? plus - minus : 0;
	return 0;
}
