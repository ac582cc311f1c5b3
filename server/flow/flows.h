/* flows: every kind of request the server answers, for the route table in net/ and the
 * server's own flows for main. The comment says method, path and roles; the path's
 * placeholders are those the flow asks for with flow_param(). */
#ifndef NEARGPU_FLOWS_H
#define NEARGPU_FLOWS_H
#include "server/flow/flow.h"

/* Matching and booking. */
extern const struct flow_kind flow_offers;   /* GET /v1/offers: tenant, admin */
extern const struct flow_kind flow_calendar; /* GET /v1/calendar: keyed */
extern const struct flow_kind flow_quote;    /* POST /v1/quotes: tenant */
extern const struct flow_kind flow_reserve;  /* POST /v1/reservations: tenant */
extern const struct flow_kind flow_profiles; /* GET /v1/profiles: any */

/* Reservations. */
extern const struct flow_kind flow_resv_list; /* GET /v1/reservations: tenant, admin */
extern const struct flow_kind
    flow_resv_get; /* GET /v1/reservations/{id}: tenant, admin */
extern const struct flow_kind
    flow_resv_extend; /* PATCH /v1/reservations/{id}: tenant */
extern const struct flow_kind
    flow_resv_cancel; /* DELETE /v1/reservations/{id}: tenant, admin */
extern const struct flow_kind
    flow_token; /* POST /v1/reservations/{id}/tokens: tenant */

/* Data sets. */
extern const struct flow_kind flow_dataset_add;  /* POST /v1/datasets: tenant */
extern const struct flow_kind flow_dataset_list; /* GET /v1/datasets: tenant */
extern const struct flow_kind flow_dataset_get;  /* GET /v1/datasets/{name}: tenant */
extern const struct flow_kind
    flow_dataset_remove; /* DELETE /v1/datasets/{name}: tenant */

/* The market's people and places. */
extern const struct flow_kind flow_site_create;   /* POST /v1/sites: admin */
extern const struct flow_kind flow_site_list;     /* GET /v1/sites: any */
extern const struct flow_kind flow_tenant_create; /* POST /v1/tenants: admin */
extern const struct flow_kind flow_tenant_list;   /* GET /v1/tenants: admin */
extern const struct flow_kind
    flow_tenant_topup;                     /* POST /v1/tenants/{name}/topup: admin */
extern const struct flow_kind flow_whoami; /* GET /v1/whoami: keyed, agent */
extern const struct flow_kind flow_provider_create; /* POST /v1/providers: admin */
extern const struct flow_kind flow_provider_list;   /* GET /v1/providers: admin */
extern const struct flow_kind flow_join_code;       /* POST /v1/join-codes: provider */
extern const struct flow_kind flow_node_list;       /* GET /v1/nodes: provider, admin */
extern const struct flow_kind flow_price_list;      /* GET /v1/prices: provider */
extern const struct flow_kind flow_price_set;       /* POST /v1/prices: provider */

/* Money and use. */
extern const struct flow_kind flow_wallet;       /* GET /v1/wallet: tenant */
extern const struct flow_kind flow_usage;        /* GET /v1/usage: keyed */
extern const struct flow_kind flow_invoice_list; /* GET /v1/invoices: tenant, admin */
extern const struct flow_kind
    flow_invoice_get; /* GET /v1/invoices/{number}: tenant, admin */
extern const struct flow_kind flow_report_list; /* GET /v1/reports: admin */
extern const struct flow_kind flow_report_get;  /* GET /v1/reports/{name}: admin */

/* Agents. */
extern const struct flow_kind flow_agent_enroll; /* POST /v1/agent/enroll: anonymous */
extern const struct flow_kind flow_agent_sync;   /* POST /v1/agent/sync: agent */
extern const struct flow_kind flow_agent_receipts; /* POST /v1/agent/receipts: agent */
extern const struct flow_kind flow_agent_renew;    /* POST /v1/agent/renew: agent */

/* The server itself. */
extern const struct flow_kind flow_events;       /* GET /v1/events: keyed (SSE) */
extern const struct flow_kind flow_jwks;         /* GET /.well-known/jwks.json: any */
extern const struct flow_kind flow_status;       /* GET /v1/status: any */
extern const struct flow_kind flow_healthz;      /* GET /healthz: any */
extern const struct flow_kind flow_readyz;       /* GET /readyz: any */
extern const struct flow_kind flow_metrics;      /* GET /metrics: any */
extern const struct flow_kind flow_admin_status; /* GET /v1/admin/status: admin */
extern const struct flow_kind flow_openapi;      /* GET /openapi.json: any */

/* Started by main, not by requests; see flow_ticker.c. Runs until the runner ends. */
extern const struct flow_kind flow_ticker;

#endif
