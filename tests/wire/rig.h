/* rig.h - the stand of the wire tests: one or two stacks over the fake port, an arena, clients made by hand,
 * and a clock that only the test moves.
 *
 * Everything runs in the test's thread except the turns of the second stack, which has a thread of its own
 * (lwIP's state is per thread) and runs in lock step with it. rig_end, the teardown of every test, kills the
 * clients, lets peers reset what is left and then proves that nothing has leaked.
 */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "stack_int.h"
#include "attach.h"
#include "nic_fake.h"
#include "lwip_mem.h"

enum { RIG_STACKS = 2, RIG_CLIENTS = 2, RIG_FRAME_MAX = 1514, RIG_NEAR_MAX = 61504 };

/* Flags of a segment. */
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

/* A TCP segment that the stack sent. */
struct seg {
	struct seg *next;
	uint64_t ms; /* when */
	uint32_t stack, dst_ip;
	uint16_t src, dst, wnd;
	uint8_t flags, sack_count;
	uint32_t seq, ack, size;
	int mss, wscale; /* -1: no such option */
	bool sack_ok, is_taken;
	struct {
		uint32_t left, right;
	} sack[4];
	uint8_t data[];
};

/* A packet of another protocol that the stack sent. */
struct packet {
	struct packet *next;
	uint32_t stack, size;
	uint8_t ip[RIG_FRAME_MAX]; /* from the IP header on */
};

/* What a test may change; all zero is the usual. */
struct rig_spec {
	uint32_t stacks;             /* 1 */
	uint32_t endpoints;          /* 64 for each stack */
	uint32_t block_memory;       /* 4 MB for each stack */
	uint32_t receive_buffer;     /* 262144 */
	uint32_t receive_buffer_max; /* receive_buffer: windows do not grow */
	uint32_t send_buffer;        /* 524288 */
	uint32_t time_wait_ms;       /* 1000 */
	uint32_t rto_min_ms;         /* 20 */
	uint32_t delayed_ack_ms;     /* 5 */
	uint64_t start_ms;           /* 1000000 */
	bool no_gateway;
	bool loopback; /* = pronk */
	bool near;     /* neighbours are at the other end of the same shared memory, and say so */
};

struct rig_thread;

struct rig {
	struct nic *nic;
	struct arena arena;
	struct cfg cfg;
	void *segment;
	struct stack *stack[RIG_STACKS];
	struct stat_block *stats[RIG_STACKS];
	_Atomic int *poller_fds;
	struct attach at[RIG_CLIENTS];
	bool is_gone[RIG_CLIENTS];
	uint32_t address, gateway; /* what the stacks should have; RIG_ADDRESS and RIG_GATEWAY at first */
	uint32_t fixed;            /* a neighbour with an address of its own choice */
	uint8_t fixed_mac[6], last_mac[6]; /* ... and where the last packet went */
	uint32_t cl;                       /* the client that the app_ functions play */
	uint32_t stacks;
	uint64_t now_ns;
	bool arp_is_silent, nothing_is_checked, is_woken, is_near;
	uint32_t arp_requests, arp_replies, other_frames;
	uint8_t other[RIG_FRAME_MAX]; /* the last frame that was neither ARP nor TCP */
	uint32_t other_size;
	struct packet *packets, **packets_tail; /* all of them, until a test takes them */
	uint64_t bad_expected; /* bad_client_input must be this at the end; UINT64_MAX: any */
	struct seg *segs, **segs_tail;
	struct rig_thread *thread;
	uint32_t frame_errors;
	char frame_error[128];
};

#define RIG_ADDRESS 0x0a010001u /* 10.1.0.1/16 */
#define RIG_GATEWAY 0x0a0100feu
#define RIG_PEER 0x0a010002u

/* Makes the stand. Every test calls it first. */
struct rig *rig_up(const struct rig_spec *spec);

/* cmocka teardown. */
int rig_end(void **state);

#define WIRE_TEST(name) cmocka_unit_test_teardown(name, rig_end)

/* Runs turns at the present time until nothing is left to do, answers ARP, takes what was sent. */
void rig_turn(struct rig *r);
/* Moves the clock by ms, a turn for each millisecond. */
void rig_run(struct rig *r, uint32_t ms);
/* Moves the clock by ms in steps of step milliseconds. */
void rig_jump(struct rig *r, uint32_t ms, uint32_t step);
static inline uint64_t rig_ms(const struct rig *r)
{
	return r->now_ns / 1000000;
}

/* A frame arrives (checksums filled in), and turns run. inject only: no turn. */
void rig_frame(struct rig *r, const void *frame, uint32_t size);
void rig_inject(struct rig *r, uint32_t queue, const void *frame, uint32_t size);
/* An ARP packet of a neighbour. op 1 asks for target, op 2 answers. */
void rig_arp(struct rig *r, uint32_t op, uint32_t sender, uint32_t target);
void rig_mac(uint32_t ip, uint8_t mac[6]);

/* The oldest packet that was neither ARP nor TCP; the caller frees it. NULL: none. */
struct packet *rig_packet(struct rig *r);

uint64_t rig_stat(const struct rig *r, enum stat_id id);
/* Connections that the stacks know, in whatever state. */
uint32_t rig_conns(const struct rig *r);

/* --- the client --- */
struct endpoint *app_ep(const struct rig *r, uint32_t ep);
/* Fills a call slot, posts it and runs turns until it is answered. The call's result. */
int app_call(struct rig *r, uint32_t stack, struct call *c);
/* Endpoint index, or -E. */
int app_bind(struct rig *r, uint16_t port, uint32_t flags);
int app_listen(struct rig *r, uint16_t port, int backlog);
int app_connect(struct rig *r, uint32_t ip, uint16_t port);
/* The same with all there is to say: address (0: wildcard) and port, where from, which stack is asked first.
 */
int app_bind_at(struct rig *r, uint32_t ip, uint16_t port, uint32_t flags);
int app_listen_at(struct rig *r, uint32_t ip, uint16_t port, uint32_t flags);
int app_connect_from(
        struct rig *r, uint32_t stack, uint32_t from, uint16_t from_port, uint32_t ip, uint16_t port);
uint32_t app_accept(struct rig *r, uint32_t listener); /* ENDPOINT_NONE: none waits */
uint32_t app_write(struct rig *r, uint32_t ep, const void *data, uint32_t size); /* bytes taken */
uint32_t app_put(struct rig *r, uint32_t ep, const void *data,
        uint32_t size); /* the same, without doorbell and turn */
uint32_t app_read(struct rig *r, uint32_t ep, void *data, uint32_t size); /* bytes read */
uint32_t app_get(
        struct rig *r, uint32_t ep, void *data, uint32_t size); /* the same, without doorbell and turn */
void app_shutdown(struct rig *r, uint32_t ep, int how);
void app_close(struct rig *r, uint32_t ep);
void app_release(struct rig *r, uint32_t ep, uint32_t how);
void app_post(struct rig *r, uint32_t stack, uint64_t entry);
void app_flags(struct rig *r, uint32_t ep, uint32_t flags);
void app_setopt(struct rig *r, uint32_t ep, enum ep_opt slot, int32_t value);
void app_setflag(struct rig *r, uint32_t ep, enum ep_flag bit, bool on);
/* The process dies. */
void app_die(struct rig *r, uint32_t client);

/* Bytes of a stream from offset off on, different at every place; and the check. */
void pattern_fill(uint8_t *buf, uint32_t off, uint32_t size);
void pattern_check_at(const uint8_t *buf, uint32_t off, uint32_t size, const char *file, int line);
#define pattern_check(buf, off, size) pattern_check_at(buf, off, size, __FILE__, __LINE__)
