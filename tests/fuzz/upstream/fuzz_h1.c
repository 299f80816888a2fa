/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_h1.c - a reply of HTTP/1.1 of any bytes: the same state, length and body whether it comes
 * whole or in portions, whose size is the first byte. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct heard {
    uint64_t hash;
    size_t taken;
    int rc;
};

static void run(struct h1 *h, const char *data, size_t size, size_t portion, struct heard *heard)
{
    *heard = (struct heard){.hash = UINT64_C(0xcbf29ce484222325)};
    h1_init(h);
    while (heard->rc == 0 && heard->taken < size && h->state != H1_COMPLETE) {
        const size_t part = size - heard->taken < portion ? size - heard->taken : portion;
        char *copy = malloc(part); /* of its own, so that the sanitizer sees its end */
        const char *at = copy;
        size_t len = part;
        struct h1_body body;
        memcpy(copy, data + heard->taken, part);
        while ((heard->rc = h1_next(h, &at, &len, &body)) == 1)
            for (size_t i = 0; i < body.len; i++)
                heard->hash = (heard->hash ^ (uint8_t)body.data[i]) * UINT64_C(0x100000001b3);
        heard->taken += part - len;
        free(copy);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct h1 one, other;
    struct heard a, b;
    if (size < 2)
        return 0;
    run(&one, (const char *)data + 1, size - 1, size, &a);
    run(&other, (const char *)data + 1, size - 1, 1u + data[0] % 64, &b);
    if (a.rc != b.rc || one.state != other.state || one.has_head != other.has_head ||
        (a.rc == 0 && (a.taken != b.taken || a.hash != b.hash || one.left != other.left ||
                       one.close != other.close || strcmp(one.type, other.type) != 0)) ||
        h1_end(&one) != h1_end(&other))
        abort();
    return 0;
}
