/* test_cfg.c - the configuration: table, parsers, files, environment, cross checks, printing; and every file
 * of tests/badconf against its expected message. Runs in one thread; changes its own environment only. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cfg.h"
#include "compiler.h"
#include "cpu.h"

/* For builds with the address sanitizer: libconfig itself leaks the text of a string that never ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so\n";
}

static char folder[64]; /* temporary, removed at the end */
static char file_path[96];
static char err[1024];

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/pronk-test-cfg-XXXXXX");
	if (mkdtemp(folder) == NULL)
		return -1;
	snprintf(file_path, sizeof(file_path), "%s/pronk.conf", folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(file_path);
	return rmdir(folder);
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

static int load_text(struct cfg *cfg, const char *text)
{
	file_write(text);
	err[0] = '\0';
	return cfg_load(cfg, file_path, err, sizeof(err));
}

static char *dump_text(const struct cfg *cfg, bool json)
{
	char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	assert_non_null(file);
	assert_int_equal(cfg_dump(cfg, file, json), 0);
	fclose(file);
	return text;
}

/* Whether all values (not their origins) are the same. */
static void assert_same_values(const struct cfg *a, const struct cfg *b)
{
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const char *x = (const char *)a + cfg_options[i].offset,
		           *y = (const char *)b + cfg_options[i].offset;

		switch (cfg_options[i].kind) {
		case CFG_KIND_STR:
			assert_string_equal(x, y);
			break;
		case CFG_KIND_BOOL:
			assert_int_equal(*(const bool *)x, *(const bool *)y);
			break;
		default:
			assert_int_equal(*(const uint32_t *)x, *(const uint32_t *)y);
		}
	}
}

static void enum_constants_match_choices(void **state)
{
	static const struct {
		enum option_id id;
		uint32_t value;
		const char *text;
	} constants[] = {
	        {OPTION_rss, CFG_RSS_AUTO, "auto"},
	        {OPTION_rss, CFG_RSS_HARDWARE, "hardware"},
	        {OPTION_rss, CFG_RSS_SOFTWARE, "software"},
	        {OPTION_checksum, CFG_CHECKSUM_AUTO, "auto"},
	        {OPTION_checksum, CFG_CHECKSUM_SOFTWARE, "software"},
	        {OPTION_partial_checksum, CFG_PARTIAL_CHECKSUM_AUTO, "auto"},
	        {OPTION_partial_checksum, CFG_PARTIAL_CHECKSUM_ACCEPT, "accept"},
	        {OPTION_partial_checksum, CFG_PARTIAL_CHECKSUM_DROP, "drop"},
	        {OPTION_memif_role, CFG_MEMIF_ROLE_CLIENT, "client"},
	        {OPTION_memif_role, CFG_MEMIF_ROLE_SERVER, "server"},
	        {OPTION_loopback, CFG_LOOPBACK_KERNEL, "kernel"},
	        {OPTION_loopback, CFG_LOOPBACK_PRONK, "pronk"},
	        {OPTION_mode, CFG_MODE_DEDICATED, "dedicated"},
	        {OPTION_mode, CFG_MODE_INLINE, "inline"},
	        {OPTION_profile, CFG_PROFILE_LATENCY, "latency"},
	        {OPTION_profile, CFG_PROFILE_BALANCED, "balanced"},
	        {OPTION_profile, CFG_PROFILE_THROUGHPUT, "throughput"},
	        {OPTION_hugepages, CFG_HUGEPAGES_AUTO, "auto"},
	        {OPTION_hugepages, CFG_HUGEPAGES_ON, "on"},
	        {OPTION_hugepages, CFG_HUGEPAGES_OFF, "off"},
	        {OPTION_log_level, CFG_LOG_LEVEL_ERROR, "error"},
	        {OPTION_log_level, CFG_LOG_LEVEL_WARNING, "warning"},
	        {OPTION_log_level, CFG_LOG_LEVEL_NOTICE, "notice"},
	        {OPTION_log_level, CFG_LOG_LEVEL_INFO, "info"},
	        {OPTION_log_level, CFG_LOG_LEVEL_DEBUG, "debug"},
	};
	unsigned choice_count = 0;
	char text[64];

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(constants); i++) {
		assert_int_equal(cfg_choice_find(constants[i].id, constants[i].text), constants[i].value);
		assert_int_equal(cfg_choice_text(constants[i].id, constants[i].value, text, sizeof(text)), 0);
		assert_string_equal(text, constants[i].text);
	}
	/* and no choice is without its constant */
	for (unsigned id = 0; id < OPTION_COUNT; id++)
		for (uint32_t v = 0;
		        cfg_options[id].choices != NULL && cfg_choice_text(id, v, text, sizeof(text)) == 0;
		        v++)
			choice_count++;
	assert_int_equal(choice_count, ARRAY_COUNT(constants));
}

static void option_keys_are_unique_and_found(void **state)
{
	(void)state;
	for (int i = 0; i < OPTION_COUNT; i++) {
		assert_int_equal(cfg_option_find(cfg_options[i].key), i);
		assert_true(strlen(cfg_options[i].key) < 48);
		assert_true(strlen(cfg_options[i].help) > 10);
	}
	assert_int_equal(cfg_option_find(""), -ENOENT);
	assert_int_equal(cfg_option_find("Device"), -ENOENT);
}

static void defaults_are_those_of_the_table_and_pass_the_check(void **state)
{
	struct cfg cfg;

	(void)state;
	memset(&cfg, 0xaa, sizeof(cfg));
	cfg_defaults(&cfg);
	assert_string_equal(cfg.device, "auto");
	assert_int_equal(cfg.stacks, 1);
	assert_int_equal(cfg.profile, CFG_PROFILE_BALANCED);
	assert_int_equal(cfg.log_level, CFG_LOG_LEVEL_NOTICE);
	assert_true(cfg.autostart);
	assert_false(cfg.strict);
	for (unsigned i = 0; i < OPTION_COUNT; i++)
		assert_int_equal(cfg.origin[i], CFG_ORIGIN_DEFAULT);
	assert_int_equal(cfg_check(&cfg, err, sizeof(err)), 0);
}

static void load_without_file_gives_defaults(void **state)
{
	struct cfg cfg, defaults;

	(void)state;
	cfg_defaults(&defaults);
	assert_int_equal(cfg_load(&cfg, NULL, err, sizeof(err)), 0);
	assert_same_values(&cfg, &defaults);
	assert_int_equal(cfg_load(&cfg, "/dev/null", err, sizeof(err)), 0);
	assert_same_values(&cfg, &defaults);
	assert_int_equal(load_text(&cfg, "# nothing\n"), 0);
	assert_same_values(&cfg, &defaults);
}

static void load_sets_every_kind_with_origin_and_line(void **state)
{
	struct cfg cfg;

	(void)state;
	assert_int_equal(load_text(&cfg, "device = \"afpacket:eth1\"; # comment\n"
	                                 "// comment\n"
	                                 "stacks = 2; mtu : 0x5dc\n"
	                                 "/* two\n lines */ strict = true;\n"
	                                 "log_level = \"debug\";\n"),
	        0);
	assert_string_equal(cfg.device, "afpacket:eth1");
	assert_int_equal(cfg.stacks, 2);
	assert_int_equal(cfg.mtu, 1500);
	assert_true(cfg.strict);
	assert_int_equal(cfg.log_level, CFG_LOG_LEVEL_DEBUG);
	assert_int_equal(cfg.origin[OPTION_device], CFG_ORIGIN_FILE);
	assert_int_equal(cfg.line[OPTION_device], 1);
	assert_int_equal(cfg.line[OPTION_stacks], 3);
	assert_int_equal(cfg.line[OPTION_strict], 5);
	assert_string_equal(cfg.path, file_path);
	assert_int_equal(cfg.origin[OPTION_name], CFG_ORIGIN_DEFAULT);
}

static void load_takes_both_ends_of_every_range(void **state)
{
	(void)state;
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct cfg_option *option = &cfg_options[i];
		const long long values[] = {
		        option->min, option->max, (long long)option->min - 1, (long long)option->max + 1};

		if (option->kind != CFG_KIND_UINT)
			continue;
		for (unsigned v = 0; v < ARRAY_COUNT(values); v++) {
			char text[256], expect[64];
			struct cfg cfg;
			int rc;

			/* enough memory for any of them */
			snprintf(text, sizeof(text), "%s%s%s = %lld;\n",
			        i == OPTION_packet_buffers ? "" : "packet_buffers = 1048576; ",
			        i == OPTION_rx_queue_size ? "" : "rx_queue_size = 64; ", option->key,
			        values[v]);
			rc = load_text(&cfg, text);
			if (v < 2) {
				if (rc < 0)
					fail_msg("%s: %s", text, err);
				assert_int_equal(*(uint32_t *)((char *)&cfg + option->offset), values[v]);
			} else {
				snprintf(expect, sizeof(expect), "%s: %lld is out of range", option->key,
				        values[v]);
				assert_int_equal(rc, -EINVAL);
				assert_non_null(strstr(err, expect));
			}
		}
	}
}

static void load_takes_longest_texts_and_refuses_longer(void **state)
{
	char text[1200], value[1024];
	struct cfg cfg;

	(void)state;
	memset(value, 'a', sizeof(value));
	value[0] = '/';
	value[255] = '\0';
	snprintf(text, sizeof(text), "log_file = \"%s\";", value);
	assert_int_equal(load_text(&cfg, text), 0);
	assert_string_equal(cfg.log_file, value);
	value[255] = 'a';
	value[256] = '\0';
	snprintf(text, sizeof(text), "log_file = \"%s\";", value);
	assert_int_equal(load_text(&cfg, text), -EINVAL);
	assert_non_null(strstr(err, ":1: log_file: text of 256 bytes is too long"));
}

static void load_failure_leaves_struct_untouched(void **state)
{
	static const char *const texts[] = {"stacks = 4;\nnonsense = 1;\n", "stacks = 4;\nmtu = 9999;\n",
	        "stacks = 4;\n=\n", "stacks = 4; cores = \"1\";\n", NULL};
	struct cfg cfg, before;

	(void)state;
	memset(&cfg, 0x5a, sizeof(cfg));
	before = cfg;
	for (unsigned i = 0; texts[i] != NULL; i++) {
		assert_int_equal(load_text(&cfg, texts[i]), -EINVAL);
		assert_memory_equal(&cfg, &before, sizeof(cfg));
	}
	setenv("PRONK_MTU", "1", 1);
	assert_int_equal(load_text(&cfg, "stacks = 2;\n"), -EINVAL);
	unsetenv("PRONK_MTU");
	assert_memory_equal(&cfg, &before, sizeof(cfg));
}

static void load_missing_file_gives_enoent_with_message(void **state)
{
	struct cfg cfg;

	(void)state;
	assert_int_equal(cfg_load(&cfg, "/nonexistent/pronk.conf", err, sizeof(err)), -ENOENT);
	assert_string_equal(err, "/nonexistent/pronk.conf: cannot read: No such file or directory");
}

static void load_folder_device_or_huge_file_is_refused(void **state)
{
	struct cfg cfg;

	(void)state;
	assert_int_equal(cfg_load(&cfg, folder, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "not a config file"));
	assert_int_equal(cfg_load(&cfg, "/dev/zero", err, sizeof(err)), -EINVAL);
	file_write("");
	assert_int_equal(truncate(file_path, 2 << 20), 0);
	assert_int_equal(cfg_load(&cfg, file_path, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "not a config file"));
}

static void load_error_fits_any_buffer(void **state)
{
	struct cfg cfg;
	char small[16];

	(void)state;
	file_write("rx_queue_sise = 1;\n");
	for (size_t size = 1; size <= sizeof(small); size++) {
		memset(small, 'x', sizeof(small));
		assert_int_equal(cfg_load(&cfg, file_path, small, size), -EINVAL);
		assert_int_equal(strlen(small), size - 1);
	}
}

static void environment_overrides_file(void **state)
{
	struct cfg cfg;

	(void)state;
	setenv("PRONK_STACKS", "3", 1);
	setenv("PRONK_STRICT", "Yes", 1);
	setenv("PRONK_PROFILE", "throughput", 1);
	setenv("PRONK_NAME", "other", 1);
	assert_int_equal(load_text(&cfg, "stacks = 2; strict = false; autostart = false;"), 0);
	assert_int_equal(cfg.stacks, 3);
	assert_true(cfg.strict);
	assert_false(cfg.autostart);
	assert_int_equal(cfg.profile, CFG_PROFILE_THROUGHPUT);
	assert_string_equal(cfg.name, "other");
	assert_int_equal(cfg.origin[OPTION_stacks], CFG_ORIGIN_ENVIRONMENT);
	assert_int_equal(cfg.origin[OPTION_autostart], CFG_ORIGIN_FILE);
	unsetenv("PRONK_STACKS");
	unsetenv("PRONK_STRICT");
	unsetenv("PRONK_PROFILE");
	unsetenv("PRONK_NAME");
}

static void environment_reserved_names_are_ignored(void **state)
{
	static const char *const names[] = {"PRONK_CONFIG", "PRONK_SOCKET", "PRONK_PRONKD", "PRONK_TEST_X",
	        "PRONK_PORT", "PRONK_PORT_6379_TCP", "PRONK_SERVICE_HOST", "PRONKY", "XPRONK_Y"};
	struct cfg cfg;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		setenv(names[i], "tcp://10.0.0.1:6379", 1);
	assert_int_equal(cfg_load(&cfg, NULL, err, sizeof(err)), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		unsetenv(names[i]);
}

static void environment_unknown_name_is_refused(void **state)
{
	char name[200] = "PRONK_";
	struct cfg cfg;

	(void)state;
	setenv("PRONK_STACK", "2", 1);
	assert_int_equal(cfg_load(&cfg, NULL, err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "environment PRONK_STACK: unknown option (did you mean PRONK_STACKS?)");
	unsetenv("PRONK_STACK");
	memset(name + 6, 'A', sizeof(name) - 7);
	setenv(name, "2", 1);
	assert_int_equal(cfg_load(&cfg, NULL, err, sizeof(err)), -EINVAL);
	unsetenv(name);
}

static void profile_changes_only_what_is_not_set(void **state)
{
	struct cfg cfg;

	(void)state;
	assert_int_equal(load_text(&cfg, "profile = \"latency\";"), 0);
	assert_int_equal(cfg.stack_spin_us, 1000);
	assert_int_equal(cfg.app_spin_us, 200);
	assert_int_equal(cfg.origin[OPTION_app_spin_us], CFG_ORIGIN_PROFILE);
	assert_int_equal(load_text(&cfg, "profile = \"throughput\"; stack_spin_us = 50;"), 0);
	assert_int_equal(cfg.stack_spin_us, 50);
	assert_int_equal(cfg.app_spin_us, 0);
	assert_int_equal(load_text(&cfg, "profile = \"balanced\";"), 0);
	assert_int_equal(cfg.stack_spin_us, 50);
	assert_int_equal(cfg.app_spin_us, 20);
	assert_int_equal(cfg.origin[OPTION_app_spin_us], CFG_ORIGIN_DEFAULT);
}

static void good_combinations_are_accepted(void **state)
{
	static const char *const texts[] = {
	        "address = \"192.0.2.10/24\"; gateway = \"192.0.2.1\"; host_address = \"192.0.2.1/24\";",
	        "address = \"192.0.2.10/31\"; gateway = \"192.0.2.11\";",
	        "address = \"192.0.2.10/31\"; host_address = \"192.0.2.11/31\";",
	        "address = \"192.0.2.10/24\"; host_address = \"192.0.2.1/16\";",
	        "address = \"192.0.2.10/24\"; host_address = \"192.0.2.1/32\";",
	        "address = \"192.0.2.10/32\"; gateway = \"192.0.3.1\"; host_address = \"192.0.3.1/32\";",
	        "address = \"192.0.2.10/32\"; host_address = \"192.0.2.1/24\";",
	        "device = \"afxdp:eth0\"; address = \"10.128.0.2/32\"; gateway = \"10.128.0.1\";",
	        "device = \"afxdp:eth0.100\"; gateway = \"192.0.2.1\"; host_address = \"none\";",
	        "device = \"memif:/run/x.sock\"; address = \"198.18.1.2/24\"; gateway = \"none\";",
	        "device = \"3b:00.0\"; address = \"192.0.2.10/24\"; mac = \"02:aB:00:00:00:01\";",
	        "stacks = 3; cores = \"9,1-2\";",
	        "stacks = 16;",
	        "mtu = 576;",
	        "log_file = \"/var/log/pronk.log\";",
	};
	struct cfg cfg;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(texts); i++)
		if (load_text(&cfg, texts[i]) < 0)
			fail_msg("%s: %s", texts[i], err);
}

static void suggestion_finds_near_keys_only(void **state)
{
	static const char *const pairs[][2] = {{"rx_queue_sise", "rx_queue_size"}, {"divice", "device"},
	        {"stakcs", "stacks"}, {"mtuu", "mtu"}, {"linger", "linger_s"}, {"LOG-LEVEL", "log_level"},
	        {"receive_bufer", "receive_buffer"}, {"max_socket", "max_sockets"}, {"nam", "name"}};

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(pairs); i++) {
		const char *guess = cfg_option_suggest(pairs[i][0]);

		assert_non_null(guess);
		assert_string_equal(guess, pairs[i][1]);
	}
	assert_null(cfg_option_suggest(""));
	assert_null(cfg_option_suggest("x"));
	assert_null(cfg_option_suggest("frobnicate"));
	assert_null(cfg_option_suggest(
	        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void parse_ipv4_prefix_is_strict(void **state)
{
	static const char *const bad[] = {"", "/", "1.2.3.4", "1.2.3.4/", "1.2.3.4/0", "1.2.3.4/33",
	        "1.2.3.4/024", "1.2.3.4/24 ", " 1.2.3.4/24", "1.2.3/24", "1.2.3.4.5/24", "1.2.3.256/24",
	        "1.2.3.04/24", "1.2.3.4/+8", "1.2.3.4/8/8", "1111111111111111111111.2.3.4/8", "::1/64",
	        "1.2.3.4/99999999999"};
	uint8_t addr[4] = {9, 9, 9, 9};
	unsigned prefix = 77;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(cfg_parse_ipv4_prefix(bad[i], addr, &prefix), -EINVAL);
	assert_int_equal(prefix, 77);
	assert_int_equal(addr[0], 9);
	assert_int_equal(cfg_parse_ipv4_prefix("198.18.0.2/24", addr, &prefix), 0);
	assert_int_equal(prefix, 24);
	assert_memory_equal(addr, ((uint8_t[]){198, 18, 0, 2}), 4);
	assert_int_equal(cfg_parse_ipv4_prefix("1.2.3.4/32", addr, &prefix), 0);
	assert_int_equal(cfg_parse_ipv4("0.0.0.0", addr), 0);
	assert_int_equal(cfg_parse_ipv4("1.2.3.4/8", addr), -EINVAL);
}

static void host_and_network_rules_hold_at_their_edges(void **state)
{
	static const struct {
		const char *text;
		bool valid;
	} hosts[] = {{"192.0.2.0/24", false}, {"192.0.2.255/24", false}, {"192.0.2.1/24", true},
	        {"192.0.2.0/31", true}, {"192.0.2.0/32", true}, {"192.0.2.0/23", false},
	        {"192.0.3.0/23", true}, {"0.1.2.3/8", false}, {"127.0.0.1/8", false}, {"223.1.1.1/24", true},
	        {"224.1.1.1/24", false}, {"255.255.255.255/32", false}, {"128.0.0.1/1", true},
	        {"192.0.2.4/30", false}, {"192.0.2.5/30", true}, {"192.0.2.7/30", false}};
	uint8_t addr[4], other[4];
	unsigned prefix;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(hosts); i++) {
		assert_int_equal(cfg_parse_ipv4_prefix(hosts[i].text, addr, &prefix), 0);
		if (cfg_host_valid(addr, prefix) != hosts[i].valid)
			fail_msg("%s", hosts[i].text);
	}
	cfg_parse_ipv4("192.0.2.1", addr);
	cfg_parse_ipv4("192.0.3.1", other);
	assert_true(cfg_same_network(addr, other, 0));
	assert_true(cfg_same_network(addr, other, 23));
	assert_false(cfg_same_network(addr, other, 24));
	assert_false(cfg_same_network(addr, other, 32));
}

static void parse_mac_is_strict(void **state)
{
	static const char *const bad[] = {"", "02:00:00:00:00", "02:00:00:00:00:0", "02:00:00:00:00:001",
	        "02-00-00-00-00-01", "0g:00:00:00:00:01", "02:00:00:00:00:01 ", "2:0:0:0:0:1:000000"};
	uint8_t mac[6] = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(cfg_parse_mac(bad[i], mac), -EINVAL);
	assert_int_equal(cfg_parse_mac("02:0a:0B:fF:00:01", mac), 0);
	assert_memory_equal(mac, ((uint8_t[]){2, 10, 11, 255, 0, 1}), 6);
}

static void parse_cores_takes_lists_and_ranges(void **state)
{
	static const char *const bad[] = {"", ",", "1,", ",1", "1,,2", "1-", "-1", "2-1", "1-2-3", "1,1",
	        "0-3,2", "1024", "0-1024", "1 2", "1, 2", "a", "01", "+1", "99999999999999"};
	uint16_t cores[4] = {0};

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		if (cfg_parse_cores(bad[i], cores, 4) != -EINVAL)
			fail_msg("%s", bad[i]);
	assert_int_equal(cfg_parse_cores("7", cores, 4), 1);
	assert_int_equal(cores[0], 7);
	assert_int_equal(cfg_parse_cores("9,1-2", cores, 4), 3);
	assert_memory_equal(cores, ((uint16_t[]){9, 1, 2, 0}), sizeof(cores));
	assert_int_equal(cfg_parse_cores("0-1023", cores, 4), 1024);
	assert_memory_equal(cores, ((uint16_t[]){0, 1, 2, 3}), sizeof(cores));
	assert_int_equal(cfg_parse_cores("3-4", NULL, 0), 2);
}

static void parse_device_tells_kinds(void **state)
{
	static const struct {
		const char *text;
		enum cfg_device device;
		const char *arg;
	} good[] = {{"auto", CFG_DEVICE_TAP, "pronk0"}, {"tap:t0", CFG_DEVICE_TAP, "t0"},
	        {"tap:abcdefghijklmno", CFG_DEVICE_TAP, "abcdefghijklmno"},
	        {"afpacket:eth0.5", CFG_DEVICE_AFPACKET, "eth0.5"},
	        {"afxdp:enp3s0f0", CFG_DEVICE_AFXDP, "enp3s0f0"}, {"memif:/a", CFG_DEVICE_MEMIF, "/a"},
	        {"0000:3b:00.0", CFG_DEVICE_PCI, "0000:3b:00.0"}, {"af:1f.7", CFG_DEVICE_PCI, "af:1f.7"}};
	static const char *const bad[] = {"", "Auto", "tap", "tap:", "tap:.", "tap:..", "tap:a/b", "tap:a b",
	        "tap:a:b", "tap:abcdefghijklmnop", "TAP:x", "memif:", "memif:/", "memif:a", "memif:/a,b",
	        "0000:3b:20.0", "0000:3b:00.8", "0000:3b:00.00", "3b:00", "000:3b:00.0", "xxxx:xx:xx.x",
	        "eth0"};
	enum cfg_device device;
	const char *arg;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
		assert_int_equal(cfg_parse_device(good[i].text, &device, &arg), 0);
		assert_int_equal(device, good[i].device);
		assert_string_equal(arg, good[i].arg);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		if (cfg_parse_device(bad[i], &device, &arg) != -EINVAL)
			fail_msg("%s", bad[i]);
}

static void socket_path_is_folder_and_name(void **state)
{
	char path[CFG_SOCKET_PATH_MAX];
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	cfg_socket_path(&cfg, path, sizeof(path));
	assert_string_equal(path, "/run/pronk/pronk.sock");
}

static void default_path_prefers_environment(void **state)
{
	const char *path;

	(void)state;
	setenv("PRONK_CONFIG", "/nonexistent/x.conf", 1);
	assert_string_equal(cfg_default_path(), "/nonexistent/x.conf");
	setenv("PRONK_CONFIG", "", 1);
	path = cfg_default_path();
	assert_true(path == NULL || access(path, R_OK) == 0);
	unsetenv("PRONK_CONFIG");
}

static void set_text_changes_one_option_and_tells_where_it_came_from(void **state)
{
	static const struct {
		const char *key, *text;
		enum option_id id;
		uint32_t value;
	} good[] = {
	        {"stack_spin_us", "0", OPTION_stack_spin_us, 0},
	        {"app_spin_us", "10000000", OPTION_app_spin_us, 10000000},
	        {"delayed_ack_ms", "200", OPTION_delayed_ack_ms, 200},
	        {"rto_min_ms", "1", OPTION_rto_min_ms, 1},
	        {"time_wait_ms", "100", OPTION_time_wait_ms, 100},
	        {"linger_s", "1", OPTION_linger_s, 1},
	        {"send_buffer", "16384", OPTION_send_buffer, 16384},
	        {"receive_buffer", "1048576", OPTION_receive_buffer, 1048576},
	        {"log_level", "debug", OPTION_log_level, CFG_LOG_LEVEL_DEBUG},
	};
	char err[256] = "";
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
		assert_int_equal(cfg_set_text(&cfg, good[i].key, good[i].text, err, sizeof(err)), 0);
		assert_int_equal(*(uint32_t *)((char *)&cfg + cfg_options[good[i].id].offset), good[i].value);
		assert_string_equal(cfg_origin_name(cfg.origin[good[i].id]), "pronkctl");
		assert_non_null(cfg_option_live(good[i].id));
	}
	assert_int_equal(cfg_set_text(&cfg, "strict", "on", err, sizeof(err)), 0);
	assert_true(cfg.strict);
}

static void set_text_of_the_profile_sets_what_it_presets(void **state)
{
	char err[256] = "";
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	assert_int_equal(cfg_set_text(&cfg, "stack_spin_us", "77", err, sizeof(err)), 0);
	assert_int_equal(cfg_set_text(&cfg, "profile", "latency", err, sizeof(err)), 0);
	assert_int_equal(cfg.stack_spin_us, 1000);
	assert_int_equal(cfg.app_spin_us, 200);
	assert_string_equal(cfg_origin_name(cfg.origin[OPTION_stack_spin_us]), "profile");
	assert_int_equal(cfg_set_text(&cfg, "profile", "balanced", err, sizeof(err)), 0);
	assert_int_equal(cfg.stack_spin_us, cfg_options[OPTION_stack_spin_us].default_value);
	assert_int_equal(cfg.app_spin_us, cfg_options[OPTION_app_spin_us].default_value);
}

static void set_text_refuses_with_the_allowed_range_and_changes_nothing(void **state)
{
	static const struct {
		const char *key, *text, *err;
	} bad[] = {
	        {"stakcs", "2", "stakcs: unknown option (did you mean stacks?)"},
	        {"nothing_like_it", "2",
	                "nothing_like_it: unknown option (allowed: those in doc/options.md)"},
	        {"stacks", "2",
	                "stacks: cannot change while the service runs (allowed: options with \"can change\" in "
	                "pronkctl config)"},
	        {"linger_s", "86401", "linger_s: 86401 is out of range (allowed: 0 to 86400 s)"},
	        {"linger_s", "-1", "linger_s: -1 is out of range (allowed: 0 to 86400 s)"},
	        {"linger_s", "5s", "linger_s: \"5s\" is the wrong type (allowed: 0 to 86400 s)"},
	        {"linger_s", "", "linger_s: \"\" is the wrong type (allowed: 0 to 86400 s)"},
	        {"strict", "maybe", "strict: \"maybe\" is the wrong type (allowed: true, false)"},
	        {"profile", "Latency",
	                "profile: unknown choice \"Latency\" (allowed: latency, balanced, throughput)"},
	        {"send_buffer", "1032192",
	                "send_buffer: with stacks = 3 and send_buffer = 1032192, send_memory_mb = 4 is too little "
	                "(allowed: send_memory_mb of at least 6)"},
	};
	struct cfg cfg, before;
	char err[256];

	(void)state;
	cfg_defaults(&cfg);
	cfg.stacks = 3;
	cfg.send_memory_mb = 4;
	memcpy(&before, &cfg, sizeof(cfg));
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		err[0] = '\0';
		assert_int_equal(cfg_set_text(&cfg, bad[i].key, bad[i].text, err, sizeof(err)), -EINVAL);
		assert_string_equal(err, bad[i].err);
		assert_memory_equal(&before, &cfg, sizeof(cfg));
	}
}

static void dump_loads_again_to_the_same_values(void **state)
{
	struct cfg cfg, again;
	char *text;

	(void)state;
	setenv("PRONK_STACKS", "2", 1);
	assert_int_equal(
	        load_text(&cfg,
	                "profile = \"latency\"; eal_args = \"--a \\\"b\\\" \\\\\"; strict = true; mtu = 9000;"),
	        0);
	unsetenv("PRONK_STACKS");
	assert_string_equal(cfg.eal_args, "--a \"b\" \\");
	text = dump_text(&cfg, false);
	assert_non_null(strstr(text, "stacks = 2; # environment PRONK_STACKS\n"));
	assert_non_null(strstr(text, "app_spin_us = 200; # profile, can change\n"));
	assert_non_null(strstr(text, "name = \"pronk\"; # default\n"));
	assert_non_null(strstr(text, "pronk.conf:1\n"));
	assert_int_equal(load_text(&again, text), 0);
	assert_same_values(&cfg, &again);
	free(text);
}

static void dump_json_has_every_option(void **state)
{
	struct cfg cfg;
	char *text;

	(void)state;
	assert_int_equal(load_text(&cfg, "eal_args = \"\\\"\";"), 0);
	text = dump_text(&cfg, true);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		char expect[80];

		snprintf(expect, sizeof(expect), "  \"%s\": {\"value\": ", cfg_options[i].key);
		assert_non_null(strstr(text, expect));
	}
	assert_non_null(
	        strstr(text, "\"eal_args\": {\"value\": \"\\\"\", \"origin\": \"file\", \"place\": \""));
	assert_non_null(strstr(text,
	        "\"autostart\": {\"value\": true, \"origin\": \"default\", \"place\": \"\", \"can_change\": false}"));
	assert_null(strstr(text, ",\n}"));
	free(text);
}

static void sample_conf_with_all_comments_removed_gives_defaults(void **state)
{
	FILE *in = fopen(SOURCE_DIR "/conf/pronk.conf", "r"), *out = fopen(file_path, "w");
	struct cfg cfg, defaults;
	unsigned count = 0;
	char line[1024];

	(void)state;
	assert_non_null(in);
	assert_non_null(out);
	while (fgets(line, sizeof(line), in) != NULL) {
		bool is_option = line[0] == '#' && line[1] != ' ' && strchr(line, '=') != NULL;

		count += is_option;
		fputs(line + is_option, out);
	}
	fclose(in);
	fclose(out);
	assert_int_equal(count, OPTION_COUNT + 1); /* and rules */
	cfg_defaults(&defaults);
	if (cfg_load(&cfg, file_path, err, sizeof(err)) < 0)
		fail_msg("%s", err);
	assert_same_values(&cfg, &defaults);
	for (unsigned i = 0; i < OPTION_COUNT; i++)
		assert_int_equal(cfg.origin[i], CFG_ORIGIN_FILE);
	assert_int_equal(cfg.rules_origin, CFG_ORIGIN_FILE);
	assert_int_equal(cfg.rule_count, 0);
}

static void example_confs_load(void **state)
{
	static const char *const devices[] = {"tap", "afpacket", "afxdp", "memif", "pci"};
	enum cfg_device device;
	const char *arg;
	char path[512];
	struct cfg cfg;

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(devices); i++) {
		snprintf(path, sizeof(path), SOURCE_DIR "/conf/pronk-%s.conf", devices[i]);
		if (cfg_load(&cfg, path, err, sizeof(err)) < 0)
			fail_msg("%s", err);
		assert_int_equal(cfg_parse_device(cfg.device, &device, &arg), 0);
		assert_int_equal(device, i); /* in the order of enum cfg_device */
	}
}

static void what_the_machine_does_not_have_is_refused(void **state)
{
	uint16_t core;
	char text[128];
	struct cfg cfg;

	(void)state;
	assert_true(cpu_allowed(&core, 1) > 0);
	snprintf(text, sizeof(text),
	        "device = \"afpacket:lo\";\naddress = \"198.18.0.2/24\";\ncores = \"%u\";", core);
	assert_int_equal(load_text(&cfg, text), 0);
	assert_int_equal(cfg_check_machine(&cfg, true, err, sizeof(err)), 0);
	/* the second core of one stack is not used */
	snprintf(cfg.cores, sizeof(cfg.cores), "%u,%u", core, CPU_CORE_MAX - 1);
	assert_int_equal(cfg_check_machine(&cfg, true, err, sizeof(err)), 0);
	snprintf(cfg.cores, sizeof(cfg.cores), "%u", CPU_CORE_MAX - 1);
	assert_int_equal(cfg_check_machine(&cfg, true, err, sizeof(err)), -EINVAL);
	assert_non_null(
	        strstr(err, "pronk.conf:3: cores: there is no core 1023 for this process (allowed: auto, "));
	assert_int_equal(cfg_check_machine(&cfg, false, err, sizeof(err)), 0);
	strcpy(cfg.cores, "auto");
	strcpy(cfg.device, "afxdp:pk-none0");
	assert_int_equal(cfg_check_machine(&cfg, true, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "pronk.conf:1: device: there is no interface pk-none0 (allowed: "));
}

/* First line of a file without its newline; false if there is none. */
static bool line_read(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "r");
	bool ok = file != NULL && fgets(line, (int)size, file) != NULL;

	if (ok)
		line[strcspn(line, "\n")] = '\0';
	if (file != NULL)
		fclose(file);
	return ok;
}

static void listen_parser_takes_loopback_addresses_and_paths_only(void **state)
{
	static const struct {
		const char *text;
		int rc, family;
		uint16_t port;
	} cases[] = {
	        {"127.0.0.1:9464", 0, AF_INET, 9464},
	        {"127.255.0.9:1", 0, AF_INET, 1},
	        {"[::1]:65535", 0, AF_INET6, 65535},
	        {"/run/x", 0, AF_UNIX, 0},
	        {"", -EINVAL, 0, 0},
	        {"/", -EINVAL, 0, 0},
	        {":9464", -EINVAL, 0, 0},
	        {"::1:9464", -EINVAL, 0, 0},
	        {"[::1]", -EINVAL, 0, 0},
	        {"[]:1", -EINVAL, 0, 0},
	        {"]:1", -EINVAL, 0, 0},
	        {"127.0.0.1:", -EINVAL, 0, 0},
	        {"127.0.0.1:99999999999", -EINVAL, 0, 0},
	        {"127.0.0.1:94 64", -EINVAL, 0, 0},
	        {"127.0.0.1:+1", -EINVAL, 0, 0},
	        {"128.0.0.1:9464", -EADDRNOTAVAIL, 0, 0},
	        {"[::]:9464", -EADDRNOTAVAIL, 0, 0},
	        {"[::ffff:127.0.0.1]:9464", -EADDRNOTAVAIL, 0, 0},
	};
	char path[200] = "/";

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sockaddr_storage to = {0};
		uint32_t size = 0;

		assert_int_equal(cfg_parse_listen(cases[i].text, &to, &size), cases[i].rc);
		assert_int_equal(to.ss_family, cases[i].family);
		assert_int_equal(size != 0, cases[i].rc == 0);
		if (to.ss_family == AF_INET || to.ss_family == AF_INET6)
			assert_int_equal(ntohs(((struct sockaddr_in *)&to)->sin_port), cases[i].port);
	}
	memset(path + 1, 'x', 106);
	assert_int_equal(cfg_parse_listen(path, NULL, NULL), 0); /* 107 bytes: as long as may be */
	path[107] = 'x';
	assert_int_equal(cfg_parse_listen(path, NULL, NULL), -EINVAL);
}

static void badconf_files_give_exactly_their_messages(void **state)
{
	unsigned count = 0, wrong = 0;
	DIR *dir = opendir(SOURCE_DIR "/tests/badconf");
	char here[4096];
	struct dirent *entry;

	(void)state;
	assert_non_null(dir);
	assert_non_null(getcwd(here, sizeof(here)));
	assert_int_equal(chdir(SOURCE_DIR "/tests/badconf"), 0);
	while ((entry = readdir(dir)) != NULL) {
		char *dot = strrchr(entry->d_name, '.'), expect[1024], variable[256] = "", path[300];
		struct cfg cfg;
		int rc;

		if (dot == NULL || strcmp(dot, ".conf") != 0)
			continue;
		snprintf(path, sizeof(path), "%.*s.expect", (int)(dot - entry->d_name), entry->d_name);
		assert_true(line_read(path, expect, sizeof(expect)));
		/* NAME.env, if there, holds one VARIABLE=value */
		snprintf(path, sizeof(path), "%.*s.env", (int)(dot - entry->d_name), entry->d_name);
		if (line_read(path, variable, sizeof(variable))) {
			char *equals = strchr(variable, '=');

			assert_non_null(equals);
			*equals = '\0';
			assert_int_equal(setenv(variable, equals + 1, 1), 0);
		}
		err[0] = '\0';
		rc = cfg_load(&cfg, entry->d_name, err, sizeof(err));
		if (variable[0] != '\0')
			unsetenv(variable);
		count++;
		if (rc != -EINVAL || strcmp(err, expect) != 0) {
			print_error("%s: %d \"%s\"\n  expected \"%s\"\n", entry->d_name, rc, err, expect);
			wrong++;
		}
	}
	closedir(dir);
	assert_int_equal(chdir(here), 0);
	print_message("badconf: %u files, %u with another message than expected\n", count, wrong);
	assert_int_equal(wrong, 0);
	assert_true(count >= 140);
}

/* Random damage to a good file: any result is right, but it must be one, and with a reason. */
static void damaged_files_never_crash_and_always_explain(void **state)
{
	static const char good[] =
	        "device = \"tap:pronk0\"; # c\naddress = \"198.18.0.2/24\";\nstacks = 2; /* x */\n"
	        "cores = \"0-3,5\";\nstrict = true;\nlog_level = \"info\";\nmtu = 0x5dc;\n";
	static const char bytes[] = "\"\"{}[]()=;:,#/*\\\n\t -0123456789xLabz_@\x01\xff";
	unsigned seed = 12345, refused = 0;

	(void)state;
	for (unsigned round = 0; round < 5000; round++) {
		char text[sizeof(good)];
		struct cfg cfg;
		int rc;

		memcpy(text, good, sizeof(good));
		for (unsigned i = 0; i <= round % 6; i++) {
			unsigned at;

			seed = seed * 1103515245 + 12345;
			at = (seed >> 8) % (sizeof(good) - 1);
			seed = seed * 1103515245 + 12345;
			text[at] = bytes[(seed >> 8) % (sizeof(bytes) - 1)];
		}
		rc = load_text(&cfg, text);
		if (rc < 0) {
			refused++;
			assert_int_equal(rc, -EINVAL);
			assert_true(strncmp(err, file_path, strlen(file_path)) == 0);
			assert_null(strchr(err, '\n'));
		} else {
			assert_int_equal(cfg_check(&cfg, err, sizeof(err)), 0);
		}
	}
	print_message("damaged files: 5000, %u refused\n", refused);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(enum_constants_match_choices),
	        cmocka_unit_test(option_keys_are_unique_and_found),
	        cmocka_unit_test(defaults_are_those_of_the_table_and_pass_the_check),
	        cmocka_unit_test(load_without_file_gives_defaults),
	        cmocka_unit_test(load_sets_every_kind_with_origin_and_line),
	        cmocka_unit_test(load_takes_both_ends_of_every_range),
	        cmocka_unit_test(load_takes_longest_texts_and_refuses_longer),
	        cmocka_unit_test(load_failure_leaves_struct_untouched),
	        cmocka_unit_test(load_missing_file_gives_enoent_with_message),
	        cmocka_unit_test(load_folder_device_or_huge_file_is_refused),
	        cmocka_unit_test(load_error_fits_any_buffer),
	        cmocka_unit_test(environment_overrides_file),
	        cmocka_unit_test(environment_reserved_names_are_ignored),
	        cmocka_unit_test(environment_unknown_name_is_refused),
	        cmocka_unit_test(profile_changes_only_what_is_not_set),
	        cmocka_unit_test(good_combinations_are_accepted),
	        cmocka_unit_test(suggestion_finds_near_keys_only),
	        cmocka_unit_test(parse_ipv4_prefix_is_strict),
	        cmocka_unit_test(host_and_network_rules_hold_at_their_edges),
	        cmocka_unit_test(parse_mac_is_strict),
	        cmocka_unit_test(parse_cores_takes_lists_and_ranges),
	        cmocka_unit_test(parse_device_tells_kinds),
	        cmocka_unit_test(socket_path_is_folder_and_name),
	        cmocka_unit_test(default_path_prefers_environment),
	        cmocka_unit_test(set_text_changes_one_option_and_tells_where_it_came_from),
	        cmocka_unit_test(set_text_of_the_profile_sets_what_it_presets),
	        cmocka_unit_test(set_text_refuses_with_the_allowed_range_and_changes_nothing),
	        cmocka_unit_test(dump_loads_again_to_the_same_values),
	        cmocka_unit_test(dump_json_has_every_option),
	        cmocka_unit_test(sample_conf_with_all_comments_removed_gives_defaults),
	        cmocka_unit_test(example_confs_load),
	        cmocka_unit_test(what_the_machine_does_not_have_is_refused),
	        cmocka_unit_test(listen_parser_takes_loopback_addresses_and_paths_only),
	        cmocka_unit_test(badconf_files_give_exactly_their_messages),
	        cmocka_unit_test(damaged_files_never_crash_and_always_explain),
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
