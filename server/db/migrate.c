/* migrate: applies the built-in SQL; see the header. */
#include "server/db/migrate.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/log.h"
#include "client/lib/strbuf.h"

#define ROLES      "sql/roles.sql"
#define MIGRATIONS "sql/migrations/"
/* Known to all servers of a database; taken for the whole transaction. */
#define LOCK_SQL "SELECT pg_advisory_xact_lock(hashtext('neargpu.migrate'))"

static void quiet(void *arg, const char *message)
{
    (void)arg;
    log_debug("database: %.*s", (int)strcspn(message, "\n"), message);
}

/* ERR_UNREACHABLE, so that the caller can tell it from SQL that fails. */
static int fail_connect(PGconn *pg, struct err *err)
{
    const char *m = PQerrorMessage(pg);
    return err_set(err, ERR_UNREACHABLE, "database: %.*s", (int)strcspn(m, "\n"), m);
}

static int fail_sql(PGconn *pg, const char *what, struct err *err)
{
    const char *m = PQerrorMessage(pg);
    return err_set(err, ERR_INTERNAL, "%s: %.*s", what, (int)strcspn(m, "\n"), m);
}

/* Several commands in one text. */
static int run(PGconn *pg, const char *what, const char *sql, struct err *err)
{
    PGresult *r = PQexec(pg, sql);
    ExecStatusType st = PQresultStatus(r);
    PQclear(r);
    if (st != PGRES_COMMAND_OK && st != PGRES_TUPLES_OK)
        return fail_sql(pg, what, err);
    return 0;
}

/* One statement with text parameters; *ret (may be NULL) is to be cleared. */
static int query(PGconn *pg, const char *what, const char *sql,
                 const char *const params[], int count, PGresult **ret, struct err *err)
{
    PGresult *r = PQexecParams(pg, sql, count, NULL, params, NULL, NULL, 0);
    ExecStatusType st = PQresultStatus(r);
    if (st != PGRES_COMMAND_OK && st != PGRES_TUPLES_OK) {
        PQclear(r);
        return fail_sql(pg, what, err);
    }
    if (ret != NULL)
        *ret = r;
    else
        PQclear(r);
    return 0;
}

static bool is_migration(const struct sqlfile *f)
{
    return strncmp(f->path, MIGRATIONS, strlen(MIGRATIONS)) == 0;
}

static int prepare(PGconn *pg, const struct sqlfile *files, struct err *err)
{
    if (run(pg, "begin", "BEGIN", err) != 0 || run(pg, "lock", LOCK_SQL, err) != 0)
        return -1;
    for (const struct sqlfile *f = files; f->path != NULL; f++)
        if (strcmp(f->path, ROLES) == 0 && run(pg, f->path, f->text, err) != 0)
            return -1;
    return run(pg, "owner",
               "DO $$ BEGIN"
               " EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO "
               "neargpu_owner', current_database());"
               " GRANT CREATE, USAGE ON SCHEMA public TO neargpu_owner;"
               " EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', "
               "current_database()); END $$;"
               "SET LOCAL ROLE neargpu_owner;"
               "SET LOCAL check_function_bodies = off;"
               "CREATE TABLE IF NOT EXISTS public.neargpu_migration ("
               " name text PRIMARY KEY, sha256 text NOT NULL,"
               " applied_at timestamptz NOT NULL DEFAULT now())",
               err);
}

/* Its place in the list; refuses what is applied here but not known to this program. */
static int check_known(PGconn *pg, const struct sqlfile *files, struct err *err)
{
    PGresult *r;
    if (query(pg, "migrations",
              "SELECT name FROM public.neargpu_migration WHERE name LIKE 'sql/%'", NULL,
              0, &r, err) != 0)
        return -1;
    for (int i = 0; i < PQntuples(r); i++) {
        const struct sqlfile *f = files;
        while (f->path != NULL && strcmp(f->path, PQgetvalue(r, i, 0)) != 0)
            f++;
        if (f->path == NULL) {
            (void)err_set(err, ERR_CONFLICT,
                          "the database has migration %s, which this program does not "
                          "know: it is older than the database, upgrade it",
                          PQgetvalue(r, i, 0));
            PQclear(r);
            return -1;
        }
    }
    PQclear(r);
    return 0;
}

static int record(PGconn *pg, const char *name, const char *hash, struct err *err)
{
    const char *params[] = {name, hash};
    return query(
        pg, name,
        "INSERT INTO public.neargpu_migration (name, sha256) VALUES ($1, $2) "
        "ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at "
        "= now()",
        params, 2, NULL, err);
}

/* The hash kept under name; "" when there is none. */
static int recorded(PGconn *pg, const char *name, char ret[SHA256_HEX], struct err *err)
{
    PGresult *r;
    const char *params[] = {name};
    if (query(pg, name, "SELECT sha256 FROM public.neargpu_migration WHERE name = $1",
              params, 1, &r, err) != 0)
        return -1;
    snprintf(ret, SHA256_HEX, "%s", PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    return 0;
}

static int apply_migrations(PGconn *pg, const struct sqlfile *files, int *ret,
                            struct err *err)
{
    for (const struct sqlfile *f = files; f->path != NULL; f++) {
        char hash[SHA256_HEX], old[SHA256_HEX];
        if (!is_migration(f))
            continue;
        digest_sha256_hex(f->text, strlen(f->text), hash);
        if (recorded(pg, f->path, old, err) != 0)
            return -1;
        if (old[0] != '\0' && strcmp(old, hash) != 0)
            return err_set(err, ERR_CONFLICT,
                           "%s was changed after it was applied here: restore it and "
                           "write a new migration",
                           f->path);
        if (old[0] != '\0')
            continue;
        if (run(pg, f->path, f->text, err) != 0 || record(pg, f->path, hash, err) != 0)
            return -1;
        (*ret)++;
    }
    return 0;
}

/* Everything that is replaced as a whole: functions, views, grants. */
static int apply_functions(PGconn *pg, const struct sqlfile *files, bool *ret,
                           struct err *err)
{
    struct strbuf all = STRBUF_INIT;
    char hash[SHA256_HEX], old[SHA256_HEX];
    for (const struct sqlfile *f = files; f->path != NULL; f++)
        if (!is_migration(f) && strcmp(f->path, ROLES) != 0)
            strbuf_adds(&all, f->text);
    digest_sha256_hex(strbuf_str(&all), all.len, hash);
    strbuf_done(&all);
    if (recorded(pg, "functions", old, err) != 0)
        return -1;
    if (strcmp(old, hash) == 0)
        return 0;
    for (const struct sqlfile *f = files; f->path != NULL; f++)
        if (!is_migration(f) && strcmp(f->path, ROLES) != 0 &&
            run(pg, f->path, f->text, err) != 0)
            return -1;
    *ret = true;
    return record(pg, "functions", hash, err);
}

static int insert_market(PGconn *pg, const struct migrate_opts *o, bool *ret_made,
                         struct err *err)
{
    char fee[24], tax[24];
    PGresult *r;
    snprintf(fee, sizeof fee, "%lld", (long long)o->fee_ppm);
    snprintf(tax, sizeof tax, "%lld", (long long)o->tax_ppm);
    const char *market[] = {o->market_name, o->currency,           fee, tax,
                            o->issuer_name, o->issuer_registration};
    if (query(pg, "market",
              "INSERT INTO ng.market (name, currency, fee_ppm, tax_ppm, issuer_name, "
              "issuer_registration) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO "
              "NOTHING",
              market, 6, &r, err) != 0)
        return -1;
    *ret_made = strcmp(PQcmdTuples(r), "1") == 0;
    PQclear(r);
    if (!*ret_made || o->issuer_address == NULL)
        return 0;
    if (query(pg, "market", "UPDATE ng.market SET issuer_address = $1",
              &o->issuer_address, 1, &r, err) != 0)
        return -1;
    PQclear(r);
    return 0;
}

static int make_market(PGconn *pg, const struct migrate_opts *o,
                       struct migrate_result *ret, struct err *err)
{
    PGresult *r;
    if (insert_market(pg, o, &ret->market_made, err) != 0)
        return -1;
    if (o->admin_key_hash == NULL)
        return 0;
    char hex[SHA256_HEX];
    digest_hex(o->admin_key_hash, SHA256_LEN, hex);
    const char *key[] = {hex};
    if (query(pg, "administrator's key",
              "INSERT INTO ng.api_key (hash, role, label) SELECT decode($1, 'hex'), "
              "'admin', 'first' WHERE NOT EXISTS (SELECT FROM ng.api_key WHERE role = "
              "'admin' AND revoked_at IS NULL)",
              key, 1, &r, err) != 0)
        return -1;
    PQclear(r);
    if (query(
            pg, "administrator's key",
            "SELECT FROM ng.api_key WHERE hash = decode($1, 'hex') AND role = 'admin' "
            "AND revoked_at IS NULL",
            key, 1, &r, err) != 0)
        return -1;
    ret->admin_key_kept = PQntuples(r) == 1;
    PQclear(r);
    return 0;
}

static int migrate_on(PGconn *pg, const struct migrate_opts *opts,
                      struct migrate_result *ret, struct err *err)
{
    const struct sqlfile *files = opts->files != NULL ? opts->files : sqlfiles;
    if (prepare(pg, files, err) != 0 || check_known(pg, files, err) != 0 ||
        apply_migrations(pg, files, &ret->applied, err) != 0 ||
        apply_functions(pg, files, &ret->functions, err) != 0 ||
        make_market(pg, opts, ret, err) != 0)
        return -1;
    return run(pg, "commit", "COMMIT", err);
}

int migrate_run(const struct migrate_opts *opts, struct migrate_result *ret,
                struct err *err)
{
    struct migrate_result made = {0};
    PGconn *pg = PQconnectdb(opts->conninfo);
    PQsetNoticeProcessor(pg, quiet, NULL);
    int rc = PQstatus(pg) != CONNECTION_OK ? fail_connect(pg, err)
                                           : migrate_on(pg, opts, &made, err);
    PQfinish(pg);
    if (rc != 0)
        return err_prefix(err, "preparing the database");
    *ret = made;
    return 0;
}
