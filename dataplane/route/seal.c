/* SPDX-License-Identifier: Apache-2.0 */
/* seal.c - see seal.h. */
#include "dataplane/route/seal.h"

#include <sodium.h>
#include <string.h>

_Static_assert(crypto_kdf_KEYBYTES == SEAL_MASTER_BYTES, "master key size");
_Static_assert(crypto_kdf_BYTES_MIN <= SEAL_KEY_BYTES, "derived key size");
#define KEY_CONTEXT "weftseal" /* 8 bytes */

/* Words of each kind's input, the last one of 7 bytes at most. */
static const uint32_t words_of[SEAL_KINDS] = {2, 4, 5}; /* of SEAL_RETURN: seal.h */

/* The last word: up to six bytes, the kind's mark behind them, the input's length on top. */
static inline uint64_t last_word(enum seal_kind kind, uint64_t bytes, uint32_t bytes_size)
{
    uint64_t size = 8u * (words_of[kind] - 1) + bytes_size + 1;
    return bytes | ((uint64_t)kind + 1) << (8 * bytes_size) | size << 56;
}

void seal_master_draw(struct seal_master *master)
{
    randombytes_buf(master->bytes, sizeof(master->bytes));
}

static void derive(struct seal *seal, uint8_t *key, uint64_t period)
{
    crypto_kdf_derive_from_key(key, SEAL_KEY_BYTES, period, KEY_CONTEXT, seal->master.bytes);
}

static void derive_both(struct seal *seal, uint64_t period)
{
    seal->period = period;
    derive(seal, seal->keys[0], period);
    derive(seal, seal->keys[1], period - 1);
}

void seal_init(struct seal *seal, const struct seal_master *master, uint64_t now_ns)
{
    memset(seal, 0, sizeof(*seal));
    seal->master = *master;
    derive_both(seal, now_ns / SEAL_LIFE_NS);
}

void seal_tick(struct seal *seal, uint64_t now_ns)
{
    if (__builtin_expect(now_ns - seal->period * SEAL_LIFE_NS >= SEAL_LIFE_NS, 0)) {
        derive_both(seal, now_ns / SEAL_LIFE_NS);
    }
}

void seal_add_cookie(struct seal_batch *batch, const struct in6_addr *addr, uint16_t port_be,
                     uint64_t conn_id, uint64_t claimed)
{
    struct siphash_batch *h = &batch->hash;
    uint32_t i = h->count++;
    batch->claimed[i] = claimed;
    h->words[0][i] = conn_id;
    if (__builtin_expect(addr_is_v4(addr), 1)) {
        h->words[1][i] = last_word(SEAL_COOKIE, addr_v4(addr) | (uint64_t)port_be << 32, 6);
        return;
    }
    memcpy(&h->words[1][i], addr->s6_addr, sizeof(uint64_t));
    memcpy(&h->words[2][i], addr->s6_addr + sizeof(uint64_t), sizeof(uint64_t));
    h->words[3][i] = last_word(SEAL_COOKIE_IP6, port_be, 2);
}

void seal_add_return(struct seal_batch *batch, const struct weft_return *block, uint64_t conn_id)
{
    WEFT_ASSERT(offsetof(struct weft_return, tag) == 3 * sizeof(uint64_t), "three words");
    uint64_t words[3];
    memcpy(words, block, sizeof(words));
    seal_add_return_words(batch, words, conn_id);
    batch->claimed[batch->hash.count - 1] = block->tag;
}

static void run(const uint8_t *key, enum seal_kind kind, struct siphash_batch *hash)
{
    siphash_run(hash, words_of[kind], key);
    for (uint32_t i = 0; kind != SEAL_RETURN && i < hash->count; i++) {
        hash->hashes[i] += hash->hashes[i] == 0; /* 0 stands for no cookie */
    }
}

void seal_make(const struct seal *seal, enum seal_kind kind, struct seal_batch *batch)
{
    run(seal->keys[0], kind, &batch->hash);
}

/* Those that are not proven under the current key, under the previous one. The rare way: just
 * after a change of keys, or for who guesses. */
static __attribute__((noinline)) void check_again(const struct seal *seal, enum seal_kind kind,
                                                  struct seal_batch *batch)
{
    struct siphash_batch again = {.count = 0};
    uint32_t which[SIPHASH_BATCH];
    for (uint32_t i = 0; i < batch->hash.count; i++) {
        if ((batch->valid >> i & 1) == 0 && (kind == SEAL_RETURN || batch->claimed[i] != 0)) {
            for (uint32_t w = 0; w < words_of[kind]; w++) {
                again.words[w][again.count] = batch->hash.words[w][i];
            }
            which[again.count++] = i;
        }
    }
    run(seal->keys[1], kind, &again);
    for (uint32_t i = 0; i < again.count; i++) {
        batch->valid |= (uint32_t)(again.hashes[i] == batch->claimed[which[i]]) << which[i];
    }
}

void seal_check(const struct seal *seal, enum seal_kind kind, struct seal_batch *batch)
{
    run(seal->keys[0], kind, &batch->hash);
    uint32_t valid = 0, missing = 0;
    for (uint32_t i = 0; i < batch->hash.count; i++) {
        uint32_t right = batch->hash.hashes[i] == batch->claimed[i];
        valid |= right << i;
        missing |= !right && (kind == SEAL_RETURN || batch->claimed[i] != 0);
    }
    batch->valid = valid;
    if (__builtin_expect(missing, 0)) {
        check_again(seal, kind, batch);
    }
}

uint64_t seal_cookie(const struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                     uint64_t conn_id)
{
    struct seal_batch batch = {.valid = 0};
    seal_add_cookie(&batch, addr, port_be, conn_id, 0);
    seal_make(seal, seal_cookie_kind(addr), &batch);
    return batch.hash.hashes[0];
}

bool seal_cookie_ok(const struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                    uint64_t conn_id, uint64_t cookie)
{
    struct seal_batch batch = {.valid = 0};
    seal_add_cookie(&batch, addr, port_be, conn_id, cookie);
    seal_check(seal, seal_cookie_kind(addr), &batch);
    return batch.valid != 0;
}

void seal_return(const struct seal *seal, struct weft_return *block, uint64_t conn_id)
{
    struct seal_batch batch = {.valid = 0};
    seal_add_return(&batch, block, conn_id);
    seal_make(seal, SEAL_RETURN, &batch);
    block->tag = batch.hash.hashes[0];
}

bool seal_return_ok(const struct seal *seal, const struct weft_return *block, uint64_t conn_id)
{
    struct seal_batch batch = {.valid = 0};
    seal_add_return(&batch, block, conn_id);
    seal_check(seal, SEAL_RETURN, &batch);
    return batch.valid != 0;
}
