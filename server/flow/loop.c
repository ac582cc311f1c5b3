/* loop: see the header. Deadlines of flows are realtime, libevent's timers monotonic:
 * the timer is therefore armed for at most RECHECK_US, so that a clock that was set
 * forward delays no deadline for longer than that. */
#include "server/flow/loop.h"

#include <assert.h>
#include <stdlib.h>

#include "client/lib/clock.h"
#include "client/lib/xalloc.h"

#define RECHECK_US INT64_C(2000000)

struct flow_loop {
    struct event *timer;
    struct flow_runner *runner;
};

static void loop_fired(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct flow_loop *l = arg;
    flow_runner_turn(l->runner, clock_now_us()); /* ends with a kick if there is more */
}

struct flow_loop *flow_loop_new(struct event_base *base)
{
    struct flow_loop *l = xcalloc(1, sizeof(*l));
    l->timer = event_new(base, -1, 0, loop_fired, l);
    assert(l->timer != NULL);
    return l;
}

void flow_loop_free(struct flow_loop *l)
{
    if (l == NULL)
        return;
    event_free(l->timer);
    free(l);
}

void flow_loop_kick(void *loop)
{
    struct flow_loop *l = loop;
    if (l->runner == NULL)
        return;
    int64_t next = flow_runner_next_us(l->runner);
    int64_t wait = 0;
    if (next != INT64_MIN) {
        wait = next - clock_now_us();
        if (wait < 0)
            wait = 0;
        if (wait > RECHECK_US)
            wait = RECHECK_US;
    }
    struct timeval tv = {.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};
    (void)event_add(l->timer, &tv);
}

void flow_loop_bind(struct flow_loop *l, struct flow_runner *runner)
{
    l->runner = runner;
    flow_loop_kick(l);
}
