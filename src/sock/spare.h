/* spare.h - kernel sockets that socket(2) hands out by duplicates, and gets back.
 *
 * A stream socket that is going to be Pronk's needs a number, and a kernel socket behind it that answers
 * while it is undecided; a program that connects often would make and destroy one for each connection. So a
 * few are kept: each has a number of the library's own (100 and above, close-on-exec), and the program's
 * number is a duplicate of it. One is never behind two files at a time. Nothing is ever done to it that
 * another socket could see: before the kernel's socket is used, and before another process gets it, the file
 * gets one of its own (spare_own). Plain options are kept in the file until then.
 *
 * Locks, in this order: a file's, the one in spare.c, the table's.
 */
#pragma once
#include "sock.h"

/* socket(2) for the application. SOCK_LIBC: by libc, as ever. Never an error. */
int spare_socket(int domain, int type, int protocol);

/* A socket of this process has become Pronk's by connect(2), or (by spare_own) has not. */
void spare_connected(void);

void spare_own_now(struct file *f);
/* The kernel's socket behind the file's numbers is about to be used, or to become known outside of this
 * process: afterwards it is the file's alone, new, and has the options that were set. Any thread, also with
 * f->lock. */
static inline void spare_own(struct file *f)
{
	if (unlikely(atomic_load_explicit(&f->spare, memory_order_acquire) != 0))
		spare_own_now(f);
}
/* The same for all files. */
void spare_own_all(void);

/* A socket that has a spare one behind it, and that nobody has decided about: what is asked of the kernel's
 * socket can only be what a new one answers. */
static inline bool spare_is_fresh(struct file *f)
{
	return atomic_load_explicit(&f->spare, memory_order_acquire) &&
	       atomic_load_explicit(&f->mode, memory_order_acquire) == MODE_OPEN;
}

/* Holds a socket in that state: true, and nothing changes it before spare_let_go; or false. */
bool spare_hold(struct file *f);
void spare_let_go(void);

/* F_SETFL or FIONBIO was the kernel's to do. */
void spare_flagged(struct file *f, bool is_nonblocking);
/* The file's last number has gone. */
void spare_back(struct file *f);
/* No number is left for the application: gives up those that are kept here. True when there were some. */
bool spare_drop(void);
/* The application wants just this number. */
void spare_evict(int fd);

/* Around fork(2). Every socket gets a kernel socket of its own before the child is made, as the two will
 * share it. */
void spare_fork_prepare(void);
void spare_fork_done(bool is_child);
