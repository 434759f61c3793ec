/* setup_plan.c - from "this NIC" to a plan: which kind of device and why, address, gateway, queues, cores,
 * and the text of the configuration file. Changes nothing.
 */
#include "setup.h"

#include <dirent.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"

enum { XDP_MTU_MOST = 3498 };

static int refuse(char *err, size_t size, int code, const char *fmt, ...) PRINTF_LIKE(4, 5);
static int refuse(char *err, size_t size, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err, size, fmt, args);
	va_end(args);
	return code;
}

/* The interface that the kernel has for a PCI device. */
static bool pci_interface(const struct machine *m, const char *address, char *name, size_t size)
{
	char path[PATH_MAX];
	struct dirent **list;
	int count;

	name[0] = 0;
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/net", m->root, address);
	count = scandir(path, &list, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (list[i]->d_name[0] != '.' && !name[0])
			snprintf(name, size, "%.15s", list[i]->d_name);
		free(list[i]);
	}
	if (count >= 0)
		free(list);
	return name[0];
}

/* The PCI address behind an interface: "" when it is no PCI device. */
static void interface_pci(const struct machine *m, const char *name, char *address, size_t size)
{
	char bus[32];

	address[0] = 0;
	if (!machine_link(m, bus, sizeof(bus), "/sys/class/net/%s/device/subsystem", name) &&
	        !strcmp(bus, "pci"))
		machine_link(m, address, size, "/sys/class/net/%s/device", name);
}

/* Who would be cut off when this interface is not the kernel's any more; NULL: nobody. */
static const char *who_needs(const struct machine *m, const struct plan *p)
{
	static char text[128];
	char upper[IF_NAMESIZE];

	if (!p->has_iface)
		return NULL;
	if (m->ssh_index > 0 && m->ssh_index == p->iface.index)
		return "the ssh session that you are in comes through it";
	if (p->iface.has_default)
		return "the machine's default route leads through it";
	/* routes and sessions may be theirs, and they would go as well */
	if (!machine_upper(m, p->iface.name, upper, sizeof(upper)))
		return NULL;
	snprintf(text, sizeof(text), "other interfaces (VLANs, a bond or a bridge) lie on it: %s", upper);
	return text;
}

/* A name without a kind: AF_XDP where it is possible. */
static void kind_choose(struct plan *p, const struct machine *m)
{
	const char *no = m->xdp_socket == -EPERM || m->xdp_program == -EPERM
	                         ? "without root it cannot be seen whether the kernel has AF_XDP"
	                 : m->xdp_socket || m->xdp_program != 1 ? "this kernel has no AF_XDP"
	                 : p->iface.has_xdp                     ? "another XDP program is on it"
	                 : p->iface.mtu > XDP_MTU_MOST          ? "its MTU is too large for XDP"
	                                                        : NULL;

	p->kind = no ? CFG_DEVICE_AFPACKET : CFG_DEVICE_AFXDP;
	if (no)
		snprintf(p->why, sizeof(p->why), "AF_PACKET, because %s", no);
	else
		snprintf(p->why, sizeof(p->why), "AF_XDP: the kernel and the interface take it%s",
		        !m->xdp_features_rc && !(m->xdp_features & IFACE_XDP_BASIC)
		                ? " (through the generic path: the driver has no XDP)"
		        : !m->xdp_features_rc && m->xdp_features & IFACE_XDP_ZERO_COPY ? ", without copying"
		                                                                       : "");
}

static int interface_plan(struct plan *p, const struct machine *m, bool is_chosen, char *err, size_t err_size)
{
	const char *who;

	if (!p->has_iface)
		return refuse(err, err_size, -ENODEV,
		        "there is no interface %s (`ip -brief link` names them)", p->name);
	if (!p->iface.has_mac)
		return refuse(err, err_size, -EINVAL, "%s is no Ethernet interface", p->name);
	if (p->iface.master && !p->force)
		return refuse(err, err_size, -EBUSY,
		        "%s is a part of a bridge or bond: take it out (`ip link set %s nomaster`), or --force",
		        p->name, p->name);
	if (is_chosen)
		kind_choose(p, m);
	else
		snprintf(p->why, sizeof(p->why), "As asked for");
	who = p->kind == CFG_DEVICE_AFXDP ? who_needs(m, p) : NULL;
	if (who && !p->force)
		return refuse(err, err_size, -EBUSY,
		        "AF_XDP would take the whole of %s, and %s. Take another interface, share this one (--device afpacket:%s "
		        "--address A.B.C.D/N, an address that nobody has), or --force",
		        p->name, who, p->name);
	if (p->kind == CFG_DEVICE_AFPACKET && !p->has_address)
		return refuse(err, err_size, -EINVAL,
		        "%s. With afpacket the kernel sees the packets, too: --address A.B.C.D/N has to name an address that "
		        "nobody has yet",
		        p->why);
	if (!p->has_address && !p->iface.addr_count)
		return refuse(err, err_size, -EADDRNOTAVAIL,
		        "%s has no IPv4 address: give it one (`ip addr add A.B.C.D/N dev %s`), or --address A.B.C.D/N",
		        p->name, p->name);
	for (uint32_t i = 0; p->kind == CFG_DEVICE_AFPACKET && i < m->known_count; i++)
		if (!memcmp(m->known[i].addr.ip, p->own.ip, 4) && !p->force)
			return refuse(err, err_size, -EADDRINUSE,
			        "%s is the kernel's on %s: --address has to name one that nobody has",
			        p->address, m->known[i].name);
	snprintf(p->text, sizeof(p->text), "%s:%s", p->kind == CFG_DEVICE_AFXDP ? "afxdp" : "afpacket",
	        p->name);
	p->queues = machine_queues(m, p->name);
	return 0;
}

static int pci_plan(struct plan *p, const struct machine *m, char *err, size_t err_size)
{
	char driver[64] = "", class[16] = "";
	const char *who = who_needs(m, p);

	if (!machine_has(m, "/sys/bus/pci/devices/%s", p->name))
		return refuse(
		        err, err_size, -ENODEV, "there is no PCI device %s (`lspci -D` names them)", p->name);
	machine_read(m, class, sizeof(class), "/sys/bus/pci/devices/%s/class", p->name);
	if (strncmp(class, "0x02", 4) && !p->force)
		return refuse(err, err_size, -EINVAL,
		        "%s is no network device (class %s); --force takes it all the same", p->name, class);
	machine_link(m, driver, sizeof(driver), "/sys/bus/pci/devices/%s/driver", p->name);
	if (who && !p->force && (p->driver || !strncmp(driver, "mlx", 3)))
		return refuse(err, err_size, -EBUSY, "%s is %s, and %s. Take another device, or --force",
		        p->name, p->iface.name, who);
	if (!p->has_address && p->has_iface && p->iface.addr_count) {
		p->own = p->iface.addr[0];
		p->has_address = true;
	}
	if (!p->has_address)
		return refuse(err, err_size, -EADDRNOTAVAIL,
		        "the kernel knows no address of %s: --address A.B.C.D/N has to name one", p->name);
	if (p->has_iface) {
		p->queues = machine_queues(m, p->iface.name);
		p->mtu = p->iface.mtu != 1500 ? p->iface.mtu : 0;
	}
	snprintf(p->why, sizeof(p->why), "The device as a whole, through %s",
	        p->driver   ? p->driver
	        : driver[0] ? driver
	                    : "whatever driver it will be bound to");
	snprintf(p->text, sizeof(p->text), "%s", p->name);
	return 0;
}

/* Isolated cores of the device's node, else the last ones there. */
static void cores_choose(struct plan *p, const struct machine *m)
{
	struct core_set isolated, near;
	bool has_isolated = machine_cores(m, &isolated, "/sys/devices/system/cpu/isolated");
	bool has_near = p->node >= 0 && machine_nodes(m) > 1 &&
	                machine_cores(m, &near, "/sys/devices/system/node/node%d/cpulist", p->node);
	uint16_t fit[CPU_CORE_MAX];
	uint32_t count = 0, want;

	for (int pass = 0; pass < 2 && !count; pass++)
		for (int i = 0; i < m->allowed_count && i < CPU_CORE_MAX; i++)
			if ((!has_near || core_in(&near, m->allowed[i])) &&
			        (pass || (has_isolated && core_in(&isolated, m->allowed[i]))))
				fit[count++] = m->allowed[i];
	has_isolated = count && has_isolated && core_in(&isolated, fit[0]);
	/* half of what is not set aside for it: programs need cores, too */
	want = has_isolated ? count : count / 2;
	if (want > (uint32_t)(p->queues > 0 ? p->queues : 1))
		want = (uint32_t)(p->queues > 0 ? p->queues : 1);
	if (want > STACKS_USUAL)
		want = STACKS_USUAL;
	if (want < 1 || !strcmp(p->iface.kind, "veth"))
		want = 1;
	p->stacks = want;
	if (!has_near && !has_isolated)
		return; /* what "auto" takes is as good */
	p->core_count = count < want ? 0 : want;
	for (uint32_t i = 0; i < p->core_count; i++)
		p->cores[i] = has_isolated ? fit[i] : fit[count - want + i];
}

/* --- the file --- */

static void gateway_find(struct plan *p)
{
	if (!p->has_address || !p->has_iface || !p->iface.has_gateway)
		return;
	p->has_gateway = p->own.prefix == 32 || cfg_same_network(p->own.ip, p->iface.gateway, p->own.prefix);
	memcpy(p->gateway, p->iface.gateway, 4);
}

/* The service's name, after the file's: with the name of another service it would be that one to programs and
 * tools. "" for the usual file, whose service has the usual name. */
static void service_name(const struct plan *p, char *buf, size_t size)
{
	const char *out = p->out ? p->out : "-", *slash = strrchr(out, '/'), *base = slash ? slash + 1 : out;
	size_t n = strlen(base);

	if (n > 5 && !strcmp(base + n - 5, ".conf"))
		n -= 5;
	if (!strcmp(out, "-") || (n == 5 && !strncmp(base, "pronk", n)))
		n = 0;
	snprintf(buf, size, "%.*s", (int)n, base);
	for (char *c = buf; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
			*c = '_';
}

static int config_write(struct plan *p, char *err, size_t err_size)
{
	char name[32];
	FILE *f = fmemopen(p->config, sizeof(p->config), "w");
	const uint8_t *a = p->own.ip, *g = p->gateway;

	if (!f)
		return refuse(err, err_size, -errno, "out of memory");
	fprintf(f,
	        "# Written by `pronk setup --device %s`. Every option: pronk.conf(5). `pronk check -c FILE` looks whether the\n"
	        "# machine fits, `pronk setup --undo FILE` takes back what setup did, this file among it.\n\n",
	        p->device);
	service_name(p, name, sizeof(name));
	if (name[0])
		fprintf(f,
		        "# Each service has a name of its own; a program can use several: pronk run -c FILE -c FILE.\nname = \"%s\";\n\n",
		        name);
	fprintf(f, "# %s.\n", p->why);
	fprintf(f, "device = \"%s\";\n", p->text);
	if (p->kind == CFG_DEVICE_AFXDP)
		fputs("# The whole interface is Pronk's while the service runs: nothing on it reaches the kernel, ssh neither.\n",
		        f);
	if (p->kind == CFG_DEVICE_TAP) {
		fputs("\n# Pronk's end of the TAP, and the kernel's.\naddress = \"198.18.0.2/24\";\nhost_address = \"198.18.0.1/24\";\n",
		        f);
	} else if (p->has_address) {
		fprintf(f, "\n# %s\n",
		        p->address ? "As asked for." : "The interface had it when this was written.");
		fprintf(f, "address = \"%u.%u.%u.%u/%u\";\n", a[0], a[1], a[2], a[3], p->own.prefix);
		if (p->has_gateway)
			fprintf(f, "gateway = \"%u.%u.%u.%u\";\n", g[0], g[1], g[2], g[3]);
		else
			fputs("gateway = \"none\"; # the kernel has none in this network\n", f);
	} else {
		const struct iface_addr *i = &p->iface.addr[0];

		fprintf(f,
		        "\n# The interface's own, and so are gateway and MTU: now %u.%u.%u.%u/%u, %s, %u bytes. A change is followed.\n",
		        i->ip[0], i->ip[1], i->ip[2], i->ip[3], i->prefix,
		        p->iface.has_gateway ? "with a gateway" : "no gateway", p->iface.mtu);
		fputs("address = \"auto\";\ngateway = \"auto\";\n", f);
	}
	if (p->mtu)
		fprintf(f, "mtu = %u; # as the kernel had it\n", p->mtu);
	fputs("\n# Stack threads, each with a queue of its own", f);
	if (p->queues > 0)
		fprintf(f, "; the device has %d", p->queues);
	fprintf(f, ".\nstacks = %u;\n", p->stacks);
	if (p->core_count) {
		fprintf(f, "# %s", p->node >= 0 ? "Of the device's NUMA node" : "Isolated cores");
		if (p->node >= 0)
			fprintf(f, " (%d)", p->node);
		fputs(".\ncores = \"", f);
		for (uint32_t i = 0; i < p->core_count; i++)
			fprintf(f, "%s%u", i ? "," : "", p->cores[i]);
		fputs("\";\n", f);
	} else {
		fputs("# One NUMA node, no isolated cores: the last ones.\ncores = \"auto\";\n", f);
	}
	fprintf(f,
	        "\n# latency, balanced or throughput: how long idle threads look before they sleep.\nprofile = \"%s\";\n",
	        p->profile);
	fprintf(f, "\n# Free 2 MB hugepages are used; without, plain pages serve.\nhugepages = \"auto\";\n");
	if (fclose(f) || strlen(p->config) >= sizeof(p->config) - 1)
		return refuse(err, err_size, -ENOSPC, "the configuration became too long");
	return 0;
}

/* What was written must load, here and now. */
static int config_check(const struct plan *p, struct cfg *cfg, char *err, size_t err_size)
{
	char path[] = "/tmp/pronk-setup.XXXXXX", reason[LINE_SIZE] = "";
	int fd = mkstemp(path), rc = 0;

	if (fd < 0)
		return refuse(err, err_size, -errno, "cannot make a file in /tmp: %s", strerror(errno));
	if (write(fd, p->config, strlen(p->config)) != (ssize_t)strlen(p->config))
		rc = refuse(reason, sizeof(reason), -EIO, "cannot write %s", path);
	close(fd);
	if (!rc)
		rc = cfg_load(cfg, path, reason, sizeof(reason));
	if (!rc)
		rc = cfg_check_machine(cfg, cfg->mode == CFG_MODE_DEDICATED, reason, sizeof(reason));
	unlink(path);
	return rc ? refuse(err, err_size, rc, "no configuration comes of this: %s", reason) : 0;
}

int plan_make(struct plan *p, struct machine *m, char *err, size_t err_size)
{
	const char *arg = p->device;
	bool is_bare = !strchr(p->device, ':') && strcmp(p->device, "auto");
	char pci[64] = "";
	struct rtnl n;
	struct cfg cfg;
	int rc;

	if (p->address) {
		unsigned prefix;

		if (cfg_parse_ipv4_prefix(p->address, p->own.ip, &prefix) ||
		        !cfg_host_valid(p->own.ip, prefix))
			return refuse(err, err_size, -EINVAL,
			        "--address \"%s\" is not a host's address with prefix length (A.B.C.D/N)",
			        p->address);
		p->own.prefix = (uint8_t)prefix;
		p->has_address = true;
	}
	if (is_bare && !m->root[0] && if_nametoindex(p->device) == 0)
		return refuse(err, err_size, -ENODEV,
		        "\"%.64s\" is neither an interface of this machine nor a device (allowed: an interface's name, "
		        "afxdp:IF, afpacket:IF, tap:NAME, auto, or a PCI address such as 0000:3b:00.0)",
		        p->device);
	if (!is_bare && cfg_parse_device(p->device, &p->kind, &arg))
		return refuse(err, err_size, -EINVAL,
		        "\"%.64s\" is not a device (allowed: an interface's name, afxdp:IF, afpacket:IF, tap:NAME, auto, or a PCI "
		        "address such as 0000:3b:00.0)",
		        p->device);
	if (!is_bare && p->kind == CFG_DEVICE_MEMIF)
		return refuse(err, err_size, -EINVAL,
		        "the kernel knows nothing of a memif: write its configuration by hand (conf/pronk-memif.conf)");
	snprintf(p->name, sizeof(p->name), "%s", arg);
	if (is_bare && p->driver) {
		interface_pci(m, p->device, pci, sizeof(pci));
		if (!pci[0])
			return refuse(err, err_size, -EINVAL, "%s is no PCI device: there is nothing to bind",
			        p->device);
		p->kind = CFG_DEVICE_PCI;
		snprintf(p->name, sizeof(p->name), "%s", pci);
		is_bare = false;
	}
	if (p->driver && p->kind != CFG_DEVICE_PCI)
		return refuse(err, err_size, -EINVAL,
		        "--bind is for PCI devices only (allowed: a PCI address, or its interface's name)");
	if (p->kind != CFG_DEVICE_TAP || is_bare) {
		char name[IF_NAMESIZE];
		unsigned index = 0;

		snprintf(name, sizeof(name), "%.15s", p->name);
		if (is_bare || p->kind != CFG_DEVICE_PCI || pci_interface(m, p->name, name, sizeof(name)))
			index = if_nametoindex(name);
		rc = rtnl_open(&n);
		p->has_iface = !rc && index && !iface_read(&n, (int)index, &p->iface);
		if (!rc)
			rtnl_close(&n);
		if (p->has_iface)
			m->xdp_features_rc = iface_xdp_features((int)index, &m->xdp_features);
	}
	p->node = -1;
	if (is_bare || p->kind == CFG_DEVICE_AFXDP || p->kind == CFG_DEVICE_AFPACKET) {
		rc = interface_plan(p, m, is_bare, err, err_size);
	} else if (p->kind == CFG_DEVICE_PCI) {
		rc = pci_plan(p, m, err, err_size);
	} else {
		rc = p->address ? refuse(err, err_size, -EINVAL,
		                          "a TAP has addresses of its own: edit address and host_address")
		                : 0;
		snprintf(p->why, sizeof(p->why), "A TAP: works on any machine, and is slower than the rest");
		snprintf(p->text, sizeof(p->text), "tap:%s", p->name);
	}
	if (rc)
		return rc;
	cfg_defaults(&cfg);
	snprintf(cfg.device, sizeof(cfg.device), "%.127s", p->text);
	p->node = machine_device_node(m, &cfg);
	gateway_find(p);
	cores_choose(p, m);
	rc = config_write(p, err, err_size);
	if (!rc)
		rc = config_check(p, &cfg, err, err_size);
	if (!rc && p->pages == -2)
		p->pages = (long)arena_pages(&cfg, p->has_iface ? p->iface.mtu : 0);
	if (p->node >= 0 && machine_nodes(m) > 1)
		snprintf(p->pages_path, sizeof(p->pages_path),
		        "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages", p->node);
	else
		snprintf(p->pages_path, sizeof(p->pages_path),
		        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
	return rc;
}
