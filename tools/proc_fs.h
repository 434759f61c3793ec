/* proc_fs.h - what /proc tells of processes: their state, and the shared memory they have open. proc(5)
 * Blocks for reads of /proc only. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Calls fn for each descriptor of process pid (0: of every process that may be looked into) that is the memfd
 * `name`. 0; for a pid, -ESRCH or -EACCES when it cannot be looked into. */
int proc_memfds(
        pid_t pid, const char *name, void (*fn)(void *arg, pid_t pid, uint64_t dev, uint64_t ino), void *arg);

/* Opens, for reading, the memfd `name` that the process has open or mapped; ino: the inode it must be, 0 =
 * any. A close-on-exec descriptor, -ENOENT when it has none, or -E. */
int proc_memfd_open(pid_t pid, const char *name, uint64_t ino);

/* Whether the process has the memfd mapped, and which it is. */
bool proc_maps_find(pid_t pid, const char *name, uint64_t *dev, uint64_t *ino);

/* All of its threads are stopped, by a signal or a debugger. */
bool proc_is_stopped(pid_t pid);

/* Whether process pid calls itself own_pid in its pid namespace. */
bool proc_is(pid_t pid, int32_t own_pid);

void proc_program(pid_t pid, char *buf, size_t size);
