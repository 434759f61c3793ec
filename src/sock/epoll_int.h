/* epoll_int.h - what the two files of epoll sets share: sets and their members. epoll_set.c says who may
 * touch what. */
#pragma once
#include "epoll_set.h"

#include "attach.h"
#include "compiler.h"
#include "ready.h"
#include "service.h"
#include "user.h"

enum {
	ALWAYS = EPOLLERR | EPOLLHUP,
	EPOLL_MOST = INT32_MAX / sizeof(struct epoll_event), /* EP_MAX_EVENTS */
};

struct epoll_item {
	struct epoll_item *file_next;
	struct epoll_item *set_next, **set_prev;
	struct epoll_item *ready_next, **ready_prev; /* in the set's ready list when ready_prev is set */
	struct epoll_set *set;
	struct file *file;
	int fd;
	uint32_t events;
	epoll_data_t data;
	uint32_t watch; /* WATCH_NONE: none. Watches are handles (service.h) */
	uint32_t *also; /* of a socket at several services: further watches, SERVICE_MAX of them, or NULL */
	bool in_kernel; /* the kernel's set has the descriptor */
	bool is_unwatched; /* ours, but all watches were taken: counted in unwatched_count */
	bool is_spent;     /* one-shot, delivered */
	bool in_side;      /* the side set has the kernel half of a datagram socket */
	bool has_input;    /* ... and it may have something: to be asked */
	struct epoll_item *side_next;
};

struct epoll_set {
	_Atomic uint32_t lock;
	int epfd;
	_Atomic int poller[SERVICE_MAX]; /* -1: no member at that service yet */
	_Atomic bool has_poller;         /* at any */
	int event_fd;                    /* the stacks of all services wake by it */
	struct epoll_item *items;
	struct epoll_item *ready, **ready_tail;
	_Atomic uint32_t ready_count, unwatched_count;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t kernel_members;
	/* hints of waits, raced for without harm */
	uint64_t kernel_looked_ns;
	bool kernel_was_ready; /* by the last look */
	bool is_our_turn;      /* our members go first where the room is too small for both sides */
	int side_fd;           /* kernel halves of datagram sockets; -1: none yet */
	struct epoll_item *side;
	uint32_t dead_seen;     /* services that had died when collect last looked at every member */
	bool may_be_untold;     /* then some member was one that no watch tells of, or one has come since */
	bool is_nested;         /* somebody waits on the epoll descriptor itself */
	bool has_sets;          /* other sets are members */
	bool has_dual;          /* a wildcard listener is or was a member */
	bool needs_rebuild;     /* inherited over fork */
	struct epoll_set *next; /* all sets of the process */
};

/* All sets of the process, under epoll_sets_lock. */
extern struct epoll_set *epoll_sets;
extern _Atomic uint32_t epoll_sets_lock;

/* What internal members of the kernel's set carry as data: addresses inside us, which no application uses. */
extern char epoll_mark_event, epoll_mark_ctl, epoll_mark_side;

/* With the set's lock: gives the set its pollers at the services that the file is at; watches a member and
 * queues it if it is ready; moves watches that stacks have queued to the local list. */
int epoll_pollers_start(struct epoll_set *s, const struct file *f);
void epoll_item_watch(struct epoll_set *s, struct epoll_item *it);
void epoll_drain(struct epoll_set *s);

/* Puts the kernel half of a datagram member where its mode says; asks the side set what has input. With the
 * set's lock. epoll_side.c */
void epoll_side_update(struct epoll_set *s, struct epoll_item *it);
void epoll_side_remove(struct epoll_set *s, struct epoll_item *it);
void epoll_side_drain(struct epoll_set *s);
/* The set is going, or belongs to the parent of a fork. */
void epoll_side_close(struct epoll_set *s);

/* Present events of a member of ours, both halves. With the set's lock. */
uint32_t epoll_item_level(struct epoll_item *it);

/* Brings a thread that sleeps on the set back to look at the list. Any thread. */
void epoll_kick(struct epoll_set *s);

/* The set's pollers together. Announcing and looking: ready.h. Any thread. */
static inline bool epoll_has_pollers(const struct epoll_set *s)
{
	return atomic_load_explicit(&s->has_poller, memory_order_acquire);
}

bool epoll_pollers_have_more(const struct epoll_set *s);

static inline bool epoll_pollers_have_ready(const struct epoll_set *s)
{
	int first = atomic_load_explicit(&s->poller[0], memory_order_acquire);

	if (first >= 0 && poller_has_ready(&services[0].at.arena, (uint32_t)first))
		return true;
	return unlikely(service_count() > 1) && epoll_pollers_have_more(s);
}

void epoll_pollers_sleep(const struct epoll_set *s);
void epoll_pollers_arm(const struct epoll_set *s);
void epoll_pollers_awake(const struct epoll_set *s);

/* The number under which a member can be asked: its own may have been closed, and be another file's by now,
 * while its file lives on in a duplicate. */
static inline bool item_has_number(const struct epoll_item *it)
{
	return file_has(it->file, it->fd);
}

static inline int item_number(const struct epoll_item *it)
{
	return likely(item_has_number(it)) ? it->fd : file_number_after(it->file, -1);
}

/* The local ready list; with the set's lock. */
static inline void ready_add(struct epoll_set *s, struct epoll_item *it)
{
	if (it->ready_prev)
		return;
	it->ready_next = NULL;
	it->ready_prev = s->ready_tail;
	*s->ready_tail = it;
	s->ready_tail = &it->ready_next;
	s->ready_count++;
}

static inline void ready_remove(struct epoll_set *s, struct epoll_item *it)
{
	if (!it->ready_prev)
		return;
	*it->ready_prev = it->ready_next;
	if (it->ready_next)
		it->ready_next->ready_prev = it->ready_prev;
	else
		s->ready_tail = it->ready_prev;
	it->ready_prev = NULL;
	s->ready_count--;
}
