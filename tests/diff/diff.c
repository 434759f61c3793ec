/* diff.c - runs sequences of socket operations that are chosen by a seed, and prints what each call returned.
 *
 *   diff [--from SEED] [--count N] [--ops N] [--skip STEP[,STEP...]] [--flavour N]
 *   diff --peer CONTROL_SOCKET
 *
 * DIFF_OWN, DIFF_PEER: the two IPv4 addresses. DIFF_CONTROL: the peer's socket. The output of two runs, one
 * on the kernel and one under Pronk, must be the same: nothing in it depends on chance beyond the seed.
 * tests/diff/run does that; README.md has the design.
 *
 * The driver only forks workers and prints what they leave in shared memory. A worker does WORKER_SEEDS
 * sequences; one that crashes, hangs or loses a wake-up costs one sequence.
 */
#include "diff.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum { WORKER_SEEDS = 100, HANG_S = 20, SKIPS = 200 };

static int op_limit_count = -1;
static bool is_skipped[SKIPS];

static const struct op *const tables[] = {ops_call, ops_data, ops_epoll, ops_wait, ops_udp};

static const struct op *op_choose(int flavour)
{
	uint32_t sum = 0, at;

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct op *o = tables[i]; o->name; o++)
			sum += o->weight[flavour];
	at = chance(sum);
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct op *o = tables[i]; o->name; o++) {
			if (at < o->weight[flavour])
				return o;
			at -= o->weight[flavour];
		}
	abort();
}

static void sequence(uint64_t seed)
{
	int flavour, count;

	world_reset(seed);
	chance_start(seed, 0);
	flavour = (int)chance(TCP_FLAVOURS);
	count = 8 + (int)chance(percent(30) ? 60 : 25);
	if (setup.flavour >= 0)
		flavour = setup.flavour;
	if (op_limit_count >= 0)
		count = op_limit_count;
	say("seed %llu flavour %d\n", (unsigned long long)seed, flavour);
	for (int i = 1; i <= count; i++) {
		const struct op *o;
		uint32_t before;

		if (i < SKIPS && is_skipped[i])
			continue;
		chance_start(seed, (uint32_t)i);
		o = op_choose(flavour);
		say("%3d %s", i, o->name);
		before = report->size;
		o->run();
		if (report->size == before) {
			say(" -\n");
			continue;
		}
		probe();
		say("\n");
	}
	chance_start(seed, 0);
	world_close();
	say("end\n");
}

static void worker(uint64_t from, uint64_t to, int done)
{
	world_open();
	for (uint64_t seed = from; seed < to; seed++) {
		char c = 0;

		report->size = 0;
		atomic_store(&report->seed, seed);
		sequence(seed);
		/* the driver prints it, then the next begins */
		if (write(done, &c, 1) != 1 || read(done, &c, 1) != 1)
			_exit(5);
	}
	_exit(0);
}

static void print_trace(void)
{
	fwrite(report->trace, 1, report->size, stdout);
	report->size = 0;
}

/* Runs one worker; the first seed that is still to do. */
static uint64_t worker_run(uint64_t from, uint64_t to)
{
	struct pollfd p = {.events = POLLIN};
	uint32_t steps = 0;
	int fds[2], status, quiet = 0;
	char c;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		exit(3);
	fflush(stdout);
	report->size = 0;
	atomic_store(&report->seed, from);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		worker(from, to, fds[1]);
	}
	close(fds[1]);
	p.fd = fds[0];
	for (;;) {
		int n = poll(&p, 1, 1000);

		if (n == 0) {
			quiet = atomic_load(&report->steps) == steps ? quiet + 1 : 0;
			steps = atomic_load(&report->steps);
			if (quiet < HANG_S)
				continue;
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			print_trace();
			printf(" HANG\n");
			break;
		}
		if (n < 0)
			continue;
		quiet = 0;
		if (read(fds[0], &c, 1) != 1) {
			waitpid(pid, &status, 0);
			if (WIFEXITED(status) && !WEXITSTATUS(status)) {
				close(fds[0]);
				return to;
			}
			print_trace();
			if (WIFSIGNALED(status))
				printf(" KILLED=SIG%s\n", sigabbrev_np(WTERMSIG(status)));
			else
				printf(" EXIT=%d\n", WEXITSTATUS(status));
			break;
		}
		print_trace();
		if (write(fds[0], &c, 1) != 1)
			continue;
	}
	close(fds[0]);
	fflush(stdout);
	return atomic_load(&report->seed) + 1;
}

static int usage(void)
{
	fprintf(stderr,
	        "usage: diff [--from SEED] [--count N] [--ops N] [--skip STEP,...] [--flavour N] | --peer SOCKET\n");
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t from = 1, count = 1;
	const char *own = getenv("DIFF_OWN"), *peer = getenv("DIFF_PEER");

	setup.flavour = -1;
	setup.control = getenv("DIFF_CONTROL");
	if (!own || !peer || inet_pton(AF_INET, own, &setup.own) != 1 ||
	        inet_pton(AF_INET, peer, &setup.peer) != 1)
		return usage();
	for (int i = 1; i < argc; i++) {
		if (i + 1 == argc)
			return usage();
		if (!strcmp(argv[i], "--peer"))
			return peer_main(argv[i + 1]);
		else if (!strcmp(argv[i], "--from"))
			from = strtoull(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--count"))
			count = strtoull(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--ops"))
			op_limit_count = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--flavour"))
			setup.flavour = atoi(argv[++i]) % FLAVOURS;
		else if (!strcmp(argv[i], "--skip"))
			for (char *p = argv[++i]; *p; p += strcspn(p, ","), p += *p == ',') {
				int at = atoi(p);

				if (at > 0 && at < SKIPS)
					is_skipped[at] = true;
			}
		else
			return usage();
	}
	if (!setup.control)
		return usage();
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (report == MAP_FAILED)
		return 3;
	for (uint64_t at = from; at < from + count;) {
		uint64_t to = at + WORKER_SEEDS - at % WORKER_SEEDS;

		at = worker_run(at, to < from + count ? to : from + count);
	}
	return 0;
}
