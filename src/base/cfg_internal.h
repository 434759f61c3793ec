/* cfg_internal.h - shared by the files cfg_*.c only: how a reason for a refusal is written, and texts. */
#pragma once
#include <stdio.h>

#include "cfg.h"
#include "compiler.h"

/* Writes where option id got its value, its key, and the formatted reason into err. Always returns -EINVAL.
 * Pure. */
int cfg_refuse(const struct cfg *cfg, enum option_id id, char *err, size_t err_size, const char *fmt, ...)
        PRINTF_LIKE(5, 6);

/* A line stays a line, whatever stood in the value: control characters become question marks. Pure. */
void cfg_line_clean(char *line, size_t size);

/* "a number", "a list", ...: what a value of a type of libconfig's is. Pure. */
const char *cfg_type_text(int type);

/* The name most like a misspelt word, or NULL when none is near. name(0), name(1), ... are the names, until
 * it returns NULL. Pure. */
const char *cfg_nearest(const char *word, const char *(*name)(unsigned idx));

/* Text in double quotes, in the escapes that libconfig and JSON have in common. Blocks as stdio does. */
void cfg_quoted_print(FILE *file, const char *text);
