/* kernel.c - the kernel's side of an interface: address, gateway, flags, MTU, queues, and the few settings
 * that a port changes there.
 *
 * Control thread; short ioctls, no state. Which interface and what for is decided in device.c.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/ethtool.h>
#include <linux/sockios.h>

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

/* The interface's first IPv4 address. */
static int if_address(const char *name, uint8_t addr[4], unsigned *prefix)
{
	struct ifaddrs *list;
	int ret = if_nametoindex(name) == 0 ? -ENODEV : -EADDRNOTAVAIL;

	if (getifaddrs(&list) != 0)
		return -errno;
	for (struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
		struct sockaddr_in in;

		if (at->ifa_addr == NULL || at->ifa_netmask == NULL || at->ifa_addr->sa_family != AF_INET ||
		        strcmp(at->ifa_name, name) != 0)
			continue;
		memcpy(&in, at->ifa_addr, sizeof(in));
		memcpy(addr, &in.sin_addr, 4);
		memcpy(&in, at->ifa_netmask, sizeof(in));
		*prefix = (unsigned)__builtin_popcount(in.sin_addr.s_addr);
		ret = 0;
		break;
	}
	freeifaddrs(list);
	return ret;
}

/* The default route through the interface with the lowest metric. */
static bool if_gateway(const char *name, uint8_t gw[4])
{
	FILE *file = fopen("/proc/net/route", "re");
	char line[256], iface[IFNAMSIZ];
	unsigned best = ~0u;
	bool found = false;

	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL) {
		unsigned dest, gateway, flags, metric, mask;

		if (sscanf(line, "%15s %x %x %x %*d %*d %u %x", iface, &dest, &gateway, &flags, &metric,
		            &mask) != 6)
			continue;
		if (strcmp(iface, name) != 0 || dest != 0 || mask != 0 || !(flags & RTF_GATEWAY) ||
		        metric > best)
			continue;
		best = metric;
		memcpy(gw, &gateway, 4); /* printed as the number whose bytes in memory are the address */
		found = true;
	}
	fclose(file);
	return found;
}

int nic_kernel_address(const struct cfg *cfg, uint8_t addr[4], unsigned *prefix, uint8_t gw[4], bool *has_gw)
{
	static const uint8_t tap_addr[4] = {198, 18, 0, 2};
	enum cfg_device kind;
	const char *arg;
	bool has_kernel;
	int ret;

	ret = cfg_parse_device(cfg->device, &kind, &arg);
	if (ret != 0)
		return ret;
	has_kernel = kind == CFG_DEVICE_AFPACKET || kind == CFG_DEVICE_AFXDP;
	*has_gw = false;
	if (strcmp(cfg->address, "auto") != 0) {
		ret = cfg_parse_ipv4_prefix(cfg->address, addr, prefix);
	} else if (kind == CFG_DEVICE_TAP) {
		memcpy(addr, tap_addr, 4);
		*prefix = 24;
	} else {
		ret = has_kernel ? if_address(arg, addr, prefix) : -EINVAL;
	}
	if (ret != 0 || strcmp(cfg->gateway, "none") == 0)
		return ret;
	if (strcmp(cfg->gateway, "auto") != 0) {
		ret = cfg_parse_ipv4(cfg->gateway, gw);
		*has_gw = ret == 0;
	} else if (has_kernel && if_gateway(arg, gw)) {
		*has_gw = cfg_same_network(addr, gw, *prefix);
	}
	return ret;
}
