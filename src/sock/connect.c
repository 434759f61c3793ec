/* connect.c - connect(2): who serves it, starting, waiting, what came of it, and how a connection or listener
 * is dissolved again.
 *
 * Runs in application threads; state changes are under the file's lock. The protocol is in doc/threads.md,
 * "Connect".
 */
#include "sock.h"
#include "clock.h"
#include "dgram.h"
#include "endpoint.h"
#include "epoll_set.h"
#include "libc.h"
#include "local.h"
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
#include <string.h>

/* A connection that never came about, or a connection or listener that was dissolved: the socket is the
 * kernel's unconnected one again, as after a failed connect(2), or ours and bound if it was bound to our
 * address. With the file's lock. */
static void connect_undo(struct file *f, uint32_t how)
{
	uint32_t ep = atomic_load(&f->ep);
	struct timespec nap;

	epoll_file_closed_ep(f);
	/* what was accepted has a number only: all such numbers are the same kernel socket */
	if (handle_ep(ep)->parent != ENDPOINT_NONE)
		sock_renew(f);
	spare_own(f);
	opt_return(f, f->fd);
	f->has_connected = f->is_bound_here = false;
	f->may_bind_again = f->port_is_chance;
	atomic_store(&f->is_disconnecting, false);
	atomic_store(&f->connect_reported, false);
	/* as the kernel's half has it: a wildcard listener's never blocks */
	libc.fcntl(f->fd, F_SETFL, sock_is_nonblocking(f) ? O_NONBLOCK : 0);
	atomic_store(&f->mode, MODE_OPEN);
	atomic_store(&f->ep, ENDPOINT_NONE);
	sock_ep_end(ep, how); /* nobody is let in once the call has returned */
	sock_others_end(f, how);
	/* the port is free once the stack has seen the release */
	for (int i = 0; f->bound.family && i < 100; i++) {
		struct sock_addr a = f->bound;
		int rc;

		nap = (struct timespec){.tv_nsec = 50000};
		sock_options_take(f, f->fd);
		rc = sock_bind_here(handle_service(ep), f, &a, 0);
		if (!rc)
			atomic_store(&f->mode, MODE_PRONK);
		if (rc != -EADDRINUSE)
			break;
		RAW(SYS_ppoll, NULL, 0, &nap, NULL, 0); /* no cancellation point: callers hold the lock */
	}
	epoll_file_changed(f);
}

void sock_connect_failed(struct file *f)
{
	struct endpoint *ep;

	spin_lock(&f->lock);
	ep = handle_ep(atomic_load(&f->ep));
	if (f->has_connected && atomic_load(&f->mode) == MODE_PRONK && atomic_load(&ep->state) == EP_CLOSED &&
	        !(atomic_load(&ep->flags) & EP_OPENED) && !atomic_load(&ep->error) && !sock_is_dead(f))
		connect_undo(f, 0);
	spin_unlock(&f->lock);
}

static int connect_result(struct file *f)
{
	struct endpoint *ep = handle_ep(atomic_load(&f->ep));
	int err;

	if (atomic_load(&ep->state) == EP_CONNECTING)
		return -EALREADY;
	if (atomic_load(&f->connect_reported)) /* an error since then is left for others */
		return -EISCONN;
	err = atomic_exchange(&ep->error, 0);
	if (err)
		return -err;
	if (atomic_load(&ep->state) == EP_CLOSED)
		return -ECONNABORTED;
	atomic_store(&f->connect_reported, true);
	return 0;
}

static int connect_wait(struct file *f)
{
	uint64_t deadline = deadline_after(opt_sndtimeo(f));
	struct endpoint *ep = handle_ep(atomic_load(&f->ep));
	int rc;

	while (atomic_load(&ep->state) == EP_CONNECTING) {
		if (sock_is_dead(f))
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

bool sock_is_ours_soon(struct file *f)
{
	uint64_t deadline = 0;

	while (!sock_is_ours(f)) {
		if (!atomic_load(&f->is_connecting))
			return sock_is_ours(f); /* it is over since the first look */
		if (!deadline)
			deadline = clock_now_ns() + 100000000u;
		if (clock_now_ns() >= deadline) {
			/* a service that does not answer; a handler that interrupted the connect; a child
			 * whose parent's thread was in it */
			atomic_store(&f->is_connecting, false);
			return false;
		}
		RAW(SYS_sched_yield);
	}
	return true;
}

/* s: where the socket goes if it is not bound here. */
static int connect_start(struct service *s, struct file *f, int fd, const struct sock_addr *to)
{
	const struct arena *a;
	struct call c = {.op = CALL_CONNECT, .endpoint = ENDPOINT_NONE, .remote = *to};
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	uint32_t stack, bound = atomic_load(&f->ep);
	bool was_ours = atomic_load(&f->mode) == MODE_PRONK;
	int rc;

	if (!was_ours) {
		sock_options_take(f, fd);
		/* bound through the kernel: take the same port here */
		if (!spare_is_fresh(f) && !libc.getsockname(fd, (struct sockaddr *)&ss, &len) &&
		        !addr_from_user(&c.local, (struct sockaddr *)&ss, len) && c.local.port) {
			if (!route_is_loopback(&c.local) || s != proc.local)
				memset(c.local.ip, 0, sizeof(c.local.ip));
			rc = sock_bind_here(s, f, &c.local, CALL_F_KERNEL_BOUND);
			if (rc)
				return rc;
			bound = atomic_load(&f->ep);
		}
	} else if (f->is_bound_here) {
		c.local = handle_ep(bound)->local;
		s = handle_service(bound);
	}
	a = &s->at.arena;
	c.value = (int32_t)opt_app_flags(f);
	opt_copy_for(&c.opts, f, s);
	stack = atomic_fetch_add_explicit(&a->hdr->next_stack, 1, memory_order_relaxed) % a->stack_count;
	for (;;) {
		struct call try = c;

		rc = post_call(&s->at, stack, &try);
		if (rc || (rc = try.result) != -EXDEV) {
			c.endpoint = handle_make(s, try.endpoint);
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
	file_opts_drop(f);
	atomic_store(&f->mode, MODE_PRONK);
	if (!was_ours)
		spare_connected();
	if (f->is_bound_here) {
		epoll_file_closed_ep(f); /* its watches lie in the endpoint that goes */
		atomic_store(&f->ep, c.endpoint);
		sock_ep_release(bound, RELEASE_KEEP_PORT);
	}
	f->is_bound_here = false;
	f->has_connected = true;
	atomic_store(&f->connect_reported, false);
	sock_publish(f);
	epoll_file_changed(f);
	return 0;
}

/* connect(2) to AF_UNSPEC: ends a connection, and also a listener. */
static int connect_dissolve(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	spin_lock(&f->lock);
	if (atomic_load(&f->mode) == MODE_DUAL) {
		RAW(SYS_connect, fd, addr, len);
		connect_undo(f, 0);
	} else if (!f->is_bound_here && !sock_is_dead(f)) {
		connect_undo(f, f->has_connected ? RELEASE_ABORT : 0);
	}
	spin_unlock(&f->lock);
	return 0;
}

/* A socket that the kernel has bound can be ours if its address is that of the service it goes to, or
 * loopback where we serve that, or none. */
static bool bound_address_suits(int fd, const struct sock_addr *to)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct sock_addr a;

	if (libc.getsockname(fd, (struct sockaddr *)&ss, &len) ||
	        addr_from_user(&a, (struct sockaddr *)&ss, len) || route_is_any(&a))
		return true;
	if (a.family == AF_INET && route_is_loopback(&a))
		return proc_serves_loopback();
	return proc_attach() && route_owner(&a) && (!route_to(to) || route_to(to) == route_owner(&a));
}

int sock_connect(struct file *f, int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sock_addr to;
	struct service *s = NULL;
	bool is_local = false, is_there = f->is_tried_there;
	uint32_t old = ENDPOINT_NONE;
	const char *why;
	int rc, bad;

	if (f->type == SOCK_DGRAM)
		return dgram_connect(f, fd, addr, len);
	if (atomic_load(&f->mode) == MODE_KERNEL)
		return SOCK_LIBC;
	if (sock_is_ours(f)) {
		/* connect(2) looks at the state before it looks at the address, but for these */
		if (len < sizeof(addr->sa_family) || len > sizeof(struct sockaddr_storage))
			return -EINVAL;
		if (user_is_bad(addr))
			return -EFAULT;
		if (addr->sa_family == AF_UNSPEC)
			return connect_dissolve(f, fd, addr, len);
		if (atomic_load(&f->mode) == MODE_DUAL) {
			if (atomic_load(&handle_ep(atomic_load(&f->ep))->state) != EP_CLOSED)
				return -EISCONN;
			/* listening was ended by shutdown: an unconnected socket again */
			spin_lock(&f->lock);
			connect_undo(f, 0);
			spin_unlock(&f->lock);
		}
	}
	rc = user_is_bad(addr) ? -EFAULT : addr_from_user(&to, addr, len);
	if (atomic_load(&f->mode) == MODE_OPEN) {
		if (rc || addr->sa_family != f->domain)
			return SOCK_LIBC; /* the kernel's own words for a bad address */
		/* one that has a connection of the kernel's, or tries: its words, too */
		if (is_there && !sock_kernel_is_closed(fd))
			return SOCK_LIBC;
		f->is_tried_there = true;
		why = rule_of(CFG_ROLE_CLIENT, &to);
		if (why) {
			proc_fallback_add(fd, f->domain, f->type, why);
			return SOCK_LIBC;
		}
		if (f->is_bound_there && !bound_address_suits(fd, &to)) {
			proc_fallback_add(fd, f->domain, f->type, "bound to an address of the kernel");
			return SOCK_LIBC;
		}
		if (route_is_loopback(&to) || route_is_any(&to)) {
			if (!local_connect(f, fd, &to))
				return SOCK_LIBC;
			is_local = true;
			s = proc.local;
		}
		if (to.family == AF_INET6) {
			proc_fallback_add(fd, f->domain, f->type, "IPv6 is not accelerated");
			return SOCK_LIBC;
		}
		if (!proc_attach() || proc_is_dead())
			return proc_is_strict() ? -ENETDOWN : SOCK_LIBC;
		if (!is_local && proc.local && route_owner(&to) == proc.local) {
			if (!local_connect(f, fd, &to))
				return SOCK_LIBC;
			is_local = true;
			s = proc.local;
		} else if (!is_local && proc_is_strict() && route_is_lost(&to)) {
			return -ENETDOWN;
		} else if (!is_local && !(s = route_to(&to))) {
			proc_fallback_add(fd, f->domain, f->type, "no route to the peer through the port");
			return SOCK_LIBC;
		}
		if (opt_device_is_other(s, f, fd)) {
			proc_fallback_add(fd, f->domain, f->type, "bound to another device");
			return SOCK_LIBC;
		}
	} else if (!rc && addr->sa_family != f->domain) {
		rc = f->domain == AF_INET6 && len < sizeof(struct sockaddr_in6) - 4 ? -EINVAL : -EAFNOSUPPORT;
	} else if (!rc && route_is_any(&to) && handle_service(atomic_load(&f->ep)) == proc.local) {
		route_own(proc.local, to.ip); /* where the socket is bound */
	}
	bad = rc;
	spin_lock(&f->lock);
	if (f->has_connected && atomic_load(&f->mode) == MODE_PRONK) {
		struct endpoint *ep = handle_ep(atomic_load(&f->ep));

		if (sock_is_dead(f)) {
			rc = -ECONNRESET;
			goto out;
		}
		rc = atomic_load(&f->is_disconnecting) ? -EINVAL : connect_result(f);
		/* after a failure the socket may try again */
		if (rc != -EALREADY && rc != -EISCONN && rc != -EINVAL && rc != 0 &&
		        atomic_load(&ep->state) == EP_CLOSED)
			connect_undo(f, 0);
		if (rc == -EALREADY && !sock_is_nonblocking(f)) {
			spin_unlock(&f->lock);
			rc = connect_wait(f);
			return rc == -EINPROGRESS ? -EALREADY : rc;
		}
		goto out;
	}
	/* another thread has dissolved it since: from the beginning */
	if (!bad && !s && !sock_is_ours(f)) {
		spin_unlock(&f->lock);
		return sock_connect(f, fd, addr, len);
	}
	if (atomic_load(&f->mode) == MODE_PRONK && !f->is_bound_here &&
	        atomic_load(&f->ep) != ENDPOINT_NONE) {
		/* before anything that is wrong with the address, as in the kernel */
		if (atomic_load(&handle_ep(atomic_load(&f->ep))->state) == EP_LISTEN) {
			rc = -EISCONN;
			goto out;
		}
		if (!bad) {
			epoll_file_closed_ep(f);
			old = atomic_load(&f->ep);
		}
	}
	if (!s) /* it is ours already */
		s = handle_service(atomic_load(&f->ep));
	atomic_store(&f->is_connecting, !bad && !sock_is_ours(f));
	rc = bad ? bad : connect_start(s, f, fd, &to);
	atomic_store(&f->is_connecting, false);
	/* a listener that was shut down: it stays what it was when it cannot connect */
	if (old != ENDPOINT_NONE && rc)
		epoll_file_changed(f);
	else
		sock_ep_release(old, 0);
	spin_unlock(&f->lock);
	if (is_local && (rc == -EADDRNOTAVAIL || rc == -EADDRINUSE)) {
		/* The kernel gave a port that a connection of ours has not left yet, which it cannot know. It
		 * listens there as well. */
		proc_fallback_add(fd, f->domain, f->type, "the bound port is still in use under Pronk");
		return SOCK_LIBC;
	}
	/* its death was not known before this call */
	if (rc == -ECONNRESET && !sock_is_ours(f) && s && attach_is_dead(&s->at)) {
		if (proc_is_strict())
			return -ENETDOWN;
		proc_fallback_add(fd, f->domain, f->type, "no service");
		return SOCK_LIBC;
	}
	if (rc)
		return rc;
	if (sock_is_nonblocking(f))
		return -EINPROGRESS;
	return connect_wait(f);
out:
	spin_unlock(&f->lock);
	return rc;
}
