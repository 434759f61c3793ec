/* check_machine.c - findings of `pronk check` that do not depend on the NIC: kernel, rights, memory, cores.
 *
 * What nobody can change in a container or a virtual machine is no warning there. Each function adds findings
 * in a fixed order, so that the output can be compared.
 */
#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "pages.h"

enum {
	KERNEL_MAJOR = 5, /* epoll_pwait2(2) */
	KERNEL_MINOR = 11,
	PAGE_MB = 2,
	FILES_FEW = 4096,
	MEMLOCK_FEW_MB = 512,
};

static enum cfg_device kind_of(const struct cfg *cfg)
{
	enum cfg_device kind = CFG_DEVICE_TAP;
	const char *arg;

	cfg_parse_device(cfg->device, &kind, &arg);
	return kind;
}

/* --- kernel --- */

static void version_check(const struct machine *m, struct report *r)
{
	unsigned major = 0, minor = 0;
	bool is_old;
	struct finding *f;

	if (sscanf(m->release, "%u.%u", &major, &minor) != 2) {
		report_add(r, LEVEL_NOTE, "kernel.version", "\"%s\"", m->release);
		return;
	}
	is_old = major < KERNEL_MAJOR || (major == KERNEL_MAJOR && minor < KERNEL_MINOR);
	f = report_add(r, is_old ? LEVEL_MISSING : LEVEL_OK, "kernel.version", "%s, at least %d.%d is needed",
	        m->release, KERNEL_MAJOR, KERNEL_MINOR);
	if (is_old) {
		finding_means(f, "The service needs system calls that this kernel does not have.");
		finding_fix(f, "apt-get install linux-image-amd64 # and start the machine anew");
	}
}

static void config_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	static const struct {
		const char *option;
		int kind; /* of device that needs it; -1: what all are better off with */
	} wanted[] = {
	        {"CONFIG_XDP_SOCKETS", CFG_DEVICE_AFXDP},
	        {"CONFIG_BPF_SYSCALL", CFG_DEVICE_AFXDP},
	        {"CONFIG_PACKET", CFG_DEVICE_AFPACKET},
	        {"CONFIG_TUN", CFG_DEVICE_TAP},
	        {"CONFIG_VFIO_PCI", CFG_DEVICE_PCI},
	        {"CONFIG_HUGETLBFS", -1},
	};
	char missing[256] = "";
	size_t n = 0;
	bool is_needed = false;
	struct finding *f;

	if (!machine_config(m, "CONFIG_")) {
		finding_means(
		        report_add(r, LEVEL_NOTE, "kernel.config",
		                "the kernel's configuration cannot be read (/proc/config.gz, /boot/config-%s)",
		                m->release),
		        "What the device needs is tried instead, below.");
		return;
	}
	for (size_t i = 0; i < ARRAY_COUNT(wanted); i++) {
		if (wanted[i].kind >= 0 && wanted[i].kind != (int)kind_of(cfg))
			continue;
		if (machine_config(m, wanted[i].option) != 'n')
			continue;
		n += (size_t)snprintf(
		        missing + n, sizeof(missing) - n, "%s%s", n ? ", " : "", wanted[i].option);
		is_needed |= wanted[i].kind >= 0;
	}
	if (!n) {
		report_add(r, LEVEL_OK, "kernel.config", "has what device %s needs", cfg->device);
		return;
	}
	f = report_add(r, is_needed ? LEVEL_MISSING : LEVEL_NOTE, "kernel.config", "without %s", missing);
	finding_means(f,
	        is_needed ? "Device %s cannot work with this kernel." : "Device %s works without, slower.",
	        cfg->device);
	if (is_needed)
		finding_fix(f,
		        "pronk setup --device auto # a TAP works anywhere, or install a distribution's kernel");
}

static void mitigations_check(const struct machine *m, struct report *r)
{
	static const char dir[] = "/sys/devices/system/cpu/vulnerabilities";
	char path[PATH_MAX], names[256] = "", text[256];
	struct dirent **list;
	size_t n = 0;
	int count, on = 0;

	snprintf(path, sizeof(path), "%s%s", m->root, dir);
	count = scandir(path, &list, NULL, alphasort);
	if (count < 0) {
		report_add(r, LEVEL_OK, "cpu.mitigations", "the kernel names none");
		return;
	}
	for (int i = 0; i < count; i++) {
		const char *name = list[i]->d_name;

		if (name[0] != '.' && machine_read(m, text, sizeof(text), "%s/%s", dir, name) > 0 &&
		        !strncmp(text, "Mitigation", 10)) {
			on++;
			if (n < sizeof(names))
				n += (size_t)snprintf(
				        names + n, sizeof(names) - n, "%s%s", n ? ", " : "", name);
		}
		free(list[i]);
	}
	free(list);
	if (!on) {
		report_add(r, LEVEL_OK, "cpu.mitigations", "none is in force");
		return;
	}
	finding_means(report_add(r, LEVEL_NOTE, "cpu.mitigations", "%d in force: %s", on, names),
	        "They make system calls dearer, so the kernel's own sockets and a TAP more than the other devices. Nothing "
	        "has to be done.");
}

void check_kernel(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	version_check(m, r);
	config_check(m, cfg, r);
	mitigations_check(m, r);
}

/* --- rights and limits --- */

static void service_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	char path[CFG_SOCKET_PATH_MAX];
	struct finding *f;

	cfg_socket_path(cfg, path, sizeof(path));
	if (!m->service) {
		report_add(r, LEVEL_OK, "service", "runs (pid %d) at %s", m->service_pid, path);
		return;
	}
	if (m->service == -EACCES || m->service == -EPERM) {
		f = report_add(r, LEVEL_MISSING, "service", "%s is closed to this user", path);
		finding_means(f, "Programs of this user stay with the kernel.");
		finding_fix(f, "chmod o+rx %s", cfg->runtime_dir);
		return;
	}
	f = report_add(r, LEVEL_OK, "service", "does not run: %s", path);
	if (cfg->mode == CFG_MODE_INLINE || cfg->autostart) {
		finding_means(f, "The first program starts it.");
		return;
	}
	f->level = LEVEL_NOTE;
	r->count[LEVEL_OK]--;
	r->count[LEVEL_NOTE]++;
	finding_means(f, "With autostart = false nobody starts it by himself.");
	finding_fix(f, "pronkd -c %s --daemonize", cfg->path[0] ? cfg->path : "FILE");
}

static void user_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	struct finding *f;

	if (m->is_root) {
		report_add(r, LEVEL_OK, "rights.user", "root");
		return;
	}
	if (!m->service) {
		finding_means(report_add(r, LEVEL_OK, "rights.user", "not root, and the service runs"),
		        "Programs need no rights to use it. Some of what follows cannot be seen without root.");
		return;
	}
	f = report_add(r, LEVEL_MISSING, "rights.user", "not root");
	finding_means(f,
	        "Starting the service needs root; programs that use it do not. Some of what follows cannot be "
	        "seen without root.");
	finding_fix(f, "sudo pronkd %s%s --daemonize", cfg->path[0] ? "-c " : "", cfg->path);
}

static void runtime_dir_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	char path[PATH_MAX], *slash;
	struct finding *f;

	if (machine_has(m, "%s", cfg->runtime_dir)) {
		snprintf(path, sizeof(path), "%s%s", m->root, cfg->runtime_dir);
		if (!access(path, W_OK) || !m->is_root) {
			report_add(r, LEVEL_OK, "rights.runtime_dir", "%s is there", cfg->runtime_dir);
			return;
		}
		f = report_add(r, LEVEL_MISSING, "rights.runtime_dir", "%s cannot be written: %s",
		        cfg->runtime_dir, strerror(errno));
	} else {
		snprintf(path, sizeof(path), "%s%s", m->root, cfg->runtime_dir);
		slash = strrchr(path, '/');
		*slash = 0;
		if (!m->is_root || !access(path[0] ? path : "/", W_OK)) {
			report_add(r, LEVEL_OK, "rights.runtime_dir", "%s will be made", cfg->runtime_dir);
			return;
		}
		f = report_add(r, LEVEL_MISSING, "rights.runtime_dir", "%s cannot be made: %s",
		        cfg->runtime_dir, strerror(errno));
	}
	finding_means(f, "The service's socket and lock are there: it does not start.");
	finding_fix(f, "mkdir -p %s && chmod 755 %s", cfg->runtime_dir, cfg->runtime_dir);
}

static void limits_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	long nr_open = machine_number(m, "/proc/sys/fs/nr_open");
	unsigned long long hard = m->files.rlim_max, soft = m->files.rlim_cur;
	bool is_dma = kind_of(cfg) == CFG_DEVICE_PCI;
	struct finding *f;

	f = report_add(r, soft < FILES_FEW && soft < cfg->max_sockets ? LEVEL_NOTE : LEVEL_OK, "limits.files",
	        "%llu open files for a program here, %llu at most (kernel: %ld)", soft, hard, nr_open);
	if (f->level == LEVEL_NOTE) {
		finding_means(f,
		        "Every socket of a program takes a descriptor; the service has room for %u sockets.",
		        cfg->max_sockets);
		finding_fix(f, "ulimit -n %llu # in the program's shell, or LimitNOFILE= of its unit",
		        hard < cfg->max_sockets ? hard : (unsigned long long)cfg->max_sockets);
	}
	if (m->memlock.rlim_cur == RLIM_INFINITY || m->is_root) {
		report_add(r, LEVEL_OK, "limits.memlock", "the service may lock as much memory as it needs");
	} else if (!is_dma) {
		report_add(r, LEVEL_OK, "limits.memlock", "%llu MB; device %s locks none",
		        (unsigned long long)m->memlock.rlim_cur >> 20, cfg->device);
	} else {
		bool is_few = m->memlock.rlim_cur >> 20 < MEMLOCK_FEW_MB;

		f = report_add(r, is_few ? LEVEL_WARNING : LEVEL_OK, "limits.memlock", "%llu MB",
		        (unsigned long long)m->memlock.rlim_cur >> 20);
		if (is_few) {
			finding_means(f,
			        "vfio locks the memory that the NIC may reach; without root that is limited.");
			finding_fix(f, "ulimit -l unlimited");
		}
	}
}

void check_rights(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	service_check(m, cfg, r);
	user_check(m, cfg, r);
	runtime_dir_check(m, cfg, r);
	limits_check(m, cfg, r);
}

/* --- memory --- */

static void pages_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	static const char dir[] = "/sys/kernel/mm/hugepages/hugepages-2048kB";
	uint32_t need = arena_pages(cfg, m->iface_rc ? 0 : m->iface.mtu);
	int node = machine_device_node(m, cfg), nodes = machine_nodes(m);
	char nodes_text[256] = "";
	struct pages pages;
	struct finding *f;
	bool is_enough;
	size_t n = 0;
	long total;

	pages_read(&pages, m->root, nodes > 1 ? node : -1);
	if (!pages.has_any) {
		f = report_add(r, cfg->hugepages == CFG_HUGEPAGES_ON ? LEVEL_MISSING : LEVEL_NOTE,
		        "hugepages.reserved", "this kernel, or this container, has no 2 MB hugepages");
		finding_means(f, cfg->hugepages == CFG_HUGEPAGES_ON
		                         ? "hugepages = \"on\" does not start without."
		                         : "Plain pages serve, a little slower.");
		return;
	}
	for (int i = 0; nodes > 1 && i < NODE_MAX; i++) {
		long on_node = machine_number(
		        m, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/free_hugepages", i);

		if (on_node >= 0 && n < sizeof(nodes_text))
			n += (size_t)snprintf(
			        nodes_text + n, sizeof(nodes_text) - n, ", node %d: %ld", i, on_node);
	}
	is_enough = pages.left >= (long)need || cfg->hugepages == CFG_HUGEPAGES_OFF || !m->service;
	f = report_add(r,
	        is_enough                            ? LEVEL_OK
	        : cfg->hugepages == CFG_HUGEPAGES_ON ? LEVEL_MISSING
	                                             : LEVEL_NOTE,
	        "hugepages.reserved", "2 MB: %ld reserved, %ld free%s; the service wants about %u",
	        pages.total, pages.left, nodes_text, need);
	if (!m->service) {
		finding_means(f, "A service runs and has its share.");
	} else if (!is_enough) {
		long want = pages_want(&pages, need);

		finding_means(f,
		        cfg->hugepages == CFG_HUGEPAGES_ON
		                ? "hugepages = \"on\" does not start with fewer."
		                : "Plain pages serve, a little slower. Nothing has to be done for a first try.");
		if (node >= 0 && nodes > 1)
			finding_fix(f,
			        "echo %ld | sudo tee /sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages",
			        want, node);
		else
			finding_fix(f, "echo %ld | sudo tee %s/nr_hugepages", want, dir);
	}
	total = machine_number(m, "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages");
	if (total > 0)
		report_add(r, LEVEL_OK, "hugepages.gigantic",
		        "1 GB: %ld reserved, %ld free; Pronk takes 2 MB ones only", total,
		        machine_number(m, "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages"));
}

static void mount_check(const struct machine *m, struct report *r)
{
	char path[PATH_MAX], *line = NULL, where[256] = "";
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/mounts", m->root);
	file = fopen(path, "re");
	while (file && getline(&line, &size, file) > 0) {
		char dir[256], type[64];

		if (sscanf(line, "%*s %255s %63s", dir, type) == 2 && !strcmp(type, "hugetlbfs") && !where[0])
			snprintf(where, sizeof(where), "%s", dir);
	}
	free(line);
	if (file)
		fclose(file);
	finding_means(report_add(r, LEVEL_OK, "hugepages.mount", "%s%s",
	                      where[0] ? "hugetlbfs at " : "no hugetlbfs", where[0] ? where : " is mounted"),
	        "Pronk needs no mount: its memory is a memfd, and goes with its last user.");
}

static void transparent_check(const struct machine *m, struct report *r)
{
	char text[128];

	if (machine_read(m, text, sizeof(text), "/sys/kernel/mm/transparent_hugepage/shmem_enabled") > 0)
		finding_means(report_add(r, LEVEL_OK, "hugepages.transparent", "for shared memory: %s", text),
		        "Where the service takes plain pages, [always] or [advise] may make them large later.");
	else
		report_add(r, LEVEL_OK, "hugepages.transparent", "this kernel has none for shared memory");
}

void check_memory(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	pages_check(m, cfg, r);
	mount_check(m, r);
	transparent_check(m, r);
}

/* --- cores --- */

static void count_check(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	struct finding *f;

	if (cfg->mode == CFG_MODE_INLINE) {
		report_add(r, LEVEL_OK, "cores.count",
		        "mode = \"inline\": the program's own threads run the stack");
		return;
	}
	if (m->allowed_count <= 0) {
		report_add(r, LEVEL_NOTE, "cores.count", "the kernel does not say which cores may be used");
		return;
	}
	f = report_add(r, (uint32_t)m->allowed_count > cfg->stacks ? LEVEL_OK : LEVEL_WARNING, "cores.count",
	        "%d core%s for %u stack thread%s and the programs", m->allowed_count,
	        m->allowed_count == 1 ? "" : "s", cfg->stacks, cfg->stacks == 1 ? "" : "s");
	if (f->level == LEVEL_WARNING) {
		finding_means(
		        f, "Stack threads and programs take turns on the same core, which costs a lot.");
		finding_fix(f, "%s",
		        cfg->stacks > 1 ? "stacks = 1; # in the configuration"
		                        : "mode = \"inline\"; # in the configuration");
	}
}

static void isolation_check(const struct machine *m, const uint16_t *cores, int count, struct report *r)
{
	struct core_set isolated, tickless;
	bool has_isolated = machine_cores(m, &isolated, "/sys/devices/system/cpu/isolated");
	bool has_tickless = machine_cores(m, &tickless, "/sys/devices/system/cpu/nohz_full");
	int shared = 0, ticking = 0;
	char list[128] = "";
	size_t n = 0;
	struct finding *f;

	for (int i = 0; i < count; i++) {
		shared += !core_in(&isolated, cores[i]);
		ticking += !core_in(&tickless, cores[i]);
		if (n < sizeof(list))
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%u", i ? "," : "", cores[i]);
	}
	if (!count)
		return;
	if (!shared) {
		report_add(r, LEVEL_OK, "cores.isolated", "the stacks' core%s %s %s isolated%s",
		        count == 1 ? "" : "s", list, count == 1 ? "is" : "are",
		        ticking ? "" : " and without a timer tick");
		return;
	}
	f = report_add(r, LEVEL_NOTE, "cores.isolated",
	        "core%s %s of the stacks %s shared with other work%s%s", count == 1 ? "" : "s", list,
	        count == 1 ? "is" : "are", has_isolated ? "; others are isolated" : "",
	        has_tickless ? "; some have no timer tick" : "");
	finding_means(f,
	        "What else runs there delays packets now and then. It matters for profile = \"latency\"; nothing has to be "
	        "done for a first try.");
	if (!*machine_virtual(m))
		finding_fix(f,
		        "isolcpus=%s nohz_full=%s # to the kernel's command line (GRUB_CMDLINE_LINUX), then reboot",
		        list, list);
}

static void governor_check(const struct machine *m, const uint16_t *cores, int count, struct report *r)
{
	char text[64], worst[64] = "";
	struct finding *f;

	for (int i = 0; i < count; i++)
		if (machine_read(m, text, sizeof(text),
		            "/sys/devices/system/cpu/cpu%u/cpufreq/scaling_governor", cores[i]) > 0 &&
		        (!worst[0] || strcmp(text, "performance")))
			snprintf(worst, sizeof(worst), "%s", text);
	if (!worst[0]) {
		report_add(r, LEVEL_OK, "cores.governor",
		        "the kernel does not control the frequency here%s%s", *machine_virtual(m) ? ": " : "",
		        machine_virtual(m));
		return;
	}
	f = report_add(
	        r, strcmp(worst, "performance") ? LEVEL_NOTE : LEVEL_OK, "cores.governor", "%s", worst);
	if (f->level == LEVEL_OK)
		return;
	finding_means(f, "A core that was idle wakes up slow: the first packets after a pause take longer.");
	finding_fix(f, "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor");
}

static void numa_check(
        const struct machine *m, const struct cfg *cfg, const uint16_t *cores, int count, struct report *r)
{
	int node = machine_device_node(m, cfg), nodes = machine_nodes(m), far = 0;
	struct core_set near;
	struct finding *f;
	char list[128];

	if (nodes < 2 || node < 0) {
		report_add(r, LEVEL_OK, "cores.numa", "%s",
		        nodes < 2 ? "one NUMA node" : "the device is on no node in particular");
		return;
	}
	for (int i = 0; i < count; i++)
		far += machine_core_node(m, cores[i]) != node;
	f = report_add(r, far ? LEVEL_WARNING : LEVEL_OK, "cores.numa",
	        "the device is on node %d, %d of %d stack cores %s", node, far ? far : count, count,
	        far ? "are not" : "as well");
	if (!far)
		return;
	finding_means(f, "Every packet goes through the link between the nodes.");
	if (machine_cores(m, &near, "/sys/devices/system/node/node%d/cpulist", node) &&
	        machine_read(m, list, sizeof(list), "/sys/devices/system/node/node%d/cpulist", node) > 0)
		finding_fix(f, "cores = \"...\"; # in the configuration: some of %s", list);
}

void check_cores(const struct machine *m, const struct cfg *cfg, struct report *r)
{
	uint16_t cores[64];
	int count = machine_stack_cores(m, cfg, cores, ARRAY_COUNT(cores));

	count_check(m, cfg, r);
	isolation_check(m, cores, count, r);
	governor_check(m, cores, count, r);
	numa_check(m, cfg, cores, count, r);
}
