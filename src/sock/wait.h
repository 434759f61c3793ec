/* wait.h - a thread that waits for one socket: spin, announce, look again, sleep. */
#pragma once
#include "file.h"

#define WAIT_FOREVER UINT64_MAX

/* Present events of a Pronk socket; when `want` has EPOLLOUT and there is no room, asks the stack to tell
 * when there is. Any thread. */
uint32_t wait_level(struct file *f, uint32_t want);

/* Waits until the socket has one of events (EPOLL bits; error and hang-up always count) or deadline_ns
 * (clock_now_ns; WAIT_FOREVER) passes. kernel_fd >= 0 is watched for input too. 0 when there is something,
 * -EAGAIN on timeout, -EINTR. Blocks. Without a deadline a signal whose handler has SA_RESTART does not end
 * it, as for the kernel's calls. */
int wait_for(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd);

/* This thread's poller and the descriptor that becomes readable when it is woken, or -E. */
int wait_poller(int *wake_fd);
/* Empties the poller's ready list and its descriptor. */
void wait_drain(int poller, int wake_fd);
/* Gives a watch back and waits (a few instructions) until it is free. */
void wait_release(uint32_t watch, int poller);

/* In a forked child: the parent's poller is not ours. */
void wait_fork_child(void);
