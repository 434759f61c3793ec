/* metrics.h - the statistics as Prometheus reads them: text exposition format 0.0.4. */
#pragma once
#include <stdio.h>

#include "stat.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Writes all statistics of a segment. Any thread; blocks only as far as the stream does. 0 or -EIO. */
int metrics_write(const struct stat_view *view, FILE *out);
