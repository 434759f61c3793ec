/* nic_fake.h - a network port without hardware or DPDK, for tests that put frames in and look at frames that
 * come out.
 *
 * Implements all of nic.h; nic_open makes one too (its device option is ignored). Receive checks checksums,
 * finds the owner and hands off as the real port does; transmit fills checksums in software. Buffers come
 * from one shareable region of fixed size and are counted. All functions may be called from any thread; none
 * blocks beyond a short lock.
 */
#pragma once
#include "nic.h"

enum {
	NIC_FAKE_BUF_COUNT = 4096,
	NIC_FAKE_FRAME_MAX = 1514,
};

/* A port with a queue for each stack. NULL only when memory is short. nic_close ends it, with whatever it
 * still holds. */
struct nic *nic_fake_create(uint32_t stack_count);

/* Ports that are made from now on have a descriptor to sleep on (nic_wait_fds). */
void nic_fake_with_wait_fd(void);
/* The port that nic_open made last. */
struct nic *nic_fake_opened(void);

/* The hook that nic_open takes; none at first. */
void nic_fake_set_wake(struct nic *nic, void (*wake)(void *arg, uint32_t stack_idx), void *arg);

/* A frame arrives at the hardware queue of a stack; it comes out of that stack's next nic_rx, or is handed to
 * its owner by it. The bytes are copied as they are. Returns 0, -EMSGSIZE, or -ENOBUFS. */
int nic_fake_inject(struct nic *nic, uint32_t stack_idx, const void *data, uint32_t size);

/* As nic_fake_inject, with IPv4, TCP and UDP checksums filled in first. */
int nic_fake_inject_fixed(struct nic *nic, uint32_t stack_idx, const void *data, uint32_t size);

/* Takes the oldest frame that the stack sent (and flushed): copies at most size bytes to buf. Returns the
 * frame's size, 0 when there is none. */
uint32_t nic_fake_take(struct nic *nic, uint32_t stack_idx, void *buf, uint32_t size);

/* How many sent frames wait to be taken. */
uint32_t nic_fake_pending(struct nic *nic, uint32_t stack_idx);

/* The next count buffer allocations fail (nic_buf_alloc only). */
void nic_fake_fail_alloc(struct nic *nic, uint32_t count);

/* The next count frames given to the port find it full. */
void nic_fake_fail_tx(struct nic *nic, uint32_t count);

/* What nic_link_tag and nic_info.frame_big tell; 0 at first. */
void nic_fake_set_near(struct nic *nic, uint64_t link_tag, uint32_t frame_big);

/* What nic_tx_room tells; 1024 at first. */
void nic_fake_set_tx_room(struct nic *nic, uint32_t room);

/* MTU and link state that nic_info_get tells. 1500 and up at first. */
void nic_fake_set_link(struct nic *nic, uint16_t mtu, bool up);

/* Buffers somebody holds: the stack, and frames not yet received, flushed or taken. 0 proves that nothing
 * leaks. */
uint32_t nic_fake_bufs_in_use(struct nic *nic);
