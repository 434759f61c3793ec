/* pattern.c - the bytes that both sides send and check, shared by the programs and the peer.
 *
 * A byte follows from its position, so a lost, doubled or misplaced byte shows. No state; any thread.
 */
#include "bsd.h"

void pattern_fill(void *buf, size_t from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((uint8_t *)buf)[i] = pattern(from + i);
}

bool pattern_ok(const void *buf, size_t from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (((const uint8_t *)buf)[i] != pattern(from + i))
			return false;
	return true;
}
