/* witness: looks at the newest heads of the market's logs as `verify` does, and when
 * they extend those seen before, cosigns them (c2sp.org/tlog-cosignature) and gives the
 * market the cosignatures, for others to see that they are shown the same log; and
 * admin witness list: who does. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/heads.h"
#include "client/lib/clock.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define EVERY_MIN_US (10 * US_PER_S)
#define EVERY_MAX_US (24 * US_PER_HOUR)

struct witness {
    char name[NOTE_NAME_MAX];
    EVP_PKEY *key;
    char vkey[NOTE_VKEY_MAX];
};

static int witness_open(struct cli *c, struct witness *w, struct err *err)
{
    const char *name = opt_get(c->opts, "name");
    struct note_key key;
    size_t len = strlen(c->account.json_path) - strlen(".json");
    if (snprintf(w->name, sizeof(w->name), name != NULL ? "%s" : "%s/witness",
                 name != NULL ? name : c->account.who) >= (int)sizeof(w->name))
        return err_set(err, ERR_USAGE, "--name: at most %d bytes", NOTE_NAME_MAX - 1);
    char *path = xasprintf("%.*s.witness.key", (int)len, c->account.json_path);
    int rc = account_key_file(&c->account, path, &w->key, err);
    free(path);
    if (rc == 0)
        rc = note_key_make(w->name, NOTE_ALG_COSIGN, w->key, &key, err);
    if (rc == 0)
        note_key_print(&key, w->vkey);
    return rc;
}

static int tell(struct cli *c, const char *path, json_t *body, struct err *err)
{
    const struct cli_call call = {"POST", path, body, NULL};
    int rc = cli_call(c, &call, NULL, err);
    json_decref(body);
    cli_harmless(err);
    return rc;
}

static int cosign(struct cli *c, const struct witness *w, const struct bundle_log *log,
                  const json_t *head, struct err *err)
{
    const char *note = json_string_value(json_object_get(head, "checkpoint"));
    char *line;
    if (note_cosign(note, w->name, w->key, clock_now_us() / US_PER_S, &line, err) != 0)
        return -1;
    json_t *body =
        json_pack("{s:s, s:I, s:s, s:s}", "log", log->name, "size",
                  (json_int_t)log->size, "witness", w->name, "cosignature", line);
    free(line);
    return tell(c, "/v1/log/cosignatures", body, err);
}

/* What is kept is written before anything is cosigned: a witness never cosigns a head
 * that does not extend one it cosigned before, whatever happens in between. */
static int look(struct cli *c, const struct witness *w, struct err *err)
{
    struct heads h;
    if (heads_read(c, &h, err) != 0)
        return -1;
    int rc = heads_follow(c, &h, err);
    if (rc == 0)
        rc = heads_save(c, &h, err);
    for (int i = 0; rc == 0 && i < BUNDLE_LOGS; i++)
        if (h.logs[i].size > 0)
            rc = cosign(c, w, &h.logs[i], h.fetched[i], err);
    if (rc == 0 && c->render.format == RENDER_TABLE)
        cli_note("cosigned: usage %llu, ledger %llu",
                 (unsigned long long)h.logs[0].size,
                 (unsigned long long)h.logs[1].size);
    heads_done(&h);
    return rc;
}

int cmd_admin_witness_list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"WITNESS", "name", RENDER_TEXT, NULL},
        {"SITE", "site", RENDER_TEXT, NULL},
        {"NODE", "node", RENDER_TEXT, NULL},
        {"LOG", "log", RENDER_TEXT, NULL},
        {"RECORDS", "size", RENDER_INT, NULL},
        {"AGE", "age_s", RENDER_SECONDS, NULL},
        {"REFUSED", "refused", RENDER_TIME, NULL},
        {"WHY", "why", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    int rc = cli_get(c, "/v1/log/witnesses", &reply, err);
    if (rc == 0)
        rc = cli_print_list(c, reply, "witnesses", cols, RENDER_COUNT_OF(cols),
                            "nobody cosigns the log", err);
    json_decref(reply);
    return rc;
}

static bool is_passing(const struct err *err)
{
    return err->code == ERR_UNREACHABLE || err->code == ERR_UNAVAILABLE ||
           err->code == ERR_RATE_LIMITED;
}

int cmd_witness(struct cli *c, struct err *err)
{
    const char *every = opt_get(c->opts, "every");
    struct witness w = {.key = NULL};
    int64_t every_us = 0;
    int rc = 0;
    if (every != NULL && (timefmt_parse_duration(every, &every_us, err) != 0 ||
                          every_us < EVERY_MIN_US || every_us > EVERY_MAX_US))
        return err_set(err, ERR_USAGE, "--every: expected 10s to 24h");
    if (cli_open(c, err) != 0)
        return -1;
    rc = witness_open(c, &w, err);
    if (rc == 0)
        rc = tell(c, "/v1/log/witnesses", json_pack("{s:s}", "vkey", w.vkey), err);
    if (rc == 0 && c->render.format == RENDER_TABLE)
        cli_note("witness %s", w.vkey);
    while (rc == 0) {
        rc = look(c, &w, err);
        if (every_us == 0)
            break;
        if (rc != 0 && is_passing(err)) {
            cli_note("%s", err->text);
            rc = 0;
        }
        if (rc == 0)
            (void)poll(NULL, 0, (int)(every_us / 1000));
    }
    EVP_PKEY_free(w.key);
    return rc;
}
