/* ledger: see the header. */
#include "tests/db/ledger.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "server/db/migrate.h"
#include "tests/unit/unit.h"

/* Bookings and receipts take the server's way; GPUs of a node are chosen by the test.
 */
static const char helpers[] =
    "CREATE SCHEMA t;"
    "DELETE FROM ng.sla_terms;" /* leases in tests are rarely used whole */
    "UPDATE ng.market SET hold_window_us = NULL;" /* and hold their whole price */
    "CREATE FUNCTION t.hash(p text) RETURNS bytea LANGUAGE sql AS "
    "  $$ SELECT sha256(convert_to(p, 'UTF8')) $$;"
    "CREATE FUNCTION t.tenant(p text, z text, money bigint) RETURNS uuid LANGUAGE "
    "plpgsql"
    "  AS $$ DECLARE v uuid := (api.tenant_create(p, z, NULL, t.hash('key ' || p), "
    "'a', "
    "      NULL, NULL)->>'id')::uuid; BEGIN "
    "    IF money > 0 THEN PERFORM api.topup(p, money, ng.currency(), 'first/' || p, "
    "'a',"
    "      NULL, NULL); END IF; RETURN v; END $$;"
    "CREATE FUNCTION t.provider(p text, fee bigint) RETURNS uuid LANGUAGE sql AS"
    "  $$ SELECT (api.provider_create(p, fee, t.hash('key ' || p), 'a', NULL, NULL)"
    "     ->>'id')::uuid $$;"
    "CREATE FUNCTION t.node(p text, p_site text, p_provider text, size integer)"
    "  RETURNS integer LANGUAGE sql AS $$"
    "  INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, receipt_key, gpus,"
    "      gpu_model, gpu_memory_mib, offered, state, last_sync_at)"
    "  SELECT s.id, v.id, p, 'spiffe://t/' || p, t.hash(p), int4range(f, f + size),"
    "      'H100', 81920, (2::numeric ^ size - 1)::bigint, 'up', now()"
    "    FROM ng.site s, ng.provider v,"
    "      (SELECT coalesce(max(upper(gpus)), 1) AS f FROM ng.node) x"
    "   WHERE s.name = p_site AND v.name = p_provider RETURNING id $$;"
    /* One element of nodes, firsts and counts a booking. */
    "CREATE FUNCTION t.book(p_id uuid, p_tenant text, f timestamptz, z timestamptz,"
    "  nodes integer[], firsts integer[], counts integer[], price bigint)"
    "  RETURNS text LANGUAGE sql AS $$"
    "  WITH c AS (SELECT sum(ng.money_mul(n * (ng.us(z) - ng.us(f)), price, "
    "3600000000))"
    "      ::bigint AS total, sum(n)::bigint AS gpus FROM unnest(counts) n)"
    "  SELECT b.outcome FROM c, api.book(ARRAY[p_id],"
    "    ARRAY[(SELECT id FROM ng.tenant WHERE name = p_tenant)], ARRAY[NULL::uuid],"
    "    ARRAY[ng.us(now())], ARRAY[ng.us(f)], ARRAY[ng.us(z)], ARRAY['{}'],"
    "    ARRAY['[]'], ARRAY[ng.currency()], ARRAY[price * c.gpus], ARRAY[c.total],"
    "    ARRAY[c.total], ARRAY[p_id::text], ARRAY[t.hash(p_id::text)], ARRAY[false],"
    "    ARRAY[NULL::text], ARRAY[0::bigint], ARRAY[false],"
    "    array_fill(1, ARRAY[cardinality(nodes)]), nodes,"
    "    ARRAY(SELECT site_id FROM unnest(nodes) WITH ORDINALITY x(i, o)"
    "      JOIN ng.node ON id = i ORDER BY o), firsts, counts,"
    "    array_fill(ng.us(f), ARRAY[cardinality(nodes)]),"
    "    array_fill(ng.us(z), ARRAY[cardinality(nodes)]),"
    "    array_fill(price, ARRAY[cardinality(nodes)]), '{}', '{}', '{}', '{}', '{}',"
    "    '{}', '{}', '{}', '{}') b $$;"
    /* '' or the reason it is refused. */
    "CREATE FUNCTION t.receipt(p_id uuid, p_node integer, p_seq integer, p_kind text,"
    "  p_gpu_ms bigint, p_to timestamptz DEFAULT now()) RETURNS text LANGUAGE sql AS $$"
    /* Its text looks as if it were signed; the same again is the same text. */
    "  WITH j AS (SELECT coalesce((SELECT jws FROM ng.receipt WHERE (reservation_id,"
    "    node_id, seq, kind, gpu_ms) = (p_id, p_node, p_seq, p_kind, p_gpu_ms)),"
    "    concat('e30.', rtrim(translate(encode(convert_to("
    "    jsonb_build_object('reservation', p_id, 'node', p_node, 'seq', p_seq, 'kind',"
    "    p_kind, 'gpu_ms', p_gpu_ms, 'from', p_to - interval '1 ms', 'to', p_to,"
    "    'gaps', '[]'::jsonb)::text, 'UTF8'), 'base64'), E'+/\\n', '-_'), '='),"
    "    '.x')) AS jws)"
    "  SELECT coalesce(api.receipts(p_node, jsonb_build_array(jsonb_build_object("
    "    'reservation', p_id, 'seq', p_seq, 'kind', p_kind, 'gpu_ms', p_gpu_ms,"
    "    'hash', encode(t.hash(j.jws), 'hex'),"
    "    'prev', coalesce((SELECT encode(hash, 'hex') FROM ng.receipt"
    "       WHERE reservation_id = p_id AND node_id = p_node AND seq = p_seq - 1), ''),"
    "    'from_us', ng.us(p_to) - 1000, 'to_us', ng.us(p_to), 'jws', j.jws)),"
    "    ng.us(now()))#>>'{rejected,0,code}', '') FROM j $$;"
    /* What a ledger read naively says of an account: credits less debits. */
    "CREATE FUNCTION t.balance(p_kind text, p_owner uuid) RETURNS bigint LANGUAGE sql "
    "AS"
    "  $$ SELECT coalesce((SELECT sum(CASE WHEN t.cr = a.id THEN amount_micro"
    "         ELSE -amount_micro END) FROM ng.transfer t, ng.account a"
    "      WHERE a.kind = p_kind AND a.id IN (t.dr, t.cr) AND"
    "        coalesce(a.tenant_id, a.provider_id) IS NOT DISTINCT FROM p_owner), 0)"
    "  ::bigint $$;";

char *ledger_text(struct ledger *l, const char *fmt, ...)
{
    char *sql;
    va_list ap;
    va_start(ap, fmt);
    ck_assert_int_ge(vasprintf(&sql, fmt, ap), 0);
    va_end(ap);
    char *text = testdb_one(l->pg, sql);
    free(sql);
    return text;
}

int64_t ledger_int(struct ledger *l, const char *fmt, ...)
{
    char *sql;
    va_list ap;
    va_start(ap, fmt);
    ck_assert_int_ge(vasprintf(&sql, fmt, ap), 0);
    va_end(ap);
    char *text = testdb_one(l->pg, sql);
    int64_t n = strtoll(text, NULL, 10);
    free(text);
    free(sql);
    return n;
}

void ledger_sql(struct ledger *l, const char *fmt, ...)
{
    char *sql;
    va_list ap;
    va_start(ap, fmt);
    ck_assert_int_ge(vasprintf(&sql, fmt, ap), 0);
    va_end(ap);
    testdb_sql(l->pg, sql);
    free(sql);
}

/* Tests run in the build directory, or from anywhere with these in the environment. */
static char *place(const char *variable, const char *fallback)
{
    const char *text = getenv(variable);
    return xstrdup(text != NULL ? text : fallback);
}

static void quiet(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

void ledger_open(struct ledger *l, const char *currency)
{
    struct err err;
    struct migrate_result done;
    l->billd = place("NEARGPU_BILLD", "billing/neargpu-billd");
    l->source = place("srcdir", ".");
    l->db = testdb_start();
    PGconn *pg = testdb_connect(l->db, "postgres", "postgres");
    testdb_sql(pg, "CREATE DATABASE neargpu");
    PQfinish(pg);
    struct migrate_opts o = {
        .conninfo = testdb_conninfo(l->db, "postgres", "neargpu"),
        .market_name = "test.local",
        .currency = currency != NULL ? currency : "JPY",
        .issuer_name = "Test K.K.",
        .issuer_registration = "T1234567890123",
        .fee_ppm = 50000,
        .tax_ppm = 100000,
    };
    if (migrate_run(&o, &done, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    l->pg = testdb_connect(l->db, "postgres", "neargpu");
    PQsetNoticeProcessor(l->pg, quiet, NULL);
    testdb_sql(l->pg, helpers);
    testdb_sql(l->pg, "SELECT api.site_create('tokyo', 'Tokyo', 35.68, 139.77, 'jp', "
                      "NULL, 'a', NULL, NULL)");
    testdb_sql(l->pg, "SELECT t.provider('acme', NULL), t.provider('zero', 0)");
}

void ledger_close(struct ledger *l)
{
    PQfinish(l->pg);
    testdb_remove(l->db);
    free(l->billd);
    free(l->source);
}

/* The child; its output goes to out, or nowhere when that is negative. */
static pid_t start(struct ledger *l, int out, const char *const *args)
{
    const char *argv[12] = {l->billd};
    size_t n = 1;
    for (; *args != NULL && n < 9; args++)
        argv[n++] = *args;
    argv[n++] = "--database";
    argv[n++] = testdb_conninfo(l->db, "neargpu_billd", "neargpu");
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (out < 0)
            out = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(out, 1);
        dup2(out, 2);
        execv(l->billd, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

int ledger_billd_start(struct ledger *l, const char *const *args)
{
    return start(l, -1, args);
}

int ledger_billd(struct ledger *l, char **ret, const char *const *args)
{
    struct strbuf text = STRBUF_INIT;
    char buf[4096];
    int fds[2], status;
    ssize_t n;
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = start(l, fds[1], args);
    close(fds[1]);
    while ((n = read(fds[0], buf, sizeof buf)) > 0)
        strbuf_add(&text, buf, (size_t)n);
    close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (ret != NULL)
        *ret = xstrdup(strbuf_str(&text));
    strbuf_done(&text);
    ck_assert_msg(WIFEXITED(status), "neargpu-billd was killed");
    return WEXITSTATUS(status);
}

void ledger_once(struct ledger *l)
{
    char *got;
    int status = LEDGER_BILLD(l, &got, "--once");
    if (status != 0) {
        fprintf(stderr, "%s", got);
        exit(1);
    }
    free(got);
}

void ledger_check(struct ledger *l)
{
    char *got =
        ledger_text(l, "SELECT coalesce(string_agg(name || ' ' || breaches, ', '), '') "
                       "FROM api.check_all() WHERE breaches > 0");
    ck_assert_str_eq(got, "");
    free(got);
    ck_assert_int_eq(
        ledger_int(l, "SELECT coalesce(sum(s), 0) FROM ng.account a, LATERAL (SELECT "
                      "sum(CASE WHEN t.cr = a.id THEN amount_micro ELSE -amount_micro "
                      "END) AS s FROM ng.transfer t WHERE a.id IN (t.dr, t.cr)) x"),
        0);
}
