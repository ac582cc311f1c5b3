/* keeper_main: neargpu-keeper JOB_DIR [READY_FD], the program of a running job
 * (keeper.h), started by the agent and by nobody else. A program of its own, since one
 * is loaded at every launch and stays as long as its job: it links no TLS, no HTTP and
 * no event loop. `neargpu-agent keeper` is the same. */
#include "client/agent/keeper.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "keeper") == 0)
        return keeper_main(argc - 1, argv + 1);
    return keeper_main(argc, argv);
}
