/* SPDX-License-Identifier: Apache-2.0 */
/* Drives a fuzz target without libFuzzer: every corpus file, damaged copies of it, and seeded
 * random inputs. Linked into each fuzz_<name> test by weft_fuzz(); same inputs on every run. */
#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_INPUTS  2000u
#define DAMAGED_COPIES 64u   /* of a file ... */
#define DAMAGED_TOTAL  1536u /* ... and of all, or a larger corpus would take longer and longer */
#define FILE_MAX_BYTES (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* splitmix64: https://prng.di.unimi.it/splitmix64.c (public domain), the algorithm only. */
static uint64_t rng_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* A heap copy of the exact size, so that the address sanitizer sees the first byte read past it. */
static void run_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) {
        fprintf(stderr, "replay: out of memory\n");
        exit(1);
    }
    if (size)
        memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_damaged(uint8_t *data, size_t size, unsigned copies, uint64_t *rng)
{
    for (unsigned i = 0; size && i < copies; i++) {
        size_t at = (size_t)(rng_next(rng) % size);
        uint8_t kept = data[at];
        data[at] ^= (uint8_t)(1u << (rng_next(rng) & 7));
        run_copy(data, size);
        data[at] = kept;
        run_copy(data, (size_t)(rng_next(rng) % size));
    }
}

static int run_file(const char *folder, const char *name, unsigned copies, uint64_t *rng)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        return -1;
    FILE *file = fopen(path, "rb");
    if (!file)
        return -1;
    uint8_t *data = malloc(FILE_MAX_BYTES);
    if (!data) {
        fclose(file);
        return -1;
    }
    size_t size = fread(data, 1, FILE_MAX_BYTES, file);
    fclose(file);
    if (size == 0) { /* was something else when it was made */
        fprintf(stderr, "replay: %s is empty\n", path);
        free(data);
        return -1;
    }
    run_copy(data, size);
    run_damaged(data, size, copies, rng);
    free(data);
    return 0;
}

/* Names sorted by scandir, so the order does not depend on the file system. */
static int run_corpus(const char *folder, uint64_t *rng)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, alphasort);
    const unsigned share = count > 0 ? DAMAGED_TOTAL / (unsigned)count : 0;
    const unsigned copies = share == 0 ? 1 : share < DAMAGED_COPIES ? share : DAMAGED_COPIES;
    int failed = count < 0;
    int files = 0;
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            failed |= run_file(folder, entries[i]->d_name, copies, rng) < 0;
            files++;
        }
        free(entries[i]);
    }
    free(entries);
    if (failed)
        fprintf(stderr, "replay: cannot read the corpus %s\n", folder);
    else
        printf("replay: %d corpus files from %s\n", files, folder);
    return failed ? -1 : 0;
}

static void run_random(size_t max_len, uint64_t *rng)
{
    uint8_t *data = malloc(max_len);
    if (!data)
        exit(1);
    for (unsigned i = 0; i < RANDOM_INPUTS; i++) {
        size_t size = (size_t)(rng_next(rng) % (max_len + 1));
        if (i & 1)
            size %= 129; /* half of them short: most parsers decide in the first bytes */
        for (size_t j = 0; j < size; j++)
            data[j] = (uint8_t)rng_next(rng);
        run_copy(data, size);
    }
    free(data);
    printf("replay: %u random inputs of up to %zu bytes\n", RANDOM_INPUTS, max_len);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s MAX_LEN [CORPUS]\n", argv[0]);
        return 2;
    }
    size_t max_len = (size_t)strtoul(argv[1], NULL, 10);
    uint64_t rng = 1;
    if (max_len == 0 || max_len > FILE_MAX_BYTES) {
        fprintf(stderr, "%s: MAX_LEN must be 1..%u\n", argv[0], FILE_MAX_BYTES);
        return 2;
    }
    if (argc == 3 && argv[2][0] && run_corpus(argv[2], &rng) < 0)
        return 1;
    run_random(max_len, &rng);
    return 0;
}
