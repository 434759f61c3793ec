/* neigh.c - neighbours: which Ethernet address an IPv4 next hop has (RFC 826).
 *
 * Runs in the stack's thread; each stack has its own table, and sees every ARP frame. Stack 0 answers
 * requests and announces our address. An entry in use is asked again when it gets old (RFC 1122 2.3.2.1)
 * while it stays in use.
 */
#include "stack_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ARP_SIZE = 42, STALE_MS = 30000, RETRY_MS = 1000, TRIES = 3, PROBE_DEPTH = 8 };
enum neigh_state { NEIGH_EMPTY, NEIGH_ASKING, NEIGH_KNOWN };

struct neigh {
	uint32_t ip;
	uint8_t mac[6];
	uint8_t state;
	uint8_t tries;
	uint8_t is_used; /* sent to since the last refresh */
	uint8_t pending_count;
	uint32_t time_ms; /* of the last confirmation or question */
	struct {
		struct nic_buf *buf;
		uint8_t *ip;
		uint32_t size;
	} pending[NEIGH_PENDING];
};

int neigh_create(struct stack *s)
{
	s->neigh = calloc(NEIGH_COUNT, sizeof(*s->neigh));
	return s->neigh ? 0 : -ENOMEM;
}

static void pending_drop(struct stack *s, struct neigh *n)
{
	for (uint32_t i = 0; i < n->pending_count; i++)
		nic_buf_free(n->pending[i].buf);
	if (n->pending_count)
		COUNT(s, drop_neigh_queue, n->pending_count);
	n->pending_count = 0;
}

void neigh_destroy(struct stack *s)
{
	for (uint32_t i = 0; s->neigh && i < NEIGH_COUNT; i++)
		pending_drop(s, &s->neigh[i]);
	free(s->neigh);
	s->neigh = NULL;
}

static inline uint32_t slot_of(uint32_t ip)
{
	return (ip * 0x9e3779b1u) >> 22;
}

_Static_assert(NEIGH_COUNT == 1 << 10, "slot_of takes the top ten bits");

static struct neigh *find(struct stack *s, uint32_t ip)
{
	for (uint32_t i = 0; i < PROBE_DEPTH; i++) {
		struct neigh *n = &s->neigh[(slot_of(ip) + i) % NEIGH_COUNT];

		if (n->state != NEIGH_EMPTY && n->ip == ip)
			return n;
	}
	return NULL;
}

/* A free entry for ip, or the one of its places that was confirmed longest ago. */
static struct neigh *take(struct stack *s, uint32_t ip)
{
	struct neigh *old = NULL;

	for (uint32_t i = 0; i < PROBE_DEPTH; i++) {
		struct neigh *n = &s->neigh[(slot_of(ip) + i) % NEIGH_COUNT];

		if (n->state == NEIGH_EMPTY) {
			old = n;
			break;
		}
		if (!old || (int32_t)(n->time_ms - old->time_ms) < 0)
			old = n;
	}
	pending_drop(s, old);
	memset(old, 0, sizeof(*old));
	old->ip = ip;
	return old;
}

static void arp_send(
        struct stack *s, uint16_t op, const uint8_t to[6], uint32_t target_ip, const uint8_t target_mac[6])
{
	static const uint8_t fixed[] = {0x08, 0x06, 0, 1, 0x08, 0, 6, 4};
	uint8_t *d;
	struct nic_buf *buf = nic_buf_alloc(s->queue, &d, NULL);

	if (!buf)
		return;
	memcpy(d, to, 6);
	memcpy(d + 6, s->mac, 6);
	memcpy(d + 12, fixed, sizeof(fixed));
	d[20] = 0;
	d[21] = (uint8_t)op;
	memcpy(d + 22, s->mac, 6);
	memcpy(d + 28, &s->address, 4);
	memcpy(d + 32, target_mac, 6);
	memcpy(d + 38, &target_ip, 4);
	memset(d + ARP_SIZE, 0, 18);
	nic_tx(s->queue, buf, d, 60);
	COUNT(s, arp_tx, 1);
}

static void ask(struct stack *s, struct neigh *n)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255}, none[6];

	n->time_ms = s->now_ms;
	n->tries++;
	arp_send(s, 1, n->state == NEIGH_KNOWN ? n->mac : all, n->ip, none);
}

/* Tells the network where our address is (RFC 5227 section 2.3), for neighbours that remember an earlier
 * owner. */
void neigh_announce(struct stack *s)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255}, none[6];

	arp_send(s, 1, all, s->address, none);
	nic_tx_flush(s->queue);
}

static void eth_send(struct stack *s, const struct neigh *n, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	uint8_t *eth = ip - 14;

	memcpy(eth, n->mac, 6);
	memcpy(eth + 6, s->mac, 6);
	eth[12] = 0x08;
	eth[13] = 0;
	nic_tx(s->queue, buf, eth, size + 14);
}

void neigh_send(struct stack *s, uint32_t next_hop, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	struct neigh *n = find(s, next_hop);

	if (likely(n && n->state == NEIGH_KNOWN)) {
		n->is_used = 1;
		eth_send(s, n, buf, ip, size);
		return;
	}
	if (!n) {
		n = take(s, next_hop);
		n->state = NEIGH_ASKING;
		ask(s, n);
	}
	if (n->pending_count == NEIGH_PENDING) { /* the newest are kept (RFC 1122 2.3.2.2) */
		nic_buf_free(n->pending[0].buf);
		memmove(&n->pending[0], &n->pending[1], sizeof(n->pending[0]) * (NEIGH_PENDING - 1));
		n->pending_count--;
		COUNT(s, drop_neigh_queue, 1);
	}
	n->pending[n->pending_count].buf = buf;
	n->pending[n->pending_count].ip = ip;
	n->pending[n->pending_count++].size = size;
}

static void learn(struct stack *s, uint32_t ip, const uint8_t mac[6], bool may_add)
{
	struct neigh *n = find(s, ip);

	if (!n) {
		if (!may_add)
			return;
		n = take(s, ip);
	}
	if (n->state != NEIGH_KNOWN)
		COUNT(s, neigh_learned, 1);
	memcpy(n->mac, mac, 6);
	n->state = NEIGH_KNOWN;
	n->tries = 0;
	n->time_ms = s->now_ms;
	for (uint32_t i = 0; i < n->pending_count; i++)
		eth_send(s, n, n->pending[i].buf, n->pending[i].ip, n->pending[i].size);
	n->pending_count = 0;
}

void neigh_input(struct stack *s, const uint8_t *frame, uint32_t size)
{
	static const uint8_t want[] = {0, 1, 0x08, 0, 6, 4, 0};
	uint32_t sender, target;
	uint8_t op;

	COUNT(s, arp_rx, 1);
	if (size < ARP_SIZE || memcmp(frame + 14, want, sizeof(want)) != 0)
		return;
	op = frame[21];
	memcpy(&sender, frame + 28, 4);
	memcpy(&target, frame + 38, 4);
	if (!sender || sender == s->address || (frame[22] & 1))
		return;
	if ((sender ^ s->address) & s->netmask)
		return; /* nobody outside the network answers for itself here */
	learn(s, sender, frame + 22, target == s->address);
	if (op == 1 && target == s->address && s->idx == 0)
		arp_send(s, 2, frame + 22, sender, frame + 22);
}

/* Housekeeping, about once a second. */
void neigh_tick(struct stack *s)
{
	for (uint32_t i = 0; i < NEIGH_COUNT; i++) {
		struct neigh *n = &s->neigh[i];
		uint32_t age = s->now_ms - n->time_ms;

		if (n->state == NEIGH_ASKING && age >= RETRY_MS) {
			if (n->tries < TRIES) {
				ask(s, n);
				continue;
			}
			pending_drop(s, n);
			n->state = NEIGH_EMPTY;
			tcp_unreachable(s, n->ip);
		} else if (n->state == NEIGH_KNOWN && age >= (n->tries ? RETRY_MS : STALE_MS)) {
			if (n->tries >= TRIES || (!n->is_used && !n->tries)) {
				if (!n->is_used || n->tries >= TRIES)
					n->state = NEIGH_EMPTY;
				continue;
			}
			n->is_used = 0;
			ask(s, n);
		}
	}
}
