/* bundle: see bundle.h. */
#include "client/lib/bundle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/bounds.h"
#include "client/lib/bundle_impl.h"
#include "client/lib/countersign.h"
#include "client/lib/jws.h"
#include "client/lib/keyset.h"
#include "client/lib/logentry.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

void bundle_breach(struct check *c, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (c->result->breach_count++ >= BUNDLE_BREACHES_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    strbuf_addf(&c->result->breaches, "%s\n", text);
}

const char *bundle_text(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

bool bundle_number(const json_t *obj, const char *name, int64_t *ret)
{
    const char *text = bundle_text(obj, name);
    char *end;
    if (text[0] == '\0' || strlen(text) > 20)
        return false;
    *ret = strtoll(text, &end, 10);
    return *end == '\0';
}

/* "transfer 12", "receipt RES/3", "invoice NUMBER". */
static void name_of(const json_t *record, char *out, size_t cap)
{
    const char *type = bundle_text(record, "type");
    if (strcmp(type, "receipt") == 0)
        snprintf(out, cap, "receipt %.40s/%" JSON_INTEGER_FORMAT,
                 bundle_text(record, "reservation"),
                 json_integer_value(json_object_get(record, "seq")));
    else
        snprintf(out, cap, "%.20s %.40s", type,
                 bundle_text(record, strcmp(type, "invoice") == 0 ||
                                             strcmp(type, "credit_note") == 0
                                         ? "number"
                                     : strcmp(type, "agreed") == 0 ? "reservation"
                                                                   : "id"));
}

/* --- heads --- */

static int open_head(const char *vkey, const char *note, const char *origin,
                     struct checkpoint *ret, struct err *err)
{
    struct note_key key;
    char *text;
    if (note_key_parse(vkey, &key, err) != 0 || note_open(note, &key, &text, err) != 0)
        return -1;
    int rc = checkpoint_parse(text, ret, err);
    free(text);
    if (rc == 0 && strcmp(ret->origin, origin) != 0)
        return err_set(err, ERR_TOKEN, "the head is that of '%.60s', not of '%.60s'",
                       ret->origin, origin);
    return rc;
}

static const struct bundle_log *known_log(const struct bundle_log *known,
                                          const char *name)
{
    for (int i = 0; known != NULL && i < BUNDLE_LOGS; i++)
        if (strcmp(known[i].name, name) == 0 && known[i].vkey[0] != '\0')
            return &known[i];
    return NULL;
}

static void check_head(struct check *c, const struct bundle_log *known,
                       struct bundle_log *log)
{
    const json_t *head = json_object_get(json_object_get(c->bundle, "logs"), log->name);
    const struct bundle_log *before = known_log(known, log->name);
    const char *vkey = bundle_text(head, "vkey");
    struct checkpoint point;
    struct err err;
    char origin[NOTE_NAME_MAX];
    if (vkey[0] == '\0') /* a log that has not begun */
        return;
    snprintf(origin, sizeof(origin), "%.90s/%s", bundle_text(c->bundle, "market"),
             log->name);
    if (before != NULL && strcmp(before->vkey, vkey) != 0) {
        bundle_breach(c, "log %s: signed by %.100s, not by %.100s", log->name, vkey,
                      before->vkey);
        return;
    }
    if (open_head(vkey, bundle_text(head, "checkpoint"), origin, &point, &err) != 0) {
        bundle_breach(c, "log %s: %s", log->name, err.text);
        return;
    }
    if (before != NULL && before->size == point.size && point.size > 0 &&
        !merkle_equal(&before->root, &point.root)) {
        bundle_breach(
            c, "log %s: another log than the one seen before has %" PRIu64 " leaves",
            log->name, point.size);
        return;
    }
    snprintf(log->vkey, sizeof(log->vkey), "%s", vkey);
    log->size = point.size;
    log->root = point.root;
    c->result->pinned = c->result->pinned && before != NULL;
}

/* --- entries --- */

static int proof_of(const json_t *list, struct merkle_proof *ret)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > MERKLE_PROOF_MAX)
        return -1;
    ret->count = n;
    for (size_t i = 0; i < n; i++) {
        const char *hex = json_string_value(json_array_get(list, i));
        if (hex == NULL || !logentry_unhex(hex, ret->path[i].b, SHA256_LEN))
            return -1;
    }
    return 0;
}

static const struct bundle_log *log_named(const struct check *c, const char *name)
{
    for (int i = 0; i < BUNDLE_LOGS; i++)
        if (strcmp(c->result->logs[i].name, name) == 0)
            return &c->result->logs[i];
    return NULL;
}

static void check_entry(struct check *c, const json_t *entry)
{
    const json_t *record = json_object_get(entry, "record");
    const struct bundle_log *log = log_named(c, bundle_text(entry, "log"));
    json_int_t index = json_integer_value(json_object_get(entry, "index"));
    uint8_t nonce[LOGENTRY_NONCE_LEN];
    struct merkle_proof proof;
    struct merkle_hash leaf;
    struct err err;
    char name[100];
    name_of(record, name, sizeof(name));
    c->result->records++;
    if (log == NULL || index < 0 || !json_is_object(record) ||
        !logentry_unhex(bundle_text(entry, "nonce"), nonce, sizeof(nonce)) ||
        proof_of(json_object_get(entry, "proof"), &proof) != 0)
        bundle_breach(c, "%s: its entry is malformed", name);
    else if (logentry_leaf(record, nonce, &leaf, &err) != 0)
        bundle_breach(c, "%s: %s", name, err.text);
    else if (!merkle_includes((uint64_t)index, log->size, &leaf, &proof, &log->root))
        bundle_breach(c, "%s: not what the log %s has as leaf %" JSON_INTEGER_FORMAT,
                      name, log->name, index);
}

/* --- receipts --- */

struct chain {
    char reservation[64], node[300];
    int64_t seq, gpu_ms;
    char prev[JWS_KID_MAX];
};

static const json_t *find_receipt(const struct check *c, const char *reservation,
                                  const char *node, json_int_t seq)
{
    const json_t *entry;
    size_t i;
    json_array_foreach(c->entries, i, entry)
    {
        const json_t *r = json_object_get(entry, "record");
        if (strcmp(bundle_text(r, "type"), "receipt") == 0 &&
            json_integer_value(json_object_get(r, "seq")) == seq &&
            strcmp(bundle_text(r, "reservation"), reservation) == 0 &&
            strcmp(bundle_text(r, "node"), node) == 0)
            return r;
    }
    return NULL;
}

/* Decodes a receipt that its node's key signed; new reference, NULL: a breach was told.
 */
static json_t *open_receipt(struct check *c, const json_t *row, size_t at)
{
    const char *text = bundle_text(row, "receipt"), *step;
    uint8_t pub[JWS_ED25519_LEN];
    struct jws_parts parts;
    struct err err;
    json_t *payload = NULL;
    if (!logentry_unhex(bundle_text(row, "key"), pub, sizeof(pub))) {
        bundle_breach(c, "receipt %zu: its node's key is malformed", at);
        return NULL;
    }
    if (jws_split_max(text, strlen(text), RECEIPT_BYTES_MAX, &parts, &step, &err) !=
        0) {
        bundle_breach(c, "receipt %zu: %s", at, err.text);
        return NULL;
    }
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, sizeof(pub));
    if (key == NULL || strcmp(parts.typ, JWS_TYP_USAGE) != 0 ||
        jws_verify(&parts, key, &err) != 0)
        bundle_breach(c, "receipt %zu: not signed by its node's receipt key", at);
    else
        payload = json_loadb(parts.payload, parts.payload_len, 0, NULL);
    EVP_PKEY_free(key);
    jws_parts_done(&parts);
    return payload;
}

/* The market's keys, under the root that is told with them. */
static void read_market(struct check *c)
{
    const char *text = bundle_text(c->bundle, "key_set"), *step;
    uint8_t root[JWS_ED25519_LEN];
    struct keyset_want want = {.root = root, .now_us = INT64_MIN};
    struct keyset *set = xmalloc(sizeof(*set));
    struct err err;
    if (text[0] != '\0' &&
        (jws_jwk_parse(json_object_get(c->bundle, "root"), root, &err) != 0 ||
         keyset_check(text, strlen(text), &want, set, &step, &err) != 0 ||
         keyset_ring(set, &c->market, &err) != 0))
        bundle_breach(c, "the market's keys: %s", err.text);
    if (c->market != NULL)
        jws_thumbprint(root, c->result->root);
    free(set);
}

/* *ret_log_by: the second by which it promises a place in the log; 0 none. */
static bool is_countersign(const struct check *c, const json_t *row, const json_t *p,
                           const char *hash, int64_t *ret_log_by)
{
    char iss[200];
    snprintf(iss, sizeof(iss), "https://%.150s", bundle_text(c->bundle, "market"));
    const struct countersign want = {.iss = iss,
                                     .node = bundle_text(row, "node"),
                                     .reservation = bundle_text(p, "reservation"),
                                     .hash = hash,
                                     .seq =
                                         json_integer_value(json_object_get(p, "seq"))};
    struct countersign_said said;
    bool is =
        countersign_is_of(bundle_text(row, "countersign"), &want, c->market, &said);
    *ret_log_by = said.log_by;
    return is;
}

/* Each receipt is in the log, or has a promise of the market that is not due yet. */
static void check_logged(struct check *c, const json_t *row, const json_t *p)
{
    const char *resv = bundle_text(p, "reservation"), *node = bundle_text(row, "node"),
               *text = bundle_text(row, "receipt");
    json_int_t seq = json_integer_value(json_object_get(p, "seq"));
    const json_t *record = find_receipt(c, resv, node, seq);
    char hex[SHA256_HEX], when[TIMEFMT_MAX];
    int64_t log_by = 0;
    digest_sha256_hex(text, strlen(text), hex);
    bool signed_by_market = is_countersign(c, row, p, hex, &log_by);
    if (signed_by_market)
        c->result->countersigned++;
    else if (bundle_text(row, "countersign")[0] != '\0')
        bundle_breach(
            c, "receipt %.40s/%" JSON_INTEGER_FORMAT ": not what was countersigned",
            resv, seq);
    if (record != NULL && strcmp(bundle_text(record, "sha256"), hex) != 0)
        bundle_breach(c,
                      "receipt %.40s/%" JSON_INTEGER_FORMAT ": not the one in the log",
                      resv, seq);
    if (record != NULL)
        return;
    if (log_by > 0 && c->now_us / US_PER_S <= log_by)
        c->result->promised++;
    else if (log_by > 0 && log_by < INT64_MAX / US_PER_S) {
        timefmt_utc(log_by * US_PER_S, when);
        bundle_breach(c,
                      "receipt %.40s/%" JSON_INTEGER_FORMAT
                      ": not in the log, where the market promised a place by %s",
                      resv, seq, when);
    } else
        bundle_breach(c, "receipt %.40s/%" JSON_INTEGER_FORMAT ": not in the log", resv,
                      seq);
}

/* For the prices; texts that live as long as the bundle. */
static void note_use(struct check *c, const json_t *row, const json_t *p)
{
    json_int_t seq = json_integer_value(json_object_get(p, "seq"));
    const char *node = bundle_text(row, "node");
    const json_t *record = find_receipt(c, bundle_text(p, "reservation"), node, seq);
    struct bundle_used *u = &c->used[c->used_count];
    struct err err;
    if (record == NULL) /* promised: it has not been charged yet */
        return;
    *u = (struct bundle_used){
        .reservation = bundle_text(record, "reservation"),
        .node = node,
        .seq = seq,
        .gpu_ms = json_integer_value(json_object_get(p, "gpu_ms")),
        .received_us = INT64_MAX,
        .teardown = strcmp(bundle_text(p, "kind"), "teardown") == 0,
    };
    if (timefmt_parse(bundle_text(record, "received_at"), &u->received_us, &err) != 0)
        u->received_us = INT64_MAX;
    c->used_count++;
}

/* Receipts come by reservation, node and number; each names the one before. */
static void check_receipt(struct check *c, const json_t *row, size_t at,
                          struct chain *chain)
{
    json_t *p = open_receipt(c, row, at);
    if (p == NULL)
        return;
    const char *resv = bundle_text(p, "reservation"), *node = bundle_text(row, "node"),
               *text = bundle_text(row, "receipt");
    json_int_t seq = json_integer_value(json_object_get(p, "seq")),
               gpu_ms = json_integer_value(json_object_get(p, "gpu_ms"));
    uint8_t sum[SHA256_LEN];
    if (strcmp(chain->reservation, resv) != 0 || strcmp(chain->node, node) != 0) {
        memset(chain, 0, sizeof(*chain));
        snprintf(chain->reservation, sizeof(chain->reservation), "%s", resv);
        snprintf(chain->node, sizeof(chain->node), "%s", node);
    }
    if (strcmp(bundle_text(p, "iss"), node) != 0)
        bundle_breach(c,
                      "receipt %.40s/%" JSON_INTEGER_FORMAT ": issued by another node",
                      resv, seq);
    if (seq != chain->seq + 1)
        bundle_breach(c,
                      "receipts of %.40s: %" PRId64
                      " is followed by %" JSON_INTEGER_FORMAT ": one is missing",
                      resv, chain->seq, seq);
    else if (strcmp(bundle_text(p, "prev"), chain->prev) != 0)
        bundle_breach(c,
                      "receipt %.40s/%" JSON_INTEGER_FORMAT ": follows another receipt",
                      resv, seq);
    if (gpu_ms < chain->gpu_ms)
        bundle_breach(c, "receipt %.40s/%" JSON_INTEGER_FORMAT ": less use than before",
                      resv, seq);
    check_logged(c, row, p);
    note_use(c, row, p);
    chain->seq = seq;
    chain->gpu_ms = gpu_ms;
    digest_sha256(text, strlen(text), sum);
    b64_encode(sum, sizeof(sum), chain->prev);
    json_decref(p);
}

/* --- money --- */

/* What was captured (fees included) for a reservation in an invoice's period. Instants
 * are texts of one form: their order is that of time. */
static int64_t captured(const struct check *c, const char *reservation,
                        const char *from, const char *to)
{
    const json_t *entry;
    int64_t sum = 0, amount;
    size_t i;
    json_array_foreach(c->entries, i, entry)
    {
        const json_t *r = json_object_get(entry, "record");
        const char *kind = bundle_text(r, "kind"), *at = bundle_text(r, "at");
        if (strcmp(bundle_text(r, "type"), "transfer") == 0 &&
            (strcmp(kind, "capture") == 0 || strcmp(kind, "fee") == 0) &&
            strcmp(bundle_text(r, "reservation"), reservation) == 0 &&
            strcmp(at, from) >= 0 && strcmp(at, to) < 0 &&
            bundle_number(r, "amount_micro", &amount))
            sum += amount;
    }
    return sum;
}

int64_t bundle_minor(const char *currency)
{
    int digits = money_exponent(currency);
    int64_t minor = MONEY_MICRO;
    for (; digits > 0; digits--)
        minor /= 10;
    return digits < 0 ? 1 : minor;
}

/* The sum of an invoice's lines of one class; class NULL: of all. */
static int64_t sum_of_lines(const json_t *inv, const char *class)
{
    const json_t *line;
    int64_t sum = 0, amount;
    size_t i;
    json_array_foreach(json_object_get(inv, "lines"), i, line)
    {
        if (class != NULL && strcmp(bundle_text(line, "tax_class"), class) != 0)
            continue;
        if (bundle_number(line, "amount_micro", &amount))
            sum += amount;
    }
    return sum;
}

/* A base is the sum of its lines, tax the rate of the base: both rounded once to the
 * minor unit, half away from zero. */
struct tax {
    int64_t ppm, lines, base, tax;
};
static void check_tax(struct check *c, const json_t *inv, const struct tax *t)
{
    const char *number = bundle_text(inv, "number");
    int64_t units, minor = bundle_minor(bundle_text(inv, "currency"));
    struct err err;
    if (money_mul(t->lines, 1, minor, &units, &err) != 0 || units * minor != t->base)
        bundle_breach(c, "invoice %.40s: its lines do not make its net sum", number);
    if (money_mul(t->base, t->ppm, minor * 1000000, &units, &err) != 0 ||
        units * minor != t->tax)
        bundle_breach(c, "invoice %.40s: its tax is not its rate's", number);
}

/* Per class of tax, when it says them, and then their sums. A class that is said twice,
 * or not at all, is in the sums. */
static void check_sums(struct check *c, const json_t *inv)
{
    const char *number = bundle_text(inv, "number");
    const json_t *taxes = json_object_get(inv, "taxes"), *row;
    int64_t net, tax, total, base_sum = 0, tax_sum = 0;
    size_t i;
    if (!bundle_number(inv, "net_micro", &net) ||
        !bundle_number(inv, "tax_micro", &tax) ||
        !bundle_number(inv, "total_micro", &total)) {
        bundle_breach(c, "invoice %.40s: a sum is malformed", number);
        return;
    }
    if (taxes == NULL) {
        const struct tax only = {json_integer_value(json_object_get(inv, "tax_ppm")),
                                 sum_of_lines(inv, NULL), net, tax};
        check_tax(c, inv, &only);
        base_sum = net;
        tax_sum = tax;
    }
    json_array_foreach(taxes, i, row)
    {
        struct tax t = {.ppm = json_integer_value(json_object_get(row, "rate_ppm")),
                        .lines = sum_of_lines(inv, bundle_text(row, "class"))};
        if (!bundle_number(row, "base_micro", &t.base) ||
            !bundle_number(row, "tax_micro", &t.tax)) {
            bundle_breach(c, "invoice %.40s: a tax is malformed", number);
            return;
        }
        check_tax(c, inv, &t);
        base_sum += t.base;
        tax_sum += t.tax;
    }
    if (base_sum != net || sum_of_lines(inv, NULL) != net)
        bundle_breach(
            c, "invoice %.40s: the bases of its taxes do not make its net sum", number);
    if (tax_sum != tax)
        bundle_breach(c, "invoice %.40s: its taxes do not make its tax", number);
    if (net + tax != total)
        bundle_breach(c, "invoice %.40s: net and tax do not make its total", number);
}

/* Use of a reservation on an invoice: it has a line for each class of tax. A line of
 * less than nothing was refunded before it was invoiced, and stands beside the use. */
static int64_t use_of(const json_t *inv, const char *reservation)
{
    const json_t *line;
    int64_t sum = 0, amount;
    size_t i;
    json_array_foreach(json_object_get(inv, "lines"), i, line)
    {
        if (strcmp(bundle_text(line, "reservation"), reservation) == 0 &&
            bundle_number(line, "amount_micro", &amount) && amount > 0)
            sum += amount;
    }
    return sum;
}

static void check_invoice(struct check *c, const json_t *inv)
{
    const json_t *line;
    int64_t amount;
    size_t i;
    c->result->invoices++;
    json_array_foreach(json_object_get(inv, "lines"), i, line)
    {
        const char *resv = bundle_text(line, "reservation");
        if (!bundle_number(line, "amount_micro", &amount)) {
            bundle_breach(c, "invoice %.40s: line %zu has no amount",
                          bundle_text(inv, "number"), i + 1);
            continue;
        }
        if (resv[0] == '\0' || amount < 0)
            continue;
        int64_t was =
            captured(c, resv, bundle_text(inv, "from"), bundle_text(inv, "to"));
        if (was != use_of(inv, resv))
            bundle_breach(c,
                          "invoice %.40s: line %zu is %" PRId64
                          " micro, captured were %" PRId64,
                          bundle_text(inv, "number"), i + 1, amount, was);
    }
    check_sums(c, inv);
}

/* --- all of it --- */

int bundle_check(const json_t *bundle, const struct bundle_log known[BUNDLE_LOGS],
                 const char *root, int64_t now_us, struct bundle_result *ret,
                 struct err *err)
{
    static const char *const names[BUNDLE_LOGS] = {"usage", "ledger"};
    struct check c = {.bundle = bundle, .result = ret, .now_us = now_us};
    struct chain chain = {.seq = 0};
    const json_t *row;
    size_t i;
    c.entries = json_object_get(bundle, "entries");
    c.receipts = json_object_get(bundle, "receipts");
    if (strcmp(bundle_text(bundle, "format"), BUNDLE_FORMAT) != 0 ||
        !json_is_array(c.entries) || !json_is_array(c.receipts))
        return err_set(err, ERR_BAD_REQUEST, "this is no bundle (format %s)",
                       BUNDLE_FORMAT);
    memset(ret, 0, sizeof(*ret));
    c.used = xcalloc(json_array_size(c.receipts) + 1, sizeof(*c.used));
    ret->pinned = true;
    for (int n = 0; n < BUNDLE_LOGS; n++) {
        snprintf(ret->logs[n].name, sizeof(ret->logs[n].name), "%s", names[n]);
        check_head(&c, known, &ret->logs[n]);
    }
    json_array_foreach(c.entries, i, row)
    {
        const json_t *record = json_object_get(row, "record");
        check_entry(&c, row);
        if (strcmp(bundle_text(record, "type"), "invoice") == 0)
            check_invoice(&c, record);
    }
    read_market(&c);
    if (root == NULL || root[0] == '\0')
        ret->pinned = false;
    else if (strcmp(root, ret->root) != 0)
        bundle_breach(&c,
                      "the market's keys stand under another root than the one known");
    json_array_foreach(c.receipts, i, row)
    {
        ret->receipts++;
        check_receipt(&c, row, i + 1, &chain);
    }
    bundle_check_prices(&c);
    bundle_check_notes(&c);
    free(c.used);
    keyring_free(c.market);
    return 0;
}

void bundle_result_done(struct bundle_result *r)
{
    strbuf_done(&r->breaches);
}

int bundle_follow(const json_t *head, struct bundle_log *log, struct err *err)
{
    const char *vkey = bundle_text(head, "vkey");
    const char *slash;
    struct checkpoint point;
    struct note_key key;
    struct merkle_proof proof = {.count = 0};
    if (log->vkey[0] != '\0' && strcmp(log->vkey, vkey) != 0)
        return err_set(err, ERR_TOKEN, "log %s: signed by %.100s, not by %.100s",
                       log->name, vkey, log->vkey);
    if (note_key_parse(vkey, &key, err) != 0 ||
        open_head(vkey, bundle_text(head, "checkpoint"), key.name, &point, err) != 0)
        return err_prefix(err, "log %s", log->name);
    slash = strrchr(key.name, '/');
    if (slash == NULL || strcmp(slash + 1, log->name) != 0)
        return err_set(err, ERR_TOKEN, "log %s: this is the head of %.100s", log->name,
                       key.name);
    if (log->size > 0 && proof_of(json_object_get(head, "consistency"), &proof) != 0)
        return err_set(err, ERR_TOKEN, "log %s: no proof that it extends the one seen",
                       log->name);
    if (log->size > 0 &&
        !merkle_extends(log->size, point.size, &log->root, &point.root, &proof))
        return err_set(err, ERR_TOKEN,
                       "log %s: its %" PRIu64 " leaves do not extend the %" PRIu64
                       " seen before: the market shows different logs",
                       log->name, point.size, log->size);
    snprintf(log->vkey, sizeof(log->vkey), "%s", vkey);
    log->size = point.size;
    log->root = point.root;
    return 0;
}
