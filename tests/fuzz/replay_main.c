/* replay_main: runs a fuzz target over its stored corpus in a normal build, so that
 * what a fuzzer once found stays found. The program's name says which corpus:
 * replay_token runs tests/fuzz/corpus/token/ under $srcdir (as make check sets it), or
 * the directory given as argument. An empty corpus fails: such a test could not. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"

#define REPLAY_BYTES_MAX (1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *dir, const char *name)
{
    struct strbuf path = STRBUF_INIT;
    struct err err;
    char *data;
    size_t len;
    strbuf_addf(&path, "%s/%s", dir, name);
    int rc = fsx_read(path.data, REPLAY_BYTES_MAX, &data, &len, &err);
    if (rc == 0) {
        /* A copy of the exact size: reading past the end is then seen by tools. */
        uint8_t *exact = malloc(len == 0 ? 1 : len);
        if (exact == NULL)
            abort();
        memcpy(exact, data, len);
        free(data);
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    } else {
        fprintf(stderr, "%s\n", err.text);
    }
    strbuf_done(&path);
    return rc;
}

static char *replay_dir(int argc, char **argv)
{
    struct strbuf dir = STRBUF_INIT;
    const char *src = getenv("srcdir"), *name = strrchr(argv[0], '/');
    name = name == NULL ? argv[0] : name + 1;
    if (argc > 1)
        strbuf_adds(&dir, argv[1]);
    else if (strncmp(name, "replay_", 7) == 0)
        strbuf_addf(&dir, "%s/tests/fuzz/corpus/%s", src == NULL ? "." : src, name + 7);
    return strbuf_steal(&dir);
}

int main(int argc, char **argv)
{
    char *path = replay_dir(argc, argv);
    DIR *dir = opendir(path);
    int files = 0, failed = 0;
    const struct dirent *e;
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        files++;
        if (replay_file(path, e->d_name) != 0)
            failed++;
    }
    if (dir != NULL)
        closedir(dir);
    printf("%s: %d inputs\n", path, files);
    free(path);
    return files > 0 && failed == 0 ? 0 : 1;
}
