/* latency.c - the samples of latency.h: marking, following and counting one piece of data for each endpoint
 * and direction.
 *
 * Stack threads and application threads, only while times are taken. The marks lie in shared memory that
 * every client can write: what is read from there ends up in a histogram and nowhere else.
 */
#include "latency.h"

#include "clock.h"

enum {
	STALE_NS = 1000000000, /* a mark of another endpoint that is older may be taken over */
};

static __thread uint64_t awake_ns;

static const struct {
	const char *name, *text;
} stages[LATENCY_STAGES] = {
        [LATENCY_RX_STACK] = {"rx_stack", "taken from the port -> published"},
        [LATENCY_RX_WAKE] = {"rx_wake", "published -> reader awake (if it slept)"},
        [LATENCY_RX_READ] = {"rx_read", "awake, or else published -> read"},
        [LATENCY_RX] = {"rx", "taken from the port -> read"},
        [LATENCY_TX_WAIT] = {"tx_wait", "written -> taken by the stack"},
        [LATENCY_TX_STACK] = {"tx_stack", "taken by the stack -> given to the port"},
        [LATENCY_TX] = {"tx", "written -> given to the port"},
};

const char *latency_name(enum latency_stage stage)
{
	return stages[stage].name;
}

const char *latency_text(enum latency_stage stage)
{
	return stages[stage].text;
}

static uint64_t tag_of(const struct arena *a, const struct endpoint *ep)
{
	return (uint64_t)ep->gen << 32 | (arena_ep_idx(a, ep) + 1);
}

/* The stack an endpoint belongs to, also when a client has written over what the arena says. */
static struct latency *latency_of(const struct arena *a, const struct endpoint *ep)
{
	uint32_t idx = ep->stack_idx;

	return &a->latency[idx < a->stack_count ? idx : 0];
}

static struct latency_mark *mark_of(
        const struct arena *a, const struct endpoint *ep, struct latency_mark *marks)
{
	return &marks[arena_ep_idx(a, ep) % LATENCY_MARKS];
}

static void count(struct latency *l, enum latency_stage stage, uint64_t from_ns, uint64_t to_ns)
{
	/* a mark that was half another's */
	if (to_ns >= from_ns)
		hist_add(&l->stage[stage], to_ns - from_ns);
}

/* Takes the place for a sample that begins: nobody reads it until its tag is stored. */
static bool mark_begin(struct latency_mark *m, uint64_t tag, uint64_t now_ns)
{
	uint64_t was = atomic_load_explicit(&m->tag, memory_order_relaxed);

	if (was == tag)
		return false;
	/* one that the endpoint's last user left behind, or somebody who is no more */
	if (was && (uint32_t)was != (uint32_t)tag &&
	        now_ns - atomic_load_explicit(&m->first_ns, memory_order_relaxed) < STALE_NS)
		return false;
	/* gen alone is nobody's tag */
	return atomic_compare_exchange_strong(&m->tag, &was, tag & ~(uint64_t)UINT32_MAX);
}

static void mark_set(
        struct latency_mark *m, uint64_t tag, uint32_t pos, uint64_t first_ns, uint64_t second_ns)
{
	atomic_store_explicit(&m->first_ns, first_ns, memory_order_relaxed);
	atomic_store_explicit(&m->second_ns, second_ns, memory_order_relaxed);
	atomic_store_explicit(&m->pos, pos, memory_order_relaxed);
	atomic_store_explicit(&m->tag, tag, memory_order_release);
}

/* Whether the endpoint's sample lies at or before pos. */
static bool mark_has(const struct latency_mark *m, uint64_t tag, uint32_t pos)
{
	return atomic_load_explicit(&m->tag, memory_order_acquire) == tag &&
	       (int32_t)(pos - atomic_load_explicit(&m->pos, memory_order_relaxed)) >= 0;
}

void latency_published(const struct arena *a, const struct endpoint *ep, uint32_t pos, uint64_t received_ns)
{
	struct latency *l = latency_of(a, ep);
	struct latency_mark *m = mark_of(a, ep, l->rx);
	uint64_t tag = tag_of(a, ep), now_ns = clock_now_ns();

	if (!mark_begin(m, tag, now_ns))
		return;
	count(l, LATENCY_RX_STACK, received_ns, now_ns);
	mark_set(m, tag, pos, received_ns, now_ns);
}

void latency_read(const struct arena *a, const struct endpoint *ep, uint32_t pos)
{
	struct latency *l = latency_of(a, ep);
	struct latency_mark *m = mark_of(a, ep, l->rx);
	uint64_t tag = tag_of(a, ep), received_ns, published_ns, now_ns;

	if (!mark_has(m, tag, pos))
		return;
	now_ns = clock_now_ns();
	received_ns = atomic_load_explicit(&m->first_ns, memory_order_relaxed);
	published_ns = atomic_load_explicit(&m->second_ns, memory_order_relaxed);
	if (!atomic_compare_exchange_strong(&m->tag, &tag, 0))
		return;
	count(l, LATENCY_RX, received_ns, now_ns);
	if (awake_ns > published_ns) {
		count(l, LATENCY_RX_WAKE, published_ns, awake_ns);
		published_ns = awake_ns;
	}
	count(l, LATENCY_RX_READ, published_ns, now_ns);
}

void latency_awake(void)
{
	awake_ns = clock_now_ns();
}

void latency_written(const struct arena *a, const struct endpoint *ep, uint32_t pos)
{
	struct latency_mark *m = mark_of(a, ep, latency_of(a, ep)->tx);
	uint64_t tag = tag_of(a, ep), now_ns = clock_now_ns();

	if (mark_begin(m, tag, now_ns))
		mark_set(m, tag, pos, now_ns, 0);
}

void latency_taken(const struct arena *a, const struct endpoint *ep, uint32_t head)
{
	struct latency_mark *m = mark_of(a, ep, latency_of(a, ep)->tx);

	if (mark_has(m, tag_of(a, ep), head) && !atomic_load_explicit(&m->second_ns, memory_order_relaxed))
		atomic_store_explicit(&m->second_ns, clock_now_ns(), memory_order_relaxed);
}

bool latency_sent(const struct arena *a, const struct endpoint *ep, uint32_t pos, struct latency_sent *sent)
{
	struct latency_mark *m = mark_of(a, ep, latency_of(a, ep)->tx);
	uint64_t tag = tag_of(a, ep);

	if (!mark_has(m, tag, pos))
		return false;
	sent->written_ns = atomic_load_explicit(&m->first_ns, memory_order_relaxed);
	sent->taken_ns = atomic_load_explicit(&m->second_ns, memory_order_relaxed);
	/* sent without having been seen: the mark came after the bytes */
	if (!sent->taken_ns)
		sent->taken_ns = clock_now_ns();
	return atomic_compare_exchange_strong(&m->tag, &tag, 0);
}

void latency_out(const struct arena *a, uint32_t stack_idx, const struct latency_sent *sent, uint64_t now_ns)
{
	struct latency *l = &a->latency[stack_idx];

	count(l, LATENCY_TX_WAIT, sent->written_ns, sent->taken_ns);
	count(l, LATENCY_TX_STACK, sent->taken_ns, now_ns);
	count(l, LATENCY_TX, sent->written_ns, now_ns);
}

void latency_clear(const struct arena *a)
{
	for (uint32_t i = 0; i < a->stack_count; i++) {
		for (uint32_t k = 0; k < LATENCY_MARKS; k++) {
			atomic_store_explicit(&a->latency[i].rx[k].tag, 0, memory_order_relaxed);
			atomic_store_explicit(&a->latency[i].tx[k].tag, 0, memory_order_relaxed);
		}
		for (int k = 0; k < LATENCY_STAGES; k++)
			hist_clear(&a->latency[i].stage[k]);
	}
}
