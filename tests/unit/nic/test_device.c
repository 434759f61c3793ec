/* test_device.c - the device option: what each text means, and the arguments its driver gets; addresses
 * without a kernel interface.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "nic_int.h"
#include "iface.h"
#include "nic_kernel.h"

static char err[256];

static struct device parsed(const char *text)
{
	struct device device;

	assert_int_equal(device_parse(&device, text, err, sizeof(err)), 0);
	return device;
}

static void device_texts_name_their_kind(void **state)
{
	static const struct {
		const char *text;
		enum device_kind kind;
		const char *arg;
	} rows[] = {
	        {"auto", DEVICE_TAP, "pronk0"},
	        {"tap:net7", DEVICE_TAP, "net7"},
	        {"afpacket:eth0", DEVICE_AFPACKET, "eth0"},
	        {"afxdp:eth0", DEVICE_AFXDP, "eth0"},
	        {"memif:/run/x.sock", DEVICE_MEMIF, "/run/x.sock"},
	        {"0000:3b:00.0", DEVICE_PCI, "0000:3b:00.0"},
	        {"null:", DEVICE_NULL, ""},
	        {"ring:", DEVICE_RING, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct device device = parsed(rows[i].text);

		assert_int_equal(device.kind, rows[i].kind);
		assert_string_equal(device.arg, rows[i].arg);
		assert_int_equal(device_is_virtual(&device), rows[i].kind != DEVICE_PCI);
	}
}

static void device_texts_that_mean_nothing_are_refused(void **state)
{
	static const char *const texts[] = {
	        "",
	        "tap",
	        "tap:",
	        "eth0",
	        "wlan:x",
	        "memif:relative",
	        "afxdp:a/b",
	        "afpacket:name_longer_than_15",
	        "3b:00.0x",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
		struct device device;

		err[0] = '\0';
		assert_int_equal(device_parse(&device, texts[i], err, sizeof(err)), -EINVAL);
		assert_string_not_equal(err, "");
	}
}

static void driver_arguments_follow_from_the_options(void **state)
{
	struct cfg cfg;
	struct device device;
	char name[32], args[256];

	(void)state;
	cfg_defaults(&cfg);
	device = parsed("tap:net7");
	device_vdev(&device, &cfg, 2, name, sizeof(name), args, sizeof(args));
	assert_string_equal(name, "net_tap0");
	assert_string_equal(args, "iface=net7");
	device = parsed("afpacket:eth0");
	device_vdev(&device, &cfg, 2, name, sizeof(name), args, sizeof(args));
	assert_string_equal(args, "iface=eth0,qpairs=2,framecnt=1024");
	device = parsed("memif:/run/x.sock");
	cfg.memif_role = CFG_MEMIF_ROLE_SERVER;
	cfg.memif_id = 3;
	cfg.rx_queue_size = 1000;
	device_vdev(&device, &cfg, 1, name, sizeof(name), args, sizeof(args));
	assert_string_equal(
	        args, "role=server,id=3,socket=/run/x.sock,socket-abstract=no,rsize=8,bsize=61504");
	device = parsed("0000:3b:00.0");
	device_vdev(&device, &cfg, 1, name, sizeof(name), args, sizeof(args));
	assert_string_equal(name, "");
}

static void queues_are_limited_where_the_driver_is(void **state)
{
	struct device device = parsed("memif:/run/x.sock");

	(void)state;
	assert_int_equal(device_queues(&device, 4), 1);
	device = parsed("afpacket:eth0");
	assert_int_equal(device_queues(&device, 4), 4);
}

static void address_of_a_tap_is_the_test_network(void **state)
{
	struct cfg cfg;
	struct nic_address a;

	(void)state;
	cfg_defaults(&cfg);
	assert_int_equal(nic_kernel_address(&cfg, &a), 0);
	assert_memory_equal(a.ip, ((uint8_t[]){198, 18, 0, 2}), 4);
	assert_int_equal(a.prefix, 24);
	assert_false(a.has_gateway);
}

static void address_options_win(void **state)
{
	struct cfg cfg;
	struct nic_address a;

	(void)state;
	cfg_defaults(&cfg);
	strcpy(cfg.device, "afpacket:lo");
	strcpy(cfg.address, "10.1.2.3/16");
	strcpy(cfg.gateway, "10.1.0.1");
	assert_int_equal(nic_kernel_address(&cfg, &a), 0);
	assert_memory_equal(a.ip, ((uint8_t[]){10, 1, 2, 3}), 4);
	assert_int_equal(a.prefix, 16);
	assert_true(a.has_gateway);
	assert_memory_equal(a.gateway, ((uint8_t[]){10, 1, 0, 1}), 4);
	strcpy(cfg.gateway, "none");
	assert_int_equal(nic_kernel_address(&cfg, &a), 0);
	assert_false(a.has_gateway);
}

static void address_auto_without_interface_fails(void **state)
{
	struct cfg cfg;
	struct nic_address a;

	(void)state;
	cfg_defaults(&cfg);
	strcpy(cfg.device, "memif:/run/x.sock");
	assert_int_equal(nic_kernel_address(&cfg, &a), -EINVAL);
	strcpy(cfg.device, "afxdp:nosuchif");
	assert_int_equal(nic_kernel_address(&cfg, &a), -ENODEV);
}

static struct iface_addr addr_of(uint8_t last, uint8_t prefix)
{
	return (struct iface_addr){.ip = {192, 0, 2, last}, .prefix = prefix};
}

static void address_in_use_stays_while_the_interface_has_it(void **state)
{
	struct nic_address a = {0};
	struct iface i = {.addr_count = 2};
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	strcpy(cfg.device, "afxdp:eth0");
	i.addr[0] = addr_of(10, 24);
	i.addr[1] = addr_of(20, 24);
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_int_equal(a.ip[3], 10);
	/* another one is put in front of it */
	i.addr[0] = addr_of(20, 24);
	i.addr[1] = addr_of(10, 25);
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_int_equal(a.ip[3], 10);
	assert_int_equal(a.prefix, 25);
	i.addr_count = 1;
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_int_equal(a.ip[3], 20);
	i.addr_count = 0;
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), -EADDRNOTAVAIL);
	assert_int_equal(a.ip[3], 20);
}

static void gateway_of_the_interface_is_taken_inside_the_network_or_for_a_single_address(void **state)
{
	struct nic_address a = {0};
	struct iface i = {.addr_count = 1, .has_gateway = true, .gateway = {192, 0, 2, 1}};
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	strcpy(cfg.device, "afxdp:eth0");
	i.addr[0] = addr_of(10, 24);
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_true(a.has_gateway);
	assert_memory_equal(a.gateway, i.gateway, 4);
	i.addr[0].prefix = 29; /* .8 to .15 */
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_false(a.has_gateway);
	i.addr[0].prefix = 32;
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_true(a.has_gateway);
	strcpy(cfg.gateway, "none");
	assert_int_equal(nic_kernel_choose(&cfg, &i, &a), 0);
	assert_false(a.has_gateway);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(device_texts_name_their_kind),
	        cmocka_unit_test(device_texts_that_mean_nothing_are_refused),
	        cmocka_unit_test(driver_arguments_follow_from_the_options),
	        cmocka_unit_test(queues_are_limited_where_the_driver_is),
	        cmocka_unit_test(address_of_a_tap_is_the_test_network),
	        cmocka_unit_test(address_options_win),
	        cmocka_unit_test(address_auto_without_interface_fails),
	        cmocka_unit_test(address_in_use_stays_while_the_interface_has_it),
	        cmocka_unit_test(
	                gateway_of_the_interface_is_taken_inside_the_network_or_for_a_single_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
