/* poll_set.h - poll and select over kernel and Pronk descriptors at once. */
#pragma once
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/select.h>
#include <time.h>

/* ppoll(2). timeout_ns UINT64_MAX waits for ever; mask may be NULL. A count, -E, or SOCK_LIBC when all
 * descriptors are the kernel's. Any thread; blocks. */
int poll_wait(struct pollfd *fds, nfds_t count, uint64_t timeout_ns, const sigset_t *mask);

/* pselect(2), by way of poll. Sets are changed only when it returns >= 0. A count, -E, or SOCK_LIBC. */
int select_wait(int count, fd_set *rd, fd_set *wr, fd_set *ex, uint64_t timeout_ns, const sigset_t *mask);
