/* test_rules.c - option rules: what is read, which rule decides, what can be said without an address, and
 * that what is printed reads as the same rules. Mistakes are in tests/badconf. One thread.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cfg.h"
#include "compiler.h"

static char file_path[64];
static char err[1024];
static struct cfg cfg;

static int setup(void **state)
{
	int fd;

	(void)state;
	strcpy(file_path, "/tmp/pronk-test-rules-XXXXXX");
	fd = mkstemp(file_path);
	return fd < 0 || close(fd) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(file_path);
}

static void file_write(const char *text)
{
	FILE *file;

	unlink(file_path); /* a file that is cut and written again, a file system may put on the disk at once
	                    */
	file = fopen(file_path, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void load(const char *text)
{
	file_write(text);
	if (cfg_load(&cfg, file_path, err, sizeof(err)) < 0)
		fail_msg("%s", err);
	assert_int_equal(cfg_rules_resolve(&cfg), 0);
}

/* The rule for a socket of a program; addr is IPv4 or IPv6. */
static unsigned ask(const char *program, uint32_t uid, enum cfg_role role, const char *addr, uint16_t port)
{
	struct cfg_rule_process who = {.name = program, .executable = "", .uid = uid};
	uint8_t ip[16] = {0};
	struct cfg_rule_socket what = {
	        .role = role, .family = strchr(addr, ':') ? AF_INET6 : AF_INET, .ip = ip, .port = port};

	assert_int_equal(inet_pton(what.family, addr, ip), 1);
	return cfg_rules_find(&cfg, &who, &what);
}

static unsigned forbid(const char *program, uint32_t uid, bool may_change, unsigned roles)
{
	struct cfg_rule_process who = {.name = program, .executable = "", .uid = uid};

	return cfg_rules_forbid(&cfg, &who, may_change, roles);
}

#define SERVER CFG_ROLE_SERVER
#define CLIENT CFG_ROLE_CLIENT
#define UDP CFG_ROLE_UDP

static void constants_are_the_choices_of_the_table(void **state)
{
	static const char *const roles[] = {"server", "client", "udp"}, *const actions[] = {
	                                                                        "accelerate", "kernel"};
	char text[128];

	(void)state;
	for (unsigned r = 0; r < CFG_ROLE_COUNT; r++)
		for (unsigned a = 0; a < ARRAY_COUNT(actions); a++) {
			snprintf(text, sizeof(text), "rules = ( { role = \"%s\"; action = \"%s\"; } );",
			        roles[r], actions[a]);
			load(text);
			assert_int_equal(cfg.rules[0].role, r);
			assert_int_equal(cfg.rules[0].action, a);
		}
	assert_int_equal(ARRAY_COUNT(roles), CFG_ROLE_COUNT);
	assert_string_equal(cfg_rule_key_name(RULE_action), "action");
	assert_null(cfg_rule_key_name(RULE_KEY_COUNT));
}

static void without_rules_none_fits_and_nothing_is_forbidden(void **state)
{
	(void)state;
	load("stacks = 1;");
	assert_int_equal(cfg.rule_count, 0);
	assert_int_equal(cfg.rules_origin, CFG_ORIGIN_DEFAULT);
	assert_int_equal(ask("redis-server", 0, SERVER, "0.0.0.0", 6379), 0);
	assert_int_equal(forbid("redis-server", 0, true, CFG_ROLES_ALL), 0);
	load("rules = ( );");
	assert_int_equal(cfg.rule_count, 0);
	assert_int_equal(cfg.rules_origin, CFG_ORIGIN_FILE);
}

static void first_rule_that_fits_decides(void **state)
{
	(void)state;
	load("rules = (\n"
	     "  { program = \"redis-*\"; role = \"server\"; port = \"6379-6389\"; action = \"accelerate\"; },\n"
	     "  { program = \"redis-server\"; action = \"kernel\"; },\n"
	     "  { program = \"[nm]g?nx\"; action = \"kernel\"; }\n"
	     ");\n");
	assert_int_equal(cfg.rule_count, 3);
	assert_int_equal(cfg.rules_line, 1);
	assert_int_equal(cfg.rules[1].line, 3);
	assert_int_equal(ask("redis-server", 0, SERVER, "0.0.0.0", 6379), 1);
	assert_int_equal(ask("redis-server", 0, SERVER, "0.0.0.0", 6389), 1);
	assert_int_equal(ask("redis-server", 0, SERVER, "0.0.0.0", 6390), 2);
	assert_int_equal(ask("redis-server", 0, SERVER, "0.0.0.0", 6378), 2);
	assert_int_equal(ask("redis-server", 0, CLIENT, "192.0.2.1", 6379), 2);
	assert_int_equal(ask("redis-cli", 0, CLIENT, "192.0.2.1", 6379), 0);
	assert_int_equal(ask("redis-cli", 0, SERVER, "192.0.2.1", 6380), 1);
	assert_int_equal(ask("nginx", 0, CLIENT, "192.0.2.1", 80), 3);
	assert_int_equal(ask("Nginx", 0, CLIENT, "192.0.2.1", 80), 0);
	assert_int_equal(ask("nginx2", 0, CLIENT, "192.0.2.1", 80), 0);
}

static void either_name_of_a_program_fits(void **state)
{
	struct cfg_rule_process who = {.name = "worker", .executable = "python3.11"};
	static const uint8_t ip[16] = {192, 0, 2, 1};
	struct cfg_rule_socket what = {.role = CLIENT, .family = AF_INET, .ip = ip, .port = 80};

	(void)state;
	load("rules = ( { program = \"python3*\"; action = \"kernel\"; } );");
	assert_int_equal(cfg_rules_find(&cfg, &who, &what), 1);
	who.name = "python3";
	who.executable = "";
	assert_int_equal(cfg_rules_find(&cfg, &who, &what), 1);
	who.name = "";
	assert_int_equal(cfg_rules_find(&cfg, &who, &what), 0);
}

static void addresses_fit_by_prefix_and_family(void **state)
{
	(void)state;
	load("rules = (\n"
	     "  { address = \"192.0.2.0/25\"; action = \"kernel\"; },\n"
	     "  { address = \"192.0.2.200\"; action = \"kernel\"; },\n"
	     "  { address = \"198.51.100.128/31\"; action = \"kernel\"; },\n"
	     "  { address = \"2001:db8::/33\"; action = \"kernel\"; },\n"
	     "  { address = \"2001:db8::1\"; action = \"kernel\"; },\n"
	     "  { address = \"0.0.0.0\"; action = \"kernel\"; },\n"
	     "  { address = \"0.0.0.0/0\"; action = \"accelerate\"; }\n"
	     ");\n");
	assert_int_equal(ask("a", 0, CLIENT, "192.0.2.0", 1), 1);
	assert_int_equal(ask("a", 0, CLIENT, "192.0.2.127", 1), 1);
	assert_int_equal(ask("a", 0, CLIENT, "192.0.2.128", 1), 7);
	assert_int_equal(ask("a", 0, CLIENT, "192.0.2.200", 1), 2);
	assert_int_equal(ask("a", 0, CLIENT, "198.51.100.129", 1), 3);
	assert_int_equal(ask("a", 0, CLIENT, "198.51.100.130", 1), 7);
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 1), 6);
	assert_int_equal(ask("a", 0, CLIENT, "2001:db8:7fff::1", 1), 4);
	assert_int_equal(ask("a", 0, CLIENT, "2001:db8:8000::1", 1), 0);
	assert_int_equal(ask("a", 0, CLIENT, "::c000:200", 1), 0);
}

static void ports_fit_to_both_ends_and_may_be_numbers(void **state)
{
	(void)state;
	load("rules = ( { port = 65535; action = \"kernel\"; }, { port = 0x50; action = \"kernel\"; },\n"
	     "  { port = \"1-79\"; action = \"kernel\"; } );");
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 65535), 1);
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 80), 2);
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 1), 3);
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 79), 3);
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 81), 0);
	/* not known yet: no rule about ports can say anything */
	assert_int_equal(ask("a", 0, UDP, "0.0.0.0", 0), 0);
}

static void users_fit_by_name_and_number(void **state)
{
	(void)state;
	load("rules = ( { user = \"root\"; role = \"udp\"; action = \"kernel\"; }, { user = \"1000\"; action = \"kernel\"; },\n"
	     "  { user = 4294967294; action = \"kernel\"; } );");
	assert_int_equal(ask("a", 0, UDP, "192.0.2.1", 53), 1);
	assert_int_equal(ask("a", 0, CLIENT, "192.0.2.1", 53), 0);
	assert_int_equal(ask("a", 1, UDP, "192.0.2.1", 53), 0);
	assert_int_equal(ask("a", 1000, CLIENT, "192.0.2.1", 53), 2);
	assert_int_equal(ask("a", 4294967294u, CLIENT, "192.0.2.1", 53), 3);
}

static void a_user_that_is_not_there_fits_nobody_and_is_named(void **state)
{
	(void)state;
	load("rules = ( { action = \"accelerate\"; port = 1; } );");
	snprintf(cfg.rules[0].user, sizeof(cfg.rules[0].user), "pk-nobody-here");
	cfg.rules[0].set |= 1u << RULE_user;
	cfg.rules[0].user_kind = CFG_RULE_USER_NAME;
	assert_int_equal(cfg_rules_check_users(&cfg, err, sizeof(err)), 1);
	assert_non_null(strstr(err, ":1: rules[1].user: there is no user pk-nobody-here (allowed: "));
	assert_int_equal(cfg_rules_resolve(&cfg), 1);
	assert_int_equal(ask("a", 0, SERVER, "0.0.0.0", 1), 0);
}

static void forbidden_is_only_what_no_address_could_change(void **state)
{
	static const struct {
		const char *rules;
		unsigned server, all;
	} cases[] = {
	        {"{ action = \"kernel\"; }", 1, 1},
	        {"{ role = \"server\"; action = \"kernel\"; }", 1, 0},
	        {"{ role = \"client\"; action = \"kernel\"; }", 0, 0},
	        {"{ role = \"server\"; action = \"kernel\"; }, { role = \"udp\"; action = \"kernel\"; }, { role = \"client\"; "
	         "action = \"kernel\"; }",
	                1, 3},
	        {"{ port = 80; action = \"accelerate\"; }, { action = \"kernel\"; }", 0, 0},
	        {"{ port = 80; action = \"kernel\"; }, { action = \"kernel\"; }", 2, 2},
	        {"{ address = \"192.0.2.1\"; action = \"kernel\"; }", 0, 0},
	        {"{ program = \"other\"; action = \"accelerate\"; }, { action = \"kernel\"; }", 2, 2},
	        {"{ program = \"a\"; action = \"accelerate\"; }, { action = \"kernel\"; }", 0, 0},
	        {"{ role = \"udp\"; action = \"accelerate\"; }, { action = \"kernel\"; }", 2, 0},
	        {"{ action = \"accelerate\"; }, { action = \"kernel\"; }", 0, 0},
	};
	char text[512];

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
		snprintf(text, sizeof(text), "rules = ( %s );", cases[i].rules);
		load(text);
		if (forbid("a", 0, false, 1 << SERVER) != cases[i].server ||
		        forbid("a", 0, false, CFG_ROLES_ALL) != cases[i].all)
			fail_msg("%s: %u %u", cases[i].rules, forbid("a", 0, false, 1 << SERVER),
			        forbid("a", 0, false, CFG_ROLES_ALL));
	}
}

static void who_may_become_another_user_is_not_forbidden_by_name(void **state)
{
	(void)state;
	load("rules = ( { user = 0; action = \"kernel\"; } );");
	assert_int_equal(forbid("a", 0, false, CFG_ROLES_ALL), 1);
	assert_int_equal(forbid("a", 0, true, CFG_ROLES_ALL), 0);
	assert_int_equal(forbid("a", 1, false, CFG_ROLES_ALL), 0);
	load("rules = ( { user = 33; action = \"accelerate\"; }, { action = \"kernel\"; } );");
	assert_int_equal(forbid("a", 0, false, CFG_ROLES_ALL), 2);
	assert_int_equal(forbid("a", 0, true, CFG_ROLES_ALL), 0);
	assert_int_equal(forbid("a", 33, false, CFG_ROLES_ALL), 0);
}

static char *dump_text(bool json)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	assert_non_null(file);
	assert_int_equal(cfg_dump(&cfg, file, json), 0);
	fclose(file);
	return text;
}

static void printed_rules_are_read_as_the_same(void **state)
{
	static const char rules[] =
	        "stacks = 1;\nrules = (\n"
	        "  { program = \"a\\\\*\\\"\"; user = 0; role = \"udp\"; address = \"10.0.0.0/8\"; port = 53; action = \"kernel\"; },\n"
	        "  { action = \"accelerate\"; } );\n";
	struct cfg *first = malloc(sizeof(*first));
	char *text;

	(void)state;
	assert_non_null(first);
	load(rules);
	*first = cfg;
	text = dump_text(false);
	assert_non_null(strstr(text, "\nrules = ( # file "));
	assert_non_null(strstr(text,
	        ":2\n  { program = \"a\\\\*\\\"\"; user = \"0\"; role = \"udp\"; address = \"10.0.0.0/8\"; "
	        "port = \"53\"; action = \"kernel\"; }, # rule 1, line 3\n"));
	assert_non_null(strstr(text, "\n  { action = \"accelerate\"; } # rule 2, line 4\n);\n"));
	load(text);
	free(text);
	assert_int_equal(cfg.rule_count, 2);
	for (unsigned i = 0; i < cfg.rule_count; i++) {
		cfg.rules[i].line = first->rules[i].line;
		assert_memory_equal(&cfg.rules[i], &first->rules[i], sizeof(cfg.rules[i]));
	}
	text = dump_text(true);
	assert_non_null(
	        strstr(text, "  \"rules\": {\"value\": [{ \"program\": \"a\\\\*\\\"\", \"user\": \"0\", "));
	assert_non_null(strstr(text,
	        "\"action\": \"kernel\" }, { \"action\": \"accelerate\" }], \"origin\": \"file\", \"place\": \""));
	free(text);
	load("");
	text = dump_text(false);
	assert_non_null(strstr(text, "\nrules = ( ); # default\n"));
	load(text);
	free(text);
	assert_int_equal(cfg.rule_count, 0);
	free(first);
}

static void environment_takes_the_place_of_the_whole_list(void **state)
{
	char text[64];

	(void)state;
	setenv("PRONK_RULES", "( { role = \"udp\"; action = \"kernel\"; } )", 1);
	load("rules = ( { action = \"kernel\"; }, { action = \"kernel\"; } );");
	assert_int_equal(cfg.rule_count, 1);
	assert_int_equal(cfg.rules_origin, CFG_ORIGIN_ENVIRONMENT);
	assert_int_equal(ask("a", 0, UDP, "192.0.2.1", 53), 1);
	assert_int_equal(ask("a", 0, SERVER, "192.0.2.1", 53), 0);
	cfg_rule_text(&cfg, 1, text, sizeof(text));
	assert_string_equal(text, "rule 1 of PRONK_RULES");
	setenv("PRONK_RULES", "( )", 1);
	load("rules = ( { action = \"kernel\"; } );");
	assert_int_equal(cfg.rule_count, 0);
	unsetenv("PRONK_RULES");
	load("rules = ( { action = \"kernel\"; } );");
	assert_int_equal(cfg.rule_count, 1);
}

/* Random damage to good rules: any result is right, but it must be one, and with a reason. */
static void damaged_rules_never_crash_and_always_explain(void **state)
{
	static const char good[] =
	        "rules = ( { program = \"redis-*\"; port = \"6379-6389\"; user = 33; action = \"kernel\"; },\n"
	        "{ address = \"10.0.0.0/8\"; role = \"udp\"; port = 53; action = \"accelerate\"; } # x\n);\nmtu = 1500;\n";
	static const char bytes[] = "\"\"{}[]()=;:,#/*\\\n\t -0123456789xLabz_@\x01\xff";
	unsigned seed = 4711, refused = 0;

	(void)state;
	for (unsigned round = 0; round < 5000; round++) {
		char text[sizeof(good)];

		memcpy(text, good, sizeof(good));
		for (unsigned i = 0; i <= round % 6; i++) {
			unsigned at;

			seed = seed * 1103515245 + 12345;
			at = (seed >> 8) % (sizeof(good) - 1);
			seed = seed * 1103515245 + 12345;
			text[at] = bytes[(seed >> 8) % (sizeof(bytes) - 1)];
		}
		file_write(text);
		err[0] = '\0';
		if (cfg_load(&cfg, file_path, err, sizeof(err)) == 0)
			continue;
		refused++;
		assert_true(strncmp(err, file_path, strlen(file_path)) == 0);
		assert_null(strchr(err, '\n'));
	}
	print_message("damaged rules: 5000, %u refused\n", refused);
	assert_true(refused > 1000);
}

/* For builds with the address sanitizer: libconfig itself leaks the text of a string that never ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so\n";
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(constants_are_the_choices_of_the_table),
	        cmocka_unit_test(without_rules_none_fits_and_nothing_is_forbidden),
	        cmocka_unit_test(first_rule_that_fits_decides),
	        cmocka_unit_test(either_name_of_a_program_fits),
	        cmocka_unit_test(addresses_fit_by_prefix_and_family),
	        cmocka_unit_test(ports_fit_to_both_ends_and_may_be_numbers),
	        cmocka_unit_test(users_fit_by_name_and_number),
	        cmocka_unit_test(a_user_that_is_not_there_fits_nobody_and_is_named),
	        cmocka_unit_test(forbidden_is_only_what_no_address_could_change),
	        cmocka_unit_test(who_may_become_another_user_is_not_forbidden_by_name),
	        cmocka_unit_test(printed_rules_are_read_as_the_same),
	        cmocka_unit_test(environment_takes_the_place_of_the_whole_list),
	        cmocka_unit_test(damaged_rules_never_crash_and_always_explain),
	};

	/* Variables of the caller's environment would change the results. */
	for (char **entry = environ; *entry != NULL;) {
		char name[128];

		if (strncmp(*entry, "PRONK_", 6) != 0) {
			entry++;
			continue;
		}
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(*entry, "="), *entry);
		unsetenv(name);
		entry = environ;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
