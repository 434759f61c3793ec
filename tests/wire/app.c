/* app.c - the client's side of the stand: what src/sock does in an application, one step at a time. See
 * rig.h.
 *
 * Runs in the test's thread. The protocols of the rings are those of src/sock/xfer.c.
 */
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

struct endpoint *app_ep(const struct rig *r, uint32_t ep)
{
	assert_true(ep < r->arena.endpoint_count);
	return &r->arena.endpoints[ep];
}

void app_post(struct rig *r, uint32_t stack, uint64_t entry)
{
	assert_int_equal(post(&r->at[r->cl], stack, entry), 0);
	rig_turn(r);
}

int app_call(struct rig *r, uint32_t stack, struct call *c)
{
	struct call *slot = &r->at[r->cl].client->call[3];

	memcpy(&slot->op, &c->op, sizeof(*c) - offsetof(struct call, op));
	atomic_store(&slot->state, CALL_POSTED);
	app_post(r, stack, POST_ENTRY(POST_CALL, 0, 3));
	assert_int_equal(atomic_load(&slot->state), CALL_DONE);
	memcpy(&c->op, &slot->op, sizeof(*c) - offsetof(struct call, op));
	atomic_store(&slot->state, CALL_FREE);
	return c->result;
}

int app_bind_at(struct rig *r, uint32_t ip, uint16_t port, uint32_t flags)
{
	struct call c = {.op = CALL_BIND,
	        .endpoint = ENDPOINT_NONE,
	        .local = {.family = AF_INET, .port = port},
	        .flags = flags};
	int rc;

	put32(c.local.ip, ip);
	rc = app_call(r, 0, &c);
	return rc ? rc : (int)c.endpoint;
}

int app_listen_at(struct rig *r, uint32_t ip, uint16_t port, uint32_t flags)
{
	int ep = app_bind_at(r, ip, port, flags), rc;
	struct call c = {.op = CALL_LISTEN, .endpoint = (uint32_t)ep, .value = 64, .flags = flags};

	if (ep < 0)
		return ep;
	rc = app_call(r, 0, &c);
	if (rc)
		app_close(r, (uint32_t)ep);
	return rc ? rc : ep;
}

int app_connect_from(
        struct rig *r, uint32_t stack, uint32_t from, uint16_t from_port, uint32_t ip, uint16_t port)
{
	struct call c = {.op = CALL_CONNECT,
	                    .endpoint = ENDPOINT_NONE,
	                    .local = {.family = AF_INET, .port = from_port},
	                    .remote = {.family = AF_INET, .port = port},
	                    .value = APP_NODELAY},
	            again = c;
	int rc;

	put32(c.local.ip, from);
	put32(c.remote.ip, ip);
	again = c;
	rc = app_call(r, stack, &c);
	if (rc == -EXDEV) {
		stack = (uint32_t)c.value;
		c = again;
		rc = app_call(r, stack, &c);
	}
	return rc ? rc : (int)c.endpoint;
}

int app_bind(struct rig *r, uint16_t port, uint32_t flags)
{
	struct call c = {.op = CALL_BIND,
	        .endpoint = ENDPOINT_NONE,
	        .local = {.family = AF_INET, .port = port},
	        .flags = flags};
	int rc = app_call(r, 0, &c);

	return rc ? rc : (int)c.endpoint;
}

int app_listen(struct rig *r, uint16_t port, int backlog)
{
	int ep = app_bind(r, port, CALL_F_REUSEADDR), rc;
	struct call c = {
	        .op = CALL_LISTEN, .endpoint = (uint32_t)ep, .value = backlog, .flags = CALL_F_REUSEADDR};

	if (ep < 0)
		return ep;
	rc = app_call(r, 0, &c);
	return rc ? rc : ep;
}

int app_connect(struct rig *r, uint32_t ip, uint16_t port)
{
	struct call c = {.op = CALL_CONNECT,
	        .endpoint = ENDPOINT_NONE,
	        .remote = {.family = AF_INET, .port = port},
	        .value = APP_NODELAY};
	int rc;

	put32(c.remote.ip, ip);
	rc = app_call(r, 0, &c);
	return rc ? rc : (int)c.endpoint;
}

uint32_t app_accept(struct rig *r, uint32_t listener)
{
	const struct endpoint *lep = app_ep(r, listener);
	struct listener *l;

	assert_true(lep->listener < r->arena.listener_count);
	l = arena_listener(&r->arena, lep->listener);
	for (uint32_t i = 0; i < r->stacks; i++) {
		struct accept_ring *a = &l->ring[i];
		uint32_t tail = atomic_load(&a->tail), ep;

		if (tail == atomic_load(&a->head))
			continue;
		ep = atomic_load(&a->slot[tail % ACCEPT_RING_SIZE]);
		hold_set(&r->arena, r->cl, ep);
		assert_true(atomic_compare_exchange_strong(&a->tail, &tail, tail + 1));
		return ep;
	}
	return ENDPOINT_NONE;
}

static bool block_ready(struct rig *r, struct endpoint *ep, uint32_t head)
{
	struct attach *at = &r->at[r->cl];
	uint32_t block;

	if (head % TX_BLOCK_SIZE)
		return true;
	block = grant_peek(at, ep->stack_idx);
	if (block == BLOCK_NONE)
		return false;
	ep_tx_block_set(&r->arena, ep, head, block);
	grant_take(at, ep->stack_idx);
	return true;
}

uint32_t app_put(struct rig *r, uint32_t ep_idx, const void *data, uint32_t size)
{
	struct endpoint *ep = app_ep(r, ep_idx);
	uint32_t limit = atomic_load(&ep->tx_limit), head = atomic_load(&ep->tx_head), done = 0;

	while (done < size) {
		uint32_t used = head - atomic_load(&ep->tx_tail), n = TX_BLOCK_SIZE - head % TX_BLOCK_SIZE;

		if (used >= limit || !block_ready(r, ep, head))
			break;
		n = n < limit - used ? n : limit - used;
		n = n < size - done ? n : size - done;
		memcpy(arena_block(&r->arena, ep_tx_block(&r->arena, ep, head)) + head % TX_BLOCK_SIZE,
		        (const uint8_t *)data + done, n);
		head += n;
		done += n;
		atomic_store(&ep->tx_head, head);
	}
	return done;
}

uint32_t app_write(struct rig *r, uint32_t ep_idx, const void *data, uint32_t size)
{
	struct endpoint *ep = app_ep(r, ep_idx);
	uint32_t done = 0;

	/* a second try and more: the first one may only have asked for blocks */
	for (int i = 0; i < 8 && done < size; i++) {
		assert_int_equal(ep_lock(&r->at[r->cl], &ep->tx_lock), 0);
		done += app_put(r, ep_idx, (const uint8_t *)data + done, size - done);
		if (done < size)
			atomic_store(&ep->tx_want, 1);
		post_doorbell(&r->at[r->cl], ep, DOORBELL_TX);
		ep_unlock(&ep->tx_lock);
		rig_turn(r);
	}
	return done;
}

uint32_t app_get(struct rig *r, uint32_t ep_idx, void *data, uint32_t size)
{
	struct endpoint *ep = app_ep(r, ep_idx);
	uint32_t head = atomic_load(&ep->rx_head), tail = atomic_load(&ep->rx_tail),
	         off = atomic_load(&ep->rx_off), done = 0;
	const struct rx_desc *ring = arena_rx_ring(&r->arena, ep);

	while (tail != head && done < size) {
		const struct rx_desc *d = &ring[tail % RX_RING_SIZE];
		const uint8_t *src = arena_rx_data(&r->arena, d);
		uint32_t n = d->size - off;

		assert_non_null(src);
		assert_true(off < d->size);
		n = n < size - done ? n : size - done;
		memcpy((uint8_t *)data + done, src + off, n);
		done += n;
		off += n;
		if (off == d->size) {
			off = 0;
			tail++;
		}
	}
	atomic_store(&ep->rx_off, off);
	atomic_store(&ep->rx_read, atomic_load(&ep->rx_read) + done);
	atomic_store(&ep->rx_tail, tail);
	return done;
}

uint32_t app_read(struct rig *r, uint32_t ep, void *data, uint32_t size)
{
	uint32_t done = 0, n;

	while (done < size && (n = app_get(r, ep, (uint8_t *)data + done, size - done))) {
		done += n;
		post_doorbell(&r->at[r->cl], app_ep(r, ep), DOORBELL_RX);
		rig_turn(r);
	}
	return done;
}

void app_shutdown(struct rig *r, uint32_t ep, int how)
{
	atomic_fetch_or(&app_ep(r, ep)->app_flags,
	        (how != SHUT_WR ? APP_SHUT_RD : 0u) | (how != SHUT_RD ? APP_SHUT_WR : 0u));
	app_post(r, app_ep(r, ep)->stack_idx, POST_ENTRY(POST_SHUTDOWN, how, ep));
}

void app_release(struct rig *r, uint32_t ep, uint32_t how)
{
	app_post(r, app_ep(r, ep)->stack_idx, POST_ENTRY(POST_RELEASE, how, ep));
}

void app_close(struct rig *r, uint32_t ep)
{
	app_release(r, ep, 0);
}

void app_flags(struct rig *r, uint32_t ep, uint32_t flags)
{
	atomic_store(&app_ep(r, ep)->app_flags, flags);
	app_post(r, app_ep(r, ep)->stack_idx, POST_ENTRY(POST_OPTIONS, 0, ep));
}

void app_setopt(struct rig *r, uint32_t ep, enum ep_opt slot, int32_t value)
{
	atomic_store(&app_ep(r, ep)->opts.v[slot], value);
	app_post(r, app_ep(r, ep)->stack_idx, POST_ENTRY(POST_OPTIONS, 0, ep));
}

void app_setflag(struct rig *r, uint32_t ep, enum ep_flag bit, bool on)
{
	if (on)
		atomic_fetch_or(&app_ep(r, ep)->opts.flag, 1ull << bit);
	else
		atomic_fetch_and(&app_ep(r, ep)->opts.flag, ~(1ull << bit));
	app_post(r, app_ep(r, ep)->stack_idx, POST_ENTRY(POST_OPTIONS, 0, ep));
}

void app_die(struct rig *r, uint32_t client)
{
	_Atomic uint32_t left = r->stacks;

	r->is_gone[client] = true;
	atomic_store(&r->at[client].client->state, CLIENT_DEAD);
	for (uint32_t i = 0; i < r->stacks; i++) {
		struct stack_msg *m = calloc(1, sizeof(*m));

		assert_non_null(m);
		m->fn = stack_client_gone;
		m->arg = client;
		m->done = &left;
		m->is_heap = true;
		stack_post(r->stack[i], m);
	}
	rig_turn(r);
	assert_int_equal(atomic_load(&left), 0);
	atomic_store(&r->at[client].client->state, CLIENT_FREE);
}

/* --- bytes --- */

static uint8_t pattern_byte(uint32_t i)
{
	return (uint8_t)(i * 7 + i / 251 + i / 65536);
}

void pattern_fill(uint8_t *buf, uint32_t off, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		buf[i] = pattern_byte(off + i);
}

void pattern_check_at(const uint8_t *buf, uint32_t off, uint32_t size, const char *file, int line)
{
	for (uint32_t i = 0; i < size; i++) {
		if (buf[i] == pattern_byte(off + i))
			continue;
		print_error("stream byte %u is %#x, not %#x\n", off + i, buf[i], pattern_byte(off + i));
		_fail(file, line);
	}
}
