/* peer.h - a tiny TCP peer: builds segments by hand and looks at those that the stack sends to it. It decides
 * nothing by itself; it only keeps count of sequence numbers.
 */
#pragma once
#include "rig.h"

struct peer {
	struct rig *r;
	uint32_t ip, to; /* its own address, and the stack's */
	uint16_t port, local_port;
	uint32_t iss, snd, rcv; /* first, next to send, next expected */
	uint32_t irs;           /* the stack's first */
	uint16_t wnd;           /* as written into the header */
	int mss, wscale;        /* offered in a SYN; -1: not */
	bool sack_ok;
};

/* MSS 1460, no scaling, no SACK, window 65535. */
void peer_init(struct peer *p, struct rig *r, uint16_t port, uint16_t local_port);

/* Any segment at all. opt_size is a multiple of 4. Turns run, unless the function is called peer_inject. */
void peer_raw(struct peer *p, uint8_t flags, uint32_t seq, uint32_t ack, const void *opt, uint32_t opt_size,
        const void *data, uint32_t size);
void peer_inject(struct peer *p, uint8_t flags, uint32_t seq, uint32_t ack, const void *opt,
        uint32_t opt_size, const void *data, uint32_t size);

/* The next segment of the conversation; snd moves. A SYN carries the options of the peer. */
void peer_send(struct peer *p, uint8_t flags, const void *data, uint32_t size);
/* size bytes of the pattern, as they come at this place of the stream. */
void peer_data(struct peer *p, uint32_t size);
/* Pattern bytes at an offset of the stream, whatever was sent before; snd stays. */
void peer_data_at(struct peer *p, uint32_t off, uint32_t size);
void peer_ack(struct peer *p);

/* The oldest segment sent to this peer that was not taken yet, or NULL. rcv moves if it is the one expected.
 */
struct seg *peer_next(struct peer *p);

/* The next segment must be there and must be this; PSH is not looked at. Sequence numbers are absolute. */
struct seg *expect_at(struct peer *p, uint8_t flags, uint32_t seq, uint32_t size, const char *file, int line);
#define expect(p, flags, seq, size) expect_at(p, flags, seq, size, __FILE__, __LINE__)
void expect_none_at(struct peer *p, const char *file, int line);
#define expect_none(p) expect_none_at(p, __FILE__, __LINE__)
/* Throws away what was sent to the peer. */
void peer_skip(struct peer *p);

/* A whole handshake. accepted: the peer opens, a listener on local_port exists. connected: the application
 * does. The endpoint. */
uint32_t peer_open(struct peer *p, uint32_t listener);
uint32_t peer_answer(struct peer *p, struct rig *r, uint16_t port);
/* A listener on port 80 and a connection from port 40000 to it. The connection's endpoint. */
uint32_t peer_pair(struct peer *p, struct rig *r);
/* The same with a peer that offers this window. */
uint32_t peer_pair_window(struct peer *p, struct rig *r, uint16_t wnd);

/* Takes everything the stack has sent, checks its bytes, acknowledges what continues the stream at offset
 * off, until nothing more comes. Returns the offset reached. */
uint32_t peer_drain(struct peer *p, uint32_t off);
