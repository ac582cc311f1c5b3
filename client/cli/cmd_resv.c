/* list, show, token: reservations as they are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/plan_view.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/sshkey.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"
#include "client/lib/xalloc.h"

/* An administrator sees those of all tenants; the others begin at the second column.
 * Tables say in words what is the matter with one, CSV has it in columns. */
#define RESV_COLS                                                                     \
    {"TENANT", "tenant", RENDER_TEXT, NULL}, {"ID", "id", RENDER_TEXT, NULL},         \
        {"STATE", "state", RENDER_TEXT, NULL}, {"START", "start", RENDER_TIME, NULL}, \
        {"END", "end", RENDER_TIME, NULL},                                            \
        {"SITE", "allocations", RENDER_LIST, "site"},                                 \
        {"GPUS", "allocations", RENDER_COUNT, "gpus"},                                \
    {                                                                                 \
        "PRICE", "price.total_micro", RENDER_MICRO, "price.currency"                  \
    }
static const struct render_col table_cols[] = {RESV_COLS,
                                               {"NOTE", "note", RENDER_TEXT, NULL}};
static const struct render_col csv_cols[] = {
    RESV_COLS,
    {"NODES", "nodes", RENDER_INT, NULL},
    {"SPOT", "spot", RENDER_YES, NULL},
    {"POSITION", "waiting.position", RENDER_INT, NULL},
    {"PREDICTED", "waiting.predicted_start", RENDER_TIME, NULL},
    {"FAULT", "fault", RENDER_TEXT, NULL},
    {"PREEMPTED", "preempted_by", RENDER_TEXT, NULL},
};

static const struct render_col *resv_cols(const struct cli *c, bool tenants,
                                          size_t *ret_count)
{
    bool csv = c->render.format == RENDER_CSV;
    *ret_count =
        (csv ? RENDER_COUNT_OF(csv_cols) : RENDER_COUNT_OF(table_cols)) - !tenants;
    return (csv ? csv_cols : table_cols) + !tenants;
}

/* The reservation with a line on what is the matter with it, if anything is. */
static json_t *with_note(const json_t *resv, render_zone_fn *zone)
{
    struct strbuf note = STRBUF_INIT;
    json_t *row = json_copy((json_t *)(uintptr_t)resv);
    plan_view_note(resv, zone, &note);
    if (note.len > 0)
        json_object_set_new(row, "note", json_string(strbuf_str(&note)));
    strbuf_done(&note);
    return row;
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
        {"Held", "hold.held", RENDER_MONEY, NULL},
        {"Paid until", "hold.paid_until", RENDER_TIME, NULL},
        {"Made", "created_at", RENDER_TIME, NULL},
        {"Preemptible", "spot", RENDER_YES, NULL},
        {"Generation", "generation", RENDER_INT, NULL},
        {"Note", "note", RENDER_TEXT, NULL},
    };
    json_t *row = with_note(resv, c->render.zone);
    struct strbuf plan = STRBUF_INIT;
    /* The last line of the card is for those with something the matter. */
    render_card(row, card,
                RENDER_COUNT_OF(card) - (json_object_get(row, "note") == NULL),
                &c->render, out);
    plan_view(resv, true, &c->render, &plan);
    if (plan.len > 0) {
        strbuf_addc(out, '\n');
        strbuf_add(out, plan.data, plan.len - 1); /* no empty line at the end */
    }
    strbuf_done(&plan);
    json_decref(row);
}

int cli_print_reservation(struct cli *c, const json_t *resv, struct err *err)
{
    struct strbuf out = STRBUF_INIT;
    size_t count;
    const struct render_col *cols = resv_cols(c, false, &count);
    if (c->render.format != RENDER_TABLE)
        return cli_print_card(c, resv, cols, count, err);
    render_resv(c, resv, &out);
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    return rc;
}

int cli_check_id(const char *id, struct err *err)
{
    if (!uuid_is_valid(id))
        return err_set(err, ERR_USAGE,
                       "'%.60s' is no reservation's id: neargpu list shows them", id);
    return 0;
}

int cli_get_reservation(struct cli *c, const char *id, json_t **ret, struct err *err)
{
    if (cli_check_id(id, err) < 0)
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
    size_t count, i;
    json_t *resv, *rows = json_array();
    const struct render_col *cols =
        resv_cols(c, strcmp(c->account.role, "admin") == 0, &count);
    if (c->render.format == RENDER_TABLE) {
        json_array_foreach(json_object_get(reply, "reservations"), i, resv)
            json_array_append_new(rows, with_note(resv, c->render.zone));
        json_object_set(reply, "reservations", rows);
    }
    json_decref(rows);
    rc = cli_print_list(c, reply, "reservations", cols, count, "no such reservations",
                        err);
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

int cli_public_key(const char *file, uint8_t pub[JWS_ED25519_LEN], struct err *err)
{
    struct sshkey_public ssh;
    json_t *jwk = NULL;
    char *text = NULL;
    size_t len;
    int rc;
    if (fsx_read(file, 4096, &text, &len, err) < 0)
        return -1;
    if (*text == '{') {
        jwk = jsonx_parse(text, len, 4096, err);
        rc = jwk == NULL ? -1 : jws_jwk_parse(jwk, pub, err);
    } else if ((rc = sshkey_public(text, len, &ssh, err)) == 0) {
        memcpy(pub, ssh.pub, sizeof(ssh.pub));
    }
    free(text);
    json_decref(jwk);
    return rc < 0 ? err_prefix(err, "%s", file) : 0;
}

/* The JWK tokens are bound to: of this account, or from a file. */
static int token_jwk(struct cli *c, json_t **ret, struct err *err)
{
    const char *file = opt_get(c->opts, "public-key");
    uint8_t pub[JWS_ED25519_LEN];
    if (file != NULL) {
        if (cli_public_key(file, pub, err) < 0)
            return -1;
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
    if (cli_check_id(id, err) < 0 || cli_open(c, err) < 0 ||
        token_jwk(c, &jwk, err) < 0)
        return -1;
    json_t *body = json_pack("{s:o}", "jwk", jwk);
    if (node != NULL)
        json_object_set_new(body, "node", json_string(node));
    if (opt_has(c->opts, "cgroup") || opt_has(c->opts, "pid")) /* its own right */
        json_object_set_new(body, "actions", json_pack("[s]", "adopt"));
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
