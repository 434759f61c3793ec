/* sandbox.h - what a seccomp filter does to the system calls that the engine needs. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* Tries, in a process of its own, each system call that the engine makes and that sandboxes are known to
 * forbid; is_xdp: those of AF_XDP, too. A call that only fails is the engine's business. 0: none of them ends
 * the process, or there is no filter. -EPERM with a reason: this one would be killed. -E with a reason: it
 * cannot be told. Any thread; blocks for the time of a fork where there is a filter. The application does not
 * see the process, by wait(2) or SIGCHLD. */
int sandbox_probe(bool is_xdp, char *err, size_t err_size);
