/* fan_out.c - work that every stack has to do, begun by one of them.
 *
 * The messages for all stacks and for the way home lie in one piece of memory that is taken at the start: a
 * fan-out that has begun comes to its end. Each stack runs `each`; who is last sends the fan-out home, where
 * `done` runs and owns it. A stack posts to itself, too, so that nothing runs inside its caller. Messages of
 * one stack keep their order, hence two fan-outs of one home come to every stack in the order in which they
 * began.
 */
#include "stack_int.h"

#include <stdlib.h>

struct fan_out *fan_out_new(struct stack *s, uint32_t ep, uint32_t client, uint32_t call_idx)
{
	struct fan_out *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->home = s;
	f->ep = ep;
	f->client = client;
	f->call_idx = call_idx;
	f->client_gen = atomic_load(&arena_client(s->arena, client)->gen);
	return f;
}

static void home_msg(struct stack *s, struct stack_msg *m)
{
	struct fan_out *f = m->ptr;

	f->done(s, f);
}

static void each_msg(struct stack *s, struct stack_msg *m)
{
	struct fan_out *f = m->ptr;
	int rc = f->each(s, f), none = 0;

	if (rc)
		atomic_compare_exchange_strong(&f->result, &none, rc);
	if (atomic_fetch_sub(&f->left, 1) != 1)
		return;
	m = &f->msg[ARENA_STACK_MAX];
	*m = (struct stack_msg){.fn = home_msg, .ptr = f};
	stack_post(f->home, m);
}

static void start(struct fan_out *f, uint32_t first, uint32_t count,
        int (*each)(struct stack *, struct fan_out *), void (*done)(struct stack *, struct fan_out *))
{
	struct stack **peers = f->home->peers;

	f->each = each;
	f->done = done;
	atomic_store(&f->result, 0);
	atomic_store(&f->left, count);
	for (uint32_t k = first; k < first + count; k++) {
		f->msg[k] = (struct stack_msg){.fn = each_msg, .ptr = f};
		stack_post(peers[k], &f->msg[k]);
	}
}

void fan_out_all(struct stack *s, struct fan_out *f, int (*each)(struct stack *, struct fan_out *),
        void (*done)(struct stack *, struct fan_out *))
{
	start(f, 0, s->count, each, done);
}

void fan_out_one(struct stack *s, struct fan_out *f, uint32_t k,
        int (*each)(struct stack *, struct fan_out *), void (*done)(struct stack *, struct fan_out *))
{
	(void)s;
	start(f, k, 1, each, done);
}

void fan_out_answer(struct stack *s, const struct fan_out *f, int result)
{
	struct client *client = arena_client(s->arena, f->client);
	uint32_t state = atomic_load(&client->call[f->call_idx].state);

	/* a dead client has lost its holds in this thread before its slots can be anybody else's */
	if (atomic_load(&client->gen) != f->client_gen || !hold_test(s->arena, f->client, f->ep) ||
	        (state != CALL_POSTED && state != CALL_AWAITED))
		return;
	call_answer(s, f->client, f->call_idx, result, f->ep);
}
