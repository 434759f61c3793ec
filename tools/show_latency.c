/* show_latency.c - `pronkctl latency`: where time goes between the port and the programs, as a table, as JSON
 * and as plots of text. The times lie in the arena, so this works while programs, or the service, are
 * stopped.
 *
 * What is shown is a copy, of all that was counted or of an interval. The SVG is plot_latency.c's.
 */
#include "show_latency.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "latency.h"
#include "sample.h"

enum { BAR_WIDTH = 50 };

static const struct {
	const char *name;
	double part;
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99_9", 0.999}};

enum { PERCENTILE_COUNT = sizeof(percentiles) / sizeof(percentiles[0]) };

static struct hist_copy *stage_at(struct latency_copy *c, uint32_t stack, uint32_t stage)
{
	return &c->stage[stack * LATENCY_STAGES + stage];
}

static void copy_take(const struct arena *a, struct latency_copy *c)
{
	c->is_on = atomic_load(&a->hdr->latency) != 0;
	c->since_ns = atomic_load(&a->hdr->latency_since_ns);
	c->stack_count = a->stack_count;
	c->now_ns = clock_now_ns();
	c->wall_ns = clock_wall_ns();
	for (uint32_t i = 0; i < c->stack_count; i++)
		for (uint32_t k = 0; k < LATENCY_STAGES; k++)
			hist_take(&a->latency[i].stage[k], stage_at(c, i, k));
}

/* The sum of all stacks is behind the last one. */
static void copy_sum(struct latency_copy *c)
{
	for (uint32_t k = 0; k < LATENCY_STAGES; k++) {
		struct hist_copy *total = stage_at(c, c->stack_count, k);

		memset(total, 0, sizeof(*total));
		for (uint32_t i = 0; i < c->stack_count; i++)
			hist_sum(total, stage_at(c, i, k));
	}
}

static double us(uint64_t ns)
{
	return (double)ns / 1e3;
}

static double mean_ns(const struct hist_copy *h)
{
	return h->count ? (double)h->sum_ns / (double)h->count : 0;
}

/* --- table --- */

static void rows_print(struct latency_copy *c, uint32_t stack, bool all)
{
	for (uint32_t k = 0; k < LATENCY_STAGES; k++) {
		const struct hist_copy *h = stage_at(c, stack, k);

		if (!h->count && !all)
			continue;
		printf("%-9s %10" PRIu64 " %10.1f", latency_name(k), h->count, mean_ns(h) / 1e3);
		for (int p = 0; p < PERCENTILE_COUNT; p++)
			printf(" %10.1f", us(hist_at(h, percentiles[p].part)));
		printf(" %10.1f  %s\n", us(h->max_ns), latency_text(k));
	}
}

static void table_print(struct latency_copy *c, bool all, bool is_interval)
{
	char since[64] = "never";
	time_t s = (time_t)(c->since_ns / 1000000000);
	struct tm tm;

	if (c->since_ns && localtime_r(&s, &tm))
		strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S", &tm);
	printf("Times are %s", c->is_on ? "taken" : "not taken now (pronkctl latency on)");
	if (!is_interval)
		printf("; counted since %s", since);
	printf(". Microseconds:\n\n");
	printf("%-9s %10s %10s %10s %10s %10s %10s %10s  %s\n", "STAGE", "COUNT", "MEAN", "P50", "P90", "P99",
	        "P99.9", "MAX", "FROM -> TO");
	rows_print(c, c->stack_count, true);
	for (uint32_t i = 0; i < c->stack_count && c->stack_count > 1; i++) {
		printf("\nSTACK %u\n", i);
		rows_print(c, i, all);
	}
}

/* --- JSON --- */

static void figures_json(FILE *f, const struct hist_copy *h)
{
	fprintf(f, "{\"count\": %" PRIu64 ", \"mean_ns\": %.0f", h->count, mean_ns(h));
	for (int p = 0; p < PERCENTILE_COUNT; p++)
		fprintf(f, ", \"%s_ns\": %" PRIu64, percentiles[p].name, hist_at(h, percentiles[p].part));
	fprintf(f, ", \"max_ns\": %" PRIu64 "}", h->max_ns);
}

/* One object, for people in several lines, one of many (of an interval) in one. */
static void json_print(FILE *f, struct latency_copy *c, bool one_line)
{
	const char *line = one_line ? " " : "\n  ", *deep = one_line ? "" : "\n    ";

	fprintf(f, "{%s\"is_on\": %s,%s\"since_ns\": %" PRIu64, one_line ? "" : line,
	        c->is_on ? "true" : "false", line, c->since_ns);
	if (one_line)
		fprintf(f, ", \"time_ns\": %" PRIu64 ", \"interval_s\": %.6f", c->wall_ns, c->seconds);
	fprintf(f, ",%s\"stack_count\": %u,%s\"stages\": [", line, c->stack_count, line);
	for (uint32_t k = 0; k < LATENCY_STAGES; k++) {
		fprintf(f, "%s%s{\"name\": \"%s\", \"text\": ", k ? "," : "", k && one_line ? " " : deep,
		        latency_name(k));
		json_text(f, latency_text(k));
		fprintf(f, ", \"total\": ");
		figures_json(f, stage_at(c, c->stack_count, k));
		fprintf(f, ", \"stacks\": [");
		for (uint32_t i = 0; i < c->stack_count; i++) {
			fputs(i ? ", " : "", f);
			figures_json(f, stage_at(c, i, k));
		}
		fprintf(f, "]}");
	}
	fprintf(f, one_line ? "]}\n" : "\n  ]\n}\n");
}

/* --- bars --- */

/* "512 ns", "8.2 us" */
static void duration_text(uint64_t ns, char *buf, size_t size)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = {{"s", 1e9}, {"ms", 1e6}, {"us", 1e3}};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if ((double)ns >= units[i].ns) {
			snprintf(buf, size, "%.1f %s", (double)ns / units[i].ns, units[i].unit);
			return;
		}
	snprintf(buf, size, "%" PRIu64 " ns", ns);
}

/* A bar for each power of two between the shortest and the longest. */
static void bars_print(struct latency_copy *c)
{
	for (uint32_t k = 0; k < LATENCY_STAGES; k++) {
		const struct hist_copy *h = stage_at(c, c->stack_count, k);
		uint64_t part[HIST_TOP_BITS + 1] = {0}, most = 0;
		int first = HIST_TOP_BITS, last = 0;

		for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
			uint64_t low = hist_low(i);
			int power = low ? 64 - __builtin_clzll(low) : 0;

			part[power] += h->bucket[i];
			if (!h->bucket[i])
				continue;
			first = power < first ? power : first;
			last = power > last ? power : last;
		}
		printf("%s%s: %s (%" PRIu64 ")\n", k ? "\n" : "", latency_name(k), latency_text(k), h->count);
		for (int p = first; p <= last; p++)
			most = part[p] > most ? part[p] : most;
		for (int p = first; p <= last; p++) {
			int width = (int)((double)part[p] * BAR_WIDTH / (double)most + 0.5);
			char to[32];

			duration_text(1ull << p, to, sizeof(to));
			printf("  < %9s |%-*.*s| %5.1f %%\n", to, BAR_WIDTH, width,
			        "##################################################",
			        100.0 * (double)part[p] / (double)h->count);
		}
	}
}

/* --- the command --- */

static int svg_write(const struct latency_copy *c, const char *path)
{
	FILE *file = strcmp(path, "-") != 0 ? fopen(path, "w") : stdout;
	int rc = 0;

	if (!file) {
		fprintf(stderr, "pronkctl: latency: cannot write %s: %s\n", path, strerror(errno));
		return -errno;
	}
	plot_latency(c, file);
	if (file == stdout)
		return 0;
	if (ferror(file))
		rc = -EIO;
	if (fclose(file))
		rc = -EIO;
	if (rc)
		fprintf(stderr, "pronkctl: latency: cannot write %s\n", path);
	return rc;
}

static int show(struct latency_copy *c, const struct show *how)
{
	copy_sum(c);
	if (how->svg)
		return svg_write(c, how->svg);
	if (how->json)
		json_print(stdout, c, how->interval_s > 0);
	else if (how->plot)
		bars_print(c);
	else
		table_print(c, how->all, how->interval_s > 0);
	return fflush(stdout) ? -EIO : 0;
}

static void since(struct latency_copy *later, struct latency_copy *earlier)
{
	for (uint32_t i = 0; i < later->stack_count; i++)
		for (uint32_t k = 0; k < LATENCY_STAGES; k++)
			hist_since(stage_at(later, i, k), stage_at(earlier, i, k));
}

int show_latency(const struct attach *at, const struct show *how)
{
	size_t size = sizeof(struct latency_copy) +
	              (size_t)(at->arena.stack_count + 1) * LATENCY_STAGES * sizeof(struct hist_copy);
	struct latency_copy *before = calloc(1, size), *now = calloc(1, size), *shown = calloc(1, size);
	struct timespec next;
	int rc = -ENOMEM;

	if (!before || !now || !shown)
		goto out;
	copy_take(&at->arena, now);
	if (how->interval_s == 0) {
		rc = show(now, how);
		goto out;
	}
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint32_t n = 0; !how->count || n < how->count; n++) {
		double whole = floor(how->interval_s);

		next.tv_sec += (time_t)whole;
		next.tv_nsec += (long)((how->interval_s - whole) * 1e9);
		if (next.tv_nsec >= 1000000000) {
			next.tv_sec++;
			next.tv_nsec -= 1000000000;
		}
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
		memcpy(before, now, size);
		copy_take(&at->arena, now);
		memcpy(shown, now, size);
		since(shown, before);
		shown->seconds = (double)(now->now_ns - before->now_ns) / 1e9;
		if (!how->json && !how->svg)
			interval_title(now->wall_ns, shown->seconds, stdout);
		rc = show(shown, how);
		if (rc)
			break;
	}
out:
	if (rc == -ENOMEM)
		fprintf(stderr, "pronkctl: latency: out of memory\n");
	free(before);
	free(now);
	free(shown);
	return rc;
}
