/* show_wait.c - `pronkctl interrupts`: how each stack waits when it has nothing to do, and what wakes it.
 * From shared memory alone.
 */
#include "sample.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rows.h"

static const char *const counted[] = {"sleeps", "naps", "wakes_port", "wakes_request", "wakes_timer",
        "doorbells", "wakeups_sent", "rx_polls", "rx_empty_polls"};
enum { COUNTED = sizeof(counted) / sizeof(counted[0]) };

static uint64_t counter(const struct stat_view *view, uint32_t stack, uint32_t i)
{
	int idx = stat_view_find(view, counted[i]);

	return idx < 0 ? 0 : stat_view_value(view, stack, (uint32_t)idx);
}

/* What a descriptor of the service is, as far as we may look. */
static void fd_text(int32_t pid, int32_t fd, char *buf, size_t size)
{
	char path[48];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	n = readlink(path, buf, size - 1);
	buf[n > 0 ? n : 0] = 0;
}

static const char *how(const struct arena_header *h, const struct stack_report *r)
{
	return !r->wait_fd_count ? "nap"
	       : h->is_inline    ? "descriptor, by the application's threads"
	                         : "descriptor";
}

static void fds_show(const struct arena_header *h, const struct stack_report *r, bool json)
{
	char text[128];

	for (uint32_t i = 0; i < r->wait_fd_count; i++) {
		fd_text(h->service_pid, r->wait_fd[i], text, sizeof(text));
		if (json) {
			printf("%s{\"fd\": %d, \"is\": ", i ? ", " : "", r->wait_fd[i]);
			json_text(stdout, text);
			printf("}");
		} else {
			printf("%s%d%s%s%s", i ? ", " : "", r->wait_fd[i], text[0] ? " (" : "", text,
			        text[0] ? ")" : "");
		}
	}
}

static void stack_table(
        const struct attach *at, const struct stat_view *view, uint32_t i, const struct stack_report *r)
{
	const struct arena_header *h = at->arena.hdr;

	printf("stack %u: ", i);
	if (r->core >= 0)
		printf("thread %d on core %d, ", r->tid, r->core);
	else
		printf("last run by thread %d, ", r->tid);
	printf("%s now\n", atomic_load(&at->arena.stacks[i].is_idle) ? "asleep" : "awake");
	printf("  sleeps by          %s", how(h, r));
	if (!r->wait_fd_count)
		printf(", %u us next", r->nap_us);
	printf("\n  waits for          event descriptor %d", r->event_fd);
	if (r->wait_fd_count)
		printf("; port's ");
	fds_show(h, r, false);
	printf("\n  spins before       %u us, applications %u us%s\n", r->spin_us, h->app_spin_us,
	        r->is_spin_off ? "; not at present: others want its core" : "");
	for (uint32_t k = 0; k < COUNTED; k++)
		printf("  %-18s %" PRIu64 "\n", counted[k], counter(view, i, k));
}

static void stack_json(const struct attach *at, const struct stat_view *view, uint32_t i,
        const struct stack_report *r, const char *before)
{
	const struct arena_header *h = at->arena.hdr;

	printf("%s    {\"stack\": %u, \"tid\": %d, ", before, i, r->tid);
	printf(r->core >= 0 ? "\"core\": %d" : "\"core\": null", r->core);
	printf(", \"asleep\": %s, \"sleeps_by\": \"%s\", \"nap_us\": %u, \"event_fd\": %d, \"port_fds\": [",
	        atomic_load(&at->arena.stacks[i].is_idle) ? "true" : "false",
	        r->wait_fd_count ? "descriptor" : "nap", r->nap_us, r->event_fd);
	fds_show(h, r, true);
	printf("], \"stack_spin_us\": %u, \"app_spin_us\": %u, \"spin_off\": %s", r->spin_us, h->app_spin_us,
	        r->is_spin_off ? "true" : "false");
	for (uint32_t k = 0; k < COUNTED; k++)
		printf(", \"%s\": %" PRIu64, counted[k], counter(view, i, k));
	printf("}");
}

int show_interrupts(const struct attach *at, const struct show *show)
{
	struct stack_report *report = malloc(sizeof(*report));
	struct source src;
	int rc = report ? source_open(&src, at) : -ENOMEM;

	if (rc) {
		free(report);
		return rc;
	}
	if (show->json)
		printf("{\n  \"mode\": \"%s\",\n  \"stacks\": [",
		        at->arena.hdr->is_inline ? "inline" : "dedicated");
	for (uint32_t i = 0; i < at->arena.stack_count; i++) {
		if (!report_read(&at->arena.reports[i], report))
			fprintf(stderr, "pronkctl: interrupts: stack %u was stopped while it wrote this\n",
			        i);
		if (show->json)
			stack_json(at, &src.view, i, report, i ? ",\n" : "\n");
		else
			stack_table(at, &src.view, i, report);
	}
	if (show->json)
		printf("\n  ]\n}\n");
	source_close(&src);
	free(report);
	return 0;
}
