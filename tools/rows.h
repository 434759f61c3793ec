/* rows.h - one socket as it was at one moment: what the commands that walk the arena's tables have in common.
 *
 * Read without locks from memory that is mapped read-only: each endpoint is copied once, and dropped when it
 * changed hands meanwhile. Indexes and lengths that a client may have written are checked.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "arena.h"

enum { ADDR_TEXT_SIZE = INET6_ADDRSTRLEN + 8, PROGRAM_SIZE = 32, REASON_SIZE = 96 };

/* A socket that Pronk serves. */
struct row {
	uint32_t idx, stack, state, tcp_state, owner; /* owner: client index, or UINT32_MAX */
	int32_t pid, fd;
	uint32_t uid;
	char program[PROGRAM_SIZE];
	bool is_dgram;
	struct sock_addr local, remote;
	uint32_t rx_queue, tx_queue, tx_unsent; /* of a listener: waiting connections, backlog, 0 */
	uint32_t tx_limit;                      /* bytes */
	uint32_t cwnd, rtt_us, rto_ms, retransmits, mss, snd_wnd, rcv_wnd, ssthresh;
	uint32_t drops; /* SOCK_DGRAM: found the receive buffer full */
	uint32_t timer; /* enum report_timer */
	int32_t timer_in_ms;
	uint32_t app_flags;
	uint64_t opt_flags; /* bits of enum ep_flag */
	int32_t opt[EPO_COUNT];
};

/* A socket that the kernel serves. */
struct kernel_row {
	int32_t pid, fd;
	uint16_t family, type;
	char program[PROGRAM_SIZE], reason[REASON_SIZE];
};

/* False when there is nothing to show. now_ms: CLOCK_MONOTONIC. */
bool row_read(const struct arena *a, uint32_t idx, uint32_t now_ms, struct row *r);
bool kernel_row_read(const struct arena *a, uint32_t client, uint32_t slot, struct kernel_row *r);

/* Client idx is attached; its process and program. */
bool client_read(const struct arena *a, uint32_t idx, int32_t *pid, char program[PROGRAM_SIZE]);

/* A connection: it has a congestion window, a round-trip time and so on. */
static inline bool row_is_conn(const struct row *r)
{
	return r->state == EP_ESTABLISHED || r->state == EP_CONNECTING;
}

static inline bool row_flag(const struct row *r, enum ep_flag bit)
{
	return r->opt_flags >> bit & 1;
}

const char *row_state_name(const struct row *r);
/* The n-th name that row_state_name may return; NULL behind the last. */
const char *state_name_at(uint32_t n);
const char *timer_name(uint32_t timer);
const char *family_name(uint16_t family);
const char *type_name(uint16_t type);
/* "A.B.C.D:PORT", "[ADDR]:PORT", or "*" when there is none. */
void addr_text(const struct sock_addr *a, char *buf, size_t size);
/* The address alone. False when there is none. */
bool addr_ip_text(const struct sock_addr *a, char *buf, size_t size);
/* "8ms", "9.6sec", "119min", "2days" */
void span_text(int64_t ms, char *buf, size_t size);

/* Milliseconds of CLOCK_MONOTONIC, as stacks count them. */
uint32_t now_ms_get(void);
