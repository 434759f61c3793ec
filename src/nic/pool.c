/* pool.c - the packet buffers: one mempool, and the memory regions that client processes map.
 *
 * Control thread. DPDK's own pool constructor is not used because of two layouts it cannot make: on plain
 * pages it gives every buffer a 4 KB page of its own, although a driver without DMA needs no such alignment
 * (here: packed); and net_af_xdp needs buffers at an exact multiple, without gaps at page ends (here: 4 KB
 * each).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_errno.h>
#include <rte_memory.h>

#include "nic_int.h"
#include "pages.h"

enum { POOL_CACHE = 256, AFXDP_BUFFER = 4096 };

/* What hugepages are counted by before there is a pool (base/pages.h). */
_Static_assert(sizeof(struct rte_mbuf) + NIC_PRIV_SIZE == PAGES_BUFFER_HEAD, "a buffer's head");
_Static_assert(RTE_PKTMBUF_HEADROOM == PAGES_HEADROOM, "a buffer's headroom");
_Static_assert((int)NIC_DATA_ROOM == (int)PAGES_DATA_ROOM, "a buffer's data");
_Static_assert((int)AFXDP_BUFFER == (int)PAGES_BUFFER_XDP, "a buffer of AF_XDP");
_Static_assert(RTE_CACHE_LINE_SIZE <= PAGES_LINE, "a cache line");
_Static_assert(RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 8 == PAGES_FRAME_EXTRA, "around a packet");

static uint32_t data_room(uint32_t mtu)
{
	uint32_t frame = mtu + RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 8; /* two VLAN tags */

	return RTE_PKTMBUF_HEADROOM + RTE_ALIGN_CEIL(RTE_MAX(frame, (uint32_t)NIC_DATA_ROOM), 64u);
}

/* Bytes of one pool element (before the pool's own header) and the flags to make the pool with. */
static uint32_t element_size(const struct device *device, uint32_t mtu, unsigned *flags)
{
	struct rte_mempool_objsz size;
	uint32_t fixed = sizeof(struct rte_mbuf) + NIC_PRIV_SIZE;

	*flags = 0;
	if (device->kind == DEVICE_AFXDP) {
		*flags = RTE_MEMPOOL_F_NO_SPREAD;
		rte_mempool_calc_obj_size(fixed, *flags, &size);
		return fixed + AFXDP_BUFFER - size.total_size;
	}
	if (device_is_virtual(device))
		*flags = RTE_MEMPOOL_F_NO_IOVA_CONTIG;
	return fixed + data_room(mtu);
}

struct rte_mempool *pool_create(
        const struct device *device, uint32_t count, uint32_t mtu, int numa_node, char *err, size_t err_size)
{
	struct rte_pktmbuf_pool_private private = {.mbuf_priv_size = NIC_PRIV_SIZE};
	unsigned flags;
	uint32_t size = element_size(device, mtu, &flags);
	struct rte_mempool *pool;
	int ret;

	private.mbuf_data_room_size = (uint16_t)(size - sizeof(struct rte_mbuf) - NIC_PRIV_SIZE);
	pool = rte_mempool_create_empty(
	        "packets", count, size, POOL_CACHE, sizeof(private), numa_node, flags);
	if (pool == NULL) {
		nic_fail(err, err_size, 0, "no memory for %u packet buffers: %s", count,
		        rte_strerror(rte_errno));
		return NULL;
	}
	/* "rts": a thread that is preempted inside the ring does not make the others spin until it runs again
	 */
	ret = rte_mempool_set_ops_byname(pool, "ring_mt_rts", NULL);
	if (ret == 0) {
		rte_pktmbuf_pool_init(pool, &private);
		ret = rte_mempool_populate_default(pool);
	}
	if (ret < 0) {
		nic_fail(err, err_size, 0, "no memory for %u packet buffers (%llu MB): %s", count,
		        (unsigned long long)((uint64_t)count * size >> 20), rte_strerror(-ret));
		rte_mempool_free(pool);
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	if (device->kind == DEVICE_AFXDP && pool->nb_mem_chunks != 1) {
		nic_fail(err, err_size, 0,
		        "AF_XDP needs its packet buffers in one piece, and hugepages are fragmented");
		rte_mempool_free(pool);
		return NULL;
	}
	return pool;
}

/* Adds one piece of the pool's memory: to the region of its memseg list, or as a new one. */
static void chunk_add(
        struct rte_mempool *pool UNUSED, void *arg, struct rte_mempool_memhdr *chunk, unsigned idx UNUSED)
{
	struct nic *nic = arg;
	const struct rte_memseg_list *list = rte_mem_virt2memseg_list(chunk->addr);
	struct rte_memseg *segment;
	struct nic_region region;
	uint8_t *end;
	size_t offset;
	int fd;

	if (list == NULL || (segment = rte_mem_virt2memseg(chunk->addr, list)) == NULL)
		return;
	fd = rte_memseg_get_fd(segment);
	if (fd < 0 || rte_memseg_get_fd_offset(segment, &offset) != 0)
		return;
	region = (struct nic_region){
	        .fd = fd, .fd_offset = offset, .base = segment->addr, .page_size = list->page_sz};
	end = RTE_PTR_ALIGN_CEIL((uint8_t *)chunk->addr + chunk->len, list->page_sz);
	region.size = (uint64_t)(end - region.base);
	for (uint32_t i = 0; i < nic->region_count; i++) {
		struct nic_region *other = &nic->regions[i];
		uint8_t *other_end = other->base + other->size;

		if (other->fd != fd)
			continue;
		if (region.base < other->base) {
			other->base = region.base;
			other->fd_offset = region.fd_offset;
		}
		other->size = (uint64_t)(RTE_MAX(end, other_end) - other->base);
		return;
	}
	if (nic->region_count < NIC_REGION_MAX)
		nic->regions[nic->region_count++] = region;
}

int pool_regions(struct nic *nic, char *err, size_t err_size)
{
	nic->region_count = 0;
	rte_mempool_mem_iter(nic->pool, chunk_add, nic);
	if (nic->region_count == 0)
		return nic_fail(err, err_size, -ENOTSUP, "packet memory has no file descriptor to share");
	for (uint32_t i = 0; i < nic->region_count; i++) {
		struct nic_region *region = &nic->regions[i];
		char path[32];
		int fd;

		/* Others get a descriptor that cannot be mapped writable; the mode keeps unprivileged ones
		 * from opening the file anew through /proc. */
		fchmod(region->fd, S_IRUSR | S_IWUSR);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", region->fd);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			int code = -errno;

			nic->region_count = i;
			pool_regions_close(nic);
			return nic_fail(err, err_size, code, "cannot reopen packet memory read-only: %s",
			        rte_strerror(-code));
		}
		region->fd = fd;
		nic->region_map[i] = (struct nic_region_map){(uintptr_t)region->base, region->size};
	}
	return 0;
}

void pool_regions_close(struct nic *nic)
{
	for (uint32_t i = 0; i < nic->region_count; i++)
		close(nic->regions[i].fd);
	nic->region_count = 0;
}

uint32_t nic_regions(struct nic *nic, struct nic_region *regions, uint32_t max)
{
	uint32_t count = RTE_MIN(nic->region_count, max);

	for (uint32_t i = 0; i < count; i++)
		regions[i] = nic->regions[i];
	return count;
}
