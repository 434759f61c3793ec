/* layout.h - the shared memory's wire format: what the service and its clients both map.
 *
 * One memfd, made by the service. Every reference in it is an index or an offset from the start; nothing in
 * it may be trusted by the service that a client can write: each index and length is checked at the place of
 * use. Fields are grouped by writer. "stack" is the thread that owns the endpoint, "app" any thread of a
 * process that holds it. The protocols (who writes, in which order, what ends a wait) are told in
 * doc/threads.md.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#include "hist.h"

#define ARENA_MAGIC 0x4152454e4b4f5250ull /* "PRONKERA", little endian */

enum {
	ARENA_VERSION = 10,
	ARENA_STACK_MAX = 16,
	ARENA_CLIENT_MAX = 1024,
	ARENA_LISTENER_MAX = 128,
	ARENA_POLLER_MAX = 8192,
	ARENA_REGION_MAX = 32,

	RX_RING_SIZE = 64,     /* published pieces of received data per ring; power of two */
	TX_BLOCK_SIZE = 16384, /* bytes; power of two */
	TX_BLOCK_COUNT = 64,   /* blocks an endpoint's send ring may span: 1 MB; power of two */
	TX_ROOM_LEAST = 4096,  /* bytes that must be free in a ring that was full before a writer gets some */
	ACCEPT_RING_SIZE = 1024, /* connections waiting per listener and stack; power of two */
	WATCH_INLINE = 4,        /* watchers per endpoint ... */
	WATCH_LISTENER = 124,    /* ... and as many more per listener */
	REQ_RING_SIZE = 4096,    /* posts per client and stack; power of two */
	CALL_COUNT = 32,         /* synchronous requests a client may have at a time */
	GRANT_RING_SIZE = 1024,  /* send blocks granted to a client and not yet used; power of two */
	FALLBACK_COUNT = 128,    /* remembered sockets per client that the kernel serves */
	TICKET_SIZE = 1024,      /* what a socket is, on its way to another process */
	LATENCY_MARKS = 1024,    /* samples under way for each stack and direction; power of two */
};

#define BLOCK_NONE UINT32_MAX
#define ENDPOINT_NONE UINT32_MAX

/* An IPv4 or IPv6 address with a port. */
struct sock_addr {
	uint16_t family; /* AF_INET, AF_INET6, or 0: none */
	uint16_t port;   /* host order */
	uint32_t scope;  /* IPv6 zone */
	uint8_t ip[16];  /* network order; IPv4 in the first four bytes */
};

/* One piece of received data in packet memory. */
struct rx_desc {
	uint64_t addr; /* region << 48 | offset */
	uint32_t size;
	uint32_t pieces; /* SOCK_DGRAM: pieces of the datagram that begins here; 0 = goes on from the last */
};

/* In front of a received datagram, in packet memory: the first piece is this and payload, the others payload
 * only. Written by the stack over the headers it has read, so at any alignment: readers copy it. */
struct dgram_meta {
	struct sock_addr from, to;
	uint32_t size; /* of the payload, all pieces */
	uint8_t tos, ttl;
	uint16_t reserved;
	uint64_t time_ns; /* CLOCK_REALTIME, when the stack took it */
};

/* In front of each datagram in the send ring, at a multiple of 8: then size bytes, then up to 7 that mean
 * nothing. Written by the app, checked by the stack. */
struct dgram_head {
	uint32_t size;
	uint16_t flags;   /* DGRAM_* */
	uint8_t tos, ttl; /* as the socket has them; ttl is the multicast one for such an address */
	struct sock_addr to;
	struct sock_addr from; /* family 0: as bound, or the port's address */
	uint64_t reserved;
};

/* dgram_head.flags */
enum {
	DGRAM_DONT_FRAGMENT = 1 << 0,
	DGRAM_MULTICAST_LOOP = 1 << 1, /* our own members of the group get it as well */
	DGRAM_NO_CHECKSUM = 1 << 2,
	DGRAM_NO_PORT = 1 << 3, /* the socket has let its port go: 0 is the sender's */
};

#define DGRAM_ALIGN(size) (((size) + 7u) & ~7u)
_Static_assert(sizeof(struct dgram_meta) == 64, "");
_Static_assert(sizeof(struct dgram_head) == 64, "");

/* A watch: "tell this poller when this endpoint has these events". The word changes only by compare-and-swap.
 */
struct watch {
	_Atomic uint64_t word; /* WATCH_* fields below; 0 = free */
	_Atomic uint32_t next; /* link in the poller's ready list, index + 1; valid while queued */
	uint32_t reserved;
};

#define WATCH_QUEUED (1ull << 63) /* on its poller's ready list, or about to be */
/* In a mask: a thread waits here, and looks again when it is told to (POST_NUDGE); EPOLLMSG means nothing. */
#define WATCH_THREAD EPOLLMSG
#define WATCH_EXCLUSIVE (1ull << 62) /* one of these is enough for a connection to accept */
#define WATCH_MASK(word)                                                                                     \
	((uint32_t)(((word) >> 32) & 0xffff)) /* EPOLL* events below 1 << 16; 0 = being taken away */
#define WATCH_POLLER(word) ((uint32_t)(word)) /* poller index + 1 */
#define WATCH_WORD(poller, mask) ((uint64_t)((mask)&0xffff) << 32 | ((poller) + 1))

enum endpoint_state {
	EP_FREE,
	EP_BOUND, /* holds a local port, nothing more */
	EP_LISTEN,
	EP_CONNECTING,
	EP_ESTABLISHED,
	EP_CLOSED, /* both directions have ended, or the connection failed */
	EP_DGRAM,  /* SOCK_DGRAM: bound; connected when remote.family is set */
};

/* endpoint.flags */
enum {
	EP_RX_EOF = 1 << 0,    /* nothing more will be received after what is in the ring */
	EP_TX_CLOSED = 1 << 1, /* nothing more can be sent: reset, time-out or the local side shut it down */
	EP_FIN_SEEN = 1 << 3,  /* the peer's FIN came: reading ends with 0 whatever happens later */
	EP_OPENED = 1 << 4,    /* the handshake was completed */
	EP_FIN_ACKED = 1 << 2, /* all that was sent, and our FIN, is acknowledged */
};

/* endpoint.doorbell */
enum {
	DOORBELL_TX = 1 << 0, /* tx_head moved */
	DOORBELL_RX = 1 << 1, /* rx_tail moved enough to matter */
};

/* Options of a socket, as getsockopt shows them. Written by the app (any process that holds it), except that
 * the stack copies a listener's to the connections that come from it; the stack believes no value it reads
 * here. */
enum ep_opt { /* ints */
	EPO_SNDBUF,
	EPO_RCVBUF,
	EPO_RCVLOWAT,
	EPO_LINGER_S, /* meant when EPF_LINGER is set */
	EPO_PRIORITY,
	EPO_MARK,
	EPO_BUSY_POLL,
	EPO_INCOMING_CPU,
	EPO_TXREHASH,
	EPO_KEEPIDLE,
	EPO_KEEPINTVL,
	EPO_KEEPCNT,
	EPO_USER_TIMEOUT,
	EPO_SYNCNT,
	EPO_LINGER2,
	EPO_DEFER_ACCEPT,
	EPO_MAXSEG,
	EPO_WINDOW_CLAMP,
	EPO_QUICKACK,
	EPO_NOTSENT_LOWAT,
	EPO_SAVE_SYN,
	EPO_FASTOPEN,
	EPO_TX_DELAY,
	EPO_TOS,
	EPO_TTL,
	EPO_MINTTL,
	EPO_MTU_DISCOVER,
	EPO_MULTICAST_TTL,
	EPO_UNICAST_IF,
	EPO_PORT_RANGE,
	EPO_TCLASS,
	EPO_HOPS,
	EPO_BUF_LOCK,
	EPO_RTO_MAX_MS,
	EPO_DGRAM_0, /* for UDP's own */
	EPO_DGRAM_1,
	EPO_DGRAM_2,
	EPO_DGRAM_3,
	EPO_COUNT
};
enum ep_flag { /* 0 or 1: bits of ep_opts.flag */
	EPF_REUSEADDR,
	EPF_REUSEPORT,
	EPF_KEEPALIVE,
	EPF_OOBINLINE,
	EPF_LINGER,
	EPF_SNDBUF_SET, /* by the program, not by the configuration */
	EPF_RCVBUF_SET,
	EPF_DEBUG,
	EPF_DONTROUTE,
	EPF_BROADCAST,
	EPF_NO_CHECK,
	EPF_TIMESTAMP,
	EPF_TIMESTAMPNS,
	EPF_RXQ_OVFL,
	EPF_WIFI_STATUS,
	EPF_NOFCS,
	EPF_LOCK_FILTER,
	EPF_SELECT_ERR_QUEUE,
	EPF_PREFER_BUSY_POLL,
	EPF_RCVMARK,
	EPF_RCVPRIORITY,
	EPF_NODELAY,
	EPF_CORK,
	EPF_THIN_LINEAR_TIMEOUTS,
	EPF_INQ,
	EPF_FASTOPEN_NO_COOKIE,
	EPF_PKTINFO,
	EPF_RECVTTL,
	EPF_RECVTOS,
	EPF_RECVOPTS,
	EPF_RETOPTS,
	EPF_PASSSEC,
	EPF_RECVORIGDSTADDR,
	EPF_CHECKSUM,
	EPF_FREEBIND,
	EPF_TRANSPARENT,
	EPF_BIND_NO_PORT,
	EPF_MULTICAST_LOOP,
	EPF_MULTICAST_ALL,
	EPF_V6ONLY,
	EPF_RECVTCLASS,
	EPF_RECVHOPLIMIT,
	EPF_RECVPKTINFO6,
	EPF_DONTFRAG,
	EPF_BOUND_DEVICE, /* to the kernel interface of the port */
	EPF_DGRAM_0,      /* for UDP's own */
	EPF_DGRAM_1,
	EPF_DGRAM_2,
	EPF_DGRAM_3,
	EPF_COUNT
};
_Static_assert(EPF_COUNT <= 64, "one word");
struct ep_opts {
	_Atomic uint64_t flag;
	_Atomic uint64_t rcvtimeo_ns, sndtimeo_ns; /* 0 = none */
	_Atomic int32_t v[EPO_COUNT + (EPO_COUNT & 1)];
};

struct endpoint {
	/* written by the stack, read by the app; hot */
	_Alignas(64) _Atomic uint32_t rx_head; /* pieces published */
	_Atomic uint32_t rx_bytes;             /* bytes published, modulo 2^32 */
	_Atomic uint32_t
	        tx_tail; /* send ring position up to which bytes are acknowledged and blocks are taken back */
	_Atomic uint32_t flags;
	_Atomic uint32_t state;
	_Atomic int32_t error;    /* errno of the last failure; the app takes it by exchange with 0 */
	_Atomic uint32_t rx_gen;  /* receive-side events so far (edge detection) */
	_Atomic uint32_t tx_gen;  /* send-side events so far */
	uint32_t gen;             /* changes each time the endpoint is opened anew */
	uint16_t stack_idx;       /* constant */
	uint16_t kind;            /* SOCK_STREAM or SOCK_DGRAM */
	uint32_t listener;        /* index of its listener record, or UINT32_MAX */
	uint32_t parent;          /* listener endpoint a connection was accepted from, or ENDPOINT_NONE */
	_Atomic uint32_t tx_sent; /* send ring position up to which bytes were sent at least once */
	_Atomic uint32_t rx_ring; /* the ring that its pieces lie in, while there are any */
	_Atomic uint32_t reserved0[2];

	/* written by the app, read by the stack */
	_Alignas(64) _Atomic uint32_t rx_tail; /* pieces consumed; under rx_lock */
	_Atomic uint32_t rx_off;               /* bytes consumed of the piece at rx_tail; under rx_lock */
	_Atomic uint32_t rx_read;              /* bytes consumed, modulo 2^32; under rx_lock */
	_Atomic uint32_t tx_head;  /* send ring position up to which bytes are written; under tx_lock */
	_Atomic uint32_t doorbell; /* app sets bits, stack takes them: whoever sets the first one posts */
	_Atomic uint32_t tx_want;  /* a writer found the ring full; the stack clears it and tells watchers */
	_Atomic uint64_t rx_lock;  /* 0 or pid << 32 | thread tag; broken when the holder's process is dead */
	_Atomic uint64_t tx_lock;
	_Atomic uint32_t tx_limit;  /* SO_SNDBUF */
	_Atomic uint32_t app_flags; /* APP_* */
	_Atomic int32_t app_fd;     /* a descriptor it is open under, for tools; -1 = unknown */
	/* block whose map says which blocks are under the send ring, or BLOCK_NONE; under tx_lock (also of
	 * the stack, which takes the map away from an idle ring) */
	_Atomic uint32_t tx_map;
	_Atomic uint32_t reserved1[2];

	/* both, by compare-and-swap */
	_Alignas(64) struct watch watch[WATCH_INLINE];

	/* written by the stack, cold */
	_Alignas(64) struct sock_addr local;
	struct sock_addr remote;
	_Atomic uint32_t info_cwnd, info_snd_wnd, info_rcv_wnd, info_rtt_us, info_rto_ms, info_retransmits,
	        info_mss, info_ssthresh;
	_Atomic uint32_t tcp_state;
	_Atomic uint32_t tx_unsent; /* bytes in the ring that were never sent yet */
	_Atomic uint32_t backlog;
	_Atomic uint32_t creator;    /* client that opened it, or that accepted it */
	_Atomic uint32_t info_drops; /* SOCK_DGRAM: datagrams that found the receive buffer full */
	/* the timer that goes off next (enum report_timer), and when, in milliseconds of CLOCK_MONOTONIC */
	_Atomic uint32_t info_timer, info_timer_ms;
	/* payload that the peer has acknowledged, or of datagrams that were sent; modulo 2^32. Positions in
	 * the send ring do not tell: they jump when an idle ring gives its blocks back */
	_Atomic uint32_t info_tx_bytes;

	_Alignas(64) struct ep_opts opts;
};

/* endpoint.app_flags */
enum {
	APP_NODELAY = 1 << 0,
	APP_CORK = 1 << 1,
	APP_SHUT_RD = 1 << 2,
	APP_SHUT_WR = 1 << 3,
	APP_KEEPALIVE = 1 << 4,
	APP_NONBLOCK = 1 << 5, /* O_NONBLOCK: shared like an open file description's */
	APP_MORE = 1 << 6,     /* the last send said MSG_MORE; under tx_lock */
};

_Static_assert(offsetof(struct endpoint, rx_tail) == 64, "stack's line first, then the app's");
_Static_assert(offsetof(struct endpoint, watch) == 128, "");
_Static_assert(sizeof(struct watch) * WATCH_INLINE == 64, "watches of an endpoint share one line");
_Static_assert(sizeof(struct endpoint) % 64 == 0, "");

/* Connections that wait to be accepted, one ring per listener and stack. The stack adds; any process takes by
 * moving tail. */
struct accept_ring {
	_Alignas(64) _Atomic uint32_t head;      /* stack */
	_Alignas(64) _Atomic uint32_t tail;      /* app, compare-and-swap */
	_Atomic uint32_t slot[ACCEPT_RING_SIZE]; /* endpoint index */
};

struct listener {
	_Alignas(64) _Atomic uint32_t endpoint;
	_Atomic uint32_t in_use;
	_Atomic uint32_t watch_end; /* app: no watch from here on was ever claimed; raised before the claim */
	struct watch watch[WATCH_LISTENER];
	struct accept_ring ring[]; /* one per stack */
};

/* poller.sleeping; 0: nobody */
enum {
	POLLER_SLEEPS = 1, /* a thread does */
	POLLER_ARMED = 2,  /* none does, but the event fd must tell: a set in another set, or in a poll */
};

/* Who sleeps: an epoll instance, or a thread in a blocking call. */
struct poller {
	_Alignas(64) _Atomic uint32_t ready; /* ready list: watch index + 1, newest first; 0 = empty */
	_Atomic uint32_t sleeping; /* POLLER_*: threads sleep or are about to; whoever takes it to 0 writes
	                              the event fd */
	_Atomic uint32_t owner;    /* client index + 1; 0 = free */
	_Atomic uint32_t reserved[13];
};

/* Post ring entry: op << 56 | arg << 32 | index. */
enum post_op {
	POST_NONE,
	POST_DOORBELL, /* index: endpoint */
	POST_CALL,     /* index: call slot */
	POST_RELEASE,  /* index: endpoint; arg: RELEASE_* */
	POST_SHUTDOWN, /* index: endpoint; arg: SHUT_RD, SHUT_WR, SHUT_RDWR */
	POST_NUDGE,    /* index: listener: who watches it alone shall look again; datagrams: who waits */
	POST_OPTIONS,  /* index: endpoint: app_flags or keep-alive settings changed */
};

enum { RELEASE_ABORT = 1, RELEASE_KEEP_PORT = 2 /* a connection has taken the bound port over */ };

#define POST_ENTRY(op, arg, index)                                                                           \
	((uint64_t)(op) << 56 | (uint64_t)((arg)&0xffffff) << 32 | (uint32_t)(index))

struct req_ring {
	_Alignas(64) _Atomic uint32_t head; /* app, under the client's process-local lock */
	_Alignas(64) _Atomic uint32_t tail; /* stack */
	_Alignas(64) _Atomic uint64_t slot[REQ_RING_SIZE];
};

struct grant_ring {
	_Alignas(64) _Atomic uint32_t head; /* stack */
	_Alignas(64) _Atomic uint32_t tail; /* app, under the client's process-local lock */
	_Atomic uint32_t starved;           /* app: wanted a block and found none; stack clears */
	_Alignas(64) _Atomic uint32_t slot[GRANT_RING_SIZE];
};

enum call_op {
	CALL_BIND = 1, /* opt: SOCK_STREAM: to stack 0; SOCK_DGRAM: to any stack, which becomes its home */
	CALL_LISTEN,
	CALL_CONNECT, /* SOCK_DGRAM: endpoint named, at its stack; remote.family 0 dissolves it */
	CALL_LINGER,
	CALL_INFO,    /* out: info */
	CALL_GROUP,   /* SOCK_DGRAM, at its stack: remote is joined (value 1) or left (0) on local's interface
	               */
	CALL_BARRIER, /* answered once everything that was posted to the stack before has been done */
};
enum call_state {
	CALL_FREE,
	CALL_TAKEN,
	CALL_POSTED,
	CALL_DONE,
	CALL_ABANDONED, /* the caller waits no longer: the stack frees the slot, and what it made for the call
	                 */
	CALL_AWAITED,   /* as POSTED, and the caller sleeps until it is answered */
};

/* The answer to CALL_INFO: what TCP_INFO tells of a connection. */
struct conn_info {
	uint64_t bytes_acked, bytes_received, bytes_sent, bytes_again;
	uint32_t segs_in, segs_out, data_segs_in, data_segs_out, segs_again, timeouts;
	uint32_t rtt_us, rttvar_us, min_rtt_us, rto_ms;
	uint32_t data_sent_ago_ms, data_recv_ago_ms, ack_recv_ago_ms;
	uint32_t mss, advmss, mtu, cwnd, ssthresh, snd_wnd, rcv_wnd, rcv_limit; /* bytes */
	uint32_t unacked;                                                       /* segments */
	uint32_t notsent;                                                       /* bytes */
	uint8_t options, snd_wscale, rcv_wscale, backoff, probes, is_recovering, is_lost, reserved;
};
enum { CONN_INFO_SACK = 1, CONN_INFO_WSCALE = 2 };

/* A synchronous request and its answer. The app fills it, the stack answers and sets CALL_DONE. */
struct call {
	_Alignas(64) _Atomic uint32_t state; /* enum call_state; also a futex word */
	uint32_t op;
	uint32_t endpoint; /* in: the endpoint, or ENDPOINT_NONE; out: the endpoint made */
	int32_t result;    /* out: 0 or -E */
	struct sock_addr local, remote;
	uint32_t opt;
	int32_t value;
	uint32_t flags;  /* CALL_F_* */
	uint32_t rcvbuf; /* SO_RCVBUF of the new connection or of the listener's; 0 = the default */
	uint32_t uid;    /* BIND: effective user */
	uint32_t reserved[3];
	union {
		struct ep_opts opts;   /* BIND, CONNECT: of the new endpoint */
		struct conn_info info; /* INFO, out */
	};
};
enum {
	CALL_F_REUSEADDR = 1,
	CALL_F_REUSEPORT = 2,
	CALL_F_KERNEL_BOUND =
	        4,      /* the kernel gave this port: TIME_WAIT, or who listened since, is no obstacle */
	CALL_F_SIX = 8, /* a datagram socket of AF_INET6: among equals one of AF_INET goes first */
};

/* A socket that the kernel serves, and why. */
struct fallback {
	_Atomic int32_t fd; /* -1 = no entry */
	uint16_t family, type;
	char reason[88];
};

enum client_state { CLIENT_FREE, CLIENT_FORKING, CLIENT_ACTIVE, CLIENT_DEAD };

/* A slot without a process: it holds sockets that are on their way to one. doc/threads.md, "References" */
enum ticket_kind {
	TICKET_NONE,
	TICKET_PASSED, /* in a message of a unix socket: as long as the kernel keeps the message */
	TICKET_EXEC,   /* across exec: the new image takes them at once, or nobody does */
};

/* One attached process. */
struct client {
	_Alignas(64) _Atomic uint32_t state;
	_Atomic int32_t pid;
	_Atomic uint32_t uid; /* effective, when it attached (control); 0: what it says itself counts */
	_Atomic uint32_t gen;
	_Atomic uint32_t stacks_done; /* stacks that have dropped this dead client */
	char program[32];
	struct call call[CALL_COUNT];
	struct fallback fallback[FALLBACK_COUNT];
	_Atomic uint32_t ticket_kind;   /* enum ticket_kind */
	_Atomic uint64_t ticket_cookie; /* SO_COOKIE of the ticket's descriptor: how a receiver knows it */
	uint8_t ticket[TICKET_SIZE];    /* TICKET_PASSED: the socket, as src/sock/pass.c writes it */
	struct {
		struct req_ring req;
		struct grant_ring grant;
	} stack[]; /* one per stack */
};

/* What every process may know of a stack thread. */
struct stack_shared {
	_Alignas(64) _Atomic uint32_t sleeping; /* 1: a poster must write the stack's event fd */
	_Alignas(64) _Atomic uint64_t pending[ARENA_CLIENT_MAX / 64]; /* clients that posted */
	_Alignas(64) _Atomic uint32_t turn; /* turns so far; kept with loopback = pronk only */
	_Atomic uint32_t is_idle;           /* asleep, after a last look that found nothing */
};

/* Where time goes between port and program: what latency.h counts. */
enum latency_stage {
	LATENCY_RX_STACK, /* taken from the port -> published to the endpoint */
	LATENCY_RX_WAKE,  /* published -> the reader's thread is awake, if it slept */
	LATENCY_RX_READ,  /* awake, or else published -> read */
	LATENCY_RX,       /* taken from the port -> read */
	LATENCY_TX_WAIT,  /* written -> taken by the stack */
	LATENCY_TX_STACK, /* taken by the stack -> given to the port */
	LATENCY_TX,       /* written -> given to the port */
	LATENCY_STAGES
};

/* A sample under way. The one place for every LATENCY_MARKS-th endpoint, so who finds it taken does not
 * sample. */
struct latency_mark {
	_Alignas(64) _Atomic uint64_t tag; /* gen << 32 | endpoint + 1; 0: free; compare-and-swap */
	_Atomic uint64_t first_ns;         /* received, or written */
	_Atomic uint64_t second_ns;        /* published, or taken by the stack; 0: not yet */
	_Atomic uint32_t pos;              /* rx_bytes or tx_head behind the sampled bytes */
};

/* Of one stack. Everybody who serves or uses its endpoints writes. */
struct latency {
	struct latency_mark rx[LATENCY_MARKS], tx[LATENCY_MARKS];
	struct hist stage[LATENCY_STAGES];
};

struct arena_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size;
	uint64_t size;
	uint32_t stack_count;
	uint32_t endpoint_count;
	uint32_t client_count;
	uint32_t listener_count;
	uint32_t poller_count;
	uint32_t block_count;
	uint32_t rx_ring_count;
	uint64_t endpoints_off, rx_rings_off, tx_maps_off, listeners_off, pollers_off, clients_off, holds_off,
	        stacks_off, latency_off, blocks_off, reports_off;
	uint32_t listener_stride, client_stride, holds_stride;
	uint32_t huge;
	/* constant after start: what a client must know to decide "ours or libc" */
	int32_t service_pid;
	/* written by the control thread, also later (pronkctl set) */
	_Atomic uint32_t app_spin_us;
	_Atomic uint32_t send_buffer, receive_buffer;
	_Atomic uint32_t strict;
	_Atomic uint32_t latency;          /* 1: times are to be taken (latency.h) */
	_Atomic uint64_t latency_since_ns; /* CLOCK_REALTIME of what is counted; 0: nothing was yet */
	/* constant after start */
	uint32_t mtu;
	uint8_t address[4];
	uint32_t prefix;
	uint8_t gateway[4];
	uint32_t has_gateway;
	uint32_t loopback;              /* 1: 127.0.0.0/8 and the port's own address are served here */
	uint32_t is_inline;             /* the service is in one of the applications */
	_Atomic uint32_t stack_spin_us; /* control thread, also later */
	uint32_t reserved;
	/* address, prefix, MTU, and whether there is a gateway, as they are now: they follow the kernel's
	 * interface (doc/threads.md, "The port's address"). One word (arena_net), so that nobody sees a part
	 * of a change; the fields above are written beside it, for people to read. By the stack that takes a
	 * change over last. */
	_Atomic uint64_t net;
	char device[128];
	char name[32];               /* of the service */
	char socket[112];            /* its control socket's path */
	char log_file[256];          /* "stderr", or a path */
	uint64_t start_time_ns;      /* CLOCK_REALTIME */
	_Atomic uint32_t next_stack; /* round robin for outgoing connections */
	/* Client slots that were ever taken: a bit is set by who takes a slot, before it holds anything, and
	 * stays. So that looks at all who may hold something need not look at each slot. */
	_Alignas(64) _Atomic uint64_t clients_seen[ARENA_CLIENT_MAX / 64];
	/* by port number, written by stack 0 */
	_Atomic uint32_t port_used[65536 / 32];   /* TCP ports bound or listened on */
	_Atomic uint32_t port_listen[65536 / 32]; /* TCP ports somebody listens on */
	_Atomic uint32_t udp_used[65536 / 32];    /* UDP ports bound */
};
