/* pages.h - hugepages: how much packet memory a configuration takes, what the kernel has, and how many it
 * should have. One place, so that the service's log, `pronk check` and `pronk setup` say the same number.
 *
 * Pure functions but for pages_read; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct cfg;

enum {
	PAGE_HUGE = 2 << 20,
/* Of a packet buffer; src/nic asserts that these are the driver library's. A buffer has one line each of
 * the pool's header and of padding at most, and one to begin on a line of its own. */
#ifdef __aarch64__
	PAGES_LINE = 128,
#else
	PAGES_LINE = 64,
#endif
	PAGES_BUFFER_HEAD = 128 + 64, /* the library's and the stack's */
	PAGES_HEADROOM = 128,
	PAGES_DATA_ROOM = 2048,   /* smallest behind the headroom */
	PAGES_FRAME_EXTRA = 26,   /* what a frame has around the MTU: Ethernet, its checksum, two VLAN tags */
	PAGES_BUFFER_XDP = 4096,  /* AF_XDP: all of a buffer */
	PAGES_LIBRARY = 48 << 20, /* rings, driver structures, the library's own tables */
};

/* Bytes of packet memory, the driver library's own included. mtu: the interface's, for as long as option mtu
 * does not say another; 0: the usual 1500. */
uint64_t pages_packet_bytes(const struct cfg *cfg, uint32_t mtu);

/* 2 MB hugepages of this machine. */
struct pages {
	bool has_any; /* the kernel has them; else the rest is 0 */
	long total;   /* reserved by the administrator */
	long left;    /* free, and promised to nobody */
};

/* Reads them below root ("" for the machine's own /sys); node: of this NUMA node, -1: of all. Blocks for
 * reads of /sys. */
void pages_read(struct pages *p, const char *root, int node);

/* What the total has to be so that need more are left. */
long pages_want(const struct pages *p, uint32_t need);
