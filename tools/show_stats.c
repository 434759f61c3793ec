/* show_stats.c - `pronkctl stats`: the statistics segment as a table or as JSON. The segment describes
 * itself, so this prints counters of other versions, too.
 */
#include "show.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "stat.h"

void json_text(FILE *file, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	fputc('"', file);
	while (*p) {
		int more = *p < 0x80                 ? 0
		           : *p >= 0xc2 && *p < 0xe0 ? 1
		           : (*p & 0xf0) == 0xe0     ? 2
		           : *p >= 0xf0 && *p < 0xf5 ? 3
		                                     : -1;

		for (int i = 1; i <= more; i++)
			if ((p[i] & 0xc0) != 0x80)
				more = -1;
		/* overlong forms, surrogates and what lies beyond U+10FFFF are no characters */
		if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
		        (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
			more = -1;
		if (more < 0) {
			fputs("\\ufffd", file);
			p++;
			continue;
		}
		if (*p == '"' || *p == '\\')
			fprintf(file, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			fprintf(file, "\\u%04x", *p);
		else
			fwrite(p, 1, (size_t)more + 1, file);
		p += more + 1;
	}
	fputc('"', file);
}

static void print_json(const struct stat_view *view)
{
	printf("{\n  \"pid\": %" PRIu64 ",\n  \"start_time_ns\": %" PRIu64
	       ",\n  \"stack_count\": %u,\n  \"stats\": [\n",
	        view->writer_pid, view->start_wall_ns, view->stack_count);
	for (uint32_t i = 0; i < view->counter_count; i++) {
		const struct pronk_stats_entry *e = stat_view_entry(view, i);

		printf("    {\"name\": ");
		json_text(stdout, e->name);
		printf(", \"kind\": \"%s\", \"unit\": ", stat_kind_name(e->kind));
		json_text(stdout, e->unit);
		printf(", \"total\": %" PRIu64 ", \"stacks\": [", stat_view_total(view, i));
		for (uint32_t k = 0; k < view->stack_count; k++)
			printf("%s%" PRIu64, k ? ", " : "", stat_view_value(view, k, i));
		printf("]}%s\n", i + 1 < view->counter_count ? "," : "");
	}
	printf("  ]\n}\n");
}

static bool is_zero(const struct stat_view *view, uint32_t idx)
{
	for (uint32_t k = 0; k < view->stack_count; k++)
		if (stat_view_value(view, k, idx))
			return false;
	return true;
}

static void print_table(const struct stat_view *view, bool all)
{
	printf("%-22s %-8s %16s", "NAME", "KIND", "TOTAL");
	for (uint32_t k = 0; k < view->stack_count && view->stack_count > 1; k++)
		printf("  %10s%-4u", "STACK ", k);
	printf("  %s\n", "UNIT");
	for (uint32_t i = 0; i < view->counter_count; i++) {
		const struct pronk_stats_entry *e = stat_view_entry(view, i);

		if (!all && is_zero(view, i))
			continue;
		printf("%-22s %-8s %16" PRIu64, e->name, stat_kind_name(e->kind), stat_view_total(view, i));
		for (uint32_t k = 0; k < view->stack_count && view->stack_count > 1; k++)
			printf("  %14" PRIu64, stat_view_value(view, k, i));
		printf("  %s\n", e->unit);
	}
}

int show_stats(const struct attach *at, const struct show *show)
{
	struct stat_view view;
	struct stat st;
	void *base;
	int rc;

	if (fstat(at->stats_fd, &st) < 0)
		return -errno;
	base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, at->stats_fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	rc = stat_view_open(&view, base, (size_t)st.st_size);
	if (rc)
		fprintf(stderr, "pronkctl: cannot read the statistics segment: %s\n", strerror(-rc));
	else if (show->json)
		print_json(&view);
	else
		print_table(&view, show->all);
	munmap(base, (size_t)st.st_size);
	return rc;
}
