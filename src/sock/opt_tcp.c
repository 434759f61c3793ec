/* opt_tcp.c - options of level IPPROTO_TCP that need more than a slot. tcp(7), do_tcp_getsockopt and
 * do_tcp_setsockopt in the kernel.
 *
 * Runs in application threads. TCP_INFO asks the connection's stack and waits for its answer.
 */
#include "opt.h"
#include "libc.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

enum {
	CC_NAME_MAX = 16,
	MSS_DEFAULT = 536,
	MSS_MIN = 88,
	MSS_MAX = 32767,
	LINGER2_MAX_S = 120,
	RTO_MAX_S = 120,
	RETRANS_MAX = 255,
	CLAMP_MIN = 2304 / 2,
	QUICKACK_SET = 3, /* on, by the program; 1 is how every connection begins */
};

static struct endpoint *ep_of(struct file *f)
{
	return handle_ep(atomic_load(&f->ep));
}

static int give_int(void *value, socklen_t *len, int v)
{
	return opt_give(value, len, &v, sizeof(v));
}

/* --- TCP_LINGER2, TCP_DEFER_ACCEPT --- */

int opt_get_TCP_LINGER2(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_LINGER2));
}

int opt_set_TCP_LINGER2(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);

	if (rc)
		return rc;
	opt_int_set(f, EPO_LINGER2,
	        v < 0               ? -1
	        : v > LINGER2_MAX_S ? LINGER2_MAX_S
	        : v                 ? v
	                            : atomic_load(&opt_defaults(f)->v[EPO_LINGER2]));
	opt_tell(f);
	return 0;
}

/* The kernel keeps a number of retransmissions, each twice as far from the last as that from the one before.
 */
static int seconds_round(int seconds)
{
	int period = 1, step = 1, n = 1;

	if (seconds <= 0)
		return 0;
	for (; seconds > period && n < RETRANS_MAX; n++) {
		step = step * 2 > RTO_MAX_S ? RTO_MAX_S : step * 2;
		period += step;
	}
	return period;
}

int opt_get_TCP_DEFER_ACCEPT(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_DEFER_ACCEPT));
}

int opt_set_TCP_DEFER_ACCEPT(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);

	if (!rc)
		opt_int_set(f, EPO_DEFER_ACCEPT, seconds_round(v));
	return rc;
}

/* --- sizes --- */

int opt_get_TCP_MAXSEG(struct file *f, void *value, socklen_t *len)
{
	uint32_t state = atomic_load(&ep_of(f)->state);
	int v = (int)atomic_load(&ep_of(f)->info_mss);

	if ((state == EP_BOUND || state == EP_LISTEN || state == EP_CLOSED) && opt_int(f, EPO_MAXSEG))
		v = opt_int(f, EPO_MAXSEG);
	else if (!v || state == EP_BOUND || state == EP_LISTEN)
		v = MSS_DEFAULT;
	return give_int(value, len, v);
}

int opt_set_TCP_MAXSEG(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);

	if (rc)
		return rc;
	if (v && (v < MSS_MIN || v > MSS_MAX))
		return -EINVAL;
	opt_int_set(f, EPO_MAXSEG, v);
	return 0;
}

int opt_get_TCP_WINDOW_CLAMP(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_WINDOW_CLAMP));
}

int opt_set_TCP_WINDOW_CLAMP(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);
	uint32_t state = atomic_load(&ep_of(f)->state);

	if (rc)
		return rc;
	if (!v && atomic_load(&f->ep) != ENDPOINT_NONE && state != EP_BOUND && state != EP_CLOSED)
		return -EINVAL;
	opt_int_set(f, EPO_WINDOW_CLAMP, v && v < CLAMP_MIN ? CLAMP_MIN : v);
	opt_tell(f);
	return 0;
}

/* --- acknowledgements, congestion control, layers above --- */

int opt_get_TCP_QUICKACK(struct file *f, void *value, socklen_t *len)
{
	return give_int(value, len, opt_int(f, EPO_QUICKACK) != 0);
}

int opt_set_TCP_QUICKACK(struct file *f, const void *value, socklen_t len)
{
	int v, rc = opt_read(value, len, &v);

	if (rc)
		return rc;
	opt_int_set(f, EPO_QUICKACK, v & 1 ? QUICKACK_SET : 0);
	opt_tell(f);
	return 0;
}

int opt_get_TCP_CONGESTION(struct file *f, void *value, socklen_t *len)
{
	static const char name[CC_NAME_MAX] = "reno";

	(void)f;
	return opt_give(value, len, name, sizeof(name));
}

int opt_set_TCP_CONGESTION(struct file *f, const void *value, socklen_t len)
{
	char name[CC_NAME_MAX] = "";

	(void)f;
	if (len < 1)
		return -EINVAL;
	memcpy(name, value, len < sizeof(name) - 1 ? len : sizeof(name) - 1);
	return strcmp(name, "reno") ? -ENOENT : 0;
}

/* Reno has nothing to tell, in the kernel either. */
int opt_get_TCP_CC_INFO(struct file *f, void *value, socklen_t *len)
{
	(void)f, (void)value;
	*len = 0;
	return 0;
}

int opt_get_TCP_ULP(struct file *f, void *value, socklen_t *len)
{
	(void)f, (void)value;
	*len = 0;
	return 0;
}

int opt_set_TCP_ULP(struct file *f, const void *value, socklen_t len)
{
	(void)f, (void)value;
	return len < 1 ? -EINVAL : -ENOENT;
}

/* --- TCP_INFO --- */

/* The kernel's numbers of states (include/net/tcp_states.h) by lwIP's. */
enum { STATE_CLOSE = 7, STATE_LISTEN = 10 };
static const uint8_t states[] = {STATE_CLOSE, STATE_LISTEN, 2, 3, 1, 4, 5, 8, 11, 9, 6};
enum { CA_OPEN, CA_RECOVERY = 3, CA_LOSS = 4, REORDERING = 3 };

/* Adds what waits to be accepted. */
static void info_queued(const struct arena *a, const struct endpoint *ep, struct tcp_info *ti)
{
	for (uint32_t i = 0; i < a->stack_count && ep->listener < a->listener_count; i++) {
		const struct accept_ring *r = &arena_listener(a, ep->listener)->ring[i];

		ti->tcpi_unacked += atomic_load(&r->head) - atomic_load(&r->tail);
	}
}

static void info_listener(const struct arena *a, const struct endpoint *ep, struct tcp_info *ti)
{
	ti->tcpi_state = STATE_LISTEN;
	ti->tcpi_sacked = atomic_load(&ep->backlog);
	info_queued(a, ep, ti);
}

int opt_info_dual(struct file *f, int fd, void *value, socklen_t *len)
{
	enum { QUEUED_END = offsetof(struct tcp_info, tcpi_unacked) + sizeof(uint32_t) };
	struct tcp_info ti = {0};

	if (libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO, value, len) < 0)
		return -errno;
	if (*len < QUEUED_END || atomic_load(&ep_of(f)->state) != EP_LISTEN)
		return 0;
	memcpy(&ti, value, QUEUED_END);
	for (uint32_t i = 0; i < file_ep_count(f); i++)
		info_queued(&handle_at(file_ep(f, i))->arena, handle_ep(file_ep(f, i)), &ti);
	memcpy(value, &ti, QUEUED_END);
	return 0;
}

static void info_convert(const struct conn_info *in, struct tcp_info *ti)
{
	uint32_t mss = in->mss ? in->mss : MSS_DEFAULT;

	ti->tcpi_ca_state = in->is_lost ? CA_LOSS : in->is_recovering ? CA_RECOVERY : CA_OPEN;
	ti->tcpi_retransmits = ti->tcpi_backoff = in->backoff;
	ti->tcpi_probes = in->probes;
	ti->tcpi_options = (uint8_t)((in->options & CONN_INFO_SACK ? TCPI_OPT_SACK : 0) |
	                             (in->options & CONN_INFO_WSCALE ? TCPI_OPT_WSCALE : 0));
	ti->tcpi_snd_wscale = in->snd_wscale & 0xf;
	ti->tcpi_rcv_wscale = in->rcv_wscale & 0xf;
	ti->tcpi_rto = in->rto_ms * 1000;
	ti->tcpi_snd_mss = mss;
	ti->tcpi_rcv_mss = in->data_segs_in ? mss : MSS_DEFAULT;
	ti->tcpi_unacked = in->unacked;
	ti->tcpi_last_data_sent = in->data_sent_ago_ms;
	ti->tcpi_last_data_recv = in->data_recv_ago_ms;
	ti->tcpi_last_ack_recv = in->ack_recv_ago_ms;
	ti->tcpi_pmtu = in->mtu;
	ti->tcpi_rcv_ssthresh = ti->tcpi_rcv_space = in->rcv_limit;
	ti->tcpi_rtt = in->rtt_us;
	ti->tcpi_rttvar = in->rttvar_us;
	ti->tcpi_snd_ssthresh = in->ssthresh / mss;
	ti->tcpi_snd_cwnd = in->cwnd / mss;
	ti->tcpi_advmss = in->advmss;
	ti->tcpi_reordering = REORDERING;
	ti->tcpi_total_retrans = in->segs_again;
	ti->tcpi_pacing_rate = ti->tcpi_max_pacing_rate = UINT64_MAX; /* none */
	ti->tcpi_bytes_acked = in->bytes_acked;
	ti->tcpi_bytes_received = in->bytes_received;
	ti->tcpi_segs_out = in->segs_out;
	ti->tcpi_segs_in = in->segs_in;
	ti->tcpi_notsent_bytes = in->notsent;
	ti->tcpi_min_rtt = in->min_rtt_us;
	ti->tcpi_data_segs_in = in->data_segs_in;
	ti->tcpi_data_segs_out = in->data_segs_out;
	ti->tcpi_delivered = in->data_segs_out - in->segs_again - in->unacked;
	ti->tcpi_bytes_sent = in->bytes_sent;
	ti->tcpi_bytes_retrans = in->bytes_again;
	ti->tcpi_snd_wnd = in->snd_wnd;
}

int opt_get_TCP_INFO(struct file *f, void *value, socklen_t *len)
{
	uint32_t handle = atomic_load(&f->ep);
	struct endpoint *ep = handle_ep(handle);
	struct call c = {.op = CALL_INFO, .endpoint = handle_index(handle)};
	uint32_t state = atomic_load(&ep->state), tcp_state = atomic_load(&ep->tcp_state);
	struct tcp_info ti = {0};

	if (state == EP_LISTEN) {
		info_listener(&handle_at(handle)->arena, ep, &ti);
	} else {
		if (!handle_is_dead(handle) && state != EP_BOUND &&
		        !post_call(handle_at(handle), ep->stack_idx, &c) && !c.result)
			info_convert(&c.info, &ti);
		ti.tcpi_state = state == EP_CLOSED || state == EP_BOUND || tcp_state >= sizeof(states)
		                        ? STATE_CLOSE
		                        : states[tcp_state];
	}
	return opt_give(value, len, &ti, sizeof(ti));
}
