/* loop: a flow runner on a libevent base.
 *
 * Turns run from a timer event, never from the call that made a flow ready: with a zero
 * timeout it fires once per turn of the event loop, after the ready file descriptors of
 * that turn were served, so that all results that arrived together are drained before
 * the flows that wait for them run, and so that busy flows never starve the sockets. */
#ifndef NEARGPU_FLOW_LOOP_H
#define NEARGPU_FLOW_LOOP_H
#include <event2/event.h>

#include "server/flow/flow.h"

struct flow_loop;

struct flow_loop *flow_loop_new(struct event_base *base);
void flow_loop_free(struct flow_loop *l); /* after the runner; NULL is fine */
/* For flow_runner_opts: .kick = flow_loop_kick, .kick_arg = the loop. */
void flow_loop_kick(void *loop);
/* Once, before the loop runs. */
void flow_loop_bind(struct flow_loop *l, struct flow_runner *runner);

#endif
