/* opt.c - socket options of Pronk's sockets, one row each; what has no row is refused as the kernel refuses
 * an unknown option.
 *
 * Runs in application threads. Sockets that are not (yet) ours never come here: the kernel answers for them,
 * and sock.c takes over what was set when the socket becomes ours.
 */
#include "sock.h"
#include "endpoint.h"
#include "libc.h"
#include "proc.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>

enum { CC_NAME_MAX = 16, RCVBUF_MIN = 2304, RCVBUF_MAX = 1 << 20 };

enum row_kind {
	ROW_INT,     /* an int field of struct file */
	ROW_FLAG,    /* the same, 0 or 1 */
	ROW_CONST,   /* read only: offset is the value */
	ROW_SPECIAL, /* get/set functions */
};

struct row {
	int level, name;
	enum row_kind kind;
	size_t off;
	int min, max;       /* EINVAL outside */
	uint32_t stack_opt; /* OPT_* to hand to the stack, 0 = none */
	uint32_t app_flag;  /* APP_* bit that follows the value, 0 = none */
	int (*get)(struct file *f, void *value, socklen_t *len);
	int (*set)(struct file *f, const void *value, socklen_t len);
};

#define FIELD(f, off) (*(int *)((char *)(f) + (off)))
#define OFF(m) offsetof(struct file, m)

static struct endpoint *ep_of(struct file *f)
{
	return proc_ep(atomic_load(&f->ep));
}

/* Copies a value out, cut to the caller's room, as sock_getsockopt does. */
static int give(void *value, socklen_t *len, const void *from, socklen_t size)
{
	if (*len > size)
		*len = size;
	memcpy(value, from, *len);
	return 0;
}

static int get_error(struct file *f, void *value, socklen_t *len)
{
	int err = proc_is_dead() ? ECONNRESET : atomic_exchange(&ep_of(f)->error, 0);

	return give(value, len, &err, sizeof(err));
}

static int get_acceptconn(struct file *f, void *value, socklen_t *len)
{
	int v = atomic_load(&ep_of(f)->state) == EP_LISTEN;

	return give(value, len, &v, sizeof(v));
}

static int get_domain(struct file *f, void *value, socklen_t *len)
{
	int v = f->domain;

	return give(value, len, &v, sizeof(v));
}

static int get_linger(struct file *f, void *value, socklen_t *len)
{
	struct linger lg = {f->linger_on, f->linger_s};

	return give(value, len, &lg, sizeof(lg));
}

static int set_linger(struct file *f, const void *value, socklen_t len)
{
	struct linger lg;

	if (len < sizeof(lg))
		return -EINVAL;
	memcpy(&lg, value, sizeof(lg));
	f->linger_on = !!lg.l_onoff;
	if (f->linger_on) /* unsigned to the kernel: a negative time is the longest */
		f->linger_s = lg.l_linger < 0 ? INT_MAX : lg.l_linger;
	return 0;
}

static int get_timeout(uint64_t ns, void *value, socklen_t *len)
{
	struct timeval tv = {(time_t)(ns / 1000000000), (suseconds_t)(ns % 1000000000 / 1000)};

	return give(value, len, &tv, sizeof(tv));
}

static int set_timeout(uint64_t *ns, const void *value, socklen_t len)
{
	struct timeval tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, value, sizeof(tv));
	if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
		return -EDOM;
	*ns = tv.tv_sec < 0 ? 1 : (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
	return 0;
}

static int get_rcvtimeo(struct file *f, void *value, socklen_t *len)
{
	return get_timeout(f->rcvtimeo_ns, value, len);
}

static int set_rcvtimeo(struct file *f, const void *value, socklen_t len)
{
	return set_timeout(&f->rcvtimeo_ns, value, len);
}

static int get_sndtimeo(struct file *f, void *value, socklen_t *len)
{
	return get_timeout(f->sndtimeo_ns, value, len);
}

static int set_sndtimeo(struct file *f, const void *value, socklen_t len)
{
	return set_timeout(&f->sndtimeo_ns, value, len);
}

/* The kernel doubles what it is asked for; so do we, within the ring's size. socket(7) */
static int set_sndbuf(struct file *f, const void *value, socklen_t len)
{
	int v;

	if (len < sizeof(v))
		return -EINVAL;
	memcpy(&v, value, sizeof(v));
	v = v < 0                                          ? 4608
	    : v > (TX_BLOCK_COUNT - 2) * TX_BLOCK_SIZE / 2 ? (TX_BLOCK_COUNT - 2) * TX_BLOCK_SIZE / 2
	                                                   : v;
	f->sndbuf = v * 2 < 4608 ? 4608 : v * 2;
	f->sndbuf_set = true;
	atomic_store(&ep_of(f)->tx_limit, (uint32_t)f->sndbuf);
	return 0;
}

static int set_rcvbuf(struct file *f, const void *value, socklen_t len);

static int get_mss(struct file *f, void *value, socklen_t *len)
{
	int v = (int)atomic_load(&ep_of(f)->info_mss);

	if (!v)
		v = 536;
	return give(value, len, &v, sizeof(v));
}

static int get_info(struct file *f, void *value, socklen_t *len)
{
	/* lwIP's state number to the kernel's (include/net/tcp_states.h) */
	static const uint8_t states[] = {TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT, TCP_SYN_RECV, TCP_ESTABLISHED,
	        TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_LAST_ACK, TCP_TIME_WAIT};
	struct endpoint *ep = ep_of(f);
	struct tcp_info ti = {0};
	uint32_t st = atomic_load(&ep->tcp_state), mss = atomic_load(&ep->info_mss);

	ti.tcpi_state = atomic_load(&ep->state) == EP_LISTEN   ? TCP_LISTEN
	                : atomic_load(&ep->state) == EP_CLOSED ? TCP_CLOSE
	                : st < sizeof(states)                  ? states[st]
	                                                       : TCP_CLOSE;
	ti.tcpi_options = TCPI_OPT_SACK | TCPI_OPT_WSCALE;
	ti.tcpi_rto = atomic_load(&ep->info_rto_ms) * 1000;
	ti.tcpi_snd_mss = ti.tcpi_rcv_mss = ti.tcpi_advmss = mss;
	ti.tcpi_snd_cwnd = mss ? atomic_load(&ep->info_cwnd) / mss : 0;
	ti.tcpi_snd_ssthresh = mss ? atomic_load(&ep->info_ssthresh) / mss : 0;
	ti.tcpi_rtt = atomic_load(&ep->info_rtt_us);
	ti.tcpi_rcv_space = atomic_load(&ep->info_rcv_wnd);
	ti.tcpi_total_retrans = atomic_load(&ep->info_retransmits);
	ti.tcpi_pmtu = proc.at.arena.hdr->mtu;
	return give(value, len, &ti, sizeof(ti));
}

static int get_congestion(struct file *f, void *value, socklen_t *len)
{
	static const char name[CC_NAME_MAX] = "reno";

	(void)f;
	return give(value, len, name, sizeof(name));
}

static int set_congestion(struct file *f, const void *value, socklen_t len)
{
	char name[CC_NAME_MAX] = "";

	(void)f;
	if (len < 1)
		return -EINVAL;
	memcpy(name, value, len < sizeof(name) - 1 ? len : sizeof(name) - 1);
	return strcmp(name, "reno") ? -ENOENT : 0;
}

static const struct row rows[] = {
        {SOL_SOCKET, SO_ERROR, ROW_SPECIAL, 0, 0, 0, 0, 0, get_error, NULL},
        {SOL_SOCKET, SO_TYPE, ROW_CONST, SOCK_STREAM, 0, 0, 0, 0, NULL, NULL},
        {SOL_SOCKET, SO_PROTOCOL, ROW_CONST, IPPROTO_TCP, 0, 0, 0, 0, NULL, NULL},
        {SOL_SOCKET, SO_DOMAIN, ROW_SPECIAL, 0, 0, 0, 0, 0, get_domain, NULL},
        {SOL_SOCKET, SO_ACCEPTCONN, ROW_SPECIAL, 0, 0, 0, 0, 0, get_acceptconn, NULL},
        {SOL_SOCKET, SO_REUSEADDR, ROW_FLAG, OFF(reuseaddr), INT_MIN, INT_MAX, 0, 0, NULL, NULL},
        {SOL_SOCKET, SO_REUSEPORT, ROW_FLAG, OFF(reuseport), INT_MIN, INT_MAX, 0, 0, NULL, NULL},
        {SOL_SOCKET, SO_KEEPALIVE, ROW_FLAG, OFF(keepalive), INT_MIN, INT_MAX, OPT_KEEPALIVE, APP_KEEPALIVE,
                NULL, NULL},
        {SOL_SOCKET, SO_OOBINLINE, ROW_FLAG, OFF(oobinline), INT_MIN, INT_MAX, 0, 0, NULL, NULL},
        {SOL_SOCKET, SO_LINGER, ROW_SPECIAL, 0, 0, 0, 0, 0, get_linger, set_linger},
        {SOL_SOCKET, SO_RCVTIMEO, ROW_SPECIAL, 0, 0, 0, 0, 0, get_rcvtimeo, set_rcvtimeo},
        {SOL_SOCKET, SO_SNDTIMEO, ROW_SPECIAL, 0, 0, 0, 0, 0, get_sndtimeo, set_sndtimeo},
        {SOL_SOCKET, SO_SNDBUF, ROW_SPECIAL, OFF(sndbuf), 0, 0, 0, 0, NULL, set_sndbuf},
        {SOL_SOCKET, SO_RCVBUF, ROW_SPECIAL, OFF(rcvbuf), 0, 0, 0, 0, NULL, set_rcvbuf},
        {IPPROTO_TCP, TCP_NODELAY, ROW_FLAG, OFF(nodelay), INT_MIN, INT_MAX, 0, APP_NODELAY, NULL, NULL},
        {IPPROTO_TCP, TCP_CORK, ROW_FLAG, OFF(cork), INT_MIN, INT_MAX, 0, APP_CORK, NULL, NULL},
        {IPPROTO_TCP, TCP_KEEPIDLE, ROW_INT, OFF(keepidle), 1, 32767, OPT_KEEPIDLE, 0, NULL, NULL},
        {IPPROTO_TCP, TCP_KEEPINTVL, ROW_INT, OFF(keepintvl), 1, 32767, OPT_KEEPINTVL, 0, NULL, NULL},
        {IPPROTO_TCP, TCP_KEEPCNT, ROW_INT, OFF(keepcnt), 1, 127, OPT_KEEPCNT, 0, NULL, NULL},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, ROW_INT, OFF(user_timeout), 0, INT_MAX, OPT_USER_TIMEOUT, 0, NULL,
                NULL},
        {IPPROTO_TCP, TCP_MAXSEG, ROW_SPECIAL, 0, 0, 0, 0, 0, get_mss, NULL},
        {IPPROTO_TCP, TCP_INFO, ROW_SPECIAL, 0, 0, 0, 0, 0, get_info, NULL},
        {IPPROTO_TCP, TCP_CONGESTION, ROW_SPECIAL, 0, 0, 0, 0, 0, get_congestion, set_congestion},
        {IPPROTO_IP, IP_TOS, ROW_INT, OFF(tos), INT_MIN, INT_MAX, OPT_TOS, 0, NULL, NULL},
        {IPPROTO_IP, IP_TTL, ROW_INT, OFF(ttl), 1, 255, OPT_TTL, 0, NULL, NULL},
};

static const struct row *row_find(int level, int name)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].level == level && rows[i].name == name)
			return &rows[i];
	return NULL;
}

int sock_getopt(struct file *f, int fd, int level, int name, void *value, socklen_t *len)
{
	const struct row *r;
	int v;

	(void)fd;
	if (!sock_is_ours(f) || (atomic_load(&f->mode) == MODE_DUAL && level != SOL_SOCKET))
		return SOCK_LIBC;
	if (!value || !len)
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	r = row_find(level, name);
	if (!r)
		return level == SOL_SOCKET || level == IPPROTO_TCP || level == IPPROTO_IP ||
		                       (level == IPPROTO_IPV6 && f->domain == AF_INET6)
		               ? -ENOPROTOOPT
		               : -EOPNOTSUPP;
	if (r->get)
		return r->get(f, value, len);
	v = r->kind == ROW_CONST && r->min >= 0 ? (int)r->off : FIELD(f, r->off);
	/* with little room the kernel gives a value of this level as one byte. ip_getsockopt */
	if (level == IPPROTO_IP && *len > 0 && *len < sizeof(v) && v >= 0 && v <= 255)
		*len = 1;
	return give(value, len, &v, sizeof(v));
}

/* Hands an option's value to the connection in its stack. */
static int tell_stack(struct file *f, uint32_t opt, int value)
{
	struct call c = {.op = CALL_SETOPT, .endpoint = atomic_load(&f->ep), .opt = opt, .value = value};
	int rc;

	if (proc_is_dead())
		return 0;
	rc = post_call(&proc.at, ep_of(f)->stack_idx, &c);
	return rc ? rc : c.result;
}

/* Doubled as the kernel does; the window really follows, up to lwIP's largest. socket(7) */
static int set_rcvbuf(struct file *f, const void *value, socklen_t len)
{
	int v, rc;

	if (len < sizeof(v))
		return -EINVAL;
	memcpy(&v, value, sizeof(v));
	v = v < 0 ? 0 : v > RCVBUF_MAX / 2 ? RCVBUF_MAX / 2 : v;
	v = v * 2 < RCVBUF_MIN ? RCVBUF_MIN : v * 2;
	rc = tell_stack(f, OPT_RCVBUF, v);
	if (rc)
		return rc;
	f->rcvbuf = v;
	f->rcvbuf_set = true;
	return 0;
}

int sock_setopt(struct file *f, int fd, int level, int name, const void *value, socklen_t len)
{
	const struct row *r;
	int v, rc;

	if (!sock_is_ours(f)) {
		if (level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF))
			*(name == SO_SNDBUF ? &f->sndbuf_set : &f->rcvbuf_set) = true;
		return SOCK_LIBC;
	}
	r = row_find(level, name);
	if (atomic_load(&f->mode) == MODE_DUAL) {
		/* the kernel's half decides what is valid; ours follows */
		rc = libc.setsockopt(fd, level, name, value, len);
		if (rc < 0 || !r)
			return rc < 0 ? -errno : 0;
	}
	if ((int)len < 0)
		return -EINVAL;
	if (!r || (!r->set && (r->kind == ROW_SPECIAL || r->kind == ROW_CONST)))
		return -ENOPROTOOPT;
	if (!value)
		return -EFAULT;
	if (r->set)
		return r->set(f, value, len);
	if (len < sizeof(v)) {
		if (level != IPPROTO_IP || len < 1)
			return -EINVAL;
		v = *(const uint8_t *)value;
	} else {
		memcpy(&v, value, sizeof(v));
	}
	if (r->kind == ROW_FLAG)
		v = !!v;
	else if (level == IPPROTO_IP && name == IP_TTL && v == -1)
		v = 64;
	else if (level == IPPROTO_IP && name == IP_TOS)
		v &= 0xfc; /* one byte, and ECN's two bits belong to TCP */
	else if (v < r->min || v > r->max)
		return -EINVAL;
	if (r->stack_opt) {
		rc = tell_stack(f, r->stack_opt, v);
		if (rc)
			return rc;
	}
	FIELD(f, r->off) = v;
	if (r->app_flag) {
		struct endpoint *ep = ep_of(f);

		if (v)
			atomic_fetch_or(&ep->app_flags, r->app_flag);
		else
			atomic_fetch_and(&ep->app_flags, ~r->app_flag);
		/* data held back by Nagle or the cork may go now */
		if (!proc_is_dead())
			post(&proc.at, ep->stack_idx, POST_ENTRY(POST_OPTIONS, 0, atomic_load(&f->ep)));
	}
	return 0;
}
