/* show_latency.h - what the two files of `pronkctl latency` share. */
#pragma once
#include "hist.h"
#include "show.h"

/* What was counted at some moment, or in an interval. */
struct latency_copy {
	bool is_on;
	uint64_t since_ns;        /* CLOCK_REALTIME; 0: never */
	uint64_t now_ns, wall_ns; /* when it was looked at, CLOCK_MONOTONIC and CLOCK_REALTIME */
	double seconds;           /* of an interval: its length */
	uint32_t stack_count;
	struct hist_copy stage[]; /* LATENCY_STAGES for each stack, then for all of them together */
};

/* Draws the sums of all stacks as an SVG file: for each stage, what share of its values is how long at most.
 */
void plot_latency(const struct latency_copy *c, FILE *file);
