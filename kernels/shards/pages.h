/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - pages of the KV cache of ranks, outside: what a whole model's page looks like
 * (kernels/cpu/cache.c: [layer][key, value][KV head][position][width], float32) and which of it a
 * rank has. Pages outside do not know how they were cut: whoever computes alike may take them.
 * Pure; used by shards.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/model/part.h"

/* Bytes of a page of the whole model. */
size_t shards_page_bytes(const struct model *whole);

/* Bytes of a rank's part of it. */
size_t shards_part_bytes(const struct model *whole, const struct model_share *share);

/* The rank's part into its place in the page. A KV head that lies at two ranks is the same at both.
 */
void shards_part_put(const struct model *whole, const struct model_share *share, const void *part,
                     void *page);

/* The opposite. */
void shards_part_take(const struct model *whole, const struct model_share *share, const void *page,
                      void *part);
