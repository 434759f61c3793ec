/* shim.h - what the files of the preload library share. */
#pragma once
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "clock.h"
#include "compiler.h"
#include "epoll_set.h"
#include "file.h"
#include "libc.h"
#include "poll_set.h"
#include "proc.h"
#include "sock.h"

#define EXPORT __attribute__((visibility("default")))

/* Every exported call begins with this. */
static inline void shim_enter(void)
{
	if (unlikely(!libc_is_ready()))
		libc_init();
}

/* -E to -1 and errno: the one place in the tree where errno is set for the application. */
ssize_t shim_result(ssize_t rc);
