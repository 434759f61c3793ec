/* opt_ip.c - options of level IPPROTO_IP that need more than a slot. ip(7), do_ip_setsockopt in the kernel.
 *
 * Runs in application threads.
 */
#include "opt.h"
#include "dgram.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>

enum { TOS_ECN = 3 };

/* An int, or one byte where there is no room for an int. */
static int give(void *value, socklen_t *len, int v)
{
	if (*len > 0 && *len < sizeof(v) && v >= 0 && v <= 255)
		*len = 1;
	return opt_give(value, len, &v, sizeof(v));
}

static int take(const void *value, socklen_t len)
{
	int v = 0;

	if (opt_read(value, len, &v) && len)
		v = *(const uint8_t *)value;
	return v;
}

/* What linux/pkt_sched.h calls the priority of a type of service (rt_tos2priority). */
static int priority_of(int tos)
{
	static const uint8_t by_bits[4] = {0, 2, 6, 4};

	return by_bits[(tos & 0x18) >> 3];
}

int opt_get_IP_TOS(struct file *f, void *value, socklen_t *len)
{
	return give(value, len, opt_int(f, EPO_TOS));
}

int opt_set_IP_TOS(struct file *f, const void *value, socklen_t len)
{
	int v = take(value, len) & 0xff;

	if (f->type == SOCK_STREAM) /* ECN's two bits belong to TCP */
		v = (v & ~TOS_ECN) | (opt_int(f, EPO_TOS) & TOS_ECN);
	if (v == opt_int(f, EPO_TOS))
		return 0;
	opt_int_set(f, EPO_TOS, v);
	opt_int_set(f, EPO_PRIORITY, priority_of(v));
	opt_tell(f);
	return 0;
}

int opt_get_IP_TTL(struct file *f, void *value, socklen_t *len)
{
	return give(value, len, opt_int(f, EPO_TTL));
}

int opt_set_IP_TTL(struct file *f, const void *value, socklen_t len)
{
	int v = take(value, len);

	if (!len)
		return -EINVAL;
	if (v == -1)
		v = atomic_load(&opt_defaults(f)->v[EPO_TTL]);
	if (v < 1 || v > 255)
		return -EINVAL;
	opt_int_set(f, EPO_TTL, v);
	opt_tell(f);
	return 0;
}

int opt_get_IP_PROTOCOL(struct file *f, void *value, socklen_t *len)
{
	return give(value, len, handle_ep(atomic_load(&f->ep))->local.port);
}

int opt_get_IP_MTU(struct file *f, void *value, socklen_t *len)
{
	uint32_t state = atomic_load(&handle_ep(atomic_load(&f->ep))->state);

	if (state != EP_ESTABLISHED && state != EP_CONNECTING && state != EP_CLOSED &&
	        !(state == EP_DGRAM && handle_ep(atomic_load(&f->ep))->remote.family))
		return -ENOTCONN;
	return give(value, len, (int)dgram_mtu(f, &handle_ep(atomic_load(&f->ep))->remote));
}
