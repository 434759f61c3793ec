/* pronkctl.c - looks into a running service: arguments, attaching as an observer, and `pronkctl config`.
 *
 * An observer maps the service's memory read-only and takes part in nothing, so it can neither disturb nor be
 * disturbed. What cannot be read there the service is asked for (`ask`). The tables are in show_stats.c and
 * show_sockets.c.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cfg.h"
#include "libc.h"
#include "show.h"

enum { OPT_JSON = 0x100, OPT_ALL, OPT_PLOT, OPT_SVG, OPT_INTERVAL, OPT_COUNT, ERR_SIZE = 512 };

enum { WORD_MAX = 32 };

struct args {
	const char *config, *socket;
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

/* Has the service run the command with the words as they were given. */
static int ask(struct attach *at, const struct args *args)
{
	char words[CTL_WORDS_MAX + 1], *text = malloc(CTL_TEXT_MAX + 1);
	size_t used = (size_t)snprintf(words, sizeof(words), "%s", args->command->name);
	int rc;

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
	char *text = malloc(CTL_TEXT_MAX + 1);
	int rc = text ? attach_config_text(at, args->show.json, text, CTL_TEXT_MAX + 1) : -ENOMEM;

	if (rc < 0)
		fprintf(stderr, "pronkctl: the service does not tell its configuration: %s\n", strerror(-rc));
	else
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

/* With a word the service changes something; without one the times are shown, whatever it does. */
static int run_latency(struct attach *at, const struct args *args)
{
	return args->word_count ? ask(at, args) : show_latency(at, &args->show);
}

static const struct ctl_command commands[] = {
        {"stats", 0, 0, "", run_stats},
        {"sockets", 0, 0, "", run_sockets},
        {"config", 0, 0, "", run_config},
        {"set", 2, 2, "OPTION VALUE", ask},
        {"latency", 0, 1, "[on|off|reset]", run_latency},
        {"inject", 0, WORD_MAX - 1, "[off|rx FAULT VALUE... tx FAULT VALUE... seed NUMBER]", ask},
};

const char *argp_program_version = "pronkctl " PRONK_VERSION;

static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0, "Configuration file that names the service (default: as pronkd's)", 0},
        {"socket", 's', "SOCKET", 0, "The service's socket, instead of a configuration file", 0},
        {"json", OPT_JSON, NULL, 0, "Print JSON", 0},
        {"all", OPT_ALL, NULL, 0, "stats: print those that are zero, too", 0},
        {"interval", OPT_INTERVAL, "SECONDS", 0,
                "latency: print what was counted in every such interval, until ended", 0},
        {"count", OPT_COUNT, "NUMBER", 0, "End after so many intervals", 0},
        {"plot", OPT_PLOT, NULL, 0, "latency: bars of text", 0},
        {"svg", OPT_SVG, "FILE", 0, "latency: write a plot to FILE (-: to stdout)", 0},
        {0},
};

/* A number above 0, or an end with a message. */
static double number_parse(
        const char *text, double max, bool is_whole, const char *what, struct argp_state *state)
{
	char *end;
	double n = strtod(text, &end);

	if (end == text || *end || !(n > 0) || n > max || (is_whole && n != (double)(uint32_t)n))
		argp_error(state, "%s: \"%s\" is not possible (allowed: %snumbers above 0, up to %.0f)", what,
		        text, is_whole ? "whole " : "", max);
	return n;
}

static error_t word_parse(struct args *args, const char *arg, struct argp_state *state)
{
	if (args->command) {
		if (args->word_count == WORD_MAX || args->word_count == args->command->word_max)
			argp_error(state, "too many words for %s", args->command->name);
		args->word[args->word_count++] = arg;
		return 0;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(arg, commands[i].name))
			args->command = &commands[i];
	if (!args->command)
		argp_error(state, "unknown command \"%s\"", arg);
	return 0;
}

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case 'c':
		args->config = arg;
		return 0;
	case 's':
		args->socket = arg;
		return 0;
	case OPT_JSON:
		args->show.json = true;
		return 0;
	case OPT_ALL:
		args->show.all = true;
		return 0;
	case OPT_PLOT:
		args->show.plot = true;
		return 0;
	case OPT_SVG:
		args->show.svg = arg;
		return 0;
	case OPT_INTERVAL:
		args->show.interval_s = number_parse(arg, 86400, false, "--interval", state);
		return 0;
	case OPT_COUNT:
		args->show.count = (uint32_t)number_parse(arg, 1e9, true, "--count", state);
		return 0;
	case ARGP_KEY_ARG:
		return word_parse(args, arg, state);
	case ARGP_KEY_END:
		if (!args->command)
			argp_error(state, "a command is missing");
		if (args->word_count < args->command->word_min)
			argp_error(state, "%s takes %s", args->command->name, args->command->words);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, option_parse,
        "stats\nsockets\nconfig\nset OPTION VALUE\nlatency [on|off|reset]\n"
        "inject [off|[rx FAULT VALUE...] [tx FAULT VALUE...] [seed NUMBER]]",
        "Shows what a running Pronk service does: its statistics, its sockets, its configuration; and "
        "changes what may change while it runs.\v"
        "Faults of inject: loss, dup, reorder and corrupt with a share (1%, 0.05%), delay and jitter with a time (200us, 5ms, 1s).\n"
        "Examples:\n"
        "  pronkctl latency on; sleep 10; pronkctl latency\n"
        "  pronkctl latency --interval 1\n"
        "  pronkctl inject rx loss 1% delay 5ms jitter 1ms tx dup 0.5% reorder 2% seed 42\n"
        "  pronkctl inject off\n"
        "  pronkctl set delayed_ack_ms 0",
        NULL, NULL, NULL};

int main(int argc, char **argv)
{
	struct args args = {0};
	char err[ERR_SIZE] = "", path[CFG_SOCKET_PATH_MAX];
	struct attach at;
	struct cfg cfg;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	libc_init();
	if (args.socket) {
		snprintf(path, sizeof(path), "%s", args.socket);
	} else {
		if (cfg_load(&cfg, args.config ? args.config : cfg_default_path(), err, sizeof(err))) {
			fprintf(stderr, "pronkctl: %s\n", err);
			return 1;
		}
		cfg_socket_path(&cfg, path, sizeof(path));
	}
	if (attach_join(&at, path, CTL_OBSERVER, err, sizeof(err))) {
		fprintf(stderr, "pronkctl: %s\n", err);
		return 1;
	}
	rc = args.command->run(&at, &args);
	attach_leave(&at);
	if (fflush(stdout) || ferror(stdout))
		rc = -EIO;
	return rc ? 1 : 0;
}
