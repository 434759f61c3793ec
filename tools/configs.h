/* configs.h - the configuration files that a command is given: one for each -c, the first is the main one. */
#pragma once
#include <stddef.h>

#include "cfg.h"

/* Adds one, unless it is there already. 0; -EINVAL for an empty name, -ENAMETOOLONG, or -E2BIG: err has the
 * reason, and nothing was added. */
int configs_add(struct cfg_files *files, const char *path, char *err, size_t err_size);

/* Makes each path absolute and free of links, as far as the files are there: whoever gets it may be in
 * another folder. Their number and order stay. 0; -EINVAL for a path with a colon, which separates files in
 * PRONK_CONFIG, or -ENAMETOOLONG: err has the reason. */
int configs_resolve(struct cfg_files *files, char *err, size_t err_size);

/* Gives them to programs that are run from here, as PRONK_CONFIG. 0 or -ENOMEM. Not when other threads run.
 */
int configs_export(const struct cfg_files *files);
