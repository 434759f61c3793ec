/* cc.h - what lwIP asks of the compiler and the platform. Included by every lwIP source before its options.
 *
 * Nothing here prints, blocks or aborts: a failed lwIP assertion is counted by the stack and the code goes
 * on.
 */
#pragma once
#include <endian.h>
#include <stdint.h>

/* Storage class of state that every stack has for itself. lwIP's own variables get the same from the build.
 */
#if PRONK_LWIP_INLINE
#define LWIP_PER_STACK
#else
#define LWIP_PER_STACK __thread
#endif

/* A failed assertion of lwIP. Counts it and asks for the connection at hand to be closed; returns, always.
 * Stack thread; never blocks. Implemented by the stack. */
void stack_lwip_assert(const char *message, int line, const char *file);

/* 32 unpredictable bits. Stack thread; never blocks. Implemented by the stack. */
uint32_t stack_rand(void);

#define LWIP_PLATFORM_ASSERT(message) stack_lwip_assert(message, __LINE__, __FILE__)
#define LWIP_PLATFORM_DIAG(arguments)                                                                        \
	do {                                                                                                 \
	} while (0)
#define LWIP_RAND() stack_rand()

/* Keep the libc names htons and friends out of lwIP's headers; its own names become single instructions. */
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS 1
#if BYTE_ORDER == LITTLE_ENDIAN
#define lwip_htons(x) ((u16_t)__builtin_bswap16((u16_t)(x)))
#define lwip_htonl(x) ((u32_t)__builtin_bswap32((u32_t)(x)))
#endif
