/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_prompt.c - any bytes as the body of a request: each text must lie inside it. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *body = malloc(size + 1); /* aligned as reassembled requests are */
    if (body == NULL) {
        return 0;
    }
    memcpy(body, data, size);
    if (size >= sizeof(struct weft_prompt)) {
        prompt_seal(body, size); /* or nothing would get past the sum */
    }
    weft_job_view_t view;
    weft_job_part_t *parts;
    if (prompt_parse(body, size, &view, &parts) == 0) {
        const char *end = (const char *)body + size;
        for (size_t i = 0; i < view.part_count; i++) {
            if (view.parts[i].text < (const char *)body || view.parts[i].text > end ||
                view.parts[i].len > (size_t)(end - view.parts[i].text)) {
                abort();
            }
        }
        if (view.token_count != 0 && (const char *)(view.tokens + view.token_count) != end) {
            abort();
        }
    }
    free(parts);
    free(body);
    return 0;
}
