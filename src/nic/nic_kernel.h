/* nic_kernel.h - what the kernel knows about the interface behind a port. No DPDK needed; works before
 * nic_open. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct cfg;
struct iface;

struct nic_address {
	uint8_t ip[4], gateway[4]; /* network order; gateway is valid with has_gateway */
	unsigned prefix;
	bool has_gateway;
};

/* The IPv4 address, prefix length and gateway this port shall use: from options address and gateway where
 * these are set, otherwise those of the kernel interface named by afpacket: or afxdp:, and 198.18.0.2/24
 * without gateway for a TAP. Control thread; asks the kernel. Returns 0; -EADDRNOTAVAIL when the interface
 * has no IPv4 address; -ENODEV when there is no such interface; -EINVAL when the device has no kernel
 * interface and address is auto, or an option cannot be parsed; or another -E. */
int nic_kernel_address(const struct cfg *cfg, struct nic_address *a);

/* The same from what an interface is now (NULL: there is none). *a holds what was in use so far: of several
 * addresses that one stays, else it is the kernel's first. Pure. */
int nic_kernel_choose(const struct cfg *cfg, const struct iface *iface, struct nic_address *a);

/* Index of the kernel's interface behind the port: afpacket, afxdp, and the kernel's end of a TAP. -ENODEV
 * when it is not there, -EINVAL when the device has none. */
int nic_kernel_interface(const struct cfg *cfg);
