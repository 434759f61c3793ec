/* opt.c - socket options: the table of sockopts.def, and get and set by its rows. What has no row is refused
 * as the kernel refuses an unknown option.
 *
 * Runs in application threads. Sockets that are not (yet) ours never come further than the door: the kernel
 * answers for them, opt.c notes what was set, and opt_take takes that over when the socket becomes ours. Rows
 * with functions of their own are in opt_socket.c, opt_tcp.c, opt_ip.c.
 */
#include "opt.h"
#include "dgram.h"
#include "libc.h"
#include "spare.h"
#include "user.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "opt_names.h"

enum { ASK_VALUE_MAX = 256 };

#define OPTION_FLAG(types, level, name, slot, note)                                                          \
	{level, name, OPT_##types, OPT_KIND_FLAG, 1, slot, 0, 0, NULL, NULL},
#define OPTION_INT(types, level, name, slot, min, max, note)                                                 \
	{level, name, OPT_##types, OPT_KIND_INT, 0, slot, min, max, NULL, NULL},
#define OPTION_CALL(types, level, name, note)                                                                \
	{level, name, OPT_##types, OPT_KIND_CALL, 0, 0, 0, 0, opt_get_##name, opt_set_##name},
#define OPTION_FACT(types, level, name, note)                                                                \
	{level, name, OPT_##types, OPT_KIND_FACT, 0, 0, 0, 0, opt_get_##name, NULL},
#define KEPT_FLAG 1
#define KEPT_INT 0
#define OPTION_KEPT(types, level, name, kind, slot, note)                                                    \
	{level, name, OPT_##types, OPT_KIND_KEPT, KEPT_##kind, slot, 0, 0, NULL, NULL},
#define OPTION_ASK(types, level, name, note) {level, name, OPT_##types, OPT_KIND_ASK, 0, 0, 0, 0, NULL, NULL},

static const struct opt_row rows[] = {
#include "sockopts.def"
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert((int)ROWS <= (int)OPT_ROW_MAX, "bits of struct file");

static const struct opt_row *row_find(const struct file *f, int level, int name)
{
	uint8_t type = f->type == SOCK_DGRAM ? OPT_DGRAM : OPT_STREAM;

	if (level == IPPROTO_IPV6 && f->domain != AF_INET6)
		return NULL;
	for (int i = 0; i < ROWS; i++)
		if (rows[i].name == name && rows[i].level == level && (rows[i].types & type))
			return &rows[i];
	return NULL;
}

int opt_give(void *value, socklen_t *len, const void *from, socklen_t size)
{
	if (*len > size)
		*len = size;
	memcpy(value, from, *len);
	return 0;
}

int opt_read(const void *value, socklen_t len, int *v)
{
	if (len < sizeof(*v))
		return -EINVAL;
	memcpy(v, value, sizeof(*v));
	return 0;
}

/* --- what the kernel says --- */

/* Without a descriptor left, the unconnected socket that accepted numbers are duplicates of: nobody else asks
 * it anything. */
static int fresh_socket(const struct file *f)
{
	int fd = libc.socket(f->domain ? f->domain : AF_INET, f->type | SOCK_CLOEXEC, 0);

	return fd < 0 ? proc.base_fd : fd;
}

static void fresh_end(int fd)
{
	if (fd >= 0 && fd != proc.base_fd)
		libc.close(fd);
}

int opt_ask_get(struct file *f, int level, int name, void *value, socklen_t *len)
{
	int fd = fresh_socket(f), rc;

	if (fd < 0)
		return -ENOPROTOOPT;
	rc = libc.getsockopt(fd, level, name, value, len) < 0 ? -errno : 0;
	fresh_end(fd);
	return rc;
}

int opt_ask_set(struct file *f, int level, int name, const void *value, socklen_t len, int *v)
{
	int fd = fresh_socket(f), rc;
	socklen_t size = sizeof(*v);

	if (fd < 0)
		return -ENOPROTOOPT;
	rc = libc.setsockopt(fd, level, name, value, len) < 0 ? -errno : 0;
	if (!rc && v && libc.getsockopt(fd, level, name, v, &size) < 0)
		rc = -errno;
	fresh_end(fd);
	return rc;
}

/* The kernel's errors are the kernel's; what it would take is refused, unless it is what it was anyway. */
static int ask_set(struct file *f, int level, int name, const void *value, socklen_t len)
{
	uint8_t before[ASK_VALUE_MAX] = {0}, after[ASK_VALUE_MAX] = {0};
	socklen_t before_len = sizeof(before), after_len = sizeof(after);
	int fd = fresh_socket(f), rc;
	bool is_same;

	if (fd < 0)
		return -ENOPROTOOPT;
	is_same = !libc.getsockopt(fd, level, name, before, &before_len);
	rc = libc.setsockopt(fd, level, name, value, len) < 0 ? -errno : 0;
	is_same = is_same && !libc.getsockopt(fd, level, name, after, &after_len) &&
	          before_len == after_len && !memcmp(before, after, sizeof(before));
	fresh_end(fd);
	return rc ? rc : is_same ? 0 : -ENOPROTOOPT;
}

/* --- get --- */

static int row_get(struct file *f, const struct opt_row *r, void *value, socklen_t *len)
{
	int v;

	if (r->get)
		return r->get(f, value, len);
	if (r->kind == OPT_KIND_ASK)
		return opt_ask_get(f, r->level, r->name, value, len);
	v = r->is_flag ? opt_flag(f, r->slot) : opt_int(f, r->slot);
	/* with little room the kernel gives a value of this level as one byte. do_ip_getsockopt */
	if (r->level == IPPROTO_IP && *len > 0 && *len < sizeof(v) && v >= 0 && v <= 255)
		*len = 1;
	return opt_give(value, len, &v, sizeof(v));
}

/* --- of an undecided socket with a spare kernel socket behind it (spare.h) --- */

/* Its value is kept in the file until it is decided who serves the socket: what the kernel would check is in
 * the row, and it concerns no other socket. */
static bool is_plain(const struct opt_row *r)
{
	return r->kind == OPT_KIND_FLAG || r->kind == OPT_KIND_INT ||
	       (r->level == SOL_SOCKET &&
	               (r->name == SO_LINGER || r->name == SO_RCVTIMEO || r->name == SO_SNDTIMEO));
}

static bool is_noted(const struct file *f, const struct opt_row *r)
{
	return f->opt_set[(r - rows) / 64] >> ((r - rows) % 64) & 1;
}

/* Everything else is as the kernel has it for a new socket, and so as it has it for this one. */
static int fresh_get(struct file *f, int level, int name, void *value, socklen_t *len)
{
	const struct opt_row *r = row_find(f, level, name);
	int rc = SOCK_LIBC;

	if (!r || !is_plain(r) || !is_noted(f, r) || user_is_bad(len) || (int)*len < 0 ||
	        user_is_bad(value) || !spare_hold(f))
		return rc;
	if (f->opts != &file_no_opts)
		rc = row_get(f, r, value, len);
	spare_let_go();
	return rc;
}

int sock_getopt(struct file *f, int fd, int level, int name, void *value, socklen_t *len)
{
	const struct opt_row *r;

	if (f->type == SOCK_DGRAM)
		return dgram_getopt(f, fd, level, name, value, len);
	if (unlikely(level == SOL_SOCKET && name == SO_COOKIE))
		spare_own(f); /* no other socket has had it */
	if (!sock_is_ours(f))
		return spare_is_fresh(f) ? fresh_get(f, level, name, value, len) : SOCK_LIBC;
	if (atomic_load(&f->mode) == MODE_DUAL && level == IPPROTO_TCP && name == TCP_INFO)
		return opt_info_dual(f, fd, value, len);
	/* of a wildcard listener the kernel's half knows all but what belongs to ours */
	if (atomic_load(&f->mode) == MODE_DUAL &&
	        (level != SOL_SOCKET || (name != SO_SNDBUF && name != SO_RCVBUF)))
		return SOCK_LIBC;
	if (user_is_bad(len))
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	r = row_find(f, level, name);
	return r && !user_is_bad(value) ? row_get(f, r, value, len) : opt_ask_get(f, level, name, value, len);
}

/* --- set --- */

/* Flags that the stack or a transfer reads from the endpoint's own word. */
static uint32_t app_flag_of(const struct opt_row *r)
{
	if (!r->is_flag)
		return 0;
	return r->slot == EPF_NODELAY     ? APP_NODELAY
	       : r->slot == EPF_CORK      ? APP_CORK
	       : r->slot == EPF_KEEPALIVE ? APP_KEEPALIVE
	                                  : 0;
}

uint32_t opt_app_flags(struct file *f)
{
	return (atomic_load(&f->is_nonblocking) ? APP_NONBLOCK : 0u) |
	       (opt_flag(f, EPF_NODELAY) ? APP_NODELAY : 0u) | (opt_flag(f, EPF_CORK) ? APP_CORK : 0u) |
	       (opt_flag(f, EPF_KEEPALIVE) ? APP_KEEPALIVE : 0u);
}

void opt_tell(struct file *f)
{
	uint32_t ep = atomic_load(&f->ep);

	if (ep != ENDPOINT_NONE && !handle_is_dead(ep))
		handle_post(ep, POST_OPTIONS, 0);
}

static void row_store(struct file *f, const struct opt_row *r, int v)
{
	uint32_t flag = app_flag_of(r), ep = atomic_load(&f->ep);

	if (r->is_flag)
		opt_flag_set(f, r->slot, v != 0);
	else
		opt_int_set(f, r->slot, v);
	if (flag && ep != ENDPOINT_NONE) {
		if (v)
			atomic_fetch_or(&handle_ep(ep)->app_flags, flag);
		else
			atomic_fetch_and(&handle_ep(ep)->app_flags, ~flag);
		/* both push out what MSG_MORE holds back. tcp(7) */
		if (flag == (v ? APP_NODELAY : APP_CORK))
			atomic_fetch_and(&handle_ep(ep)->app_flags, ~(uint32_t)APP_MORE);
	}
}

/* What the kernel takes of a socket that has no connection only; the fresh one that was asked has none. */
static int state_error(struct file *f, const struct opt_row *r, socklen_t len, int rc)
{
	uint32_t state = atomic_load(&handle_ep(atomic_load(&f->ep))->state);

	if (r->level == IPPROTO_IPV6 && r->name == IPV6_V6ONLY && !rc)
		return -EINVAL; /* of a socket that has a port */
	if (r->level != IPPROTO_TCP || len < sizeof(int) || state == EP_BOUND || state == EP_CLOSED ||
	        (rc && rc != -EINVAL && rc != -ENOPROTOOPT))
		return rc;
	if (r->name == TCP_QUEUE_SEQ)
		return -EPERM;
	if (r->name == TCP_FASTOPEN_CONNECT ||
	        (state != EP_LISTEN && (r->name == TCP_FASTOPEN || r->name == TCP_FASTOPEN_NO_COOKIE)))
		return -EINVAL;
	return rc;
}

static int row_set(struct file *f, const struct opt_row *r, const void *value, socklen_t len)
{
	int v, rc;

	switch ((enum opt_kind)r->kind) {
	case OPT_KIND_FACT:
		return r->level != IPPROTO_IP && len < sizeof(v) ? -EINVAL : -ENOPROTOOPT;
	case OPT_KIND_CALL:
		return r->set(f, value, len);
	case OPT_KIND_ASK:
		rc = ask_set(f, r->level, r->name, value, len);
		return state_error(f, r, len, rc);
	case OPT_KIND_KEPT:
		rc = state_error(f, r, len, opt_ask_set(f, r->level, r->name, value, len, &v));
		if (!rc)
			row_store(f, r, v);
		return rc;
	default:
		break;
	}
	if (r->level == IPPROTO_IP && len < sizeof(v)) {
		if (len < 1)
			return -EINVAL;
		v = *(const uint8_t *)value;
	} else {
		rc = opt_read(value, len, &v);
		if (rc)
			return rc;
	}
	if (r->kind == OPT_KIND_FLAG)
		v = !!v;
	else if (v < r->min || v > r->max)
		return -EINVAL;
	row_store(f, r, v);
	if (r->types != OPT_ANY || r->level != SOL_SOCKET)
		opt_tell(f);
	return 0;
}

/* The defaults, for a file that is about to have options of its own. False without memory: then they are all
 * zero, as an endpoint's are that nobody asked anything of. */
static bool opts_begin(struct file *f)
{
	const struct arena_header *buffers = services[0].at.arena.hdr; /* whichever it will be */

	if (!file_opts_take(f))
		return false;
	ep_opts_copy(f->opts, opt_defaults(f));
	atomic_store(&f->opts->v[EPO_SNDBUF], (int)buffers->send_buffer);
	atomic_store(&f->opts->v[EPO_RCVBUF], (int)buffers->receive_buffer);
	return true;
}

static int fresh_set(struct file *f, const struct opt_row *r, const void *value, socklen_t len)
{
	int rc = SOCK_LIBC;

	if (!spare_hold(f))
		return rc;
	if (f->opts != &file_no_opts || opts_begin(f))
		rc = row_set(f, r, value, len);
	spare_let_go();
	return rc;
}

void opt_copy_for(struct ep_opts *to, struct file *f, const struct service *s)
{
	const struct arena_header *was = handle_service(atomic_load(&f->ep))->at.arena.hdr,
	                          *is = s->at.arena.hdr;
	int lock;

	ep_opts_copy(to, opt_of(f));
	if (likely(was == is))
		return;
	lock = atomic_load(&to->v[EPO_BUF_LOCK]);
	if (!(lock & BUF_LOCK_SND) && atomic_load(&to->v[EPO_SNDBUF]) == (int)was->send_buffer)
		atomic_store(&to->v[EPO_SNDBUF], (int)is->send_buffer);
	if (!(lock & BUF_LOCK_RCV) && atomic_load(&to->v[EPO_RCVBUF]) == (int)was->receive_buffer)
		atomic_store(&to->v[EPO_RCVBUF], (int)is->receive_buffer);
}

/* A listener's endpoints at other services have the options of the first. */
static void others_follow(struct file *f)
{
	uint32_t all = APP_NODELAY | APP_CORK | APP_KEEPALIVE;
	uint32_t flags = atomic_load(&handle_ep(atomic_load(&f->ep))->app_flags) & all;

	for (uint32_t i = 1; i < file_ep_count(f); i++) {
		uint32_t ep = file_ep(f, i);

		if (ep == ENDPOINT_NONE || handle_is_dead(ep))
			continue;
		opt_copy_for(&handle_ep(ep)->opts, f, handle_service(ep));
		atomic_fetch_and(&handle_ep(ep)->app_flags, ~all | flags);
		atomic_fetch_or(&handle_ep(ep)->app_flags, flags);
		handle_post(ep, POST_OPTIONS, 0);
	}
}

int sock_setopt(struct file *f, int fd, int level, int name, const void *value, socklen_t len)
{
	const struct opt_row *r = row_find(f, level, name), *shown = r;
	bool is_kept;
	int rc;

	if (f->type == SOCK_DGRAM)
		return dgram_setopt(f, fd, level, name, value, len);
	is_kept = spare_is_fresh(f) && r && is_plain(r) && (int)len >= 0 && !user_is_bad(value);
	if (!is_kept && spare_is_fresh(f))
		spare_own(f);
	if (name == SO_SNDBUFFORCE && level == SOL_SOCKET)
		shown = row_find(f, level, SO_SNDBUF);
	else if (name == SO_RCVBUFFORCE && level == SOL_SOCKET)
		shown = row_find(f, level, SO_RCVBUF);
	if (shown)
		f->opt_set[(shown - rows) / 64] |= 1ull << ((shown - rows) % 64);
	if (!sock_is_ours(
	            f)) /* without a number left, spare_own has changed nothing: EBADF, says the kernel */
		return is_kept ? fresh_set(f, r, value, len) : SOCK_LIBC;
	if (atomic_load(&f->mode) == MODE_DUAL) {
		/* the kernel's half decides what is valid; ours follows */
		rc = libc.setsockopt(fd, level, name, value, len);
		if (rc < 0)
			return -errno;
		if (r && value)
			row_set(f, r, value, len);
		if (unlikely(f->also != NULL))
			others_follow(f);
		return 0;
	}
	if ((int)len < 0)
		return -EINVAL;
	return r && !user_is_bad(value) ? row_set(f, r, value, len) : ask_set(f, level, name, value, len);
}

/* --- to us and back --- */

const struct ep_opts *opt_defaults(struct file *f)
{
	static struct ep_opts known[2][2];
	static _Atomic uint32_t is_known[2][2], lock;
	static const struct {
		int level, name;
		enum ep_opt slot;
	} calls[] = {{IPPROTO_IP, IP_TTL, EPO_TTL}, {IPPROTO_IP, IP_TOS, EPO_TOS},
	        {IPPROTO_TCP, TCP_LINGER2, EPO_LINGER2}, {IPPROTO_TCP, TCP_QUICKACK, EPO_QUICKACK}};
	int a = f->type == SOCK_DGRAM, b = f->domain == AF_INET6;

	if (atomic_load_explicit(&is_known[a][b], memory_order_acquire))
		return &known[a][b];
	spin_lock(&lock);
	if (!atomic_load(&is_known[a][b])) {
		struct file probe = {.domain = f->domain, .type = f->type, .opts = &known[a][b]};
		int fd = fresh_socket(f);

		atomic_store(&probe.ep, ENDPOINT_NONE);
		for (int i = 0; i < ROWS && fd >= 0; i++) {
			const struct opt_row *r = &rows[i];
			socklen_t len = sizeof(int);
			int v;

			if (r->kind != OPT_KIND_FLAG && r->kind != OPT_KIND_INT && r->kind != OPT_KIND_KEPT)
				continue;
			if (row_find(&probe, r->level, r->name) == r &&
			        !libc.getsockopt(fd, r->level, r->name, &v, &len))
				row_store(&probe, r, v);
		}
		for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && fd >= 0; i++) {
			socklen_t len = sizeof(int);
			int v;

			if (!libc.getsockopt(fd, calls[i].level, calls[i].name, &v, &len))
				opt_int_set(&probe, calls[i].slot, v);
		}
		fresh_end(fd);
		atomic_store_explicit(&is_known[a][b], 1, memory_order_release);
	}
	spin_unlock(&lock);
	return &known[a][b];
}

/* Buffers are shown doubled, and setting doubles again. */
static void buffer_halve(const struct opt_row *r, void *value)
{
	int v;

	if (r->level != SOL_SOCKET || (r->name != SO_SNDBUF && r->name != SO_RCVBUF))
		return;
	memcpy(&v, value, sizeof(v));
	v /= 2;
	memcpy(value, &v, sizeof(v));
}

void opt_take(struct file *f, int fd)
{
	/* held: a fork in another thread may give them to a kernel socket just now */
	if (spare_hold(f)) {
		if (f->opts == &file_no_opts) /* else they were never anybody else's */
			opts_begin(f);
		spare_let_go();
		return;
	}
	if (!opts_begin(f))
		return;
	for (int i = 0; i < ROWS; i++) {
		const struct opt_row *r = &rows[i];
		uint8_t value[ASK_VALUE_MAX];
		socklen_t len = sizeof(value);
		int v;

		if (!(f->opt_set[i / 64] >> (i % 64) & 1) || r->kind == OPT_KIND_FACT ||
		        r->kind == OPT_KIND_ASK || libc.getsockopt(fd, r->level, r->name, value, &len) < 0)
			continue;
		if (r->kind != OPT_KIND_CALL) {
			memcpy(&v, value, sizeof(v));
			row_store(f, r, v);
			continue;
		}
		buffer_halve(r, value);
		r->set(f, value, len);
	}
}

void opt_all_set(struct file *f)
{
	for (int i = 0; i < ROWS; i++)
		if (rows[i].level != SOL_SOCKET ||
		        (rows[i].name != SO_SNDBUF && rows[i].name != SO_RCVBUF &&
		                rows[i].name != SO_SNDBUFFORCE && rows[i].name != SO_RCVBUFFORCE))
			f->opt_set[i / 64] |= 1ull << (i % 64);
}

void opt_return(struct file *f, int fd)
{
	for (int i = 0; i < ROWS; i++) {
		const struct opt_row *r = &rows[i];
		uint8_t value[ASK_VALUE_MAX];
		socklen_t len = sizeof(value);

		if (r->kind == OPT_KIND_FACT || r->kind == OPT_KIND_ASK ||
		        !(f->opt_set[i / 64] >> (i % 64) & 1) || row_get(f, r, value, &len))
			continue;
		buffer_halve(r, value);
		libc.setsockopt(fd, r->level, r->name, value, len);
	}
}
