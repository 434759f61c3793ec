/* engine_int.h - the host object, for the two files that run it: engine.c (threads of their own) and inline.c
 * (the application's threads). */
#pragma once
#include "engine.h"

#include <pthread.h>
#include <stdatomic.h>

#include "arena.h"
#include "cfg.h"
#include "nic.h"
#include "segment.h"
#include "server.h"
#include "stack.h"

struct engine {
	struct cfg cfg;
	char device[128]; /* what "auto" became; the arena's copy only tells others */
	bool is_timed;    /* what pronkctl latency has last asked for; the arena's word tells programs */
	struct nic_inject inject; /* what pronkctl inject has last asked for */
	int lock_fd;
	struct nic *nic;
	struct nic_info info;
	uint8_t address[4], netmask[4], gateway[4];
	unsigned prefix;
	bool has_gateway;
	uint16_t mtu;
	struct nic_region region[NIC_REGION_MAX];
	uint32_t region_count;
	struct arena arena;
	bool is_arena_huge;
	struct segment stats;
	_Atomic int *poller_fds;
	struct server *server;
	int epoll_fd; /* server's and event_fd */
	int event_fd; /* a stack thread has ended by itself */
	_Atomic bool is_stopping, has_failed;
	uint32_t stack_count;
	struct follow *follow; /* the kernel's interface; NULL: the port has none */
	bool is_inline;        /* one stack, which belongs to whoever holds the driver token */
	struct stack *stacks[ARENA_STACK_MAX];
	struct stack_thread {
		struct engine *e;
		uint32_t idx;
		uint16_t core;
		bool is_running;
		pthread_t thread;
	} threads[ARENA_STACK_MAX];
};

/* Hands fn with arg and ptr to every stack, or to none; each takes one off *left when it has run it (left may
 * be NULL). Control thread; does not wait. 0 or -ENOMEM. */
int engine_post_all(struct engine *e, void (*fn)(struct stack *s, struct stack_msg *m), uint64_t arg,
        void *ptr, _Atomic uint32_t *left);
/* The same with an own ptr for each stack, which the stack gets. 0 or -ENOMEM: then no stack got any. */
int engine_post_each(
        struct engine *e, void (*fn)(struct stack *s, struct stack_msg *m), void *const ptr[ARENA_STACK_MAX]);

/* --- follow.c: the port's address, gateway, MTU and neighbours follow the kernel's interface --- */

/* Writes what the port has at the start into the arena. */
void follow_tell(struct engine *e);
/* Begins to watch, when the stacks run and epoll_fd is there. Without the right or the means to it a line
 * says so and the port keeps what it has. */
void follow_open(struct engine *e);
/* After epoll_fd was readable, or any time. Control thread, as all of these; short system calls. */
void follow_serve(struct engine *e);
void follow_close(struct engine *e);

/* Puts what programs must know of the configuration, and what may change, into the arena. Control thread. */
void engine_publish(struct engine *e);

/* What pronkctl has the service do (command.c): server_ops.command. Control thread; does not block. */
int engine_command(void *engine, uint32_t uid, const char *words, bool json, char *buf, size_t size);

/* engine_start without stack threads: there is one stack, and it is the calling thread's until that lets
 * others run it. */
int engine_start_inline(struct engine **out, const struct cfg *cfg, char *err, size_t err_size);
