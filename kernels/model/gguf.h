/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf.h - reads GGUF version 2 and 3 files: metadata and tensors of a model, straight from the
 * mapped file. model.h makes a network of it, tokenizer.h a vocabulary.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * The file is not trusted: every count, length, offset and product is checked against the size of
 * the file while opening; what the lookups return afterwards lies inside it. Memory used is
 * proportional to the size of the header. Nothing is copied: names, strings and tensors point into
 * the file and live until gguf_close().
 *
 * Threads: immutable once open; any number of readers. Errors: 0 or a negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGUF_DIMS_MAX 4u

typedef struct gguf gguf_t;

/* Bytes inside the file, not ended by a zero. */
struct gguf_str {
    const char *data;
    size_t len;
};

/* Type of a metadata value; numbers as in the file. */
enum gguf_value_type {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
};

/* Type of a tensor's elements; numbers as in the file. Others may occur; they have no size here. */
enum gguf_tensor_type {
    GGUF_TENSOR_F32 = 0,
    GGUF_TENSOR_F16 = 1,
    GGUF_TENSOR_Q4_0 = 2,
    GGUF_TENSOR_Q4_1 = 3,
    GGUF_TENSOR_Q5_0 = 6,
    GGUF_TENSOR_Q5_1 = 7,
    GGUF_TENSOR_Q8_0 = 8,
    GGUF_TENSOR_Q4_K = 12,
    GGUF_TENSOR_Q5_K = 13,
    GGUF_TENSOR_Q6_K = 14,
    GGUF_TENSOR_BF16 = 30,
};

/* An array of the metadata. Read strings with gguf_array_str(), numbers from `data` (unaligned). */
struct gguf_array {
    uint32_t type; /* enum gguf_value_type of the elements; never GGUF_ARRAY */
    uint64_t count;
    const uint8_t *data;
    size_t size_bytes;
};

struct gguf_tensor {
    struct gguf_str name;
    uint32_t type; /* enum gguf_tensor_type, or unknown: then `data` is NULL */
    uint32_t dim_count;
    uint64_t dim[GGUF_DIMS_MAX]; /* dim[0] is the contiguous one; unused ones are 1 */
    const void *data;
    size_t size_bytes;
};

/* Maps and checks the file. `why` (may be NULL) gets a sentence when it fails. Returns 0, -errno of
 * open or mmap, -EINVAL for a file that is no sound GGUF, -ENOTSUP for another version. */
int gguf_open(gguf_t **out, const char *path, char *why, size_t why_size);

/* The same over bytes that the caller keeps until gguf_close(). */
int gguf_open_memory(gguf_t **out, const void *data, size_t size_bytes, char *why, size_t why_size);

/* NULL is fine. */
void gguf_close(gguf_t *file);

/* Typed lookup. Integers convert from any integer type that holds the value. Return 0, -ENOENT
 * without such a key, -EINVAL if it has another type or does not fit. */
int gguf_get_u32(const gguf_t *file, const char *key, uint32_t *out);
int gguf_get_f32(const gguf_t *file, const char *key, float *out);
int gguf_get_bool(const gguf_t *file, const char *key, bool *out);
int gguf_get_str(const gguf_t *file, const char *key, struct gguf_str *out);
int gguf_get_array(const gguf_t *file, const char *key, struct gguf_array *out);

/* Walks a string array: set *cursor to 0 first. Returns false at the end. */
bool gguf_array_str(const struct gguf_array *array, size_t *cursor, struct gguf_str *out);

/* Tensors, sorted by name. */
size_t gguf_tensor_count(const gguf_t *file);
const struct gguf_tensor *gguf_tensor_at(const gguf_t *file, size_t index);
const struct gguf_tensor *gguf_tensor_find(const gguf_t *file, const char *name);

/* Elements and bytes of one block of a type; false if the type is not known here. */
bool gguf_tensor_block(uint32_t type, uint32_t *elements, uint32_t *size_bytes);

/* "Q4_1", ...; "?" if unknown. Static. */
const char *gguf_tensor_type_name(uint32_t type);

size_t gguf_size_bytes(const gguf_t *file);

bool gguf_str_equal(struct gguf_str a, const char *b);
