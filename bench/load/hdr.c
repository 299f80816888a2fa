/* SPDX-License-Identifier: Apache-2.0 */
/* hdr.c - see hdr.h. Layout and encoding are HdrHistogram's own: counts by power of two, each in
 * 1,024 equal parts; big-endian header; counts as ZigZag LEB128 in at most 9 bytes, runs of zeros
 * as one negative number; zlib; base64. */
#include "bench/load/hdr.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define DIGITS            3u
#define HALF_BITS         10u /* 2^11 parts hold 2 * 10^3 apart */
#define HALF              (1u << HALF_BITS)
#define BUCKETS           32u /* 2^11 * 2^31 > HDR_HIGHEST */
#define COUNTS            ((BUCKETS + 1u) * HALF)
#define COOKIE            UINT32_C(0x1c849313)
#define COOKIE_COMPRESSED UINT32_C(0x1c849314)
#define WORD_MAX          9u

struct header {
    uint32_t cookie;
    uint32_t payload_bytes;
    uint32_t normalizing_offset;
    uint32_t digits;
    uint64_t lowest;
    uint64_t highest;
    uint64_t ratio; /* bits of a double */
};
_Static_assert(sizeof(struct header) == 40, "as HdrHistogram has it");

int hdr_init(struct hdr *h)
{
    *h = (struct hdr){.counts = calloc(COUNTS, sizeof(uint64_t))};
    return h->counts != NULL ? 0 : -ENOMEM;
}

void hdr_deinit(struct hdr *h)
{
    free(h->counts);
    *h = (struct hdr){.counts = NULL};
}

void hdr_reset(struct hdr *h)
{
    memset(h->counts, 0, COUNTS * sizeof(uint64_t));
    h->count = h->max = 0;
}

static uint32_t index_of(uint64_t value)
{
    uint32_t bucket = 64u - (uint32_t)__builtin_clzll(value | (2 * HALF - 1)) - (HALF_BITS + 1);
    return (bucket << HALF_BITS) + (uint32_t)(value >> bucket);
}

void hdr_add(struct hdr *h, uint64_t value_ns)
{
    uint64_t value = value_ns < HDR_HIGHEST ? value_ns : HDR_HIGHEST;
    h->counts[index_of(value)]++;
    h->count++;
    h->max = value > h->max ? value : h->max;
}

/* Seven bits a byte, the ninth has eight. Returns the bytes written. */
static size_t put_word(uint8_t *out, int64_t value)
{
    uint64_t left = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
    size_t n = 0;
    while (n < WORD_MAX - 1 && left >= 0x80) {
        out[n++] = (uint8_t)(left | 0x80);
        left >>= 7;
    }
    out[n++] = (uint8_t)left;
    return n;
}

static size_t put_counts(const struct hdr *h, uint8_t *out)
{
    const uint32_t end = h->count != 0 ? index_of(h->max) + 1 : 0;
    size_t n = 0;
    for (uint32_t i = 0; i < end;) {
        int64_t zeros = 0;
        while (i < end && h->counts[i] == 0) {
            zeros++;
            i++;
        }
        if (zeros != 0) {
            n += put_word(out + n, zeros == 1 ? 0 : -zeros);
        } else {
            n += put_word(out + n, (int64_t)h->counts[i++]);
        }
    }
    return n;
}

static char *base64(const uint8_t *data, size_t len)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((len + 2) / 3 * 4 + 1);
    char *at = text;
    for (size_t i = 0; text != NULL && i < len; i += 3) {
        uint32_t three = (uint32_t)data[i] << 16;
        three |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
        three |= i + 2 < len ? data[i + 2] : 0;
        for (uint32_t k = 0; k < 4; k++) {
            *at++ = i + k <= len ? letters[three >> (18 - 6 * k) & 63] : '=';
        }
    }
    if (text != NULL) {
        *at = '\0';
    }
    return text;
}

/* Header and counts; *len is set. Heap. */
static uint8_t *encode_plain(const struct hdr *h, size_t *len)
{
    const double ratio = 1.0;
    struct header header = {.cookie = htobe32(COOKIE),
                            .digits = htobe32(DIGITS),
                            .lowest = htobe64(1),
                            .highest = htobe64(HDR_HIGHEST)};
    uint8_t *plain = malloc(sizeof(header) + (size_t)COUNTS * WORD_MAX);
    if (plain != NULL) {
        size_t bytes = put_counts(h, plain + sizeof(header));
        memcpy(&header.ratio, &ratio, sizeof(ratio));
        header.ratio = htobe64(header.ratio);
        header.payload_bytes = htobe32((uint32_t)bytes);
        memcpy(plain, &header, sizeof(header));
        *len = sizeof(header) + bytes;
    }
    return plain;
}

char *hdr_encode(const struct hdr *h)
{
    size_t len = 0;
    uint8_t *plain = encode_plain(h, &len);
    uLongf packed = compressBound(len);
    uint8_t *out = plain != NULL ? malloc(packed + 8) : NULL;
    char *text = NULL;
    if (out != NULL && compress(out + 8, &packed, plain, len) == Z_OK) {
        uint32_t head[2] = {htobe32(COOKIE_COMPRESSED), htobe32((uint32_t)packed)};
        memcpy(out, head, sizeof(head));
        text = base64(out, packed + sizeof(head));
    }
    free(plain);
    free(out);
    return text;
}

void hdr_log_begin(FILE *log, double epoch_s, const char *remark)
{
    fprintf(log,
            "#[%s]\n#[Histogram log format version 1.3]\n"
            "#[StartTime: %.3f (seconds since epoch)]\n"
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\","
            "\"Interval_Compressed_Histogram\"\n",
            remark, epoch_s);
}

int hdr_log_interval(FILE *log, const char *tag, double start_s, double length_s,
                     const struct hdr *h)
{
    char *text = hdr_encode(h);
    if (text == NULL) {
        return -ENOMEM;
    }
    fprintf(log, "Tag=%s,%.3f,%.3f,%.3f,%s\n", tag, start_s, length_s, (double)h->max / 1e6, text);
    free(text);
    return 0;
}
