/* extend, shrink, move, cancel: changes of a reservation. Each is asked twice: a dry
 * run says what it would cost and with which generation, then, after a yes, the change
 * is sent with the generation that was read, so that nothing else is changed than what
 * was shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/plan_view.h"
#include "client/cli/query.h"
#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

/* PATCH, POST move or DELETE of one reservation: all may be repeated without harm. */
static int change(struct cli *c, const char *method, const char *path, json_t *body,
                  json_t **ret, struct err *err)
{
    const char *id = c->opts->args[0];
    char *self = cli_self(c);
    char *text = xasprintf("the outcome is not known: %s show %s", self, id);
    const struct cli_call call = {method, path, body, NULL};
    free(self);
    cli_unsettled(text);
    int rc = cli_call(c, &call, ret, err);
    cli_settled();
    if (rc < 0 && (err->code == ERR_UNKNOWN || err->code == ERR_TIMEOUT))
        err_set(err, ERR_UNKNOWN, "%s", text);
    free(text);
    return rc;
}

/* The same as a question: nothing is changed, so nothing can be unknown. */
static int try_change(struct cli *c, const char *path, const json_t *body, json_t **ret,
                      struct err *err)
{
    json_t *dry = json_copy((json_t *)(uintptr_t)body);
    bool move = strlen(path) > 5 && strcmp(path + strlen(path) - 5, "/move") == 0;
    const struct cli_call call = {move ? "POST" : "PATCH", path, dry, NULL};
    json_object_set_new(dry, "dry_run", json_true());
    int rc = cli_call(c, &call, ret, err);
    if (rc < 0)
        cli_harmless(err);
    json_decref(dry);
    return rc;
}

/* "for 3.98 USD more, 7.96 USD in all", "1.99 USD come back, …". */
static void add_cost(struct strbuf *q, const json_t *reply)
{
    const json_t *delta = render_at(reply, "change.delta");
    const json_t *total = render_at(reply, "change.new_total");
    const char *currency = json_string_value(json_object_get(delta, "currency"));
    int64_t micro = json_integer_value(json_object_get(delta, "micro"));
    if (currency == NULL)
        return;
    if (micro > 0) {
        strbuf_adds(q, ", for ");
        render_money(q, micro, currency);
        strbuf_adds(q, " more");
    } else if (micro < 0) {
        strbuf_adds(q, "; ");
        render_money(q, -micro, currency);
        strbuf_adds(q, " come back");
    } else {
        strbuf_adds(q, " at the same price");
    }
    if (total != NULL) {
        strbuf_adds(q, ", ");
        render_money(q, json_integer_value(json_object_get(total, "micro")), currency);
        strbuf_adds(q, " in all");
    }
}

/* Asks with what the dry run said; 1: yes. */
static int agree(struct cli *c, const char *what, const json_t *reply, struct err *err)
{
    struct strbuf q = STRBUF_INIT;
    strbuf_adds(&q, what);
    add_cost(&q, reply);
    if (c->yes && c->render.format == RENDER_TABLE)
        cli_note("%s", strbuf_str(&q));
    strbuf_addc(&q, '?');
    int rc = cli_confirm(c, strbuf_str(&q), err);
    strbuf_done(&q);
    return rc;
}

static void set_generation(json_t *body, const json_t *resv)
{
    const json_t *generation = json_object_get(resv, "generation");
    if (json_is_integer(generation))
        json_object_set(body, "generation", (json_t *)(uintptr_t)generation);
}

/* Dry run, question, change. body: what changes, with the generation. */
static int ask_and_patch(struct cli *c, const char *what, json_t *body, struct err *err)
{
    char *path = cli_path("/v1/reservations/", c->opts->args[0], "");
    json_t *dry = NULL, *changed = NULL;
    int rc = try_change(c, path, body, &dry, err);
    if (rc == 0)
        rc = agree(c, what, dry, err);
    if (rc == 1) {
        rc = change(c, "PATCH", path, body, &changed, err);
        if (rc == 0)
            rc = cli_print_reservation(c, changed, err);
    }
    json_decref(dry);
    json_decref(changed);
    free(path);
    return rc;
}

/* The new end by --by or --to; sign: 1 later, -1 earlier. */
static int new_end(struct cli *c, int64_t end_us, int sign, int64_t *ret_us,
                   struct err *err)
{
    const char *by = opt_get(c->opts, "by"), *to = opt_get(c->opts, "to");
    int64_t us;
    if ((by == NULL) == (to == NULL))
        return err_set(err, ERR_USAGE, "say how far: --by 2h, or --to TIME");
    if (by != NULL) {
        if (timefmt_parse_duration(by, &us, err) < 0 || us <= 0)
            return err_set(err, ERR_USAGE, "--by: '%.40s' is no duration such as 90m",
                           by);
        *ret_us = end_us + sign * us;
        return 0;
    }
    if (when_parse(to, &c->when, &us, err) < 0)
        return err_prefix(err, "--to");
    if (sign > 0 ? us <= end_us : us >= end_us) {
        char text[TIMEFMT_MAX];
        timefmt_offset(end_us, c->render.zone(end_us), text);
        return err_set(err, ERR_USAGE, "--to: the reservation %s %s",
                       sign > 0 ? "already lasts until" : "ends anyway at", text);
    }
    *ret_us = us;
    return 0;
}

static int end_of(const json_t *resv, int64_t *ret_us, struct err *err)
{
    const char *text = json_string_value(json_object_get(resv, "end"));
    if (text == NULL || timefmt_parse(text, ret_us, err) < 0)
        return err_set(err, ERR_INTERNAL, "the server's reservation has no end");
    return 0;
}

static int change_end(struct cli *c, const json_t *resv, int sign, struct err *err)
{
    struct strbuf what = STRBUF_INIT;
    int64_t end_us = 0, to_us = 0;
    if (end_of(resv, &end_us, err) < 0 || new_end(c, end_us, sign, &to_us, err) < 0)
        return -1;
    strbuf_adds(&what, sign > 0 ? "Extend until " : "End already at ");
    render_time(&what, to_us, c->render.zone);
    json_t *body = json_pack("{s:o}", "end", jsonx_time(to_us));
    set_generation(body, resv);
    int rc = ask_and_patch(c, strbuf_str(&what), body, err);
    json_decref(body);
    strbuf_done(&what);
    return rc;
}

int cmd_extend(struct cli *c, struct err *err)
{
    json_t *resv = NULL;
    if (cli_get_reservation(c, c->opts->args[0], &resv, err) < 0)
        return -1;
    int rc = change_end(c, resv, 1, err);
    json_decref(resv);
    return rc;
}

static int change_gpus(struct cli *c, const json_t *resv, const char *text,
                       struct err *err)
{
    int64_t gpus;
    if (when_parse_int(text, 1, GPUS_PER_NODE_MAX, &gpus, err) < 0)
        return err_prefix(err, "--gpus");
    char *what = xasprintf("Keep %s GPU%s on each node", text, gpus == 1 ? "" : "s");
    json_t *body = json_pack("{s:I}", "gpus", (json_int_t)gpus);
    set_generation(body, resv);
    int rc = ask_and_patch(c, what, body, err);
    json_decref(body);
    free(what);
    return rc;
}

int cmd_shrink(struct cli *c, struct err *err)
{
    const char *gpus = opt_get(c->opts, "gpus");
    json_t *resv = NULL;
    bool end = opt_has(c->opts, "by") || opt_has(c->opts, "to");
    if (end == (gpus != NULL))
        return err_set(err, ERR_USAGE,
                       "say what to give back: --gpus N, or --by 2h, or --to TIME");
    if (cli_get_reservation(c, c->opts->args[0], &resv, err) < 0)
        return -1;
    int rc = end ? change_end(c, resv, -1, err) : change_gpus(c, resv, gpus, err);
    json_decref(resv);
    return rc;
}

/* ---- move ------------------------------------------------------------------------ */

/* The plan goes to stderr, beside the question. 1: yes. */
static int agree_to_move(struct cli *c, const json_t *dry, struct err *err)
{
    struct strbuf out = STRBUF_INIT;
    struct render_opts o = c->render;
    o.colour = false; /* stderr may be a file */
    if (json_is_false(render_at(dry, "change.moved"))) {
        cli_note("it is at the best place already");
        return 0;
    }
    if (!c->yes || c->render.format == RENDER_TABLE) {
        plan_view(dry, false, &o, &out);
        fputs(strbuf_str(&out), stderr);
    }
    strbuf_done(&out);
    return agree(c, "Move it there", dry, err);
}

int cmd_move(struct cli *c, struct err *err)
{
    json_t *resv = NULL, *body = NULL, *dry = NULL, *moved = NULL;
    char *path = cli_path("/v1/reservations/", c->opts->args[0], "/move");
    int rc = cli_get_reservation(c, c->opts->args[0], &resv, err);
    if (rc == 0)
        rc = query_overrides(c->opts, &c->when, c->account.currency, &body, err);
    if (rc == 0) {
        set_generation(body, resv);
        rc = try_change(c, path, body, &dry, err);
    }
    if (rc == 0)
        rc = agree_to_move(c, dry, err);
    if (rc == 1) {
        rc = change(c, "POST", path, body, &moved, err);
        if (rc == 0)
            rc = cli_print_reservation(c, moved, err);
    }
    if (rc < 0)
        cli_show_rejected(c, err);
    json_decref(resv);
    json_decref(body);
    json_decref(dry);
    json_decref(moved);
    free(path);
    return rc;
}

/* ---- cancel ---------------------------------------------------------------------- */

int cmd_cancel(struct cli *c, struct err *err)
{
    const char *id = c->opts->args[0];
    json_t *dry = NULL, *reply = NULL;
    if (cli_check_id(id, err) < 0 || cli_open(c, err) < 0)
        return -1;
    char *path = cli_path("/v1/reservations/", id, "");
    char *ask = cli_path("/v1/reservations/", id, "?dry_run=true");
    const struct cli_call call = {"DELETE", ask, NULL, NULL};
    int rc = cli_call(c, &call, &dry, err);
    if (rc < 0)
        cli_harmless(err);
    const char *state = json_string_value(json_object_get(dry, "state"));
    bool waits = json_is_object(json_object_get(dry, "waiting")) ||
                 (state != NULL && strcmp(state, "waiting") == 0);
    if (rc == 0)
        rc = agree(c,
                   waits ? "Cancel this order"
                         : "Cancel this reservation: a running job is ended, what was "
                           "used is charged",
                   dry, err);
    if (rc == 1) {
        rc = change(c, "DELETE", path, NULL, &reply, err);
        if (rc == 0 && json_object_get(reply, "id") != NULL)
            rc = cli_print_reservation(c, reply, err);
        else if (rc == 0)
            cli_note("reservation %s cancelled", id);
    }
    free(path);
    free(ask);
    json_decref(dry);
    json_decref(reply);
    return rc;
}
