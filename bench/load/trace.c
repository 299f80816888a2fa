/* SPDX-License-Identifier: Apache-2.0 */
/* trace.c - see trace.h. */
#include "bench/load/trace.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FIELD_MAX   64u
#define NS_PER_DAY  UINT64_C(86400000000000)
#define FILE_MAX    (1ll << 31)
#define FIRST_SLOTS 1024u

/* Room for `more` elements; *items is an array of `size` bytes each. */
static int reserve(void **items, uint32_t *capacity, uint32_t count, size_t more, size_t size)
{
    uint64_t need = (uint64_t)count + more;
    uint64_t room = *capacity == 0 ? FIRST_SLOTS : *capacity;
    while (room < need) {
        room *= 2;
    }
    if (room > UINT32_MAX / 2) {
        return -E2BIG;
    }
    if (room != *capacity) {
        void *grown = realloc(*items, room * size);
        if (grown == NULL) {
            return -ENOMEM;
        }
        *items = grown;
        *capacity = (uint32_t)room;
    }
    return 0;
}

static int add_entry(struct trace *t, const struct trace_entry *entry)
{
    void *entries = t->entries;
    if (t->count == TRACE_ENTRIES_MAX) {
        return -E2BIG;
    }
    int rc = reserve(&entries, &t->capacity, t->count, 1, sizeof(*entry));
    t->entries = entries;
    if (rc == 0) {
        t->entries[t->count++] = *entry;
    }
    return rc;
}

/* ---- CSV ---- */

/* Days since 1970-01-01 of a date in the Gregorian calendar, from year 1 on. */
static uint64_t days_of(int year, int month, int day)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int y = year - 1;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int days = y * 365 + y / 4 - y / 100 + y / 400 + before[month - 1] + (leap && month > 2) + day;
    return (uint64_t)(days - 719163);
}

/* "YYYY-MM-DD HH:MM:SS[.fraction]" to ns since 1970. */
static int time_of(const char *text, uint64_t *at_ns)
{
    int year, month, day, hour, minute, second, used = 0;
    if (sscanf(text, "%4d-%2d-%2d %2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second,
               &used) != 6 ||
        year < 1970 || year > 2500 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
        hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) {
        return -EINVAL;
    }
    uint64_t fraction = 0, unit = 100000000;
    const char *at = text + used;
    if (*at == '.') {
        for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10) {
            fraction += (uint64_t)(*at - '0') * unit;
        }
    }
    *at_ns = days_of(year, month, day) * NS_PER_DAY +
             (uint64_t)(hour * 3600 + minute * 60 + second) * 1000000000u + fraction;
    return *at == '\0' ? 0 : -EINVAL;
}

static int tokens_of(const char *text, uint32_t *tokens)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > TRACE_TOKENS_MAX) {
        return -EINVAL;
    }
    *tokens = (uint32_t)value;
    return 0;
}

static int parse_csv_line(struct trace *t, const char *line, size_t len)
{
    char fields[3][FIELD_MAX] = {{0}};
    size_t field = 0, at = 0;
    for (size_t i = 0; i < len; i++) {
        if (line[i] == ',') {
            field++;
            at = 0;
        } else if (field < 3 && at < FIELD_MAX - 1) {
            fields[field][at++] = line[i];
        } else {
            return -EINVAL;
        }
    }
    struct trace_entry entry = {0};
    if (field != 2 || time_of(fields[0], &entry.at_ns) != 0 ||
        tokens_of(fields[1], &entry.input_tokens) != 0 ||
        tokens_of(fields[2], &entry.output_tokens) != 0) {
        return -EINVAL;
    }
    return add_entry(t, &entry);
}

/* ---- JSON lines ---- */

/* A whole number of the object, from 0 to `max`; -1 if there is none. */
static int64_t member(const json_t *object, const char *name, int64_t max)
{
    const json_t *value = json_object_get(object, name);
    int64_t n = json_is_integer(value) ? (int64_t)json_integer_value(value) : -1;
    return n <= max ? n : -1;
}

static int add_blocks(struct trace *t, const json_t *ids, struct trace_entry *entry)
{
    void *blocks = t->blocks;
    size_t count = json_array_size(ids); /* 0 if it is no array */
    int rc = reserve(&blocks, &t->block_capacity, t->block_count, count, sizeof(*t->blocks));
    t->blocks = blocks;
    entry->block = t->block_count;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        const json_t *id = json_array_get(ids, i);
        int64_t value = json_is_integer(id) ? (int64_t)json_integer_value(id) : -1;
        if (value < 0 || value > UINT32_MAX) {
            return -EINVAL;
        }
        t->blocks[t->block_count++] = (uint32_t)value;
        entry->block_count++;
    }
    return rc;
}

static int parse_json_line(struct trace *t, const char *line, size_t len)
{
    json_t *object = json_loadb(line, len, 0, NULL);
    int64_t at_ms = member(object, "timestamp", INT64_MAX / 1000000);
    int64_t input = member(object, "input_length", TRACE_TOKENS_MAX);
    int64_t output = member(object, "output_length", TRACE_TOKENS_MAX);
    int rc = at_ms < 0 || input < 0 || output < 0 ? -EINVAL : 0;
    if (rc == 0) {
        struct trace_entry entry = {.at_ns = (uint64_t)at_ms * 1000000u,
                                    .input_tokens = (uint32_t)input,
                                    .output_tokens = (uint32_t)output};
        rc = add_blocks(t, json_object_get(object, "hash_ids"), &entry);
        rc = rc == 0 ? add_entry(t, &entry) : rc;
    }
    json_decref(object);
    return rc;
}

/* ---- both ---- */

static int by_time(const void *a, const void *b)
{
    const struct trace_entry *x = a, *y = b;
    if (x->at_ns != y->at_ns) {
        return x->at_ns < y->at_ns ? -1 : 1;
    }
    return (x->block > y->block) - (x->block < y->block);
}

static int parse_lines(struct trace *t, const char *text, size_t len, uint32_t *line)
{
    const char *end = text + len;
    bool json = len > 0 && text[0] == '{';
    for (*line = 1; text < end; (*line)++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t size = (size_t)((newline != NULL ? newline : end) - text);
        size_t used = size > 0 && text[size - 1] == '\r' ? size - 1 : size;
        bool heading = *line == 1 && !json; /* names of columns */
        if (used > TRACE_LINE_MAX) {
            return -EINVAL;
        }
        if (used != 0 && !heading) {
            int rc = json ? parse_json_line(t, text, used) : parse_csv_line(t, text, used);
            if (rc != 0) {
                return rc;
            }
        }
        text += size + (newline != NULL);
    }
    return t->count != 0 ? 0 : -EINVAL;
}

int trace_parse(struct trace *trace, const char *text, size_t len, uint32_t *line)
{
    *trace = (struct trace){0};
    int rc = parse_lines(trace, text, len, line);
    if (rc != 0) {
        trace_deinit(trace);
        return rc;
    }
    qsort(trace->entries, trace->count, sizeof(*trace->entries), by_time);
    const uint64_t first_ns = trace->entries[0].at_ns;
    for (uint32_t i = 0; i < trace->count; i++) {
        trace->entries[i].at_ns -= first_ns;
    }
    return 0;
}

int trace_load(struct trace *trace, const char *path, uint32_t *line)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    int rc = f == NULL || fstat(fileno(f), &st) != 0 ? -errno : 0;
    *trace = (struct trace){0};
    *line = 0;
    if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)) {
        rc = -E2BIG;
    }
    char *text = rc == 0 ? malloc((size_t)st.st_size + 1) : NULL;
    if (rc == 0) {
        rc = text == NULL ? -ENOMEM
                          : trace_parse(trace, text, fread(text, 1, (size_t)st.st_size, f), line);
    }
    free(text);
    if (f != NULL) {
        fclose(f);
    }
    return rc;
}

void trace_deinit(struct trace *trace)
{
    free(trace->entries);
    free(trace->blocks);
    *trace = (struct trace){0};
}
