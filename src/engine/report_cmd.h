/* report_cmd.h - the commands of report.c, for the table in command.c. */
#pragma once
#include <stdio.h>

struct engine;
struct command_words;

/* The port: link, driver, offloads, queues, RSS, memory, the driver's statistics. Control thread. */
int report_nic(struct engine *e, const struct command_words *w, FILE *file);
