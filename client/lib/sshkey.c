/* sshkey: see sshkey.h. */
#include "client/lib/sshkey.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/xalloc.h"

#define BEGIN_LINE "-----BEGIN OPENSSH PRIVATE KEY-----"
#define END_LINE   "-----END OPENSSH PRIVATE KEY-----"
#define MAGIC      "openssh-key-v1" /* with its NUL */
#define BLOCK      8                /* of a private part that is not encrypted */

/* What is left of a message; every read checks it. */
struct cut {
    const uint8_t *p;
    size_t left;
};

static bool cut_u32(struct cut *c, uint32_t *ret)
{
    if (c->left < 4)
        return false;
    *ret = (uint32_t)c->p[0] << 24 | (uint32_t)c->p[1] << 16 | (uint32_t)c->p[2] << 8 |
           c->p[3];
    c->p += 4;
    c->left -= 4;
    return true;
}

static bool cut_string(struct cut *c, struct cut *ret)
{
    uint32_t len;
    if (!cut_u32(c, &len) || len > c->left)
        return false;
    *ret = (struct cut){c->p, len};
    c->p += len;
    c->left -= len;
    return true;
}

static bool cut_is(const struct cut *c, const char *text)
{
    return c->left == strlen(text) && memcmp(c->p, text, c->left) == 0;
}

/* ---- base64 with padding, one spelling for a value ------------------------------- */

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* White space is skipped when `loose` (the lines of a file). -1: not base64, or more
 * than cap bytes. */
static ptrdiff_t decode(const char *text, size_t len, bool loose, uint8_t *out,
                        size_t cap)
{
    uint32_t bits = 0;
    size_t n = 0, digits = 0, pads = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (loose && (c == '\n' || c == '\r'))
            continue;
        if (c == '=') {
            pads++;
            continue;
        }
        int value = digit(c);
        if (value < 0 || pads > 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        if (++digits % 4 != 1) { /* each but the first of four completes a byte */
            unsigned spare = digits % 4 == 2 ? 4 : digits % 4 == 3 ? 2 : 0;
            if (n == cap)
                return -1;
            out[n++] = (uint8_t)(bits >> spare);
            if (spare == 0)
                bits = 0;
        }
    }
    if (digits % 4 == 1 || (digits + pads) % 4 != 0 || pads > 2)
        return -1;
    unsigned spare = digits % 4 == 2 ? 4 : digits % 4 == 3 ? 2 : 0;
    return (bits & ((1u << spare) - 1)) == 0 ? (ptrdiff_t)n : -1;
}

/* ---- public ---------------------------------------------------------------------- */

int sshkey_blob_read(const uint8_t *blob, size_t len, uint8_t pub[JWS_ED25519_LEN],
                     struct err *err)
{
    struct cut c = {blob, len}, type, key;
    if (!cut_string(&c, &type))
        return err_set(err, ERR_BAD_REQUEST, "the SSH key is damaged");
    if (!cut_is(&type, SSHKEY_TYPE))
        return err_set(err, ERR_BAD_REQUEST,
                       "only Ed25519 keys can hold tokens: ssh-keygen -t ed25519");
    if (!cut_string(&c, &key) || key.left != JWS_ED25519_LEN || c.left != 0)
        return err_set(err, ERR_BAD_REQUEST, "the SSH key is damaged");
    memcpy(pub, key.p, JWS_ED25519_LEN);
    return 0;
}

void sshkey_blob(const uint8_t pub[JWS_ED25519_LEN], uint8_t out[SSHKEY_BLOB_LEN])
{
    static const uint8_t head[] = {0,   0,   0,   11,  's', 's', 'h', '-', 'e', 'd',
                                   '2', '5', '5', '1', '9', 0,   0,   0,   32};
    memcpy(out, head, sizeof(head));
    memcpy(out + sizeof(head), pub, JWS_ED25519_LEN);
}

static void take_comment(const char *text, size_t len, char out[SSHKEY_COMMENT_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < len && n < SSHKEY_COMMENT_MAX - 1; i++)
        if (text[i] >= ' ' && text[i] <= '~')
            out[n++] = text[i];
    out[n] = '\0';
}

int sshkey_public(const char *text, size_t len, struct sshkey_public *ret,
                  struct err *err)
{
    static const char type[] = SSHKEY_TYPE " ";
    uint8_t blob[SSHKEY_BLOB_LEN];
    struct sshkey_public key;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (memchr(text, '\n', len) != NULL)
        return err_set(err, ERR_BAD_REQUEST, "one public key is expected, in one line");
    if (len < sizeof(type) - 1 || memcmp(text, type, sizeof(type) - 1) != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "not a line that begins with " SSHKEY_TYPE
                       ": give a .pub file of ssh-keygen -t ed25519");
    text += sizeof(type) - 1;
    len -= sizeof(type) - 1;
    const char *blank = memchr(text, ' ', len);
    size_t word = blank != NULL ? (size_t)(blank - text) : len;
    if (decode(text, word, false, blob, sizeof(blob)) != SSHKEY_BLOB_LEN)
        return err_set(err, ERR_BAD_REQUEST, "the SSH key is damaged");
    if (sshkey_blob_read(blob, sizeof(blob), key.pub, err) != 0)
        return -1;
    take_comment(text + word + (blank != NULL), len - word - (blank != NULL),
                 key.comment);
    *ret = key;
    return 0;
}

void sshkey_text(const uint8_t pub[JWS_ED25519_LEN], char out[SSHKEY_TEXT_MAX])
{
    uint8_t blob[SSHKEY_BLOB_LEN];
    size_t n = strlen(SSHKEY_TYPE " ");
    sshkey_blob(pub, blob);
    memcpy(out, SSHKEY_TYPE " ", n);
    (void)EVP_EncodeBlock((unsigned char *)out + n, blob, sizeof(blob));
}

void sshkey_fingerprint(const uint8_t pub[JWS_ED25519_LEN], char out[SSHKEY_FINGER_MAX])
{
    uint8_t blob[SSHKEY_BLOB_LEN], hash[SHA256_LEN];
    sshkey_blob(pub, blob);
    digest_sha256(blob, sizeof(blob), hash);
    memcpy(out, "SHA256:", 7);
    (void)EVP_EncodeBlock((unsigned char *)out + 7, hash, sizeof(hash));
    out[7 + 43] = '\0'; /* OpenSSH prints it without padding */
}

/* ---- private --------------------------------------------------------------------- */

bool sshkey_is_private(const char *text, size_t len)
{
    return len >= sizeof(BEGIN_LINE) - 1 &&
           memcmp(text, BEGIN_LINE, sizeof(BEGIN_LINE) - 1) == 0;
}

/* The private part: two equal numbers, the key, a comment, 1 2 3 … up to the block. */
static int read_secret(struct cut c, const uint8_t *pub, EVP_PKEY **ret,
                       struct err *err)
{
    uint32_t one, two;
    struct cut type, own, both, comment;
    bool ok = c.left % BLOCK == 0 && cut_u32(&c, &one) && cut_u32(&c, &two) &&
              one == two && cut_string(&c, &type) && cut_is(&type, SSHKEY_TYPE) &&
              cut_string(&c, &own) && own.left == JWS_ED25519_LEN &&
              cut_string(&c, &both) && both.left == 2 * JWS_ED25519_LEN &&
              cut_string(&c, &comment) && c.left < BLOCK;
    for (size_t i = 0; ok && i < c.left; i++)
        ok = c.p[i] == i + 1;
    if (!ok || memcmp(own.p, pub, JWS_ED25519_LEN) != 0 ||
        memcmp(both.p + JWS_ED25519_LEN, pub, JWS_ED25519_LEN) != 0)
        return err_set(err, ERR_BAD_REQUEST, "the SSH private key is damaged");
    uint8_t made[JWS_ED25519_LEN];
    EVP_PKEY *key =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, both.p, JWS_ED25519_LEN);
    /* A public half that is not the seed's would have us sign what nobody can check. */
    if (key == NULL || jws_public(key, made, err) != 0 ||
        memcmp(made, pub, sizeof(made)) != 0) {
        EVP_PKEY_free(key);
        return err_set(err, ERR_BAD_REQUEST, "the SSH private key is damaged");
    }
    *ret = key;
    return 0;
}

static int read_file(struct cut c, EVP_PKEY **ret, struct err *err)
{
    struct cut cipher, kdf, options, blob, secret;
    uint32_t keys;
    uint8_t pub[JWS_ED25519_LEN];
    if (c.left < sizeof(MAGIC) || memcmp(c.p, MAGIC, sizeof(MAGIC)) != 0)
        return err_set(err, ERR_BAD_REQUEST, "the SSH private key is damaged");
    c.p += sizeof(MAGIC);
    c.left -= sizeof(MAGIC);
    if (!cut_string(&c, &cipher) || !cut_string(&c, &kdf) || !cut_string(&c, &options))
        return err_set(err, ERR_BAD_REQUEST, "the SSH private key is damaged");
    if (!cut_is(&cipher, "none") || !cut_is(&kdf, "none") || options.left != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "the SSH private key is encrypted: ssh-add it, and name it as "
                       "agent:SHA256:… (ssh-add -l)");
    if (!cut_u32(&c, &keys) || keys != 1 || !cut_string(&c, &blob) ||
        !cut_string(&c, &secret) || c.left != 0)
        return err_set(err, ERR_BAD_REQUEST, "the SSH private key is damaged");
    if (sshkey_blob_read(blob.p, blob.left, pub, err) != 0)
        return -1;
    return read_secret(secret, pub, ret, err);
}

int sshkey_private(const char *text, size_t len, EVP_PKEY **ret, struct err *err)
{
    static const size_t head = sizeof(BEGIN_LINE) - 1, tail = sizeof(END_LINE) - 1;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (!sshkey_is_private(text, len) || len > SSHKEY_FILE_MAX || len < head + tail ||
        memcmp(text + len - tail, END_LINE, tail) != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "not a private key as ssh-keygen writes it");
    size_t cap = len - head - tail;
    uint8_t *raw = xmalloc(cap + 1);
    ptrdiff_t n = decode(text + head, cap, true, raw, cap);
    int rc = n < 0 ? err_set(err, ERR_BAD_REQUEST, "the SSH private key is damaged")
                   : read_file((struct cut){raw, (size_t)n}, ret, err);
    explicit_bzero(raw, cap + 1);
    free(raw);
    return rc;
}
