/* The flow runner: order of steps, sleeping and waking, deadlines, ends. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/flow/flow.h"
#include "server/flow/ids.h"

static char trace[4096];
static int done_count, kicks;
static char last_reply[4096];
static int last_status;

static void note(const char *s)
{
    size_t at = strlen(trace);
    ck_assert_uint_lt(at + strlen(s) + 2, sizeof(trace));
    snprintf(trace + at, sizeof(trace) - at, "%s%s", at > 0 ? " " : "", s);
}

static void on_step(void *arg, const struct flow *f, const char *step)
{
    (void)arg;
    (void)f;
    note(step);
}

static void on_kick(void *arg)
{
    (void)arg;
    kicks++;
}

static void sink_reply(void *env, uint64_t to, const struct flow_reply *reply)
{
    (void)env;
    ck_assert_uint_ne(to, 0);
    ck_assert_uint_lt(reply->body_len, sizeof(last_reply));
    memcpy(last_reply, reply->body, reply->body_len);
    last_reply[reply->body_len] = '\0';
    last_status = reply->status;
}

static int streamed;
static void sink_begin(void *env, uint64_t to, const struct flow_reply *head)
{
    (void)env;
    (void)to;
    last_status = head->status;
}

static int sink_write(void *env, uint64_t to, const void *data, size_t len)
{
    (void)env;
    (void)to;
    (void)data;
    streamed += (int)len;
    return streamed > 100 ? -1 : 0;
}

static void sink_end(void *env, uint64_t to)
{
    (void)env;
    (void)to;
    note("stream-end");
}

static const struct flow_sink sink = {
    .reply = sink_reply,
    .stream_begin = sink_begin,
    .stream_write = sink_write,
    .stream_end = sink_end,
};

static char internal_text[200];
static void on_internal(void *arg, const struct flow *f, const char *text)
{
    (void)arg;
    (void)f;
    snprintf(internal_text, sizeof(internal_text), "%s", text);
}

static struct flow_runner *runner_new(size_t max_live)
{
    struct flow_runner_opts opts = {
        .sink = &sink,
        .max_live = max_live,
        .kick = on_kick,
        .on_step = on_step,
        .on_internal = on_internal,
    };
    trace[0] = last_reply[0] = internal_text[0] = '\0';
    done_count = kicks = last_status = streamed = 0;
    return flow_runner_new(&opts);
}

static uint64_t begin(struct flow_runner *r, const struct flow_kind *kind)
{
    struct err err;
    uint64_t id = flow_start(r, kind, flow_request_new(), 7, 1000, &err);
    ck_assert_uint_ne(id, 0);
    return id;
}

struct state {
    int rounds;
    struct flow_runner *self_wake;
};

static enum flow_turn step_more(struct flow *f)
{
    struct state *s = f->state;
    s->rounds++;
    return FLOW_MORE;
}

static enum flow_turn step_wait(struct flow *f)
{
    (void)f;
    return FLOW_WAIT;
}

static enum flow_turn step_again3(struct flow *f)
{
    struct state *s = f->state;
    return ++s->rounds < 3 ? FLOW_AGAIN : FLOW_MORE;
}

static enum flow_turn step_wake_self(struct flow *f)
{
    flow_wake(f->runner, f->id); /* the answer came at once */
    return FLOW_WAIT;
}

static enum flow_turn step_reply(struct flow *f)
{
    return flow_reply_json(f, 200, json_pack("{s:i}", "ok", 1));
}

static enum flow_turn step_loop(struct flow *f)
{
    struct state *s = f->state;
    if (++s->rounds < 5)
        return flow_goto(f, step_loop);
    return FLOW_MORE;
}

static enum flow_turn step_spin(struct flow *f)
{
    return flow_goto(f, step_spin);
}

static void done(struct flow *f)
{
    (void)f;
    done_count++;
    note("done");
}

static const struct flow_step wait_steps[] = {
    {"a", step_more}, {"b", step_wait}, {"c", step_reply}};
static const struct flow_kind wait_kind =
    FLOW_KIND_DONE("wait", struct state, wait_steps, done);
static const struct flow_kind poll_kind =
    FLOW_KIND_POLL("poll", struct state, wait_steps, done);
static const struct flow_step again_steps[] = {{"again", step_again3},
                                               {"reply", step_reply}};
static const struct flow_kind again_kind =
    FLOW_KIND_DONE("again", struct state, again_steps, done);
static const struct flow_step self_steps[] = {{"self", step_wake_self},
                                              {"after", step_reply}};
static const struct flow_kind self_kind = FLOW_KIND("self", struct state, self_steps);
static const struct flow_step loop_steps[] = {{"loop", step_loop}, {"r", step_reply}};
static const struct flow_kind loop_kind = FLOW_KIND("loop", struct state, loop_steps);
static const struct flow_step spin_steps[] = {{"s", step_spin}};
static const struct flow_kind spin_kind =
    FLOW_KIND_DONE("spin", struct state, spin_steps, done);
static const struct flow_step mute_steps[] = {{"mute", step_more}};
static const struct flow_kind mute_kind = FLOW_KIND("mute", struct state, mute_steps);

START_TEST(test_wait_resumes_at_next_step)
{
    struct flow_runner *r = runner_new(0);
    uint64_t id = begin(r, &wait_kind);
    ck_assert_str_eq(trace, ""); /* nothing runs inside flow_start */
    ck_assert_int_eq(kicks, 1);
    flow_runner_turn(r, 2000);
    ck_assert_str_eq(trace, "a b");
    flow_runner_turn(r, 3000);
    ck_assert_str_eq(trace, "a b");
    flow_wake(r, id);
    flow_wake(r, id); /* merges */
    ck_assert_str_eq(trace, "a b");
    flow_runner_turn(r, 4000);
    ck_assert_str_eq(trace, "a b c reply done");
    ck_assert_str_eq(last_reply, "{\"ok\":1}");
    ck_assert_int_eq(done_count, 1);
    ck_assert_ptr_null(flow_find(r, id));
    flow_wake(r, id); /* late: nothing */
    flow_abandon(r, id);
    flow_runner_turn(r, 5000);
    ck_assert_int_eq(done_count, 1);
    flow_runner_free(r);
}
END_TEST

START_TEST(test_again_runs_the_same_step)
{
    struct flow_runner *r = runner_new(0);
    uint64_t id = begin(r, &again_kind);
    for (int i = 0; i < 3; i++) {
        flow_runner_turn(r, 2000 + i);
        flow_wake(r, id);
    }
    ck_assert_str_eq(trace, "again again again reply reply done");
    flow_runner_free(r);
}
END_TEST

START_TEST(test_wake_during_the_step_is_kept)
{
    struct flow_runner *r = runner_new(0);
    begin(r, &self_kind);
    flow_runner_turn(r, 2000);
    ck_assert_str_eq(trace, "self after reply");
    flow_runner_free(r);
}
END_TEST

START_TEST(test_goto_loops)
{
    struct flow_runner *r = runner_new(0);
    begin(r, &loop_kind);
    flow_runner_turn(r, 2000);
    ck_assert_str_eq(trace, "loop loop loop loop loop r reply");
    flow_runner_free(r);
}
END_TEST

START_TEST(test_a_spinning_flow_yields)
{
    struct flow_runner *r = runner_new(0);
    begin(r, &spin_kind);
    begin(r, &self_kind);
    trace[0] = '\0';
    kicks = 0;
    flow_runner_turn(r, 2000);
    struct flow_stats st;
    flow_runner_stats(r, &st);
    ck_assert_uint_eq(st.live, 1);
    ck_assert_uint_eq(st.steps, FLOW_STEPS_A_TURN + 2);
    ck_assert_int_eq(kicks, 1); /* there is more: asks to be called again */
    ck_assert_int_eq(flow_runner_next_us(r), INT64_MIN);
    flow_runner_free(r);
    ck_assert_int_eq(done_count, 1);
}
END_TEST

START_TEST(test_orphans_run_on_polls_end)
{
    struct flow_runner *r = runner_new(0);
    uint64_t kept = begin(r, &wait_kind), poll = begin(r, &poll_kind);
    flow_runner_turn(r, 2000);
    trace[0] = '\0';
    flow_abandon(r, kept);
    flow_abandon(r, poll);
    flow_runner_turn(r, 3000);
    ck_assert_str_eq(trace, "done"); /* the poll only */
    ck_assert_ptr_null(flow_find(r, poll));
    ck_assert(flow_is_orphan(flow_find(r, kept)));
    flow_wake(r, kept);
    flow_runner_turn(r, 4000);
    ck_assert_str_eq(trace, "done c reply done");
    ck_assert_int_eq(last_status, 0); /* the reply was dropped */
    flow_runner_free(r);
}
END_TEST

/* Ends by waking all others, as one does that gives something up. */
static void done_wakes_all(struct flow *f)
{
    done_count++;
    for (uint64_t slot = 0; slot < 8; slot++)
        flow_wake(f->runner, UINT64_C(1) << 32 | slot);
}

START_TEST(test_runner_ends_flows_that_wake_each_other)
{
    static const struct flow_kind kind =
        FLOW_KIND_DONE("wakes", struct state, wait_steps, done_wakes_all);
    struct flow_runner *r = runner_new(0);
    for (int i = 0; i < 8; i++)
        ck_assert_uint_eq(begin(r, &kind), UINT64_C(1) << 32 | (uint64_t)i);
    flow_runner_turn(r, 2000);
    flow_runner_free(r);
    ck_assert_int_eq(done_count, 8);
    ck_assert_ptr_null(strstr(trace, "reply"));
}
END_TEST

START_TEST(test_no_reply_is_an_internal_error)
{
    struct flow_runner *r = runner_new(0);
    begin(r, &mute_kind);
    flow_runner_turn(r, 2000);
    ck_assert_int_eq(last_status, 500);
    ck_assert_str_eq(internal_text, "the flow ended without a reply");
    ck_assert_ptr_null(strstr(last_reply, "without a reply")); /* not for the client */
    ck_assert_ptr_nonnull(strstr(last_reply, "\"code\":\"internal\""));
    flow_runner_free(r);
}
END_TEST

START_TEST(test_bound_on_live_flows)
{
    struct flow_runner *r = runner_new(2);
    struct err err;
    begin(r, &wait_kind);
    uint64_t second = begin(r, &wait_kind);
    ck_assert_uint_eq(flow_start(r, &wait_kind, flow_request_new(), 7, 1, &err), 0);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    flow_runner_turn(r, 1000);
    flow_wake(r, second);
    flow_runner_turn(r, 1000);
    uint64_t third = begin(r, &wait_kind);
    ck_assert_uint_ne(third, second); /* same slot, other generation */
    ck_assert_ptr_null(flow_find(r, second));
    flow_runner_free(r);
    ck_assert_int_eq(done_count, 3);
}
END_TEST

static enum flow_turn step_sleep(struct flow *f)
{
    struct state *s = f->state;
    char text[16];
    snprintf(text, sizeof(text), "%d", (int)f->now_us);
    note(text);
    if (s->rounds++ == 0) {
        flow_wait_until(f, f->now_us + 500);
        return FLOW_AGAIN;
    }
    return FLOW_DONE;
}
static const struct flow_step sleep_steps[] = {{"sleep", step_sleep}};
static const struct flow_kind sleep_kind =
    FLOW_KIND("sleep", struct state, sleep_steps);

START_TEST(test_deadline_wakes_once)
{
    struct flow_runner *r = runner_new(0);
    begin(r, &sleep_kind);
    flow_runner_turn(r, 1000);
    ck_assert_int_eq(flow_runner_next_us(r), 1500);
    flow_runner_turn(r, 1499);
    ck_assert_str_eq(trace, "sleep 1000");
    flow_runner_turn(r, 1500);
    ck_assert_ptr_nonnull(strstr(trace, "sleep 1500 reply"));
    ck_assert_int_eq(flow_runner_next_us(r), INT64_MAX);
    flow_runner_free(r);
}
END_TEST

/* Random deadlines, moved and removed, against the naive answer. */
#define MANY 300
struct many {
    int64_t want[MANY];
    uint64_t id[MANY];
    int fired[MANY];
};
static struct many many;

struct many_state {
    int index;
    bool begun;
};

static enum flow_turn step_many(struct flow *f)
{
    struct many_state *s = f->state;
    if (!s->begun) {
        s->begun = true;
        for (int i = 0; i < MANY; i++)
            if (many.id[i] == f->id)
                s->index = i;
        return FLOW_AGAIN;
    }
    ck_assert_int_le(many.want[s->index], f->now_us);
    many.fired[s->index]++;
    many.want[s->index] = INT64_MAX;
    return FLOW_AGAIN;
}
static const struct flow_step many_steps[] = {{"many", step_many}};
static const struct flow_kind many_kind =
    FLOW_KIND("many", struct many_state, many_steps);

START_TEST(test_random_deadlines)
{
    struct flow_runner_opts opts = {0};
    struct flow_runner *r = flow_runner_new(&opts);
    unsigned seed = 12345;
    int fired = 0, expected = 0;
    for (int i = 0; i < MANY; i++) {
        many.want[i] = INT64_MAX;
        many.id[i] = begin(r, &many_kind);
    }
    for (int64_t now = 1; now < 2000; now++) {
        flow_runner_turn(r, now);
        int64_t earliest = INT64_MAX;
        for (int i = 0; i < MANY; i++)
            ck_assert_msg(many.want[i] > now, "late: %d at %d", i, (int)now);
        for (int n = 0; n < 3; n++) {
            int i = rand_r(&seed) % MANY;
            int64_t at =
                rand_r(&seed) % 5 == 0 ? INT64_MAX : now + 1 + rand_r(&seed) % 50;
            if (many.want[i] == INT64_MAX && at != INT64_MAX)
                expected++;
            if (many.want[i] != INT64_MAX && at == INT64_MAX)
                expected--;
            many.want[i] = at;
            flow_wait_until(flow_find(r, many.id[i]), at);
        }
        for (int i = 0; i < MANY; i++)
            if (many.want[i] < earliest)
                earliest = many.want[i];
        ck_assert_int_eq(flow_runner_next_us(r), earliest);
    }
    flow_runner_turn(r, 10000);
    for (int i = 0; i < MANY; i++)
        fired += many.fired[i];
    ck_assert_int_eq(fired, expected);
    ck_assert_int_gt(fired, 1000);
    flow_runner_free(r);
}
END_TEST

static enum flow_turn step_fail(struct flow *f)
{
    struct err err;
    (void)err_set(&err, ERR_NO_FIT, "no GPU near \"genome\" within 2ms");
    flow_fail_detail(f, "why", json_pack("[s]", "rtt"));
    flow_header(f, "X-Test", "1");
    return flow_fail(f, &err);
}
static const struct flow_step fail_steps[] = {{"fail", step_fail}};
static const struct flow_kind fail_kind = FLOW_KIND("fail", struct state, fail_steps);

START_TEST(test_problem_body)
{
    struct flow_runner *r = runner_new(0);
    begin(r, &fail_kind);
    flow_runner_turn(r, 1000);
    ck_assert_int_eq(last_status, 409);
    ck_assert_str_eq(
        last_reply,
        "{\"type\":\"urn:neargpu:error:no_fit\",\"title\":\"Nothing fits\","
        "\"status\":409,\"detail\":\"no GPU near \\\"genome\\\" within 2ms\","
        "\"code\":\"no_fit\",\"why\":[\"rtt\"]}");
    flow_runner_free(r);
}
END_TEST

static enum flow_turn step_stream(struct flow *f)
{
    struct state *s = f->state;
    if (s->rounds++ == 0)
        flow_stream_begin(f, 200, "text/event-stream");
    if (flow_stream_write(f, "0123456789012345678901234567890123456789", 40) < 0)
        return FLOW_DONE;
    return FLOW_AGAIN;
}
static const struct flow_step stream_steps[] = {{"write", step_stream}};
static const struct flow_kind stream_kind =
    FLOW_KIND_POLL("stream", struct state, stream_steps, done);

START_TEST(test_stream_ends_when_the_buffer_is_full)
{
    struct flow_runner *r = runner_new(0);
    uint64_t id = begin(r, &stream_kind);
    for (int i = 0; i < 5; i++) {
        flow_runner_turn(r, 1000);
        flow_wake(r, id);
    }
    ck_assert_str_eq(trace, "write write write reply stream-end done");
    flow_runner_free(r);
}
END_TEST

START_TEST(test_query_check)
{
    static const char *const allowed[] = {"near", "gpu", NULL};
    struct flow_request *rq = flow_request_new();
    flow_request_add_query(rq, "gpu", "H100");
    flow_request_add_param(rq, "id", "x");
    struct flow f = {.rq = rq};
    struct err err;
    ck_assert_int_eq(flow_query_check(&f, allowed, &err), 0);
    ck_assert_str_eq(flow_query(&f, "gpu"), "H100");
    ck_assert_ptr_null(flow_query(&f, "near"));
    ck_assert_str_eq(flow_param(&f, "id"), "x");
    flow_request_add_query(rq, "gpus", "8");
    ck_assert_int_eq(flow_query_check(&f, allowed, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "\"gpus\""));
    flow_request_free(rq);
}
END_TEST

START_TEST(test_ids_never_come_back)
{
    struct ids t = {0};
    int thing;
    uint64_t seen[200];
    for (int i = 0; i < 200; i++) {
        seen[i] = ids_add(&t, &thing);
        ck_assert_uint_ne(seen[i], 0);
        ck_assert_ptr_eq(ids_find(&t, seen[i]), &thing);
        ids_drop(&t, seen[i]);
        for (int k = 0; k <= i; k++)
            ck_assert_ptr_null(ids_find(&t, seen[k]));
    }
    ck_assert_uint_eq(t.count, 1); /* one slot served them all */
    ck_assert_ptr_null(ids_find(&t, 0));
    ck_assert_ptr_null(ids_find(&t, UINT64_MAX));
    ids_done(&t);
}
END_TEST

UNIT_MAIN(
    "flow",
    UNIT_CASE(test_wait_resumes_at_next_step) UNIT_CASE(test_again_runs_the_same_step)
        UNIT_CASE(test_wake_during_the_step_is_kept) UNIT_CASE(test_goto_loops)
            UNIT_CASE(test_a_spinning_flow_yields)
                UNIT_CASE(test_orphans_run_on_polls_end)
                    UNIT_CASE(test_runner_ends_flows_that_wake_each_other)
                        UNIT_CASE(test_no_reply_is_an_internal_error)
                            UNIT_CASE(test_bound_on_live_flows)
                                UNIT_CASE(test_deadline_wakes_once) UNIT_CASE(
                                    test_random_deadlines) UNIT_CASE(test_problem_body)
                                    UNIT_CASE(test_stream_ends_when_the_buffer_is_full)
                                        UNIT_CASE(test_query_check)
                                            UNIT_CASE(test_ids_never_come_back))
