/* pronk_setup.c - `pronk setup`: writes a configuration for a NIC from what the kernel knows of it, reserves
 * hugepages and binds a driver where it is asked to, and takes all of it back.
 *
 * Order: the plan, which changes nothing; then the file, which is refused most often and goes without harm;
 * hugepages; and the driver last, since an interface that goes and comes loses more than can be noted. Each
 * is noted in the record before it is done. A failure takes back what this run did.
 */
#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libc.h"
#include "lock.h"
#include "setup.h"

#define STATE_DIR "/var/lib/pronk"
#define CONFIG_DEFAULT "/etc/pronk/pronk.conf"

enum {
	OPT_DEVICE = 0x100,
	OPT_OUT,
	OPT_PROFILE,
	OPT_PAGES,
	OPT_BIND,
	OPT_ADDRESS,
	OPT_DRY,
	OPT_FORCE,
	OPT_UNDO,
	OPT_STATE
};

struct args {
	struct plan plan;
	bool undo;
	char out[PATH_MAX];
};

static const struct argp_option options[] = {
        {"device", OPT_DEVICE, "X", 0,
                "The NIC: an interface's name (setup chooses the kind), afxdp:IF, afpacket:IF, tap:NAME, auto, or a PCI "
                "address",
                0},
        {"out", OPT_OUT, "FILE", 0,
                "Write this file (default: " CONFIG_DEFAULT "); - prints it and changes nothing", 0},
        {"profile", OPT_PROFILE, "P", 0, "latency, balanced (default) or throughput", 0},
        {"address", OPT_ADDRESS, "A.B.C.D/N", 0,
                "Address of the port, where the kernel's is not to be taken, or there is none", 0},
        {"hugepages", OPT_PAGES, "N", 0,
                "Have at least N hugepages of 2 MB, on the NIC's NUMA node; auto: as many as are needed", 0},
        {"bind", OPT_BIND, "DRIVER", 0, "Give the PCI device to this driver (vfio-pci)", 0},
        {"dry-run", OPT_DRY, NULL, 0, "Print the file and what would be done; change nothing", 0},
        {"force", OPT_FORCE, NULL, 0, "Do it although something speaks against it: it says what", 0},
        {"undo", OPT_UNDO, "FILE", OPTION_ARG_OPTIONAL,
                "Take back everything that setup did for FILE (default: as for --out)", 1},
        {"state", OPT_STATE, "DIR", 0, "Where it is noted what was changed (default: " STATE_DIR ")", 1},
        {0},
};

/* Also refuses what the option's table refuses. */
static void profile_set(struct plan *p, const char *arg, struct argp_state *state)
{
	if (cfg_choice_find(OPTION_profile, arg) < 0)
		argp_error(state, "--profile \"%s\" (allowed: latency, balanced, throughput)", arg);
	p->profile = arg;
}

static void pages_set(struct plan *p, const char *arg, struct argp_state *state)
{
	char *end;

	if (!strcmp(arg, "auto")) {
		p->pages = -2;
		return;
	}
	errno = 0;
	p->pages = strtol(arg, &end, 10);
	if (errno || end == arg || *end || p->pages < 1 || p->pages > 1 << 24)
		argp_error(state, "--hugepages \"%s\" (allowed: auto, or 1 to %d)", arg, 1 << 24);
}

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	struct plan *p = &args->plan;

	switch (key) {
	case OPT_DEVICE:
		p->device = arg;
		return 0;
	case OPT_OUT:
		p->out = arg;
		return 0;
	case OPT_PROFILE:
		profile_set(p, arg, state);
		return 0;
	case OPT_ADDRESS:
		p->address = arg;
		return 0;
	case OPT_PAGES:
		pages_set(p, arg, state);
		return 0;
	case OPT_BIND:
		if (strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") !=
		                strlen(arg) ||
		        !*arg)
			argp_error(state,
			        "--bind \"%s\" is not a driver's name (allowed: letters, digits, - and _)",
			        arg);
		p->driver = arg;
		return 0;
	case OPT_DRY:
		p->dry_run = true;
		return 0;
	case OPT_FORCE:
		p->force = true;
		return 0;
	case OPT_UNDO:
		args->undo = true;
		if (arg)
			p->out = arg;
		return 0;
	case OPT_STATE:
		p->state_dir = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (args->undo && state->arg_num == 0) {
			p->out = arg;
			return 0;
		}
		argp_error(state, "unexpected argument \"%s\"", arg);
		return EINVAL;
	case ARGP_KEY_END:
		if (!args->undo && !p->device)
			argp_error(state, "which NIC? --device X, or --undo");
		if (args->undo && (p->device || p->driver || p->pages != -1 || p->address))
			argp_error(state, "--undo stands alone, with FILE, --force or --state DIR");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, option_parse, "--device X\n--undo [FILE]",
        "Writes a commented configuration for a NIC from what the kernel knows of it, and on demand reserves hugepages "
        "and binds a driver. Everything is noted before it is changed, and --undo takes it back, also after a setup that "
        "failed or was killed. Running it twice is harmless.\v"
        "Examples:\n"
        "  # pronk setup --device eth1\n"
        "  # pronk setup --device afpacket:eth0 --address 192.0.2.77/24 --out /etc/pronk/eth0.conf\n"
        "  # pronk setup --device 0000:3b:00.0 --bind vfio-pci --hugepages auto --profile latency\n"
        "  # pronk setup --undo /etc/pronk/eth0.conf\n",
        NULL, NULL, NULL};

/* The configuration's own service, so that nothing is taken away under it. */
static bool service_runs(const char *path)
{
	char socket[CFG_SOCKET_PATH_MAX], err[LINE_SIZE];
	struct cfg cfg;

	if (cfg_load(&cfg, path, err, sizeof(err)))
		return false;
	cfg_socket_path(&cfg, socket, sizeof(socket));
	return !socket_probe(socket);
}

static int undo(struct args *args, const struct machine *m)
{
	const struct plan *p = &args->plan;
	char err[LINE_SIZE];
	struct setup_state *s;
	int left;

	if (!p->force && service_runs(p->out)) {
		fprintf(stderr, "pronk: a service runs with %s: `pronk stop -c %s` first, or --force\n",
		        p->out, p->out);
		return 1;
	}
	s = state_open(p->state_dir, p->out, err, sizeof(err));
	if (!s) {
		fprintf(stderr, "pronk: %s\n", err);
		return 1;
	}
	if (state_is_empty(s))
		printf("nothing to take back for %s\n", p->out);
	left = state_undo(s, m, p->force, stdout);
	state_close(s);
	return left ? 1 : 0;
}

int setup_apply(const struct plan *p, const struct machine *m)
{
	char err[LINE_SIZE] = "out of memory";
	struct setup_state *s = state_open(p->state_dir, p->out, err, sizeof(err));
	int rc = s ? state_file(s, p->out, p->config, p->force, err, sizeof(err)) : -EIO;

	if (!rc && p->pages > 0)
		rc = state_pages(s, m, p->pages_path, p->pages, err, sizeof(err));
	if (!rc && p->driver)
		rc = state_module(s, m, p->driver, err, sizeof(err));
	if (!rc && p->driver)
		rc = state_bind(s, m, p->name, p->driver, p->has_iface ? &p->iface : NULL, err, sizeof(err));
	if (rc) {
		fprintf(stderr, "pronk: %s\n", err);
		if (s && !state_roll_back(s, m, stderr))
			fprintf(stderr, "pronk: nothing was changed\n");
	}
	state_close(s);
	return rc;
}

static int apply(struct args *args, struct machine *m)
{
	struct plan *p = &args->plan;

	if (setup_apply(p, m))
		return 1;
	printf("%s: device %s (%s)\n", p->out, p->text, p->why);
	if (p->pages > 0)
		printf("hugepages: %s is %ld\n", p->pages_path, machine_number(m, "%s", p->pages_path));
	if (p->driver)
		printf("driver: %s has %s\n", p->name, p->driver);
	else if (p->kind == CFG_DEVICE_PCI)
		printf("the device must be bound before it can be used: pronk setup --device %s --bind vfio-pci\n",
		        p->name);
	printf("next: pronk check -c %s; pronk run -c %s PROGRAM; pronk setup --undo %s%s%s takes all of it back\n",
	        p->out, p->out, p->out, strcmp(p->state_dir, STATE_DIR) ? " --state " : "",
	        strcmp(p->state_dir, STATE_DIR) ? p->state_dir : "");
	if (service_runs(p->out))
		printf("a service runs with this configuration, and keeps what it has: pronk stop -c %s\n",
		        p->out);
	return 0;
}

static void dry_run(const struct plan *p, const struct machine *m)
{
	fputs(p->config, stdout);
	fflush(stdout);
	fprintf(stderr, "would write %s (device %s: %s)\n", p->out, p->text, p->why);
	if (p->pages > 0)
		fprintf(stderr, "would have at least %ld in %s (now %ld)\n", p->pages, p->pages_path,
		        machine_number(m, "%s", p->pages_path));
	if (p->driver)
		fprintf(stderr, "would bind %s to %s\n", p->name, p->driver);
}

int setup_main(int argc, char **argv)
{
	struct args *args = calloc(1, sizeof(*args));
	struct machine *m = calloc(1, sizeof(*m));
	struct plan *p = args ? &args->plan : NULL;
	char err[LINE_SIZE] = "";
	struct cfg cfg;
	int rc = 1;

	if (!args || !m) {
		fputs("pronk: out of memory\n", stderr);
		goto out;
	}
	libc_init();
	p->pages = -1;
	p->out = CONFIG_DEFAULT;
	p->profile = "balanced";
	p->state_dir = STATE_DIR;
	argp_parse(&argp, argc, argv, 0, NULL, args);
	if (!strcmp(p->out, "-")) {
		p->dry_run = true;
	} else if (p->out[0] != '/') {
		/* the record goes by the whole path; the file need not be there yet */
		char cwd[PATH_MAX / 2];

		if (!getcwd(cwd, sizeof(cwd)) || snprintf(args->out, sizeof(args->out), "%s/%s", cwd,
		                                         p->out) >= (int)sizeof(args->out)) {
			fprintf(stderr, "pronk: the path of %s is too long\n", p->out);
			goto out;
		}
		p->out = args->out;
	}
	if (!p->dry_run && geteuid() != 0) {
		fprintf(stderr, "pronk: setup changes the machine and needs root (--dry-run does not)\n");
		goto out;
	}
	cfg_defaults(&cfg);
	machine_probe(m, &cfg);
	if (args->undo) {
		rc = undo(args, m);
		goto out;
	}
	if (plan_make(p, m, err, sizeof(err))) {
		fprintf(stderr, "pronk: %s\n", err);
		goto out;
	}
	if (p->dry_run) {
		dry_run(p, m);
		rc = 0;
	} else {
		rc = apply(args, m);
	}
out:
	free(args);
	free(m);
	return rc;
}
