/* cfg.h - the configuration: struct cfg, made from options.def, and everything that fills, checks or prints
 * one.
 *
 * A struct cfg is plain data. It is filled once by the control thread before other threads start and is
 * constant after that; any thread may read it. Reasons for errors are one line, "FILE:LINE: key: what is
 * wrong (allowed: ...)", or "environment PRONK_KEY: ..." when the value came from there.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <stdio.h>

#include "cfg_rules.h"

/* One id for each option: OPTION_device, OPTION_address, ... */
#define OPT_GROUP(title)
#define OPT_LIVE(key, what)
#define OPT_STR(key, def, max, help) OPTION_##key,
#define OPT_UINT(key, def, min, max, unit, help) OPTION_##key,
#define OPT_BOOL(key, def, help) OPTION_##key,
#define OPT_ENUM(key, def, choices, help) OPTION_##key,
enum option_id {
#include "options.def"
	OPTION_COUNT
};
#undef OPT_STR
#undef OPT_UINT
#undef OPT_BOOL
#undef OPT_ENUM

/* The choices of each OPT_ENUM, in the order of its string in options.def (a unit test compares them). */
enum cfg_rss { CFG_RSS_AUTO, CFG_RSS_HARDWARE, CFG_RSS_SOFTWARE };
enum cfg_checksum { CFG_CHECKSUM_AUTO, CFG_CHECKSUM_SOFTWARE };
enum cfg_partial_checksum {
	CFG_PARTIAL_CHECKSUM_AUTO,
	CFG_PARTIAL_CHECKSUM_ACCEPT,
	CFG_PARTIAL_CHECKSUM_DROP
};
enum cfg_memif_role { CFG_MEMIF_ROLE_CLIENT, CFG_MEMIF_ROLE_SERVER };
enum cfg_loopback { CFG_LOOPBACK_KERNEL, CFG_LOOPBACK_PRONK };
enum cfg_mode { CFG_MODE_DEDICATED, CFG_MODE_INLINE };
enum cfg_profile { CFG_PROFILE_LATENCY, CFG_PROFILE_BALANCED, CFG_PROFILE_THROUGHPUT };
enum cfg_hugepages { CFG_HUGEPAGES_AUTO, CFG_HUGEPAGES_ON, CFG_HUGEPAGES_OFF };
enum cfg_log_level {
	CFG_LOG_LEVEL_ERROR,
	CFG_LOG_LEVEL_WARNING,
	CFG_LOG_LEVEL_NOTICE,
	CFG_LOG_LEVEL_INFO,
	CFG_LOG_LEVEL_DEBUG
};

/* Where a value came from (cfg.origin). CFG_ORIGIN_PROFILE: left alone, and changed by the profile;
 * CFG_ORIGIN_TOOL: by pronkctl, while the service runs. */
enum cfg_origin {
	CFG_ORIGIN_DEFAULT,
	CFG_ORIGIN_FILE,
	CFG_ORIGIN_ENVIRONMENT,
	CFG_ORIGIN_PROFILE,
	CFG_ORIGIN_TOOL
};

enum {
	CFG_PATH_MAX = 256,        /* bytes of a config file's path kept for messages */
	CFG_FILE_PATH_MAX = 1024,  /* of one of several files, with the terminator */
	CFG_FILES_MAX = 8,         /* services that a program can use */
	CFG_SOCKET_PATH_MAX = 108, /* sockaddr_un.sun_path, with the terminator */
	CFG_IF_NAME_MAX = 16,      /* IFNAMSIZ */
	CFG_MTU_MIN = 576,         /* RFC 791: what every host takes */
};

/* The values. A string is a text field, a number or a choice is uint32_t, a switch is bool. */
struct cfg {
#define OPT_STR(key, def, max, help) char key[(max) + 1];
#define OPT_UINT(key, def, min, max, unit, help) uint32_t key;
#define OPT_BOOL(key, def, help) bool key;
#define OPT_ENUM(key, def, choices, help) uint32_t key;
#include "options.def"
#undef OPT_STR
#undef OPT_UINT
#undef OPT_BOOL
#undef OPT_ENUM
#undef OPT_GROUP
#undef OPT_LIVE

	uint8_t origin[OPTION_COUNT]; /* enum cfg_origin */
	uint32_t line[OPTION_COUNT];  /* line in the file where origin is CFG_ORIGIN_FILE */
	char path[CFG_PATH_MAX];      /* the file that was read; empty if none */

	/* option rules, which is none of the table's kinds: cfg_rules.h */
	struct cfg_rule rules[CFG_RULE_MAX];
	uint32_t rule_count;
	uint32_t rules_line;  /* as line */
	uint8_t rules_origin; /* as origin */
};

enum cfg_kind { CFG_KIND_STR, CFG_KIND_UINT, CFG_KIND_BOOL, CFG_KIND_ENUM };

/* One row of the options table. */
struct cfg_option {
	const char *key;
	enum cfg_kind kind;
	size_t offset;            /* of the value in struct cfg */
	const char *default_text; /* STR and ENUM */
	uint32_t default_value;   /* UINT and BOOL */
	uint32_t min, max;        /* UINT: range; STR: max is the longest text in bytes */
	const char *unit;         /* UINT; may be empty */
	const char *choices;      /* ENUM: "a|b|c" */
	const char *help;
};

extern const struct cfg_option cfg_options[OPTION_COUNT];

/* What `device` names. */
enum cfg_device {
	CFG_DEVICE_TAP,      /* arg: interface name */
	CFG_DEVICE_AFPACKET, /* arg: interface name */
	CFG_DEVICE_AFXDP,    /* arg: interface name */
	CFG_DEVICE_MEMIF,    /* arg: socket path */
	CFG_DEVICE_PCI,      /* arg: PCI address, as written */
};

/* Every option's default; no origin but CFG_ORIGIN_DEFAULT. Any thread; does not block. */
void cfg_defaults(struct cfg *cfg);

/* Fills cfg from the defaults, then the file at path (NULL: no file), then the environment (PRONK_<KEY>),
 * then the profile, and checks the whole with cfg_check. Control thread; blocks on file reads. Returns 0;
 * -ENOENT (or another -E of open(2)) when the file cannot be read; -EINVAL when anything in it or in the
 * environment is wrong. On failure cfg is untouched and err holds the reason. The environment is ignored in
 * set-user-id programs. */
int cfg_load(struct cfg *cfg, const char *path, char *err, size_t err_size);

/* Changes one option of a configuration that is in force, by the rules of the environment (numbers are
 * decimal, a switch may be on or off), and checks the whole. profile changes what it presets, too, whatever
 * that was. Pure. Returns 0; -EINVAL for an unknown option, one that cannot change while the service runs, or
 * a wrong value: then cfg is untouched and err holds the reason. */
int cfg_set_text(struct cfg *cfg, const char *key, const char *text, char *err, size_t err_size);

/* What a change by cfg_set_text is true for, as "for new sockets"; NULL: it cannot change. Pure. */
const char *cfg_option_live(enum option_id id);

/* Checks syntax and what options mean together (address and gateway, device and address, cores and stacks,
 * memory). Any thread; does not block and does not look at the machine. Returns 0, or -EINVAL with the reason
 * in err. */
int cfg_check(const struct cfg *cfg, char *err, size_t err_size);

/* Checks what cfg names of this machine: the interface of an afpacket or afxdp device, and the cores, as long
 * as threads are to run on them. For a checked cfg, in the process and network namespace of the service. Any
 * thread; short system calls. Returns 0, or -EINVAL with the reason in err. */
int cfg_check_machine(const struct cfg *cfg, bool has_threads, char *err, size_t err_size);

/* Checks whether this process has the capabilities that cfg's device takes, capabilities(7), so that a driver
 * need not say it in its words. Any thread; short system calls. Returns 0, or -EPERM with the reason in err.
 */
int cfg_check_rights(const struct cfg *cfg, char *err, size_t err_size);

/* Prints every option's value with its origin: as a config file that cfg_load takes, or as one JSON object.
 * Blocks as stdio does. Returns 0, or -EIO when the stream has an error. */
int cfg_dump(const struct cfg *cfg, FILE *file, bool json);

/* One option's value as it stands in a config file, which is also how JSON has it. Blocks as stdio does. */
void cfg_value_print(const struct cfg *cfg, enum option_id id, FILE *file);

/* The configuration files of one program, a service each; the first one is the main one. */
struct cfg_files {
	unsigned count;
	char path[CFG_FILES_MAX][CFG_FILE_PATH_MAX];
};

/* The config files to use when the user names none: those of $PRONK_CONFIG, separated by ':', whether or not
 * they exist (empty elements are skipped, and one that is named again is taken once); when it names none,
 * /etc/pronk/pronk.conf, else the installation's pronk/pronk.conf, if readable, else none (count 0: the
 * defaults hold). Any thread; does not block. Returns 0; -E2BIG or -ENAMETOOLONG with count 0 and the reason
 * in err. */
int cfg_files_find(struct cfg_files *out, char *err, size_t err_size);

/* The first of them, or NULL: what a tool is about that looks at one service. With a list in the environment
 * the result is good until the next call, and two threads must not be in here at once; else any thread, and
 * it is the environment's or constant. */
const char *cfg_default_path(void);

/* The service's socket, RUNTIME_DIR/NAME.sock; CFG_SOCKET_PATH_MAX bytes always suffice for a checked cfg.
 * Pure. */
void cfg_socket_path(const struct cfg *cfg, char *buf, size_t size);

/* The id of an option by key, or -ENOENT. Pure. */
int cfg_option_find(const char *key);

/* The key most like a misspelt one, or NULL if none is near. Pure. */
const char *cfg_option_suggest(const char *key);

/* Text of an option's choice number idx, copied into buf ("" if there is none). Returns 0 or -ENOENT. Pure.
 */
int cfg_choice_text(enum option_id id, uint32_t idx, char *buf, size_t size);

/* The choice number of a text, or -ENOENT. Pure. */
int cfg_choice_find(enum option_id id, const char *text);

/* "default", "file", "environment", "profile" or "pronkctl". Pure. */
const char *cfg_origin_name(uint8_t origin);

/* The parsers below are pure, take the whole text, and return 0 or -EINVAL without touching their results. */

/* A.B.C.D, in network order; no leading zeros. */
int cfg_parse_ipv4(const char *text, uint8_t addr[4]);

/* A.B.C.D/N with N from 1 to 32. That the address can be a host's is not checked; see cfg_host_valid. */
int cfg_parse_ipv4_prefix(const char *text, uint8_t addr[4], unsigned *prefix);

/* Six pairs of hex digits with colons. That it can be a port's own (not zero, no group) is not checked. */
int cfg_parse_mac(const char *text, uint8_t mac[6]);

/* Core numbers and ranges: "1,3" or "2-5,8", below CPU_CORE_MAX, none twice. Stores at most max in the order
 * written (cores may be NULL when max is 0). Returns how many there are (which may exceed max), or -EINVAL.
 */
int cfg_parse_cores(const char *text, uint16_t *cores, unsigned max);

/* The kind of a device and the rest of its text (*arg points into text, or to a constant for "auto"). */
int cfg_parse_device(const char *text, enum cfg_device *device, const char **arg);

/* Where to listen: ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or the absolute path of a unix socket, which fits
 * into a struct sockaddr_un. to may be NULL. 0; -EINVAL; or -EADDRNOTAVAIL when the address is not a loopback
 * address. Pure. */
int cfg_parse_listen(const char *text, struct sockaddr_storage *to, uint32_t *size);

/* Whether addr can be a host's address in a network of that prefix: not 0/8, loopback, multicast, reserved,
 * or (prefix up to 30) the network's own or broadcast address. Pure. */
bool cfg_host_valid(const uint8_t addr[4], unsigned prefix);

/* Whether two addresses lie in one network of that prefix (0 to 32). Pure. */
bool cfg_same_network(const uint8_t a[4], const uint8_t b[4], unsigned prefix);
