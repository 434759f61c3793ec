/* user.h - addresses that the application hands in. The kernel answers EFAULT to one that leads nowhere; a
 * copy of our own would be the end of the program.
 *
 * Data itself is only looked at by user_is_wild and user_is_beyond: bytes in memory that is there but closed
 * fault as in any copy. Any thread; nothing blocks.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No program has memory there: near NULL, and the last page, which is -1 and what else looks like an error.
 */
static inline bool user_is_wild(const void *p)
{
	return (uintptr_t)p + 4096 < 8192;
}

/* A stretch that ends where no program has memory: the kernel refuses it before it looks at the socket. */
static inline bool user_is_beyond(const void *p, size_t size)
{
	return (uintptr_t)p + size < (uintptr_t)p || size > (size_t)1 << 56;
}

/* Nothing can be read there. Costs a system call for a page that this thread has not asked about lately. */
bool user_is_bad(const void *p);
