/* fuzz_token: any bytes as a token, and, well signed, as a grant's payload or header.
 * Without the key nothing new is accepted. What is accepted with it must be JSON to the
 * general parser too, without duplicates, and say the same there. The first byte
 * chooses among the three. */
#include <assert.h>

#include "tests/unit/token_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kit kit;

static int check(const char *text, size_t len, struct token_claims *out)
{
    const char *step = NULL;
    struct err err = {0};
    int rc = token_check(text, len, &kit.ctx, out, &step, &err);
    assert(rc == 0 || (step != NULL && err.code == ERR_TOKEN && err.text[0] != '\0'));
    return rc;
}

/* Ed25519 signatures are deterministic: an accepted text is the one the key makes. */
static void try_token(const char *text, size_t len)
{
    struct token_claims out;
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
}

static void same_claims(const char *payload, const struct token_claims *out)
{
    json_t *general = jsonx_parse(payload, strlen(payload), TOKEN_BYTES_MAX, NULL);
    assert(general != NULL);
    json_t *built = token_build(out);
    const char *name;
    json_t *value;
    assert(json_object_size(general) == json_object_size(built));
    /* The lease may have been written otherwise (offsets, defaults), no other claim. */
    json_object_foreach(built, name, value)
    {
        if (strcmp(name, "authorization_details") != 0)
            assert(json_equal(value, json_object_get(general, name)));
    }
    json_t *details = json_object_get(general, "authorization_details");
    json_t *lease = json_array_get(details, 0);
    assert(json_array_size(details) == 1);
    assert(strcmp(json_string_value(json_object_get(lease, "identifier")),
                  out->lease.reservation) == 0);
    assert(json_array_size(json_object_get(lease, "devices")) == out->lease.gpu_count);
    assert(json_integer_value(json_object_get(lease, "epoch")) == out->lease.epoch);
    json_decref(general);
    json_decref(built);
}

static void try_payload(const char *payload)
{
    struct token_claims out;
    char *header = kit_header(&kit), *token = kit_sign(kit.key, header, payload);
    if (check(token, strlen(token), &out) == 0)
        same_claims(payload, &out);
    free(token);
    free(header);
}

static void try_header(const char *header)
{
    struct token_claims out;
    char *payload = kit_payload(&kit), *token = kit_sign(kit.key, header, payload);
    if (check(token, strlen(token), &out) == 0) {
        json_t *h = json_loads(header, JSON_REJECT_DUPLICATES, NULL);
        assert(h != NULL && json_object_size(h) == 3);
        assert(strcmp(json_string_value(json_object_get(h, "kid")), kit.kid) == 0);
        assert(strcmp(json_string_value(json_object_get(h, "typ")), "at+jwt") == 0);
        json_decref(h);
    }
    free(token);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (kit.ring == NULL && kit_init(&kit) != 0)
        abort();
    if (size == 0)
        return 0;
    char *text = xstrndup((const char *)data + 1, size - 1);
    if (data[0] == 'p')
        try_payload(text);
    else if (data[0] == 'h')
        try_header(text);
    else
        try_token((const char *)data + 1, size - 1);
    free(text);
    return 0;
}
