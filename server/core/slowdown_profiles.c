/* slowdown_profiles: the published facts behind the slow-down model. Each row names its
 * source; `assumed` names the fields that no source gives. Demand is samples/s times
 * bytes/sample of the source. test_slowdown compares the rows with the public table
 * they mirror when that is at hand. */
#include "server/core/slowdown.h"

#include <string.h>

#define MIB 1048576.0

/* MLPerf Training v4.0, NVIDIA eos_ngc24.04_nemo: the model of 68.98e9 parameters is
 * read at start-up in bfloat16. */
#define LLAMA2_70B_BYTES 137.96e9
/* ImageNet train set at the sample size of MLPerf Storage. */
#define IMAGENET_BYTES (1281167 * 114660.07)

#define DLIO_STORAGE "mlcommons/storage: configs/dlio/workload/"
#define DLIO_ARGONNE "argonne-lcf/dlio_benchmark: dlio_benchmark/configs/workload/"
#define MLPERF_V4    "mlcommons/training_results_v4.0: NVIDIA/results/"
#define CKPT_SOURCE  "mlcommons/storage: Submission_guidelines.md Table 2"
#define AZURE_TRACE  "Azure/AzurePublicDataset data/AzureLLMInferenceTrace_"
#define CKPT_ASSUMED "bulk_request_bytes; bulk_outstanding; checkpoint_interval"

#define CHECKPOINT(label, bytes, gpus)                                    \
    {                                                                     \
        .name = label, .kind = SLOWDOWN_CHECKPOINT, .gpu = "any",         \
        .bulk_request_bytes = 8 * MIB, .bulk_outstanding_per_gpu = 4,     \
        .checkpoint_bytes = bytes, .checkpoint_interval_s = 3600,         \
        .source = CKPT_SOURCE " (" gpus " GPUs)", .assumed = CKPT_ASSUMED \
    }

/* The sources of streams name the size of a checkpoint, not how often one is written:
 * without an interval it is shown and not counted. */
#define STREAM(label, au, model, demand, request, requests, step, checkpoint, from, \
               guess)                                                               \
    {                                                                               \
        .name = label, .kind = SLOWDOWN_STREAM, .gpu = model,                       \
        .demand_Bps_per_gpu = demand, .request_bytes = request,                     \
        .outstanding_per_gpu = requests, .step_s = step, .au_min = au,              \
        .checkpoint_bytes = checkpoint, .source = from, .assumed = guess            \
    }

/* The traces name tokens. Text has about 4 bytes a token; a response is taken to cost
 * 0.2 s and 25 ms a generated token, and one round trip on an open connection. */
#define REQUEST(label, context, generated, from)                                       \
    {                                                                                  \
        .name = label, .kind = SLOWDOWN_REQUEST, .gpu = "any", .trips_per_request = 1, \
        .response_bytes = 4 * ((context) + (generated)),                               \
        .response_local_s = 0.2 + 0.025 * (generated), .source = from,                 \
        .assumed = "response_bytes=4 a token; response_local=0.2 s + 25 ms a token; "  \
                   "trips_per_request"                                                 \
    }

const struct slowdown_profile slowdown_profiles[] = {
    STREAM("unet3d_h100", 0.90, "H100", 3177.103e6, 146600628, 4, 0.323, 499153191,
           DLIO_STORAGE "unet3d_h100.yaml", "request_bytes=sample"),
    STREAM("unet3d_a100", 0.90, "A100", 1613.529e6, 146600628, 4, 0.636, 499153191,
           DLIO_STORAGE "unet3d_a100.yaml", "request_bytes=sample"),
    STREAM("resnet50_h100", 0.90, "H100", 204.750e6, 262144, 8, 0.224, 0,
           DLIO_STORAGE "resnet50_h100.yaml", "request_bytes"),
    STREAM("resnet50_a100", 0.90, "A100", 105.435e6, 262144, 8, 0.435, 0,
           DLIO_STORAGE "resnet50_a100.yaml", "request_bytes"),
    STREAM("cosmoflow_h100", 0.70, "H100", 808.139e6, 2828486, 4, 0.0035, 0,
           DLIO_STORAGE "cosmoflow_h100.yaml", "request_bytes=sample"),
    STREAM("cosmoflow_a100", 0.70, "A100", 513.337e6, 2828486, 4, 0.00551, 0,
           DLIO_STORAGE "cosmoflow_a100.yaml", "request_bytes=sample"),
    STREAM("dlrm", 0, "A100", 10437.487e6, 671088640, 1, 0.064296, 0,
           DLIO_ARGONNE "dlrm.yaml", "gpu; request_bytes=sample"),
    STREAM("bert_v100", 0, "V100", 0.124e6, 262144, 1, 0.968, 4034713312,
           DLIO_ARGONNE "bert_v100.yaml", ""),
    STREAM("llm_pretrain_megatron", 0, "any", 0.0134e6, 2048, 1, 2.44, 0,
           DLIO_ARGONNE "megatron_deepspeed_LLNL.yaml", "gpu"),
    {.name = "resnet50_mlperf_dgxh100",
     .kind = SLOWDOWN_COLD,
     .gpu = "H100",
     .demand_Bps_per_gpu = 820.922e6,
     .request_bytes = 262144,
     .outstanding_per_gpu = 8,
     .step_s = 0.0559,
     .startup_bytes = IMAGENET_BYTES,
     .startup_local_s = 1281167 / 39026.398, /* at the throughput of the first epoch */
     .source = MLPERF_V4 "eos_ngc24.04_mxnet/resnet/result_0.txt",
     .assumed = "bytes_per_sample from MLPerf Storage; request_bytes; outstanding"},
    {.name = "llama2_70b_lora_8xh100",
     .kind = SLOWDOWN_STARTUP,
     .gpu = "H100",
     .demand_Bps_per_gpu = 0.0265e6,
     .request_bytes = 98304,
     .outstanding_per_gpu = 1,
     .step_s = 3.712,
     .bulk_request_bytes = MIB,
     .bulk_outstanding_per_gpu = 1,
     .startup_bytes = LLAMA2_70B_BYTES,
     .startup_local_s = 69.3, /* init of the run, which loads from local disks */
     .source = MLPERF_V4 "eos_ngc24.04_nemo/llama2_70b_lora/result_0.txt",
     .assumed = "bytes_per_sample=8192 tokens x 3 int32; startup_bytes=68.98e9 x 2; "
                "bulk_request_bytes; bulk_outstanding; startup_local=init"},
    CHECKPOINT("llm_checkpoint_8b", 105e9, "8"),
    CHECKPOINT("llm_checkpoint_70b", 912e9, "64"),
    CHECKPOINT("llm_checkpoint_405b", 5290e9, "512"),
    CHECKPOINT("llm_checkpoint_1t", 18e12, "1024"),
    {.name = "llm_dataparallel_2site_7b",
     .kind = SLOWDOWN_SYNC,
     .gpu = "H100",
     .sync_Bps = 275.118e6,
     .sync_trips_Hz = 1.6,
     .source = "fit to notes.yuuk.io MPLS Japan 2025 (NTT, tsuzumi-7B on two sites)",
     .assumed = "sync_Bps and sync_trips are a fit, not a measurement"},
    {.name = "llm_diloco_7b",
     .kind = SLOWDOWN_SYNC,
     .gpu = "any",
     .sync_Bps = 550236,
     .sync_trips_Hz = 1.6 / 500,
     .source = "syncedreview.com DiLoCo: 500x less communication (arXiv 2311.08105)",
     .assumed = "derived from llm_dataparallel_2site_7b"},
    REQUEST("llm_inference_conv", 1020, 129,
            AZURE_TRACE "conv.csv: medians 1020 context and 129 generated tokens"),
    REQUEST("llm_inference_code", 1469, 13,
            AZURE_TRACE "code.csv: medians 1469 context and 13 generated tokens"),
};
const size_t slowdown_profile_count =
    sizeof slowdown_profiles / sizeof slowdown_profiles[0];

const struct slowdown_profile *slowdown_find(const char *name)
{
    for (size_t i = 0; i < slowdown_profile_count; i++) {
        if (strcmp(slowdown_profiles[i].name, name) == 0) {
            return &slowdown_profiles[i];
        }
    }
    return NULL;
}

static const char *const kind_names[SLOWDOWN_KINDS] = {
    [SLOWDOWN_STREAM] = "stream",       [SLOWDOWN_COLD] = "cold_then_cached",
    [SLOWDOWN_STARTUP] = "startup",     [SLOWDOWN_CHECKPOINT] = "checkpoint",
    [SLOWDOWN_SYNC] = "sync",           [SLOWDOWN_REQUEST] = "request",
    [SLOWDOWN_FEDERATED] = "federated",
};

const char *slowdown_kind_name(enum slowdown_kind kind)
{
    return (unsigned)kind < SLOWDOWN_KINDS ? kind_names[kind] : "unknown";
}

bool slowdown_kind_find(const char *name, enum slowdown_kind *ret)
{
    if (strcmp(name, "cold") == 0) {
        *ret = SLOWDOWN_COLD;
        return true;
    }
    for (int i = 0; i < SLOWDOWN_KINDS; i++) {
        if (strcmp(name, kind_names[i]) == 0) {
            *ret = (enum slowdown_kind)i;
            return true;
        }
    }
    return false;
}
