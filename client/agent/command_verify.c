/* command_verify: `neargpu-agent verify`: the offline part of a token's check, for
 * people and for other implementations to compare with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/commands.h"
#include "client/lib/bounds.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/keyring.h"
#include "client/lib/keyset.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

static int load_keys(const char *path, struct keyring **ret, struct err *err)
{
    char *text;
    size_t len;
    if (fsx_read(path, JWKS_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    json_t *doc = jsonx_parse(text, len, JWKS_BYTES_MAX, err);
    free(text);
    int rc = doc != NULL ? keyring_from_jwks(doc, ret, err) : -1;
    json_decref(doc);
    return rc != 0 ? err_prefix(err, "%s", path) : 0;
}

/* The root is a JWK, as `neargpud keys` and the enrolment give it. */
static int load_root(const char *path, uint8_t root[JWS_ED25519_LEN], struct err *err)
{
    char *text;
    size_t len;
    if (fsx_read(path, JWKS_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    json_t *jwk = jsonx_parse(text, len, JWKS_BYTES_MAX, err);
    free(text);
    int rc = jwk != NULL ? jws_jwk_parse(jwk, root, err) : -1;
    json_decref(jwk);
    return rc != 0 ? err_prefix(err, "%s", path) : 0;
}

/* A key set is believed by its root's signature alone, and only within its dates. */
static int load_keyset(const char *path, const char *root_path,
                       const struct token_check *ctx, struct keyring **ret,
                       struct err *err)
{
    uint8_t root[JWS_ED25519_LEN];
    struct keyset_want want = {
        .root = root, .issuer = ctx->issuer, .now_us = ctx->now_us};
    const char *step = "";
    char *text;
    size_t len;
    if (load_root(root_path, root, err) != 0 ||
        fsx_read(path, KEYSET_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    if (len > 0 && text[len - 1] == '\n')
        len--;
    struct keyset *set = xcalloc(1, sizeof(*set));
    int rc = keyset_check(text, len, &want, set, &step, err);
    if (rc == 0)
        rc = keyset_ring(set, ret, err);
    free(set);
    free(text);
    return rc != 0 ? err_prefix(err, "%s: step %s", path, step) : 0;
}

/* What is wrong, in a word that a program can rely on; the step says where. */
static const char *verdict(const char *step)
{
    static const char *const words[][2] = {
        {"size", "too_large"},          {"parts", "malformed"},
        {"base64", "malformed"},        {"header", "bad_header"},
        {"key", "unknown_key"},         {"signature", "bad_signature"},
        {"payload", "bad_payload"},     {"issuer", "wrong_issuer"},
        {"audience", "wrong_audience"}, {"times", "not_in_time"},
        {"status", "revoked_or_stale"}, {"details", "bad_details"},
        {"epoch", "old_epoch"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i][0], step) == 0)
            return words[i][1];
    return "refused";
}

/* Prints one line; true when the token is good. */
static bool check_one(const char *text, size_t len, const struct token_check *ctx)
{
    struct token_claims *claims = xcalloc(1, sizeof(*claims));
    const char *step = "size";
    struct err err;
    json_t *out;
    bool good = token_check(text, len, ctx, claims, &step, &err) == 0;
    if (good) {
        out = token_claims_json(claims);
    } else {
        out = json_object();
        json_object_set_new(out, "error", json_string(verdict(step)));
        json_object_set_new(out, "step", json_string(step));
        json_object_set_new(out, "detail", json_string(err.text));
    }
    char *line = jsonx_dump(out);
    puts(line);
    free(line);
    json_decref(out);
    free(claims);
    return good;
}

static bool check_lines(const struct token_check *ctx)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    bool all = true;
    while ((len = getline(&line, &cap, stdin)) >= 0) {
        if (len > 0 && line[len - 1] == '\n')
            len--;
        all = check_one(line, (size_t)len, ctx) && all;
    }
    free(line);
    return all;
}

/* The one newline that `echo token` and editors add at the end is not the token's. */
static bool check_whole(const struct token_check *ctx)
{
    size_t max = TOKEN_BYTES_MAX + 2;
    char *text = xmalloc(max);
    size_t len = fread(text, 1, max, stdin);
    if (len > 0 && len < max && text[len - 1] == '\n')
        len--;
    bool good = check_one(text, len, ctx);
    free(text);
    return good;
}

int command_verify(const struct opt_values *v)
{
    struct token_check ctx = {.issuer = opt_get(v, "issuer"),
                              .audience = opt_get(v, "audience"),
                              .now_us = clock_now_us()};
    const char *keys_path = opt_get(v, "keys"), *now = opt_get(v, "now");
    const char *root_path = opt_get(v, "root");
    struct keyring *keys = NULL;
    struct err err;
    int rc = 0;
    if (keys_path == NULL || ctx.audience == NULL)
        rc = err_set(&err, ERR_USAGE, "verify needs --keys and --audience");
    if (rc == 0 && now != NULL && timefmt_parse(now, &ctx.now_us, &err) != 0)
        rc = err_prefix(&err, "--now");
    if (rc == 0)
        rc = root_path != NULL ? load_keyset(keys_path, root_path, &ctx, &keys, &err)
                               : load_keys(keys_path, &keys, &err);
    if (rc != 0)
        return command_fail(&err);
    ctx.keys = keys;
    bool good = opt_has(v, "lines") ? check_lines(&ctx) : check_whole(&ctx);
    keyring_free(keys);
    return good ? 0 : 1;
}
