/* test_check.c - `pronk check` on machines made of folders: what is found, and how it is told.
 */
#include "fixture.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "arena.h"

static void look(struct fixture *f)
{
	report_free(&f->r);
	check_kernel(&f->m, &f->cfg, &f->r);
	check_rights(&f->m, &f->cfg, &f->r);
	check_memory(&f->m, &f->cfg, &f->r);
	check_cores(&f->m, &f->cfg, &f->r);
	check_device(&f->m, &f->cfg, &f->r);
}

static const struct finding *found(const struct fixture *f, const char *id)
{
	for (const struct finding *at = f->r.first; at; at = at->next)
		if (!strcmp(at->id, id))
			return at;
	print_error("nothing is said of %s\n", id);
	abort();
}

static void expect_level(const struct fixture *f, const char *id, enum level level)
{
	const struct finding *at = found(f, id);

	if (at->level != level)
		fail_msg("%s: level %d, not %d: %s", id, at->level, level, at->found);
	if (level == LEVEL_WARNING || level == LEVEL_MISSING)
		assert_true(at->means[0]);
}

static void expect_fix(const struct fixture *f, const char *id, const char *part)
{
	if (!strstr(found(f, id)->fix, part))
		fail_msg("%s: \"%s\" does not name %s", id, found(f, id)->fix, part);
}

static void an_ordinary_machine_lacks_nothing(void **state)
{
	struct fixture *f = *state;

	look(f);
	for (const struct finding *at = f->r.first; at; at = at->next)
		if (at->level == LEVEL_MISSING || at->level == LEVEL_WARNING)
			fail_msg("%s: %s", at->id, at->found);
	assert_int_equal(f->r.count[LEVEL_MISSING], 0);
}

static void an_old_kernel_is_missing_what_is_needed(void **state)
{
	struct fixture *f = *state;

	strcpy(f->m.release, "5.10.0-30-amd64");
	look(f);
	expect_level(f, "kernel.version", LEVEL_MISSING);
	strcpy(f->m.release, "5.11.0");
	look(f);
	expect_level(f, "kernel.version", LEVEL_OK);
	strcpy(f->m.release, "7.0.1");
	look(f);
	expect_level(f, "kernel.version", LEVEL_OK);
}

static void kernel_configuration_is_read_packed_or_plain(void **state)
{
	struct fixture *f = *state;
	char path[128];
	gzFile gz;

	assert_int_equal(machine_config(&f->m, "CONFIG_TUN"), 'm');
	assert_int_equal(machine_config(&f->m, "CONFIG_PACKET"), 'y');
	assert_int_equal(machine_config(&f->m, "CONFIG_VFIO_PCI"), 'n');
	assert_int_equal(machine_config(&f->m, "CONFIG_TU"), 'n');
	snprintf(path, sizeof(path), "%s/proc/config.gz", f->root);
	gz = gzopen(path, "w");
	gzputs(gz, "CONFIG_TUN=y\n");
	gzclose(gz);
	assert_int_equal(machine_config(&f->m, "CONFIG_TUN"), 'y');
	assert_int_equal(machine_config(&f->m, "CONFIG_PACKET"), 'n');
	look(f);
	expect_level(f, "kernel.config", LEVEL_NOTE); /* no CONFIG_HUGETLBFS: works without */
	unlink(path);
	drop(f, "/boot/config-6.1.0-test");
	assert_int_equal(machine_config(&f->m, "CONFIG_TUN"), 0);
	look(f);
	expect_level(f, "kernel.config", LEVEL_NOTE);
}

static void core_lists_are_read(void **state)
{
	struct fixture *f = *state;
	struct core_set set;

	put(f, "/list", "0-2,64,67-68\n");
	assert_true(machine_cores(&f->m, &set, "/list"));
	assert_true(core_in(&set, 0) && core_in(&set, 2) && core_in(&set, 64) && core_in(&set, 68));
	assert_false(core_in(&set, 3) || core_in(&set, 65) || core_in(&set, 66));
	put(f, "/list", "\n");
	assert_false(machine_cores(&f->m, &set, "/list"));
	put(f, "/list", "what\n");
	assert_false(machine_cores(&f->m, &set, "/list"));
	assert_false(machine_cores(&f->m, &set, "/nothing"));
}

static void too_few_hugepages_are_a_note_or_missing_as_the_option_says(void **state)
{
	struct fixture *f = *state;
	char want[128];

	put(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "10\n");
	look(f);
	expect_level(f, "hugepages.reserved", LEVEL_NOTE);
	/* as the service's log says */
	snprintf(want, sizeof(want),
	        "echo %u | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
	        1024 - 10 + arena_pages(&f->cfg, 0));
	expect_fix(f, "hugepages.reserved", want);
	snprintf(want, sizeof(want), "10 free; the service wants about %u", arena_pages(&f->cfg, 0));
	assert_non_null(strstr(found(f, "hugepages.reserved")->found, want));
	f->cfg.hugepages = CFG_HUGEPAGES_ON;
	look(f);
	expect_level(f, "hugepages.reserved", LEVEL_MISSING);
	f->cfg.hugepages = CFG_HUGEPAGES_OFF;
	look(f);
	expect_level(f, "hugepages.reserved", LEVEL_OK);
	/* promised to others */
	f->cfg.hugepages = CFG_HUGEPAGES_ON;
	put(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1024\n");
	put(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "1020\n");
	look(f);
	expect_level(f, "hugepages.reserved", LEVEL_MISSING);
	/* a running service has them already */
	f->m.service = 0;
	look(f);
	expect_level(f, "hugepages.reserved", LEVEL_OK);
	f->m.service = -ENOENT;
	drop(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
	look(f);
	expect_level(f, "hugepages.reserved", LEVEL_MISSING);
}

/* Two nodes; eth1 is on node 1, as are cores 2 and 3. */
static void two_nodes(struct fixture *f)
{
	put(f, "/sys/devices/system/node/online", "0-1\n");
	put(f, "/sys/devices/system/node/node1/cpulist", "2-3\n");
	put(f, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "1024\n");
	put(f, "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0\n");
	put(f, "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "7\n");
	put(f, "/sys/class/net/eth1/device/numa_node", "1\n");
	strcpy(f->cfg.device, "afxdp:eth1");
	f->m.allowed_count = 4;
	for (uint16_t i = 0; i < 4; i++)
		f->m.allowed[i] = i;
	f->m.iface_rc = 0;
	f->m.iface = (struct iface){.index = 7,
	        .name = "eth1",
	        .is_up = true,
	        .has_carrier = true,
	        .has_mac = true,
	        .mtu = 1500,
	        .addr_count = 1,
	        .addr[0] = {.ip = {192, 0, 2, 10}, .prefix = 24}};
	f->m.xdp_features = IFACE_XDP_BASIC | IFACE_XDP_REDIRECT | IFACE_XDP_ZERO_COPY;
	put(f, "/sys/class/net/eth1/queues/rx-0/x", "");
	put(f, "/sys/class/net/eth1/queues/rx-1/x", "");
	put(f, "/sys/class/net/eth1/queues/tx-0/x", "");
}

static void stack_cores_are_compared_with_the_node_of_the_device(void **state)
{
	struct fixture *f = *state;
	char want[128];

	two_nodes(f);
	look(f); /* auto: core 3 */
	expect_level(f, "cores.numa", LEVEL_OK);
	strcpy(f->cfg.cores, "0");
	look(f);
	expect_level(f, "cores.numa", LEVEL_WARNING);
	expect_fix(f, "cores.numa", "2-3");
	/* what this node has, and all that is wanted */
	snprintf(want, sizeof(want), "echo %u | sudo tee /sys/devices/system/node/node1/",
	        7 + arena_pages(&f->cfg, 1500));
	expect_fix(f, "hugepages.reserved", want);
	assert_int_equal(f->r.count[LEVEL_MISSING], 0);
}

static void isolated_cores_and_governor_are_told(void **state)
{
	struct fixture *f = *state;

	look(f);
	expect_level(f, "cores.isolated", LEVEL_NOTE);
	expect_fix(f, "cores.isolated", "isolcpus=1");
	expect_level(f, "cores.governor", LEVEL_OK);
	put(f, "/sys/devices/system/cpu/isolated", "1\n");
	put(f, "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
	look(f);
	expect_level(f, "cores.isolated", LEVEL_OK);
	expect_level(f, "cores.governor", LEVEL_NOTE);
	put(f, "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n");
	look(f);
	expect_level(f, "cores.governor", LEVEL_OK);
	/* nobody can isolate a core from within */
	put(f, "/sys/devices/system/cpu/isolated", "\n");
	put(f, "/proc/cpuinfo", "flags\t\t: fpu hypervisor sse2\n");
	look(f);
	expect_level(f, "cores.isolated", LEVEL_NOTE);
	assert_string_equal(found(f, "cores.isolated")->fix, "");
}

static void one_core_for_all_is_a_warning(void **state)
{
	struct fixture *f = *state;

	f->m.allowed_count = 1;
	look(f);
	expect_level(f, "cores.count", LEVEL_WARNING);
	f->cfg.mode = CFG_MODE_INLINE;
	look(f);
	expect_level(f, "cores.count", LEVEL_OK);
}

static void mitigations_are_named_and_harmless(void **state)
{
	struct fixture *f = *state;

	put(f, "/sys/devices/system/cpu/vulnerabilities/retbleed", "Mitigation: untrained return thunk\n");
	look(f);
	expect_level(f, "cpu.mitigations", LEVEL_NOTE);
	assert_non_null(strstr(found(f, "cpu.mitigations")->found, "retbleed"));
	assert_null(strstr(found(f, "cpu.mitigations")->found, "meltdown"));
}

static void who_is_not_root_needs_a_service_or_rights(void **state)
{
	struct fixture *f = *state;

	f->m.is_root = false;
	look(f);
	expect_level(f, "rights.user", LEVEL_MISSING);
	expect_fix(f, "rights.user", "sudo");
	f->m.service = 0;
	look(f);
	expect_level(f, "rights.user", LEVEL_OK);
	assert_int_equal(f->r.count[LEVEL_MISSING], 0);
	f->m.service = -EACCES;
	look(f);
	expect_level(f, "service", LEVEL_MISSING);
}

static void a_tap_needs_its_device_file(void **state)
{
	struct fixture *f = *state;

	drop(f, "/dev/net/tun");
	look(f);
	expect_level(f, "tun.device", LEVEL_MISSING);
	expect_fix(f, "tun.device", "modprobe tun");
	put(f, "/.dockerenv", "");
	look(f);
	expect_fix(f, "tun.device", "--device /dev/net/tun");
	/* and a library with a driver for it */
	drop(f, "/drivers/librte_net_tap.so.23");
	look(f);
	expect_level(f, "dpdk.driver", LEVEL_MISSING);
}

static void afxdp_wants_xdp_and_an_interface_of_its_own(void **state)
{
	struct fixture *f = *state;

	two_nodes(f);
	look(f);
	expect_level(f, "xdp.kernel", LEVEL_OK);
	expect_level(f, "xdp.driver", LEVEL_OK);
	expect_level(f, "device.route", LEVEL_OK);
	expect_level(f, "device.queues", LEVEL_OK);
	f->cfg.stacks = 4;
	f->m.xdp_features = 0;
	f->m.iface.has_default = f->m.iface.has_xdp = true;
	f->m.iface.mtu = 9000;
	look(f);
	expect_level(f, "device.queues", LEVEL_NOTE);
	expect_level(f, "xdp.driver", LEVEL_WARNING);
	expect_level(f, "xdp.attached", LEVEL_WARNING);
	expect_level(f, "device.route", LEVEL_WARNING);
	expect_level(f, "device.mtu", LEVEL_WARNING);
	assert_int_equal(f->r.count[LEVEL_MISSING], 0);
	f->m.ssh_index = 7;
	look(f);
	assert_non_null(strstr(found(f, "device.route")->found, "ssh"));
	f->m.ssh_index = -ENODEV;
	f->m.iface.has_default = false;
	link_to(f, "/sys/class/net/eth1/upper_eth1.5", "../eth1.5");
	look(f);
	expect_level(f, "device.route", LEVEL_WARNING);
	assert_non_null(strstr(found(f, "device.route")->found, "eth1.5"));
	f->m.xdp_socket = -EAFNOSUPPORT;
	look(f);
	expect_level(f, "xdp.kernel", LEVEL_MISSING);
	f->m.xdp_socket = -EPERM; /* nobody knows without root */
	look(f);
	expect_level(f, "xdp.kernel", LEVEL_NOTE);
	f->m.iface.addr_count = 0;
	look(f);
	expect_level(f, "address.own", LEVEL_MISSING);
	f->m.iface_rc = -ENODEV;
	look(f);
	expect_level(f, "device.present", LEVEL_MISSING);
}

/* A file as /proc/PID/environ, whose lines end with a zero byte. */
static void put_environ(struct fixture *f, int pid, const char *const *variables)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	put(f, path, "");
	snprintf(path, sizeof(path), "%s/proc/%d/environ", f->root, pid);
	file = fopen(path, "w");
	assert_non_null(file);
	for (; *variables; variables++)
		fwrite(*variables, 1, strlen(*variables) + 1, file);
	fclose(file);
}

static void ssh_session_is_found_behind_sudo(void **state)
{
	struct fixture *f = *state;
	char peer[64] = "", few[8];

	/* sshd 90, shell 100, sudo 200, pronk 300 */
	put(f, "/proc/300/stat", "300 (pronk) S 200 300 100 0 -1\n");
	put(f, "/proc/200/stat", "200 (a ) R 1 (sudo) S 100 200 100 0 -1\n");
	put(f, "/proc/100/stat", "100 (bash) S 90 100 100 0 -1\n");
	put(f, "/proc/90/stat", "90 (sshd) S 1 90 90 0 -1\n");
	put_environ(f, 300, (const char *const[]){"PATH=/bin", "SUDO_USER=me", NULL});
	put_environ(f, 90, (const char *const[]){"LANG=C", NULL});
	put_environ(f, 1, (const char *const[]){"SSH_CLIENT=192.0.2.66 1 22", NULL});
	assert_int_equal(machine_ssh_peer(&f->m, 300, peer, sizeof(peer)), -ENOENT);
	put_environ(f, 100,
	        (const char *const[]){
	                "MY_SSH_CONNECTION=x", "SSH_CONNECTION=192.0.2.7 40000 192.0.2.1 22", NULL});
	assert_int_equal(machine_ssh_peer(&f->m, 300, peer, sizeof(peer)), 0);
	assert_string_equal(peer, "192.0.2.7");
	/* the nearest counts */
	put_environ(f, 200, (const char *const[]){"SSH_CLIENT=2001:db8::5 40000 22", NULL});
	assert_int_equal(machine_ssh_peer(&f->m, 300, peer, sizeof(peer)), 0);
	assert_string_equal(peer, "2001:db8::5");
	/* what does not fit is none, and two that are each other's parents end, too */
	put_environ(f, 100, (const char *const[]){"A=b", NULL});
	assert_int_equal(machine_ssh_peer(&f->m, 300, few, sizeof(few)), -ENOENT);
	put(f, "/proc/100/stat", "100 (bash) S 300 100 100 0 -1\n");
	put_environ(f, 200, (const char *const[]){"A=b", NULL});
	assert_int_equal(machine_ssh_peer(&f->m, 300, peer, sizeof(peer)), -ENOENT);
}

static void addresses_that_others_have_are_told(void **state)
{
	struct fixture *f = *state;

	two_nodes(f);
	f->m.known_count = 1;
	f->m.known[0] = (struct known_addr){.index = 7, .name = "eth1", .addr = f->m.iface.addr[0]};
	look(f);
	expect_level(f, "address.conflict", LEVEL_OK); /* its own: that is what it takes */
	strcpy(f->cfg.device, "afpacket:eth1");
	strcpy(f->cfg.address, "192.0.2.10/24");
	look(f);
	expect_level(f, "address.conflict", LEVEL_WARNING);
	strcpy(f->cfg.address, "192.0.2.11/24");
	look(f);
	expect_level(f, "address.conflict", LEVEL_OK);
	f->m.known[0].index = 8;
	look(f);
	expect_level(f, "address.conflict", LEVEL_WARNING); /* the network is another interface's */
}

static void a_pci_device_needs_vfio_and_a_group_of_its_own(void **state)
{
	static const char dev[] = "/sys/bus/pci/devices/0000:3b:00.0";
	struct fixture *f = *state;
	char path[128];

	strcpy(f->cfg.device, "0000:3b:00.0");
	strcpy(f->cfg.address, "192.0.2.10/24");
	look(f);
	expect_level(f, "device.present", LEVEL_MISSING);
	snprintf(path, sizeof(path), "%s/class", dev);
	put(f, path, "0x020000\n");
	snprintf(path, sizeof(path), "%s/driver", dev);
	link_to(f, path, "../../../bus/pci/drivers/ixgbe");
	look(f);
	expect_level(f, "device.present", LEVEL_OK);
	expect_level(f, "pci.driver", LEVEL_MISSING);
	expect_fix(f, "pci.driver", "pronk setup --device 0000:3b:00.0 --bind vfio-pci");
	expect_level(f, "pci.vfio", LEVEL_MISSING);
	expect_level(f, "pci.iommu", LEVEL_MISSING);
	expect_level(f, "kernel.config", LEVEL_MISSING);
	link_to(f, path, "../../../bus/pci/drivers/vfio-pci");
	put(f, "/sys/bus/pci/drivers/vfio-pci/bind", "");
	snprintf(path, sizeof(path), "%s/iommu_group", dev);
	link_to(f, path, "../../../kernel/iommu_groups/17");
	put(f, "/sys/kernel/iommu_groups/17/devices/0000:3b:00.0", "");
	put(f, "/boot/config-6.1.0-test", "CONFIG_VFIO_PCI=m\nCONFIG_HUGETLBFS=y\n");
	look(f);
	assert_int_equal(f->r.count[LEVEL_MISSING], 0);
	put(f, "/sys/kernel/iommu_groups/17/devices/0000:3b:00.1", "");
	link_to(f, "/sys/bus/pci/devices/0000:3b:00.1/driver", "../../../bus/pci/drivers/ixgbe");
	look(f);
	expect_level(f, "pci.iommu", LEVEL_MISSING);
}

/* The shape that scripts rely on. */
static void json_has_the_same_keys_and_items_every_time(void **state)
{
	static const char *const ids[] = {"kernel.version", "kernel.config", "cpu.mitigations", "service",
	        "rights.user", "rights.runtime_dir", "limits.files", "limits.memlock", "hugepages.reserved",
	        "hugepages.mount", "hugepages.transparent", "cores.count", "cores.isolated", "cores.governor",
	        "cores.numa", "dpdk.version", "dpdk.driver", "tun.device", "device.present", "address.own",
	        "address.conflict"};
	static const char *const keys[] = {"version", "config", "device", "root", "usable", "ok", "notes",
	        "warnings", "missing", "items"};
	static const char *const item_keys[] = {"id", "state", "found", "means", "fix"};
	struct fixture *f = *state;
	char *text = NULL;
	const char *key;
	json_t *all, *items, *value;
	size_t size = 0, n = 0;
	FILE *file = open_memstream(&text, &size);

	look(f);
	assert_int_equal(report_json(&f->r, &f->m, &f->cfg, file), 0);
	fclose(file);
	all = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(all);
	json_object_foreach(all, key, value)
	{
		assert_true(n < sizeof(keys) / sizeof(keys[0]));
		assert_string_equal(key, keys[n++]);
	}
	assert_int_equal(n, sizeof(keys) / sizeof(keys[0]));
	items = json_object_get(all, "items");
	assert_int_equal(json_array_size(items), sizeof(ids) / sizeof(ids[0]));
	for (size_t i = 0; i < json_array_size(items); i++) {
		json_t *item = json_array_get(items, i);

		assert_string_equal(json_string_value(json_object_get(item, "id")), ids[i]);
		assert_int_equal(json_object_size(item), sizeof(item_keys) / sizeof(item_keys[0]));
		for (size_t k = 0; k < sizeof(item_keys) / sizeof(item_keys[0]); k++)
			assert_true(json_is_string(json_object_get(item, item_keys[k])));
	}
	assert_true(json_is_true(json_object_get(all, "usable")));
	json_decref(all);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        FIXTURE_TEST(an_ordinary_machine_lacks_nothing),
	        FIXTURE_TEST(an_old_kernel_is_missing_what_is_needed),
	        FIXTURE_TEST(kernel_configuration_is_read_packed_or_plain),
	        FIXTURE_TEST(core_lists_are_read),
	        FIXTURE_TEST(too_few_hugepages_are_a_note_or_missing_as_the_option_says),
	        FIXTURE_TEST(stack_cores_are_compared_with_the_node_of_the_device),
	        FIXTURE_TEST(isolated_cores_and_governor_are_told),
	        FIXTURE_TEST(one_core_for_all_is_a_warning),
	        FIXTURE_TEST(mitigations_are_named_and_harmless),
	        FIXTURE_TEST(who_is_not_root_needs_a_service_or_rights),
	        FIXTURE_TEST(a_tap_needs_its_device_file),
	        FIXTURE_TEST(afxdp_wants_xdp_and_an_interface_of_its_own),
	        FIXTURE_TEST(ssh_session_is_found_behind_sudo),
	        FIXTURE_TEST(addresses_that_others_have_are_told),
	        FIXTURE_TEST(a_pci_device_needs_vfio_and_a_group_of_its_own),
	        FIXTURE_TEST(json_has_the_same_keys_and_items_every_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
