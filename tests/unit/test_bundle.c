/* bundle: a market's invoice with its receipts and postings, whole; then altered at
 * every place that matters, each alteration found; and the logs' heads as they grow, or
 * not. */
#include <stdio.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/bundle.h"
#include "client/lib/jsonx.h"
#include "client/lib/keyset.h"
#include "client/lib/logentry.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define RES  "0197a000-0000-7000-8000-000000000001"
#define NODE "spiffe://test.local/site/a/node/n1"
#define FILL 40 /* other leaves around ours */

/* --- a small market --- */

struct market {
    EVP_PKEY *log_key, *node_key, *root, *signer;
    char vkey[BUNDLE_LOGS][NOTE_VKEY_MAX];
    char root_kid[JWS_KID_MAX];
    json_t *bundle;
};

static json_t *record(const char *text)
{
    json_error_t e;
    json_t *v = json_loads(text, 0, &e);
    ck_assert_msg(v != NULL, "%s: %s", e.text, text);
    return v;
}

/* A receipt after the one with this text (NULL: the first). */
static char *receipt(EVP_PKEY *key, int seq, const char *prev, int gpu_ms)
{
    char hash[JWS_KID_MAX] = "", *text;
    uint8_t sum[SHA256_LEN];
    struct err err;
    if (prev != NULL) {
        digest_sha256(prev, strlen(prev), sum);
        b64_encode(sum, sizeof(sum), hash);
    }
    json_t *p = json_pack("{s:s, s:s, s:s, s:i, s:s, s:i}", "iss", NODE, "kind",
                          seq == 1 ? "ready" : "interval", "reservation", RES, "seq",
                          seq, "prev", hash, "gpu_ms", gpu_ms);
    ck_assert_int_eq(jws_sign(key, JWS_TYP_USAGE, p, &text, &err), 0);
    json_decref(p);
    return text;
}

#define LOG_BY 1000 /* a second */

/* The market's word on a receipt, by a key of the bundle's key set. */
static char *countersign(EVP_PKEY *key, int seq, const char *receipt_text)
{
    char hex[SHA256_HEX], *text;
    struct err err;
    digest_sha256_hex(receipt_text, strlen(receipt_text), hex);
    json_t *p = json_pack("{s:s, s:s, s:s, s:i, s:s, s:i}", "iss", "https://test.local",
                          "reservation", RES, "node", NODE, "seq", seq, "hash", hex,
                          "log_by", LOG_BY);
    ck_assert_int_eq(jws_sign(key, JWS_TYP_ACK, p, &text, &err), 0);
    json_decref(p);
    return text;
}

static void put_keys(struct market *m)
{
    struct keyset set = {.iss = "https://test.local", .exp_us = 2000000, .seq = 1};
    uint8_t pub[JWS_ED25519_LEN];
    struct err err;
    char *text;
    ck_assert_int_eq(jws_keygen(&m->root, &err), 0);
    ck_assert_int_eq(jws_keygen(&m->signer, &err), 0);
    ck_assert_int_eq(jws_public(m->signer, pub, &err), 0);
    ck_assert_int_eq(keyset_add(&set, pub, 0, 2000000, &err), 0);
    ck_assert_int_eq(keyset_sign(&set, m->root, &text, &err), 0);
    ck_assert_int_eq(jws_public(m->root, pub, &err), 0);
    jws_thumbprint(pub, m->root_kid);
    json_object_set_new(m->bundle, "key_set", json_string(text));
    json_object_set_new(m->bundle, "root", jws_jwk(pub));
    free(text);
}

/* Gives records their leaves in a log with others before and after; adds the entries.
 */
struct filling {
    struct merkle_hash leaves[FILL];
    unsigned count;
};

static int filled(void *arg, unsigned level, uint64_t index, unsigned count,
                  struct merkle_hash *out, struct err *err)
{
    const struct filling *f = arg;
    (void)err;
    ck_assert_uint_eq(level, 0);
    ck_assert_uint_eq(index, 0);
    ck_assert_uint_le(count, f->count);
    memcpy(out, f->leaves, count * sizeof(*out));
    return 0;
}

static void put_log(struct market *m, int which, const char *name, json_t **records,
                    size_t count)
{
    struct filling f = {.count = FILL};
    struct merkle_tiles tiles = {filled, &f, NULL};
    struct checkpoint c = {.size = FILL};
    struct note_key k;
    struct err err;
    char origin[NOTE_NAME_MAX], hex[SHA256_HEX], *text, *note;
    uint8_t nonces[FILL][LOGENTRY_NONCE_LEN];
    for (int i = 0; i < FILL; i++)
        f.leaves[i] = merkle_leaf(&i, sizeof(i));
    for (size_t i = 0; i < count; i++) {
        memset(nonces[i], (int)i + 1, LOGENTRY_NONCE_LEN);
        ck_assert_int_eq(
            logentry_leaf(records[i], nonces[i], &f.leaves[3 * i + 1], &err), 0);
    }
    snprintf(origin, sizeof(origin), "test.local/%s", name);
    snprintf(c.origin, sizeof(c.origin), "%s", origin);
    ck_assert_int_eq(merkle_root(&tiles, FILL, &c.root, &err), 0);
    ck_assert_int_eq(note_key_make(origin, NOTE_ALG_SIGN, m->log_key, &k, &err), 0);
    note_key_print(&k, m->vkey[which]);
    text = checkpoint_print(&c);
    ck_assert_int_eq(note_sign(text, origin, m->log_key, &note, &err), 0);
    json_object_set_new(json_object_get(m->bundle, "logs"), name,
                        json_pack("{s:s, s:i, s:s}", "vkey", m->vkey[which], "size",
                                  FILL, "checkpoint", note));
    for (size_t i = 0; i < count; i++) {
        struct merkle_proof p;
        json_t *path = json_array();
        ck_assert_int_eq(merkle_prove_inclusion(&tiles, 3 * i + 1, FILL, &p, &err), 0);
        for (size_t n = 0; n < p.count; n++) {
            digest_hex(p.path[n].b, SHA256_LEN, hex);
            json_array_append_new(path, json_string(hex));
        }
        digest_hex(nonces[i], LOGENTRY_NONCE_LEN, hex);
        json_array_append_new(json_object_get(m->bundle, "entries"),
                              json_pack("{s:s, s:i, s:s, s:o, s:o}", "log", name,
                                        "index", (int)(3 * i + 1), "nonce", hex,
                                        "record", records[i], "proof", path));
    }
    free(text);
    free(note);
}

#define TRANSFER(id, kind, at, amount, ref)                                       \
    "{\"type\":\"transfer\",\"id\":\"" id "\",\"kind\":\"" kind "\",\"at\":\"" at \
    "\",\"dr\":\"hold/t\",\"cr\":\"fee\",\"currency\":\"JPY\",\"amount_micro\":"  \
    "\"" amount "\",\"reservation\":\"" RES "\",\"ref\":\"" RES "/" ref           \
    "\",\"reverses\":null}"

/* 8 GPUs for an hour at 33,000 a GPU-hour, fee 5 %; a path of 2 lanes at 36 each. */
#define AGREED                                                                        \
    "{\"type\":\"agreed\",\"reservation\":\"" RES "\",\"generation\":1,\"at\":"       \
    "\"2026-11-01T23:00:00.000000Z\",\"from\":\"2026-11-02T00:00:00.000000Z\",\"to\"" \
    ":\"2026-11-02T01:00:00.000000Z\",\"currency\":\"JPY\",\"spot\":false,"           \
    "\"bookings\":[{\"booking\":\"5\",\"node_id\":1,\"node\":\"" NODE "\",\"gpus\":8" \
    ",\"per_gpu_hour_micro\":\"33000000000\",\"fee_ppm\":50000}],\"paths\":[{"        \
    "\"booking\":\"9\",\"path\":\"p\",\"lanes\":2,\"per_lane_hour_micro\":"           \
    "\"36000000\",\"fee_ppm\":0}]}"

#define RECEIPTS 4
#define LEDGER   7
#define RECORDS  (RECEIPTS + LEDGER)

static void put_receipts(struct market *m, char *texts[RECEIPTS])
{
    struct err err;
    uint8_t pub[JWS_ED25519_LEN];
    char hex[SHA256_HEX];
    ck_assert_int_eq(jws_public(m->node_key, pub, &err), 0);
    digest_hex(pub, sizeof(pub), hex);
    for (int i = 0; i < RECEIPTS; i++) {
        char *sign = countersign(m->signer, i + 1, texts[i]);
        json_array_append_new(json_object_get(m->bundle, "receipts"),
                              json_pack("{s:s, s:s, s:s, s:s}", "node", NODE, "key",
                                        hex, "receipt", texts[i], "countersign", sign));
        free(sign);
        free(texts[i]);
    }
}

/* 1,050,000,000 and 50,000,000 captured: net 1,100 yen, tax 110. What comes in December
 * is not in the invoice. */
static void market_open(struct market *m)
{
    static const int used_ms[RECEIPTS] = {0, 60000, 120000, 120001};
    struct err err;
    char *texts[RECEIPTS], hex[SHA256_HEX];
    json_t *usage[RECEIPTS], *ledger[LEDGER];
    memset(m, 0, sizeof(*m));
    ck_assert_int_eq(jws_keygen(&m->log_key, &err), 0);
    ck_assert_int_eq(jws_keygen(&m->node_key, &err), 0);
    m->bundle = json_pack("{s:s, s:s, s:{}, s:[], s:[]}", "format", BUNDLE_FORMAT,
                          "market", "test.local", "logs", "entries", "receipts");
    for (int i = 0; i < RECEIPTS; i++) {
        texts[i] =
            receipt(m->node_key, i + 1, i == 0 ? NULL : texts[i - 1], used_ms[i]);
        digest_sha256_hex(texts[i], strlen(texts[i]), hex);
        usage[i] = json_pack("{s:s, s:s, s:s, s:i, s:s, s:s}", "type", "receipt",
                             "reservation", RES, "node", NODE, "seq", i + 1, "sha256",
                             hex, "received_at", "2026-11-02T00:10:00.000000Z");
    }
    put_keys(m);
    put_receipts(m, texts);
    ledger[0] = record(
        TRANSFER("1", "capture", "2026-11-02T00:00:00.000000Z", "1045000000", "1/3"));
    ledger[1] =
        record(TRANSFER("2", "fee", "2026-11-02T00:00:00.000000Z", "55000000", "1/3"));
    ledger[2] =
        record(TRANSFER("3", "capture", "2026-12-01T00:00:00.000000Z", "8709", "1/4"));
    ledger[3] = record(
        "{\"type\":\"invoice\",\"number\":\"INV-1\",\"currency\":\"JPY\",\"from\":"
        "\"2026-11-01T00:00:00.000000Z\",\"to\":\"2026-12-01T00:00:00.000000Z\","
        "\"net_micro\":\"1100000000\",\"tax_ppm\":100000,\"tax_micro\":\"110000000\","
        "\"total_micro\":\"1210000000\",\"lines\":[{\"description\":\"8 x H100\","
        "\"reservation\":\"" RES "\",\"quantity_gpu_ms\":\"120000\",\"amount_micro\":"
        "\"1100000000\"}]}");
    ledger[4] = record(AGREED);
    ledger[5] = record(
        TRANSFER("4", "capture", "2026-12-01T00:00:00.000000Z", "36000000", "path/9"));
    ledger[6] =
        record(TRANSFER("5", "fee", "2026-12-01T00:00:00.000000Z", "458", "1/4"));
    put_log(m, 0, "usage", usage, RECEIPTS);
    put_log(m, 1, "ledger", ledger, LEDGER);
}

static void market_close(struct market *m)
{
    json_decref(m->bundle);
    EVP_PKEY_free(m->log_key);
    EVP_PKEY_free(m->node_key);
    EVP_PKEY_free(m->root);
    EVP_PKEY_free(m->signer);
}

static void known_of(const struct market *m, struct bundle_log known[BUNDLE_LOGS])
{
    memset(known, 0, sizeof(*known) * BUNDLE_LOGS);
    memcpy(known[0].name, "usage", 6);
    memcpy(known[1].name, "ledger", 7);
    for (int i = 0; i < BUNDLE_LOGS; i++)
        memcpy(known[i].vkey, m->vkey[i], NOTE_VKEY_MAX);
}

/* --- */

START_TEST(test_whole)
{
    struct market m;
    struct bundle_log known[BUNDLE_LOGS];
    struct bundle_result r;
    struct err err;
    market_open(&m);
    known_of(&m, known);
    ck_assert_int_eq(bundle_check(m.bundle, known, m.root_kid, INT64_MAX, &r, &err), 0);
    ck_assert_str_eq(strbuf_str(&r.breaches), "");
    ck_assert_uint_eq(r.records, RECORDS);
    ck_assert_uint_eq(r.receipts, RECEIPTS);
    ck_assert_uint_eq(r.countersigned, RECEIPTS);
    ck_assert_uint_eq(r.priced, 1);
    ck_assert_uint_eq(r.invoices, 1);
    ck_assert(r.pinned);
    bundle_result_done(&r);
    ck_assert_int_eq(bundle_check(m.bundle, NULL, NULL, INT64_MAX, &r, &err), 0);
    ck_assert(!r.pinned); /* right in itself, but whose log is it? */
    ck_assert_uint_eq(r.breach_count, 0);
    bundle_result_done(&r);
    market_close(&m);
}
END_TEST

/* path: members and indexes; value: what is put there (NULL: it is taken away). */
struct forgery {
    const char *path, *value, *breach;
};
static const struct forgery forgeries[] = {
    {"entries.0.record.seq", "9", "not what the log usage has"},
    {"entries.0.nonce", "\"00000000000000000000000000000000\"", "not what the log"},
    {"entries.0.nonce", "\"0\"", "malformed"},
    {"entries.0.index", "2", "not what the log"},
    {"entries.0.index", "-1", "malformed"},
    {"entries.0.log", "\"ledger\"", "not what the log ledger has"},
    {"entries.0.log", "\"other\"", "malformed"},
    {"entries.0.proof.0",
     "\"00000000000000000000000000000000000000000000000000000000000000ff\"",
     "not what the log"},
    {"entries.0.proof.0", NULL, "not what the log"},
    {"entries.0.proof", "\"\"", "malformed"},
    {"entries.0", NULL, "not in the log"},
    {"entries.4.record.amount_micro", "\"1060000000\"", "transfer 1: not what the log"},
    {"entries.4", NULL, "captured were 55000000"},
    {"entries.7.record.total_micro", "\"1\"", "net and tax do not make its total"},
    {"entries.7.record.net_micro", "\"1101000000\"", "do not make its net"},
    {"entries.7.record.tax_micro", "\"0\"", "its tax is not"},
    {"entries.7.record.lines.0.amount_micro", "\"1\"", "line 1 is 1 micro"},
    {"entries.7.record.lines.0.amount_micro", "1", "has no amount"},
    {"entries.7.record.lines.0.quantity_gpu_ms", "\"119000\"",
     "for 119000 GPU-ms, by the agreed price it is 1090833333"},
    {"entries.8.record.bookings.0.per_gpu_hour_micro", "\"32999000000\"",
     "by the agreed price (32999000000 a GPU-hour)"},
    {"entries.8.record.bookings.0.per_gpu_hour_micro", "\"33100000000\"",
     "by the agreed price (33100000000 a GPU-hour)"},
    {"entries.8.record.bookings.0.per_gpu_hour_micro", "null", "no price agreed"},
    {"entries.8.record.bookings.0.node_id", "2", "no price agreed for node 1"},
    {"entries.8.record.bookings.0.fee_ppm", "40000", "agreed were 40000 ppm"},
    {"entries.8.record.paths.0.per_lane_hour_micro", "\"35000000\"", "for path 9"},
    {"entries.8.record.paths.0.per_lane_hour_micro", "\"17000000\"", "for path 9"},
    {"entries.8.record.paths.0.booking", "\"8\"", "no price agreed for path 9"},
    {"entries.8", NULL, "no price agreed for node 1"},
    {"entries.9.record.ref", "\"x\"", "for nothing that is known"},
    {"entries.4.record.amount_micro", "\"1044999999\"",
     "charged are 1099999999 micro up to receipt 3"},
    {"receipts.2", NULL, "charged for receipt 3"},
    {"receipts.0", NULL, "one is missing"},
    {"receipts.1", NULL, "one is missing"},
    {"receipts.1.receipt", "\"a.b.c\"", "receipt 2:"},
    {"receipts.1.key",
     "\"1111111111111111111111111111111111111111111111111111111111111111\"",
     "not signed by its node"},
    {"receipts.1.node", "\"spiffe://test.local/site/a/node/n2\"", "another node"},
    {"receipts.1.countersign", "\"a.b.c\"", "not what was countersigned"},
    {"key_set", "\"a.b.c\"", "the market's keys"},
    {"root.x", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"", "the market's keys"},
    {"key_set", NULL, "not what was countersigned"},
    {"root", "null", "another root"},
    {"logs.usage.checkpoint", "\"test.local/usage\\n40\\n\"", "log usage:"},
    {"logs.usage.vkey", "\"x\"", "log usage: signed by"},
    {"logs.usage", NULL, "not what the log usage has"},
    {"market", "\"other.local\"", "not of 'other.local/usage'"},
};

/* The container of the last step of a path, and that step. */
static json_t *walk(json_t *root, const char *path, char last[40])
{
    char part[40];
    json_t *at = root;
    for (;;) {
        size_t n = strcspn(path, ".");
        ck_assert_uint_lt(n, sizeof(part));
        memcpy(part, path, n);
        part[n] = '\0';
        if (path[n] == '\0') {
            memcpy(last, part, n + 1);
            return at;
        }
        at = json_is_array(at) ? json_array_get(at, strtoul(part, NULL, 10))
                               : json_object_get(at, part);
        path += n + 1;
    }
}

static void forge(json_t *bundle, const struct forgery *f)
{
    char last[40];
    json_t *in = walk(bundle, f->path, last);
    json_t *v = f->value != NULL ? json_loads(f->value, JSON_DECODE_ANY, NULL) : NULL;
    if (json_is_array(in) && v != NULL)
        json_array_set_new(in, strtoul(last, NULL, 10), v);
    else if (json_is_array(in))
        json_array_remove(in, strtoul(last, NULL, 10));
    else if (v != NULL)
        json_object_set_new(in, last, v);
    else
        json_object_del(in, last);
}

/* Two classes of tax in place of the one rate, and what is wrong with each. The proof
 * does not hold for these: it is another test's. */
static const struct forgery taxed[] = {
    {"taxes.0.tax_micro", "\"101000000\"", "its tax is not"},
    {"taxes.1.rate_ppm", "100000", "its tax is not"},
    {"taxes.0.base_micro", "\"1001000000\"", "do not make its net"},
    {"taxes.1.class", "\"zero\"", "do not make its net"},
    {"taxes.1", NULL, "the bases of its taxes"},
    {"taxes.1.base_micro", "1", "malformed"},
    {"tax_micro", "\"110000000\"", "do not make its tax"},
    {"lines.0.tax_class", "\"reduced\"", "do not make its net"},
    {"lines.1.amount_micro", "\"99000000\"", "captured were 1100000000"},
};

START_TEST(test_rates)
{
    struct market m;
    struct bundle_result r;
    struct err err;
    for (size_t i = 0; i <= sizeof(taxed) / sizeof(taxed[0]); i++) {
        market_open(&m);
        json_t *inv = json_object_get(
            json_array_get(json_object_get(m.bundle, "entries"), 7), "record");
        json_t *more = json_loads(
            "{\"lines\":[{\"reservation\":\"" RES "\",\"amount_micro\":"
            "\"1000000000\",\"tax_class\":\"standard\"},{\"reservation\":\"" RES
            "\",\"amount_micro\":\"100000000\",\"tax_class\":\"reduced\"}],"
            "\"tax_micro\":\"108000000\",\"total_micro\":\"1208000000\",\"taxes\":["
            "{\"class\":\"standard\",\"rate_ppm\":100000,\"base_micro\":"
            "\"1000000000\",\"tax_micro\":\"100000000\"},{\"class\":\"reduced\","
            "\"rate_ppm\":80000,\"base_micro\":\"100000000\",\"tax_micro\":"
            "\"8000000\"}]}",
            0, NULL);
        json_object_del(inv, "tax_ppm");
        json_object_update(inv, more);
        json_decref(more);
        const char *want = "invoice INV-1: not what the log";
        if (i > 0) {
            forge(inv, &taxed[i - 1]);
            want = taxed[i - 1].breach;
        }
        ck_assert_int_eq(bundle_check(m.bundle, NULL, NULL, INT64_MAX, &r, &err), 0);
        ck_assert_msg(strstr(strbuf_str(&r.breaches), want) != NULL, "%s: %s", want,
                      strbuf_str(&r.breaches));
        ck_assert(i > 0 || r.breach_count == 1); /* the sums are right */
        bundle_result_done(&r);
        market_close(&m);
    }
}
END_TEST

/* A credit note with its transfers, and what is wrong with each. */
static const struct forgery noted[] = {
    {"note.total_micro", "\"1\"", "its total is not what was given back"},
    {"note.taxes.0.base_micro", "\"1\"", "its taxes do not make its sums"},
    {"note.tax_micro", "\"0\"", "its taxes do not make its sums"},
    {"note.net_micro", "5", "a sum is malformed"},
    {"note.taxes.0.tax_micro", "5", "a tax is malformed"},
    {"tax.amount_micro", "\"1\"", "its total is not what was given back"},
    {"tax.ref", "\"CN-1x\"", "its total is not what was given back"},
    {"inv.taxes.0.rate_ppm", "50000", "give back another standard tax"},
    {"inv.taxes.0.tax_micro", "\"9000000\"", "give back another standard tax"},
};

START_TEST(test_credit_notes)
{
    struct market m;
    struct bundle_result r;
    struct err err;
    for (size_t i = 0; i <= sizeof(noted) / sizeof(noted[0]); i++) {
        market_open(&m);
        json_t *entries = json_object_get(m.bundle, "entries"), *parts = json_object();
        json_t *inv = json_object_get(json_array_get(entries, 7), "record");
        json_object_set(parts, "inv", inv);
        json_object_set_new(inv, "taxes",
                            json_loads("[{\"class\":\"standard\",\"rate_ppm\":100000,"
                                       "\"base_micro\":\"1100000000\",\"tax_micro\":"
                                       "\"110000000\"}]",
                                       0, NULL));
        json_object_set_new(
            parts, "note",
            json_loads("{\"type\":\"credit_note\",\"number\":\"CN-1\",\"invoice\":"
                       "\"INV-1\",\"net_micro\":\"100000000\",\"tax_micro\":"
                       "\"10000000\",\"total_micro\":\"110000000\",\"taxes\":[{"
                       "\"class\":\"standard\",\"rate_ppm\":100000,\"base_micro\":"
                       "\"100000000\",\"tax_micro\":\"10000000\"}]}",
                       0, NULL));
        json_object_set_new(
            parts, "net",
            json_loads("{\"type\":\"transfer\",\"kind\":\"refund\",\"ref\":"
                       "\"CN-1/x\",\"amount_micro\":\"100000000\"}",
                       0, NULL));
        json_object_set_new(
            parts, "tax",
            json_loads("{\"type\":\"transfer\",\"kind\":\"refund_tax\",\"ref\":"
                       "\"CN-1/standard\",\"amount_micro\":\"10000000\"}",
                       0, NULL));
        if (i > 0)
            forge(parts, &noted[i - 1]);
        static const char *const added[] = {"note", "net", "tax"};
        for (int n = 0; n < 3; n++)
            json_array_append_new(entries, json_pack("{s:O}", "record",
                                                     json_object_get(parts, added[n])));
        ck_assert_int_eq(bundle_check(m.bundle, NULL, NULL, INT64_MAX, &r, &err), 0);
        ck_assert_uint_eq(r.credit_notes, 1);
        const char *want = i > 0 ? noted[i - 1].breach : "credit_note CN-1: its entry";
        ck_assert_msg(strstr(strbuf_str(&r.breaches), want) != NULL, "%s: %s", want,
                      strbuf_str(&r.breaches));
        if (i == 0) { /* only the proofs are missing */
            ck_assert_ptr_null(strstr(strbuf_str(&r.breaches), "credit note"));
            ck_assert_ptr_null(strstr(strbuf_str(&r.breaches), "give back"));
        }
        bundle_result_done(&r);
        json_decref(parts);
        market_close(&m);
    }
}
END_TEST

START_TEST(test_forged)
{
    struct market m;
    struct bundle_log known[BUNDLE_LOGS];
    struct err err;
    market_open(&m);
    known_of(&m, known);
    for (size_t i = 0; i < sizeof(forgeries) / sizeof(forgeries[0]); i++) {
        struct bundle_result r;
        json_t *copy = json_deep_copy(m.bundle);
        forge(copy, &forgeries[i]);
        ck_assert_int_eq(bundle_check(copy, known, m.root_kid, INT64_MAX, &r, &err), 0);
        ck_assert_msg(strstr(strbuf_str(&r.breaches), forgeries[i].breach) != NULL,
                      "%s: '%s' is not in: %s", forgeries[i].path, forgeries[i].breach,
                      strbuf_str(&r.breaches));
        bundle_result_done(&r);
        json_decref(copy);
    }
    market_close(&m);
}
END_TEST

/* What is charged less than the agreed price gives is right where the hold was spent,
 * or where use was reported past the promised window; more never is. */
START_TEST(test_less)
{
    static const struct {
        const char *price, *held, *to;
        bool fine;
    } rows[] = {
        {"33100000000", "9000000000", "2026-11-02T01:00:00.000000Z", false},
        {"33100000000", "1136009167", "2026-11-02T01:00:00.000000Z", true},
        {"33100000000", "1136009168", "2026-11-02T01:00:00.000000Z", false},
        {"32999000000", "1136009167", "2026-11-02T01:00:00.000000Z", false},
        {"33100000000", "9000000000", "2026-11-02T00:00:14.900000Z", true},
        {"32000000000", "9000000000", "2026-11-02T00:00:14.900000Z", false},
    };
    struct market m;
    struct err err;
    market_open(&m);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *copy = json_deep_copy(m.bundle), *entries, *agreed, *hold;
        struct bundle_result r;
        entries = json_object_get(copy, "entries");
        agreed = json_object_get(json_array_get(entries, 8), "record");
        json_object_set_new(agreed, "to", json_string(rows[i].to));
        json_object_set_new(json_array_get(json_object_get(agreed, "bookings"), 0),
                            "per_gpu_hour_micro", json_string(rows[i].price));
        json_array_clear(json_object_get(agreed, "paths"));
        hold = record(TRANSFER("0", "hold", "2026-11-01T00:00:00.000000Z", "", "hold"));
        json_object_set_new(hold, "amount_micro", json_string(rows[i].held));
        json_array_append_new(entries,
                              json_pack("{s:s, s:o}", "log", "ledger", "record", hold));
        ck_assert_int_eq(bundle_check(copy, NULL, NULL, INT64_MAX, &r, &err), 0);
        ck_assert_msg((strstr(strbuf_str(&r.breaches), "by the agreed price") ==
                       NULL) == rows[i].fine,
                      "%zu: %s", i, strbuf_str(&r.breaches));
        bundle_result_done(&r);
        json_decref(copy);
    }
    market_close(&m);
}
END_TEST

/* Left out of the log: a promise until it is due, then a breach that names it. */
START_TEST(test_promise)
{
    struct market m;
    struct bundle_log known[BUNDLE_LOGS];
    struct bundle_result r;
    struct err err;
    market_open(&m);
    known_of(&m, known);
    json_array_remove(json_object_get(m.bundle, "entries"), 0);
    for (int late = 0; late < 2; late++) {
        int64_t now_us = (int64_t)(LOG_BY + late) * 1000000;
        ck_assert_int_eq(bundle_check(m.bundle, known, m.root_kid, now_us, &r, &err),
                         0);
        ck_assert_uint_eq(r.promised, !late);
        ck_assert_uint_eq(r.breach_count, (size_t)late);
        ck_assert(!late || strstr(strbuf_str(&r.breaches),
                                  "promised a place by 1970-01-01T00:16:40Z") != NULL);
        bundle_result_done(&r);
    }
    market_close(&m);
}
END_TEST

/* Two receipts in each other's place: each is signed, none follows the one before. */
START_TEST(test_swapped)
{
    struct market m;
    struct bundle_result r;
    struct err err;
    market_open(&m);
    json_t *list = json_object_get(m.bundle, "receipts");
    json_t *second = json_incref(json_array_get(list, 1));
    json_array_remove(list, 1);
    json_array_append_new(list, second);
    ck_assert_int_eq(bundle_check(m.bundle, NULL, NULL, INT64_MAX, &r, &err), 0);
    ck_assert_uint_ge(r.breach_count, 2);
    bundle_result_done(&r);
    market_close(&m);
}
END_TEST

START_TEST(test_no_bundle)
{
    static const char *const rows[] = {
        "{}",
        "[]",
        "{\"format\":\"neargpu-bundle-v2\",\"entries\":[],\"receipts\":[]}",
        "{\"format\":\"neargpu-bundle-v1\",\"entries\":{},\"receipts\":[]}",
        "{\"format\":\"neargpu-bundle-v1\",\"entries\":[]}",
    };
    struct bundle_result r;
    struct err err;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *v = record(rows[i]);
        ck_assert_int_eq(bundle_check(v, NULL, NULL, INT64_MAX, &r, &err), -1);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
        json_decref(v);
    }
}
END_TEST

/* --- heads --- */

static json_t *head_of(EVP_PKEY *key, const char *origin, unsigned size, unsigned from,
                       int fork)
{
    struct filling f = {.count = size};
    struct merkle_tiles tiles = {filled, &f, NULL};
    struct checkpoint c = {.size = size};
    struct merkle_proof p;
    struct note_key k;
    struct err err;
    char vkey[NOTE_VKEY_MAX], hex[SHA256_HEX], *text, *note;
    json_t *path = json_array();
    for (int i = 0; i < (int)size; i++) {
        int data = i == fork ? -1 : i;
        f.leaves[i] = merkle_leaf(&data, sizeof(data));
    }
    snprintf(c.origin, sizeof(c.origin), "%s", origin);
    ck_assert_int_eq(merkle_root(&tiles, size, &c.root, &err), 0);
    ck_assert_int_eq(note_key_make(origin, NOTE_ALG_SIGN, key, &k, &err), 0);
    note_key_print(&k, vkey);
    text = checkpoint_print(&c);
    ck_assert_int_eq(note_sign(text, origin, key, &note, &err), 0);
    ck_assert_int_eq(merkle_prove_extension(&tiles, from, size, &p, &err), 0);
    for (size_t n = 0; n < p.count; n++) {
        digest_hex(p.path[n].b, SHA256_LEN, hex);
        json_array_append_new(path, json_string(hex));
    }
    json_t *head = json_pack("{s:s, s:s, s:o}", "vkey", vkey, "checkpoint", note,
                             "consistency", path);
    free(text);
    free(note);
    return head;
}

static int follow_once(struct bundle_log *log, json_t *take_head, const char *why)
{
    struct err err = {.text = ""};
    int rc = bundle_follow(take_head, log, &err);
    ck_assert_msg(why == NULL || strstr(err.text, why) != NULL, "%s", err.text);
    json_decref(take_head);
    return rc;
}

START_TEST(test_follow)
{
    const char *origin = "test.local/usage";
    struct bundle_log log = {.name = "usage"}, before;
    EVP_PKEY *key, *other;
    struct err err;
    ck_assert_int_eq(jws_keygen(&key, &err), 0);
    ck_assert_int_eq(jws_keygen(&other, &err), 0);
    ck_assert_int_eq(follow_once(&log, head_of(key, origin, 5, 0, -1), NULL), 0);
    ck_assert_uint_eq(log.size, 5);
    ck_assert_int_eq(follow_once(&log, head_of(key, origin, 11, 5, -1), NULL), 0);
    ck_assert_uint_eq(log.size, 11);
    before = log;
    ck_assert_int_eq(
        follow_once(&log, head_of(key, origin, 20, 11, 3), "different logs"), -1);
    ck_assert_int_eq(follow_once(&log, head_of(key, origin, 5, 5, -1), "do not extend"),
                     -1);
    ck_assert_int_eq(follow_once(&log, head_of(other, origin, 20, 11, -1), "signed by"),
                     -1);
    ck_assert_int_eq(
        follow_once(&log, head_of(key, "test.local/ledger", 20, 11, -1), "signed by"),
        -1);
    ck_assert_mem_eq(&log, &before, sizeof(log)); /* nothing wrong was kept */
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}
END_TEST

UNIT_MAIN("bundle", UNIT_CASE(test_whole) UNIT_CASE(test_forged) UNIT_CASE(test_rates)
                        UNIT_CASE(test_credit_notes) UNIT_CASE(test_less)
                            UNIT_CASE(test_promise) UNIT_CASE(test_swapped)
                                UNIT_CASE(test_no_bundle) UNIT_CASE(test_follow))
