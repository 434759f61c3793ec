/* pronkd.c - the service's main program: arguments, signals, becoming a daemon, and when to end.
 *
 * The main thread sits in one poll(2) on the signal descriptor and the engine's descriptor. Everything else
 * is src/engine. With --daemonize the process that was called stays until its child is ready, and tells
 * whether it is.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "cfg.h"
#include "clock.h"
#include "compiler.h"
#include "engine.h"
#include "pronkd_metrics.h"
#include "log.h"
#include "nic.h"
#include "systemd.h"

enum { FIRST_CLIENT_S = 30, ERR_SIZE = 512 };

enum { OPT_DAEMONIZE = 0x100, OPT_AUTOSTARTED, OPT_CHECK, OPT_DRIVERS };

struct args {
	const char *config;
	bool daemonize, autostarted, check;
};

const char *argp_program_version = "pronkd " PRONK_VERSION;

static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0,
                "Configuration file (default: $PRONK_CONFIG, else /etc/pronk/pronk.conf, else the one under the "
                "installation's sysconfdir, else built-in ones)",
                0},
        {"foreground", 'f', NULL, 0, "Stay in the foreground (default)", 0},
        {"daemonize", OPT_DAEMONIZE, NULL, 0, "Go to the background; return when the service is ready", 0},
        {"autostarted", OPT_AUTOSTARTED, NULL, 0,
                "Started for a program: end linger_s after the last client has left", 0},
        {"drivers", OPT_DRIVERS, NULL, 0,
                "Print the driver library's version and where its drivers are, and end", 0},
        {"check", OPT_CHECK, NULL, 0, "Check the configuration, also against this machine, and end", 0},
        {0},
};

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;

	switch (key) {
	case 'c':
		args->config = arg;
		return 0;
	case 'f':
		args->daemonize = false;
		return 0;
	case OPT_DAEMONIZE:
		args->daemonize = true;
		return 0;
	case OPT_AUTOSTARTED:
		args->autostarted = true;
		return 0;
	case OPT_CHECK:
		args->check = true;
		return 0;
	case OPT_DRIVERS:
		printf("%s\n%s\n", nic_library_version(), nic_driver_folder());
		exit(0);
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", arg);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, option_parse, NULL,
        "Runs Pronk's TCP/IP stacks for the programs of this machine that use libpronk.so.", NULL, NULL,
        NULL};

/* The service must not be its own client. */
static void preload_guard(char **argv)
{
	const char *preload = getenv("LD_PRELOAD");

	if (!preload || !strstr(preload, "libpronk"))
		return;
	unsetenv("LD_PRELOAD");
	execv("/proc/self/exe", argv);
	fprintf(stderr, "pronkd: cannot start again without the preload: %s\n", strerror(errno));
	exit(1);
}

static void limits_raise(void)
{
	struct rlimit limit, none = {RLIM_INFINITY, RLIM_INFINITY};

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	setrlimit(RLIMIT_MEMLOCK, &none); /* needs a privilege that not everybody has */
}

/* Blocks what we take through the descriptor, and ignores SIGPIPE for good: stacks write to descriptors of
 * clients. */
static int signals_open(sigset_t *saved)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, saved);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* --- daemonize --- */

/* In the calling process: waits for the child's word. Returns the exit status. */
static int daemon_await(pid_t child, int fd)
{
	char text[ERR_SIZE + 1];
	size_t used = 0;
	ssize_t n;

	while ((n = read(fd, text + used, ERR_SIZE - used)) > 0 || (n < 0 && errno == EINTR))
		used += n > 0 ? (size_t)n : 0;
	text[used] = 0;
	if (!strcmp(text, "ready"))
		return 0;
	waitpid(child, NULL, 0);
	fprintf(stderr, "pronkd: %s\n", used ? text : "the service ended while it was starting");
	return 1;
}

/* Goes to the background. In the child returns the descriptor to report through; the caller's process does
 * not return. */
static int daemon_start(void)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child < 0)
		return -errno;
	if (child) {
		close(fds[1]);
		exit(daemon_await(child, fds[0]));
	}
	close(fds[0]);
	setsid();
	if (chdir("/") < 0)
		return -errno;
	umask(022);
	return fds[1];
}

/* Standard descriptors of a daemon: nothing may hold its starter's. What would have gone to stderr goes to
 * the log file. */
static void daemon_detach(const char *log_path)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int file = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

	dup2(null, STDIN_FILENO);
	dup2(file >= 0 ? file : null, STDOUT_FILENO);
	dup2(file >= 0 ? file : null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
	if (file > STDERR_FILENO)
		close(file);
}

static void daemon_report(int *fd, const char *text)
{
	size_t size = strlen(text);

	if (*fd < 0)
		return;
	if (write(*fd, text, size) != (ssize_t)size)
		log_warning("the process that started this service is gone");
	close(*fd);
	*fd = -1;
}

/* --- the service manager --- */

static void manager_tell(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* systemd waits for this (Type=notify). */
static void manager_tell(const char *fmt, ...)
{
	char state[640];
	va_list args;
	int rc;

	va_start(args, fmt);
	vsnprintf(state, sizeof(state), fmt, args);
	va_end(args);
	rc = systemd_notify(state);
	if (rc)
		log_warning("cannot tell the service manager: %s", strerror(-rc));
}

/* --- the loop --- */

/* Nanoseconds until a service that nobody uses ends; UINT64_MAX: it does not. */
static uint64_t linger_left(
        const struct args *args, const struct cfg *cfg, uint64_t idle_since_ns, bool had_client)
{
	uint64_t limit_s = cfg->linger_s, now_ns = clock_now_ns(), limit_ns;

	if (!args->autostarted || !limit_s)
		return UINT64_MAX;
	if (!had_client && limit_s < FIRST_CLIENT_S)
		limit_s = FIRST_CLIENT_S;
	limit_ns = limit_s * CLOCK_NS_PER_S;
	return now_ns - idle_since_ns >= limit_ns ? 0 : limit_ns - (now_ns - idle_since_ns);
}

static bool is_journal;    /* messages go to the journal */
static bool is_log_remote; /* whoever started the service in the foreground does not see them */

/* Where messages go: a file's path in path, or NULL. Tells when that is not what was asked for. */
static const char *log_start(const struct args *args, const struct cfg *cfg, char *path, size_t size)
{
	bool is_stderr = !strcmp(cfg->log_file, "stderr");
	int rc;

	snprintf(path, size, "%s", cfg->log_file);
	if (is_stderr && systemd_is_stderr_journal() && !systemd_journal_open())
		snprintf(path, size, "journal");
	if (is_stderr && args->daemonize) {
		mkdir(cfg->runtime_dir, 0755);
		snprintf(path, size, "%s/%s.log", cfg->runtime_dir, cfg->name);
	}
	log_rate_set(cfg->log_rate);
	rc = log_open((enum log_level)cfg->log_level, path);
	is_journal = !rc && !strcmp(path, "journal");
	is_log_remote = !rc && (path[0] == '/' || (is_journal && !systemd_is_stderr_journal()));
	if (rc)
		log_warning("cannot write the log %s%s (%s): messages go to stderr",
		        path[0] == '/' ? "file " : "", path, strerror(-rc));
	return path[0] == '/' ? path : NULL;
}

/* The last line of a start that fails. The journal asks the kernel for the unit of who has sent a message,
 * and we are gone before that; of a stream it knows the unit, and takes the priority from the line
 * (sd-daemon(3)).
 */
static void stderr_tell(const char *err)
{
	fprintf(stderr, "%s%s\n", systemd_is_stderr_journal() ? "<3>" : "pronkd: ", err);
}

/* The start has failed: the log has it, and so has whoever waits for the service, or looks at its terminal.
 */
static void failure_tell(int *report_fd, const char *err)
{
	bool is_foreground = *report_fd < 0, is_stream = is_foreground && systemd_is_stderr_journal();

	if ((is_foreground || is_log_remote || is_journal) && !(is_journal && is_stream))
		log_error("%s", err);
	if (is_foreground && (is_log_remote || (is_journal && is_stream)))
		stderr_tell(err);
	daemon_report(report_fd, err);
	manager_tell("STATUS=%s", err);
}

/* The configuration itself is wrong, so nothing is known of where messages go. Returns the exit status: one
 * of its own, as another start can only fail in the same way (RestartPreventExitStatus of the unit).
 */
static int refusal_tell(const char *err)
{
	stderr_tell(err);
	manager_tell("STATUS=%s", err);
	return EX_CONFIG;
}

/* True when the signal asks to end. */
static bool signal_take(int fd, const struct cfg *cfg, const char *log_path)
{
	struct signalfd_siginfo info;
	int rc;

	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return false;
	if (info.ssi_signo == SIGHUP && is_journal)
		return false; /* there is nothing to open anew */
	if (info.ssi_signo != SIGHUP ||
	        !log_path) { /* without a log file, it means that the terminal has gone */
		log_notice("ending: signal %u from pid %u", info.ssi_signo, info.ssi_pid);
		return true;
	}
	rc = log_open((enum log_level)cfg->log_level, log_path);
	if (rc)
		log_error("cannot reopen %s: %s", log_path, strerror(-rc));
	return false;
}

static int run(const struct args *args, struct engine *e, int signal_fd, const char *log_path)
{
	uint64_t idle_since_ns = clock_now_ns();
	bool had_client = false;

	for (;;) {
		struct pollfd fds[] = {
		        {.fd = signal_fd, .events = POLLIN}, {.fd = engine_fd(e), .events = POLLIN}};
		uint64_t left_ns = engine_client_count(e)
		                           ? UINT64_MAX
		                           : linger_left(args, engine_cfg(e), idle_since_ns, had_client);
		int timeout = left_ns == UINT64_MAX ? -1 : (int)(left_ns / CLOCK_NS_PER_MS + 1);
		int n = poll(fds, 2, left_ns ? timeout : 0);

		if (n < 0 && errno != EINTR)
			return 1;
		if (fds[0].revents && signal_take(signal_fd, engine_cfg(e), log_path))
			return 0;
		if (engine_serve(e)) {
			log_error("ending: a stack thread has stopped");
			return 1;
		}
		if (engine_client_count(e)) {
			had_client = true;
			idle_since_ns = clock_now_ns();
		} else if (!left_ns && n == 0) {
			log_notice("ending: no client for %u s",
			        had_client ? engine_cfg(e)->linger_s : FIRST_CLIENT_S);
			return 0;
		}
	}
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct cfg cfg;
	struct engine *engine = NULL;
	struct metrics *metrics = NULL;
	const void *segment;
	size_t segment_size;
	char err[ERR_SIZE] = "", path[CFG_PATH_MAX + 64], text[512];
	const char *config, *log_path = NULL;
	int report_fd = -1, signal_fd, rc;
	sigset_t saved;

	preload_guard(argv);
	log_prefix("pronkd");
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	/* the manager of the program's unit waits for the program's word, not for ours */
	if (args.autostarted)
		unsetenv("NOTIFY_SOCKET");
	config = args.config ? args.config : cfg_default_path();
	rc = cfg_load(&cfg, config, err, sizeof(err));
	if (rc)
		return refusal_tell(err);
	if (args.check) {
		if (cfg_check_machine(&cfg, cfg.mode == CFG_MODE_DEDICATED, err, sizeof(err))) {
			fprintf(stderr, "pronkd: %s\n", err);
			return 1;
		}
		printf("OK: %s\n", config ? config : "no configuration file, the defaults hold");
		return 0;
	}
	limits_raise();
	if (args.daemonize) {
		report_fd = daemon_start();
		if (report_fd < 0) {
			fprintf(stderr, "pronkd: cannot go to the background: %s\n", strerror(-report_fd));
			return 1;
		}
	}
	log_path = log_start(&args, &cfg, path, sizeof(path));
	if (args.daemonize)
		daemon_detach(log_path ? log_path : "/dev/null");
	signal_fd = signals_open(&saved);

	rc = engine_start(&engine, &cfg, err, sizeof(err));
	if (rc == -EALREADY && args.autostarted) {
		daemon_report(&report_fd, "ready"); /* somebody was faster; that one will do */
		return 0;
	}
	if (rc) {
		failure_tell(&report_fd, err);
		return 1;
	}
	segment = engine_stats(engine, &segment_size);
	rc = metrics_start(&metrics, &cfg, segment, segment_size, err, sizeof(err));
	if (rc) {
		engine_stop(engine);
		failure_tell(&report_fd, err);
		return 1;
	}
	engine_describe(engine, text, sizeof(text));
	log_notice("ready: %s", text);
	daemon_report(&report_fd, "ready");
	manager_tell("READY=1\nSTATUS=%s", text);

	rc = run(&args, engine, signal_fd, log_path);
	manager_tell("STOPPING=1");
	/* should an orderly end ever hang, a second signal ends it the hard way */
	signal(SIGHUP, SIG_IGN);
	sigprocmask(SIG_SETMASK, &saved, NULL);
	metrics_stop(metrics);
	engine_stop(engine);
	log_close();
	close(signal_fd);
	return rc;
}
