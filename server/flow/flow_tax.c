/* /v1/tax: rates of tax, and who or what is of which class, each from a date on; for
 * administrators. Bodies are checked and everything is decided in sql/api/tax.sql; this
 * names who asks. It computes no tax: billd and SQL do. */
#include <stdlib.h>

#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

static enum flow_turn tax_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f)
                        : flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static enum flow_turn tax_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_TAX_LIST, STORE_NO_ARGS);
}
static const struct flow_step list_steps[] = {{"read", tax_read}, {"reply", tax_reply}};
const struct flow_kind flow_tax_list =
    FLOW_KIND_DONE("flow_tax_list", struct db_state, list_steps, db_done);

static enum flow_turn tax_write(struct flow *f, enum store_op op)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    char *by = xasprintf("admin:%s", f->rq->who.name);
    enum flow_turn turn = db_call(f, op, STORE_ARGS(S_JSON(f->rq->body), S_TEXT(by)));
    free(by);
    return turn;
}

static enum flow_turn rate_write(struct flow *f)
{
    return tax_write(f, STORE_TAX_RATE_SET);
}
static const struct flow_step rate_steps[] = {{"write", rate_write},
                                              {"reply", tax_reply}};
const struct flow_kind flow_tax_rate_set =
    FLOW_KIND_DONE("flow_tax_rate_set", struct db_state, rate_steps, db_done);

static enum flow_turn rule_write(struct flow *f)
{
    return tax_write(f, STORE_TAX_RULE_SET);
}
static const struct flow_step rule_steps[] = {{"write", rule_write},
                                              {"reply", tax_reply}};
const struct flow_kind flow_tax_rule_set =
    FLOW_KIND_DONE("flow_tax_rule_set", struct db_state, rule_steps, db_done);
