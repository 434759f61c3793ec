/* inline.h - the engine inside this process (mode = inline). */
#pragma once
#include <stddef.h>

struct cfg;
struct driver;
struct driver_host;

/* Loads libpronk-inline.so and starts the engine in it: see driver.h. The library is $PRONK_INLINE, else the
 * one in the folder of the code that asks, else what the loader finds. Blocks for a second or so; the library
 * stays, also after a failure. 0 and *out, or -E with a reason. */
int inline_start(const struct cfg *cfg, const struct driver_host *host, struct driver **out, char *err,
        size_t err_size);
