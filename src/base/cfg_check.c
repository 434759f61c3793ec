/* cfg_check.c - owns the rules on what values mean, alone and together; ranges and choices are checked where
 * values are read (cfg_load.c). Pure: nothing here looks at the machine, so that a file can be checked
 * anywhere. A rule that joins two options blames the one that somebody wrote; if both were written, the more
 * special one. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "cfg_internal.h"

#define TAP_ADDRESS "198.18.0.2/24"

struct checker {
	const struct cfg *cfg;
	char *err;
	size_t err_size;
	enum cfg_device device;
	const char *device_arg;
	bool has_address; /* addr and prefix are known before the device is opened */
	uint8_t addr[4];
	unsigned prefix;
};

#define REFUSE(c, key, ...) cfg_refuse((c)->cfg, OPTION_##key, (c)->err, (c)->err_size, __VA_ARGS__)

void cfg_line_clean(char *line, size_t size)
{
	for (char *c = line; size > 0 && *c != '\0'; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

int cfg_refuse(const struct cfg *cfg, enum option_id id, char *err, size_t err_size, const char *fmt, ...)
{
	const char *key = cfg_options[id].key;
	char reason[512], upper[64];
	size_t i;
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	switch (cfg->origin[id]) {
	case CFG_ORIGIN_FILE:
		snprintf(err, err_size, "%s:%u: %s: %s", cfg->path, cfg->line[id], key, reason);
		break;
	case CFG_ORIGIN_ENVIRONMENT:
		for (i = 0; key[i] != '\0' && i < sizeof(upper) - 1; i++)
			upper[i] = (char)(key[i] >= 'a' && key[i] <= 'z' ? key[i] - 'a' + 'A' : key[i]);
		upper[i] = '\0';
		snprintf(err, err_size, "environment PRONK_%s: %s", upper, reason);
		break;
	case CFG_ORIGIN_TOOL:
		snprintf(err, err_size, "%s: %s", key, reason);
		break;
	default:
		snprintf(err, err_size, "default %s: %s", key, reason);
		break;
	}
	cfg_line_clean(err, err_size);
	return -EINVAL;
}

static bool is_set(const struct checker *c, enum option_id id)
{
	return c->cfg->origin[id] == CFG_ORIGIN_FILE || c->cfg->origin[id] == CFG_ORIGIN_ENVIRONMENT ||
	       c->cfg->origin[id] == CFG_ORIGIN_TOOL;
}

static int texts_check(struct checker *c)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const char *text = (const char *)c->cfg + cfg_options[i].offset;

		if (cfg_options[i].kind != CFG_KIND_STR)
			continue;
		for (; *text != '\0'; text++)
			if ((unsigned char)*text < 0x20 || *text == 0x7f)
				return cfg_refuse(c->cfg, i, c->err, c->err_size,
				        "control characters are not possible here (allowed: one line of text)");
	}
	return 0;
}

static int device_check(struct checker *c)
{
	const struct cfg *cfg = c->cfg;

	if (cfg_parse_device(cfg->device, &c->device, &c->device_arg) < 0)
		return REFUSE(c, device,
		        "\"%.64s\" is not a device (allowed: auto, tap:NAME, afpacket:IF, afxdp:IF, memif:/PATH, or a PCI "
		        "address such as 0000:3b:00.0; interface names have 1 to 15 characters)",
		        cfg->device);
	if (cfg->mtu != 0 && cfg->mtu < CFG_MTU_MIN)
		return REFUSE(c, mtu, "%u is too small (allowed: 0 or %d to %u bytes)", cfg->mtu, CFG_MTU_MIN,
		        cfg_options[OPTION_mtu].max);
	return 0;
}

static int address_check(struct checker *c)
{
	const struct cfg *cfg = c->cfg;

	if (strcmp(cfg->address, "auto") == 0) {
		if (c->device == CFG_DEVICE_MEMIF || c->device == CFG_DEVICE_PCI) {
			const char *reason =
			        "auto finds no address: there is no kernel interface behind this kind of device "
			        "(allowed: A.B.C.D/N)";

			if (is_set(c, OPTION_address))
				return REFUSE(c, address, "%s", reason);
			return REFUSE(c, device, "address is needed too: %s", reason);
		}
		if (c->device == CFG_DEVICE_TAP)
			c->has_address = cfg_parse_ipv4_prefix(TAP_ADDRESS, c->addr, &c->prefix) == 0;
		return 0;
	}
	if (cfg_parse_ipv4_prefix(cfg->address, c->addr, &c->prefix) < 0)
		return REFUSE(c, address,
		        "\"%s\" is not an address with prefix length (allowed: auto or A.B.C.D/N)",
		        cfg->address);
	if (!cfg_host_valid(c->addr, c->prefix))
		return REFUSE(c, address,
		        "%s cannot be a host's address (allowed: one that is not the network's own, broadcast, loopback, "
		        "multicast or reserved)",
		        cfg->address);
	c->has_address = true;
	return 0;
}

static int gateway_check(struct checker *c)
{
	const struct cfg *cfg = c->cfg;
	uint8_t gateway[4];

	if (strcmp(cfg->gateway, "auto") == 0 || strcmp(cfg->gateway, "none") == 0)
		return 0;
	if (cfg_parse_ipv4(cfg->gateway, gateway) < 0 || !cfg_host_valid(gateway, 32))
		return REFUSE(c, gateway, "\"%s\" is not a host's address (allowed: auto, none or A.B.C.D)",
		        cfg->gateway);
	if (!c->has_address)
		return 0; /* checked again when the kernel interface's address is known */
	if (memcmp(gateway, c->addr, 4) == 0)
		return REFUSE(c, gateway,
		        "%s is this port's own address (allowed: auto, none or another host)", cfg->gateway);
	/* Clouds give a host a /32 and a gateway outside it. */
	if (c->prefix < 32 &&
	        (!cfg_same_network(gateway, c->addr, c->prefix) || !cfg_host_valid(gateway, c->prefix)))
		return REFUSE(c, gateway,
		        "%s is not a host of the network %u.%u.%u.%u/%u (allowed: auto, none or one in it)",
		        cfg->gateway, c->addr[0], c->addr[1], c->addr[2], c->addr[3], c->prefix);
	return 0;
}

static int host_address_check(struct checker *c)
{
	const struct cfg *cfg = c->cfg;
	unsigned prefix;
	uint8_t addr[4];

	if (strcmp(cfg->host_address, "auto") == 0 || strcmp(cfg->host_address, "none") == 0)
		return 0;
	if (cfg_parse_ipv4_prefix(cfg->host_address, addr, &prefix) < 0 || !cfg_host_valid(addr, prefix))
		return REFUSE(c, host_address,
		        "\"%s\" is not a host's address (allowed: auto, none or A.B.C.D/N)",
		        cfg->host_address);
	if (c->device != CFG_DEVICE_TAP)
		return REFUSE(c, host_address,
		        "only a TAP has a kernel end (allowed for this device: auto or none)");
	if (memcmp(addr, c->addr, 4) == 0)
		return REFUSE(c, host_address, "%s is the port's own address (allowed: another one)",
		        cfg->host_address);
	/* The two ends must find each other. As for the gateway, a /32 has no network of its own: whoever
	 * writes one adds a route. */
	if (c->prefix < 32 &&
	        (!cfg_same_network(addr, c->addr, c->prefix) || !cfg_host_valid(addr, c->prefix)))
		return REFUSE(c, host_address,
		        "%s is not a host of the network %u.%u.%u.%u/%u of this port (allowed: auto, none or one in it)",
		        cfg->host_address, c->addr[0], c->addr[1], c->addr[2], c->addr[3], c->prefix);
	if (prefix < 32 && (!cfg_same_network(addr, c->addr, prefix) || !cfg_host_valid(c->addr, prefix)))
		return REFUSE(c, host_address,
		        "this port's %u.%u.%u.%u is not a host of the network %s (allowed: auto, none or an address "
		        "in whose network it is)",
		        c->addr[0], c->addr[1], c->addr[2], c->addr[3], cfg->host_address);
	return 0;
}

static int mac_check(struct checker *c)
{
	static const uint8_t zero[6];
	const struct cfg *cfg = c->cfg;
	uint8_t mac[6];

	if (strcmp(cfg->mac, "auto") == 0)
		return 0;
	if (cfg_parse_mac(cfg->mac, mac) < 0)
		return REFUSE(c, mac,
		        "\"%s\" is not an Ethernet address (allowed: auto or six hex pairs as 02:00:00:00:00:01)",
		        cfg->mac);
	if ((mac[0] & 1) != 0 || memcmp(mac, zero, sizeof(mac)) == 0)
		return REFUSE(c, mac,
		        "%s cannot be a port's own address (allowed: not zero, and the first byte even)",
		        cfg->mac);
	return 0;
}

static int stacks_check(struct checker *c)
{
	const struct cfg *cfg = c->cfg;
	uint64_t least;
	int count;

	if (strcmp(cfg->cores, "auto") != 0) {
		count = cfg_parse_cores(cfg->cores, NULL, 0);
		if (count < 0)
			return REFUSE(c, cores,
			        "\"%s\" is not a list of cores (allowed: auto, or numbers and ranges below 1024, none twice, as "
			        "1,3 or 2-5)",
			        cfg->cores);
		if ((uint32_t)count < cfg->stacks)
			return REFUSE(c, cores,
			        "%d core%s for %u stacks (allowed: at least one core for each stack)", count,
			        count == 1 ? "" : "s", cfg->stacks);
	}
	if (cfg->mode == CFG_MODE_INLINE && cfg->stacks > 1)
		return cfg_refuse(cfg, is_set(c, OPTION_stacks) ? OPTION_stacks : OPTION_mode, c->err,
		        c->err_size, "%u stacks are not possible with mode = \"inline\" (allowed: 1)",
		        cfg->stacks);
	if (cfg->dpdk_capture && cfg->mode == CFG_MODE_INLINE)
		return REFUSE(c, dpdk_capture,
		        "true is not possible with mode = \"inline\" (allowed: false; pronk-dump captures there)");
	if (cfg->dpdk_capture && cfg->hugepages == CFG_HUGEPAGES_OFF)
		return REFUSE(
		        c, dpdk_capture, "true is not possible with hugepages = \"off\" (allowed: false)");
	least = (uint64_t)cfg->stacks * (cfg->rx_queue_size + 512);
	if (cfg->packet_buffers < least) {
		const char *reason =
		        "with stacks = %u and rx_queue_size = %u, packet_buffers = %u is too little (allowed: "
		        "packet_buffers of at least %u)";
		enum option_id blame = is_set(c, OPTION_packet_buffers)  ? OPTION_packet_buffers
		                       : is_set(c, OPTION_rx_queue_size) ? OPTION_rx_queue_size
		                                                         : OPTION_stacks;

		return cfg_refuse(cfg, blame, c->err, c->err_size, reason, cfg->stacks, cfg->rx_queue_size,
		        cfg->packet_buffers, (unsigned)least);
	}
	least = ((uint64_t)cfg->stacks * cfg->send_buffer * 2 + (1 << 20) - 1) >> 20;
	if (cfg->send_memory_mb < least) {
		enum option_id blame = is_set(c, OPTION_send_memory_mb) ? OPTION_send_memory_mb
		                       : is_set(c, OPTION_send_buffer)  ? OPTION_send_buffer
		                                                        : OPTION_stacks;

		return cfg_refuse(cfg, blame, c->err, c->err_size,
		        "with stacks = %u and send_buffer = %u, send_memory_mb = %u is too little (allowed: send_memory_mb of at "
		        "least %u)",
		        cfg->stacks, cfg->send_buffer, cfg->send_memory_mb, (unsigned)least);
	}
	return 0;
}

static int service_check(struct checker *c)
{
	const struct cfg *cfg = c->cfg;
	size_t size;

	if (cfg->name[0] == '\0' ||
	        strspn(cfg->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") !=
	                strlen(cfg->name))
		return REFUSE(c, name,
		        "\"%s\" is not a name (allowed: 1 to 31 letters, digits, dashes and underscores)",
		        cfg->name);
	if (cfg->runtime_dir[0] != '/')
		return REFUSE(c, runtime_dir,
		        "\"%s\" is not an absolute path (allowed: a path that starts with /)",
		        cfg->runtime_dir);
	size = strlen(cfg->runtime_dir) + 1 + strlen(cfg->name) + strlen(".sock");
	if (size >= CFG_SOCKET_PATH_MAX) {
		enum option_id blame = is_set(c, OPTION_runtime_dir) ? OPTION_runtime_dir : OPTION_name;

		return cfg_refuse(cfg, blame, c->err, c->err_size,
		        "the socket's path RUNTIME_DIR/NAME.sock has %zu bytes (allowed: up to %d)", size,
		        CFG_SOCKET_PATH_MAX - 1);
	}
	if (strcmp(cfg->log_file, "stderr") != 0 && strcmp(cfg->log_file, "journal") != 0 &&
	        cfg->log_file[0] != '/')
		return REFUSE(c, log_file,
		        "\"%s\" is not an absolute path (allowed: stderr, journal, or a path that starts with /)",
		        cfg->log_file);
	return 0;
}

static int metrics_check(struct checker *c)
{
	const char *text = c->cfg->metrics_listen;
	int rc = text[0] != '\0' ? cfg_parse_listen(text, NULL, NULL) : 0;

	if (rc == -EADDRNOTAVAIL)
		return REFUSE(c, metrics_listen,
		        "%s is not a loopback address, and whoever reaches this port may read (allowed: "
		        "127.0.0.1:9464, [::1]:9464 or an absolute path; a proxy can serve others)",
		        text);
	if (rc)
		return REFUSE(c, metrics_listen,
		        "\"%s\" is no place to listen at (allowed: nothing, a loopback address and port as "
		        "127.0.0.1:9464 or [::1]:9464, or an absolute path)",
		        text);
	return 0;
}

int cfg_check(const struct cfg *cfg, char *err, size_t err_size)
{
	static int (*const checks[])(struct checker *) = {texts_check, device_check, address_check,
	        gateway_check, host_address_check, mac_check, stacks_check, service_check, metrics_check};
	struct checker c = {.cfg = cfg, .err = err, .err_size = err_size};

	for (unsigned i = 0; i < ARRAY_COUNT(checks); i++) {
		int rc = checks[i](&c);

		if (rc < 0)
			return rc;
	}
	return 0;
}
