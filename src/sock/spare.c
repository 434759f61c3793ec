/* spare.c - kernel sockets kept for socket(2). See spare.h.
 *
 * Runs in application threads; one process-wide spin lock. A spare socket is made by the socket(2) that finds
 * none free, once connect(2) has shown that this program's sockets become Pronk's; it is free again when the
 * file that had it closes as a socket of Pronk's. One that closes undecided is given up: a call that nobody
 * sees (io_uring, a system call by the program's own instructions) may have used it.
 */
#include "spare.h"
#include "attach.h"
#include "libc.h"
#include "opt.h"
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	SPARES = 64,
	SPARES_SHARE = 16, /* of the numbers that the program may have, at most one in so many */
	SPARE_FLOOR = 400, /* their own numbers begin here, or at half of what there is */
	LUCK_MOST = 8,     /* right guesses that count */
	LUCK_LOST = 16,    /* sockets that are made as ever after a wrong one */
};

struct spare {
	int fd; /* its own number */
	bool is_nonblocking;
	struct file *file; /* whose numbers are its duplicates, or NULL */
};

static struct spare spares[SPARES];
static uint64_t spares_there, spares_free; /* bits: places in use, and of those without a file */
static _Atomic uint32_t spare_lock;
static __thread bool is_holder, fork_has_lock;
/* Above 0: the next socket is likely to become Pronk's. A hint; threads may lose each other's steps. */
static _Atomic int luck;

/* False in a signal handler that has interrupted the thread while it has the lock, which is held over system
 * calls: the handler goes on without, and at worst a place is lost. */
static bool lock_take(void)
{
	if (unlikely(is_holder))
		return false;
	is_holder = true; /* first: a handler from here on does not wait for it */
	atomic_signal_fence(memory_order_seq_cst);
	spin_lock(&spare_lock);
	return true;
}

static void lock_give(void)
{
	spin_unlock(&spare_lock);
	atomic_signal_fence(memory_order_seq_cst);
	is_holder = false;
}

void spare_connected(void)
{
	int now = atomic_load_explicit(&luck, memory_order_relaxed);

	if (now < LUCK_MOST)
		atomic_store_explicit(&luck, now + 1, memory_order_relaxed);
}

/* --- with spare_lock --- */

static inline int first_of(uint64_t set)
{
	return set ? __builtin_ctzll(set) : -1;
}

static void spare_end(int i)
{
	proc_internal_fd_remove(spares[i].fd);
	libc.close(spares[i].fd);
	spares[i] = (struct spare){.fd = -1};
	spares_there &= ~(1ull << i);
	spares_free &= ~(1ull << i);
}

/* The kernel's socket has them. A connect(2) under way still reads them, and drops them itself. */
static void options_drop(struct file *f)
{
	if (!atomic_load(&f->is_connecting))
		file_opts_drop(f);
}

/* What was set so far goes to the kernel's socket, which is the file's own now. */
static void options_hand_over(struct file *f)
{
	if (f->opts == &file_no_opts || !atomic_load(&f->fd_count))
		return;
	opt_return(f, f->fd);
	options_drop(f);
}

/* From here on the file's numbers are the only ones of the kernel socket behind them. */
static void spare_give_away(int i)
{
	struct file *f = spares[i].file;

	if (f && atomic_load(&f->spare) == (uint32_t)i + 1) {
		if (atomic_load(&f->mode) == MODE_OPEN)
			options_hand_over(f);
		atomic_store(&f->spare, 0);
	}
	spare_end(i);
}

/* The kernel, or who has set this process up, binds every new socket to a device. */
static bool is_bound_to_device(int fd)
{
	char name[IFNAMSIZ];
	socklen_t len = sizeof(name);

	return libc.getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &len) < 0 || len;
}

/* A new kernel socket with the flags of type, and another number of it as a spare one. The first number, and
 * the place in *i; or -1. */
static int spare_make(int type, int *i)
{
	struct rlimit limit;
	rlim_t floor;
	int fd, own;

	*i = first_of(~spares_there);
	if (*i < 0 || getrlimit(RLIMIT_NOFILE, &limit) ||
	        (rlim_t)__builtin_popcountll(spares_there) >= limit.rlim_cur / SPARES_SHARE)
		return -1;
	floor = limit.rlim_cur / 2 < SPARE_FLOOR ? limit.rlim_cur / 2 : SPARE_FLOOR;
	fd = libc.socket(AF_INET, type, 0);
	if (fd < 0)
		return -1;
	own = is_bound_to_device(fd) ? -1 : libc.fcntl(fd, F_DUPFD_CLOEXEC, (int)floor);
	if (own < 0) {
		libc.close(fd);
		atomic_store(&luck, -LUCK_LOST);
		return -1;
	}
	proc_internal_fd_add(own);
	spares[*i] = (struct spare){.fd = own, .is_nonblocking = (type & SOCK_NONBLOCK) != 0};
	spares_there |= 1ull << *i;
	spares_free |= 1ull << *i;
	return fd;
}

/* Another number of a spare socket, with the flags of type, or -1. */
static int spare_number(struct spare *s, int type)
{
	bool want = (type & SOCK_NONBLOCK) != 0;
	int fd = libc.fcntl(s->fd, type & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);

	if (fd >= 0 && s->is_nonblocking != want) {
		libc.fcntl(fd, F_SETFL, want ? O_NONBLOCK : 0);
		s->is_nonblocking = want;
	}
	return fd;
}

/* Nothing was done to it that we have not seen: it is as socket(2) made it. */
static bool is_untouched(int fd)
{
	struct sockaddr_in in = {0};
	socklen_t len = sizeof(in);

	return sock_kernel_is_closed(fd) && !libc.getsockname(fd, (struct sockaddr *)&in, &len) &&
	       !in.sin_port;
}

static void own_locked(struct file *f)
{
	uint32_t i = atomic_load(&f->spare);
	bool is_open = atomic_load(&f->mode) == MODE_OPEN;

	if (!i-- || !atomic_load(&f->fd_count))
		return;
	if (is_open)
		atomic_store_explicit(&luck, -LUCK_LOST, memory_order_relaxed);
	/* it keeps what has something of its own, or when there is no number for another one */
	if (!is_untouched(spares[i].fd) || sock_renew(f)) {
		spare_give_away((int)i);
	} else {
		atomic_store(&f->spare, 0);
		spares[i].file = NULL;
		spares_free |= 1ull << i;
		if (is_open)
			options_drop(f);
	}
}

/* --- */

int spare_socket(int domain, int type, int protocol)
{
	struct file *f = NULL;
	int fd, i;

	if (likely(atomic_load_explicit(&luck, memory_order_relaxed) <= 0)) {
		if (atomic_load_explicit(&luck, memory_order_relaxed) < 0 && domain == AF_INET)
			atomic_fetch_add_explicit(&luck, 1, memory_order_relaxed);
		return SOCK_LIBC;
	}
	if (domain != AF_INET || (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM ||
	        (protocol && protocol != IPPROTO_TCP) || !proc_is_attached() || proc_is_dead() ||
	        attach_is_sandboxed())
		return SOCK_LIBC;
	if (!lock_take())
		return SOCK_LIBC;
	if (atomic_load(&luck) <= 0) { /* given up meanwhile: its number may be wanted (spare_evict) */
		lock_give();
		return SOCK_LIBC;
	}
	i = first_of(spares_free);
	fd = i < 0 ? spare_make(type, &i) : spare_number(&spares[i], type);
	/* a number that came back without a close that we saw is for sock_opened */
	if (fd >= 0 && !file_known(fd))
		f = file_open(fd, FILE_SOCKET);
	if (f) {
		f->domain = AF_INET;
		f->type = SOCK_STREAM;
		atomic_store(&f->is_nonblocking, (type & SOCK_NONBLOCK) != 0);
		spares[i].file = f;
		spares_free &= ~(1ull << i);
		atomic_store(&f->spare, (uint32_t)i + 1);
	}
	lock_give();
	if (!f && fd >= 0)
		libc.close(fd);
	return f ? fd : SOCK_LIBC;
}

void spare_own_now(struct file *f)
{
	int saved = errno;

	if (lock_take()) {
		own_locked(f);
		lock_give();
	}
	errno = saved;
}

static void own_all_locked(void)
{
	int now = atomic_load(&luck);

	for (uint64_t set = spares_there & ~spares_free; set; set &= set - 1)
		own_locked(spares[__builtin_ctzll(set)].file);
	atomic_store(&luck, now); /* nothing was guessed wrong */
}

void spare_own_all(void)
{
	int saved = errno;

	if (lock_take()) {
		own_all_locked();
		lock_give();
	}
	errno = saved;
}

bool spare_hold(struct file *f)
{
	if (!lock_take())
		return false;
	if (spare_is_fresh(f))
		return true;
	lock_give();
	return false;
}

void spare_let_go(void)
{
	lock_give();
}

void spare_flagged(struct file *f, bool is_nonblocking)
{
	uint32_t i;

	if (likely(!atomic_load_explicit(&f->spare, memory_order_relaxed)))
		return;
	if (!lock_take())
		return;
	i = atomic_load(&f->spare);
	if (i)
		spares[i - 1].is_nonblocking = is_nonblocking;
	lock_give();
}

void spare_back(struct file *f)
{
	uint32_t i;

	if (!atomic_load_explicit(&f->spare, memory_order_relaxed))
		return;
	if (!lock_take()) {
		atomic_store(&f->spare, 0); /* its place is lost */
		return;
	}
	i = atomic_load(&f->spare);
	if (i && atomic_load(&f->mode) == MODE_PRONK) {
		atomic_store(&f->spare, 0);
		spares[i - 1].file = NULL;
		spares_free |= 1ull << (i - 1);
	} else if (i) { /* nothing to be told: its number is closed, or another file's */
		atomic_store(&f->spare, 0);
		spare_end((int)i - 1);
	}
	lock_give();
}

bool spare_drop(void)
{
	bool had;

	if (!lock_take())
		return false;
	had = spares_there != 0;
	while (spares_there)
		spare_give_away(first_of(spares_there));
	lock_give();
	atomic_store(&luck, -LUCK_LOST);
	return had;
}

void spare_evict(int fd)
{
	if (!lock_take())
		return;
	for (uint64_t set = spares_there; set; set &= set - 1) {
		int i = __builtin_ctzll(set);

		if (spares[i].fd != fd)
			continue;
		spare_give_away(i);
		atomic_store(&luck, -LUCK_LOST); /* no other one takes the number before the caller does */
	}
	lock_give();
}

void spare_fork_prepare(void)
{
	fork_has_lock = lock_take();
	if (fork_has_lock)
		own_all_locked();
}

void spare_fork_done(bool is_child)
{
	if (!fork_has_lock)
		return;
	/* where a socket could not be renewed it has been given away; what is left nobody's number leads to
	 */
	while (is_child && spares_there)
		spare_end(first_of(spares_there));
	lock_give();
}
