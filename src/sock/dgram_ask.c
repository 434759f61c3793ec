/* dgram_ask.c - what a datagram socket is asked beside messages: names, queue sizes, and its end by shutdown.
 *
 * Runs in application threads, without the file's lock but where it is named.
 */
#include "dgram_int.h"
#include "epoll_set.h"
#include "libc.h"
#include "user.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

bool dgram_is_connected(const struct file *f)
{
	return f->dg->kernel_peer || (!f->dg->is_parked && ep_of(f)->remote.family);
}

int dgram_shutdown(struct file *f, int fd, int how)
{
	uint32_t bits;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return sock_is_ours(f) ? -EINVAL : SOCK_LIBC;
	bits = (how != SHUT_WR ? APP_SHUT_RD : 0u) | (how != SHUT_RD ? APP_SHUT_WR : 0u);
	spin_lock(&f->lock);
	f->dg->shut |= bits;
	spin_unlock(&f->lock);
	if (!sock_is_ours(f))
		return SOCK_LIBC;
	libc.shutdown(fd, how);
	for (uint32_t i = 0; i < file_ep_count(f); i++) {
		uint32_t handle = file_ep(f, i);

		if (handle == ENDPOINT_NONE)
			continue;
		atomic_fetch_or(&handle_ep(handle)->app_flags, bits);
		if (!handle_is_dead(handle))
			handle_post(handle, POST_SHUTDOWN, (uint32_t)how);
	}
	epoll_file_poke(f);
	/* has its effect on a socket without a peer, too, but is an error: inet_shutdown in the kernel */
	return dgram_is_connected(f) ? 0 : -ENOTCONN;
}

int dgram_name(struct file *f, struct sockaddr *addr, socklen_t *len, bool is_peer)
{
	struct endpoint *ep;

	if (!sock_is_ours(f) || f->dg->kernel_peer)
		return SOCK_LIBC;
	ep = ep_of(f);
	if (is_peer && (!ep->remote.family || !ep->remote.port)) /* inet_getname: a peer has a port */
		return -ENOTCONN;
	if (f->dg->is_parked) {
		struct sock_addr hidden = ep->local;

		hidden.port = 0;
		if (!f->dg->is_specific)
			memset(hidden.ip, 0, sizeof(hidden.ip));
		return addr_to_user(&hidden, f->domain, addr, len);
	}
	return addr_to_user(is_peer ? &ep->remote : &ep->local, f->domain, addr, len);
}

/* The size of the next datagram; -1 when there is none of ours. */
static int next_size_at(uint32_t handle)
{
	struct attach *at = handle_at(handle);
	struct endpoint *ep = handle_ep(handle);
	struct dgram_meta meta;
	const struct rx_desc *desc;
	const uint8_t *p;
	int size = -1;

	if (!ep_rx_ready(ep) || ep_lock(at, &ep->rx_lock))
		return -1;
	if (ep_rx_ready(ep)) {
		desc = &arena_rx_ring(&at->arena, ep)[atomic_load(&ep->rx_tail) % RX_RING_SIZE];
		p = desc->size >= sizeof(meta) ? arena_rx_data(&at->arena, desc) : NULL;
		if (p) {
			memcpy(&meta, p, sizeof(meta));
			size = (int)meta.size;
		}
	}
	ep_unlock(&ep->rx_lock);
	return size;
}

static int next_size(const struct file *f)
{
	int size = -1;

	for (uint32_t i = 0; i < file_ep_count(f) && size < 0; i++)
		size = next_size_at(file_ep(f, i));
	return size;
}

int dgram_ioctl(struct file *f, int fd, unsigned long request, void *arg)
{
	uint64_t stamp;
	int v;

	(void)fd;
	if (request == FIONBIO && !user_is_bad(arg))
		sock_set_nonblocking(f, *(int *)arg != 0);
	if (!sock_is_ours(f) && !(request == SIOCOUTQ && dgram_corked(f)))
		return SOCK_LIBC;
	switch (request) {
	case FIONBIO:
		return user_is_bad(arg) ? -EFAULT : 0;
	case FIONREAD:
		v = next_size(f);
		if (v < 0)
			return SOCK_LIBC; /* the kernel half's, or 0 */
		break;
	case SIOCOUTQ: /* the kernel counts headers, too: so an empty datagram in its cork is something */
		v = (int)(tx_used(f) + dgram_corked(f));
		break;
	case SIOCGSTAMP:
		stamp = atomic_load(&f->dg->stamp_ns);
		if (!stamp)
			return SOCK_LIBC;
		if (user_is_bad(arg))
			return -EFAULT;
		*(struct timeval *)arg = (struct timeval){
		        (time_t)(stamp / 1000000000u), (suseconds_t)(stamp % 1000000000u / 1000u)};
		return 0;
	case FIOASYNC:
		return -EOPNOTSUPP;
	default:
		return SOCK_LIBC; /* interfaces, routes: the kernel's */
	}
	if (user_is_bad(arg))
		return -EFAULT;
	*(int *)arg = v;
	return 0;
}
