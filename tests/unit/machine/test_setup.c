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
static int unbound;    /* how often a device lost its driver */
static char ran[2048]; /* programs that were run, a line each */

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
		unbound++;
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

static int run(void *arg, const char *const *argv)
{
	size_t n = strlen(ran);

	(void)arg;
	for (; *argv; argv++)
		n += (size_t)snprintf(ran + n, sizeof(ran) - n, "%s%s", *argv, argv[1] ? " " : "\n");
	assert_true(n < sizeof(ran));
	return 0;
}

static struct fixture *begin(void **state)
{
	struct fixture *f = *state;

	f->m.on_write = kernel;
	f->m.on_write_arg = f;
	f->m.on_run = run;
	unbound = 0;
	ran[0] = 0;
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
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
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
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
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
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
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

/* The record is of an earlier boot. */
static void reboot(struct fixture *f)
{
	char path[256], *text, *id;

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
}

static void after_a_reboot_only_files_are_left_to_take_back(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
	assert_int_equal(state_file(s, config, "new\n", false, err, sizeof(err)), 0);
	state_close(s);
	reboot(f);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(
	        text_at(f, PAGES), "1500\n"); /* what is there now is nobody's doing that we know */
	assert_null(text_at(f, "/etc/pronk/test.conf"));
}

/* All three steps, the file last: it is what fails when it was edited. */
static int all_steps(struct fixture *f, struct setup_state *s)
{
	int rc = state_pages(s, &f->m, PAGES, 1500, err, sizeof(err));

	if (!rc)
		rc = state_bind(s, &f->m, DEVICE, "vfio-pci", NULL, err, sizeof(err));
	return rc ? rc : state_file(s, config, "new\n", false, err, sizeof(err));
}

static void run_that_fails_after_a_reboot_takes_back_what_it_did(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(all_steps(f, s), 0);
	state_close(s);
	reboot(f);
	put(f, PAGES, "1024\n");
	put(f, DEVICE_DIR "/driver_override", "(null)\n");
	link_to(f, DEVICE_DIR "/driver", "../../drivers/ixgbe");
	put(f, "/etc/pronk/test.conf", "edited\n");
	s = opened();
	assert_int_equal(all_steps(f, s), -EEXIST);
	assert_string_equal(driver(f), "vfio-pci");
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
	state_close(s);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "edited\n");
	/* of the earlier boot the file alone is still known */
	put(f, PAGES, "1400\n");
	assert_int_equal(undone(f, true), 0);
	assert_null(text_at(f, "/etc/pronk/test.conf"));
	assert_string_equal(text_at(f, PAGES), "1400\n");
}

static void run_that_fails_goes_back_to_what_it_found_not_to_the_record(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	assert_int_equal(all_steps(f, s), 0);
	state_close(s);
	/* by hand, in the same boot */
	put(f, PAGES, "1100\n");
	put(f, DEVICE_DIR "/driver_override", "(null)\n");
	link_to(f, DEVICE_DIR "/driver", "../../drivers/ixgbe");
	put(f, "/etc/pronk/test.conf", "edited\n");
	s = opened();
	assert_int_equal(all_steps(f, s), -EEXIST);
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
	state_close(s);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(text_at(f, PAGES), "1100\n");
	/* and the first run can still be taken back */
	assert_int_equal(undone(f, true), 0);
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_null(text_at(f, "/etc/pronk/test.conf"));
}

static void edited_file_survives_a_forced_run_that_fails(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();
	char way[192];

	assert_int_equal(state_file(s, config, "new\n", false, err, sizeof(err)), 0);
	state_close(s);
	put(f, "/etc/pronk/test.conf", "edited\n");
	/* the file that is written beside it cannot be made */
	snprintf(way, sizeof(way), "%s.new", config);
	put(f, "/etc/pronk/test.conf.new/x", "");
	s = opened();
	assert_int_not_equal(state_file(s, config, "newer\n", true, err, sizeof(err)), 0);
	drop(f, "/etc/pronk/test.conf.new/x");
	assert_int_equal(rmdir(way), 0);
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "edited\n");
	/* written, and what comes after it fails */
	assert_int_equal(state_file(s, config, "newer\n", true, err, sizeof(err)), 0);
	most_pages = 1200;
	assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), -ENOMEM);
	assert_int_equal(state_roll_back(s, &f->m, stderr), 0);
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "edited\n");
	assert_string_equal(text_at(f, PAGES), "1024\n");
	state_close(s);
	/* it is still what setup did not write */
	assert_int_equal(undone(f, false), 1);
}

static struct plan *plan_of_all(void)
{
	static struct plan p;

	p = (struct plan){.device = DEVICE,
	        .out = config,
	        .driver = "vfio-pci",
	        .state_dir = state_dir,
	        .kind = CFG_DEVICE_PCI,
	        .pages = 1500,
	        .name = DEVICE,
	        .pages_path = PAGES,
	        .config = "new\n"};
	return &p;
}

static void refused_file_costs_the_device_nothing(void **state)
{
	struct fixture *f = begin(state);
	struct plan *p = plan_of_all();

	put(f, "/etc/pronk/test.conf", "mine\n");
	assert_int_equal(setup_apply(p, &f->m), -EEXIST);
	assert_int_equal(unbound, 0);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "mine\n");
	/* nor do hugepages that there are not */
	drop(f, "/etc/pronk/test.conf");
	most_pages = 1200;
	assert_int_equal(setup_apply(p, &f->m), -ENOMEM);
	assert_int_equal(unbound, 0);
	assert_null(text_at(f, "/etc/pronk/test.conf"));
	assert_string_equal(text_at(f, PAGES), "1024\n");
	most_pages = 4096;
	vfio_refuses = true;
	assert_int_not_equal(setup_apply(p, &f->m), 0);
	assert_null(text_at(f, "/etc/pronk/test.conf"));
	assert_string_equal(text_at(f, PAGES), "1024\n");
	assert_string_equal(driver(f), "ixgbe");
	vfio_refuses = false;
	assert_int_equal(setup_apply(p, &f->m), 0);
	assert_string_equal(driver(f), "vfio-pci");
	assert_string_equal(text_at(f, "/etc/pronk/test.conf"), "new\n");
}

static const struct iface eth1 = {.index = 7,
        .name = "eth1",
        .is_up = true,
        .mtu = 9000,
        .addr_count = 1,
        .addr[0] = {.ip = {192, 0, 2, 10}, .prefix = 24},
        .has_default = true,
        .has_gateway = true,
        .gateway = {192, 0, 2, 1},
        .gateway_metric = 200};

static void interface_comes_back_beside_other_default_routes(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	put(f, DEVICE_DIR "/net/eth1/mtu", "1500\n");
	assert_int_equal(state_bind(s, &f->m, DEVICE, "vfio-pci", &eth1, err, sizeof(err)), 0);
	state_close(s);
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(ran, "ip link set dev eth1 mtu 9000\n"
	                         "ip link set dev eth1 up\n"
	                         "ip addr replace 192.0.2.10/24 dev eth1\n"
	                         "ip route append default via 192.0.2.1 dev eth1 metric 200\n");
}

static void interface_that_somebody_else_brought_back_is_theirs(void **state)
{
	struct fixture *f = begin(state);
	struct setup_state *s = opened();

	put(f, DEVICE_DIR "/net/eth1/mtu", "1500\n");
	assert_int_equal(state_bind(s, &f->m, DEVICE, "vfio-pci", &eth1, err, sizeof(err)), 0);
	state_close(s);
	link_to(f, DEVICE_DIR "/driver", "../../drivers/ixgbe");
	assert_int_equal(undone(f, false), 0);
	assert_string_equal(driver(f), "ixgbe");
	assert_string_equal(text_at(f, DEVICE_DIR "/driver_override"), "(null)\n");
	assert_string_equal(ran, "");
}

/* The loopback interface stands for that of the device: the kernel knows it on every machine. */
static void device_that_others_lie_on_is_refused(void **state)
{
	struct fixture *f = begin(state);
	struct plan *p = plan_of_all();

	put(f, DEVICE_DIR "/class", "0x020000\n");
	put(f, DEVICE_DIR "/net/lo/mtu", "65536\n");
	put(f, "/sys/class/net/lo/mtu", "65536\n");
	p->address = "192.0.2.10/24";
	p->profile = "balanced";
	p->mtu = 1500;
	plan_make(p, &f->m, err, sizeof(err));
	assert_true(p->has_iface);
	assert_null(strstr(err, "lie on it"));
	link_to(f, "/sys/class/net/lo/upper_lo.5", "../lo.5");
	assert_int_equal(plan_make(p, &f->m, err, sizeof(err)), -EBUSY);
	assert_non_null(strstr(err, "other interfaces (VLANs, a bond or a bridge) lie on it: lo.5"));
	err[0] = 0;
	p->force = true;
	plan_make(p, &f->m, err, sizeof(err));
	assert_null(strstr(err, "lie on it"));
}

static void hugepages_of_two_configurations_go_back_in_either_order(void **state)
{
	struct fixture *f = begin(state);
	char first[sizeof(config)];

	for (int order = 0; order < 2; order++) {
		struct setup_state *s;

		snprintf(config, sizeof(config), "%s/etc/pronk/test.conf", f->root);
		strcpy(first, config);
		s = opened();
		assert_int_equal(state_pages(s, &f->m, PAGES, 1500, err, sizeof(err)), 0);
		state_close(s);
		snprintf(config, sizeof(config), "%s/etc/pronk/other.conf", f->root);
		s = opened();
		assert_int_equal(state_pages(s, &f->m, PAGES, 2000, err, sizeof(err)), 0);
		state_close(s);
		if (order) { /* the older one first: it waits for the other */
			char other[sizeof(config)];

			strcpy(other, config);
			strcpy(config, first);
			assert_int_equal(undone(f, false), 1);
			assert_string_equal(text_at(f, PAGES), "2000\n");
			strcpy(config, other);
		}
		assert_int_equal(undone(f, false), 0);
		assert_string_equal(text_at(f, PAGES), "1500\n");
		strcpy(config, first);
		assert_int_equal(undone(f, false), 0);
		assert_string_equal(text_at(f, PAGES), "1024\n");
	}
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
	        FIXTURE_TEST(run_that_fails_after_a_reboot_takes_back_what_it_did),
	        FIXTURE_TEST(run_that_fails_goes_back_to_what_it_found_not_to_the_record),
	        FIXTURE_TEST(edited_file_survives_a_forced_run_that_fails),
	        FIXTURE_TEST(refused_file_costs_the_device_nothing),
	        FIXTURE_TEST(interface_comes_back_beside_other_default_routes),
	        FIXTURE_TEST(interface_that_somebody_else_brought_back_is_theirs),
	        FIXTURE_TEST(device_that_others_lie_on_is_refused),
	        FIXTURE_TEST(hugepages_of_two_configurations_go_back_in_either_order),
	        FIXTURE_TEST(damaged_record_is_said_and_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
