/* test_image: podman's arguments and the CDI specification (client/agent/image.h,
 * cdi.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/cdi.h"
#include "client/agent/image.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "tests/unit/unit.h"

static struct launch_node nodes[] = {
    {"/dev/nvidia3", "nvidia3", 195, 3},
    {"/dev/nvidia-caps/nvidia-cap7", "nvidia-caps/nvidia-cap7", 241, 7},
};

static char *all(const struct launch_spec *s)
{
    struct strbuf b = STRBUF_INIT;
    char **argv = image_argv(s, "/state/work", 1024, 4096);
    for (size_t i = 0; argv[i] != NULL; i++) {
        strbuf_addf(&b, "%s|", argv[i]);
        free(argv[i]);
    }
    free(argv);
    return strbuf_steal(&b);
}

START_TEST(test_arguments)
{
    char *argv[] = {"--privileged", "-c", "x", NULL};
    char *env[] = {"A=b c", "LD_PRELOAD=/x", NULL};
    struct launch_spec s = {.lease = "res",
                            .job = "j1",
                            .base = "base",
                            .argv = argv,
                            .envp = env,
                            .uid = 65534,
                            .gid = 65533,
                            .image = "reg/img:1",
                            .podman = "/usr/bin/podman",
                            .image_store = "/store"};
    char *text = all(&s);
    static const char *const wanted[] = {
        "|--pull=never|",
        "|--cap-drop=all|",
        "|--security-opt=no-new-privileges|",
        "|--cgroup-parent=/base/res/img-j1|",
        "|--user=65534:65533|",
        "|--ulimit=nofile=1024:1024|",
        "|--ulimit=nproc=4096:4096|",
        "|--ulimit=core=0:0|",
        "|--device=neargpu.local/lease=gpus|",
        "|--volume=/state/work:/run/neargpu/work|",
        "|--env=A=b c|",
        "|--env=LD_PRELOAD=/x|",
        "|overlay.imagestore=/store|",
    };
    ck_assert_int_eq(strncmp(text, "/usr/bin/podman|", 16), 0);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        ck_assert_msg(strstr(text, wanted[i]) != NULL, "%s in %s", wanted[i], text);
    /* What the tenant says comes behind the image, where podman has no options. */
    const char *end = "|--entrypoint=|reg/img:1|--privileged|-c|x|";
    ck_assert_str_eq(text + strlen(text) - strlen(end), end);
    ck_assert(strstr(text, "|--tty|") == NULL &&
              strstr(text, "|--interactive|") == NULL);
    free(text);
    s.pty = true;
    s.term = "xterm";
    text = all(&s);
    ck_assert(strstr(text, "|--interactive|--tty|--env=TERM=xterm|") != NULL);
    free(text);
}
END_TEST

START_TEST(test_cdi)
{
    json_t *doc = cdi_spec(nodes, 2);
    char *text = jsonx_dump(doc);
    ck_assert_str_eq(json_string_value(json_object_get(doc, "cdiVersion")), "0.5.0");
    ck_assert_str_eq(json_string_value(json_object_get(doc, "kind")), CDI_KIND);
    json_t *edits = json_object_get(json_array_get(json_object_get(doc, "devices"), 0),
                                    "containerEdits");
    json_t *list = json_object_get(edits, "deviceNodes");
    ck_assert_uint_eq(json_array_size(list), 2); /* these and no other */
    json_t *want =
        json_pack("{s:s,s:s,s:s,s:i,s:i,s:s}", "path", "/dev/nvidia-caps/nvidia-cap7",
                  "hostPath", "/dev/nvidia-caps/nvidia-cap7", "type", "c", "major", 241,
                  "minor", 7, "permissions", "rw");
    ck_assert_msg(json_equal(json_array_get(list, 1), want), "%s", text);
    json_decref(want);
    free(text);
    json_decref(doc);
}
END_TEST

UNIT_MAIN("image", UNIT_CASE(test_arguments) UNIT_CASE(test_cdi))
