/* dump.h - `pronkctl dump`: everything for a bug report in one archive. */
#pragma once
#include <stdbool.h>

#include "attach.h"

/* Writes the archive to path (NULL: a name of its own in the working folder), which must not exist yet, or to
 * stdout ("-"), if that is no terminal. Works on a service that is stopped, as far as at tells. Says what was
 * written and what could not be had, on stdout, or on stderr beside an archive. 0, or -E after a message on
 * stderr; then there is no file. */
int dump_write(struct attach *at, const char *path);

/* pronkctl.c: runs a command without words; -ENOENT when there is no such one. */
int command_run(struct attach *at, const char *name, bool json);
