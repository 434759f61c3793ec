/* intr.c - a driver's interrupt callbacks in a thread of ours, for a process that may go on as a copy of
 * itself.
 *
 * The EAL runs them in a thread that a forked copy does not have and cannot start again; nor does it tell
 * what is registered. Of the drivers we use without hardware only net_memif has any: its control channel. So
 * where the engine lives in an application (mode = inline), that driver's three calls are led here: the
 * entries of its procedure linkage table are rewritten when it is loaded and not yet used. The thread polls
 * the descriptors and calls back, and a copy of the process starts the same thread on the same table.
 *
 * Registration runs in the control thread, the queue's thread (a link that comes or goes) and the thread
 * here.
 */
#define ALLOW_EXPERIMENTAL_API
#include <errno.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_interrupts.h>

#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

enum { SOURCE_MAX = 64 };

struct source {
	struct rte_intr_handle *handle; /* NULL: free */
	rte_intr_callback_fn call;
	void *arg;
	rte_intr_unregister_callback_fn gone; /* to be called when it has been removed */
	bool is_active, is_leaving;
};

static struct {
	pthread_mutex_t lock; /* the table; never held in a callback */
	pthread_mutex_t busy; /* held while a callback runs */
	struct source source[SOURCE_MAX];
	uint32_t gen; /* raised with every change of the table */
	int wake_fd;
	bool is_running;
	atomic_bool is_stopping;
	pthread_t thread;
} intr = {.lock = PTHREAD_MUTEX_INITIALIZER, .busy = PTHREAD_MUTEX_INITIALIZER, .wake_fd = -1};

static void kick(void)
{
	uint64_t one = 1;

	intr.gen++;
	(void)!write(intr.wake_fd, &one, sizeof(one));
}

static void source_call(struct source *s)
{
	rte_intr_callback_fn call;
	rte_intr_unregister_callback_fn gone;
	struct rte_intr_handle *handle;
	void *arg;

	pthread_mutex_lock(&intr.lock);
	call = s->call;
	arg = s->arg;
	s->is_active = true;
	pthread_mutex_unlock(&intr.lock);
	call(arg);
	pthread_mutex_lock(&intr.lock);
	s->is_active = false;
	gone = s->is_leaving ? s->gone : NULL;
	handle = s->handle;
	if (s->is_leaving) {
		*s = (struct source){0};
		intr.gen++;
	}
	pthread_mutex_unlock(&intr.lock);
	if (gone)
		gone(handle, arg);
}

/* What to poll, and which source each entry is. */
static nfds_t sources_list(struct pollfd *fds, struct source **who, uint32_t *gen)
{
	nfds_t n = 1;

	pthread_mutex_lock(&intr.lock);
	fds[0] = (struct pollfd){.fd = intr.wake_fd, .events = POLLIN};
	for (int i = 0; i < SOURCE_MAX; i++) {
		if (!intr.source[i].handle)
			continue;
		who[n] = &intr.source[i];
		fds[n++] = (struct pollfd){
		        .fd = rte_intr_fd_get(intr.source[i].handle), .events = POLLIN | POLLPRI | POLLRDHUP};
	}
	*gen = intr.gen;
	pthread_mutex_unlock(&intr.lock);
	return n;
}

static bool is_changed(uint32_t gen)
{
	bool changed;

	pthread_mutex_lock(&intr.lock);
	changed = intr.gen != gen;
	pthread_mutex_unlock(&intr.lock);
	return changed;
}

static void *thread_main(void *arg)
{
	struct pollfd fds[SOURCE_MAX + 1];
	struct source *who[SOURCE_MAX + 1];
	uint32_t gen;
	uint64_t drop;

	while (!intr.is_stopping) {
		nfds_t n = sources_list(fds, who, &gen);

		if (poll(fds, n, -1) < 0 || intr.is_stopping)
			continue;
		if (fds[0].revents)
			(void)!read(intr.wake_fd, &drop, sizeof(drop));
		if (nic_around_interrupts)
			nic_around_interrupts(true);
		pthread_mutex_lock(&intr.busy);
		/* what was ready may have been replaced meanwhile: everything is level-triggered, look anew
		 */
		for (nfds_t i = 1; i < n && !is_changed(gen); i++)
			if (fds[i].revents)
				source_call(who[i]);
		pthread_mutex_unlock(&intr.busy);
		if (nic_around_interrupts)
			nic_around_interrupts(false);
	}
	return arg;
}

static int thread_start(void)
{
	sigset_t all, saved;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	rc = pthread_create(&intr.thread, NULL, thread_main, NULL);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (rc == 0) {
		pthread_setname_np(intr.thread, "pronk-intr");
		intr.is_running = true;
	}
	return -rc;
}

/* --- in place of the EAL's --- */

static struct source *source_find(
        const struct rte_intr_handle *handle, rte_intr_callback_fn call, const void *arg)
{
	for (int i = 0; i < SOURCE_MAX; i++) {
		struct source *s = &intr.source[i];

		if (s->handle == handle && s->call == call && (s->arg == arg || arg == (void *)-1))
			return s;
	}
	return NULL;
}

static int callback_register(const struct rte_intr_handle *handle, rte_intr_callback_fn call, void *arg)
{
	struct source *s;
	int rc = 0;

	if (handle == NULL || call == NULL || rte_intr_fd_get(handle) < 0)
		return -EINVAL;
	pthread_mutex_lock(&intr.lock);
	s = source_find(NULL, NULL, NULL);
	if (s == NULL) {
		rc = -ENOMEM;
	} else {
		*s = (struct source){
		        .handle = (struct rte_intr_handle *)(uintptr_t)handle, .call = call, .arg = arg};
		kick();
		if (!intr.is_running)
			rc = thread_start();
	}
	pthread_mutex_unlock(&intr.lock);
	return rc;
}

static int callback_unregister(const struct rte_intr_handle *handle, rte_intr_callback_fn call, void *arg)
{
	struct source *s;
	int rc;

	pthread_mutex_lock(&intr.lock);
	s = handle != NULL ? source_find(handle, call, arg) : NULL;
	rc = s == NULL ? -ENOENT : s->is_active ? -EAGAIN : 1;
	if (rc == 1) {
		*s = (struct source){0};
		kick();
	}
	pthread_mutex_unlock(&intr.lock);
	return rc;
}

static int callback_unregister_pending(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
        void *arg, rte_intr_unregister_callback_fn gone)
{
	struct source *s;
	int rc;

	pthread_mutex_lock(&intr.lock);
	s = handle != NULL ? source_find(handle, call, arg) : NULL;
	rc = s == NULL ? -ENOENT : !s->is_active ? -EAGAIN : 1;
	if (rc == 1) {
		s->is_leaving = true;
		s->gone = gone;
	}
	pthread_mutex_unlock(&intr.lock);
	return rc;
}

/* --- leading a library's calls here --- */

static const struct {
	const char *name;
	uintptr_t to;
} ours[] = {
        {"rte_intr_callback_register", (uintptr_t)callback_register},
        {"rte_intr_callback_unregister", (uintptr_t)callback_unregister},
        {"rte_intr_callback_unregister_pending", (uintptr_t)callback_unregister_pending},
};

static void slot_write(uintptr_t *slot, uintptr_t value)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)slot & ~(page - 1);
	size_t size = (uintptr_t)(slot + 1) > start + page ? 2 * page : page;

	if (mprotect((void *)start, size, PROT_READ | PROT_WRITE) == 0)
		*slot = value;
	/* it stays writable: whether it was is not known, and the next library's slot may be on it */
}

static int relocations_scan(const struct dl_phdr_info *info, const ElfW(Rela) * rela, size_t size,
        const ElfW(Sym) * symbols, const char *strings)
{
	int count = 0;

	for (size_t i = 0; i < size / sizeof(*rela); i++) {
#if __ELF_NATIVE_CLASS == 64
		size_t index = ELF64_R_SYM(rela[i].r_info);
#else
		size_t index = ELF32_R_SYM(rela[i].r_info);
#endif
		const char *name = strings + symbols[index].st_name;

		for (size_t k = 0; index != 0 && rela[i].r_addend == 0 && k < RTE_DIM(ours); k++)
			if (strcmp(name, ours[k].name) == 0) {
				slot_write((uintptr_t *)(info->dlpi_addr + rela[i].r_offset), ours[k].to);
				count++;
			}
	}
	return count;
}

static int library_scan(struct dl_phdr_info *info, size_t info_size UNUSED, void *arg)
{
	const ElfW(Dyn) *dyn = NULL;
	const ElfW(Rela) *jump = NULL, *rela = NULL;
	const ElfW(Sym) *symbols = NULL;
	const char *strings = NULL;
	size_t jump_size = 0, rela_size = 0;

	if (info->dlpi_name == NULL || strstr(info->dlpi_name, "librte_net_memif") == NULL)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dyn = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; dyn != NULL && dyn->d_tag != DT_NULL; dyn++) {
		/* glibc has made these absolute */
		switch (dyn->d_tag) {
		case DT_JMPREL:
			jump = (const ElfW(Rela) *)dyn->d_un.d_ptr;
			break;
		case DT_PLTRELSZ:
			jump_size = dyn->d_un.d_val;
			break;
		case DT_RELA:
			rela = (const ElfW(Rela) *)dyn->d_un.d_ptr;
			break;
		case DT_RELASZ:
			rela_size = dyn->d_un.d_val;
			break;
		case DT_SYMTAB:
			symbols = (const ElfW(Sym) *)dyn->d_un.d_ptr;
			break;
		case DT_STRTAB:
			strings = (const char *)dyn->d_un.d_ptr;
			break;
		}
	}
	if (symbols == NULL || strings == NULL)
		return 0;
	*(int *)arg += relocations_scan(info, jump, jump_size, symbols, strings);
	*(int *)arg += relocations_scan(info, rela, rela_size, symbols, strings);
	return 0;
}

int intr_own(void)
{
	int count = 0;

	if (intr.wake_fd < 0)
		intr.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (intr.wake_fd < 0)
		return -errno;
	dl_iterate_phdr(library_scan, &count);
	return count >= (int)RTE_DIM(ours) ? 0 : -ENOTSUP;
}

void intr_disown(void)
{
	if (intr.is_running) {
		intr.is_stopping = true;
		kick();
		pthread_join(intr.thread, NULL);
	}
	intr.is_running = false;
	intr.is_stopping = false;
	if (intr.wake_fd >= 0)
		close(intr.wake_fd);
	intr.wake_fd = -1;
}

/* --- around fork --- */

void intr_fork_prepare(void)
{
	pthread_mutex_lock(&intr.busy);
	pthread_mutex_lock(&intr.lock);
}

void intr_fork_parent(void)
{
	pthread_mutex_unlock(&intr.lock);
	pthread_mutex_unlock(&intr.busy);
}

int intr_fork_child(void)
{
	bool was_running = intr.is_running;

	pthread_mutex_init(&intr.lock, NULL);
	pthread_mutex_init(&intr.busy, NULL);
	intr.is_running = false;
	return was_running ? thread_start() : 0;
}
