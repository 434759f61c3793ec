/* mib.c - the counters of RFC 4293 (IP, ICMP), RFC 4022 (TCP) and RFC 4113 (UDP) that need a look at packets.
 *
 * Runs in the stack's thread. What every packet raises is a plain number in struct stack, and what lwIP
 * counts is lwIP's: both get into the statistics segment in the housekeeping phase. Everything else is
 * counted where it happens. What is a sum of others is not counted at all: tools/mib_table.c adds it up.
 */
#include "stack_int.h"

#include "lwip/prot/icmp.h"
#include "lwip/stats.h"
#include "udp.h"

/* lwIP's counters have 32 bits and begin anew; ours are told what came since the last look. */
static const struct {
	enum stat_id id;
	size_t off;
} of_lwip[] = {
        {STAT_ip_in_hdr_errors, offsetof(struct stats_, mib2.ipinhdrerrors)},
        {STAT_ip_in_hdr_errors, offsetof(struct stats_, ip.lenerr)},
        {STAT_ip_in_unknown_protos, offsetof(struct stats_, mib2.ipinunknownprotos)},
        {STAT_ip_reasm_fragments, offsetof(struct stats_, mib2.ipreasmreqds)},
        {STAT_ip_reasm_oks, offsetof(struct stats_, mib2.ipreasmoks)},
        {STAT_ip_reasm_fails, offsetof(struct stats_, mib2.ipreasmfails)},
        {STAT_ip_frag_oks, offsetof(struct stats_, mib2.ipfragoks)},
        {STAT_ip_frag_creates, offsetof(struct stats_, ip_frag.xmit)},
        {STAT_icmp_in_errors, offsetof(struct stats_, mib2.icmpinerrors)},
        {STAT_tcp_in_errors, offsetof(struct stats_, tcp.chkerr)}, /* put together from fragments */
};

_Static_assert(ARRAY_COUNT(of_lwip) == MIB_LWIP_COUNT, "one place for each");

static uint32_t lwip_value(unsigned i)
{
	return *(const STAT_COUNTER *)((const char *)&lwip_stats + of_lwip[i].off);
}

void mib_enter(struct stack *s)
{
	/* the thread may have run another stack before */
	for (unsigned i = 0; i < ARRAY_COUNT(of_lwip); i++)
		s->mib.lwip_seen[i] = lwip_value(i);
}

void mib_publish(struct stack *s)
{
	struct mib *m = &s->mib;

	stat_set(s->stats, STAT_ip_in_packets, m->ip_in_packets);
	stat_set(s->stats, STAT_ip_in_octets, m->ip_in_octets);
	stat_set(s->stats, STAT_ip_out_octets, m->ip_out_octets);
	stat_set(s->stats, STAT_tcp_out_segs, m->tcp_out_segs);
	stat_set(s->stats, STAT_tcp_curr_estab, m->curr_estab);
	for (unsigned i = 0; i < ARRAY_COUNT(of_lwip); i++) {
		uint32_t now = lwip_value(i);

		if (now != m->lwip_seen[i])
			stat_add(s->stats, of_lwip[i].id, now - m->lwip_seen[i]);
		m->lwip_seen[i] = now;
	}
}

/* --- ICMP by type --- */

void mib_icmp(struct stack *s, uint8_t type, bool is_out)
{
	static const struct {
		uint8_t type;
		enum stat_id in, out;
	} types[] = {
	        {ICMP_ER, STAT_icmp_in_echo_reps, STAT_icmp_out_echo_reps},
	        {ICMP_DUR, STAT_icmp_in_dest_unreachs, STAT_icmp_out_dest_unreachs},
	        {ICMP_RD, STAT_icmp_in_redirects, STAT_icmp_out_others},
	        {ICMP_ECHO, STAT_icmp_in_echos, STAT_icmp_out_others},
	        {ICMP_TE, STAT_icmp_in_time_excds, STAT_icmp_out_time_excds},
	        {ICMP_PP, STAT_icmp_in_parm_probs, STAT_icmp_out_others},
	};
	enum stat_id id = is_out ? STAT_icmp_out_others : STAT_icmp_in_others;

	for (unsigned i = 0; i < ARRAY_COUNT(types); i++)
		if (types[i].type == type)
			id = is_out ? types[i].out : types[i].in;
	stat_add(s->stats, id, 1);
}

/* --- peaks --- */

void stack_peaks_reset(struct stack *s, struct stack_msg *m)
{
	uint32_t free_count, total;

	(void)m;
	buf_levels(s, &free_count, &total);
	stat_set(s->stats, STAT_worst_turn_ns, 0);
	stat_set(s->stats, STAT_buffers_low, free_count);
	stat_set(s->stats, STAT_blocks_low, s->block_free_count);
}
