/* capture.h - packets on their way from a stack to who captures them: the request, and a ring for each stack.
 *
 * The rings lie in one piece of shared memory, made and sized by the service. Each has one writer, the
 * stack's thread, and one reader, the capturing program (doc/threads.md, "Capture"). The writer never waits:
 * a packet that finds too little room is counted and left out. It decides by its own copies and reads nothing
 * of the shared memory but the reader's position, which it checks.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

#define CAPTURE_MAGIC 0x70616b6e6f727063ull

enum {
	CAPTURE_QUEUE_MAX = 16,
	CAPTURE_SNAP_MAX = 262144,
	CAPTURE_INSN_MAX = 4096, /* of a filter, as in the kernel */
	CAPTURE_RING_MIN = 256 << 10,
	CAPTURE_RING_MAX = 256 << 20,
	CAPTURE_REASON_SIZE = 160,
	CAPTURE_UNIT = 32, /* records begin at multiples of it */

	CAPTURE_IN = 1, /* directions; also capture_record.direction */
	CAPTURE_OUT = 2,
};

/* One instruction of a filter: struct bpf_insn of libpcap and the kernel. */
struct capture_insn {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

/* What shall be captured. Travels to the service in sealed memory. */
struct capture_spec {
	uint64_t magic;
	uint32_t snap_size;  /* bytes of a packet that are kept, 1 to CAPTURE_SNAP_MAX */
	uint32_t directions; /* CAPTURE_IN | CAPTURE_OUT */
	uint32_t queues;     /* a bit for each stack; UINT32_MAX: all there are */
	uint32_t ring_size;  /* bytes for each stack: a power of two, CAPTURE_RING_MIN to CAPTURE_RING_MAX */
	uint32_t insn_count; /* 0: every packet; up to CAPTURE_INSN_MAX */
	uint32_t unused;
	struct capture_insn insn[];
};

/* A packet in a ring; its bytes follow. */
struct capture_record {
	uint32_t size;      /* of the whole record, a multiple of CAPTURE_UNIT */
	uint32_t cap_size;  /* bytes kept */
	uint32_t wire_size; /* bytes the packet had */
	uint16_t direction; /* 0: nothing, up to the ring's end */
	uint16_t queue;
	uint64_t time_ns; /* wall clock */
	uint64_t unused;
};
_Static_assert(sizeof(struct capture_record) == CAPTURE_UNIT, "an empty record fits wherever one may begin");

struct capture_ring {
	/* the stack's thread */
	_Atomic uint64_t head CACHE_ALIGNED; /* bytes written, ever */
	_Atomic uint64_t matched;            /* packets that the filter let through */
	_Atomic uint64_t dropped;            /* those of them that found no room */
	/* the reader */
	_Atomic uint64_t tail CACHE_ALIGNED; /* bytes read, ever */
};

struct capture_shm {
	/* constant */
	uint64_t magic;
	uint32_t queue_count;
	uint32_t ring_size;
	uint32_t data_offset; /* of the first ring's bytes; the others follow */
	uint8_t mac[6];
	char device[128];
	/* announced by the reader, taken back by whoever wakes it: futex(2) */
	_Atomic uint32_t reader_sleeps CACHE_ALIGNED;
	struct capture_ring ring[CAPTURE_QUEUE_MAX];
};

/* True when the fields that the service must rely on are in range; else reason says which is not. Pure. */
bool capture_spec_check(const struct capture_spec *spec, size_t size, char *reason, size_t reason_size);

/* Bytes of the shared memory. Pure. */
size_t capture_shm_size(uint32_t queue_count, uint32_t ring_size);
/* Fills in zeroed memory of that size. */
void capture_shm_init(struct capture_shm *shm, uint32_t queue_count, uint32_t ring_size, const char *device,
        const uint8_t mac[6]);
/* True when the memory describes itself consistently. The reader, once. */
bool capture_shm_check(const struct capture_shm *shm, size_t size);

/* --- the stack's thread --- */

struct capture_writer {
	struct capture_ring *ring;
	_Atomic uint32_t *reader_sleeps;
	uint8_t *data;
	uint64_t size;
	uint64_t head, tail; /* tail: as last looked at */
	uint64_t matched, dropped;
};

void capture_writer_init(struct capture_writer *w, struct capture_shm *shm, uint32_t queue);
/* Room for a packet of which cap_size bytes are kept; its bytes are to be written behind the record, its
 * other fields into it. NULL when there is none: counted. Nobody sees it before capture_publish. */
struct capture_record *capture_put(struct capture_writer *w, uint32_t cap_size);
/* Shows the reader what was put, and wakes it if it sleeps. One system call at most, which does not block. */
void capture_publish(struct capture_writer *w);

/* --- the reader --- */

struct capture_reader {
	struct capture_ring *ring;
	const uint8_t *data;
	uint64_t size;
	uint64_t head, tail; /* head: as last looked at */
};

void capture_reader_init(struct capture_reader *r, struct capture_shm *shm, uint32_t queue);
/* The oldest packet that was not taken, or NULL. It stays valid until capture_release. */
const struct capture_record *capture_peek(struct capture_reader *r);
/* Goes on to the one behind it. */
void capture_take(struct capture_reader *r, const struct capture_record *record);
/* Gives the room of all that was taken back to the writer. */
void capture_release(struct capture_reader *r);
/* Sleeps until one of the rings has something, capture_wake is called, or the time is over. */
void capture_wait(struct capture_shm *shm, struct capture_reader *readers, uint32_t count, uint32_t limit_ms);
/* Any thread of the reader's. */
void capture_wake(struct capture_shm *shm);
