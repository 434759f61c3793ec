/* epoll_set.h - epoll instances: a kernel epoll with a ready list of Pronk members beside it.
 *
 * The kernel's members live in the kernel's set. A set gets a poller and an event fd when its first Pronk
 * member comes. Level, edge and one-shot are decided in one place (collect).
 */
#pragma once
#include "file.h"

#include <signal.h>
#include <sys/epoll.h>
#include <time.h>

struct epoll_set;

/* After a successful libc epoll_create: makes the set known. */
void epoll_opened(int epfd);

/* epoll_ctl(2). 0, -E, or SOCK_LIBC when Pronk has no part in it. Any thread; never blocks (the first member
 * may talk to the service). */
int epoll_ctl_file(struct file *ef, int epfd, int op, int fd, struct epoll_event *event);

/* epoll_pwait2(2); timeout_ns UINT64_MAX waits for ever. A count, -E, or SOCK_LIBC. Blocks. */
int epoll_wait_file(struct file *ef, int epfd, struct epoll_event *events, int max, uint64_t timeout_ns,
        const sigset_t *mask, size_t mask_size);

/* True when a wait on this set would find a Pronk member ready; arms the set so that its kernel descriptor
 * becomes readable when one does (nested sets, poll on an epoll descriptor). */
bool epoll_set_armed_ready(struct file *ef);

/* A socket changed sides (kernel to Pronk): moves its memberships. Called with the file's lock. */
void epoll_file_changed(struct file *f);
/* Something happened to a socket that no stack tells of: members that are ready are told again, as an edge.
 */
void epoll_file_poke(struct file *f);
/* The last number of a file was closed: it leaves every set. */
void epoll_file_closed(struct file *f);
/* Its endpoint is about to be replaced: its watches go, its memberships stay. */
void epoll_file_closed_ep(struct file *f);
void epoll_set_destroy(struct epoll_set *set);
/* The number it was made with is being closed, this is another one of it. */
void epoll_set_number(struct epoll_set *set, int epfd);
/* Around fork: no set is changing while the child is made. */
void epoll_fork_prepare(void);
void epoll_fork_parent(void);
void epoll_fork_child(void);
