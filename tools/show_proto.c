/* show_proto.c - `pronkctl proto`: the counters of IP, ICMP, TCP, UDP and ARP by the names that RFC 4293,
 * 4022 and 4113 give them. What they are made of is in mib_table.c.
 */
#include "show.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "mib.h"

/* A word is a protocol, or what a name begins with. */
static bool is_wanted(const struct show *show, const struct mib_entry *e)
{
	for (int i = 0; i < show->word_count; i++)
		if (!strcasecmp(show->word[i], e->protocol) ||
		        !strncasecmp(show->word[i], e->name, strlen(show->word[i])))
			return true;
	return !show->word_count;
}

/* False when the service does not count it. rate stays 0 for a level. */
static bool value_get(const struct span *v, const struct mib_entry *e, uint64_t *value, double *rate)
{
	uint64_t old;

	*rate = 0;
	if (mib_value(e, v->src, v->now, value))
		return false;
	if (v->before && !mib_is_gauge(e, v->src) && !mib_value(e, v->src, v->before, &old) && v->seconds > 0)
		*rate = *value >= old ? (double)(*value - old) / v->seconds : 0;
	return true;
}

static int print_table(const struct span *v)
{
	const char *protocol = "";
	struct table t;

	table_begin(&t, v->before ? "NAME|>VALUE|>RATE/S" : "NAME|>VALUE");
	for (uint32_t i = 0; i < mib_count; i++) {
		const struct mib_entry *e = &mib_table[i];
		bool is_known;
		uint64_t value = 0;
		double rate;

		if (!is_wanted(v->show, e))
			continue;
		is_known = value_get(v, e, &value, &rate);
		if (!v->show->all && !v->show->word_count && is_known && !value)
			continue;
		if (strcmp(protocol, e->protocol) != 0) {
			char line[16];
			size_t k = 0;

			protocol = e->protocol;
			for (; protocol[k]; k++)
				line[k] = (char)(protocol[k] - 'a' + 'A');
			line[k] = ':';
			line[k + 1] = 0;
			table_line(&t, line);
		}
		table_cell(&t, "%s", e->name);
		if (is_known)
			table_cell(&t, "%" PRIu64, value);
		else
			table_cell(&t, "-");
		if (v->before && is_known && !mib_is_gauge(e, v->src))
			table_cell(&t, "%.1f", rate);
		else if (v->before)
			table_cell(&t, "-");
	}
	return table_end(&t, stdout);
}

static void print_json(const struct span *v)
{
	const char *end = v->before ? "" : "\n", *one = v->before ? "" : "  ", *two = v->before ? "" : "    ";
	bool is_first = true;

	printf("{%s%s\"pid\": %" PRIu64 ", %s%s\"instance\": ", end, one, v->src->view.writer_pid, end, one);
	json_text(stdout, v->src->view.instance);
	if (v->before)
		printf(", \"time_ns\": %" PRIu64 ", \"interval_s\": %.6f", v->now->wall_ns, v->seconds);
	printf(", %s%s\"counters\": [", end, one);
	for (uint32_t i = 0; i < mib_count; i++) {
		const struct mib_entry *e = &mib_table[i];
		bool is_known;
		uint64_t value = 0;
		double rate;

		if (!is_wanted(v->show, e))
			continue;
		is_known = value_get(v, e, &value, &rate);
		printf("%s%s%s{\"protocol\": \"%s\", \"name\": \"%s\", \"kind\": \"%s\", \"value\": ",
		        is_first ? "" : ",", end, two, e->protocol, e->name,
		        mib_is_gauge(e, v->src) ? "gauge" : "counter");
		is_first = false;
		if (is_known)
			printf("%" PRIu64, value);
		else
			printf("null");
		if (v->before && is_known && !mib_is_gauge(e, v->src))
			printf(", \"rate\": %.3f", rate);
		printf("}");
	}
	printf("%s%s]%s}\n", end, one, end);
}

static int print(const struct span *v)
{
	if (v->show->json) {
		print_json(v);
		return 0;
	}
	if (v->before)
		span_title(v, stdout);
	return print_table(v);
}

static int words_check(const struct source *src, const struct show *show)
{
	(void)src;
	for (int w = 0; w < show->word_count; w++) {
		struct show one = {.word = &show->word[w], .word_count = 1};
		bool is_known = false;

		for (uint32_t i = 0; i < mib_count; i++)
			is_known |= is_wanted(&one, &mib_table[i]);
		if (is_known)
			continue;
		fprintf(stderr,
		        "pronkctl: proto: \"%s\" is no protocol (allowed: ip, icmp, tcp, udp, arp) and no "
		        "counter's name begins with it\n",
		        show->word[w]);
		return -EINVAL;
	}
	return 0;
}

int show_proto(const struct attach *at, const struct show *show)
{
	return span_show(at, show, words_check, print);
}
