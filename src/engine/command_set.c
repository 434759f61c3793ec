/* command_set.c - `pronkctl set`: options that may change while the service runs.
 *
 * Control thread. The whole configuration is checked with the change in it, and memory for every stack is
 * there, before anything changes. Stacks get a copy by message; programs look into the arena; what concerns
 * neither is looked up in the engine's configuration each time (the service's end, its log).
 */
#include "engine_int.h"

#include <errno.h>
#include <stdlib.h>

#include "command.h"
#include "log.h"

LOG_MODULE("engine");

static void show(const struct cfg *before, const struct cfg *now, const char *key, FILE *out)
{
	enum option_id id = (enum option_id)cfg_option_find(key); /* it was just changed, so there is one */

	fprintf(out, "{\"option\": \"%s\", \"value\": ", key);
	cfg_value_print(now, id, out);
	fprintf(out, ", \"before\": ");
	cfg_value_print(before, id, out);
	fprintf(out, ", \"holds\": \"%s\"}\n", cfg_option_live(id));
}

int command_set(struct engine *e, const struct command_words *w, FILE *out)
{
	void *copy[ARENA_STACK_MAX] = {NULL};
	struct cfg next = e->cfg;
	char err[512] = "";
	int rc;

	if (w->count != 3) {
		fprintf(out, "an option and its value are expected");
		return -EINVAL;
	}
	rc = cfg_set_text(&next, w->word[1], w->word[2], err, sizeof(err));
	if (rc) {
		fprintf(out, "%s", err);
		return rc;
	}
	for (uint32_t i = 0; i < e->stack_count && !rc; i++) {
		struct cfg *c = malloc(sizeof(*c));

		rc = c ? 0 : -ENOMEM;
		if (c)
			*c = next;
		copy[i] = c;
	}
	if (!rc)
		rc = engine_post_each(e, stack_configure, copy);
	if (rc) {
		for (uint32_t i = 0; i < e->stack_count; i++)
			free(copy[i]);
		fprintf(out, "no memory: nothing was changed");
		return rc;
	}
	if (w->json)
		show(&e->cfg, &next, w->word[1], out);
	e->cfg = next;
	engine_publish(e);
	log_level_set((enum log_level)next.log_level);
	log_notice("%s = %s, by user %u", w->word[1], w->word[2], w->uid);
	return 0;
}
