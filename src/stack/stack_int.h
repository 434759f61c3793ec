/* stack_int.h - what the files of src/stack share. Everything here is touched by the stack's own thread only,
 * except the fields marked otherwise.
 */
#pragma once
#include "stack.h"

#include "lwip/opt.h"
#include "lwip/tcp.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"

#include "endpoint.h"
#include "ready.h"
#include "clock.h"
#include "compiler.h"

enum {
	RX_BURST = 32,
	REQ_BURST = 256,    /* posts taken of one client in one turn */
	WHEEL_SIZE = 4096,  /* slots of one millisecond */
	NEIGH_COUNT = 1024, /* power of two */
	NEIGH_PENDING = 3,  /* packets kept per unresolved neighbour */
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
};

/* A connection: lwIP's pcb, its place in the hash and its endpoint. Lives while the pcb or the endpoint does.
 */
struct conn {
	struct tcp_pcb *pcb; /* NULL once lwIP has freed it */
	struct conn *hash_next;
	uint32_t hash;
	uint32_t ep; /* endpoint index, or ENDPOINT_NONE */
	ip_addr_t local_ip, remote_ip;
	uint16_t local_port, remote_port;
	uint8_t is_hashed, is_dirty, is_linked, is_connecting;
	uint8_t is_released; /* the applications have closed it */
	uint8_t fin_wanted;  /* send FIN once the ring is drained */
	uint8_t fin_sent;
	uint8_t is_counted, is_tw; /* in the gauges of established and TIME_WAIT connections */
	uint8_t fin_seen;          /* the peer's came */
	uint8_t cork_armed;        /* a corked rest waits until cork_due */
	uint32_t cork_due;
	uint8_t close_called; /* tcp_close was called */
	uint8_t persist_seen;
	uint8_t syn_tries;
	uint8_t owns_port;   /* holds a port reference at stack 0 */
	uint8_t is_busy;     /* phase_tx works on it: nobody may free it */
	uint8_t is_starved;  /* on the list of connections that wait for send blocks */
	uint32_t parent;     /* listener endpoint it came from, or ENDPOINT_NONE */
	uint8_t cwnd_is_set; /* the initial congestion window is ours, not lwIP's */
	struct conn *dirty_next;
	struct conn *starved_next;
	struct listener_local *listener; /* while in SYN_RCVD */
	/* timer wheel */
	struct conn *timer_next, **timer_prev;
	uint32_t timer_due; /* ms clock; valid when is_linked */
	uint32_t rto_start, persist_start, ack_start, reclaim_due, rexmit_since;
	uint8_t ack_armed, reclaim_armed;
	uint16_t reclaim_wait;
	/* send ring positions */
	uint32_t tx_fed;   /* given to lwIP */
	uint32_t tx_acked; /* acknowledged; blocks behind it are free */
	uint32_t tx_seen;  /* ring position up to which blocks are checked and marked ours */
	uint32_t *
	        tx_blocks; /* TX_BLOCK_COUNT, once something was sent: the blocks as they were when checked */
	/* receive */
	struct pbuf **rx_bufs;               /* RX_RING_SIZE, or NULL while idle */
	uint32_t rx_head, rx_bytes;          /* what was published; the arena has a copy */
	uint32_t rx_freed;                   /* pieces given back */
	uint32_t rx_recved;                  /* bytes told to lwIP */
	struct pbuf *pend_first, *pend_last; /* received, the ring was full */
	uint32_t rcv_debt;                   /* bytes that a smaller SO_RCVBUF keeps back from the window */
	uint32_t rcv_limit;                  /* receive window of this connection */
	uint32_t user_timeout_ms;
	uint64_t syn_ns;    /* when the SYN left: first RTT sample */
	uint16_t rto_floor; /* ms; above the configured one while acknowledgements turn out slower than it */
	uint8_t clean_acks; /* acknowledgements without a time-out, modulo 256 */
	uint8_t dsack_wait, dsack_seen; /* a DSACK would tell, or told, that the last time-out was in vain */
	uint16_t late_ms;               /* how long the acknowledgement took then */
	uint32_t rexmit_seq;            /* first byte of the segment that timed out */
	uint32_t cwnd_before, ssthresh_before; /* the time-out */
	uint32_t recover;                      /* fast recovery ends when this is acknowledged (RFC 6582) */
	uint8_t rexmit_open;                   /* a retransmission by time-out is not acknowledged yet */
	uint32_t rexmit_first;                 /* when the segment that timed out was first sent */
};

/* This stack's part of a listener. */
struct listener_local {
	struct listener_local *next;
	struct tcp_pcb_listen *pcb;
	uint32_t ep, idx;   /* endpoint, listener record */
	uint32_t embryonic; /* connections in SYN_RCVD */
	uint32_t rcvbuf;
	uint16_t port;
	uint8_t ip[4];
	bool is_any;
};

struct neigh;

/* What a stack knows itself of an endpoint it owns: a client may write over the copy in the arena. */
enum own_kind {
	OWN_FREE,
	OWN_CONN,
	OWN_BOUND,
	OWN_LISTEN,
	OWN_SHUT, /* a listener that was shut down; its stacks are letting go */
	OWN_DEAD, /* ... and have let go: only its descriptor is left */
};

struct ep_own {
	uint8_t kind;
	uint8_t ip[4]; /* OWN_BOUND and OWN_LISTEN: where, network order */
	uint16_t port;
	uint32_t listener; /* OWN_LISTEN, OWN_SHUT, OWN_DEAD: its record */
	uint32_t rcvbuf;   /* OWN_LISTEN: receive window of its connections, 0 = the default */
};

/* Work of stack 0 that needs every stack: its answer goes out when the last one has done it. */
struct fan_out {
	_Atomic uint32_t left;
	struct stack *home;
	uint32_t ep, client, call_idx;
	struct ep_own own;
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
	uint16_t mtu;
	uint32_t address, netmask, gateway; /* network order */
	bool has_gateway;
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
	struct conn *dirty;
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
	uint32_t wake[WAKE_MAX];
	uint32_t wake_count;
	struct netif netif;
	struct listener_local *listeners[ACCEPT_HASH];
	struct neigh *neigh;
	uint64_t rand_state;
	uint32_t time_wait_count, established_count;
	struct conn *input_conn; /* connection that lwip_tcp_input works on; NULL when freed meanwhile */

	/* send blocks */
	uint32_t block_first, block_count;
	uint32_t *block_free;
	uint32_t block_free_count;
	uint32_t *block_owner; /* BLOCK_FREE, BLOCK_GRANTED | client, or BLOCK_ENDPOINT | endpoint; by index -
	                          block_first */
	uint16_t *grant_level; /* blocks each client is kept supplied with */

	_Atomic uint32_t *port_conns; /* this stack's connections by local port; stack 0 reads it */

	/* stack 0: ports, by number */
	uint16_t *port_refs;
	uint8_t *port_flags;    /* PORT_* */
	uint16_t *port_listens; /* listeners */

	/* slabs for lwIP's pools */
	void **slabs;
	uint32_t slab_count, slab_room;

	/* handed over */
	_Atomic(struct stack_msg *) messages;
	_Atomic bool is_stopping;
	bool is_entered;
	uint64_t last_work_ns;
	uint32_t nap_us;
	uint64_t tx_packets_seen, tx_moved_ns; /* when the port last took frames while some waited */
	uint32_t tx_waiting;                   /* frames that a full port did not take yet */
	uint32_t full_bursts;                  /* turns in a row that found more packets than they took */
};

enum { PORT_LISTEN = 1, PORT_REUSEPORT = 2, PORT_REUSEADDR = 4 };

#define BLOCK_FREE 0u
#define BLOCK_GRANTED 0x40000000u
#define BLOCK_ENDPOINT 0x80000000u
#define BLOCK_KIND(o) ((o)&0xc0000000u)
#define BLOCK_HOLDER(o) ((o)&0x3fffffffu)

/* The stack whose thread this is; NULL elsewhere. */
extern __thread struct stack *stack_current;

#define COUNT(s, name, n) stat_add((s)->stats, STAT_##name, (n))

static inline struct endpoint *stack_ep(const struct stack *s, uint32_t idx)
{
	return &s->arena->endpoints[idx];
}

static inline bool stack_owns(const struct stack *s, uint32_t ep_idx)
{
	return ep_idx - s->ep_first < s->ep_count;
}

/* --- stack.c --- */
/* Marks a connection for the tx phase of this turn. */
void conn_touch(struct stack *s, struct conn *c);

/* Counts, and says now and then, that a client wrote something impossible into shared memory. */
void bad_input(struct stack *s, const char *where, int line);

/* --- notify.c: telling applications --- */
/* Queues the watches of an endpoint that want one of events (EPOLL bits). The wake-ups go out in the wake
 * phase. */
void notify(struct stack *s, uint32_t ep_idx, uint32_t events);
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
void listener_add(struct stack *s, struct listener_local *l);
void listener_remove(struct stack *s, uint32_t ep_idx);
/* This stack's part of the listener with that endpoint, or NULL. */
struct listener_local *listener_of(struct stack *s, uint32_t ep_idx);

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

/* --- tcp.c: lwIP's callbacks and the life of an endpoint --- */
int tcp_open(struct stack *s, const struct call *c, uint32_t client, uint32_t *ep_out);
void tcp_release(struct stack *s, uint32_t ep_idx, uint32_t how);
void tcp_shut(struct stack *s, uint32_t ep_idx, uint32_t how);
void tcp_fail(struct stack *s, struct conn *c, int err, bool is_connect);
int tcp_listen_here(struct stack *s, uint32_t ep_idx, const struct ep_own *own);
void tcp_unlisten_here(struct stack *s, uint32_t ep_idx, uint32_t listener);
void tcp_conn_gone(struct stack *s, struct conn *c);
uint32_t ep_take(struct stack *s);
void ep_give(struct stack *s, uint32_t ep_idx);
/* Whether the connection of an endpoint we own still waits to be accepted. */
bool conn_is_queued(struct stack *s, uint32_t ep_idx);
/* Changes the receive window of an open connection (SO_RCVBUF). */
void rx_resize(struct stack *s, struct conn *c, uint32_t size);
void tcp_publish_info(struct stack *s, struct conn *c);
/* Destination of a packet: false when no route leads there. */
bool route_ok(const struct stack *s, const uint8_t ip[4]);

/* --- rx.c / tx.c: the rings of an endpoint --- */
/* Received bytes for the application; takes p. 0, or -ENOBUFS when some were lost and the connection must
 * end. */
int rx_add(struct stack *s, struct conn *c, struct pbuf *p);
void rx_reclaim(struct stack *s, struct conn *c);
void rx_drop_all(struct stack *s, struct conn *c);
bool rx_is_unread(struct stack *s, struct conn *c);
void tx_pump(struct stack *s, struct conn *c);
/* Takes over the blocks that were written so far; while the writer still holds the endpoint. */
void tx_adopt(struct stack *s, struct conn *c);
void tx_acked(struct stack *s, struct conn *c, uint32_t size);
void tx_drop_all(struct stack *s, struct conn *c);
void tx_idle(struct stack *s, struct conn *c);
void block_init(struct stack *s);
void block_grant(struct stack *s, uint32_t client);
void block_starved_wake(struct stack *s);
void block_client_gone(struct stack *s, uint32_t client);

/* --- request.c --- */
uint32_t request_run(struct stack *s);
void request_messages(struct stack *s);
void call_answer(struct stack *s, uint32_t client, uint32_t call_idx, int result, uint32_t ep);

/* --- port.c: local ports (stack 0) --- */
int port_bind(struct stack *s, uint16_t *port, uint32_t flags);
void port_unref(struct stack *s, uint16_t port);
void port_unlisten(struct stack *s, uint16_t port);
int port_listen(struct stack *s, uint16_t port, uint32_t flags);
bool port_is_used(const struct stack *s, uint16_t port);

/* --- netif.c / neigh.c --- */
int netif_setup(struct stack *s);
uint32_t netif_rx(struct stack *s);
int neigh_create(struct stack *s);
void neigh_destroy(struct stack *s);
void neigh_input(struct stack *s, const uint8_t *frame, uint32_t size);
/* Sends an IP packet (room for the Ethernet header in front) to the next hop, or keeps it while the neighbour
 * is asked. Consumes buf. */
void neigh_send(struct stack *s, uint32_t next_hop, struct nic_buf *buf, uint8_t *ip, uint32_t size);
void neigh_tick(struct stack *s);
void neigh_announce(struct stack *s);
/* Connections waiting in SYN_SENT for a neighbour that does not answer. */
void tcp_unreachable(struct stack *s, uint32_t next_hop);

/* --- rand.c --- */
void rand_init(struct stack *s);
uint32_t stack_rand(void);
