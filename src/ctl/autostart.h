/* autostart.h - making sure that a service runs, from a tool or from inside an application. */
#pragma once
#include <stddef.h>

struct cfg;

/* Returns 0 when a service answers at cfg's socket, starting one (pronkd --autostarted --daemonize) if none
 * does and option autostart allows it. config_path: the file that cfg was read from, or NULL. Blocks up to 15
 * s while the service starts. Any thread of any process; several callers at once are harmless, the service's
 * lock lets one in and the others find that one. Inside an application it leaves no trace: no SIGCHLD, no
 * child that wait(2) could find, no descriptor, no call through the shim. Otherwise -ENOENT or -ECONNREFUSED
 * when none runs and autostart is off, -ETIMEDOUT, or another -E; err has one line then. */
int service_ensure(const struct cfg *cfg, const char *config_path, char *err, size_t err_size);

/* The pronkd that service_ensure starts: $PRONK_PRONKD, else the one of the same build tree or folder as the
 * code that asks, else the installed one. 0, or -ENOENT when none can be executed. */
int service_program(char *buf, size_t size);
