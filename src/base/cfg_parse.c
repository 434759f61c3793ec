/* cfg_parse.c - parsers of single texts that occur in options: addresses, core lists, device names. Pure
 * functions; any thread. They are strict, because a typing error that is taken for something else costs an
 * operator hours. */
#include <arpa/inet.h>
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "cfg.h"
#include "compiler.h"
#include "cpu.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Reads a decimal number up to max at *text and moves *text behind it. Returns it, or -EINVAL. */
static int number_read(const char **text, int max)
{
	const char *c = *text;
	int value = 0;

	if (*c < '0' || *c > '9')
		return -EINVAL;
	if (c[0] == '0' && c[1] >= '0' && c[1] <= '9')
		return -EINVAL;
	for (; *c >= '0' && *c <= '9'; c++) {
		value = value * 10 + (*c - '0');
		if (value > max)
			return -EINVAL;
	}
	*text = c;
	return value;
}

int cfg_parse_ipv4(const char *text, uint8_t addr[4])
{
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) != 1)
		return -EINVAL;
	memcpy(addr, &in, 4);
	return 0;
}

int cfg_parse_ipv4_prefix(const char *text, uint8_t addr[4], unsigned *prefix)
{
	const char *slash = strchr(text, '/');
	char host[INET_ADDRSTRLEN];
	uint8_t parsed[4];
	int value;

	if (slash == NULL || (size_t)(slash - text) >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, (size_t)(slash - text));
	host[slash - text] = '\0';
	if (cfg_parse_ipv4(host, parsed) < 0)
		return -EINVAL;
	slash++;
	value = number_read(&slash, 32);
	if (value < 1 || *slash != '\0')
		return -EINVAL;
	memcpy(addr, parsed, 4);
	*prefix = (unsigned)value;
	return 0;
}

int cfg_parse_mac(const char *text, uint8_t mac[6])
{
	uint8_t parsed[6];

	if (strlen(text) != 17)
		return -EINVAL;
	for (unsigned i = 0; i < 6; i++) {
		int high = hex_digit(text[3 * i]), low = hex_digit(text[3 * i + 1]);

		if (high < 0 || low < 0 || text[3 * i + 2] != (i < 5 ? ':' : '\0'))
			return -EINVAL;
		parsed[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(mac, parsed, sizeof(parsed));
	return 0;
}

/* Walks a core list; stores up to max cores if cores is not NULL. */
static int cores_walk(const char *text, uint16_t *cores, unsigned max)
{
	uint64_t seen[CPU_CORE_MAX / 64] = {0};
	int count = 0;

	for (;;) {
		int first = number_read(&text, CPU_CORE_MAX - 1), last = first;

		if (first < 0)
			return -EINVAL;
		if (*text == '-') {
			text++;
			last = number_read(&text, CPU_CORE_MAX - 1);
			if (last < first)
				return -EINVAL;
		}
		for (int core = first; core <= last; core++) {
			if (seen[core / 64] >> (core % 64) & 1)
				return -EINVAL;
			seen[core / 64] |= 1ULL << (core % 64);
			if (cores != NULL && (unsigned)count < max)
				cores[count] = (uint16_t)core;
			count++;
		}
		if (*text == '\0')
			return count;
		if (*text++ != ',')
			return -EINVAL;
	}
}

int cfg_parse_cores(const char *text, uint16_t *cores, unsigned max)
{
	int count = cores_walk(text, NULL, 0);

	return count < 0 || max == 0 ? count : cores_walk(text, cores, max);
}

/* What the kernel takes as an interface name (dev_valid_name), without blanks, quotes or control characters.
 */
static bool if_name_valid(const char *name)
{
	size_t size = strlen(name);

	if (size == 0 || size >= CFG_IF_NAME_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (; *name != '\0'; name++)
		if (*name <= ' ' || *name >= 0x7f || strchr("/:,\"'\\", *name) != NULL)
			return false;
	return true;
}

/* [DDDD:]BB:DD.F in hex; the function is 0 to 7. */
static bool pci_valid(const char *text)
{
	static const char long_form[] = "xxxx:xx:xx.x";
	const char *form = strlen(text) == sizeof(long_form) - 1 ? long_form : long_form + 5;
	size_t size = strlen(form);

	if (strlen(text) != size)
		return false;
	for (size_t i = 0; i < size; i++)
		if (form[i] == 'x' ? hex_digit(text[i]) < 0 : text[i] != form[i])
			return false;
	/* A device number has five bits and a function number three. */
	return hex_digit(text[size - 4]) <= 1 && hex_digit(text[size - 1]) <= 7;
}

int cfg_parse_device(const char *text, enum cfg_device *device, const char **arg)
{
	static const struct {
		const char *word;
		enum cfg_device device;
	} kinds[] = {
	        {"tap:", CFG_DEVICE_TAP},
	        {"afpacket:", CFG_DEVICE_AFPACKET},
	        {"afxdp:", CFG_DEVICE_AFXDP},
	        {"memif:", CFG_DEVICE_MEMIF},
	};

	if (strcmp(text, "auto") == 0) {
		*device = CFG_DEVICE_TAP;
		*arg = "pronk0";
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++) {
		size_t size = strlen(kinds[i].word);
		const char *rest = text + size;

		if (strncmp(text, kinds[i].word, size) != 0)
			continue;
		if (kinds[i].device == CFG_DEVICE_MEMIF) {
			if (rest[0] != '/' || rest[1] == '\0' || strlen(rest) >= CFG_SOCKET_PATH_MAX ||
			        strpbrk(rest, ", \t") != NULL)
				return -EINVAL;
		} else if (!if_name_valid(rest)) {
			return -EINVAL;
		}
		*device = kinds[i].device;
		*arg = rest;
		return 0;
	}
	if (!pci_valid(text))
		return -EINVAL;
	*device = CFG_DEVICE_PCI;
	*arg = text;
	return 0;
}

static uint32_t prefix_mask(unsigned prefix)
{
	return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
}

static uint32_t addr_number(const uint8_t addr[4])
{
	return (uint32_t)addr[0] << 24 | (uint32_t)addr[1] << 16 | (uint32_t)addr[2] << 8 | addr[3];
}

bool cfg_host_valid(const uint8_t addr[4], unsigned prefix)
{
	uint32_t number = addr_number(addr), host_bits = ~prefix_mask(prefix);

	if (addr[0] == 0 || addr[0] == 127 || addr[0] >= 224)
		return false;
	/* RFC 3021: a /31 has two hosts and no broadcast address. */
	return prefix > 30 || ((number & host_bits) != 0 && (number & host_bits) != host_bits);
}

bool cfg_same_network(const uint8_t a[4], const uint8_t b[4], unsigned prefix)
{
	return ((addr_number(a) ^ addr_number(b)) & prefix_mask(prefix)) == 0;
}

static int listen_path(const char *text, struct sockaddr_storage *to, uint32_t *size)
{
	struct sockaddr_un *un = (struct sockaddr_un *)to;

	if (strlen(text) >= sizeof(un->sun_path) || text[1] == '\0')
		return -EINVAL;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, text, strlen(text) + 1);
	*size = sizeof(*un);
	return 0;
}

int cfg_parse_listen(const char *text, struct sockaddr_storage *to, uint32_t *size)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&storage;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&storage;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2];
	uint32_t length, port = 0;
	bool is_loopback;
	int rc = 0;

	if (text[0] == '/') {
		rc = listen_path(text, &storage, &length);
		goto out;
	}
	if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
		return -EINVAL;
	for (const char *c = colon + 1; *c != '\0'; c++) {
		if (*c < '0' || *c > '9' || port > 65535)
			return -EINVAL;
		port = port * 10 + (uint32_t)(*c - '0');
	}
	if (port == 0 || port > 65535)
		return -EINVAL;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	if (host[0] == '[' && colon[-1] == ']') {
		host[colon - text - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &in6->sin6_addr) != 1)
			return -EINVAL;
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		length = sizeof(*in6);
		is_loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
	} else {
		if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
			return -EINVAL;
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		length = sizeof(*in);
		is_loopback = (ntohl(in->sin_addr.s_addr) >> 24) == 127;
	}
	rc = is_loopback ? 0 : -EADDRNOTAVAIL;
out:
	if (rc == 0 && to != NULL) {
		*to = storage;
		*size = length;
	}
	return rc;
}
