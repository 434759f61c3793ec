/* pronkctl.c - looks into a running service: arguments, the table of commands, and `pronkctl config`.
 *
 * An observer maps the service's memory read-only and takes part in nothing, so it can neither disturb nor be
 * disturbed. What cannot be read there the service is asked for (`ask`). Which service is locate.c's; what is
 * shown is in show_NAME.c.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <time.h>

#include "cfg.h"
#include "dump.h"
#include "libc.h"
#include "locate.h"
#include "show.h"

enum { OPT_JSON = 0x100, OPT_ALL, OPT_PLOT, OPT_SVG, OPT_INTERVAL, OPT_COUNT, OPT_BATCH, ERR_SIZE = 512 };

enum { WORD_MAX = 32 };

struct args {
	struct where where;
	const struct ctl_command *command;
	struct show show;
	const char *word[WORD_MAX]; /* what follows the command */
	int word_count;
	bool has_count;
};

/* Options that not every command has, and what else is special. */
enum {
	TAKES_INTERVAL = 1,
	TAKES_COUNT = 2,
	TAKES_BATCH = 4,
	TAKES_REPEAT = 8, /* --interval runs it again and again; the others see to that themselves */
	IS_REPEATED = TAKES_INTERVAL | TAKES_COUNT | TAKES_REPEAT,
	TAKES_PLOT = 16,
	IS_GENERAL = 32, /* about no service in particular: at is NULL */
};

/* One command. Runs with the service attached; 0, or -E after a message. */
struct ctl_command {
	const char *name;
	int word_min, word_max;
	const char *words; /* how they are called in messages */
	unsigned takes;    /* TAKES_* */
	int (*run)(struct attach *at, const struct args *args);
};

bool show_can_ask(const struct attach *at, const char *command)
{
	if (at->ctl_fd >= 0)
		return true;
	fprintf(stderr, "pronkctl: %s: only the service can tell, and it does not answer\n", command);
	return false;
}

/* Has the service run the command with the words as they were given. */
static int ask(struct attach *at, const struct args *args)
{
	char words[CTL_WORDS_MAX + 1], *text = malloc(CTL_TEXT_MAX + 1);
	size_t used = (size_t)snprintf(words, sizeof(words), "%s", args->command->name);
	int rc;

	if (!show_can_ask(at, args->command->name)) {
		free(text);
		return -ENOTCONN;
	}
	for (int i = 0; i < args->word_count && used < sizeof(words); i++)
		used += (size_t)snprintf(words + used, sizeof(words) - used, " %s", args->word[i]);
	rc = !text ? -ENOMEM : used >= sizeof(words) ? -E2BIG : 0;
	if (!rc)
		rc = attach_command(at, words, args->show.json, text, CTL_TEXT_MAX + 1);
	if (rc < 0)
		fprintf(stderr, "pronkctl: %s: %s\n", args->command->name,
		        text && text[0] ? text : strerror(-rc));
	else
		fputs(text, stdout);
	free(text);
	return rc < 0 ? rc : 0;
}

static int run_config(struct attach *at, const struct args *args)
{
	char *text = show_can_ask(at, "config") ? malloc(CTL_TEXT_MAX + 1) : NULL;
	int rc = at->ctl_fd < 0 ? -ENOTCONN
	         : text         ? attach_config_text(at, args->show.json, text, CTL_TEXT_MAX + 1)
	                        : -ENOMEM;

	if (rc < 0 && rc != -ENOTCONN)
		fprintf(stderr, "pronkctl: the service does not tell its configuration: %s\n", strerror(-rc));
	else if (rc >= 0)
		fputs(text, stdout);
	free(text);
	return rc < 0 ? rc : 0;
}

static int run_stats(struct attach *at, const struct args *args)
{
	return show_stats(at, &args->show);
}

static int run_sockets(struct attach *at, const struct args *args)
{
	return show_sockets(at, &args->show);
}

static int run_proto(struct attach *at, const struct args *args)
{
	return show_proto(at, &args->show);
}

static int run_top(struct attach *at, const struct args *args)
{
	return show_top(at, &args->show);
}

static int run_export(struct attach *at, const struct args *args)
{
	return show_export(at, &args->show);
}

static int run_arp(struct attach *at, const struct args *args)
{
	return show_arp(at, &args->show);
}

static int run_routes(struct attach *at, const struct args *args)
{
	return show_routes(at, &args->show);
}

static int run_ports(struct attach *at, const struct args *args)
{
	return show_ports(at, &args->show);
}

static int run_interrupts(struct attach *at, const struct args *args)
{
	return show_interrupts(at, &args->show);
}

static int run_instances(struct attach *at, const struct args *args)
{
	(void)at;
	return show_instances(&args->where, args->show.json);
}

static int run_dump(struct attach *at, const struct args *args)
{
	return dump_write(at, args->word_count ? args->word[0] : NULL);
}

/* With a word the service changes something; without one the times are shown, whatever it does. */
static int run_latency(struct attach *at, const struct args *args)
{
	return args->word_count ? ask(at, args) : show_latency(at, &args->show);
}

static const struct ctl_command commands[] = {
        {"stats", 0, WORD_MAX, "names", TAKES_INTERVAL | TAKES_COUNT, run_stats},
        {"proto", 0, WORD_MAX, "protocols or names", TAKES_INTERVAL | TAKES_COUNT, run_proto},
        {"top", 0, 0, "", TAKES_INTERVAL | TAKES_BATCH, run_top},
        {"export", 0, 0, "", 0, run_export},
        {"sockets", 0, WORD_MAX, "", IS_REPEATED, run_sockets},
        {"arp", 0, 0, "", IS_REPEATED, run_arp},
        {"routes", 0, 0, "", IS_REPEATED, run_routes},
        {"ports", 0, 0, "", IS_REPEATED, run_ports},
        {"nic", 0, 0, "", IS_REPEATED, ask},
        {"interrupts", 0, 0, "", IS_REPEATED, run_interrupts},
        {"config", 0, 0, "", 0, run_config},
        {"set", 2, 2, "KEY VALUE", 0, ask},
        {"latency", 0, 1, "[on|off|reset]", TAKES_INTERVAL | TAKES_COUNT | TAKES_PLOT, run_latency},
        {"inject", 0, WORD_MAX - 1, "[off|rx FAULT VALUE... tx FAULT VALUE... seed NUMBER]", 0, ask},
        {"reset", 1, 1, "the word peaks", 0, ask},
        {"instances", 0, 0, "", IS_REPEATED | IS_GENERAL, run_instances},
        {"dump", 0, 1, "", 0, run_dump},
};

static const struct ctl_command *command_find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

int command_run(struct attach *at, const char *name, bool json)
{
	struct args args = {.command = command_find(name), .show = {.json = json, .all = true}};

	return args.command ? args.command->run(at, &args) : -ENOENT;
}

const char *argp_program_version = "pronkctl " PRONK_VERSION;

static const struct argp_option options[] = {
        {"json", OPT_JSON, NULL, 0, "Print JSON", 0},
        {"all", OPT_ALL, NULL, 0, "stats, proto, latency: print those that are zero, too", 0},
        {"interval", OPT_INTERVAL, "N[s]", 0,
                "Print again every N seconds, until interrupted; stats, proto, latency: what was counted meanwhile; top: look so often",
                0},
        {"count", OPT_COUNT, "N", 0, "With --interval: end after N times", 0},
        {"batch", OPT_BATCH, "N", 0, "top: print N times as text", 0},
        {"plot", OPT_PLOT, NULL, 0, "latency: bars of text", 0},
        {"svg", OPT_SVG, "FILE", 0, "latency: write a plot to FILE (-: to stdout)", 0},
        {0},
};

static error_t word_parse(struct args *args, const char *arg, struct argp_state *state)
{
	if (args->command) {
		if (args->word_count == WORD_MAX || args->word_count == args->command->word_max)
			argp_error(state, "too many words for %s", args->command->name);
		args->word[args->word_count++] = arg;
		return 0;
	}
	args->command = command_find(arg);
	if (!args->command)
		argp_error(state, "unknown command \"%s\"", arg);
	return 0;
}

enum { INTERVAL_LEAST_MS = 100, INTERVAL_MOST_S = 86400 };

static double interval_parse(const char *text, struct argp_state *state)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || (*end && strcmp(end, "s") != 0) ||
	        !(s >= INTERVAL_LEAST_MS / 1e3 && s <= INTERVAL_MOST_S))
		argp_error(state,
		        "--interval: \"%s\" is no interval (allowed: %.1f to %d seconds, as 2, 0.5 or 1s)",
		        text, INTERVAL_LEAST_MS / 1e3, INTERVAL_MOST_S);
	return s;
}

static uint32_t count_parse(const char *option, const char *text, struct argp_state *state)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n < 1 || n > 1000000000)
		argp_error(state, "%s: \"%s\" is no count (allowed: 1 to 1000000000)", option, text);
	return (uint32_t)n;
}

static void options_check(const struct args *args, struct argp_state *state)
{
	const struct ctl_command *c = args->command;

	if (args->show.interval_s > 0 && !(c->takes & TAKES_INTERVAL))
		argp_error(state, "%s takes no --interval", c->name);
	if (args->has_count && !(c->takes & TAKES_COUNT))
		argp_error(state, "%s takes no --count", c->name);
	if (args->has_count && !(args->show.interval_s > 0))
		argp_error(state, "--count needs --interval");
	if (args->show.batch && !(c->takes & TAKES_BATCH))
		argp_error(state, "%s takes no --batch", c->name);
	if ((args->show.plot || args->show.svg) && (!(c->takes & TAKES_PLOT) || args->word_count))
		argp_error(state, "%s%s takes no --plot and no --svg", c->name,
		        args->word_count ? " with words" : "");
	if (args->show.json + args->show.plot + (args->show.svg != NULL) > 1)
		argp_error(state, "one of --json, --plot and --svg is possible");
	if (args->show.json && c->run == run_export)
		argp_error(state, "export has a format of its own");
	if (args->show.json && c->run == run_top && !args->show.batch)
		argp_error(state, "top --json needs --batch");
	if (args->where.every && (c->run == run_top || c->run == run_dump || c->takes & IS_GENERAL))
		argp_error(state, "%s takes no --all-instances", c->name);
	if (args->where.every && args->show.interval_s > 0)
		argp_error(state, "--interval is for one service");
	if (args->show.sockets.has_option && c->run != run_sockets)
		argp_error(state, "options of sockets with the command %s", c->name);
}

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->where;
		state->child_inputs[1] = &args->show;
		return 0;
	case OPT_JSON:
		args->show.json = true;
		return 0;
	case OPT_ALL:
		args->show.all = true;
		return 0;
	case OPT_INTERVAL:
		args->show.interval_s = interval_parse(arg, state);
		return 0;
	case OPT_COUNT:
		args->show.count = count_parse("--count", arg, state);
		args->has_count = true;
		return 0;
	case OPT_BATCH:
		args->show.count = count_parse("--batch", arg, state);
		args->show.batch = true;
		return 0;
	case OPT_PLOT:
		args->show.plot = true;
		return 0;
	case OPT_SVG:
		args->show.svg = arg;
		return 0;
	case ARGP_KEY_ARG:
		return word_parse(args, arg, state);
	case ARGP_KEY_END:
		if (!args->command)
			argp_error(state, "a command is missing");
		if (args->word_count < args->command->word_min)
			argp_error(state, "%s takes %s", args->command->name, args->command->words);
		options_check(args, state);
		args->show.word = args->word;
		args->show.word_count = args->word_count;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Adds to what stands below the options which of the service's can be set. */
static char *help_filter(int key, const char *text, void *input)
{
	char *list = NULL, *all = NULL;
	const char *before = "";
	size_t size;
	FILE *file;

	(void)input;
	if (key != ARGP_KEY_HELP_POST_DOC || !text || !(file = open_memstream(&list, &size)))
		return (char *)(uintptr_t)text;
	for (int i = 0; i < OPTION_COUNT; i++)
		if (cfg_option_live((enum option_id)i)) {
			fprintf(file, "%s%s", before, cfg_options[i].key);
			before = ", ";
		}
	if (fclose(file) || asprintf(&all, "KEY is one of: %s. pronk.conf(5) says what VALUE may be.\n\n%s",
	                            list, text) < 0)
		all = NULL;
	free(list);
	return all ? all : (char *)(uintptr_t)text;
}

static const struct argp_child children[] = {
        {&locate_argp, 0, NULL, 1}, {&show_sockets_argp, 0, NULL, 2}, {0}};

static const struct argp argp = {options, option_parse,
        "stats [NAME...]\nproto [PROTOCOL|NAME...]\ntop\nexport\nsockets [FILTER...]\narp\nroutes\nports\nnic\n"
        "interrupts\nconfig\nset KEY VALUE\nlatency [on|off|reset]\n"
        "inject [off|[rx FAULT VALUE...] [tx FAULT VALUE...] [seed NUMBER]]\nreset peaks\ninstances\ndump [FILE|-]",
        "Shows what a running Pronk service does: its statistics, its sockets, its port, its configuration; and "
        "changes what may change while it runs. A service that is stopped in a debugger is shown from its "
        "memory.\v"
        "FILTER is one or more of: state STATE, sport [OP] PORT, dport [OP] PORT, src ADDRESS[/PREFIX], "
        "dst ADDRESS[/PREFIX], pid N, fd N, program NAME, stack N. All must hold; OP is = != < <= > >=.\n\n"
        "FAULT is one of: loss, dup, reorder, corrupt (with a share as 1% or 0.05%), delay, jitter (with a time as 200us, "
        "5ms or 1s).\n\n"
        "Examples:\n"
        "  pronkctl sockets --wide state established dport = 6379\n"
        "  pronkctl sockets --kernel program redis-server\n"
        "  pronkctl -p $(pidof redis-server) ports\n"
        "  pronkctl latency on; sleep 10; pronkctl latency\n"
        "  pronkctl latency --interval 1\n"
        "  pronkctl inject rx loss 1% delay 5ms jitter 1ms tx dup 0.5% reorder 2% seed 42\n"
        "  pronkctl inject off\n"
        "  pronkctl set delayed_ack_ms 0\n"
        "  pronkctl dump /tmp/pronk.tar.gz",
        children, help_filter, NULL};

/* The command, once or again and again. */
static int command_repeat(struct attach *at, const struct args *args)
{
	double s = args->command->takes & TAKES_REPEAT ? args->show.interval_s : 0;
	struct timespec nap = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};

	for (uint32_t i = 1;; i++) {
		int rc = args->command->run(at, args);

		if (rc || !(s > 0) || i == args->show.count || fflush(stdout))
			return rc;
		nanosleep(&nap, NULL);
	}
}

/* The command for every service that this user may see. */
static int command_every(const struct args *args)
{
	struct instance *list = calloc(LOCATE_MAX, sizeof(*list));
	uint32_t count = list ? instances_find(list, LOCATE_MAX, &args->where) : 0;
	char err[ERR_SIZE];
	int result = count ? 0 : -ENOENT;

	if (!count)
		fprintf(stderr, "pronkctl: no service runs that this user may see\n");
	for (uint32_t i = 0; i < count; i++) {
		struct attach at;
		int rc = locate_instance(&at, &list[i], err, sizeof(err));

		if (args->show.json) {
			printf("%s{\"instance\": ", i ? ",\n" : "[");
			json_text(stdout, list[i].name);
			printf(", \"pid\": %d, \"result\": ", (int)list[i].pid);
		} else {
			printf("%s--- %s (pid %d)\n", i ? "\n" : "", list[i].name, (int)list[i].pid);
		}
		fflush(stdout);
		if (rc)
			fprintf(stderr, "pronkctl: %s\n", err);
		else if (!(rc = args->command->run(&at, args)))
			result = result ? result : 0;
		if (rc && args->show.json)
			printf("null\n");
		if (rc)
			result = rc;
		else
			attach_leave(&at);
		printf(args->show.json ? "}" : "");
	}
	printf(args->show.json && count ? "]\n" : "");
	free(list);
	return result;
}

int main(int argc, char **argv)
{
	struct args args = {0};
	char err[ERR_SIZE] = "";
	struct attach at;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	libc_init();
	if (args.command->takes & IS_GENERAL) {
		rc = command_repeat(NULL, &args);
	} else if (args.where.every) {
		rc = command_every(&args);
	} else if (locate(&at, &args.where, err, sizeof(err))) {
		fprintf(stderr, "pronkctl: %s\n", err);
		return 1;
	} else {
		rc = command_repeat(&at, &args);
		attach_leave(&at);
	}
	if (fflush(stdout) || ferror(stdout))
		rc = -EIO;
	return rc ? 1 : 0;
}
