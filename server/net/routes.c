/* routes: the whole API, one row per method and path: who may ask, what answers, how
 * often, and with which body. docs/openapi.yaml is tested against this table. */
#include "server/flow/flows.h"
#include "server/net/net.h"

const struct route net_routes[] = {
    /* matching and booking */
    {"GET", "/v1/offers", ROLE_TENANT | ROLE_ADMIN, &flow_offers, RATE_SEARCH, 0},
    {"GET", "/v1/explain", ROLE_TENANT | ROLE_ADMIN, &flow_explain, RATE_SEARCH, 0},
    {"GET", "/v1/calendar", ROLE_KEYED, &flow_calendar, RATE_SEARCH, 0},
    {"GET", "/v1/profiles", ROLE_ANY, &flow_profiles, RATE_READ, 0},
    {"POST", "/v1/quotes", ROLE_TENANT, &flow_quote, RATE_SEARCH, ROUTE_BODY},
    {"POST", "/v1/reservations", ROLE_TENANT, &flow_reserve, RATE_WRITE, ROUTE_BODY},

    /* reservations */
    {"GET", "/v1/reservations", ROLE_TENANT | ROLE_ADMIN, &flow_resv_list, RATE_READ,
     0},
    {"GET", "/v1/reservations/{id}", ROLE_TENANT | ROLE_ADMIN, &flow_resv_get,
     RATE_READ, 0},
    {"PATCH", "/v1/reservations/{id}", ROLE_TENANT, &flow_resv_extend, RATE_WRITE,
     ROUTE_BODY},
    {"DELETE", "/v1/reservations/{id}", ROLE_TENANT | ROLE_ADMIN, &flow_resv_cancel,
     RATE_WRITE, 0},
    {"POST", "/v1/reservations/{id}/move", ROLE_TENANT, &flow_move, RATE_WRITE,
     ROUTE_BODY_MAYBE},
    {"POST", "/v1/reservations/{id}/tokens", ROLE_TENANT, &flow_token, RATE_WRITE,
     ROUTE_BODY},

    {"POST", "/v1/token-exchange", ROLE_ANY, &flow_token_exchange, RATE_WRITE,
     ROUTE_BODY},

    /* the tenant's own keys */
    {"POST", "/v1/keys", ROLE_TENANT, &flow_key_add, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/keys", ROLE_TENANT, &flow_key_list, RATE_READ, 0},
    {"DELETE", "/v1/keys/{jkt}", ROLE_TENANT, &flow_key_remove, RATE_WRITE, 0},

    /* data sets */
    {"POST", "/v1/datasets", ROLE_TENANT, &flow_dataset_add, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/datasets", ROLE_TENANT, &flow_dataset_list, RATE_READ, 0},
    {"GET", "/v1/datasets/{name}", ROLE_TENANT, &flow_dataset_get, RATE_READ, 0},
    {"DELETE", "/v1/datasets/{name}", ROLE_TENANT, &flow_dataset_remove, RATE_WRITE, 0},

    /* the market's people and places */
    {"POST", "/v1/sites", ROLE_ADMIN, &flow_site_create, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/sites", ROLE_ANY, &flow_site_list, RATE_READ, 0},
    {"PATCH", "/v1/sites/{name}", ROLE_ADMIN, &flow_site_patch, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/paths", ROLE_KEYED, &flow_path_list, RATE_READ, 0},
    {"POST", "/v1/paths", ROLE_ADMIN, &flow_path_create, RATE_WRITE, ROUTE_BODY},
    {"PATCH", "/v1/paths/{name}", ROLE_ADMIN, &flow_path_patch, RATE_WRITE, ROUTE_BODY},
    {"POST", "/v1/tenants", ROLE_ADMIN, &flow_tenant_create, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/tenants", ROLE_ADMIN, &flow_tenant_list, RATE_READ, 0},
    {"PATCH", "/v1/tenants/{name}", ROLE_ADMIN, &flow_tenant_patch, RATE_WRITE,
     ROUTE_BODY},
    {"POST", "/v1/tenants/{name}/topup", ROLE_ADMIN, &flow_tenant_topup, RATE_WRITE,
     ROUTE_BODY},
    {"GET", "/v1/whoami", ROLE_KEYED | ROLE_AGENT, &flow_whoami, RATE_READ, 0},
    {"POST", "/v1/providers", ROLE_ADMIN, &flow_provider_create, RATE_WRITE,
     ROUTE_BODY},
    {"GET", "/v1/providers", ROLE_ADMIN, &flow_provider_list, RATE_READ, 0},
    {"POST", "/v1/join-codes", ROLE_PROVIDER, &flow_join_code, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/nodes", ROLE_PROVIDER | ROLE_ADMIN, &flow_node_list, RATE_READ, 0},
    {"POST", "/v1/nodes/{name}/reattest", ROLE_PROVIDER | ROLE_ADMIN,
     &flow_node_reattest, RATE_WRITE, ROUTE_BODY},
    {"POST", "/v1/nodes/{name}/ban", ROLE_ADMIN, &flow_node_ban, RATE_WRITE,
     ROUTE_BODY},
    {"DELETE", "/v1/nodes/{name}/ban", ROLE_ADMIN, &flow_node_unban, RATE_WRITE, 0},
    {"GET", "/v1/prices", ROLE_PROVIDER, &flow_price_list, RATE_READ, 0},
    {"POST", "/v1/prices", ROLE_PROVIDER, &flow_price_set, RATE_WRITE, ROUTE_BODY},

    /* money and use */
    {"GET", "/v1/wallet", ROLE_TENANT, &flow_wallet, RATE_READ, 0},
    {"GET", "/v1/usage", ROLE_KEYED, &flow_usage, RATE_READ, 0},
    {"GET", "/v1/audit", ROLE_KEYED, &flow_audit_list, RATE_READ, 0},
    {"GET", "/v1/log/checkpoint", ROLE_ANY, &flow_log_checkpoint, RATE_READ, 0},
    {"POST", "/v1/log/witnesses", ROLE_KEYED, &flow_witness_add, RATE_WRITE,
     ROUTE_BODY},
    {"GET", "/v1/log/witnesses", ROLE_ANY, &flow_witness_list, RATE_READ, 0},
    {"POST", "/v1/log/cosignatures", ROLE_KEYED, &flow_log_cosign, RATE_WRITE,
     ROUTE_BODY},
    {"GET", "/v1/log/proof", ROLE_TENANT | ROLE_ADMIN, &flow_log_proof, RATE_SEARCH, 0},
    {"GET", "/v1/charges", ROLE_TENANT | ROLE_ADMIN, &flow_charges, RATE_SEARCH, 0},
    {"GET", "/v1/billing", ROLE_TENANT, &flow_billing, RATE_READ, 0},
    {"PATCH", "/v1/billing", ROLE_TENANT, &flow_billing, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/invoices", ROLE_TENANT | ROLE_ADMIN, &flow_invoice_list, RATE_READ, 0},
    {"GET", "/v1/invoices/{number}", ROLE_TENANT | ROLE_ADMIN, &flow_invoice_get,
     RATE_READ, 0},
    {"GET", "/v1/reports", ROLE_ADMIN, &flow_report_list, RATE_READ, 0},
    {"GET", "/v1/reports/{name}", ROLE_ADMIN, &flow_report_get, RATE_READ, 0},

    /* agents */
    {"POST", "/v1/agent/enroll", ROLE_ANON, &flow_agent_enroll, RATE_SIGNIN,
     ROUTE_BODY},
    {"POST", "/v1/agent/sync", ROLE_AGENT, &flow_agent_sync, RATE_AGENT, ROUTE_BODY},
    {"POST", "/v1/agent/receipts", ROLE_AGENT, &flow_agent_receipts, RATE_AGENT,
     ROUTE_BODY},
    {"POST", "/v1/agent/renew", ROLE_AGENT, &flow_agent_renew, RATE_AGENT, ROUTE_BODY},

    /* the server itself */
    {"GET", "/v1/events", ROLE_KEYED, &flow_events, RATE_READ, ROUTE_EVENTS},
    {"GET", "/v1/keyset", ROLE_ANY, &flow_keyset, RATE_READ, 0},
    {"GET", "/.well-known/jwks.json", ROLE_ANY, &flow_jwks, RATE_READ, 0},
    {"GET", "/v1/status", ROLE_ANY, &flow_status, RATE_READ, 0},
    {"GET", "/v1/admin/status", ROLE_ADMIN, &flow_admin_status, RATE_READ, 0},
    {"GET", "/v1/admin/drill", ROLE_ADMIN, &flow_drill, RATE_SEARCH, 0},
    {"GET", "/healthz", ROLE_ANY, &flow_healthz, RATE_FREE, 0},
    {"GET", "/readyz", ROLE_ANY, &flow_readyz, RATE_FREE, 0},
    {"GET", "/metrics", ROLE_ANY, &flow_metrics, RATE_FREE, ROUTE_TEXT},
    {"GET", "/openapi.json", ROLE_ANY, &flow_openapi, RATE_READ, 0},
};
const size_t net_route_count = sizeof(net_routes) / sizeof(net_routes[0]);
