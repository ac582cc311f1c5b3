/* slowdown: the published figures the model must reproduce, each limit and kind alone
 * against figures worked by hand, several inputs, a tenant's own numbers, and laws that
 * hold for every input (random, NEARGPU_SEED). With NEARGPU_DATA naming a folder that
 * has workload_profiles.csv, the profiles are compared with that table. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/core/slowdown.h"
#include "tests/unit/unit.h"

#define GBIT 0.125e9
#define MIB  1048576.0

static struct slowdown_path path_ms(double rtt_ms)
{
    return (struct slowdown_path){.rtt_s = rtt_ms * 1e-3,
                                  .bandwidth_Bps = 100 * GBIT,
                                  .service_s = SLOWDOWN_SERVICE_S};
}

static struct slowdown_result predict(const char *profile, double rtt_ms)
{
    struct slowdown_path path = path_ms(rtt_ms);
    struct slowdown_result r;
    const struct slowdown_profile *p = slowdown_find(profile);
    ck_assert_ptr_nonnull(p);
    slowdown_predict(p, &path, 8, 0, &r);
    return r;
}

/* In hundredths, rounded half up from the value rounded to thousandths. */
static long hundredths(double x)
{
    return ((long)floor(x * 1000 + 0.5) + 5) / 10;
}

/* 8 GPUs, 100 Gbit/s; exact to two decimals. */
START_TEST(test_figures)
{
    static const double rtt_ms[] = {0.2, 5, 11.5, 15, 30, 100};
    static const struct {
        const char *profile;
        double slowdown[6];
    } rows[] = {
        {"unet3d_h100", {2.03, 2.03, 2.03, 2.03, 2.03, 2.03}},
        {"resnet50_h100", {1.00, 1.00, 1.17, 1.52, 2.98, 9.81}},
        /* The figures were rounded to three decimals first: 2.1947 and 7.1947 became
         * 2.195 and 7.195, then 2.20 and 7.20. */
        {"cosmoflow_h100", {1.00, 1.00, 1.00, 1.12, 2.20, 7.20}},
        {"llama2_70b_lora_8xh100", {1.00, 1.00, 1.00, 1.00, 1.00, 1.00}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t k = 0; k < 6; k++) {
            double s = predict(rows[i].profile, rtt_ms[k]).steady;
            ck_assert_msg(hundredths(s) == hundredths(rows[i].slowdown[k]),
                          "%s at %g ms: %.4f, expected %.2f", rows[i].profile,
                          rtt_ms[k], s, rows[i].slowdown[k]);
        }
    }
}
END_TEST

/* The unrounded values, so that a change of the formula cannot hide in rounding. */
START_TEST(test_known_answers)
{
    static const struct {
        const char *profile;
        double rtt_ms, slowdown;
        enum slowdown_bound bound;
    } rows[] = {
        {"unet3d_h100", 100, 2.033346, SLOWDOWN_BOUND_BANDWIDTH},
        {"resnet50_h100", 5, 1.000000, SLOWDOWN_NOT_BOUND},
        {"resnet50_h100", 11.5, 1.173636, SLOWDOWN_BOUND_OUTSTANDING},
        {"cosmoflow_h100", 30, 2.194735, SLOWDOWN_BOUND_OUTSTANDING},
        {"cosmoflow_h100", 100, 7.194735, SLOWDOWN_BOUND_OUTSTANDING},
        {"dlrm", 30, 6.679992, SLOWDOWN_BOUND_BANDWIDTH},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slowdown_result r = predict(rows[i].profile, rows[i].rtt_ms);
        ck_assert_msg(fabs(r.steady - rows[i].slowdown) < 1e-6, "%s at %g ms: %.6f",
                      rows[i].profile, rows[i].rtt_ms, r.steady);
        ck_assert_int_eq(r.bound, rows[i].bound);
    }
}
END_TEST

/* "15 ms cost about 12 %": the cold epoch of the published ResNet run, init 42.5 s and
 * 798.4 s of training, with 64 requests of 256 KiB in flight. */
START_TEST(test_resnet_cold_epoch_at_15_ms)
{
    const struct slowdown_profile *p = slowdown_find("resnet50_mlperf_dgxh100");
    struct slowdown_path path = path_ms(15);
    struct slowdown_result r;
    slowdown_predict(p, &path, 8, 42.5 + 798.4, &r);
    ck_assert_double_eq_tol(r.job, 1.123, 0.0005);
    ck_assert_double_eq(r.steady, 1);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_OUTSTANDING);
    path = path_ms(0.2);
    slowdown_predict(p, &path, 8, 42.5 + 798.4, &r);
    ck_assert_double_eq(r.job, 1);
}
END_TEST

/* The start-up of the published Llama run, init 69.3 s and 1629 s of training, with 8
 * requests of 1 MiB in flight: 1.104 counts round trips alone, service and transfer
 * time of each request add 0.006. */
START_TEST(test_llama_startup_at_15_ms)
{
    const struct slowdown_profile *p = slowdown_find("llama2_70b_lora_8xh100");
    struct slowdown_path path = {.rtt_s = 0.015};
    struct slowdown_result r;
    slowdown_predict(p, &path, 8, 69.3 + 1629, &r);
    ck_assert_double_eq_tol(r.job, 1.104, 0.0005);
    ck_assert_double_eq(r.steady, 1);
    path = path_ms(15);
    slowdown_predict(p, &path, 8, 69.3 + 1629, &r);
    ck_assert_double_eq_tol(r.job, 1.110, 0.0005);
    ck_assert_double_eq_tol(r.once_s, 187.0, 0.1);
    slowdown_predict(p, &path, 8, 0, &r);
    ck_assert_double_eq(r.job, 1);
}
END_TEST

/* NTT's trials of a 7B model on two sites: 1.005 measured at 0.526 ms where the model,
 * which overlaps nothing, says 1.023; 8.36 at 15 ms and 0.3 Gbit/s; 1.07 at 30.6 ms. */
START_TEST(test_two_site_sync)
{
    static const struct {
        double rtt_ms, gbit, slowdown, tolerance;
    } rows[] = {
        {0.526, 100, 1.023, 0.0005}, {15, 0.3, 8.36, 0.005}, {30.6, 100, 1.07, 0.005}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slowdown_path path = path_ms(rows[i].rtt_ms);
        struct slowdown_result r;
        path.bandwidth_Bps = rows[i].gbit * GBIT;
        slowdown_predict(slowdown_find("llm_dataparallel_2site_7b"), &path, 8, 0, &r);
        ck_assert_double_eq_tol(r.steady, rows[i].slowdown, rows[i].tolerance);
    }
}
END_TEST

START_TEST(test_checkpoint)
{
    struct slowdown_result r = predict("llm_checkpoint_70b", 15);
    /* 32 writes of 8 MiB in flight outrun 100 Gbit/s: 72.96 s and two round trips. */
    ck_assert_double_eq_tol(r.steady, 1 + (912e9 / 12.5e9 + 0.030) / 3600, 1e-9);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_BANDWIDTH);
}
END_TEST

/* Each limit of the supply alone, against figures worked by hand. */
START_TEST(test_limits)
{
    struct slowdown_profile p = {.kind = SLOWDOWN_STREAM,
                                 .demand_Bps_per_gpu = 100e6,
                                 .request_bytes = MIB,
                                 .outstanding_per_gpu = 1000};
    struct slowdown_path path = {.rtt_s = 0.010, .bandwidth_Bps = 1e12};
    struct slowdown_result r;
    slowdown_predict(&p, &path, 1, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_NOT_BOUND);
    ck_assert_double_eq(r.steady, 1);

    path.streams = 4;
    path.window_bytes = 64 * 1024;
    slowdown_predict(&p, &path, 1, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_WINDOW);
    ck_assert_double_eq_tol(r.supply_Bps, 26214400, 1e-3);

    path.window_bytes = 0;
    path.loss = 1e-4; /* lossy enough to matter, as RFC 3448 has it */
    slowdown_predict(&p, &path, 1, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_LOSS);
    ck_assert_double_eq_tol(
        r.supply_Bps,
        4 * 1460 / (0.01 * sqrt(2e-4 / 3) + 0.12 * sqrt(3e-4 / 8) * 1e-4 * (1 + 32e-8)),
        1);
    ck_assert_double_eq_tol(r.supply_Bps, 71460800, 100);

    path = (struct slowdown_path){.rtt_s = 0.010};
    p.outstanding_per_gpu = 0.5;
    slowdown_predict(&p, &path, 2, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_OUTSTANDING);
    ck_assert_double_eq_tol(r.supply_Bps, MIB / 0.010, 1e-3);
    ck_assert_double_eq_tol(r.outstanding_needed_per_gpu, 100e6 * 0.010 / MIB, 1e-9);

    p.step_s = 0.1;
    p.trips_per_step = 2;
    p.outstanding_per_gpu = 1000;
    slowdown_predict(&p, &path, 2, 0, &r);
    ck_assert_double_eq_tol(r.steady, 1.2, 1e-12);
}
END_TEST

START_TEST(test_job_counts_once)
{
    struct slowdown_profile p = {.kind = SLOWDOWN_STARTUP,
                                 .bulk_request_bytes = MIB,
                                 .bulk_outstanding_per_gpu = 1000,
                                 .startup_bytes = 100e9,
                                 .startup_local_s = 10};
    struct slowdown_path path = {.rtt_s = 0.001, .bandwidth_Bps = 1e9};
    struct slowdown_result r;
    slowdown_predict(&p, &path, 1, 900, &r);
    ck_assert_double_eq_tol(r.once_s, 90, 1e-9);
    ck_assert_double_eq_tol(r.job, 1.1, 1e-12);
    slowdown_predict(&p, &path, 1, 90, &r);
    ck_assert_double_eq_tol(r.job, 2, 1e-12);
    path.bandwidth_Bps = 20e9; /* faster than the local disks: no gain is claimed */
    slowdown_predict(&p, &path, 1, 90, &r);
    ck_assert_double_eq(r.job, 1);
}
END_TEST

/* The rest of the published rows. 40 km of fibre are 0.4 ms and the equipment of the
 * measured 35 km made it 0.526; 3000 km are 29.4 ms. */
START_TEST(test_published)
{
    static const struct {
        const char *what, *profile;
        double rtt_ms, gbit, published, tolerance;
    } rows[] = {
        /* Overlap of exchange and computing is not modelled: at most 0.02 too slow. */
        {"nttcom_2024", "llm_dataparallel_2site_7b", 0.526, 100, 1.006, 0.02},
        {"nttdb_2025_apn", "llm_dataparallel_2site_7b", 0.526, 100, 1.005, 0.02},
        {"nttdb_2025_inet", "llm_dataparallel_2site_7b", 15, 0.3, 8.36, 0.005},
        {"nttdb_2025_far", "llm_dataparallel_2site_7b", 30.6, 100, 1.07, 0.005},
        /* Its bandwidth is not stated; 0.5475 Gbit/s would explain it. */
        {"nttdb_2025_overseas", "llm_dataparallel_2site_7b", 50.6, 0.5475, 5.10, 0.01},
        /* An upper bound: less than 1 %. */
        {"iowngf_tsuzumi", "llm_pretrain_megatron", 29.4, 100, 1.00, 0.01},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slowdown_path path = path_ms(rows[i].rtt_ms);
        struct slowdown_result r;
        path.bandwidth_Bps = rows[i].gbit * GBIT;
        slowdown_predict(slowdown_find(rows[i].profile), &path, 8, 0, &r);
        ck_assert_msg(fabs(r.steady - rows[i].published) <= rows[i].tolerance,
                      "%s: %.4f, published %.3f", rows[i].what, r.steady,
                      rows[i].published);
    }
}
END_TEST

/* MLPerf Storage passes at an accelerator utilisation of 90 % (70 % for CosmoFlow): a
 * slow-down of 1.111 (1.429). */
START_TEST(test_pass_limits)
{
    ck_assert_double_eq_tol(1 / slowdown_find("unet3d_h100")->au_min, 1.111, 0.0005);
    ck_assert_double_eq_tol(1 / slowdown_find("resnet50_a100")->au_min, 1.111, 0.0005);
    ck_assert_double_eq_tol(1 / slowdown_find("cosmoflow_h100")->au_min, 1.429, 0.0005);
    ck_assert_double_lt(predict("resnet50_h100", 10).steady, 1.111);
    ck_assert_double_gt(predict("resnet50_h100", 11.5).steady, 1.111);
    ck_assert_double_lt(predict("cosmoflow_h100", 18).steady, 1.429);
    ck_assert_double_gt(predict("cosmoflow_h100", 20).steady, 1.429);
}
END_TEST

/* s = 1 + (m R + bytes/X)/T: a chat of 129 tokens hardly notices 30 ms, a completion of
 * 13 does. */
START_TEST(test_request_kind)
{
    struct slowdown_result r = predict("llm_inference_conv", 30);
    ck_assert_double_eq_tol(r.steady, 1 + (0.030 + 4596 / 12.5e9) / 3.425, 1e-9);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_TRIPS);
    ck_assert_int_eq(r.term, SLOWDOWN_TERM_RESPONSE);
    r = predict("llm_inference_code", 30);
    ck_assert_double_eq_tol(r.steady, 1.0571, 0.0001);
    /* Images of 8 MiB over a thin line: the transfer counts, the trips do not. */
    struct slowdown_profile p = {.kind = SLOWDOWN_REQUEST,
                                 .trips_per_request = 2,
                                 .response_bytes = 8e6,
                                 .response_local_s = 0.5};
    struct slowdown_path path = {.rtt_s = 0.010, .bandwidth_Bps = 10e6};
    slowdown_predict(&p, &path, 8, 0, &r);
    ck_assert_double_eq_tol(r.steady, 1 + (0.020 + 0.8) / 0.5, 1e-12);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_BANDWIDTH);
    /* m is of the response: what is streamed beside it waits for one trip a read. */
    path.bandwidth_Bps = 0;
    p.demand_Bps_per_gpu = 90e6;
    p.request_bytes = 1e6;
    p.outstanding_per_gpu = 1;
    slowdown_predict(&p, &path, 8, 0, &r);
    ck_assert_double_eq_tol(r.supply_Bps, 8e6 / 0.010, 1e-3);
    ck_assert_double_eq_tol(r.steady, 1 + 0.020 / 0.5, 1e-9);
}
END_TEST

/* round = max T_i + 2 V/X + c R with three groups: 120 s of computing, 14 GB over
 * 1 GB/s, c = 0.5 trips a second of computing. */
START_TEST(test_federated)
{
    struct slowdown_profile p = {.kind = SLOWDOWN_FEDERATED,
                                 .model_bytes = 14e9,
                                 .round_s = 100,
                                 .sync_trips_Hz = 0.5};
    struct slowdown_input in[3] = {
        {.path = {.rtt_s = 0.010, .bandwidth_Bps = 1e9}, .path_id = 1},
        {.path = {.rtt_s = 0.030, .bandwidth_Bps = 2e9}, .path_id = 2, .round_s = 120},
        {.path = {.rtt_s = 0.020, .bandwidth_Bps = 2e9}, .path_id = 3, .round_s = 60}};
    struct slowdown_result r;
    slowdown_predict_inputs(&p, in, 3, 8, 0, &r);
    ck_assert_double_eq_tol(r.steady, (120 + 28 + 0.5 * 120 * 0.010) / 120, 1e-12);
    ck_assert_uint_eq(r.input, 0);
    ck_assert_int_eq(r.term, SLOWDOWN_TERM_ROUND);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_BANDWIDTH);
    ck_assert_double_eq(r.round_s, 120);
    /* The first two groups reach the coordinator by one line: two models each way. */
    in[1].path_id = 1;
    in[1].path.bandwidth_Bps = 1e9;
    slowdown_predict_inputs(&p, in, 3, 8, 0, &r);
    ck_assert_double_eq_tol(r.steady, (120 + 56 + 0.5 * 120 * 0.030) / 120, 1e-12);
    ck_assert_uint_eq(r.input, 1);
    /* Rare and far: only the trips count. */
    p.model_bytes = 1;
    slowdown_predict_inputs(&p, in, 3, 8, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_TRIPS);
}
END_TEST

/* Two extra trips a read: 16 requests of 1 MB in 3 R + t_s + q/B. */
START_TEST(test_extra_trips)
{
    struct slowdown_profile p = {.kind = SLOWDOWN_STREAM,
                                 .demand_Bps_per_gpu = 500e6,
                                 .request_bytes = 1e6,
                                 .outstanding_per_gpu = 8,
                                 .trips_per_request = 2};
    struct slowdown_path path = {
        .rtt_s = 0.010, .bandwidth_Bps = 10e9, .service_s = SLOWDOWN_SERVICE_S};
    struct slowdown_result r;
    slowdown_predict(&p, &path, 2, 0, &r);
    ck_assert_double_eq_tol(r.supply_Bps, 16e6 / (0.030 + 0.0005 + 0.0001), 1e-3);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_TRIPS);
    p.demand_Bps_per_gpu = 900e6; /* too much even without them */
    slowdown_predict(&p, &path, 2, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_OUTSTANDING);
}
END_TEST

START_TEST(test_storage_and_lossless)
{
    struct slowdown_profile p = {.kind = SLOWDOWN_STREAM, .demand_Bps_per_gpu = 1e9};
    struct slowdown_path path = {.rtt_s = 0.010, .bandwidth_Bps = 10e9, .loss = 1e-3};
    struct slowdown_result r;
    slowdown_predict(&p, &path, 4, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_LOSS);
    path.lossless = true;
    slowdown_predict(&p, &path, 4, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_NOT_BOUND);
    ck_assert_double_eq(r.steady, 1);
    path.storage_Bps = 2e9;
    slowdown_predict(&p, &path, 4, 0, &r);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_STORAGE);
    ck_assert_double_eq_tol(r.steady, 2, 1e-12);
    /* Between sites there is no storage, but there are windows. */
    struct slowdown_profile sync = {.kind = SLOWDOWN_SYNC, .sync_Bps = 100e6};
    path = (struct slowdown_path){
        .rtt_s = 0.010, .streams = 2, .window_bytes = 1e6, .storage_Bps = 1};
    slowdown_predict(&sync, &path, 8, 0, &r);
    ck_assert_double_eq_tol(r.steady, 1.5, 1e-12);
    ck_assert_int_eq(r.bound, SLOWDOWN_BOUND_WINDOW);
}
END_TEST

/* A job of 4 x 1 GB/s. */
START_TEST(test_inputs_share_paths)
{
    struct slowdown_profile p = {.kind = SLOWDOWN_STREAM, .demand_Bps_per_gpu = 1e9};
    struct slowdown_result r;
    static const struct {
        const char *what;
        struct slowdown_input in[3];
        size_t count;
        double steady;
        size_t input;
    } rows[] = {
        {"nothing read", {{.path = {.rtt_s = 0}}}, 0, 1, 0},
        {"halves on one path add up",
         {{.path = {.bandwidth_Bps = 2e9}, .share = 0.5},
          {.path = {.bandwidth_Bps = 2e9}, .share = 0.5}},
         2,
         2,
         0},
        {"halves on two paths do not",
         {{.path = {.bandwidth_Bps = 2e9}, .path_id = 1, .share = 0.5},
          {.path = {.bandwidth_Bps = 2e9}, .path_id = 2, .share = 0.5}},
         2,
         1,
         0},
        {"two that are read in full",
         {{.path = {.bandwidth_Bps = 2e9}, .share = 1},
          {.path = {.bandwidth_Bps = 2e9}, .share = 1}},
         2,
         4,
         0},
        {"not told: the job's demand, once",
         {{.path = {.bandwidth_Bps = 2e9}}, {.path = {.bandwidth_Bps = 2e9}}},
         2,
         2,
         0},
        {"the slowest decides",
         {{.path = {.bandwidth_Bps = 2e9}, .path_id = 1},
          {.path = {.bandwidth_Bps = 1e9}, .path_id = 2},
          {.path = {.bandwidth_Bps = 3e9}, .path_id = 3}},
         3,
         4,
         1},
        {"each storage bears its own part only",
         {{.path = {.storage_Bps = 2e9}, .share = 0.25},
          {.path = {.storage_Bps = 1.5e9}, .share = 0.75}},
         2,
         2,
         1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        slowdown_predict_inputs(&p, rows[i].in, rows[i].count, 4, 0, &r);
        ck_assert_msg(fabs(r.steady - rows[i].steady) < 1e-12 &&
                          r.input == rows[i].input,
                      "%s: %g of input %zu", rows[i].what, r.steady, r.input);
    }
}
END_TEST

/* Loads run side by side: the longest counts, and its input is told when it costs
 * most. */
START_TEST(test_inputs_once)
{
    struct slowdown_profile p = {
        .kind = SLOWDOWN_STARTUP, .demand_Bps_per_gpu = 100e6, .startup_bytes = 100e9};
    struct slowdown_input in[2] = {
        {.path = {.bandwidth_Bps = 1e9}, .path_id = 1, .share = 0.9},
        {.path = {.bandwidth_Bps = 0.07e9}, .path_id = 2, .share = 0.1}};
    struct slowdown_result r;
    slowdown_predict_inputs(&p, in, 2, 8, 1000, &r);
    ck_assert_double_eq_tol(r.once_s, 0.1 * 100e9 / 0.07e9, 1e-9);
    ck_assert_double_eq_tol(r.steady, 0.1 * 800e6 / 0.07e9, 1e-9);
    ck_assert_double_eq_tol(r.job, r.steady * (1000 + r.once_s) / 1000, 1e-9);
    in[1].share = 0.05;
    slowdown_predict_inputs(&p, in, 2, 8, 10000, &r);
    ck_assert_double_eq_tol(r.once_s, 90, 1e-9);
    ck_assert_int_eq(r.term, SLOWDOWN_TERM_ONCE);
    ck_assert_uint_eq(r.input, 0);
    ck_assert_double_eq_tol(r.lost, 0.009, 1e-12);
    /* 0.7 of the 0.8 GB/s: 14 % lost to the stream; 100 s of start-up are 10 % of 1000
     * s and 20 % of 500 s. */
    in[0].share = 1;
    in[0].path.bandwidth_Bps = 0.7e9;
    p.startup_bytes = 70e9;
    slowdown_predict_inputs(&p, in, 1, 8, 1000, &r);
    ck_assert_int_eq(r.term, SLOWDOWN_TERM_STREAM);
    slowdown_predict_inputs(&p, in, 1, 8, 500, &r);
    ck_assert_int_eq(r.term, SLOWDOWN_TERM_ONCE);
    ck_assert_double_eq_tol(r.job, 8.0 / 7 * 1.2, 1e-12);
}
END_TEST

/* ---- advice ---- */

static const char *advice_of(const struct slowdown_profile *p,
                             const struct slowdown_path *path, double gpus)
{
    static char text[SLOWDOWN_ADVICE_MAX];
    struct slowdown_result r;
    slowdown_predict(p, path, gpus, 0, &r);
    slowdown_advice(p, &r, text, sizeof text);
    return text;
}

START_TEST(test_advice)
{
    struct slowdown_path path = path_ms(30);
    ck_assert_str_eq(
        advice_of(slowdown_find("resnet50_h100"), &path, 8),
        "bound by outstanding requests: raise prefetch from 8 to 24 per GPU");
    ck_assert_str_eq(advice_of(slowdown_find("llama2_70b_lora_8xh100"), &path, 8),
                     "start-up bound by outstanding requests: raise those in flight "
                     "from 1 to 8 per GPU");
    path = path_ms(1);
    ck_assert_str_eq(advice_of(slowdown_find("resnet50_h100"), &path, 8), "");
    ck_assert_str_eq(advice_of(slowdown_find("unet3d_h100"), &path, 8),
                     "bound by bandwidth: book a path of 210 Gbit/s or use 3 GPUs "
                     "instead of 8");
    path.bandwidth_Bps = 0.3 * GBIT;
    path.rtt_s = 0.015;
    ck_assert_str_eq(advice_of(slowdown_find("llm_dataparallel_2site_7b"), &path, 8),
                     "sync bound by bandwidth: book a path of 23 Gbit/s for a loss of "
                     "10 %");
    ck_assert_str_eq(advice_of(slowdown_find("llm_inference_code"), &path, 8),
                     "response bound by round trips: 1 of 15 ms, keep connections open "
                     "or serve nearer");

    struct slowdown_profile p = {.kind = SLOWDOWN_STREAM,
                                 .demand_Bps_per_gpu = 125e6,
                                 .request_bytes = MIB,
                                 .outstanding_per_gpu = 100};
    path = (struct slowdown_path){
        .rtt_s = 0.036, .bandwidth_Bps = 2e9, .streams = 1, .window_bytes = 4 * MIB};
    ck_assert_str_eq(advice_of(&p, &path, 4),
                     "bound by the TCP window: raise it from 4 MiB to 18 MiB or use 5 "
                     "streams");
    path.bandwidth_Bps = 0.25e9;
    ck_assert_str_eq(advice_of(&p, &path, 4),
                     "bound by the TCP window: raise it from 4 MiB to 18 MiB or use 5 "
                     "streams; then bandwidth: 2");
    path = (struct slowdown_path){.rtt_s = 0.010, .loss = 1e-4, .streams = 4};
    ck_assert_str_eq(advice_of(&p, &path, 4),
                     "bound by packet loss: book a lossless path or use 28 streams "
                     "instead of 4");
    path = (struct slowdown_path){.rtt_s = 0.001, .storage_Bps = 0.4e9};
    ck_assert_str_eq(
        advice_of(&p, &path, 4),
        "bound by the storage: it gives 0.4 GB/s, 0.5 wanted or use 3 GPUs "
        "instead of 4");
    p.trips_per_request = 3;
    p.outstanding_per_gpu = 4;
    path = (struct slowdown_path){.rtt_s = 0.015, .service_s = SLOWDOWN_SERVICE_S};
    ck_assert_str_eq(
        advice_of(&p, &path, 4),
        "bound by round trips: avoid 3 a read, or raise prefetch from 4 to "
        "8 per GPU");
    p.step_s = 0.1;
    p.trips_per_step = 2;
    p.outstanding_per_gpu = 50;
    ck_assert_str_eq(advice_of(&p, &path, 4),
                     "bound by round trips: 2 of 15 ms a step, prefetch instead");
}
END_TEST

/* ---- a tenant's own numbers ---- */

/* The members of the request object's `custom`. */
START_TEST(test_custom_fields)
{
    static const char *const names[] = {"demand_Bps_per_gpu",
                                        "request_bytes",
                                        "outstanding_per_gpu",
                                        "trips_per_request",
                                        "step_s",
                                        "trips_per_step",
                                        "startup_bytes",
                                        "startup_local_s",
                                        "checkpoint_bytes",
                                        "checkpoint_interval_s",
                                        "sync_Bps",
                                        "sync_trips_Hz",
                                        "response_bytes",
                                        "response_local_s",
                                        "model_bytes",
                                        "round_s"};
    ck_assert_uint_eq(slowdown_field_count, sizeof names / sizeof names[0]);
    for (size_t i = 0; i < slowdown_field_count; i++) {
        const struct slowdown_field *f = &slowdown_fields[i];
        ck_assert_str_eq(f->name, names[i]);
        ck_assert(f->min <= f->max && f->min >= 0 && f->what[0] != '\0');
        ck_assert_uint_ne(f->kinds, 0);
        ck_assert_uint_eq(f->needed & ~f->kinds, 0);
        ck_assert_uint_eq(f->kinds >> SLOWDOWN_KINDS, 0);
        for (size_t k = 0; k < i; k++) {
            ck_assert_uint_ne(slowdown_fields[k].offset, f->offset);
        }
    }
}
END_TEST

START_TEST(test_custom)
{
    struct slowdown_profile p;
    struct slowdown_result r;
    struct err err;
    struct slowdown_number demand = {"demand_Bps_per_gpu", 200e6};
    ck_assert_int_eq(slowdown_profile_from(NULL, &demand, 1, &p, &err), 0);
    ck_assert_str_eq(p.name, "custom");
    ck_assert_int_eq(p.kind, SLOWDOWN_STREAM);
    struct slowdown_path path = {.rtt_s = 0.030, .bandwidth_Bps = 1e9};
    slowdown_predict(&p, &path, 8, 0, &r);
    ck_assert_double_eq_tol(r.steady, 1.6, 1e-12);

    /* A published profile told as own numbers predicts the same. */
    const struct slowdown_profile *known = slowdown_find("resnet50_h100");
    struct slowdown_number like[] = {
        {"demand_Bps_per_gpu", known->demand_Bps_per_gpu},
        {"request_bytes", known->request_bytes},
        {"outstanding_per_gpu", known->outstanding_per_gpu}};
    ck_assert_int_eq(slowdown_profile_from("stream", like, 3, &p, &err), 0);
    path = path_ms(30);
    slowdown_predict(&p, &path, 8, 0, &r);
    ck_assert_double_eq(r.steady, predict("resnet50_h100", 30).steady);

    struct slowdown_number cold[] = {{"startup_bytes", 1e12}};
    ck_assert_int_eq(slowdown_profile_from("cold", cold, 1, &p, &err), 0);
    ck_assert_int_eq(p.kind, SLOWDOWN_COLD);

    struct slowdown_number rounds[] = {
        {"model_bytes", 14e9}, {"round_s", 100}, {"sync_trips_Hz", 0.5}};
    ck_assert_int_eq(slowdown_profile_from("federated", rounds, 3, &p, &err), 0);
    path = (struct slowdown_path){.rtt_s = 0.1, .bandwidth_Bps = 1e9};
    slowdown_predict(&p, &path, 8, 0, &r);
    ck_assert_double_eq_tol(r.steady, (100 + 28 + 5) / 100.0, 1e-12);
}
END_TEST

START_TEST(test_custom_refuses)
{
    static const struct {
        const char *kind;
        struct slowdown_number numbers[2];
        const char *says;
    } rows[] = {
        {"streem", {{"demand_Bps_per_gpu", 1}}, "custom.kind: \"streem\" is none of"},
        {"stream", {{"demand", 1}}, "custom.demand: no such number"},
        {"stream",
         {{"step_s", 1}},
         "custom.demand_Bps_per_gpu: needed for kind stream"},
        {"sync", {{"sync_Bps", 1}, {"sync_Bps", 1}}, "custom.sync_Bps: given twice"},
        {"sync",
         {{"sync_Bps", 1}, {"step_s", 1}},
         "custom.step_s: means nothing for kind sync"},
        {NULL,
         {{"demand_Bps_per_gpu", 1e14}},
         "custom.demand_Bps_per_gpu: 1e+14 is not in 0..1e+13"},
        {NULL, {{"demand_Bps_per_gpu", -1}}, "-1 is not in"},
        {NULL, {{"demand_Bps_per_gpu", NAN}}, "nan is not in"},
        {"request", {{"response_local_s", 0}}, "0 is not in 1e-06.."},
        {"federated",
         {{"model_bytes", 1}},
         "custom.round_s: needed for kind federated"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slowdown_profile p = {.name = "untouched"};
        struct err err;
        size_t count = rows[i].numbers[1].name != NULL ? 2 : 1;
        ck_assert_int_eq(
            slowdown_profile_from(rows[i].kind, rows[i].numbers, count, &p, &err), -1);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
        ck_assert_msg(strstr(err.text, rows[i].says) != NULL, "%s: no \"%s\"", err.text,
                      rows[i].says);
        ck_assert_ptr_null(strchr(err.text, '\n'));
        ck_assert_str_eq(p.name, "untouched");
    }
}
END_TEST

/* ---- profiles ---- */

START_TEST(test_profiles)
{
    for (size_t i = 0; i < slowdown_profile_count; i++) {
        const struct slowdown_profile *p = &slowdown_profiles[i];
        ck_assert_ptr_eq(slowdown_find(p->name), p);
        ck_assert(p->source != NULL && p->source[0] != '\0' && p->assumed != NULL);
        double last = 0;
        for (double ms = 0; ms < 300; ms += 2.5) {
            struct slowdown_path path = path_ms(ms);
            struct slowdown_result r;
            slowdown_predict(p, &path, 8, 3600, &r);
            ck_assert_msg(isfinite(r.job) && r.job >= 1 && r.job >= last,
                          "%s at %g ms: %g after %g", p->name, ms, r.job, last);
            last = r.job;
        }
    }
    ck_assert_uint_eq(slowdown_profile_count, 19);
    ck_assert_ptr_null(slowdown_find("resnet50"));
    ck_assert_str_eq(slowdown_kind_name(SLOWDOWN_COLD), "cold_then_cached");
    for (int k = 0; k < SLOWDOWN_KINDS; k++) {
        enum slowdown_kind kind;
        ck_assert(slowdown_kind_find(slowdown_kind_name((enum slowdown_kind)k), &kind));
        ck_assert_int_eq(kind, k);
    }
}
END_TEST

/* Compares what both have; spaces are nothing. True when `text` begins with `with`. */
static bool begins(const char *text, const char *with)
{
    while (*with != '\0') {
        if (*text == ' ') {
            text++;
        } else if (*with == ' ') {
            with++;
        } else if (*text++ != *with++) {
            return false;
        }
    }
    return true;
}

enum column {
    C_NAME,
    C_KIND,
    C_GPU,
    C_SAMPLES,
    C_SAMPLE_BYTES,
    C_DEMAND_MBPS,
    C_REQUEST,
    C_OUTSTANDING,
    C_AU,
    C_STARTUP,
    C_CHECKPOINT,
    C_SYNC,
    C_STEP,
    C_SOURCE,
    C_ASSUMED,
    C_COUNT
};

static void compare_row(char *const col[C_COUNT])
{
    const struct slowdown_profile *p = slowdown_find(col[C_NAME]);
    ck_assert_msg(p != NULL, "%s is not known", col[C_NAME]);
    ck_assert_str_eq(slowdown_kind_name(p->kind), col[C_KIND]);
    char *doubt = strchr(col[C_GPU], '?');
    if (doubt != NULL) { /* the table asks, so we assume */
        *doubt = '\0';
        ck_assert_ptr_nonnull(strstr(p->assumed, "gpu"));
    }
    ck_assert_str_eq(p->gpu, col[C_GPU][0] != '\0' ? col[C_GPU] : "any");
    ck_assert_double_eq_tol(p->demand_Bps_per_gpu,
                            strtod(col[C_DEMAND_MBPS], NULL) * 1e6, 1);
    ck_assert_double_eq(p->request_bytes, strtod(col[C_REQUEST], NULL));
    ck_assert_double_eq(p->outstanding_per_gpu, strtod(col[C_OUTSTANDING], NULL));
    ck_assert_double_eq(p->au_min, strtod(col[C_AU], NULL));
    ck_assert_double_eq(p->checkpoint_bytes, strtod(col[C_CHECKPOINT], NULL));
    ck_assert_double_eq(p->sync_Bps, strtod(col[C_SYNC], NULL));
    ck_assert_double_eq(p->step_s, strtod(col[C_STEP], NULL));
    if (p->kind == SLOWDOWN_STARTUP) {
        ck_assert_double_eq(p->startup_bytes, strtod(col[C_STARTUP], NULL));
    }
    /* What the table adds in words after the place is said differently here. */
    *strchrnul(col[C_SOURCE], '(') = '\0';
    char *more = strstr(col[C_SOURCE], " applied");
    if (more != NULL) {
        *more = '\0';
    }
    ck_assert_msg(begins(p->source, col[C_SOURCE]), "%s: %s", p->source, col[C_SOURCE]);
    ck_assert_msg(col[C_ASSUMED][0] == '\0' || p->assumed[0] != '\0',
                  "%s: the table assumes %s", p->name, col[C_ASSUMED]);
}

START_TEST(test_profiles_mirror_the_table)
{
    const char *folder = getenv("NEARGPU_DATA");
    char path[4096], line[1024];
    size_t rows = 0;
    if (folder == NULL) {
        return;
    }
    snprintf(path, sizeof path, "%s/workload_profiles.csv", folder);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "no %s", path);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f)); /* header */
    while (fgets(line, sizeof line, f) != NULL) {
        char *col[C_COUNT], *rest = line;
        line[strcspn(line, "\n")] = '\0';
        for (int c = 0; c < C_COUNT; c++) {
            ck_assert_ptr_nonnull(rest);
            col[c] = strsep(&rest, ",");
        }
        compare_row(col);
        rows++;
    }
    fclose(f);
    ck_assert_uint_eq(rows, slowdown_profile_count);
}
END_TEST

UNIT_MAIN("slowdown",
          UNIT_CASE(test_figures) UNIT_CASE(test_known_answers) UNIT_CASE(
              test_resnet_cold_epoch_at_15_ms) UNIT_CASE(test_llama_startup_at_15_ms)
              UNIT_CASE(test_two_site_sync) UNIT_CASE(test_published) UNIT_CASE(
                  test_pass_limits) UNIT_CASE(test_checkpoint) UNIT_CASE(test_limits)
                  UNIT_CASE(test_request_kind) UNIT_CASE(test_federated)
                      UNIT_CASE(test_extra_trips) UNIT_CASE(test_storage_and_lossless)
                          UNIT_CASE(test_inputs_share_paths) UNIT_CASE(test_inputs_once)
                              UNIT_CASE(test_job_counts_once) UNIT_CASE(test_advice)
                                  UNIT_CASE(test_custom_fields) UNIT_CASE(test_custom)
                                      UNIT_CASE(test_custom_refuses)
                                          UNIT_CASE(test_profiles)
                                              UNIT_CASE(test_profiles_mirror_the_table))
