/* pronkctl.c - looks into a running service: arguments, the table of commands, and `pronkctl config`.
 *
 * An observer maps the service's memory read-only and takes part in nothing, so it can neither disturb nor be
 * disturbed. What cannot be read there the service is asked for (`ask`). Which service is locate.c's; the
 * tables are in show_NAME.c.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <time.h>

#include "dump.h"
#include "libc.h"
#include "locate.h"
#include "show.h"

enum { OPT_JSON = 0x100, OPT_ALL, OPT_INTERVAL, OPT_COUNT, ERR_SIZE = 512 };

enum { WORD_MAX = 32 };

struct args {
	struct where where;
	const struct ctl_command *command;
	struct show show;
	const char *word[WORD_MAX]; /* what follows the command */
	int word_count;
};

/* One command. Runs with the service attached; 0, or -E after a message. */
struct ctl_command {
	const char *name;
	int word_min, word_max;
	const char *words; /* how they are called in messages */
	int (*run)(struct attach *at, const struct args *args);
};

/* What --interval runs again and again, and what is about no service in particular (at is NULL then). */
static bool command_is_repeated(const struct ctl_command *c)
{
	static const char *const names[] = {
	        "sockets", "arp", "routes", "ports", "nic", "interrupts", "instances"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(c->name, names[i]))
			return true;
	return false;
}
static bool command_is_general(const struct ctl_command *c)
{
	return !strcmp(c->name, "instances");
}

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

static const struct ctl_command commands[] = {
        {"stats", 0, 0, "", run_stats},
        {"sockets", 0, WORD_MAX, "", run_sockets},
        {"arp", 0, 0, "", run_arp},
        {"routes", 0, 0, "", run_routes},
        {"ports", 0, 0, "", run_ports},
        {"nic", 0, 0, "", ask},
        {"interrupts", 0, 0, "", run_interrupts},
        {"config", 0, 0, "", run_config},
        {"set", 2, 2, "OPTION VALUE", ask},
        {"instances", 0, 0, "", run_instances},
        {"dump", 0, 1, "", run_dump},
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
        {"all", OPT_ALL, NULL, 0, "stats: print those that are zero, too", 0},
        {"interval", OPT_INTERVAL, "SECONDS", 0, "Print again and again, so often", 0},
        {"count", OPT_COUNT, "N", 0, "With --interval: so many times; until somebody ends it without", 0},
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

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	char *end;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->where;
		state->child_inputs[1] = &args->show;
		return 0;
	case OPT_INTERVAL:
		args->show.interval_s = strtod(arg, &end);
		if (end == arg || *end || !(args->show.interval_s >= 0.01 && args->show.interval_s <= 86400))
			argp_error(
			        state, "--interval: \"%s\" is no number of seconds from 0.01 to 86400", arg);
		return 0;
	case OPT_COUNT:
		args->show.count = (uint32_t)strtoul(arg, &end, 10);
		if (arg[0] < '0' || arg[0] > '9' || *end || !args->show.count)
			argp_error(state, "--count: \"%s\" is no number from 1 on", arg);
		return 0;
	case OPT_JSON:
		args->show.json = true;
		return 0;
	case OPT_ALL:
		args->show.all = true;
		return 0;
	case ARGP_KEY_ARG:
		return word_parse(args, arg, state);
	case ARGP_KEY_END:
		if (!args->command)
			argp_error(state, "a command is missing");
		if (args->word_count < args->command->word_min)
			argp_error(state, "%s takes %s", args->command->name, args->command->words);
		if (args->show.interval_s > 0 && !command_is_repeated(args->command))
			argp_error(state, "%s knows no --interval", args->command->name);
		if (args->show.count && !(args->show.interval_s > 0))
			argp_error(state, "--count needs --interval");
		if (args->show.sockets.has_option && strcmp(args->command->name, "sockets") != 0)
			argp_error(state, "options of sockets with the command %s", args->command->name);
		args->show.word = args->word;
		args->show.word_count = args->word_count;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {
        {&locate_argp, 0, NULL, 1}, {&show_sockets_argp, 0, NULL, 2}, {0}};

static const struct argp argp = {options, option_parse,
        "stats\nsockets [FILTER...]\narp\nroutes\nports\nnic\ninterrupts\nconfig\nset OPTION VALUE\n"
        "instances\ndump [FILE]",
        "Shows what a running Pronk service does: its statistics, its sockets, its port, its configuration; and "
        "changes what may change while it runs. A service that is stopped in a debugger is shown from its "
        "memory.\v"
        "FILTER is one or more of: state STATE, sport [OP] PORT, dport [OP] PORT, src ADDRESS[/PREFIX], "
        "dst ADDRESS[/PREFIX], pid N, fd N, program NAME, stack N. All must hold; OP is = != < <= > >=.\n\n"
        "Examples:\n"
        "  pronkctl sockets --wide state established dport = 6379\n"
        "  pronkctl sockets --kernel program redis-server\n"
        "  pronkctl -p $(pidof redis-server) ports\n"
        "  pronkctl dump /tmp/pronk.tar.gz",
        children, NULL, NULL};

/* The command, once or again and again. */
static int command_repeat(struct attach *at, const struct args *args)
{
	double s = args->show.interval_s;
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
	if (command_is_general(args.command)) {
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
