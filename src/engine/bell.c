/* bell.c - descriptors for the sleep of an engine's background thread (inline.c). Any thread rings, that one
 * waits. */
#include "bell.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"

static int fd_watch(int epoll_fd, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int bell_open(struct bell *b, int control_fd, int port_fd)
{
	int rc;

	b->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->quiet_epoll = epoll_create1(EPOLL_CLOEXEC);
	b->port_epoll = epoll_create1(EPOLL_CLOEXEC);
	if (b->ring_fd < 0 || b->quiet_epoll < 0 || b->port_epoll < 0)
		return -errno;
	if ((rc = fd_watch(b->quiet_epoll, b->ring_fd)) || (rc = fd_watch(b->quiet_epoll, control_fd)) ||
	        (rc = fd_watch(b->port_epoll, b->quiet_epoll)))
		return rc;
	return fd_watch(b->port_epoll, port_fd);
}

void bell_ring(const struct bell *b)
{
	uint64_t one = 1;

	if (write(b->ring_fd, &one, sizeof(one)) < 0)
		return; /* it is readable anyway */
}

bool bell_wait(const struct bell *b, bool with_port, uint64_t limit_ns)
{
	struct timespec ts = {(time_t)(limit_ns / CLOCK_NS_PER_S), (long)(limit_ns % CLOCK_NS_PER_S)};
	struct epoll_event ev;

	return epoll_pwait2(with_port ? b->port_epoll : b->quiet_epoll, &ev, 1, &ts, NULL) != 0;
}

void bell_hush(const struct bell *b)
{
	uint64_t drop;

	if (read(b->ring_fd, &drop, sizeof(drop)) < 0)
		return; /* nobody rang */
}
