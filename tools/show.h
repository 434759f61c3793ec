/* show.h - what the files of pronkctl share. One process, one thread; everything is read from shared memory
 * that is mapped read-only. */
#pragma once
#include <argp.h>
#include <stdbool.h>
#include <stdio.h>

#include "attach.h"

/* `pronkctl sockets`: which, and how much of each. */
struct show_sockets {
	bool wide; /* everything there is of a socket */
	bool timers, options, info;
	bool listening, tcp, udp, kernel, summary;
	bool has_option; /* any of these was given */
};

/* How it is to be shown: the options of the command line. */
struct show {
	bool json;
	bool all;          /* stats: those that are zero, too */
	double interval_s; /* between two outputs; 0: one output */
	uint32_t count;    /* outputs with an interval; 0: until somebody ends it */
	struct show_sockets sockets;
	const char *const *word; /* what follows the command */
	int word_count;
};

/* Prints text as a JSON string with its quotes; bytes that are no UTF-8 come out as U+FFFD. */
void json_text(FILE *file, const char *text);

/* Where the statistics segment is mapped, for commands that show some of it: the total of one over all
 * stacks, or of one stack; 0 when there is no such one. show_wait.c */
uint64_t stat_total(const struct attach *at, const char *name);

/* The commands that walk tables (show_stats.c, show_sockets.c, show_net.c, show_wait.c). 0, or -E after a
 * message on stderr. */
int show_stats(const struct attach *at, const struct show *show);
int show_sockets(const struct attach *at, const struct show *show);
int show_arp(const struct attach *at, const struct show *show);
int show_routes(const struct attach *at, const struct show *show);
int show_ports(const struct attach *at, const struct show *show);
int show_interrupts(const struct attach *at, const struct show *show);

/* Options of `sockets`; input: struct show. */
extern const struct argp show_sockets_argp;

/* Whether the service can be asked. Says on stderr when it cannot. */
bool show_can_ask(const struct attach *at, const char *command);
