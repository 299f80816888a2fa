/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_decree.c - any letters about the policy into one node that has one. Input: records of one
 * byte sender, one byte time step (64 ms), two bytes length, then so many bytes. Nothing of it is
 * signed, so the policy in force stays, and answers fit a letter. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/gossip/decree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void begin(struct decree *d)
{
    static const char text[] = "weft-policy 1\nversion 5\nissued 1\nproviders local\n"
                               "node 1 provider=local tags=eu\n";
    uint8_t public_key[32], secret[64], seed[32] = {7};
    char file[sizeof(text) + POLICY_SIGNATURE_LINE_MAX];
    char hex[65];
    struct policy_error error;
    size_t length = sizeof(text) - 1;
    crypto_sign_seed_keypair(public_key, secret, seed);
    sodium_bin2hex(hex, sizeof(hex), public_key, sizeof(public_key));
    memcpy(file, text, length);
    length += policy_sign(text, length, secret, file + length);
    if (decree_init(d, hex, NULL) < 0 || decree_take(d, file, length, &error) < 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct decree d;
    uint64_t now_ns = NS_PER_S;
    begin(&d);
    while (size >= 4) {
        struct letter letter = {.slot = data[0] % 4u, .topic = LETTER_POLICY};
        uint8_t out[LETTER_MAX];
        size_t len = (size_t)data[2] | (size_t)data[3] << 8;
        now_ns += data[1] * 64 * NS_PER_MS;
        data += 4;
        size -= 4;
        len = len < size ? len : size;
        letter.size = len < LETTER_MAX ? len : LETTER_MAX;
        memcpy(letter.body, data, letter.size);
        if (decree_input(&d, &letter, now_ns, out) > LETTER_MAX || d.policy->version != 5) {
            abort();
        }
        data += len;
        size -= len;
    }
    decree_deinit(&d);
    return 0;
}
