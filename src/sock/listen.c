/* listen.c - listen(2): which sides and services a listener is on.
 *
 * Runs in application threads, under the file's lock. A wildcard listener listens in the kernel and at every
 * service; one that is bound to a service's address there. doc/threads.md, "Accept".
 */
#include "sock.h"
#include "endpoint.h"
#include "epoll_set.h"
#include "libc.h"
#include "log.h"
#include "opt.h"
#include "proc.h"
#include "route.h"
#include "rule.h"
#include "spare.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static void stay_kernel(struct file *f, int fd, const char *reason)
{
	atomic_store(&f->mode, MODE_KERNEL);
	proc_fallback_add(fd, f->domain, f->type, reason);
}

/* Makes a bound endpoint a listener on every stack of its service. */
static int listen_at(struct file *f, uint32_t ep, int backlog)
{
	struct call c = {.op = CALL_LISTEN,
	        .endpoint = handle_index(ep),
	        .value = backlog,
	        .opt = opt_app_flags(f),
	        .flags = sock_call_flags(f)};
	int rc = post_call_port(handle_at(ep), 0, &c);

	return rc ? rc : c.result;
}

static void listen_failed(const struct service *s, uint16_t port, int rc, char *why, size_t size)
{
	snprintf(why, size, "the service could not listen on port %u: %s", port, strerror(-rc));
	log_warning("%s%s%s; the kernel serves it", why, service_count() > 1 ? ", at " : "",
	        service_count() > 1 ? s->socket_path : "");
}

/* The kernel may have given its half another port since the last time. */
static void port_update(int fd, struct sock_addr *a)
{
	struct sockaddr_in6 in6;
	socklen_t len = sizeof(in6);

	if (!libc.getsockname(fd, (struct sockaddr *)&in6, &len))
		a->port = ntohs(in6.sin6_port); /* at the same place in both families */
}

/* A listener at the wildcard listens at all services; where it cannot, that is said. */
static void listen_others(struct file *f, int backlog)
{
	struct sock_addr a = handle_ep(atomic_load(&f->ep))->local;
	struct service *own = handle_service(atomic_load(&f->ep));
	char why[80];

	if (attach_is_dead(&own->at)) /* what it had is of no use */
		port_update(f->fd, &a);
	for (uint32_t i = 0; i < service_count(); i++) {
		struct service *s = &services[i];
		uint32_t ep = f->also ? file_ep(f, 1 + i) : ENDPOINT_NONE;
		bool is_new = ep == ENDPOINT_NONE;
		int rc;

		if (s == own || attach_is_dead(&s->at))
			continue;
		rc = !file_also_take(f) ? -ENOMEM
		     : is_new           ? sock_bind_at(s, f, &a, CALL_F_KERNEL_BOUND, &ep)
		                        : 0;
		if (!rc) {
			rc = listen_at(f, ep, backlog);
			if (!rc)
				atomic_store(&f->also->ep[i], ep);
			else if (is_new)
				sock_ep_release(ep, 0);
		}
		if (rc)
			listen_failed(s, a.port, rc, why, sizeof(why));
	}
}

/* Makes the bound endpoint a listener, and those at other services. */
static int pronk_listen(struct file *f, int backlog)
{
	uint32_t ep = atomic_load(&f->ep);
	int rc = listen_at(f, ep, backlog);

	/* its service has died: the kernel's half listens, and what there is elsewhere */
	if (rc && atomic_load(&f->mode) == MODE_DUAL && handle_is_dead(ep))
		rc = 0;
	if (rc)
		return rc;
	f->is_bound_here = false;
	if (unlikely(service_count() > 1) && atomic_load(&f->mode) != MODE_PRONK &&
	        route_is_any(&handle_ep(ep)->local) && !opt_flag(f, EPF_BOUND_DEVICE))
		listen_others(f, backlog);
	sock_publish(f);
	return 0;
}

/* A listener that bind(2) gave a port of Pronk's when nothing told whether it is one. The kernel cannot have
 * it any more. */
static int listen_by_rule(struct file *f, int fd, int backlog)
{
	const char *why = rule_of(CFG_ROLE_SERVER, &handle_ep(atomic_load(&f->ep))->local);

	if (!why)
		return pronk_listen(f, backlog);
	log_limited_warning("fd %d is bound to Pronk's address and cannot listen: %s", fd, why);
	return -EADDRNOTAVAIL;
}

static int strict_or_kernel(struct file *f, int fd, const char *reason)
{
	if (proc_is_strict()) {
		log_limited_error("strict: fd %d is refused: %s", fd, reason);
		return -ENETDOWN;
	}
	stay_kernel(f, fd, reason);
	return 0;
}

static bool is_v6_only(const struct file *f, int fd)
{
	int v6only = 0;
	socklen_t len = sizeof(v6only);

	return f->domain == AF_INET6 &&
	       (libc.getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len) || v6only);
}

/* Binds and listens at the first service that takes it, and then at the others. Returns that service and *rc
 * 0, or the first that refused and its -E; NULL: there is none that it could go to. */
static struct service *listen_first(
        struct file *f, int fd, struct sock_addr *a, bool is_loop, int backlog, int *rc)
{
	struct service *refused = NULL;

	*rc = 0;
	for (uint32_t i = 0; i < service_count(); i++) {
		struct service *s = &services[i];
		int no;

		if ((is_loop ? s != proc.local : attach_is_dead(&s->at)) || opt_device_is_other(s, f, fd))
			continue;
		sock_options_take(f, fd);
		no = sock_bind_here(s, f, a, CALL_F_KERNEL_BOUND);
		if (!no) {
			no = pronk_listen(f, backlog);
			if (!no) {
				*rc = 0;
				return s;
			}
			sock_ep_release(atomic_load(&f->ep), 0);
			atomic_store(&f->ep, ENDPOINT_NONE);
			f->is_bound_here = false;
		}
		if (!refused) {
			refused = s;
			*rc = no;
		}
	}
	return refused;
}

/* A listener at the wildcard, or at a loopback address that is ours as well: the kernel listens first, so
 * that its answer to a taken port or a missing bind is the kernel's own. */
static int listen_dual(struct file *f, int fd, int backlog)
{
	struct sockaddr_storage ss;
	struct sock_addr a;
	socklen_t len = sizeof(ss);
	const char *why = NULL;
	struct service *s;
	bool is_loop, is_named;
	char failure[80];
	int rc;

	is_named = !libc.getsockname(fd, (struct sockaddr *)&ss, &len) &&
	           !addr_from_user(&a, (struct sockaddr *)&ss, len);
	/* bound to our address by a bind that the service had no part in, as somebody listened there */
	if (is_named)
		why = a.port ? rule_of(CFG_ROLE_SERVER, &a) : rule_of_all(1 << CFG_ROLE_SERVER);
	if (is_named && a.port && !route_is_any(&a) && !why && proc_attach() && (s = route_owner(&a))) {
		sock_options_take(f, fd);
		rc = sock_bind_here(s, f, &a, 0);
		if (rc)
			return rc;
		atomic_store(&f->mode, MODE_PRONK);
		rc = pronk_listen(f, backlog);
		epoll_file_changed(f);
		return rc;
	}
	/* before the kernel answers anybody: a port that takes the interface over (AF_XDP) as it starts would
	 * cut off who has connected by then */
	if (is_named && route_is_any(&a) && !why && !is_v6_only(f, fd))
		proc_attach();
	len = sizeof(ss);
	if (libc.listen(fd, backlog) < 0)
		return -errno;
	if (libc.getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ||
	        addr_from_user(&a, (struct sockaddr *)&ss, len))
		return 0;
	why = rule_of(CFG_ROLE_SERVER, &a);
	if (why) {
		stay_kernel(f, fd, why);
		return 0;
	}
	is_loop = a.family == AF_INET && route_is_loopback(&a) && proc_serves_loopback();
	if (!route_is_any(&a) && !is_loop) {
		stay_kernel(f, fd,
		        route_is_loopback(&a) ? "bound to a loopback address"
		                              : "bound to an address of the kernel");
		return 0;
	}
	if (!is_loop && is_v6_only(f, fd)) {
		stay_kernel(f, fd, "IPv6 is not accelerated");
		return 0;
	}
	if (!proc_attach() || proc_is_dead())
		return strict_or_kernel(f, fd, "no service");
	if (!is_loop)
		memset(&a.ip, 0, sizeof(a.ip));
	s = listen_first(f, fd, &a, is_loop, backlog, &rc);
	if (!s && proc_is_dead())
		return strict_or_kernel(f, fd, "no service");
	if (!s) {
		stay_kernel(f, fd, "bound to another device");
		return 0;
	}
	if (rc) {
		listen_failed(s, a.port, rc, failure, sizeof(failure));
		return strict_or_kernel(f, fd, failure);
	}
	/* we wait for both sides together, so the kernel's must never block */
	libc.fcntl(fd, F_SETFL, libc.fcntl(fd, F_GETFL) | O_NONBLOCK);
	atomic_store(&f->mode, MODE_DUAL);
	epoll_file_changed(f);
	return 0;
}

/* A listener that was shut down listens once more: on the same port, or on the one that its kernel half has
 * now. */
static int listen_again(struct file *f, int fd, int backlog)
{
	uint32_t old = atomic_load(&f->ep);
	struct sock_addr a = handle_ep(old)->local;
	int rc;

	if (atomic_load(&f->mode) == MODE_DUAL)
		port_update(fd, &a);
	epoll_file_closed_ep(f);
	rc = sock_bind_here(handle_service(old), f, &a, 0);
	if (rc) {
		epoll_file_changed(f);
		return rc;
	}
	sock_ep_release(old, 0);
	sock_others_end(f, 0);
	return pronk_listen(f, backlog);
}

/* listen(2) on a listener that the kernel has as well, and has done it for: another backlog, or again after
 * shutdown(2). */
static int listen_dual_again(struct file *f, int fd, int backlog)
{
	bool is_shut = false;
	int rc;

	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t ep = file_ep(f, i);

		is_shut |= atomic_load(&handle_ep(ep)->state) == EP_CLOSED && !handle_is_dead(ep);
	}
	if (!is_shut)
		return pronk_listen(f, backlog);
	if (handle_is_dead(atomic_load(&f->ep))) {
		epoll_file_closed_ep(f);
		sock_others_end(f, 0);
		rc = pronk_listen(f, backlog);
	} else {
		rc = listen_again(f, fd, backlog);
	}
	epoll_file_changed(f);
	return rc;
}

int sock_listen(struct file *f, int fd, int backlog)
{
	struct endpoint *ep;
	bool was_listener;
	int rc = SOCK_LIBC;

	if (f->type == SOCK_DGRAM)
		return SOCK_LIBC; /* the kernel's error */
	spin_lock(&f->lock);
	switch (atomic_load(&f->mode)) {
	case MODE_OPEN:
		spare_own(f);
		rc = listen_dual(f, fd, backlog);
		break;
	case MODE_DUAL:
		if (libc.listen(fd, backlog) < 0) {
			rc = -errno;
			break;
		}
		rc = listen_dual_again(f, fd, backlog);
		break;
	case MODE_PRONK:
		ep = handle_ep(atomic_load(&f->ep));
		was_listener = !f->is_bound_here && atomic_load(&ep->state) == EP_LISTEN;
		if (sock_is_dead(f))
			rc = -ECONNRESET;
		else if (!f->is_bound_here && !f->has_connected && atomic_load(&ep->state) == EP_CLOSED)
			rc = listen_again(f, fd, backlog);
		else if (!f->is_bound_here && atomic_load(&ep->state) != EP_LISTEN)
			rc = -EINVAL;
		else
			rc = f->is_bound_here && f->port_is_chance ? listen_by_rule(f, fd, backlog)
			                                           : pronk_listen(f, backlog);
		/* another backlog is no edge */
		if (!rc && !was_listener)
			epoll_file_changed(f);
		break;
	default:
		break;
	}
	if (!rc)
		f->may_bind_again = false;
	spin_unlock(&f->lock);
	return rc;
}
