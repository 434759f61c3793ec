/* test_fork.c - a port that goes on in a copy of the process that opened it, the original having ended:
 * net_memif, whose peer comes and goes under the copy as it did under the original. Plain pages, no
 * privileges.
 *
 * The process under test has the memif's server end and sends every frame back. Each peer is a process of its
 * own.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "frames.h"
#include "nic_int.h"

enum { BUFFERS = 4096, PEER_MS = 10000, ECHOES = 100 };

static char folder[] = "/tmp/pronk-fork.XXXXXX";

static void wake(void *arg, uint32_t stack_idx)
{
	(void)arg;
	(void)stack_idx;
}

/* Opens an end of the link, or ends the process. */
static struct nic_queue *end_open(struct nic **nic, const char *name, int role)
{
	struct cfg cfg;
	char err[256] = "";

	cfg_defaults(&cfg);
	snprintf(cfg.device, sizeof(cfg.device), "memif:%s/link", folder);
	snprintf(cfg.name, sizeof(cfg.name), "%s%d", name, (int)getpid());
	cfg.memif_role = (uint32_t)role;
	cfg.hugepages = CFG_HUGEPAGES_OFF;
	cfg.packet_buffers = BUFFERS;
	cfg.log_level = CFG_LOG_LEVEL_ERROR;
	if (nic_open(nic, &cfg, 1, wake, NULL, err, sizeof(err))) {
		fprintf(stderr, "%s: %s\n", name, err);
		_exit(2);
	}
	return nic_queue_get(*nic, 0);
}

static void send_copy(struct nic_queue *q, const uint8_t *frame, uint32_t size)
{
	uint8_t *data;
	struct nic_buf *buf = nic_buf_alloc(q, &data, NULL);

	if (!buf)
		return;
	memcpy(data, frame, size);
	nic_tx(q, buf, data, size);
	nic_tx_flush(q);
}

/* A peer: 0 when ECHOES of its frames came back in time, one after the other. */
static int peer_run(void)
{
	struct nic *nic;
	struct nic_queue *q = end_open(&nic, "peer", CFG_MEMIF_ROLE_CLIENT);
	uint64_t end = clock_now_ns() + PEER_MS * CLOCK_NS_PER_MS, sent_ns = 0;
	uint32_t seen = 0, size;
	uint8_t frame[256];

	while (seen < ECHOES && clock_now_ns() < end) {
		struct nic_frame got;

		size = frame_ip4(frame, 17, 2000, 80, 32 + seen % 64);
		if (clock_now_ns() - sent_ns > 20 * CLOCK_NS_PER_MS) { /* also when one was lost */
			send_copy(q, frame, size);
			sent_ns = clock_now_ns();
		}
		if (!nic_rx(q, &got, 1))
			continue;
		if (got.size == size && !memcmp(got.data + 42, frame + 42, size - 42)) {
			seen++;
			sent_ns = 0;
		}
		nic_buf_free(got.buf);
	}
	nic_close(nic);
	return seen < ECHOES;
}

/* Sends everything back, until fd is readable. */
static void echo(struct nic_queue *q, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (!poll(&p, 1, 0)) {
		struct nic_frame got[16];
		uint32_t n = nic_rx(q, got, 16);

		for (uint32_t i = 0; i < n; i++) {
			send_copy(q, got[i].data, got[i].size);
			nic_buf_free(got[i].buf);
		}
	}
}

/* The process under test: two ends of its life are told through pipes. */
static void original_run(int hand_over, int end)
{
	struct nic *nic;
	struct nic_queue *q;

	nic_may_fork = true;
	q = end_open(&nic, "test", CFG_MEMIF_ROLE_SERVER);
	echo(q, hand_over);
	nic_fork_prepare();
	if (fork()) {
		nic_fork_parent();
		_exit(0);
	}
	if (nic_fork_child())
		_exit(3);
	echo(q, end);
	nic_close(nic);
	_exit(0);
}

static int peer(void)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(peer_run());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void peers_come_and_go_before_and_after_the_original_ends(void **state)
{
	int hand_over[2], end[2], status;
	pid_t original, copy;

	(void)state;
	assert_int_equal(pipe(hand_over), 0);
	assert_int_equal(pipe(end), 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* the copy becomes ours */
	original = fork();
	if (!original)
		original_run(hand_over[0], end[0]);
	assert_int_equal(peer(), 0);
	assert_int_equal(peer(), 0);
	assert_int_equal(write(hand_over[1], "x", 1), 1);
	assert_int_equal(waitpid(original, &status, 0), original);
	assert_int_equal(status, 0);
	assert_int_equal(peer(), 0);
	assert_int_equal(peer(), 0);
	assert_int_equal(write(end[1], "x", 1), 1);
	copy = waitpid(-1, &status, 0);
	assert_true(copy > 0 && copy != original);
	assert_int_equal(status, 0);
}

static void a_peer_stays_while_the_original_ends(void **state)
{
	int hand_over[2], end[2], status;
	pid_t original, stays;

	(void)state;
	assert_int_equal(pipe(hand_over), 0);
	assert_int_equal(pipe(end), 0);
	original = fork();
	if (!original)
		original_run(hand_over[0], end[0]);
	assert_int_equal(peer(), 0);
	stays = fork();
	if (!stays) {
		_exit(peer_run());
	}
	assert_int_equal(write(hand_over[1], "x", 1), 1);
	assert_int_equal(waitpid(original, &status, 0), original);
	assert_int_equal(waitpid(stays, &status, 0), stays);
	assert_int_equal(status, 0);
	assert_int_equal(write(end[1], "x", 1), 1);
	assert_true(waitpid(-1, &status, 0) > 0);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(peers_come_and_go_before_and_after_the_original_ends),
	        cmocka_unit_test(a_peer_stays_while_the_original_ends),
	};
	char path[64];
	int rc;

	if (!mkdtemp(folder))
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(path, sizeof(path), "%s/link", folder);
	unlink(path);
	rmdir(folder);
	return rc;
}
