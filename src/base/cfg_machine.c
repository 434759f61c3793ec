/* cfg_machine.c - the rules on what a configuration names of the machine, which cfg_check.c leaves out so
 * that a file can be checked anywhere. Owns nothing. Runs in the control thread before the port is opened,
 * and in `pronkd --check`. */
#include <errno.h>
#include <net/if.h>
#include <string.h>

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

	return rc == 0 && has_threads ? cores_check(cfg, err, err_size) : rc;
}
