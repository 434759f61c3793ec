/* configs.c - collects the files that -c names, and hands them to a program in its environment. What holds
 * without -c is cfg_files_find's. One thread. */
#include "configs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int too_long(const char *path, char *err, size_t err_size)
{
	snprintf(err, err_size,
	        "the path of a configuration file is too long, %zu bytes: \"%.64s...\" (allowed: up to %d bytes)",
	        strlen(path), path, CFG_FILE_PATH_MAX - 1);
	return -ENAMETOOLONG;
}

int configs_add(struct cfg_files *files, const char *path, char *err, size_t err_size)
{
	if (!*path) {
		snprintf(err, err_size, "-c: the name of the file is empty");
		return -EINVAL;
	}
	if (strlen(path) >= CFG_FILE_PATH_MAX)
		return too_long(path, err, err_size);
	for (unsigned i = 0; i < files->count; i++)
		if (!strcmp(files->path[i], path))
			return 0;
	if (files->count == CFG_FILES_MAX) {
		snprintf(err, err_size, "-c: too many files (allowed: up to %d)", CFG_FILES_MAX);
		return -E2BIG;
	}
	strcpy(files->path[files->count++], path);
	return 0;
}

int configs_resolve(struct cfg_files *files, char *err, size_t err_size)
{
	for (unsigned i = 0; i < files->count; i++) {
		char real[PATH_MAX];
		const char *path = realpath(files->path[i], real) ? real : files->path[i];

		if (strchr(path, ':')) {
			snprintf(err, err_size,
			        "%s: a colon separates files in PRONK_CONFIG (allowed: a path without one)",
			        path);
			return -EINVAL;
		}
		if (strlen(path) >= CFG_FILE_PATH_MAX)
			return too_long(path, err, err_size);
		if (path == real)
			strcpy(files->path[i], real);
	}
	return 0;
}

int configs_export(const struct cfg_files *files)
{
	char *list = malloc(CFG_FILES_MAX * (CFG_FILE_PATH_MAX + 1)), *end = list;
	int rc = 0;

	if (!list)
		return -ENOMEM;
	*end = 0;
	for (unsigned i = 0; i < files->count; i++)
		end += sprintf(end, "%s%s", i ? ":" : "", files->path[i]);
	if (*list && setenv("PRONK_CONFIG", list, 1) < 0)
		rc = -errno;
	free(list);
	return rc;
}
