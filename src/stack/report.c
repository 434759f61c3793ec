/* report.c - tells tools in the arena what this stack is doing (arena/report.h). The stack's thread, at its
 * start and once a second. */
#include "stack_int.h"

#include <sys/syscall.h>
#include <unistd.h>

void report_publish(struct stack *s)
{
	struct stack_report *r = &s->arena->reports[s->idx];
	int fds[REPORT_FD_MAX];

	report_begin(r);
	r->now_ms = s->now_ms;
	r->core = s->core;
	r->tid = (int32_t)syscall(SYS_gettid);
	r->event_fd = s->event_fd;
	r->epoll_fd = s->epoll_fd;
	r->wait_fd_count = 0;
	if (s->wait_fd_count) {
		r->wait_fd_count = nic_wait_fds(s->queue, fds, REPORT_FD_MAX);
		for (uint32_t i = 0; i < r->wait_fd_count; i++)
			r->wait_fd[i] = fds[i];
	}
	r->spin_us = s->cfg.stack_spin_us;
	r->nap_us = s->nap_us;
	r->is_spin_off = !spin_may(&s->spin, s->now_ns);
	r->conn_count = s->conn_count;
	r->time_wait_count = s->time_wait_count;
	r->neigh_count = neigh_report(s, r->neigh, REPORT_NEIGH_MAX);
	report_end(r);
}
