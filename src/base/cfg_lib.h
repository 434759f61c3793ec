/* cfg_lib.h - the functions of libconfig that reading a configuration needs, out of reach of the program's
 * own names. */
#pragma once
#include <libconfig.h>
#include <stddef.h>

struct cfg_lib {
	void (*init)(config_t *config);
	void (*destroy)(config_t *config);
	int (*read_string)(config_t *config, const char *text);
	int (*length)(const config_setting_t *setting);
	config_setting_t *(*elem)(const config_setting_t *setting, unsigned idx);
	int (*get_int)(const config_setting_t *setting);
	long long (*get_int64)(const config_setting_t *setting);
	int (*get_bool)(const config_setting_t *setting);
	const char *(*get_string)(const config_setting_t *setting);
};

/* Loads the library at the first call; it stays. NULL with a reason in err when it cannot be had. Any thread;
 * reads files. dlopen(3) */
const struct cfg_lib *cfg_lib_load(char *err, size_t err_size);
