/* test_server.c - the control server in a thread of its own, a real socket in a temporary folder, and stacks
 * that are faked: they take off their count at once, or when the test lets them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"
#include "cfg.h"
#include "clock.h"
#include "wiretap.h"
#include "libc.h"
#include "lock.h"
#include "log.h"
#include "ready.h"
#include "segment.h"
#include "server.h"

enum { CLIENTS = 4, STACKS = 2, HELD_MAX = 16 };

struct held {
	_Atomic uint32_t *left;
	uint32_t count;
};

static struct fixture {
	char folder[64], path[108];
	struct arena arena;
	struct segment stats;
	_Atomic int poller_fds[ARENA_POLLER_MAX];
	int stack_fd[STACKS], region_fd, stop_fd;
	struct server *server;
	pthread_t thread;
	_Atomic bool is_holding, is_refusing; /* the fake stacks do not run; cannot be posted to */
	_Atomic uint32_t gone_count, gone_client, barrier_count;
	_Atomic uint32_t capture_count, capture_stopped, capture_freed; /* bits of numbers */
	pthread_mutex_t lock;
	struct held held[HELD_MAX];
	uint32_t held_count;
} fx;

/* --- the fake stacks --- */

static int fake_post(_Atomic uint32_t *left)
{
	assert_int_equal(atomic_load(left), STACKS);
	if (atomic_load(&fx.is_refusing))
		return -ENOMEM;
	if (!atomic_load(&fx.is_holding)) {
		atomic_fetch_sub(left, STACKS);
		return 0;
	}
	pthread_mutex_lock(&fx.lock);
	assert_true(fx.held_count < HELD_MAX);
	fx.held[fx.held_count++] = (struct held){left, STACKS};
	pthread_mutex_unlock(&fx.lock);
	return 0;
}

static int fake_gone(void *arg, uint32_t client_idx, _Atomic uint32_t *left)
{
	int rc = fake_post(left);

	assert_ptr_equal(arg, &fx);
	if (!rc) {
		atomic_store(&fx.gone_client, client_idx);
		atomic_fetch_add(&fx.gone_count, 1);
	}
	return rc;
}

static int fake_barrier(void *arg, _Atomic uint32_t *left)
{
	int rc = fake_post(left);

	assert_ptr_equal(arg, &fx);
	if (!rc)
		atomic_fetch_add(&fx.barrier_count, 1);
	return rc;
}

static int fake_config(void *arg, bool json, char *buf, size_t size)
{
	assert_ptr_equal(arg, &fx);
	return snprintf(buf, size, json ? "{}" : "device = \"auto\";\n");
}

/* Says back what it was asked; "refuse" is refused, "long" fills the answer. */
static int fake_command(void *arg, uint32_t uid, const char *words, bool json, char *buf, size_t size)
{
	assert_ptr_equal(arg, &fx);
	if (!strcmp(words, "refuse")) {
		snprintf(buf, size, "not today");
		return -EPERM;
	}
	if (!strcmp(words, "long")) {
		memset(buf, 'x', size - 1);
		buf[size - 1] = 0;
		return (int)size - 1;
	}
	return snprintf(buf, size, "%u %d %s", uid, json, words);
}

static int fake_capture_start(
        void *arg, const struct capture_spec *spec, int *shm_fd, char *err, size_t err_size)
{
	struct capture_shm *shm;
	size_t size = capture_shm_size(STACKS, CAPTURE_RING_MIN);

	assert_ptr_equal(arg, &fx);
	if (spec->snap_size == 77) {
		snprintf(err, err_size, "no captures of 77 bytes today");
		return -EBUSY;
	}
	*shm_fd = memfd_create("rings", MFD_CLOEXEC);
	assert_int_equal(ftruncate(*shm_fd, (off_t)size), 0);
	shm = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *shm_fd, 0);
	capture_shm_init(shm, STACKS, CAPTURE_RING_MIN, "tap:x", (const uint8_t[6]){0});
	munmap(shm, size);
	return (int)atomic_fetch_add(&fx.capture_count, 1);
}

static void fake_capture_stop(void *arg, uint32_t capture)
{
	assert_ptr_equal(arg, &fx);
	atomic_fetch_or(&fx.capture_stopped, 1u << capture);
}

static void fake_capture_free(void *arg, uint32_t capture)
{
	assert_ptr_equal(arg, &fx);
	atomic_fetch_or(&fx.capture_freed, 1u << capture);
}

static const struct server_ops fake_ops = {fake_gone, fake_barrier, fake_config, fake_capture_start,
        fake_capture_stop, fake_capture_free, fake_command};

/* Lets every stack run what it was given, and one stack only when all is false. */
static void stacks_run(bool all)
{
	pthread_mutex_lock(&fx.lock);
	for (uint32_t i = 0; i < fx.held_count; i++) {
		uint32_t n = all ? fx.held[i].count : 1;

		fx.held[i].count -= n;
		atomic_fetch_sub(fx.held[i].left, n);
	}
	if (all)
		fx.held_count = 0;
	pthread_mutex_unlock(&fx.lock);
}

/* --- fixture --- */

static void *serve(void *arg)
{
	struct pollfd fds[] = {
	        {.fd = fx.stop_fd, .events = POLLIN}, {.fd = server_fd(fx.server), .events = POLLIN}};

	while (poll(fds, 2, -1) >= 0 && !fds[0].revents)
		server_serve(fx.server);
	return arg;
}

static int setup(void **state)
{
	struct arena_spec spec = {.name = "test",
	        .stack_count = STACKS,
	        .endpoint_count = 256,
	        .client_count = CLIENTS,
	        .block_memory = 1 << 20,
	        .huge = -1};
	struct server_spec ss = {.arena = &fx.arena, .ops = fake_ops, .ops_arg = &fx};
	char err[256] = "";
	bool is_huge;

	(void)state;
	libc_init();
	log_level_set(LOG_LEVEL_ERROR);
	memset(&fx, 0, sizeof(fx));
	pthread_mutex_init(&fx.lock, NULL);
	strcpy(fx.folder, "/tmp/pronk-test-XXXXXX");
	assert_non_null(mkdtemp(fx.folder));
	snprintf(fx.path, sizeof(fx.path), "%s/test.sock", fx.folder);
	assert_int_equal(arena_create(&fx.arena, &spec, &is_huge, err, sizeof(err)), 0);
	assert_int_equal(segment_create(&fx.stats, STACKS, err, sizeof(err)), 0);
	for (int i = 0; i < ARENA_POLLER_MAX; i++)
		atomic_store(&fx.poller_fds[i], -1);
	fx.region_fd = memfd_create("region", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fx.region_fd, 3 * 4096), 0);
	fx.stop_fd = eventfd(0, EFD_CLOEXEC);
	ss.socket_path = fx.path;
	ss.stats = stat_segment_block(fx.stats.base, 0);
	ss.poller_fds = fx.poller_fds;
	ss.stats_fd = fx.stats.fd;
	for (int i = 0; i < STACKS; i++)
		ss.stack_fd[i] = fx.stack_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ss.region_count = 1;
	ss.region[0].fd = fx.region_fd;
	ss.region[0].fd_offset = 4096;
	ss.region[0].size = 8192;
	assert_int_equal(server_create(&fx.server, &ss, err, sizeof(err)), 0);
	assert_int_equal(pthread_create(&fx.thread, NULL, serve, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	uint64_t one = 1;

	(void)state;
	assert_int_equal(write(fx.stop_fd, &one, sizeof(one)), sizeof(one));
	pthread_join(fx.thread, NULL);
	server_close(fx.server);
	assert_int_equal(access(fx.path, F_OK), -1);
	server_destroy(fx.server);
	segment_close(&fx.stats);
	arena_close(&fx.arena);
	close(fx.region_fd);
	close(fx.stop_fd);
	for (int i = 0; i < STACKS; i++)
		close(fx.stack_fd[i]);
	return rmdir(fx.folder);
}

static void nap_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l};

	nanosleep(&t, NULL);
}

#define WAIT_FOR(condition)                                                                                  \
	do {                                                                                                 \
		uint64_t wait_start = clock_now_ns();                                                        \
		while (!(condition)) {                                                                       \
			assert_true(clock_now_ns() - wait_start < 5 * CLOCK_NS_PER_S);                       \
			nap_ms(1);                                                                           \
		}                                                                                            \
	} while (0)

static uint32_t client_state(uint32_t idx)
{
	return atomic_load(&arena_client(&fx.arena, idx)->state);
}

static uint64_t stat_read(enum stat_id id)
{
	return stat_get(stat_segment_block(fx.stats.base, 0), id);
}

static void join(struct attach *at)
{
	char err[256] = "";

	assert_int_equal(attach_join(at, fx.path, CTL_CLIENT, err, sizeof(err)), 0);
}

static int raw_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 5};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, fx.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static void raw_send(int fd, const void *buf, size_t size, const int *fds, size_t fd_count)
{
	char control[CMSG_SPACE(8 * sizeof(int))] = {0};
	struct iovec iov = {(void *)(uintptr_t)buf, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd_count) {
		struct cmsghdr *cm;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		cm = CMSG_FIRSTHDR(&msg);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, fd_count * sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), size);
}

static struct ctl_request request(uint32_t kind, uint32_t value)
{
	return (struct ctl_request){
	        .magic = CTL_MAGIC, .version = ARENA_VERSION, .kind = kind, .value = value, .program = "raw"};
}

static bool is_hung_up(int fd)
{
	char c;

	return recv(fd, &c, 1, 0) == 0 || errno == ECONNRESET;
}

static uint32_t open_fds(void)
{
	uint32_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* --- joining --- */

static void client_join_gives_slot_memory_and_descriptors(void **state)
{
	struct attach at;
	struct client *c;

	(void)state;
	join(&at);
	c = arena_client(&fx.arena, at.client_idx);
	assert_int_equal(atomic_load(&c->state), CLIENT_ACTIVE);
	assert_int_equal(atomic_load(&c->pid), getpid());
	assert_int_equal(atomic_load(&c->gen), 1);
	assert_int_equal(strncmp(c->program, "test_server", 11), 0);
	assert_int_equal(at.arena.stack_count, STACKS);
	assert_int_equal(at.arena.region_count, 1);
	assert_int_equal(at.arena.region[0].size, 8192);
	/* packets may be looked at only, whatever the client does to its mapping */
	assert_int_equal(
	        mprotect((void *)(uintptr_t)at.arena.region[0].base, 8192, PROT_READ | PROT_WRITE), -1);
	at.client->call[3].op = 77; /* the same memory, writable */
	assert_int_equal(c->call[3].op, 77);
	assert_int_equal(eventfd_write(at.stack_fd[1], 1), 0);
	assert_int_equal(eventfd_write(fx.stack_fd[1], 1), 0);
	WAIT_FOR(stat_read(STAT_clients_attached) == 1);
	attach_leave(&at);
	WAIT_FOR(stat_read(STAT_clients_attached) == 0);
	WAIT_FOR(client_state(at.client_idx) == CLIENT_FREE);
	assert_int_equal(stat_read(STAT_clients_died), 0);
}

static void observer_can_read_and_cannot_write(void **state)
{
	struct attach at;
	char err[256] = "", text[4096];
	void *p;

	(void)state;
	assert_int_equal(attach_join(&at, fx.path, CTL_OBSERVER, err, sizeof(err)), 0);
	assert_int_equal(at.arena.hdr->magic, ARENA_MAGIC);
	assert_int_equal(at.arena.region_count, 0);
	assert_null(at.client);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, at.arena.fd, 0);
	assert_ptr_equal(p, MAP_FAILED);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, at.stats_fd, 0);
	assert_ptr_equal(p, MAP_FAILED);
	assert_int_equal(ftruncate(fx.stats.fd, 0), -1);
	assert_int_equal(attach_config_text(&at, false, text, sizeof(text)), strlen("device = \"auto\";\n"));
	assert_string_equal(text, "device = \"auto\";\n");
	assert_int_equal(attach_config_text(&at, true, text, sizeof(text)), 2);
	assert_string_equal(text, "{}");
	assert_int_equal(stat_read(STAT_clients_attached), 0);
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_int_equal(client_state(i), CLIENT_FREE);
	attach_leave(&at);
}

static void command_of_an_observer_is_answered_with_text(void **state)
{
	static char words[CTL_WORDS_MAX + 2], text[CTL_TEXT_MAX + 1];
	char err[256] = "", expected[64];
	struct attach at;

	(void)state;
	assert_int_equal(attach_join(&at, fx.path, CTL_OBSERVER, err, sizeof(err)), 0);
	snprintf(expected, sizeof(expected), "%u 0 set a b", geteuid());
	assert_int_equal(attach_command(&at, "set a b", false, text, sizeof(text)), strlen(expected));
	assert_string_equal(text, expected);
	snprintf(expected, sizeof(expected), "%u 1 ", geteuid());
	assert_int_equal(attach_command(&at, "", true, text, sizeof(text)), strlen(expected));
	assert_string_equal(text, expected);
	assert_int_equal(attach_command(&at, "refuse", false, text, sizeof(text)), -EPERM);
	assert_string_equal(text, "not today");
	assert_int_equal(attach_command(&at, "long", false, text, sizeof(text)), CTL_TEXT_MAX - 1);
	assert_int_equal(attach_command(&at, "refuse", false, text, 4), -EPERM);
	assert_string_equal(text, "not");
	memset(words, 'w', CTL_WORDS_MAX + 1);
	assert_int_equal(attach_command(&at, words, false, text, sizeof(text)), -E2BIG);
	words[CTL_WORDS_MAX] = 0;
	assert_true(attach_command(&at, words, false, text, sizeof(text)) > CTL_WORDS_MAX);
	assert_memory_equal(strchr(text, 'w'), words, CTL_WORDS_MAX + 1);
	attach_leave(&at);
}

static void command_of_a_client_or_with_a_wrong_size_ends_the_connection(void **state)
{
	struct ctl_request req = request(CTL_COMMAND, 0);
	struct attach at;
	char err[256] = "", text[64];

	(void)state;
	assert_int_equal(attach_join(&at, fx.path, CTL_CLIENT, err, sizeof(err)), 0);
	assert_int_equal(attach_command(&at, "set a b", false, text, sizeof(text)), -ECONNRESET);
	attach_leave(&at);
	assert_int_equal(attach_join(&at, fx.path, CTL_OBSERVER, err, sizeof(err)), 0);
	req.value = 5; /* and no words follow */
	assert_int_equal(send(at.ctl_fd, &req, sizeof(req), MSG_NOSIGNAL), sizeof(req));
	WAIT_FOR(attach_check_dead(&at));
	attach_leave(&at);
}

static void other_version_is_told_so(void **state)
{
	struct ctl_request req = request(CTL_CLIENT, 0);
	struct ctl_welcome w;
	struct ctl_answer ans;
	int fd = raw_connect();

	(void)state;
	req.version = ARENA_VERSION + 6;
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &w, sizeof(w), 0), sizeof(w));
	assert_int_equal(w.result, -EPROTO);
	assert_non_null(strstr(w.reason, "version"));
	req.kind = CTL_FORKED;
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &ans, sizeof(ans), 0), sizeof(ans));
	assert_int_equal(ans.result, -EPROTO);
	close(fd);
}

static void no_free_slot_gives_eusers_until_one_leaves(void **state)
{
	struct attach at[CLIENTS], extra;
	char err[256] = "";

	(void)state;
	for (int i = 0; i < CLIENTS; i++)
		join(&at[i]);
	assert_int_equal(attach_join(&extra, fx.path, CTL_CLIENT, err, sizeof(err)), -EUSERS);
	assert_non_null(strstr(err, "max_clients"));
	attach_leave(&at[2]);
	WAIT_FOR(client_state(at[2].client_idx) == CLIENT_FREE);
	join(&extra);
	assert_int_equal(extra.client_idx, at[2].client_idx);
	assert_int_equal(atomic_load(&extra.client->gen), 2);
	attach_leave(&extra);
	for (int i = 0; i < CLIENTS; i++)
		if (i != 2)
			attach_leave(&at[i]);
	WAIT_FOR(stat_read(STAT_clients_attached) == 0);
}

/* --- pollers --- */

static void poller_fd_reaches_the_stacks(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), poller, seen;
	struct attach at;
	eventfd_t value = 0;

	(void)state;
	join(&at);
	poller = poller_claim(&at.arena, at.client_idx);
	assert_int_equal(attach_poller(&at, (uint32_t)poller, fd), 0);
	seen = atomic_load(&fx.poller_fds[poller]);
	assert_true(seen >= 0 && seen != fd);
	assert_true(fcntl(seen, F_GETFL) & O_NONBLOCK);
	eventfd_write(seen, 5);
	assert_int_equal(eventfd_read(fd, &value), 0);
	assert_int_equal(value, 5);
	attach_poller_free(&at, (uint32_t)poller);
	WAIT_FOR(!atomic_load(&fx.arena.pollers[poller].owner));
	assert_int_equal(atomic_load(&fx.poller_fds[poller]), -1);
	assert_int_equal(fcntl(seen, F_GETFD), -1);
	attach_leave(&at);
	close(fd);
}

static void poller_of_another_client_is_refused(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), pipe_fd[2], poller;
	struct attach a, b;

	(void)state;
	join(&a);
	join(&b);
	poller = poller_claim(&a.arena, a.client_idx);
	assert_int_equal(attach_poller(&b, (uint32_t)poller, fd), -EINVAL);
	assert_int_equal(attach_poller(&b, ARENA_POLLER_MAX, fd), -EINVAL);
	attach_poller_free(&b, (uint32_t)poller);
	attach_poller_free(&b, UINT32_MAX);
	assert_int_equal(attach_poller(&a, (uint32_t)poller, fd), 0);
	/* only event fds: nothing that could block a stack or send it a signal */
	assert_int_equal(pipe(pipe_fd), 0);
	assert_int_equal(attach_poller(&a, (uint32_t)poller, pipe_fd[1]), -EINVAL);
	assert_int_equal(atomic_load(&fx.arena.pollers[poller].owner), a.client_idx + 1);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	attach_leave(&a);
	attach_leave(&b);
	WAIT_FOR(!atomic_load(&fx.arena.pollers[poller].owner));
	close(fd);
}

static void replaced_poller_fd_is_closed_after_the_barrier(void **state)
{
	int one = eventfd(0, EFD_CLOEXEC), two = eventfd(0, EFD_CLOEXEC), poller, old;
	struct attach at;

	(void)state;
	join(&at);
	poller = poller_claim(&at.arena, at.client_idx);
	assert_int_equal(attach_poller(&at, (uint32_t)poller, one), 0);
	old = atomic_load(&fx.poller_fds[poller]);
	atomic_store(&fx.is_holding, true);
	assert_int_equal(attach_poller(&at, (uint32_t)poller, two), 0);
	assert_int_not_equal(atomic_load(&fx.poller_fds[poller]), old);
	WAIT_FOR(atomic_load(&fx.barrier_count) == 1);
	stacks_run(false);
	nap_ms(20);
	assert_true(fcntl(old, F_GETFD) >= 0); /* one stack may still be using it */
	atomic_store(&fx.is_holding, false);
	stacks_run(true);
	WAIT_FOR(fcntl(old, F_GETFD) < 0);
	assert_int_equal(atomic_load(&fx.arena.pollers[poller].owner), at.client_idx + 1);
	attach_leave(&at);
	WAIT_FOR(client_state(at.client_idx) == CLIENT_FREE);
	close(one);
	close(two);
}

/* --- the end of a client --- */

static void dead_client_is_cleaned_up_in_three_steps(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), poller, idle_poller, seen;
	struct attach at, other;
	struct client *c;
	uint32_t idx;

	(void)state;
	join(&at);
	idx = at.client_idx;
	c = arena_client(&fx.arena, idx);
	poller = poller_claim(&at.arena, idx);
	idle_poller = poller_claim(&at.arena, idx);
	assert_int_equal(attach_poller(&at, (uint32_t)poller, fd), 0);
	seen = atomic_load(&fx.poller_fds[poller]);
	hold_set(&at.arena, idx, 70);
	atomic_store(&c->call[2].state, CALL_POSTED);
	atomic_store(&c->fallback[9].fd, 33);
	atomic_store(&fx.is_holding, true);
	attach_leave(&at);

	/* every stack drops it first */
	WAIT_FOR(atomic_load(&fx.gone_count) == 1);
	assert_int_equal(atomic_load(&fx.gone_client), idx);
	assert_int_equal(client_state(idx), CLIENT_DEAD);
	assert_int_equal(atomic_load(&fx.poller_fds[poller]), seen);
	stacks_run(false);
	nap_ms(20);
	assert_int_equal(atomic_load(&fx.barrier_count), 0);
	stacks_run(true);

	/* then they pass a barrier while nobody can find its event fds */
	WAIT_FOR(atomic_load(&fx.barrier_count) == 1);
	assert_int_equal(atomic_load(&fx.poller_fds[poller]), -1);
	assert_true(fcntl(seen, F_GETFD) >= 0);
	assert_int_equal(client_state(idx), CLIENT_DEAD);
	join(&other);
	assert_int_not_equal(other.client_idx, idx);
	atomic_store(&fx.is_holding, false);
	stacks_run(true);

	/* then the slot is as new */
	WAIT_FOR(client_state(idx) == CLIENT_FREE);
	assert_int_equal(fcntl(seen, F_GETFD), -1);
	assert_int_equal(atomic_load(&fx.arena.pollers[poller].owner), 0);
	assert_int_equal(atomic_load(&fx.arena.pollers[idle_poller].owner), 0);
	assert_false(hold_test(&fx.arena, idx, 70));
	assert_int_equal(atomic_load(&c->call[2].state), CALL_FREE);
	assert_int_equal(atomic_load(&c->fallback[9].fd), -1);
	assert_int_equal(atomic_load(&c->pid), 0);
	assert_int_equal(stat_read(STAT_clients_died), 1);
	attach_leave(&other);
	WAIT_FOR(client_state(other.client_idx) == CLIENT_FREE);
	close(fd);
}

static void poller_freed_just_before_death_is_closed_once(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), poller;
	struct attach at;
	uint32_t before;

	(void)state;
	before = open_fds();
	join(&at);
	poller = poller_claim(&at.arena, at.client_idx);
	assert_int_equal(attach_poller(&at, (uint32_t)poller, fd), 0);
	atomic_store(&fx.is_holding, true);
	attach_poller_free(&at, (uint32_t)poller);
	attach_poller_free(&at, (uint32_t)poller); /* a second time changes nothing */
	attach_leave(&at);
	WAIT_FOR(atomic_load(&fx.gone_count) == 1);
	atomic_store(&fx.is_holding, false);
	stacks_run(true);
	WAIT_FOR(client_state(at.client_idx) == CLIENT_FREE);
	WAIT_FOR(!atomic_load(&fx.arena.pollers[poller].owner));
	WAIT_FOR(open_fds() == before);
	close(fd);
}

static void cleaning_up_goes_on_when_stacks_could_not_be_asked(void **state)
{
	struct attach at;

	(void)state;
	join(&at);
	atomic_store(&fx.is_refusing, true);
	attach_leave(&at);
	WAIT_FOR(client_state(at.client_idx) == CLIENT_DEAD);
	nap_ms(20);
	assert_int_equal(client_state(at.client_idx), CLIENT_DEAD);
	atomic_store(&fx.is_refusing, false);
	WAIT_FOR(client_state(at.client_idx) == CLIENT_FREE);
}

static void server_may_be_destroyed_while_stacks_owe_it_something(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), poller;
	struct attach at, other;

	(void)state;
	join(&at);
	join(&other);
	poller = poller_claim(&at.arena, at.client_idx);
	assert_int_equal(attach_poller(&at, (uint32_t)poller, fd), 0);
	atomic_store(&fx.is_holding, true);
	attach_poller_free(&at, (uint32_t)poller);
	attach_leave(&at);
	WAIT_FOR(atomic_load(&fx.gone_count) == 1);
	attach_leave(&other); /* teardown goes on from here */
	close(fd);
}

/* --- fork --- */

static uint32_t slot_prepare(pid_t pid)
{
	for (uint32_t i = 0; i < CLIENTS; i++) {
		struct client *c = arena_client(&fx.arena, i);
		uint32_t none = CLIENT_FREE;

		if (!atomic_compare_exchange_strong(&c->state, &none, CLIENT_FORKING))
			continue;
		atomic_store(&c->pid, pid);
		return i;
	}
	fail_msg("no free slot");
	return 0;
}

static void forked_child_takes_its_slot_over(void **state)
{
	struct attach parent;
	uint32_t idx;
	int status;
	pid_t pid;

	(void)state;
	join(&parent);
	idx = slot_prepare(-1);
	hold_set(&fx.arena, idx, 5);
	pid = fork();
	if (!pid) {
		int rc = attach_rejoin(&parent, fx.path, idx);

		if (!rc && !attach_check_dead(&parent))
			rc = atomic_load(&parent.client->state) == CLIENT_ACTIVE ? 42 : 1;
		_exit(rc);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	WAIT_FOR(client_state(idx) == CLIENT_FREE);
	assert_int_equal(atomic_load(&fx.gone_client), idx);
	assert_false(hold_test(&fx.arena, idx, 5));
	assert_false(attach_check_dead(&parent));
	assert_int_equal(atomic_load(&parent.client->state), CLIENT_ACTIVE);
	attach_leave(&parent);
}

static void slot_that_nobody_prepared_is_not_given_away(void **state)
{
	struct ctl_request req = request(CTL_FORKED, 1);
	struct ctl_answer ans;
	struct attach at;
	int fd = raw_connect();

	(void)state;
	join(&at);
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &ans, sizeof(ans), 0), sizeof(ans));
	assert_int_equal(ans.result, -ESRCH);
	req.value = at.client_idx;
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &ans, sizeof(ans), 0), sizeof(ans));
	assert_int_equal(ans.result, -ESRCH);
	req.value = UINT32_MAX;
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &ans, sizeof(ans), 0), sizeof(ans));
	assert_int_equal(ans.result, -ESRCH);
	/* a client that rewrites its own state in shared memory gains nothing */
	atomic_store(&at.client->state, CLIENT_FORKING);
	req.value = at.client_idx;
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &ans, sizeof(ans), 0), sizeof(ans));
	assert_int_equal(ans.result, -ESRCH);
	close(fd);
	attach_leave(&at);
	WAIT_FOR(client_state(at.client_idx) == CLIENT_FREE);
}

static void slot_of_child_that_died_early_is_reaped(void **state)
{
	struct attach parent;
	uint32_t idx;
	pid_t pid;

	(void)state;
	join(&parent);
	pid = fork();
	if (!pid)
		_exit(0);
	idx = slot_prepare(pid);
	hold_set(&fx.arena, idx, 9);
	attach_leave(&parent); /* and the parent is gone, too; its child stays a zombie for a while */
	WAIT_FOR(client_state(idx) == CLIENT_FREE);
	assert_false(hold_test(&fx.arena, idx, 9));
	assert_int_equal(atomic_load(&fx.gone_count), 2);
	assert_int_equal(stat_read(STAT_clients_died), 1);
	waitpid(pid, NULL, 0);
}

static void slot_that_a_parent_takes_back_is_free(void **state)
{
	struct attach parent, at;
	uint32_t idx;

	(void)state;
	join(&parent);
	idx = slot_prepare(0);
	nap_ms(600); /* the server has seen it */
	assert_int_equal(client_state(idx), CLIENT_FORKING);
	atomic_store(&arena_client(&fx.arena, idx)->state, CLIENT_FREE);
	nap_ms(600);
	join(&at);
	assert_int_equal(at.client_idx, idx);
	assert_int_equal(atomic_load(&fx.gone_count), 0);
	attach_leave(&at);
	attach_leave(&parent);
	WAIT_FOR(stat_read(STAT_clients_attached) == 0);
}

/* --- messages that make no sense --- */

static void nonsense_costs_the_connection(void **state)
{
	struct ctl_request bad_magic = request(CTL_CLIENT, 0), bad_kind = request(99, 0),
	                   zero = request(0, 0);
	struct ctl_request config = request(CTL_CONFIG, 0), poller = request(CTL_POLLER, 0);
	struct ctl_request joins = request(CTL_CLIENT, 0);
	char big[4096] = {0};
	struct {
		const void *buf;
		size_t size;
		size_t fd_count;
	} const cases[] = {
	        {"x", 1, 0},
	        {&joins, sizeof(joins) - 1, 0},
	        {big, sizeof(big), 0},
	        {&bad_magic, sizeof(bad_magic), 0},
	        {&bad_kind, sizeof(bad_kind), 0},
	        {&zero, sizeof(zero), 0},
	        {&config, sizeof(config), 0}, /* before it has joined */
	        {&poller, sizeof(poller), 1},
	        {&joins, sizeof(joins), 2}, /* more descriptors than any message has */
	        {&joins, sizeof(joins), 8},
	};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), fds[8];
	uint32_t before;

	(void)state;
	bad_magic.magic++;
	for (int i = 0; i < 8; i++)
		fds[i] = null;
	before = open_fds();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = raw_connect();

		raw_send(fd, cases[i].buf, cases[i].size, fds, cases[i].fd_count);
		assert_true(is_hung_up(fd));
		close(fd);
	}
	WAIT_FOR(open_fds() == before);
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_int_equal(client_state(i), CLIENT_FREE);
	close(null);
}

static void second_join_on_a_connection_costs_it(void **state)
{
	struct ctl_request req = request(CTL_CLIENT, 0);
	struct ctl_welcome w;
	int fd = raw_connect();

	(void)state;
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &w, sizeof(w), 0), sizeof(w));
	assert_int_equal(w.result, 0);
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_true(is_hung_up(fd));
	close(fd);
	WAIT_FOR(client_state(w.client_idx) == CLIENT_FREE);
}

static void program_name_is_made_printable(void **state)
{
	struct ctl_request req = request(CTL_CLIENT, 0);
	struct ctl_welcome w;
	int fd = raw_connect();

	(void)state;
	memset(req.program, 'A', sizeof(req.program));
	memcpy(req.program, "a\033[2J\n", 6);
	raw_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(recv(fd, &w, sizeof(w), 0), sizeof(w));
	assert_string_equal(
	        arena_client(&fx.arena, w.client_idx)->program, "a?[2J?AAAAAAAAAAAAAAAAAAAAAAAAA");
	close(fd);
	WAIT_FOR(client_state(w.client_idx) == CLIENT_FREE);
}

/* --- lock and socket --- */

static void lock_lets_one_service_in(void **state)
{
	char folder[] = "/tmp/pronk-test-XXXXXX", err[256] = "", path[CFG_SOCKET_PATH_MAX], lock_path[128];
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct cfg cfg;
	int lock, listener;

	(void)state;
	libc_init();
	assert_non_null(mkdtemp(folder));
	cfg_defaults(&cfg);
	snprintf(cfg.runtime_dir, sizeof(cfg.runtime_dir), "%s/a/b", folder);
	lock = lock_take(&cfg, 0, err, sizeof(err));
	assert_true(lock >= 0);
	cfg_socket_path(&cfg, path, sizeof(path));
	assert_int_equal(socket_probe(path), -ENOENT);
	assert_int_equal(lock_take(&cfg, 60, err, sizeof(err)), -EBUSY);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	strcpy(addr.sun_path, path);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(socket_probe(path), -ECONNREFUSED);
	assert_int_equal(listen(listener, 1), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(socket_probe(path), 0); /* also when its queue is full */
	assert_int_equal(lock_take(&cfg, 60, err, sizeof(err)), -EALREADY);
	assert_non_null(strstr(err, "already runs"));
	close(listener);
	close(lock);
	lock = lock_take(&cfg, 0, err, sizeof(err)); /* what a crashed service leaves does not matter */
	assert_true(lock >= 0);
	close(lock);
	snprintf(cfg.runtime_dir, sizeof(cfg.runtime_dir), "%s/a/b/pronk.lock/c", folder);
	assert_int_equal(lock_take(&cfg, 0, err, sizeof(err)), -ENOTDIR);
	unlink(path);
	snprintf(lock_path, sizeof(lock_path), "%s/a/b/pronk.lock", folder);
	unlink(lock_path);
	*strrchr(lock_path, '/') = 0;
	rmdir(lock_path);
	*strrchr(lock_path, '/') = 0;
	rmdir(lock_path);
	assert_int_equal(rmdir(folder), 0);
}

/* --- captures --- */

static const struct capture_spec capture_good = {.magic = CAPTURE_MAGIC,
        .snap_size = 96,
        .directions = CAPTURE_IN,
        .queues = 1,
        .ring_size = CAPTURE_RING_MIN};

static void capture_lasts_as_long_as_its_connection(void **state)
{
	struct wiretap first, second;
	char err[256] = "";

	(void)state;
	assert_int_equal(wiretap_open(&first, fx.path, &capture_good, err, sizeof(err)), 0);
	assert_int_equal(wiretap_open(&second, fx.path, &capture_good, err, sizeof(err)), 0);
	assert_string_equal(first.shm->device, "tap:x");
	assert_true(wiretap_is_alive(&first));
	assert_int_equal(atomic_load(&fx.capture_stopped), 0);
	/* freed only when every stack has passed a point */
	atomic_store(&fx.is_holding, true);
	wiretap_close(&second);
	WAIT_FOR(atomic_load(&fx.capture_stopped) == 2);
	WAIT_FOR(fx.held_count == 1);
	stacks_run(false);
	nap_ms(20);
	assert_int_equal(atomic_load(&fx.capture_freed), 0);
	stacks_run(true);
	WAIT_FOR(atomic_load(&fx.capture_freed) == 2);
	atomic_store(&fx.is_holding, false);
	wiretap_close(&first);
	WAIT_FOR(atomic_load(&fx.capture_freed) == 3);
	assert_int_equal(stat_read(STAT_clients_attached), 0);
}

static void capture_ends_with_a_killed_process(void **state)
{
	int status, ready[2];
	char c;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		char err[256] = "";
		struct wiretap d;

		if (wiretap_open(&d, fx.path, &capture_good, err, sizeof(err)) ||
		        write(ready[1], "r", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	assert_int_equal(atomic_load(&fx.capture_stopped), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	WAIT_FOR(atomic_load(&fx.capture_freed) == 1);
}

static void capture_that_cannot_be_is_refused_with_the_reason(void **state)
{
	struct capture_spec bad = capture_good;
	struct wiretap d;
	char err[256] = "";

	(void)state;
	bad.snap_size = 77;
	assert_int_equal(wiretap_open(&d, fx.path, &bad, err, sizeof(err)), -EBUSY);
	assert_string_equal(err, "no captures of 77 bytes today");
	bad.snap_size = 0;
	assert_int_equal(wiretap_open(&d, fx.path, &bad, err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "snap length 0 (allowed: 1 to 262144)");
	assert_int_equal(wiretap_open(&d, "/nowhere/at/all.sock", &capture_good, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "no service at /nowhere/at/all.sock"));
	assert_int_equal(atomic_load(&fx.capture_count), 0);
}

/* Whoever asks may hand over anything. */
static void capture_request_outside_sealed_memory_is_refused(void **state)
{
	struct ctl_request req = request(CTL_CAPTURE, 0);
	struct ctl_capture ans;
	int fds[3], pipe_fds[2];

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	fds[0] = pipe_fds[0];
	fds[1] = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(write(fds[1], &capture_good, sizeof(capture_good)), sizeof(capture_good));
	fds[2] = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fds[2], 1 << 30), 0);
	assert_int_equal(
	        fcntl(fds[2], F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
	for (int i = 0; i < 3; i++) {
		int fd = raw_connect();

		raw_send(fd, &req, sizeof(req), &fds[i], 1);
		assert_int_equal(recv(fd, &ans, sizeof(ans), 0), sizeof(ans));
		assert_int_equal(ans.result, -EINVAL);
		assert_non_null(strstr(ans.reason, "sealed memory"));
		close(fd);
		close(fds[i]);
	}
	close(pipe_fds[1]);
	assert_int_equal(atomic_load(&fx.capture_count), 0);
}

static void capture_by_another_user_is_refused(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(chmod(fx.folder, 0755), 0);
	pid = fork();
	if (!pid) {
		char err[256] = "";
		struct wiretap d;

		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(1);
		if (wiretap_open(&d, fx.path, &capture_good, err, sizeof(err)) != -EPERM)
			_exit(2);
		_exit(strcmp(err, "only root and the service's user may capture packets") ? 3 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(atomic_load(&fx.capture_count), 0);
}

static void stale_socket_is_replaced(void **state)
{
	struct server_spec ss = {.arena = &fx.arena,
	        .stats = stat_segment_block(fx.stats.base, 0),
	        .stats_fd = fx.stats.fd,
	        .poller_fds = fx.poller_fds,
	        .ops = fake_ops,
	        .ops_arg = &fx};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char path[108], err[256] = "";
	struct server *second = NULL;
	struct stat st;
	int stale = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)state;
	snprintf(path, sizeof(path), "%s/other.sock", fx.folder);
	strcpy(addr.sun_path, path);
	assert_int_equal(bind(stale, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(stale);
	ss.socket_path = path;
	assert_int_equal(server_create(&second, &ss, err, sizeof(err)), 0);
	assert_int_equal(socket_probe(path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	server_destroy(second);
	assert_int_equal(access(path, F_OK), -1);
	ss.socket_path = "/nowhere/at/all.sock";
	assert_int_equal(server_create(&second, &ss, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "/nowhere/at/all.sock"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	        TEST(client_join_gives_slot_memory_and_descriptors),
	        TEST(observer_can_read_and_cannot_write),
	        TEST(command_of_an_observer_is_answered_with_text),
	        TEST(command_of_a_client_or_with_a_wrong_size_ends_the_connection),
	        TEST(other_version_is_told_so),
	        TEST(no_free_slot_gives_eusers_until_one_leaves),
	        TEST(poller_fd_reaches_the_stacks),
	        TEST(poller_of_another_client_is_refused),
	        TEST(replaced_poller_fd_is_closed_after_the_barrier),
	        TEST(dead_client_is_cleaned_up_in_three_steps),
	        TEST(poller_freed_just_before_death_is_closed_once),
	        TEST(cleaning_up_goes_on_when_stacks_could_not_be_asked),
	        TEST(server_may_be_destroyed_while_stacks_owe_it_something),
	        TEST(forked_child_takes_its_slot_over),
	        TEST(slot_that_nobody_prepared_is_not_given_away),
	        TEST(slot_of_child_that_died_early_is_reaped),
	        TEST(slot_that_a_parent_takes_back_is_free),
	        TEST(nonsense_costs_the_connection),
	        TEST(second_join_on_a_connection_costs_it),
	        TEST(program_name_is_made_printable),
	        TEST(capture_lasts_as_long_as_its_connection),
	        TEST(capture_ends_with_a_killed_process),
	        TEST(capture_that_cannot_be_is_refused_with_the_reason),
	        TEST(capture_request_outside_sealed_memory_is_refused),
	        TEST(capture_by_another_user_is_refused),
	        TEST(stale_socket_is_replaced),
	        cmocka_unit_test(lock_lets_one_service_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
