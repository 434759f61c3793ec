/* test_autostart.c - service_ensure as an application would call it, with a fake pronkd (argument 1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "autostart.h"
#include "cfg.h"
#include "libc.h"
#include "lock.h"

enum { CALLERS = 10 };

static const char *fake_path;
static char folder[64];
static struct cfg cfg;
static volatile sig_atomic_t child_signals;

static void count_child(int sig)
{
	(void)sig;
	child_signals++;
}

static int setup(void **state)
{
	(void)state;
	libc_init();
	strcpy(folder, "/tmp/pronk-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	setenv("PRONK_RUNTIME_DIR", folder, 1); /* as an environment option, it reaches the fake too */
	setenv("PRONK_PRONKD", fake_path, 1);
	unsetenv("PRONK_TEST_BEHAVE");
	cfg_defaults(&cfg);
	snprintf(cfg.runtime_dir, sizeof(cfg.runtime_dir), "%s", folder);
	return 0;
}

/* Ends the fake, found by who listens at the socket. */
static int teardown(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char path[CFG_SOCKET_PATH_MAX], file[128];
	struct ucred cred;
	socklen_t size = sizeof(cred);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	(void)state;
	cfg_socket_path(&cfg, path, sizeof(path));
	strcpy(addr.sun_path, path);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)) &&
	        !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size))
		kill(cred.pid, SIGTERM);
	close(fd);
	unlink(path);
	snprintf(file, sizeof(file), "%s/pronk.lock", folder);
	unlink(file);
	snprintf(file, sizeof(file), "%s/pronk.note", folder);
	unlink(file);
	return rmdir(folder);
}

/* The fake's notes; returns how many lines there are. */
static int notes_read(char *buf, size_t size)
{
	char path[128];
	int fd, lines = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/pronk.note", folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, buf, size - 1);
	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = 0;
	for (char *p = buf; *p; p++)
		lines += *p == '\n';
	return lines;
}

static void service_is_started_once_and_then_found(void **state)
{
	char err[256] = "", text[4096];

	(void)state;
	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), 0);
	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), 0);
	assert_int_equal(notes_read(text, sizeof(text)), 1);
	assert_non_null(strstr(text, "args=--autostarted,--daemonize, "));
}

static void application_sees_nothing_of_it(void **state)
{
	struct sigaction action = {.sa_handler = count_child}, old_action;
	char err[256] = "", text[4096];
	sigset_t set, old_mask, mask;
	int before = 0, after = 0;

	(void)state;
	child_signals = 0;
	sigaction(SIGCHLD, &action, &old_action);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &old_mask);
	setenv("LD_PRELOAD", "libm.so.6", 1);
	assert_int_equal(dup2(1, 200), 200); /* inheritable, as an application's may be */
	for (int fd = 0; fd < 1024; fd++)
		before += fcntl(fd, F_GETFD) >= 0;

	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), 0);

	assert_string_equal(getenv("LD_PRELOAD"), "libm.so.6");
	unsetenv("LD_PRELOAD");
	for (int fd = 0; fd < 1024; fd++)
		after += fcntl(fd, F_GETFD) >= 0;
	close(200);
	assert_int_equal(after, before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(child_signals, 0);
	sigprocmask(SIG_SETMASK, &old_mask, &mask);
	assert_true(sigismember(&mask, SIGUSR1));
	sigaction(SIGCHLD, &old_action, &action);
	assert_ptr_equal(action.sa_handler, count_child);
	assert_int_equal(notes_read(text, sizeof(text)), 1);
	assert_non_null(strstr(text, "preload=none blocked=0 chld_ignored=0 marker_open=0"));
}

static void ignored_sigchld_does_not_matter(void **state)
{
	char err[256] = "";

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), 0);
	assert_true(signal(SIGCHLD, SIG_DFL) == SIG_IGN);
}

static void many_callers_at_once_share_one_service(void **state)
{
	char text[4096];
	pid_t pids[CALLERS];
	int status;

	(void)state;
	for (int i = 0; i < CALLERS; i++) {
		pids[i] = fork();
		if (!pids[i]) {
			char err[256] = "";
			int rc = service_ensure(&cfg, NULL, err, sizeof(err));

			if (rc)
				dprintf(2, "%s\n", err);
			_exit(rc ? 1 : 0);
		}
	}
	for (int i = 0; i < CALLERS; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(notes_read(text, sizeof(text)), 1);
}

static void failure_gives_the_service_s_own_words(void **state)
{
	char err[256] = "";

	(void)state;
	setenv("PRONK_TEST_BEHAVE", "fail", 1);
	assert_true(service_ensure(&cfg, NULL, err, sizeof(err)) < 0);
	assert_string_equal(err, "the device is on strike");
}

static void config_path_is_handed_on(void **state)
{
	char err[256] = "", text[4096], want[256], path[128];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/my.conf", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(service_ensure(&cfg, path, err, sizeof(err)), 0);
	unlink(path);
	notes_read(text, sizeof(text));
	snprintf(want, sizeof(want), "args=--autostarted,--daemonize,--config,%s, ", path);
	assert_non_null(strstr(text, want));
}

static void autostart_off_starts_nothing(void **state)
{
	char err[256] = "", text[4096];

	(void)state;
	cfg.autostart = false;
	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "autostart is off"));
	assert_int_equal(notes_read(text, sizeof(text)), 0);
}

static void missing_pronkd_is_said(void **state)
{
	char err[256] = "";

	(void)state;
	setenv("PRONK_PRONKD", "/nowhere/pronkd", 1);
	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "pronkd was not found"));
}

static void what_is_no_program_is_said(void **state)
{
	char err[256] = "", path[128];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/pronkd", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
	assert_int_equal(write(fd, "\177ELF", 4), 4);
	close(fd);
	setenv("PRONK_PRONKD", path, 1);
	assert_int_equal(service_ensure(&cfg, NULL, err, sizeof(err)), -ENOEXEC);
	assert_non_null(strstr(err, "cannot run"));
	unlink(path);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	        TEST(service_is_started_once_and_then_found),
	        TEST(application_sees_nothing_of_it),
	        TEST(ignored_sigchld_does_not_matter),
	        TEST(many_callers_at_once_share_one_service),
	        TEST(failure_gives_the_service_s_own_words),
	        TEST(config_path_is_handed_on),
	        TEST(autostart_off_starts_nothing),
	        TEST(missing_pronkd_is_said),
	        TEST(what_is_no_program_is_said),
	};

	if (argc < 2)
		return 77;
	fake_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
