/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_record.c - any bytes as a record: what is read can be written, and reads the same again. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t secret_key[64] = {1};
    struct swim_record record, again;
    uint8_t raw[SWIM_RECORD_MAX];
    if (!swim_record_read(&record, data, size)) {
        return 0;
    }
    size_t written = swim_record_write(&record, secret_key, raw);
    if (!swim_record_read(&again, raw, written) || memcmp(&record, &again, sizeof(record)) != 0) {
        abort();
    }
    (void)swim_record_verify(&record, data, size);
    return 0;
}
