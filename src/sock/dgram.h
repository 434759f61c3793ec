/* dgram.h - datagram sockets: their state beside struct file, and the calls on them.
 *
 * A datagram socket may be the kernel's and Pronk's at once (MODE_DUAL): it receives from both sides and
 * sends by destination. Its kernel descriptor keeps the options, so most of them need no second opinion.
 * dgram.c has state and names, dgram_send.c and dgram_recv.c move messages, cmsg.c control messages,
 * opt_dgram.c options.
 *
 * Unless noted: any thread; returns 0 or a count, -E as the man page of the call says, or SOCK_LIBC. udp(7)
 */
#pragma once
#include "sock.h"

/* A group this socket has joined through the port. */
struct dgram_group {
	struct dgram_group *next;
	uint8_t ip[4];
	bool is_told;            /* the stack knows of it */
	struct service *service; /* through whose port */
};

struct dgram {
	/* state, under the file's lock */
	bool is_auto;      /* the port was chosen at first use: it goes with the association */
	bool is_parked;    /* is_auto, and let go, but hidden only: port_let_go */
	bool is_specific;  /* bound to one address */
	bool has_kernel;   /* the kernel half is bound to the same port */
	bool kernel_peer;  /* connected through the kernel half; ours is closed to everybody then */
	bool is_local;     /* its source address is a loopback one: nothing leaves the host with it */
	bool is_off;       /* the kernel half drops what arrives */
	bool is_kernels;   /* an option was set that only the kernel has: stays with it */
	bool mcast_kernel; /* IP_MULTICAST_IF named an interface of the kernel */
	uint32_t mcast_if; /* the address it named, network order */
	struct service *mcast_service; /* whose port it named, or NULL */
	uint32_t shut;                 /* APP_SHUT_*: what shutdown(2) has said so far */
	struct dgram_group *groups;

	/* options as they were set last; the kernel half holds them for getsockopt */
	int reuseaddr, reuseport, sndbuf, rcvbuf, tos, ttl;
	uint64_t rcvtimeo_ns, sndtimeo_ns; /* 0 = none */
	int broadcast, no_check, priority, timestamp, timestampns, rxq_ovfl;
	int mcast_ttl, mcast_loop, mcast_all, pktinfo, recvttl, recvtos, origdst, mtu_discover, pktinfo6;
	int cork;

	/* MSG_MORE, UDP_CORK: the datagram that grows; under cork_lock */
	_Atomic uint32_t cork_lock;
	_Atomic int cork_side; /* enum dgram_side */
	uint8_t *cork_data;
	uint32_t cork_size;
	struct dgram_head *cork_head;

	_Atomic uint32_t turn;         /* receives so far: now and then the kernel's side goes first */
	_Atomic uint32_t service_turn; /* the same among services */
	_Atomic uint64_t stamp_ns;     /* when the last datagram that was read came */
};

enum dgram_side { SIDE_NONE, SIDE_PRONK, SIDE_KERNEL };

/* What sendmsg's control messages ask for. */
struct cmsg_out {
	struct sock_addr from; /* family 0: nothing */
	int tos, ttl;          /* -1: nothing */
	struct service *by;    /* the interface is this one's port; NULL: nothing */
	bool is_kernels;       /* the source is an address that only the kernel can have */
};

/* After a successful libc socket(). False without memory. */
bool dgram_opened(struct file *f);
/* A socket that came from another process: finds out from both halves what the other one knew. */
void dgram_import(struct file *f, int fd);
/* The last reference has gone. */
void dgram_end(struct file *f);

int dgram_bind(struct file *f, int fd, const struct sockaddr *addr, socklen_t len);
int dgram_connect(struct file *f, int fd, const struct sockaddr *addr, socklen_t len);
int dgram_shutdown(struct file *f, int fd, int how);
int dgram_name(struct file *f, struct sockaddr *addr, socklen_t *len, bool is_peer);
int dgram_ioctl(struct file *f, int fd, unsigned long request, void *arg);

/* sendmsg(2) of a socket that is not ours to nobody: its error, after which the kernel has given it a port.
 */
ssize_t dgram_send_nowhere(struct file *f, int fd, const struct msghdr *msg, int flags);
/* sendmsg(2) and recvmsg(2). is_batch: the caller rings the doorbell itself (dgram_flush) after the last of
 * several. */
ssize_t dgram_send(struct file *f, int fd, const struct msghdr *msg, int flags, bool is_batch);
void dgram_flush(struct file *f);
ssize_t dgram_recv(struct file *f, int fd, struct msghdr *msg, int flags);
/* recvmmsg(2), sendmmsg(2) for sockets of either type. */
int sock_sendmmsg(struct file *f, int fd, struct mmsghdr *msgs, unsigned int count, int flags);
int sock_recvmmsg(struct file *f, int fd, struct mmsghdr *msgs, unsigned int count, int flags,
        struct timespec *timeout);

/* sendfile(2) and splice(2) with a datagram socket of ours; sock_sendfile and sock_splice have checked the
 * other descriptor (splice_dgram.c). Bytes, -E or SOCK_LIBC. */
ssize_t dgram_sendfile(struct file *f, int fd, int in, off64_t *offset, size_t count);
ssize_t dgram_splice(struct file *f, int fd, bool is_in, int other, size_t count, unsigned int flags);

/* Sends what UDP_CORK has gathered. */
void dgram_uncork(struct file *f, int fd);

int dgram_getopt(struct file *f, int fd, int level, int name, void *value, socklen_t *len);
int dgram_setopt(struct file *f, int fd, int level, int name, const void *value, socklen_t len);

/* --- between the files of datagram sockets --- */

/* Whether datagrams to this address leave through Pronk. The process must be attached. */
bool dgram_is_pronk(const struct file *f, const struct sock_addr *to);
/* A socket that is not ours yet is about to have its first peer: true when a rule leaves it to the kernel,
 * which then keeps it. */
bool dgram_rule_applies(struct file *f, int fd, const struct sock_addr *to);
/* Joins the service if this address could be Pronk's; false: the kernel serves it. Blocks the first time. */
bool dgram_attach(const struct sock_addr *to);
/* Makes Pronk's half of a socket that is the kernel's so far (autobind), at the service that leads to an
 * address; NULL: at the first. Takes the file's lock. 0 or -E. */
int dgram_open_half(struct file *f, int fd, const struct sock_addr *to);
/* The service by which datagrams to this address leave when dgram_is_pronk says that they do. */
struct service *dgram_service(const struct file *f, const struct sock_addr *to);
/* The handle of the endpoint that sends to this address, or from that one if its family is not 0. A wildcard
 * socket gets one at that service with its first datagram there. Takes the file's lock then. 0 or -E. */
int dgram_way(struct file *f, const struct sock_addr *from, const struct sock_addr *to, uint32_t *handle);
/* A wildcard socket's endpoint at a service, made if it is not there. With the file's lock. 0 or -E. */
int dgram_at(struct file *f, struct service *s, uint32_t *handle);
/* It has a peer, at a service that has died; others live. */
bool dgram_is_cut(const struct file *f);
/* Threads that sleep for input look again: what there is to wait for has changed. */
void dgram_nudge(const struct file *f);
/* Makes sure that the kernel half may send: binds it to the same port. Takes the file's lock. 0, or
 * -ENETUNREACH when the kernel does not have the address that the socket is bound to. */
int dgram_kernel_half(struct file *f, int fd);
/* Whether it has a peer, on either side. */
bool dgram_is_connected(const struct file *f);
/* A port that had been hidden (is_parked) shows again. Takes the file's lock. */
void dgram_unpark(struct file *f, int fd);
/* Gives up an automatic port, with Pronk's half where that is possible. Takes the file's lock. */
void dgram_let_go(struct file *f, int fd);
/* connect(2) has gone well: a datagram that grows goes there, too. */
void dgram_cork_follow(struct file *f, const struct sock_addr *to);
/* The bytes of the datagram that grows, with its head; 0 without one. */
uint32_t dgram_corked(struct file *f);
/* The MTU of the way to an address of Pronk's. */
uint32_t dgram_mtu(const struct file *f, const struct sock_addr *to);
/* Reads all options from the kernel half. */
void dgram_options_take(struct file *f, int fd);
/* Tells the stack the groups that were joined before there was an endpoint. */
void dgram_groups_tell(struct file *f);
/* The kernel's number of the interface of a service's port, or 0. */
unsigned int dgram_ifindex(const struct service *s);

/* Parses control messages. 0 or -EINVAL. ip(7) */
int cmsg_parse(const struct file *f, const struct msghdr *msg, struct cmsg_out *out);
/* Whether they name a source that is neither Pronk's address nor a loopback one. */
bool cmsg_is_kernels(const struct file *f, const struct msghdr *msg);
/* Writes what the socket wants to know of a received datagram; sets MSG_CTRUNC and msg_controllen. */
struct service;
void cmsg_write(const struct file *f, const struct service *s, struct msghdr *msg,
        const struct dgram_meta *meta, uint32_t drops);
/* The socket has joined this group through the service's port. */
bool dgram_has_group(const struct file *f, const struct service *s, const struct sock_addr *a);

/* Whether a descriptor of a socket in MODE_DUAL is only asked for input (datagrams), not for all events
 * (listeners). */
static inline bool dgram_is_dual(const struct file *f)
{
	return f->type == SOCK_DGRAM && atomic_load_explicit(&f->mode, memory_order_acquire) == MODE_DUAL;
}
