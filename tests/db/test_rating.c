/* rating: api.billing_post_batch does what one post after the other does, whatever is
 * in the batch: several nodes that share a hold too small for them, teardowns in the
 * middle, receipts twice, holes, amounts that are wrong. Seed: argument or the clock,
 * printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;
static unsigned seed;

/* t.try(batch, how) posts and says what stands after it, all undone again. In a batch
 * one by one, a chain stops at its first refusal, as the batch says it does. */
static const char helpers[] =
    "CREATE TYPE t.row AS (resv uuid, node int, seq int, ms bigint, amount bigint, fee "
    "bigint);"
    "CREATE FUNCTION t.singly(b t.row[]) RETURNS text[] LANGUAGE plpgsql AS $$"
    " DECLARE x t.row; o text; r text[] := '{}'; stopped text[] := '{}'; BEGIN"
    "  FOREACH x IN ARRAY b LOOP"
    "   IF x.seq <= (SELECT max(m.seq) FROM ng.meter m WHERE m.reservation_id = x.resv "
    "       AND m.node_id = x.node) THEN o := 'again';"
    "   ELSIF x.resv || '/' || x.node = ANY (stopped) THEN o := 'no';"
    "   ELSE BEGIN o := api.billing_post(x.resv, x.node, x.seq, x.ms, x.amount, x.fee);"
    "     EXCEPTION WHEN SQLSTATE 'NG005' OR SQLSTATE 'NG006' THEN o := 'no'; END; END "
    "IF;"
    "   IF o IN ('gap', 'no') THEN stopped := stopped || (x.resv || '/' || x.node); o "
    ":= 'no'; END IF;"
    "   r := r || o; END LOOP; RETURN r; END $$;"
    "CREATE FUNCTION t.state() RETURNS text LANGUAGE sql AS $$ SELECT concat_ws(E'\\n',"
    " (SELECT string_agg(concat_ws(' ', reservation_id, node_id, seq, gpu_ms, "
    "amount_micro, fee_micro, closed), E'\\n' ORDER BY reservation_id, node_id)"
    "    FROM ng.meter WHERE seq > 0),"
    " (SELECT string_agg(concat_ws(' ', kind, ng.account_name(dr), "
    "ng.account_name(cr), "
    "sum, ref), E'\\n' ORDER BY kind, ref) FROM (SELECT kind, dr, cr, "
    "sum(amount_micro), "
    "regexp_replace(ref, '/[0-9]+$', '') ref FROM ng.transfer GROUP BY 1, 2, 3, 5) x),"
    " (SELECT string_agg(concat_ws(' ', ng.account_name(id), balance_micro), E'\\n' "
    "ORDER BY id) FROM "
    "ng.account WHERE guarded),"
    " (SELECT string_agg(concat_ws(' ', id, captured_micro), E'\\n' ORDER BY id) FROM "
    "ng.reservation),"
    " (SELECT string_agg(concat_ws(' ', reservation_id, node_id, r.seq), E'\\n' ORDER "
    "BY reservation_id, node_id, r.seq) FROM ng.receipt r JOIN ng.meter m USING "
    "(reservation_id, node_id) WHERE r.seq <= m.seq),"
    " (SELECT string_agg(concat_ws(' ', reservation_id, node_id, seq), E'\\n' ORDER BY "
    "reservation_id, node_id) FROM ng.receipt_due)) $$;"
    "CREATE FUNCTION t.try(b t.row[], whole boolean) RETURNS text LANGUAGE plpgsql AS "
    "$$"
    " DECLARE o text[]; s text; BEGIN BEGIN"
    "  IF whole THEN o := api.billing_post_batch(ARRAY(SELECT resv FROM unnest(b)), "
    "ARRAY(SELECT node FROM unnest(b)), ARRAY(SELECT seq FROM unnest(b)),"
    "     ARRAY(SELECT ms FROM unnest(b)), ARRAY(SELECT amount FROM unnest(b)), "
    "ARRAY(SELECT fee FROM unnest(b)));"
    "   o := ARRAY(SELECT CASE WHEN x IN ('posted', 'again') THEN x ELSE 'no' END FROM "
    "unnest(o) WITH ORDINALITY y(x, n) ORDER BY n);"
    "  ELSE o := t.singly(b); END IF;"
    "  s := array_to_string(o, ' ') || E'\\n' || t.state(); RAISE SQLSTATE 'TTTTT'; "
    " EXCEPTION WHEN SQLSTATE 'TTTTT' THEN NULL; END; RETURN s; END $$;"
    /* What rating would post, some of it twice, left out, or wrong; in chains' order.
     */
    "CREATE FUNCTION t.batch(wild float8) RETURNS t.row[] LANGUAGE sql AS $$"
    " SELECT array_agg((resv, node, seq, ms, amount + (random() < wild / 4)::int, "
    "fee)::t.row ORDER BY n, twice) FROM ("
    "  SELECT c.reservation_id resv, c.node_id node, c.seq, c.gpu_ms ms, w.a amount, "
    "ng.money_mul(w.a, c.fee_ppm, 1000000) fee, c.n"
    "   FROM (SELECT x.*, row_number() OVER () n FROM api.billing_claim(1000) x) c, "
    "   LATERAL (SELECT ng.money_mul(least(c.gpu_ms, c.max_gpu_ms), "
    "c.per_gpu_hour_micro, 3600000) a) w WHERE random() >= wild / 8) y,"
    " LATERAL generate_series(1, 1 + (random() < wild / 4)::int) twice $$;";

/* Three reservations of one or two nodes, their receipts, and holds that may not reach.
 */
static void plant(int round)
{
    for (int i = 0; i < 3; i++) {
        int nodes = 1 + rand_r(&seed) % 2;
        char *id = xasprintf("00000000-0000-7000-8000-%06d%06d", round, i);
        ledger_sql(&l,
                   "SELECT t.book('%s', 'rich', now() - interval '1 h', now() + "
                   "interval '1 h', (ARRAY[1,2])[:%d], (ARRAY[%d,%d])[:%d], "
                   "(ARRAY[1,1])[:%d], %d)",
                   id, nodes, i, i, nodes, nodes, 1 + rand_r(&seed) % 5000000);
        for (int node = 1; node <= nodes; node++) {
            int64_t ms = 0;
            int count = 1 + rand_r(&seed) % 5;
            for (int seq = 1; seq <= count; seq++) {
                const char *kind = seq == 1                 ? "ready"
                                   : rand_r(&seed) % 8 == 0 ? "teardown"
                                                            : "interval";
                ms += seq == 1 ? 0 : rand_r(&seed) % 900000;
                ledger_sql(&l, "SELECT t.receipt('%s', %d, %d, '%s', %lld)", id, node,
                           seq, kind, (long long)ms);
            }
        }
        if (rand_r(&seed) % 2)
            ledger_sql(&l,
                       "UPDATE ng.reservation SET released_micro = held_micro - %d "
                       "WHERE id = '%s' AND held_micro > 400000",
                       rand_r(&seed) % 400000, id);
        free(id);
    }
}

START_TEST(a_batch_is_one_by_one)
{
    int posted = 0;
    ledger_sql(&l, "SELECT t.node('a', 'tokyo', 'acme', 60), t.node('b', 'tokyo', "
                   "'zero', 60), t.tenant('rich', 'Asia/Tokyo', 1000000000000)");
    testdb_sql(l.pg, helpers);
    for (int round = 0; round < 60; round++) {
        testdb_sql(l.pg, "BEGIN");
        plant(round);
        ledger_sql(&l, "SELECT setseed(%f)", (double)(rand_r(&seed) % 1000) / 1000);
        ledger_sql(&l, "CREATE TABLE t.b AS SELECT t.batch(%f) AS b",
                   round % 3 == 0 ? 0.0 : 0.6);
        char *whole = ledger_text(&l, "SELECT t.try(b, true) FROM t.b");
        char *singly = ledger_text(&l, "SELECT t.try(b, false) FROM t.b");
        posted += strstr(whole, "posted") != NULL;
        bool same = strcmp(whole, singly) == 0;
        if (!same)
            fprintf(stderr, "round %d\n--- batch\n%s\n--- one by one\n%s\n", round,
                    whole, singly);
        free(whole);
        free(singly);
        ck_assert(same);
        testdb_sql(l.pg, "ROLLBACK");
    }
    ck_assert_int_gt(posted, 30);
}
END_TEST

int main(int argc, char **argv)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    printf("seed %u\n", seed);
    ledger_open(&l, NULL);
    Suite *suite = suite_create("rating");
    TCase *tc = tcase_create("rating");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_batch_is_one_by_one);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
