/* jws: see jws.h. Splitting trusts nothing: it only cuts, decodes and checks form. The
 * algorithm never comes from the token: the one verifier here is Ed25519, and the
 * header's alg must merely agree. Libraries were no help: those packaged either lack
 * EdDSA or accept a token MACed with the public key. */
#include "client/lib/jws.h"

#include <assert.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/bounds.h"
#include "client/lib/digest.h"
#include "client/lib/jsonr.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

#define JWS_SIG_LEN    64
#define JWS_HEADER_MAX 256 /* alg, kid and typ take about 100 bytes */

void jws_thumbprint(const uint8_t pub[JWS_ED25519_LEN], char out[JWS_KID_MAX])
{
    /* RFC 7638: required members only, sorted, no white space. */
    static const char head[] = "{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"";
    char text[sizeof(head) + B64_ENC_LEN(JWS_ED25519_LEN) + 2];
    size_t len = sizeof(head) - 1;
    memcpy(text, head, len);
    len += b64_encode(pub, JWS_ED25519_LEN, text + len);
    memcpy(text + len, "\"}", 2);
    uint8_t hash[SHA256_LEN];
    digest_sha256(text, len + 2, hash);
    b64_encode(hash, sizeof(hash), out);
}

int jws_public(EVP_PKEY *key, uint8_t out[JWS_ED25519_LEN], struct err *err)
{
    size_t len = JWS_ED25519_LEN;
    uint8_t pub[JWS_ED25519_LEN];
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_ED25519 ||
        EVP_PKEY_get_raw_public_key(key, pub, &len) != 1 || len != sizeof(pub))
        return err_set(err, ERR_BAD_REQUEST, "the key is not an Ed25519 key");
    memcpy(out, pub, sizeof(pub));
    return 0;
}

json_t *jws_jwk(const uint8_t pub[JWS_ED25519_LEN])
{
    char x[B64_ENC_LEN(JWS_ED25519_LEN) + 1];
    b64_encode(pub, JWS_ED25519_LEN, x);
    json_t *v = json_pack("{s:s, s:s, s:s}", "kty", "OKP", "crv", "Ed25519", "x", x);
    assert(v != NULL);
    return v;
}

int jws_jwk_parse(const json_t *jwk, uint8_t out[JWS_ED25519_LEN], struct err *err)
{
    struct {
        const char *kty, *crv, *x;
        json_t *ignored;
    } m;
    static const struct jsonx_field fields[] = {
        {"kty", JSONX_STRING, true, offsetof(__typeof__(m), kty)},
        {"crv", JSONX_STRING, true, offsetof(__typeof__(m), crv)},
        {"x", JSONX_STRING, true, offsetof(__typeof__(m), x)},
        {"kid", JSONX_ANY, false, offsetof(__typeof__(m), ignored)},
        {"alg", JSONX_ANY, false, offsetof(__typeof__(m), ignored)},
        {"use", JSONX_ANY, false, offsetof(__typeof__(m), ignored)},
        {"nbf", JSONX_ANY, false, offsetof(__typeof__(m), ignored)},
        {"exp", JSONX_ANY, false, offsetof(__typeof__(m), ignored)},
    };
    if (jsonx_decode(jwk, fields, JSONX_COUNT(fields), &m, "", err) != 0)
        return err_prefix(err, "JWK");
    if (strcmp(m.kty, "OKP") != 0 || strcmp(m.crv, "Ed25519") != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "JWK: only kty OKP with crv Ed25519 is accepted");
    uint8_t pub[JWS_ED25519_LEN];
    if (b64_decode(m.x, strlen(m.x), pub, sizeof(pub)) != JWS_ED25519_LEN)
        return err_set(err, ERR_BAD_REQUEST, "JWK: /x is not 32 bytes of base64url");
    memcpy(out, pub, sizeof(pub));
    return 0;
}

int jws_keygen(EVP_PKEY **ret_key, struct err *err)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    if (key == NULL)
        return err_set(err, ERR_INTERNAL, "OpenSSL cannot make an Ed25519 key");
    *ret_key = key;
    return 0;
}

/* Without a callback OpenSSL would ask for a passphrase on the terminal. */
static int jws_no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

int jws_key_from_pem(const char *pem, size_t len, EVP_PKEY **ret_key, struct err *err)
{
    assert(len < INT32_MAX);
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    if (bio == NULL)
        abort();
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, jws_no_passphrase, NULL);
    BIO_free(bio);
    if (key == NULL)
        return err_set(err, ERR_BAD_REQUEST, "not an unencrypted private key in PEM");
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(key);
        return err_set(err, ERR_BAD_REQUEST, "the private key is not Ed25519");
    }
    *ret_key = key;
    return 0;
}

char *jws_key_to_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        abort();
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *pem = xstrndup(data, (size_t)len);
    BIO_free(bio);
    return pem;
}

static int jws_sign_here(void *arg, const void *data, size_t len,
                         uint8_t sig[JWS_SIG_LEN], struct err *err)
{
    size_t sig_len = JWS_SIG_LEN;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestSignInit(md, NULL, NULL, NULL, arg) == 1 &&
              EVP_DigestSign(md, sig, &sig_len, data, len) == 1 &&
              sig_len == JWS_SIG_LEN;
    EVP_MD_CTX_free(md);
    return ok ? 0 : err_set(err, ERR_INTERNAL, "OpenSSL cannot sign with the key");
}

int jws_sign_by(const struct jws_signer *signer, const char *typ, const json_t *payload,
                char **ret_token, struct err *err)
{
    uint8_t sig[JWS_SIG_LEN];
    char kid[JWS_KID_MAX];
    jws_thumbprint(signer->pub, kid);
    struct strbuf header = STRBUF_INIT, token = STRBUF_INIT;
    strbuf_addf(&header, "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"%s\"}", kid, typ);
    b64_encode_to(&token, header.data, header.len);
    strbuf_done(&header);
    strbuf_addc(&token, '.');
    char *text = jsonx_dump(payload);
    b64_encode_to(&token, text, strlen(text));
    free(text);
    int rc = signer->sign(signer->arg, token.data, token.len, sig, err);
    if (rc == 0) {
        strbuf_addc(&token, '.');
        b64_encode_to(&token, sig, sizeof(sig));
        *ret_token = strbuf_steal(&token);
    }
    strbuf_done(&token);
    return rc;
}

int jws_sign(EVP_PKEY *key, const char *typ, const json_t *payload, char **ret_token,
             struct err *err)
{
    struct jws_signer signer = {.sign = jws_sign_here, .arg = key};
    if (jws_public(key, signer.pub, err) != 0)
        return -1;
    return jws_sign_by(&signer, typ, payload, ret_token, err);
}

static int jws_refuse(const char **ret_step, const char *step, struct err *err,
                      const char *why)
{
    *ret_step = step;
    return err_set(err, ERR_TOKEN, "%s: %s", step, why);
}

/* The 43 characters of a SHA-256 in base64url: names a key and nothing else, so no path
 * or query can hide in a kid. */
static bool jws_is_thumbprint(const char *text)
{
    uint8_t hash[SHA256_LEN];
    size_t len = strlen(text);
    return b64_decode(text, len, hash, sizeof(hash)) == SHA256_LEN;
}

/* Header members as read; the bounds leave room to name what is wrong. */
struct jws_head {
    char alg[32], kid[64], typ[32];
};

static int jws_header_read(const char *text, size_t len, struct jws_head *h,
                           struct err *err)
{
    static const struct jsonr_field fields[] = {
        {"alg", true, offsetof(struct jws_head, alg), sizeof(h->alg)},
        {"kid", true, offsetof(struct jws_head, kid), sizeof(h->kid)},
        {"typ", true, offsetof(struct jws_head, typ), sizeof(h->typ)},
    };
    struct jsonr r = {text, text + len};
    if (jsonr_object(&r, fields, JSONR_COUNT(fields), h, err) != 0 ||
        jsonr_end(&r, err) != 0)
        return -1;
    if (strcmp(h->alg, "EdDSA") != 0 && strcmp(h->alg, "Ed25519") != 0)
        return err_set(err, ERR_TOKEN, "/alg: '%s' is not EdDSA", h->alg);
    if (!jws_is_thumbprint(h->kid))
        return err_set(err, ERR_TOKEN, "/kid: not an RFC 7638 thumbprint");
    return 0;
}

static int jws_header(const char *text, size_t len, struct jws_parts *ret,
                      const char **ret_step, struct err *err)
{
    struct jws_head h;
    if (jws_header_read(text, len, &h, err) != 0) {
        *ret_step = "header";
        err_prefix(err, "header");
        if (err != NULL)
            err->code = ERR_TOKEN;
        return -1;
    }
    memcpy(ret->kid, h.kid, sizeof(ret->kid));
    memcpy(ret->typ, h.typ, sizeof(ret->typ));
    return 0;
}

/* Where the parts of a token stand. */
struct jws_cut {
    const char *part[3];
    size_t len[3];
};

static bool jws_cut(const char *token, size_t len, struct jws_cut *cut)
{
    const char *p = token, *end = token + len;
    for (int i = 0; i < 3; i++) {
        const char *dot = i < 2 ? memchr(p, '.', (size_t)(end - p)) : end;
        if (dot == NULL || dot == p)
            return false;
        cut->part[i] = p;
        cut->len[i] = (size_t)(dot - p);
        p = dot + 1;
    }
    return memchr(cut->part[2], '.', cut->len[2]) == NULL;
}

int jws_split_max(const char *token, size_t len, size_t max, struct jws_parts *ret,
                  const char **ret_step, struct err *err)
{
    struct jws_cut cut;
    struct jws_parts p = {.signed_text = token};
    uint8_t header[JWS_HEADER_MAX];
    if (len > max)
        return jws_refuse(ret_step, "size", err, "the token is too long");
    if (!jws_cut(token, len, &cut))
        return jws_refuse(ret_step, "parts", err, "there are not exactly three parts");
    p.signed_len = cut.len[0] + 1 + cut.len[1];
    ptrdiff_t header_len = b64_decode(cut.part[0], cut.len[0], header, sizeof(header));
    if (header_len < 0)
        return jws_refuse(ret_step, "base64", err,
                          "the header is not strict base64url, or too long");
    /* One block for the payload and, behind it, a signature of whatever length. */
    size_t payload_cap = B64_DEC_MAX(cut.len[1]), sig_cap = B64_DEC_MAX(cut.len[2]);
    p.payload = xmalloc(payload_cap + 1 + sig_cap);
    uint8_t *sig = (uint8_t *)p.payload + payload_cap + 1;
    ptrdiff_t n =
        b64_decode(cut.part[1], cut.len[1], (uint8_t *)p.payload, payload_cap);
    ptrdiff_t sig_len = b64_decode(cut.part[2], cut.len[2], sig, sig_cap);
    int rc = 0;
    if (n < 0 || sig_len < 0)
        rc = jws_refuse(ret_step, "base64", err,
                        "the payload or signature is not strict base64url");
    else if (jws_header((const char *)header, (size_t)header_len, &p, ret_step, err) !=
             0)
        rc = -1;
    else if (sig_len != JWS_SIG_LEN)
        rc = jws_refuse(ret_step, "signature", err, "the signature is not 64 bytes");
    if (rc != 0) {
        free(p.payload);
        return rc;
    }
    p.payload_len = (size_t)n;
    p.payload[n] = '\0';
    memcpy(p.sig, sig, sizeof(p.sig));
    *ret = p;
    return 0;
}

int jws_split(const char *token, size_t len, struct jws_parts *ret,
              const char **ret_step, struct err *err)
{
    return jws_split_max(token, len, TOKEN_BYTES_MAX, ret, ret_step, err);
}

void jws_parts_done(struct jws_parts *p)
{
    free(p->payload);
    p->payload = NULL;
}

EVP_MD_CTX *jws_verifier(EVP_PKEY *pub)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (md == NULL)
        abort();
    if (EVP_DigestVerifyInit(md, NULL, NULL, NULL, pub) == 1)
        return md;
    EVP_MD_CTX_free(md);
    return NULL;
}

int jws_verify_ready(const struct jws_parts *p, const EVP_MD_CTX *verifier,
                     struct err *err)
{
    /* A copy: a context is spent by its one verification, and shared by no two. */
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (md == NULL)
        abort();
    bool ok = EVP_MD_CTX_copy_ex(md, verifier) == 1 &&
              EVP_DigestVerify(md, p->sig, sizeof(p->sig),
                               (const uint8_t *)p->signed_text, p->signed_len) == 1;
    EVP_MD_CTX_free(md);
    return ok ? 0 : err_set(err, ERR_TOKEN, "not made by the key kid names");
}

int jws_verify(const struct jws_parts *p, EVP_PKEY *pub, struct err *err)
{
    EVP_MD_CTX *verifier = jws_verifier(pub);
    if (verifier == NULL)
        return err_set(err, ERR_TOKEN, "OpenSSL refuses the key");
    int rc = jws_verify_ready(p, verifier, err);
    EVP_MD_CTX_free(verifier);
    return rc;
}
