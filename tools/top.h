/* top.h - what `pronkctl top` shows, apart from how: rates of stacks and sockets between two looks. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "rows.h"
#include "sample.h"

enum top_view { TOP_ALL, TOP_STACKS, TOP_SOCKETS, TOP_VIEW_COUNT };
enum top_sort { SORT_BYTES, SORT_RX, SORT_TX, SORT_QUEUES, SORT_RTT, SORT_RETR, SORT_PID, TOP_SORT_COUNT };

/* A socket as it was at the last look. */
struct top_row {
	struct row row;
	double rx, tx; /* bytes per second */
};

struct top {
	const struct show *show;
	struct source src;
	struct sample before, now;
	double seconds;
	struct top_past *past; /* of each endpoint, at the look before */
	struct top_row *rows;  /* sorted */
	uint32_t row_count, row_room;
	enum top_view view;
	enum top_sort sort;
	bool is_reverse;
	uint32_t skip; /* rows that are scrolled away */
};

/* 0, or -E after a message on stderr. */
int top_open(struct top *t, const struct attach *at, const struct show *show);
void top_close(struct top *t);
/* Looks anew; rates are those since the last look. 0 or -ENOMEM. */
int top_look(struct top *t);
/* Sorts the rows anew, after t->sort has changed. */
void top_sort(struct top *t);

extern const char *const top_sort_names[TOP_SORT_COUNT];

/* Parts of what is shown, as text; at most max rows of sockets. 0, or -E without a message. */
void top_print_head(const struct top *t, FILE *out);
int top_print_stacks(const struct top *t, FILE *out);
int top_print_sockets(const struct top *t, FILE *out, uint32_t max);
void top_print_json(const struct top *t, FILE *out, uint32_t max);
