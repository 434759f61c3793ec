/* cfg_files.c - owns which configuration files are used when the user names none: $PRONK_CONFIG, which may
 * name several (a service each), and the places where an installation has its file.
 *
 * Reading them is cfg_load.c. The control thread, or an application thread under the lock of its process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cfg_internal.h"

#ifndef SYSCONFDIR
#define SYSCONFDIR "/etc"
#endif

/* what the documents tell people to write comes before what an installation under another prefix brought */
static const char *const places[] = {"/etc/pronk/pronk.conf", SYSCONFDIR "/pronk/pronk.conf"};
_Static_assert(sizeof(SYSCONFDIR "/pronk/pronk.conf") <= CFG_FILE_PATH_MAX, "sysconfdir is too long");

/* The next element of a list, and where the search for the one after it begins; NULL: there is none. Empty
 * ones are no elements: a variable is put together from others, one of which may be empty. */
static const char *element_next(const char **list, size_t *size)
{
	const char *element;

	*list += strspn(*list, ":");
	element = *list;
	*size = strcspn(element, ":");
	*list += *size;
	return *size > 0 ? element : NULL;
}

/* What $PRONK_CONFIG names; NULL: nothing. */
static const char *variable(void)
{
	const char *list = secure_getenv("PRONK_CONFIG"), *rest = list;
	size_t size;

	return list != NULL && element_next(&rest, &size) != NULL ? list : NULL;
}

static const char *place_find(void)
{
	for (unsigned i = 0; i < ARRAY_COUNT(places); i++)
		if (access(places[i], R_OK) == 0)
			return places[i];
	return NULL;
}

static bool is_named(const struct cfg_files *files, const char *path, size_t size)
{
	for (unsigned i = 0; i < files->count; i++)
		if (strncmp(files->path[i], path, size) == 0 && files->path[i][size] == '\0')
			return true;
	return false;
}

int cfg_files_find(struct cfg_files *out, char *err, size_t err_size)
{
	const char *list = variable(), *path;
	size_t size;

	out->count = 0;
	if (list == NULL) {
		path = place_find();
		if (path != NULL)
			strcpy(out->path[out->count++], path); /* fits: asserted above */
		return 0;
	}
	while ((path = element_next(&list, &size)) != NULL) {
		if (size >= CFG_FILE_PATH_MAX) {
			out->count = 0;
			snprintf(err, err_size,
			        "environment PRONK_CONFIG: a path of %zu bytes is too long: \"%.64s...\" (allowed: up to %d bytes)",
			        size, path, CFG_FILE_PATH_MAX - 1);
			cfg_line_clean(err, err_size);
			return -ENAMETOOLONG;
		}
		if (is_named(out, path, size))
			continue;
		if (out->count == CFG_FILES_MAX) {
			out->count = 0;
			snprintf(err, err_size,
			        "environment PRONK_CONFIG: too many files (allowed: up to %d, separated by \":\")",
			        CFG_FILES_MAX);
			return -E2BIG;
		}
		memcpy(out->path[out->count], path, size);
		out->path[out->count++][size] = '\0';
	}
	return 0;
}

const char *cfg_default_path(void)
{
	static char first[CFG_FILE_PATH_MAX];
	const char *list = variable(), *path;
	size_t size;

	if (list == NULL)
		return place_find();
	path = element_next(&list, &size);
	/* what is too long is given back whole: reading it fails, and names it */
	if (path[size] == '\0' || size >= sizeof(first))
		return path;
	memcpy(first, path, size);
	first[size] = '\0';
	return first;
}
