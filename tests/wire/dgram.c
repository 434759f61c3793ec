/* dgram.c - datagrams in the wire tests; see dgram.h. The rings' protocols are those of src/sock. */
#include "dgram.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HEAD = 14 + 20 + 8 };

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
	return be16(p) << 16 | be16(p + 2);
}

static uint32_t sum(uint32_t s, const uint8_t *p, uint32_t size)
{
	for (; size > 1; p += 2, size -= 2)
		s += be16(p);
	if (size)
		s += (uint32_t)p[0] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* --- the client --- */

int dg_bind_at(struct rig *r, uint32_t stack, uint32_t ip, uint16_t port, uint32_t flags, uint32_t rcvbuf)
{
	struct call c = {.op = CALL_BIND,
	        .opt = SOCK_DGRAM,
	        .endpoint = ENDPOINT_NONE,
	        .local = {.family = AF_INET, .port = port},
	        .flags = flags,
	        .rcvbuf = rcvbuf};
	int rc;

	put32(c.local.ip, ip);
	rc = app_call(r, stack, &c);
	if (rc)
		return rc;
	assert_int_equal(c.local.port, app_ep(r, c.endpoint)->local.port);
	assert_int_equal(app_ep(r, c.endpoint)->stack_idx, stack);
	assert_int_equal(app_ep(r, c.endpoint)->state, EP_DGRAM);
	return (int)c.endpoint;
}

int dg_bind(struct rig *r, uint32_t ip, uint16_t port)
{
	return dg_bind_at(r, 0, ip, port, 0, 0);
}

int dg_connect(struct rig *r, int ep, uint32_t ip, uint16_t port)
{
	struct call c = {.op = CALL_CONNECT,
	        .opt = SOCK_DGRAM,
	        .endpoint = (uint32_t)ep,
	        .remote = {.family = ip || port ? AF_INET : 0, .port = port}};

	put32(c.remote.ip, ip);
	return app_call(r, app_ep(r, (uint32_t)ep)->stack_idx, &c);
}

int dg_group(struct rig *r, int ep, uint32_t ip, bool join)
{
	struct call c = {
	        .op = CALL_GROUP, .endpoint = (uint32_t)ep, .remote = {.family = AF_INET}, .value = join};

	put32(c.remote.ip, ip);
	return app_call(r, app_ep(r, (uint32_t)ep)->stack_idx, &c);
}

void dg_rcvbuf(struct rig *r, int ep, int32_t size)
{
	struct endpoint *e = app_ep(r, (uint32_t)ep);

	atomic_store(&e->opts.v[EPO_RCVBUF], size);
	atomic_fetch_or(&e->opts.flag, 1ull << EPF_RCVBUF_SET);
	app_post(r, e->stack_idx, POST_ENTRY(POST_OPTIONS, 0, ep));
}

void dg_head(struct dgram_head *h, uint32_t ip, uint16_t port, uint32_t size)
{
	*h = (struct dgram_head){.size = size, .ttl = 64, .to = {.family = AF_INET, .port = port}};
	put32(h->to.ip, ip);
}

static bool ring_put(struct rig *r, struct endpoint *ep, uint32_t *head, const void *data, uint32_t size)
{
	struct attach *at = &r->at[r->cl];

	while (size) {
		uint32_t off = *head % TX_BLOCK_SIZE, n = TX_BLOCK_SIZE - off;

		if (!off) {
			uint32_t block = grant_peek(at, ep->stack_idx);

			if (block == BLOCK_NONE)
				return false;
			ep_tx_block_set(&r->arena, ep, *head, block);
			grant_take(at, ep->stack_idx);
		}
		if (ep_tx_block(&r->arena, ep, *head) >= r->arena.block_count)
			return false; /* a test has written nonsense there */
		n = n < size ? n : size;
		memcpy(arena_block(&r->arena, ep_tx_block(&r->arena, ep, *head)) + off, data, n);
		data = (const uint8_t *)data + n;
		*head += n;
		size -= n;
	}
	return true;
}

bool dg_put(struct rig *r, int ep_idx, const struct dgram_head *h, const void *data, uint32_t size)
{
	static const uint8_t zero[8];
	struct endpoint *ep = app_ep(r, (uint32_t)ep_idx);
	uint32_t head = atomic_load(&ep->tx_head);

	if (!ring_put(r, ep, &head, h, sizeof(*h)) || !ring_put(r, ep, &head, data, size) ||
	        !ring_put(r, ep, &head, zero, DGRAM_ALIGN(size) - size))
		return false;
	atomic_store(&ep->tx_head, head);
	return true;
}

bool dg_send_flags(struct rig *r, int ep, uint32_t ip, uint16_t port, uint32_t size, uint16_t flags)
{
	static uint8_t data[65536];
	struct dgram_head h;

	/* asks for blocks first, as a writer that found none does */
	post_doorbell(&r->at[r->cl], app_ep(r, (uint32_t)ep), DOORBELL_TX);
	rig_turn(r);
	dg_head(&h, ip, port, size);
	h.flags = flags;
	pattern_fill(data, 0, size);
	if (!dg_put(r, ep, &h, data, size))
		return false;
	post_doorbell(&r->at[r->cl], app_ep(r, (uint32_t)ep), DOORBELL_TX);
	rig_turn(r);
	return true;
}

bool dg_send(struct rig *r, int ep, uint32_t ip, uint16_t port, uint32_t size)
{
	return dg_send_flags(r, ep, ip, port, size, 0);
}

int dg_recv(struct rig *r, int ep_idx, void *data, struct dgram_meta *meta)
{
	struct endpoint *ep = app_ep(r, (uint32_t)ep_idx);
	uint32_t head = atomic_load(&ep->rx_head), tail = atomic_load(&ep->rx_tail), done = 0, pieces;
	const struct rx_desc *ring = arena_rx_ring(&r->arena, ep);
	struct dgram_meta m;

	if (head == tail)
		return -1;
	pieces = ring[tail % RX_RING_SIZE].pieces;
	assert_true(pieces && pieces <= head - tail); /* always whole */
	for (uint32_t i = 0; i < pieces; i++) {
		const struct rx_desc *d = &ring[(tail + i) % RX_RING_SIZE];
		const uint8_t *p = arena_rx_data(&r->arena, d);
		uint32_t size = d->size;

		assert_non_null(p);
		if (!i) {
			memcpy(&m, p, sizeof(m));
			p += sizeof(m);
			size -= (uint32_t)sizeof(m);
		} else {
			assert_int_equal(d->pieces, 0);
		}
		if (data)
			memcpy((uint8_t *)data + done, p, size);
		done += size;
	}
	assert_int_equal(done, m.size);
	if (meta)
		*meta = m;
	atomic_store(&ep->rx_tail, tail + pieces);
	post_doorbell(&r->at[r->cl], ep, DOORBELL_RX);
	rig_turn(r);
	return (int)done;
}

void dg_expect_at(
        struct rig *r, int ep, uint16_t from_port, uint32_t off, uint32_t size, const char *file, int line)
{
	static uint8_t data[65536];
	struct dgram_meta m = {0};
	int n = dg_recv(r, ep, data, &m);

	_assert_int_equal((LargestIntegralType)n, (LargestIntegralType)size, file, line);
	_assert_int_equal(m.from.port, from_port, file, line);
	pattern_check_at(data, off, size, file, line);
}

/* --- the peer --- */

void dg_peer(struct dg_peer *p, struct rig *r, uint16_t port)
{
	*p = (struct dg_peer){.r = r, .src = RIG_PEER, .dst = RIG_ADDRESS, .sport = 9000, .dport = port};
}

static void ip_head(const struct dg_peer *p, uint8_t *f, uint32_t size, uint32_t id, uint32_t frag)
{
	memset(f, 0, 34);
	if (p->dst >> 28 == 14)
		memcpy(f,
		        (uint8_t[]){
		                1, 0, 0x5e, (p->dst >> 16) & 0x7f, (uint8_t)(p->dst >> 8), (uint8_t)p->dst},
		        6);
	else if (p->dst == 0xffffffff || (p->dst & 0xffff) == 0xffff)
		memset(f, 0xff, 6);
	else
		memcpy(f, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
	rig_mac(p->src, f + 6);
	f[12] = 8;
	f[14] = 0x45;
	f[15] = 0x20;
	put16(f + 16, size + 20);
	put16(f + 18, id);
	put16(f + 20, frag);
	f[22] = 63;
	f[23] = 17;
	put32(f + 26, p->src);
	put32(f + 30, p->dst);
}

void dg_arrive(struct dg_peer *p, uint32_t size)
{
	static uint8_t u[8 + 65536];
	static uint16_t id = 77;
	uint8_t f[RIG_FRAME_MAX + 64], pseudo[12];
	uint32_t total = size + 8, part = p->mtu ? (p->mtu - 20) & ~7u : total, count, s;

	id++;
	put16(u, p->sport);
	put16(u + 2, p->dport);
	put16(u + 4, total);
	put16(u + 6, 0);
	pattern_fill(u + 8, p->off, size);
	put32(pseudo, p->src);
	put32(pseudo + 4, p->dst);
	put16(pseudo + 8, 17);
	put16(pseudo + 10, total);
	s = ~sum(sum(0, pseudo, 12), u, total) & 0xffff;
	if (!p->no_cksum)
		put16(u + 6, (s ? s : 0xffff) ^ (p->bad_cksum ? 0x1234 : 0));
	count = (total + part - 1) / part;
	for (uint32_t k = 0; k < count; k++) {
		uint32_t i = p->backwards ? count - 1 - k : k, off = i * part,
		         n = total - off < part ? total - off : part, t;

		if (i + 1 == p->skip)
			continue;
		ip_head(p, f, n, id, off / 8 | (i + 1 < count ? 0x2000 : 0));
		t = ~sum(0, f + 14, 20) & 0xffff;
		put16(f + 24, t);
		memcpy(f + 34, u + off, n);
		assert_int_equal(nic_fake_inject(p->r->nic, p->queue, f, n + 34), 0);
		if (k % 32 == 31)
			rig_turn(p->r);
	}
	rig_turn(p->r);
}

int dg_sent(struct rig *r, void *data, struct dg_peer *p)
{
	static uint8_t u[65536 + 8];
	uint32_t total = 0, id = 0, got = 0, end = UINT32_MAX;
	uint8_t pseudo[12];
	struct packet *k;

	while (got < end && (k = rig_packet(r))) {
		const uint8_t *ip = k->ip;
		uint32_t frag = be16(ip + 6), off = (frag & 0x1fff) * 8, n = k->size - 20;

		assert_int_equal(ip[9], 17);
		if (got)
			assert_int_equal(be16(ip + 4), id);
		id = be16(ip + 4);
		memcpy(u + off, ip + 20, n);
		if (!(frag & 0x2000))
			end = off + n;
		got += n;
		total = off + n > total ? off + n : total;
		if (p) {
			p->src = be32(ip + 12);
			p->dst = be32(ip + 16);
		}
		memcpy(pseudo, ip + 12, 8);
		free(k);
	}
	if (!got)
		return -1;
	assert_int_equal(got, end);
	assert_int_equal(be16(u + 4), total);
	put16(pseudo + 8, 17);
	put16(pseudo + 10, total);
	if (be16(u + 6) || !p || !p->no_cksum)
		assert_int_equal(sum(sum(0, pseudo, 12), u, total), 0xffff);
	if (p) {
		p->r = r;
		p->sport = (uint16_t)be16(u);
		p->dport = (uint16_t)be16(u + 2);
	}
	if (data)
		memcpy(data, u + 8, total - 8);
	return (int)total - 8;
}
