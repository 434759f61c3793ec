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

/* The error that waits at any of its services. */
static inline int errors_take(const struct file *f)
{
	int rc = error_take(handle_ep(file_ep(f, 0)));

	for (uint32_t i = 1; unlikely(f->also != NULL) && i < file_ep_count(f) && !rc; i++)
		if (file_ep(f, i) != ENDPOINT_NONE)
			rc = error_take(handle_ep(file_ep(f, i)));
	return rc;
}

/* Whether it still has the endpoint. */
static inline bool half_has(const struct file *f, uint32_t handle)
{
	uint32_t i = 0;

	while (i < file_ep_count(f) && file_ep(f, i) != handle)
		i++;
	return i < file_ep_count(f);
}

/* Bytes that wait to be sent, at all of them. */
static inline uint32_t tx_used(const struct file *f)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < file_ep_count(f); i++)
		n += ep_tx_used(handle_ep(file_ep(f, i)));
	return n;
}

/* dgram_half.c; all with the file's lock. 0 or -E.
 * half_bind: the first endpoint, bound to a, whose port is filled in; half_bind_others: with the same port at
 * all other services (what is there stays when one fails). half_release: all of them are gone, and the port
 * is free, or 20 ms are over. half_connect: the endpoint that leads to the peer has it and becomes the first,
 * the others are deaf; family 0 dissolves. half_deafen: all of them are. half_is_one: bound to the address of
 * one service, and there alone. */
bool half_is_one(const struct file *f);
int half_bind(struct service *s, struct file *f, struct sock_addr *a);
int half_bind_others(struct file *f);
void half_release(struct file *f);
int half_connect(struct file *f, const struct sock_addr *to);
int half_deafen(struct file *f);

/* 0, or what the kernel says of such an array. readv(2) */
int dgram_iov_check(const struct iovec *iov, size_t count);

/* An error of the kernel half goes before what Pronk's half does for a socket whose peer is there. */
int dgram_kernel_error_take(const struct file *f, int fd);
