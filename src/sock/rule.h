/* rule.h - what the configuration's rules say of this process's sockets (option rules).
 *
 * Any thread. The configuration is read at the first question; nothing is joined or started for it, so that a
 * program whose sockets are all the kernel's leaves no trace at the service.
 */
#pragma once
#include <stdbool.h>

#include "cfg_rules.h"
#include "layout.h"

/* NULL when Pronk may serve a socket of this role at this address (rules.def says whose), else the reason why
 * the kernel does, which lives as long as the process. Blocks the first time. */
const char *rule_of(enum cfg_role role, const struct sock_addr *a);

/* The same where the address is not known yet: a reason only if no socket of these roles (bits 1 << enum
 * cfg_role) can be Pronk's, at whatever address. */
const char *rule_of_all(unsigned roles);

/* Of proc.c, when the configuration has been read and before any question: finds out who this process is, and
 * the users that rules name. cfg is proc.cfg. With the lock of proc.c. */
struct cfg;
void rule_prepare(struct cfg *cfg);
