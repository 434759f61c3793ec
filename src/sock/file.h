/* file.h - the descriptor table: what Pronk knows of a kernel descriptor number.
 *
 * Every Pronk socket has a real kernel descriptor. A struct file is what dup(2)'ed numbers share (an "open
 * file description"). A call takes a reference with file_get and gives it back with file_put; the memory of
 * files is never returned to the system, so a stale pointer is harmless. Closing the last number takes the
 * file out of its epoll sets; the last reference ends the socket.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "compiler.h"
#include "layout.h"

enum {
	OPT_ROW_MAX = 192, /* rows of sockopts.def, at most */
	FILE_ALSO = 8,     /* SERVICE_MAX */
};

enum file_kind { FILE_SOCKET, FILE_EPOLL };

/* Who serves a socket. */
enum file_mode {
	MODE_OPEN,   /* a kernel socket that may still become ours */
	MODE_KERNEL, /* decided: the kernel's */
	MODE_PRONK,  /* ours */
	MODE_DUAL,   /* a wildcard listener or a datagram socket: ours and the kernel's at once */
};

/* A socket at the wildcard address has an endpoint at each service: here are the others, by the number of the
 * service. ENDPOINT_NONE where there is none; under the file's lock. */
struct file_also {
	_Atomic uint32_t ep[FILE_ALSO];
};

struct dgram;
struct epoll_item;
struct epoll_set;

struct file {
	_Atomic uint32_t refs;     /* numbers plus calls under way */
	_Atomic uint32_t fd_count; /* numbers */
	uint8_t kind;              /* enum file_kind */
	_Atomic uint8_t mode;      /* enum file_mode */
	_Atomic bool is_nonblocking;
	_Atomic bool is_append; /* O_APPEND means nothing to a socket, but is shown as it was set */
	bool is_bound_here;     /* ep is a bound endpoint (not connected, not listening) */
	bool is_bound_there;    /* a bind was the kernel's to serve, and it did */
	bool is_tried_there;    /* so was a connect, perhaps: the kernel's socket may have a connection */
	bool has_connected;     /* connect() succeeded, or the socket was accepted */
	bool port_is_chance;    /* the last bind(2) asked for any port */
	bool may_bind_again;    /* ... and a connect has failed, or was dissolved, since */
	_Atomic bool connect_reported;
	_Atomic bool
	        is_disconnecting; /* shut down after the connection had ended unreported: no other connect */
	_Atomic bool death_told;  /* ECONNRESET for the service's death was returned once */
	uint16_t domain, type;
	struct sock_addr bound;       /* our address and port as bind(2) was told; family 0: none */
	int fd;                       /* the first number, for tools and messages */
	_Atomic uint32_t ep;          /* handle of the endpoint (service.h), or ENDPOINT_NONE */
	_Atomic uint32_t lock;        /* state changes: bind, listen, connect, options */
	uint32_t rx_pieces, rx_bytes; /* consumed since the last doorbell; under the endpoint's rx_lock */

	uint64_t opt_set[OPT_ROW_MAX / 64]; /* options: rows of sockopts.def that the program has set */

	_Atomic bool is_connecting; /* a thread is about to make it ours (connect.c): others wait a moment */
	_Atomic uint32_t spare;     /* the kernel socket behind its numbers is one of spare.c's; 0: its own */
	struct ep_opts *opts;       /* on the way to an endpoint, see opt.h; else file_no_opts */
	struct epoll_item *items;   /* epoll memberships (epoll_set.c) */
	struct epoll_set *set;      /* FILE_EPOLL */
	struct dgram *dg;           /* SOCK_DGRAM: dgram.h */
	_Atomic(struct file_also *)
	        also; /* endpoints at other services, or NULL; goes with the last reference */
	struct file *next_free;
};

/* The handles of the socket's endpoints, counted from 0, its own first: ENDPOINT_NONE where there is none, to
 * be skipped. */
static inline uint32_t file_ep_count(const struct file *f)
{
	return likely(!atomic_load_explicit(&f->also, memory_order_acquire)) ? 1 : 1 + FILE_ALSO;
}

static inline uint32_t file_ep(const struct file *f, uint32_t i)
{
	return atomic_load_explicit(i ? &f->also->ep[i - 1] : &f->ep, memory_order_acquire);
}

/* The file behind a number with a reference taken, or NULL when Pronk has nothing to do with it. Any thread;
 * never blocks. */
struct file *file_get(int fd);
void file_put(struct file *f);

/* The options of files that have none of their own: all zero. */
extern struct ep_opts file_no_opts;

/* Gives a file options of its own, with what is in them undefined; false without memory. Takes them back:
 * whoever still looks at them in another thread sees some other socket's, but no foreign memory. With
 * f->lock. */
bool file_opts_take(struct file *f);
void file_opts_drop(struct file *f);

/* Cheap: might this number be ours? */
bool file_known(int fd);
/* Cheaper: has any number ever been? */
bool file_any(void);

/* Whether the number still means this file: it may have been closed during a call. */
bool file_has(const struct file *f, int fd);

/* A new file for a number (one reference, held by the number). NULL without memory. */
struct file *file_open(int fd, enum file_kind kind);

/* A new file for a number, as another process's table described it (src/sock/pass.c): everything but what
 * belongs to a table, and its endpoint, which is ep. Pointers that a struct file gets must be cleared here.
 * NULL without memory. */
struct file *file_import(int fd, const struct file *saved, uint32_t ep);

/* The socket of this process that has the endpoint, as its own or as a further one, with a reference taken,
 * or NULL. Looks at every number. */
struct file *file_find_ep(uint32_t ep);

/* Another reference to a file that the caller has one of. */
struct file *file_ref(struct file *f);

/* Makes another number mean the same file. 0, -EMFILE, or -EBADF when its last number has gone meanwhile. */
int file_dup(struct file *f, int fd);

/* Takes the number out of the table; the kernel's descriptor is the caller's business. False when it was not
 * ours. */
bool file_close(int fd);

/* The next number of the file after fd (-1: the first), or -1. Slow. */
int file_number_after(const struct file *f, int fd);

/* Makes all numbers of the file duplicates of fd, whatever they were; close-on-exec stays as it is. A number
 * that another thread closes meanwhile is left alone. */
void file_renumber(struct file *f, int fd);

/* Calls fn for each number in [first, last]. */
void file_each(int first, int last, void (*fn)(int fd));

/* Gives a socket room for endpoints at other services. False without memory. With the file's lock. */
bool file_also_take(struct file *f);

/* Calls fn with the handle of every endpoint of every socket of ours. Between file_fork_prepare and
 * file_fork_done. */
void file_each_ep(void (*fn)(uint32_t ep));

/* In a process that has nothing of the application's but its memory: the table is empty, and free. */
void file_forget_all(void);

/* Around fork: no table change is under way when the child is made. */
void file_fork_prepare(void);
void file_fork_done(bool is_child);
