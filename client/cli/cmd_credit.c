/* budget; admin promo, incident, sla, fx. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

static void add_opt(struct cli *c, json_t *body, const char *name)
{
    const char *value = opt_get(c->opts, name);
    if (value != NULL)
        json_object_set_new(body, name, json_string(value));
}

static int add_money(struct cli *c, json_t *body, const char *member, const char *text,
                     struct err *err)
{
    json_t *money = NULL;
    if (cli_open(c, err) < 0 || query_money(text, c->account.currency, &money, err) < 0)
        return err_prefix(err, "%s", member);
    json_object_set_new(body, member, money);
    return 0;
}

static int add_time(struct cli *c, json_t *body, const char *name, struct err *err)
{
    const char *text = opt_get(c->opts, name);
    char utc[TIMEFMT_MAX];
    int64_t us;
    if (text == NULL)
        return 0;
    if (when_parse(text, &c->when, &us, err) < 0)
        return err_prefix(err, "--%s", name);
    timefmt_utc(us, utc);
    json_object_set_new(body, name, json_string(utc));
    return 0;
}

/* Sends the body and shows the answer; the body is taken. */
static int submit(struct cli *c, const char *method, const char *path, json_t *body,
                  const struct render_col *cols, size_t count, struct err *err)
{
    json_t *reply = NULL;
    char *key = strcmp(method, "POST") == 0 ? cli_new_key(c) : NULL;
    const struct cli_call call = {method, path, body, key};
    int rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, count, err);
    free(key);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* ---- budget ---- */

static const struct render_col budget_cols[] = {
    {"Tenant", "tenant", RENDER_TEXT, NULL},
    {"Limit", "limit", RENDER_MONEY, NULL},
    {"Hard", "hard", RENDER_YES, NULL},
    {"Period", "period", RENDER_TEXT, NULL},
    {"From", "from", RENDER_TIME, NULL},
    {"To", "to", RENDER_TIME, NULL},
    {"Held", "held", RENDER_MONEY, NULL},
    {"Spent", "spent", RENDER_MONEY, NULL},
    {"Committed", "committed", RENDER_MONEY, NULL},
    {"Alerted at %", "alerted_percent", RENDER_INT, NULL},
};

static int budget(struct cli *c, const char *method, json_t *body, struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    strbuf_adds(&path, "/v1/budget");
    cli_query(&path, "tenant", opt_get(c->opts, "tenant"));
    size_t count = strcmp(method, "DELETE") == 0 ? 1 : RENDER_COUNT_OF(budget_cols);
    int rc = submit(c, method, strbuf_str(&path), body, budget_cols, count, err);
    strbuf_done(&path);
    return rc;
}

int cmd_budget_set(struct cli *c, struct err *err)
{
    json_t *body = json_object();
    if (opt_has(c->opts, "hard") && opt_has(c->opts, "soft")) {
        json_decref(body);
        return err_set(err, ERR_USAGE, "--hard or --soft");
    }
    if (add_money(c, body, "limit", c->opts->args[0], err) < 0) {
        json_decref(body);
        return -1;
    }
    json_object_set_new(body, "hard", json_boolean(!opt_has(c->opts, "soft")));
    add_opt(c, body, "period");
    return budget(c, "POST", body, err);
}

int cmd_budget_show(struct cli *c, struct err *err)
{
    return budget(c, "GET", NULL, err);
}

int cmd_budget_rm(struct cli *c, struct err *err)
{
    return budget(c, "DELETE", NULL, err);
}

/* ---- promotional credit ---- */

static const struct render_col promo_cols[] = {
    {"ID", "id", RENDER_INT, NULL},
    {"TENANT", "tenant", RENDER_TEXT, NULL},
    {"AMOUNT", "amount", RENDER_MONEY, NULL},
    {"USED", "used", RENDER_MONEY, NULL},
    {"EXPIRED", "expired", RENDER_MONEY, NULL},
    {"LEFT", "left", RENDER_MONEY, NULL},
    {"UNTIL", "expires_at", RENDER_TIME, NULL},
    {"REASON", "reason", RENDER_TEXT, NULL},
};

/* One of them. */
static const struct render_col promo_card[] = {
    {"Grant", "id", RENDER_INT, NULL},          {"Tenant", "tenant", RENDER_TEXT, NULL},
    {"Amount", "amount", RENDER_MONEY, NULL},   {"Left", "left", RENDER_MONEY, NULL},
    {"Until", "expires_at", RENDER_TIME, NULL}, {"Reason", "reason", RENDER_TEXT, NULL},
};

int cmd_admin_promo_grant(struct cli *c, struct err *err)
{
    json_t *body = json_pack("{s:s}", "tenant", c->opts->args[0]);
    int rc = 0;
    if (opt_get(c->opts, "expires") == NULL || opt_get(c->opts, "reason") == NULL)
        rc = err_set(err, ERR_USAGE,
                     "say until when and why: --expires TIME --reason TEXT");
    if (rc == 0)
        rc = add_money(c, body, "amount", c->opts->args[1], err);
    if (rc == 0)
        rc = add_time(c, body, "expires", err);
    if (rc < 0) {
        json_decref(body);
        return -1;
    }
    add_opt(c, body, "reason");
    return submit(c, "POST", "/v1/promos", body, promo_card,
                  RENDER_COUNT_OF(promo_card), err);
}

int cmd_admin_promo_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/promos", "promos", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "promos", promo_cols, RENDER_COUNT_OF(promo_cols),
                            "no promotional credit was granted", err);
    json_decref(reply);
    return rc;
}

/* ---- incidents ---- */

static const struct render_col incident_cols[] = {
    {"ID", "id", RENDER_INT, NULL},
    {"WHAT", "what", RENDER_TEXT, NULL},
    {"NAME", "name", RENDER_TEXT, NULL},
    {"FAULT", "fault", RENDER_TEXT, NULL},
    {"FROM", "from", RENDER_TIME, NULL},
    {"TO", "to", RENDER_TIME, NULL},
    {"CREDITS", "credits", RENDER_INT, NULL},
    {"CREDITED", "credited", RENDER_MONEY, NULL},
    {"BY", "opened_by", RENDER_TEXT, NULL},
    {"REASON", "reason", RENDER_TEXT, NULL},
};
static const struct render_col incident_card[] = {
    {"Incident", "id", RENDER_INT, NULL},
    {"What", "what", RENDER_TEXT, NULL},
    {"Name", "name", RENDER_TEXT, NULL},
    {"Fault", "fault", RENDER_TEXT, NULL},
    {"From", "from", RENDER_TIME, NULL},
    {"To", "to", RENDER_TIME, NULL},
    {"Credits", "credits", RENDER_INT, NULL},
    {"Credited", "credited", RENDER_MONEY, NULL},
    {"By", "opened_by", RENDER_TEXT, NULL},
    {"Reason", "reason", RENDER_TEXT, NULL},
};

int cmd_admin_incident_open(struct cli *c, struct err *err)
{
    json_t *body = json_pack("{s:s}", "what", c->opts->args[0]);
    if (c->opts->arg_count > 1)
        json_object_set_new(body, "name", json_string(c->opts->args[1]));
    int rc = 0;
    if (opt_get(c->opts, "reason") == NULL)
        rc = err_set(err, ERR_USAGE, "say why: --reason TEXT");
    if (rc == 0)
        rc = add_time(c, body, "from", err);
    if (rc == 0)
        rc = add_time(c, body, "to", err);
    if (rc < 0) {
        json_decref(body);
        return -1;
    }
    add_opt(c, body, "reason");
    add_opt(c, body, "fault");
    add_opt(c, body, "site");
    return submit(c, "POST", "/v1/incidents", body, incident_card,
                  RENDER_COUNT_OF(incident_card), err);
}

int cmd_admin_incident_close(struct cli *c, struct err *err)
{
    json_t *body = json_object();
    if (add_time(c, body, "to", err) < 0) {
        json_decref(body);
        return -1;
    }
    char *path = cli_path("/v1/incidents/", c->opts->args[0], "");
    int rc = submit(c, "PATCH", path, body, incident_card,
                    RENDER_COUNT_OF(incident_card), err);
    free(path);
    return rc;
}

int cmd_admin_incident_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/incidents", "incidents", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "incidents", incident_cols,
                            RENDER_COUNT_OF(incident_cols), "no incidents", err);
    json_decref(reply);
    return rc;
}

int cmd_admin_sla_credit(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"RESERVATION", "reservation", RENDER_TEXT, NULL},
        {"CREDITED", "amount", RENDER_MONEY, NULL},
    };
    const char *id = opt_get(c->opts, "incident"), *amount = opt_get(c->opts, "amount");
    const char *percent = opt_get(c->opts, "percent");
    json_t *body = json_object(), *reply = NULL;
    int64_t ppm;
    int rc = 0;
    if (id == NULL || (percent == NULL) == (amount == NULL))
        rc = err_set(err, ERR_USAGE,
                     "say for which incident and how much: --incident ID, and "
                     "--percent SHARE or --amount AMOUNT");
    if (rc == 0 && percent != NULL) {
        rc = when_parse_ppm(percent, &ppm, err);
        if (rc < 0)
            err_prefix(err, "--percent");
        else
            json_object_set_new(body, "percent_ppm", json_integer(ppm));
    }
    if (rc == 0 && amount != NULL)
        rc = add_money(c, body, "amount", amount, err);
    add_opt(c, body, "reservation");
    char *path = cli_path("/v1/incidents/", id != NULL ? id : "", "/credits");
    const struct cli_call call = {"POST", path, body, NULL};
    if (rc == 0)
        rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = cli_print_list(c, reply, "credits", cols, RENDER_COUNT_OF(cols),
                            "nothing was credited", err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_incidents(struct cli *c, struct err *err)
{
    return cmd_admin_incident_list(c, err);
}

/* ---- terms of credits ---- */

static int print_terms(struct cli *c, const json_t *reply, struct err *err)
{
    static const struct render_col cols[] = {
        {"SHARE OF THE LEASE", "share_ppm", RENDER_PPM, NULL},
        {"AND AT LEAST", "gap_s", RENDER_SECONDS, NULL},
        {"CREDITED", "credit_ppm", RENDER_PPM, NULL},
    };
    return cli_print_list(c, reply, "terms", cols, RENDER_COUNT_OF(cols),
                          "nothing is credited of itself", err);
}

int cmd_sla(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    int rc = cli_get(c, "/v1/sla-terms", &reply, err);
    if (rc == 0)
        rc = print_terms(c, reply, err);
    json_decref(reply);
    return rc;
}

/* "1%:10m:10%" */
static int add_term(json_t *terms, const char *text, struct err *err)
{
    char share[32], gap[32];
    const char *second = strchr(text, ':');
    const char *third = second != NULL ? strchr(second + 1, ':') : NULL;
    int64_t share_ppm, gap_us, credit_ppm;
    if (third == NULL || second - text >= (ptrdiff_t)sizeof(share) ||
        third - second > (ptrdiff_t)sizeof(gap))
        return err_set(err, ERR_USAGE,
                       "'%.60s' is not SHARE:TIME:CREDIT, as 1%%:10m:10%%", text);
    snprintf(share, sizeof(share), "%.*s", (int)(second - text), text);
    snprintf(gap, sizeof(gap), "%.*s", (int)(third - second - 1), second + 1);
    if (when_parse_ppm(share, &share_ppm, err) < 0 ||
        when_parse_span(gap, &gap_us, err) < 0 ||
        when_parse_ppm(third + 1, &credit_ppm, err) < 0)
        return err_prefix(err, "'%.60s'", text);
    json_array_append_new(terms, json_pack("{s:I, s:I, s:I}", "share_ppm",
                                           (json_int_t)share_ppm, "gap_s",
                                           (json_int_t)(gap_us / US_PER_S),
                                           "credit_ppm", (json_int_t)credit_ppm));
    return 0;
}

int cmd_admin_sla_terms(struct cli *c, struct err *err)
{
    json_t *terms = json_array(), *reply = NULL;
    int rc = 0;
    if (opt_has(c->opts, "none") && c->opts->arg_count > 0)
        rc = err_set(err, ERR_USAGE, "--none or terms");
    for (int i = 0; rc == 0 && i < c->opts->arg_count; i++)
        rc = add_term(terms, c->opts->args[i], err);
    if (rc < 0 || (c->opts->arg_count == 0 && !opt_has(c->opts, "none"))) {
        json_decref(terms);
        return rc < 0 ? rc : cmd_sla(c, err);
    }
    json_t *body = json_pack("{s:o}", "terms", terms);
    const struct cli_call call = {"POST", "/v1/sla-terms", body, NULL};
    rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = print_terms(c, reply, err);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* ---- exchange ---- */

static const struct render_col fx_cols[] = {
    {"BASE", "base", RENDER_TEXT, NULL}, {"QUOTE", "quote", RENDER_TEXT, NULL},
    {"RATE", "rate", RENDER_TEXT, NULL}, {"SOURCE", "source", RENDER_TEXT, NULL},
    {"SET", "at", RENDER_TIME, NULL},    {"BY", "set_by", RENDER_TEXT, NULL},
};
static const struct render_col fx_card[] = {
    {"Base", "base", RENDER_TEXT, NULL}, {"Quote", "quote", RENDER_TEXT, NULL},
    {"Rate", "rate", RENDER_TEXT, NULL}, {"Source", "source", RENDER_TEXT, NULL},
    {"Set", "at", RENDER_TIME, NULL},    {"By", "set_by", RENDER_TEXT, NULL},
};

int cmd_admin_fx_set(struct cli *c, struct err *err)
{
    const char *pair = c->opts->args[0];
    if (strlen(pair) != 7 || pair[3] != '/' || opt_get(c->opts, "source") == NULL)
        return err_set(err, ERR_USAGE,
                       "say the pair and where the rate is from: EUR/JPY RATE --source "
                       "TEXT");
    json_t *body = json_pack("{s:s%, s:s, s:s}", "base", pair, (size_t)3, "quote",
                             pair + 4, "rate", c->opts->args[1]);
    add_opt(c, body, "source");
    return submit(c, "POST", "/v1/fx", body, fx_card, RENDER_COUNT_OF(fx_card), err);
}

int cmd_admin_fx_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get(c, "/v1/fx", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "rates", fx_cols, RENDER_COUNT_OF(fx_cols),
                            "no rates were set", err);
    json_decref(reply);
    return rc;
}
