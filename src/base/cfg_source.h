/* cfg_source.h - the text of a configuration file: reading it whole, and finding keys in it.
 *
 * libconfig reads the values; but it cuts numbers to 32 bits without a word and says little about what it
 * refuses, so the text is looked at as well. Pure functions but for source_read; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { SOURCE_SIZE_MAX = 1 << 20, SOURCE_DEPTH_MAX = 16 };

struct source {
	const char *path;
	char *text; /* NUL-terminated */
	size_t size;
};

/* Reads a regular file into source->text, which the caller frees. Blocks on file reads. 0 or -E with a reason
 * in err. */
int source_read(struct source *source, char *err, size_t err_size);

/* NUL bytes would hide the rest of the file from libconfig, and an include would bring in lines that no
 * message can name. 0 or -EINVAL. */
int source_check(const struct source *source, char *err, size_t err_size);

/* Where a line (from 1) begins. */
const char *source_line(const struct source *source, unsigned line);

/* A character of a key, a number or a switch. */
bool source_is_word(char c);

/* A key with its place: what stands in front of = or :. */
struct source_key {
	const char *word;
	size_t size;
	const char *value;  /* behind the = */
	unsigned line;      /* of the key */
	unsigned depth;     /* how many groups, lists and arrays it is in; 0: it is an option */
	unsigned scope;     /* a number for the innermost of these; 0: the file */
	const char *option; /* the option that it belongs to, itself if depth is 0; option_size bytes */
	size_t option_size;
	unsigned group; /* the how many-eth group of that option's list, from 1 */
};

struct source_walk {
	const char *at; /* set to source->text to begin; the rest zero */
	unsigned newlines, depth, scopes, group;
	unsigned scope[SOURCE_DEPTH_MAX];
	const char *option;
	size_t option_size;
};

/* The next key; false at the end of the text. */
bool source_next(struct source_walk *w, struct source_key *key);

/* Whether a word of the source is this text. */
bool source_is(const char *word, size_t size, const char *text);

/* The number that is written behind `option =`, or behind `key =` in the option's group (from 1); value is
 * what libconfig made of it. Saturates at LLONG_MAX and LLONG_MIN. */
long long source_number(
        const struct source *source, const char *option, unsigned group, const char *key, int value);

/* The second of two equal keys in one place, in the line that libconfig stopped at or the one before; line 0:
 * anywhere. */
bool source_duplicate(const struct source *source, unsigned line, struct source_key *found);

/* The first key up to this line whose text in quotes does not end in the line where it begins. */
bool source_unclosed(const struct source *source, unsigned line, struct source_key *found);
