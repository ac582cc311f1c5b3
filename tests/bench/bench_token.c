/* bench_token: whole token checks a second beside bare Ed25519 verifications of the
 * same bytes by the same key, on one core. The two run in turns within one process, so
 * that a busy machine or a changing clock slows both; the figure that counts is the
 * median of the rounds' ratios. Usage: bench_token [RESULT.json]. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/token.h"

#define ROUNDS 31
#define BATCH  250 /* 20 ms or so: long against the clock, short against drift */

static const int64_t now_us = INT64_C(1795384392000000);

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "bench_token: %s: %s\n", what, err->text);
    exit(1);
}

static double cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct token_claims bench_claims(void)
{
    struct token_claims c = {
        .iss = "https://neargpu.local",
        .aud = "spiffe://neargpu.local/site/fukuoka/node/node-0001",
        .sub = "019307d0-7b3a-7c3e-8a5b-0123456789ab",
        .client_id = "019307d0-7b3a-7c3e-8a5b-0123456789ab",
        .jti = "019307d0-7b3a-7c3e-8a5b-0123456789ac",
        .jkt = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        .iat_us = now_us,
        .nbf_us = now_us,
        .exp_us = now_us + TOKEN_LIFE_US,
        .status_seq = 1234,
        .lease = {.reservation = "019307d0-7b3a-7c3e-8a5b-0123456789ad",
                  .actions = TOKEN_LAUNCH | TOKEN_STOP,
                  .gpu_count = 8,
                  .not_before_us = now_us,
                  .not_after_us = now_us + INT64_C(4) * 3600 * 1000000,
                  .epoch = now_us,
                  .memory_max_bytes = INT64_C(1) << 38,
                  .pids_max = 4096,
                  .drain_us = 10000000},
    };
    for (size_t i = 0; i < c.lease.gpu_count; i++)
        snprintf(c.lease.gpus[i], sizeof(c.lease.gpus[i]),
                 "GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a%02zx", i);
    return c;
}

struct bench {
    struct token_check ctx;
    char *token;
    size_t len;
    struct jws_parts parts;
    EVP_PKEY *pub;
};

static double bench_checks(const struct bench *b)
{
    struct token_claims out;
    const char *step;
    struct err err;
    double from = cpu_s();
    for (int i = 0; i < BATCH; i++)
        if (token_check(b->token, b->len, &b->ctx, &out, &step, &err) != 0)
            die("token_check", &err);
    return BATCH / (cpu_s() - from);
}

static double bench_evp(const struct bench *b)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    double from = cpu_s();
    for (int i = 0; i < BATCH; i++)
        if (EVP_MD_CTX_reset(md) != 1 ||
            EVP_DigestVerifyInit(md, NULL, NULL, NULL, b->pub) != 1 ||
            EVP_DigestVerify(md, b->parts.sig, sizeof(b->parts.sig),
                             (const uint8_t *)b->parts.signed_text,
                             b->parts.signed_len) != 1) {
            fprintf(stderr, "bench_token: EVP_DigestVerify failed\n");
            exit(1);
        }
    double rate = BATCH / (cpu_s() - from);
    EVP_MD_CTX_free(md);
    return rate;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct spread {
    double low, median, high; /* quartiles and median */
};

static struct spread spread_of(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return (struct spread){values[count / 4], values[count / 2], values[count * 3 / 4]};
}

static void bench_setup(struct bench *b)
{
    struct err err;
    EVP_PKEY *key;
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX];
    struct keyring *ring;
    const char *step;
    struct token_claims c = bench_claims();
    if (jws_keygen(&key, &err) != 0 || jws_public(key, pub, &err) != 0)
        die("key", &err);
    jws_thumbprint(pub, kid);
    json_t *jwk = jws_jwk(pub);
    json_object_set_new(jwk, "kid", json_string(kid));
    json_t *set = json_pack("{s:[o]}", "keys", jwk), *payload = token_build(&c);
    if (keyring_from_jwks(set, &ring, &err) != 0 ||
        jws_sign(key, JWS_TYP_GRANT, payload, &b->token, &err) != 0)
        die("setup", &err);
    b->len = strlen(b->token);
    b->pub = keyring_find(ring, kid)->pub;
    b->ctx =
        (struct token_check){.keys = ring,
                             .issuer = "https://neargpu.local",
                             .audience = "spiffe://neargpu.local/site/fukuoka/node/"
                                         "node-0001",
                             .now_us = now_us + 1000000};
    if (jws_split(b->token, b->len, &b->parts, &step, &err) != 0)
        die("split", &err);
    json_decref(set);
    json_decref(payload);
    EVP_PKEY_free(key);
}

static void bench_write(const char *path, const json_t *result)
{
    struct err err;
    char *text = json_dumps(result, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    if (fsx_write(path, text, strlen(text), 0644, &err) != 0)
        die("result", &err);
    free(text);
}

int main(int argc, char **argv)
{
    struct bench b;
    double checks[ROUNDS], evp[ROUNDS], ratio[ROUNDS];
    bench_setup(&b);
    bench_checks(&b);
    bench_evp(&b); /* caches and the processor's clock are warm from here */
    for (int i = 0; i < ROUNDS; i++) {
        /* In turns, and each first in every other round. */
        double first = i % 2 == 0 ? bench_checks(&b) : bench_evp(&b);
        double second = i % 2 == 0 ? bench_evp(&b) : bench_checks(&b);
        checks[i] = i % 2 == 0 ? first : second;
        evp[i] = i % 2 == 0 ? second : first;
        ratio[i] = checks[i] / evp[i];
    }
    struct spread c = spread_of(checks, ROUNDS), e = spread_of(evp, ROUNDS),
                  r = spread_of(ratio, ROUNDS);
    printf("token_check    %8.0f /s  (quartiles %.0f .. %.0f)\n", c.median, c.low,
           c.high);
    printf("EVP verify     %8.0f /s  (quartiles %.0f .. %.0f)\n", e.median, e.low,
           e.high);
    printf("check / verify %8.3f     (quartiles %.3f .. %.3f), token of %zu bytes\n",
           r.median, r.low, r.high, b.len);
    json_t *result = json_pack(
        "{s:s, s:{s:f, s:f, s:f, s:f, s:f, s:I}, s:s}", "name", "token", "metrics",
        "token.vs_evp", r.median, "token.vs_evp_q1", r.low, "token.vs_evp_q3", r.high,
        "token.checks_per_s", c.median, "token.evp_per_s", e.median, "token.bytes",
        (json_int_t)b.len, "note",
        "one core, CPU time, medians of 31 interleaved rounds of 250; the token names "
        "8 "
        "GPUs; evp is EVP_DigestVerifyInit + EVP_DigestVerify over the same bytes");
    if (argc > 1)
        bench_write(argv[1], result);
    json_decref(result);
    return 0;
}
