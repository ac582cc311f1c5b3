/* cmd_token: `neargpu token`: grants for this account's key, or, with --for, narrower
 * ones for somebody else's, got by exchange (RFC 8693): this account asks for its own
 * grant and proves that it holds the key when it gives a part of it away. The proof
 * says to whom and what, so that it serves nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

static json_t *payload_of(const char *token, struct err *err)
{
    struct jws_parts parts;
    const char *step = "";
    if (jws_split(token, strlen(token), &parts, &step, err) < 0)
        return NULL;
    json_t *payload =
        jsonx_parse(parts.payload, parts.payload_len, TOKEN_BYTES_MAX, err);
    jws_parts_done(&parts);
    return payload;
}

/* --gpus: UUIDs, or their places in the token from 0 on, with commas between. */
static int chosen_gpus(const char *list, const json_t *claims, json_t **ret,
                       struct err *err)
{
    const json_t *devices = json_object_get(
        json_array_get(json_object_get(claims, "authorization_details"), 0), "devices");
    json_t *gpus = json_array();
    int rc = 0;
    for (const char *at = list; rc == 0 && at != NULL;) {
        size_t len = strcspn(at, ",");
        char *word = xstrndup(at, len);
        int64_t n = 0;
        at = at[len] == ',' ? at + len + 1 : NULL;
        if (strncmp(word, "GPU-", 4) == 0 || strncmp(word, "MIG-", 4) == 0)
            json_array_append_new(gpus, json_string(word));
        else if ((rc = when_parse_int(word, 0, (int64_t)json_array_size(devices) - 1,
                                      &n, err)) == 0)
            json_array_append(
                gpus, json_object_get(json_array_get(devices, (size_t)n), "uuid"));
        else
            err_prefix(err, "--gpus");
        free(word);
    }
    if (rc < 0)
        json_decref(gpus);
    else
        *ret = gpus;
    return rc;
}

static void join(struct strbuf *out, const json_t *list)
{
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        strbuf_addf(out, "%s%s", i > 0 ? "," : "", json_string_value(v));
    }
}

/* By this account's key, over the grant and what the body asks for. */
static int prove(struct cli *c, const char *token, const json_t *claims,
                 const json_t *body, const uint8_t to[JWS_ED25519_LEN], char **ret,
                 struct err *err)
{
    struct token_pop pop = {
        .nonce = "exchange", .action = "exchange", .iat_us = clock_now_us()};
    struct strbuf gpus = STRBUF_INIT, actions = STRBUF_INIT;
    uint8_t sha[SHA256_LEN], pub[JWS_ED25519_LEN];
    char jkt[JWS_KID_MAX];
    const char *iss = json_string_value(json_object_get(claims, "iss")),
               *end = json_string_value(json_object_get(body, "not_after"));
    EVP_PKEY *key = NULL;
    json_t *payload = NULL;
    jws_thumbprint(to, jkt);
    join(&gpus, json_object_get(body, "gpus"));
    join(&actions, json_object_get(body, "actions"));
    const char *argv[] = {jkt, strbuf_str(&gpus), end != NULL ? end : "",
                          strbuf_str(&actions)};
    token_argv_hash(argv, 4, pop.argv_hash);
    snprintf(pop.aud, sizeof(pop.aud), "%s", iss != NULL ? iss : "");
    digest_sha256(token, strlen(token), sha);
    b64_encode(sha, sizeof(sha), pop.ath);
    int rc = account_key(&c->account, 1, &key, err);
    if (rc == 0)
        rc = jws_public(key, pub, err);
    if (rc == 0) {
        payload = token_pop_build(&pop, pub);
        rc = account_sign(&c->account, key, JWS_TYP_POP, payload, ret, err);
    }
    json_decref(payload);
    EVP_PKEY_free(key);
    strbuf_done(&gpus);
    strbuf_done(&actions);
    return rc;
}

static int exchange_body(struct cli *c, const json_t *claims, json_t *body,
                         struct err *err)
{
    const char *gpus = opt_get(c->opts, "gpus"), *until = opt_get(c->opts, "until"),
               *action;
    json_t *list = NULL;
    int64_t end_us;
    if (gpus != NULL) {
        if (chosen_gpus(gpus, claims, &list, err) < 0)
            return -1;
        json_object_set_new(body, "gpus", list);
    }
    if (until != NULL) {
        if (when_parse(until, &c->when, &end_us, err) < 0)
            return err_prefix(err, "--until");
        json_object_set_new(body, "not_after", jsonx_time(end_us));
    }
    for (size_t n = 0; (action = opt_nth(c->opts, "action", n)) != NULL; n++) {
        if (n == 0)
            json_object_set_new(body, "actions", json_array());
        json_array_append_new(json_object_get(body, "actions"), json_string(action));
    }
    return 0;
}

/* One of the reply's tokens becomes the delegate's. */
static int exchange(struct cli *c, json_t *one, const uint8_t to[JWS_ED25519_LEN],
                    struct err *err)
{
    const char *token = json_string_value(json_object_get(one, "token"));
    json_t *claims = payload_of(token != NULL ? token : "", err), *reply = NULL;
    if (claims == NULL)
        return -1;
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:o}", "grant_type",
                  "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token",
                  token, "subject_token_type",
                  "urn:ietf:params:oauth:token-type:access_token", "jwk", jws_jwk(to));
    char *proof = NULL;
    int rc = exchange_body(c, claims, body, err);
    if (rc == 0)
        rc = prove(c, token, claims, body, to, &proof, err);
    if (rc == 0) {
        json_object_set_new(body, "proof", json_string(proof));
        const struct cli_call call = {"POST", "/v1/token-exchange", body, NULL};
        rc = cli_call(c, &call, &reply, err);
        cli_harmless(err);
    }
    if (rc == 0) {
        json_t *delegated = json_object_get(reply, "access_token");
        json_t *theirs = payload_of(json_string_value(delegated), err);
        rc = theirs != NULL ? 0 : -1;
        json_object_set(one, "token", delegated);
        json_object_set_new(
            one, "expires_at",
            jsonx_time(json_integer_value(json_object_get(theirs, "exp")) * US_PER_S));
        json_decref(theirs);
    }
    free(proof);
    json_decref(body);
    json_decref(reply);
    json_decref(claims);
    return rc;
}

static int delegate(struct cli *c, json_t *tokens, struct err *err)
{
    uint8_t to[JWS_ED25519_LEN];
    json_t *one;
    size_t i;
    if (json_array_size(tokens) > 1 && opt_has(c->opts, "gpus"))
        return err_set(err, ERR_USAGE, "--gpus of several nodes: add --node");
    if (cli_public_key(opt_get(c->opts, "for"), to, err) < 0)
        return -1;
    json_array_foreach(tokens, i, one)
    {
        if (exchange(c, one, to, err) < 0)
            return -1;
    }
    return 0;
}

static int check_options(const struct cli *c, struct err *err)
{
    bool is_for = opt_has(c->opts, "for");
    if (is_for && opt_has(c->opts, "public-key"))
        return err_set(err, ERR_USAGE, "--for and --public-key exclude each other");
    if (!is_for && (opt_has(c->opts, "gpus") || opt_has(c->opts, "until")))
        return err_set(err, ERR_USAGE, "--gpus and --until are of --for");
    return 0;
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
    if (check_options(c, err) < 0 ||
        cli_get_tokens(c, c->opts->args[0], opt_get(c->opts, "node"), &reply, err) < 0)
        return -1;
    json_t *tokens = json_object_get(reply, "tokens");
    if (opt_has(c->opts, "for") && delegate(c, tokens, err) < 0) {
        json_decref(reply);
        return -1;
    }
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
