/* cfg_load.c - owns reading a configuration: the file (libconfig's syntax, flat keys), the environment, the
 * profile.
 *
 * The file is read whole and given to libconfig as text: so a folder, a device or a huge file is refused here
 * instead of inside the scanner, which would end the process. Everything goes into a copy that replaces the
 * caller's struct only when all of it was right. Control thread; blocks on file reads. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cfg_internal.h"
#include "cfg_lib.h"
#include "libc.h"

enum { FILE_SIZE_MAX = 1 << 20, ALLOWED_SIZE = 256 };

/* What an option takes, for "(allowed: ...)". */
static const char *allowed_text(enum option_id id, char *buf, size_t size)
{
	const struct cfg_option *option = &cfg_options[id];
	const char *space = option->unit != NULL && option->unit[0] != '\0' ? " " : "";
	size_t used = 0;

	switch (option->kind) {
	case CFG_KIND_STR:
		snprintf(buf, size, "text of up to %u bytes", option->max);
		break;
	case CFG_KIND_UINT:
		snprintf(buf, size, "%u to %u%s%s", option->min, option->max, space, option->unit);
		break;
	case CFG_KIND_BOOL:
		snprintf(buf, size, "true, false");
		break;
	case CFG_KIND_ENUM:
		for (const char *c = option->choices; *c != '\0' && used + 3 < size; c++) {
			buf[used++] = *c == '|' ? ',' : *c;
			if (*c == '|')
				buf[used++] = ' ';
		}
		buf[used] = '\0';
		break;
	}
	return buf;
}

/* The setters check one value against its option and store it; what names the value in a message. The origin
 * and line of the option are already in cfg, so that a refusal can say where. */

static int text_set(struct cfg *cfg, enum option_id id, const char *text, char *err, size_t err_size)
{
	const struct cfg_option *option = &cfg_options[id];
	char allowed[ALLOWED_SIZE];
	int choice;

	allowed_text(id, allowed, sizeof(allowed));
	if (option->kind == CFG_KIND_ENUM) {
		choice = cfg_choice_find(id, text);
		if (choice < 0)
			return cfg_refuse(cfg, id, err, err_size, "unknown choice \"%.64s\" (allowed: %s)",
			        text, allowed);
		*(uint32_t *)((char *)cfg + option->offset) = (uint32_t)choice;
		return 0;
	}
	if (strlen(text) > option->max)
		return cfg_refuse(cfg, id, err, err_size, "text of %zu bytes is too long (allowed: %s)",
		        strlen(text), allowed);
	strcpy((char *)cfg + option->offset, text);
	return 0;
}

static int number_set(struct cfg *cfg, enum option_id id, long long number, char *err, size_t err_size)
{
	const struct cfg_option *option = &cfg_options[id];
	char allowed[ALLOWED_SIZE];

	if (number < (long long)option->min || number > (long long)option->max) {
		allowed_text(id, allowed, sizeof(allowed));
		if (number == LLONG_MAX || number == LLONG_MIN)
			return cfg_refuse(cfg, id, err, err_size, "out of range (allowed: %s)", allowed);
		return cfg_refuse(
		        cfg, id, err, err_size, "%lld is out of range (allowed: %s)", number, allowed);
	}
	*(uint32_t *)((char *)cfg + option->offset) = (uint32_t)number;
	return 0;
}

/* --- The file --- */

struct source {
	const char *path;
	char *text; /* NUL-terminated */
	size_t size;
};

/* Reads a regular file into source->text, which the caller frees. */
static int source_read(struct source *source, char *err, size_t err_size)
{
	struct stat st;
	ssize_t count;
	bool is_null;
	size_t room;
	int rc, fd;

	libc_init(); /* this may run inside an application, where read and close are the preload's */
	fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = -errno;
		snprintf(err, err_size, "%s: cannot read: %s", source->path, strerror(-rc));
		goto out;
	}
	is_null = S_ISCHR(st.st_mode) &&
	          st.st_rdev == makedev(1, 3); /* /dev/null: the usual word for "no file" */
	if ((!S_ISREG(st.st_mode) && !is_null) || st.st_size > FILE_SIZE_MAX) {
		rc = -EINVAL;
		snprintf(err, err_size, "%s: not a config file (allowed: a regular file of up to %d bytes)",
		        source->path, FILE_SIZE_MAX);
		goto out;
	}
	room = (size_t)st.st_size; /* 0 for /dev/null; what a writer appends meanwhile is not read */
	source->text = malloc(room + 1);
	rc = source->text == NULL ? -ENOMEM : 0;
	while (rc == 0 && source->size < room) {
		count = libc.read(fd, source->text + source->size, room - source->size);
		if (count == 0)
			break;
		if (count > 0)
			source->size += (size_t)count;
		else if (errno != EINTR)
			rc = -errno;
	}
	if (rc < 0)
		snprintf(err, err_size, "%s: cannot read: %s", source->path, strerror(-rc));
	else
		source->text[source->size] = '\0';
out:
	if (fd >= 0)
		libc.close(fd);
	return rc;
}

static const char *line_start(const struct source *source, unsigned line)
{
	const char *start = source->text;

	for (; line > 1; line--) {
		start = strchr(start, '\n');
		if (start == NULL)
			return source->text + source->size;
		start++;
	}
	return start;
}

/* NUL bytes would hide the rest of the file from libconfig, and an include would bring in lines that no
 * message can name. */
static int source_check(const struct source *source, char *err, size_t err_size)
{
	const char *next, *line = source->text, *end = source->text + source->size;
	unsigned number = 1;

	for (; line < end; line = next + 1, number++) {
		next = memchr(line, '\n', (size_t)(end - line));
		if (next == NULL)
			next = end;
		if (memchr(line, '\0', (size_t)(next - line)) != NULL) {
			snprintf(err, err_size, "%s:%u: not a text file (it has a NUL byte)", source->path,
			        number);
			return -EINVAL;
		}
		if (strncmp(line + strspn(line, " \t"), "@include", 8) == 0) {
			snprintf(err, err_size, "%s:%u: @include is not supported (allowed: key = value;)",
			        source->path, number);
			return -EINVAL;
		}
	}
	return 0;
}

static bool is_key_char(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '*';
}

static const char *blank_skip(const char *c)
{
	for (;;) {
		c += strspn(c, " \t\r\n\f");
		if (*c == '#' || (c[0] == '/' && c[1] == '/')) {
			c += strcspn(c, "\n");
		} else if (c[0] == '/' && c[1] == '*') {
			const char *end = strstr(c + 2, "*/");

			c = end == NULL ? c + strlen(c) : end + 2;
		} else {
			return c;
		}
	}
}

static const char *quoted_skip(const char *c)
{
	for (c++; *c != '\0' && *c != '"'; c++)
		if (*c == '\\' && c[1] != '\0')
			c++;
	return *c == '"' ? c + 1 : c;
}

/* The number behind `key =` as it is written, in text that libconfig has accepted. libconfig 1.5 cuts numbers
 * to 32 bits without a word, so that 4294967297 would pass as 1; value is what it made of this one. Saturates
 * at LLONG_MAX and LLONG_MIN. */
static long long number_written(const struct source *source, const char *key, int value)
{
	const char *c = source->text;
	int depth = 0; /* inside groups, lists and arrays: keys there are not options */

	while (*(c = blank_skip(c)) != '\0') {
		const char *word = c;

		if (*c == '"') {
			c = quoted_skip(c);
			continue;
		}
		if (!is_key_char(*c)) {
			depth += (strchr("{[(", *c) != NULL) - (strchr("}])", *c) != NULL);
			c++;
			continue;
		}
		while (is_key_char(*c))
			c++;
		if (depth != 0 || (size_t)(c - word) != strlen(key) || strncmp(word, key, strlen(key)) != 0)
			continue;
		c = blank_skip(c);
		if (*c != '=' && *c != ':')
			continue;
		c = blank_skip(c + 1);
		if (c[0] == '0' && (c[1] == 'x' || c[1] == 'X')) {
			unsigned long long hex = strtoull(c, NULL, 16);

			return hex > LLONG_MAX ? LLONG_MAX : (long long)hex;
		}
		return strtoll(c, NULL, 10);
	}
	return value;
}

static const char *type_text(int type)
{
	switch (type) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		return "a number";
	case CONFIG_TYPE_FLOAT:
		return "a number with a fraction";
	case CONFIG_TYPE_STRING:
		return "text";
	case CONFIG_TYPE_BOOL:
		return "true or false";
	case CONFIG_TYPE_ARRAY:
	case CONFIG_TYPE_LIST:
		return "a list";
	default:
		return "a group";
	}
}

static int setting_apply(const struct cfg_lib *lib, struct cfg *cfg, const struct source *source,
        config_setting_t *setting, char *err, size_t err_size)
{
	const char *key = config_setting_name(setting), *guess;
	unsigned line = config_setting_source_line(setting);
	int id = cfg_option_find(key), type = config_setting_type(setting);
	bool is_text;
	char allowed[ALLOWED_SIZE];

	if (id < 0) {
		guess = cfg_option_suggest(key);
		if (guess != NULL)
			snprintf(err, err_size, "%s:%u: %.64s: unknown option (did you mean %s?)",
			        source->path, line, key, guess);
		else
			snprintf(err, err_size,
			        "%s:%u: %.64s: unknown option (allowed: those in doc/options.md)",
			        source->path, line, key);
		return -EINVAL;
	}
	cfg->origin[id] = CFG_ORIGIN_FILE;
	cfg->line[id] = line;
	is_text = cfg_options[id].kind == CFG_KIND_STR || cfg_options[id].kind == CFG_KIND_ENUM;
	switch (cfg_options[id].kind) {
	case CFG_KIND_STR:
	case CFG_KIND_ENUM:
		if (type == CONFIG_TYPE_STRING)
			return text_set(cfg, (enum option_id)id, lib->get_string(setting), err, err_size);
		break;
	case CFG_KIND_UINT:
		if (type == CONFIG_TYPE_INT)
			return number_set(cfg, (enum option_id)id,
			        number_written(source, key, lib->get_int(setting)), err, err_size);
		if (type == CONFIG_TYPE_INT64)
			return number_set(cfg, (enum option_id)id, lib->get_int64(setting), err, err_size);
		break;
	case CFG_KIND_BOOL:
		if (type == CONFIG_TYPE_BOOL) {
			*(bool *)((char *)cfg + cfg_options[id].offset) = lib->get_bool(setting) != 0;
			return 0;
		}
		break;
	}
	return cfg_refuse(cfg, (enum option_id)id, err, err_size, "%s is the wrong type (allowed: %s%s)",
	        type_text(type), allowed_text((enum option_id)id, allowed, sizeof(allowed)),
	        is_text ? ", in double quotes" : "");
}

/* Whether what stands behind `key =` begins as a value of a number or a switch does, and nothing else follows
 * it in the line. */
static bool is_plain_value(enum cfg_kind kind, const char *c)
{
	char *end;

	if (kind == CFG_KIND_UINT) {
		strtoll(c, &end, 0);
		if (end == c)
			return false;
		c = end + strspn(end, "L");
	} else {
		size_t size = strncasecmp(c, "true", 4) == 0 ? 4 : strncasecmp(c, "false", 5) == 0 ? 5 : 0;

		if (size == 0)
			return false;
		c += size;
	}
	c += strspn(c, " \t\r");
	return *c == '\0' || strchr(";,\n#/", *c) != NULL;
}

/* Says what libconfig refused, as far as the line it stopped at tells. */
static int syntax_refuse(const struct source *source, const config_t *config, char *err, size_t err_size)
{
	unsigned line = config_error_line(config) > 0 ? (unsigned)config_error_line(config) : 1;
	const char *c = line_start(source, line);
	char key[64], allowed[ALLOWED_SIZE];
	size_t size;
	int id;

	c += strspn(c, " \t");
	for (size = 0; is_key_char(c[size]) && size < sizeof(key) - 1; size++)
		key[size] = c[size];
	key[size] = '\0';
	c += size;
	c += strspn(c, " \t");
	id = cfg_option_find(key);
	if (strstr(config_error_text(config), "duplicate") != NULL)
		snprintf(err, err_size, "%s:%u: %s%sset twice (allowed: each key once)", source->path, line,
		        key, size > 0 ? ": " : "");
	else if (id >= 0 && (*c == '=' || *c == ':') && c[1 + strspn(c + 1, " \t")] != '"' &&
	         (cfg_options[id].kind == CFG_KIND_STR || cfg_options[id].kind == CFG_KIND_ENUM))
		snprintf(err, err_size,
		        "%s:%u: %s: syntax error (allowed: text in double quotes, as %s = \"%s\";)",
		        source->path, line, key, key, cfg_options[id].default_text);
	else if (id >= 0 && (*c == '=' || *c == ':') &&
	         (cfg_options[id].kind == CFG_KIND_UINT || cfg_options[id].kind == CFG_KIND_BOOL) &&
	         !is_plain_value(cfg_options[id].kind, c + 1 + strspn(c + 1, " \t")))
		snprintf(err, err_size, "%s:%u: %s: syntax error (allowed: %s)", source->path, line, key,
		        allowed_text((enum option_id)id, allowed, sizeof(allowed)));
	else
		snprintf(err, err_size,
		        "%s:%u: %s%ssyntax error at or before this line (allowed: key = value;)",
		        source->path, line, key, size > 0 ? ": " : "");
	return -EINVAL;
}

static int file_apply(struct cfg *cfg, const char *path, char *err, size_t err_size)
{
	const struct cfg_lib *lib = cfg_lib_load(err, err_size);
	struct source source = {.path = path};
	int rc, count;
	config_t config;

	if (!lib)
		return -ELIBACC;
	rc = source_read(&source, err, err_size);
	if (rc == 0)
		rc = source_check(&source, err, err_size);
	if (rc < 0) {
		free(source.text);
		return rc;
	}
	snprintf(cfg->path, sizeof(cfg->path), "%s", path);
	lib->init(&config);
	if (lib->read_string(&config, source.text) == CONFIG_FALSE) {
		rc = syntax_refuse(&source, &config, err, err_size);
	} else {
		count = lib->length(config_root_setting(&config));
		for (int i = 0; rc == 0 && i < count; i++)
			rc = setting_apply(lib, cfg, &source,
			        lib->elem(config_root_setting(&config), (unsigned)i), err, err_size);
	}
	lib->destroy(&config);
	free(source.text);
	return rc;
}

/* --- The environment --- */

/* Variables that are not options: our own others, and those that container tools make for a service named
 * pronk. */
static bool is_reserved(const char *name)
{
	static const char *const names[] = {"CONFIG", "SOCKET", "PRONKD", "PORT"};
	static const char *const prefixes[] = {"TEST_", "PORT_", "SERVICE_"};

	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	for (unsigned i = 0; i < ARRAY_COUNT(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

static int bool_parse(const char *text, bool *value)
{
	static const char *const words[2][4] = {{"false", "0", "no", "off"}, {"true", "1", "yes", "on"}};

	for (int v = 0; v < 2; v++)
		for (int i = 0; i < 4; i++)
			if (strcasecmp(text, words[v][i]) == 0) {
				*value = v != 0;
				return 0;
			}
	return -EINVAL;
}

static int variable_apply(struct cfg *cfg, enum option_id id, enum cfg_origin origin, const char *text,
        char *err, size_t err_size)
{
	char allowed[ALLOWED_SIZE], *end;
	long long number;

	cfg->origin[id] = (uint8_t)origin;
	switch (cfg_options[id].kind) {
	case CFG_KIND_STR:
	case CFG_KIND_ENUM:
		return text_set(cfg, id, text, err, err_size);
	case CFG_KIND_UINT:
		number = strtoll(text, &end, 10);
		if ((isdigit((unsigned char)text[0]) ||
		            (text[0] == '-' && isdigit((unsigned char)text[1]))) &&
		        *end == '\0')
			return number_set(cfg, id, number, err, err_size);
		break;
	case CFG_KIND_BOOL:
		if (bool_parse(text, (bool *)((char *)cfg + cfg_options[id].offset)) == 0)
			return 0;
		break;
	}
	return cfg_refuse(cfg, id, err, err_size, "\"%.64s\" is the wrong type (allowed: %s)", text,
	        allowed_text(id, allowed, sizeof(allowed)));
}

static int environment_apply(struct cfg *cfg, char *err, size_t err_size)
{
	int id, rc;

	if (getauxval(AT_SECURE) != 0)
		return 0;
	for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
		const char *name = *entry + 6, *equals = strchr(*entry, '='), *guess;
		char key[64], upper[64];
		size_t i, size;

		if (strncmp(*entry, "PRONK_", 6) != 0 || equals == NULL)
			continue;
		size = (size_t)(equals - name) < sizeof(key) - 1 ? (size_t)(equals - name) : sizeof(key) - 1;
		memcpy(upper, name, size);
		upper[size] = '\0';
		if (is_reserved(upper))
			continue;
		for (i = 0; i <= size;
		        i++) /* a lower-case letter is none of ours: it must not find an option */
			key[i] = (char)(islower((unsigned char)upper[i]) ? '?'
			                                                 : tolower((unsigned char)upper[i]));
		id = cfg_option_find(key);
		if (id >= 0) {
			rc = variable_apply(
			        cfg, (enum option_id)id, CFG_ORIGIN_ENVIRONMENT, equals + 1, err, err_size);
			if (rc < 0)
				return rc;
			continue;
		}
		guess = cfg_option_suggest(upper);
		for (i = 0; guess != NULL && guess[i] != '\0'; i++)
			key[i] = (char)toupper((unsigned char)guess[i]);
		key[i] = '\0';
		if (guess != NULL)
			snprintf(err, err_size,
			        "environment PRONK_%s: unknown option (did you mean PRONK_%s?)", upper, key);
		else
			snprintf(err, err_size,
			        "environment PRONK_%s: unknown option (allowed: those in doc/options.md)",
			        upper);
		return -EINVAL;
	}
	return 0;
}

/* --- All of it --- */

static const uint32_t stack_spin_us[] = {1000, 50, 10}, app_spin_us[] = {200, 20, 0};

static void profile_apply(struct cfg *cfg)
{
	if (cfg->profile == CFG_PROFILE_BALANCED)
		return; /* the defaults are balanced */
	if (cfg->origin[OPTION_stack_spin_us] == CFG_ORIGIN_DEFAULT) {
		cfg->stack_spin_us = stack_spin_us[cfg->profile];
		cfg->origin[OPTION_stack_spin_us] = CFG_ORIGIN_PROFILE;
	}
	if (cfg->origin[OPTION_app_spin_us] == CFG_ORIGIN_DEFAULT) {
		cfg->app_spin_us = app_spin_us[cfg->profile];
		cfg->origin[OPTION_app_spin_us] = CFG_ORIGIN_PROFILE;
	}
}

int cfg_load(struct cfg *cfg, const char *path, char *err, size_t err_size)
{
	struct cfg next;
	int rc;

	cfg_defaults(&next);
	rc = path != NULL ? file_apply(&next, path, err, err_size) : 0;
	if (rc == 0)
		rc = environment_apply(&next, err, err_size);
	if (rc < 0)
		return rc;
	profile_apply(&next);
	rc = cfg_check(&next, err, err_size);
	if (rc < 0)
		return rc;
	*cfg = next;
	return 0;
}

int cfg_set_text(struct cfg *cfg, const char *key, const char *text, char *err, size_t err_size)
{
	int id = cfg_option_find(key), rc;
	struct cfg next = *cfg;
	const char *guess;

	if (id < 0) {
		guess = cfg_option_suggest(key);
		if (guess != NULL)
			snprintf(err, err_size, "%.64s: unknown option (did you mean %s?)", key, guess);
		else
			snprintf(err, err_size, "%.64s: unknown option (allowed: those in doc/options.md)",
			        key);
		return -EINVAL;
	}
	if (cfg_option_live((enum option_id)id) == NULL) {
		snprintf(err, err_size,
		        "%s: cannot change while the service runs (allowed: options with \"can change\" in pronkctl config)",
		        key);
		return -EINVAL;
	}
	rc = variable_apply(&next, (enum option_id)id, CFG_ORIGIN_TOOL, text, err, err_size);
	if (rc == 0 && id == OPTION_profile) {
		next.stack_spin_us = stack_spin_us[next.profile];
		next.app_spin_us = app_spin_us[next.profile];
		next.origin[OPTION_stack_spin_us] = next.origin[OPTION_app_spin_us] = CFG_ORIGIN_PROFILE;
	}
	if (rc == 0)
		rc = cfg_check(&next, err, err_size);
	if (rc == 0)
		*cfg = next;
	return rc;
}
