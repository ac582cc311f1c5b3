/* The ledger's export, read by an accounting program that is not ours: hledger accepts
 * it, its balance is zero, and account by account it counts what the database counts.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;
static char dir[64], *journal;

/* Output of a shell command; it must succeed. */
static char *shell(const char *command)
{
    struct strbuf text = STRBUF_INIT;
    char buf[4096];
    int fds[2], status;
    ssize_t n;
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(fds[1], 1);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    while ((n = read(fds[0], buf, sizeof(buf))) > 0)
        strbuf_add(&text, buf, (size_t)n);
    close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "%s: status %d: %s", command, status, strbuf_str(&text));
    return text.data != NULL ? strbuf_steal(&text) : xstrdup("");
}

static void export_to(const char *from, const char *to)
{
    struct err err;
    char *text;
    int status;
    if (from != NULL)
        status = LEDGER_BILLD(&l, &text, "export", "--from", from, "--to", to);
    else
        status = LEDGER_BILLD(&l, &text, "export");
    ck_assert_msg(status == 0, "%s", text);
    ck_assert_int_eq(fsx_write(journal, text, strlen(text), 0600, &err), 0);
    free(text);
}

static void begin(void)
{
    ledger_open(&l, NULL);
    snprintf(dir, sizeof(dir), "/tmp/neargpu-export.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    journal = xasprintf("%s/ledger.journal", dir);
    if (access("/usr/bin/hledger", X_OK) != 0) {
        puts("hledger is not installed");
        exit(77);
    }
    ledger_sql(&l, "SELECT t.tenant('alpha', 'Asia/Tokyo', 500000000000),"
                   " t.tenant('beta', 'UTC', 7000000001),"
                   " t.node('n1', 'tokyo', 'acme', 8)");
    ledger_sql(&l,
               "SELECT api.topup('beta', 1000000, 'JPY', E'two\\nlines; a = 1 | x', "
               "'a', NULL, NULL)");
    for (int i = 1; i <= 3; i++) {
        ledger_sql(&l,
                   "SELECT t.book(lpad('%d', 32, '0')::uuid, 'alpha', now() - interval "
                   "'1 hour', now() + interval '1 hour', ARRAY[1], ARRAY[%d], ARRAY[2],"
                   " 333333333)",
                   i, 2 * i - 1);
        ledger_sql(&l,
                   "SELECT t.receipt(lpad('%d', 32, '0')::uuid, 1, 1, 'ready', 0),"
                   " t.receipt(lpad('%d', 32, '0')::uuid, 1, 2, 'teardown', %d)",
                   i, i, 61007 * i);
    }
    ledger_once(&l);
    ck_assert_int_eq(
        LEDGER_BILLD(&l, NULL, "invoice", "--tenant", "alpha", "--until", "now"), 0);
    ck_assert_int_eq(LEDGER_BILLD(&l, NULL, "reverse", "--transfer", "2"), 0);
}

static void end(void)
{
    struct err err;
    ledger_close(&l);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
    free(journal);
}

/* Balances as hledger counts them: "account,micro-units" lines, sorted. */
static char *counted(void)
{
    char *command = xasprintf(
        "hledger -f %s balance --flat --empty --no-total -O csv | tail -n +2 | "
        "tr -d '\"' | sed 's/ JPY//' | awk -F, '{printf \"%%s,%%.0f\\n\", $1, $2 * "
        "1000000}' | LC_ALL=C sort",
        journal);
    char *text = shell(command);
    free(command);
    return text;
}

START_TEST(test_hledger)
{
    char *command, *text, *want;
    begin();
    export_to(NULL, NULL);
    command = xasprintf("hledger -f %s check --strict 2>&1", journal);
    free(shell(command));
    free(command);
    command =
        xasprintf("hledger -f %s balance -N --depth 0 -O csv | tail -n +2", journal);
    text = shell(command);
    ck_assert_msg(text[0] == '\0' || strstr(text, ",\"0\"") != NULL, "%s", text);
    free(text);
    free(command);
    text = counted();
    want = ledger_text(
        &l, "SELECT string_agg(name || ',' || micro, E'\\n' ORDER BY name COLLATE "
            "\"C\") || E'\\n' FROM (SELECT ng.account_name(a.id) AS name, (SELECT "
            "coalesce(sum(CASE WHEN t.dr = a.id THEN amount_micro ELSE -amount_micro "
            "END), 0) FROM ng.transfer t WHERE a.id IN (t.dr, t.cr)) AS micro FROM "
            "ng.account a) x WHERE name IN (SELECT ng.account_name(a) FROM "
            "ng.transfer, unnest(ARRAY[dr, cr]) a)");
    ck_assert_str_eq(text, want);
    ck_assert_ptr_nonnull(strstr(text, "tenant:alpha:wallet,-"));
    ck_assert_ptr_nonnull(strstr(text, "provider:acme:pending,-"));
    free(text);
    free(want);
    end();
}
END_TEST

/* In two currencies, one top-up of two taken back: each balances by itself. */
START_TEST(test_two_currencies)
{
    begin();
    ledger_sql(&l, "SELECT api.fx_set('{\"base\": \"EUR\", \"quote\": \"JPY\", "
                   "\"rate\": \"165.32\", \"source\": \"test\"}', 'a')");
    ledger_sql(&l, "SELECT api.topup('beta', 70000000, 'EUR', 'e1', 'a', NULL, NULL), "
                   "api.topup('beta', 30000000, 'EUR', 'e2', 'a', NULL, NULL)");
    char *id =
        ledger_text(&l, "SELECT id FROM ng.transfer WHERE kind = 'fx' AND ref = 'e1'");
    ck_assert_int_eq(
        LEDGER_BILLD(&l, NULL, "chargeback", "--topup", id, "--reason", "disputed"), 0);
    free(id);
    ledger_check(&l);
    export_to(NULL, NULL);
    char *command =
        xasprintf("hledger -f %s check --strict 2>&1; hledger -f %s balance "
                  "-N --flat cur:EUR",
                  journal, journal);
    char *text = shell(command);
    ck_assert_msg(strstr(text, "30.00") != NULL && strstr(text, "70.00") == NULL, "%s",
                  text);
    free(text);
    free(command);
    command = xasprintf("hledger -f %s balance -N --depth 0 cur:EUR", journal);
    text = shell(command);
    ck_assert_msg(strpbrk(text, "123456789") == NULL, "%s", text);
    free(text);
    free(command);
    end();
}
END_TEST

START_TEST(test_period)
{
    struct err err;
    char *text;
    begin();
    export_to("2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z");
    ck_assert_int_eq(fsx_read(journal, 100000, &text, NULL, &err), 0);
    ck_assert_ptr_null(strstr(text, " * ("));
    free(text);
    ck_assert_int_eq(LEDGER_BILLD(&l, &text, "export", "--from", "soon"), 2);
    ck_assert_ptr_nonnull(strstr(text, "--from"));
    free(text);
    /* A journal that was tampered with is not accepted: the witness can say no. */
    export_to(NULL, NULL);
    char *command = xasprintf("sed -i '0,/  -/s/  -/  -9/' %s && ! hledger -f %s check "
                              ">/dev/null 2>&1",
                              journal, journal);
    free(shell(command));
    free(command);
    end();
}
END_TEST

/* Charges, page by page: those of an invoice sum to what is payable, those of use to
 * its lines; of a period, to what was captured in it. */
START_TEST(test_charges)
{
    begin();
    ledger_sql(&l, "CREATE TABLE t.charge (doc jsonb)");
    ledger_sql(&l, "DO $$ DECLARE r jsonb; c text; BEGIN LOOP"
                   " r := api.charges(NULL, 'INV-' || to_char(now() AT TIME ZONE "
                   "'Asia/Tokyo', 'YYYY') || '-000001', NULL, NULL, c, 2);"
                   " INSERT INTO t.charge SELECT jsonb_array_elements(r->'charges');"
                   " c := r->>'next'; EXIT WHEN c IS NULL; END LOOP; END $$");
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM t.charge"), 5);
    ck_assert_int_eq(ledger_int(&l,
                                "SELECT sum((doc->>'amount_micro')::bigint) - (SELECT "
                                "total_micro FROM ng.invoice) FROM t.charge"),
                     0);
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM t.charge JOIN ng.invoice_line x ON "
                       "x.reservation_id = (doc->>'reservation')::uuid AND "
                       "x.amount_micro = (doc->>'amount_micro')::bigint AND "
                       "x.quantity_gpu_ms = (doc->>'quantity_ms')::bigint"),
        3);
    char *kinds = ledger_text(&l, "SELECT string_agg(doc->>'category' || ' ' || "
                                  "(doc->>'what'), ', ' ORDER BY doc->>'category', "
                                  "doc->>'reservation') FROM t.charge");
    ck_assert_str_eq(kinds,
                     "Adjustment line, Tax tax, Usage gpu, Usage gpu, Usage gpu");
    free(kinds);
    ck_assert_int_eq(
        ledger_int(&l,
                   "SELECT (SELECT sum((x->>'amount_micro')::bigint) FROM "
                   "jsonb_array_elements(api.charges(id, NULL, NULL, NULL, NULL, "
                   "500)->'charges') x) - (SELECT sum(amount_micro) FROM ng.transfer "
                   "WHERE kind IN ('capture', 'fee')) FROM ng.tenant WHERE name = "
                   "'alpha'"),
        0);
    ck_assert_int_eq(/* what is invoiced says so, in the period's rows too */
                     ledger_int(
                         &l, "SELECT count(*) FROM ng.invoice i, jsonb_array_elements("
                             "api.charges(i.tenant_id, NULL, NULL, NULL, NULL, "
                             "500)->'charges') x WHERE x->>'invoice' = i.number"),
                     3);
    /* What is refunded of the invoice corrects it, in the period of the note. */
    ledger_sql(&l, "SELECT api.refund(reservation_id, 10000000, 'late', 'market', 'a', "
                   "NULL, NULL, 'root') FROM ng.invoice_line WHERE reservation_id IS "
                   "NOT NULL AND amount_micro > 0 ORDER BY amount_micro DESC LIMIT 1");
    char *notes = ledger_text(
        &l,
        "SELECT string_agg(concat_ws(' ', x->>'category', (x->>'amount_micro')::int "
        "/ 1000, left(x->>'invoice', 3), x->>'corrects' = i.number), ', ' ORDER BY "
        "x->>'category') FROM ng.invoice i, jsonb_array_elements(api.charges("
        "i.tenant_id, NULL, NULL, NULL, NULL, 500)->'charges') x WHERE x->>'what' = "
        "'note'");
    ck_assert_str_eq(notes, "Adjustment -10000 CN- t, Tax -1000 CN- t");
    free(notes);
    ck_assert_int_eq(
        ledger_int(&l, "SELECT sum((x->>'amount_micro')::bigint) - total_micro FROM "
                       "ng.invoice i, jsonb_array_elements(api.charges(NULL, number, "
                       "NULL, NULL, NULL, 500)->'charges') x GROUP BY total_micro"),
        0);
    ck_assert_str_eq(
        testdb_state(l.pg, "SELECT api.charges((SELECT id FROM ng.tenant WHERE name = "
                           "'beta'), (SELECT number FROM ng.invoice), NULL, NULL, NULL,"
                           " 5)"),
        "NG005"); /* another's */
    end();
}
END_TEST

UNIT_MAIN("export", UNIT_CASE(test_hledger) UNIT_CASE(test_charges)
                        UNIT_CASE(test_period) UNIT_CASE(test_two_currencies))
