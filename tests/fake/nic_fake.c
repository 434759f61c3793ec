/* nic_fake.c - nic.h for tests: queues of frames in memory (see nic_fake.h).
 *
 * One lock guards everything, so tests may use threads; nothing here is meant to be fast. Checksums and
 * parsing are written anew in plain C rather than shared with src/nic, so that an error in one is found by
 * the other.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "nic_fake.h"

enum { BUF_ROOM = 2048, TX_BURST = 32, BUF_MAGIC_FREE = 0x46524545, BUF_MAGIC_USED = 0x55534544 };

struct nic_buf {
	struct nic_buf *next;
	struct nic_buf *rest; /* of a frame of several buffers */
	struct nic *nic;
	uint32_t magic;
	uint16_t offset, size, flags; /* of the frame in room, while it is queued */
	_Alignas(8) uint8_t priv[NIC_PRIV_SIZE];
	uint8_t room[NIC_HEADROOM + BUF_ROOM];
};

struct fifo {
	struct nic_buf *head, **tail;
	uint32_t count;
};

struct nic_queue {
	struct nic *nic;
	uint32_t stack_idx;
	struct fifo arrived; /* at the hardware queue */
	struct fifo handed;  /* by other stacks */
	struct fifo unflushed;
	struct fifo sent;
	uint32_t local_woken;
	bool is_timed;
	struct nic_queue_stats stats;
};

struct nic {
	pthread_mutex_t lock;
	uint32_t stack_count, in_use, fail_alloc, fail_tx, tx_room;
	uint64_t link_tag;
	uint32_t frame_big;
	void (*wake)(void *arg, uint32_t stack_idx);
	void *wake_arg;
	uint16_t mtu;
	bool link_up;
	int fd;
	int wait_fd; /* of queue 0: readable while something has arrived; -1: none */
	size_t size;
	struct nic_buf *bufs, *free;
	struct nic_queue queues[NIC_STACK_MAX];
};

static void fifo_init(struct fifo *fifo)
{
	fifo->head = NULL;
	fifo->tail = &fifo->head;
	fifo->count = 0;
}

static void fifo_push(struct fifo *fifo, struct nic_buf *buf)
{
	buf->next = NULL;
	*fifo->tail = buf;
	fifo->tail = &buf->next;
	fifo->count++;
}

static struct nic_buf *fifo_pop(struct fifo *fifo)
{
	struct nic_buf *buf = fifo->head;

	if (buf == NULL)
		return NULL;
	fifo->head = buf->next;
	if (fifo->head == NULL)
		fifo->tail = &fifo->head;
	fifo->count--;
	return buf;
}

static struct nic_buf *buf_take(struct nic *nic)
{
	struct nic_buf *buf = nic->free;

	if (buf == NULL)
		return NULL;
	nic->free = buf->next;
	nic->in_use++;
	buf->rest = NULL;
	buf->magic = BUF_MAGIC_USED;
	buf->offset = NIC_HEADROOM;
	buf->flags = 0;
	return buf;
}

/* Freeing twice is a bug of the code under test; say so and stop the test. */
static void buf_give(struct nic *nic, struct nic_buf *buf)
{
	if (buf->magic != BUF_MAGIC_USED) {
		fprintf(stderr, "nic_fake: a packet buffer is freed twice\n");
		abort();
	}
	if (buf->rest != NULL)
		buf_give(nic, buf->rest);
	buf->rest = NULL;
	buf->magic = BUF_MAGIC_FREE;
	memset(buf->room, 0xdb, sizeof(buf->room));
	buf->next = nic->free;
	nic->free = buf;
	nic->in_use--;
}

/* ---- frames ---- */

/* The parts of a frame that checksums and steering need. */
struct parsed {
	int family; /* 0: neither IPv4 nor IPv6 */
	bool arp_like, fragment, cut;
	uint8_t proto;
	uint8_t *ip, *l4;
	const uint8_t *remote, *local;
	uint32_t ip_header, l4_size;
};

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

/* One's complement sum of big-endian words, added to sum. */
static uint32_t sum_bytes(uint32_t sum, const uint8_t *p, uint32_t size)
{
	for (; size > 1; p += 2, size -= 2)
		sum += be16(p);
	if (size != 0)
		sum += (uint32_t)p[0] << 8;
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void parse(uint8_t *data, uint32_t size, struct parsed *p)
{
	uint32_t total;

	memset(p, 0, sizeof(*p));
	p->cut = true;
	if (size < 14)
		return;
	p->ip = data + 14;
	size -= 14;
	switch (be16(data + 12)) {
	case 0x0806:
		p->arp_like = true;
		break;
	case 0x0800:
		if (size < 20 || p->ip[0] >> 4 != 4)
			return;
		p->ip_header = (p->ip[0] & 15u) * 4;
		total = be16(p->ip + 2);
		if (p->ip_header < 20 || total < p->ip_header || total > size)
			return;
		p->family = AF_INET;
		p->proto = p->ip[9];
		p->fragment = (be16(p->ip + 6) & 0x3fff) != 0;
		p->remote = p->ip + 12;
		p->local = p->ip + 16;
		p->l4_size = total - p->ip_header;
		break;
	case 0x86dd:
		if (size < 40 || p->ip[0] >> 4 != 6 || be16(p->ip + 4) > size - 40)
			return;
		p->family = AF_INET6;
		p->ip_header = 40;
		p->proto = p->ip[6];
		p->fragment = p->proto == 44 || p->proto == 0 || p->proto == 43 || p->proto == 60;
		p->remote = p->ip + 8;
		p->local = p->ip + 24;
		p->l4_size = be16(p->ip + 4);
		p->arp_like = p->proto == 58 && p->l4_size > 0 && p->ip[40] >= 133 && p->ip[40] <= 137;
		break;
	default:
		break;
	}
	p->cut = false;
	if (p->family == 0 || p->fragment)
		return;
	p->l4 = p->ip + p->ip_header;
	if (p->proto == IPPROTO_TCP) {
		p->cut = p->l4_size < 20 || (p->l4[12] >> 4) < 5 || (p->l4[12] >> 4) * 4u > p->l4_size;
	} else if (p->proto == IPPROTO_UDP) {
		p->cut = p->l4_size < 8 || be16(p->l4 + 4) < 8 || be16(p->l4 + 4) > p->l4_size;
		if (!p->cut)
			p->l4_size = be16(p->l4 + 4);
	} else {
		p->l4 = NULL;
	}
}

static uint32_t pseudo_sum(const struct parsed *p)
{
	uint32_t addr_size = p->family == AF_INET ? 4 : 16;

	return sum_bytes(sum_bytes(p->l4_size + p->proto, p->remote, addr_size), p->local, addr_size);
}

static uint8_t *cksum_field(const struct parsed *p)
{
	return p->l4 + (p->proto == IPPROTO_TCP ? 16 : 6);
}

static void cksum_fill(uint8_t *data, uint32_t size)
{
	struct parsed p;
	uint32_t sum;

	parse(data, size, &p);
	if (p.cut)
		return;
	if (p.family == AF_INET) {
		put16(p.ip + 10, 0);
		put16(p.ip + 10, ~sum_bytes(0, p.ip, p.ip_header));
	}
	if (p.l4 == NULL)
		return;
	put16(cksum_field(&p), 0);
	sum = ~sum_bytes(pseudo_sum(&p), p.l4, p.l4_size) & 0xffff;
	put16(cksum_field(&p), sum == 0 && p.proto == IPPROTO_UDP ? 0xffff : sum);
}

/* The same, unless it says that it wants none. */
static void cksum_fill_sent(uint8_t *data, uint32_t size)
{
	struct parsed p;
	bool has_none;

	parse(data, size, &p);
	has_none = !p.cut && p.family == AF_INET && p.l4 && p.proto == IPPROTO_UDP &&
	           be16(cksum_field(&p)) == NIC_UDP_NO_CKSUM;
	cksum_fill(data, size);
	if (has_none)
		put16(cksum_field(&p), 0);
}

/* True if the queue keeps the frame; counts it otherwise. */
static bool frame_check(struct nic_queue *q, const struct parsed *p, struct nic_buf *buf)
{
	uint32_t field;

	if (p->cut) {
		q->stats.drop_rx_short++;
		return false;
	}
	if (p->family == AF_INET && sum_bytes(0, p->ip, p->ip_header) != 0xffff) {
		q->stats.drop_rx_cksum++;
		q->stats.bad_cksum_ip++;
		return false;
	}
	if (p->fragment)
		buf->flags |= NIC_FRAME_L4_UNCHECKED;
	if (p->l4 == NULL)
		return true;
	field = be16(cksum_field(p));
	if (field == 0 && p->proto == IPPROTO_UDP && p->family == AF_INET)
		return true;
	if (sum_bytes(pseudo_sum(p), p->l4, p->l4_size) == 0xffff)
		return true;
	if (field == pseudo_sum(p)) {
		q->stats.rx_partial_cksum++;
		return true;
	}
	q->stats.drop_rx_cksum++;
	if (p->proto == IPPROTO_TCP)
		q->stats.bad_cksum_tcp++;
	else
		q->stats.bad_cksum_udp++;
	return false;
}

/* ---- the port ---- */

static bool has_wait_fd;
static struct nic *opened;
void (*nic_around_descriptors)(bool begins);
void (*nic_around_interrupts)(bool begins);
bool nic_may_fork;

void nic_fork_prepare(void)
{
}

void nic_fork_parent(void)
{
}

int nic_fork_child(void)
{
	return 0;
}

void nic_fake_with_wait_fd(void)
{
	has_wait_fd = true;
}

struct nic *nic_fake_opened(void)
{
	return opened;
}

struct nic *nic_fake_create(uint32_t stack_count)
{
	struct nic *nic;

	if (stack_count == 0 || stack_count > NIC_STACK_MAX)
		return NULL;
	nic = calloc(1, sizeof(*nic));
	if (nic == NULL)
		return NULL;
	nic->size = (NIC_FAKE_BUF_COUNT * sizeof(struct nic_buf) + 4095) & ~(size_t)4095;
	nic->fd = memfd_create("nic_fake", MFD_CLOEXEC);
	if (nic->fd < 0 || ftruncate(nic->fd, (off_t)nic->size) != 0)
		goto fail;
	nic->bufs = mmap(NULL, nic->size, PROT_READ | PROT_WRITE, MAP_SHARED, nic->fd, 0);
	if (nic->bufs == MAP_FAILED)
		goto fail;
	pthread_mutex_init(&nic->lock, NULL);
	for (uint32_t i = NIC_FAKE_BUF_COUNT; i-- > 0;) {
		nic->bufs[i].nic = nic;
		nic->bufs[i].magic = BUF_MAGIC_FREE;
		nic->bufs[i].next = nic->free;
		nic->free = &nic->bufs[i];
	}
	nic->wait_fd = has_wait_fd ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
	nic->stack_count = stack_count;
	nic->tx_room = 1024;
	nic->mtu = 1500;
	nic->link_up = true;
	for (uint32_t i = 0; i < stack_count; i++) {
		struct nic_queue *q = &nic->queues[i];

		q->nic = nic;
		q->stack_idx = i;
		fifo_init(&q->arrived);
		fifo_init(&q->handed);
		fifo_init(&q->unflushed);
		fifo_init(&q->sent);
	}
	return nic;
fail:
	if (nic->fd >= 0)
		close(nic->fd);
	free(nic);
	return NULL;
}

void nic_fake_set_wake(struct nic *nic, void (*wake)(void *arg, uint32_t stack_idx), void *arg)
{
	nic->wake = wake;
	nic->wake_arg = arg;
}

/* The fake port makes no faults but those that a test asks of it: what came for it is let go of. */
struct inject *nic_inject_make(const struct nic_inject *spec UNUSED, uint32_t stack_idx UNUSED)
{
	return calloc(1, 1);
}

/* Every frame came just now. */
void nic_time(struct nic_queue *q, bool on)
{
	q->is_timed = on;
}

uint64_t nic_frame_ns(const struct nic_queue *q, const struct nic_frame *frame)
{
	return q->is_timed && !(frame->flags & NIC_FRAME_LOCAL) ? clock_now_ns() : 0;
}

void nic_inject_set(struct nic_queue *q UNUSED, struct inject *in)
{
	free(in);
}

int nic_open(struct nic **out, const struct cfg *cfg UNUSED, uint32_t stack_count,
        void (*wake)(void *arg, uint32_t stack_idx), void *wake_arg, char *err, size_t err_size)
{
	struct nic *nic = nic_fake_create(stack_count);

	if (nic == NULL) {
		snprintf(err, err_size, "no memory for the fake port");
		return -ENOMEM;
	}
	nic_fake_set_wake(nic, wake, wake_arg);
	*out = opened = nic;
	return 0;
}

void nic_close(struct nic *nic)
{
	if (nic == NULL)
		return;
	munmap(nic->bufs, nic->size);
	close(nic->fd);
	if (nic->wait_fd >= 0)
		close(nic->wait_fd);
	pthread_mutex_destroy(&nic->lock);
	free(nic);
}

void nic_info_get(struct nic *nic, struct nic_info *info)
{
	static const uint8_t mac[6] = {0x02, 0, 0, 0, 0, 0x01};

	memset(info, 0, sizeof(*info));
	snprintf(info->driver, sizeof(info->driver), "fake");
	snprintf(info->name, sizeof(info->name), "fake");
	memcpy(info->mac, mac, 6);
	info->mtu = nic->mtu;
	info->queue_count = (uint16_t)nic->stack_count;
	info->link_up = nic->link_up;
}

uint32_t nic_regions(struct nic *nic, struct nic_region *regions, uint32_t max)
{
	if (max == 0)
		return 0;
	regions[0] = (struct nic_region){
	        .fd = nic->fd, .size = nic->size, .base = (uint8_t *)nic->bufs, .page_size = 4096};
	return 1;
}

struct nic_queue *nic_queue_get(struct nic *nic, uint32_t stack_idx)
{
	return stack_idx < nic->stack_count ? &nic->queues[stack_idx] : NULL;
}

int nic_thread_attach(void)
{
	return 0;
}

void nic_thread_detach(void)
{
}

void nic_thread_act(void)
{
}

/* With the lock. */
static void arrive(struct nic *nic, uint32_t stack_idx, struct nic_buf *buf)
{
	const uint64_t one = 1;

	fifo_push(&nic->queues[stack_idx].arrived, buf);
	if (nic->wait_fd >= 0 && stack_idx == 0 && write(nic->wait_fd, &one, sizeof(one)) < 0)
		perror("nic_fake");
}

int nic_fake_inject(struct nic *nic, uint32_t stack_idx, const void *data, uint32_t size)
{
	struct nic_buf *buf, **rest = &buf;
	const uint8_t *p = data;

	if (size > BUF_ROOM && size > nic->frame_big)
		return -EMSGSIZE;
	pthread_mutex_lock(&nic->lock);
	do {
		uint32_t part = size < BUF_ROOM ? size : BUF_ROOM;

		*rest = buf_take(nic);
		if (*rest == NULL)
			break;
		memcpy((*rest)->room + NIC_HEADROOM, p, part);
		(*rest)->size = (uint16_t)part;
		p += part;
		size -= part;
		rest = &(*rest)->rest;
	} while (size != 0);
	if (size == 0)
		arrive(nic, stack_idx, buf);
	else if (buf != NULL)
		buf_give(nic, buf);
	pthread_mutex_unlock(&nic->lock);
	return size == 0 ? 0 : -ENOBUFS;
}

int nic_fake_inject_fixed(struct nic *nic, uint32_t stack_idx, const void *data, uint32_t size)
{
	uint8_t frame[UINT16_MAX];

	if (size > sizeof(frame))
		return -EMSGSIZE;
	memcpy(frame, data, size);
	cksum_fill(frame, size);
	return nic_fake_inject(nic, stack_idx, frame, size);
}

uint32_t nic_fake_take(struct nic *nic, uint32_t stack_idx, void *data, uint32_t size)
{
	struct nic_buf *buf;
	uint32_t frame_size = 0;

	pthread_mutex_lock(&nic->lock);
	buf = fifo_pop(&nic->queues[stack_idx].sent);
	if (buf != NULL) {
		for (struct nic_buf *b = buf; b != NULL; b = b->rest) {
			if (frame_size + b->size <= size)
				memcpy((uint8_t *)data + frame_size, b->room + b->offset, b->size);
			frame_size += b->size;
		}
		buf_give(nic, buf);
	}
	pthread_mutex_unlock(&nic->lock);
	return frame_size;
}

uint32_t nic_fake_pending(struct nic *nic, uint32_t stack_idx)
{
	return nic->queues[stack_idx].sent.count;
}

void nic_fake_fail_alloc(struct nic *nic, uint32_t count)
{
	nic->fail_alloc = count;
}

void nic_fake_fail_tx(struct nic *nic, uint32_t count)
{
	nic->fail_tx = count;
}

void nic_fake_set_tx_room(struct nic *nic, uint32_t room)
{
	nic->tx_room = room;
}

void nic_fake_set_link(struct nic *nic, uint16_t mtu, bool up)
{
	nic->mtu = mtu;
	nic->link_up = up;
}

uint32_t nic_fake_bufs_in_use(struct nic *nic)
{
	return nic->in_use;
}

/* ---- queues ---- */

static void frame_fill(struct nic_queue *q, struct nic_buf *buf, struct nic_frame *frame)
{
	*frame = (struct nic_frame){.buf = buf,
	        .data = buf->room + buf->offset,
	        .priv = buf->priv,
	        .size = buf->size,
	        .flags = buf->flags | (buf->rest ? NIC_FRAME_CHAIN : 0)};
	q->stats.rx_packets++;
	q->stats.rx_bytes += buf->size;
}

static void handoff(struct nic_queue *q, uint32_t stack, struct nic_buf *buf, uint32_t *woken)
{
	fifo_push(&q->nic->queues[stack].handed, buf);
	q->stats.rx_handoff++;
	*woken |= 1u << stack;
}

/* Decides about one arrived frame: true if this stack takes it. */
static bool frame_accept(struct nic_queue *q, struct nic_buf *buf, uint32_t *woken)
{
	struct nic *nic = q->nic;
	struct parsed p;
	uint32_t owner = q->stack_idx;

	if (buf->rest != NULL)
		return true; /* nothing but memory can have damaged it */
	parse(buf->room + buf->offset, buf->size, &p);
	if (!frame_check(q, &p, buf)) {
		buf_give(nic, buf);
		return false;
	}
	for (uint32_t i = 0; p.arp_like && i < nic->stack_count; i++) {
		struct nic_buf *copy = i != q->stack_idx ? buf_take(nic) : NULL;

		if (copy == NULL)
			continue;
		memcpy(copy->room, buf->room, sizeof(copy->room));
		copy->size = buf->size;
		handoff(q, i, copy, woken);
	}
	if (p.fragment)
		owner = nic_owner(nic, p.family, p.remote, 0, p.local, 0);
	else if (p.l4 != NULL)
		owner = nic_owner(
		        nic, p.family, p.remote, (uint16_t)be16(p.l4), p.local, (uint16_t)be16(p.l4 + 2));
	if (owner == q->stack_idx)
		return true;
	handoff(q, owner, buf, woken);
	return false;
}

uint32_t nic_rx(struct nic_queue *q, struct nic_frame *frames, uint32_t max)
{
	struct nic *nic = q->nic;
	struct nic_buf *buf;
	uint32_t count = 0, woken = 0;

	pthread_mutex_lock(&nic->lock);
	q->stats.rx_polls++;
	while (count < max && (buf = fifo_pop(&q->handed)) != NULL) {
		q->stats.rx_handoff_in++;
		frame_fill(q, buf, &frames[count++]);
	}
	while (count < max && (buf = fifo_pop(&q->arrived)) != NULL) {
		if (frame_accept(q, buf, &woken))
			frame_fill(q, buf, &frames[count++]);
	}
	if (count == 0)
		q->stats.rx_empty_polls++;
	else if (count == max)
		q->stats.rx_full_polls++;
	if (nic->wait_fd >= 0 && count != 0 && q->arrived.count == 0) {
		uint64_t drop;

		if (read(nic->wait_fd, &drop, sizeof(drop)) < 0)
			q->stats.rx_empty_polls++; /* nothing to take away */
	}
	pthread_mutex_unlock(&nic->lock);
	for (uint32_t i = 0; i < nic->stack_count && nic->wake != NULL; i++) {
		if (woken & 1u << i)
			nic->wake(nic->wake_arg, i);
	}
	return count;
}

void nic_buf_free(struct nic_buf *buf)
{
	struct nic *nic = buf->nic;

	pthread_mutex_lock(&nic->lock);
	buf_give(nic, buf);
	pthread_mutex_unlock(&nic->lock);
}

uint32_t nic_buf_room(const struct nic_buf *buf, const uint8_t *data)
{
	return (uint32_t)(buf->room + sizeof(buf->room) - data);
}

uint32_t nic_buf_front(const struct nic_buf *buf, const uint8_t *data)
{
	return (uint32_t)(data - buf->room);
}

void *nic_buf_priv(struct nic_buf *buf)
{
	return buf->priv;
}

struct nic_buf *nic_buf_alloc(struct nic_queue *q, uint8_t **data, void **priv)
{
	struct nic *nic = q->nic;
	struct nic_buf *buf = NULL;

	pthread_mutex_lock(&nic->lock);
	if (nic->fail_alloc != 0)
		nic->fail_alloc--;
	else
		buf = buf_take(nic);
	if (buf == NULL)
		q->stats.drop_tx_nobuf++;
	pthread_mutex_unlock(&nic->lock);
	if (buf == NULL)
		return NULL;
	*data = buf->room + NIC_HEADROOM;
	if (priv != NULL)
		*priv = buf->priv;
	return buf;
}

static void flush(struct nic_queue *q)
{
	struct nic_buf *buf;

	while ((buf = fifo_pop(&q->unflushed)) != NULL) {
		if (q->nic->fail_tx != 0) {
			q->nic->fail_tx--;
			q->stats.drop_tx_full++;
			buf_give(q->nic, buf);
			continue;
		}
		q->stats.tx_packets++;
		q->stats.tx_bytes += buf->size;
		fifo_push(&q->sent, buf);
	}
}

void nic_tx(struct nic_queue *q, struct nic_buf *buf, uint8_t *data, uint32_t size)
{
	struct nic *nic = q->nic;
	uint8_t *end = buf->room + sizeof(buf->room);

	pthread_mutex_lock(&nic->lock);
	if (buf->magic != BUF_MAGIC_USED || data < buf->room || data >= end || size > (size_t)(end - data)) {
		fprintf(stderr, "nic_fake: a frame lies outside its buffer, or the buffer is not in use\n");
		abort();
	}
	if (size < 14 || size > nic->mtu + 14u) {
		q->stats.drop_tx_full++;
		buf_give(nic, buf);
	} else {
		buf->offset = (uint16_t)(data - buf->room);
		buf->size = (uint16_t)size;
		cksum_fill_sent(data, size);
		fifo_push(&q->unflushed, buf);
		if (q->unflushed.count == TX_BURST)
			flush(q);
	}
	pthread_mutex_unlock(&nic->lock);
}

void nic_tx_near(struct nic_queue *q, struct nic_buf *buf, uint8_t *data, uint32_t size)
{
	struct parsed p;
	uint32_t total = size;

	pthread_mutex_lock(&q->nic->lock);
	for (struct nic_buf *b = buf->rest; b != NULL; b = b->rest)
		total += b->size;
	if (!q->nic->link_tag || total > q->nic->frame_big) {
		fprintf(stderr, "nic_fake: a frame of %u bytes for a neighbour that is not near\n", total);
		abort();
	}
	buf->offset = (uint16_t)(data - buf->room);
	buf->size = (uint16_t)size;
	/* the headers are in the first part: what the rest would add to the checksum is not wanted */
	memset(&p, 0, sizeof(p));
	put16(data + 14 + 10, 0);
	put16(data + 14 + 10, ~sum_bytes(0, data + 14, (data[14] & 15u) * 4));
	p.family = AF_INET;
	p.ip = data + 14;
	p.proto = p.ip[9];
	p.remote = p.ip + 12;
	p.local = p.ip + 16;
	p.l4 = p.ip + (p.ip[0] & 15u) * 4;
	p.l4_size = be16(p.ip + 2) - (p.ip[0] & 15u) * 4;
	if ((p.proto == IPPROTO_TCP || p.proto == IPPROTO_UDP) && !(be16(p.ip + 6) & 0x3fff))
		put16(cksum_field(&p), pseudo_sum(&p));
	fifo_push(&q->unflushed, buf);
	pthread_mutex_unlock(&q->nic->lock);
}

uint64_t nic_link_tag(const struct nic_queue *q)
{
	return q->nic->link_tag;
}

void nic_fake_set_near(struct nic *nic, uint64_t link_tag, uint32_t frame_big)
{
	nic->link_tag = link_tag;
	nic->frame_big = frame_big;
}

int nic_buf_add(
        struct nic_queue *q, struct nic_buf *buf, const uint8_t *p, uint32_t size, uint32_t piece UNUSED)
{
	int rc = 0;

	pthread_mutex_lock(&q->nic->lock);
	while (buf->rest != NULL)
		buf = buf->rest;
	while (size != 0 && rc == 0) {
		uint32_t part = size < BUF_ROOM ? size : BUF_ROOM;

		buf->rest = buf_take(q->nic);
		if (buf->rest == NULL) {
			rc = -ENOBUFS;
			break;
		}
		buf = buf->rest;
		memcpy(buf->room + buf->offset, p, part);
		buf->size = (uint16_t)part;
		p += part;
		size -= part;
	}
	pthread_mutex_unlock(&q->nic->lock);
	return rc;
}

struct nic_buf *nic_buf_rest(struct nic_buf *buf, uint8_t **data, uint32_t *size, void **priv)
{
	struct nic_buf *rest = buf->rest;

	buf->rest = NULL;
	if (rest == NULL)
		return NULL;
	*data = rest->room + rest->offset;
	*size = rest->size;
	*priv = rest->priv;
	return rest;
}

int nic_lend(struct nic_queue *q UNUSED, uint32_t count UNUSED)
{
	return 0;
}

bool nic_lent(const struct nic_queue *q UNUSED, uint32_t piece UNUSED)
{
	return false;
}

void nic_local(struct nic_queue *q, uint32_t stack_idx, struct nic_buf *buf, uint8_t *data, uint32_t size)
{
	pthread_mutex_lock(&q->nic->lock);
	buf->offset = (uint16_t)(data - buf->room);
	buf->size = (uint16_t)size;
	buf->flags = NIC_FRAME_LOCAL;
	handoff(q, stack_idx, buf, &q->local_woken);
	pthread_mutex_unlock(&q->nic->lock);
}

static void wake_all(struct nic *nic, uint32_t woken)
{
	for (uint32_t i = 0; i < nic->stack_count && nic->wake != NULL; i++) {
		if (woken & 1u << i)
			nic->wake(nic->wake_arg, i);
	}
}

uint32_t nic_tx_flush(struct nic_queue *q)
{
	uint32_t woken;

	pthread_mutex_lock(&q->nic->lock);
	flush(q);
	woken = q->local_woken;
	q->local_woken = 0;
	pthread_mutex_unlock(&q->nic->lock);
	wake_all(q->nic, woken);
	return 0;
}

uint32_t nic_tx_room(const struct nic_queue *q)
{
	return q->nic->tx_room;
}

uint64_t nic_addr(const struct nic_queue *q, const void *p)
{
	uintptr_t offset = (uintptr_t)p - (uintptr_t)q->nic->bufs;

	return offset < q->nic->size ? offset : UINT64_MAX;
}

uint32_t nic_owner(const struct nic *nic, int family, const void *remote, uint16_t remote_port,
        const void *local, uint16_t local_port)
{
	const uint8_t *r = remote, *l = local;
	/* as with Toeplitz, the two ends of a connection may have different owners */
	uint32_t sum = (uint32_t)remote_port + local_port + (remote_port >> 1),
	         size = family == AF_INET6 ? 16 : 4;

	for (uint32_t i = 0; i < size; i++)
		sum += (uint32_t)r[i] + l[i];
	return sum % nic->stack_count;
}

uint32_t nic_wait_fds(struct nic_queue *q, int *fds, uint32_t max)
{
	if (q->nic->wait_fd < 0 || max == 0)
		return 0;
	fds[0] = q->nic->wait_fd;
	return 1;
}

void nic_unmapping(void)
{
}

uint32_t nic_wait_limit_us(const struct nic_queue *q UNUSED)
{
	return UINT32_MAX;
}

void nic_wait_arm(struct nic_queue *q UNUSED, bool on UNUSED)
{
}

void nic_buf_levels(struct nic_queue *q, uint32_t *free_count, uint32_t *total_count)
{
	*free_count = NIC_FAKE_BUF_COUNT - q->nic->in_use;
	*total_count = NIC_FAKE_BUF_COUNT;
}

const struct nic_queue_stats *nic_stats(const struct nic_queue *q)
{
	return &q->stats;
}

int nic_capture_start(struct nic *nic UNUSED, const struct capture_spec *spec UNUSED, int *shm_fd UNUSED,
        char *err, size_t err_size)
{
	snprintf(err, err_size, "the fake port has no captures");
	return -ENOTSUP;
}

void nic_capture_stop(struct nic *nic UNUSED, uint32_t capture UNUSED)
{
}

void nic_capture_free(struct nic *nic UNUSED, uint32_t capture UNUSED)
{
}

void nic_report(struct nic *nic, struct nic_report *report)
{
	memset(report, 0, sizeof(*report));
	nic_info_get(nic, &report->info);
	report->kind = "fake";
	report->rx_queues = report->tx_queues = (uint16_t)nic->stack_count;
	report->stack_count = nic->stack_count;
}

int nic_xstats(struct nic *nic, void (*fn)(void *arg, const char *name, uint64_t value), void *arg)
{
	(void)nic;
	fn(arg, "fake_packets", 0);
	return 1;
}
