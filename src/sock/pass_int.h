/* pass_int.h - what messages (pass.c) and exec (pass_exec.c) share: how a socket is written down, and
 * tickets. Application threads, also in the child of a fork before its exec.
 */
#pragma once
#include "pass.h"
#include "service.h"

enum { PASS_ENTRIES_MAX = 65536 };
_Static_assert((int)PASS_TICKETS == (int)SERVICE_MAX, "a ticket at each");

/* What one number is. Handles are those of the process that wrote it: who reads them has its own services. */
struct pass_entry {
	int32_t fd;
	int32_t same_as; /* an earlier entry that is the same file, or -1 */
	struct file file;
	uint32_t also[SERVICE_MAX]; /* further endpoints, as struct file_also has them */
};

/* In front of the entries. */
struct pass_head {
	uint64_t magic;
	uint32_t arena_version, entry_size;
	uint32_t count;
};

struct pass_head pass_head_make(uint32_t count);
bool pass_head_is_good(const struct pass_head *h);
void pass_entry_fill(struct pass_entry *e, const struct file *f);

/* A slot as for a forked child, that nobody will name but us. -1 when all are taken. */
int pass_slot_prepare(const struct service *s, enum ticket_kind kind);

/* A ticket for the sockets whose bits the caller has set in the slot; it takes the slot back when that fails.
 * A descriptor or -E. Blocks for the service's answer. */
int pass_ticket_open(struct service *s, uint32_t slot, int kernel_fd);

/* This process holds the endpoint. */
void pass_hold_own(uint32_t handle);

/* Makes the number the socket that the saved file describes, with this endpoint. NULL: there is no such
 * endpoint, or no memory. With the ticket still open. */
struct file *pass_entry_take(const struct file *saved, uint32_t ep, int fd);
