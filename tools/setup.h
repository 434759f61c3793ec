/* setup.h - what the files of `pronk setup` share: the plan, the written configuration, and the record of
 * what was changed. One process, one thread. */
#pragma once
#include "machine.h"

struct setup_state;

enum { LINE_SIZE = 512, STACKS_USUAL = 4 };

/* What setup will do, found out before anything is done. */
struct plan {
	/* asked for */
	const char *device, *out, *profile, *driver, *address, *state_dir;
	long pages; /* -1: not asked for; -2: as many as the configuration needs */
	bool force, dry_run;

	enum cfg_device kind;
	char name[128]; /* interface, PCI address, socket path */
	char text[160]; /* option device */
	char why[LINE_SIZE];
	bool has_address; /* own is what the port gets; else the kernel interface's is taken (auto) */
	struct iface_addr own;
	bool has_gateway;
	uint8_t gateway[4];
	uint32_t mtu; /* to be written; 0: the device's */
	int node, queues;
	uint32_t stacks;
	uint16_t cores[STACKS_USUAL];
	uint32_t core_count;
	bool has_iface; /* the kernel has an interface for it now */
	struct iface iface;
	char pages_path[128];
	char config[8192]; /* the file's text */
};

/* --- setup_plan.c --- */
/* Fills in the plan from the device that was asked for. Changes nothing. 0, or -E with a line in err. */
int plan_make(struct plan *p, struct machine *m, char *err, size_t err_size);

/* --- setup_state.c: every change is noted before it is made --- */

/* Opens the record that belongs to a configuration file, and keeps others from it. NULL with err. */
struct setup_state *state_open(const char *dir, const char *config, char *err, size_t err_size);
void state_close(struct setup_state *s);
bool state_is_empty(const struct setup_state *s);
/* Each does one thing, unless it is so already: notes what was there before, then changes it. 0, or -E with
 * err: then it is as before. */
int state_file(
        struct setup_state *s, const char *path, const char *text, bool force, char *err, size_t err_size);
int state_pages(struct setup_state *s, const struct machine *m, const char *path, long count, char *err,
        size_t err_size);
int state_module(
        struct setup_state *s, const struct machine *m, const char *name, char *err, size_t err_size);
int state_bind(struct setup_state *s, const struct machine *m, const char *device, const char *driver,
        const struct iface *iface, char *err, size_t err_size);
/* Takes back what was done since the record was opened (a setup that failed half-way): to what was found
 * then, whatever the record says of earlier runs. How many could not be taken back, each with a line on out.
 */
int state_roll_back(struct setup_state *s, const struct machine *m, FILE *out);
/* Takes everything back, the newest first; tells each step on out. How many could not be taken back. */
int state_undo(struct setup_state *s, const struct machine *m, bool force, FILE *out);

/* --- pronk_setup.c --- */
/* Does what the plan says, or nothing; what went wrong is told on stderr. 0 or -E. */
int setup_apply(const struct plan *p, const struct machine *m);
