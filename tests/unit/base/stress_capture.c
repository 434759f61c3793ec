/* stress_capture.c - two stacks and a reader that sleeps, each a thread: every packet that was put comes out
 * once, whole and in order, and what did not come was counted. For TSan as well.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "clock.h"

enum { STACKS = 2, PACKETS = 200000, LIMIT_S = 120 };

static struct capture_shm *shm;
static _Atomic uint32_t running = STACKS;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "stress_capture: line %d: %s is not so\n", __LINE__, #condition);    \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static uint32_t size_of(uint32_t i)
{
	return sizeof(i) + i * 2654435761u % 1500;
}

static void *stack(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg;
	struct capture_writer w;

	capture_writer_init(&w, shm, me);
	for (uint32_t i = 0; i < PACKETS; i++) {
		struct capture_record *record = capture_put(&w, size_of(i));

		if (record) {
			record->direction = CAPTURE_OUT;
			record->queue = (uint16_t)me;
			memcpy(record + 1, &i, sizeof(i));
			memset((uint8_t *)(record + 1) + sizeof(i), (uint8_t)i, size_of(i) - sizeof(i));
		}
		if (i % 8 == 7)
			capture_publish(&w);
		if (i % 4096 == 0)
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	capture_publish(&w);
	atomic_fetch_sub(&running, 1);
	return NULL;
}

int main(void)
{
	size_t size = (capture_shm_size(STACKS, CAPTURE_RING_MIN) + 4095) & ~(size_t)4095;
	struct capture_reader readers[STACKS];
	uint32_t next[STACKS] = {0}, got[STACKS] = {0};
	uint64_t start = clock_now_ns();
	pthread_t threads[STACKS];
	bool is_last;

	shm = aligned_alloc(4096, size);
	CHECK(shm);
	memset(shm, 0, size);
	capture_shm_init(shm, STACKS, CAPTURE_RING_MIN, "x", (const uint8_t[6]){0});
	for (uint32_t i = 0; i < STACKS; i++) {
		capture_reader_init(&readers[i], shm, i);
		CHECK(!pthread_create(&threads[i], NULL, stack, (void *)(uintptr_t)i));
	}
	do {
		is_last = !atomic_load(&running);
		for (uint32_t i = 0; i < STACKS; i++) {
			const struct capture_record *record;

			while ((record = capture_peek(&readers[i]))) {
				const uint8_t *data = (const uint8_t *)(record + 1);
				uint32_t number;

				memcpy(&number, data, sizeof(number));
				CHECK(record->queue == i && number >= next[i] && number < PACKETS);
				CHECK(record->cap_size == size_of(number));
				for (uint32_t k = sizeof(number); k < record->cap_size; k++)
					CHECK(data[k] == (uint8_t)number);
				next[i] = number + 1;
				got[i]++;
				capture_take(&readers[i], record);
			}
			capture_release(&readers[i]);
		}
		CHECK(clock_now_ns() - start < LIMIT_S * CLOCK_NS_PER_S);
		if (!is_last)
			capture_wait(shm, readers, STACKS, 1000);
	} while (!is_last);
	for (uint32_t i = 0; i < STACKS; i++) {
		CHECK(!pthread_join(threads[i], NULL));
		CHECK(atomic_load(&shm->ring[i].matched) == PACKETS);
		CHECK(got[i] + atomic_load(&shm->ring[i].dropped) == PACKETS);
		printf("stack %u: %u packets, %u of them dropped\n", i, (unsigned)PACKETS, PACKETS - got[i]);
	}
	free(shm);
	return 0;
}
