/* metrics.c - the statistics segment as metrics of Prometheus.
 *
 * Any thread of any process that has the segment mapped. Names follow Prometheus' conventions: pronk_ in
 * front, base units (seconds, bytes) at the end, _total behind what only grows. Those of lost packets are one
 * metric with the reason as a label, so that they can be summed up.
 */
#include "metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "compiler.h"

#define DROP_PREFIX "drop_"
#define DROP_METRIC "pronk_dropped_packets_total"

/* Help and label values escape differently: a quote is one in a label only. */
static void text_write(FILE *out, const char *text, bool is_label)
{
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\\\", out);
		else if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '"' && is_label)
			fputs("\\\"", out);
		else
			fputc(*text, out);
	}
}

static bool is_drop(const struct pronk_stats_entry *e)
{
	return e->kind == PRONK_STATS_COUNTER && !strncmp(e->name, DROP_PREFIX, strlen(DROP_PREFIX));
}

static bool is_time(const struct pronk_stats_entry *e)
{
	return !strcmp(e->unit, "ns");
}

static bool ends_in(const char *text, size_t size, const char *end)
{
	size_t n = strlen(end);

	return size >= n && !memcmp(text + size - n, end, n);
}

static void name_make(const struct pronk_stats_entry *e, char *buf, size_t size)
{
	size_t n = strlen(e->name);
	const char *unit = "";

	if (is_drop(e)) {
		snprintf(buf, size, "%s", DROP_METRIC);
		return;
	}
	if (is_time(e)) {
		n -= ends_in(e->name, n, "_ns") ? 3 : 0;
		unit = "_seconds";
	} else if (!strcmp(e->unit, "bytes") && !ends_in(e->name, n, "_bytes")) {
		n -= ends_in(e->name, n, "_octets") ? strlen("_octets") : 0;
		unit = "_bytes";
	} else if (e->kind != PRONK_STATS_COUNTER && ends_in(e->name, n, "_total")) {
		n -= strlen("_total"); /* that is for what only grows */
	}
	snprintf(buf, size, "pronk_%.*s%s%s", (int)n, e->name, unit,
	        e->kind == PRONK_STATS_COUNTER ? "_total" : "");
	/* another version's names may hold anything */
	for (char *c = buf; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *c))
			*c = '_';
}

static void head_write(FILE *out, const char *name, const char *help, const char *type)
{
	fprintf(out, "# HELP %s ", name);
	text_write(out, help, false);
	fprintf(out, "\n# TYPE %s %s\n", name, type);
}

static void labels_write(FILE *out, const struct stat_view *view)
{
	fputs("{instance=\"", out);
	text_write(out, view->instance, true);
	fputs("\",device=\"", out);
	text_write(out, view->device, true);
	fputs("\"", out);
}

static void samples_write(FILE *out, const struct stat_view *view, uint32_t idx, const char *name)
{
	const struct pronk_stats_entry *e = stat_view_entry(view, idx);

	for (uint32_t stack = 0; stack < view->stack_count; stack++) {
		uint64_t value = stat_view_value(view, stack, idx);

		fputs(name, out);
		labels_write(out, view);
		fprintf(out, ",stack=\"%u\"", stack);
		if (is_drop(e)) {
			fputs(",reason=\"", out);
			text_write(out, e->name + strlen(DROP_PREFIX), true);
			fputs("\"", out);
		}
		if (is_time(e))
			fprintf(out, "} %" PRIu64 ".%09" PRIu64 "\n", value / 1000000000, value % 1000000000);
		else
			fprintf(out, "} %" PRIu64 "\n", value);
	}
}

int metrics_write(const struct stat_view *view, FILE *out)
{
	char name[sizeof(((struct pronk_stats_entry *)0)->name) + 32];
	bool has_drops = false;

	head_write(out, "pronk_build_info", "Version of what writes this.", "gauge");
	fputs("pronk_build_info", out);
	labels_write(out, view);
	fprintf(out, ",version=\"%s\"} 1\n", PRONK_VERSION);
	head_write(
	        out, "pronk_start_time_seconds", "When the service started, in seconds since 1970.", "gauge");
	fputs("pronk_start_time_seconds", out);
	labels_write(out, view);
	fprintf(out, "} %" PRIu64 ".%09" PRIu64 "\n", view->start_wall_ns / 1000000000,
	        view->start_wall_ns % 1000000000);
	for (uint32_t i = 0; i < view->counter_count; i++) {
		const struct pronk_stats_entry *e = stat_view_entry(view, i);

		if (is_drop(e)) {
			has_drops = true;
			continue; /* all samples of a metric stand together, wherever they are in the table */
		}
		name_make(e, name, sizeof(name));
		head_write(out, name, e->help, e->kind == PRONK_STATS_COUNTER ? "counter" : "gauge");
		samples_write(out, view, i, name);
	}
	if (has_drops)
		head_write(out, DROP_METRIC, "Packets that were lost inside Pronk, by reason.", "counter");
	for (uint32_t i = 0; i < view->counter_count; i++)
		if (is_drop(stat_view_entry(view, i)))
			samples_write(out, view, i, DROP_METRIC);
	return ferror(out) ? -EIO : 0;
}
