/* cfg_load.c - owns reading a configuration: the file (libconfig's syntax), the environment, the profile.
 *
 * The text is cfg_source.c's, option rules cfg_rules.c's. Everything goes into a copy that replaces the
 * caller's struct only when all of it was right. Control thread; blocks on file reads. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "cfg_internal.h"
#include "cfg_lib.h"
#include "cfg_source.h"

enum { ALLOWED_SIZE = 256 };

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
		if (id == OPTION_mtu) /* see cfg_check.c */
			snprintf(buf, size, "0 or %d to %u bytes", CFG_MTU_MIN, option->max);
		else
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

const char *cfg_type_text(int type)
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

	if (strcmp(key, "rules") == 0)
		return cfg_rules_read(cfg, lib, source, setting, CFG_ORIGIN_FILE, err, err_size);
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
			        source_number(source, key, 0, NULL, lib->get_int(setting)), err, err_size);
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
	        cfg_type_text(type), allowed_text((enum option_id)id, allowed, sizeof(allowed)),
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

/* Behind a value of a line, or NULL when it is none of what the option takes. */
static const char *value_end(int id, const char *c)
{
	const char *end = c;

	if (*c == '"') {
		do {
			for (end++; *end != '\0' && *end != '\n' && *end != '"'; end++)
				if (*end == '\\' && end[1] != '\0')
					end++;
			if (*end != '"')
				return NULL;
			end++;
			end += strspn(end, " \t"); /* libconfig joins texts */
		} while (*end == '"');
		return end;
	}
	end += strcspn(c, " \t\r\n;,#/");
	if (end == c ||
	        (id >= 0 && (cfg_options[id].kind == CFG_KIND_STR || cfg_options[id].kind == CFG_KIND_ENUM)))
		return NULL;
	if (id >= 0) {
		char word[64];

		snprintf(word, sizeof(word), "%.*s", (int)(end - c), c);
		if (!is_plain_value(cfg_options[id].kind, word))
			return NULL;
	}
	return end;
}

/* Where in a line with several settings the one begins that cannot be read; the line's beginning when all
 * can, or when there is more in it than plain ones. */
static const char *setting_suspect(const char *line)
{
	const char *c = line;

	for (;;) {
		const char *begin;
		char key[64];
		size_t size = 0;

		c += strspn(c, " \t\r;,");
		if (*c == '\0' || *c == '\n' || *c == '#' || *c == '/')
			return line;
		begin = c;
		while (source_is_word(c[size]) && size < sizeof(key) - 1)
			size++;
		snprintf(key, sizeof(key), "%.*s", (int)size, c);
		c += size;
		c += strspn(c, " \t");
		if (size == 0 || (*c != '=' && *c != ':'))
			return begin;
		c++;
		c += strspn(c, " \t");
		if (*c == '(' || *c == '[' || *c == '{')
			return line;
		c = value_end(cfg_option_find(key), c);
		if (c == NULL)
			return begin;
	}
}

/* Says what libconfig refused, as far as the line it stopped at tells. */
static int syntax_refuse(const struct source *source, const config_t *config, char *err, size_t err_size)
{
	unsigned line = config_error_line(config) > 0 ? (unsigned)config_error_line(config) : 1;
	const char *c = source_line(source, line);
	char key[64], rule[64], allowed[ALLOWED_SIZE];
	struct source_key twice;
	size_t size;
	int id;

	if (*c == '\0' && line > 1) /* the end is behind the last line */
		c = source_line(source, --line);
	c = setting_suspect(c);
	c += strspn(c, " \t");
	for (size = 0; source_is_word(c[size]) && size < sizeof(key) - 1; size++)
		key[size] = c[size];
	key[size] = '\0';
	c += size;
	c += strspn(c, " \t");
	id = cfg_option_find(key);
	if (strstr(config_error_text(config), "duplicate") != NULL &&
	        source_duplicate(source, line, &twice)) {
		if (twice.depth == 2 && source_is(twice.option, twice.option_size, "rules"))
			snprintf(rule, sizeof(rule), "rules[%u].", twice.group);
		else
			rule[0] = '\0';
		snprintf(err, err_size, "%s:%u: %s%.*s: set twice (allowed: each key once)", source->path,
		        twice.line, rule, (int)twice.size, twice.word);
	} else if (id >= 0 && (*c == '=' || *c == ':') && c[1 + strspn(c + 1, " \t")] != '"' &&
	           (cfg_options[id].kind == CFG_KIND_STR || cfg_options[id].kind == CFG_KIND_ENUM)) {
		snprintf(err, err_size,
		        "%s:%u: %s: syntax error (allowed: text in double quotes, as %s = \"%s\";)",
		        source->path, line, key, key, cfg_options[id].default_text);
	} else if (id >= 0 && (*c == '=' || *c == ':') &&
	           (cfg_options[id].kind == CFG_KIND_UINT || cfg_options[id].kind == CFG_KIND_BOOL) &&
	           !is_plain_value(cfg_options[id].kind, c + 1 + strspn(c + 1, " \t"))) {
		snprintf(err, err_size, "%s:%u: %s: syntax error (allowed: %s)", source->path, line, key,
		        allowed_text((enum option_id)id, allowed, sizeof(allowed)));
	} else if (id < 0 && cfg_rules_place(source, line, rule, sizeof(rule), allowed, sizeof(allowed))) {
		snprintf(err, err_size, "%s:%u: %s: syntax error at or before this line (allowed: %s)",
		        source->path, line, rule, allowed);
	} else if (source_unclosed(source, line, &twice)) {
		snprintf(err, err_size,
		        "%s:%u: %.*s: syntax error: no quote ends this text in its line (allowed: text in double quotes)",
		        source->path, twice.line, (int)twice.size, twice.word);
	} else {
		snprintf(err, err_size,
		        "%s:%u: %.*s: syntax error at or before this line (allowed: key = value;)",
		        source->path, line,
		        (int)(size > 0                    ? size
		                : strcspn(c, "\r\n") < 32 ? strcspn(c, "\r\n")
		                                          : 32),
		        size > 0                   ? key
		        : *c == '\n' || *c == '\0' ? ""
		                                   : c);
		cfg_line_clean(err, err_size);
	}
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
		if (strcmp(key, "rules") == 0) {
			rc = cfg_rules_read_text(cfg, equals + 1, err, err_size);
			if (rc < 0)
				return rc;
			continue;
		}
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
	/* not on the stack: this may be a small one of an application's thread */
	struct cfg *next = malloc(sizeof(*next));
	int rc;

	if (next == NULL) {
		snprintf(err, err_size, "no memory for the configuration");
		return -ENOMEM;
	}
	cfg_defaults(next);
	rc = path != NULL ? file_apply(next, path, err, err_size) : 0;
	if (rc == 0)
		rc = environment_apply(next, err, err_size);
	if (rc == 0) {
		profile_apply(next);
		rc = cfg_check(next, err, err_size);
	}
	if (rc == 0)
		*cfg = *next;
	free(next);
	return rc;
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
