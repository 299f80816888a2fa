/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memo.c - remembers the dear pure functions of libsodium for the simulator: every node of a mesh
 * verifies the same signatures, and both ends of a pair compute the same secret. What they return
 * is what libsodium returned for the same bytes; the linker puts these in its place (--wrap).
 */
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CELLS     65536u
#define KEY_BYTES 32u

struct cell {
    uint8_t key[KEY_BYTES]; /* BLAKE2b of all that goes in */
    uint8_t value[32];
    int8_t rc;
    bool used;
};

static struct cell verified[CELLS];
static struct cell multiplied[CELLS];

int __real_crypto_sign_verify_detached(const unsigned char *sig, const unsigned char *m,
                                       unsigned long long mlen, const unsigned char *pk);
int __wrap_crypto_sign_verify_detached(const unsigned char *sig, const unsigned char *m,
                                       unsigned long long mlen, const unsigned char *pk);
int __real_crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p);
int __wrap_crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p);

static struct cell *cell_of(struct cell *cells, const uint8_t key[KEY_BYTES])
{
    uint32_t at;
    memcpy(&at, key, sizeof(at));
    return &cells[at % CELLS];
}

static bool cell_has(const struct cell *cell, const uint8_t key[KEY_BYTES])
{
    return cell->used && memcmp(cell->key, key, KEY_BYTES) == 0;
}

int __wrap_crypto_sign_verify_detached(const unsigned char *sig, const unsigned char *m,
                                       unsigned long long mlen, const unsigned char *pk)
{
    uint8_t key[KEY_BYTES];
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, KEY_BYTES);
    crypto_generichash_update(&state, sig, crypto_sign_BYTES);
    crypto_generichash_update(&state, pk, crypto_sign_PUBLICKEYBYTES);
    crypto_generichash_update(&state, m, mlen);
    crypto_generichash_final(&state, key, KEY_BYTES);
    struct cell *cell = cell_of(verified, key);
    if (!cell_has(cell, key)) {
        cell->rc = (int8_t)__real_crypto_sign_verify_detached(sig, m, mlen, pk);
        memcpy(cell->key, key, KEY_BYTES);
        cell->used = true;
    }
    return cell->rc;
}

int __wrap_crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p)
{
    uint8_t key[KEY_BYTES];
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, KEY_BYTES);
    crypto_generichash_update(&state, n, crypto_scalarmult_SCALARBYTES);
    crypto_generichash_update(&state, p, crypto_scalarmult_BYTES);
    crypto_generichash_final(&state, key, KEY_BYTES);
    struct cell *cell = cell_of(multiplied, key);
    if (!cell_has(cell, key)) {
        cell->rc = (int8_t)__real_crypto_scalarmult(cell->value, n, p);
        memcpy(cell->key, key, KEY_BYTES);
        cell->used = true;
    }
    memcpy(q, cell->value, sizeof(cell->value));
    return cell->rc;
}
