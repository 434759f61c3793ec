/* command_latency.c - `pronkctl latency on`, `off` and `reset`. What was counted pronkctl reads by itself.
 *
 * Control thread. Stacks are told first, so that when programs begin to follow what they write, somebody
 * takes note of it; what is under way at a change is forgotten with the marks.
 */
#include "engine_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "clock.h"
#include "command.h"
#include "latency.h"
#include "log.h"

LOG_MODULE("engine");

static void restart(struct engine *e)
{
	latency_clear(&e->arena);
	atomic_store(&e->arena.hdr->latency_since_ns, clock_wall_ns());
}

/* What holds now, whether or not it was changed. */
static int done(const struct engine *e, const struct command_words *w, FILE *out)
{
	if (w->json)
		fprintf(out, "{\"is_on\": %s, \"since_ns\": %" PRIu64 "}\n", e->is_timed ? "true" : "false",
		        (uint64_t)atomic_load(&e->arena.hdr->latency_since_ns));
	return 0;
}

int command_latency(struct engine *e, const struct command_words *w, FILE *out)
{
	const char *word = w->count == 2 ? w->word[1] : "";
	bool on;

	if (!strcmp(word, "reset")) {
		restart(e);
		return done(e, w, out);
	}
	on = !strcmp(word, "on");
	if (!on && strcmp(word, "off") != 0) {
		fprintf(out, "one word is expected (allowed: on, off, reset)");
		return -EINVAL;
	}
	if (on == e->is_timed)
		return done(e, w, out);
	if (engine_post_all(e, stack_latency, on, NULL, NULL)) {
		fprintf(out, "no memory: nothing was changed");
		return -ENOMEM;
	}
	if (on)
		restart(e);
	e->is_timed = on;
	atomic_store(&e->arena.hdr->latency, on);
	log_notice("latency %s, by user %u", word, w->uid);
	return done(e, w, out);
}
