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

enum file_kind { FILE_SOCKET, FILE_EPOLL };

/* Who serves a socket. */
enum file_mode {
	MODE_OPEN,   /* a kernel socket that may still become ours */
	MODE_KERNEL, /* decided: the kernel's */
	MODE_PRONK,  /* ours */
	MODE_DUAL,   /* a wildcard listener: ours and the kernel's at once */
};

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
	bool has_connected;     /* connect() succeeded, or the socket was accepted */
	_Atomic bool connect_reported;
	_Atomic bool death_told; /* ECONNRESET for the service's death was returned once */
	uint16_t domain, type;
	int fd;                       /* the first number, for tools and messages */
	_Atomic uint32_t ep;          /* endpoint index, or ENDPOINT_NONE */
	_Atomic uint32_t lock;        /* state changes: bind, listen, connect, options */
	uint32_t rx_pieces, rx_bytes; /* consumed since the last doorbell; under the endpoint's rx_lock */

	/* options, as getsockopt shows them */
	int nodelay, keepalive, reuseaddr, reuseport, cork, oobinline, tos, ttl;
	int keepidle, keepintvl, keepcnt, user_timeout, sndbuf, rcvbuf, rcvlowat;
	bool sndbuf_set, rcvbuf_set; /* by the program */
	int append;                  /* O_APPEND or 0 */
	int linger_on, linger_s;
	uint64_t rcvtimeo_ns, sndtimeo_ns; /* 0 = none */

	_Atomic uint32_t items_lock;
	struct epoll_item *items; /* epoll memberships */
	struct epoll_set *set;    /* FILE_EPOLL */
	struct file *next_free;
};

/* The file behind a number with a reference taken, or NULL when Pronk has nothing to do with it. Any thread;
 * never blocks. */
struct file *file_get(int fd);
void file_put(struct file *f);

/* Cheap: might this number be ours? */
bool file_known(int fd);

/* A new file for a number (one reference, held by the number). NULL without memory. */
struct file *file_open(int fd, enum file_kind kind);

/* Makes another number mean the same file. */
int file_dup(struct file *f, int fd);

/* Takes the number out of the table; the kernel's descriptor is the caller's business. False when it was not
 * ours. */
bool file_close(int fd);

/* Calls fn for each number in [first, last]. */
void file_each(int first, int last, void (*fn)(int fd));

/* Calls fn with the endpoint of every socket of ours. Between file_fork_prepare and file_fork_done. */
void file_each_ep(void (*fn)(uint32_t ep));

/* Around fork: no table change is under way when the child is made. */
void file_fork_prepare(void);
void file_fork_done(bool is_child);
