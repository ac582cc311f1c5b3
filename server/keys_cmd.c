/* keys_cmd: see keys_cmd.h. */
#include "server/keys_cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/issuer/keystore.h"

static void show(const struct keyset *set, int64_t now_us)
{
    char at[TIMEFMT_MAX], from[TIMEFMT_MAX], to[TIMEFMT_MAX];
    timefmt_utc(set->exp_us, at);
    printf("key set %lld of %s, believed until %s\n", (long long)set->seq, set->iss,
           at);
    for (size_t i = 0; i < set->count; i++) {
        const struct keyset_key *k = &set->keys[i];
        timefmt_utc(k->not_before_us, from);
        timefmt_utc(k->not_after_us, to);
        printf("%s  %s  %s  %s\n", k->kid, from, to,
               k->revoked                  ? "revoked"
               : now_us < k->not_before_us ? "published"
               : now_us >= k->not_after_us ? "over"
                                           : "valid");
    }
}

/* The set after a change, or what to do with the request. */
static void done(const struct keystore *k, const struct keystore_change *how)
{
    if (how->request == NULL)
        show(keystore_set(k), how->now_us);
    else
        printf("%s waits for the root: neargpud keys sign --root FILE %s >SET, then "
               "neargpud keys import SET here\n",
               how->request, how->request);
}

static int rotate(const struct opt_values *v, struct keystore *k,
                  const struct keystore_change *how, struct err *err)
{
    char kid[JWS_KID_MAX];
    int64_t publish_us = opt_has(v, "now") ? 0 : KEYSTORE_PUBLISH_US;
    if (keystore_rotate(k, how, publish_us, kid, err) != 0)
        return -1;
    done(k, how);
    return 0;
}

static int on_store(const struct opt_values *v, const char *verb, const char *pki_dir,
                    struct err *err)
{
    struct keystore_change how = {.root_file = opt_get(v, "root"),
                                  .request = opt_get(v, "request"),
                                  .now_us = clock_now_us()};
    struct keystore *k;
    if (keystore_open_existing(pki_dir, &k, err) != 0)
        return err_prefix(err, "keys of %s", pki_dir);
    int rc = 0;
    if (strcmp(verb, "list") == 0) {
        show(keystore_set(k), how.now_us);
        if (keystore_has_root(k))
            printf("the root key is here (%s/root.key): move it to a machine without a "
                   "network\n",
                   pki_dir);
    } else if (strcmp(verb, "rotate") == 0) {
        rc = rotate(v, k, &how, err);
    } else if (strcmp(verb, "revoke") == 0) {
        rc = keystore_revoke(k, &how, v->args[0], err);
        if (rc == 0)
            done(k, &how);
    } else {
        rc = keystore_import(k, v->args[0], how.now_us, err);
        if (rc == 0)
            show(keystore_set(k), how.now_us);
    }
    keystore_free(k);
    return rc;
}

/* What is about to be signed goes to standard error, the set to standard output. */
static int sign(const struct opt_values *v, struct err *err)
{
    const char *root = opt_get(v, "root");
    struct keyset set;
    char *text, at[TIMEFMT_MAX];
    if (root == NULL)
        return err_set(err, ERR_USAGE, "keys sign needs --root FILE");
    if (keystore_sign(root, v->args[0], &text, &set, err) != 0)
        return -1;
    timefmt_utc(set.exp_us, at);
    fprintf(stderr, "signed: key set %lld of %s, %zu keys, until %s\n",
            (long long)set.seq, set.iss, set.count, at);
    puts(text);
    free(text);
    return 0;
}

int keys_cmd(const struct opt_values *v, const char *pki_dir)
{
    struct err err = {ERR_NONE, ""};
    const char *verb = v->command->name + strlen("keys ");
    char kid[JWS_KID_MAX];
    int rc;
    if (strcmp(verb, "sign") == 0) {
        rc = sign(v, &err);
    } else if (strcmp(verb, "root-new") == 0) {
        rc = keystore_root_new(v->args[0], kid, &err);
        if (rc == 0)
            printf("%s\n", kid);
    } else {
        rc = on_store(v, verb, pki_dir, &err);
    }
    if (rc != 0)
        fprintf(stderr, "neargpud: %s\n", err.text);
    return rc == 0 ? 0 : err_exit_status(err.code);
}
