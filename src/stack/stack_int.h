/* stack_int.h - what the files of src/stack share. Everything here is touched by the stack's own thread only,
 * except the fields marked otherwise.
 */
#pragma once
#include "stack.h"

#include <string.h>

#include "lwip/opt.h"
#include "lwip/tcp.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"

#include "endpoint.h"
#include "latency.h"
#include "ready.h"
#include "clock.h"
#include "compiler.h"
#include "spin.h"

enum {
	RX_BURST = 32,
	LOOP_BURST = 64,
	LOOP_RING_SIZE = 4096, /* packets to ourselves that wait for the next turn; power of two */
	PORT_COUNT = 65536,
	REQ_BURST = 256,     /* posts taken in one turn */
	WHEEL_SIZE = 4096,   /* slots of one millisecond */
	NEIGH_COUNT = 1024,  /* power of two */
	NEIGH_PENDING = 64,  /* packets kept per unresolved neighbour: a datagram of 64 KB */
	NEIGH_WAITING = 512, /* ... and for all of them together */
	WAKE_MAX = 256,
	TICK_NONE = -1,
	SYN_RETRIES = 6,          /* tcp_syn_retries */
	REXMIT_TOTAL_MS = 924600, /* tcp_retries2 = 15: when the kernel gives up */
	PORT_FIRST = 32768,
	PORT_LAST = 60999,    /* ip_local_port_range */
	FIN_WAIT2_MS = 60000, /* tcp_fin_timeout */
	RECLAIM_MS = 10,
	CORK_MS = 200, /* tcp(7), TCP_CORK */
	RTO_FLOOR_MAX_MS = 250,
	ACCEPT_HASH = 256,
	SWEEP_HOPS = NEIGH_COUNT,
	TIME_WAIT_MAX = 262144, /* of all stacks; tcp_max_tw_buckets */
	TIMED_MAX = 64,
	TX_STUCK_NS = 2000000, /* a full port that takes nothing for so long is stuck */
};

/* A connection: lwIP's pcb, its place in the hash and its endpoint. Lives while the pcb or the endpoint does.
 * There may be a million: flags are bits, and what is only needed while data moves is elsewhere. What a
 * segment's way in or out looks at comes first.
 */
struct conn {
	struct tcp_pcb *pcb; /* NULL once lwIP has freed it */
	struct conn *hash_next;
	ip_addr_t local_ip, remote_ip;
	uint16_t local_port, remote_port;
	uint32_t ep; /* endpoint index, or ENDPOINT_NONE */
	bool is_hashed : 1, is_dirty : 1, is_linked : 1, is_connecting : 1;
	bool is_released : 1; /* the applications have closed it */
	bool fin_wanted : 1;  /* send FIN once the ring is drained */
	bool fin_sent : 1;
	bool is_counted : 1, is_tw : 1; /* in the gauges of established and TIME_WAIT connections */
	bool fin_seen : 1;              /* the peer's came */
	bool has_answered : 1;          /* sent something since data came last */
	bool cork_armed : 1;            /* a corked rest waits until cork_due */
	bool close_called : 1;          /* tcp_close was called */
	bool persist_seen : 1;
	bool owns_port : 1;     /* holds a port reference at stack 0, for bound_ip */
	bool is_on_port : 1;    /* counted in port_conns */
	bool is_busy : 1;       /* phase_tx works on it: nobody may free it */
	bool is_starved : 1;    /* on the list of connections that wait for send blocks */
	bool is_map_placed : 1; /* the block that the map belongs to is, or was, one of the ring's */
	bool cwnd_is_set : 1;   /* the initial congestion window is ours, not lwIP's */
	bool ack_armed : 1, reclaim_armed : 1;
	bool dsack_wait : 1,
	        dsack_seen : 1;  /* a DSACK would tell, or told, that the last time-out was in vain */
	bool may_be_delayed : 1; /* no more was under way then than a peer may leave unacknowledged */
	bool is_reordered : 1;   /* segments were seen to overtake each other on this path */
	bool rexmit_open : 1;    /* a retransmission by time-out is not acknowledged yet */
	bool is_quick : 1;       /* TCP_QUICKACK: no delayed acknowledgements */
	bool is_probing : 1;     /* of a closed window */
	bool is_deferred : 1;    /* TCP_DEFER_ACCEPT: the handshake is over, the queue is not told yet */
	bool is_estab : 1;       /* counted as ESTABLISHED or CLOSE_WAIT (RFC 4022, tcpCurrEstab) */
	bool fin_out : 1;        /* a FIN has left, at least once */
	bool is_asked : 1;       /* in TIME_WAIT: a SYN of its past was answered, the peer may disown it */
	uint8_t syn_tries;
	uint8_t clean_acks;   /* acknowledgements without a time-out, modulo 256 */
	uint8_t min_ttl;      /* as tcp_options found it; 0 = not set */
	uint8_t listener_idx; /* record of the listener it came from */
	uint8_t end_state;    /* the last of lwIP's closing states that was noted (tcp_end_note) */
	struct conn *dirty_next, **dirty_prev;
	/* send ring positions */
	uint32_t tx_fed;   /* given to lwIP */
	uint32_t tx_acked; /* acknowledged; blocks behind it are free */
	uint32_t tx_seen;  /* ring position up to which blocks are checked and marked ours */
	uint32_t snd_max;  /* sequence number behind the last one ever sent */
	/* TX_BLOCK_COUNT, while there is something under the ring: the blocks as they were when checked; the
	 * place in stack.tx_tables says which block's map the ring has, and holds */
	uint32_t *tx_blocks;
	/* receive */
	/* RX_RING_SIZE, or NULL while nothing is published; the place in stack.rx_bufs says which ring it has
	 */
	struct pbuf **rx_bufs;
	uint32_t rx_head, rx_bytes;          /* what was published; the arena has a copy */
	uint32_t rx_freed;                   /* pieces given back */
	uint32_t rx_recved;                  /* bytes told to lwIP */
	struct pbuf *pend_first, *pend_last; /* received, the ring was full */
	uint32_t rcv_limit;                  /* receive window of this connection */
	uint32_t rcv_debt;                   /* bytes that a smaller SO_RCVBUF keeps back from the window */
	uint32_t tune_read;                  /* rx_read at tune_ns */
	uint64_t tune_ns;                    /* when the reader's rate was last looked at */
	/* timer wheel */
	struct conn *timer_next, **timer_prev;
	uint32_t timer_due; /* ms clock; valid when is_linked */
	uint32_t rto_start, ack_start, reclaim_due;
	uint16_t reclaim_wait;
	uint16_t rto_floor; /* ms; above the configured one while acknowledgements turn out slower than it */
	struct recover *recover; /* what a peer with SACK has reported; NULL until something was lost */
	struct udp *udp;         /* a datagram endpoint (udp.h): then there is never a pcb */
	/* for TCP_INFO */
	uint64_t rtt_ns;  /* when the segment that is timed left; 0: none is timed */
	uint32_t rtt_seq; /* it ends there */
	uint32_t srtt_us, rttvar_us, min_rtt_us;
	uint32_t data_sent_ms, data_recv_ms, ack_recv_ms;
	uint32_t segs_in, segs_out, data_segs_in, data_segs_out, segs_again, timeouts;
	uint64_t bytes_acked, bytes_received, bytes_sent, bytes_again;
	/* rarely looked at */
	struct conn *starved_next;
	struct listener_local *listener; /* while in SYN_RCVD */
	uint64_t syn_ns;                 /* when the SYN left: first RTT sample */
	uint32_t parent;                 /* listener endpoint it came from, or ENDPOINT_NONE */
	uint32_t accept_pos;             /* where it is, or was, in the listener's queue */
	uint32_t bound_ip;               /* network order: what it was bound to before it connected */
	uint32_t user_timeout_ms;
	uint32_t persist_start, persist_since; /* ... since this closed window was first probed */
	uint32_t cork_due, defer_due;
	uint32_t rexmit_since, rexmit_first;   /* when the segment that timed out was first sent */
	uint32_t rexmit_seq;                   /* first byte of the segment that timed out */
	uint32_t cwnd_before, ssthresh_before; /* the time-out */
	uint32_t newreno_end;                  /* fast recovery ends when this is acknowledged (RFC 6582) */
	uint16_t late_ms;                      /* how long the acknowledgement took then */
	/* options, as tcp_options found them; 0 = not set */
	uint16_t max_seg;
	/* what the peer's network takes in a frame; pcb->mss is more to a near neighbour */
	uint16_t wire_mss;
	int16_t linger2_s; /* -1: none */
};

/* This stack's part of a listener. */
struct listener_local {
	struct listener_local *next;
	struct tcp_pcb_listen *pcb;
	uint32_t ep, idx;   /* endpoint, listener record */
	uint32_t embryonic; /* connections in SYN_RCVD */
	uint32_t turn;      /* whom to wake next */
	uint16_t port;
	uint8_t ip[4];
	bool is_any;
};

struct neigh;
struct group;
struct udp;
struct udp_entry;
struct port_hold;

/* A packet to ourselves, on its way back in. */
struct loop_packet {
	struct nic_buf *buf;
	void *priv;
	uint8_t *ip;
	uint32_t size;
};

/* What a stack knows itself of an endpoint it owns: a client may write over the copy in the arena. */
enum own_kind {
	OWN_FREE,
	OWN_CONN,
	OWN_BOUND,
	OWN_LISTEN,
	OWN_SHUT, /* a listener that was shut down; its stacks are letting go */
	OWN_DEAD, /* ... and have let go: only its descriptor is left */
	OWN_UDP,
};

struct ep_own {
	uint8_t kind;
	uint8_t ip[4]; /* OWN_BOUND and OWN_LISTEN: where, network order */
	uint16_t port;
	uint32_t listener; /* OWN_LISTEN, OWN_SHUT, OWN_DEAD: its record */
};

static inline uint32_t own_ip(const struct ep_own *own)
{
	uint32_t ip;

	memcpy(&ip, own->ip, 4);
	return ip;
}

/* Work that needs other stacks: `each` runs in the thread of every stack (or of one), then `done` in the one
 * that began it; it owns the memory. What it needs is taken at the start, so that it cannot get stuck on the
 * way. */
struct fan_out {
	struct stack_msg msg[ARENA_STACK_MAX + 1]; /* for each stack, and for the way home */
	_Atomic uint32_t left;
	_Atomic int32_t result; /* 0, or the first -E of an `each` */
	struct stack *home;
	int (*each)(struct stack *s, struct fan_out *f);
	void (*done)(struct stack *s, struct fan_out *f);
	uint32_t ep;
	uint32_t client, client_gen, call_idx; /* the call to answer */
	struct ep_own own;
	struct udp *udp;
	struct sock_addr local, remote;
	int32_t value;
	uint8_t tries;
};

enum { MIB_LWIP_COUNT = 10 }; /* counters taken over from lwIP */

/* What packets raise without a look at the statistics segment (mib.c). */
struct mib {
	uint64_t ip_in_packets, ip_in_octets, ip_out_octets, tcp_out_segs;
	uint32_t curr_estab; /* connections in ESTABLISHED or CLOSE_WAIT */
	uint32_t lwip_seen[MIB_LWIP_COUNT];
};

struct stack {
	/* constant after start */
	uint32_t idx, count;
	struct arena *arena;
	struct nic *nic;
	struct nic_queue *queue;
	struct stat_block *stats;
	struct stack **peers;
	_Atomic int *poller_fds;
	struct stack_shared *shared;
	struct cfg cfg;
	uint8_t mac[6];
	uint16_t mtu;       /* this and the addresses below change with the kernel's interface (net.c) */
	uint32_t frame_big; /* longest frame to a neighbour on the same link (nic_link_tag); 0: none is known
	                     */
	uint32_t address, netmask, gateway; /* network order */
	bool has_gateway, has_loop;
	bool has_moved; /* the address has changed: who has the old one may not use it */
	int core;
	int event_fd, epoll_fd;
	uint32_t wait_fd_count;
	uint32_t ep_first, ep_count; /* endpoints this stack owns */
	uint64_t isn_key[2];

	/* the thread's own, hot */
	uint64_t now_ns;
	uint32_t now_ms;
	uint32_t slow_ms; /* of the last slow tick */
	uint64_t turn;
	struct mib mib;
	struct conn *dirty, **dirty_tail; /* in the order of their requests: who wrote first sends first */
	struct conn **hash;
	uint32_t hash_mask, conn_count;
	struct conn *conn_free;
	struct conn **by_ep; /* connection of each owned endpoint, by index - ep_first */
	struct ep_own *own;  /* likewise */
	uint32_t *ep_free;
	uint32_t ep_free_count;
	struct conn *starved;
	struct conn *wheel[WHEEL_SIZE];
	uint32_t wheel_ms; /* slot up to which timers have run */
	uint32_t wheel_armed;
	struct conn *wheel_now;           /* what is left of the slot of wheel_ms */
	uint32_t wheel_first[WHEEL_SIZE]; /* nothing in the slot is due before */
	uint32_t wake[WAKE_MAX];
	uint32_t wake_count;
	struct netif netif, lo;
	struct loop_packet *loop_ring;
	uint32_t loop_head, loop_tail;
	struct listener_local *listeners[ACCEPT_HASH], *listener_at[ARENA_LISTENER_MAX];
	struct neigh *neigh;
	uint32_t neigh_waiting; /* packets that wait for a neighbour */
	uint64_t rand_state;
	uint32_t
	        port_turn[256]; /* source ports chosen so far, by hash of the destination (RFC 6056, 3.3.4) */
	uint32_t time_wait_count, established_count;
	uint32_t time_wait_max;
	struct conn *out_conn;                     /* connection that lwIP sends for, most likely */
	const struct listener_local *syn_listener; /* while a SYN for it is looked at */
	struct conn *input_conn; /* connection that lwip_tcp_input works on; NULL when freed meanwhile */

	/* send blocks */
	uint32_t block_first, block_count;
	uint32_t *block_free;
	uint32_t block_free_count;
	uint32_t *block_lent; /* done with, but frames that the port still has refer to them */
	uint32_t block_lent_count;
	uint32_t *block_owner; /* BLOCK_FREE, BLOCK_GRANTED | client, or BLOCK_ENDPOINT | endpoint; by index -
	                          block_first */
	uint16_t *grant_level; /* blocks each client is kept supplied with */
	uint32_t *tx_tables;   /* TX_BLOCK_COUNT for each block: of the connection that has its map */

	/* rings for received data */
	uint32_t ring_first, ring_count;
	uint32_t *ring_free;
	uint32_t ring_free_count;
	struct pbuf **rx_bufs; /* RX_RING_SIZE for each ring: what its pieces lie in */

	_Atomic uint32_t *port_conns; /* this stack's connections by local port, first those of our address,
	                                 then those of loopback addresses; stack 0 reads it */

	struct port_hold **ports; /* stack 0: who holds each port (port.c) */

	/* slabs for lwIP's pools */
	void **slabs;
	uint32_t slab_count, slab_room;

	/* handed over */
	_Atomic(struct stack_msg *) messages;
	bool msg_again; /* set by the fn of a message: it has done a part, and wants to be called once more in
	                   the next turn */
	_Atomic bool is_stopping;
	bool is_entered;
	uint64_t last_work_ns;
	struct spin spin;
	uint32_t nap_us;
	uint64_t tx_packets_seen, tx_moved_ns; /* when the port last took frames while some waited */
	uint32_t tx_waiting;                   /* frames that a full port did not take yet */
	uint32_t full_bursts;                  /* turns in a row that found more packets than they took */
	struct nic_frame rx_frames[RX_BURST];  /* received, and worked off by the end of the turn */
	uint32_t rx_count;

	/* times (latency.h) */
	bool is_timed;
	uint32_t timed_count;
	uint64_t frame_ns; /* when the frame that is worked on came; 0: that is not known, or not asked for */
	struct latency_sent timed[TIMED_MAX]; /* samples that wait for the port */

	/* looked up once a turn: packet buffers, and CLOCK_REALTIME */
	uint32_t bufs_free, bufs_total;
	uint64_t bufs_turn, real_turn, real_ns;

	/* datagrams */
	struct udp_entry **udp_hash; /* every stack's endpoints by local port */
	struct conn *udp_fresh;      /* endpoints that got something this turn (udp_in.c) */
	struct conn *udp_again;      /* endpoints with more to send than a turn or the port took */
	uint16_t ip_id;
	uint32_t fragments_dropped;  /* that lwIP has counted and we have noted */
	_Atomic uint32_t udp_handed; /* datagrams on their way from other stacks */
	_Atomic uint32_t frag_id;    /* of stack 0: numbers all fragmented datagrams */
	struct group *groups;        /* of stack 0, others read it (group.c) */
	struct icmp_peer *icmp_peers;

	/* sweep.c */
	uint64_t gone_turn;     /* when a piece of a dead client was worked off last, + 1 */
	uint32_t sweep_left;    /* words of 64 endpoints to be looked at */
	bool sweep_early;       /* drop what came before its turn */
	bool has_refused_early; /* packet buffers were too short for such data */
	uint32_t sweep_hop[SWEEP_HOPS], sweep_hop_count;
	uint32_t icmp_tokens, icmp_ms; /* errors that may still be sent, and when they were counted */
};

#define BLOCK_FREE 0u
#define BLOCK_GRANTED 0x40000000u
#define BLOCK_ENDPOINT 0x80000000u
#define BLOCK_LENT 0xc0000000u
#define BLOCK_KIND(o) ((o)&0xc0000000u)
#define BLOCK_HOLDER(o) ((o)&0x3fffffffu)

/* The stack whose thread this is; NULL elsewhere. */
extern LWIP_PER_STACK struct stack *stack_current;

#define COUNT(s, name, n) stat_add((s)->stats, STAT_##name, (n))

static inline struct endpoint *stack_ep(const struct stack *s, uint32_t idx)
{
	return &s->arena->endpoints[idx];
}

/* 127.0.0.0/8; ip in network order. */
static inline bool ip4_is_loopback(uint32_t ip)
{
	return (ip & PP_HTONL(0xff000000u)) == PP_HTONL(0x7f000000u);
}

/* One more event; nobody else writes the count. */
static inline void gen_step(_Atomic uint32_t *gen)
{
	atomic_store_explicit(gen, atomic_load_explicit(gen, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline bool stack_owns(const struct stack *s, uint32_t ep_idx)
{
	return ep_idx - s->ep_first < s->ep_count;
}

/* --- stack.c --- */
/* Marks a connection for the tx phase of this turn. */
void conn_touch(struct stack *s, struct conn *c);
/* The same, behind all that are marked: who writes first sends first. */
void conn_touch_last(struct stack *s, struct conn *c);

/* Counts, and says now and then, that a client wrote something impossible into shared memory. */
void bad_input(struct stack *s, const char *where, int line);

/* Free packet buffers and all of them, as they were at the first look of this turn. */
static inline void buf_levels(struct stack *s, uint32_t *free_count, uint32_t *total)
{
	if (unlikely(s->bufs_turn != s->turn + 1)) {
		s->bufs_turn = s->turn + 1;
		nic_buf_levels(s->queue, &s->bufs_free, &s->bufs_total);
		stat_low(s->stats, STAT_buffers_low, s->bufs_free);
	}
	*free_count = s->bufs_free;
	*total = s->bufs_total;
}

/* CLOCK_REALTIME of this turn. */
uint64_t stack_real_ns(struct stack *s);

/* --- mib.c: the counters of the RFCs --- */
/* Once, before the first packet. */
void mib_enter(struct stack *s);
/* Housekeeping: what was counted privately, and by lwIP. */
void mib_publish(struct stack *s);
/* An ICMP packet came or goes. */
void mib_icmp(struct stack *s, uint8_t type, bool is_out);

/* An IPv4 packet comes in, whole. */
static inline void mib_ip_in(struct stack *s, const uint8_t *ip)
{
	s->mib.ip_in_packets++;
	s->mib.ip_in_octets += (uint32_t)ip[2] << 8 | ip[3];
}
/* Bytes of the endpoint's ring up to pos have gone to the port's queue (times are taken). */
void stack_timed_sent(struct stack *s, const struct endpoint *ep, uint32_t pos);

/* --- notify.c: telling applications --- */
/* Queues the watches of an endpoint that want one of events (EPOLL bits). The wake-ups go out in the wake
 * phase. */
void notify(struct stack *s, uint32_t ep_idx, uint32_t events);
/* A connection came to a listener: as notify, but of the watches with EPOLLEXCLUSIVE (and of threads in
 * accept) one sleeper is enough; turn says where the search begins. */
void notify_accept(struct stack *s, uint32_t ep_idx, uint32_t turn);
/* Somebody that may have been called alone for a connection has gone without it: calls all others of that
 * kind. Who shares was called for every connection; once more would be an edge too many. */
void notify_accept_again(struct stack *s, uint32_t ep_idx);
/* An endpoint ends under waiters that were not told (another thread of theirs dissolved it): they look again.
 */
void notify_gone(struct stack *s, uint32_t ep_idx);
void notify_flush(struct stack *s);

/* --- conn.c: connections, focus and the door in front of lwIP's tcp_input --- */
struct conn *conn_new(struct stack *s, struct tcp_pcb *pcb);
void conn_hash_insert(struct stack *s, struct conn *c);
struct conn *conn_find(struct stack *s, const ip_addr_t *remote, const ip_addr_t *local, uint16_t remote_port,
        uint16_t local_port);
/* Frees the connection when neither pcb nor endpoint is left. */
void conn_put(struct stack *s, struct conn *c);
/* lwIP's lists hold just this connection from enter to leave. */
void focus_enter(struct conn *c);
void focus_leave(struct stack *s);
void conn_ext_init(void);
void conn_bind_pcb(struct conn *c, struct tcp_pcb *pcb);
/* Aborts with RST. The connection may be gone afterwards. */
void conn_abort(struct stack *s, struct conn *c);
/* May this segment's payload not take packet buffers? The last part of the pool is kept for acknowledgements
 * and for connections whose application reads. What comes before its turn (is_early) may stay for as long as
 * the peer likes: it gets nothing of that part, and nothing at all before the connection has an endpoint. */
bool conn_is_pressed(struct stack *s, struct conn *c, uint32_t payload, bool is_early);
void listener_add(struct stack *s, struct listener_local *l);
void listener_remove(struct stack *s, uint32_t ep_idx);

/* --- recover.c: selective acknowledgements (RFC 2018, RFC 6675); pcb must be there --- */
/* Notes the ranges that a segment's options report, before lwIP sees the segment. Options are valid. */
void recover_sacks(struct conn *c, const uint8_t *opt, uint32_t size);
/* After lwIP has seen it: enters, goes on with or leaves a recovery. False for peers without SACK. */
bool recover_input(struct stack *s, struct conn *c);
/* No loss is under repair, suspected or reported. An acknowledgement that came then is told by recover_passed
 * instead of recover_input. */
bool recover_is_idle(const struct conn *c);
void recover_passed(struct conn *c);
/* The retransmission timer: repeats the head and takes all that was not reported for lost. False for peers
 * without SACK: lwIP goes back to the head then. */
bool recover_timeout(struct stack *s, struct conn *c);
/* The time-out was in vain: its recovery ends with the window as it was. */
void recover_undo(struct conn *c, uint32_t cwnd);
void recover_drop(struct conn *c);
/* When this connection must be looked at for what is missing, and the look: reports that had time enough, or
 * the tail probe. */
bool recover_due(const struct stack *s, const struct conn *c, uint32_t *due);
void recover_fire(struct stack *s, struct conn *c);
/* Whether tcp_write may be called: it would put new bytes behind the last unsent segment, also when that one
 * waits to be sent again and other data follows it in the stream, or is longer than what fits by now. */
bool recover_may_write(const struct tcp_pcb *pcb);

/* --- timer.c --- */
/* New data was acknowledged: an episode of time-outs is over. */
void timer_acked(struct stack *s, struct conn *c);
/* The peer reported that it got a segment twice (RFC 2883). */
void timer_dsack(struct stack *s, struct conn *c);
void timer_arm(struct stack *s, struct conn *c);
void timer_drop(struct stack *s, struct conn *c);
uint32_t timer_run(struct stack *s);
/* Milliseconds until the next timer may be due, at most max_ms. */
uint32_t timer_next(struct stack *s, uint32_t max_ms);
/* How long the stack may sleep on its descriptors, with the port armed: until the next timer, or the port
 * wants to be looked at. 0: the port cannot wake it, it must nap. (stack.c) */
uint32_t stack_sleep_ms(struct stack *s);

/* --- tcp.c: lwIP's callbacks and the life of an endpoint --- */
/* *ep_out is the endpoint, or with -EXDEV the stack to ask. */
int tcp_open(struct stack *s, const struct call *c, uint32_t client, uint32_t *ep_out);
void tcp_release(struct stack *s, uint32_t ep_idx, uint32_t how);
void tcp_shut(struct stack *s, uint32_t ep_idx, uint32_t how);
void tcp_fail(struct stack *s, struct conn *c, int err, bool is_connect);
void tcp_conn_gone(struct stack *s, struct conn *c);
uint32_t ep_take(struct stack *s);
void ep_give(struct stack *s, uint32_t ep_idx);
/* After the handshake: callbacks, window, first RTT sample. */
void tcp_established(struct stack *s, struct conn *c);
err_t tcp_on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err);
/* Shut in both directions: what comes now is answered with a reset, as by the kernel. */
bool tcp_is_shut_both(struct stack *s, const struct conn *c);
/* Bytes that were acknowledged are lost for want of memory: the connection ends. */
void tcp_rx_broken(struct stack *s, struct conn *c);
void tcp_addr_set(struct sock_addr *a, const ip_addr_t *ip, uint16_t port);

/* --- tcp_listen.c --- */
int tcp_listen_here(struct stack *s, uint32_t ep_idx, const struct ep_own *own);
/* Some stack could not listen: none shall, and the caller is told f->result. Takes f. */
void tcp_listen_undo(struct stack *s, struct fan_out *f);
void tcp_unlisten_here(struct stack *s, uint32_t ep_idx, uint32_t listener);
/* Stack 0: every stack lets go; then the endpoint becomes next, or is given back (OWN_CONN). */
void tcp_unlisten(struct stack *s, uint32_t ep_idx, enum own_kind next);
void tcp_listener_give(struct stack *s, uint32_t ep_idx, uint32_t listener);
/* TCP_DEFER_ACCEPT has waited long enough for data. */
void tcp_defer_end(struct stack *s, struct conn *c);
/* Whether the connection of an endpoint we own still waits to be accepted. */
bool conn_is_queued(struct stack *s, uint32_t ep_idx);
/* How much lwIP puts into a segment, from what the way to the peer takes. */
void tcp_mss_set(struct stack *s, struct conn *c);
/* What a segment on the wire carries at most. */
static inline uint16_t conn_mss(const struct conn *c)
{
	return c->wire_mss ? c->wire_mss : c->pcb->mss;
}
/* Changes the receive window of an open connection (SO_RCVBUF). */
void rx_resize(struct stack *s, struct conn *c, uint32_t size);
void tcp_publish_info(struct stack *s, struct conn *c);
/* Ends a connection in TIME_WAIT when there are too many. */
void tcp_time_wait_limit(struct stack *s, struct conn *c);
/* After whatever may have changed lwIP's state: the time of a closing state begins with it. pcb must be
 * there. */
void tcp_end_note(struct stack *s, struct conn *c);
/* Destination of a packet: false when no route leads there. */
bool route_ok(const struct stack *s, const uint8_t ip[4]);

/* --- tcp_opt.c --- */
/* The application changed its options: what concerns lwIP follows. */
void tcp_options(struct stack *s, struct conn *c);
/* The receive window that an endpoint's options leave. */
uint32_t tcp_rcv_limit(const struct stack *s, const struct endpoint *ep);
/* Whether the window is ours to choose: no option of the program speaks of it. */
bool tcp_rcv_is_free(const struct endpoint *ep);
/* An IPv4 packet of lwIP's on its way out: counts it; a SYN says what the options want. */
void tcp_segment_out(struct stack *s, struct pbuf *p);
/* Around lwIP's work on a segment: what it changed, for TCP_INFO. */
struct tcp_seen {
	uint32_t una, nxt;
	bool is_open;
};
void tcp_seen_before(struct stack *s, struct conn *c, uint32_t payload, struct tcp_seen *seen);
void tcp_seen_after(struct stack *s, struct conn *c, const struct tcp_seen *seen);
/* A round trip took so long. */
void tcp_rtt_sample(struct stack *s, struct conn *c, uint64_t ns);
void tcp_info_fill(struct stack *s, const struct conn *c, struct conn_info *info);

/* --- rx.c / tx.c: the rings of an endpoint --- */
/* Received bytes for the application; takes p. 0, or -ENOBUFS when some were lost and the connection must
 * end. */
int rx_add(struct stack *s, struct conn *c, struct pbuf *p);
/* Something is unread still: a timer looks after it, at growing distances. */
void rx_reclaim_later(const struct stack *s, struct conn *c);
void rx_reclaim(struct stack *s, struct conn *c);
/* Gives a connection without a ring one; false when none is free. Takes the ring of one whose pieces were all
 * freed. */
bool rx_ring_take(struct stack *s, struct conn *c);
/* The ring that a connection has; the endpoint's word for it can be a client's. */
static inline struct rx_desc *rx_ring_of(const struct stack *s, const struct conn *c)
{
	return s->arena->rx_rings + (size_t)s->ring_first * RX_RING_SIZE + (c->rx_bufs - s->rx_bufs);
}
void rx_ring_give(struct stack *s, struct conn *c);
void rx_drop_all(struct stack *s, struct conn *c);
bool rx_is_unread(struct stack *s, struct conn *c);
void tx_pump(struct stack *s, struct conn *c);
/* Takes over the blocks that were written so far; while the writer still holds the endpoint. */
void tx_adopt(struct stack *s, struct conn *c);
void tx_acked(struct stack *s, struct conn *c, uint32_t size);
void tx_drop_all(struct stack *s, struct conn *c);
void tx_idle(struct stack *s, struct conn *c);
/* For datagrams: takes the ring over up to head (false: it says something impossible); the bytes at a
 * position and how many follow them at least; gives back what was sent. */
bool tx_take(struct stack *s, struct conn *c, uint32_t head);
const uint8_t *tx_at(struct stack *s, const struct conn *c, uint32_t pos, uint32_t *size);
void tx_done(struct stack *s, struct conn *c);
void block_init(struct stack *s);
/* Those that the port has let go of are free again. */
void block_lent_return(struct stack *s);
/* The number, for nic_buf_add, of the block of ours that lies at p; NIC_COPY for other memory. */
uint32_t block_piece(const struct stack *s, const void *p);
void block_grant(struct stack *s, uint32_t client);
void block_starved_wake(struct stack *s);
void block_client_gone(struct stack *s, uint32_t client);

/* --- sweep.c --- */
/* All endpoints will be looked at: what nobody holds or can accept ends. */
void sweep_start(struct stack *s);
/* A piece of it; 0 when there is nothing left. */
uint32_t sweep_run(struct stack *s);
/* Once a second: when packet buffers were too short to take data before its turn, what there is of it is
 * given up by such a look. */
void sweep_buffers(struct stack *s);
/* Connections waiting in SYN_SENT for a neighbour that does not answer fail soon. */
void tcp_unreachable(struct stack *s, uint32_t next_hop);

/* --- request.c --- */
/* Works off what one client has posted, so many at most; how many there were. */
uint32_t request_client(struct stack *s, uint32_t client, uint32_t most);
uint32_t request_run(struct stack *s);
void request_messages(struct stack *s);
/* Works off what clients have posted so far. */
uint32_t request_clients(struct stack *s);
void call_answer(struct stack *s, uint32_t client, uint32_t call_idx, int result, uint32_t ep);

/* --- port.c: local ports (stack 0) --- */
/* Takes a port (0: any free one) at an address, 0 for the wildcard. 0, -EADDRINUSE or -ENOMEM. */
int port_bind(struct stack *s, uint32_t ip, uint16_t *port, uint32_t flags, uint32_t uid);
void port_unref(struct stack *s, uint32_t ip, uint16_t port);
/* A holder begins or ends to listen. */
int port_listen(struct stack *s, uint32_t ip, uint16_t port, uint32_t flags);
void port_unlisten(struct stack *s, uint32_t ip, uint16_t port);
void port_destroy(struct stack *s);
bool port_is_used(const struct stack *s, uint16_t port);

/* --- loop.c: packets to ourselves --- */
int loop_setup(struct stack *s);
/* Whether packets to this address (network order) stay inside the service. */
bool loop_serves(const struct stack *s, uint32_t ip);
/* Turns a packet round; consumes buf. */
void loop_send(struct stack *s, struct nic_buf *buf, uint8_t *ip, uint32_t size);
/* One that another stack turned round for us, at ip inside buf; takes the buffer. */
void loop_input(struct stack *s, struct nic_buf *buf, void *priv, uint8_t *ip, uint32_t size);
/* Phase rx; how many there were. */
uint32_t loop_rx(struct stack *s);
void loop_drop(struct stack *s);

/* --- fan_out.c --- */
/* Zeroed, with the call to answer noted; or NULL. */
struct fan_out *fan_out_new(struct stack *s, uint32_t ep, uint32_t client, uint32_t call_idx);
/* Runs each at every stack, then done here. Cannot fail. */
void fan_out_all(struct stack *s, struct fan_out *f, int (*each)(struct stack *, struct fan_out *),
        void (*done)(struct stack *, struct fan_out *));
/* The same with each at stack k only. */
void fan_out_one(struct stack *s, struct fan_out *f, uint32_t k,
        int (*each)(struct stack *, struct fan_out *), void (*done)(struct stack *, struct fan_out *));
/* Answers the call, if the client that made it is still there and still holds the endpoint. */
void fan_out_answer(struct stack *s, const struct fan_out *f, int result);

/* --- netif.c / neigh.c --- */
/* Sends an IPv4 packet (room for the Ethernet header in front) that goes to dst: every outgoing packet passes
 * here. Consumes buf. 0, or -ENETUNREACH (counted). */
int netif_send(struct stack *s, uint32_t dst, struct nic_buf *buf, uint8_t *ip, uint32_t size);
/* The longest packet that goes to dst in one piece. */
uint32_t netif_mtu(const struct stack *s, uint32_t dst);
/* The source address of packets to dst. */
uint32_t netif_source(const struct stack *s, uint32_t dst);
/* An address that all stations of our network listen to. */
bool netif_is_broadcast(const struct stack *s, uint32_t ip);
static inline bool ip_is_multicast(uint32_t ip)
{
	return (ip & PP_HTONL(0xf0000000u)) == PP_HTONL(0xe0000000u);
}
int netif_setup(struct stack *s);
/* lwIP is told the address, netmask, gateway and MTU that the stack has now. */
void netif_follow(struct stack *s);
/* An outgoing packet of lwIP's, gathered into one fresh buffer; p stays lwIP's. ERR_OK, or ERR_MEM or ERR_BUF
 * (counted) without a buffer. */
err_t netif_gather(struct stack *s, struct pbuf *p, struct nic_buf **buf, uint8_t **data);
err_t netif_ip4_frag(struct pbuf *p, struct netif *netif, const ip4_addr_t *dest);
/* Receives a burst and works it off. How much that was. */
uint32_t netif_rx(struct stack *s);
/* Receives a burst for the next netif_rx, if there is none yet. How much waits for that. */
uint32_t netif_look(struct stack *s);
/* A TCP segment that is just what was expected next: takes the frame and does all there is to do. False: it
 * is for the general path. */
bool predict_input(struct stack *s, struct nic_frame *f);
int neigh_create(struct stack *s);
void neigh_destroy(struct stack *s);
void neigh_input(struct stack *s, const uint8_t *frame, uint32_t size);
/* Sends an IP packet (room for the Ethernet header in front) to the next hop, or keeps it while the neighbour
 * is asked. Consumes buf. */
void neigh_send(struct stack *s, uint32_t next_hop, struct nic_buf *buf, uint8_t *ip, uint32_t size);
/* Sends one to an Ethernet address that is known without asking (a group's, everybody's). */
void neigh_send_to(struct stack *s, const uint8_t mac[6], struct nic_buf *buf, uint8_t *ip, uint32_t size);
void neigh_tick(struct stack *s);
void neigh_announce(struct stack *s);
/* These never change and never get old, whatever ARP says; others that were such before are forgotten. */
void neigh_fix(struct stack *s, const struct stack_neigh *list, uint32_t count);
/* What was learnt is forgotten; who waits for an answer goes on waiting. */
void neigh_forget(struct stack *s);
/* The longest frame that reaches dst in one piece, when that is a neighbour on our own link; else 0. */
uint32_t neigh_big(struct stack *s, uint32_t dst);

/* Fills in at most max entries of the table, for tools; how many. */
uint32_t neigh_report(const struct stack *s, struct report_neigh *out, uint32_t max);

/* --- report.c --- */
void report_publish(struct stack *s);

/* --- rand.c --- */
void rand_init(struct stack *s);
uint32_t stack_rand(void);
/* A hash that nobody can foresee without this stack's key. */
uint64_t stack_hash(const struct stack *s, uint64_t a, uint64_t b);
