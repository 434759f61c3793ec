/* command.h - the commands of tools, for the files that implement them: each is a function in command.c's
 * table, and lives in the file of its noun.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct engine;

enum { COMMAND_WORD_MAX = 32 };

/* A command as it came: its words, the first of which is its name. */
struct command_words {
	const char *word[COMMAND_WORD_MAX];
	int count;
	uint32_t uid; /* effective user of who asks */
	bool json;    /* what is shown shall be one JSON value; reasons for refusals are plain text */
};

/* Whether who asks may change anything: 0, or -EPERM with the reason in out. */
int command_may(const struct command_words *w, FILE *out);

/* The commands. Control thread. 0 with what is to be shown in out; or -E with the reason there, and then
 * nothing was changed. */
int command_inject(struct engine *e, const struct command_words *w, FILE *out);
int command_latency(struct engine *e, const struct command_words *w, FILE *out);
int command_set(struct engine *e, const struct command_words *w, FILE *out);
