/* sock.h - BSD socket calls on descriptors that Pronk knows. The shim decides "ours or libc" and turns -E
 * into errno.
 *
 * Unless noted: any thread; returns 0 or a count, or -E as the man page of the call says. SOCK_LIBC means
 * "the kernel serves this one": the shim then makes the real call.
 */
#pragma once
#include "file.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define SOCK_LIBC INT_MIN

/* After a successful libc socket(): notes a TCP or UDP socket that may become ours. */
void sock_opened(int fd, int domain, int type, int protocol);

/* socket(7), bind(2), listen(2), accept(2), connect(2), shutdown(2), getsockname(2), getpeername(2). listen
 * and connect may start or join the service the first time. */
int sock_bind(struct file *f, int fd, const struct sockaddr *addr, socklen_t len);
int sock_listen(struct file *f, int fd, int backlog);
int sock_accept(struct file *f, int fd, struct sockaddr *addr, socklen_t *len, int flags);
int sock_connect(struct file *f, int fd, const struct sockaddr *addr, socklen_t len);
int sock_shutdown(struct file *f, int fd, int how);
int sock_name(struct file *f, struct sockaddr *addr, socklen_t *len, bool is_peer);

/* recv(2) and send(2) in their widest form. is_peek etc. come in flags (MSG_*). */
ssize_t sock_recv(struct file *f, const struct iovec *iov, int count, int flags);
/* What recvmsg(2) and sendmsg(2) look at before they ask a stream; what recvmsg tells when it has data. */
ssize_t sock_msg_check(const struct msghdr *msg, bool is_send);
void sock_msg_received(struct msghdr *msg, int flags);
ssize_t sock_send(struct file *f, const struct iovec *iov, int count, int flags);
/* sendfile(2) by copying; in is any readable kernel descriptor. */
ssize_t sock_sendfile(struct file *f, int fd, int in, off64_t *offset, size_t count);

/* splice(2) by copying: fd is ours and the source (is_in) or the destination; other is the pipe (splice.c).
 */
ssize_t sock_splice(struct file *f, int fd, bool is_in, int other, const off64_t *own_offset,
        const off64_t *other_offset, size_t count, unsigned int flags);

/* getsockopt(2), setsockopt(2) (opt.c) */
int sock_getopt(struct file *f, int fd, int level, int name, void *value, socklen_t *len);
int sock_setopt(struct file *f, int fd, int level, int name, const void *value, socklen_t len);

/* fcntl(2) F_GETFL/F_SETFL and ioctl(2) FIONREAD, FIONBIO, SIOCOUTQ on ours. */
int sock_getfl(struct file *f, int fd);
int sock_setfl(struct file *f, int fd, int flags);
int sock_ioctl(struct file *f, int fd, unsigned long request, void *arg);

/* The kernel's socket behind a number is a TCP socket without a connection. */
bool sock_kernel_is_closed(int fd);
/* A port that the program may not have: the kernel's EACCES for it, else 0. Asked for an address that the
 * kernel may not have, so that its own bind(2) would not come to that question. */
int sock_port_refused(const struct file *f, const struct sockaddr *addr, socklen_t len);

/* The failure of a connect was told to the program: the socket is unconnected again and may try once more. */
void sock_connect_failed(struct file *f);

/* close(2) with SO_LINGER: waits as long as the option says. Called before the last number goes. */
void sock_linger(struct file *f);
/* The last reference has gone. */
void sock_end(struct file *f);

/* --- inside src/sock --- */
/* In a forked child, for accept.c. */
void accept_fork_child(void);

static inline bool sock_is_ours(const struct file *f)
{
	uint8_t m = atomic_load_explicit(&f->mode, memory_order_acquire);

	return m == MODE_PRONK || m == MODE_DUAL;
}

/* Of connect.c. As sock_is_ours, and when another thread's connect(2) is asking the service at this moment,
 * what comes of it: the peer may have the connection before that thread knows. Waits 100 ms at most. */
bool sock_is_ours_soon(struct file *f);

/* O_NONBLOCK. Once there is an endpoint it is kept there, as processes that share the socket share the flag.
 */
bool sock_is_nonblocking(struct file *f);
void sock_set_nonblocking(struct file *f, bool on);

/* Of sock.c, for connect.c. With the file's lock: reserves the address with a service, which may choose the
 * port (-E of bind(2)); takes over what the application has set on the kernel's socket; shows tools the
 * number. */
struct service;
int sock_bind_here(struct service *s, struct file *f, struct sock_addr *a, uint32_t flags);
/* The same without making the endpoint the socket's: *ep is its handle. */
int sock_bind_at(struct service *s, struct file *f, struct sock_addr *a, uint32_t flags, uint32_t *ep);
/* CALL_F_ flags of a bind or listen that follow from options. */
uint32_t sock_call_flags(struct file *f);
void sock_options_take(struct file *f, int fd);
/* All numbers get a kernel socket of their own that is new, but for SO_REUSEADDR and, of
 * an undecided one, the options that are kept here. 0, or -E: nothing has
 * changed. With the file's lock. */
int sock_renew(struct file *f);
void sock_publish(struct file *f);

/* Tells the stack that this process no longer holds the endpoint, a handle (RELEASE_*). Nothing happens for
 * ENDPOINT_NONE. */
void sock_ep_release(uint32_t ep, uint32_t how);
/* The same, and of a listener that nobody else holds waits (20 ms at most) until nobody is let in any more.
 */
void sock_ep_end(uint32_t ep, uint32_t how);
/* Ends what a wildcard socket has at other services (struct file_also). */
void sock_others_end(struct file *f, uint32_t how);

/* The service that the socket is at has died: all of them, when it is at several. */
bool sock_is_dead(const struct file *f);
/* The same after a look at their control connections: a system call for each. */
bool sock_check_dead(const struct file *f);

/* 0 and the address (IPv4-mapped IPv6 as IPv4), or -EINVAL / -EAFNOSUPPORT. */
int addr_from_user(struct sock_addr *a, const struct sockaddr *addr, socklen_t len);
/* Writes an address as a socket of this domain shows it; truncates as the kernel does. 0, -EFAULT or -EINVAL
 * for a length or a place that cannot be. */
int addr_to_user(const struct sock_addr *a, int domain, struct sockaddr *addr, socklen_t *len);
uint64_t deadline_after(uint64_t timeout_ns);
