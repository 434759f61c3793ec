/* epoll_side.c - the kernel halves of datagram sockets in an epoll set.
 *
 * Runs in application threads, with the set's lock. A datagram socket that is the kernel's and Pronk's at
 * once must be one member with one edge and one shot. So its kernel half is not a member of the kernel's set
 * but of a second one beside it, which says "look at this one" as stacks do by watches; level, edge and
 * one-shot are then decided in collect (epoll_wait.c) for both halves together. The second set is itself a
 * member of the first, so that a sleeper wakes. Looks are raw system calls: no thread is cancelled with the
 * lock.
 */
#include "dgram.h"
#include "epoll_int.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "raw.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { DRAIN_COUNT = 32 };
#define KERNEL_EVENTS (EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLERR | EPOLLHUP)

char epoll_mark_side;

static int side_open(struct epoll_set *s)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = &epoll_mark_side};
	int fd, high;

	if (s->side_fd >= 0)
		return 0;
	fd = libc.epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0)
		return -errno;
	high = libc.fcntl(fd, F_DUPFD_CLOEXEC, 100);
	if (high >= 0) {
		libc.close(fd);
		fd = high;
	}
	if (libc.epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		int rc = -errno;

		libc.close(fd);
		return rc;
	}
	s->side_fd = fd;
	proc_internal_fd_add(fd);
	atomic_fetch_add(&s->kernel_members, 1);
	return 0;
}

void epoll_side_update(struct epoll_set *s, struct epoll_item *it)
{
	struct epoll_event ev = {
	        .events = EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | (uint32_t)EPOLLET, .data.ptr = it};

	if (!dgram_is_dual(it->file)) {
		epoll_side_remove(s, it);
		return;
	}
	it->has_input = true; /* not known: look */
	if (it->in_side || side_open(s))
		return;
	if (libc.epoll_ctl(s->side_fd, EPOLL_CTL_ADD, item_number(it), &ev) < 0) {
		log_debug("fd %d: side set: %s", it->fd, strerror(errno));
		return;
	}
	it->in_side = true;
	it->side_next = s->side;
	s->side = it;
}

void epoll_side_remove(struct epoll_set *s, struct epoll_item *it)
{
	if (!it->in_side)
		return;
	if (item_has_number(it))
		libc.epoll_ctl(s->side_fd, EPOLL_CTL_DEL, it->fd, NULL);
	it->in_side = false;
	for (struct epoll_item **pp = &s->side; *pp; pp = &(*pp)->side_next)
		if (*pp == it) {
			*pp = it->side_next;
			break;
		}
}

void epoll_side_drain(struct epoll_set *s)
{
	struct epoll_event ev[DRAIN_COUNT];
	struct epoll_item *it;
	int n;

	if (s->side_fd < 0)
		return;
	do {
		n = (int)RAW(SYS_epoll_pwait, s->side_fd, ev, DRAIN_COUNT, 0, NULL, 0);
		for (int i = 0; i < n; i++) {
			/* a number that was closed while its socket lives under another may still be told */
			for (it = s->side; it && it != ev[i].data.ptr; it = it->side_next)
				;
			if (!it)
				continue;
			it->has_input = true;
			if (!it->is_spent)
				ready_add(s, it);
		}
	} while (n == DRAIN_COUNT);
}

void epoll_side_close(struct epoll_set *s)
{
	if (s->side_fd < 0)
		return;
	proc_internal_fd_remove(s->side_fd);
	libc.close(s->side_fd);
	s->side_fd = -1;
	for (struct epoll_item *it = s->side; it; it = it->side_next)
		it->in_side = false;
	s->side = NULL;
	atomic_fetch_sub(&s->kernel_members, 1);
}

uint32_t epoll_item_level(struct epoll_item *it)
{
	uint32_t ev = wait_level(it->file, it->events);
	struct pollfd p = {
	        .fd = it->in_side ? item_number(it) : -1, .events = POLLIN | POLLRDNORM | POLLRDHUP};
	struct timespec zero = {0}; /* the call writes into it */

	if (!it->in_side || !it->has_input)
		return ev;
	if (RAW(SYS_ppoll, &p, 1, &zero, NULL, 0) <= 0) {
		it->has_input = false; /* what comes later is told by the side set */
		return ev;
	}
	return ev | ((uint32_t)(unsigned short)p.revents & KERNEL_EVENTS);
}
