/* fuzz_keyset: any bytes as a signed key set, or, well signed by the root, as its
 * payload (first byte `p`). What is accepted keeps to its bounds and to what the reader
 * insisted on, has every key once, and can be signed again and read as the same. */
#include <assert.h>

#include "client/lib/keyset.h"
#include "tests/unit/token_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MIN_SEQ 3

static struct kit kit;

static void is_sound(const struct keyset *s, int64_t now_us)
{
    assert(s->seq >= MIN_SEQ && s->exp_us > s->iat_us);
    assert(now_us == INT64_MIN || s->exp_us > now_us);
    assert(s->count <= KEYRING_KEYS_MAX && strcmp(s->iss, KIT_ISSUER) == 0);
    for (size_t i = 0; i < s->count; i++) {
        char kid[JWS_KID_MAX];
        jws_thumbprint(s->keys[i].pub, kid);
        assert(strcmp(kid, s->keys[i].kid) == 0);
        for (size_t k = 0; k < i; k++)
            assert(strcmp(s->keys[i].kid, s->keys[k].kid) != 0);
    }
}

static int check(const char *text, size_t len, int64_t now_us, struct keyset *out)
{
    struct keyset_want want = {
        .root = kit.pub, .issuer = KIT_ISSUER, .now_us = now_us, .min_seq = MIN_SEQ};
    const char *step = NULL;
    struct err err = {0};
    int rc = keyset_check(text, len, &want, out, &step, &err);
    assert(rc == 0 || (step != NULL && err.code == ERR_TOKEN && err.text[0] != '\0'));
    if (rc == 0)
        is_sound(out, now_us);
    return rc;
}

/* A set without keys is read but never made. */
static void again(const struct keyset *s)
{
    static struct keyset back;
    struct err err = {0};
    char *text = NULL;
    if (keyset_sign(s, kit.key, &text, &err) != 0)
        return;
    int rc = check(text, strlen(text), INT64_MIN, &back);
    assert(rc == 0 && back.seq == s->seq && back.count == s->count);
    for (size_t i = 0; i < s->count; i++)
        assert(strcmp(back.keys[i].kid, s->keys[i].kid) == 0 &&
               back.keys[i].revoked == s->keys[i].revoked &&
               back.keys[i].not_after_us == s->keys[i].not_after_us);
    free(text);
}

static void try_text(const char *text, size_t len)
{
    static struct keyset out;
    if (check(text, len, INT64_MIN, &out) == 0)
        again(&out);
    if (check(text, len, KIT_NOW, &out) == 0) {
        struct keyring *ring = NULL;
        struct err err = {0};
        if (keyset_ring(&out, &ring, &err) == 0)
            keyring_free(ring);
        json_decref(keyset_jwks(&out));
        keyset_prune(&out, KIT_NOW);
        is_sound(&out, KIT_NOW);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (kit.ring == NULL && kit_init(&kit) != 0)
        abort();
    if (size == 0)
        return 0;
    if (data[0] != 'p') {
        try_text((const char *)data + 1, size - 1);
        return 0;
    }
    char *payload = xstrndup((const char *)data + 1, size - 1);
    char *header = xasprintf(
        "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"jwk-set+jwt\"}", kit.kid);
    char *text = kit_sign(kit.key, header, payload);
    try_text(text, strlen(text));
    free(text);
    free(header);
    free(payload);
    return 0;
}
