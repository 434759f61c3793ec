/* stack.c - one stack thread: set-up, the run loop, sleep, tear-down.
 *
 * The loop's phases are rx, requests, timers, tx, wake, and housekeeping now and then; doc/design.md uses the
 * same names. Everything it calls runs in this thread. Who waits for what when the loop sleeps is told in
 * doc/threads.md, "Wait and wake".
 */
#include "stack_int.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "log.h"
#include "lwip/init.h"
#include "lwip/ip4_frag.h"
#include "lwip/memp.h"
#include "lwip/stats.h"
#include "lwip_mem.h"
#include "udp.h"

LOG_MODULE("stack");

enum {
	HASH_FIRST = 4096,
	HOUSEKEEPING_TURNS = 256,
	SLEEP_MAX_MS = 1000,
	NAP_MIN_US = 50,
	NAP_MAX_US = 500,
	SLAB_ROOM = 65536,
	FULL_BURSTS_MAX = 64,
};

LWIP_PER_STACK struct stack *stack_current;

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
	uint32_t per_block = spec->arena->block_count / spec->count;
	uint32_t per_ring = spec->arena->rx_ring_count / spec->count;

	if (posix_memalign((void **)&s, 64, sizeof(*s)))
		goto no_memory;
	memset(s, 0, sizeof(*s));
	s->dirty_tail = &s->dirty;
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
	s->frame_big = spec->frame_big;
	s->core = spec->core;
	s->ep_first = spec->idx * per_ep;
	s->ep_count = per_ep;
	s->block_first = spec->idx * per_block;
	s->block_count = per_block;
	s->ring_first = spec->idx * per_ring;
	s->ring_count = s->ring_free_count = per_ring;
	s->slab_room = SLAB_ROOM;
	s->time_wait_max = TIME_WAIT_MAX / spec->count;
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
	s->tx_tables = calloc((size_t)per_block * TX_BLOCK_COUNT, sizeof(*s->tx_tables));
	s->ring_free = calloc(per_ring, sizeof(*s->ring_free));
	s->rx_bufs = calloc((size_t)per_ring * RX_RING_SIZE, sizeof(struct pbuf *));
	s->block_lent = calloc(per_block, sizeof(*s->block_lent));
	s->grant_level = calloc(spec->arena->client_count, sizeof(*s->grant_level));
	s->slabs = calloc(s->slab_room, sizeof(*s->slabs));
	s->nap_us = NAP_MIN_US;
	s->has_loop = spec->cfg->loopback == CFG_LOOPBACK_PRONK;
	if (s->has_loop)
		s->loop_ring = calloc(LOOP_RING_SIZE, sizeof(*s->loop_ring));
	s->udp_hash = calloc(UDP_HASH, sizeof(*s->udp_hash));
	s->port_conns = calloc(2 * PORT_COUNT, sizeof(*s->port_conns));
	if (s->idx == 0)
		s->ports = calloc(PORT_COUNT, sizeof(*s->ports));
	if (s->event_fd < 0 || s->epoll_fd < 0 || !s->hash || !s->by_ep || !s->own || !s->ep_free ||
	        !s->block_free || !s->block_owner || !s->block_lent || !s->tx_tables || !s->ring_free ||
	        !s->rx_bufs || !s->grant_level || !s->slabs || !s->port_conns || !s->udp_hash ||
	        (s->idx == 0 && !s->ports) || (s->has_loop && !s->loop_ring) || neigh_create(s) ||
	        icmp_create(s) || group_create(s))
		goto no_memory;
	for (uint32_t i = 0; i < per_ep; i++)
		s->ep_free[i] = s->ep_first + per_ep - 1 - i;
	s->ep_free_count = per_ep;
	for (uint32_t i = 0; i < per_ring; i++)
		s->ring_free[i] = per_ring - 1 - i;
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
	for (uint32_t i = 0; s->by_ep && i < s->ep_count; i++)
		if (s->by_ep[i] && s->by_ep[i]->udp)
			udp_forget(s->by_ep[i]);
	for (uint32_t i = 0; i < s->slab_count; i++)
		free(s->slabs[i]);
	free(s->slabs);
	free(s->hash);
	free(s->by_ep);
	free(s->own);
	free(s->ep_free);
	free(s->block_free);
	free(s->block_owner);
	free(s->block_lent);
	free(s->grant_level);
	free(s->tx_tables);
	free(s->ring_free);
	free(s->rx_bufs);
	port_destroy(s);
	free(s->loop_ring);
	free(s->port_conns);
	free(s->udp_hash);
	free(s->groups);
	free(s->icmp_peers);
	if (s->event_fd >= 0)
		close(s->event_fd);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	free(s);
}

uint64_t stack_real_ns(struct stack *s)
{
	struct timespec t;

	if (s->real_turn != s->turn + 1) {
		s->real_turn = s->turn + 1;
		clock_gettime(CLOCK_REALTIME, &t);
		s->real_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	}
	return s->real_ns;
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
	mib_enter(s);
	if (netif_setup(s) || loop_setup(s) || nic_lend(s->queue, s->block_count))
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
	stack_peaks_reset(s, NULL);
	report_publish(s);
	return 0;
}

void conn_touch(struct stack *s, struct conn *c)
{
	if (c->is_dirty)
		return;
	c->is_dirty = 1;
	c->dirty_next = NULL;
	c->dirty_prev = s->dirty_tail;
	*s->dirty_tail = c;
	s->dirty_tail = &c->dirty_next;
}

static void dirty_remove(struct stack *s, struct conn *c)
{
	*c->dirty_prev = c->dirty_next;
	if (c->dirty_next)
		c->dirty_next->dirty_prev = c->dirty_prev;
	else
		s->dirty_tail = c->dirty_prev;
	c->is_dirty = 0;
}

void conn_touch_last(struct stack *s, struct conn *c)
{
	if (c->is_dirty)
		dirty_remove(s, c);
	conn_touch(s, c);
}

/* --- the phases --- */

void stack_timed_sent(struct stack *s, const struct endpoint *ep, uint32_t pos)
{
	if (s->timed_count < TIMED_MAX && latency_sent(s->arena, ep, pos, &s->timed[s->timed_count]))
		s->timed_count++;
}

/* The port has what was sent, unless something waits for it. */
static void timed_out(struct stack *s)
{
	uint64_t now_ns = clock_now_ns();

	if (s->tx_waiting)
		return;
	for (uint32_t i = 0; i < s->timed_count; i++)
		latency_out(s->arena, s->idx, &s->timed[i], now_ns);
	s->timed_count = 0;
}

static void phase_tx(struct stack *s)
{
	struct conn *c;

	while ((c = s->dirty)) {
		dirty_remove(s, c);
		c->is_busy = 1;
		tcp_ticks = s->now_ms;
		if (c->ep != ENDPOINT_NONE &&
		        c->rx_freed !=
		                atomic_load_explicit(&stack_ep(s, c->ep)->rx_tail, memory_order_relaxed))
			rx_reclaim(s, c);
		if (c->pcb && c->pcb->rto < (s16_t)c->rto_floor)
			c->pcb->rto = (s16_t)c->rto_floor;
		tx_pump(s, c);
		/* when blocks are short, what is acknowledged goes back at once, not 10 ms later */
		if (unlikely(s->block_free_count < s->block_count / 4))
			tx_idle(s, c);
		tcp_publish_info(s, c);
		tcp_time_wait_limit(s, c);
		c->is_busy = 0;
		if (c->pcb || c->ep != ENDPOINT_NONE)
			timer_arm(s, c);
		else
			conn_put(s, c);
	}
	s->tx_waiting = nic_tx_flush(s->queue);
	if (unlikely(s->timed_count))
		timed_out(s);
	if (unlikely(s->block_lent_count))
		block_lent_return(s);
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
	        ROW(rx_full_polls),
#undef ROW
	        {STAT_ip_in_bad_cksum, offsetof(struct nic_queue_stats, bad_cksum_ip)},
	        {STAT_tcp_in_bad_cksum, offsetof(struct nic_queue_stats, bad_cksum_tcp)},
	        {STAT_udp_in_bad_cksum, offsetof(struct nic_queue_stats, bad_cksum_udp)},
#define ROW(dir, name) {STAT_inject_##dir##_##name, offsetof(struct nic_queue_stats, inject_##dir.name)}
#define ROWS(dir)                                                                                            \
	ROW(dir, lost), ROW(dir, duplicated), ROW(dir, reordered), ROW(dir, corrupted), ROW(dir, delayed),   \
	        ROW(dir, overflow)
	        ROWS(rx),
	        ROWS(tx),
#undef ROWS
#undef ROW
	};
	uint32_t free_count, total;

	for (size_t i = 0; i < ARRAY_COUNT(map); i++)
		stat_set(s->stats, map[i].id, *(const uint64_t *)((const char *)q + map[i].off));
	nic_buf_levels(s->queue, &free_count, &total);
	stat_low(s->stats, STAT_buffers_low, free_count);
	if (s->idx == 0) { /* the pool is everybody's, and readers add the stacks up */
		stat_set(s->stats, STAT_buffers_free, free_count);
		stat_set(s->stats, STAT_buffers_total, total);
	}
	stat_set(s->stats, STAT_blocks_free, s->block_free_count);
	stat_set(s->stats, STAT_pcbs_used, s->conn_count);
	stat_set(s->stats, STAT_tcp_established, s->established_count);
	stat_set(s->stats, STAT_time_wait, s->time_wait_count);
	stat_set(s->stats, STAT_turns, s->turn);
	mib_publish(s);
	block_starved_wake(s);
}

/* Datagrams whose rest does not come are given up. lwIP counts fragments that it throws away, but not these.
 */
static void fragments_tick(struct stack *s)
{
	struct lwip_mem_usage before, after;
	uint32_t dropped = lwip_stats.ip_frag.drop;

	lwip_mem_usage(&before);
	ip_reass_tmr();
	lwip_mem_usage(&after);
	COUNT(s, drop_rx_fragment,
	        before.pool_count[MEMP_REASSDATA] - after.pool_count[MEMP_REASSDATA] + dropped -
	                s->fragments_dropped);
	s->fragments_dropped = dropped;
}

/* Once a second at most, also when the loop mostly sleeps. */
static void slow_tick(struct stack *s)
{
	if (s->now_ms - s->slow_ms < 1000)
		return;
	s->slow_ms = s->now_ms;
	neigh_tick(s);
	sweep_buffers(s);
	if (s->idx == 0)
		group_tick(s);
	fragments_tick(s);
	housekeeping(s);
	report_publish(s);
}

bool stack_look(struct stack *s)
{
	return netif_look(s) || s->tx_waiting || s->sweep_left || s->udp_again ||
	       s->loop_head != s->loop_tail || stack_has_posts(s);
}

uint32_t stack_turn(struct stack *s, uint64_t now_ns)
{
	uint32_t n;
	bool is_full;

	clock_take(s, now_ns);
	n = netif_rx(s);
	if (s->has_loop)
		n += loop_rx(s);
	if (unlikely(s->udp_again != NULL))
		n += udp_pump_again(s);
	is_full = n >= RX_BURST;
	/* a full port is tried again at once, as long as it takes something now and then */
	n += s->tx_waiting && s->now_ns - s->tx_moved_ns < TX_STUCK_NS;
	n += request_run(s);
	if (unlikely(s->sweep_left))
		n += sweep_run(s);
	if (s->udp_fresh)
		udp_publish_all(s);
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
	if (unlikely(s->udp_fresh != NULL)) /* what was sent to everybody, ourselves among them */
		udp_publish_all(s);
	notify_flush(s);
	stat_low(s->stats, STAT_blocks_low, s->block_free_count);
	if (s->has_loop)
		atomic_store_explicit(&s->shared->turn, (uint32_t)s->turn + 1, memory_order_release);
	if (++s->turn % HOUSEKEEPING_TURNS == 0)
		housekeeping(s);
	slow_tick(s);
	/* what was sent to ourselves is the next turn's */
	n += s->loop_head != s->loop_tail;
	if (n)
		s->nap_us = NAP_MIN_US;
	return n;
}

/* --- sleep --- */

bool stack_has_posts(struct stack *s)
{
	if (atomic_load(&s->messages))
		return true;
	for (uint32_t w = 0; w < (s->arena->client_count + 63) / 64; w++)
		if (atomic_load(&s->shared->pending[w]))
			return true;
	return false;
}

uint32_t stack_sleep_ms(struct stack *s)
{
	uint32_t limit_us = s->wait_fd_count ? nic_wait_limit_us(s->queue) : 0;

	if (!limit_us || s->tx_waiting)
		return limit_us ? 1 : 0;
	return timer_next(s, limit_us / 1000 < SLEEP_MAX_MS ? limit_us / 1000 : SLEEP_MAX_MS);
}

int stack_wait_fd(const struct stack *s)
{
	return s->epoll_fd;
}

void stack_disarm(struct stack *s)
{
	if (s->wait_fd_count)
		nic_wait_arm(s->queue, false);
}

/* Announce, look again, sleep. Posters write the event fd when they see `sleeping`; frames make the port's
 * descriptors readable. */
bool stack_sleep_begin(struct stack *s)
{
	housekeeping(s);
	if (s->wait_fd_count)
		nic_wait_arm(s->queue, true);
	atomic_store(&s->shared->sleeping, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (stack_has_posts(s) || atomic_load(&s->is_stopping) || stack_turn(s, clock_now_ns())) {
		atomic_store(&s->shared->sleeping, 0);
		s->last_work_ns = s->now_ns;
		stack_disarm(s);
		return false;
	}
	atomic_store(&s->shared->is_idle, 1);
	return true;
}

uint64_t stack_timer_ns(struct stack *s)
{
	return (uint64_t)timer_next(s, s->tx_waiting ? 1 : SLEEP_MAX_MS) * CLOCK_NS_PER_MS;
}

uint64_t stack_sleep_ns(struct stack *s)
{
	uint32_t us = s->nap_us, limit_ms = stack_sleep_ms(s);

	if (limit_ms) {
		COUNT(s, sleeps, 1);
		return limit_ms * CLOCK_NS_PER_MS;
	}
	/* the port has nothing to wait on: bounded naps, longer the longer nothing happens */
	COUNT(s, naps, 1);
	s->nap_us = us * 2 > NAP_MAX_US ? NAP_MAX_US : us * 2;
	return us * CLOCK_NS_PER_US;
}

void stack_sleep_end(struct stack *s)
{
	uint64_t drop;

	atomic_store(&s->shared->is_idle, 0);
	atomic_store(&s->shared->sleeping, 0);
	/* who took the announcement away writes the event fd, now or in a moment: then the next sleep is a
	 * short one, and reads it after that */
	if (read(s->event_fd, &drop, sizeof(drop)) < 0)
		return;
}

bool stack_sleep_renew(struct stack *s)
{
	atomic_store(&s->shared->sleeping, 1);
	atomic_thread_fence(memory_order_seq_cst);
	return !stack_has_posts(s);
}

void stack_busy(struct stack *s, uint64_t ns, uint32_t turns)
{
	COUNT(s, busy_ns, ns * turns);
	stat_peak(s->stats, STAT_worst_turn_ns, ns);
}

static void sleep_until_work(struct stack *s)
{
	uint64_t ns;
	struct timespec ts;
	struct epoll_event ev;
	int n;

	if (!stack_sleep_begin(s))
		return;
	ns = stack_sleep_ns(s);
	ts = (struct timespec){(time_t)(ns / CLOCK_NS_PER_S), (long)(ns % CLOCK_NS_PER_S)};
	n = epoll_pwait2(s->epoll_fd, &ev, 1, &ts, NULL);
	if (n > 0 && ev.data.fd == s->event_fd)
		COUNT(s, wakes_request, 1);
	else if (n > 0)
		COUNT(s, wakes_port, 1);
	else
		COUNT(s, wakes_timer, 1);
	stack_sleep_end(s);
	stack_disarm(s);
}

void stack_announce(struct stack *s)
{
	if (s->idx == 0)
		neigh_announce(s);
}

void stack_run(struct stack *s)
{
	uint64_t now, yielded = 0;

	if (s->core >= 0 && cpu_pin((unsigned)s->core))
		log_warning("cannot pin stack %u to core %d", s->idx, s->core);
	if (stack_enter(s)) {
		log_error("stack %u cannot start", s->idx);
		return;
	}
	stack_announce(s);
	while (!atomic_load_explicit(&s->is_stopping, memory_order_relaxed)) {
		uint32_t n;

		now = clock_now_ns();
		if (yielded)
			spin_lost(&s->spin, yielded, now);
		yielded = 0;
		n = stack_turn(s, now);
		if (n) {
			uint64_t end = clock_now_ns();

			stack_busy(s, end - now, 1);
			s->last_work_ns = end;
		} else if (now - s->last_work_ns >= s->cfg.stack_spin_us * CLOCK_NS_PER_US ||
		           !spin_may(&s->spin, now)) {
			sleep_until_work(s);
		} else {
			/* whoever has work for us may want this very core: spinning on would make it wait
			 * out our time slice. Alone on the core it costs less than a look at the port. */
			yielded = now;
			sched_yield();
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

		if (c && c->udp)
			rx_drop_all(s, c); /* the other stacks may end before they have let go of it */
		if (c && !c->is_released)
			tcp_release(s, s->ep_first + i, RELEASE_ABORT);
	}
	for (uint32_t h = 0; h <= s->hash_mask; h++)
		while (s->hash[h])
			conn_abort(s, s->hash[h]);
	phase_tx(s);
	for (; atomic_load(&s->messages); s->turn++)
		request_messages(s);
	housekeeping(s);
	netif_remove(&s->netif);
	if (s->has_loop)
		netif_remove(&s->lo);
	loop_drop(s);
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

bool stack_is_entered(const struct stack *s)
{
	return s->is_entered;
}

int stack_event_fd(const struct stack *s)
{
	return s->event_fd;
}
