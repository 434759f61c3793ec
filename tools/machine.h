/* machine.h - what `pronk check` and `pronk setup` know of this machine, and how findings are told.
 *
 * One process, one thread. Files are read below a root folder, and what only a system call can tell is asked
 * in machine_probe: so tests put a folder and a filled-in struct in the machine's place.
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

#include "cfg.h"
#include "compiler.h"
#include "cpu.h"
#include "iface.h"

enum { TEXT_SIZE = 512, KNOWN_MAX = 64, NODE_MAX = 64 };

/* An IPv4 address of the machine. */
struct known_addr {
	int index;
	char name[IF_NAMESIZE];
	struct iface_addr addr;
};

struct machine {
	const char *root; /* "" for the real one */
	char release[65]; /* uname(2) */
	bool is_root;
	uint64_t caps; /* effective capabilities */
	struct rlimit files, memlock;
	int allowed_count; /* cores this process may use */
	uint16_t allowed[CPU_CORE_MAX];
	int xdp_socket;    /* 0: the kernel makes one; -E */
	int xdp_program;   /* 1: the kernel takes XDP programs; 0: not; -E: cannot be seen */
	int packet_socket; /* 0 or -E */
	int service;       /* of the configuration: 0 one answers; -E */
	int service_pid;
	int iface_rc; /* 0: iface holds the device's kernel interface; -E */
	struct iface iface;
	int xdp_features_rc;
	uint64_t xdp_features; /* IFACE_XDP_* */
	int ssh_index;         /* interface that the ssh session of this process comes through; -E: none */
	uint32_t known_count;
	struct known_addr known[KNOWN_MAX];
	char library[64], drivers[256]; /* of pronkd --drivers; empty when it does not say */
	/* tests: called with every write below root, after it, in the kernel's place */
	void (*on_write)(void *arg, const char *path, const char *value);
	void *on_write_arg;
	/* tests: called instead of running a program when there is a root; its exit status */
	int (*on_run)(void *arg, const char *const *argv);
	void *on_run_arg;
};

/* Asks the kernel; cfg names service and device. Blocks for as long as that takes, a second or two at most
 * when a service hangs. Never fails: what cannot be had is -E in its field. */
void machine_probe(struct machine *m, const struct cfg *cfg);

/* Text of a file below root without the newline at its end; at most size - 1 bytes. Its length, or -E. */
int machine_read(const struct machine *m, char *buf, size_t size, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* The number in a file, or -E. */
long machine_number(const struct machine *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool machine_has(const struct machine *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The last part of where a link points to. 0 or -E. */
int machine_link(const struct machine *m, char *buf, size_t size, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Writes value to a file that exists. 0 or -E. */
int machine_write(const struct machine *m, const char *value, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Runs a program and waits for its end. Its exit status, or -E. */
int machine_run(const struct machine *m, const char *const *argv);
/* The other end of the ssh session that process pid belongs to, as its environment or that of one of its
 * parents has it: sudo and su leave nothing of it in their child's. 0, or -ENOENT. */
int machine_ssh_peer(const struct machine *m, int pid, char *peer, size_t size);
/* Whether other interfaces lie on this one: a VLAN, the bond or bridge that it is a part of; name gets one of
 * them. */
bool machine_upper(const struct machine *m, const char *iface, char *name, size_t size);

/* Cores of a list such as "0-3,8" in a file, as a bitmap by core; false when there is no such file or it is
 * empty. */
struct core_set {
	uint64_t bit[CPU_CORE_MAX / 64];
};
bool machine_cores(const struct machine *m, struct core_set *set, const char *fmt, ...) PRINTF_LIKE(3, 4);
static inline bool core_in(const struct core_set *set, unsigned core)
{
	return set->bit[core / 64] >> (core % 64) & 1;
}
/* NUMA node of a core, or -1. */
int machine_core_node(const struct machine *m, unsigned core);
/* Number of NUMA nodes, at least 1. */
int machine_nodes(const struct machine *m);
/* NUMA node of the configured device, or -1. */
int machine_device_node(const struct machine *m, const struct cfg *cfg);
/* "docker", "a virtual machine", ... or "" for neither. */
const char *machine_virtual(const struct machine *m);
/* The cores that the stack threads will have, as pronkd chooses them. How many. */
int machine_stack_cores(const struct machine *m, const struct cfg *cfg, uint16_t *cores, unsigned max);
/* A value of the kernel's configuration: 'y', 'm', 'n', or 0 when it cannot be read. */
char machine_config(const struct machine *m, const char *option);

/* --- findings --- */

enum level { LEVEL_OK, LEVEL_NOTE, LEVEL_WARNING, LEVEL_MISSING, LEVEL_COUNT };

struct finding {
	struct finding *next;
	enum level level;
	const char *id;
	char found[TEXT_SIZE], means[TEXT_SIZE], fix[TEXT_SIZE]; /* fix: a command; may be empty */
};

struct report {
	struct finding *first, **tail;
	uint32_t count[LEVEL_COUNT];
};

/* Adds one; text is what was found. Meaning and remedy are filled in by the caller of this. */
struct finding *report_add(struct report *r, enum level level, const char *id, const char *fmt, ...)
        PRINTF_LIKE(4, 5);
void finding_means(struct finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
void finding_fix(struct finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
void report_print(const struct report *r, FILE *file);
/* One JSON object, with a newline. 0 or -ENOMEM. */
int report_json(const struct report *r, const struct machine *m, const struct cfg *cfg, FILE *file);
void report_free(struct report *r);

/* Each looks at one side of the machine. Pure but for reads below root. */
void check_kernel(const struct machine *m, const struct cfg *cfg, struct report *r);
void check_memory(const struct machine *m, const struct cfg *cfg, struct report *r);
void check_cores(const struct machine *m, const struct cfg *cfg, struct report *r);
void check_rights(const struct machine *m, const struct cfg *cfg, struct report *r);
void check_device(const struct machine *m, const struct cfg *cfg, struct report *r);

/* The address that the port of a configuration will have, and its prefix; false when nobody knows it yet. */
bool machine_address(const struct machine *m, const struct cfg *cfg, uint8_t ip[4], unsigned *prefix);

/* --- several configuration files: one program that uses all of their services --- */

struct checked {
	const char *path;
	bool is_good; /* cfg has the file's values; else the defaults */
	struct cfg cfg;
	struct machine m;
	struct report r;
};

/* What the files mean together; their first is the main one. Pure. */
void check_files(const struct checked *files, uint32_t count, struct report *r);
/* One JSON object about all of them, with a newline; together: what check_files found. 0 or -ENOMEM. */
int files_json(const struct checked *files, uint32_t count, const struct report *together, FILE *file);

/* The two commands. The exit status. */
int check_main(int argc, char **argv);
int setup_main(int argc, char **argv);

/* Receive queues of a kernel interface; 0 when it does not say. */
int machine_queues(const struct machine *m, const char *name);
