/* journal: leases, epochs and used tokens on disk, with damaged and half-written files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/deadline.h"
#include "client/agent/journal.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

static char dir[64];
static struct journal *j;
static struct err err;

#define ok(call) ck_assert_msg((call) == 0, "%s: %s", #call, err.text)

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/ngjournal-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ok(journal_open(dir, &j, &err));
}

static void teardown(void)
{
    journal_free(j);
    ok(fsx_remove_tree(dir, &err));
}

static void put_file(const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", dir, name);
    ok(fsx_write(path, text, strlen(text), 0600, &err));
    free(path);
}

static struct journal_lease sample(void)
{
    static struct journal_lease l;
    memset(&l, 0, sizeof(l));
    snprintf(l.id, sizeof(l.id), "0197-res");
    snprintf(l.tenant, sizeof(l.tenant), "tenant-a");
    snprintf(l.boot_id, sizeof(l.boot_id), "11111111-2222-4333-8444-555555555555");
    snprintf(l.on_lost, sizeof(l.on_lost), "run_to_end");
    snprintf(l.reason, sizeof(l.reason), "revoked");
    l.state = LEASE_DENIED;
    l.epoch = INT64_C(1795000000000000);
    l.generation = 3;
    l.not_before_us = 5;
    l.not_after_us = INT64_MAX;
    l.deadline_boot_us = 123456789;
    l.drain_us = 10000000;
    l.memory_max_bytes = INT64_C(1) << 40;
    l.pids_max = 4096;
    for (int i = 0; i < GPUS_PER_NODE_MAX; i++)
        snprintf(l.gpus[i], JOURNAL_ID_MAX, "GPU-%08d-1111-2222-3333-444444444444", i);
    l.gpu_count = GPUS_PER_NODE_MAX;
    for (int i = 0; i < JOURNAL_HOLDERS_MAX; i++)
        snprintf(l.holders[i], JOURNAL_HOLDER_MAX, "ssh-ed25519 %0200d key", i);
    l.holder_count = JOURNAL_HOLDERS_MAX;
    for (uint32_t i = 0; i < 100; i++)
        l.rules[i] = (struct devprog_rule){'c', 195, i, 3};
    l.rules[100] = (struct devprog_rule){'b', 8, DEVPROG_ANY_MINOR, 1};
    l.rule_count = 101;
    return l;
}

START_TEST(test_lease_round_trip)
{
    static struct journal_lease in, out;
    in = sample();
    ok(journal_lease_write(j, &in, &err));
    memset(&out, 0xff, sizeof(out));
    ok(journal_lease_read(j, in.id, &out, &err));
    ck_assert_int_eq(memcmp(&in, &out, offsetof(struct journal_lease, rules)), 0);
    for (size_t i = 0; i < in.rule_count; i++)
        ck_assert(in.rules[i].type == out.rules[i].type &&
                  in.rules[i].major == out.rules[i].major &&
                  in.rules[i].minor == out.rules[i].minor &&
                  in.rules[i].access == out.rules[i].access);
    ck_assert_uint_eq(out.rule_count, 101);
    char **ids;
    size_t count;
    ok(journal_lease_list(j, &ids, &count, &err));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(ids[0], in.id);
    free(ids[0]);
    free(ids);
    ok(journal_lease_remove(j, in.id, &err));
    ck_assert_int_eq(journal_lease_read(j, in.id, &out, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
}
END_TEST

START_TEST(test_deadline_goes_with_the_lease)
{
    struct journal_lease l = sample();
    struct deadline d;
    int64_t end;
    ok(deadline_boot_id(l.boot_id, &err));
    ok(journal_lease_write(j, &l, &err));
    char *path = journal_lease_dir(j, l.id);
    ok(deadline_open(&d, path, &err));
    ck_assert_int_eq(d.end_boot_us, 123456789);
    ck_assert_int_eq(access(path, F_OK), 0);
    l.deadline_boot_us = 999;
    ok(journal_lease_write(j, &l, &err));
    deadline_refresh(&d, 0, 0);
    ck_assert_int_eq(d.end_boot_us, 999);
    ok(deadline_read(d.dir_fd, "another-boot", &end, &err));
    ck_assert_int_eq(end, 0);
    deadline_close(&d);
    free(path);
}
END_TEST

START_TEST(test_damaged_leases_are_refused)
{
    static const char *const bad[] = {
        "", "{", "[]", "{}", "{\"id\":\"x\"}", "nonsense",
    };
    struct journal_lease l = sample(), out;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ok(journal_lease_write(j, &l, &err));
        put_file("leases/0197-res/lease.json", bad[i]);
        ck_assert_int_eq(journal_lease_read(j, l.id, &out, &err), -1);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    }
    /* A lease's file in another lease's directory. */
    ok(journal_lease_write(j, &l, &err));
    char *move = xasprintf("%s/leases/other", dir), *from = journal_lease_dir(j, l.id);
    ck_assert_int_eq(rename(from, move), 0);
    ck_assert_int_eq(journal_lease_read(j, "other", &out, &err), -1);
    free(move);
    free(from);
}
END_TEST

START_TEST(test_half_written_files_are_swept)
{
    struct journal_lease l = sample(), out;
    ok(journal_lease_write(j, &l, &err));
    put_file("leases/0197-res/lease.json.00ff.tmp", "{\"id\":\"019");
    put_file("epochs/GPU-1.00ff.tmp", "{");
    put_file("jti/abc.00ff.tmp", "{");
    journal_free(j);
    ok(journal_open(dir, &j, &err));
    static const char *const gone[] = {"leases/0197-res/lease.json.00ff.tmp",
                                       "epochs/GPU-1.00ff.tmp", "jti/abc.00ff.tmp"};
    for (size_t i = 0; i < 3; i++) {
        char *path = xasprintf("%s/%s", dir, gone[i]);
        ck_assert_int_eq(access(path, F_OK), -1);
        free(path);
    }
    ok(journal_lease_read(j, l.id, &out, &err));
}
END_TEST

START_TEST(test_one_agent_per_directory)
{
    struct journal *second = NULL;
    ck_assert_int_eq(journal_open(dir, &second, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_ptr_null(second);
}
END_TEST

START_TEST(test_ids)
{
    static const char *const good[] = {"a", "0197f0-x", "GPU-1.2_3"};
    static const char *const bad[] = {
        "",    ".",
        "..",  "../x",
        "a/b", "a b",
        "-x",  "_keepers",
        "a\n", "0123456789012345678901234567890123456789012345678901234567890123",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert(journal_id_is_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct journal_lease l = sample(), out;
        ck_assert_msg(!journal_id_is_valid(bad[i]), "%s", bad[i]);
        ck_assert_int_eq(journal_lease_read(j, bad[i], &out, &err), -1);
        ck_assert_int_eq(journal_lease_remove(j, bad[i], &err), -1);
        ck_assert_int_eq(journal_epoch_claim(j, bad[i], 1, "a", &err), -1);
        snprintf(l.id, sizeof(l.id), "%s", bad[i]);
        if (strlen(bad[i]) < sizeof(l.id) - 1)
            ck_assert_int_eq(journal_lease_write(j, &l, &err), -1);
    }
}
END_TEST

START_TEST(test_epochs_never_go_down)
{
    static const struct {
        int64_t epoch;
        const char *lease;
        int rc;
    } rows[] = {
        {0, "a", -1}, {5, "a", 0},  {5, "a", 0},  {5, "b", -1},        {4, "a", -1},
        {6, "b", 0},  {5, "a", -1}, {6, "a", -1}, {INT64_MAX, "c", 0}, {6, "b", -1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int rc = journal_epoch_claim(j, "GPU-1", rows[i].epoch, rows[i].lease, &err);
        ck_assert_msg(rc == rows[i].rc, "row %zu", i);
        journal_free(j); /* and all of it after a restart */
        ok(journal_open(dir, &j, &err));
    }
    int64_t seen;
    ok(journal_epoch_get(j, "GPU-1", &seen, &err));
    ck_assert_int_eq(seen, INT64_MAX);
    ok(journal_epoch_get(j, "GPU-2", &seen, &err));
    ck_assert_int_eq(seen, 0);
    put_file("epochs/GPU-3", "{\"epoch\":");
    ck_assert_int_eq(journal_epoch_claim(j, "GPU-3", 9, "a", &err), -1);
}
END_TEST

START_TEST(test_tokens_are_used_once)
{
    char job[JOURNAL_ID_MAX];
    struct journal_use use = {"jti-1", "res1", "hash", "job1", 1000};
    ok(journal_jti_claim(j, &use, job, &err));
    ck_assert_str_eq(job, "");
    journal_free(j);
    ok(journal_open(dir, &j, &err));
    use.job = "job2";
    ok(journal_jti_claim(j, &use, job, &err));
    ck_assert_str_eq(job, "job1");
    use.argv_hash = "other";
    ck_assert_int_eq(journal_jti_claim(j, &use, job, &err), -1);
    ck_assert_int_eq(err.code, ERR_TOKEN);
    use.argv_hash = "hash";
    use.lease = "res2";
    ck_assert_int_eq(journal_jti_claim(j, &use, job, &err), -1);
    use = (struct journal_use){"../../etc/x", "res1", "hash", "job1", 3000};
    ok(journal_jti_claim(j, &use, job, &err));
    ok(journal_jti_expire(j, 1000, &err)); /* jti-1 ends now: kept */
    use = (struct journal_use){"jti-1", "res1", "hash", "job3", 1000};
    ok(journal_jti_claim(j, &use, job, &err));
    ck_assert_str_eq(job, "job1");
    ok(journal_jti_expire(j, 1001, &err));
    ok(journal_jti_claim(j, &use, job, &err));
    ck_assert_str_eq(job, "");
    use.jti = "";
    ck_assert_int_eq(journal_jti_claim(j, &use, job, &err), -1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("journal");
    TCase *tc = tcase_create("journal");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_lease_round_trip);
    tcase_add_test(tc, test_deadline_goes_with_the_lease);
    tcase_add_test(tc, test_damaged_leases_are_refused);
    tcase_add_test(tc, test_half_written_files_are_swept);
    tcase_add_test(tc, test_one_agent_per_directory);
    tcase_add_test(tc, test_ids);
    tcase_add_test(tc, test_epochs_never_go_down);
    tcase_add_test(tc, test_tokens_are_used_once);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
