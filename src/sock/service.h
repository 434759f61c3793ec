/* service.h - the services that this process has joined: one for each configuration file that the program
 * names, and handles of what is in them.
 *
 * A socket, an epoll member or a waiting thread keeps handles: the service's number and the index of an
 * endpoint or a watch in its arena. So both change at once when another thread dissolves a connection and
 * makes the next one in another service. Indexes without a service are only spoken with that service.
 */
#pragma once
#include "attach.h"
#include "cfg.h"
#include "compiler.h"
#include "file.h"

enum { SERVICE_MAX = CFG_FILES_MAX, HANDLE_BITS = 28 };
_Static_assert((int)SERVICE_MAX == (int)FILE_ALSO, "a socket can be at each");
_Static_assert(
        (SERVICE_MAX & (SERVICE_MAX - 1)) == 0 && SERVICE_MAX <= 16, "a service's number has four bits");

struct service {
	struct attach at;
	char socket_path[CFG_SOCKET_PATH_MAX];
	uint32_t fork_slot; /* between the two halves of a fork: the child's slot, or UINT32_MAX */
	void **watch_item;  /* the epoll member that a watch belongs to, or NULL; by service_watch_item */
};

extern struct service services[SERVICE_MAX];
extern _Atomic uint32_t services_joined;

/* How many there are, in the order of their files; those that have died since count. 0 until this process has
 * joined. */
static inline uint32_t service_count(void)
{
	return atomic_load_explicit(&services_joined, memory_order_acquire);
}

/* The first one that lives, or NULL. */
static inline struct service *service_first(void)
{
	for (uint32_t i = 0; i < service_count(); i++)
		if (!attach_is_dead(&services[i].at))
			return &services[i];
	return NULL;
}

/* The service's number is kept inverted: so ENDPOINT_NONE and WATCH_NONE are an index that is none, of the
 * first service. */
static inline uint32_t handle_make(const struct service *s, uint32_t index)
{
	return ~(uint32_t)(s - services) << HANDLE_BITS | index;
}

static inline struct service *handle_service(uint32_t handle)
{
	return &services[~handle >> HANDLE_BITS & (SERVICE_MAX - 1)];
}

static inline struct attach *handle_at(uint32_t handle)
{
	return &handle_service(handle)->at;
}

static inline uint32_t handle_index(uint32_t handle)
{
	return handle & ((1u << HANDLE_BITS) - 1);
}

/* Stands for the endpoint of a socket that has just lost its own: not connected. */
extern struct endpoint service_no_ep;

static inline struct endpoint *handle_ep(uint32_t handle)
{
	const struct arena *a = &handle_at(handle)->arena;
	uint32_t index = handle_index(handle);

	return likely(index < a->endpoint_count) ? &a->endpoints[index] : &service_no_ep;
}

/* Posts an entry about the endpoint to its stack (post in attach.h). */
static inline int handle_post(uint32_t handle, uint32_t op, uint32_t arg)
{
	return post(
	        handle_at(handle), handle_ep(handle)->stack_idx, POST_ENTRY(op, arg, handle_index(handle)));
}

static inline bool handle_is_dead(uint32_t handle)
{
	return attach_is_dead(handle_at(handle));
}

/* Whether a process other than this one holds the endpoint. */
static inline bool handle_is_shared(uint32_t handle)
{
	const struct attach *at = handle_at(handle);

	return hold_any(&at->arena, handle_index(handle), at->client_idx);
}

/* Where the member of a watch is kept: first the first watches of all endpoints, and so on, as most have one.
 */
static inline void **service_watch_item(const struct service *s, uint32_t watch)
{
	const struct arena *a = &s->at.arena;

	return &s->watch_item[watch < a->watch_inline_count
	                              ? watch % WATCH_INLINE * a->endpoint_count + watch / WATCH_INLINE
	                              : watch];
}

/* Joins the service of a configuration, or starts it; the caller counts it then. With the lock of proc.c;
 * blocks for seconds. config_path NULL: there is no file. 0, or -E with a reason; nothing is left then. */
int service_join(
        struct service *s, const struct cfg *cfg, const char *config_path, char *err, size_t err_size);

/* $PRONK_SOCKET names the control socket: then that one service is joined, whatever the files say, and none
 * is started. Empty is as good as not set. */
bool service_is_named(void);

/* The control socket of a configuration: $PRONK_SOCKET if that is set, else what the file says. */
void service_path_find(const struct cfg *cfg, char *buf, size_t size);

/* Around fork(2), of one service that lives: the child's slot and, by service_fork_hold for each endpoint,
 * its references are there before it runs. The child then takes them over: false when it cannot, and its
 * sockets of this service have ended. */
void service_fork_prepare(struct service *s);
void service_fork_hold(uint32_t handle);
bool service_fork_child(struct service *s);
