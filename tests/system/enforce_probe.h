/* enforce_probe: what the tests' jobs execute, to tell from inside what is possible. */
#ifndef NEARGPU_ENFORCE_PROBE_H
#define NEARGPU_ENFORCE_PROBE_H

/* probe open PATH…    "PATH=OK" or "PATH=EPERM", a line each (read and write)
 * probe calls         "NAME=…" for every system call a job must not have
 * probe mknod         makes a device node in the work directory
 * probe stubborn N    N children in sessions of their own that ignore every signal;
 *                     prints "ready", then waits for ever, ignoring them too
 * probe fork          forks until refused, prints how many there were
 * probe eat MIB       touches so much memory
 * probe retry PATH    opens PATH every ms until it fails; prints boot us and errno
 * probe abstract NAME connects to the abstract unix socket NAME
 * probe whoami        uid, gid, groups, capabilities, seccomp, no_new_privs */
int probe_main(int argc, char **argv);

#endif
