/* show_export.c - `pronkctl export`: the statistics in Prometheus' text format, for a textfile collector or
 * another exporter. pronkd serves the same over HTTP (option metrics_listen).
 */
#include "show.h"

#include "metrics.h"
#include "sample.h"

int show_export(const struct attach *at, const struct show *show)
{
	struct source src;
	int rc = source_open(&src, at);

	(void)show;
	if (rc)
		return rc;
	rc = metrics_write(&src.view, stdout);
	source_close(&src);
	return rc;
}
