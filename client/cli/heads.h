/* heads: what an account has seen of the market's logs: each log's key and newest head,
 * and the root of the market's keys, in ACCOUNT.log.json. The first look trusts; every
 * later head must extend the one kept. Nothing is written but by heads_save(). */
#ifndef NEARGPU_CLI_HEADS_H
#define NEARGPU_CLI_HEADS_H
#include "client/cli/cli.h"
#include "client/lib/bundle.h"

struct heads {
    struct bundle_log logs[BUNDLE_LOGS];
    char root[JWS_KID_MAX];
    json_t *fetched[BUNDLE_LOGS]; /* by heads_follow(): the market's answers */
};

/* What is kept of this account; nothing yet is no error. */
int heads_read(const struct cli *c, struct heads *ret, struct err *err) MUST_USE;
/* Fetches the newest heads, which must extend those read. The account must be open. */
int heads_follow(struct cli *c, struct heads *h, struct err *err) MUST_USE;
int heads_save(const struct cli *c, const struct heads *h, struct err *err) MUST_USE;
void heads_done(struct heads *h);

/* How many witnesses cosigned a head of log i that the newest one extends; each
 * line that is told is checked. `only` (may be NULL): the key of the only one counted.
 * After heads_follow(). ERR_TOKEN: a cosignature is wrong, or a witness was shown
 * another log. */
int heads_witnessed(struct cli *c, const struct heads *h, int i, const char *only,
                    size_t *ret_count, struct err *err) MUST_USE;

#endif
