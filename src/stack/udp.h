/* udp.h - datagram endpoints inside the stacks. All of it runs in a stack's thread and never blocks.
 *
 * An endpoint lives at one stack, its home: there is its struct conn (without a pcb), there its rings are
 * worked. Every stack has an entry for it in its table, so that each can tell whose a received datagram is;
 * one that is another stack's is handed over to it. Stack 0's table is the truth about ports. doc/threads.md,
 * "Datagrams".
 */
#pragma once
#include "stack_int.h"

enum {
	UDP_HASH = 1024, /* power of two */
	UDP_GROUPS = 20, /* groups an endpoint may join (igmp_max_memberships) */
	DGRAM_SIZE_MAX = 65507,
	DGRAM_FRONT = 128,     /* bytes that dgram_meta and a message take in front of the payload, at most */
	UDP_TX_BURST = 64,     /* datagrams an endpoint sends in one turn */
	UDP_TX_ROOM = 128,     /* frames the port must take before a datagram is begun */
	UDP_HANDED_MAX = 4096, /* datagrams on their way to one stack */
	UDP_RCVBUF = 212992,   /* net.core.rmem_default */
	UDP_RCVBUF_MIN = 2304, /* SOCK_MIN_RCVBUF */
	UDP_PIECE_CHARGE = 768, /* what the smallest piece takes of the receive limit, as the kernel's skbs */
	GROUP_COUNT = 256,      /* groups that all endpoints together may join */
};

/* One stack's entry for an endpoint. Made by its home, afterwards read and written by that stack only. */
struct udp_entry {
	_Alignas(64) struct udp_entry *next;
	uint32_t ep;
	uint32_t ip, remote_ip; /* network order, 0: any */
	uint16_t port, remote_port;
	uint8_t flags; /* CALL_F_* */
	uint8_t is_linked;
	/* stack 0 */
	uint8_t group_count;
	uint32_t group[UDP_GROUPS];
};

/* The datagram part of a connection; home's thread. */
struct udp {
	struct fan_out
	        *end;       /* takes the entries away; kept from the start, so that closing needs no memory */
	uint32_t bound_ip;  /* as bind(2) said */
	uint32_t rx_used;   /* what the pieces in ring and list are charged */
	uint32_t rx_limit;  /* SO_RCVBUF */
	uint32_t rx_pieces; /* packet buffers in ring and list */
	uint32_t tx_end;    /* after release: where what was written ends */
	uint8_t is_opening; /* bind is not answered yet */
	uint8_t is_unlinked;  /* no stack knows it any more */
	uint8_t is_broken;    /* its client wrote nonsense into the send ring: nothing is sent any more */
	uint8_t is_again;     /* on the list of endpoints with more to send */
	uint64_t received_ns; /* of what is not published yet, when times are taken: the first; else 0 */
	uint8_t is_fresh;     /* on the list of endpoints with something to publish */
	struct conn *again_next, *fresh_next;
	struct udp_entry entry[]; /* one for each stack */
};

/* --- udp.c: the life of an endpoint, ports and the table --- */
/* CALL_BIND for SOCK_DGRAM, CALL_CONNECT and CALL_GROUP naming a datagram endpoint: 1 = will be answered
 * later, or -E. */
int dgram_bind(struct stack *s, uint32_t client, uint32_t call_idx, const struct call *call);
int dgram_connect(struct stack *s, uint32_t client, uint32_t call_idx, const struct call *call);
int dgram_group(struct stack *s, uint32_t client, uint32_t call_idx, const struct call *call);
/* Looks at the options that matter here; does nothing for other connections. */
void udp_options(struct stack *s, struct conn *c);
/* Nobody holds it any more: sends what was written (unless how says RELEASE_ABORT), then frees everything. */
void udp_release(struct stack *s, struct conn *c, uint32_t how);
/* Frees the memory of an endpoint whose stacks have ended. Control thread. */
void udp_forget(struct conn *c);
/* Frees a released endpoint when nothing of it is left to do. */
void udp_finish(struct stack *s, struct conn *c);
/* The entry for a datagram (addresses in network order), or NULL: udp(7), and the kernel's order of
 * preference. */
struct udp_entry *udp_find(struct stack *s, uint32_t dst, uint16_t dport, uint32_t src, uint16_t sport);
/* Whether an entry takes a broadcast or group datagram. */
bool udp_takes(const struct udp_entry *e, uint32_t dst, uint16_t dport, uint32_t src, uint16_t sport);
/* A connected endpoint of this stack learns of an error; err is a positive errno. */
void udp_error(struct stack *s, uint32_t ep_idx, int err);

/* --- udp_in.c: received datagrams --- */
/* To every endpoint that wants it; p is the payload and is taken. Returns how many. */
uint32_t udp_deliver_all(struct stack *s, struct dgram_meta *m, struct pbuf *p);
/* A frame from the port, behind the checks that every one gets: true when it was a datagram that is delivered
 * (and taken), false when it is for lwIP to look at. */
bool udp_input_plain(struct stack *s, struct nic_frame *f);
/* Publishes what this turn has brought. */
void udp_publish_all(struct stack *s);
/* The endpoint is about to be freed. */
void udp_unpublish(struct stack *s, struct conn *c);
/* Frees what the reader has read, and publishes what waits. */
void udp_reclaim(struct stack *s, struct conn *c);

/* --- udp_out.c: datagrams from the send ring --- */
void udp_pump(struct stack *s, struct conn *c);
/* Endpoints that had more to send than a turn took: marks them for this one. Returns whether there are any
 * that the port does not keep waiting. */
bool udp_pump_again(struct stack *s);

/* --- group.c: multicast groups (stack 0 keeps them, every stack may look) --- */
int group_create(struct stack *s);
/* Stack 0's thread. 0, -ENOBUFS: too many. */
int group_join(struct stack *s, uint32_t ip);
void group_leave(struct stack *s, uint32_t ip);
/* Whether anybody has joined. Any stack's thread. */
bool group_is_joined(const struct stack *s, uint32_t ip);
/* An IGMP packet (RFC 2236), whole and with a good IP header. Any stack's thread. */
void group_input(struct stack *s, const uint8_t *ip, uint32_t size);
/* Stack 0, once a second. */
void group_tick(struct stack *s);

/* --- icmp.c --- */
int icmp_create(struct stack *s);
/* Whether an error message may go to this address now (RFC 1812 4.3.2.8). */
bool icmp_may_send(struct stack *s, uint32_t to);
