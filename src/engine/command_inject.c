/* command_inject.c - `pronkctl inject`: faults made on purpose at the port, for tests.
 *
 * Control thread. All words are understood, and memory for every stack is there, before the first stack hears
 * of anything. What is on is told by the words that would switch it on again.
 */
#include "engine_int.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "command.h"
#include "compiler.h"
#include "log.h"
#include "stat.h"

LOG_MODULE("engine");

enum fault_kind { FAULT_SHARE, FAULT_TIME };

static const struct fault {
	const char *name;
	enum fault_kind kind;
	size_t offset; /* in struct nic_inject_dir */
} faults[] = {
        {"loss", FAULT_SHARE, offsetof(struct nic_inject_dir, loss)},
        {"delay", FAULT_TIME, offsetof(struct nic_inject_dir, delay_us)},
        {"jitter", FAULT_TIME, offsetof(struct nic_inject_dir, jitter_us)},
        {"dup", FAULT_SHARE, offsetof(struct nic_inject_dir, dup)},
        {"reorder", FAULT_SHARE, offsetof(struct nic_inject_dir, reorder)},
        {"corrupt", FAULT_SHARE, offsetof(struct nic_inject_dir, corrupt)},
};

#define FAULTS_TEXT "loss, delay, jitter, dup, reorder, corrupt"
#define SHARE_TEXT "0%% to 100%%, with up to four digits behind the point"
#define SEED_TEXT "0 to 18446744073709551615"
#define TIME_TEXT "0us to 10s, as 200us, 5ms or 1s"

static uint32_t *value_of(struct nic_inject_dir *d, const struct fault *f)
{
	return (uint32_t *)((char *)d + f->offset);
}

static uint32_t value_get(const struct nic_inject_dir *d, const struct fault *f)
{
	return *(const uint32_t *)((const char *)d + f->offset);
}

/* --- texts of values --- */

/* "0.5%" as parts of NIC_INJECT_WHOLE. */
static int share_parse(const char *text, uint32_t *value)
{
	uint64_t whole = 0, part = 0, unit = NIC_INJECT_WHOLE / 100;
	const char *c = text;

	if (!isdigit((unsigned char)*c))
		return -EINVAL;
	for (; isdigit((unsigned char)*c); c++) {
		whole = whole * 10 + (uint64_t)(*c - '0');
		if (whole > 100)
			return -EINVAL;
	}
	if (*c == '.') {
		if (!isdigit((unsigned char)*++c))
			return -EINVAL;
		for (; isdigit((unsigned char)*c); c++) {
			unit /= 10;
			if (!unit)
				return -EINVAL;
			part += (uint64_t)(*c - '0') * unit;
		}
	}
	whole = whole * (NIC_INJECT_WHOLE / 100) + part;
	if (strcmp(c, "%") != 0 || whole > NIC_INJECT_WHOLE)
		return -EINVAL;
	*value = (uint32_t)whole;
	return 0;
}

static int time_parse(const char *text, uint32_t *us)
{
	static const struct {
		const char *unit;
		uint64_t us;
	} units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}};
	uint64_t n = 0;
	const char *c = text;

	if (!isdigit((unsigned char)*c))
		return -EINVAL;
	for (; isdigit((unsigned char)*c); c++) {
		n = n * 10 + (uint64_t)(*c - '0');
		if (n > NIC_INJECT_DELAY_MAX_US)
			return -EINVAL;
	}
	for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
		if (strcmp(c, units[i].unit) != 0)
			continue;
		if (n * units[i].us > NIC_INJECT_DELAY_MAX_US)
			return -EINVAL;
		*us = (uint32_t)(n * units[i].us);
		return 0;
	}
	return -EINVAL;
}

static void value_print(FILE *out, const struct fault *f, uint32_t v)
{
	uint32_t unit = NIC_INJECT_WHOLE / 100, part = v % unit;
	int digits = 4;

	if (f->kind == FAULT_TIME) {
		if (v % 1000)
			fprintf(out, "%uus", v);
		else if (v % 1000000)
			fprintf(out, "%ums", v / 1000);
		else
			fprintf(out, "%us", v / 1000000);
		return;
	}
	fprintf(out, "%u", v / unit);
	if (part) {
		for (; part % 10 == 0; part /= 10)
			digits--;
		fprintf(out, ".%0*u", digits, part);
	}
	fputc('%', out);
}

/* --- words --- */

struct parser {
	const struct command_words *w;
	int at;
	FILE *out;
	struct nic_inject *spec;
	bool has_rx, has_tx, has_seed;
};

static int seed_parse(struct parser *p)
{
	const char *text = p->at < p->w->count ? p->w->word[p->at++] : NULL;
	char *end;

	if (p->has_seed) {
		fprintf(p->out, "seed: given twice");
		return -EINVAL;
	}
	if (!text) {
		fprintf(p->out, "seed: its number is missing (allowed: " SEED_TEXT ")");
		return -EINVAL;
	}
	errno = 0;
	p->spec->seed = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno) {
		fprintf(p->out, "seed: \"%.32s\" is no number (allowed: " SEED_TEXT ")", text);
		return -EINVAL;
	}
	p->has_seed = true;
	return 0;
}

/* One that stands where a value is missing. */
static bool is_word(const char *text)
{
	for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
		if (!strcmp(text, faults[i].name))
			return true;
	return !strcmp(text, "rx") || !strcmp(text, "tx") || !strcmp(text, "seed");
}

/* The faults of one direction, up to a word that is none of them. */
static int direction_parse(struct parser *p, const char *name, struct nic_inject_dir *d, bool *has)
{
	uint32_t given = 0;

	if (*has) {
		fprintf(p->out, "%s: given twice", name);
		return -EINVAL;
	}
	*has = true;
	while (p->at < p->w->count) {
		const char *word = p->w->word[p->at], *text;
		const struct fault *f = faults;

		if (!strcmp(word, "rx") || !strcmp(word, "tx") || !strcmp(word, "seed"))
			break;
		p->at++;
		while (f < faults + ARRAY_COUNT(faults) && strcmp(word, f->name) != 0)
			f++;
		if (f == faults + ARRAY_COUNT(faults)) {
			fprintf(p->out, "%s: unknown fault \"%.32s\" (allowed: " FAULTS_TEXT ")", name, word);
			return -EINVAL;
		}
		if (given >> (f - faults) & 1) {
			fprintf(p->out, "%s %s: given twice", name, f->name);
			return -EINVAL;
		}
		given |= 1u << (f - faults);
		text = p->at < p->w->count ? p->w->word[p->at++] : NULL;
		if (!text || is_word(text)) {
			if (f->kind == FAULT_SHARE)
				fprintf(p->out, "%s %s: its share is missing (allowed: " SHARE_TEXT ")", name,
				        f->name);
			else
				fprintf(p->out, "%s %s: its time is missing (allowed: " TIME_TEXT ")", name,
				        f->name);
			return -EINVAL;
		}
		if (f->kind == FAULT_SHARE && share_parse(text, value_of(d, f))) {
			fprintf(p->out, "%s %s: \"%.32s\" is no share (allowed: " SHARE_TEXT ")", name,
			        f->name, text);
			return -EINVAL;
		}
		if (f->kind == FAULT_TIME && time_parse(text, value_of(d, f))) {
			fprintf(p->out, "%s %s: \"%.32s\" is no time (allowed: " TIME_TEXT ")", name, f->name,
			        text);
			return -EINVAL;
		}
	}
	if (!given) {
		fprintf(p->out, "%s: a fault is missing (allowed: " FAULTS_TEXT ")", name);
		return -EINVAL;
	}
	if (d->jitter_us > d->delay_us) {
		if (d->delay_us)
			fprintf(p->out, "%s jitter: more than delay (allowed: 0us to %uus)", name,
			        d->delay_us);
		else
			fprintf(p->out,
			        "%s jitter: there is no delay that it could vary (allowed: with delay, of at least %uus)",
			        name, d->jitter_us);
		return -EINVAL;
	}
	return 0;
}

static int spec_parse(const struct command_words *w, FILE *out, struct nic_inject *spec)
{
	struct parser p = {.w = w, .at = 1, .out = out, .spec = spec};
	int rc = 0;

	if (w->count == 2 && !strcmp(w->word[1], "off"))
		return 0;
	while (!rc && p.at < w->count) {
		const char *word = w->word[p.at++];

		if (!strcmp(word, "rx")) {
			rc = direction_parse(&p, "rx", &spec->rx, &p.has_rx);
		} else if (!strcmp(word, "tx")) {
			rc = direction_parse(&p, "tx", &spec->tx, &p.has_tx);
		} else if (!strcmp(word, "seed")) {
			rc = seed_parse(&p);
		} else {
			fprintf(out,
			        "unknown word \"%.32s\" (allowed: off alone, or rx and tx with their faults, and seed)",
			        word);
			rc = -EINVAL;
		}
	}
	if (!rc && !p.has_rx && !p.has_tx) {
		fprintf(out, "a direction is missing (allowed: rx, tx)");
		rc = -EINVAL;
	}
	if (!rc && !p.has_seed)
		spec->seed = clock_now_ns() / CLOCK_NS_PER_US;
	return rc;
}

/* --- what is on --- */

static bool is_on(const struct nic_inject_dir *d)
{
	for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
		if (value_get(d, &faults[i]))
			return true;
	return false;
}

static void direction_words(FILE *out, const char *name, const struct nic_inject_dir *d)
{
	if (!is_on(d))
		return;
	fprintf(out, " %s", name);
	for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
		if (!value_get(d, &faults[i]))
			continue;
		fprintf(out, " %s ", faults[i].name);
		value_print(out, &faults[i], value_get(d, &faults[i]));
	}
}

static void words_print(FILE *out, const struct nic_inject *spec)
{
	if (!is_on(&spec->rx) && !is_on(&spec->tx)) {
		fprintf(out, "inject off");
		return;
	}
	fprintf(out, "inject");
	direction_words(out, "rx", &spec->rx);
	direction_words(out, "tx", &spec->tx);
	fprintf(out, " seed %" PRIu64, spec->seed);
}

#define COUNTERS(dir)                                                                                        \
	{                                                                                                    \
		STAT_inject_##dir##_lost, STAT_inject_##dir##_duplicated, STAT_inject_##dir##_reordered,     \
		        STAT_inject_##dir##_corrupted, STAT_inject_##dir##_delayed,                          \
		        STAT_inject_##dir##_overflow                                                         \
	}
enum { COUNTER_COUNT = 6 };
static const enum stat_id counters[2][COUNTER_COUNT] = {COUNTERS(rx), COUNTERS(tx)};
static const char *const counter_names[COUNTER_COUNT] = {
        "lost", "duplicated", "reordered", "corrupted", "delayed", "overflow"};

static uint64_t counter_get(const struct engine *e, enum stat_id id)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < e->stack_count; i++)
		n += stat_get(stat_segment_block(e->stats.base, i), id);
	return n;
}

static void direction_json(const struct engine *e, FILE *out, int dir, const struct nic_inject_dir *d)
{
	fprintf(out, "  \"%s\": {", dir ? "tx" : "rx");
	for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
		uint32_t v = value_get(d, &faults[i]), unit = NIC_INJECT_WHOLE / 100;

		if (faults[i].kind == FAULT_TIME)
			fprintf(out, "\"%s_us\": %u, ", faults[i].name, v);
		else
			fprintf(out, "\"%s_percent\": %u.%04u, ", faults[i].name, v / unit, v % unit);
	}
	fprintf(out, "\"frames\": {");
	for (int i = 0; i < COUNTER_COUNT; i++)
		fprintf(out, "%s\"%s\": %" PRIu64, i ? ", " : "", counter_names[i],
		        counter_get(e, counters[dir][i]));
	fprintf(out, "}}");
}

static void show(const struct engine *e, const struct command_words *w, FILE *out)
{
	const struct nic_inject *spec = &e->inject;

	if (w->json) {
		fprintf(out, "{\n  \"is_on\": %s,\n  \"words\": \"",
		        is_on(&spec->rx) || is_on(&spec->tx) ? "true" : "false");
		words_print(out, spec);
		fprintf(out, "\",\n  \"seed\": %" PRIu64 ",\n", spec->seed);
		direction_json(e, out, 0, &spec->rx);
		fprintf(out, ",\n");
		direction_json(e, out, 1, &spec->tx);
		fprintf(out, "\n}\n");
		return;
	}
	words_print(out, spec);
	fprintf(out, "\n\n%-10s", "FRAMES");
	for (int i = 0; i < COUNTER_COUNT; i++)
		fprintf(out, " %12s", counter_names[i]);
	for (int dir = 0; dir < 2; dir++) {
		fprintf(out, "\n%-10s", dir ? "tx" : "rx");
		for (int i = 0; i < COUNTER_COUNT; i++)
			fprintf(out, " %12" PRIu64, counter_get(e, counters[dir][i]));
	}
	fputc('\n', out);
}

/* Hands every stack its part, or none. */
static int apply(struct engine *e, const struct nic_inject *spec, FILE *out)
{
	struct inject *in[ARENA_STACK_MAX] = {NULL};
	int rc = 0;

	for (uint32_t i = 0; i < e->stack_count && !rc; i++) {
		in[i] = nic_inject_make(spec, i);
		rc = in[i] ? 0 : -ENOMEM;
	}
	if (!rc)
		rc = engine_post_each(e, stack_inject, (void **)in);
	if (rc) {
		for (uint32_t i = 0; i < e->stack_count; i++)
			free(in[i]);
		fprintf(out, "no memory: nothing was changed");
		return rc;
	}
	e->inject = *spec;
	return 0;
}

int command_inject(struct engine *e, const struct command_words *w, FILE *out)
{
	struct nic_inject spec = {.seed = 0};
	char text[256] = "";
	FILE *words;
	int rc;

	if (w->count == 1) {
		show(e, w, out);
		return 0;
	}
	if ((rc = command_may(w, out)) || (rc = spec_parse(w, out, &spec)) || (rc = apply(e, &spec, out)))
		return rc;
	words = fmemopen(text, sizeof(text), "w");
	if (words) {
		words_print(words, &spec);
		fclose(words);
	}
	log_notice("%s, by user %u", text, w->uid);
	if (w->json)
		show(e, w, out);
	return 0;
}
