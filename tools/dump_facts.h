/* dump_facts.h - what `pronkctl dump` collects of the machine, the processes and the log. */
#pragma once
#include <stddef.h>

#include "attach.h"

struct dump;

/* Adds all of it, and notes what could not be had. Reads /proc and /sys. */
void facts_add(struct dump *d, const struct attach *at);

/* dump.c: a file of the archive; something that is not in it. */
void dump_add(struct dump *d, const char *name, const void *data, size_t size);
void dump_missing(struct dump *d, const char *what, const char *why);
