/* peer.c - segments built and taken apart by hand, see peer.h. Runs in the test's thread.
 */
#include "peer.h"

#include <string.h>

enum { ETH = 14, IP = 20, TCP = 20 };

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

void peer_init(struct peer *p, struct rig *r, uint16_t port, uint16_t local_port)
{
	*p = (struct peer){.r = r,
	        .ip = RIG_PEER,
	        .to = RIG_ADDRESS,
	        .port = port,
	        .local_port = local_port,
	        .iss = 0x10000000u + port * 1000u,
	        .wnd = 65535,
	        .mss = 1460,
	        .wscale = -1};
	p->snd = p->iss;
}

void peer_inject(struct peer *p, uint8_t flags, uint32_t seq, uint32_t ack, const void *opt,
        uint32_t opt_size, const void *data, uint32_t size)
{
	uint8_t f[RIG_NEAR_MAX] = {0x02, 0, 0, 0, 0, 0x01};
	uint32_t header = TCP + opt_size;

	rig_mac(p->ip, f + 6);
	put16(f + 12, 0x0800);
	f[ETH] = 0x45;
	put16(f + ETH + 2, IP + header + size);
	f[ETH + 8] = 64;
	f[ETH + 9] = 6;
	put32(f + ETH + 12, p->ip);
	put32(f + ETH + 16, p->to);
	put16(f + ETH + IP, p->port);
	put16(f + ETH + IP + 2, p->local_port);
	put32(f + ETH + IP + 4, seq);
	put32(f + ETH + IP + 8, ack);
	f[ETH + IP + 12] = (uint8_t)(header / 4 << 4);
	f[ETH + IP + 13] = flags;
	put16(f + ETH + IP + 14, p->wnd);
	if (opt_size)
		memcpy(f + ETH + IP + TCP, opt, opt_size);
	if (size)
		memcpy(f + ETH + IP + header, data, size);
	rig_inject(p->r, 0, f, ETH + IP + header + size);
}

void peer_raw(struct peer *p, uint8_t flags, uint32_t seq, uint32_t ack, const void *opt, uint32_t opt_size,
        const void *data, uint32_t size)
{
	peer_inject(p, flags, seq, ack, opt, opt_size, data, size);
	rig_turn(p->r);
}

void peer_send(struct peer *p, uint8_t flags, const void *data, uint32_t size)
{
	uint8_t opt[16];
	uint32_t n = 0, seq = p->snd;

	if (flags & SYN) {
		if (p->mss >= 0) {
			opt[n++] = 2;
			opt[n++] = 4;
			put16(opt + n, (uint32_t)p->mss);
			n += 2;
		}
		if (p->wscale >= 0) {
			opt[n++] = 1;
			opt[n++] = 3;
			opt[n++] = 3;
			opt[n++] = (uint8_t)p->wscale;
		}
		if (p->sack_ok) {
			opt[n++] = 1;
			opt[n++] = 1;
			opt[n++] = 4;
			opt[n++] = 2;
		}
	}
	p->snd += size + !!(flags & SYN) + !!(flags & FIN);
	peer_raw(p, flags, seq, p->rcv, opt, n, data, size);
}

void peer_data(struct peer *p, uint32_t size)
{
	uint8_t buf[RIG_NEAR_MAX];

	pattern_fill(buf, p->snd - p->iss - 1, size);
	peer_send(p, ACK | PSH, buf, size);
}

void peer_data_at(struct peer *p, uint32_t off, uint32_t size)
{
	uint8_t buf[RIG_NEAR_MAX];

	pattern_fill(buf, off, size);
	peer_raw(p, ACK, p->iss + 1 + off, p->rcv, NULL, 0, buf, size);
}

void peer_ack(struct peer *p)
{
	peer_send(p, ACK, NULL, 0);
}

struct seg *peer_next(struct peer *p)
{
	struct rig *r = p->r;
	struct seg *s;

	for (s = r->segs; s; s = s->next)
		if (!s->is_taken && s->dst_ip == p->ip && s->dst == p->port && s->src == p->local_port)
			break;
	if (!s)
		return NULL;
	s->is_taken = true;
	if (s->flags & SYN) {
		p->irs = s->seq;
		p->rcv = s->seq + 1;
	} else if (s->seq == p->rcv) {
		p->rcv += s->size + (s->flags & FIN);
	}
	return s;
}

struct seg *expect_at(struct peer *p, uint8_t flags, uint32_t seq, uint32_t size, const char *file, int line)
{
	struct seg *s = peer_next(p);

	if (!s) {
		print_error("expected flags %#x seq %u size %u, nothing was sent\n", flags, seq, size);
		_fail(file, line);
		return NULL;
	}
	if ((s->flags & ~PSH) != flags || s->seq != seq || s->size != size) {
		print_error(
		        "expected flags %#x seq %u (irs+%d) size %u, got flags %#x seq %u (irs+%d) ack %u size %u\n",
		        flags, seq, (int)(seq - p->irs), size, s->flags, s->seq, (int)(s->seq - p->irs),
		        s->ack, s->size);
		_fail(file, line);
	}
	return s;
}

void expect_none_at(struct peer *p, const char *file, int line)
{
	struct seg *s = peer_next(p);

	if (!s)
		return;
	print_error("expected nothing, got flags %#x seq %u (irs+%d) ack %u size %u\n", s->flags, s->seq,
	        (int)(s->seq - p->irs), s->ack, s->size);
	_fail(file, line);
}

void peer_skip(struct peer *p)
{
	while (peer_next(p))
		;
}

uint32_t peer_open(struct peer *p, uint32_t listener)
{
	uint32_t ep;

	peer_send(p, SYN, NULL, 0);
	assert_non_null(peer_next(p));
	peer_ack(p);
	ep = app_accept(p->r, listener);
	assert_int_not_equal(ep, ENDPOINT_NONE);
	return ep;
}

uint32_t peer_pair_window(struct peer *p, struct rig *r, uint16_t wnd)
{
	int lep = app_listen(r, 80, 16);

	assert_true(lep >= 0);
	peer_init(p, r, 40000, 80);
	p->wnd = wnd;
	return peer_open(p, (uint32_t)lep);
}

uint32_t peer_pair(struct peer *p, struct rig *r)
{
	return peer_pair_window(p, r, 65535);
}

uint32_t peer_answer(struct peer *p, struct rig *r, uint16_t port)
{
	int ep = app_connect(r, RIG_PEER, port);
	struct seg *s;

	assert_true(ep >= 0);
	peer_init(p, r, port, app_ep(r, (uint32_t)ep)->local.port);
	s = peer_next(p);
	assert_non_null(s);
	assert_int_equal(s->flags, SYN);
	peer_send(p, SYN | ACK, NULL, 0);
	assert_int_equal(app_ep(r, (uint32_t)ep)->state, EP_ESTABLISHED);
	expect(p, ACK, p->irs + 1, 0);
	return (uint32_t)ep;
}

uint32_t peer_drain(struct peer *p, uint32_t off)
{
	for (bool is_more = true; is_more;) {
		struct seg *s;
		uint32_t at;

		is_more = false;
		while ((s = peer_next(p))) {
			assert_false(s->flags & RST);
			if (!s->size)
				continue;
			is_more = true;
			at = s->seq - p->irs - 1;
			pattern_check(s->data, at, s->size);
			if (at <= off && at + s->size > off) {
				off = at + s->size;
				p->rcv = s->seq + s->size + (s->flags & FIN);
			}
		}
		if (is_more)
			peer_ack(p);
	}
	return off;
}
