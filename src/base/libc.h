/* libc.h - the kernel as seen past our own shim: pointers to the real functions of every call we take.
 *
 * Code that runs inside an application must use libc.NAME for all of these, or it would come back to the
 * shim.
 */
#pragma once
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct libc_calls {
#define CALL(ret, name, params, args, help) ret(*name) params;
#include "calls.def"
#undef CALL
	int (*fcntl)(int fd, int cmd, ...);
	int (*ioctl)(int fd, unsigned long request, ...);
	int (*open)(const char *path, int flags, ...);
	int (*openat)(int dir, const char *path, int flags, ...);
};

extern struct libc_calls libc;

/* Fills the table (dlsym(3), RTLD_NEXT). Safe to call again and from several threads; must have returned once
 * before any pointer is used. In programs without the shim it finds libc itself. */
void libc_init(void);

/* True once the table is complete. False inside libc_init too, when malloc replacements call back into the
 * shim: use syscall(2). */
bool libc_is_ready(void);

/* The calling thread works for the engine that lives in this process (arena/driver.h): descriptors that it
 * opens are not the application's. */
extern __thread bool libc_inside __attribute__((tls_model("initial-exec")));
