/* enforce_escape_try: what a hostile job does to reach a device it was not granted. The
 * same code runs as a job, with the gate only, and with nothing in its way. */
#ifndef NEARGPU_ENFORCE_ESCAPE_TRY_H
#define NEARGPU_ENFORCE_ESCAPE_TRY_H

#define ESCAPE_HELD_FD    100 /* where the accomplice holds an open device */
#define ESCAPE_HELD_MAJOR 1   /* /dev/kmsg: real, harmless, never granted */
#define ESCAPE_HELD_MINOR 11

struct escape_args {        /* texts, so that a job gets them as its arguments */
    const char *node;       /* a device node that is not granted; open = ENXIO */
    const char *accomplice; /* pid of a process outside, as root, holding a device */
    const char *abstract;   /* abstract socket on which it passes the device */
    const char *sockets;    /* name of its sockets in /tmp, /run and `state` */
    const char *state;      /* the agent's state directory */
    const char *cgroup;     /* the lease's cgroup */
    const char *elsewhere;  /* a cgroup without a gate */
};

/* Makes every attempt in a child of its own, in the current directory, and prints
 * "NAME=OPEN" where the device was reached or the call granted, else "NAME=errno". */
int escape_try_all(const struct escape_args *args);
/* argv: escape, then the members of escape_args in order. */
int escape_main(int argc, char **argv);

#endif
