/* command.c - what a tool has the running service do: the words of `pronkctl COMMAND`, found in one table.
 *
 * Control thread (inline: the background thread), which must not block: a command reads what may be read
 * from there, or leaves a value where the stacks find it (engine_post_all). Whoever
 * may attach may look; only root and the service's own user may change anything. What can be read from shared
 * memory alone is not here: pronkctl shows it also while the service is stopped.
 */
#include "engine_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "command.h"
#include "log.h"
#include "report_cmd.h"

LOG_MODULE("engine");

/* --- reset --- */

static int command_reset(struct engine *e, const struct command_words *w, FILE *out)
{
	int rc;

	if (w->count != 2 || strcmp(w->word[1], "peaks") != 0) {
		fprintf(out, "reset takes the word peaks: counters are never set back");
		return -EINVAL;
	}
	rc = engine_post_all(e, stack_peaks_reset, 0, NULL, NULL);
	if (rc)
		fprintf(out, "out of memory");
	else
		log_notice("peaks and lows begin anew, by user %u", w->uid);
	if (!rc && w->json)
		fprintf(out, "{\"reset\": \"peaks\"}\n");
	return rc;
}

/* --- the table --- */

static const struct {
	const char *name;
	bool is_change; /* whatever its words are; else it asks command_may for those that change something */
	int (*run)(struct engine *e, const struct command_words *w, FILE *out);
} commands[] = {
        {"reset", true, command_reset},
        {"inject", false, command_inject},
        {"latency", true, command_latency},
        {"set", true, command_set},
        {"nic", false, report_nic},
};

int command_may(const struct command_words *w, FILE *out)
{
	if (w->uid == 0 || w->uid == geteuid())
		return 0;
	fprintf(out, "only root and user %u, who runs the service, may do that", geteuid());
	return -EPERM;
}

static int command_run(struct engine *e, const struct command_words *w, FILE *out)
{
	if (!w->count) {
		fprintf(out, "no command");
		return -EINVAL;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(w->word[0], commands[i].name) != 0)
			continue;
		return commands[i].is_change && command_may(w, out) ? -EPERM : commands[i].run(e, w, out);
	}
	fprintf(out, "the service knows no command \"%.32s\"", w->word[0]);
	return -ENOTSUP;
}

int engine_command(void *engine, uint32_t uid, const char *words, bool json, char *buf, size_t size)
{
	struct command_words w = {.uid = uid, .json = json};
	char text[CTL_WORDS_MAX + 1], *save = NULL;
	FILE *out;
	long n;
	int rc;

	snprintf(text, sizeof(text), "%s", words);
	for (char *word = strtok_r(text, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
		if (w.count == COMMAND_WORD_MAX) {
			snprintf(buf, size, "more than %d words", COMMAND_WORD_MAX);
			return -E2BIG;
		}
		w.word[w.count++] = word;
	}
	out = fmemopen(buf, size, "w");
	if (!out)
		return -errno;
	rc = command_run(engine, &w, out);
	if (fflush(out) && !rc)
		rc = -ENOSPC;
	n = ftell(out);
	fclose(out);
	buf[size - 1] = 0;
	return rc ? rc : n >= (long)size ? -ENOSPC : (int)n;
}
