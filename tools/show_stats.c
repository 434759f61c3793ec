/* show_stats.c - `pronkctl stats`: the statistics segment as a table or as JSON, once or again and again with
 * rates. The segment describes itself, so this prints counters of other versions, too.
 */
#include "show.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "sample.h"

static bool is_zero(const struct span *v, uint32_t idx)
{
	for (uint32_t k = 0; k < v->src->view.stack_count; k++)
		if (sample_value(v->src, v->now, k, idx))
			return false;
	return true;
}

/* Whoever asks for names wants to see them also when they are zero. */
static bool is_shown(const struct span *v, uint32_t idx)
{
	return words_take(v->show->word, v->show->word_count, stat_view_entry(&v->src->view, idx)->name) &&
	       (v->show->all || v->show->word_count || !is_zero(v, idx));
}

/* Counters have a rate; levels and peaks do not. */
static bool has_rate(const struct span *v, uint32_t idx)
{
	return v->before && stat_view_entry(&v->src->view, idx)->kind == PRONK_STATS_COUNTER;
}

static double rate(const struct span *v, uint32_t stack, uint32_t idx)
{
	return v->seconds > 0 ? sample_change(v->src, v->before, v->now, stack, idx) / v->seconds : 0;
}

/* --- table --- */

static void cell_value(struct table *t, const struct span *v, uint32_t stack, uint32_t idx)
{
	if (has_rate(v, idx))
		table_cell(t, "%.1f", rate(v, stack, idx));
	else
		table_cell(t, "%" PRIu64, sample_value(v->src, v->now, stack, idx));
}

static void rows_print(struct table *t, const struct span *v)
{
	const struct stat_view *view = &v->src->view;
	const char *group = "";

	for (uint32_t i = 0; i < view->counter_count; i++) {
		const struct pronk_stats_entry *e = stat_view_entry(view, i);

		if (!is_shown(v, i))
			continue;
		if (strcmp(group, stat_view_group(view, i)) != 0) {
			char line[PRONK_STATS_GROUP_SIZE + 2];

			group = stat_view_group(view, i);
			snprintf(line, sizeof(line), "%s:", group);
			table_line(t, line);
		}
		table_cell(t, "%s", e->name);
		table_cell(t, "%s", stat_kind_name(e->kind));
		table_cell(t, "%" PRIu64, sample_value(v->src, v->now, SAMPLE_ALL, i));
		if (v->before && has_rate(v, i))
			table_cell(t, "%.1f", rate(v, SAMPLE_ALL, i));
		else if (v->before)
			table_cell(t, "-");
		for (uint32_t k = 0; k < view->stack_count && view->stack_count > 1; k++)
			cell_value(t, v, k, i);
		table_cell(t, "%s", e->unit);
	}
}

static void derived_print(struct table *t, const struct span *v)
{
	uint32_t stacks = v->src->view.stack_count;
	bool has_title = false;

	for (int i = 0; i < DERIVED_COUNT; i++) {
		if (!words_take(v->show->word, v->show->word_count, derived_names[i]))
			continue;
		if (!has_title)
			table_line(t, v->before ? "Derived, of the interval:" : "Derived, since the start:");
		has_title = true;
		table_cell(t, "%s", derived_names[i]);
		table_cell(t, "derived");
		table_cell(t, "%.1f", derived_value(v->src, v->before, v->now, SAMPLE_ALL, i));
		if (v->before)
			table_cell(t, "-");
		for (uint32_t k = 0; k < stacks && stacks > 1; k++)
			table_cell(t, "%.1f", derived_value(v->src, v->before, v->now, k, i));
		table_cell(t, "%%");
	}
}

static int print_table(const struct span *v)
{
	uint32_t stacks = v->src->view.stack_count;
	char heads[32 + 24 * TABLE_COLUMN_MAX];
	struct table t;
	int n = snprintf(heads, sizeof(heads), "NAME|KIND|>TOTAL%s", v->before ? "|>RATE/S" : "");

	/* the stacks' columns are rates where there are any */
	for (uint32_t k = 0; k < stacks && stacks > 1 && k < TABLE_COLUMN_MAX; k++)
		n += snprintf(
		        heads + n, sizeof(heads) - (size_t)n, "|>%sSTACK %u", v->before ? "/S " : "", k);
	snprintf(heads + n, sizeof(heads) - (size_t)n, "|UNIT");
	table_begin(&t, heads);
	rows_print(&t, v);
	derived_print(&t, v);
	return table_end(&t, stdout);
}

/* --- JSON --- */

/* One value for each stack, and before them all stacks' under `name`. */
static void json_values(const struct span *v, uint32_t idx, bool is_rate, const char *name, const char *each)
{
	printf(", \"%s\": ", name);
	for (uint32_t k = 0; k <= v->src->view.stack_count; k++) {
		uint32_t stack = k ? k - 1 : SAMPLE_ALL;

		if (k)
			printf("%s", k == 1 ? "" : ", ");
		if (is_rate)
			printf("%.3f", rate(v, stack, idx));
		else
			printf("%" PRIu64, sample_value(v->src, v->now, stack, idx));
		if (!k)
			printf(", \"%s\": [", each);
	}
	printf("]");
}

static void json_derived(const struct span *v, const char *indent, const char *end)
{
	printf("\"derived\": [%s", end);
	for (int i = 0; i < DERIVED_COUNT; i++) {
		printf("%s{\"name\": \"%s\", \"unit\": \"%%\", \"total\": %.3f, \"stacks\": [", indent,
		        derived_names[i], derived_value(v->src, v->before, v->now, SAMPLE_ALL, i));
		for (uint32_t k = 0; k < v->src->view.stack_count; k++)
			printf("%s%.3f", k ? ", " : "", derived_value(v->src, v->before, v->now, k, i));
		printf("]}%s%s", i + 1 < DERIVED_COUNT ? "," : "", end);
	}
}

/* All names, whether zero or not: a reader of JSON sorts them out itself. With an interval one line for each
 * object. */
static void print_json(const struct span *v)
{
	const struct stat_view *view = &v->src->view;
	const char *end = v->before ? "" : "\n", *one = v->before ? "" : "  ", *two = v->before ? "" : "    ";
	bool is_first = true;

	printf("{%s%s\"pid\": %" PRIu64 ", %s%s\"start_time_ns\": %" PRIu64 ", %s%s\"instance\": ", end, one,
	        view->writer_pid, end, one, view->start_wall_ns, end, one);
	json_text(stdout, view->instance);
	printf(", %s%s\"device\": ", end, one);
	json_text(stdout, view->device);
	if (v->before)
		printf(", \"time_ns\": %" PRIu64 ", \"interval_s\": %.6f", v->now->wall_ns, v->seconds);
	printf(", %s%s\"stack_count\": %u, %s%s\"stats\": [", end, one, view->stack_count, end, one);
	for (uint32_t i = 0; i < view->counter_count; i++) {
		const struct pronk_stats_entry *e = stat_view_entry(view, i);

		if (!words_take(v->show->word, v->show->word_count, e->name))
			continue;
		printf("%s%s%s{\"name\": ", is_first ? "" : ",", end, two);
		is_first = false;
		json_text(stdout, e->name);
		printf(", \"group\": ");
		json_text(stdout, stat_view_group(view, i));
		printf(", \"kind\": \"%s\", \"unit\": ", stat_kind_name(e->kind));
		json_text(stdout, e->unit);
		json_values(v, i, false, "total", "stacks");
		if (has_rate(v, i))
			json_values(v, i, true, "rate", "rates");
		printf("}");
	}
	printf("%s%s], %s%s", end, one, end, one);
	json_derived(v, two, end);
	printf("%s]%s}\n", one, end);
}

/* --- the command --- */

static int print(const struct span *v)
{
	if (v->show->json) {
		print_json(v);
		return 0;
	}
	if (v->before)
		span_title(v, stdout);
	return print_table(v);
}

/* A name that nothing begins with is a mistake. */
static int words_check(const struct source *src, const struct show *show)
{
	for (int w = 0; w < show->word_count; w++) {
		bool is_known = false;

		for (uint32_t i = 0; i < src->view.counter_count && !is_known; i++)
			is_known = words_take(&show->word[w], 1, stat_view_entry(&src->view, i)->name);
		for (int i = 0; i < DERIVED_COUNT; i++)
			is_known |= words_take(&show->word[w], 1, derived_names[i]);
		if (is_known)
			continue;
		fprintf(stderr,
		        "pronkctl: stats: no statistic's name begins with \"%s\" (stats --all lists them)\n",
		        show->word[w]);
		return -EINVAL;
	}
	return 0;
}

int show_stats(const struct attach *at, const struct show *show)
{
	return span_show(at, show, words_check, print);
}
