/* locate.c - finds the service that a command is about.
 *
 * A service is found by the path of its socket, or by its memory: the memfd named pronk-arena, which its
 * process and all of its applications have open, tells in its header whose it is. That needs no answer from
 * anybody, so a service that is stopped in a debugger is looked into the same way.
 */
#include "locate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cfg.h"
#include "proc_fs.h"
#include "show.h"

/* --- options of the command line --- */

enum { OPT_EVERY = 0x400 };

static const struct argp_option options[] = {
        {NULL, 0, NULL, 0, "Which service:", 1},
        {"config", 'c', "FILE", 0, "Configuration file that names the service (default: as pronkd's)", 1},
        {"socket", 's', "SOCKET", 0, "The service's socket, instead of a configuration file", 1},
        {"instance", 'i', "NAME", 0, "The service of this name", 1},
        {"pid", 'p', "PID", 0, "The service that this process is, or uses", 1},
        {"all-instances", OPT_EVERY, NULL, 0, "Every service of this machine, one after the other", 1},
        {0},
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct where *w = state->input;
	char *end;

	switch (key) {
	case 'c':
		if (w->config)
			argp_error(
			        state, "--config names one service here: give it once, or --all-instances");
		w->config = arg;
		return 0;
	case 's':
		w->socket = arg;
		return 0;
	case 'i':
		w->name = arg;
		return 0;
	case 'p':
		errno = 0;
		w->pid = (pid_t)strtol(arg, &end, 10);
		if (errno || *end || end == arg || w->pid < 1)
			argp_error(state, "--pid: \"%s\" is no process id", arg);
		return 0;
	case OPT_EVERY:
		w->every = true;
		return 0;
	case ARGP_KEY_END:
		if ((w->socket != NULL) + (w->name != NULL) + (w->pid != 0) + w->every > 1)
			argp_error(state, "give one of --socket, --instance, --pid and --all-instances");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp locate_argp = {options, option_parse, NULL, NULL, NULL, NULL, NULL};

/* --- from a process's descriptors --- */

/* Maps the service's memory out of what the process has open. why: what to say about that. */
static int attach_from_proc(struct attach *at, pid_t pid, uint64_t ino, char *err, size_t err_size)
{
	int arena_fd, rc;

	memset(at, 0, sizeof(*at));
	at->arena.fd = at->ctl_fd = at->stats_fd = -1;
	for (int i = 0; i < ARENA_STACK_MAX; i++)
		at->stack_fd[i] = -1;
	at->client_idx = UINT32_MAX;
	arena_fd = proc_memfd_open(pid, "pronk-arena", ino);
	if (arena_fd < 0) {
		snprintf(err, err_size, "the memory of process %d cannot be opened (%s)", (int)pid,
		        arena_fd == -ENOENT ? "it has none of Pronk's open" : strerror(-arena_fd));
		return arena_fd;
	}
	rc = arena_map(&at->arena, arena_fd, false);
	if (rc) {
		snprintf(err, err_size, "the memory of process %d is of another version of Pronk", (int)pid);
		close(arena_fd);
		return rc;
	}
	at->stats_fd = proc_memfd_open(pid, "pronk-stats", 0);
	return 0;
}

static void instance_fill(struct instance *one, const struct arena *a)
{
	const struct arena_header *h = a->hdr;

	snprintf(one->name, sizeof(one->name), "%.*s", (int)sizeof(h->name) - 1, h->name);
	snprintf(one->socket, sizeof(one->socket), "%.*s", (int)sizeof(h->socket) - 1, h->socket);
	snprintf(one->device, sizeof(one->device), "%.*s", (int)sizeof(h->device) - 1, h->device);
	one->is_inline = h->is_inline;
	one->stacks = a->stack_count;
	one->start_ns = h->start_time_ns;
	for (uint32_t i = 0; i < a->client_count; i++)
		one->clients += atomic_load(&arena_client(a, i)->state) == CLIENT_ACTIVE;
}

static void process_fill(struct instance *one)
{
	one->is_stopped = one->pid && proc_is_stopped(one->pid);
	if (one->pid)
		proc_program(one->pid, one->program, sizeof(one->program));
}

/* A process that has an arena open. */
struct scan {
	struct instance *list;
	uint32_t count, max;
};

static void arena_seen(void *arg, pid_t pid, uint64_t dev, uint64_t ino)
{
	struct scan *s = arg;
	struct instance *one = NULL;
	struct attach at;
	char err[128];

	for (uint32_t i = 0; i < s->count; i++)
		if (s->list[i].dev == dev && s->list[i].ino == ino)
			one = &s->list[i];
	if (one && one->pid)
		return; /* its service is known */
	if (!one) {
		if (s->count == s->max)
			return;
		one = &s->list[s->count++];
		*one = (struct instance){.dev = dev, .ino = ino, .holder = pid};
		if (attach_from_proc(&at, pid, ino, err, sizeof(err))) {
			one->is_foreign = true;
			return;
		}
		instance_fill(one, &at.arena);
		one->pid = proc_is(pid, at.arena.hdr->service_pid) ? pid : 0;
		attach_leave(&at);
	} else if (!one->is_foreign && !attach_from_proc(&at, pid, ino, err, sizeof(err))) {
		one->pid = proc_is(pid, at.arena.hdr->service_pid) ? pid : 0;
		attach_leave(&at);
	}
	process_fill(one);
}

/* --- by sockets --- */

/* Who listens at a socket, without waiting for a word of theirs. 0, or -E. */
static int socket_owner(const char *path, pid_t *pid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ucred cred;
	socklen_t size = sizeof(cred);
	int fd, rc = 0;

	*pid = 0;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		rc = -errno;
	else if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size))
		*pid = cred.pid;
	close(fd);
	return rc;
}

/* Services whose processes this user may not look into, but whose sockets are open to all. */
static void folder_scan(struct scan *s, const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && s->count < s->max && (entry = readdir(dir))) {
		struct instance *one = &s->list[s->count];
		const char *dot = strrchr(entry->d_name, '.');
		char path[2 * CFG_PATH_MAX], err[256];
		bool is_known = false;
		struct attach at;
		pid_t pid;

		if (!dot || strcmp(dot, ".sock") != 0)
			continue;
		snprintf(path, sizeof(path), "%.*s/%s", CFG_PATH_MAX - 2, folder, entry->d_name);
		for (uint32_t i = 0; i < s->count; i++)
			is_known |= !strcmp(s->list[i].socket, path);
		if (is_known || socket_owner(path, &pid) || (pid && proc_is_stopped(pid)) ||
		        attach_join(&at, path, CTL_OBSERVER, err, sizeof(err)))
			continue;
		*one = (struct instance){.pid = pid, .holder = pid};
		instance_fill(one, &at.arena);
		attach_leave(&at);
		process_fill(one);
		s->count++;
	}
	if (dir)
		closedir(dir);
}

/* The folder in which the configuration has its services; "" when it cannot be read. */
static void runtime_dir(const struct where *where, char *buf, size_t size)
{
	char err[512];
	struct cfg *cfg = malloc(sizeof(*cfg));

	buf[0] = 0;
	if (cfg && !cfg_load(cfg, where->config ? where->config : cfg_default_path(), err, sizeof(err)))
		snprintf(buf, size, "%s", cfg->runtime_dir);
	free(cfg);
}

static int instance_compare(const void *x, const void *y)
{
	const struct instance *a = x, *b = y;
	int by_name = strcmp(a->name, b->name);

	return by_name ? by_name : (a->pid > b->pid) - (a->pid < b->pid);
}

uint32_t instances_find(struct instance *list, uint32_t max, const struct where *where)
{
	struct scan s = {.list = list, .max = max};
	char folder[CFG_PATH_MAX];

	proc_memfds(0, "pronk-arena", arena_seen, &s);
	for (uint32_t i = 0; i < s.count; i++) {
		list[i].is_gone = !list[i].pid && !list[i].is_foreign;
		if (list[i].is_gone)
			proc_program(list[i].holder, list[i].program, sizeof(list[i].program));
	}
	runtime_dir(where, folder, sizeof(folder));
	if (folder[0])
		folder_scan(&s, folder);
	if (strcmp(folder, "/run/pronk") != 0)
		folder_scan(&s, "/run/pronk");
	qsort(list, s.count, sizeof(*list), instance_compare);
	return s.count;
}

static const char *state_text(const struct instance *one)
{
	return one->is_foreign   ? "other-version"
	       : one->is_gone    ? "ended"
	       : one->is_stopped ? "stopped"
	                         : "running";
}

static void json_member(const char *key, const char *value)
{
	printf(", \"%s\": ", key);
	json_text(stdout, value);
}

static void instance_json(const struct instance *one, const char *before)
{
	printf("%s    {\"pid\": %d, \"state\": \"%s\"", before, (int)(one->pid ? one->pid : one->holder),
	        state_text(one));
	json_member("name", one->name);
	json_member("program", one->program);
	json_member("mode", one->is_foreign ? "unknown" : one->is_inline ? "inline" : "dedicated");
	json_member("device", one->device);
	json_member("socket", one->socket);
	printf(", \"stacks\": %u, \"clients\": %u, \"start_time_ns\": %llu}", one->stacks, one->clients,
	        (unsigned long long)one->start_ns);
}

int show_instances(const struct where *where, bool json)
{
	struct instance *list = calloc(LOCATE_MAX, sizeof(*list));
	uint32_t count, gone = 0;

	if (!list)
		return -ENOMEM;
	count = instances_find(list, LOCATE_MAX, where);
	if (json)
		printf("{\n  \"instances\": [");
	else
		printf("%-16s %7s %-15s %-13s %-9s %6s %7s %-24s %s\n", "NAME", "PID", "PROGRAM", "STATE",
		        "MODE", "STACKS", "CLIENTS", "DEVICE", "SOCKET");
	for (uint32_t i = 0; i < count; i++) {
		const struct instance *one = &list[i];
		const char *mode = one->is_foreign ? "-" : one->is_inline ? "inline" : "dedicated";
		pid_t pid = one->pid ? one->pid : one->holder;

		gone += one->is_gone;
		if (json)
			instance_json(one, i ? ",\n" : "\n");
		else
			printf("%-16s %7d %-15.15s %-13s %-9s %6u %7u %-24s %s\n",
			        one->name[0] ? one->name : "-", (int)pid,
			        one->program[0] ? one->program : "-", state_text(one), mode, one->stacks,
			        one->clients, one->device, one->socket);
	}
	if (json)
		printf("\n  ]\n}\n");
	else if (!count)
		printf("no service runs that this user may see\n");
	else if (gone)
		printf("\nended: the service is gone; the program in the line, and others, have its memory until they end\n");
	free(list);
	return 0;
}

/* --- attaching --- */

static int attach_stopped(
        struct attach *at, pid_t pid, uint64_t ino, const char *why, char *err, size_t err_size)
{
	char program[32] = "";
	int rc = attach_from_proc(at, pid, ino, err, err_size);

	if (rc)
		return rc;
	proc_program(pid, program, sizeof(program));
	fprintf(stderr,
	        "pronkctl: the service (pid %d, %s) %s: this is read from its memory; what only it knows is missing\n",
	        (int)pid, program, why);
	return 0;
}

/* By its socket; ino: of the arena that it must have, 0 = any. */
static int attach_socket(struct attach *at, const char *path, char *err, size_t err_size)
{
	pid_t pid;
	int rc = socket_owner(path, &pid);

	/* nobody accepts any more: it has been stopped for long */
	if (rc == -EAGAIN || (!rc && pid && proc_is_stopped(pid))) {
		if (!pid) {
			snprintf(err, err_size,
			        "the service at %s does not answer: name its process with --pid", path);
			return -ETIMEDOUT;
		}
		return attach_stopped(at, pid, 0, "is stopped", err, err_size);
	}
	rc = attach_join(at, path, CTL_OBSERVER, err, err_size);
	if (rc == -ETIMEDOUT && pid) {
		char reason[256];

		rc = attach_stopped(at, pid, 0, "does not answer", reason, sizeof(reason));
		if (rc)
			snprintf(err, err_size, "the service at %s does not answer, and %s", path, reason);
	}
	return rc;
}

int locate_instance(struct attach *at, const struct instance *one, char *err, size_t err_size)
{
	struct stat st;

	if (one->is_foreign) {
		snprintf(err, err_size, "the service of process %d is of another version of Pronk",
		        (int)one->holder);
		return -EPROTO;
	}
	/* its socket may lie in another mount namespace, or be a successor's by now */
	if (!one->is_stopped && !one->is_gone && !attach_join(at, one->socket, CTL_OBSERVER, err, err_size)) {
		if (!one->ino || (!fstat(at->arena.fd, &st) && st.st_ino == one->ino))
			return 0;
		attach_leave(at);
	}
	return attach_stopped(at,
	        one->holder && one->is_gone ? one->holder
	        : one->pid                  ? one->pid
	                                    : one->holder,
	        one->ino,
	        one->is_gone      ? "has ended"
	        : one->is_stopped ? "is stopped"
	                          : "cannot be asked",
	        err, err_size);
}

/* The arenas that a process has open: one, or those of all services that a program uses. */
struct pid_scan {
	uint32_t count;
	struct {
		uint64_t dev, ino;
	} arena[CFG_FILES_MAX];
};

static void pid_seen(void *arg, pid_t pid, uint64_t dev, uint64_t ino)
{
	struct pid_scan *s = arg;

	(void)pid;
	for (uint32_t i = 0; i < s->count; i++)
		if (s->arena[i].ino == ino && s->arena[i].dev == dev)
			return;
	if (s->count == CFG_FILES_MAX)
		return;
	s->arena[s->count].dev = dev;
	s->arena[s->count++].ino = ino;
}

static bool is_seen(const struct pid_scan *s, const struct instance *one)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (s->arena[i].ino == one->ino && (!s->arena[i].dev || s->arena[i].dev == one->dev))
			return true;
	return false;
}

static int locate_pid(struct attach *at, pid_t pid, const struct where *where, char *err, size_t err_size)
{
	struct instance *list = calloc(LOCATE_MAX, sizeof(*list)), *one = NULL;
	struct pid_scan seen = {0};
	int rc = list ? proc_memfds(pid, "pronk-arena", pid_seen, &seen) : -ENOMEM;
	uint32_t count = 0, used = 0;
	char names[CFG_FILES_MAX * (LOCATE_NAME_SIZE + 2)] = "";

	if (!rc && !seen.count) { /* a program may have closed all of its descriptors; the mapping stays */
		seen.count = proc_maps_find(pid, "pronk-arena", &seen.arena[0].dev, &seen.arena[0].ino);
		rc = seen.count ? 0 : -ESRCH;
	}
	if (rc) {
		snprintf(err, err_size, "process %d %s%s", (int)pid,
		        rc == -ESRCH ? "is not, and does not use, a service of Pronk"
		                     : "cannot be looked into: ",
		        rc == -ESRCH ? "" : strerror(-rc));
		free(list);
		return rc;
	}
	count = instances_find(list, LOCATE_MAX, where);
	for (uint32_t i = 0; i < count; i++) {
		if (!is_seen(&seen, &list[i]))
			continue;
		/* what a process is comes before what it uses, and what lives before what has ended */
		if (!one || list[i].pid == pid || (one->is_gone && one->pid != pid))
			one = &list[i];
		if (list[i].is_gone)
			continue;
		if (used++)
			strcat(names, ", ");
		strcat(names, list[i].name);
	}
	rc = -ENOENT;
	if (!one)
		snprintf(err, err_size, "the service that process %d uses cannot be found", (int)pid);
	else if (used > 1 && one->pid != pid)
		snprintf(err, err_size,
		        "process %d uses %u services (%s): give --instance NAME in the place of --pid",
		        (int)pid, used, names);
	else
		rc = locate_instance(at, one, err, err_size);
	free(list);
	return rc;
}

/* RUNTIME_DIR/NAME.sock, else any service of that name. */
static int locate_name(struct attach *at, const struct where *where, char *err, size_t err_size)
{
	struct instance *list = calloc(LOCATE_MAX, sizeof(*list)), *one = NULL;
	uint32_t count = list ? instances_find(list, LOCATE_MAX, where) : 0, named = 0;
	char folder[CFG_PATH_MAX], path[CFG_PATH_MAX + LOCATE_NAME_SIZE];
	int rc = -ENOENT;

	runtime_dir(where, folder, sizeof(folder));
	snprintf(path, sizeof(path), "%s/%s.sock", folder, where->name);
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(list[i].name, where->name) != 0 || list[i].is_gone)
			continue;
		named++;
		if (!one || !strcmp(list[i].socket, path))
			one = &list[i];
	}
	if (one && named > 1 && strcmp(one->socket, path) != 0)
		snprintf(err, err_size,
		        "%u services are named \"%s\": choose one with --pid (see pronkctl instances)", named,
		        where->name);
	else if (one)
		rc = locate_instance(at, one, err, err_size);
	else
		snprintf(err, err_size, "no service named \"%s\" runs that this user may see", where->name);
	free(list);
	return rc;
}

int locate(struct attach *at, const struct where *where, char *err, size_t err_size)
{
	char path[CFG_SOCKET_PATH_MAX];
	struct cfg *cfg;
	int rc;

	if (where->pid)
		return locate_pid(at, where->pid, where, err, err_size);
	if (where->name)
		return locate_name(at, where, err, err_size);
	if (where->socket)
		return attach_socket(at, where->socket, err, err_size);
	cfg = malloc(sizeof(*cfg));
	rc = cfg ? cfg_load(cfg, where->config ? where->config : cfg_default_path(), err, err_size) : -ENOMEM;
	if (!rc) {
		cfg_socket_path(cfg, path, sizeof(path));
		rc = attach_socket(at, path, err, err_size);
	}
	free(cfg);
	return rc;
}
