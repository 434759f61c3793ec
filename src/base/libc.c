/* libc.c - resolves the real functions behind the calls that the shim takes.
 *
 * Owns the table `libc`. The first caller resolves; a malloc replacement may call read, open or close on the
 * way, which the shim answers by system call as long as libc_is_ready says no. Nothing else of Pronk lives
 * here.
 */
#include "libc.h"
#include "raw.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>

struct libc_calls libc;
__thread bool libc_inside;
static atomic_bool is_ready;

/* libc's close is a cancellation point: not in the middle of what we do. The shim asks before it begins. */
static int close_uncancelled(int fd)
{
	long rc = RAW(SYS_close, fd);

	if (rc < 0)
		errno = (int)-rc;
	return rc < 0 ? -1 : 0;
}

void libc_init(void)
{
	struct libc_calls table;

	if (atomic_load_explicit(&is_ready, memory_order_acquire))
		return;
		/* Two threads may both do this; they find the same. */
#define CALL(ret, name, params, args, help) table.name = (ret(*) params)(uintptr_t)dlsym(RTLD_NEXT, #name);
#include "calls.def"
#undef CALL
	table.fcntl = (int (*)(int, int, ...))(uintptr_t)dlsym(RTLD_NEXT, "fcntl64");
	if (!table.fcntl)
		table.fcntl = (int (*)(int, int, ...))(uintptr_t)dlsym(RTLD_NEXT, "fcntl");
	table.close = close_uncancelled;
	table.open = (int (*)(const char *, int, ...))(uintptr_t)dlsym(RTLD_NEXT, "open");
	table.openat = (int (*)(int, const char *, int, ...))(uintptr_t)dlsym(RTLD_NEXT, "openat");
	table.ioctl = (int (*)(int, unsigned long, ...))(uintptr_t)dlsym(RTLD_NEXT, "ioctl");
	libc = table;
	atomic_store_explicit(&is_ready, true, memory_order_release);
}

bool libc_is_ready(void)
{
	return atomic_load_explicit(&is_ready, memory_order_acquire);
}
