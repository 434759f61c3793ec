/* rule.c - asks the configuration's rules on behalf of this process.
 *
 * Runs in application threads. Who the process is, the users' numbers and the reasons are found once, when
 * the configuration is read; after that a question takes no memory, and a system call only where a rule names
 * a user.
 */
#include "rule.h"
#include "libc.h"
#include "log.h"
#include "proc.h"
#include "raw.h"
#include "route.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

enum { NAME_SIZE = 64 };

/* Constant after rule_prepare. */
static struct {
	char name[NAME_SIZE], executable[NAME_SIZE];
	bool has_users;
	char (*reason)[FALLBACK_REASON_SIZE]; /* of rule 1 and so on; NULL without memory */
} rules;

static void names_read(void)
{
	char path[PATH_MAX];
	const char *slash;
	int fd = (int)RAW(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : libc.read(fd, rules.name, sizeof(rules.name) - 1);

	if (fd >= 0)
		libc.close(fd);
	rules.name[n > 0 ? n : 0] = 0;
	rules.name[strcspn(rules.name, "\n")] = 0;
	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = 0;
	slash = strrchr(path, '/');
	snprintf(rules.executable, sizeof(rules.executable), "%.63s", slash ? slash + 1 : "");
}

void rule_prepare(struct cfg *cfg)
{
	unsigned unknown;

	if (!cfg->rule_count)
		return;
	names_read();
	unknown = cfg_rules_resolve(cfg);
	if (unknown)
		log_warning("rule %u names user %s, whom this machine does not know: it fits nobody", unknown,
		        cfg->rules[unknown - 1].user);
	rules.reason = calloc(cfg->rule_count, sizeof(*rules.reason));
	for (unsigned i = 0; i < cfg->rule_count; i++) {
		rules.has_users |= cfg_rule_has(&cfg->rules[i], RULE_user);
		if (rules.reason)
			cfg_rule_text(cfg, i + 1, rules.reason[i], sizeof(rules.reason[i]));
	}
}

static struct cfg_rule_process self(void)
{
	return (struct cfg_rule_process){
	        .name = rules.name, .executable = rules.executable, .uid = rules.has_users ? geteuid() : 0};
}

static const char *reason_of(unsigned number)
{
	return rules.reason ? rules.reason[number - 1] : "a rule of the configuration";
}

const char *rule_of(enum cfg_role role, const struct sock_addr *a)
{
	struct cfg_rule_socket what = {.role = role, .family = a->family, .ip = a->ip, .port = a->port};
	const struct cfg *cfg = proc_config();
	struct cfg_rule_process who;
	unsigned number;

	if (!cfg || likely(!cfg->rule_count))
		return NULL;
	if (route_is_any(a)) /* of either family: there is one wildcard, which takes IPv4 */
		what.family = AF_INET;
	who = self();
	number = cfg_rules_find(cfg, &who, &what);
	return number && cfg->rules[number - 1].action == CFG_ACTION_KERNEL ? reason_of(number) : NULL;
}

const char *rule_of_all(unsigned roles)
{
	const struct cfg *cfg = proc_config();
	struct cfg_rule_process who;
	unsigned number;

	if (!cfg || likely(!cfg->rule_count))
		return NULL;
	who = self();
	number = cfg_rules_forbid(cfg, &who, false, roles);
	return number ? reason_of(number) : NULL;
}
