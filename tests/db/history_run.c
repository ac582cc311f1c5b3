/* history_run: see the header. */
#include "tests/db/history_run.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define COMPARE_EVERY 5

static struct run x;
static char dir[] = "/tmp/nghistory.XXXXXX";
static volatile int64_t *clock_us;

int run_pick(struct run *r, int n)
{
    return (int)(rand_r(&r->seed) % (unsigned)n);
}

const char *run_resv_id(int resv)
{
    static char id[40];
    snprintf(id, sizeof(id), "00000000-0000-7000-8000-%012d", resv);
    return id;
}

void run_expect(struct run *r, const char *state, const char *fmt, ...)
{
    char *sql;
    va_list ap;
    va_start(ap, fmt);
    ck_assert_int_ge(vasprintf(&sql, fmt, ap), 0);
    va_end(ap);
    PGresult *res = PQexec(r->l.pg, sql);
    const char *got = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    ck_assert_msg(strcmp(got != NULL ? got : "00000", state) == 0, "%s\nis not %s: %s",
                  sql, state, PQresultErrorMessage(res));
    PQclear(res);
    free(sql);
}

/* ---- time ----------------------------------------------------------------------- */

static void set_clock(int64_t now)
{
    x.h.now = now;
    *clock_us = now;
}

static void pass_time(struct run *r)
{
    struct history *h = &r->h;
    int how = run_pick(r, 40);
    int64_t to = h->now + (1 + run_pick(r, 5400)) * SEC_US;
    if (how == 0) /* to the first instant of a month, and just around it */
        to = h_month(h->zone[run_pick(r, H_TENANTS)], h->now, 1) +
             1000 * (run_pick(r, 3) - 1);
    else if (how < 3)
        to = h->now + run_pick(r, 3 * 86400) * SEC_US;
    else if (how < 12)
        to = h->now + INT64_C(1000) * run_pick(r, 2000);
    if (to < h->now)
        return;
    set_clock(to);
    run_expect(r, "00000", "SELECT api.transitions(%" PRId64 ", 60000000)", h->now);
    h_transitions(h, 60 * SEC_US);
}

/* ---- billing -------------------------------------------------------------------- */

/* Does not return before the killed process's last statement has ended. */
static void kill_some(struct run *r)
{
    for (int n = run_pick(r, 6) - 3; n > 0; n--) {
        pid_t pid = ledger_billd_start(
            &r->l,
            (const char *const[]){"--conf", r->conf, "--interval", "100ms", NULL});
        nanosleep(&(struct timespec){.tv_nsec = 1000000 * (5 + run_pick(r, 60))}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while (ledger_int(&r->l,
                          "SELECT count(*) FROM pg_stat_activity WHERE usename = "
                          "'neargpu_billd'") > 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        r->kills++;
    }
}

static void check_views(struct run *r)
{
    char *got =
        ledger_text(&r->l,
                    "SELECT coalesce(string_agg(name || ' ' || breaches, ', '), "
                    "'') FROM api.check_all() WHERE breaches <> CASE name WHEN "
                    "'check_receipt_fork' THEN %d WHEN 'check_amount' THEN %d "
                    "ELSE 0 END",
                    r->forks, h_lies(&r->h));
    if (got[0] != '\0') {
        char *rows =
            ledger_text(&r->l, "SELECT string_agg(x::text, E'\\n') FROM report.%.*s x",
                        (int)strcspn(got, " "), got);
        ck_abort_msg("not empty: %s\n%s", got, rows);
    }
    free(got);
}

static void bill(struct run *r)
{
    char *got;
    kill_some(r);
    int status = LEDGER_BILLD(&r->l, &got, "--conf", r->conf, "--once");
    ck_assert_msg(status == 0, "%s", got);
    free(got);
    h_bill(&r->h);
    if (r->rounds++ % 2 == 0)
        check_views(r);
}

static void invoice(struct run *r)
{
    struct history *h = &r->h;
    int t = run_pick(r, H_TENANTS);
    int64_t until = h->now - (run_pick(r, 2) ? 0 : run_pick(r, 86400) * SEC_US);
    char tenant[8], when[40], *got;
    time_t s = (time_t)(until / SEC_US);
    struct tm tm;
    size_t n = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &tm));
    snprintf(when + n, sizeof(when) - n, ".%06dZ", (int)(until % SEC_US));
    snprintf(tenant, sizeof(tenant), "t%d", t);
    int status = LEDGER_BILLD(&r->l, &got, "--conf", r->conf, "invoice", "--tenant",
                              tenant, "--until", when);
    h_rate(h);
    bool spans = h_tax_change(h, t) < until, any = !spans && h_invoice(h, t, until);
    ck_assert_msg(status == (spans ? 6 : 0) &&
                      (spans || any == (strncmp(got, "nothing", 7) != 0)),
                  "invoice of %s until %s: %s", tenant, when, got);
    free(got);
}

static struct run_event general[] = {
    {"time passed", 34, pass_time, 0},
    {"rounds of billing", 6, bill, 0},
    {"invoices", 4, invoice, 0},
    {NULL, 0, NULL, 0},
};

/* ---- comparison ----------------------------------------------------------------- */

static void compare(int step)
{
    struct strbuf want = STRBUF_INIT;
    h_print(&x.h, &want);
    char *got = ledger_text(
        &x.l,
        "SELECT coalesce(string_agg(concat_ws(' ', name, currency, sum) || E'\\n', '' "
        "ORDER BY name, currency), '') FROM (SELECT ng.account_name(account) AS name, "
        "currency, sum(amount) FROM (SELECT dr AS account, currency, -amount_micro AS "
        "amount FROM ng.transfer UNION ALL SELECT cr, currency, amount_micro FROM "
        "ng.transfer) t GROUP BY account, currency HAVING sum(amount) <> 0) a");
    ck_assert_msg(strcmp(got, strbuf_str(&want)) == 0,
                  "step %d: the ledger has\n%sand should have\n%s", step, got,
                  strbuf_str(&want));
    free(got);
    strbuf_done(&want);
    /* By currency: nothing is made, nothing is lost. */
    for (int i = 0; i < x.h.account_count; i++) {
        int64_t sum = 0;
        for (int k = 0; k < x.h.account_count; k++)
            if (strcmp(x.h.account[k].currency, x.h.account[i].currency) == 0)
                sum += x.h.account[k].sum;
        ck_assert_int_eq(sum, 0);
    }
}

static void compare_reservations(void)
{
    struct strbuf want = STRBUF_INIT;
    for (int i = 0; i < x.h.resv_count; i++) {
        const struct h_resv *r = &x.h.resv[i];
        static const char *const states[] = {"held",  "confirmed", "active",
                                             "ended", "cancelled", "failed"};
        strbuf_addf(&want,
                    "%d %s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
                    "\n",
                    i, states[r->state], r->held, r->captured, r->released, r->refunded,
                    r->credited);
    }
    char *got = ledger_text(
        &x.l, "SELECT coalesce(string_agg(concat_ws(' ', right(id::text, 12)::integer, "
              "state, held_micro, captured_micro, released_micro, refunded_micro, "
              "credited_micro) || E'\\n', '' ORDER BY id), '') FROM ng.reservation");
    for (const char *a = got, *b = strbuf_str(&want); strcmp(a, b) != 0;) {
        int n = (int)strcspn(a, "\n"), k = (int)strcspn(b, "\n");
        ck_assert_msg(n == k && memcmp(a, b, (size_t)n) == 0, "it has\n%.*s, not\n%.*s",
                      n, a, k, b);
        a += n + 1;
        b += k + 1;
    }
    free(got);
    strbuf_done(&want);
}

/* ---- the history ---------------------------------------------------------------- */

static struct run_event *const tables[] = {general, run_leases, run_money};

static struct run_event *draw(void)
{
    int sum = 0;
    for (size_t t = 0; t < 3; t++)
        for (struct run_event *e = tables[t]; e->name != NULL; e++)
            sum += e->weight;
    int at = run_pick(&x, sum);
    for (size_t t = 0; t < 3; t++)
        for (struct run_event *e = tables[t]; e->name != NULL; e++)
            if ((at -= e->weight) < 0)
                return e;
    abort();
}

void run_steps(int steps)
{
    bool trace = getenv("NEARGPU_TRACE") != NULL;
    for (int step = 0; step < steps; step++) {
        struct run_event *e = draw();
        if (trace)
            printf("%d %" PRId64 " %s\n", step, x.h.now, e->name);
        e->fn(&x);
        e->done++;
        if (step % COMPARE_EVERY == 0 || trace)
            compare(step);
        if (step % 100 == 0 || trace)
            compare_reservations();
    }
    /* All disputes end, all windows pass. */
    set_clock(x.h.now + 40 * DAY_US);
    run_expect(&x, "00000", "SELECT api.transitions(%" PRId64 ", 60000000)", x.h.now);
    h_transitions(&x.h, 60 * SEC_US);
    bill(&x);
    compare(steps);
    compare_reservations();
    check_views(&x);
    x.steps += steps;
}

void run_check_prices(void)
{
    run_prices(&x);
}

/* ---- the market ----------------------------------------------------------------- */

static void at_exit(void)
{
    struct err err;
    if (fsx_remove_tree(dir, &err) != 0)
        fprintf(stderr, "%s\n", err.text);
}

/* PostgreSQL runs as another user: it gets files it can read. */
static void start_clock(void)
{
    struct err err;
    char *clock, *lib, *data;
    size_t len;
    if (mkdtemp(dir) == NULL || chmod(dir, 0755) != 0)
        exit(1);
    atexit(at_exit);
    clock = xasprintf("%s/clock", dir);
    lib = xasprintf("%s/clock.so", dir);
    /* The middle of a month of 2026, so that a seed says everything. */
    int64_t first = INT64_C(1773576000) * SEC_US + x.seed % 86400 * SEC_US;
    if (fsx_read(FAKE_CLOCK, 1 << 20, &data, &len, &err) != 0 ||
        fsx_write(lib, data, len, 0755, &err) != 0 ||
        fsx_write(clock, &first, sizeof(first), 0644, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    int fd = open(clock, O_RDWR | O_CLOEXEC);
    clock_us = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (clock_us == MAP_FAILED)
        exit(1);
    setenv("NEARGPU_FAKE_CLOCK", clock, 1);
    setenv("LD_PRELOAD", lib, 1);
    free(data);
    free(lib);
    free(clock);
    set_clock(first);
}

static void set_up_model(void)
{
    static const char *const zones[] = {"Asia/Tokyo", "UTC", "America/New_York",
                                        "Asia/Kolkata"};
    struct history *h = &x.h;
    h->currency = x.seed % 2 ? "USD" : "JPY";
    h->minor = x.seed % 2 ? 10000 : 1000000;
    h->market_fee = 50000;
    h->rate[0] = (struct h_tax){.subject = H_STANDARD, .value = 100000};
    h->rate[1] = (struct h_tax){.subject = H_REDUCED, .value = 80000};
    h->rate_count = 2;
    h->window = DAY_US;
    h->reserve_for = 30 * DAY_US;
    h->grace = x.seed % 4 > 1 ? HOUR_US : 0;
    h->hold_window = x.seed % 3 == 0 ? 0 : x.seed % 3 == 1 ? HOUR_US : 12 * HOUR_US;
    h->credit[2] = INT64_C(3000000000);
    h->credit[3] = INT64_C(50000000000);
    h->fee_ppm[0] = -1;
    h->fee_ppm[2] = 73111;
    h->resv = xcalloc(RUN_RESVS, sizeof(*h->resv));
    for (int t = 0; t < H_TENANTS; t++) {
        h->zone[t] = zones[t];
        h->invoiced_until[t] = INT64_MIN;
    }
    for (int n = 0; n < H_NODES; n++)
        h->node_provider[n] = n % H_PROVIDERS;
    h->path_provider[0] = 2;
    h->path_provider[1] = 0;
}

#define BANK                                                                  \
    "{\"bank\": \"0001\", \"branch\": \"012\", \"type\": \"1\", \"number\": " \
    "\"1234567\", \"holder\": \"A\", \"client\": \"0123456789\"}"
#define ABROAD "{\"holder\": \"A\", \"iban\": \"DE89370400440532013000\"}"

void run_plant(void)
{
    struct history *h = &x.h;
    testdb_sql(
        x.l.pg,
        "SELECT api.site_create('osaka', 'Osaka', 34.69, 135.5, 'jp', NULL, 'a', "
        "NULL, NULL); SELECT t.provider('p0', NULL), t.provider('p1', 0), "
        "t.provider('p2', 73111)");
    for (int n = 0; n < H_NODES; n++)
        ck_assert_int_eq(ledger_int(&x.l, "SELECT t.node('n%d', 'tokyo', 'p%d', 62)", n,
                                    h->node_provider[n]),
                         n + 1);
    for (int p = 0; p < H_PATHS; p++)
        run_expect(&x, "00000",
                   "SELECT api.path_create('l%d', 'p%d', 'tokyo', 'osaka', 16, 1, 1, "
                   "false, 1, 0, 'a', NULL, NULL)",
                   p, h->path_provider[p]);
    for (int t = 0; t < H_TENANTS; t++)
        run_expect(&x, "00000",
                   "SELECT api.tenant_create('t%d', '%s', %" PRId64
                   ", t.hash('t%d'), 'a', NULL, NULL)",
                   t, h->zone[t], h->credit[t], t);
    run_expect(
        &x, "00000",
        "INSERT INTO ng.spot_terms SELECT id, ng.currency(), 1, 60000000 FROM "
        "ng.node; INSERT INTO ng.sla_terms VALUES (10000, '10 minutes', 100000), "
        "(50000, '10 minutes', 250000), (200000, '10 minutes', 500000); SELECT "
        "api.tax_rate_set('{\"class\": \"reduced\", \"rate_ppm\": 80000}', 'a'); "
        "SELECT "
        "api.provider_bank(id, CASE ng.currency() WHEN 'JPY' THEN '" BANK
        "'::jsonb ELSE '" ABROAD "' END, NULL) FROM ng.provider; SELECT "
        "api.market_set(86400, NULL, NULL, '" BANK "', %" PRId64 ")",
        h->hold_window);
    for (int p = 0; p < H_PROVIDERS; p++)
        h->order[p] = (int)ledger_int(
            &x.l,
            "SELECT right(name, 1)::integer FROM ng.provider WHERE name LIKE 'p_' "
            "ORDER BY id OFFSET %d LIMIT 1",
            p);
    ck_assert_int_eq(ledger_int(&x.l, "SELECT ng.us(clock_timestamp())"), h->now);
}

void run_report(void)
{
    printf("%d steps over %" PRId64 " days: %ld booked, %ld refused, %ld receipts, %ld "
           "kills, %d invoices, %d settlements, %d stopped;",
           x.steps, (x.h.now - INT64_C(1773576000) * SEC_US) / DAY_US, x.booked,
           x.refused, x.receipts, x.kills, x.h.invoice_count, x.h.settlement_count,
           x.h.stopped);
    for (size_t t = 0; t < 3; t++)
        for (struct run_event *e = tables[t]; e->name != NULL; e++)
            printf(" %ld %s", e->done, e->name);
    puts("");
}

struct ledger *run_open(unsigned seed)
{
    struct err err;
    char *text;
    setenv("TZ", "UTC", 1);
    tzset();
    x.seed = seed;
    set_up_model();
    start_clock();
    ledger_open(&x.l, x.h.currency);
    unsetenv("LD_PRELOAD");
    x.conf = xasprintf("%s/billd.conf", dir);
    /* With a log, so that its views say something too. */
    text = xasprintf("release_grace = %s\nlog_key = %s/log.key\n",
                     x.h.grace == 0 ? "0s" : "1h", dir);
    if (fsx_write(x.conf, text, strlen(text), 0600, &err) != 0)
        exit(1);
    free(text);
    return &x.l;
}

void run_close(void)
{
    ledger_close(&x.l);
    free(x.conf);
}
