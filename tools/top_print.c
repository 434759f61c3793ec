/* top_print.c - `pronkctl top` as text and as JSON; the screen (show_top.c) shows the same text. */
#include "top.h"

#include <inttypes.h>
#include <time.h>

#include "clock.h"

/* "950", "12.3k", "4.57M": three digits that count. */
static void rate_text(double rate, char *buf, size_t size)
{
	static const char units[] = "kMGT";
	int unit = -1;

	for (; rate >= 999.5 && unit + 1 < (int)sizeof(units) - 1; unit++)
		rate /= 1000;
	if (unit < 0)
		snprintf(buf, size, "%.0f", rate);
	else
		snprintf(buf, size, "%.*f%c", rate < 9.995 ? 2 : rate < 99.95 ? 1 : 0, rate, units[unit]);
}

static void cell_rate(struct table *t, double rate)
{
	char text[32];

	rate_text(rate, text, sizeof(text));
	table_cell(t, "%s", text);
}

/* How fast a counter grows. */
static double rate(const struct top *t, uint32_t stack, const char *name)
{
	return t->seconds > 0 ? sample_named(&t->src, &t->before, &t->now, stack, name) / t->seconds : 0;
}

static double level(const struct top *t, uint32_t stack, const char *name)
{
	return sample_named(&t->src, NULL, &t->now, stack, name);
}

static double busy(const struct top *t, uint32_t stack)
{
	return t->seconds > 0 ? derived_value(&t->src, &t->before, &t->now, stack, DERIVED_BUSY) : 0;
}

static double drops(const struct top *t, uint32_t stack)
{
	static const char *const prefix[] = {"drop_"};
	double sum = 0;

	for (uint32_t i = 0; i < t->src.view.counter_count; i++)
		if (words_take(prefix, 1, stat_view_entry(&t->src.view, i)->name) && t->seconds > 0)
			sum += sample_change(&t->src, &t->before, &t->now, stack, i) / t->seconds;
	return sum;
}

void top_print_head(const struct top *t, FILE *out)
{
	time_t now = (time_t)(t->now.wall_ns / CLOCK_NS_PER_S);
	uint64_t up = (uint64_t)sample_seconds(&t->src, NULL, &t->now);
	char text[32];
	struct tm tm;

	strftime(text, sizeof(text), "%F %T", localtime_r(&now, &tm));
	fprintf(out, "%s: %s, pid %" PRIu64 ", up %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 "; %s, %.1f s\n",
	        t->src.view.instance, t->src.view.device, t->src.view.writer_pid, up / 3600, up / 60 % 60,
	        up % 60, text, t->seconds);
	fprintf(out,
	        "programs %.0f, sockets %.0f, TIME_WAIT %.0f; free: buffers %.0f of %.0f (lowest %.0f), send blocks "
	        "%.0f of %.0f\n",
	        level(t, SAMPLE_ALL, "clients_attached"), level(t, SAMPLE_ALL, "endpoints_used"),
	        level(t, SAMPLE_ALL, "time_wait"), level(t, SAMPLE_ALL, "buffers_free"),
	        level(t, SAMPLE_ALL, "buffers_total"), level(t, SAMPLE_ALL, "buffers_low"),
	        level(t, SAMPLE_ALL, "blocks_free"), level(t, SAMPLE_ALL, "blocks_total"));
}

static void stack_row(const struct top *t, struct table *table, uint32_t stack)
{
	if (stack == SAMPLE_ALL)
		table_cell(table, "all");
	else
		table_cell(table, "%u", stack);
	table_cell(table, "%.1f", busy(t, stack));
	cell_rate(table, rate(t, stack, "rx_packets"));
	cell_rate(table, rate(t, stack, "tx_packets"));
	cell_rate(table, rate(t, stack, "rx_bytes"));
	cell_rate(table, rate(t, stack, "tx_bytes"));
	cell_rate(table, drops(t, stack));
	cell_rate(table, rate(t, stack, "tcp_out_again"));
	cell_rate(table, rate(t, stack, "requests"));
	cell_rate(table, rate(t, stack, "wakeups_sent"));
	table_cell(table, "%.0f", level(t, stack, "tcp_established"));
	table_cell(table, "%.0f", level(t, stack, "endpoints_used"));
}

int top_print_stacks(const struct top *t, FILE *out)
{
	struct table table;

	table_begin(&table,
	        ">STACK|>BUSY%|>RX PKT/S|>TX PKT/S|>RX B/S|>TX B/S|>DROPS/S|>RETR/S|>REQ/S|>WAKE/S|"
	        ">ESTAB|>SOCKETS");
	for (uint32_t i = 0; i < t->src.view.stack_count; i++)
		stack_row(t, &table, i);
	if (t->src.view.stack_count > 1)
		stack_row(t, &table, SAMPLE_ALL);
	return table_end(&table, out);
}

int top_print_sockets(const struct top *t, FILE *out, uint32_t max)
{
	struct table table;

	table_begin(&table,
	        ">PID|PROGRAM|>FD|>STACK|STATE|LOCAL|PEER|>RX B/S|>TX B/S|>RECVQ|>SENDQ|>RTT_MS|>RETR");
	for (uint32_t i = t->skip; i < t->row_count && i - t->skip < max; i++) {
		const struct row *r = &t->rows[i].row;
		char local[ADDR_TEXT_SIZE], peer[ADDR_TEXT_SIZE];

		addr_text(&r->local, local, sizeof(local));
		addr_text(&r->remote, peer, sizeof(peer));
		if (r->owner == UINT32_MAX)
			table_cell(&table, "-");
		else
			table_cell(&table, "%d", r->pid);
		table_cell(&table, "%.15s", r->program[0] ? r->program : "-");
		if (r->fd < 0)
			table_cell(&table, "-");
		else
			table_cell(&table, "%d", r->fd);
		table_cell(&table, "%u", r->stack);
		table_cell(&table, "%s", row_state_name(r));
		table_cell(&table, "%s", local);
		table_cell(&table, "%s", peer);
		cell_rate(&table, t->rows[i].rx);
		cell_rate(&table, t->rows[i].tx);
		table_cell(&table, "%u", r->rx_queue);
		table_cell(&table, "%u", r->tx_queue);
		if (row_is_conn(r)) {
			table_cell(&table, "%u.%03u", r->rtt_us / 1000, r->rtt_us % 1000);
			table_cell(&table, "%u", r->retransmits);
		} else {
			table_cell(&table, "-");
			table_cell(&table, "-");
		}
	}
	return table_end(&table, out);
}

void top_print_json(const struct top *t, FILE *out, uint32_t max)
{
	fprintf(out, "{\"pid\": %" PRIu64 ", \"instance\": ", t->src.view.writer_pid);
	json_text(out, t->src.view.instance);
	fprintf(out, ", \"device\": ");
	json_text(out, t->src.view.device);
	fprintf(out, ", \"time_ns\": %" PRIu64 ", \"interval_s\": %.6f", t->now.wall_ns, t->seconds);
	fprintf(out,
	        ", \"buffers_free\": %.0f, \"buffers_low\": %.0f, \"buffers_total\": %.0f, \"stacks\": [",
	        level(t, SAMPLE_ALL, "buffers_free"), level(t, SAMPLE_ALL, "buffers_low"),
	        level(t, SAMPLE_ALL, "buffers_total"));
	for (uint32_t i = 0; i < t->src.view.stack_count; i++)
		fprintf(out,
		        "%s{\"stack\": %u, \"busy_percent\": %.3f, \"rx_packets\": %.3f, \"tx_packets\": %.3f, "
		        "\"rx_bytes\": %.3f, \"tx_bytes\": %.3f, \"drops\": %.3f, \"retransmits\": %.3f, "
		        "\"requests\": %.3f, \"wakeups\": %.3f, \"established\": %.0f, \"sockets\": %.0f}",
		        i ? ", " : "", i, busy(t, i), rate(t, i, "rx_packets"), rate(t, i, "tx_packets"),
		        rate(t, i, "rx_bytes"), rate(t, i, "tx_bytes"), drops(t, i),
		        rate(t, i, "tcp_out_again"), rate(t, i, "requests"), rate(t, i, "wakeups_sent"),
		        level(t, i, "tcp_established"), level(t, i, "endpoints_used"));
	fprintf(out, "], \"sockets\": [");
	for (uint32_t i = 0; i < t->row_count && i < max; i++) {
		const struct row *r = &t->rows[i].row;
		char local[ADDR_TEXT_SIZE], peer[ADDR_TEXT_SIZE];

		addr_text(&r->local, local, sizeof(local));
		addr_text(&r->remote, peer, sizeof(peer));
		fprintf(out, "%s{\"endpoint\": %u, \"pid\": ", i ? ", " : "", r->idx);
		if (r->owner == UINT32_MAX)
			fprintf(out, "null");
		else
			fprintf(out, "%d", r->pid);
		fprintf(out, ", \"program\": ");
		json_text(out, r->program);
		if (r->fd < 0)
			fprintf(out, ", \"fd\": null");
		else
			fprintf(out, ", \"fd\": %d", r->fd);
		fprintf(out, ", \"stack\": %u, \"state\": \"%s\", \"local\": \"%s\", \"peer\": \"%s\"",
		        r->stack, row_state_name(r), local, peer);
		fprintf(out,
		        ", \"rx_bytes\": %.3f, \"tx_bytes\": %.3f, \"recv_queue\": %u, \"send_queue\": %u",
		        t->rows[i].rx, t->rows[i].tx, r->rx_queue, r->tx_queue);
		if (row_is_conn(r))
			fprintf(out, ", \"rtt_us\": %u, \"retransmits\": %u}", r->rtt_us, r->retransmits);
		else
			fprintf(out, ", \"rtt_us\": null, \"retransmits\": null}");
	}
	fprintf(out, "]}\n");
}
