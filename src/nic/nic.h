/* nic.h - the network port as the stacks see it: queues of frames, no DPDK names.
 *
 * One struct nic is one DPDK port (or its fake in the wire tests). It has one struct nic_queue per stack
 * thread. A queue and every buffer taken from it belong to that thread, except where a function says
 * otherwise. All lengths are bytes, addresses are in network byte order, and ports in host byte order.
 *
 * Steering: a TCP or UDP frame always comes out of the queue of the stack that owns its 4-tuple (nic_owner).
 * The port's RSS does that where it can be programmed with our key; otherwise the queue that received the
 * frame hands it to the owner through a ring (software RSS, same Toeplitz hash) and calls the wake hook. ARP
 * frames come out of every queue (copies), so that every stack learns neighbours. Other frames stay with the
 * queue that received them.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nic_inject.h"

struct capture_spec;
struct cfg;
struct nic;
struct nic_queue;
struct nic_buf; /* one packet buffer; opaque outside src/nic */

enum {
	NIC_STACK_MAX = 16,        /* queue pairs of one port */
	NIC_PRIV_SIZE = 64,        /* bytes per buffer that the stack may use while it holds the buffer */
	NIC_REGION_MAX = 32,       /* packet memory regions a port may span */
	NIC_CAPTURE_MAX = 8,       /* captures at a time */
	NIC_HEADROOM = 128,        /* bytes free in front of the data of a fresh buffer */
	NIC_UDP_NO_CKSUM = 0xffff, /* in a UDP header's checksum: it is to leave without one */
};

#define NIC_COPY UINT32_MAX /* nic_buf_add: the memory is nobody's to lend */

/* nic_frame.flags */
enum {
	/* The TCP/UDP checksum was not checked (fragment, IPv6 extension headers): whoever goes on must. */
	NIC_FRAME_L4_UNCHECKED = 1 << 0,
	/* Another stack's nic_local gave it: no wire has seen it, its Ethernet header means nothing. */
	NIC_FRAME_LOCAL = 1 << 1,
	/* It goes on in further buffers (nic_buf_rest); the headers are in the first. */
	NIC_FRAME_CHAIN = 1 << 2,
};

/* One received frame, handed to the stack with its buffer. */
struct nic_frame {
	struct nic_buf *buf;
	uint8_t *data; /* Ethernet header; contiguous */
	void *priv;    /* NIC_PRIV_SIZE bytes inside the buffer, 8-byte aligned */
	uint16_t size;
	uint16_t flags;
};

/* Where packet memory lies, for mapping it into client processes (read-only there). */
struct nic_region {
	int fd;             /* memfd or hugetlbfs file; owned by the nic */
	uint64_t fd_offset; /* where in fd the region starts (page aligned for that fd) */
	uint64_t size;
	uint8_t *base; /* address in this process */
	uint64_t page_size;
};

struct nic_info {
	char driver[32];
	char name[64];
	uint8_t mac[6];
	uint16_t mtu;
	uint16_t queue_count; /* hardware queue pairs in use (may be fewer than stacks) */
	bool rss_hw;          /* the port's RSS puts frames on their owner's queue */
	bool tx_l4_cksum, tx_ip_cksum, rx_l4_cksum, rx_ip_cksum; /* done by the port; software otherwise */
	bool link_up;
	int numa_node;
	uint32_t frame_big; /* longest frame to a peer with our nic_link_tag, header included; 0: none is
	                       longer than others */
};

/* The counters a queue keeps. Written by the queue's thread only; others may read them at any time. */
struct nic_queue_stats {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	uint64_t rx_handoff;        /* frames given to another stack's ring (software RSS) */
	uint64_t rx_handoff_in;     /* frames taken from our ring */
	uint64_t rx_partial_cksum;  /* frames of a local peer that leaves the checksum to an offload; accepted
	                             */
	uint64_t drop_rx_cksum;     /* bad IPv4, TCP or UDP checksum */
	uint64_t drop_rx_short;     /* frame shorter than its own headers say */
	uint64_t drop_handoff_full; /* owner's ring was full */
	uint64_t drop_tx_full;      /* the port took no more frames */
	uint64_t drop_tx_nobuf;     /* no buffer for an outgoing frame */
	uint64_t bad_cksum_ip, bad_cksum_tcp, bad_cksum_udp; /* of which header; drop_rx_cksum has all */
	uint64_t rx_polls, rx_empty_polls;
	uint64_t rx_full_polls; /* looks that found as much as the caller takes */
	struct nic_inject_stats inject_rx, inject_tx;
};

/* Brings up EAL and the port named by cfg->device with one queue pair (or software queue) per stack.
 * wake(wake_arg, stack_idx) is called from any queue's thread after a frame was put into stack_idx's ring; it
 * must be cheap and safe from any thread. Control thread; blocks; call once per process. Returns 0 and *out,
 * or -E with a one-line reason in err (never exits the process). */
int nic_open(struct nic **out, const struct cfg *cfg, uint32_t stack_count,
        void (*wake)(void *arg, uint32_t stack_idx), void *wake_arg, char *err, size_t err_size);

/* Stops the port, frees its memory and removes what nic_open created (TAP, XDP program). Accepts NULL.
 * Control thread, after all stack threads have ended. */
void nic_close(struct nic *nic);

/* Facts about the port; link_up is read anew. Any thread. */
void nic_info_get(struct nic *nic, struct nic_info *info);

/* Packet memory regions, in index order; their index is the region part of nic_addr. Returns the count (<=
 * max). The descriptors are read-only: a process that receives one can map it for reading only. Control
 * thread. */
uint32_t nic_regions(struct nic *nic, struct nic_region *regions, uint32_t max);

/* The queue of a stack. Any thread; the result is constant. */
struct nic_queue *nic_queue_get(struct nic *nic, uint32_t stack_idx);

/* Makes the calling thread known to the driver library. Must be the first nic call of each stack thread. 0 or
 * -E. */
int nic_thread_attach(void);
void nic_thread_detach(void);
/* For a stack that several threads run in turn, never two at a time: the calling thread is from now on the
 * one that called nic_open, as far as the driver library can tell. */
void nic_thread_act(void);
/* Called around work in which a driver opens and closes descriptors, in whatever thread (it may be NULL). Set
 * before nic_open. */
extern void (*nic_around_descriptors)(bool begins);

/* For a process that may go on as a copy of itself (fork), the original ending. nic_may_fork: set before
 * nic_open. nic_fork_prepare, with no turn under way: nothing of the port's is half done in the copy; then
 * nic_fork_parent in the original and, in the copy, nic_fork_child: 0, or -E when the port's link cannot be
 * watched there. */
extern bool nic_may_fork;
void nic_fork_prepare(void);
void nic_fork_parent(void);
int nic_fork_child(void);
/* Called around a driver's work in a thread of the port's own (nic_may_fork; it may be NULL): no turn of a
 * stack shall run then, and descriptors come and go. */
extern void (*nic_around_interrupts)(bool begins);

/* Takes up to max received frames for this stack: handed-over ones first, then the port's. Checks (or lets
 * the port check) IPv4/TCP/UDP checksums; frames that fail are dropped and counted. Never blocks. Queue's
 * thread. */
uint32_t nic_rx(struct nic_queue *q, struct nic_frame *frames, uint32_t max);

/* From now on the queue notes when it takes frames from the port (CLOCK_MONOTONIC; on), or does not any more.
 * Queue's thread. */
void nic_time(struct nic_queue *q, bool on);
/* When a frame that nic_rx has given was taken from the port, by whatever queue; 0: that was not noted.
 * Queue's thread. */
uint64_t nic_frame_ns(const struct nic_queue *q, const struct nic_frame *frame);

/* Frees a buffer (received or allocated). A buffer may be freed by a thread other than the one that took it.
 */
void nic_buf_free(struct nic_buf *buf);

/* The bytes a buffer can hold from data to the end of its room. */
uint32_t nic_buf_room(const struct nic_buf *buf, const uint8_t *data);

/* The bytes that lie in front of data in its buffer. */
uint32_t nic_buf_front(const struct nic_buf *buf, const uint8_t *data);

/* The bytes of a buffer that the stack may use while it holds it: nic_frame.priv. */
void *nic_buf_priv(struct nic_buf *buf);

/* An empty buffer for sending or for gathering small received pieces; *data points NIC_HEADROOM bytes in,
 * *priv as in nic_frame (may be NULL if not wanted). At least 2,048 bytes from *data. NULL when there is none
 * (counted). Queue's thread. */
struct nic_buf *nic_buf_alloc(struct nic_queue *q, uint8_t **data, void **priv);

/* Queues one Ethernet frame of size bytes starting at data (inside buf, which is consumed). Frames that are
 * IPv4, and TCP or UDP in it, get their checksums here: by the port where it can, otherwise in software; the
 * fields may hold anything (but see NIC_UDP_NO_CKSUM). Of a fragment only the IPv4 header's is made; TCP's or
 * UDP's must have been made before the cut. The frame leaves with nic_tx_flush or when a burst is full.
 * Queue's thread; never blocks; what the port refuses is counted and freed. */
void nic_tx(struct nic_queue *q, struct nic_buf *buf, uint8_t *data, uint32_t size);
/* The same for a frame to a peer with our nic_link_tag: no checksum of TCP or UDP is made (the field gets the
 * sum of the pseudo header), and it may have further buffers and up to nic_info.frame_big bytes. size is that
 * of the part in buf. */
void nic_tx_near(struct nic_queue *q, struct nic_buf *buf, uint8_t *data, uint32_t size);

/* What tells the link to the other end of a shared-memory port from all others; 0: this port has no such
 * link, or it is not known yet. Who says the same is reached by nothing but this memory, so that no frame can
 * be damaged, and long ones pass. Any thread. */
uint64_t nic_link_tag(const struct nic_queue *q);

/* Appends size bytes at p to a fresh buffer that nic_tx_near will get: by reference where piece is the number
 * of lent memory that they lie in, as a copy for NIC_COPY. 0, or -ENOBUFS (counted). Queue's thread. */
int nic_buf_add(struct nic_queue *q, struct nic_buf *buf, const uint8_t *p, uint32_t size, uint32_t piece);

/* Takes the buffers behind the first off it and returns the first of them, or NULL when it was the last. */
struct nic_buf *nic_buf_rest(struct nic_buf *buf, uint8_t **data, uint32_t *size, void **priv);

/* Makes the numbers of lent memory, 0 to count - 1. 0 or -ENOMEM. Before the first nic_tx_near. */
int nic_lend(struct nic_queue *q, uint32_t count);
/* Whether a frame that the port still has refers to that memory. Queue's thread. */
bool nic_lent(const struct nic_queue *q, uint32_t piece);

/* Gives a frame that this host sends to itself to another stack, whose nic_rx tells it with NIC_FRAME_LOCAL:
 * size bytes at data inside buf (which is consumed), of which the first 14 are never looked at. That stack is
 * woken by this one's nic_tx_flush. A full ring drops it (counted). Queue's thread; never blocks. */
void nic_local(struct nic_queue *q, uint32_t stack_idx, struct nic_buf *buf, uint8_t *data, uint32_t size);
/* Offers everything queued to the port. Returns how many frames it did not take: they wait for the next call.
 * Queue's thread; never blocks. */
uint32_t nic_tx_flush(struct nic_queue *q);

/* How many frames nic_tx takes at present before it drops any. Queue's thread. */
uint32_t nic_tx_room(const struct nic_queue *q);

/* Packet memory address of p: region index << 48 | offset from the region's base. p must lie in packet
 * memory. UINT64_MAX if it does not. */
uint64_t nic_addr(const struct nic_queue *q, const void *p);

/* The stack that owns a 4-tuple (family is AF_INET or AF_INET6; addresses of 4 or 16 bytes in network order,
 * ports in host order). Any thread. remote is the sender of received frames. */
uint32_t nic_owner(const struct nic *nic, int family, const void *remote, uint16_t remote_port,
        const void *local, uint16_t local_port);

/* Descriptors that become readable when the queue's port has frames, for sleeping. Returns how many were
 * stored; 0 means that the driver has none and the caller must nap. A stack without a hardware queue gets a
 * descriptor that never becomes readable: it needs no naps, the wake hook is enough. Level-triggered; they
 * belong to the port, are valid until nic_close and must not be read. Control thread, or queue's thread
 * before its loop. */
uint32_t nic_wait_fds(struct nic_queue *q, int *fds, uint32_t max);
/* Announces that the thread is about to sleep on the wait fds (on), or is awake again (off): arms and disarms
 * RX interrupts where the driver needs that, and drains an interrupt fd. After arming, the caller must poll
 * nic_rx once more before it sleeps. Queue's thread. */
void nic_wait_arm(struct nic_queue *q, bool on);
/* For whoever stands in for munmap(2) in a process with an engine: the calling thread is about to unmap
 * something. Any thread; DPDK's interrupt thread waits for a call of the port that is under way. */
void nic_unmapping(void);
/* How long the thread may sleep on the wait fds, in microseconds, whatever its own timers say: UINT32_MAX, as
 * long as it likes; 0, the port cannot wake it at present, so it must nap. Queue's thread, armed. */
uint32_t nic_wait_limit_us(const struct nic_queue *q);

/* For people and tools: name and version of the driver library that is loaded, and the folder of its drivers.
 * Any thread, also without a port; constant. */
const char *nic_library_version(void);
const char *nic_driver_folder(void);

/* Free buffers and their total. Any thread; approximate. */
void nic_buf_levels(struct nic_queue *q, uint32_t *free_count, uint32_t *total_count);

/* The queue's counters. */
const struct nic_queue_stats *nic_stats(const struct nic_queue *q);

/* Begins to copy the frames that spec (checked by capture_spec_check) names into rings of base/capture.h:
 * what the port gives, as it came in and where it came in; what the port gets, when it is offered. *shm_fd is
 * the rings' memory, the caller's to pass on and close. The capture's number, or -E with a one-line reason.
 * Control thread; blocks for memory. */
int nic_capture_start(
        struct nic *nic, const struct capture_spec *spec, int *shm_fd, char *err, size_t err_size);
/* No stack begins to use the capture any more. Control thread, as is nic_capture_free, which may be called
 * when every stack's thread has since been outside the functions of this header. nic_close frees the others.
 */
void nic_capture_stop(struct nic *nic, uint32_t capture);
void nic_capture_free(struct nic *nic, uint32_t capture);

/* --- for tools (report.c) --- */

enum { NIC_NAMES_SIZE = 640, NIC_KEY_MAX = 64, NIC_TABLE_MAX = 128, NIC_MODE_SIZE = 64 };

/* What can be said of a port. Names stand in one text, separated by blanks. */
struct nic_report {
	struct nic_info info;
	const char *kind;  /* "tap", "afpacket", ... */
	char arg[112];     /* what of: interface, socket path or PCI address */
	char firmware[64]; /* "" = the driver does not say */
	char rx_mode[NIC_MODE_SIZE],
	        tx_mode[NIC_MODE_SIZE]; /* the driver's functions; "" = it does not say */
	uint32_t link_mbps;             /* 0 = unknown */
	bool is_full_duplex, is_autoneg, is_promiscuous, is_all_multicast;
	uint16_t mtu_min, mtu_max; /* the driver's bounds; 0 = none known */
	uint16_t rx_queues, tx_queues, rx_queues_max, tx_queues_max, rx_ring, tx_ring;
	char rx_offered[NIC_NAMES_SIZE], rx_used[NIC_NAMES_SIZE];
	char tx_offered[NIC_NAMES_SIZE], tx_used[NIC_NAMES_SIZE];
	bool takes_partial; /* checksums that a local peer left to an offload */
	uint32_t stack_count;
	uint32_t table_size, hw_table_size; /* entries; 0: the port has none */
	uint8_t table[NIC_TABLE_MAX];       /* the hash's last bits -> stack */
	bool hw_table_same;                 /* the port's table was read, and says the same */
	uint32_t key_size;
	uint8_t key[NIC_KEY_MAX];
	uint32_t buffers_free, buffers_total, buffer_size, region_count;
	uint64_t page_size; /* of packet memory */
	/* memif */
	bool is_memif, is_memif_server;
	uint32_t memif_id;
	uint64_t memif_tag;
};

/* Control thread; short calls of the driver. */
void nic_report(struct nic *nic, struct nic_report *report);

/* Calls fn for each extended statistic of the port. Their number, or -E when the driver has none. Control
 * thread. */
int nic_xstats(struct nic *nic, void (*fn)(void *arg, const char *name, uint64_t value), void *arg);
