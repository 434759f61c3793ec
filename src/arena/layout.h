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

#define ARENA_MAGIC 0x4152454e4b4f5250ull /* "PRONKERA", little endian */

enum {
	ARENA_VERSION = 1,
	ARENA_STACK_MAX = 16,
	ARENA_CLIENT_MAX = 1024,
	ARENA_LISTENER_MAX = 128,
	ARENA_POLLER_MAX = 8192,
	ARENA_REGION_MAX = 32,

	RX_RING_SIZE = 64,       /* published pieces of received data per endpoint; power of two */
	TX_BLOCK_SIZE = 16384,   /* bytes; power of two */
	TX_BLOCK_COUNT = 64,     /* blocks an endpoint's send ring may span: 1 MB; power of two */
	ACCEPT_RING_SIZE = 1024, /* connections waiting per listener and stack; power of two */
	WATCH_INLINE = 4,        /* watchers per endpoint ... */
	WATCH_LISTENER = 124,    /* ... and as many more per listener */
	REQ_RING_SIZE = 4096,    /* posts per client and stack; power of two */
	CALL_COUNT = 32,         /* synchronous requests a client may have at a time */
	GRANT_RING_SIZE = 1024,  /* send blocks granted to a client and not yet used; power of two */
	FALLBACK_COUNT = 128,    /* remembered sockets per client that the kernel serves */
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
	uint32_t reserved;
};

/* A watch: "tell this poller when this endpoint has these events". The word changes only by compare-and-swap.
 */
struct watch {
	_Atomic uint64_t word; /* WATCH_* fields below; 0 = free */
	_Atomic uint32_t next; /* link in the poller's ready list, index + 1; valid while queued */
	uint32_t reserved;
};

#define WATCH_QUEUED (1ull << 63) /* on its poller's ready list, or about to be */
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

struct endpoint {
	/* written by the stack, read by the app; hot */
	_Alignas(64) _Atomic uint32_t rx_head; /* pieces published */
	_Atomic uint32_t rx_bytes;             /* bytes published, modulo 2^32 */
	_Atomic uint32_t
	        tx_tail; /* send ring position up to which bytes are acknowledged and blocks are taken back */
	_Atomic uint32_t flags;
	_Atomic uint32_t state;
	_Atomic int32_t error;   /* errno of the last failure; the app takes it by exchange with 0 */
	_Atomic uint32_t rx_gen; /* receive-side events so far (edge detection) */
	_Atomic uint32_t tx_gen; /* send-side events so far */
	uint32_t gen;            /* changes each time the endpoint is opened anew */
	uint16_t stack_idx;      /* constant */
	uint16_t kind;           /* SOCK_STREAM */
	uint32_t listener;       /* index of its listener record, or UINT32_MAX */
	uint32_t parent;         /* listener endpoint a connection was accepted from, or ENDPOINT_NONE */
	_Atomic uint32_t reserved0[4];

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
	_Atomic uint32_t reserved1[3];

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
	_Atomic uint32_t creator; /* client that opened it, or that accepted it */

	/* written by the app under tx_lock before tx_head moves into the block; read by the stack */
	_Alignas(64) _Atomic uint32_t tx_block[TX_BLOCK_COUNT];
};

/* endpoint.app_flags */
enum {
	APP_NODELAY = 1 << 0,
	APP_CORK = 1 << 1,
	APP_SHUT_RD = 1 << 2,
	APP_SHUT_WR = 1 << 3,
	APP_KEEPALIVE = 1 << 4,
	APP_NONBLOCK = 1 << 5, /* O_NONBLOCK: shared like an open file description's */
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
	struct watch watch[WATCH_LISTENER];
	struct accept_ring ring[]; /* one per stack */
};

/* Who sleeps: an epoll instance, or a thread in a blocking call. */
struct poller {
	_Alignas(64) _Atomic uint32_t ready; /* ready list: watch index + 1, newest first; 0 = empty */
	_Atomic uint32_t
	        sleeping; /* threads that sleep or are about to; whoever takes it to 0 writes the event fd */
	_Atomic uint32_t owner; /* client index + 1; 0 = free */
	_Atomic uint32_t reserved[13];
};

/* Post ring entry: op << 56 | arg << 32 | index. */
enum post_op {
	POST_NONE,
	POST_DOORBELL, /* index: endpoint */
	POST_CALL,     /* index: call slot */
	POST_RELEASE,  /* index: endpoint; arg: RELEASE_* */
	POST_SHUTDOWN, /* index: endpoint; arg: SHUT_RD, SHUT_WR, SHUT_RDWR */
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

enum call_op { CALL_BIND = 1, CALL_LISTEN, CALL_CONNECT, CALL_LINGER, CALL_SETOPT };
enum call_state { CALL_FREE, CALL_TAKEN, CALL_POSTED, CALL_DONE };

/* call.opt of CALL_SETOPT */
enum {
	OPT_RCVBUF = 1,
	OPT_KEEPIDLE,
	OPT_KEEPINTVL,
	OPT_KEEPCNT,
	OPT_KEEPALIVE,
	OPT_USER_TIMEOUT,
	OPT_TOS,
	OPT_TTL
};

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
	uint32_t reserved[4];
};
enum { CALL_F_REUSEADDR = 1, CALL_F_REUSEPORT = 2 };

/* A socket that the kernel serves, and why. */
struct fallback {
	_Atomic int32_t fd; /* -1 = no entry */
	uint16_t family, type;
	char reason[88];
};

enum client_state { CLIENT_FREE, CLIENT_FORKING, CLIENT_ACTIVE, CLIENT_DEAD };

/* One attached process. */
struct client {
	_Alignas(64) _Atomic uint32_t state;
	_Atomic int32_t pid;
	_Atomic uint32_t gen;
	_Atomic uint32_t stacks_done; /* stacks that have dropped this dead client */
	char program[32];
	struct call call[CALL_COUNT];
	struct fallback fallback[FALLBACK_COUNT];
	struct {
		struct req_ring req;
		struct grant_ring grant;
	} stack[]; /* one per stack */
};

/* What every process may know of a stack thread. */
struct stack_shared {
	_Alignas(64) _Atomic uint32_t sleeping; /* 1: a poster must write the stack's event fd */
	_Alignas(64) _Atomic uint64_t pending[ARENA_CLIENT_MAX / 64]; /* clients that posted */
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
	uint64_t endpoints_off, rx_rings_off, listeners_off, pollers_off, clients_off, holds_off, stacks_off,
	        blocks_off;
	uint32_t listener_stride, client_stride, holds_stride;
	uint32_t huge;
	/* constant after start: what a client must know to decide "ours or libc" */
	int32_t service_pid;
	uint32_t app_spin_us;
	uint32_t send_buffer, receive_buffer;
	uint32_t strict;
	uint32_t mtu;
	uint8_t address[4];
	uint32_t prefix;
	uint8_t gateway[4];
	uint32_t has_gateway;
	char device[128];
	uint64_t start_time_ns;                 /* CLOCK_REALTIME */
	_Atomic uint32_t next_stack;            /* round robin for outgoing connections */
	_Atomic uint32_t port_used[65536 / 32]; /* ports bound or listened on, written by stack 0 */
};
