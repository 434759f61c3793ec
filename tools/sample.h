/* sample.h - the values of the statistics segment at one moment, and what happened between two of them. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "show.h"
#include "stat.h"

/* The segment of a service that we are attached to. */
struct source {
	struct stat_view view;
	const struct attach *at;
	void *base;
	size_t size;
};

/* Maps the segment, for reading only. 0, or -E after a message on stderr. */
int source_open(struct source *src, const struct attach *at);
void source_close(struct source *src);
/* Waits. False when the service has ended meanwhile: nothing will change any more. */
bool source_wait(const struct source *src, double seconds);

struct sample {
	uint64_t now_ns, wall_ns; /* CLOCK_MONOTONIC and CLOCK_REALTIME */
	uint64_t *value;          /* of all stacks, one after the other */
};

/* Memory for a sample of this source. 0 or -ENOMEM after a message on stderr. */
int sample_make(struct sample *s, const struct source *src);
void sample_free(struct sample *s);
void sample_take(struct sample *s, const struct source *src);
/* Makes `before` the later of two, and leaves the older one's memory in `now`. */
void sample_swap(struct sample *before, struct sample *now);

/* One stack's value, or of all stacks with SAMPLE_ALL: the sum, of a peak the largest, of a low the smallest.
 */
#define SAMPLE_ALL UINT32_MAX
uint64_t sample_value(const struct source *src, const struct sample *s, uint32_t stack, uint32_t idx);
/* What a counter grew by, or a level or peak changed by, between two samples. */
double sample_change(const struct source *src, const struct sample *before, const struct sample *now,
        uint32_t stack, uint32_t idx);
/* Seconds between two samples; with before NULL since the segment was made. */
double sample_seconds(const struct source *src, const struct sample *before, const struct sample *now);

/* The value by name, for those that a tool looks for itself; 0 when the service does not have it. */
double sample_named(const struct source *src, const struct sample *before, const struct sample *now,
        uint32_t stack, const char *name);

/* Figures that are made of several, in percent. */
enum derived { DERIVED_BUSY, DERIVED_EMPTY_POLLS, DERIVED_FULL_POLLS, DERIVED_COUNT };
extern const char *const derived_names[DERIVED_COUNT];
/* Of one stack, or the mean of all; before NULL: since the segment was made. */
double derived_value(const struct source *src, const struct sample *before, const struct sample *now,
        uint32_t stack, enum derived id);

/* What is to be shown: the values of one moment, or what happened between two. */
struct span {
	const struct source *src;
	const struct show *show;
	const struct sample *before, *now; /* before is NULL without an interval */
	double seconds;
};

/* Attaches to the segment, has check (may be NULL) look at the words of the command line, and then print show
 * one span, or one after each interval. 0, or -E after a message on stderr. */
int span_show(const struct attach *at, const struct show *show,
        int (*check)(const struct source *src, const struct show *show),
        int (*print)(const struct span *span));
/* The line above the table of an interval, which has ended at that time (CLOCK_REALTIME). */
void interval_title(uint64_t wall_ns, double seconds, FILE *out);
void span_title(const struct span *span, FILE *out);

/* Whether a name begins with one of the words; without words, all do. */
bool words_take(const char *const *word, int word_count, const char *name);
