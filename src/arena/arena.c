/* arena.c - creates, checks and maps the shared memory.
 *
 * Owns: the layout arithmetic (one function for maker and mapper) and the mappings. Runs in the service's
 * control thread and in the first socket call of a client; nothing here is on a hot path. What lives inside
 * is told in layout.h.
 */
#include "arena.h"
#include "cfg.h"
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_SIZE (2ull << 20)

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/* Fills in offsets and strides from the counts. The one place where the layout is computed. */
static void layout(struct arena_header *h)
{
	uint64_t off = align_up(sizeof(*h), 4096);

	h->stacks_off = off;
	off += align_up((uint64_t)h->stack_count * sizeof(struct stack_shared), 4096);
	h->latency_off = off;
	off += align_up((uint64_t)h->stack_count * sizeof(struct latency), 4096);
	h->pollers_off = off;
	off += align_up((uint64_t)h->poller_count * sizeof(struct poller), 4096);
	h->listener_stride =
	        (uint32_t)align_up(sizeof(struct listener) + h->stack_count * sizeof(struct accept_ring), 64);
	h->listeners_off = off;
	off += align_up((uint64_t)h->listener_count * h->listener_stride, 4096);
	h->client_stride = (uint32_t)align_up(
	        sizeof(struct client) + h->stack_count * sizeof(((struct client *)0)->stack[0]), 4096);
	h->clients_off = off;
	off += (uint64_t)h->client_count * h->client_stride;
	h->holds_stride = (uint32_t)align_up((h->endpoint_count + 63) / 64 * 8, 64);
	h->holds_off = off;
	off += align_up((uint64_t)h->client_count * h->holds_stride, 4096);
	h->endpoints_off = off;
	off += align_up((uint64_t)h->endpoint_count * sizeof(struct endpoint), 4096);
	h->rx_rings_off = off;
	off += align_up((uint64_t)h->rx_ring_count * RX_RING_SIZE * sizeof(struct rx_desc), 4096);
	h->tx_maps_off = off;
	off += align_up((uint64_t)h->block_count * TX_BLOCK_COUNT * sizeof(uint32_t), 4096);
	h->reports_off = off;
	off += align_up((uint64_t)h->stack_count * sizeof(struct stack_report), 4096);
	h->blocks_off = align_up(off, TX_BLOCK_SIZE);
	off = h->blocks_off + (uint64_t)h->block_count * TX_BLOCK_SIZE;
	h->size = align_up(off, HUGE_SIZE);
}

static void view(struct arena *a)
{
	const struct arena_header *h = a->hdr;

	a->endpoint_count = h->endpoint_count;
	a->listener_count = h->listener_count;
	a->poller_count = h->poller_count;
	a->block_count = h->block_count;
	a->rx_ring_count = h->rx_ring_count;
	a->client_stride = h->client_stride;
	a->listener_stride = h->listener_stride;
	a->holds_stride = h->holds_stride;
	a->clients_off = h->clients_off;
	a->listeners_off = h->listeners_off;
	a->holds_off = h->holds_off;
	a->client_count = h->client_count;
	a->stack_count = h->stack_count;
	a->watch_inline_count = h->endpoint_count * WATCH_INLINE;
	a->watch_count = a->watch_inline_count + h->listener_count * WATCH_LISTENER;
	a->endpoints = (struct endpoint *)(a->base + h->endpoints_off);
	a->rx_rings = (struct rx_desc *)(a->base + h->rx_rings_off);
	a->tx_maps = (_Atomic uint32_t *)(a->base + h->tx_maps_off);
	a->blocks = a->base + h->blocks_off;
	a->pollers = (struct poller *)(a->base + h->pollers_off);
	a->stacks = (struct stack_shared *)(a->base + h->stacks_off);
	a->reports = (struct stack_report *)(a->base + h->reports_off);
	a->latency = (struct latency *)(a->base + h->latency_off);
}

static struct arena_header header_of(const struct arena_spec *spec)
{
	struct arena_header h = {
	        .magic = ARENA_MAGIC,
	        .version = ARENA_VERSION,
	        .header_size = sizeof(h),
	        .stack_count = spec->stack_count,
	        .endpoint_count = (uint32_t)align_up(spec->endpoint_count, 64 * spec->stack_count),
	        .client_count = spec->client_count,
	        .listener_count = ARENA_LISTENER_MAX,
	        .poller_count = ARENA_POLLER_MAX,
	        .block_count = (uint32_t)(spec->block_memory / TX_BLOCK_SIZE),
	};

	h.rx_ring_count = spec->rx_ring_count && spec->rx_ring_count < h.endpoint_count
	                          ? (uint32_t)align_up(spec->rx_ring_count, spec->stack_count)
	                          : h.endpoint_count;
	layout(&h);
	return h;
}

void arena_spec_of(struct arena_spec *spec, const struct cfg *cfg)
{
	spec->stack_count = cfg->mode == CFG_MODE_INLINE ? 1 : cfg->stacks;
	spec->endpoint_count = cfg->max_sockets;
	spec->client_count = cfg->max_clients;
	spec->block_memory = (uint64_t)cfg->send_memory_mb << 20;
	/* one for each packet buffer: a ring in use has at least one in it, on whatever stack */
	spec->rx_ring_count = cfg->packet_buffers * spec->stack_count;
}

uint32_t arena_pages(const struct cfg *cfg, uint32_t mtu)
{
	struct arena_spec spec = {.name = NULL};

	arena_spec_of(&spec, cfg);
	return (uint32_t)((arena_size(&spec) + PAGE_HUGE - 1) / PAGE_HUGE +
	                  (pages_packet_bytes(cfg, mtu) + PAGE_HUGE - 1) / PAGE_HUGE);
}

uint64_t arena_size(const struct arena_spec *spec)
{
	return header_of(spec).size;
}

int arena_create(struct arena *a, const struct arena_spec *spec, bool *is_huge, char *err, size_t err_size)
{
	struct arena_header h = header_of(spec);
	int rc = 0;

	memset(a, 0, sizeof(*a));
	a->fd = -1;
	*is_huge = false;
	if (spec->huge >= 0) {
		a->fd = memfd_create(
		        spec->name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);
		if (a->fd >= 0 && (ftruncate(a->fd, (off_t)h.size) < 0 ||
		                          (a->base = mmap(NULL, h.size, PROT_READ | PROT_WRITE, MAP_SHARED,
		                                   a->fd, 0)) == MAP_FAILED)) {
			close(a->fd);
			a->fd = -1;
		}
		*is_huge = a->fd >= 0;
	}
	if (a->fd < 0) {
		if (spec->huge > 0) {
			snprintf(err, err_size,
			        "not enough free 2 MB hugepages for %llu MB of socket memory (`pronk check` says how many)",
			        (unsigned long long)(h.size >> 20));
			return -ENOMEM;
		}
		a->fd = memfd_create(spec->name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (a->fd < 0 || ftruncate(a->fd, (off_t)h.size) < 0) {
			rc = -errno;
			goto fail;
		}
		a->base = mmap(NULL, h.size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
		if (a->base == MAP_FAILED) {
			rc = -errno;
			goto fail;
		}
	}
	h.huge = *is_huge;
	/* a client that cut the file short would kill the service */
	if (fcntl(a->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		rc = -errno;
		munmap(a->base, h.size);
		goto fail;
	}
	a->hdr = (struct arena_header *)a->base;
	a->size = h.size;
	a->writable = true;
	/* the magic goes last, for a mapper that looks too early */
	h.magic = 0;
	memcpy(a->hdr, &h, sizeof(h));
	view(a);
	for (uint32_t i = 0; i < a->client_count; i++)
		for (int k = 0; k < FALLBACK_COUNT; k++)
			atomic_store_explicit(&arena_client(a, i)->fallback[k].fd, -1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	a->hdr->magic = ARENA_MAGIC;
	return 0;
fail:
	snprintf(err, err_size, "cannot make %llu MB of shared memory: %s",
	        (unsigned long long)(h.size >> 20), strerror(-rc));
	if (a->fd >= 0)
		close(a->fd);
	memset(a, 0, sizeof(*a));
	a->fd = -1;
	return rc;
}

int arena_map(struct arena *a, int fd, bool writable)
{
	struct arena_header want, *h;
	struct stat st;
	void *p;
	int rc = -EPROTO;

	memset(a, 0, sizeof(*a));
	a->fd = -1;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < sizeof(*h))
		return -EPROTO;
	p = mmap(NULL, (size_t)st.st_size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	h = p;
	want = *h;
	if (h->magic != ARENA_MAGIC || h->version != ARENA_VERSION || h->header_size != sizeof(*h))
		goto out;
	if (!h->stack_count || h->stack_count > ARENA_STACK_MAX || !h->client_count ||
	        h->client_count > ARENA_CLIENT_MAX || h->listener_count > ARENA_LISTENER_MAX ||
	        h->poller_count > ARENA_POLLER_MAX || h->endpoint_count % 64 || !h->rx_ring_count)
		goto out;
	layout(&want);
	if (want.size != h->size || (uint64_t)st.st_size < h->size || want.blocks_off != h->blocks_off ||
	        want.endpoints_off != h->endpoints_off || want.clients_off != h->clients_off ||
	        want.holds_off != h->holds_off || want.listeners_off != h->listeners_off ||
	        want.pollers_off != h->pollers_off || want.rx_rings_off != h->rx_rings_off ||
	        want.tx_maps_off != h->tx_maps_off || want.stacks_off != h->stacks_off ||
	        want.reports_off != h->reports_off || want.latency_off != h->latency_off ||
	        want.client_stride != h->client_stride || want.listener_stride != h->listener_stride ||
	        want.holds_stride != h->holds_stride)
		goto out;
	a->base = p;
	a->hdr = p;
	a->size = (uint64_t)st.st_size;
	a->fd = fd;
	a->writable = writable;
	view(a);
	return 0;
out:
	munmap(p, (size_t)st.st_size);
	return rc;
}

int arena_map_region(struct arena *a, int fd, uint64_t fd_offset, uint64_t size)
{
	void *p;

	if (a->region_count >= ARENA_REGION_MAX)
		return -ENOSPC;
	p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)fd_offset);
	if (p == MAP_FAILED)
		return -errno;
	a->region[a->region_count].base = p;
	a->region[a->region_count].size = size;
	a->region_count++;
	return 0;
}

void arena_close(struct arena *a)
{
	if (!a || !a->hdr)
		return;
	for (uint32_t i = 0; i < a->region_count; i++)
		munmap((void *)(uintptr_t)a->region[i].base, a->region[i].size);
	munmap(a->base, a->size);
	close(a->fd);
	memset(a, 0, sizeof(*a));
	a->fd = -1;
}

bool hold_any(const struct arena *a, uint32_t ep_idx, uint32_t except)
{
	for (uint32_t w = 0; w < (a->client_count + 63) / 64; w++) {
		uint64_t bits = atomic_load_explicit(&a->hdr->clients_seen[w], memory_order_acquire);

		for (; bits; bits &= bits - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);

			if (i < a->client_count && i != except && hold_test(a, i, ep_idx) &&
			        atomic_load_explicit(&arena_client(a, i)->state, memory_order_acquire) !=
			                CLIENT_FREE)
				return true;
		}
	}
	return false;
}
