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

void report_print(const struct report *r, FILE *file)
{
	for (const struct finding *f = r->first; f; f = f->next) {
		fprintf(file, "%-8s %-22s %s\n", level_names[f->level], f->id, f->found);
		if (f->means[0])
			fprintf(file, "%-8s %-22s %s\n", "", "", f->means);
		if (f->fix[0])
			fprintf(file, "%-8s %-22s # %s\n", "", "", f->fix);
	}
	fprintf(file, "%u ok, %u note%s, %u warning%s, %u missing\n", r->count[LEVEL_OK],
	        r->count[LEVEL_NOTE], r->count[LEVEL_NOTE] == 1 ? "" : "s", r->count[LEVEL_WARNING],
	        r->count[LEVEL_WARNING] == 1 ? "" : "s", r->count[LEVEL_MISSING]);
}

int report_json(const struct report *r, const struct machine *m, const struct cfg *cfg, FILE *file)
{
	json_t *items = json_array(), *all;
	int rc = 0;

	for (const struct finding *f = r->first; f; f = f->next)
		json_array_append_new(items,
		        json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", f->id, "state", level_names[f->level],
		                "found", f->found, "means", f->means, "fix", f->fix));
	all = json_pack("{s:s, s:s, s:s, s:b, s:b, s:i, s:i, s:i, s:i, s:o}", "version", PRONK_VERSION,
	        "config", cfg->path, "device", cfg->device, "root", (int)m->is_root, "usable",
	        !r->count[LEVEL_MISSING], "ok", (int)r->count[LEVEL_OK], "notes", (int)r->count[LEVEL_NOTE],
	        "warnings", (int)r->count[LEVEL_WARNING], "missing", (int)r->count[LEVEL_MISSING], "items",
	        items);
	if (!all || json_dumpf(all, file, JSON_INDENT(2) | JSON_PRESERVE_ORDER) < 0 ||
	        fputc('\n', file) == EOF)
		rc = -ENOMEM;
	json_decref(all);
	return rc;
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
	const char *config;
	bool json;
};

static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0, "Configuration file (default: as for pronk run)", 0},
        {"json", OPT_JSON, NULL, 0, "Print one JSON object", 0},
        {0},
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case 'c':
		args->config = arg;
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
        "  $ pronk check --json | jq '.items[] | select(.state == \"missing\")'\n",
        NULL, NULL, NULL};

int check_main(int argc, char **argv)
{
	char err[ERR_SIZE] = "";
	struct machine *m = calloc(1, sizeof(*m));
	struct report report = {0};
	struct args args = {0};
	const char *path;
	struct cfg cfg;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	if (!m) {
		fputs("pronk: out of memory\n", stderr);
		return 1;
	}
	path = args.config ? args.config : cfg_default_path();
	rc = cfg_load(&cfg, path, err, sizeof(err));
	if (rc)
		cfg_defaults(&cfg);
	machine_probe(m, &cfg);
	if (rc) {
		struct finding *f = report_add(&report, LEVEL_MISSING, "config", "%s", err);

		finding_means(
		        f, "Nothing starts with this file; what follows is about the built-in defaults.");
		finding_fix(f, "pronkd --check -c %s", path);
	} else if (path) {
		report_add(&report, LEVEL_OK, "config", "%s: device %s, %u stack%s, mode %s", path,
		        cfg.device, cfg.stacks, cfg.stacks == 1 ? "" : "s",
		        cfg.mode == CFG_MODE_INLINE ? "inline" : "dedicated");
	} else {
		finding_means(report_add(&report, LEVEL_NOTE, "config", "no configuration file: device %s",
		                      cfg.device),
		        "The built-in defaults hold: a TAP. `pronk setup --device IF` writes a file for a NIC.");
	}
	check_kernel(m, &cfg, &report);
	check_rights(m, &cfg, &report);
	check_memory(m, &cfg, &report);
	check_cores(m, &cfg, &report);
	check_device(m, &cfg, &report);
	if (args.json && report_json(&report, m, &cfg, stdout))
		fputs("pronk: out of memory\n", stderr);
	if (!args.json)
		report_print(&report, stdout);
	rc = report.count[LEVEL_MISSING] != 0;
	report_free(&report);
	free(m);
	return rc;
}
