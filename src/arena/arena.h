/* arena.h - making and mapping the shared memory, and finding things in it.
 *
 * struct arena is a process's private view. All lookups are bounds-checked where the index may come from
 * another process.
 */
#pragma once
#include "layout.h"
#include "report.h"

#include <string.h>

struct cfg;

struct arena_region {
	const uint8_t *base; /* read-only in clients */
	uint64_t size;
};

struct arena {
	struct arena_header *hdr;
	uint8_t *base;
	uint64_t size;
	int fd;
	bool writable;
	/* copies of the header's, which a client could write over */
	uint32_t endpoint_count, client_count, stack_count, listener_count, poller_count, block_count,
	        rx_ring_count;
	uint32_t client_stride, listener_stride, holds_stride;
	uint64_t clients_off, listeners_off, holds_off;
	uint32_t watch_inline_count, watch_count;
	struct endpoint *endpoints;
	struct rx_desc *rx_rings;
	_Atomic uint32_t *tx_maps;
	uint8_t *blocks;
	struct poller *pollers;
	struct stack_shared *stacks;
	struct stack_report *reports;
	struct latency *latency; /* one for each stack */
	struct arena_region region[ARENA_REGION_MAX];
	uint32_t region_count;
};

struct arena_spec {
	const char *name;
	uint32_t stack_count, endpoint_count, client_count;
	uint64_t block_memory;  /* bytes */
	uint32_t rx_ring_count; /* rings for received data; 0: one for each endpoint */
	int huge;               /* 1: hugepages or fail, 0: try, then plain pages; -1: plain pages */
};

/* What the configuration says of it. name and huge are left alone. Pure. */
void arena_spec_of(struct arena_spec *spec, const struct cfg *cfg);

/* Hugepages of 2 MB that a service with this configuration takes, for packets and for sockets; mtu as in
 * pages_packet_bytes. Pure. */
uint32_t arena_pages(const struct cfg *cfg, uint32_t mtu);

/* The bytes that arena_create would take. Pure. */
uint64_t arena_size(const struct arena_spec *spec);

/* Makes a new arena (service). Blocks for page allocation. 0, or -E with a reason in err. The arena's memory
 * is owned by the caller until arena_close. *is_huge tells what was used. memfd_create(2). */
int arena_create(struct arena *a, const struct arena_spec *spec, bool *is_huge, char *err, size_t err_size);

/* Maps an arena that another process made, after checking its header against the file's size. fd is taken
 * over on success. writable: false for observers. 0, -EPROTO for a foreign or damaged header, or -E. */
int arena_map(struct arena *a, int fd, bool writable);

/* Adds packet memory (fd stays the caller's) at the next region index, read-only. 0 or -E. */
int arena_map_region(struct arena *a, int fd, uint64_t fd_offset, uint64_t size);

/* Unmaps everything and closes the fd. Accepts an arena that was zeroed or never opened. */
void arena_close(struct arena *a);

/* What decides which addresses lead to Pronk. */
struct arena_net {
	uint32_t address; /* network order; 0: the interface has none at present */
	uint32_t prefix, mtu;
	bool has_gateway;
	bool is_usable; /* there is an address, and the interface is up */
};

static inline struct arena_net arena_net(const struct arena_header *h)
{
	uint64_t w = atomic_load_explicit(&h->net, memory_order_acquire);

	return (struct arena_net){(uint32_t)w, w >> 32 & 63, w >> 40 & 0xffff, w >> 38 & 1, w >> 39 & 1};
}

static inline void arena_net_set(struct arena_header *h, const struct arena_net *n, uint32_t gateway)
{
	memcpy(h->address, &n->address, 4);
	memcpy(h->gateway, &gateway, 4);
	h->prefix = n->prefix;
	h->has_gateway = n->has_gateway;
	h->mtu = n->mtu;
	atomic_store_explicit(&h->net,
	        n->address | (uint64_t)n->prefix << 32 | (uint64_t)n->has_gateway << 38 |
	                (uint64_t)n->is_usable << 39 | (uint64_t)n->mtu << 40,
	        memory_order_release);
}

static inline struct client *arena_client(const struct arena *a, uint32_t idx)
{
	return (struct client *)(a->base + a->clients_off + (uint64_t)idx * a->client_stride);
}

static inline struct listener *arena_listener(const struct arena *a, uint32_t idx)
{
	return (struct listener *)(a->base + a->listeners_off + (uint64_t)idx * a->listener_stride);
}

/* The ring with an endpoint's received data. Look at rx_head first: an endpoint without any has no ring. */
static inline struct rx_desc *arena_rx_ring(const struct arena *a, const struct endpoint *ep)
{
	uint32_t idx = atomic_load_explicit(&ep->rx_ring, memory_order_relaxed);

	return a->rx_rings + (uint64_t)(idx < a->rx_ring_count ? idx : 0) * RX_RING_SIZE;
}

/* Which blocks are under an endpoint's send ring: TX_BLOCK_COUNT numbers by ring position. */
static inline _Atomic uint32_t *arena_tx_map(const struct arena *a, uint32_t map)
{
	return a->tx_maps + (uint64_t)(map < a->block_count ? map : 0) * TX_BLOCK_COUNT;
}

static inline uint8_t *arena_block(const struct arena *a, uint32_t idx)
{
	return a->blocks + (uint64_t)idx * TX_BLOCK_SIZE;
}

static inline uint32_t arena_ep_idx(const struct arena *a, const struct endpoint *ep)
{
	return (uint32_t)(ep - a->endpoints);
}

/* The received bytes of a piece, or NULL when it lies outside packet memory. */
static inline const uint8_t *arena_rx_data(const struct arena *a, const struct rx_desc *d)
{
	uint64_t region = d->addr >> 48, off = d->addr & 0xffffffffffffull;

	if (region >= a->region_count || off > a->region[region].size ||
	        d->size > a->region[region].size - off)
		return NULL;
	return a->region[region].base + off;
}

/* --- holds: which client has which endpoint open; one bit each, the only truth about references --- */

static inline _Atomic uint64_t *arena_holds(const struct arena *a, uint32_t client_idx)
{
	return (_Atomic uint64_t *)(a->base + a->holds_off + (uint64_t)client_idx * a->holds_stride);
}

static inline bool hold_test(const struct arena *a, uint32_t client_idx, uint32_t ep_idx)
{
	return atomic_load_explicit(&arena_holds(a, client_idx)[ep_idx / 64], memory_order_acquire) >>
	               (ep_idx % 64) &
	       1;
}

static inline void hold_set(const struct arena *a, uint32_t client_idx, uint32_t ep_idx)
{
	atomic_fetch_or(&arena_holds(a, client_idx)[ep_idx / 64], 1ull << (ep_idx % 64));
}

static inline void hold_clear(const struct arena *a, uint32_t client_idx, uint32_t ep_idx)
{
	atomic_fetch_and(&arena_holds(a, client_idx)[ep_idx / 64], ~(1ull << (ep_idx % 64)));
}

/* Notes that somebody has taken a client slot. */
static inline void client_seen(const struct arena *a, uint32_t client_idx)
{
	atomic_fetch_or(&a->hdr->clients_seen[client_idx / 64], 1ull << (client_idx % 64));
}

/* Whether any client but except (UINT32_MAX: none excepted) holds the endpoint. Clients in every state but
 * free count. */
bool hold_any(const struct arena *a, uint32_t ep_idx, uint32_t except);
