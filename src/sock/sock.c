/* sock.c - a TCP socket from socket() to close(): who serves it, and the calls that change its state.
 * listen(2) is in listen.c, connect(2) in connect.c.
 *
 * Runs in application threads. A socket begins as a kernel socket and stays one until listen or connect (or a
 * bind to Pronk's address) shows that it is ours; so options set before that are the kernel's business, and
 * falling back costs nothing. A wildcard listener listens on both sides. Data is in xfer.c, options in opt.c.
 */
#include "sock.h"
#include "clock.h"
#include "dgram.h"
#include "endpoint.h"
#include "epoll_set.h"
#include "libc.h"
#include "local.h"
#include "log.h"
#include "opt.h"
#include "proc.h"
#include "raw.h"
#include "route.h"
#include "rule.h"
#include "spare.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/sockios.h>

void sock_opened(int fd, int domain, int type, int protocol)
{
	struct file *f;
	int kind = type & 0xf;

	file_close(fd); /* a number that came back without a close that we saw */
	if (domain != AF_INET && domain != AF_INET6)
		return;
	if ((kind != SOCK_STREAM || (protocol != 0 && protocol != IPPROTO_TCP)) &&
	        (kind != SOCK_DGRAM || (protocol != 0 && protocol != IPPROTO_UDP))) {
		proc_fallback_add(fd, domain, kind, "only TCP and UDP are accelerated");
		return;
	}
	f = file_open(fd, FILE_SOCKET);
	if (!f)
		return;
	if (kind == SOCK_DGRAM && !dgram_opened(f)) {
		file_close(fd);
		return;
	}
	f->domain = (uint16_t)domain;
	f->type = (uint16_t)kind;
	atomic_store(&f->is_nonblocking, (type & SOCK_NONBLOCK) != 0);
}

bool sock_is_nonblocking(struct file *f)
{
	uint32_t ep = atomic_load_explicit(&f->ep, memory_order_relaxed);

	if (ep == ENDPOINT_NONE)
		return atomic_load(&f->is_nonblocking);
	return atomic_load_explicit(&handle_ep(ep)->app_flags, memory_order_relaxed) & APP_NONBLOCK;
}

void sock_set_nonblocking(struct file *f, bool on)
{
	atomic_store(&f->is_nonblocking, on);
	/* all: where the first service is not there any more, the next one's endpoint is the socket's
	 * (pass.c) */
	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t ep = file_ep(f, i);

		if (ep == ENDPOINT_NONE)
			continue;
		if (on)
			atomic_fetch_or(&handle_ep(ep)->app_flags, APP_NONBLOCK);
		else
			atomic_fetch_and(&handle_ep(ep)->app_flags, ~(uint32_t)APP_NONBLOCK);
	}
}

uint32_t sock_call_flags(struct file *f)
{
	return (opt_flag(f, EPF_REUSEADDR) ? CALL_F_REUSEADDR : 0u) |
	       (opt_flag(f, EPF_REUSEPORT) ? CALL_F_REUSEPORT : 0u);
}

void sock_ep_release(uint32_t ep, uint32_t how)
{
	bool is_listening;

	if (ep == ENDPOINT_NONE || handle_is_dead(ep))
		return;
	is_listening = atomic_load_explicit(&handle_ep(ep)->state, memory_order_relaxed) == EP_LISTEN;
	handle_post(ep, POST_RELEASE, how);
	/* a stack in this process, asked later, would first take in whom its peers have sent meanwhile; and
	 * another thread may have it just now */
	if (is_listening)
		attach_settle(handle_at(ep), handle_ep(ep)->stack_idx);
}

void sock_ep_end(uint32_t ep, uint32_t how)
{
	bool is_listener = atomic_load(&handle_ep(ep)->state) == EP_LISTEN && !handle_is_shared(ep);
	uint64_t deadline = clock_now_ns() + 20000000u;

	sock_ep_release(ep, how);
	while (is_listener && atomic_load(&handle_ep(ep)->state) == EP_LISTEN && !handle_is_dead(ep) &&
	        clock_now_ns() < deadline)
		attach_relax(handle_at(ep));
	if (is_listener)
		attach_settle(handle_at(ep), handle_ep(ep)->stack_idx);
}

bool sock_is_dead(const struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t ep = file_ep(f, i);

		if (!handle_is_dead(ep) && (!i || ep != ENDPOINT_NONE))
			return false;
	}
	return true;
}

bool sock_check_dead(const struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++)
		if (!i || file_ep(f, i) != ENDPOINT_NONE)
			attach_check_dead(handle_at(file_ep(f, i)));
	return sock_is_dead(f);
}

void sock_others_end(struct file *f, uint32_t how)
{
	for (uint32_t i = 1; i < file_ep_count(f); i++) {
		uint32_t ep = atomic_exchange(&f->also->ep[i - 1], ENDPOINT_NONE);

		if (ep != ENDPOINT_NONE)
			sock_ep_end(ep, how);
	}
}

int sock_bind_at(struct service *s, struct file *f, struct sock_addr *a, uint32_t flags, uint32_t *ep)
{
	struct call c = {
	        .op = CALL_BIND, .endpoint = ENDPOINT_NONE, .local = *a, .flags = sock_call_flags(f) | flags};
	int rc;

	c.local.family = AF_INET;
	c.uid = geteuid();
	opt_copy_for(&c.opts, f, s);
	rc = post_call_port(&s->at, 0, &c);
	if (rc || (rc = c.result))
		return rc;
	a->port = c.local.port;
	*ep = handle_make(s, c.endpoint);
	return 0;
}

int sock_bind_here(struct service *s, struct file *f, struct sock_addr *a, uint32_t flags)
{
	uint32_t ep;
	int rc = sock_bind_at(s, f, a, flags, &ep);

	if (rc)
		return rc;
	atomic_store(&f->ep, ep);
	file_opts_drop(f);
	sock_set_nonblocking(f, atomic_load(&f->is_nonblocking));
	f->is_bound_here = true;
	return 0;
}

/* The socket is about to be ours: what the application has set so far. */
void sock_options_take(struct file *f, int fd)
{
	opt_take(f, fd);
	if (!spare_is_fresh(f)) /* else nobody but us could change it */
		atomic_store(&f->is_nonblocking, (libc.fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

int sock_renew(struct file *f)
{
	int flags = SOCK_CLOEXEC | (atomic_load(&f->is_nonblocking) ? SOCK_NONBLOCK : 0);
	int fd = libc.socket(f->domain, f->type | flags, 0), reuse = opt_flag(f, EPF_REUSEADDR);

	if (fd < 0)
		return -errno;
	/* may be inherited from a listener, not set by the program */
	libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	/* all of it before it has the program's numbers, which may be others' a moment later */
	if (atomic_load(&f->mode) == MODE_OPEN && f->opts != &file_no_opts)
		opt_return(f, fd);
	file_renumber(f, fd);
	libc.close(fd);
	return 0;
}

/* bind(2) on a socket of ours that cannot be bound any more: the kernel looks at the address first, so it is
 * asked what it thinks of this one. */
static int bind_refused(struct file *f, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr a;
	bool is_own;
	struct sockaddr_storage ss = {0};
	int s, rc = -EINVAL;

	if (len > sizeof(ss))
		return -EINVAL;
	if (user_is_bad(addr))
		return -EFAULT;
	is_own = !addr_from_user(&a, addr, len) && route_is_own(&a);
	memcpy(&ss, addr, len);
	((struct sockaddr_in *)&ss)->sin_port = 0; /* at the same place in both families */
	s = libc.socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return rc;
	/* Pronk's own address need not be one of the kernel's; IPv6 looks at it last */
	if (libc.bind(s, (struct sockaddr *)&ss, len) < 0 && (errno != EADDRNOTAVAIL || !is_own))
		rc = errno == EADDRNOTAVAIL && f->domain == AF_INET6 ? -EINVAL : -errno;
	libc.close(s);
	return rc;
}

int sock_port_refused(const struct file *f, const struct sockaddr *addr, socklen_t len)
{
	enum { PRIVILEGED = 1024 };
	int s, on = 1, rc = 0;

	/* at the same place in both families */
	if (ntohs(((const struct sockaddr_in *)(const void *)addr)->sin_port) - 1u >= PRIVILEGED - 1 ||
	        !geteuid())
		return 0;
	s = libc.socket(f->domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return 0;
	libc.setsockopt(s, SOL_IP, IP_FREEBIND, &on, sizeof(on));
	if (libc.bind(s, addr, len) < 0 && errno == EACCES)
		rc = -EACCES;
	libc.close(s);
	return rc;
}

static int bind_there(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr a;

	if (libc.bind(fd, addr, len) < 0)
		return -errno;
	f->is_bound_there = true;
	f->port_is_chance = !addr_from_user(&a, addr, len) && !a.port;
	return 0;
}

bool sock_kernel_is_closed(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return !libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) && info.tcpi_state == TCP_CLOSE;
}

/* bind(2) after a connect that has failed, where the program had not asked for a port: the kernel lets the
 * one it chose go when the connect fails, here it goes now. An address that is refused changes nothing. 0, or
 * the kernel's -E for the address. */
static int bind_let_go(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	uint32_t ep;
	struct sock_addr a;
	int rc = bind_refused(f, addr, len);

	if (rc != -EINVAL || addr_from_user(&a, addr, len))
		return rc;
	spin_lock(&f->lock);
	ep = atomic_load(&f->ep);
	if (atomic_load(&f->mode) == MODE_PRONK && f->is_bound_here && !sock_is_dead(f)) {
		epoll_file_closed_ep(f);
		opt_return(f, fd);
		memset(&f->bound, 0, sizeof(f->bound));
		f->may_bind_again = f->is_bound_here = false;
		atomic_store(&f->mode, MODE_OPEN);
		atomic_store(&f->ep, ENDPOINT_NONE);
		sock_ep_release(ep, 0);
		epoll_file_changed(f);
	} else if (atomic_load(&f->mode) == MODE_OPEN && f->is_bound_there && sock_kernel_is_closed(fd)) {
		/* off the kernel's sets, as another socket comes in its place */
		sock_options_take(f, fd);
		atomic_store(&f->mode, MODE_PRONK);
		epoll_file_changed(f);
		sock_renew(f);
		opt_return(f, fd);
		libc.fcntl(fd, F_SETFL, atomic_load(&f->is_nonblocking) ? O_NONBLOCK : 0);
		f->may_bind_again = f->is_bound_there = false;
		atomic_store(&f->mode, MODE_OPEN);
		epoll_file_changed(f);
	}
	spin_unlock(&f->lock);
	return 0;
}

/* Whether rules leave what is bound to this address to the kernel: with a port it is to be a server, without
 * one it may be either. */
static const char *bind_rule(const struct sock_addr *a)
{
	return a->port ? rule_of(CFG_ROLE_SERVER, a)
	               : rule_of_all(1 << CFG_ROLE_SERVER | 1 << CFG_ROLE_CLIENT);
}

int sock_bind(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr a;
	struct service *s;
	bool is_fixed;
	int rc;

	if (f->type == SOCK_DGRAM)
		return dgram_bind(f, fd, addr, len);
	spare_own(f);
	rc = user_is_bad(addr) ? -EFAULT : addr_from_user(&a, addr, len);
	if (f->may_bind_again) {
		int again = bind_let_go(f, fd, addr, len);

		if (again)
			return again;
	}
	if (atomic_load(&f->mode) == MODE_PRONK)
		return bind_refused(f, addr, len);
	if (atomic_load(&f->mode) != MODE_OPEN) /* a wildcard listener's kernel half has the words, too */
		return SOCK_LIBC;
	if (rc || addr->sa_family != f->domain)
		return SOCK_LIBC;
	if (f->is_bound_there) {
		rc = bind_there(f, fd, addr, len);
		/* the address need not be one of the kernel's */
		return rc == -EADDRNOTAVAIL && proc_is_attached() && route_is_own(&a) ? -EINVAL : rc;
	}
	if (route_is_any(&a) ||
	        (a.family == AF_INET && route_is_loopback(&a))) /* decided at listen or connect */
		return local_port_is_taken(f, fd, &a) ? -EADDRINUSE : bind_there(f, fd, addr, len);
	s = a.family != AF_INET || bind_rule(&a) || !proc_attach() ? NULL : route_owner(&a);
	if (!s)
		return bind_there(f, fd, addr, len);
	spin_lock(&f->lock);
	if (f->is_bound_here) {
		spin_unlock(&f->lock);
		return -EINVAL;
	}
	sock_options_take(f, fd);
	is_fixed = a.port != 0;
	rc = sock_port_refused(f, addr, len);
	if (!rc)
		rc = sock_bind_here(s, f, &a, 0);
	/* where the kernel has the address too, nobody there may take the port; last, as it cannot be undone
	 */
	if (!rc && is_fixed && libc.bind(fd, addr, len) < 0 && errno != EADDRNOTAVAIL) {
		rc = -errno;
		sock_ep_release(atomic_load(&f->ep), 0);
		atomic_store(&f->ep, ENDPOINT_NONE);
		f->is_bound_here = false;
	}
	if (!rc) {
		f->bound = a;
		f->port_is_chance = !is_fixed;
		if (!is_fixed)
			f->bound.port = 0;
		atomic_store(&f->mode, MODE_PRONK);
		epoll_file_changed(f);
	}
	spin_unlock(&f->lock);
	return rc;
}

void sock_publish(struct file *f)
{
	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		struct endpoint *ep = handle_ep(file_ep(f, i));

		if (ep == &service_no_ep)
			continue;
		atomic_store_explicit(&ep->app_fd, f->fd, memory_order_relaxed);
		if (opt_flag(f, EPF_SNDBUF_SET))
			atomic_store_explicit(
			        &ep->tx_limit, (uint32_t)opt_int(f, EPO_SNDBUF), memory_order_relaxed);
	}
	sock_set_nonblocking(f, atomic_load(&f->is_nonblocking));
}

/* Posts a shutdown and waits until the endpoint has left a state, at most a second: what the kernel has done
 * when its call returns. */
static int shutdown_and_leave(struct file *f, uint32_t handle, int how, uint32_t state)
{
	uint64_t deadline = clock_now_ns() + 1000000000u;
	const struct endpoint *ep = handle_ep(handle);
	int rc = handle_post(handle, POST_SHUTDOWN, (uint32_t)how);

	while (!rc && atomic_load(&ep->state) == state && !handle_is_dead(handle) &&
	        clock_now_ns() < deadline)
		wait_for(f, 0, deadline, -1);
	if (!rc &&
	        state == EP_LISTEN) /* a stack in this process takes another turn for it: nobody is let in */
		attach_settle(handle_at(handle), ep->stack_idx);
	return rc;
}

int sock_shutdown(struct file *f, int fd, int how)
{
	struct endpoint *ep;
	uint32_t state, bits, handle;

	if (f->type == SOCK_DGRAM)
		return dgram_shutdown(f, fd, how);
	if (!sock_is_ours_soon(f))
		return SOCK_LIBC;
	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	if (sock_is_dead(f))
		return -ENOTCONN;
	handle = atomic_load(&f->ep);
	ep = handle_ep(handle);
	state = atomic_load(&ep->state);
	if (state == EP_LISTEN) {
		if (how == SHUT_WR) {
			epoll_file_poke(f);
			return atomic_load(&f->mode) == MODE_DUAL ? SOCK_LIBC : 0;
		}
		/* listening ends; whoever waits in accept gets EINVAL */
		int rc = shutdown_and_leave(f, handle, how, EP_LISTEN);

		for (uint32_t i = 1; i < file_ep_count(f); i++)
			if (file_ep(f, i) != ENDPOINT_NONE)
				shutdown_and_leave(f, file_ep(f, i), how, EP_LISTEN);
		return atomic_load(&f->mode) == MODE_DUAL ? SOCK_LIBC : rc;
	}
	if (state == EP_CONNECTING) /* ends the attempt */
		return shutdown_and_leave(f, handle, how, EP_CONNECTING);
	if (state != EP_ESTABLISHED) {
		if (f->has_connected && !atomic_load(&f->connect_reported))
			atomic_store(&f->is_disconnecting, true);
		epoll_file_poke(f);
		return -ENOTCONN;
	}
	atomic_store(&f->connect_reported, true); /* another connect(2) tells EISCONN, not success */
	bits = (how != SHUT_WR ? APP_SHUT_RD : 0u) | (how != SHUT_RD ? APP_SHUT_WR : 0u);
	if (bits & APP_SHUT_WR) {
		/* no writer is in the middle of the ring when the end is announced */
		if (ep_lock(handle_at(handle), &ep->tx_lock))
			return -EINTR;
		atomic_fetch_or(&ep->app_flags, bits);
		ep_unlock(&ep->tx_lock);
	} else {
		atomic_fetch_or(&ep->app_flags, bits);
	}
	return handle_post(handle, POST_SHUTDOWN, (uint32_t)how);
}

int sock_name(struct file *f, struct sockaddr *addr, socklen_t *len, bool is_peer)
{
	struct endpoint *ep;
	uint32_t state;

	if (f->type == SOCK_DGRAM)
		return dgram_name(f, addr, len, is_peer);
	if (!sock_is_ours_soon(f) || atomic_load(&f->mode) == MODE_DUAL)
		return SOCK_LIBC;
	ep = handle_ep(atomic_load(&f->ep));
	if (!is_peer)
		return addr_to_user(&ep->local, f->domain, addr, len);
	state = atomic_load(&ep->state);
	if (!f->has_connected || state != EP_ESTABLISHED)
		return -ENOTCONN;
	return addr_to_user(&ep->remote, f->domain, addr, len);
}

int sock_getfl(struct file *f, int fd)
{
	int fl;

	if (!sock_is_ours(f))
		return SOCK_LIBC;
	fl = libc.fcntl(fd, F_GETFL);
	if (fl < 0)
		return -errno;
	return (fl & ~(O_NONBLOCK | O_APPEND)) | (sock_is_nonblocking(f) ? O_NONBLOCK : 0) |
	       (atomic_load(&f->is_append) ? O_APPEND : 0);
}

int sock_setfl(struct file *f, int fd, int flags)
{
	(void)fd;
	if (!sock_is_ours(f)) {
		sock_set_nonblocking(f, (flags & O_NONBLOCK) != 0);
		atomic_store(&f->is_append, (flags & O_APPEND) != 0);
		if (flags & (O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME))
			spare_own(f);
		else
			spare_flagged(f, (flags & O_NONBLOCK) != 0);
		return SOCK_LIBC;
	}
	if (flags & O_DIRECT)
		return -EINVAL;
	if (flags & O_ASYNC)
		return -EOPNOTSUPP; /* no SIGIO from here */
	sock_set_nonblocking(f, (flags & O_NONBLOCK) != 0);
	atomic_store(&f->is_append, (flags & O_APPEND) != 0);
	return 0;
}

int sock_ioctl(struct file *f, int fd, unsigned long request, void *arg)
{
	struct endpoint *ep;

	if (f->type == SOCK_DGRAM)
		return dgram_ioctl(f, fd, request, arg);
	if (!sock_is_ours(f)) {
		if (request == FIONBIO && !user_is_bad(arg)) {
			sock_set_nonblocking(f, *(int *)arg != 0);
			spare_flagged(f, *(int *)arg != 0);
		} else if (request != FIONBIO && request != FIOCLEX && request != FIONCLEX) {
			spare_own(f);
		}
		return SOCK_LIBC;
	}
	ep = handle_ep(atomic_load(&f->ep));
	switch (request) {
	case FIONBIO:
		if (user_is_bad(arg))
			return -EFAULT;
		sock_set_nonblocking(f, *(int *)arg != 0);
		return 0;
	case FIONREAD:
		if (atomic_load(&ep->state) == EP_LISTEN)
			return -EINVAL;
		if (user_is_bad(arg))
			return -EFAULT;
		if (!ep_rx_pending(ep))
			local_settle(ep);
		*(int *)arg = (int)ep_rx_pending(ep);
		return 0;
	case SIOCOUTQ:
		if (atomic_load(&ep->state) == EP_LISTEN)
			return -EINVAL;
		if (user_is_bad(arg))
			return -EFAULT;
		*(int *)arg = (int)ep_tx_used(ep);
		return 0;
	case SIOCOUTQNSD:
		if (atomic_load(&ep->state) == EP_LISTEN)
			return -EINVAL;
		if (user_is_bad(arg))
			return -EFAULT;
		*(int *)arg = (int)atomic_load(&ep->tx_unsent);
		return 0;
	case FIOCLEX:
	case FIONCLEX:
		return SOCK_LIBC;
	case SIOCATMARK:
		if (user_is_bad(arg))
			return -EFAULT;
		*(int *)arg = 0; /* urgent data there is none */
		return 0;
	case FIOASYNC:
		return user_is_bad(arg) ? -EFAULT : *(int *)arg ? -EOPNOTSUPP : 0;
	default:
		spare_own(f);
		return SOCK_LIBC; /* of interfaces, owners and terminals the kernel's socket knows */
	}
}

void sock_linger(struct file *f)
{
	struct endpoint *ep;
	uint64_t deadline;

	/* O_NONBLOCK makes no difference: the kernel lingers all the same */
	if (f->type == SOCK_DGRAM || !sock_is_ours(f) || !opt_flag(f, EPF_LINGER) ||
	        opt_int(f, EPO_LINGER_S) <= 0 || atomic_load(&f->fd_count) != 1 || sock_is_dead(f))
		return;
	ep = handle_ep(atomic_load(&f->ep));
	if (atomic_load(&ep->state) != EP_ESTABLISHED || ep_rx_pending(ep))
		return;
	/* another process has it open: this is not the last close */
	if (handle_is_shared(atomic_load(&f->ep)))
		return;
	if (sock_shutdown(f, -1, SHUT_WR))
		return;
	deadline = clock_now_ns() + (uint64_t)opt_int(f, EPO_LINGER_S) * 1000000000u;
	while (!(atomic_load(&ep->flags) & EP_FIN_ACKED) && atomic_load(&ep->state) == EP_ESTABLISHED &&
	        !sock_is_dead(f)) {
		/* SHUT_WR makes the level writable for good: wait for the acknowledgement in short naps of
		 * the watch */
		struct timespec nap = {.tv_nsec = 200000};

		if (clock_now_ns() >= deadline)
			return;
		RAW(SYS_ppoll, NULL, 0, &nap, NULL); /* no cancellation point: the number is half closed */
	}
}

void sock_end(struct file *f)
{
	uint32_t ep = atomic_load(&f->ep), how = 0;

	if (f->type == SOCK_DGRAM) {
		dgram_end(f);
		return;
	}
	spare_back(f);
	if (ep != ENDPOINT_NONE) { /* nobody is let in once close has returned */
		how = opt_flag(f, EPF_LINGER) && opt_int(f, EPO_LINGER_S) == 0 ? RELEASE_ABORT : 0;
		sock_ep_end(ep, how);
	}
	sock_others_end(f, how);
	atomic_store(&f->ep, ENDPOINT_NONE);
}
