/* plot_latency.c - `pronkctl latency --svg`: percentiles by time, a line for each stage. SVG is text, so this
 * needs no library.
 *
 * Both axes are logarithmic: time, and the share of values that take longer (one in two, in ten, ...), so
 * that the rare long ones have as much room as the common ones.
 */
#include "show_latency.h"

#include <inttypes.h>
#include <math.h>

#include "latency.h"

enum { WIDTH = 900, HEIGHT = 460, LEFT = 80, RIGHT = 250, TOP = 40, BOTTOM = 50, NINES = 5 };

static const char *const colours[LATENCY_STAGES] = {
        "#1b7f5c", "#d9822b", "#2f5fb3", "#111111", "#8a5a1f", "#7a3f96", "#888888"};

struct axes {
	double low, high; /* log10 of ns */
};

static double x_of(const struct axes *a, double ns)
{
	return LEFT + (log10(ns) - a->low) / (a->high - a->low) * (WIDTH - LEFT - RIGHT);
}

/* above: the share of values that are longer. */
static double y_of(double above)
{
	double nines = above > 0 ? -log10(above) : NINES;

	return HEIGHT - BOTTOM - fmin(nines, NINES) / NINES * (HEIGHT - TOP - BOTTOM);
}

static void axes_print(FILE *f, const struct axes *a)
{
	static const char *const shares[] = {"0", "90 %", "99 %", "99.9 %", "99.99 %", "100 %"};

	for (int power = (int)a->low; power <= (int)a->high; power++) {
		double ns = pow(10, power), x = x_of(a, ns);

		fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, TOP, x,
		        HEIGHT - BOTTOM);
		fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g %s</text>\n", x,
		        HEIGHT - BOTTOM + 18,
		        power >= 9   ? ns / 1e9
		        : power >= 6 ? ns / 1e6
		        : power >= 3 ? ns / 1e3
		                     : ns,
		        power >= 9   ? "s"
		        : power >= 6 ? "ms"
		        : power >= 3 ? "us"
		                     : "ns");
	}
	for (int n = 0; n <= NINES; n++) {
		double y = y_of(pow(10, -n));

		fprintf(f, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", LEFT, y,
		        WIDTH - RIGHT, y);
		fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 8, y + 4,
		        shares[n]);
	}
}

static void line_print(FILE *f, const struct axes *a, const struct hist_copy *h, const char *colour)
{
	uint64_t seen = 0;

	fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		double high = (double)(hist_high(i) < h->max_ns ? hist_high(i) : h->max_ns);

		if (!h->bucket[i])
			continue;
		if (!seen)
			fprintf(f, "%.1f,%.1f ", x_of(a, fmax((double)hist_low(i), 1)), y_of(1));
		seen += h->bucket[i];
		fprintf(f, "%.1f,%.1f ", x_of(a, fmax(high, 1)),
		        y_of((double)(h->count - seen) / (double)h->count));
	}
	fprintf(f, "\"/>\n");
}

void plot_latency(const struct latency_copy *c, FILE *f)
{
	const struct hist_copy *total = &c->stage[c->stack_count * LATENCY_STAGES];
	struct axes a = {2, 3};
	uint64_t least = UINT64_MAX, most = 0;
	int legend = TOP + 20;

	for (int k = 0; k < LATENCY_STAGES; k++)
		for (uint32_t i = 0; i < HIST_BUCKETS; i++)
			if (total[k].bucket[i]) {
				least = hist_low(i) < least ? hist_low(i) : least;
				most = hist_high(i) > most ? hist_high(i) : most;
			}
	if (most) {
		a.low = floor(log10(fmax((double)least, 1)));
		a.high = fmax(ceil(log10((double)most)), a.low + 1);
	}
	fprintf(f,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
	        "font-family=\"sans-serif\" font-size=\"12\">\n"
	        "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n"
	        "<text x=\"%d\" y=\"22\" font-weight=\"bold\">Pronk: share of values that take no longer than</text>\n",
	        WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
	axes_print(f, &a);
	for (int k = 0; k < LATENCY_STAGES; k++) {
		if (!total[k].count)
			continue;
		line_print(f, &a, &total[k], colours[k]);
		fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"4\" fill=\"%s\"/>\n",
		        WIDTH - RIGHT + 14, legend - 6, colours[k]);
		fprintf(f, "<text x=\"%d\" y=\"%d\">%s: %" PRIu64 ", median %.1f us</text>\n",
		        WIDTH - RIGHT + 34, legend, latency_name(k), total[k].count,
		        (double)hist_at(&total[k], 0.5) / 1e3);
		legend += 20;
	}
	fprintf(f, "</svg>\n");
}
