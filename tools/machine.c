/* machine.c - reads the machine: files below a root, the kernel's answers, and what follows from both.
 *
 * machine_probe is the only part that asks by system call; everything else looks at files, so that tests can
 * give it a folder.
 */
#include "machine.h"

#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "autostart.h"
#include "libc.h"
#include "lock.h"

enum {
	PARENTS_MAX = 256,
};

extern char **environ;

static int path_make(const struct machine *m, char *path, size_t size, const char *fmt, va_list args)
{
	int n = snprintf(path, size, "%s", m->root);

	n += vsnprintf(path + n, size - (size_t)n, fmt, args);
	return (size_t)n < size ? 0 : -ENAMETOOLONG;
}

#define PATH_OF(m, path)                                                                                     \
	do {                                                                                                 \
		va_list args_;                                                                               \
		int rc_;                                                                                     \
		va_start(args_, fmt);                                                                        \
		rc_ = path_make(m, path, sizeof(path), fmt, args_);                                          \
		va_end(args_);                                                                               \
		if (rc_)                                                                                     \
			path[0] = 0; /* a name that no file has */                                           \
	} while (0)

static int file_read(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	buf[0] = 0;
	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return (int)strlen(buf);
}

int machine_read(const struct machine *m, char *buf, size_t size, const char *fmt, ...)
{
	char path[PATH_MAX];

	PATH_OF(m, path);
	return file_read(path, buf, size);
}

long machine_number(const struct machine *m, const char *fmt, ...)
{
	char path[PATH_MAX], text[64], *end;
	long value;
	int rc;

	PATH_OF(m, path);
	rc = file_read(path, text, sizeof(text));
	if (rc < 0)
		return rc;
	value = strtol(text, &end, 10);
	return end == text || value < 0 ? -EINVAL : value;
}

bool machine_has(const struct machine *m, const char *fmt, ...)
{
	char path[PATH_MAX];
	struct stat st;

	PATH_OF(m, path);
	return path[0] && !stat(path, &st);
}

int machine_link(const struct machine *m, char *buf, size_t size, const char *fmt, ...)
{
	char path[PATH_MAX], to[PATH_MAX];
	const char *last;
	ssize_t n;

	PATH_OF(m, path);
	buf[0] = 0;
	n = readlink(path, to, sizeof(to) - 1);
	if (n < 0)
		return -errno;
	to[n] = 0;
	last = strrchr(to, '/');
	snprintf(buf, size, "%s", last ? last + 1 : to);
	return 0;
}

int machine_write(const struct machine *m, const char *value, const char *fmt, ...)
{
	char path[PATH_MAX];
	size_t size = strlen(value);
	int fd, rc = 0;

	PATH_OF(m, path);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, size) != (ssize_t)size)
		rc = errno ? -errno : -EIO;
	close(fd);
	if (!rc && m->on_write)
		m->on_write(m->on_write_arg, path + strlen(m->root), value);
	return rc;
}

int machine_run(const struct machine *m, const char *const *argv)
{
	int status, rc;
	pid_t pid;

	if (m->root[0])
		return m->on_run ? m->on_run(m->on_run_arg, argv) : -ENOSYS;
	rc = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ);
	if (rc)
		return -rc;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

bool machine_cores(const struct machine *m, struct core_set *set, const char *fmt, ...)
{
	char path[PATH_MAX], text[4096];
	uint16_t cores[CPU_CORE_MAX];
	int count;

	PATH_OF(m, path);
	memset(set, 0, sizeof(*set));
	if (file_read(path, text, sizeof(text)) <= 0)
		return false;
	count = cfg_parse_cores(text, cores, CPU_CORE_MAX);
	for (int i = 0; i < count && i < CPU_CORE_MAX; i++)
		set->bit[cores[i] / 64] |= 1ull << (cores[i] % 64);
	return count > 0;
}

int machine_nodes(const struct machine *m)
{
	struct core_set nodes;
	int count = 0;

	machine_cores(m, &nodes, "/sys/devices/system/node/online");
	for (size_t i = 0; i < ARRAY_COUNT(nodes.bit); i++)
		count += __builtin_popcountll(nodes.bit[i]);
	return count ? count : 1;
}

int machine_core_node(const struct machine *m, unsigned core)
{
	struct core_set set;

	for (int node = 0; node < NODE_MAX; node++)
		if (machine_cores(m, &set, "/sys/devices/system/node/node%d/cpulist", node) &&
		        core_in(&set, core))
			return node;
	return -1;
}

int machine_device_node(const struct machine *m, const struct cfg *cfg)
{
	enum cfg_device kind;
	const char *arg;
	long node = -1;

	if (cfg_parse_device(cfg->device, &kind, &arg))
		return -1;
	if (kind == CFG_DEVICE_PCI)
		node = machine_number(m, "/sys/bus/pci/devices/%s/numa_node", arg);
	else if (kind == CFG_DEVICE_AFXDP || kind == CFG_DEVICE_AFPACKET)
		node = machine_number(m, "/sys/class/net/%s/device/numa_node", arg);
	return node < 0 ? -1 : (int)node;
}

const char *machine_virtual(const struct machine *m)
{
	static char name[64];
	char path[PATH_MAX], *line = NULL;
	size_t size = 0;
	FILE *file;

	if (machine_has(m, "/.dockerenv"))
		return "a docker container";
	if (machine_read(m, name, sizeof(name), "/run/systemd/container") > 0)
		return "a container";
	snprintf(path, sizeof(path), "%s/proc/cpuinfo", m->root);
	file = fopen(path, "re");
	name[0] = 0;
	while (file && getline(&line, &size, file) > 0)
		if (!strncmp(line, "flags", 5) && strstr(line, " hypervisor"))
			snprintf(name, sizeof(name), "a virtual machine");
	free(line);
	if (file)
		fclose(file);
	return name;
}

int machine_stack_cores(const struct machine *m, const struct cfg *cfg, uint16_t *cores, unsigned max)
{
	unsigned want = cfg->stacks < max ? cfg->stacks : max;

	if (cfg->mode == CFG_MODE_INLINE)
		return 0;
	if (strcmp(cfg->cores, "auto")) {
		int n = cfg_parse_cores(cfg->cores, cores, max);

		return n < 0 ? 0 : (int)((unsigned)n < want ? (unsigned)n : want);
	}
	if (m->allowed_count <= 0)
		return 0;
	if (want > (unsigned)m->allowed_count)
		want = (unsigned)m->allowed_count;
	for (unsigned i = 0; i < want; i++)
		cores[i] = m->allowed[(unsigned)m->allowed_count - want + i];
	return (int)want;
}

char machine_config(const struct machine *m, const char *option)
{
	char path[PATH_MAX], line[512];
	size_t size = strlen(option);
	char value = 0;
	gzFile file;

	/* gzopen reads plain files as they are */
	snprintf(path, sizeof(path), "%s/proc/config.gz", m->root);
	file = gzopen(path, "re");
	if (!file) {
		snprintf(path, sizeof(path), "%s/boot/config-%s", m->root, m->release);
		file = gzopen(path, "re");
	}
	if (!file)
		return 0;
	while (gzgets(file, line, sizeof(line))) {
		if (!strncmp(line, "CONFIG_", 7))
			value = value ? value : 'n'; /* it is a configuration */
		if (!strncmp(line, option, size) && line[size] == '=')
			value = line[size + 1] == 'm' ? 'm' : 'y';
		if (value == 'm' || value == 'y')
			break;
	}
	gzclose(file);
	return value;
}

/* --- ssh --- */

/* The first word of SSH_CONNECTION ("CLIENT PORT SERVER PORT") or SSH_CLIENT. */
static bool peer_take(const char *variable, char *peer, size_t size)
{
	static const char *const names[] = {"SSH_CONNECTION=", "SSH_CLIENT="};

	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		size_t n = strlen(names[i]), length;

		if (strncmp(variable, names[i], n))
			continue;
		length = strcspn(variable + n, " ");
		if (!length || length >= size)
			continue;
		memcpy(peer, variable + n, length);
		peer[length] = 0;
		return true;
	}
	return false;
}

/* What a process got when it began; that of others' processes only root can read. */
static bool environ_look(const struct machine *m, int pid, char *peer, size_t size)
{
	char path[PATH_MAX], *variable = NULL;
	size_t room = 0;
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/%d/environ", m->root, pid);
	file = fopen(path, "re");
	while (file && !found && getdelim(&variable, &room, 0, file) > 0)
		found = peer_take(variable, peer, size);
	free(variable);
	if (file)
		fclose(file);
	return found;
}

static int parent_of(const struct machine *m, int pid)
{
	char line[512];
	const char *end;
	int parent;

	if (machine_read(m, line, sizeof(line), "/proc/%d/stat", pid) <= 0)
		return 0;
	end = strrchr(line, ')'); /* a program's name may hold anything */
	return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

int machine_ssh_peer(const struct machine *m, int pid, char *peer, size_t size)
{
	for (int i = 0; pid > 1 && i < PARENTS_MAX; i++, pid = parent_of(m, pid))
		if (environ_look(m, pid, peer, size))
			return 0;
	return -ENOENT;
}

/* --- system calls --- */

static int socket_try(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static uint64_t caps_effective(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data) < 0)
		return 0;
	return data[0].effective | (uint64_t)data[1].effective << 32;
}

/* What pronkd says of its driver library. */
static void library_ask(struct machine *m)
{
	char program[PATH_MAX], command[PATH_MAX + 64];
	FILE *pipe;

	if (service_program(program, sizeof(program)) || strchr(program, '\''))
		return;
	snprintf(command, sizeof(command), "'%s' --drivers 2>/dev/null", program);
	pipe = popen(command, "re");
	if (!pipe)
		return;
	if (fgets(m->library, sizeof(m->library), pipe))
		m->library[strcspn(m->library, "\n")] = 0;
	if (fgets(m->drivers, sizeof(m->drivers), pipe))
		m->drivers[strcspn(m->drivers, "\n")] = 0;
	if (pclose(pipe))
		m->library[0] = m->drivers[0] = 0;
}

static int service_find(struct machine *m, const struct cfg *cfg)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ucred cred = {0};
	socklen_t size = sizeof(cred);
	char path[CFG_SOCKET_PATH_MAX];
	int fd, rc = 0;

	cfg_socket_path(cfg, path, sizeof(path));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		rc = -errno;
	else if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size))
		m->service_pid = cred.pid;
	close(fd);
	return rc;
}

static void known_note(void *arg, int index, const struct iface_addr *a)
{
	struct machine *m = arg;
	struct known_addr *k = &m->known[m->known_count];

	if (m->known_count == KNOWN_MAX)
		return;
	*k = (struct known_addr){.index = index, .addr = *a};
	if (!if_indextoname((unsigned)index, k->name))
		snprintf(k->name, sizeof(k->name), "%d", index);
	m->known_count++;
}

/* The interface towards the other end of the ssh session that this runs in. */
static int ssh_index(const struct machine *m, struct rtnl *n)
{
	char peer[64] = "";
	uint8_t ip[16];
	int family;

	if (machine_ssh_peer(m, getpid(), peer, sizeof(peer)))
		return -ENOENT;
	peer[strcspn(peer, "%")] = 0;
	family = strchr(peer, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(family, peer, ip) != 1)
		return -EINVAL;
	return iface_towards(n, family, ip);
}

static int quiet(enum libbpf_print_level level, const char *fmt, va_list args)
{
	(void)level, (void)fmt, (void)args;
	return 0;
}

void machine_probe(struct machine *m, const struct cfg *cfg)
{
	struct utsname uts;
	struct rtnl n = {0};
	enum cfg_device kind;
	const char *arg;
	int rc;

	memset(m, 0, sizeof(*m));
	m->root = "";
	libc_init();
	if (!uname(&uts))
		snprintf(m->release, sizeof(m->release), "%s", uts.release);
	m->is_root = geteuid() == 0;
	m->caps = caps_effective();
	getrlimit(RLIMIT_NOFILE, &m->files);
	getrlimit(RLIMIT_MEMLOCK, &m->memlock);
	m->allowed_count = cpu_allowed(m->allowed, CPU_CORE_MAX);
	m->xdp_socket = socket_try(AF_XDP, SOCK_RAW);
	m->packet_socket = socket_try(AF_PACKET, SOCK_RAW);
	libbpf_set_print(quiet);
	m->xdp_program = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_XDP, NULL);
	/* somebody without the right sees a kernel that cannot */
	if (m->xdp_program <= 0 && !m->is_root && !(m->caps >> CAP_BPF & 1) &&
	        !(m->caps >> CAP_SYS_ADMIN & 1))
		m->xdp_program = -EPERM;
	m->service = service_find(m, cfg);
	library_ask(m);
	m->iface_rc = m->xdp_features_rc = m->ssh_index = -ENODEV;
	rc = rtnl_open(&n);
	if (rc) {
		m->iface_rc = rc;
		return;
	}
	iface_addresses(&n, known_note, m);
	m->ssh_index = ssh_index(m, &n);
	if (!cfg_parse_device(cfg->device, &kind, &arg) && kind != CFG_DEVICE_MEMIF &&
	        kind != CFG_DEVICE_PCI) {
		unsigned index = if_nametoindex(arg);

		if (index)
			m->iface_rc = iface_read(&n, (int)index, &m->iface);
	}
	if (!m->iface_rc)
		m->xdp_features_rc = iface_xdp_features(m->iface.index, &m->xdp_features);
	rtnl_close(&n);
}

int machine_queues(const struct machine *m, const char *name)
{
	char path[PATH_MAX];
	struct dirent **list;
	int count, queues = 0;

	snprintf(path, sizeof(path), "%s/sys/class/net/%s/queues", m->root, name);
	count = scandir(path, &list, NULL, NULL);
	for (int i = 0; i < count; i++) {
		queues += !strncmp(list[i]->d_name, "rx-", 3);
		free(list[i]);
	}
	if (count >= 0)
		free(list);
	return queues;
}

bool machine_upper(const struct machine *m, const char *iface, char *name, size_t size)
{
	static const char mark[] = "upper_";
	char path[PATH_MAX];
	struct dirent **list;
	int count;

	name[0] = 0;
	snprintf(path, sizeof(path), "%s/sys/class/net/%s", m->root, iface);
	count = scandir(path, &list, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (!name[0] && !strncmp(list[i]->d_name, mark, sizeof(mark) - 1))
			snprintf(name, size, "%s", list[i]->d_name + sizeof(mark) - 1);
		free(list[i]);
	}
	if (count >= 0)
		free(list);
	return name[0];
}
