/* fixture.h - a machine in a folder: what /sys, /proc and /dev would say, made by the test. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "machine.h"

struct fixture {
	char root[64];
	struct machine m;
	struct cfg cfg;
	struct report r;
};

/* An ordinary machine with two cores, run by root: nothing is wrong with it. A cmocka setup, and its
 * teardown. */
int fixture_up(void **state);
int fixture_down(void **state);

/* Makes a file, with the folders above it; a link; takes one away. */
void put(struct fixture *f, const char *path, const char *text);
void link_to(struct fixture *f, const char *path, const char *target);
void drop(struct fixture *f, const char *path);
/* What a file holds, or NULL; valid until the next call. */
const char *text_at(struct fixture *f, const char *path);

#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_up, fixture_down)
