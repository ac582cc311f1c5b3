/* Random histories of the ledger against a naive one kept here: reservations, receipts
 * in any slicing, repeated and out of order, cancellations, failures, top-ups,
 * chargebacks, invoices, and neargpu-billd killed (SIGKILL) somewhere in its work
 * before each whole round. After every step each account is equal to the micro-unit.
 * model_ledger [SEED [STEPS]]. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

#define TENANTS 3
#define NODES   3
#define RESVS   120
#define FEE     50000
#define TAX     100000

enum when { PAST, RUNNING, FUTURE };
struct chain { /* one node of a reservation */
    int node;  /* 0: none */
    int64_t max_ms, amount, fee, sent_ms;
    int seq;
    bool closed, torn; /* rated teardown; sent teardown */
    int64_t pending[64];
    bool pending_last[64];
    int pending_count;
};
struct resv {
    int tenant;
    enum when when;
    bool over, empty; /* empty: nothing could have begun */
    int64_t price, held, captured, released, invoiced;
    struct chain chain[2];
};
static struct {
    int64_t wallet[TENANTS], hold[TENANTS], receivable[TENANTS], last_topup[TENANTS];
    int64_t pending[2], fee, tax, rounding, bank;
    struct resv resv[RESVS];
    int resv_count, gpu[NODES + 1];
} m;
static struct ledger l;
static unsigned seed;
static int64_t minor = 1000000;
static bool no_grace;
static char conf_dir[] = "/tmp/ngmodel.XXXXXX", *conf;
static long done[8];

static int pick(int n)
{
    return (int)(rand_r(&seed) % (unsigned)n);
}

/* Round half away from zero, for what is never negative, the way a child would. */
static int64_t round_div(__int128 a, __int128 b)
{
    __int128 q = a / b;
    return (int64_t)(a - q * b >= b - (a - q * b) ? q + 1 : q);
}

static char *resv_id(int i)
{
    return xasprintf("00000000-0000-7000-8000-%012d", i);
}

/* Nodes 1 and 2 are acme's, 3 is zero's. */
static int provider(int node)
{
    return node == 3;
}

/* What a tenant owes is taken from what it has. */
static void collect(int t)
{
    int64_t some = m.receivable[t] < m.wallet[t] ? m.receivable[t] : m.wallet[t];
    m.wallet[t] -= some;
    m.receivable[t] -= some;
    done[6] += some > 0;
}

static void top_up(void)
{
    int t = pick(TENANTS);
    int64_t amount = 1 + pick(40000000);
    ledger_sql(&l,
               "SELECT api.topup('t%d', %" PRId64 ", ng.currency(), NULL, 'a', NULL, "
               "NULL)",
               t, amount);
    m.wallet[t] += amount;
    m.bank -= amount;
    m.last_topup[t] = amount;
    collect(t);
}

/* The bank takes a tenant's last top-up back: what the wallet lacks becomes a debt. */
static void charge_back(void)
{
    int t = pick(TENANTS);
    int64_t amount = m.last_topup[t];
    if (amount == 0)
        return;
    char *id = ledger_text(&l,
                           "SELECT max(x.id) FROM ng.transfer x JOIN ng.account a ON "
                           "a.id = x.cr JOIN ng.tenant t ON t.id = a.tenant_id WHERE "
                           "x.kind = 'topup' AND t.name = 't%d'",
                           t);
    int status = LEDGER_BILLD(&l, NULL, "chargeback", "--topup", id, "--reason", "x");
    ck_assert(status == 0);
    free(id);
    m.last_topup[t] = 0;
    m.bank += amount;
    int64_t some = amount < m.wallet[t] ? amount : m.wallet[t];
    m.wallet[t] -= some;
    m.receivable[t] += amount - some;
}

static void add_booking(struct resv *r, int node, int gpus, int64_t length_ms)
{
    struct chain *c = &r->chain[r->chain[0].node != 0 && r->chain[0].node != node];
    c->node = node;
    c->max_ms += gpus * length_ms;
    r->held += round_div((__int128)gpus * length_ms * r->price, 3600000);
}

static void book(void)
{
    if (m.resv_count == RESVS)
        return;
    int i = m.resv_count, nodes[2] = {1 + pick(NODES), 1 + pick(NODES)}, first[2] = {0},
        gpus[2] = {0}, n = 1 + pick(2);
    struct resv r = {
        .tenant = pick(TENANTS), .when = (enum when)pick(3), .price = pick(3000000)};
    int64_t length_ms = r.when == RUNNING ? 90000000 : 1 + pick(7000000);
    for (int k = 0; k < n; k++) {
        gpus[k] = 1 + pick(2);
        /* Those that run each have GPUs of their own; the others their own time. */
        first[k] = r.when == RUNNING ? m.gpu[nodes[k]] : 58 + 2 * k;
        if (r.when == RUNNING && (m.gpu[nodes[k]] += gpus[k]) > 58)
            return;
        add_booking(&r, nodes[k], gpus[k], length_ms);
    }
    const char *start = r.when == PAST      ? "- interval '200 days'"
                        : r.when == RUNNING ? "- interval '1 h'"
                                            : "+ interval '10 days'";
    char *id = resv_id(i);
    char *got =
        ledger_text(&l,
                    "SELECT t.book('%s', 't%d', s, s + %" PRId64
                    " * interval '1 ms', (ARRAY[%d,%d])[:%d], (ARRAY[%d,%d])[:%d], "
                    "(ARRAY[%d,%d])[:%d], %" PRId64 ") FROM (SELECT now() %s "
                    "+ %d * interval '2 h' AS s) x",
                    id, r.tenant, length_ms, nodes[0], nodes[1], n, first[0], first[1],
                    n, gpus[0], gpus[1], n, r.price, start, r.when == RUNNING ? 0 : i);
    free(id);
    bool can = r.held <= m.wallet[r.tenant];
    if (strcmp(got, can ? "ok" : "funds") != 0) {
        fprintf(stderr, "seed %u: booking is %s\n", seed, got);
        exit(1);
    }
    free(got);
    if (!can)
        return;
    m.wallet[r.tenant] -= r.held;
    m.hold[r.tenant] += r.held;
    m.resv[m.resv_count++] = r;
    done[0]++;
}

/* What the last receipt of a reservation's every node means for its state. */
static void maybe_over(struct resv *r)
{
    for (int k = 0; k < 2; k++)
        if (r->chain[k].node != 0 && !r->chain[k].torn)
            return;
    r->over = true;
}

static void receipt(void)
{
    if (m.resv_count == 0)
        return;
    int i = 0;
    struct resv *r = NULL;
    struct chain *c = NULL;
    for (int tries = 0; tries < 10; tries++) {
        i = pick(m.resv_count);
        r = &m.resv[i];
        c = &r->chain[r->chain[1].node != 0 && pick(2)];
        if (r->when != FUTURE && !c->torn)
            break;
    }
    if (r->when == FUTURE || c->torn || c->pending_count == 64)
        return;
    /* Those that run have run for an hour: of 25, which is never more than is sent. */
    int64_t most = r->when == RUNNING ? c->max_ms / 25 - c->sent_ms : c->max_ms;
    if (most < 0)
        most = 0;
    int seq = c->seq + 1, trick = pick(10);
    const char *kind = c->seq == 0 ? "ready" : pick(9) == 0 ? "teardown" : "interval";
    int64_t ms = c->seq == 0 ? 0 : c->sent_ms + pick((int)(most / (1 + pick(9)) + 2));
    char *id = resv_id(i), *got;
    if (trick == 0) {
        got = ledger_text(&l, "SELECT t.receipt('%s', %d, %d, '%s', %" PRId64 ")", id,
                          c->node, seq + 1, kind, ms);
        ck_assert(strcmp(got, "gap") == 0);
        free(got);
    }
    for (int again = 0; again < (trick == 1 ? 2 : 1); again++) {
        got = ledger_text(&l, "SELECT t.receipt('%s', %d, %d, '%s', %" PRId64 ")", id,
                          c->node, seq, kind, ms);
        ck_assert(got[0] == '\0');
        free(got);
    }
    free(id);
    c->seq = seq;
    c->sent_ms = ms;
    c->torn = kind[0] == 't';
    c->pending[c->pending_count] = ms;
    c->pending_last[c->pending_count++] = c->torn;
    if (c->torn && !r->over)
        maybe_over(r);
    done[1]++;
}

static void stop(void)
{
    if (m.resv_count == 0)
        return;
    int i = pick(m.resv_count);
    struct resv *r = &m.resv[i];
    bool fail = pick(2);
    if (r->over)
        return;
    char *id = resv_id(i);
    if (fail)
        ledger_sql(&l, "SELECT api.resv_fail('%s', 'x', 0, ng.us(now()))", id);
    else
        ledger_sql(&l, "SELECT api.resv_cancel(NULL, '%s', 'x', false, ng.us(now()))",
                   id);
    free(id);
    r->over = true;
    r->empty = r->when == FUTURE;
    if (r->when == FUTURE) {
        m.hold[r->tenant] -= r->held;
        m.wallet[r->tenant] += r->held;
        r->released = r->held;
    }
    done[2]++;
}

/* ---- what billd does, naively --------------------------------------------------- */

static void rate_chain(struct resv *r, struct chain *c)
{
    for (int i = 0; i < c->pending_count; i++) {
        int64_t ms = c->pending[i] < c->max_ms ? c->pending[i] : c->max_ms;
        int64_t more = round_div((__int128)ms * r->price, 3600000) - c->amount;
        int64_t rest = r->held - r->captured - r->released;
        if (more > rest)
            more = rest;
        int64_t fee =
            round_div((__int128)(c->amount + more) * (provider(c->node) ? 0 : FEE),
                      1000000) -
            c->fee;
        c->amount += more;
        c->fee += fee;
        r->captured += more;
        m.hold[r->tenant] -= more;
        m.pending[provider(c->node)] += more - fee;
        m.fee += fee;
        c->closed = c->pending_last[i];
    }
    c->pending_count = 0;
}

static void rate(void)
{
    for (int i = 0; i < m.resv_count; i++)
        for (int k = 0; k < 2; k++)
            rate_chain(&m.resv[i], &m.resv[i].chain[k]);
}

static void release(void)
{
    for (int i = 0; i < m.resv_count; i++) {
        struct resv *r = &m.resv[i];
        bool closed =
            r->chain[0].closed && (r->chain[1].node == 0 || r->chain[1].closed);
        int64_t rest = r->held - r->captured - r->released;
        /* PAST ended months ago, so that any grace has passed. */
        if (!r->over || !(closed || r->empty || r->when == PAST || no_grace))
            continue;
        r->released += rest;
        m.hold[r->tenant] -= rest;
        m.wallet[r->tenant] += rest;
    }
}

static void charge(int t, int64_t amount, int64_t *to)
{
    int64_t paid = amount < m.wallet[t] ? amount : m.wallet[t];
    m.wallet[t] -= paid;
    m.receivable[t] += amount - paid;
    *to += amount;
}

/* Does not return before the killed process's last statement has ended. */
static void kill_some(void)
{
    for (int n = pick(3); n > 0; n--) {
        pid_t pid = ledger_billd_start(
            &l, (const char *const[]){"--conf", conf, "--interval", "100ms", NULL});
        nanosleep(&(struct timespec){.tv_nsec = 1000000 * (5 + pick(60))}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while (ledger_int(&l, "SELECT count(*) FROM pg_stat_activity WHERE usename = "
                              "'neargpu_billd'") > 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        done[3]++;
    }
}

static void billd_round(void)
{
    kill_some();
    int status = LEDGER_BILLD(&l, NULL, "--conf", conf, "--once");
    ck_assert(status == 0);
    rate();
    release();
    for (int t = 0; t < TENANTS; t++)
        collect(t);
    done[4]++;
}

static void invoice(void)
{
    int t = pick(TENANTS);
    int64_t sum = 0, dummy = 0;
    int lines = 0;
    char name[8], *got;
    rate();
    for (int i = 0; i < m.resv_count; i++) {
        struct resv *r = &m.resv[i];
        if (r->tenant != t || r->captured == r->invoiced)
            continue;
        sum += r->captured - r->invoiced;
        r->invoiced = r->captured;
        lines++;
    }
    snprintf(name, sizeof name, "t%d", t);
    int status = LEDGER_BILLD(&l, &got, "invoice", "--tenant", name, "--until", "now");
    if (status != 0 || (lines == 0) != (strncmp(got, "nothing", 7) == 0)) {
        fprintf(stderr, "invoice of %d lines: %s", lines, got);
        exit(1);
    }
    free(got);
    if (lines == 0)
        return;
    int64_t net = round_div(sum, minor) * minor;
    charge(t, round_div((__int128)net * TAX, (__int128)1000000 * minor) * minor,
           &m.tax);
    if (net > sum)
        charge(t, net - sum, &dummy);
    else
        m.wallet[t] += sum - net;
    m.rounding += net - sum;
    done[5]++;
}

/* ---- comparison -------------------------------------------------------------------
 */

static void compare(int step)
{
    struct strbuf want = STRBUF_INIT;
    for (int t = 0; t < TENANTS; t++)
        strbuf_addf(&want, "%" PRId64 " %" PRId64 " %" PRId64 "\n", m.wallet[t],
                    m.hold[t], -m.receivable[t]);
    strbuf_addf(&want,
                "%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64,
                m.pending[0], m.pending[1], m.fee, m.tax, m.rounding, m.bank);
    char *got = ledger_text(
        &l,
        "SELECT string_agg(concat_ws(' ', t.balance('wallet', id), t.balance('hold', "
        "id),"
        " t.balance('receivable', id)), E'\\n' ORDER BY name) || E'\\n' || (SELECT "
        "string_agg(t.balance('provider_pending', id)::text, ' ' ORDER BY name) FROM "
        "ng.provider) || (SELECT string_agg(' ' || t.balance(k, NULL), '' ORDER BY n) "
        "FROM unnest(ARRAY['fee', 'tax_output', 'rounding', 'bank']) WITH ORDINALITY "
        "x(k,"
        " n)) FROM ng.tenant");
    if (strcmp(got, strbuf_str(&want)) != 0) {
        fprintf(stderr, "step %d: the ledger has\n%s\nand should have\n%s\n", step, got,
                strbuf_str(&want));
        exit(1);
    }
    free(got);
    strbuf_done(&want);
}

static void compare_reservations(void)
{
    for (int i = 0; i < m.resv_count; i++) {
        const struct resv *r = &m.resv[i];
        char *id = resv_id(i), want[100];
        snprintf(want, sizeof want, "%" PRId64 " %" PRId64 " %" PRId64, r->held,
                 r->captured, r->released);
        char *got = ledger_text(&l,
                                "SELECT concat_ws(' ', held_micro, captured_micro, "
                                "released_micro) FROM ng.reservation WHERE id = '%s'",
                                id);
        if (strcmp(got, want) != 0) {
            fprintf(stderr, "reservation %s is %s, not %s\n", id, got, want);
            exit(1);
        }
        free(got);
        free(id);
    }
}

START_TEST(histories)
{
    const char *steps_text = getenv("MODEL_STEPS");
    int steps = steps_text != NULL ? (int)strtol(steps_text, NULL, 10) : 600;
    for (int step = 0; step < steps; step++) {
        int what = pick(100);
        if (what < 8)
            top_up();
        else if (what < 10)
            charge_back();
        else if (what < 30)
            book();
        else if (what < 85)
            receipt();
        else if (what < 91)
            stop();
        else if (what < 97)
            billd_round();
        else
            invoice();
        compare(step);
        if (step % 50 == 0)
            compare_reservations();
    }
    billd_round();
    compare(steps);
    compare_reservations();
    ledger_check(&l);
}
END_TEST

static void at_exit(void)
{
    struct err err;
    if (fsx_remove_tree(conf_dir, &err) != 0)
        fprintf(stderr, "%s\n", err.text);
}

int main(int argc, char **argv)
{
    struct err err;
    setenv("CK_FORK", "no", 1);
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    if (argc > 2)
        setenv("MODEL_STEPS", argv[2], 1);
    bool cents = seed % 2;
    no_grace = seed % 4 > 1;
    if (cents)
        minor = 10000;
    printf("seed %u: %s, %s\n", seed, cents ? "USD" : "JPY",
           no_grace ? "no grace" : "grace of an hour");
    fflush(stdout);
    ledger_open(&l, cents ? "USD" : "JPY");
    if (mkdtemp(conf_dir) == NULL)
        exit(1);
    atexit(at_exit);
    conf = xasprintf("%s/billd.conf", conf_dir);
    const char *text = no_grace ? "release_grace = 0s\n" : "release_grace = 1h\n";
    if (fsx_write(conf, text, strlen(text), 0600, &err) != 0)
        exit(1);
    testdb_sql(l.pg,
               "SELECT t.tenant('t' || n, 'Asia/Tokyo', 0) FROM generate_series(0, "
               "2) n; SELECT t.node('n' || n, 'tokyo', CASE n WHEN 3 THEN 'zero' "
               "ELSE 'acme' END, 62) FROM generate_series(1, 3) n");
    Suite *suite = suite_create("model_ledger");
    TCase *tc = tcase_create("model_ledger");
    tcase_add_test(tc, histories);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    printf("%ld bookings, %ld receipts, %ld stopped, %ld kills, %ld rounds, %ld "
           "invoices, %ld debts taken\n",
           done[0], done[1], done[2], done[3], done[4], done[5], done[6]);
    ledger_close(&l);
    free(conf);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
