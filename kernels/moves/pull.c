/* SPDX-License-Identifier: Apache-2.0 */
/* See pull.h. */
#include "kernels/moves/pull.h"

#include <errno.h>
#include <string.h>

#include "schemas/base/crc32c.h"

#define LEARN_LEAST_BYTES (1u << 20) /* shorter pulls say nothing about the rate */
#define LEARN_PART        0.3        /* of the newest in the average */
#define ERRNO_MAX         4095       /* an error's number is none beyond */

static uint32_t ask_crc(const struct pull_ask *ask, const uint32_t *tokens)
{
    const uint32_t sum = crc32c(0, ask, offsetof(struct pull_ask, crc));
    return crc32c(sum, tokens, (size_t)ask->tokens * sizeof(*tokens));
}

void pull_ask_seal(struct pull_ask *ask, const struct pull_kind *kind, const uint32_t *tokens,
                   uint32_t count, uint32_t first)
{
    *ask = (struct pull_ask){
        .magic = PULL_MAGIC,
        .version = PULL_VERSION,
        .size = sizeof(*ask),
        .kind = *kind,
        .tokens = count,
        .first = first,
    };
    ask->crc = ask_crc(ask, tokens);
}

int pull_ask_check(const struct pull_ask *ask, const struct pull_kind *own)
{
    if (ask->magic != PULL_MAGIC)
        return -EINVAL;
    if (ask->version != PULL_VERSION || ask->size != sizeof(*ask))
        return -EPROTO;
    if (memcmp(&ask->kind, own, sizeof(*own)) != 0 || own->arithmetic == 0)
        return -ESTALE;
    if (ask->tokens == 0 || ask->tokens > PULL_TOKENS_MAX || ask->tokens % own->page_tokens ||
        ask->first >= ask->tokens / own->page_tokens)
        return -EINVAL;
    return 0;
}

int pull_tokens_check(const struct pull_ask *ask, const uint32_t *tokens)
{
    if (ask->crc != ask_crc(ask, tokens))
        return -EINVAL;
    for (uint32_t i = 0; i < ask->tokens; i++)
        if (tokens[i] >= ask->kind.vocab)
            return -EINVAL;
    return 0;
}

void pull_head_seal(struct pull_head *head, int status, uint32_t pages)
{
    *head = (struct pull_head){
        .magic = PULL_MAGIC,
        .version = PULL_VERSION,
        .size = sizeof(*head),
        .status = status,
        .pages = status ? 0 : pages,
    };
    head->crc = crc32c(0, head, offsetof(struct pull_head, crc));
}

int pull_head_check(const struct pull_head *head, uint32_t most)
{
    if (head->magic != PULL_MAGIC)
        return -EINVAL;
    if (head->version != PULL_VERSION || head->size != sizeof(*head))
        return -EPROTO;
    if (head->crc != crc32c(0, head, offsetof(struct pull_head, crc)) || head->pages > most ||
        head->status > 0 || head->status < -ERRNO_MAX)
        return -EINVAL;
    return head->status;
}

void pull_go_seal(struct pull_go *go, uint32_t pages)
{
    go->pages = pages;
    go->crc = crc32c(0, &go->pages, sizeof(go->pages));
}

int pull_go_check(const struct pull_go *go, uint32_t most)
{
    return go->pages <= most && go->crc == crc32c(0, &go->pages, sizeof(go->pages)) ? 0 : -EINVAL;
}

static uint32_t page_crc(uint32_t index, const uint32_t *tokens, const void *bytes,
                         size_t page_bytes)
{
    uint32_t sum = crc32c(0, &index, sizeof(index));
    sum = crc32c(sum, tokens, EXEC_PAGE_TOKENS * sizeof(*tokens));
    return crc32c(sum, bytes, page_bytes);
}

void pull_page_seal(struct pull_page *page, uint32_t index, const uint32_t *tokens,
                    const void *bytes, size_t page_bytes)
{
    *page = (struct pull_page){index, page_crc(index, tokens, bytes, page_bytes)};
}

int pull_page_check(const struct pull_page *page, uint32_t index, const uint32_t *tokens,
                    const void *bytes, size_t page_bytes)
{
    return page->index == index && page->crc == page_crc(index, tokens, bytes, page_bytes)
               ? 0
               : -EINVAL;
}

uint32_t pull_sum(uint32_t sum, const struct pull_page *page)
{
    return crc32c(sum, &page->crc, sizeof(page->crc));
}

void pull_tail_seal(struct pull_tail *tail, uint32_t pages, uint32_t sum)
{
    *tail = (struct pull_tail){.pages = pages, .sum = sum};
    tail->crc = crc32c(0, tail, offsetof(struct pull_tail, crc));
}

int pull_tail_check(const struct pull_tail *tail, uint32_t pages, uint32_t sum)
{
    return tail->pages == pages && tail->sum == sum &&
                   tail->crc == crc32c(0, tail, offsetof(struct pull_tail, crc))
               ? 0
               : -EINVAL;
}

/* ---- is it worth it? ---- */

double pull_seconds(const struct pull_rates *rates, uint64_t pages, size_t page_bytes)
{
    const double begin = rates->bytes_per_second > 0.0 ? rates->begin_seconds : PULL_FIRST_BEGIN;
    const double rate = rates->bytes_per_second > 0.0 ? rates->bytes_per_second : PULL_FIRST_RATE;
    return begin + (double)pages * (double)page_bytes / rate;
}

bool pull_pays(const struct pull_rates *rates, uint64_t pages, size_t page_bytes,
               double prefill_per_second)
{
    return pages > 0 && prefill_per_second > 0.0 &&
           (double)pages * EXEC_PAGE_TOKENS / prefill_per_second >
               PULL_GAIN * pull_seconds(rates, pages, page_bytes);
}

static double blend(double old, double fresh)
{
    return old + LEARN_PART * (fresh - old);
}

void pull_learn(struct pull_rates *rates, uint64_t bytes, double begin_seconds, double seconds)
{
    if (bytes < LEARN_LEAST_BYTES || !(seconds > 0.0))
        return;
    const bool first = !(rates->bytes_per_second > 0.0);
    const double rate = (double)bytes / seconds;
    rates->bytes_per_second = first ? rate : blend(rates->bytes_per_second, rate);
    rates->begin_seconds = first ? begin_seconds : blend(rates->begin_seconds, begin_seconds);
}

void pull_slower(struct pull_rates *rates)
{
    if (!(rates->bytes_per_second > 0.0))
        *rates = (struct pull_rates){PULL_FIRST_RATE, PULL_FIRST_BEGIN};
    rates->bytes_per_second /= 4.0;
}
