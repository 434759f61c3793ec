/* cfg_rules.c - owns the meaning of option rules: reading it (rules.def), printing it, and what it says of a
 * socket.
 *
 * Reading runs where the configuration is loaded, asking in any thread. Who asks, and when, is
 * src/sock/rule.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cfg_internal.h"
#include "cfg_lib.h"
#include "cfg_source.h"
#include "libc.h"

enum { ALLOWED_SIZE = 128, NAME_BUF_MAX = 1 << 20 };

#define RULE_EXAMPLE "( { program = \"redis-*\"; action = \"accelerate\"; }, ... )"

static const struct {
	const char *name, *choices; /* choices NULL: a text */
	size_t offset, max;
} keys[RULE_KEY_COUNT] = {
#define RULE_TEXT(k, m, h) {.name = #k, .offset = offsetof(struct cfg_rule, k), .max = m},
#define RULE_ENUM(k, c, h) {.name = #k, .choices = c, .offset = offsetof(struct cfg_rule, k)},
#include "rules.def"
#undef RULE_TEXT
#undef RULE_ENUM
};

const char *cfg_rule_key_name(unsigned key)
{
	return key < RULE_KEY_COUNT ? keys[key].name : NULL;
}

static int key_find(const char *name)
{
	for (int k = 0; k < RULE_KEY_COUNT; k++)
		if (strcmp(keys[k].name, name) == 0)
			return k;
	return -ENOENT;
}

/* --- reading --- */

struct reader {
	struct cfg *cfg;
	const struct cfg_lib *lib;
	const struct source *source;
	unsigned number; /* of the rule, from 1; 0: the option itself */
	unsigned line;
	char *err;
	size_t err_size;
};

static int refuse(const struct reader *r, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Writes place, rule, key and the reason. Always -EINVAL. */
static int refuse(const struct reader *r, const char *key, const char *fmt, ...)
{
	char reason[384], place[CFG_PATH_MAX + 32], at[32] = "";
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	if (r->cfg->rules_origin == CFG_ORIGIN_ENVIRONMENT)
		snprintf(place, sizeof(place), "environment PRONK_RULES");
	else
		snprintf(place, sizeof(place), "%s:%u", r->cfg->path, r->line);
	if (r->number > 0)
		snprintf(at, sizeof(at), "[%u]%s", r->number, key != NULL ? "." : "");
	snprintf(r->err, r->err_size, "%s: rules%s%s: %s", place, at, key != NULL ? key : "", reason);
	cfg_line_clean(r->err, r->err_size);
	return -EINVAL;
}

/* A list of choices as "a, b, c". */
static const char *choices_text(int key, char *buf, size_t size)
{
	size_t used = 0;

	for (const char *c = keys[key].choices; *c != '\0' && used + 3 < size; c++) {
		buf[used++] = *c == '|' ? ',' : *c;
		if (*c == '|')
			buf[used++] = ' ';
	}
	buf[used] = '\0';
	return buf;
}

/* Choice number idx of a key; false when there is none. */
static bool choice_text(int key, unsigned idx, char *buf, size_t size)
{
	const char *c = keys[key].choices;

	for (; c != NULL; idx--) {
		const char *end = strchrnul(c, '|');

		if (idx == 0) {
			snprintf(buf, size, "%.*s", (int)(end - c), c);
			return true;
		}
		c = *end == '|' ? end + 1 : NULL;
	}
	return false;
}

static int choice_read(struct reader *r, struct cfg_rule *rule, int key, const char *text)
{
	char choice[32], allowed[ALLOWED_SIZE];

	for (unsigned i = 0; choice_text(key, i, choice, sizeof(choice)); i++) {
		if (strcmp(choice, text) != 0)
			continue;
		*((uint8_t *)rule + keys[key].offset) = (uint8_t)i;
		return 0;
	}
	return refuse(r, keys[key].name, "unknown choice \"%.64s\" (allowed: %s)", text,
	        choices_text(key, allowed, sizeof(allowed)));
}

static int program_check(struct reader *r, struct cfg_rule *rule)
{
	if (rule->program[0] == '\0' || strchr(rule->program, '/') != NULL)
		return refuse(r, "program",
		        "\"%s\" is not a program's name (allowed: a name or pattern without folders, as redis-*)",
		        rule->program);
	return 0;
}

static int user_check(struct reader *r, struct cfg_rule *rule)
{
	const char *text = rule->user;
	char *end;
	unsigned long long uid;

	if (text[0] >= '0' && text[0] <= '9') {
		uid = strtoull(text, &end, 10);
		if (*end == '\0' && uid >= UINT32_MAX) /* (uid_t)-1 is nobody's */
			return refuse(r, "user", "%s is out of range (allowed: a user's name, or 0 to %u)",
			        text, UINT32_MAX - 1);
		if (*end == '\0') {
			rule->uid = (uint32_t)uid;
			rule->user_kind = CFG_RULE_USER_ID;
			return 0;
		}
	}
	if (text[0] == '\0' || text[0] == '-' || strpbrk(text, ":,/ \t\"\\") != NULL)
		return refuse(r, "user", "\"%s\" is not a user (allowed: a user's name, or 0 to %u)", text,
		        UINT32_MAX - 1);
	rule->user_kind = CFG_RULE_USER_NAME;
	return 0;
}

static int address_check(struct reader *r, struct cfg_rule *rule)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	static const char allowed[] = "A.B.C.D, A.B.C.D/N, or the same of IPv6";
	char text[sizeof(rule->address)], host[INET6_ADDRSTRLEN], *slash, *end;
	unsigned bits;
	unsigned long prefix;
	uint8_t base[16] = {0};

	strcpy(text, rule->address);
	slash = strchr(text, '/');
	if (slash != NULL)
		*slash = '\0';
	rule->family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
	if (inet_pton(rule->family, text, rule->ip) != 1)
		return refuse(r, "address", "\"%s\" is not an address (allowed: %s)", rule->address, allowed);
	if (slash == NULL && strcmp(text, "::") == 0)
		return refuse(r, "address",
		        ":: fits nothing (allowed: 0.0.0.0 for a socket bound to the wildcard, of IPv6 as well)");
	if (rule->family == AF_INET6 && memcmp(rule->ip, mapped, sizeof(mapped)) == 0)
		return refuse(r, "address",
		        "%s: sockets with such an address are taken for IPv4 (allowed: A.B.C.D or A.B.C.D/N)",
		        rule->address);
	bits = rule->family == AF_INET6 ? 128 : 32;
	prefix = bits;
	if (slash != NULL) {
		prefix = slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : ULONG_MAX;
		if (prefix > bits || *end != '\0')
			return refuse(r, "address", "\"/%s\" is not a prefix length (allowed: /0 to /%u)",
			        slash + 1, bits);
	}
	rule->prefix = (uint8_t)prefix;
	for (unsigned i = 0; i < prefix; i++)
		base[i / 8] |= (uint8_t)(rule->ip[i / 8] & (0x80 >> (i % 8)));
	if (memcmp(base, rule->ip, bits / 8) != 0) {
		inet_ntop(rule->family, base, host, sizeof(host));
		return refuse(r, "address",
		        "%s is a host in a network (allowed: %s/%lu, or the host without /%lu)",
		        rule->address, host, prefix, prefix);
	}
	return 0;
}

static bool number_take(const char **c, unsigned long *number)
{
	char *end;

	if (**c < '0' || **c > '9')
		return false;
	*number = strtoul(*c, &end, 10);
	*c = end;
	return true;
}

static int port_check(struct reader *r, struct cfg_rule *rule)
{
	const char *c = rule->port;
	unsigned long port[2] = {0};
	bool ok = number_take(&c, &port[0]);

	port[1] = port[0];
	if (ok && *c == '-') {
		c++;
		ok = number_take(&c, &port[1]);
	}
	if (!ok || *c != '\0')
		return refuse(r, "port",
		        "\"%s\" is not a port (allowed: 1 to 65535, or a range as 6379-6389)", rule->port);
	if (port[0] < 1 || port[0] > 65535 || port[1] < 1 || port[1] > 65535)
		return refuse(r, "port", "%s is out of range (allowed: 1 to 65535)", rule->port);
	if (port[0] > port[1])
		return refuse(r, "port", "%s ends before it begins (allowed: %lu-%lu)", rule->port, port[1],
		        port[0]);
	rule->port_first = (uint16_t)port[0];
	rule->port_last = (uint16_t)port[1];
	return 0;
}

static int text_read(struct reader *r, struct cfg_rule *rule, int key, const char *text)
{
	if (strlen(text) > keys[key].max)
		return refuse(r, keys[key].name,
		        "text of %zu bytes is too long (allowed: text of up to %zu bytes)", strlen(text),
		        keys[key].max);
	for (const char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return refuse(r, keys[key].name,
			        "control characters are not possible here (allowed: one line of text)");
	strcpy((char *)rule + keys[key].offset, text);
	switch (key) {
	case RULE_program:
		return program_check(r, rule);
	case RULE_user:
		return user_check(r, rule);
	case RULE_address:
		return address_check(r, rule);
	default:
		return port_check(r, rule);
	}
}

static int key_read(struct reader *r, struct cfg_rule *rule, config_setting_t *setting)
{
	const char *name = config_setting_name(setting), *guess;
	int key = key_find(name), type = config_setting_type(setting);
	char number[32], allowed[ALLOWED_SIZE];
	long long value;

	r->line = config_setting_source_line(setting);
	if (key < 0) {
		guess = cfg_nearest(name, cfg_rule_key_name);
		snprintf(number, sizeof(number), "%.30s", name);
		if (guess != NULL)
			return refuse(r, number, "unknown key (did you mean %s?)", guess);
		return refuse(r, number, "unknown key (allowed: program, user, role, address, port, action)");
	}
	rule->set |= 1u << key;
	if (type == CONFIG_TYPE_STRING) {
		const char *text = r->lib->get_string(setting);

		return keys[key].choices != NULL ? choice_read(r, rule, key, text)
		                                 : text_read(r, rule, key, text);
	}
	/* a user's number and a port may stand there without quotes */
	if ((key == RULE_user || key == RULE_port) &&
	        (type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64)) {
		value = type == CONFIG_TYPE_INT64 ? r->lib->get_int64(setting)
		                                  : source_number(r->source, "rules", r->number, name,
		                                            r->lib->get_int(setting));
		if (value < 0 || value > UINT32_MAX)
			return refuse(r, name, "the number is out of range (allowed: %s)",
			        key == RULE_port ? "1 to 65535" : "0 to 4294967294");
		snprintf(number, sizeof(number), "%lld", value);
		return text_read(r, rule, key, number);
	}
	if (keys[key].choices != NULL)
		choices_text(key, allowed, sizeof(allowed));
	else
		snprintf(allowed, sizeof(allowed), "text of up to %zu bytes", keys[key].max);
	return refuse(r, name, "%s is the wrong type (allowed: %s, in double quotes)", cfg_type_text(type),
	        allowed);
}

static int rule_read(struct reader *r, struct cfg_rule *rule, config_setting_t *group)
{
	char allowed[ALLOWED_SIZE];
	int count, rc;

	memset(rule, 0, sizeof(*rule));
	r->line = rule->line = config_setting_source_line(group);
	if (config_setting_type(group) != CONFIG_TYPE_GROUP)
		return refuse(r, NULL,
		        "%s is the wrong type (allowed: a group, { ... action = \"kernel\"; })",
		        cfg_type_text(config_setting_type(group)));
	count = r->lib->length(group);
	for (int i = 0; i < count; i++) {
		rc = key_read(r, rule, r->lib->elem(group, (unsigned)i));
		if (rc < 0)
			return rc;
	}
	r->line = rule->line;
	if (!cfg_rule_has(rule, RULE_action))
		return refuse(r, "action", "it is missing (allowed: %s)",
		        choices_text(RULE_action, allowed, sizeof(allowed)));
	return 0;
}

int cfg_rules_read(struct cfg *cfg, const struct cfg_lib *lib, const struct source *source, void *setting,
        uint8_t origin, char *err, size_t err_size)
{
	struct reader r = {.cfg = cfg,
	        .lib = lib,
	        .source = source,
	        .line = config_setting_source_line((config_setting_t *)setting),
	        .err = err,
	        .err_size = err_size};
	int type = config_setting_type((config_setting_t *)setting), count, rc;

	cfg->rules_origin = origin;
	cfg->rules_line = origin == CFG_ORIGIN_FILE ? r.line : 0;
	cfg->rule_count = 0;
	if (type != CONFIG_TYPE_LIST)
		return refuse(&r, NULL, "%s is the wrong type (allowed: a list of groups, " RULE_EXAMPLE ")",
		        type == CONFIG_TYPE_ARRAY ? "an array" : cfg_type_text(type));
	count = lib->length(setting);
	for (int i = 0; i < count; i++) {
		config_setting_t *group = lib->elem(setting, (unsigned)i);

		r.number = (unsigned)i + 1;
		if (i >= CFG_RULE_MAX) {
			r.line = config_setting_source_line(group);
			return refuse(
			        &r, NULL, "there are %d rules (allowed: up to %d)", count, CFG_RULE_MAX);
		}
		rc = rule_read(&r, &cfg->rules[i], group);
		if (rc < 0)
			return rc;
	}
	cfg->rule_count = (uint32_t)count;
	return 0;
}

int cfg_rules_read_text(struct cfg *cfg, const char *text, char *err, size_t err_size)
{
	const struct cfg_lib *lib = cfg_lib_load(err, err_size);
	struct source source = {.path = ""};
	struct source_key twice;
	config_t config;
	int rc, size;
	bool is_read;

	if (lib == NULL)
		return -ELIBACC;
	size = asprintf(&source.text, "rules = %s\n;", text);
	if (size < 0)
		return -ENOMEM;
	source.size = (size_t)size;
	lib->init(&config);
	rc = -EINVAL;
	is_read = lib->read_string(&config, source.text) != CONFIG_FALSE;
	if (strlen(text) > SOURCE_SIZE_MAX)
		snprintf(err, err_size, "environment PRONK_RULES: too long (allowed: up to %d bytes)",
		        SOURCE_SIZE_MAX);
	else if (!is_read && source_duplicate(&source, 0, &twice))
		snprintf(err, err_size,
		        "environment PRONK_RULES: rules[%u].%.*s: set twice (allowed: each key once)",
		        twice.group, (int)twice.size, twice.word);
	else if (!is_read || lib->length(config_root_setting(&config)) != 1)
		snprintf(err, err_size,
		        "environment PRONK_RULES: syntax error (allowed: a list of groups, " RULE_EXAMPLE
		        ")");
	else
		rc = cfg_rules_read(cfg, lib, &source, lib->elem(config_root_setting(&config), 0),
		        CFG_ORIGIN_ENVIRONMENT, err, err_size);
	lib->destroy(&config);
	free(source.text);
	return rc;
}

bool cfg_rules_place(const struct source *source, unsigned line, char *key, size_t key_size, char *allowed,
        size_t allowed_size)
{
	struct source_walk w = {.at = source->text};
	struct source_key k, last = {.option = NULL};

	while (source_next(&w, &k) && k.line <= line) {
		int id;

		last = k;
		if (k.line != line || k.depth != 2 || !source_is(k.option, k.option_size, "rules"))
			continue;
		/* a text without its quotes is the likeliest mistake */
		for (id = 0; id < RULE_KEY_COUNT && !source_is(k.word, k.size, keys[id].name); id++)
			;
		if (id == RULE_KEY_COUNT || *k.value == '"' ||
		        ((id == RULE_user || id == RULE_port) && *k.value >= '0' && *k.value <= '9'))
			continue;
		snprintf(key, key_size, "rules[%u].%s", k.group, keys[id].name);
		snprintf(allowed, allowed_size, "text in double quotes");
		return true;
	}
	if (last.option == NULL || !source_is(last.option, last.option_size, "rules"))
		return false;
	if (last.group == 0)
		snprintf(key, key_size, "rules");
	else
		snprintf(key, key_size, "rules[%u]", last.group);
	snprintf(allowed, allowed_size, "%s", RULE_EXAMPLE);
	return true;
}

/* --- printing --- */

static void rule_print(const struct cfg_rule *rule, FILE *file, bool json)
{
	const char *before = "";
	char choice[32];

	fputs("{ ", file);
	for (int k = 0; k < RULE_KEY_COUNT; k++) {
		if (!cfg_rule_has(rule, (enum cfg_rule_key)k))
			continue;
		fprintf(file, json ? "%s\"%s\": " : "%s%s = ", before, keys[k].name);
		if (keys[k].choices == NULL) {
			cfg_quoted_print(file, (const char *)rule + keys[k].offset);
		} else {
			choice_text(k, *((const uint8_t *)rule + keys[k].offset), choice, sizeof(choice));
			cfg_quoted_print(file, choice);
		}
		if (!json)
			fputc(';', file);
		before = json ? ", " : " ";
	}
	fputs(" }", file);
}

void cfg_rules_print(const struct cfg *cfg, FILE *file, bool json)
{
	char place[CFG_PATH_MAX + 32] = "";

	if (cfg->rules_origin == CFG_ORIGIN_FILE)
		snprintf(place, sizeof(place), "%s:%u", cfg->path, cfg->rules_line);
	else if (cfg->rules_origin == CFG_ORIGIN_ENVIRONMENT)
		snprintf(place, sizeof(place), "PRONK_RULES");
	fputs(json ? "  \"rules\": {\"value\": [" : cfg->rule_count > 0 ? "rules = (" : "rules = ( );", file);
	if (!json)
		fprintf(file, " # %s%s%s", cfg_origin_name(cfg->rules_origin), place[0] != '\0' ? " " : "",
		        place);
	for (uint32_t i = 0; i < cfg->rule_count; i++) {
		fputs(json ? (i > 0 ? ", " : "") : "\n  ", file);
		rule_print(&cfg->rules[i], file, json);
		if (json)
			continue;
		fprintf(file, "%s # rule %u", i + 1 < cfg->rule_count ? "," : "", i + 1);
		if (cfg->rules_origin == CFG_ORIGIN_FILE)
			fprintf(file, ", line %u", cfg->rules[i].line);
	}
	if (json) {
		fprintf(file, "], \"origin\": \"%s\", \"place\": ", cfg_origin_name(cfg->rules_origin));
		cfg_quoted_print(file, place);
		fputs(", \"can_change\": false}\n", file);
	} else {
		fputs(cfg->rule_count > 0 ? "\n);\n" : "\n", file);
	}
}

void cfg_rule_text(const struct cfg *cfg, unsigned number, char *buf, size_t size)
{
	snprintf(buf, size, "rule %u of %s", number,
	        cfg->rules_origin == CFG_ORIGIN_ENVIRONMENT ? "PRONK_RULES" : cfg->path);
}

/* --- users --- */

/* The number of a user, -ENOENT when there is none of that name, or another -E. */
static int64_t user_find(const char *name)
{
	struct passwd entry, *found = NULL;
	size_t size = 1024;
	bool was_inside = libc_inside;
	char *buf = NULL;
	int rc;

	libc_inside = true; /* what a name service opens is not the application's */
	do {
		char *more = realloc(buf, size);

		if (more == NULL) {
			rc = ENOMEM;
			break;
		}
		buf = more;
		rc = getpwnam_r(name, &entry, buf, size, &found);
		size *= 2;
	} while (rc == ERANGE && size <= NAME_BUF_MAX);
	libc_inside = was_inside;
	if (rc == 0 && found == NULL)
		rc = ENOENT;
	free(buf);
	return rc == 0 ? (int64_t)entry.pw_uid : -rc;
}

unsigned cfg_rules_resolve(struct cfg *cfg)
{
	unsigned unknown = 0;

	for (unsigned i = 0; i < cfg->rule_count; i++) {
		struct cfg_rule *rule = &cfg->rules[i];
		int64_t uid;

		if (!cfg_rule_has(rule, RULE_user) || rule->user_kind != CFG_RULE_USER_NAME)
			continue;
		uid = user_find(rule->user);
		rule->user_kind = uid < 0 ? CFG_RULE_USER_UNKNOWN : CFG_RULE_USER_ID;
		rule->uid = uid < 0 ? 0 : (uint32_t)uid;
		if (uid < 0 && unknown == 0)
			unknown = i + 1;
	}
	return unknown;
}

unsigned cfg_rules_check_users(const struct cfg *cfg, char *err, size_t err_size)
{
	struct reader r = {.cfg = (struct cfg *)(uintptr_t)cfg, .err = err, .err_size = err_size};

	for (unsigned i = 0; i < cfg->rule_count; i++) {
		const struct cfg_rule *rule = &cfg->rules[i];

		if (!cfg_rule_has(rule, RULE_user) || rule->user_kind == CFG_RULE_USER_ID ||
		        user_find(rule->user) >= 0)
			continue;
		r.number = i + 1;
		r.line = rule->line;
		refuse(&r, "user",
		        "there is no user %s (allowed: one that `getent passwd` shows, or a number)",
		        rule->user);
		return i + 1;
	}
	return 0;
}

/* --- asking --- */

static bool program_fits(const struct cfg_rule *rule, const struct cfg_rule_process *who)
{
	return !cfg_rule_has(rule, RULE_program) || fnmatch(rule->program, who->name, 0) == 0 ||
	       fnmatch(rule->program, who->executable, 0) == 0;
}

static bool user_fits(const struct cfg_rule *rule, const struct cfg_rule_process *who)
{
	return !cfg_rule_has(rule, RULE_user) ||
	       (rule->user_kind == CFG_RULE_USER_ID && rule->uid == who->uid);
}

static bool address_fits(const struct cfg_rule *rule, const struct cfg_rule_socket *what)
{
	unsigned whole = rule->prefix / 8, rest = rule->prefix % 8;

	if (!cfg_rule_has(rule, RULE_address))
		return true;
	return rule->family == what->family && memcmp(rule->ip, what->ip, whole) == 0 &&
	       (rest == 0 || ((rule->ip[whole] ^ what->ip[whole]) >> (8 - rest)) == 0);
}

unsigned cfg_rules_find(
        const struct cfg *cfg, const struct cfg_rule_process *who, const struct cfg_rule_socket *what)
{
	for (unsigned i = 0; i < cfg->rule_count; i++) {
		const struct cfg_rule *rule = &cfg->rules[i];

		if ((!cfg_rule_has(rule, RULE_role) || rule->role == what->role) &&
		        (!cfg_rule_has(rule, RULE_port) ||
		                (what->port >= rule->port_first && what->port <= rule->port_last)) &&
		        address_fits(rule, what) && user_fits(rule, who) && program_fits(rule, who))
			return i + 1;
	}
	return 0;
}

unsigned cfg_rules_forbid(
        const struct cfg *cfg, const struct cfg_rule_process *who, bool may_change, unsigned roles)
{
	for (unsigned i = 0; i < cfg->rule_count; i++) {
		const struct cfg_rule *rule = &cfg->rules[i];
		bool has_user = cfg_rule_has(rule, RULE_user);

		if (!program_fits(rule, who) || (!user_fits(rule, who) && !may_change) ||
		        (cfg_rule_has(rule, RULE_role) && !(roles >> rule->role & 1)))
			continue;
		if (rule->action == CFG_ACTION_ACCELERATE)
			return 0;
		if (cfg_rule_has(rule, RULE_address) || cfg_rule_has(rule, RULE_port) ||
		        (has_user && may_change))
			continue;
		roles &= cfg_rule_has(rule, RULE_role) ? ~(1u << rule->role)
		                                       : 0; /* none gets past this rule */
		if (roles == 0)
			return i + 1;
	}
	return 0;
}
