/* stress_rings.c - posts and grants between the threads of one client and a stack that sleeps: every post
 * arrives once and in its thread's order, every block is granted once.
 *
 * The stack's side is written out here as src/stack does it (request.c, tx.c, stack.c); the client's is
 * src/arena. For TSan as well.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attach.h"
#include "libc.h"

enum { PRODUCERS = 3, POSTS = 60000, GRANT_LEVEL = 16, LIMIT_MS = 60000, BURST = 256 };

static struct attach at;
static _Atomic uint32_t blocks_taken;
static uint32_t next_block, sleeps;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "stress_rings: %s:%d: %s is not so\n", __FILE__, __LINE__,           \
			        #condition);                                                                 \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* Posts numbers in order, and takes a block now and then: their numbers rise, whichever thread takes them. */
static void *producer(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg, last = 0;

	for (uint32_t i = 0; i < POSTS; i++) {
		CHECK(post(&at, 0, POST_ENTRY(POST_DOORBELL, me, i)) == 0);
		if (i % 16 == 0) {
			uint32_t block;

			spin_lock(&at.grant_lock[0]);
			block = grant_peek(&at, 0);
			if (block != BLOCK_NONE)
				grant_take(&at, 0);
			spin_unlock(&at.grant_lock[0]);
			if (block != BLOCK_NONE) {
				CHECK(!last || block > last);
				last = block;
				atomic_fetch_add(&blocks_taken, 1);
			}
		}
		if (i % 4096 == 0)
			sched_yield();
	}
	return NULL;
}

static void grant(struct grant_ring *g)
{
	uint32_t head = atomic_load_explicit(&g->head, memory_order_relaxed);
	uint32_t level = head - atomic_load_explicit(&g->tail, memory_order_acquire);

	CHECK(level <= GRANT_RING_SIZE);
	atomic_store(&g->starved, 0);
	for (; level < GRANT_LEVEL; level++)
		atomic_store_explicit(&g->slot[head++ % GRANT_RING_SIZE], ++next_block, memory_order_relaxed);
	atomic_store_explicit(&g->head, head, memory_order_release);
}

static uint32_t run(uint32_t *expected)
{
	struct req_ring *r = &at.client->stack[0].req;
	struct stack_shared *s = &at.arena.stacks[0];
	uint32_t tail, head, n = 0;

	if (!atomic_load_explicit(&s->pending[0], memory_order_relaxed))
		return 0;
	CHECK(atomic_exchange(&s->pending[0], 0) == 1);
	tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	head = atomic_load_explicit(&r->head, memory_order_acquire);
	CHECK(head - tail <= REQ_RING_SIZE);
	for (; tail != head && n < BURST; n++) {
		uint64_t entry = atomic_load_explicit(&r->slot[tail % REQ_RING_SIZE], memory_order_relaxed);
		uint32_t who = (uint32_t)(entry >> 32) & 0xffffff;

		atomic_store_explicit(&r->tail, ++tail, memory_order_release);
		CHECK(who < PRODUCERS);
		CHECK((uint32_t)entry == expected[who]);
		expected[who]++;
	}
	grant(&at.client->stack[0].grant);
	if (tail != head)
		atomic_fetch_or(&s->pending[0], 1);
	return n;
}

static void sleep_until_post(void)
{
	struct stack_shared *s = &at.arena.stacks[0];
	struct pollfd p = {.fd = at.stack_fd[0], .events = POLLIN};
	uint64_t drop;

	atomic_store(&s->sleeping, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load(&s->pending[0])) {
		CHECK(poll(&p, 1, LIMIT_MS) == 1); /* 0: a post was made and nobody woke us */
		sleeps++;
	}
	atomic_store(&s->sleeping, 0);
	if (read(at.stack_fd[0], &drop, sizeof(drop)) < 0)
		return;
}

int main(void)
{
	struct arena_spec spec = {.name = "stress",
	        .stack_count = 1,
	        .endpoint_count = 64,
	        .client_count = 1,
	        .block_memory = 1 << 20,
	        .huge = -1};
	uint32_t expected[PRODUCERS] = {0}, total = 0;
	pthread_t thread[PRODUCERS];
	char err[128];
	bool is_huge;
	int ctl[2];

	libc_init();
	CHECK(arena_create(&at.arena, &spec, &is_huge, err, sizeof(err)) == 0);
	at.client = arena_client(&at.arena, 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ctl) == 0); /* a service that lives */
	at.ctl_fd = ctl[0];
	at.stack_fd[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(at.stack_fd[0] >= 0);
	for (uintptr_t i = 0; i < PRODUCERS; i++)
		CHECK(pthread_create(&thread[i], NULL, producer, (void *)i) == 0);
	while (total < PRODUCERS * POSTS) {
		uint32_t n = run(expected);

		total += n;
		if (!n && total < PRODUCERS * POSTS)
			sleep_until_post();
	}
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < PRODUCERS; i++)
		CHECK(expected[i] == POSTS);
	CHECK(!run(expected));
	CHECK(atomic_load(&blocks_taken) + GRANT_LEVEL >= next_block);
	CHECK(atomic_load(&blocks_taken) <= next_block);
	printf("%u posts, %u blocks, slept %u times\n", total, atomic_load(&blocks_taken), sleeps);
	close(at.stack_fd[0]);
	close(ctl[0]);
	close(ctl[1]);
	arena_close(&at.arena);
	return 0;
}
