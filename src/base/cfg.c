/* cfg.c - owns the options table made from options.def, the defaults, look-ups in it, and printing a
 * configuration.
 *
 * Which files there are is cfg_files.c, reading them and the environment cfg_load.c, what values mean is
 * cfg_check.c, option rules is cfg_rules.c, and the parsers of single texts are cfg_parse.c. Everything here
 * runs on the control thread or in a command-line tool. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cfg_internal.h"

#define OPT_GROUP(title)
#define OPT_LIVE(k, what)
#define OPT_STR(k, d, m, h)                                                                                  \
	{.key = #k,                                                                                          \
	        .kind = CFG_KIND_STR,                                                                        \
	        .offset = offsetof(struct cfg, k),                                                           \
	        .default_text = d,                                                                           \
	        .max = m,                                                                                    \
	        .help = h},
#define OPT_UINT(k, d, lo, hi, u, h)                                                                         \
	{.key = #k,                                                                                          \
	        .kind = CFG_KIND_UINT,                                                                       \
	        .offset = offsetof(struct cfg, k),                                                           \
	        .default_value = d,                                                                          \
	        .min = lo,                                                                                   \
	        .max = hi,                                                                                   \
	        .unit = u,                                                                                   \
	        .help = h},
#define OPT_BOOL(k, d, h)                                                                                    \
	{.key = #k,                                                                                          \
	        .kind = CFG_KIND_BOOL,                                                                       \
	        .offset = offsetof(struct cfg, k),                                                           \
	        .default_value = d,                                                                          \
	        .max = 1,                                                                                    \
	        .help = h},
#define OPT_ENUM(k, d, c, h)                                                                                 \
	{.key = #k,                                                                                          \
	        .kind = CFG_KIND_ENUM,                                                                       \
	        .offset = offsetof(struct cfg, k),                                                           \
	        .default_text = d,                                                                           \
	        .choices = c,                                                                                \
	        .help = h},
const struct cfg_option cfg_options[OPTION_COUNT] = {
#include "options.def"
};
#undef OPT_STR
#undef OPT_UINT
#undef OPT_BOOL
#undef OPT_ENUM

/* A default outside its own range or field is a build error. */
#define OPT_STR(k, d, m, h) _Static_assert(sizeof(d) <= (m) + 1, "default of " #k " is too long");
#define OPT_UINT(k, d, lo, hi, u, h)                                                                         \
	_Static_assert((lo) <= (d) && (d) <= (hi), "default of " #k " is out of range");
#define OPT_BOOL(k, d, h)
#define OPT_ENUM(k, d, c, h)
#include "options.def"
#undef OPT_STR
#undef OPT_UINT
#undef OPT_LIVE

const char *cfg_option_live(enum option_id id)
{
#define OPT_STR(k, d, m, h)
#define OPT_UINT(k, d, lo, hi, u, h)
#define OPT_LIVE(k, what) [OPTION_##k] = what,
	static const char *const live[OPTION_COUNT] = {
#include "options.def"
	};

	return live[id];
}

void cfg_defaults(struct cfg *cfg)
{
	memset(cfg, 0, sizeof(*cfg));
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct cfg_option *option = &cfg_options[i];
		void *value = (char *)cfg + option->offset;
		int choice;

		switch (option->kind) {
		case CFG_KIND_STR:
			strcpy(value, option->default_text); /* fits: asserted above */
			break;
		case CFG_KIND_UINT:
			*(uint32_t *)value = option->default_value;
			break;
		case CFG_KIND_BOOL:
			*(bool *)value = option->default_value != 0;
			break;
		case CFG_KIND_ENUM:
			choice = cfg_choice_find(i, option->default_text);
			*(uint32_t *)value = choice < 0 ? 0 : (uint32_t)choice;
			break;
		}
	}
}

int cfg_option_find(const char *key)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		if (strcmp(cfg_options[i].key, key) == 0)
			return i;
	return -ENOENT;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;

	return least < c ? least : c;
}

/* Edits (insert, delete, replace, swap of neighbours) that turn a into b; both below 64 bytes. */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned cost[64][64], a_size = (unsigned)strlen(a), b_size = (unsigned)strlen(b);

	for (unsigned i = 0; i <= a_size; i++)
		cost[i][0] = i;
	for (unsigned j = 0; j <= b_size; j++)
		cost[0][j] = j;
	for (unsigned i = 1; i <= a_size; i++) {
		for (unsigned j = 1; j <= b_size; j++) {
			cost[i][j] = min3(cost[i - 1][j] + 1, cost[i][j - 1] + 1,
			        cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			        cost[i - 2][j - 2] + 1 < cost[i][j])
				cost[i][j] = cost[i - 2][j - 2] + 1;
		}
	}
	return cost[a_size][b_size];
}

const char *cfg_nearest(const char *word_given, const char *(*name)(unsigned idx))
{
	unsigned best_distance = UINT32_MAX;
	const char *best = NULL, *other;
	char word[64];
	size_t size;

	/* Case and dashes are not what tells names apart. */
	for (size = 0; word_given[size] != '\0' && size < sizeof(word) - 1; size++) {
		char c = word_given[size];

		word[size] = c == '-' ? '_' : (c >= 'A' && c <= 'Z') ? (char)(c - 'A' + 'a') : c;
	}
	if (size < 2 || word_given[size] != '\0')
		return NULL;
	word[size] = '\0';
	for (unsigned i = 0; (other = name(i)) != NULL; i++) {
		unsigned distance = edit_distance(word, other);

		/* A whole word of a longer name is a good guess too: queue_size, linger. */
		if (size >= 4 && distance > 2 && strstr(other, word) != NULL)
			distance = 2;
		if (distance < best_distance) {
			best_distance = distance;
			best = other;
		}
	}
	return best_distance <= (size < 6 ? 1 + (size > 3) : size / 3) ? best : NULL;
}

/* The options of the table, and the one that is none of its kinds. */
static const char *option_name(unsigned idx)
{
	return idx < OPTION_COUNT ? cfg_options[idx].key : idx == OPTION_COUNT ? "rules" : NULL;
}

const char *cfg_option_suggest(const char *key)
{
	return cfg_nearest(key, option_name);
}

int cfg_choice_text(enum option_id id, uint32_t idx, char *buf, size_t size)
{
	const char *choice = cfg_options[id].choices;

	buf[0] = '\0';
	for (; choice != NULL; idx--) {
		const char *end = strchrnul(choice, '|');

		if (idx == 0) {
			snprintf(buf, size, "%.*s", (int)(end - choice), choice);
			return 0;
		}
		choice = *end == '|' ? end + 1 : NULL;
	}
	return -ENOENT;
}

int cfg_choice_find(enum option_id id, const char *text)
{
	char choice[64];

	for (uint32_t i = 0; cfg_choice_text(id, i, choice, sizeof(choice)) == 0; i++)
		if (strcmp(choice, text) == 0)
			return (int)i;
	return -ENOENT;
}

const char *cfg_origin_name(uint8_t origin)
{
	static const char *const names[] = {"default", "file", "environment", "profile", "pronkctl"};

	return origin < ARRAY_COUNT(names) ? names[origin] : "unknown";
}

void cfg_socket_path(const struct cfg *cfg, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s.sock", cfg->runtime_dir, cfg->name);
}

/* Checked values hold no control characters; others come out as '?'. */
void cfg_quoted_print(FILE *file, const char *text)
{
	fputc('"', file);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', file);
		fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, file);
	}
	fputc('"', file);
}

void cfg_value_print(const struct cfg *cfg, enum option_id id, FILE *file)
{
	const struct cfg_option *option = &cfg_options[id];
	const void *value = (const char *)cfg + option->offset;
	char choice[64];

	switch (option->kind) {
	case CFG_KIND_STR:
		cfg_quoted_print(file, value);
		break;
	case CFG_KIND_UINT:
		fprintf(file, "%u", *(const uint32_t *)value);
		break;
	case CFG_KIND_BOOL:
		fputs(*(const bool *)value ? "true" : "false", file);
		break;
	case CFG_KIND_ENUM:
		cfg_choice_text(id, *(const uint32_t *)value, choice, sizeof(choice));
		cfg_quoted_print(file, choice);
		break;
	}
}

/* FILE:LINE, PRONK_KEY or nothing: where exactly a value was set. */
static void place_print(FILE *file, const struct cfg *cfg, enum option_id id)
{
	if (cfg->origin[id] == CFG_ORIGIN_FILE) {
		fprintf(file, "%s:%u", cfg->path, cfg->line[id]);
	} else if (cfg->origin[id] == CFG_ORIGIN_ENVIRONMENT) {
		fputs("PRONK_", file);
		for (const char *c = cfg_options[id].key; *c != '\0'; c++)
			fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, file);
	}
}

int cfg_dump(const struct cfg *cfg, FILE *file, bool json)
{
	if (json)
		fputs("{\n", file);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		uint8_t origin = cfg->origin[i];
		char *place = NULL;
		size_t place_size = 0;
		FILE *memory = open_memstream(&place, &place_size);

		if (memory == NULL)
			return -errno;
		place_print(memory, cfg, i);
		fclose(memory);
		if (json) {
			fprintf(file, "  \"%s\": {\"value\": ", cfg_options[i].key);
			cfg_value_print(cfg, i, file);
			fprintf(file, ", \"origin\": \"%s\", \"place\": ", cfg_origin_name(origin));
			cfg_quoted_print(file, place);
			fprintf(file, ", \"can_change\": %s},\n", cfg_option_live(i) ? "true" : "false");
		} else {
			fprintf(file, "%s = ", cfg_options[i].key);
			cfg_value_print(cfg, i, file);
			fprintf(file, "; # %s%s%s%s\n", cfg_origin_name(origin), place[0] != '\0' ? " " : "",
			        place, cfg_option_live(i) ? ", can change" : "");
		}
		free(place);
	}
	cfg_rules_print(cfg, file, json);
	if (json)
		fputs("}\n", file);
	return ferror(file) ? -EIO : 0;
}
