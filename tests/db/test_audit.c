/* The audit log on a real PostgreSQL: added to by the server alone, changed by nobody,
 * read by page and filter. */
#include <stdlib.h>
#include <string.h>

#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;

START_TEST(test_append_only)
{
    ledger_open(&l, NULL);
    ledger_sql(&l, "SELECT api.audit_put(jsonb_build_array(jsonb_build_object('at_us', "
                   "1, 'actor', 'tenant:a', 'address', 'x', 'method', 'POST', 'path', "
                   "'/v1/quotes', 'status', 201, 'request_id', 'r')))");
    ck_assert_str_eq(testdb_state(l.pg, "UPDATE ng.audit SET actor = 'b'"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "DELETE FROM ng.audit"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "TRUNCATE ng.audit"), "23001");
    static const char *const roles[] = {"neargpu_server", "neargpu_billd",
                                        "neargpu_report"};
    for (size_t i = 0; i < 3; i++) {
        PGconn *pg = testdb_connect(l.db, roles[i], "neargpu");
        ck_assert_str_eq(testdb_state(pg, "INSERT INTO ng.audit DEFAULT VALUES"),
                         "42501");
        ck_assert_str_eq(testdb_state(pg, "SELECT * FROM ng.audit"), "42501");
        if (i > 0)
            ck_assert_str_eq(testdb_state(pg, "SELECT api.audit_list(NULL, NULL, NULL, "
                                              "NULL, NULL, NULL, NULL, 10)"),
                             "42501");
        PQfinish(pg);
    }
    ledger_close(&l);
}
END_TEST

START_TEST(test_read)
{
    static const struct {
        const char *args;
        int64_t rows;
    } ask[] = {
        {"NULL, NULL, NULL, NULL, NULL, NULL, NULL, 100", 30},
        {"NULL, NULL, NULL, NULL, NULL, NULL, NULL, 7", 7},
        {"'tenant:t1', NULL, NULL, NULL, NULL, NULL, NULL, 100", 10},
        {"'tenant:t1', NULL, NULL, 'tenant:t2', NULL, NULL, NULL, 100", 0},
        {"NULL, NULL, NULL, 'tenant:t2', NULL, NULL, NULL, 100", 10},
        {"NULL, 10000000, 20000000, NULL, NULL, NULL, NULL, 100", 10},
        {"NULL, NULL, NULL, NULL, 'DELETE /v1/res', NULL, NULL, 100", 30},
        {"NULL, NULL, NULL, NULL, 'DELETE', '/id7', NULL, 100", 1},
        {"NULL, NULL, NULL, NULL, 'POST', NULL, NULL, 100", 0},
        {"NULL, NULL, NULL, NULL, NULL, NULL, '11', 100", 10},
    };
    ledger_open(&l, NULL);
    ledger_sql(&l, "SELECT api.audit_put(jsonb_agg(jsonb_build_object('at_us', i * "
                   "1000000, 'actor', 'tenant:t' || i %% 3, 'address', 'x', 'method', "
                   "'DELETE', 'path', '/v1/reservations/id' || i, 'status', 200, "
                   "'request_id', i)  ORDER BY i)) FROM generate_series(1, 30) i");
    for (size_t i = 0; i < sizeof(ask) / sizeof(ask[0]); i++)
        ck_assert_msg(
            ledger_int(&l, "SELECT jsonb_array_length(api.audit_list(%s)->'audit')",
                       ask[i].args) == ask[i].rows,
            "%s", ask[i].args);
    ledger_close(&l);
}
END_TEST

UNIT_MAIN("audit", UNIT_CASE(test_append_only) UNIT_CASE(test_read))
