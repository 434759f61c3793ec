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
#include "pass.h"
#include "poll_set.h"
#include "proc.h"
#include "raw.h"
#include "sock.h"
#include "spare.h"
#include "user.h"

#define EXPORT __attribute__((visibility("default")))

/* Every exported call begins with this. */
static inline void shim_enter(void)
{
	if (unlikely(!libc_is_ready()))
		libc_init();
}

/* A descriptor that the engine in this process has opened (arena/driver.h): moves it out of the application's
 * way, and remembers that it is not the application's. Its number now, or fd itself if that is negative. */
int number_inside(int fd);

/* The number 0, 1 or 2 has become another file: stdin, stdout or stderr goes through us if it is ours now. */
void stdio_follow(int fd);

/* A call that hands out a number. When there is none left, those that the library can do without go
 * (spare.h). */
#define WITH_ROOM(call)                                                                                      \
	({                                                                                                   \
		int room_fd_ = (call);                                                                       \
		if (unlikely(room_fd_ < 0) && errno == EMFILE && !libc_inside && spare_drop())               \
			room_fd_ = (call);                                                                   \
		room_fd_;                                                                                    \
	})

/* -E to -1 and errno: the one place in the tree where errno is set for the application. */
ssize_t shim_result(ssize_t rc);
