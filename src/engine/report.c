/* report.c - commands of tools that show what only the service can read: the port, through its driver.
 *
 * Control thread; nothing here asks a stack, so a stack that does not run cannot hold it up. What the stacks
 * tell of themselves lies in the arena (arena/report.h), and tools read it there.
 */
#include "engine_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "command.h"
#include "report_cmd.h"

struct out {
	FILE *file;
	bool json;
	const char *before; /* what stands before the next member */
};

static void text_quoted(FILE *file, const char *text)
{
	fputc('"', file);
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p == '"' || *p == '\\')
			fprintf(file, "\\%c", *p);
		else if (*p < 0x20 || *p >= 0x7f)
			fprintf(file, "\\u%04x", *p);
		else
			fputc(*p, file);
	fputc('"', file);
}

static void key(struct out *o, const char *name)
{
	if (o->json)
		fprintf(o->file, "%s  \"%s\": ", o->before, name);
	else
		fprintf(o->file, "%-18s ", name);
	o->before = ",\n";
}

static void row_text(struct out *o, const char *name, const char *text)
{
	if (!o->json && !text[0])
		return;
	key(o, name);
	if (!o->json)
		fprintf(o->file, "%s\n", text);
	else if (text[0])
		text_quoted(o->file, text);
	else
		fputs("null", o->file);
}

static void row_number(struct out *o, const char *name, uint64_t value, const char *unit)
{
	key(o, name);
	if (o->json)
		fprintf(o->file, "%" PRIu64, value);
	else
		fprintf(o->file, "%" PRIu64 "%s%s\n", value, unit[0] ? " " : "", unit);
}

static void row_bool(struct out *o, const char *name, bool value)
{
	key(o, name);
	if (o->json)
		fputs(value ? "true" : "false", o->file);
	else
		fprintf(o->file, "%s\n", value ? "yes" : "no");
}

/* Names separated by blanks. */
static void row_names(struct out *o, const char *name, const char *names)
{
	const char *before = "";

	if (!o->json) {
		row_text(o, name, names[0] ? names : "none");
		return;
	}
	key(o, name);
	fputc('[', o->file);
	while (*names) {
		int size = (int)strcspn(names, " ");

		fprintf(o->file, "%s\"%.*s\"", before, size, names);
		before = ", ";
		names += size + (names[size] == ' ');
	}
	fputc(']', o->file);
}

static void row_hex(struct out *o, const char *name, const uint8_t *bytes, uint32_t size, const char *between)
{
	key(o, name);
	fputs(o->json ? "\"" : "", o->file);
	for (uint32_t i = 0; i < size; i++)
		fprintf(o->file, "%s%02x", i ? between : "", bytes[i]);
	fputs(o->json ? "\"" : "\n", o->file);
}

/* The table as it repeats: for two stacks "0 1", 64 times. */
static void row_table(struct out *o, const struct nic_report *r)
{
	uint32_t period = 1;

	while (period < r->table_size && memcmp(r->table, r->table + period, r->table_size - period) != 0)
		period++;
	key(o, "rss_table");
	if (!o->json) {
		for (uint32_t i = 0; i < period; i++)
			fprintf(o->file, "%u ", r->table[i]);
		fprintf(o->file, "(of %u entries%s)\n", r->table_size,
		        period < r->table_size ? ", repeated" : "");
		return;
	}
	for (uint32_t i = 0; i < r->table_size; i++)
		fprintf(o->file, "%s%u", i ? ", " : "[", r->table[i]);
	fputc(']', o->file);
}

static void link_show(struct out *o, const struct nic_report *r)
{
	char text[64];

	row_bool(o, "link_up", r->info.link_up);
	if (o->json) {
		row_number(o, "link_mbps", r->link_mbps, "");
		row_bool(o, "full_duplex", r->is_full_duplex);
		row_bool(o, "autoneg", r->is_autoneg);
	} else if (r->link_mbps) {
		snprintf(text, sizeof(text), "%u Mbit/s, %s duplex%s", r->link_mbps,
		        r->is_full_duplex ? "full" : "half", r->is_autoneg ? ", negotiated" : "");
		row_text(o, "link_speed", text);
	}
	row_hex(o, "mac", r->info.mac, 6, ":");
	row_number(o, "mtu", r->info.mtu, "bytes");
	if (o->json || r->mtu_max) {
		row_number(o, "mtu_min", r->mtu_min, "bytes");
		row_number(o, "mtu_max", r->mtu_max, "bytes");
	}
	row_bool(o, "promiscuous", r->is_promiscuous);
	row_bool(o, "all_multicast", r->is_all_multicast);
	key(o, "numa_node");
	fprintf(o->file, o->json ? "%d" : "%d\n", r->info.numa_node);
}

static void queues_show(struct out *o, const struct nic_report *r)
{
	row_number(o, "queues", r->rx_queues, "pairs");
	row_number(o, "queues_max", r->rx_queues_max < r->tx_queues_max ? r->rx_queues_max : r->tx_queues_max,
	        "pairs");
	row_number(o, "rx_ring", r->rx_ring, "descriptors");
	row_number(o, "tx_ring", r->tx_ring, "descriptors");
	row_text(o, "rx_function", r->rx_mode);
	row_text(o, "tx_function", r->tx_mode);
	row_names(o, "rx_offloads", r->rx_used);
	row_names(o, "rx_offered", r->rx_offered);
	row_names(o, "tx_offloads", r->tx_used);
	row_names(o, "tx_offered", r->tx_offered);
	row_bool(o, "partial_checksums", r->takes_partial);
	row_number(o, "stacks", r->stack_count, "");
	row_text(o, "rss", r->stack_count == 1 ? "none" : r->info.rss_hw ? "hardware" : "software");
	row_table(o, r);
	if (o->json || r->hw_table_size) {
		row_number(o, "rss_port_table", r->hw_table_size, "entries");
		row_bool(o, "rss_port_table_same", r->hw_table_same);
	}
	row_hex(o, "rss_key", r->key, r->key_size, "");
}

static void memory_show(struct out *o, const struct nic_report *r)
{
	row_number(o, "buffers_free", r->buffers_free, "");
	row_number(o, "buffers_total", r->buffers_total, "");
	row_number(o, "buffer_size", r->buffer_size, "bytes");
	row_number(o, "memory_regions", r->region_count, "");
	row_number(o, "page_size", r->page_size, "bytes");
}

static void memif_show(struct out *o, const struct nic_report *r)
{
	char text[32];

	if (!r->is_memif)
		return;
	row_text(o, "memif_role", r->is_memif_server ? "server" : "client");
	row_number(o, "memif_id", r->memif_id, "");
	row_text(o, "memif_peer", r->info.link_up ? "connected" : "absent");
	row_number(o, "memif_frame_max", r->info.frame_big, "bytes");
	snprintf(text, sizeof(text), "%016" PRIx64, r->memif_tag);
	row_text(o, "memif_link", r->memif_tag ? text : "");
}

static void xstat_show(void *arg, const char *name, uint64_t value)
{
	struct out *o = arg;

	if (!o->json) {
		if (value)
			fprintf(o->file, "  %-32s %" PRIu64 "\n", name, value);
		return;
	}
	fprintf(o->file, "%s    ", o->before);
	text_quoted(o->file, name);
	fprintf(o->file, ": %" PRIu64, value);
	o->before = ",\n";
}

int report_nic(struct engine *e, const struct command_words *w, FILE *file)
{
	struct out o = {file, w->json, "{\n"};
	struct nic_report r;

	if (w->count != 1) {
		fprintf(file, "nic takes no words");
		return -EINVAL;
	}
	nic_report(e->nic, &r);
	row_text(&o, "device", e->device);
	row_text(&o, "kind", r.kind);
	row_text(&o, "driver", r.info.driver);
	row_text(&o, "firmware", r.firmware);
	link_show(&o, &r);
	queues_show(&o, &r);
	memory_show(&o, &r);
	memif_show(&o, &r);
	if (w->json) {
		fputs(",\n  \"xstats\": {\n", file);
		o.before = "";
		nic_xstats(e->nic, xstat_show, &o);
		fputs("\n  }\n}\n", file);
	} else {
		fputs("driver's statistics that are not zero:\n", file);
		nic_xstats(e->nic, xstat_show, &o);
	}
	return 0;
}
