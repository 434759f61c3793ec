/* mib.h - the counters that RFCs name, out of the service's statistics. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "sample.h"

struct mib_entry {
	const char *protocol, *name;
	const char
	        *parts; /* statistics to be added up, those with a - taken away; "": it cannot happen here */
};

extern const struct mib_entry mib_table[];
extern const uint32_t mib_count;

/* Whether it is a level, which has no rate. */
bool mib_is_gauge(const struct mib_entry *e, const struct source *src);

/* The value at the time of a sample. 0, or -ENOENT when the service (an older one) does not count it. */
int mib_value(const struct mib_entry *e, const struct source *src, const struct sample *s, uint64_t *out);
