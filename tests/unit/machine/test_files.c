/* test_files.c - several configuration files: how they are collected and handed on, and what `pronk check`
 * says of them together.
 */
#include "fixture.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"
#include "configs.h"

/* --- configs.c --- */

static char err[256];

static void a_file_is_added_once_and_eight_are_most(void **state)
{
	static struct cfg_files files;
	char path[CFG_FILE_PATH_MAX + 1];

	(void)state;
	memset(&files, 0, sizeof(files));
	for (unsigned i = 0; i < CFG_FILES_MAX; i++) {
		snprintf(path, sizeof(path), "/%u.conf", i);
		assert_int_equal(configs_add(&files, path, err, sizeof(err)), 0);
		assert_int_equal(configs_add(&files, "/0.conf", err, sizeof(err)), 0);
		assert_int_equal(files.count, i + 1);
		assert_string_equal(files.path[i], path);
	}
	assert_int_equal(configs_add(&files, "/more", err, sizeof(err)), -E2BIG);
	assert_string_equal(err, "-c: too many files (allowed: up to 8)");
	files.count = 1;
	assert_int_equal(configs_add(&files, "", err, sizeof(err)), -EINVAL);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(configs_add(&files, path, err, sizeof(err)), -ENAMETOOLONG);
	assert_non_null(strstr(err, "1024 bytes: \"xxxx"));
	assert_int_equal(files.count, 1);
	path[sizeof(path) - 2] = 0;
	assert_int_equal(configs_add(&files, path, err, sizeof(err)), 0);
	assert_string_equal(files.path[1], path);
}

static void what_a_program_gets_is_absolute_and_has_no_colon(void **state)
{
	static struct cfg_files files;
	struct fixture *f = *state;
	char path[128], other[128], list[512];

	memset(&files, 0, sizeof(files));
	put(f, "/here/a.conf", "");
	put(f, "/here/b:c.conf", "");
	snprintf(path, sizeof(path), "%s/here/../here/a.conf", f->root);
	assert_int_equal(configs_add(&files, path, err, sizeof(err)), 0);
	assert_int_equal(configs_add(&files, "/nowhere/x.conf", err, sizeof(err)), 0);
	assert_int_equal(configs_resolve(&files, err, sizeof(err)), 0);
	snprintf(path, sizeof(path), "%s/here/a.conf", f->root);
	assert_string_equal(files.path[0], path);
	assert_string_equal(files.path[1], "/nowhere/x.conf");
	assert_int_equal(configs_export(&files), 0);
	snprintf(list, sizeof(list), "%s:/nowhere/x.conf", path);
	assert_string_equal(getenv("PRONK_CONFIG"), list);
	/* and is what cfg_files_find takes apart */
	memset(&files, 0, sizeof(files));
	assert_int_equal(cfg_files_find(&files, err, sizeof(err)), 0);
	assert_int_equal(files.count, 2);
	assert_string_equal(files.path[0], path);
	/* a link without a colon leads to a file with one */
	link_to(f, "/here/link.conf", "b:c.conf");
	snprintf(path, sizeof(path), "%s/here/link.conf", f->root);
	assert_int_equal(configs_add(&files, path, err, sizeof(err)), 0);
	assert_int_equal(configs_resolve(&files, err, sizeof(err)), -EINVAL);
	snprintf(other, sizeof(other), "%s/here/b:c.conf: a colon separates files", f->root);
	assert_memory_equal(err, other, strlen(other));
	/* none: what was there stays */
	memset(&files, 0, sizeof(files));
	assert_int_equal(configs_export(&files), 0);
	assert_string_equal(getenv("PRONK_CONFIG"), list);
	unsetenv("PRONK_CONFIG");
}

/* --- check_files.c --- */

enum { FILES = 3 };

struct several {
	struct fixture *f;
	struct checked file[FILES];
	struct report r;
};

static int several_up(void **state)
{
	static const char *const paths[FILES] = {"/a.conf", "/b.conf", "/c.conf"};
	struct several *s = calloc(1, sizeof(*s));
	int rc = fixture_up((void **)&s->f);

	for (unsigned i = 0; i < FILES; i++) {
		struct cfg *c = &s->file[i].cfg;

		s->file[i].path = paths[i];
		s->file[i].is_good = true;
		s->file[i].m = s->f->m;
		cfg_defaults(c);
		snprintf(c->name, sizeof(c->name), "%c", 'a' + i);
		snprintf(c->device, sizeof(c->device), "afpacket:eth%u", i);
		snprintf(c->address, sizeof(c->address), "192.0.%u.10/24", i + 2);
		snprintf(c->cores, sizeof(c->cores), "%u", i);
		/* so that all three fit into what the fixture has */
		c->packet_buffers = 8192;
	}
	*state = s;
	return rc;
}

static int several_down(void **state)
{
	struct several *s = *state;

	report_free(&s->r);
	fixture_down((void **)&s->f);
	free(s);
	return 0;
}

static const struct finding *together(struct several *s, const char *id)
{
	const struct finding *found = NULL;

	report_free(&s->r);
	check_files(s->file, FILES, &s->r);
	for (const struct finding *f = s->r.first; f; f = f->next)
		if (!strcmp(f->id, id)) {
			assert_null(found); /* once */
			found = f;
		}
	assert_non_null(found);
	return found;
}

static void expect(struct several *s, const char *id, enum level level, const char *text)
{
	const struct finding *f = together(s, id);

	if (f->level != level || !strstr(f->found, text))
		fail_msg("%s: level %d, not %d, or no \"%s\": %s", id, f->level, level, text, f->found);
	if (level == LEVEL_WARNING || level == LEVEL_MISSING) {
		assert_true(f->means[0]);
		assert_true(f->fix[0]);
	}
}

static void files_that_have_nothing_in_common_are_fine(void **state)
{
	static const char *const ids[] = {"files.service", "files.device", "files.network", "files.mode",
	        "files.first", "files.cores", "files.hugepages"};
	struct several *s = *state;
	unsigned n = 0;

	check_files(s->file, FILES, &s->r);
	for (const struct finding *f = s->r.first; f; f = f->next) {
		assert_true(n < ARRAY_COUNT(ids));
		assert_string_equal(f->id, ids[n++]);
		if (f->level != LEVEL_OK)
			fail_msg("%s: %s", f->id, f->found);
	}
	assert_int_equal(n, ARRAY_COUNT(ids));
}

static void one_service_twice_is_missing(void **state)
{
	struct several *s = *state;

	strcpy(s->file[2].cfg.name, "b");
	expect(s, "files.service", LEVEL_MISSING,
	        "/b.conf and /c.conf name the same service, /run/pronk/b.sock");
	assert_non_null(strstr(together(s, "files.service")->fix, "in /c.conf"));
	strcpy(s->file[2].cfg.runtime_dir, "/run/other");
	expect(s, "files.service", LEVEL_OK, "");
}

static void one_device_twice_is_missing_whatever_drives_it(void **state)
{
	struct several *s = *state;

	strcpy(s->file[1].cfg.device, "afxdp:eth0");
	expect(s, "files.device", LEVEL_MISSING, "/a.conf and /b.conf take the same device, afxdp:eth0");
	strcpy(s->file[0].cfg.device, "auto");
	strcpy(s->file[1].cfg.device, "tap:pronk0");
	expect(s, "files.device", LEVEL_MISSING, "tap:pronk0");
	strcpy(s->file[0].cfg.device, "0000:3b:00.0");
	strcpy(s->file[1].cfg.device, "3B:00.0");
	expect(s, "files.device", LEVEL_MISSING, "3B:00.0");
	strcpy(s->file[1].cfg.device, "0001:3b:00.0");
	expect(s, "files.device", LEVEL_OK, "");
	/* both ends of one memif are two devices */
	strcpy(s->file[0].cfg.device, "memif:/x.sock");
	strcpy(s->file[1].cfg.device, "memif:/x.sock");
	expect(s, "files.device", LEVEL_MISSING, "memif:/x.sock");
	s->file[1].cfg.memif_role = CFG_MEMIF_ROLE_SERVER;
	expect(s, "files.device", LEVEL_OK, "");
	s->file[0].cfg.memif_role = CFG_MEMIF_ROLE_SERVER;
	s->file[0].cfg.memif_id = 1;
	expect(s, "files.device", LEVEL_OK, "");
}

static void networks_that_overlap_are_a_warning_and_one_address_is_missing(void **state)
{
	struct several *s = *state;

	strcpy(s->file[2].cfg.address, "192.0.2.200/28");
	expect(s, "files.network", LEVEL_WARNING,
	        "the networks 192.0.2.10/24 of /a.conf and 192.0.2.200/28 of /c.conf overlap");
	assert_non_null(strstr(together(s, "files.network")->means, "through /c.conf: its prefix is longer"));
	strcpy(s->file[2].cfg.address, "192.0.2.200/24");
	assert_non_null(strstr(together(s, "files.network")->means, "through /a.conf: it is named first"));
	strcpy(s->file[2].cfg.address, "192.0.2.200/16");
	assert_non_null(strstr(together(s, "files.network")->means, "through /a.conf: its prefix is longer"));
	/* worse, and told instead */
	strcpy(s->file[2].cfg.address, "192.0.3.10/24");
	strcpy(s->file[1].cfg.address, "192.0.3.10/24");
	strcpy(s->file[0].cfg.address, "192.0.3.11/24");
	expect(s, "files.network", LEVEL_MISSING, "/b.conf and /c.conf have the same address, 192.0.3.10");
	/* auto: that of the interface, as far as it is known */
	strcpy(s->file[1].cfg.address, "auto");
	strcpy(s->file[0].cfg.address, "10.0.0.1/8");
	expect(s, "files.network", LEVEL_OK, "");
	s->file[1].m.iface_rc = 0;
	s->file[1].m.iface.addr_count = 1;
	s->file[1].m.iface.addr[0] = (struct iface_addr){.ip = {10, 1, 2, 3}, .prefix = 16};
	expect(s, "files.network", LEVEL_WARNING, "10.0.0.1/8 of /a.conf and 10.1.2.3/16 of /b.conf");
	strcpy(s->file[0].cfg.address, "auto");
	strcpy(s->file[0].cfg.device, "auto");
	strcpy(s->file[1].cfg.device, "tap:other");
	expect(s, "files.network", LEVEL_MISSING, "/a.conf and /b.conf have the same address, 198.18.0.2");
}

static void a_second_stack_in_the_program_is_missing(void **state)
{
	struct several *s = *state;

	s->file[1].cfg.mode = CFG_MODE_INLINE;
	expect(s, "files.mode", LEVEL_OK, "one has its stack in the program");
	s->file[2].cfg.mode = CFG_MODE_INLINE;
	expect(s, "files.mode", LEVEL_MISSING, "/b.conf and /c.conf both have mode = \"inline\"");
}

static void options_of_the_program_hold_in_the_first_file_only(void **state)
{
	struct several *s = *state;

	s->file[0].cfg.loopback = CFG_LOOPBACK_PRONK;
	s->file[0].cfg.origin[OPTION_loopback] = CFG_ORIGIN_FILE;
	s->file[0].cfg.rule_count = 1;
	s->file[0].cfg.rules_origin = CFG_ORIGIN_FILE;
	expect(s, "files.first", LEVEL_OK, "/a.conf");
	s->file[1].cfg = s->file[0].cfg;
	expect(s, "files.first", LEVEL_WARNING,
	        "/b.conf: not in force for a program that uses /a.conf as well: loopback, rules");
	s->file[1].cfg.strict = true;
	expect(s, "files.first", LEVEL_WARNING, "loopback, strict, rules");
	/* from the environment it holds for all of them */
	s->file[1].cfg.strict = false;
	s->file[1].cfg.rules_origin = s->file[1].cfg.origin[OPTION_loopback] = CFG_ORIGIN_ENVIRONMENT;
	expect(s, "files.first", LEVEL_OK, "");
}

static void stacks_on_one_core_are_a_warning(void **state)
{
	struct several *s = *state;

	strcpy(s->file[2].cfg.cores, "4-6");
	s->file[2].cfg.stacks = 3;
	expect(s, "files.cores", LEVEL_OK, "");
	strcpy(s->file[1].cfg.cores, "6");
	expect(s, "files.cores", LEVEL_WARNING, "/b.conf and /c.conf both have a stack on core 6");
	s->file[2].cfg.stacks = 2; /* 4 and 5 */
	expect(s, "files.cores", LEVEL_OK, "");
	strcpy(s->file[1].cfg.cores, "auto");
	strcpy(s->file[0].cfg.cores, "auto");
	expect(s, "files.cores", LEVEL_WARNING, "core 1");
	s->file[1].cfg.mode = CFG_MODE_INLINE;
	expect(s, "files.cores", LEVEL_OK, "");
}

static void hugepages_have_to_do_for_all(void **state)
{
	struct several *s = *state;
	unsigned each = arena_pages(&s->file[0].cfg, 0);
	char text[32];

	snprintf(text, sizeof(text), "%u\n", 3 * each - 1);
	put(s->f, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", text);
	expect(s, "files.hugepages", LEVEL_NOTE, "free, together they want about");
	assert_non_null(strstr(together(s, "files.hugepages")->fix, "echo 1025 | sudo tee"));
	s->file[1].cfg.hugepages = CFG_HUGEPAGES_ON;
	expect(s, "files.hugepages", LEVEL_MISSING, "free, together they want about");
	s->file[0].m.service = 0; /* has its share */
	expect(s, "files.hugepages", LEVEL_OK, "");
	s->file[0].m.service = -ENOENT;
	s->file[2].cfg.hugepages = CFG_HUGEPAGES_OFF;
	expect(s, "files.hugepages", LEVEL_OK, "");
}

static void a_file_that_cannot_be_read_is_left_out(void **state)
{
	struct several *s = *state;

	s->file[2].cfg = s->file[1].cfg;
	s->file[2].is_good = false;
	check_files(s->file, FILES, &s->r);
	assert_int_equal(s->r.count[LEVEL_OK], 7);
	s->file[0].is_good = s->file[1].is_good = false;
	report_free(&s->r);
	check_files(s->file, FILES, &s->r);
	assert_int_equal(s->r.count[LEVEL_OK], 7);
}

static void json_has_each_file_and_what_is_common(void **state)
{
	static const char *const keys[] = {
	        "version", "root", "usable", "ok", "notes", "warnings", "missing", "files", "items"};
	struct several *s = *state;
	char *text = NULL;
	size_t size = 0, n = 0;
	FILE *file = open_memstream(&text, &size);
	json_t *all, *value;
	const char *key;

	report_add(&s->file[1].r, LEVEL_MISSING, "config", "something");
	report_add(&s->file[0].r, LEVEL_OK, "config", "something");
	check_files(s->file, FILES, &s->r);
	assert_int_equal(files_json(s->file, FILES, &s->r, file), 0);
	fclose(file);
	all = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(all);
	json_object_foreach(all, key, value)
	{
		assert_true(n < ARRAY_COUNT(keys));
		assert_string_equal(key, keys[n++]);
	}
	assert_int_equal(n, ARRAY_COUNT(keys));
	assert_int_equal(json_integer_value(json_object_get(all, "ok")), 8);
	assert_int_equal(json_integer_value(json_object_get(all, "missing")), 1);
	assert_true(json_is_false(json_object_get(all, "usable")));
	assert_int_equal(json_array_size(json_object_get(all, "items")), 7);
	assert_int_equal(json_array_size(json_object_get(all, "files")), FILES);
	value = json_array_get(json_object_get(all, "files"), 1);
	assert_string_equal(json_string_value(json_object_get(value, "config")), "/b.conf");
	assert_true(json_is_false(json_object_get(value, "usable")));
	json_decref(all);
	free(text);
	for (unsigned i = 0; i < FILES; i++)
		report_free(&s->file[i].r);
}

#define SEVERAL_TEST(name) cmocka_unit_test_setup_teardown(name, several_up, several_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(a_file_is_added_once_and_eight_are_most),
	        FIXTURE_TEST(what_a_program_gets_is_absolute_and_has_no_colon),
	        SEVERAL_TEST(files_that_have_nothing_in_common_are_fine),
	        SEVERAL_TEST(one_service_twice_is_missing),
	        SEVERAL_TEST(one_device_twice_is_missing_whatever_drives_it),
	        SEVERAL_TEST(networks_that_overlap_are_a_warning_and_one_address_is_missing),
	        SEVERAL_TEST(a_second_stack_in_the_program_is_missing),
	        SEVERAL_TEST(options_of_the_program_hold_in_the_first_file_only),
	        SEVERAL_TEST(stacks_on_one_core_are_a_warning),
	        SEVERAL_TEST(hugepages_have_to_do_for_all),
	        SEVERAL_TEST(a_file_that_cannot_be_read_is_left_out),
	        SEVERAL_TEST(json_has_each_file_and_what_is_common),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
