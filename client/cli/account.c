/* account: see account.h. */
#include "client/cli/account.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/sshagent.h"
#include "client/lib/sshkey.h"
#include "client/lib/xalloc.h"

#define ACCOUNT_BYTES_MAX                                       \
    (16 * 1024) /* our own small file; a larger one is not ours \
                 */

static char *config_dir(void)
{
    const char *dir = getenv("NEARGPU_CONFIG_DIR");
    if (dir != NULL && *dir != '\0')
        return xstrdup(dir);
    dir = getenv("XDG_CONFIG_HOME");
    if (dir != NULL && *dir == '/')
        return xasprintf("%s/neargpu", dir);
    dir = getenv("HOME");
    return xasprintf("%s/.config/neargpu", dir != NULL && *dir != '\0' ? dir : "/root");
}

int account_init(struct account *a, const char *name, struct err *err)
{
    *a = (struct account){NULL};
    if (*name == '\0' || *name == '.' || strlen(name) > 63 ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                          "0123456789_.-")] != '\0')
        return err_set(err, ERR_USAGE,
                       "'%.63s' is no account name: use letters, digits, . _ and -",
                       name);
    char *dir = config_dir();
    a->name = xstrdup(name);
    a->json_path = xasprintf("%s/%s.json", dir, name);
    a->ca_path = xasprintf("%s/%s.ca.pem", dir, name);
    a->key_path = xasprintf("%s/%s.key", dir, name);
    a->ssh_path = xasprintf("%s/%s.ssh", dir, name);
    free(dir);
    return 0;
}

void account_done(struct account *a)
{
    if (a->api_key != NULL)
        explicit_bzero(a->api_key, strlen(a->api_key));
    free(a->name);
    free(a->json_path);
    free(a->ca_path);
    free(a->key_path);
    free(a->ssh_path);
    free(a->server);
    free(a->api_key);
    free(a->own_key);
    free(a->role);
    free(a->who);
    free(a->market);
    free(a->currency);
    *a = (struct account){NULL};
}

static void take_text(const json_t *obj, const char *member, char **out)
{
    const char *text = json_string_value(json_object_get(obj, member));
    free(*out);
    *out = xstrdup(text != NULL ? text : "");
}

int account_load(struct account *a, struct err *err)
{
    char *text = NULL;
    size_t len;
    if (fsx_read_secret(a->json_path, ACCOUNT_BYTES_MAX, &text, &len, err) < 0) {
        if (err->code == ERR_NOT_FOUND)
            return err_set(err, ERR_UNAUTHENTICATED,
                           "account '%s' has no login yet: neargpu login --server URL "
                           "--ca FILE%s%s",
                           a->name,
                           strcmp(a->name, "default") == 0 ? "" : " --account ",
                           strcmp(a->name, "default") == 0 ? "" : a->name);
        return -1;
    }
    json_t *obj = jsonx_parse(text, len, ACCOUNT_BYTES_MAX, err);
    explicit_bzero(text, len);
    free(text);
    if (obj == NULL)
        return err_prefix(err, "%s", a->json_path);
    take_text(obj, "server", &a->server);
    take_text(obj, "api_key", &a->api_key);
    take_text(obj, "key", &a->own_key);
    take_text(obj, "role", &a->role);
    take_text(obj, "name", &a->who);
    take_text(obj, "market", &a->market);
    take_text(obj, "currency", &a->currency);
    json_decref(obj);
    if (*a->server == '\0' || *a->api_key == '\0')
        return err_set(err, ERR_UNAUTHENTICATED,
                       "%s holds no server and API key: neargpu login again",
                       a->json_path);
    return 0;
}

static int make_dir(const struct account *a, struct err *err)
{
    char *dir = xstrdup(a->json_path);
    *strrchr(dir, '/') = '\0';
    int rc = *dir == '\0' ? 0 : fsx_mkdirs(dir, 0700, err);
    free(dir);
    return rc;
}

int account_save(const struct account *a, struct err *err)
{
    if (make_dir(a, err) < 0)
        return -1;
    json_t *obj = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "server", a->server, "api_key",
        a->api_key, "role", a->role != NULL ? a->role : "", "name",
        a->who != NULL ? a->who : "", "market", a->market != NULL ? a->market : "",
        "currency", a->currency != NULL ? a->currency : "", "key",
        a->own_key != NULL ? a->own_key : "");
    char *text = json_dumps(obj, JSON_INDENT(2));
    int rc = fsx_write(a->json_path, text, strlen(text), 0600, err);
    explicit_bzero(text, strlen(text));
    free(text);
    json_decref(obj);
    return rc;
}

int account_save_ca(const struct account *a, const char *pem, struct err *err)
{
    if (make_dir(a, err) < 0)
        return -1;
    return fsx_write(a->ca_path, pem, strlen(pem), 0644, err);
}

static bool is_agents(const struct account *a)
{
    return a->own_key != NULL &&
           strncmp(a->own_key, ACCOUNT_AGENT, strlen(ACCOUNT_AGENT)) == 0;
}

static int agents_key(const struct account *a, EVP_PKEY **ret, struct err *err)
{
    struct sshkey_public key;
    if (sshagent_find(NULL, a->own_key + strlen(ACCOUNT_AGENT), &key, err) < 0)
        return -1;
    *ret =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key.pub, sizeof(key.pub));
    return *ret != NULL ? 0 : err_set(err, ERR_INTERNAL, "OpenSSL refuses the key");
}

static int file_key(const char *path, EVP_PKEY **ret, struct err *err)
{
    char *text = NULL;
    size_t len;
    if (fsx_read_secret(path, ACCOUNT_BYTES_MAX, &text, &len, err) < 0)
        return -1;
    int rc = sshkey_is_private(text, len) ? sshkey_private(text, len, ret, err)
                                          : jws_key_from_pem(text, len, ret, err);
    explicit_bzero(text, len);
    free(text);
    return rc < 0 ? err_prefix(err, "%s", path) : 0;
}

static int sign_by_agent(void *arg, const void *data, size_t len, uint8_t sig[64],
                         struct err *err)
{
    return sshagent_sign(NULL, arg, data, len, sig, err);
}

int account_sign(const struct account *a, EVP_PKEY *key, const char *typ,
                 const json_t *payload, char **ret_token, struct err *err)
{
    struct jws_signer signer = {.sign = sign_by_agent, .arg = signer.pub};
    if (!is_agents(a))
        return jws_sign(key, typ, payload, ret_token, err);
    if (jws_public(key, signer.pub, err) < 0)
        return -1;
    return jws_sign_by(&signer, typ, payload, ret_token, err);
}

int account_key(const struct account *a, int make, EVP_PKEY **ret, struct err *err)
{
    if (is_agents(a))
        return agents_key(a, ret, err);
    bool own = a->own_key != NULL && *a->own_key != '\0';
    if (file_key(own ? a->own_key : a->key_path, ret, err) == 0)
        return 0;
    if (own && err->code == ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND,
                       "%s, the key of account '%s', is not there: put it back, or log "
                       "in again with another --key",
                       a->own_key, a->name);
    if (own)
        return -1;
    if (err->code != ERR_NOT_FOUND || !make)
        return -1;
    return account_key_file(a, a->key_path, ret, err);
}

int account_key_file(const struct account *a, const char *path, EVP_PKEY **ret,
                     struct err *err)
{
    EVP_PKEY *key;
    if (file_key(path, ret, err) == 0)
        return 0;
    if (err->code != ERR_NOT_FOUND)
        return -1;
    if (jws_keygen(&key, err) < 0)
        return -1;
    char *pem = jws_key_to_pem(key);
    int rc = make_dir(a, err);
    if (rc == 0)
        rc = fsx_write(path, pem, strlen(pem), 0600, err);
    explicit_bzero(pem, strlen(pem));
    free(pem);
    if (rc < 0)
        EVP_PKEY_free(key);
    else
        *ret = key;
    return rc;
}

int account_remove(const struct account *a, struct err *err)
{
    const char *const paths[] = {a->json_path, a->key_path, a->ca_path, a->ssh_path};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        if (unlink(paths[i]) < 0 && errno != ENOENT)
            return err_sys(err, errno, "remove %s", paths[i]);
    return 0;
}
