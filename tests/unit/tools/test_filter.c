/* test_filter.c - the filter words of `pronkctl sockets`: what they take, what they refuse and how they say
 * it, and which sockets hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "filter.h"

static struct filter filter;
static char err[512];

static int parse(const char *text)
{
	err[0] = 0;
	return filter_parse(&filter, &text, 1, err, sizeof(err));
}

static struct row row_make(void)
{
	struct row r = {.state = EP_ESTABLISHED,
	        .tcp_state = 4,
	        .pid = 4711,
	        .fd = 7,
	        .stack = 1,
	        .program = "redis-server",
	        .local = {.family = AF_INET, .port = 6379, .ip = {198, 18, 0, 2}},
	        .remote = {.family = AF_INET, .port = 40000, .ip = {10, 1, 2, 130}}};

	return r;
}

static void taken(const char *text, bool holds)
{
	struct row r = row_make();

	if (parse(text))
		fail_msg("\"%s\" is refused: %s", text, err);
	if (filter_row(&filter, &r) != holds)
		fail_msg("\"%s\" %s", text, holds ? "does not hold" : "holds");
}

static void refused(const char *text, const char *why)
{
	assert_int_equal(parse(text), -EINVAL);
	if (!strstr(err, why))
		fail_msg("\"%s\": says \"%s\", not \"%s\"", text, err, why);
}

static void no_words_take_everything(void **state)
{
	struct row r = row_make();
	struct kernel_row k = {.fd = 1};

	(void)state;
	assert_int_equal(filter_parse(&filter, NULL, 0, err, sizeof(err)), 0);
	assert_true(filter_row(&filter, &r));
	assert_true(filter_kernel_row(&filter, &k));
	taken("", true);
	taken("  \t ", true);
}

static void states_by_any_spelling(void **state)
{
	(void)state;
	taken("state established", true);
	taken("state = ESTABLISHED", true);
	taken("state connected", true);
	taken("state!=connected", false);
	taken("state fin-wait-1", false);
	taken("state FIN_WAIT_1", false);
	taken("state finwait1", false);
	taken("state listening", false);
	taken("state unconn", false);
	refused("state open", "state: unknown \"open\" (known: connected, CLOSED, LISTEN,");
	refused("state", "state: a state is missing");
	refused("state < listen", "state: \"<\" is for ports only");
}

static void ports_compare(void **state)
{
	(void)state;
	taken("sport 6379", true);
	taken("sport = :6379", true);
	taken("sport=6379", true);
	taken("sport==6378", false);
	taken("sport != 6379", false);
	taken("sport<6379", false);
	taken("sport<=6379", true);
	taken("dport>39999", true);
	taken("dport >= 40001", false);
	taken("sport 0", false);
	taken("dport 65535", false);
	refused("sport 65536", "sport: \"65536\" is no number from 0 to 65535");
	refused("sport -1", "sport: \"-1\" is no number");
	refused("sport nosuchservice", "sport: \"nosuchservice\" is no number");
	refused("sport 1x", "\"1x\"");
	refused("sport =! 1", "sport: unknown operator \"=!\" (known: = == != < <= > >=)");
	refused("dport", "dport: a port is missing");
	refused("dport =", "dport: a port is missing");
	refused("sport 99999999999999999999", "is no number");
}

static void addresses_by_prefix(void **state)
{
	(void)state;
	taken("src 198.18.0.2", true);
	taken("src 198.18.0.3", false);
	taken("src != 198.18.0.3", true);
	taken("dst 10.0.0.0/8", true);
	taken("dst 10.1.2.128/25", true);
	taken("dst 10.1.2.0/25", false);
	taken("dst 10.1.2.131/31", true);
	taken("dst 0.0.0.0/0", true);
	taken("dst ::/0", false);
	taken("dst ::1", false);
	refused("dst 10.0.0/8", "dst: \"10.0.0\" is no IPv4 or IPv6 address");
	refused("dst 10.0.0.0/33", "dst: prefix length \"33\" is no number from 0 to 32");
	refused("dst 10.0.0.0/", "prefix length \"\"");
	refused("dst 10.0.0.0/-1", "prefix length \"-1\"");
	refused("src ::/129", "from 0 to 128");
	refused("src > 1.2.3.4", "src: \">\" is for ports only");
}

static void owners(void **state)
{
	(void)state;
	taken("pid 4711", true);
	taken("pid 1", false);
	taken("fd 7", true);
	taken("stack 1", true);
	taken("stack 0", false);
	taken("program redis-server", true);
	taken("program redis", false);
	taken("program redis*", true);
	taken("program != redis*", false);
	refused("pid x", "pid: \"x\" is no number from 0 to 2147483647");
	refused("stack 16", "stack: \"16\" is no number from 0 to 15");
	refused("program aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	        "program: a name of more than 63 bytes");
}

static void a_socket_without_owner_or_peer_matches_no_term_on_them(void **state)
{
	struct row r = row_make();

	(void)state;
	r.owner = UINT32_MAX;
	r.fd = -1;
	r.remote.family = 0;
	assert_int_equal(parse("pid 4711"), 0);
	assert_false(filter_row(&filter, &r));
	assert_int_equal(parse("pid != 4711"), 0);
	assert_false(filter_row(&filter, &r));
	assert_int_equal(parse("fd != 9"), 0);
	assert_false(filter_row(&filter, &r));
	assert_int_equal(parse("dst != 1.2.3.4"), 0);
	assert_false(filter_row(&filter, &r));
	assert_int_equal(parse("dport 40000"), 0);
	assert_false(filter_row(&filter, &r));
}

static void all_terms_must_hold(void **state)
{
	(void)state;
	taken("state established sport 6379 pid 4711", true);
	taken("state established and sport 6379 and pid 4711", true);
	taken("state established && pid 4712", false);
	refused("state established or pid 1", "there is no \"or\"");
	refused("( state established )", "no parentheses");
	refused("and pid 1", "stands between two terms");
	refused("pid 1 and and pid 2", "stands between two terms");
	refused("pid 1 and", "a term is missing behind \"and\"");
	refused("colour red", "unknown filter \"colour\" (known: state, sport, dport, src, dst, pid, fd,");
	refused("= 1", "unknown filter \"=\"");
}

static void bounds_of_a_filter(void **state)
{
	char text[2048] = "";

	(void)state;
	for (int i = 0; i < FILTER_TERM_MAX; i++)
		strcat(text, "fd 7 ");
	taken(text, true);
	strcat(text, "fd 7");
	refused(text, "more than 24 terms");
	memset(text, 'x', sizeof(text) - 1);
	refused(text, "the filter is longer than 1023 bytes");
}

static void sockets_of_the_kernel_know_owner_only(void **state)
{
	struct kernel_row k = {.pid = 5, .fd = 3, .program = "curl"};

	(void)state;
	assert_int_equal(parse("pid 5 program curl fd 3"), 0);
	assert_true(filter_kernel_row(&filter, &k));
	assert_int_equal(parse("pid 6"), 0);
	assert_false(filter_kernel_row(&filter, &k));
	assert_int_equal(parse("pid 5 sport 80"), 0);
	assert_false(filter_kernel_row(&filter, &k));
}

static void spans_read_well(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} spans[] = {{-5, "0ms"}, {0, "0ms"}, {999, "999ms"}, {1000, "1.0s"}, {59999, "59.9s"},
	        {60000, "1min"}, {7199999, "119min"}, {172799999, "2879min"}, {172800000, "2days"}};
	char text[24];

	(void)state;
	for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
		span_text(spans[i].ms, text, sizeof(text));
		assert_string_equal(text, spans[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(no_words_take_everything),
	        cmocka_unit_test(states_by_any_spelling),
	        cmocka_unit_test(ports_compare),
	        cmocka_unit_test(addresses_by_prefix),
	        cmocka_unit_test(owners),
	        cmocka_unit_test(a_socket_without_owner_or_peer_matches_no_term_on_them),
	        cmocka_unit_test(all_terms_must_hold),
	        cmocka_unit_test(bounds_of_a_filter),
	        cmocka_unit_test(sockets_of_the_kernel_know_owner_only),
	        cmocka_unit_test(spans_read_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
