/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the gateway's JSON reader: what it takes jansson must take, and make the same tree of;
 * in pieces or at once, the scan before it says the same. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/scan.h"
#include "schemas/base/json_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

static void scan_check(const char *text, size_t len)
{
    struct scan whole = {.depth = 0};
    struct scan parts = {.depth = 0};
    size_t cut = len > 0 ? (unsigned char)text[0] % len : 0;
    bool fits = scan_feed(&whole, text, len);
    (void)scan_feed(&parts, text, cut);
    need(scan_feed(&parts, text + cut, len - cut) == fits);
    need(!fits || (parts.values == whole.values && parts.in_string == whole.in_string));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    scan_check(text, size);
    json_t *quick = json_read_quick(text, size);
    if (quick != NULL) {
        json_t *slow = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
        need(slow != NULL);
        char *a = json_dumps(quick, JSON_COMPACT);
        char *b = json_dumps(slow, JSON_COMPACT);
        need(a != NULL && b != NULL && strcmp(a, b) == 0);
        free(a);
        free(b);
        json_decref(slow);
    }
    json_decref(quick);
    return 0;
}
