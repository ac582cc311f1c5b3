/* runauth: see runauth.h. */
#include "client/agent/runauth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/launch.h"
#include "client/agent/leases.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

struct request_row {
    const char *token, *proof, *cwd, *job, *cgroup, *image;
    json_t *argv, *env, *files, *pty;
    bool want_stdin;
    int64_t offset;
};
#define AT(m) offsetof(struct request_row, m)
static const struct jsonx_field launch_fields[] = {
    {"token", JSONX_STRING, true, AT(token), 1, 65536},
    {"proof", JSONX_STRING, true, AT(proof), 1, 65536},
    {"argv", JSONX_ARRAY, true, AT(argv), 1, LAUNCH_ARGV_MAX},
    {"pty", JSONX_OBJECT, false, AT(pty), 0, 0},
    {"env", JSONX_OBJECT, false, AT(env), 0, 0},
    {"files", JSONX_OBJECT, false, AT(files), 0, 0},
    {"cwd", JSONX_STRING, false, AT(cwd), 1, 4095},
    {"stdin", JSONX_BOOL, false, AT(want_stdin), 0, 0},
    {"image", JSONX_STRING, false, AT(image), 1, LAUNCH_IMAGE_MAX},
};
static const struct jsonx_field attach_fields[] = {
    {"token", JSONX_STRING, true, AT(token), 1, 65536},
    {"proof", JSONX_STRING, true, AT(proof), 1, 65536},
    {"job", JSONX_STRING, false, AT(job), 1, 63},
    {"offset", JSONX_INT, false, AT(offset), 0, INT64_MAX},
};
static const struct jsonx_field adopt_fields[] = {
    {"token", JSONX_STRING, true, AT(token), 1, 65536},
    {"proof", JSONX_STRING, true, AT(proof), 1, 65536},
    {"cgroup", JSONX_STRING, true, AT(cgroup), 1, 4095},
};
static const struct {
    char type;
    const char *action;
    const struct jsonx_field *fields;
    size_t count;
} kinds[] = {
    [RUNAUTH_LAUNCH] = {'l', "launch", launch_fields, JSONX_COUNT(launch_fields)},
    [RUNAUTH_ATTACH] = {'a', "attach", attach_fields, JSONX_COUNT(attach_fields)},
    [RUNAUTH_JOBS] = {'j', "jobs", attach_fields, 2},
    [RUNAUTH_STOP] = {'k', "stop", attach_fields, 2},
    [RUNAUTH_ADOPT] = {'d', "adopt", adopt_fields, JSONX_COUNT(adopt_fields)},
};

/* May open the lease and give its GPUs to someone. */
static bool is_start(const struct runauth *r)
{
    return r->kind == RUNAUTH_LAUNCH || r->kind == RUNAUTH_ADOPT;
}

static int read_argv(const json_t *list, struct runauth *r, struct err *err)
{
    size_t n = json_array_size(list);
    r->argv = xcalloc(n + 1, sizeof(*r->argv));
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        const char *text = json_string_value(v);
        if (text == NULL || strlen(text) != json_string_length(v))
            return err_set(err, ERR_BAD_REQUEST,
                           "/argv/%zu: expected a string without NUL", i);
        r->argv[i] = xstrdup(text);
    }
    if (r->argv[0][0] == '\0')
        return err_set(err, ERR_BAD_REQUEST, "/argv/0: empty");
    return 0;
}

/* {"term","rows","cols"}: a terminal is wanted, of this kind and size. */
static int read_pty(const json_t *pty, struct runauth *r, struct err *err)
{
    struct row {
        const char *term;
        int64_t rows, cols;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"term", JSONX_STRING, false, offsetof(struct row, term), 1, LAUNCH_TERM_MAX},
        {"rows", JSONX_INT, false, offsetof(struct row, rows), 0, LAUNCH_WINDOW_MAX},
        {"cols", JSONX_INT, false, offsetof(struct row, cols), 0, LAUNCH_WINDOW_MAX},
    };
    if (jsonx_decode(pty, fields, JSONX_COUNT(fields), &row, "/pty", err) != 0)
        return -1;
    r->pty = true;
    r->term = row.term != NULL ? xstrdup(row.term) : NULL;
    r->rows = (uint16_t)row.rows;
    r->cols = (uint16_t)row.cols;
    return 0;
}

static bool is_env_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '=') == NULL && strlen(name) < 256;
}

/* The tenant's environment, and what a job may want to know of its lease. */
static int read_env(json_t *env, struct runauth *r, struct err *err)
{
    const struct token_lease *l = &r->claims.lease;
    size_t n = 0;
    const char *name;
    json_t *v;
    r->envp = xcalloc(json_object_size(env) + 4, sizeof(*r->envp));
    json_object_foreach(env, name, v)
    {
        const char *text = json_string_value(v);
        if (!is_env_name(name) || text == NULL || strlen(text) != json_string_length(v))
            return err_set(err, ERR_BAD_REQUEST, "/env/%.60s: not a variable", name);
        if (strcmp(name, "CUDA_VISIBLE_DEVICES") == 0 ||
            strcmp(name, "NEARGPU_GPUS") == 0 ||
            strcmp(name, "NEARGPU_RESERVATION") == 0)
            continue;
        r->envp[n++] = xasprintf("%s=%s", name, text);
    }
    if (n > LAUNCH_ARGV_MAX - 4)
        return err_set(err, ERR_TOO_LARGE, "/env: more than %d variables",
                       LAUNCH_ARGV_MAX - 4);
    struct strbuf uuids = STRBUF_INIT;
    for (size_t i = 0; i < l->gpu_count; i++)
        strbuf_addf(&uuids, "%s%s", i > 0 ? "," : "", l->gpus[i]);
    r->envp[n++] = xasprintf("CUDA_VISIBLE_DEVICES=%s", strbuf_str(&uuids));
    r->envp[n++] = xasprintf("NEARGPU_GPUS=%s", strbuf_str(&uuids));
    r->envp[n++] = xasprintf("NEARGPU_RESERVATION=%s", l->reservation);
    strbuf_done(&uuids);
    return 0;
}

static int check_token(struct agent *a, struct runauth *r, const char *token,
                       int64_t now, const char **ret_step, struct err *err)
{
    struct token_check ctx = {.keys = a->id.keys,
                              .issuer = a->id.issuer,
                              .audience = a->id.spiffe_id,
                              .now_us = now};
    /* A stale status forbids starting; who is in may go on looking at his job. */
    if (is_start(r))
        ctx.status = &a->status;
    *ret_step = "key";
    if (is_start(r) && a->id.keys_exp_us != 0 && now >= a->id.keys_exp_us)
        return err_set(err, ERR_UNAVAILABLE,
                       "the market's key set is past its time; a new one has not come");
    if (token_check(token, strlen(token), &ctx, &r->claims, ret_step, err) != 0)
        return -1;
    *ret_step = "status";
    if (reconcile_is_revoked(a->have_status ? &a->status : NULL,
                             r->claims.lease.reservation))
        return err_set(err, ERR_TOKEN, "the lease was revoked");
    return 0;
}

static int check_epoch(const struct agent *a, const struct runauth *r, struct err *err)
{
    const struct token_lease *l = &r->claims.lease;
    const struct journal_lease *j = leases_find(a->leases, l->reservation);
    if (j != NULL && j->epoch != l->epoch)
        return err_set(err, ERR_TOKEN, "the lease here has epoch %lld, the token %lld",
                       (long long)j->epoch, (long long)l->epoch);
    for (size_t i = 0; j == NULL && i < l->gpu_count; i++) {
        int64_t seen = 0, min = -1;
        if (a->have_status)
            min = token_status_min_epoch(&a->status, l->gpus[i]);
        if (l->epoch <= min)
            return err_set(
                err, ERR_TOKEN,
                "GPU %s is granted above epoch %lld only, the token has %lld",
                l->gpus[i], (long long)min, (long long)l->epoch);
        if (journal_epoch_get(a->journal, l->gpus[i], &seen, err) != 0)
            return -1;
        if (seen > l->epoch) /* equal: of which lease, is asked when it opens */
            return err_set(err, ERR_TOKEN,
                           "GPU %s has seen epoch %lld, the token has %lld", l->gpus[i],
                           (long long)seen, (long long)l->epoch);
    }
    return 0;
}

static int check_possession(const struct agent *a, struct runauth *r, const char *proof,
                            const char *nonce, int64_t now, struct err *err)
{
    struct token_pop want = {0};
    const char *inner = "proof";
    size_t argc = 0;
    while (r->argv != NULL && r->argv[argc] != NULL)
        argc++;
    token_argv_hash((const char *const *)r->argv, argc, r->argv_hash);
    snprintf(want.nonce, sizeof(want.nonce), "%s", nonce);
    snprintf(want.aud, sizeof(want.aud), "%s", a->id.spiffe_id);
    snprintf(want.ath, sizeof(want.ath), "%s", r->claims.ath);
    snprintf(want.action, sizeof(want.action), "%s", kinds[r->kind].action);
    snprintf(want.argv_hash, sizeof(want.argv_hash), "%s", r->argv_hash);
    want.image = r->image;
    return token_pop_check(proof, strlen(proof), r->claims.jkt, &want, now, &inner,
                           err);
}

/* An open lease has the GPUs the token names, no more and no others. */
static bool same_gpus(const struct token_lease *l, const struct journal_lease *j)
{
    size_t found = 0;
    for (size_t i = 0; i < l->gpu_count; i++)
        for (size_t g = 0; g < j->gpu_count; g++)
            found += strcmp(l->gpus[i], j->gpus[g]) == 0;
    return found == l->gpu_count && l->gpu_count == j->gpu_count;
}

/* Some of an open lease's GPUs, and no others. */
static bool only_its_gpus(const struct token_lease *l, const struct journal_lease *j)
{
    for (size_t i = 0; i < l->gpu_count; i++) {
        size_t g = 0;
        while (g < j->gpu_count && strcmp(l->gpus[i], j->gpus[g]) != 0)
            g++;
        if (g == j->gpu_count)
            return false;
    }
    return true;
}

/* What somebody else was given (RFC 8693): it never opens a lease, which would then be
 * less than what was sold, and what reaches the whole of it takes the whole of it. */
static int check_delegated(const struct runauth *r, const struct journal_lease *j,
                           const char **ret_step, struct err *err)
{
    const struct token_lease *l = &r->claims.lease;
    *ret_step = "lease";
    if (j == NULL)
        return err_set(err, ERR_UNAVAILABLE, "the lease is not open here yet");
    *ret_step = "gpu";
    if (!only_its_gpus(l, j))
        return err_set(err, ERR_TOKEN, "the token names other GPUs than the lease has");
    *ret_step = "actions";
    if ((r->kind == RUNAUTH_STOP || r->kind == RUNAUTH_ADOPT) &&
        (l->gpu_count != j->gpu_count || l->not_after_us < j->not_after_us))
        return err_set(err, ERR_TOKEN, "a part of a lease does not allow %s",
                       kinds[r->kind].action);
    return 0;
}

static int check_lease(struct agent *a, const struct runauth *r, int64_t now,
                       const char **ret_step, struct err *err)
{
    const struct token_lease *l = &r->claims.lease;
    const struct journal_lease *j = leases_find(a->leases, l->reservation);
    unsigned need = r->kind == RUNAUTH_STOP    ? TOKEN_STOP
                    : r->kind == RUNAUTH_ADOPT ? TOKEN_ADOPT
                                               : TOKEN_LAUNCH;
    *ret_step = "actions";
    if (!(l->actions & need))
        return err_set(err, ERR_TOKEN, "the token does not allow %s",
                       kinds[r->kind].action);
    *ret_step = "lease";
    if (j != NULL && strcmp(j->tenant, r->claims.sub) != 0)
        return err_set(err, ERR_TOKEN, "the lease is another tenant's");
    if (j == NULL && !is_start(r))
        return err_set(err, ERR_NOT_FOUND, "nothing of this lease is here");
    bool is_delegated = r->claims.act[0] != '\0';
    if (is_delegated && check_delegated(r, j, ret_step, err) != 0)
        return -1;
    *ret_step = "gpu";
    if (j != NULL && !is_delegated && !same_gpus(l, j))
        return err_set(err, ERR_TOKEN, "the token names other GPUs than the lease has");
    *ret_step = "times";
    if (now < l->not_before_us)
        return err_set(err, ERR_TOKEN, "the lease has not begun");
    if (!is_start(r))
        return 0;
    struct reconcile_have *have = xcalloc(LEASES_MAX, sizeof(*have));
    struct order *o = xcalloc(1, sizeof(*o));
    struct reconcile_in in;
    char why[120];
    agent_compare(a, have, LEASES_MAX, &in);
    order_from_token(&r->claims, o);
    *ret_step = reconcile_may_start(&in, why, sizeof(why)) ? "gpu" : "status";
    reconcile_obstacle(&in, o, why, sizeof(why));
    free(have);
    free(o);
    return why[0] != '\0' ? err_set(err, ERR_CONFLICT, "%s", why) : 0;
}

static int read_request(struct runauth *r, char type, const json_t *doc,
                        struct request_row *row, struct err *err)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].type != type)
            continue;
        r->kind = (enum runauth_kind)i;
        if (jsonx_decode(doc, kinds[i].fields, kinds[i].count, row, "", err) != 0)
            return -1;
        r->want_stdin = row->want_stdin;
        if (row->pty != NULL && read_pty(row->pty, r, err) != 0)
            return -1;
        r->offset = row->offset;
        r->cwd = row->cwd != NULL ? xstrdup(row->cwd) : NULL;
        r->image = row->image != NULL ? xstrdup(row->image) : NULL;
        r->job = row->job != NULL ? xstrdup(row->job) : NULL;
        if (row->files != NULL && launch_files_read(row->files, "/files", &r->files,
                                                    &r->file_count, err) != 0)
            return -1;
        if (row->cgroup != NULL) { /* the proof covers it as a command of one word */
            r->argv = xcalloc(2, sizeof(*r->argv));
            r->argv[0] = xstrdup(row->cgroup);
        }
        return row->argv != NULL ? read_argv(row->argv, r, err) : 0;
    }
    return err_set(err, ERR_BAD_REQUEST, "a frame of type 0x%02x asks for nothing",
                   (unsigned char)type);
}

static int check_steps(struct agent *a, struct runauth *r, char type, const json_t *doc,
                       const char *nonce, const char **ret_step, struct err *err)
{
    struct request_row row = {0};
    int64_t now;
    *ret_step = "request";
    if (read_request(r, type, doc, &row, err) != 0)
        return -1;
    *ret_step = "status";
    if (!agent_now(a, &now))
        return err_set(err, ERR_UNAVAILABLE,
                       "no signed time from the market since boot");
    if (is_start(r) && !a->have_status)
        return err_set(err, ERR_UNAVAILABLE, "no status from the market yet");
    if (check_token(a, r, row.token, now, ret_step, err) != 0)
        return -1;
    *ret_step = "epoch";
    if (check_epoch(a, r, err) != 0)
        return -1;
    *ret_step = "possession";
    if (check_possession(a, r, row.proof, nonce, now, err) != 0)
        return -1;
    if (check_lease(a, r, now, ret_step, err) != 0)
        return -1;
    *ret_step = "request";
    return r->kind == RUNAUTH_LAUNCH ? read_env(row.env, r, err) : 0;
}

int runauth_check(struct agent *a, char type, const void *data, size_t len,
                  const char *nonce, struct runauth *ret, const char **ret_step,
                  struct err *err)
{
    *ret_step = "request";
    memset(ret, 0, sizeof(*ret));
    json_t *doc = jsonx_parse(data, len, RUN_FRAME_MAX, err);
    int rc = -1;
    if (doc != NULL)
        rc = check_steps(a, ret, type, doc, nonce, ret_step, err);
    json_decref(doc);
    if (rc != 0)
        runauth_done(ret);
    return rc;
}

static void free_list(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        free(list[i]);
    free(list);
}

void runauth_done(struct runauth *r)
{
    free_list(r->argv);
    free_list(r->envp);
    for (size_t i = 0; i < r->file_count; i++) {
        free(r->files[i].name);
        free(r->files[i].text);
    }
    free(r->files);
    r->files = NULL;
    r->file_count = 0;
    free(r->term);
    r->term = NULL;
    free(r->cwd);
    free(r->job);
    free(r->image);
    r->image = NULL;
    r->argv = r->envp = NULL;
    r->cwd = r->job = NULL;
}
