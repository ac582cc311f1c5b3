/* identity: see identity.h. */
#include "config.h"

#include "client/agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/nodecert.h"
#include "client/lib/bounds.h"
#include "client/lib/cafetch.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/httpc.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/keyset.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

#define PEM_FILE_MAX  (64 * 1024)
#define ENROL_TIMEOUT (30 * US_PER_S)

static char *in_dir(const struct identity *id, const char *name)
{
    return xasprintf("%s/%s", id->dir, name);
}

static void set_paths(struct identity *id, const char *state_dir)
{
    id->dir = xasprintf("%s/identity", state_dir);
    id->ca_file = in_dir(id, "ca.pem");
    id->front_dir = xasprintf("%s/front", state_dir);
}

void identity_done(struct identity *id)
{
    char *texts[] = {id->dir,  id->server,    id->market,  id->issuer,    id->site,
                     id->node, id->spiffe_id, id->ca_file, id->front_dir, id->key_set};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
    json_decref(id->root);
    keyring_free(id->keys);
    EVP_PKEY_free(id->receipt_key);
    memset(id, 0, sizeof(*id));
}

/* --- an enrolment takes effect at once or not at all ---
 *
 * It is written into STATE/enrol.new; its new name, STATE/enrol.done, is what makes it
 * count; then its files go to their places, which is finished by whoever looks next.
 * The journal and the receipts are not touched: leases and jobs go on. */

static int sync_dir(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? err_sys(err, errno, "%s: fsync", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int put_file(const char *state_dir, const char *done, const char *name,
                    struct err *err)
{
    char *from = xasprintf("%s/%s", done, name), *to = NULL;
    to = xasprintf("%s/%s", state_dir, name);
    int rc = 0;
    if (rename(from, to) != 0 && errno != ENOENT) /* ENOENT: it is there already */
        rc = err_sys(err, errno, "rename %s", to);
    free(from);
    free(to);
    return rc;
}

/* The earlier identity's: the count of its runs, a renewal that it had begun. */
static void drop_earlier(const struct identity *id)
{
    static const char *const names[] = {"node.key.new", "node.pem.new"};
    char *path = in_dir(id, "instance");
    (void)unlink(path);
    free(path);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        path = xasprintf("%s/%s", id->front_dir, names[i]);
        (void)unlink(path);
        free(path);
    }
}

static int settle(const char *state_dir, const struct identity *id, struct err *err)
{
    static const char *const names[] = {"front/node.key", "front/node.pem",
                                        "identity/receipt.key", "identity/ca.pem",
                                        "identity/market.json"};
    char *done = xasprintf("%s/enrol.done", state_dir);
    int rc = 0;
    if (access(done, F_OK) == 0) {
        rc = fsx_mkdirs(id->dir, 0700, err);
        if (rc == 0)
            rc = fsx_mkdirs(id->front_dir, 0700, err);
        if (rc == 0)
            drop_earlier(id);
        for (size_t i = 0; rc == 0 && i < sizeof(names) / sizeof(names[0]); i++)
            rc = put_file(state_dir, done, names[i], err);
        if (rc == 0)
            rc = sync_dir(id->dir, err);
        if (rc == 0)
            rc = sync_dir(id->front_dir, err);
        if (rc == 0)
            rc = fsx_remove_tree(done, err);
    }
    free(done);
    return rc;
}

static int load_receipt_key(struct identity *id, struct err *err)
{
    char *path = in_dir(id, "receipt.key"), *pem = NULL;
    size_t len = 0;
    int rc = fsx_read_secret(path, PEM_FILE_MAX, &pem, &len, err);
    if (rc == 0) {
        rc = jws_key_from_pem(pem, len, &id->receipt_key, err);
        OPENSSL_cleanse(pem, len);
    }
    free(pem);
    free(path);
    return rc;
}

struct market_row {
    const char *server, *market, *issuer, *site, *node, *spiffe_id;
    const char *key_set;
    json_t *root;
};
#define F(n, t)                                           \
    {                                                     \
#n, t, true, offsetof(struct market_row, n), 0, 0 \
    }
static const struct jsonx_field market_fields[] = {
    F(server, JSONX_STRING),
    F(market, JSONX_STRING),
    F(issuer, JSONX_STRING),
    F(site, JSONX_STRING),
    F(node, JSONX_STRING),
    F(spiffe_id, JSONX_STRING),
    F(root, JSONX_OBJECT),
    {"key_set", JSONX_STRING, true, offsetof(struct market_row, key_set), 1,
     KEYSET_BYTES_MAX},
};

/* What a set says, if this root signed it. */
static int check_keys(struct identity *id, const char *text, int64_t now_us,
                      struct err *err)
{
    uint8_t pub[JWS_ED25519_LEN];
    struct keyset_want want = {
        .root = pub, .issuer = id->issuer, .now_us = now_us, .min_seq = id->keys_seq};
    struct keyset *set = xcalloc(1, sizeof(*set));
    struct keyring *keys = NULL;
    const char *step = "root";
    int rc = jws_jwk_parse(id->root, pub, err);
    if (rc == 0)
        rc = keyset_check(text, strlen(text), &want, set, &step, err);
    if (rc == 0)
        rc = keyset_ring(set, &keys, err);
    if (rc == 0) {
        keyring_free(id->keys);
        id->keys = keys;
        id->keys_seq = set->seq;
        id->keys_exp_us = set->exp_us;
        char *copy = xstrdup(text);
        free(id->key_set);
        id->key_set = copy;
    } else {
        rc = err_prefix(err, "the market's key set: %s", step);
    }
    free(set);
    return rc;
}

static int load_market(struct identity *id, struct err *err)
{
    char *path = in_dir(id, "market.json"), *text = NULL;
    struct market_row row = {0};
    size_t len;
    json_t *doc = NULL;
    int rc = fsx_read(path, JWKS_BYTES_MAX * 2, &text, &len, err);
    if (rc == 0 && (doc = jsonx_parse(text, len, JWKS_BYTES_MAX * 2, err)) == NULL)
        rc = -1;
    if (rc == 0)
        rc =
            jsonx_decode(doc, market_fields, JSONX_COUNT(market_fields), &row, "", err);
    if (rc == 0) {
        id->server = xstrdup(row.server);
        id->market = xstrdup(row.market);
        id->issuer = xstrdup(row.issuer);
        id->site = xstrdup(row.site);
        id->node = xstrdup(row.node);
        id->spiffe_id = xstrdup(row.spiffe_id);
        id->root = json_incref(row.root);
        rc = check_keys(id, row.key_set, INT64_MIN, err);
    }
    if (rc != 0)
        rc = err_prefix(err, "%s", path);
    json_decref(doc);
    free(text);
    free(path);
    return rc;
}

int identity_load(const char *state_dir, struct identity *ret, struct err *err)
{
    struct identity id = {0};
    set_paths(&id, state_dir);
    char *market = in_dir(&id, "market.json");
    int rc = settle(state_dir, &id, err);
    if (rc == 0 && access(market, F_OK) != 0)
        rc = err_set(err, ERR_NOT_FOUND,
                     "this node is not enrolled (%s is not there); run `neargpu-agent "
                     "enroll` with a join code of your provider account",
                     market);
    free(market);
    if (rc == 0)
        rc = load_market(&id, err);
    if (rc == 0)
        rc = load_receipt_key(&id, err);
    if (rc != 0) {
        identity_done(&id);
        return -1;
    }
    *ret = id;
    return 0;
}

static int write_market(const struct identity *id, const struct market_row *row,
                        struct err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "server", json_string(row->server));
    json_object_set_new(o, "market", json_string(row->market));
    json_object_set_new(o, "issuer", json_string(row->issuer));
    json_object_set_new(o, "site", json_string(row->site));
    json_object_set_new(o, "node", json_string(row->node));
    json_object_set_new(o, "spiffe_id", json_string(row->spiffe_id));
    json_object_set(o, "root", row->root);
    json_object_set_new(o, "key_set", json_string(row->key_set));
    char *text = jsonx_dump(o), *path = in_dir(id, "market.json");
    int rc = fsx_write(path, text, strlen(text), 0600, err);
    free(path);
    free(text);
    json_decref(o);
    return rc;
}

int identity_set_keys(struct identity *id, const char *text, int64_t now_us,
                      struct err *err)
{
    if (strcmp(text, id->key_set) == 0)
        return 0;
    if (check_keys(id, text, now_us, err) != 0)
        return -1;
    struct market_row row = {id->server, id->market,    id->issuer,  id->site,
                             id->node,   id->spiffe_id, id->key_set, id->root};
    return write_market(id, &row, err);
}

int identity_next_instance(struct identity *id, struct err *err)
{
    char *path = in_dir(id, "instance"), *text = NULL, name[33], end;
    long long runs = 0;
    if (fsx_read(path, IDENTITY_INSTANCE_MAX, &text, NULL, NULL) != 0 ||
        sscanf(text, "%32[0-9a-f].%lld%c", name, &runs, &end) != 3 || end != '\n' ||
        strlen(name) != 32 || runs < 0) {
        uint64_t r[2];
        digest_random(r, sizeof(r));
        snprintf(name, sizeof(name), "%016" PRIx64 "%016" PRIx64, r[0], r[1]);
        runs = 0;
    }
    snprintf(id->instance, sizeof(id->instance), "%s.%lld\n", name, runs + 1);
    int rc = fsx_write(path, id->instance, strlen(id->instance), 0600, err);
    id->instance[strcspn(id->instance, "\n")] = '\0';
    free(text);
    free(path);
    return rc;
}

/* --- enrolment --- */

struct reply_row {
    const char *certificate, *ca, *spiffe_id, *market, *issuer, *site, *node;
    const char *key_set;
    json_t *jwks, *root;
};
#undef F
#define F(n, t, max)                                       \
    {                                                      \
#n, t, true, offsetof(struct reply_row, n), 0, max \
    }
static const struct jsonx_field reply_fields[] = {
    F(certificate, JSONX_STRING, PEM_FILE_MAX),
    F(ca, JSONX_STRING, PEM_FILE_MAX),
    F(spiffe_id, JSONX_STRING, TOKEN_AUD_MAX - 1),
    F(market, JSONX_STRING, 200),
    F(issuer, JSONX_STRING, 199),
    F(site, JSONX_STRING, NAME_BYTES_MAX),
    F(node, JSONX_STRING, NAME_BYTES_MAX),
    {"jwks", JSONX_OBJECT, false, offsetof(struct reply_row, jwks), 0, 0},
    {"root", JSONX_OBJECT, true, offsetof(struct reply_row, root), 0, 0},
    F(key_set, JSONX_STRING, KEYSET_BYTES_MAX),
};

/* Writes what came back. want: the name that this machine has already, or NULL. */
static int store_reply(struct identity *id, const char *server, const char *want,
                       const json_t *body, struct err *err)
{
    struct reply_row row = {0};
    if (jsonx_decode(body, reply_fields, JSONX_COUNT(reply_fields), &row, "", err) != 0)
        return err_prefix(err, "the market's reply");
    id->issuer = xstrdup(row.issuer);
    id->root = json_incref(row.root);
    if (want != NULL && strcmp(want, row.spiffe_id) != 0)
        return err_set(err, ERR_CONFLICT,
                       "the code was one for %s, and this node is %s: it stays as it "
                       "is; get a code with `neargpu provider reattest`",
                       row.spiffe_id, want);
    if (check_keys(id, row.key_set, INT64_MIN, err) != 0)
        return -1;
    if (nodecert_store_first(id->front_dir, row.certificate, err) != 0)
        return -1;
    struct market_row m = {server,   row.market,    row.issuer,  row.site,
                           row.node, row.spiffe_id, row.key_set, row.root};
    return write_market(id, &m, err);
}

static int make_keys(struct identity *id, json_t *body, struct err *err)
{
    char *csr = NULL, *path = in_dir(id, "receipt.key"), *pem = NULL;
    uint8_t pub[JWS_ED25519_LEN];
    EVP_PKEY *receipt = NULL;
    /* The market names the node; what a CSR says of itself has no weight. */
    int rc = nodecert_make_first(id->front_dir, "spiffe://neargpu/unnamed", &csr, err);
    if (rc == 0)
        rc = jws_keygen(&receipt, err);
    if (rc == 0) {
        pem = jws_key_to_pem(receipt);
        rc = fsx_write(path, pem, strlen(pem), 0600, err);
    }
    if (rc == 0)
        rc = jws_public(receipt, pub, err);
    if (rc == 0) {
        json_object_set_new(body, "csr", json_string(csr));
        json_object_set_new(body, "receipt_jwk", jws_jwk(pub));
    }
    EVP_PKEY_free(receipt);
    free(pem);
    free(path);
    free(csr);
    return rc;
}

static int pin_ca(const struct identity *id, const struct identity_enrol *in,
                  struct err *err)
{
    char *pem = NULL;
    int rc = in->ca_file != NULL ? fsx_read(in->ca_file, PEM_FILE_MAX, &pem, NULL, err)
                                 : cafetch(in->server, in->ca_sha256, &pem, err);
    if (rc == 0)
        rc = fsx_write(id->ca_file, pem, strlen(pem), 0644, err);
    free(pem);
    return rc;
}

static int post_enrol(struct identity *id, const struct identity_enrol *in,
                      const char *want, json_t *body, struct err *err)
{
    struct httpc_conf conf = {.base_url = in->server,
                              .ca_file = id->ca_file,
                              .user_agent = "neargpu-agent/" PACKAGE_VERSION};
    struct httpc_request rq = {.method = "POST",
                               .path = "/v1/agent/enroll",
                               .body = body,
                               .timeout_us = ENROL_TIMEOUT};
    struct httpc_reply reply = {0};
    struct httpc *http;
    if (httpc_new(&conf, NULL, &http, err) != 0)
        return -1;
    int rc = httpc_call(http, &rq, &reply, err);
    if (rc == 0 && reply.body == NULL)
        rc = err_set(err, ERR_BAD_REQUEST, "the market's reply is no JSON");
    if (rc == 0)
        rc = store_reply(id, in->server, want, reply.body, err);
    httpc_reply_done(&reply);
    httpc_free(http);
    return rc;
}

/* Into STATE/enrol.new, all of it. */
static int enrol_aside(const struct identity_enrol *in, const char *want,
                       struct err *err)
{
    char *aside = xasprintf("%s/enrol.new", in->state_dir);
    struct identity id = {0};
    json_t *body = json_object();
    set_paths(&id, aside);
    json_object_set_new(body, "code", json_string(in->join_code));
    int rc = access(aside, F_OK) == 0 ? fsx_remove_tree(aside, err) : 0;
    if (rc == 0)
        rc = fsx_mkdirs(id.dir, 0700, err);
    if (rc == 0)
        rc = fsx_mkdirs(id.front_dir, 0700, err);
    if (rc == 0)
        rc = pin_ca(&id, in, err);
    if (rc == 0)
        rc = make_keys(&id, body, err);
    if (rc == 0)
        rc = post_enrol(&id, in, want, body, err);
    struct err more;
    if (rc != 0 && fsx_remove_tree(aside, &more) != 0)
        rc = err_prefix(err, "%s", more.text);
    json_decref(body);
    identity_done(&id);
    free(aside);
    return rc;
}

int identity_enrol(const struct identity_enrol *in, struct err *err)
{
    struct identity now;
    struct err why;
    bool is_enrolled = identity_load(in->state_dir, &now, &why) == 0;
    if (!is_enrolled && why.code != ERR_NOT_FOUND && !in->again) {
        *err = why;
        return err_prefix(err, "this node was enrolled before (--again replaces that)");
    }
    if (is_enrolled && !in->again) {
        (void)err_set(err, ERR_CONFLICT,
                      "this node is enrolled already, as %s; to give it a new identity "
                      "use --again with a code of `neargpu provider reattest`",
                      now.spiffe_id);
        identity_done(&now);
        return -1;
    }
    int rc = enrol_aside(in, is_enrolled ? now.spiffe_id : NULL, err);
    if (is_enrolled)
        identity_done(&now);
    char *from = xasprintf("%s/enrol.new", in->state_dir);
    char *to = xasprintf("%s/enrol.done", in->state_dir);
    if (rc == 0 && rename(from, to) != 0)
        rc = err_sys(err, errno, "rename %s", to);
    if (rc == 0)
        rc = sync_dir(in->state_dir, err);
    free(from);
    free(to);
    return rc;
}
