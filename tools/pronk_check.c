/* pronk_check.c - `pronk check`: looks at the machine and tells what that means for Pronk.
 *
 * The looking is in check_machine.c and check_device.c, over struct machine; here are the findings, the two
 * ways to print them, and the command line.
 */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "configs.h"
#include "machine.h"

enum { ERR_SIZE = 512 };

static const char *const level_names[LEVEL_COUNT] = {"ok", "note", "warning", "missing"};

struct finding *report_add(struct report *r, enum level level, const char *id, const char *fmt, ...)
{
	static struct finding lost; /* without memory: what is told of it goes nowhere */
	struct finding *f = calloc(1, sizeof(*f));
	va_list args;

	r->count[level]++;
	if (!f)
		return &lost;
	f->level = level;
	f->id = id;
	va_start(args, fmt);
	vsnprintf(f->found, sizeof(f->found), fmt, args);
	va_end(args);
	if (!r->tail)
		r->tail = &r->first;
	*r->tail = f;
	r->tail = &f->next;
	return f;
}

void finding_means(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(f->means, sizeof(f->means), fmt, args);
	va_end(args);
}

void finding_fix(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(f->fix, sizeof(f->fix), fmt, args);
	va_end(args);
}

static void totals_print(const struct report *r, FILE *file)
{
	fprintf(file, "%u ok, %u note%s, %u warning%s, %u missing\n", r->count[LEVEL_OK],
	        r->count[LEVEL_NOTE], r->count[LEVEL_NOTE] == 1 ? "" : "s", r->count[LEVEL_WARNING],
	        r->count[LEVEL_WARNING] == 1 ? "" : "s", r->count[LEVEL_MISSING]);
}

static void findings_print(const struct report *r, FILE *file)
{
	for (const struct finding *f = r->first; f; f = f->next) {
		fprintf(file, "%-8s %-22s %s\n", level_names[f->level], f->id, f->found);
		if (f->means[0])
			fprintf(file, "%-8s %-22s %s\n", "", "", f->means);
		if (f->fix[0])
			fprintf(file, "%-8s %-22s # %s\n", "", "", f->fix);
	}
}

void report_print(const struct report *r, FILE *file)
{
	findings_print(r, file);
	totals_print(r, file);
}

static json_t *items_json(const struct report *r)
{
	json_t *items = json_array();

	for (const struct finding *f = r->first; f; f = f->next)
		json_array_append_new(items,
		        json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", f->id, "state", level_names[f->level],
		                "found", f->found, "means", f->means, "fix", f->fix));
	return items;
}

static json_t *report_object(const struct report *r, const struct machine *m, const struct cfg *cfg)
{
	return json_pack("{s:s, s:s, s:s, s:b, s:b, s:i, s:i, s:i, s:i, s:o}", "version", PRONK_VERSION,
	        "config", cfg->path, "device", cfg->device, "root", (int)m->is_root, "usable",
	        !r->count[LEVEL_MISSING], "ok", (int)r->count[LEVEL_OK], "notes", (int)r->count[LEVEL_NOTE],
	        "warnings", (int)r->count[LEVEL_WARNING], "missing", (int)r->count[LEVEL_MISSING], "items",
	        items_json(r));
}

/* Takes the reference. */
static int json_print(json_t *all, FILE *file)
{
	int rc = 0;

	if (!all || json_dumpf(all, file, JSON_INDENT(2) | JSON_PRESERVE_ORDER) < 0 ||
	        fputc('\n', file) == EOF)
		rc = -ENOMEM;
	json_decref(all);
	return rc;
}

int report_json(const struct report *r, const struct machine *m, const struct cfg *cfg, FILE *file)
{
	return json_print(report_object(r, m, cfg), file);
}

/* Adds up what all of them found. */
static void totals(
        const struct checked *files, uint32_t count, const struct report *together, struct report *sum)
{
	for (int level = 0; level < LEVEL_COUNT; level++) {
		sum->count[level] = together->count[level];
		for (uint32_t i = 0; i < count; i++)
			sum->count[level] += files[i].r.count[level];
	}
}

int files_json(const struct checked *files, uint32_t count, const struct report *together, FILE *file)
{
	struct report sum = {0};
	json_t *each = json_array();

	totals(files, count, together, &sum);
	for (uint32_t i = 0; i < count; i++) {
		json_t *one = report_object(&files[i].r, &files[i].m, &files[i].cfg);

		/* which file it is, also when nothing of it could be read */
		json_object_set_new(one, "config", json_string(files[i].path));
		json_array_append_new(each, one);
	}
	return json_print(json_pack("{s:s, s:b, s:b, s:i, s:i, s:i, s:i, s:o, s:o}", "version", PRONK_VERSION,
	                          "root", (int)files[0].m.is_root, "usable", !sum.count[LEVEL_MISSING], "ok",
	                          (int)sum.count[LEVEL_OK], "notes", (int)sum.count[LEVEL_NOTE], "warnings",
	                          (int)sum.count[LEVEL_WARNING], "missing", (int)sum.count[LEVEL_MISSING],
	                          "files", each, "items", items_json(together)),
	        file);
}

void report_free(struct report *r)
{
	while (r->first) {
		struct finding *next = r->first->next;

		free(r->first);
		r->first = next;
	}
	memset(r, 0, sizeof(*r));
}

/* --- the command --- */

enum { OPT_JSON = 0x100 };

struct args {
	struct cfg_files files;
	bool json;
};

static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0,
                "Configuration file (default: as for pronk run); several: each, and what they mean together",
                0},
        {"json", OPT_JSON, NULL, 0, "Print one JSON object", 0},
        {0},
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	char err[ERR_SIZE];

	switch (key) {
	case 'c':
		if (configs_add(&args->files, arg, err, sizeof(err)))
			argp_error(state, "%s", err);
		return 0;
	case OPT_JSON:
		args->json = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", arg);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, option_parse, NULL,
        "Looks at this machine and tells what Pronk finds there: ok, note, warning or missing, what it means, and "
        "the command that changes it. Ends with 0 when everything is there that the configured device needs, else "
        "with 1. Changes nothing.\v"
        "Examples:\n"
        "  # pronk check\n"
        "  # pronk check -c /etc/pronk/eth1.conf\n"
        "  # pronk check -c /etc/pronk/eth1.conf -c /etc/pronk/eth2.conf\n"
        "  $ pronk check --json | jq '.items[] | select(.state == \"missing\")'\n",
        NULL, NULL, NULL};

/* Everything about one file; path NULL: the defaults. */
static void file_look(struct checked *c)
{
	struct report *r = &c->r;
	char err[ERR_SIZE] = "";
	struct finding *f;

	c->is_good = !cfg_load(&c->cfg, c->path, err, sizeof(err));
	if (!c->is_good)
		cfg_defaults(&c->cfg);
	machine_probe(&c->m, &c->cfg);
	if (!c->is_good) {
		f = report_add(r, LEVEL_MISSING, "config", "%s", err);
		finding_means(
		        f, "Nothing starts with this file; what follows is about the built-in defaults.");
		finding_fix(f, "pronkd --check -c %s", c->path);
	} else if (c->path) {
		report_add(r, LEVEL_OK, "config", "%s: device %s, %u stack%s, mode %s", c->path,
		        c->cfg.device, c->cfg.stacks, c->cfg.stacks == 1 ? "" : "s",
		        c->cfg.mode == CFG_MODE_INLINE ? "inline" : "dedicated");
	} else {
		f = report_add(r, LEVEL_NOTE, "config", "no configuration file: device %s", c->cfg.device);
		finding_means(f,
		        "The built-in defaults hold: a TAP. `pronk setup --device IF` writes a file for a NIC.");
	}
	check_kernel(&c->m, &c->cfg, r);
	check_rights(&c->m, &c->cfg, r);
	check_memory(&c->m, &c->cfg, r);
	check_cores(&c->m, &c->cfg, r);
	check_device(&c->m, &c->cfg, r);
}

static void files_print(
        const struct checked *files, uint32_t count, const struct report *together, FILE *file)
{
	struct report sum = {0};

	for (uint32_t i = 0; i < count; i++) {
		fprintf(file, "%s:\n", files[i].path);
		findings_print(&files[i].r, file);
		fputc('\n', file);
	}
	fputs("together:\n", file);
	findings_print(together, file);
	totals(files, count, together, &sum);
	totals_print(&sum, file);
}

int check_main(int argc, char **argv)
{
	static struct args args;
	struct checked *files;
	struct report together = {0};
	char err[ERR_SIZE] = "";
	uint32_t count;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	if (!args.files.count && cfg_files_find(&args.files, err, sizeof(err))) {
		fprintf(stderr, "pronk: %s\n", err);
		return 1;
	}
	count = args.files.count ? args.files.count : 1;
	files = calloc(count, sizeof(*files));
	if (!files) {
		fputs("pronk: out of memory\n", stderr);
		return 1;
	}
	for (uint32_t i = 0; i < count; i++) {
		files[i].path = args.files.count ? args.files.path[i] : NULL;
		file_look(&files[i]);
	}
	if (count > 1)
		check_files(files, count, &together);
	if (args.json)
		rc = count > 1 ? files_json(files, count, &together, stdout)
		               : report_json(&files[0].r, &files[0].m, &files[0].cfg, stdout);
	else
		rc = 0;
	if (rc)
		fputs("pronk: out of memory\n", stderr);
	if (!args.json && count > 1)
		files_print(files, count, &together, stdout);
	else if (!args.json)
		report_print(&files[0].r, stdout);
	rc = together.count[LEVEL_MISSING] != 0;
	for (uint32_t i = 0; i < count; i++) {
		rc |= files[i].r.count[LEVEL_MISSING] != 0;
		report_free(&files[i].r);
	}
	report_free(&together);
	free(files);
	return rc;
}
