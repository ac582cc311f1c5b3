/* launch: starts one job inside an open lease, and speaks to running ones.
 *
 * The job's directory holds everything: JOB/spec.json (written before anything runs),
 * FIFOs stdin stdout stderr ctl, `output` (the log), attach.sock, keeper.lock,
 * `started`, `exit`. launch_start() writes it, then starts the keeper, a process of its
 * own session that outlives the agent; the keeper makes the job. The job gets: its own
 * pid, mount, ipc, uts and cgroup namespaces, a /dev with the granted nodes, private
 * /tmp and /dev/shm, a work directory shared by the jobs of the lease
 * (/run/neargpu/work), the rest of the host's files read-only, nodev and nosuid, with
 * the agent's state, /run, /root, /home and /sys/fs hidden; an unprivileged uid, no
 * capabilities, no_new_privs, seccomp, landlock where the kernel has it. The network is
 * the host's: a job has to reach its data.
 *
 * Does not check tokens or states (the caller did) and does not open leases. */
#ifndef NEARGPU_LAUNCH_H
#define NEARGPU_LAUNCH_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/lib/err.h"

#define LAUNCH_ARGV_MAX  4096 /* arguments, and separately environment entries */
#define LAUNCH_NODES_MAX 256
#define LAUNCH_FILES_MAX 16 /* small ones: hostfiles, a key of the gang's own */
#define LAUNCH_JOBS_MAX \
    1024 /* jobs of one lease, ended ones included: each keeps a log */
#define LAUNCH_SPEC_MAX   (512 * 1024) /* bytes of spec.json */
#define LAUNCH_UID        65534
#define LAUNCH_TERM_MAX   63
#define LAUNCH_IMAGE_MAX  512
#define LAUNCH_HOLDER_MAX 63                  /* a key's thumbprint */
#define LAUNCH_WINDOW_MAX 4096                /* rows, and separately columns */
#define LAUNCH_WORK       "/run/neargpu/work" /* the work directory as the job sees it */

struct launch_node {
    char *outside; /* host path, /dev/nvidia3 */
    char *inside;  /* path below /dev in the job, nvidia3 or nvidia-caps/nvidia-cap7 */
    uint32_t major, minor; /* the node must have exactly these, else the launch fails */
};

struct launch_file { /* written into the work directory before the job starts */
    char *name;      /* [A-Za-z0-9._-], 1..63, not beginning with a dot */
    char *text;
};

struct launch_spec {
    char *lease; /* reservation id */
    char *job;   /* job id: [A-Za-z0-9._-], 1..63, unique in the lease */
    char *base;  /* cgroup base as given to enforce_cgroup_new; NULL: "neargpu" */
    char **argv; /* NULL-terminated, at least one */
    char **envp; /* NULL-terminated; PATH and HOME are added when missing */
    char *cwd;   /* NULL: LAUNCH_WORK */
    uid_t uid;   /* never 0; LAUNCH_UID when the provider configured none */
    gid_t gid;
    struct launch_node *nodes;
    size_t node_count;
    char **hide; /* NULL or NULL-terminated: host directories the job must not see */
    struct launch_file *files;
    size_t file_count;
    int64_t drain_us;      /* SIGTERM this long before the end */
    int64_t output_max;    /* bytes of log kept; 0: KEEPER_OUTPUT_MAX */
    int64_t nofile, nproc; /* rlimits; 0: 65536 / none */
    bool want_stdin;       /* else stdin is /dev/null; a terminal implies it */
    bool pty;              /* a terminal: stdin, stdout and stderr are one stream */
    uint16_t rows, cols;   /* its window; 0: 24 and 80 */
    char *term;  /* TERM of the job: [A-Za-z0-9._+-], 1..LAUNCH_TERM_MAX; NULL: none */
    char *image; /* runs in this container image instead of the host's tree; NULL: no */
    char *podman, *image_store; /* with an image: the program, where the images are */
    /* Of a delegated grant, NULL and 0 otherwise: whose job it is, and its own end
     * (boot time), if the lease's is not before. The job gets a gate of its own then,
     * of these nodes until that end, below the lease's. */
    char *holder;
    int64_t end_boot_us;
};

struct launch_job { /* one job directory as found on disk */
    char *job;
    bool keeper_alive;
    bool started;    /* the keeper got as far as making the job */
    bool ended;      /* `exit` is there */
    char *exit_json; /* contents of `exit` or NULL: {"exit":N}|{"signal":N},"reason" */
    int64_t started_us; /* realtime; 0 unless started */
};

/* {"name": "text"} (NULL: none) -> heap; what was read stands there also on failure. */
int launch_files_read(const json_t *map, const char *at, struct launch_file **ret,
                      size_t *ret_count, struct err *err) MUST_USE;
void launch_spec_done(struct launch_spec *spec);
int launch_spec_write(const char *job_dir, const struct launch_spec *spec,
                      struct err *err) MUST_USE;
int launch_spec_read(const char *job_dir, struct launch_spec *ret,
                     struct err *err) MUST_USE;

/* The keeper's word about a job that is being started. */
struct launch_ready {
    int fd;           /* readable when there is something to take; -1: none */
    int64_t until_us; /* boot time: too late after this */
    char text[ERR_TEXT_MAX + 16];
    size_t len;
};
/* launch_start in two parts, for who has other things to do: starts the keeper, then
 * takes its word without waiting: 1: the job was executed; 0: not known yet; -1: it was
 * not. After 1 or -1 the descriptor is closed. */
int launch_begin(const char *lease_dir, const struct launch_spec *spec, const char *exe,
                 struct launch_ready *ret, struct err *err) MUST_USE;
int launch_take_ready(struct launch_ready *r, struct err *err) MUST_USE;
/* Waits for it: 0 or -1. */
int launch_wait_ready(struct launch_ready *r, struct err *err) MUST_USE;

/* Starts the job of an open lease. lease_dir is journal_lease_dir() of it; the deadline
 * is the one in its `deadline` file (deadline.h), which keeper and
 * lease-init read again when it has come, so that an extension needs no message.
 * exe is the program to run as `exe keeper JOB_DIR FD` (NULL: launch_set_keeper()).
 * Returns when the job was executed or failed; the error then says at which step.
 * Repeating it for a job that has started already is ERR_CONFLICT. */
int launch_start(const char *lease_dir, const struct launch_spec *spec, const char *exe,
                 struct err *err) MUST_USE;
/* Starts a keeper again for a job whose keeper died (it adopts, never restarts). */
int launch_respawn_keeper(const char *job_dir, const char *exe,
                          struct err *err) MUST_USE;

/* Jobs of a lease in order of their start. Free with launch_jobs_free. */
int launch_jobs(const char *lease_dir, struct launch_job **ret, size_t *ret_count,
                struct err *err) MUST_USE;
void launch_jobs_free(struct launch_job *jobs, size_t count);

/* The job was made once, so it is never made again. */
bool launch_is_started(const char *lease_dir, const char *job);
/* A connected, non-blocking socket to the job's keeper (see keeper.h for what to say).
 * ERR_NOT_FOUND when the job never got as far as being started; nothing starts it here.
 */
int launch_attach(const char *lease_dir, const char *job, int *ret_fd,
                  struct err *err) MUST_USE;
/* SIGTERM or another signal to every process of the job, without the keeper. */
int launch_signal(const char *lease_dir, const char *job, int signo,
                  struct err *err) MUST_USE;
/* What `exit` will say as the reason when a kill ends the jobs of this lease from now
 * on: revoked, stopped. (Without it: lease_end after the deadline, else killed.) */
int launch_set_reason(const char *lease_dir, const char *reason,
                      struct err *err) MUST_USE;

/* Keepers are children of whoever launched them: collects those that ended. Every
 * launch and launch_jobs() does it too. */
void launch_reap(void);
/* Makes the keepers of a lease whose jobs have all ended leave (they linger for late
 * clients), and waits for it: before journal_lease_remove(). ERR_CONFLICT when one of
 * them still has a job. */
int launch_close(const char *lease_dir, struct err *err) MUST_USE;

/* Keepers, and so jobs, are started in this network namespace instead of the caller's;
 * -1: in the caller's. The descriptor stays the caller's. */
void launch_set_netns(int fd);
/* The keeper's program where exe is NULL, from now on as it is on disk now; NULL:
 * /proc/self/exe again. */
int launch_set_keeper(const char *path, struct err *err) MUST_USE;
/* Fault injection: called by name after each durable step of launch_start. NULL: none.
 */
void launch_set_step_hook(void (*hook)(const char *step));

#endif
