/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what a worker that gives or fetches pages is told (kernels/moves/pull.h): every message is
 * taken from the input as it is, or with its sums put right where the first byte says so. What
 * passes the checks must be within the bounds that talk.c relies on. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/moves/pull.h"
#include "schemas/base/crc32c.h"

#define PAGE_BYTES 24u
#define VOCAB      256u
#define MOST       5u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct pull_kind own = {
    .arithmetic = 7, .page_tokens = EXEC_PAGE_TOKENS, .page_bytes = PAGE_BYTES, .vocab = VOCAB};

static void require(int is_so)
{
    if (!is_so)
        abort();
}

static void ask(const uint8_t *data, size_t size, int repair)
{
    struct pull_ask message;
    if (size < sizeof(message))
        return;
    memcpy(&message, data, sizeof(message));
    if (repair) {
        message.magic = PULL_MAGIC;
        message.version = PULL_VERSION;
        message.size = sizeof(message);
        message.kind = own;
    }
    if (pull_ask_check(&message, &own))
        return;
    require(message.tokens >= EXEC_PAGE_TOKENS && message.tokens <= PULL_TOKENS_MAX);
    require(message.tokens % EXEC_PAGE_TOKENS == 0);
    require(message.first < message.tokens / EXEC_PAGE_TOKENS);
    /* As talk.c: memory for what was announced, then what came. */
    const size_t bytes = message.tokens * sizeof(uint32_t);
    uint32_t *tokens = calloc(1, bytes);
    if (!tokens)
        return;
    const size_t left = size - sizeof(message);
    memcpy(tokens, data + sizeof(message), left < bytes ? left : bytes);
    if (repair)
        message.crc = crc32c(crc32c(0, &message, offsetof(struct pull_ask, crc)), tokens, bytes);
    if (pull_tokens_check(&message, tokens) == 0)
        for (uint32_t i = 0; i < message.tokens; i++)
            require(tokens[i] < VOCAB);
    free(tokens);
}

static void head(const uint8_t *data, size_t size, int repair)
{
    struct pull_head message;
    if (size < sizeof(message))
        return;
    memcpy(&message, data, sizeof(message));
    if (repair) {
        message.magic = PULL_MAGIC;
        message.version = PULL_VERSION;
        message.size = sizeof(message);
        message.crc = crc32c(0, &message, offsetof(struct pull_head, crc));
    }
    const int rc = pull_head_check(&message, MOST);
    require(rc <= 0 && rc > -4096);
    require(rc != 0 || message.pages <= MOST);
}

static void rest(const uint8_t *data, size_t size)
{
    struct pull_go go;
    struct pull_tail tail;
    struct pull_page page;
    uint32_t tokens[EXEC_PAGE_TOKENS];
    if (size < sizeof(go) + sizeof(tail) + sizeof(page) + sizeof(tokens) + PAGE_BYTES)
        return;
    memcpy(&go, data, sizeof(go));
    memcpy(&tail, data + sizeof(go), sizeof(tail));
    memcpy(&page, data + sizeof(go) + sizeof(tail), sizeof(page));
    memcpy(tokens, data + sizeof(go) + sizeof(tail) + sizeof(page), sizeof(tokens));
    const uint8_t *bytes = data + size - PAGE_BYTES;
    require(pull_go_check(&go, MOST) != 0 || go.pages <= MOST);
    require(pull_tail_check(&tail, 3, pull_sum(0, &page)) != 0 || tail.pages == 3);
    const int was = pull_page_check(&page, 3, tokens, bytes, PAGE_BYTES);
    pull_page_seal(&page, 3, tokens, bytes, PAGE_BYTES);
    require(pull_page_check(&page, 3, tokens, bytes, PAGE_BYTES) == 0);
    require(was <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const int repair = data[0] & 1;
    ask(data + 1, size - 1, repair);
    head(data + 1, size - 1, repair);
    rest(data + 1, size - 1);
    return 0;
}
