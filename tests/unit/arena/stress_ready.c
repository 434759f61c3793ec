/* stress_ready.c - several notifiers against one sleeper: no notification may be lost, and none may be left
 * over.
 *
 * A notifier raises an endpoint's generation and tells its watch; the sleeper drains, clears, looks, and
 * sleeps on a semaphore when nothing is ready. A lost notification leaves it asleep while a generation is
 * unseen: then the time limit ends the test. Watches are given back and claimed again all the while. For TSan
 * as well.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#include "ready.h"

enum { NOTIFIERS = 3, ENDPOINTS = 16, ROUNDS = 60000, LIMIT_S = 60 };

static struct arena a;
static sem_t bell;
static _Atomic uint32_t done;
static uint64_t sleeps, drains, claims;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "stress_ready: %s:%d: %s is not so\n", __FILE__, __LINE__,           \
			        #condition);                                                                 \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static void tell(uint32_t ep)
{
	atomic_fetch_add_explicit(&a.endpoints[ep].rx_gen, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst); /* as notify() in src/stack */
	for (uint32_t i = 0; i < WATCH_INLINE; i++) {
		uint32_t poller = watch_notify(&a, &a.endpoints[ep].watch[i], ep * WATCH_INLINE + i, EPOLLIN);

		if (poller != UINT32_MAX && poller_wake_needed(&a, poller))
			sem_post(&bell);
	}
}

static void *notifier(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg;

	for (int i = 0; i < ROUNDS; i++) {
		seed = seed * 1664525u + 1013904223u;
		tell((seed >> 16) % ENDPOINTS);
		if ((seed >> 24) == 0)
			sched_yield(); /* lets the sleeper fall asleep now and then */
	}
	atomic_fetch_add(&done, 1);
	if (poller_wake_needed(&a, 0))
		sem_post(&bell);
	return NULL;
}

static void sleep_until_bell(void)
{
	struct timespec until;

	poller_sleep(&a, 0);
	if (poller_has_ready(&a, 0) || atomic_load(&done) == NOTIFIERS) {
		poller_awake(&a, 0);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += LIMIT_S;
	while (sem_timedwait(&bell, &until) != 0)
		CHECK(errno == EINTR); /* ETIMEDOUT: a notification was lost */
	poller_awake(&a, 0);
	sleeps++;
}

int main(void)
{
	struct arena_spec spec = {.name = "stress",
	        .stack_count = 1,
	        .endpoint_count = 64,
	        .client_count = 1,
	        .block_memory = 1 << 20,
	        .huge = -1};
	uint32_t seen[ENDPOINTS] = {0}, watch[ENDPOINTS];
	pthread_t thread[NOTIFIERS];
	char err[128];
	bool is_huge, is_last = false;
	uint32_t turn = 0;

	CHECK(arena_create(&a, &spec, &is_huge, err, sizeof(err)) == 0);
	CHECK(sem_init(&bell, 0, 0) == 0);
	CHECK(poller_claim(&a, 0) == 0);
	for (uint32_t i = 0; i < ENDPOINTS; i++) {
		a.endpoints[i].listener = UINT32_MAX;
		watch[i] = watch_claim(&a, i, 0, EPOLLIN);
		CHECK(watch[i] != WATCH_NONE);
	}
	for (uintptr_t i = 0; i < NOTIFIERS; i++)
		CHECK(pthread_create(&thread[i], NULL, notifier, (void *)(i + 1)) == 0);
	for (;;) {
		uint32_t w;

		if (atomic_load(&done) == NOTIFIERS)
			is_last = true; /* one more look, then everything must have been seen */
		w = poller_drain(&a, 0);
		while (w) {
			uint32_t next = atomic_load(&watch_at(&a, w - 1)->next), ep = (w - 1) / WATCH_INLINE;

			drains++;
			if (watch_unqueue(&a, w - 1))
				seen[ep] = atomic_load(&a.endpoints[ep].rx_gen);
			w = next;
		}
		/* now and then a watch goes and another comes */
		if (++turn % 8 == 0) {
			uint32_t ep = turn / 8 % ENDPOINTS, other = watch_claim(&a, ep, 0, EPOLLIN);

			if (other != WATCH_NONE) {
				watch_release(&a, watch[ep], 0);
				watch[ep] = other;
				atomic_thread_fence(memory_order_seq_cst);
				seen[ep] = atomic_load(&a.endpoints[ep].rx_gen);
				claims++;
			}
		}
		if (is_last)
			break;
		if (!poller_has_ready(&a, 0))
			sleep_until_bell();
	}
	for (int i = 0; i < NOTIFIERS; i++)
		pthread_join(thread[i], NULL);
	for (uint32_t i = 0; i < ENDPOINTS; i++)
		CHECK(seen[i] == atomic_load(&a.endpoints[i].rx_gen));
	CHECK(!poller_has_ready(&a, 0));
	printf("drained %lu watches, slept %lu times, exchanged %lu watches\n", (unsigned long)drains,
	        (unsigned long)sleeps, (unsigned long)claims);
	sem_destroy(&bell);
	arena_close(&a);
	return 0;
}
