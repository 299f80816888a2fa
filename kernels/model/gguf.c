/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF reader. One forward pass over the header with a cursor that cannot leave the file, then two
 * sorted tables for lookups. */
#include "kernels/model/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GGUF_MAGIC             0x46554747u /* "GGUF" */
#define GGUF_ALIGNMENT_DEFAULT 32u
#define GGUF_ALIGNMENT_MAX     (1u << 20)
#define GGUF_KEY_MAX           65535u
/* Least bytes of one entry, which bounds what a count may claim. */
#define GGUF_KV_MIN_BYTES     (8u + 4u + 1u)
#define GGUF_TENSOR_MIN_BYTES (8u + 4u + 8u + 4u + 8u)

struct gguf_value {
    struct gguf_str key;
    uint32_t type;
    const uint8_t *data; /* scalar bytes */
    struct gguf_str str;
    struct gguf_array array;
};

struct gguf {
    const uint8_t *data;
    size_t size;
    bool mapped;
    struct gguf_value *values; /* sorted by key */
    size_t value_count;
    struct gguf_tensor *tensors; /* sorted by name */
    size_t tensor_count;
};

struct reader {
    const uint8_t *data;
    size_t size;
    size_t at;
    bool failed; /* sticky: the file ended too early */
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 2, 3))) static int reader_fail(struct reader *r, const char *format,
                                                             ...)
{
    if (r->why && r->why_size) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(r->why, r->why_size, format, args);
        va_end(args);
    }
    return -EINVAL;
}

static const uint8_t *reader_take(struct reader *r, uint64_t count)
{
    if (r->failed || count > r->size - r->at) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->data + r->at;
    r->at += (size_t)count;
    return p;
}

static uint32_t reader_u32(struct reader *r)
{
    uint32_t v = 0;
    const uint8_t *p = reader_take(r, sizeof(v));
    if (p)
        memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t reader_u64(struct reader *r)
{
    uint64_t v = 0;
    const uint8_t *p = reader_take(r, sizeof(v));
    if (p)
        memcpy(&v, p, sizeof(v));
    return v;
}

static struct gguf_str reader_str(struct reader *r)
{
    struct gguf_str s = {NULL, 0};
    uint64_t len = reader_u64(r);
    const uint8_t *p = reader_take(r, len);
    if (p) {
        s.data = (const char *)p;
        s.len = (size_t)len;
    }
    return s;
}

/* Bytes of a scalar type, 0 for strings, arrays and unknown types. */
static uint32_t scalar_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof(bytes) ? bytes[type] : 0;
}

static int read_array(struct reader *r, struct gguf_array *array)
{
    array->type = reader_u32(r);
    array->count = reader_u64(r);
    if (r->failed)
        return reader_fail(r, "the file ends inside an array");
    array->data = r->data + r->at;
    size_t begin = r->at;
    if (array->type == GGUF_STRING) {
        for (uint64_t i = 0; i < array->count && !r->failed; i++)
            (void)reader_str(r);
    } else {
        uint32_t bytes = scalar_bytes(array->type);
        uint64_t total;
        if (bytes == 0)
            return reader_fail(r, "array of unsupported type %u", array->type);
        if (__builtin_mul_overflow(array->count, (uint64_t)bytes, &total))
            r->failed = true;
        else
            (void)reader_take(r, total);
    }
    array->size_bytes = r->at - begin;
    return r->failed ? reader_fail(r, "the file ends inside an array") : 0;
}

static int read_value(struct reader *r, struct gguf_value *value)
{
    value->key = reader_str(r);
    value->type = reader_u32(r);
    if (r->failed)
        return reader_fail(r, "the file ends inside its metadata");
    if (value->key.len == 0 || value->key.len > GGUF_KEY_MAX)
        return reader_fail(r, "metadata key of %zu bytes", value->key.len);
    if (value->type == GGUF_ARRAY)
        return read_array(r, &value->array);
    if (value->type == GGUF_STRING) {
        value->str = reader_str(r);
    } else {
        uint32_t bytes = scalar_bytes(value->type);
        if (bytes == 0)
            return reader_fail(r, "metadata value of unknown type %u", value->type);
        value->data = reader_take(r, bytes);
    }
    return r->failed ? reader_fail(r, "the file ends inside its metadata") : 0;
}

static int str_compare(struct gguf_str a, struct gguf_str b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    if (order)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

static int value_compare(const void *a, const void *b)
{
    return str_compare(((const struct gguf_value *)a)->key, ((const struct gguf_value *)b)->key);
}

static int tensor_compare(const void *a, const void *b)
{
    return str_compare(((const struct gguf_tensor *)a)->name,
                       ((const struct gguf_tensor *)b)->name);
}

static int read_values(struct reader *r, gguf_t *file, uint64_t count)
{
    if (count > (r->size - r->at) / GGUF_KV_MIN_BYTES)
        return reader_fail(r, "more metadata claimed than the file can hold");
    file->values = calloc((size_t)count + 1, sizeof(*file->values));
    if (!file->values)
        return -ENOMEM;
    file->value_count = (size_t)count;
    for (size_t i = 0; i < file->value_count; i++) {
        int rc = read_value(r, &file->values[i]);
        if (rc)
            return rc;
    }
    qsort(file->values, file->value_count, sizeof(*file->values), value_compare);
    for (size_t i = 1; i < file->value_count; i++)
        if (value_compare(&file->values[i - 1], &file->values[i]) == 0)
            return reader_fail(r, "a metadata key occurs twice");
    return 0;
}

static const struct tensor_type {
    uint32_t type;
    uint16_t elements;
    uint16_t size_bytes;
    char name[8];
} tensor_types[] = {
    {GGUF_TENSOR_F32, 1, 4, "F32"},       {GGUF_TENSOR_F16, 1, 2, "F16"},
    {GGUF_TENSOR_BF16, 1, 2, "BF16"},     {GGUF_TENSOR_Q4_0, 32, 18, "Q4_0"},
    {GGUF_TENSOR_Q4_1, 32, 20, "Q4_1"},   {GGUF_TENSOR_Q5_0, 32, 22, "Q5_0"},
    {GGUF_TENSOR_Q5_1, 32, 24, "Q5_1"},   {GGUF_TENSOR_Q8_0, 32, 34, "Q8_0"},
    {GGUF_TENSOR_Q4_K, 256, 144, "Q4_K"}, {GGUF_TENSOR_Q5_K, 256, 176, "Q5_K"},
    {GGUF_TENSOR_Q6_K, 256, 210, "Q6_K"},
};

static const struct tensor_type *tensor_type_find(uint32_t type)
{
    for (size_t i = 0; i < sizeof(tensor_types) / sizeof(tensor_types[0]); i++)
        if (tensor_types[i].type == type)
            return &tensor_types[i];
    return NULL;
}

bool gguf_tensor_block(uint32_t type, uint32_t *elements, uint32_t *size_bytes)
{
    const struct tensor_type *found = tensor_type_find(type);
    if (!found)
        return false;
    *elements = found->elements;
    *size_bytes = found->size_bytes;
    return true;
}

const char *gguf_tensor_type_name(uint32_t type)
{
    const struct tensor_type *found = tensor_type_find(type);
    return found ? found->name : "?";
}

/* Name and shape; leaves the tensor's offset in size_bytes until the data section is known. */
static int read_tensor(struct reader *r, struct gguf_tensor *tensor)
{
    tensor->name = reader_str(r);
    tensor->dim_count = reader_u32(r);
    if (r->failed)
        return reader_fail(r, "the file ends inside its tensor list");
    if (tensor->name.len == 0 || tensor->name.len > GGUF_KEY_MAX)
        return reader_fail(r, "tensor name of %zu bytes", tensor->name.len);
    if (tensor->dim_count == 0 || tensor->dim_count > GGUF_DIMS_MAX)
        return reader_fail(r, "tensor with %u dimensions", tensor->dim_count);
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++)
        tensor->dim[i] = i < tensor->dim_count ? reader_u64(r) : 1;
    tensor->type = reader_u32(r);
    uint64_t offset = reader_u64(r);
    if (r->failed)
        return reader_fail(r, "the file ends inside its tensor list");
    tensor->size_bytes = (size_t)offset;
    return 0;
}

static int place_tensor(struct reader *r, struct gguf_tensor *tensor, size_t data_begin,
                        uint32_t alignment)
{
    uint64_t offset = tensor->size_bytes;
    uint64_t size = 1;
    uint32_t elements;
    uint32_t block_bytes;
    int name_len = tensor->name.len > 64 ? 64 : (int)tensor->name.len;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++)
        if (tensor->dim[i] == 0 || __builtin_mul_overflow(size, tensor->dim[i], &size))
            return reader_fail(r, "tensor %.*s has an impossible shape", name_len,
                               tensor->name.data);
    tensor->size_bytes = 0;
    if (!gguf_tensor_block(tensor->type, &elements, &block_bytes))
        return 0; /* unknown type: listed, without data */
    if (tensor->dim[0] % elements)
        return reader_fail(r, "tensor %.*s has rows of broken blocks", name_len, tensor->name.data);
    if (__builtin_mul_overflow(size / elements, (uint64_t)block_bytes, &size) ||
        offset % alignment || offset > r->size - data_begin || size > r->size - data_begin - offset)
        return reader_fail(r, "tensor %.*s lies outside the file", name_len, tensor->name.data);
    tensor->data = r->data + data_begin + offset;
    tensor->size_bytes = (size_t)size;
    return 0;
}

static int read_tensors(struct reader *r, gguf_t *file, uint64_t count)
{
    uint32_t alignment = GGUF_ALIGNMENT_DEFAULT;
    if (gguf_get_u32(file, "general.alignment", &alignment) == -EINVAL || alignment == 0 ||
        alignment > GGUF_ALIGNMENT_MAX || alignment % 8)
        return reader_fail(r, "general.alignment is not usable");
    if (count > (r->size - r->at) / GGUF_TENSOR_MIN_BYTES)
        return reader_fail(r, "more tensors claimed than the file can hold");
    file->tensors = calloc((size_t)count + 1, sizeof(*file->tensors));
    if (!file->tensors)
        return -ENOMEM;
    file->tensor_count = (size_t)count;
    for (size_t i = 0; i < file->tensor_count; i++) {
        int rc = read_tensor(r, &file->tensors[i]);
        if (rc)
            return rc;
    }
    size_t begin = r->at + (alignment - r->at % alignment) % alignment;
    if (begin > r->size) {
        if (count)
            return reader_fail(r, "the file ends before its tensors");
        begin = r->size;
    }
    for (size_t i = 0; i < file->tensor_count; i++) {
        int rc = place_tensor(r, &file->tensors[i], begin, alignment);
        if (rc)
            return rc;
    }
    qsort(file->tensors, file->tensor_count, sizeof(*file->tensors), tensor_compare);
    for (size_t i = 1; i < file->tensor_count; i++)
        if (tensor_compare(&file->tensors[i - 1], &file->tensors[i]) == 0)
            return reader_fail(r, "a tensor name occurs twice");
    return 0;
}

static int read_file(struct reader *r, gguf_t *file)
{
    uint32_t magic = reader_u32(r);
    uint32_t version = reader_u32(r);
    uint64_t tensor_count = reader_u64(r);
    uint64_t value_count = reader_u64(r);
    if (r->failed || magic != GGUF_MAGIC)
        return reader_fail(r, "not a GGUF file");
    if (version != 2 && version != 3) {
        (void)reader_fail(r, "GGUF version %u is not supported (2 and 3 are)", version);
        return -ENOTSUP;
    }
    int rc = read_values(r, file, value_count);
    return rc ? rc : read_tensors(r, file, tensor_count);
}

static int open_bytes(gguf_t **out, const uint8_t *data, size_t size, bool mapped, char *why,
                      size_t why_size)
{
    struct reader r = {.data = data, .size = size, .why = why, .why_size = why_size};
    gguf_t *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->data = data;
    file->size = size;
    int rc = read_file(&r, file);
    if (rc) {
        gguf_close(file);
        return rc;
    }
    file->mapped = mapped;
    *out = file;
    return 0;
}

int gguf_open_memory(gguf_t **out, const void *data, size_t size_bytes, char *why, size_t why_size)
{
    *out = NULL;
    return open_bytes(out, data, size_bytes, false, why, why_size);
}

int gguf_open(gguf_t **out, const char *path, char *why, size_t why_size)
{
    struct stat st;
    int rc = 0;
    void *data = MAP_FAILED;
    *out = NULL;
    const char *said = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO is not waited for */
    if (fd < 0 || fstat(fd, &st) < 0)
        rc = -errno;
    else if (!S_ISREG(st.st_mode))
        said = "it is no regular file";
    else if (st.st_size <= 0)
        said = "it is empty";
    rc = said ? -EINVAL : rc;
    if (rc == 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            rc = -errno;
    }
    if (fd >= 0)
        close(fd);
    if (rc) {
        if (why && why_size)
            (void)snprintf(why, why_size, "%s", said ? said : strerror(-rc));
        return rc;
    }
    rc = open_bytes(out, data, (size_t)st.st_size, true, why, why_size);
    if (rc)
        munmap(data, (size_t)st.st_size);
    return rc;
}

void gguf_close(gguf_t *file)
{
    if (!file)
        return;
    if (file->mapped)
        munmap((void *)(uintptr_t)file->data, file->size);
    free(file->values);
    free(file->tensors);
    free(file);
}

static const struct gguf_value *value_find(const gguf_t *file, const char *key)
{
    struct gguf_value wanted = {.key = {key, strlen(key)}};
    if (file->value_count == 0)
        return NULL;
    return bsearch(&wanted, file->values, file->value_count, sizeof(wanted), value_compare);
}

/* Any integer as sign and magnitude fit for comparison. */
static int value_int(const struct gguf_value *value, int64_t *out)
{
    uint64_t raw = 0;
    switch (value->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        memcpy(&raw, value->data, scalar_bytes(value->type));
        if (raw > INT64_MAX)
            return -EINVAL;
        *out = (int64_t)raw;
        return 0;
    case GGUF_I8:
        *out = (int8_t)value->data[0];
        return 0;
    case GGUF_I16: {
        int16_t v;
        memcpy(&v, value->data, sizeof(v));
        *out = v;
        return 0;
    }
    case GGUF_I32: {
        int32_t v;
        memcpy(&v, value->data, sizeof(v));
        *out = v;
        return 0;
    }
    case GGUF_I64:
        memcpy(out, value->data, sizeof(*out));
        return 0;
    default:
        return -EINVAL;
    }
}

int gguf_get_u32(const gguf_t *file, const char *key, uint32_t *out)
{
    const struct gguf_value *value = value_find(file, key);
    int64_t wide;
    if (!value)
        return -ENOENT;
    if (value_int(value, &wide) || wide < 0 || wide > UINT32_MAX)
        return -EINVAL;
    *out = (uint32_t)wide;
    return 0;
}

int gguf_get_f32(const gguf_t *file, const char *key, float *out)
{
    const struct gguf_value *value = value_find(file, key);
    if (!value)
        return -ENOENT;
    if (value->type == GGUF_F32) {
        memcpy(out, value->data, sizeof(*out));
        return 0;
    }
    if (value->type == GGUF_F64) {
        double wide;
        memcpy(&wide, value->data, sizeof(wide));
        *out = (float)wide;
        return 0;
    }
    return -EINVAL;
}

int gguf_get_bool(const gguf_t *file, const char *key, bool *out)
{
    const struct gguf_value *value = value_find(file, key);
    if (!value)
        return -ENOENT;
    if (value->type != GGUF_BOOL)
        return -EINVAL;
    *out = value->data[0] != 0;
    return 0;
}

int gguf_get_str(const gguf_t *file, const char *key, struct gguf_str *out)
{
    const struct gguf_value *value = value_find(file, key);
    if (!value)
        return -ENOENT;
    if (value->type != GGUF_STRING)
        return -EINVAL;
    *out = value->str;
    return 0;
}

int gguf_get_array(const gguf_t *file, const char *key, struct gguf_array *out)
{
    const struct gguf_value *value = value_find(file, key);
    if (!value)
        return -ENOENT;
    if (value->type != GGUF_ARRAY)
        return -EINVAL;
    *out = value->array;
    return 0;
}

bool gguf_array_str(const struct gguf_array *array, size_t *cursor, struct gguf_str *out)
{
    uint64_t len;
    if (array->type != GGUF_STRING || array->size_bytes - *cursor < sizeof(len))
        return false;
    memcpy(&len, array->data + *cursor, sizeof(len));
    *cursor += sizeof(len);
    out->data = (const char *)array->data + *cursor;
    out->len = (size_t)len;
    *cursor += (size_t)len;
    return true;
}

size_t gguf_tensor_count(const gguf_t *file)
{
    return file->tensor_count;
}

const struct gguf_tensor *gguf_tensor_at(const gguf_t *file, size_t index)
{
    return index < file->tensor_count ? &file->tensors[index] : NULL;
}

const struct gguf_tensor *gguf_tensor_find(const gguf_t *file, const char *name)
{
    struct gguf_tensor wanted = {.name = {name, strlen(name)}};
    if (file->tensor_count == 0)
        return NULL;
    return bsearch(&wanted, file->tensors, file->tensor_count, sizeof(wanted), tensor_compare);
}

size_t gguf_size_bytes(const gguf_t *file)
{
    return file->size;
}

bool gguf_str_equal(struct gguf_str a, const char *b)
{
    return a.len == strlen(b) && memcmp(a.data, b, a.len) == 0;
}
