#include "server/issuer/issuer.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/issuer/keystore.h"
#include "server/issuer/signer.h"

struct issuer {
    struct keystore *keys;
    struct signer_link *link; /* NULL: signs in this process */
    char *url;
};

int issuer_open(const char *dir, const char *url, int64_t now_us, const char *signer,
                struct issuer **ret, struct err *err)
{
    struct issuer *is = xcalloc(1, sizeof(*is));
    is->url = xstrdup(url);
    int rc = keystore_open(dir, url, now_us, &is->keys, err);
    if (rc == 0 && signer != NULL) {
        keystore_forget(is->keys);
        rc = signer_link_open(signer[0] != '\0' ? signer : NULL, dir, &is->link, err);
    }
    if (rc != 0) {
        issuer_free(is);
        return -1;
    }
    *ret = is;
    return 0;
}

void issuer_free(struct issuer *is)
{
    if (is == NULL)
        return;
    signer_link_free(is->link);
    keystore_free(is->keys);
    free(is->url);
    free(is);
}

const char *issuer_url(const struct issuer *is)
{
    return is->url;
}

void issuer_kid(const struct issuer *is, int64_t now_us, char ret_kid[JWS_KID_MAX])
{
    if (!keystore_signer(is->keys, now_us, ret_kid, NULL))
        ret_kid[0] = '\0';
}

json_t *issuer_jwks(const struct issuer *is)
{
    return keyset_jwks(keystore_set(is->keys));
}

const char *issuer_key_set(const struct issuer *is)
{
    return keystore_text(is->keys);
}

json_t *issuer_root(const struct issuer *is)
{
    return keystore_root_jwk(is->keys);
}

int64_t issuer_seq(const struct issuer *is)
{
    return keystore_set(is->keys)->seq;
}

int64_t issuer_expires_us(const struct issuer *is)
{
    return keystore_set(is->keys)->exp_us;
}

bool issuer_has_root(const struct issuer *is)
{
    return keystore_has_root(is->keys);
}

int issuer_renew(struct issuer *is, int64_t now_us, bool *ret_changed, struct err *err)
{
    bool read, made = false;
    if (keystore_reload(is->keys, now_us, &read, err) != 0)
        return -1;
    int rc = keystore_refresh(is->keys, now_us, &made, err);
    *ret_changed = read || made;
    if (rc == 0 && *ret_changed && is->link != NULL)
        rc = signer_link_restart(is->link, err);
    return rc;
}

int issuer_grant(const struct issuer *is, const struct token_claims *claims,
                 char **ret_token, struct err *err)
{
    return is->link != NULL ? signer_link_grant(is->link, claims, ret_token, err)
                            : signer_grant(is->keys, claims, ret_token, err);
}

int issuer_status(const struct issuer *is, const struct issuer_status *doc,
                  char **ret_token, struct err *err)
{
    return is->link != NULL ? signer_link_status(is->link, doc, ret_token, err)
                            : signer_status(is->keys, doc, ret_token, err);
}

int issuer_ack(const struct issuer *is, const struct issuer_ack *ack, char **ret_token,
               struct err *err)
{
    return is->link != NULL ? signer_link_ack(is->link, ack, ret_token, err)
                            : signer_ack(is->keys, ack, ret_token, err);
}
