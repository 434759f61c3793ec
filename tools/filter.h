/* filter.h - which sockets to show, in words: `state established dport = 6379 program redis-server`. */
#pragma once
#include "rows.h"

enum { FILTER_TERM_MAX = 24, FILTER_TEXT_SIZE = 1024, FILTER_PROGRAM_SIZE = 64 };

enum filter_kind {
	FILTER_STATE,
	FILTER_SPORT,
	FILTER_DPORT,
	FILTER_SRC,
	FILTER_DST,
	FILTER_PID,
	FILTER_FD,
	FILTER_PROGRAM,
	FILTER_STACK,
	FILTER_KIND_COUNT
};

enum filter_op { FILTER_EQ, FILTER_NE, FILTER_LT, FILTER_LE, FILTER_GT, FILTER_GE };

/* All of them must hold. */
struct filter {
	uint32_t count;
	struct filter_term {
		enum filter_kind kind;
		enum filter_op op;
		const char *state;
		char program[FILTER_PROGRAM_SIZE]; /* name, or pattern as of glob(7) */
		int64_t number;
		struct sock_addr addr;
		uint32_t prefix; /* bits */
	} term[FILTER_TERM_MAX];
};

/* Takes the words of the command line, one or several terms in each. 0, or -EINVAL with what is wrong and
 * what would be right in err. */
int filter_parse(struct filter *f, const char *const *words, int count, char *err, size_t err_size);

bool filter_row(const struct filter *f, const struct row *r);
/* A socket of the kernel has no address, state or stack that we know of: terms on those never hold. */
bool filter_kernel_row(const struct filter *f, const struct kernel_row *r);
