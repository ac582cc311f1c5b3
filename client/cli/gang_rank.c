/* gang_rank: see gang.h. A launch whose answer was lost is sent again with the same
 * token: the agent starts no second job for it, but answers with the first. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/gang.h"
#include "client/lib/clock.h"
#include "client/lib/dial.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

#define REST_US     INT64_C(500000) /* a node that is not ready yet */
#define REST_MIN_US INT64_C(200000) /* a lost connection, doubling */
#define REST_MAX_US INT64_C(3000000)

void gang_rank_init(struct gang_rank *r, struct gang *g, int rank, const char *node)
{
    *r = (struct gang_rank){.g = g,
                            .rank = rank,
                            .node = node,
                            .out_fd = -1,
                            .err_fd = -1,
                            .state = GANG_RESTING,
                            .give_up_us = clock_boot_us() + RUN_READY_WAIT_US};
    r->run = (struct run){.c = g->c,
                          .reservation = g->reservation,
                          .key = g->key,
                          .start_us = g->start_us};
    snprintf(r->label, sizeof(r->label), "[%d] ", rank);
    run_link_init(&r->run.link);
}

void gang_rank_done(struct gang_rank *r)
{
    run_link_close(&r->run.link);
    free(r->run.token);
    free(r->run.audience);
    free(r->run.address);
    free(r->run.job);
    json_decref(r->body);
    strbuf_done(&r->out.part);
    strbuf_done(&r->err.part);
    if (r->out_fd >= 0)
        close(r->out_fd);
    if (r->err_fd >= 0)
        close(r->err_fd);
}

static void end(struct gang_rank *r, int status, const char *reason)
{
    run_link_close(&r->run.link);
    r->state = GANG_ENDED;
    r->status = status;
    gang_ended(r->g, r, reason);
}

void gang_rank_drop(struct gang_rank *r, int status)
{
    if (r->state != GANG_ENDED)
        end(r, status, NULL);
}

static void rest(struct gang_rank *r, int64_t now_us, int64_t delay_us)
{
    run_link_close(&r->run.link);
    r->state = GANG_RESTING;
    r->wake_us = now_us + delay_us;
}

/* Before the job was known: the node may not be ready, or not reachable for a moment.
 */
static void launch_failed(struct gang_rank *r, const struct run_refusal *refusal,
                          const struct err *err, int64_t now_us)
{
    bool again = refusal->error[0] != '\0'
                     ? run_is_not_ready(&r->run, refusal)
                     : err->code == ERR_UNREACHABLE || err->code == ERR_TIMEOUT;
    if (again && now_us < r->give_up_us && (r->g->ending == 0 || r->asked)) {
        rest(r, now_us, REST_US);
        return;
    }
    if (r->g->ending == 0)
        cli_note("rank %d (%s): %s", r->rank, r->node, err->text);
    end(r,
        r->asked && refusal->error[0] == '\0' ? err_exit_status(ERR_UNKNOWN)
                                              : cli_exit_status(err->code),
        NULL);
}

/* The job runs on; so long as it may be found again, it is looked for. */
static void link_lost(struct gang_rank *r, const struct run_refusal *refusal,
                      const struct err *err, int64_t now_us)
{
    bool was_streaming = r->state == GANG_STREAMING;
    bool gone = refusal->error[0] != '\0' &&
                (err->code == ERR_NOT_FOUND || err->code == ERR_CONFLICT ||
                 (err->code == ERR_FORBIDDEN && r->fresh));
    if (was_streaming) {
        cli_note("rank %d (%s): %s; connecting again", r->rank, r->node, err->text);
        r->give_up_us = now_us + RUN_LOST_WAIT_US;
        r->delay_us = REST_MIN_US;
        r->fresh = false;
    }
    if (gone || now_us >= r->give_up_us) {
        cli_note("rank %d (%s): %s; its job %s may run on", r->rank, r->node, err->text,
                 r->run.job);
        end(r, err_exit_status(ERR_UNKNOWN), NULL);
        return;
    }
    rest(r, now_us, r->delay_us);
    r->delay_us = r->delay_us * 2 > REST_MAX_US ? REST_MAX_US : r->delay_us * 2;
}

static void trouble(struct gang_rank *r, const struct run_refusal *refusal,
                    const struct err *err, int64_t now_us)
{
    if (r->run.job == NULL)
        launch_failed(r, refusal, err, now_us);
    else
        link_lost(r, refusal, err, now_us);
}

/* ---- the phases ------------------------------------------------------------------ */

static int connect_now(struct gang_rank *r, int64_t now_us, struct err *err)
{
    bool stale = r->run.expires_us < clock_now_us() + RUN_TOKEN_MARGIN_US;
    /* The agent may have come back at another address: the second try takes what the
     * server knows, if it can be asked; the old token is good for a while. */
    if (r->run.job != NULL && (stale || r->delay_us > 2 * REST_MIN_US)) {
        r->fresh = gang_refresh(r, err) == 0;
        if (stale && !r->fresh)
            return -1;
    }
    r->state = GANG_CONNECTING;
    r->deadline_us = now_us + (int64_t)DIAL_TIMEOUT_MS * 1000;
    return run_link_start(&r->run.link, r->run.address, err);
}

static int greet(struct gang_rank *r, const struct frame *f,
                 struct run_refusal *refusal, int64_t now_us, struct err *err)
{
    json_t *hello = NULL, *where = NULL;
    bool attach = r->run.job != NULL;
    int rc = run_take_answer(f, 'n', &hello, refusal, err);
    if (rc == 0)
        rc = run_check_greeting(&r->run, hello, r->nonce, err);
    if (attach)
        where = json_pack("{s:s, s:I}", "job", r->run.job, "offset",
                          (json_int_t)r->run.offset);
    if (rc == 0)
        rc = run_put_request(&r->run, attach ? RUN_ATTACH : RUN_LAUNCH,
                             attach ? where : r->body, attach ? NULL : r->g->argv,
                             r->nonce, err);
    if (rc == 0) {
        r->asked = r->asked || !attach;
        r->state = GANG_ANSWER;
        r->deadline_us = now_us + (int64_t)RUN_ANSWER_TIMEOUT_MS * 1000;
    }
    json_decref(hello);
    json_decref(where);
    return rc;
}

static int take_answer(struct gang_rank *r, const struct frame *f,
                       struct run_refusal *refusal, struct err *err)
{
    json_t *reply = NULL;
    if (run_take_answer(f, 'r', &reply, refusal, err) < 0)
        return -1;
    const char *job = json_string_value(json_object_get(reply, "job"));
    const json_t *offset = json_object_get(reply, "offset");
    if (r->run.job == NULL) {
        r->run.job = xstrdup(job != NULL ? job : "");
        r->run.launched = true;
    }
    if (json_is_integer(offset)) {
        if (json_integer_value(offset) > r->run.offset && r->run.offset > 0)
            cli_note("rank %d: %" PRId64 " bytes of output are no longer kept", r->rank,
                     (int64_t)json_integer_value(offset) - r->run.offset);
        r->run.offset = json_integer_value(offset);
    }
    json_decref(reply);
    r->state = GANG_STREAMING;
    r->fed_end = false;
    if (r->g->ending != 0) /* decided while it was being started, or away */
        gang_rank_signal(r, r->g->ending);
    return 0;
}

static int take_stream(struct gang_rank *r, const struct frame *f, struct err *err)
{
    json_t *v;
    switch (f->type) {
    case 'o':
    case 'e':
        gang_output(r->g, r, f->type == 'e', f->data, f->len);
        r->run.offset += (int64_t)f->len + FRAME_HEAD_LEN;
        return 0;
    case 'x': {
        v = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, NULL);
        char reason[32];
        const char *text = json_string_value(json_object_get(v, "reason"));
        snprintf(reason, sizeof(reason), "%s", text != NULL ? text : "exited");
        int status = run_end_status(v);
        json_decref(v);
        end(r, status, reason);
        return 0;
    }
    case 'E':
        v = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, NULL);
        err_set(err, ERR_UNREACHABLE, "the agent ended the connection: %s",
                json_string_value(json_object_get(v, "detail")) != NULL
                    ? json_string_value(json_object_get(v, "detail"))
                    : "no reason");
        json_decref(v);
        return -1;
    default: return 0; /* of a later version */
    }
}

static int take_frames(struct gang_rank *r, struct run_refusal *refusal, int64_t now_us,
                       struct err *err)
{
    struct frame f;
    int rc = 0;
    while (r->state != GANG_ENDED &&
           (r->state != GANG_STREAMING || gang_has_room(r->g)) &&
           (rc = frame_next(&r->run.link.in, &f, err)) == 1) {
        if (r->state == GANG_GREETING)
            rc = greet(r, &f, refusal, now_us, err);
        else if (r->state == GANG_ANSWER)
            rc = take_answer(r, &f, refusal, err);
        else
            rc = take_stream(r, &f, err);
        if (rc < 0)
            return -1;
    }
    return rc < 0 ? -1 : 0;
}

/* ---- what the loop calls --------------------------------------------------------- */

int gang_rank_poll(const struct gang_rank *r, bool room, short *ret_events)
{
    const struct run_link *l = &r->run.link;
    if (r->state == GANG_RESTING || r->state == GANG_ENDED)
        return -1;
    *ret_events = r->state == GANG_CONNECTING ? l->want : run_link_events(l, room);
    return l->eof ? -1 : l->fd;
}

static int step(struct gang_rank *r, short revents, bool room,
                struct run_refusal *refusal, struct err *err)
{
    struct run_link *l = &r->run.link;
    int64_t now_us = clock_boot_us();
    int rc = 0;
    if (r->state == GANG_CONNECTING && revents != 0) {
        rc = run_link_step(l, r->run.address, r->run.c->account.ca_path,
                           r->run.audience, err);
        if (rc == 1)
            r->state = GANG_GREETING;
        return rc < 0 ? -1 : 0;
    }
    if (r->state != GANG_STREAMING && now_us >= r->deadline_us)
        return err_set(err, ERR_TIMEOUT, "the agent did not answer in time");
    if (r->state == GANG_CONNECTING)
        return 0;
    if (revents != 0 || run_link_queued(l) > 0)
        rc = run_link_pump(l, room, err);
    struct err lost = *err;
    /* Whole frames that arrived before the loss count. */
    if (take_frames(r, refusal, now_us, err) < 0)
        return -1;
    if (r->state == GANG_ENDED)
        return 0;
    if (rc < 0)
        *err = lost;
    else if (l->eof && gang_has_room(r->g))
        rc = err_set(err, ERR_UNREACHABLE, "the agent closed the connection");
    return rc;
}

void gang_rank_turn(struct gang_rank *r, short revents, bool room, int64_t now_us)
{
    struct run_refusal refusal = {"", ""};
    struct err err = {ERR_NONE, ""};
    int rc = 0;
    if (r->state == GANG_ENDED || (r->state == GANG_RESTING && now_us < r->wake_us))
        return;
    if (r->state == GANG_RESTING) {
        if (r->g->ending != 0 && r->run.job == NULL && !r->asked) {
            end(r, err_exit_status(ERR_INTERNAL), NULL);
            return;
        }
        rc = connect_now(r, now_us, &err);
    } else {
        rc = step(r, revents, room, &refusal, &err);
    }
    if (rc < 0)
        trouble(r, &refusal, &err, now_us);
}

int64_t gang_rank_due(const struct gang_rank *r)
{
    switch (r->state) {
    case GANG_RESTING: return r->wake_us;
    case GANG_CONNECTING:
    case GANG_GREETING:
    case GANG_ANSWER: return r->deadline_us;
    default: return INT64_MAX;
    }
}

int64_t gang_rank_renew_us(const struct gang_rank *r)
{
    return r->state == GANG_STREAMING ? r->run.renew_us : INT64_MAX;
}

void gang_rank_signal(struct gang_rank *r, int signo)
{
    char text[16];
    int len = snprintf(text, sizeof(text), "%d", signo);
    if (r->state == GANG_STREAMING)
        run_link_send(&r->run.link, 's', text, (size_t)len);
}
