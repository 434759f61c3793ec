/* pronkd_metrics.h - pronkd's HTTP listener for Prometheus (option metrics_listen). */
#pragma once
#include <stddef.h>

struct cfg;
struct metrics;

/* Begins to serve the statistics segment (size bytes, mapped until metrics_stop) in a thread of its own. 0
 * and *out, which is NULL when the option is empty; or -E with a reason. Control thread. */
int metrics_start(struct metrics **out, const struct cfg *cfg, const void *segment, size_t size, char *err,
        size_t err_size);

/* Ends the thread and lets go of the port. Accepts NULL. Control thread; blocks until the thread has ended.
 */
void metrics_stop(struct metrics *m);
