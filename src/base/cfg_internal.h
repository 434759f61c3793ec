/* cfg_internal.h - shared by cfg_load.c and cfg_check.c only: how a reason for a refusal is written. */
#pragma once
#include "cfg.h"
#include "compiler.h"

/* Writes where option id got its value, its key, and the formatted reason into err. Always returns -EINVAL.
 * Pure. */
int cfg_refuse(const struct cfg *cfg, enum option_id id, char *err, size_t err_size, const char *fmt, ...)
        PRINTF_LIKE(5, 6);
