/* inject.c - faults made on purpose: what nic_inject.h describes, between queue.c and the port.
 *
 * Queue's thread, except nic_inject_make. A received frame passes here before anything has looked at it, one
 * to be sent when it is complete. Frames that wait lie in a heap by the time they are due; they come out with
 * a later nic_rx or nic_tx_flush, for which the thread does not sleep longer than nic_wait_limit_us says. A
 * queue without faults has no struct inject: queue.c looks at one pointer.
 */
#include <stdlib.h>
#include <rte_ether.h>
#include <rte_ip.h>

#include "clock.h"
#include "nic_int.h"

struct waiting {
	uint64_t due_ns, number; /* among those due together the first comes first */
	struct rte_mbuf *m;
};

struct direction {
	struct nic_inject_dir spec;
	uint64_t random;
	uint64_t number;
	uint32_t count;
	struct waiting heap[NIC_INJECT_WAIT_MAX];
};

struct inject {
	struct direction rx, tx;
	bool is_ending; /* nothing is to be done any more but to let go of what waits */
};

/* SplitMix64, by Sebastiano Vigna (public domain). */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* True for share of NIC_INJECT_WHOLE of all numbers. */
static bool is_hit(uint64_t number, uint32_t share)
{
	return (uint32_t)(((number >> 32) * NIC_INJECT_WHOLE) >> 32) < share;
}

/* --- frames that wait --- */

static bool is_before(const struct waiting *a, const struct waiting *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->number < b->number;
}

static int waiting_compare(const void *a, const void *b)
{
	return is_before(a, b) ? -1 : 1;
}

static bool heap_push(const struct nic_queue *q, struct direction *d, struct rte_mbuf *m, uint64_t due_ns)
{
	struct waiting w = {due_ns, d->number++, m};
	uint32_t at = d->count;

	/* most of the buffers stay for those who do not wait */
	if (at == NIC_INJECT_WAIT_MAX || at >= q->pool->size / 4)
		return false;
	d->count++;
	for (; at && is_before(&w, &d->heap[(at - 1) / 2]); at = (at - 1) / 2)
		d->heap[at] = d->heap[(at - 1) / 2];
	d->heap[at] = w;
	return true;
}

/* The first that is due, or NULL. */
static struct rte_mbuf *heap_pop(struct direction *d, uint64_t now_ns)
{
	struct rte_mbuf *m = d->heap[0].m;
	struct waiting last;
	uint32_t at = 0;

	if (!d->count || d->heap[0].due_ns > now_ns)
		return NULL;
	last = d->heap[--d->count];
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= d->count)
			break;
		if (child + 1 < d->count && is_before(&d->heap[child + 1], &d->heap[child]))
			child++;
		if (!is_before(&d->heap[child], &last))
			break;
		d->heap[at] = d->heap[child];
		at = child;
	}
	d->heap[at] = last;
	return m;
}

/* All that wait are due, in the order in which they would have been. */
static void heap_hasten(struct direction *d)
{
	qsort(d->heap, d->count, sizeof(d->heap[0]), waiting_compare);
	for (uint32_t i = 0; i < d->count; i++) {
		d->heap[i].due_ns = 0;
		d->heap[i].number = d->number++;
	}
}

/* --- one frame --- */

/* Turns one bit of the IPv4 header, which every receiver checks: what lies behind it may be covered by no sum
 * at all between ends that leave sums to the port, and would reach a program. */
static bool corrupt(struct rte_mbuf *m, uint64_t number)
{
	uint8_t *data = rte_pktmbuf_mtod(m, uint8_t *);
	const struct rte_ether_hdr *eth = (const void *)data;
	struct rte_ipv4_hdr *ip = (void *)(data + RTE_ETHER_HDR_LEN);
	uint32_t bit;

	if (m->data_len < RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) || !RTE_MBUF_DIRECT(m) ||
	        eth->ether_type != RTE_BE16(RTE_ETHER_TYPE_IPV4))
		return false;
	/* a port that made the sum would make one that fits */
	if (m->ol_flags & RTE_MBUF_F_TX_IP_CKSUM) {
		ip->hdr_checksum = 0;
		ip->hdr_checksum = rte_ipv4_cksum(ip);
	}
	/* whatever the port has found, it is not true any more */
	m->ol_flags &= ~(uint64_t)(RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_RX_IP_CKSUM_MASK);
	/* not in its first byte: another version would be another protocol */
	bit = 8 + (uint32_t)(number % (9 * 8));
	data[RTE_ETHER_HDR_LEN + bit / 8] ^= (uint8_t)(1u << bit % 8);
	return true;
}

/* Decides about one frame: true when it goes on now. Otherwise it is consumed. */
static bool frame_pass(const struct nic_queue *q, struct direction *d, struct nic_inject_stats *stats,
        struct rte_mbuf *m, uint64_t now_ns)
{
	const struct nic_inject_dir *spec = &d->spec;
	uint64_t lost = random_next(&d->random), doubled = random_next(&d->random),
	         held = random_next(&d->random), damaged = random_next(&d->random),
	         place = random_next(&d->random), jitter = random_next(&d->random);
	uint64_t wait_us = spec->delay_us - spec->jitter_us + jitter % (2ull * spec->jitter_us + 1);
	struct rte_mbuf *copy;

	if (is_hit(lost, spec->loss)) {
		stats->lost++;
		rte_pktmbuf_free(m);
		return false;
	}
	if (is_hit(damaged, spec->corrupt) && corrupt(m, place))
		stats->corrupted++;
	if (is_hit(doubled, spec->dup)) {
		copy = rte_pktmbuf_copy(m, q->pool, 0, UINT32_MAX);
		if (copy && heap_push(q, d, copy, now_ns + wait_us * CLOCK_NS_PER_US)) {
			stats->duplicated++;
		} else {
			stats->overflow++;
			rte_pktmbuf_free(copy);
		}
	}
	if (is_hit(held, spec->reorder)) {
		stats->reordered++;
		wait_us += NIC_INJECT_REORDER_US;
	}
	stats->delayed += spec->delay_us != 0;
	if (!wait_us)
		return true;
	if (unlikely(!heap_push(q, d, m, now_ns + wait_us * CLOCK_NS_PER_US))) {
		stats->overflow++;
		rte_pktmbuf_free(m);
	}
	return false;
}

/* --- what queue.c and wait.c call --- */

/* Nothing is to be done, and nothing waits any more. */
static void end_check(struct nic_queue *q)
{
	if (!q->inject->is_ending || q->inject->rx.count || q->inject->tx.count)
		return;
	free(q->inject);
	q->inject = NULL;
}

uint32_t inject_rx(struct nic_queue *q, struct rte_mbuf **m, uint32_t count, uint32_t max)
{
	struct direction *d = &q->inject->rx;
	uint64_t now_ns = clock_now_ns();
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++)
		if (frame_pass(q, d, &q->stats.inject_rx, m[i], now_ns))
			m[kept++] = m[i];
	while (kept < max && (m[kept] = heap_pop(d, now_ns)) != NULL)
		kept++;
	end_check(q);
	return kept;
}

bool inject_tx(struct nic_queue *q, struct rte_mbuf *m)
{
	return frame_pass(q, &q->inject->tx, &q->stats.inject_tx, m, clock_now_ns());
}

void inject_tx_due(struct nic_queue *q)
{
	uint64_t now_ns = clock_now_ns();
	struct rte_mbuf *m;

	while (q->tx_count < NIC_TX_BACKLOG && (m = heap_pop(&q->inject->tx, now_ns)) != NULL)
		q->tx[q->tx_count++] = m;
	end_check(q);
}

uint32_t inject_wait_us(const struct nic_queue *q)
{
	const struct direction *rx = &q->inject->rx, *tx = &q->inject->tx;
	uint64_t due_ns = UINT64_MAX, now_ns = clock_now_ns(), wait_us;

	if (rx->count)
		due_ns = rx->heap[0].due_ns;
	if (tx->count && tx->heap[0].due_ns < due_ns)
		due_ns = tx->heap[0].due_ns;
	if (due_ns <= now_ns)
		return 0;
	wait_us = (due_ns - now_ns) / CLOCK_NS_PER_US;
	return wait_us < UINT32_MAX ? (uint32_t)wait_us : UINT32_MAX;
}

void inject_close(struct nic_queue *q)
{
	if (q->inject == NULL)
		return;
	for (uint32_t i = 0; i < q->inject->rx.count; i++)
		rte_pktmbuf_free(q->inject->rx.heap[i].m);
	for (uint32_t i = 0; i < q->inject->tx.count; i++)
		rte_pktmbuf_free(q->inject->tx.heap[i].m);
	free(q->inject);
	q->inject = NULL;
}

/* --- nic_inject.h --- */

static bool is_nothing(const struct nic_inject_dir *d)
{
	return !d->loss && !d->dup && !d->reorder && !d->corrupt && !d->delay_us;
}

struct inject *nic_inject_make(const struct nic_inject *spec, uint32_t stack_idx)
{
	struct inject *in = calloc(1, sizeof(*in));

	if (in == NULL)
		return NULL;
	in->rx.spec = spec->rx;
	in->tx.spec = spec->tx;
	in->is_ending = is_nothing(&spec->rx) && is_nothing(&spec->tx);
	/* far apart: each direction of each stack has faults of its own */
	in->rx.random = spec->seed + 2 * stack_idx;
	in->tx.random = spec->seed + 2 * stack_idx + 1;
	in->rx.random = random_next(&in->rx.random);
	in->tx.random = random_next(&in->tx.random);
	return in;
}

void nic_inject_set(struct nic_queue *q, struct inject *in)
{
	struct inject *now = q->inject;

	if (now == NULL) {
		q->inject = in;
		end_check(q);
		return;
	}
	heap_hasten(&now->rx);
	heap_hasten(&now->tx);
	now->rx.spec = in->rx.spec;
	now->rx.random = in->rx.random;
	now->tx.spec = in->tx.spec;
	now->tx.random = in->tx.random;
	now->is_ending = in->is_ending;
	free(in);
	end_check(q);
}
