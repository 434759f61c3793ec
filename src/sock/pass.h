/* pass.h - sockets that go to another process: in a message of a unix socket (SCM_RIGHTS), or over exec.
 *
 * What travels is a ticket: a control connection whose client slot holds the sockets while nobody else does
 * (doc/threads.md, "References"). Any thread; everything here may block for the service's answer.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

enum {
	PASS_MAX = 253,   /* the kernel's SCM_MAX_FD */
	PASS_TICKETS = 8, /* SERVICE_MAX */
};

/* A message whose descriptors were exchanged for tickets. */
struct pass_message {
	struct msghdr msg;
	void *control; /* our copy; NULL: the message goes as it is */
	size_t control_size;
	int ticket[PASS_MAX];
	int ticket_count;
};

/* Before sendmsg(2) on a socket of the kernel's: when the message carries sockets of ours, makes a copy with
 * tickets in their place. 0, or -E: EPERM when the receiver cannot be one of Pronk's programs, ETOOMANYREFS
 * when no client slot is free. pass_sent ends it, whatever came of the call. */
int pass_sending(int fd, const struct msghdr *msg, struct pass_message *m);
void pass_sent(struct pass_message *m);

/* After a successful recvmsg(2) on a socket of the kernel's: puts sockets in the place of tickets, and
 * forgets what was known of the numbers that came. */
void pass_received(const struct msghdr *msg, int flags);

/* A socket of the kernel's that came from elsewhere: if it is an unconnected TCP socket it may become ours.
 */
void pass_adopt_kernel(int fd);

/* What an exec hands over. */
struct pass_exec {
	char **env; /* for the new image; NULL: nothing is handed over, use the caller's */
	size_t env_size;
	int list_fd, ticket[PASS_TICKETS]; /* one at each service; without close-on-exec; -1 = none */
};

/* One step of what happens to numbers between fork and exec in posix_spawn(3). */
enum pass_step_kind { PASS_DUP, PASS_CLOSE, PASS_CLOSEFROM };
struct pass_step {
	enum pass_step_kind kind;
	int fd, to;
};

/* Before exec: hands over the sockets whose numbers stay open after these steps. Fills x; env NULL when there
 * is nothing to hand over or it is not to be had (a line says so). pass_exec_cancel when the exec failed, or,
 * for a spawned process, when it has happened. */
void pass_exec_prepare(struct pass_exec *x, char *const env[], const struct pass_step *steps, int count);
void pass_exec_cancel(struct pass_exec *x);

/* At the start of an image: takes what was handed over. */
void pass_exec_adopt(void);
