/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_http_reply.c - an HTTP answer of any bytes: the same whether it comes whole or in two. */
#include <stdlib.h>

#include "bench/load/http_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_reply whole, parts;
    const char *bytes = (const char *)data;
    http_reply_init(&whole);
    http_reply_init(&parts);
    size_t used = http_reply_feed(&whole, bytes, size);
    if (used > size) {
        abort();
    }
    const size_t cut = size / 2;
    size_t first = http_reply_feed(&parts, bytes, cut);
    size_t second = http_reply_feed(&parts, bytes + first, size - first);
    if (first + second != used || whole.state != parts.state || whole.pieces != parts.pieces ||
        whole.left != parts.left || http_reply_ok(&whole) != http_reply_ok(&parts)) {
        abort();
    }
    http_reply_end(&whole);
    return 0;
}
