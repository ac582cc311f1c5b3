/* run_ask: see run.h. The greeting brings the nonce; the proof binds it to this token,
 * this action, this command line and the image it runs in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/run.h"
#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

static const struct {
    char frame;
    const char *action;
} requests[] = {
    [RUN_LAUNCH] = {'l', "launch"},
    [RUN_ATTACH] = {'a', "attach"},
    [RUN_JOBS] = {'j', "jobs"},
    [RUN_ADOPT] = {'d', "adopt"},
};

static void copy_text(const json_t *obj, const char *member, char *out, size_t cap)
{
    const char *text = json_string_value(json_object_get(obj, member));
    snprintf(out, cap, "%s", text != NULL ? text : "");
}

static json_t *frame_json(const struct frame *f, struct err *err)
{
    json_t *v = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, err);
    if (v == NULL)
        err_prefix(err, "agent's '%c' frame", f->type);
    return v;
}

static int refused(const struct frame *f, struct run_refusal *refusal, struct err *err)
{
    json_t *v = frame_json(f, err);
    if (v == NULL)
        return -1;
    copy_text(v, "error", refusal->error, sizeof(refusal->error));
    copy_text(v, "step", refusal->step, sizeof(refusal->step));
    const char *detail = json_string_value(json_object_get(v, "detail"));
    enum err_code code = err_code_from_name(refusal->error);
    /* A refused token is a matter of rights to the person who holds it. */
    if (code == ERR_TOKEN || code == ERR_UNAUTHENTICATED || code == ERR_INTERNAL)
        code = ERR_FORBIDDEN;
    err_set(err, code, "the agent refused at step %s: %s",
            *refusal->step != '\0' ? refusal->step : "?",
            detail != NULL ? detail : refusal->error);
    json_decref(v);
    return -1;
}

int run_take_answer(const struct frame *f, char type, json_t **ret,
                    struct run_refusal *refusal, struct err *err)
{
    if (f->type == 'E')
        return refused(f, refusal, err);
    if (f->type != type)
        return err_set(err, ERR_INTERNAL,
                       "the agent sent a '%c' frame where '%c' is due", f->type, type);
    *ret = frame_json(f, err);
    return *ret != NULL ? 0 : -1;
}

/* A frame of this type, or the agent's refusal as an error. */
static int expect(struct run *r, char type, json_t **ret, struct run_refusal *refusal,
                  struct err *err)
{
    struct frame f;
    if (run_link_frame(&r->link, RUN_ANSWER_TIMEOUT_MS, &f, err) < 0)
        return -1;
    return run_take_answer(&f, type, ret, refusal, err);
}

int run_check_greeting(const struct run *r, const json_t *hello,
                       char nonce[JWS_KID_MAX], struct err *err)
{
    char audience[TOKEN_AUD_MAX];
    copy_text(hello, "nonce", nonce, JWS_KID_MAX);
    copy_text(hello, "audience", audience, sizeof(audience));
    json_int_t version = json_integer_value(json_object_get(hello, "version"));
    if (version != 1)
        return err_set(err, ERR_INTERNAL,
                       "the agent speaks version %d of the run protocol, this is 1: "
                       "update the older one",
                       (int)version);
    if (strcmp(audience, r->audience) != 0)
        return err_set(err, ERR_FORBIDDEN,
                       "the agent is %s, but the token's audience is %s", audience,
                       r->audience);
    return 0;
}

static int prove(struct run *r, const char *action, const char *nonce,
                 const char *const *argv, const char *image, char **ret_proof,
                 struct err *err)
{
    struct token_pop pop = {.iat_us = clock_now_us(), .image = image};
    uint8_t sha[SHA256_LEN], pub[JWS_ED25519_LEN];
    size_t argc = 0;
    while (argv != NULL && argv[argc] != NULL)
        argc++;
    snprintf(pop.nonce, sizeof(pop.nonce), "%s", nonce);
    snprintf(pop.aud, sizeof(pop.aud), "%s", r->audience);
    snprintf(pop.action, sizeof(pop.action), "%s", action);
    digest_sha256(r->token, strlen(r->token), sha);
    b64_encode(sha, sizeof(sha), pop.ath);
    token_argv_hash(argv, argc, pop.argv_hash);
    if (jws_public(r->key, pub, err) < 0)
        return -1;
    json_t *payload = token_pop_build(&pop, pub);
    int rc = account_sign(&r->c->account, r->key, JWS_TYP_POP, payload, ret_proof, err);
    json_decref(payload);
    return rc;
}

static int send_request(struct run *r, char type, const json_t *body, const char *proof,
                        struct err *err)
{
    json_t *message = json_pack("{s:s, s:s}", "token", r->token, "proof", proof);
    if (body != NULL)
        json_object_update(message, (json_t *)(uintptr_t)body);
    char *text = jsonx_dump(message);
    size_t len = strlen(text);
    int rc = 0;
    if (len > RUN_FRAME_MAX)
        rc = err_set(err, ERR_TOO_LARGE,
                     "command and environment are %zu bytes, %d fit: put them into a "
                     "script on the node",
                     len, RUN_FRAME_MAX);
    else
        run_link_send(&r->link, type, text, len);
    free(text);
    json_decref(message);
    return rc;
}

int run_put_request(struct run *r, enum run_request what, const json_t *body,
                    const char *const *argv, const char *nonce, struct err *err)
{
    char *proof = NULL;
    const char *image = json_string_value(json_object_get(body, "image"));
    int rc = prove(r, requests[what].action, nonce, argv, image, &proof, err);
    if (rc == 0)
        rc = send_request(r, requests[what].frame, body, proof, err);
    free(proof);
    return rc;
}

int run_ask(struct run *r, enum run_request what, const json_t *body,
            const char *const *argv, json_t **ret, struct run_refusal *refusal,
            struct err *err)
{
    char nonce[JWS_KID_MAX];
    json_t *hello = NULL;
    *refusal = (struct run_refusal){"", ""};
    if (run_link_open(&r->link, r->address, r->c->account.ca_path, r->audience, err) <
        0)
        return -1;
    int rc = expect(r, 'n', &hello, refusal, err);
    if (rc == 0)
        rc = run_check_greeting(r, hello, nonce, err);
    if (rc == 0)
        rc = run_put_request(r, what, body, argv, nonce, err);
    if (rc == 0) {
        rc = expect(r, 'r', ret, refusal, err);
        /* Sent and not answered: for a launch that is the question. */
        if (rc < 0 && refusal->error[0] == '\0' && what == RUN_LAUNCH)
            err->code = ERR_UNKNOWN;
    }
    json_decref(hello);
    if (rc < 0)
        run_link_close(&r->link);
    return rc;
}

int run_take_token(struct run *r, const char *token, struct err *err)
{
    struct jws_parts parts;
    const char *step = "";
    if (jws_split(token, strlen(token), &parts, &step, err) < 0)
        return err_prefix(err, "token");
    json_t *claims =
        jsonx_parse(parts.payload, parts.payload_len, TOKEN_BYTES_MAX, err);
    jws_parts_done(&parts);
    const char *aud = json_string_value(json_object_get(claims, "aud"));
    json_int_t exp = json_integer_value(json_object_get(claims, "exp"));
    json_int_t iat = json_integer_value(json_object_get(claims, "iat"));
    if (aud == NULL || exp <= 0 || exp > INT64_MAX / US_PER_S) {
        json_decref(claims);
        return err_set(err, ERR_TOKEN, "the token names no audience and time");
    }
    free(r->token);
    free(r->audience);
    r->token = xstrdup(token);
    r->audience = xstrdup(aud);
    r->expires_us = exp * US_PER_S;
    /* Of its own life, not of this machine's clock, which may be ahead of the server's.
     */
    r->renew_us = clock_boot_us() + (iat > 0 && iat < exp ? (exp - iat) * US_PER_S / 2
                                                          : RUN_RENEW_AGAIN_US);
    json_decref(claims);
    return 0;
}
