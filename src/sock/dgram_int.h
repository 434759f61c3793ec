/* dgram_int.h - what the files of datagram transfer share. Application threads. */
#pragma once
#include "dgram.h"
#include "endpoint.h"
#include "proc.h"

#include <sys/uio.h>

static inline struct endpoint *ep_of(const struct file *f)
{
	return proc_ep(atomic_load_explicit(&f->ep, memory_order_acquire));
}

/* Takes the error that waits, as -E. */
static inline int error_take(struct endpoint *ep)
{
	if (likely(!atomic_load_explicit(&ep->error, memory_order_relaxed)))
		return 0;
	return -atomic_exchange(&ep->error, 0);
}

/* 0, or what the kernel says of such an array. readv(2) */
int dgram_iov_check(const struct iovec *iov, size_t count);

/* An error of the kernel half goes before what Pronk's half does for a socket whose peer is there. */
int dgram_kernel_error_take(const struct file *f, int fd);
