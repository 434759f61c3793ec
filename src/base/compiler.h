/* compiler.h - the few compiler hints the sources share. No code, no thread rules. */
#pragma once

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#define PRONK_CACHE_LINE 64
#define CACHE_ALIGNED __attribute__((aligned(PRONK_CACHE_LINE)))
#define PRINTF_LIKE(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))
#define UNUSED __attribute__((unused))
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
