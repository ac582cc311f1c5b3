/* fuzz_sshkey: any bytes as a line of a .pub file, as a key blob and as OpenSSH's
 * private form. What is accepted is written and read back as the same key, a comment is
 * printable and ends, and nothing leaks. */
#include <assert.h>
#include <string.h>

#include "client/lib/sshkey.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void is_sound(const uint8_t pub[JWS_ED25519_LEN])
{
    char text[SSHKEY_TEXT_MAX], finger[SSHKEY_FINGER_MAX];
    uint8_t blob[SSHKEY_BLOB_LEN], back[JWS_ED25519_LEN];
    struct sshkey_public again;
    struct err err;
    sshkey_text(pub, text);
    int rc = sshkey_public(text, strlen(text), &again, &err);
    assert(rc == 0 && memcmp(again.pub, pub, JWS_ED25519_LEN) == 0);
    assert(again.comment[0] == '\0');
    sshkey_blob(pub, blob);
    rc = sshkey_blob_read(blob, sizeof(blob), back, &err);
    assert(rc == 0 && memcmp(back, pub, JWS_ED25519_LEN) == 0);
    sshkey_fingerprint(pub, finger);
    assert(strncmp(finger, "SHA256:", 7) == 0 && strlen(finger) == 50);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct sshkey_public line;
    uint8_t pub[JWS_ED25519_LEN];
    EVP_PKEY *key = NULL;
    struct err err = {0};
    if (sshkey_public(text, size, &line, &err) == 0) {
        assert(memchr(line.comment, '\0', sizeof(line.comment)) != NULL);
        for (const char *p = line.comment; *p != '\0'; p++)
            assert(*p >= 0x20 && *p < 0x7f);
        is_sound(line.pub);
    } else {
        assert(err.text[0] != '\0');
    }
    if (sshkey_blob_read(data, size, pub, &err) == 0)
        is_sound(pub);
    (void)sshkey_is_private(text, size);
    if (sshkey_private(text, size, &key, &err) == 0) {
        int rc = jws_public(key, pub, &err);
        assert(rc == 0);
        is_sound(pub);
        EVP_PKEY_free(key);
    }
    return 0;
}
