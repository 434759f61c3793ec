/* show.h - what the files of pronkctl share. One process, one thread; everything is read from shared memory
 * that is mapped read-only. */
#pragma once
#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
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
	bool all;          /* stats, proto, latency: those that are zero, too */
	double interval_s; /* between two outputs; 0: one output, of what was counted since the start */
	uint32_t count;    /* outputs with an interval; 0: until somebody ends it */
	bool batch;        /* top: text, one output after the other */
	bool plot;         /* latency: bars of text */
	const char *svg;   /* latency: the file to draw to; NULL: none */
	struct show_sockets sockets;
	const char *const *word; /* what follows the command */
	int word_count;
};

/* Prints text as a JSON string with its quotes; bytes that are no UTF-8 come out as U+FFFD. */
void json_text(FILE *file, const char *text);

/* --- table.c --- */
enum { TABLE_COLUMN_MAX = 40 };

/* Rows of cells, kept until table_end knows how wide the columns are. After a failure nothing more is kept,
 * and table_end tells. */
struct table {
	char **cells;
	uint32_t cell_count, cell_room, column_count;
	bool right[TABLE_COLUMN_MAX];
	int rc;
};

/* Begins a table with these columns: "NAME|>TOTAL|UNIT"; what follows a > is aligned to the right. */
void table_begin(struct table *t, const char *heads);
/* The next cell of the row. */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line across all columns; between rows only. */
void table_line(struct table *t, const char *text);
/* Prints and frees it. 0, -ENOMEM, or -EINVAL for a row that is not complete. */
int table_end(struct table *t, FILE *out);

/* The commands that walk tables (show_NAME.c). 0, or -E after a message on stderr. */
int show_stats(const struct attach *at, const struct show *show);
int show_proto(const struct attach *at, const struct show *show);
int show_sockets(const struct attach *at, const struct show *show);
int show_top(const struct attach *at, const struct show *show);
int show_latency(const struct attach *at, const struct show *show);
int show_export(const struct attach *at, const struct show *show);
int show_arp(const struct attach *at, const struct show *show);
int show_routes(const struct attach *at, const struct show *show);
int show_ports(const struct attach *at, const struct show *show);
int show_interrupts(const struct attach *at, const struct show *show);

/* Options of `sockets`; input: struct show. */
extern const struct argp show_sockets_argp;

/* Whether the service can be asked. Says on stderr when it cannot. */
bool show_can_ask(const struct attach *at, const char *command);
