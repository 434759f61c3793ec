/* user.c - whether an address of the application's can be read. Runs in application threads. */
#include "user.h"
#include "attach.h"
#include "compiler.h"
#include "raw.h"

enum { SLOTS = 8, PAGE = 4096, MASK_BYTES = 8 };

bool user_is_bad(const void *p)
{
	static __thread uintptr_t good[SLOTS]; /* pages; one that is unmapped later just faults */
	uintptr_t page = (uintptr_t)p / PAGE;

	if (unlikely(user_is_wild(p)))
		return true;
	if (likely(good[page % SLOTS] == page) || attach_is_sandboxed())
		return false;
	/* reads the mask, and only then refuses the first argument: sigprocmask(2) */
	if (RAW(SYS_rt_sigprocmask, -1, (uintptr_t)p & ~(uintptr_t)(MASK_BYTES - 1), NULL, MASK_BYTES) ==
	        -EFAULT)
		return true;
	good[page % SLOTS] = page;
	return false;
}
