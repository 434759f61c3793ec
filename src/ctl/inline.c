/* inline.c - finds and loads the library that holds the engine.
 *
 * Runs in the thread of an application that opens the first socket of Pronk's. The library brings the driver
 * library and all of its plugins along, so it is loaded only when it is needed, and never unloaded.
 */
#include "inline.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cfg.h"
#include "driver.h"
#include "sandbox.h"

#define LIBRARY "libpronk-inline.so"

/* Where it is: beside the code that asks. */
static void library_path(char *buf, size_t size)
{
	const char *named = secure_getenv("PRONK_INLINE");
	Dl_info info;
	const char *slash;

	snprintf(buf, size, "%s", named && *named ? named : LIBRARY);
	if ((named && *named) || !dladdr((void *)(uintptr_t)&inline_start, &info) || !info.dli_fname)
		return;
	slash = strrchr(info.dli_fname, '/');
	if (slash)
		snprintf(buf, size, "%.*s/" LIBRARY, (int)(slash - info.dli_fname), info.dli_fname);
}

int inline_start(const struct cfg *cfg, const struct driver_host *host, struct driver **out, char *err,
        size_t err_size)
{
	char path[PATH_MAX];
	__typeof__(pronk_driver_start) *start;
	void *library;
	int rc = sandbox_probe(!strncmp(cfg->device, "afxdp:", strlen("afxdp:")), err, err_size);

	if (rc)
		return rc;
	library_path(path, sizeof(path));
	host->inside(true);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	host->inside(false);
	start = library ? (__typeof__(start))(uintptr_t)dlsym(library, "pronk_driver_start") : NULL;
	if (!start) {
		const char *reason = dlerror();

		snprintf(err, err_size, "the engine for mode inline cannot be loaded: %s",
		        reason ? reason : path);
		return -ELIBACC;
	}
	return start(cfg, host, out, err, err_size);
}
