/* token_peers: how many of our grants Debian's JOSE libraries check in a second, beside
 * token_check() in the same process and in turns: rhonabwy the same algorithm (EdDSA
 * with Ed25519) over the same token; cjose, which has no EdDSA, ES256 over the same
 * payload, for its cost outside of the curve. The libraries verify the signature and
 * hand the payload over; token_check() also reads and judges every claim. Not part of
 * the build: bench_token.sh compiles it. Usage: token_peers RESULT.json. */
#include <cjose/cjose.h>
#include <rhonabwy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/token_kit.h"

#define ROUNDS 15
#define BATCH  100

static struct kit kit;
static char *grant;
static jwk_t *peer_key;
static cjose_jwk_t *ec_key;
static char *ec_token;

static double cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "token_peers: %s failed\n", what);
        exit(1);
    }
}

static void check_ours(void)
{
    struct token_claims out;
    const char *step;
    need(token_check(grant, strlen(grant), &kit.ctx, &out, &step, NULL) == 0, "ours");
}

static void check_rhonabwy(void)
{
    jwt_t *jwt;
    need(r_jwt_init(&jwt) == RHN_OK && r_jwt_parse(jwt, grant, 0) == RHN_OK &&
             r_jwt_verify_signature(jwt, peer_key, 0) == RHN_OK,
         "rhonabwy");
    r_jwt_free(jwt);
}

static void check_cjose(void)
{
    cjose_err err;
    uint8_t *text;
    size_t len;
    cjose_jws_t *jws = cjose_jws_import(ec_token, strlen(ec_token), &err);
    need(jws != NULL && cjose_jws_verify(jws, ec_key, &err) &&
             cjose_jws_get_plaintext(jws, &text, &len, &err),
         "cjose");
    cjose_jws_release(jws);
}

static double rate(void (*check)(void))
{
    double from = cpu_s();
    for (int i = 0; i < BATCH; i++)
        check();
    return BATCH / (cpu_s() - from);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(*values), by_value);
    return values[ROUNDS / 2];
}

static void set_up(void)
{
    cjose_err err;
    need(kit_init(&kit) == 0, "kit");
    grant = kit_grant(&kit);
    json_t *jwk = jws_jwk(kit.pub);
    char *text = json_dumps(jwk, 0);
    need(r_jwk_init(&peer_key) == RHN_OK &&
             r_jwk_import_from_json_str(peer_key, text) == RHN_OK,
         "rhonabwy's key");
    free(text);
    json_decref(jwk);
    ec_key = cjose_jwk_create_EC_random(CJOSE_JWK_EC_P_256, &err);
    cjose_header_t *header = cjose_header_new(&err);
    need(ec_key != NULL && header != NULL &&
             cjose_header_set(header, CJOSE_HDR_ALG, CJOSE_HDR_ALG_ES256, &err),
         "cjose's key");
    char *payload = kit_payload(&kit);
    const char *out;
    cjose_jws_t *jws =
        cjose_jws_sign(ec_key, header, (const uint8_t *)payload, strlen(payload), &err);
    need(jws != NULL && cjose_jws_export(jws, &out, &err), "cjose's token");
    ec_token = xstrdup(out);
    cjose_jws_release(jws);
    cjose_header_release(header);
    free(payload);
}

int main(int argc, char **argv)
{
    double ours[ROUNDS], same[ROUNDS], other[ROUNDS], vs[ROUNDS];
    set_up();
    rate(check_ours);
    rate(check_rhonabwy);
    for (int i = 0; i < ROUNDS; i++) {
        ours[i] = rate(check_ours);
        same[i] = rate(check_rhonabwy);
        other[i] = rate(check_cjose);
        vs[i] = ours[i] / same[i];
    }
    json_t *result =
        json_pack("{s:f, s:f, s:f, s:f}", "token.vs_best_library", median(vs),
                  "token.rhonabwy_per_s", median(same), "token.cjose_es256_per_s",
                  median(other), "token.beside_them_per_s", median(ours));
    need(argc > 1 && json_dump_file(result, argv[1], JSON_INDENT(1)) == 0, "writing");
    json_decref(result);
    free(grant);
    free(ec_token);
    r_jwk_free(peer_key);
    cjose_jwk_release(ec_key);
    kit_done(&kit);
    return 0;
}
