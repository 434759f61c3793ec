/* file.c - the descriptor table.
 *
 * Lookups are lock-free; changes to the table are under one process-wide spin lock. Runs in application
 * threads.
 */
#include "file.h"
#include "attach.h"
#include "dgram.h"
#include "epoll_set.h"
#include "libc.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK = 1024, CHUNKS = 4096, SLAB_BYTES = 32768 };

static _Atomic(_Atomic(struct file *) *) chunks[CHUNKS];
static _Atomic uint32_t table_lock;
static struct file *free_files;
static __thread uint32_t own_refs; /* references of this thread's calls under way */
struct ep_opts file_no_opts;

/* Options that no file has. Their memory never goes back to the system, nor to anything but options. */
union free_opts {
	struct ep_opts opts;
	union free_opts *next;
};
static union free_opts *free_opts;
static _Atomic bool has_files;

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

bool file_any(void)
{
	return atomic_load_explicit(&has_files, memory_order_relaxed);
}

static void ref_drop(struct file *f);

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
		if (likely(atomic_load_explicit(s, memory_order_acquire) == f)) {
			own_refs++;
			return f;
		}
		ref_drop(f);
	}
	return NULL;
}

void file_put(struct file *f)
{
	own_refs--;
	ref_drop(f);
}

static void ref_drop(struct file *f)
{
	if (atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (f->kind == FILE_EPOLL)
		epoll_set_destroy(f->set);
	else
		sock_end(f);
	file_opts_drop(f);
	free(f->also);
	f->also = NULL;
	spin_lock(&table_lock);
	f->next_free = free_files;
	free_files = f;
	spin_unlock(&table_lock);
}

bool file_has(const struct file *f, int fd)
{
	_Atomic(struct file *) *s = slot_of(fd);

	return s && atomic_load_explicit(s, memory_order_acquire) == f;
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
	atomic_store_explicit(&has_files, true, memory_order_relaxed);
	return 0;
}

static void *slab_open(void)
{
	void *p = mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

bool file_opts_take(struct file *f)
{
	union free_opts *o;

	if (f->opts != &file_no_opts)
		return true;
	spin_lock(&table_lock);
	if (!free_opts && (o = slab_open())) {
		for (size_t i = 0; i < SLAB_BYTES / sizeof(*o); i++) {
			o[i].next = free_opts;
			free_opts = &o[i];
		}
	}
	o = free_opts;
	if (o)
		free_opts = o->next;
	spin_unlock(&table_lock);
	if (o)
		f->opts = &o->opts;
	return o != NULL;
}

void file_opts_drop(struct file *f)
{
	union free_opts *o = (union free_opts *)f->opts;

	if (f->opts == &file_no_opts)
		return;
	f->opts = &file_no_opts;
	spin_lock(&table_lock);
	o->next = free_opts;
	free_opts = o;
	spin_unlock(&table_lock);
}

bool file_also_take(struct file *f)
{
	struct file_also *also;

	if (f->also)
		return true;
	also = malloc(sizeof(*also));
	if (!also)
		return false;
	for (int i = 0; i < FILE_ALSO; i++)
		atomic_init(&also->ep[i], ENDPOINT_NONE);
	atomic_store_explicit(&f->also, also, memory_order_release); /* others look without the lock */
	return true;
}

struct file *file_open(int fd, enum file_kind kind)
{
	struct file *f;

	spin_lock(&table_lock);
	if (!free_files) {
		f = slab_open();
		if (!f) {
			spin_unlock(&table_lock);
			return NULL;
		}
		for (size_t i = 0; i < SLAB_BYTES / sizeof(*f); i++) {
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
	f->opts = &file_no_opts;
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

struct file *file_import(int fd, const struct file *saved, uint32_t ep)
{
	struct file *f;

	file_close(fd);
	f = file_open(fd, FILE_SOCKET);
	if (!f)
		return NULL;
	if (saved->type == SOCK_DGRAM && !dgram_opened(f)) {
		file_close(fd);
		return NULL;
	}
	memcpy(&f->kind, &saved->kind, offsetof(struct file, is_connecting) - offsetof(struct file, kind));
	f->fd = fd;
	atomic_store(&f->ep, ep);
	f->rx_pieces = f->rx_bytes = 0;
	atomic_store(&f->lock, 0);
	if (f->type == SOCK_DGRAM)
		dgram_import(f, fd);
	return f;
}

struct file *file_ref(struct file *f)
{
	atomic_fetch_add(&f->refs, 1);
	own_refs++;
	return f;
}

int file_dup(struct file *f, int fd)
{
	int rc = -EBADF;

	file_close(fd);
	spin_lock(&table_lock);
	/* Numbers go under this lock too: a file whose last one has gone has left its epoll sets and may not
	 * come back. */
	if (atomic_load(&f->fd_count)) {
		atomic_fetch_add(&f->refs, 1);
		atomic_fetch_add(&f->fd_count, 1);
		rc = table_set(fd, f);
	}
	spin_unlock(&table_lock);
	if (rc && rc != -EBADF) {
		atomic_fetch_sub(&f->fd_count, 1);
		ref_drop(f);
	}
	return rc;
}

int file_number_after(const struct file *f, int fd)
{
	for (int n = fd + 1; n < CHUNK * CHUNKS; n++) {
		_Atomic(struct file *) *t = atomic_load(&chunks[n / CHUNK]);

		if (!t)
			n |= CHUNK - 1;
		else if (atomic_load(&t[n % CHUNK]) == f)
			return n;
	}
	return -1;
}

void file_renumber(struct file *f, int fd)
{
	uint32_t left;

	/* a number leaves the table, under this lock, before the kernel may hand it out again */
	spin_lock(&table_lock);
	left = atomic_load(&f->fd_count);
	for (int n = left == 1 ? f->fd - 1 : -1; left && (n = file_number_after(f, n)) >= 0; left--)
		libc.dup3(fd, n, libc.fcntl(n, F_GETFD) == FD_CLOEXEC ? O_CLOEXEC : 0);
	spin_unlock(&table_lock);
}

/* The first number goes and others stay: what names the file by a number needs one that is open. With
 * table_lock. */
static void number_move(struct file *f)
{
	f->fd = file_number_after(f, -1);
	if (f->kind == FILE_EPOLL)
		epoll_set_number(f->set, f->fd);
}

bool file_close(int fd)
{
	_Atomic(struct file *) *s = slot_of(fd);
	struct file *f;
	bool is_last = false;

	if (!s || !atomic_load_explicit(s, memory_order_relaxed))
		return false;
	spin_lock(&table_lock);
	f = atomic_load(s);
	atomic_store(s, NULL);
	if (f)
		is_last = atomic_fetch_sub(&f->fd_count, 1) == 1;
	if (f && !is_last && f->fd == fd)
		number_move(f);
	spin_unlock(&table_lock);
	if (!f)
		return false;
	if (is_last)
		epoll_file_closed(f);
	ref_drop(f);
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

struct file *file_find_ep(uint32_t ep)
{
	for (int c = 0; c < CHUNKS; c++) {
		_Atomic(struct file *) *t = atomic_load(&chunks[c]);

		for (int i = 0; t && i < CHUNK; i++) {
			struct file *f = atomic_load(&t[i]) ? file_get(c * CHUNK + i) : NULL;

			if (!f)
				continue;
			for (uint32_t n = 0; f->kind == FILE_SOCKET && n < file_ep_count(f); n++)
				if (file_ep(f, n) == ep)
					return f;
			file_put(f);
		}
	}
	return NULL;
}

static void (*each_ep)(uint32_t ep);

static void each_ep_fd(int fd)
{
	struct file *f = atomic_load(slot_of(fd));

	for (uint32_t i = 0; f && f->kind == FILE_SOCKET && i < file_ep_count(f); i++)
		if (file_ep(f, i) != ENDPOINT_NONE)
			each_ep(file_ep(f, i));
}

void file_each_ep(void (*fn)(uint32_t ep))
{
	each_ep = fn;
	file_each(0, CHUNK * CHUNKS - 1, each_ep_fd);
}

void file_forget_all(void)
{
	for (int c = 0; c < CHUNKS; c++)
		atomic_store(&chunks[c], NULL);
	atomic_store(&table_lock, 0);
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

			if (!f)
				continue;
			atomic_store(&f->lock, 0);
			if (f->dg)
				atomic_store(&f->dg->cork_lock, 0);
			/* nor are their calls under way here; a handler that has interrupted one and forks
			 * goes on with it */
			if (!own_refs)
				atomic_store(&f->refs, atomic_load(&f->fd_count));
		}
	}
	spin_unlock(&table_lock);
}
