/* rig.c - makes the stand, moves its clock, and proves at the end that nothing has leaked. See rig.h.
 *
 * Runs in the test's thread; the second stack's thread does nothing but what this file tells it, one command
 * at a time. The client's side is app.c.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "libc.h"
#include "udp.h"

enum { SETTLE_MAX = 10000 };

static const uint64_t near_tag = 0x8877665544332211;

/* The thread of the second stack. */
enum rig_command { CMD_ENTER, CMD_TURN, CMD_USAGE, CMD_LEAVE, CMD_END };

struct rig_thread {
	pthread_t id;
	sem_t go, done;
	enum rig_command command;
	struct stack *s;
	uint64_t now_ns;
	uint32_t result;
	struct lwip_mem_usage usage;
};

static struct rig *rig_current;

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
	return be16(p) << 16 | be16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void *thread_body(void *arg)
{
	struct rig_thread *t = arg;

	for (;;) {
		sem_wait(&t->go);
		switch (t->command) {
		case CMD_ENTER:
			t->result = (uint32_t)stack_enter(t->s);
			break;
		case CMD_TURN:
			t->result = stack_turn(t->s, t->now_ns);
			break;
		case CMD_USAGE:
			lwip_mem_usage(&t->usage);
			break;
		case CMD_LEAVE:
			stack_leave(t->s);
			break;
		case CMD_END:
			sem_post(&t->done);
			return NULL;
		}
		sem_post(&t->done);
	}
}

static uint32_t thread_do(struct rig_thread *t, enum rig_command command, uint64_t now_ns)
{
	t->command = command;
	t->now_ns = now_ns;
	sem_post(&t->go);
	sem_wait(&t->done);
	return t->result;
}

/* A stack has left frames for another: one more turn. Called by the stacks' threads, in lock step. */
static void wake_note(void *arg, uint32_t stack_idx)
{
	struct rig *r = arg;

	(void)stack_idx;
	r->is_woken = true;
}

static void attach_fill(struct rig *r, uint32_t idx)
{
	struct attach *at = &r->at[idx];

	at->arena = r->arena;
	at->ctl_fd = at->stats_fd = -1;
	at->client_idx = idx;
	at->client = arena_client(&r->arena, idx);
	for (uint32_t i = 0; i < r->stacks; i++)
		at->stack_fd[i] = stack_event_fd(r->stack[i]);
	client_seen(&r->arena, idx);
	atomic_store(&at->client->state, CLIENT_ACTIVE);
	atomic_store(&at->client->pid, (int32_t)getpid());
}

#define OR(value, other) ((value) ? (value) : (other))

struct rig *rig_up(const struct rig_spec *spec)
{
	static const struct rig_spec usual;
	struct rig *r = calloc(1, sizeof(*r));
	struct nic_region region;
	char err[256];
	bool is_huge;

	if (!spec)
		spec = &usual;
	assert_non_null(r);
	libc_init();
	rig_current = r;
	r->segs_tail = &r->segs;
	r->packets_tail = &r->packets;
	r->stacks = OR(spec->stacks, 1);
	r->address = RIG_ADDRESS;
	r->gateway = RIG_GATEWAY;
	r->now_ns = OR(spec->start_ms, 1000000) * 1000000;
	cfg_defaults(&r->cfg);
	r->cfg.stacks = r->stacks;
	r->cfg.receive_buffer = OR(spec->receive_buffer, 262144);
	r->cfg.receive_buffer_max = OR(spec->receive_buffer_max, r->cfg.receive_buffer);
	r->cfg.send_buffer = OR(spec->send_buffer, 524288);
	r->cfg.time_wait_ms = OR(spec->time_wait_ms, 1000);
	r->cfg.rto_min_ms = OR(spec->rto_min_ms, 20);
	r->cfg.delayed_ack_ms = OR(spec->delayed_ack_ms, 5);
	r->cfg.loopback = spec->loopback ? CFG_LOOPBACK_PRONK : CFG_LOOPBACK_KERNEL;
	r->nic = nic_fake_create(r->stacks);
	assert_non_null(r->nic);
	nic_fake_set_wake(r->nic, wake_note, r);
	r->is_near = spec->near;
	if (r->is_near)
		nic_fake_set_near(r->nic, near_tag, RIG_NEAR_MAX);
	assert_int_equal(arena_create(&r->arena,
	                         &(struct arena_spec){.name = "wire",
	                                 .stack_count = r->stacks,
	                                 .endpoint_count = OR(spec->endpoints, 64 * r->stacks),
	                                 .client_count = RIG_CLIENTS,
	                                 .block_memory = OR(spec->block_memory, r->stacks * (4u << 20)),
	                                 .huge = -1},
	                         &is_huge, err, sizeof(err)),
	        0);
	assert_int_equal(nic_regions(r->nic, &region, 1), 1);
	arena_net_set(r->arena.hdr,
	        &(struct arena_net){
	                .prefix = 16, .mtu = 1500, .has_gateway = !spec->no_gateway, .is_usable = true},
	        0);
	r->arena.region[0] = (struct arena_region){region.base, region.size};
	r->arena.region_count = 1;
	r->segment = aligned_alloc(64, stat_segment_size(r->stacks));
	stat_segment_init(r->segment, r->stacks);
	r->poller_fds = calloc(ARENA_POLLER_MAX, sizeof(*r->poller_fds));
	for (int i = 0; i < ARENA_POLLER_MAX; i++)
		r->poller_fds[i] = -1;
	for (uint32_t i = 0; i < r->stacks; i++) {
		struct stack_spec s = {.idx = i,
		        .count = r->stacks,
		        .cfg = &r->cfg,
		        .arena = &r->arena,
		        .nic = r->nic,
		        .stats = r->stats[i] = stat_segment_block(r->segment, i),
		        .peers = r->stack,
		        .poller_fds = r->poller_fds,
		        .mac = {0x02, 0, 0, 0, 0, 0x01},
		        .netmask = {255, 255, 0, 0},
		        .has_gateway = !spec->no_gateway,
		        .mtu = 1500,
		        .frame_big = spec->near ? RIG_NEAR_MAX : 0,
		        .core = -1};

		put32(s.address, RIG_ADDRESS);
		put32(s.gateway, RIG_GATEWAY);
		r->stack[i] = stack_create(&s, err, sizeof(err));
		assert_non_null(r->stack[i]);
		r->stack[i]->now_ns = r->now_ns;
		r->stack[i]->now_ms = (uint32_t)(r->now_ns / 1000000);
	}
	assert_int_equal(stack_enter(r->stack[0]), 0);
	if (r->stacks > 1) {
		r->thread = calloc(1, sizeof(*r->thread));
		r->thread->s = r->stack[1];
		sem_init(&r->thread->go, 0, 0);
		sem_init(&r->thread->done, 0, 0);
		assert_int_equal(pthread_create(&r->thread->id, NULL, thread_body, r->thread), 0);
		assert_int_equal(thread_do(r->thread, CMD_ENTER, 0), 0);
	}
	for (uint32_t i = 0; i < RIG_CLIENTS; i++)
		attach_fill(r, i);
	rig_turn(r);
	return r;
}

/* --- frames --- */

void rig_mac(uint32_t ip, uint8_t mac[6])
{
	mac[0] = 0x02;
	mac[1] = 0xaa;
	put32(mac + 2, ip);
}

void rig_inject(struct rig *r, uint32_t queue, const void *frame, uint32_t size)
{
	assert_int_equal(nic_fake_inject_fixed(r->nic, queue, frame, size), 0);
}

void rig_frame(struct rig *r, const void *frame, uint32_t size)
{
	rig_inject(r, 0, frame, size);
	rig_turn(r);
}

static void arp_inject(struct rig *r, uint32_t op, uint32_t sender, uint32_t target)
{
	uint8_t f[60] = {0x02, 0, 0, 0, 0, 0x01};

	if (op == 1)
		memset(f, 0xff, 6);
	rig_mac(sender, f + 6);
	memcpy(f + 12, (uint8_t[]){0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, (uint8_t)op}, 10);
	rig_mac(sender, f + 22);
	put32(f + 28, sender);
	if (op == 2)
		memcpy(f + 32, (uint8_t[]){0x02, 0, 0, 0, 0, 0x01}, 6);
	put32(f + 38, target);
	if (r->is_near) {
		memcpy(f + 42, (uint8_t[]){'P', 'r', 'o', 1, RIG_NEAR_MAX >> 8, RIG_NEAR_MAX & 0xff}, 6);
		memcpy(f + 48, &near_tag, sizeof(near_tag));
	}
	assert_int_equal(nic_fake_inject(r->nic, 0, f, sizeof(f)), 0);
}

void rig_arp(struct rig *r, uint32_t op, uint32_t sender, uint32_t target)
{
	arp_inject(r, op, sender, target);
	rig_turn(r);
}

static void frame_error(struct rig *r, const char *text)
{
	if (!r->frame_errors++)
		snprintf(r->frame_error, sizeof(r->frame_error), "%s", text);
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

static void parse_options(struct rig *r, struct seg *s, const uint8_t *o, uint32_t size)
{
	s->mss = s->wscale = -1;
	for (uint32_t i = 0; i < size && o[i];) {
		if (o[i] == 1) {
			i++;
			continue;
		}
		if (i + 1 >= size || o[i + 1] < 2 || i + o[i + 1] > size) {
			frame_error(r, "a segment was sent with wrong options");
			return;
		}
		if (o[i] == 2)
			s->mss = (int)be16(o + i + 2);
		else if (o[i] == 3)
			s->wscale = o[i + 2];
		else if (o[i] == 4)
			s->sack_ok = true;
		else if (o[i] == 5)
			for (uint32_t k = i + 2; k + 8 <= i + o[i + 1] && s->sack_count < 4; k += 8) {
				s->sack[s->sack_count].left = be32(o + k);
				s->sack[s->sack_count++].right = be32(o + k + 4);
			}
		i += o[i + 1];
	}
}

static void seg_take(struct rig *r, uint32_t stack, const uint8_t *ip, uint32_t size)
{
	const uint8_t *t = ip + 20;
	uint32_t tcp = size - 20, header = (uint32_t)(t[12] >> 4) * 4;
	struct seg *s = calloc(1, sizeof(*s) + tcp);

	if (tcp < 20 || header < 20 || header > tcp)
		frame_error(r, "a segment was sent with a wrong header length");
	if (r->is_near ? be16(t + 16) != sum(6 + tcp, ip + 12, 8)
	               : sum(sum(6 + tcp, ip + 12, 8), t, tcp) != 0xffff)
		frame_error(r, "a segment was sent with a wrong TCP checksum");
	*s = (struct seg){.ms = rig_ms(r),
	        .stack = stack,
	        .dst_ip = be32(ip + 16),
	        .src = (uint16_t)be16(t),
	        .dst = (uint16_t)be16(t + 2),
	        .seq = be32(t + 4),
	        .ack = be32(t + 8),
	        .flags = t[13],
	        .wnd = (uint16_t)be16(t + 14),
	        .size = tcp - header};
	parse_options(r, s, t + 20, header - 20);
	memcpy(s->data, t + header, s->size);
	*r->segs_tail = s;
	r->segs_tail = &s->next;
}

/* Looks at a frame that was sent. True when it was answered at once. */
static bool frame_take(struct rig *r, uint32_t stack, const uint8_t *f, uint32_t size)
{
	static const uint8_t own[6] = {0x02, 0, 0, 0, 0, 0x01};
	const uint8_t *ip = f + 14;
	uint8_t mac[6];
	uint32_t total;

	if (memcmp(f + 6, own, 6) != 0)
		frame_error(r, "a frame was sent from a foreign Ethernet address");
	if (be16(f + 12) == 0x0806) {
		if (f[21] == 2) {
			r->arp_replies++;
			return false;
		}
		r->arp_requests++;
		if (r->arp_is_silent || be32(f + 38) == r->address)
			return false;
		arp_inject(r, 2, be32(f + 38), r->address);
		return true;
	}
	if (be16(f + 12) != 0x0800 || (ip[0] != 0x45 && !(ip[0] == 0x46 && ip[9] == 2))) {
		frame_error(r, "a frame was sent that is neither ARP nor plain IPv4");
		return false;
	}
	total = be16(ip + 2);
	if (total + 14 > size || sum(0, ip, (ip[0] & 15u) * 4) != 0xffff || be32(ip + 12) != r->address)
		frame_error(r, "a packet was sent with a wrong IPv4 header");
	if (ip[16] >> 4 == 14)
		memcpy(mac, (uint8_t[]){0x01, 0x00, 0x5e, ip[17] & 0x7f, ip[18], ip[19]}, 6);
	else if (be32(ip + 16) == 0xffffffff || be32(ip + 16) == (r->address | 0xffff))
		memset(mac, 0xff, 6);
	else
		rig_mac((be32(ip + 16) ^ r->address) >> 16 ? r->gateway : be32(ip + 16), mac);
	if (r->fixed && be32(ip + 16) == r->fixed)
		memcpy(mac, r->fixed_mac, 6);
	memcpy(r->last_mac, f, 6);
	if (memcmp(f, mac, 6) != 0)
		frame_error(r, "a packet was sent to the wrong neighbour");
	if (ip[9] == 6) {
		seg_take(r, stack, ip, total);
	} else {
		struct packet *p = calloc(1, sizeof(*p));

		r->other_frames++;
		r->other_size = size;
		memcpy(r->other, f, size);
		p->stack = stack;
		p->size = total;
		memcpy(p->ip, ip, total);
		*r->packets_tail = p;
		r->packets_tail = &p->next;
	}
	return false;
}

struct packet *rig_packet(struct rig *r)
{
	struct packet *p = r->packets;

	if (p && !(r->packets = p->next))
		r->packets_tail = &r->packets;
	return p;
}

void rig_turn(struct rig *r)
{
	uint8_t f[RIG_NEAR_MAX];
	bool is_busy = true;

	for (int i = 0; is_busy; i++) {
		uint32_t size;

		assert_true(i < SETTLE_MAX);
		is_busy = stack_turn(r->stack[0], r->now_ns) > 0;
		if (r->thread && thread_do(r->thread, CMD_TURN, r->now_ns))
			is_busy = true;
		is_busy |= r->is_woken;
		r->is_woken = false;
		for (uint32_t k = 0; k < r->stacks; k++) {
			if (atomic_load(&r->stack[k]->messages))
				is_busy = true;
			while ((size = nic_fake_take(r->nic, k, f, sizeof(f))))
				if (frame_take(r, k, f, size))
					is_busy = true;
		}
	}
}

void rig_jump(struct rig *r, uint32_t ms, uint32_t step)
{
	while (ms) {
		if (step > ms)
			step = ms;
		ms -= step;
		r->now_ns += step * 1000000ull;
		rig_turn(r);
	}
}

void rig_run(struct rig *r, uint32_t ms)
{
	rig_jump(r, ms, 1);
}

uint64_t rig_stat(const struct rig *r, enum stat_id id)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < r->stacks; i++)
		n += stat_get(r->stats[i], id);
	return n;
}

uint32_t rig_conns(const struct rig *r)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->stacks; i++)
		n += r->stack[i]->conn_count;
	return n;
}

/* --- the end --- */

/* A reset from the peer, exactly where the stack expects the next byte. */
static void reset_inject(struct rig *r, const struct conn *c)
{
	uint8_t f[60] = {0x02, 0, 0, 0, 0, 0x01};

	memcpy(f + 12, (uint8_t[]){0x08, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6}, 12);
	memcpy(f + 26, &ip_2_ip4(&c->remote_ip)->addr, 4);
	put32(f + 30, r->address);
	put32(f + 32 + 2, (uint32_t)c->remote_port << 16 | c->local_port);
	put32(f + 38, c->pcb->rcv_nxt);
	put32(f + 42, c->pcb->snd_nxt);
	f[46] = 0x50;
	f[47] = RST | ACK;
	assert_int_equal(nic_fake_inject_fixed(r->nic, 0, f, 54), 0);
}

static void resets(struct rig *r)
{
	for (uint32_t i = 0; i < r->stacks; i++)
		for (uint32_t h = 0; h <= r->stack[i]->hash_mask; h++)
			for (struct conn *c = r->stack[i]->hash[h]; c; c = c->hash_next)
				if (c->pcb && !loop_serves(r->stack[i], ip_2_ip4(&c->remote_ip)->addr))
					reset_inject(r, c);
	rig_turn(r);
}

static uint32_t conns_free(const struct stack *s)
{
	uint32_t n = 0;

	for (const struct conn *c = s->conn_free; c; c = c->hash_next)
		n++;
	return n;
}

#define PROVE(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			print_error("after the test: %s is not so (stack %u)\n", #condition, i);             \
			bad++;                                                                               \
		}                                                                                            \
	} while (0)

static uint32_t prove_stack(struct rig *r, uint32_t i)
{
	const struct stack *s = r->stack[i];
	struct lwip_mem_usage usage;
	uint32_t bad = 0;

	if (i == 0) {
		lwip_mem_usage(&usage);
	} else {
		thread_do(r->thread, CMD_USAGE, 0);
		usage = r->thread->usage;
	}
	PROVE(s->ep_free_count == s->ep_count);
	PROVE(s->block_free_count == s->block_count);
	PROVE(s->ring_free_count == s->ring_count);
	PROVE(s->conn_count == 0);
	PROVE(s->wheel_armed == 0);
	PROVE(s->dirty == NULL);
	PROVE(s->starved == NULL);
	PROVE(conns_free(s) == 64 * s->slab_count);
	PROVE(usage.heap_count == 0);
	PROVE(usage.pool_total == 0);
	for (unsigned k = 0; k < LWIP_MEM_POOL_MAX; k++)
		if (usage.pool_count[k])
			print_error("  %u of %s\n", usage.pool_count[k], lwip_mem_pool_name(k));
	PROVE(stat_get(r->stats[i], STAT_lwip_asserts) == 0);
	for (uint32_t k = 0; k < s->ep_count; k++) {
		PROVE(s->by_ep[k] == NULL);
		PROVE(s->own[k].kind == OWN_FREE);
		if (r->bad_expected != UINT64_MAX)
			PROVE(atomic_load(&stack_ep(s, s->ep_first + k)->state) == EP_FREE);
	}
	for (uint32_t k = 0; k < ACCEPT_HASH; k++)
		PROVE(s->listeners[k] == NULL);
	for (uint32_t k = 0; k < UDP_HASH; k++)
		PROVE(s->udp_hash[k] == NULL);
	PROVE(s->udp_again == NULL);
	PROVE(s->udp_handed == 0);
	PROVE(s->neigh_waiting == 0);
	return bad;
}

int rig_end(void **state)
{
	struct rig *r = rig_current;
	uint32_t bad = 0, i = 0;

	(void)state;
	if (!r)
		return -1;
	rig_current = NULL;
	for (i = 0; i < RIG_CLIENTS; i++)
		if (!r->is_gone[i])
			app_die(r, i);
	resets(r);
	/* TIME_WAIT and unanswered questions about neighbours end */
	rig_jump(r, r->cfg.time_wait_ms + 10000, 500);
	rig_jump(r, 500, 1);
	for (i = 0; i < r->stacks && !r->nothing_is_checked; i++)
		bad += prove_stack(r, i);
	i = 0;
	if (!r->nothing_is_checked) {
		for (uint32_t k = 0; k < 65536; k++)
			PROVE(r->stack[0]->ports[k] == NULL);
		for (uint32_t k = 0; k < 65536 / 32; k++)
			PROVE((atomic_load(&r->arena.hdr->port_used[k]) |
			              atomic_load(&r->arena.hdr->port_listen[k])) == 0);
		for (uint32_t k = 0; k < 65536 / 32; k++)
			PROVE(atomic_load(&r->arena.hdr->udp_used[k]) == 0);
		for (uint32_t k = 0; k < r->arena.listener_count; k++)
			PROVE(atomic_load(&arena_listener(&r->arena, k)->in_use) == 0);
		if (r->bad_expected != UINT64_MAX) {
			if (rig_stat(r, STAT_bad_client_input) != r->bad_expected)
				print_error("  bad_client_input %lu, expected %lu\n",
				        (unsigned long)rig_stat(r, STAT_bad_client_input),
				        (unsigned long)r->bad_expected);
			PROVE(rig_stat(r, STAT_bad_client_input) == r->bad_expected);
		}
		PROVE(nic_fake_bufs_in_use(r->nic) == 0);
	}
	stack_leave(r->stack[0]);
	if (r->thread) {
		thread_do(r->thread, CMD_LEAVE, 0);
		thread_do(r->thread, CMD_END, 0);
		pthread_join(r->thread->id, NULL);
		sem_destroy(&r->thread->go);
		sem_destroy(&r->thread->done);
		free(r->thread);
	}
	for (uint32_t k = 0; k < r->stacks; k++) {
		uint8_t f[RIG_FRAME_MAX];

		while (nic_fake_take(r->nic, k, f, sizeof(f)))
			;
	}
	PROVE(nic_fake_bufs_in_use(r->nic) == 0);
	if (r->frame_errors)
		print_error("%u wrong frames were sent, the first: %s\n", r->frame_errors, r->frame_error);
	bad += r->frame_errors;
	for (uint32_t k = 0; k < r->stacks; k++)
		stack_destroy(r->stack[k]);
	nic_close(r->nic);
	r->arena.region_count = 0; /* the port's own memory */
	arena_close(&r->arena);
	while (r->packets)
		free(rig_packet(r));
	while (r->segs) {
		struct seg *next = r->segs->next;

		free(r->segs);
		r->segs = next;
	}
	free((void *)r->poller_fds);
	free(r->segment);
	free(r);
	return bad ? -1 : 0;
}
