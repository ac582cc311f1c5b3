/* store_ops: the table; see the header. */
#include "server/db/store_ops.h"

#define READ(op_name, op_types, op_sql)                        \
    {                                                          \
        op_name, op_sql, op_types, LANE_MAIN, SHAPE_JSON, true \
    }
/* A write that does the same when it is sent twice. */
#define AGAIN(op_name, op_types, op_sql) READ(op_name, op_types, op_sql)
#define WRITE(op_name, op_types, op_sql)                        \
    {                                                           \
        op_name, op_sql, op_types, LANE_MAIN, SHAPE_JSON, false \
    }
#define ROWS(op_name, op_types, op_sql)                        \
    {                                                          \
        op_name, op_sql, op_types, LANE_MAIN, SHAPE_ROWS, true \
    }
#define REPORT(op_name, op_types, op_sql)                        \
    {                                                            \
        op_name, op_sql, op_types, LANE_REPORT, SHAPE_JSON, true \
    }
#define FROM_US(param) \
    "timestamptz 'epoch' + " param "::bigint * interval '1 microsecond'"

const struct store_opdef store_ops[STORE_OP_COUNT] = {
    [STORE_MARKET] = READ("market", "", "SELECT api.market()"),
    [STORE_TENANT_CREATE] =
        WRITE("tenant_create", "ttihtth",
              "SELECT api.tenant_create($1, $2, $3, $4, $5, $6, $7)"),
    [STORE_TENANT_LIST] = READ("tenant_list", "ti", "SELECT api.tenant_list($1, $2)"),
    [STORE_TENANT_KEY_ADD] =
        AGAIN("tenant_key_add", "tttt", "SELECT api.tenant_key_add($1, $2, $3, $4)"),
    [STORE_TENANT_KEY_LIST] =
        READ("tenant_key_list", "t", "SELECT api.tenant_key_list($1)"),
    [STORE_TENANT_KEY_REMOVE] =
        WRITE("tenant_key_remove", "tt", "SELECT api.tenant_key_remove($1, $2)"),
    [STORE_TENANT_PRIORITY] =
        AGAIN("tenant_priority", "ti", "SELECT api.tenant_priority($1, $2)"),
    [STORE_TOPUP] =
        WRITE("topup", "titttth", "SELECT api.topup($1, $2, $3, $4, $5, $6, $7)"),
    [STORE_PROVIDER_CREATE] =
        WRITE("provider_create", "tihtth",
              "SELECT api.provider_create($1, $2, $3, $4, $5, $6)"),
    [STORE_PROVIDER_LIST] =
        READ("provider_list", "ti", "SELECT api.provider_list($1, $2)"),
    [STORE_SITE_CREATE] =
        WRITE("site_create", "ttrrtttth",
              "SELECT api.site_create($1, $2, $3, $4, $5, $6, $7, $8, $9)"),
    [STORE_SITE_PATCH] = AGAIN("site_patch", "tt", "SELECT api.site_patch($1, $2)"),
    [STORE_SITE_LIST] = READ("site_list", "", "SELECT api.site_list()"),
    [STORE_JOIN_CODE] = WRITE("join_code", "ttthitth",
                              "SELECT api.join_code($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_NODE_LIST] = READ("node_list", "tti", "SELECT api.node_list($1, $2, $3)"),
    [STORE_NODE_BAN] =
        AGAIN("node_ban", "tttti", "SELECT api.node_ban($1, $2, $3, $4, $5)"),
    [STORE_NODE_UNBAN] = AGAIN("node_unban", "tt", "SELECT api.node_unban($1, $2)"),
    [STORE_NODE_REATTEST] =
        WRITE("node_reattest", "ttthitth",
              "SELECT api.node_reattest($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_PRICE_LIST] = READ("price_list", "t", "SELECT api.price_list($1)"),
    [STORE_PRICE_SET] = AGAIN("price_set", "ttttitii",
                              "SELECT api.price_set($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_DATASET_ADD] =
        WRITE("dataset_add", "ttttrritth",
              "SELECT api.dataset_add($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"),
    [STORE_DATASET_LIST] = READ("dataset_list", "t", "SELECT api.dataset_list($1)"),
    [STORE_DATASET_GET] = READ("dataset_get", "tt", "SELECT api.dataset_get($1, $2)"),
    [STORE_DATASET_REMOVE] =
        WRITE("dataset_remove", "tt", "SELECT api.dataset_remove($1, $2)"),

    [STORE_PATH_CREATE] =
        WRITE("path_create", "ttttiiibiitth",
              "SELECT api.path_create($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, "
              "$12, $13)"),
    [STORE_PATH_PATCH] =
        AGAIN("path_patch", "tiiibt", "SELECT api.path_patch($1, $2, $3, $4, $5, $6)"),
    [STORE_PATH_LIST] = READ("path_list", "", "SELECT api.path_list()"),
    [STORE_PATHS_DUE] = WRITE("paths_due", "iii", "SELECT api.paths_due($1, $2, $3)"),
    [STORE_PATH_SET] = AGAIN("path_set", "itti", "SELECT api.path_set($1, $2, $3, $4)"),

    [STORE_ENROLL] = AGAIN("enroll", "hht", "SELECT api.enroll($1, $2, $3)"),
    [STORE_CERT_SET] = AGAIN("cert_set", "ih", "SELECT api.cert_set($1, $2)"),
    [STORE_CERT_USED] = AGAIN("cert_used", "ih", "SELECT api.cert_used($1, $2)"),
    [STORE_SYNC] = AGAIN("sync", "iji", "SELECT api.sync($1, $2, $3)"),
    [STORE_DESIRED] = READ("desired", "iji", "SELECT api.desired($1, $2, $3)"),
    [STORE_RECEIPTS] = AGAIN("receipts", "iji", "SELECT api.receipts($1, $2, $3)"),

    [STORE_RESV_GET] = READ("resv_get", "tt", "SELECT api.resv_get($1, $2)"),
    [STORE_RESV_BY_KEY] = READ("resv_by_key", "tt", "SELECT api.resv_by_key($1, $2)"),
    [STORE_RESV_LIST] =
        READ("resv_list", "ttti", "SELECT api.resv_list($1, $2, $3, $4)"),
    [STORE_RESV_EXTEND] = AGAIN("resv_extend", "ttiibi",
                                "SELECT api.resv_extend($1, $2, $3, $4, $5, $6)"),
    [STORE_RESV_SHRINK] = AGAIN("resv_shrink", "ttiibi",
                                "SELECT api.resv_shrink($1, $2, $3, $4, $5, $6)"),
    [STORE_RESV_MOVE] =
        AGAIN("resv_move", "ttijjiijjjbbi",
              "SELECT api.resv_move($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, "
              "$13)"),
    [STORE_RESV_CONFIRM] =
        AGAIN("resv_confirm", "ttthi", "SELECT api.resv_confirm($1, $2, $3, $4, $5)"),
    [STORE_RESV_CANCEL] =
        AGAIN("resv_cancel", "tttbi", "SELECT api.resv_cancel($1, $2, $3, $4, $5)"),
    [STORE_RESV_FAIL] =
        AGAIN("resv_fail", "ttii", "SELECT api.resv_fail($1, $2, $3, $4)"),
    [STORE_RESV_LOST] = READ("resv_lost", "i", "SELECT api.resv_lost($1)"),
    [STORE_SITE_RESV] = READ("site_resv", "ti", "SELECT api.site_resv($1, $2)"),
    [STORE_WAIT_PUT] = WRITE("wait_put", "ttjibith",
                             "SELECT api.wait_put($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_WAIT_LIST] = READ("wait_list", "", "SELECT api.wait_list()"),
    [STORE_WAIT_PLAN] = AGAIN("wait_plan", "j", "SELECT api.wait_plan($1)"),
    [STORE_QUOTE_PUT] =
        WRITE("quote_put", "ttiijjhtth",
              "SELECT api.quote_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"),
    [STORE_QUOTE_GET] = READ("quote_get", "tt", "SELECT api.quote_get($1, $2)"),
    [STORE_TOKEN_LOG] = AGAIN("token_log", "tj", "SELECT api.token_log($1, $2)"),
    [STORE_STATUS] = READ("status", "i", "SELECT api.status($1)"),
    [STORE_TRANSITIONS] = AGAIN("transitions", "ii", "SELECT api.transitions($1, $2)"),
    [STORE_PRUNE] = AGAIN("prune", "i", "SELECT api.prune($1)"),
    [STORE_NODES_OVERDUE] =
        AGAIN("nodes_overdue", "iii", "SELECT api.nodes_overdue($1, $2, $3)"),

    [STORE_WALLET] = READ("wallet", "ti", "SELECT api.wallet($1, $2)"),
    [STORE_USAGE] =
        READ("usage", "tttiiti", "SELECT api.usage($1, $2, $3, $4, $5, $6, $7)"),
    [STORE_CHARGES] =
        READ("charges", "ttiiti", "SELECT api.charges($1, $2, $3, $4, $5, $6)"),
    [STORE_TENANT_BILLING] =
        AGAIN("tenant_billing", "tttt", "SELECT api.tenant_billing($1, $2, $3, $4)"),
    [STORE_ADMIN_CREATE] = WRITE("admin_create", "thttht",
                                 "SELECT api.admin_create($1, $2, $3, $4, $5, $6)"),
    [STORE_ADMIN_APPROVE] =
        AGAIN("admin_approve", "tt", "SELECT api.admin_approve($1, $2)"),
    [STORE_ADMIN_LIST] = READ("admin_list", "", "SELECT api.admin_list()"),
    [STORE_ADMIN_REMOVE] =
        WRITE("admin_remove", "tt", "SELECT api.admin_remove($1, $2)"),
    [STORE_MARKET_TERMS] = READ("market_terms", "", "SELECT api.market_terms()"),
    [STORE_MARKET_SET] =
        AGAIN("market_set", "iiijit", "SELECT api.market_set($1, $2, $3, $4, $5, $6)"),
    [STORE_PROVIDER_TERMS] =
        READ("provider_terms", "t", "SELECT api.provider_terms($1)"),
    [STORE_PROVIDER_BANK] =
        AGAIN("provider_bank", "tjt", "SELECT api.provider_bank($1, $2, $3)"),
    [STORE_PROVIDER_RESERVE] =
        AGAIN("provider_reserve", "ti", "SELECT api.provider_reserve($1, $2)"),
    [STORE_PAYOUT_LIST] =
        READ("payout_list", "tti", "SELECT api.payout_list($1, $2, $3)"),
    [STORE_PAYOUT_REQUEST] = WRITE("payout_request", "tittht",
                                   "SELECT api.payout_request($1, $2, $3, $4, $5, $6)"),
    [STORE_PAYOUT_ACT] = AGAIN("payout_act", "ittiitt",
                               "SELECT api.payout_act($1, $2, $3, $4, $5, $6, $7)"),
    [STORE_PAYOUT_FILE_NEW] = WRITE("payout_file_new", "tttht",
                                    "SELECT api.payout_file_new($1, $2, $3, $4, $5)"),
    [STORE_PAYOUT_FILE_GET] =
        READ("payout_file_get", "i", "SELECT api.payout_file_get($1)"),
    [STORE_PAYOUT_RESULT_LIST] =
        READ("payout_result_list", "ti", "SELECT api.payout_result_list($1, $2)"),
    [STORE_PAYOUT_RESULTS] =
        WRITE("payout_results", "tthjttht",
              "SELECT api.payout_results($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_STATEMENT] = READ("statement", "tt", "SELECT api.statement($1, $2)"),
    [STORE_REFUND] = WRITE("refund", "tittttht",
                           "SELECT api.refund($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_CREDIT_NOTE_LIST] =
        READ("credit_note_list", "tti", "SELECT api.credit_note_list($1, $2, $3)"),
    [STORE_CREDIT_NOTE_GET] =
        READ("credit_note_get", "tt", "SELECT api.credit_note_get($1, $2)"),
    [STORE_DISPUTE_OPEN] =
        AGAIN("dispute_open", "tttt", "SELECT api.dispute_open($1, $2, $3, $4)"),
    [STORE_DISPUTE_CLOSE] =
        WRITE("dispute_close", "tt", "SELECT api.dispute_close($1, $2)"),
    [STORE_WITHDRAW] =
        WRITE("withdraw", "tittth", "SELECT api.withdraw($1, $2, $3, $4, $5, $6)"),
    [STORE_CHECKS_LAST] = READ("checks_last", "", "SELECT api.check_last()"),
    [STORE_BUDGET_GET] = READ("budget_get", "tt", "SELECT api.budget_get($1, $2)"),
    [STORE_BUDGET_SET] =
        AGAIN("budget_set", "ttj", "SELECT api.budget_set($1, $2, $3)"),
    [STORE_BUDGET_REMOVE] =
        WRITE("budget_remove", "tt", "SELECT api.budget_remove($1, $2)"),
    [STORE_PROMO_GRANT] =
        WRITE("promo_grant", "jttth", "SELECT api.promo_grant($1, $2, $3, $4, $5)"),
    [STORE_PROMO_LIST] = READ("promo_list", "tti", "SELECT api.promo_list($1, $2, $3)"),
    [STORE_INCIDENT_OPEN] =
        WRITE("incident_open", "jttth", "SELECT api.incident_open($1, $2, $3, $4, $5)"),
    [STORE_INCIDENT_CLOSE] =
        AGAIN("incident_close", "tjt", "SELECT api.incident_close($1, $2, $3)"),
    [STORE_INCIDENT_LIST] =
        READ("incident_list", "ttti", "SELECT api.incident_list($1, $2, $3, $4)"),
    [STORE_SLA_TERMS] = READ("sla_terms", "", "SELECT api.sla_terms()"),
    [STORE_SLA_TERMS_SET] = AGAIN("sla_terms_set", "j", "SELECT api.sla_terms_set($1)"),
    [STORE_SLA_CREDIT] =
        WRITE("sla_credit", "tjt", "SELECT api.sla_credit($1, $2, $3)"),
    [STORE_FX_SET] = WRITE("fx_set", "jt", "SELECT api.fx_set($1, $2)"),
    [STORE_FX_LIST] = READ("fx_list", "", "SELECT api.fx_list()"),
    [STORE_TAX_LIST] = READ("tax_list", "", "SELECT api.tax_list()"),
    [STORE_TAX_RATE_SET] =
        AGAIN("tax_rate_set", "jt", "SELECT api.tax_rate_set($1, $2)"),
    [STORE_TAX_RULE_SET] =
        AGAIN("tax_rule_set", "jt", "SELECT api.tax_rule_set($1, $2)"),
    [STORE_INVOICE_LIST] =
        READ("invoice_list", "tti", "SELECT api.invoice_list($1, $2, $3)"),
    [STORE_INVOICE_GET] = READ("invoice_get", "tt", "SELECT api.invoice_get($1, $2)"),
    [STORE_RECEIPTS_SIGNED] =
        AGAIN("receipts_signed", "ij", "SELECT api.receipts_signed($1, $2)"),
    [STORE_AUDIT_PUT] = WRITE("audit_put", "j", "SELECT api.audit_put($1)"),
    [STORE_AUDIT_LIST] = READ("audit_list", "tiitttti",
                              "SELECT api.audit_list($1, $2, $3, $4, $5, $6, $7, $8)"),
    [STORE_LOG_CHECKPOINT] =
        READ("log_checkpoint", "tit", "SELECT api.log_checkpoint($1, $2, $3)"),
    [STORE_LOG_NOTE] = READ("log_note", "tit", "SELECT api.log_note($1, $2, $3)"),
    [STORE_LOG_COSIGN] =
        AGAIN("log_cosign", "titt", "SELECT api.log_cosign($1, $2, $3, $4)"),
    [STORE_WITNESS_ADD] =
        AGAIN("witness_add", "tttt", "SELECT api.witness_add($1, $2, $3, $4)"),
    [STORE_WITNESS_LIST] = READ("witness_list", "b", "SELECT api.witness_list($1)"),
    [STORE_AGENT_LOG] = READ("agent_log", "ij", "SELECT api.agent_log($1, $2)"),
    [STORE_AGENT_COSIGN] = AGAIN("agent_cosign", "ittjjtt",
                                 "SELECT api.agent_cosign($1, $2, $3, $4, $5, $6, $7)"),
    [STORE_LOG_BUNDLE] = READ("log_bundle", "ttt", "SELECT api.log_bundle($1, $2, $3)"),
    [STORE_REPORT_LIST] =
        REPORT("report_list", "",
               "SELECT jsonb_build_object('reports', coalesce(jsonb_agg("
               "jsonb_build_object('name', name, 'description', description, 'period', "
               "period, 'filters', filters) ORDER BY name), '[]')) FROM "
               "report.catalog"),
    [STORE_REPORT] = REPORT(
        "report", "tiittttt",
        "SELECT report.run($1, " FROM_US("$2") ", " FROM_US("$3") ", $4, $5, $6, "
                                                                  "$7, $8)"),
    [STORE_ADMIN_STATUS] = READ("admin_status", "", "SELECT api.admin_status()"),

    [STORE_FEED_HEAD] = READ("feed_head", "", "SELECT api.feed_head()"),
    [STORE_CHANGES] = READ("changes", "tib", "SELECT api.changes($1, $2, $3)"),
    [STORE_EVENTS] = READ("events", "ttti", "SELECT api.events($1, $2, $3, $4)"),

    [STORE_WORLD_KEYS] = ROWS("world_keys", "", "SELECT * FROM api.world_keys()"),
    [STORE_WORLD_SITES] = ROWS("world_sites", "i", "SELECT * FROM api.world_sites($1)"),
    [STORE_WORLD_NODES] = ROWS("world_nodes", "i", "SELECT * FROM api.world_nodes($1)"),
    [STORE_WORLD_DATASETS] =
        ROWS("world_datasets", "i", "SELECT * FROM api.world_datasets($1)"),
    [STORE_WORLD_RTTS] = ROWS("world_rtts", "i", "SELECT * FROM api.world_rtts($1)"),
    [STORE_WORLD_PATHS] = ROWS("world_paths", "i", "SELECT * FROM api.world_paths($1)"),
    [STORE_WORLD_LANES] = ROWS("world_lanes", "i", "SELECT * FROM api.world_lanes($1)"),
    [STORE_WORLD_BOOKINGS] =
        ROWS("world_bookings", "i", "SELECT * FROM api.world_bookings($1)"),
};
