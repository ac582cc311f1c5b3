/* The server's own work: booked paths are lit in time and released after their end.
 * Level-triggered: the database says what is not yet as it shall be, and keeps each of
 * them for this server for a while, so that several servers do not ask for one thing at
 * the same time and one that dies delays it no longer than that.
 *
 *   ask      what is to be done; nothing: the end
 *   hooks    have the operator do it (pathhook.h), as many at a time as may run
 *   write    each answer as it comes; a failure stays due, and is asked again
 *   written  the next answer, or the end */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/pathhook.h"

/* Claims last this much longer than a hook may run; a failed one is then due again. */
#define CLAIM_MARGIN_S 5
/* Claims that this server can serve before they run out. */
#define AT_ONCE PATHHOOK_RUNNING_MAX

enum due_state { DUE_RUNS, DUE_ANSWERED, DUE_WRITTEN };
struct due_job {
    int64_t id;
    enum due_state state;
    bool light, good;
    char path[NAME_BYTES_MAX + 1];
    char words[ERR_TEXT_MAX];
};
struct paths_due {
    struct db_slot db;
    struct due_job jobs[AT_ONCE];
    size_t count, writing;
};

static enum flow_turn due_hooks(struct flow *f);
static enum flow_turn due_write(struct flow *f);

static enum flow_turn due_ask(struct flow *f)
{
    const struct world *w = world_of(f);
    int64_t room =
        w->path_hook == NULL ? AT_ONCE : (int64_t)pathhook_room(w->path_hook);
    if (room == 0)
        return FLOW_DONE;
    int64_t claim_s = w->path_hook_limit_us / US_PER_S + CLAIM_MARGIN_S;
    return db_call(f, STORE_PATHS_DUE,
                   STORE_ARGS(S_INT(f->now_us), S_INT(claim_s), S_INT(room)));
}

/* ---- the operator's turn ---- */

static void answered(struct due_job *j, const struct err *err)
{
    j->state = DUE_ANSWERED;
    j->good = err == NULL;
    if (err == NULL)
        return;
    size_t len = strnlen(err->text, sizeof(j->words) - 1);
    memcpy(j->words, err->text, len);
    j->words[len] = '\0';
    log_warn("path %s cannot be %s: %s", j->path, j->light ? "lit" : "released",
             err->text);
}

struct hook_answer {
    int64_t id;
    const struct err *err;
};

static void give(void *arg, struct flow *f)
{
    const struct hook_answer *a = arg;
    struct paths_due *s = f->state;
    for (size_t i = 0; i < s->count; i++)
        if (s->jobs[i].id == a->id && s->jobs[i].state == DUE_RUNS) {
            answered(&s->jobs[i], a->err);
            flow_wake(f->runner, f->id);
        }
}

/* Several of these flows may have hooks that run; one that ended: its claim runs out.
 */
static void on_hook(void *runner, uint64_t id, const struct err *err)
{
    struct hook_answer a = {(int64_t)id, err};
    flow_runner_each(runner, &flow_paths_due, give, &a);
}

static const char *text_of(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

/* What the operator is told (docs/administrators.md). */
static char *job_text(const json_t *due)
{
    static const char *const same[] = {
        "id",    "action", "path",     "from",          "to",          "provider",
        "first", "lanes",  "lane_Bps", "bandwidth_Bps", "reservation", "tenant"};
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        json_object_set(out, same[i], json_object_get(due, same[i]));
    json_object_set_new(out, "start", jsonx_time(int_of(due, "from_us")));
    json_object_set_new(out, "end", jsonx_time(int_of(due, "to_us")));
    char *text = jsonx_dump(out);
    json_decref(out);
    return text;
}

static void start_job(struct world *w, struct due_job *j, const json_t *due)
{
    const char *path = text_of(due, "path"), *action = text_of(due, "action");
    size_t len = strnlen(path, NAME_BYTES_MAX);
    struct err err;
    j->id = int_of(due, "id");
    j->light = strcmp(action, "light") == 0;
    memcpy(j->path, path, len);
    if (w->path_hook == NULL) { /* lit by themselves */
        answered(j, NULL);
        return;
    }
    char *text = job_text(due);
    struct pathhook_job job = {action,  j->path,   text,
                               on_hook, w->runner, (uint64_t)j->id};
    if (pathhook_start(w->path_hook, &job, &err) != 0)
        answered(j, &err);
    else
        log_info("path %s: %s for reservation %s", path, action,
                 text_of(due, "reservation"));
    free(text);
}

static enum flow_turn due_hooks(struct flow *f)
{
    struct paths_due *s = f->state;
    const json_t *due;
    size_t i;
    world_of(f)->paths_flow = 0; /* the next tick may ask for more */
    if (db_failed(f))
        return FLOW_DONE;
    json_array_foreach(json_object_get(s->db.json, "due"), i, due)
    {
        if (s->count == AT_ONCE)
            break;
        start_job(world_of(f), &s->jobs[s->count++], due);
    }
    return flow_goto(f, due_write);
}

/* ---- what came of it ---- */

static enum flow_turn due_write(struct flow *f)
{
    struct paths_due *s = f->state;
    bool runs = false;
    for (s->writing = 0; s->writing < s->count; s->writing++) {
        const struct due_job *j = &s->jobs[s->writing];
        runs = runs || j->state == DUE_RUNS;
        if (j->state != DUE_ANSWERED)
            continue;
        return db_call(f, STORE_PATH_SET,
                       STORE_ARGS(S_INT(j->id),
                                  !j->good   ? S_NULL
                                  : j->light ? S_TEXT("lit")
                                             : S_TEXT("released"),
                                  j->good ? S_NULL : S_TEXT(j->words),
                                  S_INT(f->now_us)));
    }
    return runs ? FLOW_AGAIN : FLOW_DONE;
}

static enum flow_turn due_written(struct flow *f)
{
    struct paths_due *s = f->state;
    if (!s->db.answered) /* a hook's end woke us: it is not its turn yet */
        return FLOW_AGAIN;
    s->jobs[s->writing].state = DUE_WRITTEN; /* or due again when its claim runs out */
    return flow_goto(f, due_write);
}

static void due_done(struct flow *f)
{
    if (world_of(f)->paths_flow == f->id)
        world_of(f)->paths_flow = 0;
    db_done(f);
}

static const struct flow_step due_steps[] = {{"ask", due_ask},
                                             {"hooks", due_hooks},
                                             {"write", due_write},
                                             {"written", due_written}};
const struct flow_kind flow_paths_due =
    FLOW_KIND_DONE("flow_paths_due", struct paths_due, due_steps, due_done);
