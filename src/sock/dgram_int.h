/* dgram_int.h - what the files of datagram transfer share. Application threads. */
#pragma once
#include "dgram.h"
#include "endpoint.h"
#include "proc.h"

#include <sys/uio.h>

static inline struct endpoint *ep_of(const struct file *f)
{
	return handle_ep(atomic_load_explicit(&f->ep, memory_order_acquire));
}

/* Whether anything has come, at any of its services. */
static inline bool rx_is_ready(const struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++)
		if (ep_rx_ready(handle_ep(file_ep(f, i))))
			return true;
	return false;
}

/* Takes the error that waits, as -E. */
static inline int error_take(struct endpoint *ep)
{
	if (likely(!atomic_load_explicit(&ep->error, memory_order_relaxed)))
		return 0;
	return -atomic_exchange(&ep->error, 0);
}

/* dgram_half.c; all with the file's lock. 0 or -E.
 * half_bind: the first endpoint, bound to a, whose port is filled in; half_bind_others: with the same port at
 * all other services (what is there stays when one fails). half_release: all of them are gone, and the port
 * is free, or 20 ms are over. half_connect: the endpoint that leads to the peer has it and becomes the first,
 * the others are deaf; family 0 dissolves. half_deafen: all of them are. */
int half_bind(struct service *s, struct file *f, struct sock_addr *a);
int half_bind_others(struct file *f);
void half_release(struct file *f);
int half_connect(struct file *f, const struct sock_addr *to);
int half_deafen(struct file *f);

/* 0, or what the kernel says of such an array. readv(2) */
int dgram_iov_check(const struct iovec *iov, size_t count);

/* An error of the kernel half goes before what Pronk's half does for a socket whose peer is there. */
int dgram_kernel_error_take(const struct file *f, int fd);
