/* dgram.c - a datagram socket's state: who serves it, its addresses, its association with a peer.
 *
 * Runs in application threads. The kernel descriptor stays what it is, an unbound or bound UDP socket;
 * Pronk's half is an endpoint with the same port. Which half a socket has: an autobound one begins with the
 * half that its first datagram needs and gets the other when it is needed; a bound one has both, unless one
 * side does not have the address. A half that must not receive (the peer is on the other side) is closed by a
 * filter: a socket filter in the kernel, a peer that never sends in the stack. What else there is: dgram_*.c.
 */
#include "dgram_int.h"
#include "epoll_set.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "raw.h"
#include "route.h"
#include "rule.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PORT_TRIES = 32,
	IP_DESTINATION = 16, /* where an IPv4 header has it */
};

bool dgram_opened(struct file *f)
{
	f->dg = calloc(1, sizeof(*f->dg));
	if (!f->dg)
		return false;
	f->dg->mcast_ttl = f->dg->mcast_loop = f->dg->mcast_all = 1;
	f->dg->mtu_discover = IP_PMTUDISC_WANT;
	return true;
}

/* The kernel half's name, or its peer's. False when it has none. */
static bool kernel_name(int fd, struct sock_addr *a, bool is_peer)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	return !(is_peer ? libc.getpeername : libc.getsockname)(fd, (struct sockaddr *)&ss, &len) &&
	       !addr_from_user(a, (struct sockaddr *)&ss, len) && a->port;
}

void dgram_import(struct file *f, int fd)
{
	struct dgram *d = f->dg;
	struct sock_addr a;

	dgram_options_take(f, fd);
	d->kernel_peer = kernel_name(fd, &a, true);
	d->has_kernel = kernel_name(fd, &a, false) && sock_is_ours(f);
	d->is_local = d->has_kernel && route_is_loopback(&a);
	if (sock_is_ours(f))
		d->shut = atomic_load(&ep_of(f)->app_flags) & (APP_SHUT_RD | APP_SHUT_WR);
	/* as bound; a connected wildcard socket keeps the address that it has */
	d->is_specific = sock_is_ours(f) && !route_is_any(&ep_of(f)->local) &&
	                 (!ep_of(f)->remote.family || (d->has_kernel && !route_is_any(&a)));
}

static void stay_kernel(struct file *f, int fd, const char *reason)
{
	atomic_store(&f->mode, MODE_KERNEL);
	proc_fallback_add(fd, f->domain, f->type, reason);
}

bool dgram_rule_applies(struct file *f, int fd, const struct sock_addr *to)
{
	const char *why = sock_is_ours(f) ? NULL : rule_of(CFG_ROLE_UDP, to);

	if (likely(!why))
		return false;
	spin_lock(&f->lock);
	if ((why = sock_is_ours(f) ? NULL : why)) /* another thread may have decided meanwhile */
		stay_kernel(f, fd, why);
	spin_unlock(&f->lock);
	return why;
}

enum { FILTER_PART = 9, FILTER_MAX = SERVICE_MAX * FILTER_PART + 1 };

/* What the kernel sees of a service's frames and its half must not have. */
static void filter_part(struct sock_filter *out, const struct service *s)
{
	uint32_t own;
	struct sock_filter part[FILTER_PART] = {
	        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX)),
	        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, dgram_ifindex(s), 0, 7),
	        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PROTOCOL)),
	        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 5),
	        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
	        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 2),
	        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_NET_OFF + IP_DESTINATION)),
	        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
	        BPF_STMT(BPF_RET | BPF_K, 0),
	};

	route_own(s, (uint8_t *)&own);
	part[7].k = ntohl(own);
	memcpy(out, part, sizeof(part));
}

/* Closes the kernel half to everything, or opens it again. With af_packet the kernel sees every frame that
 * Pronk sees: what came through the port's interface for many, or for Pronk's address when the kernel has it,
 * too, is then Pronk's alone. What came there for another address of the kernel's, or by IPv6, is not. */
static void kernel_filter(struct file *f, int fd, bool is_off)
{
	struct sock_filter none[] = {BPF_STMT(BPF_RET | BPF_K, 0)}, other[FILTER_MAX];
	struct sock_filter rest = BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
	struct sock_fprog prog = {.len = 1, .filter = none};
	unsigned short len = 0;
	int drop = 0;

	f->dg->is_off = is_off;
	for (uint32_t i = 0; i < service_count() && !is_off; i++)
		if (!attach_is_dead(&services[i].at) &&
		        !strncmp(services[i].at.arena.hdr->device, "afpacket:", 9)) {
			filter_part(&other[len], &services[i]);
			len += FILTER_PART;
		}
	if (len) {
		other[len++] = rest;
		prog = (struct sock_fprog){.len = len, .filter = other};
		is_off = true;
	}
	if (is_off && libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0)
		log_debug("fd %d: filter: %s", fd, strerror(errno));
	if (!is_off)
		libc.setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &drop, sizeof(drop));
}

static void mode_set(struct file *f, int mode)
{
	int old = atomic_load(&f->mode);

	if (old == mode)
		return;
	atomic_store(&f->mode, (uint8_t)mode);
	epoll_file_changed(f);
	/* threads that sleep for Pronk's half alone look again */
	if (old == MODE_PRONK && mode == MODE_DUAL)
		dgram_nudge(f);
}

/* With the file's lock: Pronk's half goes, the kernel has the socket as it was at first, with the flags that
 * were set since. */
static void half_close(struct file *f, int fd)
{
	int fl = libc.fcntl(fd, F_GETFL), is_nonblocking = sock_is_nonblocking(f);

	f->dg->is_parked = false;
	epoll_file_closed_ep(f);
	half_release(f);
	sock_set_nonblocking(f, is_nonblocking);
	if (fl >= 0)
		libc.fcntl(fd, F_SETFL,
		        (fl & ~(O_NONBLOCK | O_APPEND)) | (is_nonblocking ? O_NONBLOCK : 0) |
		                (atomic_load(&f->is_append) ? O_APPEND : 0));
	mode_set(f, MODE_OPEN);
}

static bool kernel_has_input(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec zero = {0};

	return RAW(SYS_ppoll, &p, 1, &zero, NULL, 0) > 0 && (p.revents & POLLIN);
}

static int kernel_bind(struct file *f, int fd, const struct sock_addr *a)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	addr_to_user(a, f->domain, (struct sockaddr *)&ss, &len);
	return libc.bind(fd, (struct sockaddr *)&ss, len) < 0 ? -errno : 0;
}

/* Where a socket that is bound to an address of ours, or to the wildcard, goes first. */
static struct service *bind_service(const struct sock_addr *a)
{
	struct service *s = route_is_loopback(a) ? proc.local : route_owner(a);

	if (!s)
		s = route_broadcaster(a);
	if (!s || attach_is_dead(&s->at))
		s = service_first();
	return s ? s : &services[0];
}

/* Binds both halves to one address and port. With the file's lock. */
static int bind_both(struct service *s, struct file *f, int fd, struct sock_addr *a,
        const struct sockaddr *addr, socklen_t len)
{
	uint16_t port = a->port;
	struct sockaddr_storage ss;
	int rc;

	if (len > sizeof(ss))
		len = sizeof(ss);
	memcpy(&ss, addr, len);
	for (int i = 0;; i++) {
		a->port = port;
		rc = half_bind(s, f, a);
		if (rc)
			return rc;
		if (unlikely(service_count() > 1) && !half_is_one(f) && (rc = half_bind_others(f))) {
			half_release(f);
			if (port || rc != -EADDRINUSE || i == PORT_TRIES)
				return rc;
			continue;
		}
		if (ss.ss_family == AF_INET6)
			((struct sockaddr_in6 *)&ss)->sin6_port = htons(a->port);
		else
			((struct sockaddr_in *)&ss)->sin_port = htons(a->port);
		if (!libc.bind(fd, (struct sockaddr *)&ss, len)) {
			f->dg->has_kernel = true;
			return 0;
		}
		rc = -errno;
		if (rc == -EADDRNOTAVAIL && route_is_own(a)) /* Pronk's alone */
			return 0;
		half_release(f);
		if (port || rc != -EADDRINUSE || i == PORT_TRIES)
			return rc;
	}
}

static int is_v6only(const struct file *f, int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return f->domain == AF_INET6 && (libc.getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, &len) || on);
}

/* Why the kernel alone serves a socket with this address, or NULL: both sides. is_fault: strict mode refuses
 * that. */
static const char *bind_wants(struct file *f, int fd, const struct sock_addr *a, bool *is_fault)
{
	const char *why = rule_of(CFG_ROLE_UDP, a);

	*is_fault = !why;
	if (why)
		return why;
	if (f->dg->is_kernels)
		return "an option was set that only the kernel has";
	*is_fault = false;
	if ((!route_is_any(a) && a->family != AF_INET) || is_v6only(f, fd))
		return "IPv6 is not accelerated";
	if (route_is_loopback(a) && !dgram_attach(a))
		return "bound to a loopback address";
	if (!proc_attach() || proc_is_dead()) {
		*is_fault = true;
		return "no service";
	}
	if (route_is_any(a) || route_is_own(a) || route_is_multicast(a) || route_is_broadcast(a) ||
	        (route_is_loopback(a) && proc.local))
		return NULL;
	return route_is_loopback(a) ? "bound to a loopback address" : "bound to an address of the kernel";
}

/* The kernel alone is to have it: it is the kernel's once the kernel has agreed. */
static int bind_kernel(
        struct file *f, int fd, const struct sockaddr *addr, socklen_t len, const char *why, bool is_fault)
{
	if (is_fault && proc_is_strict()) {
		log_limited_error("strict: fd %d is refused: %s", fd, why);
		return -ENETDOWN;
	}
	if (libc.bind(fd, addr, len) < 0)
		return -errno;
	stay_kernel(f, fd, why);
	return 0;
}

/* With the file's lock. A port that nobody asked for goes with the association, as in the kernel's
 * udp_disconnect. While something, or an error, can still be read it is only hidden, and deaf; so too for
 * good where the kernel half cannot let go of it, because it was given that very port by bind(2). */
static int port_let_go(struct file *f, int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct dgram *d = f->dg;
	struct sock_addr a;

	if (d->has_kernel) {
		RAW(SYS_connect, fd, &none, sizeof(none));
		d->has_kernel = kernel_name(fd, &a, false);
		kernel_filter(f, fd, d->has_kernel);
	}
	if (d->has_kernel || d->is_specific ||
	        (!sock_is_dead(f) && (rx_is_ready(f) || atomic_load(&ep_of(f)->error)))) {
		d->is_parked = true;
		mode_set(f, d->has_kernel ? MODE_DUAL : MODE_PRONK);
		return half_deafen(f);
	}
	half_close(f, fd);
	return 0;
}

/* With the file's lock: the hidden port is the socket's again. The kernel would choose a new one. */
static void unpark(struct file *f, int fd)
{
	static const struct sock_addr none;

	if (!f->dg->is_parked)
		return;
	f->dg->is_parked = false;
	if (sock_is_dead(f) || !sock_is_ours(f))
		return;
	half_connect(f, &none);
	if (f->dg->has_kernel)
		kernel_filter(f, fd, false);
}

void dgram_unpark(struct file *f, int fd)
{
	spin_lock(&f->lock);
	unpark(f, fd);
	spin_unlock(&f->lock);
}

void dgram_let_go(struct file *f, int fd)
{
	spin_lock(&f->lock);
	if (sock_is_ours(f) && !sock_is_dead(f))
		port_let_go(f, fd);
	spin_unlock(&f->lock);
}

int dgram_bind(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr a;
	const char *why;
	bool is_fault;
	int rc = user_is_bad(addr) ? -EFAULT : addr_from_user(&a, addr, len);

	if (f->dg->is_parked) { /* the new address goes before what is still unread */
		spin_lock(&f->lock);
		half_close(f, fd);
		spin_unlock(&f->lock);
	}
	if (sock_is_ours(f))
		return f->dg->has_kernel ? SOCK_LIBC
		       : rc              ? rc
		                         : -EINVAL; /* the kernel's words where it has them */
	if (atomic_load(&f->mode) == MODE_KERNEL || rc ||
	        (f->domain == AF_INET && addr->sa_family != AF_INET))
		return SOCK_LIBC;
	spin_lock(&f->lock);
	if (atomic_load(&f->mode) != MODE_OPEN)
		rc = SOCK_LIBC;
	else if ((why = bind_wants(f, fd, &a, &is_fault)))
		rc = bind_kernel(f, fd, addr, len, why, is_fault);
	if (!rc && atomic_load(&f->mode) == MODE_OPEN) {
		struct sock_addr old;

		/* bound already, through the kernel: its words */
		if (kernel_name(fd, &old, false)) {
			spin_unlock(&f->lock);
			return SOCK_LIBC;
		}
		dgram_options_take(f, fd);
		if (a.family == AF_INET6) { /* :: takes IPv4 as well */
			a.family = AF_INET;
			memset(a.ip, 0, sizeof(a.ip));
		}
		f->dg->is_specific = !route_is_any(&a);
		f->dg->is_auto = !a.port;
		rc = route_is_own(&a) ? sock_port_refused(f, addr, len) : 0;
		if (!rc)
			rc = bind_both(bind_service(&a), f, fd, &a, addr, len);
		if (rc == -ENOBUFS || rc == -ENOMEM) {
			log_warning("the service has no room for a socket; the kernel serves it");
			rc = bind_kernel(f, fd, addr, len, "the service has no room", true);
		} else if (!rc) {
			f->dg->is_local = route_is_loopback(&a);
			dgram_groups_tell(f);
			if (f->dg->has_kernel)
				kernel_filter(f, fd, false);
			mode_set(f, f->dg->has_kernel ? MODE_DUAL : MODE_PRONK);
		}
	}
	spin_unlock(&f->lock);
	return rc;
}

/* With the file's lock: Pronk's half of a socket that the kernel may have bound already. */
static int open_half(struct file *f, int fd, const struct sock_addr *to)
{
	struct dgram *d = f->dg;
	struct sock_addr a, peer;
	struct service *s;
	int rc;

	if (atomic_load(&f->mode) != MODE_OPEN)
		return 0;
	dgram_options_take(f, fd);
	d->has_kernel = kernel_name(fd, &a, false);
	d->is_specific = false; /* whatever a bind(2) that failed has wanted */
	if (!d->has_kernel)
		memset(&a, 0, sizeof(a));
	a.family = AF_INET;
	memset(a.ip, 0, sizeof(a.ip));
	s = to ? dgram_service(f, to) : service_first();
	rc = s ? half_bind(s, f, &a) : -ENETDOWN;
	if (rc == -EADDRINUSE && a.port) { /* the kernel gave it a port that is taken here */
		a.port = 0;
		rc = half_bind(s, f, &a);
	}
	if (rc)
		return rc;
	d->is_auto = true; /* what bind(2) bound in the kernel alone has stayed there */
	dgram_groups_tell(f);
	if (d->kernel_peer && kernel_name(fd, &peer, true)) /* ours must not receive from anybody else */
		half_connect(f, &peer);
	if (d->has_kernel)
		kernel_filter(f, fd, false);
	mode_set(f, d->has_kernel ? MODE_DUAL : MODE_PRONK);
	return 0;
}

int dgram_open_half(struct file *f, int fd, const struct sock_addr *to)
{
	int rc;

	spin_lock(&f->lock);
	rc = open_half(f, fd, to);
	spin_unlock(&f->lock);
	return rc;
}

/* A call of a socket that is not ours is bound to fail, but gives it a port: ours, too, if it can be. */
static bool is_opened_by_failing(struct file *f, int fd)
{
	return !f->dg->is_kernels && !f->dg->kernel_peer && proc_is_attached() && !proc_is_dead() &&
	       !is_v6only(f, fd) && !rule_of_all(1 << CFG_ROLE_UDP);
}

/* It has failed: what comes for that port from Pronk's side shall come, too. */
static void failed(struct file *f, int fd)
{
	struct sock_addr a;

	if (kernel_name(fd, &a, false))
		dgram_open_half(f, fd, NULL);
}

ssize_t dgram_send_nowhere(struct file *f, int fd, const struct msghdr *msg, int flags)
{
	long n;

	if (!is_opened_by_failing(f, fd))
		return SOCK_LIBC;
	n = RAW(SYS_sendmsg, fd, msg, flags); /* inet_send_prepare */
	if (n < 0)
		failed(f, fd);
	return n;
}

/* connect(2) with an address that is none. */
static int connect_nowhere(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	int rc;

	if (!is_opened_by_failing(f, fd))
		return SOCK_LIBC;
	rc = (int)RAW(SYS_connect, fd, addr, len); /* inet_dgram_connect */
	if (rc < 0)
		failed(f, fd);
	return rc;
}

/* With the file's lock. */
static int kernel_half(struct file *f, int fd)
{
	struct sock_addr a = {.family = AF_INET, .port = ep_of(f)->local.port};
	int rc;

	if (f->dg->has_kernel || !sock_is_ours(f))
		return 0;
	if (f->dg->is_specific)
		return -ENETUNREACH;
	rc = kernel_bind(f, fd, &a);
	if (rc)
		log_debug("fd %d: port %u is taken in the kernel: %s", fd, a.port, strerror(-rc));
	f->dg->has_kernel = true;
	/* a socket that is connected through Pronk hears from nobody else */
	kernel_filter(f, fd, !f->dg->kernel_peer && ep_of(f)->remote.family);
	mode_set(f, MODE_DUAL);
	return 0;
}

int dgram_kernel_half(struct file *f, int fd)
{
	int rc;

	spin_lock(&f->lock);
	rc = kernel_half(f, fd);
	spin_unlock(&f->lock);
	return rc;
}

static void kernel_dissolve(struct file *f, int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	if (f->dg->kernel_peer)
		RAW(SYS_connect, fd, &none, sizeof(none));
	f->dg->kernel_peer = false;
	if (!f->dg->is_specific)
		f->dg->is_local = false;
}

/* The kernel half's source address is a loopback one. */
static bool kernel_is_local(int fd)
{
	struct sock_addr a;

	return kernel_name(fd, &a, false) && route_is_loopback(&a);
}

static int connect_pronk(struct file *f, int fd, const struct sock_addr *to)
{
	struct sock_addr a;
	int rc = half_connect(f, to), err;
	socklen_t len = sizeof(err);

	if (rc)
		return rc;
	f->has_connected = true;
	if (!f->dg->has_kernel)
		return 0;
	/* nobody would ask the kernel half for it any more */
	if (f->dg->kernel_peer && !libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) && err)
		atomic_store(&ep_of(f)->error, err);
	kernel_filter(f, fd, true);
	kernel_dissolve(f, fd);
	/* a port that it has chosen goes with its association */
	f->dg->has_kernel = kernel_name(fd, &a, false);
	/* what had come before stays readable */
	mode_set(f, kernel_has_input(fd) ? MODE_DUAL : MODE_PRONK);
	return 0;
}

static int connect_kernel(
        struct file *f, int fd, const struct sock_addr *to, const struct sockaddr *addr, socklen_t len)
{
	int rc = kernel_half(f, fd);

	if (rc)
		return rc;
	rc = (int)RAW(SYS_connect, fd, addr, len); /* no cancellation point: the file's lock is held */
	if (rc)
		return rc;
	rc = half_connect(f, to);
	if (rc)
		log_debug("fd %d: Pronk's half: %s", fd, strerror(-rc));
	f->dg->kernel_peer = true;
	f->dg->is_local |= kernel_is_local(fd);
	f->has_connected = true;
	kernel_filter(f, fd, false);
	mode_set(f, MODE_DUAL);
	return 0;
}

static int dissolve(struct file *f, int fd)
{
	struct sock_addr none = {0};
	int rc;

	kernel_dissolve(f, fd);
	f->has_connected = false;
	if (f->dg->is_auto)
		return port_let_go(f, fd);
	rc = half_connect(f, &none);
	if (f->dg->has_kernel)
		kernel_filter(f, fd, false);
	mode_set(f, f->dg->has_kernel ? MODE_DUAL : MODE_PRONK);
	return rc;
}

/* Its services have died, but others live: a socket with a port that nobody asked for can begin anew. */
static bool half_may_go(const struct file *f)
{
	return f->dg->is_auto && !f->dg->has_kernel && !f->dg->is_specific && service_first();
}

/* The address of connect(2), or the kernel's words for it: inet_dgram_connect, __ip4_datagram_connect,
 * __ip6_datagram_connect. */
static int connect_addr(
        const struct file *f, struct sock_addr *to, const struct sockaddr *addr, socklen_t len)
{
	int rc;

	if (len > sizeof(struct sockaddr_storage))
		return -EINVAL;
	if (len && user_is_bad(addr))
		return -EFAULT;
	rc = addr_from_user(to, addr, len);
	if (rc == -EINVAL)
		return f->domain == AF_INET && len >= sizeof(struct sockaddr_in) ? -EAFNOSUPPORT : rc;
	if (f->domain == AF_INET && addr->sa_family != AF_INET)
		return len < sizeof(struct sockaddr_in) ? -EINVAL : -EAFNOSUPPORT;
	/* SIN6_LEN_RFC2133 */
	return rc && len < 24 ? -EINVAL : rc;
}

int dgram_connect(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct dgram *d = f->dg;
	struct sock_addr to;
	bool is_pronk, was_open;
	int rc;

	if (atomic_load(&f->mode) == MODE_KERNEL)
		return SOCK_LIBC;
	if (!user_is_bad(addr) && len >= sizeof(addr->sa_family) && addr->sa_family == AF_UNSPEC) {
		spin_lock(&f->lock);
		if (sock_is_ours(f) && (!sock_is_dead(f) || half_may_go(f))) {
			rc = dissolve(f, fd);
		} else {
			rc = SOCK_LIBC;
			d->kernel_peer = d->is_local = false;
		}
		spin_unlock(&f->lock);
		return rc;
	}
	rc = connect_addr(f, &to, addr, len);
	if (rc && !sock_is_ours(f))
		return connect_nowhere(f, fd, addr, len);
	if (unlikely(d->is_parked)) /* it has a port again, also when nothing else comes of it */
		dgram_unpark(f, fd);
	if (rc)
		return rc;
	if (dgram_rule_applies(f, fd, &to))
		return SOCK_LIBC;
	is_pronk = dgram_attach(&to) && dgram_is_pronk(f, &to);
	if (is_pronk && !sock_is_ours(f) && (d->is_kernels || is_v6only(f, fd))) {
		stay_kernel(f, fd, "an option was set that only the kernel has");
		return SOCK_LIBC;
	}
	if (is_pronk && route_is_broadcast(&to)) {
		if (!sock_is_ours(f))
			dgram_options_take(f, fd);
		if (!d->broadcast)
			return -EACCES;
	}
	/* as the kernel's routes say of such a source */
	if (is_pronk && d->is_local && !route_is_loopback(&to) && !route_is_own(&to))
		return -EINVAL;
	spin_lock(&f->lock);
	was_open = atomic_load(&f->mode) == MODE_OPEN;
	if (was_open && !is_pronk) {
		if (proc_is_strict() && !route_is_loopback(&to) && !route_is_any(&to) &&
		        to.family == AF_INET) {
			rc = -ENETDOWN;
		} else if (!(rc = (int)RAW(SYS_connect, fd, addr, len))) {
			d->kernel_peer = true;
			d->is_local |= kernel_is_local(fd);
			proc_fallback_add(fd, f->domain, f->type,
			        route_is_loopback(&to)  ? "the peer is on the loopback interface"
			        : to.family == AF_INET6 ? "IPv6 is not accelerated"
			                                : "no route to the peer through the port");
		}
	} else if (is_pronk) {
		if (was_open)
			proc_fallback_remove(fd);
		rc = open_half(f, fd, &to);
		if (!rc)
			rc = connect_pronk(f, fd, &to);
		if (rc && was_open && atomic_load(&f->mode) == MODE_PRONK) {
			half_close(f, fd);
		}
	} else {
		rc = sock_is_dead(f) ? SOCK_LIBC : connect_kernel(f, fd, &to, addr, len);
	}
	spin_unlock(&f->lock);
	if (!rc && unlikely(dgram_corked(f)))
		dgram_cork_follow(f, &to);
	return rc;
}

void dgram_end(struct file *f)
{
	struct dgram *d = f->dg;

	if (!d)
		return;
	half_release(f);
	while (d->groups) {
		struct dgram_group *g = d->groups;

		d->groups = g->next;
		free(g);
	}
	free(d->cork_data);
	free(d->cork_head);
	free(d);
	f->dg = NULL;
}
