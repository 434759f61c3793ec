/* nic_kernel.h - what the kernel knows about the interface behind a port. No DPDK needed; works before
 * nic_open. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct cfg;

/* The IPv4 address, prefix length and gateway this port shall use: from options address and gateway where
 * these are set, otherwise those of the kernel interface named by afpacket: or afxdp:, and 198.18.0.2/24
 * without gateway for a TAP. addr and gw are in network byte order; gw is valid when *has_gw. Control thread;
 * reads the kernel's tables, does not wait for anything. Returns 0; -EADDRNOTAVAIL when the interface has no
 * IPv4 address; -ENODEV when there is no such interface; -EINVAL when the device has no kernel interface and
 * address is auto, or an option cannot be parsed. */
int nic_kernel_address(const struct cfg *cfg, uint8_t addr[4], unsigned *prefix, uint8_t gw[4], bool *has_gw);
