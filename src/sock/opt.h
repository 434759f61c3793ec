/* opt.h - socket options inside src/sock: where their values are, the rows of sockopts.def, and the functions
 * of those rows that need one. The entries from outside are sock_getopt and sock_setopt (sock.h).
 *
 * Any thread unless noted; nothing blocks except where a function says so. Functions return 0 or -E as
 * getsockopt(2) and the kernel's protocol code do.
 */
#pragma once
#include "endpoint.h"
#include "proc.h"
#include "sock.h"

enum opt_types { OPT_STREAM = 1, OPT_DGRAM = 2, OPT_ANY = 3 };
enum opt_kind { OPT_KIND_FLAG, OPT_KIND_INT, OPT_KIND_CALL, OPT_KIND_FACT, OPT_KIND_KEPT, OPT_KIND_ASK };

struct opt_row {
	int level, name;
	uint8_t types, kind; /* enum opt_types, enum opt_kind */
	uint8_t is_flag;     /* slot is an EPF_, else an EPO_ */
	uint8_t slot;
	int min, max; /* OPT_KIND_INT */
	int (*get)(struct file *f, void *value, socklen_t *len);
	int (*set)(struct file *f, const void *value, socklen_t len);
};

/* The options of a socket: the endpoint's, which all processes that hold it share. On the way to one
 * (opt_take) they are gathered in the file; before, the kernel's socket has them. */
static inline struct ep_opts *opt_of(struct file *f)
{
	uint32_t ep = atomic_load_explicit(&f->ep, memory_order_relaxed);

	return ep == ENDPOINT_NONE ? f->opts : &handle_ep(ep)->opts;
}

static inline int opt_int(struct file *f, enum ep_opt slot)
{
	return atomic_load_explicit(&opt_of(f)->v[slot], memory_order_relaxed);
}

static inline bool opt_flag(struct file *f, enum ep_flag bit)
{
	return atomic_load_explicit(&opt_of(f)->flag, memory_order_relaxed) >> bit & 1;
}

static inline void opt_int_set(struct file *f, enum ep_opt slot, int v)
{
	atomic_store_explicit(&opt_of(f)->v[slot], v, memory_order_relaxed);
}

static inline void opt_flag_set(struct file *f, enum ep_flag bit, bool on)
{
	if (on)
		atomic_fetch_or_explicit(&opt_of(f)->flag, 1ull << bit, memory_order_relaxed);
	else
		atomic_fetch_and_explicit(&opt_of(f)->flag, ~(1ull << bit), memory_order_relaxed);
}

static inline uint64_t opt_rcvtimeo(struct file *f)
{
	return atomic_load_explicit(&opt_of(f)->rcvtimeo_ns, memory_order_relaxed);
}

static inline uint64_t opt_sndtimeo(struct file *f)
{
	return atomic_load_explicit(&opt_of(f)->sndtimeo_ns, memory_order_relaxed);
}

/* A kernel socket becomes ours: f->opts becomes what the program has set on fd, the rest the kernel's
 * defaults for such a socket, the buffers those of the configuration. With f->lock; file_opts_drop once the
 * endpoint has them. */
void opt_take(struct file *f, int fd);
/* All options but the buffers' may have been set on the kernel's socket, by another process. */
void opt_all_set(struct file *f);
/* The other way, after a connect that failed: what was set meanwhile goes to the kernel's socket. */
void opt_return(struct file *f, int fd);
/* What the options of such a socket are when nothing was set. */
const struct ep_opts *opt_defaults(struct file *f);
/* The APP_ flags that follow from options and O_NONBLOCK. */
uint32_t opt_app_flags(struct file *f);
enum {
	BUF_LOCK_SND = 1, /* SOCK_SNDBUF_LOCK, linux/socket.h: the program has set the size */
	BUF_LOCK_RCV = 2,
};

/* The options as an endpoint at this service shall have them: what the program has set, and buffers that it
 * has not as they are there. */
void opt_copy_for(struct ep_opts *to, struct file *f, const struct service *s);

/* The stack shall look at the options of f's endpoint again. */
void opt_tell(struct file *f);

/* A socket that is still the kernel's is bound to a device that is not the service's port (SO_BINDTODEVICE).
 */
bool opt_device_is_other(const struct service *s, struct file *f, int fd);

/* Copies a value out, cut to the caller's room, as sk_getsockopt does. */
int opt_give(void *value, socklen_t *len, const void *from, socklen_t size);
/* TCP_INFO of a listener that the kernel has, too: the kernel's, and what waits on our side. 0 or -E. */
int opt_info_dual(struct file *f, int fd, void *value, socklen_t *len);
/* The int in front of a value, or -EINVAL when it is shorter. */
int opt_read(const void *value, socklen_t len, int *v);
/* What a fresh kernel socket of the same kind says. set: the value is tried there; *v, if not NULL, is what
 * it then reads as. A few system calls. */
int opt_ask_get(struct file *f, int level, int name, void *value, socklen_t *len);
int opt_ask_set(struct file *f, int level, int name, const void *value, socklen_t len, int *v);

/* Prototypes of the functions of the rows. */
#define OPTION_FLAG(types, level, name, slot, note)
#define OPTION_INT(types, level, name, slot, min, max, note)
#define OPTION_CALL(types, level, name, note)                                                                \
	int opt_get_##name(struct file *f, void *value, socklen_t *len);                                     \
	int opt_set_##name(struct file *f, const void *value, socklen_t len);
#define OPTION_FACT(types, level, name, note) int opt_get_##name(struct file *f, void *value, socklen_t *len);
#define OPTION_KEPT(types, level, name, kind, slot, note)
#define OPTION_ASK(types, level, name, note)
#include "sockopts.def"
#undef OPTION_FLAG
#undef OPTION_INT
#undef OPTION_CALL
#undef OPTION_FACT
#undef OPTION_KEPT
#undef OPTION_ASK
