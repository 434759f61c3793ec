/* top_rows.c - the looks of `pronkctl top`: reads the arena and the statistics without locks, and makes rates
 * of what changed. A socket that changed hands between two looks begins with a rate of 0.
 */
#include "top.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Positions of an endpoint's rings at the last look. */
struct top_past {
	uint32_t gen, rx, tx; /* modulo 2^32 */
	bool is_known;
};

int top_open(struct top *t, const struct attach *at, const struct show *show)
{
	int rc;

	memset(t, 0, sizeof(*t));
	t->show = show;
	rc = source_open(&t->src, at);
	if (rc)
		return rc;
	t->past = calloc(at->arena.endpoint_count, sizeof(*t->past));
	if (!t->past) {
		fprintf(stderr, "pronkctl: out of memory\n");
		rc = -ENOMEM;
	}
	if (rc || (rc = sample_make(&t->before, &t->src)) || (rc = sample_make(&t->now, &t->src)) ||
	        (rc = top_look(t)))
		top_close(t);
	return rc;
}

void top_close(struct top *t)
{
	sample_free(&t->before);
	sample_free(&t->now);
	free(t->past);
	free(t->rows);
	source_close(&t->src);
}

/* --- sockets --- */

/* False when there is nothing to show. */
static bool look(struct top *t, uint32_t idx, uint32_t now_ms, struct top_row *r)
{
	const struct arena *a = &t->src.at->arena;
	const struct endpoint *ep = &a->endpoints[idx];
	struct top_past *past = &t->past[idx], now = {.is_known = true};

	if (!row_read(a, idx, now_ms, &r->row)) {
		past->is_known = false;
		return false;
	}
	now.gen = *(const volatile uint32_t *)&ep->gen;
	now.rx = atomic_load_explicit(&ep->rx_bytes, memory_order_relaxed);
	now.tx = atomic_load_explicit(&ep->info_tx_bytes, memory_order_relaxed);
	r->rx = r->tx = 0;
	if (past->is_known && past->gen == now.gen && t->seconds > 0) {
		r->rx = (double)(now.rx - past->rx) / t->seconds;
		r->tx = (double)(now.tx - past->tx) / t->seconds;
	}
	*past = now;
	return true;
}

/* Descending, as the largest are wanted; of equal ones the first first. */
static int compare(const void *va, const void *vb, void *arg)
{
	const struct top_row *a = va, *b = vb;
	const struct top *t = arg;
	double x, y;

	switch (t->sort) {
	case SORT_RX:
		x = a->rx, y = b->rx;
		break;
	case SORT_TX:
		x = a->tx, y = b->tx;
		break;
	case SORT_QUEUES:
		x = (double)a->row.rx_queue + a->row.tx_queue, y = (double)b->row.rx_queue + b->row.tx_queue;
		break;
	case SORT_RTT:
		x = a->row.rtt_us, y = b->row.rtt_us;
		break;
	case SORT_RETR:
		x = a->row.retransmits, y = b->row.retransmits;
		break;
	case SORT_PID:
		x = -a->row.pid, y = -b->row.pid;
		break;
	default:
		x = a->rx + a->tx, y = b->rx + b->tx;
		break;
	}
	if (x != y)
		return (x > y) == t->is_reverse ? 1 : -1;
	return a->row.idx > b->row.idx ? 1 : -1;
}

const char *const top_sort_names[TOP_SORT_COUNT] = {
        "bytes/s", "received/s", "sent/s", "queues", "rtt", "retransmits", "pid"};

void top_sort(struct top *t)
{
	qsort_r(t->rows, t->row_count, sizeof(*t->rows), compare, t);
}

int top_look(struct top *t)
{
	const struct arena *a = &t->src.at->arena;
	uint32_t now_ms = now_ms_get();

	sample_swap(&t->before, &t->now);
	sample_take(&t->now, &t->src);
	t->seconds = t->before.now_ns ? sample_seconds(&t->src, &t->before, &t->now) : 0;
	t->row_count = 0;
	for (uint32_t i = 0; i < a->endpoint_count; i++) {
		if (t->row_count == t->row_room) {
			uint32_t room = t->row_room ? t->row_room * 2 : 256;
			struct top_row *more = realloc(t->rows, room * sizeof(*more));

			if (!more) {
				fprintf(stderr, "pronkctl: out of memory\n");
				return -ENOMEM;
			}
			t->rows = more;
			t->row_room = room;
		}
		t->row_count += look(t, i, now_ms, &t->rows[t->row_count]);
	}
	top_sort(t);
	return 0;
}
