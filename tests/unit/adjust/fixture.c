/* fixture.c FOLDER - an engine over the fake port for test_adjust.py: it runs what pronkctl asks it to, and
 * its times and counters are made up.
 *
 * Says "ready" when the socket FOLDER/fixture.sock is there; ends with its standard input. One thread: it
 * serves the control socket and plays the one stack.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "engine_int.h"
#include "latency.h"
#include "log.h"
#include "nic_fake.h"
#include "nic_kernel.h"

enum { TURN_MS = 2 };

static struct engine *e;

/* Of every stage a hundred values, a hundred microseconds apart in the middle, and a long one; of the
 * wake-ups none. */
static void times_fill(void)
{
	for (uint64_t k = 0; k < LATENCY_STAGES; k++) {
		struct hist *h = &e->arena.latency[0].stage[k];

		if (k == LATENCY_RX_WAKE)
			continue;
		for (uint64_t i = 0; i < 100; i++)
			hist_add(h, (k + 1) * 10000 + i * 1000);
		hist_add(h, 1000000 * (k + 1));
	}
	atomic_store(&e->arena.hdr->latency_since_ns, 1700000000 * CLOCK_NS_PER_S);
}

static void counters_fill(void)
{
	struct nic_queue_stats *s = (void *)(uintptr_t)nic_stats(nic_queue_get(e->nic, 0));

	s->inject_rx = (struct nic_inject_stats){1, 2, 3, 4, 5, 6};
	s->inject_tx = (struct nic_inject_stats){11, 12, 13, 14, 15, 16};
}

int main(int argc, char **argv)
{
	char err[512] = "";
	struct cfg cfg;

	if (argc != 2)
		return 2;
	cfg_defaults(&cfg);
	snprintf(cfg.runtime_dir, sizeof(cfg.runtime_dir), "%s", argv[1]);
	strcpy(cfg.name, "fixture");
	strcpy(cfg.device, "tap:pk0");
	strcpy(cfg.address, "198.18.0.2/24");
	cfg.mode = CFG_MODE_INLINE;
	cfg.hugepages = CFG_HUGEPAGES_OFF;
	cfg.send_memory_mb = 4;
	cfg.max_sockets = 64;
	cfg.max_clients = 8;
	log_level_set(LOG_LEVEL_ERROR);
	if (engine_start_inline(&e, &cfg, err, sizeof(err))) {
		fprintf(stderr, "fixture: %s\n", err);
		return 1;
	}
	times_fill();
	counters_fill();
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct pollfd fds[] = {
		        {.fd = STDIN_FILENO, .events = POLLIN}, {.fd = engine_fd(e), .events = POLLIN}};

		/* counters are told before a sleep only */
		stack_turn(e->stacks[0], clock_now_ns());
		if (stack_sleep_begin(e->stacks[0]))
			stack_sleep_end(e->stacks[0]);
		poll(fds, 2, TURN_MS);
		if (fds[0].revents)
			break;
		if (engine_serve(e))
			return 1;
	}
	engine_stop(e);
	return 0;
}
