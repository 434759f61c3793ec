/* locate.h - which service is meant, and how to look into it: by its socket while it answers, else by the
 * memory that its process has open. */
#pragma once
#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "attach.h"

enum { LOCATE_PATH_SIZE = 112, LOCATE_NAME_SIZE = 32, LOCATE_DEVICE_SIZE = 128, LOCATE_MAX = 64 };

/* The options of the command line that say which. */
struct where {
	const char *config, *socket, *name;
	pid_t pid;  /* 0: none given */
	bool every; /* --all-instances */
};
extern const struct argp locate_argp; /* input: struct where */

/* A service of this machine. */
struct instance {
	char name[LOCATE_NAME_SIZE], socket[LOCATE_PATH_SIZE], device[LOCATE_DEVICE_SIZE];
	char program[32];  /* of its process, or of holder where it has ended */
	pid_t pid;         /* as this pid namespace sees it; 0: not seen */
	uint64_t dev, ino; /* of its arena */
	pid_t holder;      /* a process that has the arena open */
	uint32_t clients, stacks;
	uint64_t start_ns; /* CLOCK_REALTIME */
	bool is_inline;
	bool is_stopped; /* by a signal or a debugger */
	bool is_gone;    /* its process has ended; applications still have its memory */
	bool is_foreign; /* of another version: nothing but pid and memory is known */
};

/* The running services, as far as this user may see them. Their number. Blocks for looks at /proc. */
uint32_t instances_find(struct instance *list, uint32_t max, const struct where *where);

/* `pronkctl instances` */
int show_instances(const struct where *where, bool json);

/* Attaches as an observer to the service that is meant. When it is stopped, or does not answer, its memory is
 * taken from its process: then at->ctl_fd is -1, and one line on stderr says so. 0, or -E with err filled. */
int locate(struct attach *at, const struct where *where, char *err, size_t err_size);
/* The same for one of instances_find's. */
int locate_instance(struct attach *at, const struct instance *one, char *err, size_t err_size);
