/* command_opts: the options of each command of `neargpu`; a part of commands.c, which
 * alone includes it: its table counts them. */
#ifndef NEARGPU_CLI_COMMAND_OPTS_H
#define NEARGPU_CLI_COMMAND_OPTS_H
#include "client/lib/opt.h"

static const struct opt_def global[] = {
    {"output", 'o', "FORMAT", "table (default), json as the server sent it, or csv."},
    {"account", 0, "NAME", "Account to use; else NEARGPU_ACCOUNT, else \"default\"."},
    {"profile", 0, "NAME",
     "Same as --account; on offers, explain, quote and reserve: the workload profile."},
    {"server", 0, "URL", "Server to ask instead of the account's, https://HOST:PORT."},
    {"yes", 'y', NULL, "Do not ask for confirmation."},
    {"utc", 0, NULL, "Show and read times in UTC instead of the local zone."},
};

/* What one asks for: the same on offers, explain, quote, reserve and move. */
#define REQUEST_OPTS                                                                  \
    {"near", 0, "DATA", "Data sets to be near: a name, or a,b; may be repeated.",     \
     true},                                                                           \
        {"federated", 0, "DATA",                                                      \
         "A group of --nodes near each of these data sets (a,b,…), 2 to 8.", true},   \
        {"gpu", 0, "MODEL", "GPU model; H100 matches H100-SXM5-80GB. Default: any."}, \
        {"gpus", 0, "N", "GPUs on each node, 1 to 64. Default 1."},                   \
        {"nodes", 0, "N",                                                             \
         "Nodes of the gang (of each group), 1 to 64, all or nothing. Default 1."},   \
        {"together", 0, "WHERE",                                                      \
         "How close a gang's nodes must be: domain (one fabric), site (default) or "  \
         "any (of several sites and providers)."},                                    \
        {"spread-zones", 0, NULL,                                                     \
         "Nodes (--together any) or groups in different disaster zones."},            \
        {"for", 0, "DURATION", "How long: 90m, 4h, 2d. Required."},                   \
        {"start", 0, "TIME", "Fixed start. Default: now."},                           \
        {"between", 0, "FROM TO",                                                     \
         "Start anywhere in this range, earliest first; also FROM..TO."},             \
        {"profile", 0, "NAME", "Workload profile, which predicts the slow-down."},    \
        {"demand", 0, "RATE", "Instead: what one GPU reads, such as 200MB/s."},       \
        {"custom", 0, "NAME=NUMBER",                                                  \
         "Instead: own numbers, named as in neargpu profiles; a=1,b=2.", true},       \
        {"bandwidth", 0, "RATE",                                                      \
         "Book a path of this rate to each data set, such as 40Gbps."},               \
        {"max-rtt", 0, "DURATION",                                                    \
         "Largest round trip to every data set, such as 15ms."},                      \
        {"max-price", 0, "AMOUNT", "Largest price of the whole reservation."},        \
        {"max-price-per-hour", 0, "AMOUNT", "Largest price of one GPU for an hour."}, \
        {"max-slowdown", 0, "FACTOR", "Largest predicted slow-down, such as 1.25."},  \
        {"residency", 0, "COUNTRY",                                                   \
         "Only sites under this country's law, such as jp; data: that of the data."}, \
        {"site", 0, "SITE", "Only this site."},                                       \
        {"provider", 0, "NAME", "Only this provider, or these: a,b.", true},          \
        {"deny-provider", 0, "NAME", "Not this provider; a,b or repeated.", true},    \
        {"deny-site", 0, "SITE", "Not this site; a,b or repeated.", true},            \
        {"avoid-zone", 0, "ZONE", "Not in this disaster zone; a,b or repeated.",      \
         true},                                                                       \
        {"min-memory", 0, "SIZE", "Least memory of one GPU, such as 80GB."},          \
    {                                                                                 \
        "spot", 0, NULL,                                                              \
            "At the spot price: firm demand may end it with the provider's notice."   \
    }

static const struct opt_def request_opts[] = {REQUEST_OPTS};

static const struct opt_def quote_opts[] = {
    REQUEST_OPTS,
    {"hold", 0, NULL, "Keep the GPUs and the money until the quote expires."},
};

static const struct opt_def reserve_opts[] = {
    REQUEST_OPTS,
    {"quote", 0, "ID", "Book exactly this quote, at its price."},
    {"key", 0, "KEY", "Idempotency key: repeat a call whose outcome is not known."},
    {"wait", 0, NULL, "When nothing fits now: a standing order that waits."},
    {"wait-until", 0, "TIME",
     "The same, given up then. Default: the latest start, or 14 days."},
};

static const struct opt_def move_opts[] = {
    REQUEST_OPTS,
    {"without", 0, "OPTION", "Drop what was asked, such as max-rtt; may be repeated.",
     true},
};

static const struct opt_def calendar_opts[] = {
    {"gpu", 0, "MODEL", "Only this model; H100 matches H100-SXM5-80GB."},
    {"site", 0, "SITE", "Only this site."},
    {"gpus", 0, "N", "Only places whose nodes have so many GPUs."},
    {"from", 0, "TIME", "Start of the period. Default: now."},
    {"to", 0, "TIME", "End of the period. Default: a day later."},
    {"step", 0, "DURATION", "Length of a step, at least 1m. Default 1h."},
};
static const struct opt_def login_opts[] = {
    {"ca", 0, "FILE", "The market's CA certificate (PEM)."},
    {"ca-sha256", 0, "HEX", "SHA-256 of that certificate: it is fetched and compared."},
    {"api-key-file", 0, "FILE", "API key in a 0600 file, or - for standard input."},
    {"key", 0, "KEY",
     "Bind tokens to this key: an Ed25519 private key file of ssh-keygen, or "
     "agent:SHA256:… for one that ssh-agent holds. Default: one of the account's own."},
};
static const struct opt_def data_add_opts[] = {
    {"endpoint", 0, "URL", "Where it is served: HOST:PORT or http(s)://…; probed."},
    {"site", 0, "SITE", "Site of the market where it stands."},
    {"lat", 0, "DEGREES", "Latitude, when it stands at no site of the market."},
    {"lon", 0, "DEGREES", "Longitude."},
    {"size", 0, "SIZE", "Size, such as 12TB."},
};
static const struct opt_def list_opts[] = {
    {"state", 0, "STATE",
     "Only waiting, held, confirmed, active, ended, cancelled or "
     "failed ones."},
};
static const struct opt_def extend_opts[] = {
    {"by", 0, "DURATION", "So much longer than now agreed."},
    {"to", 0, "TIME", "New end."},
};
static const struct opt_def shrink_opts[] = {
    {"by", 0, "DURATION", "So much shorter than now agreed."},
    {"to", 0, "TIME", "New end."},
    {"gpus", 0, "N", "GPUs to keep on each node; before the start only."},
};
static const struct opt_def token_opts[] = {
    {"node", 0, "NODE", "Only the token for this node."},
    {"public-key", 0, "FILE",
     "Bind to this Ed25519 key instead: a JWK, or a .pub of ssh-keygen."},
    {"for", 0, "FILE",
     "Give it, or a part of it, to the holder of this Ed25519 key: a .pub or a JWK."},
    {"gpus", 0, "LIST", "With --for: only these, by UUID or place: 0,1."},
    {"until", 0, "TIME", "With --for: jobs end then: +30m, or a time."},
    {"action", 0, "ACTION", "launch or stop; may be repeated. Default: both.", true},
};
static const struct opt_def run_opts[] = {
    {"detach", 'd', NULL, "Start the job, print its id, and do not wait for it."},
    {"attach", 0, NULL, "Attach to JOB, or to the latest one (a gang: RUN)."},
    {"list", 0, NULL, "List the jobs of the reservation."},
    {"wait", 0, NULL, "Wait for the reservation to start."},
    {"tty", 't', NULL, "Give the job this terminal: for shells and editors."},
    {"node", 0, "NODE", "Run on this node alone. Default: one process on each node."},
    {"env", 'e', "NAME=VALUE", "Environment of the job; may be repeated.", true},
    {"cwd", 0, "DIR", "Working directory of the job."},
    {"image", 0, "IMAGE", "Run in this container image of the node's; never pulled."},
    {"per-gpu", 0, NULL, "One process for each GPU instead of each node."},
    {"prefix", 0, NULL, "Begin each line of output with [rank], also into a file."},
    {"output-dir", 0, "DIR", "Write each rank's output to DIR/rank-N.out and .err."},
    {"stdin-rank", 0, "N", "Rank that reads standard input, or all. Default 0."},
    {"keep-going", 0, NULL, "Do not end the other ranks when one fails."},
    {"master-port", 0, "PORT", "MASTER_PORT of the ranks. Default: by reservation."},
    {"address", 0, "ADDRESS", "Agent's address: HOST:PORT or unix:/PATH."},
    {"token-file", 0, "FILE", "Use this token instead of asking the server for one."},
};
static const struct opt_def adopt_opts[] = {
    {"cgroup", 0, "PATH", "Its directory, or its path as in /proc/PID/cgroup."},
    {"pid", 0, "PID", "Instead: the cgroup that this process is in."},
    {"node", 0, "NODE", "This node, of a reservation with several."},
    {"wait", 0, NULL, "Wait for the reservation to start."},
    {"address", 0, "ADDRESS",
     "The agent's socket. Default: unix:/run/neargpu/agent.sock."},
    {"token-file", 0, "FILE", "Use this token instead of asking the server for one."},
};

static const struct opt_def ssh_opts[] = {
    {"node", 0, "NODE", "Node to go to, of a reservation with several."},
    {"identity", 'i', "FILE",
     "SSH key to use, one of this account's (neargpu key list). Default: the account's "
     "own."},
    {"config", 0, NULL, "Print a block for ~/.ssh/config instead, for scp and others."},
    {"host", 0, "HOST", "Name or address of the node. Default: the agent's."},
    {"port", 0, "PORT", "Port of its sshd. Default: as the node told."},
    {"user", 0, "NAME",
     "User to log in as. Default: neargpu-ssh, or as the node told."},
    {"host-key", 0, "FILE", "Its public host key. Default: as the node told."},
};
static const struct opt_def usage_opts[] = {
    {"reservation", 0, "ID", "Only this reservation."},
    {"from", 0, "TIME", "Usage from here on."},
    {"to", 0, "TIME", "Usage before this."},
    {"receipts", 0, "ID", "Show the nodes' signed receipts of a reservation, checked."},
    {"bundle", 0, "FILE", "Write what proves --reservation's use and money to FILE."},
    {"focus", 0, NULL, "Charges as CSV of the FOCUS specification."},
    {"focus-version", 0, "VERSION", "1.4 (else), or 1.2 for older readers."},
};
static const struct opt_def invoice_opts[] = {
    {"bundle", 0, "FILE", "Write what proves the invoice to FILE, for verify."},
    {"focus", 0, NULL, "The invoice's charges as CSV of the FOCUS specification."},
    {"focus-version", 0, "VERSION", "1.4 (else), or 1.2 for older readers."},
    {"html", 0, "FILE", "Write the invoice as a page to FILE, to print or to send."},
    {"lang", 0, "LANG", "Language of the page: en or ja; that of the account else."},
};
static const struct opt_def billing_opts[] = {
    {"name", 0, "NAME", "Name that invoices are addressed to."},
    {"address", 0, "TEXT", "Address below it; \\n begins a line."},
    {"lang", 0, "LANG", "Language of invoices: en or ja."},
};
static const struct opt_def verify_opts[] = {
    {"log-key", 0, "KEY", "Key that a log must have, NAME+HASH+KEY; may be repeated.",
     true},
    {"witness", 0, "KEY",
     "Witness who must have cosigned each log, NAME+HASH+KEY; may be repeated.", true},
};
static const struct opt_def witness_opts[] = {
    {"name", 0, "NAME", "Name of the witness; the account's name and /witness else."},
    {"every", 0, "TIME", "Again and again, this long apart: 10s to 24h."},
};
static const struct opt_def join_opts[] = {
    {"site", 0, "SITE", "Site of the node."},
    {"node", 0, "NODE", "Name of the node."},
    {"ttl", 0, "DURATION", "How long the code is good for. Default 1h."},
};
static const struct opt_def reattest_opts[] = {
    {"site", 0, "SITE", "Site of the node, when several have one of that name."},
    {"ttl", 0, "DURATION", "How long the code is good for. Default 1h."},
};
static const struct opt_def ban_opts[] = {
    {"reason", 0, "TEXT", "Why; told to the provider and the node."},
    {"site", 0, "SITE", "Site of the node, when several have one of that name."},
};
static const struct opt_def unban_opts[] = {
    {"site", 0, "SITE", "Site of the node, when several have one of that name."},
};
static const struct opt_def price_opts[] = {
    {"site", 0, "SITE", "Only nodes of this site."},
    {"node", 0, "NODE", "Only this node."},
    {"gpu", 0, "MODEL", "Only nodes with this model."},
    {"spot", 0, "AMOUNT", "Price of preemptible use; 0: not sold. Needs AMOUNT too."},
    {"notice", 0, "DURATION", "Notice before preemptible use is ended, such as 2m."},
};
static const struct opt_def tenant_create_opts[] = {
    {"credit", 0, "AMOUNT", "How far the wallet may go below zero. Default 0."},
    {"zone", 0, "ZONE", "Time zone of its invoices' months, such as Asia/Tokyo."},
    {"key-file", 0, "FILE", "Write the API key there (0600) instead of showing it."},
    {"key", 0, "KEY", "Idempotency key: repeat a call whose outcome is not known."},
};
static const struct opt_def provider_create_opts[] = {
    {"fee", 0, "SHARE",
     "Market's share of its revenue, such as 5%. Default: the "
     "market's."},
    {"key-file", 0, "FILE", "Write the API key there (0600) instead of showing it."},
    {"key", 0, "KEY", "Idempotency key: repeat a call whose outcome is not known."},
};
static const struct opt_def topup_opts[] = {
    {"amount", 0, "AMOUNT", "Money that has arrived, such as 1000."},
    {"reference", 0, "TEXT", "Where it came from: bank transfer, note."},
    {"key", 0, "KEY", "Idempotency key: repeat a call whose outcome is not known."},
};
static const struct opt_def budget_set_opts[] = {
    {"hard", 0, NULL, "Refuse what would go over it. The default."},
    {"soft", 0, NULL, "Only tell when it is used."},
    {"period", 0, "PERIOD", "month (in the tenant's zone; default), or total."},
    {"tenant", 0, "TENANT", "Whose; for administrators."},
};
static const struct opt_def budget_opts[] = {
    {"tenant", 0, "TENANT", "Whose; for administrators."},
};
static const struct opt_def promo_opts[] = {
    {"expires", 0, "TIME", "Until when it can be used. Required."},
    {"reason", 0, "TEXT", "Why it is given. Required."},
};
static const struct opt_def incident_opts[] = {
    {"reason", 0, "TEXT", "What happened. Required."},
    {"fault", 0, "WHOSE", "provider or platform. Default: provider."},
    {"from", 0, "TIME", "Since when. Default: now."},
    {"to", 0, "TIME", "Until when, if it is over."},
    {"site", 0, "SITE", "Site of the node, when several have one of that name."},
};
static const struct opt_def incident_close_opts[] = {
    {"to", 0, "TIME", "When it was over. Default: now."},
};
static const struct opt_def sla_terms_opts[] = {
    {"none", 0, NULL, "Nothing is credited of itself."}};
static const struct opt_def sla_opts[] = {
    {"incident", 0, "ID", "The incident. Required."},
    {"reservation", 0, "ID", "Only this one. Default: all that it touched."},
    {"percent", 0, "SHARE", "Of what was captured for it, such as 10%."},
    {"amount", 0, "AMOUNT", "Instead: so much, for one --reservation."},
};
static const struct opt_def fx_opts[] = {
    {"source", 0, "TEXT", "Where the rate is from. Required."},
};
static const struct opt_def tax_rate_opts[] = {
    {"from", 0, "TIME", "From when on; now else."},
};
static const struct opt_def tax_class_opts[] = {
    {"tenant", 0, "NAME", "What this tenant buys, whatever it is."},
    {"meter", 0, "METER", "gpu or path: what is sold."},
    {"model", 0, "MODEL", "With --meter gpu: GPUs of this model only."},
    {"from", 0, "TIME", "From when on; now else."},
};
static const struct opt_def site_opts[] = {
    {"city", 0, "CITY", "City."},
    {"lat", 0, "DEGREES", "Latitude."},
    {"lon", 0, "DEGREES", "Longitude."},
    {"residency", 0, "COUNTRY", "Country whose law applies, two letters."},
    {"zone", 0, "ZONE", "Disaster zone: sites that one event may take out together."},
};
static const struct opt_def tenant_set_opts[] = {
    {"priority", 0, "N", "Place among those who wait: higher first, -1000 to 1000."},
};
static const struct opt_def path_add_opts[] = {
    {"from", 0, "SITE", "One end."},
    {"to", 0, "SITE", "The other end."},
    {"lanes", 0, "N", "How many lanes can be sold, 1 to 64."},
    {"lane-bandwidth", 0, "RATE", "Rate of one lane, such as 10Gbps."},
    {"rtt", 0, "DURATION", "Round trip the operator guarantees. Default: not known."},
    {"lossless", 0, NULL, "No loss, as on an optical path."},
    {"price-per-gbps-hour", 0, "AMOUNT", "Price of 1 Gbit/s for an hour."},
    {"setup", 0, "DURATION", "How long before the start it must be set up."},
    {"provider", 0, "NAME", "Operator who is paid."},
};
static const struct opt_def path_set_opts[] = {
    {"price-per-gbps-hour", 0, "AMOUNT", "New price, for what is booked from now on."},
    {"state", 0, "STATE", "up, or down: not sold."},
};
static const struct opt_def drill_opts[] = {
    {"lose", 0, "SITE", "The site that is lost. Required."},
};
static const struct opt_def report_opts[] = {
    {"from", 0, "TIME", "Start of the period."},
    {"to", 0, "TIME", "End of the period."},
    {"site", 0, "SITE", "Only this site."},
    {"provider", 0, "PROVIDER", "Only this provider."},
    {"tenant", 0, "TENANT", "Only this tenant."},
    {"model", 0, "MODEL", "Only this model of GPU."},
    {"currency", 0, "CODE", "Only this currency."},
    {"html", 0, "FILE", "Write a page with charts; with --all: into this directory."},
    {"all", 0, NULL, "Every report that takes the filters given, and an index."},
};

static const struct opt_def audit_opts[] = {
    {"from", 0, "TIME", "Start of the period."},
    {"to", 0, "TIME", "End of the period."},
    {"actor", 0, "WHO", "Only this one, such as tenant:kagaku-lab."},
    {"action", 0, "TEXT", "Only what begins so, such as \"POST /v1/reservations\"."},
    {"object", 0, "TEXT", "Only paths with this in them: an id, a name."},
};

#endif
