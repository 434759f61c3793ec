/* bsd.c - the harness: running cases, writing the line, talking to the peer. bsd.h has the contracts.
 *
 * The process that was called only starts others and copies their output; a case's own process is the program
 * under test. Output goes out word by word with write(2), so that the line of a case that hangs shows how far
 * it came.
 */
#include "bsd.h"

#include <stdarg.h>
#include <sys/un.h>
#include <sys/ioctl.h>

enum { CASES_MAX = 110, CASE_SECONDS = 40, PORTS_PER_CASE = 16, CTL_FD = 3 };

struct test_case {
	const char *name;
	void (*run)(void);
	bool is_accepted;
};

static struct test_case cases[CASES_MAX];
static int case_count, case_at;
static char reply[4096];
volatile sig_atomic_t signal_count;

void bsd_add(const char *name, void (*run)(void), bool is_accepted)
{
	if (case_count == CASES_MAX)
		abort();
	cases[case_count++] = (struct test_case){name, run, is_accepted};
}

/* --- the line --- */

static void put(const char *text, size_t size)
{
	while (size) {
		ssize_t n = write(STDOUT_FILENO, text, size);

		if (n < 0 && errno != EINTR)
			_exit(3);
		if (n > 0) {
			text += n;
			size -= (size_t)n;
		}
	}
}

static void put_v(const char *before, const char *format, va_list ap)
{
	char text[1024];
	int saved = errno, n = snprintf(text, sizeof(text), "%s", before);

	n += vsnprintf(text + n, sizeof(text) - (size_t)n, format, ap);
	put(text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
	errno = saved;
}

void out(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	put_v(" ", format, ap);
	va_end(ap);
}

void die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	put_v(" HARNESS ", format, ap);
	va_end(ap);
	_exit(2);
}

long ret(const char *what, long rc)
{
	if (rc < 0)
		out("%s=%s", what, strerrorname_np(errno));
	else
		out("%s=%ld", what, rc);
	return rc;
}

int ret_fd(const char *what, int fd)
{
	if (fd < 0)
		out("%s=%s", what, strerrorname_np(errno));
	else
		out("%s=fd", what);
	return fd;
}

void rev(const char *what, unsigned int events)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} names[] = {{EPOLLIN, "IN"}, {EPOLLPRI, "PRI"}, {EPOLLOUT, "OUT"}, {EPOLLERR, "ERR"},
	        {EPOLLHUP, "HUP"}, {EPOLLRDNORM, "RDNORM"}, {EPOLLRDBAND, "RDBAND"}, {EPOLLWRNORM, "WRNORM"},
	        {EPOLLWRBAND, "WRBAND"}, {EPOLLRDHUP, "RDHUP"}, {POLLNVAL, "NVAL"}};
	char text[128] = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (events & names[i].bit) {
			if (*text)
				strcat(text, "|");
			strcat(text, names[i].name);
		}
	out("%s=%s", what, *text ? text : "none");
}

/* --- addresses --- */

int port(int n)
{
	const char *first = getenv("BSD_PORTS");

	return (first ? atoi(first) : 20000) + case_at * PORTS_PER_CASE + n;
}

static struct sockaddr_in addr_of(const char *ip, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	if (!ip || inet_pton(AF_INET, ip, &a.sin_addr) != 1)
		die("BSD_SERVER, BSD_PEER and BSD_OTHER must be IPv4 addresses");
	return a;
}

struct sockaddr_in addr_server(int port)
{
	return addr_of(getenv("BSD_SERVER"), port);
}

struct sockaddr_in addr_peer(int port)
{
	return addr_of(getenv("BSD_PEER"), port);
}

struct sockaddr_in addr_loopback(int port)
{
	return addr_of("127.0.0.1", port);
}

struct sockaddr_in addr_any(int port)
{
	return addr_of("0.0.0.0", port);
}

struct sockaddr_in addr_other(int port)
{
	return addr_of(getenv("BSD_OTHER"), port);
}

struct sockaddr_in addr_nobody(int port)
{
	struct sockaddr_in a = addr_server(port);

	/* its own for each process: the kernel remembers for seconds whom it looked for in vain */
	a.sin_addr.s_addr = htonl((ntohl(a.sin_addr.s_addr) & ~0xffu) | (100 + (unsigned int)getpid() % 150));
	return a;
}

void show_addr(const char *what, const struct sockaddr_in *a, socklen_t len)
{
	const char *who = "other";

	if (a->sin_addr.s_addr == addr_server(0).sin_addr.s_addr)
		who = "server";
	else if (a->sin_addr.s_addr == addr_peer(0).sin_addr.s_addr)
		who = "peer";
	else if (a->sin_addr.s_addr == addr_loopback(0).sin_addr.s_addr)
		who = "loopback";
	else if (!a->sin_addr.s_addr)
		who = "any";
	out("%s=%d,%s,%s,len%u", what, a->sin_family, who, a->sin_port ? "port" : "noport", len);
}

/* --- the peer --- */

static void peer_open(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	const char *path = getenv("BSD_CTL");
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (!path || strlen(path) >= sizeof(un.sun_path))
		die("BSD_CTL must name the peer's socket");
	strcpy(un.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		die("no peer at %s: %s", path, strerror(errno));
	if (fd != CTL_FD) {
		if (dup3(fd, CTL_FD, O_CLOEXEC) < 0)
			die("dup3: %s", strerror(errno));
		close(fd);
	}
}

static void peer_send(const char *format, va_list ap)
{
	char cmd[512];
	int n = vsnprintf(cmd, sizeof(cmd), format, ap);

	if (send(CTL_FD, cmd, (size_t)n, MSG_NOSIGNAL) != n)
		die("peer is gone: %s", strerror(errno));
}

const char *peer_reply(void)
{
	ssize_t n;

	do
		n = recv(CTL_FD, reply, sizeof(reply) - 1, 0);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		die("peer is gone");
	reply[n] = 0;
	return reply;
}

void peer_go(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	peer_send(format, ap);
	va_end(ap);
}

const char *peer(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	peer_send(format, ap);
	va_end(ap);
	return peer_reply();
}

int peer_ok(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	peer_send(format, ap);
	va_end(ap);
	if (strncmp(peer_reply(), "ok", 2))
		die("peer answers \"%s\" to \"%s\"", reply, format);
	return atoi(reply + 2);
}

void peer_show(const char *what, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	peer_send(format, ap);
	va_end(ap);
	peer_reply();
	for (char *p = reply; *p; p++)
		if (*p == ' ')
			*p = ',';
	out("%s=%s", what, reply);
}

/* --- connections --- */

int tcp_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	return fd;
}

int listener(int port)
{
	struct sockaddr_in a = addr_server(port);
	int fd = tcp_socket(), one = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		die("SO_REUSEADDR: %s", strerror(errno));
	if (bind(fd, SA(a), sizeof(a)) < 0)
		die("bind: %s", strerror(errno));
	if (listen(fd, 16) < 0)
		die("listen: %s", strerror(errno));
	return fd;
}

int peer_connect(int port)
{
	return peer_ok("connect %d 0", port);
}

static struct conn connected(int rcvbuf)
{
	struct sockaddr_in a;
	struct conn c;
	int id, at;

	if (sscanf(peer("listen 0 16 %d", rcvbuf), "ok %d %d", &id, &at) != 2)
		die("peer cannot listen: %s", reply);
	a = addr_peer(at);
	c.fd = tcp_socket();
	if (connect(c.fd, SA(a), sizeof(a)) < 0)
		die("connect: %s", strerror(errno));
	c.id = peer_ok("accept %d", id);
	peer_ok("close %d", id);
	return c;
}

static struct conn accepted(int rcvbuf)
{
	static int next = 15;
	int at = port(next--), l = listener(at);
	struct conn c;

	c.id = peer_ok("connect %d %d", at, rcvbuf);
	c.fd = accept(l, NULL, NULL);
	if (c.fd < 0)
		die("accept: %s", strerror(errno));
	close(l);
	return c;
}

struct conn pair_connected(void)
{
	return connected(0);
}

struct conn pair_accepted(void)
{
	return accepted(0);
}

struct conn pair(void)
{
	return cases[case_at].is_accepted ? accepted(0) : connected(0);
}

struct conn pair_narrow(void)
{
	return cases[case_at].is_accepted ? accepted(8192) : connected(8192);
}

unsigned int settle(int fd, unsigned int events)
{
	struct pollfd p = {.fd = fd, .events = (short)events};
	int n;

	do
		n = poll(&p, 1, 8000);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return 0;
	nap_ms(5);
	p.events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI;
	poll(&p, 1, 0);
	return (unsigned int)p.revents;
}

void settle_bytes(int fd, int n)
{
	uint64_t end = now_ms() + 8000;
	int have;

	do {
		if (ioctl(fd, FIONREAD, &have) < 0)
			die("FIONREAD: %s", strerror(errno));
		if (have >= n)
			return;
		nap_ms(1);
	} while (now_ms() < end);
	die("%d of %d bytes came", have, n);
}

void set_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0 || fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK) < 0)
		die("O_NONBLOCK: %s", strerror(errno));
}

size_t fill(int fd, size_t from)
{
	char buf[16384];
	size_t done = 0;
	int misses = 0;

	set_nonblock(fd, true);
	while (misses < 50) { /* what is on its way to the peer still makes room for a while */
		ssize_t n;

		pattern_fill(buf, from + done, sizeof(buf));
		n = send(fd, buf, sizeof(buf), MSG_NOSIGNAL);
		if (n > 0) {
			done += (size_t)n;
			misses = 0;
		} else if (errno == EAGAIN) {
			misses++;
			nap_ms(2);
		} else {
			die("fill: %s", strerror(errno));
		}
	}
	return done;
}

void nap_ms(int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void show_time(const char *what, uint64_t start_ms, int want_ms)
{
	int64_t spent = (int64_t)(now_ms() - start_ms);

	out("%s=%s", what, spent < want_ms - 2 ? "early" : spent > want_ms * 2 + 500 ? "late" : "intime");
}

/* --- signals --- */

static void count_signal(int signal)
{
	(void)signal;
	signal_count++;
}

void signal_count_on(int signal, bool restart)
{
	struct sigaction sa = {.sa_handler = count_signal, .sa_flags = restart ? SA_RESTART : 0};

	signal_count = 0;
	sigaction(signal, &sa, NULL);
}

void alarm_ms(int ms)
{
	struct itimerval it = {.it_value = {ms / 1000, ms % 1000 * 1000}};

	setitimer(ITIMER_REAL, &it, NULL);
}

/* --- running --- */

/* The first socket that is Pronk's starts the stack in mode inline, which takes longer than cases give a
 * signal or a peer. */
static void warm_up(void)
{
	struct sockaddr_in a = addr_server(0);
	int fd = tcp_socket();

	a.sin_port = 0;
	if (bind(fd, SA(a), sizeof(a)) < 0 || close(fd) < 0)
		die("warm-up: %s", strerror(errno));
}

static void case_run(int at)
{
	case_at = at;
	peer_open();
	if (getenv("BSD_WARM"))
		warm_up();
	cases[at].run();
	fflush(NULL);
	_exit(0);
}

/* Runs one case in a process of its own and copies its line. */
static void case_start(const char *program, int at)
{
	char buf[4096], index[16];
	uint64_t end = now_ms() + CASE_SECONDS * 1000;
	struct pollfd p;
	bool is_late = false;
	int fds[2], status;
	pid_t pid;

	if (pipe(fds) < 0)
		exit(3);
	snprintf(buf, sizeof(buf), "case %s:", cases[at].name);
	put(buf, strlen(buf));
	snprintf(index, sizeof(index), "%d", at);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(program, program, cases[at].name, (char *)NULL);
		_exit(127);
	}
	setpgid(pid, pid);
	close(fds[1]);
	p = (struct pollfd){.fd = fds[0], .events = POLLIN};
	for (;;) {
		uint64_t now = now_ms();
		ssize_t n;

		if (now >= end || poll(&p, 1, (int)(end - now)) == 0) {
			is_late = true;
			break;
		}
		n = read(fds[0], buf, sizeof(buf));
		if (n <= 0)
			break;
		put(buf, (size_t)n);
	}
	if (is_late)
		kill(-pid, SIGKILL);
	close(fds[0]);
	waitpid(pid, &status, 0);
	kill(-pid, SIGKILL); /* what it left behind */
	if (is_late)
		put(" TIMEOUT", 8);
	else if (WIFSIGNALED(status))
		out("KILLED=SIG%s", sigabbrev_np(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		out("EXIT=%d", WEXITSTATUS(status));
	put("\n", 1);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--list")) {
		for (int i = 0; i < case_count; i++)
			printf("%s\n", cases[i].name);
		return 0;
	}
	for (int i = 0; i < case_count; i++)
		if (argc > 1 && !strcmp(cases[i].name, argv[1]))
			case_run(i);
	if (argc > 1) {
		fprintf(stderr, "%s: no case %s\n", argv[0], argv[1]);
		return 2;
	}
	for (int i = 0; i < case_count; i++)
		case_start("/proc/self/exe", i);
	return 0;
}

int set_new(void)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0)
		die("epoll_create1: %s", strerror(errno));
	return ep;
}

int ctl(int ep, int op, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = {.events = events, .data.u64 = data};

	return epoll_ctl(ep, op, fd, &ev);
}

void join(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		out("child=SIG%s", sigabbrev_np(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		out("child=%d", WEXITSTATUS(status));
}

pid_t child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	return pid;
}
