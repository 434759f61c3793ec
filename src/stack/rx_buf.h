/* rx_buf.h - a packet buffer seen as a pbuf: the pbuf lies in the buffer's private area and frees the buffer
 * with itself. Stack thread. */
#pragma once
#include "nic.h"

#include "lwip/pbuf.h"

struct rx_buf {
	struct pbuf_custom pc; /* first: lwIP hands back this address */
	struct nic_buf *buf;
	/* of a datagram on its way to a reader */
	uint32_t pieces; /* of the datagram that begins here; 0: it began in an earlier buffer */
	uint32_t charge; /* what this piece takes of the receive limit */
};

_Static_assert(sizeof(struct rx_buf) <= NIC_PRIV_SIZE, "a pbuf and its buffer fit the private area");

static inline void rx_buf_free(struct pbuf *p)
{
	nic_buf_free(((struct rx_buf *)p)->buf);
}

/* A pbuf over size bytes at data inside buf; takes the buffer over. */
static inline struct pbuf *rx_buf_wrap(struct nic_buf *buf, void *priv, uint8_t *data, uint16_t size)
{
	struct rx_buf *r = priv;

	r->pc.custom_free_function = rx_buf_free;
	r->buf = buf;
	return pbuf_alloced_custom(PBUF_RAW, size, PBUF_REF, &r->pc, data, size);
}

/* A fresh buffer as a pbuf of size bytes (at most 2,048), or NULL. */
static inline struct pbuf *rx_buf_new(struct nic_queue *q, uint16_t size)
{
	uint8_t *data;
	void *priv;
	struct nic_buf *b = size <= 2048 ? nic_buf_alloc(q, &data, &priv) : NULL;

	return b ? rx_buf_wrap(b, priv, data, size) : NULL;
}

/* Bytes free in front of the payload. The pbuf must be one of ours (custom). */
static inline uint32_t rx_buf_front(const struct pbuf *p)
{
	return nic_buf_front(((const struct rx_buf *)p)->buf, p->payload);
}

/* Bytes that may be written behind the payload. The pbuf must be one of ours (custom). */
static inline uint32_t rx_buf_room(const struct pbuf *p)
{
	const struct rx_buf *r = (const struct rx_buf *)p;
	uint32_t room;

	if (!(p->flags & PBUF_FLAG_IS_CUSTOM))
		return 0;
	room = nic_buf_room(r->buf, p->payload);
	return room > p->len ? room - p->len : 0;
}
