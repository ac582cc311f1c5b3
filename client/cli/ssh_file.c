/* ssh_file: see ssh_file.h. */
#include "client/cli/ssh_file.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jws.h"
#include "client/lib/sshkey.h"
#include "client/lib/xalloc.h"

#define KEY_LEN   32
#define LINE      70
#define BLOCK     8 /* what the private part is filled up to */
#define MAGIC     "openssh-key-v1"
#define TYPE_MAX  64
#define WORDS_MAX 4096

static void put_u32(struct strbuf *b, uint32_t v)
{
    const unsigned char be[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16),
                                 (unsigned char)(v >> 8), (unsigned char)v};
    strbuf_add(b, be, sizeof(be));
}

static void put_string(struct strbuf *b, const void *data, size_t len)
{
    put_u32(b, (uint32_t)len);
    strbuf_add(b, data, len);
}

static void wipe(struct strbuf *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->cap);
    strbuf_done(b);
}

/* Base64 with padding, as SSH has it, in lines. */
static void put_base64(struct strbuf *out, const struct strbuf *raw)
{
    size_t cap = raw->len / 3 * 4 + 5;
    unsigned char *text = xmalloc(cap);
    size_t len =
        (size_t)EVP_EncodeBlock(text, (const unsigned char *)raw->data, (int)raw->len);
    for (size_t at = 0; at < len; at += LINE) {
        strbuf_add(out, text + at, len - at < LINE ? len - at : LINE);
        strbuf_addc(out, '\n');
    }
    explicit_bzero(text, cap);
    free(text);
}

int ssh_file_private(EVP_PKEY *key, struct strbuf *out, struct err *err)
{
    struct strbuf all = STRBUF_INIT, priv = STRBUF_INIT;
    unsigned char both[2 * KEY_LEN];
    size_t len = KEY_LEN;
    uint8_t blob[SSHKEY_BLOB_LEN];
    int rc = jws_public(key, both + KEY_LEN, err);
    if (rc == 0 &&
        (EVP_PKEY_get_raw_private_key(key, both, &len) != 1 || len != KEY_LEN))
        rc = err_set(err, ERR_INTERNAL, "the account's key has no private part");
    if (rc == 0) {
        /* Two equal numbers tell a wrong passphrase; without one any do. */
        put_u32(&priv, 0);
        put_u32(&priv, 0);
        sshkey_blob(both + KEY_LEN, blob);
        strbuf_add(&priv, blob, sizeof(blob));
        put_string(&priv, both, sizeof(both));
        put_string(&priv, "neargpu", sizeof("neargpu") - 1);
        for (char pad = 1; priv.len % BLOCK != 0; pad++)
            strbuf_addc(&priv, pad);
        strbuf_add(&all, MAGIC, sizeof(MAGIC)); /* with its NUL */
        put_string(&all, "none", 4);
        put_string(&all, "none", 4);
        put_string(&all, "", 0);
        put_u32(&all, 1);
        put_string(&all, blob, sizeof(blob));
        put_string(&all, priv.data, priv.len);
        strbuf_adds(out, "-----BEGIN OPENSSH PRIVATE KEY-----\n");
        put_base64(out, &all);
        strbuf_adds(out, "-----END OPENSSH PRIVATE KEY-----\n");
    }
    explicit_bzero(both, sizeof(both));
    wipe(&priv);
    wipe(&all);
    return rc;
}

int ssh_file_words(const char *line, char **ret_type, char **ret_key, struct err *err)
{
    static const char *const in_type = "abcdefghijklmnopqrstuvwxyz"
                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-@.";
    static const char *const in_key = "abcdefghijklmnopqrstuvwxyz"
                                      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=";
    size_t type = strspn(line, in_type);
    const char *key = line + type + strspn(line + type, " \t");
    size_t len = strspn(key, in_key);
    if (type == 0 || type > TYPE_MAX || key == line + type || len == 0 ||
        len > WORDS_MAX || strchr(" \t\r\n", key[len]) == NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "this is no public key as ssh-keygen writes it");
    *ret_type = xstrndup(line, type);
    *ret_key = xstrndup(key, len);
    return 0;
}
