/* commands: every command, option and example of `neargpu`. Parsing, --help, the man
 * page and the tests of docs/ read this table and nothing else. */
#include "client/cli/cli.h"
#include "client/cli/command_opts.h"

#define COUNT(table)   (sizeof(table) / sizeof((table)[0]))
#define OPTS(table)    .opts = table, .opt_count = COUNT(table)
#define EX(table)      .examples = table, .example_count = COUNT(table)
#define ARGS(min, max) .min_args = min, .max_args = max

#define EXAMPLES(name, ...) static const struct opt_example name[] = {__VA_ARGS__}
EXAMPLES(
    login_ex,
    {"neargpu login --server https://market.example:8443 --ca ca.pem",
     "Log in; the API key is asked for and not shown."},
    {"neargpu --account admin login --server https://market.example:8443 --ca "
     "ca.pem --api-key-file admin.key",
     "A second account, with the key from a file."},
    {"neargpu login --server https://market.example:8443 --ca ca.pem --key "
     "agent:SHA256:kTq1…",
     "Tokens bound to a key that never leaves ssh-agent (ssh-add -l lists them)."});
EXAMPLES(logout_ex, {"neargpu --account admin logout", "Forget this account here."});
EXAMPLES(whoami_ex, {"neargpu whoami", "Who the server says you are."});
EXAMPLES(data_add_ex,
         {"neargpu data add genome-tokyo --site tokyo --endpoint "
          "https://s3.tokyo.example/genome --size 12TB",
          "A data set at a site of the market."},
         {"neargpu data add archive --lat 35.68 --lon 139.69 --endpoint "
          "store.example:443",
          "One elsewhere: its position gives a first estimate of the distance."});
EXAMPLES(key_list_ex, {"neargpu key list", "The keys that open your leases by ssh."});
EXAMPLES(key_add_ex, {"neargpu key add ~/.ssh/id_ed25519.pub", "One more of them."});
EXAMPLES(key_rm_ex, {"neargpu key rm 8Xw0…", "That one not any more."});
EXAMPLES(data_list_ex, {"neargpu data list", "All data sets."});
EXAMPLES(data_show_ex, {"neargpu data show genome-tokyo",
                        "One data set, with the round trips measured to it."});
EXAMPLES(data_rm_ex, {"neargpu data rm archive", "No longer offer to be near it."});
EXAMPLES(profiles_ex, {"neargpu profiles", "Workload profiles and their sources."});
EXAMPLES(offers_ex,
         {"neargpu offers --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile "
          "resnet50_h100 --max-rtt 20ms",
          "Where eight H100 can be had near the data, best first."},
         {"neargpu -o csv offers --gpu H100 --for 1h", "For a spreadsheet."},
         {"neargpu offers --near genome-tokyo --gpus 8 --for 4h --demand 200MB/s "
          "--bandwidth 40Gbps",
          "A workload of one's own, with a path of 40 Gbit/s to the data."});
EXAMPLES(calendar_ex,
         {"neargpu calendar --gpu H100 --from now --to +12h",
          "Free GPUs of all places in the next hours."},
         {"neargpu -o csv calendar --step 15m", "The figures, a row for each step."});
EXAMPLES(explain_ex,
         {"neargpu explain --near genome-tokyo --gpu H100 --gpus 8 --for 4h "
          "--max-rtt 5ms",
          "Why places do not fit, and what would."});
EXAMPLES(quote_ex,
         {"neargpu quote --near genome-tokyo --gpu H100 --gpus 8 --for 4h",
          "A plan with its price, good for some minutes."},
         {"neargpu quote --gpu H100 --gpus 8 --nodes 4 --for 4h --hold",
          "A gang of four nodes, kept while you decide."});
EXAMPLES(
    reserve_ex,
    {"neargpu reserve --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile "
     "resnet50_h100",
     "Show the plan and its price, ask, and book it."},
    {"neargpu reserve --near genome-tokyo --gpus 8 --for 4h --between 2026-11-23T20:00 "
     "2026-11-24T06:00 --max-price 4000 --yes",
     "Any start in the night, at most 4000, without asking."},
    {"neargpu reserve --gpu H100 --gpus 8 --nodes 4 --together domain --for 4h",
     "Four nodes of one fabric, all or nothing."},
    {"neargpu reserve --federated genome-tokyo,genome-osaka --nodes 2 --gpus 8 --for "
     "4h",
     "Two nodes near each data set."},
    {"neargpu reserve --gpu H100 --gpus 8 --for 4h --spot --wait",
     "Cheap and preemptible, and not in a hurry."});
EXAMPLES(list_ex, {"neargpu list --state active", "What is running now."});
EXAMPLES(show_ex, {"neargpu show 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
                   "One reservation with its places and data sets."});
EXAMPLES(extend_ex,
         {"neargpu extend 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --by 2h",
          "Two hours longer, if the GPUs are free and the wallet covers it."});
EXAMPLES(shrink_ex, {"neargpu shrink 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --gpus 4",
                     "Four GPUs on each node will do."});
EXAMPLES(move_ex,
         {"neargpu move 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
          "To the place that is best by now."},
         {"neargpu move 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --site osaka --without "
          "max-rtt",
          "To this site, whatever its distance."});
EXAMPLES(cancel_ex, {"neargpu cancel 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
                     "Give it back; what was used is charged."});
EXAMPLES(token_ex,
         {"neargpu token 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
          "The token that the node's agent checks."},
         {"neargpu -o json token 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --for bob.pub "
          "--gpus 0 "
          "--until +2h",
          "One GPU of it for two hours, for who holds that key."});
EXAMPLES(
    run_ex,
    {"neargpu run 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d -- python3 train.py",
     "Run on the reserved GPUs; output, signals and exit code come through."},
    {"neargpu run 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --tty -- bash",
     "A shell with the reserved GPUs; ^C and window size go through."},
    {"neargpu run 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --detach -- ./train.sh",
     "Start it and leave."},
    {"neargpu run 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --attach",
     "Look at the latest job again, from its first output on."},
    {"neargpu run 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d -- torchrun train.py",
     "On a gang: torchrun on each node, which finds the others by itself."},
    {"neargpu run 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --per-gpu --output-dir logs "
     "-- python3 train.py",
     "One rank for each GPU, each with files of its own."});
EXAMPLES(adopt_ex,
         {"neargpu adopt 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --cgroup "
          "/machine.slice/libpod-0123.scope",
          "A container of podman; podman inspect tells its CgroupPath."},
         {"neargpu adopt 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d --pid 4711",
          "The container of this process."});
EXAMPLES(
    ssh_ex,
    {"neargpu ssh 01993f2e-5c1a-7abc-8def-0123456789ab", "A shell on the node."},
    {"neargpu ssh 01993f2e-5c1a-7abc-8def-0123456789ab -- nvidia-smi -L",
     "A command; its exit status comes back."},
    {"neargpu ssh 01993f2e-5c1a-7abc-8def-0123456789ab -- -N -L 8888:localhost:8888",
     "A notebook in the lease, where the provider allows forwarding."},
    {"neargpu ssh 01993f2e-5c1a-7abc-8def-0123456789ab --config >lease.conf",
     "Then scp -F lease.conf and rsync -e 'ssh -F lease.conf' work."});
EXAMPLES(usage_ex,
         {"neargpu usage --from 2026-11-01 --to 2026-12-01",
          "GPU hours and their price in November."},
         {"neargpu usage --receipts 01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
          "What the nodes signed, gap by gap, and whether the chain is whole."});
EXAMPLES(audit_ex, {"neargpu admin audit --actor tenant:kagaku-lab --from 2026-11-01",
                    "What this tenant has asked for since then."});
EXAMPLES(witness_list_ex, {"neargpu admin witness list",
                           "Who cosigns the log, and how long ago each did."});
EXAMPLES(wallet_ex, {"neargpu wallet", "Money there is, money held, and what moved."});
EXAMPLES(invoice_list_ex, {"neargpu invoice list", "All invoices."});
EXAMPLES(invoice_show_ex,
         {"neargpu invoice show INV-2026-000001", "One, with its lines."},
         {"neargpu invoice show INV-2026-000001 --bundle november.json",
          "And all that proves it, to be checked by verify, anywhere."});
EXAMPLES(
    verify_ex,
    {"neargpu verify november.json",
     "Is every record in the market's log, every receipt signed, every sum right?"},
    {"neargpu verify",
     "Do the market's logs still hold all that they held at the last look?"});
EXAMPLES(billing_ex, {"neargpu billing", "How invoices are addressed."},
         {"neargpu billing --name Kagaku-Lab --address "
          "1-1-Chiyoda\\nTokyo --lang ja",
          "From the next invoice on."});
EXAMPLES(witness_ex, {"neargpu witness", "Look once, and cosign what was seen."},
         {"neargpu witness --every 1h", "A witness that others can name to `verify`."});
EXAMPLES(join_ex, {"neargpu provider join-code --site fukuoka --node gpu-17",
                   "A one-time code with which the node's agent enrols."});
EXAMPLES(nodes_ex, {"neargpu provider nodes", "Nodes with their GPUs and state."});
EXAMPLES(reattest_ex, {"neargpu provider reattest gpu-17",
                       "A code with which the node gets a new identity."});
EXAMPLES(ban_ex, {"neargpu admin node ban gpu-17 --reason \"forged receipts\"",
                  "Deal with this node no more."});
EXAMPLES(unban_ex, {"neargpu admin node unban gpu-17", "Deal with this node again."});
EXAMPLES(price_ex, {"neargpu provider price", "Prices in force."},
         {"neargpu provider price 1.99 --site fukuoka --gpu H100",
          "A new price per GPU-hour for what is booked from now on."},
         {"neargpu provider price 1.99 --spot 0.80 --notice 2m",
          "The same, and a price for preemptible use with two minutes' notice."});
EXAMPLES(tenant_create_ex, {"neargpu admin tenant create kagaku-lab --key-file "
                            "kagaku-lab.key",
                            "A tenant; its API key goes to a file."});
EXAMPLES(tenant_list_ex, {"neargpu admin tenant list", "Tenants and their balances."});
EXAMPLES(tenant_set_ex, {"neargpu admin tenant set kagaku-lab --priority 10",
                         "Before others on the waiting list."});
EXAMPLES(budget_set_ex, {"neargpu budget set 500000", "At most so much a month."},
         {"neargpu budget set 500000 --soft --period total",
          "Only be told at 50, 80 and 100 % of it."});
EXAMPLES(budget_show_ex, {"neargpu budget show", "The limit, and what is committed."});
EXAMPLES(budget_rm_ex, {"neargpu budget rm", "No limit any more."});
EXAMPLES(promo_grant_ex,
         {"neargpu admin promo grant kagaku-lab 10000 --expires 2027-03-31T23:59 "
          "--reason \"first project\"",
          "10000 to be used by the end of March."});
EXAMPLES(promo_list_ex, {"neargpu admin promo list", "What was granted and is left."});
EXAMPLES(incident_open_ex,
         {"neargpu admin incident open site osaka --reason \"cooling failed\" --from "
          "2026-11-23T08:00",
          "Everything at the site, since eight."},
         {"neargpu admin incident open platform --reason \"log-in was down\"",
          "The market's own fault."});
EXAMPLES(incident_close_ex, {"neargpu admin incident close 7", "It is over."});
EXAMPLES(incident_list_ex, {"neargpu admin incident list", "Newest first."});
EXAMPLES(incidents_ex, {"neargpu incidents", "What went wrong where you had GPUs."});
EXAMPLES(sla_show_ex, {"neargpu sla", "What comes back when a node was not there."});
EXAMPLES(sla_terms_ex,
         {"neargpu admin sla terms 1%:10m:10% 5%:10m:25%",
          "A tenth comes back when 1 % of a lease and ten minutes were missing."});
EXAMPLES(tax_list_ex, {"neargpu admin tax list", "Rates and rules, past and to come."});
EXAMPLES(tax_rate_ex, {"neargpu admin tax rate standard 12% --from 2027-04-01",
                       "The standard rate from then on."});
EXAMPLES(tax_class_ex,
         {"neargpu admin tax class zero --tenant oslo-lab",
          "A tenant abroad is not taxed."},
         {"neargpu admin tax class reduced --meter gpu --model A10",
          "Use of these GPUs has the reduced rate."});
EXAMPLES(sla_ex, {"neargpu admin sla credit --incident 7 --percent 25%",
                  "A quarter back to all whom it touched."});
EXAMPLES(fx_set_ex, {"neargpu admin fx set EUR/JPY 165.32 --source \"ECB 2026-11-23\"",
                     "For top-ups in euro from now on."});
EXAMPLES(fx_list_ex, {"neargpu admin fx list", "The rate of each pair."});
EXAMPLES(topup_ex, {"neargpu admin tenant topup kagaku-lab --amount 1000 --reference "
                    "\"bank transfer 2026-11-20\"",
                    "Money that has arrived at the bank."});
EXAMPLES(provider_create_ex,
         {"neargpu admin provider create kyushu-gpu --fee 5% --key-file kyushu-gpu.key",
          "A provider that pays five per cent."});
EXAMPLES(provider_list_ex, {"neargpu admin provider list", "All providers."});
EXAMPLES(site_add_ex, {"neargpu admin site add fukuoka --city Fukuoka --lat 33.5902 "
                       "--lon 130.4017 --residency jp --zone kyushu",
                       "A place where nodes or data stand."});
EXAMPLES(site_list_ex, {"neargpu admin site list", "All sites."});
EXAMPLES(path_add_ex,
         {"neargpu admin path add tokyo-fukuoka --from tokyo --to fukuoka --lanes 10 "
          "--lane-bandwidth 10Gbps --rtt 11.6ms --lossless --price-per-gbps-hour 0.05 "
          "--setup 5m --provider kyushu-gpu",
          "An optical path that is sold in lanes of 10 Gbit/s."});
EXAMPLES(path_list_ex, {"neargpu admin path list", "All paths."});
EXAMPLES(path_set_ex, {"neargpu admin path set tokyo-fukuoka --state down",
                       "No more bookings on it."});
EXAMPLES(drill_ex, {"neargpu admin drill --lose fukuoka",
                    "What would become of each tenant's reservations."});
EXAMPLES(report_ex, {"neargpu admin report", "Names of the reports."},
         {"neargpu -o csv admin report utilisation_hourly --from 2026-11-01",
          "One report as CSV."},
         {"neargpu admin report demand_heatmap --from 2026-11-01 --html demand.html",
          "One as a page that needs nothing else to be looked at."},
         {"neargpu admin report --all --html reports --from 2026-11-01",
          "All of them, with an index."});
EXAMPLES(status_ex, {"neargpu admin status", "Nodes, reservations, database, checks."});

#include "client/cli/commands_payout.h"

static const struct opt_command commands[CMD_COUNT] = {
    PAYOUT_COMMANDS,
    [CMD_LOGIN] = {"login", "", "store server, API key and the market's CA",
                   "The API key is read from the terminal, standard input or a file, "
                   "never from the arguments, and checked with the server before "
                   "anything is stored. Without --ca and --ca-sha256 the fingerprint "
                   "of the CA is shown and must be confirmed. The key to which tokens "
                   "are bound is made here and never leaves this computer, or is "
                   "the one of --key, which stays where it is.",
                   OPTS(login_opts), ARGS(0, 0), EX(login_ex)},
    [CMD_LOGOUT] = {"logout", "", "remove the account's files from this computer", NULL,
                    NULL, 0, ARGS(0, 0), EX(logout_ex)},
    [CMD_WHOAMI] = {"whoami", "", "show the account as the server knows it", NULL, NULL,
                    0, ARGS(0, 0), EX(whoami_ex)},
    [CMD_KEY_LIST] = {"key list", "", "list your SSH keys at the market", NULL, NULL, 0,
                      ARGS(0, 0), EX(key_list_ex)},
    [CMD_KEY_ADD] = {"key add", "FILE.pub", "let an SSH key open your leases",
                     "Nodes are told your keys with each lease. The account's own key "
                     "is added by login.",
                     NULL, 0, ARGS(1, 1), EX(key_add_ex)},
    [CMD_KEY_RM] = {"key rm", "ID", "remove an SSH key", NULL, NULL, 0, ARGS(1, 1),
                    EX(key_rm_ex)},
    [CMD_DATA_ADD] = {"data add", "NAME", "tell the market where a data set stands",
                      "Agents then measure the round trip from their site to its "
                      "endpoint. Give --site, or --lat and --lon.",
                      OPTS(data_add_opts), ARGS(1, 1), EX(data_add_ex)},
    [CMD_DATA_LIST] = {"data list", "", "list data sets", NULL, NULL, 0, ARGS(0, 0),
                       EX(data_list_ex)},
    [CMD_DATA_SHOW] = {"data show", "NAME", "show one data set", NULL, NULL, 0,
                       ARGS(1, 1), EX(data_show_ex)},
    [CMD_DATA_RM] = {"data rm", "NAME", "remove a data set from the market",
                     "Only what the market knows about it; the data is not touched.",
                     NULL, 0, ARGS(1, 1), EX(data_rm_ex)},
    [CMD_PROFILES] = {"profiles", "", "list workload profiles", NULL, NULL, 0,
                      ARGS(0, 0), EX(profiles_ex)},
    [CMD_OFFERS] = {"offers", "",
                    "list places that fit, best first, and why others "
                    "do not",
                    "Places are ranked by effective price: the price times the "
                    "predicted slow-down of the workload at that distance from the "
                    "data. The one that reserve would take is marked with a star.",
                    OPTS(request_opts), ARGS(0, 0), EX(offers_ex)},
    [CMD_CALENDAR] =
        {"calendar", "", "show how many GPUs are free when",
         "A row of blocks for each place: the higher, the more of its GPUs "
         "are free during the whole step; a dot is none. The second row is "
         "the most that can be had on one node. csv and json carry the "
         "figures.",
         OPTS(calendar_opts), ARGS(0, 0), EX(calendar_ex)},
    [CMD_EXPLAIN] = {"explain", "", "say why places are refused, and what would fit",
                     "Each place with the rule that excludes it and the nearest change "
                     "of the request that would fit there; below, the command lines.",
                     OPTS(request_opts), ARGS(0, 0), EX(explain_ex)},
    [CMD_QUOTE] =
        {"quote", "", "get a binding plan and price, without booking",
         "Without --hold a quote holds no GPU: reserve --quote ID books it while "
         "it is good and the GPUs are still free.",
         OPTS(quote_opts), ARGS(0, 0), EX(quote_ex)},
    [CMD_RESERVE] =
        {"reserve", "", "reserve GPUs near the data",
         "Shows the plan and its price and asks, unless --yes. Each call "
         "carries an idempotency key; when the outcome is not known (exit "
         "status 9) the key is printed with the command that finds out "
         "without booking twice. Scripts give their own: the same command "
         "with --yes and the same --key is answered with the same "
         "reservation. With --wait a request that does not fit now stands in "
         "the waiting list, which neargpu show tells the place in; nothing is "
         "charged while it waits.",
         OPTS(reserve_opts), ARGS(0, 0), EX(reserve_ex)},
    [CMD_LIST] = {"list", "", "list reservations", NULL, OPTS(list_opts), ARGS(0, 0),
                  EX(list_ex)},
    [CMD_SHOW] = {"show", "ID", "show one reservation", NULL, NULL, 0, ARGS(1, 1),
                  EX(show_ex)},
    [CMD_EXTEND] = {"extend", "ID", "make a reservation longer",
                    "Shows what it costs and asks, unless --yes.", OPTS(extend_opts),
                    ARGS(1, 1), EX(extend_ex)},
    [CMD_SHRINK] =
        {"shrink", "ID", "make a reservation shorter or smaller",
         "An end can be moved forward until a day before the start, GPUs can "
         "be given back before the start. Shows what comes back and asks.",
         OPTS(shrink_opts), ARGS(1, 1), EX(shrink_ex)},
    [CMD_MOVE] =
        {"move", "ID", "move a reservation to the best place by now",
         "Ranks again by what was asked when it was made, with the options given "
         "here in its place. The new place is booked and the old one given back "
         "in one step, or nothing happens. Shows the new plan and the difference "
         "in price and asks. Only before the start.",
         OPTS(move_opts), ARGS(1, 1), EX(move_ex)},
    [CMD_CANCEL] = {"cancel", "ID", "give a reservation back",
                    "A running job is ended. What was used is charged, the rest of "
                    "the money is released; how much is shown before.",
                    NULL, 0, ARGS(1, 1), EX(cancel_ex)},
    [CMD_TOKEN] = {"token", "ID", "get the reservation's token",
                   "The token names the GPUs and the time, is checked by the node's "
                   "agent without the server, and is of no use without the key of "
                   "this account.",
                   OPTS(token_opts), ARGS(1, 1), EX(token_ex)},
    [CMD_RUN] =
        {"run", "ID [-- COMMAND [ARGUMENT ...]]", "run a command on the reserved GPUs",
         "Standard input, output and error go through, and so do SIGINT, "
         "SIGTERM, SIGHUP and SIGQUIT; a second ^C within a second leaves the "
         "job running and comes back. The exit status is the job's, or 128 "
         "plus the signal that ended it. When the connection is lost it is "
         "made again and goes on where it was. With --attach, ID may be "
         "followed by a job's id, and SIGTERM and SIGHUP only detach. On a "
         "reservation of several nodes, or with --per-gpu, all ranks are started, "
         "with the environment that torchrun, torch.distributed and MPI programs "
         "expect; lines of output are never mixed and carry [rank] on a terminal; "
         "when one rank fails the others are ended, first by SIGTERM, and the exit "
         "status is that of the first that failed.",
         OPTS(run_opts), ARGS(1, -1), EX(run_ex)},
    [CMD_SSH] =
        {"ssh", "ID [-- SSH-ARGUMENT ...]", "log in to a reserved node by ssh",
         "Runs the system's ssh with the node's address and host key, and with this "
         "account's key. What follows the reservation is ssh's own: a command, or "
         "options "
         "such as -L. The session runs in the lease, with its GPUs only, and ends with "
         "it; what shall go on without you is started by neargpu run --detach. With "
         "--config, scp ID:FILE and rsync -e ssh work as well.",
         OPTS(ssh_opts), ARGS(1, -1), EX(ssh_ex)},
    [CMD_ADOPT] =
        {"adopt", "ID", "give the reserved GPUs to a container that runs already",
         "On the node itself, as root or the owner of the cgroup's directory. From "
         "then "
         "on the programs of the cgroup, and of those below it, open the reserved GPUs "
         "and no other device, and they are ended with the reservation: all of them. "
         "Refused when one of them has a device open already, or a device program "
         "stands there that suffers no second one. It is a weaker hold than that on a "
         "job of neargpu run: the container has its own view of the machine and its "
         "own limits, may be handed open files from outside, and without a running "
         "agent only the opening of GPUs ends by itself.",
         OPTS(adopt_opts), ARGS(1, 1), EX(adopt_ex)},
    [CMD_USAGE] = {"usage", "", "show metered use and its price", NULL,
                   OPTS(usage_opts), ARGS(0, 0), EX(usage_ex)},
    [CMD_WALLET] = {"wallet", "", "show the wallet and its last transfers", NULL, NULL,
                    0, ARGS(0, 0), EX(wallet_ex)},
    [CMD_INVOICE_LIST] = {"invoice list", "", "list invoices and credit notes", NULL,
                          NULL, 0, ARGS(0, 0), EX(invoice_list_ex)},
    [CMD_INVOICE_SHOW] = {"invoice show", "NUMBER", "show one invoice", NULL,
                          OPTS(invoice_opts), ARGS(1, 1), EX(invoice_show_ex)},
    [CMD_BILLING] =
        {"billing", "", "show or change how invoices are addressed",
         "Without options it shows them. Invoices that are issued keep what "
         "they say.",
         OPTS(billing_opts), ARGS(0, 0), EX(billing_ex)},
    [CMD_VERIFY] =
        {"verify", "[FILE]",
         "check a bundle, or the market's logs, without trusting it",
         "With FILE, a bundle of `invoice show` or `usage`, everything is computed "
         "here, "
         "offline: records against the log's signed head, receipts against their "
         "nodes' "
         "keys, lines against what was captured, sums and tax. Without FILE the newest "
         "heads are fetched and must extend those seen before, which are kept with the "
         "account. Whatever is wrong is told, and the exit status is not 0.",
         OPTS(verify_opts), ARGS(0, 1), EX(verify_ex)},
    [CMD_WITNESS] = {"witness", "", "be a witness of the market's logs",
                     "As `verify` without a file; when the newest heads extend those "
                     "seen before they are cosigned, and the market keeps the "
                     "cosignatures for others to see. The key is made at the first "
                     "look; whoever knows it can demand it: `verify --witness KEY`.",
                     OPTS(witness_opts), ARGS(0, 0), EX(witness_ex)},
    [CMD_PROVIDER_JOIN_CODE] = {"provider join-code", "",
                                "make a one-time code to enrol a node",
                                "The code works once, for this site and node name "
                                "only, until it expires.",
                                OPTS(join_opts), ARGS(0, 0), EX(join_ex)},
    [CMD_PROVIDER_NODES] = {"provider nodes", "", "list nodes", NULL, NULL, 0,
                            ARGS(0, 0), EX(nodes_ex)},
    [CMD_PROVIDER_REATTEST] =
        {"provider reattest", "NODE", "make a code to give a node a new identity",
         "For a node that is `cloned` (two agents go on with its identity), whose keys "
         "may be known to others, or whose certificate ran out. `neargpu-agent enroll "
         "--again` with the code replaces its keys and its certificate, and the "
         "earlier "
         "ones are refused from then on; its leases, bookings and jobs go on.",
         OPTS(reattest_opts), ARGS(1, 1), EX(reattest_ex)},
    [CMD_PROVIDER_PRICE] =
        {"provider price", "[AMOUNT]", "show or set prices",
         "With AMOUNT: the price of one GPU for an hour, on all "
         "nodes that match, from now on. Reservations made before "
         "keep theirs. It stays until it is set anew, here or by a changed "
         "price in the node's agent.conf. With --spot and --notice the nodes "
         "may also be reserved preemptibly, at that price.",
         OPTS(price_opts), ARGS(0, 1), EX(price_ex)},
    [CMD_ADMIN_TENANT_CREATE] = {"admin tenant create", "NAME", "make a tenant",
                                 "Its API key is shown once, and stored nowhere.",
                                 OPTS(tenant_create_opts), ARGS(1, 1),
                                 EX(tenant_create_ex)},
    [CMD_ADMIN_TENANT_LIST] = {"admin tenant list", "", "list tenants", NULL, NULL, 0,
                               ARGS(0, 0), EX(tenant_list_ex)},
    [CMD_ADMIN_TENANT_SET] = {"admin tenant set", "NAME", "set a tenant's priority",
                              NULL, OPTS(tenant_set_opts), ARGS(1, 1),
                              EX(tenant_set_ex)},
    [CMD_BUDGET_SET] = {"budget set", "AMOUNT", "limit what may be committed",
                        "Committed is what is held now and what was captured in the "
                        "period. A hard budget refuses a reservation that would go "
                        "over it (code budget, exit status 7); at 50, 80 and 100 % an "
                        "event budget.alert is sent, once a period.",
                        OPTS(budget_set_opts), ARGS(1, 1), EX(budget_set_ex)},
    [CMD_BUDGET_SHOW] = {"budget show", "", "show the budget", NULL, OPTS(budget_opts),
                         ARGS(0, 0), EX(budget_show_ex)},
    [CMD_BUDGET_RM] = {"budget rm", "", "remove the budget", NULL, OPTS(budget_opts),
                       ARGS(0, 0), EX(budget_rm_ex)},
    [CMD_ADMIN_PROMO_GRANT] =
        {"admin promo grant", "TENANT AMOUNT", "give a tenant promotional credit",
         "Its wallet may go below zero by what is left of it; use is set against it as "
         "it is billed, what expires first first.",
         OPTS(promo_opts), ARGS(2, 2), EX(promo_grant_ex)},
    [CMD_ADMIN_PROMO_LIST] = {"admin promo list", "", "list promotional credit", NULL,
                              NULL, 0, ARGS(0, 0), EX(promo_list_ex)},
    [CMD_ADMIN_INCIDENT_OPEN] =
        {"admin incident open", "WHAT [NAME]", "note what went wrong",
         "WHAT is provider, site, node or path, with its name, or platform. Outages in "
         "leases that the market sees itself are noted and credited by themselves.",
         OPTS(incident_opts), ARGS(1, 2), EX(incident_open_ex)},
    [CMD_ADMIN_INCIDENT_CLOSE] = {"admin incident close", "ID", "note that it is over",
                                  NULL, OPTS(incident_close_opts), ARGS(1, 1),
                                  EX(incident_close_ex)},
    [CMD_ADMIN_INCIDENT_LIST] = {"admin incident list", "", "list incidents", NULL,
                                 NULL, 0, ARGS(0, 0), EX(incident_list_ex)},
    [CMD_ADMIN_SLA_CREDIT] = {"admin sla credit", "", "credit tenants for an incident",
                              "At the cost of whose fault it was; once a reservation "
                              "and incident, and never "
                              "more than was captured and is not given back yet.",
                              OPTS(sla_opts), ARGS(0, 0), EX(sla_ex)},
    [CMD_ADMIN_SLA_TERMS] =
        {"admin sla terms", "[SHARE:TIME:CREDIT ...]", "set what is credited of itself",
         "When a node was not there for SHARE of a lease's time and for TIME at least, "
         "CREDIT of what was charged for it comes back; of several the highest. All "
         "are set at once, for leases that are billed to their end from now on.",
         OPTS(sla_terms_opts), ARGS(0, 20), EX(sla_terms_ex)},
    [CMD_INCIDENTS] = {"incidents", "", "what went wrong where you have GPUs",
                       "Outages that the market sees, while they last, and what "
                       "administrators noted; and what you were credited for it.",
                       NULL, 0, ARGS(0, 0), EX(incidents_ex)},
    [CMD_SLA] = {"sla", "", "what is credited when a node was not there", NULL, NULL, 0,
                 ARGS(0, 0), EX(sla_show_ex)},
    [CMD_ADMIN_FX_SET] = {"admin fx set", "BASE/QUOTE RATE", "set a rate of exchange",
                          "So much of QUOTE for 1 of BASE. A top-up in BASE is "
                          "exchanged at the newest rate.",
                          OPTS(fx_opts), ARGS(2, 2), EX(fx_set_ex)},
    [CMD_ADMIN_FX_LIST] = {"admin fx list", "", "list rates of exchange", NULL, NULL, 0,
                           ARGS(0, 0), EX(fx_list_ex)},
    [CMD_ADMIN_TAX_LIST] = {"admin tax list", "", "list rates of tax and their classes",
                            NULL, NULL, 0, ARGS(0, 0), EX(tax_list_ex)},
    [CMD_ADMIN_TAX_RATE] = {"admin tax rate", "CLASS PERCENT", "set a rate of tax",
                            "Of class standard or reduced, from now or later on. An "
                            "invoice's period ends where taxes change.",
                            OPTS(tax_rate_opts), ARGS(2, 2), EX(tax_rate_ex)},
    [CMD_ADMIN_TAX_CLASS] = {"admin tax class", "CLASS",
                             "say which class of tax a tenant or meter has",
                             "CLASS is standard, reduced, zero, exempt or outside. A "
                             "tenant's goes before that of what it buys.",
                             OPTS(tax_class_opts), ARGS(1, 1), EX(tax_class_ex)},
    [CMD_ADMIN_TENANT_TOPUP] = {"admin tenant topup", "NAME",
                                "put money into a tenant's wallet", NULL,
                                OPTS(topup_opts), ARGS(1, 1), EX(topup_ex)},
    [CMD_ADMIN_PROVIDER_CREATE] = {"admin provider create", "NAME", "make a provider",
                                   "Its API key is shown once, and stored nowhere.",
                                   OPTS(provider_create_opts), ARGS(1, 1),
                                   EX(provider_create_ex)},
    [CMD_ADMIN_PROVIDER_LIST] = {"admin provider list", "", "list providers", NULL,
                                 NULL, 0, ARGS(0, 0), EX(provider_list_ex)},
    [CMD_ADMIN_SITE_ADD] = {"admin site add", "NAME", "add a site", NULL,
                            OPTS(site_opts), ARGS(1, 1), EX(site_add_ex)},
    [CMD_ADMIN_SITE_LIST] = {"admin site list", "", "list sites", NULL, NULL, 0,
                             ARGS(0, 0), EX(site_list_ex)},
    [CMD_ADMIN_NODE_BAN] =
        {"admin node ban", "NODE", "deal with a node no more",
         "Its agent is refused and nothing of it is offered. What runs on it is "
         "revoked, "
         "and ends on its other nodes too; what is booked on it and has not begun is "
         "placed anew, or fails and is given back. Receipts of its use are still "
         "taken.",
         OPTS(ban_opts), ARGS(1, 1), EX(ban_ex)},
    [CMD_ADMIN_NODE_UNBAN] = {"admin node unban", "NODE", "deal with a node again",
                              "What was revoked stays so. A node whose certificate ran "
                              "out meanwhile is to be attested again.",
                              OPTS(unban_opts), ARGS(1, 1), EX(unban_ex)},
    [CMD_ADMIN_PATH_ADD] = {"admin path add", "NAME", "add a path between two sites",
                            "Its lanes are booked together with GPUs by --bandwidth.",
                            OPTS(path_add_opts), ARGS(1, 1), EX(path_add_ex)},
    [CMD_ADMIN_PATH_LIST] = {"admin path list", "", "list paths", NULL, NULL, 0,
                             ARGS(0, 0), EX(path_list_ex)},
    [CMD_ADMIN_PATH_SET] = {"admin path set", "NAME", "change a path's price or state",
                            "What is booked keeps its price and its lanes.",
                            OPTS(path_set_opts), ARGS(1, 1), EX(path_set_ex)},
    [CMD_ADMIN_DRILL] =
        {"admin drill", "", "tell what would survive the loss of a site",
         "Changes nothing. For each tenant: how many reservations at the "
         "site would go on elsewhere within their bounds, and which would "
         "be lost, and why.",
         OPTS(drill_opts), ARGS(0, 0), EX(drill_ex)},
    [CMD_ADMIN_REPORT] = {"admin report", "[NAME]", "list reports, or show one",
                          "Days are those of UTC, and so is a date without a clock "
                          "in --from and --to.",
                          OPTS(report_opts), ARGS(0, 1), EX(report_ex)},
    [CMD_ADMIN_STATUS] = {"admin status", "", "show the state of the market", NULL,
                          NULL, 0, ARGS(0, 0), EX(status_ex)},
    [CMD_ADMIN_AUDIT] =
        {"admin audit", "", "show who did what, from where, and what became of it",
         "Every request that may change something and every one refused for want of a "
         "right, newest first. Bodies and keys are never kept.",
         OPTS(audit_opts), ARGS(0, 0), EX(audit_ex)},
    [CMD_ADMIN_WITNESS_LIST] =
        {"admin witness list", "", "list who cosigns the verifiable log",
         "Agents do so by themselves, one row a log; what one refused to cosign is "
         "told with the time.",
         NULL, 0, ARGS(0, 0), EX(witness_list_ex)},
};

const struct opt_program cli_program = {
    .name = "neargpu",
    .section = 1,
    .summary = "reserve and use GPUs near your data",
    .text = "Reserves GPUs of many providers near a named data set, at the lowest "
            "effective price: the price times the slow-down predicted from the "
            "measured distance. Results go to standard output, everything else to "
            "standard error. Times are shown in the local zone with their offset; "
            "times are read as now, +90m, 2026-11-23T20:00 (local zone) or "
            "2026-11-23T20:00:00+09:00. Amounts are in the market's currency, or carry "
            "one: 4000JPY. Colours are used on a terminal only, and not when NO_COLOR "
            "is set.",
    .commands = commands,
    .command_count = CMD_COUNT,
    .global = global,
    .global_count = COUNT(global),
    .files = "~/.config/neargpu/ACCOUNT.json holds server and API key, ACCOUNT.ca.pem "
             "the market's CA, ACCOUNT.key the key to which tokens are bound. "
             "NEARGPU_CONFIG_DIR names another directory. Secrets must be readable by "
             "their owner only.",
    .exit_status =
        "0 done; 1 failed; 2 wrong usage or request; 3 nothing fits (the text "
        "says why); 4 not allowed, or not logged in; 5 not found; 6 conflict: "
        "lost race or wrong state; 7 not enough funds; 8 server or agent not "
        "reachable, nothing was done; 9 outcome not known: retry with the key "
        "shown. The run command exits with the job's own status.",
    .see_also = "neargpu-agent(8), neargpud(8)",
};
