/* guard.h - what is given back when a call is left in the middle.
 *
 * As pthread_cleanup_push(3) and _pop: the routine runs when the thread is cancelled or ends in between. And,
 * other than with the unwinder's tables, also when a signal handler leaves the call by longjmp(3) or
 * siglongjmp(3), as programs do that put a time limit to a call with alarm(2): the C library keeps these
 * buffers in a list, and calls those that a jump passes. Both lines belong into one block. To be used where a
 * call sleeps or spins, not where it holds a lock.
 */
#pragma once
#include <pthread.h>

/* glibc's, without a prototype in its headers; since 2.34 in libc itself. */
extern void _pthread_cleanup_push(
        struct _pthread_cleanup_buffer *buffer, void (*routine)(void *arg), void *arg);
extern void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *buffer, int execute);

#define GUARD_BEGIN(routine, arg)                                                                            \
	{                                                                                                    \
		struct _pthread_cleanup_buffer guard_buffer;                                                 \
		_pthread_cleanup_push(&guard_buffer, routine, arg);

#define GUARD_END(execute)                                                                                   \
	_pthread_cleanup_pop(&guard_buffer, execute);                                                        \
	}
