/* engine.c - owns the order in which the service's parts start and stop, and the threads.
 *
 * Control thread, except thread_main (stack threads) and wake_stack (any stack's thread). Start goes downward
 * through one function and every failure goes back the same way: engine_stop undoes whatever there is. The
 * control server asks for things that only stacks can do through struct server_ops; those are here, too.
 */
#include "engine_int.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "cpu.h"
#include "libc.h"
#include "lock.h"
#include "log.h"
#include "nic_kernel.h"
#include "pages.h"

LOG_MODULE("engine");

enum {
	COUNTED_LINE_MAX = 900, /* the text of a line of the log */
	LOCK_WAIT_MS = 8000,    /* for a service that is just ending, or one that is just starting */
	READY_WAIT_MS = 10000,
	HUGE_PAGE_MIN = 2 << 20,
};

_Static_assert((int)NIC_STACK_MAX == (int)ARENA_STACK_MAX, "one queue per stack");
_Static_assert((int)NIC_REGION_MAX <= (int)ARENA_REGION_MAX, "every region can be named to clients");

/* --- what runs in other threads --- */

static void wake_stack(void *arg, uint32_t stack_idx)
{
	struct engine *e = arg;

	if (stack_idx < e->stack_count && e->stacks[stack_idx])
		stack_wake(e->stacks[stack_idx]);
}

static void *thread_main(void *arg)
{
	struct stack_thread *t = arg;
	struct engine *e = t->e;
	uint64_t one = 1;

	stack_run(e->stacks[t->idx]);
	if (!atomic_load(&e->is_stopping)) {
		atomic_store(&e->has_failed, true);
		if (write(e->event_fd, &one, sizeof(one)) < 0)
			log_error("stack %u has ended", t->idx);
	}
	return NULL;
}

/* --- what the control server asks of the stacks --- */

void engine_publish(struct engine *e)
{
	struct arena_header *h = e->arena.hdr;

	atomic_store(&h->app_spin_us, e->cfg.app_spin_us);
	atomic_store(&h->send_buffer, e->cfg.send_buffer);
	atomic_store(&h->receive_buffer, e->cfg.receive_buffer);
	atomic_store(&h->strict, e->cfg.strict);
}

/* ptr: one for all; each: one for each stack. */
static int post_all(struct engine *e, void (*fn)(struct stack *s, struct stack_msg *m), uint64_t arg,
        void *ptr, void *const *each, _Atomic uint32_t *left)
{
	struct stack_msg *m[ARENA_STACK_MAX];

	for (uint32_t i = 0; i < e->stack_count; i++) {
		m[i] = calloc(1, sizeof(*m[i]));
		if (!m[i]) {
			while (i--)
				free(m[i]);
			return -ENOMEM;
		}
		m[i]->fn = fn;
		m[i]->arg = arg;
		m[i]->ptr = each ? each[i] : ptr;
		m[i]->done = left;
		m[i]->is_heap = true;
	}
	for (uint32_t i = 0; i < e->stack_count; i++)
		stack_post(e->stacks[i], m[i]);
	return 0;
}

int engine_post_all(struct engine *e, void (*fn)(struct stack *s, struct stack_msg *m), uint64_t arg,
        void *ptr, _Atomic uint32_t *left)
{
	return post_all(e, fn, arg, ptr, NULL, left);
}

int engine_post_each(
        struct engine *e, void (*fn)(struct stack *s, struct stack_msg *m), void *const ptr[ARENA_STACK_MAX])
{
	return post_all(e, fn, 0, NULL, ptr, NULL);
}

static int ops_client_gone(void *arg, uint32_t client_idx, _Atomic uint32_t *left)
{
	return engine_post_all(arg, stack_client_gone, client_idx, NULL, left);
}

static int ops_barrier(void *arg, _Atomic uint32_t *left)
{
	return engine_post_all(arg, stack_barrier, 0, NULL, left);
}

static int ops_config_text(void *arg, bool json, char *buf, size_t size)
{
	struct engine *e = arg;
	FILE *file = fmemopen(buf, size, "w");
	long n;
	int rc;

	if (!file)
		return -errno;
	rc = cfg_dump(&e->cfg, file, json);
	if (!rc && fflush(file))
		rc = -EIO;
	n = ftell(file);
	fclose(file);
	return rc ? rc : n >= (long)size ? -ENOSPC : (int)n;
}

static int ops_capture_start(
        void *arg, const struct capture_spec *spec, int *shm_fd, char *err, size_t err_size)
{
	return nic_capture_start(((struct engine *)arg)->nic, spec, shm_fd, err, err_size);
}

static void ops_capture_stop(void *arg, uint32_t capture)
{
	nic_capture_stop(((struct engine *)arg)->nic, capture);
}

static void ops_capture_free(void *arg, uint32_t capture)
{
	nic_capture_free(((struct engine *)arg)->nic, capture);
}

/* --- the parts, in the order of their start --- */

static int port_open(struct engine *e, char *err, size_t err_size)
{
	char reason[256] = "";
	cpu_set_t cpus;
	bool has_cpus = !sched_getaffinity(0, sizeof(cpus), &cpus);
	int rc = nic_open(&e->nic, &e->cfg, e->stack_count, wake_stack, e, reason, sizeof(reason));

	/* the driver library binds the thread that starts it to a core; this one has no business there */
	if (has_cpus)
		sched_setaffinity(0, sizeof(cpus), &cpus);
	if (rc) {
		snprintf(err, err_size, "%s", reason[0] ? reason : strerror(-rc));
		return rc;
	}
	nic_info_get(e->nic, &e->info);
	e->mtu = e->cfg.mtu ? (uint16_t)e->cfg.mtu : e->info.mtu;
	return 0;
}

static int address_find(struct engine *e, char *err, size_t err_size)
{
	struct nic_address a;
	uint32_t mask;
	int rc = nic_kernel_address(&e->cfg, &a);

	if (rc) {
		snprintf(err, err_size, "no IPv4 address for device %s (%s): set option address",
		        e->cfg.device, strerror(-rc));
		return rc;
	}
	memcpy(e->address, a.ip, 4);
	memcpy(e->gateway, a.gateway, 4);
	e->prefix = a.prefix;
	e->has_gateway = a.has_gateway;
	if (!cfg_host_valid(e->address, e->prefix)) {
		snprintf(err, err_size,
		        "%u.%u.%u.%u/%u cannot be the address of device %s: set option address",
		        e->address[0], e->address[1], e->address[2], e->address[3], e->prefix, e->cfg.device);
		return -EINVAL;
	}
	/* with /32 the gateway is the only neighbour, wherever its address lies */
	if (e->has_gateway && e->prefix < 32 && !cfg_same_network(e->address, e->gateway, e->prefix)) {
		snprintf(err, err_size,
		        "gateway %u.%u.%u.%u is outside this port's network: set option gateway",
		        e->gateway[0], e->gateway[1], e->gateway[2], e->gateway[3]);
		return -EINVAL;
	}
	mask = e->prefix ? ~0u << (32 - e->prefix) : 0;
	for (int i = 0; i < 4; i++)
		e->netmask[i] = (uint8_t)(mask >> (24 - 8 * i));
	return 0;
}

static void device_text(const struct cfg *cfg, char *buf, size_t size)
{
	enum cfg_device kind;
	const char *arg;

	if (!cfg_parse_device(cfg->device, &kind, &arg) && kind == CFG_DEVICE_TAP)
		snprintf(buf, size, "tap:%s", arg); /* says what auto became */
	else
		snprintf(buf, size, "%s", cfg->device);
}

static int memory_open(struct engine *e, char *err, size_t err_size)
{
	const struct cfg *cfg = &e->cfg;
	struct arena_spec spec = {
	        .name = "pronk-arena",
	        .huge = cfg->hugepages == CFG_HUGEPAGES_ON     ? 1
	                : cfg->hugepages == CFG_HUGEPAGES_AUTO ? 0
	                                                       : -1,
	};
	struct arena_header *h;
	int rc;

	arena_spec_of(&spec, cfg);
	rc = arena_create(&e->arena, &spec, &e->is_arena_huge, err, err_size);
	if (rc)
		return rc;
	h = e->arena.hdr;
	h->service_pid = getpid();
	engine_publish(e);
	h->loopback = e->cfg.loopback;
	follow_tell(e);
	device_text(cfg, e->device, sizeof(e->device));
	snprintf(h->device, sizeof(h->device), "%s", e->device);
	h->is_inline = e->is_inline;
	snprintf(h->name, sizeof(h->name), "%s", cfg->name);
	snprintf(h->log_file, sizeof(h->log_file), "%s", cfg->log_file);
	cfg_socket_path(cfg, h->socket, sizeof(h->socket));
	h->start_time_ns = clock_wall_ns();

	/* the service sees packet memory where the port has it; these are not mappings of the arena's own */
	e->region_count = nic_regions(e->nic, e->region, NIC_REGION_MAX);
	for (uint32_t i = 0; i < e->region_count; i++) {
		e->arena.region[i].base = e->region[i].base;
		e->arena.region[i].size = e->region[i].size;
	}
	e->arena.region_count = e->region_count;

	e->poller_fds = calloc(ARENA_POLLER_MAX, sizeof(*e->poller_fds));
	if (!e->poller_fds) {
		snprintf(err, err_size, "out of memory");
		return -ENOMEM;
	}
	for (int i = 0; i < ARENA_POLLER_MAX; i++)
		atomic_store_explicit(&e->poller_fds[i], -1, memory_order_relaxed);
	rc = segment_create(&e->stats, e->stack_count, err, err_size);
	if (!rc)
		stat_segment_name(e->stats.base, cfg->name, h->device);
	return rc;
}

static bool are_packets_huge(const struct engine *e)
{
	bool is_huge = e->region_count > 0;

	for (uint32_t i = 0; i < e->region_count; i++)
		is_huge = is_huge && e->region[i].page_size >= HUGE_PAGE_MIN;
	return is_huge;
}

/* had: what the kernel had before the start. */
static void pages_tell(const struct engine *e, const struct pages *had)
{
	bool packets = !are_packets_huge(e), sockets = !e->is_arena_huge;
	const char *what = packets && sockets ? "packet buffers and socket memory are"
	                   : packets          ? "packet buffers are"
	                                      : "socket memory is";
	uint32_t need = arena_pages(&e->cfg, e->mtu);

	if (e->cfg.hugepages != CFG_HUGEPAGES_AUTO || (!packets && !sockets))
		return;
	if (!had->has_any)
		log_warning("%s in plain pages, which is slower: this kernel has no hugepages of 2 MB", what);
	else if (had->left >= (long)need)
		log_warning(
		        "%s in plain pages, which is slower: of %ld free hugepages of 2 MB not all could be had",
		        what, had->left);
	else
		log_warning(
		        "%s in plain pages, which is slower: %ld hugepages of 2 MB were free and about %u are wanted "
		        "(`sysctl vm.nr_hugepages=%ld` before the next start)",
		        what, had->left, need, pages_want(had, need));
}

/* That this process may use them was checked before. */
static int cores_choose(struct engine *e, char *err, size_t err_size)
{
	uint16_t cores[ARENA_STACK_MAX];
	int n;

	if (!strcmp(e->cfg.cores, "auto"))
		n = cpu_pick(cores, e->stack_count);
	else
		n = cfg_parse_cores(e->cfg.cores, cores, ARENA_STACK_MAX);
	if (n <= 0 || (strcmp(e->cfg.cores, "auto") && (uint32_t)n < e->stack_count)) {
		snprintf(err, err_size, "no cores for %u stack threads (option cores is \"%s\")",
		        e->stack_count, e->cfg.cores);
		return n < 0 ? n : -EINVAL;
	}
	for (uint32_t i = 0; i < e->stack_count; i++) {
		e->threads[i].core = cores[i];
	}
	return 0;
}

static int stacks_create(struct engine *e, char *err, size_t err_size)
{
	struct stack_spec spec = {
	        .count = e->stack_count,
	        .cfg = &e->cfg,
	        .arena = &e->arena,
	        .nic = e->nic,
	        .peers = e->stacks,
	        .poller_fds = e->poller_fds,
	        .has_gateway = e->has_gateway,
	        .mtu = e->mtu,
	        .frame_big = e->info.frame_big,
	};
	int rc = e->is_inline ? 0 : cores_choose(e, err, err_size);

	if (rc)
		return rc;
	memcpy(spec.mac, e->info.mac, sizeof(spec.mac));
	memcpy(spec.address, e->address, 4);
	memcpy(spec.netmask, e->netmask, 4);
	memcpy(spec.gateway, e->gateway, 4);
	for (uint32_t i = 0; i < e->stack_count; i++) {
		spec.idx = i;
		spec.stats = stat_segment_block(e->stats.base, i);
		spec.core = e->is_inline ? -1 : e->threads[i].core;
		e->stacks[i] = stack_create(&spec, err, err_size);
		if (!e->stacks[i])
			return -ENOMEM;
	}
	return 0;
}

/* A stack that has run a message is up. */
static int stacks_wait(struct engine *e, char *err, size_t err_size)
{
	/* on the heap: after a failure the messages may be run, and count down here, as late as at the
	 * stacks' end */
	_Atomic uint32_t *left = calloc(1, sizeof(*left));
	int rc = left ? 0 : -ENOMEM;

	if (left) {
		atomic_store(left, e->stack_count);
		rc = engine_post_all(e, stack_barrier, 0, NULL, left);
	}
	if (rc) {
		snprintf(err, err_size, "out of memory");
		free(left);
		return rc;
	}
	for (int waited = 0; atomic_load_explicit(left, memory_order_acquire); waited++) {
		struct timespec nap = {.tv_nsec = 1000000};

		if (atomic_load(&e->has_failed) || waited >= READY_WAIT_MS) {
			snprintf(err, err_size, "a stack thread did not start");
			return -EIO; /* left is leaked, see above */
		}
		nanosleep(&nap, NULL);
	}
	free(left);
	return 0;
}

static int threads_start(struct engine *e, char *err, size_t err_size)
{
	sigset_t all, saved;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	for (uint32_t i = 0; i < e->stack_count && !rc; i++) {
		struct stack_thread *t = &e->threads[i];
		char name[16];

		t->e = e;
		t->idx = i;
		rc = -pthread_create(&t->thread, NULL, thread_main, t);
		if (rc) {
			snprintf(err, err_size, "cannot start thread of stack %u: %s", i, strerror(-rc));
			break;
		}
		t->is_running = true;
		snprintf(name, sizeof(name), "pronk-stack%u", i % ARENA_STACK_MAX);
		pthread_setname_np(t->thread, name);
	}
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return rc ? rc : stacks_wait(e, err, err_size);
}

/* The one stack is this thread's for now. */
static int stack_take(struct engine *e, char *err, size_t err_size)
{
	int rc = stack_enter(e->stacks[0]);

	if (rc) {
		snprintf(err, err_size, "the stack does not start: %s", strerror(-rc));
		return rc;
	}
	stack_announce(e->stacks[0]);
	return 0;
}

static int ctl_start(struct engine *e, char *err, size_t err_size)
{
	char path[CFG_SOCKET_PATH_MAX];
	struct epoll_event ev = {.events = EPOLLIN};
	struct server_spec spec = {
	        .socket_path = path,
	        .arena = &e->arena,
	        .stats = stat_segment_block(e->stats.base, 0),
	        .poller_fds = e->poller_fds,
	        .stats_fd = e->stats.fd,
	        .region_count = e->region_count,
	        .ops = {ops_client_gone, ops_barrier, ops_config_text, ops_capture_start, ops_capture_stop,
	                ops_capture_free, engine_command},
	        .ops_arg = e,
	};
	int rc;

	cfg_socket_path(&e->cfg, path, sizeof(path));
	for (uint32_t i = 0; i < e->stack_count; i++)
		spec.stack_fd[i] = stack_event_fd(e->stacks[i]);
	for (uint32_t i = 0; i < e->region_count; i++) {
		spec.region[i].fd = e->region[i].fd;
		spec.region[i].fd_offset = e->region[i].fd_offset;
		spec.region[i].size = e->region[i].size;
	}
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll_fd < 0 || epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->event_fd, &ev) < 0)
		goto fail;
	rc = server_create(&e->server, &spec, err, err_size);
	if (rc)
		return rc;
	if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, server_fd(e->server), &ev) < 0)
		goto fail;
	follow_open(e);
	return 0;
fail:
	rc = -errno;
	snprintf(err, err_size, "cannot make the service's event loop: %s", strerror(-rc));
	return rc;
}

static int start(struct engine **out, const struct cfg *cfg, bool is_inline, char *err, size_t err_size)
{
	struct engine *e = calloc(1, sizeof(*e));
	struct pages pages;
	int rc = -ENOMEM;

	if (!e) {
		snprintf(err, err_size, "out of memory");
		return rc;
	}
	libc_init();
	pages_read(&pages, "", -1);
	e->cfg = *cfg;
	e->is_inline = is_inline;
	e->stack_count = is_inline ? 1 : cfg->stacks;
	e->lock_fd = e->epoll_fd = e->arena.fd = -1;
	e->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->event_fd < 0) {
		rc = -errno;
		snprintf(err, err_size, "cannot make an event descriptor: %s", strerror(-rc));
		goto fail;
	}
	rc = lock_take(cfg, LOCK_WAIT_MS, err, err_size);
	if (rc < 0)
		goto fail;
	e->lock_fd = rc;
	if ((rc = cfg_check_machine(cfg, !is_inline, err, err_size)) ||
	        (rc = cfg_check_rights(cfg, err, err_size)) || (rc = port_open(e, err, err_size)) ||
	        (rc = address_find(e, err, err_size)) || (rc = memory_open(e, err, err_size)) ||
	        (rc = stacks_create(e, err, err_size)) ||
	        (rc = is_inline ? stack_take(e, err, err_size) : threads_start(e, err, err_size)) ||
	        (rc = ctl_start(e, err, err_size)))
		goto fail;
	pages_tell(e, &pages);
	*out = e;
	return 0;
fail:
	engine_stop(e);
	return rc;
}

int engine_start(struct engine **out, const struct cfg *cfg, char *err, size_t err_size)
{
	return start(out, cfg, false, err, err_size);
}

int engine_start_inline(struct engine **out, const struct cfg *cfg, char *err, size_t err_size)
{
	return start(out, cfg, true, err, err_size);
}

void engine_stop(struct engine *e)
{
	if (!e)
		return;
	server_close(e->server);
	follow_close(e);
	atomic_store(&e->is_stopping, true);
	for (uint32_t i = 0; i < e->stack_count; i++)
		if (e->threads[i].is_running)
			stack_stop(e->stacks[i]);
	for (uint32_t i = 0; i < e->stack_count; i++)
		if (e->threads[i].is_running)
			pthread_join(e->threads[i].thread, NULL);
	if (e->is_inline && e->stacks[0] && stack_is_entered(e->stacks[0]))
		stack_leave(e->stacks[0]);
	/* clients hear of it only now, when their endpoints tell what became of them */
	server_destroy(e->server);
	for (uint32_t i = 0; i < e->stack_count; i++)
		stack_destroy(e->stacks[i]);
	nic_close(e->nic);
	segment_close(&e->stats);
	free(e->poller_fds);
	e->arena.region_count = 0; /* packet memory was the port's */
	arena_close(&e->arena);
	if (e->epoll_fd >= 0)
		close(e->epoll_fd);
	if (e->event_fd >= 0)
		close(e->event_fd);
	if (e->lock_fd >= 0)
		close(e->lock_fd);
	free(e);
}

void engine_close(struct engine *e)
{
	server_close(e->server);
}

void engine_counted(const struct engine *e)
{
	char line[COUNTED_LINE_MAX];
	size_t used = 0;
	struct stat_view view;

	if (stat_view_open(&view, e->stats.base, e->stats.size))
		return;
	for (uint32_t i = 0; i < view.counter_count; i++) {
		const struct pronk_stats_entry *entry = stat_view_entry(&view, i);
		uint64_t value = stat_view_total(&view, i);

		if (value && entry->kind == PRONK_STATS_COUNTER)
			used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%s %llu",
			        used ? "," : "", entry->name, (unsigned long long)value);
		/* some in a line: the log's are not longer */
		if (used && (used > sizeof(line) / 2 || i + 1 == view.counter_count)) {
			log_notice("counted until the end: %s", line);
			used = 0;
		}
	}
}

void engine_owner_changed(struct engine *e)
{
	server_listen_again(e->server);
	atomic_store((_Atomic int32_t *)&e->arena.hdr->service_pid, getpid());
}

bool engine_is_mine(const struct engine *e)
{
	return atomic_load((_Atomic int32_t *)&e->arena.hdr->service_pid) == getpid();
}

void engine_hang_up(struct engine *e)
{
	server_hang_up(e->server);
}

const void *engine_stats(const struct engine *e, size_t *size)
{
	*size = e->stats.size;
	return e->stats.base;
}

int engine_fd(const struct engine *e)
{
	return e->epoll_fd;
}

int engine_serve(struct engine *e)
{
	server_serve(e->server);
	follow_serve(e);
	return atomic_load(&e->has_failed) ? -EIO : 0;
}

const struct cfg *engine_cfg(const struct engine *e)
{
	return &e->cfg;
}

uint32_t engine_client_count(const struct engine *e)
{
	return server_client_count(e->server);
}

/* "core 1", "cores 1, 3" */
static void cores_text(const struct engine *e, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, e->stack_count == 1 ? "core" : "cores");

	for (uint32_t i = 0; i < e->stack_count && n < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s %u", i ? "," : "", e->threads[i].core);
}

void engine_describe(const struct engine *e, char *buf, size_t size)
{
	char path[CFG_SOCKET_PATH_MAX], cores[128];
	uint32_t free_count, total = 0;

	cfg_socket_path(&e->cfg, path, sizeof(path));
	cores_text(e, cores, sizeof(cores));
	nic_buf_levels(nic_queue_get(e->nic, 0), &free_count, &total);
	snprintf(buf, size,
	        "device %s, address %u.%u.%u.%u/%u, %u stack%s on %s, %u packet buffers in %s, socket %s",
	        e->device, e->address[0], e->address[1], e->address[2], e->address[3], e->prefix,
	        e->stack_count, e->stack_count == 1 ? "" : "s", cores, total,
	        are_packets_huge(e) ? "hugepages" : "plain pages", path);
}
