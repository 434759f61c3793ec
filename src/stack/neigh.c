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

enum {
	ARP_SIZE = 42,
	ARP_FRAME = 60,
	STALE_MS = 30000,
	RETRY_MS = 1000,
	TRIES = 3,
	PROBE_DEPTH = 8,
};

/* In the padding of our ARP frames, which means nothing to others: that this is Pronk, on which link, and the
 * longest frame it takes. Two whose links have the same tag have nothing but memory between them. */
struct near {
	uint8_t magic[4];
	uint8_t big[2]; /* network order */
	uint8_t tag[8];
};
static const uint8_t near_magic[4] = {'P', 'r', 'o', 1};
_Static_assert(ARP_SIZE + sizeof(struct near) <= ARP_FRAME, "it fits the padding");
enum neigh_state { NEIGH_EMPTY, NEIGH_ASKING, NEIGH_KNOWN };

struct neigh {
	uint32_t ip;
	uint8_t mac[6];
	uint8_t state;
	uint8_t tries;
	uint8_t is_used;  /* sent to since the last refresh */
	uint8_t is_fixed; /* permanent in the kernel's table */
	uint8_t pending_count;
	uint16_t big;                                 /* longest frame it takes; 0: as the wire has it */
	uint32_t time_ms;                             /* of the last confirmation or question */
	struct neigh_packet *pending, **pending_tail; /* oldest first */
};

/* A packet that waits for the answer; lies in front of itself in its buffer. */
struct neigh_packet {
	struct neigh_packet *next;
	struct nic_buf *buf;
	uint8_t *ip;
	uint32_t size;
};

int neigh_create(struct stack *s)
{
	s->neigh = calloc(NEIGH_COUNT, sizeof(*s->neigh));
	return s->neigh ? 0 : -ENOMEM;
}

/* Takes the oldest packet off the list. */
static struct neigh_packet *pending_pop(struct stack *s, struct neigh *n)
{
	struct neigh_packet *k = n->pending;

	n->pending = k->next;
	n->pending_count--;
	s->neigh_waiting--;
	return k;
}

static void pending_drop(struct stack *s, struct neigh *n)
{
	while (n->pending_count) {
		nic_buf_free(pending_pop(s, n)->buf);
		COUNT(s, drop_neigh_queue, 1);
	}
}

static void pending_add(struct stack *s, struct neigh *n, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	struct neigh_packet *k =
	        (struct neigh_packet *)((uintptr_t)(ip - sizeof(*k)) & ~(uintptr_t)(sizeof(void *) - 1));

	/* the newest are kept (RFC 1122 2.3.2.2), as long as others leave room for them */
	if (n->pending_count == NEIGH_PENDING || (s->neigh_waiting >= NEIGH_WAITING && n->pending_count)) {
		nic_buf_free(pending_pop(s, n)->buf);
		COUNT(s, drop_neigh_queue, 1);
	} else if (s->neigh_waiting >= NEIGH_WAITING) {
		nic_buf_free(buf);
		COUNT(s, drop_neigh_queue, 1);
		return;
	}
	*k = (struct neigh_packet){.buf = buf, .ip = ip, .size = size};
	if (!n->pending_count)
		n->pending_tail = &n->pending;
	*n->pending_tail = k;
	n->pending_tail = &k->next;
	n->pending_count++;
	s->neigh_waiting++;
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
		if (!old || (old->is_fixed && !n->is_fixed) ||
		        (old->is_fixed == n->is_fixed && (int32_t)(n->time_ms - old->time_ms) < 0))
			old = n;
	}
	pending_drop(s, old);
	memset(old, 0, sizeof(*old));
	old->ip = ip;
	return old;
}

static void near_say(const struct stack *s, struct near *near)
{
	uint64_t tag = nic_link_tag(s->queue);

	if (!tag)
		return;
	memcpy(near->magic, near_magic, sizeof(near->magic));
	near->big[0] = (uint8_t)(s->frame_big >> 8);
	near->big[1] = (uint8_t)s->frame_big;
	memcpy(near->tag, &tag, sizeof(near->tag));
}

/* What the sender of an ARP frame says of itself there: the longest frame for it, or 0. */
static uint16_t near_big(const struct stack *s, const uint8_t *frame, uint32_t size)
{
	uint64_t tag = nic_link_tag(s->queue);
	struct near near;
	uint32_t big;

	if (!tag || size < ARP_SIZE + sizeof(near))
		return 0;
	memcpy(&near, frame + ARP_SIZE, sizeof(near));
	if (memcmp(near.magic, near_magic, sizeof(near.magic)) != 0 ||
	        memcmp(near.tag, &tag, sizeof(tag)) != 0)
		return 0;
	big = (uint32_t)near.big[0] << 8 | near.big[1];
	return (uint16_t)(big < s->frame_big ? big : s->frame_big);
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
	memset(d + ARP_SIZE, 0, ARP_FRAME - ARP_SIZE);
	near_say(s, (struct near *)(d + ARP_SIZE));
	nic_tx(s->queue, buf, d, ARP_FRAME);
	COUNT(s, arp_tx, 1);
	if (op == 1)
		COUNT(s, arp_out_requests, 1);
	else
		COUNT(s, arp_out_replies, 1);
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

	if (!s->address)
		return;
	arp_send(s, 1, all, s->address, none);
	nic_tx_flush(s->queue);
}

static inline void eth_fill(const struct stack *s, uint8_t *eth, const uint8_t mac[6])
{
	memcpy(eth, mac, 6);
	memcpy(eth + 6, s->mac, 6);
	eth[12] = 0x08;
	eth[13] = 0;
}

void neigh_send_to(struct stack *s, const uint8_t mac[6], struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	eth_fill(s, ip - 14, mac);
	nic_tx(s->queue, buf, ip - 14, size + 14);
}

static void send_known(
        struct stack *s, const struct neigh *n, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	eth_fill(s, ip - 14, n->mac);
	if (n->big)
		nic_tx_near(s->queue, buf, ip - 14, size + 14);
	else
		nic_tx(s->queue, buf, ip - 14, size + 14);
}

uint32_t neigh_big(struct stack *s, uint32_t dst)
{
	const struct neigh *n;

	if (!s->frame_big || (dst ^ s->address) & s->netmask) /* a gateway is not the end of the way */
		return 0;
	n = find(s, dst);
	return n && n->state == NEIGH_KNOWN ? n->big : 0;
}

void neigh_send(struct stack *s, uint32_t next_hop, struct nic_buf *buf, uint8_t *ip, uint32_t size)
{
	struct neigh *n = find(s, next_hop);

	if (likely(n && n->state == NEIGH_KNOWN)) {
		n->is_used = 1;
		send_known(s, n, buf, ip, size);
		return;
	}
	if (!n) {
		n = take(s, next_hop);
		n->state = NEIGH_ASKING;
		ask(s, n);
	}
	pending_add(s, n, buf, ip, size);
}

/* The answer is there: what waited for it goes. */
static void known(struct stack *s, struct neigh *n, const uint8_t mac[6], uint16_t big)
{
	memcpy(n->mac, mac, 6);
	n->big = big;
	n->state = NEIGH_KNOWN;
	n->tries = 0;
	n->time_ms = s->now_ms;
	while (n->pending_count) {
		const struct neigh_packet *k = pending_pop(s, n);

		send_known(s, n, k->buf, k->ip, k->size);
	}
}

static void learn(struct stack *s, uint32_t ip, const uint8_t mac[6], uint16_t big, bool may_add)
{
	struct neigh *n = find(s, ip);

	if (!n) {
		if (!may_add)
			return;
		n = take(s, ip);
	}
	if (unlikely(n->is_fixed))
		return;
	if (n->state != NEIGH_KNOWN)
		COUNT(s, neigh_learned, 1);
	known(s, n, mac, big);
}

void neigh_fix(struct stack *s, const struct stack_neigh *list, uint32_t count)
{
	for (uint32_t i = 0; i < NEIGH_COUNT; i++) {
		if (!s->neigh[i].is_fixed)
			continue;
		s->neigh[i].is_fixed = 0; /* nothing waits for one that is known */
		s->neigh[i].state = NEIGH_EMPTY;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct neigh *n;
		uint32_t ip;

		memcpy(&ip, list[i].ip, 4);
		n = find(s, ip);
		if (!n)
			n = take(s, ip);
		known(s, n, list[i].mac, 0);
		n->is_fixed = 1;
	}
}

void neigh_forget(struct stack *s)
{
	for (uint32_t i = 0; i < NEIGH_COUNT; i++)
		if (s->neigh[i].state == NEIGH_KNOWN && !s->neigh[i].is_fixed)
			s->neigh[i].state = NEIGH_EMPTY;
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
	if (s->idx == 0 && op == 1) /* the others get copies */
		COUNT(s, arp_in_requests, 1);
	else if (s->idx == 0 && op == 2)
		COUNT(s, arp_in_replies, 1);
	memcpy(&sender, frame + 28, 4);
	memcpy(&target, frame + 38, 4);
	if (!sender || sender == s->address || (frame[22] & 1))
		return;
	if ((sender ^ s->address) & s->netmask)
		return; /* nobody outside the network answers for itself here */
	learn(s, sender, frame + 22, near_big(s, frame, size), target == s->address);
	if (op == 1 && target == s->address && s->idx == 0)
		arp_send(s, 2, frame + 22, sender, frame + 22);
}

/* Housekeeping, about once a second. */
void neigh_tick(struct stack *s)
{
	for (uint32_t i = 0; i < NEIGH_COUNT; i++) {
		struct neigh *n = &s->neigh[i];
		uint32_t age = s->now_ms - n->time_ms;

		if (n->is_fixed)
			continue;
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

uint32_t neigh_report(const struct stack *s, struct report_neigh *out, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < NEIGH_COUNT && count < max; i++) {
		const struct neigh *n = &s->neigh[i];
		struct report_neigh *r = &out[count];

		if (n->state == NEIGH_EMPTY)
			continue;
		memcpy(r->ip, &n->ip, sizeof(r->ip));
		memcpy(r->mac, n->mac, sizeof(r->mac));
		r->state = n->state == NEIGH_ASKING ? REPORT_NEIGH_ASKING
		           : n->is_fixed            ? REPORT_NEIGH_PERMANENT
		                                    : REPORT_NEIGH_KNOWN;
		r->tries = n->tries;
		r->is_used = n->is_used;
		r->waiting = n->pending_count;
		r->big = n->big;
		r->time_ms = n->time_ms;
		count++;
	}
	return count;
}
