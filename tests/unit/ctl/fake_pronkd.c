/* fake_pronkd.c - what test_autostart.c starts in pronkd's place: takes the lock, listens, goes to the
 * background, and notes in NAME.note how it was started. Ends when it is told to by SIGTERM, or after a
 * minute.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cfg.h"
#include "libc.h"
#include "lock.h"

static void note(const struct cfg *cfg, int argc, char **argv)
{
	const char *preload = getenv("LD_PRELOAD");
	char path[256], line[1024];
	struct sigaction action;
	sigset_t mask;
	size_t n;
	int fd;

	n = (size_t)snprintf(line, sizeof(line), "args=");
	for (int i = 1; i < argc; i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s,", argv[i]);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	sigaction(SIGCHLD, NULL, &action);
	snprintf(line + n, sizeof(line) - n, " preload=%s blocked=%d chld_ignored=%d marker_open=%d\n",
	        preload ? preload : "none", sigismember(&mask, SIGUSR1), action.sa_handler == SIG_IGN,
	        fcntl(200, F_GETFD) >= 0);
	snprintf(path, sizeof(path), "%s/%s.note", cfg->runtime_dir, cfg->name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		exit(3);
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char err[256] = "", path[CFG_SOCKET_PATH_MAX];
	const char *behave = getenv("PRONK_TEST_BEHAVE"), *config = NULL;
	struct cfg cfg;
	int fd, rc;

	libc_init();
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--config"))
			config = argv[i + 1];
	if (cfg_load(&cfg, config, err, sizeof(err))) {
		fprintf(stderr, "pronkd: %s\n", err);
		return 1;
	}
	if (behave && !strcmp(behave, "fail")) {
		fprintf(stderr, "pronkd: some noise\npronkd: the device is on strike\n");
		return 1;
	}
	rc = lock_take(&cfg, 5000, err, sizeof(err));
	if (rc == -EALREADY)
		return 0;
	if (rc < 0) {
		fprintf(stderr, "pronkd: %s\n", err);
		return 1;
	}
	note(&cfg, argc, argv);
	usleep(100000); /* time for others to try as well */
	cfg_socket_path(&cfg, path, sizeof(path));
	strcpy(addr.sun_path, path);
	unlink(path);
	if (fork()) {
		for (int i = 0; i < 500 && socket_probe(path); i++)
			usleep(10000);
		return 0;
	}
	setsid();
	close(2);
	alarm(60);
	fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
		return 2;
	for (;;) {
		int peer = accept(fd, NULL, NULL);

		if (peer >= 0)
			close(peer);
	}
}
