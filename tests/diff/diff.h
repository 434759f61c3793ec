/* diff.h - the randomised differential test: what its files share.
 *
 * diff.c drives (seed ranges, workers that crash or hang), world.c holds the model and the trace, peer.c is
 * the other end, ops_call.c, ops_data.c, ops_epoll.c, ops_wait.c and ops_udp.c are the operations. README.md
 * has the design.
 *
 * One thread (the "main" thread of a worker) runs everything that is declared here, unless a comment says
 * otherwise.
 */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

enum {
	SLOTS = 12,    /* descriptors that a sequence may hold at a time */
	OBJS = 64,     /* open files of a sequence, ended ones included */
	QUEUE_MAX = 8, /* connections that wait at one of our listeners */
	PORTS = 3,     /* port numbers that belong to a sequence */
	TRACE_MAX = 1 << 18,
	PEERS = 80,        /* sockets of the peer */
	PIECE_MAX = 8000,  /* bytes in one transfer; so no buffer of either side ever fills up by chance */
	LEVEL_MAX = 24000, /* bytes on their way in one direction that nobody has read */
	LIMIT_MS = 5000,   /* what takes longer is a lost wake-up */
	LOST_WAKE_UP = 4,  /* a worker's exit status */
	FLAVOURS = 6,
	TCP_FLAVOURS = 5 /* those that a seed chooses from; datagrams are asked for */
};

enum kind { KIND_NONE, KIND_TCP, KIND_EPOLL, KIND_PIPE_READ, KIND_PIPE_WRITE, KIND_UDP };
enum state { STATE_FRESH, STATE_BOUND, STATE_LISTEN, STATE_CONNECTING, STATE_CONNECTED, STATE_ENDED };

/* An open file, as far as the generator must know it: to choose calls that do not block, and to know how much
 * is on its way. Whether a call succeeds is not modelled: that is what the kernel is asked. */
struct obj {
	int refs, domain, port;
	enum kind kind;
	enum state state;
	int peer;       /* the peer's socket, or -1 */
	int peer_port;  /* its port */
	size_t in, out; /* bytes sent and not read, towards us and towards the peer */
	bool has_fin_in, has_fin_out, is_broken, is_shut_rd, is_local, has_stale_name, was_bound,
	        has_listened, is_fin_acked;
	int queue[QUEUE_MAX], queue_port[QUEUE_MAX], queued, backlog;
	unsigned int members; /* KIND_EPOLL: bit for each slot that was added */
	bool has_inner;       /* KIND_EPOLL: another set is a member */
	int outer;            /* KIND_EPOLL: member of so many sets */
	char seen[64];        /* the peer's view, as last printed */
	bool is_edge;         /* is or was an edge-triggered member of a set */
	bool was_let_go;      /* KIND_UDP: connect(AF_UNSPEC) has taken its port */
	bool is_corked;       /* KIND_UDP: a datagram is being put together, for cork_to */
	bool has_cork;        /* ... UDP_CORK is set */
	int dest, cork_to;    /* KIND_UDP: 0 nobody, 1 and 2 the peer's sockets, 3 somebody else */
	size_t cork_size;
};

struct slot {
	int fd; /* -1: empty */
	int obj;
	unsigned int serial;
	short seen; /* poll's answer, as last printed */
};

/* In memory that a forked child shares, so that what a child does is known afterwards. */
struct world {
	struct slot slots[SLOTS];
	struct obj objs[OBJS];
	int obj_count;
	unsigned int serial;
	int first_port;
};
extern struct world *world;

/* What the driver shares with a worker. */
struct report {
	_Atomic uint64_t seed;  /* that the worker is at */
	_Atomic uint32_t steps; /* grows as long as it gets on */
	uint32_t size;
	char trace[TRACE_MAX];
};
extern struct report *report;

struct setup {
	struct in_addr own, peer;
	const char *control; /* path of the peer's socket */
	int flavour;         /* -1: chosen by the seed */
};
extern struct setup setup;

/* --- chance (world.c) --- */

/* The numbers of operation step of sequence seed; so one operation can be left out without changing the
 * others. */
void chance_start(uint64_t seed, uint32_t step);
/* 0 .. n-1 */
uint32_t chance(uint32_t n);
bool percent(uint32_t n);

/* --- trace (world.c) --- */

/* Appends to the trace. A child of fork(2) may, while its parent waits. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Appends "=rc" or "=ENAME"; returns rc, keeps errno. */
long say_rc(long rc);
void say_events(unsigned int events);
void say_addr(const struct sockaddr *addr, socklen_t len, int peer_port);
uint32_t hash_of(const void *data, size_t size);
/* Appends what the signal handler has counted since the last time, if anything. */
void say_signals(void);

/* --- slots (world.c) --- */

typedef bool (*slot_test)(const struct slot *s);
/* A slot that passes the test, by chance; -1: none does. */
int slot_pick(slot_test test);
int slot_free(void);
struct obj *obj_of(int slot);
/* A new open file in a free slot; the slot. fd >= 0 and a slot that is free are the caller's duty. */
int slot_open(int fd, enum kind kind, int domain);
/* fd is one more number for the open file of slot like. */
int slot_share(int fd, int like);
/* The number has gone (the caller closed it); ended: that was the last of its file. */
bool slot_gone(int slot);
bool is_tcp(const struct slot *s);
bool is_any(const struct slot *s);
bool is_connected(const struct slot *s);
bool is_healthy(const struct slot *s); /* connected, nothing has ended, nothing to read */
bool is_listening(const struct slot *s);
bool is_fresh(const struct slot *s);
bool is_epoll(const struct slot *s);

/* --- the other end (world.c) --- */

enum verb {
	PEER_HELLO,
	PEER_ACCEPT,
	PEER_CONNECT,
	PEER_SEND,
	PEER_RECV,
	PEER_SHUT,
	PEER_CLOSE,
	PEER_RESET,
	PEER_PROBE,
	PEER_FORGET,
	PEER_DRAIN,
	PEER_UDP_PORT, /* id: 0 or 1, which of its datagram sockets; the answer's value is its port */
	PEER_UDP_SEND, /* value: port and size << 16 */
	PEER_UDP_TAKE  /* value: datagrams that will come; rc: those that came, value: the last one's port */
};
struct peer_cmd {
	int verb, id, value, delay_us;
	uint32_t key; /* of the bytes to send */
};
struct peer_answer {
	int rc; /* or -errno */
	int value;
	uint32_t hash, size;
	int end; /* what ended a reading: 0 nothing, 1 end of stream, or an errno */
};
struct peer_answer peer_do(enum verb verb, int id, int value);
void peer_go(enum verb verb, int id, int value, int delay_us);
struct peer_answer peer_get(void);

/* Waits until all that both sides have sent so far has arrived: one byte to the peer and back on a connection
 * that is there for this only. Both paths keep the order. */
void barrier(void);
/* Waits (0.4 s) until poll shows one of events: an end or a reset that is sure to come, and that the barrier
 * may overtake where its sender moves to another processor in between. */
void end_wait(int fd, short events);
/* barrier, then says how the peer sees the connection of the file, if that changed. */
void settle(struct obj *o);
/* How the peer sees its connection id, once bytes can be read there and what shall come has come: with end 1
 * an end, with 2 a reset. Said unless it is what seen holds. */
void peer_view(int id, size_t bytes, int end, char *seen, size_t seen_size);
/* Says poll's answer for every slot where it changed. */
void probe(void);

void nap_us(long us);
bool is_blocking(int fd);
int readable(int fd); /* FIONREAD, 0 when it fails */
short poll_now(int fd, short events);

/* The port of this sequence for a kind of address: 0 our own, 1 any, 2 loopback. Each has its own: that a
 * wildcard and Pronk's address exclude each other on one port is found at listen, by the kernel at bind
 * (README.md). */
int port_for(int address);
/* Connects a new socket to the peer, ready for use, and says nothing; the slot or -1. */
int connection_make(int domain, bool is_nonblocking);
/* A new listener of ours; the slot or -1. */
int listener_make(int domain, bool is_wildcard);
/* Tells the peer to connect to the listener; its connection waits there then. */
void listener_call(struct obj *o);
/* Takes note of an accepted connection: the slot. */
int accepted(int fd, struct obj *listener);

/* Worker: connects to the peer. */
void world_open(void);
void world_reset(uint64_t seed);
/* Ends all that a sequence has left. */
void world_close(void);

/* --- operations --- */

struct op {
	const char *name;
	void (*run)(void);
	uint8_t weight[FLAVOURS]; /* for each flavour of sequence: mixed, setup, data, sets, threads, udp */
};
extern const struct op ops_call[], ops_data[], ops_epoll[], ops_wait[], ops_udp[]; /* end with name NULL */
/* Data that a child of fork may do: a transfer either way, an end, by chance. */
void op_data_any(void);

/* peer.c: serves control sockets, for ever. */
int peer_main(const char *path);
