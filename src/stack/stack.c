/* stack.c - one stack thread: set-up, the run loop, sleep, tear-down.
 *
 * The loop's phases are rx, requests, timers, tx, wake, and housekeeping now and then; doc/design.md uses the
 * same names. Everything it calls runs in this thread. Who waits for what when the loop sleeps is told in
 * doc/threads.md, "Wait and wake".
 */
#include "stack_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cpu.h"
#include "log.h"
#include "lwip/init.h"
#include "lwip/ip4_frag.h"
#include "lwip_mem.h"

LOG_MODULE("stack");

enum {
	HASH_FIRST = 4096,
	HOUSEKEEPING_TURNS = 256,
	SLEEP_MAX_MS = 1000,
	NAP_MIN_US = 50,
	NAP_MAX_US = 500,
	SLAB_ROOM = 65536,
	FULL_BURSTS_MAX = 64,
	TX_STUCK_NS = 2000000,
};

__thread struct stack *stack_current;

u32_t sys_now(void)
{
	return stack_current->now_ms;
}

void stack_lwip_assert(const char *message, int line, const char *file)
{
	struct stack *s = stack_current;

	log_limited_error("lwIP assertion \"%s\" at %s:%d", message, file, line);
	if (s)
		COUNT(s, lwip_asserts, 1);
}

void bad_input(struct stack *s, const char *where, int line)
{
	COUNT(s, bad_client_input, 1);
	log_limited_warning(
	        "a client's memory says something impossible (%s:%d); its word is ignored", where, line);
}

void *stack_slab_alloc(size_t bytes)
{
	void *p = NULL;

	return posix_memalign(&p, 64, bytes) ? NULL : p;
}

void stack_slab_free(void *slab, size_t bytes)
{
	(void)bytes;
	free(slab);
}

struct stack *stack_create(const struct stack_spec *spec, char *err, size_t err_size)
{
	struct stack *s = NULL;
	uint32_t per_ep = spec->arena->endpoint_count / spec->count;
	uint32_t per_block = spec->arena->hdr->block_count / spec->count;

	if (posix_memalign((void **)&s, 64, sizeof(*s)))
		goto no_memory;
	memset(s, 0, sizeof(*s));
	s->event_fd = s->epoll_fd = -1;
	s->idx = spec->idx;
	s->count = spec->count;
	s->arena = spec->arena;
	s->nic = spec->nic;
	s->queue = nic_queue_get(spec->nic, spec->idx);
	s->stats = spec->stats;
	s->peers = spec->peers;
	s->poller_fds = spec->poller_fds;
	s->shared = &spec->arena->stacks[spec->idx];
	s->cfg = *spec->cfg;
	memcpy(s->mac, spec->mac, 6);
	memcpy(&s->address, spec->address, 4);
	memcpy(&s->netmask, spec->netmask, 4);
	memcpy(&s->gateway, spec->gateway, 4);
	s->has_gateway = spec->has_gateway;
	s->mtu = spec->mtu;
	s->core = spec->core;
	s->ep_first = spec->idx * per_ep;
	s->ep_count = per_ep;
	s->block_first = spec->idx * per_block;
	s->block_count = per_block;
	s->slab_room = SLAB_ROOM;
	s->hash_mask = HASH_FIRST - 1;
	while (s->hash_mask + 1 < per_ep)
		s->hash_mask = s->hash_mask * 2 + 1;
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->hash = calloc(s->hash_mask + 1, sizeof(*s->hash));
	s->by_ep = calloc(per_ep, sizeof(*s->by_ep));
	s->own = calloc(per_ep, sizeof(*s->own));
	s->ep_free = calloc(per_ep, sizeof(*s->ep_free));
	s->block_free = calloc(per_block, sizeof(*s->block_free));
	s->block_owner = calloc(per_block, sizeof(*s->block_owner));
	s->grant_level = calloc(spec->arena->client_count, sizeof(*s->grant_level));
	s->slabs = calloc(s->slab_room, sizeof(*s->slabs));
	s->port_conns = calloc(65536, sizeof(*s->port_conns));
	if (s->idx == 0) {
		s->port_refs = calloc(65536, sizeof(*s->port_refs));
		s->port_flags = calloc(65536, sizeof(*s->port_flags));
		s->port_listens = calloc(65536, sizeof(*s->port_listens));
	}
	if (s->event_fd < 0 || s->epoll_fd < 0 || !s->hash || !s->by_ep || !s->own || !s->ep_free ||
	        !s->block_free || !s->block_owner || !s->grant_level || !s->slabs || !s->port_conns ||
	        (s->idx == 0 && (!s->port_refs || !s->port_flags || !s->port_listens)) || neigh_create(s))
		goto no_memory;
	for (uint32_t i = 0; i < per_ep; i++)
		s->ep_free[i] = s->ep_first + per_ep - 1 - i;
	s->ep_free_count = per_ep;
	block_init(s);
	rand_init(s);
	return s;
no_memory:
	snprintf(err, err_size, "stack %u: out of memory or descriptors", spec->idx);
	stack_destroy(s);
	return NULL;
}

void stack_destroy(struct stack *s)
{
	if (!s)
		return;
	neigh_destroy(s);
	for (uint32_t i = 0; i < s->slab_count; i++)
		free(s->slabs[i]);
	free(s->slabs);
	free(s->hash);
	free(s->by_ep);
	free(s->own);
	free(s->ep_free);
	free(s->block_free);
	free(s->block_owner);
	free(s->grant_level);
	free(s->port_refs);
	free(s->port_flags);
	free(s->port_listens);
	free(s->port_conns);
	if (s->event_fd >= 0)
		close(s->event_fd);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	free(s);
}

static void clock_take(struct stack *s, uint64_t now_ns)
{
	s->now_ns = now_ns;
	s->now_ms = (uint32_t)(now_ns / 1000000);
}

int stack_enter(struct stack *s)
{
	int fds[64];
	struct epoll_event ev = {.events = EPOLLIN};
	int rc = nic_thread_attach();

	if (rc)
		return rc;
	stack_current = s;
	s->is_entered = true;
	if (!s->now_ns)
		clock_take(s, clock_now_ns());
	s->wheel_ms = s->slow_ms = s->now_ms;
	s->last_work_ns = s->now_ns;
	lwip_init();
	conn_ext_init();
	if (netif_setup(s))
		return -ENOMEM;
	ev.data.fd = s->event_fd;
	epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->event_fd, &ev);
	s->wait_fd_count = nic_wait_fds(s->queue, fds, 64);
	for (uint32_t i = 0; i < s->wait_fd_count; i++) {
		ev.data.fd = fds[i];
		if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fds[i], &ev) < 0) {
			log_warning(
			        "cannot wait on the port's descriptor, napping instead: %s", strerror(errno));
			s->wait_fd_count = 0;
			break;
		}
	}
	stat_set(s->stats, STAT_endpoints_free, s->ep_free_count);
	stat_set(s->stats, STAT_blocks_total, s->block_count);
	return 0;
}

void conn_touch(struct stack *s, struct conn *c)
{
	if (c->is_dirty)
		return;
	c->is_dirty = 1;
	c->dirty_next = s->dirty;
	s->dirty = c;
}

/* --- the phases --- */

static void phase_tx(struct stack *s)
{
	struct conn *c;

	while ((c = s->dirty)) {
		s->dirty = c->dirty_next;
		c->is_dirty = 0;
		c->is_busy = 1;
		tcp_ticks = s->now_ms;
		if (c->ep != ENDPOINT_NONE &&
		        c->rx_freed !=
		                atomic_load_explicit(&stack_ep(s, c->ep)->rx_tail, memory_order_relaxed))
			rx_reclaim(s, c);
		if (c->pcb && c->pcb->rto < (s16_t)c->rto_floor)
			c->pcb->rto = (s16_t)c->rto_floor;
		tx_pump(s, c);
		tcp_publish_info(s, c);
		c->is_busy = 0;
		if (c->pcb || c->ep != ENDPOINT_NONE)
			timer_arm(s, c);
		else
			conn_put(s, c);
	}
	s->tx_waiting = nic_tx_flush(s->queue);
	if (unlikely(s->tx_waiting) && nic_stats(s->queue)->tx_packets != s->tx_packets_seen) {
		s->tx_packets_seen = nic_stats(s->queue)->tx_packets;
		s->tx_moved_ns = s->now_ns;
	}
}

static void housekeeping(struct stack *s)
{
	const struct nic_queue_stats *q = nic_stats(s->queue);
	static const struct {
		enum stat_id id;
		size_t off;
	} map[] = {
#define ROW(name) {STAT_##name, offsetof(struct nic_queue_stats, name)}
	        ROW(rx_packets),
	        ROW(rx_bytes),
	        ROW(tx_packets),
	        ROW(tx_bytes),
	        ROW(rx_handoff),
	        ROW(rx_handoff_in),
	        ROW(rx_partial_cksum),
	        ROW(drop_rx_cksum),
	        ROW(drop_rx_short),
	        ROW(drop_tx_nobuf),
	        ROW(drop_handoff_full),
	        ROW(drop_tx_full),
	        ROW(rx_polls),
	        ROW(rx_empty_polls),
#undef ROW
	};
	uint32_t free_count, total;

	for (size_t i = 0; i < ARRAY_COUNT(map); i++)
		stat_set(s->stats, map[i].id, *(const uint64_t *)((const char *)q + map[i].off));
	nic_buf_levels(s->queue, &free_count, &total);
	if (s->idx == 0) { /* the pool is everybody's, and readers add the stacks up */
		stat_set(s->stats, STAT_buffers_free, free_count);
		stat_set(s->stats, STAT_buffers_total, total);
	}
	stat_set(s->stats, STAT_blocks_free, s->block_free_count);
	stat_set(s->stats, STAT_pcbs_used, s->conn_count);
	stat_set(s->stats, STAT_tcp_established, s->established_count);
	stat_set(s->stats, STAT_time_wait, s->time_wait_count);
	stat_set(s->stats, STAT_turns, s->turn);
	block_starved_wake(s);
}

/* Once a second at most, also when the loop mostly sleeps. */
static void slow_tick(struct stack *s)
{
	if (s->now_ms - s->slow_ms < 1000)
		return;
	s->slow_ms = s->now_ms;
	neigh_tick(s);
	ip_reass_tmr();
	housekeeping(s);
}

uint32_t stack_turn(struct stack *s, uint64_t now_ns)
{
	uint32_t n;
	bool is_full;

	clock_take(s, now_ns);
	n = netif_rx(s);
	is_full = n >= RX_BURST;
	/* a full port is tried again at once, as long as it takes something now and then */
	n += s->tx_waiting && s->now_ns - s->tx_moved_ns < TX_STUCK_NS;
	n += request_run(s);
	/* A full burst means that more waits, perhaps the very acknowledgements whose time-out is due: this
	 * thread may have lost its core for a while. Timers wait until the queue is empty, a few turns at
	 * most. */
	if (is_full && s->full_bursts < FULL_BURSTS_MAX) {
		s->full_bursts++;
	} else {
		s->full_bursts = 0;
		n += timer_run(s);
	}
	phase_tx(s);
	notify_flush(s);
	if (++s->turn % HOUSEKEEPING_TURNS == 0)
		housekeeping(s);
	slow_tick(s);
	return n;
}

/* --- sleep --- */

static bool has_posts(struct stack *s)
{
	if (atomic_load(&s->messages))
		return true;
	for (uint32_t w = 0; w < (s->arena->client_count + 63) / 64; w++)
		if (atomic_load(&s->shared->pending[w]))
			return true;
	return false;
}

/* Announce, look again, sleep. Posters write the event fd when they see `sleeping`; frames make the port's
 * descriptors readable. */
static void sleep_until_work(struct stack *s)
{
	struct epoll_event ev[8];
	uint64_t drop;
	int n;

	housekeeping(s);
	if (s->wait_fd_count)
		nic_wait_arm(s->queue, true);
	atomic_store(&s->shared->sleeping, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (has_posts(s) || atomic_load(&s->is_stopping) || stack_turn(s, clock_now_ns())) {
		atomic_store(&s->shared->sleeping, 0);
		s->last_work_ns = s->now_ns;
		goto awake;
	}
	if (s->wait_fd_count) {
		n = epoll_wait(s->epoll_fd, ev, 8, (int)timer_next(s, s->tx_waiting ? 1 : SLEEP_MAX_MS));
		COUNT(s, sleeps, 1);
	} else {
		/* the driver has nothing to wait on: bounded naps, longer the longer nothing happens */
		struct timespec nap = {.tv_nsec = s->nap_us * 1000l};

		n = epoll_pwait2(s->epoll_fd, ev, 8, &nap, NULL);
		s->nap_us = s->nap_us * 2 > NAP_MAX_US ? NAP_MAX_US : s->nap_us * 2;
		COUNT(s, naps, 1);
	}
	atomic_store(&s->shared->sleeping, 0);
	for (int i = 0; i < n; i++)
		if (ev[i].data.fd == s->event_fd && read(s->event_fd, &drop, sizeof(drop)) < 0)
			continue;
awake:
	if (s->wait_fd_count)
		nic_wait_arm(s->queue, false);
}

void stack_run(struct stack *s)
{
	uint64_t spin_ns = s->cfg.stack_spin_us * 1000ull, now;

	if (s->core >= 0 && cpu_pin((unsigned)s->core))
		log_warning("cannot pin stack %u to core %d", s->idx, s->core);
	if (stack_enter(s)) {
		log_error("stack %u cannot start", s->idx);
		return;
	}
	if (s->idx == 0)
		neigh_announce(s);
	s->nap_us = NAP_MIN_US;
	while (!atomic_load_explicit(&s->is_stopping, memory_order_relaxed)) {
		uint32_t n;

		now = clock_now_ns();
		n = stack_turn(s, now);
		if (n) {
			uint64_t end = clock_now_ns();

			COUNT(s, busy_ns, end - now);
			stat_peak(s->stats, STAT_worst_turn_ns, end - now);
			s->last_work_ns = end;
			s->nap_us = NAP_MIN_US;
		} else if (now - s->last_work_ns >= spin_ns) {
			sleep_until_work(s);
		} else {
			cpu_relax();
		}
	}
	stack_leave(s);
}

void stack_leave(struct stack *s)
{
	/* tell every peer, then let go of everything lwIP has */
	for (uint32_t i = 0; i < ACCEPT_HASH; i++)
		while (s->listeners[i])
			listener_remove(s, s->listeners[i]->ep);
	for (uint32_t i = 0; i < s->ep_count; i++) {
		struct conn *c = s->by_ep[i];

		if (c && !c->is_released)
			tcp_release(s, s->ep_first + i, RELEASE_ABORT);
	}
	for (uint32_t h = 0; h <= s->hash_mask; h++)
		while (s->hash[h])
			conn_abort(s, s->hash[h]);
	phase_tx(s);
	request_messages(s);
	housekeeping(s);
	netif_remove(&s->netif);
	neigh_destroy(s);
	lwip_mem_fini();
	stack_current = NULL;
	s->is_entered = false;
	nic_thread_detach();
}

void stack_stop(struct stack *s)
{
	atomic_store(&s->is_stopping, true);
	stack_wake(s);
}

void stack_wake(struct stack *s)
{
	uint64_t one = 1;

	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&s->shared->sleeping, memory_order_relaxed) &&
	        atomic_exchange(&s->shared->sleeping, 0) && write(s->event_fd, &one, sizeof(one)) < 0)
		return; /* the counter is at its top: it is readable anyway */
}

void stack_post(struct stack *s, struct stack_msg *m)
{
	struct stack_msg *head = atomic_load_explicit(&s->messages, memory_order_relaxed);

	do {
		m->next = head;
	} while (!atomic_compare_exchange_weak(&s->messages, &head, m));
	stack_wake(s);
}

int stack_event_fd(const struct stack *s)
{
	return s->event_fd;
}
