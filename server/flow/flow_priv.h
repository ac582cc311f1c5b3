/* flow_priv: what flow.c (the runner) and reply.c (requests and replies) share. */
#ifndef NEARGPU_FLOW_PRIV_H
#define NEARGPU_FLOW_PRIV_H
#include "client/lib/strbuf.h"
#include "server/flow/flow.h"
#include "server/flow/ids.h"

/* The place of a flow. READY flows are in the runner's queue, and only they are. */
enum cell_place { CELL_READY, CELL_RUNNING, CELL_ASLEEP, CELL_ENDED };

#define CELL_NOT_IN_HEAP SIZE_MAX

/* The reply being made. Allocated with the first header or the reply itself: most of a
 * server's flows are long polls that have none yet. */
struct flow_draft {
    int status; /* 0: none yet */
    char content_type[64];
    char *body; /* heap */
    size_t body_len;
    struct flow_pair headers[FLOW_HEADERS_MAX];
    size_t header_count;
    const char *fail_as; /* of flow_fail_as(), or NULL */
    json_t *details;     /* members for a problem body, or NULL */
};

struct flow_cell {
    struct flow pub; /* first: a struct flow * of a step is a struct flow_cell * */
    struct flow_request *rq;
    enum cell_place place;
    size_t step, next;
    bool woken;     /* a wake came while it ran */
    bool orphan;    /* the asker is gone */
    bool abandoned; /* orphan, and its kind ends then */
    bool streaming;
    uint64_t to;
    int64_t deadline_us;
    size_t heap_at;
    struct flow_cell *next_ready; /* or the next to reap */
    struct flow_draft *draft;
};

struct flow_runner {
    struct flow_runner_opts opts;
    const struct flow_sink *sink;
    struct ids ids;
    struct flow_cell *ready_head, **ready_tail;
    size_t ready_count;
    struct flow_cell *reap;
    struct flow_cell **heap; /* earliest deadline first */
    size_t heap_count, heap_cap;
    bool turning;
    bool ending; /* being freed: nothing wakes any more */
    struct flow_stats stats;
};

static inline struct flow_cell *cell_of(struct flow *f)
{
    return (struct flow_cell *)f;
}

/* Sends the draft, or 500 when there is none, to the sink. */
void flow_draft_send(struct flow_cell *c);
void flow_draft_free(struct flow_draft *d);
/* Tells on_internal. */
void flow_report_internal(struct flow_cell *c, const char *text);

#endif
