/* flows: every kind of request the server answers, for the route table in net/ and the
 * server's own flows for main. The comment above says method, path and roles; the
 * path's placeholders are those the flow asks for with flow_param(). */
#ifndef NEARGPU_FLOWS_H
#define NEARGPU_FLOWS_H
#include "server/flow/flow.h"

/* Matching and booking. */
/* GET /v1/offers: tenant, admin */
extern const struct flow_kind flow_offers;
/* GET /v1/explain: tenant, admin */
extern const struct flow_kind flow_explain;
/* GET /v1/calendar: keyed */
extern const struct flow_kind flow_calendar;
/* POST /v1/quotes: tenant */
extern const struct flow_kind flow_quote;
/* POST /v1/reservations: tenant */
extern const struct flow_kind flow_reserve;
/* GET /v1/profiles: any */
extern const struct flow_kind flow_profiles;

/* Reservations. */
/* GET /v1/reservations: tenant, admin */
extern const struct flow_kind flow_resv_list;
/* GET /v1/reservations/{id}: tenant, admin */
extern const struct flow_kind flow_resv_get;
/* PATCH /v1/reservations/{id}: tenant */
extern const struct flow_kind flow_resv_extend;
/* DELETE /v1/reservations/{id}: tenant, admin */
extern const struct flow_kind flow_resv_cancel;
/* POST /v1/reservations/{id}/move: tenant */
extern const struct flow_kind flow_move;
/* POST /v1/reservations/{id}/tokens: tenant */
extern const struct flow_kind flow_token;
extern const struct flow_kind flow_token_exchange;

/* Data sets. */
/* POST /v1/datasets: tenant */
extern const struct flow_kind flow_dataset_add;
/* GET /v1/datasets: tenant */
extern const struct flow_kind flow_dataset_list;
/* GET /v1/datasets/{name}: tenant */
extern const struct flow_kind flow_dataset_get;
/* DELETE /v1/datasets/{name}: tenant */
extern const struct flow_kind flow_dataset_remove;

/* The market's people and places. */
/* POST /v1/sites: admin */
extern const struct flow_kind flow_site_create;
/* PATCH /v1/sites/{name}: admin */
extern const struct flow_kind flow_site_patch;
/* GET /v1/sites: any */
extern const struct flow_kind flow_site_list;
/* POST /v1/tenants: admin */
extern const struct flow_kind flow_tenant_create;
/* GET /v1/tenants: admin */
extern const struct flow_kind flow_tenant_list;
/* PATCH /v1/tenants/{name}: admin */
extern const struct flow_kind flow_tenant_patch;
/* /v1/budget: tenant, admin; /v1/promos: granted by admin; /v1/incidents, /v1/fx: admin
 */
extern const struct flow_kind flow_budget_get, flow_budget_set, flow_budget_remove,
    flow_promo_grant, flow_promo_list, flow_incident_open, flow_incident_close,
    flow_incident_list, flow_sla_credit, flow_sla_terms_get, flow_sla_terms_set,
    flow_fx_set, flow_fx_list;
/* POST /v1/tenants/{name}/topup: admin */
extern const struct flow_kind flow_tenant_topup;
/* GET /v1/whoami: keyed, agent */
extern const struct flow_kind flow_whoami;
/* POST /v1/providers: admin */
extern const struct flow_kind flow_provider_create;
/* GET /v1/providers: admin */
extern const struct flow_kind flow_provider_list;
/* POST /v1/join-codes: provider */
extern const struct flow_kind flow_join_code;
/* GET /v1/nodes: provider, admin */
extern const struct flow_kind flow_node_list;
/* POST /v1/nodes/{name}/reattest: provider, admin */
extern const struct flow_kind flow_node_reattest;
/* POST /v1/nodes/{name}/ban: admin */
extern const struct flow_kind flow_node_ban;
/* DELETE /v1/nodes/{name}/ban: admin */
extern const struct flow_kind flow_node_unban;
/* GET /v1/prices: provider */
extern const struct flow_kind flow_price_list;
/* POST /v1/prices: provider */
extern const struct flow_kind flow_price_set;

/* GET /v1/paths: keyed */
extern const struct flow_kind flow_path_list;
/* POST /v1/paths: admin */
extern const struct flow_kind flow_path_create;
/* PATCH /v1/paths/{name}: admin */
extern const struct flow_kind flow_path_patch;
/* GET /v1/admin/drill: admin */
extern const struct flow_kind flow_drill;

/* Money and use. */
/* GET /v1/wallet: tenant */
extern const struct flow_kind flow_wallet;
/* GET /v1/usage: keyed */
extern const struct flow_kind flow_usage;
/* Money out. */
/* POST /v1/admins: admin */
extern const struct flow_kind flow_admin_create;
/* GET /v1/admins: admin */
extern const struct flow_kind flow_admin_list;
/* POST /v1/admins/{name}/approve: admin */
extern const struct flow_kind flow_admin_approve;
/* DELETE /v1/admins/{name}: admin */
extern const struct flow_kind flow_admin_remove;
/* GET /v1/terms: admin */
extern const struct flow_kind flow_terms_get;
/* PATCH /v1/terms: admin */
extern const struct flow_kind flow_terms_set;
/* GET /v1/bank: provider */
extern const struct flow_kind flow_bank_get;
/* PATCH /v1/bank: provider */
extern const struct flow_kind flow_bank_set;
/* PATCH /v1/providers/{name}: admin */
extern const struct flow_kind flow_provider_patch;
/* GET /v1/payouts: provider, admin */
extern const struct flow_kind flow_payout_list;
/* POST /v1/payouts: admin */
extern const struct flow_kind flow_payout_request;
/* PATCH /v1/payouts/{id}: admin */
extern const struct flow_kind flow_payout_act;
/* POST /v1/payout-files: admin */
extern const struct flow_kind flow_payout_file_new;
/* GET /v1/payout-files/{id}: admin */
extern const struct flow_kind flow_payout_file_get;
/* GET /v1/payout-results: admin */
extern const struct flow_kind flow_payout_result_list;
/* POST /v1/payout-results: admin */
extern const struct flow_kind flow_payout_results;
/* GET /v1/statement: provider */
extern const struct flow_kind flow_statement;
/* POST /v1/reservations/{id}/refund: admin */
extern const struct flow_kind flow_refund;
/* POST /v1/reservations/{id}/dispute: tenant, admin */
extern const struct flow_kind flow_dispute_open;
/* DELETE /v1/reservations/{id}/dispute: admin */
extern const struct flow_kind flow_dispute_close;
/* GET /v1/credit-notes: tenant, admin */
extern const struct flow_kind flow_credit_note_list;
/* GET /v1/credit-notes/{number}: tenant, admin */
extern const struct flow_kind flow_credit_note_get;
/* POST /v1/tenants/{name}/withdraw: admin */
extern const struct flow_kind flow_withdraw;

/* GET /v1/invoices: tenant, admin */
extern const struct flow_kind flow_invoice_list;
/* GET /v1/invoices/{number}: tenant, admin */
extern const struct flow_kind flow_invoice_get;
/* /v1/tax: admin */
extern const struct flow_kind flow_tax_list, flow_tax_rate_set, flow_tax_rule_set;
/* GET /v1/reports: admin */
extern const struct flow_kind flow_report_list;
/* GET /v1/reports/{name}: admin */
extern const struct flow_kind flow_report_get;

/* Agents. */
/* POST /v1/agent/enroll: anonymous */
extern const struct flow_kind flow_agent_enroll;
/* POST /v1/agent/sync: agent */
extern const struct flow_kind flow_agent_sync;
/* POST /v1/agent/receipts: agent */
extern const struct flow_kind flow_agent_receipts;
/* POST /v1/agent/renew: agent */
extern const struct flow_kind flow_agent_renew;

/* The server itself. */
/* GET /v1/events: keyed (SSE) */
extern const struct flow_kind flow_events;
/* GET /v1/audit: tenant, provider, admin */
extern const struct flow_kind flow_audit_list;
/* GET /v1/log/checkpoint: any; /v1/log/proof: tenant, admin */
extern const struct flow_kind flow_log_checkpoint, flow_log_proof, flow_log_cosign;
extern const struct flow_kind flow_billing, flow_charges;
extern const struct flow_kind flow_witness_add, flow_witness_list;
/* POST, GET /v1/keys, DELETE /v1/keys/{jkt}: tenant */
extern const struct flow_kind flow_key_add, flow_key_list, flow_key_remove;
/* GET /.well-known/jwks.json, /v1/keyset: any */
extern const struct flow_kind flow_jwks, flow_keyset;
/* GET /v1/status: any */
extern const struct flow_kind flow_status;
/* GET /healthz: any */
extern const struct flow_kind flow_healthz;
/* GET /readyz: any */
extern const struct flow_kind flow_readyz;
/* GET /metrics: any */
extern const struct flow_kind flow_metrics;
/* GET /v1/admin/status: admin */
extern const struct flow_kind flow_admin_status;
/* GET /openapi.json: any */
extern const struct flow_kind flow_openapi;

/* Started by main, not by requests; see flow_ticker.c. Runs until the runner ends. */
extern const struct flow_kind flow_ticker;
/* Started by the ticker, one of each at a time: what this server does for the market
 * as a whole. Several servers may; the database decides. */
/* Books standing orders when their time has come, tells the others their place. */
extern const struct flow_kind flow_waiting;
/* Finds another place for what was booked on nodes that are lost. */
extern const struct flow_kind flow_outage;
/* Has booked paths lit and released by their operator. */
extern const struct flow_kind flow_paths_due;

#endif
