/* Tests of the request object: body and query give the same, each bound is refused with
 * its place; and of what agents report. */
#include "server/flow/request.h"

#include <inttypes.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "server/flow/observed.h"
#include "tests/unit/unit.h"

#define NOW (INT64_C(1800000000) * US_PER_S) /* 2027-01-15T08:00:00Z */

static int parse(const char *text, struct request *rq, struct err *err)
{
    json_t *body = json_loads(text, 0, NULL);
    ck_assert_msg(body != NULL, "%s", text);
    int rc = request_from_body(body, "JPY", NOW, rq, err);
    json_decref(body);
    return rc;
}

START_TEST(test_defaults)
{
    struct request rq;
    struct err err;
    ck_assert_int_eq(parse("{\"duration\":\"4h\"}", &rq, &err), 0);
    ck_assert_int_eq(rq.gpus, 1);
    ck_assert_int_eq(rq.len_us, 4 * US_PER_HOUR);
    ck_assert_int_eq(rq.from_us, NOW);
    ck_assert_int_eq(rq.latest_us, NOW);
    ck_assert_ptr_null(rq.gpu);
    ck_assert_uint_eq(rq.data_count, 0);
    ck_assert_int_eq(rq.max_gpu_hour_micro, 0);
    request_done(&rq);
}
END_TEST

START_TEST(test_times)
{
    static const struct {
        const char *members;
        int64_t from_s, latest_s; /* after NOW */
    } rows[] = {
        {"\"start\":\"2027-01-15T09:00:00Z\"", 3600, 3600},
        {"\"start\":\"2027-01-15T07:59:30Z\"", 0, 0}, /* their clock is behind */
        {"\"earliest\":\"2027-01-15T09:00:00Z\",\"latest\":\"2027-01-15T10:00:00Z\"",
         3600, 7200},
        {"\"latest\":\"2027-01-15T10:00:00Z\"", 0, 7200},
        {"\"earliest\":\"2027-01-15T07:00:00Z\",\"latest\":\"2027-01-15T10:00:00Z\"", 0,
         7200},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct request rq;
        struct err err;
        char text[300];
        snprintf(text, sizeof(text), "{\"duration\":\"1h\",%s}", rows[i].members);
        ck_assert_msg(parse(text, &rq, &err) == 0, "%s: %s", text, err.text);
        ck_assert_int_eq(rq.from_us - NOW, rows[i].from_s * US_PER_S);
        ck_assert_int_eq(rq.latest_us - NOW, rows[i].latest_s * US_PER_S);
        request_done(&rq);
    }
}
END_TEST

static const struct {
    const char *text, *place;
} refused[] = {
    {"{}", "/duration"},
    {"{\"duration\":\"4h\",\"colour\":1}", "colour"},
    {"{\"duration\":4}", "/duration"},
    {"{\"duration\":\"500ms\"}", "/duration"},
    {"{\"duration\":\"32d\"}", "/duration"},
    {"{\"duration\":\"4h\",\"gpus\":0}", "/gpus"},
    {"{\"duration\":\"4h\",\"gpus\":65}", "/gpus"},
    {"{\"duration\":\"4h\",\"gpus\":1.5}", "/gpus"},
    {"{\"duration\":\"4h\",\"nodes\":0}", "/nodes"},
    {"{\"duration\":\"4h\",\"nodes\":65}", "/nodes"},
    {"{\"duration\":\"4h\",\"nodes\":33,\"federated\":[\"a\",\"b\"]}", "/nodes"},
    {"{\"duration\":\"4h\",\"together\":\"near\"}", "/together"},
    {"{\"duration\":\"4h\",\"spread_zones\":true}", "/spread_zones"},
    {"{\"duration\":\"4h\",\"nodes\":2,\"spread_zones\":true}", "/spread_zones"},
    {"{\"duration\":\"4h\",\"federated\":[\"a\"]}", "/federated"},
    {"{\"duration\":\"4h\",\"federated\":[\"a\",\"a\"]}", "/federated/1"},
    {"{\"duration\":\"4h\",\"federated\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\","
     "\"g\",\"h\",\"i\"]}",
     "/federated"},
    {"{\"duration\":\"4h\",\"federated\":[\"a\",\"b\"],\"data\":[\"c\"]}", "/data"},
    {"{\"duration\":\"4h\",\"bandwidth\":\"40Gbps\"}", "/bandwidth"},
    {"{\"duration\":\"4h\",\"bandwidth\":\"40\",\"data\":[\"a\"]}", "/bandwidth"},
    {"{\"duration\":\"4h\",\"demand\":\"fast\"}", "/demand"},
    {"{\"duration\":\"4h\",\"demand\":\"200MB/s\",\"profile\":\"resnet50_h100\"}",
     "/profile"},
    {"{\"duration\":\"4h\",\"custom\":{\"nothing\":1}}", "custom.nothing"},
    {"{\"duration\":\"4h\",\"custom\":{\"kind\":1}}", "/custom/kind"},
    {"{\"duration\":\"4h\",\"custom\":{\"demand_Bps_per_gpu\":\"1\"}}",
     "/custom/demand_Bps_per_gpu"},
    {"{\"duration\":\"4h\",\"provider\":[]}", "/provider"},
    {"{\"duration\":\"4h\",\"provider\":7}", "/provider"},
    {"{\"duration\":\"4h\",\"provider\":\"\"}", "/provider"},
    {"{\"duration\":\"4h\",\"provider\":[\"a\",\"a\"]}", "/provider/1"},
    {"{\"duration\":\"4h\",\"deny_site\":[7]}", "/deny_site/0"},
    {"{\"duration\":\"4h\",\"deny_provider\":\"a\"}", "/deny_provider"},
    {"{\"duration\":\"4h\",\"avoid_zone\":[\"\"]}", "/avoid_zone/0"},
    {"{\"duration\":\"4h\",\"spot\":1}", "/spot"},
    {"{\"duration\":\"4h\",\"wait_until\":\"2027-01-16T08:00:00Z\"}", "/wait_until"},
    {"{\"duration\":\"4h\",\"wait\":true,\"wait_until\":"
     "\"2027-01-15T07:00:00Z\"}",
     "/wait_until"},
    {"{\"duration\":\"4h\",\"wait\":true,\"wait_until\":"
     "\"2029-01-15T07:00:00Z\"}",
     "/wait_until"},
    {"{\"duration\":\"4h\",\"profile\":\"nope\"}", "/profile"},
    {"{\"duration\":\"4h\",\"start\":\"2027-01-15T07:00:00Z\"}", "/start"},
    {"{\"duration\":\"4h\",\"start\":\"2029-01-15T07:00:00Z\"}", "/start"},
    {"{\"duration\":\"4h\",\"start\":\"2027-01-15T09:00:00Z\","
     "\"latest\":\"2027-01-15T10:00:00Z\"}",
     "/start"},
    {"{\"duration\":\"4h\",\"latest\":\"2027-01-15T07:00:00Z\"}", "/latest"},
    {"{\"duration\":\"4h\",\"data\":[\"a\",\"a\"]}", "/data/1"},
    {"{\"duration\":\"4h\",\"data\":[1]}", "/data/0"},
    {"{\"duration\":\"4h\",\"max_price\":{\"currency\":\"USD\",\"micro\":1}}",
     "/max_price/currency"},
    {"{\"duration\":\"4h\",\"max_price\":{\"currency\":\"JPY\",\"micro\":-1}}",
     "/max_price/micro"},
    {"{\"duration\":\"4h\",\"max_slowdown\":0.5}", "/max_slowdown"},
    {"{\"duration\":\"4h\",\"max_rtt\":\"5ms\"}", "/max_rtt"},
    {"{\"duration\":\"4h\",\"residency\":\"JP\"}", "/residency"},
    {"{\"duration\":\"4h\",\"residency\":\"j1\"}", "/residency"},
    {"{\"duration\":\"4h\",\"residency\":\"jpn\"}", "/residency"},
    {"{\"duration\":\"4h\",\"residency\":\"data\"}", "/residency"},
    {"{\"quote\":\"0190\"}", "/quote"},
};

START_TEST(test_refused)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct request rq;
        struct err err;
        ck_assert_msg(parse(refused[i].text, &rq, &err) == -1, "%s", refused[i].text);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
        ck_assert_msg(strstr(err.text, refused[i].place) != NULL, "%s: %s",
                      refused[i].text, err.text);
    }
}
END_TEST

/* A bound on the whole price admits exactly the hourly prices whose total is in it. */
START_TEST(test_whole_price)
{
    struct request rq;
    struct err err;
    ck_assert_int_eq(parse("{\"duration\":\"90m\",\"gpus\":4,\"max_price\":{"
                           "\"currency\":\"JPY\",\"micro\":12000000}}",
                           &rq, &err),
                     0);
    ck_assert_int_eq(rq.max_gpu_hour_micro, 2000000);
    request_done(&rq);
    ck_assert_int_eq(parse("{\"duration\":\"90m\",\"gpus\":4,\"max_price\":{"
                           "\"currency\":\"JPY\",\"micro\":12000000},"
                           "\"max_price_per_gpu_hour\":{\"currency\":\"JPY\","
                           "\"micro\":1500000}}",
                           &rq, &err),
                     0);
    ck_assert_int_eq(rq.max_gpu_hour_micro, 1500000);
    request_done(&rq);
}
END_TEST

START_TEST(test_whole_price_of_a_gang)
{
    struct request rq;
    struct err err;
    ck_assert_int_eq(parse("{\"duration\":\"90m\",\"gpus\":4,\"nodes\":2,"
                           "\"federated\":[\"a\",\"b\",\"c\"],\"max_price\":{"
                           "\"currency\":\"JPY\",\"micro\":72000000}}",
                           &rq, &err),
                     0);
    ck_assert_int_eq(request_gpus(&rq), 24);
    ck_assert_int_eq(rq.max_gpu_hour_micro, 2000000);
    ck_assert_int_eq(rq.max_total_micro, 72000000);
    request_done(&rq);
}
END_TEST

START_TEST(test_gangs)
{
    struct request rq;
    struct err err;
    ck_assert_msg(
        parse("{\"duration\":\"1h\",\"nodes\":3,\"gpus\":8,\"together\":"
              "\"any\",\"spread_zones\":true,\"provider\":\"p\",\"deny_site\":"
              "[\"x\",\"y\"],\"avoid_zone\":[\"z\"],\"spot\":true,\"hold\":"
              "true}",
              &rq, &err) == 0,
        "%s", err.text);
    ck_assert_int_eq(rq.nodes, 3);
    ck_assert_int_eq(request_gpus(&rq), 24);
    ck_assert_int_eq(rq.together, TOGETHER_ANY);
    ck_assert(rq.spread_zones && rq.spot && rq.hold && !rq.wait && !rq.federated);
    ck_assert_uint_eq(rq.only_provider.count, 1);
    ck_assert_str_eq(rq.only_provider.name[0], "p");
    ck_assert_uint_eq(rq.deny_site.count, 2);
    ck_assert_str_eq(rq.deny_site.name[1], "y");
    ck_assert_str_eq(rq.avoid_zone.name[0], "z");
    request_done(&rq);
    ck_assert_msg(parse("{\"duration\":\"1h\",\"federated\":[\"a\",\"b\"],\"max_rtt\":"
                        "\"5ms\",\"bandwidth\":\"40Gbps\",\"spread_zones\":true,"
                        "\"provider\":[\"p\",\"q\"]}",
                        &rq, &err) == 0,
                  "%s", err.text);
    ck_assert(rq.federated);
    ck_assert_int_eq(request_groups(&rq), 2);
    ck_assert_int_eq(rq.bandwidth_Bps, INT64_C(5000000000));
    ck_assert_int_eq(rq.together, TOGETHER_SITE);
    ck_assert_uint_eq(rq.only_provider.count, 2);
    request_done(&rq);
}
END_TEST

START_TEST(test_waiting)
{
    static const struct {
        const char *members;
        int64_t until_s, latest_s; /* after NOW */
    } rows[] = {
        {"\"wait\":true", 14 * 86400, 0},
        {"\"wait\":true,\"latest\":\"2027-01-15T10:00:00Z\"", 7200, 7200},
        {"\"wait\":true,\"start\":\"2027-01-15T09:00:00Z\"", 3600, 3600},
        {"\"wait\":true,\"wait_until\":\"2027-01-15T09:00:00Z\"", 3600, 0},
        {"\"wait\":false,\"wait_until\":null", -NOW / US_PER_S, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct request rq;
        struct err err;
        char text[300];
        snprintf(text, sizeof(text), "{\"duration\":\"1h\",%s}", rows[i].members);
        ck_assert_msg(parse(text, &rq, &err) == 0, "%s: %s", text, err.text);
        ck_assert_int_eq(rq.until_us - NOW, rows[i].until_s * US_PER_S);
        ck_assert_int_eq(rq.latest_us - NOW, rows[i].latest_s * US_PER_S);
        request_done(&rq);
    }
}
END_TEST

START_TEST(test_own_numbers)
{
    struct request rq;
    struct err err;
    ck_assert_int_eq(parse("{\"duration\":\"1h\",\"demand\":\"200MB/s\"}", &rq, &err),
                     0);
    ck_assert_double_eq(rq.profile->demand_Bps_per_gpu, 2e8);
    ck_assert_int_eq(rq.profile->kind, SLOWDOWN_STREAM);
    request_done(&rq);
    ck_assert_msg(parse("{\"duration\":\"1h\",\"custom\":{\"kind\":\"stream\","
                        "\"demand_Bps_per_gpu\":2e8,\"request_bytes\":4096,"
                        "\"outstanding_per_gpu\":8}}",
                        &rq, &err) == 0,
                  "%s", err.text);
    ck_assert_double_eq(rq.profile->request_bytes, 4096);
    request_done(&rq);
}
END_TEST

START_TEST(test_rates)
{
    static const struct {
        const char *text;
        int64_t Bps; /* 0: refused */
    } rows[] = {
        {"40Gbps", 5000000000},
        {"200MB/s", 200000000},
        {"2.5Gbps", 312500000},
        {"0.008Kbps", 1},
        {"1Tbps", 125000000000},
        {"100B/s", 100},
        {"8bps", 1},
        {"7bps", 0},
        {"0MB/s", 0},
        {"40", 0},
        {"40 Gbps", 0},
        {"-1Gbps", 0},
        {"+1Gbps", 0},
        {"1e3Mbps", 0},
        {".5Gbps", 0},
        {"1.Gbps", 0},
        {"1.2345Gbps", 0},
        {"40gbps", 0},
        {"99999999999Tbps", 0},
        {"40Gbpsx", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t got = 0;
        struct err err;
        int rc = request_rate("/x", rows[i].text, &got, &err);
        ck_assert_msg(rc == (rows[i].Bps > 0 ? 0 : -1) && got == rows[i].Bps,
                      "%s: %" PRId64, rows[i].text, got);
    }
}
END_TEST

/* As stored at NOW and looked at some time later. */
START_TEST(test_stored)
{
    static const struct {
        const char *members;
        int64_t after_s, from_s, latest_s; /* latest_s < 0: refused */
    } rows[] = {
        {"\"gpus\":1", 600, 600, 600},
        {"\"wait\":true", 600, 600, 14 * 86400},
        {"\"wait\":true", 15 * 86400, 0, -1},
        {"\"start\":\"2027-01-15T09:00:00Z\"", 600, 3600, 3600},
        {"\"start\":\"2027-01-15T09:00:00Z\"", 3630, 3630, 3630},
        {"\"start\":\"2027-01-15T09:00:00Z\"", 7200, 0, -1},
        {"\"earliest\":\"2027-01-15T09:00:00Z\",\"latest\":\"2027-01-15T10:00:00Z\"",
         600, 3600, 7200},
        {"\"latest\":\"2027-01-15T10:00:00Z\"", 600, 600, 7200},
        {"\"latest\":\"2027-01-15T10:00:00Z\"", 7300, 0, -1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct request rq;
        struct err err;
        char text[300];
        snprintf(text, sizeof(text), "{\"duration\":\"1h\",%s}", rows[i].members);
        json_t *tree = json_loads(text, 0, NULL);
        int rc = request_from_stored(tree, "JPY", NOW, NOW + rows[i].after_s * US_PER_S,
                                     &rq, &err);
        json_decref(tree);
        ck_assert_msg(rc == (rows[i].latest_s < 0 ? -1 : 0), "%s", text);
        if (rc != 0) {
            ck_assert_int_eq(err.code, ERR_CONFLICT);
            continue;
        }
        ck_assert_msg(rq.from_us - NOW == rows[i].from_s * US_PER_S, "%s", text);
        ck_assert_msg(rq.latest_us - NOW == rows[i].latest_s * US_PER_S, "%s", text);
        request_done(&rq);
    }
}
END_TEST

START_TEST(test_merge)
{
    static const struct {
        const char *stored, *over, *want;
    } rows[] = {
        {"{\"duration\":\"1h\",\"gpus\":2}", "{\"gpus\":3}",
         "{\"duration\":\"1h\",\"gpus\":3}"},
        {"{\"duration\":\"1h\",\"site\":\"a\"}", "{\"site\":null}",
         "{\"duration\":\"1h\"}"},
        {"{\"start\":\"x\"}", "{\"latest\":\"y\"}", "{\"latest\":\"y\"}"},
        {"{\"earliest\":\"x\",\"latest\":\"y\"}", "{\"start\":\"z\"}",
         "{\"start\":\"z\"}"},
        {"{\"start\":\"x\"}", "{\"start\":null}", "{}"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *stored = json_loads(rows[i].stored, 0, NULL),
               *over = json_loads(rows[i].over, 0, NULL),
               *want = json_loads(rows[i].want, 0, NULL);
        json_t *got = request_merge(stored, over);
        ck_assert_msg(json_equal(got, want), "row %zu", i);
        json_decref(stored);
        json_decref(over);
        json_decref(want);
        json_decref(got);
    }
}
END_TEST

START_TEST(test_query_is_the_same)
{
    const struct flow_pair query[] = {
        {"gpu", "H100"},          {"gpus", "8"},
        {"duration", "4h"},       {"near", "genome,archive"},
        {"max_rtt", "15ms"},      {"max_price", "4000JPY"},
        {"max_slowdown", "1.25"}, {"profile", "resnet50_h100"},
        {"residency", "jp"},      {"min_memory_mib", "80000"},
        {"nodes", "2"},           {"together", "any"},
        {"spread_zones", "true"}, {"deny_site", "a,b"},
        {"provider", "p"},        {"bandwidth", "10Gbps"},
        {"spot", "false"},        {"wait", "true"},
    };
    struct request a, b;
    struct err err;
    ck_assert_msg(request_from_query(query, sizeof(query) / sizeof(query[0]), "JPY",
                                     NOW, &a, &err) == 0,
                  "%s", err.text);
    ck_assert_msg(
        parse("{\"gpu\":\"H100\",\"gpus\":8,\"duration\":\"4h\",\"data\":["
              "\"genome\",\"archive\"],\"max_rtt\":\"15ms\",\"max_price\":{"
              "\"currency\":\"JPY\",\"micro\":4000000000},\"max_slowdown\":"
              "1.25,\"profile\":\"resnet50_h100\",\"residency\":\"jp\","
              "\"min_memory_mib\":80000,\"nodes\":2,\"together\":\"any\","
              "\"spread_zones\":true,\"deny_site\":[\"a\",\"b\"],\"provider\":"
              "\"p\",\"bandwidth\":\"10Gbps\",\"spot\":false,\"wait\":true}",
              &b, &err) == 0,
        "%s", err.text);
    ck_assert(json_equal(a.tree, b.tree));
    ck_assert_int_eq(a.max_gpu_hour_micro, b.max_gpu_hour_micro);
    ck_assert_int_eq(a.max_slowdown_ppm, 1250000);
    ck_assert_ptr_nonnull(a.profile);
    ck_assert_ptr_eq(a.profile, b.profile);
    ck_assert_uint_eq(a.data_count, 2);
    ck_assert_str_eq(a.data[1], "archive");
    request_done(&a);
    request_done(&b);
}
END_TEST

START_TEST(test_query_lists_and_numbers)
{
    const struct flow_pair query[] = {
        {"duration", "4h"},
        {"federated", "a,b,c"},
        {"provider", "p,q"},
        {"custom", "kind:stream,demand_Bps_per_gpu:2e8"},
    };
    struct request rq;
    struct err err;
    ck_assert_msg(request_from_query(query, sizeof(query) / sizeof(query[0]), "JPY",
                                     NOW, &rq, &err) == 0,
                  "%s", err.text);
    ck_assert(rq.federated);
    ck_assert_uint_eq(rq.data_count, 3);
    ck_assert_uint_eq(rq.only_provider.count, 2);
    ck_assert_double_eq(rq.profile->demand_Bps_per_gpu, 2e8);
    request_done(&rq);
}
END_TEST

START_TEST(test_query_refused)
{
    static const struct flow_pair bad[] = {
        {"gpus", "+1"},          {"gpus", " 1"},
        {"gpus", "1x"},          {"gpus", ""},
        {"max_price", "4e3"},    {"max_price", "x"},
        {"quote", "x"},          {"colour", "red"},
        {"max_price", "4USD"},   {"near", "a,,b"},
        {"duration", ""},        {"near", "a,a"},
        {"max_slowdown", "nan"}, {"spot", "yes"},
        {"hold", "true"},        {"custom", "demand"},
        {"custom", "a:b"},       {"custom", "demand_Bps_per_gpu:nan"},
        {"bandwidth", "1Gbps"},  {"deny_site", "a,a"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct flow_pair query[] = {{"duration", "4h"}, bad[i]};
        struct request rq;
        struct err err;
        ck_assert_msg(request_from_query(query, 2, "JPY", NOW, &rq, &err) == -1,
                      "%s=%s", bad[i].name, bad[i].value);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    }
}
END_TEST

/* ---- what agents report ---- */

#define GPU                                                                        \
    "{\"index\":0,\"uuid\":\"GPU-1\",\"model\":\"H100\",\"memory_mib\":1,\"pci\":" \
    "\"\",\"minor\":0,\"state\":\"idle\"}"
#define REPORT(gpus, price, windows, leases, probes)                               \
    "{\"agent\":{\"version\":\"1\",\"boot_id\":\"b\",\"seq\":1,\"address\":\"\"}," \
    "\"gpus\":[" gpus "],\"price\":" price ",\"windows\":[" windows                \
    "],\"leases\":[" leases "],\"probes\":[" probes                                \
    "],\"desired_version\":\"v\",\"wait\":\"25s\"}"

static int observe(const char *text, struct observed *o, struct err *err)
{
    json_t *body = json_loads(text, 0, NULL);
    ck_assert_msg(body != NULL, "%s", text);
    int rc = observed_parse(body, "JPY", NOW, o, err);
    json_decref(body);
    return rc;
}

START_TEST(test_observed)
{
    struct observed o;
    struct err err;
    ck_assert_msg(
        observe(REPORT(GPU, "{\"currency\":\"JPY\",\"micro\":5}",
                       "{\"from\":\"2027-01-15T09:00:00Z\",\"to\":"
                       "\"2027-01-15T10:00:00Z\"}",
                       "{\"reservation\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
                       "\"state\":\"running\",\"epoch\":1,\"gpus\":[\"GPU-1\"]}",
                       "{\"dataset\":\"7\",\"min_us\":1,\"p50_us\":2,\"p99_us\":3,"
                       "\"count\":9,\"at\":\"2028-01-15T09:00:00Z\"}"),
                &o, &err) == 0,
        "%s", err.text);
    const json_t *probe = json_array_get(json_object_get(o.store, "probes"), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(probe, "dataset")), 7);
    /* Nobody measured in the future. */
    ck_assert_int_eq(json_integer_value(json_object_get(probe, "at_us")), NOW);
    const json_t *window = json_array_get(json_object_get(o.store, "windows"), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(window, "from_us")),
                     NOW + US_PER_HOUR);
    ck_assert_uint_eq(json_array_size(o.reported), 1);
    ck_assert_str_eq(o.version, "v");
    observed_done(&o);
}
END_TEST

START_TEST(test_observed_refused)
{
    static const char *const bad[] = {
        REPORT("{}", "null", "", "", ""),
        REPORT("{\"index\":0,\"uuid\":\"G\",\"model\":\"H\",\"memory_mib\":1,\"pci\":"
               "\"\",\"minor\":0,\"state\":\"free\"}",
               "null", "", "", ""),
        REPORT(GPU, "{\"currency\":\"USD\",\"micro\":5}", "", "", ""),
        REPORT(GPU, "null",
               "{\"from\":\"2027-01-15T09:00:00Z\",\"to\":\"2027-01-15T09:00:00Z\"}",
               "", ""),
        REPORT(GPU, "null", "",
               "{\"reservation\":\"x\",\"state\":\"running\",\"epoch\":1,\"gpus\":[]}",
               ""),
        REPORT(GPU, "null", "",
               "{\"reservation\":\"01890a5d-ac96-774b-bcce-b302099a8057\",\"state\":"
               "\"idle\",\"epoch\":1,\"gpus\":[]}",
               ""),
        REPORT(GPU, "null", "", "",
               "{\"dataset\":\"7\",\"min_us\":3,\"p50_us\":2,\"p99_us\":3,\"count\":9,"
               "\"at\":\"2027-01-15T09:00:00Z\"}"),
        REPORT(GPU, "null", "", "",
               "{\"dataset\":\"x\",\"min_us\":1,\"p50_us\":2,\"p99_us\":3,\"count\":9,"
               "\"at\":\"2027-01-15T09:00:00Z\"}"),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct observed o;
        struct err err;
        ck_assert_msg(observe(bad[i], &o, &err) == -1, "%s", bad[i]);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    }
}
END_TEST

UNIT_MAIN("request",
          UNIT_CASE(test_defaults) UNIT_CASE(test_times) UNIT_CASE(test_refused)
              UNIT_CASE(test_whole_price) UNIT_CASE(test_whole_price_of_a_gang)
                  UNIT_CASE(test_gangs) UNIT_CASE(test_waiting)
                      UNIT_CASE(test_own_numbers) UNIT_CASE(test_rates)
                          UNIT_CASE(test_stored) UNIT_CASE(test_merge)
                              UNIT_CASE(test_query_lists_and_numbers)
                                  UNIT_CASE(test_query_is_the_same)
                                      UNIT_CASE(test_query_refused)
                                          UNIT_CASE(test_observed)
                                              UNIT_CASE(test_observed_refused))
