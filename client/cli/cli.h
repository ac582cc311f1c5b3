/* cli: what every command of `neargpu` is given, and the small things all of them do:
 * talk to the server as an account, print, ask, fail with a sentence.
 *
 * The table of commands (commands.c) is the one source of parsing, --help and the man
 * page. A command is `int cmd_x(struct cli *c, struct err *err)`: 0, or -1 with err;
 * main prints err and exits with err_exit_status(). Results go to stdout, everything
 * else (questions, notes, progress) to stderr. */
#ifndef NEARGPU_CLI_H
#define NEARGPU_CLI_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/cli/account.h"
#include "client/cli/render.h"
#include "client/cli/when.h"
#include "client/lib/err.h"
#include "client/lib/httpc.h"
#include "client/lib/jws.h"
#include "client/lib/opt.h"

enum cli_cmd {
    CMD_LOGIN,
    CMD_LOGOUT,
    CMD_WHOAMI,
    CMD_KEY_LIST,
    CMD_KEY_ADD,
    CMD_KEY_RM,
    CMD_DATA_ADD,
    CMD_DATA_LIST,
    CMD_DATA_SHOW,
    CMD_DATA_RM,
    CMD_PROFILES,
    CMD_OFFERS,
    CMD_CALENDAR,
    CMD_EXPLAIN,
    CMD_QUOTE,
    CMD_RESERVE,
    CMD_LIST,
    CMD_SHOW,
    CMD_EXTEND,
    CMD_SHRINK,
    CMD_MOVE,
    CMD_CANCEL,
    CMD_TOKEN,
    CMD_RUN,
    CMD_SSH,
    CMD_ADOPT,
    CMD_USAGE,
    CMD_WALLET,
    CMD_BUDGET_SET,
    CMD_BUDGET_SHOW,
    CMD_BUDGET_RM,
    CMD_INVOICE_LIST,
    CMD_INVOICE_SHOW,
    CMD_BILLING,
    CMD_VERIFY,
    CMD_WITNESS,
    CMD_PROVIDER_JOIN_CODE,
    CMD_PROVIDER_NODES,
    CMD_PROVIDER_REATTEST,
    CMD_PROVIDER_PRICE,
    CMD_ADMIN_TENANT_CREATE,
    CMD_ADMIN_TENANT_LIST,
    CMD_ADMIN_TENANT_SET,
    CMD_ADMIN_TENANT_TOPUP,
    CMD_ADMIN_PROMO_GRANT,
    CMD_ADMIN_PROMO_LIST,
    CMD_ADMIN_INCIDENT_OPEN,
    CMD_ADMIN_INCIDENT_CLOSE,
    CMD_ADMIN_INCIDENT_LIST,
    CMD_ADMIN_SLA_CREDIT,
    CMD_ADMIN_SLA_TERMS,
    CMD_INCIDENTS,
    CMD_SLA,
    CMD_ADMIN_FX_SET,
    CMD_ADMIN_FX_LIST,
    CMD_ADMIN_TAX_LIST,
    CMD_ADMIN_TAX_RATE,
    CMD_ADMIN_TAX_CLASS,
    CMD_ADMIN_PROVIDER_CREATE,
    CMD_ADMIN_PROVIDER_LIST,
    CMD_ADMIN_SITE_ADD,
    CMD_ADMIN_SITE_LIST,
    CMD_ADMIN_NODE_BAN,
    CMD_ADMIN_NODE_UNBAN,
    CMD_ADMIN_PATH_ADD,
    CMD_ADMIN_PATH_LIST,
    CMD_ADMIN_PATH_SET,
    CMD_ADMIN_DRILL,
    CMD_ADMIN_REPORT,
    CMD_ADMIN_STATUS,
    CMD_ADMIN_AUDIT,
    CMD_ADMIN_WITNESS_LIST,
    CMD_DISPUTE,
    CMD_CREDIT_NOTE_LIST,
    CMD_CREDIT_NOTE_SHOW,
    CMD_PROVIDER_PAYOUTS,
    CMD_PROVIDER_STATEMENT,
    CMD_PROVIDER_BANK,
    CMD_PROVIDER_BANK_SET,
    CMD_ADMIN_USER_ADD,
    CMD_ADMIN_USER_APPROVE,
    CMD_ADMIN_USER_LIST,
    CMD_ADMIN_USER_RM,
    CMD_ADMIN_TERMS,
    CMD_ADMIN_PAYOUT_REQUEST,
    CMD_ADMIN_PAYOUT_LIST,
    CMD_ADMIN_PAYOUT_APPROVE,
    CMD_ADMIN_PAYOUT_REJECT,
    CMD_ADMIN_PAYOUT_FILE,
    CMD_ADMIN_PAYOUT_DONE,
    CMD_ADMIN_PAYOUT_RETURNED,
    CMD_ADMIN_PAYOUT_RESULTS,
    CMD_ADMIN_REFUND,
    CMD_ADMIN_WITHDRAW,
    CMD_COUNT
};

extern const struct opt_program cli_program; /* commands[i] is command i above */

struct cli {
    const struct opt_values *opts;
    struct render_opts render; /* format, zone, colour */
    struct when_env when;      /* now, zone */
    bool yes;
    struct account account; /* loaded by cli_open */
    bool opened;
    struct httpc *http;
    json_t *problem; /* body of the last refused call, NULL: none */
    int status;      /* exit status when the command returns 0 (run: the job's) */
};

/* ---- the server ---------------------------------------------------------------- */

/* Name of the account in use: --account, --profile as its other name, NEARGPU_ACCOUNT,
 * "default". */
const char *cli_account_name(const struct cli *c);
/* Loads the account and makes the HTTP client; again: no effect. */
int cli_open(struct cli *c, struct err *err) MUST_USE;
void cli_done(struct cli *c);

struct cli_call {
    const char *method, *path;
    json_t *body;    /* borrowed, NULL: none */
    const char *key; /* Idempotency-Key, NULL: none */
};
/* One call. ret (may be NULL) gets a new reference: an object, never NULL. A refusal's
 * body is kept in c->problem. */
int cli_call(struct cli *c, const struct cli_call *call, json_t **ret,
             struct err *err) MUST_USE;
/* A POST that must not be made twice: sent with --key or a new one, which is told when
 * the outcome is not known: "to find out without DOING, repeat the command with --key".
 */
int cli_post_once(struct cli *c, const char *path, json_t *body, const char *doing,
                  json_t **ret, struct err *err) MUST_USE;
int cli_get(struct cli *c, const char *path, json_t **ret, struct err *err) MUST_USE;
/* A whole list: follows `next` through the pages; the pages' arrays `member` are joined
 * in the first reply. */
int cli_get_list(struct cli *c, const char *path, const char *member, json_t **ret,
                 struct err *err) MUST_USE;
/* The same with the request of the command's options as its query: offers, explain. */
int cli_request_get(struct cli *c, const char *prefix, json_t **ret,
                    struct err *err) MUST_USE;
/* "/v1/x/" + escaped text; caller frees. */
char *cli_path(const char *prefix, const char *text, const char *suffix);
/* Adds "&name=value" (or "?…" the first time) when value is not NULL. */
void cli_query(struct strbuf *path, const char *name, const char *value);
/* An option that holds a time, as a UTC query value; NULL option: nothing added. */
int cli_query_time(struct cli *c, struct strbuf *path, const char *option,
                   struct err *err) MUST_USE;
/* Options --from and --to. */
int cli_query_period(struct cli *c, struct strbuf *path, struct err *err) MUST_USE;
/* After a call that changes nothing by itself: an unknown outcome harms nobody. */
void cli_harmless(struct err *err);
/* err_exit_status() with the shell's view of what is "not allowed" and "conflict". */
int cli_exit_status(enum err_code code);
/* "neargpu" with the --account and --server of this call, to begin a command that the
 * user is told to type; caller frees. */
char *cli_self(const struct cli *c);
/* A new random Idempotency-Key (a UUIDv7); caller frees. */
char *cli_new_key(const struct cli *c);
/* --key, or a new one; caller frees. */
char *cli_key(const struct cli *c, struct err *err);

/* ---- printing ------------------------------------------------------------------ */

/* stdout, whole; a closed pipe ends quietly, a full disk is an error. */
int cli_print(const struct strbuf *text, struct err *err) MUST_USE;
/* An option's text in which \n begins a line; new reference. */
json_t *cli_lines(const char *text);
/* --focus: charges of an invoice, or (NULL) of a period; page by page. */
int cli_print_focus(struct cli *c, const char *invoice, struct err *err) MUST_USE;
/* The columns of lists of credit notes. */
#define CLI_NOTE_COLS 9
extern const struct render_col cli_note_cols[CLI_NOTE_COLS];
/* The array `member` of a reply in the chosen format (JSON: the whole reply). `none`:
 * sentence on stderr instead of an empty table. */
int cli_print_list(struct cli *c, const json_t *reply, const char *member,
                   const struct render_col *cols, size_t count, const char *none,
                   struct err *err) MUST_USE;
int cli_print_card(struct cli *c, const json_t *obj, const struct render_col *cols,
                   size_t count, struct err *err) MUST_USE;
/* A line on stderr: "neargpu: …". */
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The `rejected` places of an offers reply or a no_fit problem. */
void cli_render_rejected(const struct cli *c, const json_t *rejected,
                         struct strbuf *out);

/* The same on stderr, when the last call was refused because nothing fits. */
void cli_show_rejected(struct cli *c, const struct err *err);

/* The `reserve` command that asks for the same as this one, with a refusal's `relax` in
 * it; NULL when it names no member; caller frees. */
char *cli_relaxed_command(const struct cli *c, const json_t *relax);

/* ---- asking -------------------------------------------------------------------- */

/* Asks on the terminal; --yes answers. 1 yes; 0 no: said so, exit status 1; -1: cannot
 * ask (ERR_USAGE). */
int cli_confirm(struct cli *c, const char *question, struct err *err) MUST_USE;
/* A secret from a file (0600), "-": first line of stdin, NULL: the terminal without
 * echo. Trailing white space is cut. Caller frees. */
int cli_read_secret(const char *file, const char *prompt, char **ret,
                    struct err *err) MUST_USE;
/* From here to cli_settled, ^C (and TERM, HUP) prints text on stderr and exits 9: the
 * request may have been done. The text must name the way on. */
void cli_unsettled(const char *text);
void cli_settled(void);
/* Whoever started us had this signal ignored (nohup, a shell's background job): it
 * stays so. */
bool cli_ignores(int signo);

/* ---- commands ------------------------------------------------------------------ */

typedef int cli_fn(struct cli *c, struct err *err);
cli_fn cmd_login, cmd_logout, cmd_whoami, cmd_key_list, cmd_key_add, cmd_key_rm,
    cmd_data_add, cmd_data_list, cmd_data_show, cmd_data_rm, cmd_profiles, cmd_offers,
    cmd_calendar, cmd_explain, cmd_quote, cmd_reserve, cmd_list, cmd_show, cmd_extend,
    cmd_shrink, cmd_move, cmd_cancel, cmd_token, cmd_run, cmd_ssh, cmd_adopt, cmd_usage,
    cmd_wallet, cmd_invoice_list, cmd_invoice_show, cmd_verify, cmd_provider_join_code,
    cmd_provider_nodes, cmd_provider_reattest, cmd_provider_price, cmd_admin_node_ban,
    cmd_admin_node_unban, cmd_admin_tenant_create, cmd_admin_tenant_list,
    cmd_admin_tenant_set, cmd_admin_tenant_topup, cmd_admin_provider_create,
    cmd_admin_provider_list, cmd_admin_site_add, cmd_admin_site_list,
    cmd_admin_path_add, cmd_admin_path_list, cmd_admin_path_set, cmd_admin_drill,
    cmd_admin_report, cmd_admin_status, cmd_admin_audit, cmd_dispute,
    cmd_credit_note_list, cmd_credit_note_show, cmd_provider_payouts,
    cmd_provider_statement, cmd_provider_bank, cmd_provider_bank_set,
    cmd_admin_user_add, cmd_admin_user_list, cmd_admin_user_approve,
    cmd_admin_payout_results, cmd_admin_user_rm, cmd_admin_terms,
    cmd_admin_payout_request, cmd_admin_payout_list, cmd_admin_payout_approve,
    cmd_admin_payout_reject, cmd_admin_payout_file, cmd_admin_payout_done,
    cmd_admin_payout_returned, cmd_admin_refund, cmd_admin_withdraw;
cli_fn cmd_budget_set, cmd_budget_show, cmd_budget_rm, cmd_admin_promo_grant,
    cmd_admin_promo_list, cmd_admin_incident_open, cmd_admin_incident_close,
    cmd_admin_incident_list, cmd_admin_sla_credit, cmd_admin_sla_terms, cmd_incidents,
    cmd_sla, cmd_admin_fx_set, cmd_admin_fx_list, cmd_admin_tax_list,
    cmd_admin_tax_rate, cmd_admin_tax_class;
cli_fn cmd_witness, cmd_admin_witness_list, cmd_billing;

/* Reservations, for several families (cmd_resv.c). */
int cli_print_reservation(struct cli *c, const json_t *resv, struct err *err) MUST_USE;
/* ERR_USAGE unless it looks like a reservation's id. */
int cli_check_id(const char *id, struct err *err) MUST_USE;
/* GET /v1/reservations/ID. */
int cli_get_reservation(struct cli *c, const char *id, json_t **ret,
                        struct err *err) MUST_USE;
/* A JWK, or a .pub of ssh-keygen. */
int cli_public_key(const char *file, uint8_t pub[JWS_ED25519_LEN],
                   struct err *err) MUST_USE;
/* POST …/tokens bound to this account's key (or --public-key); node NULL: all. */
int cli_get_tokens(struct cli *c, const char *id, const char *node, json_t **ret,
                   struct err *err) MUST_USE;

/* The signed receipts of a reservation, and whether all is right with them.
 * GET /v1/log/proof?WHAT=ID into a file (what: invoice, reservation). */
int cli_show_receipts(struct cli *c, const char *reservation, struct err *err) MUST_USE;
int cli_save_bundle(struct cli *c, const char *what, const char *id, const char *file,
                    struct err *err) MUST_USE;

/* Tells the market the account's possession key, for ssh (cmd_key.c). */
int cli_add_own_key(struct cli *c, EVP_PKEY *key, struct err *err) MUST_USE;

#endif
