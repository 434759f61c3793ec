/* eal.c - brings DPDK's environment up and down: its arguments, its memory, its messages.
 *
 * Control thread, once per process. Users write no EAL strings: everything follows from struct cfg; eal_args
 * is appended. Packet memory is either hugepages in a memfd (nothing is left on disk) or, when too few are
 * free, plain pages in a memfd of fixed size. Both are one file that can be handed to other processes
 * (pool.c). The EAL must not take over the process: no telemetry socket, no PCI scan unless a PCI device is
 * wanted, no change of the caller's cores, and its messages go through our log.
 *
 * What start-up costs is fixed by the EAL: it loads every driver plugin of its folder whatever `-d` says
 * (30-40 ms and 20 MB), and on machines whose processor does not tell its clock it measures that for 100 ms.
 */
#define ALLOW_EXPERIMENTAL_API /* rte_intr_instance_alloc and others: as such until DPDK 23 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <rte_alarm.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_interrupts.h>
#include <rte_log.h>
#include <rte_version.h>

#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

enum {
	EAL_ARG_MAX = 64,
	EAL_ARG_SIZE = 96,
	ALARM_NAPS = 1000,
};

static struct {
	bool starting, started;
	char complaint[160];
	char text[EAL_ARG_MAX][EAL_ARG_SIZE];
	char user[512];
	char *argv[EAL_ARG_MAX + 1];
	int argc;
} eal;

int nic_fail(char *err, size_t err_size, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err, err_size, fmt, args);
	va_end(args);
	return code;
}

/* Everything DPDK says comes here, a line (or a few) at a time. While we start, its errors are only
 * remembered: the caller turns them into one sentence, and harmless ones would frighten. */
static ssize_t message_write(void *cookie UNUSED, const char *text, size_t size)
{
	int level = rte_log_cur_msg_loglevel();
	int length = (int)size;

	while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' '))
		length--;
	if (length == 0)
		return (ssize_t)size;
	if (eal.starting) {
		if (level > 0 && level <= (int)RTE_LOG_ERR && eal.complaint[0] == '\0')
			snprintf(eal.complaint, sizeof(eal.complaint), "%.*s", length, text);
		log_info("dpdk: %.*s", length, text);
	} else if (level > 0 && level <= (int)RTE_LOG_ERR) {
		log_limited_info("dpdk: %.*s", length, text);
	} else {
		log_debug("dpdk: %.*s", length, text);
	}
	return (ssize_t)size;
}

const char *nic_library_version(void)
{
	return rte_version();
}

const char *nic_driver_folder(void)
{
	return RTE_EAL_PMD_PATH;
}

void eal_listen(void)
{
	eal.complaint[0] = '\0';
}

const char *eal_complaint(void)
{
	return eal.complaint;
}

static void arg_add(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void arg_add(const char *fmt, ...)
{
	va_list args;

	if (eal.argc == EAL_ARG_MAX)
		return;
	va_start(args, fmt);
	vsnprintf(eal.text[eal.argc], EAL_ARG_SIZE, fmt, args);
	va_end(args);
	eal.argv[eal.argc] = eal.text[eal.argc];
	eal.argc++;
}

/* The user's own arguments. Those that make the EAL print something and exit are refused. */
static int args_user(const char *text, char *err, size_t err_size)
{
	char *save = NULL;

	snprintf(eal.user, sizeof(eal.user), "%s", text);
	for (char *word = strtok_r(eal.user, " \t", &save); word != NULL;
	        word = strtok_r(NULL, " \t", &save)) {
		if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-v") == 0 ||
		        strstr(word, "=help") != NULL)
			return nic_fail(err, err_size, -EINVAL, "eal_args: \"%s\" cannot be used here", word);
		if (eal.argc == EAL_ARG_MAX)
			return nic_fail(err, err_size, -EINVAL, "eal_args: too many words");
		eal.argv[eal.argc++] = word;
	}
	return 0;
}

static uint64_t read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned long long value = 0;

	if (file == NULL)
		return 0;
	if (fscanf(file, "%llu", &value) != 1)
		value = 0;
	fclose(file);
	return value;
}

/* Bytes in free hugepages of sizes that do not waste too much (up to 64 MB each; a 1 GB page for one pool is
 * not ours to take). *page is the smallest such size. */
static uint64_t huge_free(uint64_t *page)
{
	static const char folder[] = "/sys/kernel/mm/hugepages";
	DIR *dir = opendir(folder);
	struct dirent *entry;
	uint64_t bytes = 0;

	*page = 0;
	if (dir == NULL)
		return 0;
	while ((entry = readdir(dir)) != NULL) {
		char path[384];
		unsigned long kb;

		if (sscanf(entry->d_name, "hugepages-%lukB", &kb) != 1 || kb > 65536)
			continue;
		snprintf(path, sizeof(path), "%s/%s/free_hugepages", folder, entry->d_name);
		bytes += read_number(path) * kb * 1024;
		snprintf(path, sizeof(path), "%s/%s/resv_hugepages", folder, entry->d_name);
		bytes -= RTE_MIN(bytes, read_number(path) * kb * 1024);
		if (*page == 0 || kb * 1024 < *page)
			*page = kb * 1024;
	}
	closedir(dir);
	return bytes;
}

/* Hugepages or plain pages; that it is plain ones the engine says, which knows all that is wanted. */
static int args_memory(const struct cfg *cfg, uint64_t need, char *err, size_t err_size)
{
	uint64_t page, have = huge_free(&page);
	uint64_t count = page != 0 ? (need + page - 1) / page : 0;
	bool huge = cfg->hugepages != CFG_HUGEPAGES_OFF && page != 0 && have >= count * page;

	if (huge && cfg->dpdk_capture) {
		arg_add("--single-file-segments"); /* secondary.c */
		return 0;
	}
	if (huge) {
		arg_add("--in-memory");
		arg_add("--single-file-segments");
		return 0;
	}
	if (cfg->hugepages == CFG_HUGEPAGES_ON || cfg->dpdk_capture) {
		const char *why = cfg->dpdk_capture ? "dpdk_capture = true" : "hugepages = \"on\"";

		if (page == 0)
			return nic_fail(err, err_size, -ENOMEM, "%s, but this kernel has no hugepages", why);
		return nic_fail(err, err_size, -ENOMEM,
		        "%s, but %llu MB of hugepages are free and %llu MB are needed "
		        "for packets (`pronk check` says how many pages are)",
		        why, (unsigned long long)(have >> 20), (unsigned long long)(count * page >> 20));
	}
	arg_add("--no-huge");
	arg_add("--no-shconf");
	arg_add("-m");
	arg_add("%llu", (unsigned long long)(need >> 20));
	return 0;
}

/* One DPDK core that floats over all cores this process may use: nothing gets pinned. more: that many further
 * ones, whose threads sleep for ever while the stacks go by their numbers (secondary_thread). */
static void args_cores(const cpu_set_t *cores, uint32_t more)
{
	char text[EAL_ARG_SIZE];
	size_t begin = (size_t)snprintf(text, sizeof(text), more ? "(0-%u)@(" : "%u@(", more), used = begin;

	for (int core = 0; core < CPU_SETSIZE; core++) {
		int last = core;

		if (!CPU_ISSET(core, cores))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cores))
			last++;
		if (used > EAL_ARG_SIZE - 16)
			break;
		used += (size_t)snprintf(
		        text + used, sizeof(text) - used, used > begin ? ",%d-%d" : "%d-%d", core, last);
		core = last;
	}
	arg_add("--lcores");
	arg_add("%s)", text);
}

/* An argument the EAL does not know makes it print two screens of help; that is not for the terminal of a
 * program which just wanted a socket. */
static int init_quietly(bool quiet)
{
	int saved = -1, null, ret;

	if (quiet) {
		fflush(stdout);
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	ret = rte_eal_init(eal.argc, eal.argv);
	if (quiet) {
		fflush(stdout);
		if (saved >= 0)
			dup2(saved, STDOUT_FILENO);
		else
			close(STDOUT_FILENO);
		close(saved);
	}
	return ret;
}

static _Atomic bool is_interrupt_told;

static void nothing(void *arg UNUSED)
{
}

/* It makes its own epoll instance anew whenever a source comes or goes: the one that it made before it was
 * told is an application's number. */
static void interrupt_thread_renew(void)
{
	struct rte_intr_handle *handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (handle != NULL && fd >= 0 && rte_intr_fd_set(handle, fd) == 0 &&
	        rte_intr_type_set(handle, RTE_INTR_HANDLE_EXT) == 0 &&
	        rte_intr_callback_register(handle, nothing, NULL) == 0)
		rte_intr_callback_unregister(handle, nothing, NULL);
	if (fd >= 0)
		close(fd);
	rte_intr_instance_free(handle);
}

static void interrupt_tell(void *arg UNUSED)
{
	nic_around_descriptors(true);
	atomic_store(&is_interrupt_told, true);
}

/* DPDK's interrupt thread opens and closes descriptors all the time, memif's among them. */
static void interrupt_thread_tell(void)
{
	const struct timespec nap = {.tv_nsec = 100000};

	if (nic_around_descriptors == NULL || rte_eal_alarm_set(1, interrupt_tell, NULL) != 0)
		return;
	for (int i = 0; i < ALARM_NAPS && !atomic_load(&is_interrupt_told); i++)
		nanosleep(&nap, NULL);
	interrupt_thread_renew();
}

int eal_start(const struct cfg *cfg, const struct device *device, uint64_t memory, char *err, size_t err_size)
{
	static const int levels[] = {RTE_LOG_ERR, RTE_LOG_ERR, RTE_LOG_ERR, RTE_LOG_INFO, RTE_LOG_DEBUG};
	cookie_io_functions_t io = {.write = message_write};
	cpu_set_t cores;
	FILE *messages;
	int ret;

	if (eal.started)
		return nic_fail(err, err_size, -EALREADY, "a NIC was already opened in this process");
	eal.argc = 0;
	eal_listen();
	arg_add("pronkd");
	arg_add("--file-prefix=%s", cfg->name);
	arg_add("--no-telemetry");
	arg_add("--log-level=%d", levels[RTE_MIN(cfg->log_level, (uint32_t)RTE_DIM(levels) - 1)]);
	if (device_is_virtual(device)) {
		arg_add("--no-pci");
		arg_add("--iova-mode=va"); /* no DMA: physical addresses would only need privileges */
	} else {
		arg_add("-a");
		arg_add("%s", device->arg);
	}
	ret = args_memory(cfg, memory, err, err_size);
	if (ret == 0)
		ret = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? 0 : -errno;
	if (ret != 0)
		return ret == -ENOMEM ? ret : nic_fail(err, err_size, ret, "cannot read the allowed cores");
	args_cores(&cores, cfg->dpdk_capture ? cfg->stacks : 0);
	ret = args_user(cfg->eal_args, err, err_size);
	if (ret != 0)
		return ret;
	eal.argv[eal.argc] = NULL;

	messages = fopencookie(NULL, "w", io);
	if (messages != NULL) {
		setvbuf(messages, NULL, _IOLBF, 0);
		rte_openlog_stream(messages);
	}
	eal.starting = true;
	eal.started = true; /* also after a failure: the EAL cannot be tried twice */
	ret = init_quietly(cfg->eal_args[0] != '\0');
	sched_setaffinity(0, sizeof(cores), &cores);
	if (ret < 0)
		return nic_fail(err, err_size, rte_errno != 0 ? -rte_errno : -EIO, "DPDK does not start: %s",
		        eal.complaint[0] != '\0' ? eal.complaint : rte_strerror(rte_errno));
	interrupt_thread_tell();
	return 0;
}

void eal_ready(void)
{
	eal.starting = false;
}

void eal_stop(void)
{
	char folder[128];

	snprintf(folder, sizeof(folder), "%s", rte_eal_get_runtime_dir());
	eal.starting = true; /* farewell messages are no errors */
	rte_eal_cleanup();
	rmdir(folder); /* made by the EAL even where it keeps nothing in it */
}
