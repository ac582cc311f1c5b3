/* fuzz_status: any bytes as a status document, or, well signed, as its payload (first
 * byte `p`). What is accepted is sorted, holds only what it may hold, and says the same
 * to the general parser. Without the key nothing is accepted but what it signed. */
#include <assert.h>

#include "tests/unit/token_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kit kit;

static void is_sound(const struct token_status *s)
{
    assert(s->seq >= 0 && s->iat_us >= 0);
    for (size_t i = 0; i < s->revoked_count; i++) {
        assert(uuid_is_valid(s->revoked[i]));
        assert(i == 0 || strcmp(s->revoked[i - 1], s->revoked[i]) <= 0);
    }
    for (size_t i = 0; i < s->revoked_kid_count; i++)
        assert(strlen(s->revoked_kids[i]) > 0 &&
               strlen(s->revoked_kids[i]) < JWS_KID_MAX);
}

static int check(const char *text, size_t len, struct token_status *out)
{
    struct err err = {0};
    int rc = token_status_check(text, len, kit.ring, KIT_ISSUER, out, &err);
    assert(rc == 0 || err.text[0] != '\0');
    if (rc == 0)
        is_sound(out);
    return rc;
}

static void try_payload(const char *payload)
{
    struct token_status out = {0};
    char *header = xasprintf(
        "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"neargpu-status+jwt\"}", kit.kid);
    char *text = kit_sign(kit.key, header, payload);
    if (check(text, strlen(text), &out) == 0) {
        json_t *v = json_loads(payload, JSON_REJECT_DUPLICATES, NULL);
        assert(v != NULL);
        assert(json_integer_value(json_object_get(v, "seq")) == out.seq);
        assert(json_array_size(json_object_get(v, "revoked")) == out.revoked_count);
        assert(strcmp(json_string_value(json_object_get(v, "iss")), KIT_ISSUER) == 0);
        json_decref(v);
        token_status_done(&out);
    }
    free(text);
    free(header);
}

/* As Ed25519 is deterministic, an accepted text's signature is the one the key makes.
 */
static void try_text(const char *text, size_t len)
{
    struct token_status out = {0};
    if (check(text, len, &out) != 0)
        return;
    struct jws_parts p;
    const char *step;
    uint8_t sig[64];
    size_t sig_len = sizeof(sig);
    int rc = jws_split(text, len, &p, &step, NULL);
    assert(rc == 0);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    rc = EVP_DigestSignInit(md, NULL, NULL, NULL, kit.key);
    assert(rc == 1);
    rc =
        EVP_DigestSign(md, sig, &sig_len, (const uint8_t *)p.signed_text, p.signed_len);
    assert(rc == 1 && memcmp(sig, p.sig, sizeof(sig)) == 0);
    EVP_MD_CTX_free(md);
    jws_parts_done(&p);
    token_status_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (kit.ring == NULL && kit_init(&kit) != 0)
        abort();
    if (size == 0)
        return 0;
    if (data[0] == 'p') {
        char *text = xstrndup((const char *)data + 1, size - 1);
        try_payload(text);
        free(text);
    } else {
        try_text((const char *)data + 1, size - 1);
    }
    return 0;
}
