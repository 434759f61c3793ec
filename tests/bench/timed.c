/* timed.c - runs a program and says how much CPU time it and others have used meanwhile, to the nanosecond.
 *
 *   timed FILE NAME=PID[,PID...]... -- PROGRAM [ARGUMENT...]
 *
 * FILE gets a line "wall_ns N", "self_ns N" (the program and the children that it waited for), and "NAME_ns
 * N" for each group of processes. The time of a process is that of all its threads, those that have ended
 * included; a process that is gone at the end counts nothing. Exits as the program does. One thread.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GROUPS_MAX = 16, PIDS_MAX = 256 };

struct group {
	const char *name;
	int pids;
	pid_t pid[PIDS_MAX];
	int64_t before[PIDS_MAX];
};

static struct group group[GROUPS_MAX];
static int groups;

/* -1: there is no such process */
static int64_t cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec ts;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &ts))
		return -1;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int group_parse(char *text)
{
	struct group *g = &group[groups];
	char *list = strchr(text, '='), *rest, *word;

	if (!list || groups == GROUPS_MAX)
		return -1;
	*list++ = 0;
	g->name = text;
	for (word = strtok_r(list, ",", &rest); word && g->pids < PIDS_MAX; word = strtok_r(NULL, ",", &rest))
		g->pid[g->pids++] = (pid_t)atoi(word);
	groups++;
	return 0;
}

static int64_t group_used(const struct group *g)
{
	int64_t sum = 0;

	for (int i = 0; i < g->pids; i++) {
		int64_t now = cpu_ns(g->pid[i]);

		if (now >= 0 && g->before[i] >= 0)
			sum += now - g->before[i];
	}
	return sum;
}

static int64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* machine_ns: what processes and what interrupts have used on all processors since the start; 0 when that
 * cannot be read */
static void machine_ns(int64_t *busy, int64_t *softirq)
{
	long long user = 0, nice = 0, system = 0, idle, wait, hard = 0, soft = 0;
	FILE *stat = fopen("/proc/stat", "r");
	int64_t tick_ns = 1000000000 / sysconf(_SC_CLK_TCK);

	*busy = *softirq = 0;
	if (!stat)
		return;
	if (fscanf(stat, "cpu %lld %lld %lld %lld %lld %lld %lld", &user, &nice, &system, &idle, &wait, &hard,
	            &soft) == 7) {
		*busy = (user + nice + system) * tick_ns;
		*softirq = (hard + soft) * tick_ns;
	}
	fclose(stat);
}

int main(int argc, char **argv)
{
	struct rusage used;
	int status, i = 2;
	int64_t start, end, busy[2], softirq[2];
	pid_t child;
	FILE *out;

	if (argc > 1 && !strcmp(argv[1], "--now")) {
		int64_t sum = 0;

		for (; i < argc; i++) {
			int64_t ns = cpu_ns((pid_t)atoi(argv[i]));

			sum += ns > 0 ? ns : 0;
		}
		printf("%lld\n", (long long)sum);
		return 0;
	}
	while (i < argc && strcmp(argv[i], "--") != 0 && !group_parse(argv[i]))
		i++;
	if (i + 1 >= argc || strcmp(argv[i], "--") != 0) {
		fprintf(stderr, "usage: timed FILE NAME=PID[,PID...]... -- PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	for (int g = 0; g < groups; g++)
		for (int p = 0; p < group[g].pids; p++)
			group[g].before[p] = cpu_ns(group[g].pid[p]);
	machine_ns(&busy[0], &softirq[0]);
	start = wall_ns();
	child = fork();
	if (child == 0) {
		execvp(argv[i + 1], argv + i + 1);
		fprintf(stderr, "timed: %s: %s\n", argv[i + 1], strerror(errno));
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &used) != child) {
		perror("timed");
		return 126;
	}
	end = wall_ns();
	machine_ns(&busy[1], &softirq[1]);
	out = fopen(argv[1], "w");
	if (!out) {
		perror(argv[1]);
		return 126;
	}
	fprintf(out, "wall_ns %lld\nself_ns %lld\n", (long long)(end - start),
	        ((long long)used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL +
	                ((long long)used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL);
	fprintf(out, "busy_ns %lld\nsoftirq_ns %lld\n", (long long)(busy[1] - busy[0]),
	        (long long)(softirq[1] - softirq[0]));
	for (int g = 0; g < groups; g++)
		fprintf(out, "%s_ns %lld\n", group[g].name, (long long)group_used(&group[g]));
	fclose(out);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
