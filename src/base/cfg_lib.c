/* cfg_lib.c - owns the loaded libconfig.
 *
 * It is not linked: a program may export functions of the same names (lighttpd has a config_init of its own),
 * and in a preloaded library these would come first, for our calls and for those inside libconfig. In such a
 * program it is loaded with RTLD_DEEPBIND and sees itself first. Only there: with it libconfig frees by
 * libc's free what libc's strdup has from the program's malloc, where that is another one (jemalloc). A
 * program that has both is not served. Any thread; two that come at once find the same.
 */
#include "cfg_lib.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#endif

#ifdef HAS_SANITIZER
enum { OWN_NAMES_FIRST = 0 }; /* their runtimes must be found first, and refuse it */
#else
enum { OWN_NAMES_FIRST = RTLD_DEEPBIND };
#endif

/* Does the program have functions that libconfig would call in the place of its own? */
static bool has_its_names(void)
{
	static const char *const names[] = {"config_init", "config_destroy", "config_setting_add",
	        "config_setting_get_member", "config_setting_get_elem", "config_lookup", "libconfig_yyparse"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (dlsym(RTLD_DEFAULT, names[i]))
			return true;
	return false;
}

static bool has_own_malloc(void)
{
	Dl_info malloc_in, strdup_in;

	return dladdr(dlsym(RTLD_DEFAULT, "malloc"), &malloc_in) &&
	       dladdr(dlsym(RTLD_DEFAULT, "strdup"), &strdup_in) &&
	       malloc_in.dli_fbase != strdup_in.dli_fbase;
}

const struct cfg_lib *cfg_lib_load(char *err, size_t err_size)
{
	static struct cfg_lib lib;
	static atomic_bool is_loaded;
	struct cfg_lib new;
	int how = RTLD_NOW | RTLD_LOCAL;
	void *handle;

	if (atomic_load_explicit(&is_loaded, memory_order_acquire))
		return &lib;
	if (OWN_NAMES_FIRST != 0 && has_its_names()) {
		if (has_own_malloc()) {
			snprintf(err, err_size, "this program's functions stand in the way of libconfig's");
			return NULL;
		}
		how |= OWN_NAMES_FIRST;
	}
	handle = dlopen(LIBCONFIG_SONAME, how);
	if (!handle) {
		snprintf(err, err_size, "libconfig cannot be loaded: %s", dlerror());
		return NULL;
	}
#define FIND(field, type, name)                                                                              \
	if (!(new.field = (type)(uintptr_t)dlsym(handle, name))) {                                           \
		snprintf(err, err_size, "%s has no %s", LIBCONFIG_SONAME, name);                             \
		return NULL;                                                                                 \
	}
	FIND(init, void (*)(config_t *), "config_init")
	FIND(destroy, void (*)(config_t *), "config_destroy")
	FIND(read_string, int (*)(config_t *, const char *), "config_read_string")
	FIND(length, int (*)(const config_setting_t *), "config_setting_length")
	FIND(elem, config_setting_t * (*)(const config_setting_t *, unsigned), "config_setting_get_elem")
	FIND(get_int, int (*)(const config_setting_t *), "config_setting_get_int")
	FIND(get_int64, long long (*)(const config_setting_t *), "config_setting_get_int64")
	FIND(get_bool, int (*)(const config_setting_t *), "config_setting_get_bool")
	FIND(get_string, const char *(*)(const config_setting_t *), "config_setting_get_string")
#undef FIND
	lib = new;
	atomic_store_explicit(&is_loaded, true, memory_order_release);
	return &lib;
}
