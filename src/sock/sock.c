/* sock.c - a TCP socket from socket() to close(): who serves it, and the calls that change its state.
 *
 * Runs in application threads. A socket begins as a kernel socket and stays one until listen or connect (or a
 * bind to Pronk's address) shows that it is ours; so options set before that are the kernel's business, and
 * falling back costs nothing. A wildcard listener listens on both sides. Data is in xfer.c, options in opt.c.
 */
#include "sock.h"
#include "clock.h"
#include "endpoint.h"
#include "epoll_set.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

void sock_opened(int fd, int domain, int type, int protocol)
{
	struct file *f;
	int kind = type & 0xf;

	file_close(fd); /* a number that came back without a close that we saw */
	if (domain != AF_INET && domain != AF_INET6)
		return;
	if (kind != SOCK_STREAM || (protocol != 0 && protocol != IPPROTO_TCP)) {
		proc_fallback_add(fd, domain, kind,
		        kind == SOCK_DGRAM ? "UDP is not accelerated" : "only TCP is accelerated");
		return;
	}
	f = file_open(fd, FILE_SOCKET);
	if (!f)
		return;
	f->domain = (uint16_t)domain;
	f->type = (uint16_t)kind;
	atomic_store(&f->is_nonblocking, (type & SOCK_NONBLOCK) != 0);
	f->keepidle = 7200;
	f->keepintvl = 75;
	f->keepcnt = 9;
	f->ttl = 64;
	f->rcvlowat = 1;
}

bool sock_is_nonblocking(struct file *f)
{
	uint32_t ep = atomic_load_explicit(&f->ep, memory_order_relaxed);

	if (ep == ENDPOINT_NONE)
		return atomic_load(&f->is_nonblocking);
	return atomic_load_explicit(&proc_ep(ep)->app_flags, memory_order_relaxed) & APP_NONBLOCK;
}

void sock_set_nonblocking(struct file *f, bool on)
{
	uint32_t ep = atomic_load(&f->ep);

	atomic_store(&f->is_nonblocking, on);
	if (ep == ENDPOINT_NONE)
		return;
	if (on)
		atomic_fetch_or(&proc_ep(ep)->app_flags, APP_NONBLOCK);
	else
		atomic_fetch_and(&proc_ep(ep)->app_flags, ~(uint32_t)APP_NONBLOCK);
}

static void stay_kernel(struct file *f, int fd, const char *reason)
{
	atomic_store(&f->mode, MODE_KERNEL);
	proc_fallback_add(fd, f->domain, f->type, reason);
}

static bool is_loopback(const struct sock_addr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return a->family == AF_INET ? a->ip[0] == 127 : !memcmp(a->ip, one, 16);
}

static bool is_any(const struct sock_addr *a)
{
	static const uint8_t none[16];

	return !memcmp(a->ip, none, a->family == AF_INET ? 4 : 16);
}

static bool is_pronk_address(const struct sock_addr *a)
{
	return a->family == AF_INET && !memcmp(a->ip, proc.at.arena.hdr->address, 4);
}

/* Does the port reach this address? Its own address is not a peer: the kernel's route leads there through the
 * device. */
static bool is_reachable(const struct sock_addr *a)
{
	const struct arena_header *h = proc.at.arena.hdr;
	uint32_t mask = h->prefix ? htonl(~0u << (32 - h->prefix)) : 0, x, y;

	if (a->family != AF_INET || is_pronk_address(a))
		return false;
	memcpy(&x, a->ip, 4);
	memcpy(&y, h->address, 4);
	if (!((x ^ y) & mask))
		return true;
	return h->has_gateway;
}

static uint32_t option_flags(const struct file *f)
{
	return (f->reuseaddr ? CALL_F_REUSEADDR : 0u) | (f->reuseport ? CALL_F_REUSEPORT : 0u);
}

static uint32_t app_flags(const struct file *f)
{
	return (atomic_load(&f->is_nonblocking) ? APP_NONBLOCK : 0u) | (f->nodelay ? APP_NODELAY : 0u) |
	       (f->cork ? APP_CORK : 0u) | (f->keepalive ? APP_KEEPALIVE : 0u);
}

void sock_ep_release(uint32_t ep, uint32_t how)
{
	if (ep != ENDPOINT_NONE && !proc_is_dead())
		post(&proc.at, proc_ep(ep)->stack_idx, POST_ENTRY(POST_RELEASE, how, ep));
}

/* Reserves the address and port with the service. */
static int pronk_bind(struct file *f, struct sock_addr *a)
{
	struct call c = {.op = CALL_BIND, .endpoint = ENDPOINT_NONE, .local = *a, .flags = option_flags(f)};
	int rc;

	c.local.family = AF_INET;
	rc = post_call(&proc.at, 0, &c);
	if (rc || (rc = c.result))
		return rc;
	a->port = c.local.port;
	atomic_store(&f->ep, c.endpoint);
	sock_set_nonblocking(f, atomic_load(&f->is_nonblocking));
	f->is_bound_here = true;
	return 0;
}

/* The options the application has set so far, as the kernel has them. */
static void options_take(struct file *f, int fd)
{
	struct {
		int level, name, *value;
	} rows[] = {{SOL_SOCKET, SO_REUSEADDR, &f->reuseaddr}, {SOL_SOCKET, SO_REUSEPORT, &f->reuseport},
	        {SOL_SOCKET, SO_KEEPALIVE, &f->keepalive}, {SOL_SOCKET, SO_OOBINLINE, &f->oobinline},
	        {SOL_SOCKET, SO_SNDBUF, &f->sndbuf}, {SOL_SOCKET, SO_RCVBUF, &f->rcvbuf},
	        {SOL_SOCKET, SO_RCVLOWAT, &f->rcvlowat}, {IPPROTO_TCP, TCP_NODELAY, &f->nodelay},
	        {IPPROTO_TCP, TCP_CORK, &f->cork}, {IPPROTO_TCP, TCP_KEEPIDLE, &f->keepidle},
	        {IPPROTO_TCP, TCP_KEEPINTVL, &f->keepintvl}, {IPPROTO_TCP, TCP_KEEPCNT, &f->keepcnt},
	        {IPPROTO_TCP, TCP_USER_TIMEOUT, &f->user_timeout}, {IPPROTO_IP, IP_TOS, &f->tos},
	        {IPPROTO_IP, IP_TTL, &f->ttl}};
	struct linger lg;
	struct timeval tv;
	socklen_t len;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int v;

		len = sizeof(v);
		if (!libc.getsockopt(fd, rows[i].level, rows[i].name, &v, &len))
			*rows[i].value = v;
	}
	len = sizeof(lg);
	if (!libc.getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &len)) {
		f->linger_on = lg.l_onoff;
		f->linger_s = lg.l_linger;
	}
	len = sizeof(tv);
	if (!libc.getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len))
		f->rcvtimeo_ns = (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
	len = sizeof(tv);
	if (!libc.getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &len))
		f->sndtimeo_ns = (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
	atomic_store(&f->is_nonblocking, (libc.fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

/* A program that never set SO_SNDBUF or SO_RCVBUF gets ours: the kernel's default is not a wish. */
static void buffers_apply(struct file *f)
{
	if (!f->sndbuf_set)
		f->sndbuf = (int)proc.at.arena.hdr->send_buffer;
	if (!f->rcvbuf_set)
		f->rcvbuf = (int)proc.at.arena.hdr->receive_buffer;
}

int sock_bind(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr a;
	int rc = addr_from_user(&a, addr, len);

	if (atomic_load(&f->mode) == MODE_PRONK && !rc && a.family == AF_INET && !is_any(&a) &&
	        !is_pronk_address(&a))
		return -EADDRNOTAVAIL;
	if (atomic_load(&f->mode) != MODE_OPEN)
		return sock_is_ours(f) ? (rc ? rc : -EINVAL) : SOCK_LIBC;
	if (rc || is_any(&a) || is_loopback(&a) || a.family != AF_INET ||
	        (f->domain == AF_INET && addr->sa_family != AF_INET))
		return SOCK_LIBC; /* a wildcard is decided at listen or connect */
	if (!proc_attach() || proc_is_dead() || !is_pronk_address(&a))
		return SOCK_LIBC;
	spin_lock(&f->lock);
	if (f->is_bound_here) {
		spin_unlock(&f->lock);
		return -EINVAL;
	}
	options_take(f, fd);
	buffers_apply(f);
	/* where the kernel has the address too, nobody there may take the port */
	if (a.port && libc.bind(fd, addr, len) < 0 && errno != EADDRNOTAVAIL) {
		rc = -errno;
	} else {
		rc = pronk_bind(f, &a);
		if (!rc) {
			atomic_store(&f->mode, MODE_PRONK);
			epoll_file_changed(f);
		}
	}
	spin_unlock(&f->lock);
	return rc;
}

static void publish_fd(struct file *f)
{
	uint32_t ep = atomic_load(&f->ep);

	if (ep == ENDPOINT_NONE)
		return;
	atomic_store_explicit(&proc_ep(ep)->app_fd, f->fd, memory_order_relaxed);
	sock_set_nonblocking(f, atomic_load(&f->is_nonblocking));
	if (f->sndbuf_set)
		atomic_store_explicit(&proc_ep(ep)->tx_limit, (uint32_t)f->sndbuf, memory_order_relaxed);
}

/* Makes the bound endpoint a listener on every stack. */
static int pronk_listen(struct file *f, int backlog)
{
	struct call c = {.op = CALL_LISTEN,
	        .endpoint = atomic_load(&f->ep),
	        .value = backlog,
	        .opt = app_flags(f),
	        .flags = option_flags(f)};
	int rc = post_call(&proc.at, 0, &c);

	if (!rc)
		rc = c.result;
	if (!rc) {
		f->is_bound_here = false;
		publish_fd(f);
	}
	return rc;
}

static int strict_or_kernel(struct file *f, int fd, const char *reason)
{
	if (proc.strict) {
		log_limited_error("strict: fd %d is refused: %s", fd, reason);
		return -ENETDOWN;
	}
	stay_kernel(f, fd, reason);
	return 0;
}

/* A wildcard listener: the kernel listens first, so that its answer to a taken port or a missing bind is the
 * kernel's own. */
static int listen_dual(struct file *f, int fd, int backlog)
{
	struct sockaddr_storage ss;
	struct sock_addr a;
	socklen_t len = sizeof(ss);
	int v6only = 0, rc;

	if (libc.listen(fd, backlog) < 0)
		return -errno;
	if (libc.getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ||
	        addr_from_user(&a, (struct sockaddr *)&ss, len))
		return 0;
	if (!is_any(&a)) {
		stay_kernel(f, fd,
		        is_loopback(&a) ? "bound to a loopback address"
		                        : "bound to an address of the kernel");
		return 0;
	}
	len = sizeof(v6only);
	if (f->domain == AF_INET6 &&
	        (libc.getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len) || v6only)) {
		stay_kernel(f, fd, "IPv6 is not accelerated");
		return 0;
	}
	if (!proc_attach() || proc_is_dead())
		return strict_or_kernel(f, fd, "no service");
	options_take(f, fd);
	buffers_apply(f);
	memset(&a.ip, 0, sizeof(a.ip));
	rc = pronk_bind(f, &a);
	if (!rc) {
		rc = pronk_listen(f, backlog);
		if (rc) {
			sock_ep_release(atomic_load(&f->ep), 0);
			atomic_store(&f->ep, ENDPOINT_NONE);
			f->is_bound_here = false;
		}
	}
	if (rc) {
		char why[80];

		snprintf(why, sizeof(why), "the service could not listen on port %u: %s", a.port,
		        strerror(-rc));
		log_warning("%s; the kernel serves it", why);
		return strict_or_kernel(f, fd, why);
	}
	/* we wait for both sides together, so the kernel's must never block */
	libc.fcntl(fd, F_SETFL, libc.fcntl(fd, F_GETFL) | O_NONBLOCK);
	atomic_store(&f->mode, MODE_DUAL);
	epoll_file_changed(f);
	return 0;
}

/* A listener that was shut down listens once more, on the same port. */
static int listen_again(struct file *f, int backlog)
{
	uint32_t old = atomic_load(&f->ep);
	struct sock_addr a = proc_ep(old)->local;
	int rc;

	epoll_file_closed_ep(f);
	rc = pronk_bind(f, &a);
	if (rc) {
		epoll_file_changed(f);
		return rc;
	}
	sock_ep_release(old, 0);
	return pronk_listen(f, backlog);
}

int sock_listen(struct file *f, int fd, int backlog)
{
	struct endpoint *ep;
	int rc = SOCK_LIBC;

	spin_lock(&f->lock);
	switch (atomic_load(&f->mode)) {
	case MODE_OPEN:
		rc = listen_dual(f, fd, backlog);
		break;
	case MODE_DUAL:
		libc.listen(fd, backlog);
		rc = pronk_listen(f, backlog);
		break;
	case MODE_PRONK:
		ep = proc_ep(atomic_load(&f->ep));
		if (proc_is_dead())
			rc = -ECONNRESET;
		else if (!f->is_bound_here && !f->has_connected && atomic_load(&ep->state) == EP_CLOSED)
			rc = listen_again(f, backlog);
		else if (!f->is_bound_here && atomic_load(&ep->state) != EP_LISTEN)
			rc = -EINVAL;
		else
			rc = pronk_listen(f, backlog);
		if (!rc)
			epoll_file_changed(f);
		break;
	default:
		break;
	}
	spin_unlock(&f->lock);
	return rc;
}

/* A connection that never came about, or was dissolved: the socket is the kernel's unconnected one again, as
 * after a failed connect(2). With the file's lock. */
static void connect_undo(struct file *f, uint32_t how)
{
	uint32_t ep = atomic_load(&f->ep);

	epoll_file_closed_ep(f);
	f->has_connected = false;
	atomic_store(&f->connect_reported, false);
	atomic_store(&f->mode, MODE_OPEN);
	atomic_store(&f->ep, ENDPOINT_NONE);
	sock_ep_release(ep, how);
	epoll_file_changed(f);
}

void sock_connect_failed(struct file *f)
{
	struct endpoint *ep;

	spin_lock(&f->lock);
	ep = proc_ep(atomic_load(&f->ep));
	if (f->has_connected && atomic_load(&f->mode) == MODE_PRONK && atomic_load(&ep->state) == EP_CLOSED &&
	        !(atomic_load(&ep->flags) & EP_OPENED) && !atomic_load(&ep->error) && !proc_is_dead())
		connect_undo(f, 0);
	spin_unlock(&f->lock);
}

static int connect_result(struct file *f)
{
	struct endpoint *ep = proc_ep(atomic_load(&f->ep));
	int err;

	if (atomic_load(&ep->state) == EP_CONNECTING)
		return -EALREADY;
	err = atomic_exchange(&ep->error, 0);
	if (err)
		return -err;
	if (atomic_load(&f->connect_reported))
		return -EISCONN;
	if (atomic_load(&ep->state) == EP_CLOSED && !atomic_load(&ep->rx_head))
		return -ECONNABORTED;
	atomic_store(&f->connect_reported, true);
	return 0;
}

static int connect_wait(struct file *f)
{
	uint64_t deadline = deadline_after(f->sndtimeo_ns);
	struct endpoint *ep = proc_ep(atomic_load(&f->ep));
	int rc;

	while (atomic_load(&ep->state) == EP_CONNECTING) {
		if (proc_is_dead())
			return -ECONNRESET;
		rc = wait_for(f, EPOLLOUT | EPOLLIN, deadline, -1);
		if (rc == -EAGAIN)
			return -EINPROGRESS;
		if (rc)
			return rc;
	}
	spin_lock(&f->lock);
	rc = connect_result(f);
	spin_unlock(&f->lock);
	if (rc && rc != -EISCONN)
		sock_connect_failed(f);
	return rc;
}

static int connect_start(struct file *f, int fd, const struct sock_addr *to)
{
	const struct arena *a = &proc.at.arena;
	struct call c = {.op = CALL_CONNECT, .endpoint = ENDPOINT_NONE, .remote = *to};
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	uint32_t stack, bound = atomic_load(&f->ep);
	bool was_ours = atomic_load(&f->mode) == MODE_PRONK;
	int rc;

	if (!was_ours) {
		options_take(f, fd);
		buffers_apply(f);
		/* bound through the kernel: take the same port here */
		if (!libc.getsockname(fd, (struct sockaddr *)&ss, &len) &&
		        !addr_from_user(&c.local, (struct sockaddr *)&ss, len) && c.local.port) {
			memset(c.local.ip, 0, sizeof(c.local.ip));
			rc = pronk_bind(f, &c.local);
			if (rc)
				return rc;
			bound = atomic_load(&f->ep);
		}
	} else if (f->is_bound_here) {
		c.local = proc_ep(bound)->local;
	}
	c.value = (int32_t)app_flags(f);
	c.rcvbuf = f->rcvbuf_set ? (uint32_t)f->rcvbuf : 0;
	stack = atomic_fetch_add_explicit(&a->hdr->next_stack, 1, memory_order_relaxed) % a->stack_count;
	for (;;) {
		struct call try = c;

		rc = post_call(&proc.at, stack, &try);
		if (rc || (rc = try.result) != -EXDEV) {
			c.endpoint = try.endpoint;
			break;
		}
		stack = (uint32_t)try.value % a->stack_count; /* a fixed port decides the stack */
	}
	if (rc) {
		if (!was_ours && f->is_bound_here) {
			sock_ep_release(bound, 0);
			atomic_store(&f->ep, ENDPOINT_NONE);
			f->is_bound_here = false;
		}
		return rc;
	}
	if (!f->is_bound_here)
		atomic_store(&f->ep, c.endpoint);
	atomic_store(&f->mode, MODE_PRONK);
	if (f->is_bound_here) {
		epoll_file_closed_ep(f); /* its watches lie in the endpoint that goes */
		atomic_store(&f->ep, c.endpoint);
		sock_ep_release(bound, RELEASE_KEEP_PORT);
	}
	f->is_bound_here = false;
	f->has_connected = true;
	atomic_store(&f->connect_reported, false);
	publish_fd(f);
	epoll_file_changed(f);
	return 0;
}

int sock_connect(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr to;
	int rc;

	if (atomic_load(&f->mode) == MODE_KERNEL)
		return SOCK_LIBC;
	if (atomic_load(&f->mode) == MODE_DUAL)
		return -EISCONN;
	if (atomic_load(&f->mode) == MODE_PRONK && f->has_connected && addr &&
	        len >= sizeof(addr->sa_family) && addr->sa_family == AF_UNSPEC) {
		/* dissolves the association: connect(2) */
		spin_lock(&f->lock);
		connect_undo(f, RELEASE_ABORT);
		spin_unlock(&f->lock);
		return 0;
	}
	rc = addr_from_user(&to, addr, len);
	if (rc == -EINVAL && addr && f->has_connected && atomic_load(&f->connect_reported))
		return -EISCONN;
	if (atomic_load(&f->mode) == MODE_OPEN) {
		if (rc || (f->domain == AF_INET && addr->sa_family != AF_INET))
			return SOCK_LIBC; /* the kernel's own words for a bad address */
		if (is_loopback(&to) || is_any(&to)) {
			proc_fallback_add(fd, f->domain, f->type, "the peer is on the loopback interface");
			return SOCK_LIBC;
		}
		if (to.family == AF_INET6) {
			proc_fallback_add(fd, f->domain, f->type, "IPv6 is not accelerated");
			return SOCK_LIBC;
		}
		if (!proc_attach() || proc_is_dead())
			return proc.strict ? -ENETDOWN : SOCK_LIBC;
		if (!is_reachable(&to)) {
			proc_fallback_add(fd, f->domain, f->type, "no route to the peer through the port");
			return SOCK_LIBC;
		}
	} else if (rc) {
		return rc;
	}
	spin_lock(&f->lock);
	if (f->has_connected && atomic_load(&f->mode) == MODE_PRONK) {
		struct endpoint *ep = proc_ep(atomic_load(&f->ep));

		if (proc_is_dead()) {
			rc = -ECONNRESET;
			goto out;
		}
		rc = connect_result(f);
		/* after a failure the socket may try again */
		if (rc != -EALREADY && rc != -EISCONN && rc != 0 && atomic_load(&ep->state) == EP_CLOSED)
			connect_undo(f, 0);
		if (rc == -EALREADY && !sock_is_nonblocking(f)) {
			spin_unlock(&f->lock);
			rc = connect_wait(f);
			return rc == -EINPROGRESS ? -EALREADY : rc;
		}
		goto out;
	}
	if (atomic_load(&f->mode) == MODE_PRONK && !f->is_bound_here &&
	        atomic_load(&f->ep) != ENDPOINT_NONE) {
		if (atomic_load(&proc_ep(atomic_load(&f->ep))->state) == EP_LISTEN) {
			rc = -EISCONN;
			goto out;
		}
		epoll_file_closed_ep(f);
		sock_ep_release(atomic_load(&f->ep), 0);
		atomic_store(&f->ep, ENDPOINT_NONE);
	}
	rc = connect_start(f, fd, &to);
	spin_unlock(&f->lock);
	if (rc)
		return rc;
	if (sock_is_nonblocking(f))
		return -EINPROGRESS;
	return connect_wait(f);
out:
	spin_unlock(&f->lock);
	return rc;
}

/* Posts a shutdown and waits until the endpoint has left a state, at most a second: what the kernel has done
 * when its call returns. */
static int shutdown_and_leave(struct file *f, struct endpoint *ep, int how, uint32_t state)
{
	uint64_t deadline = clock_now_ns() + 1000000000u;
	int rc = post(&proc.at, ep->stack_idx, POST_ENTRY(POST_SHUTDOWN, (uint32_t)how, atomic_load(&f->ep)));

	while (!rc && atomic_load(&ep->state) == state && !proc_is_dead() && clock_now_ns() < deadline)
		wait_for(f, 0, deadline, -1);
	return rc;
}

int sock_shutdown(struct file *f, int how)
{
	struct endpoint *ep;
	uint32_t state, bits;

	if (!sock_is_ours(f))
		return SOCK_LIBC;
	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	if (proc_is_dead())
		return -ENOTCONN;
	ep = proc_ep(atomic_load(&f->ep));
	state = atomic_load(&ep->state);
	if (state == EP_LISTEN) {
		if (how == SHUT_WR)
			return atomic_load(&f->mode) == MODE_DUAL ? SOCK_LIBC : 0;
		/* listening ends; whoever waits in accept gets EINVAL */
		int rc = shutdown_and_leave(f, ep, how, EP_LISTEN);

		return atomic_load(&f->mode) == MODE_DUAL ? SOCK_LIBC : rc;
	}
	if (state == EP_CONNECTING) /* ends the attempt */
		return shutdown_and_leave(f, ep, how, EP_CONNECTING);
	if (state != EP_ESTABLISHED)
		return -ENOTCONN;
	bits = (how != SHUT_WR ? APP_SHUT_RD : 0u) | (how != SHUT_RD ? APP_SHUT_WR : 0u);
	if (bits & APP_SHUT_WR) {
		/* no writer is in the middle of the ring when the end is announced */
		if (ep_lock(&proc.at, &ep->tx_lock))
			return -EINTR;
		atomic_fetch_or(&ep->app_flags, bits);
		ep_unlock(&ep->tx_lock);
	} else {
		atomic_fetch_or(&ep->app_flags, bits);
	}
	return post(&proc.at, ep->stack_idx, POST_ENTRY(POST_SHUTDOWN, (uint32_t)how, atomic_load(&f->ep)));
}

int sock_name(struct file *f, struct sockaddr *addr, socklen_t *len, bool is_peer)
{
	struct endpoint *ep;
	uint32_t state;

	if (!sock_is_ours(f) || atomic_load(&f->mode) == MODE_DUAL)
		return SOCK_LIBC;
	if (!addr || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	ep = proc_ep(atomic_load(&f->ep));
	if (!is_peer) {
		addr_to_user(&ep->local, f->domain, addr, len);
		return 0;
	}
	state = atomic_load(&ep->state);
	if (!f->has_connected || (state != EP_ESTABLISHED && state != EP_CLOSED) ||
	        (state == EP_CLOSED && !atomic_load(&ep->info_mss)))
		return -ENOTCONN;
	addr_to_user(&ep->remote, f->domain, addr, len);
	return 0;
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
		return SOCK_LIBC;
	}
	if (flags & O_ASYNC)
		return -EOPNOTSUPP; /* no SIGIO from here */
	sock_set_nonblocking(f, (flags & O_NONBLOCK) != 0);
	atomic_store(&f->is_append, (flags & O_APPEND) != 0);
	return 0;
}

int sock_ioctl(struct file *f, int fd, unsigned long request, void *arg)
{
	struct endpoint *ep;

	(void)fd;
	if (!sock_is_ours(f)) {
		if (request == FIONBIO && arg)
			sock_set_nonblocking(f, *(int *)arg != 0);
		return SOCK_LIBC;
	}
	ep = proc_ep(atomic_load(&f->ep));
	switch (request) {
	case FIONBIO:
		if (!arg)
			return -EFAULT;
		sock_set_nonblocking(f, *(int *)arg != 0);
		return 0;
	case FIONREAD:
		if (!arg)
			return -EFAULT;
		if (atomic_load(&ep->state) == EP_LISTEN)
			return -EINVAL;
		*(int *)arg = (int)ep_rx_pending(ep);
		return 0;
	case SIOCOUTQ:
		if (!arg)
			return -EFAULT;
		if (atomic_load(&ep->state) == EP_LISTEN)
			return -EINVAL;
		*(int *)arg = (int)ep_tx_used(ep);
		return 0;
	case SIOCOUTQNSD:
		if (!arg)
			return -EFAULT;
		*(int *)arg = (int)atomic_load(&ep->tx_unsent);
		return 0;
	case FIOCLEX:
	case FIONCLEX:
		return SOCK_LIBC;
	case FIOASYNC:
		return -EOPNOTSUPP;
	default:
		return -ENOTTY;
	}
}

void sock_linger(struct file *f)
{
	struct endpoint *ep;
	uint64_t deadline;

	/* O_NONBLOCK makes no difference: the kernel lingers all the same */
	if (!sock_is_ours(f) || !f->linger_on || f->linger_s <= 0 || atomic_load(&f->fd_count) != 1 ||
	        proc_is_dead())
		return;
	ep = proc_ep(atomic_load(&f->ep));
	if (atomic_load(&ep->state) != EP_ESTABLISHED || ep_rx_pending(ep))
		return;
	if (sock_shutdown(f, SHUT_WR))
		return;
	deadline = clock_now_ns() + (uint64_t)f->linger_s * 1000000000u;
	while (!(atomic_load(&ep->flags) & EP_FIN_ACKED) && atomic_load(&ep->state) == EP_ESTABLISHED &&
	        !proc_is_dead()) {
		/* SHUT_WR makes the level writable for good: wait for the acknowledgement in short naps of
		 * the watch */
		struct timespec nap = {.tv_nsec = 200000};

		if (clock_now_ns() >= deadline)
			return;
		libc.ppoll(NULL, 0, &nap, NULL);
	}
}

void sock_end(struct file *f)
{
	uint32_t ep = atomic_load(&f->ep);

	if (ep != ENDPOINT_NONE) {
		bool is_listener = atomic_load(&proc_ep(ep)->state) == EP_LISTEN &&
		                   !hold_any(&proc.at.arena, ep, proc.at.client_idx);
		uint64_t deadline = clock_now_ns() + 20000000u;

		sock_ep_release(ep, f->linger_on && f->linger_s == 0 ? RELEASE_ABORT : 0);
		/* nobody is let in once close has returned */
		while (is_listener && atomic_load(&proc_ep(ep)->state) == EP_LISTEN && !proc_is_dead() &&
		        clock_now_ns() < deadline)
			cpu_relax();
	}
	atomic_store(&f->ep, ENDPOINT_NONE);
}
