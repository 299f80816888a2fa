/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_prompt.c - any bytes as the body of a request: each text must lie inside it. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_texts(const weft_job_part_t *list, size_t count, const uint8_t *body, size_t size)
{
    const char *begin = (const char *)body;
    for (size_t i = 0; i < count; i++) {
        if (list[i].text < begin || list[i].text > begin + size ||
            list[i].len > (size_t)(begin + size - list[i].text)) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *body = malloc(size + (size == 0)); /* aligned as reassembled requests are */
    if (body == NULL) {
        return 0;
    }
    memcpy(body, data, size);
    if (size >= WEFT_PROMPT_LEAST) {
        prompt_seal(body, size); /* or nothing would get past the sum */
    }
    weft_job_view_t view;
    weft_job_part_t *parts;
    if (prompt_parse(body, size, &view, &parts) == 0) {
        const char *end = (const char *)body + size;
        check_texts(view.parts, view.part_count, body, size);
        check_texts(view.stops, view.stop_count, body, size);
        if (view.token_count != 0 && (const char *)(view.tokens + view.token_count) != end) {
            abort();
        }
    }
    free(parts);
    free(body);
    return 0;
}
