/* note: see note.h. */
#include "client/lib/note.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

#define HASH_LEN      4
#define TIME_LEN      8
#define SIG_LEN       64
#define BLOB_LEN      (HASH_LEN + SIG_LEN)
#define COSIGN_LEN    (HASH_LEN + TIME_LEN + SIG_LEN)
#define BLOB_TEXT     104 /* base64 of 76 bytes, padding included */
#define KEY_TEXT      44  /* of 33 */
#define LINE_DASH     "\xe2\x80\x94 "
#define LINE_DASH_LEN 4

/* --- base64 with padding, as notes have it (RFC 4648 section 4), strict --- */

static int64_t decode64(const char *text, size_t len, uint8_t *out, size_t cap)
{
    uint8_t buf[BLOB_TEXT / 4 * 3 + 3];
    char again[BLOB_TEXT + 5];
    if (len == 0 || len % 4 != 0 || len > BLOB_TEXT)
        return -1;
    int n = EVP_DecodeBlock(buf, (const unsigned char *)text, (int)len);
    if (n < 0)
        return -1;
    for (size_t i = len; i > len - 2 && text[i - 1] == '='; i--)
        n--;
    if ((size_t)n > cap)
        return -1;
    /* What OpenSSL lets through, blanks and unused bits, does not come out the same. */
    EVP_EncodeBlock((unsigned char *)again, buf, n);
    if (strlen(again) != len || memcmp(again, text, len) != 0)
        return -1;
    memcpy(out, buf, (size_t)n);
    return n;
}

static void add64(struct strbuf *b, const uint8_t *data, size_t len)
{
    char text[BLOB_TEXT + 5];
    EVP_EncodeBlock((unsigned char *)text, data, (int)len);
    strbuf_adds(b, text);
}

/* --- keys --- */

static bool name_is_valid(const char *name, size_t len)
{
    if (len == 0 || len >= NOTE_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] == '+' || name[i] == 0x7f)
            return false;
    return true;
}

static void key_hash(const struct note_key *k, uint8_t out[HASH_LEN])
{
    uint8_t buf[NOTE_NAME_MAX + 2 + JWS_ED25519_LEN], sum[SHA256_LEN];
    size_t n = strlen(k->name);
    memcpy(buf, k->name, n);
    buf[n++] = '\n';
    buf[n++] = (uint8_t)k->alg;
    memcpy(buf + n, k->pub, JWS_ED25519_LEN);
    digest_sha256(buf, n + JWS_ED25519_LEN, sum);
    memcpy(out, sum, HASH_LEN);
}

int note_key_parse(const char *vkey, struct note_key *ret, struct err *err)
{
    const char *hash = strchr(vkey, '+');
    const char *key = hash != NULL ? strchr(hash + 1, '+') : NULL;
    uint8_t blob[1 + JWS_ED25519_LEN], sum[HASH_LEN];
    char hex[2 * HASH_LEN + 1];
    struct note_key k;
    if (key == NULL || !name_is_valid(vkey, (size_t)(hash - vkey)))
        return err_set(err, ERR_BAD_REQUEST, "a verifier key is NAME+HASH+KEY");
    memset(&k, 0, sizeof(k));
    memcpy(k.name, vkey, (size_t)(hash - vkey));
    if (decode64(key + 1, strlen(key + 1), blob, sizeof(blob)) != sizeof(blob) ||
        (blob[0] != NOTE_ALG_SIGN && blob[0] != NOTE_ALG_COSIGN))
        return err_set(err, ERR_BAD_REQUEST, "the verifier key %s is not Ed25519",
                       k.name);
    k.alg = (enum note_alg)blob[0];
    memcpy(k.pub, blob + 1, sizeof(k.pub));
    key_hash(&k, sum);
    digest_hex(sum, HASH_LEN, hex);
    if (key - hash - 1 != 2 * HASH_LEN || memcmp(hash + 1, hex, 2 * HASH_LEN) != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "the hash of the verifier key %s is not its own (%s)", k.name,
                       hex);
    *ret = k;
    return 0;
}

void note_key_print(const struct note_key *k, char out[NOTE_VKEY_MAX])
{
    uint8_t blob[1 + JWS_ED25519_LEN] = {(uint8_t)k->alg}, sum[HASH_LEN];
    char hex[2 * HASH_LEN + 1], text[KEY_TEXT + 5];
    key_hash(k, sum);
    digest_hex(sum, HASH_LEN, hex);
    memcpy(blob + 1, k->pub, sizeof(k->pub));
    EVP_EncodeBlock((unsigned char *)text, blob, sizeof(blob));
    snprintf(out, NOTE_VKEY_MAX, "%s+%s+%s", k->name, hex, text);
}

int note_key_make(const char *name, enum note_alg alg, EVP_PKEY *key,
                  struct note_key *ret, struct err *err)
{
    struct note_key k;
    memset(&k, 0, sizeof(k));
    k.alg = alg;
    if (!name_is_valid(name, strlen(name)))
        return err_set(
            err, ERR_BAD_REQUEST,
            "'%.60s' cannot name a signer: no blanks, no +, at most %d bytes", name,
            NOTE_NAME_MAX - 1);
    memcpy(k.name, name, strlen(name));
    if (jws_public(key, k.pub, err) != 0)
        return -1;
    *ret = k;
    return 0;
}

/* --- notes --- */

/* Where the signature lines begin; NULL when it is no note. */
static const char *signatures_of(const char *note)
{
    const char *at = NULL, *next = note;
    size_t len = strlen(note);
    if (len == 0 || len > NOTE_TEXT_MAX || note[len - 1] != '\n')
        return NULL;
    for (const unsigned char *p = (const unsigned char *)note; *p != '\0'; p++)
        if (*p < ' ' && *p != '\n')
            return NULL;
    while ((next = strstr(next, "\n\n")) != NULL)
        at = next++;
    return at != NULL && at != note && at[2] != '\0' ? at + 2 : NULL;
}

static int ed25519(EVP_PKEY *key, const char *text, size_t len, uint8_t sig[SIG_LEN],
                   struct err *err)
{
    size_t sig_len = SIG_LEN;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
             EVP_DigestSign(ctx, sig, &sig_len, (const uint8_t *)text, len) == 1 &&
             sig_len == SIG_LEN;
    EVP_MD_CTX_free(ctx);
    return ok ? 0 : err_set(err, ERR_INTERNAL, "the note could not be signed");
}

static void add_line(struct strbuf *b, const char *name, const uint8_t *blob,
                     size_t len)
{
    strbuf_addf(b, LINE_DASH "%s ", name);
    add64(b, blob, len);
    strbuf_addc(b, '\n');
}

void note_node_name(const char *spiffe_id, char out[NOTE_NAME_MAX])
{
    static const char scheme[] = "spiffe://";
    const char *id = spiffe_id;
    char hex[SHA256_HEX];
    if (strncmp(id, scheme, strlen(scheme)) == 0)
        id += strlen(scheme);
    size_t len = strlen(id), market = strcspn(id, "/");
    if (len < NOTE_NAME_MAX) {
        memcpy(out, id, len + 1);
        return;
    }
    digest_sha256_hex(spiffe_id, strlen(spiffe_id), hex);
    snprintf(out, NOTE_NAME_MAX, "%.*s/node/%.16s", (int)(market < 80 ? market : 80),
             id, hex);
}

int note_sign(const char *text, const char *name, EVP_PKEY *key, char **ret,
              struct err *err)
{
    size_t len = strlen(text);
    struct strbuf b = STRBUF_INIT;
    struct note_key k;
    uint8_t blob[BLOB_LEN];
    if (len == 0 || len > NOTE_TEXT_MAX / 2 || text[len - 1] != '\n')
        return err_set(err, ERR_BAD_REQUEST,
                       "a note's text ends in a newline and has at most %d bytes",
                       NOTE_TEXT_MAX / 2);
    if (note_key_make(name, NOTE_ALG_SIGN, key, &k, err) != 0 ||
        ed25519(key, text, len, blob + HASH_LEN, err) != 0)
        return -1;
    key_hash(&k, blob);
    strbuf_adds(&b, text);
    strbuf_addc(&b, '\n');
    add_line(&b, name, blob, sizeof(blob));
    *ret = strbuf_steal(&b);
    return 0;
}

/* What a witness signs. */
static void cosigned_text(struct strbuf *b, int64_t time_s, const char *text,
                          size_t len)
{
    strbuf_addf(b, "cosignature/v1\ntime %lld\n", (long long)time_s);
    strbuf_add(b, text, len);
}

int note_cosign(const char *note, const char *name, EVP_PKEY *key, int64_t time_s,
                char **ret_line, struct err *err)
{
    const char *sigs = signatures_of(note);
    struct strbuf text = STRBUF_INIT, line = STRBUF_INIT;
    struct note_key k;
    uint8_t blob[COSIGN_LEN];
    if (sigs == NULL || time_s < 0)
        return err_set(err, ERR_BAD_REQUEST, "this is no signed note");
    if (note_key_make(name, NOTE_ALG_COSIGN, key, &k, err) != 0)
        return -1;
    key_hash(&k, blob);
    for (int i = 0; i < TIME_LEN; i++)
        blob[HASH_LEN + i] = (uint8_t)((uint64_t)time_s >> (56 - 8 * i));
    cosigned_text(&text, time_s, note, (size_t)(sigs - note) - 1);
    int rc = ed25519(key, text.data, text.len, blob + HASH_LEN + TIME_LEN, err);
    strbuf_done(&text);
    if (rc != 0)
        return -1;
    add_line(&line, name, blob, sizeof(blob));
    *ret_line = strbuf_steal(&line);
    return 0;
}

static bool is_signature(const char *text, size_t len, const uint8_t sig[SIG_LEN],
                         const uint8_t pub[JWS_ED25519_LEN])
{
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, JWS_ED25519_LEN);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = key != NULL && ctx != NULL &&
              EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestVerify(ctx, sig, SIG_LEN, (const uint8_t *)text, len) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return ok;
}

/* A witness's blob: is the signature right, and of when? */
static bool is_cosignature(const char *text, size_t len, const uint8_t blob[COSIGN_LEN],
                           const uint8_t pub[JWS_ED25519_LEN], int64_t *ret_time_s)
{
    struct strbuf signed_text = STRBUF_INIT;
    uint64_t time_s = 0;
    for (int i = 0; i < TIME_LEN; i++)
        time_s = time_s << 8 | blob[HASH_LEN + i];
    if (time_s > INT64_MAX)
        return false;
    cosigned_text(&signed_text, (int64_t)time_s, text, len);
    bool ok = is_signature(signed_text.data, signed_text.len,
                           blob + HASH_LEN + TIME_LEN, pub);
    strbuf_done(&signed_text);
    *ret_time_s = (int64_t)time_s;
    return ok;
}

/* One signature line [line, end): 1: by this key and right; 0: another's; -1: wrong.
 * *ret_time_s: of a witness's. */
static int judge(const char *line, const char *end, const char *text, size_t len,
                 const struct note_key *key, int64_t *ret_time_s)
{
    uint8_t blob[COSIGN_LEN + 3], own[HASH_LEN];
    size_t name_len = strlen(key->name);
    if ((size_t)(end - line) < LINE_DASH_LEN + 3 ||
        memcmp(line, LINE_DASH, LINE_DASH_LEN) != 0)
        return -1;
    const char *name = line + LINE_DASH_LEN;
    const char *space = memchr(name, ' ', (size_t)(end - name));
    if (space == NULL || !name_is_valid(name, (size_t)(space - name)))
        return -1;
    int64_t n = decode64(space + 1, (size_t)(end - space - 1), blob, sizeof(blob));
    if ((size_t)(space - name) != name_len || memcmp(name, key->name, name_len) != 0)
        return 0; /* other algorithms have other lengths */
    key_hash(key, own);
    if (n < HASH_LEN)
        return -1;
    if (memcmp(blob, own, HASH_LEN) != 0)
        return 0;
    if (key->alg == NOTE_ALG_COSIGN)
        return n == COSIGN_LEN && is_cosignature(text, len, blob, key->pub, ret_time_s)
                   ? 1
                   : -1;
    return n == BLOB_LEN && is_signature(text, len, blob + HASH_LEN, key->pub) ? 1 : -1;
}

/* Every line is looked at: the text's length in *ret_len, and whether the key signed.
 */
static int judge_all(const char *note, const struct note_key *key, size_t *ret_len,
                     int64_t *ret_time_s, struct err *err)
{
    const char *sigs = signatures_of(note);
    int count = 0, found = 0;
    if (sigs == NULL)
        return err_set(err, ERR_BAD_REQUEST, "this is no signed note");
    *ret_len = (size_t)(sigs - note) - 1;
    for (const char *line = sigs, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        int one = count++ < NOTE_SIGS_MAX
                      ? judge(line, end, note, *ret_len, key, ret_time_s)
                      : -1;
        if (one < 0)
            return err_set(err, ERR_TOKEN, "signature %d of the note is not valid",
                           count);
        found += one;
    }
    return found > 0
               ? 0
               : err_set(err, ERR_NOT_FOUND, "the note is not signed by %s", key->name);
}

int note_open(const char *note, const struct note_key *key, char **ret_text,
              struct err *err)
{
    size_t len;
    int64_t time_s;
    if (key->alg != NOTE_ALG_SIGN)
        return err_set(err, ERR_BAD_REQUEST, "%s is a witness's key, not a log's",
                       key->name);
    if (judge_all(note, key, &len, &time_s, err) != 0) {
        if (err->code == ERR_NOT_FOUND)
            err->code = ERR_TOKEN;
        return -1;
    }
    *ret_text = xstrndup(note, len);
    return 0;
}

int note_witnessed(const char *note, const struct note_key *witness,
                   int64_t *ret_time_s, struct err *err)
{
    size_t len;
    if (witness->alg != NOTE_ALG_COSIGN)
        return err_set(err, ERR_BAD_REQUEST, "%s is a log's key, not a witness's",
                       witness->name);
    return judge_all(note, witness, &len, ret_time_s, err);
}

/* --- checkpoints --- */

char *checkpoint_print(const struct checkpoint *c)
{
    struct strbuf b = STRBUF_INIT;
    strbuf_addf(&b, "%s\n%llu\n", c->origin, (unsigned long long)c->size);
    add64(&b, c->root.b, sizeof(c->root.b));
    strbuf_addc(&b, '\n');
    return strbuf_steal(&b);
}

/* Decimal without sign or leading zero. */
static int parse_size(const char *text, size_t len, uint64_t *ret)
{
    uint64_t n = 0;
    if (len == 0 || len > 19 || (len > 1 && text[0] == '0'))
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    *ret = n;
    return n <= MERKLE_SIZE_MAX ? 0 : -1;
}

int checkpoint_parse(const char *text, struct checkpoint *ret, struct err *err)
{
    struct checkpoint c;
    const char *size = strchr(text, '\n');
    const char *root = size != NULL ? strchr(size + 1, '\n') : NULL;
    const char *end = root != NULL ? strchr(root + 1, '\n') : NULL;
    memset(&c, 0, sizeof(c));
    if (end == NULL || size == text || (size_t)(size - text) >= sizeof(c.origin))
        return err_set(err, ERR_BAD_REQUEST,
                       "a checkpoint is a line of its log's name, one of its size, one "
                       "of its root");
    memcpy(c.origin, text, (size_t)(size - text));
    if (parse_size(size + 1, (size_t)(root - size - 1), &c.size) != 0)
        return err_set(err, ERR_BAD_REQUEST, "the checkpoint's size is no number");
    if (decode64(root + 1, (size_t)(end - root - 1), c.root.b, sizeof(c.root.b)) !=
        sizeof(c.root.b))
        return err_set(err, ERR_BAD_REQUEST,
                       "the checkpoint's root is no base64 of a SHA-256");
    *ret = c;
    return 0;
}
