/* filter.c - parses and applies the filter words of `pronkctl sockets`. Pure. */
#include "filter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parser {
	struct filter *f;
	char text[FILTER_TEXT_SIZE];
	const char *next; /* what is not read yet */
	char token[FILTER_TEXT_SIZE];
	char *err;
	size_t err_size;
};

static const struct {
	const char *name;
	const char *what; /* is missing behind it */
} kinds[FILTER_KIND_COUNT] = {
        [FILTER_STATE] = {"state", "a state"},
        [FILTER_SPORT] = {"sport", "a port"},
        [FILTER_DPORT] = {"dport", "a port"},
        [FILTER_SRC] = {"src", "an address"},
        [FILTER_DST] = {"dst", "an address"},
        [FILTER_PID] = {"pid", "a process id"},
        [FILTER_FD] = {"fd", "a descriptor"},
        [FILTER_PROGRAM] = {"program", "a program's name"},
        [FILTER_STACK] = {"stack", "a stack's number"},
};

#define BAD(p, ...) (snprintf((p)->err, (p)->err_size, __VA_ARGS__), -EINVAL)

/* The next word, or the next run of operator characters. False at the end. */
static bool token_take(struct parser *p)
{
	size_t size;

	p->next += strspn(p->next, " \t\n");
	size = strspn(p->next, "=!<>");
	if (!size)
		size = strcspn(p->next, " \t\n=!<>");
	snprintf(p->token, sizeof(p->token), "%.*s", (int)size, p->next);
	p->next += size;
	return size > 0;
}

/* An operator may stand there; none means "=". */
static int op_take(struct parser *p, enum filter_kind kind, enum filter_op *op)
{
	static const struct {
		const char *text;
		enum filter_op op;
	} ops[] = {{"=", FILTER_EQ}, {"==", FILTER_EQ}, {"!=", FILTER_NE}, {"<", FILTER_LT},
	        {"<=", FILTER_LE}, {">", FILTER_GT}, {">=", FILTER_GE}};

	*op = FILTER_EQ;
	p->next += strspn(p->next, " \t\n");
	if (!strspn(p->next, "=!<>"))
		return 0;
	token_take(p);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (strcmp(p->token, ops[i].text) != 0)
			continue;
		*op = ops[i].op;
		if (*op > FILTER_NE && kind != FILTER_SPORT && kind != FILTER_DPORT)
			return BAD(p, "%s: \"%s\" is for ports only (here: = or !=)", kinds[kind].name,
			        p->token);
		return 0;
	}
	return BAD(p, "%s: unknown operator \"%s\" (known: = == != < <= > >=)", kinds[kind].name, p->token);
}

static int number_parse(struct parser *p, struct filter_term *t, int64_t max)
{
	const char *text = p->token;
	char *end;

	errno = 0;
	t->number = strtoll(text, &end, 10);
	if (errno == 0 && end != text && !*end && text[0] != '+' && t->number >= 0 && t->number <= max)
		return 0;
	return BAD(p, "%s: \"%s\" is no number from 0 to %lld", kinds[t->kind].name, text, (long long)max);
}

/* 6379, :6379, or a name of services(5) */
static int port_parse(struct parser *p, struct filter_term *t)
{
	const struct servent *service;

	if (p->token[0] == ':')
		memmove(p->token, p->token + 1, strlen(p->token));
	service = strspn(p->token, "-0123456789") == strlen(p->token) ? NULL : getservbyname(p->token, NULL);
	if (service) {
		t->number = ntohs((uint16_t)service->s_port);
		return 0;
	}
	return number_parse(p, t, UINT16_MAX);
}

/* ADDRESS[/PREFIX] */
static int addr_parse(struct parser *p, struct filter_term *t)
{
	const char *name = kinds[t->kind].name;
	char *slash = strchr(p->token, '/'), *end;
	unsigned long prefix, most;

	if (slash)
		*slash = 0;
	t->addr.family = strchr(p->token, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(t->addr.family, p->token, t->addr.ip) != 1)
		return BAD(p, "%s: \"%s\" is no IPv4 or IPv6 address", name, p->token);
	most = t->addr.family == AF_INET6 ? 128 : 32;
	prefix = most;
	if (slash) {
		prefix = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end || prefix > most)
			return BAD(p, "%s: prefix length \"%s\" is no number from 0 to %lu", name, slash + 1,
			        most);
	}
	t->prefix = (uint32_t)prefix;
	return 0;
}

/* Without regard to case; '-' is '_', and none of them need be there. */
static bool state_is(const char *a, const char *b)
{
	for (;; a++, b++) {
		while (*a == '-' || *a == '_')
			a++;
		while (*b == '-' || *b == '_')
			b++;
		if ((*a | 0x20) != (*b | 0x20) || !*a || !*b)
			return !*a && !*b;
	}
}

static const struct {
	const char *name, *means;
} aliases[] = {{"listening", "LISTEN"}, {"syn-recv", "SYN_RCVD"}, {"close", "CLOSED"}, {"unconn", "UDP"}};

static int state_parse(struct parser *p, struct filter_term *t)
{
	char known[256] = "connected";
	size_t used = strlen(known);
	const char *name;

	for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
		if (state_is(p->token, aliases[i].name))
			t->state = aliases[i].means;
	if (state_is(p->token, "connected"))
		t->state = "connected";
	for (uint32_t i = 0; (name = state_name_at(i)); i++) {
		if (state_is(p->token, name))
			t->state = name;
		used += (size_t)snprintf(known + used, sizeof(known) - used, ", %s", name);
	}
	return t->state ? 0 : BAD(p, "state: unknown \"%.32s\" (known: %s)", p->token, known);
}

static int value_parse(struct parser *p, struct filter_term *t)
{
	switch (t->kind) {
	case FILTER_STATE:
		return state_parse(p, t);
	case FILTER_SPORT:
	case FILTER_DPORT:
		return port_parse(p, t);
	case FILTER_SRC:
	case FILTER_DST:
		return addr_parse(p, t);
	case FILTER_PROGRAM:
		if (strlen(p->token) >= sizeof(t->program))
			return BAD(p, "program: a name of more than %zu bytes", sizeof(t->program) - 1);
		strcpy(t->program, p->token);
		return 0;
	case FILTER_STACK:
		return number_parse(p, t, ARENA_STACK_MAX - 1);
	default:
		return number_parse(p, t, INT32_MAX);
	}
}

static int term_parse(struct parser *p)
{
	struct filter_term *t;
	int rc;

	if (p->f->count == FILTER_TERM_MAX)
		return BAD(p, "more than %d terms", FILTER_TERM_MAX);
	t = &p->f->term[p->f->count];
	*t = (struct filter_term){.kind = FILTER_KIND_COUNT};
	for (int i = 0; i < FILTER_KIND_COUNT; i++)
		if (!strcmp(p->token, kinds[i].name))
			t->kind = (enum filter_kind)i;
	if (!strcmp(p->token, "or") || strpbrk(p->token, "()|"))
		return BAD(p,
		        "\"%.32s\": all terms must hold; there is no \"or\" and there are no parentheses",
		        p->token);
	if (t->kind == FILTER_KIND_COUNT)
		return BAD(p,
		        "unknown filter \"%.32s\" (known: state, sport, dport, src, dst, pid, fd, program, "
		        "stack)",
		        p->token);
	rc = op_take(p, t->kind, &t->op);
	if (rc)
		return rc;
	if (!token_take(p))
		return BAD(p, "%s: %s is missing", kinds[t->kind].name, kinds[t->kind].what);
	rc = value_parse(p, t);
	p->f->count += rc == 0;
	return rc;
}

int filter_parse(struct filter *f, const char *const *words, int count, char *err, size_t err_size)
{
	struct parser p = {.f = f, .next = p.text, .err = err, .err_size = err_size};
	size_t used = 0;
	bool has_and = false;
	int rc = 0;

	f->count = 0;
	for (int i = 0; i < count && used < sizeof(p.text); i++)
		used += (size_t)snprintf(p.text + used, sizeof(p.text) - used, "%s ", words[i]);
	if (used >= sizeof(p.text))
		return BAD(&p, "the filter is longer than %zu bytes", sizeof(p.text) - 1);
	while (!rc && token_take(&p)) {
		if (!strcmp(p.token, "and") || !strcmp(p.token, "&&")) {
			if (has_and || !f->count)
				return BAD(&p, "\"%s\" stands between two terms", p.token);
			has_and = true;
			continue;
		}
		has_and = false;
		rc = term_parse(&p);
	}
	if (!rc && has_and)
		return BAD(&p, "a term is missing behind \"and\"");
	return rc;
}

/* --- applying --- */

static bool compare(enum filter_op op, int64_t a, int64_t b)
{
	switch (op) {
	case FILTER_EQ:
		return a == b;
	case FILTER_NE:
		return a != b;
	case FILTER_LT:
		return a < b;
	case FILTER_LE:
		return a <= b;
	case FILTER_GT:
		return a > b;
	default:
		return a >= b;
	}
}

static bool port_holds(const struct filter_term *t, const struct sock_addr *a)
{
	return a->family && compare(t->op, a->port, t->number);
}

static bool addr_holds(const struct filter_term *t, const struct sock_addr *a)
{
	uint32_t whole = t->prefix / 8, rest = t->prefix % 8;
	bool is_in = a->family == t->addr.family && !memcmp(a->ip, t->addr.ip, whole) &&
	             (!rest || !((a->ip[whole] ^ t->addr.ip[whole]) >> (8 - rest)));

	return a->family && is_in == (t->op == FILTER_EQ);
}

static bool program_holds(const struct filter_term *t, const char *program)
{
	return (fnmatch(t->program, program, 0) == 0) == (t->op == FILTER_EQ);
}

static bool state_holds(const struct filter_term *t, const struct row *r)
{
	const char *name = row_state_name(r);
	bool is_it = !strcmp(t->state, "connected") ? row_is_conn(r) : !strcmp(t->state, name);

	return is_it == (t->op == FILTER_EQ);
}

static bool term_holds(const struct filter_term *t, const struct row *r)
{
	switch (t->kind) {
	case FILTER_STATE:
		return state_holds(t, r);
	case FILTER_SPORT:
		return port_holds(t, &r->local);
	case FILTER_DPORT:
		return port_holds(t, &r->remote);
	case FILTER_SRC:
		return addr_holds(t, &r->local);
	case FILTER_DST:
		return addr_holds(t, &r->remote);
	case FILTER_PID:
		return r->owner != UINT32_MAX && compare(t->op, r->pid, t->number);
	case FILTER_FD:
		return r->fd >= 0 && compare(t->op, r->fd, t->number);
	case FILTER_PROGRAM:
		return program_holds(t, r->program);
	default:
		return compare(t->op, r->stack, t->number);
	}
}

bool filter_row(const struct filter *f, const struct row *r)
{
	for (uint32_t i = 0; i < f->count; i++)
		if (!term_holds(&f->term[i], r))
			return false;
	return true;
}

bool filter_kernel_row(const struct filter *f, const struct kernel_row *r)
{
	for (uint32_t i = 0; i < f->count; i++) {
		const struct filter_term *t = &f->term[i];

		if (t->kind == FILTER_PID      ? !compare(t->op, r->pid, t->number)
		        : t->kind == FILTER_FD ? !compare(t->op, r->fd, t->number)
		                               : t->kind != FILTER_PROGRAM || !program_holds(t, r->program))
			return false;
	}
	return true;
}
