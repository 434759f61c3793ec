/* file.c - the descriptor table.
 *
 * Lookups are lock-free; changes to the table are under one process-wide spin lock. Runs in application
 * threads.
 */
#include "file.h"
#include "attach.h"
#include "epoll_set.h"
#include "sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK = 1024, CHUNKS = 1024, FILE_SLAB = 64 };

static _Atomic(_Atomic(struct file *) *) chunks[CHUNKS];
static _Atomic uint32_t table_lock;
static struct file *free_files;

static _Atomic(struct file *) *slot_of(int fd)
{
	_Atomic(struct file *) *c;

	if (unlikely((unsigned)fd >= CHUNK * CHUNKS))
		return NULL;
	c = atomic_load_explicit(&chunks[fd / CHUNK], memory_order_acquire);
	return c ? &c[fd % CHUNK] : NULL;
}

bool file_known(int fd)
{
	_Atomic(struct file *) *s = slot_of(fd);

	return s && atomic_load_explicit(s, memory_order_relaxed);
}

struct file *file_get(int fd)
{
	_Atomic(struct file *) *s = slot_of(fd);
	struct file *f;
	uint32_t refs;

	if (!s)
		return NULL;
	while ((f = atomic_load_explicit(s, memory_order_acquire))) {
		refs = atomic_load_explicit(&f->refs, memory_order_relaxed);
		do {
			if (!refs)
				break;
		} while (!atomic_compare_exchange_weak_explicit(
		        &f->refs, &refs, refs + 1, memory_order_acquire, memory_order_relaxed));
		if (!refs)
			continue; /* on its way out: look again */
		if (likely(atomic_load_explicit(s, memory_order_acquire) == f))
			return f;
		file_put(f);
	}
	return NULL;
}

void file_put(struct file *f)
{
	if (atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (f->kind == FILE_EPOLL)
		epoll_set_destroy(f->set);
	else
		sock_end(f);
	spin_lock(&table_lock);
	f->next_free = free_files;
	free_files = f;
	spin_unlock(&table_lock);
}

static int table_set(int fd, struct file *f)
{
	_Atomic(struct file *) *c;

	if ((unsigned)fd >= CHUNK * CHUNKS)
		return -EMFILE;
	if (!atomic_load(&chunks[fd / CHUNK])) {
		c = mmap(
		        NULL, CHUNK * sizeof(*c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (c == MAP_FAILED)
			return -ENOMEM;
		atomic_store_explicit(&chunks[fd / CHUNK], c, memory_order_release);
	}
	atomic_store_explicit(slot_of(fd), f, memory_order_release);
	return 0;
}

struct file *file_open(int fd, enum file_kind kind)
{
	struct file *f;

	spin_lock(&table_lock);
	if (!free_files) {
		f = mmap(NULL, FILE_SLAB * sizeof(*f), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		        -1, 0);
		if (f == MAP_FAILED) {
			spin_unlock(&table_lock);
			return NULL;
		}
		for (int i = 0; i < FILE_SLAB; i++) {
			f[i].next_free = free_files;
			free_files = &f[i];
		}
	}
	f = free_files;
	free_files = f->next_free;
	/* everything but refs: a reader with a stale pointer may look at that */
	memset((char *)f + sizeof(f->refs), 0, sizeof(*f) - sizeof(f->refs));
	f->kind = (uint8_t)kind;
	f->fd = fd;
	atomic_store(&f->ep, ENDPOINT_NONE);
	atomic_store(&f->fd_count, 1);
	atomic_store_explicit(&f->refs, 1, memory_order_release);
	if (table_set(fd, f)) {
		atomic_store(&f->refs, 0);
		f->next_free = free_files;
		free_files = f;
		f = NULL;
	}
	spin_unlock(&table_lock);
	return f;
}

int file_dup(struct file *f, int fd)
{
	int rc;

	file_close(fd);
	spin_lock(&table_lock);
	atomic_fetch_add(&f->refs, 1);
	atomic_fetch_add(&f->fd_count, 1);
	rc = table_set(fd, f);
	spin_unlock(&table_lock);
	if (rc) {
		atomic_fetch_sub(&f->fd_count, 1);
		file_put(f);
	}
	return rc;
}

bool file_close(int fd)
{
	_Atomic(struct file *) *s = slot_of(fd);
	struct file *f;

	if (!s || !atomic_load_explicit(s, memory_order_relaxed))
		return false;
	spin_lock(&table_lock);
	f = atomic_load(s);
	atomic_store(s, NULL);
	spin_unlock(&table_lock);
	if (!f)
		return false;
	if (atomic_fetch_sub(&f->fd_count, 1) == 1)
		epoll_file_closed(f);
	file_put(f);
	return true;
}

void file_each(int first, int last, void (*fn)(int fd))
{
	for (int c = first / CHUNK; c < CHUNKS && c <= last / CHUNK; c++) {
		_Atomic(struct file *) *t = atomic_load(&chunks[c]);

		for (int i = 0; t && i < CHUNK; i++)
			if (c * CHUNK + i >= first && c * CHUNK + i <= last && atomic_load(&t[i]))
				fn(c * CHUNK + i);
	}
}

static void (*each_ep)(uint32_t ep);

static void each_ep_fd(int fd)
{
	struct file *f = atomic_load(slot_of(fd));
	uint32_t ep = f && f->kind == FILE_SOCKET ? atomic_load(&f->ep) : ENDPOINT_NONE;

	if (ep != ENDPOINT_NONE)
		each_ep(ep);
}

void file_each_ep(void (*fn)(uint32_t ep))
{
	each_ep = fn;
	file_each(0, CHUNK * CHUNKS - 1, each_ep_fd);
}

void file_fork_prepare(void)
{
	spin_lock(&table_lock);
}

void file_fork_done(bool is_child)
{
	/* threads that do not exist in the child may have held locks of files */
	for (int c = 0; is_child && c < CHUNKS; c++) {
		_Atomic(struct file *) *t = atomic_load(&chunks[c]);

		for (int i = 0; t && i < CHUNK; i++) {
			struct file *f = atomic_load(&t[i]);

			if (f) {
				atomic_store(&f->lock, 0);
				atomic_store(&f->items_lock, 0);
			}
		}
	}
	spin_unlock(&table_lock);
}
