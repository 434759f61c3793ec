/* pronkd_metrics.c - serves the statistics segment over HTTP to whoever asks GET /metrics.
 *
 * One thread, of the lowest priority and without a signal, that sleeps until somebody comes; it reads the
 * segment and touches nothing else of the service. HTTP is libmicrohttpd's. That is loaded by name when the
 * option is set: its TLS library and what follows would make every other start of the service slower.
 */
#include "pronkd_metrics.h"

#include <dlfcn.h>
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "cfg.h"
#include "compiler.h"
#include "log.h"
#include "metrics.h"

LOG_MODULE("metrics");

enum { CONNECTION_MAX = 16, CONNECTION_TIMEOUT_S = 10, NICE = 19 };

struct http {
	struct MHD_Daemon *(*start)(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback, void *,
	        MHD_AccessHandlerCallback, void *, ...);
	void (*stop)(struct MHD_Daemon *);
	enum MHD_Result (*run)(struct MHD_Daemon *);
	enum MHD_Result (*get_timeout)(struct MHD_Daemon *, MHD_UNSIGNED_LONG_LONG *);
	const union MHD_DaemonInfo *(*get_info)(struct MHD_Daemon *, enum MHD_DaemonInfoType, ...);
	struct MHD_Response *(*response)(size_t, void *, enum MHD_ResponseMemoryMode);
	enum MHD_Result (*header)(struct MHD_Response *, const char *, const char *);
	enum MHD_Result (*queue)(struct MHD_Connection *, unsigned, struct MHD_Response *);
	void (*destroy)(struct MHD_Response *);
};

struct metrics {
	struct http http;
	struct stat_view view;
	struct MHD_Daemon *daemon;
	int stop_fd, http_fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of a unix socket */
	pthread_t thread;
	bool has_thread;
};

static int http_load(struct http *h, char *err, size_t err_size)
{
	void *lib = dlopen(MICROHTTPD_SONAME, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		snprintf(err, err_size, "metrics_listen needs libmicrohttpd: %s", dlerror());
		return -ENOENT;
	}
#define FIND(field, name)                                                                                    \
	do {                                                                                                 \
		void *at = dlsym(lib, name);                                                                 \
                                                                                                             \
		if (!at) {                                                                                   \
			snprintf(err, err_size, "%s has no %s", MICROHTTPD_SONAME, name);                    \
			return -ENOENT;                                                                      \
		}                                                                                            \
		memcpy(&h->field, &at, sizeof(at));                                                          \
	} while (0)
	FIND(start, "MHD_start_daemon");
	FIND(stop, "MHD_stop_daemon");
	FIND(run, "MHD_run");
	FIND(get_timeout, "MHD_get_timeout");
	FIND(get_info, "MHD_get_daemon_info");
	FIND(response, "MHD_create_response_from_buffer");
	FIND(header, "MHD_add_response_header");
	FIND(queue, "MHD_queue_response");
	FIND(destroy, "MHD_destroy_response");
#undef FIND
	return 0;
}

/* --- an answer --- */

static enum MHD_Result answer(const struct metrics *m, struct MHD_Connection *c, unsigned status,
        const char *type, char *text, size_t size, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *r = m->http.response(size, text, mode);
	enum MHD_Result rc;

	if (!r) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	m->http.header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		m->http.header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	rc = m->http.queue(c, status, r);
	m->http.destroy(r);
	return rc;
}

static enum MHD_Result answer_text(
        const struct metrics *m, struct MHD_Connection *c, unsigned status, const char *text)
{
	return answer(m, c, status, "text/plain; charset=utf-8", (char *)(uintptr_t)text, strlen(text),
	        MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
        const char *version UNUSED, const char *data UNUSED, size_t *data_size, void **state)
{
	const struct metrics *m = arg;
	char *text = NULL;
	size_t size = 0;
	FILE *out;
	int rc;

	/* the first call comes before the request's body */
	if (!*state) {
		*state = arg;
		return MHD_YES;
	}
	if (*data_size) {
		*data_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer_text(m, c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	if (!strcmp(url, "/"))
		return answer_text(m, c, MHD_HTTP_OK, "Pronk's statistics are at /metrics\n");
	if (strcmp(url, "/metrics") != 0)
		return answer_text(m, c, MHD_HTTP_NOT_FOUND, "there is only /metrics here\n");
	out = open_memstream(&text, &size);
	if (!out)
		return MHD_NO;
	rc = metrics_write(&m->view, out);
	if (fclose(out) || rc) {
		free(text);
		return answer_text(m, c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	}
	return answer(m, c, MHD_HTTP_OK, METRICS_CONTENT_TYPE, text, size, MHD_RESPMEM_MUST_FREE);
}

/* --- the thread --- */

static void *thread_main(void *arg)
{
	struct metrics *m = arg;
	struct pollfd fds[] = {{.fd = m->stop_fd, .events = POLLIN}, {.fd = m->http_fd, .events = POLLIN}};

	if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE))
		log_debug("the metrics thread keeps its priority: %s", strerror(errno));
	for (;;) {
		MHD_UNSIGNED_LONG_LONG ms;
		int timeout = -1;

		if (m->http.get_timeout(m->daemon, &ms) == MHD_YES)
			timeout = ms > 60000 ? 60000 : (int)ms;
		if (poll(fds, 2, timeout) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		m->http.run(m->daemon);
	}
	return NULL;
}

/* --- start and stop --- */

/* A socket that was left behind makes way, anything else does not. */
static int listen_open(struct metrics *m, const char *text, char *err, size_t err_size)
{
	struct sockaddr_storage to;
	uint32_t size;
	struct stat st;
	int one = 1, rc = cfg_parse_listen(text, &to, &size), fd, probe;

	if (rc) {
		snprintf(err, err_size, "metrics_listen: %s", strerror(-rc));
		return rc;
	}
	fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		goto fail;
	if (to.ss_family == AF_UNIX) {
		if (!lstat(text, &st) && !S_ISSOCK(st.st_mode)) {
			errno = EEXIST;
			goto fail;
		}
		/* another service's, which lives, is not left behind */
		probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (probe >= 0 && (!connect(probe, (struct sockaddr *)&to, size) || errno == EAGAIN)) {
			close(probe);
			errno = EADDRINUSE;
			goto fail;
		}
		if (probe >= 0)
			close(probe);
		unlink(text);
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	}
	if (bind(fd, (struct sockaddr *)&to, size) || listen(fd, CONNECTION_MAX))
		goto fail;
	if (to.ss_family == AF_UNIX) {
		snprintf(m->path, sizeof(m->path), "%s", text);
		/* whoever may attach to the service may read this, too */
		if (chmod(text, 0666))
			log_warning("cannot let others read %s: %s", text, strerror(errno));
	}
	return fd;
fail:
	rc = -errno;
	snprintf(err, err_size, "metrics_listen: cannot listen at %s: %s", text, strerror(-rc));
	if (fd >= 0)
		close(fd);
	return rc;
}

static int thread_start(struct metrics *m)
{
	sigset_t all, saved;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	rc = -pthread_create(&m->thread, NULL, thread_main, m);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	m->has_thread = !rc;
	if (!rc)
		pthread_setname_np(m->thread, "pronk-metrics");
	return rc;
}

int metrics_start(struct metrics **out, const struct cfg *cfg, const void *segment, size_t size, char *err,
        size_t err_size)
{
	struct metrics *m;
	int fd, rc;

	*out = NULL;
	if (!cfg->metrics_listen[0])
		return 0;
	m = calloc(1, sizeof(*m));
	if (!m) {
		snprintf(err, err_size, "out of memory");
		return -ENOMEM;
	}
	m->stop_fd = -1;
	rc = stat_view_open(&m->view, segment, size);
	if (rc) {
		snprintf(err, err_size, "metrics_listen: the statistics segment is damaged");
		goto fail;
	}
	rc = http_load(&m->http, err, err_size);
	if (rc)
		goto fail;
	fd = rc = listen_open(m, cfg->metrics_listen, err, err_size);
	if (rc < 0)
		goto fail;
	m->daemon = m->http.start(MHD_USE_EPOLL, 0, NULL, NULL, on_request, m, MHD_OPTION_LISTEN_SOCKET, fd,
	        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTION_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
	        (unsigned)CONNECTION_TIMEOUT_S, MHD_OPTION_END);
	if (!m->daemon) {
		close(fd);
		rc = -EIO;
		snprintf(err, err_size, "metrics_listen: libmicrohttpd does not start");
		goto fail;
	}
	m->http_fd = m->http.get_info(m->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	m->stop_fd = eventfd(0, EFD_CLOEXEC);
	rc = m->stop_fd < 0 ? -errno : thread_start(m);
	if (rc) {
		snprintf(err, err_size, "metrics_listen: cannot start a thread: %s", strerror(-rc));
		goto fail;
	}
	log_notice("metrics at %s", cfg->metrics_listen);
	*out = m;
	return 0;
fail:
	metrics_stop(m);
	return rc;
}

void metrics_stop(struct metrics *m)
{
	uint64_t one = 1;

	if (!m)
		return;
	if (m->has_thread && write(m->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(m->thread, NULL);
	if (m->daemon)
		m->http.stop(m->daemon);
	if (m->stop_fd >= 0)
		close(m->stop_fd);
	if (m->path[0])
		unlink(m->path);
	free(m);
}
