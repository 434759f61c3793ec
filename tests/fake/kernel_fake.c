/* kernel_fake.c - the kernel's side of a fake port: there is no interface, and the address is the
 * configuration's. */
#include <errno.h>
#include <string.h>

#include "cfg.h"
#include "nic_kernel.h"

int nic_kernel_address(const struct cfg *cfg, struct nic_address *a)
{
	memset(a, 0, sizeof(*a));
	return cfg_parse_ipv4_prefix(cfg->address, a->ip, &a->prefix);
}

int nic_kernel_interface(const struct cfg *cfg)
{
	(void)cfg;
	return -EINVAL;
}

int nic_kernel_choose(const struct cfg *cfg, const struct iface *iface, struct nic_address *a)
{
	(void)cfg, (void)iface, (void)a;
	return -EINVAL;
}
