/* wiretap.c - a capture's request and answer, on both sides of the control socket.
 *
 * wiretap_begin runs in the service's control thread; the rest in pronk-dump's only thread. What travels in
 * the rings is base/capture.c's, who fills them src/nic's. The end of a capture is slot.c's (capture_end).
 */
#include "wiretap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "attach.h"
#include "log.h"
#include "server_int.h"

LOG_MODULE("ctl");

enum { ANSWER_MS = 5000, SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE };

static int message_send(int sock, const void *data, size_t size, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {(void *)(uintptr_t)data, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cm;
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cm = CMSG_FIRSTHDR(&msg);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &fd, sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* --- the service --- */

/* Only sealed memory is read: it is there, does not change meanwhile, and reading it waits for nobody. */
static struct capture_spec *spec_read(int fd, char *reason, size_t reason_size)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct capture_spec *spec;
	struct stat st;

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 ||
	        (size_t)st.st_size > sizeof(*spec) + CAPTURE_INSN_MAX * sizeof(spec->insn[0])) {
		snprintf(reason, reason_size, "the request does not lie in sealed memory of a sensible size");
		return NULL;
	}
	spec = malloc((size_t)st.st_size + 1);
	if (!spec || pread(fd, spec, (size_t)st.st_size, 0) != st.st_size) {
		snprintf(reason, reason_size, "the request cannot be read: %s", strerror(errno));
		free(spec);
		return NULL;
	}
	if (capture_spec_check(spec, (size_t)st.st_size, reason, reason_size))
		return spec;
	free(spec);
	return NULL;
}

int wiretap_begin(struct server *s, struct conn *c, int fd)
{
	struct ctl_capture ans = {.result = -EINVAL};
	struct capture_spec *spec = NULL;
	int shm_fd = -1, rc;

	if (c->uid && c->uid != geteuid()) {
		ans.result = -EPERM;
		snprintf(ans.reason, sizeof(ans.reason),
		        "only root and the service's user may capture packets");
		log_limited_warning(
		        "pid %d (user %u) may not capture packets", (int)c->pid, (unsigned)c->uid);
	} else if ((spec = spec_read(fd, ans.reason, sizeof(ans.reason))) != NULL) {
		ans.result = s->spec.ops.capture_start(
		        s->spec.ops_arg, spec, &shm_fd, ans.reason, sizeof(ans.reason));
	}
	free(spec);
	if (ans.result < 0)
		return message_send(c->fd, &ans, sizeof(ans), -1);
	c->capture = (uint32_t)ans.result;
	ans.result = 0;
	rc = message_send(c->fd, &ans, sizeof(ans), shm_fd);
	close(shm_fd);
	if (rc) {
		capture_end(s, c->capture);
		return rc;
	}
	log_info("pid %d captures packets", (int)c->pid);
	return 1;
}

/* --- pronk-dump --- */

static int spec_memory(const struct capture_spec *spec)
{
	size_t size = sizeof(*spec) + spec->insn_count * sizeof(spec->insn[0]);
	int fd = memfd_create("pronk-dump", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	if (fd >= 0 && write(fd, spec, size) == (ssize_t)size && !fcntl(fd, F_ADD_SEALS, SEALS))
		return fd;
	rc = errno ? -errno : -EIO;
	if (fd >= 0)
		close(fd);
	return rc;
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	rc = -errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

/* The answer and its descriptor (*fd, or -1). Its size, 0 at hang-up, or -E. */
static ssize_t answer_recv(int sock, struct ctl_capture *ans, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {ans, sizeof(*ans)};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct cmsghdr *cm;
	ssize_t n;

	*fd = -1;
	n = poll(&p, 1, ANSWER_MS);
	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	cm = CMSG_FIRSTHDR(&msg);
	if (cm && cm->cmsg_type == SCM_RIGHTS && cm->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(cm), sizeof(int));
	return n;
}

static int rings_map(struct wiretap *d, int fd)
{
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -EPROTO;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	d->shm = p;
	d->shm_size = (size_t)st.st_size;
	return capture_shm_check(d->shm, d->shm_size) ? 0 : -EPROTO;
}

int wiretap_open(
        struct wiretap *d, const char *path, const struct capture_spec *spec, char *err, size_t err_size)
{
	struct ctl_request req = {
	        .magic = CTL_MAGIC, .version = ARENA_VERSION, .kind = CTL_CAPTURE, .pid = getpid()};
	struct ctl_capture ans = {0};
	int spec_fd = spec_memory(spec), fd = -1, rc;
	ssize_t n;

	*d = (struct wiretap){.ctl_fd = -1};
	if (spec_fd < 0) {
		snprintf(err, err_size, "no memory for the request: %s", strerror(-spec_fd));
		return spec_fd;
	}
	strcpy(req.program, "pronk-dump");
	rc = d->ctl_fd = connect_to(path);
	if (rc < 0) {
		snprintf(err, err_size, "no service at %s: %s", path, strerror(-rc));
		goto out;
	}
	rc = message_send(d->ctl_fd, &req, sizeof(req), spec_fd);
	n = rc ? rc : answer_recv(d->ctl_fd, &ans, &fd);
	if (n == (ssize_t)sizeof(ans) && ans.result < 0) {
		ans.reason[sizeof(ans.reason) - 1] = 0;
		snprintf(err, err_size, "%s", ans.reason);
		rc = ans.result;
	} else if (n == (ssize_t)sizeof(ans)) {
		rc = rings_map(d, fd);
		if (rc)
			snprintf(err, err_size, "the rings of the service at %s cannot be used: %s", path,
			        strerror(-rc));
	} else if (n < 0) {
		rc = (int)n;
		snprintf(err, err_size, "the service at %s does not answer: %s", path, strerror(-rc));
	} else {
		rc = -EPROTO;
		snprintf(err, err_size, "the service at %s is of another version, or starts or ends just now",
		        path);
	}
out:
	close(spec_fd);
	if (fd >= 0)
		close(fd);
	if (rc)
		wiretap_close(d);
	return rc;
}

void wiretap_close(struct wiretap *d)
{
	if (d->shm)
		munmap(d->shm, d->shm_size);
	if (d->ctl_fd >= 0)
		close(d->ctl_fd);
	*d = (struct wiretap){.ctl_fd = -1};
}

bool wiretap_is_alive(const struct wiretap *d)
{
	char c;
	ssize_t n = recv(d->ctl_fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}
