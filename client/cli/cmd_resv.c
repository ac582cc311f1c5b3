/* list, show, extend, cancel, token: what happens to a reservation after it was made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"
#include "client/lib/xalloc.h"

/* An administrator sees those of all tenants; the others begin at the second column. */
static const struct render_col resv_cols_all[] = {
    {"TENANT", "tenant", RENDER_TEXT, NULL},
    {"ID", "id", RENDER_TEXT, NULL},
    {"STATE", "state", RENDER_TEXT, NULL},
    {"START", "start", RENDER_TIME, NULL},
    {"END", "end", RENDER_TIME, NULL},
    {"SITE", "allocations", RENDER_LIST, "site"},
    {"GPUS", "allocations", RENDER_COUNT, "gpus"},
    {"PRICE", "price.total_micro", RENDER_MICRO, "price.currency"},
};

static const struct render_col *const resv_cols = resv_cols_all + 1;
static const size_t resv_col_count = RENDER_COUNT_OF(resv_cols_all) - 1;

/* A row for each GPU: they are read, and copied, one by one. */
static json_t *gpu_rows(const json_t *allocations)
{
    json_t *rows = json_array(), *a, *gpu;
    size_t i, k;
    json_array_foreach(allocations, i, a)
        json_array_foreach(json_object_get(a, "gpus"), k, gpu)
    {
        json_t *row = json_copy(a);
        json_object_set(row, "gpu", gpu);
        json_array_append_new(rows, row);
    }
    return rows;
}

static void render_resv(struct cli *c, const json_t *resv, struct strbuf *out)
{
    static const struct render_col card[] = {
        {"Reservation", "id", RENDER_TEXT, NULL},
        {"State", "state", RENDER_TEXT, NULL},
        {"Reason", "reason", RENDER_SENTENCE, NULL},
        {"Start", "start", RENDER_TIME, NULL},
        {"End", "end", RENDER_TIME, NULL},
        {"Price", "price.total_micro", RENDER_MICRO, "price.currency"},
        {"Per hour", "price.per_hour_micro", RENDER_MICRO, "price.currency"},
        {"Effective", "price.effective_micro", RENDER_ABOUT, "price.currency"},
        {"Made", "created_at", RENDER_TIME, NULL},
        {"Generation", "generation", RENDER_INT, NULL},
    };
    static const struct render_col places[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"NODE", "node", RENDER_TEXT, NULL},
        {"GPU", "gpu", RENDER_TEXT, NULL},
    };
    static const struct render_col data[] = {
        {"DATA", "name", RENDER_TEXT, NULL},
        {"AT", "site", RENDER_TEXT, NULL},
        {"RTT", "rtt_us", RENDER_RTT, NULL},
        {"SLOWDOWN", "slowdown", RENDER_SLOWDOWN, NULL},
    };
    const json_t *near = json_object_get(resv, "data");
    render_card(resv, card, RENDER_COUNT_OF(card), &c->render, out);
    strbuf_addc(out, '\n');
    json_t *rows = gpu_rows(json_object_get(resv, "allocations"));
    render_rows(rows, places, RENDER_COUNT_OF(places), &c->render, out);
    json_decref(rows);
    if (json_array_size(near) > 0) {
        strbuf_addc(out, '\n');
        render_rows(near, data, RENDER_COUNT_OF(data), &c->render, out);
    }
}

int cli_print_reservation(struct cli *c, const json_t *resv, struct err *err)
{
    struct strbuf out = STRBUF_INIT;
    if (c->render.format != RENDER_TABLE)
        return cli_print_card(c, resv, resv_cols, resv_col_count, err);
    render_resv(c, resv, &out);
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    return rc;
}

static int check_id(const char *id, struct err *err)
{
    if (!uuid_is_valid(id))
        return err_set(err, ERR_USAGE,
                       "'%.60s' is no reservation's id: neargpu list shows them", id);
    return 0;
}

int cli_get_reservation(struct cli *c, const char *id, json_t **ret, struct err *err)
{
    if (check_id(id, err) < 0)
        return -1;
    char *path = cli_path("/v1/reservations/", id, "");
    int rc = cli_get(c, path, ret, err);
    free(path);
    return rc;
}

int cmd_list(struct cli *c, struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    json_t *reply = NULL;
    strbuf_adds(&path, "/v1/reservations");
    cli_query(&path, "state", opt_get(c->opts, "state"));
    int rc = cli_get_list(c, strbuf_str(&path), "reservations", &reply, err);
    strbuf_done(&path);
    if (rc < 0)
        return -1;
    bool all = strcmp(c->account.role, "admin") == 0;
    rc = cli_print_list(c, reply, "reservations", all ? resv_cols_all : resv_cols,
                        resv_col_count + all, "no such reservations", err);
    json_decref(reply);
    return rc;
}

int cmd_show(struct cli *c, struct err *err)
{
    json_t *resv = NULL;
    if (cli_get_reservation(c, c->opts->args[0], &resv, err) < 0)
        return -1;
    int rc = cli_print_reservation(c, resv, err);
    json_decref(resv);
    return rc;
}

/* The new end by --by or --to. */
static int new_end(struct cli *c, int64_t end_us, int64_t *ret_us, struct err *err)
{
    const char *by = opt_get(c->opts, "by"), *to = opt_get(c->opts, "to");
    int64_t us;
    if ((by == NULL) == (to == NULL))
        return err_set(err, ERR_USAGE, "say how far: --by 2h, or --to TIME");
    if (by != NULL) {
        if (timefmt_parse_duration(by, &us, err) < 0 || us <= 0)
            return err_set(err, ERR_USAGE, "--by: '%.40s' is no duration such as 90m",
                           by);
        *ret_us = end_us + us;
        return 0;
    }
    if (when_parse(to, &c->when, &us, err) < 0)
        return err_prefix(err, "--to");
    if (us <= end_us) {
        char text[TIMEFMT_MAX];
        timefmt_offset(end_us, c->render.zone(end_us), text);
        return err_set(err, ERR_USAGE, "--to: the reservation already lasts until %s",
                       text);
    }
    *ret_us = us;
    return 0;
}

static char *extend_question(struct cli *c, const json_t *resv, int64_t from_us,
                             int64_t to_us)
{
    const json_t *price = json_object_get(resv, "price");
    const char *currency = json_string_value(json_object_get(price, "currency"));
    struct strbuf q = STRBUF_INIT;
    int64_t micro;
    strbuf_adds(&q, "Extend until ");
    render_time(&q, to_us, c->render.zone);
    if (money_mul(to_us - from_us,
                  json_integer_value(json_object_get(price, "per_hour_micro")),
                  US_PER_HOUR, &micro, NULL) == 0) {
        strbuf_adds(&q, ", for ");
        render_money(&q, micro, currency != NULL ? currency : "");
        strbuf_adds(&q, " at its present price");
    }
    strbuf_addc(&q, '?');
    return strbuf_steal(&q);
}

/* PATCH or DELETE of one reservation: both may be repeated without harm. */
static int change(struct cli *c, const char *method, const char *id, json_t *body,
                  json_t **ret, struct err *err)
{
    char *path = cli_path("/v1/reservations/", id, "");
    char *self = cli_self(c);
    char *text = xasprintf("the outcome is not known: %s show %s", self, id);
    free(self);
    const struct cli_call call = {method, path, body, NULL};
    cli_unsettled(text);
    int rc = cli_call(c, &call, ret, err);
    cli_settled();
    if (rc < 0 && (err->code == ERR_UNKNOWN || err->code == ERR_TIMEOUT))
        err_set(err, ERR_UNKNOWN, "%s", text);
    free(text);
    free(path);
    return rc;
}

int cmd_extend(struct cli *c, struct err *err)
{
    const char *id = c->opts->args[0], *end_text;
    json_t *resv = NULL, *changed = NULL, *body = NULL;
    int64_t end_us = 0, to_us = 0;
    int rc = -1;
    if (cli_get_reservation(c, id, &resv, err) < 0)
        return -1;
    end_text = json_string_value(json_object_get(resv, "end"));
    if (end_text == NULL || timefmt_parse(end_text, &end_us, err) < 0) {
        err_set(err, ERR_INTERNAL, "the server's reservation has no end");
        goto out;
    }
    if (new_end(c, end_us, &to_us, err) < 0)
        goto out;
    char *question = extend_question(c, resv, end_us, to_us);
    rc = cli_confirm(c, question, err);
    free(question);
    if (rc != 1)
        goto out;
    body = json_pack("{s:o}", "end", jsonx_time(to_us));
    rc = change(c, "PATCH", id, body, &changed, err);
    if (rc == 0)
        rc = cli_print_reservation(c, changed, err);
out:
    json_decref(resv);
    json_decref(changed);
    json_decref(body);
    return rc;
}

int cmd_cancel(struct cli *c, struct err *err)
{
    const char *id = c->opts->args[0];
    json_t *reply = NULL;
    if (check_id(id, err) < 0 || cli_open(c, err) < 0)
        return -1;
    int rc = cli_confirm(c,
                         "Cancel this reservation? A running job is ended; what was "
                         "used is charged.",
                         err);
    if (rc != 1)
        return rc;
    rc = change(c, "DELETE", id, NULL, &reply, err);
    if (rc == 0 && json_object_get(reply, "id") != NULL)
        rc = cli_print_reservation(c, reply, err);
    else if (rc == 0)
        cli_note("reservation %s cancelled", id);
    json_decref(reply);
    return rc;
}

/* The JWK tokens are bound to: of this account, or from a file. */
static int token_jwk(struct cli *c, json_t **ret, struct err *err)
{
    const char *file = opt_get(c->opts, "public-key");
    uint8_t pub[JWS_ED25519_LEN];
    char *text = NULL;
    size_t len;
    if (file != NULL) {
        if (fsx_read(file, 4096, &text, &len, err) < 0)
            return -1;
        json_t *jwk = jsonx_parse(text, len, 4096, err);
        free(text);
        int rc = jwk == NULL ? -1 : jws_jwk_parse(jwk, pub, err);
        json_decref(jwk);
        if (rc < 0)
            return err_prefix(err, "%s", file);
    } else {
        EVP_PKEY *key = NULL;
        if (account_key(&c->account, 1, &key, err) < 0)
            return -1;
        int rc = jws_public(key, pub, err);
        EVP_PKEY_free(key);
        if (rc < 0)
            return -1;
    }
    *ret = jws_jwk(pub);
    return 0;
}

int cli_get_tokens(struct cli *c, const char *id, const char *node, json_t **ret,
                   struct err *err)
{
    json_t *jwk = NULL;
    const char *action;
    if (check_id(id, err) < 0 || cli_open(c, err) < 0 || token_jwk(c, &jwk, err) < 0)
        return -1;
    json_t *body = json_pack("{s:o}", "jwk", jwk);
    if (node != NULL)
        json_object_set_new(body, "node", json_string(node));
    for (size_t n = 0; (action = opt_nth(c->opts, "action", n)) != NULL; n++) {
        if (n == 0)
            json_object_set_new(body, "actions", json_array());
        json_array_append_new(json_object_get(body, "actions"), json_string(action));
    }
    char *path = cli_path("/v1/reservations/", id, "/tokens");
    const struct cli_call call = {"POST", path, body, NULL};
    int rc = cli_call(c, &call, ret, err);
    if (rc < 0 && err->code == ERR_UNKNOWN) /* a token nobody has is no harm */
        err->code = ERR_UNREACHABLE;
    free(path);
    json_decref(body);
    return rc;
}

int cmd_token(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Node", "node", RENDER_TEXT, NULL},
        {"Audience", "audience", RENDER_TEXT, NULL},
        {"Address", "address", RENDER_TEXT, NULL},
        {"Start before", "expires_at", RENDER_TIME, NULL},
        {"Token", "token", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL, *token;
    size_t i;
    struct strbuf out = STRBUF_INIT;
    if (cli_get_tokens(c, c->opts->args[0], opt_get(c->opts, "node"), &reply, err) < 0)
        return -1;
    const json_t *tokens = json_object_get(reply, "tokens");
    if (c->render.format == RENDER_JSON) {
        render_json(reply, &out);
    } else if (c->render.format == RENDER_CSV) {
        render_rows(tokens, cols, RENDER_COUNT_OF(cols), &c->render, &out);
    } else {
        json_array_foreach(tokens, i, token)
        {
            if (i > 0)
                strbuf_addc(&out, '\n');
            render_card(token, cols, RENDER_COUNT_OF(cols), &c->render, &out);
        }
    }
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}
