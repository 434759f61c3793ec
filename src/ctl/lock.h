/* lock.h - the service's place in the file system: its runtime folder and the lock that makes it the only
 * one. */
#pragma once
#include <stddef.h>

struct cfg;

/* Makes the runtime folder (mode 0755) when it is missing and takes RUNTIME_DIR/NAME.lock. When another
 * process has it, waits up to wait_ms for that one to become ready or to end. Control thread, before the port
 * is opened. Returns a descriptor that holds the lock until it is closed, -EALREADY when another service
 * runs, or -E; err has one line then. */
int lock_take(const struct cfg *cfg, unsigned wait_ms, char *err, size_t err_size);

/* Whether something listens on the service's socket: 0, or -E of connect(2) (-ENOENT, -ECONNREFUSED: nothing
 * does). Any thread of any process; does not block. Calls past the shim, so libc_init must have run. */
int socket_probe(const char *path);
