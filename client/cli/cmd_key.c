/* key list, add, rm: the tenant's own SSH keys, which open his leases by ssh. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/lib/fsx.h"
#include "client/lib/jws.h"
#include "client/lib/sshkey.h"
#include "client/lib/xalloc.h"

static const struct render_col key_cols[] = {
    {"ID", "jkt", RENDER_TEXT, NULL},
    {"NAME", "name", RENDER_TEXT, NULL},
    {"ADDED", "created_at", RENDER_TIME, NULL},
    {"KEY", "key", RENDER_TEXT, NULL},
};

int cmd_key_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get(c, "/v1/keys", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "keys", key_cols, RENDER_COUNT_OF(key_cols),
                            "no keys yet: neargpu key add ~/.ssh/id_ed25519.pub", err);
    json_decref(reply);
    return rc;
}

/* One line of a .pub file; a private key's file is refused before it is sent. */
static int add_text(struct cli *c, const char *text, json_t **ret, struct err *err)
{
    struct sshkey_public key;
    if (sshkey_public(text, strlen(text), &key, err) != 0)
        return -1;
    json_t *body = json_pack("{s:s}", "key", text);
    const struct cli_call call = {"POST", "/v1/keys", body, NULL};
    int rc = cli_call(c, &call, ret, err);
    json_decref(body);
    return rc;
}

int cmd_key_add(struct cli *c, struct err *err)
{
    const char *file = c->opts->args[0];
    char *text;
    size_t len;
    json_t *reply = NULL;
    if (fsx_read(file, SSHKEY_FILE_MAX, &text, &len, err) != 0)
        return -1;
    text[strcspn(text, "\r\n")] = '\0';
    int rc = sshkey_is_private(text, strlen(text))
                 ? err_set(err, ERR_USAGE,
                           "%s is a private key: give the .pub file beside it", file)
                 : add_text(c, text, &reply, err);
    free(text);
    if (rc != 0)
        return err_prefix(err, "%s", file);
    if (c->render.format != RENDER_TABLE)
        rc = cli_print_card(c, reply, key_cols, RENDER_COUNT_OF(key_cols), err);
    else
        cli_note(
            "key %s added; nodes with leases of yours know it within half a minute",
            json_string_value(json_object_get(reply, "jkt")));
    json_decref(reply);
    return rc;
}

int cmd_key_rm(struct cli *c, struct err *err)
{
    char *question = xasprintf("Remove key %s?", c->opts->args[0]);
    int rc = cli_confirm(c, question, err);
    free(question);
    if (rc != 1)
        return rc;
    char *path = cli_path("/v1/keys/", c->opts->args[0], "");
    const struct cli_call call = {"DELETE", path, NULL, NULL};
    rc = cli_call(c, &call, NULL, err);
    free(path);
    if (rc == 0)
        cli_note("key %s removed", c->opts->args[0]);
    return rc;
}

int cli_add_own_key(struct cli *c, EVP_PKEY *key, struct err *err)
{
    uint8_t pub[JWS_ED25519_LEN];
    char text[SSHKEY_TEXT_MAX];
    if (jws_public(key, pub, err) != 0)
        return -1;
    sshkey_text(pub, text);
    char *line = xasprintf("%s neargpu-%s", text, c->account.name);
    int rc = add_text(c, line, NULL, err);
    free(line);
    return rc;
}
