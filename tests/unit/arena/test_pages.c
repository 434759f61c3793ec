/* test_pages.c - how many hugepages are said to be wanted, and what is read of a machine made of files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "arena.h"
#include "cfg.h"
#include "pages.h"

static char root[] = "/tmp/pronk-pages-XXXXXX";

static void put(const char *folder, const char *name, const char *text)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/sys/%s/hugepages/hugepages-2048kB/%s", root, folder, name);
	for (char *c = path + strlen(root) + 1; (c = strchr(c, '/')); c++) {
		*c = '\0';
		mkdir(path, 0755);
		*c = '/';
	}
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int root_down(void **state)
{
	(void)state;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void packet_memory_follows_device_count_and_mtu(void **state)
{
	const uint64_t plain = 3 * PAGES_LINE + PAGES_BUFFER_HEAD + PAGES_HEADROOM + PAGES_DATA_ROOM;
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	assert_int_equal(pages_packet_bytes(&cfg, 0), 32768 * plain + PAGES_LIBRARY);
	assert_int_equal(pages_packet_bytes(&cfg, 2022), 32768 * plain + PAGES_LIBRARY);
	assert_int_equal(pages_packet_bytes(&cfg, 2023), 32768 * (plain + 64) + PAGES_LIBRARY);
	cfg.mtu = 9000; /* the interface's does not count then */
	assert_int_equal(
	        pages_packet_bytes(&cfg, 1500), 32768 * (plain - PAGES_DATA_ROOM + 9088) + PAGES_LIBRARY);
	cfg.mtu = 0;
	cfg.packet_buffers = 1024;
	strcpy(cfg.device, "memif:/run/x.sock"); /* its rings with their long frames are no packet buffers */
	assert_int_equal(pages_packet_bytes(&cfg, 0), 1024 * plain + PAGES_LIBRARY);
	strcpy(cfg.device, "afxdp:eth0");
	assert_int_equal(pages_packet_bytes(&cfg, 1500), 1024 * (4096 + 3 * PAGES_LINE) + PAGES_LIBRARY);
	strcpy(cfg.device, "0000:3b:00.0");
	assert_int_equal(pages_packet_bytes(&cfg, 0), 1024 * plain / 64 * 65 + PAGES_LIBRARY);
}

static void all_pages_are_those_for_packets_and_those_for_sockets(void **state)
{
	struct arena_spec spec = {.name = "x"};
	uint64_t arena, packets;
	struct cfg cfg;

	(void)state;
	cfg_defaults(&cfg);
	cfg.stacks = 4;
	arena_spec_of(&spec, &cfg);
	arena = arena_size(&spec);
	packets = pages_packet_bytes(&cfg, 1500);
	assert_int_equal(spec.stack_count, 4);
	assert_true(arena > (uint64_t)cfg.send_memory_mb << 20);
	assert_int_equal(arena_pages(&cfg, 1500),
	        (arena + PAGE_HUGE - 1) / PAGE_HUGE + (packets + PAGE_HUGE - 1) / PAGE_HUGE);
	/* the arena is made of whole pages, and so is what it is said to be */
	assert_int_equal(arena % PAGE_HUGE, 0);
	cfg.mode = CFG_MODE_INLINE;
	arena_spec_of(&spec, &cfg);
	assert_int_equal(spec.stack_count, 1);
}

static void what_the_kernel_has_is_read(void **state)
{
	static const char all[] = "kernel/mm", one[] = "devices/system/node/node1";
	struct pages p;

	(void)state;
	pages_read(&p, root, -1);
	assert_false(p.has_any);
	assert_int_equal(p.total, 0);
	assert_int_equal(pages_want(&p, 10), 10);
	put(all, "nr_hugepages", "100\n");
	put(all, "free_hugepages", "40\n");
	put(all, "resv_hugepages", "30\n");
	pages_read(&p, root, -1);
	assert_true(p.has_any);
	assert_int_equal(p.total, 100);
	assert_int_equal(p.left, 10);
	assert_int_equal(pages_want(&p, 10), 100);
	assert_int_equal(pages_want(&p, 11), 101);
	assert_int_equal(pages_want(&p, 162), 252);
	put(all, "resv_hugepages", "50\n"); /* more is promised than there is, while some come and go */
	pages_read(&p, root, -1);
	assert_int_equal(p.left, 0);
	put(all, "resv_hugepages", "0\n");
	pages_read(&p, root, 1); /* a node that nothing is known of */
	assert_int_equal(p.total, 100);
	put(one, "nr_hugepages", "20\n");
	put(one, "free_hugepages", "5\n");
	pages_read(&p, root, 1);
	assert_int_equal(p.total, 20);
	assert_int_equal(p.left, 5);
	put(all, "nr_hugepages", "many\n");
	pages_read(&p, root, -1);
	assert_false(p.has_any);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(packet_memory_follows_device_count_and_mtu),
	        cmocka_unit_test(all_pages_are_those_for_packets_and_those_for_sockets),
	        cmocka_unit_test(what_the_kernel_has_is_read),
	};

	if (!mkdtemp(root))
		return 1;
	return cmocka_run_group_tests_name("pages", tests, NULL, root_down);
}
