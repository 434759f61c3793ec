/* systemd.h - the service manager's journal and its readiness protocol, for the service.
 *
 * libsystemd is loaded when one of the two is wanted, not linked: most services run without, and a program
 * under the preload library must not get it. Where it is missing, everything works as without systemd.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

/* Makes systemd_journal_send possible. Control thread; reads files the first time. 0, -ENOENT when no journal
 * runs here, or -ELIBACC when libsystemd cannot be had. */
int systemd_journal_open(void);

/* Sends one entry: fields as "NAME=value", as sd_journal_sendv(3) takes them. After systemd_journal_open, any
 * thread; blocks as sendmsg(2) to the journal does. 0 or -E. */
int systemd_journal_send(const struct iovec *fields, int count);

/* Whether standard error leads to the journal already ($JOURNAL_STREAM): then its own protocol tells more. */
bool systemd_is_stderr_journal(void);

/* Tells the service manager, if one wants to know ($NOTIFY_SOCKET): "READY=1", "STOPPING=1", "STATUS=...",
 * sd_notify(3). Control thread. 0 also when nobody wants to know; -ELIBACC when libsystemd cannot be had, or
 * -E. */
int systemd_notify(const char *state);
