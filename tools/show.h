/* show.h - what the files of pronkctl share. One process, one thread; everything is read from shared memory
 * that is mapped read-only. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "attach.h"

/* How it is to be shown: the options of the command line. */
struct show {
	bool json;
	bool all;          /* stats, latency: those that are zero, too */
	double interval_s; /* between two outputs; 0: one output, of what was counted since the start */
	uint32_t count;    /* outputs with an interval; 0: until somebody ends it */
	bool plot;         /* latency: bars of text */
	const char *svg;   /* latency: the file to draw to; NULL: none */
};

/* Prints text as a JSON string with its quotes; bytes that are no UTF-8 come out as U+FFFD. */
void json_text(FILE *file, const char *text);

/* The commands that walk tables (show_NAME.c). 0, or -E after a message on stderr. */
int show_stats(const struct attach *at, const struct show *show);
int show_sockets(const struct attach *at, const struct show *show);
int show_latency(const struct attach *at, const struct show *show);
