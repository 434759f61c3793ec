/* latency.h - where time goes between the port and the program: taking the times.
 *
 * Off, who publishes, reads or writes looks at one word that nobody writes. On, one piece of data at a time
 * of each endpoint and direction is followed: whoever has it next adds the time of its stage to the stack's
 * histograms. It is a sample, as a stream's next piece is marked when the last one has arrived; a request or
 * a reply that waits for nothing is always in it. Times are CLOCK_MONOTONIC's, the same in all processes.
 * doc/threads.md, "Latency".
 */
#pragma once
#include "arena.h"
#include "compiler.h"

static inline bool latency_is_on(const struct arena *a)
{
	return unlikely(atomic_load_explicit(&a->hdr->latency, memory_order_relaxed) != 0);
}

/* Stack: what ends at pos (rx_bytes) is about to be published; it was taken from the port at received_ns. */
void latency_published(const struct arena *a, const struct endpoint *ep, uint32_t pos, uint64_t received_ns);
/* App, with rx_lock: bytes up to pos (rx_read) have been read. */
void latency_read(const struct arena *a, const struct endpoint *ep, uint32_t pos);
/* App: the calling thread has slept for a socket, and is awake. */
void latency_awake(void);
/* App, with tx_lock: bytes up to pos (tx_head) have been written. */
void latency_written(const struct arena *a, const struct endpoint *ep, uint32_t pos);

/* The times of what was written and has gone to the port's queue. */
struct latency_sent {
	uint64_t written_ns, taken_ns;
};

/* Stack: what the endpoint's ring has up to head is being worked on. */
void latency_taken(const struct arena *a, const struct endpoint *ep, uint32_t head);
/* Stack: bytes up to pos are on their way to the port. True when the sample is among them: then the caller
 * keeps it until the port has it, for latency_out. */
bool latency_sent(const struct arena *a, const struct endpoint *ep, uint32_t pos, struct latency_sent *sent);
void latency_out(const struct arena *a, uint32_t stack_idx, const struct latency_sent *sent, uint64_t now_ns);

/* Control thread: forgets what was counted and what is under way. */
void latency_clear(const struct arena *a);

/* "rx_stack", and what it is in words. */
const char *latency_name(enum latency_stage stage);
const char *latency_text(enum latency_stage stage);
