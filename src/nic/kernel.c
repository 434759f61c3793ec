/* kernel.c - the kernel's side of an interface: address, gateway, flags, MTU, queues, and the few settings
 * that a port changes there.
 *
 * Control thread; short ioctls and netlink (src/kern), no state. Which interface and what for is decided in
 * device.c.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/ethtool.h>
#include <linux/sockios.h>

#include "iface.h"
#include "nic_int.h"
#include "nic_kernel.h"

static int if_ioctl(const char *name, unsigned long request, struct ifreq *ifr)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ret;

	if (fd < 0)
		return -errno;
	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
	ret = ioctl(fd, request, ifr) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

int kernel_if_flags(const char *name, unsigned set, unsigned clear)
{
	struct ifreq ifr = {0};
	int ret = if_ioctl(name, SIOCGIFFLAGS, &ifr);
	unsigned old = (unsigned short)ifr.ifr_flags, new = (old | set) & ~clear;

	if (ret != 0 || new == old)
		return ret;
	ifr.ifr_flags = (short)new;
	return if_ioctl(name, SIOCSIFFLAGS, &ifr);
}

bool kernel_if_has_flag(const char *name, unsigned flag)
{
	struct ifreq ifr = {0};

	return if_ioctl(name, SIOCGIFFLAGS, &ifr) == 0 && ((unsigned short)ifr.ifr_flags & flag) != 0;
}

int kernel_if_mac(const char *name, uint8_t mac[6])
{
	struct ifreq ifr = {0};
	int ret = if_ioctl(name, SIOCGIFHWADDR, &ifr);

	if (ret == 0)
		memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
	return ret;
}

int kernel_if_mtu(const char *name)
{
	struct ifreq ifr = {0};
	int ret = if_ioctl(name, SIOCGIFMTU, &ifr);

	return ret != 0 ? ret : ifr.ifr_mtu;
}

int kernel_if_set_address(const char *name, const uint8_t addr[4], unsigned prefix)
{
	struct ifreq ifr = {0};
	struct sockaddr_in in = {.sin_family = AF_INET};
	int ret;

	memcpy(&in.sin_addr, addr, 4);
	memcpy(&ifr.ifr_addr, &in, sizeof(in));
	ret = if_ioctl(name, SIOCSIFADDR, &ifr);
	if (ret != 0)
		return ret;
	in.sin_addr.s_addr = htonl(prefix == 0 ? 0 : ~0u << (32 - prefix));
	memcpy(&ifr.ifr_netmask, &in, sizeof(in));
	return if_ioctl(name, SIOCSIFNETMASK, &ifr);
}

int kernel_if_set_queue(const char *name, unsigned frames)
{
	struct ifreq ifr = {.ifr_qlen = (int)frames};

	return if_ioctl(name, SIOCSIFTXQLEN, &ifr);
}

static int if_ethtool(const char *name, void *command)
{
	struct ifreq ifr = {0};

	ifr.ifr_data = command;
	return if_ioctl(name, SIOCETHTOOL, &ifr);
}

uint32_t kernel_if_queues(const char *name, bool *combined)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};

	*combined = false;
	if (if_ethtool(name, &channels) != 0)
		return 1;
	*combined = channels.combined_count != 0;
	return RTE_MAX(*combined ? channels.combined_count : channels.rx_count, 1u);
}

int kernel_if_set_queues(const char *name, uint32_t count)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	int ret = if_ethtool(name, &channels);

	if (ret != 0)
		return ret;
	if (channels.combined_count != 0)
		channels.combined_count = count;
	else
		channels.rx_count = count;
	channels.cmd = ETHTOOL_SCHANNELS;
	return if_ethtool(name, &channels);
}

bool kernel_if_is_driver(const char *name, const char *driver)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};

	return if_ethtool(name, &info) == 0 && strcmp(info.driver, driver) == 0;
}

int kernel_if_gro(const char *name, bool on)
{
	struct ethtool_value value = {.cmd = ETHTOOL_GGRO};
	int ret = if_ethtool(name, &value), was_on = value.data != 0;

	if (ret != 0 || was_on == on)
		return ret != 0 ? ret : was_on;
	value = (struct ethtool_value){.cmd = ETHTOOL_SGRO, .data = on};
	ret = if_ethtool(name, &value);
	return ret != 0 ? ret : was_on;
}

int nic_kernel_interface(const struct cfg *cfg)
{
	enum cfg_device kind;
	const char *arg;
	unsigned index;

	if (cfg_parse_device(cfg->device, &kind, &arg) != 0 ||
	        (kind != CFG_DEVICE_AFPACKET && kind != CFG_DEVICE_AFXDP && kind != CFG_DEVICE_TAP))
		return -EINVAL;
	index = if_nametoindex(arg);
	return index != 0 ? (int)index : -ENODEV;
}

int nic_kernel_choose(const struct cfg *cfg, const struct iface *iface, struct nic_address *a)
{
	static const uint8_t tap_addr[4] = {198, 18, 0, 2};
	const struct iface_addr *best = NULL;
	enum cfg_device kind;
	const char *arg;
	int ret;

	ret = cfg_parse_device(cfg->device, &kind, &arg);
	if (ret != 0)
		return ret;
	if (strcmp(cfg->address, "auto") != 0) {
		ret = cfg_parse_ipv4_prefix(cfg->address, a->ip, &a->prefix);
	} else if (kind == CFG_DEVICE_TAP) {
		memcpy(a->ip, tap_addr, 4);
		a->prefix = 24;
	} else {
		/* the one that is in use for as long as the interface has it, whatever else it is given */
		for (uint32_t i = 0; iface != NULL && i < iface->addr_count; i++) {
			const struct iface_addr *at = &iface->addr[i];
			bool is_same = memcmp(at->ip, a->ip, 4) == 0;

			if (best == NULL ||
			        (is_same && (memcmp(best->ip, a->ip, 4) != 0 || at->prefix == a->prefix)))
				best = at;
		}
		if (best == NULL)
			return kind == CFG_DEVICE_AFPACKET || kind == CFG_DEVICE_AFXDP ? -EADDRNOTAVAIL
			                                                               : -EINVAL;
		memcpy(a->ip, best->ip, 4);
		a->prefix = best->prefix;
	}
	a->has_gateway = false;
	if (ret != 0 || strcmp(cfg->gateway, "none") == 0)
		return ret;
	if (strcmp(cfg->gateway, "auto") != 0) {
		ret = cfg_parse_ipv4(cfg->gateway, a->gateway);
		a->has_gateway = ret == 0;
	} else if (kind != CFG_DEVICE_TAP && iface != NULL && iface->has_gateway) {
		/* clouds give a host a /32, with the gateway beyond it */
		memcpy(a->gateway, iface->gateway, 4);
		a->has_gateway = a->prefix == 32 || cfg_same_network(a->ip, a->gateway, a->prefix);
	}
	return ret;
}

int nic_kernel_address(const struct cfg *cfg, struct nic_address *a)
{
	int index = nic_kernel_interface(cfg), ret = 0;
	bool has_address = strcmp(cfg->address, "auto") != 0, is_tap = strncmp(cfg->device, "tap:", 4) == 0;
	struct rtnl rtnl = {0};
	struct iface *iface = NULL;

	memset(a, 0, sizeof(*a));
	is_tap = is_tap || strcmp(cfg->device, "auto") == 0;
	if (index == -ENODEV && !is_tap && !has_address)
		return index;
	if (index > 0 && !is_tap) {
		iface = malloc(sizeof(*iface));
		ret = iface == NULL ? -ENOMEM : rtnl_open(&rtnl);
		if (ret == 0)
			ret = iface_read(&rtnl, index, iface);
		rtnl_close(&rtnl);
	}
	if (ret == 0)
		ret = nic_kernel_choose(cfg, iface, a);
	free(iface);
	return ret;
}
