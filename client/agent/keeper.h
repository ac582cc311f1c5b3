/* keeper: one process per job, outside the job's cgroup, in a session of its own. It
 * makes the job (lease_init), keeps its output, and kills it at the end, all without
 * the agent; several may attach to it and leave again.
 *
 * attach.sock (SOCK_STREAM), frames as in frame.h. The client first sends
 *   a {"offset":N}        N = bytes of log already seen (a frame boundary)
 * and gets the log from there, live: frames `o` and `e` exactly as in the log; then
 *   x {"exit":N}|{"signal":N} with "reason": exited, lease_end, revoked, stopped,
 *     killed, lost; and the end of the stream.
 * It may send   i data   I (end of stdin)   s "15" (signal to the job's group)
 *   w {"rows","cols"} (1..LAUNCH_WINDOW_MAX each): the window of the job's terminal has
 *     changed; nothing happens when it has none.
 * A job with a terminal has one stream of output, `o`; the end of stdin is typed into
 * its terminal (twice ^D, or what it is set to) while that reads lines.
 * A refused client gets   E {"error","step","detail"}.
 *
 * Invariants: a slow or dead client never slows the job (each reads from the log file);
 * the job never sees SIGPIPE or EOF because a keeper died (lease-init holds the other
 * ends); a job is started at most once; past the bound output is counted and dropped,
 * with one `e` frame saying so. */
#ifndef NEARGPU_KEEPER_H
#define NEARGPU_KEEPER_H

#define KEEPER_CLIENTS_MAX 8
/* Who ends a lease comes before those who compute, on a node that is full of jobs: so
 * much nicer is the world to a keeper and its lease-init than to the job. */
#define KEEPER_NICE       10
#define KEEPER_OUTPUT_MAX (INT64_C(256) * 1024 * 1024) /* log bytes per job */

/* `neargpu-agent keeper JOB_DIR [READY_FD]`: argv[0] is "keeper". Exit status 0 when
 * the job's end was recorded. READY_FD gets one line: "ok" or an error text. */
int keeper_main(int argc, char **argv);

#endif
