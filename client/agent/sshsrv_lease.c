/* sshsrv_lease: which lease a key opens, and a session as a job of it. See sshsrv.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/reconcile.h"
#include "client/agent/ssh_line.h"
#include "client/agent/ssh_proto.h"
#include "client/agent/sshsrv_impl.h"
#include "client/lib/clock.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

#define LISTED_MAX 16 /* leases told to who has to choose */
#define OWN_ENV    8  /* variables of ours */

/* The user's own shell and files are the job's: what is there is found in there. */
#define SHELL_LOGIN "[ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l"
#define SHELL_RUN   "[ -x /bin/bash ] && exec /bin/bash -c \"$1\"; exec /bin/sh -c \"$1\""
#define SHELL_SFTP                                                                  \
    "for p in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec; do " \
    "[ -x $p/sftp-server ] && exec $p/sftp-server; done; "                          \
    "echo 'neargpu: this node has no sftp-server' >&2; exit 127"

static bool is_held(const struct journal_lease *j, const uint8_t key[SHA256_LEN])
{
    for (size_t i = 0; i < j->holder_count; i++)
        if (ssh_holder_is(j->holders[i], key))
            return true;
    return false;
}

size_t ssh_leases_of(const struct agent *a, const uint8_t key[SHA256_LEN],
                     const char *only, const struct journal_lease **out, size_t cap)
{
    struct reconcile_have *have = xcalloc(LEASES_MAX, sizeof(*have));
    size_t n = 0, count = leases_have(a->leases, have, LEASES_MAX);
    for (size_t i = 0; i < count && n < cap; i++) {
        const struct journal_lease *j = leases_find(a->leases, have[i].id);
        if (j != NULL && lease_state_may_launch(j->state) &&
            (only[0] == '\0' || strcmp(j->id, only) == 0) && is_held(j, key))
            out[n++] = j;
    }
    free(have);
    return n;
}

int ssh_answer_keys(struct sshsrv *s, const json_t *body, json_t **ret,
                    struct ticket_claims *ret_claims, struct err *err)
{
    struct {
        const char *type, *key;
    } row = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"type", JSONX_STRING, true, 0, 1, 63},
        {"key", JSONX_STRING, true, sizeof(char *), 1, SSH_KEY_MAX},
    };
    const struct journal_lease *found[2];
    struct ticket_claims c = {.lease = ""};
    char text[TICKET_TEXT_MAX];
    if (jsonx_decode(body, fields, JSONX_COUNT(fields), &row, "", err) != 0)
        return -1;
    if (!ssh_key_is_plausible(row.type, row.key))
        return err_set(err, ERR_BAD_REQUEST, "this is no public key");
    ssh_key_hash(row.type, row.key, c.key);
    size_t n = ssh_leases_of(s->a, c.key, "", found, 2);
    if (n == 0)
        return err_set(err, ERR_NOT_FOUND, "the key opens no lease here now");
    if (n == 1)
        snprintf(c.lease, sizeof(c.lease), "%s", found[0]->id);
    digest_random(c.id, sizeof(c.id));
    ticket_make(&s->tickets, &c, clock_boot_us(), text);
    *ret = json_pack("{s:s, s:s}", "ticket", text, "forward", s->a->conf.ssh_forward);
    *ret_claims = c;
    return 0;
}

/* --- a session --- */

struct session_row {
    const char *ticket, *reservation, *command;
    json_t *pty, *env;
    bool sftp;
};
struct pty_row {
    const char *term;
    int64_t rows, cols;
};
#define AT(m)  offsetof(struct session_row, m)
#define PTY(m) offsetof(struct pty_row, m)
static const struct jsonx_field session_fields[] = {
    {"ticket", JSONX_STRING, true, AT(ticket), 1, TICKET_TEXT_MAX - 1},
    {"reservation", JSONX_STRING, false, AT(reservation), 0, JOURNAL_ID_MAX - 1},
    {"command", JSONX_STRING, false, AT(command), 1, SSH_COMMAND_MAX},
    {"sftp", JSONX_BOOL, false, AT(sftp), 0, 0},
    {"pty", JSONX_OBJECT, false, AT(pty), 0, 0},
    {"env", JSONX_OBJECT, false, AT(env), 0, SSH_ENV_MAX},
};
static const struct jsonx_field pty_fields[] = {
    {"term", JSONX_STRING, false, PTY(term), 1, LAUNCH_TERM_MAX},
    {"rows", JSONX_INT, false, PTY(rows), 0, LAUNCH_WINDOW_MAX},
    {"cols", JSONX_INT, false, PTY(cols), 0, LAUNCH_WINDOW_MAX},
};

/* "ID (2 GPUs, until …)" of each, for somebody who has to choose. */
static int say_choices(const struct journal_lease **found, size_t n, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    for (size_t i = 0; i < n; i++)
        strbuf_addf(&b, "%s%s", i > 0 ? ", " : "", found[i]->id);
    err_set(err, ERR_CONFLICT,
            "the key opens several leases here; choose one by its id or the "
            "beginning of it with -o SetEnv=NEARGPU_RES=ID: %s",
            strbuf_str(&b));
    strbuf_done(&b);
    return -1;
}

/* The lease is what the ticket says, or the only one, or the one the user named. */
static int choose(const struct agent *a, const struct ticket_claims *c,
                  const char *named, const struct journal_lease **ret, struct err *err)
{
    const struct journal_lease *found[LISTED_MAX], *fit[LISTED_MAX];
    size_t n = ssh_leases_of(a, c->key, c->lease, found, LISTED_MAX), fits = 0;
    for (size_t i = 0; i < n; i++)
        if (named == NULL || strncmp(found[i]->id, named, strlen(named)) == 0)
            fit[fits++] = found[i];
    if (n == 0)
        return err_set(err, ERR_NOT_FOUND, "the lease has ended");
    if (fits == 0) /* of what is open to this key: nothing is told about others */
        return err_set(err, ERR_NOT_FOUND, "the key opens no lease %.63s here", named);
    if (fits > 1)
        return say_choices(fit, fits, err);
    *ret = fit[0];
    return 0;
}

/* Starts need a status that is fresh and does not revoke the lease, as with a token. */
static int check_status(const struct agent *a, const char *lease, struct err *err)
{
    struct reconcile_have *have = xcalloc(LEASES_MAX, sizeof(*have));
    struct reconcile_in in;
    char why[120];
    agent_compare(a, have, LEASES_MAX, &in);
    bool may = reconcile_may_start(&in, why, sizeof(why));
    free(have);
    if (!may)
        return err_set(err, ERR_UNAVAILABLE, "%s", why);
    if (reconcile_is_revoked(in.status, lease))
        return err_set(err, ERR_FORBIDDEN, "the lease was revoked");
    return 0;
}

static int check_share(const struct ssh_client *c, const char *lease, struct err *err)
{
    size_t same = 0;
    for (const struct ssh_client *o = c->srv->clients; o != NULL; o = o->next)
        same += o != c && o->state < SSH_DEAD && strcmp(o->lease, lease) == 0;
    return same < SSHSRV_SESSIONS_MAX
               ? 0
               : err_set(err, ERR_QUOTA, "%d sessions of this lease are open already",
                         SSHSRV_SESSIONS_MAX);
}

static bool may_pass(const char *name)
{
    return strcmp(name, "LANG") == 0 || strncmp(name, "LC_", 3) == 0 ||
           strcmp(name, "SSH_CONNECTION") == 0 || strcmp(name, "SSH_CLIENT") == 0;
}

static char **make_env(json_t *env, const struct journal_lease *j)
{
    char **out = xcalloc(json_object_size(env) + OWN_ENV, sizeof(*out));
    struct strbuf uuids = STRBUF_INIT;
    size_t n = 0;
    const char *name;
    json_t *v;
    json_object_foreach(env, name, v)
    {
        if (n < SSH_ENV_MAX && may_pass(name) && json_is_string(v) &&
            strchr(name, '=') == NULL &&
            strlen(json_string_value(v)) == json_string_length(v))
            out[n++] = xasprintf("%s=%s", name, json_string_value(v));
    }
    for (size_t i = 0; i < j->gpu_count; i++)
        strbuf_addf(&uuids, "%s%s", i > 0 ? "," : "", j->gpus[i]);
    out[n++] = xasprintf("CUDA_VISIBLE_DEVICES=%s", strbuf_str(&uuids));
    out[n++] = xasprintf("NEARGPU_GPUS=%s", strbuf_str(&uuids));
    out[n++] = xasprintf("NEARGPU_RESERVATION=%s", j->id);
    strbuf_done(&uuids);
    return out;
}

static void free_env(char **env)
{
    for (size_t i = 0; env[i] != NULL; i++)
        free(env[i]);
    free(env);
}

/* The claims a token of this lease would have made, as far as a launch reads them: the
 * ticket is the jti, so that the journal too starts it once only. */
static void fill_claims(const struct agent *a, const struct journal_lease *j,
                        const struct ticket_claims *t, struct token_claims *out)
{
    char hex[2 * TICKET_ID_LEN + 1];
    int64_t now = 0;
    (void)agent_now(a, &now);
    digest_hex(t->id, TICKET_ID_LEN, hex);
    snprintf(out->jti, sizeof(out->jti), "ssh-%s", hex);
    snprintf(out->sub, sizeof(out->sub), "%.*s", UUID_TEXT - 1, j->tenant);
    out->iat_us = now;
    out->exp_us = now + TICKET_LIFE_US;
    snprintf(out->lease.reservation, sizeof(out->lease.reservation), "%.*s",
             UUID_TEXT - 1, j->id);
    out->lease.actions = TOKEN_LAUNCH;
}

static int launch(struct ssh_client *c, const struct session_row *row,
                  const struct pty_row *pty, const struct journal_lease *j,
                  const struct ticket_claims *t, const char **ret_step, struct err *err)
{
    struct agent *a = c->srv->a;
    const char *script = row->sftp              ? SHELL_SFTP
                         : row->command != NULL ? SHELL_RUN
                                                : SHELL_LOGIN;
    const char *argv[] = {"/bin/sh", "-c", script, "sh", row->command, NULL};
    char hash[JWS_KID_MAX];
    struct token_claims *claims = xcalloc(1, sizeof(*claims));
    char **env = make_env(row->env, j);
    fill_claims(a, j, t, claims);
    token_argv_hash(argv, row->command != NULL ? 5 : 4, hash);
    struct leases_launch in = {.claims = claims,
                               .argv_hash = hash,
                               .argv = (char **)argv,
                               .envp = env,
                               .want_stdin = true,
                               .pty = row->pty != NULL,
                               .rows = (uint16_t)pty->rows,
                               .cols = (uint16_t)pty->cols,
                               .term = pty->term};
    struct leases_launched out = {0};
    int rc = leases_launch(a->leases, &in, &out, err);
    *ret_step = out.step;
    if (rc == 0 && out.again) /* cannot be: its id was random, and taken once */
        rc = err_set(err, ERR_CONFLICT, "this session was started before");
    if (rc == 0) {
        c->ready = out.ready;
        snprintf(c->lease, sizeof(c->lease), "%s", j->id);
        snprintf(c->job, sizeof(c->job), "%s", out.job);
        log_info("lease %s: SSH session %s (%s)", c->lease, c->job,
                 row->sftp              ? "sftp"
                 : row->command != NULL ? "command"
                                        : "shell");
    }
    free_env(env);
    free(claims);
    return rc;
}

int ssh_begin_session(struct ssh_client *c, const json_t *body, const char **ret_step,
                      struct err *err)
{
    struct session_row row = {0};
    struct pty_row pty = {0};
    struct ticket_claims t;
    const struct journal_lease *j = NULL;
    *ret_step = "request";
    if (jsonx_decode(body, session_fields, JSONX_COUNT(session_fields), &row, "",
                     err) != 0 ||
        (row.pty != NULL && jsonx_decode(row.pty, pty_fields, JSONX_COUNT(pty_fields),
                                         &pty, "/pty", err) != 0))
        return -1;
    *ret_step = "ticket";
    if (ticket_take(&c->srv->tickets, row.ticket, clock_boot_us(), &t, err) != 0)
        return -1;
    *ret_step = "lease";
    if (choose(c->srv->a, &t, row.reservation, &j, err) != 0)
        return -1;
    *ret_step = "status";
    if (check_status(c->srv->a, j->id, err) != 0)
        return -1;
    *ret_step = "share";
    if (check_share(c, j->id, err) != 0)
        return -1;
    return launch(c, &row, &pty, j, &t, ret_step, err);
}
