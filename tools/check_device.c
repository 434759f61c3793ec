/* check_device.c - findings of `pronk check` about the configured device: is it there, can its driver do what
 * Pronk wants, who else uses it and its address, does the driver library have a driver for it.
 */
#include "machine.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	XDP_MTU_MOST = 3498, /* a page less what XDP and the kernel want around the frame */
};

/* --- the driver library --- */

static void library_check(const struct machine *m, enum cfg_device kind, struct report *r)
{
	static const char *const drivers[] = {
	        [CFG_DEVICE_TAP] = "net_tap",
	        [CFG_DEVICE_AFPACKET] = "net_af_packet",
	        [CFG_DEVICE_AFXDP] = "net_af_xdp",
	        [CFG_DEVICE_MEMIF] = "net_memif",
	        [CFG_DEVICE_PCI] = NULL,
	};
	char path[PATH_MAX];
	struct dirent **list;
	struct finding *f;
	int count, found = 0, net = 0;

	if (!m->library[0]) {
		f = report_add(r, LEVEL_WARNING, "dpdk.version",
		        "pronkd does not say: it is not there, or does not run");
		finding_means(f, "Without the service's program nothing is accelerated.");
		finding_fix(f, "pronkd --drivers");
		return;
	}
	report_add(r, LEVEL_OK, "dpdk.version", "%s", m->library);
	snprintf(path, sizeof(path), "%s%s", m->root, m->drivers);
	count = scandir(path, &list, NULL, NULL);
	for (int i = 0; i < count; i++) {
		char name[64] = "";

		if (sscanf(list[i]->d_name, "librte_%63[a-z0-9_]", name) == 1) {
			net += !strncmp(name, "net_", 4) && strstr(list[i]->d_name, ".so.") &&
			       !strchr(strstr(list[i]->d_name, ".so.") + 4, '.');
			found |= drivers[kind] && !strcmp(name, drivers[kind]);
		}
		free(list[i]);
	}
	if (count >= 0)
		free(list);
	if (found || (!drivers[kind] && net)) {
		report_add(r, LEVEL_OK, "dpdk.driver", "%s%d network drivers in %s",
		        found ? "has the one it needs; " : "", net, m->drivers);
		return;
	}
	f = report_add(r, LEVEL_MISSING, "dpdk.driver", "no %s in %s",
	        drivers[kind] ? drivers[kind] : "network driver", m->drivers);
	finding_means(f, "The library of drivers lacks the one for this device.");
	finding_fix(f, "sudo apt-get install librte-meta-net");
}

/* --- kernel interfaces --- */

static bool present_check(const struct machine *m, const char *name, struct report *r)
{
	const struct iface *i = &m->iface;
	struct finding *f;

	if (m->iface_rc) {
		f = report_add(r, LEVEL_MISSING, "device.present", "there is no interface %s here%s%s", name,
		        m->iface_rc == -ENODEV ? "" : ": ",
		        m->iface_rc == -ENODEV ? "" : strerror(-m->iface_rc));
		finding_means(f,
		        "The service does not start. It may be called otherwise, or be in another network namespace.");
		finding_fix(f, "ip -brief link # names the interfaces");
		return false;
	}
	f = report_add(r, i->is_up && !i->has_carrier ? LEVEL_WARNING : LEVEL_OK, "device.present",
	        "%s, %s, MTU %u", name,
	        !i->is_up        ? "down"
	        : i->has_carrier ? "up"
	                         : "up, without carrier",
	        i->mtu);
	if (!i->is_up)
		finding_means(f, "The service sets it up when it starts.");
	else if (!i->has_carrier) {
		finding_means(f, "Nobody is at the other end of the cable, or that end is down.");
		finding_fix(f, "ip link show %s # and look at the other end", name);
	}
	if (i->master) {
		f = report_add(r, LEVEL_WARNING, "device.master", "%s is a part of a bridge or bond", name);
		finding_means(f, "The kernel takes its packets for that; Pronk and it disturb each other.");
		finding_fix(f, "ip link set %s nomaster", name);
	}
	return true;
}

static void driver_check(const struct machine *m, const char *name, struct report *r)
{
	char driver[64];

	if (!machine_link(m, driver, sizeof(driver), "/sys/class/net/%s/device/driver", name))
		report_add(r, LEVEL_OK, "device.driver", "%s", driver);
	else
		report_add(r, LEVEL_OK, "device.driver", "%s, no hardware behind it",
		        m->iface.kind[0] ? m->iface.kind : "virtual");
}

static void queues_check(const struct machine *m, const struct cfg *cfg, const char *name, struct report *r)
{
	int queues = machine_queues(m, name);
	struct finding *f;

	if (!queues)
		return;
	if ((uint32_t)queues >= cfg->stacks) {
		report_add(r, LEVEL_OK, "device.queues", "%d for %u stack%s", queues, cfg->stacks,
		        cfg->stacks == 1 ? "" : "s");
		return;
	}
	f = report_add(r, LEVEL_NOTE, "device.queues", "%d for %u stacks", queues, cfg->stacks);
	finding_means(f, "Some stacks get their packets through others.");
	finding_fix(f, "ethtool -L %s combined %u", name, cfg->stacks);
}

/* Who else needs an interface that would be Pronk's alone. */
static void route_check(const struct machine *m, const char *name, struct report *r)
{
	char upper[IF_NAMESIZE];
	struct finding *f;

	if (m->ssh_index == m->iface.index && m->ssh_index > 0) {
		f = report_add(r, LEVEL_WARNING, "device.route", "this ssh session comes through %s", name);
		finding_means(
		        f, "AF_XDP takes the whole interface: the session ends when the service starts.");
	} else if (m->iface.has_default) {
		f = report_add(r, LEVEL_WARNING, "device.route",
		        "the machine's default route leads through %s", name);
		finding_means(f,
		        "AF_XDP takes the whole interface: the kernel, and with it ssh, is cut off while the service "
		        "runs.");
	} else if (machine_upper(m, m->iface.name, upper, sizeof(upper))) {
		f = report_add(r, LEVEL_WARNING, "device.route",
		        "other interfaces (VLANs, a bond or a bridge) lie on %s: %s", name, upper);
		finding_means(
		        f, "AF_XDP takes the whole interface: they are cut off while the service runs.");
	} else {
		report_add(r, LEVEL_OK, "device.route",
		        "%s carries no default route and no ssh session of this user", name);
		return;
	}
	finding_fix(f,
	        "device = \"afpacket:%s\"; # with an address that the kernel does not have, or another interface",
	        name);
}

static void xdp_check(const struct machine *m, const char *name, struct report *r)
{
	struct finding *f;

	if (m->xdp_socket == -EPERM || m->xdp_program == -EPERM) {
		finding_means(report_add(r, LEVEL_NOTE, "xdp.kernel", "cannot be seen without root"),
		        "Run this as root to know whether the kernel has AF_XDP.");
	} else if (m->xdp_socket || m->xdp_program != 1) {
		f = report_add(r, LEVEL_MISSING, "xdp.kernel", "%s",
		        m->xdp_socket ? "the kernel makes no AF_XDP socket"
		                      : "the kernel takes no XDP program");
		finding_means(f, "Device afxdp:%s cannot work: %s.", name,
		        m->xdp_socket ? strerror(-m->xdp_socket) : "BPF is off or locked down");
		finding_fix(f, "device = \"afpacket:%s\"; # in the configuration, with an address of its own",
		        name);
	} else {
		report_add(r, LEVEL_OK, "xdp.kernel", "AF_XDP sockets and XDP programs");
	}
	if (m->xdp_features_rc) {
		finding_means(report_add(r, LEVEL_NOTE, "xdp.driver",
		                      "this kernel does not tell what the driver can do"),
		        "Linux 6.3 and newer do. Without XDP in the driver packets take a slower way; it works.");
	} else if (!(m->xdp_features & IFACE_XDP_BASIC)) {
		f = report_add(r, LEVEL_WARNING, "xdp.driver", "%s's driver has no XDP of its own", name);
		finding_means(f, "The kernel's generic one serves: it works, not faster than afpacket.");
	} else if (m->xdp_features & IFACE_XDP_ZERO_COPY) {
		report_add(r, LEVEL_OK, "xdp.driver", "native XDP, without copying");
	} else {
		finding_means(report_add(r, LEVEL_OK, "xdp.driver", "native XDP; packets are copied once"),
		        "The driver has no zero-copy mode.");
	}
	/* a running service's own program is one, too */
	if (m->iface.has_xdp && m->service) {
		f = report_add(
		        r, LEVEL_WARNING, "xdp.attached", "%s has an XDP program of somebody else's", name);
		finding_means(f, "Only one can be there: the service does not start.");
		finding_fix(f, "ip link set dev %s xdp off", name);
	} else {
		report_add(r, LEVEL_OK, "xdp.attached", "no program of somebody else's");
	}
	f = report_add(
	        r, m->iface.mtu > XDP_MTU_MOST ? LEVEL_WARNING : LEVEL_OK, "device.mtu", "%u", m->iface.mtu);
	if (f->level == LEVEL_WARNING) {
		finding_means(
		        f, "XDP wants a frame in one page: most drivers refuse more than %d.", XDP_MTU_MOST);
		finding_fix(f, "ip link set dev %s mtu 1500", name);
	}
}

/* --- addresses --- */

static void address_text(const uint8_t ip[4], char *buf, size_t size)
{
	snprintf(buf, size, "%u.%u.%u.%u", ip[0], ip[1], ip[2], ip[3]);
}

bool machine_address(const struct machine *m, const struct cfg *cfg, uint8_t ip[4], unsigned *prefix)
{
	static const uint8_t tap[4] = {198, 18, 0, 2};
	enum cfg_device kind;
	const char *arg;

	if (strcmp(cfg->address, "auto"))
		return !cfg_parse_ipv4_prefix(cfg->address, ip, prefix);
	if (!cfg_parse_device(cfg->device, &kind, &arg) && kind == CFG_DEVICE_TAP) {
		memcpy(ip, tap, 4);
		*prefix = 24;
		return true;
	}
	if (m->iface_rc || !m->iface.addr_count)
		return false;
	memcpy(ip, m->iface.addr[0].ip, 4);
	*prefix = m->iface.addr[0].prefix;
	return true;
}

static void address_check(const struct machine *m, const struct cfg *cfg, enum cfg_device kind,
        const char *name, struct report *r)
{
	unsigned prefix;
	uint8_t ip[4];
	char text[16];
	struct finding *f;

	if (!machine_address(m, cfg, ip, &prefix)) {
		f = report_add(r, LEVEL_MISSING, "address.own",
		        "%s has no IPv4 address, and option address is auto", name);
		finding_means(f, "The service does not start.");
		finding_fix(f, "ip addr add A.B.C.D/N dev %s", name);
		return;
	}
	address_text(ip, text, sizeof(text));
	report_add(r, LEVEL_OK, "address.own", "%s/%u%s", text, prefix,
	        strcmp(cfg->address, "auto") ? ""
	        : kind == CFG_DEVICE_TAP     ? ", the default of a TAP"
	                                     : ", the interface's own");
	for (uint32_t i = 0; i < m->known_count; i++) {
		const struct known_addr *k = &m->known[i];
		unsigned both = k->addr.prefix < prefix ? k->addr.prefix : prefix;
		bool is_own_iface = !m->iface_rc && k->index == m->iface.index;

		if (!memcmp(k->addr.ip, ip, 4) && !(kind == CFG_DEVICE_AFXDP && is_own_iface)) {
			f = report_add(r, LEVEL_WARNING, "address.conflict", "the kernel has %s, too, on %s",
			        text, k->name);
			finding_means(f,
			        kind == CFG_DEVICE_AFPACKET
			                ? "Both answer on this interface: the kernel resets Pronk's connections."
			                : "Local programs reach the kernel's, and others whoever answers first.");
			finding_fix(
			        f, "address = \"A.B.C.D/N\"; # in the configuration: one that nobody has");
			return;
		}
		if (!is_own_iface && both >= 8 && cfg_same_network(k->addr.ip, ip, both) &&
		        strcmp(k->name, "lo")) {
			f = report_add(r, LEVEL_WARNING, "address.conflict", "%s/%u lies in a network of %s",
			        text, prefix, k->name);
			finding_means(f,
			        "Programs under Pronk reach that network through Pronk's device, all others through %s.",
			        k->name);
			finding_fix(f, "ip route get %s # says where the kernel sends it", text);
			return;
		}
	}
	report_add(r, LEVEL_OK, "address.conflict", "no other interface has this address or network");
}

/* --- TAP --- */

static void tap_check(const struct machine *m, const char *name, struct report *r)
{
	char path[PATH_MAX];
	struct finding *f;
	long flags;

	snprintf(path, sizeof(path), "%s/dev/net/tun", m->root);
	if (!access(path, R_OK | W_OK)) {
		report_add(r, LEVEL_OK, "tun.device", "/dev/net/tun can be opened");
	} else if (errno == ENOENT) {
		f = report_add(r, LEVEL_MISSING, "tun.device", "there is no /dev/net/tun");
		finding_means(f, "A TAP needs it.");
		if (*machine_virtual(m) && strcmp(machine_virtual(m), "a virtual machine"))
			finding_fix(f,
			        "docker run --device /dev/net/tun --cap-add NET_ADMIN ... # whoever starts the container");
		else
			finding_fix(f, "sudo modprobe tun");
	} else {
		f = report_add(r,
		        !m->service  ? LEVEL_OK
		        : m->is_root ? LEVEL_MISSING
		                     : LEVEL_NOTE,
		        "tun.device", "/dev/net/tun is closed to this user: %s", strerror(errno));
		finding_means(f, "The service needs it; programs do not.");
	}
	if (m->iface_rc == -ENODEV || !m->service) {
		report_add(r, LEVEL_OK, "device.present", "%s %s", name,
		        m->iface_rc == -ENODEV ? "will be made by the service" : "is the running service's");
		return;
	}
	flags = machine_number(m, "/sys/class/net/%s/tun_flags", name);
	f = report_add(r, flags < 0 ? LEVEL_MISSING : LEVEL_NOTE, "device.present",
	        "an interface %s is there already%s", name, flags < 0 ? ", and is no TAP" : "");
	finding_means(f, "Unless it is a persistent TAP that nobody uses, the service refuses to take it.");
	finding_fix(f, "device = \"tap:NAME\"; # in the configuration: another name");
}

/* --- PCI --- */

static bool pci_present_check(const struct machine *m, const char *address, struct report *r)
{
	char vendor[16] = "", device[16] = "", class[16] = "";
	struct finding *f;

	if (!machine_has(m, "/sys/bus/pci/devices/%s", address)) {
		f = report_add(r, LEVEL_MISSING, "device.present", "there is no PCI device %s", address);
		finding_means(f, "The service does not start.");
		finding_fix(f, "lspci -Dnn | grep -i net # names the network devices");
		return false;
	}
	machine_read(m, vendor, sizeof(vendor), "/sys/bus/pci/devices/%s/vendor", address);
	machine_read(m, device, sizeof(device), "/sys/bus/pci/devices/%s/device", address);
	machine_read(m, class, sizeof(class), "/sys/bus/pci/devices/%s/class", address);
	f = report_add(r, strncmp(class, "0x02", 4) ? LEVEL_WARNING : LEVEL_OK, "device.present",
	        "%s, %s:%s, class %s", address, vendor, device, class);
	if (f->level == LEVEL_WARNING)
		finding_means(f, "It does not say that it is a network device.");
	return true;
}

static void pci_driver_check(const struct machine *m, const char *address, struct report *r)
{
	char driver[64];
	struct finding *f;

	if (machine_link(m, driver, sizeof(driver), "/sys/bus/pci/devices/%s/driver", address)) {
		f = report_add(r, LEVEL_MISSING, "pci.driver", "no driver has the device");
	} else if (!strcmp(driver, "vfio-pci") || !strcmp(driver, "uio_pci_generic") ||
	           !strcmp(driver, "igb_uio")) {
		f = report_add(
		        r, strcmp(driver, "vfio-pci") ? LEVEL_WARNING : LEVEL_OK, "pci.driver", "%s", driver);
		if (f->level == LEVEL_WARNING)
			finding_means(f,
			        "No IOMMU protects the machine's memory from this device, and it has no interrupts.");
		return;
	} else if (!strncmp(driver, "mlx4_", 5) || !strncmp(driver, "mlx5_", 5)) {
		finding_means(report_add(r, LEVEL_OK, "pci.driver", "%s", driver),
		        "This NIC stays with its kernel driver; DPDK works beside it.");
		return;
	} else {
		f = report_add(r, LEVEL_MISSING, "pci.driver", "%s: the device is the kernel's", driver);
	}
	finding_means(
	        f, "DPDK reaches it only through vfio-pci. The kernel then has no such interface any more.");
	finding_fix(f, "pronk setup --device %s --bind vfio-pci", address);
}

static void iommu_check(const struct machine *m, const char *address, struct report *r)
{
	char group[16], path[PATH_MAX], noiommu[8] = "";
	struct dirent **list;
	struct finding *f;
	int count, others = 0;

	machine_read(m, noiommu, sizeof(noiommu), "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
	if (machine_link(m, group, sizeof(group), "/sys/bus/pci/devices/%s/iommu_group", address)) {
		if (noiommu[0] == 'Y') {
			f = report_add(r, LEVEL_WARNING, "pci.iommu", "none; vfio works without, unsafe");
			finding_means(f, "The device may write to any memory of the machine.");
			return;
		}
		f = report_add(r, LEVEL_MISSING, "pci.iommu", "the device is in no IOMMU group");
		finding_means(f, "vfio-pci cannot take it. %s",
		        *machine_virtual(m)
		                ? "In a virtual machine the host decides whether there is an IOMMU."
		                : "It may be off in the firmware (VT-d, AMD-Vi), or the kernel was not told to use it.");
		finding_fix(f,
		        *machine_virtual(m)
		                ? "echo Y | sudo tee /sys/module/vfio/parameters/enable_unsafe_noiommu_mode # unsafe"
		                : "intel_iommu=on iommu=pt # to the kernel's command line (AMD: iommu=pt), then reboot");
		return;
	}
	snprintf(path, sizeof(path), "%s/sys/kernel/iommu_groups/%s/devices", m->root, group);
	count = scandir(path, &list, NULL, NULL);
	for (int i = 0; i < count; i++) {
		char driver[64];

		if (list[i]->d_name[0] != '.' && strcmp(list[i]->d_name, address) &&
		        !machine_link(m, driver, sizeof(driver), "/sys/bus/pci/devices/%s/driver",
		                list[i]->d_name) &&
		        strcmp(driver, "vfio-pci") && strcmp(driver, "pcieport") &&
		        strcmp(driver, "pci-stub"))
			others++;
		free(list[i]);
	}
	if (count >= 0)
		free(list);
	f = report_add(r, others ? LEVEL_MISSING : LEVEL_OK, "pci.iommu", "group %s%s", group,
	        others ? ", in which other devices have kernel drivers" : "");
	if (others) {
		finding_means(f, "vfio gives a group as a whole or not at all.");
		finding_fix(f, "ls %s # bind all of these to vfio-pci, or put the NIC into another slot",
		        path + strlen(m->root));
	}
}

static void vfio_check(const struct machine *m, struct report *r)
{
	struct finding *f;

	if (machine_has(m, "/sys/bus/pci/drivers/vfio-pci")) {
		report_add(r, LEVEL_OK, "pci.vfio", "vfio-pci is loaded");
		return;
	}
	f = report_add(r, LEVEL_MISSING, "pci.vfio", "vfio-pci is not loaded");
	finding_means(f, "Nothing can be bound to it.");
	finding_fix(f, "sudo modprobe vfio-pci");
}

/* --- memif --- */

static void memif_check(const struct machine *m, const struct cfg *cfg, const char *socket, struct report *r)
{
	char dir[PATH_MAX], *slash;
	struct finding *f;

	snprintf(dir, sizeof(dir), "%s", socket);
	slash = strrchr(dir, '/');
	*slash = 0;
	if (cfg->memif_role != CFG_MEMIF_ROLE_SERVER && !machine_has(m, "%s", socket)) {
		f = report_add(r, LEVEL_NOTE, "device.present", "%s is not there", socket);
		finding_means(f, "The other end makes it. The service starts, and waits for it.");
		return;
	}
	if (!machine_has(m, "%s", dir[0] ? dir : "/")) {
		f = report_add(r, LEVEL_MISSING, "device.present", "there is no folder %s", dir);
		finding_means(f, "The socket of the link cannot be made.");
		finding_fix(f, "mkdir -p %s", dir);
		return;
	}
	report_add(r, LEVEL_OK, "device.present", "%s", socket);
}

void check_device(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	enum cfg_device kind;
	const char *arg;

	if (cfg_parse_device(cfg->device, &kind, &arg))
		return;
	library_check(m, kind, r);
	switch (kind) {
	case CFG_DEVICE_TAP:
		tap_check(m, arg, r);
		address_check(m, cfg, kind, arg, r);
		break;
	case CFG_DEVICE_AFPACKET:
	case CFG_DEVICE_AFXDP:
		if (!present_check(m, arg, r))
			break;
		driver_check(m, arg, r);
		queues_check(m, cfg, arg, r);
		if (kind == CFG_DEVICE_AFXDP) {
			route_check(m, arg, r);
			xdp_check(m, arg, r);
		} else if (m->packet_socket && m->packet_socket != -EPERM) {
			struct finding *f = report_add(r, LEVEL_MISSING, "packet.socket",
			        "the kernel makes no packet socket: %s", strerror(-m->packet_socket));

			finding_means(f, "Device afpacket:%s cannot work.", arg);
			finding_fix(f, "sudo modprobe af_packet");
		}
		address_check(m, cfg, kind, arg, r);
		break;
	case CFG_DEVICE_PCI:
		if (!pci_present_check(m, arg, r))
			break;
		pci_driver_check(m, arg, r);
		vfio_check(m, r);
		iommu_check(m, arg, r);
		address_check(m, cfg, kind, arg, r);
		break;
	case CFG_DEVICE_MEMIF:
		memif_check(m, cfg, arg, r);
		break;
	}
}
