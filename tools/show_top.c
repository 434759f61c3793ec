/* show_top.c - `pronkctl top`: the busiest stacks and sockets, on the whole terminal and anew at each
 * interval, or as text with --batch. What is shown is made in top_rows.c and top_print.c.
 */
#include "show.h"

#include <curses.h>
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "top.h"

enum { BATCH_ROWS = 20, KEY_ROWS = 2 };

#define INTERVAL_DEFAULT_S 1.0
#define INTERVAL_LEAST_S 0.1
#define INTERVAL_MOST_S 60.0

/* --- text --- */

static int print_batch(const struct top *t)
{
	int rc = 0;

	if (t->show->json) {
		top_print_json(t, stdout, UINT32_MAX);
		return 0;
	}
	top_print_head(t, stdout);
	rc = top_print_stacks(t, stdout);
	if (!rc)
		rc = top_print_sockets(t, stdout, BATCH_ROWS);
	fputc('\n', stdout);
	return rc;
}

static int run_batch(struct top *t, double interval_s)
{
	int rc = 0;

	for (uint32_t n = 0; !rc && n < t->show->count; n++) {
		if (!source_wait(&t->src, interval_s)) {
			fprintf(stderr, "pronkctl: the service has ended\n");
			return -ECONNRESET;
		}
		rc = top_look(t);
		if (!rc)
			rc = print_batch(t);
		if (!rc && fflush(stdout))
			rc = -errno;
	}
	return rc;
}

/* --- the screen --- */

/* Prints lines from row y on, cut to the screen; the first one reversed if it is a table's head. The row
 * behind them. */
static int lines_put(int y, const char *text, bool has_head)
{
	while (*text && y < LINES - 1) {
		size_t size = strcspn(text, "\n");

		if (has_head)
			attron(A_REVERSE);
		mvprintw(y, 0, "%.*s", (int)size < COLS ? (int)size : COLS, text);
		if (has_head) {
			for (int x = (int)size; x < COLS; x++)
				mvaddch(y, x, ' ');
			attroff(A_REVERSE);
		}
		has_head = false;
		text += size + (text[size] == '\n');
		y++;
	}
	return y;
}

/* Has a part printed into memory, and puts it on the screen. */
static int part_put(
        const struct top *t, int y, int (*print)(const struct top *t, FILE *out, uint32_t max), bool has_head)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int rows = LINES - y - KEY_ROWS;

	if (!out)
		return y;
	print(t, out, rows > 0 ? (uint32_t)rows : 0);
	if (!fclose(out))
		y = lines_put(y, text, has_head);
	free(text);
	return y;
}

static int print_head(const struct top *t, FILE *out, uint32_t max)
{
	(void)max;
	top_print_head(t, out);
	return 0;
}

static int print_stacks(const struct top *t, FILE *out, uint32_t max)
{
	(void)max;
	return top_print_stacks(t, out);
}

static void draw(const struct top *t, double interval_s)
{
	int y;

	erase();
	y = part_put(t, 0, print_head, false);
	if (t->view != TOP_SOCKETS)
		y = part_put(t, y, print_stacks, true);
	if (t->view == TOP_ALL)
		y++;
	if (t->view != TOP_STACKS)
		part_put(t, y, top_print_sockets, true);
	mvprintw(LINES - 1, 0, "%.*s", COLS > 1 ? COLS - 1 : 0,
	        "q quit  h help  v view  < > sort  r reverse  + - interval");
	if (COLS > 90)
		printw("   (%.1f s, by %s%s)", interval_s, top_sort_names[t->sort],
		        t->is_reverse ? ", reversed" : "");
	refresh();
}

static void draw_help(void)
{
	erase();
	lines_put(0,
	        "pronkctl top\n"
	        "\n"
	        "  q            quit\n"
	        "  h ?          this page; any key leaves it\n"
	        "  v            what is shown: stacks and sockets, stacks, sockets\n"
	        "  < >          the column that sockets are sorted by: bytes/s, received/s, sent/s, queues, rtt,\n"
	        "               retransmits, pid\n"
	        "  r            the other way round\n"
	        "  + -          half or twice the interval\n"
	        "  up down      scroll the sockets by one, PgUp PgDn by ten\n"
	        "  space        look now\n"
	        "\n"
	        "BUSY% is the time that a stack had something to do. DROPS/S adds up all statistics that begin with\n"
	        "drop_ (pronkctl stats drop_). RX are bytes received (of a UDP socket 64 more\n"
	        "for each datagram), TX bytes that the peer has acknowledged, or that were sent by UDP.\n",
	        false);
	refresh();
}

/* What a key does. False: quit. */
static bool key_do(struct top *t, int key, double *interval_s, bool *is_help)
{
	if (*is_help && key != KEY_RESIZE) {
		*is_help = false;
		return true;
	}
	switch (key) {
	case 'q':
		return false;
	case 'h':
	case '?':
		*is_help = true;
		break;
	case 'v':
		t->view = (t->view + 1) % TOP_VIEW_COUNT;
		break;
	case '>':
		t->sort = (t->sort + 1) % TOP_SORT_COUNT;
		break;
	case '<':
		t->sort = (t->sort + TOP_SORT_COUNT - 1) % TOP_SORT_COUNT;
		break;
	case 'r':
		t->is_reverse = !t->is_reverse;
		break;
	case '+':
		*interval_s = *interval_s / 2 < INTERVAL_LEAST_S ? INTERVAL_LEAST_S : *interval_s / 2;
		break;
	case '-':
		*interval_s = *interval_s * 2 > INTERVAL_MOST_S ? INTERVAL_MOST_S : *interval_s * 2;
		break;
	case KEY_DOWN:
	case KEY_NPAGE:
		t->skip += key == KEY_DOWN ? 1 : 10;
		break;
	case KEY_UP:
	case KEY_PPAGE:
		t->skip -= t->skip < (key == KEY_UP ? 1u : 10u) ? t->skip : key == KEY_UP ? 1 : 10;
		break;
	default:
		break;
	}
	if (t->row_count && t->skip >= t->row_count)
		t->skip = t->row_count - 1;
	top_sort(t);
	return true;
}

/* Until somebody ends it. The terminal's size, when it changes, comes as a key. */
static int run_screen(struct top *t, double interval_s)
{
	struct pollfd fds[] = {
	        {.fd = STDIN_FILENO, .events = POLLIN}, {.fd = t->src.at->ctl_fd, .events = POLLIN}};
	uint64_t next_ns = clock_now_ns() + (uint64_t)(INTERVAL_LEAST_S * 1e9);
	bool is_help = false;
	int rc = 0, key;

	for (;;) {
		uint64_t now_ns = clock_now_ns();

		if (now_ns >= next_ns) {
			rc = top_look(t);
			if (rc)
				return rc;
			next_ns = clock_now_ns() + (uint64_t)(interval_s * 1e9);
		}
		if (is_help)
			draw_help();
		else
			draw(t, interval_s);
		now_ns = clock_now_ns();
		if (poll(fds, 2, next_ns > now_ns ? (int)((next_ns - now_ns) / CLOCK_NS_PER_MS) + 1 : 0) <
		                0 &&
		        errno != EINTR)
			return -errno;
		if (fds[1].revents)
			return -ECONNRESET;
		if (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL) && !(fds[0].revents & POLLIN))
			return 0; /* the terminal has gone */
		while ((key = getch()) != ERR) {
			if (key == ' ')
				next_ns = 0;
			if (!key_do(t, key, &interval_s, &is_help))
				return 0;
		}
	}
}

static int screen(struct top *t, double interval_s)
{
	SCREEN *term;
	int rc;

	setlocale(LC_CTYPE, "");
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		fprintf(stderr, "pronkctl: top needs a terminal; top --batch N prints N times as text\n");
		return -ENOTTY;
	}
	term = newterm(NULL, stdout, stdin);
	if (!term) {
		fprintf(stderr,
		        "pronkctl: top cannot use this terminal (TERM is \"%s\"); top --batch N prints N times as "
		        "text\n",
		        getenv("TERM") ? getenv("TERM") : "");
		return -ENOTTY;
	}
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	rc = run_screen(t, interval_s);
	endwin();
	delscreen(term);
	if (rc == -ECONNRESET)
		fprintf(stderr, "pronkctl: the service has ended\n");
	return rc;
}

int show_top(const struct attach *at, const struct show *show)
{
	double interval_s = show->interval_s > 0 ? show->interval_s : INTERVAL_DEFAULT_S;
	struct top t;
	int rc = top_open(&t, at, show);

	if (rc)
		return rc;
	rc = show->batch ? run_batch(&t, interval_s) : screen(&t, interval_s);
	top_close(&t);
	return rc;
}
