/* group.c - multicast groups that endpoints have joined, and telling routers of them (IGMP, RFC 2236).
 *
 * Stack 0 keeps the table and speaks IGMP; the other stacks look whether a group is in the table when one of
 * its datagrams comes to them: an address appears there before its join is answered, and a look that is a
 * moment old does no harm. Reports are those of version 2, which every querier understands.
 */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lwip/inet_chksum.h"

enum {
	IGMP_PROTO = 2,
	IGMP_QUERY = 0x11,
	IGMP_REPORT = 0x16,
	IGMP_LEAVE = 0x17,
	IGMP_SIZE = 8,
	IP_ALERT_SIZE = 24, /* an IP header with the router alert option (RFC 2113) */
	REPORT_AGAIN_MS = 10000,
	RESPONSE_MS = 10000, /* version 1 says none */
	ALL_SYSTEMS = 0xe0000001,
	ALL_ROUTERS = 0xe0000002,
};

struct group {
	_Atomic uint32_t ip; /* network order, 0: free */
	/* stack 0 only */
	uint32_t count;
	uint32_t report_ms; /* when a report is due */
	uint8_t is_due, is_reporter;
};

int group_create(struct stack *s)
{
	if (s->idx)
		return 0;
	s->groups = calloc(GROUP_COUNT, sizeof(*s->groups));
	return s->groups ? 0 : -ENOMEM;
}

bool group_is_joined(const struct stack *s, uint32_t ip)
{
	const struct group *g = s->peers[0]->groups;

	if (ip == PP_HTONL(ALL_SYSTEMS))
		return true;
	for (uint32_t i = 0; i < GROUP_COUNT; i++)
		if (atomic_load_explicit(&g[i].ip, memory_order_relaxed) == ip)
			return true;
	return false;
}

static void igmp_send(struct stack *s, uint8_t type, uint32_t group, uint32_t to)
{
	uint8_t *ip;
	struct nic_buf *buf = nic_buf_alloc(s->queue, &ip, NULL);
	uint8_t *igmp;
	uint16_t sum;

	if (!buf)
		return;
	memset(ip, 0, IP_ALERT_SIZE + IGMP_SIZE);
	ip[0] = 0x40 | IP_ALERT_SIZE / 4;
	ip[1] = 0xc0;
	ip[3] = IP_ALERT_SIZE + IGMP_SIZE;
	ip[6] = 0x40; /* don't fragment */
	ip[8] = 1;
	ip[9] = IGMP_PROTO;
	memcpy(ip + 12, &s->address, 4);
	memcpy(ip + 16, &to, 4);
	ip[20] = 0x94;
	ip[21] = 4;
	igmp = ip + IP_ALERT_SIZE;
	igmp[0] = type;
	memcpy(igmp + 4, &group, 4);
	sum = inet_chksum(igmp, IGMP_SIZE);
	memcpy(igmp + 2, &sum, 2);
	COUNT(s, igmp_tx, 1);
	netif_send(s, to, buf, ip, IP_ALERT_SIZE + IGMP_SIZE);
}

static void report(struct stack *s, struct group *g)
{
	uint32_t ip = atomic_load_explicit(&g->ip, memory_order_relaxed);

	g->is_reporter = 1;
	igmp_send(s, IGMP_REPORT, ip, ip);
}

/* Groups of a single network need no router (RFC 2236 section 6: never for all systems). */
static bool is_told(uint32_t ip)
{
	return ip != PP_HTONL(ALL_SYSTEMS);
}

int group_join(struct stack *s, uint32_t ip)
{
	struct group *room = NULL;

	for (uint32_t i = 0; i < GROUP_COUNT; i++) {
		struct group *g = &s->groups[i];
		uint32_t has = atomic_load_explicit(&g->ip, memory_order_relaxed);

		if (has == ip) {
			g->count++;
			return 0;
		}
		if (!has && !room)
			room = g;
	}
	if (!room)
		return -ENOBUFS;
	room->count = 1;
	room->is_due = room->is_reporter = 0;
	atomic_store(&room->ip, ip);
	if (is_told(ip)) {
		report(s, room);
		/* once more, in case the first was lost */
		room->is_due = 1;
		room->report_ms = s->now_ms + 1000 + stack_rand() % (REPORT_AGAIN_MS - 1000);
	}
	return 0;
}

void group_leave(struct stack *s, uint32_t ip)
{
	for (uint32_t i = 0; i < GROUP_COUNT; i++) {
		struct group *g = &s->groups[i];

		if (atomic_load_explicit(&g->ip, memory_order_relaxed) != ip || --g->count)
			continue;
		atomic_store(&g->ip, 0);
		if (is_told(ip) && g->is_reporter)
			igmp_send(s, IGMP_LEAVE, ip, PP_HTONL(ALL_ROUTERS));
		return;
	}
}

/* What stack 0 does about a packet; arg: type, maximum response time, group. */
static void igmp_msg(struct stack *s, struct stack_msg *m)
{
	uint8_t type = (uint8_t)(m->arg >> 40);
	uint32_t group = (uint32_t)m->arg, max_ms = (uint32_t)((m->arg >> 32) & 0xff) * 100;

	if (!max_ms)
		max_ms = RESPONSE_MS;
	for (uint32_t i = 0; i < GROUP_COUNT; i++) {
		struct group *g = &s->groups[i];
		uint32_t ip = atomic_load_explicit(&g->ip, memory_order_relaxed);

		if (!ip || !is_told(ip) || (group && ip != group))
			continue;
		if (type == IGMP_REPORT) { /* somebody else has told the router */
			g->is_due = g->is_reporter = 0;
			continue;
		}
		/* after a random time (RFC 2236 section 3); the tick that sends comes once a second */
		if (max_ms <= 1000) {
			report(s, g);
			g->is_due = 0;
		} else if (!g->is_due || (int32_t)(g->report_ms - s->now_ms - max_ms) > 0) {
			g->is_due = 1;
			g->report_ms = s->now_ms + stack_rand() % (max_ms - 1000);
		}
	}
}

void group_input(struct stack *s, const uint8_t *ip, uint32_t size)
{
	uint32_t header = (uint32_t)(ip[0] & 15) * 4, total = (uint32_t)ip[2] << 8 | ip[3], group;
	const uint8_t *igmp = ip + header;
	struct stack_msg *m;

	COUNT(s, igmp_rx, 1);
	if (total > size || total < header + IGMP_SIZE || inet_chksum(igmp, (u16_t)(total - header)))
		return;
	if (igmp[0] != IGMP_QUERY && igmp[0] != IGMP_REPORT)
		return;
	memcpy(&group, igmp + 4, 4);
	if (igmp[0] == IGMP_REPORT && !group)
		return;
	m = calloc(1, sizeof(*m));
	if (!m)
		return;
	m->fn = igmp_msg;
	/* codes above 127 (version 3) mean longer times: the first of them is soon enough */
	m->arg = (uint64_t)igmp[0] << 40 | (uint64_t)LWIP_MIN(igmp[1], 127) << 32 | group;
	m->is_heap = true;
	stack_post(s->peers[0], m);
}

void group_tick(struct stack *s)
{
	for (uint32_t i = 0; i < GROUP_COUNT; i++) {
		struct group *g = &s->groups[i];

		if (!g->is_due || !g->count || (int32_t)(s->now_ms - g->report_ms) < 0)
			continue;
		g->is_due = 0;
		report(s, g);
	}
}
