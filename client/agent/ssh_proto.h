/* ssh_proto: what sshd's two helpers and the agent say over RUNTIME_DIR/ssh.sock, in
 * frames as of client/lib/frame.h, one request a connection:
 *
 *   k {"type","key"}   which lease does this public key open?
 *     r {"ticket","forward":"none"|"local"}
 *   s {"ticket","reservation"?,"command"?,"sftp"?,"pty"?:{"term","rows","cols"},
 *      "env"?:{NAME: text}}   begin a session
 *     r {"reservation","job"} together with one descriptor (SCM_RIGHTS): the socket of
 *       the job's keeper (keeper.h), nothing sent over it yet. As long as the session
 *       lives this connection stays; when it closes the job is hung up.
 *   E {"error","step","detail"}   refused; then the connection is closed.
 *
 * Only root and the user sshd logs in may connect. This header has the names and
 * bounds; the ends are sshsrv.c, ssh_keys.c and ssh_session.c. */
#ifndef NEARGPU_AGENT_SSH_PROTO_H
#define NEARGPU_AGENT_SSH_PROTO_H
#include <jansson.h>

#include "client/lib/err.h"

#define SSH_SOCKET "/run/neargpu/ssh.sock"
#define SSH_COMMAND_MAX \
    32768 /* bytes of a command line; its frame stays below the bound */
#define SSH_KEY_MAX   1024 /* bytes of a key's base64 */
#define SSH_ENV_MAX   32
#define SSH_ANSWER_MS 40000 /* the agent starts a job in less */

/* Connects; ERR_UNREACHABLE when the agent does not run. */
int ssh_ask_connect(const char *path, int *ret_fd, struct err *err) MUST_USE;
/* Sends one request and waits for its answer; a refusal is an error with the agent's
 * detail. ret_passed (NULL: none is expected) gets the descriptor sent with it. */
int ssh_ask(int fd, char type, const json_t *body, json_t **ret, int *ret_passed,
            struct err *err) MUST_USE;
/* Is this the socket's path given on the command line, or the default? */
const char *ssh_socket_path(const char *option);

#endif
