/* commands_payout: the part of the table of commands about money out: options,
 * examples, and PAYOUT_COMMANDS, the rows. For commands.c alone, whose macros it uses.
 */
#ifndef NEARGPU_COMMANDS_PAYOUT_H
#define NEARGPU_COMMANDS_PAYOUT_H

#define KEY_OPT                                                                       \
    {                                                                                 \
        "key", 0, "KEY", "Idempotency key: repeat a call whose outcome is not known." \
    }
#define BANK_OPTS                                                                \
    {"bank", 0, "CODE", "Bank's code, 4 digits."},                               \
        {"bank-name", 0, "NAME", "Its name in half-width kana, up to 15."},      \
        {"branch", 0, "CODE", "Branch's code, 3 digits."},                       \
        {"branch-name", 0, "NAME", "Its name in half-width kana, up to 15."},    \
        {"type", 0, "N", "1 ordinary, 2 current, 4 savings, 9 other."},          \
        {"number", 0, "NUMBER", "Account number, 7 digits."},                    \
    {                                                                            \
        "holder", 0, "NAME", "Holder in half-width kana and capitals, up to 30." \
    }
static const struct opt_def payout_request_opts[] = {
    {"amount", 0, "AMOUNT", "How much. Default: all whole minor units available."},
    KEY_OPT,
};
static const struct opt_def payout_reason_opts[] = {
    {"reason", 0, "TEXT", "Why; the provider sees it."}};
static const struct opt_def payout_returned_opts[] = {
    {"reason", 0, "TEXT", "Why; the provider sees it."},
    {"fee", 0, "AMOUNT", "What the bank took for sending it back. Default: nothing."},
    {"fee-by", 0, "WHOM", "Who bears that: provider (default) or market."},
    {"amount", 0, "AMOUNT", "What came back, to be sure: all of it, or it is refused."},
};
static const struct opt_def payout_results_opts[] = {KEY_OPT};
static const struct opt_def payout_file_opts[] = {
    {"on", 0, "DAY", "When the bank shall pay, such as 2026-11-30."},
    {"to", 0, "FILE", "File to write, 0600."},
    {"again", 0, "ID", "A file that was made before, once more."},
    KEY_OPT,
};
static const struct opt_def user_add_opts[] = {
    {"key-file", 0, "FILE", "Write the API key into a 0600 file."}};
static const struct opt_def terms_opts[] = {
    {"dispute-window", 0, "DURATION", "How long a capture can be disputed."},
    {"reserve", 0, "PERCENT", "Part of each settlement that is kept back, such as 5%."},
    {"reserve-for", 0, "DURATION", "For how long."},
    {"hold-window", 0, "DURATION",
     "How much of a lease's time is held ahead, such as 24h; 0: all of it."},
    {"issuer-address", 0, "TEXT",
     "Address under the issuer on invoices; \\n begins a line."},
    {"provider", 0, "NAME",
     "Set --reserve for this provider alone; without: the market's again."},
    {"client", 0, "CODE", "The market's client code at its bank, 10 digits."},
    BANK_OPTS,
};
static const struct opt_def note_opts[] = {
    {"html", 0, "FILE", "Write it as a page to FILE, to print or to send."},
    {"lang", 0, "LANG", "Language of the page: en or ja; that of the account else."},
};
static const struct opt_def bank_opts[] = {
    {"registration", 0, "NUMBER", "Qualified invoice issuer: T and 13 digits."},
    BANK_OPTS,
    {"iban", 0, "IBAN", "Not in yen: the account, with --holder in Latin letters."},
    {"account-no", 0, "TEXT", "... or its number where there is no IBAN."},
    {"bic", 0, "BIC", "... and the bank; or its name with --bank-name."},
};
static const struct opt_def statement_opts[] = {
    {"month", 0, "MONTH", "Which, such as 2026-11."}};
static const struct opt_def refund_opts[] = {
    {"amount", 0, "AMOUNT", "Net use to give back, such as 1200.50."},
    {"all", 0, NULL, "All that was charged and is not refunded."},
    {"reason", 0, "TEXT", "Why; it stands on the credit note."},
    {"by", 0, "WHOM", "Who bears it: provider (default) or market."},
    KEY_OPT,
};
static const struct opt_def dispute_opts[] = {
    {"reason", 0, "TEXT", "What was not as promised."},
    {"close", 0, NULL, "Close it; for administrators."},
};
static const struct opt_def withdraw_opts[] = {
    {"amount", 0, "AMOUNT", "Money that left, in whole minor units."},
    {"reference", 0, "TEXT", "The bank's reference; one counts once."},
    KEY_OPT,
};

EXAMPLES(payout_request_ex,
         {"neargpu admin payout request kyushu-gpu", "Ask for all that is available."});
EXAMPLES(payout_list_ex, {"neargpu admin payout list", "Payouts and balances."});
EXAMPLES(payout_approve_ex,
         {"neargpu admin payout approve 7", "Approve what another administrator asked "
                                            "for."});
EXAMPLES(payout_reject_ex, {"neargpu admin payout reject 7 --reason \"wrong account\"",
                            "Do not pay it."});
EXAMPLES(payout_file_ex, {"neargpu admin payout file --on 2026-11-30 --to nov30.txt",
                          "All approved payouts as one file for the bank."});
EXAMPLES(payout_done_ex, {"neargpu admin payout done 7", "The bank has paid it."});
EXAMPLES(payout_returned_ex,
         {"neargpu admin payout returned 7 --reason \"no account\" --fee 880",
          "The bank gave it back, and took 880 for that."});
EXAMPLES(payout_results_ex,
         {"neargpu admin payout results kekka.txt",
          "What the bank says became of payouts."},
         {"neargpu admin payout results", "The files that were read, and by whom."});
EXAMPLES(user_add_ex, {"neargpu admin user add hanako --key-file hanako.key",
                       "A second administrator."});
EXAMPLES(user_approve_ex, {"neargpu admin user approve hanako",
                           "Her key opens what an administrator's does."});
EXAMPLES(user_list_ex, {"neargpu admin user list", "All administrators."});
EXAMPLES(user_rm_ex, {"neargpu admin user rm hanako", "Her key opens nothing more."});
EXAMPLES(terms_ex, {"neargpu admin terms", "Terms in force."},
         {"neargpu admin terms --dispute-window 7d --reserve 5% --reserve-for 30d",
          "Keep five per cent of each settlement for a month."},
         {"neargpu admin terms --hold-window 24h",
          "Hold a day of long leases; the rest as they run."});
EXAMPLES(payouts_ex,
         {"neargpu provider payouts", "What is available, and what was paid."});
EXAMPLES(statement_ex, {"neargpu provider statement --month 2026-11",
                        "A month from its opening to its closing."});
EXAMPLES(bank_ex, {"neargpu provider bank", "The account that payouts go to."});
EXAMPLES(bank_set_ex,
         {"neargpu provider bank set --bank 0001 --branch 012 --type 1 --number "
          "1234567 --holder \"ｶ)ｷﾕｳｼﾕｳ\"",
          "Where payouts go."},
         {"neargpu provider bank set --holder \"Rhein GPU GmbH\" --iban "
          "DE89370400440532013000 --bic COBADEFFXXX",
          "The same in a market that is not in yen."});
EXAMPLES(refund_ex, {"neargpu admin refund 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --all "
                     "--reason \"GPU fell off the bus\"",
                     "Give all of it back, with a credit note."});
EXAMPLES(dispute_ex, {"neargpu dispute 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --reason "
                      "\"two of eight GPUs were slow\"",
                      "It is not paid to the provider until this is settled."});
EXAMPLES(note_list_ex, {"neargpu credit-note list", "All credit notes."});
EXAMPLES(note_show_ex, {"neargpu credit-note show CN-2026-000001", "One of them."},
         {"neargpu credit-note show CN-2026-000001 --html note.html --lang ja",
          "As a page to print: a qualified return invoice."});
EXAMPLES(withdraw_ex, {"neargpu admin withdraw kagaku-lab --amount 1000",
                       "The rest of a wallet went back to its owner."});

#define PAYOUT_COMMANDS                                                                \
    [CMD_DISPUTE] = {"dispute",                                                        \
                     "ID",                                                             \
                     "say that a reservation was not as promised",                     \
                     "Its provider is not paid for it until an administrator closes "  \
                     "the dispute, with a refund or without one.",                     \
                     OPTS(dispute_opts),                                               \
                     ARGS(1, 1),                                                       \
                     EX(dispute_ex)},                                                  \
    [CMD_CREDIT_NOTE_LIST] =                                                           \
        {"credit-note list", "", "list credit notes", NULL, NULL, 0, ARGS(0, 0),       \
         EX(note_list_ex)},                                                            \
    [CMD_CREDIT_NOTE_SHOW] = {"credit-note show",     "NUMBER",                        \
                              "show one credit note", NULL,                            \
                              OPTS(note_opts),        ARGS(1, 1),                      \
                              EX(note_show_ex)},                                       \
    [CMD_PROVIDER_PAYOUTS] = {"provider payouts",                                      \
                              "",                                                      \
                              "show what is available and what was paid out",          \
                              NULL,                                                    \
                              NULL,                                                    \
                              0,                                                       \
                              ARGS(0, 0),                                              \
                              EX(payouts_ex)},                                         \
    [CMD_PROVIDER_STATEMENT] =                                                         \
        {"provider statement",                                                         \
         "",                                                                           \
         "show a month's statement",                                                   \
         "Opening, use by reservation and site, fees, refunds, settlements, payouts "  \
         "and closing. The sums are made again here; when they do not add up the "     \
         "exit status is 6.",                                                          \
         OPTS(statement_opts),                                                         \
         ARGS(0, 0),                                                                   \
         EX(statement_ex)},                                                            \
    [CMD_PROVIDER_BANK] =                                                              \
        {"provider bank", "",         "show the account payouts go to", NULL, NULL, 0, \
         ARGS(0, 0),      EX(bank_ex)},                                                \
    [CMD_PROVIDER_BANK_SET] = {"provider bank set",                                    \
                               "",                                                     \
                               "say where payouts go, and the registration number",    \
                               NULL,                                                   \
                               OPTS(bank_opts),                                        \
                               ARGS(0, 0),                                             \
                               EX(bank_set_ex)},                                       \
    [CMD_ADMIN_USER_ADD] = {"admin user add",                                          \
                            "NAME",                                                    \
                            "make another administrator",                              \
                            "The API key is shown once, and stored nowhere. It opens " \
                            "nothing until another administrator approves, unless "    \
                            "there is none.",                                          \
                            OPTS(user_add_opts),                                       \
                            ARGS(1, 1),                                                \
                            EX(user_add_ex)},                                          \
    [CMD_ADMIN_USER_APPROVE] = {"admin user approve",                                  \
                                "NAME",                                                \
                                "approve whom another administrator made",             \
                                NULL,                                                  \
                                NULL,                                                  \
                                0,                                                     \
                                ARGS(1, 1),                                            \
                                EX(user_approve_ex)},                                  \
    [CMD_ADMIN_USER_LIST] =                                                            \
        {"admin user list", "", "list administrators", NULL, NULL, 0, ARGS(0, 0),      \
         EX(user_list_ex)},                                                            \
    [CMD_ADMIN_USER_RM] = {"admin user rm",                                            \
                           "NAME",                                                     \
                           "revoke an administrator's key",                            \
                           NULL,                                                       \
                           NULL,                                                       \
                           0,                                                          \
                           ARGS(1, 1),                                                 \
                           EX(user_rm_ex)},                                            \
    [CMD_ADMIN_TERMS] = {"admin terms",                                                \
                         "",                                                           \
                         "show or set dispute window, reserve, hold window, bank",     \
                         NULL,                                                         \
                         OPTS(terms_opts),                                             \
                         ARGS(0, 0),                                                   \
                         EX(terms_ex)},                                                \
    [CMD_ADMIN_PAYOUT_REQUEST] = {"admin payout request",                              \
                                  "PROVIDER",                                          \
                                  "ask for a payout to a provider",                    \
                                  "Another administrator has to approve it.",          \
                                  OPTS(payout_request_opts),                           \
                                  ARGS(1, 1),                                          \
                                  EX(payout_request_ex)},                              \
    [CMD_ADMIN_PAYOUT_LIST] =                                                          \
        {"admin payout list", "", "list payouts", NULL, NULL, 0, ARGS(0, 0),           \
         EX(payout_list_ex)},                                                          \
    [CMD_ADMIN_PAYOUT_APPROVE] = {"admin payout approve",                              \
                                  "ID",                                                \
                                  "approve what another administrator asked for",      \
                                  NULL,                                                \
                                  NULL,                                                \
                                  0,                                                   \
                                  ARGS(1, 1),                                          \
                                  EX(payout_approve_ex)},                              \
    [CMD_ADMIN_PAYOUT_REJECT] = {"admin payout reject",                                \
                                 "ID",                                                 \
                                 "refuse a payout that is not sent",                   \
                                 NULL,                                                 \
                                 OPTS(payout_reason_opts),                             \
                                 ARGS(1, 1),                                           \
                                 EX(payout_reject_ex)},                                \
    [CMD_ADMIN_PAYOUT_FILE] =                                                          \
        {"admin payout file",                                                          \
         "",                                                                           \
         "make the bank's file of all approved payouts",                               \
         "In yen a Zengin general transfer, JIS X 0201; otherwise CSV. What is in a "  \
         "file is sent: no payout is in two.",                                         \
         OPTS(payout_file_opts),                                                       \
         ARGS(0, 0),                                                                   \
         EX(payout_file_ex)},                                                          \
    [CMD_ADMIN_PAYOUT_DONE] =                                                          \
        {"admin payout done", "ID", "the bank has paid it", NULL, NULL, 0, ARGS(1, 1), \
         EX(payout_done_ex)},                                                          \
    [CMD_ADMIN_PAYOUT_RESULTS] =                                                       \
        {"admin payout results",                                                       \
         "[FILE]",                                                                     \
         "read what the bank says became of payouts",                                  \
         "A Zengin file of results, or CSV with the columns payout,state,date,reason " \
         "(state: done or returned). All of it is done, or nothing when sums, "        \
         "accounts or amounts do not agree; a file is read once. Without: those that " \
         "were read.",                                                                 \
         OPTS(payout_results_opts),                                                    \
         ARGS(0, 1),                                                                   \
         EX(payout_results_ex)},                                                       \
    [CMD_ADMIN_PAYOUT_RETURNED] =                                                      \
        {"admin payout returned",                                                      \
         "ID",                                                                         \
         "the bank gave it back: available again",                                     \
         "Also after it was confirmed. It comes back whole.",                          \
         OPTS(payout_returned_opts),                                                   \
         ARGS(1, 1),                                                                   \
         EX(payout_returned_ex)},                                                      \
    [CMD_ADMIN_REFUND] =                                                               \
        {"admin refund",                                                               \
         "ID",                                                                         \
         "give a reservation's price back, with a credit note",                        \
         "What is not invoiced yet lessens the next invoice; what is goes back with "  \
         "its tax. The provider bears its part, and the market its fee and what the "  \
         "provider no longer has.",                                                    \
         OPTS(refund_opts),                                                            \
         ARGS(1, 1),                                                                   \
         EX(refund_ex)},                                                               \
    [CMD_ADMIN_WITHDRAW] = {"admin withdraw",                                          \
                            "TENANT",                                                  \
                            "pay out of a tenant's wallet",                            \
                            NULL,                                                      \
                            OPTS(withdraw_opts),                                       \
                            ARGS(1, 1),                                                \
                            EX(withdraw_ex)}

#endif
