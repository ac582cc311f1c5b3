/* Tests of the run protocol's frames: known bytes, every cut, bounds, random streams.
 */
#include "client/lib/frame.h"

#include <string.h>

#include "tests/unit/unit.h"

START_TEST(test_known_bytes)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, 'o', "hi", 2);
    frame_put(&b, 'I', NULL, 0);
    const uint8_t want[] = {'o', 0, 0, 0, 2, 'h', 'i', 'I', 0, 0, 0, 0};
    ck_assert_uint_eq(b.len, sizeof(want));
    ck_assert_mem_eq(b.data, want, sizeof(want));
    strbuf_done(&b);
}
END_TEST

START_TEST(test_every_cut)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, 'n', "{}", 2);
    frame_put(&b, 'I', NULL, 0);
    frame_put(&b, 'o', "abcdef", 6);
    for (size_t cut = 0; cut <= b.len; cut++) {
        struct frame_reader r;
        struct frame f;
        char got[8] = "";
        size_t n = 0, bytes = 0;
        frame_reader_init(&r);
        for (int part = 0; part < 2; part++) {
            frame_feed(&r, b.data + (part ? cut : 0), part ? b.len - cut : cut);
            int rc;
            while ((rc = frame_next(&r, &f, NULL)) == 1) {
                got[n++] = f.type;
                bytes += f.len;
            }
            ck_assert_int_eq(rc, 0);
        }
        ck_assert_str_eq(got, "nIo");
        ck_assert_uint_eq(bytes, 8);
        ck_assert_uint_eq(frame_pending(&r), 0);
        frame_reader_done(&r);
    }
    strbuf_done(&b);
}
END_TEST

START_TEST(test_bounds)
{
    struct frame_reader r;
    struct frame f;
    struct err err;
    uint8_t *big = calloc(1, RUN_FRAME_MAX);
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, 'i', big, RUN_FRAME_MAX);
    frame_reader_init(&r);
    frame_feed(&r, b.data, b.len);
    ck_assert_int_eq(frame_next(&r, &f, &err), 1);
    ck_assert_uint_eq(f.len, RUN_FRAME_MAX);
    /* Refused from the head alone, before any payload is waited for. */
    const uint8_t over[] = {'i', 0, 1, 0, 1}, huge[] = {'i', 255, 255, 255, 255};
    frame_feed(&r, over, sizeof(over));
    ck_assert_int_eq(frame_next(&r, &f, &err), -1);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    frame_reader_done(&r);
    frame_feed(&r, huge, sizeof(huge));
    ck_assert_int_eq(frame_next(&r, &f, &err), -1);
    frame_reader_done(&r);
    strbuf_done(&b);
    free(big);
}
END_TEST

START_TEST(test_put_all_splits)
{
    size_t len = RUN_FRAME_MAX * 2 + 7;
    uint8_t *data = calloc(1, len);
    struct strbuf b = STRBUF_INIT;
    struct frame_reader r;
    struct frame f;
    frame_put_all(&b, 'i', data, len);
    ck_assert_uint_eq(b.len, len + 3 * FRAME_HEAD_LEN);
    frame_put_all(&b, 'i', data, 0);
    ck_assert_uint_eq(b.len, len + 3 * FRAME_HEAD_LEN);
    frame_reader_init(&r);
    frame_feed(&r, b.data, b.len);
    size_t sum = 0, count = 0;
    while (frame_next(&r, &f, NULL) == 1) {
        sum += f.len;
        count++;
    }
    ck_assert_uint_eq(sum, len);
    ck_assert_uint_eq(count, 3);
    frame_reader_done(&r);
    strbuf_done(&b);
    free(data);
}
END_TEST

/* Random frames in random pieces: what goes in comes out. */
START_TEST(test_random)
{
    unsigned seed = 20260117;
    for (int round = 0; round < 50; round++) {
        struct strbuf b = STRBUF_INIT;
        unsigned count = 1 + (unsigned)rand_r(&seed) % 20;
        for (unsigned i = 0; i < count; i++) {
            uint8_t data[300];
            size_t len = (size_t)rand_r(&seed) % sizeof(data);
            memset(data, (int)i, len);
            frame_put(&b, (char)('a' + i), data, len);
        }
        struct frame_reader r;
        struct frame f;
        frame_reader_init(&r);
        unsigned seen = 0;
        for (size_t at = 0; at < b.len;) {
            size_t part = 1 + (size_t)rand_r(&seed) % 400;
            if (part > b.len - at)
                part = b.len - at;
            frame_feed(&r, b.data + at, part);
            at += part;
            while (frame_next(&r, &f, NULL) == 1) {
                ck_assert_int_eq(f.type, (char)('a' + seen));
                for (size_t i = 0; i < f.len; i++)
                    ck_assert_uint_eq(f.data[i], seen);
                seen++;
            }
        }
        ck_assert_msg(seen == count, "seed 20260117, round %d", round);
        frame_reader_done(&r);
        strbuf_done(&b);
    }
}
END_TEST

UNIT_MAIN("frame",
          UNIT_CASE(test_known_bytes) UNIT_CASE(test_every_cut) UNIT_CASE(test_bounds)
              UNIT_CASE(test_put_all_splits) UNIT_CASE(test_random))
