/* opt_socket.c - options of level SOL_SOCKET that need more than a slot. socket(7), sk_getsockopt and
 * sk_setsockopt in the kernel.
 *
 * Runs in application threads.
 */
#include "opt.h"
#include "epoll_set.h"
#include "libc.h"
#include "spare.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "opt_names.h"

enum {
	SNDBUF_MIN = 4608,
	RCVBUF_MIN = 2304,
	SNDBUF_MOST = (TX_BLOCK_COUNT - 2) * TX_BLOCK_SIZE / 2,
	RCVBUF_MOST = 1 << 20,   /* the largest window */
	RCVLOWAT_MOST = 3145728, /* half of what net.ipv4.tcp_rmem allows at most, as it is by default */
	MEMINFO_VARS = 9,
};

static struct endpoint *ep_of(struct file *f)
{
	return handle_ep(atomic_load(&f->ep));
}

static int give_int(void *value, socklen_t *len, int v)
{
	return opt_give(value, len, &v, sizeof(v));
}

int opt_get_SO_ERROR(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, sock_is_dead(f) ? ECONNRESET : atomic_exchange(&ep_of(f)->error, 0));
}

int opt_get_SO_TYPE(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, f->type);
}

int opt_get_SO_PROTOCOL(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, f->type == SOCK_DGRAM ? IPPROTO_UDP : IPPROTO_TCP);
}

int opt_get_SO_DOMAIN(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, f->domain);
}

int opt_get_SO_ACCEPTCONN(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, atomic_load(&ep_of(f)->state) == EP_LISTEN);
}

/* The kernel's number of the descriptor's own socket, as before it became ours; an accepted one has none. */
int opt_get_SO_COOKIE(struct file *f, void *value, socklen_t *len)
{
	const struct endpoint *ep = ep_of(f);
	uint64_t v = 1ull << 63 | (uint64_t)ep->gen << 32 | atomic_load(&f->ep);

	if (*len < sizeof(v))
		return -EINVAL;
	if (ep->parent == ENDPOINT_NONE && !libc.getsockopt(f->fd, SOL_SOCKET, SO_COOKIE, value, len))
		return 0;
	return opt_give(value, len, &v, sizeof(v));
}

int opt_get_SO_MEMINFO(struct file *f, void *value, socklen_t *len)
{
	const struct endpoint *ep = ep_of(f);
	uint32_t v[MEMINFO_VARS] = {0};

	v[0] = ep_rx_pending(ep); /* SK_MEMINFO_RMEM_ALLOC and on, linux/sock_diag.h */
	v[1] = (uint32_t)opt_int(f, EPO_RCVBUF);
	v[2] = v[5] = ep_tx_used(ep);
	v[3] = (uint32_t)opt_int(f, EPO_SNDBUF);
	v[8] = atomic_load(&ep->info_drops);
	return opt_give(value, len, v, sizeof(v));
}

int opt_get_SO_PEERNAME(struct file *f, void *value, socklen_t *len)
{
	struct sockaddr_storage ss;
	socklen_t size = sizeof(ss);

	/* other than getpeername(2) it tells of a connection that has ended, too */
	if (!sock_is_ours(f) || atomic_load(&f->mode) == MODE_DUAL || !f->has_connected ||
	        !(atomic_load(&ep_of(f)->flags) & EP_OPENED))
		return -ENOTCONN;
	addr_to_user(&ep_of(f)->remote, f->domain, (struct sockaddr *)&ss, &size);
	if (*len > size)
		return -EINVAL;
	return opt_give(value, len, &ss, size);
}

int opt_get_SO_INCOMING_NAPI_ID(struct file *f, void *value, socklen_t *len)
{
	uint32_t state = atomic_load(&ep_of(f)->state);

	return give_int(value, len, state == EP_ESTABLISHED ? ep_of(f)->stack_idx + 1 : 0);
}

int opt_get_SO_LINGER(struct file *f, void *value, socklen_t *len)
{
	struct linger lg = {opt_flag(f, EPF_LINGER), opt_int(f, EPO_LINGER_S)};

	return opt_give(value, len, &lg, sizeof(lg));
}

int opt_set_SO_LINGER(struct file *f, const void *value, socklen_t len)
{
	struct linger lg;

	if (len < sizeof(lg))
		return -EINVAL;
	memcpy(&lg, value, sizeof(lg));
	if (lg.l_onoff) /* unsigned to the kernel: a negative time is the longest */
		opt_int_set(f, EPO_LINGER_S, lg.l_linger < 0 ? INT_MAX : lg.l_linger);
	opt_flag_set(f, EPF_LINGER, lg.l_onoff != 0);
	return 0;
}

int opt_get_SO_RCVLOWAT(struct file *f, void *value, socklen_t *len)
{
	int v = opt_int(f, EPO_RCVLOWAT);

	return give_int(value, len, v ? v : 1);
}

/* tcp_set_rcvlowat: never more than the buffer can hold, and levels change at once. */
int opt_set_SO_RCVLOWAT(struct file *f, const void *value, socklen_t len)
{
	int v, most = RCVLOWAT_MOST, rc = opt_read(value, len, &v);

	if (rc)
		return rc;
	if (v < 0)
		v = INT_MAX;
	if (f->type == SOCK_STREAM) {
		bool is_locked = opt_int(f, EPO_BUF_LOCK) & BUF_LOCK_RCV;

		if (is_locked)
			most = opt_int(f, EPO_RCVBUF) / 2;
		v = v < most ? v : most;
		if (!is_locked && v > opt_int(f, EPO_RCVBUF) / 2) {
			opt_int_set(f, EPO_RCVBUF, v < RCVBUF_MOST ? v * 2 : RCVBUF_MOST * 2);
			opt_tell(f);
		}
	}
	opt_int_set(f, EPO_RCVLOWAT, v ? v : 1);
	if (sock_is_ours(f))
		epoll_file_changed(f);
	return 0;
}

static int get_timeout(uint64_t ns, void *value, socklen_t *len)
{
	struct timeval tv = {(time_t)(ns / 1000000000), (suseconds_t)(ns % 1000000000 / 1000)};

	return opt_give(value, len, &tv, sizeof(tv));
}

static int set_timeout(_Atomic uint64_t *ns, const void *value, socklen_t len)
{
	struct timeval tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, value, sizeof(tv));
	if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
		return -EDOM;
	atomic_store(ns, tv.tv_sec < 0 ? 1
	                 : (uint64_t)tv.tv_sec > INT64_MAX / 2000000000
	                         ? 0
	                         : (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u);
	return 0;
}

int opt_get_SO_RCVTIMEO(struct file *f, void *value, socklen_t *len)
{
	return get_timeout(opt_rcvtimeo(f), value, len);
}

int opt_set_SO_RCVTIMEO(struct file *f, const void *value, socklen_t len)
{
	return set_timeout(&opt_of(f)->rcvtimeo_ns, value, len);
}

int opt_get_SO_SNDTIMEO(struct file *f, void *value, socklen_t *len)
{
	return get_timeout(opt_sndtimeo(f), value, len);
}

int opt_set_SO_SNDTIMEO(struct file *f, const void *value, socklen_t len)
{
	return set_timeout(&opt_of(f)->sndtimeo_ns, value, len);
}

/* The same on 64-bit machines. */
int opt_get_SO_RCVTIMEO_NEW(struct file *f, void *value, socklen_t *len)
{
	return opt_get_SO_RCVTIMEO(f, value, len);
}

int opt_set_SO_RCVTIMEO_NEW(struct file *f, const void *value, socklen_t len)
{
	return opt_set_SO_RCVTIMEO(f, value, len);
}

int opt_get_SO_SNDTIMEO_NEW(struct file *f, void *value, socklen_t *len)
{
	return opt_get_SO_SNDTIMEO(f, value, len);
}

int opt_set_SO_SNDTIMEO_NEW(struct file *f, const void *value, socklen_t len)
{
	return opt_set_SO_SNDTIMEO(f, value, len);
}

/* --- buffers: the kernel doubles what it is asked for, and so do we, up to what an endpoint can hold --- */

static void set_sndbuf(struct file *f, int v)
{
	uint32_t ep = atomic_load(&f->ep);

	v = v < SNDBUF_MIN / 2 ? SNDBUF_MIN : v > SNDBUF_MOST ? SNDBUF_MOST * 2 : v * 2;
	opt_int_set(f, EPO_SNDBUF, v);
	opt_flag_set(f, EPF_SNDBUF_SET, true);
	opt_int_set(f, EPO_BUF_LOCK, opt_int(f, EPO_BUF_LOCK) | BUF_LOCK_SND);
	if (ep != ENDPOINT_NONE)
		atomic_store(&handle_ep(ep)->tx_limit, (uint32_t)v);
}

static void set_rcvbuf(struct file *f, int v)
{
	v = v < RCVBUF_MIN / 2 ? RCVBUF_MIN : v > RCVBUF_MOST ? RCVBUF_MOST * 2 : v * 2;
	opt_int_set(f, EPO_RCVBUF, v);
	opt_flag_set(f, EPF_RCVBUF_SET, true);
	opt_int_set(f, EPO_BUF_LOCK, opt_int(f, EPO_BUF_LOCK) | BUF_LOCK_RCV);
	opt_tell(f);
}

/* net.core.wmem_max and rmem_max: the kernel's socket of the same kind knows them. */
static int limited(struct file *f, int name, const void *value, socklen_t len, int *v)
{
	int rc = opt_read(value, len, v), shown;

	if (rc)
		return rc;
	rc = opt_ask_set(f, SOL_SOCKET, name, value, len, &shown);
	if (rc)
		return rc == -EPERM ? rc : 0; /* no descriptor to ask with: our own limit remains */
	*v = shown / 2;
	return 0;
}

int opt_get_SO_SNDBUF(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_SNDBUF));
}

int opt_set_SO_SNDBUF(struct file *f, const void *value, socklen_t len)
{
	int v, rc = limited(f, SO_SNDBUF, value, len, &v);

	if (!rc)
		set_sndbuf(f, v);
	return rc;
}

int opt_get_SO_RCVBUF(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_RCVBUF));
}

int opt_set_SO_RCVBUF(struct file *f, const void *value, socklen_t len)
{
	int v, rc = limited(f, SO_RCVBUF, value, len, &v);

	if (!rc)
		set_rcvbuf(f, v);
	return rc;
}

int opt_get_SO_SNDBUFFORCE(struct file *f, void *value, socklen_t *len)
{
	(void)f, (void)value, (void)len;
	return -ENOPROTOOPT;
}

static int forced(struct file *f, int name, const void *value, socklen_t len, int *v)
{
	int rc = opt_read(value, len, v);

	if (rc)
		return rc;
	rc = opt_ask_set(f, SOL_SOCKET, name, value, len, NULL);
	if (*v < 0)
		*v = 0;
	return rc == -EPERM ? rc : 0;
}

int opt_set_SO_SNDBUFFORCE(struct file *f, const void *value, socklen_t len)
{
	int v, rc = forced(f, SO_SNDBUFFORCE, value, len, &v);

	if (!rc)
		set_sndbuf(f, v);
	return rc;
}

int opt_get_SO_RCVBUFFORCE(struct file *f, void *value, socklen_t *len)
{
	return opt_get_SO_SNDBUFFORCE(f, value, len);
}

int opt_set_SO_RCVBUFFORCE(struct file *f, const void *value, socklen_t len)
{
	int v, rc = forced(f, SO_RCVBUFFORCE, value, len, &v);

	if (!rc)
		set_rcvbuf(f, v);
	return rc;
}

int opt_get_SO_BUF_LOCK(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_BUF_LOCK));
}

int opt_set_SO_BUF_LOCK(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);

	if (rc)
		return rc;
	if (v & ~(BUF_LOCK_SND | BUF_LOCK_RCV))
		return -EINVAL;
	opt_int_set(f, EPO_BUF_LOCK, v);
	return 0;
}

/* --- hints without a value --- */

int opt_get_SO_BUSY_POLL_BUDGET(struct file *f, void *value, socklen_t *len)
{
	return opt_ask_get(f, SOL_SOCKET, SO_BUSY_POLL_BUDGET, value, len);
}

int opt_set_SO_BUSY_POLL_BUDGET(struct file *f, const void *value, socklen_t len)
{
	return opt_ask_set(f, SOL_SOCKET, SO_BUSY_POLL_BUDGET, value, len, NULL);
}

int opt_get_SO_CNX_ADVICE(struct file *f, void *value, socklen_t *len)
{
	return opt_ask_get(f, SOL_SOCKET, SO_CNX_ADVICE, value, len);
}

int opt_set_SO_CNX_ADVICE(struct file *f, const void *value, socklen_t len)
{
	return opt_ask_set(f, SOL_SOCKET, SO_CNX_ADVICE, value, len, NULL);
}

/* --- the port's kernel interface --- */

/* Its name behind the kind of device, when there is one. */
static const char *port_device(const struct service *s)
{
	const char *dev = s->at.arena.hdr->device, *name = strchr(dev, ':');

	if (strncmp(dev, "tap:", 4) && strncmp(dev, "afxdp:", 6) && strncmp(dev, "afpacket:", 9))
		return "";
	return name + 1;
}

bool opt_device_is_other(const struct service *s, struct file *f, int fd)
{
	char name[IFNAMSIZ] = "";
	socklen_t len = sizeof(name);

	if (spare_is_fresh(f)) /* and so was told of none */
		return false;
	if (libc.getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &len) < 0 || !len)
		return false;
	return strncmp(name, port_device(s), sizeof(name)) != 0;
}

static const char *own_device(const struct file *f)
{
	return port_device(handle_service(atomic_load(&f->ep)));
}

int opt_get_SO_BINDTODEVICE(struct file *f, void *value, socklen_t *len)
{
	char name[IFNAMSIZ] = "";

	if (!opt_flag(f, EPF_BOUND_DEVICE)) {
		*len = 0;
		return 0;
	}
	if (*len < IFNAMSIZ)
		return -EINVAL;
	snprintf(name, sizeof(name), "%s", own_device(f));
	return opt_give(value, len, name, (socklen_t)strlen(name) + 1);
}

int opt_set_SO_BINDTODEVICE(struct file *f, const void *value, socklen_t len)
{
	char name[IFNAMSIZ] = "";

	if (len)
		memcpy(name, value, len < IFNAMSIZ - 1 ? len : IFNAMSIZ - 1);
	if (!*name) {
		opt_flag_set(f, EPF_BOUND_DEVICE, false);
		return 0;
	}
	if (strcmp(name, own_device(f)) != 0)
		return -ENODEV;
	opt_flag_set(f, EPF_BOUND_DEVICE, true);
	return 0;
}

int opt_get_SO_BINDTOIFINDEX(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_flag(f, EPF_BOUND_DEVICE) ? (int)if_nametoindex(own_device(f)) : 0);
}

int opt_set_SO_BINDTOIFINDEX(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);

	if (rc)
		return rc;
	if (v < 0)
		return -EINVAL;
	if (v && v != (int)if_nametoindex(own_device(f)))
		return -ENODEV;
	opt_flag_set(f, EPF_BOUND_DEVICE, v != 0);
	return 0;
}
