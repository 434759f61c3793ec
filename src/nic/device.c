/* device.c - the kinds of device: what the option text names, what must be done on the kernel's side before
 * and after DPDK opens it, and the arguments its driver takes.
 *
 * Control thread. A TAP is created by its driver and vanishes with our descriptors; its two ends need
 * different Ethernet addresses, and the driver's `mac` is the kernel end's, so ours is made here. The other
 * interfaces belong to the machine: what is changed there is remembered in struct device and put back by
 * device_restore.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

enum {
	TUN_PERSISTENT = 0x0800, /* IFF_PERSIST of linux/if_tun.h, as shown in sysfs */
	AFXDP_BUSY_BUDGET = 64,
	TAP_QUEUE_FRAMES = 10000,
};

/* Dispositions of the real-time signals before net_tap looked for a free one. */
static struct sigaction signals_before[65];

int device_parse(struct device *device, const char *text, char *err, size_t err_size)
{
	static const enum device_kind kinds[] = {
	        [CFG_DEVICE_TAP] = DEVICE_TAP,
	        [CFG_DEVICE_AFPACKET] = DEVICE_AFPACKET,
	        [CFG_DEVICE_AFXDP] = DEVICE_AFXDP,
	        [CFG_DEVICE_MEMIF] = DEVICE_MEMIF,
	        [CFG_DEVICE_PCI] = DEVICE_PCI,
	};
	enum cfg_device kind;
	const char *arg;

	*device = (struct device){.kind = DEVICE_NULL};
	if (strcmp(text, "null:") == 0)
		return 0;
	if (strcmp(text, "ring:") == 0) {
		device->kind = DEVICE_RING;
		return 0;
	}
	if (cfg_parse_device(text, &kind, &arg) != 0)
		return nic_fail(err, err_size, -EINVAL, "\"%s\" is not a device", text);
	if (strlen(arg) >= sizeof(device->arg))
		return nic_fail(err, err_size, -EINVAL, "the device's name is too long");
	device->kind = kinds[kind];
	memcpy(device->arg, arg, strlen(arg) + 1);
	return 0;
}

/* Nobody else's interface may be taken over: the driver would silently add its queues to it. */
static int tap_prepare(struct device *device, char *err, size_t err_size)
{
	char path[160];
	FILE *file;
	unsigned flags = 0;

	device->created = true;
	device->has_mac = getrandom(device->mac, sizeof(device->mac), 0) == (ssize_t)sizeof(device->mac);
	device->mac[0] = (uint8_t)((device->mac[0] & 0xfc) | 0x02);
	if (access("/dev/net/tun", R_OK | W_OK) != 0)
		return nic_fail(err, err_size, -errno, "cannot use /dev/net/tun: %s", strerror(errno));
	for (int signo = SIGRTMIN; signo <= SIGRTMAX && signo < 65; signo++)
		sigaction(signo, NULL, &signals_before[signo]);
	if (if_nametoindex(device->arg) == 0)
		return 0;
	snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", device->arg);
	file = fopen(path, "re");
	if (file != NULL) {
		if (fscanf(file, "%x", &flags) != 1)
			flags = 0;
		fclose(file);
	}
	if (!(flags & TUN_PERSISTENT))
		return nic_fail(err, err_size, -EEXIST,
		        "an interface %s exists already (is another pronkd running? `device = \"tap:NAME\"` chooses another name)",
		        device->arg);
	return kernel_if_flags(device->arg, 0, IFF_UP) < 0
	               ? nic_fail(err, err_size, -EPERM, "cannot set interface %s down", device->arg)
	               : 0;
}

static int interface_prepare(struct device *device, const struct cfg *cfg, char *err, size_t err_size)
{
	const char *name = device->arg;
	uint8_t own[6];
	int ret;

	if (if_nametoindex(name) == 0)
		return nic_fail(err, err_size, -ENODEV, "there is no interface %s", name);
	ret = kernel_if_flags(name, IFF_UP, 0);
	if (ret < 0)
		return nic_fail(err, err_size, ret, "cannot set interface %s up: %s", name, strerror(-ret));
	ret = kernel_if_mac(name, device->mac);
	if (ret < 0)
		return nic_fail(
		        err, err_size, ret, "cannot read the address of %s: %s", name, strerror(-ret));
	device->has_mac = true;
	ret = kernel_if_mtu(name);
	device->mtu = ret > 0 ? (uint32_t)ret : 0;
	device->was_promiscuous = kernel_if_has_flag(name, IFF_PROMISC);
	device->promiscuous = device->was_promiscuous ||
	                      (cfg_parse_mac(cfg->mac, own) == 0 && memcmp(own, device->mac, 6) != 0);
	if (device->kind == DEVICE_AFPACKET && kernel_if_gro(name, false) == 1) {
		device->gro_was_on = true;
		log_info(
		        "%s: merging of received segments (gro) is off while this service uses the interface",
		        name);
	}
	if (device->kind == DEVICE_AFPACKET) {
		ret = veth_calm_peer(name);
		device->veth_link = ret >= 0 ? ret + 1 : 0;
		if (ret >= 0)
			log_info(
			        "%s: its peer sends no merged segments (tso, gso) while this service uses it",
			        name);
	}
	return 0;
}

/* The whole interface is ours: what it spreads over queues that no stack reads would go to the kernel, and be
 * reset there. So it gets as many queues as there are stacks (one, where it has no combined queues: the
 * driver takes no more). */
static int afxdp_prepare(struct device *device, uint32_t stack_count, char *err, size_t err_size)
{
	bool combined;
	uint32_t before = kernel_if_queues(device->arg, &combined), want = combined ? stack_count : 1;
	int ret;

	if (before <= want)
		return 0;
	ret = kernel_if_set_queues(device->arg, want);
	if (ret != 0)
		return nic_fail(err, err_size, ret,
		        "%s has %u receive queues and cannot be set to %u, so packets would miss us (`ethtool -L`): %s",
		        device->arg, before, want, strerror(-ret));
	device->queues_before = before;
	log_notice(
	        "%s: set to %u of %u receive queues while this service uses it", device->arg, want, before);
	return 0;
}

/* A server's socket that nobody listens on any more would keep us from listening. */
static int memif_prepare(struct device *device, const struct cfg *cfg, char *err, size_t err_size)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd, ret;

	if (strlen(device->arg) >= sizeof(un.sun_path))
		return nic_fail(err, err_size, -ENAMETOOLONG,
		        "the path of the memif socket is longer than %zu bytes", sizeof(un.sun_path) - 1);
	memcpy(un.sun_path, device->arg, strlen(device->arg));
	if (cfg->memif_role != CFG_MEMIF_ROLE_SERVER || access(device->arg, F_OK) != 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ret = connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0 ? -EADDRINUSE : -errno;
	close(fd);
	if (ret == -ECONNREFUSED && unlink(device->arg) == 0)
		return 0;
	return nic_fail(err, err_size, ret, "cannot listen on %s: %s", device->arg, strerror(-ret));
}

int device_prepare(
        struct device *device, const struct cfg *cfg, uint32_t stack_count, char *err, size_t err_size)
{
	int ret = 0;

	switch (device->kind) {
	case DEVICE_TAP:
		ret = tap_prepare(device, err, err_size);
		break;
	case DEVICE_AFPACKET:
	case DEVICE_AFXDP:
		ret = interface_prepare(device, cfg, err, err_size);
		if (ret == 0 && device->kind == DEVICE_AFXDP)
			ret = afxdp_prepare(device, stack_count, err, err_size);
		break;
	case DEVICE_MEMIF:
		ret = memif_prepare(device, cfg, err, err_size);
		break;
	case DEVICE_PCI:
	case DEVICE_NULL:
	case DEVICE_RING:
		break;
	}
	if (ret == 0 && cfg_parse_mac(cfg->mac, device->mac) == 0)
		device->has_mac = true;
	return ret;
}

uint32_t device_queues(const struct device *device, uint32_t stack_count)
{
	uint32_t queues;
	bool combined;

	switch (device->kind) {
	case DEVICE_AFXDP:
		queues = kernel_if_queues(device->arg, &combined);
		return combined ? RTE_MIN(stack_count, queues) : 1;
	case DEVICE_MEMIF: /* the peer decides how many rings there are, and only when it connects */
		return 1;
	case DEVICE_RING:
		return 1;
	default:
		return stack_count;
	}
}

void device_vdev(const struct device *device, const struct cfg *cfg, uint32_t queues, char *name,
        size_t name_size, char *args, size_t args_size)
{
	switch (device->kind) {
	case DEVICE_TAP:
		snprintf(name, name_size, "net_tap0");
		snprintf(args, args_size, "iface=%s", device->arg);
		break;
	case DEVICE_AFPACKET:
		snprintf(name, name_size, "net_af_packet0");
		snprintf(args, args_size, "iface=%s,qpairs=%u,framecnt=%u", device->arg, queues,
		        RTE_MAX(cfg->rx_queue_size, cfg->tx_queue_size) & ~1u);
		break;
	case DEVICE_AFXDP:
		/* With a budget an empty receive call lets the kernel's driver work; without, the driver may
		 * block in poll(2) for a second when a zero-copy port asks for a wake-up. */
		snprintf(name, name_size, "net_af_xdp0");
		snprintf(args, args_size, "iface=%s,start_queue=0,queue_count=%u,busy_budget=%d", device->arg,
		        queues, AFXDP_BUSY_BUDGET);
		break;
	case DEVICE_MEMIF:
		snprintf(name, name_size, "net_memif0");
		snprintf(args, args_size, "role=%s,id=%u,socket=%s,socket-abstract=no,rsize=%d,bsize=%u",
		        cfg->memif_role == CFG_MEMIF_ROLE_SERVER ? "server" : "client", cfg->memif_id,
		        device->arg,
		        31 - __builtin_clz(
		                     RTE_MIN(RTE_MAX(cfg->rx_queue_size, 64u), (uint32_t)MEMIF_RING_MAX)),
		        MEMIF_BUFFER);
		break;
	case DEVICE_NULL:
		snprintf(name, name_size, "net_null0");
		args[0] = '\0';
		break;
	case DEVICE_RING:
		snprintf(name, name_size, "net_ring0");
		args[0] = '\0';
		break;
	case DEVICE_PCI:
		name[0] = args[0] = '\0';
		break;
	}
}

/* net_tap has the kernel send a real-time signal for each packet, to whatever thread does not block it, and
 * receives only after its handler ran. We do not want signals in this process: without O_ASYNC the handler
 * never runs, and the driver then simply reads at each call. The interface is still down, so none has come
 * yet. */
static int tap_disable_signal(char *err, size_t err_size)
{
	struct wait_fds fds;

	wait_snapshot(&fds);
	for (uint32_t i = 0; i < fds.count; i++) {
		char path[32], target[32] = "";
		int flags;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds.fd[i]);
		if (readlink(path, target, sizeof(target) - 1) < 0 || strcmp(target, "/dev/net/tun") != 0)
			continue;
		flags = fcntl(fds.fd[i], F_GETFL);
		if (flags < 0 || fcntl(fds.fd[i], F_SETFL, flags & ~O_ASYNC) < 0)
			return nic_fail(
			        err, err_size, -errno, "cannot configure the TAP: %s", strerror(errno));
		fcntl(fds.fd[i], F_SETFD, FD_CLOEXEC);
	}
	for (int signo = SIGRTMIN; signo <= SIGRTMAX && signo < 65; signo++) {
		struct sigaction now, ignore = {.sa_handler = SIG_IGN};

		sigaction(signo, NULL, &now);
		if (now.sa_handler == signals_before[signo].sa_handler)
			continue;
		sigaction(signo, &ignore, NULL); /* forgets a pending one */
		sigaction(signo, &signals_before[signo], NULL);
	}
	return 0;
}

/* libbpf and libxdp, which net_af_xdp brings along, print to stderr unless told otherwise. They are loaded
 * when the EAL is up, but not linked: hence by name. */
static int library_print(int level, const char *fmt, va_list args)
{
	char text[256];
	int length = vsnprintf(text, sizeof(text), fmt, args);

	length = RTE_MIN(length, (int)sizeof(text) - 1);
	while (length > 0 && text[length - 1] == '\n')
		length--;
	if (level == 0) /* a warning, in both libraries; and many a harmless one */
		log_info("%.*s", length, text);
	else
		log_debug("%.*s", length, text);
	return 0;
}

static void library_quiet(const char *library, const char *function)
{
	void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
	void *(*set)(int (*)(int, const char *, va_list));

	if (handle == NULL)
		return;
	*(void **)&set = dlsym(handle, function);
	if (set != NULL)
		set(library_print);
	dlclose(handle); /* only our count: the driver keeps it loaded */
}

void device_libraries_quiet(const struct device *device)
{
	if (device->kind != DEVICE_AFXDP)
		return;
	library_quiet("libbpf.so.1", "libbpf_set_print");
	library_quiet("libxdp.so.1", "libxdp_set_print");
}

int device_before_start(struct device *device, char *err, size_t err_size)
{
	return device->kind == DEVICE_TAP ? tap_disable_signal(err, err_size) : 0;
}

int device_after_start(struct device *device, const struct cfg *cfg, char *err, size_t err_size)
{
	const char *text = cfg->host_address;
	uint8_t addr[4];
	unsigned prefix;
	int ret;

	/* Starting a port makes DPDK put the mode back that it believes in. */
	if (device->promiscuous && kernel_if_flags(device->arg, IFF_PROMISC, 0) < 0)
		return nic_fail(err, err_size, -EPERM, "cannot set %s to promiscuous mode", device->arg);
	/* groups are joined above this layer: the interface shall let all of them in */
	if ((device->kind == DEVICE_AFPACKET || device->kind == DEVICE_AFXDP) &&
	        !kernel_if_has_flag(device->arg, IFF_ALLMULTI))
		device->all_multicast = kernel_if_flags(device->arg, IFF_ALLMULTI, 0) == 0;
	/* the kernel drops what does not fit, and nobody here would know: a stack's thread that has lost its
	 * core for some milliseconds finds more than the usual 500 frames */
	if (device->kind == DEVICE_TAP && kernel_if_set_queue(device->arg, TAP_QUEUE_FRAMES) != 0)
		log_notice("%s: the kernel's queue keeps its length", device->arg);
	if (device->kind != DEVICE_TAP || strcmp(text, "none") == 0)
		return 0;
	if (strcmp(text, "auto") == 0) {
		if (strcmp(cfg->address, "auto") != 0) {
			log_notice("%s: the kernel's end has no address: set host_address, or give it one",
			        device->arg);
			return 0;
		}
		text = "198.18.0.1/24";
	}
	if (cfg_parse_ipv4_prefix(text, addr, &prefix) != 0)
		return nic_fail(err, err_size, -EINVAL, "host_address \"%s\" is not A.B.C.D/N", text);
	ret = kernel_if_set_address(device->arg, addr, prefix);
	if (ret != 0)
		return nic_fail(err, err_size, ret, "cannot give %s the address %s: %s", device->arg, text,
		        strerror(-ret));
	return 0;
}

/* The C library's, for the whole service. DPDK's AF_PACKET driver makes its sockets a fan-out group and wants
 * fragments put together by the kernel first, for the sake of its hash: what comes out of that is longer than
 * a buffer and would be lost. Steering is ours (queue.c), so the group shall take fragments as they are. */
int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	int fanout;

	if (level == SOL_PACKET && name == PACKET_FANOUT && size == sizeof(fanout)) {
		memcpy(&fanout, value, sizeof(fanout));
		fanout &= ~(PACKET_FANOUT_FLAG_DEFRAG << 16);
		value = &fanout;
	}
	return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

uint64_t device_link_tag(const struct device *device, uint32_t memif_id)
{
	struct stat st;
	uint64_t tag;

	if (device->kind != DEVICE_MEMIF || stat(device->arg, &st) != 0)
		return 0;
	tag = (uint64_t)st.st_dev * 0x9e3779b97f4a7c15ull + (uint64_t)st.st_ino;
	tag = (tag ^ tag >> 29) * 0xd6e8feb86659fd93ull + memif_id;
	return tag | 1ull << 63;
}

void device_restore(struct device *device)
{
	if (device->veth_link)
		close(device->veth_link - 1);
	device->veth_link = 0;
	if (device->gro_was_on)
		kernel_if_gro(device->arg, true);
	if (device->promiscuous && !device->was_promiscuous)
		kernel_if_flags(device->arg, 0, IFF_PROMISC);
	if (device->all_multicast)
		kernel_if_flags(device->arg, 0, IFF_ALLMULTI);
	device->all_multicast = false;
	if (device->queues_before != 0)
		kernel_if_set_queues(device->arg, device->queues_before);
	device->gro_was_on = device->promiscuous = false;
	device->queues_before = 0;
}
