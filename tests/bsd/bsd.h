/* bsd.h - the harness of the conformance programs: cases, one line of output each, and the helper that plays
 * the peer.
 *
 * A program is a list of CASE()s. Called without arguments it runs each in a process of its own (a hang or a
 * crash costs one line); called with a case's name it runs that one. A line says what every call returned and
 * what came of it; the runner compares the lines of two legs, so nothing in them may depend on chance: no
 * port, no descriptor, no elapsed time.
 *
 * Single-threaded unless a function says otherwise. Everything may block; what cannot go on prints "HARNESS
 * ..." and exits.
 */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A case whose connections come from connect(). */
#define CASE(name)                                                                                           \
	static void name(void);                                                                              \
	__attribute__((constructor)) static void add_##name(void)                                            \
	{                                                                                                    \
		bsd_add(#name, name, false);                                                                 \
	}                                                                                                    \
	static void name(void)

/* A case that runs twice: once with a connected socket, once with an accepted one (its name ends in
 * "_accepted"). */
#define CASE_BOTH(name)                                                                                      \
	static void name(void);                                                                              \
	__attribute__((constructor)) static void add_##name(void)                                            \
	{                                                                                                    \
		bsd_add(#name, name, false);                                                                 \
		bsd_add(#name "_accepted", name, true);                                                      \
	}                                                                                                    \
	static void name(void)

/* Used by CASE: remembers a case. name and run live as long as the program. */
void bsd_add(const char *name, void (*run)(void), bool is_accepted);

/* --- the line --- */

/* Appends " text" to the line. Any thread. */
void out(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Appends " what=rc", or " what=ENAME" when rc is negative; errno is kept. Returns rc. Any thread. */
long ret(const char *what, long rc);
/* The same for a call that returns a descriptor: its number is not shown. */
int ret_fd(const char *what, int fd);
/* Appends " what=IN|OUT..." for poll or epoll bits. Any thread. */
void rev(const char *what, unsigned int events);
/* Prints why the case cannot go on and ends the process. Any thread. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* --- addresses --- */

/* The n-th port (0..15) that is this case's own. */
int port(int n);
/* The address of the program's side, the peer's side, loopback, nobody in the same network; with a port. */
struct sockaddr_in addr_server(int port);
struct sockaddr_in addr_peer(int port);
struct sockaddr_in addr_loopback(int port);
struct sockaddr_in addr_nobody(int port);
struct sockaddr_in addr_any(int port);
/* Another address that the kernel of the program's side has, in both legs. */
struct sockaddr_in addr_other(int port);
#define SA(in) ((struct sockaddr *)&(in))
/* Appends " what=server:own", "peer:port" etc.: the address by role and whether the port is set. */
void show_addr(const char *what, const struct sockaddr_in *a, socklen_t len);

/* --- the peer --- */

/* Sends a command to the peer (peer.c lists them) and returns its reply, valid until the next call. */
const char *peer(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same in two steps: the reply is fetched later. */
void peer_go(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *peer_reply(void);
/* peer() that must succeed; returns the first number of the reply (an id). */
int peer_ok(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Appends " what=REPLY" with the reply's words joined by commas. */
void peer_show(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- connections --- */

struct conn {
	int fd; /* ours */
	int id; /* the peer's */
};

/* A connection of the case's kind (connected or accepted). */
struct conn pair(void);
struct conn pair_connected(void);
struct conn pair_accepted(void);
/* The same with a small receive buffer at the peer, so that a sender fills up. */
struct conn pair_narrow(void);
/* A socket listening on the server's address. */
int listener(int port);
int tcp_socket(void);
/* Lets the peer connect to port; its id. */
int peer_connect(int port);
/* Waits until poll(2) shows one of events (at most 8 s), then a little for what comes with it. Returns all
 * bits there are. */
unsigned int settle(int fd, unsigned int events);
/* Waits until n bytes can be read. */
void settle_bytes(int fd, int n);
/* Sends the pattern (position from) until the socket takes no more; the count. The socket is non-blocking
 * then. */
size_t fill(int fd, size_t from);
void set_nonblock(int fd, bool on);
void nap_ms(int ms);
/* An epoll set; epoll_ctl with events and data. */
int set_new(void);
int ctl(int ep, int op, int fd, uint32_t events, uint64_t data);
/* fork; waits for a child and shows how it ended when that was not exit 0. */
pid_t child(void);
void join(pid_t pid);
uint64_t now_ms(void);
/* Appends " what=early|intime|late" for elapsed against wanted milliseconds. */
void show_time(const char *what, uint64_t start_ms, int want_ms);

/* The byte at a position of the data that both sides send. */
static inline uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 7 + (at >> 8) * 13 + (at >> 16));
}

void pattern_fill(void *buf, size_t from, size_t size);
bool pattern_ok(const void *buf, size_t from, size_t size);

/* --- signals --- */

extern volatile sig_atomic_t signal_count;

/* Installs a counting handler; restart = SA_RESTART. */
void signal_count_on(int signal, bool restart);
/* SIGALRM after ms, once. */
void alarm_ms(int ms);
