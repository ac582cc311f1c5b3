/* login, logout, whoami. Nothing is stored before the server has accepted the key over
 * a connection checked against the CA. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/lib/cafetch.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define CA_BYTES_MAX (64 * 1024) /* a PEM certificate, with room for text around it */

static const struct render_col whoami_cols[] = {
    {"Market", "market", RENDER_TEXT, NULL},
    {"Role", "role", RENDER_TEXT, NULL},
    {"Name", "name", RENDER_TEXT, NULL},
    {"Currency", "currency", RENDER_TEXT, NULL},
};

/* The CA from --ca, or the one the server sends if its fingerprint is the expected one
 * or the user says so. */
static int get_ca(struct cli *c, const char *server, char **ret_pem, struct err *err)
{
    const char *file = opt_get(c->opts, "ca"), *want = opt_get(c->opts, "ca-sha256");
    char sha[SHA256_HEX], *pem = NULL, *question;
    if (file != NULL) {
        if (fsx_read(file, CA_BYTES_MAX, &pem, NULL, err) < 0)
            return -1;
    } else if (cafetch(server, NULL, &pem, err) < 0) {
        return -1;
    }
    int rc = cafetch_sha256(pem, sha, err);
    if (rc < 0) {
        err_prefix(err, "%s", file != NULL ? file : server);
    } else if (want != NULL && strcasecmp(want, sha) != 0) {
        rc =
            err_set(err, ERR_FORBIDDEN,
                    "the CA of %s has SHA-256 %s, not the one given: do not go on, ask "
                    "the market's administrator",
                    server, sha);
    } else if (file == NULL && want == NULL) {
        question =
            xasprintf("The CA of %s has SHA-256\n  %s\nIs this what the market's "
                      "administrator gave you?",
                      server, sha);
        bool yes = c->yes;
        c->yes = false; /* trust is not something --yes may give */
        rc = cli_confirm(c, question, err);
        c->yes = yes;
        free(question);
        if (rc < 0)
            err_set(err, ERR_USAGE,
                    "say whom to trust: --ca FILE with the market's CA certificate, or "
                    "--ca-sha256 HEX");
        else if (rc == 0)
            rc =
                err_set(err, ERR_FORBIDDEN, "the CA was not confirmed; nothing stored");
        else
            rc = 0;
    }
    if (rc < 0)
        free(pem);
    else
        *ret_pem = pem;
    return rc;
}

/* The HTTP client wants a file: one in memory, since nothing is stored yet. */
static int open_unstored(struct cli *c, const char *pem, struct err *err)
{
    int fd = memfd_create("neargpu-ca", MFD_CLOEXEC);
    size_t len = strlen(pem);
    if (fd < 0 || write(fd, pem, len) != (ssize_t)len)
        return err_set(err, ERR_IO, "no memory file for the CA certificate");
    char *path = xasprintf("/proc/self/fd/%d", fd);
    const struct httpc_conf conf = {
        .base_url = c->account.server,
        .ca_file = path,
        .bearer = c->account.api_key,
        .user_agent = "neargpu",
    };
    int rc = httpc_new(&conf, NULL, &c->http, err);
    free(path); /* fd stays open until exit: the path is read at connect time */
    if (rc == 0)
        c->opened = true;
    return rc;
}

static char *copy_text(const json_t *obj, const char *member)
{
    const char *text = json_string_value(json_object_get(obj, member));
    return xstrdup(text != NULL ? text : "");
}

/* --key: a file by its whole path, since it is read from elsewhere later; or an SSH
 * agent's. It must be there and fit now. */
static int choose_key(struct cli *c, struct err *err)
{
    const char *name = opt_get(c->opts, "key");
    EVP_PKEY *key = NULL;
    if (name == NULL)
        return 0;
    if (strncmp(name, ACCOUNT_AGENT, strlen(ACCOUNT_AGENT)) == 0)
        c->account.own_key = xstrdup(name);
    else
        c->account.own_key = realpath(name, NULL);
    if (c->account.own_key == NULL)
        return err_set(err, ERR_NOT_FOUND, "--key %.200s: is not there", name);
    if (account_key(&c->account, 0, &key, err) < 0)
        return err_prefix(err, "--key");
    EVP_PKEY_free(key);
    return 0;
}

int cmd_login(struct cli *c, struct err *err)
{
    const char *server = opt_get(c->opts, "server");
    char *pem = NULL;
    json_t *who = NULL;
    EVP_PKEY *key = NULL;
    int rc = -1;
    if (server == NULL)
        return err_set(err, ERR_USAGE,
                       "say where: neargpu login --server https://HOST:PORT");
    if (account_init(&c->account, cli_account_name(c), err) < 0 ||
        choose_key(c, err) < 0 || get_ca(c, server, &pem, err) < 0)
        return -1;
    c->account.server = xstrdup(server);
    size_t len = strlen(server);
    if (len > 0 && server[len - 1] == '/')
        c->account.server[len - 1] = '\0';
    if (cli_read_secret(opt_get(c->opts, "api-key-file"), "API key",
                        &c->account.api_key, err) < 0)
        goto out;
    if (strncmp(c->account.api_key, "ngk_", 4) != 0) {
        err_set(err, ERR_USAGE,
                "that is no API key: they begin with ngk_ and have 47 characters");
        goto out;
    }
    if (open_unstored(c, pem, err) < 0 || cli_get(c, "/v1/whoami", &who, err) < 0)
        goto out;
    c->account.role = copy_text(who, "role");
    c->account.who = copy_text(who, "name");
    c->account.market = copy_text(who, "market");
    c->account.currency = copy_text(who, "currency");
    if (account_save_ca(&c->account, pem, err) < 0 ||
        account_save(&c->account, err) < 0 ||
        account_key(&c->account, 1, &key, err) < 0)
        goto out;
    if (strcmp(c->account.role, "tenant") == 0 && cli_add_own_key(c, key, err) < 0) {
        EVP_PKEY_free(key);
        goto out;
    }
    EVP_PKEY_free(key);
    if (c->render.format != RENDER_TABLE)
        rc = cli_print_card(c, who, whoami_cols, RENDER_COUNT_OF(whoami_cols), err);
    else
        rc = (cli_note("account '%s': %s %s of market %s", c->account.name,
                       c->account.role, c->account.who, c->account.market),
              0);
out:
    json_decref(who);
    free(pem);
    return rc;
}

int cmd_logout(struct cli *c, struct err *err)
{
    if (account_init(&c->account, cli_account_name(c), err) < 0)
        return -1;
    char *question =
        xasprintf("Remove account '%s' from this computer? The key to which "
                  "its tokens are bound is lost.",
                  c->account.name);
    int rc = cli_confirm(c, question, err);
    free(question);
    return rc == 1 ? account_remove(&c->account, err) : rc;
}

int cmd_whoami(struct cli *c, struct err *err)
{
    json_t *who = NULL;
    if (cli_get(c, "/v1/whoami", &who, err) < 0)
        return -1;
    int rc = cli_print_card(c, who, whoami_cols, RENDER_COUNT_OF(whoami_cols), err);
    json_decref(who);
    return rc;
}
