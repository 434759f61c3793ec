/* table.c - what all of pronkctl's output is made of: tables whose columns are as wide as what is in them,
 * and JSON texts.
 */
#include "show.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* A row is column_max cells, or one cell that goes across (then the others are NULL). */
void table_begin(struct table *t, const char *heads)
{
	memset(t, 0, sizeof(*t));
	while (*heads) {
		size_t size = strcspn(heads, "|");
		bool right = *heads == '>';

		if (t->column_count == TABLE_COLUMN_MAX) {
			t->rc = -E2BIG;
			return;
		}
		t->right[t->column_count++] = right;
		table_cell(t, "%.*s", (int)(size - right), heads + right);
		heads += size + (heads[size] == '|');
	}
}

static void cell_take(struct table *t, char *text)
{
	if (t->rc || !text) {
		t->rc = t->rc ? t->rc : -ENOMEM;
		free(text);
		return;
	}
	if (t->cell_count == t->cell_room) {
		uint32_t room = t->cell_room ? t->cell_room * 2 : 64;
		char **more = realloc(t->cells, room * sizeof(*more));

		if (!more) {
			t->rc = -ENOMEM;
			free(text);
			return;
		}
		t->cells = more;
		t->cell_room = room;
	}
	t->cells[t->cell_count++] = text;
}

void table_cell(struct table *t, const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	cell_take(t, text);
}

void table_line(struct table *t, const char *text)
{
	char *line = NULL;

	/* a mark that no cell begins with */
	if (asprintf(&line, "\001%s", text) < 0)
		line = NULL;
	cell_take(t, line);
	for (uint32_t i = 1; i < t->column_count; i++)
		cell_take(t, strdup(""));
}

/* Characters, not bytes: what continues a UTF-8 sequence takes no room. */
static int width_of(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void row_print(const struct table *t, char *const *row, const int *width, FILE *out)
{
	int blanks = 0;

	if (row[0][0] == '\001') {
		fprintf(out, "%s\n", row[0] + 1);
		return;
	}
	/* blanks are owed until something follows: no line ends in them */
	for (uint32_t i = 0; i < t->column_count; i++) {
		int pad = width[i] - width_of(row[i]);

		if (t->right[i])
			blanks += pad;
		if (row[i][0]) {
			fprintf(out, "%*s%s", blanks, "", row[i]);
			blanks = 0;
		}
		if (!t->right[i])
			blanks += pad;
		blanks += 2;
	}
	fputc('\n', out);
}

int table_end(struct table *t, FILE *out)
{
	int width[TABLE_COLUMN_MAX] = {0}, rc = t->rc;

	if (!rc && t->column_count && t->cell_count % t->column_count)
		rc = -EINVAL;
	for (uint32_t i = 0; !rc && i < t->cell_count; i++) {
		int w = t->cells[i][0] == '\001' ? 0 : width_of(t->cells[i]);

		if (w > width[i % t->column_count])
			width[i % t->column_count] = w;
	}
	for (uint32_t i = 0; !rc && i < t->cell_count; i += t->column_count)
		row_print(t, t->cells + i, width, out);
	for (uint32_t i = 0; i < t->cell_count; i++)
		free(t->cells[i]);
	free(t->cells);
	memset(t, 0, sizeof(*t));
	return rc;
}

void json_text(FILE *file, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	fputc('"', file);
	while (*p) {
		int more = *p < 0x80                 ? 0
		           : *p >= 0xc2 && *p < 0xe0 ? 1
		           : (*p & 0xf0) == 0xe0     ? 2
		           : *p >= 0xf0 && *p < 0xf5 ? 3
		                                     : -1;

		for (int i = 1; i <= more; i++)
			if ((p[i] & 0xc0) != 0x80)
				more = -1;
		/* overlong forms, surrogates and what lies beyond U+10FFFF are no characters */
		if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
		        (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
			more = -1;
		if (more < 0) {
			fputs("\\ufffd", file);
			p++;
			continue;
		}
		if (*p == '"' || *p == '\\')
			fprintf(file, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			fprintf(file, "\\u%04x", *p);
		else
			fwrite(p, 1, (size_t)more + 1, file);
		p += more + 1;
	}
	fputc('"', file);
}
