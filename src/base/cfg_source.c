/* cfg_source.c - owns nothing: reads the text of a configuration file and finds keys in it.
 *
 * The file is read whole and given to libconfig as text: so a folder, a device or a huge file is refused here
 * instead of inside the scanner, which would end the process. Runs where the configuration is loaded.
 */
#include "cfg_source.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "libc.h"

int source_read(struct source *source, char *err, size_t err_size)
{
	struct stat st;
	ssize_t count;
	bool is_null;
	size_t room;
	int rc, fd;

	libc_init(); /* this may run inside an application, where read and close are the preload's */
	fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = -errno;
		snprintf(err, err_size, "%s: cannot read: %s", source->path, strerror(-rc));
		goto out;
	}
	is_null = S_ISCHR(st.st_mode) &&
	          st.st_rdev == makedev(1, 3); /* /dev/null: the usual word for "no file" */
	if ((!S_ISREG(st.st_mode) && !is_null) || st.st_size > SOURCE_SIZE_MAX) {
		rc = -EINVAL;
		snprintf(err, err_size, "%s: not a config file (allowed: a regular file of up to %d bytes)",
		        source->path, SOURCE_SIZE_MAX);
		goto out;
	}
	room = (size_t)st.st_size; /* 0 for /dev/null; what a writer appends meanwhile is not read */
	source->text = malloc(room + 1);
	rc = source->text == NULL ? -ENOMEM : 0;
	while (rc == 0 && source->size < room) {
		count = libc.read(fd, source->text + source->size, room - source->size);
		if (count == 0)
			break;
		if (count > 0)
			source->size += (size_t)count;
		else if (errno != EINTR)
			rc = -errno;
	}
	if (rc < 0)
		snprintf(err, err_size, "%s: cannot read: %s", source->path, strerror(-rc));
	else
		source->text[source->size] = '\0';
out:
	if (fd >= 0)
		libc.close(fd);
	return rc;
}

const char *source_line(const struct source *source, unsigned line)
{
	const char *start = source->text;

	for (; line > 1; line--) {
		start = strchr(start, '\n');
		if (start == NULL)
			return source->text + source->size;
		start++;
	}
	return start;
}

int source_check(const struct source *source, char *err, size_t err_size)
{
	const char *next, *line = source->text, *end = source->text + source->size;
	unsigned number = 1;

	for (; line < end; line = next + 1, number++) {
		next = memchr(line, '\n', (size_t)(end - line));
		if (next == NULL)
			next = end;
		if (memchr(line, '\0', (size_t)(next - line)) != NULL) {
			snprintf(err, err_size, "%s:%u: there is a NUL byte in this line (allowed: text)",
			        source->path, number);
			return -EINVAL;
		}
		if (strncmp(line + strspn(line, " \t"), "@include", 8) == 0) {
			snprintf(err, err_size, "%s:%u: @include is not supported (allowed: key = value;)",
			        source->path, number);
			return -EINVAL;
		}
	}
	return 0;
}

bool source_is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '*';
}

bool source_is(const char *word, size_t size, const char *text)
{
	return strlen(text) == size && strncmp(word, text, size) == 0;
}

static const char *blank_skip(const char *c)
{
	for (;;) {
		c += strspn(c, " \t\r\n\f");
		if (*c == '#' || (c[0] == '/' && c[1] == '/')) {
			c += strcspn(c, "\n");
		} else if (c[0] == '/' && c[1] == '*') {
			const char *end = strstr(c + 2, "*/");

			c = end == NULL ? c + strlen(c) : end + 2;
		} else {
			return c;
		}
	}
}

static const char *quoted_skip(const char *c)
{
	for (c++; *c != '\0' && *c != '"'; c++)
		if (*c == '\\' && c[1] != '\0')
			c++;
	return *c == '"' ? c + 1 : c;
}

/* Moves on, counting lines. */
static void walk_to(struct source_walk *w, const char *to)
{
	for (; w->at < to; w->at++)
		w->newlines += *w->at == '\n';
}

static void bracket_take(struct source_walk *w, char c)
{
	if (strchr("{[(", c) != NULL) {
		w->group += c == '{' && w->depth == 1;
		if (w->depth < SOURCE_DEPTH_MAX)
			w->scope[w->depth] = ++w->scopes;
		w->depth++;
	} else if (strchr("}])", c) != NULL && w->depth > 0) {
		w->depth--;
	}
}

bool source_next(struct source_walk *w, struct source_key *key)
{
	for (;;) {
		const char *word, *end, *sign;

		walk_to(w, blank_skip(w->at));
		word = w->at;
		if (*word == '\0')
			return false;
		if (*word == '"') {
			walk_to(w, quoted_skip(word));
			continue;
		}
		if (!source_is_word(*word)) {
			bracket_take(w, *word);
			w->at++;
			continue;
		}
		for (end = word; source_is_word(*end);)
			end++;
		sign = blank_skip(end);
		if (*sign != '=' && *sign != ':') {
			w->at = end;
			continue;
		}
		if (w->depth == 0) {
			w->option = word;
			w->option_size = (size_t)(end - word);
			w->group = 0;
		}
		*key = (struct source_key){.word = word,
		        .size = (size_t)(end - word),
		        .value = blank_skip(sign + 1),
		        .line = w->newlines + 1,
		        .depth = w->depth,
		        .scope = w->depth == 0                  ? 0
		                 : w->depth <= SOURCE_DEPTH_MAX ? w->scope[w->depth - 1]
		                                                : UINT_MAX,
		        .option = w->option,
		        .option_size = w->option_size,
		        .group = w->group};
		walk_to(w, sign + 1);
		return true;
	}
}

long long source_number(
        const struct source *source, const char *option, unsigned group, const char *key, int value)
{
	struct source_walk w = {.at = source->text};
	struct source_key k;

	while (source_next(&w, &k)) {
		const char *c = k.value;

		if (!source_is(k.option, k.option_size, option) || k.depth != (key == NULL ? 0 : 2) ||
		        (key != NULL && (k.group != group || !source_is(k.word, k.size, key))))
			continue;
		if (c[0] == '0' && (c[1] == 'x' || c[1] == 'X')) {
			unsigned long long hex = strtoull(c, NULL, 16);

			return hex > LLONG_MAX ? LLONG_MAX : (long long)hex;
		}
		return strtoll(c, NULL, 10);
	}
	return value;
}

bool source_duplicate(const struct source *source, unsigned line, struct source_key *found)
{
	struct source_walk w = {.at = source->text};
	struct source_key k, first;

	while (source_next(&w, &k) && (k.line <= line || line == 0)) {
		struct source_walk earlier = {.at = source->text};

		if (k.line + 1 < line)
			continue;
		while (source_next(&earlier, &first) && first.word < k.word) {
			if (first.scope != k.scope || first.size != k.size ||
			        strncmp(first.word, k.word, k.size) != 0)
				continue;
			*found = k;
			return true;
		}
	}
	return false;
}

bool source_unclosed(const struct source *source, unsigned line, struct source_key *found)
{
	struct source_walk w = {.at = source->text};

	while (source_next(&w, found) && found->line <= line) {
		const char *end = found->value;

		if (*end != '"')
			continue;
		end = quoted_skip(end);
		if (end[-1] != '"' || end == found->value + 1 ||
		        memchr(found->value, '\n', (size_t)(end - found->value)) != NULL)
			return true;
	}
	return false;
}
