/* history_prices: what a reader of bundles finds of a random history (history_run):
 * every reservation's and invoice's bundle, as the market gives it out of its log,
 * holds to the agreed prices, and not to others. Its receipts have no signatures there:
 * they get them here, and what else is missing of a real one is not looked at. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bundle.h"
#include "client/lib/jws.h"
#include "client/lib/xalloc.h"
#include "tests/db/history_run.h"
#include "tests/unit/unit.h"

/* The receipts of a bundle, in its order, signed. */
static void sign(struct run *r, json_t *bundle, const char *where, EVP_PKEY *key)
{
    uint8_t pub[JWS_ED25519_LEN];
    char hex[SHA256_HEX];
    struct err err;
    char *sql = xasprintf(
        "SELECT n.spiffe_id, c.reservation_id, c.seq, c.kind, c.gpu_ms FROM ng.receipt "
        "c "
        "JOIN ng.node n ON n.id = c.node_id WHERE c.reservation_id IN (%s) ORDER BY "
        "c.reservation_id, c.node_id, c.seq",
        where);
    PGresult *rows = PQexec(r->l.pg, sql);
    json_t *list = json_object_get(bundle, "receipts");
    ck_assert_int_eq(PQntuples(rows), (int)json_array_size(list));
    ck_assert_int_eq(jws_public(key, pub, &err), 0);
    digest_hex(pub, sizeof(pub), hex);
    for (int i = 0; i < PQntuples(rows); i++) {
        json_t *row = json_array_get(list, (size_t)i);
        json_t *p =
            json_pack("{s:s, s:s, s:I, s:s, s:I}", "iss", PQgetvalue(rows, i, 0),
                      "reservation", PQgetvalue(rows, i, 1), "seq",
                      (json_int_t)strtoll(PQgetvalue(rows, i, 2), NULL, 10), "kind",
                      PQgetvalue(rows, i, 3), "gpu_ms",
                      (json_int_t)strtoll(PQgetvalue(rows, i, 4), NULL, 10));
        char *text;
        ck_assert_int_eq(jws_sign(key, JWS_TYP_USAGE, p, &text, &err), 0);
        json_object_set_new(row, "receipt", json_string(text));
        json_object_set_new(row, "key", json_string(hex));
        free(text);
        json_decref(p);
    }
    PQclear(rows);
    free(sql);
}

/* The first breach that is about a price; NULL: none. */
static char *price_breach(const json_t *bundle, size_t *ret_priced)
{
    struct bundle_result result;
    struct err err;
    char *found = NULL;
    ck_assert_int_eq(bundle_check(bundle, NULL, NULL, INT64_MAX, &result, &err), 0);
    const char *line = strbuf_str(&result.breaches), *end;
    for (; found == NULL && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char *text = xstrndup(line, (size_t)(end - line));
        static const char *const about[] = {"by the agreed", "agreed were",
                                            "no price agreed", "charged for"};
        bool is = false;
        for (size_t i = 0; i < sizeof(about) / sizeof(about[0]); i++)
            is = is || strstr(text, about[i]) != NULL;
        if (is)
            found = text;
        else
            free(text);
    }
    *ret_priced = result.priced;
    bundle_result_done(&result);
    return found;
}

/* Every price that was agreed a third higher, or lower: both are found. */
static void forge(json_t *bundle, int up)
{
    json_t *entry, *row;
    size_t i, n;
    json_array_foreach(json_object_get(bundle, "entries"), i, entry)
    {
        json_t *record = json_object_get(entry, "record");
        json_array_foreach(json_object_get(record, "bookings"), n, row)
        {
            const char *was =
                json_string_value(json_object_get(row, "per_gpu_hour_micro"));
            long long price = strtoll(was, NULL, 10);
            char text[24];
            snprintf(text, sizeof(text), "%lld",
                     up ? price * 4 / 3 + 2 : price * 2 / 3);
            json_object_set_new(row, "per_gpu_hour_micro", json_string(text));
        }
    }
}

static json_t *fetch(struct run *r, const char *sql)
{
    char *text = ledger_text(&r->l, "%s", sql);
    json_t *bundle = json_loads(text, 0, NULL);
    ck_assert_msg(bundle != NULL, "%s: %.300s", sql, text);
    free(text);
    return bundle;
}

struct seen {
    size_t bundles, priced, dearer, cheaper;
};

/* Use of more than a second's worth must not be worth the same at another price. */
static void check_one(struct run *r, const char *ask, const char *where, EVP_PKEY *key,
                      struct seen *seen)
{
    json_t *bundle = fetch(r, ask);
    size_t priced, again;
    /* 5,000 records at most: one too large is asked for by reservation. */
    sign(r, bundle, where, key);
    char *breach = price_breach(bundle, &priced);
    ck_assert_msg(breach == NULL, "%s: %s", ask, breach);
    seen->bundles += priced > 0;
    seen->priced += priced;
    for (int up = 0; priced > 0 && up < 2; up++) {
        json_t *copy = json_deep_copy(bundle);
        forge(copy, up);
        breach = price_breach(copy, &again);
        seen->dearer += up && breach != NULL;
        seen->cheaper += !up && breach != NULL;
        free(breach);
        json_decref(copy);
    }
    json_decref(bundle);
}

static void check_all(struct run *r, const char *list, const char *ask,
                      const char *where, EVP_PKEY *key, struct seen *seen)
{
    PGresult *rows = PQexec(r->l.pg, list);
    for (int i = 0; i < PQntuples(rows); i++) {
        char *one = xasprintf(ask, PQgetvalue(rows, i, 0)),
             *of = xasprintf(where, PQgetvalue(rows, i, 0));
        check_one(r, one, of, key, seen);
        free(one);
        free(of);
    }
    PQclear(rows);
}

void run_prices(struct run *r)
{
    EVP_PKEY *key;
    struct err err;
    struct seen resv = {0}, invoice = {0};
    ck_assert_int_eq(jws_keygen(&key, &err), 0);
    check_all(r,
              "SELECT DISTINCT reservation_id FROM ng.transfer WHERE kind = 'capture'",
              "SELECT api.log_bundle(NULL, NULL, '%s')::text", "SELECT '%s'::uuid", key,
              &resv);
    check_all(r, "SELECT number FROM ng.invoice",
              "SELECT api.log_bundle(NULL, '%s', NULL)::text",
              "SELECT reservation_id FROM ng.invoice_line WHERE number = '%s'", key,
              &invoice);
    EVP_PKEY_free(key);
    printf(
        "prices: bundles of %zu reservations and %zu invoices; not taken when agreed "
        "lower %zu and %zu, when higher %zu and %zu\n",
        resv.bundles, invoice.bundles, resv.cheaper, invoice.cheaper, resv.dearer,
        invoice.dearer);
    /* Paths alone, prices of next to nothing, spent holds and cut windows excuse some.
     */
    if (resv.bundles < 8)
        return;
    ck_assert_uint_ge(2 * resv.cheaper, resv.bundles);
    ck_assert_uint_ge(4 * resv.dearer, resv.bundles);
}
