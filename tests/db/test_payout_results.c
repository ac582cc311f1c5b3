/* On a real database: what a bank's file does to payouts, which of them a line without
 * a number is about, and every reason to refuse the whole file; accounts abroad with
 * known IBANs; administrators who make another, and what gets round it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;

/* The state it is refused with ("": it is not) and what it says. */
static char said[600];
static const char *state_of(const char *sql)
{
    static char state[8];
    PGresult *r = PQexec(l.pg, sql);
    const char *code = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    snprintf(state, sizeof(state), "%s", code != NULL ? code : "");
    snprintf(said, sizeof(said), "%s", PQresultErrorMessage(r));
    PQclear(r);
    return state;
}
#define REFUSED(code, word, ...)                                                   \
    do {                                                                           \
        char *sql_ = xasprintf(__VA_ARGS__);                                       \
        const char *got_ = state_of(sql_);                                         \
        ck_assert_msg(strcmp(got_, code) == 0 && strstr(said, word),               \
                      "%s: '%s' '%s', not %s '%s'", sql_, got_, said, code, word); \
        free(sql_);                                                                \
    } while (0)

static void expect(const char *want, const char *sql)
{
    char *got = ledger_text(&l, "%s", sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\n is %s\n not %s", sql, got, want);
    free(got);
}

/* Payouts 1 to 6 of shops s1.. of the same bank: 1 to 4 sent (3 and 4 of one amount to
 * one account), 5 approved, 6 requested. */
static void plant(void)
{
    ledger_sql(&l, "SELECT t.provider('s' || n, NULL) FROM generate_series(1, 6) n");
    ledger_sql(&l, "SELECT api.provider_bank(id, jsonb_build_object('bank', '0001', "
                   "'branch', '012', 'type', '1', 'number', '000000' || CASE name WHEN "
                   "'s4' THEN '3' ELSE substr(name, 2) END, 'holder', 'A'), NULL) FROM "
                   "ng.provider WHERE name LIKE 's_'");
    ledger_sql(&l, "SELECT ng.post('settle', ng.account_of('provider_pending', NULL, "
                   "id, 'JPY'), ng.account_of('provider_available', NULL, id, 'JPY'), "
                   "'JPY', 1000000000, NULL, 'x/' || name) FROM ng.provider WHERE name "
                   "LIKE 's_' ORDER BY name");
    ledger_sql(&l, "SELECT api.market_set(NULL, NULL, NULL, '{\"bank\": \"0005\", "
                   "\"branch\": \"012\", \"type\": \"1\", \"number\": \"1234567\", "
                   "\"holder\": \"A\", \"client\": \"0123456789\"}', NULL)");
    ledger_sql(&l, "SELECT api.payout_request('s' || n, 1000000 * CASE n WHEN 4 THEN "
                   "300 ELSE 100 * n END, 'a', NULL, NULL, 'one') FROM "
                   "generate_series(1, 6) n");
    ledger_sql(&l, "SELECT api.payout_act(n, 'approve', NULL, NULL, NULL, NULL, 'two') "
                   "FROM generate_series(1, 4) n");
    ledger_sql(&l, "SELECT api.payout_file_new(ng.bank_today()::text, 'a', NULL, "
                   "NULL, 'one')");
    ledger_sql(&l,
               "SELECT api.payout_act(5, 'approve', NULL, NULL, NULL, NULL, 'two')");
    /* t.read(what the bytes are, lines) as CSV; t.zen as Zengin: [payout, number of the
     * account, yen, state]. */
    ledger_sql(&l, "CREATE FUNCTION t.read(name text, lines jsonb) RETURNS jsonb "
                   "LANGUAGE sql AS $$ SELECT api.payout_results('csv', NULL, "
                   "sha256(name::bytea), lines, 'a', NULL, NULL, 'three') $$");
    ledger_sql(
        &l, "CREATE FUNCTION t.zen(name text, lines jsonb, client text DEFAULT "
            "'0123456789') RETURNS jsonb LANGUAGE sql AS $$ SELECT "
            "api.payout_results('zengin', client, sha256(name::bytea), (SELECT "
            "jsonb_agg(jsonb_build_object('line', n + 1, 'payout', e->0, 'bank', "
            "'0001', 'branch', '012', 'type', '1', 'number', e->>1, 'amount_micro', "
            "(e->>2)::bigint * 1000000, 'state', e->>3, 'reason', '') ORDER BY n) FROM "
            "jsonb_array_elements(lines) WITH ORDINALITY AS x(e, n)), 'a', NULL, "
            "NULL, 'three') $$");
}

static const char *const states =
    "SELECT string_agg(state, ' ' ORDER BY id) FROM ng.payout";

START_TEST(whole_or_not_at_all)
{
    plant();
    const char *before = "sent sent sent sent approved requested";
    expect(before, states);
    REFUSED("NG006", "there is no payout 99",
            "SELECT t.zen('a', '[[1,\"0000001\",100,\"done\"], "
            "[99,\"0000002\",200,\"done\"]]')");
    REFUSED("NG006", "was not to this account",
            "SELECT t.zen('a', '[[1,\"0000001\",100,\"done\"], "
            "[2,\"0000001\",200,\"done\"]]')");
    REFUSED("NG006", "payout 2 is 200 JPY, not 150 JPY: it comes back whole",
            "SELECT t.zen('a', '[[1,\"0000001\",100,\"done\"], "
            "[2,\"0000002\",150,\"returned\"]]')");
    REFUSED("NG006", "stands in the file twice",
            "SELECT t.zen('a', '[[1,\"0000001\",100,\"done\"], "
            "[1,\"0000001\",100,\"done\"]]')");
    REFUSED("NG006", "payout 5 is approved: it cannot become done",
            "SELECT t.zen('a', '[[5,\"0000005\",500,\"done\"]]')");
    REFUSED("NG006", "2 payouts of this amount",
            "SELECT t.zen('a', '[[null,\"0000003\",300,\"done\"]]')");
    REFUSED("NG006", "0 payouts of this amount",
            "SELECT t.zen('a', '[[null,\"0000003\",301,\"done\"]]')");
    REFUSED("NG006", "for client 9999999999",
            "SELECT t.zen('a', '[[1,\"0000001\",100,\"done\"]]', '9999999999')");
    REFUSED("NG020", "has not come yet",
            "SELECT t.read('a', '[{\"line\": 2, \"payout\": 1, \"state\": \"done\", "
            "\"on\": \"2999-01-01\"}]')");
    expect(before, states);
    expect("0", "SELECT count(*) FROM ng.payout_result");
    expect("0 0", "SELECT concat_ws(' ', (SELECT count(*) FROM report.check_payout), "
                  "(SELECT count(*) FROM report.check_balance))");
}
END_TEST

START_TEST(a_file_once)
{
    expect("2 1:done:true 2:returned:true",
           "SELECT concat_ws(' ', r->>'changed', (SELECT string_agg(concat_ws(':', "
           "e->>'payout', e->>'state', e->>'changed'), ' ') FROM "
           "jsonb_array_elements(r->'lines') e)) FROM t.zen('first', "
           "'[[1,\"0000001\",100,\"done\"],[null,\"0000002\",200,\"returned\"]]') r");
    expect("done returned sent sent approved requested", states);
    REFUSED("NG006", "by three: nothing in it is done again",
            "SELECT t.zen('first', '[[3,\"0000003\",300,\"done\"]]')");
    expect("done returned sent sent approved requested", states);
    /* The bank says it once more in another file, and takes one back that it paid. */
    expect("1", "SELECT t.zen('second', '[[1,\"0000001\",100,\"returned\"],"
                "[2,\"0000002\",200,\"returned\"]]')->>'changed'");
    expect("returned returned sent sent approved requested", states);
    REFUSED("NG006", "payout 1 is returned: it cannot become done",
            "SELECT t.zen('third', '[[1,\"0000001\",100,\"done\"]]')");
    /* Of two of one amount to one account the numbers tell; then there is one left. */
    ledger_sql(&l, "SELECT t.zen('fourth', '[[4,\"0000003\",300,\"done\"]]')");
    ledger_sql(&l, "SELECT t.zen('fifth', '[[null,\"0000003\",300,\"done\"]]')");
    expect("returned returned done done approved requested", states);
    expect("true false",
           "SELECT string_agg(changed::text, ' ' ORDER BY payout_id) FROM "
           "ng.payout_result_line x JOIN ng.payout_result r ON r.id = "
           "x.result_id WHERE r.sha256 = sha256('second')");
    expect("three", "SELECT DISTINCT ended_by FROM ng.payout WHERE state = 'returned'");
    /* A reply that was lost is given again under its key. */
    expect("t",
           "SELECT api.payout_results('csv', NULL, sha256('k'), '[{\"line\": 2, "
           "\"payout\": 3, \"state\": \"returned\", \"reason\": \"closed\"}]', 'a', "
           "'k1', sha256('q'), 'x')->'lines' = api.payout_results('csv', NULL, "
           "sha256('k'), '[]', 'a', 'k1', sha256('q'), 'x')->'lines'");
    expect("closed", "SELECT reason FROM ng.payout WHERE id = 3");
    ck_assert_str_eq(state_of("UPDATE ng.payout_result_line SET changed = false"),
                     "23001");
    ck_assert_str_eq(state_of("DELETE FROM ng.payout_result"), "23001");
    expect("0 0", "SELECT concat_ws(' ', (SELECT count(*) FROM report.check_payout), "
                  "(SELECT count(*) FROM report.check_balance))");
}
END_TEST

/* Known IBANs of the registry, and what one digit or letter makes of them. */
static const struct {
    const char *iban;
    bool good;
} ibans[] = {
    {"DE89370400440532013000", true},          {"GB29NWBK60161331926819", true},
    {"FR1420041010050500013M02606", true},     {"NO9386011117947", true},
    {"MT84MALT011000012345MTLCAST001S", true}, {"CH9300762011623852957", true},
    {"DE89370400440532013001", false},         {"DE88370400440532013000", false},
    {"ED89370400440532013000", false},         {"GB29NWBK60161331926918", false},
    {"de89370400440532013000", false},         {"DE8937040044053201300", false},
    {"DE89 3704 0044 0532 0130 00", false},    {"", false},
};

START_TEST(iban)
{
    char *sql = xasprintf("SELECT ng.is_iban('%s')", ibans[_i].iban);
    expect(ibans[_i].good ? "t" : "f", sql);
    free(sql);
}
END_TEST

START_TEST(accounts_abroad)
{
    static const struct {
        const char *bank;
        bool good;
    } banks[] = {
        {"{\"holder\": \"Rhein GPU GmbH\", \"iban\": \"DE89370400440532013000\"}",
         true},
        {"{\"holder\": \"R\", \"iban\": \"DE89370400440532013000\", \"bic\": "
         "\"COBADEFFXXX\"}",
         true},
        {"{\"holder\": \"Bay, Inc.\", \"account\": \"021000021/123456\", "
         "\"bank_name\": "
         "\"First Bank\"}",
         true},
        {"{\"holder\": \"Bay\", \"account\": \"123456\"}", false},
        {"{\"holder\": \"Bay\", \"bic\": \"COBADEFF\"}", false},
        {"{\"holder\": \"=1+1\", \"iban\": \"DE89370400440532013000\"}", false},
        {"{\"holder\": \"a\\nb\", \"iban\": \"DE89370400440532013000\"}", false},
        {"{\"holder\": \"R\", \"iban\": \"DE89370400440532013001\"}", false},
        {"{\"holder\": \"R\", \"iban\": \"DE89370400440532013000\", \"bic\": \"X\"}",
         false},
        {"{\"holder\": \"R\", \"iban\": \"DE89370400440532013000\", \"account\": "
         "\"1\"}",
         false},
        {"{\"holder\": \"R\", \"iban\": \"DE89370400440532013000\", \"x\": \"1\"}",
         false},
        {"{\"holder\": 1, \"iban\": \"DE89370400440532013000\"}", false},
        {"[]", false},
    };
    for (size_t i = 0; i < sizeof(banks) / sizeof(banks[0]); i++) {
        char *sql = xasprintf("SELECT ng.is_bank_abroad('%s')", banks[i].bank);
        expect(banks[i].good ? "t" : "f", sql);
        free(sql);
    }
    /* Each market takes its own kind. */
    REFUSED("NG020", "4 digits",
            "SELECT api.provider_bank(id, '%s', NULL) FROM ng.provider LIMIT 1",
            banks[0].bank);
    ledger_sql(&l, "BEGIN; UPDATE ng.market SET currency = 'EUR'");
    ledger_sql(&l,
               "SELECT api.provider_bank(id, '%s', NULL) FROM ng.provider WHERE "
               "name = 's1'",
               banks[0].bank);
    REFUSED("NG020", "DE8 is no IBAN",
            "SAVEPOINT s; SELECT api.provider_bank(id, '{\"holder\": \"R\", \"iban\": "
            "\"DE8\"}', NULL) FROM ng.provider LIMIT 1");
    ledger_sql(&l, "ROLLBACK TO s");
    REFUSED("NG006", "has not said where to",
            "SELECT api.payout_request('s2', NULL, 'a', NULL, NULL, 'one')");
    ledger_sql(&l, "ROLLBACK TO s");
    REFUSED("NG007", "0.00 EUR is available to s1",
            "SELECT api.payout_request('s1', NULL, 'a', NULL, NULL, 'one')");
    ledger_sql(&l, "ROLLBACK");
    REFUSED("NG007", "0 JPY is available to zero",
            "SELECT api.provider_bank(id, '{\"bank\": \"0001\", \"branch\": \"012\", "
            "\"type\": \"1\", \"number\": \"1234567\", \"holder\": \"A\"}', NULL) FROM "
            "ng.provider WHERE name = 'zero'; SELECT api.payout_request('zero', NULL, "
            "'a', NULL, NULL, 'one')");
    expect("1200.50 USD, -0.05 USD, 4000 JPY, 0.000001 JPY, 1.500 KWD",
           "SELECT string_agg(ng.money_text(m, c), ', ' ORDER BY n) FROM (VALUES (1, "
           "1200500000, 'USD'), (2, -50000, 'USD'), (3, 4000000000, 'JPY'), (4, 1, "
           "'JPY'), (5, 1500000, 'KWD')) x(n, m, c)");
}
END_TEST

#define MAKE(name, by) \
    "api.admin_create('" name "', sha256('" name "'), 'a', NULL, NULL, '" by "')"

START_TEST(administrators)
{
    ledger_sql(&l, "INSERT INTO ng.api_key (hash, role, label) VALUES (sha256('f'), "
                   "'admin', 'first')");
    /* The second is made alone, and said so; the third waits. */
    expect("false true", "SELECT concat_ws(' ', r->>'pending', r->>'alone') FROM " MAKE(
                             "bob", "admin") " r");
    expect("true false", "SELECT concat_ws(' ', r->>'pending', r->>'alone') FROM " MAKE(
                             "eve", "admin") " r");
    expect(
        "admin admin pending",
        "SELECT string_agg(role, ' ' ORDER BY name) FROM api.world_keys() WHERE name "
        "IN ('admin', 'bob', 'eve')");
    REFUSED("NG004", "eve was made by you", "SELECT api.admin_approve('eve', 'admin')");
    REFUSED("NG005", "no administrator", "SELECT api.admin_approve('dan', 'admin')");
    /* Nor by hand in the table. */
    ck_assert_str_eq(state_of("UPDATE ng.api_key SET pending = false WHERE label = "
                              "'eve'"),
                     "23514");
    ck_assert_str_eq(state_of("UPDATE ng.api_key SET pending = false, approved_by = "
                              "'admin', approved_at = now() WHERE label = 'eve'"),
                     "23514");
    ck_assert_str_eq(state_of("UPDATE ng.api_key SET pending = false, alone = true "
                              "WHERE label = 'eve'"),
                     "23514");
    ck_assert_str_eq(
        state_of("UPDATE ng.api_key SET made_by = 'bob' WHERE label = 'eve'"), "23514");
    expect("bob", "SELECT api.admin_approve('eve', 'bob')->>'approved_by'");
    expect("bob", "SELECT api.admin_approve('eve', 'admin')->>'approved_by'");
    expect("admin", "SELECT role FROM api.world_keys() WHERE name = 'eve'");
    /* To remove the others does not make one alone within a week. */
    ledger_sql(&l, "SELECT api.admin_remove('eve', 'admin'), "
                   "api.admin_remove('bob', 'admin')");
    expect("true false", "SELECT concat_ws(' ', r->>'pending', r->>'alone') FROM " MAKE(
                             "mal", "admin") " r");
    REFUSED("NG004", "removed this week: remove it, and make it again after",
            "SELECT api.admin_approve('mal', 'admin')");
    expect("0", "SELECT count(*) FROM report.check_admins");
    ledger_sql(&l, "SELECT set_config('session_replication_role', 'replica', false); "
                   "UPDATE ng.api_key SET revoked_at = now() - interval '8 days', "
                   "created_at = now() - interval '9 days', approved_at = "
                   "CASE WHEN approved_at IS NOT NULL THEN now() - interval '9 days' "
                   "END WHERE label IN ('bob', 'eve'); "
                   "SELECT set_config('session_replication_role', 'origin', false)");
    ledger_sql(&l, "SELECT api.admin_remove('mal', 'admin')");
    expect("false true", "SELECT concat_ws(' ', r->>'pending', r->>'alone') FROM " MAKE(
                             "ann", "admin") " r");
    expect("0", "SELECT count(*) FROM report.check_admins");
    /* What the view is for. */
    ledger_sql(&l, "INSERT INTO ng.api_key (hash, role, label, made_by, alone) VALUES "
                   "(sha256('z'), 'admin', 'zed', 'admin', true)");
    expect("zed ann", "SELECT concat_ws(' ', admin, other) FROM report.check_admins");
    ledger_sql(&l, "DELETE FROM ng.api_key WHERE label = 'zed'");
}
END_TEST

/* ---- random files against a naive reading --------------------------------------- */

#define MANY      60
#define PROVIDERS 6 /* r0..r5: two to an account */
static unsigned seed;
static struct naive {
    int account, yen;
    char state; /* sent, done, returned */
} paid[MANY];
static int paid_count, paid_first; /* number of the first in the database, less one */

static int pick(int n)
{
    return (int)(rand_r(&seed) % (unsigned)n);
}

static void send_one(void)
{
    struct naive *p = &paid[paid_count++];
    int provider = pick(PROVIDERS);
    *p = (struct naive){provider / 2, 100 * (1 + pick(2)), 's'};
    ledger_sql(&l, "SELECT api.payout_request('r%d', %d000000, 'a', NULL, NULL, 'one')",
               provider, p->yen);
    ledger_sql(&l,
               "SELECT api.payout_act(%d, 'approve', NULL, NULL, NULL, NULL, 'two')",
               paid_first + paid_count);
    ledger_sql(&l, "SELECT api.payout_file_new(ng.bank_today()::text, 'a', NULL, "
                   "NULL, 'one')");
}

struct line {
    int payout; /* from 0; -1: not said */
    int account, yen;
    char state;
};

static bool may_become(char from, char to)
{
    return from == to || from == 's' || (from == 'd' && to == 'r');
}

/* Of this account, amount and one of these states: which, if it is the only one. */
static int only(const struct naive *all, const struct line *w, const char *of, int *n)
{
    int found = -1;
    *n = 0;
    for (int i = 0; i < paid_count; i++)
        if (all[i].account == w->account && all[i].yen == w->yen &&
            strchr(of, all[i].state) != NULL) {
            found = i;
            ++*n;
        }
    return found;
}

/* Does it to `all` and counts what changed; -1: the file is refused. */
static int naive_read(struct naive *all, const struct line *lines, int count)
{
    bool seen[MANY] = {false};
    int changed = 0;
    for (int k = 0; k < count; k++) {
        const struct line *w = &lines[k];
        int i = w->payout, n = 1;
        if (i < 0) {
            i = only(all, w, w->state == 'd' ? "s" : "sd", &n);
            if (n == 0)
                i = only(all, w, w->state == 'd' ? "d" : "r", &n);
        }
        if (n != 1 || i >= paid_count || seen[i] || all[i].account != w->account ||
            all[i].yen != w->yen || !may_become(all[i].state, w->state))
            return -1;
        seen[i] = true;
        changed += all[i].state != w->state;
        all[i].state = w->state;
    }
    return changed;
}

/* A line that is mostly true. */
static struct line a_line(void)
{
    int i = pick(paid_count + (pick(20) == 0));
    struct line w = {i, paid[i % MANY].account, paid[i % MANY].yen,
                     pick(2) ? 'd' : 'r'};
    if (pick(3) == 0)
        w.payout = -1;
    if (pick(12) == 0)
        w.account = pick(3);
    if (pick(12) == 0)
        w.yen = 100 * (1 + pick(2));
    return w;
}

/* The same in SQL; refused or done as the naive reader says. */
static bool read_both(int step)
{
    struct line lines[3];
    struct naive after[MANY];
    char text[400] = "";
    int count = 1 + pick(3);
    for (int k = 0; k < count; k++) {
        const struct line *w = &lines[k];
        char number[16] = "null";
        lines[k] = a_line();
        if (w->payout >= 0)
            snprintf(number, sizeof(number), "%d", paid_first + 1 + w->payout);
        size_t len = strlen(text);
        snprintf(text + len, sizeof(text) - len, "%s[%s,\"000000%d\",%d,\"%s\"]",
                 k > 0 ? "," : "", number, w->account, w->yen,
                 w->state == 'd' ? "done" : "returned");
    }
    memcpy(after, paid, sizeof(after));
    int changed = naive_read(after, lines, count);
    char *sql = xasprintf("SELECT t.zen('random %d', '[%s]')->>'changed'", step, text);
    if (changed < 0) {
        ck_assert_msg(strcmp(state_of(sql), "NG006") == 0, "%s is not refused", sql);
    } else {
        char *got = ledger_text(&l, "%s", sql);
        ck_assert_msg(strtol(got, NULL, 10) == changed, "%s is %s, not %d", sql, got,
                      changed);
        free(got);
        memcpy(paid, after, sizeof(after));
    }
    free(sql);
    return changed >= 0;
}

START_TEST(random_files)
{
    int well = 0, steps = 250;
    ledger_sql(&l, "SELECT t.provider('r' || n, NULL) FROM generate_series(0, 5) n");
    ledger_sql(&l, "SELECT api.provider_bank(id, jsonb_build_object('bank', '0001', "
                   "'branch', '012', 'type', '1', 'number', '000000' || right(name, "
                   "1)::integer / 2, 'holder', 'A'), NULL), ng.post('settle', "
                   "ng.account_of('provider_pending', NULL, id, 'JPY'), "
                   "ng.account_of('provider_available', NULL, id, 'JPY'), 'JPY', "
                   "100000000000, NULL, 'x/' || name) FROM ng.provider WHERE name LIKE "
                   "'r_'");
    /* Nothing of before is of these accounts, and nothing waits to be sent. */
    ledger_sql(&l, "SELECT api.payout_act(id, 'reject', 'x', NULL, NULL, NULL, 'a') "
                   "FROM ng.payout WHERE state IN ('requested', 'approved')");
    ledger_sql(&l, "SELECT api.payout_act(id, 'returned', 'x', NULL, NULL, NULL, 'a') "
                   "FROM ng.payout WHERE state IN ('sent', 'done')");
    ledger_sql(&l,
               "SET session_replication_role = replica; UPDATE ng.payout SET bank = "
               "bank || '{\"branch\": \"999\"}'; SET session_replication_role = "
               "origin");
    paid_first = (int)ledger_int(&l, "SELECT max(id) FROM ng.payout");
    for (int step = 0; step < steps; step++) {
        if (paid_count == 0 || (pick(4) == 0 && paid_count < MANY))
            send_one();
        well += read_both(step);
        char *got =
            ledger_text(&l,
                        "SELECT string_agg(left(state, 1), '' ORDER BY id) FROM "
                        "ng.payout WHERE id > %d",
                        paid_first);
        for (int i = 0; i < paid_count; i++)
            ck_assert_msg(got[i] == paid[i].state, "step %d: payout %d is %c, not %c",
                          step, paid_first + 1 + i, got[i], paid[i].state);
        free(got);
    }
    printf("%d of %d files were done, %d payouts\n", well, steps, paid_count);
    ck_assert_int_gt(well, 20);
    ck_assert_int_lt(well, steps - 20);
    expect("0 0", "SELECT concat_ws(' ', (SELECT count(*) FROM report.check_payout), "
                  "(SELECT count(*) FROM report.check_balance))");
}
END_TEST

int main(int argc, char **argv)
{
    setenv("CK_FORK", "no", 1);
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    printf("seed %u\n", seed);
    fflush(stdout);
    ledger_open(&l, NULL);
    Suite *suite = suite_create("payout_results");
    TCase *tc = tcase_create("payout_results");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, whole_or_not_at_all);
    tcase_add_test(tc, a_file_once);
    tcase_add_test(tc, random_files);
    tcase_add_loop_test(tc, iban, 0, (int)(sizeof(ibans) / sizeof(ibans[0])));
    tcase_add_test(tc, accounts_abroad);
    tcase_add_test(tc, administrators);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
