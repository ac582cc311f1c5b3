/* render: what the database or a plan says, as the wire says it (docs/wire.md,
 * docs/openapi.yaml). Pure: no clock, no lookups. All return new references. */
#ifndef NEARGPU_FLOW_RENDER_H
#define NEARGPU_FLOW_RENDER_H
#include <jansson.h>
#include <stdint.h>

/* A copy in which every instant ("created_us", "from_us", …) has its wire name
 * ("created_at", "from") and form; everything else stays. */
json_t *render_times(const json_t *store);
/* RESV of server/db/store.h as a reservation. */
json_t *render_resv(const json_t *resv);
/* RESV with its member `change` {delta_micro, new_total_micro, dry_run, moved?}: the
 * same with {delta, new_total, dry_run, moved?}. */
json_t *render_change(const json_t *resv);
/* Replaces member `micro_name` by a money member `name` (null when it was null). */
void render_money(json_t *obj, const char *micro_name, const char *name,
                  const char *currency);
/* In member taxes [{class, rate_ppm, base_micro, tax_micro}], if there is one. */
void render_taxes(json_t *obj, const char *currency);
/* The issuer as the document of an invoice or a credit note names it. */
json_t *render_issuer(const json_t *document);
/* Every member NAME_micro, at any depth, as money NAME. */
void render_all_money(json_t *v, const char *currency);
/* Parts per million as the number clients see. */
json_t *render_ppm(int64_t ppm);

#endif
