/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs, memory and comparison for the cases of the GPU's operations. */
#include "tests/gpu/lab.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/gguf.h"

void lab_init(struct lab *lab, struct device *device, uint64_t seed)
{
    memset(lab, 0, sizeof(*lab));
    lab->device = device;
    lab->rng = seed;
}

void lab_deinit(struct lab *lab)
{
    while (lab->device_count)
        device_free(lab->device_things[--lab->device_count]);
    while (lab->host_count)
        free(lab->host_things[--lab->host_count]);
}

void lab_fail(struct lab *lab, const char *format, ...)
{
    va_list args;
    if (lab->failure[0])
        return;
    va_start(args, format);
    (void)vsnprintf(lab->failure, sizeof(lab->failure), format, args);
    va_end(args);
}

bool lab_is_well(const struct lab *lab)
{
    return lab->failure[0] == 0;
}

void lab_check(struct lab *lab, int rc, const char *what)
{
    if (rc)
        lab_fail(lab, "%s returned %d", what, rc);
}

/* splitmix64 (https://prng.di.unimi.it/splitmix64.c, the algorithm only). */
uint64_t lab_random(struct lab *lab)
{
    uint64_t z = (lab->rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t lab_below(struct lab *lab, uint32_t limit)
{
    return (uint32_t)(lab_random(lab) % limit);
}

float lab_float(struct lab *lab)
{
    return (float)(lab_random(lab) >> 40) * 0x1p-23f - 1.0f;
}

void *lab_host(struct lab *lab, size_t size_bytes)
{
    void *memory = malloc(size_bytes ? size_bytes : 1);
    if (!memory || lab->host_count == LAB_THINGS_MAX)
        abort();
    lab->host_things[lab->host_count++] = memory;
    return memory;
}

float *lab_floats(struct lab *lab, size_t count)
{
    float *out = lab_host(lab, count * sizeof(*out));
    for (size_t i = 0; i < count; i++)
        out[i] = lab_float(lab);
    return out;
}

void *lab_device(struct lab *lab, size_t size_bytes)
{
    void *memory = NULL;
    if (!lab_is_well(lab))
        return NULL;
    if (lab->device_count == LAB_THINGS_MAX)
        abort();
    lab_check(lab, device_alloc(&memory, size_bytes ? size_bytes : 1), "device_alloc");
    if (!lab_is_well(lab))
        return NULL;
    lab->device_things[lab->device_count++] = memory;
    lab_check(lab, device_fill(lab->device, memory, 0xff, size_bytes), "device_fill");
    return memory;
}

void *lab_upload(struct lab *lab, const void *data, size_t size_bytes)
{
    void *memory = lab_device(lab, size_bytes);
    if (memory && size_bytes) {
        lab_check(lab, device_copy(lab->device, memory, data, size_bytes), "device_copy");
        lab_check(lab, device_wait(lab->device), "device_wait");
    }
    return memory;
}

void lab_download(struct lab *lab, void *to, const void *from, size_t size_bytes)
{
    if (!lab_is_well(lab))
        return;
    lab_check(lab, device_copy(lab->device, to, from, size_bytes), "device_copy");
    lab_check(lab, device_wait(lab->device), "device_wait");
}

/* A half of about `size`, either sign. */
static uint16_t random_half(struct lab *lab, float size)
{
    int exponent;
    (void)frexpf(size, &exponent);
    const uint32_t r = (uint32_t)lab_random(lab);
    return (uint16_t)((r & 0x8000u) | (uint32_t)(exponent + 14) << 10 | (r >> 16 & 0x3ffu));
}

static void put_half(uint8_t *at, uint16_t half)
{
    memcpy(at, &half, sizeof(half));
}

/* Makes the scales of a block of random bytes such that its weights are of about `size`. */
static void settle_block(struct lab *lab, uint32_t type, float size, uint8_t *block)
{
    const float value = lab_float(lab) * size;
    const uint16_t half = random_half(lab, size / 8.0f);
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    switch (type) {
    case WEIGHTS_F32:
        memcpy(block, &value, sizeof(value));
        break;
    case WEIGHTS_F16:
        put_half(block, random_half(lab, size));
        break;
    case WEIGHTS_BF16:
        put_half(block, (uint16_t)(bits >> 16));
        break;
    case WEIGHTS_Q8_0:
        put_half(block, random_half(lab, size / 128.0f));
        break;
    case WEIGHTS_Q6_K:
        put_half(block + 208, random_half(lab, size / 4096.0f));
        break;
    case WEIGHTS_Q4_K:
    case WEIGHTS_Q5_K:
        put_half(block, random_half(lab, size / 512.0f));
        put_half(block + 2, random_half(lab, size / 64.0f));
        break;
    default:
        put_half(block, half);
        if (type == WEIGHTS_Q4_1 || type == WEIGHTS_Q5_1)
            put_half(block + 2, (uint16_t)((half ^ 0x8000u) + (3u << 10)));
    }
}

void lab_blocks(struct lab *lab, uint32_t type, float size, uint8_t *data, size_t size_bytes)
{
    uint32_t elements;
    uint32_t block_bytes;
    if (!gguf_tensor_block(type, &elements, &block_bytes))
        return;
    for (size_t i = 0; i < size_bytes; i++)
        data[i] = (uint8_t)lab_random(lab);
    for (size_t at = 0; at + block_bytes <= size_bytes; at += block_bytes)
        settle_block(lab, type, size, data + at);
}

bool lab_matrix(struct lab *lab, uint32_t type, uint32_t rows, uint32_t cols, float size,
                struct model_tensor *tensor, struct weights *on_device)
{
    uint32_t elements;
    uint32_t block_bytes;
    if (!gguf_tensor_block(type, &elements, &block_bytes))
        return false;
    const size_t row_bytes = (size_t)cols / elements * block_bytes;
    uint8_t *data = lab_host(lab, rows * row_bytes);
    lab_blocks(lab, type, size, data, rows * row_bytes);
    *tensor = (struct model_tensor){
        .data = data, .type = type, .rows = rows, .cols = cols, .row_bytes = row_bytes};
    lab_check(lab, weights_layout(on_device, type, rows, cols), "weights_layout");
    if (!lab_is_well(lab))
        return true;
    uint8_t *planes = lab_host(lab, on_device->size_bytes);
    memset(planes, 0xff, on_device->size_bytes);
    weights_pack(on_device, tensor, 0, rows / 2, planes);
    weights_pack(on_device, tensor, rows / 2, rows, planes);
    on_device->data = lab_upload(lab, planes, on_device->size_bytes);
    return true;
}

void lab_compare(struct lab *lab, const char *what, const float *got, const float *want,
                 size_t count, float tolerance)
{
    for (size_t i = 0; i < count && lab_is_well(lab); i++)
        if (!(fabsf(got[i] - want[i]) <= tolerance * (1.0f + fabsf(want[i]))))
            lab_fail(lab, "%s[%zu of %zu] is %.9g, not %.9g", what, i, count, (double)got[i],
                     (double)want[i]);
}
