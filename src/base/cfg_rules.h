/* cfg_rules.h - the rules of a configuration: which sockets of which programs are accelerated (rules.def).
 *
 * They are asked in their order, and the first that fits decides; where none fits, the socket is accelerated.
 * A rule is plain data inside struct cfg: constant once it was loaded and its user resolved. Rules are
 * counted from 1 wherever people see a number.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct cfg;
struct cfg_lib;
struct source;

/* The choices of role and action, in the order of their strings in rules.def (a unit test compares them). */
enum cfg_role { CFG_ROLE_SERVER, CFG_ROLE_CLIENT, CFG_ROLE_UDP, CFG_ROLE_COUNT };
enum cfg_action { CFG_ACTION_ACCELERATE, CFG_ACTION_KERNEL };

enum { CFG_RULE_MAX = 64, CFG_ROLES_ALL = (1 << CFG_ROLE_COUNT) - 1 };

/* One id for each key of a rule: RULE_program, RULE_user, ... */
#define RULE_TEXT(key, max, help) RULE_##key,
#define RULE_ENUM(key, choices, help) RULE_##key,
enum cfg_rule_key {
#include "rules.def"
	RULE_KEY_COUNT
};
#undef RULE_TEXT
#undef RULE_ENUM

/* How far the user of a rule is known. */
enum cfg_rule_user { CFG_RULE_USER_NAME, CFG_RULE_USER_ID, CFG_RULE_USER_UNKNOWN };

struct cfg_rule {
	/* as written: a text, or the index of a choice; see set */
#define RULE_TEXT(key, max, help) char key[(max) + 1];
#define RULE_ENUM(key, choices, help) uint8_t key;
#include "rules.def"
#undef RULE_TEXT
#undef RULE_ENUM
	uint32_t set;  /* bits 1 << enum cfg_rule_key: what the rule asks for */
	uint32_t line; /* in the file */

	/* what the texts mean */
	uint32_t uid;
	uint8_t user_kind; /* enum cfg_rule_user */
	uint8_t family;    /* AF_INET, AF_INET6 */
	uint8_t prefix;
	uint8_t ip[16]; /* network order */
	uint16_t port_first, port_last;
};

/* Who asks: two names of the program (either may be empty) and its effective user. */
struct cfg_rule_process {
	const char *name, *executable;
	uint32_t uid;
};

/* What for. Port 0: not known yet, which fits no rule that names ports. */
struct cfg_rule_socket {
	enum cfg_role role;
	int family; /* AF_INET, AF_INET6 */
	const uint8_t *ip;
	uint16_t port;
};

/* Reads the value of option rules (a list of groups) into cfg; origin says where it stands, CFG_ORIGIN_FILE
 * or CFG_ORIGIN_ENVIRONMENT. Control thread. 0, or -EINVAL with the reason in err; cfg is then undefined. */
int cfg_rules_read(struct cfg *cfg, const struct cfg_lib *lib, const struct source *source, void *setting,
        uint8_t origin, char *err, size_t err_size);

/* The same for the text of variable PRONK_RULES. Or -ELIBACC when libconfig cannot be had, or -ENOMEM. */
int cfg_rules_read_text(struct cfg *cfg, const char *text, char *err, size_t err_size);

/* The rule for a refusal at this place of the source, "rules[2]" and so on; false when the place is not in
 * the rules. allowed: what to say is possible there. Pure. */
bool cfg_rules_place(const struct source *source, unsigned line, char *key, size_t key_size, char *allowed,
        size_t allowed_size);

/* Prints the option as cfg_dump does. Blocks as stdio does. */
void cfg_rules_print(const struct cfg *cfg, FILE *file, bool json);

/* Turns the names of users into numbers: getpwnam_r(3), which may read files and ask other services. Any
 * thread, once, before the rules are asked. Returns the number of a rule whose user there is not (the first
 * such; it fits nobody), or 0. */
unsigned cfg_rules_resolve(struct cfg *cfg);

/* Whether a rule names a user that this machine does not have: its number and, in err, the reason; or 0. As
 * cfg_rules_resolve. */
unsigned cfg_rules_check_users(const struct cfg *cfg, char *err, size_t err_size);

/* The rule that decides, from 1, or 0 when none fits. The users must have been resolved. Pure. */
unsigned cfg_rules_find(
        const struct cfg *cfg, const struct cfg_rule_process *who, const struct cfg_rule_socket *what);

/* Whether the rules leave all sockets of these roles (bits 1 << enum cfg_role) to the kernel, at whatever
 * address and port: the number of the rule that settles it, or 0. may_change: the process may become another
 * user. The users must have been resolved. Pure. */
unsigned cfg_rules_forbid(
        const struct cfg *cfg, const struct cfg_rule_process *who, bool may_change, unsigned roles);

/* "rule 2 of /etc/pronk/pronk.conf", for people. Pure. */
void cfg_rule_text(const struct cfg *cfg, unsigned number, char *buf, size_t size);

/* The name of a key, or NULL when there is none of that number. Pure. */
const char *cfg_rule_key_name(unsigned key);

static inline bool cfg_rule_has(const struct cfg_rule *r, enum cfg_rule_key key)
{
	return r->set >> key & 1;
}
