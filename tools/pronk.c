/* pronk.c - the launcher: runs a program under Pronk, and asks for or ends the service.
 *
 * `pronk run` makes sure that a service runs, puts the preload library into the environment and becomes the
 * program, whose exit status is therefore its own. Nothing of this process is left after that.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"
#include "autostart.h"
#include "cfg.h"
#include "clock.h"
#include "configs.h"
#include "libc.h"
#include "lock.h"
#include "proc_fs.h"

enum {
	EXIT_OWN = 125, /* as env(1), timeout(1) and others do: it was the launcher that failed */
	EXIT_NO_EXEC = 126,
	EXIT_NO_PROGRAM = 127,
	ANSWER_TOLD_MS = 500,  /* when it is told that a service which cannot answer is waited for, */
	ANSWER_SLOW_MS = 2000, /* and one of which nothing is known */
	ANSWER_LIMIT_MS = 5000,
	STOP_LIMIT_MS = 15000,
	NEXT_LIMIT_MS = 3000,
	NEXT_STEP_MS = 20,
	PROCESS_NAME_SIZE = 32,
	ERR_SIZE = 512,
	LONG_ERR_SIZE = ERR_SIZE + CFG_FILE_PATH_MAX + 64, /* with a path in it */
};

static const char usage[] =
        "Usage: pronk run [-c FILE]... [--] PROGRAM [ARGUMENTS]   run a program with Pronk's network stack\n"
        "       pronk status [-c FILE]                         tell whether the service runs, and what it serves\n"
        "       pronk stop [-c FILE]                           end the service\n"
        "       pronk check [-c FILE]... [--json]              look whether this machine has what the configuration needs\n"
        "       pronk setup --device X [OPTION...]             write a configuration for a NIC; --undo takes it back\n"
        "       pronk version\n"
        "\n"
        "Examples:\n"
        "  # pronk run redis-server --bind 0.0.0.0 --protected-mode no\n"
        "  # pronk setup --device eth1 --out /etc/pronk/eth1.conf\n"
        "  # pronk check -c /etc/pronk/eth1.conf\n"
        "  # pronk run -c /etc/pronk/eth1.conf -c /etc/pronk/eth2.conf nginx     # two NICs, a service each\n"
        "`pronk check --help` and `pronk setup --help` have their options, pronk(1) the rest.\n";

/* --- who runs --- */

/* Who listens at the socket; 0 when the kernel cannot name it here, or -E. */
static int service_pid(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ucred cred = {0};
	socklen_t size = sizeof(cred);
	/* who is stopped for long accepts nobody, and a blocking call would wait for that */
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc = 0;

	if (fd < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		rc = -errno;
	close(fd);
	return rc ? rc : cred.pid;
}

static bool is_nobody(int rc)
{
	return rc == -ENOENT || rc == -ECONNREFUSED;
}

/* Takes the process's number twice. */
#define STOPPED_TEXT "process %d is stopped by a signal or a debugger; `kill -CONT %d` undoes the signal"

/* --- pronk run --- */

/* The preload library: of the same build tree as this program, or the installed one. */
static int library_find(char *buf, size_t size)
{
	char exe[PATH_MAX], path[PATH_MAX + 32], *slash;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (n > 0) {
		exe[n] = 0;
		slash = strrchr(exe, '/');
		*slash = 0;
		snprintf(path, sizeof(path), "%s/../preload/libpronk.so", exe);
		if (realpath(path, exe) && strlen(exe) < size) {
			strcpy(buf, exe);
			return 0;
		}
	}
	snprintf(buf, size, "%s", LIBPRONK_PATH);
	return access(buf, R_OK) < 0 ? -errno : 0;
}

static int preload_set(char *err, size_t err_size)
{
	const char *old = getenv("LD_PRELOAD");
	char path[PATH_MAX], *value = NULL;
	int rc = library_find(path, sizeof(path));

	if (rc) {
		snprintf(err, err_size, "libpronk.so is missing (%s: %s)", path, strerror(-rc));
		return rc;
	}
	if (strpbrk(path, " :")) {
		snprintf(err, err_size, "%s: the loader takes no path with a space or colon in it", path);
		return -EINVAL;
	}
	if (old && strstr(old, path))
		return 0;
	if (asprintf(&value, "%s%s%s", path, old && *old ? ":" : "", old ? old : "") < 0)
		return -ENOMEM;
	rc = setenv("LD_PRELOAD", value, 1) < 0 ? -errno : 0;
	free(value);
	return rc;
}

/* The line of a configuration text that begins with the same key, or NULL. */
static const char *line_of(const char *text, const char *line)
{
	size_t n = strcspn(line, "=") + 1;

	while (text && *text && strncmp(text, line, n)) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text && *text ? text : NULL;
}

/* A question to the service, in a thread of its own: where nobody takes what is sent, even connecting may
 * wait for ever. */
struct question {
	char path[CFG_SOCKET_PATH_MAX];
	char theirs[CTL_TEXT_MAX]; /* out: its configuration, "" when it does not tell */
	char err[ERR_SIZE];
	int rc; /* out: of attach_join, which waits ANSWER_LIMIT_MS */
	bool is_answered;
	pthread_mutex_t lock;
	pthread_cond_t cond;
};

static void *question_ask(void *arg)
{
	struct question *q = arg;
	struct attach at;
	int rc = attach_join(&at, q->path, CTL_OBSERVER, q->err, sizeof(q->err));

	if (!rc && attach_config_text(&at, false, q->theirs, sizeof(q->theirs)) < 0)
		q->theirs[0] = 0;
	if (!rc)
		attach_leave(&at);
	pthread_mutex_lock(&q->lock);
	q->rc = rc;
	q->is_answered = true;
	pthread_cond_signal(&q->cond);
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static bool question_wait(struct question *q, uint64_t until_ns)
{
	struct timespec t = {(time_t)(until_ns / CLOCK_NS_PER_S), (long)(until_ns % CLOCK_NS_PER_S)};
	bool is_answered;

	pthread_mutex_lock(&q->lock);
	while (!q->is_answered && pthread_cond_timedwait(&q->cond, &q->lock, &t) != ETIMEDOUT)
		;
	is_answered = q->is_answered;
	pthread_mutex_unlock(&q->lock);
	return is_answered;
}

static void wait_tell(const struct cfg *cfg, int pid)
{
	fprintf(stderr, "pronk: service \"%s\" does not answer: waiting for it, %d s at most", cfg->name,
	        ANSWER_LIMIT_MS / 1000);
	if (pid > 0 && proc_is_stopped(pid))
		fprintf(stderr, " (" STOPPED_TEXT ")", pid, pid);
	fputc('\n', stderr);
}

/* Asks the service for its configuration. *out is the caller's to free; NULL when there was nobody to ask, or
 * no memory. Without an answer the thread stays, and what it writes to. -ETIMEDOUT, with err filled, when the
 * service does not answer; else 0. */
static int service_ask(const struct cfg *cfg, struct question **out, char *err, size_t err_size)
{
	struct question *q = calloc(1, sizeof(*q));
	uint64_t start_ns = clock_now_ns();
	pthread_condattr_t attr;
	pthread_t thread;
	int pid, rc;

	*out = NULL;
	if (!q)
		return 0;
	cfg_socket_path(cfg, q->path, sizeof(q->path));
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->cond, &attr);
	pthread_condattr_destroy(&attr);
	if (pthread_create(&thread, NULL, question_ask, q)) {
		free(q);
		return 0;
	}
	if (!question_wait(q, start_ns + ANSWER_TOLD_MS * CLOCK_NS_PER_MS)) {
		pid = service_pid(q->path);
		/* one that is merely slow may answer any moment */
		if (pid == -EAGAIN || (pid > 0 && proc_is_stopped(pid)) ||
		        !question_wait(q, start_ns + ANSWER_SLOW_MS * CLOCK_NS_PER_MS))
			wait_tell(cfg, pid);
		if (!question_wait(q, start_ns + (ANSWER_LIMIT_MS + ANSWER_TOLD_MS) * CLOCK_NS_PER_MS)) {
			snprintf(err, err_size, "the service at %s does not answer", q->path);
			return -ETIMEDOUT;
		}
	}
	pthread_join(thread, NULL);
	rc = q->rc == -ETIMEDOUT ? -ETIMEDOUT : 0;
	if (rc)
		snprintf(err, err_size, "%s", q->err);
	if (q->rc)
		free(q);
	else
		*out = q;
	return rc;
}

/* Says which options of ours the running service does not have: it was started with others, and keeps them.
 */
static void differences_tell(const struct cfg *cfg, const char *theirs)
{
	/* matters of this side, or of the start only */
	static const char *const own[] = {"autostart ", "strict ", "log_", "rules ", "  { "};
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);

	if (!file || cfg_dump(cfg, file, false) || fflush(file))
		goto out;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		const char *origin = strstr(line, "; # "), *other = line_of(theirs, line);
		size_t n = origin ? (size_t)(origin - line) : 0;
		bool is_own = false;

		for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
			is_own |= !strncmp(line, own[i], strlen(own[i]));
		/* what nobody asked for here is no difference */
		if (!origin || is_own || !other || !strncmp(origin + 4, "default", 7) ||
		        !strncmp(origin + 4, "profile", 7))
			continue;
		if (strncmp(other, line, n) || other[n] != ';')
			fprintf(stderr, "pronk: the running service keeps %.*s (here: %.*s)\n",
			        (int)strcspn(other, ";\n"), other, (int)n, line);
	}
out:
	if (file)
		fclose(file);
	free(text);
}

/* The rule that leaves everything a program could open to the kernel, or 0. */
static unsigned rule_forbids(struct cfg *cfg, const char *program)
{
	const char *slash = strrchr(program, '/');
	struct cfg_rule_process who = {
	        .name = slash ? slash + 1 : program, .executable = "", .uid = geteuid()};

	cfg_rules_resolve(cfg);
	return cfg_rules_forbid(cfg, &who, who.uid == 0, CFG_ROLES_ALL);
}

/* Whether the service of file number i is one of those before it: the library leaves that file out. */
static bool is_repeated(const struct cfg *cfgs, unsigned i)
{
	char path[CFG_SOCKET_PATH_MAX], other[CFG_SOCKET_PATH_MAX];

	cfg_socket_path(&cfgs[i], path, sizeof(path));
	for (unsigned k = 0; k < i; k++) {
		cfg_socket_path(&cfgs[k], other, sizeof(other));
		if (!strcmp(path, other))
			return true;
	}
	return false;
}

/* Why the library will leave file number i out, whatever runs: two files for one service, or a second stack
 * in the program. False: it will not. */
static bool is_left_out(const struct cfg *cfgs, unsigned i, char *err, size_t err_size)
{
	char path[CFG_SOCKET_PATH_MAX];

	if (is_repeated(cfgs, i)) {
		snprintf(err, err_size, "another file has the name %s already", cfgs[i].name);
		return true;
	}
	cfg_socket_path(&cfgs[i], path, sizeof(path));
	for (unsigned k = 0; k < i && cfgs[i].mode == CFG_MODE_INLINE; k++)
		/* one that runs in another program is a service like any other */
		if (cfgs[k].mode == CFG_MODE_INLINE && !is_repeated(cfgs, k) && service_pid(path) <= 0) {
			snprintf(err, err_size,
			        "mode = inline: a program has one stack, and an earlier file has it");
			return true;
		}
	return false;
}

/* Makes sure that the services of all files run. How many do not; err has why, by file when there are
 * several, for the first of them. */
static unsigned services_ensure(
        const struct cfg *cfgs, const struct cfg_files *files, unsigned count, char *err, size_t err_size)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < count; i++) {
		const char *path = files->count ? files->path[i] : NULL;
		struct question *question = NULL;
		char reason[ERR_SIZE] = "";
		int rc = 0;

		if (is_left_out(cfgs, i, reason, sizeof(reason)))
			rc = -EEXIST;
		/* mode inline: the program starts what it needs itself */
		if (!rc && cfgs[i].mode != CFG_MODE_INLINE)
			rc = service_ensure(&cfgs[i], path, reason, sizeof(reason));
		if (!rc)
			rc = service_ask(&cfgs[i], &question, reason, sizeof(reason));
		if (question)
			differences_tell(&cfgs[i], question->theirs);
		free(question);
		if (rc && !bad++)
			snprintf(err, err_size, "%s%s%s", count > 1 ? path : "", count > 1 ? ": " : "",
			        reason);
	}
	return bad;
}

/* cfgs: of the files, or the defaults when there is none. */
static int run(struct cfg *cfgs, const struct cfg_files *files, char **argv)
{
	char err[LONG_ERR_SIZE] = "", rule[PATH_MAX + 32];
	unsigned number = rule_forbids(&cfgs[0], argv[0]), count = files->count ? files->count : 1, bad = 0;
	int rc = configs_export(files);

	if (number) { /* what it starts in its turn may be another program: the library goes with it */
		cfg_rule_text(&cfgs[0], number, rule, sizeof(rule));
		fprintf(stderr, "pronk: %s leaves %s to the kernel's network stack\n", rule, argv[0]);
	}
	if (rc)
		snprintf(err, sizeof(err), "%s", strerror(-rc));
	else if (!number)
		bad = services_ensure(cfgs, files, count, err, sizeof(err));
	/* when some run, the library finds out about the others itself, and says so: one may come later */
	if (!rc && (bad == count || (bad && cfgs[0].strict)))
		rc = -ENOENT;
	if (!rc)
		rc = preload_set(err, sizeof(err));
	if (rc && cfgs[0].strict) {
		fprintf(stderr, "pronk: %s; not run, because option strict is on\n", err);
		return EXIT_OWN;
	}
	if (rc)
		fprintf(stderr, "pronk: %s; %s runs on the kernel's network stack\n", err, argv[0]);
	execvp(argv[0], argv);
	rc = errno;
	fprintf(stderr, "pronk: cannot run %s: %s\n", argv[0], strerror(rc));
	return rc == ENOENT ? EXIT_NO_PROGRAM : EXIT_NO_EXEC;
}

/* --- pronk status, pronk stop --- */

static uint32_t clients_count(const struct arena *a)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < a->client_count; i++)
		n += atomic_load(&arena_client(a, i)->state) == CLIENT_ACTIVE;
	return n;
}

static uint32_t sockets_count(const struct arena *a)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < a->endpoint_count; i++)
		n += atomic_load_explicit(&a->endpoints[i].state, memory_order_relaxed) != EP_FREE;
	return n;
}

static int status(const char *socket_path)
{
	char err[ERR_SIZE] = "";
	struct attach at;
	const struct arena_header *h;
	struct timespec now;
	int pid = service_pid(socket_path), rc = -ETIMEDOUT;

	/* where no more callers are let in, one more would wait for ever */
	if (pid == -EAGAIN)
		snprintf(err, sizeof(err), "the service at %s has not answered for long", socket_path);
	else
		rc = attach_join(&at, socket_path, CTL_OBSERVER, err, sizeof(err));
	if (rc == -ETIMEDOUT) {
		printf("running, but not answering: %s", err);
		if (pid > 0 && proc_is_stopped(pid))
			printf(" (" STOPPED_TEXT ")", pid, pid);
		else if (pid > 0)
			printf(" (pid %d)", pid);
		putchar('\n');
		return 1;
	}
	if (rc) {
		printf("%s: %s\n", is_nobody(rc) ? "not running" : "not usable", err);
		return 1;
	}
	h = at.arena.hdr;
	clock_gettime(CLOCK_REALTIME, &now);
	printf("running: pid %d, up %lld s, device %s, address %u.%u.%u.%u/%u, %u stack%s, %u client%s, %u socket%s\n",
	        h->service_pid, (long long)now.tv_sec - (long long)(h->start_time_ns / 1000000000), h->device,
	        h->address[0], h->address[1], h->address[2], h->address[3], h->prefix, h->stack_count,
	        h->stack_count == 1 ? "" : "s", clients_count(&at.arena),
	        clients_count(&at.arena) == 1 ? "" : "s", sockets_count(&at.arena),
	        sockets_count(&at.arena) == 1 ? "" : "s");
	attach_leave(&at);
	return 0;
}

/* "" when the kernel does not say. */
static void process_name(int pid, char *buf, size_t size)
{
	char path[32];
	FILE *file;

	buf[0] = 0;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (!file)
		return;
	if (!fgets(buf, (int)size, file))
		buf[0] = 0;
	buf[strcspn(buf, "\n")] = 0;
	for (char *c = buf; *c; c++)
		*c = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
	fclose(file);
}

/* How many programs are attached, or -E when the service does not say. */
static int programs_count(const char *path)
{
	char err[ERR_SIZE];
	struct attach at;
	int n = attach_join(&at, path, CTL_OBSERVER, err, sizeof(err));

	if (n)
		return n;
	n = (int)clients_count(&at.arena);
	attach_leave(&at);
	return n;
}

/* False when the time is over first. */
static bool end_await(struct pollfd *p, uint64_t until_ns)
{
	for (;;) {
		uint64_t now_ns = clock_now_ns();
		int n = poll(p, 1, now_ns < until_ns ? (int)((until_ns - now_ns) / CLOCK_NS_PER_MS) + 1 : 0);

		if (n > 0 || (n < 0 && errno != EINTR))
			return n > 0;
		if (now_ns >= until_ns)
			return false;
	}
}

/* Ends the process with the stack, which was found to be pid a moment ago, and says so when its name is that
 * of a program. Waits for its end until the time given. 0 when it has ended, 1 with a line on stderr. */
static int process_stop(const char *path, int pid, const char *name, uint64_t until_ns)
{
	struct pollfd p = {.events = POLLIN};
	int now, rc = 1;

	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0 && errno != ESRCH) {
		fprintf(stderr, "pronk: cannot end the service (pid %d): %s\n", pid, strerror(errno));
		return 1;
	}
	/* between the question and the descriptor the stack may have ended, and the number may be a
	 * stranger's */
	now = service_pid(path);
	if (is_nobody(now)) {
		rc = 0;
	} else if (p.fd < 0) {
		fprintf(stderr,
		        "pronk: the process that opened %s (pid %d) is gone, but something still answers there: not stopped\n",
		        path, pid);
	} else if (now != pid) {
		fprintf(stderr, "pronk: another process answers at %s by now: not stopped, try again\n",
		        path);
	} else {
		if (*name && strcmp(name, "pronkd"))
			printf("the stack lives in %s (pid %d): it is ended\n", name, pid);
		fflush(stdout);
		if (syscall(SYS_pidfd_send_signal, p.fd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
			fprintf(stderr, "pronk: cannot end the service (pid %d): %s\n", pid, strerror(errno));
		else if (end_await(&p, until_ns))
			rc = 0;
		else if (proc_is_stopped(pid))
			fprintf(stderr,
			        "pronk: the service has not ended after %d s, and will when it goes on: " STOPPED_TEXT
			        "\n",
			        STOP_LIMIT_MS / 1000, pid, pid);
		else
			fprintf(stderr, "pronk: the service (pid %d) has not ended after %d s\n", pid,
			        STOP_LIMIT_MS / 1000);
	}
	if (p.fd >= 0)
		close(p.fd);
	return rc;
}

/* Who answers after process pid has ended: 0 for nobody, a keeper, or -EBUSY. In mode inline a copy of the
 * program, the keeper, goes on for others; it takes a moment until it is known as such, or ends by itself. */
static int next_await(const char *path, int pid)
{
	const struct timespec nap = {.tv_nsec = NEXT_STEP_MS * 1000000l};
	char name[PROCESS_NAME_SIZE];
	int now;

	for (int waited = 0; !is_nobody(now = service_pid(path)); waited += NEXT_STEP_MS) {
		if (waited >= NEXT_LIMIT_MS)
			return -EBUSY;
		if (now > 0 && now != pid) {
			process_name(now, name, sizeof(name));
			if (!strcmp(name, "pronk-keeper"))
				return now;
		}
		nanosleep(&nap, NULL);
	}
	return 0;
}

static int stop(const char *path)
{
	uint64_t until_ns = clock_now_ns() + STOP_LIMIT_MS * CLOCK_NS_PER_MS;
	int pid = service_pid(path), first = pid, programs = -ETIMEDOUT, rc, next;
	char name[PROCESS_NAME_SIZE];

	if (is_nobody(pid)) {
		printf("not running\n");
		return 0;
	}
	if (pid <= 0) {
		fprintf(stderr, "pronk: cannot find the service's process: %s\n",
		        pid == -EAGAIN ? "it has not answered for long, and no more callers are let in"
		        : pid          ? strerror(-pid)
		                       : "it lives in another pid namespace");
		return 1;
	}
	if (proc_is_stopped(pid))
		fprintf(stderr, "pronk: the service ends when it goes on, waiting %d s: " STOPPED_TEXT "\n",
		        STOP_LIMIT_MS / 1000, pid, pid);
	else
		programs = programs_count(path);
	process_name(pid, name, sizeof(name));
	for (;; pid = next) {
		rc = process_stop(path, pid, pid == first ? name : "", until_ns);
		if (rc)
			return rc;
		next = next_await(path, pid);
		if (next < 0) {
			fprintf(stderr, "pronk: pid %d has ended, but something still answers at %s\n", pid,
			        path);
			return 1;
		}
		if (!next)
			break;
	}
	printf("stopped: pid %d", first);
	if (programs >= 0)
		printf(", %d program%s attached", programs, programs == 1 ? " was" : "s were");
	putchar('\n');
	return 0;
}

/* pronk check, pronk setup: in a program of their own, beside this one or installed. */
static int machine_become(char **argv)
{
	char exe[PATH_MAX], path[PATH_MAX + 32], *slash;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (n > 0) {
		exe[n] = 0;
		slash = strrchr(exe, '/');
		*slash = 0;
		snprintf(path, sizeof(path), "%s/pronk-machine", exe);
		execv(path, argv);
	}
	execv(MACHINE_PATH, argv);
	fprintf(stderr, "pronk: cannot run %s: %s\n", MACHINE_PATH, strerror(errno));
	return EXIT_OWN;
}

static int complain(const char *reason)
{
	fprintf(stderr, "pronk: %s\n", reason);
	return EXIT_OWN;
}

static int usage_error(const char *reason)
{
	fputs(reason, stderr);
	fputs(usage, stderr);
	return EXIT_OWN;
}

int main(int argc, char **argv)
{
	static const struct option longer[] = {{"config", required_argument, NULL, 'c'}, {0}};
	static struct cfg_files files; /* these two are large */
	static struct cfg cfgs[CFG_FILES_MAX];
	const char *verb = argc > 1 ? argv[1] : "", *path;
	char err[LONG_ERR_SIZE] = "", socket_path[CFG_SOCKET_PATH_MAX];
	bool is_run = !strcmp(verb, "run");
	unsigned given = 0;
	int c;

	if (!strcmp(verb, "version") || !strcmp(verb, "--version")) {
		puts("pronk " PRONK_VERSION);
		return 0;
	}
	if (!strcmp(verb, "help") || !strcmp(verb, "--help") || !strcmp(verb, "-h")) {
		fputs(usage, stdout);
		return 0;
	}
	if (!strcmp(verb, "check") || !strcmp(verb, "setup"))
		return machine_become(argv);
	if (!is_run && strcmp(verb, "status") && strcmp(verb, "stop")) {
		if (*verb)
			fprintf(stderr, "pronk: unknown command \"%s\"\n", verb);
		return usage_error("");
	}
	if (argc > 2 && !strcmp(argv[2], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	argc--;
	argv++;
	argv[0] = (char[]){"pronk"}; /* for getopt(3), which names it in messages */
	while ((c = getopt_long(argc, argv, "+c:", longer, NULL)) != -1) {
		if (c != 'c')
			return usage_error("");
		given++;
		if (configs_add(&files, optarg, err, sizeof(err)))
			return complain(err);
	}
	if (is_run != (optind < argc))
		return usage_error(is_run ? "pronk: run: which program?\n" : "pronk: one word too many\n");
	if (!is_run && given > 1)
		return usage_error("pronk: status and stop look at one service: give one -c\n");
	libc_init();
	if (!given && is_run && cfg_files_find(&files, err, sizeof(err)))
		return complain(err);
	for (unsigned i = 0; !i || i < files.count; i++) {
		path = files.count ? files.path[i] : is_run ? NULL : cfg_default_path();
		if (cfg_load(&cfgs[i], path, err, sizeof(err)))
			return complain(err);
	}
	if (is_run) /* what was read is named as it was given; others get it as they can find it */
		return configs_resolve(&files, err, sizeof(err)) ? complain(err)
		                                                 : run(cfgs, &files, argv + optind);
	cfg_socket_path(&cfgs[0], socket_path, sizeof(socket_path));
	return !strcmp(verb, "stop") ? stop(socket_path) : status(socket_path);
}
