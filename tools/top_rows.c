/* top_rows.c - the looks of `pronkctl top`: reads the arena and the statistics without locks, and makes rates
 * of what changed. A socket that changed hands between two looks begins with a rate of 0.
 */
#include "top.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "endpoint.h"

/* Positions of an endpoint's rings at the last look. */
struct top_past {
	uint32_t gen, rx, tx;
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

#define READ(field) atomic_load_explicit(&ep->field, memory_order_relaxed)

static void addr_print(const struct sock_addr *a, char *buf, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	if ((a->family != AF_INET && a->family != AF_INET6) || !inet_ntop(a->family, a->ip, ip, sizeof(ip)))
		snprintf(buf, size, "*");
	else
		snprintf(buf, size, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, a->port);
}

static const char *state_text(uint32_t state, uint32_t tcp_state)
{
	static const char *const tcp[] = {"CLOSED", "LISTEN", "SYN_SENT", "SYN_RCVD", "ESTABLISHED",
	        "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"};

	switch (state) {
	case EP_BOUND:
		return "BOUND";
	case EP_LISTEN:
		return "LISTEN";
	case EP_CLOSED:
		return "CLOSED";
	case EP_DGRAM:
		return "UDP";
	case EP_CONNECTING:
		return "SYN_SENT";
	default:
		return tcp_state && tcp_state < ARRAY_COUNT(tcp) ? tcp[tcp_state] : "ESTABLISHED";
	}
}

static void owner_read(const struct arena *a, struct top_row *r, uint32_t creator)
{
	const struct client *c;

	r->owner = UINT32_MAX;
	if (creator < a->client_count && hold_test(a, creator, r->idx))
		r->owner = creator;
	for (uint32_t i = 0; i < a->client_count && r->owner == UINT32_MAX; i++)
		if (atomic_load_explicit(&arena_client(a, i)->state, memory_order_relaxed) != CLIENT_FREE &&
		        hold_test(a, i, r->idx))
			r->owner = i;
	if (r->owner == UINT32_MAX) {
		snprintf(r->program, sizeof(r->program), "-");
		return;
	}
	c = arena_client(a, r->owner);
	r->pid = atomic_load_explicit(&c->pid, memory_order_relaxed);
	snprintf(r->program, sizeof(r->program), "%.*s", (int)sizeof(c->program), c->program);
	for (char *p = r->program; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			*p = '_';
}

/* False when there is nothing to show. */
static bool row_read(struct top *t, uint32_t idx, struct top_row *r)
{
	const struct arena *a = &t->src.at->arena;
	const struct endpoint *ep = &a->endpoints[idx];
	struct top_past *past = &t->past[idx];
	uint32_t gen = *(const volatile uint32_t *)&ep->gen, state = atomic_load(&ep->state), rx, tx;

	if (state == EP_FREE) {
		past->is_known = false;
		return false;
	}
	memset(r, 0, sizeof(*r));
	r->idx = idx;
	r->stack = ep->stack_idx;
	r->state = state_text(state, READ(tcp_state));
	r->fd = READ(app_fd);
	addr_print(&ep->local, r->local, sizeof(r->local));
	if (state != EP_LISTEN)
		addr_print(&ep->remote, r->peer, sizeof(r->peer));
	else
		snprintf(r->peer, sizeof(r->peer), "*");
	rx = atomic_load(&ep->rx_bytes);
	tx = READ(info_tx_bytes);
	if (past->is_known && past->gen == gen && t->seconds > 0) {
		r->rx = (double)(uint32_t)(rx - past->rx) / t->seconds;
		r->tx = (double)(uint32_t)(tx - past->tx) / t->seconds;
	}
	*past = (struct top_past){gen, rx, tx, true};
	if (state != EP_LISTEN) {
		r->rx_queue = ep_rx_pending(ep);
		r->tx_queue = ep_tx_used(ep);
	}
	if (state == EP_ESTABLISHED) {
		r->rtt_us = READ(info_rtt_us);
		r->retransmits = READ(info_retransmits);
	}
	owner_read(a, r, READ(creator));
	if (r->owner == UINT32_MAX)
		r->fd = -1;
	return atomic_load(&ep->state) != EP_FREE && *(const volatile uint32_t *)&ep->gen == gen;
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
		x = (double)a->rx_queue + a->tx_queue, y = (double)b->rx_queue + b->tx_queue;
		break;
	case SORT_RTT:
		x = a->rtt_us, y = b->rtt_us;
		break;
	case SORT_RETR:
		x = a->retransmits, y = b->retransmits;
		break;
	case SORT_PID:
		x = -a->pid, y = -b->pid;
		break;
	default:
		x = a->rx + a->tx, y = b->rx + b->tx;
		break;
	}
	if (x != y)
		return (x > y) == t->is_reverse ? 1 : -1;
	return a->idx > b->idx ? 1 : -1;
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
		t->row_count += row_read(t, i, &t->rows[t->row_count]);
	}
	top_sort(t);
	return 0;
}
