/* token: the grant (JWT, typ at+jwt) and its offline check as a list of named steps, in
 * the order of docs/tokens.md. Claims: RFC 7519, 9068, 7800 (cnf), 9396
 * (authorization_details). This module knows nothing of devices, journals or cgroups:
 * the agent continues with its own steps on the struct that comes out. Pure: `now`,
 * keys, status and nonce are handed in.
 *
 * Two times on purpose: exp limits starting, lease.not_after limits running. Leeway is
 * TOKEN_LEEWAY_US for nbf and iat, none for ends: `now >= exp` is expired. */
#ifndef NEARGPU_TOKEN_H
#define NEARGPU_TOKEN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/jws.h"
#include "client/lib/keyring.h"
#include "client/lib/uuid.h"

#define TOKEN_LEEWAY_US       INT64_C(5000000)
#define TOKEN_LIFE_US         (INT64_C(15) * 60 * 1000000) /* exp - iat as issued */
#define TOKEN_LIFE_MAX_US     (INT64_C(60) * 60 * 1000000)
#define TOKEN_STATUS_STALE_US (INT64_C(60) * 1000000)
#define TOKEN_AUD_MAX         300
#define TOKEN_GPU_UUID_MAX    64

enum token_action { TOKEN_LAUNCH = 1, TOKEN_ADOPT = 2, TOKEN_STOP = 4 };
enum token_on_lost { TOKEN_RUN_TO_END, TOKEN_STOP_AFTER };

struct token_lease {
    char reservation[UUID_TEXT];
    unsigned actions; /* TOKEN_LAUNCH | … */
    char gpus[GPUS_PER_NODE_MAX][TOKEN_GPU_UUID_MAX];
    size_t gpu_count;
    int64_t not_before_us, not_after_us;
    int64_t epoch; /* fencing: start of the booking in us; grows per GPU in use order */
    int64_t memory_max_bytes, pids_max; /* 0: node's default */
    enum token_on_lost on_lost;
    int64_t on_lost_after_us; /* for TOKEN_STOP_AFTER */
    int64_t drain_us;         /* SIGTERM this long before not_after */
};

struct token_claims {
    char iss[200], aud[TOKEN_AUD_MAX], sub[UUID_TEXT], client_id[UUID_TEXT],
        jti[UUID_TEXT];
    int64_t iat_us, nbf_us, exp_us;
    char jkt[JWS_KID_MAX]; /* cnf.jkt: thumbprint of the holder's key */
    char act[JWS_KID_MAX]; /* act.sub: the key of who delegated it; "": nobody did */
    int64_t status_seq; /* status.seq: the status document at issue; staler is stale */
    struct token_lease lease;
    char kid[JWS_KID_MAX];
    char ath[JWS_KID_MAX]; /* base64url SHA-256 of the token text: what a proof names */
};

/* A GPU of a revoked lease whose time is not over: only a later booking may have it. */
struct token_epoch {
    char gpu[TOKEN_GPU_UUID_MAX];
    int64_t epoch;
};

/* The latest verified status document of the server. */
struct token_status {
    int64_t iat_us; /* also the signed server time */
    int64_t seq;
    char (*revoked)[UUID_TEXT]; /* sorted reservation ids */
    size_t revoked_count;
    char (*revoked_kids)[JWS_KID_MAX]; /* signing keys withdrawn before their exp */
    size_t revoked_kid_count;
    struct token_epoch *min_epochs; /* sorted by GPU, each there once */
    size_t min_epoch_count;
};

struct token_check {
    const struct keyring *keys;
    const char *issuer;   /* NULL: not compared (verify --keys without a market) */
    const char *audience; /* this agent's SPIFFE ID */
    int64_t now_us;
    const struct token_status *status; /* NULL: step skipped (offline verify) */
};

/* Runs the steps that need nothing but what is handed in, in this order:
 * size, parts, base64, header, key, signature, payload, issuer, audience, times,
 * status, details, epoch. On failure *ret_step is the step's name, err has ERR_TOKEN
 * and *ret is untouched. A lease that has not begun passes (the caller knows what the
 * action needs); one that is over does not. */
int token_check(const char *text, size_t len, const struct token_check *ctx,
                struct token_claims *ret, const char **ret_step,
                struct err *err) MUST_USE;
/* Claims as JSON, as `neargpu-agent verify` prints them (the payload's own form); new
 * reference. */
json_t *token_claims_json(const struct token_claims *c);
/* The payload the issuer signs, from claims; new reference. Seconds are cut: iat, nbf,
 * exp, on_lost_after_us and drain_us should be whole ones. */
json_t *token_build(const struct token_claims *c);

/* Possession proof: what the tenant's key signs for one action at one agent. */
struct token_pop {
    char nonce[JWS_KID_MAX]; /* made by the agent, used once */
    char aud[TOKEN_AUD_MAX];
    char ath[JWS_KID_MAX];
    char action[16];             /* "launch", "attach", "signal", "stop" */
    char argv_hash[JWS_KID_MAX]; /* base64url SHA-256 of argv joined by NUL, each ended
                                  */
    const char *image; /* container image a launch asks for; NULL: none. Borrowed */
    int64_t iat_us;
};
json_t *token_pop_build(const struct token_pop *p, const uint8_t pub[JWS_ED25519_LEN]);
/* The proof carries its key as a `jwk` claim in the payload; its thumbprint must be
 * `jkt`, and every member of `want` but iat_us must match; the proof's own iat must be
 * within leeway of now. Steps: size, parts, base64, header, payload, key, signature,
 * binding, times. */
int token_pop_check(const char *text, size_t len, const char *jkt,
                    const struct token_pop *want, int64_t now_us, const char **ret_step,
                    struct err *err) MUST_USE;
void token_argv_hash(const char *const *argv, size_t argc, char out[JWS_KID_MAX]);

/* Status document (typ neargpu-status+jwt): payload {iss, iat, seq, now_us,
 * revoked:[…], revoked_kids:[…], min_epochs?:{gpu: epoch}}. token_status_done frees
 * what parse made. */
int token_status_check(const char *text, size_t len, const struct keyring *keys,
                       const char *issuer, struct token_status *ret,
                       struct err *err) MUST_USE;
void token_status_done(struct token_status *s);
/* A grant of the GPU needs an epoch above this; -1: the document does not name it. */
int64_t token_status_min_epoch(const struct token_status *s, const char *gpu);

#endif
