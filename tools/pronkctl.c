/* pronkctl.c - looks into a running service: arguments, attaching as an observer, and `pronkctl config`.
 *
 * An observer maps the service's memory read-only and takes part in nothing, so it can neither disturb nor be
 * disturbed. The tables are in show_stats.c and show_sockets.c.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cfg.h"
#include "libc.h"
#include "show.h"

enum { OPT_JSON = 0x100, OPT_ALL, ERR_SIZE = 512 };

struct args {
	const char *config, *socket, *command;
	bool json, all;
};

const char *argp_program_version = "pronkctl " PRONK_VERSION;

static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0, "Configuration file that names the service (default: as pronkd's)", 0},
        {"socket", 's', "SOCKET", 0, "The service's socket, instead of a configuration file", 0},
        {"json", OPT_JSON, NULL, 0, "Print JSON", 0},
        {"all", OPT_ALL, NULL, 0, "stats: print those that are zero, too", 0},
        {0},
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	static const char *const commands[] = {"stats", "sockets", "config"};
	struct args *args = state->input;

	switch (key) {
	case 'c':
		args->config = arg;
		return 0;
	case 's':
		args->socket = arg;
		return 0;
	case OPT_JSON:
		args->json = true;
		return 0;
	case OPT_ALL:
		args->all = true;
		return 0;
	case ARGP_KEY_ARG:
		if (args->command)
			argp_error(state, "one command at a time");
		for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
			if (!strcmp(arg, commands[i]))
				args->command = commands[i];
		if (!args->command)
			argp_error(state, "unknown command \"%s\"", arg);
		return 0;
	case ARGP_KEY_END:
		if (!args->command)
			argp_error(state, "a command is missing: stats, sockets or config");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, option_parse, "stats|sockets|config",
        "Shows what a running Pronk service does: its statistics, its sockets, its configuration.", NULL,
        NULL, NULL};

static int show_config(struct attach *at, bool json)
{
	char *text = malloc(CTL_TEXT_MAX + 1);
	int rc = text ? attach_config_text(at, json, text, CTL_TEXT_MAX + 1) : -ENOMEM;

	if (rc < 0)
		fprintf(stderr, "pronkctl: the service does not tell its configuration: %s\n", strerror(-rc));
	else
		fputs(text, stdout);
	free(text);
	return rc < 0 ? rc : 0;
}

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
	if (!strcmp(args.command, "stats"))
		rc = show_stats(&at, args.json, args.all);
	else if (!strcmp(args.command, "sockets"))
		rc = show_sockets(&at, args.json);
	else
		rc = show_config(&at, args.json);
	attach_leave(&at);
	if (fflush(stdout) || ferror(stdout))
		rc = -EIO;
	return rc ? 1 : 0;
}
