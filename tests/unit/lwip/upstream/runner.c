/* runner.c - runs lwIP's own unit tests on the transformed sources and on our mem.c and memp.c, in a second
 * thread so that thread-local state is that thread's and not the initial one's. Part of the test
 * lwip_upstream.
 */
#include "lwip_check.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/stats.h"
#include "lwip/sys.h"
#include "lwip_mem.h"
#include <pthread.h>
#include <stdio.h>

suite_getter_fn ip4_suite, ip6_suite, udp_suite, tcp_suite, tcp_oos_suite, def_suite, mem_suite, netif_suite,
        pbuf_suite, timers_suite, etharp_suite, dhcp_suite;
void tcpip_thread_poll_one(void);

unsigned int lwip_sys_now;
static size_t slab_bytes;

u32_t sys_now(void)
{
	return lwip_sys_now;
}

u32_t sys_jiffies(void)
{
	return lwip_sys_now;
}

void sys_init(void)
{
}

void tcpip_thread_poll_one(void)
{
	netif_poll_all();
}

void stack_lwip_assert(const char *message, int line, const char *file)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, message);
	abort();
}

uint32_t stack_rand(void)
{
	return (uint32_t)rand();
}

void *stack_slab_alloc(size_t bytes)
{
	slab_bytes += bytes;
	return aligned_alloc(64, (bytes + 63) & ~(size_t)63);
}

void stack_slab_free(void *slab, size_t bytes)
{
	slab_bytes -= bytes;
	free(slab);
}

Suite *create_suite(const char *name, testfunc *tests, size_t count, SFun setup, SFun teardown)
{
	Suite *suite = suite_create(name);
	for (size_t i = 0; i < count; i++) {
		TCase *tcase = tcase_create(name);
		if (setup || teardown)
			tcase_add_checked_fixture(tcase, setup, teardown);
		tcase_add_named_test(tcase, tests[i]);
		suite_add_tcase(suite, tcase);
	}
	return suite;
}

/* skip has one bit per pool, and one more for the heap. */
void lwip_check_ensure_no_alloc(unsigned int skip)
{
	ck_assert(skip & SKIP_HEAP || lwip_stats.mem.used == 0);
	for (unsigned i = 0; i < MEMP_MAX; i++)
		ck_assert(skip & SKIP_POOL(i) || lwip_stats.memp[i]->used == 0);
}

static void *run(void *failed)
{
	suite_getter_fn *suites[] = {ip4_suite, ip6_suite, udp_suite, tcp_suite, tcp_oos_suite, def_suite,
	        mem_suite, netif_suite, pbuf_suite, timers_suite, etharp_suite, dhcp_suite};
	lwip_init();
	SRunner *runner = srunner_create(NULL);
	for (size_t i = 0; i < sizeof suites / sizeof *suites; i++)
		srunner_add_suite(runner, suites[i]());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_NORMAL);
	*(int *)failed = srunner_ntests_failed(runner);
	if (srunner_ntests_run(runner) < 70)
		*(int *)failed = 1;
	srunner_free(runner);
	lwip_mem_fini();
	return NULL;
}

int main(void)
{
	pthread_t thread;
	int failed = 1;
	if (pthread_create(&thread, NULL, run, &failed) || pthread_join(thread, NULL))
		return 1;
	if (slab_bytes)
		fprintf(stderr, "%zu bytes of slabs were not given back\n", slab_bytes);
	return failed || slab_bytes;
}
