/* sample.c - see sample.h. The segment belongs to the service: values are read once, one after the other. */
#include "sample.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "clock.h"

int source_open(struct source *src, const struct attach *at)
{
	struct stat st;
	int rc;

	memset(src, 0, sizeof(*src));
	src->at = at;
	if (fstat(at->stats_fd, &st) < 0)
		goto no_map;
	src->size = (size_t)st.st_size;
	src->base = mmap(NULL, src->size, PROT_READ, MAP_SHARED, at->stats_fd, 0);
	if (src->base == MAP_FAILED)
		goto no_map;
	rc = stat_view_open(&src->view, src->base, src->size);
	if (!rc)
		return 0;
	fprintf(stderr, "pronkctl: cannot read the statistics segment: %s\n",
	        rc == -EPROTO ? "it is of another version" : strerror(-rc));
	munmap(src->base, src->size);
	return rc;
no_map:
	rc = -errno;
	fprintf(stderr, "pronkctl: cannot map the statistics segment: %s\n", strerror(-rc));
	return rc;
}

void source_close(struct source *src)
{
	munmap(src->base, src->size);
}

bool source_wait(const struct source *src, double seconds)
{
	/* an observer is sent nothing that it did not ask for: what comes is the end */
	struct pollfd p = {.fd = src->at->ctl_fd, .events = POLLIN};
	uint64_t end_ns = clock_now_ns() + (uint64_t)(seconds * 1e9), now_ns;

	while ((now_ns = clock_now_ns()) < end_ns) {
		uint64_t ms = (end_ns - now_ns + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS;

		if (poll(&p, 1, ms > 3600000 ? 3600000 : (int)ms) > 0)
			return false;
	}
	return true;
}

int sample_make(struct sample *s, const struct source *src)
{
	memset(s, 0, sizeof(*s));
	s->value = calloc((size_t)src->view.stack_count * src->view.counter_count + 1, sizeof(*s->value));
	if (s->value)
		return 0;
	fprintf(stderr, "pronkctl: out of memory\n");
	return -ENOMEM;
}

void sample_free(struct sample *s)
{
	free(s->value);
}

void sample_take(struct sample *s, const struct source *src)
{
	uint64_t *to = s->value;

	s->now_ns = clock_now_ns();
	s->wall_ns = clock_wall_ns();
	for (uint32_t stack = 0; stack < src->view.stack_count; stack++)
		for (uint32_t i = 0; i < src->view.counter_count; i++)
			*to++ = stat_view_value(&src->view, stack, i);
}

void sample_swap(struct sample *before, struct sample *now)
{
	struct sample later = *now;

	*now = *before;
	*before = later;
}

uint64_t sample_value(const struct source *src, const struct sample *s, uint32_t stack, uint32_t idx)
{
	uint32_t kind = stat_view_entry(&src->view, idx)->kind, count = src->view.counter_count;
	uint64_t total = 0;

	if (stack != SAMPLE_ALL)
		return s->value[(size_t)stack * count + idx];
	for (stack = 0; stack < src->view.stack_count; stack++) {
		uint64_t value = s->value[(size_t)stack * count + idx];

		if (kind != PRONK_STATS_PEAK && kind != PRONK_STATS_LOW)
			total += value;
		else if (stack == 0 || (kind == PRONK_STATS_PEAK) == (value > total))
			total = value;
	}
	return total;
}

double sample_change(const struct source *src, const struct sample *before, const struct sample *now,
        uint32_t stack, uint32_t idx)
{
	uint64_t b = sample_value(src, now, stack, idx),
	         a = before ? sample_value(src, before, stack, idx) : 0;

	return b >= a ? (double)(b - a) : -(double)(a - b);
}

double sample_seconds(const struct source *src, const struct sample *before, const struct sample *now)
{
	int64_t ns = before ? (int64_t)(now->now_ns - before->now_ns)
	                    : (int64_t)(now->wall_ns - src->view.start_wall_ns);

	return ns > 0 ? (double)ns / 1e9 : 0;
}

double sample_named(const struct source *src, const struct sample *before, const struct sample *now,
        uint32_t stack, const char *name)
{
	int idx = stat_view_find(&src->view, name);

	return idx < 0 ? 0 : sample_change(src, before, now, stack, (uint32_t)idx);
}

const char *const derived_names[DERIVED_COUNT] = {
        "busy_percent", "empty_polls_percent", "full_polls_percent"};

double derived_value(const struct source *src, const struct sample *before, const struct sample *now,
        uint32_t stack, enum derived id)
{
	double part, whole;

	if (id == DERIVED_BUSY) {
		part = sample_named(src, before, now, stack, "busy_ns") / 1e9;
		whole = sample_seconds(src, before, now) * (stack == SAMPLE_ALL ? src->view.stack_count : 1);
	} else {
		part = sample_named(src, before, now, stack,
		        id == DERIVED_EMPTY_POLLS ? "rx_empty_polls" : "rx_full_polls");
		whole = sample_named(src, before, now, stack, "rx_polls");
	}
	return whole > 0 ? 100 * part / whole : 0;
}

bool words_take(const char *const *word, int word_count, const char *name)
{
	for (int i = 0; i < word_count; i++)
		if (!strncmp(name, word[i], strlen(word[i])))
			return true;
	return !word_count;
}

void interval_title(uint64_t wall_ns, double seconds, FILE *out)
{
	time_t t = (time_t)(wall_ns / CLOCK_NS_PER_S);
	char text[32];
	struct tm tm;

	strftime(text, sizeof(text), "%F %T", localtime_r(&t, &tm));
	fprintf(out, "--- %s, %.3f s\n", text, seconds);
}

void span_title(const struct span *span, FILE *out)
{
	interval_title(span->now->wall_ns, span->seconds, out);
}

/* The next span of a series. */
static int span_next(struct span *span, struct sample *before, struct sample *now)
{
	sample_swap(before, now);
	if (!source_wait(span->src, span->show->interval_s)) {
		fprintf(stderr, "pronkctl: the service has ended\n");
		return -ECONNRESET;
	}
	sample_take(now, span->src);
	span->before = before;
	span->seconds = sample_seconds(span->src, before, now);
	return 0;
}

int span_show(const struct attach *at, const struct show *show,
        int (*check)(const struct source *src, const struct show *show),
        int (*print)(const struct span *span))
{
	struct sample before = {0}, now = {0};
	struct source src;
	struct span span = {.src = &src, .show = show, .now = &now};
	int rc = source_open(&src, at);

	if (rc)
		return rc;
	if (check && (rc = check(&src, show)))
		goto out;
	if ((rc = sample_make(&before, &src)) || (rc = sample_make(&now, &src)))
		goto out;
	sample_take(&now, &src);
	if (!(show->interval_s > 0)) {
		rc = print(&span);
		goto out;
	}
	for (uint32_t n = 0; !rc && (!show->count || n < show->count); n++) {
		rc = span_next(&span, &before, &now);
		if (rc)
			break;
		rc = print(&span);
		if (!rc && fflush(stdout))
			rc = -errno;
	}
out:
	sample_free(&before);
	sample_free(&now);
	source_close(&src);
	return rc;
}
