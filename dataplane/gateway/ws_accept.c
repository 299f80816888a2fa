/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ws_accept.c - the handshake's answer (RFC 6455, section 4.2.2): base64(SHA-1(key + GUID)). SHA-1
 * (FIPS 180-4, 6.1) is here for that alone: it protects nothing, it shows that the server speaks
 * the protocol.
 */
#include <sodium.h>
#include <string.h>

#include "dataplane/gateway/ws.h"

#define GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define SHA1_SUM  20u
#define SHA1_PART 64u

static uint32_t rotate(uint32_t value, unsigned by)
{
    return value << by | value >> (32 - by);
}

static uint32_t word_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void part_add(uint32_t h[5], const uint8_t part[SHA1_PART])
{
    static const uint32_t k[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t w[80];
    uint32_t v[5];
    memcpy(v, h, sizeof(v));
    for (unsigned t = 0; t < 80; t++) {
        w[t] = t < 16 ? word_at(part + (size_t)4 * t)
                      : rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
        uint32_t f = t < 20   ? (v[1] & v[2]) | (~v[1] & v[3])
                     : t < 40 ? v[1] ^ v[2] ^ v[3]
                     : t < 60 ? (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3])
                              : v[1] ^ v[2] ^ v[3];
        uint32_t next = rotate(v[0], 5) + f + v[4] + k[t / 20] + w[t];
        v[4] = v[3];
        v[3] = v[2];
        v[2] = rotate(v[1], 30);
        v[1] = v[0];
        v[0] = next;
    }
    for (unsigned i = 0; i < 5; i++) {
        h[i] += v[i];
    }
}

/* Of at most 2 * SHA1_PART - 9 bytes. */
static void sha1(const char *text, size_t len, uint8_t sum[SHA1_SUM])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t padded[2 * SHA1_PART] = {0};
    size_t size = len + 9 <= SHA1_PART ? SHA1_PART : 2 * SHA1_PART;
    memcpy(padded, text, len);
    padded[len] = 0x80;
    padded[size - 2] = (uint8_t)(len * 8 >> 8);
    padded[size - 1] = (uint8_t)(len * 8);
    for (size_t at = 0; at < size; at += SHA1_PART) {
        part_add(h, padded + at);
    }
    for (unsigned i = 0; i < SHA1_SUM; i++) {
        sum[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
    }
}

bool ws_accept(const char *key, char accept[WS_ACCEPT_MAX])
{
    uint8_t bytes[16];
    uint8_t sum[SHA1_SUM];
    char text[WS_KEY_LEN + sizeof(GUID)];
    size_t len;
    if (key == NULL || strlen(key) != WS_KEY_LEN ||
        sodium_base642bin(bytes, sizeof(bytes), key, WS_KEY_LEN, NULL, &len, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        len != sizeof(bytes)) {
        return false;
    }
    memcpy(text, key, WS_KEY_LEN);
    strcpy(text + WS_KEY_LEN, GUID);
    sha1(text, WS_KEY_LEN + sizeof(GUID) - 1, sum);
    sodium_bin2base64(accept, WS_ACCEPT_MAX, sum, sizeof(sum), sodium_base64_VARIANT_ORIGINAL);
    return true;
}
