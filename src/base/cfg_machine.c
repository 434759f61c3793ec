/* cfg_machine.c - what a configuration names of the machine, and the rights its device takes, which
 * cfg_check.c leaves out so that a file can be checked anywhere. Owns nothing. Runs in the control thread
 * before the port is opened, and in `pronkd --check`. */
#include <errno.h>
#include <linux/capability.h>
#include <net/if.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cfg_internal.h"
#include "cpu.h"

enum { CORES_MAX = 16 }; /* as many as there can be stacks: later ones in the list are not used */

/* "0-3,6": the cores of a list in ascending order. */
static void ranges_text(const uint16_t *cores, unsigned count, char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = '\0';
	for (unsigned i = 0, last; i < count && used < size; i = last + 1) {
		for (last = i; last + 1 < count && cores[last + 1] == cores[last] + 1; last++)
			;
		used += (size_t)snprintf(buf + used, size - used, last > i ? "%s%u-%u" : "%s%u",
		        i > 0 ? "," : "", cores[i], cores[last]);
	}
}

static int device_check(const struct cfg *cfg, char *err, size_t err_size)
{
	enum cfg_device device;
	const char *arg;

	if (cfg_parse_device(cfg->device, &device, &arg) < 0 ||
	        (device != CFG_DEVICE_AFPACKET && device != CFG_DEVICE_AFXDP) || if_nametoindex(arg) != 0)
		return 0;
	return cfg_refuse(cfg, OPTION_device, err, err_size,
	        "there is no interface %s (allowed: one that `ip link` shows)", arg);
}

static int cores_check(const struct cfg *cfg, char *err, size_t err_size)
{
	uint16_t cores[CORES_MAX], allowed[CPU_CORE_MAX];
	int count = cfg_parse_cores(cfg->cores, cores, CORES_MAX),
	    allowed_count = cpu_allowed(allowed, CPU_CORE_MAX), k;
	char text[128];

	if (strcmp(cfg->cores, "auto") == 0 || allowed_count <= 0)
		return 0;
	for (int i = 0; i < count && i < CORES_MAX && (uint32_t)i < cfg->stacks; i++) {
		for (k = 0; k < allowed_count && allowed[k] != cores[i]; k++)
			;
		if (k < allowed_count)
			continue;
		ranges_text(allowed, (unsigned)allowed_count, text, sizeof(text));
		return cfg_refuse(cfg, OPTION_cores, err, err_size,
		        "there is no core %u for this process (allowed: auto, or some of %s)", cores[i],
		        text);
	}
	return 0;
}

int cfg_check_machine(const struct cfg *cfg, bool has_threads, char *err, size_t err_size)
{
	int rc = device_check(cfg, err, err_size);

	if (rc == 0 && has_threads)
		rc = cores_check(cfg, err, err_size);
	return rc == 0 && cfg_rules_check_users(cfg, err, err_size) != 0 ? -EINVAL : rc;
}

/* --- rights --- */

static const struct {
	unsigned capability;
	const char *name;
} capabilities[] = {{CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {CAP_NET_RAW, "CAP_NET_RAW"},
        {CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {CAP_IPC_LOCK, "CAP_IPC_LOCK"}};

/* Bits 1 << CAP_* (below 32) that this thread may use now. */
static uint32_t capabilities_held(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capget, &head, data) < 0 ? UINT32_MAX : data[0].effective;
}

/* What packet memory may be locked for a device that asks for it. */
static bool is_locking_possible(const struct cfg *cfg)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
	       limit.rlim_cur / 4096 > cfg->packet_buffers;
}

int cfg_check_rights(const struct cfg *cfg, char *err, size_t err_size)
{
	const uint32_t admin = 1u << CAP_NET_ADMIN, raw = 1u << CAP_NET_RAW;
	uint32_t wanted = 0, missing;
	enum cfg_device device;
	char names[128] = "";
	const char *arg;

	if (cfg_parse_device(cfg->device, &device, &arg) < 0)
		return 0;
	switch (device) {
	case CFG_DEVICE_TAP: /* one that is there may have been made for this user */
		wanted = if_nametoindex(arg) == 0 ? admin : 0;
		break;
	case CFG_DEVICE_AFPACKET: /* and its Ethernet address is set */
		wanted = admin | raw;
		break;
	case CFG_DEVICE_AFXDP: /* XDP programs and maps are found by their numbers, bpf(2) */
		wanted = admin | raw | 1u << CAP_SYS_ADMIN;
		if (!is_locking_possible(cfg))
			wanted |= 1u << CAP_IPC_LOCK;
		break;
	case CFG_DEVICE_MEMIF:
	case CFG_DEVICE_PCI: /* who may open its file below /dev/vfio may have it */
		break;
	}
	missing = wanted & ~capabilities_held();
	if (missing == 0)
		return 0;
	for (unsigned i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++) {
		size_t used = strlen(names);

		if (missing >> capabilities[i].capability & 1)
			snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "",
			        capabilities[i].name);
	}
	cfg_refuse(cfg, OPTION_device, err, err_size,
	        "%s takes rights that this process does not have: %s (allowed: root, or a user with these "
	        "capabilities)",
	        cfg->device, names);
	return -EPERM;
}
