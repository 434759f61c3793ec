/* chain.c - frames of several buffers, for links whose two ends have agreed on them, and memory of the
 * stack's that a frame refers to instead of holding a copy.
 *
 * Queue's thread. Lent memory comes in numbered pieces. A frame that refers to one holds a count on it until
 * the port has let go of the frame; the owner asks nic_lent before it uses a piece for something else. The
 * count is never the one that DPDK would free at: one is always ours.
 */
#include <errno.h>
#include <stdlib.h>

#include "nic_int.h"

static void never_freed(void *addr UNUSED, void *opaque UNUSED)
{
}

int nic_lend(struct nic_queue *q, uint32_t count)
{
	if (q->frame_big == 0)
		return 0;
	free(q->lent);
	q->lent = calloc(count, sizeof(*q->lent));
	if (q->lent == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		q->lent[i].free_cb = never_freed;
		rte_mbuf_ext_refcnt_set(&q->lent[i], 1);
	}
	return 0;
}

bool nic_lent(const struct nic_queue *q, uint32_t piece)
{
	return q->lent != NULL && rte_mbuf_ext_refcnt_read(&q->lent[piece]) != 1;
}

struct nic_buf *nic_buf_rest(struct nic_buf *buf, uint8_t **data, uint32_t *size, void **priv)
{
	struct rte_mbuf *m = (struct rte_mbuf *)(uintptr_t)buf, *rest = m->next;

	m->next = NULL;
	m->nb_segs = 1;
	m->pkt_len = m->data_len;
	if (rest == NULL)
		return NULL;
	*data = rte_pktmbuf_mtod(rest, uint8_t *);
	*size = rest->data_len;
	*priv = rte_mbuf_to_priv(rest);
	return (struct nic_buf *)rest;
}

static struct rte_mbuf *piece_new(struct nic_queue *q, struct rte_mbuf *head)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(q->pool), *last = head;

	if (unlikely(m == NULL)) {
		q->stats.drop_tx_nobuf++;
		return NULL;
	}
	while (last->next != NULL)
		last = last->next;
	last->next = m;
	head->nb_segs++;
	return m;
}

int nic_buf_add(struct nic_queue *q, struct nic_buf *buf, const uint8_t *p, uint32_t size, uint32_t piece)
{
	struct rte_mbuf *head = (struct rte_mbuf *)(uintptr_t)buf, *m;

	if (piece != NIC_COPY && q->lent != NULL && size <= UINT16_MAX) {
		m = piece_new(q, head);
		if (unlikely(m == NULL))
			return -ENOBUFS;
		rte_mbuf_ext_refcnt_update(&q->lent[piece], 1);
		rte_pktmbuf_attach_extbuf(
		        m, (void *)(uintptr_t)p, RTE_BAD_IOVA, (uint16_t)size, &q->lent[piece]);
		m->data_len = (uint16_t)size;
		head->pkt_len += size;
		return 0;
	}
	while (size != 0) {
		uint32_t part;

		m = piece_new(q, head);
		if (unlikely(m == NULL))
			return -ENOBUFS;
		part = RTE_MIN(size, (uint32_t)rte_pktmbuf_tailroom(m));
		memcpy(rte_pktmbuf_mtod(m, uint8_t *), p, part);
		m->data_len = (uint16_t)part;
		head->pkt_len += part;
		p += part;
		size -= part;
	}
	return 0;
}
