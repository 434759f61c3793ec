/* nic_int.h - what the files of src/nic share: the port, its queues, and who calls whom.
 *
 *	eal.c     DPDK's environment: arguments, memory mode, messages      control thread
 *	secondary.c what DPDK's own capture tools need                      control thread
 *	device.c  kinds of device: option text, kernel side, vdev arguments control thread
 *	kernel.c  the kernel's view of an interface (nic_kernel.h)          control thread
 *	pool.c    the buffer pool and its shareable regions                 control thread
 *	port.c    nic_open and nic_close                                    control thread
 *	report.c  what a port tells of itself, for tools                  control thread
 *	wait.c    descriptors to sleep on                                   control thread, queue's thread
 *	memif.c   the receive interrupt of a memif link                     queue's thread
 *	intr.c    a driver's callbacks, where the process may go on as a copy  its own thread
 *	rss.c     Toeplitz hash, owner of a 4-tuple                         any thread, pure
 *	cksum.c   checksums of one frame                                    queue's thread
 *	chain.c   frames of several buffers, lent memory                    queue's thread
 *	capture.c copies for those who capture packets                      control thread, queue's thread
 *	inject.c  faults made on purpose (nic_inject.h)                     queue's thread
 *	queue.c   receive, transmit, hand-off: the hot file                 queue's thread
 */
#pragma once
#include <stdatomic.h>
#include <netinet/in.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

#include "cfg.h"
#include "compiler.h"
#include "nic.h"

enum {
	NIC_BURST = 32,            /* frames taken from or given to the port at a time */
	NIC_HANDOFF_SIZE = 4096,   /* slots of a stack's ring of handed-over frames */
	NIC_TX_SHARED_SIZE = 2048, /* slots of a hardware queue's ring of other stacks' frames */
	NIC_TX_BACKLOG = 1024,     /* frames that wait for a full port before more are dropped */
	NIC_TX_TRIES = 8,          /* bursts offered to a full port before frames are dropped */
	NIC_DATA_ROOM = 2048,      /* smallest data room behind the headroom */
	NIC_CHAIN_MAX = 32,        /* buffers of a received frame */
	/* One buffer of a memif ring, so the longest frame. DPDK 22.11 cannot send one in several (it leaves
	 * the flag that says so in the ring). An odd number of cache lines, so that the first lines of all
	 * buffers do not fall into the same sets. */
	MEMIF_BUFFER = 61504,
	/* A ring of long frames goes through all of its memory. One stream of iperf3 in one quiet run: 45,
	 * 48, 52 Gbit/s with 256, 33, 39, 41 with 1024, 35, 37, 38 with 64; in a disturbed one 128, 256 and
	 * 512 could not be told apart. */
	MEMIF_RING_MAX = 256,
	RSS_TABLE_SIZE = 128,
	RSS_KEY_SIZE = 52, /* the longest key a port wants; most take the first 40 bytes */
	RSS_TUPLE_MAX = 36,
};

/* ---- rss.c ---- */

/* The hash as a table of nibbles: constant after rss_init. */
struct rss {
	uint32_t nibble[2 * RSS_TUPLE_MAX][16];
	uint8_t stack[RSS_TABLE_SIZE]; /* hash's low bits -> stack */
};

extern const uint8_t rss_key[RSS_KEY_SIZE];

/* Prepares the tables for stack_count stacks; period (a power of two, at most RSS_TABLE_SIZE) is the port's
 * own indirection table size where that is smaller. */
void rss_init(struct rss *rss, uint32_t stack_count, uint32_t period);

/* Feeds size bytes that stand at byte offset at of the tuple into hash. */
static inline uint32_t rss_feed(
        const struct rss *rss, uint32_t hash, uint32_t at, const uint8_t *p, uint32_t size)
{
	const uint32_t(*row)[16] = &rss->nibble[2 * at];

	for (uint32_t i = 0; i < size; i++)
		hash ^= row[2 * i][p[i] >> 4] ^ row[2 * i + 1][p[i] & 15];
	return hash;
}

static inline uint32_t rss_stack(const struct rss *rss, uint32_t hash)
{
	return rss->stack[hash & (RSS_TABLE_SIZE - 1)];
}

/* ---- the port ---- */

/* A port's device option, taken apart (device.c). The last two exist for the unit tests only. */
enum device_kind {
	DEVICE_TAP,
	DEVICE_AFPACKET,
	DEVICE_AFXDP,
	DEVICE_MEMIF,
	DEVICE_PCI,
	DEVICE_NULL, /* null: receives nothing, swallows everything */
	DEVICE_RING, /* ring: what is sent comes back */
};

struct device {
	enum device_kind kind;
	char arg[112]; /* interface, socket path or PCI address */
	uint32_t memif_id;

	/* found or changed on the kernel's side by device_prepare; undone by device_restore */
	bool has_mac;
	uint8_t mac[6];
	uint32_t mtu;           /* of the kernel interface; 0 when there is none */
	uint32_t queues_before; /* afxdp: the interface's before it was given ours; 0: not changed */
	bool gro_was_on;        /* afpacket: switched off while we receive */
	int veth_link;          /* afpacket on a veth: BPF link that calms the peer, + 1; 0: none */
	bool promiscuous, was_promiscuous; /* must be; was before */
	bool all_multicast;                /* set by us */
	bool created;                      /* the kernel interface is ours (TAP) */
};

struct nic_region_map {
	uintptr_t base;
	uint64_t size;
};

/* memif.c; queue's thread. */
struct memif_wait {
	_Atomic uint16_t *flags; /* of the receive ring, in our own mapping; NULL: no interrupt to wait for */
	void *map;
	size_t map_size;
	int intr_fd;   /* its eventfd, our own number */
	int region_fd; /* the driver's, to see whether the link is still the same */
	uint64_t region_ino;
	uint64_t rx_seen;
	uint32_t limit_us;
	bool is_client, is_up, has_tried;
};

struct nic_queue {
	/* constant after nic_open */
	struct nic *nic;
	_Atomic uint32_t captures; /* control thread: a bit for each that this queue is part of */
	struct rte_mempool *pool;
	uint32_t stack_idx;
	uint32_t stack_count;
	uint16_t port;
	uint16_t hw;          /* hardware queue this stack sends through */
	bool has_hw;          /* hw is this stack's own: it receives from it and drains tx_shared */
	bool link_polled;     /* memif: the queue's thread looks whether the peer is there */
	bool link_started;    /* ... and starts the port when it comes */
	uint64_t tx_flags_ip; /* RTE_MBUF_F_TX_... that the port does; 0: software */
	uint64_t tx_flags_tcp, tx_flags_udp;
	uint32_t frame_max; /* longest frame the port takes */
	uint32_t frame_big; /* ... for a peer with our link tag; 0: such are not known here */
	struct rte_mbuf_ext_shared_info *lent; /* chain.c */
	struct rte_ring *handoff;              /* any stack -> this stack: received frames */
	struct rte_ring *tx_shared;            /* stacks without a hardware queue -> this stack, or NULL */
	struct rte_ring *tx_via; /* where this stack puts frames when it has no hardware queue */
	uint32_t tx_via_stack;   /* ... and whom to wake */

	/* queue's thread */
	uint32_t room_left;              /* bursts until the pool's level is looked at again */
	struct rte_mempool_cache *cache; /* its buffers beside the pool; NULL until its first nic_rx */
	uint32_t tx_count;
	uint32_t tx_left;      /* of these, those that the port has refused before */
	uint32_t local_woken;  /* stacks that nic_local gave frames to since the last flush */
	bool up;               /* the port may be called */
	uint8_t link_patience; /* looks in a row that saw no link */
	uint64_t link_next_tsc;
	struct inject *inject;               /* faults to be made; NULL: none */
	uint64_t timed_ns;                   /* since when the times of frames are noted; 0: they are not */
	struct rte_mbuf *tx[NIC_TX_BACKLOG]; /* the first tx_count wait for the port */
	struct nic_queue_stats stats;

	/* wait.c: constant after nic_open */
	int wait_fd;    /* -1: none */
	bool wait_intr; /* an RX interrupt that must be armed */
	struct memif_wait memif;
	bool must_fence;            /* memif: no membarrier(2) here */
	_Atomic uint32_t in_driver; /* memif: a receive or transmit call is under way */
} CACHE_ALIGNED;

struct nic {
	/* constant after nic_open */
	struct rss rss;
	struct nic_queue queues[NIC_STACK_MAX];
	struct nic_region_map region_map[NIC_REGION_MAX];
	uint32_t region_count;
	uint32_t stack_count;
	uint16_t port;
	uint16_t hw_count;
	uint16_t rx_ring, tx_ring; /* descriptors of each queue */
	uint64_t rx_offloads, tx_offloads;
	bool rss_hw;
	bool accept_partial;
	void (*wake)(void *arg, uint32_t stack_idx);
	void *wake_arg;
	struct rte_mempool *pool;
	struct nic_info info;
	_Atomic uint64_t link_tag; /* the thread that starts the port writes it */

	/* control thread */
	struct device device;
	struct nic_region regions[NIC_REGION_MAX];
	bool has_port, started, eal_up;
	char vdev[32]; /* name of the virtual device, to remove it */
	int time_off;  /* of a frame's time in its buffer; -1: there is no room for it */
	int never_fd;  /* an eventfd nobody signals: what a stack without a hardware queue waits on */

	struct nic_capture *capture[NIC_CAPTURE_MAX]; /* capture.c */

	/* any queue's thread, once */
	atomic_bool partial_seen, cut_seen;
};

/* One line into err, as snprintf. Returns code, so that a failing function ends in one statement. */
int nic_fail(char *err, size_t err_size, int code, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* ---- eal.c ---- */

/* Starts DPDK for one device. memory is the bytes that it will take (pages_packet_bytes); that decides
 * between hugepages and plain pages. Once per process, also after a failure. 0 or -E with err. */
int eal_start(
        const struct cfg *cfg, const struct device *device, uint64_t memory, char *err, size_t err_size);
void eal_stop(void);
/* The first complaint of DPDK since the last eal_listen, for error texts; "" if none. Control thread. */
void eal_listen(void);
const char *eal_complaint(void);
/* The port is up: what DPDK says from now on is about its operation. */
void eal_ready(void);

/* ---- secondary.c: option dpdk_capture ---- */

/* Removes what a killed service of this name left for DPDK's other processes. Before eal_start. 0 or -E with
 * err. */
int secondary_prepare(const struct cfg *cfg, char *err, size_t err_size);
/* When the port is up: other processes may ask for packets. 0 or -E with err. */
int secondary_serve(char *err, size_t err_size);
/* The calling thread becomes one that the driver library knows, in a way that leaves room for other
 * processes. False: they are not wanted, do it the usual way. Each stack's thread. */
bool secondary_thread(void);
/* They get no more. Before the port is closed, and nothing calls it any longer. */
void secondary_hang_up(void);
/* Removes the files. After eal_stop. */
void secondary_end(void);

/* ---- device.c ---- */

int device_parse(struct device *device, const char *text, char *err, size_t err_size);
/* Looks at the kernel interface and makes it usable. Before the port exists; device_restore undoes it, also
 * after a failure. */
int device_prepare(
        struct device *device, const struct cfg *cfg, uint32_t stack_count, char *err, size_t err_size);
/* The driver's name and arguments for a virtual device. Both empty for PCI. */
void device_vdev(const struct device *device, const struct cfg *cfg, uint32_t queues, char *name,
        size_t name_size, char *args, size_t args_size);
/* Number of hardware queue pairs to ask for, before the driver's own limit. */
uint32_t device_queues(const struct device *device, uint32_t stack_count);
/* Keeps what a driver's libraries print out of stderr. When the EAL is up. */
void device_libraries_quiet(const struct device *device);
/* After the port's queues exist and before it starts. */
int device_before_start(struct device *device, char *err, size_t err_size);
/* After the port started: addresses of a TAP's kernel end, promiscuous mode. */
int device_after_start(struct device *device, const struct cfg *cfg, char *err, size_t err_size);
/* nic_link_tag for a port that is up: of its socket's file, which both ends see. Also the queue's thread. */
uint64_t device_link_tag(const struct device *device, uint32_t memif_id);
/* Undoes what prepare changed in an interface that is not ours. */
void device_restore(struct device *device);
static inline bool device_is_virtual(const struct device *device)
{
	return device->kind != DEVICE_PCI;
}

/* ---- kernel.c: one interface by name; 0 (or the value) or -E ---- */

/* Sets and clears flags such as IFF_UP. */
int kernel_if_flags(const char *name, unsigned set, unsigned clear);
bool kernel_if_has_flag(const char *name, unsigned flag);
int kernel_if_mac(const char *name, uint8_t mac[6]);
int kernel_if_mtu(const char *name);
/* The frames that the kernel keeps for this interface (txqueuelen). 0 or -E. */
int kernel_if_set_queue(const char *name, unsigned frames);
int kernel_if_set_address(const char *name, const uint8_t addr[4], unsigned prefix);
/* Its queues now: combined ones, or receive-only ones where it has no combined; 1 when it does not say. */
uint32_t kernel_if_queues(const char *name, bool *combined);
/* Changes the number that kernel_if_queues tells. */
int kernel_if_set_queues(const char *name, uint32_t count);
/* Merging of received segments: returns 1 when it was on, 0 when off. */
int kernel_if_gro(const char *name, bool on);

/* Whether the interface's driver has this name. Control thread. */
bool kernel_if_is_driver(const char *name, const char *driver);

/* Keeps the peer of a veth from sending merged segments, until the returned BPF link is closed. -ENOTSUP for
 * other interfaces, or -E. Control thread. */
int veth_calm_peer(const char *name);

/* ---- pool.c ---- */

struct rte_mempool *pool_create(
        const struct device *device, uint32_t count, uint32_t mtu, int numa_node, char *err, size_t err_size);
/* Fills nic->regions and nic->region_map from nic->pool. */
int pool_regions(struct nic *nic, char *err, size_t err_size);
void pool_regions_close(struct nic *nic);

/* ---- wait.c ---- */

enum { WAIT_FD_MAX = 256 };

/* Descriptors of this process, to tell what a driver call opened. */
struct wait_fds {
	uint32_t count;
	int fd[WAIT_FD_MAX];
};

void wait_snapshot(struct wait_fds *fds);
/* Finds the driver's descriptor among those opened since before, skipping the first skip of that kind; -1 if
 * none. */
int wait_find(enum device_kind kind, const struct wait_fds *before, uint32_t skip);
/* Prepares an AF_PACKET socket: frames that the kernel sends out do not come in. */
void wait_filter_outgoing(int fd);

/* ---- memif.c ---- */

/* Makes the descriptor that the queue's stack waits on: an epoll set, which gets the link's eventfd while a
 * peer is there. 0 or -E. Control thread, as is memif_wait_close. */
int memif_wait_open(struct nic_queue *q, bool is_client);
void memif_wait_close(struct nic_queue *q);
/* The link was looked at. Queue's thread. */
void memif_wait_link(struct nic_queue *q, bool is_up);
/* Around a receive or transmit call of a memif; queue's thread. */
static inline void memif_enter(struct nic_queue *q)
{
	if (!q->link_polled)
		return;
	atomic_store_explicit(&q->in_driver, 1, memory_order_relaxed);
	if (unlikely(q->must_fence))
		atomic_thread_fence(memory_order_seq_cst);
	else
		atomic_signal_fence(memory_order_seq_cst);
}
static inline void memif_leave(struct nic_queue *q)
{
	if (q->link_polled)
		atomic_store_explicit(&q->in_driver, 0, memory_order_release);
}
/* As nic_wait_arm, nic_wait_limit_us. */
void memif_wait_arm(struct nic_queue *q, bool on);
uint32_t memif_wait_limit_us(const struct nic_queue *q);

/* ---- inject.c: for a queue with faults to be made (q->inject); queue's thread ---- */

/* Passes count received frames, m having room for max. How many there are then: some of them may be others,
 * that have waited. */
uint32_t inject_rx(struct nic_queue *q, struct rte_mbuf **m, uint32_t count, uint32_t max);
/* Passes a frame to be sent: false, it is not to go on now, and inject.c's. */
bool inject_tx(struct nic_queue *q, struct rte_mbuf *m);
/* Adds frames whose time has come to those that wait for the port. */
void inject_tx_due(struct nic_queue *q);
/* Microseconds until the next one's time has come. */
uint32_t inject_wait_us(const struct nic_queue *q);
/* Frees what waits. Control thread, when the queue's has ended; also for a queue without. */
void inject_close(struct nic_queue *q);

/* ---- intr.c ---- */

/* From now on net_memif's interrupt callbacks run in a thread of ours. When its library is loaded and before
 * the device is made. 0, or -ENOTSUP: the driver is linked in another way. */
int intr_own(void);
/* Ends the thread. When the device is gone. */
void intr_disown(void);
/* fork(2): no callback is under way in the copy; intr_fork_child, in it, lets them run again. */
void intr_fork_prepare(void);
void intr_fork_parent(void);
int intr_fork_child(void);

/* ---- capture.c ---- */

/* Hands copies of a burst to every capture that the queue is part of. Queue's thread. */
void capture_burst(struct nic_queue *q, struct rte_mbuf **m, uint32_t count, uint32_t direction);
static inline bool capture_is_on(const struct nic_queue *q)
{
	return atomic_load_explicit(&q->captures, memory_order_relaxed) != 0;
}

/* ---- cksum.c ---- */

enum cksum_result { CKSUM_OK, CKSUM_UNCHECKED, CKSUM_BAD, CKSUM_SHORT, CKSUM_PARTIAL };

/* What the receive path must know of a frame. */
struct frame_info {
	enum cksum_result result;
	bool arp_like;  /* every stack must see it: ARP, IPv6 neighbour discovery */
	bool has_owner; /* the tuple fields are set */
	bool fragment;
	uint8_t addr_size;    /* 4 or 16 */
	uint8_t l4_proto;     /* with ports */
	const uint8_t *addrs; /* source, destination */
	const uint8_t *ports; /* source, destination; NULL: the 2-tuple decides */
};

/* Beside the port's flags: a checksum field that holds the pseudo header's sum is believed without a look at
 * the rest. */
#define CKSUM_PARTIAL_FIRST (1ull << 63)

/* Parses and verifies one received frame of size bytes; rx_flags are the mbuf's ol_flags. Pure. */
void cksum_rx(const uint8_t *data, uint32_t size, uint64_t rx_flags, struct frame_info *info);
/* The same for a frame of several buffers: IPv4 with TCP or UDP, or CKSUM_SHORT. */
void cksum_rx_chain(const struct rte_mbuf *m, struct frame_info *info);
/* The IPv4 checksum, and the pseudo header's sum in place of TCP's or UDP's. size is that of the first
 * buffer. */
void cksum_tx_near(uint8_t *data, uint32_t size);
/* Fills the checksums of a frame about to be sent, or asks the port to (flags in the mbuf). */
void cksum_tx(const struct nic_queue *q, struct rte_mbuf *m, uint8_t *data, uint32_t size);
/* Say once what was seen. */
void cksum_tell_partial(struct nic *nic);
void cksum_tell_cut(struct nic *nic);
