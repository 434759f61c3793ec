/* ask.c - questions to the service over the control connection whose answers are text.
 *
 * Tools use them (observers), and programs that compare their configuration with the service's. Any thread;
 * they block for the answer, five seconds at most.
 */
#include "attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "libc.h"

/* Sends a question with length bytes of words behind it, and receives at most size bytes of answer. Their
 * number, or -E. */
static ssize_t ask(struct attach *at, enum ctl_kind kind, uint32_t value, const char *words, size_t length,
        void *answer, size_t size)
{
	struct ctl_request req = {
	        .magic = CTL_MAGIC, .version = ARENA_VERSION, .kind = kind, .pid = getpid(), .value = value};
	struct iovec iov[2] = {{&req, sizeof(req)}, {(void *)(uintptr_t)words, length}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	spin_lock(&at->ctl_lock);
	do
		n = libc.sendmsg(at->ctl_fd, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	while (n >= 0) {
		n = libc.recv(at->ctl_fd, answer, size, 0);
		if (n >= 0 || errno != EINTR)
			break;
		n = 0;
	}
	if (n < 0)
		n = errno == EAGAIN ? -ETIMEDOUT : -errno;
	spin_unlock(&at->ctl_lock);
	return n;
}

int attach_config_text(struct attach *at, bool json, char *buf, size_t size)
{
	ssize_t n = ask(at, CTL_CONFIG, json, NULL, 0, buf, size - 1);

	if (n >= 0)
		buf[n] = 0;
	return (int)n;
}

int attach_command(struct attach *at, const char *words, bool json, char *buf, size_t size)
{
	struct {
		struct ctl_answer head;
		char text[CTL_TEXT_MAX];
	} * answer;
	size_t length = strlen(words);
	ssize_t n;
	int rc;

	buf[0] = 0;
	if (length > CTL_WORDS_MAX)
		return -E2BIG;
	answer = malloc(sizeof(*answer));
	if (!answer)
		return -ENOMEM;
	n = ask(at, CTL_COMMAND, (uint32_t)length | (json ? CTL_COMMAND_JSON : 0), words, length, answer,
	        sizeof(*answer));
	rc = n < 0 ? (int)n : n < (ssize_t)sizeof(answer->head) ? -ECONNRESET : answer->head.result;
	if (n >= (ssize_t)sizeof(answer->head)) {
		length = (size_t)n - sizeof(answer->head);
		length = length < size ? length : size - 1;
		memcpy(buf, answer->text, length);
		buf[length] = 0;
		rc = rc < 0 ? rc : (int)length;
	}
	free(answer);
	return rc;
}
