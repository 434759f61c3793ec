/* test_setup.c - the record of `pronk setup`: what was changed is taken back exactly, also after an end in
 * the middle. The test is the kernel behind the files: it moves a device from driver to driver and gives
 * hugepages.
 */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "setup.h"

#define PAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define DEVICE "0000:3b:00.0"
#define DEVICE_DIR "/sys/bus/pci/devices/" DEVICE

static char err[512], config[128], state_dir[128];
static long most_pages; /* that the kernel has memory for */
static bool vfio_refuses;

/* What the kernel would do when that was written. */
static void kernel(void *arg, const char *path, const char *value)
{
	struct fixture *f = arg;
	char text[64];

	if (!strcmp(path, PAGES)) {
		snprintf(text, sizeof(text), "%ld\n", atol(value) < most_pages ? atol(value) : most_pages);
		put(f, PAGES, text);
	} else if (strstr(path, "/unbind")) {
		drop(f, DEVICE_DIR "/driver");
	} else if (strstr(path, "drivers_probe")) {
		const char *override = text_at(f, DEVICE_DIR "/driver_override");

		if (!strncmp(override, "vfio-pci", 8) && !vfio_refuses)
			link_to(f, DEVICE_DIR "/driver", "../../drivers/vfio-pci");
		else if (strncmp(override, "vfio-pci", 8))
			link_to(f, DEVICE_DIR "/driver", "../../drivers/ixgbe");
	} else if (strstr(path, "driver_override")) {
		put(f, DEVICE_DIR "/driver_override", value[0] == '\n' ? "(null)\n" : value);
	}
}

static struct fixture *begin(void **state)
{
	struct fixture *f = *state;

	f->m.on_write = kernel;
	f->m.on_write_arg = f;
	most_pages = 4096;
	vfio_refuses = false;
	snprintf(config, sizeof(config), "%s/etc/pronk/test.conf", f->root);
	snprintf(state_dir, sizeof(state_dir), "%s/var/lib/pronk", f->root);
	put(f, DEVICE_DIR "/driver_override", "(null)\n");
	link_to(f, DEVICE_DIR "/driver", "../../drivers/ixgbe");
	put(f, "/sys/bus/pci/drivers/ixgbe/unbind", "");
	put(f, "/sys/bus/pci/drivers/vfio-pci/unbind", "");
	put(f, "/sys/bus/pci/drivers_probe", "");
	return f;
}

static struct setup_state *opened(void)
{
	struct setup_state *s = state_open(state_dir, config, err, sizeof(err));

	if (!s)
		fail_msg("%s", err);
	return s;
}

static int undone(struct fixture *f, bool force)
{
	struct setup_state *s = opened();
	FILE *nowhere = fopen("/dev/null", "w");
	int left = state_undo(s, &f->m, force, nowhere);

	fclose(nowhere);
	state_close(s);
	return left;
}

static const char *driver(struct fixture *f)
{
	static char name[64];

	machine_link(&f->m, name, sizeof(name), DEVICE_DIR "/driver");
	return name;
}

static void hugepages_come_and_go_back(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	assert_string_equal(text_at(f, PAGES), "1500\n");
	/* fewer than there are is no wish for fewer */
	assert_int_equal(state_pages(s, &f->m, PAGES, 100, err, sizeof(err)), 0);
	assert_string_equal(text_at(f, PAGES), "1500\n");
	state_close(s);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(text_at(f, PAGES), "1024\n");
	/* once more takes nothing else back */
	put(f, PAGES, "1300\n");
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(text_at(f, PAGES), "1300\n");
}

static void hugepages_that_somebody_else_has_changed_are_left_alone(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	state_close(s);
	put(f, PAGES, "2000\n");
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(text_at(f, PAGES), "2000\n");
}

static void too_few_hugepages_are_an_error_and_none_stay(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	most_pages = 1200;
	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), -ENOMEM);
	assert_non_null(strstr(err, "1200 of 1500"));
	state_roll_back(s, &f->m);
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_true(state_is_empty(s));
	state_close(s);
}

static void device_goes_to_vfio_and_back(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_bind(s, &f->m, DEVICE, "vfio-pci", NULL, err, sizeof(err)), 0);
	assert_string_equal(driver(f), "vfio-pci");
	assert_int_equal(state_bind(s, &f->m, DEVICE, "vfio-pci", NULL, err, sizeof(err)), 0); /* twice */
	state_close(s);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(text_at(f, DEVICE_DIR "/driver_override"), "(null)\n");
}

static void device_that_vfio_refuses_goes_back_at_once(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	vfio_refuses = true;
	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	assert_true(state_bind(s, &f->m, DEVICE, "vfio-pci", NULL, err, sizeof(err)) < 0);
	state_roll_back(s, &f->m);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_true(state_is_empty(s));
	state_close(s);
	assert_int_equal(access(state_dir, F_OK), 0);
}

/* Killed after the note, before or in the middle of the change: the record is there, half of it is true. */
static void end_in_the_middle_is_taken_back(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	assert_int_equal(state_bind(s, &f->m, DEVICE, "vfio-pci", NULL, err, sizeof(err)), 0);
	state_close(s);
	put(f, PAGES, "1024\n");       /* it was never written */
	drop(f, DEVICE_DIR "/driver"); /* unbound, and bound to nobody yet */
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_string_equal(driver(f), "ixgbe");
}

static void file_is_made_and_goes_with_its_folders(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_file(s, config, "device = \"auto\";\n", false, err, sizeof(err)), 0);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "device = \"auto\";\n");
	/* a second run with other wishes */
	assert_int_equal(state_file(s, config, "stacks = 1;\n", false, err, sizeof(err)), 0);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "stacks = 1;\n");
	state_close(s);
	assert_int_equal(undone(f, false), 0);
	assert_null(text_at(f, "/etc/pronk/test.conf"));
	assert_false(machine_has(&f->m, "/etc"));
}

static void file_of_somebody_else_is_not_replaced_unless_forced_and_comes_back(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	put(f, "/etc/pronk/test.conf", "mine\n");
	assert_int_equal(state_file(s, config, "new\n", false, err, sizeof(err)), -EEXIST);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "mine\n");
	assert_int_equal(state_file(s, config, "new\n", true, err, sizeof(err)), 0);
	state_close(s);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "mine\n");
}

static void file_that_was_edited_since_is_left_alone_unless_forced(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_file(s, config, "new\n", false, err, sizeof(err)), 0);
	state_close(s);
	put(f, "/etc/pronk/test.conf", "new\nedited\n");
	assert_int_equal(undone(f, false), 1);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "new\nedited\n");
	s = opened();
	assert_int_equal(state_file(s, config, "newer\n", false, err, sizeof(err)), -EEXIST);
	state_close(s);
	assert_int_equal(undone(f, true), 0);
	assert_null(text_at(f, "/etc/pronk/test.conf"));
}

static void second_run_that_fails_goes_back_to_the_first(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	state_close(s);
	s = opened();
	assert_int_equal(state_pages(s, &f->m, PAGES, 1600, err, sizeof(err)), 0);
	state_roll_back(s, &f->m);
	assert_string_equal(text_at(f, PAGES), "1500\n");
	state_close(s);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(text_at(f, PAGES), "1024\n");
}

static void two_at_a_time_are_kept_apart(void **state)
{
	struct setup_state *s;

	begin(state);
	s = opened();
	assert_null(state_open(state_dir, config, err, sizeof(err)));
	assert_non_null(strstr(err, "another pronk setup"));
	state_close(s);
}

static void after_a_reboot_only_files_are_left_to_take_back(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();
	char path[256], *text, *id;

	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	assert_int_equal(state_file(s, config, "new\n", false, err, sizeof(err)), 0);
	state_close(s);
	snprintf(path, sizeof(path), "/var/lib/pronk/setup");
	for (size_t n = strlen(path), i = 0; config[i]; i++) { /* as its name is made */
		path[n++] = config[i] == '/' ? '-' : config[i];
		if (config[i] == '-')
			path[n++] = '-';
		snprintf(path + n, sizeof(path) - n, ".json");
	}
	text = strdup(text_at(f, path));
	id = strstr(text, "boot_id");
	assert_non_null(id);
	id[11] = 'x';
	id[12] = 'x';
	put(f, path, text);
	free(text);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(
	        text_at(f, PAGES), "1500\n"); /* what is there now is nobody's doing that we know */
	assert_null(text_at(f, "/etc/pronk/test.conf"));
}

static void damaged_record_is_said_and_left(void **state)
{
	struct fixture *f = begin(state);

	snprintf(config, sizeof(config), "/x");
	put(f, "/var/lib/pronk/setup-x.json", "{\"version\": 1, ");
	assert_null(state_open(state_dir, config, err, sizeof(err)));
	assert_non_null(strstr(err, "damaged"));
	put(f, "/var/lib/pronk/setup-x.json", "{\"version\": 2, \"steps\": []}");
	assert_null(state_open(state_dir, config, err, sizeof(err)));
	assert_non_null(strstr(err, "version"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        FIXTURE_TEST(hugepages_come_and_go_back),
	        FIXTURE_TEST(hugepages_that_somebody_else_has_changed_are_left_alone),
	        FIXTURE_TEST(too_few_hugepages_are_an_error_and_none_stay),
	        FIXTURE_TEST(device_goes_to_vfio_and_back),
	        FIXTURE_TEST(device_that_vfio_refuses_goes_back_at_once),
	        FIXTURE_TEST(end_in_the_middle_is_taken_back),
	        FIXTURE_TEST(file_is_made_and_goes_with_its_folders),
	        FIXTURE_TEST(file_of_somebody_else_is_not_replaced_unless_forced_and_comes_back),
	        FIXTURE_TEST(file_that_was_edited_since_is_left_alone_unless_forced),
	        FIXTURE_TEST(second_run_that_fails_goes_back_to_the_first),
	        FIXTURE_TEST(two_at_a_time_are_kept_apart),
	        FIXTURE_TEST(after_a_reboot_only_files_are_left_to_take_back),
	        FIXTURE_TEST(damaged_record_is_said_and_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
