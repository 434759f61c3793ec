/* capture.c - the rings that captured packets travel in, both ends.
 *
 * capture_put and capture_publish run in a stack's thread, for packets that somebody captures; the reader's
 * half runs in pronk-dump. Who owns which field, and what ends the reader's sleep, is told in doc/threads.md.
 */
#include "capture.h"

#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "raw.h"

bool capture_spec_check(const struct capture_spec *spec, size_t size, char *reason, size_t reason_size)
{
	if (size < sizeof(*spec) || spec->magic != CAPTURE_MAGIC)
		snprintf(reason, reason_size, "the request is not one of this version");
	else if (spec->insn_count > CAPTURE_INSN_MAX)
		snprintf(reason, reason_size, "the filter has %u instructions (allowed: up to %d)",
		        spec->insn_count, CAPTURE_INSN_MAX);
	else if (size != sizeof(*spec) + spec->insn_count * sizeof(spec->insn[0]))
		snprintf(reason, reason_size, "the request is cut off");
	else if (!spec->snap_size || spec->snap_size > CAPTURE_SNAP_MAX)
		snprintf(reason, reason_size, "snap length %u (allowed: 1 to %d)", spec->snap_size,
		        CAPTURE_SNAP_MAX);
	else if (!spec->directions || spec->directions & ~(uint32_t)(CAPTURE_IN | CAPTURE_OUT))
		snprintf(reason, reason_size, "no such direction: %u", spec->directions);
	else if (!spec->queues)
		snprintf(reason, reason_size, "no stack is named");
	else if (spec->ring_size < CAPTURE_RING_MIN || spec->ring_size > CAPTURE_RING_MAX ||
	         spec->ring_size & (spec->ring_size - 1))
		snprintf(reason, reason_size, "a ring of %u bytes (allowed: a power of two, %d to %d)",
		        spec->ring_size, CAPTURE_RING_MIN, CAPTURE_RING_MAX);
	else
		return true;
	return false;
}

static uint32_t data_offset(void)
{
	return (sizeof(struct capture_shm) + 4095u) & ~4095u;
}

size_t capture_shm_size(uint32_t queue_count, uint32_t ring_size)
{
	return data_offset() + (size_t)queue_count * ring_size;
}

void capture_shm_init(struct capture_shm *shm, uint32_t queue_count, uint32_t ring_size, const char *device,
        const uint8_t mac[6])
{
	shm->magic = CAPTURE_MAGIC;
	shm->queue_count = queue_count;
	shm->ring_size = ring_size;
	shm->data_offset = data_offset();
	memcpy(shm->mac, mac, sizeof(shm->mac));
	snprintf(shm->device, sizeof(shm->device), "%s", device);
}

bool capture_shm_check(const struct capture_shm *shm, size_t size)
{
	return size >= sizeof(*shm) && shm->magic == CAPTURE_MAGIC && shm->queue_count >= 1 &&
	       shm->queue_count <= CAPTURE_QUEUE_MAX && shm->ring_size >= CAPTURE_RING_MIN &&
	       !(shm->ring_size & (shm->ring_size - 1)) && shm->data_offset == data_offset() &&
	       size >= capture_shm_size(shm->queue_count, shm->ring_size);
}

/* --- the stack's thread --- */

void capture_writer_init(struct capture_writer *w, struct capture_shm *shm, uint32_t queue)
{
	*w = (struct capture_writer){
	        .ring = &shm->ring[queue],
	        .reader_sleeps = &shm->reader_sleeps,
	        .data = (uint8_t *)shm + shm->data_offset + (size_t)queue * shm->ring_size,
	        .size = shm->ring_size,
	};
}

/* A reader that lies about its position makes the ring look full, at worst it loses what it has not read. */
static bool has_room(struct capture_writer *w, uint64_t need)
{
	if (likely(w->head - w->tail <= w->size && w->size - (w->head - w->tail) >= need))
		return true;
	w->tail = atomic_load_explicit(&w->ring->tail, memory_order_acquire);
	return w->head - w->tail <= w->size && w->size - (w->head - w->tail) >= need;
}

struct capture_record *capture_put(struct capture_writer *w, uint32_t cap_size)
{
	uint64_t size =
	        (sizeof(struct capture_record) + cap_size + CAPTURE_UNIT - 1) & ~(uint64_t)(CAPTURE_UNIT - 1);
	uint64_t at = w->head & (w->size - 1), to_end = w->size - at;
	struct capture_record *record;

	w->matched++;
	if (unlikely(size > w->size || !has_room(w, size <= to_end ? size : to_end + size))) {
		w->dropped++;
		return NULL;
	}
	record = (struct capture_record *)(w->data + at);
	if (unlikely(size > to_end)) {
		*record = (struct capture_record){.size = (uint32_t)to_end};
		w->head += to_end;
		record = (struct capture_record *)w->data;
	}
	record->size = (uint32_t)size;
	record->cap_size = cap_size;
	w->head += size;
	return record;
}

void capture_publish(struct capture_writer *w)
{
	struct capture_ring *ring = w->ring;

	atomic_store_explicit(&ring->matched, w->matched, memory_order_relaxed);
	atomic_store_explicit(&ring->dropped, w->dropped, memory_order_relaxed);
	atomic_store_explicit(&ring->head, w->head, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (unlikely(atomic_load_explicit(w->reader_sleeps, memory_order_relaxed)) &&
	        atomic_exchange(w->reader_sleeps, 0))
		RAW(SYS_futex, w->reader_sleeps, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* --- the reader --- */

void capture_reader_init(struct capture_reader *r, struct capture_shm *shm, uint32_t queue)
{
	*r = (struct capture_reader){
	        .ring = &shm->ring[queue],
	        .data = (const uint8_t *)shm + shm->data_offset + (size_t)queue * shm->ring_size,
	        .size = shm->ring_size,
	};
}

const struct capture_record *capture_peek(struct capture_reader *r)
{
	for (;;) {
		const struct capture_record *record;
		uint64_t at;
		uint32_t size;

		if (r->tail == r->head) {
			r->head = atomic_load_explicit(&r->ring->head, memory_order_acquire);
			if (r->tail == r->head)
				return NULL;
		}
		at = r->tail & (r->size - 1);
		if (unlikely(at % CAPTURE_UNIT))
			break;
		record = (const struct capture_record *)(r->data + at);
		size = record->size;
		if (unlikely(size < sizeof(*record) || size % CAPTURE_UNIT || size > r->size - at ||
		             (record->direction && record->cap_size > size - sizeof(*record))))
			break;
		if (likely(record->direction))
			return record;
		r->tail += size;
	}
	/* no service writes such a thing; nothing behind it can be found */
	r->tail = r->head;
	return NULL;
}

void capture_take(struct capture_reader *r, const struct capture_record *record)
{
	r->tail += record->size;
}

void capture_release(struct capture_reader *r)
{
	if (atomic_load_explicit(&r->ring->tail, memory_order_relaxed) != r->tail)
		atomic_store_explicit(&r->ring->tail, r->tail, memory_order_release);
}

void capture_wait(struct capture_shm *shm, struct capture_reader *readers, uint32_t count, uint32_t limit_ms)
{
	const struct timespec limit = {
	        .tv_sec = limit_ms / 1000, .tv_nsec = (long)(limit_ms % 1000) * 1000000};

	atomic_store(&shm->reader_sleeps, 1);
	atomic_thread_fence(memory_order_seq_cst);
	for (uint32_t i = 0; i < count; i++) {
		if (capture_peek(&readers[i])) {
			atomic_store(&shm->reader_sleeps, 0);
			return;
		}
	}
	RAW(SYS_futex, &shm->reader_sleeps, FUTEX_WAIT, 1, &limit, NULL, 0);
	atomic_store(&shm->reader_sleeps, 0);
}

void capture_wake(struct capture_shm *shm)
{
	atomic_store(&shm->reader_sleeps, 0);
	RAW(SYS_futex, &shm->reader_sleeps, FUTEX_WAKE, 1, NULL, NULL, 0);
}
