/* quote and reserve. A reservation is made in two calls: the quote shows the plan and
 * its price and holds nothing; the booking names the quote and carries an idempotency
 * key. From the moment the booking is sent until its answer, leaving in any way tells
 * the key. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/plan_view.h"
#include "client/cli/query.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define PLACE_TRIES   8
#define PLACE_STEP_MS 400

/* A plan as people read it: places, data, price. */
static void render_plan(struct cli *c, const json_t *quote, struct strbuf *out)
{
    static const struct render_col price_cols[] = {
        {"Price", "plan.price.total_micro", RENDER_MICRO, "plan.price.currency"},
        {"Tax on it", "tax.micro", RENDER_ABOUT, "tax.currency"},
        {"Per hour", "plan.price.per_hour_micro", RENDER_MICRO, "plan.price.currency"},
        {"Effective", "plan.price.effective_micro", RENDER_ABOUT,
         "plan.price.currency"},
        {"Held at first", "plan.hold.held", RENDER_MONEY, NULL},
        {"Paid until", "plan.hold.paid_until", RENDER_TIME, NULL},
        {"Quote", "id", RENDER_TEXT, NULL},
        {"Good until", "expires_at", RENDER_TIME, NULL},
        {"Kept for you", "held", RENDER_YES, NULL},
    };
    size_t shown =
        RENDER_COUNT_OF(price_cols) - !json_is_true(json_object_get(quote, "held"));
    struct render_opts o = c->render;
    const json_t *plan = json_object_get(quote, "plan");
    o.format = RENDER_TABLE;
    plan_view(plan, false, &o, out);
    if (json_is_true(json_object_get(plan, "spot")))
        strbuf_adds(out, "Preemptible: firm demand may end it with the provider's "
                         "notice.\n");
    render_card(quote, price_cols, shown, &o, out);
}

static int get_quote(struct cli *c, const json_t *request, json_t **ret,
                     struct err *err)
{
    const struct cli_call call = {"POST", "/v1/quotes", (json_t *)(uintptr_t)request,
                                  NULL};
    int rc = cli_call(c, &call, ret, err);
    if (rc < 0 && json_object_get(request, "hold") == NULL)
        cli_harmless(err); /* a quote nobody has seen binds nobody */
    return rc;
}

int cmd_quote(struct cli *c, struct err *err)
{
    json_t *request = NULL, *quote = NULL;
    struct strbuf out = STRBUF_INIT;
    if (cli_open(c, err) < 0 ||
        query_build(c->opts, &c->when, c->account.currency, &request, err) < 0)
        return -1;
    int rc = get_quote(c, request, &quote, err);
    if (rc < 0)
        cli_show_rejected(c, err);
    if (rc == 0 && c->render.format == RENDER_TABLE) {
        render_plan(c, quote, &out);
        rc = cli_print(&out, err);
    } else if (rc == 0) {
        static const struct render_col cols[] = {
            {"ID", "id", RENDER_TEXT, NULL},
            {"EXPIRES", "expires_at", RENDER_TIME, NULL},
            {"START", "plan.start", RENDER_TIME, NULL},
            {"END", "plan.end", RENDER_TIME, NULL},
            {"SITES", "plan.allocations", RENDER_LIST, "site"},
            {"GPUS", "plan.allocations", RENDER_COUNT, "gpus"},
            {"PRICE", "plan.price.total_micro", RENDER_MICRO, "plan.price.currency"},
            {"EFFECTIVE", "plan.price.effective_micro", RENDER_ABOUT,
             "plan.price.currency"},
        };
        rc = cli_print_card(c, quote, cols, RENDER_COUNT_OF(cols), err);
    }
    strbuf_done(&out);
    json_decref(request);
    json_decref(quote);
    return rc;
}

/* Nothing fits now, and it may wait: what it would wait for was just shown. 1: book the
 * request itself, which then stands in the waiting list. */
static int agree_to_wait(struct cli *c, const json_t *request, struct err *err)
{
    struct strbuf q = STRBUF_INIT;
    const char *until = json_string_value(json_object_get(request, "wait_until"));
    render_sentence(&q, err->text, c->render.zone);
    cli_note("%s", strbuf_str(&q));
    strbuf_reset(&q);
    strbuf_adds(&q, "Wait for a place");
    if (until != NULL) {
        strbuf_adds(&q, " until ");
        render_sentence(&q, until, c->render.zone);
    }
    strbuf_addc(&q, '?');
    int rc = cli_confirm(c, strbuf_str(&q), err);
    strbuf_done(&q);
    return rc;
}

/* Nothing is free; but a firm booking may end spot use, which no quote shows. 1: book
 * the request itself; without room to be made it is refused as the quote was. */
static int agree_to_preempt(struct cli *c, struct err *err)
{
    struct strbuf text = STRBUF_INIT;
    if (c->yes)
        return 1;
    cli_show_rejected(c, err);
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return -1;
    render_sentence(&text, err->text, c->render.zone);
    cli_note("%s", strbuf_str(&text));
    strbuf_done(&text);
    return cli_confirm(c,
                       "End preemptible use if that makes room, within your bounds and "
                       "at the price of its place?",
                       err);
}

/* A quote is of now: whether to wait is decided when it cannot be had. */
static json_t *without_waiting(const json_t *request)
{
    json_t *now = json_copy((json_t *)(uintptr_t)request);
    json_object_del(now, "wait");
    json_object_del(now, "wait_until");
    return now;
}

/* Shows the plan and asks. 1: book it; *ret_quote is then its id (caller frees), or
 * NULL when the request is to wait. */
static int agree(struct cli *c, const json_t *request, char **ret_quote,
                 struct err *err)
{
    json_t *quote = NULL;
    struct strbuf out = STRBUF_INIT;
    json_t *now = without_waiting(request);
    int got = get_quote(c, now, &quote, err);
    json_decref(now);
    bool no_fit = got < 0 && err->code == ERR_NO_FIT;
    bool wait = json_is_true(json_object_get(request, "wait"));
    if (no_fit && !wait && !json_is_true(json_object_get(request, "spot")))
        return agree_to_preempt(c, err);
    if (got < 0)
        cli_show_rejected(c, err);
    if (got < 0)
        return no_fit && wait ? agree_to_wait(c, request, err) : -1;
    const char *id = json_string_value(json_object_get(quote, "id"));
    int rc = -1;
    if (id == NULL) {
        err_set(err, ERR_INTERNAL,
                "the server's quote has no id; nothing was reserved");
    } else {
        if (c->render.format == RENDER_TABLE || !c->yes) {
            bool colour = c->render.colour;
            c->render.colour = false; /* goes to stderr, which may be a file */
            render_plan(c, quote, &out);
            c->render.colour = colour;
            fputs(strbuf_str(&out), stderr);
        }
        rc = cli_confirm(c, "Reserve this?", err);
        if (rc == 1)
            *ret_quote = xstrdup(id);
    }
    strbuf_done(&out);
    json_decref(quote);
    return rc;
}

/* The body says nothing that changes from one moment to the next: either the quote
 * alone, or what was asked for; so that the same command with the same key sends the
 * same body, whatever "now" has become. */
static int book(struct cli *c, json_t *body, const char *key, json_t **ret,
                struct err *err)
{
    const struct cli_call call = {"POST", "/v1/reservations", body, key};
    const char *quote = json_string_value(json_object_get(body, "quote"));
    char *self = cli_self(c);
    char *text =
        quote != NULL
            ? xasprintf("the outcome is not known; to find out without booking twice: "
                        "%s reserve --quote %s --key %s",
                        self, quote, key)
            : xasprintf("the outcome is not known; the same command again, with --key "
                        "%s, finds out without booking twice",
                        key);
    cli_unsettled(text);
    int rc = cli_call(c, &call, ret, err);
    cli_settled();
    if (rc < 0 && (err->code == ERR_UNKNOWN || err->code == ERR_TIMEOUT))
        err_set(err, ERR_UNKNOWN, "%s", text);
    else if (rc < 0)
        cli_show_rejected(c, err);
    free(text);
    free(self);
    return rc;
}

/* What to book: the quote named, the request itself when a script repeats it under its
 * own key, or else a quote that is shown first. 1: book *ret. */
static int choose(struct cli *c, json_t **ret, struct err *err)
{
    const char *given = opt_get(c->opts, "quote");
    char *quote = NULL;
    json_t *request = NULL;
    int rc = -1;
    if (given != NULL && opt_get(c->opts, "for") != NULL) {
        err_set(err, ERR_USAGE,
                "--quote books the quote as it is: leave --for and the like out");
    } else if (given != NULL) {
        /* It was shown when it was made; a repeat with its key may be settled already.
         */
        rc = opt_has(c->opts, "key") ? 1 : cli_confirm(c, "Book this quote?", err);
        quote = xstrdup(given);
    } else if (query_build(c->opts, &c->when, c->account.currency, &request, err) ==
               0) {
        rc = c->yes && opt_has(c->opts, "key") ? 1 : agree(c, request, &quote, err);
    }
    if (rc == 1)
        *ret =
            quote != NULL ? json_pack("{s:s}", "quote", quote) : json_incref(request);
    free(quote);
    json_decref(request);
    return rc;
}

/* The list is planned a moment after an order was put into it: then its place is known.
 * Without it the order stands all the same. */
static void await_place(struct cli *c, json_t **resv)
{
    struct err ignored;
    for (int i = 0; i < PLACE_TRIES; i++) {
        const json_t *waiting = json_object_get(*resv, "waiting");
        const char *id = json_string_value(json_object_get(*resv, "id"));
        json_t *now = NULL;
        if (!json_is_object(waiting) || id == NULL ||
            json_integer_value(json_object_get(waiting, "position")) > 0)
            return;
        (void)poll(NULL, 0, PLACE_STEP_MS);
        if (cli_get_reservation(c, id, &now, &ignored) < 0)
            return;
        json_decref(*resv);
        *resv = now;
    }
}

int cmd_reserve(struct cli *c, struct err *err)
{
    json_t *body = NULL, *resv = NULL;
    char *key = cli_key(c, err);
    int rc = -1;
    if (key == NULL || cli_open(c, err) < 0)
        goto out;
    rc = choose(c, &body, err);
    if (rc != 1)
        goto out;
    rc = book(c, body, key, &resv, err);
    if (rc == 0)
        await_place(c, &resv);
    if (rc == 0 && c->render.format != RENDER_JSON) {
        struct strbuf note = STRBUF_INIT;
        plan_view_note(resv, c->render.zone, &note);
        if (json_is_object(json_object_get(resv, "waiting")))
            cli_note("it %s", strbuf_str(&note));
        strbuf_done(&note);
    }
    if (rc == 0)
        rc = cli_print_reservation(c, resv, err);
out:
    free(key);
    json_decref(body);
    json_decref(resv);
    return rc;
}
