/* match_reason, match_relax: the words for why a place does not serve a request, with
 * the numbers and the nearest relaxation. Internal to match. Pure. */
#ifndef NEARGPU_MATCH_REASON_H
#define NEARGPU_MATCH_REASON_H

#include "server/core/match.h"

/* What the words need beyond the place itself. */
struct match_reason_facts {
    int largest;         /* neighbours the largest node offers */
    bool has_later;      /* the request fits after latest_us */
    int64_t later_us;    /* then earliest here */
    bool price_overflow; /* price x time does not fit money */
};
/* Fills place->reason from place->why. */
void match_reason(const struct match_market *m, const struct match_query *q,
                  const struct match_reason_facts *facts, struct match_place *place);
/* Fills place->relax, when one is found. */
void match_relax(const struct match_market *m, const struct match_query *q,
                 const struct match_reason_facts *facts, struct match_place *place);

#endif
