/* bounds: every limit on input, queues and lists, each with its reason. */
#ifndef NEARGPU_BOUNDS_H
#define NEARGPU_BOUNDS_H

#define NAME_BYTES_MAX           63 /* tenant, provider, site, data set names: [a-z0-9-] */
#define GPUS_PER_NODE_MAX        64 /* a bit per GPU in one uint64_t mask */
#define GANG_NODES_MAX           1024 /* largest public training runs use about this many */
#define DATASETS_PER_REQUEST_MAX 16
#define HTTP_HEAD_MAX            (16 * 1024)  /* request line and headers */
#define HTTP_BODY_MAX            (256 * 1024) /* API bodies; receipts batches fit */
#define HTTP_RESPONSE_MAX        (16 * 1024 * 1024) /* a bad server cannot fill memory */
#define JSONX_DEPTH_MAX          16                 /* our deepest document has 7 */
#define FORM_BYTES_MAX           (64 * 1024)  /* two tokens with every byte escaped */
#define TOKEN_BYTES_MAX          8192         /* enforcement.md: size <= 8 KiB */
#define STATUS_BYTES_MAX         (640 * 1024) /* base64url of STATUS_REVOKED_MAX ids */
#define STATUS_EPOCHS_MAX        1000 /* GPUs of leases revoked before their end */
#define RECEIPT_BYTES_MAX        (64 * 1024) /* evidence of GPUS_PER_NODE_MAX GPUs */
#define JWKS_BYTES_MAX           (64 * 1024)
#define KEYRING_KEYS_MAX         64
#define STATUS_REVOKED_MAX       10000 /* revoked leases in one status document */
#define PGCONN_UNITS_MAX         256   /* units in flight per connection */
#define BOOK_BATCH_MAX           100   /* measured: larger batches gain nothing */
#define RESERVE_CANDIDATES_MAX   32 /* lost races before the request is told to retry */
#define LEASE_MAX_US             (INT64_C(31) * 24 * 3600 * 1000000) /* 31 days */
#define HORIZON_US               (INT64_C(366) * 24 * 3600 * 1000000) /* booking ahead: a year */
#define RUN_FRAME_MAX            (64 * 1024) /* one frame between CLI, agent and keeper */
#define LIST_PAGE_MAX            500
#define LOG_PROMISE_S                                               \
    60 /* from the countersign of a receipt to its place in the log \
        */

#endif
