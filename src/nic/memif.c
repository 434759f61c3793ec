/* memif.c - the receive interrupt of a memif link, for sleeping.
 *
 * Queue's thread, but for memif_wait_open and _close. The driver keeps the interrupt masked for ever, has no
 * call to unmask it and does not tell its eventfd. Both are part of memif's protocol, not of the driver: one
 * bit in the header of the receive ring, which lies in memory that both sides share, and an eventfd that came
 * with the ring. So, whenever a peer has come: the ring is found in the memory file of the link (mapped anew,
 * as the driver unmaps its own when the peer goes), the eventfd among what the queue points to (duplicated,
 * for the same reason), and one trial shows whether they belong together. Without them the stack naps.
 *
 * When the peer goes, the driver unmaps the link from DPDK's interrupt thread, whatever the queue's thread is
 * doing in there. It first notes that there is no peer, which receive and transmit calls look at when they
 * begin. So that thread's munmap waits until a call that was under way is over (nic_unmapping). The queue's
 * thread pays a store for that: the fence between it and its look is the other side's, by membarrier(2).
 *
 * A peer stores its frame, then looks at the bit; we clear the bit, then look for frames. Its store may
 * become visible after its look, as it has no fence between. So the first sleep after traffic is a short one.
 */
#define ALLOW_EXPERIMENTAL_API /* rte_intr_fd_get, rte_intr_type_get: as such until DPDK 23 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rte_interrupts.h>
#include <rte_memory.h>

#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

enum {
	COOKIE = 0x3e31f20,
	MASKED = 1,
	RING_HEADER = 128, /* then the descriptors, 16 bytes each */
	DESCRIPTOR = 16,
	LOG2_MAX = 14,    /* rings hold up to 2^14 descriptors */
	QUEUE_WORDS = 16, /* of the driver's queue, looked through for its interrupt */
	TRIALS = 3,
	LIMIT_FIRST_US = 1000,
	LIMIT_US = 100000, /* the link is looked at ten times a second */
	LIMIT_DOWN_US = 20000,
};

/* The header of a ring (memif protocol 2.0). */
struct ring_header {
	uint32_t cookie;
	_Atomic uint16_t flags;
};

static void forget(struct nic_queue *q)
{
	struct memif_wait *w = &q->memif;

	if (w->flags != NULL)
		munmap(w->map, w->map_size);
	if (w->intr_fd >= 0) {
		/* a process forked a moment ago may have it open, too (mode = inline) */
		epoll_ctl(q->wait_fd, EPOLL_CTL_DEL, w->intr_fd, NULL);
		close(w->intr_fd);
	}
	w->flags = NULL;
	w->intr_fd = -1;
}

/* The memory file of the link: a descriptor of the driver's, or -1. */
static int region_find(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	if (dir == NULL)
		return -1;
	while (found < 0 && (entry = readdir(dir)) != NULL) {
		char target[64];
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strncmp(target, "/memfd:memif", 12) == 0)
			found = atoi(entry->d_name);
	}
	closedir(dir);
	return found;
}

/* Maps the two rings, which lie one behind the other at the start of the region, and finds the one that we
 * receive from: the first is the client's to send. */
static bool ring_find(struct memif_wait *w, bool is_client)
{
	struct stat st;
	uint8_t *base;

	w->region_fd = region_find();
	if (w->region_fd < 0 || fstat(w->region_fd, &st) < 0)
		return false;
	w->region_ino = st.st_ino;
	w->map_size = RTE_MIN((size_t)st.st_size, (size_t)2 * (RING_HEADER + (DESCRIPTOR << LOG2_MAX)));
	base = mmap(NULL, w->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, w->region_fd, 0);
	if (base == MAP_FAILED)
		return false;
	for (int log2 = 1; log2 <= LOG2_MAX; log2++) {
		size_t size = RING_HEADER + ((size_t)DESCRIPTOR << log2);
		struct ring_header *first = (void *)base, *second = (void *)(base + size);

		if (size + RING_HEADER > w->map_size || first->cookie != COOKIE || second->cookie != COOKIE)
			continue;
		w->map = base;
		w->flags = is_client ? &second->flags : &first->flags;
		return true;
	}
	munmap(base, w->map_size);
	return false;
}

/* The trial: with the bit cleared, a receive call takes the eventfd's count away. */
static bool belongs(struct nic_queue *q, int fd)
{
	struct memif_wait *w = &q->memif;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	const uint64_t one = 1;
	struct rte_mbuf *none[1];
	bool is_ours = false;

	for (int i = 0; i < TRIALS && !is_ours; i++) {
		if (write(fd, &one, sizeof(one)) != sizeof(one))
			return false;
		atomic_store(w->flags, 0);
		memif_enter(q);
		rte_eth_rx_burst(q->port, q->hw, none, 0);
		memif_leave(q);
		atomic_store(w->flags, MASKED);
		is_ours = poll(&p, 1, 0) == 0; /* a peer that just sent makes it readable again */
	}
	return is_ours;
}

/* Whether a word may be the address of something that DPDK has allocated. Counters and offsets look like
 * addresses of its reserved, unmapped memory, too. */
static bool is_dpdk_memory(const void *p)
{
	const struct rte_memseg *ms =
	        p != NULL && ((uintptr_t)p & 7) == 0 ? rte_mem_virt2memseg(p, NULL) : NULL;

	return ms != NULL && ms->addr != NULL && ms->len != 0;
}

/* The interrupt's eventfd, found through the handle that the driver's queue points to. */
static int eventfd_find(struct nic_queue *q)
{
	void *const *queue = rte_eth_fp_ops[q->port].rxq.data[q->hw];
	char path[40], target[32];

	for (int i = 0; i < QUEUE_WORDS; i++) {
		const void *p = queue[i];
		ssize_t n;
		int fd;

		if (!is_dpdk_memory(p) || rte_intr_type_get(p) != RTE_INTR_HANDLE_EXT)
			continue;
		fd = rte_intr_fd_get(p);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = fd > 2 ? readlink(path, target, sizeof(target) - 1) : -1;
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strcmp(target, "anon_inode:[eventfd]") == 0 && belongs(q, fd))
			return fd;
	}
	return -1;
}

static void find(struct nic_queue *q)
{
	struct memif_wait *w = &q->memif;
	struct epoll_event ev = {.events = EPOLLIN};
	int fd;

	if (!ring_find(w, w->is_client))
		return;
	fd = eventfd_find(q);
	if (fd >= 0)
		w->intr_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (w->intr_fd >= 0 && epoll_ctl(q->wait_fd, EPOLL_CTL_ADD, w->intr_fd, &ev) == 0)
		return;
	forget(q);
}

void memif_wait_link(struct nic_queue *q, bool is_up)
{
	struct memif_wait *w = &q->memif;
	struct stat st;

	/* another peer may have come between two looks */
	if (w->flags != NULL && (!is_up || fstat(w->region_fd, &st) < 0 || st.st_ino != w->region_ino))
		forget(q);
	if (is_up && !w->flags && (!w->is_up || !w->has_tried)) {
		find(q);
		w->has_tried = true;
		if (!w->flags)
			log_notice("%s: no receive interrupt: an idle stack naps", q->nic->info.name);
	}
	if (!is_up)
		w->has_tried = false;
	w->is_up = is_up;
}

void memif_wait_arm(struct nic_queue *q, bool on)
{
	struct memif_wait *w = &q->memif;
	uint64_t count;

	if (w->flags == NULL)
		return;
	if (on) {
		atomic_store(w->flags, 0);
		w->limit_us = q->stats.rx_packets == w->rx_seen ? LIMIT_US : LIMIT_FIRST_US;
		w->rx_seen = q->stats.rx_packets;
	} else {
		atomic_store_explicit(w->flags, MASKED, memory_order_relaxed);
		(void)!read(w->intr_fd, &count, sizeof(count));
	}
}

uint32_t memif_wait_limit_us(const struct nic_queue *q)
{
	return q->memif.flags != NULL ? q->memif.limit_us : q->memif.is_up ? 0 : LIMIT_DOWN_US;
}

/* The queue of this process's memif. */
static _Atomic(struct nic_queue *) memif_queue;

void nic_unmapping(void)
{
	struct nic_queue *q = atomic_load_explicit(&memif_queue, memory_order_acquire);

	if (q == NULL || !rte_thread_is_intr())
		return;
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	while (atomic_load_explicit(&q->in_driver, memory_order_acquire))
		sched_yield();
}

/* The C library's, for the whole service. Where the engine is a library in an application, that one's own
 * munmap is libpronk.so's, which asks nic_unmapping, too. */
int munmap(void *addr, size_t size)
{
	nic_unmapping();
	return (int)syscall(SYS_munmap, addr, size);
}

int memif_wait_open(struct nic_queue *q, bool is_client)
{
	q->must_fence = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0;
	q->memif = (struct memif_wait){.intr_fd = -1, .is_client = is_client};
	q->wait_fd = epoll_create1(EPOLL_CLOEXEC);
	if (q->wait_fd < 0)
		return -errno;
	atomic_store(&memif_queue, q);
	return 0;
}

void memif_wait_close(struct nic_queue *q)
{
	atomic_store(&memif_queue, NULL);
	forget(q);
	if (q->wait_fd >= 0)
		close(q->wait_fd);
	q->wait_fd = -1;
}
