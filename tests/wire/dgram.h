/* dgram.h - datagrams in the wire tests: the client's side of an endpoint, and packets of a peer made by
 * hand.
 */
#pragma once
#include "peer.h"
#include "udp.h"

/* CALL_BIND with everything; ip 0 is the wildcard. Endpoint index, or -E. Round robin over the stacks. */
int dg_bind_at(struct rig *r, uint32_t stack, uint32_t ip, uint16_t port, uint32_t flags, uint32_t rcvbuf);
/* At stack 0, with defaults. */
int dg_bind(struct rig *r, uint32_t ip, uint16_t port);
int dg_connect(struct rig *r, int ep, uint32_t ip, uint16_t port); /* port 0 and ip 0: dissolves */
int dg_group(struct rig *r, int ep, uint32_t ip, bool join);

void dg_rcvbuf(struct rig *r, int ep, int32_t size);

/* A record in the send ring and a doorbell; bytes are the pattern from offset 0. False: no room. */
bool dg_send(struct rig *r, int ep, uint32_t ip, uint16_t port, uint32_t size);
bool dg_send_flags(struct rig *r, int ep, uint32_t ip, uint16_t port, uint32_t size, uint16_t flags);
/* Any record; no turn. */
bool dg_put(struct rig *r, int ep, const struct dgram_head *h, const void *data, uint32_t size);
void dg_head(struct dgram_head *h, uint32_t ip, uint16_t port, uint32_t size);

/* Takes the oldest datagram: payload into data (room for 65536), meta. Its size, or -1: none is there. */
int dg_recv(struct rig *r, int ep, void *data, struct dgram_meta *m);
/* The next datagram must be these bytes of the pattern, from this port of the peer. */
void dg_expect_at(
        struct rig *r, int ep, uint16_t from_port, uint32_t off, uint32_t size, const char *file, int line);
#define dg_expect(r, ep, from_port, off, size) dg_expect_at(r, ep, from_port, off, size, __FILE__, __LINE__)
#define dg_expect_none(r, ep) assert_int_equal(dg_recv(r, ep, NULL, NULL), -1)

/* A datagram of the peer: size bytes of the pattern from off on. Cut at mtu when that is not 0. */
struct dg_peer {
	struct rig *r;
	uint32_t src, dst;
	uint16_t sport, dport;
	uint32_t off; /* of the pattern */
	uint32_t mtu, queue;
	bool no_cksum, bad_cksum;
	uint32_t skip; /* fragment not to send, counted from 1 */
	bool backwards;
};
void dg_arrive(struct dg_peer *p, uint32_t size);
/* The usual: from RIG_PEER:9000 to RIG_ADDRESS:port. */
void dg_peer(struct dg_peer *p, struct rig *r, uint16_t port);

/* The UDP datagram that the stack sent next (put together if it was cut): payload into data. Its size, or -1.
 * src/dst addresses and ports are filled in. Checks checksums. */
int dg_sent(struct rig *r, void *data, struct dg_peer *p);
