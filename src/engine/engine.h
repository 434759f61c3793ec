/* engine.h - the service as one object: port, shared memory, stack threads and control server, started in
 * order and stopped in reverse.
 *
 * Used by pronkd's main thread only, except where a function says otherwise.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfg;
struct engine;

/* Starts everything cfg asks for and returns when the service is ready and listens. Blocks for seconds (the
 * port, pages). The calling thread should have the signals blocked that it wants to take itself: threads of
 * the driver library inherit its mask. 0 and *out; -EALREADY when a service of that name runs; or another -E.
 * err has one line then, and everything is given back. */
int engine_start(struct engine **out, const struct cfg *cfg, char *err, size_t err_size);

/* Stops and frees everything: no new clients, connections are reset, threads end, the port closes, clients
 * see the service go. Blocks until the threads have ended. Accepts NULL. */
void engine_stop(struct engine *e);

/* A descriptor that is readable when engine_serve has something to do; constant. */
int engine_fd(const struct engine *e);

/* Serves the control socket; does not block. 0, or -EIO when a stack thread has ended by itself: the service
 * is then of no more use. */
int engine_serve(struct engine *e);

/* Takes no more clients; those that are attached stay. */
void engine_close(struct engine *e);

/* Writes what the stacks have counted to the log: nobody can ask them any more. */
void engine_counted(const struct engine *e);

/* The calling process is a copy of the one that has started the engine, and goes on with it: tools and that
 * one see it as the service from now on. Whether the calling process is the one they see. */
void engine_owner_changed(struct engine *e);
bool engine_is_mine(const struct engine *e);

/* The stacks will never do anything again, and may be anywhere in their work: tells every client that the
 * service has ended, and frees nothing. */
void engine_hang_up(struct engine *e);

/* The configuration in force; pronkctl set changes it in engine_serve. */
const struct cfg *engine_cfg(const struct engine *e);

/* Processes that are attached or still being cleaned up after. */
uint32_t engine_client_count(const struct engine *e);

/* The statistics segment, for whoever only reads it; constant until engine_stop. Any thread. */
const void *engine_stats(const struct engine *e, size_t *size);

/* One line on what runs: device, address, stacks, memory, socket. */
void engine_describe(const struct engine *e, char *buf, size_t size);
