/* wait.h - a thread that waits for one socket: spin, announce, look again, sleep. */
#pragma once
#include <sys/socket.h>

#include "file.h"
#include "latency.h"
#include "service.h"

/* A spin loop of this thread before it sleeps: for app_spin_us, but not while that only costs it the core
 * (spin.h). Inside, nothing may be held. */
struct wait_spin {
	uint64_t now_ns, end_ns;
};
/* now_ns: the time. False: no spinning now. */
bool wait_spin_start(struct wait_spin *w, uint64_t now_ns, uint64_t deadline_ns);
/* One pause. False: it has been long enough. */
bool wait_spin_turn(struct wait_spin *w);

/* For the latency histograms: a thread has slept for something of ours. */
static inline void wait_note_awake(void)
{
	for (uint32_t i = 0; i < service_count(); i++)
		if (latency_is_on(&services[i].at.arena)) {
			latency_awake();
			return;
		}
}

#define WAIT_FOREVER UINT64_MAX
/* How often a thread that sleeps in the kernel for a datagram socket looks whether it has become ours. */
enum { WAIT_LOOK_NS = 10000000 };

/* Present events of a Pronk socket; when `want` has EPOLLOUT and there is no room, asks the stack to tell
 * when there is. Any thread. */
uint32_t wait_level(struct file *f, uint32_t want);

/* Waits until the socket has one of events (EPOLL bits; error and hang-up always count; EPOLLEXCLUSIVE: a
 * connection wakes one of those that wait so) or deadline_ns
 * (clock_now_ns; WAIT_FOREVER) passes. kernel_fd >= 0 is watched for input too. 0 when there is something, or
 * when a datagram socket has got a kernel half that this wait for input knows nothing of; -EAGAIN on timeout,
 * -EINTR. Blocks. Without a deadline a signal whose handler has SA_RESTART does not end
 * it, as for the kernel's calls. */
int wait_for(struct file *f, uint32_t events, uint64_t deadline_ns, int kernel_fd);

/* An exclusive waiter goes away: if a connection waits, the others are told. Any thread. */
void wait_nudge(struct file *f);
/* The same for one that goes on: when connections wait at several services, and each may have called this
 * waiter alone. */
void wait_nudge_rest(struct file *f);
/* Whether a call that was interrupted by a signal begins anew: what the kernel would have done by itself. */
bool wait_restarts(void);
/* Sleeps a little, for a call on f. 0 or -EINTR.
 * In this and in wait_for a thread may be cancelled: the call's own reference to f is given back then, so the
 * caller must hold that one and nothing else. */
int wait_nap(struct file *f, uint64_t nap_ns);

/* The same for calls that wait for the kernel's half alone: poll(2) for one descriptor (0, -EAGAIN when the
 * time is over, or -E), recvmsg(2) and sendmsg(2) (a count or -E; with MSG_DONTWAIT no cancellation points).
 */
int wait_kernel(struct file *f, int fd, short events, uint64_t deadline_ns);
ssize_t wait_recvmsg(struct file *f, int fd, struct msghdr *msg, int flags);
ssize_t wait_sendmsg(struct file *f, int fd, const struct msghdr *msg, int flags);

/* A thread's poller at a service, and the descriptor that becomes readable when it is woken. */
struct wait_poller {
	struct service *service;
	int number, wake_fd;
};
/* The calling thread's, made at its first use; 0, or -E: it cannot have one. */
int wait_poller(struct service *s, struct wait_poller *out);
/* Empties the poller's ready list, and with is_all its descriptor, too. */
void wait_drain(const struct wait_poller *p, bool is_all);
/* Gives a watch back and waits (a few instructions) until it is free. */
void wait_release(uint32_t watch, const struct wait_poller *p);

/* In a forked child: the parent's poller is not ours. */
/* A call with a signal mask goes on after a look at something of ours: a signal that the mask lets through
 * and that came meanwhile is taken now. -EINTR then, else 0; 0 without a mask. */
int wait_signal(const sigset_t *mask);

void wait_fork_child(void);
