/* stress_file.c - the descriptor table of src/sock under threads that open, look up, duplicate and close:
 * nobody may ever hold a file that has ended, and every file ends once. For TSan as well.
 *
 * As in a process, a number belongs to one thread at a time as long as it is being opened and closed; lookups
 * may name any number.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "epoll_set.h"
#include "dgram.h"
#include "file.h"
#include "sock.h"

enum { THREADS = 3, NUMBERS = 24, ROUNDS = 150000 };

static _Atomic uint32_t opened, ended, left_sets;

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "stress_file: %s:%d: %s is not so\n", __FILE__, __LINE__,            \
			        #condition);                                                                 \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* What the table calls at the end of a file. */
void sock_end(struct file *f)
{
	CHECK(!atomic_exchange(&f->connect_reported, true));
	atomic_fetch_add(&ended, 1);
}

/* Only sockets that come from another process have this. */
bool dgram_opened(struct file *f)
{
	(void)f;
	return false;
}

void dgram_import(struct file *f, int fd)
{
	(void)f;
	(void)fd;
	CHECK(false);
}

void epoll_file_closed(struct file *f)
{
	CHECK(!atomic_load(&f->connect_reported));
	atomic_fetch_add(&left_sets, 1);
}

void epoll_set_destroy(struct epoll_set *set)
{
	(void)set;
	CHECK(false); /* there are only sockets here */
}

void epoll_set_number(struct epoll_set *set, int epfd)
{
	(void)set, (void)epfd;
	CHECK(false);
}

static void *worker(void *arg)
{
	uint32_t me = (uint32_t)(uintptr_t)arg, seed = me + 1;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t any, own;
		struct file *f;

		seed = seed * 1664525u + 1013904223u;
		any = (seed >> 8) % NUMBERS;
		own = (seed >> 16) % (NUMBERS / THREADS) * THREADS + me;
		switch ((seed >> 26) % 8) {
		case 0:
			file_close((int)own);
			f = file_open((int)own, FILE_SOCKET);
			CHECK(f);
			atomic_fetch_add(&opened, 1);
			break;
		case 1:
			file_close((int)own);
			CHECK(!file_known((int)own));
			break;
		case 2:
			f = file_get((int)any);
			if (f) {
				int rc = file_dup(f, (int)own);

				/* not when its last number has gone meanwhile */
				CHECK(rc == 0 || rc == -EBADF);
				CHECK(rc == 0 || !file_known((int)own));
				CHECK(!atomic_load(&f->connect_reported));
				file_put(f);
			}
			break;
		default:
			f = file_get((int)any);
			if (f) {
				CHECK(atomic_load(&f->refs) > 0);
				CHECK(!atomic_load(&f->connect_reported));
				CHECK(f->kind == FILE_SOCKET);
				file_put(f);
			}
		}
	}
	return NULL;
}

static void close_one(int fd)
{
	CHECK(file_close(fd));
}

int main(void)
{
	pthread_t thread[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], NULL, worker, (void *)i) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	file_each(0, NUMBERS, close_one);
	CHECK(atomic_load(&opened) == atomic_load(&ended));
	/* once, although numbers were duplicated while the last one was being closed */
	CHECK(atomic_load(&left_sets) == atomic_load(&opened));
	CHECK(file_get(3) == NULL && !file_close(3) && !file_known(-1) && file_get(1 << 30) == NULL);
	printf("%u files\n", atomic_load(&opened));
	return 0;
}
