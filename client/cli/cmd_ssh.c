/* ssh: a reserved node by the system's own ssh: the right host, port, user and key, and
 * the node's host key as the market knows it, so that no first connection has to be
 * trusted. Everything after the reservation is ssh's. It becomes ssh (exec): terminal,
 * signals and exit status are ssh's own. With --config it prints a Host block instead,
 * for scp, rsync, editors. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/ssh_file.h"
#include "client/lib/addr.h"
#include "client/lib/fsx.h"
#include "client/lib/sshkey.h"
#include "client/lib/xalloc.h"

#define SSH_USER     "neargpu-ssh"
#define HOST_KEY_MAX 4096
#define WORDS_MAX    16

struct target {
    const char *id;
    char *host, *user, *port;
    char *key_type, *key; /* of the host */
    char *identity;
};

static void target_done(struct target *t)
{
    free(t->host);
    free(t->user);
    free(t->port);
    free(t->key_type);
    free(t->key);
    free(t->identity);
}

/* ---- which node ------------------------------------------------------------------ */

static int find_node(struct cli *c, const json_t *resv, const json_t **ret,
                     struct err *err)
{
    const json_t *list = json_object_get(resv, "allocations");
    const char *want = opt_get(c->opts, "node");
    size_t i, count = json_array_size(list);
    const json_t *v;
    struct strbuf names = STRBUF_INIT;
    json_array_foreach(list, i, v)
    {
        const char *node = json_string_value(json_object_get(v, "node"));
        strbuf_addf(&names, "%s%s", i > 0 ? ", " : "", node != NULL ? node : "?");
        if (count == 1 || (want != NULL && node != NULL && strcmp(node, want) == 0))
            *ret = v;
    }
    int rc = 0;
    if (count == 0)
        rc = err_set(err, ERR_CONFLICT, "the reservation has no node now");
    else if (*ret == NULL && want == NULL)
        rc =
            err_set(err, ERR_USAGE, "the reservation has several nodes: add --node: %s",
                    strbuf_str(&names));
    else if (*ret == NULL)
        rc = err_set(err, ERR_NOT_FOUND, "the reservation has no node %.80s: %s", want,
                     strbuf_str(&names));
    strbuf_done(&names);
    return rc;
}

static const char *option_or(const struct cli *c, const char *option, const json_t *obj,
                             const char *member)
{
    const char *given = opt_get(c->opts, option);
    return given != NULL ? given : json_string_value(json_object_get(obj, member));
}

static int find_host_key(struct cli *c, const json_t *ssh, struct target *t,
                         struct err *err)
{
    const char *file = opt_get(c->opts, "host-key");
    const char *told = json_string_value(json_object_get(ssh, "host_key"));
    char *text = NULL;
    if (file != NULL && fsx_read(file, HOST_KEY_MAX, &text, NULL, err) < 0)
        return -1;
    if (file == NULL && told == NULL)
        return err_set(err, ERR_CONFLICT,
                       "the node has told no SSH host key: it may take no SSH; or give "
                       "its public host key with --host-key FILE");
    int rc = ssh_file_words(text != NULL ? text : told, &t->key_type, &t->key, err);
    if (rc < 0)
        err_prefix(err, "host key");
    free(text);
    return rc;
}

/* Names that stand in ssh's command line and configuration. */
static bool is_word(const char *text)
{
    return text[0] != '\0' && text[0] != '-' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                        "._:-") == strlen(text);
}

static int find_target(struct cli *c, const json_t *allocation, struct target *t,
                       struct err *err)
{
    const json_t *ssh = json_object_get(allocation, "ssh");
    const char *address = json_string_value(json_object_get(allocation, "address"));
    const char *host = opt_get(c->opts, "host"), *port = opt_get(c->opts, "port");
    const char *user = option_or(c, "user", ssh, "user");
    const json_t *told = json_object_get(ssh, "port");
    struct addr at = {0};
    if (host == NULL && address != NULL && addr_split(address, strlen(address), &at))
        host = at.host;
    if (host == NULL || *host == '\0')
        return err_set(err, ERR_UNREACHABLE,
                       "the node has told no address: give one with --host");
    t->host = xstrdup(host);
    t->user = xstrdup(user != NULL ? user : SSH_USER);
    t->port = port != NULL ? xstrdup(port)
              : json_is_integer(told)
                  ? xasprintf("%lld", (long long)json_integer_value(told))
                  : xstrdup("22");
    if (!is_word(t->host) || !is_word(t->user) || !is_word(t->port))
        return err_set(err, ERR_BAD_REQUEST, "'%.80s' is no user, host and port",
                       t->host);
    return find_host_key(c, ssh, t, err);
}

/* The account's key as ssh reads it, beside it; of one that an SSH agent holds the
 * public half, by which ssh finds it there. */
static int write_identity(const struct account *a, struct err *err)
{
    EVP_PKEY *key = NULL;
    struct strbuf text = STRBUF_INIT;
    char line[SSHKEY_TEXT_MAX];
    uint8_t pub[JWS_ED25519_LEN];
    bool held = a->own_key != NULL &&
                strncmp(a->own_key, ACCOUNT_AGENT, strlen(ACCOUNT_AGENT)) == 0;
    if (account_key(a, 0, &key, err) < 0)
        return -1;
    int rc = held ? jws_public(key, pub, err) : ssh_file_private(key, &text, err);
    if (rc == 0 && held) {
        sshkey_text(pub, line);
        strbuf_addf(&text, "%s\n", line);
    }
    if (rc == 0)
        rc = fsx_write(a->ssh_path, text.data, text.len, 0600, err);
    if (text.data != NULL)
        explicit_bzero(text.data, text.cap);
    strbuf_done(&text);
    EVP_PKEY_free(key);
    return rc;
}

static int find_identity(struct cli *c, struct target *t, struct err *err)
{
    const char *file = opt_get(c->opts, "identity");
    t->identity = xstrdup(file != NULL ? file : c->account.ssh_path);
    return file != NULL ? 0 : write_identity(&c->account, err);
}

/* ---- what ssh is told ------------------------------------------------------------ */

/* "Name value" of ssh_config; each heap; returns how many. */
static size_t settings(const struct target *t, char *out[WORDS_MAX])
{
    size_t n = 0;
    out[n++] = xasprintf("HostName %s", t->host);
    out[n++] = xasprintf("Port %s", t->port);
    out[n++] = xasprintf("User %s", t->user);
    out[n++] = xasprintf("SetEnv NEARGPU_RES=%s", t->id);
    out[n++] = xasprintf("IdentityFile \"%s\"", t->identity);
    out[n++] = xstrdup("IdentitiesOnly yes");
    /* One host key, from the market; no file of the user's has a say. */
    out[n++] = xasprintf("HostKeyAlias neargpu-%s", t->id);
    out[n++] = xasprintf("HostKeyAlgorithms %s", strcmp(t->key_type, "ssh-rsa") == 0
                                                     ? "rsa-sha2-512,rsa-sha2-256"
                                                     : t->key_type);
    out[n++] = xasprintf("KnownHostsCommand /bin/echo neargpu-%s %s %s", t->id,
                         t->key_type, t->key);
    out[n++] = xstrdup("UserKnownHostsFile /dev/null");
    out[n++] = xstrdup("GlobalKnownHostsFile /dev/null");
    out[n++] = xstrdup("StrictHostKeyChecking yes");
    out[n++] = xstrdup("UpdateHostKeys no");
    /* A ticket lets one session in: docs/ssh.md. */
    out[n++] = xstrdup("ControlPath none");
    return n;
}

static int print_config(const struct target *t, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    char *list[WORDS_MAX];
    size_t n = settings(t, list);
    strbuf_addf(&b, "Host %s\n", t->id);
    for (size_t i = 0; i < n; i++) {
        strbuf_addf(&b, "    %s\n", list[i]);
        free(list[i]);
    }
    int rc = cli_print(&b, err);
    strbuf_done(&b);
    return rc;
}

static int become_ssh(struct cli *c, const struct target *t, struct err *err)
{
    int argc = c->opts->arg_count - 1;
    char **argv = xcalloc((size_t)argc + 2 * WORDS_MAX + 3, sizeof(*argv));
    char *list[WORDS_MAX];
    size_t at = 0, n = settings(t, list);
    argv[at++] = xstrdup("ssh");
    for (size_t i = 0; i < n; i++) {
        char *blank = strchr(list[i], ' ');
        *blank = '='; /* as -o wants it */
        argv[at++] = xstrdup("-o");
        argv[at++] = list[i];
    }
    argv[at++] = xstrdup(t->id);
    for (int i = 0; i < argc; i++)
        argv[at++] = xstrdup(c->opts->args[1 + i]);
    (void)execvp("ssh", argv);
    int why = errno;
    for (size_t i = 0; i < at; i++)
        free(argv[i]);
    free(argv);
    return err_sys(err, why, "ssh cannot be started");
}

int cmd_ssh(struct cli *c, struct err *err)
{
    struct target t = {.id = c->opts->args[0]};
    json_t *resv = NULL;
    const json_t *allocation = NULL;
    if (cli_open(c, err) < 0 || cli_get_reservation(c, t.id, &resv, err) < 0)
        return -1;
    int rc = find_node(c, resv, &allocation, err);
    if (rc == 0)
        rc = find_target(c, allocation, &t, err);
    if (rc == 0)
        rc = find_identity(c, &t, err);
    if (rc == 0)
        rc =
            opt_has(c->opts, "config") ? print_config(&t, err) : become_ssh(c, &t, err);
    json_decref(resv);
    target_done(&t);
    return rc;
}
