/* httpc_curl: see httpc_curl.h. */
#include "client/lib/httpc_curl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#define LIBRARY "libcurl.so.4"

struct httpc_curl httpc_curl;
static char failure[ERR_TEXT_MAX];

static void load(void)
{
    static const struct {
        const char *name;
        void **to;
    } functions[] = {
#define X(n) {"curl_" #n, (void **)&httpc_curl.n},
        HTTPC_CURL_FUNCTIONS(X)
#undef X
    };
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    const char *why = lib == NULL ? dlerror() : NULL;
    for (size_t i = 0; why == NULL && i < sizeof(functions) / sizeof(functions[0]); i++)
        if ((*functions[i].to = dlsym(lib, functions[i].name)) == NULL)
            why = dlerror();
    if (why == NULL && httpc_curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        why = LIBRARY " does not start";
    if (why != NULL)
        snprintf(failure, sizeof(failure), "%s", why);
}

int httpc_curl_load(struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return failure[0] == '\0' ? 0 : err_set(err, ERR_UNAVAILABLE, "%s", failure);
}
